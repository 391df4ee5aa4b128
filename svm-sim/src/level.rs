//! At which level a guest is: see [`x86::level`]. VMCBs are software's memory, so a processor remembers the levels of those that it has run last.

use serde::{Deserialize, Serialize};
use x86::level::{Guest, Levels};

use crate::exit::code;
use crate::svm::Svm;
use crate::vmcb::*;

/// How many VMCBs' levels a processor remembers.
const REMEMBERED: usize = 64;
/// Bytes of VMRUN, where nRIP is not saved.
const VMRUN_LENGTH: u64 = 3;

/// What a processor knows of levels.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Known {
    levels: Levels,
    /// Addresses of VMCBs, and their levels: the latest first.
    of: Vec<(u64, u8)>,
}

impl Known {
    /// The level of the VMCB at this address: 0 if it is not known.
    pub(crate) fn level_of(&self, pa: u64) -> u8 {
        self.of.iter().find(|(at, _)| *at == pa).map_or(0, |(_, level)| *level)
    }

    /// The VMCB at this address becomes the first.
    fn turn_to(&mut self, pa: u64) -> &mut u8 {
        if self.of.first().is_none_or(|(at, _)| *at != pa) {
            let found = self.of.iter().position(|(at, _)| *at == pa);
            let of = found.map_or((pa, 0), |i| self.of.remove(i));
            self.of.truncate(REMEMBERED - 1);
            self.of.insert(0, of);
        }
        &mut self.of[0].1
    }
}

/// The guest of the VMCB at this address.
fn guest(pa: u64, v: &Vmcb) -> Guest {
    let is_nested = v.get(NESTED_CONTROL) & nested::NP_ENABLE != 0;
    Guest { by: pa, tables: is_nested.then(|| v.get(N_CR3)), rip: v.get(RIP) }
}

impl Svm {
    /// The level at work, if a guest is.
    pub(crate) fn guest_level(&self) -> u8 {
        self.known.levels.present()
    }

    /// A guest is left. EFER.SVME is 1 in every VMCB: whether the guest has set it its hypervisor knows, which else refuses VMRUN.
    #[inline]
    pub(crate) fn infer_from_exit(&mut self, exit_code: u64) {
        if exit_code == code::VMRUN {
            let v = &self.vmcb;
            let next = match v.get(NRIP) {
                0 => v.get(RIP).wrapping_add(VMRUN_LENGTH),
                next => next,
            };
            self.known.levels.asks(guest(self.present().unwrap_or(u64::MAX), v), next);
        }
    }

    /// A guest is entered.
    #[inline]
    pub(crate) fn infer_from_entry(&mut self) {
        let pa = self.present().unwrap_or(u64::MAX);
        let level = *self.known.turn_to(pa);
        self.known.of[0].1 = self.known.levels.enters(level, || guest(pa, &self.vmcb));
    }
}

#[cfg(test)]
mod tests {
    use x86::model::CpuModel;

    use super::*;

    #[test]
    fn a_vmcb_keeps_its_level_while_it_is_remembered() {
        let mut svm = Svm::new(&CpuModel::parse("amd").unwrap());
        let enter = |svm: &mut Svm, pa: u64| {
            let Svm { held, vmcb, .. } = svm;
            held.turn_to(vmcb, pa);
            svm.infer_from_entry();
            svm.guest_level()
        };
        assert_eq!(enter(&mut svm, 0x1000), 2);
        svm.infer_from_exit(code::CPUID);
        assert_eq!(enter(&mut svm, 0x2000), 2, "nobody has asked");
        enter(&mut svm, 0x1000);
        svm.infer_from_exit(code::VMRUN);
        assert_eq!((enter(&mut svm, 0x3000), enter(&mut svm, 0x1000), enter(&mut svm, 0x3000)), (3, 2, 3));
        assert_eq!((svm.known.level_of(0x3000), svm.known.level_of(0x4000)), (3, 0));
        for pa in 16..15 + REMEMBERED as u64 {
            enter(&mut svm, pa * 0x1000);
        }
        assert_eq!(enter(&mut svm, 0x3000), 3);
        (16..16 + REMEMBERED as u64).for_each(|pa| _ = enter(&mut svm, pa * 0x1000));
        assert_eq!(svm.known.of.len(), REMEMBERED);
        assert_eq!(enter(&mut svm, 0x3000), 2, "forgotten");
    }
}
