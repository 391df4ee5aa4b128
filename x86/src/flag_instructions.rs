//! CLI, STI, PUSHF and POPF: RFLAGS as a whole, and what stands for IF in virtual-8086 mode and under CR4.PVI (SDM vol. 2; vol. 3B, "Interrupt and
//! Exception Handling in Virtual-8086 Mode").

use emu_core::engine::Step;
use emu_core::engine::flags::Size;

use crate::control::{cr0, cr4, rflags};
use crate::exception::Exception;
use crate::extension::{Intercept, ask_before};
use crate::far;
use crate::frame::Stack;
use crate::processor::{P, ProcessorExt};
use crate::registers::{RSP, temp};
use crate::system::size_of;

/// How CLI and STI go: for IF itself, for VIF in its place (CR4.VME, CR4.PVI), or not at all.
#[derive(PartialEq, Eq)]
enum InterruptFlag {
    Real,
    Virtual,
}

fn interrupt_flag(h: &P) -> Step<InterruptFlag> {
    let (cpl, iopl) = (h.arch.cpl(), h.arch.iopl());
    let has_virtual = if h.arch.is_v8086() {
        h.arch.cr4 & cr4::VME != 0
    } else {
        h.arch.cr4 & cr4::PVI != 0 && cpl == 3 && h.arch.is_protected()
    };
    if h.arch.cr0 & cr0::PE == 0 || cpl <= iopl {
        Ok(InterruptFlag::Real)
    } else if has_virtual {
        Ok(InterruptFlag::Virtual)
    } else {
        Err(Exception::gp(0).into())
    }
}

pub(crate) fn cli(h: &mut P, _: u32) -> Step {
    match interrupt_flag(h)? {
        InterruptFlag::Real => h.arch.rflags &= !rflags::IF,
        InterruptFlag::Virtual => h.arch.rflags &= !rflags::VIF,
    }
    Ok(())
}

/// STI: no interrupt comes before the next instruction, if IF was clear.
pub(crate) fn sti(h: &mut P, _: u32) -> Step {
    if interrupt_flag(h)? == InterruptFlag::Virtual {
        h.fault_if(h.arch.rflags & rflags::VIP != 0, Exception::gp(0))?;
        h.arch.rflags |= rflags::VIF;
    } else if h.arch.rflags & rflags::IF == 0 {
        h.arch.rflags |= rflags::IF;
        h.arch.shadow = Some(h.core.retired() + 1);
        h.core.check_interrupts = true;
    }
    Ok(())
}

/// PUSHF: RF and VM are pushed as 0. In virtual-8086 mode IOPL counts, and CR4.VME shows VIF as IF.
pub(crate) fn pushf(h: &mut P, size: u32) -> Step {
    ask_before(h, || Intercept::Pushf)?;
    let mut value = h.rflags() & !(rflags::RF | rflags::VM);
    if h.arch.is_v8086() && h.arch.iopl() < 3 {
        h.fault_if(h.arch.cr4 & cr4::VME == 0 || size != 2, Exception::gp(0))?;
        let vif = if value & rflags::VIF != 0 { rflags::IF } else { 0 };
        value = value & !rflags::IF | vif | 3 << 12;
    }
    h.set_reg(temp::FIRST, value);
    Ok(())
}

/// POPF (SDM vol. 2B, "POPF/POPFD/POPFQ", table of EFLAGS changes). Its intercept comes before the stack is looked at.
pub(crate) fn popf(h: &mut P, operand: u32) -> Step {
    ask_before(h, || Intercept::Popf)?;
    let (size, stack) = (size_of(operand), Stack::present(h));
    let (value, sp) = (stack.peek(h, 0, size)?, stack.moved(operand.into()));
    let mut mask = far::changeable(h, size) & !rflags::RF;
    let mut cleared = rflags::RF;
    let mut set_flags = 0;
    if h.arch.is_v8086() && h.arch.iopl() < 3 {
        h.fault_if(h.arch.cr4 & cr4::VME == 0 || size != Size::Bits16, Exception::gp(0))?;
        let wants = value & rflags::IF != 0;
        h.fault_if(value & rflags::TF != 0 || wants && h.arch.rflags & rflags::VIP != 0, Exception::gp(0))?;
        mask &= !rflags::IF;
        cleared |= rflags::VIF;
        set_flags = if wants { rflags::VIF } else { 0 };
    } else if size != Size::Bits16 && !h.arch.is_v8086() {
        cleared |= rflags::VIF | rflags::VIP;
    }
    let new = h.rflags() & !(mask | cleared) | value & mask | set_flags;
    h.set_reg(RSP, sp);
    h.set_rflags(new);
    Ok(())
}
