//! What a guest begins with; "Event Injection".

use x86::exception::vector;
use x86::extension::{self, Delivery, Origin};
use x86::model::Feature;
use x86::processor::{P, ProcessorExt};

use crate::exit::{HAS_ERROR, VALID};
use crate::svm::Svm;
use crate::vmcb::*;

impl Svm {
    /// What the guest begins with: its interrupt shadow, what is injected.
    pub(super) fn begin(&mut self, h: &mut P) {
        // VMRUN is an instruction, too; the guest's is the next.
        let first = extension::present_instruction(h) + 1;
        self.begin_avic(h);
        let v = &self.vmcb;
        let event = v.get(EVENTINJ);
        let is_valid = event & VALID != 0;
        let shadowed = v.get(INTERRUPT_SHADOW) & 1 != 0;
        h.arch.shadow = (shadowed && !is_valid).then_some(first);
        h.arch.shadow_holds_traps = false;
        h.arch.debug_trap = 0;
        h.arch.step_from = None;
        h.arch.injected = None;
        self.trap = None;
        self.pauses = (v.get(PAUSE_FILTER_COUNT), h.core.retired());
        if is_valid {
            self.inject(h, event);
        }
        h.core.check_interrupts = true;
        h.core.leave = true;
    }

    fn inject(&mut self, h: &mut P, event: u64) {
        let kind = event >> 8 & 7;
        // The vector of an NMI does not count.
        let vector = if kind == 2 { vector::NMI } else { event as u8 };
        let origin = match kind {
            0 => Origin::External,
            2 => Origin::Nmi,
            4 => Origin::SoftwareInterrupt,
            // INT3 and INTO are injected as exceptions.
            _ if matches!(vector, 3 | 4) => Origin::SoftwareException,
            _ => Origin::Exception,
        };
        let error = (event & HAS_ERROR != 0 && origin == Origin::Exception).then_some((event >> 32) as u16);
        let is_software = matches!(origin, Origin::SoftwareInterrupt | Origin::SoftwareException);
        // "Software events" return to nRIP.
        let length = if is_software && self.has(Feature::NripSave) {
            h.linear_ip(self.vmcb.get(NRIP)).wrapping_sub(h.core.next_pc)
        } else {
            0
        };
        if origin == Origin::Nmi && self.virtualizes_nmi() {
            let v = self.vmcb.get(VINTR);
            self.vmcb.set(VINTR, v | vintr::V_NMI_BLOCKING);
        }
        h.arch.injected = Some(Delivery { origin, vector, error, length });
    }
}
