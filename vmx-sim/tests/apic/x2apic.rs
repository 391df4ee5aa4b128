//! "Virtualizing MSR-Based APIC Accesses".

use iced_x86::code_asm::*;
use vmx_sim::control::{primary, secondary, tertiary};
use vmx_sim::exit::Reason;
use vmx_sim::field::*;
use x86_bare::{NOTES, Result, write_msr};

use crate::rig::*;

fn read(a: &mut CodeAssembler, msr: u32, to: u64) -> Result {
    a.mov(ecx, msr)?;
    a.rdmsr()?;
    a.mov(dword_ptr(to), eax)?;
    a.mov(dword_ptr(to + 4), edx)
}

#[test]
fn reads() {
    let mut g = Rig::new(&X2APIC, &|a| read(a, 0x808, NOTES));
    g.set_virtual(0x80, 0x35).set_virtual(0x84, 7);
    assert_eq!(g.enter().0, Reason::Vmcall);
    assert_eq!(g.get(NOTES), 7 << 32 | 0x35);
    // Without APIC-register virtualization the others are the processor's own, which is not in x2APIC mode.
    let mut g = Rig::new(&X2APIC, &|a| read(a, 0x80f, NOTES));
    assert_eq!(g.set_field(EXCEPTION_BITMAP, 1 << 13).enter().0, Reason::ExceptionOrNmi);
    // With it even what no APIC has is read.
    let mut g =
        Rig::new(&[X2APIC.as_slice(), &[secondary::APIC_REGISTER_VIRTUALIZATION]].concat(), &|a| read(a, 0x8ff, NOTES));
    g.put(VIRTUAL + 0xff0, 0x1122_3344_5566_7788);
    assert_eq!(g.enter().0, Reason::Vmcall);
    assert_eq!(g.get(NOTES), 0x1122_3344_5566_7788);
}

#[test]
fn writes() {
    let ipi = [X2APIC.as_slice(), &[tertiary::IPI_VIRTUALIZATION]].concat();
    let gp = (Reason::ExceptionOrNmi, 0);
    let done = (Reason::Vmcall, 0);
    let cases = [
        (&X2APIC[..], 0x808, 0xff, done),
        (&X2APIC, 0x808, 0x100, gp),
        (&X2APIC, 0x808, 1 << 32, gp),
        (&X2APIC, 0x80b, 0, done),
        (&X2APIC, 0x80b, 1, gp),
        (&X2APIC, 0x83f, 0x41, done),
        (&X2APIC, 0x83f, 0x0f, (Reason::ApicWrite, 0x3f0)),
        (&X2APIC, 0x83f, 0x141, gp),
        // The processor's own, which is in xAPIC mode.
        (&X2APIC, 0x830, 0x41, gp),
        (&ipi, 0x830, 0x41 | 1 << 12, gp),
        (&ipi, 0x830, 0x41 | 1 << 20, gp),
        (&ipi, 0x830, 0x4_0041, done),
        (&ipi, 0x830, 0x8_0041, (Reason::ApicWrite, 0x300)),
        (&ipi, 0x830, 0x0f, (Reason::ApicWrite, 0x300)),
        (&X2APIC[..2], 0x80b, 0, gp),
    ];
    for (controls, msr, value, expected) in cases {
        let mut g = Rig::new(controls, &|a| write_msr(a, msr, value));
        g.set_field(EXCEPTION_BITMAP, 1 << 13);
        assert_eq!(g.enter(), expected, "{msr:x} {value:x}");
        let length = if expected == gp { 0 } else { 2 };
        let behind = g.field(GUEST_RIP) == GUEST + 15 + length;
        assert!(behind, "{msr:x} {value:x}: {:x}", g.field(GUEST_RIP));
        let offset = u64::from(msr & 0xff) << 4;
        assert_eq!(g.get(VIRTUAL + offset), if expected == gp { 0 } else { value }, "{msr:x} {value:x}");
    }
}

#[test]
fn the_bitmap_comes_first() {
    let mut g = Rig::new(&X2APIC, &|a| write_msr(a, 0x808, 0));
    let write_800 = g.field(MSR_BITMAPS) + 2048 + 0x100;
    g.put(write_800, u64::MAX);
    assert_eq!(g.enter().0, Reason::Wrmsr);
    let mut g = Rig::new(&[primary::USE_TPR_SHADOW, secondary::VIRTUALIZE_X2APIC_MODE], &|a| write_msr(a, 0x808, 0x20));
    g.set_field(TPR_THRESHOLD, 3).set_virtual(0x80, 0x30);
    assert_eq!(g.enter(), (Reason::TprBelowThreshold, 0));
    assert_eq!(g.field(GUEST_RIP), GUEST + 17);
}
