//! Hardware performance monitor (volume II, "Hardware Performance Monitor", Smcntrpmf, Sscofpmf).
//!
//! One instruction takes one cycle, and so does a trap. Counters hold a value at a mark and go on from there, so nothing is
//! counted as instructions run.

use emu_core::engine::Hart;
use serde::{Deserialize, Serialize};

use super::csr::Field;
use crate::cpu::HPM_COUNTERS;
use crate::hart::{Priv, Riscv};

/// Events that mhpmevent can select.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Event {
    /// Nothing.
    None = 0,
    /// Cycles.
    Cycle = 1,
    /// Instructions retired.
    Instret = 2,
    /// Exceptions taken.
    Exception = 3,
    /// Interrupts taken.
    Interrupt = 4,
    /// Page table walks.
    TlbMiss = 5,
}

/// The number of events.
const EVENTS: usize = 6;
/// Counters: cycle, time (which is none), instret, mhpmcounter3 and up.
pub const COUNTERS: usize = 3 + HPM_COUNTERS;
/// Bits of mcounteren and its like that have a counter.
pub const COUNTER_BITS: u64 = (1 << COUNTERS) - 1;

/// mhpmevent, mcyclecfg and minstretcfg.
pub mod config {
    #![allow(missing_docs, reason = "the manual's names")]
    use super::Field;
    pub const EVENT: Field = Field(0, 8);
    pub const VUINH: Field = Field(58, 1);
    pub const VSINH: Field = Field(59, 1);
    pub const UINH: Field = Field(60, 1);
    pub const SINH: Field = Field(61, 1);
    pub const MINH: Field = Field(62, 1);
    pub const OF: Field = Field(63, 1);
    /// All *INH bits.
    pub const INH: u64 = 0x1f << 58;
}

/// What the sources stand at.
#[derive(Clone, Copy, Debug)]
pub struct Now([u64; EVENTS]);

impl Now {
    /// The sources of a hart, before the present instruction.
    pub fn of(h: &Hart<Riscv>) -> Self {
        let c = &h.arch.csr.counters;
        let cycles = h.core.retired();
        let mut all = c.events;
        all[Event::Cycle as usize] = cycles;
        all[Event::Instret as usize] = cycles.wrapping_sub(c.traps);
        Now(all)
    }

    /// The same, when the present instruction has retired.
    pub fn after(mut self) -> Self {
        self.0[Event::Cycle as usize] += 1;
        self.0[Event::Instret as usize] += 1;
        self
    }
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Counter {
    value: u64,
    mark: u64,
    config: u64,
    /// Not inhibited by the present mode, nor by mcountinhibit.
    runs: bool,
}

/// All counters of a hart.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counters {
    counters: [Counter; COUNTERS],
    inhibit: u64,
    events: [u64; EVENTS],
    /// Exceptions taken: they take a cycle and retire nothing.
    pub traps: u64,
    mode: (Priv, bool),
    /// Whether any counter counts in some modes only.
    filtered: bool,
}

impl Default for Counters {
    fn default() -> Self {
        let mut counters = [Counter::default(); COUNTERS];
        counters[0].config = Event::Cycle as u64;
        counters[2].config = Event::Instret as u64;
        let mut c = Counters {
            counters,
            inhibit: 0,
            events: [0; EVENTS],
            traps: 0,
            mode: (Priv::Machine, false),
            filtered: false,
        };
        c.update(Priv::Machine, false);
        c
    }
}

impl Counters {
    /// Counts an event that is not a function of retired instructions.
    #[inline]
    pub fn count(&mut self, event: Event) {
        self.events[event as usize] += 1;
    }

    fn source(&self, i: usize, now: &Now) -> u64 {
        let event = config::EVENT.of(self.counters[i].config) as usize;
        now.0.get(event).copied().unwrap_or(0)
    }

    /// The value of a counter.
    pub fn read(&self, i: usize, now: Now) -> u64 {
        let c = &self.counters[i];
        if c.runs { c.value.wrapping_add(self.source(i, &now).wrapping_sub(c.mark)) } else { c.value }
    }

    /// Writes a counter; it counts from `after` on.
    pub fn write(&mut self, i: usize, value: u64, after: Now) {
        self.counters[i].mark = self.source(i, &after);
        self.counters[i].value = value;
    }

    /// mhpmevent, mcyclecfg or minstretcfg.
    pub fn config(&self, i: usize) -> u64 {
        let c = self.counters[i].config;
        if i < 3 { c & !config::EVENT.mask() } else { c }
    }

    /// Writes mhpmevent, mcyclecfg or minstretcfg. Events that there are not count nothing.
    pub fn set_config(&mut self, i: usize, value: u64, now: Now) {
        self.settle(now);
        let writable = config::INH | if i < 3 { 0 } else { config::OF.mask() | config::EVENT.mask() };
        let c = &mut self.counters[i];
        c.config = c.config & !writable | value & writable;
        if config::EVENT.of(c.config) >= EVENTS as u64 {
            config::EVENT.put(&mut c.config, 0);
        }
        self.counters[i].mark = self.source(i, &now);
        self.filtered = self.counters.iter().any(|c| c.config & config::INH != 0);
        self.update(self.mode.0, self.mode.1);
    }

    /// mcountinhibit.
    pub fn inhibit(&self) -> u64 {
        self.inhibit
    }

    /// Writes mcountinhibit.
    pub fn set_inhibit(&mut self, value: u64, now: Now) {
        self.settle(now);
        self.inhibit = value & COUNTER_BITS & !2;
        self.update(self.mode.0, self.mode.1);
    }

    /// scountovf.
    pub fn overflows(&self) -> u64 {
        (3..COUNTERS).filter(|i| config::OF.is(self.counters[*i].config)).fold(0, |bits, i| bits | 1 << i)
    }

    /// Whether any counter counts in some modes only.
    pub fn is_filtered(&self) -> bool {
        self.filtered
    }

    /// Brings values up to `now`. The mode is about to change, or what is counted.
    pub fn settle(&mut self, now: Now) {
        for i in 0..COUNTERS {
            let value = self.read(i, now);
            if value < self.counters[i].value {
                self.overflowed(i);
            }
            self.counters[i].value = value;
            self.counters[i].mark = self.source(i, &now);
        }
    }

    /// The mode is this one now.
    pub fn update(&mut self, mode: Priv, v: bool) {
        self.mode = (mode, v);
        let inh = match (mode, v) {
            (Priv::Machine, _) => config::MINH,
            (Priv::Supervisor, false) => config::SINH,
            (Priv::User, false) => config::UINH,
            (Priv::Supervisor, true) => config::VSINH,
            (Priv::User, true) => config::VUINH,
        };
        for (i, c) in self.counters.iter_mut().enumerate() {
            c.runs = self.inhibit >> i & 1 == 0 && !inh.is(c.config);
        }
    }

    /// A counter has wrapped: marks it in `value` order, for [`Counters::see_to_overflows`].
    fn overflowed(&mut self, i: usize) {
        if i >= 3 && !config::OF.is(self.counters[i].config) {
            config::OF.put(&mut self.counters[i].config, 1);
            self.events[Event::None as usize] |= 1;
        }
    }

    /// Sets OF of counters that have overflowed; true if that asks for an interrupt.
    pub fn see_to_overflows(&mut self, now: Now) -> bool {
        self.settle(now);
        std::mem::take(&mut self.events[Event::None as usize]) != 0
    }

    /// At least so many instructions pass before a counter overflows with OF clear.
    pub fn until_overflow(&self, now: Now) -> Option<u64> {
        if self.events[Event::None as usize] != 0 {
            return Some(1);
        }
        let left = (3..COUNTERS).filter_map(|i| {
            let c = &self.counters[i];
            let event = config::EVENT.of(c.config);
            if !c.runs || event == 0 || config::OF.is(c.config) {
                return None;
            }
            let value = self.read(i, now);
            // One that has wrapped since its mark is seen to at once.
            Some(if value < c.value { 1 } else { value.wrapping_neg() }).filter(|n| *n != 0)
        });
        left.min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn now(n: u64) -> Now {
        Now([0, n, n, 0, 0, 0])
    }

    #[test]
    fn a_counter_counts_where_it_may() {
        let mut c = Counters::default();
        assert_eq!(c.read(0, now(5)), 5);
        c.set_config(0, config::MINH.mask(), now(5));
        assert_eq!(c.read(0, now(9)), 5);
        c.settle(now(9));
        c.update(Priv::User, false);
        assert_eq!(c.read(0, now(12)), 8);
        c.write(2, 100, now(13));
        assert_eq!(c.read(2, now(13)), 100);
        c.set_inhibit(4, now(15));
        assert_eq!(c.read(2, now(99)), 102);
    }

    #[test]
    fn an_overflow_sets_of_and_asks_once() {
        let mut c = Counters::default();
        c.set_config(3, Event::Instret as u64, now(10));
        c.write(3, u64::MAX - 4, now(10));
        assert_eq!(c.until_overflow(now(11)), Some(4));
        assert!(!c.see_to_overflows(now(14)));
        assert!(c.see_to_overflows(now(16)));
        assert_eq!((c.overflows(), c.until_overflow(now(16))), (8, None));
        assert!(!c.see_to_overflows(now(17)));
    }
}
