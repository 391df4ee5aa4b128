//! ELF files ("Tool Interface Standard, Executable and Linking Format"; "ELF-64 Object File Format").

use emu_core::file::File;
use object::elf::{EM_386, EM_X86_64, FileHeader32, FileHeader64, PT_LOAD, PT_NOTE};
use object::read::elf::{FileHeader, ProgramHeader};
use object::{Endianness, Object, elf};

use super::{LoadError, Loader, not_a_kernel, number};

/// A segment to be loaded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Segment {
    offset: u64,
    virtual_address: u64,
    /// Where it goes.
    pub physical: u64,
    file_size: u64,
    /// Bytes in memory.
    pub size: u64,
}

/// A file for this architecture.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Elf {
    machine: u16,
    is_64: bool,
    entry: u64,
    /// What is loaded.
    pub segments: Vec<Segment>,
    /// Offset and size in bytes of the notes.
    notes: Vec<(u64, u64)>,
    pvh_entry: Option<u64>,
}

/// Reads what the headers say.
fn read<H: FileHeader<Endian = Endianness>>(bytes: &[u8], is_64: bool) -> Option<Elf> {
    let header = H::parse(bytes).ok()?;
    let e = header.endian().ok()?;
    let headers = header.program_headers(e, bytes).ok()?;
    let of_kind = |kind| headers.iter().filter(move |p| p.p_type(e) == kind);
    let segments = of_kind(PT_LOAD).map(|p| Segment {
        offset: p.p_offset(e).into(),
        virtual_address: p.p_vaddr(e).into(),
        physical: p.p_paddr(e).into(),
        file_size: p.p_filesz(e).into(),
        size: p.p_memsz(e).into().max(p.p_filesz(e).into()),
    });
    let notes = of_kind(PT_NOTE).map(|p| (p.p_offset(e).into(), p.p_filesz(e).into()));
    Some(Elf {
        machine: header.e_machine(e).0,
        is_64,
        entry: header.e_entry(e).into(),
        segments: segments.filter(|s| s.size != 0).collect(),
        notes: notes.collect(),
        pvh_entry: None,
    })
}

impl Elf {
    /// The file, if it is for an x86 processor.
    pub fn parse(file: &File) -> Result<Self, LoadError> {
        let bytes = &*file.bytes;
        let is_64 = bytes.get(4) == Some(&elf::ELFCLASS64.0);
        let parsed = if is_64 {
            read::<FileHeader64<Endianness>>(bytes, true)
        } else {
            read::<FileHeader32<Endianness>>(bytes, false)
        };
        let mut elf = parsed.ok_or_else(|| not_a_kernel(file, "a broken ELF file"))?;
        if ![EM_386.0, EM_X86_64.0].contains(&elf.machine) {
            let architecture = object::File::parse(bytes).map(|f| f.architecture());
            let architecture = architecture.map_or("another machine".into(), |a| format!("{a:?}"));
            return Err(not_a_kernel(file, &format!("an ELF file for {architecture}")));
        }
        if elf.segments.is_empty() {
            return Err(not_a_kernel(file, "an ELF file with nothing to load"));
        }
        elf.pvh_entry = elf.notes.iter().find_map(|(at, size)| pvh_note(bytes, *at, *size));
        Ok(elf)
    }

    /// Whether it is of the 64-bit class.
    pub fn is_64(&self) -> bool {
        self.is_64
    }

    /// XEN_ELFNOTE_PHYS32_ENTRY: where PVH enters.
    pub fn pvh_entry(&self) -> Option<u64> {
        self.pvh_entry
    }

    /// The entry as a physical address: the file has it as a virtual one.
    pub fn physical_entry(&self) -> u64 {
        let holds = |s: &&Segment| self.entry.wrapping_sub(s.virtual_address) < s.size;
        self.segments.iter().find(holds).map_or(self.entry, |s| self.entry - s.virtual_address + s.physical)
    }
}

/// The value of XEN_ELFNOTE_PHYS32_ENTRY in a note segment ("Xen public headers, elfnote.h").
fn pvh_note(bytes: &[u8], at: u64, size: u64) -> Option<u64> {
    const PHYS32_ENTRY: u64 = 18;
    let mut rest = bytes.get(at as usize..)?.get(..size as usize)?;
    loop {
        let [name_size, value_size, kind] = [0, 4, 8].map(|i| number(rest, i, 4));
        let (name_size, value_size) = (name_size? as usize, value_size? as usize);
        let value_at = 12 + name_size.next_multiple_of(4);
        let value = rest.get(value_at..value_at.checked_add(value_size)?)?;
        if kind? == PHYS32_ENTRY && rest.get(12..12 + name_size)? == b"Xen\0" && [4, 8].contains(&value_size) {
            return number(value, 0, value_size);
        }
        rest = rest.get(value_at + value_size.next_multiple_of(4)..)?;
    }
}

impl Loader<'_> {
    /// Loads the segments at their physical addresses.
    pub(super) fn put_segments(&mut self, file: &File, elf: &Elf) -> Result<(), LoadError> {
        for s in &elf.segments {
            let data = file.bytes.get(s.offset as usize..).and_then(|b| b.get(..s.file_size as usize));
            let data = data.ok_or_else(|| not_a_kernel(file, "a truncated ELF file"))?;
            self.claim(&file.name, s.physical, s.size)?;
            self.ram.write(s.physical, data).expect("it was claimed");
        }
        Ok(())
    }
}
