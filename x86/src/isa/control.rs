//! "Control Transfer Instructions" of 64-bit code within a segment, and "Flag Control Instructions" (SDM vol. 1, 5.1.7, 5.1.11).

use emu_core::engine::flags::{CARRY, FlagCond, Size};
use emu_core::engine::uop::{BinaryOp, Cond, Operand, UnaryOp, Width};
use iced_x86::{Mnemonic, OpKind};

use super::{Lifting, Place, Unknown, condition};
use crate::registers::{RAX, RCX, RSP, ZERO, temp};

pub(super) fn lift(l: &mut Lifting) -> Result<(), Unknown> {
    match l.mnemonic() {
        Mnemonic::Jmp => jmp(l),
        Mnemonic::Call => call(l),
        Mnemonic::Ret => ret(l),
        Mnemonic::Jrcxz | Mnemonic::Jecxz => jcxz(l),
        Mnemonic::Loop => looping(l, None),
        Mnemonic::Loope => looping(l, Some(false)),
        Mnemonic::Loopne => looping(l, Some(true)),
        Mnemonic::Nop | Mnemonic::Endbr64 | Mnemonic::Endbr32 | Mnemonic::Pause => Ok(()),
        // Memory is in order, and there are no caches.
        Mnemonic::Lfence | Mnemonic::Mfence | Mnemonic::Sfence => Ok(()),
        Mnemonic::Prefetcht0 | Mnemonic::Prefetcht1 | Mnemonic::Prefetcht2 | Mnemonic::Prefetchnta => Ok(()),
        Mnemonic::Prefetchw | Mnemonic::Prefetchwt1 => Ok(()),
        Mnemonic::Clc => change(l, BinaryOp::And, !(CARRY as i32)),
        Mnemonic::Stc => change(l, BinaryOp::Or, CARRY as i32),
        Mnemonic::Cmc => change(l, BinaryOp::Xor, CARRY as i32),
        Mnemonic::Lahf => lahf(l),
        Mnemonic::Sahf => sahf(l),
        _ => match condition(l.insn.condition_code()) {
            Some((cond, negate)) if l.insn.is_jcc_short_or_near() => {
                let target = l.target()?;
                l.lift.branch_if(cond, negate, target);
                Ok(())
            }
            _ => Err(Unknown),
        },
    }
}

impl Lifting<'_> {
    /// Where a relative branch leads.
    fn target(&self) -> Result<u64, Unknown> {
        match self.insn.op0_kind() {
            OpKind::NearBranch64 => Ok(self.insn.near_branch64()),
            _ => Err(Unknown),
        }
    }
}

/// JMP, near.
fn jmp(l: &mut Lifting) -> Result<(), Unknown> {
    if let Ok(target) = l.target() {
        l.lift.goto(target);
        return Ok(());
    }
    let to = indirect(l)?;
    l.lift.goto_reg(to, 0, 0, None);
    Ok(())
}

/// The register that holds where an indirect near branch leads.
fn indirect(l: &mut Lifting) -> Result<u8, Unknown> {
    let is_near = l.insn.is_jmp_near_indirect() || l.insn.is_call_near_indirect();
    if !is_near || l.size(0)? != Size::Bits64 {
        return Err(Unknown);
    }
    let to = l.place(0)?;
    Ok(l.read(to, Size::Bits64, temp::TARGET))
}

/// CALL, near: the target is read before RSP moves.
fn call(l: &mut Lifting) -> Result<(), Unknown> {
    let target = l.target();
    if target.is_err() {
        let to = indirect(l)?;
        l.move_to(temp::TARGET, to);
    }
    let next = l.next();
    l.lift.constant(temp::FIRST, next);
    l.lift.store_back(Width::U64, RSP, temp::FIRST, -8);
    match target {
        Ok(target) => l.lift.goto(target),
        Err(Unknown) => l.lift.goto_reg(temp::TARGET, 0, 0, None),
    }
    Ok(())
}

/// RET, near.
fn ret(l: &mut Lifting) -> Result<(), Unknown> {
    if l.insn.stack_pointer_increment() < 8 {
        return Err(Unknown); // an operand size of 16 bits
    }
    l.lift.load_past(Width::U64, temp::TARGET, RSP, l.insn.stack_pointer_increment());
    l.lift.goto_reg(temp::TARGET, 0, 0, None);
    Ok(())
}

/// JCXZ, JECXZ, JRCXZ: the address size says which register counts.
fn jcxz(l: &mut Lifting) -> Result<(), Unknown> {
    let target = l.target()?;
    let count = if l.mnemonic() == Mnemonic::Jecxz {
        l.lift.unary(UnaryOp::Zext32, temp::FIRST, RCX);
        temp::FIRST
    } else {
        RCX
    };
    l.lift.branch(Cond::Eq, count, ZERO, target);
    Ok(())
}

/// LOOP, LOOPE, LOOPNE. No flag changes.
fn looping(l: &mut Lifting, zero_is_clear: Option<bool>) -> Result<(), Unknown> {
    let target = l.target()?;
    let short = l.insn.op_code().address_size() == 32;
    if short {
        l.lift.binary(BinaryOp::Add32, RCX, RCX, Operand::Imm(-1));
    } else {
        l.lift.binary(BinaryOp::Add, RCX, RCX, Operand::Imm(-1));
    }
    let Some(negate) = zero_is_clear else {
        l.lift.branch(Cond::Ne, RCX, ZERO, target);
        return Ok(());
    };
    l.lift.set_if(FlagCond::Zero, negate, temp::TEST);
    l.lift.binary(BinaryOp::Ne, temp::FIRST, RCX, Operand::Reg(ZERO));
    l.lift.binary(BinaryOp::And, temp::FIRST, temp::FIRST, Operand::Reg(temp::TEST));
    l.lift.branch(Cond::Ne, temp::FIRST, ZERO, target);
    Ok(())
}

/// CLC, STC, CMC.
fn change(l: &mut Lifting, op: BinaryOp, with: i32) -> Result<(), Unknown> {
    l.lift.get_flags(temp::FIRST);
    l.lift.binary(op, temp::FIRST, temp::FIRST, Operand::Imm(with));
    l.lift.set_flags(temp::FIRST);
    Ok(())
}

/// C, P, A, Z, S: what LAHF and SAHF move.
const LOW_FLAGS: i32 = 0xd5;

/// LAHF.
fn lahf(l: &mut Lifting) -> Result<(), Unknown> {
    l.lift.get_flags(temp::FIRST);
    l.lift.binary(BinaryOp::And, temp::FIRST, temp::FIRST, Operand::Imm(LOW_FLAGS));
    l.lift.binary(BinaryOp::Or, temp::FIRST, temp::FIRST, Operand::Imm(2));
    l.write(Place::High(RAX), Size::Bits8, temp::FIRST);
    Ok(())
}

/// SAHF.
fn sahf(l: &mut Lifting) -> Result<(), Unknown> {
    l.lift.get_flags(temp::FIRST);
    l.lift.binary(BinaryOp::And, temp::FIRST, temp::FIRST, Operand::Imm(!LOW_FLAGS));
    let value = l.read(Place::High(RAX), Size::Bits8, temp::SECOND);
    l.lift.binary(BinaryOp::And, temp::SECOND, value, Operand::Imm(LOW_FLAGS));
    l.lift.binary(BinaryOp::Or, temp::FIRST, temp::FIRST, Operand::Reg(temp::SECOND));
    l.lift.set_flags(temp::FIRST);
    Ok(())
}
