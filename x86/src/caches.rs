//! Instructions about caches, and stores that pass them by. There are no caches to be seen here: what is left is rights, and what is
//! stored.

use emu_core::engine::{Intent, Step};

use crate::control::{cr4, efer};
use crate::exception::Exception;
use crate::extension::{self, Intercept, ask_after, ask_before};
use crate::model::Feature;
use crate::monitor::linear;
use crate::processor::{P, ProcessorExt};
use crate::processor_instructions::Operand;
use crate::registers::temp;

/// The size of a line, in bytes.
pub(crate) const LINE: u64 = 64;

fn address(h: &P) -> u64 {
    h.core.regs[usize::from(temp::ADDRESS)]
}

/// CLFLUSH, CLFLUSHOPT, CLWB (SDM vol. 2A): the rights of a load of a byte.
pub(crate) fn clflush(h: &mut P, _: Operand) -> Step {
    let at = address(h);
    h.resolve(at, 1, Intent::Read, 0).map(drop)
}

/// WBINVD (SDM vol. 2D).
pub(crate) fn wbinvd(h: &mut P, _: Operand) -> Step {
    h.require_cpl_0()?;
    ask_after(h, || Intercept::Wbinvd)
}

/// WBNOINVD (SDM vol. 2D).
pub(crate) fn wbnoinvd(h: &mut P, _: Operand) -> Step {
    h.require_cpl_0()?;
    ask_after(h, || Intercept::Wbnoinvd)
}

/// INVD (SDM vol. 2A).
pub(crate) fn invd(h: &mut P, _: Operand) -> Step {
    h.require_cpl_0()?;
    ask_after(h, || Intercept::Invd)
}

/// MCOMMIT (APM vol. 3): no store fails, so CF is clear.
pub(crate) fn mcommit(h: &mut P, _: Operand) -> Step {
    h.fault_if(h.arch.efer & efer::MCOMMIT == 0, Exception::UD)?;
    ask_after(h, || Intercept::Mcommit)?;
    extension::set_arithmetic_flags(h, 0);
    Ok(())
}

/// Eight words of a line, or a fault before any is written.
fn store_line(h: &mut P, at: u64, words: [u64; 8]) -> Step {
    h.resolve(at, 8, Intent::Write, 0)?;
    for (i, word) in words.into_iter().enumerate() {
        h.store(at.wrapping_add(8 * i as u64), 8, word, 0)?;
    }
    Ok(())
}

/// CLZERO (APM vol. 3).
pub(crate) fn clzero(h: &mut P, o: Operand) -> Step {
    let at = linear(h, o) & !(LINE - 1);
    store_line(h, at, [0; 8])
}

/// MOVDIRI (SDM vol. 2B).
pub(crate) fn movdiri(h: &mut P, o: Operand) -> Step {
    let (at, value) = (address(h), h.core.regs[o.register()]);
    h.store(at, o.size(), value, 0)
}

/// MOVDIR64B (SDM vol. 2B): to ES, at an address that is aligned to a line.
pub(crate) fn movdir64b(h: &mut P, o: Operand) -> Step {
    let from = address(h);
    let to = linear(h, o.in_es());
    h.fault_if(!to.is_multiple_of(LINE), Exception::gp(0))?;
    let mut words = [0; 8];
    for (i, word) in words.iter_mut().enumerate() {
        *word = h.load(from.wrapping_add(8 * i as u64), 8, 0)?;
    }
    store_line(h, to, words)
}

/// INVPCID (SDM vol. 2A). Global translations are dropped with the others.
pub(crate) fn invpcid(h: &mut P, o: Operand) -> Step {
    extension::require_enabled(h, Feature::Invpcid)?;
    h.require_cpl_0()?;
    let kind = h.core.regs[o.register()];
    let kind = if o.size() == 4 { kind & 0xffff_ffff } else { kind };
    let at = address(h);
    let what = Intercept::Invpcid { register: o.register() as u8, address: at };
    ask_before(h, || what)?;
    let (descriptor, address) = (h.load(at, 8, 0)?, h.load(at.wrapping_add(8), 8, 0)?);
    h.fault_if(kind > 3, Exception::gp(0))?;
    h.fault_if(descriptor >> 12 != 0, Exception::gp(0))?;
    let no_pcids = h.arch.cr4 & cr4::PCIDE == 0;
    h.fault_if(kind < 2 && no_pcids && descriptor != 0, Exception::gp(0))?;
    h.fault_if(kind == 0 && !h.arch.is_canonical_in_registers(address), Exception::gp(0))?;
    ask_after(h, || what)?;
    let mmu = &mut h.core.mmu;
    match kind {
        0 => mmu.drop_page(address, |k| k.0 >> 8 & 0xfff == descriptor),
        1 => mmu.drop_spaces(|k| k.0 >> 8 & 0xfff == descriptor),
        _ => mmu.drop_spaces(|_| true),
    }
    h.core.spaces_changed = true;
    h.core.leave = true;
    Ok(())
}
