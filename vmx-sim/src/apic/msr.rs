//! "Virtualizing MSR-Based APIC Accesses": RDMSR and WRMSR of 800H to 8FFH with "virtualize x2APIC mode".

use emu_core::engine::Step;
use x86::exception::Exception;
use x86::processor::P;

use super::registers::{SELF_IPI, VEOI, VICR_LO, VTPR};
use super::{Trap, Vmx};
use crate::control::{secondary, tertiary};

/// Bits of EAX that WRMSR to the interrupt-command register takes.
const COMMAND: u64 = 0xc_cfff;

impl Vmx {
    /// The offset of a register in the virtual-APIC page, in a guest whose x2APIC is virtualized.
    fn x2apic_offset(&self, msr: u32) -> Option<u16> {
        let is_virtual = self.in_guest && msr >> 8 == 8 && self.vmcs.has(secondary::VIRTUALIZE_X2APIC_MODE);
        is_virtual.then_some((msr as u16 & 0xff) << 4)
    }

    /// RDMSR; `None` if the processor's own APIC answers.
    pub(crate) fn read_x2apic(&self, h: &mut P, msr: u32) -> Option<u64> {
        let offset = self.x2apic_offset(msr)?;
        let is_virtualized = offset == VTPR || self.vmcs.has(secondary::APIC_REGISTER_VIRTUALIZATION);
        is_virtualized.then(|| self.page().load(h, offset, 8))
    }

    /// WRMSR; likewise.
    pub(crate) fn write_x2apic(&mut self, h: &mut P, msr: u32, value: u64) -> Option<Step> {
        let offset = self.x2apic_offset(msr)?;
        let delivery = self.delivers_virtual_interrupts();
        let reserved = match offset {
            VTPR => !0xff,
            VEOI if delivery => !0,
            SELF_IPI if delivery => !0xff,
            VICR_LO if self.vmcs.has(tertiary::IPI_VIRTUALIZATION) => 0xffff_ffff & !COMMAND,
            _ => return None,
        };
        if value & reserved != 0 {
            return Some(Err(Exception::gp(0).into()));
        }
        self.page().store(h, offset, 8, value);
        match offset {
            VTPR => self.virtualize_tpr(h),
            VEOI => self.virtualize_eoi(h),
            VICR_LO => self.emulate_command(h, value as u32, (value >> 32) as u32),
            _ if value >> 4 != 0 => self.virtualize_self_ipi(h, value as u8),
            _ => self.set_trap(h, Trap::ApicWrite(SELF_IPI)),
        }
        Some(Ok(()))
    }
}
