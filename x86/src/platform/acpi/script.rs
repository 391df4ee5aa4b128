//! The script by which firmware allocates and links tables that it gets as files: entries of 128 bytes, a command and its
//! arguments ("BIOSLinkerLoader" in SeaBIOS and OVMF, which both run it).

use super::{EXTENDED_CHECKSUM, RSDP_FIRST, Table, Tables};
use crate::platform::fw_cfg::File;

/// The file with all tables but the RSDP.
const TABLES: &str = "etc/acpi/tables";
/// The file with the RSDP.
const RSDP: &str = "etc/acpi/rsdp";
/// The script itself.
const SCRIPT: &str = "etc/table-loader";

const NAME: usize = 56;
const ENTRY: usize = 128;

/// Memory below 4 GiB, or the last segment below 1 MiB, where the RSDP is looked for.
#[derive(Clone, Copy)]
enum Zone {
    High = 1,
    FSegment = 2,
}

#[derive(Default)]
struct Script(Vec<u8>);

impl Script {
    fn entry(&mut self, command: u32, parts: &[&[u8]]) {
        let end = self.0.len() + ENTRY;
        self.0.extend(command.to_le_bytes());
        parts.iter().for_each(|p| self.0.extend(*p));
        self.0.resize(end, 0);
    }

    fn allocate(&mut self, file: &str, alignment: u32, zone: Zone) {
        self.entry(1, &[&name(file), &alignment.to_le_bytes(), &[zone as u8]]);
    }

    /// The pointer at `at` of `file` becomes one into `to`, of which it holds the offset already.
    fn add_pointer(&mut self, file: &str, to: &str, at: usize, size: usize) {
        self.entry(2, &[&name(file), &name(to), &(at as u32).to_le_bytes(), &[size as u8]]);
    }

    fn add_checksum(&mut self, file: &str, at: usize, start: usize, len: usize) {
        let words = [at, start, len].map(|w| (w as u32).to_le_bytes());
        self.entry(3, &[&name(file), &words[0], &words[1], &words[2]]);
    }
}

fn name(file: &str) -> [u8; NAME] {
    let mut bytes = [0; NAME];
    bytes[..file.len()].copy_from_slice(file.as_bytes());
    bytes
}

pub(super) fn files(tables: &Tables) -> Vec<File> {
    let (offsets, size) = tables.offsets();
    let mut script = Script::default();
    script.allocate(TABLES, super::ALIGNMENT as u32, Zone::High);
    script.allocate(RSDP, 16, Zone::FSegment);
    let mut link = |file: &str, base: usize, table: &Table| {
        let mut bytes = table.bytes.clone();
        for p in &table.pointers {
            bytes[p.at..p.at + p.size].copy_from_slice(&(offsets[p.to] as u64).to_le_bytes()[..p.size]);
            script.add_pointer(file, TABLES, base + p.at, p.size);
        }
        if let Some(at) = table.checksum {
            bytes[at] = 0;
            script.add_checksum(file, base + at, base, bytes.len());
        }
        bytes
    };
    let mut block = vec![0; size];
    for (table, at) in tables.tables.iter().zip(&offsets) {
        let bytes = link(TABLES, *at, table);
        block[*at..at + bytes.len()].copy_from_slice(&bytes);
    }
    let rsdp = link(RSDP, 0, &tables.rsdp);
    let (extended, len) = EXTENDED_CHECKSUM;
    script.add_checksum(RSDP, 8, 0, RSDP_FIRST);
    script.add_checksum(RSDP, extended, 0, len);
    let file = |name: &str, bytes| File { name: name.into(), bytes, writable: false };
    vec![file(TABLES, block), file(RSDP, rsdp), file(SCRIPT, script.0)]
}
