//! Cache-block management (Zicbom, Zicboz). There is no cache to manage, so what remains are rights, faults and zeroes.

use emu_core::engine::{Intent, Step, Stop};

use super::Does::Call;
use super::{H, Insn, Row, row};
use crate::cpu::{CACHE_BLOCK, Ext};
use crate::privileged::{CacheBlock, cause, require_cache_block};

pub(crate) const ROWS: &[Row] = &[
    row(
        "000000000000 ..... 010 00000 0001111",
        "cbo.inval",
        &[Ext::Zicbom],
        Call(|h, i| manage(h, i, CacheBlock::Invalidate)),
    ),
    row(
        "000000000001 ..... 010 00000 0001111",
        "cbo.clean",
        &[Ext::Zicbom],
        Call(|h, i| manage(h, i, CacheBlock::Clean)),
    ),
    row(
        "000000000010 ..... 010 00000 0001111",
        "cbo.flush",
        &[Ext::Zicbom],
        Call(|h, i| manage(h, i, CacheBlock::Clean)),
    ),
    row("000000000100 ..... 010 00000 0001111", "cbo.zero", &[Ext::Zicboz], Call(zero)),
];

/// CBO.INVAL, CBO.CLEAN, CBO.FLUSH: allowed where a load or a store is; faults are those of a store.
fn manage(h: &mut H, i: Insn, what: CacheBlock) -> Step {
    require_cache_block(h, what)?;
    let va = h.core.regs[usize::from(i.rs1())];
    let as_store = |stop: Stop| match stop.code() {
        cause::LOAD_PAGE => Stop::exception(cause::STORE_PAGE, stop.value),
        cause::LOAD_ACCESS => Stop::exception(cause::STORE_ACCESS, stop.value),
        cause::LOAD_GUEST_PAGE => Stop::exception(cause::STORE_GUEST_PAGE, stop.value),
        _ => stop,
    };
    h.resolve(va, 1, Intent::Read, 0).map(|_| ()).map_err(as_store)
}

/// CBO.ZERO: the address of a fault is that of the instruction, not of the block.
fn zero(h: &mut H, i: Insn) -> Step {
    require_cache_block(h, CacheBlock::Zero)?;
    let va = h.core.regs[usize::from(i.rs1())];
    h.resolve(va, 1, Intent::Write, 0)?;
    let block = va & !(CACHE_BLOCK - 1);
    for offset in (0..CACHE_BLOCK).step_by(8) {
        h.store(block + offset, 8, 0, 0).map_err(|stop| stop.with_value(va))?;
    }
    Ok(())
}
