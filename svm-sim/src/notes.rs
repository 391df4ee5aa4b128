//! What statistics and listeners are told of VMRUN and #VMEXIT (docs/design.md, decision 10).

use emu_core::event::{Code, Event, Kind, Rule};
use x86::extension::{self, code_at_rip};
use x86::mode::Mode;
use x86::processor::P;

use crate::exit::{Exit, VALID, code};
use crate::svm::Svm;
use crate::vmcb::*;
use crate::vmrun::Failure;

/// The level of a guest.
const GUEST: u8 = 2;

/// The details that are not 0.
fn told<const N: usize>(details: [(&'static str, u64); N]) -> Vec<(&'static str, u64)> {
    details.into_iter().filter(|(_, value)| *value != 0).collect()
}

impl Svm {
    /// A guest is left; what is told of it has been recorded, and nothing is loaded yet.
    pub(crate) fn note_exit(&mut self, h: &mut P, e: &Exit) {
        let reason = extension::FIRST_EXIT_SVM + code::index(e.code);
        let events = &mut h.world.events;
        events.count_exit(GUEST, reason);
        events.begin_handling(h.core.index, GUEST, reason, h.core.retired());
        h.count_level(GUEST);
        if h.world.events.is_on() {
            self.tell_exit(h, e);
        }
    }

    #[cold]
    fn tell_exit(&self, h: &mut P, e: &Exit) {
        let v = &self.vmcb;
        let details = told([
            ("code", e.code),
            ("info1", e.info_1),
            ("info2", e.info_2),
            ("nrip", v.get(NRIP)),
            ("interrupted", v.get(EXITINTINFO)),
        ]);
        let mode = Mode::of(h.arch);
        let bytes = code_at_rip(h);
        let code = Code { bytes: &bytes, ip: mode.ip(h.core.pc), bits: mode.code.bits() };
        let event = Event {
            level: GUEST,
            details: &details,
            to: Some(1),
            code: (!bytes.is_empty()).then_some(code),
            ..h.event(Kind::Exit, code::name(e.code))
        };
        h.world.events.send(&event);
    }

    /// A guest has been entered; what is injected is not delivered yet.
    pub(crate) fn note_entry(&mut self, h: &mut P) {
        let retired = h.core.retired();
        h.world.events.end_handling(h.core.index, retired);
        let injected = self.vmcb.get(EVENTINJ);
        if injected & VALID != 0 {
            h.world.events.count_injection(GUEST, injected as u8 as u32);
        }
        if h.world.events.is_on() {
            let v = &self.vmcb;
            let details = told([
                ("vmcb", self.present().unwrap_or(0)),
                ("ncr3", if self.nested(nested::NP_ENABLE) { v.get(N_CR3) } else { 0 }),
                ("asid", v.get(GUEST_ASID)),
                ("rip", v.get(RIP)),
                ("inject", if injected & VALID != 0 { injected } else { 0 }),
            ]);
            let event = Event { level: 1, details: &details, to: Some(GUEST), ..h.event(Kind::Entry, "VMRUN") };
            h.world.events.send(&event);
        }
    }

    /// A virtual interrupt or NMI is delivered to the guest.
    pub(crate) fn note_virtual(&self, h: &mut P, vector: u8) {
        h.world.events.count_injection(GUEST, vector.into());
        if h.world.events.is_on() {
            let details = [("vector", u64::from(vector))];
            let event = Event { level: GUEST, details: &details, ..h.event(Kind::Injection, "virtual interrupt") };
            h.world.events.send(&event);
        }
    }

    /// VMRUN has failed: why.
    pub(crate) fn note_failed_entry(&self, h: &mut P, failure: &Failure) {
        let Failure { field, value, rule } = *failure;
        let seen = "VMEXIT_INVALID";
        h.world.events.count_exit(GUEST, extension::FIRST_EXIT_SVM + code::index(code::INVALID));
        h.world.events.count_failed_entry(Rule { seen, field, rule }, value);
        if h.world.events.is_on() {
            let details = [("value", value), ("vmcb", self.present().unwrap_or(u64::MAX))];
            let words = [("field", field), ("seen", seen)];
            let event = Event { level: 1, details: &details, words: &words, ..h.event(Kind::FailedEntry, rule) };
            h.world.events.send(&event);
        }
    }
}
