//! The privileged architecture (The RISC-V Instruction Set Manual, volume II).

mod aia;
pub mod counters;
pub mod csr;
pub mod csr_access;
mod environment;
mod instructions;
mod interrupt;
mod mmu;
mod pmp;
pub mod sbi;
mod trap;

pub use csr_access::CSR_NAMES;
pub use environment::{CacheBlock, require_cache_block, require_wrs};
pub use instructions::ROWS;
pub use interrupt::{NMI_PIN, irq};
pub(crate) use interrupt::{has_reason_to_wake, signal, take_interrupt, tick, wakes_at};
pub use mmu::{Addresses, View, WalkStep, debug_translate, debug_walk};
pub(crate) use mmu::{access_fault, space, walk};
pub use pmp::PmpRange;
pub(crate) use trap::take_exception;
pub use trap::{INTERRUPT_REASONS, cause_name, interrupt_name};

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

use emu_core::engine::{Step, Stop};

/// A virtual-instruction exception for this instruction.
pub fn virtual_instruction<T>() -> Step<T> {
    Err(Stop::exception(cause::VIRTUAL_INSTRUCTION, 0))
}
