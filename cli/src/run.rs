//! `undervisor run`.

use std::ffi::OsStr;
use std::fs;
use std::io::Write;
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};

use emu_core::devices::virtio::disk::DiskMode;
use emu_core::machine::{Image, Machine};
use emu_core::snapshot;
use riscv::cpu::CpuConfig;
use riscv::hart::Riscv;
use riscv::platform::board::{IrqChip, VirtioDevice};
use riscv::platform::virt::{self, CONSOLE, File, Firmware, Images, VirtConfig};

use crate::console::{Shared, Verdict};
use crate::error::{UserError, about};
use crate::expect::Pattern;
use crate::gdb;
use crate::options::{DeviceKind, End, OnReset, Run};
use crate::outputs::{self, Named};
use crate::recording::{self, Beginning};
use crate::runner::{Parts, Runner, Source};
use crate::trace::Tracer;

pub fn read_file(path: &Path) -> Result<File, UserError> {
    let name = path.display().to_string();
    // Some devices have no end.
    if fs::metadata(path).is_ok_and(|data| data.file_type().is_char_device()) {
        return Err(about(name, "it is a device; expected a file"));
    }
    match fs::read(path) {
        Ok(bytes) => Ok(File { name, bytes }),
        Err(e) => Err(about(name, e)),
    }
}

/// The machine's options: `riscv64-virt,aia=aplic-imsic,guests=3`.
pub fn machine_options(text: &str) -> Result<IrqChip, UserError> {
    let mut words = text.split(',');
    let name = words.next().unwrap_or_default();
    if name != "riscv64-virt" && name != "virt" {
        return Err(about(name, "there is no such machine; expected riscv64-virt"));
    }
    let (mut aia, mut guests) = ("none", None);
    for word in words {
        match word.split_once('=') {
            Some(("aia", value)) => aia = value,
            Some(("guests", value)) => {
                let number = value.parse();
                guests = Some(number.map_err(|_| about(word, "expected a number of guest interrupt files, 0 to 63"))?);
            }
            _ => return Err(about(word, "expected aia=none|aplic|aplic-imsic or guests=N")),
        }
    }
    match (aia, guests) {
        ("aplic-imsic", guests) => Ok(IrqChip::AplicImsic { guest_files: guests.unwrap_or(3) }),
        ("none" | "aplic", Some(guests)) => Err(about(format!("guests={guests}"), "it needs aia=aplic-imsic")),
        ("none", None) => Ok(IrqChip::Plic),
        ("aplic", None) => Ok(IrqChip::Aplic),
        _ => Err(about(format!("aia={aia}"), "expected none, aplic or aplic-imsic")),
    }
}

/// A file name may have commas in it: the last word is a mode if it is one, and the rest of the name if there is such a file.
fn drive(text: &str, number: usize) -> Result<VirtioDevice, UserError> {
    let (path, mode) = match text.rsplit_once(',') {
        Some((path, "rw")) => (path, DiskMode::ReadWrite),
        Some((path, "ro")) => (path, DiskMode::ReadOnly),
        Some((path, "overlay")) => (path, DiskMode::Overlay),
        Some((_, word)) if !Path::new(text).exists() => {
            return Err(about(format!("--drive {text}"), format!("`{word}` is no mode; expected rw, ro or overlay")));
        }
        _ => (text, DiskMode::ReadWrite),
    };
    if path.is_empty() {
        return Err(about(format!("--drive {text}"), "expected a file"));
    }
    Ok(VirtioDevice::Drive { path: PathBuf::from(path), mode, serial: format!("undervisor-{number}") })
}

fn config(o: &Run) -> Result<VirtConfig, UserError> {
    let irqchip = machine_options(o.machine.as_deref().unwrap_or("riscv64-virt"))?;
    let drives = o.drive.iter().enumerate().map(|(i, d)| drive(d, i));
    let mut virtio = drives.collect::<Result<Vec<_>, _>>()?;
    virtio.push(VirtioDevice::Rng { seed: o.seed });
    let (mut port, mut mac) = (CONSOLE, [0x52, 0x54, 0, 0x12, 0x34, 0x55]);
    virtio.extend(o.device.iter().map(|device| match device {
        DeviceKind::VirtioConsole => {
            port += 1;
            VirtioDevice::Console { port }
        }
        DeviceKind::VirtioNet => {
            mac[5] += 1;
            VirtioDevice::Net { mac }
        }
    }));
    Ok(VirtConfig {
        cpu: CpuConfig::parse(&o.cpu)?,
        harts: o.smp,
        memory: o.memory,
        irqchip,
        virtio,
        bootargs: o.append.clone(),
        seed: o.seed,
        quantum: o.quantum,
        hertz: o.frequency,
        ..VirtConfig::default()
    })
}

/// A file, where the word is none of the others.
fn firmware_file(o: &Run) -> Option<&Path> {
    let is_word = [OsStr::new("none"), OsStr::new("builtin")].contains(&o.firmware.as_os_str());
    (!is_word).then_some(&o.firmware)
}

fn images(o: &Run) -> Result<Images, UserError> {
    let firmware = match firmware_file(o) {
        Some(path) => Firmware::File(read_file(path)?),
        None if o.firmware.as_os_str() == "none" => Firmware::None,
        None => Firmware::BuiltIn,
    };
    let kernel = o.kernel.as_deref().map(read_file).transpose()?;
    if kernel.is_none() && !matches!(firmware, Firmware::File(_)) {
        return Err(UserError("nothing to run: expected --kernel FILE, --firmware FILE or --restore FILE".into()));
    }
    Ok(Images { firmware, kernel, initrd: o.initrd.as_deref().map(read_file).transpose()? })
}

/// The other ends of the machine's consoles, by port.
fn console_ends(o: &Run, config: &VirtConfig) -> Result<Vec<End>, UserError> {
    let devices = config.virtio.iter().filter(|d| matches!(d, VirtioDevice::Console { .. })).count();
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
    let files = [("--json", &o.json), ("--record", &o.record), ("--snapshot", &o.snapshot), ("--trace", &o.trace)];
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
fn read<'a>(o: &'a Run, config: &'a VirtConfig) -> Vec<Named<'a>> {
    let files = [("--kernel", &o.kernel), ("--initrd", &o.initrd), ("--restore", &o.restore), ("--replay", &o.replay)];
    let mut read = Vec::new();
    for (option, path) in files {
        read.extend(path.as_deref().map(|path| Named { option, path }));
    }
    read.extend(firmware_file(o).map(|path| Named { option: "--firmware", path }));
    for device in &config.virtio {
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
fn load_snapshot(path: &Path) -> Result<(Source, Image), UserError> {
    let (source, image) = snapshot::load(path)?;
    let source = emu_core::from_bytes(&source).map_err(|e| about(path.display(), format!("corrupted: {e}")))?;
    Ok((source, image))
}

fn build(o: &Run, config: &VirtConfig, snapshot: Option<(&Path, Image)>) -> Result<Machine<Riscv>, UserError> {
    let Some((path, image)) = snapshot else { return Ok(virt::build(config, &images(o)?)?) };
    let (mut machine, _) = virt::build_empty(config)?;
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
        None => (Source { config: config(o)?, had_no_input: false }, None),
    };
    let ends = console_ends(o, &config)?;
    outputs::check(&written(o), &read(o, &config))?;
    let debugger = o.gdb.as_deref().map(gdb::listen).transpose()?;
    let mut machine = build(o, &config, snapshot)?;
    let power_on = (o.on_reset == OnReset::Reboot).then(|| machine.save());
    let begins = (o.record.is_some() || o.replay.is_some()).then(|| Beginning {
        platform: emu_core::to_bytes(&config),
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
