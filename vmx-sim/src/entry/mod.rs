//! VM entries (SDM vol. 3C, chapter "VM Entries"). The checks stand in the manual's order, one function for each of its sections, one line for each
//! of its rules; an entry that fails says which rule it has broken.

mod apic;
mod controls;
mod guest;
mod guest_segments;
mod host;
mod load;
mod non_register;

use emu_core::engine::Step;
use x86::extension;
use x86::processor::P;

use crate::exit::Reason;
use crate::field::*;
use crate::instructions::{error, succeed};
use crate::msr_list;
use crate::vmx::Vmx;

/// Activity states ("Guest Non-Register State").
pub mod activity {
    #![allow(missing_docs, reason = "the manual's names")]
    pub const ACTIVE: u64 = 0;
    pub const HLT: u64 = 1;
    pub const SHUTDOWN: u64 = 2;
    pub const WAIT_FOR_SIPI: u64 = 3;
}

/// Interruptibility state.
pub mod interruptibility {
    #![allow(missing_docs, reason = "the manual's words")]
    pub const STI: u64 = 1 << 0;
    pub const MOV_SS: u64 = 1 << 1;
    pub const SMI: u64 = 1 << 2;
    pub const NMI: u64 = 1 << 3;
    pub const ENCLAVE: u64 = 1 << 4;
}

/// A rule that a VMCS breaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Failure {
    /// The field.
    pub field: Field,
    /// What it holds.
    pub value: u64,
    /// The rule.
    pub rule: &'static str,
    /// The exit qualification: 0, but for a few rules ("VM-Entry Failures During or After Loading Guest State").
    pub qualification: u64,
}

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        write!(f, "{:?} = {:#x}: {}", self.field, self.value, self.rule)
    }
}

/// The outcome of checks.
pub type Check = Result<(), Failure>;

/// Exit qualifications of failed entries.
const NMI_INJECTION: u64 = 3;
const LINK_POINTER: u64 = 4;
const PDPTE: u64 = 2;

impl Vmx {
    /// A rule about a field.
    #[inline(always)]
    fn require(&self, field: Field, holds: bool, rule: &'static str) -> Check {
        self.require_or(field, holds, rule, 0)
    }

    /// One that has an exit qualification of its own.
    #[inline(always)]
    fn require_or(&self, field: Field, holds: bool, rule: &'static str, qualification: u64) -> Check {
        if holds { Ok(()) } else { Err(Failure { field, value: self.vmcs[field], rule, qualification }) }
    }

    /// VMLAUNCH and VMRESUME ("Basic VM-Entry Checks").
    pub(crate) fn enter(&mut self, h: &mut P, launch: bool) -> Step {
        if self.current.is_none() || self.vmcs.is_shadow {
            let rule =
                if self.current.is_none() { "there is a current VMCS" } else { "the current VMCS is no shadow VMCS" };
            self.note_refusal(h, "VMfailInvalid", "current VMCS", self.current.unwrap_or(u64::MAX), rule, 0);
            extension::set_arithmetic_flags(h, 1);
            return Ok(());
        }
        let present = extension::present_instruction(h);
        if h.arch.shadow == Some(present) && h.arch.shadow_holds_traps {
            self.note_refusal(h, "error 26", "blocking", 2, "events are not blocked by MOV SS", 0);
            return self.fail(h, error::BLOCKED_BY_MOV_SS);
        }
        if launch && self.vmcs.is_launched {
            self.note_refusal(h, "error 4", "launch state", 1, "clear, for VMLAUNCH", 0);
            return self.fail(h, error::VMLAUNCH_NOT_CLEAR);
        }
        if !launch && !self.vmcs.is_launched {
            self.note_refusal(h, "error 5", "launch state", 0, "launched, for VMRESUME", 0);
            return self.fail(h, error::VMRESUME_NOT_LAUNCHED);
        }
        // "Checks on VMX Controls and Host-State Area".
        let from_ia32e = h.arch.is_long();
        if self.vmcs.checked_from_ia32e != Some(from_ia32e) {
            if let Err(failure) = self.check_controls(h) {
                self.blame(h, "error 7", failure);
                return self.fail(h, error::CONTROL_FIELDS);
            }
            if let Err(failure) = self.check_host(h) {
                self.blame(h, "error 8", failure);
                return self.fail(h, error::HOST_STATE);
            }
            let stays = !self.checks_injection() && !self.checks_tpr();
            self.vmcs.checked_from_ia32e = Some(from_ia32e).filter(|_| stays);
        }
        succeed(h)?;
        // A VM entry that fails from here on is a VM exit.
        h.count_level(1);
        // "Checking and Loading Guest State".
        if let Err(failure) = self.check_guest(h) {
            self.blame(h, "exit 33", failure);
            return self.fail_entry(h, Reason::EntryGuestState, failure.qualification);
        }
        self.load_guest(h);
        let (address, count) = (self.vmcs[ENTRY_MSR_LOAD_ADDRESS], self.vmcs[ENTRY_MSR_LOAD_COUNT]);
        if let Err(number) = msr_list::load(self, h, address, count, true) {
            let rule = "every entry of the list can be loaded";
            self.note_refusal(h, "exit 34", ENTRY_MSR_LOAD_ADDRESS.name(), address + 16 * (number - 1), rule, number);
            return self.fail_entry(h, Reason::EntryMsrLoading, number);
        }
        if launch {
            self.vmcs.is_launched = true;
        }
        self.note_entry(h, launch);
        self.begin(h)
    }

    /// A VM entry fails by a rule: the guest sees what hardware shows of it, and listeners the rule.
    fn blame(&mut self, h: &mut P, seen: &'static str, failure: Failure) {
        self.failure = Some(failure);
        self.note_failed_entry(h, seen, &failure);
    }
}
