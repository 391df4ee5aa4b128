//! Instructions on descriptor tables and their registers, and those that look at descriptors (SDM vol. 3A, "System Instruction Summary").

use emu_core::engine::{Intent, Step};

use crate::control_registers::require_no_umip;
use crate::exception::Exception;
use crate::extension::{Intercept, ask_before};
use crate::processor::{P, ProcessorExt};
use crate::protection::{self, Refusal};
use crate::registers::temp;
use crate::segment::Table;
use crate::system::{first, set};

/// A pseudo-descriptor; an offset of 2 bytes means a base of 24 bits.
fn load_table(h: &mut P, size: u32, instruction: u8) -> Step<Table> {
    h.require_cpl_0()?;
    let at = h.core.regs[usize::from(temp::ADDRESS)];
    ask_before(h, || Intercept::Gdtr { instruction, address: at })?;
    let limit = h.load(at, 2, 0)? as u16;
    let base = h.load(at.wrapping_add(2), if size == 8 { 8 } else { 4 }, 0)?;
    let base = if size == 2 { base & 0xff_ffff } else { base };
    h.fault_if(!h.arch.is_canonical_in_registers(base), Exception::gp(0))?;
    Ok(Table { base, limit })
}

pub(crate) fn lgdt(h: &mut P, size: u32) -> Step {
    h.arch.gdtr = load_table(h, size, 2)?;
    Ok(())
}

pub(crate) fn lidt(h: &mut P, size: u32) -> Step {
    h.arch.idtr = load_table(h, size, 3)?;
    Ok(())
}

fn store_table(h: &mut P, table: Table, size: u32, instruction: u8) -> Step {
    require_no_umip(h)?;
    let at = h.core.regs[usize::from(temp::ADDRESS)];
    ask_before(h, || Intercept::Gdtr { instruction, address: at })?;
    // All of its bytes are written, or none.
    let bytes = if size == 8 { 8 } else { 4 };
    h.resolve(at.wrapping_add(2), bytes, Intent::Write, 0)?;
    h.store(at, 2, table.limit.into(), 0)?;
    h.store(at.wrapping_add(2), bytes, table.base, 0)
}

pub(crate) fn sgdt(h: &mut P, size: u32) -> Step {
    store_table(h, h.arch.gdtr, size, 0)
}

pub(crate) fn sidt(h: &mut P, size: u32) -> Step {
    store_table(h, h.arch.idtr, size, 1)
}

pub(crate) fn lldt(h: &mut P, _: u32) -> Step {
    h.require_cpl_0()?;
    ask_before(h, || Intercept::Ldtr { instruction: 2 })?;
    protection::load_ldt(h, first(h) as u16, Refusal::GP)
}

pub(crate) fn ltr(h: &mut P, _: u32) -> Step {
    h.require_cpl_0()?;
    ask_before(h, || Intercept::Ldtr { instruction: 3 })?;
    protection::load_task_register(h, first(h) as u16)
}

pub(crate) fn sldt(h: &mut P, _: u32) -> Step {
    require_no_umip(h)?;
    ask_before(h, || Intercept::Ldtr { instruction: 0 })?;
    set(h, temp::FIRST, h.arch.ldtr.selector.into());
    Ok(())
}

pub(crate) fn str(h: &mut P, _: u32) -> Step {
    require_no_umip(h)?;
    ask_before(h, || Intercept::Ldtr { instruction: 1 })?;
    set(h, temp::FIRST, h.arch.tr.selector.into());
    Ok(())
}

/// Z tells whether there was something to see.
fn set_zero(h: &mut P, is: bool) {
    use emu_core::engine::flags::{Flags, ZERO};
    let all = crate::processor::flags(&h.core.regs).all();
    let new = Flags::eager(all & !ZERO | if is { ZERO } else { 0 });
    crate::processor::set_flags(&mut h.core.regs, new);
}

fn looked_up(h: &mut P, found: Option<u64>) {
    set_zero(h, found.is_some());
    set(h, temp::FIRST, found.unwrap_or(0));
}

pub(crate) fn lar(h: &mut P, _: u32) -> Step {
    let found = protection::access_rights(h, first(h) as u16)?;
    looked_up(h, found);
    Ok(())
}

pub(crate) fn lsl(h: &mut P, _: u32) -> Step {
    let found = protection::segment_limit(h, first(h) as u16)?;
    looked_up(h, found);
    Ok(())
}

pub(crate) fn verr(h: &mut P, _: u32) -> Step {
    let is = protection::verify(h, first(h) as u16, false)?;
    set_zero(h, is);
    Ok(())
}

pub(crate) fn verw(h: &mut P, _: u32) -> Step {
    let is = protection::verify(h, first(h) as u16, true)?;
    set_zero(h, is);
    Ok(())
}

/// ARPL: the RPL of FIRST becomes at least that of SECOND. What was less is written, to ADDRESS if the operand says so; else nothing is.
pub(crate) fn arpl(h: &mut P, is_memory: u32) -> Step {
    let (to, from) = (h.reg(temp::FIRST), h.reg(temp::SECOND));
    let is_less = to & 3 < from & 3;
    if is_less {
        let new = to & !3 | from & 3;
        set(h, temp::FIRST, new);
        if is_memory != 0 {
            let at = h.reg(temp::ADDRESS);
            h.store(at, 2, new & 0xffff, 0)?;
        }
    }
    set_zero(h, is_less);
    Ok(())
}
