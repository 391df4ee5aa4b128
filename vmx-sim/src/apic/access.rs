//! "Virtualizing CR8-Based TPR Accesses", "Virtualizing Memory-Mapped APIC Accesses".

use emu_core::engine::{Step, Stop};
use x86::apic::page::is_within_register;
use x86::exception::Exception;
use x86::extension::{OWN, SecondAccess, SecondStage};
use x86::paging::Kind;
use x86::processor::P;

use super::registers::{VEOI, VICR_HI, VICR_LO, VTPR};
use super::{Trap, Vmx, attend};
use crate::control::{secondary, tertiary};
use crate::exit::{Decoded, Exit, Reason, Resume};
use crate::field::APIC_ACCESS_ADDRESS;

/// Among the reasons to refuse an access: it causes an APIC-access VM exit, and the low bits are its qualification.
const APIC_ACCESS: u64 = 1 << 62;

/// "Exit Qualification for APIC-Access VM Exits": access types.
mod access_type {
    pub(super) const READ: u64 = 0;
    pub(super) const WRITE: u64 = 1;
    pub(super) const FETCH: u64 = 2;
    pub(super) const EVENT_DELIVERY: u64 = 3;
    pub(super) const GUEST_PHYSICAL_EVENT_DELIVERY: u64 = 10;
    pub(super) const GUEST_PHYSICAL: u64 = 15;
}

/// Registers that "APIC-register virtualization" lets be read.
fn is_readable(register: u16) -> bool {
    matches!(register, 0x030 | 0x100..=0x170 | 0x180..=0x1f0 | 0x200..=0x270) || is_writable(register)
}

/// Registers that it lets be written.
fn is_writable(register: u16) -> bool {
    matches!(
        register,
        0x020 | VTPR | VEOI | 0x0d0 | 0x0e0 | 0x0f0 | 0x280 | VICR_LO | VICR_HI | 0x320..=0x370 | 0x380 | 0x3e0
    )
}

impl Vmx {
    /// MOV from CR8.
    pub(crate) fn read_cr8(&self, h: &mut P, value: u64) -> u64 {
        if self.has_tpr_shadow() { u64::from(self.read_register(h, VTPR) >> 4 & 0xf) } else { value }
    }

    /// MOV to CR8. The register itself gets nothing.
    pub(crate) fn write_cr8(&mut self, h: &mut P, value: u64) -> Step<Option<u64>> {
        if !self.has_tpr_shadow() {
            return Ok(Some(value));
        }
        if value > 0xf {
            return Err(Exception::gp(0).into());
        }
        self.write_register(h, VTPR, (value << 4) as u32);
        self.virtualize_tpr(h);
        Ok(None)
    }

    /// APIC accesses are virtualized: every physical address that is translated to is looked at.
    pub(crate) fn virtualizes_apic_accesses(&self) -> bool {
        self.vmcs.has(secondary::VIRTUALIZE_APIC_ACCESSES)
    }

    /// An access has come through paging, and through EPT if that is in use. If it leads to the APIC-access page it is virtualized, or causes a VM
    /// exit ("Priority of APIC-Access VM Exits").
    pub(crate) fn through_apic_page(
        &mut self,
        h: &mut P,
        access: SecondAccess,
        stage: SecondStage,
    ) -> Result<SecondStage, u64> {
        if !self.virtualizes_apic_accesses() || stage.physical & !0xfff != self.vmcs[APIC_ACCESS_ADDRESS] {
            return Ok(stage);
        }
        let delivers = h.arch.delivering.is_some();
        if access.is_entry || access.linear.is_none() {
            return self.access_without_linear_address(delivers, stage);
        }
        let offset = (stage.physical & 0xfff) as u16;
        let is_virtualized = match access.kind {
            Kind::Fetch => false,
            Kind::Read => self.virtualizes_read(offset, access.size),
            Kind::Write => self.virtualizes_write(offset, access.size),
        };
        if is_virtualized {
            return Ok(SecondStage { physical: OWN | u64::from(offset), size_log2: 12, read: true, write: true });
        }
        let kind = match access.kind {
            _ if delivers => access_type::EVENT_DELIVERY,
            Kind::Read => access_type::READ,
            Kind::Write => access_type::WRITE,
            Kind::Fetch => access_type::FETCH,
        };
        Err(APIC_ACCESS | kind << 12 | u64::from(offset))
    }

    /// "APIC Accesses Not Directly Resulting From Linear Addresses": with EPT these are guest-physical accesses, else physical ones, which go to
    /// memory.
    fn access_without_linear_address(&self, delivers: bool, stage: SecondStage) -> Result<SecondStage, u64> {
        if !self.vmcs.uses_ept() {
            return Ok(stage);
        }
        let kind = if delivers { access_type::GUEST_PHYSICAL_EVENT_DELIVERY } else { access_type::GUEST_PHYSICAL };
        Err(APIC_ACCESS | kind << 12)
    }

    /// "Virtualizing Reads from the APIC-Access Page".
    fn virtualizes_read(&self, offset: u16, size: u8) -> bool {
        if !self.has_tpr_shadow() || self.apic.written.is_some() || !is_within_register(offset, size) {
            return false;
        }
        if self.vmcs.has(secondary::APIC_REGISTER_VIRTUALIZATION) { is_readable(offset & !0xf) } else { offset == VTPR }
    }

    /// "Determining Whether a Write Access is Virtualized".
    fn virtualizes_write(&self, offset: u16, size: u8) -> bool {
        let is_other = self.apic.written.is_some_and(|written| written != (offset, size));
        if !self.has_tpr_shadow() || is_other || !is_within_register(offset, size) {
            return false;
        }
        if self.vmcs.has(secondary::APIC_REGISTER_VIRTUALIZATION) {
            return is_writable(offset & !0xf);
        }
        let delivery = self.delivers_virtual_interrupts();
        let ipi = self.vmcs.has(tertiary::IPI_VIRTUALIZATION);
        match offset {
            VTPR => true,
            VEOI => delivery,
            VICR_LO => delivery || ipi,
            VICR_HI => ipi,
            _ => false,
        }
    }

    /// A read that is virtualized.
    pub(crate) fn read_apic_page(&self, h: &mut P, address: u64, size: u8) -> u64 {
        self.page().load(h, (address & 0xfff) as u16, size)
    }

    /// A write that is virtualized. An operation's second one to another place, which no rule has stopped, finds the first emulated.
    pub(crate) fn write_apic_page(&mut self, h: &mut P, address: u64, size: u8, value: u64) {
        let offset = (address & 0xfff) as u16;
        if let Some((other, _)) = self.apic.written.replace((offset, size)).filter(|w| *w != (offset, size)) {
            self.emulate_write(h, other);
        }
        self.page().store(h, offset, size, value);
        attend(h);
    }

    /// "APIC-Write Emulation".
    pub(super) fn emulate_write(&mut self, h: &mut P, offset: u16) {
        match offset & !0xf {
            VTPR => {
                let vtpr = self.read_register(h, VTPR);
                self.write_register(h, VTPR, vtpr & 0xff);
                self.virtualize_tpr(h);
            }
            VEOI if self.delivers_virtual_interrupts() => {
                self.write_register(h, VEOI, 0);
                self.virtualize_eoi(h);
            }
            VICR_LO => {
                let target = self.read_register(h, VICR_HI) >> 24;
                let command = self.read_register(h, VICR_LO);
                self.emulate_command(h, command, target);
            }
            VICR_HI => {
                let vicr_hi = self.read_register(h, VICR_HI);
                self.write_register(h, VICR_HI, vicr_hi & 0xff00_0000);
            }
            _ => self.set_trap(h, Trap::ApicWrite(offset)),
        }
    }

    /// An access has been refused for this reason: the APIC-access VM exit, if it is one.
    pub(crate) fn apic_access_exit(&mut self, h: &mut P, why: u64) -> Option<Stop> {
        if why & APIC_ACCESS == 0 {
            return None;
        }
        // In the delivery of an event the length is that of the event.
        let length = Decoded::at_rip(h).map_or(0, |d| d.length());
        h.core.next_pc = h.core.pc.wrapping_add(length);
        let is_of_instruction = h.arch.delivering.is_none();
        let exit = Exit { is_of_instruction, resume: Resume::Set, ..Exit::of(Reason::ApicAccess) };
        Some(self.exit(h, exit.qualified(why & 0xffff)))
    }
}
