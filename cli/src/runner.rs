//! A run: the machine, slice by slice, with all that looks at it from outside.

use std::io::IsTerminal;
use std::ops::ControlFlow::{self, Break, Continue};

use emu_core::door::Stamped;
use emu_core::machine::{End, Image, Machine};
use emu_core::snapshot;
use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::console::{Piped, Recorded, Shared, Verdict};
use crate::error::{UserError, about, tell};
use crate::machine::{Config, Platform};
use crate::options::Run;
use crate::outputs;
use crate::page;
use crate::recording::{self, Beginning, Replay};
use crate::report;
use crate::steps::Stepper;
use crate::terminal::{Terminal, Typed};
use crate::timeline::Gatherer;
use crate::trace::{Listeners, Tracer};

/// At every multiple of so many instructions consoles are looked at and keys are let in. Part of no machine's state, but of
/// where a run with `--expect` or `--fail-on` ends.
const SLICE: u64 = 200_000;

/// Why a run ended, and how the process says so.
pub struct Ended {
    /// The exit code.
    pub code: u8,
    /// A word for programs.
    pub cause: &'static str,
    /// More about it, for people.
    pub text: String,
    /// The guest's own code of its failure.
    pub guest_code: Option<u32>,
}

impl Ended {
    pub fn new(code: u8, cause: &'static str, text: impl Into<String>) -> Self {
        Ended { code, cause, text: text.into(), guest_code: None }
    }
}

/// What a snapshot says about where it comes from.
#[derive(Serialize, Deserialize)]
pub struct Source {
    /// What the machine was made from.
    pub config: Config,
    /// Its consoles had no piped input, or none any more.
    pub had_no_input: bool,
}

/// What was done before the last reset: the machine itself counts from 0 again.
#[derive(Default)]
struct Earlier {
    resets: u64,
    retired: u64,
    /// The machine's clock.
    count: u64,
    /// Nanoseconds of virtual time.
    time: u64,
}

/// A run.
pub struct Runner<'a, A: Platform> {
    o: &'a Run,
    /// The machine.
    pub machine: Machine<A>,
    /// Its state at power-on, where a reset starts it again.
    power_on: Option<Image>,
    earlier: Earlier,
    /// What the machine was made from.
    config: A::Config,
    /// The machine comes from a snapshot, before which its input had ended.
    had_no_input: bool,
    /// By port of the door.
    consoles: Vec<Shared>,
    /// The port that keys are typed at.
    keyboard: u32,
    terminal: Option<Terminal>,
    replay: Replay,
    begins: Option<Beginning>,
    recorded: Vec<Stamped>,
    trace: Option<Tracer>,
    gatherer: Option<Gatherer>,
    snapshot_due: Option<u64>,
    /// So many instructions, then consoles are looked at.
    next_look: u64,
    /// Something has gone wrong that does not stop the machine, and has been told.
    has_failed: bool,
}

/// What a runner is made from.
pub struct Parts<'a, A: Platform> {
    pub o: &'a Run,
    pub machine: Machine<A>,
    pub power_on: Option<Image>,
    pub config: A::Config,
    pub had_no_input: bool,
    pub consoles: Vec<Shared>,
    pub begins: Option<Beginning>,
    pub replay: Replay,
    pub trace: Option<Tracer>,
}

impl<'a, A: Platform> Runner<'a, A> {
    /// A run that has not begun.
    pub fn new(parts: Parts<'a, A>) -> Self {
        let Parts { o, machine, power_on, config, had_no_input, consoles, begins, replay, trace } = parts;
        let mut runner = Runner {
            o,
            machine,
            power_on,
            earlier: Earlier::default(),
            config,
            had_no_input,
            consoles,
            keyboard: 0,
            terminal: None,
            replay,
            begins,
            recorded: Vec::new(),
            trace,
            gatherer: None,
            snapshot_due: o.snapshot_at,
            next_look: 0,
            has_failed: false,
        };
        runner.plan_look();
        runner
    }

    /// Instructions retired since power-on, over all resets.
    fn retired(&self) -> u64 {
        self.earlier.retired + self.machine.retired()
    }

    fn plan_look(&mut self) {
        self.next_look = (self.retired() / SLICE).saturating_add(1).saturating_mul(SLICE);
    }

    /// Connects the machine's consoles, `stdio` to standard input if it is no terminal; and whoever listens.
    pub fn connect(&mut self, stdio: Option<u32>) {
        let door = &mut self.machine.world.door;
        for (port, console) in (0..).zip(&self.consoles) {
            door.connect_output(port, Box::new(console.clone()));
        }
        if self.o.record.is_some() {
            door.start_record();
        }
        let is_typed = std::io::stdin().is_terminal();
        if self.o.replay.is_some() {
            for (port, bytes) in std::mem::take(&mut self.replay.piped) {
                door.connect_piped(port, Box::new(Recorded(bytes)));
            }
            if stdio.is_some() && is_typed {
                tell("keys are not let in: --replay gives what was recorded");
            }
        } else if let Some(port) = stdio.filter(|_| !is_typed) {
            let console = self.consoles[port as usize].clone();
            door.connect_piped(port, Box::new(Piped(console)));
            // A device that was told that there is nothing asks no more until something arrives.
            if self.had_no_input && may_bring_something() {
                self.machine.arrive(port, &[]);
            }
        }
        if self.o.report.is_some() {
            let levels = self.machine.vcpus.iter().map(|v| v.arch.level());
            self.gatherer = Some(Gatherer::new(self.machine.count(), levels));
        }
        let listeners = Listeners { trace: self.trace.clone(), gatherer: self.gatherer.clone() };
        if !listeners.is_empty() {
            self.machine.world.events.listen(Box::new(listeners));
        }
    }

    /// Keys are typed at console `port` from now on.
    pub fn open_terminal(&mut self, port: u32) {
        self.terminal = Terminal::open();
        self.keyboard = port;
    }

    /// Runs until the run has ended.
    pub fn run(&mut self) -> Ended {
        // Where a machine that waits is looked at must not depend on whether somebody may type.
        self.machine.stops_when_idle = true;
        let traced = self.trace.clone().filter(|trace| trace.insns);
        let mut stepper = traced.map(|trace| (Stepper::new(&mut self.machine), trace));
        loop {
            let end = self.slice(|machine, limit| match &mut stepper {
                Some((stepper, trace)) => stepper.run(machine, limit, trace),
                None => machine.run(limit),
            });
            if let Break(ended) = end {
                return ended;
            }
        }
    }

    /// Lets `run` run the machine up to a count of instructions, and sees to all that is due before and after.
    pub fn slice(&mut self, run: impl FnOnce(&mut Machine<A>, u64) -> End) -> ControlFlow<Ended, End> {
        if self.snapshot_due.is_some_and(|at| at <= self.retired()) {
            self.take_snapshot();
        }
        let max = self.o.max_instructions.unwrap_or(u64::MAX);
        if self.retired() >= max {
            return Break(self.end(Ended::new(4, "limit", format!("{max} instructions have been executed"))));
        }
        let clock = self.earlier.count + self.machine.count();
        while self.replay.typed.front().is_some_and(|s| s.at <= clock) {
            let stamped = self.replay.typed.pop_front().expect("there is one");
            self.machine.arrive(stamped.port, &stamped.bytes);
        }
        self.machine.stops_at = self.replay.typed.front().map_or(u64::MAX, |s| s.at - self.earlier.count);
        let limit = self.next_look.min(max).min(self.snapshot_due.unwrap_or(u64::MAX));
        let end = run(&mut self.machine, limit - self.earlier.retired);
        self.take_record();
        self.consoles.iter().for_each(|c| c.lock().flush());
        if self.retired() >= self.next_look || matches!(end, End::Idle(_)) {
            self.plan_look();
            if let Some(verdict) = self.verdict(|console| console.lock().look()) {
                return Break(verdict);
            }
        }
        self.see_to(end)
    }

    /// What the consoles show that was named, if they do.
    fn verdict(&self, look: impl Fn(&Shared) -> Option<Verdict>) -> Option<Ended> {
        let verdicts: Vec<_> = self.consoles.iter().filter_map(look).collect();
        if verdicts.contains(&Verdict::Failed) {
            return Some(Ended::new(5, "fail-on", "the console shows what --fail-on names"));
        }
        let expected = || Ended::new(0, "expected", "the console shows what --expect names");
        (!verdicts.is_empty()).then(expected)
    }

    /// The run has ended, unless what was looked for had come before.
    fn end(&self, ended: Ended) -> Ended {
        self.verdict(|console| console.lock().end_line()).unwrap_or(ended)
    }

    fn see_to(&mut self, end: End) -> ControlFlow<Ended, End> {
        let ended = match end {
            End::Limit | End::Breakpoint(_) | End::Watchpoint(_) => {
                return if self.let_keys_in(0) == Typed::Quit { Break(quit()) } else { Continue(end) };
            }
            End::Idle(at) => return self.wait(at),
            End::PowerOff(0) => Ended::new(0, "power-off", "powered off"),
            End::PowerOff(code) => {
                let text = format!("the guest reported failure {code}");
                Ended { guest_code: Some(code), ..Ended::new(1, "guest-failure", text) }
            }
            End::Reset => match self.reset() {
                Continue(()) => return Continue(End::Limit),
                Break(ended) => ended,
            },
            End::Deadlock => deadlock(),
            End::Shutdown(vcpu, stop) => Ended::new(3, "crash", A::shutdown(vcpu, stop)),
        };
        Break(self.end(ended))
    }

    /// All harts wait, until `at` or for input.
    fn wait(&mut self, at: Option<u64>) -> ControlFlow<Ended, End> {
        loop {
            // One virtual nanosecond is a real one while nothing happens.
            let wait = at.map_or(1000, |at| (at.saturating_sub(self.machine.now()) / 1_000_000).clamp(1, 100));
            match self.let_keys_in(wait) {
                Typed::Quit => return Break(quit()),
                Typed::Bytes(bytes) if !bytes.is_empty() => break,
                _ if at.is_some() => {
                    self.machine.skip_idle();
                    break;
                }
                Typed::Gone => return Break(self.end(deadlock())),
                Typed::Bytes(_) => {}
            }
        }
        Continue(End::Limit)
    }

    /// Lets in what has been typed; waits up to so many milliseconds for it.
    fn let_keys_in(&mut self, milliseconds: u64) -> Typed {
        let Some(terminal) = &mut self.terminal else { return Typed::Gone };
        let typed = terminal.read(milliseconds);
        match &typed {
            Typed::Bytes(bytes) if !bytes.is_empty() => self.machine.arrive(self.keyboard, bytes),
            Typed::Gone => self.terminal = None,
            _ => {}
        }
        typed
    }

    /// Starts the machine again. Drives keep what they hold, and what was typed and not read yet is not lost.
    fn reset(&mut self) -> ControlFlow<Ended> {
        let Some(power_on) = &self.power_on else {
            return Break(Ended::new(3, "reset", "the guest asked for a reset"));
        };
        if let Some(ended) = self.verdict(|console| console.lock().end_line()) {
            return Break(ended);
        }
        let machine = &mut self.machine;
        machine.settle_stats();
        self.earlier.resets += 1;
        self.earlier.retired += machine.retired();
        self.earlier.count += machine.count();
        self.earlier.time += machine.now();
        if let Some(trace) = &self.trace {
            trace.lock().reset(machine.count());
        }
        if let Some(gatherer) = &self.gatherer {
            gatherer.lock().reset(machine.count());
        }
        // A device that is reset keeps its backing storage, and nothing else.
        let is_drive = |device: &&mut Box<dyn emu_core::device::Device>| device.name() == "virtio-blk";
        let drives = machine.world.bus.devices_mut().filter(is_drive).map(|device| {
            device.reset();
            device.save()
        });
        let drives: Vec<_> = drives.collect();
        let waiting = machine.world.door.waiting().to_vec();
        machine.restore(power_on).expect("it is of this machine");
        machine.world.door.set_waiting(waiting);
        for (device, bytes) in machine.world.bus.devices_mut().filter(is_drive).zip(&drives) {
            device.restore(bytes).expect("it is of this drive");
        }
        Continue(())
    }

    /// What has come in, with counts that go on over resets.
    fn take_record(&mut self) {
        let before = self.earlier.count;
        let record = self.machine.world.door.take_record().into_iter();
        self.recorded.extend(record.map(|s| Stamped { at: before + s.at, ..s }));
    }

    fn take_snapshot(&mut self) {
        self.snapshot_due = None;
        let path = self.o.snapshot.as_deref().expect("clap requires it");
        let image = self.machine.save();
        let has_input = (0..self.consoles.len() as u32).any(|port| self.machine.world.door.has_piped(port));
        let source = Source { config: A::any(&self.config), had_no_input: !has_input };
        let saved = snapshot::save(path, &emu_core::to_bytes(&source), &image);
        self.note(saved.map_err(UserError::from));
    }

    /// Tells an error that does not stop the machine.
    fn note(&mut self, result: Result<(), UserError>) {
        if let Err(e) = result {
            tell(e.0);
            self.has_failed = true;
        }
    }

    /// Says how it ended, everywhere where that was asked for. Returns the exit code.
    pub fn finish(mut self, ended: &Ended) -> u8 {
        drop(self.terminal.take());
        if self.o.snapshot.is_some() && self.o.snapshot_at.is_none() {
            match ended.cause {
                "expected" => self.take_snapshot(),
                _ => tell("no snapshot was taken: the console does not show what --expect names"),
            }
        }
        self.take_record();
        self.machine.settle_stats();
        self.machine.world.events.stop_listening();
        if let (Some(path), Some(trace)) = (&self.o.trace, &self.trace) {
            let written = trace.lock().finish();
            self.note(written.map_err(|e| about(path.display(), format!("the trace is not whole: {e}"))));
        }
        if let (Some(path), Some(begins)) = (&self.o.record, self.begins.take()) {
            let saved = recording::save(path, begins, std::mem::take(&mut self.recorded));
            self.note(saved);
        }
        if self.o.stats {
            report::print_stats(&self.machine.world.events.stats, A::reason_name);
            report::print_device_counts(&self.machine.world.bus);
        }
        if let (Some(path), Some(gatherer)) = (&self.o.report, self.gatherer.take()) {
            let mut run = self.summary(ended, ended.code);
            run["machine"] = self.title().into();
            let timeline = gatherer.lock().json(self.machine.count());
            let page = page::page(&run, &self.machine.world.events.stats, A::reason_name, timeline);
            self.note(outputs::save(path, &[page.as_bytes()]));
        }
        if let Some(path) = &self.o.json {
            let code = if self.has_failed { 2 } else { ended.code };
            let text = format!("{:#}\n", self.summary(ended, code));
            self.note(outputs::save(path, &[text.as_bytes()]));
        }
        for console in &self.consoles {
            let mut console = console.lock();
            console.flush();
            if let Some(e) = console.take_error() {
                tell(format!("warning: the console's output is not whole: {e}"));
            }
        }
        if let Some(at) = self.snapshot_due {
            tell(format!("no snapshot was taken: the run ended after {} of {at} instructions", self.retired()));
        }
        if !matches!(ended.cause, "power-off" | "expected") {
            tell(&ended.text);
        }
        if self.has_failed { 2 } else { ended.code }
    }

    /// What the machine is, and what runs in it.
    fn title(&self) -> String {
        let name = A::any(&self.config).name();
        let runs = [&self.o.kernel, &self.o.firmware, &self.o.restore].into_iter().flatten().next();
        let file = runs.and_then(|path| path.file_name()).map(|name| format!(" with {}", name.display()));
        format!("{name}{}", file.unwrap_or_default())
    }

    fn summary(&mut self, ended: &Ended, code: u8) -> serde_json::Value {
        let hash = self.machine.state_hash();
        let hex: String = hash.iter().map(|b| format!("{b:02x}")).collect();
        let mut hashes = self.consoles.iter().map(|console| console.lock().hash());
        json!({
            "cause": ended.cause,
            "exit_code": code,
            "guest_code": ended.guest_code,
            "text": ended.text,
            "instructions": self.retired(),
            "resets": self.earlier.resets,
            "virtual_time_ns": self.earlier.time + self.machine.now(),
            "state_hash": hex,
            "console_hash": hashes.next(),
            "device_console_hashes": hashes.collect::<Vec<_>>(),
            "devices": report::devices_json(&self.machine.world.bus),
            "levels": report::stats_json(&self.machine.world.events.stats, A::reason_name),
            "failed_entries": report::failed_json(&self.machine.world.events.stats),
            "harts": self.machine.vcpus.iter().map(A::summary).collect::<Vec<_>>(),
        })
    }
}

/// Whether standard input is a pipe or a file that is not empty: not `/dev/null`, with which a run from a snapshot is the
/// same as the run that went on.
fn may_bring_something() -> bool {
    use rustix::fs::FileType;
    rustix::fs::fstat(std::io::stdin()).is_ok_and(|stat| match FileType::from_raw_mode(stat.st_mode) {
        FileType::RegularFile => stat.st_size != 0,
        kind => kind != FileType::CharacterDevice,
    })
}

fn quit() -> Ended {
    Ended::new(0, "quit", "quit by the user")
}

fn deadlock() -> Ended {
    Ended::new(3, "deadlock", "deadlock: all harts wait, and nothing is pending that could wake one")
}
