//! RV64 in words.

use std::fmt::Write as _;

use emu_core::engine::Hart;
use riscv::hart::Riscv;
use riscv::privileged::csr_access::peek;
use riscv::privileged::{Addresses, CSR_NAMES, debug_walk};

use super::{Inspectable, Structure, entry, physical};
use crate::gdb::Debuggable;
use crate::options::AddressKind;

/// CSRs that say how a guest runs.
const OF_GUESTS: [&str; 15] = [
    "hstatus", "hedeleg", "hideleg", "hvip", "hgatp", "htval", "htinst", "henvcfg", "vsstatus", "vsatp", "vstvec",
    "vsepc", "vscause", "vstval", "vsie",
];

fn csrs(h: &mut Hart<'_, Riscv>, wanted: impl Fn(&str) -> bool) -> String {
    let mut text = String::new();
    let mut n = 0;
    for (number, name) in CSR_NAMES.iter().filter(|(_, name)| wanted(name)) {
        let Some(value) = peek(h, *number) else { continue };
        let end = if n % 3 == 2 { "\n" } else { "  " };
        let _ = write!(text, "  {name:14} {value:#018x}{end}");
        n += 1;
    }
    if n % 3 != 0 { text.trim_end().to_owned() + "\n" } else { text }
}

impl Inspectable for Riscv {
    fn state(h: &mut Hart<'_, Self>) -> String {
        let virtualized = if h.arch.v { "V = 1" } else { "V = 0" };
        let mut text = format!("  {:?} mode, {virtualized}; pc {:#x}\n", h.arch.mode, h.core.pc);
        for n in 1..32 {
            let end = if n % 4 == 0 || n == 31 { "\n" } else { "" };
            let _ = write!(text, "  {:4} {:#018x}{end}", Riscv::register_name(n), h.core.regs[n]);
        }
        // Counters that are not there read as 0, and tell nothing.
        text + &csrs(h, |name| !name.contains("hpm") && !name.starts_with("pmp"))
    }

    fn virtualization(h: &mut Hart<'_, Self>) -> String {
        csrs(h, |name| OF_GUESTS.contains(&name))
    }

    fn structure(_: &mut Hart<'_, Self>, _: Structure) -> Result<String, String> {
        Err("a RISC-V machine has none".to_owned())
    }

    fn steps(h: &mut Hart<'_, Self>, address: u64, kind: AddressKind) -> Result<String, String> {
        let of = match kind {
            AddressKind::Va => Addresses::Current,
            AddressKind::Gva => Addresses::Guest,
            AddressKind::Gpa => Addresses::GuestPhysical,
            AddressKind::Pa => return Ok(physical(h.world, address)),
        };
        let (steps, end) = debug_walk(h, address, of);
        let mut text = String::new();
        for step in &steps {
            let letters = "dagUXWRV".chars().enumerate();
            let flags: String = letters
                .map(|(i, c)| if step.entry >> (7 - i) & 1 != 0 { c.to_ascii_uppercase() } else { '-' })
                .collect();
            let (indent, stage) = match (step.guest_stage, kind) {
                (true, AddressKind::Gpa) => ("", "G "),
                (true, _) => ("    ", "G "),
                _ => ("", ""),
            };
            let page = step.entry >> 10 << 12 & ((1 << 56) - 1);
            let what = if step.entry >> 1 & 7 != 0 { "page" } else { "table" };
            let says = if step.entry & 1 != 0 { format!("{flags} {what} {page:#x}") } else { "not valid".to_owned() };
            entry(&mut text, indent, &format!("{stage}level {}", step.level), step.at, step.entry, &says);
        }
        match end {
            Ok(pa) => text += &physical(h.world, pa),
            Err(why) => {
                let _ = writeln!(text, "ends: {why}");
            }
        }
        Ok(text)
    }
}
