//! A processor's SVM: its state, and its part of the door.

use emu_core::engine::{Step, Stop};
use iced_x86::Instruction;
use serde::{Deserialize, Serialize};
use x86::control::efer;
use x86::extension::{self, Extension, GuestInMap, Intercept, Register, SecondAccess, SecondStage, When};
use x86::model::{CpuModel, Feature};
use x86::processor::P;

use crate::avic::Avic;
use crate::exit::code;
use crate::instructions;
use crate::level::Known;
use crate::msr::{Msrs, vm_cr};
use crate::nested_paging::Host;
use crate::vmcb::*;
use crate::vmrun::Failure;

/// The name that snapshots have.
const NAME: &str = "svm";

/// How many ASIDs there are (CPUID Fn8000_000A_EBX).
pub const ASIDS: u64 = 0x8000;

/// A processor's SVM.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Svm {
    /// What it can do.
    pub model: CpuModel,
    /// Bits that CR4 may have set.
    #[serde(skip)]
    pub(crate) cr4_bits: u64,
    /// MSRs.
    pub msrs: Msrs,
    /// The global interrupt flag.
    pub gif: bool,
    /// A guest is at work.
    pub in_guest: bool,
    /// The present VMCB, or the last one.
    pub vmcb: Vmcb,
    pub(crate) held: Held,
    /// Room for what goes to the host save area or comes from there, and for VMLOAD and VMSAVE: what is in it counts during one instruction.
    #[serde(skip)]
    pub(crate) room: Vmcb,
    /// System management mode has interrupted SVM: a guest, or not.
    pub(crate) in_smm_from: Option<bool>,
    /// The host's RFLAGS.IF while a guest is at work.
    pub(crate) host_if: bool,
    /// What nested paging takes from the host.
    pub(crate) host: Host,
    /// "PAUSE Intercept Filtering": the count, and when the last PAUSE was.
    pub(crate) pauses: (u64, u64),
    /// What comes behind the present instruction: the exit code of a write trap, or of a lock on the bus.
    pub(crate) trap: Option<u64>,
    pub(crate) avic: Avic,
    /// Levels of guests.
    pub(crate) known: Known,
    /// The last VMRUN that failed: which rule it broke.
    #[serde(skip)]
    pub failure: Option<Failure>,
}

impl Svm {
    /// After RESET.
    pub fn new(model: &CpuModel) -> Self {
        Svm {
            model: *model,
            cr4_bits: model.cr4_bits(),
            msrs: Msrs::default(),
            gif: true,
            in_guest: false,
            vmcb: Vmcb::default(),
            held: Held::default(),
            room: Vmcb::default(),
            in_smm_from: None,
            host_if: false,
            host: Host::default(),
            pauses: (0, 0),
            trap: None,
            avic: Avic::default(),
            known: Known::default(),
            failure: None,
        }
    }

    /// Whether the processor has it.
    #[inline(always)]
    pub(crate) fn has(&self, f: Feature) -> bool {
        self.model.has(f)
    }

    /// A bit of [`NESTED_CONTROL`].
    #[inline(always)]
    pub(crate) fn nested(&self, bit: u64) -> bool {
        self.vmcb.get(NESTED_CONTROL) & bit != 0
    }

    /// A bit of [`VINTR`].
    #[inline(always)]
    pub(crate) fn vintr(&self, bit: u64) -> bool {
        self.vmcb.get(VINTR) & bit != 0
    }

    /// Where the present VMCB is.
    pub fn present(&self) -> Option<u64> {
        self.held.present()
    }

    /// A physical address that there is.
    pub(crate) fn is_physical(&self, pa: u64) -> bool {
        pa >> self.model.physical_bits == 0
    }
}

/// Makes SVM known, to models that have it and to snapshots.
pub fn register() {
    extension::register(extension::Kind {
        name: NAME,
        feature: Some(Feature::Svm),
        make: |model| Box::new(Svm::new(model)),
        restore: |bytes| {
            let mut svm: Svm = postcard::from_bytes(bytes).map_err(|e| e.to_string())?;
            svm.cr4_bits = svm.model.cr4_bits();
            Ok(Box::new(svm))
        },
    });
}

impl Extension for Svm {
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
        instructions::opcode(insn)
    }

    fn execute(&mut self, h: &mut P, opcode: u8, registers: [Register; 2]) -> Step {
        self.execute_own(h, opcode, registers)
    }

    fn read_msr(&mut self, h: &mut P, msr: u32) -> Option<Step<u64>> {
        self.read_own_msr(h, msr)
    }

    fn write_msr(&mut self, h: &mut P, msr: u32, value: u64) -> Option<Step> {
        self.write_own_msr(h, msr, value)
    }

    /// Fn8000_000A: "SVM Revision and Feature Identification".
    fn cpuid(&self, leaf: u32, _: u32, result: &mut [u32; 4]) {
        match leaf {
            // "Enabling SVM": VM_CR.SVMDIS changes nothing here.
            0x8000_0001 => result[2] |= 1 << 2,
            0x8000_000a => {
                let [ecx, edx] = self.model.svm_features();
                *result = [1, ASIDS as u32, ecx, edx];
            }
            _ => {}
        }
    }

    fn efer_bits(&self) -> u64 {
        if self.msrs.vm_cr & vm_cr::SVMDIS == 0 { efer::SVME } else { 0 }
    }

    /// INVLPGB and TLBSYNC are there for guests that the VMCB enables them for.
    fn disables(&self, feature: Feature) -> bool {
        feature == Feature::Invlpgb && self.has(Feature::TlbiCtl) && !self.nested(nested::INVLPGB_ENABLE)
    }

    fn read_cr(&mut self, _: &mut P, cr: u8, value: u64) -> u64 {
        if cr == 8 { self.read_cr8(value) } else { value }
    }

    fn write_cr(&mut self, h: &mut P, cr: u8, value: u64) -> Step<Option<u64>> {
        if cr == 8 { self.write_cr8(h, value) } else { Ok(Some(value)) }
    }

    fn holds(&self, what: &Intercept) -> bool {
        self.holds_event(what)
    }

    fn level(&self) -> u8 {
        if self.in_guest { self.guest_level() } else { 1 }
    }

    fn masks_interrupts(&self) -> Option<bool> {
        self.vintr(vintr::V_INTR_MASKING).then_some(!self.host_if)
    }

    fn takes_in_shadow(&self, what: &Intercept) -> bool {
        self.intercepts_event(what)
    }

    fn discards_breakpoints(&self) -> bool {
        !self.gif
    }

    fn redirects_init(&self) -> bool {
        self.msrs.vm_cr & vm_cr::R_INIT != 0
    }

    fn has_work(&self) -> bool {
        self.trap.is_some() || self.has_avic_trap()
    }

    fn iret_unblocks_nmi(&mut self, h: &mut P) -> bool {
        self.virtual_nmi_ends(h)
    }

    /// "Address Space Identifiers".
    fn address_space(&self) -> u64 {
        if self.in_guest { self.vmcb.get(GUEST_ASID) & (ASIDS - 1) } else { 0 }
    }

    fn has_second_stage(&self) -> bool {
        self.in_guest && self.nested(nested::NP_ENABLE)
    }

    fn walks_pdptes(&self) -> bool {
        self.has_second_stage()
    }

    fn watches_bus_locks(&self) -> bool {
        self.in_guest && self.has(Feature::BusLockThreshold) && self.vmcb.intercepts(code::BUS_LOCK)
    }

    fn second_stage(&mut self, h: &mut P, access: SecondAccess) -> Result<SecondStage, u64> {
        self.translate(h, access)
    }

    fn second_stage_fault(&mut self, h: &mut P, access: SecondAccess, why: u64) -> Stop {
        self.nested_page_fault(h, access, why)
    }

    fn read_own(&mut self, h: &mut P, address: u64, size: u8) -> u64 {
        self.read_apic_page(h, address, size)
    }

    fn write_own(&mut self, h: &mut P, address: u64, size: u8, value: u64) {
        self.write_apic_page(h, address, size, value);
    }

    fn rung(&mut self, h: &mut P) {
        self.doorbell(h);
    }

    fn enters_smm(&mut self, h: &mut P) -> GuestInMap {
        self.interrupted_by_smi(h)
    }

    fn returns_to_guest(&self) -> bool {
        self.in_smm_from == Some(true)
    }

    fn leaves_smm(&mut self, h: &mut P) {
        self.resumed_by_rsm(h);
    }

    fn reset(&mut self) {
        *self = Svm::new(&self.model);
    }

    fn is_awake(&self, h: &P) -> bool {
        self.has_event(h)
    }

    fn tsc(&self, tsc: u64) -> u64 {
        self.scaled(tsc).wrapping_add(self.vmcb.get(TSC_OFFSET))
    }
}
