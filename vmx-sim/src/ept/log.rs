//! "Page-Modification Logging": guest-physical addresses of pages whose dirty flags are set, in a page of 512 entries that fills downwards.

use x86::processor::P;

use super::refusal::LOG_FULL;
use crate::control::secondary;
use crate::field::{PML_ADDRESS, PML_INDEX};
use crate::vmx::Vmx;

/// How many entries there are.
const ENTRIES: u64 = 512;

impl Vmx {
    /// An accessed or dirty flag is about to be set: the index must be one of an entry, or else there is a page-modification log-full event.
    pub(super) fn require_room_in_log(&self) -> Result<(), u64> {
        let is_full = self.vmcs.has(secondary::ENABLE_PML) && self.vmcs[PML_INDEX] >= ENTRIES;
        if is_full { Err(LOG_FULL) } else { Ok(()) }
    }

    /// A dirty flag has been set.
    pub(super) fn log_modification(&mut self, h: &mut P, address: u64) {
        if !self.vmcs.has(secondary::ENABLE_PML) {
            return;
        }
        let index = self.vmcs[PML_INDEX];
        let _ = h.write_physical(self.vmcs[PML_ADDRESS] + 8 * index, 8, address & !0xfff);
        self.vmcs[PML_INDEX] = PML_INDEX.cut(index.wrapping_sub(1));
    }
}
