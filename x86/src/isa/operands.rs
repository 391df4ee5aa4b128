//! Operands: where they are, how they are read and written.

use emu_core::engine::alu::AluOp;
use emu_core::engine::flags::{FlagCond, Size};
use emu_core::engine::uop::{BinaryOp, Operand, UnaryOp, Width};
use iced_x86::{InstructionInfoFactory, OpAccess, OpKind, Register};

use super::{Lifting, Unknown, size_of};
use crate::linear;
use crate::registers::{FS_BASE, GS_BASE, RAX, ZERO, temp};

/// An effective address: base, index and by how much it is shifted, displacement.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Memory {
    base: u8,
    index: Option<(u8, u8)>,
    offset: i32,
}

impl Memory {
    /// Memory at the address in a register.
    pub(super) fn at(base: u8) -> Self {
        Memory { base, index: None, offset: 0 }
    }

    /// Memory at an offset from the address in a register.
    pub(super) fn from(base: u8, offset: i32) -> Self {
        Memory { base, index: None, offset }
    }

    /// The sum of two registers.
    pub(super) fn sum(base: u8, index: u8) -> Self {
        Memory { base, index: Some((index, 0)), offset: 0 }
    }
}

/// Where an operand is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// A general register.
    Register(u8),
    /// Bits 15 to 8 of RAX, RCX, RDX or RBX: AH, CH, DH, BH.
    High(u8),
    /// Memory.
    Memory(Memory),
    /// A constant, sign-extended.
    Immediate(u64),
}

/// The number of a general register.
pub(crate) fn general(r: Register) -> Result<u8, Unknown> {
    if r.is_gpr() { Ok(r.full_register().number() as u8) } else { Err(Unknown) }
}

/// A load's width for a value of this size, zero-extended.
pub(crate) fn unsigned(size: Size) -> Width {
    match size {
        Size::Bits8 => Width::U8,
        Size::Bits16 => Width::U16,
        Size::Bits32 => Width::U32,
        Size::Bits64 => Width::U64,
    }
}

fn signed(size: Size) -> Width {
    match size {
        Size::Bits8 => Width::I8,
        Size::Bits16 => Width::I16,
        Size::Bits32 => Width::I32,
        Size::Bits64 => Width::U64,
    }
}

impl Lifting<'_> {
    /// The size of operand `i`.
    pub(crate) fn size(&self, i: u32) -> Result<Size, Unknown> {
        let bytes = match self.insn.op_kind(i) {
            OpKind::Register => self.insn.op_register(i).size(),
            OpKind::Memory => self.insn.memory_size().size(),
            OpKind::Immediate8 => 1,
            OpKind::Immediate16 | OpKind::Immediate8to16 => 2,
            OpKind::Immediate32 | OpKind::Immediate8to32 => 4,
            OpKind::Immediate64 | OpKind::Immediate8to64 | OpKind::Immediate32to64 => 8,
            _ => return Err(Unknown),
        };
        size_of(bytes).ok_or(Unknown)
    }

    /// Where operand `i` is. An effective address that takes more than an access can do is brought into a register.
    pub(super) fn place(&mut self, i: u32) -> Result<Place, Unknown> {
        Ok(match self.insn.op_kind(i) {
            OpKind::Register => match self.insn.op_register(i) {
                r @ (Register::AH | Register::CH | Register::DH | Register::BH) => Place::High(general(r)?),
                r => Place::Register(general(r)?),
            },
            OpKind::Memory => Place::Memory(self.memory()?),
            _ => Place::Immediate(self.insn.try_immediate(i).map_err(|_| Unknown)?),
        })
    }

    /// The memory operand's address, its segment's base included ("Specifying an Offset", "Segmentation in 64-bit mode").
    pub(super) fn memory(&mut self) -> Result<Memory, Unknown> {
        let m = self.offset()?;
        Ok(self.segmented(m))
    }

    /// What LEA computes.
    pub(super) fn effective_address(&mut self) -> Result<Memory, Unknown> {
        self.offset()
    }

    /// Whether no access through a segment needs to look at it.
    pub(super) fn is_flat(&self, segment: Register) -> bool {
        self.mode.is_64() || self.mode.flat && matches!(segment, Register::DS | Register::ES | Register::SS)
    }

    /// The linear address of an offset into the memory operand's segment, of all the operand's bytes.
    pub(super) fn segmented(&mut self, m: Memory) -> Memory {
        let segment = self.insn.memory_segment();
        if self.is_flat(segment) {
            return self.linear(m, segment, 0, false);
        }
        let operand = (0..self.insn.op_count()).find(|i| self.insn.op_kind(*i) == OpKind::Memory);
        let mut factory = InstructionInfoFactory::new();
        let uses = operand.map_or(OpAccess::Read, |i| factory.info(self.insn).op_access(i));
        let writes = !matches!(uses, OpAccess::Read | OpAccess::CondRead | OpAccess::NoMemAccess);
        let size = self.insn.memory_size().size() as u32;
        self.linear(m, segment, size.max(1), writes)
    }

    /// The linear address of `size` bytes at an offset into a segment. In 64-bit mode only FS and GS move it; a segment that is not all of
    /// the linear address space is looked at when the instruction runs.
    pub(super) fn linear(&mut self, m: Memory, segment: Register, size: u32, writes: bool) -> Memory {
        let base = match segment {
            Register::FS => FS_BASE,
            Register::GS => GS_BASE,
            _ if self.mode.is_64() || self.mode.flat && segment != Register::CS => return m,
            _ => ZERO,
        };
        let offset = self.in_register(m);
        if self.mode.is_64() {
            self.lift.binary(BinaryOp::Add, temp::ADDRESS, offset, Operand::Reg(base));
        } else {
            self.move_to(temp::ADDRESS, offset);
            linear::lift(self.lift, segment.number(), size, writes);
        }
        Memory::at(temp::ADDRESS)
    }

    /// The offset in the segment.
    fn offset(&mut self) -> Result<Memory, Unknown> {
        let (base, index) = (self.insn.memory_base(), self.insn.memory_index());
        let number = |r: Register| if r == Register::None { Ok(ZERO) } else { general(r) };
        let displacement = self.insn.memory_displacement64();
        if base.is_ip() {
            // iced-x86 has added the address of the next instruction.
            let short = base == Register::EIP;
            let value = if short { displacement & 0xffff_ffff } else { displacement };
            self.lift.constant(temp::ADDRESS, value);
            return Ok(Memory::at(temp::ADDRESS));
        }
        let size = self.address_size();
        if base == Register::None && index == Register::None {
            self.lift.constant(temp::ADDRESS, displacement & u64::MAX >> (64 - 8 * size.clamp(2, 8)));
            return Ok(Memory::at(temp::ADDRESS));
        }
        let scale = self.insn.memory_index_scale().trailing_zeros() as u8;
        let index = if index == Register::None { None } else { Some((number(index)?, scale)) };
        let mut m = Memory { base: number(base)?, index, offset: displacement as i32 };
        if base.full_register() == Register::RSP && self.popped != 0 {
            let sum = self.in_register(m);
            m = Memory { base: sum, index: None, offset: self.popped.into() };
        }
        Ok(self.truncated(m, size))
    }

    /// The memory operand's address size in bytes.
    pub(super) fn address_size(&self) -> usize {
        match [self.insn.memory_base(), self.insn.memory_index()].into_iter().find(|r| r.is_gpr()) {
            Some(r) => r.size(),
            None => self.insn.memory_displ_size() as usize,
        }
    }

    /// An offset with an address size of 2, 4 or 8 bytes: if it is less than 8 it wraps, and is zero-extended.
    pub(super) fn truncated(&mut self, m: Memory, size: usize) -> Memory {
        let op = match size {
            2 => UnaryOp::Zext16,
            4 => UnaryOp::Zext32,
            _ => return m,
        };
        let sum = self.in_register(m);
        self.lift.unary(op, temp::ADDRESS, sum);
        Memory::at(temp::ADDRESS)
    }

    /// An address, as the value of a register.
    pub(super) fn in_register(&mut self, m: Memory) -> u8 {
        let Memory { base, index, offset } = m;
        let mut sum = base;
        if let Some((index, scale)) = index {
            let op = match scale {
                0 => BinaryOp::Add,
                1 => BinaryOp::Shl1Add,
                2 => BinaryOp::Shl2Add,
                _ => BinaryOp::Shl3Add,
            };
            self.lift.binary(op, temp::ADDRESS, index, Operand::Reg(base));
            sum = temp::ADDRESS;
        }
        if offset != 0 {
            self.lift.binary(BinaryOp::Add, temp::ADDRESS, sum, Operand::Imm(offset));
            sum = temp::ADDRESS;
        }
        sum
    }

    pub(super) fn load(&mut self, width: Width, d: u8, m: Memory) {
        match m.index {
            None => self.lift.load(width, d, m.base, m.offset),
            Some(index) => self.lift.load_indexed(width, d, m.base, index, m.offset),
        }
    }

    pub(super) fn store(&mut self, size: Size, m: Memory, value: u8) {
        match m.index {
            None => self.lift.store(unsigned(size), m.base, value, m.offset),
            Some(index) => self.lift.store_indexed(unsigned(size), m.base, index, value, m.offset),
        }
    }

    /// The register that holds an operand's value, whose bits above its size are anything. `t` is where it is put if it is in
    /// none.
    pub(super) fn read(&mut self, place: Place, size: Size, t: u8) -> u8 {
        match place {
            Place::Register(r) => return r,
            Place::High(r) => self.lift.binary(BinaryOp::Shr, t, r, Operand::Imm(8)),
            Place::Memory(m) => self.load(unsigned(size), t, m),
            Place::Immediate(value) => self.lift.constant(t, value),
        }
        t
    }

    /// Likewise, as the second operand of an operation.
    pub(super) fn read_operand(&mut self, place: Place, size: Size, t: u8) -> Operand {
        match place {
            Place::Immediate(value) if i32::try_from(value as i64).is_ok() => Operand::Imm(value as i32),
            _ => Operand::Reg(self.read(place, size, t)),
        }
    }

    /// Likewise, sign-extended or zero-extended to 64 bits, in `t`.
    pub(super) fn read_extended(&mut self, place: Place, size: Size, sign: bool, t: u8) {
        let from = match place {
            Place::Memory(m) => return self.load(if sign { signed(size) } else { unsigned(size) }, t, m),
            Place::Immediate(value) => return self.lift.constant(t, value),
            Place::Register(r) => r,
            Place::High(r) => {
                self.lift.binary(BinaryOp::Shr, t, r, Operand::Imm(8));
                t
            }
        };
        let op = match (size, sign) {
            (Size::Bits8, true) => UnaryOp::Sext8,
            (Size::Bits8, false) => UnaryOp::Zext8,
            (Size::Bits16, true) => UnaryOp::Sext16,
            (Size::Bits16, false) => UnaryOp::Zext16,
            (Size::Bits32, true) => UnaryOp::Sext32,
            (Size::Bits32, false) => UnaryOp::Zext32,
            (Size::Bits64, _) => UnaryOp::Move,
        };
        self.lift.unary(op, t, from);
    }

    /// Reads an operand that [`Lifting::write`] will write to: whatever can fault does so now. Returns the register that holds
    /// it, and the place to write to.
    pub(super) fn read_to_update(&mut self, place: Place, size: Size, t: u8) -> (u8, Place) {
        let Place::Memory(m) = place else { return (self.read(place, size, t), place) };
        let m = match m.index {
            None => m,
            Some(_) => Memory { base: self.in_register(m), index: None, offset: 0 },
        };
        self.lift.load_to_update(unsigned(size), t, m.base, m.offset);
        (t, Place::Memory(m))
    }

    /// Writes what an operation makes of register `a` and `b` to an operand.
    pub(super) fn update_by(&mut self, op: AluOp, size: Size, to: Place, a: u8, b: Operand) {
        if let Place::Register(d) = to {
            self.lift.alu(op, size, d, a, b);
        } else {
            self.lift.alu(op, size, temp::FIRST, a, b);
            self.write(to, size, temp::FIRST);
        }
    }

    /// Writes the low bits of register `value` to an operand.
    pub(super) fn write(&mut self, place: Place, size: Size, value: u8) {
        match (place, size) {
            (Place::Register(d), Size::Bits64) if d == value => {}
            (Place::Register(d), Size::Bits64) => self.lift.unary(UnaryOp::Move, d, value),
            (Place::Register(d), Size::Bits32) => self.lift.unary(UnaryOp::Zext32, d, value),
            (Place::Register(d), Size::Bits16) => self.lift.binary(BinaryOp::Merge16, d, d, Operand::Reg(value)),
            (Place::Register(d), Size::Bits8) => self.lift.binary(BinaryOp::Merge8, d, d, Operand::Reg(value)),
            (Place::High(d), _) => self.lift.binary(BinaryOp::MergeHigh8, d, d, Operand::Reg(value)),
            (Place::Memory(m), _) => self.store(size, m, value),
            (Place::Immediate(_), _) => unreachable!("a destination is no constant"),
        }
    }

    /// Brings the memory operand's address into [`temp::ADDRESS`].
    pub(crate) fn address_in_register(&mut self) -> Result<(), Unknown> {
        let m = self.memory()?;
        let r = self.in_register(m);
        self.move_to(temp::ADDRESS, r);
        Ok(())
    }

    /// Brings a 16-bit operand into [`temp::FIRST`].
    pub(crate) fn bring_word(&mut self, i: u32) -> Result<(), Unknown> {
        let place = self.place(i)?;
        self.bring(place, Size::Bits16, temp::FIRST);
        Ok(())
    }

    /// Writes a selector in [`temp::FIRST`] to the first operand: zero-extended in a register, 16 bits in memory.
    pub(crate) fn write_selector(&mut self) -> Result<(), Unknown> {
        let place = self.place(0)?;
        let size = if matches!(place, Place::Memory(_)) { Size::Bits16 } else { self.size(0)? };
        self.write(place, size, temp::FIRST);
        Ok(())
    }

    /// Brings a far pointer into [`temp::FIRST`], the selector, and [`temp::SECOND`], the offset. Returns the offset's size.
    pub(crate) fn bring_far_pointer(&mut self, i: u32) -> Result<Size, Unknown> {
        let (offset, size) = match self.insn.op_kind(i) {
            OpKind::FarBranch16 => (self.insn.far_branch16().into(), Size::Bits16),
            OpKind::FarBranch32 => (u64::from(self.insn.far_branch32()), Size::Bits32),
            _ => {
                let size = size_of(self.insn.memory_size().size() - 2).ok_or(Unknown)?;
                self.address_in_register()?;
                self.lift.load(unsigned(size), temp::SECOND, temp::ADDRESS, 0);
                self.lift.load(Width::U16, temp::FIRST, temp::ADDRESS, size.bytes().into());
                return Ok(size);
            }
        };
        self.lift.constant(temp::SECOND, offset);
        self.lift.constant(temp::FIRST, self.insn.far_branch_selector().into());
        Ok(size)
    }

    /// Brings BOUND's index into [`temp::FIRST`], and its bounds into [`temp::SECOND`] and [`temp::THIRD`].
    pub(crate) fn bring_bounds(&mut self, size: Size) -> Result<(), Unknown> {
        self.address_in_register()?;
        self.lift.load(unsigned(size), temp::SECOND, temp::ADDRESS, 0);
        self.lift.load(unsigned(size), temp::THIRD, temp::ADDRESS, size.bytes().into());
        let index = self.place(0)?;
        self.bring(index, size, temp::FIRST);
        Ok(())
    }

    /// Writes [`temp::FIRST`] to the first operand, a register, if Z is set.
    pub(crate) fn write_if_zero(&mut self) -> Result<(), Unknown> {
        let (Place::Register(d), size) = (self.place(0)?, self.size(0)?) else { return Err(Unknown) };
        self.lift.set_if(FlagCond::Zero, false, temp::TEST);
        self.lift.unary(UnaryOp::Move, temp::THIRD, d);
        self.write(Place::Register(temp::THIRD), size, temp::FIRST);
        self.lift.move_if(d, temp::THIRD, temp::TEST);
        Ok(())
    }

    /// Brings both operands, words, into [`temp::FIRST`] and [`temp::SECOND`], lets `what` change the first, and writes it to a register.
    /// In memory, at [`temp::ADDRESS`], `what` writes it.
    pub(crate) fn update_word(&mut self, what: impl FnOnce(&mut Self)) -> Result<(), Unknown> {
        let (to, from) = (self.place(0)?, self.place(1)?);
        if let Place::Memory(m) = to {
            let r = self.in_register(m);
            self.move_to(temp::ADDRESS, r);
            self.lift.load(Width::U16, temp::FIRST, temp::ADDRESS, 0);
        } else {
            self.bring(to, Size::Bits16, temp::FIRST);
        }
        self.bring(from, Size::Bits16, temp::SECOND);
        what(self);
        if let Place::Register(_) = to {
            self.write(to, Size::Bits16, temp::FIRST);
        }
        Ok(())
    }

    /// The accumulator of a size: AL, AX, EAX, RAX.
    pub(super) fn accumulator() -> Place {
        Place::Register(RAX)
    }
}
