//! "Instruction timeout": an alignment check whose handler is a program's, on a stack that is not aligned, never gets to its handler.

use vmx_sim::control::{primary, secondary};
use vmx_sim::exit::Reason;
use vmx_sim::field::*;
use vmx_sim::vmcs::Vmcs;
use x86_bare::{Bare, GDT};

use crate::base::{Base, GUEST, Outcome, enter_with, on};
use crate::machine::{DATA, TARGET, vmcs};

const USER_32: u64 = 0x48;
const AM: u64 = 1 << 18;
const AC: u64 = 1 << 18;

/// A program of 32 bits, and its own table of gates.
fn program(v: &mut Vmcs) {
    v[GUEST_CR0] |= AM;
    v[GUEST_RFLAGS] |= AC;
    for i in 0..6 {
        let [selector, _, _, rights] = guest_segment(i);
        (v[selector], v[rights]) = (0x1b, 0xc0f3);
    }
    (v[GUEST_CS_SELECTOR], v[GUEST_CS_ACCESS_RIGHTS]) = (USER_32 | 3, 0xc0fb);
    (v[GUEST_RSP], v[GUEST_IDTR_BASE]) = (DATA + 0x802, TARGET);
}

fn prepare(bare: &mut Bare) {
    bare.put(GDT + USER_32, 0x00cf_fb00_0000_ffff);
    bare.put(TARGET + 8 * 17, GUEST & 0xffff | (USER_32 | 3) << 16 | 0xee << 40 | GUEST >> 16 << 48);
    // MOV eax, [DATA + 1]
    bare.put(GUEST, 0xa1 | (DATA + 1) << 8);
}

#[test]
fn what_never_ends_exits() {
    let times_out = |v: &mut Vmcs| {
        program(v);
        on(v, primary::ACTIVATE_SECONDARY_CONTROLS);
        on(v, secondary::INSTRUCTION_TIMEOUT);
    };
    let (outcome, bare) = enter_with(Base::Protected, times_out, prepare);
    let v = vmcs(&bare);
    assert_eq!(outcome, Outcome::Other(Reason::InstructionTimeout as u64));
    assert_eq!((v[EXIT_QUALIFICATION], v[GUEST_RIP], v[GUEST_RSP]), (0, GUEST, DATA + 0x802));
    assert_eq!((v[IDT_VECTORING_INFORMATION], v[IDT_VECTORING_ERROR_CODE]), (1 << 31 | 1 << 11 | 3 << 8 | 17, 0));
}

/// Without the control the guest is there still when the machine stops, and the emulator is not.
#[test]
fn the_emulator_goes_on() {
    let (_, bare) = enter_with(Base::Protected, program, prepare);
    assert_eq!((vmcs(&bare)[EXIT_REASON], bare.machine.vcpus[0].core.pc), (0, GUEST));
    let count = bare.machine.count();
    assert!(count >= 1000, "{count}");
}

/// What else is due ends it.
#[test]
fn the_timer_ends_it() {
    let with_timer = |v: &mut Vmcs| {
        program(v);
        on(v, vmx_sim::control::pin::ACTIVATE_VMX_PREEMPTION_TIMER);
        v[PREEMPTION_TIMER_VALUE] = 100;
    };
    let (outcome, _) = enter_with(Base::Protected, with_timer, prepare);
    assert_eq!(outcome, Outcome::Other(Reason::PreemptionTimer as u64));
}
