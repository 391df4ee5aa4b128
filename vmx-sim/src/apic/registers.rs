//! "Virtual APIC State": the registers of the virtual-APIC page, and what a change of one of them does.

use x86::apic::page::ApicPage;
use x86::processor::P;

use super::{Trap, Vmx};
use crate::field::{EOI_EXIT_BITMAP_0, Field, GUEST_INTERRUPT_STATUS, VIRTUAL_APIC_ADDRESS};

/// Offsets in the virtual-APIC page ("Virtualized APIC Registers"), by the manual's names.
pub use x86::apic::page::offset::{
    EOI as VEOI, ICR_HIGH as VICR_HI, ICR_LOW as VICR_LO, IRR as VIRR, ISR as VISR, PPR as VPPR, SELF_IPI, TPR as VTPR,
};

impl Vmx {
    /// The virtual-APIC page.
    pub(super) fn page(&self) -> ApicPage {
        ApicPage(self.vmcs[VIRTUAL_APIC_ADDRESS])
    }

    pub(super) fn read_register(&self, h: &mut P, register: u16) -> u32 {
        self.page().read(h, register)
    }

    pub(super) fn write_register(&self, h: &mut P, register: u16, value: u32) {
        self.page().write(h, register, value);
    }

    /// Requesting virtual interrupt: the low byte of the guest interrupt status.
    pub(super) fn rvi(&self) -> u8 {
        self.vmcs[GUEST_INTERRUPT_STATUS] as u8
    }

    /// Servicing virtual interrupt: its high byte.
    pub(super) fn svi(&self) -> u8 {
        (self.vmcs[GUEST_INTERRUPT_STATUS] >> 8) as u8
    }

    fn set_status(&mut self, rvi: u8, svi: u8) {
        self.vmcs[GUEST_INTERRUPT_STATUS] = u64::from(rvi) | u64::from(svi) << 8;
    }

    /// "TPR Virtualization".
    pub(super) fn virtualize_tpr(&mut self, h: &mut P) {
        if self.delivers_virtual_interrupts() {
            self.virtualize_ppr(h);
            self.evaluate_virtual_interrupts(h);
        } else if self.is_tpr_low(h) {
            self.set_trap(h, Trap::TprBelowThreshold);
        }
    }

    /// "PPR Virtualization".
    pub(super) fn virtualize_ppr(&mut self, h: &mut P) {
        let (vtpr, svi) = (self.read_register(h, VTPR) as u8, self.svi());
        let vppr = if vtpr >> 4 >= svi >> 4 { vtpr } else { svi & 0xf0 };
        self.write_register(h, VPPR, vppr.into());
    }

    /// "EOI Virtualization".
    pub(super) fn virtualize_eoi(&mut self, h: &mut P) {
        let vector = self.svi();
        self.page().set_vector(h, VISR, vector, false);
        let svi = self.page().highest(h, VISR);
        self.set_status(self.rvi(), svi);
        self.virtualize_ppr(h);
        let bitmap = self.vmcs[Field(EOI_EXIT_BITMAP_0.0 + 2 * u16::from(vector / 64))];
        if bitmap >> (vector % 64) & 1 != 0 {
            self.set_trap(h, Trap::VirtualizedEoi(vector));
        } else {
            self.evaluate_virtual_interrupts(h);
        }
    }

    /// "Self-IPI Virtualization".
    pub(super) fn virtualize_self_ipi(&mut self, h: &mut P, vector: u8) {
        self.request(h, vector);
        self.evaluate_virtual_interrupts(h);
    }

    /// VIRR gets a vector, and RVI may rise.
    pub(super) fn request(&mut self, h: &mut P, vector: u8) {
        self.page().set_vector(h, VIRR, vector, true);
        self.set_status(self.rvi().max(vector), self.svi());
    }

    /// What "Virtual-Interrupt Delivery" does with the registers. Returns the vector.
    pub(super) fn take_vector(&mut self, h: &mut P) -> u8 {
        let vector = self.rvi();
        self.page().set_vector(h, VISR, vector, true);
        self.write_register(h, VPPR, (vector & 0xf0).into());
        self.page().set_vector(h, VIRR, vector, false);
        let rvi = self.page().highest(h, VIRR);
        self.set_status(rvi, vector);
        vector
    }
}
