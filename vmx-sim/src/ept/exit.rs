//! "EPT-Induced VM Exits", and what comes instead of some.

use emu_core::engine::Stop;
use x86::extension::SecondAccess;
use x86::paging::Kind;
use x86::processor::P;

use super::bit::{ENABLE_ACCESSED_DIRTY, SHADOW_STACKS};
use super::refusal;
use crate::exit::{Exit, NMI_UNBLOCKING, Reason, Resume};
use crate::field::EPT_POINTER;
use crate::vmx::Vmx;

/// Bits of the exit qualification of EPT violations.
mod violation {
    pub(super) const READ: u64 = 1;
    pub(super) const WRITE: u64 = 1 << 1;
    pub(super) const FETCH: u64 = 1 << 2;
    pub(super) const LINEAR_VALID: u64 = 1 << 7;
    pub(super) const TRANSLATED: u64 = 1 << 8;
    pub(super) const USER: u64 = 1 << 9;
    pub(super) const WRITABLE: u64 = 1 << 10;
    pub(super) const NO_EXECUTE: u64 = 1 << 11;
    pub(super) const SHADOW_STACK: u64 = 1 << 13;
    pub(super) const SHADOW_STACK_PAGE: u64 = 1 << 14;
}

impl Vmx {
    /// "EPT-Induced VM Exits".
    pub(crate) fn ept_exit(&mut self, h: &mut P, access: SecondAccess, why: u64) -> Stop {
        if why & refusal::MISCONFIGURED != 0 {
            let exit = Exit::of(Reason::EptMisconfiguration);
            return self.exit(h, Exit { physical: Some(access.address), resume: Resume::Set, ..exit });
        }
        let unblocking = if self.nmi_unblocking(h) { NMI_UNBLOCKING } else { 0 };
        if why & refusal::LOG_FULL != 0 {
            let exit = Exit::of(Reason::PageModificationLogFull).qualified(unblocking);
            return self.exit(h, Exit { resume: Resume::Set, ..exit });
        }
        if why & refusal::SPP_MISCONFIGURATION != 0 {
            let exit = Exit {
                physical: Some(access.address),
                linear: access.linear,
                resume: Resume::Set,
                ..Exit::of(Reason::SubPagePermission)
            };
            return self.exit(h, exit.qualified(why & refusal::SPP_MISS & !refusal::SPP_MISCONFIGURATION | unblocking));
        }
        use violation as q;
        let has_flags = self.vmcs[EPT_POINTER] & ENABLE_ACCESSED_DIRTY != 0;
        let mut qualification = why & !refusal::CONVERTIBLE | unblocking;
        if self.vmcs[EPT_POINTER] & SHADOW_STACKS == 0 {
            qualification &= !q::SHADOW_STACK_PAGE;
        }
        qualification |= match access.kind {
            // An entry's flags are set by reading and writing.
            Kind::Write if access.is_entry => q::READ | q::WRITE,
            _ if access.is_entry && has_flags => q::READ | q::WRITE,
            Kind::Read => q::READ,
            Kind::Write => q::WRITE,
            Kind::Fetch => q::FETCH,
        };
        if access.linear.is_some() {
            qualification |= q::LINEAR_VALID;
            if !access.is_entry {
                qualification |= q::TRANSLATED;
                let page = access.page;
                for (is, bit) in [(page.user, q::USER), (page.writable, q::WRITABLE), (!page.executable, q::NO_EXECUTE)]
                {
                    qualification |= if is { bit } else { 0 };
                }
            }
        }
        if access.shadow_stack {
            qualification |= q::SHADOW_STACK;
        }
        let exit = Exit {
            physical: Some(access.address),
            linear: access.linear,
            resume: Resume::Set,
            ..Exit::of(Reason::EptViolation).qualified(qualification)
        };
        match self.virtualization_exception(h, why, &exit) {
            Some(exception) => exception.into(),
            None => self.exit(h, exit),
        }
    }
}
