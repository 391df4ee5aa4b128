//! What *envcfg and the TW bits allow to instructions that are not privileged themselves.

use emu_core::engine::Step;

use super::csr::{envcfg, hstatus, mstatus};
use super::virtual_instruction;
use crate::hart::Priv;
use crate::isa::{H, Insn, illegal};

/// What a cache-block instruction does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CacheBlock {
    /// CBO.INVAL.
    Invalidate,
    /// CBO.CLEAN and CBO.FLUSH.
    Clean,
    /// CBO.ZERO.
    Zero,
}

/// Whether a cache-block instruction may be executed here: *envcfg (Machine Environment Configuration Register, and the
/// tables of the Zicbom and Zicboz chapters).
pub fn require_cache_block(h: &H, what: CacheBlock) -> Step {
    let allows = |register: u64| match what {
        CacheBlock::Invalidate => envcfg::CBIE.of(register) != 0,
        CacheBlock::Clean => envcfg::CBCFE.is(register),
        CacheBlock::Zero => envcfg::CBZE.is(register),
    };
    let c = &h.arch.csr;
    let (mode, v) = (h.arch.mode, h.arch.v);
    if mode != Priv::Machine && !allows(c.menvcfg) || !v && mode == Priv::User && !allows(c.senvcfg) {
        return illegal();
    }
    if v && (!allows(c.henvcfg()) || mode == Priv::User && !allows(c.senvcfg)) {
        return virtual_instruction();
    }
    Ok(())
}

/// WRS.NTO waits without a bound, so TW and VTW forbid it (volume I, "Zawrs"). WRS.STO is bounded.
pub fn require_wrs(h: &H, insn: Insn) -> Step {
    const WRS_NTO: u32 = 0x00d0_0073;
    if insn.0 != WRS_NTO || h.arch.mode == Priv::Machine {
        return Ok(());
    }
    if mstatus::TW.is(h.arch.csr.mstatus) {
        return illegal();
    }
    if h.arch.v && hstatus::VTW.is(h.arch.csr.hstatus) {
        return virtual_instruction();
    }
    Ok(())
}
