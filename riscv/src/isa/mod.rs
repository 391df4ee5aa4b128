//! Instructions: one row each, a picture of its bits and what it does (The RISC-V Instruction Set Manual, volume I).
//!
//! The data path is lifted to micro-ops; everything else is a function that a micro-op calls. Compressed instructions are
//! expanded first, as the manual defines them.

mod atomic;
mod bitmanip;
mod cache;
mod compressed;
mod decode;
mod float;
mod integer;
mod multiply;

use emu_core::engine::{Hart, Lift, Step, Stop};

use crate::cpu::{CpuConfig, Ext};
use crate::hart::Riscv;
use crate::privileged;

pub use compressed::expand;
pub(crate) use decode::{call, lift};
pub use decode::{decode, rows};

/// A hart at work.
pub type H<'a> = Hart<'a, Riscv>;

/// The 32 bits of an instruction (of its expansion, if it is a compressed one).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Insn(pub u32);

impl Insn {
    /// Destination register.
    pub fn rd(self) -> u8 {
        (self.0 >> 7 & 31) as u8
    }
    /// First source register.
    pub fn rs1(self) -> u8 {
        (self.0 >> 15 & 31) as u8
    }
    /// Second source register.
    pub fn rs2(self) -> u8 {
        (self.0 >> 20 & 31) as u8
    }
    /// Third source register.
    pub fn rs3(self) -> u8 {
        (self.0 >> 27 & 31) as u8
    }
    /// Rounding mode field.
    pub fn rm(self) -> u8 {
        (self.0 >> 12 & 7) as u8
    }
    /// Immediate of I-type instructions.
    pub fn imm_i(self) -> i32 {
        self.0 as i32 >> 20
    }
    /// Immediate of S-type instructions.
    pub fn imm_s(self) -> i32 {
        self.0 as i32 >> 25 << 5 | (self.0 >> 7 & 31) as i32
    }
    /// Immediate of B-type instructions.
    pub fn imm_b(self) -> i32 {
        let x = self.0;
        x as i32 >> 31 << 12 | ((x >> 7 & 1) << 11 | (x >> 25 & 0x3f) << 5 | (x >> 8 & 15) << 1) as i32
    }
    /// Immediate of U-type instructions.
    pub fn imm_u(self) -> i32 {
        (self.0 & 0xffff_f000) as i32
    }
    /// Immediate of J-type instructions.
    pub fn imm_j(self) -> i32 {
        let x = self.0;
        x as i32 >> 31 << 20 | (x & 0xff000 | (x >> 20 & 1) << 11 | (x >> 21 & 0x3ff) << 1) as i32
    }
    /// Number of a CSR.
    pub fn csr(self) -> u16 {
        (self.0 >> 20) as u16
    }
}

/// What an instruction does.
#[derive(Clone, Copy)]
pub enum Does {
    /// It becomes micro-ops.
    Lift(fn(&mut Lifting, Insn)),
    /// It is a call of this function. Where that sets `core.leave`, the block ends behind it.
    Call(fn(&mut H, Insn) -> Step),
    /// It is a call of this function, after which anything may have changed: mode, rights, the program counter
    /// (`core.next_pc`).
    CallAndEnd(fn(&mut H, Insn) -> Step),
    /// It uses floating-point registers: as `Lift`, but illegal where FS is off.
    LiftFloat(fn(&mut Lifting, Insn)),
    /// As `Call`, but illegal where FS is off; makes FS dirty.
    CallFloat(fn(&mut H, Insn) -> Step),
}

/// An instruction.
#[derive(Clone, Copy)]
pub struct Row {
    /// Which bits are fixed.
    pub mask: u32,
    /// What they are.
    pub value: u32,
    /// The assembler's mnemonic.
    pub name: &'static str,
    /// Extensions that have it: any one of them is enough.
    pub ext: &'static [Ext],
    /// What it does.
    pub does: Does,
}

/// A row. The picture has 32 characters, from bit 31 down: 0, 1, or a point for any bit; blanks are for the eye.
pub const fn row(picture: &str, name: &'static str, ext: &'static [Ext], does: Does) -> Row {
    let (mut mask, mut value, mut bits, mut i) = (0u32, 0u32, 0, 0);
    let p = picture.as_bytes();
    while i < p.len() {
        if p[i] != b' ' {
            mask = mask << 1 | (p[i] != b'.') as u32;
            value = value << 1 | (p[i] == b'1') as u32;
            assert!(p[i] == b'.' || p[i] == b'0' || p[i] == b'1');
            bits += 1;
        }
        i += 1;
    }
    assert!(bits == 32, "a picture has 32 bits");
    Row { mask, value, name, ext, does }
}

/// The hand with which an instruction is lifted.
pub struct Lifting<'a> {
    /// Takes the micro-ops.
    pub lift: &'a mut Lift,
    /// Address of the instruction.
    pub pc: u64,
    /// Its length in bytes: 2 or 4.
    pub len: u8,
    /// What the hart has.
    pub cpu: &'a CpuConfig,
    fs_dirty: bool,
}

/// Where the floating-point registers stand in the register file: f0 is 32.
pub const F: u8 = 32;
/// Where an instruction's temporaries stand.
pub const TEMP: u8 = 64;

/// An illegal-instruction exception for this instruction (its own bits are filled in when the trap is taken).
pub fn illegal<T>() -> Step<T> {
    Err(Stop::exception(privileged::cause::ILLEGAL_INSTRUCTION, 0))
}
