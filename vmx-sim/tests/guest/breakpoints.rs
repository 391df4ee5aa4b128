//! Breakpoints on data, and exits amid the access ("Saving Non-Register State": pending debug exceptions).

use iced_x86::code_asm::*;
use vmx_sim::exit::Reason;
use vmx_sim::field::*;
use x86::exception::vector;

use crate::machine::{ALL, DATA, MORE, map, run, vmcs};

/// Eight bytes, reads and writes, by DR0.
const WATCHED: u32 = 0x000b_0402;
/// An enabled breakpoint, that of DR0.
const MATCHED: u64 = 1 << 12 | 1;

/// A guest that watches `watched`, and executes this; where EPT gives it `DATA`, or not. The exit, and the debug exceptions that wait behind it.
fn exit(watched: u64, is_mapped: bool, code: fn(&mut CodeAssembler) -> x86_bare::Result) -> (Option<Reason>, u64) {
    let bare =
        run(|v| v[EXCEPTION_BITMAP] = 1 << vector::DB, |bare| map(bare, DATA, if is_mapped { ALL } else { 0 }), &|a| {
            a.mov(eax, watched as u32)?;
            a.mov(dr0, rax)?;
            a.mov(eax, WATCHED)?;
            a.mov(dr7, rax)?;
            a.xor(ecx, ecx)?;
            code(a)?;
            a.vmcall()
        });
    (Reason::of(vmcs(&bare)[EXIT_REASON]), vmcs(&bare)[GUEST_PENDING_DEBUG_EXCEPTIONS])
}

#[test]
fn an_ept_violation_leaves_no_trap_behind() {
    let store = |a: &mut CodeAssembler| a.mov(qword_ptr(DATA), rax);
    assert_eq!(exit(DATA, true, store), (Some(Reason::ExceptionOrNmi), 0));
    assert_eq!(exit(DATA, false, store), (Some(Reason::EptViolation), 0));
}

/// The instruction will do again what it did.
#[test]
fn neither_does_one_behind_a_part_that_succeeds() {
    let copy = |a: &mut CodeAssembler| {
        a.mov(esi, MORE as u32)?;
        a.mov(edi, DATA as u32)?;
        a.movsq()
    };
    assert_eq!(exit(MORE, true, copy), (Some(Reason::ExceptionOrNmi), 0));
    assert_eq!(exit(MORE, false, copy), (Some(Reason::EptViolation), 0));
}

/// But what MOV SS holds back is that instruction's.
#[test]
fn what_mov_ss_holds_waits() {
    let code = |a: &mut CodeAssembler| {
        a.mov(dr7, rcx)?;
        a.mov(word_ptr(MORE), ss)?;
        a.mov(dr7, rax)?;
        a.mov(ss, word_ptr(MORE))?;
        a.mov(qword_ptr(DATA), rax)
    };
    assert_eq!(exit(MORE, false, code), (Some(Reason::EptViolation), MATCHED));
}
