//! One counter of the interval timer.

use serde::{Deserialize, Serialize};

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
pub(super) struct Counter {
    /// The low six bits of its control word.
    control: u8,
    mode: Mode,
    gate: bool,
    pub(super) out: bool,
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
    pub(super) fn new(gate: bool) -> Self {
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
    pub(super) fn advance(&mut self, to: u64) {
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

    pub(super) fn write_control(&mut self, control: u8) {
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
    pub(super) fn write(&mut self, value: u8) {
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
    pub(super) fn read(&mut self) -> u8 {
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

    pub(super) fn latch_count(&mut self) {
        if self.latched_count.is_none() {
            self.latched_count = Some(self.reading());
        }
    }

    pub(super) fn latch_status(&mut self) {
        if self.latched_status.is_none() {
            self.latched_status = Some(self.status());
        }
    }

    /// "Gate pin operations summary".
    pub(super) fn set_gate(&mut self, gate: bool) {
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
    pub(super) fn changes_at(&self) -> Option<u64> {
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
