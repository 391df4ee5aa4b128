//! "Checks on the Guest State Area": control registers, debug registers, MSRs; RIP, RFLAGS, and SSP.

use x86::control::{cr0, cr4, efer, rflags};
use x86::processor::P;

use super::host::is_pat;
use super::{Check, Vmx};
use crate::capability::{CR0_FIXED_0, CR0_FIXED_1, CR4_FIXED_0};
use crate::control::{entry, secondary};
use crate::exit::VALID;
use crate::field::*;

/// Bits of RFLAGS that are reserved and 0.
const RFLAGS_RESERVED: u64 = !0x3f_7fd7;

impl Vmx {
    pub(crate) fn check_guest(&self, h: &mut P) -> Check {
        self.check_guest_registers(h)?;
        self.check_guest_segments()?;
        self.check_descriptor_tables()?;
        self.check_rip_and_rflags()?;
        self.check_non_register_state(h)?;
        self.check_pdptes(h)
    }

    /// "Checks on Guest Control Registers, Debug Registers, and MSRs".
    fn check_guest_registers(&self, h: &P) -> Check {
        let v = &self.vmcs;
        let ia32e = v.has(entry::IA32E_MODE_GUEST);
        let unrestricted = v.has(secondary::UNRESTRICTED_GUEST);
        let (g_cr0, g_cr4) = (v[GUEST_CR0], v[GUEST_CR4]);
        let must = if unrestricted { CR0_FIXED_0 & !(cr0::PE | cr0::PG) } else { CR0_FIXED_0 };
        let paging = g_cr0 & cr0::PG != 0;
        self.require(
            GUEST_CR0,
            g_cr0 & must == must && g_cr0 & !CR0_FIXED_1 == 0,
            "a value that VMX operation supports",
        )?;
        self.require(GUEST_CR0, !paging || g_cr0 & cr0::PE != 0, "CR0.PG only with CR0.PE")?;
        let fits = g_cr4 & CR4_FIXED_0 == CR4_FIXED_0 && g_cr4 & !self.capabilities.cr4 == 0;
        self.require(GUEST_CR4, fits, "a value that VMX operation supports")?;
        self.require(GUEST_CR4, g_cr4 & cr4::CET == 0 || g_cr0 & cr0::WP != 0, "CR4.CET only with CR0.WP")?;
        let debug = v.has(entry::LOAD_DEBUG_CONTROLS);
        self.require(
            GUEST_DEBUGCTL,
            !debug || x86::msr::is_debugctl(h.arch, v[GUEST_DEBUGCTL]),
            "reserved bits are 0 where debug controls are loaded",
        )?;
        self.require(ENTRY_CONTROLS, !ia32e || paging, "an IA-32e mode guest only with CR0.PG")?;
        self.require(ENTRY_CONTROLS, !ia32e || g_cr4 & cr4::PAE != 0, "an IA-32e mode guest only with CR4.PAE")?;
        self.require(GUEST_CR4, ia32e || g_cr4 & cr4::PCIDE == 0, "CR4.PCIDE only for an IA-32e mode guest")?;
        self.require(GUEST_CR3, self.is_cr3(v[GUEST_CR3]), "no bits beyond MAXPHYADDR")?;
        self.require(
            GUEST_DR7,
            !debug || v[GUEST_DR7] >> 32 == 0,
            "bits 63 to 32 are 0 where debug controls are loaded",
        )?;
        self.require(GUEST_SYSENTER_ESP, self.is_canonical(GUEST_SYSENTER_ESP), "canonical")?;
        self.require(GUEST_SYSENTER_EIP, self.is_canonical(GUEST_SYSENTER_EIP), "canonical")?;
        self.require(
            GUEST_PERF_GLOBAL_CTRL,
            !v.has(entry::LOAD_PERF_GLOBAL_CTRL) || v[GUEST_PERF_GLOBAL_CTRL] & !x86::msr::perf_global_bits(h) == 0,
            "reserved bits are 0",
        )?;
        self.require(
            GUEST_LBR_CTL,
            !v.has(entry::LOAD_LBR_CTL) || x86::msr::is_lbr_ctl(v[GUEST_LBR_CTL]),
            "reserved bits are 0",
        )?;
        self.require(GUEST_PAT, !v.has(entry::LOAD_PAT) || is_pat(v[GUEST_PAT]), "memory types")?;
        if v.has(entry::LOAD_EFER) {
            let value = v[GUEST_EFER];
            self.require(GUEST_EFER, value & !x86::msr::defined_efer_bits(h) == 0, "reserved bits are 0")?;
            let [lma, lme] = [efer::LMA, efer::LME].map(|bit| value & bit != 0);
            self.require(GUEST_EFER, lma == ia32e, "LMA as an IA-32e mode guest has it")?;
            self.require(GUEST_EFER, !paging || lma == lme, "LME is LMA where CR0.PG is 1")?;
        }
        if v.has(entry::LOAD_CET_STATE) {
            self.require(GUEST_S_CET, self.is_canonical(GUEST_S_CET), "canonical")?;
            self.require(GUEST_S_CET, h.arch.is_cet_control(v[GUEST_S_CET]), "a value that IA32_S_CET may have")?;
            self.require(
                GUEST_INTERRUPT_SSP_TABLE_ADDR,
                self.is_canonical(GUEST_INTERRUPT_SSP_TABLE_ADDR),
                "canonical",
            )?;
        }
        self.require(GUEST_PKRS, !v.has(entry::LOAD_PKRS) || v[GUEST_PKRS] >> 32 == 0, "bits 63 to 32 are 0")
    }

    /// "Checks on Guest RIP, RFLAGS, and SSP".
    fn check_rip_and_rflags(&self) -> Check {
        let v = &self.vmcs;
        let is_64 = v.has(entry::IA32E_MODE_GUEST) && v[GUEST_CS_ACCESS_RIGHTS] >> 13 & 1 != 0;
        let flags = v[GUEST_RFLAGS];
        self.require(GUEST_RIP, is_64 || v[GUEST_RIP] >> 32 == 0, "bits 63 to 32 are 0 outside of 64-bit mode")?;
        self.require(
            GUEST_RIP,
            !is_64 || self.is_canonical(GUEST_RIP),
            "bits that the processor does not have are alike",
        )?;
        self.require(GUEST_RFLAGS, flags & RFLAGS_RESERVED == 0 && flags & 2 != 0, "reserved bits are 0, bit 1 is 1")?;
        let v8086 = flags & rflags::VM != 0;
        let allowed = !v.has(entry::IA32E_MODE_GUEST) && v[GUEST_CR0] & cr0::PE != 0;
        self.require(GUEST_RFLAGS, !v8086 || allowed, "VM only in protected mode outside of IA-32e mode")?;
        let information = v[ENTRY_INTERRUPTION_INFORMATION];
        let is_external = information & VALID != 0 && information >> 8 & 7 == 0;
        self.require(
            GUEST_RFLAGS,
            !is_external || flags & rflags::IF != 0,
            "IF where an external interrupt is injected",
        )?;
        if v.has(entry::LOAD_CET_STATE) {
            self.require(GUEST_SSP, v[GUEST_SSP] & 3 == 0, "bits 1 and 0 are 0")?;
            self.require(GUEST_SSP, is_64 || v[GUEST_SSP] >> 32 == 0, "bits 63 to 32 are 0 outside of 64-bit mode")?;
            self.require(GUEST_SSP, self.is_canonical(GUEST_SSP), "canonical")?;
        }
        Ok(())
    }
}
