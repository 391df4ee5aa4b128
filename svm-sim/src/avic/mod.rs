//! "Advanced Virtual Interrupt Controller": a guest's local APIC is a page of memory, the backing page, and the processor does with it what happens
//! often: the task priority, the end of an interrupt, interrupts between virtual processors, their delivery.
//!
//! ```text
//! AVIC_APIC_BAR, MSRs 800h to 8FFh ----> backing page ----> V_TPR, ISR, IRR ----> the guest's IDT
//!                                           |    ^ ^
//!                                           |    | +---- IPIs of other processors, which ring the doorbell
//!                                           |    +------ whoever else writes to IRR, and rings
//!                                           +---> #VMEXIT(AVIC_NOACCEL), #VMEXIT(AVIC_INCOMPLETE_IPI)
//! ```
//!
//! The processor looks at ISR and IRR when VMRUN begins, when the doorbell rings, and when it changes them itself: what others write there goes
//! unseen until then. Which priority counts is V_TPR: it follows the guest's own writes to TPR and CR8, and VMRUN takes it as the VMCB has it.
//!
//! The APM leaves open, or its text was not at hand: an access that is not within 32 bits of a register is not accelerated; a fetch from the page is
//! told as a read of it; the guest's own paging structures are memory, wherever they are; nothing of a VMCB says that AVIC cannot be without nested
//! paging, so that is a rule here.

mod access;
mod ipi;
mod x2apic;

use serde::{Deserialize, Serialize};
use x86::apic::page::{ApicPage, offset};
use x86::model::Feature;
use x86::processor::P;

use crate::exit::{Exit, code};
use crate::interrupts::attend;
use crate::svm::Svm;
use crate::vmcb::*;

/// Bits of the pointers to pages and tables.
const ADDRESS: u64 = 0x000f_ffff_ffff_f000;
/// EXITINFO1 of #VMEXIT(AVIC_NOACCEL): it is a write.
const WRITE: u64 = 1 << 32;

/// What the processor knows of a guest's APIC beyond the VMCB and the backing page.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Avic {
    /// The highest vector in IRR; 0 if there is none.
    requested: u8,
    /// The highest in ISR, likewise.
    serviced: u8,
    /// The exit that comes behind the present instruction: EXITCODE, EXITINFO1, EXITINFO2.
    trap: Option<[u64; 3]>,
}

impl Svm {
    /// AVIC is on.
    #[inline(always)]
    pub(crate) fn has_avic(&self) -> bool {
        self.vintr(vintr::AVIC_ENABLE) && self.has(Feature::Avic)
    }

    /// It is, and the guest's APIC is in x2APIC mode.
    pub(crate) fn has_x2avic(&self) -> bool {
        self.has_avic() && self.vintr(vintr::X2AVIC_ENABLE) && self.has(Feature::X2avic)
    }

    fn backing_page(&self) -> ApicPage {
        ApicPage(self.vmcb.get(AVIC_BACKING_PAGE) & ADDRESS)
    }

    /// A guest begins.
    pub(crate) fn begin_avic(&mut self, h: &mut P) {
        self.avic = Avic::default();
        if self.has_avic() {
            self.scan(h);
        }
    }

    /// A guest ends: what has not come yet does not come.
    pub(crate) fn end_avic(&mut self) {
        self.avic.trap = None;
    }

    /// "Doorbell": whom it finds outside of a guest it does not tell anything.
    pub(crate) fn doorbell(&mut self, h: &mut P) {
        if self.in_guest && self.has_avic() {
            self.scan(h);
        }
    }

    /// Looks at ISR and IRR.
    fn scan(&mut self, h: &mut P) {
        let page = self.backing_page();
        self.avic.requested = page.highest(h, offset::IRR);
        self.avic.serviced = page.highest(h, offset::ISR);
        attend(h);
    }

    /// PPR follows V_TPR and ISR: of TPR the subclass counts, too.
    fn update_priority(&mut self, h: &mut P) {
        let page = self.backing_page();
        let subclass = page.read(h, offset::TPR) as u8 & 0xf;
        let (class, serviced) = (self.v_tpr() as u8, self.avic.serviced >> 4);
        let ppr = if class >= serviced { class << 4 | subclass } else { serviced << 4 };
        page.write(h, offset::PPR, ppr.into());
        attend(h);
    }

    /// The priority class of a requested vector is above that of the processor.
    pub(crate) fn has_avic_request(&self) -> bool {
        let class = u64::from(self.avic.requested >> 4);
        class > self.v_tpr().max(u64::from(self.avic.serviced >> 4))
    }

    /// The guest takes the requested vector: from IRR to ISR.
    pub(crate) fn take_avic_request(&mut self, h: &mut P) -> u8 {
        let vector = self.avic.requested;
        let page = self.backing_page();
        page.set_vector(h, offset::IRR, vector, false);
        page.set_vector(h, offset::ISR, vector, true);
        self.scan(h);
        self.update_priority(h);
        vector
    }

    /// The guest requests a vector of itself.
    fn request(&mut self, h: &mut P, vector: u8) {
        ipi::post(h, self.backing_page(), vector);
        self.scan(h);
    }

    /// TPR has been written, and V_TPR follows.
    fn follow_tpr(&mut self, h: &mut P) {
        let tpr = self.backing_page().read(h, offset::TPR);
        self.set_v_tpr(u64::from(tpr >> 4 & 0xf));
        self.update_priority(h);
    }

    /// MOV to CR8: TPR and V_TPR get it.
    pub(crate) fn write_avic_tpr(&mut self, h: &mut P, class: u64) {
        self.backing_page().write(h, offset::TPR, (class as u32) << 4);
        self.follow_tpr(h);
    }

    /// EOI has been written. That of a level-triggered interrupt is the hypervisor's to do.
    fn end_of_interrupt(&mut self, h: &mut P) {
        let page = self.backing_page();
        let vector = page.highest(h, offset::ISR);
        if vector == 0 {
            return;
        }
        if page.has_vector(h, offset::TMR, vector) {
            return self.set_avic_trap(h, [code::AVIC_NOACCEL, WRITE | u64::from(offset::EOI), vector.into()]);
        }
        page.set_vector(h, offset::ISR, vector, false);
        self.scan(h);
        self.update_priority(h);
    }

    fn set_avic_trap(&mut self, h: &mut P, exit: [u64; 3]) {
        self.avic.trap = Some(exit);
        attend(h);
    }

    /// An exit comes behind the present instruction.
    pub(crate) fn has_avic_trap(&self) -> bool {
        self.avic.trap.is_some()
    }

    /// It is there.
    pub(crate) fn take_avic_trap(&mut self) -> Option<Exit> {
        let [code, info_1, info_2] = self.avic.trap.take()?;
        Some(Exit { info_1, info_2, ..Exit::of(code) })
    }
}
