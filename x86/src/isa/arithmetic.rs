//! "Binary Arithmetic Instructions" and "Logical Instructions" (SDM vol. 1, 5.1.2 and 5.1.4).

use emu_core::engine::alu::AluOp;
use emu_core::engine::flags::Size;
use emu_core::engine::uop::{BinaryOp, Operand, SINK, UnaryOp};
use iced_x86::Mnemonic;

use super::compute::Compute;
use super::{Lifting, Place, Unknown};
use crate::registers::{RAX, RDX, ZERO, temp};

pub(super) fn lift(l: &mut Lifting) -> Result<(), Unknown> {
    match l.mnemonic() {
        Mnemonic::Add => update(l, AluOp::Add),
        Mnemonic::Adc => update(l, AluOp::Adc),
        Mnemonic::Sub => update(l, AluOp::Sub),
        Mnemonic::Sbb => update(l, AluOp::Sbb),
        Mnemonic::And => update(l, AluOp::And),
        Mnemonic::Or => update(l, AluOp::Or),
        Mnemonic::Xor => update(l, AluOp::Xor),
        Mnemonic::Inc => update_alone(l, AluOp::Inc),
        Mnemonic::Dec => update_alone(l, AluOp::Dec),
        Mnemonic::Cmp => look(l, AluOp::Sub),
        Mnemonic::Test => look(l, AluOp::And),
        Mnemonic::Neg => neg(l),
        Mnemonic::Not => not(l),
        Mnemonic::Imul if l.insn.op_count() > 1 => imul(l),
        Mnemonic::Imul => multiply(l, Compute::Imul),
        Mnemonic::Mul => multiply(l, Compute::Mul),
        Mnemonic::Div => with_accumulator(l, Compute::Div),
        Mnemonic::Idiv => with_accumulator(l, Compute::Idiv),
        Mnemonic::Mulx => mulx(l),
        Mnemonic::Adcx => add_with(l, Compute::Adcx),
        Mnemonic::Adox => add_with(l, Compute::Adox),
        Mnemonic::Andn => andn(l),
        _ => Err(Unknown),
    }
}

/// ADD, ADC, SUB, SBB, AND, OR, XOR.
fn update(l: &mut Lifting, op: AluOp) -> Result<(), Unknown> {
    let size = l.size(0)?;
    let (to, from) = (l.place(0)?, l.place(1)?);
    // One of the two is a register or a constant, so that memory is accessed once.
    let (first, to) = l.read_to_update(to, size, temp::FIRST);
    let operand = l.read_operand(from, size, temp::SECOND);
    l.update_by(op, size, to, first, operand);
    Ok(())
}

/// INC, DEC.
fn update_alone(l: &mut Lifting, op: AluOp) -> Result<(), Unknown> {
    let size = l.size(0)?;
    let to = l.place(0)?;
    let (first, to) = l.read_to_update(to, size, temp::FIRST);
    l.update_by(op, size, to, first, Operand::Imm(0));
    Ok(())
}

/// CMP, TEST.
fn look(l: &mut Lifting, op: AluOp) -> Result<(), Unknown> {
    let size = l.size(0)?;
    let (a, b) = (l.place(0)?, l.place(1)?);
    let first = l.read(a, size, temp::FIRST);
    let operand = l.read_operand(b, size, temp::SECOND);
    l.lift.alu(op, size, SINK, first, operand);
    Ok(())
}

/// NEG: a difference from 0.
fn neg(l: &mut Lifting) -> Result<(), Unknown> {
    let size = l.size(0)?;
    let to = l.place(0)?;
    let (first, to) = l.read_to_update(to, size, temp::FIRST);
    l.update_by(AluOp::Sub, size, to, ZERO, Operand::Reg(first));
    Ok(())
}

/// NOT, which leaves the flags alone.
fn not(l: &mut Lifting) -> Result<(), Unknown> {
    let size = l.size(0)?;
    let to = l.place(0)?;
    let (first, to) = l.read_to_update(to, size, temp::FIRST);
    l.lift.binary(BinaryOp::Xor, temp::FIRST, first, Operand::Imm(-1));
    l.write(to, size, temp::FIRST);
    Ok(())
}

/// IMUL with two or three operands.
fn imul(l: &mut Lifting) -> Result<(), Unknown> {
    let size = l.size(0)?;
    let Place::Register(d) = l.place(0)? else { return Err(Unknown) };
    let (first, second) =
        if l.insn.op_count() == 2 { (Place::Register(d), l.place(1)?) } else { (l.place(1)?, l.place(2)?) };
    let first = l.read(first, size, temp::FIRST);
    let operand = l.read_operand(second, size, temp::SECOND);
    l.lift.alu(AluOp::Mul, size, d, first, operand);
    Ok(())
}

/// MUL and IMUL with one operand.
fn multiply(l: &mut Lifting, what: Compute) -> Result<(), Unknown> {
    let size = l.size(0)?;
    let is_signed = what == Compute::Imul;
    if matches!(size, Size::Bits8 | Size::Bits16) || is_signed && size == Size::Bits32 {
        return with_accumulator(l, what);
    }
    let from = l.place(0)?;
    let value = l.read(from, size, temp::SECOND);
    high_half(l, size, is_signed, RAX, value);
    let low = if is_signed { AluOp::Mul } else { AluOp::MulLow };
    l.lift.alu(low, size, RAX, RAX, Operand::Reg(value));
    l.lift.unary(UnaryOp::Move, RDX, temp::THIRD);
    Ok(())
}

/// The high half of the product of two registers of 32 or 64 bits, in [`temp::THIRD`].
fn high_half(l: &mut Lifting, size: Size, is_signed: bool, a: u8, b: u8) {
    if size == Size::Bits64 {
        let op = if is_signed { BinaryOp::MulHigh } else { BinaryOp::MulHighu };
        l.lift.binary(op, temp::THIRD, a, Operand::Reg(b));
        return;
    }
    l.lift.unary(UnaryOp::Zext32, temp::FIRST, b);
    l.lift.unary(UnaryOp::Zext32, temp::THIRD, a);
    l.lift.binary(BinaryOp::Mul, temp::THIRD, temp::THIRD, Operand::Reg(temp::FIRST));
    l.lift.binary(BinaryOp::Shr, temp::THIRD, temp::THIRD, Operand::Imm(32));
}

/// What computes with the accumulator and its other half in RDX, or AH.
fn with_accumulator(l: &mut Lifting, what: Compute) -> Result<(), Unknown> {
    let size = l.size(0)?;
    let from = l.place(0)?;
    l.bring(from, size, temp::SECOND);
    l.lift.unary(UnaryOp::Move, temp::FIRST, RAX);
    l.lift.unary(UnaryOp::Move, temp::THIRD, RDX);
    l.compute(what, size);
    if size == Size::Bits8 {
        l.write(Place::Register(RAX), Size::Bits16, temp::FIRST);
    } else {
        l.write(Place::Register(RAX), size, temp::FIRST);
        l.write(Place::Register(RDX), size, temp::SECOND);
    }
    Ok(())
}

/// MULX: of RDX; no flags. Where both results go to one register, it holds the high half.
fn mulx(l: &mut Lifting) -> Result<(), Unknown> {
    let size = l.size(0)?;
    let (high, low, from) = (l.place(0)?, l.place(1)?, l.place(2)?);
    let value = l.read(from, size, temp::SECOND);
    high_half(l, size, false, RDX, value);
    l.lift.binary(BinaryOp::Mul, temp::FIRST, RDX, Operand::Reg(value));
    l.write(low, size, temp::FIRST);
    l.write(high, size, temp::THIRD);
    Ok(())
}

/// ADCX, ADOX.
fn add_with(l: &mut Lifting, what: Compute) -> Result<(), Unknown> {
    let size = l.size(0)?;
    let (to, from) = (l.place(0)?, l.place(1)?);
    l.bring(from, size, temp::SECOND);
    l.bring(to, size, temp::FIRST);
    l.compute(what, size);
    l.write(to, size, temp::FIRST);
    Ok(())
}

/// ANDN.
fn andn(l: &mut Lifting) -> Result<(), Unknown> {
    let size = l.size(0)?;
    let (to, inverted, from) = (l.place(0)?, l.place(1)?, l.place(2)?);
    let value = l.read(from, size, temp::SECOND);
    let mask = l.read(inverted, size, temp::FIRST);
    l.lift.binary(BinaryOp::Xor, temp::FIRST, mask, Operand::Imm(-1));
    l.lift.alu(AluOp::And, size, temp::FIRST, temp::FIRST, Operand::Reg(value));
    l.write(to, size, temp::FIRST);
    Ok(())
}
