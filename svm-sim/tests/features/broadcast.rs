//! INVLPGB, TLBSYNC and MCOMMIT of guests.

use iced_x86::code_asm::*;
use svm_sim::exit::code;
use svm_sim::vmcb::*;
use x86::control::efer;
use x86_bare::{Code, PT, page};

use crate::base::{Base, intercept, on, read};
use crate::guest::{exit_of, machine, run};

const UD: u64 = code::EXCEPTION + 6;
const GP: u64 = code::EXCEPTION + 13;
const MODEL: &str = "amd";

/// INVLPGB's guests: intercepts UD and GP, and more.
fn vmcb(enabled: bool, more: &[u64]) -> Vmcb {
    let mut v = Base::Long.vmcb();
    for code in [UD, GP].iter().chain(more) {
        intercept(&mut v, *code);
    }
    if enabled {
        on(&mut v, NESTED_CONTROL, nested::INVLPGB_ENABLE);
    }
    v
}

const INVLPGB: Code = &|a| {
    a.mov(eax, 1)?;
    a.xor(ecx, ecx)?;
    a.xor(edx, edx)?;
    a.invlpgb()
};
const ILLEGAL: Code = &|a| {
    a.mov(eax, 1)?;
    a.mov(ecx, 8)?;
    a.xor(edx, edx)?;
    a.invlpgb()
};
const TLBSYNC: Code = &|a| a.tlbsync();

#[test]
fn the_host_enables_and_intercepts_them() {
    for (enabled, intercepts, code, exit) in [
        (false, &[][..], INVLPGB, UD),
        (false, &[code::INVLPGB, code::INVLPGB_ILLEGAL], INVLPGB, UD),
        (false, &[code::TLBSYNC], TLBSYNC, UD),
        (true, &[], INVLPGB, code::VMMCALL),
        (true, &[code::INVLPGB_ILLEGAL], INVLPGB, code::VMMCALL),
        (true, &[code::INVLPGB], INVLPGB, code::INVLPGB),
        (true, &[code::INVLPGB, code::INVLPGB_ILLEGAL], ILLEGAL, code::INVLPGB),
        (true, &[code::INVLPGB_ILLEGAL], ILLEGAL, code::INVLPGB_ILLEGAL),
        (true, &[], ILLEGAL, GP),
        (true, &[], TLBSYNC, code::VMMCALL),
        (true, &[code::TLBSYNC], TLBSYNC, code::TLBSYNC),
    ] {
        let v = vmcb(enabled, intercepts);
        assert_eq!(exit_of(MODEL, &v, code), exit, "{enabled}, {intercepts:x?}");
    }
    // Without the bit in the VMCB guests have them as the host does, and TLBSYNC's intercept is not there.
    assert_eq!(exit_of("amd,-tlbi_ctl", &vmcb(false, &[code::TLBSYNC]), TLBSYNC), code::VMMCALL);
}

/// In real mode and in virtual-8086 mode they are no instructions, whatever is intercepted.
#[test]
fn they_are_for_protected_mode() {
    for base in [Base::Real, Base::V8086] {
        for bytes in [[0x0f, 0x01, 0xfe], [0x0f, 0x01, 0xff]] {
            let mut v = base.vmcb();
            for code in [UD, GP, code::INVLPGB, code::TLBSYNC] {
                intercept(&mut v, code);
            }
            on(&mut v, NESTED_CONTROL, nested::INVLPGB_ENABLE);
            let mut bare = machine(MODEL, &v, &|a| a.db(&bytes));
            assert_eq!(run(&mut bare), UD, "{base:?}");
        }
    }
}

#[test]
fn the_exit_is_before_the_instruction() {
    let mut bare = machine(MODEL, &vmcb(true, &[code::INVLPGB]), INVLPGB);
    assert_eq!(run(&mut bare), code::INVLPGB);
    let rip = read(&bare, RIP);
    assert_eq!((bare.load(rip, 3), read(&bare, NRIP)), (0xfe_010f, rip + 3));
}

const PAGE: u64 = 0x10_0000;
const OTHER: u64 = 0x10_1000;

/// What the guest, whose ASID is 1, sees of a page behind an INVLPGB for an ASID, and then the host.
fn seen(flags: u64, asid: u64) -> [u64; 2] {
    let mut bare = machine(MODEL, &vmcb(true, &[]), &|a| {
        a.mov(rbx, qword_ptr(PAGE))?;
        a.mov(r8, OTHER | page::SUPERVISOR)?;
        a.mov(qword_ptr(PT + PAGE / 512), r8)?;
        a.mov(rax, PAGE | flags)?;
        a.xor(ecx, ecx)?;
        a.mov(rdx, asid)?;
        a.invlpgb()?;
        a.mov(rbx, qword_ptr(PAGE))
    });
    bare.put(PAGE, 1);
    bare.put(OTHER, 2);
    // The host reads the page, runs the guest and reads the page again.
    bare.code(&|a| {
        a.mov(rsi, qword_ptr(PAGE))?;
        a.vmrun()?;
        a.mov(rsi, qword_ptr(PAGE))?;
        a.hlt()
    });
    assert_eq!(run(&mut bare), code::VMMCALL);
    [bare.reg(3), bare.reg(6)]
}

#[test]
fn a_guests_is_for_its_own_asid() {
    const VA: u64 = 1;
    const ASID: u64 = 4;
    for (flags, asid) in [(VA, 0), (VA | ASID, 0), (VA | ASID, 1), (VA | ASID, 7), (VA, 0xffff)] {
        assert_eq!(seen(flags, asid), [2, 1], "{flags} {asid}");
    }
}

#[test]
fn mcommit_is_intercepted() {
    const MCOMMIT: Code = &|a| a.mcommit();
    let mut v = vmcb(false, &[]);
    on(&mut v, EFER, efer::MCOMMIT);
    assert_eq!(exit_of("amd,+mcommit", &v, MCOMMIT), code::VMMCALL);
    intercept(&mut v, code::MCOMMIT);
    assert_eq!(exit_of("amd,+mcommit", &v, MCOMMIT), code::MCOMMIT);
    v.set(EFER, v.get(EFER) & !efer::MCOMMIT);
    assert_eq!(exit_of("amd,+mcommit", &v, MCOMMIT), UD);
}
