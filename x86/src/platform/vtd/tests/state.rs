use emu_core::device::Device;
use proptest::prelude::*;

use super::*;

#[test]
fn registers_at_reset() {
    let mut b = Bench::default();
    let mut unit = Vtd::new(VtdConfig::default(), 1);
    for (at, size, value) in [
        (0x00, 4, 0x10),
        (0x08, 8, 0x08d2_078c_2278_0e06),
        (0x0c, 4, 0x08d2_078c),
        (0x10, 8, 0x00f0_0fdb),
        (0x1c, 4, 0),
        (0x38, 4, 1 << 31),
        (0xa0, 4, 1 << 31),
        (0x64, 4, 0),
        (0xf00, 8, 0),
    ] {
        assert_eq!(b.read(&mut unit, at, size), value, "{at:#x}");
    }
    for at in (0..0x400).step_by(4) {
        if !(0x80..0x90).contains(&at) {
            b.write(&mut unit, at, 4, u64::from(u32::MAX));
        }
    }
    for (at, size, value) in [
        (0x00, 4, 0x10),
        (0x18, 4, 0),
        (0x20, 8, 0xffff_ffff_ffff_f000),
        (0x90, 8, 0xffff_ffff_ffff_f007),
        (0xb8, 8, 0xffff_ffff_ffff_f80f),
        (0x220, 8, 0),
    ] {
        assert_eq!(b.read(&mut unit, at, size), value, "{at:#x}");
    }
    b.write(&mut unit, 0x3c, 2, 7);
    b.write(&mut unit, 0x3e, 4, 7);
    assert_eq!(b.read(&mut unit, 0x3c, 4), 0xffff, "accesses that are not aligned or narrow are not for it");
    unit.reset();
    assert_eq!(unit.save(), Vtd::new(VtdConfig::default(), 1).save());
}

proptest! {
    /// Random registers, tables and requests: nothing panics, and a unit that takes over the state goes on alike.
    #[test]
    fn saved_state_goes_on_alike(
        ops in prop::collection::vec((0u8..6, 0u64..0x2a8, any::<u64>(), 0u32..64, any::<bool>()), 1..200),
        extended in any::<bool>(),
        caching_mode in any::<bool>(),
    ) {
        let config = VtdConfig { extended_interrupt_mode: extended, caching_mode, verifies_ioapic: true };
        let (mut a, mut b) = (Rig::with(config), Rig::with(config));
        a.map(0x1000, 4, 1, 0x1_0000 | RW);
        let half = ops.len() / 2;
        for (i, (what, at, value, shift, flag)) in ops.into_iter().enumerate() {
            if i == half {
                b.unit.restore(&a.unit.save()).unwrap();
                b.b.ram.restore(&a.b.ram.snapshot()).unwrap();
                b.tail = a.tail;
                a.b.take_signals();
                b.b.take_signals();
            }
            let go = |r: &mut Rig| {
                let value = value >> shift;
                match what {
                    0 => r.b.write(&mut r.unit, at & !3, 4, value & 0xffff_ffff),
                    1 => r.b.write(&mut r.unit, at & !7, 8, value),
                    2 => r.store(value % (RAM / 8) * 8, value.rotate_left(13)),
                    3 => r.queue((value << 4) | (at % 6), value.rotate_left(20)),
                    4 => return r.access_by(at as u16 & 0xf, value, flag),
                    _ => drop(r.unit.message(at as u16, 0xfee0_0000 | value & 0xf_ffff, at as u32, &mut r.b.cx())),
                }
                None
            };
            let result = go(&mut a);
            if i >= half {
                prop_assert_eq!(result, go(&mut b));
                prop_assert_eq!(a.b.take_signals(), b.b.take_signals());
            }
        }
        prop_assert_eq!(a.unit.save(), b.unit.save());
    }
}
