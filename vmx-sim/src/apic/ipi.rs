//! Writes to the interrupt-command register: self-IPIs, and "IPI Virtualization".
//!
//! ```text
//! PID-pointer table       posted-interrupt descriptor
//! [ APIC ID ] ----------> [ PIR: 256 bits | ON, SN, NV, NDST ]
//! ```

use x86::extension;
use x86::processor::P;

use super::registers::VICR_LO;
use super::{Trap, Vmx};
use crate::control::tertiary;
use crate::field::{LAST_PID_POINTER_INDEX, PID_POINTER_TABLE_ADDRESS};

/// Bits of the interrupt-command register that must be 0 in what is virtualized: reserved ones and the delivery status; trigger mode (edge);
/// delivery mode (fixed).
const SELF_IPI_ZERO: u32 = 0xfff3_b700;
/// For other destinations the mode counts as well, which is to be physical.
const IPI_ZERO: u32 = SELF_IPI_ZERO | 1 << 11;
/// The destination shorthand, and its value for a processor itself.
const SHORTHAND: u32 = 3 << 18;
const SHORTHAND_SELF: u32 = 1 << 18;
/// Vectors below are illegal.
const FIRST_VECTOR: u8 = 16;

/// In an entry of the PID-pointer table: it is valid; and what is not the descriptor's address.
const VALID: u64 = 1;
const NOT_ADDRESS: u64 = 0x3f;
/// Where a posted-interrupt descriptor has its second half.
pub(super) const NOTIFICATION: u64 = 32;
/// Bits of that: outstanding notification, suppress notification.
pub(super) const ON: u64 = 1;
const SN: u64 = 2;

impl Vmx {
    /// The interrupt-command register has been written to: a self-IPI, an IPI, or else an APIC-write VM exit.
    pub(super) fn emulate_command(&mut self, h: &mut P, command: u32, target: u32) {
        let vector = command as u8;
        let shorthand = command & SHORTHAND;
        let is_self = shorthand == SHORTHAND_SELF && command & SELF_IPI_ZERO == 0 && vector >= FIRST_VECTOR;
        let is_ipi = shorthand == 0 && command & IPI_ZERO == 0;
        if self.delivers_virtual_interrupts() && is_self {
            self.virtualize_self_ipi(h, vector);
        } else if !(self.vmcs.has(tertiary::IPI_VIRTUALIZATION) && is_ipi && self.virtualize_ipi(h, vector, target)) {
            self.set_trap(h, Trap::ApicWrite(VICR_LO));
        }
    }

    /// "IPI Virtualization": posts a vector to the virtual processor with this APIC ID. Returns whether it has.
    fn virtualize_ipi(&mut self, h: &mut P, vector: u8, target: u32) -> bool {
        if vector < FIRST_VECTOR || u64::from(target) > self.vmcs[LAST_PID_POINTER_INDEX] {
            return false;
        }
        let entry = self.vmcs[PID_POINTER_TABLE_ADDRESS] + 8 * u64::from(target);
        let pointer = h.read_physical(entry, 8).unwrap_or(0);
        if pointer & NOT_ADDRESS != VALID || !self.capabilities.is_physical(pointer) {
            return false;
        }
        let descriptor = pointer & !NOT_ADDRESS;
        let at = descriptor + u64::from(vector / 64) * 8;
        let word = h.read_physical(at, 8).unwrap_or(0);
        let _ = h.write_physical(at, 8, word | 1 << (vector % 64));
        let notification = h.read_physical(descriptor + NOTIFICATION, 8).unwrap_or(0);
        if notification & (ON | SN) == 0 {
            let _ = h.write_physical(descriptor + NOTIFICATION, 8, notification | ON);
            let destination = (notification >> 32) as u32;
            let apic_id = if h.arch.apic.is_x2apic() { destination } else { destination >> 8 & 0xff };
            extension::send_interrupt(h, (notification >> 16) as u8, apic_id);
        }
        true
    }
}
