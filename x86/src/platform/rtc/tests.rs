use emu_core::device::Bench;
use proptest::prelude::*;

use super::address::*;
use super::*;

const MS: u64 = 1_000_000;
/// Thursday, 29 February 2024, 23:59:57.
const LEAP: u64 = 1_709_251_197;

struct Rig(Rtc, Bench);
impl Rig {
    fn new(epoch: u64) -> Self {
        Rig(Rtc::new(&RtcConfig { epoch, ..RtcConfig::default() }), Bench::default())
    }
    fn r(&mut self, at: usize) -> u8 {
        self.1.write(&mut self.0, INDEX, 1, at as u64);
        self.1.read(&mut self.0, DATA, 1) as u8
    }
    fn w(&mut self, at: usize, value: u8) {
        self.1.write(&mut self.0, INDEX, 1, at as u64);
        self.1.write(&mut self.0, DATA, 1, value.into());
    }
    fn go(&mut self, ns: u64) {
        let to = self.1.now + ns;
        self.1.run_to(&mut self.0, to);
    }
    fn date(&mut self) -> [u8; 8] {
        [0x32, YEAR, MONTH, DATE, DAY_OF_WEEK, HOURS, MINUTES, SECONDS].map(|at| self.r(at))
    }
    fn line(&self) -> bool {
        self.0.state.line
    }
}

#[test]
fn the_calendar_in_all_formats() {
    let table: [(u8, [u8; 8], [u8; 8]); 4] = [
        (2, [0x20, 0x24, 2, 0x29, 5, 0x23, 0x59, 0x59], [0x20, 0x24, 3, 1, 6, 0, 0, 0]),
        (6, [20, 24, 2, 29, 5, 23, 59, 59], [20, 24, 3, 1, 6, 0, 0, 0]),
        (0, [0x20, 0x24, 2, 0x29, 5, 0x91, 0x59, 0x59], [0x20, 0x24, 3, 1, 6, 0x12, 0, 0]),
        (4, [20, 24, 2, 29, 5, 0x8b, 59, 59], [20, 24, 3, 1, 6, 12, 0, 0]),
    ];
    for (mode, before, after) in table {
        let mut c = Rig::new(LEAP);
        let (now, now_in_bcd) = (c.0.calendar(), c.date());
        assert_eq!(now_in_bcd, [0x20, 0x24, 2, 0x29, 5, 0x23, 0x59, 0x57]);
        c.w(B, mode | b::SET);
        c.0.set_calendar(now);
        c.w(B, mode);
        c.go(2_999 * MS);
        assert_eq!(c.date(), before, "mode {mode}");
        c.go(MS);
        assert_eq!(c.date(), after, "mode {mode}");
    }
}

#[test]
fn years_go_by() {
    for (epoch, date) in [
        (0, [0x19, 0x70, 1, 1, 5, 0, 0, 0]),
        (946_684_799, [0x19, 0x99, 0x12, 0x31, 6, 0x23, 0x59, 0x59]),
        (4_107_542_400, [0x21, 0, 3, 1, 2, 0, 0, 0]),
    ] {
        assert_eq!(Rig::new(epoch).date(), date);
        let mut c = Rig::new(0);
        c.1.now = epoch * SECOND;
        assert_eq!(c.date(), date, "lazily");
    }
}

#[test]
fn update_in_progress() {
    let mut c = Rig::new(0);
    c.go(997 * MS);
    assert_eq!(c.r(A), 0x26);
    c.go(MS);
    assert_eq!((c.r(A), c.r(SECONDS)), (0xa6, 0));
    c.go(2 * MS);
    assert_eq!((c.r(A), c.r(SECONDS)), (0x26, 1));
    c.w(B, b::SET | b::H24);
    c.go(998 * MS);
    assert_eq!(c.r(A), 0x26, "no update while SET");
}

/// As a driver sets the clock: SET, the divider held, the bytes, the divider let go, SET off.
#[test]
fn setting_the_clock() {
    let mut c = Rig::new(0);
    c.go(300 * MS);
    c.w(B, b::SET | b::H24 | b::UIE);
    assert_eq!(c.r(B), b::SET | b::H24, "SET clears UIE");
    c.w(A, 0x76);
    for (at, value) in [(0x32, 0x20), (YEAR, 0x26), (MONTH, 0x11), (DATE, 0x30), (HOURS, 0x23), (MINUTES, 0x59)] {
        c.w(at, value);
    }
    c.w(SECONDS, 0xd9);
    c.go(5_000 * MS);
    assert_eq!(c.r(SECONDS), 0x59, "bit 7 is not there, and time stands");
    c.w(A, 0x26);
    c.w(B, b::H24);
    c.go(499 * MS);
    assert_eq!(c.r(SECONDS), 0x59);
    c.go(MS);
    assert_eq!(c.date(), [0x20, 0x26, 0x12, 1, 6, 0, 0, 0]);
}

#[test]
fn interrupts() {
    let mut c = Rig::new(0);
    c.go(1_500 * MS);
    assert_eq!(c.0.wakes_at(), None);
    assert_eq!((c.r(C), c.r(C)), (c::UF | c::PF, 0), "flags come without interrupts, and reading clears them");
    c.w(B, b::H24 | b::UIE);
    c.go(499 * MS);
    assert!(!c.line());
    c.go(MS);
    assert!(c.line());
    assert_eq!((c.0.wakes_at(), c.r(C), c.line()), (None, c::IRQF | c::UF | c::PF, false));
    c.w(B, b::H24 | b::PIE);
    for i in 1..=20 {
        let at = c.0.wakes_at().unwrap();
        c.1.run_to(&mut c.0, at);
        assert!(c.line());
        assert_eq!(at, 2 * SECOND + (i * SECOND).div_ceil(1024), "1024 Hz without drift");
        assert_eq!(c.r(C), c::IRQF | c::PF);
    }
}

#[test]
fn periodic_rates() {
    let table = [(1, 256), (2, 128), (3, 8192), (6, 1024), (13, 8), (15, 2)];
    for (rate, hertz) in table {
        let mut c = Rig::new(0);
        c.w(A, 0x20 | rate);
        c.w(B, b::H24 | b::PIE);
        assert_eq!(c.0.wakes_at(), Some(SECOND.div_ceil(hertz)), "rate {rate}");
    }
    let mut c = Rig::new(0);
    c.w(A, 0x20);
    c.w(B, b::H24 | b::PIE);
    assert_eq!(c.0.wakes_at(), None);
}

#[test]
fn alarms() {
    // (hours, minutes, seconds of the alarm; seconds until it comes, from 23:59:57)
    let table = [
        (0xff, 0xff, 0xff, Some(1)),
        (0, 0, 1, Some(4)),
        (0xc0, 0x30, 0, Some(1803)),
        (0x23, 0x59, 0x57, Some(DAY)),
        (0xff, 0xff, 0x57, Some(60)),
        (0x12, 0xff, 0, Some(12 * 3600 + 3)),
        (0x30, 0xff, 0xff, None),
        (0xff, 0x77, 0, None),
    ];
    for (hours, minutes, seconds, expected) in table {
        let mut c = Rig::new(LEAP);
        for (at, value) in [(HOURS_ALARM, hours), (MINUTES_ALARM, minutes), (SECONDS_ALARM, seconds)] {
            c.w(at, value);
        }
        c.w(B, b::H24 | b::AIE);
        assert_eq!(c.0.wakes_at(), expected.map(|s| s * SECOND), "{hours:#x} {minutes:#x} {seconds:#x}");
        let Some(wait) = expected else { continue };
        c.go(wait * SECOND - 1);
        assert!(!c.line());
        c.go(1);
        assert!(c.line());
        assert_eq!(c.r(C) & (c::IRQF | c::AF), c::IRQF | c::AF);
    }
}

#[test]
fn an_alarm_waits_while_the_calendar_stands() {
    for (stop, go) in [((A, 0x76), (A, 0x26)), ((B, b::SET | b::H24 | b::AIE), (B, b::H24 | b::AIE))] {
        let mut c = Rig::new(0);
        c.w(SECONDS_ALARM, 3);
        c.w(B, b::H24 | b::AIE);
        c.go(1_600 * MS);
        c.w(stop.0, stop.1);
        c.go(10_300 * MS);
        assert_eq!((c.r(C) & c::AF, c.0.wakes_at()), (0, None));
        c.w(go.0, go.1);
        let until = if stop.0 == A { 1_500 } else { 1_100 };
        assert_eq!(c.0.wakes_at(), Some(c.1.now + until * MS));
        c.go(until * MS);
        assert_eq!((c.r(C) & c::AF, c.r(SECONDS)), (c::AF, 3));
    }
}

#[test]
fn ram_and_ports() {
    let bytes = memory_size_bytes(3 << 30, 5 << 30);
    let mut c = Rig(Rtc::new(&RtcConfig { bytes, ..RtcConfig::default() }), Bench::default());
    let size = [0x15, 0x16, 0x30, 0x31, 0x34, 0x35, 0x5b, 0x5c, 0x5d].map(|at| c.r(at));
    assert_eq!(size, [0x80, 2, 0xff, 0xff, 0, 0xbf, 0, 0x40, 1]);
    c.w(0x8f, 0x5a);
    assert_eq!((c.1.last_level(1), c.r(0x0f), c.1.last_level(1)), (Some(true), 0x5a, Some(false)));
    c.1.write(&mut c.0, EXTENDED_INDEX, 2, 0x4405);
    assert_eq!((c.1.read(&mut c.0, EXTENDED_INDEX, 2), c.r(5)), (0x4405, 0));
    c.1.write(&mut c.0, INDEX, 2, 0x7733);
    assert_eq!((c.r(0x33), c.1.read(&mut c.0, INDEX, 1), c.r(D)), (0x77, 0xff, 0x80));
    c.w(C, 0xff);
    c.w(D, 0);
    assert_eq!((c.r(C), c.r(D)), (0, 0x80));
    c.w(B, 0x7f);
    c.0.reset();
    assert_eq!((c.r(B), c.r(0x0f)), (7, 0x5a));
}

proptest! {
    #[test]
    fn nothing_panics_and_saved_state_goes_on_alike(
        ops in prop::collection::vec((0u64..6, 1u8..=8, any::<u64>(), any::<bool>(), 0u64..3_000_000_000), 1..200)
    ) {
        let (mut a, mut b) = (Rig::new(LEAP), Rig::new(0));
        let half = ops.len() / 2;
        for (i, (at, size, value, write, ns)) in ops.into_iter().enumerate() {
            if i == half {
                b.0.restore(&a.0.save()).unwrap();
                b.1.now = a.1.now;
            }
            let go = |c: &mut Rig| {
                c.go(ns);
                // The first 16 bytes more often than others.
                let value = if at == INDEX && value & 0x100 == 0 { value & !0x70 } else { value };
                if write { c.1.write(&mut c.0, at, size, value); 0 } else { c.1.read(&mut c.0, at, size) }
            };
            let result = go(&mut a);
            if i >= half {
                prop_assert_eq!(result, go(&mut b));
            }
        }
        prop_assert_eq!(&a.0.state, &b.0.state);
    }

    /// Being looked at changes nothing.
    #[test]
    fn the_calendar_is_a_function_of_time(epoch in 0u64..1 << 40, steps in prop::collection::vec(0u64..1 << 45, 1..20)) {
        let (mut a, mut b) = (Rig::new(epoch), Rig::new(epoch));
        for ns in steps {
            a.1.now += ns;
            a.date();
        }
        b.1.now = a.1.now;
        prop_assert_eq!(a.date(), b.date());
    }
}
