use emu_core::device::{Access, Device, DeviceCx};
use emu_core::engine::World;
use emu_core::machine::{Machine, Schedule};
use emu_core::time::Frequency;

use super::*;
use crate::model::CpuModel;
use crate::msr;
use crate::platform::ioapic;
use crate::platform::msi::{InterruptMessage, delivery};
use crate::processor::X86;

/// A machine whose processors wait, with interrupts off: only their APICs do anything.
struct Bench(Machine<X86>);

impl Bench {
    fn of(model: &str, cores: u32) -> Self {
        let model = CpuModel::parse(model).unwrap();
        let arches = (0..cores).map(|i| X86::flat_64().of_model(model, i, cores, 1)).collect();
        let mut machine = Machine::new(World::new(Frequency::default()), arches, Schedule::new(1000, 0));
        (0..cores as usize).for_each(|i| machine.set_waiting(i));
        let mut b = Bench(machine);
        for i in 0..cores as usize {
            b.at(i, |h| {
                h.arch.waiting.halts();
                write(h, 0xf0, 4, 0x1ff);
            });
        }
        b
    }

    fn new(cores: u32) -> Self {
        Self::of("intel", cores)
    }

    fn at<T>(&mut self, vcpu: usize, f: impl FnOnce(&mut P) -> T) -> T {
        f(&mut self.0.vcpus[vcpu].at(&mut self.0.world))
    }

    fn write(&mut self, vcpu: usize, offset: u32, value: u32) {
        self.at(vcpu, |h| write(h, offset, 4, value.into()));
        self.settle();
    }

    fn read(&mut self, vcpu: usize, offset: u32) -> u32 {
        self.at(vcpu, |h| read(h, offset, 4) as u32)
    }

    fn apic(&mut self, vcpu: usize) -> &mut LocalApic {
        &mut self.0.vcpus[vcpu].arch.apic
    }

    fn pending(&self, vcpu: usize) -> Pending {
        self.0.vcpus[vcpu].arch.pending.clone()
    }

    /// Signals reach their processors, and what is due happens.
    fn settle(&mut self) {
        self.0.run(0);
    }

    /// Jumps to the next event; returns when that is.
    fn next(&mut self) -> Option<u64> {
        self.0.skip_idle().then(|| {
            self.settle();
            self.0.count()
        })
    }

    /// The vectors in IRR.
    fn requests(&mut self, vcpu: usize) -> Vec<u8> {
        let a = self.apic(vcpu);
        (0..=255).filter(|v| a.irr.has(*v)).collect()
    }

    fn take_all(&mut self) -> Vec<(usize, u8)> {
        let all = (0..self.0.vcpus.len()).flat_map(|i| self.requests(i).into_iter().map(move |v| (i, v))).collect();
        (0..self.0.vcpus.len()).for_each(|i| self.apic(i).irr = Vectors::default());
        all
    }

    fn x2apic(&mut self, vcpu: usize) {
        self.at(vcpu, |h| write_base(h, h.arch.apic.base() | base::EXTD).unwrap());
    }

    fn msr(&mut self, vcpu: usize, number: u32, value: u64) -> bool {
        let done = self.at(vcpu, |h| msr::write(h, number, value).is_ok());
        self.settle();
        done
    }
}

#[test]
fn registers_after_reset() {
    for (model, version, id) in [("intel", 0x0106_0015, 0x0100_0000), ("amd", 0x8005_0010, 0x0100_0000)] {
        let mut b = Bench::of(model, 2);
        b.at(1, |h| h.arch.apic = LocalApic::new(1, false));
        for (offset, value) in [
            (0x20, id),
            (0x30, version),
            (0x80, 0),
            (0xa0, 0),
            (0xd0, 0),
            (0xe0, u32::MAX),
            (0xf0, 0xff),
            (0x100, 0),
            (0x280, 0),
            (0x320, 0x1_0000),
            (0x350, 0x1_0000),
            (0x360, 0x1_0000),
            (0x370, 0x1_0000),
            (0x380, 0),
            (0x390, 0),
            (0x3e0, 0),
        ] {
            assert_eq!(b.read(1, offset), value, "{model}, {offset:#x}");
        }
        assert_eq!(b.at(1, |h| h.arch.apic.base()), BASE | base::EN);
    }
}

/// An ID that was written counts in xAPIC mode, for INIT too; x2APIC mode has its own, and a disabled APIC forgets it.
#[test]
fn ids_can_be_written() {
    let mut b = Bench::new(2);
    b.write(1, 0x20, 0x2a00_0000);
    assert_eq!((b.read(1, 0x20), b.read(0, 0x20)), (0x2a00_0000, 0));
    for (destination, vector) in [(1, 0x41), (0x2a, 0x42)] {
        b.write(0, 0x310, destination << 24);
        b.write(0, 0x300, vector);
    }
    assert_eq!(b.take_all(), [(1, 0x42)]);
    b.at(1, |h| h.arch.apic.init());
    assert_eq!(b.read(1, 0x20), 0x2a00_0000);
    b.x2apic(1);
    assert_eq!(b.at(1, |h| msr::read(h, 0x802)), Ok(1));
    b.at(1, |h| write_base(h, BASE).unwrap());
    b.at(1, |h| write_base(h, BASE | base::EN).unwrap());
    assert_eq!(b.read(1, 0x20), 0x0100_0000);
}

/// While software has disabled the APIC, its LVT entries stay masked, and it takes no vectors.
#[test]
fn disabled_by_software() {
    let mut b = Bench::new(1);
    b.write(0, 0x320, 0x40);
    assert_eq!(b.read(0, 0x320), 0x40);
    b.write(0, 0xf0, 0xff);
    assert_eq!(b.read(0, 0x320), 0x1_0040);
    b.write(0, 0x320, 0x41);
    assert_eq!(b.read(0, 0x320), 0x1_0041);
    b.write(0, 0x300, 1 << 18 | 0x50);
    assert!(b.requests(0).is_empty());
    b.write(0, 0x300, 0x400);
    assert!(b.pending(0).nmi, "NMIs come all the same");
}

/// Priority: TPR and the vector in service decide what may come; EOI lets the next one in.
#[test]
fn priority() {
    let mut b = Bench::new(1);
    for vector in [0x31, 0x45, 0x52] {
        b.write(0, 0x300, 1 << 18 | vector);
    }
    b.write(0, 0x80, 0x5f);
    assert_eq!((b.read(0, 0xa0), b.apic(0).pending_vector()), (0x5f, None));
    b.write(0, 0x80, 0x40);
    assert_eq!(b.apic(0).pending_vector(), Some(0x52));
    assert_eq!(b.at(0, acknowledge), 0x52);
    assert_eq!((b.read(0, 0xa0), b.read(0, 0x120)), (0x50, 1 << 0x12));
    assert_eq!(b.apic(0).pending_vector(), None);
    b.write(0, 0xb0, 0);
    assert_eq!(b.apic(0).pending_vector(), None, "45H is of the class of TPR");
    b.at(0, |h| set_cr8(h, 2));
    assert_eq!((b.at(0, acknowledge), b.read(0, 0xa0)), (0x45, 0x40));
    b.write(0, 0xb0, 0);
    assert_eq!((b.at(0, acknowledge), b.read(0, 0x80)), (0x31, 0x20));
    assert_eq!(b.at(0, acknowledge), 0xff, "nothing more: the spurious vector");
}

/// ICR by delivery mode and shorthand, from processor 0 of three: who gets what.
#[test]
fn interprocessor_interrupts() {
    for (command, destination, got) in [
        (0x41, 1, vec![(1, 0x41)]),
        (0x41, 0, vec![(0, 0x41)]),
        (0x41, 0xff, vec![(0, 0x41), (1, 0x41), (2, 0x41)]),
        (0x41, 7, vec![]),
        (1 << 18 | 0x42, 1, vec![(0, 0x42)]),
        (2 << 18 | 0x43, 1, vec![(0, 0x43), (1, 0x43), (2, 0x43)]),
        (3 << 18 | 0x44, 1, vec![(1, 0x44), (2, 0x44)]),
        (0x100 | 0x45, 0xff, vec![(0, 0x45)]),
        (0x800 | 0x46, 0b110, vec![(1, 0x46), (2, 0x46)]),
        (0x900 | 0x47, 0b110, vec![(1, 0x47)]),
        (0x800 | 0x48, 0b1000, vec![]),
        (0x300 | 0x49, 0xff, vec![]),
        (0x700 | 0x49, 0xff, vec![]),
    ] {
        let mut b = Bench::new(3);
        for i in 0..3 {
            b.write(i, 0xd0, 0x0100_0000 << i);
        }
        b.write(0, 0x310, destination << 24);
        b.write(0, 0x300, command);
        assert_eq!(b.take_all(), got, "{command:#x} to {destination:#x}");
        assert_eq!(b.read(0, 0x300), command);
    }
}

#[test]
fn interrupts_that_are_no_vectors() {
    let p = Pending::default;
    for (command, got) in [
        (0x4000 | 0x200, Pending { smi: true, ..p() }),
        (0x4000 | 0x400, Pending { nmi: true, ..p() }),
        (0xc000 | 0x500, Pending { init: true, ..p() }),
        (0x8000 | 0x500, p()), // level de-assert
        (0x4000 | 0x600 | 0x9a, Pending { sipi: Some(0x9a), ..p() }),
        (0x400 | 3 << 18, Pending { nmi: true, ..p() }),
    ] {
        let mut b = Bench::new(2);
        b.write(0, 0x310, 1 << 24);
        b.write(0, 0x300, command);
        assert_eq!((b.pending(0), b.pending(1)), (p(), got), "{command:#x}");
    }
}

/// The cluster model: (DFR, LDRs of two processors, destination) to who gets it.
#[test]
fn logical_destinations() {
    for (dfr, ldr, destination, got) in [
        (0xf000_0000, [0x01, 0x02], 0x03, vec![0, 1]),
        (0xf000_0000, [0x11, 0x12], 0x10, vec![0, 1]),
        (0x0000_0000, [0x11, 0x22], 0x11, vec![0]),
        (0x0000_0000, [0x11, 0x12], 0x13, vec![0, 1]),
        (0x0000_0000, [0x11, 0x21], 0x21, vec![1]),
        (0x0000_0000, [0x11, 0x21], 0xf1, vec![0, 1]),
        (0x0000_0000, [0x11, 0x22], 0xff, vec![0, 1]),
        (0x0000_0000, [0x11, 0x22], 0x30, vec![]),
    ] {
        let mut b = Bench::new(2);
        for (i, ldr) in ldr.into_iter().enumerate() {
            b.write(i, 0xd0, ldr << 24);
            b.write(i, 0xe0, dfr);
        }
        b.write(0, 0x310, destination << 24);
        b.write(0, 0x300, 0x860);
        let got: Vec<_> = got.into_iter().map(|i| (i, 0x60)).collect();
        assert_eq!(b.take_all(), got, "{dfr:#x}, {ldr:x?}, {destination:#x}");
        // A device's message means the same.
        let m = InterruptMessage {
            destination: destination as u8 as u32,
            logical: true,
            vector: 0x60,
            ..InterruptMessage::default()
        };
        (0..2).for_each(|i| b.at(i, |h| accept(h, m)));
        assert_eq!(b.take_all(), got, "message: {dfr:#x}, {ldr:x?}, {destination:#x}");
    }
}

#[test]
fn lowest_priority_goes_to_one() {
    let mut b = Bench::new(3);
    b.write(0, 0x80, 0x40);
    b.write(1, 0x80, 0x20);
    b.write(2, 0x80, 0x30);
    let m = InterruptMessage {
        destination: 0xff,
        vector: 0x61,
        delivery: delivery::LOWEST_PRIORITY,
        ..InterruptMessage::default()
    };
    (0..3).for_each(|i| b.at(i, |h| accept(h, m)));
    assert_eq!(b.take_all(), [(1, 0x61)]);
    b.write(1, 0xf0, 0xff); // disabled by software: none for it
    let m = InterruptMessage { redirection_hint: true, delivery: delivery::FIXED, ..m };
    (0..3).for_each(|i| b.at(i, |h| accept(h, m)));
    assert_eq!(b.take_all(), [(2, 0x61)]);
    let m = InterruptMessage { redirection_hint: false, ..m };
    (0..3).for_each(|i| b.at(i, |h| accept(h, m)));
    assert_eq!(b.take_all(), [(0, 0x61), (2, 0x61)]);
}

/// The timer: 1 GHz of virtual time, a crystal of 38.4 MHz, so that 24 ticks take 625 instructions with a divisor of 1.
#[test]
fn timer_one_shot_and_periodic() {
    let reached = |ticks: u64| (ticks * 625).div_ceil(24);
    for (divide, divisor) in [(0xb, 1u64), (0, 2), (1, 4), (2, 8), (3, 16), (8, 32), (9, 64), (0xa, 128)] {
        let mut b = Bench::new(1);
        b.write(0, 0x3e0, divide);
        b.write(0, 0x320, 0x40);
        b.write(0, 0x380, 100);
        assert_eq!(b.read(0, 0x390), 100);
        assert_eq!(b.next(), Some(reached(100 * divisor)), "divided by {divisor}");
        assert_eq!((b.requests(0), b.read(0, 0x390)), (vec![0x40], 0));
        assert_eq!(b.next(), None);
        b.write(0, 0x320, 0x2_0041);
        b.write(0, 0x380, 10);
        for n in 1..5 {
            assert_eq!(b.next(), Some(reached((100 + n * 10) * divisor)));
            assert_eq!(b.read(0, 0x390), 10, "it starts again");
        }
        b.write(0, 0x380, 0);
        assert_eq!((b.next(), b.read(0, 0x390)), (None, 0), "0 stops it");
    }
}

#[test]
fn timer_with_a_deadline() {
    let mut b = Bench::new(1);
    assert!(b.msr(0, 0x6e0, 5000));
    assert_eq!(b.at(0, |h| deadline(h)), 0, "ignored in another mode");
    b.write(0, 0x320, 0x4_0050);
    b.write(0, 0x380, 10);
    assert_eq!((b.read(0, 0x380), b.next()), (0, None), "and so is the initial count in this one");
    assert!(b.msr(0, 0x6e0, 5000));
    assert_eq!(b.at(0, |h| deadline(h)), 5000);
    assert_eq!((b.next(), b.requests(0)), (Some(5000), vec![0x50]));
    assert_eq!(b.at(0, |h| deadline(h)), 0);
    b.take_all();
    assert!(b.msr(0, 0x6e0, 4000));
    assert_eq!(b.requests(0), [0x50], "what has passed comes at once");
    b.take_all();
    assert!(b.msr(0, 0x6e0, 9000) && b.msr(0, 0x3b, 1000));
    assert_eq!(b.next(), Some(8000), "the TSC is ahead now");
    assert!(b.msr(0, 0x6e0, 20_000));
    b.write(0, 0x320, 0x50);
    assert_eq!((b.at(0, |h| deadline(h)), b.next()), (0, None), "another mode disarms it");
    assert!(!Bench::of("amd", 1).msr(0, 0x6e0, 1), "AMD has none");
}

/// In the IOAPIC's place: notes what is written to its EOI register.
#[derive(Default)]
struct Ends(Vec<u8>);

impl Device for Ends {
    fn name(&self) -> &'static str {
        "ends"
    }
    fn read(&mut self, _: Access, _: &mut DeviceCx) -> u64 {
        0
    }
    fn write(&mut self, access: Access, value: u64, _: &mut DeviceCx) {
        assert_eq!(access.offset, ioapic::EOI);
        self.0.push(value as u8);
    }
    fn reset(&mut self) {}
    fn save(&self) -> Vec<u8> {
        self.0.clone()
    }
    fn restore(&mut self, _: &[u8]) -> Result<(), String> {
        Ok(())
    }
}

/// The end of a level-triggered interrupt is broadcast, unless SVR says not; an edge's never is.
#[test]
fn ends_of_interrupts_are_broadcast() {
    for (svr, level_triggered, broadcast) in
        [(0x1ff, true, vec![0x71]), (0x11ff, true, vec![]), (0x1ff, false, vec![]), (0x11ff, false, vec![])]
    {
        let mut b = Bench::new(1);
        let bus = &mut b.0.world.bus;
        let io = bus.add(Box::<Ends>::default());
        bus.map_memory(ioapic::BASE, ioapic::SIZE, io);
        b.write(0, 0xf0, svr);
        let m = InterruptMessage { vector: 0x71, level_triggered, ..InterruptMessage::default() };
        b.at(0, |h| accept(h, m));
        assert_eq!(b.at(0, acknowledge), 0x71);
        assert_eq!((b.read(0, 0x1b0), b.read(0, 0x130)), (u32::from(level_triggered) << 17, 1 << 17), "TMR, ISR");
        b.write(0, 0xb0, 0);
        assert_eq!(b.read(0, 0x130), 0);
        assert_eq!(b.0.world.bus.devices().next().unwrap().save(), broadcast);
    }
}

#[test]
fn pins() {
    let mut b = Bench::new(1);
    b.write(0, 0x350, 0x700);
    b.at(0, |h| set_pin(h, pin::LINT0, true));
    assert!(b.pending(0).ext_int);
    b.write(0, 0x350, 0x1_0700);
    assert!(!b.pending(0).ext_int, "masked");
    b.write(0, 0x350, 0x700);
    assert!(b.pending(0).ext_int, "it is a level");
    b.at(0, |h| set_pin(h, pin::LINT0, false));
    assert!(!b.pending(0).ext_int);
    b.write(0, 0x360, 0x400);
    b.at(0, |h| set_pin(h, pin::LINT1, true));
    assert!(b.pending(0).nmi);
    // Fixed and level triggered: it comes again after its end, as long as the pin is high.
    b.write(0, 0x350, 0x8055);
    b.at(0, |h| set_pin(h, pin::LINT0, true));
    assert_eq!((b.at(0, acknowledge), b.read(0, 0x350)), (0x55, 0xc055));
    assert!(b.requests(0).is_empty());
    b.write(0, 0xb0, 0);
    assert_eq!(b.requests(0), [0x55]);
    assert_eq!(b.at(0, acknowledge), 0x55);
    b.at(0, |h| set_pin(h, pin::LINT0, false));
    b.write(0, 0xb0, 0);
    assert_eq!((b.requests(0), b.read(0, 0x350)), (vec![], 0x8055));
    // Without an APIC the pins are INTR and NMI.
    let mut b = Bench::new(1);
    b.at(0, |h| {
        write_base(h, BASE | base::BSP).unwrap();
        set_pin(h, pin::LINT0, true);
        set_pin(h, pin::LINT1, true);
    });
    assert!(b.pending(0).ext_int && b.pending(0).nmi);
    b.at(0, |h| {
        set_pin(h, pin::SMI, true);
        set_pin(h, pin::INIT, true);
        set_pin(h, pin::A20, false);
    });
    assert!(b.pending(0).smi && b.pending(0).init && !b.0.vcpus[0].arch.a20);
}

/// ESR shows what has happened since it was last written; errors interrupt.
#[test]
fn errors() {
    let mut b = Bench::new(1);
    b.write(0, 0x370, 0x66);
    b.write(0, 0x300, 1 << 18 | 5);
    assert_eq!((b.read(0, 0x280), b.requests(0)), (0, vec![0x66]));
    b.write(0, 0x280, 0);
    assert_eq!(b.read(0, 0x280), 1 << 5);
    b.at(0, |h| accept(h, InterruptMessage { vector: 3, ..InterruptMessage::default() }));
    b.read(0, 0x40);
    b.write(0, 0x280, 0);
    assert_eq!(b.read(0, 0x280), 1 << 6 | 1 << 7);
    b.write(0, 0x280, 0);
    assert_eq!(b.read(0, 0x280), 0);
    b.write(0, 0x370, 5);
    b.write(0, 0x300, 1 << 18 | 5); // an error entry that is wrong itself
    assert_eq!(b.requests(0), [0x66]);
}

/// "x2APIC State Transitions": from and to (EN, EXTD), and whether that is #GP.
#[test]
fn x2apic_transitions() {
    let bits = |(en, extd): (u64, u64)| BASE | base::BSP | (en * base::EN) | (extd * base::EXTD);
    for (from, to, is_legal) in [
        ((0, 0), (0, 0), true),
        ((0, 0), (1, 0), true),
        ((0, 0), (1, 1), false),
        ((0, 0), (0, 1), false),
        ((1, 0), (0, 0), true),
        ((1, 0), (1, 0), true),
        ((1, 0), (1, 1), true),
        ((1, 0), (0, 1), false),
        ((1, 1), (0, 0), true),
        ((1, 1), (1, 0), false),
        ((1, 1), (1, 1), true),
        ((1, 1), (0, 1), false),
    ] {
        let mut b = Bench::new(1);
        assert!(b.msr(0, 0x1b, bits(from)));
        assert_eq!(b.msr(0, 0x1b, bits(to)), is_legal, "{from:?} to {to:?}");
        assert_eq!(b.at(0, |h| h.arch.apic.base()), bits(if is_legal { to } else { from }));
    }
    for reserved in [1 << 0, 1 << 9, 1 << 46, 1 << 63] {
        assert!(!Bench::new(1).msr(0, 0x1b, bits((1, 0)) | reserved));
    }
    assert!(!Bench::of("intel,-x2apic", 1).msr(0, 0x1b, bits((1, 1))));
    let mut b = Bench::new(1);
    assert_eq!(b.at(0, |h| local_read(h, BASE + 0x30, 4)), Some(0x0106_0015));
    b.x2apic(0);
    assert_eq!(b.at(0, |h| local_read(h, BASE + 0x30, 4)), None, "the page is gone");
}

/// x2APIC MSRs: number, value to write, whether that is taken, whether it can be read.
#[test]
fn x2apic_registers() {
    let mut b = Bench::new(1);
    assert!(!b.msr(0, 0x808, 0), "not outside of the mode");
    b.x2apic(0);
    for (number, value, takes, reads) in [
        (0x802, 0, false, true),
        (0x803, 0, false, true),
        (0x808, 0xff, true, true),
        (0x808, 0x100, false, true),
        (0x809, 0, false, false),
        (0x80a, 0, false, true),
        (0x80b, 0, true, false),
        (0x80b, 1, false, false),
        (0x80d, 1, false, true),
        (0x80e, 0, false, false),
        (0x80f, 0x11ff, true, true),
        (0x80f, 0x2000, false, true),
        (0x810, 0, false, true),
        (0x828, 0, true, true),
        (0x828, 1, false, true),
        (0x82f, 0x1_0700, true, true),
        (0x830, 1 << 32 | 0x40, true, true),
        (0x830, 1 << 12, false, true),
        (0x830, 1 << 20, false, true),
        (0x831, 0, false, false),
        (0x832, 0x7_00ff, true, true),
        (0x832, 0x8_0000, false, true),
        (0x835, 0x1_a7ff, true, true),
        (0x835, 0x5700, true, true), // ExtINT, with ones in delivery status and remote IRR
        (0x835, 0x800, false, true),
        (0x837, 0x100, false, true),
        (0x838, 0xffff_ffff, true, true),
        (0x838, 1 << 32, false, true),
        (0x839, 0, false, true),
        (0x83e, 0xb, true, true),
        (0x83e, 4, false, true),
        (0x83f, 0x30, true, false),
        (0x83f, 0x100, false, false),
        (0x840, 0, false, false),
    ] {
        assert_eq!(b.msr(0, number, value), takes, "write {number:#x} = {value:#x}");
        assert_eq!(b.at(0, |h| msr::read(h, number).is_ok()), reads, "read {number:#x}");
    }
    assert_eq!(b.at(0, |h| msr::read(h, 0x835).ok()), Some(0x700), "status is for reading");
    assert_eq!(b.requests(0), [0x30], "the self IPI");
}

/// In x2APIC mode destinations have 32 bits, and logical IDs follow from the APIC's.
#[test]
fn x2apic_destinations() {
    let cores = 40;
    for (destination, logical, got) in [
        (33u64, false, vec![33]),
        (0xff, false, vec![]),
        (0xffff_ffff, false, (0..40).collect()),
        (0x0002_0005, true, vec![32, 34]),
        (0x0001_ffff, true, (16..32).collect()),
        (0x0003_0001, true, vec![]),
    ] {
        let mut b = Bench::new(cores);
        (0..cores as usize).for_each(|i| b.x2apic(i));
        assert_eq!(b.at(33, |h| msr::read(h, 0x80d).unwrap()), 2 << 16 | 2);
        assert!(b.msr(0, 0x830, destination << 32 | u64::from(logical) << 11 | 0x77));
        assert_eq!(b.take_all(), got.into_iter().map(|i| (i, 0x77)).collect::<Vec<_>>(), "{destination:#x}");
    }
    // Beyond 255 processors.
    let mut b = Bench::new(300);
    (0..300).for_each(|i| b.x2apic(i));
    assert!(b.msr(0, 0x830, 299 << 32 | 0x78));
    assert_eq!(b.take_all(), [(299, 0x78)]);
}

#[test]
fn init_resets_all_but_id_and_base() {
    let mut b = Bench::new(2);
    b.x2apic(1);
    assert!(b.msr(1, 0x808, 0x70));
    b.at(1, init);
    let mut fresh = LocalApic::new(1, false);
    fresh.base = BASE | base::EN | base::EXTD;
    assert_eq!(*b.apic(1), fresh);
}

proptest::proptest! {
    #[test]
    fn no_access_panics(
        amd: bool,
        x2apic: bool,
        accesses in proptest::collection::vec((0u32..0x1000, 0u8..9, proptest::prelude::any::<u64>(), 0u32..4), 1..60),
    ) {
        let mut b = Bench::of(if amd { "amd" } else { "intel" }, 2);
        if x2apic {
            b.x2apic(0);
        }
        for (offset, size, value, kind) in accesses {
            b.at(0, |h| match kind {
                0 => drop(read(h, offset, size)),
                1 => write(h, offset, size, value),
                2 => drop(msr::write(h, 0x800 + offset % 0x100, value & 0xff_0000_0fff)),
                _ => accept(h, InterruptMessage::unpack(value)),
            });
            b.at(0, acknowledge);
            b.settle();
            b.0.skip_idle();
            b.settle();
        }
    }
}
