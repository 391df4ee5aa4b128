//! Units for x86_64 and i386. They are Multiboot kernels; their environment is a module.

use std::path::Path;

use emu_core::file::File;
use emu_core::machine::{End, Machine};
use x86::model::CpuModel;
use x86::platform::board::Chipset;
use x86::platform::loader::Module;
use x86::platform::pc::{self, CONSOLE, Images, PcConfig};
use x86::processor::X86;

use super::{Text, Unit, qemu, verdicts};
use crate::suite::{self, Outcome, Verdict};

/// Units that ask for what is not a PC's: KVM's own features and hypercalls, Hyper-V's, VMware's, the instruction prefix that KVM emulates.
const OTHERS: &[(&str, &str)] = &[
    ("asyncpf", "KVM's asynchronous page faults"),
    ("hypercall", "KVM's hypercalls"),
    ("vmexit_vmcall", "KVM's hypercalls"),
    ("kvmclock_test", "KVM's clock"),
    ("hyperv_*", "Hyper-V's interface"),
    ("vmware_backdoors", "VMware's ports"),
    ("access_fep", "KVM's prefix for forced emulation"),
    ("*_test_fep", "KVM's prefix for forced emulation"),
];

/// Bytes of memory where a unit does not ask for more: what QEMU gives then.
const MEMORY: u64 = 128 << 20;
/// A turn of one of several processors, in instructions.
const QUANTUM: u64 = 1000;

/// What a unit reads in its environment: that it does not run under KVM, whose hypercalls it may else make.
const ENVIRONMENT: &str = "TEST_DEVICE=0\n";

/// The files that no unit names, as units.
pub(super) fn unlisted(units: &[Unit], dir: &Path) -> std::io::Result<Vec<Unit>> {
    let files = suite::files(dir, |p| p.extension().is_some_and(|e| e == "flat"))?;
    let unit = |file: std::path::PathBuf| {
        let name = file.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        Unit { name, file, smp: 1, ..Unit::default() }
    };
    Ok(files.into_iter().filter(|f| units.iter().all(|u| u.file != *f)).map(unit).collect())
}

/// The machine that a unit wants, or why there is none such.
fn configure(unit: &Unit, config: &PcConfig, cpu: Option<&str>, architecture: &str) -> Result<PcConfig, String> {
    if let Some(only) = unit.architecture.as_deref().filter(|a| *a != architecture) {
        return Err(format!("arch = {only}: these were built for {architecture}"));
    }
    if let Some((_, what)) = OTHERS.iter().find(|(name, _)| super::matches(&unit.name, name)) {
        return Err(format!("it is about {what}"));
    }
    // Processors that wait for one another in loops do so 100,000 times.
    let quantum = if unit.smp > 1 { QUANTUM } else { config.quantum };
    let arguments = unit.arguments.clone();
    // What QEMU's machine is where the list names none: `s3` writes the PIIX4's number for suspend to RAM, `svm` maps RAM as far as that one has it.
    let chipset = Chipset::I440Fx;
    let mut config = PcConfig { vcpus: unit.smp, memory: MEMORY, quantum, arguments, chipset, ..config.clone() };
    qemu::translate(&unit.parameters, cpu, &mut config)?;
    CpuModel::parse(&config.cpu).map_err(|e| format!("-cpu: {e}"))?;
    Ok(config)
}

/// How often a unit may have waited for something when it counts as waiting for ever.
const WAITS: u32 = 10_000_000;

/// Runs a unit to its end; one that only waits, on and on, has come to a deadlock.
fn run_to_end(machine: &mut Machine<X86>, unit: &Unit) -> End {
    machine.stops_when_idle = true;
    for _ in 0..WAITS {
        match machine.run(unit.limit().saturating_sub(machine.retired())) {
            End::Idle(Some(_)) if machine.skip_idle() => {}
            End::Idle(_) => return End::Deadlock,
            end => return end,
        }
    }
    End::Deadlock
}

pub(super) fn run_unit(unit: &Unit, config: &PcConfig, cpu: Option<&str>, architecture: &str) -> Vec<Outcome> {
    let config = match configure(unit, config, cpu, architecture) {
        Ok(config) => config,
        Err(why) => return unit.whole(Verdict::Skip(why)),
    };
    let name = unit.file.display().to_string();
    let bytes = match std::fs::read(&unit.file) {
        Ok(bytes) => bytes,
        Err(e) => return unit.whole(Verdict::Skip(format!("{name}: {e}"))),
    };
    let environment = File { name: "environment".into(), bytes: ENVIRONMENT.into() };
    let images = Images {
        kernel: Some(File { name, bytes }),
        modules: vec![Module { file: environment, arguments: String::new() }],
        ..Images::default()
    };
    let mut machine = match pc::build(&config, &images) {
        Ok(machine) => machine,
        Err(e) => return unit.whole(Verdict::Fail(e.to_string())),
    };
    let text = Text::default();
    machine.world.door.connect_output(CONSOLE, Box::new(text.clone()));
    let end = run_to_end(&mut machine, unit);
    // The exit port doubles the code and adds one.
    let code = if let End::PowerOff(code) = end { Some(code >> 1) } else { None };
    verdicts(unit, &text.take(), end, code, machine.retired())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_run_says_why() {
        let of = |name: &str, architecture: Option<&str>, parameters: &str| {
            let unit = Unit {
                name: name.into(),
                smp: 2,
                parameters: parameters.into(),
                architecture: architecture.map(Into::into),
                ..Unit::default()
            };
            configure(&unit, &PcConfig::default(), None, "x86_64").map(|c| (c.cpu, c.vcpus))
        };
        assert_eq!(of("a", Some("x86_64"), ""), Ok(("intel".into(), 2)));
        assert!(of("a", Some("i386"), "").unwrap_err().contains("built for x86_64"));
        assert!(of("hyperv_clock", None, "").unwrap_err().contains("Hyper-V"));
        assert!(of("a", None, "-device e1000").unwrap_err().contains("-device e1000"));
    }
}
