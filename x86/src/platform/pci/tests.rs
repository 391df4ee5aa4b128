use emu_core::device::{Bench, Request, Signal};
use proptest::prelude::*;

use super::edu::Edu;
use super::*;

struct Rig(PciBus, Bench);
impl Rig {
    /// With the educational device in slot 3.
    fn new(chipset: Chipset) -> Self {
        let mut bus = PciBus::new(chipset);
        assert!(bus.insert(Slot::device(3), Box::new(Edu::new(u64::MAX))));
        assert!(!bus.insert(Slot::device(3), Box::new(Edu::new(0))), "the slot is taken");
        let mut bench = Bench::default();
        bench.ram.add(0, 0x1_0000).unwrap();
        Rig(bus, bench)
    }
    fn port(&mut self, port: u64, size: u8) -> u64 {
        self.1.read(&mut self.0, port, size)
    }
    fn set_port(&mut self, port: u64, size: u8, value: u64) {
        self.1.write(&mut self.0, port, size, value);
    }
    fn memory(&mut self, at: u64, size: u8) -> u64 {
        self.1.read(&mut self.0, MEMORY + at, size)
    }
    fn set_memory(&mut self, at: u64, size: u8, value: u64) {
        self.1.write(&mut self.0, MEMORY + at, size, value);
    }
    fn select(&mut self, device: u8, function: u8, at: u64) {
        let slot = Slot { device, function };
        self.set_port(CONFIG_ADDRESS, 4, 1 << 31 | u64::from(slot.number()) << 8 | at & 0xfc);
    }
    fn config(&mut self, device: u8, at: u64, size: u8) -> u64 {
        self.select(device, 0, at);
        self.port(CONFIG_DATA + at % 4, size)
    }
    fn set_config(&mut self, device: u8, at: u64, size: u8, value: u64) {
        self.select(device, 0, at);
        self.set_port(CONFIG_DATA + at % 4, size, value);
    }
    fn lines(&mut self) -> Vec<(u32, bool)> {
        let line = |s: &Signal| match s {
            Signal::Line { line, level } => Some((*line, *level)),
            _ => None,
        };
        self.1.take_signals().iter().filter_map(line).collect()
    }
}

#[test]
fn configuration_mechanism_1() {
    let mut p = Rig::new(Chipset::I440Fx);
    let ids: Vec<_> = (0..5).map(|d| p.config(d, 0, 4)).collect();
    assert_eq!(ids, [0x1237_8086, 0x7000_8086, 0xffff_ffff, 0x11e8_1234, 0xffff_ffff]);
    p.select(1, 3, 0);
    assert_eq!([p.port(0xcfc, 4), p.port(0xcfe, 2), p.port(0xcfd, 1)], [0x7113_8086, 0x7113, 0x80]);
    p.set_port(CONFIG_ADDRESS, 4, 0x0000_1800);
    assert_eq!(p.port(CONFIG_DATA, 4), 0xffff_ffff, "not enabled");
    p.set_port(CONFIG_ADDRESS, 4, 0x8001_0000);
    assert_eq!((p.port(CONFIG_ADDRESS, 4), p.port(CONFIG_DATA, 4)), (0x8001_0000, 0xffff_ffff), "another bus");
    p.set_port(CONFIG_ADDRESS, 4, 0xffff_ffff);
    assert_eq!(p.port(CONFIG_ADDRESS, 4), 0x80ff_fffc);
    p.set_port(CONFIG_ADDRESS, 4, 0x8000_1802);
    assert_eq!((p.port(CONFIG_DATA, 2), p.port(0xcfe, 2)), (0x11e8, 0x11e8), "as in QEMU");
    p.set_port(CONFIG_ADDRESS, 4, 0xffff_ffff);
    p.set_port(CONFIG_ADDRESS, 2, 0);
    p.set_port(0xcfa, 1, 0);
    assert_eq!(
        (p.port(CONFIG_ADDRESS, 4), p.port(CONFIG_ADDRESS, 1)),
        (0x80ff_fffc, 0xff),
        "it takes words of 32 bits"
    );
    p.set_config(3, 0x3c, 4, 0xffff_ff0b);
    assert_eq!(p.config(3, 0x3c, 2), 0x010b, "the pin is for reading");
}

#[test]
fn the_enhanced_mechanism() {
    let mut p = Rig::new(Chipset::Q35);
    assert_eq!(p.memory(0xb000_0000, 4), 0xffff_ffff);
    p.set_config(0, 0x60, 4, 0xb000_0001);
    let at = |device: u64, register: u64| 0xb000_0000 + (device << 15) + register;
    assert_eq!([p.memory(at(0, 0), 4), p.memory(at(31, 2), 2), p.memory(at(2, 0), 2)], [0x29c0_8086, 0x2918, 0xffff]);
    assert_eq!([p.memory(at(3, 0x100), 4), p.memory(at(32, 0), 4)], [0, 0xffff_ffff], "no extended space, no bus 1");
    p.set_memory(at(3, 0x10), 4, 0xfe00_0000);
    p.set_memory(at(3, 4), 2, 2);
    assert_eq!((p.config(3, 0x10, 4), p.memory(0xfe00_0000, 4)), (0xfe00_0000, 0x0100_00ed));
    p.set_config(0, 0x60, 4, 0xc000_0005);
    assert_eq!((p.memory(at(0, 0), 2), p.memory(0xc000_0000, 2)), (0xffff, 0x8086), "64 MiB at another place");
}

#[test]
fn base_addresses_move() {
    let mut p = Rig::new(Chipset::I440Fx);
    p.set_config(3, 0x10, 4, 0xffff_ffff);
    assert_eq!(p.config(3, 0x10, 4), 0xfff0_0000);
    for base in [0xfeb0_0000, 0xe000_0000] {
        p.set_config(3, 4, 2, 0);
        p.set_config(3, 0x10, 4, base);
        assert_eq!(p.memory(base, 4), 0xffff_ffff);
        p.set_config(3, 4, 2, 2);
        assert_eq!(p.memory(base, 4), 0x0100_00ed);
        p.set_memory(base + 4, 4, base);
        assert_eq!(p.memory(base + 4, 4), !base & 0xffff_ffff);
    }
    assert_eq!(p.memory(0xfeb0_0000, 4), 0xffff_ffff, "where it was");
    assert_eq!(p.memory(0xe000_0000 + (1 << 20) - 4, 8) >> 32, 0xffff_ffff, "beyond its end");
    assert_eq!(p.port(0xe000, 4), 0xffff_ffff);
}

#[test]
fn interrupts_are_routed() {
    // (chipset, the register that routes INTA# of device 3, PIRQ)
    for (chipset, bridge, register, pirq) in [(Chipset::I440Fx, 1, 0x62, 2), (Chipset::Q35, 31, 0x6b, 7)] {
        let mut p = Rig::new(chipset);
        p.set_config(3, 0x10, 4, 0xfe00_0000);
        p.set_config(3, 4, 2, 2);
        p.set_memory(0xfe00_0060, 4, 1);
        assert_eq!((p.lines(), p.config(3, 6, 1) & 8), (vec![(16 + pirq, true)], 8), "{chipset:?}: not routed yet");
        p.set_config(bridge, register, 1, 0x0b);
        assert_eq!(p.lines(), [(11, true)]);
        p.set_config(bridge, register, 1, 0x05);
        assert_eq!(p.lines(), [(5, true), (11, false)]);
        p.set_config(bridge, register, 1, 0x02);
        assert_eq!(p.lines(), [(5, false)], "no such route");
        p.set_config(bridge, register, 1, 0x0a);
        p.lines();
        p.set_config(3, 4, 2, 0x402);
        assert_eq!((p.lines(), p.config(3, 6, 1) & 8), (vec![(10, false), (16 + pirq, false)], 8), "disabled");
        p.set_config(3, 4, 2, 2);
        p.lines();
        p.set_memory(0xfe00_0064, 4, 1);
        assert_eq!(p.lines(), [(10, false), (16 + pirq, false)]);
    }
    let swizzle: Vec<_> = (0..4).map(|pin| Chipset::I440Fx.pirq(Slot::device(4), pin)).collect();
    assert_eq!(swizzle, [3, 0, 1, 2]);
}

#[test]
fn power_management_is_where_its_base_says() {
    let mut p = Rig::new(Chipset::I440Fx);
    p.select(1, 3, 0x40);
    p.set_port(CONFIG_DATA, 4, 0xffff_b000);
    assert_eq!((p.port(CONFIG_DATA, 4), p.port(0xb008, 4)), (0xb001, 0xffff_ffff), "not enabled");
    p.select(1, 3, 0x80);
    p.set_port(CONFIG_DATA, 1, 1);
    p.1.now = 1_000_000_000;
    assert_eq!(p.port(0xb008, 4), 3_579_545);
    p.set_port(0xb2, 1, 0xf1);
    assert_eq!((p.port(0xb004, 2), p.port(0xb2, 1)), (1, 0xf1));
    p.0.input(super::super::pm::POWER_BUTTON, true, &mut p.1.cx());
    p.set_port(0xb002, 2, 0x100);
    assert_eq!(p.lines(), [(SCI, true)]);
    p.set_port(0xb004, 2, 0x2001);
    assert_eq!(p.1.request, Some(Request::PowerOff { code: 0 }));
    let mut p = Rig::new(Chipset::Q35);
    p.set_config(31, 0x40, 4, 0x600);
    p.set_config(31, 0x44, 1, 0x80);
    p.set_port(0x602, 2, 1);
    assert_eq!((p.port(0x602, 2), p.0.wakes_at().is_some()), (1, true));
    p.set_config(31, 0xf0, 4, 0xfed1_c001);
    assert_eq!(p.memory(0xfed1_c000 + 0x3140, 2), 0x3210);
    p.set_memory(0xfed1_c000 + 0x3410, 4, 0x20);
    assert_eq!(p.memory(0xfed1_c000 + 0x3410, 4), 0x20);
}

#[test]
fn reset_control_lies_between() {
    let mut p = Rig::new(Chipset::I440Fx);
    p.set_port(CONFIG_ADDRESS, 4, 0x8000_0600);
    assert_eq!((p.1.request, p.port(RESET_CONTROL, 1)), (None, 0));
    p.set_port(RESET_CONTROL, 1, 4);
    assert_eq!(p.lines(), [(INIT, true), (INIT, false)]);
    p.set_port(RESET_CONTROL, 1, 2);
    p.set_port(RESET_CONTROL, 1, 6);
    assert_eq!((p.1.request, p.port(RESET_CONTROL, 1)), (Some(Request::Reset), 6));
}

/// PAM is kept; SMRAM's lock closes it.
#[test]
fn registers_of_the_host_bridges() {
    for (chipset, pam, smram) in [(Chipset::I440Fx, 0x5a, 0x72), (Chipset::Q35, 0x91, 0x9d)] {
        let mut p = Rig::new(chipset);
        p.set_config(0, pam, 1, 0x33);
        assert_eq!((p.config(0, pam, 1), p.config(0, smram, 1)), (0x33, 2));
        p.set_config(0, smram, 1, 0x4a);
        assert_eq!(p.config(0, smram, 1), 0x4a);
        p.set_config(0, smram, 1, 0x5a);
        p.set_config(0, smram, 1, 0x4a);
        assert_eq!(p.config(0, smram, 1), 0x1a, "locked, and closed by that");
        p.0.reset();
        assert_eq!((p.config(0, pam, 1), p.config(0, smram, 1)), (0, 2));
    }
}

/// On a machine's bus: other chips come first, and what is nobody's reads as ones.
#[test]
fn below_all_other_devices() {
    use emu_core::bus::BusCx;
    let (mut ram, mut door) = (emu_core::ram::Ram::default(), emu_core::door::Door::default());
    let mut bus = Bus::default();
    bus.add(Box::new(super::super::pit::Pit::new()));
    bus.map(Space::Port, 0x40, 4, DeviceId(0), 0, 0);
    let p = Rig::new(Chipset::I440Fx).0;
    p.map(&mut bus, &[(0xc000_0000, 1 << 32), (1 << 32, 1 << 46)]);
    let mut io = |space, at, size, value: Option<u64>| {
        let cx = BusCx { now: 0, ram: &mut ram, door: &mut door };
        match value {
            None => bus.read(space, at, size, cx),
            Some(v) => bus.write(space, at, size, v, cx).map(|()| 0),
        }
    };
    io(Space::Port, 0xcf8, 4, Some(0x8000_1810));
    io(Space::Port, 0xcfc, 4, Some(0xd000_0000));
    io(Space::Port, 0xcf8, 4, Some(0x8000_1804));
    io(Space::Port, 0xcfc, 2, Some(2));
    assert_eq!(io(Space::Memory, 0xd000_0000, 4, None), Some(0x0100_00ed));
    assert_eq!(io(Space::Memory, 0xd010_0000, 2, None), Some(0xffff));
    assert_eq!(io(Space::Memory, 0x8000_0000, 4, None), None);
    assert_eq!((io(Space::Port, 0x43, 1, None), io(Space::Port, 0x300, 1, None)), (Some(0), Some(0xff)));
}

proptest! {
    #[test]
    fn nothing_panics_and_saved_state_goes_on_alike(
        q35: bool,
        ops in prop::collection::vec((0u8..6, any::<u64>(), 0u32..64, 1u8..=8, any::<u64>(), 0u64..300_000), 1..200)
    ) {
        let chipset = if q35 { Chipset::Q35 } else { Chipset::I440Fx };
        let (mut a, mut b) = (Rig::new(chipset), Rig::new(chipset));
        let half = ops.len() / 2;
        for p in [&mut a, &mut b] {
            p.set_config(3, 0x10, 4, 0xfe00_0000);
            p.set_config(3, 4, 2, 6);
        }
        for (i, (what, at, shift, size, value, ns)) in ops.into_iter().enumerate() {
            if i == half {
                b.0.restore(&a.0.save()).unwrap();
                b.1.ram.restore(&a.1.ram.snapshot()).unwrap();
                b.1.now = a.1.now;
                a.1.take_signals();
                b.1.take_signals();
            }
            let slot = [(0, 0), (1, 0), (1, 3), (3, 0), (31, 0), (9, 1)][(at % 6) as usize];
            let go = |p: &mut Rig| {
                p.1.run_to(&mut p.0, p.1.now + ns);
                match what {
                    0 => return p.1.read(&mut p.0, at >> shift | at << 63, size),
                    1 => p.1.write(&mut p.0, at >> shift | at << 63, size, value),
                    2 | 3 => {
                        p.select(slot.0, slot.1, value >> 56);
                        if what == 2 { return p.port(CONFIG_DATA + value % 4, size) }
                        p.set_port(CONFIG_DATA + value % 4, size, value >> shift);
                    }
                    4 => p.set_memory(0xfe00_0000 + at % 0xa0 / 4 * 4, 4 + size / 8 * 4, value >> shift),
                    _ => return p.memory(0xfe00_0000 + at % 0xa0, size),
                }
                0
            };
            let result = go(&mut a);
            if i >= half {
                prop_assert_eq!(result, go(&mut b));
                prop_assert_eq!(a.1.take_signals(), b.1.take_signals());
            }
        }
        prop_assert_eq!(a.0.save(), b.0.save());
    }
}
