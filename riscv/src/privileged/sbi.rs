//! The built-in firmware: a small SBI in Rust for machines that are started without one.

use emu_core::engine::{Hart, Step};

use crate::hart::Riscv;

type H<'a> = Hart<'a, Riscv>;

/// Message to a hart: a software interrupt.
pub const MESSAGE_IPI: u32 = 0x2000;
/// Message to a hart: start.
pub const MESSAGE_START: u32 = 0x2001;
/// Message to a hart: drop translations.
pub const MESSAGE_FENCE: u32 = 0x2002;

/// Puts a hart where firmware would leave it: at the kernel in supervisor mode, or stopped.
pub fn enter(_arch: &mut Riscv, _first: bool) {}

/// ECALL from supervisor mode.
pub(crate) fn call(_h: &mut H) -> Step {
    Ok(())
}

/// A hart has been started.
pub(crate) fn started(_h: &mut H, _value: u64) {}

/// Another hart asks for a fence.
pub(crate) fn fence(_h: &mut H, _value: u64) {}
