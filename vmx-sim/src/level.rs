//! At which level a guest is. Root and non-root operation are told apart exactly: levels 1 and 2. What of non-root operation is a guest's guest is
//! inferred (docs/design.md, decision 10), from what can be seen of the hypervisor: a guest that has VMX enabled exits by VMLAUNCH or VMRESUME,
//! and then its hypervisor enters a VMCS that has never been entered before. That VMCS is one level deeper, from then on; KVM calls it vmcs02.
//! A hypervisor that has but one VMCS enters that with another EPTP, and not behind the instruction; it comes back with the first EPTP.
//!
//! A guest of a guest's guest, whose hypervisor's hypervisor has one VMCS for all below itself, cannot be told from its hypervisor.
//! No instruction depends on any of this. The level of a VMCS is in its region, where no software may look.

use emu_core::event::{LAST_EXACT, LEVELS};
use serde::{Deserialize, Serialize};
use x86::control::cr4;

use crate::exit::Reason;
use crate::field::*;
use crate::vmx::Vmx;

/// A guest has asked for a VM entry of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Asked {
    /// The VMCS that it runs by, its level, and EPTP.
    region: u64,
    level: u8,
    eptp: u64,
    /// Where the instruction is, and what comes behind it.
    rip: [u64; 2],
}

/// What a processor knows of levels.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Levels {
    /// Of the guest at work.
    present: u8,
    /// A guest has asked, and has not been answered yet.
    asked: Option<Asked>,
    /// This VMCS serves a guest's guest, in the place of the guest with this EPTP.
    within: Option<(u64, u64)>,
}

fn deeper(level: u8) -> u8 {
    (level + 1).min(LEVELS as u8 - 1)
}

impl Vmx {
    /// The level at work, if a guest is.
    pub(crate) fn guest_level(&self) -> u8 {
        self.levels.present.max(LAST_EXACT)
    }

    /// A guest is left.
    #[inline]
    pub(crate) fn infer_from_exit(&mut self, reason: Reason) {
        if matches!(reason, Reason::Vmlaunch | Reason::Vmresume) {
            self.asks();
        }
    }

    #[cold]
    fn asks(&mut self) {
        let v = &self.vmcs;
        let cr4 = v[GUEST_CR4] & !v[CR4_MASK] | v[CR4_READ_SHADOW] & v[CR4_MASK];
        let Some(region) = self.current.filter(|_| cr4 & cr4::VMXE != 0) else { return };
        let (rip, length) = (v[GUEST_RIP], v[EXIT_INSTRUCTION_LENGTH]);
        let rip = [rip, rip.wrapping_add(length)];
        self.levels.asked = Some(Asked { region, level: self.guest_level(), eptp: v[EPT_POINTER], rip });
    }

    /// A guest is entered.
    #[inline]
    pub(crate) fn infer_from_entry(&mut self) {
        let (level, l) = (self.vmcs.level, &mut self.levels);
        if level != 0 && l.asked.is_none() && l.within.is_none() {
            l.present = level;
        } else {
            self.infer();
        }
    }

    #[cold]
    fn infer(&mut self) {
        let region = self.current.unwrap_or(u64::MAX);
        let (v, l) = (&mut self.vmcs, &mut self.levels);
        let is_answer = |a: &mut Asked| a.region == region || v.level == 0;
        let answered = l.asked.take_if(is_answer);
        if let Some(a) = answered.filter(|a| a.region != region) {
            v.level = deeper(a.level);
        }
        v.level = v.level.max(LAST_EXACT);
        let eptp = v[EPT_POINTER];
        if let Some(a) = answered.filter(|a| a.region == region)
            && v.uses_ept()
            && a.eptp != eptp
            && !a.rip.contains(&v[GUEST_RIP])
        {
            l.within.get_or_insert((region, a.eptp));
        }
        // It is back.
        l.within.take_if(|(of, first)| *of == region && *first == eptp);
        let is_within = l.within.is_some_and(|(of, _)| of == region);
        l.present = if is_within { deeper(v.level) } else { v.level };
    }
}

#[cfg(test)]
mod tests {
    use x86::model::CpuModel;

    use super::*;
    use crate::control::{primary, secondary};
    use crate::vmcs::Vmcs;

    /// A processor and its VMCSs in memory, by number.
    struct Rig {
        vmx: Vmx,
        regions: Vec<Vmcs>,
        current: usize,
    }

    impl Rig {
        fn new() -> Self {
            let mut v = Vmcs::default();
            v[PRIMARY_CONTROLS] = 1 << primary::ACTIVATE_SECONDARY_CONTROLS.bit;
            v[SECONDARY_CONTROLS] = 1 << secondary::ENABLE_EPT.bit;
            v[GUEST_CR4] = cr4::VMXE;
            Rig { vmx: Vmx::new(&CpuModel::parse("intel").unwrap()), regions: vec![v; 4], current: 0 }
        }

        /// Enters a VMCS at a RIP with an EPTP; the level.
        fn enter(&mut self, n: usize, rip: u64, eptp: u64) -> u8 {
            self.regions[self.current] = self.vmx.vmcs.clone();
            self.current = n;
            self.vmx.vmcs = self.regions[n].clone();
            self.vmx.current = Some(n as u64 * 4096);
            (self.vmx.vmcs[GUEST_RIP], self.vmx.vmcs[EPT_POINTER]) = (rip, eptp);
            self.vmx.infer_from_entry();
            self.vmx.guest_level()
        }

        fn exit(&mut self, reason: Reason) {
            self.vmx.vmcs[EXIT_INSTRUCTION_LENGTH] = 3;
            self.vmx.infer_from_exit(reason);
        }
    }

    #[test]
    fn another_vmcs_is_a_guests_guest() {
        let mut r = Rig::new();
        r.vmx.vmcs = r.regions[0].clone();
        assert_eq!(r.enter(0, 0x100, 1), 2);
        r.exit(Reason::Vmlaunch);
        assert_eq!(r.enter(1, 0x200, 2), 3);
        r.exit(Reason::Cpuid);
        assert_eq!(r.enter(1, 0x202, 2), 3, "its hypervisor's hypervisor acts for it");
        r.exit(Reason::ExternalInterrupt);
        assert_eq!(r.enter(2, 0x300, 3), 2, "another guest, which nobody has asked for");
        r.exit(Reason::Hlt);
        assert_eq!((r.enter(0, 0x103, 1), r.enter(1, 0x204, 2)), (2, 3));
        // A VMRESUME that fails: the guest goes on behind it. Nor does one ask that has no VMX.
        assert_eq!(r.enter(0, 0x103, 1), 2);
        r.exit(Reason::Vmresume);
        assert_eq!((r.enter(0, 0x106, 1), r.enter(3, 0x400, 4)), (2, 2));
        let mut r = Rig::new();
        r.regions[0][GUEST_CR4] = 0;
        r.vmx.vmcs = r.regions[0].clone();
        r.enter(0, 0x100, 1);
        r.exit(Reason::Vmlaunch);
        assert_eq!(r.enter(1, 0x200, 2), 2);
    }

    #[test]
    fn so_is_another_eptp_elsewhere() {
        let mut r = Rig::new();
        r.vmx.vmcs = r.regions[0].clone();
        assert_eq!(r.enter(0, 0x100, 1), 2);
        r.exit(Reason::Vmlaunch);
        assert_eq!(r.enter(0, 0x103, 5), 2, "behind the instruction: tables were made anew");
        r.exit(Reason::Vmlaunch);
        assert_eq!(r.enter(0, 0x200, 2), 3);
        r.exit(Reason::EptViolation);
        assert_eq!(r.enter(0, 0x200, 2), 3);
        r.exit(Reason::Hlt);
        assert_eq!(r.enter(0, 0x106, 5), 2, "it is back");
        r.exit(Reason::Vmresume);
        assert_eq!(r.enter(0, 0x201, 2), 3);
    }
}
