//! The event timers ("IA-PC HPET (High Precision Event Timers) Specification", Intel, revision 1.0a, October 2004): a main
//! counter of 64 bits that ticks every 10 ns, and 3 to 8 timers with comparators.
//!
//! The board wires the 8254 and the clock through this chip, because legacy replacement takes their places: input 0 (the 8254)
//! goes to output [`IRQ0`], input 1 (the clock) to output [`IRQ8`], unless "Legacy Replacement" is on. Outputs 0 to 31 are
//! inputs of the I/O APIC.
//!
//! An edge leaves the line high until the next one, so that a controller that samples levels sees it too. A comparator that
//! is written with the count of the very tick waits for a whole turn of the counter.

use emu_core::device::{Access, Device, DeviceCx};
use emu_core::device_state;
use emu_core::time::VirtualTime;
use serde::{Deserialize, Serialize};

use super::low_bytes;

/// Base of a PC's HPET.
pub const BASE: u64 = 0xfed0_0000;
/// Size in bytes.
pub const SIZE: u64 = 0x400;
/// Output: IRQ0 of the PC (input 0 of the 8259A, 2 of the I/O APIC).
pub const IRQ0: u32 = 32;
/// Output: IRQ8 of the PC.
pub const IRQ8: u32 = 33;
/// Nanoseconds in a tick of the main counter.
pub const PERIOD: u64 = 10;

// "Memory Map".
const CAPABILITIES: u64 = 0x00;
const CONFIGURATION: u64 = 0x10;
const STATUS: u64 = 0x20;
const MAIN_COUNTER: u64 = 0xf0;
const TIMERS: u64 = 0x100;
const TIMER_SIZE: u64 = 0x20;
const TIMER_CONFIGURATION: u64 = 0;
const TIMER_COMPARATOR: u64 = 8;
const TIMER_FSB_ROUTE: u64 = 0x10;

/// "General Configuration Register".
mod general {
    pub const ENABLE_CNF: u64 = 1;
    pub const LEG_RT_CNF: u64 = 2;
}

/// "Timer N Configuration and Capability Register".
mod timer {
    pub const INT_TYPE: u64 = 1 << 1;
    pub const INT_ENB: u64 = 1 << 2;
    pub const TYPE: u64 = 1 << 3;
    pub const PER_INT_CAP: u64 = 1 << 4;
    pub const SIZE_CAP: u64 = 1 << 5;
    pub const VAL_SET: u64 = 1 << 6;
    pub const MODE_32: u64 = 1 << 8;
    pub const FSB_EN: u64 = 1 << 14;
    pub const FSB_CAP: u64 = 1 << 15;
    pub const ROUTE_SHIFT: u32 = 9;
    pub const ROUTE: u64 = 0x1f << ROUTE_SHIFT;
    pub const WRITABLE: u64 = INT_TYPE | INT_ENB | TYPE | VAL_SET | MODE_32 | ROUTE | FSB_EN;
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Timer {
    configuration: u64,
    comparator: u64,
    /// What is added to the comparator of a periodic timer.
    period: u64,
    fsb_route: u64,
    /// The output line that is high.
    high: Option<u32>,
}

impl Timer {
    fn has(&self, bit: u64) -> bool {
        self.configuration & bit != 0
    }

    /// Bits that the comparator looks at.
    fn mask(&self) -> u64 {
        if self.has(timer::MODE_32) { 0xffff_ffff } else { u64::MAX }
    }

    /// Ticks from `count` until the main counter comes to the comparator; a whole turn is `None` with 64 bits.
    fn ticks_to_match(&self, count: u64) -> Option<u64> {
        match self.comparator.wrapping_sub(count) & self.mask() {
            0 => self.mask().checked_add(1),
            n => Some(n),
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct State {
    configuration: u64,
    status: u64,
    /// The main counter at `since`.
    count: u64,
    since: VirtualTime,
    timers: Vec<Timer>,
    /// Levels of the 8254 and the clock.
    legacy: [bool; 2],
}

/// The timers; see the module's text for inputs and outputs.
pub struct Hpet {
    /// Tn_INT_ROUTE_CAP of all timers.
    routes: u32,
    state: State,
}

impl Hpet {
    /// Timers at reset: 3 to 32 of them (others are taken as the nearest), each of which can be led to the inputs of the I/O
    /// APIC that `routes` has a bit for.
    pub fn new(timers: usize, routes: u32) -> Self {
        let one = Timer {
            configuration: u64::from(routes) << 32 | timer::PER_INT_CAP | timer::SIZE_CAP | timer::FSB_CAP,
            comparator: u64::MAX,
            period: 0,
            fsb_route: 0,
            high: None,
        };
        let timers = vec![one; timers.clamp(3, 32)];
        Hpet { routes, state: State { configuration: 0, status: 0, count: 0, since: 0, timers, legacy: [false; 2] } }
    }

    fn is_enabled(&self) -> bool {
        self.state.configuration & general::ENABLE_CNF != 0
    }

    fn is_legacy(&self) -> bool {
        self.state.configuration & general::LEG_RT_CNF != 0
    }

    /// "General Capabilities and ID Register".
    fn capabilities(&self) -> u64 {
        let femtoseconds = PERIOD * 1_000_000;
        femtoseconds << 32 | 0x8086 << 16 | 1 << 15 | 1 << 13 | (self.state.timers.len() as u64 - 1) << 8 | 1
    }

    /// "Interrupt Mapping": the output of a timer.
    fn route(&self, n: usize) -> Option<u32> {
        match n {
            0 if self.is_legacy() => return Some(IRQ0),
            1 if self.is_legacy() => return Some(IRQ8),
            _ => {}
        }
        let route = (self.state.timers[n].configuration >> timer::ROUTE_SHIFT) as u32 & 0x1f;
        (self.routes & 1 << route != 0).then_some(route)
    }

    /// Brings the main counter to the present, and the comparators that it has passed on the way.
    fn advance(&mut self, cx: &mut DeviceCx) {
        if !self.is_enabled() {
            self.state.since = cx.now;
            return;
        }
        let ticks = cx.now.saturating_sub(self.state.since) / PERIOD;
        if ticks == 0 {
            return;
        }
        let from = self.state.count;
        self.state.since += ticks * PERIOD;
        self.state.count = from.wrapping_add(ticks);
        for n in 0..self.state.timers.len() {
            let t = &mut self.state.timers[n];
            if t.ticks_to_match(from).is_none_or(|until| until > ticks) {
                continue;
            }
            if t.has(timer::TYPE) && t.period & t.mask() != 0 {
                // "Periodic Mode": as often as the counter has come by.
                let period = t.period & t.mask();
                let beyond = t.ticks_to_match(from).map_or(0, |until| ticks - until);
                let steps = beyond / period + 1;
                t.comparator = t.comparator.wrapping_add(period.wrapping_mul(steps)) & t.mask();
            }
            self.fire(n, cx);
        }
    }

    /// The main counter has come to the comparator of timer `n`.
    fn fire(&mut self, n: usize, cx: &mut DeviceCx) {
        let route = self.route(n);
        let t = &mut self.state.timers[n];
        if t.has(timer::INT_TYPE) {
            self.state.status |= 1 << n;
        }
        if !t.has(timer::INT_ENB) {
            return;
        }
        if t.has(timer::FSB_EN) {
            cx.msi(t.fsb_route >> 32, t.fsb_route as u32);
            return;
        }
        let is_edge = !t.has(timer::INT_TYPE);
        if let Some(low) = t.high.take_if(|_| is_edge) {
            cx.line(low, false);
        }
        if let Some(line) = route.filter(|_| t.high.is_none()) {
            t.high = Some(line);
            cx.line(line, true);
        }
    }

    /// After configuration or status were written: lines that have no reason to be high fall, levels rise.
    fn update_lines(&mut self, cx: &mut DeviceCx) {
        for n in 0..self.state.timers.len() {
            let route = self.route(n);
            let pending = self.state.status & 1 << n != 0;
            let enabled = self.is_enabled();
            let t = &mut self.state.timers[n];
            let drives = enabled && t.has(timer::INT_ENB) && !t.has(timer::FSB_EN);
            let stays = drives && t.high == route && (pending || !t.has(timer::INT_TYPE));
            if let Some(low) = t.high.take_if(|_| !stays) {
                cx.line(low, false);
            }
            if let Some(line) = route.filter(|_| drives && pending && t.has(timer::INT_TYPE) && t.high.is_none()) {
                t.high = Some(line);
                cx.line(line, true);
            }
        }
    }

    fn read_register(&self, at: u64) -> u64 {
        let s = &self.state;
        match at {
            CAPABILITIES => self.capabilities(),
            CONFIGURATION => s.configuration,
            STATUS => s.status,
            MAIN_COUNTER => s.count,
            TIMERS.. => match s.timers.get(((at - TIMERS) / TIMER_SIZE) as usize) {
                None => 0,
                Some(t) => match at % TIMER_SIZE {
                    TIMER_CONFIGURATION => t.configuration & !timer::VAL_SET, // it is for writing
                    TIMER_COMPARATOR => t.comparator,
                    TIMER_FSB_ROUTE => t.fsb_route,
                    _ => 0,
                },
            },
            _ => 0,
        }
    }

    /// Writes the bits of `mask` of the register at `at`.
    fn write_register(&mut self, at: u64, value: u64, mask: u64, cx: &mut DeviceCx) {
        let merge = |old: u64| old & !mask | value & mask;
        match at {
            CONFIGURATION => self.write_configuration(merge(self.state.configuration), cx),
            STATUS => self.state.status &= !(value & mask),
            MAIN_COUNTER if !self.is_enabled() => self.state.count = merge(self.state.count),
            TIMERS.. => {
                if let Some(t) = self.state.timers.get_mut(((at - TIMERS) / TIMER_SIZE) as usize) {
                    write_timer(t, at % TIMER_SIZE, merge);
                }
            }
            _ => {}
        }
    }

    fn write_configuration(&mut self, value: u64, cx: &mut DeviceCx) {
        let was_legacy = self.is_legacy();
        self.state.configuration = value & (general::ENABLE_CNF | general::LEG_RT_CNF);
        if was_legacy != self.is_legacy() {
            for (line, level) in [IRQ0, IRQ8].into_iter().zip(self.state.legacy) {
                cx.line(line, level && !self.is_legacy());
            }
        }
    }
}

fn write_timer(t: &mut Timer, at: u64, merge: impl Fn(u64) -> u64) {
    match at {
        TIMER_CONFIGURATION => {
            let mut value = t.configuration & !timer::WRITABLE | merge(t.configuration) & timer::WRITABLE;
            // "Tn_INT_ROUTE_CNF": an input that there is no way to does not read back.
            if value >> 32 & 1 << (value >> timer::ROUTE_SHIFT & 0x1f) == 0 {
                value = value & !timer::ROUTE | t.configuration & timer::ROUTE;
            }
            t.configuration = value;
            if t.has(timer::MODE_32) {
                t.comparator &= 0xffff_ffff;
                t.period &= 0xffff_ffff;
            }
        }
        TIMER_COMPARATOR if t.has(timer::TYPE) => {
            // "Tn_VAL_SET_CNF": the comparator itself, else only what is added to it.
            t.period = merge(t.period) & t.mask();
            if t.has(timer::VAL_SET) {
                t.comparator = merge(t.comparator) & t.mask();
                t.configuration &= !timer::VAL_SET;
            }
        }
        TIMER_COMPARATOR => t.comparator = merge(t.comparator) & t.mask(),
        TIMER_FSB_ROUTE => t.fsb_route = merge(t.fsb_route),
        _ => {}
    }
}

impl Device for Hpet {
    fn name(&self) -> &'static str {
        "hpet"
    }

    fn read(&mut self, access: Access, cx: &mut DeviceCx) -> u64 {
        self.advance(cx);
        let shift = 8 * (access.offset % 8);
        let low = self.read_register(access.offset & !7) >> shift;
        let beyond = access.offset % 8 + u64::from(access.size) > 8;
        // An access across two registers is not allowed ("Register Access"); it gets the bytes that are there.
        let value = if beyond { low | self.read_register((access.offset & !7) + 8) << (64 - shift) } else { low };
        value & low_bytes(access.size)
    }

    fn write(&mut self, access: Access, value: u64, cx: &mut DeviceCx) {
        self.advance(cx);
        let shift = 8 * (access.offset % 8);
        let mask = low_bytes(access.size);
        self.write_register(access.offset & !7, value << shift, mask << shift, cx);
        self.update_lines(cx);
    }

    fn input(&mut self, line: u32, level: bool, cx: &mut DeviceCx) {
        let Some(legacy) = self.state.legacy.get_mut(line as usize) else { return };
        *legacy = level;
        if !self.is_legacy() {
            cx.line([IRQ0, IRQ8][line as usize], level);
        }
    }

    fn tick(&mut self, cx: &mut DeviceCx) {
        self.advance(cx);
    }

    /// A level that is high already need not be told again.
    fn wakes_at(&self) -> Option<VirtualTime> {
        if !self.is_enabled() {
            return None;
        }
        let s = &self.state;
        let tells = |n: usize, t: &Timer| t.has(timer::INT_ENB) && !(t.has(timer::INT_TYPE) && s.status & 1 << n != 0);
        let until = s.timers.iter().enumerate().filter(|(n, t)| tells(*n, t));
        let until = until.filter_map(|(_, t)| t.ticks_to_match(s.count)).min()?;
        s.since.checked_add(until.checked_mul(PERIOD)?)
    }

    fn reset(&mut self) {
        *self = Hpet::new(self.state.timers.len(), self.routes);
    }

    device_state!(state);
}

#[cfg(test)]
mod tests {
    use emu_core::device::{Bench, Signal};
    use proptest::prelude::*;

    use super::*;

    struct Rig(Hpet, Bench);
    impl Rig {
        fn new() -> Self {
            Rig(Hpet::new(3, 0x00f0_0804), Bench::default())
        }
        fn r(&mut self, at: u64) -> u64 {
            self.1.read(&mut self.0, at, 8)
        }
        fn w(&mut self, at: u64, value: u64) {
            self.1.write(&mut self.0, at, 8, value);
        }
        fn go(&mut self, ticks: u64) {
            let to = self.1.now + ticks * PERIOD;
            self.1.run_to(&mut self.0, to);
        }
        fn lines(&mut self) -> Vec<(u32, bool)> {
            let signals = self.1.take_signals();
            let line = |s: &Signal| match s {
                Signal::Line { line, level } => Some((*line, *level)),
                _ => None,
            };
            signals.iter().filter_map(line).collect()
        }
    }
    fn at(n: u64, register: u64) -> u64 {
        TIMERS + n * TIMER_SIZE + register
    }
    const ROUTE_20: u64 = 20 << 9;

    #[test]
    fn capabilities_and_reserved_bits() {
        let mut h = Rig::new();
        assert_eq!(h.r(0), 0x0098_9680_8086_a201);
        assert_eq!(h.1.read(&mut h.0, 4, 4), 10_000_000, "femtoseconds");
        assert_eq!((h.r(at(0, 0)), h.r(at(2, 8)), h.r(at(3, 0))), (0x00f0_0804_0000_8030, u64::MAX, 0));
        h.w(0x10, u64::MAX);
        h.w(at(0, 0), u64::MAX);
        assert_eq!((h.r(0x10), h.r(at(0, 0))), (3, 0x00f0_0804_0000_c13e));
        for (route, reads) in [(20, 20), (3, 20), (2, 2), (31, 2)] {
            h.w(at(0, 0), route << 9);
            assert_eq!(h.r(at(0, 0)) >> 9 & 0x1f, reads);
        }
        h.w(0, 0);
        h.w(8, 1);
        assert_eq!((h.r(8), h.r(0x18), h.1.read(&mut h.0, 3, 2)), (0, 0, 0x8080));
    }

    #[test]
    fn the_main_counter() {
        let mut h = Rig::new();
        h.1.now = 1234;
        h.w(MAIN_COUNTER, 0xffff_fff0);
        h.go(100);
        assert_eq!(h.r(MAIN_COUNTER), 0xffff_fff0, "halted");
        h.w(CONFIGURATION, 1);
        h.go(0x20);
        assert_eq!((h.r(MAIN_COUNTER), h.1.read(&mut h.0, 0xf4, 4)), (0x1_0000_0010, 1));
        h.w(MAIN_COUNTER, 0);
        assert_eq!(h.r(MAIN_COUNTER), 0x1_0000_0010, "it is written while halted only");
        h.1.now += 9;
        h.1.now += 9;
        assert_eq!(h.r(MAIN_COUNTER), 0x1_0000_0011);
        h.1.now += 2;
        assert_eq!(h.r(MAIN_COUNTER), 0x1_0000_0012, "parts of a tick are not lost");
        h.w(CONFIGURATION, 0);
        h.1.write(&mut h.0, 0xf0, 4, 7);
        assert_eq!(h.r(MAIN_COUNTER), 0x1_0000_0007);
    }

    #[test]
    fn one_shot_edges() {
        let mut h = Rig::new();
        h.w(at(0, 0), ROUTE_20 | timer::INT_ENB);
        h.w(at(0, 8), 50);
        h.w(CONFIGURATION, 1);
        h.go(49);
        assert_eq!(h.lines(), []);
        h.go(1);
        assert_eq!((h.lines(), h.r(STATUS)), (vec![(20, true)], 0));
        assert_eq!(h.0.wakes_at(), None, "a turn of 64 bits is beyond time");
        h.w(at(0, 8), 90);
        h.go(40);
        assert_eq!(h.lines(), [(20, false), (20, true)], "an edge each time");
        h.w(at(0, 0), ROUTE_20);
        assert_eq!(h.lines(), [(20, false)]);
        h.w(at(1, 0), timer::INT_ENB);
        h.w(at(1, 8), 100);
        h.go(40);
        assert_eq!(h.lines(), [], "there is no way to input 0");
    }

    #[test]
    fn levels_stay_until_their_status_is_cleared() {
        let mut h = Rig::new();
        h.w(at(1, 0), ROUTE_20 | timer::INT_ENB | timer::INT_TYPE);
        h.w(at(1, 8), 10);
        h.w(CONFIGURATION, 1);
        h.go(10);
        assert_eq!((h.lines(), h.r(STATUS)), (vec![(20, true)], 2));
        h.w(STATUS, 0xfd);
        assert_eq!((h.lines(), h.r(STATUS)), (vec![], 2));
        h.w(STATUS, 2);
        assert_eq!((h.lines(), h.r(STATUS)), (vec![(20, false)], 0));
        h.w(at(1, 0), timer::INT_TYPE);
        h.w(at(1, 8), 40);
        h.go(90);
        assert_eq!((h.lines(), h.r(STATUS)), (vec![], 2), "status comes without the interrupt");
        h.w(at(1, 0), ROUTE_20 | timer::INT_ENB | timer::INT_TYPE);
        assert_eq!(h.lines(), [(20, true)]);
    }

    /// "Periodic Mode", as drivers set it up: VAL_SET, the first match, the period.
    #[test]
    fn periods() {
        for mode in [0, timer::MODE_32] {
            let mut h = Rig::new();
            h.w(MAIN_COUNTER, 0xffff_fff0);
            h.w(at(0, 0), ROUTE_20 | timer::INT_ENB | timer::TYPE | timer::VAL_SET | mode);
            h.w(at(0, 8), 0xffff_fff8);
            h.w(at(0, 8), 100);
            assert_eq!((h.r(at(0, 0)) & timer::VAL_SET, h.r(at(0, 8))), (0, 0xffff_fff8));
            h.w(CONFIGURATION, 1);
            let mut times = Vec::new();
            while let Some(next) = h.0.wakes_at().filter(|t| *t < 5000) {
                h.1.run_to(&mut h.0, next);
                times.push(next);
            }
            assert_eq!(times, [80, 1080, 2080, 3080, 4080]);
            assert_eq!(h.lines().iter().filter(|(_, level)| *level).count(), 5);
            h.w(at(0, 0), ROUTE_20 | timer::TYPE | mode);
            h.go(1_000_000);
            let count = h.r(MAIN_COUNTER) & h.0.state.timers[0].mask();
            assert!(h.r(at(0, 8)).wrapping_sub(count) <= 100, "periods that nobody saw are caught up with");
        }
    }

    #[test]
    fn a_comparator_of_32_bits_comes_round() {
        let mut h = Rig::new();
        h.w(at(2, 0), ROUTE_20 | timer::INT_ENB | timer::MODE_32);
        h.w(at(2, 8), 0xabcd_0000_0005);
        assert_eq!(h.r(at(2, 8)), 5);
        h.w(CONFIGURATION, 1);
        h.go(5);
        assert_eq!(h.lines().len(), 1);
        assert_eq!(h.0.wakes_at(), Some((5 + (1 << 32)) * PERIOD));
    }

    #[test]
    fn legacy_replacement() {
        let mut h = Rig::new();
        h.0.input(0, true, &mut h.1.cx());
        h.0.input(1, true, &mut h.1.cx());
        assert_eq!(h.lines(), [(IRQ0, true), (IRQ8, true)]);
        h.w(CONFIGURATION, 3);
        assert_eq!(h.lines(), [(IRQ0, false), (IRQ8, false)]);
        h.0.input(0, false, &mut h.1.cx());
        h.0.input(0, true, &mut h.1.cx());
        for n in 0..3 {
            h.w(at(n, 0), ROUTE_20 | timer::INT_ENB);
            h.w(at(n, 8), 10 + n);
        }
        h.go(20);
        assert_eq!(h.lines(), [(IRQ0, true), (IRQ8, true), (20, true)]);
        h.w(CONFIGURATION, 1);
        let end = h.lines();
        assert!(end.contains(&(IRQ0, true)), "the 8254 is back: {end:?}");
    }

    #[test]
    fn fsb_delivery() {
        let mut h = Rig::new();
        h.w(at(0, 0), timer::INT_ENB | timer::FSB_EN);
        h.w(at(0, 0x10), 0xfee0_1000_0000_0042);
        h.w(at(0, 8), 10);
        h.w(CONFIGURATION, 1);
        h.go(10);
        assert_eq!(h.1.take_signals(), [Signal::Msi { address: 0xfee0_1000, data: 0x42 }]);
    }

    proptest! {
        #[test]
        fn nothing_panics_and_saved_state_goes_on_alike(
            ops in prop::collection::vec((0u64..0x180, 1u8..=8, any::<u64>(), 0u32..64, any::<bool>(), 0u64..2_000), 1..200)
        ) {
            let (mut a, mut b) = (Rig::new(), Rig::new());
            let half = ops.len() / 2;
            for (i, (at, size, value, shift, write, ticks)) in ops.into_iter().enumerate() {
                if i == half {
                    b.0.restore(&a.0.save()).unwrap();
                    b.1.now = a.1.now;
                    a.1.take_signals();
                }
                let go = |h: &mut Rig| {
                    h.go(ticks);
                    if write { h.1.write(&mut h.0, at & !3, size.min(8 - (at & 4) as u8), value >> shift); 0 } else { h.1.read(&mut h.0, at, size) }
                };
                let result = go(&mut a);
                if i >= half {
                    prop_assert_eq!(result, go(&mut b));
                    prop_assert_eq!(a.1.take_signals(), b.1.take_signals());
                }
            }
            prop_assert_eq!(&a.0.state, &b.0.state);
        }
    }
}
