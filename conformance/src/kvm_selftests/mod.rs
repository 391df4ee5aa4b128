//! KVM's own selftests, of the packages with the kernels' sources, in kernels of Debian.
//!
//! Each kernel boots once to where it asks which test to run, and is saved there. Every test goes on from that snapshot, so what it does, and
//! after how many instructions it ends, does not depend on what else runs.

mod build;
mod expected;

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};

use rayon::prelude::*;

use crate::boot;
use crate::debian::Suite;
use crate::prepare::{self, Prepared, amd64_with_programs};
use crate::suite::{Outcome, Verdict};

pub use expected::Cpu;

/// Kernels, and the tests that run on them: its own; and those of the newer one on the older too, which has bugs that were found since.
const PAIRS: [(Suite, Suite); 3] =
    [(Suite::Trixie, Suite::Trixie), (Suite::Trixie, Suite::Sid), (Suite::Sid, Suite::Sid)];

/// What the guest says when it waits for a test's name.
const ASKS: &str = "UNDERVISOR-SELFTEST: which";

/// A test may take so many instructions after the snapshot. In virtual time it has a minute, of which the guest itself takes care.
const MOST_INSTRUCTIONS: u64 = 200_000_000_000;

/// The kernel's command line. A test wants KVM's prefix that forces emulation, another processors with fewer physical-address bits than there are.
const WORDS: &str = "console=ttyS0 quiet selftests kvm.force_emulation_prefix=1 kvm_intel.allow_smaller_maxphyaddr=1";

/// A test on a kernel and a processor.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Test {
    kernel: Suite,
    suite: Suite,
    cpu: Cpu,
    name: String,
}

impl Test {
    /// Its name in tables: the kernel's suite, the processor, the suite of the test, and its name there.
    pub fn name(&self) -> String {
        format!("{}-{}-{}-{}", self.kernel, self.cpu.name(), self.suite, self.name)
    }

    /// Whether it runs on this suite's kernel, if it must, and has one of these in its name.
    pub fn is_selected(&self, kernel: Option<Suite>, parts: &[String]) -> bool {
        kernel.is_none_or(|kernel| kernel == self.kernel) && parts.iter().any(|part| self.name().contains(part))
    }

    /// A name for what all tests of a kernel and a processor share.
    fn machine(&self) -> String {
        format!("{}-{}", self.kernel, self.cpu.name())
    }
}

/// A kernel, and an initial RAM file system with tests.
pub struct Kernel {
    image: PathBuf,
    initrd: PathBuf,
}

impl Prepared for Kernel {
    fn make(suite: Suite, out: &Path) -> Result<Self, prepare::Error> {
        let mut programs = Vec::new();
        for (_, tests) in PAIRS.into_iter().filter(|(kernel, _)| *kernel == suite) {
            programs.extend(build::build(tests)?.into_iter().map(|path| {
                let name = path.file_name().unwrap_or_default().to_string_lossy();
                (format!("/selftests/{tests}/{name}"), path)
            }));
        }
        let (image, initrd) = amd64_with_programs(suite, out, &programs)?;
        Ok(Kernel { image, initrd })
    }

    fn at(dir: &Path) -> Self {
        Kernel { image: dir.join("vmlinuz"), initrd: dir.join("initrd.cpio") }
    }
}

/// All tests for a processor.
pub fn all(cpu: Cpu) -> Result<Vec<Test>, prepare::Error> {
    let mut tests = Vec::new();
    for (kernel, suite) in PAIRS {
        for path in build::build(suite)? {
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            if cpu.may_run(&name) {
                tests.push(Test { kernel, suite, cpu, name });
            }
        }
    }
    Ok(tests)
}

/// The files that the runs need.
pub type Files = boot::Files<Kernel>;

impl Files {
    /// Boots what the tests need, and runs them, two at a time on two processors.
    pub fn run_selftests(&self, tests: &[Test]) -> Vec<Outcome> {
        let mut machines: Vec<&Test> = tests.iter().collect();
        machines.dedup_by_key(|test| test.machine());
        let booted: Vec<_> = machines.par_iter().map(|test| self.boot(test)).collect();
        let one = |test: &Test| {
            let at = machines.iter().position(|machine| machine.machine() == test.machine()).expect("each has one");
            let (verdict, instructions) = match &booted[at] {
                Ok(instructions) => self.run_selftest(test, *instructions),
                Err(why) => (Verdict::Fail(format!("the kernel did not boot: {why}")), 0),
            };
            Outcome { name: test.name(), verdict: expected::judge(test, verdict), instructions }
        };
        tests.par_iter().map(one).collect()
    }

    fn snapshot(&self, test: &Test) -> PathBuf {
        self.out.join(format!("{}.snap", test.machine()))
    }

    /// Boots a kernel, and saves it where it asks for a test; how many instructions that took.
    fn boot(&self, test: &Test) -> Result<u64, String> {
        let files = self.of(test.kernel);
        let mut arguments: Vec<OsString> =
            ["--machine", "pc", "--smp", "2", "--memory", "2G", "--cpu", test.cpu.name()].map(Into::into).into();
        arguments.extend(["--kernel".into(), files.image.clone().into(), "--initrd".into()]);
        arguments.extend([files.initrd.clone().into(), "--append".into(), WORDS.into()]);
        arguments.extend(["--expect", ASKS, "--max-instructions", "40000000000", "--snapshot"].map(Into::into));
        arguments.push(self.snapshot(test).into());
        let summary = self.run_bounded(&test.machine(), &arguments, &[], "")?;
        summary["instructions"].as_u64().ok_or("the summary has no instructions".into())
    }

    /// Runs a test from a snapshot; how it ended, and at which instruction.
    fn run_selftest(&self, test: &Test, booted: u64) -> (Verdict, u64) {
        let arguments: [OsString; 4] = [
            "--restore".into(),
            self.snapshot(test).into(),
            "--max-instructions".into(),
            (booted + MOST_INSTRUCTIONS).to_string().into(),
        ];
        let typed = format!("./{}/{}\n", test.suite, test.name);
        let summary = self.run_bounded(&test.name(), &arguments, &[], &typed);
        let instructions = summary.as_ref().ok().and_then(|s| s["instructions"].as_u64()).unwrap_or(0);
        let console = fs::read(self.out.join(format!("{}.console", test.name()))).unwrap_or_default();
        let verdict = match summary {
            Ok(_) => verdict(&String::from_utf8_lossy(&console)),
            Err(why) => Verdict::Fail(why),
        };
        (verdict, instructions)
    }
}

/// What a console says of a test.
fn verdict(console: &str) -> Verdict {
    let lines = || console.lines().map(|line| line.trim_end_matches('\r'));
    let after = |mark: &str| lines().find_map(|line| Some(line.split_once(mark)?.1.trim().to_owned()));
    let failed_at = || {
        let assertion = lines().skip_while(|line| !line.contains("Test Assertion Failure")).nth(1);
        let tap = || lines().find(|line| line.starts_with("not ok"));
        let last = || lines().take_while(|line| !line.starts_with("UNDERVISOR-D")).last();
        assertion.or_else(tap).or_else(last).unwrap_or_default().trim().to_owned()
    };
    // A kernel's own complaint is a failure, however its test sees it.
    let complains = ["WARNING:", "BUG:", "unchecked MSR", "general protection"];
    let complaint = lines().find(|line| line.starts_with('<') && complains.iter().any(|word| line.contains(word)));
    match (after("UNDERVISOR-DONE rc=").as_deref(), complaint) {
        (Some("0"), None) => Verdict::Pass,
        (Some("4"), None) => Verdict::Skip(after("# SKIP").unwrap_or_default().trim_start_matches("- ").into()),
        (Some("137"), _) => Verdict::Fail("it has not ended in a minute of virtual time".into()),
        (Some("0" | "4"), Some(complaint)) => Verdict::Fail(complaint.into()),
        (Some(code), _) => Verdict::Fail(format!("{} (exit code {code})", failed_at())),
        (None, _) => Verdict::Fail("the kernel did not power off".into()),
    }
}
