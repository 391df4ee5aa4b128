//! `undervisor run`.

use std::io::Write;
use std::path::Path;

use emu_core::devices::virtio::VirtioDevice;
use emu_core::machine::{Image, Machine};
use emu_core::snapshot;
use riscv::hart::Riscv;
use x86::processor::X86;

use crate::console::{Shared, Verdict};
use crate::error::{UserError, about};
use crate::expect::Pattern;
use crate::gdb;
use crate::machine::{self, Config, Platform};
use crate::options::{End, OnReset, Run};
use crate::outputs::{self, Named};
use crate::recording::{self, Beginning};
use crate::runner::{Parts, Runner, Source};
use crate::trace::Tracer;

/// The other ends of the machine's consoles, by port.
fn console_ends(o: &Run, config: &Config) -> Result<Vec<End>, UserError> {
    let devices = config.virtio().iter().filter(|d| matches!(d, VirtioDevice::Console { .. })).count();
    let mut ends = if o.console.is_empty() { vec![End::Stdio] } else { o.console.clone() };
    if ends.len() > 1 + devices {
        let given = ends.len();
        return Err(UserError(format!("{given} times --console: the machine has {} (see --device)", 1 + devices)));
    }
    ends.resize(1 + devices, End::Null);
    if ends.iter().filter(|e| **e == End::Stdio).count() > 1 {
        return Err(UserError("--console stdio: standard input and output serve one console only".into()));
    }
    Ok(ends)
}

/// Files that the run writes.
fn written(o: &Run) -> Vec<Named<'_>> {
    let files = [
        ("--json", &o.json),
        ("--record", &o.record),
        ("--report", &o.report),
        ("--snapshot", &o.snapshot),
        ("--trace", &o.trace),
    ];
    let mut written = Vec::new();
    for (option, path) in files {
        written.extend(path.as_deref().map(|path| Named { option, path }));
    }
    for end in &o.console {
        if let End::File(path) = end {
            written.push(Named { option: "--console", path });
        }
    }
    written
}

/// Files that the run reads.
fn read<'a>(o: &'a Run, config: &'a Config) -> Vec<Named<'a>> {
    let mut read = machine::files(o);
    for device in config.virtio() {
        if let VirtioDevice::Drive { path, .. } = device {
            read.push(Named { option: "--drive", path });
        }
    }
    read
}

/// What is looked for in a console, failures first.
fn patterns(o: &Run) -> Result<Vec<(Verdict, Pattern)>, UserError> {
    let named =
        [("--fail-on", Verdict::Failed, o.fail_on.as_deref()), ("--expect", Verdict::Expected, o.expect.as_deref())];
    let mut patterns = Vec::new();
    for (option, verdict, text) in named {
        if let Some(text) = text {
            let pattern = Pattern::new(text).map_err(|e| about(format!("{option} {text}"), e))?;
            patterns.push((verdict, pattern));
        }
    }
    Ok(patterns)
}

/// What a snapshot is of: how its machine was made, and its state.
pub fn load_snapshot(path: &Path) -> Result<(Source, Image), UserError> {
    let (source, image) = snapshot::load(path)?;
    let source = emu_core::from_bytes(&source).map_err(|e| about(path.display(), format!("corrupted: {e}")))?;
    Ok((source, image))
}

fn build<A: Platform>(o: &Run, config: &A::Config, snapshot: Option<(&Path, Image)>) -> Result<Machine<A>, UserError> {
    let Some((path, image)) = snapshot else { return A::build(o, config) };
    let mut machine = A::build_empty(config)?;
    machine.restore(&image).map_err(|e| about(path.display(), e))?;
    let (at, now) = (o.snapshot_at.unwrap_or(u64::MAX), machine.retired());
    if at < now {
        let problem = format!("the machine of {} has executed {now} instructions already", path.display());
        return Err(about(format!("--snapshot-at {at}"), problem));
    }
    Ok(machine)
}

/// Runs a machine; the exit code.
pub fn run(o: &Run) -> Result<u8, UserError> {
    // Everything is checked before the first file is made.
    patterns(o)?;
    let (Source { config, had_no_input }, snapshot) = match &o.restore {
        Some(path) => load_snapshot(path).map(|(source, image)| (source, Some((path.as_path(), image))))?,
        None => (Source { config: Config::of(o)?, had_no_input: false }, None),
    };
    let snapshot = snapshot.map(|(path, image)| (path, image, had_no_input));
    match &config {
        Config::Riscv(c) => run_machine::<Riscv>(o, c, &config, snapshot),
        Config::Pc(c) => run_machine::<X86>(o, c, &config, snapshot),
    }
}

/// Runs a machine of one kind; the exit code.
fn run_machine<A: Platform>(
    o: &Run,
    config: &A::Config,
    any: &Config,
    snapshot: Option<(&Path, Image, bool)>,
) -> Result<u8, UserError> {
    let had_no_input = snapshot.as_ref().is_some_and(|(.., had_no_input)| *had_no_input);
    let snapshot = snapshot.map(|(path, image, _)| (path, image));
    let ends = console_ends(o, any)?;
    outputs::check(&written(o), &read(o, any))?;
    let debugger = o.gdb.as_deref().map(gdb::listen).transpose()?;
    let mut machine: Machine<A> = build(o, config, snapshot)?;
    let power_on = (o.on_reset == OnReset::Reboot).then(|| machine.save());
    let begins = (o.record.is_some() || o.replay.is_some()).then(|| Beginning {
        platform: emu_core::to_bytes(any),
        count: machine.count(),
        state_hash: machine.state_hash(),
    });
    let replay = match (&o.replay, &begins) {
        (Some(path), Some(begins)) => recording::load(path, begins)?,
        _ => recording::Replay::default(),
    };

    let mut paths: Vec<&Path> = o.trace.as_deref().into_iter().collect();
    paths.extend(ends.iter().filter_map(|end| if let End::File(path) = end { Some(path.as_path()) } else { None }));
    let mut files = outputs::open(&paths)?.into_iter();
    let trace = o.trace.as_ref().and_then(|_| files.next());
    let trace = trace.map(|file| Tracer::new(file, o.trace_format, &o.trace_events));
    let mut consoles = Vec::new();
    for end in &ends {
        let to: Box<dyn Write + Send> = match end {
            End::Stdio => Box::new(std::io::stdout()),
            End::Null => Box::new(std::io::sink()),
            End::File(_) => Box::new(files.next().expect("one was opened for each")),
        };
        consoles.push(Shared::new(to, patterns(o)?));
    }
    let config = config.clone();
    let mut runner = Runner::new(Parts { o, machine, power_on, config, had_no_input, consoles, begins, replay, trace });
    let stdio = ends.iter().position(|end| *end == End::Stdio).map(|port| port as u32);
    runner.connect(stdio);
    if let Some(listener) = debugger
        && let Some(ended) = gdb::serve(listener, &mut runner)?
    {
        return Ok(runner.finish(&ended));
    }
    if let Some(port) = stdio.filter(|_| o.replay.is_none()) {
        runner.open_terminal(port);
    }
    let ended = runner.run();
    Ok(runner.finish(&ended))
}
