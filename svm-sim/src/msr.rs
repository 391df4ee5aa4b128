//! "SVM Related MSRs".

use emu_core::engine::Step;
use serde::{Deserialize, Serialize};
use x86::exception::Exception;
use x86::extension;
use x86::model::Feature;
use x86::processor::P;

use crate::svm::Svm;
use crate::vmcb::*;

/// Numbers of MSRs.
pub mod number {
    #![allow(missing_docs, reason = "the manual's names")]
    pub const SPEC_CTRL: u32 = 0x48;
    pub const PAT: u32 = 0x277;
    pub const TSC_RATIO: u32 = 0xc000_0104;
    pub const VM_CR: u32 = 0xc001_0114;
    pub const DOORBELL: u32 = 0xc001_011b;
    pub const VM_HSAVE_PA: u32 = 0xc001_0117;
    pub const SVM_KEY: u32 = 0xc001_0118;
}
use number as n;

bits! {
    /// Bits of VM_CR.
    vm_cr {
        DPD = 0, R_INIT = 1, DIS_A20M = 2, LOCK = 3, SVMDIS = 4,
    }
}

/// TSC_RATIO: 1, with 32 bits of fraction.
const RATIO_1: u64 = 1 << 32;

/// The registers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Msrs {
    /// VM_CR.
    pub vm_cr: u64,
    /// VM_HSAVE_PA.
    pub hsave_pa: u64,
    /// TSC_RATIO.
    pub tsc_ratio: u64,
    /// SVM_KEY; reads as 0.
    key: u64,
}

impl Default for Msrs {
    fn default() -> Self {
        Msrs { vm_cr: 0, hsave_pa: 0, tsc_ratio: RATIO_1, key: 0 }
    }
}

impl Svm {
    /// The TSC, scaled for a guest ("TSC Ratio MSR").
    #[inline]
    pub(crate) fn scaled(&self, tsc: u64) -> u64 {
        let ratio = self.msrs.tsc_ratio;
        if ratio == RATIO_1 { tsc } else { ((u128::from(tsc) * u128::from(ratio)) >> 32) as u64 }
    }

    pub(crate) fn read_own_msr(&mut self, h: &mut P, msr: u32) -> Option<Step<u64>> {
        if let Some(read) = self.read_x2apic(h, msr) {
            return Some(read);
        }
        let m = &self.msrs;
        Some(Ok(match msr {
            n::VM_CR => m.vm_cr,
            n::VM_HSAVE_PA => m.hsave_pa,
            n::TSC_RATIO if self.has(Feature::TscScale) => m.tsc_ratio,
            n::SVM_KEY if self.has(Feature::SvmLock) => 0,
            n::SPEC_CTRL if self.virtualizes_spec_ctrl() => self.vmcb.get(SPEC_CTRL),
            n::DOORBELL => return Some(Err(Exception::gp(0).into())),
            _ => return None,
        }))
    }

    pub(crate) fn write_own_msr(&mut self, h: &mut P, msr: u32, value: u64) -> Option<Step> {
        if let Some(written) = self.write_x2apic(h, msr, value) {
            return Some(written);
        }
        let gp = Some(Err(Exception::gp(0).into()));
        match msr {
            n::VM_CR => return Some(self.write_vm_cr(h, value)),
            n::VM_HSAVE_PA => {
                if value & 0xfff != 0 || !self.is_physical(value) {
                    return gp;
                }
                self.msrs.hsave_pa = value;
            }
            n::TSC_RATIO if self.has(Feature::TscScale) => {
                if value >> 40 != 0 {
                    return gp;
                }
                self.msrs.tsc_ratio = value;
            }
            n::SVM_KEY if self.has(Feature::SvmLock) => {
                // "SVM_KEY MSR": written while LOCK is clear, it sets the key; the key that was set clears LOCK and SVMDIS.
                if self.msrs.vm_cr & vm_cr::LOCK == 0 {
                    self.msrs.key = value;
                } else if self.msrs.key != 0 && self.msrs.key == value {
                    self.msrs.vm_cr &= !(vm_cr::LOCK | vm_cr::SVMDIS);
                }
            }
            n::DOORBELL if self.has(Feature::Avic) => {
                if value >> 32 != 0 {
                    return gp;
                }
                extension::ring(h, value as u32);
            }
            n::SPEC_CTRL if self.virtualizes_spec_ctrl() => {
                // What values there are, the processor's own register knows.
                let own = x86::msr::read(h, n::SPEC_CTRL).unwrap_or(0);
                if let Err(refused) = x86::msr::write(h, n::SPEC_CTRL, value) {
                    return Some(Err(refused));
                }
                let _ = x86::msr::write(h, n::SPEC_CTRL, own);
                self.vmcb.set(SPEC_CTRL, value);
            }
            _ => return None,
        }
        Some(Ok(()))
    }

    /// SVMDIS cannot be set while EFER.SVME is; with LOCK, neither of the two can be written.
    fn write_vm_cr(&mut self, h: &P, value: u64) -> Step {
        use vm_cr::{DIS_A20M, DPD, LOCK, R_INIT, SVMDIS};
        let old = self.msrs.vm_cr;
        let refused = value & !(DPD | R_INIT | DIS_A20M | LOCK | SVMDIS) != 0
            || value & SVMDIS != 0 && h.arch.efer & x86::control::efer::SVME != 0;
        if refused {
            return Err(Exception::gp(0).into());
        }
        let kept = if old & LOCK != 0 { LOCK | SVMDIS } else { 0 };
        self.msrs.vm_cr = old & kept | value & !kept;
        Ok(())
    }

    /// "Virtualizing SPEC_CTRL".
    fn virtualizes_spec_ctrl(&self) -> bool {
        self.in_guest && self.has(Feature::VSpecCtrl)
    }
}
