//! "Data Transfer Instructions" (SDM vol. 1, 5.1.1), LEA and XLAT among "Miscellaneous Instructions".

use emu_core::engine::alu::AluOp;
use emu_core::engine::flags::{FlagCond, Size};
use emu_core::engine::uop::{BinaryOp, Operand, SINK, UnaryOp, Width};
use iced_x86::{Mnemonic, OpKind};

use super::compute::Compute;
use super::operands::unsigned;
use super::{Lifting, Memory, Place, Unknown, condition};
use crate::registers::{RAX, RBP, RBX, RCX, RDX, RSP, ZERO, temp};

pub(super) fn lift(l: &mut Lifting) -> Result<(), Unknown> {
    match l.mnemonic() {
        Mnemonic::Mov => mov(l),
        Mnemonic::Movzx => extend(l, false),
        Mnemonic::Movsx | Mnemonic::Movsxd => extend(l, true),
        Mnemonic::Lea => lea(l),
        Mnemonic::Push => push(l),
        Mnemonic::Pop => pop(l),
        Mnemonic::Leave => leave(l),
        Mnemonic::Xchg => xchg(l),
        Mnemonic::Xadd => xadd(l),
        Mnemonic::Cmpxchg => cmpxchg(l),
        Mnemonic::Cmpxchg8b => cmpxchg8b(l),
        Mnemonic::Cmpxchg16b => cmpxchg16b(l),
        Mnemonic::Enter => enter(l),
        Mnemonic::Bswap => bswap(l),
        Mnemonic::Movbe => movbe(l),
        Mnemonic::Cbw | Mnemonic::Cwde | Mnemonic::Cdqe => widen(l),
        Mnemonic::Cwd | Mnemonic::Cdq | Mnemonic::Cqo => spread(l),
        Mnemonic::Xlatb => xlat(l),
        _ => match condition(l.insn.condition_code()) {
            Some(_) if is_cmov(l.mnemonic()) => cmov(l),
            _ => Err(Unknown),
        },
    }
}

/// MOV, but for control, debug and segment registers.
fn mov(l: &mut Lifting) -> Result<(), Unknown> {
    let size = l.size(0)?;
    let (to, from) = (l.place(0)?, l.place(1)?);
    match (to, from) {
        (Place::Register(d), Place::Immediate(value)) if matches!(size, Size::Bits32 | Size::Bits64) => {
            l.lift.constant(d, size.merge(0, value));
        }
        (Place::Register(d), Place::Memory(m)) if matches!(size, Size::Bits32 | Size::Bits64) => {
            l.load(unsigned(size), d, m);
        }
        _ => {
            let value = l.read(from, size, temp::SECOND);
            l.write(to, size, value);
        }
    }
    Ok(())
}

/// MOVZX, MOVSX, MOVSXD.
fn extend(l: &mut Lifting, sign: bool) -> Result<(), Unknown> {
    let (to_size, from_size) = (l.size(0)?, l.size(1)?);
    let (to, from) = (l.place(0)?, l.place(1)?);
    match (to, to_size) {
        (Place::Register(d), Size::Bits64) => l.read_extended(from, from_size, sign, d),
        (Place::Register(d), Size::Bits32) if !sign => l.read_extended(from, from_size, sign, d),
        _ => {
            l.read_extended(from, from_size, sign, temp::SECOND);
            l.write(to, to_size, temp::SECOND);
        }
    }
    Ok(())
}

/// LEA: the offset alone, without a segment's base.
fn lea(l: &mut Lifting) -> Result<(), Unknown> {
    let size = l.size(0)?;
    let to = l.place(0)?;
    let m = l.effective_address()?;
    let value = l.in_register(m);
    l.write(to, size, value);
    Ok(())
}

/// PUSH.
fn push(l: &mut Lifting) -> Result<(), Unknown> {
    let size = l.stack_step()?;
    let from = l.place(0)?;
    let value = l.read(from, size, temp::FIRST);
    l.push(size, value);
    Ok(())
}

/// POP. An address that is relative to RSP is so after RSP has been moved.
fn pop(l: &mut Lifting) -> Result<(), Unknown> {
    let size = l.stack_step()?;
    match l.insn.op0_kind() {
        OpKind::Register => {
            let to = l.place(0)?;
            match to {
                Place::Register(d) if size != Size::Bits16 => l.pop(size, d),
                _ => {
                    l.pop(size, temp::FIRST);
                    l.write(to, size, temp::FIRST);
                }
            }
        }
        _ => {
            l.peek(size, temp::FIRST);
            l.popped = size.bytes();
            let Place::Memory(m) = l.place(0)? else { return Err(Unknown) };
            l.store(size, m, temp::FIRST);
            l.drop_from_stack(size.bytes().into());
        }
    }
    Ok(())
}

/// LEAVE.
fn leave(l: &mut Lifting) -> Result<(), Unknown> {
    let size = match l.code() {
        iced_x86::Code::Leavew => Size::Bits16,
        iced_x86::Code::Leaved => Size::Bits32,
        _ => Size::Bits64,
    };
    let m = l.on_stack(RBP, 0, size, false);
    l.load(unsigned(size), temp::FIRST, m);
    let sum = if l.mode.is_64() { RSP } else { temp::SECOND };
    l.lift.binary(BinaryOp::Add, sum, RBP, Operand::Imm(size.bytes().into()));
    l.write(Place::Register(RSP), l.stack_size(), sum);
    l.write(Place::Register(RBP), size, temp::FIRST);
    Ok(())
}

/// XCHG.
fn xchg(l: &mut Lifting) -> Result<(), Unknown> {
    let size = l.size(0)?;
    let (a, b) = (l.place(0)?, l.place(1)?);
    // The one that may be in memory comes first.
    let (a, b) = if matches!(b, Place::Memory(_)) { (b, a) } else { (a, b) };
    let (first, a) = l.read_to_update(a, size, temp::FIRST);
    if first != temp::FIRST {
        l.lift.unary(UnaryOp::Move, temp::FIRST, first);
    }
    let second = l.read(b, size, temp::SECOND);
    if second != temp::SECOND {
        l.lift.unary(UnaryOp::Move, temp::SECOND, second);
    }
    // Memory first: the register may be part of its address.
    l.write(a, size, temp::SECOND);
    l.write(b, size, temp::FIRST);
    Ok(())
}

/// XADD.
fn xadd(l: &mut Lifting) -> Result<(), Unknown> {
    let size = l.size(0)?;
    let (to, from) = (l.place(0)?, l.place(1)?);
    let (old, to) = l.read_to_update(to, size, temp::FIRST);
    let addend = l.read(from, size, temp::SECOND);
    l.lift.alu(AluOp::Add, size, temp::THIRD, old, Operand::Reg(addend));
    if old != temp::FIRST {
        l.lift.unary(UnaryOp::Move, temp::FIRST, old);
    }
    // Memory first: the register may be part of its address. Of two registers the destination comes last.
    let order = [(from, temp::FIRST), (to, temp::THIRD)];
    for (place, value) in if matches!(to, Place::Memory(_)) { [order[1], order[0]] } else { order } {
        l.write(place, size, value);
    }
    Ok(())
}

/// CMPXCHG: memory is written in either case; a register that is not exchanged keeps its upper half, as processors have it.
fn cmpxchg(l: &mut Lifting) -> Result<(), Unknown> {
    let size = l.size(0)?;
    let (to, from) = (l.place(0)?, l.place(1)?);
    let (old, to) = l.read_to_update(to, size, temp::FIRST);
    let new = l.read(from, size, temp::SECOND);
    l.lift.alu(AluOp::Sub, size, SINK, RAX, Operand::Reg(old));
    l.lift.set_if(FlagCond::Zero, false, temp::TEST);
    // What the accumulator becomes where they differ.
    l.lift.unary(UnaryOp::Move, temp::INDEX, RAX);
    l.write(Place::Register(temp::INDEX), size, old);
    if let Place::Register(d) = to {
        l.lift.unary(UnaryOp::Move, temp::THIRD, d);
        l.write(Place::Register(temp::THIRD), size, new);
        l.lift.move_if(d, temp::THIRD, temp::TEST);
    } else {
        l.lift.unary(UnaryOp::Move, temp::THIRD, old);
        l.lift.move_if(temp::THIRD, new, temp::TEST);
        l.write(to, size, temp::THIRD);
    }
    l.lift.binary(BinaryOp::Xor, temp::TEST, temp::TEST, Operand::Imm(1));
    l.lift.move_if(RAX, temp::INDEX, temp::TEST);
    Ok(())
}

/// CMPXCHG8B: no flag but Z changes.
fn cmpxchg8b(l: &mut Lifting) -> Result<(), Unknown> {
    let to = l.place(0)?;
    let (old, to) = l.read_to_update(to, Size::Bits64, temp::FIRST);
    l.lift.binary(BinaryOp::Pack32, temp::SECOND, RAX, Operand::Reg(RDX));
    l.lift.binary(BinaryOp::Eq, temp::THIRD, old, Operand::Reg(temp::SECOND));
    l.lift.binary(BinaryOp::Pack32, temp::SECOND, RBX, Operand::Reg(RCX));
    l.lift.unary(UnaryOp::Move, temp::INDEX, old);
    l.lift.move_if(temp::INDEX, temp::SECOND, temp::THIRD);
    l.compute(Compute::SetZero, Size::Bits64);
    l.write(to, Size::Bits64, temp::INDEX);
    // Where they differ, the accumulator takes what was there.
    l.lift.binary(BinaryOp::Xor, temp::THIRD, temp::THIRD, Operand::Imm(1));
    l.lift.unary(UnaryOp::Zext32, temp::INDEX, old);
    l.lift.move_if(RAX, temp::INDEX, temp::THIRD);
    l.lift.binary(BinaryOp::Shr, temp::INDEX, old, Operand::Imm(32));
    l.lift.move_if(RDX, temp::INDEX, temp::THIRD);
    Ok(())
}

/// CMPXCHG16B: of memory at a multiple of 16, or #GP.
fn cmpxchg16b(l: &mut Lifting) -> Result<(), Unknown> {
    let Place::Memory(_) = l.place(0)? else { return Err(Unknown) };
    l.address_in_register()?;
    l.lift.unary(UnaryOp::Move, temp::FIRST, temp::ADDRESS);
    l.compute(Compute::RequireAligned16, Size::Bits64);
    l.lift.load_to_update(Width::U64, temp::FIRST, temp::ADDRESS, 0);
    l.lift.load_to_update(Width::U64, temp::SECOND, temp::ADDRESS, 8);
    l.lift.binary(BinaryOp::Eq, temp::THIRD, temp::FIRST, Operand::Reg(RAX));
    l.lift.binary(BinaryOp::Eq, temp::INDEX, temp::SECOND, Operand::Reg(RDX));
    l.lift.binary(BinaryOp::And, temp::THIRD, temp::THIRD, Operand::Reg(temp::INDEX));
    l.compute(Compute::SetZero, Size::Bits64);
    for (offset, old, new) in [(0, temp::FIRST, RBX), (8, temp::SECOND, RCX)] {
        l.lift.unary(UnaryOp::Move, temp::INDEX, old);
        l.lift.move_if(temp::INDEX, new, temp::THIRD);
        l.lift.store(Width::U64, temp::ADDRESS, temp::INDEX, offset);
    }
    l.lift.binary(BinaryOp::Xor, temp::THIRD, temp::THIRD, Operand::Imm(1));
    l.lift.move_if(RAX, temp::FIRST, temp::THIRD);
    l.lift.move_if(RDX, temp::SECOND, temp::THIRD);
    Ok(())
}

/// ENTER: the stack pointer and RBP move when everything has been stored.
fn enter(l: &mut Lifting) -> Result<(), Unknown> {
    let size = match l.code() {
        iced_x86::Code::Enterw_imm16_imm8 => Size::Bits16,
        iced_x86::Code::Enterd_imm16_imm8 => Size::Bits32,
        _ => Size::Bits64,
    };
    let (room, level) = (i32::from(l.insn.immediate16()), i32::from(l.insn.immediate8_2nd() & 31));
    let step = i32::from(size.bytes());
    let m = l.on_stack(RSP, -step, size, true);
    l.store(size, m, RBP);
    l.lift.binary(BinaryOp::Add, temp::SECOND, RSP, Operand::Imm(-step));
    for i in 1..level {
        let m = l.on_stack(RBP, -step * i, size, false);
        l.load(unsigned(size), temp::FIRST, m);
        let m = l.on_stack(RSP, -step * (i + 1), size, true);
        l.store(size, m, temp::FIRST);
    }
    if level > 0 {
        let m = l.on_stack(RSP, -step * (level + 1), size, true);
        l.store(size, m, temp::SECOND);
    }
    l.write(Place::Register(RBP), size, temp::SECOND);
    l.lift.binary(BinaryOp::Add, temp::SECOND, RSP, Operand::Imm(-step * (level + 1) - room));
    l.write(Place::Register(RSP), l.stack_size(), temp::SECOND);
    Ok(())
}

/// BSWAP. Of 16 bits it is undefined; processors leave 0.
fn bswap(l: &mut Lifting) -> Result<(), Unknown> {
    let size = l.size(0)?;
    let Place::Register(d) = l.place(0)? else { return Err(Unknown) };
    match size {
        Size::Bits64 => l.lift.unary(UnaryOp::ByteReverse, d, d),
        Size::Bits32 => {
            l.lift.unary(UnaryOp::ByteReverse, temp::FIRST, d);
            l.lift.binary(BinaryOp::Shr, d, temp::FIRST, Operand::Imm(32));
        }
        _ => l.lift.binary(BinaryOp::Merge16, d, d, Operand::Reg(ZERO)),
    }
    Ok(())
}

/// MOVBE.
fn movbe(l: &mut Lifting) -> Result<(), Unknown> {
    let size = l.size(0)?;
    let (to, from) = (l.place(0)?, l.place(1)?);
    let value = l.read(from, size, temp::SECOND);
    l.lift.unary(UnaryOp::ByteReverse, temp::FIRST, value);
    l.lift.binary(BinaryOp::Shr, temp::FIRST, temp::FIRST, Operand::Imm(64 - 8 * i32::from(size.bytes())));
    l.write(to, size, temp::FIRST);
    Ok(())
}

/// CBW, CWDE, CDQE.
fn widen(l: &mut Lifting) -> Result<(), Unknown> {
    let (op, size) = match l.mnemonic() {
        Mnemonic::Cbw => (UnaryOp::Sext8, Size::Bits16),
        Mnemonic::Cwde => (UnaryOp::Sext16, Size::Bits32),
        _ => (UnaryOp::Sext32, Size::Bits64),
    };
    l.lift.unary(op, temp::FIRST, RAX);
    l.write(Lifting::accumulator(), size, temp::FIRST);
    Ok(())
}

/// CWD, CDQ, CQO.
fn spread(l: &mut Lifting) -> Result<(), Unknown> {
    let (op, size) = match l.mnemonic() {
        Mnemonic::Cwd => (UnaryOp::Sext16, Size::Bits16),
        Mnemonic::Cdq => (UnaryOp::Sext32, Size::Bits32),
        _ => (UnaryOp::Move, Size::Bits64),
    };
    l.lift.unary(op, temp::FIRST, RAX);
    l.lift.binary(BinaryOp::Sar, temp::FIRST, temp::FIRST, Operand::Imm(63));
    l.write(Place::Register(RDX), size, temp::FIRST);
    Ok(())
}

/// XLAT.
fn xlat(l: &mut Lifting) -> Result<(), Unknown> {
    l.lift.unary(UnaryOp::Zext8, temp::INDEX, RAX);
    let size = l.insn.memory_base().size();
    let m = l.truncated(Memory::sum(RBX, temp::INDEX), size);
    let m = l.segmented(m);
    l.load(Width::U8, temp::FIRST, m);
    l.write(Lifting::accumulator(), Size::Bits8, temp::FIRST);
    Ok(())
}

fn is_cmov(mnemonic: Mnemonic) -> bool {
    use Mnemonic as M;
    matches!(
        mnemonic,
        M::Cmova
            | M::Cmovae
            | M::Cmovb
            | M::Cmovbe
            | M::Cmove
            | M::Cmovg
            | M::Cmovge
            | M::Cmovl
            | M::Cmovle
            | M::Cmovne
            | M::Cmovno
            | M::Cmovnp
            | M::Cmovns
            | M::Cmovo
            | M::Cmovp
            | M::Cmovs
    )
}

/// CMOVcc: memory is read, and the upper half of a 32-bit destination cleared, whatever the condition says.
fn cmov(l: &mut Lifting) -> Result<(), Unknown> {
    let (cond, negate) = condition(l.insn.condition_code()).ok_or(Unknown)?;
    let size = l.size(0)?;
    let (Place::Register(d), from) = (l.place(0)?, l.place(1)?) else { return Err(Unknown) };
    let value = l.read(from, size, temp::SECOND);
    l.lift.set_if(cond, negate, temp::TEST);
    let value = if size == Size::Bits16 {
        l.lift.binary(BinaryOp::Merge16, temp::FIRST, d, Operand::Reg(value));
        temp::FIRST
    } else {
        value
    };
    l.lift.move_if(d, value, temp::TEST);
    if size == Size::Bits32 {
        l.lift.unary(UnaryOp::Zext32, d, d);
    }
    Ok(())
}
