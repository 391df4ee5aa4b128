//! Boots of Debian's kernels with KVM and its guest, through the command line of `undervisor`.

use std::ffi::OsString;

use rayon::prelude::*;

use crate::boot::{self, SUITES, outcome};
use crate::debian::Suite;
use crate::determinism::{Runs, Summary};
use crate::prepare::Riscv64;
use crate::suite::Outcome;

/// One boot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Boot {
    /// Its name in tables.
    pub name: String,
    suite: Suite,
    arguments: Vec<String>,
    /// Lines that the console must show.
    expected: Vec<String>,
    /// What is typed, as a pipe.
    input: &'static str,
}

/// What is varied, besides suites. The order of values is that of [`pairwise`].
const HARTS: [u32; 3] = [1, 2, 4];

impl Boot {
    fn new(suite: Suite, harts: u32, aia: bool, sv57: bool, opensbi: bool) -> Self {
        let machine = if aia { "riscv64-virt,aia=aplic-imsic,guests=3" } else { "riscv64-virt" };
        // A hart without Sv48 has no Sv57 either, for its guests neither.
        let cpu = if sv57 { "rv64" } else { "rv64,-sv48" };
        let words = if aia { "kvmtest=aia" } else { "kvmtest" };
        let mut arguments: Vec<String> =
            ["--machine", machine, "--cpu", cpu, "--memory", "1G"].map(String::from).into();
        arguments.extend(["--smp".into(), harts.to_string()]);
        arguments.extend(["--append".into(), format!("console=ttyS0 quiet {words}")]);
        arguments.extend(["--firmware".into(), if opensbi { "OPENSBI" } else { "builtin" }.into()]);
        let name = format!(
            "{suite}-{harts}-{}-{}-{}",
            if aia { "aia" } else { "plic" },
            if sv57 { "sv57x4" } else { "sv39x4" },
            if opensbi { "opensbi" } else { "builtin" }
        );
        let expected = vec![
            format!("UNDERVISOR-SHELL: up harts={harts} "),
            "KVM-CLIENT: mmio count=100000 ".into(),
            "KVM-CLIENT: OK".into(),
            "UNDERVISOR-DONE rc=0".into(),
        ];
        Boot { name, suite, arguments, expected, input: "" }
    }

    fn with(mut self, name: &str, arguments: &[&str]) -> Self {
        self.name = name.into();
        self.arguments.extend(arguments.iter().map(|s| (*s).to_owned()));
        self
    }
}

/// Six boots in which every pair of values of suite, harts, interrupt controller, G-stage and firmware occurs.
pub fn pairwise() -> Vec<Boot> {
    vec![
        Boot::new(Suite::Trixie, 1, false, true, true),
        Boot::new(Suite::Sid, 1, true, false, false),
        Boot::new(Suite::Sid, 2, false, false, true),
        Boot::new(Suite::Trixie, 2, true, true, false),
        Boot::new(Suite::Trixie, 4, false, false, false),
        Boot::new(Suite::Sid, 4, true, true, true),
    ]
}

/// Every combination.
pub fn full() -> Vec<Boot> {
    let mut boots = Vec::new();
    for suite in SUITES {
        for harts in HARTS {
            for bits in 0..8 {
                boots.push(Boot::new(suite, harts, bits & 4 != 0, bits & 2 != 0, bits & 1 != 0));
            }
        }
    }
    boots
}

/// The files that boots need.
pub type Files = boot::Files<Riscv64>;

impl Files {
    /// Runs a boot; returns its summary.
    fn run_one(&self, boot: &Boot) -> Summary {
        let files = self.of(boot.suite);
        let mut arguments: Vec<OsString> = Vec::new();
        if !boot.arguments.iter().any(|a| a == "--restore") {
            arguments.extend(["--kernel".into(), files.image.clone().into(), "--initrd".into()]);
            arguments.push(files.initrd.clone().into());
        }
        arguments.extend(boot.arguments.iter().map(|argument| match argument.as_str() {
            "OPENSBI" => files.fw_dynamic.clone().into(),
            a => a.replace("{out}", &self.out.to_string_lossy()).into(),
        }));
        self.run(&boot.name, &arguments, &boot.expected, boot.input)
    }

    fn outcome(&self, boot: &Boot) -> Outcome {
        outcome(&boot.name, self.run_one(boot))
    }

    /// Runs boots, two at a time on two processors.
    pub fn run_all(&self, boots: &[Boot]) -> Vec<Outcome> {
        boots.par_iter().map(|b| self.outcome(b)).collect()
    }

    /// The same run twice, another seed, a snapshot in the middle, a recording replayed: what must be the same is.
    pub fn determinism(&self) -> Vec<Outcome> {
        let short = |name: &str, arguments: &[&str]| {
            let mut boot = Boot::new(Suite::Trixie, 4, true, true, true).with(name, arguments);
            let at = boot.arguments.iter().position(|a| a == "--append").expect("it has one") + 1;
            boot.arguments[at] = "console=ttyS0 quiet shell kvmtest=none,hello=1,mmio=2000,timer=5".into();
            boot.expected.retain(|e| !e.contains("100000"));
            boot.input = "echo typed $((6*7))\nexit\n";
            boot.expected.push("typed 42".into());
            boot
        };
        let snapshot = ["--seed", "7", "--snapshot-at", "1500000000", "--snapshot", "{out}/mid.snap"];
        let boots = [
            short("once", &["--seed", "7"]),
            short("again-with-snapshot", &snapshot),
            short("other-seed", &["--seed", "8"]),
            short("record", &["--seed", "7", "--record", "{out}/typed.rec"]),
        ];
        let first: Vec<_> = boots.par_iter().map(|b| self.run_one(b)).collect();
        let mut replay = short("replay", &["--seed", "7", "--replay", "{out}/typed.rec"]);
        replay.input = "";
        let mut restore = short("restore", &[]);
        restore.arguments = vec!["--restore".into(), "{out}/mid.snap".into()];
        restore.expected = vec!["UNDERVISOR-DONE rc=0".into()];
        // The input had been read to its end before the snapshot.
        restore.input = "";
        let second: Vec<_> = [&replay, &restore].par_iter().map(|b| self.run_one(b)).collect();

        let [once, again, other_seed, record] = first.try_into().expect("there are four");
        let [replay, restore] = second.try_into().expect("there are two");
        Runs {
            once: &once,
            again: &again,
            other_seed: &other_seed,
            restored: &restore,
            typed: &once,
            recorded: &record,
            replayed: &replay,
        }
        .outcomes("")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_pair_of_values_occurs() {
        let parts = |b: &Boot| b.name.split('-').map(str::to_owned).collect::<Vec<_>>();
        let cover: Vec<_> = pairwise().iter().map(parts).collect();
        for boot in full().iter().map(parts) {
            for i in 0..boot.len() {
                for k in 0..i {
                    assert!(cover.iter().any(|c| c[i] == boot[i] && c[k] == boot[k]), "{} {}", boot[i], boot[k]);
                }
            }
        }
        assert_eq!(full().len(), 48);
    }
}
