//! The extended page-table mechanism (SDM vol. 3C, "The Extended Page Table Mechanism (EPT)").
//!
//! ```text
//! 56      48 47      39 38      30 29      21 20      12 11         0
//! [ PML5 ]   [ PML4 ]   [ PDPT ]   [  PD  ]   [  PT  ]   [ offset ]
//! ```

mod exit;
pub mod explain;
mod log;
mod sub_page;
mod virtualization;

use x86::extension::{SecondAccess, SecondStage};
use x86::paging::Kind;
use x86::processor::P;

use crate::capability::ept_vpid;
use crate::control::secondary;
use crate::field::EPT_POINTER;
use crate::vmx::Vmx;

/// Bits of an EPTP, and of entries.
pub mod bit {
    #![allow(missing_docs, reason = "the manual's words")]
    pub const READ: u64 = 1;
    pub const WRITE: u64 = 1 << 1;
    pub const EXECUTE: u64 = 1 << 2;
    pub const PAGE: u64 = 1 << 7;
    /// With mode-based execute control: fetches from user-mode linear addresses. [`EXECUTE`] is for supervisor-mode ones then.
    pub const EXECUTE_USER: u64 = 1 << 10;
    pub const ACCESSED: u64 = 1 << 8;
    pub const DIRTY: u64 = 1 << 9;
    /// With the EPTP's [`SHADOW_STACKS`]: supervisor shadow-stack accesses may be made here.
    pub const SHADOW_STACK: u64 = 1 << 60;
    /// With sub-page write permissions: those count.
    pub const SUB_PAGE_WRITE: u64 = 1 << 61;
    /// An EPT violation at this entry is not convertible to #VE.
    pub const SUPPRESS_VE: u64 = 1 << 63;
    /// Of an EPTP: accessed and dirty flags are enabled.
    pub const ENABLE_ACCESSED_DIRTY: u64 = 1 << 6;
    /// Of an EPTP: access rights of supervisor shadow-stack pages are enforced.
    pub const SHADOW_STACKS: u64 = 1 << 7;
}
use bit::*;

/// Bits 51 to 12.
const ADDRESS: u64 = ((1 << 52) - 1) & !0xfff;

/// Why an address is refused: one of these, or else it is an EPT violation, and these are the bits of its exit qualification that the EPT
/// paging structures give.
mod refusal {
    /// "EPT Misconfigurations".
    pub(super) const MISCONFIGURED: u64 = 1 << 63;
    /// "Page-Modification Logging": there is no room.
    pub(super) const LOG_FULL: u64 = 1 << 61;
    /// With the bits of an EPT violation: "Convertible EPT Violations".
    pub(super) const CONVERTIBLE: u64 = 1 << 60;
    /// "SPPT Misconfigurations and SPPT Misses".
    pub(super) const SPP_MISCONFIGURATION: u64 = 1 << 59;
    pub(super) const SPP_MISS: u64 = 1 << 59 | 1 << 11;
}

/// An EPT violation that the walk has found at an entry.
fn violation(rights: u64, e: u64) -> u64 {
    let convertible = if e & SUPPRESS_VE == 0 { refusal::CONVERTIBLE } else { 0 };
    (rights & 7) << 3 | (rights & EXECUTE_USER) >> 4 | (e & SHADOW_STACK) >> 46 | convertible
}

/// Rights of supervisor shadow-stack accesses: the entry `e` of the page has a bit for them, and those above it allow reads and writes.
fn of_shadow_stack(rights: u64, above: u64, e: u64) -> u64 {
    let is_shadow_stack = e & SHADOW_STACK != 0 && above & WRITE != 0;
    if is_shadow_stack && rights & READ != 0 { rights | WRITE } else { rights & !(READ | WRITE) }
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
        let shadow_stacks = eptp & SHADOW_STACKS == 0 || self.has_ept(ept_vpid::SHADOW_STACKS);
        memory_type && walk && flags && shadow_stacks && eptp & 0xf00 == 0 && self.capabilities.is_physical(eptp)
    }

    /// "EPT Misconfigurations".
    fn is_misconfigured(&self, e: u64, level: u32, is_page: bool) -> bool {
        let by_mode = self.vmcs.has(secondary::MODE_BASED_EXECUTE_CONTROL);
        let executes = e & (EXECUTE | if by_mode { EXECUTE_USER } else { 0 }) != 0;
        let is_bad_right = match e & (READ | WRITE) {
            WRITE => true,
            0 => executes && !self.has_ept(ept_vpid::EXECUTE_ONLY),
            _ => false,
        };
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
        let by_mode = self.vmcs.has(secondary::MODE_BASED_EXECUTE_CONTROL);
        let wanted = match access.kind {
            _ if writes => WRITE | if access.is_entry { READ } else { 0 },
            Kind::Fetch if by_mode && access.page.user => EXECUTE_USER,
            Kind::Fetch => EXECUTE,
            _ => READ,
        };
        // An entry without any of these is not present.
        let present = READ | WRITE | EXECUTE | if by_mode { EXECUTE_USER } else { 0 };
        let address = access.address;
        if address >> (12 + 9 * top) != 0 {
            return Err(0);
        }
        let mut table = eptp & ADDRESS;
        let (mut rights, mut above) = (present, present);
        let checks_shadow_stack = access.shadow_stack && !access.page.user && eptp & SHADOW_STACKS != 0;
        for level in (1..=top).rev() {
            let shift = 12 + 9 * (level - 1);
            let at = table + (address >> shift & 0x1ff) * 8;
            let e = h.read_physical(at, 8).unwrap_or(u64::MAX);
            if e & present == 0 {
                return Err(violation(0, e));
            }
            let is_page = level == 1 || level <= 3 && e & PAGE != 0;
            if self.is_misconfigured(e, level, is_page) {
                return Err(refusal::MISCONFIGURED);
            }
            rights &= e;
            if !is_page {
                if has_flags && e & ACCESSED == 0 {
                    self.require_room_in_log()?;
                    let _ = h.write_physical(at, 8, e | ACCESSED);
                }
                table = e & ADDRESS;
                above = rights;
                continue;
            }
            let granted = if checks_shadow_stack { of_shadow_stack(rights, above, e) } else { rights };
            let missing = wanted & !granted;
            let is_sub_page =
                missing != 0 && self.is_eligible(access, level, e, above) && self.may_write_sub_pages(h, access)?;
            if missing != 0 && !is_sub_page {
                return Err(violation(rights, e));
            }
            let flags = if !has_flags { 0 } else { ACCESSED | if writes { DIRTY } else { 0 } };
            if e & flags != flags {
                self.require_room_in_log()?;
                let _ = h.write_physical(at, 8, e | flags);
                if flags & !e & DIRTY != 0 {
                    self.log_modification(h, address);
                }
            }
            let offset = (1 << shift) - 1;
            return Ok(SecondStage {
                physical: e & ADDRESS & !offset | address & offset,
                size_log2: if is_sub_page { sub_page::SIZE_LOG2 } else { shift as u8 },
                read: granted & READ != 0,
                write: is_sub_page || granted & WRITE != 0 && (!has_flags || (e | flags) & DIRTY != 0),
            });
        }
        unreachable!("level 1 maps a page")
    }
}
