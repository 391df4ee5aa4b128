//! At which level a guest is: see [`x86::level`]. The level of a VMCS is in its region, where no software may look.

use x86::control::cr4;
use x86::level::Guest;

use crate::exit::Reason;
use crate::field::*;
use crate::vmcs::Vmcs;
use crate::vmx::Vmx;

/// The guest of a VMCS.
fn guest(region: Option<u64>, v: &Vmcs) -> Guest {
    Guest { by: region.unwrap_or(u64::MAX), tables: v.uses_ept().then(|| v[EPT_POINTER]), rip: v[GUEST_RIP] }
}

impl Vmx {
    /// The level at work, if a guest is.
    pub(crate) fn guest_level(&self) -> u8 {
        self.levels.present()
    }

    /// A guest is left. One without VMX cannot ask.
    #[inline]
    pub(crate) fn infer_from_exit(&mut self, reason: Reason) {
        if matches!(reason, Reason::Vmlaunch | Reason::Vmresume) {
            let v = &self.vmcs;
            let cr4 = v[GUEST_CR4] & !v[CR4_MASK] | v[CR4_READ_SHADOW] & v[CR4_MASK];
            if cr4 & cr4::VMXE != 0 {
                let next = v[GUEST_RIP].wrapping_add(v[EXIT_INSTRUCTION_LENGTH]);
                self.levels.asks(guest(self.current, v), next);
            }
        }
    }

    /// A guest is entered.
    #[inline]
    pub(crate) fn infer_from_entry(&mut self) {
        self.vmcs.level = self.levels.enters(self.vmcs.level, || guest(self.current, &self.vmcs));
    }
}

#[cfg(test)]
mod tests {
    use x86::model::CpuModel;

    use super::*;
    use crate::control::{primary, secondary};

    #[test]
    fn a_guest_without_vmx_does_not_ask() {
        for (cr4, level) in [(cr4::VMXE, 3), (0, 2)] {
            let mut v = Vmcs::default();
            v[PRIMARY_CONTROLS] = 1 << primary::ACTIVATE_SECONDARY_CONTROLS.bit;
            v[SECONDARY_CONTROLS] = 1 << secondary::ENABLE_EPT.bit;
            v[GUEST_CR4] = cr4;
            let mut vmx = Vmx::new(&CpuModel::parse("intel").unwrap());
            (vmx.vmcs, vmx.current) = (v.clone(), Some(0x1000));
            vmx.infer_from_entry();
            assert_eq!((vmx.guest_level(), vmx.vmcs.level), (2, 2));
            vmx.infer_from_exit(Reason::Vmlaunch);
            (vmx.vmcs, vmx.current) = (v, Some(0x2000));
            vmx.infer_from_entry();
            assert_eq!((vmx.guest_level(), vmx.vmcs.level), (level, level));
            vmx.infer_from_exit(Reason::Cpuid);
            vmx.infer_from_entry();
            assert_eq!(vmx.guest_level(), level);
        }
    }
}
