//! "Checks on Guest Non-Register State", "Checks on Guest Page-Directory-Pointer-Table Entries".

use x86::control::{cr0, cr4, dr6, rflags};
use x86::exception::vector;
use x86::extension::Origin;
use x86::processor::P;
use x86::processor::segments::SS;
use x86::segment::Attributes;

use super::{Check, LINK_POINTER, NMI_INJECTION, PDPTE, Vmx, activity, interruptibility as blocking};
use crate::capability::REVISION;
use crate::control::{entry, pin, secondary};
use crate::exit::VALID;
use crate::field::*;
use crate::vmcs::{SHADOW, Vmcs};

/// Pending debug exceptions: bits that may be 1.
const PENDING_BREAKPOINTS: u64 = 0xf | 1 << 12;
const PENDING_RTM: u64 = 1 << 16;
/// IA32_DEBUGCTL.BTF.
const BTF: u64 = 2;

impl Vmx {
    pub(super) fn check_non_register_state(&self, h: &mut P) -> Check {
        self.check_activity()?;
        self.check_interruptibility()?;
        self.check_pending_debug_exceptions(h)?;
        self.check_link_pointer(h)
    }

    /// What is injected, if anything is: type and vector.
    fn injected(&self) -> Option<(u64, u8)> {
        let information = self.vmcs[ENTRY_INTERRUPTION_INFORMATION];
        (information & VALID != 0).then_some((information >> 8 & 7, information as u8))
    }

    fn check_activity(&self) -> Check {
        let v = &self.vmcs;
        let state = v[GUEST_ACTIVITY_STATE];
        let rule = |holds, text| self.require(GUEST_ACTIVITY_STATE, holds, text);
        rule(state <= activity::WAIT_FOR_SIPI, "a state that the processor supports")?;
        let dpl = Attributes(v[guest_segment(SS)[3]] as u32).dpl();
        rule(state != activity::HLT || dpl == 0, "HLT only with SS.DPL 0")?;
        let blocked = v[GUEST_INTERRUPTIBILITY_STATE] & (blocking::STI | blocking::MOV_SS) != 0;
        rule(state == activity::ACTIVE || !blocked, "active in the shadow of STI or MOV SS")?;
        let Some((kind, vector)) = self.injected() else { return Ok(()) };
        const EXTERNAL: u64 = Origin::External as u64;
        const NMI: u64 = Origin::Nmi as u64;
        const EXCEPTION: u64 = Origin::Exception as u64;
        const OTHER: u64 = 7;
        let allowed = match state {
            activity::HLT => match kind {
                EXTERNAL | NMI => true,
                EXCEPTION => matches!(vector, vector::DB | vector::MC),
                OTHER => vector == 0,
                _ => false,
            },
            activity::SHUTDOWN => kind == NMI || kind == EXCEPTION && vector == vector::MC,
            activity::WAIT_FOR_SIPI => false,
            _ => true,
        };
        rule(allowed, "a state that allows what is injected")
    }

    fn check_interruptibility(&self) -> Check {
        let v = &self.vmcs;
        let state = v[GUEST_INTERRUPTIBILITY_STATE];
        let field = GUEST_INTERRUPTIBILITY_STATE;
        let has = |bit: u64| state & bit != 0;
        let rule = |holds, text| self.require(field, holds, text);
        rule(state >> 5 == 0, "bits 31 to 5 are 0")?;
        rule(!has(blocking::STI) || !has(blocking::MOV_SS), "not blocking by both STI and MOV SS")?;
        rule(!has(blocking::STI) || v[GUEST_RFLAGS] & rflags::IF != 0, "blocking by STI only with RFLAGS.IF")?;
        let injected = self.injected();
        let is_external = injected.is_some_and(|(kind, _)| kind == Origin::External as u64);
        let is_nmi = injected.is_some_and(|(kind, _)| kind == Origin::Nmi as u64);
        rule(
            !is_external || !has(blocking::STI) && !has(blocking::MOV_SS),
            "no blocking by STI or MOV SS where an external interrupt is injected",
        )?;
        self.require_or(
            field,
            !is_nmi || !has(blocking::MOV_SS),
            "no blocking by MOV SS where an NMI is injected",
            NMI_INJECTION,
        )?;
        rule(!has(blocking::SMI), "no blocking by SMI outside of SMM")?;
        self.require_or(
            field,
            !is_nmi || !has(blocking::STI),
            "no blocking by STI where an NMI is injected",
            NMI_INJECTION,
        )?;
        let virtual_nmis = v.has(pin::VIRTUAL_NMIS);
        self.require_or(
            field,
            !is_nmi || !virtual_nmis || !has(blocking::NMI),
            "no blocking by NMI where a virtual NMI is injected",
            NMI_INJECTION,
        )?;
        rule(!has(blocking::ENCLAVE), "no enclave interruption without SGX")
    }

    fn check_pending_debug_exceptions(&self, h: &P) -> Check {
        let v = &self.vmcs;
        let field = GUEST_PENDING_DEBUG_EXCEPTIONS;
        let pending = v[field];
        self.require(field, pending & !(PENDING_BREAKPOINTS | dr6::BS | PENDING_RTM) == 0, "reserved bits are 0")?;
        let is_blocked = v[GUEST_INTERRUPTIBILITY_STATE] & (blocking::STI | blocking::MOV_SS) != 0;
        if is_blocked || v[GUEST_ACTIVITY_STATE] == activity::HLT {
            let steps = v[GUEST_RFLAGS] & rflags::TF != 0;
            let loads = v.has(entry::LOAD_DEBUG_CONTROLS);
            let debugctl = if loads { v[GUEST_DEBUGCTL] } else { h.arch.debugctl() };
            let is_due = steps && debugctl & BTF == 0;
            let is_pending = pending & dr6::BS != 0;
            self.require(field, !is_due || is_pending, "BS is 1 where a single-step trap is due")?;
            self.require(field, is_due || !is_pending, "BS is 0 where no single-step trap is due")?;
        }
        self.require(field, pending & PENDING_RTM == 0, "bit 16 is 0 without RTM")
    }

    fn check_link_pointer(&self, h: &mut P) -> Check {
        let v = &self.vmcs;
        let pointer = v[VMCS_LINK_POINTER];
        if pointer == u64::MAX {
            return Ok(());
        }
        let field = VMCS_LINK_POINTER;
        let rule = |holds, text| self.require_or(field, holds, text, LINK_POINTER);
        rule(pointer & 0xfff == 0, "the address of a page")?;
        rule(self.capabilities.is_physical(pointer), "within MAXPHYADDR")?;
        let shadow = if v.has(secondary::VMCS_SHADOWING) { SHADOW } else { 0 };
        rule(
            Vmcs::revision(h, pointer) == REVISION | shadow,
            "it points to the VMCS revision identifier, and to a shadow VMCS with shadowing",
        )?;
        rule(Some(pointer) != self.current, "not the current VMCS")
    }

    /// "Checks on Guest Page-Directory-Pointer-Table Entries": those of the fields with EPT, else those at CR3.
    pub(super) fn check_pdptes(&self, h: &mut P) -> Check {
        let v = &self.vmcs;
        let pae = v[GUEST_CR0] & cr0::PG != 0 && v[GUEST_CR4] & cr4::PAE != 0 && !v.has(entry::IA32E_MODE_GUEST);
        if !pae {
            return Ok(());
        }
        let reserved = h.arch.controls().pdpte_reserved();
        let is_legal = |e: u64| e & 1 == 0 || e & reserved == 0;
        let rule = "reserved bits of a present PDPTE are 0";
        for i in 0..4u16 {
            if v.uses_ept() {
                let field = Field(GUEST_PDPTE0.0 + 2 * i);
                self.require_or(field, is_legal(v[field]), rule, PDPTE)?;
            } else {
                let at = (v[GUEST_CR3] & 0xffff_ffe0) + 8 * u64::from(i);
                let pdpte = h.read_physical(at, 8).unwrap_or(u64::MAX);
                self.require_or(GUEST_CR3, is_legal(pdpte), rule, PDPTE)?;
            }
        }
        Ok(())
    }
}
