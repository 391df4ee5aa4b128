//! "Posted-Interrupt Processing".

use x86::extension;
use x86::processor::P;

use super::Vmx;
use super::ipi::{NOTIFICATION, ON};
use crate::control::pin;
use crate::field::{POSTED_INTERRUPT_DESCRIPTOR_ADDRESS, POSTED_INTERRUPT_NOTIFICATION_VECTOR};

impl Vmx {
    /// The interrupt that the local APIC holds for the processor is a notification.
    fn is_notified(&self, h: &P) -> bool {
        let is_next = |vector: u8| u64::from(vector) == self.vmcs[POSTED_INTERRUPT_NOTIFICATION_VECTOR];
        self.vmcs.has(pin::PROCESS_POSTED_INTERRUPTS)
            && !h.arch.pending.ext_int
            && h.arch.apic.pending_vector().is_some_and(is_next)
    }

    /// If a notification has come, virtual interrupts are what it tells of: it is acknowledged, and dismissed. Returns whether one had.
    pub(crate) fn process_posted_interrupts(&mut self, h: &mut P) -> bool {
        if !self.is_notified(h) {
            return false;
        }
        extension::acknowledge(h);
        let descriptor = self.vmcs[POSTED_INTERRUPT_DESCRIPTOR_ADDRESS];
        let notification = h.read_physical(descriptor + NOTIFICATION, 8).unwrap_or(0);
        let _ = h.write_physical(descriptor + NOTIFICATION, 8, notification & !ON);
        extension::end_of_interrupt(h);
        for i in 0..4u8 {
            let at = descriptor + 8 * u64::from(i);
            let mut requests = h.read_physical(at, 8).unwrap_or(0);
            let _ = h.write_physical(at, 8, 0);
            while requests != 0 {
                self.request(h, 64 * i + requests.trailing_zeros() as u8);
                requests &= requests - 1;
            }
        }
        self.evaluate_virtual_interrupts(h);
        true
    }
}
