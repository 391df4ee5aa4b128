//! Shadow stack management instructions (SDM vol. 2, "INCSSPD/INCSSPQ", "SAVEPREVSSP", "RSTORSSP", "WRSSD/WRSSQ", "WRUSSD/WRUSSQ",
//! "SETSSBSY", "CLRSSBSY"). RDSSP is lifted: where there is no shadow stack it does nothing.

use emu_core::engine::Step;
use emu_core::engine::flags::{CARRY, Flags};

use crate::cet::ControlProtection;
use crate::control::{cr4, user_cet};
use crate::exception::Exception;
use crate::model::Feature;
use crate::processor::{P, ProcessorExt, flags, set_flags};
use crate::processor_instructions::Operand;
use crate::registers::{SSP, temp};
use crate::shadow_stack::{exchange, load, require_store, store};

/// #UD unless the present level has a shadow stack.
fn require_shadow_stack(h: &P) -> Step {
    h.fault_if(!h.arch.has_shadow_stack(), Exception::UD)
}

/// Likewise at level 0, where one must be.
fn require_supervisor(h: &P) -> Step {
    h.fault_if(h.arch.is_v8086() || !h.arch.has_shadow_stack_at(0), Exception::UD)?;
    h.require_cpl_0()
}

/// The linear address of the operand in memory, aligned.
fn address(h: &P, alignment: u8) -> Step<u64> {
    let at = h.reg(temp::ADDRESS);
    h.fault_if(at & u64::from(alignment - 1) != 0, Exception::gp(0))?;
    Ok(at)
}

/// Only CF tells; the other arithmetic flags are clear.
fn set_carry(h: &mut P, carry: bool) {
    set_flags(&mut h.core.regs, Flags::eager(if carry { CARRY } else { 0 }));
}

/// INCSSPD, INCSSPQ: pops up to 255 entries; the first and the last of them are looked at.
pub(crate) fn incssp(h: &mut P, o: Operand) -> Step {
    require_shadow_stack(h)?;
    let (ssp, size, cpl) = (h.reg(SSP), o.size(), h.arch.cpl());
    let count = h.core.regs[o.register()] & 0xff;
    load(h, ssp, size, cpl)?;
    load(h, ssp.wrapping_add((count.max(1) - 1) * u64::from(size)), size, cpl)?;
    h.set_reg(SSP, ssp.wrapping_add(count * u64::from(size)));
    Ok(())
}

/// SAVEPREVSSP: pops the previous-ssp token, and leaves a restore token on the shadow stack that it names.
pub(crate) fn saveprevssp(h: &mut P, _: Operand) -> Step {
    require_shadow_stack(h)?;
    let (mut ssp, cpl, is_64) = (h.reg(SSP), h.arch.cpl(), h.arch.is_64());
    let gp = Exception::gp(0);
    h.fault_if(ssp & 7 != 0, gp)?;
    let token = load(h, ssp, 8, cpl)?;
    ssp = ssp.wrapping_add(8);
    // RSTORSSP has said whether there is a hole below the token, which 64-bit code leaves none of.
    if flags(&h.core.regs).all() & CARRY != 0 {
        h.fault_if(is_64, gp)?;
        let hole = load(h, ssp, 4, cpl)?;
        h.fault_if(hole != 0, gp)?;
        ssp = ssp.wrapping_add(4);
    }
    h.fault_if(token & 2 == 0 || !is_64 && token >> 32 != 0, gp)?;
    let old = token & !3;
    let restore = (old & !7).wrapping_sub(8);
    require_store(h, old.wrapping_sub(4), 4, cpl)?;
    require_store(h, restore, 8, cpl)?;
    store(h, old.wrapping_sub(4), 4, 0, cpl)?;
    store(h, restore, 8, old | u64::from(is_64), cpl)?;
    h.set_reg(SSP, ssp);
    Ok(())
}

/// RSTORSSP: switches to the shadow stack with the restore token in memory, which becomes a previous-ssp token.
pub(crate) fn rstorssp(h: &mut P, _: Operand) -> Step {
    require_shadow_stack(h)?;
    let (at, cpl, is_64) = (address(h, 8)?, h.arch.cpl(), h.arch.is_64());
    // As a locked exchange has it, the page must be a shadow stack's even if the token is none.
    require_store(h, at, 8, cpl)?;
    let token = load(h, at, 8, cpl)?;
    let is_of_mode = token & 3 == u64::from(is_64) && (is_64 || token >> 32 == 0);
    let is_here = (token & !1).wrapping_sub(8) & !7 == at;
    h.fault_if(!is_of_mode || !is_here, ControlProtection::Rstorssp.into())?;
    store(h, at, 8, h.reg(SSP) | 2 | u64::from(is_64), cpl)?;
    h.set_reg(SSP, at);
    set_carry(h, token & 4 != 0);
    Ok(())
}

/// WRSSD, WRSSQ: writes to a shadow stack of the present mode.
pub(crate) fn wrss(h: &mut P, o: Operand) -> Step {
    require_shadow_stack(h)?;
    h.fault_if(h.arch.cet_now() & user_cet::WR_SHSTK_EN == 0, Exception::UD)?;
    let at = address(h, o.size())?;
    store(h, at, o.size(), h.core.regs[o.register()], h.arch.cpl())
}

/// WRUSSD, WRUSSQ: the kernel writes to a shadow stack of user mode.
pub(crate) fn wruss(h: &mut P, o: Operand) -> Step {
    let is_there = h.arch.cr4 & cr4::CET != 0 && h.arch.model.has(Feature::Shstk) && h.arch.is_protected();
    h.fault_if(!is_there, Exception::UD)?;
    h.require_cpl_0()?;
    let at = address(h, o.size())?;
    store(h, at, o.size(), h.core.regs[o.register()], 3)
}

/// SETSSBSY: takes the shadow stack of IA32_PL0_SSP.
pub(crate) fn setssbsy(h: &mut P, _: Operand) -> Step {
    require_supervisor(h)?;
    let ssp = h.arch.cet.ssp[0];
    h.fault_if(ssp & 7 != 0, Exception::gp(0))?;
    let is_free = exchange(h, ssp, ssp, ssp | 1, 0)?;
    h.fault_if(!is_free, ControlProtection::Setssbsy.into())?;
    h.set_reg(SSP, ssp);
    Ok(())
}

/// CLRSSBSY: frees a shadow stack. CF tells that its token was not busy, or none.
pub(crate) fn clrssbsy(h: &mut P, _: Operand) -> Step {
    require_supervisor(h)?;
    let at = address(h, 8)?;
    let was_busy = exchange(h, at, at | 1, at, 0)?;
    h.set_reg(SSP, 0);
    set_carry(h, !was_busy);
    Ok(())
}
