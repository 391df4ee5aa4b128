//! "Fault Reporting": non-recoverable faults, logged in fault recording registers ("Primary Fault Logging") and told by an event.

use emu_core::device::DeviceCx;

use super::Vtd;
use super::register::*;

/// "Fault Reason Encodings", of requests in legacy mode and of interrupt requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reason {
    /// The root entry is not present.
    RootNotPresent = 0x1,
    /// The context entry is not present.
    ContextNotPresent = 0x2,
    /// The context entry has a type or an address width that there is not.
    InvalidContext = 0x3,
    /// The address is beyond what the domain or the unit has.
    AddressBeyondWidth = 0x4,
    /// No right to write.
    WriteDenied = 0x5,
    /// No right to read.
    ReadDenied = 0x6,
    /// A second-stage table cannot be read.
    PageTableAccess = 0x7,
    /// The root table cannot be read.
    RootTableAccess = 0x8,
    /// The context table cannot be read.
    ContextTableAccess = 0x9,
    /// Reserved bits in a root entry.
    RootReserved = 0xa,
    /// Reserved bits in a context entry.
    ContextReserved = 0xb,
    /// Reserved bits in a second-stage entry.
    PageTableReserved = 0xc,
    /// Reserved bits in an interrupt request.
    RequestReserved = 0x20,
    /// The index is beyond the interrupt remapping table.
    IndexBeyondTable = 0x21,
    /// The interrupt remapping table entry is not present.
    EntryNotPresent = 0x22,
    /// The interrupt remapping table cannot be read.
    EntryAccess = 0x23,
    /// Reserved bits in the entry.
    EntryReserved = 0x24,
    /// A request in compatibility format is blocked.
    CompatibilityFormat = 0x25,
    /// The request does not come from the source that the entry names.
    SourceValidation = 0x26,
    /// The posted interrupt descriptor cannot be accessed.
    DescriptorAccess = 0x27,
    /// Reserved bits in the posted interrupt descriptor.
    DescriptorReserved = 0x28,
}

/// Why a request is blocked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Blocked {
    pub reason: Reason,
    /// "Fault Processing Disable": it is not reported.
    pub quietly: bool,
}

pub(super) type Check<T = ()> = Result<T, Blocked>;

impl Reason {
    /// A fault that is always reported.
    pub fn blocks(self) -> Blocked {
        Blocked { reason: self, quietly: false }
    }

    /// A fault that is reported unless the entry says otherwise.
    pub fn blocks_unless(self, disabled: bool) -> Blocked {
        Blocked { reason: self, quietly: disabled }
    }
}

/// `Err` if a rule is broken.
pub(super) fn block_if(broken: bool, blocked: Blocked) -> Check {
    if broken { Err(blocked) } else { Ok(()) }
}

/// Conditions that are told by a fault event.
const CONDITIONS: u64 = fsts::PFO | fsts::PPF | fsts::IQE;

impl Vtd {
    /// "Primary Fault Logging": `information` is the page, or the interrupt index in bits 63:48.
    pub(super) fn report(
        &mut self,
        blocked: Blocked,
        requester: u16,
        information: u64,
        reads: bool,
        cx: &mut DeviceCx,
    ) {
        self.counts.faults += 1;
        if blocked.quietly || self.has(FSTS_REG, fsts::PFO) {
            return;
        }
        let n = self.state.next_record;
        let (low, high) = record(n);
        if self.has(high, frcd::F) {
            return self.raise_fault(fsts::PFO, cx);
        }
        let kind = if reads { frcd::T } else { 0 };
        self.set(low, information & !0xfff);
        self.set(high, frcd::F | kind | (blocked.reason as u64) << 32 | u64::from(requester));
        self.state.next_record = (n + 1) % RECORDS;
        if !self.has(FSTS_REG, fsts::PPF) {
            // The index of the first of those that are pending.
            self.put(FSTS_REG, fsts::FRI, false);
            self.put(FSTS_REG, (n as u64) << 8, true);
        }
        self.raise_fault(fsts::PPF, cx);
    }

    /// "Fault Event": there is one only where no other condition was there that software has yet to see.
    pub(super) fn raise_fault(&mut self, condition: u64, cx: &mut DeviceCx) {
        let is_first = !self.has(FSTS_REG, CONDITIONS);
        self.put(FSTS_REG, condition, true);
        if is_first {
            self.raise_event(FAULT_EVENT, cx);
        }
    }

    /// Software has cleared something of the fault status or of fault recording registers.
    pub(super) fn fault_status_written(&mut self) {
        let pending = (0..RECORDS).any(|n| self.has(record(n).1, frcd::F));
        self.put(FSTS_REG, fsts::PPF, pending);
        if !self.has(FSTS_REG, CONDITIONS) {
            self.put(FECTL_REG, event::IP, false);
        }
    }
}
