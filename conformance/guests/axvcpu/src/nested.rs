//! EPT and nested page tables for `axaddrspace`, which asks for whatever has four levels, and pages of 4 KiB and 2 MiB.

use core::cell::Cell;

use ax_memory_addr::{MemoryAddr, PhysAddr, VirtAddr};
use axaddrspace::{AddrSpaceError, AddrSpaceResult, MappingFlags, NestedPageTableOps, PageSize};
use axvm_types::GuestPhysAddr;
use x86_vcpu::{X86NestedPagingFormat, X86VcpuError};

use crate::memory::{self, PAGE};

/// What the formats have in common: read, write, execute, or present, writable, user.
const ALL: u64 = 7;
const WRITE: u64 = 2;
const LARGE: u64 = 1 << 7;
const ADDRESS: u64 = 0x000f_ffff_ffff_f000;

/// What they have not.
struct Format {
    /// The memory type of a page: write-back.
    write_back: u64,
    /// A bit that is changed where nothing may be fetched.
    no_execute: u64,
}

const EPT: Format = Format { write_back: 6 << 3, no_execute: 4 };
const NPT: Format = Format { write_back: 0, no_execute: 1 << 63 };

/// Second-stage tables.
pub struct Tables {
    root: usize,
    format: Format,
}

impl Tables {
    /// With nothing mapped.
    pub fn new() -> Result<Self, X86VcpuError> {
        let format = match x86_vcpu::selected_nested_paging_format()? {
            X86NestedPagingFormat::Ept => EPT,
            X86NestedPagingFormat::Npt => NPT,
        };
        Ok(Tables { root: memory::zeroed_frame().ok_or(X86VcpuError::NoMemory)?, format })
    }

    /// The entry of a page of this size, in a table that is there, or made.
    fn entry(&self, guest: usize, size: PageSize, makes: bool) -> Option<&Cell<u64>> {
        let mut table = self.root;
        for shift in [39, 30, 21, 12] {
            // SAFETY: tables are frames that are made here, and nobody else's.
            let entry = unsafe { &*(table as *const Cell<u64>).add(guest >> shift & 0x1ff) };
            if 1 << shift == size as usize {
                return Some(entry);
            }
            if entry.get() == 0 && makes {
                entry.set(memory::zeroed_frame()? as u64 | ALL);
            }
            if entry.get() == 0 || entry.get() & LARGE != 0 {
                return None;
            }
            table = (entry.get() & ADDRESS) as usize;
        }
        None
    }

    /// The entry that maps an address, and the size of its page.
    fn leaf(&self, guest: GuestPhysAddr) -> AddrSpaceResult<(&Cell<u64>, PageSize)> {
        for (size, large) in [(PageSize::Size2M, LARGE), (PageSize::Size4K, 0)] {
            match self.entry(guest.as_usize(), size, false) {
                Some(entry) if entry.get() != 0 && entry.get() & LARGE == large => return Ok((entry, size)),
                _ => {}
            }
        }
        Err(AddrSpaceError::Unmapped { address: guest })
    }

    fn bits(&self, flags: MappingFlags, size: PageSize) -> u64 {
        let mut bits = ALL | self.format.write_back;
        if !flags.contains(MappingFlags::WRITE) {
            bits &= !WRITE;
        }
        if !flags.contains(MappingFlags::EXECUTE) {
            bits ^= self.format.no_execute;
        }
        if size.is_huge() { bits | LARGE } else { bits }
    }

    fn flags(&self, entry: u64) -> MappingFlags {
        let mut flags = MappingFlags::READ;
        flags.set(MappingFlags::WRITE, entry & WRITE != 0);
        flags.set(MappingFlags::EXECUTE, (entry ^ ALL) & self.format.no_execute == 0);
        flags
    }
}

impl NestedPageTableOps for Tables {
    fn root_paddr(&self) -> PhysAddr {
        self.root.into()
    }

    fn levels(&self) -> usize {
        4
    }

    /// Frames that are full of RET.
    fn alloc_frame(&self) -> Option<PhysAddr> {
        let frame = memory::frame()?;
        // SAFETY: it is nobody else's.
        unsafe { core::ptr::write_bytes(frame as *mut u8, 0xc3, PAGE) };
        Some(frame.into())
    }

    fn dealloc_frame(&self, frame: PhysAddr) {
        memory::free_frame(frame.as_usize());
    }

    fn phys_to_virt(&self, at: PhysAddr) -> VirtAddr {
        at.as_usize().into()
    }

    fn map(&mut self, guest: GuestPhysAddr, host: PhysAddr, size: PageSize, flags: MappingFlags) -> AddrSpaceResult {
        let bits = host.as_usize() as u64 | self.bits(flags, size);
        let entry = self.entry(guest.as_usize(), size, true).ok_or(AddrSpaceError::InvalidMapping)?;
        if entry.get() != 0 {
            return Err(AddrSpaceError::MappingConflict);
        }
        entry.set(bits);
        Ok(())
    }

    fn unmap(&mut self, guest: GuestPhysAddr) -> AddrSpaceResult<(PhysAddr, MappingFlags, PageSize)> {
        let was = self.query(guest)?;
        self.leaf(guest)?.0.set(0);
        Ok(was)
    }

    fn map_linear(
        &mut self,
        guest: GuestPhysAddr,
        host: PhysAddr,
        size: usize,
        flags: MappingFlags,
        allow_huge: bool,
    ) -> AddrSpaceResult {
        let mut at = 0;
        while at < size {
            let large = PageSize::Size2M as usize;
            let is_aligned = (guest + at).is_aligned(large) && (host + at).is_aligned(large);
            let fits = is_aligned && size - at >= large;
            let page = if allow_huge && fits { PageSize::Size2M } else { PageSize::Size4K };
            self.map(guest + at, host + at, page, flags)?;
            at += page as usize;
        }
        Ok(())
    }

    fn unmap_region(&mut self, start: GuestPhysAddr, size: usize) -> AddrSpaceResult {
        let mut at = 0;
        while at < size {
            at += self.unmap(start + at)?.2 as usize;
        }
        Ok(())
    }

    fn remap(&mut self, start: GuestPhysAddr, host: PhysAddr, flags: MappingFlags) -> bool {
        let page = GuestPhysAddr::from(start.as_usize() & !(PAGE - 1));
        let _ = self.unmap(page);
        self.map(page, host, PageSize::Size4K, flags).is_ok()
    }

    fn protect_region(&mut self, start: GuestPhysAddr, size: usize, flags: MappingFlags) -> bool {
        let mut at = 0;
        while at < size {
            let Ok((host, _, page)) = self.unmap(start + at) else { return false };
            if self.map(start + at, host, page, flags).is_err() {
                return false;
            }
            at += page as usize;
        }
        true
    }

    fn query(&self, guest: GuestPhysAddr) -> AddrSpaceResult<(PhysAddr, MappingFlags, PageSize)> {
        let (entry, size) = self.leaf(guest)?;
        let page = entry.get() & ADDRESS & !(size as u64 - 1);
        Ok(((page as usize + guest.as_usize() % size as usize).into(), self.flags(entry.get()), size))
    }
}
