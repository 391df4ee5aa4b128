//! Which tests end otherwise than with a pass, and why.

use crate::debian::Suite;
use crate::suite::Verdict;

use super::Test;

/// A vendor's model of a processor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
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

/// How a test ends.
#[derive(Clone, Copy, Debug)]
enum End {
    /// It is skipped by itself, and says this.
    Skips(&'static str),
    /// It fails, and says this.
    Fails(&'static str),
}

/// A test that does not pass.
struct Exception {
    name: &'static str,
    /// On this kernel only.
    kernel: Option<Suite>,
    /// On this processor only.
    cpu: Option<Cpu>,
    end: End,
    why: &'static str,
}

const EXCEPTIONS: &[Exception] = &[];

/// What is made of how a test ended: what is expected to fail passes by failing so.
pub(super) fn judge(test: &Test, verdict: Verdict) -> Verdict {
    let is_of = |e: &&Exception| {
        e.name == test.name && e.kernel.is_none_or(|k| k == test.kernel) && e.cpu.is_none_or(|c| c == test.cpu)
    };
    match (EXCEPTIONS.iter().find(is_of).map(|e| (e.end, e.why)), verdict) {
        (None, Verdict::Skip(why)) => Verdict::Fail(format!("it is skipped: {why}")),
        (Some((End::Skips(what), why)), Verdict::Skip(said)) if said.contains(what) => {
            Verdict::Skip(format!("{said} ({why})"))
        }
        (Some((End::Fails(what), _)), Verdict::Fail(said)) if said.contains(what) => Verdict::Pass,
        (Some((_, why)), Verdict::Pass) => Verdict::Fail(format!("it passes, and should not: {why}")),
        (_, verdict) => verdict,
    }
}
