//! "VMRUN Instruction".

mod checks;
mod inject;
mod load;

use emu_core::engine::Step;
use x86::exception::Exception;
use x86::model::Feature;
use x86::processor::P;

use crate::exit::code;
use crate::svm::Svm;
use crate::vmcb::*;
pub(crate) use load::{load_more, load_state};

/// A rule that a VMCB breaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Failure {
    /// The field's name.
    pub field: &'static str,
    /// What it holds.
    pub value: u64,
    /// The rule.
    pub rule: &'static str,
}

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        write!(f, "{} = {:#x}: {}", self.field, self.value, self.rule)
    }
}

/// The outcome of checks.
pub type Check = Result<(), Failure>;

impl Svm {
    /// VMRUN of the VMCB at a physical address.
    pub(crate) fn vmrun(&mut self, h: &mut P, pa: u64) -> Step {
        if self.msrs.hsave_pa == 0 {
            return Err(Exception::gp(0).into());
        }
        self.save_host(h);
        let is_held = self.held.turn_to(&mut self.vmcb, pa) && self.honours_clean_bits();
        self.vmcb.load(h, pa, is_held);
        h.count_level(1);
        if let Err(failure) = self.check(h) {
            return self.fail(h, failure);
        }
        self.gif = true;
        self.in_guest = true;
        x86::msr::world_changes(h, true);
        self.control_translations(h);
        self.load_guest(h);
        if let Err(failure) = self.load_pdptes(h) {
            return self.fail(h, failure);
        }
        self.note_entry(h);
        self.begin(h);
        Ok(())
    }

    /// "VMCB State Caching". A processor need not hold anything: the model says.
    pub(crate) fn honours_clean_bits(&self) -> bool {
        self.has(Feature::VmcbClean) && self.has(Feature::VmcbCache)
    }

    /// "Canonicalization and Consistency Checks": #VMEXIT(INVALID). The guest's state is not saved.
    fn fail(&mut self, h: &mut P, failure: Failure) -> Step {
        self.failure = Some(failure);
        let v = &mut self.vmcb;
        v.set(EXITCODE, code::INVALID);
        v.set(EXITINFO1, 0);
        v.set(EXITINFO2, 0);
        v.set(EXITINTINFO, 0);
        v.set(NRIP, 0);
        self.note_failed_entry(h, &failure);
        if let Some(pa) = self.held.present() {
            self.vmcb.store_exit(h, pa);
        }
        let stop = self.return_to_host(h);
        if stop.kind() == emu_core::engine::StopKind::Moved {
            h.core.next_pc = h.core.pc;
            return Ok(());
        }
        Err(stop)
    }
}
