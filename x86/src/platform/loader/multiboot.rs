//! "Multiboot Specification", version 0.6.96.

use emu_core::file::File;

use super::entry::{Entry, code_32};
use super::{INFO, LoadError, Loader, Software, elf, not_a_kernel, number, refuse};
use crate::platform::memory::{BASE_END, SHADOW_END};
use crate::registers::{RAX, RBX};

const HEADER_MAGIC: u64 = 0x1bad_b002;
const LOADER_MAGIC: u64 = 0x2bad_b002;
/// "Header magic fields": bit 16, the address fields are valid.
const HAS_ADDRESSES: u64 = 1 << 16;
/// What a kernel may require of us: modules in whole pages, and memory information.
const UNDERSTOOD: u64 = 3 | 0xffff_0000;
/// "Boot information format": memory, boot device no, command line, modules, memory map, loader name.
const INFO_FLAGS: u32 = 1 | 1 << 2 | 1 << 3 | 1 << 6 | 1 << 9;
const INFO_SIZE: u64 = 116;
const MODULE_SIZE: u64 = 16;
/// Who says all this.
pub(super) const LOADER_NAME: &str = "undervisor";

/// "Multiboot header": offset in the file, flags.
pub(super) struct Header {
    at: usize,
    flags: u64,
}

/// Looks for a header in the first 8192 bytes.
pub(super) fn find(bytes: &[u8]) -> Option<Header> {
    (0..8192 - 12).step_by(4).find_map(|at| {
        let word = |i| number(bytes, at + i, 4);
        let (magic, flags, sum) = (word(0)?, word(4)?, word(8)?);
        let is_one = magic == HEADER_MAGIC && (magic + flags + sum) as u32 == 0;
        is_one.then_some(Header { at, flags })
    })
}

impl Loader<'_> {
    pub(super) fn load_multiboot(
        &mut self,
        software: &Software,
        kernel: &File,
        header: &Header,
    ) -> Result<Entry, LoadError> {
        if header.flags & 0xffff & !UNDERSTOOD != 0 {
            let found = format!("a Multiboot header that requires what there is not (flags {:#x})", header.flags);
            return Err(not_a_kernel(kernel, &found));
        }
        let entry = if header.flags & HAS_ADDRESSES != 0 {
            self.put_by_addresses(kernel, header)?
        } else {
            let elf = elf::Elf::parse(kernel)?;
            self.put_segments(kernel, &elf)?;
            elf.physical_entry()
        };
        let modules = self.put_modules(software)?;
        let line = self.put_line(&with_name(&kernel.name, software.arguments))?;
        let name = self.put_line(LOADER_NAME)?;
        let map = self.layout.e820();
        let modules_at = INFO + INFO_SIZE;
        let map_at = modules_at + MODULE_SIZE * modules.len() as u64;

        let mut info = vec![0; INFO_SIZE as usize];
        let mut set = |at: usize, value: u64| info[at..at + 4].copy_from_slice(&(value as u32).to_le_bytes());
        set(0, INFO_FLAGS.into());
        set(4, BASE_END >> 10);
        set(8, (self.layout.low_end - SHADOW_END) >> 10);
        set(16, line);
        set(20, modules.len() as u64);
        set(24, modules_at);
        set(44, 24 * map.len() as u64);
        set(48, map_at);
        set(64, name);
        for (start, end, line) in modules {
            [start, end, line, 0].iter().for_each(|w| info.extend((*w as u32).to_le_bytes()));
        }
        for (base, size, kind) in map {
            info.extend(20u32.to_le_bytes());
            [base, size].iter().for_each(|w| info.extend(w.to_le_bytes()));
            info.extend(kind.to_le_bytes());
        }
        self.put("Multiboot's information", INFO, &info)?;
        Ok(self.enter_32(entry, code_32())?.with(&[(RAX, LOADER_MAGIC), (RBX, INFO)]).after_bios())
    }

    /// "The address fields of Multiboot header".
    fn put_by_addresses(&mut self, kernel: &File, header: &Header) -> Result<u64, LoadError> {
        let broken = || not_a_kernel(kernel, "a Multiboot header with addresses that make no sense");
        let word = |i| number(&kernel.bytes, header.at + i, 4).ok_or_else(broken);
        let (header_address, load, load_end, bss_end, entry) = (word(12)?, word(16)?, word(20)?, word(24)?, word(28)?);
        let skipped = header_address.checked_sub(load).ok_or_else(broken)?;
        let offset = (header.at as u64).checked_sub(skipped).ok_or_else(broken)?;
        let data = &kernel.bytes[offset as usize..];
        let size = if load_end == 0 { data.len() as u64 } else { load_end.checked_sub(load).ok_or_else(broken)? };
        let data = data.get(..size as usize).ok_or_else(broken)?;
        self.claim(&kernel.name, load, size.max(bss_end.saturating_sub(load)))?;
        self.put(&kernel.name, load, data)?;
        Ok(entry)
    }

    /// Modules behind the kernel, in whole pages: start, end and command line of each. An initial RAM disk is one of them.
    pub(super) fn put_modules(&mut self, software: &Software) -> Result<Vec<(u64, u64, u64)>, LoadError> {
        let both = software.initrd.is_some() && !software.modules.is_empty();
        refuse(both, "--initrd", "it would be one more module: give all with --module")?;
        let initrd = software.initrd.map(|file| (file, ""));
        let modules = software.modules.iter().map(|m| (&m.file, m.arguments.as_str()));
        let mut placed = Vec::new();
        for (file, arguments) in initrd.into_iter().chain(modules) {
            let line = self.put_line(&with_name(&file.name, arguments))?;
            let at = self.put_behind(file)?;
            placed.push((at, at + file.bytes.len() as u64, line));
        }
        Ok(placed)
    }
}

/// Command lines begin with the file's name.
pub(super) fn with_name(file: &str, arguments: &str) -> String {
    let name = file.rsplit('/').next().unwrap_or(file);
    if arguments.is_empty() { name.into() } else { format!("{name} {arguments}") }
}
