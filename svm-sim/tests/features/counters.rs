//! HostOnly and GuestOnly of AMD's performance counters.

use iced_x86::code_asm::*;
use svm_sim::exit::code;
use x86::control::efer;
use x86_bare::{Bare, Code, NOTES, write_msr};

use crate::base::{Base, VMCB, intercept};
use crate::guest::machine;

const CTL: u32 = 0xc001_0200;
const GLOBAL_CONTROL: u32 = 0xc000_0301;
const GUEST_ONLY: u64 = 1 << 40;
const HOST_ONLY: u64 = 1 << 41;
/// Retired instructions, at all levels.
const INSTRUCTIONS: u64 = 0xc0 | 3 << 16 | 1 << 22;
/// Retired taken branches.
const BRANCHES: u64 = 0xc4 | 3 << 16 | 1 << 22;

const CODE: Code = &|a| {
    for _ in 0..10 {
        a.nop()?;
    }
    let mut next = a.create_label();
    a.jmp(next)?;
    a.set_label(&mut next)
};

/// What so many counters have counted when the host reads them, one by one, behind what it does first.
fn counted<const N: usize>(events: [u64; N], guest: Code, host: Code, prepare: fn(&mut Bare)) -> [u64; N] {
    let mut v = Base::Long.vmcb();
    intercept(&mut v, code::EXCEPTION + 6);
    let mut bare = machine("amd", &v, guest);
    prepare(&mut bare);
    bare.code(&|a| {
        write_msr(a, GLOBAL_CONTROL, 0)?;
        for (i, event) in (0..).zip(events) {
            write_msr(a, CTL + 2 * i, event)?;
        }
        write_msr(a, GLOBAL_CONTROL, 0x3f)?;
        a.mov(eax, VMCB as u32)?;
        host(a)?;
        for i in 0..N as u32 {
            a.mov(ecx, i)?;
            a.rdpmc()?;
            a.mov(qword_ptr(NOTES + 8 * u64::from(i)), rax)?;
        }
        a.hlt()
    });
    bare.machine.run(10_000);
    std::array::from_fn(|i| bare.get(NOTES + 8 * i as u64))
}

const VMRUN: Code = &|a| a.vmrun();
/// The host's instructions, from WRMSR on, before it reads a counter.
const fn before(i: u64) -> u64 {
    3 + 3 * i
}

#[test]
fn instructions_of_guests_and_of_the_host() {
    let i = INSTRUCTIONS;
    let events = [i | GUEST_ONLY, i | HOST_ONLY, i | GUEST_ONLY | HOST_ONLY, i];
    // VMRUN, ten NOPs, the jump; VMMCALL does not retire.
    assert_eq!(counted(events, CODE, VMRUN, |_| {}), [12, before(1), 12 + before(2), 12 + before(3)]);
}

#[test]
fn branches_likewise() {
    let b = BRANCHES;
    assert_eq!(counted([b | GUEST_ONLY, b | HOST_ONLY, b], CODE, VMRUN, |_| {}), [1, 0, 1]);
}

#[test]
fn without_svm_such_counters_stand_still() {
    let i = INSTRUCTIONS;
    let events = [i | GUEST_ONLY, i | HOST_ONLY, i];
    let no_svm = |bare: &mut Bare| bare.cpu().efer &= !efer::SVME;
    assert_eq!(counted(events, CODE, &|a| a.nop(), no_svm), [0, 0, 1 + before(2)]);
}

#[test]
fn an_instruction_that_faults_does_not_retire() {
    let cycles = 0x76 | 3 << 16 | 1 << 22;
    // VMRUN; UD2 takes its time.
    assert_eq!(counted([INSTRUCTIONS, cycles], &|a| a.ud2(), VMRUN, |_| {}), [1 + before(0), 2 + before(1)]);
}
