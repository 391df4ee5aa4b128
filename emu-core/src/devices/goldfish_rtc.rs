//! The real-time clock of the Goldfish platform (Android emulator, "Goldfish virtual hardware", RTC): a counter of
//! nanoseconds and one alarm. Its hour is virtual time from a base that is configured, never the host's.

use serde::{Deserialize, Serialize};

use crate::device::{Access, Device, DeviceCx};
use crate::device_state;
use crate::time::VirtualTime;

/// Low half of the time; a read latches the high half.
pub const TIME_LOW: u64 = 0x00;
/// High half of the time as of the last read of [`TIME_LOW`].
pub const TIME_HIGH: u64 = 0x04;
/// Low half of the alarm; a write sets the alarm.
pub const ALARM_LOW: u64 = 0x08;
/// High half of the alarm.
pub const ALARM_HIGH: u64 = 0x0c;
/// Bit 0 lets the interrupt out.
pub const IRQ_ENABLED: u64 = 0x10;
/// A write takes the alarm away.
pub const CLEAR_ALARM: u64 = 0x14;
/// Reads as 1 while an alarm is set and has not come.
pub const ALARM_STATUS: u64 = 0x18;
/// A write takes the interrupt away.
pub const CLEAR_INTERRUPT: u64 = 0x1c;

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct State {
    /// Nanoseconds since 1970 at virtual time 0, modulo 2^64.
    offset: u64,
    time_high: u32,
    alarm: u64,
    /// When the alarm that is set will come.
    wakes_at: Option<VirtualTime>,
    pending: bool,
    enabled: bool,
}

/// The clock. Output line 0 is its interrupt.
pub struct GoldfishRtc {
    /// Nanoseconds since 1970 at power-on.
    base: u64,
    state: State,
}

impl GoldfishRtc {
    /// A clock that shows `epoch` seconds since 1970 at virtual time 0.
    pub fn new(epoch: u64) -> Self {
        let base = epoch.wrapping_mul(1_000_000_000);
        GoldfishRtc { base, state: State { offset: base, ..State::default() } }
    }

    fn time(&self, cx: &DeviceCx) -> u64 {
        self.state.offset.wrapping_add(cx.now)
    }

    /// Sets the alarm anew: after the alarm or the time was written.
    fn set_alarm(&mut self, cx: &DeviceCx) {
        let ahead = self.state.alarm.saturating_sub(self.time(cx));
        self.state.pending |= ahead == 0;
        self.state.wakes_at = (ahead != 0).then(|| cx.now.checked_add(ahead)).flatten();
    }

    fn set_time(&mut self, time: u64, cx: &DeviceCx) {
        self.state.offset = time.wrapping_sub(cx.now);
        if self.state.wakes_at.is_some() {
            self.set_alarm(cx);
        }
    }

    fn update_line(&self, cx: &mut DeviceCx) {
        cx.line(0, self.state.pending && self.state.enabled);
    }
}

impl Device for GoldfishRtc {
    fn name(&self) -> &'static str {
        "rtc"
    }

    fn read(&mut self, access: Access, cx: &mut DeviceCx) -> u64 {
        match access.offset {
            TIME_LOW => {
                let time = self.time(cx);
                self.state.time_high = (time >> 32) as u32;
                time & 0xffff_ffff
            }
            TIME_HIGH => self.state.time_high.into(),
            ALARM_LOW => self.state.alarm & 0xffff_ffff,
            ALARM_HIGH => self.state.alarm >> 32,
            IRQ_ENABLED => self.state.enabled.into(),
            ALARM_STATUS => self.state.wakes_at.is_some().into(),
            _ => 0,
        }
    }

    fn write(&mut self, access: Access, value: u64, cx: &mut DeviceCx) {
        let value = value & 0xffff_ffff;
        match access.offset {
            TIME_LOW => self.set_time(self.time(cx) & !0xffff_ffff | value, cx),
            TIME_HIGH => self.set_time(self.time(cx) & 0xffff_ffff | value << 32, cx),
            ALARM_LOW => {
                self.state.alarm = self.state.alarm & !0xffff_ffff | value;
                self.set_alarm(cx);
            }
            ALARM_HIGH => self.state.alarm = self.state.alarm & 0xffff_ffff | value << 32,
            IRQ_ENABLED => self.state.enabled = value & 1 != 0,
            CLEAR_ALARM => self.state.wakes_at = None,
            CLEAR_INTERRUPT => self.state.pending = false,
            _ => return,
        }
        self.update_line(cx);
    }

    fn tick(&mut self, cx: &mut DeviceCx) {
        if self.state.wakes_at.is_some_and(|t| t <= cx.now) {
            self.state.wakes_at = None;
            self.state.pending = true;
            self.update_line(cx);
        }
    }

    fn wakes_at(&self) -> Option<VirtualTime> {
        self.state.wakes_at
    }

    fn reset(&mut self) {
        self.state = State { offset: self.base, ..State::default() };
    }

    device_state!(state);
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::device::Bench;

    #[test]
    fn the_time_is_virtual() {
        let (mut b, mut rtc) = (Bench { now: 5, ..Bench::default() }, GoldfishRtc::new(1_700_000_000));
        let mut time = |b: &mut Bench| b.read(&mut rtc, TIME_LOW, 4) | b.read(&mut rtc, TIME_HIGH, 4) << 32;
        assert_eq!(time(&mut b), 1_700_000_000_000_000_005);
        b.now += 1_000_000_000;
        assert_eq!(time(&mut b), 1_700_000_001_000_000_005);
        b.write(&mut rtc, TIME_HIGH, 4, 1);
        b.write(&mut rtc, TIME_LOW, 4, 7);
        b.now += 1;
        assert_eq!((b.read(&mut rtc, TIME_LOW, 4), b.read(&mut rtc, TIME_HIGH, 4)), (8, 1));
    }

    #[test]
    fn the_alarm() {
        let (mut b, mut rtc) = (Bench::default(), GoldfishRtc::new(0));
        b.write(&mut rtc, IRQ_ENABLED, 4, 1);
        b.write(&mut rtc, ALARM_HIGH, 4, 1);
        b.write(&mut rtc, ALARM_LOW, 4, 9);
        assert_eq!((rtc.wakes_at(), b.read(&mut rtc, ALARM_STATUS, 4)), (Some(0x1_0000_0009), 1));
        b.run_to(&mut rtc, 0x1_0000_0008);
        assert_eq!(b.last_level(0), Some(false));
        b.run_to(&mut rtc, 0x1_0000_0009);
        assert_eq!((b.last_level(0), b.read(&mut rtc, ALARM_STATUS, 4)), (Some(true), 0));
        b.write(&mut rtc, CLEAR_INTERRUPT, 4, 1);
        assert_eq!(b.last_level(0), Some(false));
        b.write(&mut rtc, ALARM_LOW, 4, 8);
        assert_eq!(b.last_level(0), Some(true), "an alarm in the past comes at once");
        b.write(&mut rtc, CLEAR_INTERRUPT, 4, 1);
        b.write(&mut rtc, ALARM_LOW, 4, 99);
        b.write(&mut rtc, CLEAR_ALARM, 4, 1);
        assert_eq!(rtc.wakes_at(), None);
    }

    proptest! {
        #[test]
        fn nothing_panics(ops in prop::collection::vec((0u64..40, any::<u64>(), any::<bool>(), any::<u32>()), 1..100)) {
            let (mut b, mut rtc) = (Bench::default(), GoldfishRtc::new(u64::MAX));
            for (at, value, write, ns) in ops {
                let to = b.now + u64::from(ns);
                b.run_to(&mut rtc, to);
                if write { b.write(&mut rtc, at, 4, value) } else { b.read(&mut rtc, at, 4); }
            }
        }
    }
}
