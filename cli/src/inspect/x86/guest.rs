//! The guest of a vCPU, of either vendor, as address translation sees it.

use emu_core::ram::Ram;
use svm_sim::Svm;
use svm_sim::vmcb::{self, nested};
use vmx_sim::Vmx;
use vmx_sim::control::{entry as entry_control, secondary};
use vmx_sim::field::*;
use x86::control::{cr4, efer};
use x86::paging::{Access, Controls, Kind, Tables};
use x86::processor::X86;

/// A guest: at work, or that of the current VMCS or the present VMCB.
#[derive(Clone, Copy)]
pub enum Guest<'a> {
    Vmx(&'a Vmx),
    Svm(&'a Svm),
}

/// A translation of guest-physical addresses.
#[derive(Clone, Copy)]
pub enum Stage<'a> {
    Ept(&'a Vmx),
    /// "Nested Paging": tables in the format of the host's, and what is asked of them.
    Nested(Controls, Access),
}

/// A load that nothing keeps from user pages.
pub const LOAD: Access = Access { kind: Kind::Read, user: false, implicit: false, ac: true, shadow_stack: false };

impl<'a> Guest<'a> {
    /// The guest of a vCPU, if it has one.
    pub fn of(a: &'a X86) -> Option<Self> {
        let extension = a.extension.get()?.as_any();
        let vmx = extension.downcast_ref().filter(|vmx: &&Vmx| vmx.current.is_some());
        let svm = extension.downcast_ref().filter(|svm: &&Svm| svm.present().is_some());
        vmx.map(Guest::Vmx).or(svm.map(Guest::Svm))
    }

    /// Whether it is at work.
    pub fn is_at_work(self) -> bool {
        match self {
            Guest::Vmx(vmx) => vmx.in_guest,
            Guest::Svm(svm) => svm.in_guest,
        }
    }

    /// What its translation depends on, whether it is at work or not. Protection keys are as they are now.
    pub fn controls(self, now: Controls) -> Controls {
        match self {
            _ if self.is_at_work() => now,
            Guest::Vmx(vmx) => {
                let v = &vmx.vmcs;
                let lma = if v.has(entry_control::IA32E_MODE_GUEST) { efer::LMA | efer::LME } else { 0 };
                let kept = now.efer & !(efer::LMA | efer::LME) | lma;
                let efer = if v.has(entry_control::LOAD_EFER) { v[GUEST_EFER] } else { kept };
                let loaded = || [0, 2, 4, 6].map(|i| v[Field(GUEST_PDPTE0.0 + i)]);
                let pdptes = if v.has(secondary::ENABLE_EPT) { Some(loaded()) } else { now.pdptes };
                Controls { cr0: v[GUEST_CR0], cr3: v[GUEST_CR3], cr4: v[GUEST_CR4], efer, pdptes, ..now }
            }
            Guest::Svm(svm) => {
                let [cr0, cr3, cr4, efer] = [vmcb::CR0, vmcb::CR3, vmcb::CR4, vmcb::EFER].map(|f| svm.vmcb.get(f));
                Controls { cr0, cr3, cr4, efer, pdptes: None, ..now }
            }
        }
    }

    /// Its second stage.
    pub fn stage(self, now: Controls) -> Option<Stage<'a>> {
        match self {
            Guest::Vmx(vmx) => vmx.vmcs.uses_ept().then_some(Stage::Ept(vmx)),
            Guest::Svm(svm) if svm.vmcb.get(vmcb::NESTED_CONTROL) & nested::NP_ENABLE == 0 => None,
            Guest::Svm(svm) => {
                let controls = svm.nested_controls(now);
                let gmet = if svm.has_gmet() { cr4::SMEP } else { 0 };
                let access = Access { user: gmet == 0, ..LOAD };
                Some(Stage::Nested(Controls { cr4: controls.cr4 | gmet, ..controls }, access))
            }
        }
    }
}

impl Stage<'_> {
    /// Where a guest-physical address leads.
    pub fn peek(self, ram: &Ram, address: u64) -> Option<u64> {
        match self {
            Stage::Ept(vmx) => vmx.peek(ram, address).ok().map(|page| page.physical),
            Stage::Nested(controls, access) => {
                let is_within = Svm::is_within(controls.mode(), address);
                let mut tables = Peek { ram, stage: None };
                let end = is_within.then(|| controls.translate(&mut tables, address, access))?;
                end.ok().map(|t| t.physical)
            }
        }
    }
}

/// Memory as paging sees it, through a second stage if there is such; read without a trace in the guest.
pub struct Peek<'a> {
    pub ram: &'a Ram,
    pub stage: Option<Stage<'a>>,
}

impl Peek<'_> {
    /// Where a physical address of the guest leads.
    pub fn physical(&self, address: u64) -> Option<u64> {
        self.stage.map_or(Some(address), |stage| stage.peek(self.ram, address))
    }
}

impl Tables for Peek<'_> {
    type Stop = ();

    fn read(&mut self, address: u64, size: u8) -> Result<u64, ()> {
        let at = self.physical(address).ok_or(())?;
        self.ram.load(at, size).map_err(|_| ())
    }

    /// Accessed and dirty flags stay as they are.
    fn write(&mut self, _: u64, _: u8, _: u64) -> Result<(), ()> {
        Ok(())
    }
}
