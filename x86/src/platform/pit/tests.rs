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
