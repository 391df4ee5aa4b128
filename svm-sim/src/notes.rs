//! What statistics and listeners are told of VMRUN and #VMEXIT (docs/design.md, decision 10).

use emu_core::event::{Code, Event, Kind, LAST_EXACT, Rule, said, told};
use x86::extension::{self, code_at_rip};
use x86::mode::Mode;
use x86::processor::{P, ProcessorExt};
use x86::registers::RCX;

use crate::describe;
use crate::exit::{Exit, VALID, code};
use crate::svm::Svm;
use crate::vmcb::*;
use crate::vmrun::Failure;

impl Svm {
    /// A guest is left; what is told of it has been recorded, and nothing is loaded yet.
    pub(crate) fn note_exit(&mut self, h: &mut P, e: &Exit) {
        let level = self.guest_level();
        let reason = extension::FIRST_EXIT_SVM + code::index(e.code);
        let events = &mut h.world.events;
        events.count_exit(level, reason);
        events.begin_handling(h.core.index, level, reason, h.core.retired());
        h.count_level(level);
        if h.world.events.is_on() {
            self.tell_exit(h, e, level);
        }
        self.infer_from_exit(e.code);
    }

    #[cold]
    fn tell_exit(&self, h: &mut P, e: &Exit, level: u8) {
        let v = &self.vmcb;
        let details = told([
            ("code", e.code),
            ("info1", e.info_1),
            ("info2", e.info_2),
            ("nrip", v.get(NRIP)),
            ("msr", if e.code == code::MSR { h.reg(RCX) & 0xffff_ffff } else { 0 }),
            ("interrupted", v.get(EXITINTINFO)),
        ]);
        let what = describe::information(e.code, e.info_1, e.info_2);
        let first = describe::injection(v.get(EXITINTINFO));
        let words = said([("what", &what), ("while", &first)]);
        let mode = Mode::of(h.arch);
        let bytes = code_at_rip(h);
        let code = Code { bytes: &bytes, ip: mode.ip(h.core.pc), bits: mode.code.bits() };
        let event = Event {
            level,
            details: &details,
            words: &words,
            to: Some(1),
            code: (!bytes.is_empty()).then_some(code),
            ..h.event(Kind::Exit, code::name(e.code))
        };
        h.world.events.send(&event);
    }

    /// A guest has been entered; what is injected is not delivered yet.
    pub(crate) fn note_entry(&mut self, h: &mut P) {
        self.infer_from_entry();
        let level = self.guest_level();
        let retired = h.core.retired();
        h.world.events.end_handling(h.core.index, retired);
        let injected = self.vmcb.get(EVENTINJ);
        if injected & VALID != 0 {
            h.world.events.count_injection(level, injected as u8 as u32);
        }
        if h.world.events.is_on() {
            self.tell_entry(h, level, injected);
        }
    }

    #[cold]
    fn tell_entry(&self, h: &mut P, level: u8, injected: u64) {
        let v = &self.vmcb;
        let details = told([
            ("vmcb", self.present().unwrap_or(0)),
            ("ncr3", if self.nested(nested::NP_ENABLE) { v.get(N_CR3) } else { 0 }),
            ("asid", v.get(GUEST_ASID)),
            ("rip", v.get(RIP)),
            ("inject", if injected & VALID != 0 { injected } else { 0 }),
        ]);
        let event = describe::injection(injected);
        let words = said([("event", &event)]);
        let event =
            Event { level: 1, details: &details, words: &words, to: Some(level), ..h.event(Kind::Entry, "VMRUN") };
        h.world.events.send(&event);
    }

    /// A virtual interrupt or NMI is delivered to the guest.
    pub(crate) fn note_virtual(&self, h: &mut P, vector: u8) {
        let level = self.guest_level();
        h.world.events.count_injection(level, vector.into());
        if h.world.events.is_on() {
            let details = [("vector", u64::from(vector))];
            let event = Event { level, details: &details, ..h.event(Kind::Injection, "virtual interrupt") };
            h.world.events.send(&event);
        }
    }

    /// VMRUN has failed: why.
    pub(crate) fn note_failed_entry(&self, h: &mut P, failure: &Failure) {
        let Failure { field, value, rule } = *failure;
        let seen = "VMEXIT_INVALID";
        let level = self.present().map_or(0, |pa| self.known.level_of(pa)).max(LAST_EXACT);
        h.world.events.count_exit(level, extension::FIRST_EXIT_SVM + code::index(code::INVALID));
        h.world.events.count_failed_entry(Rule { seen, field, rule }, value);
        if h.world.events.is_on() {
            let details = [("value", value), ("vmcb", self.present().unwrap_or(u64::MAX))];
            let words = [("field", field), ("seen", seen)];
            let event = Event { level: 1, details: &details, words: &words, ..h.event(Kind::FailedEntry, rule) };
            h.world.events.send(&event);
        }
    }
}
