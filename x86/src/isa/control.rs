//! "Control Transfer Instructions" within a segment, and "Flag Control Instructions" (SDM vol. 1, 5.1.7, 5.1.11).

use emu_core::engine::flags::{CARRY, FlagCond, Size};
use emu_core::engine::uop::{BinaryOp, Cond, Operand, UnaryOp, Width};
use iced_x86::{Code, Mnemonic, OpKind};

use super::{Lifting, Place, Unknown, condition, size_of};
use crate::exception::Exception;
use crate::registers::{RAX, RCX, RSP, ZERO, temp};
use crate::system;

pub(super) fn lift(l: &mut Lifting) -> Result<(), Unknown> {
    match l.mnemonic() {
        Mnemonic::Jmp => jmp(l),
        Mnemonic::Call => call(l),
        Mnemonic::Ret => ret(l),
        Mnemonic::Jrcxz | Mnemonic::Jecxz | Mnemonic::Jcxz => jcxz(l),
        Mnemonic::Loop => looping(l, None),
        Mnemonic::Loope => looping(l, Some(false)),
        Mnemonic::Loopne => looping(l, Some(true)),
        Mnemonic::Nop | Mnemonic::Endbr64 | Mnemonic::Endbr32 => Ok(()),
        // "If the shadow stack is not enabled, RDSSP performs as a NOP."
        Mnemonic::Rdsspd | Mnemonic::Rdsspq => Ok(()),
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
                l.branch_to(target, |l, opposite, to| l.lift.branch_if(cond, negate ^ opposite, to));
                Ok(())
            }
            _ => Err(Unknown),
        },
    }
}

impl Lifting<'_> {
    /// Where a relative branch leads: an instruction pointer.
    fn target(&self) -> Result<u64, Unknown> {
        match self.insn.op0_kind() {
            OpKind::NearBranch64 => Ok(self.insn.near_branch64()),
            OpKind::NearBranch32 => Ok(self.insn.near_branch32().into()),
            OpKind::NearBranch16 => Ok(self.insn.near_branch16().into()),
            _ => Err(Unknown),
        }
    }

    /// Branches to an instruction pointer if the condition that `branch` is given holds, or raises #GP(0) where that is beyond the
    /// code segment's limit. `branch` also says whether the opposite is meant.
    fn branch_to(&mut self, target: u64, branch: impl FnOnce(&mut Self, bool, u64)) {
        if target <= self.mode.cs_limit.into() || self.mode.is_64() {
            let target = self.mode.linear(target);
            return branch(self, false, target);
        }
        let next = self.next();
        branch(self, true, next);
        system::raise(self.lift, Exception::gp(0));
    }

    /// Leaves for an instruction pointer.
    fn go_to(&mut self, target: u64) {
        if target <= self.mode.cs_limit.into() || self.mode.is_64() {
            self.lift.goto(self.mode.linear(target));
        } else {
            system::raise(self.lift, Exception::gp(0));
        }
    }

    /// Brings an instruction pointer of this size in `r` into [`temp::TARGET`], as a linear address. Beyond the limit it raises #GP(0).
    fn bring_target(&mut self, r: u8, size: Size) {
        let op = match size {
            Size::Bits64 => UnaryOp::Move,
            Size::Bits32 => UnaryOp::Zext32,
            _ => UnaryOp::Zext16,
        };
        if r != temp::TARGET || op != UnaryOp::Move {
            self.lift.unary(op, temp::TARGET, r);
        }
        if !self.mode.is_64() && !self.mode.has_flat_code() {
            system::check_target(self.lift);
        }
    }
}

/// JMP, near.
fn jmp(l: &mut Lifting) -> Result<(), Unknown> {
    if let Ok(target) = l.target() {
        l.go_to(target);
        return Ok(());
    }
    let (to, size) = indirect(l)?;
    if size == Size::Bits64 {
        l.lift.goto_reg(to, 0, 0, None);
    } else {
        l.bring_target(to, size);
        l.lift.goto_reg(temp::TARGET, 0, 0, None);
    }
    Ok(())
}

/// The register that holds where an indirect near branch leads, and its size.
fn indirect(l: &mut Lifting) -> Result<(u8, Size), Unknown> {
    if !l.insn.is_jmp_near_indirect() && !l.insn.is_call_near_indirect() {
        return Err(Unknown);
    }
    let size = l.size(0)?;
    let to = l.place(0)?;
    Ok((l.read(to, size, temp::TARGET), size))
}

/// CALL, near: the target is read, and found to be within the limit, before the stack pointer moves.
fn call(l: &mut Lifting) -> Result<(), Unknown> {
    let target = l.target();
    match target {
        Ok(target) if target > l.mode.cs_limit.into() && !l.mode.is_64() => {
            l.go_to(target);
            return Ok(());
        }
        Ok(_) => {}
        Err(Unknown) => {
            let (to, size) = indirect(l)?;
            l.bring_target(to, size);
        }
    }
    let size = l.stack_step()?;
    l.lift.constant(temp::FIRST, l.insn.next_ip());
    l.push(size, temp::FIRST);
    match target {
        Ok(target) => l.go_to(target),
        Err(Unknown) => l.lift.goto_reg(temp::TARGET, 0, 0, None),
    }
    Ok(())
}

/// RET, near. The stack pointer moves when the target has been found to be within the limit.
fn ret(l: &mut Lifting) -> Result<(), Unknown> {
    let size = match l.code() {
        Code::Retnw | Code::Retnw_imm16 => Size::Bits16,
        Code::Retnd | Code::Retnd_imm16 => Size::Bits32,
        _ => Size::Bits64,
    };
    let step = l.insn.stack_pointer_increment();
    if size == Size::Bits64 {
        l.lift.load_past(Width::U64, temp::TARGET, RSP, step);
    } else {
        l.peek(size, temp::TARGET);
        l.bring_target(temp::TARGET, size);
        l.drop_from_stack(step);
    }
    l.lift.goto_reg(temp::TARGET, 0, 0, None);
    Ok(())
}

/// JCXZ, JECXZ, JRCXZ: the address size says which register counts.
fn jcxz(l: &mut Lifting) -> Result<(), Unknown> {
    let target = l.target()?;
    let count = match l.mnemonic() {
        Mnemonic::Jrcxz => RCX,
        m => {
            let op = if m == Mnemonic::Jecxz { UnaryOp::Zext32 } else { UnaryOp::Zext16 };
            l.lift.unary(op, temp::FIRST, RCX);
            temp::FIRST
        }
    };
    l.branch_to(target, |l, negate, to| l.lift.branch(if negate { Cond::Ne } else { Cond::Eq }, count, ZERO, to));
    Ok(())
}

/// LOOP, LOOPE, LOOPNE. No flag changes. RCX, ECX or CX counts, as the address size says.
fn looping(l: &mut Lifting, zero_is_clear: Option<bool>) -> Result<(), Unknown> {
    let target = l.target()?;
    let address = size_of(l.insn.op_code().address_size() as usize / 8).ok_or(Unknown)?;
    let count = if address == Size::Bits64 { RCX } else { temp::INDEX };
    l.lift.binary(BinaryOp::Add, count, RCX, Operand::Imm(-1));
    l.write(Place::Register(RCX), address, count);
    if address == Size::Bits16 {
        l.lift.unary(UnaryOp::Zext16, temp::FIRST, RCX);
    }
    let count = if address == Size::Bits16 { temp::FIRST } else { RCX };
    let Some(negate) = zero_is_clear else {
        l.branch_to(target, |l, no, to| l.lift.branch(if no { Cond::Eq } else { Cond::Ne }, count, ZERO, to));
        return Ok(());
    };
    l.lift.set_if(FlagCond::Zero, negate, temp::TEST);
    l.lift.binary(BinaryOp::Ne, temp::FIRST, count, Operand::Reg(ZERO));
    l.lift.binary(BinaryOp::And, temp::FIRST, temp::FIRST, Operand::Reg(temp::TEST));
    l.branch_to(target, |l, no, to| l.lift.branch(if no { Cond::Eq } else { Cond::Ne }, temp::FIRST, ZERO, to));
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
