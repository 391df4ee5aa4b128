//! "String Instructions" (SDM vol. 1, 5.1.8): one element a turn. With a repeat prefix each turn is an instruction in time, and the
//! instruction branches to itself, so that interrupts, faults and the end of a turn fall between elements as they do in processors.

use emu_core::engine::flags::{AluOp, FlagCond, Size};
use emu_core::engine::uop::{BinaryOp, Cond, Operand, SINK, UnaryOp};
use iced_x86::{Mnemonic, OpKind, Register};

use super::operands::unsigned;
use super::{Lifting, Place, Unknown, size_of};
use crate::registers::{DIRECTION, FS_BASE, GS_BASE, RAX, RCX, RDI, RSI, ZERO, temp};

pub(super) fn lift(l: &mut Lifting) -> Result<(), Unknown> {
    let (what, bytes) = match l.mnemonic() {
        Mnemonic::Movsb => (Does::Move, 1),
        Mnemonic::Movsw => (Does::Move, 2),
        Mnemonic::Movsd if l.insn.is_string_instruction() => (Does::Move, 4),
        Mnemonic::Movsq => (Does::Move, 8),
        Mnemonic::Stosb => (Does::Store, 1),
        Mnemonic::Stosw => (Does::Store, 2),
        Mnemonic::Stosd => (Does::Store, 4),
        Mnemonic::Stosq => (Does::Store, 8),
        Mnemonic::Lodsb => (Does::Load, 1),
        Mnemonic::Lodsw => (Does::Load, 2),
        Mnemonic::Lodsd => (Does::Load, 4),
        Mnemonic::Lodsq => (Does::Load, 8),
        Mnemonic::Cmpsb => (Does::Compare, 1),
        Mnemonic::Cmpsw => (Does::Compare, 2),
        Mnemonic::Cmpsd if l.insn.is_string_instruction() => (Does::Compare, 4),
        Mnemonic::Cmpsq => (Does::Compare, 8),
        Mnemonic::Scasb => (Does::Scan, 1),
        Mnemonic::Scasw => (Does::Scan, 2),
        Mnemonic::Scasd => (Does::Scan, 4),
        Mnemonic::Scasq => (Does::Scan, 8),
        _ => return Err(Unknown),
    };
    Turn::of(l, what, size_of(bytes).ok_or(Unknown)?)?.lift(l);
    Ok(())
}

/// What is done with an element.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Does {
    /// MOVS: from RSI to RDI.
    Move,
    /// STOS: the accumulator to RDI.
    Store,
    /// LODS: from RSI to the accumulator.
    Load,
    /// CMPS: RSI with RDI.
    Compare,
    /// SCAS: the accumulator with RDI.
    Scan,
}

/// One turn.
struct Turn {
    what: Does,
    size: Size,
    /// The address size is 32 bits.
    short: bool,
    /// FS or GS, whose base is added to RSI.
    segment: Option<u8>,
}

impl Turn {
    fn of(l: &Lifting, what: Does, size: Size) -> Result<Self, Unknown> {
        let kinds = || (0..l.insn.op_count()).map(|i| l.insn.op_kind(i));
        let is_16 = |k| matches!(k, OpKind::MemorySegSI | OpKind::MemorySegDI | OpKind::MemoryESDI);
        if kinds().any(is_16) {
            return Err(Unknown);
        }
        let short = kinds().any(|k| matches!(k, OpKind::MemorySegESI | OpKind::MemorySegEDI | OpKind::MemoryESEDI));
        let segment = match l.insn.segment_prefix() {
            Register::FS => Some(FS_BASE),
            Register::GS => Some(GS_BASE),
            _ => None,
        };
        Ok(Turn { what, size, short, segment })
    }

    fn lift(&self, l: &mut Lifting) {
        let (repeats, here, next) = (l.insn.has_rep_prefix() || l.insn.has_repne_prefix(), l.insn.ip(), l.next());
        if repeats {
            let count = self.register(l, RCX, temp::TEST);
            l.lift.branch(Cond::Eq, count, ZERO, next);
        }
        self.element(l);
        if !repeats {
            return;
        }
        self.step(l, RCX, Operand::Imm(-1));
        match self.what {
            Does::Compare | Does::Scan => {
                // REPE goes on while they are equal, REPNE while they are not.
                l.lift.set_if(FlagCond::Zero, l.insn.has_repne_prefix(), temp::TEST);
                l.lift.binary(BinaryOp::Ne, temp::FIRST, RCX, Operand::Reg(ZERO));
                l.lift.binary(BinaryOp::And, temp::FIRST, temp::FIRST, Operand::Reg(temp::TEST));
                l.lift.branch(Cond::Ne, temp::FIRST, ZERO, here);
            }
            _ => l.lift.branch(Cond::Ne, RCX, ZERO, here),
        }
    }

    /// The value of RCX, RSI or RDI in the address size.
    fn register(&self, l: &mut Lifting, r: u8, t: u8) -> u8 {
        if self.short {
            l.lift.unary(UnaryOp::Zext32, t, r);
            t
        } else {
            r
        }
    }

    fn step(&self, l: &mut Lifting, r: u8, by: Operand) {
        l.lift.binary(if self.short { BinaryOp::Add32 } else { BinaryOp::Add }, r, r, by);
    }

    /// Where RSI leads.
    fn source(&self, l: &mut Lifting) -> u8 {
        let r = self.register(l, RSI, temp::ADDRESS);
        let Some(segment) = self.segment else { return r };
        l.lift.binary(BinaryOp::Add, temp::ADDRESS, r, Operand::Reg(segment));
        temp::ADDRESS
    }

    fn element(&self, l: &mut Lifting) {
        let width = unsigned(self.size);
        if matches!(self.what, Does::Move | Does::Load | Does::Compare) {
            let at = self.source(l);
            l.lift.load(width, temp::FIRST, at, 0);
        }
        let to = if self.what == Does::Load { ZERO } else { self.register(l, RDI, temp::INDEX) };
        match self.what {
            Does::Move => l.lift.store(width, to, temp::FIRST, 0),
            Does::Store => l.lift.store(width, to, RAX, 0),
            Does::Load => l.write(Place::Register(RAX), self.size, temp::FIRST),
            Does::Compare => {
                l.lift.load(width, temp::SECOND, to, 0);
                l.lift.alu(AluOp::Sub, self.size, SINK, temp::FIRST, Operand::Reg(temp::SECOND));
            }
            Does::Scan => {
                l.lift.load(width, temp::SECOND, to, 0);
                l.lift.alu(AluOp::Sub, self.size, SINK, RAX, Operand::Reg(temp::SECOND));
            }
        }
        // The size, or less the size: (size ^ -1) + 1 is its negative.
        l.lift.binary(BinaryOp::Xor, temp::THIRD, DIRECTION, Operand::Imm(self.size.bytes().into()));
        l.lift.binary(BinaryOp::Sub, temp::THIRD, temp::THIRD, Operand::Reg(DIRECTION));
        if matches!(self.what, Does::Move | Does::Load | Does::Compare) {
            self.step(l, RSI, Operand::Reg(temp::THIRD));
        }
        if self.what != Does::Load {
            self.step(l, RDI, Operand::Reg(temp::THIRD));
        }
    }
}
