//! `undervisor run`.

use std::collections::VecDeque;
use std::fs;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use emu_core::devices::virtio::disk::DiskMode;
use emu_core::door::Stamped;
use emu_core::machine::{End, Machine};
use emu_core::snapshot;
use regex::bytes::Regex;
use riscv::cpu::CpuConfig;
use riscv::hart::Riscv;
use riscv::platform::board::{IrqChip, VirtioDevice};
use riscv::platform::virt::{self, CONSOLE, File, Firmware, Images, VirtConfig};
use riscv::privileged::cause_name;
use serde_json::json;

use crate::console::{self, Console, Piped, Recorded, Seen, Terminal, Typed};
use crate::error::{UserError, about};
use crate::gdb::{self, Session};
use crate::options::{OnReset, Run};
use crate::report;
use crate::trace::Tracer;

/// After so many instructions the console, the terminal and limits are looked at. Part of no machine's state.
const SLICE: u64 = 200_000;

/// Why a run ended, and how the process says so.
struct Ended {
    code: u8,
    cause: &'static str,
    /// More about it, for people.
    text: String,
    guest_code: Option<u32>,
}

impl Ended {
    fn new(code: u8, cause: &'static str, text: impl Into<String>) -> Self {
        Ended { code, cause, text: text.into(), guest_code: None }
    }
}

pub fn read_file(path: &Path) -> Result<File, UserError> {
    let name = path.display().to_string();
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
    let (mut aia, mut guests) = ("none", 3);
    for word in words {
        match word.split_once('=') {
            Some(("aia", value)) => aia = value,
            Some(("guests", value)) => {
                guests =
                    value.parse().map_err(|_| about(word, "expected a number of guest interrupt files, 0 to 63"))?;
            }
            _ => return Err(about(word, "expected aia=none|aplic|aplic-imsic or guests=N")),
        }
    }
    match aia {
        "none" => Ok(IrqChip::Plic),
        "aplic" => Ok(IrqChip::Aplic),
        "aplic-imsic" => Ok(IrqChip::AplicImsic { guest_files: guests }),
        _ => Err(about(format!("aia={aia}"), "expected none, aplic or aplic-imsic")),
    }
}

fn drive(text: &str, number: usize) -> VirtioDevice {
    let (path, mode) = match text.rsplit_once(',') {
        Some((path, "ro")) => (path, DiskMode::ReadOnly),
        Some((path, "overlay")) => (path, DiskMode::Overlay),
        _ => (text, DiskMode::ReadWrite),
    };
    VirtioDevice::Drive { path: PathBuf::from(path), mode, serial: format!("undervisor-{number}") }
}

fn config(o: &Run) -> Result<VirtConfig, UserError> {
    let irqchip = machine_options(o.machine.as_deref().unwrap_or("riscv64-virt"))?;
    let mut virtio: Vec<_> = o.drive.iter().enumerate().map(|(i, d)| drive(d, i)).collect();
    virtio.push(VirtioDevice::Rng { seed: o.seed });
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

fn images(o: &Run) -> Result<Images, UserError> {
    let firmware = match o.firmware.as_str() {
        "none" => Firmware::None,
        "builtin" => Firmware::BuiltIn,
        path => Firmware::File(read_file(Path::new(path))?),
    };
    let kernel = o.kernel.as_deref().map(read_file).transpose()?;
    if kernel.is_none() && !matches!(firmware, Firmware::File(_)) {
        return Err(UserError("nothing to run: expected --kernel FILE, --firmware FILE or --restore FILE".into()));
    }
    Ok(Images { firmware, kernel, initrd: o.initrd.as_deref().map(read_file).transpose()? })
}

/// What the machine is made from.
struct Source {
    config: VirtConfig,
    /// Nothing where it comes from a snapshot.
    images: Option<Images>,
}

/// What a recording holds.
#[derive(serde::Serialize, serde::Deserialize)]
struct Recording {
    magic: String,
    /// What the machine was made from: another would run otherwise.
    platform: Vec<u8>,
    /// The instruction that the recording begins at.
    begins: u64,
    input: Vec<Stamped>,
}

const RECORDING: &str = "UNDERVISOR-RECORDING-1";

struct Runner<'a> {
    o: &'a Run,
    machine: Machine<Riscv>,
    seen: Arc<Mutex<Seen>>,
    terminal: Option<Terminal>,
    replay: VecDeque<Stamped>,
    recorded: Vec<Stamped>,
    snapshot_due: Option<u64>,
    platform: Vec<u8>,
}

/// Runs a machine; returns the exit code.
pub fn run(o: Run) -> Result<u8, UserError> {
    let source = match &o.restore {
        Some(path) => {
            let (platform, image) = snapshot::load(path)?;
            let config: VirtConfig =
                emu_core::from_bytes(&platform).map_err(|e| about(path.display(), format!("corrupted: {e}")))?;
            let (mut machine, _) = virt::build_empty(&config)?;
            machine.restore(&image).map_err(|e| about(path.display(), e))?;
            (Source { config, images: None }, machine)
        }
        None => {
            let (config, images) = (config(&o)?, images(&o)?);
            let machine = virt::build(&config, &images)?;
            (Source { config, images: Some(images) }, machine)
        }
    };
    let (source, machine) = source;
    let platform = emu_core::to_bytes(&source.config);
    let regex = |name: &str, text: &Option<String>| -> Result<Option<Regex>, UserError> {
        text.as_deref().map(Regex::new).transpose().map_err(|e| about(name, e))
    };
    let (expect, fail_on) = (regex("--expect", &o.expect)?, regex("--fail-on", &o.fail_on)?);
    let replay = match &o.replay {
        Some(path) => read_recording(path, &platform, machine.count())?,
        None => VecDeque::new(),
    };
    // Files that will be written are tried before the run, so that no run is lost to a wrong path.
    for path in [&o.json, &o.record, &o.snapshot].into_iter().flatten() {
        require_writable(path)?;
    }
    let to: Box<dyn Write + Send> = match o.console.as_str() {
        "stdio" => Box::new(std::io::stdout()),
        "null" => Box::new(std::io::sink()),
        other => match other.strip_prefix("file:") {
            Some(path) => Box::new(fs::File::create(path).map_err(|e| about(path, e))?),
            None => return Err(about(other, "expected stdio, file:PATH or null")),
        },
    };
    let (console, seen) = Console::new(to, expect, fail_on);
    let mut runner = Runner {
        o: &o,
        machine,
        seen,
        terminal: None,
        replay,
        recorded: Vec::new(),
        snapshot_due: o.snapshot_at,
        platform,
    };
    if let Some(path) = &o.trace {
        let file = fs::File::create(path).map_err(|e| about(path.display(), e))?;
        let tracer = Tracer::new(Box::new(BufWriter::new(file)), o.trace_format, &o.trace_events);
        runner.machine.world.events.listen(Box::new(tracer));
    }
    runner.connect(console)?;
    if let Some(address) = &o.gdb {
        let (machine, session) = gdb::serve(address, runner.machine)?;
        runner.machine = machine;
        let ended = match session {
            Session::Detached => None,
            Session::Killed => Some(Ended::new(0, "quit", "ended by the debugger")),
            Session::Ended(end) => runner.see_to(end),
        };
        if let Some(ended) = ended {
            runner.finish(&ended)?;
            return Ok(ended.code);
        }
    }
    let ended = loop {
        let ended = runner.go()?;
        if ended.cause != "reset" || o.on_reset == OnReset::Exit {
            break ended;
        }
        let Some(images) = &source.images else { break ended };
        // A reboot is a new machine whose clock goes on from 0; drives stay as they are.
        let (old, _) = (std::mem::take(&mut runner.machine.world.door), ());
        let mut machine = virt::build(&source.config, images)?;
        machine.world.door = old;
        machine.stops_when_idle = runner.machine.stops_when_idle;
        runner.machine = machine;
    };
    drop(runner.terminal.take());
    runner.finish(&ended)?;
    Ok(ended.code)
}

/// A file that is to be written later can be: its directory exists and takes files.
fn require_writable(path: &Path) -> Result<(), UserError> {
    let dir = path.parent().filter(|d| !d.as_os_str().is_empty()).unwrap_or(Path::new("."));
    if path.is_dir() {
        return Err(about(path.display(), "it is a directory; expected a file"));
    }
    if !dir.is_dir() {
        return Err(about(path.display(), format!("there is no directory {}", dir.display())));
    }
    Ok(())
}

fn read_recording(path: &Path, platform: &[u8], count: u64) -> Result<VecDeque<Stamped>, UserError> {
    let file = read_file(path)?;
    let (body, sum) = file.bytes.split_last_chunk::<32>().ok_or_else(|| about(path.display(), "not a recording"))?;
    let recording: Recording =
        emu_core::from_bytes(body).map_err(|_| about(path.display(), "not a recording, or a truncated one"))?;
    if recording.magic != RECORDING || blake3::hash(body).as_bytes() != sum {
        return Err(about(path.display(), "not a recording, or a corrupted one"));
    }
    if recording.platform != platform {
        return Err(about(
            path.display(),
            "it was recorded on another machine: give the options that it was recorded with",
        ));
    }
    if recording.begins != count {
        return Err(about(
            path.display(),
            format!("it begins at instruction {}, this run at {count}", recording.begins),
        ));
    }
    Ok(recording.input.into())
}

impl Runner<'_> {
    /// Connects the console and its input.
    fn connect(&mut self, console: Console) -> Result<(), UserError> {
        let door = &mut self.machine.world.door;
        door.connect_output(CONSOLE, Box::new(console));
        if self.o.record.is_some() {
            door.start_record();
        }
        if self.o.replay.is_some() {
            let (piped, typed): (Vec<Stamped>, Vec<Stamped>) = self.replay.drain(..).partition(|s| s.piped);
            self.replay = typed.into();
            let bytes: VecDeque<u8> = piped.into_iter().flat_map(|s| s.bytes).collect();
            if !bytes.is_empty() {
                door.connect_piped(CONSOLE, Box::new(Recorded(bytes)));
            }
        } else if self.o.console == "stdio" && self.o.gdb.is_none() {
            self.terminal = Terminal::open();
            if self.terminal.is_some() {
                self.machine.stops_when_idle = true;
            } else {
                door.connect_piped(CONSOLE, Box::new(Piped(std::io::stdin())));
            }
        }
        Ok(())
    }

    /// Runs until the run has ended, or the guest asks for a reset.
    fn go(&mut self) -> Result<Ended, UserError> {
        loop {
            if let Some(at) = self.snapshot_due
                && self.machine.retired() >= at
            {
                self.take_snapshot()?;
            }
            if let Some(max) = self.o.max_instructions
                && self.machine.retired() >= max
            {
                return Ok(Ended::new(4, "limit", format!("{max} instructions have been executed")));
            }
            while self.replay.front().is_some_and(|s| s.at <= self.machine.count()) {
                let stamped = self.replay.pop_front().expect("there is one");
                self.machine.arrive(stamped.port, &stamped.bytes);
            }
            self.machine.stops_at = self.replay.front().map_or(u64::MAX, |s| s.at);
            let mut limit = self.machine.retired() + SLICE;
            limit = limit.min(self.o.max_instructions.unwrap_or(u64::MAX)).min(self.snapshot_due.unwrap_or(u64::MAX));
            let end = self.machine.run(limit);
            if self.o.record.is_some() {
                self.recorded.append(&mut self.machine.world.door.take_record());
            }
            {
                let seen = self.seen.lock().expect("nobody panics with it");
                if seen.failed {
                    return Ok(Ended::new(5, "fail-on", "the console shows what --fail-on names"));
                }
                if seen.expected {
                    return Ok(Ended::new(0, "expected", "the console shows what --expect names"));
                }
            }
            if let Some(ended) = self.see_to(end) {
                return Ok(ended);
            }
        }
    }

    fn see_to(&mut self, end: End) -> Option<Ended> {
        let wait = match end {
            End::Limit | End::Breakpoint(_) | End::Watchpoint(_) => 0,
            // One virtual nanosecond is a real one while nothing happens.
            End::Idle(Some(at)) => ((at - self.machine.now()) / 1_000_000).clamp(1, 100),
            End::Idle(None) => 1000,
            End::PowerOff(0) => return Some(Ended::new(0, "power-off", "powered off")),
            End::PowerOff(code) => {
                let text = format!("the guest reported failure {code}");
                return Some(Ended { guest_code: Some(code), ..Ended::new(1, "guest-failure", text) });
            }
            End::Reset => return Some(Ended::new(3, "reset", "the guest asked for a reset")),
            End::Deadlock => {
                return Some(Ended::new(
                    3,
                    "deadlock",
                    "deadlock: all harts wait, and nothing is pending that could wake one",
                ));
            }
            End::Shutdown(hart, stop) => {
                let text = format!(
                    "hart {hart} cannot go on: {} while a trap to M-mode is unexpected, at {:#x}",
                    cause_name(stop.code),
                    stop.value
                );
                return Some(Ended::new(3, "crash", text));
            }
        };
        if let Some(terminal) = &mut self.terminal {
            match terminal.read(wait) {
                Typed::Quit => return Some(Ended::new(0, "quit", "quit by the user")),
                Typed::Bytes(bytes) if !bytes.is_empty() => self.machine.arrive(CONSOLE, &bytes),
                Typed::Bytes(_) if wait != 0 => {
                    self.machine.skip_idle();
                }
                Typed::Bytes(_) => {}
            }
        }
        None
    }

    fn take_snapshot(&mut self) -> Result<(), UserError> {
        self.snapshot_due = None;
        let path = self.o.snapshot.as_deref().expect("clap requires it");
        let image = self.machine.save();
        snapshot::save(path, &self.platform, &image)?;
        Ok(())
    }

    /// Says how it ended, everywhere where that was asked for.
    fn finish(mut self, ended: &Ended) -> Result<(), UserError> {
        self.machine.settle_stats();
        self.machine.world.events.stop_listening();
        if let Some(path) = &self.o.record {
            let recording = Recording {
                magic: RECORDING.into(),
                platform: self.platform.clone(),
                begins: 0,
                input: std::mem::take(&mut self.recorded),
            };
            let bytes = emu_core::to_bytes(&recording);
            let sum = blake3::hash(&bytes);
            snapshot::write_aside(path, &[&bytes, sum.as_bytes()]).map_err(|e| about(path.display(), e))?;
        }
        let stats = self.machine.world.events.stats.clone();
        if self.o.stats {
            eprint!("{}", report::stats_table(&stats));
        }
        if let Some(path) = &self.o.json {
            let hash = self.machine.state_hash();
            let hex: String = hash.iter().map(|b| format!("{b:02x}")).collect();
            let summary = json!({
                "cause": ended.cause,
                "exit_code": ended.code,
                "guest_code": ended.guest_code,
                "text": ended.text,
                "instructions": self.machine.retired(),
                "virtual_time_ns": self.machine.now(),
                "state_hash": hex,
                "console_hash": console::hash(&self.seen),
                "levels": report::stats_json(&stats),
                "harts": self.machine.vcpus.iter().map(|v| json!({
                    "pc": format!("{:#x}", v.core.pc),
                    "mode": format!("{:?}", v.arch.mode),
                    "virtual": v.arch.v,
                })).collect::<Vec<_>>(),
            });
            let text = format!("{summary:#}\n");
            snapshot::write_aside(path, &[text.as_bytes()]).map_err(|e| about(path.display(), e))?;
        }
        if !matches!(ended.cause, "power-off" | "expected") {
            eprintln!("undervisor: {}", ended.text);
        }
        Ok(())
    }
}
