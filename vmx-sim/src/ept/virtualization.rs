//! "Virtualization Exceptions": EPT violations that become #VE in the guest.
//!
//! ```text
//! 0: exit reason   4: FFFFFFFFH until software clears it   8: exit qualification   16: linear   24: guest-physical   32: EPTP index
//! ```

use x86::control::cr0;
use x86::exception::{Exception, vector};
use x86::processor::P;

use super::refusal::CONVERTIBLE;
use crate::control::secondary;
use crate::exit::{Exit, Reason};
use crate::field::{EPTP_INDEX, VIRTUALIZATION_EXCEPTION_INFORMATION_ADDRESS};
use crate::vmx::Vmx;

impl Vmx {
    /// Makes #VE of an EPT violation, if it is one that becomes such: "Convertible EPT Violations", "Virtualization-Exception Information".
    pub(super) fn virtualization_exception(&self, h: &mut P, why: u64, exit: &Exit) -> Option<Exception> {
        let becomes = why & CONVERTIBLE != 0 && h.arch.cr0 & cr0::PE != 0 && h.arch.delivering.is_none();
        if !becomes || !self.vmcs.has(secondary::EPT_VIOLATION_VE) {
            return None;
        }
        let area = self.vmcs[VIRTUALIZATION_EXCEPTION_INFORMATION_ADDRESS];
        if h.read_physical(area + 4, 4).unwrap_or(u64::MAX) as u32 != 0 {
            return None;
        }
        let words = [
            (0, 8, Reason::EptViolation as u64 | 0xffff_ffff << 32),
            (8, 8, exit.qualification),
            (16, 8, exit.linear.unwrap_or(0)),
            (24, 8, exit.physical.unwrap_or(0)),
            (32, 2, self.vmcs[EPTP_INDEX]),
        ];
        for (offset, size, value) in words {
            let _ = h.write_physical(area + offset, size, value);
        }
        Some(Exception::plain(vector::VE))
    }
}
