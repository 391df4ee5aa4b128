//! The chips of a PC on one bus, with the wires between them: interrupts from where they arise to where a processor would see
//! them. What is at the processor's end here is a probe.

use std::sync::{Arc, Mutex};

use emu_core::bus::{Bus, BusCx, Space, Wire};
use emu_core::device::{Access, Device, DeviceCx, DeviceId};
use emu_core::door::Door;
use emu_core::ram::Ram;
use proptest::prelude::*;
use x86::platform::pci::chipset::Chipset;
use x86::platform::pci::edu::Edu;
use x86::platform::pci::{PciBus, SCI, Slot};
use x86::platform::{add_at_ports, hpet, i8042, ioapic, msi, pic, pit, reset, rtc};

/// Inputs are INTR (0), A20 (1) and INIT (2); messages come by writes.
#[derive(Clone, Default)]
struct Probe(Arc<Mutex<Seen>>);

#[derive(Default)]
struct Seen {
    levels: [bool; 3],
    rises: [u32; 3],
    messages: Vec<msi::InterruptMessage>,
}

impl Device for Probe {
    fn name(&self) -> &'static str {
        "probe"
    }
    fn read(&mut self, _: Access, _: &mut DeviceCx) -> u64 {
        0
    }
    fn write(&mut self, access: Access, value: u64, _: &mut DeviceCx) {
        let message = msi::InterruptMessage::decode(msi::BASE + access.offset, value as u32);
        self.0.lock().unwrap().messages.push(message);
    }
    fn input(&mut self, line: u32, level: bool, _: &mut DeviceCx) {
        let seen = &mut *self.0.lock().unwrap();
        seen.levels[line as usize] = level;
        seen.rises[line as usize] += u32::from(level);
    }
    fn reset(&mut self) {}
    fn save(&self) -> Vec<u8> {
        Vec::new()
    }
    fn restore(&mut self, _: &[u8]) -> Result<(), String> {
        Ok(())
    }
}

struct Pc {
    bus: Bus,
    ram: Ram,
    door: Door,
    now: u64,
    probe: Probe,
}

impl Pc {
    fn new(chipset: Chipset) -> Self {
        let mut bus = Bus::default();
        let probe = Probe::default();
        let cpu = bus.add(Box::new(probe.clone()));
        bus.map_memory(msi::BASE, msi::SIZE, cpu);
        let pic = add_at_ports(&mut bus, Box::new(pic::Pic::new()), &pic::PORTS);
        let pit = add_at_ports(&mut bus, Box::new(pit::Pit::new()), &pit::PORTS);
        let rtc = add_at_ports(&mut bus, Box::new(rtc::Rtc::new(&rtc::RtcConfig::default())), &rtc::PORTS);
        let kbc = add_at_ports(&mut bus, Box::new(i8042::I8042::new(Some(0))), &i8042::PORTS);
        let port92 = add_at_ports(&mut bus, Box::new(reset::Port92::default()), &reset::PORTS);
        let ioapic = bus.add(Box::new(ioapic::IoApic::new(0, ioapic::Polarity::Ignored)));
        bus.map_memory(ioapic::BASE, ioapic::SIZE, ioapic);
        let hpet = bus.add(Box::new(hpet::Hpet::new(3, 0x00f0_0000)));
        bus.map_memory(hpet::BASE, hpet::SIZE, hpet);
        let mut pci = PciBus::new(chipset);
        pci.insert(Slot::device(3), Box::new(Edu::new(u64::MAX)));
        let pci = pci.map(&mut bus, &[(0xc000_0000, 1 << 32)]);

        let to = |device: DeviceId, input: u32| Wire::Device { device, input };
        bus.wire(pic, 0, to(cpu, 0));
        bus.wire(pit, 0, to(hpet, 0));
        bus.wire(rtc, 0, to(hpet, 1));
        for (line, irq, pin) in [(hpet::IRQ0, 0, 2), (hpet::IRQ8, 8, 8)] {
            bus.wire(hpet, line, to(pic, irq));
            bus.wire(hpet, line, to(ioapic, pin));
        }
        for (line, irq) in [(i8042::IRQ1, 1), (i8042::IRQ12, 12)] {
            bus.wire(kbc, line, to(pic, irq));
            bus.wire(kbc, line, to(ioapic, irq));
        }
        // PCI's interrupts share pins with others: they are the second wire of each.
        for irq in 0..16 {
            bus.wire(pci, irq, to(pic, irq + 256));
            if chipset == Chipset::I440Fx {
                bus.wire(pci, irq, to(ioapic, irq + 256));
            }
        }
        for pin in 16..24 {
            bus.wire(hpet, pin, to(ioapic, pin));
            if chipset == Chipset::Q35 {
                bus.wire(pci, pin, to(ioapic, pin + 256));
            }
        }
        bus.wire(pci, SCI, to(pic, 9 + 512));
        bus.wire(pci, SCI, to(ioapic, 9 + 512));
        bus.wire(kbc, i8042::A20, to(port92, 0));
        bus.wire(port92, reset::A20, to(cpu, 1));
        for (device, line) in [(kbc, i8042::INIT), (port92, reset::INIT), (pci, x86::platform::pci::INIT)] {
            bus.wire(device, line, to(cpu, 2));
        }
        let mut ram = Ram::default();
        ram.add(0, 0x1_0000).unwrap();
        Pc { bus, ram, door: Door::default(), now: 0, probe }
    }

    /// Becomes what the other is.
    fn become_like(&mut self, other: &mut Pc) {
        let saved: Vec<_> = other.bus.devices().map(|d| d.save()).collect();
        for (device, bytes) in self.bus.devices_mut().zip(&saved) {
            device.restore(bytes).unwrap();
        }
        self.ram.restore(&other.ram.snapshot()).unwrap();
        self.now = other.now;
    }

    fn read(&mut self, space: Space, at: u64, size: u8) -> u64 {
        let cx = BusCx { now: self.now, ram: &mut self.ram, door: &mut self.door };
        self.bus.read(space, at, size, cx).unwrap()
    }
    fn write(&mut self, space: Space, at: u64, size: u8, value: u64) {
        let cx = BusCx { now: self.now, ram: &mut self.ram, door: &mut self.door };
        self.bus.write(space, at, size, value, cx).unwrap();
    }
    fn inb(&mut self, port: u64) -> u8 {
        self.read(Space::Port, port, 1) as u8
    }
    fn outb(&mut self, port: u64, value: u8) {
        self.write(Space::Port, port, 1, value.into());
    }
    fn ioapic(&mut self, register: u64, value: u64) {
        self.write(Space::Memory, ioapic::BASE, 4, register);
        self.write(Space::Memory, ioapic::BASE + ioapic::IOWIN, 4, value);
    }
    /// Both 8259As with vectors from 20h and 28h, and these masks.
    fn set_up_pic(&mut self, masks: [u8; 2]) {
        for (port, vector, icw3, mask) in [(0x20, 0x20, 4, masks[0]), (0xa0, 0x28, 2, masks[1])] {
            self.outb(port, 0x11);
            for value in [vector, icw3, 1, mask] {
                self.outb(port + 1, value);
            }
        }
    }
    /// Lets time pass, as the machine's run loop would.
    fn go(&mut self, ns: u64) {
        let end = self.now + ns;
        while let Some(at) = self.bus.wakes_at().filter(|at| *at <= end) {
            self.now = at;
            self.bus.tick(BusCx { now: at, ram: &mut self.ram, door: &mut self.door });
        }
        self.now = end;
    }
    fn intr(&self) -> bool {
        self.probe.0.lock().unwrap().levels[0]
    }
    /// INTA, then both ends of interrupt.
    fn take(&mut self) -> u8 {
        let vector = self.read(Space::Port, pic::INTA, 1) as u8;
        self.outb(0xa0, 0x20);
        self.outb(0x20, 0x20);
        vector
    }
    fn messages(&mut self) -> Vec<(u8, bool)> {
        let messages = std::mem::take(&mut self.probe.0.lock().unwrap().messages);
        messages.iter().map(|m| (m.vector, m.level_triggered)).collect()
    }
}

/// Ten interrupts of the 8254 in a tenth of a second, through the HPET's pass, both controllers seeing each.
#[test]
fn the_timer_reaches_both_controllers() {
    let mut pc = Pc::new(Chipset::I440Fx);
    pc.set_up_pic([0xfe, 0xff]);
    pc.ioapic(0x14, 0x40);
    for (port, value) in [(0x43, 0x34), (0x40, 0x9c), (0x40, 0x2e)] {
        pc.outb(port, value); // 11932: 10 ms
    }
    pc.messages();
    let mut taken = Vec::new();
    for _ in 0..1000 {
        pc.go(101_000);
        if pc.intr() {
            taken.push(pc.take());
        }
    }
    // The first is the edge of OUT when the mode is set.
    assert_eq!((taken, pc.messages().len()), (vec![0x20; 11], 10));
}

#[test]
fn the_clock_and_the_keyboard_come_through_the_slave() {
    let mut pc = Pc::new(Chipset::Q35);
    pc.set_up_pic([0xf9, 0xfe]);
    pc.outb(0x70, 0x0b);
    pc.outb(0x71, 0x42);
    pc.go(2_000_000);
    assert!(pc.intr());
    assert_eq!(pc.take(), 0x28);
    pc.go(2_000_000);
    assert!(!pc.intr(), "the clock's line is high until register C is read");
    pc.outb(0x70, 0x0c);
    assert_eq!(pc.inb(0x71), 0xc0);
    pc.go(1_000_000);
    assert_eq!((pc.intr(), pc.take()), (true, 0x28));
    pc.outb(0x70, 0x0b);
    pc.outb(0x71, 0x02);
    for (port, value) in [(0x64, 0x60), (0x60, 0x01), (0x60, 0xf2)] {
        pc.outb(port, value);
    }
    for byte in [0xfa, 0xab, 0x83] {
        assert_eq!((pc.intr(), pc.take(), pc.inb(0x60)), (true, 0x21, byte));
    }
    assert!(!pc.intr());
}

#[test]
fn the_hpet_takes_the_timers_place() {
    let mut pc = Pc::new(Chipset::Q35);
    pc.set_up_pic([0xfe, 0xff]);
    for (at, value) in [(0x100, 0x4c), (0x108, 100_000), (0x108, 100_000), (0x10, 3)] {
        pc.write(Space::Memory, hpet::BASE + at, 8, value);
    }
    pc.outb(0x43, 0x34);
    pc.outb(0x40, 0x10);
    pc.outb(0x40, 0);
    let mut taken = 0;
    for _ in 0..100 {
        pc.go(100_000);
        if pc.intr() {
            assert_eq!(pc.take(), 0x20);
            taken += 1;
        }
    }
    assert_eq!(taken, 10, "a millisecond each, and nothing of the 8254");
}

/// A bus master does not reach TSEG: it reads ones, and what it writes is lost. After a snapshot it is the same.
#[test]
fn tseg_is_kept_from_bus_masters() {
    const TSEG: u64 = 0x10_0000;
    let mut pc = Pc::new(Chipset::Q35);
    pc.ram = Ram::default();
    pc.ram.add(0, 0x40_0000).unwrap();
    let config = |pc: &mut Pc, device: u64, at: u64, size: u8, value: u64| {
        pc.write(Space::Port, 0xcf8, 4, 1 << 31 | device << 11 | at & 0xfc);
        pc.write(Space::Port, 0xcfc + at % 4, size, value);
    };
    config(&mut pc, 3, 0x10, 4, 0xfe00_0000);
    config(&mut pc, 3, 4, 2, 6);
    // From RAM to the device (1) or back (3): eight bytes.
    let transfer = |pc: &mut Pc, from: u64, to: u64, command: u64| {
        for (register, value) in [(0x80, from), (0x88, to), (0x90, 8), (0x98, command)] {
            pc.write(Space::Memory, 0xfe00_0000 + register, 8, value);
        }
        pc.go(1_000_000);
    };
    let through_the_device = |pc: &mut Pc, from: u64, to: u64| {
        transfer(pc, from, 0x4_0000, 1);
        transfer(pc, 0x4_0000, to, 3);
    };
    let fresh = |pc: &mut Pc| {
        for (at, value) in [(TSEG - 4, 0x1111_1111_1111_1111), (TSEG + 4, 0x2222_2222), (0x1000, 0x3333_3333_3333_3333)]
        {
            pc.ram.store(at, 8, value).unwrap();
        }
    };
    fresh(&mut pc);
    through_the_device(&mut pc, TSEG - 4, 0x2000);
    assert_eq!(pc.ram.load(0x2000, 8), Ok(0x1111_1111_1111_1111), "there is no TSEG");
    config(&mut pc, 0, 0xac, 4, TSEG);
    config(&mut pc, 0, 0x9e, 1, 1);
    let mut other = Pc::new(Chipset::Q35);
    other.ram = Ram::default();
    other.ram.add(0, 0x40_0000).unwrap();
    other.become_like(&mut pc);
    for mut pc in [pc, other] {
        fresh(&mut pc);
        through_the_device(&mut pc, TSEG - 4, 0x2000);
        assert_eq!(pc.ram.load(0x2000, 8), Ok(0xffff_ffff_1111_1111));
        through_the_device(&mut pc, 0x1000, TSEG - 4);
        assert_eq!(pc.ram.load(TSEG - 4, 8), Ok(0x1111_1111_3333_3333), "half of it is lost");
        config(&mut pc, 0, 0x9e, 1, 0);
        through_the_device(&mut pc, 0x1000, TSEG - 4);
        assert_eq!(pc.ram.load(TSEG - 4, 8), Ok(0x3333_3333_3333_3333));
    }
}

/// A PCI device's INTA# through the router to the 8259A, and to its pin of the I/O APIC, until it is acknowledged.
#[test]
fn a_pci_interrupt() {
    for (chipset, bridge, route, pin) in [(Chipset::I440Fx, 1u64, 0x62, 11u64), (Chipset::Q35, 31, 0x6b, 23)] {
        let mut pc = Pc::new(chipset);
        pc.set_up_pic([0xfb, 0xf7]);
        pc.outb(0x4d1, 0x08);
        let mut config = |device: u64, at: u64, size: u8, value: u64| {
            pc.write(Space::Port, 0xcf8, 4, 1 << 31 | device << 11 | at & 0xfc);
            pc.write(Space::Port, 0xcfc + at % 4, size, value);
        };
        config(bridge, route, 1, 11);
        config(3, 0x10, 4, 0xfe00_0000);
        config(3, 4, 2, 6);
        pc.ioapic(0x10 + 2 * pin, 0x8050);
        pc.write(Space::Memory, 0xfe00_0060, 4, 1);
        assert_eq!((pc.intr(), pc.take(), pc.intr()), (true, 0x2b, true), "{chipset:?}: level triggered");
        assert_eq!(pc.messages(), [(0x50, true)]);
        pc.write(Space::Memory, ioapic::BASE + ioapic::EOI, 4, 0x50);
        assert_eq!(pc.messages(), [(0x50, true)], "it asks still");
        pc.write(Space::Memory, 0xfe00_0064, 4, 1);
        pc.write(Space::Memory, ioapic::BASE + ioapic::EOI, 4, 0x50);
        assert_eq!((pc.intr(), pc.messages()), (false, vec![]));
    }
}

#[test]
fn address_line_20_and_init() {
    let mut pc = Pc::new(Chipset::I440Fx);
    let a20 = |pc: &Pc| pc.probe.0.lock().unwrap().levels[1];
    pc.outb(0x64, 0xd1);
    pc.outb(0x60, 0xdd);
    assert!(!a20(&pc));
    pc.outb(0x92, 2);
    assert!(a20(&pc));
    pc.outb(0x64, 0xdf);
    pc.outb(0x92, 0);
    assert!(a20(&pc), "one of the two is enough");
    pc.outb(0x64, 0xfe);
    pc.outb(0x92, 1);
    pc.outb(0xcf9, 4);
    assert_eq!(pc.probe.0.lock().unwrap().rises[2], 3, "three ways to INIT");
}

/// Where the chips are.
const PLACES: [(Space, u64, u64); 20] = [
    (Space::Port, 0x20, 2),
    (Space::Port, 0xa0, 2),
    (Space::Port, 0x4d0, 2),
    (Space::Port, 0x40, 4),
    (Space::Port, 0x40, 4),
    (Space::Port, 0x61, 1),
    (Space::Port, 0x60, 5),
    (Space::Port, 0x70, 4),
    (Space::Port, 0x70, 2),
    (Space::Port, 0x92, 1),
    (Space::Port, 0xb2, 2),
    (Space::Port, 0xcf8, 8),
    (Space::Port, 0xcfc, 4),
    (Space::Port, 0x600, 0x40),
    (Space::Port, pic::INTA, 1),
    (Space::Memory, hpet::BASE, 0x160),
    (Space::Memory, hpet::BASE + 0x100, 0x60),
    (Space::Memory, ioapic::BASE, 0x44),
    (Space::Memory, 0xfe00_0000, 0xa0),
    (Space::Memory, 0xb000_0000, 0x40_0000),
];

proptest! {
    /// No access panics or keeps the bus busy for ever, and a PC that was restored goes on as the other does.
    #[test]
    fn random_accesses(
        q35: bool,
        ops in prop::collection::vec((0..PLACES.len(), any::<u64>(), 0u32..4, 0u32..64, any::<u64>(), any::<bool>(), 0u64..20_000), 1..300)
    ) {
        let chipset = if q35 { Chipset::Q35 } else { Chipset::I440Fx };
        let (mut a, mut b) = (Pc::new(chipset), Pc::new(chipset));
        let half = ops.len() / 2;
        for pc in [&mut a, &mut b] {
            for (address, value) in [(0x8000_0060u64, 0xb000_0001u64), (0x8000_1810, 0xfe00_0000), (0x8000_1804, 6)] {
                pc.write(Space::Port, 0xcf8, 4, address);
                pc.write(Space::Port, 0xcfc, 4, value);
            }
        }
        for (i, (place, at, size, shift, value, write, ns)) in ops.into_iter().enumerate() {
            if i == half {
                b.become_like(&mut a);
                for pc in [&mut a, &mut b] {
                    let cx = BusCx { now: pc.now, ram: &mut pc.ram, door: &mut pc.door };
                    pc.bus.tick_all(cx); // the bus asks again when each device wakes
                }
                a.messages();
                b.messages();
            }
            let (space, base, n) = PLACES[place];
            let go = |pc: &mut Pc| {
                pc.go(ns);
                let cx = BusCx { now: pc.now, ram: &mut pc.ram, door: &mut pc.door };
                let (at, size) = (base + at % n, 1 << size);
                // Configuration addresses are of functions that are there, more often than not.
                let value = if base == 0xcf8 { 1 << 31 | value & 0x18fc | value >> 63 << 11 } else { value >> shift };
                if write { pc.bus.write(space, at, size, value, cx).map(|()| 0) } else { pc.bus.read(space, at, size, cx) }
            };
            let result = go(&mut a);
            if i >= half {
                prop_assert_eq!(result, go(&mut b));
                prop_assert_eq!(a.messages(), b.messages());
            }
        }
        for (one, other) in a.bus.devices().zip(b.bus.devices()) {
            prop_assert_eq!(one.save(), other.save(), "{}", one.name());
        }
    }
}
