//! The extended page-table mechanism (SDM vol. 3C, "The Extended Page Table Mechanism (EPT)").
//!
//! ```text
//! 56      48 47      39 38      30 29      21 20      12 11         0
//! [ PML5 ]   [ PML4 ]   [ PDPT ]   [  PD  ]   [  PT  ]   [ offset ]
//! ```

use emu_core::engine::Stop;
use x86::extension::{SecondAccess, SecondStage};
use x86::paging::Kind;
use x86::processor::P;

use crate::capability::ept_vpid;
use crate::exit::{Exit, NMI_UNBLOCKING, Reason, Resume};
use crate::field::EPT_POINTER;
use crate::vmx::Vmx;

/// Bits of an EPTP, and of entries.
pub mod bit {
    #![allow(missing_docs, reason = "the manual's words")]
    pub const READ: u64 = 1;
    pub const WRITE: u64 = 1 << 1;
    pub const EXECUTE: u64 = 1 << 2;
    pub const PAGE: u64 = 1 << 7;
    pub const ACCESSED: u64 = 1 << 8;
    pub const DIRTY: u64 = 1 << 9;
    /// Of an EPTP: accessed and dirty flags are enabled.
    pub const ENABLE_ACCESSED_DIRTY: u64 = 1 << 6;
}
use bit::*;

/// Bits 51 to 12.
const ADDRESS: u64 = ((1 << 52) - 1) & !0xfff;
/// Why an address is refused: its EPT paging structures are misconfigured; else it is an EPT violation, and these are the bits 6 to 3 of its
/// exit qualification.
const MISCONFIGURED: u64 = 1 << 63;

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
}

impl Vmx {
    fn has_ept(&self, what: u64) -> bool {
        self.capabilities.ept_vpid & what != 0
    }

    /// Whether VM entry and INVEPT take an EPTP ("Extended-Page-Table Pointer (EPTP)").
    pub(crate) fn is_ept_pointer(&self, eptp: u64) -> bool {
        let memory_type = match eptp & 7 {
            0 => self.has_ept(ept_vpid::UNCACHEABLE),
            6 => self.has_ept(ept_vpid::WRITE_BACK),
            _ => false,
        };
        let walk = match eptp >> 3 & 7 {
            3 => self.has_ept(ept_vpid::WALK_4),
            4 => self.has_ept(ept_vpid::WALK_5),
            _ => false,
        };
        let flags = eptp & ENABLE_ACCESSED_DIRTY == 0 || self.has_ept(ept_vpid::ACCESSED_DIRTY);
        memory_type && walk && flags && eptp & 0xf80 == 0 && self.capabilities.is_physical(eptp)
    }

    /// "EPT Misconfigurations".
    fn is_misconfigured(&self, e: u64, level: u32, is_page: bool) -> bool {
        let rights = e & 7;
        let is_bad_right =
            rights & (READ | WRITE) == WRITE || rights == EXECUTE && !self.has_ept(ept_vpid::EXECUTE_ONLY);
        let beyond = ADDRESS & (u64::MAX << self.capabilities.physical_bits);
        let reserved = if is_page {
            // Below the address.
            beyond | ADDRESS & ((1 << (12 + 9 * (level - 1))) - 1)
        } else if level > 3 {
            beyond | 0xf8
        } else {
            beyond | 0x78
        };
        let is_bad_type = is_page && !matches!(e >> 3 & 7, 0 | 1 | 4 | 5 | 6);
        let is_bad_page = is_page
            && (level == 3 && !self.has_ept(ept_vpid::PAGES_1G) || level == 2 && !self.has_ept(ept_vpid::PAGES_2M));
        is_bad_right || e & reserved != 0 || is_bad_type || is_bad_page
    }

    /// "EPT Translation Mechanism".
    pub(crate) fn translate(&mut self, h: &mut P, access: SecondAccess) -> Result<SecondStage, u64> {
        let eptp = self.vmcs[EPT_POINTER];
        let top = (eptp >> 3 & 7) as u32 + 1;
        let has_flags = eptp & ENABLE_ACCESSED_DIRTY != 0;
        // Guest paging-structure entries are written to where there are accessed and dirty flags.
        let writes = access.kind == Kind::Write || access.is_entry && has_flags;
        let wanted = match access.kind {
            _ if writes => WRITE | if access.is_entry { READ } else { 0 },
            Kind::Fetch => EXECUTE,
            _ => READ,
        };
        let address = access.address;
        if address >> (12 + 9 * top) != 0 {
            return Err(0);
        }
        let mut table = eptp & ADDRESS;
        let mut rights = READ | WRITE | EXECUTE;
        for level in (1..=top).rev() {
            let shift = 12 + 9 * (level - 1);
            let at = table + (address >> shift & 0x1ff) * 8;
            let e = h.read_physical(at, 8).unwrap_or(u64::MAX);
            if e & 7 == 0 {
                return Err(0);
            }
            let is_page = level == 1 || level <= 3 && e & PAGE != 0;
            if self.is_misconfigured(e, level, is_page) {
                return Err(MISCONFIGURED);
            }
            rights &= e;
            if !is_page {
                if has_flags && e & ACCESSED == 0 {
                    let _ = h.write_physical(at, 8, e | ACCESSED);
                }
                table = e & ADDRESS;
                continue;
            }
            if rights & wanted != wanted {
                return Err(rights << 3);
            }
            let flags = if !has_flags { 0 } else { ACCESSED | if writes { DIRTY } else { 0 } };
            if e & flags != flags {
                let _ = h.write_physical(at, 8, e | flags);
            }
            let offset = (1 << shift) - 1;
            return Ok(SecondStage {
                physical: e & ADDRESS & !offset | address & offset,
                size_log2: shift as u8,
                read: rights & READ != 0,
                write: rights & WRITE != 0 && (!has_flags || (e | flags) & DIRTY != 0),
            });
        }
        unreachable!("level 1 maps a page")
    }

    /// "EPT-Induced VM Exits".
    pub(crate) fn ept_exit(&mut self, h: &mut P, access: SecondAccess, why: u64) -> Stop {
        if why & MISCONFIGURED != 0 {
            let exit = Exit::of(Reason::EptMisconfiguration);
            return self.exit(h, Exit { physical: Some(access.address), resume: Resume::Set, ..exit });
        }
        use violation as q;
        let has_flags = self.vmcs[EPT_POINTER] & ENABLE_ACCESSED_DIRTY != 0;
        let mut qualification = why;
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
        if self.nmi_unblocking(h) {
            qualification |= NMI_UNBLOCKING;
        }
        let exit = Exit::of(Reason::EptViolation).qualified(qualification);
        self.exit(h, Exit { physical: Some(access.address), linear: access.linear, resume: Resume::Set, ..exit })
    }
}
