//! What statistics and listeners are told of VM entries and VM exits (docs/design.md, decision 10).

use emu_core::event::{Event, Kind, LAST_EXACT, Rule, said, told};
use x86::extension::{self, code_at_rip};
use x86::mode::Mode;
use x86::processor::P;

use crate::describe;
use crate::entry::Failure;
use crate::exit::{ENTRY_FAILURE, Exit, Reason, VALID};
use crate::field::*;
use crate::vmx::Vmx;

impl Vmx {
    /// A guest is left; what is told of it has been recorded, and nothing is loaded yet.
    pub(crate) fn note_exit(&mut self, h: &mut P, e: &Exit) {
        let level = self.guest_level();
        let reason = extension::FIRST_EXIT + e.reason as u32;
        let events = &mut h.world.events;
        events.count_exit(level, reason);
        events.begin_handling(h.core.index, level, reason, h.core.retired());
        h.count_level(level);
        if h.world.events.is_on() {
            self.tell_exit(h, e, level);
        }
        self.infer_from_exit(e.reason);
    }

    #[cold]
    fn tell_exit(&self, h: &mut P, e: &Exit, level: u8) {
        let v = &self.vmcs;
        let of_instruction = |field| if e.is_of_instruction { v[field] } else { 0 };
        let (vectoring, interruption) = (v[IDT_VECTORING_INFORMATION], v[EXIT_INTERRUPTION_INFORMATION]);
        let details = told([
            ("reason", e.reason as u64),
            ("qualification", e.qualification),
            ("length", of_instruction(EXIT_INSTRUCTION_LENGTH)),
            ("information", e.instruction_information.unwrap_or(0)),
            ("linear", e.linear.unwrap_or(0)),
            ("physical", e.physical.unwrap_or(0)),
            ("interruption", interruption),
            ("vectoring", vectoring),
        ]);
        let qualification = describe::qualification(e.reason, e.qualification);
        let event = describe::event(interruption, v[EXIT_INTERRUPTION_ERROR_CODE]);
        let first = describe::event(vectoring, v[IDT_VECTORING_ERROR_CODE]);
        let words = said([("what", &qualification), ("event", &event), ("while", &first)]);
        let mode = Mode::of(h.arch);
        let bytes = code_at_rip(h);
        let code = emu_core::event::Code { bytes: &bytes, ip: mode.ip(h.core.pc), bits: mode.code.bits() };
        let event = Event {
            level,
            details: &details,
            words: &words,
            to: Some(1),
            code: (!bytes.is_empty()).then_some(code),
            ..h.event(Kind::Exit, e.reason.name())
        };
        h.world.events.send(&event);
    }

    /// A guest has been entered; what is injected is not delivered yet.
    pub(crate) fn note_entry(&mut self, h: &mut P, launch: bool) {
        self.infer_from_entry();
        let level = self.guest_level();
        let retired = h.core.retired();
        h.world.events.end_handling(h.core.index, retired);
        let injected = self.vmcs[ENTRY_INTERRUPTION_INFORMATION];
        if injected & VALID != 0 && injected >> 8 & 7 != 7 {
            h.world.events.count_injection(level, injected as u8 as u32);
        }
        if h.world.events.is_on() {
            self.tell_entry(h, launch, level, injected);
        }
    }

    #[cold]
    fn tell_entry(&self, h: &mut P, launch: bool, level: u8, injected: u64) {
        let v = &self.vmcs;
        let details = told([
            ("vmcs", self.current.unwrap_or(0)),
            ("eptp", if v.uses_ept() { v[EPT_POINTER] } else { 0 }),
            ("vpid", v[VPID]),
            ("rip", v[GUEST_RIP]),
            ("inject", if injected & VALID != 0 { injected } else { 0 }),
        ]);
        let event = describe::event(injected, v[ENTRY_EXCEPTION_ERROR_CODE]);
        let words = said([("event", &event)]);
        let name = if launch { "VMLAUNCH" } else { "VMRESUME" };
        let event = Event { level: 1, details: &details, words: &words, to: Some(level), ..h.event(Kind::Entry, name) };
        h.world.events.send(&event);
    }

    /// An interrupt is delivered to the guest by the virtual APIC.
    pub(crate) fn note_virtual_interrupt(&self, h: &mut P, vector: u8) {
        let level = self.guest_level();
        h.world.events.count_injection(level, vector.into());
        if h.world.events.is_on() {
            let details = [("vector", u64::from(vector))];
            let event = Event { level, details: &details, ..h.event(Kind::Injection, "virtual interrupt") };
            h.world.events.send(&event);
        }
    }

    /// A VM entry has failed: what the guest sees of it, and why.
    pub(crate) fn note_failed_entry(&self, h: &mut P, seen: &'static str, failure: &Failure) {
        self.note_refusal(h, seen, failure.field.name(), failure.value, failure.rule, failure.qualification);
    }

    /// Likewise, where no field is to blame.
    pub(crate) fn note_refusal(
        &self,
        h: &mut P,
        seen: &'static str,
        field: &'static str,
        value: u64,
        rule: &'static str,
        qualification: u64,
    ) {
        h.world.events.count_failed_entry(Rule { seen, field, rule }, value);
        if h.world.events.is_on() {
            let details =
                [("value", value), ("vmcs", self.current.unwrap_or(u64::MAX)), ("qualification", qualification)];
            let details = &details[..if qualification == 0 { 2 } else { 3 }];
            let words = [("field", field), ("seen", seen)];
            let event = Event { level: 1, details, words: &words, ..h.event(Kind::FailedEntry, rule) };
            h.world.events.send(&event);
        }
    }

    /// The exit that a failed entry is, in the counts.
    pub(crate) fn count_entry_failure(&self, h: &mut P, reason: Reason) {
        debug_assert!(self.vmcs[EXIT_REASON] & ENTRY_FAILURE != 0);
        h.world.events.count_exit(self.vmcs.level.max(LAST_EXACT), extension::FIRST_EXIT + reason as u32);
    }
}
