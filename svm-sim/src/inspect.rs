//! A processor's SVM and its VMCBs as text: for `inspect` and debuggers. Nothing is changed.

use std::fmt::Write as _;

use emu_core::event::level_name;
use emu_core::ram::Ram;
use x86::control::efer;
use x86::describe::bits;
use x86::model::Feature;
use x86::processor::P;

use crate::describe;
use crate::msr::vm_cr;
use crate::svm::Svm;
use crate::vmcb::*;
use crate::vmrun::Failure;

impl Svm {
    /// Whether VMRUN of the VMCB that was run last would find all rules kept: else which one is broken. Of it counts what is in memory, but for what
    /// its clean bits say is as the processor holds it.
    fn would_run(&self, h: &mut P) -> Result<(), Failure> {
        let mut next = self.clone();
        if let Some(pa) = self.present() {
            next.vmcb.load(h, pa, self.honours_clean_bits());
        }
        next.check(h)
    }

    /// The level of the guest of the VMCB at this address, in words.
    fn level_of(&self, pa: u64) -> String {
        match self.known.level_of(pa) {
            0 => "not known to have run".to_owned(),
            level => format!("guest at {}", level_name(level)),
        }
    }

    /// SVM in a few lines.
    pub fn summary(&self, h: &mut P) -> String {
        let mut text = String::new();
        let m = &self.msrs;
        let gif = u8::from(self.gif);
        let on = if self.in_guest {
            format!("{} at work", level_name(self.guest_level()))
        } else if h.arch.efer & efer::SVME != 0 {
            "host mode".to_owned()
        } else {
            "off (EFER.SVME is 0)".to_owned()
        };
        let _ = writeln!(text, "SVM: {on}; GIF {gif}");
        let line = format!("  VM_CR {:#x}  {}", m.vm_cr, bits(m.vm_cr, vm_cr::ALL));
        let _ = writeln!(text, "{}", line.trim_end());
        let _ = writeln!(text, "  VM_HSAVE_PA {:#x}  TSC_RATIO {:#x}", m.hsave_pa, m.tsc_ratio);
        let Some(present) = self.present() else {
            text.push_str("  no VMCB has been run\n");
            return text;
        };
        let _ = writeln!(text, "  present VMCB {present:#x}, {}", self.level_of(present));
        let is_ram = Vmcb::of_ram(&h.world.ram, present).is_some();
        if self.in_guest {
            text.push_str(
                "  its guest is at work: state that VMRUN loads is in the processor, that of the VMCB is of VMRUN\n",
            );
        } else if is_ram {
            let _ = match self.would_run(h) {
                Ok(()) => writeln!(text, "  VMRUN would find no rule broken"),
                Err(failure) => writeln!(text, "  VMRUN would fail: VMEXIT_INVALID: {failure}"),
            };
        }
        if let Some(failure) = self.failure {
            let _ = writeln!(text, "  the last VMRUN that failed: {failure}");
        }
        text
    }

    /// The present VMCB and the host save area, in words.
    pub fn structures(&self, ram: &Ram) -> String {
        let Some(present) = self.present() else { return String::new() };
        let mut text = format!("VMCB {present:#x}, as the processor holds it\n");
        match Vmcb::of_ram(ram, present) {
            Some(memory) => text += &fields(&self.vmcb.with_loaded_of(&memory), Some((&memory, "in memory"))),
            None => text += &fields(&self.vmcb, None),
        }
        let pa = self.msrs.hsave_pa;
        let _ = writeln!(text, "Host save area {pa:#x}");
        match Vmcb::of_ram(ram, pa) {
            Some(v) => {
                let saved = FIELDS.iter().filter(|(_, f)| is_saved_of_host(*f, self.has(Feature::Lbrv)));
                saved.for_each(|(name, f)| line(&mut text, name, &v, *f, None));
            }
            None => text.push_str("  there is no RAM\n"),
        }
        text
    }

    /// The VMCB at this address as memory has it, and what the processor holds of it.
    pub fn vmcb_at(&self, ram: &Ram, pa: u64) -> Result<String, String> {
        if pa & 0xfff != 0 {
            return Err("a VMCB is aligned to 4 KBytes".to_owned());
        }
        let Some(memory) = Vmcb::of_ram(ram, pa) else { return Err("there is no RAM".to_owned()) };
        let mut text = format!("VMCB {pa:#x} in memory, {}\n", self.level_of(pa));
        let held = if self.present() == Some(pa) { Some(&self.vmcb) } else { self.held.other(pa) };
        match held {
            Some(held) => {
                text += "the processor holds it: where it has another value, that is behind memory's\n";
                text += &fields(&memory, Some((&held.with_loaded_of(&memory), "held")));
            }
            None => text += &fields(&memory, None),
        }
        Ok(text)
    }
}

fn line(text: &mut String, name: &str, v: &Vmcb, f: Field, other: Option<(&Vmcb, &str)>) {
    let value = v.get(f);
    let other = other.map(|(v, whose)| (v.get(f), whose)).filter(|(other, _)| *other != value);
    let other = other.map_or_else(String::new, |(other, whose)| format!("  [{whose}: {other:#x}]"));
    let line = format!("  {name:28} {value:#18x}  {}", describe::field(v, f));
    let _ = writeln!(text, "{}{other}", line.trim_end());
}

/// All fields, with the names of their bits; and what somebody else has, where that is something else.
fn fields(v: &Vmcb, other: Option<(&Vmcb, &str)>) -> String {
    let mut text = String::new();
    for (title, is_control) in [("Control area", true), ("State-save area", false)] {
        let _ = writeln!(text, "{title}");
        for (name, f) in FIELDS.iter().filter(|(_, f)| (usize::from(f.offset) < SAVE) == is_control) {
            line(&mut text, name, v, *f, other);
        }
    }
    text
}
