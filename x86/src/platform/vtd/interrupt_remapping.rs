//! "Interrupt Remapping": an interrupt request in remappable format names an entry of a table, which says what becomes of it.

use emu_core::device::DeviceCx;

use super::Vtd;
use super::dma_remapping::read_entry;
use super::fault::{Check, Reason, block_if};
use super::register::*;
use crate::platform::msi::InterruptMessage;

/// "Interrupt Requests in Remappable Format": the address.
mod request {
    /// Interrupt format: remappable.
    pub const FORMAT: u64 = 1 << 4;
    /// Subhandle valid.
    pub const SHV: u64 = 1 << 3;
}

/// "Interrupt Remapping Table Entry (IRTE) for Remapped Interrupts" and "... for Posted Interrupts", bits 63:0.
pub(super) mod irte {
    pub const P: u64 = 1;
    pub const FPD: u64 = 1 << 1;
    pub const DM: u64 = 1 << 2;
    pub const RH: u64 = 1 << 3;
    pub const TM: u64 = 1 << 4;
    pub const IM: u64 = 1 << 15;
    /// Of a remapped interrupt, but for the destination.
    pub const REMAPPED_RESERVED: u64 = 0xff00_7000;
    /// The destination's bits that are not an 8-bit APIC ID.
    pub const XAPIC_RESERVED: u64 = 0xffff_00ff << 32;
    pub const URG: u64 = 1 << 14;
    /// Of a posted interrupt.
    pub const POSTED_RESERVED: u64 = 0x3f_ff00_30fc;
    // Bits 127:64.
    pub const HIGH_REMAPPED_RESERVED: u64 = !0xf_ffff;
    pub const HIGH_POSTED_RESERVED: u64 = 0xfff0_0000;
}

/// An interrupt request in remappable format, with the index that it names.
struct Request {
    requester: u16,
    index: u32,
}

impl Vtd {
    /// Destinations are x2APIC IDs ("IRTA_REG", EIME).
    pub(super) fn is_extended(&self) -> bool {
        self.config.extended_interrupt_mode && self.state.interrupt_table & irta::EIME != 0
    }

    /// An interrupt request of a device.
    pub(super) fn remap_interrupt(&mut self, requester: u16, address: u64, data: u32, cx: &mut DeviceCx) {
        if !self.has(GSTS_REG, gcmd::IRE) {
            return cx.msi(address, data);
        }
        if address & request::FORMAT == 0 {
            if self.has(GSTS_REG, gcmd::CFI) && !self.is_extended() {
                return cx.msi(address, data);
            }
            return self.report(Reason::CompatibilityFormat.blocks(), requester, 0, false, cx);
        }
        let handle = (address >> 5 & 0x7fff | (address >> 2 & 1) << 15) as u32;
        let has_subhandle = address & request::SHV != 0;
        let index = if has_subhandle { handle + (data & 0xffff) } else { handle };
        let reserved = if has_subhandle { data >> 16 } else { 0 };
        let request = Request { requester, index };
        let done = block_if(reserved != 0, Reason::RequestReserved.blocks())
            .and_then(|()| self.entry(&request, cx))
            .and_then(|entry| self.deliver(entry, cx));
        if let Err(blocked) = done {
            self.report(blocked, requester, u64::from(index) << 48, false, cx);
        }
    }

    /// "Interrupt Remapping Hardware Operation": the entry of a request, with all that is checked of it.
    fn entry(&mut self, request: &Request, cx: &mut DeviceCx) -> Check<[u64; 2]> {
        let table = self.state.interrupt_table;
        let entries = 2u32 << (table & 0xf);
        block_if(request.index >= entries, Reason::IndexBeyondTable.blocks())?;
        let index = request.index as u16;
        let entry = match self.state.caches.interrupts.get(&index) {
            Some(entry) => self.valid_entry(*entry)?,
            None => {
                let at = (table & !0xfff) + 16 * u64::from(index);
                let entry = read_entry(at, cx).ok_or(Reason::EntryAccess.blocks())?;
                let valid = self.valid_entry(entry);
                if valid.is_ok() || self.config.caching_mode {
                    self.state.caches.interrupts.insert(index, entry);
                }
                valid?
            }
        };
        let disabled = entry[0] & irte::FPD != 0;
        let comes_from_source = self.comes_from_source(request.requester, entry[1]);
        block_if(!comes_from_source, Reason::SourceValidation.blocks_unless(disabled))?;
        Ok(entry)
    }

    /// An entry without a fault.
    fn valid_entry(&self, entry: [u64; 2]) -> Check<[u64; 2]> {
        let disabled = entry[0] & irte::FPD != 0;
        block_if(entry[0] & irte::P == 0, Reason::EntryNotPresent.blocks_unless(disabled))?;
        block_if(self.has_reserved_bits(&entry), Reason::EntryReserved.blocks_unless(disabled))?;
        Ok(entry)
    }

    /// A source validation type and delivery modes that are reserved count too.
    fn has_reserved_bits(&self, [low, high]: &[u64; 2]) -> bool {
        let validation_type = high >> 18 & 3;
        let (low_reserved, high_reserved) = if low & irte::IM != 0 {
            (irte::POSTED_RESERVED, irte::HIGH_POSTED_RESERVED)
        } else {
            let destination = if self.is_extended() { 0 } else { irte::XAPIC_RESERVED };
            (irte::REMAPPED_RESERVED | destination, irte::HIGH_REMAPPED_RESERVED)
        };
        let delivery_mode = low >> 5 & 7;
        let reserved_mode = low & irte::IM == 0 && matches!(delivery_mode, 3 | 6);
        low & low_reserved != 0 || high & high_reserved != 0 || validation_type == 3 || reserved_mode
    }

    /// SVT, SQ and SID: whether a request may use the entry.
    fn comes_from_source(&self, requester: u16, high: u64) -> bool {
        if requester == super::IOAPIC && !self.config.verifies_ioapic {
            return true;
        }
        let (source, qualifier) = (high as u16, high >> 16 & 3);
        match high >> 18 & 3 {
            0 => true,
            1 => {
                // What of the function number does not count.
                let ignored = [0, 0b100, 0b110, 0b111][qualifier as usize];
                (source ^ requester) & !ignored == 0
            }
            _ => {
                let [first, last] = source.to_be_bytes();
                (first..=last).contains(&requester.to_be_bytes()[0])
            }
        }
    }

    fn deliver(&mut self, entry: [u64; 2], cx: &mut DeviceCx) -> Check {
        if entry[0] & irte::IM != 0 {
            return self.post(entry, cx);
        }
        let low = entry[0];
        let message = InterruptMessage {
            vector: (low >> 16) as u8,
            delivery: (low >> 5) as u8 & 7,
            logical: low & irte::DM != 0,
            redirection_hint: low & irte::RH != 0,
            level_triggered: low & irte::TM != 0,
            assert: true,
            ..self.to((low >> 32) as u32)
        };
        self.counts.remapped += 1;
        message.deliver(self.vcpus, cx);
        Ok(())
    }

    /// A message to a destination as entries and descriptors have it: an x2APIC ID, or in bits 15:8 an APIC ID.
    pub(super) fn to(&self, destination: u32) -> InterruptMessage {
        let wide = self.is_extended();
        let destination = if wide { destination } else { destination >> 8 & 0xff };
        InterruptMessage { destination, wide, ..InterruptMessage::default() }
    }
}
