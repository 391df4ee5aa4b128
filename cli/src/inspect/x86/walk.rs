//! Walks of paging and of the second stage, written down as they are made. Accessed and dirty flags stay as they are.

use std::fmt::Write as _;

use emu_core::ram::Ram;
use svm_sim::Svm;
use x86::control::efer;
use x86::describe::{rights, size};
use x86::paging::{Controls, Fail, Mode, Tables, Translated, error};

use super::guest::{LOAD, Stage};
use crate::inspect::entry;

/// A walk: what has been said of it, and what it goes through.
pub struct Walk<'a> {
    pub text: String,
    pub ram: &'a Ram,
    pub stage: Option<Stage<'a>>,
}

impl Walk<'_> {
    /// The walk of a guest-physical address, if there is a second stage; the physical address.
    pub fn second_stage(&mut self, indent: &str, address: u64) -> Result<u64, String> {
        let (physical, page, allowed) = match self.stage {
            None => return Ok(address),
            Some(Stage::Ept(vmx)) => {
                let (steps, end) = vmx.explain(self.ram, address);
                for step in steps {
                    entry(&mut self.text, indent, step.name, step.at, step.entry, &step.says);
                }
                let page = end.map_err(|end| end.to_string())?;
                let r = page.rights;
                (page.physical, page.size_log2, rights(r & 1 != 0, r & 2 != 0, r & 4 != 0))
            }
            Some(Stage::Nested(controls, access)) => {
                if !Svm::is_within(controls.mode(), address) {
                    return Err("nested page fault: the address is wider than what the walk translates".to_owned());
                }
                let mut steps = Steps::new(self, indent, true, &controls);
                let t =
                    controls.translate(&mut steps, address, access).map_err(|fail| why("nested page fault", fail))?;
                (t.physical, t.size_log2.into(), rights(true, t.rights.writable, t.rights.executable))
            }
        };
        let _ = writeln!(
            self.text,
            "{indent}guest-physical {address:#x} -> physical {physical:#x} ({}), rights {allowed}",
            size(page)
        );
        Ok(physical)
    }

    /// The walk of a linear address by a supervisor's load that nothing keeps from user pages; the physical address.
    pub fn linear(&mut self, c: &Controls, address: u64) -> Result<u64, String> {
        let mode = match c.mode() {
            Mode::Off => "no paging",
            Mode::Bits32 => "32-bit paging",
            Mode::Pae => "PAE paging",
            Mode::Level4 => "4-level paging",
            Mode::Level5 => "5-level paging",
        };
        let _ = writeln!(self.text, "linear {address:#x}, {mode}, CR3 {:#x}", c.cr3);
        if c.efer & efer::LMA != 0 && !c.is_canonical(address) {
            return Err("the address is not canonical".to_owned());
        }
        if let Some(pdptes) = c.pdptes.filter(|_| c.mode() == Mode::Pae) {
            let i = address >> 30 & 3;
            let _ = writeln!(self.text, "  PDPTE register {i}: {:#018x}", pdptes[i as usize]);
        }
        let open = Controls { pkru: 0, pkrs: 0, ..*c };
        let mut steps = Steps::new(self, "", false, &open);
        let t = open.translate(&mut steps, address, LOAD).map_err(|fail| why("page fault", fail))?;
        let what = if self.stage.is_some() { "guest-physical" } else { "physical" };
        let Translated { physical, rights: r, size_log2, .. } = t;
        let allowed = rights(true, r.writable, r.executable);
        let user = if r.user { ", user" } else { ", supervisor" };
        let page = size(size_log2.into());
        let _ = writeln!(self.text, "linear {address:#x} -> {what} {physical:#x} ({page}), rights {allowed}{user}");
        self.second_stage("", physical)
    }
}

/// Why a walk ends.
fn why(fault: &str, fail: Fail<String>) -> String {
    match fail {
        Fail::Stop(why) => why,
        Fail::PageFault(code) if code & error::RSVD != 0 => format!("{fault}: a reserved bit is set"),
        Fail::PageFault(code) if code & error::P == 0 => format!("{fault}: the entry is not present"),
        Fail::PageFault(code) => format!("{fault}, error code {code:#x}"),
    }
}

/// Names of paging-structure entries, by level.
const NAMES: [&str; 6] = ["entry", "PTE", "PDE", "PDPTE", "PML4E", "PML5E"];

/// The level at which a walk begins.
fn top(mode: Mode) -> usize {
    match mode {
        Mode::Off => 0,
        Mode::Bits32 => 2,
        Mode::Pae => 3,
        Mode::Level4 => 4,
        Mode::Level5 => 5,
    }
}

/// The entries of one walk.
struct Steps<'a, 'b> {
    walk: &'a mut Walk<'b>,
    indent: &'a str,
    /// They are nested page tables', in physical memory.
    is_nested: bool,
    mode: Mode,
    /// Of the next entry.
    level: usize,
}

impl<'a, 'b> Steps<'a, 'b> {
    fn new(walk: &'a mut Walk<'b>, indent: &'a str, is_nested: bool, c: &Controls) -> Self {
        let mode = c.mode();
        // PAE paging may have read its first level before.
        let level = top(mode) - usize::from(mode == Mode::Pae && c.pdptes.is_some());
        Steps { walk, indent, is_nested, mode, level }
    }

    /// What an entry says.
    fn says(&self, e: u64, size: u8) -> String {
        if e & 1 == 0 {
            return "not present".to_owned();
        }
        if self.mode == Mode::Pae && self.level == 3 {
            return "present".to_owned();
        }
        // PS: bit 7 of an entry above the last level; there it is PAT.
        let is_page = self.level == 1 || self.level <= 3 && e >> 7 & 1 != 0;
        let rights = rights(true, e >> 1 & 1 != 0, size == 4 || e >> 63 == 0);
        let flags =
            [(true, 2, " user"), (true, 5, " A"), (is_page, 6, " D"), (is_page, 8, " G"), (is_page, 0, " page")];
        let flags = flags.into_iter().filter(|(counts, bit, _)| *counts && e >> bit & 1 != 0);
        rights + &flags.map(|(.., name)| name).collect::<String>()
    }
}

impl Tables for Steps<'_, '_> {
    type Stop = String;

    fn read(&mut self, address: u64, size: u8) -> Result<u64, String> {
        let at = if self.is_nested { address } else { self.walk.second_stage("    ", address)? };
        let ram = self.walk.ram;
        let e = ram.load(at, size).map_err(|_| "there is no RAM where the entry should be".to_owned())?;
        let prefix = if self.is_nested { "NPT " } else { "" };
        let says = self.says(e, size);
        entry(&mut self.walk.text, self.indent, &format!("{prefix}{}", NAMES[self.level]), at, e, &says);
        self.level = self.level.saturating_sub(1);
        Ok(e)
    }

    fn write(&mut self, _: u64, _: u8, _: u64) -> Result<(), String> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use x86::control::{cr0, cr4};
    use x86::platform::pc::{self, PcConfig};

    use super::*;

    /// PAE paging, with and without PDPTE registers, through nested page tables: what is written down, without addresses of entries.
    #[test]
    fn a_pdpte_is_a_level_where_there_are_no_registers() {
        let (mut machine, _) = pc::build_empty(&PcConfig { memory: 64 << 20, ..PcConfig::default() }).unwrap();
        let ram = &mut machine.world.ram;
        for (at, entry) in [
            // The guest's: level 3, 2, a page of 2 MiB; behind it a page that is not there.
            (0x1008, 0x2001),
            (0x2008, 0x40_0000 | 0xe3),
            // Nested: 4 levels, and pages of 1 GiB.
            (0x10_0000, 0x10_1007),
            (0x10_1000, 0x87),
        ] {
            ram.store(at, 8, entry).unwrap();
        }
        let now = machine.vcpus[0].arch.controls();
        let pae = Controls { cr0: cr0::PG | cr0::PE, cr3: 0x1000, cr4: cr4::PAE, efer: 0, pdptes: None, ..now };
        let nested = Controls { cr0: pae.cr0 | cr0::WP, cr3: 0x10_0000, efer: efer::LMA | efer::LME, ..pae };
        let stage = Some(Stage::Nested(nested, x86::paging::Access { user: true, ..LOAD }));
        let told = |c: &Controls, stage, address| {
            let mut walk = Walk { text: String::new(), ram: &machine.world.ram, stage };
            let end = walk.linear(c, address);
            let name = |line: &str| line.trim().split("  ").next().unwrap_or_default().to_owned();
            let of_entries = walk.text.lines().map(name).filter(|line| !line.contains("linear"));
            (
                of_entries
                    .map(|line| line.split_once(" 0x").map_or(line.clone(), |(name, _)| name.trim().to_owned()))
                    .collect(),
                end,
            )
        };
        let is = |told: (Vec<String>, _), names: &[&str], end| {
            assert_eq!(told, (names.iter().map(|s| s.to_string()).collect(), end))
        };
        is(told(&pae, None, 0x4020_1234), &["PDPTE", "PDE"], Ok(0x40_1234));
        let registers = Controls { pdptes: Some([0, 0x2001, 0, 0]), ..pae };
        is(told(&registers, None, 0x4020_1234), &["PDPTE register 1:", "PDE"], Ok(0x40_1234));
        const NESTED: [&str; 3] = ["NPT PML4E", "NPT PDPTE", "guest-physical"];
        let [a, b, c] = NESTED;
        is(told(&pae, stage, 0x4020_1234), &[a, b, c, "PDPTE", a, b, c, "PDE", a, b, c], Ok(0x40_1234));
        let absent = || Err("page fault: the entry is not present".to_owned());
        is(told(&pae, None, 0x4000_0000), &["PDPTE", "PDE"], absent());
        is(told(&pae, None, 0x1234), &["PDPTE"], absent());
    }
}
