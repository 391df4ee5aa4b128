//! "EPT Translation Mechanism": five levels; rights of supervisor shadow-stack pages.

use iced_x86::code_asm::*;
use vmx_sim::control::{entry as entry_control, exit};
use vmx_sim::exit::Reason;
use vmx_sim::field::*;
use vmx_sim::vmcs::Vmcs;
use x86::control::cr4;
use x86_bare::{Bare, Code, PT};

use crate::base::{EPT, on};
use crate::machine::{ALL, DATA, MORE, TARGET, map, run, vmcs};

fn outcome(bare: &Bare) -> (Option<Reason>, u64) {
    (Reason::of(vmcs(bare)[EXIT_REASON]), vmcs(bare)[EXIT_QUALIFICATION])
}

/// A walk of five levels begins at [`TARGET`].
fn five_levels(v: &mut Vmcs) {
    v[EPT_POINTER] = TARGET | 4 << 3 | 6;
}

fn fifth_level(bare: &mut Bare) {
    bare.put(TARGET, EPT | 7);
}

const READS: Code = &|a| {
    a.mov(rax, qword_ptr(DATA))?;
    a.vmcall()
};

#[test]
fn five_levels_translate() {
    let bare = run(five_levels, fifth_level, READS);
    assert_eq!(outcome(&bare), (Some(Reason::Vmcall), 0));
    // The first level has rights, too: flags of the guest's own tables are to be set; and reserved bits.
    let no_writes = |bare: &mut Bare| {
        bare.put(TARGET, EPT | 5);
    };
    let bare = run(five_levels, no_writes, &|a| a.mov(qword_ptr(DATA), rax));
    assert_eq!(outcome(&bare), (Some(Reason::EptViolation), 0xab));
    let reserved = |bare: &mut Bare| bare.put(TARGET, EPT | 7 | 1 << 7);
    assert_eq!(outcome(&run(five_levels, reserved, READS)).0, Some(Reason::EptMisconfiguration));
}

#[test]
fn an_address_that_nothing_maps() {
    let bare = run(|_| {}, |bare| bare.put(PT + DATA / 4096 * 8, 1 << 45 | 7), READS);
    assert_eq!((outcome(&bare).0, vmcs(&bare)[GUEST_PHYSICAL_ADDRESS]), (Some(Reason::EptViolation), 1 << 45));
}

const SHADOW_STACK: u64 = 1 << 60;
const SHADOW_STACKS: u64 = 1 << 7;

/// Supervisor mode has a shadow stack in [`DATA`].
fn has_shadow_stack(v: &mut Vmcs) {
    on(v, entry_control::LOAD_CET_STATE);
    on(v, exit::LOAD_CET_STATE);
    v[GUEST_CR4] |= cr4::CET;
    (v[GUEST_S_CET], v[GUEST_SSP]) = (1, DATA + 0x800);
}

fn enforces(v: &mut Vmcs) {
    has_shadow_stack(v);
    v[EPT_POINTER] |= SHADOW_STACKS;
}

/// The page is a shadow-stack page of the guest's, with these bits in EPT. The guest makes a call, or writes to the page.
fn with_page(spoil: fn(&mut Vmcs), bits: u64, stores: bool) -> (Option<Reason>, u64) {
    let calls: Code = &|a| {
        let mut target = a.create_label();
        a.call(target)?;
        a.nop()?;
        a.set_label(&mut target)?;
        a.vmcall()
    };
    let writes: Code = &|a| {
        a.mov(qword_ptr(MORE), rax)?;
        a.vmcall()
    };
    let prepare = |bare: &mut Bare| {
        bare.put(PT + DATA / 4096 * 8, DATA | 0x61);
        // The same page, for stores.
        bare.put(PT + MORE / 4096 * 8, DATA | 3);
        map(bare, DATA, bits);
    };
    outcome(&run(spoil, prepare, if stores { writes } else { calls }))
}

#[test]
fn shadow_stack_pages() {
    let read_only = ALL & !2;
    let done = (Some(Reason::Vmcall), 0);
    // Without the control a shadow-stack access wants what any write wants.
    assert_eq!(with_page(has_shadow_stack, ALL, false), done);
    assert_eq!(with_page(has_shadow_stack, read_only | SHADOW_STACK, false), (Some(Reason::EptViolation), 0x21aa));
    // With it, the bit, and not that the page be writable.
    assert_eq!(with_page(enforces, read_only | SHADOW_STACK, false), done);
    assert_eq!(with_page(enforces, ALL, false), (Some(Reason::EptViolation), 0x21ba));
    // Stores are none of such.
    assert_eq!(with_page(enforces, ALL, true), done);
    assert_eq!(with_page(enforces, read_only | SHADOW_STACK, true), (Some(Reason::EptViolation), 0x45aa));
}
