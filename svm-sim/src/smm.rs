//! "SMM Support": an SMI that is not intercepted is taken from the guest, and RSM leads back there.
//!
//! AMD's state-save map tells of the guest, and the host's controls of its nested paging. The APM leaves open what RSM does with changes to these words:
//! here they are for reading, and the processor keeps its own.

use x86::extension::GuestInMap;
use x86::processor::P;

use crate::svm::Svm;
use crate::vmcb::*;

/// Bits of the map's SVM state.
mod state {
    pub(super) const GUEST: u64 = 1 << 1;
    pub(super) const NESTED_PAGING: u64 = 1 << 2;
    pub(super) const HOST_IF: u64 = 1 << 3;
}

impl Svm {
    /// The processor enters system management mode.
    pub(crate) fn interrupted_by_smi(&mut self, h: &mut P) -> GuestInMap {
        x86::msr::world_changes(h, false);
        let was_guest = std::mem::take(&mut self.in_guest);
        self.in_smm_from = Some(was_guest);
        if !was_guest {
            return GuestInMap::default();
        }
        let np = self.nested(nested::NP_ENABLE);
        let bit = |on: bool, bit: u64| if on { bit } else { 0 };
        let of_nested = |value: u64| if np { value } else { 0 };
        GuestInMap {
            state: state::GUEST | bit(np, state::NESTED_PAGING) | bit(self.host_if, state::HOST_IF),
            vmcb: self.present().unwrap_or(0),
            virtual_interrupts: self.vmcb.get(VINTR),
            pat: of_nested(h.arch.pat()),
            host_efer: self.host.efer,
            host_cr4: self.host.cr4,
            nested_cr3: of_nested(self.vmcb.get(N_CR3)),
            host_cr0: self.host.cr0,
        }
    }

    /// RSM.
    pub(crate) fn resumed_by_rsm(&mut self, h: &mut P) {
        self.in_guest = self.in_smm_from.take().unwrap_or(self.in_guest);
        x86::msr::world_changes(h, self.in_guest);
        // The doorbell may have been rung in between.
        self.doorbell(h);
    }
}
