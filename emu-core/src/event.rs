//! The event stream: every exit, trap, injection, world switch and device access (docs/design.md, decision 10).
//!
//! Statistics are counted always, in plain arrays, on paths that are slow anyway. Everything else happens only while
//! somebody listens.

use crate::engine::Lifted;

/// Levels that are told apart: 0 is unused (Undervisor itself), 1 the hypervisor, 2 its guest, and so on.
pub const LEVELS: usize = 6;
/// Reasons that are told apart at each level.
pub const REASONS: usize = 384;

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
            Kind::DeviceRead => "device-read",
            Kind::DeviceWrite => "device-write",
            Kind::Injection => "injection",
        }
    }
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
}

impl Default for Stats {
    fn default() -> Self {
        Stats {
            exits: Box::new([[0; REASONS]; LEVELS]),
            instructions: [0; LEVELS],
            switches: [[0; LEVELS]; LEVELS],
            injections: Box::new([[0; REASONS]; LEVELS]),
        }
    }
}

/// The stream.
#[derive(Default)]
pub struct Events {
    sink: Option<Box<dyn Sink>>,
    /// The counts.
    pub stats: Stats,
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
        self.stats.exits[usize::from(level).min(LEVELS - 1)][(reason as usize).min(REASONS - 1)] += 1;
    }

    /// Counts an interrupt that was made pending for the guest at `level`.
    #[inline]
    pub fn count_injection(&mut self, level: u8, reason: u32) {
        self.stats.injections[usize::from(level).min(LEVELS - 1)][(reason as usize).min(REASONS - 1)] += 1;
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
