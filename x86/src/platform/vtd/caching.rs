//! "Caching Translation Information": the context cache, the IOTLB and the interrupt entry cache, with their tags, and what their invalidation
//! drops. They are state that a guest can see: an entry that it changes and does not invalidate stays as it was.
//!
//! Paging structures by themselves are not cached. With CAP_REG.CM entries that are not present, or context and interrupt entries in error, are cached
//! too.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::Vtd;
use super::register::*;

/// The most translations in the IOTLB; one more, and it begins anew.
const IOTLB_ENTRIES: usize = 4096;
/// Bits of a page's number that each level adds.
const LEVEL_BITS: u32 = 9;

/// A translation of a page.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Translation {
    /// Physical address of the page.
    pub page: u64,
    /// 1 for 4 KiB, 2 for 2 MiB, 3 for 1 GiB.
    pub level: u8,
    pub reads: bool,
    pub writes: bool,
}

impl Translation {
    /// Size in bytes.
    pub fn size(&self) -> u64 {
        1 << shift(self.level)
    }
}

/// The lowest bit of the number of a page, or of what an entry of this level leads to.
pub(super) fn shift(level: u8) -> u32 {
    12 + LEVEL_BITS * u32::from(level - 1)
}

/// What is cached.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Caches {
    /// Context entries, by source ID.
    pub contexts: BTreeMap<u16, [u64; 2]>,
    /// Translations, by domain ID, level, and number of the page.
    iotlb: BTreeMap<(u16, u8, u64), Translation>,
    /// Interrupt remapping table entries, by index.
    pub interrupts: BTreeMap<u16, [u64; 2]>,
}

/// Which pages of a domain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Pages {
    pub address: u64,
    /// So many low bits of the page's number do not count.
    pub mask: u64,
}

impl Caches {
    pub fn translation(&self, domain: u16, address: u64) -> Option<Translation> {
        (1..=3).find_map(|level| self.iotlb.get(&(domain, level, address >> shift(level))).copied())
    }

    pub fn keep_translation(&mut self, domain: u16, address: u64, translation: Translation) {
        if self.iotlb.len() >= IOTLB_ENTRIES {
            self.iotlb.clear();
        }
        self.iotlb.insert((domain, translation.level, address >> shift(translation.level)), translation);
    }

    /// "Context-cache Invalidate Descriptor": by granularity 1 to 3. The function mask hides low bits of the function number: it is their count.
    /// Returns whether there is such a granularity.
    pub fn invalidate_contexts(&mut self, granularity: u64, domain: u16, source: u16, mask: u64) -> bool {
        let hidden = (1u16 << mask) - 1;
        match granularity {
            1 => self.contexts.clear(),
            2 => self.contexts.retain(|_, entry| domain_of(entry) != domain),
            3 => self.contexts.retain(|id, entry| domain_of(entry) != domain || (id ^ source) & !hidden != 0),
            _ => return false,
        }
        true
    }

    /// "IOTLB Invalidate Descriptor": by granularity 1 to 3, the last of pages. Each part of a large page stands for it.
    pub fn invalidate_iotlb(&mut self, granularity: u64, domain: u16, pages: Pages) -> bool {
        match granularity {
            1 => self.iotlb.clear(),
            2 => self.iotlb.retain(|(d, _, _), _| *d != domain),
            3 if pages.mask <= MAX_ADDRESS_MASK => self.iotlb.retain(|(d, level, number), _| {
                let hidden = shift(*level).max(12 + pages.mask as u32);
                *d != domain || number << shift(*level) >> hidden != pages.address >> hidden
            }),
            _ => return false,
        }
        true
    }

    /// "Interrupt Entry Cache Invalidate Descriptor", index-selective: so many low bits of the index do not count.
    pub fn invalidate_interrupts(&mut self, index: u16, mask: u32) {
        let hidden = mask.min(16);
        self.interrupts.retain(|i, _| u32::from(*i) >> hidden != u32::from(index) >> hidden);
    }
}

/// "Context Entry": the domain ID.
pub(super) fn domain_of(entry: &[u64; 2]) -> u16 {
    (entry[1] >> 8) as u16
}

impl Vtd {
    /// "Context Command Register": invalidates by ICC, and says how (CAIG; 0 is not at all).
    pub(super) fn context_command(&mut self) {
        let command = self.get(CCMD_REG);
        if command & INVALIDATE == 0 {
            return;
        }
        let granularity = command >> 61 & 3;
        let (domain, source) = (command as u16, (command >> 16) as u16);
        let done = self.state.caches.invalidate_contexts(granularity, domain, source, command >> 32 & 3);
        let actual = if done { granularity } else { 0 };
        self.set(CCMD_REG, command & !(INVALIDATE | 3 << 59) | actual << 59);
    }

    /// "IOTLB Invalidate Register": invalidates by IVT, and says how (IAIG; 0 is not at all).
    pub(super) fn iotlb_command(&mut self) {
        let command = self.get(IOTLB_REG);
        if command & INVALIDATE == 0 {
            return;
        }
        let granularity = command >> 60 & 3;
        let address = self.get(IVA_REG);
        let pages = Pages { address: address & !0xfff, mask: address & 0x3f };
        let done = self.state.caches.invalidate_iotlb(granularity, (command >> 32) as u16, pages);
        let actual = if done { granularity } else { 0 };
        self.set(IOTLB_REG, command & !(INVALIDATE | 3 << 57) | actual << 57);
    }
}
