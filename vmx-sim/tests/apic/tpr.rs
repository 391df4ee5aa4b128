//! "Use TPR shadow": CR8, and the TPR threshold.

use emu_core::machine::End;
use iced_x86::code_asm::*;
use vmx_sim::control::{primary, secondary};
use vmx_sim::exit::Reason;
use vmx_sim::field::*;
use x86_bare::{FOUND, NOTES};

use crate::rig::*;

#[test]
fn cr8_is_vtpr() {
    let mut g = Rig::new(&[primary::USE_TPR_SHADOW], &|a| {
        a.mov(rax, cr8)?;
        a.mov(qword_ptr(NOTES), rax)?;
        a.mov(ecx, 9)?;
        a.mov(cr8, rcx)?;
        a.mov(rax, cr8)?;
        a.mov(qword_ptr(NOTES + 8), rax)
    });
    g.set_virtual(0x80, 0xffff_ff5f);
    assert_eq!(g.enter().0, Reason::Vmcall);
    assert_eq!((g.get(NOTES), g.get(NOTES + 8)), (5, 9));
    assert_eq!(g.virtual_register(0x80), 0x90);
    assert_eq!(g.cpu().apic.tpr(), 0);
}

#[test]
fn without_a_shadow_cr8_is_the_processors() {
    let mut g = Rig::new(&[], &|a| {
        a.mov(ecx, 9)?;
        a.mov(cr8, rcx)
    });
    assert_eq!(g.enter().0, Reason::Vmcall);
    assert_eq!((g.cpu().apic.tpr(), g.virtual_register(0x80)), (0x90, 0));
}

#[test]
fn cr8_has_reserved_bits() {
    let mut g = Rig::new(&[primary::USE_TPR_SHADOW], &|a| {
        a.mov(ecx, 0x10)?;
        a.mov(cr8, rcx)
    });
    g.no_gate(13);
    assert_eq!(g.set_field(EXCEPTION_BITMAP, 1 << 13).enter().0, Reason::ExceptionOrNmi);
    assert_eq!(g.field(GUEST_RIP), GUEST + 5);
    assert_eq!(g.virtual_register(0x80), 0);
    assert_eq!(g.get(FOUND), 0);
}

#[test]
fn a_tpr_below_the_threshold_exits_behind_its_instruction() {
    let mut g = Rig::new(&[primary::USE_TPR_SHADOW], &|a| {
        for tpr in [5, 4, 3] {
            a.mov(ecx, tpr)?;
            a.mov(cr8, rcx)?;
        }
        a.ud2()
    });
    g.set_virtual(0x80, 0x40).set_field(TPR_THRESHOLD, 4);
    assert_eq!(g.enter(), (Reason::TprBelowThreshold, 0));
    assert_eq!(g.field(GUEST_RIP), GUEST + 3 * (5 + 4));
    assert_eq!(g.virtual_register(0x80), 0x30);
}

#[test]
fn an_entry_wants_a_threshold_that_is_not_above_vtpr() {
    let mut g = Rig::new(&[primary::USE_TPR_SHADOW], &|_| Ok(()));
    g.set_field(TPR_THRESHOLD, 4).set_virtual(0x80, 0x30);
    assert_eq!(g.entry_error(), 7);
    g.set_virtual(0x80, 0x40);
    assert_eq!(g.enter().0, Reason::Vmcall);
}

/// With virtual APIC accesses it enters, and exits at once: behind what is injected, before debug traps.
#[test]
fn or_exits_at_once() {
    for injected in [None, Some(0x40u64)] {
        let mut g = Rig::new(&[primary::USE_TPR_SHADOW, secondary::VIRTUALIZE_APIC_ACCESSES], &|a| a.ud2());
        g.set_field(TPR_THRESHOLD, 4).set_virtual(0x80, 0x30).set_field(GUEST_PENDING_DEBUG_EXCEPTIONS, 1);
        if let Some(vector) = injected {
            g.set_field(ENTRY_INTERRUPTION_INFORMATION, vector | 1 << 31).set_field(GUEST_RFLAGS, 0x202);
        }
        assert_eq!(g.enter(), (Reason::TprBelowThreshold, 0));
        let rip = injected.map_or(GUEST, |vector| x86_bare::HANDLERS + 32 * vector);
        assert_eq!(g.field(GUEST_RIP), rip);
        assert_eq!(g.field(GUEST_PENDING_DEBUG_EXCEPTIONS), 0x1001);
        assert_eq!(g.field(IDT_VECTORING_INFORMATION), 0);
    }
}

#[test]
fn it_wakes_a_guest_that_halts() {
    let mut g = Rig::new(&[primary::USE_TPR_SHADOW, secondary::VIRTUALIZE_APIC_ACCESSES], &|a| a.ud2());
    g.set_field(TPR_THRESHOLD, 4).set_virtual(0x80, 0x30).set_field(GUEST_ACTIVITY_STATE, 1);
    assert_eq!(g.enter(), (Reason::TprBelowThreshold, 0));
    assert_eq!(g.field(GUEST_ACTIVITY_STATE), 1);
}

/// In the shutdown state it waits for what ends that, here an NMI.
#[test]
fn it_does_not_wake_from_shutdown() {
    for nmi in [false, true] {
        let mut g = Rig::new(&[primary::USE_TPR_SHADOW, secondary::VIRTUALIZE_APIC_ACCESSES], &|a| a.ud2());
        g.set_field(TPR_THRESHOLD, 4).set_virtual(0x80, 0x30).set_field(GUEST_ACTIVITY_STATE, 2);
        if nmi {
            assert_eq!(g.set_nmi().enter(), (Reason::TprBelowThreshold, 0));
            assert_eq!(g.field(GUEST_RIP), x86_bare::HANDLERS + 32 * 2);
        } else {
            assert_eq!(g.run_guest(&|_| Ok(())), End::Deadlock);
            assert!(g.vmx().in_guest);
        }
    }
}
