//! "Binary Arithmetic Instructions" and "Logical Instructions" (SDM vol. 1, 5.1.2 and 5.1.4).

use emu_core::engine::flags::{AluOp, Size};
use emu_core::engine::uop::{Operand, SINK, UnaryOp};
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
        Mnemonic::Div => multiply(l, Compute::Div),
        Mnemonic::Idiv => multiply(l, Compute::Idiv),
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
    if let Place::Register(d) = to {
        let operand = l.read_operand(from, size, temp::SECOND);
        l.lift.alu(op, size, d, d, operand);
        return Ok(());
    }
    // One of the two is a register or a constant, so that memory is accessed once.
    let (first, to) = l.read_to_update(to, size, temp::FIRST);
    let operand = l.read_operand(from, size, temp::SECOND);
    l.lift.alu(op, size, temp::FIRST, first, operand);
    l.write(to, size, temp::FIRST);
    Ok(())
}

/// INC, DEC.
fn update_alone(l: &mut Lifting, op: AluOp) -> Result<(), Unknown> {
    let size = l.size(0)?;
    let to = l.place(0)?;
    if let Place::Register(d) = to {
        l.lift.alu(op, size, d, d, Operand::Imm(0));
        return Ok(());
    }
    let (first, to) = l.read_to_update(to, size, temp::FIRST);
    l.lift.alu(op, size, temp::FIRST, first, Operand::Imm(0));
    l.write(to, size, temp::FIRST);
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
    if let Place::Register(d) = to {
        l.lift.alu(AluOp::Sub, size, d, ZERO, Operand::Reg(d));
        return Ok(());
    }
    let (first, to) = l.read_to_update(to, size, temp::FIRST);
    l.lift.alu(AluOp::Sub, size, temp::FIRST, ZERO, Operand::Reg(first));
    l.write(to, size, temp::FIRST);
    Ok(())
}

/// NOT, which leaves the flags alone.
fn not(l: &mut Lifting) -> Result<(), Unknown> {
    let size = l.size(0)?;
    let to = l.place(0)?;
    let (first, to) = l.read_to_update(to, size, temp::FIRST);
    l.lift.binary(emu_core::engine::uop::BinaryOp::Xor, temp::FIRST, first, Operand::Imm(-1));
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

/// MUL, IMUL, DIV and IDIV with one operand: the accumulator, and its other half in RDX, or AH.
fn multiply(l: &mut Lifting, what: Compute) -> Result<(), Unknown> {
    let size = l.size(0)?;
    let from = l.place(0)?;
    let value = l.read(from, size, temp::SECOND);
    if value != temp::SECOND {
        l.lift.unary(UnaryOp::Move, temp::SECOND, value);
    }
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
    if value != temp::SECOND {
        l.lift.unary(UnaryOp::Move, temp::SECOND, value);
    }
    l.lift.unary(UnaryOp::Move, temp::FIRST, RDX);
    l.compute(Compute::Mulx, size);
    l.write(low, size, temp::FIRST);
    l.write(high, size, temp::SECOND);
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
    l.lift.binary(emu_core::engine::uop::BinaryOp::Xor, temp::FIRST, mask, Operand::Imm(-1));
    l.lift.alu(AluOp::And, size, temp::FIRST, temp::FIRST, Operand::Reg(value));
    l.write(to, size, temp::FIRST);
    Ok(())
}
