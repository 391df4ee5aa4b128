//! The stack, as pushes and pops see it: through RSP, ESP or SP, in the segment in SS ("Stacks", SDM vol. 1).

use emu_core::engine::flags::Size;
use emu_core::engine::uop::{BinaryOp, Operand};
use iced_x86::Register;

use super::operands::unsigned;
use super::{Lifting, Memory, Place, Unknown, size_of};
use crate::registers::{RSP, temp};
use crate::shadow_stack;

impl Lifting<'_> {
    /// What the instruction moves the stack pointer by.
    pub(crate) fn stack_step(&self) -> Result<Size, Unknown> {
        size_of(self.insn.stack_pointer_increment().unsigned_abs() as usize).ok_or(Unknown)
    }

    /// The stack pointer's size.
    pub(super) fn stack_size(&self) -> Size {
        match (self.mode.is_64(), self.mode.wide_stack) {
            (true, _) => Size::Bits64,
            (_, true) => Size::Bits32,
            _ => Size::Bits16,
        }
    }

    /// Pushes a register that is none of the temporaries of addresses.
    pub(crate) fn push(&mut self, size: Size, value: u8) {
        let step = i32::from(size.bytes());
        if self.mode.is_64() {
            return self.lift.store_back(unsigned(size), RSP, value, -step);
        }
        let m = self.on_stack(RSP, -step, size, true);
        self.store(size, m, value);
        self.lift.binary(BinaryOp::Add, temp::INDEX, RSP, Operand::Imm(-step));
        self.write(Place::Register(RSP), self.stack_size(), temp::INDEX);
    }

    /// Pushes a return address on the shadow stack too: neither pointer moves before both stacks have taken it.
    pub(super) fn push_twice(&mut self, size: Size, value: u8) {
        let step = i32::from(size.bytes());
        let m = self.on_stack(RSP, -step, size, true);
        self.store(size, m, value);
        shadow_stack::lift_push(self, size);
        self.drop_from_stack(-step);
    }

    /// Pops into a register, which is written last.
    pub(crate) fn pop(&mut self, size: Size, d: u8) {
        let step = i32::from(size.bytes());
        if self.mode.is_64() {
            return self.lift.load_past(unsigned(size), d, RSP, step);
        }
        let t = if d == RSP { temp::FIRST } else { d };
        self.peek(size, t);
        self.drop_from_stack(step);
        self.move_to(d, t);
    }

    /// Loads what is on top of the stack.
    pub(crate) fn peek(&mut self, size: Size, d: u8) {
        let m = self.on_stack(RSP, 0, size, false);
        self.load(unsigned(size), d, m);
    }

    /// Moves the stack pointer up.
    pub(crate) fn drop_from_stack(&mut self, bytes: i32) {
        if self.mode.is_64() {
            return self.lift.binary(BinaryOp::Add, RSP, RSP, Operand::Imm(bytes));
        }
        self.lift.binary(BinaryOp::Add, temp::INDEX, RSP, Operand::Imm(bytes));
        self.write(Place::Register(RSP), self.stack_size(), temp::INDEX);
    }

    /// A place in the stack segment, from a register that is as wide as the stack pointer.
    pub(super) fn on_stack(&mut self, base: u8, offset: i32, size: Size, writes: bool) -> Memory {
        let m = Memory::from(base, offset);
        if self.mode.is_64() {
            return m;
        }
        let m = self.truncated(m, self.stack_size().bytes().into());
        self.linear(m, Register::SS, size.bytes().into(), writes)
    }
}
