//! The privileged architecture (The RISC-V Instruction Set Manual, volume II).

pub mod csr;

use crate::isa::{H, Insn, Row};
use emu_core::engine::Step;

/// Exception codes (Machine Cause Register).
pub mod cause {
    #![allow(missing_docs, reason = "the manual's names")]
    pub const INSTRUCTION_MISALIGNED: u32 = 0;
    pub const INSTRUCTION_ACCESS: u32 = 1;
    pub const ILLEGAL_INSTRUCTION: u32 = 2;
    pub const BREAKPOINT: u32 = 3;
    pub const LOAD_MISALIGNED: u32 = 4;
    pub const LOAD_ACCESS: u32 = 5;
    pub const STORE_MISALIGNED: u32 = 6;
    pub const STORE_ACCESS: u32 = 7;
    pub const ECALL_U: u32 = 8;
    pub const ECALL_S: u32 = 9;
    pub const ECALL_VS: u32 = 10;
    pub const ECALL_M: u32 = 11;
    pub const INSTRUCTION_PAGE: u32 = 12;
    pub const LOAD_PAGE: u32 = 13;
    pub const STORE_PAGE: u32 = 15;
    pub const DOUBLE_TRAP: u32 = 16;
    pub const INSTRUCTION_GUEST_PAGE: u32 = 20;
    pub const LOAD_GUEST_PAGE: u32 = 21;
    pub const VIRTUAL_INSTRUCTION: u32 = 22;
    pub const STORE_GUEST_PAGE: u32 = 23;
}

/// Privileged instructions.
pub const ROWS: &[Row] = &[];

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

/// Whether a cache-block instruction may be executed here: *envcfg (volume II, "Machine Environment Configuration
/// Register").
pub fn require_cache_block(_h: &H, _what: CacheBlock) -> Step {
    Ok(())
}

/// WRS.NTO: illegal or virtual where TW or VTW says so (volume I, "Zawrs").
pub fn require_wrs(_h: &H, _insn: Insn) -> Step {
    Ok(())
}
