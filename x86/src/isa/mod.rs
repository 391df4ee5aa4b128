//! Instructions, grouped as SDM vol. 1, chapter 5, "Instruction Set Summary" groups them. iced-x86 decodes; each mnemonic has
//! one function, for all its forms and sizes.
//!
//! The data path becomes micro-ops. What is rarer is computed by a plain function on plain values ([`compute`]), for which
//! operands are brought into registers first: so no function below knows whether an operand was in memory.

mod arithmetic;
mod bits;
pub mod compute;
mod control;
mod operands;
mod shift;
mod stack;
mod string;
mod transfer;
mod vector;
mod x87;

use emu_core::engine::flags::{FlagCond, Size};
use emu_core::engine::{Lift, Step};
use iced_x86::{Code, ConditionCode, Instruction, Mnemonic, OpKind, Register};

use crate::extension;
use crate::mode::Mode;
use crate::processor::P;
use crate::xsave;

pub use operands::{Memory, Place};

/// The hand with which an instruction is lifted.
pub struct Lifting<'a> {
    /// Takes the micro-ops.
    pub lift: &'a mut Lift,
    /// What iced-x86 has decoded.
    pub insn: &'a Instruction,
    /// The mode that it is lifted for.
    pub mode: &'a Mode,
    /// How far POP will have moved RSP when its operand's address is made.
    popped: u8,
}

/// The mnemonic is of no group that is lifted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unknown;

/// Lifts an instruction, which was decoded with its instruction pointer. An error leaves nothing behind.
pub fn lift(lift: &mut Lift, insn: &Instruction, mode: &Mode) -> Result<(), Unknown> {
    let mut l = Lifting::new(lift, insn, mode);
    transfer::lift(&mut l)
        .or_else(|Unknown| arithmetic::lift(&mut l))
        .or_else(|Unknown| shift::lift(&mut l))
        .or_else(|Unknown| bits::lift(&mut l))
        .or_else(|Unknown| string::lift(&mut l))
        .or_else(|Unknown| control::lift(&mut l))
        .or_else(|Unknown| vector::lift(&mut l))
        .or_else(|Unknown| x87::lift(&mut l))
        .or_else(|Unknown| xsave::lift(&mut l))
}

/// Function numbers of calls from here on are [`call`]'s.
pub(crate) const FIRST: u16 = 0x1000;

/// Runs a call of the instructions on vectors, of the x87, or of those that save and restore their state.
#[inline]
pub(crate) fn call(h: &mut P, function: u16, operand: u32) -> Step {
    match function {
        xsave::FIRST.. => xsave::call(h, function, operand),
        x87::FIRST.. => x87::call(h, function, operand),
        _ => vector::call(h, function, operand),
    }
}

/// Lifts an instruction of a virtualization extension's own.
pub(crate) fn lift_own(lift: &mut Lift, insn: &Instruction, mode: &Mode, opcode: u8) {
    let mut l = Lifting::new(lift, insn, mode);
    // An operand that cannot be addressed is none that the extension looks for.
    let _ = l.address_in_register();
    let register = |i: u32| {
        if i < insn.op_count() && insn.op_kind(i) == OpKind::Memory {
            return u32::from(extension::IN_MEMORY);
        }
        let r = if i < insn.op_count() { insn.op_register(i) } else { Register::None };
        if r.is_gpr() { r.full_register().number() as u32 } else { 0 }
    };
    lift.call_and_end(extension::FUNCTION, u32::from(opcode) | register(0) << 8 | register(1) << 16);
}

/// What a condition code asks of the flags, and whether its opposite is meant (SDM vol. 1, "EFLAGS Condition Codes").
pub(crate) fn condition(code: ConditionCode) -> Option<(FlagCond, bool)> {
    use ConditionCode as C;
    Some(match code {
        C::o => (FlagCond::Overflow, false),
        C::no => (FlagCond::Overflow, true),
        C::b => (FlagCond::Carry, false),
        C::ae => (FlagCond::Carry, true),
        C::e => (FlagCond::Zero, false),
        C::ne => (FlagCond::Zero, true),
        C::be => (FlagCond::CarryOrZero, false),
        C::a => (FlagCond::CarryOrZero, true),
        C::s => (FlagCond::Sign, false),
        C::ns => (FlagCond::Sign, true),
        C::p => (FlagCond::Parity, false),
        C::np => (FlagCond::Parity, true),
        C::l => (FlagCond::Less, false),
        C::ge => (FlagCond::Less, true),
        C::le => (FlagCond::LessOrEqual, false),
        C::g => (FlagCond::LessOrEqual, true),
        C::None => return None,
    })
}

/// The size of this many bytes.
pub(crate) fn size_of(bytes: usize) -> Option<Size> {
    Some(match bytes {
        1 => Size::Bits8,
        2 => Size::Bits16,
        4 => Size::Bits32,
        8 => Size::Bits64,
        _ => return None,
    })
}

impl<'a> Lifting<'a> {
    /// A hand for one instruction.
    pub(crate) fn new(lift: &'a mut Lift, insn: &'a Instruction, mode: &'a Mode) -> Self {
        Lifting { lift, insn, mode, popped: 0 }
    }

    /// A hand for another instruction, of which a part is wanted.
    pub(crate) fn with<'b>(&'b mut self, insn: &'b Instruction) -> Lifting<'b> {
        Lifting { lift: self.lift, insn, mode: self.mode, popped: self.popped }
    }

    fn mnemonic(&self) -> Mnemonic {
        self.insn.mnemonic()
    }

    fn code(&self) -> Code {
        self.insn.code()
    }

    /// Linear address of the instruction.
    fn here(&self) -> u64 {
        self.mode.linear(self.insn.ip())
    }

    /// Linear address of the next instruction.
    pub(crate) fn next(&self) -> u64 {
        self.mode.linear(self.insn.next_ip())
    }
}
