//! The controls of VMX (SDM vol. 3C, "VM-Execution Control Fields", "VM-Exit Control Fields", "VM-Entry Control Fields").

use crate::field::*;

/// One bit of a field of controls.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Control {
    /// The field.
    pub field: Field,
    /// The bit's number.
    pub bit: u32,
    /// What a user knows it by.
    pub name: &'static str,
}

macro_rules! controls {
    ($($(#[$m:meta])* $module:ident of $field:ident { $($name:ident = $bit:literal,)* })*) => {
        $(
            $(#[$m])*
            #[allow(missing_docs, reason = "the manual's names")]
            pub mod $module {
                use super::*;
                $(pub const $name: Control = Control { field: $field, bit: $bit, name: stringify!($name) };)*
                /// All of them.
                pub const ALL: &[Control] = &[$($name,)*];
            }
        )*
    };
}

controls! {
    /// "Pin-Based VM-Execution Controls".
    pin of PIN_CONTROLS {
        EXTERNAL_INTERRUPT_EXITING = 0,
        NMI_EXITING = 3,
        VIRTUAL_NMIS = 5,
        ACTIVATE_VMX_PREEMPTION_TIMER = 6,
        PROCESS_POSTED_INTERRUPTS = 7,
    }
    /// "Primary Processor-Based VM-Execution Controls".
    primary of PRIMARY_CONTROLS {
        INTERRUPT_WINDOW_EXITING = 2,
        USE_TSC_OFFSETTING = 3,
        HLT_EXITING = 7,
        INVLPG_EXITING = 9,
        MWAIT_EXITING = 10,
        RDPMC_EXITING = 11,
        RDTSC_EXITING = 12,
        CR3_LOAD_EXITING = 15,
        CR3_STORE_EXITING = 16,
        ACTIVATE_TERTIARY_CONTROLS = 17,
        CR8_LOAD_EXITING = 19,
        CR8_STORE_EXITING = 20,
        USE_TPR_SHADOW = 21,
        NMI_WINDOW_EXITING = 22,
        MOV_DR_EXITING = 23,
        UNCONDITIONAL_IO_EXITING = 24,
        USE_IO_BITMAPS = 25,
        MONITOR_TRAP_FLAG = 27,
        USE_MSR_BITMAPS = 28,
        MONITOR_EXITING = 29,
        PAUSE_EXITING = 30,
        ACTIVATE_SECONDARY_CONTROLS = 31,
    }
    /// "Secondary Processor-Based VM-Execution Controls".
    secondary of SECONDARY_CONTROLS {
        VIRTUALIZE_APIC_ACCESSES = 0,
        ENABLE_EPT = 1,
        DESCRIPTOR_TABLE_EXITING = 2,
        ENABLE_RDTSCP = 3,
        VIRTUALIZE_X2APIC_MODE = 4,
        ENABLE_VPID = 5,
        WBINVD_EXITING = 6,
        UNRESTRICTED_GUEST = 7,
        APIC_REGISTER_VIRTUALIZATION = 8,
        VIRTUAL_INTERRUPT_DELIVERY = 9,
        PAUSE_LOOP_EXITING = 10,
        RDRAND_EXITING = 11,
        ENABLE_INVPCID = 12,
        ENABLE_VM_FUNCTIONS = 13,
        VMCS_SHADOWING = 14,
        RDSEED_EXITING = 16,
        ENABLE_PML = 17,
        EPT_VIOLATION_VE = 18,
        ENABLE_XSAVES_XRSTORS = 20,
        MODE_BASED_EXECUTE_CONTROL = 22,
        SUB_PAGE_WRITE_PERMISSIONS = 23,
        USE_TSC_SCALING = 25,
        ENABLE_USER_WAIT_AND_PAUSE = 26,
        INSTRUCTION_TIMEOUT = 31,
    }
    /// "Tertiary Processor-Based VM-Execution Controls".
    tertiary of TERTIARY_CONTROLS {
        IPI_VIRTUALIZATION = 4,
        ENABLE_MSR_LIST_INSTRUCTIONS = 6,
        VIRTUALIZE_IA32_SPEC_CTRL = 7,
    }
    /// "Primary VM-Exit Controls".
    exit of EXIT_CONTROLS {
        SAVE_DEBUG_CONTROLS = 2,
        HOST_ADDRESS_SPACE_SIZE = 9,
        LOAD_PERF_GLOBAL_CTRL = 12,
        ACKNOWLEDGE_INTERRUPT_ON_EXIT = 15,
        SAVE_PAT = 18,
        LOAD_PAT = 19,
        SAVE_EFER = 20,
        LOAD_EFER = 21,
        SAVE_PREEMPTION_TIMER = 22,
        CLEAR_LBR_CTL = 26,
        LOAD_CET_STATE = 28,
        LOAD_PKRS = 29,
        SAVE_PERF_GLOBAL_CTRL = 30,
        ACTIVATE_SECONDARY_CONTROLS = 31,
    }
    /// "Secondary VM-Exit Controls".
    exit_2 of SECONDARY_EXIT_CONTROLS {
        PREMATURELY_BUSY_SHADOW_STACK = 3,
    }
    /// "VM-Entry Controls".
    entry of ENTRY_CONTROLS {
        LOAD_DEBUG_CONTROLS = 2,
        IA32E_MODE_GUEST = 9,
        ENTRY_TO_SMM = 10,
        DEACTIVATE_DUAL_MONITOR_TREATMENT = 11,
        LOAD_PERF_GLOBAL_CTRL = 13,
        LOAD_PAT = 14,
        LOAD_EFER = 15,
        LOAD_LBR_CTL = 21,
        LOAD_CET_STATE = 20,
        LOAD_PKRS = 22,
    }
}

/// The controls that a field has.
pub fn known(field: Field) -> impl Iterator<Item = Control> {
    let groups = [pin::ALL, primary::ALL, secondary::ALL, tertiary::ALL, exit::ALL, exit_2::ALL, entry::ALL];
    groups.into_iter().flatten().copied().filter(move |c| c.field == field)
}
