//! VM exits (SDM vol. 3C, chapter "VM Exits").

mod host;
mod information;
mod reason;
mod save;

use emu_core::engine::{Step, Stop, StopKind};
use x86::control::cr0;
use x86::extension::{self, Delivery, Origin, moved};
use x86::processor::P;

use crate::control::secondary;
use crate::field::*;
use crate::msr_list;
use crate::tags::Tags;
use crate::vmcs::Vmcs;
use crate::vmx::Vmx;
pub use information::Decoded;
pub use reason::Reason;
pub(crate) use save::Resume;

/// Bit 31 of the exit reason: a VM entry has failed.
pub const ENTRY_FAILURE: u64 = 1 << 31;
/// Bit 31 of interruption information, and of IDT-vectoring information: valid.
pub const VALID: u64 = 1 << 31;
/// Bit 11: there is an error code.
const HAS_ERROR: u64 = 1 << 11;
/// Bit 12: the instruction is an IRET that has unblocked NMIs.
pub const NMI_UNBLOCKING: u64 = 1 << 12;

/// VMX-abort indicators ("VMX Aborts").
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "the manual's words")]
pub enum Abort {
    SavingGuestMsrs = 1,
    HostPdpte = 2,
    CurrentVmcsCorrupted = 3,
    LoadingHostMsrs = 4,
}

impl Abort {
    const ALL: [Abort; 4] =
        [Abort::SavingGuestMsrs, Abort::HostPdpte, Abort::CurrentVmcsCorrupted, Abort::LoadingHostMsrs];

    /// Why a processor has shut down, if it was by a VMX abort.
    pub fn of(stop: Stop) -> Option<Abort> {
        Abort::ALL.into_iter().find(|abort| stop.kind() == StopKind::Shutdown && stop.value == *abort as u64)
    }
}

impl std::fmt::Display for Abort {
    fn fmt(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        let why = match self {
            Abort::SavingGuestMsrs => "a guest MSR could not be saved",
            Abort::HostPdpte => "a host page-directory-pointer-table entry is not valid",
            Abort::CurrentVmcsCorrupted => "the current VMCS is corrupted",
            Abort::LoadingHostMsrs => "a host MSR could not be loaded",
        };
        write!(f, "VMX abort {}: {why}", *self as u32)
    }
}

/// What a VM exit tells of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Exit {
    /// Why.
    pub reason: Reason,
    /// "Exit Qualification".
    pub qualification: u64,
    /// It is of the instruction at RIP: its length is told.
    pub is_of_instruction: bool,
    /// "VM-Exit Instruction Information".
    pub instruction_information: Option<u64>,
    /// "Guest-Linear Address".
    pub linear: Option<u64>,
    /// "Guest-Physical Address".
    pub physical: Option<u64>,
    /// "VM-Exit Interruption Information", with an error code.
    pub interruption: Option<(u64, Option<u16>)>,
    /// What RFLAGS.RF is saved as.
    pub(crate) resume: Resume,
}

impl Exit {
    /// One with nothing more to say.
    pub fn of(reason: Reason) -> Self {
        Exit {
            reason,
            qualification: 0,
            is_of_instruction: false,
            instruction_information: None,
            linear: None,
            physical: None,
            interruption: None,
            resume: Resume::AsItIs,
        }
    }

    /// One of the instruction at RIP.
    pub fn instruction(reason: Reason) -> Self {
        Exit { is_of_instruction: true, resume: Resume::Clear, ..Exit::of(reason) }
    }

    /// With a qualification.
    pub fn qualified(self, qualification: u64) -> Self {
        Exit { qualification, ..self }
    }
}

/// Interruption information of an event.
pub(crate) fn information_of(origin: Origin, vector: u8, error: Option<u16>) -> u64 {
    let has_error = if error.is_some() { HAS_ERROR } else { 0 };
    u64::from(vector) | (origin as u64) << 8 | has_error | VALID
}

/// Instructions ask for it: its length is told.
fn is_software(origin: Origin) -> bool {
    matches!(origin, Origin::SoftwareInterrupt | Origin::PrivilegedSoftwareException | Origin::SoftwareException)
}

impl Vmx {
    /// Leaves the guest.
    pub(crate) fn exit(&mut self, h: &mut P, e: Exit) -> Stop {
        let delivering = h.arch.delivering.take();
        self.record(h, &e, delivering);
        self.save_guest(h, &e, delivering);
        self.note_exit(h, &e);
        self.stop_timer(h);
        self.end_virtual_apic();
        let (address, count) = (self.vmcs[EXIT_MSR_STORE_ADDRESS], self.vmcs[EXIT_MSR_STORE_COUNT]);
        if msr_list::store(self, h, address, count).is_err() {
            return self.abort(h, Abort::SavingGuestMsrs);
        }
        if e.interruption.is_some_and(|(i, _)| e.reason == Reason::ExceptionOrNmi && i >> 8 & 7 == Origin::Nmi as u64) {
            h.arch.nmi_blocked = true;
        }
        self.return_to_host(h)
    }

    /// What every VM exit ends with, and a VM entry that fails late.
    fn return_to_host(&mut self, h: &mut P) -> Stop {
        if !self.vmcs.has(secondary::ENABLE_VPID) {
            Tags::drop_vpid_0(h);
        }
        self.in_guest = false;
        if let Err(abort) = self.load_host(h) {
            return self.abort(h, abort);
        }
        let (address, count) = (self.vmcs[EXIT_MSR_LOAD_ADDRESS], self.vmcs[EXIT_MSR_LOAD_COUNT]);
        if msr_list::load(self, h, address, count, false).is_err() {
            return self.abort(h, Abort::LoadingHostMsrs);
        }
        moved()
    }

    /// "VM-Entry Failures During or After Loading Guest State": the guest's state is not saved.
    pub(crate) fn fail_entry(&mut self, h: &mut P, reason: Reason, qualification: u64) -> Step {
        self.vmcs[EXIT_REASON] = reason as u64 | ENTRY_FAILURE;
        self.vmcs[EXIT_QUALIFICATION] = qualification;
        self.timer_expires = None;
        h.arch.injected = None;
        self.count_entry_failure(h, reason);
        match self.return_to_host(h) {
            stop if stop.kind() == StopKind::Moved => {
                h.core.next_pc = h.core.pc;
                Ok(())
            }
            stop => Err(stop),
        }
    }

    /// "VMX Aborts": the processor shuts down.
    fn abort(&mut self, h: &mut P, why: Abort) -> Stop {
        if let Some(region) = self.current {
            Vmcs::write_abort_indicator(h, region, why as u32);
        }
        Stop::new(StopKind::Shutdown, 0, why as u64)
    }

    /// "Recording VM-Exit Information and Updating VM-Entry Control Fields".
    fn record(&mut self, h: &mut P, e: &Exit, delivering: Option<Delivery>) {
        let is_in_delivery = delivering.is_some() && !matches!(e.reason, Reason::TripleFault);
        let first = delivering.filter(|_| is_in_delivery);
        let v = &mut self.vmcs;
        v[EXIT_REASON] = e.reason as u64;
        v[EXIT_QUALIFICATION] = e.qualification;
        let (information, error) = e.interruption.unwrap_or_default();
        v[EXIT_INTERRUPTION_INFORMATION] = information;
        if let Some(error) = error {
            v[EXIT_INTERRUPTION_ERROR_CODE] = error.into();
        }
        v[IDT_VECTORING_INFORMATION] = first.map_or(0, |d| information_of(d.origin, d.vector, d.error));
        if let Some(error) = first.and_then(|d| d.error) {
            v[IDT_VECTORING_ERROR_CODE] = error.into();
        }
        let of_software = first.filter(|d| is_software(d.origin));
        if let Some(d) = of_software {
            v[EXIT_INSTRUCTION_LENGTH] = (d.length as u8).into(); // IP may have wrapped
        } else if e.is_of_instruction {
            v[EXIT_INSTRUCTION_LENGTH] = extension::instruction_length(h).into();
        }
        if let Some(information) = e.instruction_information {
            v[EXIT_INSTRUCTION_INFORMATION] = information;
        }
        if let Some(linear) = e.linear {
            v[GUEST_LINEAR_ADDRESS] = linear;
        }
        if let Some(physical) = e.physical {
            v[GUEST_PHYSICAL_ADDRESS] = physical;
        }
        if v[ENTRY_INTERRUPTION_INFORMATION] & VALID != 0 {
            v[ENTRY_INTERRUPTION_INFORMATION] &= !VALID;
        }
    }

    /// What an exception has to say in a guest that is in this mode: real mode has no error codes.
    pub(crate) fn error_code_of(h: &P, error: Option<u16>) -> Option<u16> {
        error.filter(|_| h.arch.cr0 & cr0::PE != 0)
    }

    /// The instruction is an IRET that has unblocked NMIs, for events that it causes after that.
    pub(crate) fn nmi_unblocking(&self, h: &P) -> bool {
        self.iret_unblocked_at == Some(extension::present_instruction(h)) && h.arch.delivering.is_none()
    }
}
