//! The real-time clock and its memory ("MC146818A Real-Time Clock Plus RAM", Motorola, 1984), as a PC has it at ports 70h to
//! 73h ("82371FB/82371SB", Intel 290550-002, "Real Time Clock Registers"): 128 bytes, and 128 extended ones.
//!
//! Its hour is virtual time from a date that is configured. Nothing is done per second: the calendar is brought forward when
//! somebody looks, or when an interrupt is due.
//!
//! Beyond the data sheet: the century is a byte of the RAM that counts along (`century` of the configuration, ACPI's FADT
//! CENTURY), and leap years are those of the Gregorian calendar. Not modelled: daylight saving (DSE), the square wave, time
//! bases other than 32.768 kHz (with another one in DV the clock stands still).

mod calendar;

use calendar::{Calendar, DAY};
use emu_core::device::{Access, Device, DeviceCx};
use emu_core::time::VirtualTime;
use serde::{Deserialize, Serialize};

use super::{Ports, read_bytes, restart, write_bytes};

/// Where the registers are.
pub const PORTS: [Ports; 1] = [Ports { port: 0x70, size: 4, offset: 0 }];

const INDEX: u64 = 0;
const DATA: u64 = 1;
const EXTENDED_INDEX: u64 = 2;
const EXTENDED_DATA: u64 = 3;

/// Port 70h: NMI is masked.
const NMI_MASK: u8 = 0x80;

/// "Address map" of the RAM.
mod address {
    pub const SECONDS: usize = 0;
    pub const SECONDS_ALARM: usize = 1;
    pub const MINUTES: usize = 2;
    pub const MINUTES_ALARM: usize = 3;
    pub const HOURS: usize = 4;
    pub const HOURS_ALARM: usize = 5;
    pub const DAY_OF_WEEK: usize = 6;
    pub const DATE: usize = 7;
    pub const MONTH: usize = 8;
    pub const YEAR: usize = 9;
    pub const A: usize = 10;
    pub const B: usize = 11;
    pub const C: usize = 12;
    pub const D: usize = 13;
}

/// Register A.
mod a {
    pub const UIP: u8 = 0x80;
    pub const DV: u8 = 0x70;
    /// The divider runs from 32.768 kHz.
    pub const DV_32K: u8 = 0x20;
    pub const RS: u8 = 0xf;
}

/// Register B. Bits 6:4 enable the flags at the same place in C.
mod b {
    pub const SET: u8 = 0x80;
    pub const PIE: u8 = 0x40;
    pub const AIE: u8 = 0x20;
    pub const UIE: u8 = 0x10;
    pub const SQWE: u8 = 8;
    pub const DM: u8 = 4;
    pub const H24: u8 = 2;
}

/// Register C.
mod c {
    pub const IRQF: u8 = 0x80;
    pub const PF: u8 = 0x40;
    pub const AF: u8 = 0x20;
    pub const UF: u8 = 0x10;
}

/// Register D: valid RAM and time.
const VRT: u8 = 0x80;

const SECOND: u64 = 1_000_000_000;
const HALF_SECOND: u64 = SECOND / 2;
/// UIP is set so long before the end of an update: tBUC and tUC, 244 and 1984 microseconds.
const UPDATE_IN_PROGRESS: u64 = 2_228_000;

/// How a clock is built into its board.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RtcConfig {
    /// Seconds since 1970 (UTC, what the clock shows) at virtual time 0.
    pub epoch: u64,
    /// The byte that holds the century.
    pub century: u8,
    /// Bytes of the RAM at first power-on: address (128 and above for the extended ones) and value.
    pub bytes: Vec<(u8, u8)>,
}

impl Default for RtcConfig {
    fn default() -> Self {
        RtcConfig { epoch: 0, century: 0x32, bytes: Vec::new() }
    }
}

/// The bytes in which a PC's firmware looks for the size of RAM: `below` bytes under 4 GiB and `above` bytes from there on.
pub fn memory_size_bytes(below: u64, above: u64) -> Vec<(u8, u8)> {
    let base = 640u64.min(below >> 10);
    let extended = (below.saturating_sub(1 << 20) >> 10).min(0xffff);
    let over_16m = (below.saturating_sub(16 << 20) >> 16).min(0xffff);
    let over_4g = (above >> 16).min(0xff_ffff);
    let byte = |value: u64, i: u32| (value >> (8 * i)) as u8;
    vec![
        (0x15, byte(base, 0)),
        (0x16, byte(base, 1)),
        (0x17, byte(extended, 0)),
        (0x18, byte(extended, 1)),
        (0x30, byte(extended, 0)),
        (0x31, byte(extended, 1)),
        (0x34, byte(over_16m, 0)),
        (0x35, byte(over_16m, 1)),
        (0x5b, byte(over_4g, 0)),
        (0x5c, byte(over_4g, 1)),
        (0x5d, byte(over_4g, 2)),
    ]
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct State {
    index: u8,
    extended_index: u8,
    ram: Vec<u8>,
    /// Flags of register C, as far as they have been looked at.
    flags: u8,
    /// Nanoseconds that virtual time is behind the divider chain, whose updates end half a second after whole ones.
    phase: u64,
    /// The updates and the periods of the periodic interrupt that have been taken into account.
    updates: u64,
    periods: u64,
    /// The update, counted as `updates`, that sets the alarm flag.
    alarm_at: Option<u64>,
    line: bool,
    nmi_masked: bool,
}

/// The clock. Output line 0 is its interrupt (IRQ8), line 1 is high while port 70h masks NMI.
pub struct Rtc {
    century: usize,
    state: State,
}

impl Rtc {
    /// A clock that was never switched off, and was set to its date.
    pub fn new(config: &RtcConfig) -> Self {
        let mut ram = vec![0; 256];
        ram[address::A] = a::DV_32K | 6;
        ram[address::B] = b::H24;
        for (at, value) in &config.bytes {
            ram[usize::from(*at)] = *value;
        }
        let state = State {
            index: 0,
            extended_index: 0,
            ram,
            flags: 0,
            phase: HALF_SECOND,
            updates: 0,
            periods: 0,
            alarm_at: None,
            line: false,
            nmi_masked: false,
        };
        let mut rtc = Rtc { century: usize::from(config.century & 0x7f), state };
        rtc.state.updates = rtc.updates_at(0);
        rtc.state.periods = rtc.periods_at(0);
        rtc.set_calendar(Calendar::from_epoch(config.epoch));
        rtc
    }

    // The divider chain.

    fn divider(&self, now: VirtualTime) -> u128 {
        u128::from(now) + u128::from(self.state.phase)
    }

    fn divider_runs(&self) -> bool {
        self.state.ram[address::A] & a::DV == a::DV_32K
    }

    /// Updates that have ended.
    fn updates_at(&self, now: VirtualTime) -> u64 {
        ((self.divider(now) + u128::from(HALF_SECOND)) / u128::from(SECOND)) as u64
    }

    /// When update `n` ends.
    fn time_of_update(&self, n: u64) -> Option<VirtualTime> {
        let at = u128::from(n) * u128::from(SECOND);
        u64::try_from(at.saturating_sub(u128::from(HALF_SECOND) + u128::from(self.state.phase))).ok()
    }

    /// "Periodic interrupt selection": pulses of 32.768 kHz in a period.
    fn period(&self) -> Option<u64> {
        match self.state.ram[address::A] & a::RS {
            _ if !self.divider_runs() => None,
            0 => None,
            1 => Some(128),
            2 => Some(256),
            n => Some(1 << (n - 1)),
        }
    }

    /// Periods that have ended.
    fn periods_at(&self, now: VirtualTime) -> u64 {
        let pulses = self.divider(now) * 32_768 / u128::from(SECOND);
        self.period().map_or(0, |p| (pulses / u128::from(p)) as u64)
    }

    fn time_of_period(&self, n: u64) -> Option<VirtualTime> {
        let at = (u128::from(n) * u128::from(self.period()?) * u128::from(SECOND)).div_ceil(32_768);
        u64::try_from(at.saturating_sub(self.state.phase.into())).ok()
    }

    /// Whether the calendar counts.
    fn is_running(&self) -> bool {
        self.divider_runs() && self.state.ram[address::B] & b::SET == 0
    }

    /// "Update in progress".
    fn is_updating(&self, now: VirtualTime) -> bool {
        let into = (self.divider(now) + u128::from(HALF_SECOND)) % u128::from(SECOND);
        self.is_running() && into >= u128::from(SECOND - UPDATE_IN_PROGRESS)
    }

    // "Time, calendar, and alarm locations": binary or BCD, 12 or 24 hours.

    fn decode(&self, byte: u8) -> u64 {
        if self.state.ram[address::B] & b::DM != 0 {
            byte.into()
        } else {
            u64::from(byte >> 4) * 10 + u64::from(byte & 15)
        }
    }

    fn encode(&self, value: u64) -> u8 {
        if self.state.ram[address::B] & b::DM != 0 { value as u8 } else { (value / 10 % 10 * 16 + value % 10) as u8 }
    }

    fn decode_hours(&self, byte: u8) -> u64 {
        if self.state.ram[address::B] & b::H24 != 0 {
            return self.decode(byte);
        }
        let hour = self.decode(byte & 0x7f);
        if !(1..=12).contains(&hour) {
            return u64::MAX; // no such hour
        }
        hour % 12 + if byte & 0x80 != 0 { 12 } else { 0 }
    }

    fn encode_hours(&self, hours: u64) -> u8 {
        if self.state.ram[address::B] & b::H24 != 0 {
            return self.encode(hours);
        }
        let twelve = if hours.is_multiple_of(12) { 12 } else { hours % 12 };
        self.encode(twelve) | if hours >= 12 { 0x80 } else { 0 }
    }

    /// What the bytes say. Values that no calendar has are taken as the highest that it has.
    fn calendar(&self) -> Calendar {
        let ram = &self.state.ram;
        let year = self.decode(ram[self.century]).min(99) * 100 + self.decode(ram[address::YEAR]).min(99);
        let month = self.decode(ram[address::MONTH]).clamp(1, 12);
        let [hours, minutes, seconds] = [
            self.decode_hours(ram[address::HOURS]).min(23),
            self.decode(ram[address::MINUTES]).min(59),
            self.decode(ram[address::SECONDS]).min(59),
        ];
        Calendar {
            year,
            month,
            date: self.decode(ram[address::DATE]).clamp(1, Calendar::days_of_month(year, month)),
            day_of_week: self.decode(ram[address::DAY_OF_WEEK]).clamp(1, 7),
            second: hours * 3600 + minutes * 60 + seconds,
        }
    }

    fn set_calendar(&mut self, t: Calendar) {
        for (at, value) in [
            (address::SECONDS, t.second % 60),
            (address::MINUTES, t.second / 60 % 60),
            (address::DAY_OF_WEEK, t.day_of_week),
            (address::DATE, t.date),
            (address::MONTH, t.month),
            (address::YEAR, t.year % 100),
            (self.century, t.year / 100),
        ] {
            self.state.ram[at] = self.encode(value);
        }
        self.state.ram[address::HOURS] = self.encode_hours(t.second / 3600);
    }

    /// "Alarm interrupt": seconds until the time of day that the alarm bytes name comes, at least one. Bytes with the two
    /// highest bits set mean every hour, minute or second.
    fn seconds_to_alarm(&self) -> Option<u64> {
        let ram = &self.state.ram;
        let any = |byte: u8| byte & 0xc0 == 0xc0;
        let matches = |at: usize, value: u64| any(ram[at]) || self.decode(ram[at]) == value;
        let hour_matches =
            |hour: u64| any(ram[address::HOURS_ALARM]) || self.decode_hours(ram[address::HOURS_ALARM]) == hour;
        let start = self.calendar().second + 1;
        let mut at = start;
        while at <= start + DAY {
            let of_day = at % DAY;
            if !hour_matches(of_day / 3600) {
                at = (at / 3600 + 1) * 3600;
            } else if !matches(address::MINUTES_ALARM, of_day / 60 % 60) {
                at = (at / 60 + 1) * 60;
            } else if !matches(address::SECONDS_ALARM, of_day % 60) {
                at += 1;
            } else {
                return Some(at - start + 1);
            }
        }
        None
    }

    /// After a byte of the calendar, of the alarm or a mode has changed, or the calendar has begun to run.
    fn plan_alarm(&mut self) {
        self.state.alarm_at = self.seconds_to_alarm().map(|n| self.state.updates.saturating_add(n));
    }

    /// Brings calendar and flags to the present.
    fn advance(&mut self, now: VirtualTime) {
        let periods = self.periods_at(now);
        if periods > self.state.periods {
            self.state.flags |= c::PF;
        }
        self.state.periods = periods;
        let updates = self.updates_at(now);
        let new = updates.saturating_sub(self.state.updates);
        self.state.updates = updates;
        if new == 0 || !self.is_running() {
            return;
        }
        self.set_calendar(self.calendar().plus(new));
        self.state.flags |= c::UF;
        if self.state.alarm_at.is_some_and(|at| at <= updates) {
            self.state.flags |= c::AF;
            self.plan_alarm();
        }
    }

    /// "Register C": IRQF.
    fn irqf(&self) -> bool {
        self.state.flags & self.state.ram[address::B] & (b::PIE | b::AIE | b::UIE) != 0
    }

    fn update_line(&mut self, cx: &mut DeviceCx) {
        let line = self.irqf();
        if line != self.state.line {
            self.state.line = line;
            cx.line(0, line);
        }
    }

    fn read_ram(&mut self, at: usize, now: VirtualTime) -> u8 {
        match at {
            address::A => self.state.ram[at] | if self.is_updating(now) { a::UIP } else { 0 },
            address::C => {
                let irqf = if self.irqf() { c::IRQF } else { 0 };
                irqf | std::mem::take(&mut self.state.flags)
            }
            address::D => VRT,
            _ => self.state.ram[at],
        }
    }

    fn write_ram(&mut self, at: usize, value: u8, now: VirtualTime) {
        match at {
            address::A => self.write_a(value, now),
            address::B => {
                // "SET": an update in progress is given up, and UIE is cleared.
                self.state.ram[at] = if value & b::SET != 0 { value & !b::UIE } else { value };
                self.plan_alarm();
            }
            address::C | address::D => {}
            address::SECONDS => {
                self.state.ram[at] = value & 0x7f;
                self.plan_alarm();
            }
            _ => {
                self.state.ram[at] = value;
                if at <= address::YEAR || at == self.century {
                    self.plan_alarm();
                }
            }
        }
    }

    /// "Register A". The divider begins anew when it is let go, and the first update comes half a second later.
    fn write_a(&mut self, value: u8, now: VirtualTime) {
        let ran = self.divider_runs();
        self.state.ram[address::A] = value & !a::UIP;
        if !ran && self.divider_runs() {
            self.state.phase = (SECOND - now % SECOND) % SECOND;
            self.state.updates = self.updates_at(now);
            self.plan_alarm();
        }
        self.state.periods = self.periods_at(now);
    }

    fn write_register(&mut self, at: u64, value: u8, cx: &mut DeviceCx) {
        match at {
            INDEX => {
                self.state.index = value & 0x7f;
                let masked = value & NMI_MASK != 0;
                if masked != self.state.nmi_masked {
                    self.state.nmi_masked = masked;
                    cx.line(1, masked);
                }
            }
            DATA => self.write_ram(usize::from(self.state.index), value, cx.now),
            EXTENDED_INDEX => self.state.extended_index = value & 0x7f,
            EXTENDED_DATA => self.state.ram[128 + usize::from(self.state.extended_index)] = value,
            _ => {}
        }
    }
}

impl Device for Rtc {
    fn name(&self) -> &'static str {
        "rtc"
    }

    fn read(&mut self, access: Access, cx: &mut DeviceCx) -> u64 {
        self.advance(cx.now);
        let value = read_bytes(access, |at| match at {
            DATA => self.read_ram(usize::from(self.state.index), cx.now),
            EXTENDED_INDEX => self.state.extended_index,
            EXTENDED_DATA => self.state.ram[128 + usize::from(self.state.extended_index)],
            _ => 0xff, // port 70h is for writing
        });
        self.update_line(cx);
        value
    }

    fn write(&mut self, access: Access, value: u64, cx: &mut DeviceCx) {
        self.advance(cx.now);
        write_bytes(access, value, |at, byte| self.write_register(at, byte, cx));
        self.update_line(cx);
    }

    /// The PC sleeps, or wakes: the shutdown status byte tells firmware.
    fn input(&mut self, _: u32, sleeps: bool, _: &mut DeviceCx) {
        if !sleeps {
            self.state.ram[usize::from(restart::STATUS)] = restart::WAKES;
        }
    }

    fn tick(&mut self, cx: &mut DeviceCx) {
        self.advance(cx.now);
        self.update_line(cx);
    }

    /// While the line is high nothing can be added to it.
    fn wakes_at(&self) -> Option<VirtualTime> {
        let s = &self.state;
        if s.line {
            return None;
        }
        let enabled = |bit: u8| s.ram[address::B] & bit != 0;
        let running = self.is_running();
        let update = s.updates.checked_add(1).filter(|_| running && enabled(b::UIE));
        let alarm = s.alarm_at.filter(|_| running && enabled(b::AIE));
        let update = [update, alarm].into_iter().flatten().min().and_then(|n| self.time_of_update(n));
        let period = s.periods.checked_add(1).filter(|_| enabled(b::PIE)).and_then(|n| self.time_of_period(n));
        [update, period].into_iter().flatten().min()
    }

    /// "RESET": the calendar and the RAM are the battery's.
    fn reset(&mut self) {
        let s = &mut self.state;
        s.ram[address::B] &= !(b::PIE | b::AIE | b::UIE | b::SQWE);
        *s = State {
            index: 0,
            extended_index: 0,
            flags: 0,
            line: false,
            nmi_masked: false,
            ram: std::mem::take(&mut s.ram),
            ..*s
        };
    }

    fn save(&self) -> Vec<u8> {
        emu_core::to_bytes(&self.state)
    }

    fn restore(&mut self, bytes: &[u8]) -> Result<(), String> {
        let state: State = emu_core::from_bytes(bytes)?;
        if state.ram.len() != 256 {
            return Err("the clock's RAM has another size".into());
        }
        self.state = state;
        Ok(())
    }
}

#[cfg(test)]
mod tests;
