//! EPT and nested page tables, which agree in all that is used of them: four levels, and the lowest three bits give every right.

use x86_vcpu::{X86NestedPagingFormat, X86VcpuError};

use crate::memory::zeroed_frame;

const ALL: u64 = 7;
const ADDRESS: u64 = 0x000f_ffff_ffff_f000;
/// EPT's memory type of a page: write-back.
const WRITE_BACK: u64 = 6 << 3;

/// Second-stage tables.
pub struct Tables {
    /// Where the first one is.
    pub root: usize,
    of_page: u64,
}

impl Tables {
    /// With nothing mapped.
    pub fn new() -> Result<Self, X86VcpuError> {
        let of_page = match x86_vcpu::selected_nested_paging_format()? {
            X86NestedPagingFormat::Ept => ALL | WRITE_BACK,
            X86NestedPagingFormat::Npt => ALL,
        };
        Ok(Tables { root: zeroed_frame().ok_or(X86VcpuError::NoMemory)?, of_page })
    }

    /// Maps a page of 4 KiB.
    pub fn map(&mut self, guest: usize, host: usize) -> Result<(), X86VcpuError> {
        let mut table = self.root;
        for shift in [39, 30, 21] {
            let entry = entry(table, guest >> shift);
            // SAFETY: tables are made here alone.
            unsafe {
                if *entry == 0 {
                    *entry = zeroed_frame().ok_or(X86VcpuError::NoMemory)? as u64 | ALL;
                }
                table = (*entry & ADDRESS) as usize;
            }
        }
        // SAFETY: as above.
        unsafe { *entry(table, guest >> 12) = host as u64 | self.of_page };
        Ok(())
    }
}

fn entry(table: usize, index: usize) -> *mut u64 {
    (table as *mut u64).wrapping_add(index & 0x1ff)
}
