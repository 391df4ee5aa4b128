//! Evaluation, delivery and the end of interrupts.

use iced_x86::code_asm::*;
use svm_sim::exit::code;
use svm_sim::vmcb::*;

use crate::base::{read, svm};
use crate::rig::*;

const ISR: u64 = 0x100;
const TMR: u64 = 0x180;
const IRR: u64 = 0x200;
const WRITE: u64 = 1 << 32;

fn sti(a: &mut CodeAssembler) -> Result {
    a.sti()?;
    a.nop()?;
    a.cli()
}

#[test]
fn what_is_requested_at_vmrun_is_taken() {
    let mut r = Rig::new(&sti);
    r.put_vector(IRR, 0x41).put_vector(IRR, 0x52);
    assert_eq!(r.enter()[0], code::VMMCALL);
    // The second waits: the first is not at its end.
    assert_eq!(r.taken(), [0x52]);
    assert!(r.has_vector(PAGE, ISR, 0x52) && r.has_vector(PAGE, IRR, 0x41) && !r.has_vector(PAGE, IRR, 0x52));
    assert_eq!(r.register(0xa0), 0x50);
}

#[test]
fn the_end_lets_the_next_come() {
    let mut r = Rig::new(&|a| {
        sti(a)?;
        store(a, 0xb0, 0)?;
        sti(a)
    });
    r.put_vector(IRR, 0x41).put_vector(IRR, 0x52);
    assert_eq!((r.enter()[0], r.taken()), (code::VMMCALL, vec![0x52, 0x41]));
    assert!(!r.has_vector(PAGE, ISR, 0x52) && r.has_vector(PAGE, ISR, 0x41));
}

#[test]
fn the_end_of_what_is_level_triggered_is_told() {
    let mut r = Rig::new(&|a| store(a, 0xb0, 0));
    r.put_vector(ISR, 0x61).put_vector(TMR, 0x61);
    assert_eq!(r.enter(), [code::AVIC_NOACCEL, WRITE | 0xb0, 0x61]);
    assert!(r.has_vector(PAGE, ISR, 0x61));
}

#[test]
fn the_end_of_nothing_is_nothing() {
    let mut r = Rig::new(&|a| store(a, 0xb0, 0));
    assert_eq!(r.enter()[0], code::VMMCALL);
}

/// VMRUN takes V_TPR, and not the TPR of the backing page.
#[test]
fn v_tpr_decides() {
    let mut r = Rig::new(&sti);
    r.put_vector(IRR, 0x41).set_register(0x80, 0xf0);
    assert_eq!((r.enter()[0], r.taken()), (code::VMMCALL, vec![0x41]));
    let mut r = Rig::new(&sti);
    let vintr = read(&r, VINTR);
    r.put_vector(IRR, 0x41).set_field(VINTR, vintr | 4);
    assert_eq!((r.enter()[0], r.taken()), (code::VMMCALL, vec![]));
}

#[test]
fn a_lower_priority_lets_it_come() {
    let mut r = Rig::new(&|a| {
        a.sti()?;
        a.nop()?;
        a.xor(eax, eax)?;
        a.mov(cr8, rax)
    });
    let vintr = read(&r, VINTR);
    r.put_vector(IRR, 0x41).set_field(VINTR, vintr | 4);
    assert_eq!((r.enter()[0], r.taken()), (code::VMMCALL, vec![0x41]));
}

#[test]
fn v_irq_does_not_count() {
    let mut r = Rig::new(&sti);
    let vintr = read(&r, VINTR);
    r.set_field(VINTR, vintr | vintr::V_IRQ | vintr::V_IGN_TPR | 0x77 << 32);
    assert_eq!((r.enter()[0], r.taken()), (code::VMMCALL, vec![]));
}

/// What somebody else writes to IRR is seen when the doorbell rings.
#[test]
fn irr_is_looked_at_when_the_doorbell_rings() {
    for rings in [false, true] {
        let mut r = Rig::new(&|a| {
            a.bts(dword_ptr(PAGE + IRR + 0x20), 1)?;
            if rings {
                a.mov(ecx, 0xc001_011bu32)?;
                a.xor(edx, edx)?;
                a.xor(eax, eax)?;
                a.wrmsr()?;
            }
            a.mov(ecx, 5000)?;
            let mut again = a.create_label();
            a.set_label(&mut again)?;
            a.dec(ecx)?;
            a.jnz(again)?;
            sti(a)
        });
        assert_eq!(r.enter()[0], code::VMMCALL);
        assert_eq!(r.taken(), if rings { vec![0x41] } else { vec![] });
    }
}

#[test]
fn the_doorbell_msr() {
    for (code, write) in [("amd", 1u64 << 32), ("amd,-avic", 0)] {
        let mut bare = x86_bare::Bare::new(code);
        svm_sim::register();
        bare.run(&|a| x86_bare::write_msr(a, 0xc001_011b, write));
        assert_eq!(bare.raised().0, 13, "{code}");
    }
    let mut bare = x86_bare::Bare::new("amd");
    bare.run(&|a| {
        a.mov(ecx, 0xc001_011bu32)?;
        a.rdmsr()
    });
    assert_eq!(bare.raised().0, 13);
}

#[test]
fn a_guest_that_halts_goes_on() {
    let mut r = Rig::new(&|a| {
        a.sti()?;
        a.hlt()
    })
    .with_other(&|a| {
        a.mov(dword_ptr(BAR + 0x310), 0)?;
        a.mov(dword_ptr(BAR + 0x300), 0x45)?;
        a.vmmcall()
    });
    assert_eq!((r.enter()[0], r.taken()), (code::VMMCALL, vec![0x45]));
    assert!(!svm(&r).in_guest);
}

#[test]
fn the_interrupt_window() {
    let mut r = Rig::new(&sti);
    r.put_vector(IRR, 0x41);
    let bits = read(&r, INTERCEPT_3);
    r.set_field(INTERCEPT_3, bits | 1 << 4);
    assert_eq!((r.enter()[0], r.taken()), (code::VINTR, vec![]));
    assert!(r.has_vector(PAGE, IRR, 0x41));
}
