//! RV64I, and what is encoded among it: FENCE.I, PAUSE, conditional operations, may-be-operations (volume I, "RV32I",
//! "RV64I", "Zifencei", "Zihintpause", "Zicond", "Zimop").

use emu_core::engine::uop::{BinaryOp, Cond, Operand, UnaryOp, Width};
use emu_core::engine::{Step, Stop, StopKind};

use super::Does::{Call, CallAndEnd, Lift};
use super::{H, Insn, Lifting, Row, TEMP, row};
use crate::cpu::Ext;
use crate::privileged::cause;

const I: &[Ext] = &[Ext::I];

pub(crate) const ROWS: &[Row] = &[
    row(".................... ..... 0110111", "lui", I, Lift(|l, i| l.constant(i.rd(), i.imm_u() as i64 as u64))),
    row(
        ".................... ..... 0010111",
        "auipc",
        I,
        Lift(|l, i| l.constant(i.rd(), l.pc.wrapping_add(i.imm_u() as i64 as u64))),
    ),
    row(".................... ..... 1101111", "jal", I, Lift(jal)),
    row("............ ..... 000 ..... 1100111", "jalr", I, Lift(jalr)),
    row("....... ..... ..... 000 ..... 1100011", "beq", I, Lift(|l, i| branch(l, i, Cond::Eq))),
    row("....... ..... ..... 001 ..... 1100011", "bne", I, Lift(|l, i| branch(l, i, Cond::Ne))),
    row("....... ..... ..... 100 ..... 1100011", "blt", I, Lift(|l, i| branch(l, i, Cond::Lt))),
    row("....... ..... ..... 101 ..... 1100011", "bge", I, Lift(|l, i| branch(l, i, Cond::Ge))),
    row("....... ..... ..... 110 ..... 1100011", "bltu", I, Lift(|l, i| branch(l, i, Cond::Ltu))),
    row("....... ..... ..... 111 ..... 1100011", "bgeu", I, Lift(|l, i| branch(l, i, Cond::Geu))),
    row("............ ..... 000 ..... 0000011", "lb", I, Lift(|l, i| load(l, i, Width::I8))),
    row("............ ..... 001 ..... 0000011", "lh", I, Lift(|l, i| load(l, i, Width::I16))),
    row("............ ..... 010 ..... 0000011", "lw", I, Lift(|l, i| load(l, i, Width::I32))),
    row("............ ..... 011 ..... 0000011", "ld", I, Lift(|l, i| load(l, i, Width::U64))),
    row("............ ..... 100 ..... 0000011", "lbu", I, Lift(|l, i| load(l, i, Width::U8))),
    row("............ ..... 101 ..... 0000011", "lhu", I, Lift(|l, i| load(l, i, Width::U16))),
    row("............ ..... 110 ..... 0000011", "lwu", I, Lift(|l, i| load(l, i, Width::U32))),
    row("....... ..... ..... 000 ..... 0100011", "sb", I, Lift(|l, i| store(l, i, Width::U8))),
    row("....... ..... ..... 001 ..... 0100011", "sh", I, Lift(|l, i| store(l, i, Width::U16))),
    row("....... ..... ..... 010 ..... 0100011", "sw", I, Lift(|l, i| store(l, i, Width::U32))),
    row("....... ..... ..... 011 ..... 0100011", "sd", I, Lift(|l, i| store(l, i, Width::U64))),
    row("............ ..... 000 ..... 0010011", "addi", I, Lift(addi)),
    row("............ ..... 010 ..... 0010011", "slti", I, Lift(|l, i| l.imm(i, BinaryOp::Lt))),
    row("............ ..... 011 ..... 0010011", "sltiu", I, Lift(|l, i| l.imm(i, BinaryOp::Ltu))),
    row("............ ..... 100 ..... 0010011", "xori", I, Lift(|l, i| l.imm(i, BinaryOp::Xor))),
    row("............ ..... 110 ..... 0010011", "ori", I, Lift(|l, i| l.imm(i, BinaryOp::Or))),
    row("............ ..... 111 ..... 0010011", "andi", I, Lift(|l, i| l.imm(i, BinaryOp::And))),
    row("000000 ...... ..... 001 ..... 0010011", "slli", I, Lift(|l, i| l.shamt(i, BinaryOp::Shl))),
    row("000000 ...... ..... 101 ..... 0010011", "srli", I, Lift(|l, i| l.shamt(i, BinaryOp::Shr))),
    row("010000 ...... ..... 101 ..... 0010011", "srai", I, Lift(|l, i| l.shamt(i, BinaryOp::Sar))),
    row("0000000 ..... ..... 000 ..... 0110011", "add", I, Lift(|l, i| l.reg(i, BinaryOp::Add))),
    row("0100000 ..... ..... 000 ..... 0110011", "sub", I, Lift(|l, i| l.reg(i, BinaryOp::Sub))),
    row("0000000 ..... ..... 001 ..... 0110011", "sll", I, Lift(|l, i| l.reg(i, BinaryOp::Shl))),
    row("0000000 ..... ..... 010 ..... 0110011", "slt", I, Lift(|l, i| l.reg(i, BinaryOp::Lt))),
    row("0000000 ..... ..... 011 ..... 0110011", "sltu", I, Lift(|l, i| l.reg(i, BinaryOp::Ltu))),
    row("0000000 ..... ..... 100 ..... 0110011", "xor", I, Lift(|l, i| l.reg(i, BinaryOp::Xor))),
    row("0000000 ..... ..... 101 ..... 0110011", "srl", I, Lift(|l, i| l.reg(i, BinaryOp::Shr))),
    row("0100000 ..... ..... 101 ..... 0110011", "sra", I, Lift(|l, i| l.reg(i, BinaryOp::Sar))),
    row("0000000 ..... ..... 110 ..... 0110011", "or", I, Lift(|l, i| l.reg(i, BinaryOp::Or))),
    row("0000000 ..... ..... 111 ..... 0110011", "and", I, Lift(|l, i| l.reg(i, BinaryOp::And))),
    row("............ ..... 000 ..... 0001111", "fence", I, Call(fence)),
    row("............ ..... 001 ..... 0001111", "fence.i", &[Ext::Zifencei], CallAndEnd(fence_i)),
    row("............ ..... 000 ..... 0011011", "addiw", I, Lift(|l, i| l.imm(i, BinaryOp::AddW))),
    row("0000000 ..... ..... 001 ..... 0011011", "slliw", I, Lift(|l, i| l.shamt(i, BinaryOp::ShlW))),
    row("0000000 ..... ..... 101 ..... 0011011", "srliw", I, Lift(|l, i| l.shamt(i, BinaryOp::ShrW))),
    row("0100000 ..... ..... 101 ..... 0011011", "sraiw", I, Lift(|l, i| l.shamt(i, BinaryOp::SarW))),
    row("0000000 ..... ..... 000 ..... 0111011", "addw", I, Lift(|l, i| l.reg(i, BinaryOp::AddW))),
    row("0100000 ..... ..... 000 ..... 0111011", "subw", I, Lift(|l, i| l.reg(i, BinaryOp::SubW))),
    row("0000000 ..... ..... 001 ..... 0111011", "sllw", I, Lift(|l, i| l.reg(i, BinaryOp::ShlW))),
    row("0000000 ..... ..... 101 ..... 0111011", "srlw", I, Lift(|l, i| l.reg(i, BinaryOp::ShrW))),
    row("0100000 ..... ..... 101 ..... 0111011", "sraw", I, Lift(|l, i| l.reg(i, BinaryOp::SarW))),
    row(
        "0000111 ..... ..... 101 ..... 0110011",
        "czero.eqz",
        &[Ext::Zicond],
        Lift(|l, i| l.reg(i, BinaryOp::ZeroIfZero)),
    ),
    row(
        "0000111 ..... ..... 111 ..... 0110011",
        "czero.nez",
        &[Ext::Zicond],
        Lift(|l, i| l.reg(i, BinaryOp::ZeroIfNonzero)),
    ),
    row("1.00..0111.. ..... 100 ..... 1110011", "mop.r", &[Ext::Zimop], Lift(|l, i| l.constant(i.rd(), 0))),
    row("1.00..1 ..... ..... 100 ..... 1110011", "mop.rr", &[Ext::Zimop], Lift(|l, i| l.constant(i.rd(), 0))),
];

/// What instructions of the common forms become. A result for x0 is none.
impl Lifting<'_> {
    pub(super) fn constant(&mut self, rd: u8, value: u64) {
        if rd != 0 {
            self.lift.constant(rd, value);
        }
    }

    pub(super) fn unary(&mut self, i: Insn, op: UnaryOp) {
        if i.rd() != 0 {
            self.lift.unary(op, i.rd(), i.rs1());
        }
    }

    pub(super) fn reg(&mut self, i: Insn, op: BinaryOp) {
        if i.rd() != 0 {
            self.lift.binary(op, i.rd(), i.rs1(), Operand::Reg(i.rs2()));
        }
    }

    pub(super) fn imm(&mut self, i: Insn, op: BinaryOp) {
        if i.rd() != 0 {
            self.lift.binary(op, i.rd(), i.rs1(), Operand::Imm(i.imm_i()));
        }
    }

    /// The shift amount is the low 6 bits of the immediate; the operation takes what it needs of them.
    pub(super) fn shamt(&mut self, i: Insn, op: BinaryOp) {
        if i.rd() != 0 {
            self.lift.binary(op, i.rd(), i.rs1(), Operand::Imm(i.imm_i() & 63));
        }
    }

    fn next(&self) -> u64 {
        self.pc.wrapping_add(self.len.into())
    }
}

/// ADDI, with its forms MV and LI.
fn addi(l: &mut Lifting, i: Insn) {
    match (i.rs1(), i.imm_i()) {
        (0, imm) => l.constant(i.rd(), imm as i64 as u64),
        (_, 0) => l.unary(i, UnaryOp::Move),
        _ => l.imm(i, BinaryOp::Add),
    }
}

fn jal(l: &mut Lifting, i: Insn) {
    let target = l.pc.wrapping_add(i.imm_j() as i64 as u64);
    if !l.may_jump_to(target) {
        return l.checked_jump(i);
    }
    let next = l.next();
    l.constant(i.rd(), next);
    l.lift.goto(target);
}

fn jalr(l: &mut Lifting, i: Insn) {
    if !l.cpu.has(Ext::C) {
        return l.checked_jump(i);
    }
    let next = l.next();
    let link = (i.rd() != 0).then_some((i.rd(), next));
    if i.rd() == i.rs1() && i.rd() != 0 && l.lift.known(i.rs1()).is_none() {
        l.lift.binary(BinaryOp::Add, TEMP, i.rs1(), Operand::Imm(i.imm_i()));
        l.lift.goto_reg(TEMP, 0, 1, link);
    } else {
        l.lift.goto_reg(i.rs1(), i.imm_i(), 1, link);
    }
}

fn branch(l: &mut Lifting, i: Insn, cond: Cond) {
    let target = l.pc.wrapping_add(i.imm_b() as i64 as u64);
    if !l.may_jump_to(target) {
        return l.checked_jump(i);
    }
    l.lift.branch(cond, i.rs1(), i.rs2(), target);
}

/// A jump whose target may be misaligned: without C, addresses are multiples of 4. The exception is the jump's own
/// (volume I, "Control Transfer Instructions").
pub(crate) fn checked_jump(h: &mut H, i: Insn) -> Step {
    let (x, y) = (h.core.regs[i.rs1() as usize], h.core.regs[i.rs2() as usize]);
    let target = match i.0 & 0x7f {
        0x6f => h.core.pc.wrapping_add(i.imm_j() as i64 as u64),
        0x67 => x.wrapping_add(i.imm_i() as i64 as u64) & !1,
        _ => {
            let cond = [Cond::Eq, Cond::Ne, Cond::Eq, Cond::Eq, Cond::Lt, Cond::Ge, Cond::Ltu, Cond::Geu];
            if !cond[usize::from(i.rm())].holds(x, y) {
                return Ok(());
            }
            h.core.pc.wrapping_add(i.imm_b() as i64 as u64)
        }
    };
    if target & 3 != 0 {
        return Err(Stop::exception(cause::INSTRUCTION_MISALIGNED, target));
    }
    if i.0 & 0x7f != 0x63 && i.rd() != 0 {
        h.core.regs[i.rd() as usize] = h.core.next_pc;
    }
    h.core.next_pc = target;
    Ok(())
}

fn load(l: &mut Lifting, i: Insn, width: Width) {
    let rd = if i.rd() == 0 { emu_core::engine::uop::SINK } else { i.rd() };
    l.lift.load(width, rd, i.rs1(), i.imm_i());
}

fn store(l: &mut Lifting, i: Insn, width: Width) {
    l.lift.store(width, i.rs1(), i.rs2(), i.imm_s());
}

/// FENCE: one host thread runs all harts in program order. One of its encodings is PAUSE.
fn fence(h: &mut H, i: Insn) -> Step {
    const PAUSE: u32 = 0x0100_000f;
    if i.0 == PAUSE && h.arch.cpu.has(Ext::Zihintpause) {
        return Err(Stop::of(StopKind::Yield));
    }
    Ok(())
}

/// FENCE.I: whatever is written kills translated code at once.
fn fence_i(_: &mut H, _: Insn) -> Step {
    Ok(())
}
