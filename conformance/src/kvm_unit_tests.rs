//! kvm-unit-tests for riscv64: the units that `riscv/unittests.cfg` lists, each line that they print a test.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use emu_core::door::Output;
use emu_core::machine::End;
use rayon::prelude::*;
use riscv::platform::virt::{self, CONSOLE, File, Firmware, Images, VirtConfig};

use crate::suite::{Outcome, Verdict};

/// Instructions after which a unit is given up.
pub const LIMIT: u64 = 20_000_000_000;

/// A section of unittests.cfg.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Unit {
    name: String,
    file: PathBuf,
    smp: u32,
    arguments: String,
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
                "test_args" => unit.arguments = value.trim_matches('\'').into(),
                _ => {}
            }
        }
    }
    units
}

#[derive(Clone, Default)]
struct Text(Arc<Mutex<Vec<u8>>>);

impl Output for Text {
    fn write(&mut self, bytes: &[u8]) {
        self.0.lock().expect("nobody panics with it").extend(bytes);
    }
}

/// Runs the units of a directory of kvm-unit-tests.
pub fn run(dir: &Path, config: &VirtConfig, firmware: &Firmware) -> std::io::Result<Vec<Outcome>> {
    let dir = dir.join("riscv");
    let list = std::fs::read_to_string(dir.join("unittests.cfg"))?;
    let units = units(&list, &dir);
    Ok(units.par_iter().flat_map(|u| run_unit(u, config, firmware)).collect())
}

fn run_unit(unit: &Unit, config: &VirtConfig, firmware: &Firmware) -> Vec<Outcome> {
    let whole = |verdict| vec![Outcome { name: unit.name.clone(), verdict, instructions: 0 }];
    let name = unit.file.display().to_string();
    let bytes = match std::fs::read(&unit.file) {
        Ok(bytes) => bytes,
        Err(e) => return whole(Verdict::Skip(format!("{name}: {e}"))),
    };
    let images = Images { firmware: firmware.clone(), kernel: Some(File { name: name.clone(), bytes }), initrd: None };
    let config = VirtConfig { harts: unit.smp, bootargs: unit.arguments.clone(), ..config.clone() };
    let mut machine = match virt::build(&config, &images) {
        Ok(machine) => machine,
        Err(e) => return whole(Verdict::Fail(e.to_string())),
    };
    let text = Text::default();
    machine.world.door.connect_output(CONSOLE, Box::new(text.clone()));
    let end = machine.run(LIMIT);
    let bytes = std::mem::take(&mut *text.0.lock().expect("nobody panics with it"));
    let mut outcomes = lines(&unit.name, &String::from_utf8_lossy(&bytes));
    let status = exit_status(&String::from_utf8_lossy(&bytes));
    let failed = outcomes.iter().any(|o| matches!(o.verdict, Verdict::Fail(_)));
    let verdict = match (end, status) {
        (End::PowerOff(_), Some(0)) => Verdict::Pass,
        (End::PowerOff(_), Some(38)) =>
        // half of 77, the code for skipped
        {
            Verdict::Skip("all of it was skipped".into())
        }
        // What failed has its own lines.
        (End::PowerOff(_), Some(1)) if failed => return outcomes,
        _ => Verdict::Fail(format!("{end:?}, status {status:?}")),
    };
    outcomes.push(Outcome { name: format!("{}: ends", unit.name), verdict, instructions: machine.retired() });
    outcomes
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

/// `EXIT: STATUS=n`, where n is twice the exit code and one.
fn exit_status(text: &str) -> Option<u32> {
    let (_, rest) = text.rsplit_once("EXIT: STATUS=")?;
    let digits: String = rest.chars().take_while(char::is_ascii_digit).collect();
    digits.parse::<u32>().ok().map(|n| n >> 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_list_and_the_lines_are_read() {
        let text = "# c\n[a]\nfile = a.flat\nsmp = $MAX_SMP\ntest_args = 'x y'\n\n[b]\nfile = b.flat\n";
        let units = units(text, Path::new("/d"));
        assert_eq!((units[0].smp, units[0].arguments.as_str(), units[1].smp), (4, "x y", 1));
        assert_eq!(units[1].file, Path::new("/d/b.flat"));
        let all = lines("sbi", "PASS: sbi: base: x\r\nINFO: y\nFAIL: time: z\nSKIP: w\n");
        assert_eq!(crate::suite::counts(&all), [1, 1, 1]);
        assert_eq!(all[1].name, "sbi: time: z");
        assert_eq!(exit_status("\nEXIT: STATUS=155\n"), Some(77));
    }
}
