//! What a processor's VMX can do (SDM vol. 3D, appendix "VMX Capability Reporting Facility").

use serde::{Deserialize, Serialize};
use x86::control::{cr0, cr4};
use x86::model::{CpuModel, Feature};

use crate::control::{Control, entry, exit, pin, primary, secondary, tertiary};
use crate::field::Field;
use crate::function::EPTP_SWITCHING;

/// The VMCS revision identifier.
pub const REVISION: u32 = 0x554e_4456;
/// log2 of how many ticks of the TSC one of the VMX-preemption timer takes: a VM entry and an exit behind the first instruction are two ticks.
pub const TIMER_RATE: u32 = 0;
/// How many CR3-target values there are.
pub const CR3_TARGETS: u64 = 4;
/// The most entries that a list of MSRs may have.
pub const MSR_LIST_MAX: u64 = 512;

/// IA32_VMX_EPT_VPID_CAP.
pub mod ept_vpid {
    #![allow(missing_docs, reason = "the manual's words")]
    pub const EXECUTE_ONLY: u64 = 1 << 0;
    pub const WALK_4: u64 = 1 << 6;
    pub const WALK_5: u64 = 1 << 7;
    pub const UNCACHEABLE: u64 = 1 << 8;
    pub const WRITE_BACK: u64 = 1 << 14;
    pub const PAGES_2M: u64 = 1 << 16;
    pub const PAGES_1G: u64 = 1 << 17;
    pub const INVEPT: u64 = 1 << 20;
    pub const ACCESSED_DIRTY: u64 = 1 << 21;
    pub const ADVANCED_INFORMATION: u64 = 1 << 22;
    pub const SHADOW_STACKS: u64 = 1 << 23;
    pub const INVEPT_SINGLE: u64 = 1 << 25;
    pub const INVEPT_ALL: u64 = 1 << 26;
    pub const INVVPID: u64 = 1 << 32;
    pub const INVVPID_ADDRESS: u64 = 1 << 40;
    pub const INVVPID_SINGLE: u64 = 1 << 41;
    pub const INVVPID_ALL: u64 = 1 << 42;
    pub const INVVPID_SINGLE_RETAINING_GLOBALS: u64 = 1 << 43;
}

/// What a field of 32 controls may hold: bits that must be 1, and bits that may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Allowed {
    /// The allowed 0-settings.
    pub must: u32,
    /// The allowed 1-settings.
    pub may: u32,
}

impl Allowed {
    /// Of default-1 bits and controls that there are.
    fn of(default_1: u32, controls: &[Control]) -> Self {
        Allowed { must: default_1, may: controls.iter().fold(default_1, |bits, c| bits | 1 << c.bit) }
    }

    /// Whether these controls may be so.
    pub const fn allows(self, value: u64) -> bool {
        value as u32 & self.must == self.must && value as u32 & !self.may == 0
    }

    const fn msr(self) -> u64 {
        self.must as u64 | (self.may as u64) << 32
    }

    /// As the MSR without TRUE reports it: these bits are 1.
    const fn with_default(self, default_1: u32) -> u64 {
        (self.must | default_1) as u64 | (self.may as u64) << 32
    }
}

/// Pin-based controls that are reserved and 1.
const PIN_DEFAULT: u32 = 0x16;
/// Processor-based ones, for software that does not look at the TRUE MSRs, and for other.
const PRIMARY_DEFAULT: u32 = 0x0401_e172;
const PRIMARY_TRUE_DEFAULT: u32 = 0x0400_6172;
const EXIT_DEFAULT: u32 = 0x0003_6dff;
const EXIT_TRUE_DEFAULT: u32 = 0x0003_6dfb;
const ENTRY_DEFAULT: u32 = 0x0000_11ff;
const ENTRY_TRUE_DEFAULT: u32 = 0x0000_11fb;

/// What a processor's VMX can do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Capabilities {
    /// Pin-based controls.
    pub pin: Allowed,
    /// Primary processor-based controls.
    pub primary: Allowed,
    /// Secondary ones.
    pub secondary: Allowed,
    /// Tertiary ones that may be 1.
    pub tertiary: u64,
    /// Primary VM-exit controls.
    pub exit: Allowed,
    /// Secondary ones that may be 1.
    pub exit_2: u64,
    /// VM-entry controls.
    pub entry: Allowed,
    /// IA32_VMX_EPT_VPID_CAP.
    pub ept_vpid: u64,
    /// IA32_VMX_VMFUNC.
    pub functions: u64,
    /// CR4 bits that may be 1 in VMX operation.
    pub cr4: u64,
    /// MAXPHYADDR.
    pub physical_bits: u32,
    /// Bits of a linear address, at most.
    pub linear_bits: u32,
}

/// CR0 bits that are 1 in VMX operation. An unrestricted guest is free of the first two.
pub const CR0_FIXED_0: u64 = cr0::PE | cr0::PG | cr0::NE;
/// CR0 bits that may be 1.
pub const CR0_FIXED_1: u64 = 0xffff_ffff;
/// CR0 bits that VM entries and exits do not change: ET, CD, NW and what is reserved.
pub(crate) const CR0_KEPT: u64 = cr0::ET | cr0::CD | cr0::NW | 0x1ffa_ffc0;
/// CR4 bits that are 1 in VMX operation.
pub const CR4_FIXED_0: u64 = cr4::VMXE;

impl Capabilities {
    /// Of a model.
    pub fn of(model: &CpuModel) -> Self {
        let cet = model.has(Feature::Shstk) || model.has(Feature::Ibt);
        let with = |always: &[Control], sometimes: &[(Control, bool)]| -> Vec<Control> {
            let more = sometimes.iter().filter(|(_, there)| *there).map(|(c, _)| *c);
            always.iter().copied().chain(more).collect()
        };
        let secondary = with(
            &[
                secondary::ENABLE_EPT,
                secondary::DESCRIPTOR_TABLE_EXITING,
                secondary::ENABLE_VPID,
                secondary::WBINVD_EXITING,
                secondary::UNRESTRICTED_GUEST,
                secondary::PAUSE_LOOP_EXITING,
                secondary::USE_TSC_SCALING,
                secondary::VIRTUALIZE_APIC_ACCESSES,
                secondary::APIC_REGISTER_VIRTUALIZATION,
                secondary::VIRTUAL_INTERRUPT_DELIVERY,
                secondary::ENABLE_PML,
                secondary::VMCS_SHADOWING,
                secondary::MODE_BASED_EXECUTE_CONTROL,
                secondary::EPT_VIOLATION_VE,
                secondary::SUB_PAGE_WRITE_PERMISSIONS,
                secondary::INSTRUCTION_TIMEOUT,
                secondary::ENABLE_VM_FUNCTIONS,
            ],
            &[
                (secondary::VIRTUALIZE_X2APIC_MODE, model.has(Feature::X2apic)),
                (secondary::ENABLE_RDTSCP, model.has(Feature::Rdtscp)),
                (secondary::RDRAND_EXITING, model.has(Feature::Rdrand)),
                (secondary::RDSEED_EXITING, model.has(Feature::Rdseed)),
                (secondary::ENABLE_INVPCID, model.has(Feature::Invpcid)),
                (secondary::ENABLE_XSAVES_XRSTORS, model.has(Feature::Xsaves)),
                (secondary::ENABLE_USER_WAIT_AND_PAUSE, model.has(Feature::Waitpkg)),
            ],
        );
        let tertiary = with(
            &[tertiary::IPI_VIRTUALIZATION],
            &[
                (tertiary::ENABLE_MSR_LIST_INSTRUCTIONS, model.has(Feature::Msrlist)),
                (tertiary::VIRTUALIZE_IA32_SPEC_CTRL, model.has(Feature::SpecCtrl)),
            ],
        );
        let exits = with(
            &[
                exit::SAVE_DEBUG_CONTROLS,
                exit::HOST_ADDRESS_SPACE_SIZE,
                exit::ACKNOWLEDGE_INTERRUPT_ON_EXIT,
                exit::SAVE_PAT,
                exit::LOAD_PAT,
                exit::SAVE_EFER,
                exit::LOAD_EFER,
                exit::SAVE_PREEMPTION_TIMER,
            ],
            &[
                (exit::LOAD_PERF_GLOBAL_CTRL, model.has(Feature::ArchPerfmon)),
                (exit::SAVE_PERF_GLOBAL_CTRL, model.has(Feature::ArchPerfmon)),
                (exit::CLEAR_LBR_CTL, model.has(Feature::ArchLbr)),
                (exit::LOAD_CET_STATE, cet),
                (exit::LOAD_PKRS, model.has(Feature::Pks)),
            ],
        );
        let entries = with(
            &[entry::LOAD_DEBUG_CONTROLS, entry::IA32E_MODE_GUEST, entry::LOAD_PAT, entry::LOAD_EFER],
            &[
                (entry::LOAD_PERF_GLOBAL_CTRL, model.has(Feature::ArchPerfmon)),
                (entry::LOAD_LBR_CTL, model.has(Feature::ArchLbr)),
                (entry::LOAD_CET_STATE, cet),
                (entry::LOAD_PKRS, model.has(Feature::Pks)),
            ],
        );
        use ept_vpid as e;
        Capabilities {
            pin: Allowed::of(
                PIN_DEFAULT,
                &[
                    pin::EXTERNAL_INTERRUPT_EXITING,
                    pin::NMI_EXITING,
                    pin::VIRTUAL_NMIS,
                    pin::ACTIVATE_VMX_PREEMPTION_TIMER,
                    pin::PROCESS_POSTED_INTERRUPTS,
                ],
            ),
            primary: Allowed::of(PRIMARY_TRUE_DEFAULT, primary::ALL),
            secondary: Allowed::of(0, &secondary),
            tertiary: tertiary.iter().fold(0, |bits, c| bits | 1 << c.bit),
            exit: Allowed::of(EXIT_TRUE_DEFAULT, &exits),
            exit_2: 0,
            entry: Allowed::of(ENTRY_TRUE_DEFAULT, &entries),
            ept_vpid: e::EXECUTE_ONLY
                | e::WALK_4
                | e::UNCACHEABLE
                | e::WRITE_BACK
                | e::PAGES_2M
                | e::PAGES_1G
                | e::INVEPT
                | e::ACCESSED_DIRTY
                | e::ADVANCED_INFORMATION
                | e::INVEPT_SINGLE
                | e::INVEPT_ALL
                | e::INVVPID
                | e::INVVPID_ADDRESS
                | e::INVVPID_SINGLE
                | e::INVVPID_ALL
                | e::INVVPID_SINGLE_RETAINING_GLOBALS
                | if model.has(Feature::La57) { e::WALK_5 } else { 0 }
                | if model.has(Feature::Shstk) { e::SHADOW_STACKS } else { 0 },
            functions: 1 << EPTP_SWITCHING,
            cr4: model.cr4_bits() | cr4::VMXE,
            physical_bits: model.physical_bits.into(),
            linear_bits: model.linear_bits().into(),
        }
    }

    /// Whether a control may be 1.
    pub fn has(&self, c: Control) -> bool {
        let may = match c.field {
            crate::field::PIN_CONTROLS => self.pin.may.into(),
            crate::field::PRIMARY_CONTROLS => self.primary.may.into(),
            crate::field::SECONDARY_CONTROLS => self.secondary.may.into(),
            crate::field::TERTIARY_CONTROLS => self.tertiary,
            crate::field::EXIT_CONTROLS => self.exit.may.into(),
            crate::field::SECONDARY_EXIT_CONTROLS => self.exit_2,
            _ => self.entry.may.into(),
        };
        may >> c.bit & 1 != 0
    }

    /// A physical address that a VMCS may hold: within MAXPHYADDR.
    pub const fn is_physical(&self, address: u64) -> bool {
        address >> self.physical_bits == 0
    }

    /// A capability MSR.
    pub fn msr(&self, number: u32) -> Option<u64> {
        Some(match number {
            // IA32_VMX_BASIC: 4 KiB regions in write-back memory, INS and OUTS tell of themselves, TRUE MSRs, exceptions with any error code.
            0x480 => u64::from(REVISION) | 0x1000 << 32 | 6 << 50 | 1 << 54 | 1 << 55 | 1 << 56,
            0x481 => self.pin.with_default(PIN_DEFAULT),
            0x482 => self.primary.with_default(PRIMARY_DEFAULT),
            0x483 => self.exit.with_default(EXIT_DEFAULT),
            0x484 => self.entry.with_default(ENTRY_DEFAULT),
            // IA32_VMX_MISC: EFER.LMA is stored, all activity states, VMWRITE to any field, injection of instructions without length.
            0x485 => {
                let lists = MSR_LIST_MAX / 512 - 1;
                u64::from(TIMER_RATE) | 1 << 5 | 7 << 6 | CR3_TARGETS << 16 | lists << 25 | 1 << 29 | 1 << 30
            }
            0x486 => CR0_FIXED_0,
            0x487 => CR0_FIXED_1,
            0x488 => CR4_FIXED_0,
            0x489 => self.cr4,
            0x48a => (Field::highest_index() as u64) << 1,
            0x48b => self.secondary.msr(),
            0x48c => self.ept_vpid,
            0x48d => self.pin.msr(),
            0x48e => self.primary.msr(),
            0x48f => self.exit.msr(),
            0x490 => self.entry.msr(),
            0x491 if self.has(secondary::ENABLE_VM_FUNCTIONS) => self.functions,
            0x492 if self.has(primary::ACTIVATE_TERTIARY_CONTROLS) => self.tertiary,
            0x493 if self.has(exit::ACTIVATE_SECONDARY_CONTROLS) => self.exit_2,
            _ => return None,
        })
    }
}
