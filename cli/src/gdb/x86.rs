//! x86-64 as GDB sees it.

use std::fmt::Write as _;
use std::ops::Range;
use std::sync::LazyLock;

use emu_core::engine::Hart;
use x86::paging::Controls;
use x86::processor::{ProcessorExt, X86, segments};
use x86::registers::{FS_BASE, GS_BASE};

use super::{Debuggable, View};
use crate::inspect::{Guest, LOAD, Peek};
use crate::options::Isa;

/// GDB's numbers of registers (its documentation, "i386 Features"): general ones, RIP, EFLAGS, selectors, then the x87's.
const RIP: usize = 16;
const EFLAGS: usize = 17;
const FIRST_SELECTOR: usize = 18;
const FIRST_X87: usize = 24;
const FIRST_X87_CONTROL: usize = 32;
const BASES: usize = 40;
const CONTROL: usize = 42;
const END: usize = CONTROL + CONTROL_NAMES.len();

/// GDB's order of the general registers, as numbers of their encoding.
const GENERAL: [(&str, usize); 16] = [
    ("rax", 0),
    ("rbx", 3),
    ("rcx", 1),
    ("rdx", 2),
    ("rsi", 6),
    ("rdi", 7),
    ("rbp", 5),
    ("rsp", 4),
    ("r8", 8),
    ("r9", 9),
    ("r10", 10),
    ("r11", 11),
    ("r12", 12),
    ("r13", 13),
    ("r14", 14),
    ("r15", 15),
];
/// Likewise of the segment registers.
const SELECTORS: [(&str, usize); 6] = [("cs", 1), ("ss", 2), ("ds", 3), ("es", 0), ("fs", 4), ("gs", 5)];
const X87_CONTROL: [&str; 8] = ["fctrl", "fstat", "ftag", "fiseg", "fioff", "foseg", "fooff", "fop"];
const CONTROL_NAMES: [&str; 6] = ["cr0", "cr2", "cr3", "cr4", "cr8", "efer"];

static DESCRIPTION: LazyLock<String> = LazyLock::new(|| {
    let mut xml = String::from(
        "<?xml version=\"1.0\"?><!DOCTYPE target SYSTEM \"gdb-target.dtd\"><target version=\"1.0\">\
         <architecture>i386:x86-64</architecture><feature name=\"org.gnu.gdb.i386.core\">",
    );
    let reg = |xml: &mut String, name: &str, bits: u32, kind: &str, number: usize| {
        let _ = write!(xml, "<reg name=\"{name}\" bitsize=\"{bits}\" type=\"{kind}\" regnum=\"{number}\"/>");
    };
    for (i, (name, _)) in GENERAL.iter().enumerate() {
        let kind = if ["rbp", "rsp"].contains(name) { "data_ptr" } else { "int64" };
        reg(&mut xml, name, 64, kind, i);
    }
    reg(&mut xml, "rip", 64, "code_ptr", RIP);
    reg(&mut xml, "eflags", 32, "int32", EFLAGS);
    SELECTORS.iter().enumerate().for_each(|(i, (n, _))| reg(&mut xml, n, 32, "int32", FIRST_SELECTOR + i));
    (0..8).for_each(|i| reg(&mut xml, &format!("st{i}"), 80, "i387_ext", FIRST_X87 + i));
    X87_CONTROL.iter().enumerate().for_each(|(i, n)| reg(&mut xml, n, 32, "int", FIRST_X87_CONTROL + i));
    xml += "</feature><feature name=\"org.gnu.gdb.i386.segments\">";
    ["fs_base", "gs_base"].iter().enumerate().for_each(|(i, n)| reg(&mut xml, n, 64, "int", BASES + i));
    xml += "</feature><feature name=\"org.undervisor.x86.control\">";
    CONTROL_NAMES.iter().enumerate().for_each(|(i, n)| reg(&mut xml, n, 64, "int", CONTROL + i));
    xml + "</feature></target>"
});

impl Debuggable for X86 {
    fn description() -> &'static str {
        &DESCRIPTION
    }

    fn register_size(number: usize) -> Option<usize> {
        match number {
            0..=RIP | BASES..END => Some(8),
            EFLAGS..FIRST_X87 | FIRST_X87_CONTROL..BASES => Some(4),
            FIRST_X87..FIRST_X87_CONTROL => Some(10),
            _ => None,
        }
    }

    fn core_registers() -> Range<usize> {
        0..BASES
    }

    fn register_name(n: usize) -> &'static str {
        match n {
            0..RIP => GENERAL[n].0,
            RIP => "rip",
            EFLAGS => "eflags",
            FIRST_SELECTOR..FIRST_X87 => SELECTORS[n - FIRST_SELECTOR].0,
            FIRST_X87..FIRST_X87_CONTROL => "st",
            _ => X87_CONTROL.get(n.wrapping_sub(FIRST_X87_CONTROL)).copied().unwrap_or("base"),
        }
    }

    fn isa(&self) -> Isa {
        let code = self.segments[segments::CS].attributes;
        match () {
            () if self.is_64() => Isa::X86_64,
            () if code.is_big() => Isa::X86_32,
            () => Isa::X86_16,
        }
    }

    fn read_register(h: &mut Hart<'_, Self>, n: usize) -> u64 {
        match n {
            0..RIP => h.core.regs[GENERAL[n].1],
            RIP => h.core.pc,
            EFLAGS => h.rflags(),
            FIRST_SELECTOR..FIRST_X87 => h.arch.segments[SELECTORS[n - FIRST_SELECTOR].1].selector.into(),
            BASES => h.core.regs[usize::from(FS_BASE)],
            41 => h.core.regs[usize::from(GS_BASE)],
            CONTROL.. => {
                let a = &h.arch;
                [a.cr0, a.cr2, a.cr3, a.cr4, u64::from(a.apic.tpr() >> 4), a.efer]
                    .get(n - CONTROL)
                    .copied()
                    .unwrap_or(0)
            }
            _ => 0,
        }
    }

    /// Selectors and control registers cannot be written: what hangs on them would not follow.
    fn write_register(h: &mut Hart<'_, Self>, n: usize, value: u64) -> bool {
        match n {
            0..RIP => h.core.regs[GENERAL[n].1] = value,
            RIP => h.core.pc = value,
            EFLAGS => h.set_rflags(value),
            BASES => h.core.regs[usize::from(FS_BASE)] = value,
            41 => h.core.regs[usize::from(GS_BASE)] = value,
            _ => return false,
        }
        true
    }

    fn translate(h: &mut Hart<'_, Self>, va: u64, view: View) -> Option<u64> {
        if view == View::Physical {
            return Some(va);
        }
        let now = h.arch.controls();
        let guest = Guest::of(h.arch).filter(|guest| guest.is_at_work() || view == View::Guest);
        let controls = guest.map_or(now, |guest| guest.controls(now));
        let mut peek = Peek { ram: &h.world.ram, stage: guest.and_then(|guest| guest.stage(now)) };
        // Protection keys keep nobody out here, nor does SMAP.
        let controls = Controls { pkru: 0, pkrs: 0, ..controls };
        let linear = controls.translate(&mut peek, va, LOAD).ok()?.physical;
        peek.physical(linear)
    }
}
