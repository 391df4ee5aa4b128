//! Events from outside and their like: word 3's first bits, shutdown, task switches, INIT that becomes #SX.

use emu_core::bus::VcpuSignal;
use emu_core::engine::Arch;
use svm_sim::exit::code::*;
use svm_sim::vmcb::{RFLAGS, VINTR, vintr};
use x86::control::rflags;
use x86::processor::X86;
use x86_bare::*;

use crate::base::{Base, GUEST, machine, on, read};
use crate::case::{Case, of};

/// One of no instruction: it comes before the guest's first.
const fn event(code: u64) -> Case {
    of(code, |a| a.nop()).without_next()
}

/// The processor's own, vector 40H.
fn interrupt(bare: &mut Bare) {
    let mut h = bare.at_work();
    x86::apic::write(&mut h, 0xf0, 4, 0x1ff);
    x86::apic::write(&mut h, 0x300, 4, 1 << 18 | 0x40);
}

fn signal(bare: &mut Bare, pin: u32) {
    X86::signal(&mut bare.at_work(), VcpuSignal::Pin { pin, level: true });
}

/// The host's GIF and interrupt flag hold them until VMRUN.
fn held(bare: &mut Bare, what: impl FnOnce(&mut Bare)) {
    bare.assemble(CODE, &|a| {
        a.clgi()?;
        a.sti()?;
        a.vmrun()?;
        a.hlt()
    });
    what(bare);
    // GIF is 0 from the start.
    let slot = &mut bare.cpu().extension;
    let mut svm = slot.get().unwrap().as_any().downcast_ref::<svm_sim::Svm>().unwrap().clone();
    svm.gif = false;
    *slot = x86::extension::Slot::with(Box::new(svm));
}

/// A descriptor of a TSS at selector 40H, for JMP.
fn other_task(bare: &mut Bare) {
    bare.put(GDT + 0x40, 0x0000_8900_0000_0067 | (TSS + 0x100) << 16);
    bare.cpu().tr = x86::segment::Segment {
        selector: TSS_SELECTOR as u16,
        base: TSS,
        limit: 0x67,
        attributes: x86::segment::Attributes(0x8b),
    };
}

#[rustfmt::skip]
pub const ALL: &[Case] = &[
    event(INTR).vmcb(|v| on(v, RFLAGS, rflags::IF)).prepare(|bare| held(bare, interrupt)),
    event(INTR).vmcb(|v| on(v, VINTR, vintr::V_INTR_MASKING)).prepare(|bare| held(bare, interrupt)),
    event(NMI).prepare(|bare| held(bare, |bare| bare.cpu().pending.nmi = true)),
    event(SMI).prepare(|bare| held(bare, |bare| signal(bare, x86::apic::pin::SMI))).info(1 << 32, 0),
    event(INIT).prepare(|bare| held(bare, |bare| signal(bare, x86::apic::pin::INIT))),
    event(VIRTUAL).vmcb(|v| {
        on(v, RFLAGS, rflags::IF);
        on(v, VINTR, vintr::V_IRQ | 0x40 << 32 | 4 << 16);
    }),
    event(SHUTDOWN).vmcb(|v| v.set(svm_sim::vmcb::IDTR_LIMIT, 0)).prepare(|bare| {
        bare.assemble(GUEST, &|a| a.ud2());
    }),
    of(TASK_SWITCH, |a| a.db(&[0xea, 0, 0, 0, 0, 0x40, 0])).in_base(Base::Protected).prepare(other_task).without_next()
        .info(0x40, 1 << 38),
    of(TASK_SWITCH, |a| a.db(&[0x9a, 0, 0, 0, 0, 0x40, 0])).in_base(Base::Protected).prepare(other_task).without_next()
        .info(0x40, 0),
];
const VIRTUAL: u64 = svm_sim::exit::code::VINTR;

/// With VM_CR.R_INIT an INIT is a security exception, which has an intercept of its own; its error code is 1.
#[test]
fn init_redirected_is_a_security_exception() {
    let mut v = Base::Long.vmcb();
    crate::base::intercept(&mut v, EXCEPTION + 30);
    let mut bare = machine("amd", &v);
    held(&mut bare, |bare| signal(bare, x86::apic::pin::INIT));
    let slot = &mut bare.cpu().extension;
    let mut svm = slot.get().unwrap().as_any().downcast_ref::<svm_sim::Svm>().unwrap().clone();
    svm.msrs.vm_cr |= svm_sim::msr::vm_cr::R_INIT;
    *slot = x86::extension::Slot::with(Box::new(svm));
    bare.machine.run(1000);
    assert_eq!(read(&bare, svm_sim::vmcb::EXITCODE), EXCEPTION + 30);
    assert_eq!(read(&bare, svm_sim::vmcb::EXITINFO1), 1);
}

/// A virtual interrupt whose priority is not above V_TPR waits; V_IGN_TPR lets it through.
#[test]
fn virtual_interrupts_and_their_priority() {
    let exit = |bits: u64| {
        let mut v = Base::Long.vmcb();
        crate::base::intercept(&mut v, VIRTUAL);
        on(&mut v, RFLAGS, rflags::IF);
        on(&mut v, VINTR, vintr::V_INTR_MASKING | vintr::V_IRQ | 0x40 << 32 | bits);
        let mut bare = machine("amd", &v);
        bare.machine.run(1000);
        read(&bare, svm_sim::vmcb::EXITCODE)
    };
    assert_eq!(exit(4 << 16 | 3), VIRTUAL);
    assert_eq!(exit(4 << 16 | 4), VMMCALL);
    assert_eq!(exit(4 << 16 | 4 | vintr::V_IGN_TPR), VIRTUAL);
}
