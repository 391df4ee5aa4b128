//! "M" Extension for Integer Multiplication and Division.

use emu_core::engine::uop::BinaryOp;

use super::Does::Lift;
use super::{Row, row};
use crate::cpu::Ext;

const M: &[Ext] = &[Ext::M];

pub(crate) const ROWS: &[Row] = &[
    row("0000001 ..... ..... 000 ..... 0110011", "mul", M, Lift(|l, i| l.reg(i, BinaryOp::Mul))),
    row("0000001 ..... ..... 001 ..... 0110011", "mulh", M, Lift(|l, i| l.reg(i, BinaryOp::MulHigh))),
    row("0000001 ..... ..... 010 ..... 0110011", "mulhsu", M, Lift(|l, i| l.reg(i, BinaryOp::MulHighsu))),
    row("0000001 ..... ..... 011 ..... 0110011", "mulhu", M, Lift(|l, i| l.reg(i, BinaryOp::MulHighu))),
    row("0000001 ..... ..... 100 ..... 0110011", "div", M, Lift(|l, i| l.reg(i, BinaryOp::Div))),
    row("0000001 ..... ..... 101 ..... 0110011", "divu", M, Lift(|l, i| l.reg(i, BinaryOp::Divu))),
    row("0000001 ..... ..... 110 ..... 0110011", "rem", M, Lift(|l, i| l.reg(i, BinaryOp::Rem))),
    row("0000001 ..... ..... 111 ..... 0110011", "remu", M, Lift(|l, i| l.reg(i, BinaryOp::Remu))),
    row("0000001 ..... ..... 000 ..... 0111011", "mulw", M, Lift(|l, i| l.reg(i, BinaryOp::MulW))),
    row("0000001 ..... ..... 100 ..... 0111011", "divw", M, Lift(|l, i| l.reg(i, BinaryOp::DivW))),
    row("0000001 ..... ..... 101 ..... 0111011", "divuw", M, Lift(|l, i| l.reg(i, BinaryOp::DivuW))),
    row("0000001 ..... ..... 110 ..... 0111011", "remw", M, Lift(|l, i| l.reg(i, BinaryOp::RemW))),
    row("0000001 ..... ..... 111 ..... 0111011", "remuw", M, Lift(|l, i| l.reg(i, BinaryOp::RemuW))),
];
