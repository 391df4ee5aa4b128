//! A processor's VMX and its VMCSs as text: for `inspect` and debuggers. Nothing is changed.

use std::fmt::Write as _;

use emu_core::bus::Space;
use x86::processor::P;

use crate::capability::REVISION;
use crate::describe;
use crate::entry::Failure;
use crate::field::*;
use crate::vmcs::{SHADOW, Vmcs};
use crate::vmx::Vmx;

impl Vmx {
    /// Whether the current VMCS could be entered as it is, launch state and MSR lists aside: else what the guest would see, and the rule.
    pub fn would_enter(&self, h: &mut P) -> Result<(), (&'static str, Failure)> {
        self.check_controls(h).map_err(|f| ("error 7", f))?;
        self.check_host(h).map_err(|f| ("error 8", f))?;
        self.check_guest(h).map_err(|f| ("exit 33", f))
    }

    /// Memory that checks of a VM entry read is a device's: a look would change it.
    fn names_a_device(&self, h: &P) -> bool {
        let read = [VIRTUAL_APIC_ADDRESS, VMCS_LINK_POINTER, GUEST_CR3].map(|f| self.vmcs[f] & !0xfff);
        let is_device =
            |at: u64| (0..0x1000).step_by(4).any(|i| h.world.bus.device_at(Space::Memory, at | i).is_some());
        read.into_iter().any(is_device)
    }

    /// VMX operation in a few lines.
    pub fn summary(&self, h: &mut P) -> String {
        let mut text = String::new();
        let Some(vmxon) = self.vmxon else {
            return format!("VMX: off; IA32_FEATURE_CONTROL {:#x}\n", self.feature_control);
        };
        let mode = match (self.is_on(), self.in_guest) {
            (false, _) => "interrupted by system management mode".to_owned(),
            (_, true) => format!("non-root operation, {}", emu_core::event::level_name(self.guest_level())),
            _ => "root operation".to_owned(),
        };
        let _ = writeln!(text, "VMX: {mode}; VMXON region {vmxon:#x}");
        let Some(current) = self.current else {
            text.push_str("  no current VMCS\n");
            return text;
        };
        let _ = writeln!(text, "  current VMCS {current:#x}, {}", state(&self.vmcs));
        if self.in_guest {
            text.push_str(
                "  its guest is at work: guest state is in the processor, that of the VMCS is of the last VM entry\n",
            );
        } else if self.vmcs.is_shadow {
            text.push_str("  a VM entry would fail: VMfailInvalid: it is a shadow VMCS\n");
        } else if self.names_a_device(h) {
            text.push_str("  whether it could be entered is not looked at: it names a device's registers\n");
        } else {
            let _ = match self.would_enter(h) {
                Ok(()) => writeln!(text, "  a VM entry would find no rule broken"),
                Err((seen, failure)) => writeln!(text, "  a VM entry would fail: {seen}: {failure}"),
            };
        }
        if let Some(failure) = self.failure {
            let _ = writeln!(text, "  the last VM entry that failed: {failure}");
        }
        text
    }
}

/// Launch state and kind.
fn state(v: &Vmcs) -> String {
    let launched = if v.is_launched { "launched" } else { "clear" };
    let shadow = if v.is_shadow { ", a shadow VMCS" } else { "" };
    let level = match v.level {
        0 => "never entered".to_owned(),
        level => format!("guest at {}", emu_core::event::level_name(level)),
    };
    format!("{launched}{shadow}, {level}")
}

/// All fields of a VMCS, with the names of their bits.
pub fn fields(v: &Vmcs) -> String {
    let groups = [
        (Type::Exit, "VM-exit information fields"),
        (Type::Control, "VM-execution, VM-exit, and VM-entry control fields"),
        (Type::Guest, "Guest-state area"),
        (Type::Host, "Host-state area"),
    ];
    let mut text = String::new();
    for (kind, title) in groups {
        let _ = writeln!(text, "{title}");
        for f in Field::all().filter(|f| f.kind() == kind) {
            let line = format!("  {:44} {:#18x}  {}", f.name(), v[f], describe::field(v, f));
            let _ = writeln!(text, "{}", line.trim_end());
        }
    }
    text
}

/// The VMCS in a region of memory.
pub fn region(h: &mut P, region: u64) -> Result<String, String> {
    let Ok(revision) = h.world.ram.load(region, 4) else { return Err("there is no RAM".to_owned()) };
    if region & 0xfff != 0 {
        return Err("a VMCS region is aligned to 4 KBytes".to_owned());
    }
    if revision as u32 & !SHADOW != REVISION {
        return Err(format!("no VMCS: its first word is {revision:#x}, expected the revision {REVISION:#x}"));
    }
    let v = Vmcs::load(h, region);
    Ok(format!("VMCS {region:#x} in memory, {}\n{}", state(&v), fields(&v)))
}
