//! Linux's bzImage (Linux Documentation/arch/x86/boot, "The Linux/x86 Boot Protocol", and zero-page).

use emu_core::file::File;

use super::entry::{Entry, code_32};
use super::{
    COMMAND_LINES_END, KERNEL, LoadError, Loader, Protocol, RNG_SEED, Software, ZERO_PAGE, not_a_kernel, number, refuse,
};
use crate::registers::{RSI, RSP};

/// Offsets in the zero page ("struct boot_params").
mod zero_page {
    pub const ACPI_RSDP: usize = 0x70;
    pub const EXT_RAMDISK_IMAGE: usize = 0xc0;
    pub const EXT_RAMDISK_SIZE: usize = 0xc4;
    pub const EXT_CMDLINE: usize = 0xc8;
    pub const E820_ENTRIES: usize = 0x1e8;
    pub const SENTINEL: usize = 0x1ef;
    pub const SETUP_HEADER: usize = 0x1f1;
    pub const E820_TABLE: usize = 0x2d0;
    pub const SIZE: usize = 0x1000;
}

/// "The Real-Mode Kernel Header", at the same offsets in the file and in the zero page.
mod header {
    pub const SETUP_SECTS: usize = 0x1f1;
    pub const JUMP: usize = 0x200;
    pub const VERSION: usize = 0x206;
    pub const TYPE_OF_LOADER: usize = 0x210;
    pub const LOADFLAGS: usize = 0x211;
    pub const CODE32_START: usize = 0x214;
    pub const RAMDISK_IMAGE: usize = 0x218;
    pub const RAMDISK_SIZE: usize = 0x21c;
    pub const HEAP_END: usize = 0x224;
    pub const CMD_LINE_PTR: usize = 0x228;
    pub const INITRD_ADDR_MAX: usize = 0x22c;
    pub const RELOCATABLE: usize = 0x234;
    pub const XLOADFLAGS: usize = 0x236;
    pub const CMDLINE_SIZE: usize = 0x238;
    pub const SETUP_DATA: usize = 0x250;
    pub const PREF_ADDRESS: usize = 0x258;
    pub const INIT_SIZE: usize = 0x260;
}

const LOADED_HIGH: u8 = 1;
const CAN_USE_HEAP: u8 = 0x80;
const XLF_KERNEL_64: u64 = 1;
/// "type_of_loader": undefined.
const UNDEFINED: u8 = 0xff;
const SECTOR: usize = 512;
/// "setup_data": SETUP_RNG_SEED.
const SETUP_RNG_SEED: u32 = 9;
/// The 64-bit entry follows the 32-bit one by so many bytes.
const ENTRY_64: u64 = 0x200;
/// Where the set-up code goes for the real-mode entry, and the stack pointer in its segment.
const SETUP: u64 = 0x1_0000;
const SETUP_STACK: u64 = 0xe000;

impl Loader<'_> {
    pub(super) fn load_bzimage(&mut self, software: &Software, kernel: &File) -> Result<Entry, LoadError> {
        refuse(!software.modules.is_empty(), "--module", "a Linux kernel takes one initial RAM disk (--initrd) only")?;
        let bytes = &kernel.bytes;
        let truncated = || not_a_kernel(kernel, "a truncated bzImage");
        let field = |at: usize, size: usize| number(bytes, at, size).ok_or_else(truncated);
        let version = field(header::VERSION, 2)?;
        let loadflags = field(header::LOADFLAGS, 1)? as u8;
        if version < 0x206 || loadflags & LOADED_HIGH == 0 {
            return Err(not_a_kernel(kernel, &format!("a bzImage of boot protocol {:#x}", version)));
        }
        let has_64 = version >= 0x20c && field(header::XLOADFLAGS, 2)? & XLF_KERNEL_64 != 0;
        let protocol = match software.protocol {
            Protocol::Auto if has_64 => Protocol::Linux64,
            Protocol::Auto => Protocol::Linux32,
            Protocol::Linux64 if !has_64 => return Err(not_a_kernel(kernel, "a bzImage without a 64-bit entry")),
            p @ (Protocol::Linux64 | Protocol::Linux32 | Protocol::Linux16) => p,
            other => return Err(not_a_kernel(kernel, &format!("a bzImage, which has no entry for {other:?}"))),
        };
        let setup_sects = match field(header::SETUP_SECTS, 1)? {
            0 => 4,
            n => n as usize,
        };
        let setup_size = (setup_sects + 1) * SECTOR;
        let code = bytes.get(setup_size..).filter(|c| !c.is_empty()).ok_or_else(truncated)?;

        let init_size = if version >= 0x20a { field(header::INIT_SIZE, 4)? } else { 0 }.max(code.len() as u64);
        let preferred = if version >= 0x20a { field(header::PREF_ADDRESS, 8)? } else { KERNEL };
        let fits = self.ram.contains(preferred, init_size);
        let is_relocatable = field(header::RELOCATABLE, 1)? != 0;
        let at = if fits || !is_relocatable { preferred } else { KERNEL };
        let at = if protocol == Protocol::Linux16 { KERNEL } else { at };
        self.claim(&kernel.name, at, init_size)?;
        self.put(&kernel.name, at, code)?;

        let limit = field(header::CMDLINE_SIZE, 4)?;
        if software.arguments.len() as u64 > limit {
            let found = format!("it has {} bytes", software.arguments.len());
            let name = "the command line".into();
            return Err(LoadError::File { name, found, expected: "what the kernel takes (cmdline_size)" });
        }
        let line = self.put_line(software.arguments)?;
        let initrd_limit = field(header::INITRD_ADDR_MAX, 4)? + 1;
        let initrd = match software.initrd {
            Some(file) => (self.put_high(file, initrd_limit)?, file.bytes.len() as u64),
            None => (0, 0),
        };

        // The header, as far as its jump says that it goes.
        let header_end = header::JUMP + 2 + field(header::JUMP + 1, 1)? as usize;
        let mut page = vec![0; zero_page::SIZE];
        let known = bytes.get(zero_page::SETUP_HEADER..header_end).ok_or_else(truncated)?;
        page[zero_page::SETUP_HEADER..header_end].copy_from_slice(known);
        let mut set = |at: usize, size: usize, value: u64| {
            page[at..at + size].copy_from_slice(&value.to_le_bytes()[..size]);
        };
        set(header::TYPE_OF_LOADER, 1, UNDEFINED.into());
        set(header::CODE32_START, 4, at);
        set(header::CMD_LINE_PTR, 4, line);
        set(zero_page::EXT_CMDLINE, 4, line >> 32);
        set(header::RAMDISK_IMAGE, 4, initrd.0);
        set(header::RAMDISK_SIZE, 4, initrd.1);
        set(zero_page::EXT_RAMDISK_IMAGE, 4, initrd.0 >> 32);
        set(zero_page::EXT_RAMDISK_SIZE, 4, initrd.1 >> 32);
        if protocol == Protocol::Linux16 {
            set(header::LOADFLAGS, 1, (loadflags | CAN_USE_HEAP).into());
            set(header::HEAP_END, 2, SETUP_STACK - 0x200);
            let setup = [&bytes[..zero_page::SETUP_HEADER], &page[zero_page::SETUP_HEADER..header_end]].concat();
            let setup = [&setup, &bytes[header_end..setup_size]].concat();
            self.put("the kernel's set-up code", SETUP, &setup)?;
            let segment = (SETUP >> 4) as u16;
            let mut entry = Entry::real(segment + 0x20, 0).with(&[(RSP, SETUP_STACK)]).after_bios();
            entry.selectors.1 = segment;
            return Ok(entry);
        }
        set(zero_page::SENTINEL, 1, 0);
        set(zero_page::ACPI_RSDP, 8, software.rsdp);
        set(header::SETUP_DATA, 8, RNG_SEED);
        let map = self.layout.e820();
        set(zero_page::E820_ENTRIES, 1, map.len() as u64);
        for (at, (base, size, kind)) in (zero_page::E820_TABLE..).step_by(20).zip(map) {
            set(at, 8, base);
            set(at + 8, 8, size);
            set(at + 16, 4, kind.into());
        }
        self.put("the zero page", ZERO_PAGE, &page)?;
        let mut seed = 0u64.to_le_bytes().to_vec();
        seed.extend(SETUP_RNG_SEED.to_le_bytes());
        seed.extend((software.seed.len() as u32).to_le_bytes());
        seed.extend(software.seed);
        self.put("the random seed", RNG_SEED, &seed)?;
        debug_assert!(line < COMMAND_LINES_END);
        let entry = match protocol {
            Protocol::Linux64 => self.enter_64(at + ENTRY_64)?,
            _ => self.enter_32(at, code_32())?,
        };
        Ok(entry.with(&[(RSI, ZERO_PAGE)]))
    }
}
