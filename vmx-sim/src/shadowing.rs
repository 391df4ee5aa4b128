//! "VMCS Shadowing" (SDM vol. 3C, "VMCS Types: Ordinary and Shadow"): VMREAD and VMWRITE of a guest, to the shadow VMCS that the VMCS link pointer
//! leads to.

use emu_core::engine::Step;
use x86::extension;
use x86::processor::P;

use crate::control::secondary;
use crate::field::{Field, VMCS_LINK_POINTER};
use crate::vmcs::Vmcs;
use crate::vmx::Vmx;

impl Vmx {
    /// Whether a guest's VMREAD or VMWRITE of the field with this encoding causes a VM exit ("VMCS Shadowing Bitmap Addresses").
    pub(crate) fn shadowing_exits(&self, h: &mut P, bitmap: Field, encoding: u64) -> bool {
        if !self.vmcs.has(secondary::VMCS_SHADOWING) || encoding >> 15 != 0 {
            return true;
        }
        let byte = h.read_physical(self.vmcs[bitmap] + encoding / 8, 1).unwrap_or(0xff);
        byte >> (encoding & 7) & 1 != 0
    }

    /// There is a VMCS for VMREAD and VMWRITE.
    pub(crate) fn has_accessible_vmcs(&self) -> bool {
        if self.in_guest { self.vmcs[VMCS_LINK_POINTER] != u64::MAX } else { self.current.is_some() }
    }

    /// What VMREAD finds in a field.
    pub(crate) fn read_field(&self, h: &mut P, field: Field) -> u64 {
        if self.in_guest { Vmcs::read_in(h, self.vmcs[VMCS_LINK_POINTER], field) } else { self.vmcs[field] }
    }

    /// What VMWRITE does to one.
    pub(crate) fn write_field(&mut self, h: &mut P, field: Field, value: u64) {
        if self.in_guest {
            Vmcs::write_in(h, self.vmcs[VMCS_LINK_POINTER], field, value);
        } else if self.vmcs[field] != value {
            self.vmcs[field] = value;
        }
    }

    /// An access to memory of an instruction that may be a guest's.
    pub(crate) fn access<T>(&mut self, h: &mut P, f: impl FnOnce(&mut P) -> Step<T>) -> Step<T> {
        if !self.in_guest {
            return f(h);
        }
        let (result, after) = extension::as_guest(h, self, |h| (f(h), of(h)));
        *self = after;
        result
    }
}

/// The VMX that stands in a processor.
fn of(h: &P) -> Vmx {
    let extension = h.arch.extension.get().and_then(|e| e.as_any().downcast_ref::<Vmx>());
    extension.expect("VMX is there").clone()
}
