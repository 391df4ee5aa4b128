//! What is put into RAM before the first instruction, where no firmware does it: a kernel by the protocol that its file
//! names, its initial RAM disk or modules, and how the first processor enters it.
//!
//! ```text
//! 0x0500  GDT                        0x2_0000  command lines
//! 0x6000  start information of PVH   0xe_0000  ACPI tables
//! 0x7000  zero page of Linux         0xf_0000  SMBIOS
//! 0x8000  random seed of Linux      0x10_0000  kernels, and modules behind them
//! 0x9000  page tables                          initial RAM disk: the end of RAM
//! 0xf000  Multiboot's information
//! ```

mod bzimage;
mod elf;
mod entry;
mod multiboot;
mod multiboot2;
mod pvh;
#[cfg(test)]
mod tests;

use emu_core::file::File;
use emu_core::ram::Ram;
use serde::{Deserialize, Serialize};

pub use entry::{Entry, Mode};

use super::memory::Layout;

/// Where the GDT goes.
const GDT: u64 = 0x500;
/// Where PVH's start information goes.
const START_INFO: u64 = 0x6000;
/// Where Linux's zero page goes.
const ZERO_PAGE: u64 = 0x7000;
/// Where Linux's random seed goes.
const RNG_SEED: u64 = 0x8000;
/// Where page tables go: six pages.
const PAGE_TABLES: u64 = 0x9000;
/// Where Multiboot's information goes.
const INFO: u64 = 0xf000;
/// Where command lines go.
const COMMAND_LINES: u64 = 0x2_0000;
/// Where they must have ended.
const COMMAND_LINES_END: u64 = 0x9_0000;
/// Where kernels go that have no place of their own.
const KERNEL: u64 = 0x10_0000;

/// Which of a kernel's entries is taken.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Protocol {
    /// What the file offers: Multiboot 2, Multiboot, PVH, or the entry of an ELF file; the 64-bit entry of a bzImage, or its
    /// 32-bit one.
    #[default]
    Auto,
    /// The 64-bit entry of a bzImage.
    Linux64,
    /// The 32-bit entry of a bzImage.
    Linux32,
    /// The real-mode set-up code of a bzImage, which calls a BIOS that has to be there.
    Linux16,
    /// PVH.
    Pvh,
    /// Multiboot.
    Multiboot,
    /// Multiboot 2.
    Multiboot2,
    /// The entry of an ELF file, in the mode of its class.
    Elf,
    /// The first byte of the file, in a mode of so many bits (16, 32 or 64), at an address.
    Raw {
        /// 16, 32 or 64.
        bits: u8,
        /// Where it goes and starts.
        at: u64,
    },
}

/// A module, and its words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Module {
    /// What it holds.
    pub file: File,
    /// What follows the name in its command line.
    pub arguments: String,
}

/// What is loaded.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Software<'a> {
    /// The kernel.
    pub kernel: Option<&'a File>,
    /// Its initial RAM disk.
    pub initrd: Option<&'a File>,
    /// Modules of Multiboot and PVH.
    pub modules: &'a [Module],
    /// The kernel's command line.
    pub arguments: &'a str,
    /// Which entry is taken.
    pub protocol: Protocol,
    /// Where the RSDP lies.
    pub rsdp: u64,
    /// Random bytes for Linux.
    pub seed: [u8; 32],
}

/// Something cannot be loaded.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// A file is not what it should be.
    #[error("{name}: {found}; expected {expected}")]
    File {
        /// The file.
        name: String,
        /// What it is.
        found: String,
        /// What it should be.
        expected: &'static str,
    },
    /// Something does not fit into RAM.
    #[error("{name}: {size} bytes at {at:#x} do not fit in {memory} MiB of RAM")]
    TooLarge {
        /// What.
        name: String,
        /// Its size in bytes.
        size: u64,
        /// Where it would go.
        at: u64,
        /// RAM in MiB.
        memory: u64,
    },
    /// Two things lie at the same place.
    #[error("{0} and {1} overlap in RAM: give the machine more memory")]
    Overlap(String, String),
    /// An option that this kernel's protocol has no use for.
    #[error("{what}: {why}")]
    Useless {
        /// The option or file.
        what: String,
        /// Why it is of no use.
        why: &'static str,
    },
}

/// RAM being filled, and what has been put where.
pub struct Loader<'a> {
    ram: &'a mut Ram,
    layout: Layout,
    /// Name, first address, first address after it.
    taken: Vec<(String, u64, u64)>,
    next_line: u64,
}

impl<'a> Loader<'a> {
    /// Fills this RAM.
    pub fn new(ram: &'a mut Ram, layout: Layout) -> Self {
        Loader { ram, layout, taken: Vec::new(), next_line: COMMAND_LINES }
    }

    /// Claims a range, which has to be RAM, and nothing else's.
    fn claim(&mut self, name: &str, at: u64, size: u64) -> Result<(), LoadError> {
        let end = at.saturating_add(size);
        if !self.ram.contains(at, size) {
            let memory = (self.layout.low_end + self.layout.high()) >> 20;
            return Err(LoadError::TooLarge { name: name.into(), size, at, memory });
        }
        if let Some((other, ..)) = self.taken.iter().find(|(n, a, b)| *a < end && at < *b && n != name) {
            return Err(LoadError::Overlap(name.into(), other.clone()));
        }
        self.taken.push((name.into(), at, end));
        Ok(())
    }

    /// Puts bytes at an address.
    pub fn put(&mut self, name: &str, at: u64, bytes: &[u8]) -> Result<(), LoadError> {
        self.claim(name, at, bytes.len() as u64)?;
        self.ram.write(at, bytes).expect("it was checked to be RAM");
        Ok(())
    }

    /// What has been loaded: first address and size in bytes of each range.
    pub fn loaded(&self) -> Vec<(u64, u64)> {
        let ranges = self.taken.iter().map(|(_, at, end)| (*at, end - at));
        let mut ranges: Vec<_> = ranges.collect();
        // Of those that begin alike the longest is first.
        ranges.sort_by_key(|(at, size)| (*at, std::cmp::Reverse(*size)));
        ranges.dedup_by(|b, a| b.0 + b.1 <= a.0 + a.1);
        ranges
    }

    /// Puts text with a zero behind it where command lines are; returns its address.
    fn put_line(&mut self, text: &str) -> Result<u64, LoadError> {
        let at = self.next_line;
        let bytes = [text.as_bytes(), &[0]].concat();
        if at + bytes.len() as u64 > COMMAND_LINES_END {
            let found = format!("it has {} bytes", text.len());
            return Err(LoadError::File {
                name: "the command line".into(),
                found,
                expected: "fewer than 458752 in all",
            });
        }
        self.put(&format!("the command line at {at:#x}"), at, &bytes)?;
        self.next_line = (at + bytes.len() as u64).next_multiple_of(16);
        Ok(at)
    }

    /// Puts a file at the end of RAM below `limit`, in whole pages; returns its address.
    fn put_high(&mut self, file: &File, limit: u64) -> Result<u64, LoadError> {
        if file.bytes.is_empty() {
            return Err(LoadError::File {
                name: file.name.clone(),
                found: "it is empty".into(),
                expected: "an initial RAM disk",
            });
        }
        let size = file.bytes.len() as u64;
        let at = self.layout.low_end.min(limit).saturating_sub(size) & !0xfff;
        self.put(&file.name, at, &file.bytes)?;
        Ok(at)
    }

    /// Puts a file behind everything that lies above 1 MiB, in whole pages; returns its address.
    fn put_behind(&mut self, file: &File) -> Result<u64, LoadError> {
        let end = self.taken.iter().map(|(.., end)| *end).filter(|e| *e <= self.layout.low_end).max();
        let at = end.unwrap_or(0).max(KERNEL).next_multiple_of(0x1000);
        self.put(&file.name, at, &file.bytes)?;
        Ok(at)
    }

    /// Loads a kernel with all that belongs to it.
    pub fn load(&mut self, software: &Software) -> Result<Entry, LoadError> {
        let kernel = software.kernel.expect("there is something to load");
        if kernel.bytes.is_empty() {
            return Err(not_a_kernel(kernel, "it is empty"));
        }
        if let Protocol::Raw { bits, at } = software.protocol {
            self.put(&kernel.name, at, &kernel.bytes)?;
            return self.enter_raw(bits, at);
        }
        let has = |protocol| [protocol, Protocol::Auto].contains(&software.protocol);
        let bytes = &kernel.bytes;
        if bytes.get(0x202..0x206) == Some(b"HdrS") {
            return self.load_bzimage(software, kernel);
        }
        if let Some(header) = multiboot2::find(bytes).filter(|_| has(Protocol::Multiboot2)) {
            return self.load_multiboot2(software, kernel, &header);
        }
        if let Some(header) = multiboot::find(bytes).filter(|_| has(Protocol::Multiboot)) {
            return self.load_multiboot(software, kernel, &header);
        }
        if bytes.starts_with(b"\x7fELF") {
            let elf = elf::Elf::parse(kernel)?;
            match elf.pvh_entry() {
                Some(entry) if has(Protocol::Pvh) => return self.load_pvh(software, kernel, &elf, entry),
                _ if has(Protocol::Elf) => return self.load_plain_elf(software, kernel, &elf),
                _ => {}
            }
        }
        if software.protocol != Protocol::Auto {
            return Err(not_a_kernel(kernel, &format!("it has no entry for {:?}", software.protocol)));
        }
        if bytes.starts_with(&[0x1f, 0x8b]) {
            return Err(not_a_kernel(kernel, "it is compressed"));
        }
        Err(not_a_kernel(kernel, "none of these"))
    }

    /// A plain ELF file: no words and no modules reach it.
    fn load_plain_elf(&mut self, software: &Software, kernel: &File, elf: &elf::Elf) -> Result<Entry, LoadError> {
        refuse(software.initrd.is_some(), "--initrd", "a plain ELF file gets none")?;
        refuse(!software.modules.is_empty(), "--module", "a plain ELF file gets none")?;
        self.put_segments(kernel, elf)?;
        self.enter_raw(if elf.is_64() { 64 } else { 32 }, elf.physical_entry())
    }

    fn enter_raw(&mut self, bits: u8, at: u64) -> Result<Entry, LoadError> {
        match bits {
            16 => Ok(Entry::real((at >> 4) as u16, (at & 0xf) as u16)),
            32 => self.enter_32(at, entry::code_32()),
            _ => self.enter_64(at),
        }
    }
}

fn refuse(is_given: bool, what: &str, why: &'static str) -> Result<(), LoadError> {
    if is_given { Err(LoadError::Useless { what: what.into(), why }) } else { Ok(()) }
}

fn not_a_kernel(file: &File, found: &str) -> LoadError {
    let expected = "a Linux bzImage, or an x86 ELF file with or without a Multiboot header or PVH note";
    LoadError::File { name: file.name.clone(), found: found.into(), expected }
}

/// The number of `size` bytes (1 to 8) at an offset of a file.
fn number(bytes: &[u8], at: usize, size: usize) -> Option<u64> {
    let bytes = bytes.get(at..at.checked_add(size)?)?;
    Some(bytes.iter().rev().fold(0, |n, b| n << 8 | u64::from(*b)))
}
