//! "String Instructions" (SDM vol. 1, 5.1.8): one element is lifted as micro-ops. What has a repeat prefix is a call of
//! [`crate::repeat`], which does many elements at once, and the instruction branches to itself as long as it says so: so interrupts, faults and
//! the end of a turn fall between elements, as they do in processors.

use emu_core::engine::alu::AluOp;
use emu_core::engine::flags::Size;
use emu_core::engine::uop::{BinaryOp, Cond, Operand, SINK};
use iced_x86::{Mnemonic, OpKind, Register};

use super::operands::unsigned;
use super::{Lifting, Memory, Place, Unknown, size_of};
use crate::registers::{DIRECTION, RAX, RDI, RSI, ZERO, temp};
use crate::repeat::{self, Does, Repeat};

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
        Mnemonic::Insb => (Does::Input, 1),
        Mnemonic::Insw => (Does::Input, 2),
        Mnemonic::Insd => (Does::Input, 4),
        Mnemonic::Outsb => (Does::Output, 1),
        Mnemonic::Outsw => (Does::Output, 2),
        Mnemonic::Outsd => (Does::Output, 4),
        _ => return Err(Unknown),
    };
    let size = size_of(bytes).ok_or(Unknown)?;
    let address = (0..l.insn.op_count()).find_map(|i| address_size(l.insn.op_kind(i))).ok_or(Unknown)?;
    let segment = match l.insn.segment_prefix() {
        Register::None => Register::DS,
        r => r,
    };
    let repeats = l.insn.has_rep_prefix() || l.insn.has_repne_prefix();
    if !repeats && !matches!(what, Does::Input | Does::Output) {
        Element { what, size, address, segment }.lift(l);
        return Ok(());
    }
    let until_equal = l.insn.has_repne_prefix();
    let segment = segment.number() as u8;
    repeat::lift(l.lift, Repeat { what, size, address, segment, repeats, until_equal });
    if repeats {
        l.lift.branch(Cond::Ne, temp::TEST, ZERO, l.here());
    }
    Ok(())
}

/// The address size that an operand tells of.
fn address_size(kind: OpKind) -> Option<Size> {
    match kind {
        OpKind::MemorySegSI | OpKind::MemoryESDI => Some(Size::Bits16),
        OpKind::MemorySegESI | OpKind::MemoryESEDI => Some(Size::Bits32),
        OpKind::MemorySegRSI | OpKind::MemoryESRDI => Some(Size::Bits64),
        _ => None,
    }
}

/// One element.
struct Element {
    what: Does,
    size: Size,
    address: Size,
    /// Where RSI leads.
    segment: Register,
}

impl Element {
    fn lift(&self, l: &mut Lifting) {
        let width = unsigned(self.size);
        if matches!(self.what, Does::Move | Does::Load | Does::Compare) {
            let m = self.at(l, RSI, self.segment, false);
            l.load(width, temp::FIRST, m);
        }
        let writes = matches!(self.what, Does::Move | Does::Store);
        if self.what != Does::Load {
            let m = self.at(l, RDI, Register::ES, writes);
            match self.what {
                Does::Move => l.store(self.size, m, temp::FIRST),
                Does::Store => l.store(self.size, m, RAX),
                _ => l.load(width, temp::SECOND, m),
            }
        }
        match self.what {
            Does::Load => l.write(Place::Register(RAX), self.size, temp::FIRST),
            Does::Compare => l.lift.alu(AluOp::Sub, self.size, SINK, temp::FIRST, Operand::Reg(temp::SECOND)),
            Does::Scan => l.lift.alu(AluOp::Sub, self.size, SINK, RAX, Operand::Reg(temp::SECOND)),
            _ => {}
        }
        // The size, or less the size: (size ^ -1) + 1 is its negative.
        l.lift.binary(BinaryOp::Xor, temp::THIRD, DIRECTION, Operand::Imm(self.size.bytes().into()));
        l.lift.binary(BinaryOp::Sub, temp::THIRD, temp::THIRD, Operand::Reg(DIRECTION));
        if matches!(self.what, Does::Move | Does::Load | Does::Compare) {
            self.step(l, RSI);
        }
        if self.what != Does::Load {
            self.step(l, RDI);
        }
    }

    fn at(&self, l: &mut Lifting, r: u8, segment: Register, writes: bool) -> Memory {
        let m = l.truncated(Memory::at(r), self.address.bytes().into());
        l.linear(m, segment, self.size.bytes().into(), writes)
    }

    fn step(&self, l: &mut Lifting, r: u8) {
        let sum = if self.address == Size::Bits64 { r } else { temp::INDEX };
        l.lift.binary(BinaryOp::Add, sum, r, Operand::Reg(temp::THIRD));
        l.write(Place::Register(r), self.address, sum);
    }
}
