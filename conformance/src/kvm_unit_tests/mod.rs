//! kvm-unit-tests for riscv64, x86_64 and i386: the units that `unittests.cfg` lists, each line that they print a test.

mod pc;
mod qemu;
mod riscv;

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use ::riscv::platform::virt::{Firmware, VirtConfig};
use emu_core::door::Output;
use emu_core::machine::End;
use rayon::prelude::*;
use x86::platform::pc::PcConfig;

use crate::suite::{Outcome, Verdict};

/// Instructions that a unit may take for each second that the list gives it.
pub const INSTRUCTIONS_PER_SECOND: u64 = 1_000_000_000;
/// Seconds of a unit that says nothing of them.
const SECONDS: u64 = 90;

/// What units are run on.
#[derive(Clone, Debug)]
pub enum Machine {
    /// riscv64-virt.
    Riscv(Box<VirtConfig>, Firmware),
    /// pc. A CPU model that is given counts for all units, with the switches of each behind it.
    Pc(Box<PcConfig>, Option<String>),
}

/// Whether a suite was built for x86.
pub fn is_x86(dir: &Path) -> bool {
    config_value(dir, "TEST_DIR").map_or_else(|| dir.join("x86/unittests.cfg").is_file(), |tests| tests == "x86")
}

/// What `config.mak` says of how it was built.
fn config_value(dir: &Path, key: &str) -> Option<String> {
    let text = std::fs::read_to_string(dir.join("config.mak")).ok()?;
    let value = |line: &str| line.strip_prefix(key)?.strip_prefix('=').map(str::to_owned);
    text.lines().find_map(value)
}

/// A section of unittests.cfg.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Unit {
    name: String,
    file: PathBuf,
    smp: u32,
    arguments: String,
    /// What QEMU is told beside that.
    parameters: String,
    /// The only architecture that it is for.
    architecture: Option<String>,
    seconds: Option<u64>,
}

impl Unit {
    /// Instructions after which it is given up.
    fn limit(&self) -> u64 {
        self.seconds.unwrap_or(SECONDS) * INSTRUCTIONS_PER_SECOND
    }

    /// It was not run as a whole, or failed as a whole.
    fn whole(&self, verdict: Verdict) -> Vec<Outcome> {
        vec![Outcome { name: self.name.clone(), verdict, instructions: 0 }]
    }
}

/// Reads unittests.cfg: sections in brackets, `key = value`, comments.
fn units(text: &str, dir: &Path) -> Vec<Unit> {
    let mut units: Vec<Unit> = Vec::new();
    for line in text.lines().map(str::trim).filter(|l| !l.is_empty() && !l.starts_with('#')) {
        if let Some(name) = line.strip_prefix('[').and_then(|l| l.strip_suffix(']')) {
            units.push(Unit { name: name.into(), smp: 1, ..Unit::default() });
        } else if let (Some(unit), Some((key, value))) = (units.last_mut(), line.split_once('=')) {
            let value = value.trim();
            match key.trim() {
                "file" => unit.file = dir.join(value),
                "smp" => unit.smp = value.parse().unwrap_or(4), // $MAX_SMP
                "test_args" => unit.arguments = value.trim_matches(['\'', '"']).into(),
                "qemu_params" | "extra_params" => unit.parameters = value.into(),
                "arch" => unit.architecture = Some(value.into()),
                "timeout" => unit.seconds = value.parse().ok(),
                // "accel" and "check" tell of KVM's host, "groups" of nothing that counts here.
                _ => {}
            }
        }
    }
    units
}

/// Whether a name is one of those that a list of patterns with `*` means; an empty list means all.
fn is_meant(name: &str, patterns: &[String]) -> bool {
    patterns.is_empty() || patterns.iter().any(|p| matches(name, p))
}

/// `*` in a pattern stands for anything.
fn matches(name: &str, pattern: &str) -> bool {
    match pattern.split_once('*') {
        None => name == pattern,
        Some((head, rest)) => {
            let Some(tail) = name.strip_prefix(head) else { return false };
            (0..=tail.len()).filter(|i| tail.is_char_boundary(*i)).any(|i| matches(&tail[i..], rest))
        }
    }
}

#[derive(Clone, Default)]
struct Text(Arc<Mutex<Vec<u8>>>);

impl Text {
    fn take(&self) -> String {
        String::from_utf8_lossy(&self.0.lock().expect("nobody panics with it")).into_owned()
    }
}

impl Output for Text {
    fn write(&mut self, bytes: &[u8]) {
        self.0.lock().expect("nobody panics with it").extend(bytes);
    }
}

/// Runs those units of a directory of kvm-unit-tests that a list of patterns means.
pub fn run(dir: &Path, machine: &Machine, patterns: &[String]) -> std::io::Result<Vec<Outcome>> {
    let tests = dir.join(if matches!(machine, Machine::Riscv(..)) { "riscv" } else { "x86" });
    let list = std::fs::read_to_string(tests.join("unittests.cfg"))?;
    let mut units = units(&list, &tests);
    if matches!(machine, Machine::Pc(..)) {
        units.extend(pc::unlisted(&units, &tests)?);
    }
    units.retain(|u| is_meant(&u.name, patterns));
    let architecture = config_value(dir, "ARCH").unwrap_or_else(|| "x86_64".into());
    let run_unit = |u: &Unit| match machine {
        Machine::Riscv(config, firmware) => riscv::run_unit(u, config, firmware),
        Machine::Pc(config, cpu) => pc::run_unit(u, config, cpu.as_deref(), &architecture),
    };
    Ok(units.par_iter().flat_map(run_unit).collect())
}

/// What a unit has printed, and how it ended. Its exit code is 77 if it skipped everything, of which a machine may tell half.
fn verdicts(unit: &Unit, text: &str, end: End, code: Option<u32>, instructions: u64) -> Vec<Outcome> {
    let mut outcomes = lines(&unit.name, text);
    let failed = outcomes.iter().any(|o| matches!(o.verdict, Verdict::Fail(_)));
    let verdict = match (end, code) {
        (End::PowerOff(_), Some(0)) => Verdict::Pass,
        (End::PowerOff(_), Some(77 | 38)) => Verdict::Skip("all of it was skipped".into()),
        // What failed has its own lines.
        (End::PowerOff(_), Some(1)) if failed => return outcomes,
        (End::Limit, _) => Verdict::Fail(format!("no end after {instructions} instructions")),
        _ => Verdict::Fail(format!("{end:?}, code {code:?}, behind: {}", last_words(text))),
    };
    outcomes.push(Outcome { name: format!("{}: ends", unit.name), verdict, instructions });
    outcomes
}

/// The last line that says something of what went wrong, or just the last one.
fn last_words(text: &str) -> &str {
    let mut lines = text.lines().rev().map(str::trim).filter(|l| !l.is_empty());
    let told = lines.clone().find(|l| l.contains("nhandled") || l.contains("ssert"));
    told.or_else(|| lines.next()).unwrap_or("nothing")
}

/// The tests that a unit has printed.
fn lines(unit: &str, text: &str) -> Vec<Outcome> {
    let mut outcomes = Vec::new();
    for line in text.lines() {
        let Some((word, rest)) = line.trim_end().split_once(": ") else { continue };
        let verdict = match word {
            "PASS" => Verdict::Pass,
            "FAIL" => Verdict::Fail("the unit says so".into()),
            "SKIP" => Verdict::Skip("the unit says so".into()),
            "XPASS" => Verdict::Fail("it passes, and was expected not to".into()),
            _ => continue,
        };
        let name = if rest.starts_with(unit) { rest.to_owned() } else { format!("{unit}: {rest}") };
        outcomes.push(Outcome { name, verdict, instructions: 0 });
    }
    outcomes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_list_and_the_lines_are_read() {
        let text = "# c\n[a]\nfile = a.flat\nsmp = $MAX_SMP\ntest_args = 'x y'\ntimeout = 30\n\n[b]\nfile = b.flat\narch = i386\n";
        let units = units(text, Path::new("/d"));
        assert_eq!((units[0].smp, units[0].arguments.as_str(), units[1].smp), (4, "x y", 1));
        assert_eq!((units[0].limit(), units[1].limit()), (30_000_000_000, 90_000_000_000));
        assert_eq!((units[0].architecture.as_deref(), units[1].architecture.as_deref()), (None, Some("i386")));
        assert_eq!(units[1].file, Path::new("/d/b.flat"));
        let all = lines("sbi", "PASS: sbi: base: x\r\nINFO: y\nFAIL: time: z\nSKIP: w\n");
        assert_eq!(crate::suite::counts(&all), [1, 1, 1]);
        assert_eq!(all[1].name, "sbi: time: z");
    }

    #[test]
    fn how_a_unit_ended() {
        let unit = Unit { name: "u".into(), ..Unit::default() };
        let of = |text: &str, end, code| verdicts(&unit, text, end, code, 7).pop().unwrap().verdict;
        assert_eq!(of("PASS: a\n", End::PowerOff(1), Some(0)), Verdict::Pass);
        assert!(matches!(of("", End::PowerOff(155), Some(77)), Verdict::Skip(_)));
        assert_eq!(of("FAIL: a\n", End::PowerOff(3), Some(1)), Verdict::Fail("the unit says so".into()));
        let Verdict::Fail(why) = of("Unhandled exception 6\n\tSTACK: @1\n", End::PowerOff(127), Some(63)) else {
            panic!()
        };
        assert!(why.ends_with("Unhandled exception 6"));
    }

    #[test]
    fn patterns_mean_names() {
        let meant = |name, list: &[&str]| is_meant(name, &list.iter().map(|p| (*p).into()).collect::<Vec<_>>());
        assert!(meant("vmx", &[]) && meant("vmx_smp", &["ept*", "vmx*"]) && meant("a_b_c", &["a*b*c"]));
        assert!(!meant("svm", &["vmx*"]) && !meant("pmu_lbr", &["pmu"]) && !meant("a_b", &["a*b*c"]));
    }
}
