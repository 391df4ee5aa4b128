//! What boots of all machines share: files for each suite, runs of `undervisor`, and what tables say of them.

use std::ffi::OsString;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::debian::Suite;
use crate::determinism::Summary;
use crate::prepare::Prepared;
use crate::suite::{Outcome, Verdict};

/// The suites whose kernels are booted.
pub(crate) const SUITES: [Suite; 2] = [Suite::Trixie, Suite::Sid];

/// The files that boots need, for each suite.
pub struct Files<T> {
    suites: Vec<(Suite, T)>,
    undervisor: PathBuf,
    /// Where runs leave what they say.
    pub(crate) out: PathBuf,
}

impl<T: Prepared> Files<T> {
    /// Prepares them in `out`, or takes those that were left for each suite in `prepared`.
    pub fn prepare(undervisor: &Path, out: &Path, prepared: Option<&Path>) -> anyhow::Result<Self> {
        fs::create_dir_all(out)?;
        let mut suites = Vec::new();
        for suite in SUITES {
            let files = match prepared {
                Some(dir) => T::at(&dir.join(suite.to_string())),
                None => T::make(suite, &out.join(suite.to_string()))?,
            };
            suites.push((suite, files));
        }
        Ok(Files { suites, undervisor: undervisor.into(), out: out.into() })
    }

    /// Those of a suite.
    pub(crate) fn of(&self, suite: Suite) -> &T {
        &self.suites.iter().find(|(s, _)| *s == suite).expect("every suite was prepared").1
    }

    /// Runs `undervisor run` with further arguments and this input; returns its summary. The console and the summary are left in files of
    /// this name, with a suffix. It must end well, and the console show the lines that are expected.
    pub(crate) fn run(&self, name: &str, arguments: &[OsString], expected: &[String], input: &str) -> Summary {
        let mut bounded = arguments.to_vec();
        bounded.extend(["--max-instructions", "40000000000"].map(Into::into));
        self.run_bounded(name, &bounded, expected, input)
    }

    /// The same with a bound of instructions among the arguments.
    pub(crate) fn run_bounded(&self, name: &str, arguments: &[OsString], expected: &[String], input: &str) -> Summary {
        run(&self.undervisor, &self.out.join(name), arguments, expected, input)
    }
}

/// The same of any program.
pub(crate) fn run(undervisor: &Path, path: &Path, arguments: &[OsString], expected: &[String], input: &str) -> Summary {
    let file = |suffix: &str| PathBuf::from(format!("{}.{suffix}", path.display()));
    let mut command = Command::new(undervisor);
    command.arg("run").args(arguments);
    command.args(["--fail-on", "Kernel panic|Oops", "--json"]);
    let mut child = command
        .arg(file("json"))
        // Where nothing is typed there is no input: that of a pipe ends, which a run that is restored would see anew.
        .stdin(if input.is_empty() { Stdio::null() } else { Stdio::piped() })
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|e| format!("{}: {e}", undervisor.display()))?;
    if let Some(mut stdin) = child.stdin.take() {
        stdin.write_all(input.as_bytes()).map_err(|e| e.to_string())?;
    }
    let output = child.wait_with_output().map_err(|e| e.to_string())?;
    fs::write(file("console"), &output.stdout).map_err(|e| e.to_string())?;
    let console = String::from_utf8_lossy(&output.stdout);
    if output.status.code() != Some(0) {
        let last = console.lines().last().unwrap_or_default().to_owned();
        return Err(format!("{}: {} [{last}]", output.status, String::from_utf8_lossy(&output.stderr).trim()));
    }
    if let Some(line) = expected.iter().find(|e| !console.contains(e.as_str())) {
        return Err(format!("the console does not show `{line}`"));
    }
    let summary = fs::read(file("json")).map_err(|e| e.to_string())?;
    serde_json::from_slice(&summary).map_err(|e| e.to_string())
}

/// What tables say of a run.
pub(crate) fn outcome(name: &str, result: Summary) -> Outcome {
    let instructions = result.as_ref().ok().and_then(|s| s["instructions"].as_u64()).unwrap_or(0);
    let verdict = match result {
        Ok(_) => Verdict::Pass,
        Err(why) => Verdict::Fail(why),
    };
    Outcome { name: name.into(), verdict, instructions }
}
