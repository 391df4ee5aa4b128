//! "Evaluation and Delivery of Virtual Interrupts".

use emu_core::engine::{Step, Stop, StopKind};
use x86::control::rflags;
use x86::extension::{self, Delivery, Origin};
use x86::processor::P;

use super::registers::VPPR;
use super::{Vmx, attend};
use crate::control::primary;

impl Vmx {
    /// "Evaluation of Pending Virtual Interrupts".
    pub(super) fn evaluate_virtual_interrupts(&mut self, h: &mut P) {
        let vppr = self.read_register(h, VPPR) as u8;
        let windows = self.vmcs.has(primary::INTERRUPT_WINDOW_EXITING);
        self.apic.recognized = !windows && self.rvi() >> 4 > vppr >> 4;
        if self.apic.recognized {
            attend(h);
        }
    }

    /// A virtual interrupt is recognized that RFLAGS.IF lets through: it wakes from whatever an interrupt from outside wakes from.
    pub(super) fn takes_virtual_interrupts(&self, h: &P) -> bool {
        self.apic.recognized && h.arch.rflags & rflags::IF != 0 && !h.arch.waiting.is_shut_down()
    }

    /// What comes between NMIs and interrupts from outside, and not in the shadow of STI or MOV SS: notifications of posted interrupts, virtual
    /// interrupts. A guest that neither brings out of HLT, or shutdown, goes on waiting.
    pub(crate) fn virtual_interrupts(&mut self, h: &mut P) -> Step {
        let was_notified = self.process_posted_interrupts(h);
        if self.takes_virtual_interrupts(h) {
            self.deliver_virtual_interrupt(h);
        } else if was_notified && h.arch.woken_at == Some(extension::present_instruction(h)) {
            if h.arch.woken_from_shutdown {
                h.arch.waiting.shuts_down();
            } else {
                h.arch.waiting.halts();
            }
            h.core.check_interrupts = true;
            return Err(Stop::of(StopKind::Wait));
        }
        Ok(())
    }

    /// "Virtual-Interrupt Delivery".
    fn deliver_virtual_interrupt(&mut self, h: &mut P) {
        let vector = self.take_vector(h);
        self.note_virtual_interrupt(h, vector);
        self.apic.recognized = false;
        // "Monitor Trap Flag": its VM exit follows the delivery.
        self.trap_flag_from = self.trap_flag_from.min(extension::present_instruction(h));
        h.arch.injected = Some(Delivery { origin: Origin::External, vector, error: None, length: 0 });
    }
}
