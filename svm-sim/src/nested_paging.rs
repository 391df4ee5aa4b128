//! "Nested Paging": guest-physical addresses are translated by tables that have the format of the host's paging.

use emu_core::engine::{Step, Stop};
use serde::{Deserialize, Serialize};
use x86::control::{cr0, cr4, efer};
use x86::extension::{SecondAccess, SecondStage, code_at_rip};
use x86::model::Feature;
use x86::paging::{self, Access, Controls, Fail, Kind, Mode, Rights, Tables};
use x86::processor::P;

use crate::exit::{Exit, code};
use crate::svm::Svm;
use crate::vmcb::*;

/// Bits of EXITINFO1 of #VMEXIT(NPF), beside those of a page fault's error code.
pub mod error {
    #![allow(missing_docs, reason = "the manual's words")]
    pub const FINAL: u64 = 1 << 32;
    pub const TABLE_WALK: u64 = 1 << 33;
    pub const SSS: u64 = 1 << 37;
}

/// What the host's paging was like at VMRUN.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Host {
    /// CR0.
    pub cr0: u64,
    /// CR4.
    pub cr4: u64,
    /// EFER.
    pub efer: u64,
}

/// Nested page tables are in system physical memory.
struct Physical<'a, 'b>(&'a mut P<'b>);

impl Tables for Physical<'_, '_> {
    type Stop = std::convert::Infallible;

    fn read(&mut self, address: u64, size: u8) -> Result<u64, Self::Stop> {
        Ok(self.0.read_physical(address, size).unwrap_or(u64::MAX))
    }

    fn write(&mut self, address: u64, size: u8, value: u64) -> Result<(), Self::Stop> {
        let _ = self.0.write_physical(address, size, value);
        Ok(())
    }
}

/// They are only looked at.
struct Unchanged<'a, 'b>(Physical<'a, 'b>);

impl Tables for Unchanged<'_, '_> {
    type Stop = std::convert::Infallible;

    fn read(&mut self, address: u64, size: u8) -> Result<u64, Self::Stop> {
        self.0.read(address, size)
    }

    fn write(&mut self, _: u64, _: u8, _: u64) -> Result<(), Self::Stop> {
        Ok(())
    }
}

/// Nested page tables mark a page as one of supervisor shadow stacks.
fn is_shadow_stack(h: &mut P, controls: &Controls, address: u64) -> bool {
    let how = Access { kind: Kind::Read, user: false, implicit: true, ac: true, shadow_stack: true };
    controls.translate(&mut Unchanged(Physical(h)), address, how).is_ok()
}

impl Svm {
    /// How nested page tables are walked: as the host's tables would be, with N_CR3. Of rights
    /// nothing in the host's CR4 counts, for all accesses are users'; but with SMEP faults tell of fetches.
    pub fn nested_controls(&self, now: Controls) -> Controls {
        const FORMAT: u64 = cr4::PAE | cr4::PSE | cr4::LA57 | cr4::SMEP;
        Controls {
            cr0: self.host.cr0 | cr0::WP,
            cr3: self.vmcb.get(N_CR3),
            cr4: self.host.cr4 & FORMAT,
            efer: self.host.efer,
            pdptes: None,
            is_nested: true,
            ..now
        }
    }

    /// Whether the tables have a place for an address.
    pub fn is_within(mode: Mode, address: u64) -> bool {
        match mode {
            Mode::Off | Mode::Bits32 | Mode::Pae => address >> 32 == 0,
            Mode::Level4 => address >> 48 == 0,
            Mode::Level5 => true,
        }
    }

    /// "Nested Table Walk". All accesses are user accesses, and those to the guest's page tables are writes. With "Guest Mode Execute Trap" U/S says
    /// something else: the guest's supervisors fetch nothing where it is 1.
    pub(crate) fn translate(&mut self, h: &mut P, access: SecondAccess) -> Result<SecondStage, u64> {
        let gmet = self.has_gmet();
        let mut controls = self.nested_controls(h.arch.controls());
        if gmet {
            controls.cr4 = if access.user { controls.cr4 & !cr4::SMEP } else { controls.cr4 | cr4::SMEP };
        }
        let kind = if access.is_entry { Kind::Write } else { access.kind };
        let checks_stacks = self.checks_supervisor_shadow_stacks();
        let shadow_stack = checks_stacks && access.shadow_stack && !access.user;
        let how = Access { kind, user: !gmet, implicit: false, ac: true, shadow_stack };
        let part = if access.is_entry { error::TABLE_WALK } else { error::FINAL };
        let user = if access.user { paging::error::US.into() } else { 0 };
        let refused = |code: u32| Err(u64::from(code) | user | part);
        if !Svm::is_within(controls.mode(), access.address) {
            return refused(controls.error_code(how, 0));
        }
        match controls.translate(&mut Physical(h), access.address, how) {
            Ok(t) => {
                let stage = SecondStage { physical: t.physical, size_log2: t.size_log2, read: t.read, write: t.write };
                self.through_apic_page(access, stage)
            }
            Err(Fail::PageFault(code)) if checks_stacks && is_shadow_stack(h, &controls, access.address) => {
                refused(code).map_err(|why| why | error::SSS)
            }
            Err(Fail::PageFault(code)) => refused(code),
            Err(Fail::Stop(never)) => match never {},
        }
    }

    /// "Supervisor Shadow Stacks" are checked. The APM leaves open what a guest's ordinary accesses to their pages come to: here U/S counts, as ever.
    fn checks_supervisor_shadow_stacks(&self) -> bool {
        self.has(Feature::SssCheck)
            && self.nested(nested::SSS_CHECK_ENABLE)
            && self.host.cr4 & cr4::PAE != 0
            && self.host.efer & efer::NXE != 0
    }

    /// "Guest Mode Execute Trap" is on.
    pub fn has_gmet(&self) -> bool {
        self.nested(nested::GMET_ENABLE) && self.has(Feature::Gmet)
    }

    /// "Nested versus Guest Page Faults".
    pub(crate) fn nested_page_fault(&mut self, h: &mut P, access: SecondAccess, why: u64) -> Stop {
        if let Some(stop) = self.no_acceleration(h, why) {
            return stop;
        }
        let ss = if access.shadow_stack { paging::error::SS.into() } else { 0 };
        let bytes = if access.kind == Kind::Fetch { Vec::new() } else { self.bytes_fetched(h) };
        self.exit(h, Exit { info_1: why | ss, info_2: access.address, bytes, ..Exit::of(code::NPF) })
    }

    /// "Decode Assists": instruction bytes, for faults of data accesses.
    pub(crate) fn bytes_fetched(&self, h: &P) -> Vec<u8> {
        if !self.has(Feature::DecodeAssists) {
            return Vec::new();
        }
        let mut bytes = code_at_rip(h);
        bytes.truncate(15);
        bytes
    }

    /// Translates a guest-physical address that an instruction of the guest names ("Virtualized VMLOAD and VMSAVE").
    pub(crate) fn translate_own(&mut self, h: &mut P, address: u64, is_store: bool) -> Step<u64> {
        let kind = if is_store { Kind::Write } else { Kind::Read };
        let page = Rights::ALL;
        let access = SecondAccess {
            address,
            size: 8,
            kind,
            linear: None,
            is_entry: false,
            page,
            user: false,
            shadow_stack: false,
        };
        match self.translate(h, access) {
            Ok(stage) => Ok(stage.physical),
            Err(why) => Err(self.nested_page_fault(h, access, why)),
        }
    }

    /// The paging of the host, for nested paging.
    pub(crate) fn note_host(&mut self, h: &P) {
        self.host = Host { cr0: h.arch.cr0, cr4: h.arch.cr4, efer: h.arch.efer };
    }
}
