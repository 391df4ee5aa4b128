//! SDM vol. 3C, chapter "APIC Virtualization and Virtual Interrupts".
//!
//! ```text
//! MOV CR8 ------------------+
//! RDMSR, WRMSR of 800H- ----+--> virtual-APIC page --> emulation --> RVI, SVI --> a recognized virtual interrupt --> the guest's IDT
//! APIC-access page ---------+                              |            ^
//! PIR of a posted interrupt --------------------------------------------+
//!                                                          +--> VM exit behind the instruction
//! ```

pub mod access;
pub mod delivery;
pub mod ipi;
pub mod msr;
pub mod posted;
pub mod registers;

use serde::{Deserialize, Serialize};
use x86::processor::P;

use crate::control::{primary, secondary};
use crate::exit::{Exit, Reason};
use crate::field::TPR_THRESHOLD;
use crate::vmx::Vmx;

/// A VM exit that comes behind the operation that causes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Trap {
    /// "TPR below threshold".
    TprBelowThreshold,
    /// "Virtualized EOI", of this vector.
    VirtualizedEoi(u8),
    /// "APIC write", to this offset.
    ApicWrite(u16),
}

impl Trap {
    fn exit(self) -> Exit {
        match self {
            Trap::TprBelowThreshold => Exit::of(Reason::TprBelowThreshold),
            Trap::VirtualizedEoi(vector) => Exit::of(Reason::VirtualizedEoi).qualified(vector.into()),
            Trap::ApicWrite(offset) => Exit::of(Reason::ApicWrite).qualified(offset.into()),
        }
    }
}

/// What a guest's virtual APIC has to do yet. The rest is in the virtual-APIC page and the guest interrupt status.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Virtual {
    /// Where the present operation has written to the APIC-access page, and how many bytes.
    written: Option<(u16, u8)>,
    /// The exit that comes behind it.
    trap: Option<Trap>,
    /// A pending virtual interrupt is recognized.
    recognized: bool,
}

/// Whatever waits is looked at before the next instruction.
fn attend(h: &mut P) {
    h.core.check_interrupts = true;
    h.core.leave = true;
}

impl Vmx {
    fn has_tpr_shadow(&self) -> bool {
        self.vmcs.has(primary::USE_TPR_SHADOW)
    }

    fn delivers_virtual_interrupts(&self) -> bool {
        self.vmcs.has(secondary::VIRTUAL_INTERRUPT_DELIVERY)
    }

    /// An exit is to come behind the present operation.
    fn set_trap(&mut self, h: &mut P, trap: Trap) {
        self.apic.trap = Some(trap);
        attend(h);
    }

    /// Something comes behind the present operation.
    pub(crate) fn has_apic_work(&self) -> bool {
        self.apic.written.is_some() || self.apic.trap.is_some()
    }

    /// An operation is over: "APIC-Write Emulation", and the VM exits that have priority over SMIs, INIT signals and all below. Those that follow
    /// the injection of an event wait for that, and in the shutdown state they wait for whatever ends it.
    pub(crate) fn operation_is_over(&mut self, h: &mut P) -> Option<Exit> {
        if h.arch.injected.is_some() || h.arch.waiting.is_shut_down() || h.arch.waiting.is_for_sipi() {
            return None;
        }
        if let Some((offset, _)) = self.apic.written.take() {
            self.emulate_write(h, offset);
        }
        self.apic.trap.take().map(Trap::exit)
    }

    /// A VM entry has loaded the guest: "Loading Guest Non-Register State", "VM Exits Induced by the TPR Threshold".
    pub(crate) fn begin_virtual_apic(&mut self, h: &mut P) {
        self.apic = Virtual::default();
        if self.delivers_virtual_interrupts() {
            self.virtualize_ppr(h);
            self.evaluate_virtual_interrupts(h);
        } else if self.has_tpr_shadow() && self.vmcs.has(secondary::VIRTUALIZE_APIC_ACCESSES) && self.is_tpr_low(h) {
            self.set_trap(h, Trap::TprBelowThreshold);
        }
    }

    /// Bits 3:0 of the TPR threshold are above bits 7:4 of VTPR.
    pub(crate) fn is_tpr_low(&self, h: &mut P) -> bool {
        self.vmcs[TPR_THRESHOLD] & 0xf > u64::from(self.read_register(h, registers::VTPR) >> 4 & 0xf)
    }

    /// The guest ends: what is left undone is not done ("APIC-Write Emulation").
    pub(crate) fn end_virtual_apic(&mut self) {
        self.apic = Virtual::default();
    }

    /// It has something to do, in a guest that waits.
    pub(crate) fn wakes_by_apic(&self, h: &P) -> bool {
        self.apic.trap.is_some() && !h.arch.waiting.is_shut_down() || self.takes_virtual_interrupts(h)
    }
}
