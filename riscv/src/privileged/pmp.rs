//! Physical Memory Protection (volume II, "Physical Memory Protection").

use emu_core::engine::{Hart, Intent};
use serde::{Deserialize, Serialize};

use crate::cpu::{Ext, PMP_ENTRIES};
use crate::hart::{Priv, Riscv};

/// A decoded entry: `first..=last`, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PmpRange {
    first: u64,
    last: u64,
    config: u8,
}

/// The entries.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pmp {
    config: [u8; PMP_ENTRIES],
    address: [u64; PMP_ENTRIES],
    /// Those that are on, in order.
    ranges: Vec<PmpRange>,
}

const R: u8 = 1;
const W: u8 = 2;
const X: u8 = 4;
const LOCKED: u8 = 0x80;
const OFF: u8 = 0;
const TOR: u8 = 1;
const NA4: u8 = 2;

fn matching(config: u8) -> u8 {
    config >> 3 & 3
}

impl Pmp {
    /// pmpcfg: eight entries from `first` on.
    pub fn read_config(&self, first: usize) -> u64 {
        let bytes = std::array::from_fn(|i| self.config.get(first + i).copied().unwrap_or(0));
        u64::from_le_bytes(bytes)
    }

    /// Writes pmpcfg: locked entries stay, and so do those whose new value is reserved (W without R).
    pub fn write_config(&mut self, first: usize, value: u64) {
        for (i, new) in value.to_le_bytes().into_iter().enumerate() {
            if let Some(config) = self.config.get_mut(first + i)
                && *config & LOCKED == 0
                && new & (R | W) != W
            {
                *config = new & 0x9f;
            }
        }
        self.decode();
    }

    /// pmpaddr.
    pub fn read_address(&self, entry: usize) -> u64 {
        self.address.get(entry).copied().unwrap_or(0)
    }

    /// Writes pmpaddr, unless it is locked, or the base of a locked TOR entry.
    pub fn write_address(&mut self, entry: usize, value: u64) {
        let Some(config) = self.config.get(entry) else { return };
        let is_base = self.config.get(entry + 1).is_some_and(|c| c & LOCKED != 0 && matching(*c) == TOR);
        if config & LOCKED == 0 && !is_base {
            self.address[entry] = value & ((1 << 54) - 1);
            self.decode();
        }
    }

    fn decode(&mut self) {
        self.ranges.clear();
        for (i, (config, address)) in self.config.iter().zip(&self.address).enumerate() {
            let (first, size) = match matching(*config) {
                OFF => continue,
                TOR => {
                    let first = if i == 0 { 0 } else { self.address[i - 1] << 2 };
                    (first, (address << 2).saturating_sub(first))
                }
                NA4 => (address << 2, 4),
                _ => {
                    let ones = address.trailing_ones();
                    ((address & !((1 << ones) - 1)) << 2, 8u64.checked_shl(ones).unwrap_or(0))
                }
            };
            if size != 0 {
                self.ranges.push(PmpRange { first, last: first + (size - 1), config: *config });
            }
        }
    }
}

/// What PMP says about a page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct PageRights {
    pub read: bool,
    pub write: bool,
    pub execute: bool,
    /// Whether that holds for the whole page.
    pub whole: bool,
}

const ALL: PageRights = PageRights { read: true, write: true, execute: true, whole: true };

/// Rights of a mode to the bytes `first..=last`.
fn rights(h: &Hart<Riscv>, first: u64, last: u64, mode: Priv) -> Option<PageRights> {
    let pmp = &h.arch.csr.pmp;
    match pmp.ranges.iter().find(|r| r.first <= last && first <= r.last) {
        Some(r) if r.first <= first && last <= r.last => {
            let c = r.config;
            let all = mode == Priv::Machine && c & LOCKED == 0;
            let has = |bit: u8| all || c & bit != 0;
            Some(PageRights { read: has(R), write: has(W), execute: has(X), whole: true })
        }
        Some(_) => None,
        None => {
            let all = mode == Priv::Machine;
            Some(PageRights { read: all, write: all, execute: all, whole: true })
        }
    }
}

/// What a mode may do with `size` bytes at `pa`, and whether it may do the same with the rest of the page.
pub(crate) fn page_rights(h: &Hart<Riscv>, pa: u64, size: u8, mode: Priv) -> PageRights {
    if !h.arch.cpu.has(Ext::Smpmp) {
        return ALL;
    }
    let page = pa & !0xfff;
    if let Some(rights) = rights(h, page, page | 0xfff, mode) {
        return rights;
    }
    let none = PageRights { read: false, write: false, execute: false, whole: false };
    let here = rights(h, pa, pa + u64::from(size) - 1, mode).unwrap_or(none);
    PageRights { whole: false, ..here }
}

/// Whether a mode may make this access.
pub(crate) fn allows(h: &Hart<Riscv>, pa: u64, size: u8, intent: Intent, mode: Priv) -> bool {
    let r = page_rights(h, pa, size, mode);
    match intent {
        Intent::Read => r.read,
        Intent::Write => r.write,
        Intent::Fetch => r.execute,
    }
}
