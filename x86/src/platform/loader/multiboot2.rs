//! "Multiboot2 Specification", version 2.0.

use emu_core::file::File;

use super::entry::{Entry, code_32};
use super::multiboot::{LOADER_NAME, with_name};
use super::{INFO, LoadError, Loader, Software, elf, not_a_kernel, number};
use crate::platform::memory::{BASE_END, SHADOW_END};
use crate::registers::{RAX, RBX};

const HEADER_MAGIC: u64 = 0xe852_50d6;
const LOADER_MAGIC: u64 = 0x36d7_6289;
/// Architecture: 32-bit protected mode of i386.
const I386: u64 = 0;

/// "Header tags".
mod header_tag {
    pub const END: u64 = 0;
    pub const ADDRESS: u64 = 2;
    pub const ENTRY: u64 = 3;
    /// A kernel that can do without does not know us.
    pub const OPTIONAL: u64 = 1;
}

/// "Boot information", its tags.
mod tag {
    pub const END: u32 = 0;
    pub const COMMAND_LINE: u32 = 1;
    pub const LOADER_NAME: u32 = 2;
    pub const MODULE: u32 = 3;
    pub const MEMORY: u32 = 4;
    pub const MEMORY_MAP: u32 = 6;
    pub const RSDP_2: u32 = 15;
}

/// "Multiboot2 header", as far as we heed it.
pub(super) struct Header {
    entry: Option<u64>,
    /// It wants to be loaded by addresses, not as an ELF file.
    has_addresses: bool,
}

/// Looks for a header in the first 32768 bytes.
pub(super) fn find(bytes: &[u8]) -> Option<Header> {
    let at = (0..32768 - 16).step_by(8).find(|at| {
        let word = |i| number(bytes, at + i, 4);
        let sum = [0, 4, 8, 12].iter().try_fold(0u64, |sum, i| Some(sum + word(*i)?));
        word(0) == Some(HEADER_MAGIC) && word(4) == Some(I386) && sum.is_some_and(|s| s as u32 == 0)
    })?;
    let end = at + number(bytes, at + 8, 4)? as usize;
    let mut header = Header { entry: None, has_addresses: false };
    let mut place = at + 16;
    while place < end {
        let (kind, flags, size) =
            (number(bytes, place, 2)?, number(bytes, place + 2, 2)?, number(bytes, place + 4, 4)?);
        match kind {
            header_tag::END => break,
            header_tag::ADDRESS => header.has_addresses = flags & header_tag::OPTIONAL == 0,
            header_tag::ENTRY => header.entry = number(bytes, place + 8, 4),
            _ => {}
        }
        place += (size as usize).max(8).next_multiple_of(8);
    }
    Some(header)
}

/// Boot information being written.
struct Info(Vec<u8>);

impl Info {
    fn tag(&mut self, kind: u32, parts: &[&[u8]]) {
        let size = 8 + parts.iter().map(|p| p.len()).sum::<usize>();
        self.0.extend(kind.to_le_bytes());
        self.0.extend((size as u32).to_le_bytes());
        parts.iter().for_each(|p| self.0.extend(*p));
        self.0.resize(self.0.len().next_multiple_of(8), 0);
    }

    fn text(&mut self, kind: u32, before: &[u8], text: &str) {
        self.tag(kind, &[before, text.as_bytes(), &[0]]);
    }
}

impl Loader<'_> {
    pub(super) fn load_multiboot2(
        &mut self,
        software: &Software,
        kernel: &File,
        header: &Header,
    ) -> Result<Entry, LoadError> {
        if header.has_addresses {
            return Err(not_a_kernel(kernel, "a Multiboot 2 header with addresses, which are not supported"));
        }
        let elf = elf::Elf::parse(kernel)?;
        self.put_segments(kernel, &elf)?;
        let mut info = Info(vec![0; 8]);
        info.text(tag::COMMAND_LINE, &[], &with_name(&kernel.name, software.arguments));
        info.text(tag::LOADER_NAME, &[], LOADER_NAME);
        for (start, end, line) in self.put_modules(software)? {
            let mut text = vec![0; 0x1000];
            self.ram.read(line, &mut text).expect("it was put there");
            let text: Vec<u8> = text.into_iter().take_while(|b| *b != 0).collect();
            let range = [start as u32, end as u32].map(u32::to_le_bytes).concat();
            info.tag(tag::MODULE, &[&range, &text, &[0]]);
        }
        let sizes = [BASE_END >> 10, (self.layout.low_end - SHADOW_END) >> 10].map(|w| (w as u32).to_le_bytes());
        info.tag(tag::MEMORY, &[&sizes[0], &sizes[1]]);
        let entries = self.layout.e820().into_iter().flat_map(|(base, size, kind)| {
            [base.to_le_bytes(), size.to_le_bytes(), u64::from(kind).to_le_bytes()].concat()
        });
        let entries: Vec<u8> = entries.collect();
        info.tag(tag::MEMORY_MAP, &[&24u32.to_le_bytes(), &0u32.to_le_bytes(), &entries]);
        let mut rsdp = [0; 36];
        if self.ram.read(software.rsdp, &mut rsdp).is_ok() {
            info.tag(tag::RSDP_2, &[&rsdp]);
        }
        info.tag(tag::END, &[]);
        let size = info.0.len() as u32;
        info.0[..4].copy_from_slice(&size.to_le_bytes());
        self.put("Multiboot's information", INFO, &info.0)?;
        let entry = header.entry.unwrap_or(elf.physical_entry());
        Ok(self.enter_32(entry, code_32())?.with(&[(RAX, LOADER_MAGIC), (RBX, INFO)]).after_bios())
    }
}
