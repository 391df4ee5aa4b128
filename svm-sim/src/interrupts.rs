//! "Global Interrupt Flag, STGI and CLGI Instructions", "Virtual Interrupts", "NMI Virtualization", "Virtual GIF".

use emu_core::engine::Step;
use x86::control::rflags;
use x86::exception::{Exception, vector};
use x86::extension::{Delivery, Intercept, Origin};
use x86::model::Feature;
use x86::processor::P;

use crate::exit::{Exit, code};
use crate::svm::Svm;
use crate::vmcb::*;

/// What waits is looked at before the next instruction.
pub(crate) fn attend(h: &mut P) {
    h.core.check_interrupts = true;
    h.core.leave = true;
}

impl Svm {
    fn set_vintr(&mut self, bit: u64, on: bool) {
        let old = self.vmcb.get(VINTR);
        self.vmcb.set(VINTR, if on { old | bit } else { old & !bit });
    }

    /// "Virtual GIF".
    pub(crate) fn virtualizes_gif(&self) -> bool {
        self.in_guest && self.has(Feature::Vgif) && self.vintr(vintr::V_GIF_ENABLE)
    }

    /// STGI, CLGI.
    pub(crate) fn set_gif(&mut self, h: &mut P, on: bool) {
        if self.virtualizes_gif() {
            self.set_vintr(vintr::V_GIF, on);
        } else {
            self.gif = on;
        }
        attend(h);
    }

    /// The GIF that a guest's virtual interrupts see.
    fn guest_gif(&self) -> bool {
        if self.virtualizes_gif() { self.vintr(vintr::V_GIF) } else { self.gif }
    }

    /// "Effect of the GIF on Interrupt Handling"; and V_INTR_MASKING, with which the host's RFLAGS.IF says whether there are interrupts.
    pub(crate) fn holds_event(&self, what: &Intercept) -> bool {
        matches!(what, Intercept::Init | Intercept::Smi | Intercept::Nmi | Intercept::ExternalInterrupt { .. })
            && !self.gif
    }

    /// Whether an event from outside is intercepted.
    pub(crate) fn intercepts_event(&self, what: &Intercept) -> bool {
        let code = match what {
            Intercept::ExternalInterrupt { .. } => code::INTR,
            Intercept::Nmi => code::NMI,
            Intercept::Smi => code::SMI,
            _ => return false,
        };
        self.in_guest && self.vmcb.intercepts(code)
    }

    /// V_TPR: a priority class.
    pub(crate) fn v_tpr(&self) -> u64 {
        self.vmcb.get(VINTR) & 0xf
    }

    /// The guest's task priority is V_TPR alone: with V_INTR_MASKING, and with AVIC.
    fn virtualizes_tpr(&self) -> bool {
        self.vintr(vintr::V_INTR_MASKING) || self.has_avic()
    }

    /// MOV from CR8.
    pub(crate) fn read_cr8(&self, value: u64) -> u64 {
        if self.virtualizes_tpr() { self.v_tpr() } else { value }
    }

    /// MOV to CR8: V_TPR gets it, and the TPR of the backing page, or without both the processor's own TPR.
    pub(crate) fn write_cr8(&mut self, h: &mut P, value: u64) -> Step<Option<u64>> {
        if value > 0xf {
            return Err(Exception::gp(0).into());
        }
        if self.has_avic() {
            self.write_avic_tpr(h, value);
        } else {
            self.set_v_tpr(value);
        }
        attend(h);
        Ok((!self.virtualizes_tpr()).then_some(value))
    }

    pub(crate) fn set_v_tpr(&mut self, class: u64) {
        let v = self.vmcb.get(VINTR);
        self.vmcb.set(VINTR, v & !0xf | class);
    }

    /// "NMI Virtualization".
    pub(crate) fn virtualizes_nmi(&self) -> bool {
        self.in_guest && self.has(Feature::Vnmi) && self.vintr(vintr::V_NMI_ENABLE)
    }

    /// IRET ends the blocking of virtual NMIs, and not that of the processor's.
    pub(crate) fn virtual_nmi_ends(&mut self, h: &mut P) -> bool {
        if !self.virtualizes_nmi() {
            return true;
        }
        self.set_vintr(vintr::V_NMI_BLOCKING, false);
        attend(h);
        false
    }

    fn has_virtual_nmi(&self) -> bool {
        self.virtualizes_nmi()
            && self.vintr(vintr::V_NMI_PENDING)
            && !self.vintr(vintr::V_NMI_BLOCKING)
            && self.guest_gif()
    }

    /// "Virtual Interrupts": one is pending that the guest takes now.
    fn has_virtual_interrupt(&self, h: &P) -> bool {
        self.requests_interrupt() && h.arch.rflags & rflags::IF != 0 && self.guest_gif()
    }

    /// One is pending whose priority is above that of the guest. With AVIC nothing of V_IRQ and its like counts.
    fn requests_interrupt(&self) -> bool {
        if self.has_avic() {
            return self.has_avic_request();
        }
        let priority = self.vmcb.get(VINTR) >> 16 & 0xf;
        self.vintr(vintr::V_IRQ) && (self.vintr(vintr::V_IGN_TPR) || priority > self.v_tpr())
    }

    /// An event from outside comes first.
    fn is_preceded(&self, h: &P) -> bool {
        let p = &h.arch.pending;
        let masked = self.masked(h);
        let has_interrupt = p.ext_int || h.arch.apic.pending_vector().is_some();
        self.gif && (p.nmi && !h.arch.nmi_blocked || has_interrupt && !masked)
    }

    fn masked(&self, h: &P) -> bool {
        if self.vintr(vintr::V_INTR_MASKING) { !self.host_if } else { h.arch.rflags & rflags::IF == 0 }
    }

    /// Between two instructions of a guest.
    pub(crate) fn boundary(&mut self, h: &mut P, shadowed: bool) -> Step {
        if shadowed || self.is_preceded(h) {
            return Ok(());
        }
        if self.has_virtual_nmi() {
            self.set_vintr(vintr::V_NMI_PENDING, false);
            self.set_vintr(vintr::V_NMI_BLOCKING, true);
            h.arch.injected = Some(Delivery { origin: Origin::Nmi, vector: vector::NMI, error: None, length: 0 });
            self.note_virtual(h, vector::NMI);
            return Ok(());
        }
        if !self.has_virtual_interrupt(h) {
            return Ok(());
        }
        if self.vmcb.intercepts(code::VINTR) {
            return Err(self.exit(h, Exit::of(code::VINTR)));
        }
        let vector = self.take_virtual_interrupt(h);
        h.arch.injected = Some(Delivery { origin: Origin::External, vector, error: None, length: 0 });
        self.note_virtual(h, vector);
        Ok(())
    }

    fn take_virtual_interrupt(&mut self, h: &mut P) -> u8 {
        if self.has_avic() {
            return self.take_avic_request(h);
        }
        self.set_vintr(vintr::V_IRQ, false);
        (self.vmcb.get(VINTR) >> 32) as u8
    }

    /// A guest that waits has something to take.
    pub(crate) fn has_event(&self, h: &P) -> bool {
        self.trap.is_some()
            || self.has_avic_trap()
            || !h.arch.waiting.is_shut_down() && (self.has_virtual_nmi() || self.has_virtual_interrupt(h))
    }

    /// "Idle HLT intercept": a virtual interrupt or NMI is pending.
    pub(crate) fn has_virtual_event(&self) -> bool {
        let requested = if self.has_avic() { self.has_avic_request() } else { self.vintr(vintr::V_IRQ) };
        requested || self.virtualizes_nmi() && self.vintr(vintr::V_NMI_PENDING)
    }

    /// The TPR that #VMEXIT saves.
    pub(crate) fn save_tpr(&mut self, h: &P) {
        if !self.virtualizes_tpr() {
            self.set_v_tpr(x86::extension::cr8(h));
        }
    }
}
