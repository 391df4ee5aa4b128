//! "VM Functions".

use emu_core::engine::Step;
use x86::exception::Exception;
use x86::processor::{P, ProcessorExt};
use x86::registers::{RAX, RCX};

use crate::control::secondary;
use crate::exit::{Exit, Reason};
use crate::field::{EPT_POINTER, EPTP_INDEX, EPTP_LIST_ADDRESS, VM_FUNCTION_CONTROLS, VPID};
use crate::vmx::Vmx;

/// The function that switches EPTPs: its number, which is its bit in the VM-function controls.
pub const EPTP_SWITCHING: u64 = 0;
/// Entries of an EPTP list.
const EPTPS: u64 = 512;

impl Vmx {
    /// "General Operation of the VMFUNC Instruction". That the guest has the instruction is known.
    pub(crate) fn vmfunc(&mut self, h: &mut P) -> Step {
        let function = h.reg(RAX) & 0xffff_ffff;
        if function > 63 {
            return Err(Exception::UD.into());
        }
        let is_enabled = self.vmcs[VM_FUNCTION_CONTROLS] >> function & 1 != 0;
        if is_enabled && function == EPTP_SWITCHING && self.switch_eptp(h) {
            return Ok(());
        }
        Err(self.exit(h, Exit::instruction(Reason::Vmfunc)))
    }

    /// "EPTP Switching". Returns whether there is such an EPTP.
    fn switch_eptp(&mut self, h: &mut P) -> bool {
        let index = h.reg(RCX) & 0xffff_ffff;
        if index >= EPTPS {
            return false;
        }
        let eptp = h.read_physical(self.vmcs[EPTP_LIST_ADDRESS] + 8 * index, 8).unwrap_or(u64::MAX);
        if !self.is_ept_pointer(eptp) {
            return false;
        }
        self.vmcs[EPT_POINTER] = eptp;
        if self.vmcs.has(secondary::EPT_VIOLATION_VE) {
            self.vmcs[EPTP_INDEX] = index;
        }
        let vpid = if self.vmcs.has(secondary::ENABLE_VPID) { self.vmcs[VPID] } else { 0 };
        self.tags.enter(vpid, Some(eptp));
        h.core.spaces_changed = true;
        true
    }
}
