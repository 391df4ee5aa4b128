//! x86-64 in words, with VMX.

use std::fmt::Write as _;

use emu_core::engine::Hart;
use emu_core::ram::Ram;
use vmx_sim::control::{entry as entry_control, secondary};
use vmx_sim::describe::{self, bits};
use vmx_sim::ept::explain::size;
use vmx_sim::field::*;
use vmx_sim::{Vmx, inspect};
use x86::control::{cr0, cr4, efer, rflags};
use x86::paging::{Access, Controls, Fail, Kind, Mode, Tables, error};
use x86::processor::{ProcessorExt, X86};
use x86::registers::{FS_BASE, GS_BASE};

use super::{Inspectable, entry, physical};
use crate::disas;
use crate::gdb::{Debuggable, View};
use crate::options::AddressKind;

/// A copy of the processor's VMX.
fn vmx(h: &Hart<'_, X86>) -> Option<Vmx> {
    h.arch.extension.get()?.as_any().downcast_ref::<Vmx>().cloned()
}

/// A segment register: name, selector, base, limit, access rights.
fn segment(text: &mut String, name: &str, s: x86::segment::Segment, base: u64) {
    let rights = describe::access_rights(s.attributes.0.into());
    let _ = writeln!(text, "  {name:5} {:#06x}  base {base:#018x}  limit {:#010x}  {rights}", s.selector, s.limit);
}

fn registers(h: &mut Hart<'_, X86>) -> String {
    let mut text = String::new();
    let mode = match (h.arch.is_64(), h.arch.is_long(), h.arch.is_v8086(), h.arch.is_protected()) {
        (true, ..) => "64-bit mode",
        (_, true, ..) => "compatibility mode",
        (_, _, true, _) => "virtual-8086 mode",
        (.., true) => "protected mode",
        _ => "real mode",
    };
    let _ = writeln!(text, "  {mode}, CPL {}; next: {}", h.arch.cpl(), next(h));
    for n in 0..X86::core_registers().end.min(16) {
        let value = X86::read_register(h, n);
        let _ = write!(text, "  {:4} {value:#018x}{}", X86::register_name(n), if n % 4 == 3 { "\n" } else { "" });
    }
    let a = &h.arch;
    for (name, value, names) in [
        ("cr0", a.cr0, cr0::ALL),
        ("cr4", a.cr4, cr4::ALL),
        ("efer", a.efer, efer::ALL),
        ("rflags", h.rflags(), rflags::ALL),
    ] {
        let known = names.iter().fold(0, |all, (_, bit)| all | bit);
        let _ = writeln!(text, "  {name:6} {value:#018x}  {}", bits(value & known, names));
    }
    let _ = writeln!(text, "  cr2    {:#018x}\n  cr3    {:#018x}", a.cr2, a.cr3);
    let bases = [h.reg(FS_BASE), h.reg(GS_BASE)];
    for (i, name) in ["es", "cs", "ss", "ds", "fs", "gs"].into_iter().enumerate() {
        let s = a.segments[i];
        segment(&mut text, name, s, if i < 4 { s.base } else { bases[i - 4] });
    }
    segment(&mut text, "ldtr", a.ldtr, a.ldtr.base);
    segment(&mut text, "tr", a.tr, a.tr.base);
    let _ = writeln!(text, "  gdtr  base {:#018x}  limit {:#06x}", a.gdtr.base, a.gdtr.limit);
    let _ = writeln!(text, "  idtr  base {:#018x}  limit {:#06x}", a.idtr.base, a.idtr.limit);
    text
}

/// The instruction that is next.
fn next(h: &mut Hart<'_, X86>) -> String {
    let (pc, isa) = (h.core.pc, h.arch.isa());
    let byte = |i| {
        let pa = X86::translate(h, pc.wrapping_add(i), View::Current)?;
        h.world.ram.load(pa, 1).ok().map(|byte| byte as u8)
    };
    let bytes: Vec<u8> = (0..15).map_while(byte).collect();
    if bytes.is_empty() { "no memory".to_owned() } else { disas::one(isa, &bytes, pc).1 }
}

impl Inspectable for X86 {
    fn state(h: &mut Hart<'_, Self>) -> String {
        let mut text = registers(h);
        text += &Self::virtualization(h);
        if let Some(vmx) = vmx(h).filter(|vmx| vmx.current.is_some()) {
            text += &inspect::fields(&vmx.vmcs);
        }
        text
    }

    fn virtualization(h: &mut Hart<'_, Self>) -> String {
        match vmx(h) {
            Some(vmx) => vmx.summary(h),
            None => "no virtualization extension\n".to_owned(),
        }
    }

    fn holds_vmcs(h: &Hart<'_, Self>, region: u64) -> bool {
        vmx(h).is_some_and(|vmx| vmx.current == Some(region))
    }

    fn vmcs(h: &mut Hart<'_, Self>, region: u64) -> Result<String, String> {
        match vmx(h) {
            Some(vmx) if vmx.current == Some(region) => {
                let holder = format!("VMCS {region:#x}, current on vCPU {}\n", h.core.index);
                Ok(holder + &inspect::fields(&vmx.vmcs))
            }
            _ => inspect::region(h, region),
        }
    }

    fn steps(h: &mut Hart<'_, Self>, address: u64, kind: AddressKind) -> Result<String, String> {
        let vmx = vmx(h);
        let is_guest = vmx.as_ref().is_some_and(|vmx| vmx.in_guest);
        let of_guest = kind != AddressKind::Va || is_guest;
        let guest = match (&vmx, of_guest) {
            (Some(vmx), true) if vmx.current.is_some() => Some(vmx),
            (_, true) => return Err("this vCPU has no guest: there is no current VMCS".to_owned()),
            _ => None,
        };
        let mut text = String::new();
        let ram = &h.world.ram;
        let stage = guest.filter(|vmx| vmx.vmcs.uses_ept());
        let physical_end = if kind == AddressKind::Gpa {
            second_stage(&mut text, "", stage, ram, address)
        } else {
            let controls = match guest {
                Some(vmx) if !is_guest => controls_of(&vmx.vmcs, h.arch.controls()),
                _ => h.arch.controls(),
            };
            linear(&mut text, &controls, stage, ram, address)
        };
        match physical_end {
            Ok(pa) => text += &physical(h.world, pa),
            Err(why) => {
                let _ = writeln!(text, "ends: {why}");
            }
        }
        Ok(text)
    }
}

/// What a guest's translation depends on, where the guest is not at work.
pub fn controls_of(v: &vmx_sim::vmcs::Vmcs, now: Controls) -> Controls {
    let lma = if v.has(entry_control::IA32E_MODE_GUEST) { efer::LMA | efer::LME } else { 0 };
    let efer = if v.has(entry_control::LOAD_EFER) { v[GUEST_EFER] } else { now.efer & !(efer::LMA | efer::LME) | lma };
    let pdptes = if v.has(secondary::ENABLE_EPT) {
        Some([0, 2, 4, 6].map(|i| v[Field(GUEST_PDPTE0.0 + i)]))
    } else {
        now.pdptes
    };
    Controls { cr0: v[GUEST_CR0], cr3: v[GUEST_CR3], cr4: v[GUEST_CR4], efer, pdptes, ..now }
}

/// The EPT walk of a guest-physical address, if there is one; the physical address.
fn second_stage(text: &mut String, indent: &str, vmx: Option<&Vmx>, ram: &Ram, address: u64) -> Result<u64, String> {
    let Some(vmx) = vmx else { return Ok(address) };
    let (steps, end) = vmx.explain(ram, address);
    for step in steps {
        entry(text, indent, step.name, step.at, step.entry, &step.says);
    }
    let page = end.map_err(|end| end.to_string())?;
    let r = page.rights;
    let rights = describe::rights(r & 1 != 0, r & 2 != 0, r & 4 != 0);
    let _ = writeln!(
        text,
        "{indent}guest-physical {address:#x} -> physical {:#x} ({}), rights {rights}",
        page.physical,
        size(page.size_log2)
    );
    Ok(page.physical)
}

/// Page tables, written down as they are read; accessed and dirty flags stay as they are.
struct Steps<'a> {
    text: &'a mut String,
    stage: Option<&'a Vmx>,
    ram: &'a Ram,
    /// Names of the entries to come, from the last one on.
    names: Vec<&'static str>,
}

impl Tables for Steps<'_> {
    type Stop = String;

    fn read(&mut self, address: u64, size: u8) -> Result<u64, String> {
        let at = second_stage(self.text, "    ", self.stage, self.ram, address)?;
        let e = self.ram.load(at, size).map_err(|_| "there is no RAM where the entry should be".to_owned())?;
        let name = self.names.pop().unwrap_or("entry");
        // PS: bit 7 of an entry above the last level; there it is PAT.
        let is_page = name == "PTE" || name != "PML4E" && name != "PML5E" && e >> 7 & 1 != 0;
        let says = if e & 1 == 0 {
            "not present".to_owned()
        } else {
            let rights = describe::rights(true, e >> 1 & 1 != 0, size == 4 || e >> 63 == 0);
            let flags = [(true, 2, " user"), (true, 5, " A"), (is_page, 6, " D"), (is_page, 8, " G")];
            let flags = flags.into_iter().filter(|(counts, bit, _)| *counts && e >> bit & 1 != 0);
            let flags: String = flags.map(|(.., name)| name).collect();
            format!("{rights}{flags}{}", if is_page { " page" } else { "" })
        };
        entry(self.text, "", name, at, e, &says);
        Ok(e)
    }

    fn write(&mut self, _: u64, _: u8, _: u64) -> Result<(), String> {
        Ok(())
    }
}

/// The walk of a linear address by a supervisor's load that nothing keeps from user pages; the physical address.
fn linear(text: &mut String, c: &Controls, stage: Option<&Vmx>, ram: &Ram, address: u64) -> Result<u64, String> {
    let (mode, names): (_, &[_]) = match c.mode() {
        Mode::Off => ("no paging", &[]),
        Mode::Bits32 => ("32-bit paging", &["PTE", "PDE"]),
        Mode::Pae => ("PAE paging", &["PTE", "PDE"]),
        Mode::Level4 => ("4-level paging", &["PTE", "PDE", "PDPTE", "PML4E"]),
        Mode::Level5 => ("5-level paging", &["PTE", "PDE", "PDPTE", "PML4E", "PML5E"]),
    };
    let _ = writeln!(text, "linear {address:#x}, {mode}, CR3 {:#x}", c.cr3);
    if c.efer & efer::LMA != 0 && !c.is_canonical(address) {
        return Err("the address is not canonical".to_owned());
    }
    if let Some(pdptes) = c.pdptes.filter(|_| c.mode() == Mode::Pae) {
        let i = address >> 30 & 3;
        let _ = writeln!(text, "  PDPTE register {i}: {:#018x}", pdptes[i as usize]);
    }
    let access = Access { kind: Kind::Read, user: false, implicit: false, ac: true, shadow_stack: false };
    let open = Controls { pkru: 0, pkrs: 0, ..*c };
    let mut steps = Steps { text: &mut *text, stage, ram, names: names.to_vec() };
    let t = open.translate(&mut steps, address, access).map_err(|fail| match fail {
        Fail::Stop(why) => why,
        Fail::PageFault(code) if code & error::RSVD != 0 => "page fault: a reserved bit is set".to_owned(),
        Fail::PageFault(code) if code & error::P == 0 => "page fault: the entry is not present".to_owned(),
        Fail::PageFault(code) => format!("page fault, error code {code:#x}"),
    })?;
    let what = if stage.is_some() { "guest-physical" } else { "physical" };
    let rights = describe::rights(true, t.rights.writable, t.rights.executable);
    let user = if t.rights.user { ", user" } else { ", supervisor" };
    let page = size(t.size_log2.into());
    let _ = writeln!(text, "linear {address:#x} -> {what} {:#x} ({page}), rights {rights}{user}", t.physical);
    second_stage(text, "", stage, ram, t.physical)
}
