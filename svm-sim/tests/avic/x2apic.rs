//! x2AVIC.

use iced_x86::code_asm::*;
use svm_sim::exit::code;
use svm_sim::vmcb::*;
use x86_bare::write_msr;

use crate::base::{GUEST, read};
use crate::rig::*;

const IRR: u64 = 0x200;
const WRITE: u64 = 1 << 32;

/// Registers that RDMSR finds, by MSR less 800h.
const READABLE: [u64; 9] = [0x02, 0x03, 0x08, 0x09, 0x0a, 0x0d, 0x0f, 0x28, 0x38];

fn read_msr(a: &mut CodeAssembler, msr: u32) -> Result {
    a.mov(ecx, msr)?;
    a.rdmsr()
}

#[test]
fn what_can_be_read() {
    for n in READABLE {
        let mut r = Rig::x2apic(&|a| read_msr(a, 0x800 + n as u32));
        r.set_register(n << 4, 0x89ab_cdef);
        assert_eq!((r.enter()[0], read(&r, RAX)), (code::VMMCALL, 0x89ab_cdef), "{n:#x}");
    }
    let mut r = Rig::x2apic(&|a| read_msr(a, 0x839));
    assert_eq!((r.enter(), read(&r, RIP)), ([code::AVIC_NOACCEL, 0x390, 0], GUEST + 5));
    for absent in [0x80b, 0x80c, 0x80e, 0x831, 0x83f, 0x8ff] {
        let mut r = Rig::x2apic(&|a| read_msr(a, absent));
        assert_eq!(r.enter()[0], GENERAL_PROTECTION, "{absent:#x}");
    }
}

#[test]
fn what_can_be_written() {
    for (msr, value) in [(0x80f, 0x1ff), (0x828, 0), (0x838, 0x1234), (0x83e, 0xb), (0x835, 0x1_0700)] {
        let mut r = Rig::x2apic(&|a| write_msr(a, msr, value));
        let offset = u64::from(msr & 0xff) << 4;
        assert_eq!(r.enter(), [code::AVIC_NOACCEL, WRITE | offset, 0], "{msr:#x}");
        assert_eq!(r.register(offset), value);
    }
    for (msr, value) in [(0x802, 0), (0x80b, 1), (0x808, 0x100), (0x80f, 1 << 32), (0x810, 0), (0x832, 1 << 18)] {
        let mut r = Rig::x2apic(&|a| write_msr(a, msr, value));
        assert_eq!(r.enter()[0], GENERAL_PROTECTION, "{msr:#x}");
    }
}

#[test]
fn priority_and_end() {
    let mut r = Rig::x2apic(&|a| write_msr(a, 0x808, 0x53));
    assert_eq!(r.enter()[0], code::VMMCALL);
    assert_eq!((read(&r, VINTR) & 0xf, r.register(0x80), r.register(0xa0)), (5, 0x53, 0x53));
    let mut r = Rig::x2apic(&|a| write_msr(a, 0x80b, 0));
    r.put_vector(0x100, 0x61);
    assert_eq!((r.enter()[0], r.has_vector(PAGE, 0x100, 0x61)), (code::VMMCALL, false));
}

#[test]
fn interrupts() {
    let sends = |msr, value: u64, to: [bool; 2]| {
        let mut r = Rig::x2apic(&|a| write_msr(a, msr, value));
        assert_eq!(r.enter()[0], code::VMMCALL, "{value:#x}");
        assert_eq!([PAGE, OTHER_PAGE].map(|p| r.has_vector(p, IRR, 0x45)), to, "{value:#x}");
    };
    sends(0x830, 1 << 32 | 0x45, [false, true]);
    sends(0x830, 0xffff_ffff << 32 | 0x45, [true, true]);
    // Logical: cluster 0, both members.
    sends(0x830, 3 << 32 | 1 << 11 | 0x45, [true, true]);
    sends(0x83f, 0x45, [true, false]);
    let mut r = Rig::x2apic(&|a| write_msr(a, 0x830, 0xff << 32 | 0x45));
    assert_eq!(r.enter(), [code::AVIC_INCOMPLETE_IPI, 0xff << 32 | 0x45, 2 << 32 | 0xff]);
    let mut r = Rig::x2apic(&|a| write_msr(a, 0x83f, 3));
    assert_eq!(r.enter(), [code::AVIC_INCOMPLETE_IPI, 1 << 18 | 3, 4 << 32]);
}

#[test]
fn the_command_reads_as_it_was_written() {
    let mut r = Rig::x2apic(&|a| {
        write_msr(a, 0x830, 1 << 32 | 0x45)?;
        read_msr(a, 0x830)?;
        a.shl(rdx, 32)?;
        a.or(rax, rdx)
    });
    assert_eq!((r.enter()[0], read(&r, RAX)), (code::VMMCALL, 1 << 32 | 0x45));
}

#[test]
fn the_msr_map_comes_first() {
    let mut r = Rig::x2apic(&|a| write_msr(a, 0x808, 0));
    let bits = read(&r, INTERCEPT_3);
    r.set_field(INTERCEPT_3, bits | 1 << 28);
    r.put(crate::base::MSRPM + 0x808 / 4, u64::MAX);
    assert_eq!(r.enter(), [code::MSR, 1, 0]);
}

/// In x2APIC mode the page is memory.
#[test]
fn there_is_no_page() {
    let mut r = Rig::x2apic(&|a| store(a, 0x280, 7));
    assert_eq!((r.enter()[0], r.get(BAR + 0x280), r.register(0x280)), (code::VMMCALL, 7, 0));
}

#[test]
fn it_is_a_feature() {
    // Then it is an xAPIC, and its MSRs are the processor's.
    let mut r = Rig::of("amd,-x2avic", vintr::X2AVIC_ENABLE, &|a| write_msr(a, 0x808, 0));
    assert_eq!(r.enter()[0], GENERAL_PROTECTION);
}
