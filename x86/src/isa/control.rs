//! "Control Transfer Instructions" within a segment, and "Flag Control Instructions" (SDM vol. 1, 5.1.7, 5.1.11).

use emu_core::engine::flags::{CARRY, FlagCond, Size};
use emu_core::engine::uop::{BinaryOp, Cond, Operand, UnaryOp, Width};
use iced_x86::{Code, Mnemonic, OpKind};

use super::{Lifting, Place, Unknown, condition, size_of};
use crate::branch::{self, Kind};
use crate::exception::Exception;
use crate::ibt::Tracker;
use crate::registers::{RAX, RCX, RSP, SSP, ZERO, temp};
use crate::{ibt, shadow_stack, system};
use emu_core::engine::Lift;

pub(super) fn lift(l: &mut Lifting) -> Result<(), Unknown> {
    match l.mnemonic() {
        Mnemonic::Jmp => jmp(l),
        Mnemonic::Call => call(l),
        Mnemonic::Ret => ret(l),
        Mnemonic::Jrcxz | Mnemonic::Jecxz | Mnemonic::Jcxz => jcxz(l),
        Mnemonic::Loop => looping(l, None),
        Mnemonic::Loope => looping(l, Some(false)),
        Mnemonic::Loopne => looping(l, Some(true)),
        Mnemonic::Nop => Ok(()),
        Mnemonic::Endbr64 | Mnemonic::Endbr32 => {
            ibt::lift_endbranch(l);
            Ok(())
        }
        Mnemonic::Rdsspd | Mnemonic::Rdsspq => rdssp(l),
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
                l.branch_to(target, Condition::Flags(cond, negate));
                Ok(())
            }
            _ => Err(Unknown),
        },
    }
}

/// What a conditional branch looks at.
#[derive(Clone, Copy)]
enum Condition {
    /// Flags, or the opposite.
    Flags(FlagCond, bool),
    /// A register that is compared with 0.
    Register(Cond, u8),
}

impl Condition {
    fn opposite(self) -> Self {
        match self {
            Condition::Flags(cond, negate) => Condition::Flags(cond, !negate),
            Condition::Register(cond, r) => Condition::Register(cond.negated(), r),
        }
    }

    /// Leaves for a linear address if it holds.
    fn branch(self, lift: &mut Lift, target: u64) {
        match self {
            Condition::Flags(cond, negate) => lift.branch_if(cond, negate, target),
            Condition::Register(cond, r) => lift.branch(cond, r, ZERO, target),
        }
    }

    /// Brings it into [`temp::TEST`].
    fn test(self, lift: &mut Lift) {
        match self {
            Condition::Flags(cond, negate) => lift.set_if(cond, negate, temp::TEST),
            Condition::Register(cond, r) => lift.binary(cond.value(), temp::TEST, r, Operand::Reg(ZERO)),
        }
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

    /// The code segment has this instruction pointer.
    fn has(&self, target: u64) -> bool {
        target <= self.mode.cs_limit.into() || self.mode.is_64()
    }

    /// It is canonical, however many bits linear addresses have.
    fn is_near(&self, target: u64) -> bool {
        const BITS: u32 = 48;
        !self.mode.is_64() || (target << (64 - BITS)) as i64 >> (64 - BITS) == target as i64
    }

    /// Raises #GP(0) where a target that the block knows is not canonical: not there, but here.
    fn require(&mut self, target: u64) {
        if !self.is_near(target) {
            self.lift.constant(temp::TARGET, target);
            system::check_target(self.lift);
        }
    }

    /// Branches to an instruction pointer if a condition holds, or raises #GP(0) where that is beyond the code segment's limit.
    fn branch_to(&mut self, target: u64, condition: Condition) {
        let linear = self.mode.linear(target);
        if !self.is_near(target) {
            let next = self.next();
            condition.test(self.lift);
            self.lift.branch(Cond::Eq, temp::TEST, ZERO, next);
            self.go_to(target, Kind::Conditional);
        } else if self.mode.watches_branches {
            condition.test(self.lift);
            self.lift.constant(temp::TARGET, linear);
            let beyond = if self.has(target) { 0 } else { branch::BEYOND_LIMIT };
            system::near_branch(self.lift, Kind::Conditional as u32 | beyond);
            self.lift.branch(Cond::Ne, temp::TEST, ZERO, linear);
        } else if self.has(target) {
            condition.branch(self.lift, linear);
        } else {
            let next = self.next();
            condition.opposite().branch(self.lift, next);
            system::raise(self.lift, Exception::gp(0));
        }
    }

    /// Leaves for an instruction pointer.
    fn go_to(&mut self, target: u64, kind: Kind) {
        if !self.has(target) {
            return system::raise(self.lift, Exception::gp(0));
        }
        self.require(target);
        let linear = self.mode.linear(target);
        if self.mode.watches_branches {
            self.lift.constant(temp::TARGET, linear);
            system::near_branch(self.lift, kind as u32);
        }
        self.lift.goto(linear);
    }

    /// Leaves for the linear address in [`temp::TARGET`].
    fn go_to_target(&mut self, kind: Kind) {
        if self.mode.watches_branches {
            system::near_branch(self.lift, kind as u32);
        }
        self.lift.goto_reg(temp::TARGET, 0, 0, None);
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
        l.go_to(target, Kind::RelativeJump);
        return Ok(());
    }
    let (to, size) = indirect(l)?;
    if size == Size::Bits64 && !l.mode.watches_branches && l.mode.tracker == Tracker::Off {
        match l.lift.known(to) {
            Some(target) => l.go_to(target, Kind::IndirectJump),
            None => l.lift.goto_reg(to, 0, 0, None),
        }
    } else {
        l.bring_target(to, size);
        ibt::lift_branch(l);
        l.go_to_target(Kind::IndirectJump);
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
        Ok(target) if !l.has(target) => {
            system::raise(l.lift, Exception::gp(0));
            return Ok(());
        }
        Ok(target) => l.require(target),
        Err(Unknown) => {
            let (to, size) = indirect(l)?;
            l.bring_target(to, size);
        }
    }
    let size = l.stack_step()?;
    l.lift.constant(temp::FIRST, l.insn.next_ip());
    // "AND DEST != 0": a call of the next instruction only asks where it is.
    if l.mode.shadow_stack && target != Ok(l.insn.next_ip()) {
        l.push_twice(size, temp::FIRST);
    } else {
        l.push(size, temp::FIRST);
    }
    match target {
        Ok(target) => l.go_to(target, Kind::RelativeCall),
        Err(Unknown) => {
            ibt::lift_branch(l);
            l.go_to_target(Kind::IndirectCall);
        }
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
    if size == Size::Bits64 && !l.mode.shadow_stack {
        l.lift.load_past(Width::U64, temp::TARGET, RSP, step);
    } else {
        l.peek(size, temp::TARGET);
        l.bring_target(temp::TARGET, size);
        if l.mode.shadow_stack {
            shadow_stack::lift_pop(l, size);
        }
        l.drop_from_stack(step);
    }
    l.go_to_target(Kind::Return);
    Ok(())
}

/// RDSSPD, RDSSPQ: "If the shadow stack is not enabled, RDSSP performs as a NOP."
fn rdssp(l: &mut Lifting) -> Result<(), Unknown> {
    if l.mode.shadow_stack {
        let (to, size) = (l.place(0)?, l.size(0)?);
        l.write(to, size, SSP);
    }
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
    l.branch_to(target, Condition::Register(Cond::Eq, count));
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
        l.branch_to(target, Condition::Register(Cond::Ne, count));
        return Ok(());
    };
    l.lift.set_if(FlagCond::Zero, negate, temp::TEST);
    l.lift.binary(BinaryOp::Ne, temp::FIRST, count, Operand::Reg(ZERO));
    l.lift.binary(BinaryOp::And, temp::FIRST, temp::FIRST, Operand::Reg(temp::TEST));
    l.branch_to(target, Condition::Register(Cond::Ne, temp::FIRST));
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
