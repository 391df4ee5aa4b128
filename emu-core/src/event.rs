//! The event stream: every exit, trap, injection, world switch and device access (docs/design.md, decision 10).
//!
//! Statistics are counted always, in plain arrays, on paths that are slow anyway. Everything else happens only while
//! somebody listens.

use std::collections::BTreeMap;

use crate::engine::Lifted;

/// Levels that are told apart: 0 is unused (Undervisor itself), 1 the hypervisor, 2 its guest, and so on.
pub const LEVELS: usize = 6;
/// Which of two levels is at work is exact. Levels beyond this one are inferred from what the hypervisor does.
pub const LAST_EXACT: u8 = 2;
/// Reasons that are told apart at each level.
pub const REASONS: usize = 640;

/// What kind of event it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// A synchronous exception, with the trap that it took.
    Trap,
    /// An interrupt that was taken.
    Interrupt,
    /// A return from a trap.
    Return,
    /// The vCPU went from one level to another.
    Switch,
    /// A guest was left, for the reason that is named.
    Exit,
    /// A guest was entered.
    Entry,
    /// A guest could not be entered, because of the rule that is named.
    FailedEntry,
    /// A device register was read.
    DeviceRead,
    /// A device register was written.
    DeviceWrite,
    /// An interrupt was made pending for a guest: by its hypervisor, or by a message to what the hypervisor gave it.
    Injection,
}

impl Kind {
    /// Its name in traces.
    pub fn name(self) -> &'static str {
        match self {
            Kind::Trap => "trap",
            Kind::Interrupt => "interrupt",
            Kind::Return => "return",
            Kind::Switch => "switch",
            Kind::Exit => "exit",
            Kind::Entry => "entry",
            Kind::FailedEntry => "failed-entry",
            Kind::DeviceRead => "device-read",
            Kind::DeviceWrite => "device-write",
            Kind::Injection => "injection",
        }
    }
}

/// How a level is named: L1, L2, and L3? where it is inferred.
pub fn level_name(level: u8) -> String {
    format!("L{level}{}", if level > LAST_EXACT { "?" } else { "" })
}

/// An event's details that are not 0.
pub fn told<const N: usize>(details: [(&'static str, u64); N]) -> Vec<(&'static str, u64)> {
    details.into_iter().filter(|(_, value)| *value != 0).collect()
}

/// An event's words, where there are some.
pub fn said<'a, const N: usize>(words: [(&'static str, &'a str); N]) -> Vec<(&'static str, &'a str)> {
    words.into_iter().filter(|(_, text)| !text.is_empty()).collect()
}

/// The instruction that an event is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Code<'a> {
    /// Its bytes, and perhaps those behind it.
    pub bytes: &'a [u8],
    /// Its address as the instruction pointer has it.
    pub ip: u64,
    /// The size of code, where that decides what bytes mean.
    pub bits: u32,
}

/// One event.
#[derive(Clone, Copy, Debug)]
pub struct Event<'a> {
    /// The machine's instruction count.
    pub count: u64,
    /// The vCPU.
    pub vcpu: u32,
    /// The level that it happened at, before whatever it changes.
    pub level: u8,
    /// The guest's program counter.
    pub pc: u64,
    /// What it is.
    pub kind: Kind,
    /// The architecture's name for it, such as a cause.
    pub name: &'a str,
    /// Whatever else there is to say: name and value.
    pub details: &'a [(&'static str, u64)],
    /// Likewise in words.
    pub words: &'a [(&'static str, &'a str)],
    /// The level from now on, if the event changes it.
    pub to: Option<u8>,
    /// The instruction at the program counter, as far as it is told.
    pub code: Option<Code<'a>>,
}

/// Somebody who listens.
pub trait Sink: Send {
    /// Takes an event.
    fn event(&mut self, event: &Event);

    /// Whether it wants the micro-ops of every block that is lifted.
    fn wants_uops(&self) -> bool {
        false
    }

    /// Takes a lifted block.
    fn uops(&mut self, _block: &Lifted) {}
}

/// Exits that were followed by an entry, and what the hypervisor did between.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Handled {
    /// How many.
    pub times: u64,
    /// Instructions that the vCPU retired between exit and entry, of all of them.
    pub instructions: u64,
}

/// A rule that entries have failed by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Rule {
    /// What the guest sees of it, such as the number of an error or exit.
    pub seen: &'static str,
    /// The field.
    pub field: &'static str,
    /// What is asked of it.
    pub rule: &'static str,
}

/// Entries that have failed by one rule.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Failed {
    /// How many.
    pub times: u64,
    /// What the field held, the last time.
    pub value: u64,
}

/// Counts, by level and by the architecture's number of the reason.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stats {
    /// Traps and interrupts taken.
    pub exits: Box<[[u64; REASONS]; LEVELS]>,
    /// Instructions retired at each level.
    pub instructions: [u64; LEVELS],
    /// World switches, from level to level.
    pub switches: [[u64; LEVELS]; LEVELS],
    /// Interrupts made pending for the guest at each level, by the architecture's number of the reason.
    pub injections: Box<[[u64; REASONS]; LEVELS]>,
    /// How long exits took to be handled.
    pub handled: Box<[[Handled; REASONS]; LEVELS]>,
    /// Entries that failed, by rule.
    pub failed: BTreeMap<Rule, Failed>,
}

impl Default for Stats {
    fn default() -> Self {
        Stats {
            exits: Box::new([[0; REASONS]; LEVELS]),
            instructions: [0; LEVELS],
            switches: [[0; LEVELS]; LEVELS],
            injections: Box::new([[0; REASONS]; LEVELS]),
            handled: Box::new([[Handled::default(); REASONS]; LEVELS]),
            failed: BTreeMap::new(),
        }
    }
}

/// The place of a level and a reason in the counts.
fn place(level: u8, reason: u32) -> (usize, usize) {
    (usize::from(level).min(LEVELS - 1), (reason as usize).min(REASONS - 1))
}

/// The stream.
#[derive(Default)]
pub struct Events {
    sink: Option<Box<dyn Sink>>,
    /// The counts.
    pub stats: Stats,
    /// By vCPU: the level and reason of the exit that it handles, and how many instructions it had retired then.
    handling: Vec<Option<(u8, u32, u64)>>,
}

impl Events {
    /// Sends events to `sink` from now on.
    pub fn listen(&mut self, sink: Box<dyn Sink>) {
        self.sink = Some(sink);
    }

    /// Takes the listener back.
    pub fn stop_listening(&mut self) -> Option<Box<dyn Sink>> {
        self.sink.take()
    }

    /// Whether anybody listens.
    #[inline]
    pub fn is_on(&self) -> bool {
        self.sink.is_some()
    }

    /// Sends an event.
    #[inline]
    pub fn send(&mut self, event: &Event) {
        if let Some(sink) = &mut self.sink {
            sink.event(event);
        }
    }

    /// Counts a trap or interrupt.
    #[inline]
    pub fn count_exit(&mut self, level: u8, reason: u32) {
        let (level, reason) = place(level, reason);
        self.stats.exits[level][reason] += 1;
    }

    /// Counts an interrupt that was made pending for the guest at `level`.
    #[inline]
    pub fn count_injection(&mut self, level: u8, reason: u32) {
        let (level, reason) = place(level, reason);
        self.stats.injections[level][reason] += 1;
    }

    /// A vCPU that has retired so many instructions leaves the guest at `level`.
    #[inline]
    pub fn begin_handling(&mut self, vcpu: u32, level: u8, reason: u32, retired: u64) {
        let vcpu = vcpu as usize;
        if self.handling.len() <= vcpu {
            self.handling.resize(vcpu + 1, None);
        }
        self.handling[vcpu] = Some((level, reason, retired));
    }

    /// It enters a guest.
    #[inline]
    pub fn end_handling(&mut self, vcpu: u32, retired: u64) {
        let begun = self.handling.get_mut(vcpu as usize).and_then(Option::take);
        if let Some((level, reason, since)) = begun {
            let (level, reason) = place(level, reason);
            let handled = &mut self.stats.handled[level][reason];
            handled.times += 1;
            handled.instructions += retired.saturating_sub(since);
        }
    }

    /// Counts an entry that has failed.
    pub fn count_failed_entry(&mut self, rule: Rule, value: u64) {
        let failed = self.stats.failed.entry(rule).or_default();
        failed.times += 1;
        failed.value = value;
    }

    pub(crate) fn wants_uops(&self) -> bool {
        self.sink.as_ref().is_some_and(|s| s.wants_uops())
    }

    pub(crate) fn uops(&mut self, block: &Lifted) {
        if let Some(sink) = &mut self.sink {
            sink.uops(block);
        }
    }
}
