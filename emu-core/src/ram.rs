//! Guest RAM: regions of host memory, lazily zero, with tracking by page.
//!
//! Three facts are kept for each 4 KiB page: whether it was written since the last snapshot, whether it holds bytes that
//! have been translated to micro-ops, and whether some TLB lets stores through to it without asking. The last two are
//! what makes self-modifying code exact: a page with translated bytes is never writable on the fast path.
#![allow(unsafe_code)] // guest RAM is one of the two places of `unsafe`, see docs/design.md

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use memmap2::MmapMut;
use rustc_hash::FxHashMap;

/// Bytes in a page of tracking, and the smallest translation granule of all architectures.
pub const PAGE_SIZE: u64 = 4096;
/// The bits of an address within its page.
pub const PAGE_MASK: u64 = PAGE_SIZE - 1;

/// One page's bytes.
pub type Page = [u8; PAGE_SIZE as usize];

/// The page was written since the last snapshot.
const DIRTY: u8 = 1;
/// The page was ever written.
const TOUCHED: u8 = 2;
/// The page holds bytes of translated blocks.
const CODE: u8 = 4;
/// A TLB may let stores to this page through on the fast path.
const OPEN: u8 = 8;
/// The page is read-only: stores go on to the bus, as if nothing were there.
const READ_ONLY: u8 = 16;

/// Nothing is mapped at a physical address (or not all bytes of the access are in one region of RAM).
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no RAM at physical address {pa:#x}")]
pub struct NoRam {
    /// The first address that is not RAM.
    pub pa: u64,
}

/// RAM that could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum RamError {
    /// The size or the base is not a whole number of pages, or the size is 0.
    #[error("a RAM region of {size:#x} bytes at {base:#x}: base and size must be multiples of 4096, and size not 0")]
    Shape {
        /// Base asked for.
        base: u64,
        /// Size asked for.
        size: u64,
    },
    /// It overlaps a region that is there.
    #[error("a RAM region of {size:#x} bytes at {base:#x} overlaps another")]
    Overlap {
        /// Base asked for.
        base: u64,
        /// Size asked for.
        size: u64,
    },
    /// The host would not map it.
    #[error("the host cannot map {size:#x} bytes for guest RAM: {source}")]
    Host {
        /// Size asked for.
        size: u64,
        /// The host's word.
        source: std::io::Error,
    },
}

struct Region {
    base: u64,
    size: u64,
    map: MmapMut,
    host: *mut u8,
    flags: Vec<u8>,
}

// SAFETY: `host` points into `map`, which the region owns; nothing else is shared.
unsafe impl Send for Region {}

impl Region {
    fn flags_at(&mut self, pa: u64) -> &mut u8 {
        &mut self.flags[((pa - self.base) / PAGE_SIZE) as usize]
    }
}

/// The contents of RAM at one moment. Pages that did not change between two images are shared by them; a page that is
/// absent is all zero.
#[derive(Clone, Default)]
pub struct RamImage {
    pages: BTreeMap<u64, Arc<Page>>,
    /// Addresses of pages that are read-only.
    read_only: BTreeSet<u64>,
}

impl RamImage {
    /// The pages that are not all zero: physical address and bytes, ascending.
    pub fn pages(&self) -> impl Iterator<Item = (u64, &Page)> {
        self.pages.iter().map(|(pa, page)| (*pa, &**page))
    }

    /// Adds a page (when reading an image from a file).
    pub fn insert(&mut self, pa: u64, page: Page) {
        self.pages.insert(pa, Arc::new(page));
    }

    /// Addresses of the pages that are read-only, ascending.
    pub fn read_only(&self) -> impl Iterator<Item = u64> {
        self.read_only.iter().copied()
    }

    /// Makes a page read-only (when reading an image from a file).
    pub fn protect(&mut self, pa: u64) {
        self.read_only.insert(pa);
    }
}

/// All of the machine's RAM.
#[derive(Default)]
pub struct Ram {
    regions: Vec<Region>,
    /// For each page with translated bytes: which of its 64 lines of 64 bytes hold some.
    code_lines: FxHashMap<u64, u64>,
    /// Pages whose translated blocks must die before the next instruction.
    killed: Vec<u64>,
    /// Pages that TLBs must stop letting stores through to before the next instruction.
    closing: Vec<u64>,
    /// The image that `DIRTY` is relative to.
    last: RamImage,
}

/// Reads a little-endian number of `size` bytes (1 to 8).
///
/// # Safety
/// So many bytes at `host` can be read, and nothing else refers to them.
#[inline]
pub(crate) unsafe fn load_host(host: *const u8, size: u8) -> u64 {
    // SAFETY: by the caller.
    unsafe {
        match size {
            1 => u64::from(*host),
            2 => u16::from_le(host.cast::<u16>().read_unaligned()).into(),
            4 => u32::from_le(host.cast::<u32>().read_unaligned()).into(),
            8 => u64::from_le(host.cast::<u64>().read_unaligned()),
            _ => {
                let mut bytes = [0u8; 8];
                std::ptr::copy_nonoverlapping(host, bytes.as_mut_ptr(), size.min(8).into());
                u64::from_le_bytes(bytes)
            }
        }
    }
}

/// Writes the low `size` bytes (1 to 8) of a number, little-endian.
///
/// # Safety
/// So many bytes at `host` can be written, and nothing else refers to them.
#[inline]
pub(crate) unsafe fn store_host(host: *mut u8, size: u8, value: u64) {
    // SAFETY: by the caller.
    unsafe {
        match size {
            1 => *host = value as u8,
            2 => host.cast::<u16>().write_unaligned((value as u16).to_le()),
            4 => host.cast::<u32>().write_unaligned((value as u32).to_le()),
            8 => host.cast::<u64>().write_unaligned(value.to_le()),
            _ => {
                let bytes = value.to_le_bytes();
                std::ptr::copy_nonoverlapping(bytes.as_ptr(), host, size.min(8).into());
            }
        }
    }
}

impl Ram {
    /// Adds a region of zeroes. Both `base` and `size` are in bytes, multiples of 4096.
    pub fn add(&mut self, base: u64, size: u64) -> Result<(), RamError> {
        if size == 0 || (base | size) & PAGE_MASK != 0 || base.checked_add(size).is_none() {
            return Err(RamError::Shape { base, size });
        }
        if self.regions.iter().any(|r| base < r.base + r.size && r.base < base + size) {
            return Err(RamError::Overlap { base, size });
        }
        let bytes = usize::try_from(size).map_err(|_| RamError::Shape { base, size })?;
        let mut map = memmap2::MmapOptions::new()
            .len(bytes)
            .no_reserve_swap()
            .map_anon()
            .map_err(|source| RamError::Host { size, source })?;
        let host = map.as_mut_ptr();
        let flags = vec![0; bytes / PAGE_SIZE as usize];
        self.regions.push(Region { base, size, map, host, flags });
        self.regions.sort_by_key(|r| r.base);
        Ok(())
    }

    /// The regions: base and size in bytes, ascending.
    pub fn regions(&self) -> impl Iterator<Item = (u64, u64)> + '_ {
        self.regions.iter().map(|r| (r.base, r.size))
    }

    #[inline]
    fn index(&self, pa: u64, len: u64) -> Option<usize> {
        self.regions.iter().position(|r| pa >= r.base && pa - r.base < r.size && len <= r.size - (pa - r.base))
    }

    /// Whether all of `len` bytes at `pa` are RAM of one region.
    pub fn contains(&self, pa: u64, len: u64) -> bool {
        self.index(pa, len).is_some()
    }

    /// Reads bytes.
    pub fn read(&self, pa: u64, bytes: &mut [u8]) -> Result<(), NoRam> {
        let r = &self.regions[self.index(pa, bytes.len() as u64).ok_or(NoRam { pa })?];
        let at = (pa - r.base) as usize;
        // SAFETY: `index` has checked that the range is inside the mapping; the fast path's raw stores and this read are
        // on one thread.
        unsafe { std::ptr::copy_nonoverlapping(r.host.add(at), bytes.as_mut_ptr(), bytes.len()) };
        Ok(())
    }

    /// The bytes of a range.
    pub fn bytes(&self, pa: u64, len: u64) -> Result<&[u8], NoRam> {
        let r = &self.regions[self.index(pa, len).ok_or(NoRam { pa })?];
        // SAFETY: `index` has checked that the range is inside the mapping; nothing is stored while the RAM is borrowed.
        Ok(unsafe { std::slice::from_raw_parts(r.host.add((pa - r.base) as usize), len as usize) })
    }

    /// Writes bytes. Translated blocks of lines that are hit will die before the next instruction. An error names the first
    /// page that is read-only; nothing is written then.
    pub fn write(&mut self, pa: u64, bytes: &[u8]) -> Result<(), NoRam> {
        let len = bytes.len() as u64;
        let i = self.index(pa, len).ok_or(NoRam { pa })?;
        for page in (pa & !PAGE_MASK..pa + len).step_by(PAGE_SIZE as usize) {
            if *self.regions[i].flags_at(page) & READ_ONLY != 0 {
                return Err(NoRam { pa: page.max(pa) });
            }
        }
        self.program(pa, bytes)
    }

    /// The bytes of a range within one page, some parts of which will be written now, each from an offset to another: they count as
    /// written.
    #[inline]
    pub fn parts_to_write(&mut self, pa: u64, len: u64, parts: &[(usize, usize)]) -> Result<&mut [u8], NoRam> {
        let i = self.index(pa, len).ok_or(NoRam { pa })?;
        let flags = self.regions[i].flags_at(pa);
        if *flags & READ_ONLY != 0 || (pa & PAGE_MASK) + len > PAGE_SIZE {
            return Err(NoRam { pa });
        }
        *flags |= DIRTY | TOUCHED;
        if *flags & CODE != 0 {
            parts.iter().for_each(|(from, to)| self.wrote_code(pa + *from as u64, pa + *to as u64));
        }
        let r = &mut self.regions[i];
        // SAFETY: `index` has checked that the range is inside the mapping; nothing else reads or writes while the RAM is borrowed.
        Ok(unsafe { std::slice::from_raw_parts_mut(r.host.add((pa - r.base) as usize), len as usize) })
    }

    /// As [`Ram::write`], to read-only pages too: what a flash chip or a board does with its own memory.
    pub fn program(&mut self, pa: u64, bytes: &[u8]) -> Result<(), NoRam> {
        let i = self.index(pa, bytes.len() as u64).ok_or(NoRam { pa })?;
        self.touch(i, pa, bytes.len() as u64);
        let r = &mut self.regions[i];
        let at = (pa - r.base) as usize;
        // SAFETY: as in `read`.
        unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), r.host.add(at), bytes.len()) };
        Ok(())
    }

    /// Makes pages read-only, or writable again. Loads and fetches go on as before; stores to read-only pages go on to the
    /// bus. `pa` and `len` are in bytes, multiples of 4096.
    pub fn set_read_only(&mut self, pa: u64, len: u64, read_only: bool) -> Result<(), NoRam> {
        let i = self.index(pa, len).ok_or(NoRam { pa })?;
        for page in (pa..pa + len).step_by(PAGE_SIZE as usize) {
            let flags = self.regions[i].flags_at(page);
            if !read_only {
                *flags &= !READ_ONLY;
                continue;
            }
            if *flags & OPEN != 0 {
                self.closing.push(page);
            }
            *flags = *flags & !OPEN | READ_ONLY;
        }
        Ok(())
    }

    /// Reads a little-endian number of `size` bytes (1 to 8), zero-extended.
    #[inline]
    pub fn load(&self, pa: u64, size: u8) -> Result<u64, NoRam> {
        let r = &self.regions[self.index(pa, u64::from(size)).ok_or(NoRam { pa })?];
        // SAFETY: as in `read`.
        Ok(unsafe { load_host(r.host.add((pa - r.base) as usize), size) })
    }

    /// Writes the low `size` bytes (1 to 8) of a number, little-endian.
    #[inline]
    pub fn store(&mut self, pa: u64, size: u8, value: u64) -> Result<(), NoRam> {
        let i = self.index(pa, u64::from(size)).ok_or(NoRam { pa })?;
        let flags = self.regions[i].flags_at(pa);
        let is_within_page = (pa & PAGE_MASK) + u64::from(size) <= PAGE_SIZE;
        if *flags & (READ_ONLY | CODE) != 0 || !is_within_page || !size.is_power_of_two() {
            return self.write(pa, &value.to_le_bytes()[..size.min(8).into()]);
        }
        *flags |= DIRTY | TOUCHED;
        let r = &self.regions[i];
        // SAFETY: as in `read`.
        unsafe { store_host(r.host.add((pa - r.base) as usize), size, value) };
        Ok(())
    }

    /// Marks the pages of a range written, and their translated blocks for death.
    fn touch(&mut self, region: usize, pa: u64, len: u64) {
        let mut at = pa;
        let end = pa + len;
        while at < end {
            let next = ((at | PAGE_MASK) + 1).min(end);
            let flags = self.regions[region].flags_at(at);
            *flags |= DIRTY | TOUCHED;
            if *flags & CODE != 0 {
                self.wrote_code(at, next);
            }
            at = next;
        }
    }

    /// A write hit `[at, end)`, within one page that has translated bytes.
    fn wrote_code(&mut self, at: u64, end: u64) {
        let page = at & !PAGE_MASK;
        let first = (at & PAGE_MASK) / 64;
        let last = ((end - 1) & PAGE_MASK) / 64;
        let lines = (u64::MAX << first) & (u64::MAX >> (63 - last));
        if self.code_lines.get(&page).is_some_and(|has| has & lines != 0) && !self.killed.contains(&page) {
            self.killed.push(page);
        }
    }

    /// Notes that `[pa, pa + len)`, within one page, has been translated. Returns whether TLBs must stop letting stores
    /// to the page through.
    pub(crate) fn mark_code(&mut self, pa: u64, len: u64) -> bool {
        let Some(i) = self.index(pa, len) else { return false };
        let flags = self.regions[i].flags_at(pa);
        let was_open = *flags & OPEN != 0;
        *flags = (*flags | CODE) & !OPEN;
        let first = (pa & PAGE_MASK) / 64;
        let last = ((pa + len - 1) & PAGE_MASK) / 64;
        *self.code_lines.entry(pa & !PAGE_MASK).or_default() |= (u64::MAX << first) & (u64::MAX >> (63 - last));
        was_open
    }

    /// The page has no translated bytes any more.
    pub(crate) fn clear_code(&mut self, page: u64) {
        self.code_lines.remove(&page);
        if let Some(i) = self.index(page, 1) {
            *self.regions[i].flags_at(page) &= !CODE;
        }
    }

    /// Whether blocks wait to die.
    #[inline]
    pub fn has_killed(&self) -> bool {
        !self.killed.is_empty()
    }

    /// Whether there is something that must be done before the next instruction.
    #[inline]
    pub(crate) fn has_news(&self) -> bool {
        self.has_killed() || !self.closing.is_empty()
    }

    /// Pages that TLBs must stop letting stores through to now.
    pub(crate) fn take_closing(&mut self) -> Vec<u64> {
        std::mem::take(&mut self.closing)
    }

    /// Pages whose blocks must die now.
    pub(crate) fn take_killed(&mut self) -> Vec<u64> {
        std::mem::take(&mut self.killed)
    }

    /// Host address of the page that holds `pa`, for loads on the fast path.
    pub(crate) fn host_page(&self, pa: u64) -> Option<*mut u8> {
        let r = &self.regions[self.index(pa, 1)?];
        // SAFETY: within the mapping, by `index`.
        Some(unsafe { r.host.add(((pa & !PAGE_MASK) - r.base) as usize) })
    }

    /// Whether stores to the page of `pa` may take the fast path from now on; if so it counts as written.
    pub(crate) fn open_for_stores(&mut self, pa: u64) -> bool {
        let Some(i) = self.index(pa, 1) else { return false };
        let flags = self.regions[i].flags_at(pa);
        if *flags & (CODE | READ_ONLY) != 0 {
            return false;
        }
        *flags |= DIRTY | TOUCHED | OPEN;
        true
    }

    /// An image of RAM now. Only pages written since the last image are copied. The caller must make all TLBs stop
    /// letting stores through ([`Tlb::forget_writes`](crate::tlb::Tlb::forget_writes)).
    pub fn snapshot(&mut self) -> RamImage {
        self.last.read_only.clear();
        for r in &mut self.regions {
            let protected = r.flags.iter().enumerate().filter(|(_, f)| **f & READ_ONLY != 0);
            self.last.read_only.extend(protected.map(|(i, _)| r.base + i as u64 * PAGE_SIZE));
            for (i, flags) in r.flags.iter_mut().enumerate().filter(|(_, f)| **f & DIRTY != 0) {
                *flags &= !(DIRTY | OPEN);
                let pa = r.base + i as u64 * PAGE_SIZE;
                let page: &Page = r.map[i * PAGE_SIZE as usize..][..PAGE_SIZE as usize].try_into().expect("a page");
                if page.iter().all(|b| *b == 0) {
                    self.last.pages.remove(&pa);
                } else {
                    self.last.pages.insert(pa, Arc::new(*page));
                }
            }
        }
        self.last.clone()
    }

    /// Puts RAM back to an image: only pages that differ from it are written. All TLBs and translated blocks must be
    /// dropped by the caller. An error names the first page of the image that is not RAM here; nothing is changed then.
    pub fn restore(&mut self, image: &RamImage) -> Result<(), NoRam> {
        let mut named = image.pages.keys().chain(&image.read_only);
        if let Some(pa) = named.find(|pa| !self.contains(**pa, PAGE_SIZE)) {
            return Err(NoRam { pa: *pa });
        }
        for r in &mut self.regions {
            for (i, flags) in r.flags.iter_mut().enumerate() {
                let pa = r.base + i as u64 * PAGE_SIZE;
                let want = image.pages.get(&pa);
                let clean = *flags & DIRTY == 0
                    && match (self.last.pages.get(&pa), want) {
                        (Some(a), Some(b)) => Arc::ptr_eq(a, b),
                        (None, None) => true,
                        _ => false,
                    };
                if !clean {
                    let page = &mut r.map[i * PAGE_SIZE as usize..][..PAGE_SIZE as usize];
                    match want {
                        Some(bytes) => page.copy_from_slice(&**bytes),
                        None => page.fill(0),
                    }
                }
                *flags = if want.is_some() { TOUCHED } else { 0 };
                *flags |= if image.read_only.contains(&pa) { READ_ONLY } else { 0 };
            }
        }
        self.code_lines.clear();
        self.killed.clear();
        self.closing.clear();
        self.last = image.clone();
        Ok(())
    }

    /// Calls `f` with every page that is not all zero, ascending by address.
    pub fn for_each_page(&self, mut f: impl FnMut(u64, &Page)) {
        for r in &self.regions {
            for (i, _) in r.flags.iter().enumerate().filter(|(_, f)| **f & TOUCHED != 0) {
                let page: &Page = r.map[i * PAGE_SIZE as usize..][..PAGE_SIZE as usize].try_into().expect("a page");
                if page.iter().any(|b| *b != 0) {
                    f(r.base + i as u64 * PAGE_SIZE, page);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn ram() -> Ram {
        let mut ram = Ram::default();
        ram.add(0x8000_0000, 0x4000).unwrap();
        ram.add(0x1000, 0x1000).unwrap();
        ram
    }

    #[test]
    fn regions_are_checked() {
        let mut ram = ram();
        assert!(matches!(ram.add(0x8000_3000, 0x1000), Err(RamError::Overlap { .. })));
        assert!(matches!(ram.add(0x10, 0x1000), Err(RamError::Shape { .. })));
        assert!(matches!(ram.add(0x9000_0000, 0), Err(RamError::Shape { .. })));
        assert_eq!(ram.load(0x2000, 1), Err(NoRam { pa: 0x2000 }));
        assert!(ram.load(0x1ffc, 8).is_err(), "it ends beyond the region");
        assert_eq!(ram.load(0x1ff8, 8), Ok(0));
    }

    #[test]
    fn a_write_to_a_translated_line_kills_and_to_its_neighbour_does_not() {
        let mut ram = ram();
        assert!(!ram.mark_code(0x8000_1040, 8));
        ram.store(0x8000_103f, 1, 0xff).unwrap();
        ram.store(0x8000_1080, 8, 0xff).unwrap();
        assert!(!ram.has_killed());
        ram.store(0x8000_103f, 2, 0xffff).unwrap();
        assert_eq!(ram.take_killed(), [0x8000_1000]);
        assert!(!ram.open_for_stores(0x8000_1000) && ram.open_for_stores(0x8000_0000));
        assert!(ram.mark_code(0x8000_0000, 4), "stores were let through");
    }

    #[test]
    fn parts_of_a_page() {
        let mut ram = ram();
        ram.write(0x8000_1000, &[9; 0x1000]).unwrap();
        assert!(!ram.mark_code(0x8000_1080, 4));
        let bytes = ram.parts_to_write(0x8000_1000, 0x100, &[(1, 3), (0x40, 0x80), (0xff, 0x100)]).unwrap();
        bytes[2] = 1;
        assert!(!ram.has_killed(), "its line is not among them");
        assert_eq!(ram.bytes(0x8000_1001, 3), Ok(&[9, 1, 9][..]));
        ram.snapshot();
        ram.parts_to_write(0x8000_1000, 0x100, &[(0x90, 0x91)]).unwrap()[0x90] = 2;
        assert_eq!(ram.take_killed(), [0x8000_1000]);
        assert_eq!(ram.snapshot().pages[&0x8000_1000][0x90], 2, "it counts as written");
        assert!(ram.parts_to_write(0x8000_1f80, 0x100, &[(0, 1)]).is_err(), "two pages");
        ram.set_read_only(0x8000_1000, 0x1000, true).unwrap();
        assert!(ram.parts_to_write(0x8000_1000, 0x100, &[(0, 1)]).is_err());
        assert_eq!((ram.load(0x8000_1000, 1), ram.bytes(0x8000_3fff, 2)), (Ok(9), Err(NoRam { pa: 0x8000_3fff })));
    }

    #[test]
    fn read_only_pages() {
        let mut ram = ram();
        ram.store(0x8000_1000, 8, 1).unwrap();
        assert!(ram.open_for_stores(0x8000_1000));
        ram.set_read_only(0x8000_1000, 0x1000, true).unwrap();
        assert_eq!(ram.take_closing(), [0x8000_1000], "stores were let through");
        assert!(!ram.open_for_stores(0x8000_1000));
        assert_eq!(ram.store(0x8000_0fff, 2, 0xffff), Err(NoRam { pa: 0x8000_1000 }));
        assert_eq!((ram.load(0x8000_1000, 8), ram.load(0x8000_0fff, 1)), (Ok(1), Ok(0)));
        ram.program(0x8000_1008, &[2]).unwrap();
        let image = ram.snapshot();
        ram.set_read_only(0x8000_1000, 0x1000, false).unwrap();
        ram.store(0x8000_1008, 1, 3).unwrap();
        ram.restore(&image).unwrap();
        assert_eq!(ram.load(0x8000_1008, 1), Ok(2));
        assert!(ram.store(0x8000_1008, 1, 3).is_err() && ram.set_read_only(0x9000_0000, 0x1000, true).is_err());
    }

    #[test]
    fn a_snapshot_restores_and_shares() {
        let mut ram = ram();
        ram.store(0x8000_0000, 8, 1).unwrap();
        ram.store(0x8000_1000, 8, 2).unwrap();
        let one = ram.snapshot();
        ram.store(0x8000_1000, 8, 3).unwrap();
        ram.store(0x8000_2000, 8, 4).unwrap();
        let two = ram.snapshot();
        assert!(Arc::ptr_eq(&one.pages[&0x8000_0000], &two.pages[&0x8000_0000]));
        ram.restore(&one).unwrap();
        assert_eq!((ram.load(0x8000_1000, 8), ram.load(0x8000_2000, 8)), (Ok(2), Ok(0)));
        ram.restore(&two).unwrap();
        assert_eq!((ram.load(0x8000_1000, 8), ram.load(0x8000_2000, 8)), (Ok(3), Ok(4)));
    }

    proptest! {
        #[test]
        fn ram_is_an_array_of_bytes(ops in prop::collection::vec((0u64..0x4008, 1u8..=8, any::<u64>(), any::<bool>()), 1..200)) {
            let mut ram = ram();
            let mut model = vec![0u8; 0x4000];
            for (at, size, value, is_store) in ops {
                let pa = 0x8000_0000 + at;
                let fits = at + u64::from(size) <= 0x4000;
                let range = at as usize..at as usize + usize::from(size);
                if is_store {
                    prop_assert_eq!(ram.store(pa, size, value).is_ok(), fits);
                    if fits { model[range].copy_from_slice(&value.to_le_bytes()[..size.into()]); }
                } else {
                    let mut bytes = [0; 8];
                    if fits { bytes[..size.into()].copy_from_slice(&model[range]); }
                    prop_assert_eq!(ram.load(pa, size).ok(), fits.then(|| u64::from_le_bytes(bytes)));
                }
            }
        }
    }
}
