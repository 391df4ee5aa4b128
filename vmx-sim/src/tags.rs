//! Tags of cached translations (SDM vol. 3C, "Caching Translation Information").
//!
//! A guest's translations are tagged with its VPID and, with EPT, its EP4TA: bits 51 to 12 of the EPTP. Mappings of the two kinds that the manual
//! tells apart with EPT, guest-physical and combined, are held as combined ones alone. A host's tag is 0, which is VPID 0000H without EPT.

use std::collections::BTreeMap;

use emu_core::tlb::SpaceKey;
use serde::{Deserialize, Serialize};
use x86::processor::P;

/// The EPT root's number stands above the VPID.
const ROOT_SHIFT: u32 = 16;
/// The bits of the VPID.
pub(crate) const VPID: u64 = (1 << ROOT_SHIFT) - 1;
/// Bits 51 to 12 of an EPTP.
pub const EP4TA: u64 = ((1 << 52) - 1) & !0xfff;

/// What guests' translations are tagged with.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tags {
    /// Numbers of EPT roots, by EP4TA, from 1 on.
    roots: BTreeMap<u64, u64>,
    /// The root that was asked for last, and its number.
    last: (u64, u64),
    present: u64,
}

/// The tag of a space, and its VPID and root.
fn tag(key: SpaceKey) -> (u64, u64) {
    let tag = key.0 >> 20;
    (tag & VPID, tag >> ROOT_SHIFT)
}

impl Tags {
    /// The tag of the guest at work.
    pub fn present(&self) -> u64 {
        self.present
    }

    /// A guest begins, with this VPID, or 0, and this EPTP.
    pub fn enter(&mut self, vpid: u64, eptp: Option<u64>) {
        let root = eptp.map_or(0, |eptp| self.root(eptp & EP4TA));
        self.present = vpid | root << ROOT_SHIFT;
    }

    fn root(&mut self, ep4ta: u64) -> u64 {
        if self.last.0 == ep4ta && self.last.1 != 0 {
            return self.last.1;
        }
        let next = self.roots.len() as u64 + 1;
        let number = *self.roots.entry(ep4ta).or_insert(next);
        self.last = (ep4ta, number);
        number
    }

    /// Without VPIDs, VM entries and exits drop what is tagged with VPID 0000H ("Operations that Invalidate Cached Mappings").
    pub fn drop_vpid_0(h: &mut P) {
        h.core.mmu.drop_spaces(|key| tag(key).0 == 0);
    }

    /// INVEPT, single-context.
    pub fn drop_root(&self, h: &mut P, eptp: u64) {
        if let Some(root) = self.roots.get(&(eptp & EP4TA)) {
            h.core.mmu.drop_spaces(|key| tag(key).1 == *root);
        }
    }

    /// INVEPT, all-context.
    pub fn drop_all_roots(h: &mut P) {
        h.core.mmu.drop_spaces(|key| tag(key).1 != 0);
    }

    /// INVVPID of one VPID, or of all but 0000H.
    pub fn drop_vpid(h: &mut P, vpid: Option<u64>) {
        h.core.mmu.drop_spaces(|key| match vpid {
            Some(vpid) => tag(key).0 == vpid,
            None => tag(key).0 != 0,
        });
    }

    /// INVVPID of one address.
    pub fn drop_address(h: &mut P, vpid: u64, linear: u64) {
        h.core.mmu.drop_page(linear, |key| tag(key).0 == vpid);
    }
}
