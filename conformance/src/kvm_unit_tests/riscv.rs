//! Units for riscv64.

use riscv::platform::virt::{self, CONSOLE, File, Firmware, Images, VirtConfig};

use super::{Text, Unit, verdicts};
use crate::suite::{Outcome, Verdict};

pub(super) fn run_unit(unit: &Unit, config: &VirtConfig, firmware: &Firmware) -> Vec<Outcome> {
    let name = unit.file.display().to_string();
    let bytes = match std::fs::read(&unit.file) {
        Ok(bytes) => bytes,
        Err(e) => return unit.whole(Verdict::Skip(format!("{name}: {e}"))),
    };
    let images = Images { firmware: firmware.clone(), kernel: Some(File { name, bytes }), initrd: None };
    let config = VirtConfig { harts: unit.smp, bootargs: unit.arguments.clone(), ..config.clone() };
    let mut machine = match virt::build(&config, &images) {
        Ok(machine) => machine,
        Err(e) => return unit.whole(Verdict::Fail(e.to_string())),
    };
    let text = Text::default();
    machine.world.door.connect_output(CONSOLE, Box::new(text.clone()));
    let end = machine.run(unit.limit());
    let text = text.take();
    verdicts(unit, &text, end, exit_code(&text), machine.retired())
}

/// `EXIT: STATUS=n`, where n is twice the exit code and one.
fn exit_code(text: &str) -> Option<u32> {
    let (_, rest) = text.rsplit_once("EXIT: STATUS=")?;
    let digits: String = rest.chars().take_while(char::is_ascii_digit).collect();
    digits.parse::<u32>().ok().map(|n| n >> 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_status_tells_the_code() {
        assert_eq!(exit_code("\nEXIT: STATUS=155\n"), Some(77));
        assert_eq!(exit_code("PASS: x"), None);
    }
}
