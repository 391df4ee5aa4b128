//! Branches as they retire: what performance counters, last branch records and single-stepping on branches see of them (SDM vol. 3B, "Last
//! Branch, Interrupt, and Exception Recording Overview", "Single-Stepping on Branches"; APM vol. 2, "Control-Transfer Breakpoint Features").
//!
//! As long as nobody watches, code is lifted as if there were no such thing; that somebody does is part of a block's mode. Then a near branch
//! calls [`near`] before it leaves, far transfers go through [`far`], and whatever is delivered comes by at [`delivered`].

use emu_core::engine::{Arch, Step};
use serde::{Deserialize, Serialize};

use crate::exception::Exception;
use crate::interrupt::Source;
use crate::lbr;
use crate::msr::perf;
use crate::predictor::Predictor;
use crate::processor::{P, ProcessorExt, X86};
use crate::registers::temp;

/// What transfers control.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Kind {
    /// Jcc, JCXZ, LOOP and their kin.
    Conditional,
    /// JMP through a register or memory.
    IndirectJump,
    /// JMP to a displacement.
    RelativeJump,
    /// CALL through a register or memory.
    IndirectCall,
    /// CALL to a displacement.
    RelativeCall,
    /// RET, near.
    Return,
    /// Far JMP, CALL, RET, INT n and its kin, IRET, SYSCALL, SYSRET, SYSENTER, SYSEXIT, RSM.
    Far,
    /// An interrupt or exception, which is no instruction.
    Event,
}

impl Kind {
    /// All of them, in the order of their numbers.
    const ALL: [Kind; 8] = [
        Kind::Conditional,
        Kind::IndirectJump,
        Kind::RelativeJump,
        Kind::IndirectCall,
        Kind::RelativeCall,
        Kind::Return,
        Kind::Far,
        Kind::Event,
    ];
}

/// One that has retired.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Branch {
    pub kind: Kind,
    pub taken: bool,
    pub mispredicted: bool,
    /// Linear addresses of the instruction, and of where it led.
    pub from: u64,
    pub to: u64,
    /// What is behind the instruction.
    pub next: u64,
    /// Whether CPL was, and is, 3.
    pub from_user: bool,
    pub to_user: bool,
}

/// Who watches, and what is known of the branches so far.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Watch {
    /// Branches are watched at CPL 0 to 2, and at 3.
    levels: [bool; 2],
    /// The latest instruction took a branch.
    taken: bool,
    predictor: Predictor,
}

impl X86 {
    /// Branches of code at the present privilege level are watched.
    pub(crate) fn watches_branches(&self) -> bool {
        self.msrs.watch.levels[usize::from(self.cpl() == 3)]
    }

    /// RFLAGS.TF stops behind the instruction that has just been retired: any, or one that took a branch where IA32_DEBUGCTL.BTF says so.
    pub(crate) fn step_is_due(&self) -> bool {
        self.msrs.watch.taken || self.debugctl() & lbr::debugctl::BTF == 0
    }

    /// The next instruction begins.
    pub(crate) fn step_begins(&mut self) {
        self.msrs.watch.taken = false;
    }

    /// "Indirect Branch Predictor Barrier".
    pub(crate) fn prediction_barrier(&mut self) {
        self.msrs.watch.predictor.barrier();
    }

    /// Finds out anew who watches. What depends on a block's mode is to be looked at again afterwards.
    pub(crate) fn watch_again(&mut self) {
        perf::watch_again(self);
        let always = self.records_branches() || self.debugctl() & lbr::debugctl::BTF != 0;
        let counted = self.msrs.perf.branch_levels();
        self.msrs.watch.levels = counted.map(|counted| counted || always);
    }
}

/// What a call of [`near`] is told besides the kind: the target is beyond the code segment's limit.
pub(crate) const BEYOND_LIMIT: u32 = 1 << 8;

/// A near branch to the linear address in [`temp::TARGET`] is about to leave. A conditional one is taken if [`temp::TEST`] is not 0.
pub(crate) fn near(h: &mut P, operand: u32) -> Step {
    let kind = Kind::ALL[(operand & 7) as usize];
    let taken = kind != Kind::Conditional || h.reg(temp::TEST) != 0;
    let to = if taken { h.reg(temp::TARGET) } else { h.core.next_pc };
    if taken {
        h.fault_if(operand & BEYOND_LIMIT != 0, Exception::gp(0))?;
        X86::jumps_to(h, to)?;
    }
    let user = h.arch.cpl() == 3;
    let (from, next) = (h.core.pc, h.core.next_pc);
    retired(h, Branch { kind, taken, mispredicted: false, from, to, next, from_user: user, to_user: user });
    Ok(())
}

/// Runs an instruction that may transfer control to another segment or privilege level.
pub(crate) fn far(h: &mut P, instruction: impl FnOnce(&mut P) -> Step) -> Step {
    let from_user = h.arch.cpl() == 3;
    instruction(h)?;
    transferred(h, Kind::Far, h.core.pc, h.core.next_pc, from_user);
    Ok(())
}

/// An event of this source has been delivered behind or at the instruction at `from`; CPL was 3 there if `from_user`.
pub(crate) fn delivered(h: &mut P, source: Source, from: u64, from_user: bool) {
    let kind = match source {
        Source::Software | Source::SoftwareException | Source::Icebp => Kind::Far,
        Source::Exception | Source::External | Source::Nmi => Kind::Event,
    };
    lbr::before_event(h.arch);
    transferred(h, kind, from, h.core.pc, from_user);
}

fn transferred(h: &mut P, kind: Kind, from: u64, to: u64, from_user: bool) {
    let to_user = h.arch.cpl() == 3;
    retired(h, Branch { kind, taken: true, mispredicted: false, from, to, next: to, from_user, to_user });
}

fn retired(h: &mut P, branch: Branch) {
    let watch = &mut h.arch.msrs.watch;
    watch.taken |= branch.taken;
    let mispredicted = watch.predictor.learn(&branch);
    let branch = Branch { mispredicted, ..branch };
    if branch.taken {
        let now = h.core.retired();
        lbr::record(h.arch, &branch, now);
    }
    perf::branch_retired(h, &branch);
}

#[cfg(test)]
mod tests;
