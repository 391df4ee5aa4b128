//! "Supervisor Shadow Stacks": which pages nested page tables let supervisor shadow stacks use.

use iced_x86::code_asm::*;
use svm_sim::exit::code;
use svm_sim::nested_paging::error;
use svm_sim::vmcb::*;
use x86::control::{cr4, efer, user_cet};
use x86::paging::error as fault;
use x86_bare::{Bare, Code, PT};

use crate::base::{Base, NPT, NPT_TABLE, intercept, on, read};
use crate::guest::{machine, run};

/// The guest's shadow stack.
const STACK: u64 = 0x10_0000;
/// Where its nested page-table entry is.
const ENTRY: u64 = NPT_TABLE + STACK / 512;
/// Its marks: NX, and neither the user's nor writable.
const MARKED: u64 = STACK | 1 << 63 | 1;
const ORDINARY: u64 = STACK | 7;

/// A call, which pushes to the shadow stack.
const CALLS: Code = &|a| {
    // The next instruction's address alone would not be pushed.
    let mut further = a.create_label();
    a.call(further)?;
    a.nop()?;
    a.set_label(&mut further)
};
const READS: Code = &|a| a.mov(rbx, qword_ptr(STACK));
const JUMPS: Code = &|a| {
    a.mov(eax, STACK as u32)?;
    a.jmp(rax)
};

fn vmcb(checked: bool) -> Vmcb {
    let mut v = Base::Nested.vmcb();
    on(&mut v, CR4, cr4::CET);
    v.set(S_CET, user_cet::SH_STK_EN);
    v.set(SSP, STACK + 0x800);
    intercept(&mut v, code::EXCEPTION + 14);
    if checked {
        on(&mut v, NESTED_CONTROL, nested::SSS_CHECK_ENABLE);
    }
    v
}

/// Exit code and EXITINFO1.
fn outcome(v: &Vmcb, entry: u64, code: Code, prepare: fn(&mut Bare)) -> (u64, u64) {
    let mut bare = machine("amd", v, code);
    // To the guest it is a shadow-stack page: dirty and not writable; or one for code.
    bare.put(PT + STACK / 512, STACK | 0x61);
    bare.put(ENTRY, entry);
    prepare(&mut bare);
    let exit = run(&mut bare);
    (exit, if exit == code::NPF { read(&bare, EXITINFO1) } else { 0 })
}

const RUNS: (u64, u64) = (code::VMMCALL, 0);

fn refused(bits: u32, more: u64) -> (u64, u64) {
    (code::NPF, u64::from(fault::P | bits) | error::FINAL | more)
}

#[test]
fn supervisor_shadow_stacks_lie_in_pages_that_are_marked() {
    let on = vmcb(true);
    assert_eq!(outcome(&on, MARKED, CALLS, |_| {}), RUNS);
    assert_eq!(outcome(&on, MARKED | 2, CALLS, |_| {}), RUNS);
    let wrong = refused(fault::WR | fault::SS, 0);
    for entry in [ORDINARY, ORDINARY | 1 << 63, STACK | 3] {
        let (exit, info) = outcome(&on, entry, CALLS, |_| {});
        assert_eq!((exit, info & !u64::from(fault::US)), wrong, "{entry:#x}");
    }
    // Entries above are writable.
    let (exit, info) = outcome(&on, MARKED, CALLS, |bare| {
        let at = NPT + 0x1000;
        bare.put(at, bare.get(at) & !2);
    });
    assert_eq!(exit, code::NPF, "{info:#x}");
}

#[test]
fn other_accesses_to_such_a_page_are_told_apart() {
    let on = vmcb(true);
    let (exit, info) = outcome(&on, MARKED, JUMPS, |_| {});
    assert_eq!((exit, info & !u64::from(fault::US)), refused(fault::ID, error::SSS));
    let (exit, info) = outcome(&on, MARKED, READS, |_| {});
    assert_eq!((exit, info & !u64::from(fault::US)), refused(0, error::SSS));
    assert_eq!(outcome(&on, ORDINARY, READS, |_| {}), RUNS);
}

#[test]
fn where_nobody_checks_all_pages_are_alike() {
    assert_eq!(outcome(&vmcb(false), ORDINARY, CALLS, |_| {}), RUNS);
    let (exit, info) = outcome(&vmcb(false), MARKED, CALLS, |_| {});
    assert_eq!((exit, info & error::SSS), (code::NPF, 0));
    // The host's paging has no NX.
    assert_eq!(outcome(&vmcb(true), ORDINARY, CALLS, |bare| bare.cpu().efer &= !efer::NXE), RUNS);
}
