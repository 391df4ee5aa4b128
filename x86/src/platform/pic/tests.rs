use emu_core::device::Bench;
use proptest::prelude::*;

use super::*;

struct Rig(Pic, Bench);
impl Rig {
    /// As a PC's firmware does it: vectors 20h and 28h, all masks open, ICW4 as given for both.
    fn new(icw4: u8) -> Self {
        let mut rig = Rig(Pic::new(), Bench::default());
        for (chip, vector, icw3) in [(MASTER, 0x20, 4), (SLAVE, 0x28, 2)] {
            rig.w(chip, 0x11);
            rig.w(chip + 1, vector);
            rig.w(chip + 1, icw3);
            rig.w(chip + 1, icw4);
            rig.w(chip + 1, 0);
        }
        rig
    }
    fn w(&mut self, at: u64, value: u8) {
        self.1.write(&mut self.0, at, 1, value.into());
    }
    fn r(&mut self, at: u64) -> u8 {
        self.1.read(&mut self.0, at, 1) as u8
    }
    fn irq(&mut self, irq: u32, level: bool) {
        self.0.input(irq, level, &mut self.1.cx());
    }
    fn ack(&mut self) -> u8 {
        self.r(ACKNOWLEDGE)
    }
    fn isr(&mut self) -> (u8, u8) {
        self.w(MASTER, 0x0b);
        self.w(SLAVE, 0x0b);
        (self.r(MASTER), self.r(SLAVE))
    }
    fn irr(&mut self) -> (u8, u8) {
        self.w(MASTER, 0x0a);
        self.w(SLAVE, 0x0a);
        (self.r(MASTER), self.r(SLAVE))
    }
}

#[test]
fn a_request_is_taken_and_ended() {
    let mut p = Rig::new(1);
    p.irq(3, true);
    assert_eq!((p.0.is_pending(), p.irr(), p.1.last_level(0)), (true, (8, 0), Some(true)));
    assert_eq!((p.ack(), p.0.is_pending()), (0x23, false));
    assert_eq!((p.isr(), p.irr()), ((8, 0), (0, 0)), "an edge is one request");
    p.w(MASTER, 0x20);
    assert_eq!((p.isr(), p.0.is_pending()), ((0, 0), false));
    p.irq(3, false);
    p.irq(3, true);
    assert!(p.0.is_pending());
}

#[test]
fn higher_levels_nest_and_lower_ones_wait() {
    let mut p = Rig::new(1);
    p.irq(4, true);
    assert_eq!(p.ack(), 0x24);
    p.irq(6, true);
    assert!(!p.0.is_pending());
    p.irq(1, true);
    assert_eq!((p.ack(), p.isr()), (0x21, (0x12, 0)));
    p.w(MASTER, 0x20);
    assert_eq!(p.isr(), (0x10, 0), "the highest ends first");
    p.w(MASTER, 0x64);
    assert_eq!(p.ack(), 0x26);
}

#[test]
fn the_slave_comes_through_the_master() {
    let mut p = Rig::new(1);
    p.irq(12, true);
    p.irq(9, true);
    assert_eq!((p.irr(), p.ack(), p.isr()), ((4, 0x12), 0x29, (4, 2)));
    assert!(!p.0.is_pending());
    p.w(SLAVE, 0x20);
    assert!(!p.0.is_pending(), "the master's level 2 is in service still");
    p.w(MASTER, 0x20);
    assert_eq!(p.ack(), 0x2c);
}

/// ICW4.SFNM: a slave's higher request goes through while the slave is in service.
#[test]
fn special_fully_nested() {
    for (icw4, through) in [(1, false), (0x11, true)] {
        let mut p = Rig::new(icw4);
        p.irq(12, true);
        assert_eq!(p.ack(), 0x2c);
        p.irq(8, true);
        assert_eq!(p.0.is_pending(), through);
        if through {
            assert_eq!((p.ack(), p.isr()), (0x28, (4, 0x11)));
        }
    }
}

#[test]
fn spurious_interrupts_are_those_of_input_7() {
    let mut p = Rig::new(1);
    p.irq(5, true);
    p.irq(5, false);
    assert_eq!((p.0.is_pending(), p.ack(), p.isr()), (false, 0x27, (0, 0)));
    // The slave's request vanishes between the cycles: mask it while the master has it latched in level mode.
    p.irq(10, true);
    p.0.state.slave.inputs = 0;
    p.0.state.slave.edges = 0;
    assert_eq!((p.ack(), p.isr()), (0x2f, (4, 0)), "the master does not know");
}

#[test]
fn level_triggered_inputs() {
    let mut p = Rig::new(1);
    p.1.write(&mut p.0, ELCR, 2, 0xffff);
    assert_eq!((p.r(ELCR), p.r(5)), (0xf8, 0xde));
    p.irq(11, true);
    p.irq(11 + 256, true);
    for level in [true, false] {
        assert_eq!(p.ack(), 0x2b);
        p.irq(11, false);
        p.irq(11 + 256, level);
        p.w(SLAVE, 0x20);
        p.w(MASTER, 0x20);
        assert_eq!(p.0.is_pending(), level, "it asks as long as a wire is high");
    }
}

#[test]
fn automatic_end_of_interrupt_and_rotation() {
    let mut p = Rig::new(3);
    p.irq(0, true);
    p.irq(1, true);
    p.irq(9, true);
    p.irq(10, true);
    assert_eq!([p.ack(), p.ack(), p.ack(), p.ack()], [0x20, 0x21, 0x29, 0x2a]);
    assert_eq!(p.isr(), (0, 0));
    p.w(MASTER, 0x80);
    for irq in [0, 1] {
        p.irq(irq, false);
        p.irq(irq, true);
    }
    assert_eq!(p.ack(), 0x20);
    p.irq(0, false);
    p.irq(0, true);
    assert_eq!([p.ack(), p.ack()], [0x21, 0x20], "input 0 has become the lowest");
}

/// OCW2, "Automatic rotation" and "Specific rotation".
#[test]
fn rotation_by_command() {
    // (OCW2 after IRQ4 was taken, then the order of 3, 4, 5 that ask at once)
    for (ocw2, order) in [(0x20, [3, 4, 5]), (0xa0, [5, 3, 4]), (0xe4, [5, 3, 4]), (0xc3, [4, 5, 3])] {
        let mut p = Rig::new(1);
        p.irq(4, true);
        p.ack();
        p.irq(4, false);
        p.w(MASTER, ocw2);
        p.w(MASTER, 0x64);
        for irq in [3, 4, 5] {
            p.irq(irq, true);
        }
        for irq in order {
            assert_eq!(p.ack(), 0x20 + irq, "{ocw2:#x}");
            p.w(MASTER, 0x60 | irq);
        }
    }
}

#[test]
fn special_mask_mode() {
    let mut p = Rig::new(1);
    p.irq(3, true);
    assert_eq!(p.ack(), 0x23);
    p.irq(6, true);
    assert!(!p.0.is_pending());
    p.w(MASTER + 1, 8);
    assert!(!p.0.is_pending());
    p.w(MASTER, 0x68);
    assert_eq!(p.ack(), 0x26, "the masked level no longer blocks");
    p.w(MASTER, 0x20);
    assert_eq!(p.isr(), (8, 0), "a non-specific end passes over it");
    p.w(MASTER, 0x48);
    p.irq(7, true);
    assert!(!p.0.is_pending());
}

#[test]
fn polling() {
    let mut p = Rig::new(1);
    p.w(MASTER, 0x0c);
    assert_eq!(p.r(MASTER), 0);
    p.irq(5, true);
    p.w(MASTER, 0x0c);
    assert_eq!((p.r(MASTER), p.isr()), (0x85, (0x20, 0)));
    p.irq(14, true);
    p.w(SLAVE, 0x0c);
    assert_eq!((p.r(SLAVE), p.isr()), (0x86, (0x20, 0x40)));
}

#[test]
fn initialization() {
    let mut p = Rig::new(1);
    p.irq(3, true);
    p.w(MASTER + 1, 0xff);
    p.w(MASTER, 0x13);
    assert_eq!((p.r(MASTER + 1), p.irr()), (0, (0, 0)), "IMR is clear, the edge forgotten");
    p.w(MASTER + 1, 0x47);
    p.w(MASTER + 1, 1);
    p.w(MASTER + 1, 0x55);
    assert_eq!(p.r(MASTER + 1), 0x55, "single: no ICW3");
    p.w(MASTER + 1, 0);
    p.irq(3, false);
    p.irq(3, true);
    assert_eq!(p.ack(), 0x43);
    p.w(MASTER, 0x10);
    p.w(MASTER + 1, 0x60);
    p.w(MASTER + 1, 4);
    p.w(MASTER + 1, 0xaa);
    assert_eq!(p.r(MASTER + 1), 0xaa, "no ICW4");
}

proptest! {
    #[test]
    fn nothing_panics_and_saved_state_goes_on_alike(
        ops in prop::collection::vec((0u64..12, 1u8..=8, any::<u64>(), 0u8..4, 0u32..800), 1..200)
    ) {
        let mut a = Rig(Pic::new(), Bench::default());
        let mut b = Rig(Pic::new(), Bench::default());
        let half = ops.len() / 2;
        for (i, (at, size, value, what, irq)) in ops.into_iter().enumerate() {
            if i == half {
                b.0.restore(&a.0.save()).unwrap();
            }
            let go = |p: &mut Rig| match what {
                0 => p.1.read(&mut p.0, at, size),
                1 => { p.1.write(&mut p.0, at, size, value); 0 }
                2 => { p.irq(irq, value & 1 != 0); 0 }
                _ => p.ack().into(),
            };
            let result = go(&mut a);
            if i >= half {
                prop_assert_eq!(result, go(&mut b));
            }
        }
        prop_assert_eq!(&a.0.state, &b.0.state);
        prop_assert_eq!(a.0.state.line, a.0.state.master.request(Some(CASCADE)).is_some());
    }
}
