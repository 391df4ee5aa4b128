//! The interval timer ("82C54 CHMOS Programmable Interval Timer", Intel 231244-006), and the port 61h that sits between its
//! counter 2 and the speaker ("82371FB/82371SB", Intel 290550-002, "NMI Status and Control Register").
//!
//! The counters run at [`HERTZ`], from virtual time without drift: CLK pulse n falls on the first nanosecond at which n
//! whole periods have gone by. Nothing is done per pulse; a counter is brought forward when somebody looks, or when the OUT
//! of counter 0 has to change.
//!
//! A cycle of the ISA bus is longer than CLK's, and an instruction here is shorter: a count that is read right behind its
//! writing is the one that CLK is about to load, as it is on hardware.
//!
//! The gates of counters 0 and 1 are tied high. Not modelled: the sources of NMI behind port 61h, which read as quiet, and
//! the digits above 9 of a BCD count (undefined), which count as what they are worth.

use emu_core::device::{Access, Device, DeviceCx};
use emu_core::device_state;
use emu_core::time::VirtualTime;
use serde::{Deserialize, Serialize};

use super::{Ports, read_bytes, write_bytes};

/// Where the registers are.
pub const PORTS: [Ports; 2] =
    [Ports { port: 0x40, size: 4, offset: 0 }, Ports { port: 0x61, size: 1, offset: PORT_61 }];
/// Frequency of CLK in hertz.
pub const HERTZ: u64 = 1_193_182;

const CONTROL: u64 = 3;
const PORT_61: u64 = 4;

/// CLK pulses between two of counter 1's as a PC programs it, for the refresh toggle.
const REFRESH_PULSES: u64 = 18;

/// Port 61h, "NMI Status and Control Register".
mod port_61 {
    pub const GATE_2: u8 = 1;
    /// What is kept of a write: gate 2, speaker data, and the two NMI disables.
    pub const KEPT: u8 = 0xf;
    pub const REFRESH: u8 = 0x10;
    pub const OUT_2: u8 = 0x20;
}

/// The CLK pulses that have gone by at a time.
fn pulses(now: VirtualTime) -> u64 {
    (u128::from(now) * u128::from(HERTZ) / 1_000_000_000) as u64
}

/// The time at which CLK pulse `n` falls.
fn time_of(n: u64) -> Option<VirtualTime> {
    u64::try_from((u128::from(n) * 1_000_000_000).div_ceil(u128::from(HERTZ))).ok()
}

/// "Mode definitions".
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
enum Mode {
    /// Mode 0.
    TerminalCount,
    /// Mode 1.
    OneShot,
    /// Mode 2.
    RateGenerator,
    /// Mode 3.
    SquareWave,
    /// Mode 4.
    SoftwareStrobe,
    /// Mode 5.
    HardwareStrobe,
}

impl Mode {
    fn from_field(field: u8) -> Self {
        match field & 7 {
            0 => Mode::TerminalCount,
            1 => Mode::OneShot,
            2 | 6 => Mode::RateGenerator,
            3 | 7 => Mode::SquareWave,
            4 => Mode::SoftwareStrobe,
            _ => Mode::HardwareStrobe,
        }
    }

    fn is_periodic(self) -> bool {
        matches!(self, Mode::RateGenerator | Mode::SquareWave)
    }

    fn waits_for_trigger(self) -> bool {
        matches!(self, Mode::OneShot | Mode::HardwareStrobe)
    }

    fn is_strobe(self) -> bool {
        matches!(self, Mode::SoftwareStrobe | Mode::HardwareStrobe)
    }
}

/// One counter.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Counter {
    /// The low six bits of its control word.
    control: u8,
    mode: Mode,
    gate: bool,
    out: bool,
    /// The count register CR; 0 is a full turn.
    cr: u16,
    /// The first byte of two that were written.
    first_byte: Option<u8>,
    /// The second byte of two is read next.
    reads_second: bool,
    latched_count: Option<u16>,
    latched_status: Option<u8>,
    /// A count has been written since the control word.
    has_count: bool,
    /// CR holds a count that the counting element has not taken over ("Null count").
    null_count: bool,
    /// The counting element has been loaded since the control word, and no first byte has stopped it.
    counts: bool,
    /// The pulse up to which all this is true.
    at: u64,
    /// The pulse that loads the counting element.
    loads_at: Option<u64>,
    /// Modes 0, 1, 4, 5: the counting element, modulo a turn. Modes 2, 3: unused.
    element: u64,
    /// Modes 0, 1, 4, 5: pulses until it expires, 0 when it has. Modes 2, 3: pulses left of the period, of the half-period.
    left: u64,
    /// Mode 3: the count of the present half-period.
    half_of: u64,
}

impl Counter {
    fn new(gate: bool) -> Self {
        Counter {
            control: 0x30,
            mode: Mode::TerminalCount,
            gate,
            out: false,
            cr: 0,
            first_byte: None,
            reads_second: false,
            latched_count: None,
            latched_status: None,
            has_count: false,
            null_count: true,
            counts: false,
            at: 0,
            loads_at: None,
            element: 0,
            left: 0,
            half_of: 0,
        }
    }

    fn is_bcd(&self) -> bool {
        self.control & 1 != 0
    }

    /// The number of counts in a turn.
    fn turn(&self) -> u64 {
        if self.is_bcd() { 10_000 } else { 0x1_0000 }
    }

    /// The count in CR, 1 to a full turn.
    fn count(&self) -> u64 {
        let cr = u64::from(self.cr);
        let value = if self.is_bcd() { (0..4).map(|d| (cr >> (4 * d) & 0xf) * 10u64.pow(d)).sum() } else { cr };
        match value % self.turn() {
            0 => self.turn(),
            n => n,
        }
    }

    /// Length of the half-period of count `n` in which OUT is `out`: the high one takes the odd pulse.
    fn half(n: u64, out: bool) -> u64 {
        (if out { n.div_ceil(2) } else { n / 2 }).max(1)
    }

    /// The counting element takes over CR.
    fn load(&mut self) {
        let n = self.count();
        self.null_count = false;
        self.counts = true;
        self.element = n % self.turn();
        self.half_of = n;
        match self.mode {
            Mode::TerminalCount | Mode::OneShot => self.out = false,
            Mode::RateGenerator => self.out = n != 1,
            _ => self.out = true,
        }
        self.left = if self.mode == Mode::SquareWave { Self::half(n, true) } else { n };
    }

    /// Brings the counter forward to pulse `to`.
    fn advance(&mut self, to: u64) {
        if let Some(at) = self.loads_at.filter(|at| *at <= to) {
            self.count_to(at);
            self.loads_at = None;
            self.load();
        }
        self.count_to(to);
    }

    fn count_to(&mut self, to: u64) {
        let n = to.saturating_sub(self.at);
        self.at = self.at.max(to);
        // "Gate pin operations summary": in modes 1 and 5 the gate triggers only.
        if n == 0 || !self.counts || !self.gate && !self.mode.waits_for_trigger() {
            return;
        }
        match self.mode {
            Mode::RateGenerator => self.count_period(n),
            Mode::SquareWave => self.count_halves(n),
            _ => self.count_down(n),
        }
    }

    /// Modes 0, 1, 4, 5: down to 0, once, and on around.
    fn count_down(&mut self, n: u64) {
        let turn = self.turn();
        self.element = (self.element + turn - n % turn) % turn;
        if self.left > n {
            self.left -= n;
        } else if self.left > 0 {
            let beyond = n - self.left;
            self.left = 0;
            self.out = !self.mode.is_strobe() || beyond > 0;
        } else {
            self.out |= self.mode.is_strobe();
        }
    }

    /// Mode 2: OUT is low for the last pulse of each period. A new count is taken over at the end of a period.
    fn count_period(&mut self, n: u64) {
        if n < self.left {
            self.left -= n;
        } else {
            let beyond = n - self.left;
            let period = self.count();
            self.null_count = false;
            self.left = period - beyond % period;
        }
        self.out = self.left != 1;
    }

    /// Mode 3: OUT changes after each half-period. A new count is taken over at the end of a half-period.
    fn count_halves(&mut self, n: u64) {
        if n < self.left {
            self.left -= n;
            return;
        }
        let count = self.count();
        self.null_count = false;
        self.half_of = count;
        self.out = !self.out;
        let mut beyond = (n - self.left) % (Self::half(count, true) + Self::half(count, false));
        let half = Self::half(count, self.out);
        if beyond >= half {
            beyond -= half;
            self.out = !self.out;
        }
        self.left = Self::half(count, self.out) - beyond;
    }

    /// What is read of the counting element: with a load to come, what it loads.
    fn reading(&self) -> u16 {
        let Some(at) = self.loads_at else { return self.element() };
        let mut loaded = self.clone();
        loaded.advance(at);
        loaded.element()
    }

    /// The counting element as it is.
    fn element(&self) -> u16 {
        let value = match self.mode {
            Mode::RateGenerator | Mode::SquareWave if self.left == 0 => self.element, // not loaded yet
            Mode::RateGenerator => self.left,
            // It is decremented by two; an odd count less one, and the high half goes down to 0.
            Mode::SquareWave if self.half_of % 2 == 1 && self.out => 2 * self.left.saturating_sub(1),
            Mode::SquareWave => 2 * self.left,
            _ => self.element,
        } % self.turn();
        if self.is_bcd() { (0..4).map(|d| ((value / 10u64.pow(d) % 10) as u16) << (4 * d)).sum() } else { value as u16 }
    }

    /// "Status byte".
    fn status(&self) -> u8 {
        u8::from(self.out) << 7 | u8::from(self.null_count) << 6 | self.control
    }

    fn write_control(&mut self, control: u8) {
        let gate = self.gate;
        let at = self.at;
        let element = self.element;
        *self = Counter {
            control: control & 0x3f,
            mode: Mode::from_field(control >> 1),
            at,
            element,
            ..Counter::new(gate)
        };
        self.out = self.mode != Mode::TerminalCount;
    }

    /// "Write operations". A byte of the count.
    fn write(&mut self, value: u8) {
        let count = match (self.control >> 4 & 3, self.first_byte) {
            (1, _) => u16::from(value),
            (2, _) => u16::from(value) << 8,
            (_, None) => {
                self.first_byte = Some(value);
                if self.mode == Mode::TerminalCount {
                    // "Writing the first byte disables counting. OUT is set low immediately."
                    self.counts = false;
                    self.loads_at = None;
                    self.out = false;
                }
                return;
            }
            (_, Some(low)) => u16::from(value) << 8 | u16::from(low),
        };
        self.first_byte = None;
        self.cr = count;
        self.has_count = true;
        self.null_count = true;
        match self.mode {
            Mode::TerminalCount => {
                self.out = false;
                self.loads_at = Some(self.at + 1);
            }
            Mode::SoftwareStrobe => self.loads_at = Some(self.at + 1),
            Mode::RateGenerator | Mode::SquareWave if !self.counts => self.loads_at = Some(self.at + 1),
            _ => {} // at the end of the period, or with the next trigger
        }
    }

    /// "Read operations". A byte of the status, the latched count or the counting element.
    fn read(&mut self) -> u8 {
        if let Some(status) = self.latched_status.take() {
            return status;
        }
        let value = self.latched_count.unwrap_or_else(|| self.reading());
        let second = match self.control >> 4 & 3 {
            1 => false,
            2 => true,
            _ => {
                self.reads_second = !self.reads_second;
                !self.reads_second
            }
        };
        if !self.reads_second {
            self.latched_count = None;
        }
        if second { (value >> 8) as u8 } else { value as u8 }
    }

    fn latch_count(&mut self) {
        if self.latched_count.is_none() {
            self.latched_count = Some(self.reading());
        }
    }

    fn latch_status(&mut self) {
        if self.latched_status.is_none() {
            self.latched_status = Some(self.status());
        }
    }

    /// "Gate pin operations summary".
    fn set_gate(&mut self, gate: bool) {
        let rises = gate && !self.gate;
        self.gate = gate;
        if self.mode.is_periodic() && !gate {
            self.out = true;
        }
        if rises && self.has_count && (self.mode.waits_for_trigger() || self.mode.is_periodic()) {
            self.loads_at = Some(self.at + 1);
        }
    }

    /// The pulse at which OUT may change next by itself.
    fn changes_at(&self) -> Option<u64> {
        let runs = self.counts && (self.gate || self.mode.waits_for_trigger());
        let change = match self.mode {
            _ if !runs => None,
            Mode::RateGenerator if self.out => Some(self.left - 1),
            Mode::RateGenerator => (self.count() != 1).then_some(1),
            Mode::SquareWave => Some(self.left),
            _ if self.left > 0 => Some(self.left),
            _ => (!self.out && self.mode.is_strobe()).then_some(1),
        };
        let change = change.map(|n| self.at + n.max(1));
        [change, self.loads_at].into_iter().flatten().min()
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct State {
    counters: [Counter; 3],
    port_61: u8,
    /// The level of the output line.
    line: bool,
}

impl Default for State {
    fn default() -> Self {
        State { counters: [true, true, false].map(Counter::new), port_61: 0, line: false }
    }
}

/// The timer. Output line 0 is OUT of counter 0, the PC's IRQ0.
#[derive(Default)]
pub struct Pit {
    state: State,
}

impl Pit {
    /// A timer at power-on.
    pub fn new() -> Self {
        Self::default()
    }

    fn advance(&mut self, cx: &mut DeviceCx) {
        for c in &mut self.state.counters {
            c.advance(pulses(cx.now));
        }
        self.update_line(cx);
    }

    fn update_line(&mut self, cx: &mut DeviceCx) {
        let out = self.state.counters[0].out;
        if out != self.state.line {
            self.state.line = out;
            cx.line(0, out);
        }
    }

    /// "Control word format".
    fn write_control(&mut self, value: u8) {
        let counter = usize::from(value >> 6);
        if counter == 3 {
            // "Read-back command": the counters in bits 3:1; COUNT and STATUS are latched where their bits are 0.
            for (i, c) in self.state.counters.iter_mut().enumerate() {
                if value & 2 << i == 0 {
                    continue;
                }
                if value & 0x20 == 0 {
                    c.latch_count();
                }
                if value & 0x10 == 0 {
                    c.latch_status();
                }
            }
        } else if value & 0x30 == 0 {
            self.state.counters[counter].latch_count();
        } else {
            self.state.counters[counter].write_control(value);
        }
    }

    fn read_port_61(&self, cx: &DeviceCx) -> u8 {
        let refresh = pulses(cx.now) / REFRESH_PULSES % 2 == 1;
        let mut value = self.state.port_61;
        if refresh {
            value |= port_61::REFRESH;
        }
        if self.state.counters[2].out {
            value |= port_61::OUT_2;
        }
        value
    }
}

impl Device for Pit {
    fn name(&self) -> &'static str {
        "pit"
    }

    fn read(&mut self, access: Access, cx: &mut DeviceCx) -> u64 {
        self.advance(cx);
        read_bytes(access, |at| match at {
            0..CONTROL => self.state.counters[at as usize].read(),
            CONTROL => 0, // "No operation", the bus floats
            PORT_61 => self.read_port_61(cx),
            _ => 0xff,
        })
    }

    fn write(&mut self, access: Access, value: u64, cx: &mut DeviceCx) {
        self.advance(cx);
        write_bytes(access, value, |at, byte| match at {
            0..CONTROL => self.state.counters[at as usize].write(byte),
            CONTROL => self.write_control(byte),
            PORT_61 => {
                self.state.port_61 = byte & port_61::KEPT;
                self.state.counters[2].set_gate(byte & port_61::GATE_2 != 0);
            }
            _ => {}
        });
        self.update_line(cx);
    }

    /// A pulse of OUT that is over before somebody looks is not lost: the levels come one by one.
    fn tick(&mut self, cx: &mut DeviceCx) {
        self.advance(cx);
    }

    fn wakes_at(&self) -> Option<VirtualTime> {
        time_of(self.state.counters[0].changes_at()?)
    }

    fn reset(&mut self) {
        self.state = State::default();
    }

    device_state!(state);
}

#[cfg(test)]
mod tests {
    use emu_core::device::{Bench, Signal};
    use proptest::prelude::*;

    use super::*;

    struct Rig(Pit, Bench);
    impl Rig {
        fn new() -> Self {
            Rig(Pit::new(), Bench::default())
        }
        fn w(&mut self, at: u64, value: u8) {
            self.1.write(&mut self.0, at, 1, value.into());
        }
        fn r(&mut self, at: u64) -> u8 {
            self.1.read(&mut self.0, at, 1) as u8
        }
        fn r16(&mut self, at: u64) -> u16 {
            u16::from(self.r(at)) | u16::from(self.r(at)) << 8
        }
        /// Control word for both bytes of counter 2, then the count.
        fn program(&mut self, mode: u8, count: u16) {
            self.w(CONTROL, 0xb0 | mode << 1);
            self.count(count);
        }
        fn count(&mut self, count: u16) {
            self.w(2, count as u8);
            self.w(2, (count >> 8) as u8);
        }
        /// Lets so many CLK pulses pass.
        fn go(&mut self, n: u64) {
            let to = time_of(pulses(self.1.now) + n).unwrap();
            self.1.run_to(&mut self.0, to);
        }
        fn gate(&mut self, level: bool) {
            self.w(PORT_61, level.into());
        }
        fn out(&mut self) -> bool {
            self.r(PORT_61) & port_61::OUT_2 != 0
        }
        /// OUT and the count after each of the next `n` pulses.
        fn trace(&mut self, n: usize) -> Vec<(u8, u16)> {
            (0..n)
                .map(|_| {
                    self.go(1);
                    (self.out().into(), self.r16(2))
                })
                .collect()
        }
    }

    /// OUT and the count after each pulse.
    type Wave = [(u8, u16)];

    /// The wave forms of "Mode definitions", pulse by pulse.
    #[test]
    fn the_six_modes() {
        let table: [(u8, u16, bool, &Wave); 7] = [
            (0, 4, false, &[(0, 4), (0, 3), (0, 2), (0, 1), (1, 0), (1, 0xffff), (1, 0xfffe)]),
            (1, 3, true, &[(0, 3), (0, 2), (0, 1), (1, 0), (1, 0xffff)]),
            (2, 3, false, &[(1, 3), (1, 2), (0, 1), (1, 3), (1, 2), (0, 1), (1, 3)]),
            (3, 4, false, &[(1, 4), (1, 2), (0, 4), (0, 2), (1, 4), (1, 2), (0, 4)]),
            (3, 5, false, &[(1, 4), (1, 2), (1, 0), (0, 4), (0, 2), (1, 4), (1, 2), (1, 0)]),
            (4, 3, false, &[(1, 3), (1, 2), (1, 1), (0, 0), (1, 0xffff), (1, 0xfffe)]),
            (5, 3, true, &[(1, 3), (1, 2), (1, 1), (0, 0), (1, 0xffff)]),
        ];
        for (mode, count, triggered, expected) in table {
            let mut p = Rig::new();
            p.gate(!triggered);
            p.program(mode, count);
            assert_eq!(p.out(), mode != 0, "mode {mode}: OUT after the control word");
            if triggered {
                p.go(10);
                assert!(p.out(), "mode {mode} waits for its trigger");
                p.gate(true);
            }
            assert_eq!(p.trace(expected.len()), expected, "mode {mode}");
        }
    }

    #[test]
    fn a_new_count_while_counting() {
        let mut p = Rig::new();
        p.gate(true);
        p.program(0, 9);
        p.go(5);
        p.w(2, 2);
        p.go(100);
        assert!(!p.out(), "the first byte stops mode 0");
        p.w(2, 0);
        assert_eq!(p.trace(3), [(0, 2), (0, 1), (1, 0)]);
        p.program(2, 4);
        p.go(2);
        p.count(2);
        assert_eq!(p.trace(6), [(1, 2), (0, 1), (1, 2), (0, 1), (1, 2), (0, 1)], "mode 2: with the next period");
        p.program(3, 6);
        p.go(2);
        p.count(4);
        assert_eq!(p.trace(6), [(1, 2), (0, 4), (0, 2), (1, 4), (1, 2), (0, 4)], "mode 3: with the next half");
        p.program(4, 9);
        p.go(3);
        p.count(2);
        assert_eq!(p.trace(4), [(1, 2), (1, 1), (0, 0), (1, 0xffff)], "mode 4: with the next pulse");
    }

    #[test]
    fn the_gate() {
        let mut p = Rig::new();
        p.program(0, 5);
        p.go(9);
        assert_eq!(p.r16(2), 5, "loaded, but not counting");
        p.gate(true);
        p.go(2);
        p.gate(false);
        p.go(9);
        assert_eq!((p.out(), p.r16(2)), (false, 3));
        p.gate(true);
        assert_eq!(p.trace(3), [(0, 2), (0, 1), (1, 0)]);
        p.program(2, 3);
        p.go(3);
        assert!(!p.out());
        p.gate(false);
        assert!(p.out(), "mode 2: OUT rises at once");
        p.go(5);
        p.gate(true);
        assert_eq!(p.trace(3), [(1, 3), (1, 2), (0, 1)]);
        p.program(1, 3);
        p.gate(false);
        p.gate(true);
        p.go(3);
        p.gate(false);
        p.gate(true);
        assert_eq!(p.trace(4), [(0, 3), (0, 2), (0, 1), (1, 0)], "mode 1 is triggered again");
    }

    #[test]
    fn read_and_write_formats() {
        let mut p = Rig::new();
        p.gate(true);
        p.w(CONTROL, 0x98);
        p.w(2, 7);
        p.go(1);
        assert_eq!((p.r(2), p.r(2)), (7, 7), "low byte only");
        p.w(CONTROL, 0xa8);
        p.w(2, 7);
        p.go(2);
        assert_eq!((p.r(2), p.r(2)), (6, 6), "high byte only");
        p.w(CONTROL, 0xb1 | 4 << 1);
        p.count(0x1234);
        p.go(36);
        assert_eq!(p.r16(2), 0x1199, "BCD");
        p.count(0);
        p.go(2);
        assert_eq!(p.r16(2), 0x9999);
        assert_eq!(p.r(CONTROL), 0);
    }

    /// "Counter latch command", "Read-back command".
    #[test]
    fn latches() {
        let mut p = Rig::new();
        p.gate(true);
        p.program(2, 1000);
        p.w(CONTROL, 0xe8);
        assert_eq!(p.r(2), 0xf4, "null count, OUT high");
        p.go(11);
        p.w(CONTROL, 0x80);
        p.go(50);
        p.w(CONTROL, 0x80);
        assert_eq!((p.r(2), p.r(2)), (222, 3), "the first latch stands: 990");
        assert_eq!(p.r16(2), 940);
        p.w(CONTROL, 0xc8);
        p.go(3);
        assert_eq!((p.r(2), p.r16(2)), (0xb4, 940), "status before count");
        p.w(CONTROL, 0xde);
        assert_eq!(p.r16(2), 937, "no status of another counter, and the count of this one");
    }

    /// IRQ0 as Linux and firmware program it: rising edges at whole multiples of the period, for ever.
    #[test]
    fn interrupts_do_not_drift() {
        for (mode, count) in [(2u8, 11932u64), (3, 0x1_0000), (2, 2), (3, 3)] {
            let mut p = Rig::new();
            p.w(CONTROL, 0x30 | mode << 1);
            p.w(0, count as u8);
            p.w(0, (count >> 8) as u8);
            let mut rises = Vec::new();
            for _ in 0..9 {
                loop {
                    let at = p.0.wakes_at().unwrap();
                    p.1.run_to(&mut p.0, at);
                    if p.1.take_signals().contains(&Signal::Line { line: 0, level: true }) && at > 900 {
                        rises.push(at);
                        break;
                    }
                }
            }
            let expected: Vec<_> = (1..=9).map(|i| time_of(1 + i * count).unwrap()).collect();
            assert_eq!(rises, expected, "mode {mode}, count {count}");
        }
        assert_eq!(time_of(HERTZ * 86400), Some(86_400_000_000_000));
        assert!((0..5000).all(|n| pulses(time_of(n).unwrap()) == n));
    }

    #[test]
    fn a_long_sleep_is_one_step() {
        let mut p = Rig::new();
        p.gate(true);
        p.program(3, 5);
        p.1.now = 1 << 62;
        p.out();
        let mut q = Rig::new();
        q.gate(true);
        q.program(3, 5);
        q.1.now = time_of(1 + (pulses(p.1.now) - 1) % 5).unwrap();
        assert_eq!((p.out(), p.r16(2)), (q.out(), q.r16(2)));
    }

    #[test]
    fn port_61() {
        let mut p = Rig::new();
        p.w(PORT_61, 0xfe);
        assert_eq!(p.r(PORT_61) & 0xcf, 0xe);
        let first = p.r(PORT_61) & port_61::REFRESH;
        p.go(REFRESH_PULSES);
        assert_ne!(p.r(PORT_61) & port_61::REFRESH, first);
    }

    proptest! {
        #[test]
        fn nothing_panics_and_saved_state_goes_on_alike(
            ops in prop::collection::vec((0u64..7, 1u8..=8, any::<u64>(), any::<bool>(), 0u64..20_000), 1..200)
        ) {
            let (mut a, mut b) = (Rig::new(), Rig::new());
            let half = ops.len() / 2;
            for (i, (at, size, value, write, ns)) in ops.into_iter().enumerate() {
                if i == half {
                    b.0.restore(&a.0.save()).unwrap();
                    b.1.now = a.1.now;
                    a.1.take_signals();
                    b.1.take_signals();
                }
                let go = |p: &mut Rig| {
                    let to = p.1.now + ns;
                    p.1.run_to(&mut p.0, to);
                    if write { p.1.write(&mut p.0, at, size, value); 0 } else { p.1.read(&mut p.0, at, size) }
                };
                let result = go(&mut a);
                if i >= half {
                    prop_assert_eq!(result, go(&mut b));
                }
            }
            prop_assert_eq!(a.1.take_signals(), b.1.take_signals());
            prop_assert_eq!(&a.0.state, &b.0.state);
        }

        /// Being looked at changes nothing.
        #[test]
        fn one_step_or_many(mode in 0u8..6, count in 1u16..40, ns in prop::collection::vec(0u64..30_000, 1..50)) {
            let (mut a, mut b) = (Rig::new(), Rig::new());
            for p in [&mut a, &mut b] {
                p.program(mode, count);
                p.gate(true);
            }
            for n in &ns {
                a.1.now += n;
                a.out();
            }
            b.1.now = a.1.now;
            b.out();
            prop_assert_eq!(&a.0.state, &b.0.state);
        }
    }
}
