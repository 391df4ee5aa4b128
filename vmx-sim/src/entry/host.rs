//! "Checks on Host Control Registers, MSRs, and SSP", "Checks on Host Segment and Descriptor-Table Registers", "Checks Related to Address-Space
//! Size".

use x86::control::{cr0, cr4, efer};
use x86::processor::P;

use super::{Check, Vmx};
use crate::capability::{CR0_FIXED_0, CR0_FIXED_1, CR4_FIXED_0};
use crate::control::{entry, exit};
use crate::field::*;

/// Whether IA32_PAT may have this value: each of its bytes is a memory type.
pub(super) fn is_pat(value: u64) -> bool {
    value.to_le_bytes().iter().all(|t| matches!(t, 0 | 1 | 4..=7))
}

impl Vmx {
    /// Canonical, in as many bits as the processor has.
    pub(super) fn is_canonical(&self, field: Field) -> bool {
        let shift = 64 - self.capabilities.linear_bits;
        let value = self.vmcs[field];
        (value as i64) << shift >> shift == value as i64
    }

    pub(crate) fn check_host(&self, h: &P) -> Check {
        self.check_host_registers(h)?;
        self.check_host_segments()?;
        self.check_address_space_size(h)
    }

    fn check_host_registers(&self, h: &P) -> Check {
        let v = &self.vmcs;
        let is_64 = v.has(exit::HOST_ADDRESS_SPACE_SIZE);
        let fixed = |value: u64, must: u64, may: u64| value & must == must && value & !may == 0;
        self.require(HOST_CR0, fixed(v[HOST_CR0], CR0_FIXED_0, CR0_FIXED_1), "a value that VMX operation supports")?;
        self.require(
            HOST_CR4,
            fixed(v[HOST_CR4], CR4_FIXED_0, self.capabilities.cr4),
            "a value that VMX operation supports",
        )?;
        let cet = v[HOST_CR4] & cr4::CET == 0 || v[HOST_CR0] & cr0::WP != 0;
        self.require(HOST_CR4, cet, "CR4.CET only with CR0.WP")?;
        self.require(HOST_CR3, self.is_cr3(v[HOST_CR3]), "no bits beyond MAXPHYADDR")?;
        self.require(HOST_SYSENTER_ESP, self.is_canonical(HOST_SYSENTER_ESP), "canonical")?;
        self.require(HOST_SYSENTER_EIP, self.is_canonical(HOST_SYSENTER_EIP), "canonical")?;
        let perf = v.has(exit::LOAD_PERF_GLOBAL_CTRL);
        self.require(
            HOST_PERF_GLOBAL_CTRL,
            !perf || v[HOST_PERF_GLOBAL_CTRL] & !x86::msr::perf_global_bits(h) == 0,
            "reserved bits are 0",
        )?;
        self.require(HOST_PAT, !v.has(exit::LOAD_PAT) || is_pat(v[HOST_PAT]), "memory types")?;
        if v.has(exit::LOAD_EFER) {
            let value = v[HOST_EFER];
            self.require(HOST_EFER, value & !x86::msr::defined_efer_bits(h) == 0, "reserved bits are 0")?;
            let [lma, lme] = [efer::LMA, efer::LME].map(|bit| value & bit != 0);
            self.require(
                HOST_EFER,
                lma == is_64 && lme == is_64,
                "LMA and LME as the host's address-space size has them",
            )?;
        }
        if v.has(exit::LOAD_CET_STATE) {
            self.require(HOST_S_CET, self.is_canonical(HOST_S_CET), "canonical")?;
            self.require(HOST_S_CET, h.arch.is_cet_control(v[HOST_S_CET]), "a value that IA32_S_CET may have")?;
            self.require(HOST_SSP, v[HOST_SSP] & 3 == 0, "bits 1 and 0 are 0")?;
            self.require(HOST_SSP, self.is_canonical(HOST_SSP), "canonical")?;
            self.require(HOST_INTERRUPT_SSP_TABLE_ADDR, self.is_canonical(HOST_INTERRUPT_SSP_TABLE_ADDR), "canonical")?;
        }
        self.require(HOST_PKRS, !v.has(exit::LOAD_PKRS) || v[HOST_PKRS] >> 32 == 0, "bits 63 to 32 are 0")
    }

    /// A value for CR3: an address within MAXPHYADDR, and what LAM has there.
    pub(super) fn is_cr3(&self, value: u64) -> bool {
        let lam = if self.capabilities.cr4 & cr4::LAM_SUP != 0 { 3 << 61 } else { 0 };
        self.capabilities.is_physical(value & !lam)
    }

    fn check_host_segments(&self) -> Check {
        let v = &self.vmcs;
        const SELECTORS: [Field; 7] = [
            HOST_ES_SELECTOR,
            HOST_CS_SELECTOR,
            HOST_SS_SELECTOR,
            HOST_DS_SELECTOR,
            HOST_FS_SELECTOR,
            HOST_GS_SELECTOR,
            HOST_TR_SELECTOR,
        ];
        for field in SELECTORS {
            self.require(field, v[field] & 7 == 0, "RPL and TI are 0")?;
        }
        self.require(HOST_CS_SELECTOR, v[HOST_CS_SELECTOR] != 0, "not 0000H")?;
        self.require(HOST_TR_SELECTOR, v[HOST_TR_SELECTOR] != 0, "not 0000H")?;
        let is_64 = v.has(exit::HOST_ADDRESS_SPACE_SIZE);
        self.require(HOST_SS_SELECTOR, is_64 || v[HOST_SS_SELECTOR] != 0, "not 0000H for a host of 32 bits")?;
        for field in [HOST_FS_BASE, HOST_GS_BASE, HOST_GDTR_BASE, HOST_IDTR_BASE, HOST_TR_BASE] {
            self.require(field, self.is_canonical(field), "canonical")?;
        }
        Ok(())
    }

    fn check_address_space_size(&self, h: &P) -> Check {
        let v = &self.vmcs;
        let is_64 = v.has(exit::HOST_ADDRESS_SPACE_SIZE);
        let is_guest_64 = v.has(entry::IA32E_MODE_GUEST);
        if !h.arch.is_long() {
            self.require(ENTRY_CONTROLS, !is_guest_64, "an IA-32e mode guest only from IA-32e mode")?;
            self.require(EXIT_CONTROLS, !is_64, "a host of 64 bits only from IA-32e mode")?;
            return Ok(());
        }
        self.require(EXIT_CONTROLS, is_64, "a host of 64 bits, entered from IA-32e mode")?;
        self.require(HOST_CR4, v[HOST_CR4] & cr4::PAE != 0, "CR4.PAE for a host of 64 bits")?;
        self.require(HOST_RIP, self.is_canonical(HOST_RIP), "canonical")
    }
}
