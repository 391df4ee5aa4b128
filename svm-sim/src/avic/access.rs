//! "Virtual APIC Register Accesses": which of them the processor does by itself.

use emu_core::engine::Stop;
use x86::apic::page::{is_within_register, offset as o};
use x86::extension::{OWN, SecondAccess, SecondStage};
use x86::model::Feature;
use x86::paging::Kind;
use x86::processor::P;

use super::{ADDRESS, WRITE};
use crate::exit::{Exit, code};
use crate::svm::Svm;
use crate::vmcb::*;

/// Among the reasons to refuse an access: it is to the APIC's page and not accelerated. The rest is EXITINFO1.
const NO_ACCELERATION: u64 = 1 << 62;

/// What a write to a register does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Write {
    /// It is done, with all that it means.
    Accelerated,
    /// It is done, and #VMEXIT(AVIC_NOACCEL) follows.
    Trap,
    /// It is not done: #VMEXIT(AVIC_NOACCEL) comes in its place.
    Fault,
}

impl Svm {
    /// AMD's registers beyond 3F0h, if AVIC knows them: "Extended LVT AVIC access changes".
    fn is_extended_lvt(&self, register: u16) -> bool {
        matches!(register, 0x500..=0x530) && self.has(Feature::ExtLvtAvicAccess)
    }

    /// Whether a register can be read.
    pub(super) fn is_readable(&self, register: u16) -> bool {
        matches!(register, o::TPR | o::APR | o::PPR | 0x100..=0x270 | o::VERSION | o::ICR_HIGH)
            || matches!(register, o::EOI | o::ICR_LOW)
            || self.is_extended_lvt(register)
            || self.on_write(register) == Write::Trap
    }

    /// What a write to a register does.
    pub(super) fn on_write(&self, register: u16) -> Write {
        match register {
            o::TPR | o::EOI | o::ICR_LOW | o::ICR_HIGH => Write::Accelerated,
            o::ID | o::RRD | o::LDR | o::DFR | o::SVR | o::ESR | o::INITIAL_COUNT | o::DIVIDE => Write::Trap,
            o::LVT_TIMER..=o::LVT_ERROR => Write::Trap,
            _ if self.is_extended_lvt(register) => Write::Trap,
            _ => Write::Fault,
        }
    }

    /// An access has come through nested paging. One to the APIC's page, by its guest-physical address, goes to the backing page.
    pub(crate) fn through_apic_page(&self, access: SecondAccess, stage: SecondStage) -> Result<SecondStage, u64> {
        let is_of_apic = self.has_avic()
            && access.address & ADDRESS == self.vmcb.get(AVIC_APIC_BAR) & ADDRESS
            && !access.is_entry
            && access.linear.is_some()
            && !self.has_x2avic();
        if !is_of_apic {
            return Ok(stage);
        }
        let offset = (access.address & 0xfff) as u16;
        let register = offset & !0xf;
        let is_accelerated = is_within_register(offset, access.size)
            && match access.kind {
                Kind::Read => self.is_readable(register),
                Kind::Write => self.on_write(register) != Write::Fault,
                Kind::Fetch => false,
            };
        if is_accelerated {
            return Ok(SecondStage { physical: OWN | u64::from(offset), size_log2: 12, read: true, write: true });
        }
        let write = if access.kind == Kind::Write { WRITE } else { 0 };
        Err(NO_ACCELERATION | write | u64::from(register))
    }

    /// An access has been refused for this reason: #VMEXIT(AVIC_NOACCEL), if that is it.
    pub(crate) fn no_acceleration(&mut self, h: &mut P, why: u64) -> Option<Stop> {
        let info_1 = why & !NO_ACCELERATION;
        (info_1 != why).then(|| self.exit(h, Exit { info_1, ..Exit::of(code::AVIC_NOACCEL) }))
    }

    /// A read of the backing page.
    pub(crate) fn read_apic_page(&self, h: &mut P, address: u64, size: u8) -> u64 {
        self.backing_page().load(h, (address & 0xfff) as u16, size)
    }

    /// A write to it.
    pub(crate) fn write_apic_page(&mut self, h: &mut P, address: u64, size: u8, value: u64) {
        let offset = (address & 0xfff) as u16;
        self.backing_page().store(h, offset, size, value);
        self.after_write(h, offset & !0xf);
    }

    /// A register has been written.
    pub(super) fn after_write(&mut self, h: &mut P, register: u16) {
        match register {
            o::TPR => self.follow_tpr(h),
            o::EOI => self.end_of_interrupt(h),
            o::ICR_LOW => self.command(h),
            o::ICR_HIGH => {}
            _ => self.set_avic_trap(h, [code::AVIC_NOACCEL, WRITE | u64::from(register), 0]),
        }
    }
}
