//! A hypervisor of our own for the bare PC around AxVisor's published crates, `x86_vcpu` above all (`guests/axvcpu`): it is built from crates.io and runs
//! its guests on processors of both vendors. What guests find must be as it should, and the exits that the crate reports those that the
//! machine has counted.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Context;
use serde_json::Value;

use crate::boot::{self, outcome};
use crate::determinism;
use crate::suite::{Outcome, Verdict};

/// The target whose `core` and `alloc` it is built with.
const TARGET: &str = "x86_64-unknown-linux-gnu";

/// A vendor's processor, and what is its own.
struct Model {
    /// It, and one without what the crate can do without.
    cpus: [&'static str; 2],
    nested_paging: &'static str,
    /// What the guests find in CR4: the crate shows them VMX's VMXE, which it hides in CPUID.
    cr4: &'static str,
    /// What comes of an MSR that the crate does not know: by VMX the hypervisor is asked, and refuses.
    unknown_msr: &'static [&'static str],
    /// What comes of paging with two levels: by VMX the crate makes it IA-32e mode, and the VM entry fails.
    legacy_paging: &'static str,
    /// What the crate calls exits, and what the processor does.
    exits: &'static [(&'static [&'static str], &'static str)],
    /// Further exits that there must be.
    others: &'static [&'static str],
    /// Rules that a VM entry has broken.
    failed_entries: &'static [&'static str],
}

const MODELS: [Model; 2] = [
    Model {
        cpus: ["intel", "intel,-xsaves,-invpcid,-rdtscp,phys-bits=36"],
        nested_paging: "Ept",
        cr4: "cr4 = 0x2000",
        unknown_msr: &["refuses MSR(0xe1)", "umwait_control = 0xffffffff"],
        legacy_paging: "ends: FailEntry { hardware_entry_failure_reason: 0 }",
        exits: &[
            (&["Hypercall"], "VMCALL"),
            (&["PortIoRead", "PortIoWrite", "PortIoString"], "I/O instruction"),
            (&["NestedPageFault", "MmioRead", "MmioWrite"], "EPT violation"),
            (&["Halt"], "HLT"),
            (&["PreemptionTimer"], "VMX-preemption timer"),
            (&["FailEntry"], "VM-entry failure: guest state"),
        ],
        others: &[
            "APIC access",
            "CPUID",
            "RDMSR",
            "WRMSR",
            "XSETBV",
            "control-register access",
            "external interrupt",
            "interrupt window",
        ],
        failed_entries: &["an IA-32e mode guest only with CR4.PAE"],
    },
    Model {
        cpus: ["amd", "amd,-nrip_save,-vmcb_clean,-flushbyasid,-vgif"],
        nested_paging: "Npt",
        cr4: "cr4 = 0x0",
        unknown_msr: &["umwait_control = 0x0"],
        legacy_paging: "legacy_paging = 0x80000011",
        exits: &[
            (&["Hypercall"], "VMMCALL"),
            (&["PortIoRead", "PortIoWrite", "PortIoString"], "IOIO"),
            (&["Halt"], "HLT"),
            (&["PreemptionTimer"], "INTR"),
        ],
        others: &["CPUID", "CR0_WRITE", "CR3_WRITE", "CR4_WRITE", "MSR", "NPF", "VINTR", "XSETBV"],
        failed_entries: &[],
    },
];

impl Model {
    /// What the hypervisor tells of a guest that does everything.
    fn report(&self) -> Vec<&str> {
        let real =
            ["in real-address mode", "hypervisor = 0x524d5652", "apic_base = 0xfee00900", "real_interrupt = 0x30"];
        let long = ["in 64-bit mode", "efer = 0x500", "is_guest = 0x1", "page_fault = 0x40000000"];
        let memory = [
            "maps GPA(0x200008) for X86AccessFlags(WRITE)",
            "written = 0x1234567",
            "maps GPA(0x400000) for X86AccessFlags(READ)",
            "read = 0xc3c3c3c3",
            "maps GPA(0x600010) for X86AccessFlags(EXECUTE)",
            "fetched = 0xc3c3c3c3",
            "read_only = 0xc3c3c3c3",
            "lets GPA(0x800000) for X86AccessFlags(WRITE)",
            "writable = 0xc3",
        ];
        let devices = ["device = 0x600dfe00", "number = 0x111", "numbers = 0x999", "xcr0 = 0x7"];
        let apic = ["x2apic_id = 0x0", "lstar = 0x10ca1", "apic_version = 0x60014", "tpr = 0x30"];
        let interrupts =
            ["too_early = 0x30", "window = 0x31", "self = 0x32", "timer = 0x33", "woken = 0x33", "busy = 0x34"];
        [&real[..], &[self.cr4], &long, &memory, &devices, self.unknown_msr, &apic, &interrupts].concat()
    }

    /// Whether the console and the summary of a run are as they should.
    fn check(&self, console: &str, summary: &Value) -> Result<(), String> {
        if !console.starts_with(&format!("nested paging: {}\n", self.nested_paging)) {
            return Err(format!("it does not begin with {}", self.nested_paging));
        }
        let legacy = [self.legacy_paging];
        for (vm, expected) in [("vm0", self.report()), ("vm1", self.report()), ("vm2", legacy.to_vec())] {
            let lines = console.lines().filter_map(|line| line.strip_prefix(vm)?.strip_prefix(' '));
            let found: Vec<&str> = lines.filter(|line| !line.starts_with("exits ")).collect();
            if found != expected {
                let at = found.iter().zip(&expected).take_while(|(a, b)| a == b).count();
                return Err(format!("{vm}: {:?}, not {:?}", found.get(at), expected.get(at)));
            }
        }
        let exits = &summary["levels"]["L2"]["exits"];
        for (names, reason) in self.exits {
            let told: u64 = names.iter().map(|name| told(console, name)).sum();
            if told == 0 || exits[reason] != told {
                return Err(format!("{told} exits {names:?}, and {} {reason}", exits[reason]));
            }
        }
        if let Some(absent) = self.others.iter().find(|reason| exits[reason].as_u64().is_none_or(|n| n == 0)) {
            return Err(format!("no exit {absent}"));
        }
        let rules = summary["failed_entries"].as_array().into_iter().flatten().map(|failed| &failed["rule"]);
        let rules: Vec<&Value> = rules.collect();
        if rules != self.failed_entries { Err(format!("VM entries failed by {rules:?}")) } else { Ok(()) }
    }

    /// Runs it twice on a processor, the second time with a snapshot in the middle, and goes on from that.
    fn run(&self, cpu: &str, undervisor: &Path, program: &Path, out: &Path) -> [Outcome; 3] {
        let file = |what: &str| out.join(format!("{cpu}{what}"));
        let start = |what: &str, arguments: &[OsString]| {
            boot::run(undervisor, &file(what), arguments, &["AXVCPU: OK".into()], "")
        };
        let all = |more: &[OsString]| {
            let machine = ["--machine", "pc", "--cpu", cpu, "--kernel"].map(OsString::from);
            [&machine[..], &[program.into()], more].concat()
        };
        let once = start("", &all(&[]));
        let middle = once.as_ref().ok().and_then(|s| s["instructions"].as_u64()).unwrap_or(0) / 2;
        let snapshot = file(".snap").into_os_string();
        let taken = ["--snapshot-at".into(), middle.to_string().into(), "--snapshot".into(), snapshot.clone()];
        let again = start("-again", &all(&taken));
        let restored = start("-restored", &["--restore".into(), snapshot]);
        let checked = once.clone().and_then(|summary| {
            let console = std::fs::read_to_string(file(".console")).map_err(|e| e.to_string())?;
            self.check(&console, &summary).map(|()| summary)
        });
        let states = |what: &str, other| determinism::states(&format!("{cpu}: {what}"), &once, other, true);
        [
            outcome(cpu, checked),
            states("the same state twice", &again),
            states("the same state from a snapshot amid guests", &restored),
        ]
    }
}

/// How many exits of this name the hypervisor has told of.
fn told(console: &str, name: &str) -> u64 {
    let counts = console.lines().filter_map(|line| {
        let (_, exit) = line.split_once(" exits ")?;
        exit.strip_prefix(name)?.strip_prefix(' ')?.parse::<u64>().ok()
    });
    counts.sum()
}

/// Builds the hypervisor from its folder, below another.
fn build(source: &Path, out: &Path) -> anyhow::Result<PathBuf> {
    let mut cargo = Command::new("cargo");
    cargo.args(["build", "--release", "--locked", "--target-dir"]).arg(std::path::absolute(out)?).current_dir(source);
    // The folder says what it is built with.
    for name in ["RUSTFLAGS", "CARGO_ENCODED_RUSTFLAGS", "CARGO_BUILD_TARGET"] {
        cargo.env_remove(name);
    }
    let status = cargo.status().with_context(|| format!("cargo in {}", source.display()))?;
    anyhow::ensure!(status.success(), "cargo in {}: {status}", source.display());
    Ok(out.join(TARGET).join("release/axvcpu"))
}

/// Builds it from its folder and runs it on both vendors' processors.
pub fn run(undervisor: &Path, source: &Path, out: &Path) -> anyhow::Result<Vec<Outcome>> {
    std::fs::create_dir_all(out)?;
    if !cfg!(all(target_arch = "x86_64", target_os = "linux")) {
        let verdict = || Verdict::Skip(format!("it is built on hosts of the kind {TARGET} alone"));
        let cpus = MODELS.iter().flat_map(|m| m.cpus);
        let skipped = cpus.map(|cpu| Outcome { name: cpu.into(), verdict: verdict(), instructions: 0 });
        return Ok(skipped.collect());
    }
    let program = build(source, Path::new("target/axvcpu"))?;
    let runs = MODELS.iter().flat_map(|model| model.cpus.map(|cpu| model.run(cpu, undervisor, &program, out)));
    Ok(runs.flatten().collect())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_is_told_is_what_was_counted_or_it_fails() {
        let model = &MODELS[1];
        let mut console = format!("nested paging: {}\n", model.nested_paging);
        for vm in ["vm0", "vm1"] {
            model.report().iter().for_each(|line| console += &format!("{vm} {line}\n"));
        }
        console += &format!("vm2 {}\n", model.legacy_paging);
        for name in ["Hypercall 3", "PortIoRead 1", "PortIoString 5", "Halt 2", "PreemptionTimer 4"] {
            console += &format!("vm0 exits {name}\n");
        }
        let mut exits = json!({"VMMCALL": 3, "IOIO": 6, "HLT": 2, "INTR": 4});
        model.others.iter().for_each(|name| exits[*name] = 1.into());
        let summary = |exits: &Value| json!({"levels": {"L2": {"exits": exits}}, "failed_entries": []});
        assert_eq!(model.check(&console, &summary(&exits)), Ok(()));
        assert!(model.check(&console.replace("tpr = 0x30", "tpr = 0x0"), &summary(&exits)).is_err());
        assert!(model.check(&console.replace("vm2", "vm3"), &summary(&exits)).is_err());
        exits["IOIO"] = 5.into();
        assert!(model.check(&console, &summary(&exits)).is_err());
    }
}
