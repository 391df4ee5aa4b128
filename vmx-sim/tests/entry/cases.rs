//! The cases: from a base that enters, one field spoiled.

use vmx_sim::control::{entry, exit, pin, primary, secondary};
use vmx_sim::entry::{activity, interruptibility as blocking};
use vmx_sim::field::*;
use vmx_sim::vmcs::Vmcs;
use x86::control::{cr0, cr4, efer};

use crate::apic;
use crate::base::{BAD_PDPTES, Base, PAGE, REGION, off, on};

/// A rule, and what breaks it.
pub struct Case {
    /// The guest.
    pub base: Base,
    /// The field that the failure names.
    pub field: Field,
    /// The rule that it names.
    pub rule: &'static str,
    /// What is done to the VMCS.
    pub spoil: fn(&mut Vmcs),
}

pub const fn case(base: Base, field: Field, rule: &'static str, spoil: fn(&mut Vmcs)) -> Case {
    Case { base, field, rule, spoil }
}

/// All of them.
pub fn all() -> impl Iterator<Item = &'static Case> {
    CASES.iter().chain(apic::CASES)
}

/// Rules that nothing can break on this processor, and why.
pub const NOT_REACHED: &[(Field, &str, &str)] = &[
    (SECONDARY_EXIT_CONTROLS, "reserved bits as IA32_VMX_EXIT_CTLS2 says", "there are no secondary VM-exit controls"),
    (ENTRY_CONTROLS, "no entry to SMM from outside of SMM", "the control is not there"),
    (ENTRY_CONTROLS, "dual-monitor treatment is not deactivated from outside of SMM", "the control is not there"),
    (
        ENTRY_INTERRUPTION_INFORMATION,
        "interruption type 7 only with the monitor trap flag",
        "the monitor trap flag is always there",
    ),
    (ENTRY_CONTROLS, "an IA-32e mode guest only from IA-32e mode", "the host has 64 bits here"),
    (EXIT_CONTROLS, "a host of 64 bits only from IA-32e mode", "the host has 64 bits here"),
];

/// All of them.
const CASES: &[Case] = &[
    case(Base::Long, PIN_CONTROLS, "reserved bits as IA32_VMX_(TRUE_)PINBASED_CTLS says", |v| {
        v[PIN_CONTROLS] |= 1 << 31;
    }),
    case(Base::Long, PRIMARY_CONTROLS, "reserved bits as IA32_VMX_(TRUE_)PROCBASED_CTLS says", |v| {
        v[PRIMARY_CONTROLS] &= !2;
    }),
    case(Base::Long, SECONDARY_CONTROLS, "reserved bits as IA32_VMX_PROCBASED_CTLS2 says", |v| {
        on(v, primary::ACTIVATE_SECONDARY_CONTROLS);
        v[SECONDARY_CONTROLS] = 1 << 24;
    }),
    case(Base::Long, TERTIARY_CONTROLS, "reserved bits as IA32_VMX_PROCBASED_CTLS3 says", |v| {
        on(v, primary::ACTIVATE_TERTIARY_CONTROLS);
        v[TERTIARY_CONTROLS] = 1 << 63;
    }),
    case(Base::Everything, GUEST_LBR_CTL, "reserved bits are 0", |v| {
        v[GUEST_LBR_CTL] = 1 << 4;
    }),
    case(Base::Long, CR3_TARGET_COUNT, "no more than 4 CR3-target values", |v| {
        v[CR3_TARGET_COUNT] = 5;
    }),
    case(Base::Long, IO_BITMAP_A, "the address of a page", |v| {
        on(v, primary::USE_IO_BITMAPS);
        v[IO_BITMAP_A] = PAGE + 1;
    }),
    case(Base::Long, IO_BITMAP_B, "the address of a page", |v| {
        on(v, primary::USE_IO_BITMAPS);
        v[IO_BITMAP_B] = 1 << 46;
    }),
    case(Base::Long, MSR_BITMAPS, "the address of a page", |v| {
        on(v, primary::USE_MSR_BITMAPS);
        v[MSR_BITMAPS] = 8;
    }),
    case(Base::Long, PIN_CONTROLS, "virtual NMIs only with NMI exiting", |v| {
        on(v, pin::VIRTUAL_NMIS);
    }),
    case(Base::Long, PRIMARY_CONTROLS, "NMI-window exiting only with virtual NMIs", |v| {
        on(v, primary::NMI_WINDOW_EXITING);
    }),
    case(Base::Unrestricted, VPID, "not 0000H where VPIDs are enabled", |v| {
        on(v, secondary::ENABLE_VPID);
    }),
    case(Base::Unrestricted, EPT_POINTER, "an EPT pointer as the processor has them", |v| {
        v[EPT_POINTER] |= 1 << 11;
    }),
    case(Base::Everything, SECONDARY_CONTROLS, "an unrestricted guest only with EPT", |v| {
        on(v, secondary::UNRESTRICTED_GUEST);
    }),
    case(Base::Everything, SECONDARY_CONTROLS, "page-modification logging only with EPT", |v| {
        on(v, secondary::ENABLE_PML);
    }),
    case(Base::Unrestricted, PML_ADDRESS, "the address of a page", |v| {
        on(v, secondary::ENABLE_PML);
        v[PML_ADDRESS] = 1 << 46;
    }),
    case(Base::Everything, VMREAD_BITMAP, "the address of a page", |v| {
        on(v, secondary::VMCS_SHADOWING);
        v[VMREAD_BITMAP] = PAGE + 8;
    }),
    case(Base::Everything, VMWRITE_BITMAP, "the address of a page", |v| {
        on(v, secondary::VMCS_SHADOWING);
        (v[VMREAD_BITMAP], v[VMWRITE_BITMAP]) = (PAGE, PAGE + 8);
    }),
    case(Base::Everything, SECONDARY_CONTROLS, "mode-based execute control only with EPT", |v| {
        on(v, secondary::MODE_BASED_EXECUTE_CONTROL);
    }),
    case(Base::Everything, VM_FUNCTION_CONTROLS, "reserved bits as IA32_VMX_VMFUNC says", |v| {
        on(v, secondary::ENABLE_VM_FUNCTIONS);
        v[VM_FUNCTION_CONTROLS] = 2;
    }),
    case(Base::Everything, VM_FUNCTION_CONTROLS, "EPTP switching only with EPT", |v| {
        on(v, secondary::ENABLE_VM_FUNCTIONS);
        v[VM_FUNCTION_CONTROLS] = 1;
    }),
    case(Base::Unrestricted, EPTP_LIST_ADDRESS, "the address of a page", |v| {
        on(v, secondary::ENABLE_VM_FUNCTIONS);
        (v[VM_FUNCTION_CONTROLS], v[EPTP_LIST_ADDRESS]) = (1, PAGE + 8);
    }),
    case(Base::Everything, VIRTUALIZATION_EXCEPTION_INFORMATION_ADDRESS, "the address of a page", |v| {
        on(v, secondary::EPT_VIOLATION_VE);
        v[VIRTUALIZATION_EXCEPTION_INFORMATION_ADDRESS] = PAGE + 64;
    }),
    case(Base::Everything, SECONDARY_CONTROLS, "sub-page write permissions only with EPT", |v| {
        on(v, secondary::SUB_PAGE_WRITE_PERMISSIONS);
    }),
    case(Base::Unrestricted, SUB_PAGE_PERMISSION_TABLE_POINTER, "the address of a page", |v| {
        on(v, secondary::SUB_PAGE_WRITE_PERMISSIONS);
        v[SUB_PAGE_PERMISSION_TABLE_POINTER] = 1 << 46;
    }),
    case(Base::Everything, TSC_MULTIPLIER, "not 0 where the TSC is scaled", |v| {
        on(v, secondary::USE_TSC_SCALING);
    }),
    case(Base::Long, EXIT_CONTROLS, "reserved bits as IA32_VMX_(TRUE_)EXIT_CTLS says", |v| {
        v[EXIT_CONTROLS] &= !1;
    }),
    case(Base::Long, EXIT_CONTROLS, "the VMX-preemption timer is saved only if it is active", |v| {
        on(v, exit::SAVE_PREEMPTION_TIMER);
    }),
    case(Base::Long, EXIT_MSR_STORE_ADDRESS, "the address of a list of MSRs", |v| {
        (v[EXIT_MSR_STORE_COUNT], v[EXIT_MSR_STORE_ADDRESS]) = (1, PAGE + 8);
    }),
    case(Base::Long, EXIT_MSR_LOAD_ADDRESS, "the address of a list of MSRs", |v| {
        (v[EXIT_MSR_LOAD_COUNT], v[EXIT_MSR_LOAD_ADDRESS]) = (2, (1 << 46) - 16);
    }),
    case(Base::Long, ENTRY_MSR_LOAD_ADDRESS, "the address of a list of MSRs", |v| {
        (v[ENTRY_MSR_LOAD_COUNT], v[ENTRY_MSR_LOAD_ADDRESS]) = (1, 1 << 46);
    }),
    case(Base::Long, ENTRY_CONTROLS, "reserved bits as IA32_VMX_(TRUE_)ENTRY_CTLS says", |v| {
        v[ENTRY_CONTROLS] &= !1;
    }),
    case(Base::Long, ENTRY_INTERRUPTION_INFORMATION, "interruption type 1 is reserved", |v| {
        v[ENTRY_INTERRUPTION_INFORMATION] = 1 << 31 | 1 << 8;
    }),
    case(Base::Long, ENTRY_INTERRUPTION_INFORMATION, "an NMI has vector 2", |v| {
        v[ENTRY_INTERRUPTION_INFORMATION] = 1 << 31 | 2 << 8 | 3;
    }),
    case(Base::Long, ENTRY_INTERRUPTION_INFORMATION, "a hardware exception has a vector up to 31", |v| {
        v[ENTRY_INTERRUPTION_INFORMATION] = 1 << 31 | 3 << 8 | 32;
    }),
    case(Base::Long, ENTRY_INTERRUPTION_INFORMATION, "other events have vector 0", |v| {
        v[ENTRY_INTERRUPTION_INFORMATION] = 1 << 31 | 7 << 8 | 1;
    }),
    case(
        Base::Long,
        ENTRY_INTERRUPTION_INFORMATION,
        "an error code only with a hardware exception in protected mode",
        |v| {
            v[ENTRY_INTERRUPTION_INFORMATION] = 1 << 31 | 1 << 11 | 2 << 8 | 2;
        },
    ),
    case(Base::Long, ENTRY_INTERRUPTION_INFORMATION, "bits 30 to 12 are 0", |v| {
        v[ENTRY_INTERRUPTION_INFORMATION] = 1 << 31 | 1 << 12 | 3 << 8 | 6;
    }),
    case(Base::Long, ENTRY_EXCEPTION_ERROR_CODE, "bits 31 to 16 of an error code are 0", |v| {
        v[ENTRY_INTERRUPTION_INFORMATION] = 1 << 31 | 1 << 11 | 3 << 8 | 13;
        v[ENTRY_EXCEPTION_ERROR_CODE] = 1 << 16;
    }),
    case(Base::Long, ENTRY_INSTRUCTION_LENGTH, "an instruction has no more than 15 bytes", |v| {
        v[ENTRY_INTERRUPTION_INFORMATION] = 1 << 31 | 4 << 8 | 3;
        v[ENTRY_INSTRUCTION_LENGTH] = 16;
    }),
    case(Base::Long, HOST_CR0, "a value that VMX operation supports", |v| {
        v[HOST_CR0] &= !cr0::NE;
    }),
    case(Base::Long, HOST_CR4, "a value that VMX operation supports", |v| {
        v[HOST_CR4] &= !cr4::VMXE;
    }),
    case(Base::Long, HOST_CR4, "CR4.CET only with CR0.WP", |v| {
        v[HOST_CR4] |= cr4::CET;
        v[HOST_CR0] &= !cr0::WP;
    }),
    case(Base::Long, HOST_CR3, "no bits beyond MAXPHYADDR", |v| {
        v[HOST_CR3] |= 1 << 46;
    }),
    case(Base::Long, HOST_SYSENTER_ESP, "canonical", |v| {
        v[HOST_SYSENTER_ESP] = 1 << 57;
    }),
    case(Base::Long, HOST_SYSENTER_EIP, "canonical", |v| {
        v[HOST_SYSENTER_EIP] = 1 << 57;
    }),
    case(Base::Long, HOST_FS_BASE, "canonical", |v| {
        v[HOST_FS_BASE] = 1 << 57;
    }),
    case(Base::Long, HOST_GS_BASE, "canonical", |v| {
        v[HOST_GS_BASE] = 1 << 57;
    }),
    case(Base::Long, HOST_GDTR_BASE, "canonical", |v| {
        v[HOST_GDTR_BASE] = 1 << 57;
    }),
    case(Base::Long, HOST_IDTR_BASE, "canonical", |v| {
        v[HOST_IDTR_BASE] = 1 << 57;
    }),
    case(Base::Long, HOST_TR_BASE, "canonical", |v| {
        v[HOST_TR_BASE] = 1 << 57;
    }),
    case(Base::Long, HOST_RIP, "canonical", |v| {
        v[HOST_RIP] = 1 << 57;
    }),
    case(Base::Long, GUEST_SYSENTER_ESP, "canonical", |v| {
        v[GUEST_SYSENTER_ESP] = 1 << 57;
    }),
    case(Base::Long, GUEST_SYSENTER_EIP, "canonical", |v| {
        v[GUEST_SYSENTER_EIP] = 1 << 57;
    }),
    case(Base::Long, GUEST_TR_BASE, "canonical", |v| {
        v[GUEST_TR_BASE] = 1 << 57;
    }),
    case(Base::Long, GUEST_FS_BASE, "canonical", |v| {
        v[GUEST_FS_BASE] = 1 << 57;
    }),
    case(Base::Long, GUEST_GS_BASE, "canonical", |v| {
        v[GUEST_GS_BASE] = 1 << 57;
    }),
    case(Base::Long, GUEST_GDTR_BASE, "canonical", |v| {
        v[GUEST_GDTR_BASE] = 1 << 57;
    }),
    case(Base::Long, GUEST_IDTR_BASE, "canonical", |v| {
        v[GUEST_IDTR_BASE] = 1 << 57;
    }),
    case(Base::Long, GUEST_LDTR_BASE, "canonical", |v| {
        v[guest_segment(LDTR)[3]] = 0x82;
        v[GUEST_LDTR_BASE] = 1 << 57;
    }),
    case(Base::Everything, HOST_S_CET, "canonical", |v| {
        v[HOST_S_CET] = 1 << 57;
    }),
    case(Base::Everything, HOST_SSP, "canonical", |v| {
        v[HOST_SSP] = 1 << 57;
    }),
    case(Base::Everything, HOST_INTERRUPT_SSP_TABLE_ADDR, "canonical", |v| {
        v[HOST_INTERRUPT_SSP_TABLE_ADDR] = 1 << 57;
    }),
    case(Base::Everything, GUEST_S_CET, "canonical", |v| {
        v[GUEST_S_CET] = 1 << 57;
    }),
    case(Base::Everything, GUEST_INTERRUPT_SSP_TABLE_ADDR, "canonical", |v| {
        v[GUEST_INTERRUPT_SSP_TABLE_ADDR] = 1 << 57;
    }),
    case(Base::Everything, GUEST_SSP, "canonical", |v| {
        v[GUEST_SSP] = 1 << 57;
    }),
    case(Base::Everything, HOST_PERF_GLOBAL_CTRL, "reserved bits are 0", |v| {
        v[HOST_PERF_GLOBAL_CTRL] = 1 << 63;
    }),
    case(Base::Everything, GUEST_PERF_GLOBAL_CTRL, "reserved bits are 0", |v| {
        v[GUEST_PERF_GLOBAL_CTRL] = 1 << 63;
    }),
    case(Base::Everything, HOST_EFER, "reserved bits are 0", |v| {
        v[HOST_EFER] |= 2;
    }),
    case(Base::Everything, GUEST_EFER, "reserved bits are 0", |v| {
        v[GUEST_EFER] |= 2;
    }),
    case(Base::Everything, HOST_PAT, "memory types", |v| {
        v[HOST_PAT] = 2;
    }),
    case(Base::Everything, GUEST_PAT, "memory types", |v| {
        v[GUEST_PAT] = 2;
    }),
    case(Base::Everything, HOST_EFER, "LMA and LME as the host's address-space size has them", |v| {
        v[HOST_EFER] = efer::LMA;
    }),
    case(Base::Everything, HOST_S_CET, "a value that IA32_S_CET may have", |v| {
        v[HOST_S_CET] = 1 << 6;
    }),
    case(Base::Everything, GUEST_S_CET, "a value that IA32_S_CET may have", |v| {
        v[GUEST_S_CET] = 1 << 6;
    }),
    case(Base::Everything, HOST_SSP, "bits 1 and 0 are 0", |v| {
        v[HOST_SSP] = 2;
    }),
    case(Base::Everything, GUEST_SSP, "bits 1 and 0 are 0", |v| {
        v[GUEST_SSP] = 2;
    }),
    case(Base::Everything, HOST_PKRS, "bits 63 to 32 are 0", |v| {
        v[HOST_PKRS] = 1 << 32;
    }),
    case(Base::Everything, GUEST_PKRS, "bits 63 to 32 are 0", |v| {
        v[GUEST_PKRS] = 1 << 32;
    }),
    case(Base::Long, HOST_ES_SELECTOR, "RPL and TI are 0", |v| {
        v[HOST_ES_SELECTOR] |= 4;
    }),
    case(Base::Long, HOST_CS_SELECTOR, "RPL and TI are 0", |v| {
        v[HOST_CS_SELECTOR] |= 4;
    }),
    case(Base::Long, HOST_SS_SELECTOR, "RPL and TI are 0", |v| {
        v[HOST_SS_SELECTOR] |= 4;
    }),
    case(Base::Long, HOST_DS_SELECTOR, "RPL and TI are 0", |v| {
        v[HOST_DS_SELECTOR] |= 4;
    }),
    case(Base::Long, HOST_FS_SELECTOR, "RPL and TI are 0", |v| {
        v[HOST_FS_SELECTOR] |= 4;
    }),
    case(Base::Long, HOST_GS_SELECTOR, "RPL and TI are 0", |v| {
        v[HOST_GS_SELECTOR] |= 4;
    }),
    case(Base::Long, HOST_TR_SELECTOR, "RPL and TI are 0", |v| {
        v[HOST_TR_SELECTOR] |= 4;
    }),
    case(Base::Long, HOST_CS_SELECTOR, "not 0000H", |v| {
        v[HOST_CS_SELECTOR] = 0;
    }),
    case(Base::Long, HOST_TR_SELECTOR, "not 0000H", |v| {
        v[HOST_TR_SELECTOR] = 0;
    }),
    case(Base::Long, EXIT_CONTROLS, "a host of 64 bits, entered from IA-32e mode", |v| {
        off(v, exit::HOST_ADDRESS_SPACE_SIZE);
    }),
    case(Base::Long, HOST_SS_SELECTOR, "not 0000H for a host of 32 bits", |v| {
        off(v, exit::HOST_ADDRESS_SPACE_SIZE);
        v[HOST_SS_SELECTOR] = 0;
    }),
    case(Base::Long, HOST_CR4, "CR4.PAE for a host of 64 bits", |v| {
        v[HOST_CR4] &= !cr4::PAE;
    }),
    case(Base::Long, GUEST_CR0, "a value that VMX operation supports", |v| {
        v[GUEST_CR0] &= !cr0::PE;
    }),
    case(Base::Unrestricted, GUEST_CR0, "CR0.PG only with CR0.PE", |v| {
        v[GUEST_CR0] |= cr0::PG;
    }),
    case(Base::Long, GUEST_CR4, "a value that VMX operation supports", |v| {
        v[GUEST_CR4] &= !cr4::VMXE;
    }),
    case(Base::Long, GUEST_CR4, "CR4.CET only with CR0.WP", |v| {
        v[GUEST_CR4] |= cr4::CET;
        v[GUEST_CR0] &= !cr0::WP;
    }),
    case(Base::Everything, GUEST_DEBUGCTL, "reserved bits are 0 where debug controls are loaded", |v| {
        v[GUEST_DEBUGCTL] = 1 << 40;
    }),
    case(Base::Unrestricted, ENTRY_CONTROLS, "an IA-32e mode guest only with CR0.PG", |v| {
        on(v, entry::IA32E_MODE_GUEST);
    }),
    case(Base::Long, ENTRY_CONTROLS, "an IA-32e mode guest only with CR4.PAE", |v| {
        v[GUEST_CR4] &= !cr4::PAE;
    }),
    case(Base::Protected, GUEST_CR4, "CR4.PCIDE only for an IA-32e mode guest", |v| {
        v[GUEST_CR4] |= cr4::PCIDE;
    }),
    case(Base::Long, GUEST_CR3, "no bits beyond MAXPHYADDR", |v| {
        v[GUEST_CR3] |= 1 << 50;
    }),
    case(Base::Everything, GUEST_DR7, "bits 63 to 32 are 0 where debug controls are loaded", |v| {
        v[GUEST_DR7] |= 1 << 32;
    }),
    case(Base::Everything, GUEST_EFER, "LMA as an IA-32e mode guest has it", |v| {
        v[GUEST_EFER] = 0;
    }),
    case(Base::Everything, GUEST_EFER, "LME is LMA where CR0.PG is 1", |v| {
        v[GUEST_EFER] = efer::LMA;
    }),
    case(Base::Protected, GUEST_RIP, "bits 63 to 32 are 0 outside of 64-bit mode", |v| {
        v[GUEST_RIP] |= 1 << 32;
    }),
    case(Base::Everything, GUEST_SSP, "bits 63 to 32 are 0 outside of 64-bit mode", |v| {
        v[guest_segment(1)[3]] = 0xc09b;
        v[GUEST_SSP] = 1 << 32;
    }),
    case(Base::Long, GUEST_RIP, "bits that the processor does not have are alike", |v| {
        v[GUEST_RIP] = 1 << 57;
    }),
    case(Base::Long, GUEST_RFLAGS, "reserved bits are 0, bit 1 is 1", |v| {
        v[GUEST_RFLAGS] = 0;
    }),
    case(Base::Long, GUEST_SS_ACCESS_RIGHTS, "DPL is RPL", |v| {
        v[GUEST_CS_SELECTOR] |= 3;
        v[GUEST_SS_SELECTOR] |= 3;
    }),
    case(Base::Long, GUEST_RFLAGS, "IF where an external interrupt is injected", |v| {
        v[ENTRY_INTERRUPTION_INFORMATION] = 1 << 31 | 0x50;
    }),
    case(Base::Long, GUEST_TR_SELECTOR, "TI is 0", |v| {
        v[GUEST_TR_SELECTOR] |= 4;
    }),
    case(Base::Long, GUEST_LDTR_SELECTOR, "TI is 0", |v| {
        v[guest_segment(LDTR)[3]] = 0x82;
        v[GUEST_LDTR_SELECTOR] = 4;
    }),
    case(Base::Long, GUEST_SS_SELECTOR, "RPL is that of CS", |v| {
        v[GUEST_SS_SELECTOR] |= 3;
    }),
    case(Base::V8086, GUEST_DS_BASE, "16 times the selector in virtual-8086 mode", |v| {
        v[GUEST_DS_BASE] = 0;
    }),
    case(Base::V8086, GUEST_FS_LIMIT, "FFFFH in virtual-8086 mode", |v| {
        v[GUEST_FS_LIMIT] = 0xfffff;
    }),
    case(Base::V8086, GUEST_GS_ACCESS_RIGHTS, "F3H in virtual-8086 mode", |v| {
        v[GUEST_GS_ACCESS_RIGHTS] = 0x93;
    }),
    case(Base::Long, GUEST_CS_BASE, "bits 63 to 32 are 0", |v| {
        v[GUEST_CS_BASE] = 1 << 32;
    }),
    case(Base::Long, GUEST_ES_BASE, "bits 63 to 32 are 0", |v| {
        v[GUEST_ES_BASE] = 1 << 32;
    }),
    case(
        Base::Long,
        GUEST_CS_ACCESS_RIGHTS,
        "type 9, 11, 13 or 15 (accessed code), or 3 for an unrestricted guest",
        |v| {
            v[GUEST_CS_ACCESS_RIGHTS] = 0xa093;
        },
    ),
    case(Base::Long, GUEST_SS_ACCESS_RIGHTS, "type 3 or 7 (accessed, writable data)", |v| {
        v[GUEST_SS_ACCESS_RIGHTS] = 0xc091;
    }),
    case(Base::Long, GUEST_DS_ACCESS_RIGHTS, "accessed", |v| {
        v[GUEST_DS_ACCESS_RIGHTS] = 0xc092;
    }),
    case(Base::Long, GUEST_ES_ACCESS_RIGHTS, "code that can be read", |v| {
        v[GUEST_ES_ACCESS_RIGHTS] = 0xc099;
    }),
    case(Base::Long, GUEST_CS_ACCESS_RIGHTS, "S is 1", |v| {
        v[GUEST_CS_ACCESS_RIGHTS] = 0xa08b;
    }),
    case(Base::Unrestricted, GUEST_CS_ACCESS_RIGHTS, "DPL 0 with type 3", |v| {
        v[GUEST_CS_ACCESS_RIGHTS] = 0xb3;
    }),
    case(Base::Long, GUEST_CS_ACCESS_RIGHTS, "DPL is that of SS for code that does not conform", |v| {
        v[GUEST_CS_ACCESS_RIGHTS] = 0xa0fb;
    }),
    case(Base::Long, GUEST_CS_ACCESS_RIGHTS, "DPL is not above that of SS for conforming code", |v| {
        v[GUEST_CS_ACCESS_RIGHTS] = 0xa0ff;
    }),
    case(Base::Unrestricted, GUEST_SS_ACCESS_RIGHTS, "DPL 0 in real mode, or if CS has type 3", |v| {
        v[GUEST_SS_ACCESS_RIGHTS] = 0xf3;
        v[GUEST_CS_ACCESS_RIGHTS] = 0xfb;
    }),
    case(Base::Long, GUEST_DS_ACCESS_RIGHTS, "DPL is not below RPL for data and code that does not conform", |v| {
        v[GUEST_DS_SELECTOR] |= 3;
    }),
    case(Base::Long, GUEST_FS_ACCESS_RIGHTS, "P is 1", |v| {
        v[GUEST_FS_ACCESS_RIGHTS] = 0xc013;
    }),
    case(Base::Long, GUEST_TR_ACCESS_RIGHTS, "P is 1", |v| {
        v[GUEST_TR_ACCESS_RIGHTS] = 0x0b;
    }),
    case(Base::Long, GUEST_LDTR_ACCESS_RIGHTS, "P is 1", |v| {
        v[GUEST_LDTR_ACCESS_RIGHTS] = 0x02;
    }),
    case(Base::Long, GUEST_CS_ACCESS_RIGHTS, "bits 11 to 8 are 0", |v| {
        v[GUEST_CS_ACCESS_RIGHTS] = 0xa19b;
    }),
    case(Base::Long, GUEST_TR_ACCESS_RIGHTS, "bits 11 to 8 are 0", |v| {
        v[GUEST_TR_ACCESS_RIGHTS] = 0x18b;
    }),
    case(Base::Long, GUEST_LDTR_ACCESS_RIGHTS, "bits 11 to 8 are 0", |v| {
        v[GUEST_LDTR_ACCESS_RIGHTS] = 0x182;
    }),
    case(Base::Long, GUEST_CS_ACCESS_RIGHTS, "D/B is 0 for 64-bit code", |v| {
        v[GUEST_CS_ACCESS_RIGHTS] = 0xe09b;
    }),
    case(Base::Long, GUEST_CS_ACCESS_RIGHTS, "bits 31 to 17 are 0", |v| {
        v[GUEST_CS_ACCESS_RIGHTS] = 0x2_a09b;
    }),
    case(Base::Long, GUEST_TR_ACCESS_RIGHTS, "bits 31 to 17 are 0", |v| {
        v[GUEST_TR_ACCESS_RIGHTS] = 0x2_008b;
    }),
    case(Base::Long, GUEST_LDTR_ACCESS_RIGHTS, "bits 31 to 17 are 0", |v| {
        v[GUEST_LDTR_ACCESS_RIGHTS] = 0x2_0082;
    }),
    case(Base::Long, GUEST_GS_ACCESS_RIGHTS, "G is 0 where bits 11 to 0 of the limit are not all 1", |v| {
        v[GUEST_GS_LIMIT] = 0xffff_0000;
    }),
    case(Base::Long, GUEST_GS_ACCESS_RIGHTS, "G is 1 where bits 31 to 20 of the limit are not all 0", |v| {
        v[GUEST_GS_ACCESS_RIGHTS] = 0x4093;
    }),
    case(Base::Long, GUEST_TR_ACCESS_RIGHTS, "type 11 (busy 64-bit TSS)", |v| {
        v[GUEST_TR_ACCESS_RIGHTS] = 0x89;
    }),
    case(Base::Protected, GUEST_TR_ACCESS_RIGHTS, "type 3 or 11 (busy TSS)", |v| {
        v[GUEST_TR_ACCESS_RIGHTS] = 0x89;
    }),
    case(Base::Long, GUEST_TR_ACCESS_RIGHTS, "S is 0", |v| {
        v[GUEST_TR_ACCESS_RIGHTS] = 0x9b;
    }),
    case(Base::Long, GUEST_LDTR_ACCESS_RIGHTS, "S is 0", |v| {
        v[GUEST_LDTR_ACCESS_RIGHTS] = 0x92;
    }),
    case(Base::Long, GUEST_TR_ACCESS_RIGHTS, "usable", |v| {
        v[GUEST_TR_ACCESS_RIGHTS] = 0x1_008b;
    }),
    case(Base::Long, GUEST_LDTR_ACCESS_RIGHTS, "type 2 (LDT)", |v| {
        v[GUEST_LDTR_ACCESS_RIGHTS] = 0x83;
    }),
    case(Base::Long, GUEST_GDTR_LIMIT, "bits 31 to 16 are 0", |v| {
        v[GUEST_GDTR_LIMIT] = 1 << 16;
    }),
    case(Base::Long, GUEST_ACTIVITY_STATE, "a state that the processor supports", |v| {
        v[GUEST_ACTIVITY_STATE] = 4;
    }),
    case(Base::V8086, GUEST_ACTIVITY_STATE, "HLT only with SS.DPL 0", |v| {
        v[GUEST_ACTIVITY_STATE] = activity::HLT;
    }),
    case(Base::Long, GUEST_ACTIVITY_STATE, "active in the shadow of STI or MOV SS", |v| {
        (v[GUEST_ACTIVITY_STATE], v[GUEST_INTERRUPTIBILITY_STATE]) = (activity::HLT, blocking::MOV_SS);
    }),
    case(Base::Long, GUEST_ACTIVITY_STATE, "a state that allows what is injected", |v| {
        v[GUEST_ACTIVITY_STATE] = activity::SHUTDOWN;
        v[ENTRY_INTERRUPTION_INFORMATION] = 1 << 31 | 3 << 8 | 6;
    }),
    case(Base::Long, GUEST_INTERRUPTIBILITY_STATE, "bits 31 to 5 are 0", |v| {
        v[GUEST_INTERRUPTIBILITY_STATE] = 1 << 5;
    }),
    case(Base::Long, GUEST_INTERRUPTIBILITY_STATE, "not blocking by both STI and MOV SS", |v| {
        v[GUEST_INTERRUPTIBILITY_STATE] = blocking::STI | blocking::MOV_SS;
    }),
    case(Base::Long, GUEST_INTERRUPTIBILITY_STATE, "blocking by STI only with RFLAGS.IF", |v| {
        v[GUEST_INTERRUPTIBILITY_STATE] = blocking::STI;
    }),
    case(
        Base::Long,
        GUEST_INTERRUPTIBILITY_STATE,
        "no blocking by STI or MOV SS where an external interrupt is injected",
        |v| {
            (v[GUEST_INTERRUPTIBILITY_STATE], v[GUEST_RFLAGS]) = (blocking::STI, 0x202);
            v[ENTRY_INTERRUPTION_INFORMATION] = 1 << 31 | 0x50;
        },
    ),
    case(Base::Long, GUEST_INTERRUPTIBILITY_STATE, "no blocking by MOV SS where an NMI is injected", |v| {
        v[GUEST_INTERRUPTIBILITY_STATE] = blocking::MOV_SS;
        v[ENTRY_INTERRUPTION_INFORMATION] = 1 << 31 | 2 << 8 | 2;
    }),
    case(Base::Long, GUEST_INTERRUPTIBILITY_STATE, "no blocking by SMI outside of SMM", |v| {
        v[GUEST_INTERRUPTIBILITY_STATE] = blocking::SMI;
    }),
    case(Base::Long, GUEST_INTERRUPTIBILITY_STATE, "no blocking by STI where an NMI is injected", |v| {
        (v[GUEST_INTERRUPTIBILITY_STATE], v[GUEST_RFLAGS]) = (blocking::STI, 0x202);
        v[ENTRY_INTERRUPTION_INFORMATION] = 1 << 31 | 2 << 8 | 2;
    }),
    case(Base::Everything, GUEST_INTERRUPTIBILITY_STATE, "no blocking by NMI where a virtual NMI is injected", |v| {
        v[GUEST_INTERRUPTIBILITY_STATE] = blocking::NMI;
        v[ENTRY_INTERRUPTION_INFORMATION] = 1 << 31 | 2 << 8 | 2;
    }),
    case(Base::Long, GUEST_INTERRUPTIBILITY_STATE, "no enclave interruption without SGX", |v| {
        v[GUEST_INTERRUPTIBILITY_STATE] = blocking::ENCLAVE;
    }),
    case(Base::Long, GUEST_PENDING_DEBUG_EXCEPTIONS, "reserved bits are 0", |v| {
        v[GUEST_PENDING_DEBUG_EXCEPTIONS] = 1 << 20;
    }),
    case(Base::Long, GUEST_PENDING_DEBUG_EXCEPTIONS, "BS is 1 where a single-step trap is due", |v| {
        (v[GUEST_INTERRUPTIBILITY_STATE], v[GUEST_RFLAGS]) = (blocking::MOV_SS, 0x102);
    }),
    case(Base::Long, GUEST_PENDING_DEBUG_EXCEPTIONS, "BS is 0 where no single-step trap is due", |v| {
        (v[GUEST_INTERRUPTIBILITY_STATE], v[GUEST_PENDING_DEBUG_EXCEPTIONS]) = (blocking::MOV_SS, 1 << 14);
    }),
    case(Base::Long, GUEST_PENDING_DEBUG_EXCEPTIONS, "bit 16 is 0 without RTM", |v| {
        v[GUEST_PENDING_DEBUG_EXCEPTIONS] = 1 << 16;
    }),
    case(Base::Long, VMCS_LINK_POINTER, "the address of a page", |v| {
        v[VMCS_LINK_POINTER] = PAGE + 1;
    }),
    case(Base::Long, VMCS_LINK_POINTER, "within MAXPHYADDR", |v| {
        v[VMCS_LINK_POINTER] = 1 << 46;
    }),
    case(
        Base::Long,
        VMCS_LINK_POINTER,
        "it points to the VMCS revision identifier, and to a shadow VMCS with shadowing",
        |v| {
            v[VMCS_LINK_POINTER] = PAGE;
        },
    ),
    case(Base::Long, VMCS_LINK_POINTER, "not the current VMCS", |v| {
        v[VMCS_LINK_POINTER] = REGION;
    }),
    case(Base::PaeWithEpt, GUEST_PDPTE2, "reserved bits of a present PDPTE are 0", |v| {
        v[GUEST_PDPTE2] = 3;
    }),
    case(Base::Pae, GUEST_CR3, "reserved bits of a present PDPTE are 0", |v| {
        v[GUEST_CR3] = BAD_PDPTES;
    }),
    case(Base::Unrestricted, GUEST_RFLAGS, "VM only in protected mode outside of IA-32e mode", |v| {
        v[GUEST_RFLAGS] |= 1 << 17;
        (0..6).for_each(|i| v[guest_segment(i)[3]] = 0xf3);
    }),
];
