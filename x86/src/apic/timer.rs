//! The timer ("APIC Timer"): one-shot, periodic, TSC-deadline. It counts the bus clock; when it fires is a count of the machine's instructions.

use emu_core::time::VirtualTime;
use serde::{Deserialize, Serialize};

use super::{fire, lvt};
use crate::model::BusClock;
use crate::processor::P;

/// Timer modes: bits 18 and 17 of its LVT entry.
const PERIODIC: u32 = 1;
const TSC_DEADLINE: u32 = 2;

/// Its registers.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Timer {
    pub initial: u32,
    /// Divide Configuration Register.
    pub divide: u32,
    /// When it last started to count down from its initial count, in ticks of the bus clock.
    start: u64,
    /// When it fires, in instructions.
    due: Option<u64>,
    /// IA32_TSC_DEADLINE.
    deadline: u64,
}

impl Timer {
    /// Ticks of the bus clock from its initial count to 0.
    fn period(&self) -> u64 {
        u64::from(self.initial) * divisor(self.divide)
    }
}

/// "Figure 11-10. Divide Configuration Register".
fn divisor(divide: u32) -> u64 {
    match divide & 3 | divide >> 1 & 4 {
        7 => 1,
        n => 2 << n,
    }
}

fn mode(h: &P) -> u32 {
    h.arch.apic.lvt[lvt::TIMER] >> 17 & 3
}

fn bus_clock(h: &P) -> BusClock {
    h.arch.model.bus_clock(h.world.frequency)
}

/// What the bus clock has counted.
fn now(h: &P) -> u64 {
    bus_clock(h).ticks(h.core.count())
}

/// Current Count Register.
pub(super) fn current(h: &P) -> u32 {
    let t = &h.arch.apic.timer;
    if t.due.is_none() || mode(h) == TSC_DEADLINE {
        return 0;
    }
    let steps = now(h).wrapping_sub(t.start) / divisor(t.divide);
    u64::from(t.initial).saturating_sub(steps) as u32
}

/// A write to the Initial Count Register starts it, or stops it. In TSC-deadline mode it is ignored.
pub(super) fn set_initial(h: &mut P, value: u32) {
    if mode(h) == TSC_DEADLINE {
        return;
    }
    h.arch.apic.timer.initial = value;
    h.arch.apic.timer.start = now(h);
    plan(h);
}

/// A write to the Divide Configuration Register: what is left counts on in the new steps.
pub(super) fn set_divide(h: &mut P, value: u32) {
    let left = current(h);
    h.arch.apic.timer.divide = value & 0xb;
    if left != 0 {
        let done = u64::from(h.arch.apic.timer.initial - left);
        h.arch.apic.timer.start = now(h).wrapping_sub(done * divisor(value));
        plan(h);
    }
}

/// The LVT entry has changed: a change between TSC-deadline and the others disarms it.
pub(super) fn mode_changed(h: &mut P, old: u32) {
    let (was, is) = (old >> 17 & 3, mode(h));
    if (was == TSC_DEADLINE) != (is == TSC_DEADLINE) {
        let t = &mut h.arch.apic.timer;
        (t.due, t.deadline, t.initial) = (None, 0, 0);
        h.core.call_for_attention();
    }
}

fn plan(h: &mut P) {
    let clock = bus_clock(h);
    let t = &mut h.arch.apic.timer;
    t.due = (t.initial != 0).then(|| clock.reached(t.start.wrapping_add(t.period())));
    h.core.call_for_attention();
}

/// IA32_TSC_DEADLINE: 0 once the timer has fired, or in another mode.
pub(crate) fn deadline(h: &P) -> u64 {
    h.arch.apic.timer.deadline
}

/// WRMSR to IA32_TSC_DEADLINE ("TSC-Deadline Mode"): ignored in another mode; 0 disarms.
pub(crate) fn set_deadline(h: &mut P, value: u64) {
    if mode(h) != TSC_DEADLINE {
        return;
    }
    h.arch.apic.timer.deadline = value;
    time_changed(h);
}

/// The TSC has been set: the deadline comes at another time.
pub(crate) fn time_changed(h: &mut P) {
    if mode(h) != TSC_DEADLINE {
        return;
    }
    let (now, tsc) = (h.core.count(), h.arch.tsc(h.core.count()));
    let t = &mut h.arch.apic.timer;
    t.due = (t.deadline != 0).then(|| now.saturating_add(t.deadline.saturating_sub(tsc)));
    h.core.call_for_attention();
    tick(h);
}

/// Fires what is due.
pub(crate) fn tick(h: &mut P) {
    let now = h.core.count();
    if h.arch.apic.timer.due.is_none_or(|due| due > now) {
        return;
    }
    let (mode, clock) = (mode(h), bus_clock(h));
    let t = &mut h.arch.apic.timer;
    t.due = None;
    if mode == PERIODIC && t.initial != 0 {
        let passed = clock.ticks(now).wrapping_sub(t.start) / t.period() * t.period();
        t.start = t.start.wrapping_add(passed);
        t.due = Some(clock.reached(t.start.wrapping_add(t.period())));
    }
    t.deadline = 0;
    fire(h, lvt::TIMER);
}

/// When it is due.
pub(crate) fn wakes_at(h: &P) -> Option<VirtualTime> {
    h.arch.apic.timer.due.map(|due| time_of(h, due))
}

/// The first point of virtual time at which the machine's count is `count` or more.
pub(crate) fn time_of(h: &P, count: u64) -> VirtualTime {
    h.world.frequency.time_reached(count)
}
