//! "VM-Execution Control Fields", the rules about virtual APICs.

use x86::processor::P;

use super::{Check, Vmx};
use crate::control::{Control, exit, pin, primary, secondary, tertiary};
use crate::field::*;

impl Vmx {
    /// There is a rule about the TPR in the virtual-APIC page.
    pub(super) fn checks_tpr(&self) -> bool {
        let has = |control: Control| self.vmcs.has(control);
        has(primary::USE_TPR_SHADOW)
            && !has(secondary::VIRTUAL_INTERRUPT_DELIVERY)
            && !has(secondary::VIRTUALIZE_APIC_ACCESSES)
    }

    pub(super) fn check_apic_controls(&self, h: &mut P) -> Check {
        let v = &self.vmcs;
        let has = |control: Control| v.has(control);
        let shadow = has(primary::USE_TPR_SHADOW);
        let delivery = has(secondary::VIRTUAL_INTERRUPT_DELIVERY);
        self.require(
            VIRTUAL_APIC_ADDRESS,
            !shadow || self.is_aligned(VIRTUAL_APIC_ADDRESS, 4096),
            "the address of a page",
        )?;
        self.require(TPR_THRESHOLD, !shadow || delivery || v[TPR_THRESHOLD] >> 4 == 0, "bits 31 to 4 are 0")?;
        let accesses = has(secondary::VIRTUALIZE_APIC_ACCESSES);
        self.require(
            TPR_THRESHOLD,
            !self.checks_tpr() || !self.is_tpr_low(h),
            "bits 3 to 0 are not above bits 7 to 4 of VTPR, unless APIC accesses are virtualized",
        )?;
        let x2apic = has(secondary::VIRTUALIZE_X2APIC_MODE);
        let needs_shadow = x2apic || has(secondary::APIC_REGISTER_VIRTUALIZATION) || delivery;
        self.require(SECONDARY_CONTROLS, shadow || !needs_shadow, "APIC virtualization only with a TPR shadow")?;
        let ipi = has(tertiary::IPI_VIRTUALIZATION);
        self.require(TERTIARY_CONTROLS, shadow || !ipi, "IPI virtualization only with a TPR shadow")?;
        self.require(
            APIC_ACCESS_ADDRESS,
            !accesses || self.is_aligned(APIC_ACCESS_ADDRESS, 4096),
            "the address of a page",
        )?;
        self.require(
            SECONDARY_CONTROLS,
            !x2apic || !accesses,
            "x2APIC mode and APIC accesses are not virtualized together",
        )?;
        self.require(
            SECONDARY_CONTROLS,
            !delivery || has(pin::EXTERNAL_INTERRUPT_EXITING),
            "virtual-interrupt delivery only with external-interrupt exiting",
        )?;
        let posted = has(pin::PROCESS_POSTED_INTERRUPTS);
        self.require(PIN_CONTROLS, !posted || delivery, "posted interrupts only with virtual-interrupt delivery")?;
        self.require(
            EXIT_CONTROLS,
            !posted || has(exit::ACKNOWLEDGE_INTERRUPT_ON_EXIT),
            "posted interrupts only where exits acknowledge interrupts",
        )?;
        self.require(
            POSTED_INTERRUPT_NOTIFICATION_VECTOR,
            !posted || v[POSTED_INTERRUPT_NOTIFICATION_VECTOR] >> 8 == 0,
            "a vector of 8 bits",
        )?;
        self.require(
            POSTED_INTERRUPT_DESCRIPTOR_ADDRESS,
            !posted || self.is_aligned(POSTED_INTERRUPT_DESCRIPTOR_ADDRESS, 64),
            "the address of 64 bytes",
        )?;
        let last = v[PID_POINTER_TABLE_ADDRESS].wrapping_add(8 * v[LAST_PID_POINTER_INDEX]);
        self.require(
            PID_POINTER_TABLE_ADDRESS,
            !ipi || self.is_aligned(PID_POINTER_TABLE_ADDRESS, 8) && self.capabilities.is_physical(last),
            "the address of a table of 8-byte entries",
        )
    }
}
