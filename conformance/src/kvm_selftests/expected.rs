//! Which tests end otherwise than with a pass, and why.

use crate::debian::Suite;
use crate::suite::Verdict;

use super::Test;

/// A vendor's model of a processor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Cpu {
    /// With VMX.
    Intel,
    /// With SVM.
    Amd,
}

impl Cpu {
    /// The model's name.
    pub fn name(self) -> &'static str {
        match self {
            Cpu::Intel => "intel",
            Cpu::Amd => "amd",
        }
    }

    /// Whether a test may be for this vendor, by its name.
    pub(super) fn may_run(self, test: &str) -> bool {
        let others: &[&str] = match self {
            Cpu::Intel => &["svm_", "sev_", "hyperv_svm_"],
            Cpu::Amd => &["vmx_", "evmcs_", "hyperv_evmcs"],
        };
        !others.iter().any(|prefix| test.starts_with(prefix))
    }
}

impl std::str::FromStr for Cpu {
    type Err = String;

    fn from_str(name: &str) -> Result<Cpu, String> {
        [Cpu::Intel, Cpu::Amd].into_iter().find(|cpu| cpu.name() == name).ok_or("intel or amd".into())
    }
}

/// Tests that need another machine: switches of the model, further words for the kernel.
const SETUPS: &[(&str, &str, &str)] = &[
    ("vmx_exception_with_invalid_guest_state", "", " kvm_intel.unrestricted_guest=0"),
    ("vmx_nested_la57_state_test", ",+la57", ""),
];

/// The machine that a test needs.
pub(super) fn setup(test: &str) -> (&'static str, &'static str) {
    SETUPS.iter().find(|(name, ..)| *name == test).map_or(("", ""), |(_, switches, words)| (switches, words))
}

/// How a test ends.
#[derive(Clone, Copy, Debug)]
enum End {
    /// It skips itself, and says this.
    Skips(&'static str),
    /// It fails, and says this.
    Fails(&'static str),
}
use End::{Fails, Skips};

/// Where a test does not pass: on this kernel, on this processor, or on all.
#[derive(Clone, Copy)]
struct Where(Option<Suite>, Option<Cpu>);

const ALWAYS: Where = Where(None, None);
const INTEL: Where = Where(None, Some(Cpu::Intel));
const AMD: Where = Where(None, Some(Cpu::Amd));
/// Of sid's tests: trixie's kernel lacks what they are of.
const OLD: Where = Where(Some(Suite::Trixie), None);
const OLD_INTEL: Where = Where(Some(Suite::Trixie), Some(Cpu::Intel));
const OLD_AMD: Where = Where(Some(Suite::Trixie), Some(Cpu::Amd));

/// Tests that do not pass: where, of which suite (of any), how they end, and why. `docs/bugs.md` has more about those that are bugs.
const EXCEPTIONS: &[(&str, Where, Option<Suite>, End, &str)] =
    &[("amx_test", ALWAYS, None, Skips("XTILE_DATA"), "no model has AMX")];

/// What is made of how a test ended: what is expected to fail passes by failing so.
pub(super) fn judge(test: &Test, verdict: Verdict) -> Verdict {
    let is_of = |(name, Where(kernel, cpu), suite, ..): &&(&str, Where, Option<Suite>, End, &str)| {
        *name == test.name
            && kernel.is_none_or(|k| k == test.kernel)
            && cpu.is_none_or(|c| c == test.cpu)
            && suite.is_none_or(|s| s == test.suite)
    };
    match (EXCEPTIONS.iter().find(is_of).map(|(.., end, why)| (*end, why)), verdict) {
        (None, Verdict::Skip(said)) => Verdict::Fail(format!("it skips itself: {said}")),
        (Some((Skips(what), why)), Verdict::Skip(said)) if said.contains(what) => {
            Verdict::Skip(format!("{said}: {why}"))
        }
        (Some((Fails(what), _)), Verdict::Fail(said)) if said.contains(what) => Verdict::Pass,
        (Some((_, why)), Verdict::Pass) => Verdict::Fail(format!("it passes, and was not to: {why}")),
        (Some(_), Verdict::Skip(said)) => Verdict::Fail(format!("it skips itself, otherwise than it was to: {said}")),
        (_, verdict) => verdict,
    }
}
