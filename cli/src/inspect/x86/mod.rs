//! x86-64 in words, with VMX and SVM.

mod guest;
mod walk;

use std::fmt::Write as _;

use emu_core::engine::Hart;
use svm_sim::Svm;
use vmx_sim::Vmx;
use x86::control::{cr0, cr4, efer, rflags};
use x86::describe::{self, bits};
use x86::processor::{ProcessorExt, X86};
use x86::registers::{FS_BASE, GS_BASE};

pub use self::guest::{Guest, LOAD, Peek};
use self::walk::Walk;
use super::{Inspectable, Structure, physical};
use crate::disas;
use crate::gdb::{Debuggable, View};
use crate::options::AddressKind;

/// A copy of the processor's extension, if it is this.
fn extension<E: Clone + 'static>(h: &Hart<'_, X86>) -> Option<E> {
    h.arch.extension.get()?.as_any().downcast_ref::<E>().cloned()
}

fn vmx(h: &Hart<'_, X86>) -> Option<Vmx> {
    extension(h)
}

fn svm(h: &Hart<'_, X86>) -> Option<Svm> {
    extension(h)
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
            text += &vmx_sim::inspect::fields(&vmx.vmcs);
        }
        if let Some(svm) = svm(h) {
            text += &svm.structures(&h.world.ram);
        }
        text
    }

    fn virtualization(h: &mut Hart<'_, Self>) -> String {
        match (vmx(h), svm(h)) {
            (Some(vmx), _) => vmx.summary(h),
            (_, Some(svm)) => svm.summary(h),
            _ => "no virtualization extension\n".to_owned(),
        }
    }

    fn holds(h: &Hart<'_, Self>, structure: Structure) -> bool {
        match structure {
            Structure::Vmcs(region) => vmx(h).is_some_and(|vmx| vmx.current == Some(region)),
            Structure::Vmcb(at) => svm(h).is_some_and(|svm| svm.present() == Some(at)),
        }
    }

    fn structure(h: &mut Hart<'_, Self>, structure: Structure) -> Result<String, String> {
        match structure {
            Structure::Vmcs(region) => match vmx(h) {
                Some(vmx) if vmx.current == Some(region) => {
                    let holder = format!("VMCS {region:#x}, current on vCPU {}\n", h.core.index);
                    Ok(holder + &vmx_sim::inspect::fields(&vmx.vmcs))
                }
                _ => vmx_sim::inspect::region(h, region),
            },
            Structure::Vmcb(at) => match svm(h) {
                Some(svm) => svm.vmcb_at(&h.world.ram, at).map(|text| format!("vCPU {}: {text}", h.core.index)),
                None => Err("this processor has no SVM".to_owned()),
            },
        }
    }

    fn steps(h: &mut Hart<'_, Self>, address: u64, kind: AddressKind) -> Result<String, String> {
        let now = h.arch.controls();
        let guest = Guest::of(h.arch);
        let is_at_work = guest.is_some_and(Guest::is_at_work);
        let guest = match (guest, kind) {
            (None, AddressKind::Gva | AddressKind::Gpa) => {
                return Err("this vCPU has no guest: there is neither a current VMCS nor a present VMCB".to_owned());
            }
            (guest, _) => guest.filter(|_| kind != AddressKind::Va || is_at_work),
        };
        let stage = guest.and_then(|guest| guest.stage(now));
        let mut walk = Walk { text: String::new(), ram: &h.world.ram, stage };
        let end = match kind {
            AddressKind::Gpa => walk.second_stage("", address),
            _ => walk.linear(&guest.map_or(now, |guest| guest.controls(now)), address),
        };
        let end = match end {
            Ok(pa) => physical(h.world, pa),
            Err(why) => format!("ends: {why}\n"),
        };
        Ok(walk.text + &end)
    }
}
