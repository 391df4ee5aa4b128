//! The hand that an instruction set writes micro-ops with.

use super::alu::AluOp;
use super::encode::Lifted;
use super::flags::{FlagCond, Known, Size};
use super::uop::{BinaryOp, Cond, Operand, UnaryOp, Uop, Width};

/// Builds a block. Rules for whoever lifts:
///
/// - an instruction may fault only before its first write to a register that lives on;
/// - what changes translation, rights, or how code is lifted is a call that ends the block.
#[derive(Debug, Default)]
pub struct Lift {
    pub(crate) block: Lifted,
    insn: u8,
    ended: bool,
    known_flags: Known,
}

impl Lift {
    pub(crate) fn begin(&mut self, index: usize) {
        self.insn = index as u8;
        self.block.notes.truncate(index);
        self.block.notes.push(0);
    }

    pub(crate) fn ended(&self) -> bool {
        self.ended
    }

    /// Notes something of the instruction, such as its bits: [`Core::note`](super::Core::note) when it has been stopped.
    pub fn note(&mut self, note: u32) {
        *self.block.notes.last_mut().expect("an instruction has begun") = note;
    }

    fn push(&mut self, uop: Uop) {
        self.block.uops.push((self.insn, uop));
    }

    /// The value of a register, if the micro-op before has made it a constant.
    pub fn known(&self, r: u8) -> Option<u64> {
        match self.block.uops.last() {
            Some((_, Uop::Const { d, value })) if *d == r => Some(*value),
            _ => None,
        }
    }

    /// `d = value`
    pub fn constant(&mut self, d: u8, value: u64) {
        if self.known(d).is_some() {
            self.block.uops.pop(); // nobody has read it
        }
        self.push(Uop::Const { d, value });
    }

    /// `d = op(a)`
    pub fn unary(&mut self, op: UnaryOp, d: u8, a: u8) {
        self.push(Uop::Unary { op, d, a });
    }

    /// `d = op(a, b)`
    pub fn binary(&mut self, op: BinaryOp, d: u8, a: u8, b: Operand) {
        match (self.known(a), b) {
            (Some(value), Operand::Imm(imm)) => self.constant(d, op.apply(value, imm as i64 as u64)),
            _ => self.push(Uop::Binary { op, d, a, b }),
        }
    }

    /// `d = op(a, b)` in this size, with flags.
    pub fn alu(&mut self, op: AluOp, size: Size, d: u8, a: u8, b: Operand) {
        self.push(Uop::Alu { op, size, d, a, b });
        self.known_flags = op.leaves();
    }

    /// `d = 1` if the flags fulfil the condition (or do not, if `negate`), else 0.
    pub fn set_if(&mut self, cond: FlagCond, negate: bool, d: u8) {
        match cond.compared(self.known_flags, negate) {
            Some((cond, a, b)) => self.binary(cond.value(), d, a, Operand::Reg(b)),
            None => self.push(Uop::SetIf { cond, negate, d }),
        }
    }

    /// Leaves for `target` likewise, else goes on.
    pub fn branch_if(&mut self, cond: FlagCond, negate: bool, target: u64) {
        match cond.compared(self.known_flags, negate) {
            Some((cond, a, b)) => self.branch(cond, a, b, target),
            None => self.push(Uop::BranchIf { cond, negate, target }),
        }
    }

    /// `d = all flags`
    pub fn get_flags(&mut self, d: u8) {
        self.push(Uop::GetFlags { d });
    }

    /// All flags become those in `a`.
    pub fn set_flags(&mut self, a: u8) {
        self.push(Uop::SetFlags { a });
        self.known_flags = Known::Nothing;
    }

    /// `d = a` if `test` is not 0.
    pub fn move_if(&mut self, d: u8, a: u8, test: u8) {
        self.push(Uop::MoveIf { d, a, test });
    }

    /// `d = memory[a + (b << scale) + offset]`
    pub fn load_indexed(&mut self, width: Width, d: u8, a: u8, (b, scale): (u8, u8), offset: i32) {
        self.push(Uop::LoadIndexed { width, d, a, b, scale, offset });
    }

    /// `memory[a + (b << scale) + offset] = value`
    pub fn store_indexed(&mut self, width: Width, a: u8, (b, scale): (u8, u8), value: u8, offset: i32) {
        self.push(Uop::StoreIndexed { width, a, b, scale, value, offset });
    }

    /// `d = memory[a + offset]`, of what a store to the same place follows: it faults as the store would, and the store
    /// does not.
    pub fn load_to_update(&mut self, width: Width, d: u8, a: u8, offset: i32) {
        self.push(Uop::LoadToUpdate { width, d, a, offset });
    }

    /// `memory[a + offset] = b`, then `a = a + offset`.
    pub fn store_back(&mut self, width: Width, a: u8, b: u8, offset: i32) {
        self.push(Uop::StoreBack { width, a, b, offset });
    }

    /// `d = memory[a]`, and `a = a + step` before `d` is written.
    pub fn load_past(&mut self, width: Width, d: u8, a: u8, step: i32) {
        self.push(Uop::LoadPast { width, d, a, step });
    }

    /// `d = memory[a + offset]`
    pub fn load(&mut self, width: Width, d: u8, a: u8, offset: i32) {
        self.push(Uop::Load { width, d, a, offset });
    }

    /// `memory[a + offset] = b`
    pub fn store(&mut self, width: Width, a: u8, b: u8, offset: i32) {
        self.push(Uop::Store { width, a, b, offset });
    }

    /// Leaves for `target` if the condition holds, else goes on.
    pub fn branch(&mut self, cond: Cond, a: u8, b: u8, target: u64) {
        self.push(Uop::Branch { cond, a, b, target });
    }

    /// Leaves for `target`; ends the block.
    pub fn goto(&mut self, target: u64) {
        self.push(Uop::Goto { target });
        self.ended = true;
    }

    /// Leaves for `(a + offset) & !clear`, having written a register if `link` says which and what; ends the block. Unless
    /// `a` is [known](Lift::known), it is not that register.
    pub fn goto_reg(&mut self, a: u8, offset: i32, clear: u8, link: Option<(u8, u64)>) {
        let known = self.known(a).map(|value| value.wrapping_add(offset as i64 as u64) & !u64::from(clear));
        if let Some((d, next)) = link {
            debug_assert!(known.is_some() || d != a, "the base would be gone");
            self.constant(d, next);
        }
        match known {
            Some(target) => self.goto(target),
            None => {
                self.push(Uop::GotoReg { a, offset, clear });
                self.ended = true;
            }
        }
    }

    /// Calls architecture code and goes on behind it.
    pub fn call(&mut self, function: u16, operand: u32) {
        self.known_flags = Known::Nothing;
        self.push(Uop::Call { function, operand, ends: false });
    }

    /// Calls architecture code and ends the block.
    pub fn call_and_end(&mut self, function: u16, operand: u32) {
        self.push(Uop::Call { function, operand, ends: true });
        self.ended = true;
    }
}
