//! "SYSCALL and SYSRET", "SYSENTER and SYSEXIT", SWAPGS (SDM vol. 3A, "Fast System Calls in 64-Bit Mode"; vol. 2B).

use emu_core::engine::Step;

use crate::control::{cr0, efer, rflags};
use crate::exception::Exception;
use crate::processor::{P, ProcessorExt, segments};
use crate::registers::{GS_BASE, RCX, RDX, RSP};
use crate::segment::{Attributes, Segment};
use crate::{ibt, shadow_stack};

/// A flat code segment, and the stack segment of the same level, as fast system calls load them.
fn flat_segments(h: &mut P, code_selector: u16, stack_selector: u16, cpl: u8, is_64: bool) {
    let dpl = u32::from(cpl) << 5;
    let size = if is_64 { 0xa09b } else { 0xc09b };
    let code = Segment { selector: code_selector, base: 0, limit: u32::MAX, attributes: Attributes(size | dpl) };
    let stack = Segment { selector: stack_selector, base: 0, limit: u32::MAX, attributes: Attributes(0xc093 | dpl) };
    h.set_segment(segments::CS, code);
    h.set_segment(segments::SS, stack);
}

/// RFLAGS.TF counts as it is behind SYSCALL and SYSRET: a kernel that masks it is not stepped, the program that it returns to is.
fn step_by_new_flags(h: &mut P) {
    h.arch.step_from = h.arch.is_stepped().then(|| h.core.retired());
}

/// SYSCALL (SDM vol. 2B; APM vol. 3): of 64-bit mode; with AMD also of compatibility mode, and of legacy mode, which has it from STAR alone.
pub(crate) fn syscall(h: &mut P, _: u32) -> Step {
    let is_intel = h.arch.model.is_intel();
    h.fault_if(h.arch.efer & efer::SCE == 0 || is_intel && !h.arch.is_64(), Exception::UD)?;
    let (flags, is_long) = (h.rflags() & !rflags::RF, h.arch.is_long());
    let next = h.ip(h.core.next_pc);
    h.set_reg(RCX, next);
    let (target, new) = if is_long {
        h.set_reg(11, flags);
        (if h.arch.is_64() { h.arch.lstar } else { h.arch.cstar() }, flags & !h.arch.fmask)
    } else {
        (h.arch.star & 0xffff_ffff, flags & !(rflags::VM | rflags::IF))
    };
    let selector = (h.arch.star >> 32) as u16 & !3;
    shadow_stack::enter_fast(h);
    h.set_rflags(new);
    flat_segments(h, selector, selector.wrapping_add(8), 0, is_long);
    ibt::wait(h, 0);
    h.core.next_pc = target;
    step_by_new_flags(h);
    Ok(())
}

/// SYSRET: from 64-bit mode to 64-bit code, or to compatibility mode; with AMD also from the other modes, to 32-bit code.
pub(crate) fn sysret(h: &mut P, size: u32) -> Step {
    let is_intel = h.arch.model.is_intel();
    h.fault_if(h.arch.efer & efer::SCE == 0 || is_intel && !h.arch.is_64(), Exception::UD)?;
    h.fault_if(!h.arch.is_protected(), Exception::gp(0))?;
    h.require_cpl_0()?;
    let (target, to_64) = (h.reg(RCX), size == 8);
    h.fault_if(to_64 && is_intel && !h.arch.controls().is_canonical(target), Exception::gp(0))?;
    let flags = if h.arch.is_64() { h.reg(11) & !(rflags::RF | rflags::VM) } else { h.rflags() | rflags::IF };
    let base = (h.arch.star >> 48) as u16;
    let code = base.wrapping_add(if to_64 { 16 } else { 0 }) | 3;
    h.set_rflags(flags);
    flat_segments(h, code, base.wrapping_add(8) | 3, 3, to_64);
    shadow_stack::leave_fast(h);
    h.core.next_pc = if to_64 { target } else { target & 0xffff_ffff };
    step_by_new_flags(h);
    Ok(())
}

/// SYSENTER (SDM vol. 2B).
pub(crate) fn sysenter(h: &mut P, _: u32) -> Step {
    let selector = h.arch.sysenter_cs as u16 & !3;
    h.fault_if(h.arch.cr0 & cr0::PE == 0 || selector == 0, Exception::gp(0))?;
    let is_long = h.arch.is_long();
    shadow_stack::enter_fast(h);
    h.arch.rflags &= !(rflags::VM | rflags::IF);
    flat_segments(h, selector, selector.wrapping_add(8), 0, is_long);
    ibt::wait(h, 0);
    let mask = if is_long { u64::MAX } else { 0xffff_ffff };
    h.set_reg(RSP, h.arch.sysenter_esp & mask);
    h.core.next_pc = h.arch.sysenter_eip & mask;
    Ok(())
}

/// SYSEXIT, to 64-bit code with a size of 8.
pub(crate) fn sysexit(h: &mut P, size: u32) -> Step {
    let selector = h.arch.sysenter_cs as u16 & !3;
    h.fault_if(h.arch.cr0 & cr0::PE == 0 || selector == 0, Exception::gp(0))?;
    h.require_cpl_0()?;
    let (target, sp, to_64) = (h.reg(RDX), h.reg(RCX), size == 8);
    if to_64 {
        let c = h.arch.controls();
        h.fault_if(!c.is_canonical(target) || !c.is_canonical(sp), Exception::gp(0))?;
    }
    let offset = if to_64 { 32 } else { 16 };
    flat_segments(h, selector.wrapping_add(offset) | 3, selector.wrapping_add(offset + 8) | 3, 3, to_64);
    shadow_stack::leave_fast(h);
    let mask = if to_64 { u64::MAX } else { 0xffff_ffff };
    h.set_reg(RSP, sp & mask);
    h.core.next_pc = target & mask;
    Ok(())
}

pub(crate) fn swapgs(h: &mut P, _: u32) -> Step {
    h.require_cpl_0()?;
    let gs = &mut h.core.regs[usize::from(GS_BASE)];
    std::mem::swap(gs, &mut h.arch.kernel_gs_base);
    Ok(())
}
