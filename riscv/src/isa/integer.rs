//! RV64I.

use emu_core::engine::uop::{BinaryOp, Operand, SINK};

use super::Does::{Call, Lift};
use super::{H, Insn, Lifting, Row, row};
use crate::cpu::Ext;
use emu_core::engine::Step;

pub(crate) const ROWS: &[Row] = &[
    row("0000000 ..... ..... 000 ..... 0110011", "add", &[Ext::I], Lift(|l, i| reg(l, i, BinaryOp::Add))),
    row("............ ..... 000 ..... 0010011", "addi", &[Ext::I], Lift(|l, i| imm(l, i, BinaryOp::Add))),
    row("............ ..... 000 ..... 0001111", "fence", &[Ext::I], Call(fence)),
];

/// The register that a result goes to.
fn dest(rd: u8) -> u8 {
    if rd == 0 { SINK } else { rd }
}

fn reg(l: &mut Lifting, i: Insn, op: BinaryOp) {
    l.lift.binary(op, dest(i.rd()), i.rs1(), Operand::Reg(i.rs2()));
}

fn imm(l: &mut Lifting, i: Insn, op: BinaryOp) {
    l.lift.binary(op, dest(i.rd()), i.rs1(), Operand::Imm(i.imm_i()));
}

/// FENCE: volume I, "Memory Ordering Instructions". One host thread runs all harts in program order.
fn fence(_: &mut H, _: Insn) -> Step {
    Ok(())
}
