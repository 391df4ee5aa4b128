//! "Sub-Page Write Permissions": of a page of 4 KiB that is read-only, regions of 128 bytes that may be written.
//!
//! ```text
//! 47      39 38      30 29      21 20      12 11    7 6      0
//! [ SPPL4 ]  [ SPPL3 ]  [ SPPL2 ]  [ SPPL1 ]  [ bit ] [      ]
//! ```
//!
//! The entry of the last table is a vector: its bit 2 n is the permission of region n.

use x86::extension::SecondAccess;
use x86::paging::Kind;
use x86::processor::P;

use super::bit::{READ, SUB_PAGE_WRITE, WRITE};
use super::refusal::{SPP_MISCONFIGURATION, SPP_MISS};
use super::{ADDRESS, Vmx};
use crate::control::secondary;
use crate::field::SUB_PAGE_PERMISSION_TABLE_POINTER;

/// log2 of a region's size in bytes.
pub(super) const SIZE_LOG2: u8 = 7;
/// A table's entry leads to another table.
const VALID: u64 = 1;
/// The bits of a vector that are reserved.
const ODD: u64 = 0xaaaa_aaaa_aaaa_aaaa;

impl Vmx {
    /// "Write Accesses That Are Eligible for Sub-Page Write Permissions": nothing but the entry `e` of the page refuses it, and what the others,
    /// `above`, say is enough.
    pub(super) fn is_eligible(&self, access: SecondAccess, level: u32, e: u64, above: u64) -> bool {
        self.vmcs.has(secondary::SUB_PAGE_WRITE_PERMISSIONS)
            && level == 1
            && e & (READ | WRITE | SUB_PAGE_WRITE) == READ | SUB_PAGE_WRITE
            && above & (READ | WRITE) == READ | WRITE
            && access.kind == Kind::Write
            && !access.is_entry
            && access.linear.is_some()
            && !access.shadow_stack
    }

    /// "Determining an Access's Sub-Page Write Permission". Whether all of its regions may be written; or an SPPT miss or misconfiguration.
    pub(super) fn may_write_sub_pages(&self, h: &mut P, access: SecondAccess) -> Result<bool, u64> {
        let mut table = self.vmcs[SUB_PAGE_PERMISSION_TABLE_POINTER];
        let beyond = u64::MAX << self.capabilities.physical_bits;
        for shift in [39, 30, 21] {
            let e = h.read_physical(table + (access.address >> shift & 0x1ff) * 8, 8).unwrap_or(u64::MAX);
            if e & VALID == 0 {
                return Err(SPP_MISS);
            }
            if e & (beyond | 0xffe) != 0 {
                return Err(SPP_MISCONFIGURATION);
            }
            table = e & ADDRESS;
        }
        let vector = h.read_physical(table + (access.address >> 12 & 0x1ff) * 8, 8).unwrap_or(u64::MAX);
        if vector & ODD != 0 {
            return Err(SPP_MISCONFIGURATION);
        }
        let first = access.address & 0xfff;
        let last = (first + u64::from(access.size.max(1)) - 1).min(0xfff);
        Ok((first >> SIZE_LOG2..=last >> SIZE_LOG2).all(|n| vector >> (2 * n) & 1 != 0))
    }
}
