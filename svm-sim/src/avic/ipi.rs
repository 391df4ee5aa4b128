//! "AVIC Interrupt Delivery": IPIs between virtual processors.
//!
//! ```text
//! ICR: logical ----> logical APIC ID table ---+
//!                    [ V | guest's APIC ID ]  |
//! ICR: physical, or of x2APIC ----------------+----> physical APIC ID table ----> IRR of its backing page
//!                                                    [ V IR | page | host's APIC ID ] -- IR --> doorbell
//! ```
//!
//! Choices: nobody gets anything if one of the targets that are named is not there; a broadcast passes over those that are not. With a logical
//! destination of an xAPIC the index that an exit tells is that of the logical table.

use x86::apic::page::{ApicPage, offset};
use x86::extension;
use x86::model::Feature;
use x86::processor::P;

use super::{ADDRESS, Svm};
use crate::exit::code;
use crate::vmcb::*;

/// Why #VMEXIT(AVIC_INCOMPLETE_IPI) comes: bits 63 to 32 of EXITINFO2.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Why {
    InvalidType = 0,
    NotRunning = 1,
    InvalidTarget = 2,
    InvalidBackingPage = 3,
    InvalidVector = 4,
}

/// An IPI cannot be completed: why, and for which index of a table.
type Incomplete = (Why, u32);

/// An entry of the physical APIC ID table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Entry(u64);

impl Entry {
    const VALID: u64 = 1 << 63;
    const IS_RUNNING: u64 = 1 << 62;
    const HOST_APIC_ID: u64 = 0xfff;
}

/// A processor that an IPI is for: its entry, and the index that tells of it.
type Target = (Entry, u32);

/// The shorthands of ICR.
mod shorthand {
    pub(super) const NONE: u32 = 0;
    pub(super) const SELF: u32 = 1;
    pub(super) const OTHERS: u32 = 3;
}

/// A vector gets into IRR, edge-triggered.
pub(super) fn post(h: &mut P, page: ApicPage, vector: u8) {
    page.set_vector(h, offset::TMR, vector, false);
    page.set_vector(h, offset::IRR, vector, true);
}

impl Svm {
    /// ICR's low half has been written.
    pub(super) fn command(&mut self, h: &mut P) {
        let page = self.backing_page();
        let (low, high) = (page.read(h, offset::ICR_LOW), page.read(h, offset::ICR_HIGH));
        self.issue(h, low, high);
    }

    /// The self-IPI register has been written: the command that this stands for.
    pub(super) fn command_self(&mut self, h: &mut P, vector: u8) {
        self.issue(h, shorthand::SELF << 18 | u32::from(vector), 0);
    }

    fn issue(&mut self, h: &mut P, low: u32, high: u32) {
        if let Err((why, index)) = self.send(h, low, high) {
            let info_2 = (why as u64) << 32 | u64::from(index);
            let icr = u64::from(high) << 32 | u64::from(low);
            self.set_avic_trap(h, [code::AVIC_INCOMPLETE_IPI, icr, info_2]);
        }
    }

    fn send(&mut self, h: &mut P, low: u32, high: u32) -> Result<(), Incomplete> {
        let (vector, mode, is_level) = (low as u8, low >> 8 & 7, low >> 15 & 1 != 0);
        if mode != 0 || is_level {
            return Err((Why::InvalidType, 0));
        }
        if vector < 16 {
            return Err((Why::InvalidVector, 0));
        }
        if low >> 18 & 3 == shorthand::SELF {
            self.request(h, vector);
            return Ok(());
        }
        let targets = self.targets(h, low, high)?;
        if let Some((_, index)) = targets.iter().find(|(entry, _)| !self.is_physical(entry.0 & ADDRESS)) {
            return Err((Why::InvalidBackingPage, *index));
        }
        let mut result = Ok(());
        for (Entry(entry), index) in targets {
            let page = ApicPage(entry & ADDRESS);
            post(h, page, vector);
            if page == self.backing_page() {
                self.scan(h);
            } else if entry & Entry::IS_RUNNING != 0 {
                extension::ring(h, (entry & Entry::HOST_APIC_ID) as u32);
            } else {
                result = result.and(Err((Why::NotRunning, index)));
            }
        }
        result
    }

    /// Whom ICR means.
    fn targets(&self, h: &mut P, low: u32, high: u32) -> Result<Vec<Target>, Incomplete> {
        let wide = self.has_x2avic();
        let destination = if wide { high } else { high >> 24 };
        let shorthand = low >> 18 & 3;
        let is_logical = low >> 11 & 1 != 0;
        if shorthand != shorthand::NONE || destination == if wide { u32::MAX } else { 0xff } {
            return Ok(self.all(h, shorthand == shorthand::OTHERS));
        }
        if !is_logical {
            return self.one(h, destination, destination).map(|t| vec![t]);
        }
        if wide {
            let (cluster, members) = (destination >> 16, destination & 0xffff);
            return bits(members).map(|bit| cluster << 4 | bit).map(|id| self.one(h, id, id)).collect();
        }
        let page = self.backing_page();
        let is_flat = page.read(h, offset::DFR) >> 28 == 0xf;
        let (cluster, members) = if is_flat { (0, destination) } else { (destination >> 4, destination & 0xf) };
        bits(members).map(|bit| self.logical(h, cluster << 2 | bit)).collect()
    }

    /// The highest index of the physical APIC ID table.
    fn last_index(&self) -> u32 {
        let mask = match () {
            () if !self.has_x2avic() => 0xff,
            () if self.has(Feature::X2avicExt) => 0xfff,
            () => 0x1ff,
        };
        self.vmcb.get(AVIC_PHYSICAL_TABLE) as u32 & mask
    }

    fn entry(&self, h: &mut P, id: u32) -> Entry {
        let table = self.vmcb.get(AVIC_PHYSICAL_TABLE) & ADDRESS;
        Entry(h.read_physical(table + 8 * u64::from(id), 8).unwrap_or(0))
    }

    /// All that there are.
    fn all(&self, h: &mut P, but_self: bool) -> Vec<Target> {
        let is_meant = |entry: u64| !but_self || entry & ADDRESS != self.backing_page().0;
        (0..=self.last_index())
            .map(|id| (self.entry(h, id), id))
            .filter(|(Entry(entry), _)| entry & Entry::VALID != 0 && is_meant(*entry))
            .collect()
    }

    /// The one with this APIC ID.
    fn one(&self, h: &mut P, id: u32, index: u32) -> Result<Target, Incomplete> {
        let entry = if id <= self.last_index() { self.entry(h, id) } else { Entry(0) };
        if entry.0 & Entry::VALID != 0 { Ok((entry, index)) } else { Err((Why::InvalidTarget, index)) }
    }

    /// The one that has this place in the logical APIC ID table.
    fn logical(&self, h: &mut P, index: u32) -> Result<Target, Incomplete> {
        const VALID: u64 = 1 << 31;
        let table = self.vmcb.get(AVIC_LOGICAL_TABLE) & ADDRESS;
        let entry = h.read_physical(table + 4 * u64::from(index), 4).unwrap_or(0);
        if entry & VALID == 0 {
            return Err((Why::InvalidTarget, index));
        }
        self.one(h, entry as u32 & 0xff, index)
    }
}

/// The numbers of the bits that are set.
fn bits(members: u32) -> impl Iterator<Item = u32> {
    (0..32).filter(move |i| members >> i & 1 != 0)
}
