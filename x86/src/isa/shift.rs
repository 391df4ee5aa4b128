//! "Shift and Rotate Instructions" (SDM vol. 1, 5.1.5), and those of BMI2.

use emu_core::engine::alu::AluOp;
use emu_core::engine::flags::Size;
use emu_core::engine::uop::{BinaryOp, Operand};
use iced_x86::Mnemonic;

use super::compute::Compute;
use super::{Lifting, Place, Unknown};
use crate::registers::temp;

pub(super) fn lift(l: &mut Lifting) -> Result<(), Unknown> {
    match l.mnemonic() {
        Mnemonic::Shl | Mnemonic::Sal => shift(l, AluOp::Shl, AluOp::ShlBy),
        Mnemonic::Shr => shift(l, AluOp::Shr, AluOp::ShrBy),
        Mnemonic::Sar => shift(l, AluOp::Sar, AluOp::SarBy),
        Mnemonic::Rol => shift(l, AluOp::Rol, AluOp::Rol),
        Mnemonic::Ror => shift(l, AluOp::Ror, AluOp::Ror),
        Mnemonic::Rcl => through_carry(l, Compute::Rcl),
        Mnemonic::Rcr => through_carry(l, Compute::Rcr),
        Mnemonic::Shld => double(l, Compute::Shld),
        Mnemonic::Shrd => double(l, Compute::Shrd),
        Mnemonic::Shlx => without_flags(l, BinaryOp::Shl),
        Mnemonic::Shrx => without_flags(l, BinaryOp::Shr),
        Mnemonic::Sarx => without_flags(l, BinaryOp::Sar),
        Mnemonic::Rorx => rorx(l),
        _ => Err(Unknown),
    }
}

/// What of a count counts.
fn mask(size: Size) -> u64 {
    if size == Size::Bits64 { 63 } else { 31 }
}

/// SAL, SHL, SHR, SAR, ROL, ROR: by a constant that is not 0, or by what may be 0.
fn shift(l: &mut Lifting, by_constant: AluOp, by_any: AluOp) -> Result<(), Unknown> {
    let size = l.size(0)?;
    let (to, count) = (l.place(0)?, l.place(1)?);
    let (first, to) = l.read_to_update(to, size, temp::FIRST);
    let (op, count) = match count {
        Place::Immediate(count) if count & mask(size) != 0 => (by_constant, Operand::Imm((count & mask(size)) as i32)),
        _ => {
            let count = l.read(count, Size::Bits8, temp::SECOND);
            l.lift.binary(BinaryOp::And, temp::SECOND, count, Operand::Imm(mask(size) as i32));
            (by_any, Operand::Reg(temp::SECOND))
        }
    };
    l.update_by(op, size, to, first, count);
    Ok(())
}

/// RCL, RCR.
fn through_carry(l: &mut Lifting, what: Compute) -> Result<(), Unknown> {
    let size = l.size(0)?;
    let (to, count) = (l.place(0)?, l.place(1)?);
    let (first, to) = l.read_to_update(to, size, temp::FIRST);
    l.move_to(temp::FIRST, first);
    l.bring(count, Size::Bits8, temp::SECOND);
    l.compute(what, size);
    l.write(to, size, temp::FIRST);
    Ok(())
}

/// SHLD, SHRD.
fn double(l: &mut Lifting, what: Compute) -> Result<(), Unknown> {
    let size = l.size(0)?;
    let (to, from, count) = (l.place(0)?, l.place(1)?, l.place(2)?);
    let (first, to) = l.read_to_update(to, size, temp::FIRST);
    l.move_to(temp::FIRST, first);
    l.bring(from, size, temp::THIRD);
    l.bring(count, Size::Bits8, temp::SECOND);
    l.compute(what, size);
    l.write(to, size, temp::FIRST);
    Ok(())
}

/// SHLX, SHRX, SARX.
fn without_flags(l: &mut Lifting, op: BinaryOp) -> Result<(), Unknown> {
    let size = l.size(0)?;
    let (to, from, count) = (l.place(0)?, l.place(1)?, l.place(2)?);
    l.read_extended(from, size, op == BinaryOp::Sar, temp::FIRST);
    let count = l.read(count, size, temp::SECOND);
    l.lift.binary(BinaryOp::And, temp::SECOND, count, Operand::Imm(mask(size) as i32));
    l.lift.binary(op, temp::FIRST, temp::FIRST, Operand::Reg(temp::SECOND));
    l.write(to, size, temp::FIRST);
    Ok(())
}

/// RORX.
fn rorx(l: &mut Lifting) -> Result<(), Unknown> {
    let size = l.size(0)?;
    let (to, from, count) = (l.place(0)?, l.place(1)?, l.place(2)?);
    let Place::Immediate(count) = count else { return Err(Unknown) };
    let value = l.read(from, size, temp::FIRST);
    let op = if size == Size::Bits64 { BinaryOp::Ror } else { BinaryOp::RorW };
    l.lift.binary(op, temp::FIRST, value, Operand::Imm((count & mask(size)) as i32));
    l.write(to, size, temp::FIRST);
    Ok(())
}
