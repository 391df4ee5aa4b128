//! "Indirect Branch Tracking" (SDM vol. 1): behind an indirect branch the first instruction must be an ENDBRANCH.
//!
//! A block is lifted for the tracker's state, which is part of the mode. A near branch to an ENDBRANCH leaves it idle, so that nobody has to
//! leave the data path: what comes between the two instructions finds the tracker waiting all the same ([`settle`]).

use emu_core::engine::Step;
use iced_x86::{Code, Instruction, Mnemonic};

use crate::cet::ControlProtection;
use crate::control::{cr4, user_cet};
use crate::isa::Lifting;
use crate::mode::Mode;
use crate::processor::{P, ProcessorExt, X86};
use crate::registers::temp;

/// Function number of the calls of this module.
pub(crate) const FUNCTION: u16 = 0x183;

/// What a call does; bit 8 of its operand: the branch has a no-track prefix.
const BRANCH: u32 = 0;
const ENDBRANCH: u32 = 1;
const MISSING: u32 = 2;
const NO_TRACK: u32 = 1 << 8;

/// "Indirect Branch Tracking State Machine".
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tracker {
    /// ENDBR_EN = 0.
    Off,
    /// TRACKER = IDLE.
    Idle,
    /// TRACKER = IDLE, SUPPRESS = 1.
    Suppressed,
    /// TRACKER = WAIT_FOR_ENDBRANCH.
    Waiting,
}

impl X86 {
    /// The active tracker.
    pub fn tracker(&self) -> Tracker {
        let cet = self.cet_now();
        if cet & user_cet::ENDBR_EN == 0 {
            Tracker::Off
        } else if cet & user_cet::TRACKER != 0 {
            Tracker::Waiting
        } else if cet & user_cet::SUPPRESS != 0 {
            Tracker::Suppressed
        } else {
            Tracker::Idle
        }
    }
}

/// Runs a call of this module.
#[inline(never)]
pub(crate) fn call(h: &mut P, operand: u32) -> Step {
    match operand & 0xff {
        BRANCH => branch(h, operand & NO_TRACK != 0),
        ENDBRANCH => {
            *h.arch.cet_register(h.arch.cpl()) &= !(user_cet::TRACKER | user_cet::SUPPRESS);
            h.all_changed();
            Ok(())
        }
        _ => missing(h),
    }
}

/// Lifts what the tracker has to say of an instruction before it is executed.
pub(crate) fn check(lift: &mut emu_core::engine::Lift, insn: &Instruction, mode: &Mode) {
    let passes = is_endbranch(insn, mode) || matches!(insn.mnemonic(), Mnemonic::Int3 | Mnemonic::Int1);
    if mode.tracker == Tracker::Waiting && !passes {
        lift.call(FUNCTION, MISSING);
    }
}

fn is_endbranch(insn: &Instruction, mode: &Mode) -> bool {
    insn.code() == if mode.is_64() { Code::Endbr64 } else { Code::Endbr32 }
}

/// ENDBR32, ENDBR64.
pub(crate) fn lift_endbranch(l: &mut Lifting) {
    if is_endbranch(l.insn, l.mode) && matches!(l.mode.tracker, Tracker::Waiting | Tracker::Suppressed) {
        l.lift.call_and_end(FUNCTION, ENDBRANCH);
    }
}

/// Lifts the tracking of a near indirect branch to [`temp::TARGET`], which nothing else can stop.
pub(crate) fn lift_branch(l: &mut Lifting) {
    if !matches!(l.mode.tracker, Tracker::Off | Tracker::Suppressed) {
        let no_track = if has_no_track_prefix(l) { NO_TRACK } else { 0 };
        l.lift.call(FUNCTION, BRANCH | no_track);
    }
}

/// "No-track Prefix for Near Indirect CALL/JMP": 3EH; in 64-bit mode none of FS and GS beside it, else the last prefix of its group.
fn has_no_track_prefix(l: &Lifting) -> bool {
    l.insn.segment_prefix() == iced_x86::Register::DS
}

/// The bytes of ENDBR64 or ENDBR32.
fn endbranch(is_64: bool) -> u32 {
    if is_64 { 0xfa1e_0ff3 } else { 0xfb1e_0ff3 }
}

fn branch(h: &mut P, no_track: bool) -> Step {
    let cet = h.arch.cet_now();
    let ignored = no_track && cet & user_cet::NO_TRACK_EN != 0;
    let target = h.reg(temp::TARGET);
    // A branch to an address that is not canonical faults.
    let faults = h.arch.is_64() && !h.arch.is_canonical(target);
    if ignored || faults || cet & (user_cet::ENDBR_EN | user_cet::SUPPRESS) != user_cet::ENDBR_EN {
        return Ok(());
    }
    if h.peek_code(target) == Some(endbranch(h.arch.is_64())) {
        h.arch.cet.endbranch_at = Some(h.core.retired() + 1);
    } else {
        wait(h, h.arch.cpl());
    }
    Ok(())
}

/// The tracker of a privilege level waits: behind a far branch, or an event.
pub(crate) fn wait(h: &mut P, cpl: u8) {
    if h.arch.cet_at(cpl) & user_cet::ENDBR_EN != 0 {
        let register = h.arch.cet_register(cpl);
        *register = *register & !user_cet::SUPPRESS | user_cet::TRACKER;
        h.core.spaces_changed = true;
        h.core.leave = true;
    }
}

/// Something comes before the instruction at this count of retired instructions, and sees the tracker.
pub(crate) fn settle(h: &mut P, count: u64) {
    if h.arch.cet.endbranch_at.take() == Some(count) {
        wait(h, h.arch.cpl());
    }
}

/// An instruction that should have been an ENDBRANCH: "Legacy Compatibility Treatment".
fn missing(h: &mut P) -> Step {
    let cet = h.arch.cet_now();
    let refused = ControlProtection::Endbranch.into();
    h.fault_if(cet & user_cet::LEG_IW_EN == 0, refused)?;
    let bits = match (h.arch.is_64(), h.arch.cr4 & cr4::LA57 != 0) {
        (false, _) => 32,
        (true, false) => 48,
        (true, true) => 57,
    };
    let page = (h.core.pc & ((1 << bits) - 1)) >> 12;
    let at = (cet & !0xfff).wrapping_add(page >> 3);
    let at = if h.arch.is_long() { at } else { at & 0xffff_ffff };
    let byte = h.load(at, 1, 0)?;
    h.fault_if(byte >> (page & 7) & 1 == 0, refused)?;
    let suppress = if cet & user_cet::SUPPRESS_DIS == 0 { user_cet::SUPPRESS } else { 0 };
    let register = h.arch.cet_register(h.arch.cpl());
    *register = *register & !user_cet::TRACKER | suppress;
    h.all_changed();
    Ok(())
}
