//! The x87 (SDM vol. 1, "Programming with the x87 FPU"; vol. 2 for each instruction).
//!
//! [`X87`] is the state; an instruction is a method of it, which takes the values that come from memory and returns those
//! that go there. The rest is the caller's:
//!
//! * A *waiting* instruction (all but FNINIT, FNCLEX, FNSTSW, FNSTCW, FNSTENV, FNSAVE and the pure loads of FXRSTOR and XRSTOR)
//!   begins with [`X87::is_pending`]: an exception that an earlier instruction left unmasked is raised now, as #MF.
//! * [`X87::note_instruction`] and [`X87::note_operand`] keep the last instruction and data pointers.
//! * What is stored is an `Option`: `None` where an unmasked exception keeps the instruction from writing. So that faults
//!   come before state, the caller finds out first whether the destination can be written.
//!
//! An exception sets its flag in the status word. Where it is masked, the instruction completes with the masked response.
//! Where it is not, ES and B are set; an invalid operation, denormal operand or division by zero then leaves the operands
//! as they were, an overflow or underflow of a result in a register delivers that with its exponent biased.
//!
//! Condition codes that the manual calls undefined do not change. Where AMD's processors and the SDM differ, the SDM is
//! right: a comparison with an exception that is not masked changes neither condition codes nor EFLAGS, FCOMI clears C1.
//! Where the SDM is silent, what an AMD processor does was measured: a denormal number is loaded even if that exception is
//! not masked; FST of a number that overflows or underflows, not masked, sets that flag only; FPREM of a NaN clears C2, and
//! keeps C0 and C3; FCMOVcc keeps C1.
//!
//! * [`arithmetic`] has FADD to FXTRACT, [`compare`] FCOM to FXAM, [`transfer`] loads, stores, constants, moves;
//! * [`control`] has FINIT, FCLEX, FLDCW, FINCSTP and so on, and MMX's effect, [`image`] FSTENV, FSAVE, FXSAVE;
//! * [`transcendental`] has FSIN to FYL2XP1.

pub mod arithmetic;
pub mod compare;
pub mod control;
mod elementary;
pub mod image;
mod quad;
pub mod transcendental;
pub mod transfer;

use emu_core::float::{self, Env, F32, F64, F80, Flags};
use serde::{Deserialize, Serialize};

/// The state of the x87.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct X87 {
    /// The control word.
    pub control: u16,
    /// The status word, with TOP.
    pub status: u16,
    /// Which of the registers R0 to R7 are in use, a bit each: the tag word as FXSAVE has it. What else FSTENV says of a
    /// register follows from its contents.
    pub tag: u8,
    /// The registers R0 to R7, 80 bits each. An MMX register is the low 64 bits of one.
    pub r: [u128; 8],
    /// The last instruction's opcode: 11 bits.
    pub opcode: u16,
    /// The last instruction's address.
    pub instruction: Pointer,
    /// The last operand's address.
    pub data: Pointer,
}

/// A far pointer.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug, Serialize, Deserialize)]
pub struct Pointer {
    /// The segment selector.
    pub selector: u16,
    /// The offset.
    pub offset: u64,
}

/// Bits of the status word.
pub mod status {
    /// Invalid operation.
    pub const IE: u16 = 1 << 0;
    /// Denormal operand.
    pub const DE: u16 = 1 << 1;
    /// Division by zero.
    pub const ZE: u16 = 1 << 2;
    /// Overflow.
    pub const OE: u16 = 1 << 3;
    /// Underflow.
    pub const UE: u16 = 1 << 4;
    /// Precision.
    pub const PE: u16 = 1 << 5;
    /// The six exceptions.
    pub const EXCEPTIONS: u16 = 0x3f;
    /// Stack fault: the invalid operation was one.
    pub const SF: u16 = 1 << 6;
    /// Exception summary: one is not masked.
    pub const ES: u16 = 1 << 7;
    /// Condition code 0.
    pub const C0: u16 = 1 << 8;
    /// Condition code 1: a result was rounded up; or, of a stack fault, it was an overflow.
    pub const C1: u16 = 1 << 9;
    /// Condition code 2.
    pub const C2: u16 = 1 << 10;
    /// Condition code 3.
    pub const C3: u16 = 1 << 14;
    /// All condition codes.
    pub const CC: u16 = C0 | C1 | C2 | C3;
    /// The number of the register that is ST(0).
    pub const TOP: u16 = 7 << 11;
    /// Busy: the same as ES.
    pub const B: u16 = 1 << 15;
}

use status::*;

/// The QNaN floating-point indefinite: the masked response to an invalid operation.
pub const INDEFINITE: u128 = 0xffff_c000_0000_0000_0000;

/// An operand of arithmetic and comparison.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Source {
    /// A register of the stack.
    St(usize),
    /// Single precision in memory.
    F32(u32),
    /// Double precision in memory.
    F64(u64),
    /// A word integer in memory.
    I16(i16),
    /// A doubleword integer in memory.
    I32(i32),
}

impl Default for X87 {
    /// The state after FNINIT.
    fn default() -> X87 {
        X87 {
            control: X87::INITIAL_CONTROL,
            status: 0,
            tag: 0,
            r: [0; 8],
            opcode: 0,
            instruction: Pointer::default(),
            data: Pointer::default(),
        }
    }
}

impl X87 {
    /// The control word after FNINIT: all exceptions masked, round to nearest, extended precision.
    pub const INITIAL_CONTROL: u16 = 0x037f;

    /// Whether a waiting instruction is to raise #MF instead.
    pub fn is_pending(&self) -> bool {
        self.status & ES != 0
    }

    /// Keeps where the last instruction was, and its opcode: the low three bits of the first byte, and the second.
    pub fn note_instruction(&mut self, selector: u16, offset: u64, opcode: u16) {
        self.instruction = Pointer { selector, offset };
        self.opcode = opcode & 0x7ff;
    }

    /// Keeps where the last operand in memory was.
    pub fn note_operand(&mut self, selector: u16, offset: u64) {
        self.data = Pointer { selector, offset };
    }

    /// The number of the register that is ST(0).
    pub fn top(&self) -> usize {
        usize::from((self.status & TOP) >> 11)
    }

    fn set_top(&mut self, top: usize) {
        self.status = self.status & !TOP | (top as u16 & 7) << 11;
    }

    /// The number of the register that is ST(i).
    fn number(&self, i: usize) -> usize {
        (self.top() + i) & 7
    }

    /// What ST(i) contains, in use or not.
    pub fn st(&self, i: usize) -> u128 {
        self.r[self.number(i)]
    }

    /// Whether ST(i) is not in use.
    pub fn is_empty(&self, i: usize) -> bool {
        self.tag >> self.number(i) & 1 == 0
    }

    fn set(&mut self, i: usize, value: u128) {
        let n = self.number(i);
        self.r[n] = value;
        self.tag |= 1 << n;
    }

    fn free(&mut self, i: usize) {
        self.tag &= !(1 << self.number(i));
    }

    fn push(&mut self, value: u128) {
        self.set_top(self.top() + 7);
        self.set(0, value);
    }

    fn pop(&mut self) {
        self.free(0);
        self.set_top(self.top() + 1);
    }

    /// What influences an operation.
    fn env(&self) -> Env {
        Env::x87(self.control)
    }

    fn is_masked(&self, exception: u16) -> bool {
        self.control & exception == exception
    }

    /// ES and B, as flags and masks are.
    fn update_summary(&mut self) {
        let unmasked = self.status & !self.control & EXCEPTIONS != 0;
        self.set_if(ES | B, unmasked);
    }

    fn set_if(&mut self, bits: u16, condition: bool) {
        self.status = if condition { self.status | bits } else { self.status & !bits };
    }

    fn set_condition_codes(&mut self, which: u16, to: u16) {
        self.status = self.status & !which | to & which;
    }

    /// Sets flags, and whether an exception is pending. Whether all of them are masked.
    fn raise(&mut self, flags: u16) -> bool {
        self.status |= flags;
        self.update_summary();
        self.is_masked(flags & EXCEPTIONS)
    }

    /// "Stack Overflow or Underflow Exception (#IS)": an operand is not there. Whether it is masked.
    fn stack_underflow(&mut self) -> bool {
        self.set_if(C1, false);
        self.raise(IE | SF)
    }

    /// "Stack Overflow or Underflow Exception (#IS)": there is no room. Whether it is masked.
    fn stack_overflow(&mut self) -> bool {
        self.set_if(C1, true);
        self.raise(IE | SF)
    }

    /// Takes the flags of an operation, and C1. Whether its result may be written: no exception that is found before the
    /// computation is unmasked. If one is, there are no flags of the computation.
    fn accrue(&mut self, raised: Flags) -> bool {
        let flags = u16::from(raised.to_x86());
        let before = flags & (IE | DE | ZE);
        if before & !self.control != 0 {
            self.set_if(C1, false);
            self.raise(before);
            return false;
        }
        self.set_if(C1, raised.contains(Flags::ROUNDED_UP));
        self.raise(flags);
        true
    }

    /// An operand in extended precision, unchanged; and whether it was denormal in a shorter format. `None` where it is a
    /// register that is not in use.
    fn source(&self, source: Source) -> Option<(u128, bool)> {
        let exact = &mut Env::x87(X87::INITIAL_CONTROL);
        Some(match source {
            Source::St(i) if self.is_empty(i) => return None,
            Source::St(i) => (self.st(i), false),
            Source::F32(x) if float::is_nan::<F32>(x) => {
                (u128::from(x >> 31) << 79 | 0x7fff << 64 | 1 << 63 | u128::from(x & 0x007f_ffff) << 40, false)
            }
            Source::F32(x) => (float::convert::<F32, F80>(x, exact), exact.flags.contains(Flags::DENORMAL)),
            Source::F64(x) if float::is_nan::<F64>(x) => {
                (u128::from(x >> 63) << 79 | 0x7fff << 64 | 1 << 63 | u128::from(x & (u64::MAX >> 12)) << 11, false)
            }
            Source::F64(x) => (float::convert::<F64, F80>(x, exact), exact.flags.contains(Flags::DENORMAL)),
            Source::I16(x) => (float::from_i32::<F80>(x.into(), exact), false),
            Source::I32(x) => (float::from_i32::<F80>(x, exact), false),
        })
    }
}
