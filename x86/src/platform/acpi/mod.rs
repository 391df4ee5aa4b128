//! ACPI tables of the board ("Advanced Configuration and Power Interface Specification 6.5", chapter 5, "ACPI Software
//! Programming Model"). They are made once, as tables with pointers to each other, and go to the guest in one of two ways:
//! linked at an address, or as fw_cfg files with a script by which firmware links them (docs/specs/acpi of QEMU; `loader`).

mod dmar;
mod dsdt;
mod fixed;
mod nodes;
mod script;
#[cfg(test)]
mod tests;

pub use dsdt::PIRQ_IRQS;
use serde::{Deserialize, Serialize};

use super::board::{ECAM, Transport};
use super::fw_cfg::File;
use super::memory::Layout;
use super::pci::chipset::Chipset;
use super::vtd::VtdConfig;

/// What the tables tell about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Firmware {
    /// First port of power management.
    pub pm_base: u16,
    /// Base of the enhanced configuration space.
    pub ecam: u64,
}

impl Default for Firmware {
    /// As SeaBIOS has it, and as it is without firmware.
    fn default() -> Self {
        Firmware { pm_base: 0x600, ecam: ECAM }
    }
}

/// A board, as far as tables tell about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Described {
    /// The chipset.
    pub chipset: Chipset,
    /// Number of processors; their local APIC IDs count from 0.
    pub vcpus: u32,
    /// Where RAM lies.
    pub layout: Layout,
    /// NUMA nodes that RAM and processors are divided into, if that is told.
    pub nodes: Option<u32>,
    /// The DMA remapping unit, if there is one.
    pub iommu: Option<VtdConfig>,
    /// Number of virtio devices, and how they are reached.
    pub virtio: (usize, Transport),
    /// What firmware chooses.
    pub firmware: Firmware,
}

const OEM: [u8; 6] = *b"UNDVSR";
const OEM_TABLE: [u8; 8] = *b"UNDVSRPC";
const OEM_REVISION: u32 = 1;

/// Offsets in "System Description Table Header".
mod header {
    pub const CHECKSUM: usize = 9;
    pub const SIZE: usize = 36;
}

/// A pointer in a table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Pointer {
    /// Where it stands.
    at: usize,
    /// Its size in bytes: 4 or 8.
    size: usize,
    /// The index of the table that it leads to.
    to: usize,
}

/// A table whose pointers are still 0.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Table {
    bytes: Vec<u8>,
    pointers: Vec<Pointer>,
    /// Offset of its checksum; the FACS has none.
    checksum: Option<usize>,
}

impl Table {
    fn new(bytes: Vec<u8>) -> Self {
        Table { bytes, pointers: Vec::new(), checksum: Some(header::CHECKSUM) }
    }
}

/// All tables: those of one block, then the RSDP.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tables {
    tables: Vec<Table>,
    rsdp: Table,
    enable: [u8; 2],
}

/// Alignment of each table in bytes: the FACS needs it.
const ALIGNMENT: usize = 64;
/// Offset and length of the RSDP's second checksum, which covers all of it; the first covers 20 bytes.
const EXTENDED_CHECKSUM: (usize, usize) = (32, 36);
const RSDP_FIRST: usize = 20;

/// What makes all bytes add up to 0.
fn checksum(bytes: &[u8]) -> u8 {
    bytes.iter().fold(0u8, |sum, b| sum.wrapping_sub(*b))
}

impl Tables {
    /// The tables of a board.
    pub fn new(board: &Described) -> Self {
        const FACS: usize = 0;
        const DSDT: usize = 1;
        const FADT: usize = 2;
        let mut tables = vec![fixed::facs(), Table::new(dsdt::dsdt(board)), fixed::fadt(board, FACS, DSDT)];
        tables.push(Table::new(fixed::madt(board)));
        tables.push(Table::new(fixed::hpet()));
        if board.chipset == Chipset::Q35 {
            tables.push(Table::new(fixed::mcfg(board)));
        }
        if let Some(count) = board.nodes {
            tables.push(Table::new(nodes::srat(board, count)));
            tables.push(Table::new(nodes::slit(count)));
        }
        if board.iommu.is_some() {
            tables.push(Table::new(dmar::dmar(board)));
        }
        let roots: Vec<usize> = (FADT..tables.len()).collect();
        let rsdt = tables.len();
        for (signature, size) in [(b"RSDT", 4), (b"XSDT", 8)] {
            tables.push(fixed::root(signature, size, &roots));
        }
        let commands = fixed::pm(board.chipset).acpi_commands;
        Tables { tables, rsdp: fixed::rsdp(rsdt, rsdt + 1), enable: [commands.0, commands.1] }
    }

    /// Offset of each table in the block, and the block's size in bytes.
    fn offsets(&self) -> (Vec<usize>, usize) {
        let mut end = 0;
        let offsets = self.tables.iter().map(|t| {
            let at = end;
            end = (at + t.bytes.len()).next_multiple_of(ALIGNMENT);
            at
        });
        let offsets = offsets.collect();
        (offsets, end)
    }

    /// The block with all pointers as they are when it lies at `base`, and the RSDP. `base` is a multiple of 64.
    pub fn linked(&self, base: u64) -> (Vec<u8>, Vec<u8>) {
        let (offsets, size) = self.offsets();
        let link = |table: &Table| {
            let mut bytes = table.bytes.clone();
            for p in &table.pointers {
                let target = base + offsets[p.to] as u64;
                bytes[p.at..p.at + p.size].copy_from_slice(&target.to_le_bytes()[..p.size]);
            }
            bytes
        };
        let mut block = vec![0; size];
        for (table, at) in self.tables.iter().zip(&offsets) {
            let mut bytes = link(table);
            if let Some(place) = table.checksum {
                bytes[place] = 0;
                bytes[place] = checksum(&bytes);
            }
            block[*at..at + bytes.len()].copy_from_slice(&bytes);
        }
        let mut rsdp = link(&self.rsdp);
        let (extended, len) = EXTENDED_CHECKSUM;
        (rsdp[8], rsdp[extended]) = (0, 0);
        rsdp[8] = checksum(&rsdp[..RSDP_FIRST]);
        rsdp[extended] = checksum(&rsdp[..len]);
        (block, rsdp)
    }

    /// Where the FACS's waking vector is when the block lies at `base`.
    pub fn waking_vector(&self, base: u64) -> u64 {
        const FIRMWARE_WAKING_VECTOR: u64 = 12;
        base + FIRMWARE_WAKING_VECTOR // the FACS comes first
    }

    /// The files from which firmware makes the tables.
    pub fn files(&self) -> Vec<File> {
        script::files(self)
    }

    /// FADT, ACPI_ENABLE and ACPI_DISABLE.
    pub fn commands(&self) -> [u8; 2] {
        self.enable
    }
}
