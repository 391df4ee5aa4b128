//! "Interrupt Posting": an interrupt is noted in a posted interrupt descriptor in memory, and a notification tells the processor that runs
//! whom it is for.

use emu_core::device::DeviceCx;

use super::Vtd;
use super::fault::{Check, Reason, block_if};
use super::interrupt_remapping::irte;
use crate::platform::msi::InterruptMessage;

/// "Posted Interrupt Descriptor": 64 bytes, of which the first 32 are requests by vector (PIR).
mod descriptor {
    pub const SIZE: usize = 64;
    /// The quadword behind the requests.
    pub const CONTROL: usize = 32;
    /// Outstanding notification.
    pub const ON: u64 = 1;
    /// Suppress notification.
    pub const SN: u64 = 2;
    /// Beside ON, SN, the notification vector in bits 23:16 and its destination in bits 63:32.
    pub const RESERVED: u64 = 0xff00_fffc;
    /// Bits of the destination that are not an 8-bit APIC ID.
    pub const XAPIC_RESERVED: u64 = 0xffff_00ff << 32;
}

impl Vtd {
    /// "Interrupt-Posting Hardware Operation".
    pub(super) fn post(&mut self, [low, high]: [u64; 2], cx: &mut DeviceCx) -> Check {
        let disabled = low & irte::FPD != 0;
        let urgent = low & irte::URG != 0;
        let vector = (low >> 16) as u8;
        let at = high & !0xffff_ffff | low >> 32 & 0xffff_ffc0;
        let access = || Reason::DescriptorAccess.blocks_unless(disabled);
        let mut bytes = [0; descriptor::SIZE];
        cx.dma().read(at, &mut bytes).map_err(|_| access())?;
        let quadword = |i: usize| u64::from_le_bytes(bytes[i..i + 8].try_into().expect("8 bytes"));
        let mut control = quadword(descriptor::CONTROL);
        let destination = if self.is_extended() { 0 } else { descriptor::XAPIC_RESERVED };
        let reserved = control & (descriptor::RESERVED | destination) != 0 || bytes[40..] != [0; 24];
        block_if(reserved, Reason::DescriptorReserved.blocks_unless(disabled))?;
        let notifies = control & descriptor::ON == 0 && (urgent || control & descriptor::SN == 0);
        if notifies {
            control |= descriptor::ON;
        }
        let word = usize::from(vector / 64) * 8;
        let requests = quadword(word) | 1 << (vector % 64);
        bytes[word..word + 8].copy_from_slice(&requests.to_le_bytes());
        bytes[descriptor::CONTROL..descriptor::CONTROL + 8].copy_from_slice(&control.to_le_bytes());
        cx.dma().write(at, &bytes).map_err(|_| access())?;
        self.counts.posted += 1;
        if notifies {
            self.counts.notifications += 1;
            let notification = InterruptMessage { vector: (control >> 16) as u8, ..self.to((control >> 32) as u32) };
            notification.deliver(self.vcpus, cx);
        }
        Ok(())
    }
}
