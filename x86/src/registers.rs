//! Where the processor's registers stand in the engine's register file.

/// RAX. The sixteen general registers stand in the order of their encoding (SDM vol. 2A, "Instruction Format").
pub const RAX: u8 = 0;
/// RCX.
pub const RCX: u8 = 1;
/// RDX.
pub const RDX: u8 = 2;
/// RBX.
pub const RBX: u8 = 3;
/// RSP.
pub const RSP: u8 = 4;
/// RBP.
pub const RBP: u8 = 5;
/// RSI.
pub const RSI: u8 = 6;
/// RDI.
pub const RDI: u8 = 7;
/// Base address of the segment in FS.
pub const FS_BASE: u8 = 16;
/// Base address of the segment in GS.
pub const GS_BASE: u8 = 17;
/// Always 0.
pub const ZERO: u8 = 18;
/// Which way strings go: 0, or all ones where RFLAGS.DF is set.
pub const DIRECTION: u8 = 19;
/// MXCSR.
pub const MXCSR: u8 = 20;
/// SSP, the shadow stack pointer.
pub const SSP: u8 = 21;
/// Vector registers: four words each, the low one first.
pub const VECTORS: u8 = 32;
/// Registers that a snapshot holds.
pub const COUNT: usize = 96;

/// Temporaries of an instruction: values of its operands, first and second, a result, an address, conditions.
pub mod temp {
    /// What the first operand holds, or a result for it.
    pub const FIRST: u8 = 200;
    /// What the second operand holds.
    pub const SECOND: u8 = 201;
    /// A third value.
    pub const THIRD: u8 = 202;
    /// An address.
    pub const ADDRESS: u8 = 203;
    /// A part of an address.
    pub const INDEX: u8 = 204;
    /// A condition.
    pub const TEST: u8 = 205;
    /// An operand of a vector instruction in memory: four words.
    pub const VECTOR: u8 = 208;
    /// The address of an instruction.
    pub const TARGET: u8 = 206;
    /// Where words of vectors stand aside: four.
    pub const ASIDE: u8 = 212;
}
