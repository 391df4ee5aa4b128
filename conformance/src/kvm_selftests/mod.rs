//! KVM's own selftests, of the packages with the kernels' sources, in kernels of Debian.
//!
//! Each kernel boots once to where it asks which test to run, and is saved there. Every test goes on from that snapshot, so what it does, and
//! after how many instructions it ends, does not depend on what else runs.

mod build;
mod expected;
mod verdict;

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use rayon::prelude::*;

use crate::boot;
use crate::debian::Suite;
use crate::prepare::{self, Prepared, amd64_with_programs};
use crate::suite::{Outcome, Verdict, counts};

pub use expected::Cpu;

/// Kernels, and the tests that run on them: its own; and those of the newer one on the older too, which has bugs that were found since.
const PAIRS: [(Suite, Suite); 3] =
    [(Suite::Trixie, Suite::Trixie), (Suite::Trixie, Suite::Sid), (Suite::Sid, Suite::Sid)];

/// What the guest says when it waits for a test's name.
const ASKS: &str = "UNDERVISOR-SELFTEST: which";

/// A machine may execute so many instructions. Of a test's own time, in virtual seconds, the guest takes care.
const MOST_INSTRUCTIONS: u64 = 100_000_000_000;

/// The kernel's command line. Some tests want KVM's prefix that forces emulation, one processors with fewer physical-address bits than there are.
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

    /// The machine that it goes on from.
    fn machine(&self) -> Machine {
        let (switches, words) = expected::setup(&self.name);
        Machine { kernel: self.kernel, cpu: self.cpu, switches, words }
    }
}

/// A machine with a kernel that asks for a test.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Machine {
    kernel: Suite,
    cpu: Cpu,
    /// Of the processor's model.
    switches: &'static str,
    /// Further words for the kernel.
    words: &'static str,
}

impl Machine {
    fn name(&self) -> String {
        let more = format!("{}{}", self.switches, self.words).replace([',', '+', '.', '=', ' '], "-");
        format!("{}-{}{more}", self.kernel, self.cpu.name())
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

/// One line a test, with the instruction at which its machine has ended, then the counts.
pub fn table(outcomes: &[Outcome]) -> String {
    let mut text = String::new();
    for o in outcomes {
        let (word, why) = match &o.verdict {
            Verdict::Pass => ("PASS", ""),
            Verdict::Fail(why) => ("FAIL", why.as_str()),
            Verdict::Skip(why) => ("SKIP", why.as_str()),
        };
        let _ = writeln!(text, "{word} {} at {} {why}", o.name, o.instructions);
    }
    let [pass, fail, skip] = counts(outcomes);
    let _ = writeln!(text, "{pass} passed, {fail} failed, {skip} skipped");
    text
}

/// The files that the runs need.
pub type Files = boot::Files<Kernel>;

impl Files {
    /// Boots what the tests need, and runs them, two at a time on two processors.
    pub fn run_selftests(&self, tests: &[Test]) -> Vec<Outcome> {
        let machines: BTreeMap<Machine, ()> = tests.iter().map(|test| (test.machine(), ())).collect();
        let booted: BTreeMap<_, _> =
            machines.into_par_iter().map(|(machine, ())| (machine, self.boot(&machine))).collect();
        let one = |test: &Test| match &booted[&test.machine()] {
            Ok(snapshot) => self.judge(test, snapshot),
            Err(why) => {
                let verdict = Verdict::Fail(format!("the kernel did not boot: {why}"));
                Outcome { name: test.name(), verdict, instructions: 0 }
            }
        };
        // One by one: some take long, and they are neighbours.
        tests.par_iter().with_max_len(1).map(one).collect()
    }

    /// Runs a test; one that is expected to fail twice, for it must do so at the same instruction.
    fn judge(&self, test: &Test, snapshot: &Path) -> Outcome {
        let (verdict, instructions) = self.run_selftest(test, snapshot);
        let fails = matches!(verdict, Verdict::Fail(_));
        let judged = expected::judge(test, verdict.clone());
        let again = (judged == Verdict::Pass && fails).then(|| self.run_selftest(test, snapshot));
        let verdict = match again {
            Some(again) if again != (verdict, instructions) => {
                Verdict::Fail(format!("it ends at instruction {instructions}, and in another run at {}", again.1))
            }
            _ => judged,
        };
        Outcome { name: test.name(), verdict, instructions }
    }

    /// Boots a kernel, and saves it where it asks for a test.
    fn boot(&self, machine: &Machine) -> Result<PathBuf, String> {
        let files = self.of(machine.kernel);
        let snapshot = self.out.join(format!("{}.snap", machine.name()));
        let cpu = format!("{}{}", machine.cpu.name(), machine.switches);
        let mut arguments: Vec<OsString> =
            ["--machine", "pc", "--smp", "2", "--memory", "2G", "--cpu", &cpu].map(Into::into).into();
        arguments.extend(["--kernel".into(), files.image.clone().into(), "--initrd".into()]);
        arguments.push(files.initrd.clone().into());
        arguments.extend(["--append".into(), format!("{WORDS}{}", machine.words).into()]);
        arguments.extend(["--expect", ASKS, "--max-instructions", "40000000000", "--snapshot"].map(Into::into));
        arguments.push(snapshot.clone().into());
        self.run_bounded(&machine.name(), &arguments, &[], "")?;
        Ok(snapshot)
    }

    /// Runs a test from a snapshot; how it ended, and at which instruction.
    fn run_selftest(&self, test: &Test, snapshot: &Path) -> (Verdict, u64) {
        let name = test.name();
        let arguments: [OsString; 4] =
            ["--restore".into(), snapshot.into(), "--max-instructions".into(), MOST_INSTRUCTIONS.to_string().into()];
        let typed = format!("{} {}/{}\n", expected::seconds(test), test.suite, test.name);
        let summary = self.run_bounded(&name, &arguments, &[], &typed);
        let instructions = summary.as_ref().ok().and_then(|s| s["instructions"].as_u64()).unwrap_or(0);
        let console = fs::read(self.out.join(format!("{name}.console"))).unwrap_or_default();
        let verdict = match summary {
            Ok(_) => verdict::of(&String::from_utf8_lossy(&console)),
            Err(why) => Verdict::Fail(why),
        };
        (verdict, instructions)
    }
}
