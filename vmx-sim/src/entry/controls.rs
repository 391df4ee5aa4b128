//! "Checks on VMX Controls".

use x86::processor::P;

use super::{Check, Vmx};
use crate::capability::CR3_TARGETS;
use crate::control::{Control, entry, exit, pin, primary, secondary};
use crate::exit::VALID;
use crate::field::*;

/// Bits of VM-entry interruption information that are reserved.
const RESERVED_INFORMATION: u64 = 0x7fff_f000;

impl Vmx {
    /// All of them.
    pub(crate) fn check_controls(&self, h: &mut P) -> Check {
        self.check_execution_controls(h)?;
        self.check_exit_controls()?;
        self.check_entry_controls()
    }

    /// A physical address that is aligned so, in bytes.
    pub(super) fn is_aligned(&self, field: Field, alignment: u64) -> bool {
        self.vmcs[field] & (alignment - 1) == 0 && self.capabilities.is_physical(self.vmcs[field])
    }

    /// "VM-Execution Control Fields".
    fn check_execution_controls(&self, h: &mut P) -> Check {
        let v = &self.vmcs;
        let c = &self.capabilities;
        let has = |control: Control| v.has(control);
        let page = |field| self.is_aligned(field, 4096);
        self.require(
            PIN_CONTROLS,
            c.pin.allows(v[PIN_CONTROLS]),
            "reserved bits as IA32_VMX_(TRUE_)PINBASED_CTLS says",
        )?;
        self.require(
            PRIMARY_CONTROLS,
            c.primary.allows(v[PRIMARY_CONTROLS]),
            "reserved bits as IA32_VMX_(TRUE_)PROCBASED_CTLS says",
        )?;
        let active = has(primary::ACTIVATE_SECONDARY_CONTROLS);
        self.require(
            SECONDARY_CONTROLS,
            !active || c.secondary.allows(v[SECONDARY_CONTROLS]),
            "reserved bits as IA32_VMX_PROCBASED_CTLS2 says",
        )?;
        let active = has(primary::ACTIVATE_TERTIARY_CONTROLS);
        self.require(
            TERTIARY_CONTROLS,
            !active || v[TERTIARY_CONTROLS] & !c.tertiary == 0,
            "reserved bits as IA32_VMX_PROCBASED_CTLS3 says",
        )?;
        self.require(CR3_TARGET_COUNT, v[CR3_TARGET_COUNT] <= CR3_TARGETS, "no more than 4 CR3-target values")?;
        let io = has(primary::USE_IO_BITMAPS);
        self.require(IO_BITMAP_A, !io || page(IO_BITMAP_A), "the address of a page")?;
        self.require(IO_BITMAP_B, !io || page(IO_BITMAP_B), "the address of a page")?;
        self.require(MSR_BITMAPS, !has(primary::USE_MSR_BITMAPS) || page(MSR_BITMAPS), "the address of a page")?;
        self.check_apic_controls(h)?;
        self.require(
            PIN_CONTROLS,
            has(pin::NMI_EXITING) || !has(pin::VIRTUAL_NMIS),
            "virtual NMIs only with NMI exiting",
        )?;
        self.require(
            PRIMARY_CONTROLS,
            has(pin::VIRTUAL_NMIS) || !has(primary::NMI_WINDOW_EXITING),
            "NMI-window exiting only with virtual NMIs",
        )?;
        self.require(VPID, !has(secondary::ENABLE_VPID) || v[VPID] != 0, "not 0000H where VPIDs are enabled")?;
        let ept = has(secondary::ENABLE_EPT);
        self.require(
            EPT_POINTER,
            !ept || self.is_ept_pointer(v[EPT_POINTER]),
            "an EPT pointer as the processor has them",
        )?;
        let pml = has(secondary::ENABLE_PML);
        self.require(SECONDARY_CONTROLS, !pml || ept, "page-modification logging only with EPT")?;
        self.require(PML_ADDRESS, !pml || page(PML_ADDRESS), "the address of a page")?;
        self.require(
            SECONDARY_CONTROLS,
            !has(secondary::UNRESTRICTED_GUEST) || ept,
            "an unrestricted guest only with EPT",
        )?;
        self.require(
            SECONDARY_CONTROLS,
            !has(secondary::MODE_BASED_EXECUTE_CONTROL) || ept,
            "mode-based execute control only with EPT",
        )?;
        let spp = has(secondary::SUB_PAGE_WRITE_PERMISSIONS);
        self.require(SECONDARY_CONTROLS, !spp || ept, "sub-page write permissions only with EPT")?;
        self.require(
            SUB_PAGE_PERMISSION_TABLE_POINTER,
            !spp || page(SUB_PAGE_PERMISSION_TABLE_POINTER),
            "the address of a page",
        )?;
        let functions = has(secondary::ENABLE_VM_FUNCTIONS);
        self.require(
            VM_FUNCTION_CONTROLS,
            !functions || v[VM_FUNCTION_CONTROLS] & !c.functions == 0,
            "reserved bits as IA32_VMX_VMFUNC says",
        )?;
        let switching = functions && v[VM_FUNCTION_CONTROLS] & 1 != 0;
        self.require(VM_FUNCTION_CONTROLS, !switching || ept, "EPTP switching only with EPT")?;
        self.require(EPTP_LIST_ADDRESS, !switching || page(EPTP_LIST_ADDRESS), "the address of a page")?;
        let shadowing = has(secondary::VMCS_SHADOWING);
        self.require(VMREAD_BITMAP, !shadowing || page(VMREAD_BITMAP), "the address of a page")?;
        self.require(VMWRITE_BITMAP, !shadowing || page(VMWRITE_BITMAP), "the address of a page")?;
        self.require(
            VIRTUALIZATION_EXCEPTION_INFORMATION_ADDRESS,
            !has(secondary::EPT_VIOLATION_VE) || page(VIRTUALIZATION_EXCEPTION_INFORMATION_ADDRESS),
            "the address of a page",
        )?;
        self.require(
            TSC_MULTIPLIER,
            !has(secondary::USE_TSC_SCALING) || v[TSC_MULTIPLIER] != 0,
            "not 0 where the TSC is scaled",
        )
    }

    /// The address of a list of MSRs, if there is one: that of its last byte too.
    fn is_list(&self, address: Field, count: Field) -> bool {
        let (at, count) = (self.vmcs[address], self.vmcs[count]);
        count == 0 || self.is_aligned(address, 16) && self.capabilities.is_physical(at.wrapping_add(16 * count - 1))
    }

    /// "VM-Exit Control Fields".
    fn check_exit_controls(&self) -> Check {
        let v = &self.vmcs;
        let c = &self.capabilities;
        self.require(
            EXIT_CONTROLS,
            c.exit.allows(v[EXIT_CONTROLS]),
            "reserved bits as IA32_VMX_(TRUE_)EXIT_CTLS says",
        )?;
        let active = v.has(exit::ACTIVATE_SECONDARY_CONTROLS);
        self.require(
            SECONDARY_EXIT_CONTROLS,
            !active || v[SECONDARY_EXIT_CONTROLS] & !c.exit_2 == 0,
            "reserved bits as IA32_VMX_EXIT_CTLS2 says",
        )?;
        self.require(
            EXIT_CONTROLS,
            v.has(pin::ACTIVATE_VMX_PREEMPTION_TIMER) || !v.has(exit::SAVE_PREEMPTION_TIMER),
            "the VMX-preemption timer is saved only if it is active",
        )?;
        self.require(
            EXIT_MSR_STORE_ADDRESS,
            self.is_list(EXIT_MSR_STORE_ADDRESS, EXIT_MSR_STORE_COUNT),
            "the address of a list of MSRs",
        )?;
        self.require(
            EXIT_MSR_LOAD_ADDRESS,
            self.is_list(EXIT_MSR_LOAD_ADDRESS, EXIT_MSR_LOAD_COUNT),
            "the address of a list of MSRs",
        )
    }

    /// "VM-Entry Control Fields".
    fn check_entry_controls(&self) -> Check {
        let v = &self.vmcs;
        let c = &self.capabilities;
        self.require(
            ENTRY_CONTROLS,
            c.entry.allows(v[ENTRY_CONTROLS]),
            "reserved bits as IA32_VMX_(TRUE_)ENTRY_CTLS says",
        )?;
        if self.checks_injection() {
            self.check_injection()?;
        }
        self.require(
            ENTRY_MSR_LOAD_ADDRESS,
            self.is_list(ENTRY_MSR_LOAD_ADDRESS, ENTRY_MSR_LOAD_COUNT),
            "the address of a list of MSRs",
        )?;
        self.require(ENTRY_CONTROLS, !v.has(entry::ENTRY_TO_SMM), "no entry to SMM from outside of SMM")?;
        self.require(
            ENTRY_CONTROLS,
            !v.has(entry::DEACTIVATE_DUAL_MONITOR_TREATMENT),
            "dual-monitor treatment is not deactivated from outside of SMM",
        )
    }

    /// There are rules about what is injected. They look at guest state, too.
    pub(super) fn checks_injection(&self) -> bool {
        self.vmcs[ENTRY_INTERRUPTION_INFORMATION] & VALID != 0
    }

    /// What is injected.
    fn check_injection(&self) -> Check {
        let v = &self.vmcs;
        let information = v[ENTRY_INTERRUPTION_INFORMATION];
        let (vector, kind) = (information & 0xff, information >> 8 & 7);
        let rule = |holds, text| self.require(ENTRY_INTERRUPTION_INFORMATION, holds, text);
        rule(kind != 1, "interruption type 1 is reserved")?;
        rule(
            kind != 7 || self.capabilities.has(primary::MONITOR_TRAP_FLAG),
            "interruption type 7 only with the monitor trap flag",
        )?;
        rule(kind != 2 || vector == 2, "an NMI has vector 2")?;
        rule(kind != 3 || vector <= 31, "a hardware exception has a vector up to 31")?;
        rule(kind != 7 || vector == 0, "other events have vector 0")?;
        let has_error = information >> 11 & 1 != 0;
        // Whether an exception may come with an error code depends on the mode alone (IA32_VMX_BASIC, bit 56).
        let protected = v[GUEST_CR0] & 1 != 0;
        rule(
            !has_error || kind == 3 && (protected || !v.has(secondary::UNRESTRICTED_GUEST)),
            "an error code only with a hardware exception in protected mode",
        )?;
        rule(information & RESERVED_INFORMATION == 0, "bits 30 to 12 are 0")?;
        self.require(
            ENTRY_EXCEPTION_ERROR_CODE,
            !has_error || v[ENTRY_EXCEPTION_ERROR_CODE] >> 16 == 0,
            "bits 31 to 16 of an error code are 0",
        )?;
        let length = v[ENTRY_INSTRUCTION_LENGTH];
        self.require(
            ENTRY_INSTRUCTION_LENGTH,
            !matches!(kind, 4..=6) || length <= 15,
            "an instruction has no more than 15 bytes",
        )
    }
}
