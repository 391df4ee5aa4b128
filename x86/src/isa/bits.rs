//! "Bit and Byte Instructions" (SDM vol. 1, 5.1.6), and those of BMI, LZCNT, POPCNT and CRC32.

use emu_core::engine::alu::AluOp;
use emu_core::engine::flags::Size;
use emu_core::engine::uop::{BinaryOp, Operand, SINK, UnaryOp};
use iced_x86::{Mnemonic, OpKind};

use super::compute::Compute;
use super::{Lifting, Memory, Place, Unknown, condition};
use crate::registers::temp;

pub(super) fn lift(l: &mut Lifting) -> Result<(), Unknown> {
    match l.mnemonic() {
        Mnemonic::Bt => bit(l, AluOp::BitTest),
        Mnemonic::Bts => bit(l, AluOp::BitSet),
        Mnemonic::Btr => bit(l, AluOp::BitClear),
        Mnemonic::Btc => bit(l, AluOp::BitInvert),
        Mnemonic::Bsf => search(l, Compute::Bsf),
        Mnemonic::Bsr => search(l, Compute::Bsr),
        Mnemonic::Tzcnt => one(l, Compute::Tzcnt),
        Mnemonic::Lzcnt => one(l, Compute::Lzcnt),
        Mnemonic::Popcnt => one(l, Compute::Popcnt),
        Mnemonic::Blsi => one(l, Compute::Blsi),
        Mnemonic::Blsr => one(l, Compute::Blsr),
        Mnemonic::Blsmsk => one(l, Compute::Blsmsk),
        Mnemonic::Bextr => two(l, Compute::Bextr, 1, 2),
        Mnemonic::Bzhi => bzhi(l),
        Mnemonic::Pdep => two(l, Compute::Pdep, 1, 2),
        Mnemonic::Pext => two(l, Compute::Pext, 1, 2),
        Mnemonic::Crc32 => crc32(l),
        _ => match condition(l.insn.condition_code()) {
            Some((cond, negate)) if is_set(l) => {
                let to = l.place(0)?;
                l.lift.set_if(cond, negate, temp::FIRST);
                l.write(to, Size::Bits8, temp::FIRST);
                Ok(())
            }
            _ => Err(Unknown),
        },
    }
}

fn is_set(l: &Lifting) -> bool {
    use Mnemonic as M;
    matches!(
        l.mnemonic(),
        M::Seta
            | M::Setae
            | M::Setb
            | M::Setbe
            | M::Sete
            | M::Setg
            | M::Setge
            | M::Setl
            | M::Setle
            | M::Setne
            | M::Setno
            | M::Setnp
            | M::Setns
            | M::Seto
            | M::Setp
            | M::Sets
    )
}

/// BT, BTS, BTR, BTC. A register's bit offset into memory is signed and reaches beyond the operand.
fn bit(l: &mut Lifting, op: AluOp) -> Result<(), Unknown> {
    let size = l.size(0)?;
    let (to, offset) = match (l.insn.op0_kind(), l.insn.op1_kind()) {
        (OpKind::Memory, OpKind::Register) => {
            let m = l.effective_address()?;
            let offset = l.place(1)?;
            l.read_extended(offset, size, true, temp::SECOND);
            let bytes = i32::from(size.bytes());
            l.lift.binary(BinaryOp::Sar, temp::INDEX, temp::SECOND, Operand::Imm((8 * bytes).trailing_zeros() as i32));
            l.lift.binary(BinaryOp::Shl, temp::THIRD, temp::INDEX, Operand::Imm(bytes.trailing_zeros() as i32));
            let base = l.in_register(m);
            let m = l.truncated(Memory::sum(base, temp::THIRD), l.address_size());
            let m = l.segmented(m);
            let linear = l.in_register(m);
            l.move_to(temp::ADDRESS, linear);
            (l.at_address(), Operand::Reg(temp::SECOND))
        }
        _ => {
            let (to, offset) = (l.place(0)?, l.place(1)?);
            (to, l.read_operand(offset, size, temp::SECOND))
        }
    };
    if op == AluOp::BitTest {
        let first = l.read(to, size, temp::FIRST);
        l.lift.alu(op, size, SINK, first, offset);
        return Ok(());
    }
    let (first, to) = l.read_to_update(to, size, temp::FIRST);
    l.update_by(op, size, to, first, offset);
    Ok(())
}

/// BZHI.
fn bzhi(l: &mut Lifting) -> Result<(), Unknown> {
    let size = l.size(0)?;
    let (to, from, index) = (l.place(0)?, l.place(1)?, l.place(2)?);
    let from = l.read(from, size, temp::FIRST);
    let index = l.read_operand(index, size, temp::SECOND);
    l.update_by(AluOp::LowBits, size, to, from, index);
    Ok(())
}

/// BSF, BSR: the destination keeps its value if the source is 0, as processors have it.
fn search(l: &mut Lifting, what: Compute) -> Result<(), Unknown> {
    let size = l.size(0)?;
    let (Place::Register(d), from) = (l.place(0)?, l.place(1)?) else { return Err(Unknown) };
    l.bring(from, size, temp::FIRST);
    l.lift.unary(UnaryOp::Move, temp::SECOND, d);
    // A result of any size is one for the whole register: FIRST has all of it.
    l.compute(what, size);
    l.lift.unary(UnaryOp::Move, d, temp::FIRST);
    Ok(())
}

/// Instructions of one value.
fn one(l: &mut Lifting, what: Compute) -> Result<(), Unknown> {
    let size = l.size(0)?;
    let (to, from) = (l.place(0)?, l.place(1)?);
    l.bring(from, size, temp::FIRST);
    l.compute(what, size);
    l.write(to, size, temp::FIRST);
    Ok(())
}

/// Instructions of two values: operands `a` and `b`.
fn two(l: &mut Lifting, what: Compute, a: u32, b: u32) -> Result<(), Unknown> {
    let size = l.size(0)?;
    let (to, a, b) = (l.place(0)?, l.place(a)?, l.place(b)?);
    l.bring(a, size, temp::FIRST);
    l.bring(b, size, temp::SECOND);
    l.compute(what, size);
    l.write(to, size, temp::FIRST);
    Ok(())
}

/// CRC32: of the size of its source.
fn crc32(l: &mut Lifting) -> Result<(), Unknown> {
    let (to_size, size) = (l.size(0)?, l.size(1)?);
    let (to, from) = (l.place(0)?, l.place(1)?);
    l.bring(from, size, temp::SECOND);
    l.bring(to, to_size, temp::FIRST);
    l.compute(Compute::Crc32, size);
    l.write(to, to_size, temp::FIRST);
    Ok(())
}
