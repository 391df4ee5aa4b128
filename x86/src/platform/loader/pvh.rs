//! PVH ("x86/HVM direct boot ABI", Xen docs/misc/pvh and public/arch-x86/hvm/start_info.h).

use emu_core::file::File;

use super::elf::Elf;
use super::entry::{Entry, code_32};
use super::{LoadError, Loader, START_INFO, Software};
use crate::registers::RBX;

/// XEN_HVM_START_MAGIC_VALUE.
const MAGIC: u32 = 0x336e_c578;
const VERSION: u32 = 1;
/// Size in bytes of struct hvm_start_info, of version 1.
const INFO_SIZE: u64 = 56;
/// Size in bytes of struct hvm_modlist_entry.
const MODULE_SIZE: u64 = 32;

impl Loader<'_> {
    pub(super) fn load_pvh(
        &mut self,
        software: &Software,
        kernel: &File,
        elf: &Elf,
        entry: u64,
    ) -> Result<Entry, LoadError> {
        self.put_segments(kernel, elf)?;
        let mut modules = Vec::new();
        if let Some(initrd) = software.initrd {
            modules.push((self.put_high(initrd, u64::from(u32::MAX))?, initrd.bytes.len() as u64, 0));
        }
        for module in software.modules {
            let line = self.put_line(&module.arguments)?;
            modules.push((self.put_behind(&module.file)?, module.file.bytes.len() as u64, line));
        }
        let line = self.put_line(software.arguments)?;
        let map = self.layout.e820();
        let modules_at = START_INFO + INFO_SIZE;
        let map_at = modules_at + MODULE_SIZE * modules.len() as u64;
        let mut info = Vec::new();
        [MAGIC, VERSION, 0, modules.len() as u32].iter().for_each(|w| info.extend(w.to_le_bytes()));
        let modules_pointer = if modules.is_empty() { 0 } else { modules_at };
        [modules_pointer, line, software.rsdp, map_at].iter().for_each(|w| info.extend(w.to_le_bytes()));
        [map.len() as u32, 0].iter().for_each(|w| info.extend(w.to_le_bytes()));
        debug_assert_eq!(info.len() as u64, INFO_SIZE);
        for (at, size, line) in modules {
            [at, size, line, 0].iter().for_each(|w| info.extend(w.to_le_bytes()));
        }
        for (base, size, kind) in map {
            [base, size, kind.into()].iter().for_each(|w| info.extend(w.to_le_bytes()));
        }
        self.put("the start information", START_INFO, &info)?;
        Ok(self.enter_32(entry, code_32())?.with(&[(RBX, START_INFO)]))
    }
}
