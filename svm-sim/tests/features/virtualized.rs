//! What a guest has of its own: virtual GIF and NMIs, last branches, SPEC_CTRL, the TSC; PAUSE filtering, the idle HLT intercept.

use iced_x86::code_asm::*;
use svm_sim::exit::code;
use svm_sim::vmcb::*;
use x86::control::rflags;
use x86::extension::Slot;
use x86_bare::{Bare, Code, KERNEL_CS, KERNEL_SS, Result};

use crate::base::{Base, intercept, on, read, svm};
use crate::guest::{exit_of, machine, run};

/// A virtual interrupt of this vector that V_TPR lets through.
const REQUEST: u64 = vintr::V_INTR_MASKING | vintr::V_IRQ | vintr::V_IGN_TPR | 0x40 << 32;

/// A guest with these bits of V_TPR and its like. Handlers halt, which exits.
fn vmcb(bits: u64) -> Vmcb {
    let mut v = Base::Long.vmcb();
    intercept(&mut v, code::HLT);
    intercept(&mut v, code::NMI);
    on(&mut v, VINTR, bits);
    on(&mut v, RFLAGS, rflags::IF);
    v
}

/// Runs a guest; the exit code, and V_TPR and its like.
fn outcome(v: &Vmcb, code: Code) -> (u64, u64) {
    let mut bare = machine("amd", v, code);
    (run(&mut bare), read(&bare, VINTR))
}

#[test]
fn the_virtual_gif_is_the_guests() {
    let enabled = |more| vmcb(vintr::V_GIF_ENABLE | more);
    assert_eq!(outcome(&enabled(vintr::V_GIF), &|a| a.clgi()), (code::VMMCALL, vintr::V_GIF_ENABLE));
    assert_eq!(outcome(&enabled(0), &|a| a.stgi()), (code::VMMCALL, vintr::V_GIF_ENABLE | vintr::V_GIF));
    // It holds virtual interrupts back.
    assert_eq!(outcome(&enabled(REQUEST), &|a| a.nop()).0, code::VMMCALL);
    let (exit, bits) = outcome(&enabled(REQUEST), &|a| {
        a.stgi()?;
        a.nop()
    });
    assert_eq!((exit, bits & vintr::V_IRQ), (code::HLT, 0));
    // Without it they are the processor's: nothing of the VMCB changes.
    let bits = REQUEST | vintr::V_GIF_ENABLE;
    let mut bare = machine("amd,-vnmi,-vgif", &vmcb(bits), &|a| a.stgi());
    assert_eq!((run(&mut bare), read(&bare, VINTR) & (vintr::V_GIF | vintr::V_IRQ)), (code::HLT, 0));
}

fn iret(a: &mut CodeAssembler) -> Result {
    let mut next = a.create_label();
    a.mov(rbx, rsp)?;
    a.push(KERNEL_SS as i32)?;
    a.push(rbx)?;
    a.pushfq()?;
    a.push(KERNEL_CS as i32)?;
    a.lea(rcx, ptr(next))?;
    a.push(rcx)?;
    a.iretq()?;
    a.set_label(&mut next)?;
    a.nop()
}

#[test]
fn a_virtual_nmi_is_taken_and_blocks_the_next() {
    use vintr::{V_NMI_BLOCKING, V_NMI_ENABLE, V_NMI_PENDING};
    let pending = V_NMI_ENABLE | V_NMI_PENDING;
    assert_eq!(outcome(&vmcb(pending), &|a| a.nop()), (code::HLT, V_NMI_ENABLE | V_NMI_BLOCKING));
    let blocked = pending | V_NMI_BLOCKING;
    assert_eq!(outcome(&vmcb(blocked), &|a| a.nop()), (code::VMMCALL, blocked));
    assert_eq!(outcome(&vmcb(blocked), &iret), (code::HLT, V_NMI_ENABLE | V_NMI_BLOCKING));
    assert_eq!(outcome(&vmcb(V_NMI_ENABLE | V_NMI_BLOCKING), &iret), (code::VMMCALL, V_NMI_ENABLE));
    // What the processor has not got is not looked at.
    let mut bare = machine("amd,-vnmi", &vmcb(pending), &|a| a.nop());
    assert_eq!((run(&mut bare), read(&bare, VINTR)), (code::VMMCALL, pending));
}

#[test]
fn last_branches_are_exchanged() {
    let branch: Code = &|a| {
        let mut next = a.create_label();
        a.jmp(next)?;
        a.nop()?;
        a.set_label(&mut next)?;
        a.nop()
    };
    let mut v = Base::Long.vmcb();
    v.set(DBGCTL, 1);
    v.set(BR_TO, 0x1234);
    let mut bare = machine("amd", &v, branch);
    assert_eq!((run(&mut bare), read(&bare, BR_FROM), read(&bare, BR_TO)), (code::VMMCALL, 0, 0x1234));
    v.set(VIRTUALIZATION_CONTROL, more::LBR_VIRTUALIZATION_ENABLE);
    let mut bare = machine("amd", &v, branch);
    let at = read(&bare, RIP);
    assert_eq!((run(&mut bare), read(&bare, BR_FROM), read(&bare, BR_TO)), (code::VMMCALL, at, at + 3));
}

#[test]
fn spec_ctrl_is_the_vmcbs() {
    const STIBP: u64 = 2;
    let mut v = Base::Long.vmcb();
    v.set(SPEC_CTRL, STIBP);
    let mut bare = machine("amd", &v, &|a| {
        a.mov(ecx, 0x48)?;
        a.rdmsr()?;
        a.mov(ebx, eax)?;
        a.mov(eax, 1)?;
        a.wrmsr()?;
        a.mov(eax, ebx)
    });
    assert_eq!((run(&mut bare), read(&bare, RAX), read(&bare, SPEC_CTRL)), (code::VMMCALL, STIBP, 1));
}

#[test]
fn the_tsc_is_scaled_and_offset() {
    let tsc = |ratio: u64, offset: u64| {
        let mut v = Base::Long.vmcb();
        v.set(TSC_OFFSET, offset);
        let mut bare = machine("amd", &v, &|a| {
            a.rdtsc()?;
            a.shl(rdx, 32)?;
            a.or(rax, rdx)
        });
        let mut changed = svm(&bare).clone();
        changed.msrs.tsc_ratio = ratio;
        bare.cpu().extension = Slot::with(Box::new(changed));
        run(&mut bare);
        read(&bare, RAX)
    };
    let plain = tsc(1 << 32, 0);
    assert_ne!(plain, 0);
    assert_eq!((tsc(1 << 32, 1 << 40), tsc(1 << 33, 5)), (plain + (1 << 40), 2 * plain + 5));
}

/// A guest that pauses so often, with so many instructions in between.
fn pauses(count: u64, threshold: u64, times: u32, between: u32) -> u64 {
    let mut v = Base::Long.vmcb();
    intercept(&mut v, code::PAUSE);
    v.set(PAUSE_FILTER_COUNT, count);
    v.set(PAUSE_FILTER_THRESHOLD, threshold);
    exit_of("amd", &v, &move |a| {
        for _ in 0..times {
            a.pause()?;
            for _ in 0..between {
                a.nop()?;
            }
        }
        Ok(())
    })
}

#[test]
fn pauses_are_filtered() {
    assert_eq!(pauses(0, 0, 1, 0), code::PAUSE);
    assert_eq!(pauses(2, 0, 2, 0), code::VMMCALL);
    assert_eq!(pauses(2, 0, 3, 0), code::PAUSE);
    // Those that are far apart count anew.
    assert_eq!(pauses(1, 50, 3, 10), code::PAUSE);
    assert_eq!(pauses(1, 50, 3, 100), code::VMMCALL);
}

#[test]
fn an_idle_hlt_has_nothing_to_take() {
    let halts = |bits: u64| -> Bare {
        let mut v = Base::Long.vmcb();
        intercept(&mut v, code::IDLE_HLT);
        on(&mut v, VINTR, bits);
        let mut bare = machine("amd", &v, &|a| a.hlt());
        run(&mut bare);
        bare
    };
    let bare = halts(0);
    assert_eq!((svm(&bare).in_guest, read(&bare, EXITCODE)), (false, code::IDLE_HLT));
    // It waits though RFLAGS.IF keeps it from being taken.
    assert!(svm(&halts(REQUEST)).in_guest);
}
