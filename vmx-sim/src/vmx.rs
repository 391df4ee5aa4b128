//! A processor's VMX: its state, and its part of the door.

use emu_core::engine::{Step, Stop};
use iced_x86::{Instruction, Mnemonic};
use serde::{Deserialize, Serialize};
use x86::control::{cr0, cr4};
use x86::exception::Exception;
use x86::extension::{self, Extension, GuestInMap, Intercept, Register, SecondAccess, SecondStage, When};
use x86::level::Levels;
use x86::model::{CpuModel, Feature};
use x86::processor::P;

use crate::apic::Virtual;
use crate::capability::{CR0_FIXED_0, CR0_FIXED_1, CR4_FIXED_0, Capabilities};
use crate::control::{pin, primary, secondary, tertiary};
use crate::entry::Failure;
use crate::field::*;
use crate::instructions::Operation;
use crate::msr::SPEC_CTRL;
use crate::tags::{self, Tags};
use crate::vmcs::Vmcs;

/// IA32_FEATURE_CONTROL.
const FEATURE_CONTROL: u32 = 0x3a;
/// IA32_MISC_ENABLE.
const MISC_ENABLE: u32 = 0x1a0;
/// IA32_FEATURE_CONTROL's bits: locked; VMXON outside SMX operation.
pub(crate) const FEATURE_CONTROL_LOCK: u64 = 1;
pub(crate) const FEATURE_CONTROL_VMXON: u64 = 1 << 2;
/// The name that snapshots have.
const NAME: &str = "vmx";

/// A processor's VMX.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Vmx {
    /// What it can do.
    pub capabilities: Capabilities,
    /// IA32_FEATURE_CONTROL.
    pub feature_control: u64,
    /// The VMXON region: the processor is in VMX operation.
    pub vmxon: Option<u64>,
    /// Where the current VMCS is.
    pub current: Option<u64>,
    /// The current VMCS.
    pub vmcs: Vmcs,
    /// VMX non-root operation.
    pub in_guest: bool,
    /// System management mode has interrupted VMX operation: non-root, or not.
    in_smm_from: Option<bool>,
    /// Translations' tags.
    pub(crate) tags: Tags,
    /// With virtual NMIs: they are blocked.
    pub(crate) virtual_nmi_blocked: bool,
    /// From which instruction on a VM exit of the monitor trap flag comes before it.
    pub(crate) trap_flag_from: u64,
    /// An event that was injected is the monitor trap flag's VM exit.
    pub(crate) trap_flag_pending: bool,
    /// When the VMX-preemption timer comes to zero, as a count of the machine's clock.
    pub(crate) timer_expires: Option<u64>,
    /// The instruction at which an IRET has unblocked NMIs.
    pub(crate) iret_unblocked_at: Option<u64>,
    /// PAUSE-loop exiting: when the first PAUSE of the loop was, by the TSC, and at which of its instructions the processor has come to the last one.
    pub(crate) pauses: Option<(u64, u64)>,
    /// What the guest's virtual APIC has to do yet.
    pub(crate) apic: Virtual,
    /// At which level guests are.
    pub(crate) levels: Levels,
    /// The last VM entry that failed: which rule it broke.
    #[serde(skip)]
    pub failure: Option<Failure>,
}

impl Vmx {
    /// After RESET.
    pub fn new(model: &CpuModel) -> Self {
        Vmx::with(Capabilities::of(model))
    }

    fn with(capabilities: Capabilities) -> Self {
        Vmx {
            capabilities,
            feature_control: 0,
            vmxon: None,
            current: None,
            vmcs: Vmcs::default(),
            in_guest: false,
            in_smm_from: None,
            tags: Tags::default(),
            virtual_nmi_blocked: false,
            trap_flag_from: 0,
            trap_flag_pending: false,
            timer_expires: None,
            iret_unblocked_at: None,
            pauses: None,
            apic: Virtual::default(),
            levels: Levels::default(),
            failure: None,
        }
    }

    /// The processor is in VMX operation.
    pub fn is_on(&self) -> bool {
        self.vmxon.is_some() && self.in_smm_from.is_none()
    }

    /// RDMSR as VM exits make it: IA32_SPEC_CTRL is what it is.
    pub(crate) fn read_any_msr(&mut self, h: &mut P, msr: u32) -> Step<u64> {
        let own = if msr == SPEC_CTRL { None } else { self.read_msr(h, msr) };
        own.unwrap_or_else(|| x86::msr::read(h, msr))
    }

    /// WRMSR as VM entries and exits make it.
    pub(crate) fn write_any_msr(&mut self, h: &mut P, msr: u32, value: u64) -> Step {
        let own = if msr == SPEC_CTRL { None } else { self.write_msr(h, msr, value) };
        own.unwrap_or_else(|| x86::msr::write(h, msr, value))
    }

    /// CR0 as VMX operation lets it be: an unrestricted guest is free of PE and PG.
    fn allows_cr0(&self, value: u64) -> bool {
        let free = self.in_guest && self.vmcs.has(secondary::UNRESTRICTED_GUEST);
        let must = if free { CR0_FIXED_0 & !(cr0::PE | cr0::PG) } else { CR0_FIXED_0 };
        value & must == must && value & !CR0_FIXED_1 == 0
    }
}

/// Makes VMX known, to models that have it and to snapshots.
pub fn register() {
    extension::register(extension::Kind {
        name: NAME,
        feature: Some(Feature::Vmx),
        make: |model| Box::new(Vmx::new(model)),
        restore: |bytes| {
            let vmx: Vmx = postcard::from_bytes(bytes).map_err(|e| e.to_string())?;
            Ok(Box::new(vmx))
        },
    });
}

impl Extension for Vmx {
    fn name(&self) -> &'static str {
        NAME
    }

    fn save(&self) -> Vec<u8> {
        postcard::to_stdvec(self).expect("its state can be written")
    }

    fn as_any(&self) -> &dyn std::any::Any {
        self
    }

    fn duplicate(&self) -> Box<dyn Extension> {
        Box::new(self.clone())
    }

    #[inline]
    fn is_guest(&self) -> bool {
        self.in_guest
    }

    fn intercept(&mut self, h: &mut P, what: &Intercept, when: When) -> Step {
        self.decide(h, what, when)
    }

    fn opcode(&self, insn: &Instruction) -> Option<u8> {
        Operation::of(insn).map(|o| o as u8)
    }

    fn execute(&mut self, h: &mut P, opcode: u8, registers: [Register; 2]) -> Step {
        self.execute_own(h, Operation::numbered(opcode), registers)
    }

    fn read_msr(&mut self, h: &mut P, msr: u32) -> Option<Step<u64>> {
        match msr {
            0x800..=0x8ff => self.read_x2apic(h, msr).map(Ok),
            FEATURE_CONTROL => Some(Ok(self.feature_control)),
            SPEC_CTRL => self.read_spec_ctrl(),
            0x480..=0x493 => Some(self.capabilities.msr(msr).ok_or_else(|| Exception::gp(0).into())),
            _ => None,
        }
    }

    fn write_msr(&mut self, h: &mut P, msr: u32, value: u64) -> Option<Step> {
        match msr {
            0x800..=0x8ff => self.write_x2apic(h, msr, value),
            FEATURE_CONTROL => {
                let is_legal = self.feature_control & FEATURE_CONTROL_LOCK == 0
                    && value & !(FEATURE_CONTROL_LOCK | FEATURE_CONTROL_VMXON) == 0;
                if is_legal {
                    self.feature_control = value;
                }
                Some(if is_legal { Ok(()) } else { Err(Exception::gp(0).into()) })
            }
            SPEC_CTRL => self.write_spec_ctrl(h, value),
            MISC_ENABLE => {
                // Which bits EFER has depends on it.
                self.vmcs.checked_from_ia32e = None;
                None
            }
            0x480..=0x493 => Some(Err(Exception::gp(0).into())),
            _ => None,
        }
    }

    fn cpuid(&self, leaf: u32, _: u32, result: &mut [u32; 4]) {
        if leaf == 1 {
            result[2] |= 1 << 5;
        }
    }

    fn cr4_bits(&self) -> u64 {
        cr4::VMXE
    }

    fn allows_cr(&self, cr: u8, value: u64) -> bool {
        match cr {
            _ if !self.is_on() => true,
            0 => self.allows_cr0(value),
            4 => value & CR4_FIXED_0 == CR4_FIXED_0,
            _ => true,
        }
    }

    fn read_cr(&mut self, h: &mut P, cr: u8, value: u64) -> u64 {
        let v = &self.vmcs;
        match cr {
            0 => value & !v[CR0_MASK] | v[CR0_READ_SHADOW] & v[CR0_MASK],
            4 => value & !v[CR4_MASK] | v[CR4_READ_SHADOW] & v[CR4_MASK],
            8 => self.read_cr8(h, value),
            _ => value,
        }
    }

    fn write_cr(&mut self, h: &mut P, cr: u8, value: u64) -> Step<Option<u64>> {
        let v = &self.vmcs;
        Ok(Some(match cr {
            8 => return self.write_cr8(h, value),
            0 => value & !v[CR0_MASK] | h.arch.cr0 & v[CR0_MASK],
            4 => value & !v[CR4_MASK] | h.arch.cr4 & v[CR4_MASK],
            _ => value,
        }))
    }

    /// INIT is blocked in VMX root operation.
    fn holds(&self, what: &Intercept) -> bool {
        matches!(what, Intercept::Init) && self.is_on() && !self.in_guest
    }

    fn takes_masked_interrupts(&self) -> bool {
        self.vmcs.has(pin::EXTERNAL_INTERRUPT_EXITING)
    }

    fn steps(&self) -> bool {
        self.vmcs.has(primary::MONITOR_TRAP_FLAG)
    }

    fn has_work(&self) -> bool {
        self.has_apic_work()
    }

    fn iret_unblocks_nmi(&mut self, h: &mut P) -> bool {
        if !self.vmcs.has(pin::NMI_EXITING) {
            if h.arch.nmi_blocked {
                self.iret_unblocked_at = Some(extension::present_instruction(h));
            }
            return true;
        }
        // "Changes to Instruction Behavior in VMX Non-Root Operation": IRET.
        if self.vmcs.has(pin::VIRTUAL_NMIS) && std::mem::take(&mut self.virtual_nmi_blocked) {
            self.iret_unblocked_at = Some(extension::present_instruction(h));
            h.core.check_interrupts = true;
            h.core.leave = true;
        }
        false
    }

    fn address_space(&self) -> u64 {
        if self.in_guest { self.tags.present() } else { 0 }
    }

    /// The VPID: "Operations that Invalidate Cached Mappings" are for all EP4TAs.
    fn linear_mask(&self) -> u64 {
        tags::VPID
    }

    fn has_second_stage(&self) -> bool {
        self.in_guest && (self.vmcs.uses_ept() || self.virtualizes_apic_accesses())
    }

    fn second_stage(&mut self, h: &mut P, access: SecondAccess) -> Result<SecondStage, u64> {
        let stage = if self.vmcs.uses_ept() {
            self.translate(h, access)?
        } else {
            SecondStage { physical: access.address, size_log2: 0, read: true, write: true }
        };
        self.through_apic_page(h, access, stage)
    }

    fn second_stage_fault(&mut self, h: &mut P, access: SecondAccess, why: u64) -> Stop {
        self.apic_access_exit(h, why).unwrap_or_else(|| self.ept_exit(h, access, why))
    }

    fn read_own(&mut self, h: &mut P, address: u64, size: u8) -> u64 {
        self.read_apic_page(h, address, size)
    }

    fn write_own(&mut self, h: &mut P, address: u64, size: u8, value: u64) {
        self.write_apic_page(h, address, size, value);
    }

    /// "Default Treatment of SMI Delivery".
    fn enters_smm(&mut self, _: &mut P) -> GuestInMap {
        if self.vmxon.is_some() {
            self.in_smm_from = Some(std::mem::take(&mut self.in_guest));
        }
        GuestInMap::default()
    }

    /// "Default Treatment of RSM".
    fn leaves_smm(&mut self, h: &mut P) {
        if let Some(was_guest) = self.in_smm_from.take() {
            self.in_guest = was_guest;
            h.arch.cr4 |= cr4::VMXE;
        }
    }

    fn reset(&mut self) {
        *self = Vmx::with(self.capabilities);
    }

    fn disables(&self, feature: Feature) -> bool {
        let enable = match feature {
            Feature::Rdtscp => secondary::ENABLE_RDTSCP,
            Feature::Invpcid => secondary::ENABLE_INVPCID,
            Feature::Xsaves => secondary::ENABLE_XSAVES_XRSTORS,
            Feature::Waitpkg => secondary::ENABLE_USER_WAIT_AND_PAUSE,
            Feature::Msrlist => tertiary::ENABLE_MSR_LIST_INSTRUCTIONS,
            _ => return false,
        };
        !self.vmcs.has(enable)
    }

    fn level(&self) -> u8 {
        if self.in_guest { self.guest_level() } else { 1 }
    }

    fn wakes_at(&self) -> Option<u64> {
        self.timer_expires.filter(|_| self.in_guest)
    }

    fn is_awake(&self, h: &P) -> bool {
        self.has_event(h)
    }

    fn tsc(&self, tsc: u64) -> u64 {
        let v = &self.vmcs;
        if !v.has(primary::USE_TSC_OFFSETTING) {
            return tsc;
        }
        let scaled = if v.has(secondary::USE_TSC_SCALING) {
            ((u128::from(tsc) * u128::from(v[TSC_MULTIPLIER])) >> 48) as u64
        } else {
            tsc
        };
        scaled.wrapping_add(v[TSC_OFFSET])
    }
}

/// An instruction of VMX by its mnemonic.
impl Operation {
    fn of(insn: &Instruction) -> Option<Operation> {
        use Mnemonic as M;
        Some(match insn.mnemonic() {
            M::Vmcall => Operation::Vmcall,
            M::Vmclear => Operation::Vmclear,
            M::Vmlaunch => Operation::Vmlaunch,
            M::Vmptrld => Operation::Vmptrld,
            M::Vmptrst => Operation::Vmptrst,
            M::Vmread => Operation::Vmread,
            M::Vmresume => Operation::Vmresume,
            M::Vmwrite => Operation::Vmwrite,
            M::Vmxoff => Operation::Vmxoff,
            M::Vmxon => Operation::Vmxon,
            M::Invept => Operation::Invept,
            M::Invvpid => Operation::Invvpid,
            M::Vmfunc => Operation::Vmfunc,
            _ => return None,
        })
    }
}
