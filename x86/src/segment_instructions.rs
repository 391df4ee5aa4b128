//! MOV, POP and LDS to segment registers, and MOV from them (SDM vol. 2, under their names).

use emu_core::engine::Step;

use crate::exception::Exception;
use crate::frame::Stack;
use crate::processor::{P, ProcessorExt, segments};
use crate::protection::{self, Refusal};
use crate::registers::{RSP, temp};
use crate::system::{first, set, size_of};

/// MOV to a segment register, and LDS and its kin (bit 31), which write the general register in bits 23 to 16 too: from THIRD, of the size in
/// bits 7 to 0.
pub(crate) fn mov_to_segment(h: &mut P, operand: u32) -> Step {
    let (segment, selector) = ((operand >> 8 & 7) as usize, first(h) as u16);
    h.fault_if(segment == segments::CS, Exception::UD)?;
    protection::load(h, segment, selector, Refusal::GP)?;
    if operand >> 31 != 0 {
        let r = (operand >> 16 & 15) as u8;
        let value = size_of(operand).merge(h.reg(r), h.reg(temp::THIRD));
        set(h, r, value);
    } else if segment == segments::SS {
        shadow_of_ss(h);
    }
    Ok(())
}

/// POP to a segment register: the stack pointer moves by the size in bits 7 to 0.
pub(crate) fn load_segment(h: &mut P, operand: u32) -> Step {
    let segment = (operand >> 8 & 7) as usize;
    let sp = Stack::present(h).moved(i64::from(operand & 0xff));
    protection::load(h, segment, first(h) as u16, Refusal::GP)?;
    set(h, RSP, sp);
    if segment == segments::SS {
        shadow_of_ss(h);
    }
    Ok(())
}

/// Interrupts and debug traps wait for the next instruction ("Masking Exceptions and Interrupts When Switching Stacks").
fn shadow_of_ss(h: &mut P) {
    let next = h.core.retired() + 1;
    // Of two in a row the second has none.
    if h.arch.shadow != Some(next - 1) {
        h.arch.shadow = Some(next);
        h.arch.shadow_holds_traps = true;
    }
}

pub(crate) fn mov_from_segment(h: &mut P, operand: u32) -> Step {
    let selector = h.arch.segments[(operand >> 8 & 7) as usize].selector;
    set(h, temp::FIRST, selector.into());
    Ok(())
}
