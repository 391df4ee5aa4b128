//! Instructions about the processor itself: what it is and counts, its MSRs, its caches, waiting.

use emu_core::engine::{Lift, Step};
use iced_x86::{Code, Instruction, Mnemonic as M, OpKind, Register};

use crate::broadcast::{invlpgb, tlbsync};
use crate::caches::{clflush, clzero, invd, invpcid, mcommit, movdir64b, movdiri, wbinvd, wbnoinvd};
use crate::isa::Lifting;
use crate::mode::Mode;
use crate::model_specific::{cpuid, rdmsr, rdpid, rdpmc, rdpru, rdrand, rdtsc, read_base, write_base, wrmsr};
use crate::monitor::{monitor, monitorx, mwait, mwaitx, pause, tpause, umonitor, umwait};
use crate::msr_instructions::{rdmsrlist, wrmsrlist, wrmsrns};
use crate::processor::P;
use crate::shadow_stack_instructions::{clrssbsy, incssp, rstorssp, saveprevssp, setssbsy, wrss, wruss};

/// Functions of this module: calls from here on.
pub(crate) const FIRST_FUNCTION: u16 = 0x200;

/// Where an instruction's operands are when it is called.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Operands {
    /// Where the manual puts them.
    Implied,
    /// Likewise; RAX is an address of the instruction's address size.
    ImpliedAddress,
    /// A register.
    Register(u32),
    /// An address in a register, in the segment of a prefix.
    Pointer(u32),
    /// Memory, whose address is brought into [`temp::ADDRESS`](crate::registers::temp), and a register.
    Memory(u32),
}
use Operands::{Implied, ImpliedAddress, Memory, Pointer, Register as InRegister};

/// An instruction: its name, where its operands are, whether the block ends behind it.
struct Row {
    mnemonic: M,
    operands: Operands,
    ends: bool,
    run: fn(&mut P, Operand) -> Step,
}

const fn row(mnemonic: M, operands: Operands, ends: bool, run: fn(&mut P, Operand) -> Step) -> Row {
    Row { mnemonic, operands, ends, run }
}

const ROWS: &[Row] = &[
    row(M::Cpuid, Implied, false, cpuid),
    row(M::Rdmsr, Implied, false, rdmsr),
    row(M::Wrmsr, Implied, true, wrmsr),
    row(M::Wrmsrns, Implied, true, wrmsrns),
    row(M::Rdmsrlist, Implied, false, rdmsrlist),
    row(M::Wrmsrlist, Implied, true, wrmsrlist),
    row(M::Rdtsc, Implied, false, rdtsc::<false>),
    row(M::Rdtscp, Implied, false, rdtsc::<true>),
    row(M::Rdpid, InRegister(0), false, rdpid),
    row(M::Rdpmc, Implied, false, rdpmc),
    row(M::Rdpru, Implied, false, rdpru),
    row(M::Rdfsbase, InRegister(0), false, read_base::<0>),
    row(M::Rdgsbase, InRegister(0), false, read_base::<1>),
    row(M::Wrfsbase, InRegister(0), false, write_base::<0>),
    row(M::Wrgsbase, InRegister(0), false, write_base::<1>),
    row(M::Rdrand, InRegister(0), false, rdrand::<false>),
    row(M::Rdseed, InRegister(0), false, rdrand::<true>),
    row(M::Monitor, Pointer(0), false, monitor),
    row(M::Mwait, Implied, true, mwait),
    row(M::Monitorx, Pointer(0), false, monitorx),
    row(M::Mwaitx, Implied, true, mwaitx),
    row(M::Umonitor, Pointer(0), false, umonitor),
    row(M::Umwait, InRegister(0), true, umwait),
    row(M::Tpause, InRegister(0), true, tpause),
    row(M::Pause, Implied, true, pause),
    row(M::Clflush, Memory(0), false, clflush),
    row(M::Clflushopt, Memory(0), false, clflush),
    row(M::Clwb, Memory(0), false, clflush),
    row(M::Cldemote, Implied, false, hint),
    row(M::Clzero, Pointer(0), false, clzero),
    row(M::Wbinvd, Implied, false, wbinvd),
    row(M::Wbnoinvd, Implied, false, wbnoinvd),
    row(M::Invd, Implied, false, invd),
    row(M::Movdiri, Memory(1), false, movdiri),
    row(M::Movdir64b, Memory(0), false, movdir64b),
    row(M::Serialize, Implied, true, hint),
    row(M::Invpcid, Memory(0), true, invpcid),
    row(M::Invlpgb, ImpliedAddress, true, invlpgb),
    row(M::Tlbsync, Implied, true, tlbsync),
    row(M::Mcommit, Implied, false, mcommit),
    row(M::Incsspd, InRegister(0), false, incssp),
    row(M::Incsspq, InRegister(0), false, incssp),
    row(M::Saveprevssp, Implied, false, saveprevssp),
    row(M::Rstorssp, Memory(0), false, rstorssp),
    row(M::Wrssd, Memory(1), false, wrss),
    row(M::Wrssq, Memory(1), false, wrss),
    row(M::Wrussd, Memory(1), false, wruss),
    row(M::Wrussq, Memory(1), false, wruss),
    row(M::Setssbsy, Implied, false, setssbsy),
    row(M::Clrssbsy, Memory(0), false, clrssbsy),
];

/// What is left to say of an instruction's operands when it runs.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Operand(u32);

impl Operand {
    /// A register's number, its size in bytes, and the segment register of a pointer.
    fn new(register: u32, size: usize, segment: Register) -> Self {
        Operand(register | (size as u32) << 8 | (segment.number() as u32) << 16)
    }

    /// The register.
    pub(crate) fn register(self) -> usize {
        (self.0 & 0xff) as usize
    }

    /// Its size in bytes.
    pub(crate) fn size(self) -> u8 {
        (self.0 >> 8) as u8
    }

    /// Likewise, in ES.
    pub(crate) fn in_es(self) -> Self {
        Operand(self.0 & 0xffff)
    }

    /// The segment of a pointer.
    pub(crate) fn segment(self) -> usize {
        (self.0 >> 16 & 7) as usize
    }
}

/// It is heard, and nothing has to be done.
fn hint(_: &mut P, _: Operand) -> Step {
    Ok(())
}

/// The address size of an instruction without operands, in bytes.
fn address_size(insn: &Instruction) -> usize {
    match insn.code() {
        Code::Invlpgbw => 2,
        Code::Invlpgbd => 4,
        _ => 8,
    }
}

/// Lifts an instruction of this module; false if it is none.
pub(crate) fn lift(lift: &mut Lift, insn: &Instruction, mode: &Mode) -> bool {
    let Some(i) = ROWS.iter().position(|r| r.mnemonic == insn.mnemonic()) else { return false };
    let row = &ROWS[i];
    let register = |n: u32| match insn.op_kind(n) {
        OpKind::Register => {
            let r = insn.op_register(n);
            Operand::new(r.full_register().number() as u32, r.size(), segment(insn))
        }
        _ => Operand::new(0, insn.memory_size().size(), segment(insn)),
    };
    let operand = match row.operands {
        Implied => Operand(0),
        ImpliedAddress => Operand::new(0, address_size(insn), segment(insn)),
        InRegister(n) | Pointer(n) => register(n),
        Memory(n) => {
            if Lifting::new(lift, insn, mode).address_in_register().is_err() {
                return false;
            }
            register(n)
        }
    };
    let function = FIRST_FUNCTION + i as u16;
    if row.ends {
        lift.call_and_end(function, operand.0);
    } else {
        lift.call(function, operand.0);
    }
    true
}

/// The segment of an address that is implied: DS, unless a prefix names another.
fn segment(insn: &Instruction) -> Register {
    if insn.has_segment_prefix() { insn.segment_prefix() } else { Register::DS }
}

/// See [`Arch::call`](emu_core::engine::Arch::call).
#[inline(never)]
pub(crate) fn call(h: &mut P, function: u16, operand: u32) -> Step {
    (ROWS[usize::from(function - FIRST_FUNCTION)].run)(h, Operand(operand))
}

#[cfg(test)]
mod tests;
