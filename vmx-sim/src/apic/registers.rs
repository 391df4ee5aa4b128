//! "Virtual APIC State": the registers of the virtual-APIC page, and what a change of one of them does.

use x86::processor::P;

use super::{Trap, Vmx};
use crate::field::{EOI_EXIT_BITMAP_0, Field, GUEST_INTERRUPT_STATUS, VIRTUAL_APIC_ADDRESS};

/// Offsets in the virtual-APIC page ("Virtualized APIC Registers").
pub const VTPR: u16 = 0x80;
/// Virtual processor-priority register.
pub const VPPR: u16 = 0xa0;
/// Virtual end-of-interrupt register.
pub const VEOI: u16 = 0xb0;
/// Virtual interrupt-service register: 8 words, 16 bytes apart.
pub const VISR: u16 = 0x100;
/// Virtual interrupt-request register, likewise.
pub const VIRR: u16 = 0x200;
/// Virtual interrupt-command register, low half.
pub const VICR_LO: u16 = 0x300;
/// Its high half.
pub const VICR_HI: u16 = 0x310;
/// What WRMSR to the self-IPI register stores.
pub const SELF_IPI: u16 = 0x3f0;

/// Which word of VISR or VIRR has a vector's bit.
fn word_of(register: u16, vector: u8) -> u16 {
    register + u16::from(vector / 32) * 16
}

impl Vmx {
    pub(super) fn read_page(&self, h: &mut P, offset: u16, size: u8) -> u64 {
        h.read_physical(self.vmcs[VIRTUAL_APIC_ADDRESS] + u64::from(offset), size).unwrap_or(0)
    }

    pub(super) fn write_page(&self, h: &mut P, offset: u16, size: u8, value: u64) {
        let _ = h.write_physical(self.vmcs[VIRTUAL_APIC_ADDRESS] + u64::from(offset), size, value);
    }

    pub(super) fn read_register(&self, h: &mut P, register: u16) -> u32 {
        self.read_page(h, register, 4) as u32
    }

    pub(super) fn write_register(&self, h: &mut P, register: u16, value: u32) {
        self.write_page(h, register, 4, value.into());
    }

    fn set_vector(&self, h: &mut P, register: u16, vector: u8, on: bool) {
        let at = word_of(register, vector);
        let bit = 1 << (vector % 32);
        let word = self.read_register(h, at);
        self.write_register(h, at, if on { word | bit } else { word & !bit });
    }

    /// The highest vector in VISR or VIRR; 0 if there is none.
    fn highest(&self, h: &mut P, register: u16) -> u8 {
        (0..8u8)
            .rev()
            .find_map(|i| {
                let word = self.read_register(h, register + u16::from(i) * 16);
                (word != 0).then(|| 32 * i + 31 - word.leading_zeros() as u8)
            })
            .unwrap_or(0)
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
        self.set_vector(h, VISR, vector, false);
        let svi = self.highest(h, VISR);
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
        self.set_vector(h, VIRR, vector, true);
        self.set_status(self.rvi().max(vector), self.svi());
    }

    /// What "Virtual-Interrupt Delivery" does with the registers. Returns the vector.
    pub(super) fn take_vector(&mut self, h: &mut P) -> u8 {
        let vector = self.rvi();
        self.set_vector(h, VISR, vector, true);
        self.write_register(h, VPPR, (vector & 0xf0).into());
        self.set_vector(h, VIRR, vector, false);
        let rvi = self.highest(h, VIRR);
        self.set_status(rvi, vector);
        vector
    }
}
