//! "B" Extension for Bit Manipulation: Zba, Zbb, Zbc, Zbs, and what scalar cryptography shares with it: Zbkb, Zbkc, Zbkx.

use emu_core::engine::Step;
use emu_core::engine::uop::{BinaryOp, Operand, UnaryOp};

use super::Does::{Call, Lift};
use super::{H, Insn, Lifting, Row, TEMP, row};
use crate::cpu::Ext;

const ZBA: &[Ext] = &[Ext::Zba];
const ZBB: &[Ext] = &[Ext::Zbb];
const ZBB_ZBKB: &[Ext] = &[Ext::Zbb, Ext::Zbkb];
const ZBC: &[Ext] = &[Ext::Zbc];
const ZBC_ZBKC: &[Ext] = &[Ext::Zbc, Ext::Zbkc];
const ZBS: &[Ext] = &[Ext::Zbs];
const ZBKB: &[Ext] = &[Ext::Zbkb];
const ZBKX: &[Ext] = &[Ext::Zbkx];

pub(crate) const ROWS: &[Row] = &[
    row("0000100 ..... ..... 000 ..... 0111011", "add.uw", ZBA, Lift(|l, i| l.reg(i, BinaryOp::AddU32))),
    row("0010000 ..... ..... 010 ..... 0110011", "sh1add", ZBA, Lift(|l, i| l.reg(i, BinaryOp::Shl1Add))),
    row("0010000 ..... ..... 100 ..... 0110011", "sh2add", ZBA, Lift(|l, i| l.reg(i, BinaryOp::Shl2Add))),
    row("0010000 ..... ..... 110 ..... 0110011", "sh3add", ZBA, Lift(|l, i| l.reg(i, BinaryOp::Shl3Add))),
    row("0010000 ..... ..... 010 ..... 0111011", "sh1add.uw", ZBA, Lift(|l, i| unsigned_word(l, i, BinaryOp::Shl1Add))),
    row("0010000 ..... ..... 100 ..... 0111011", "sh2add.uw", ZBA, Lift(|l, i| unsigned_word(l, i, BinaryOp::Shl2Add))),
    row("0010000 ..... ..... 110 ..... 0111011", "sh3add.uw", ZBA, Lift(|l, i| unsigned_word(l, i, BinaryOp::Shl3Add))),
    row("000010 ...... ..... 001 ..... 0011011", "slli.uw", ZBA, Lift(|l, i| l.shamt(i, BinaryOp::ShlU32))),
    row("0100000 ..... ..... 111 ..... 0110011", "andn", ZBB_ZBKB, Lift(|l, i| l.reg(i, BinaryOp::AndNot))),
    row("0100000 ..... ..... 110 ..... 0110011", "orn", ZBB_ZBKB, Lift(|l, i| l.reg(i, BinaryOp::OrNot))),
    row("0100000 ..... ..... 100 ..... 0110011", "xnor", ZBB_ZBKB, Lift(|l, i| l.reg(i, BinaryOp::Xnor))),
    row("011000000000 ..... 001 ..... 0010011", "clz", ZBB, Lift(|l, i| l.unary(i, UnaryOp::Clz))),
    row("011000000000 ..... 001 ..... 0011011", "clzw", ZBB, Lift(|l, i| l.unary(i, UnaryOp::ClzW))),
    row("011000000001 ..... 001 ..... 0010011", "ctz", ZBB, Lift(|l, i| l.unary(i, UnaryOp::Ctz))),
    row("011000000001 ..... 001 ..... 0011011", "ctzw", ZBB, Lift(|l, i| l.unary(i, UnaryOp::CtzW))),
    row("011000000010 ..... 001 ..... 0010011", "cpop", ZBB, Lift(|l, i| l.unary(i, UnaryOp::Popcount))),
    row("011000000010 ..... 001 ..... 0011011", "cpopw", ZBB, Lift(|l, i| l.unary(i, UnaryOp::PopcountW))),
    row("011000000100 ..... 001 ..... 0010011", "sext.b", ZBB, Lift(|l, i| l.unary(i, UnaryOp::Sext8))),
    row("011000000101 ..... 001 ..... 0010011", "sext.h", ZBB, Lift(|l, i| l.unary(i, UnaryOp::Sext16))),
    row("0000101 ..... ..... 110 ..... 0110011", "max", ZBB, Lift(|l, i| l.reg(i, BinaryOp::Max))),
    row("0000101 ..... ..... 111 ..... 0110011", "maxu", ZBB, Lift(|l, i| l.reg(i, BinaryOp::Maxu))),
    row("0000101 ..... ..... 100 ..... 0110011", "min", ZBB, Lift(|l, i| l.reg(i, BinaryOp::Min))),
    row("0000101 ..... ..... 101 ..... 0110011", "minu", ZBB, Lift(|l, i| l.reg(i, BinaryOp::Minu))),
    row("0110000 ..... ..... 001 ..... 0110011", "rol", ZBB_ZBKB, Lift(|l, i| l.reg(i, BinaryOp::Rol))),
    row("0110000 ..... ..... 001 ..... 0111011", "rolw", ZBB_ZBKB, Lift(|l, i| l.reg(i, BinaryOp::RolW))),
    row("0110000 ..... ..... 101 ..... 0110011", "ror", ZBB_ZBKB, Lift(|l, i| l.reg(i, BinaryOp::Ror))),
    row("0110000 ..... ..... 101 ..... 0111011", "rorw", ZBB_ZBKB, Lift(|l, i| l.reg(i, BinaryOp::RorW))),
    row("011000 ...... ..... 101 ..... 0010011", "rori", ZBB_ZBKB, Lift(|l, i| l.shamt(i, BinaryOp::Ror))),
    row("0110000 ..... ..... 101 ..... 0011011", "roriw", ZBB_ZBKB, Lift(|l, i| l.shamt(i, BinaryOp::RorW))),
    row("001010000111 ..... 101 ..... 0010011", "orc.b", ZBB, Lift(|l, i| l.unary(i, UnaryOp::OrCombine))),
    row("011010111000 ..... 101 ..... 0010011", "rev8", ZBB_ZBKB, Lift(|l, i| l.unary(i, UnaryOp::ByteReverse))),
    row("0000101 ..... ..... 001 ..... 0110011", "clmul", ZBC_ZBKC, Lift(|l, i| l.reg(i, BinaryOp::ClMul))),
    row("0000101 ..... ..... 011 ..... 0110011", "clmulh", ZBC_ZBKC, Lift(|l, i| l.reg(i, BinaryOp::ClMulHigh))),
    row("0000101 ..... ..... 010 ..... 0110011", "clmulr", ZBC, Lift(|l, i| l.reg(i, BinaryOp::ClMulReversed))),
    row("0100100 ..... ..... 001 ..... 0110011", "bclr", ZBS, Lift(|l, i| l.reg(i, BinaryOp::BitClear))),
    row("010010 ...... ..... 001 ..... 0010011", "bclri", ZBS, Lift(|l, i| l.shamt(i, BinaryOp::BitClear))),
    row("0100100 ..... ..... 101 ..... 0110011", "bext", ZBS, Lift(|l, i| l.reg(i, BinaryOp::BitTest))),
    row("010010 ...... ..... 101 ..... 0010011", "bexti", ZBS, Lift(|l, i| l.shamt(i, BinaryOp::BitTest))),
    row("0110100 ..... ..... 001 ..... 0110011", "binv", ZBS, Lift(|l, i| l.reg(i, BinaryOp::BitInvert))),
    row("011010 ...... ..... 001 ..... 0010011", "binvi", ZBS, Lift(|l, i| l.shamt(i, BinaryOp::BitInvert))),
    row("0010100 ..... ..... 001 ..... 0110011", "bset", ZBS, Lift(|l, i| l.reg(i, BinaryOp::BitSet))),
    row("001010 ...... ..... 001 ..... 0010011", "bseti", ZBS, Lift(|l, i| l.shamt(i, BinaryOp::BitSet))),
    row("0000100 ..... ..... 100 ..... 0110011", "pack", ZBKB, Lift(|l, i| l.reg(i, BinaryOp::Pack32))),
    row("0000100 ..... ..... 111 ..... 0110011", "packh", ZBKB, Call(|h, i| two(h, i, packh))),
    // ZEXT.H of Zbb is PACKW with x0.
    row("0000100 ..... ..... 100 ..... 0111011", "packw", ZBB_ZBKB, Call(packw)),
    row("011010000111 ..... 101 ..... 0010011", "brev8", ZBKB, Call(|h, i| two(h, i, |x, _| brev8(x)))),
    row("0010100 ..... ..... 010 ..... 0110011", "xperm4", ZBKX, Call(|h, i| two(h, i, |x, y| xperm(x, y, 4)))),
    row("0010100 ..... ..... 100 ..... 0110011", "xperm8", ZBKX, Call(|h, i| two(h, i, |x, y| xperm(x, y, 8)))),
];

/// rs1's low word is zero-extended before the operation.
fn unsigned_word(l: &mut Lifting, i: Insn, op: BinaryOp) {
    if i.rd() != 0 {
        l.lift.unary(UnaryOp::Zext32, TEMP, i.rs1());
        l.lift.binary(op, i.rd(), TEMP, Operand::Reg(i.rs2()));
    }
}

fn two(h: &mut H, i: Insn, f: impl Fn(u64, u64) -> u64) -> Step {
    let value = f(h.core.regs[usize::from(i.rs1())], h.core.regs[usize::from(i.rs2())]);
    if i.rd() != 0 {
        h.core.regs[usize::from(i.rd())] = value;
    }
    Ok(())
}

fn packh(x: u64, y: u64) -> u64 {
    x & 0xff | (y & 0xff) << 8
}

fn packw(h: &mut H, i: Insn) -> Step {
    if i.rs2() != 0 && !h.arch.cpu.has(Ext::Zbkb) {
        return super::illegal();
    }
    if i.rs2() == 0 && !h.arch.cpu.has(Ext::Zbb) && !h.arch.cpu.has(Ext::Zbkb) {
        return super::illegal();
    }
    two(h, i, |x, y| (x as u16 as u32 | (y as u32) << 16) as i32 as i64 as u64)
}

/// Bits of each byte in reverse order.
fn brev8(x: u64) -> u64 {
    x.swap_bytes().reverse_bits()
}

/// Looks up each field of `bits` bits of `indices` in the fields of `table`; 0 where there is none.
fn xperm(table: u64, indices: u64, bits: u32) -> u64 {
    let mask = (1 << bits) - 1;
    (0..64).step_by(bits as usize).fold(0, |out, at| {
        let index = (indices >> at & mask) as u32 * bits;
        let field = if index < 64 { table >> index & mask } else { 0 };
        out | field << at
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hand_checked_values() {
        assert_eq!(brev8(0x0180_0f00_0000_0002), 0x8001_f000_0000_0040);
        assert_eq!(xperm(0xfedc_ba98_7654_3210, 0x0123_4567_89ab_cdef, 4), 0x0123_4567_89ab_cdef);
        assert_eq!(xperm(0x1122_3344_5566_7788, 0x0007_08ff_0100_0000, 8), 0x8811_0000_7788_8888);
        assert_eq!(packh(0x12, 0xff34), 0x3412);
    }
}
