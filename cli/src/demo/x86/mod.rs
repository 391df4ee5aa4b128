//! VMX and SVM: a hypervisor of our own (L1) runs one (L2) that runs a guest (L3).

mod code;
mod svm;
mod vmx;

use std::fmt::Write as _;

use emu_core::event::{Event, Kind, Sink, level_name};
use emu_core::machine::{End, Machine};
use x86::control::cr0;
use x86::platform::pc::{self, CONSOLE, PcConfig};
use x86::processor::X86;
use x86::registers::RSP;

use super::{Screen, Shared};
use crate::error::{UserError, print};

/// Exits: instruction count, the level that is left, why.
type Exits = Shared<Vec<(u64, u8, String)>>;

struct Watcher(Exits);

impl Sink for Watcher {
    fn event(&mut self, event: &Event) {
        if event.kind == Kind::Exit {
            // To the processor L2 and L3 are both its guests; where they are tells them apart.
            let level = if event.pc >= code::L3 { 3 } else { 2 };
            let mut exits = self.0.lock().expect("nobody panics with it");
            exits.push((event.count, level, event.name.to_owned()));
        }
    }
}

/// A demonstration: whose extension it is of, the processors' model, what is in memory.
struct Demo {
    of: &'static str,
    cpu: &'static str,
    images: fn() -> code::Result<code::Images>,
}

/// All of them.
const DEMOS: [Demo; 2] =
    [Demo { of: "VMX", cpu: "intel", images: vmx::images }, Demo { of: "SVM", cpu: "amd", images: svm::images }];

/// The machine, in 64-bit mode where L1 begins.
fn machine(demo: &Demo) -> Result<Machine<X86>, UserError> {
    svm_sim::register();
    vmx_sim::register();
    let config = PcConfig { memory: 64 << 20, cpu: demo.cpu.to_owned(), ..PcConfig::default() };
    let (mut machine, _) = pc::build_empty(&config)?;
    for (at, bytes) in (demo.images)()? {
        machine.world.ram.write(at, &bytes).map_err(|e| UserError(e.to_string()))?;
    }
    let (flat, vcpu) = (X86::flat_64(), &mut machine.vcpus[0]);
    let cpu = &mut vcpu.arch;
    (cpu.cr0, cpu.cr3, cpu.cr4, cpu.efer) = (flat.cr0 | cr0::PG, code::PML4, flat.cr4, flat.efer);
    cpu.segments = flat.segments;
    vcpu.core.pc = code::L1;
    vcpu.core.regs[usize::from(RSP)] = code::STACK;
    Ok(machine)
}

/// Runs them.
pub fn run() -> Result<u8, UserError> {
    let mut worst = 0;
    for demo in &DEMOS {
        let (text, code) = demonstrate(demo)?;
        print(&text)?;
        worst = worst.max(code);
    }
    Ok(worst)
}

/// What is shown, and 0 if all of it has happened.
fn demonstrate(demo: &Demo) -> Result<(String, u8), UserError> {
    let mut machine = machine(demo)?;
    let (screen, exits) = (Screen::default(), Exits::default());
    machine.world.door.connect_output(CONSOLE, Box::new(screen.clone()));
    machine.world.events.listen(Box::new(Watcher(exits.clone())));
    let end = machine.run(10_000_000);
    machine.settle_stats();
    let mut out = String::new();
    let of = demo.of;
    let _ = writeln!(out, "\nA hypervisor (L1) runs a hypervisor (L2) that runs a guest (L3) on Undervisor's {of}.\n");
    let console = String::from_utf8_lossy(&screen.lock().expect("nobody panics with it")).into_owned();
    for line in console.lines() {
        let _ = writeln!(out, "  | {line}");
    }
    let _ = writeln!(out, "\n{}", table(&exits.lock().expect("nobody panics with it")));
    let _ = writeln!(out, "level        instructions");
    for (level, n) in (1..=3).zip(&machine.world.events.stats.instructions[1..]) {
        let _ = writeln!(out, "{:9} {n:>15}", level_name(level));
    }
    let _ = writeln!(out, "\n{} instructions; the same on every host, and on every run.", machine.retired());
    let is_done = machine.world.ram.load(code::DONE, 8) == Ok(1);
    match end {
        End::Deadlock => Ok((out, u8::from(!is_done))),
        other => Err(UserError(format!("the demonstration ended with {other:?}"))),
    }
}

/// The reasons of each level's exits to L1: the first, and how many.
fn table(exits: &[(u64, u8, String)]) -> String {
    let mut seen: Vec<(u8, &str, u64, u64)> = Vec::new();
    for (count, level, reason) in exits {
        match seen.iter_mut().find(|(l, r, ..)| (l, *r) == (level, reason)) {
            Some((.., n)) => *n += 1,
            None => seen.push((*level, reason, *count, 1)),
        }
    }
    seen.sort_by_key(|(level, ..)| *level);
    let mut text = String::from("exits to L1                               first at   times\n");
    for (level, reason, first, n) in seen {
        let _ = writeln!(text, "L{level} {reason:33} {first:>13} {n:>7}");
    }
    text
}

#[cfg(test)]
mod tests {
    /// Runs one; its table of exits has these rows.
    fn runs(demo: &super::Demo, rows: &[(&str, &str, u64)]) {
        let (text, code) = super::demonstrate(demo).unwrap();
        assert_eq!(code, 0, "{text}");
        for (level, reason, times) in rows {
            let mut rows = text.lines().filter(|line| line.starts_with(level) && line.contains(reason));
            let found = rows.next().and_then(|line| line.split_whitespace().last()?.parse().ok());
            assert_eq!(found, Some(*times), "{level} {reason}:\n{text}");
        }
    }

    #[test]
    fn they_run() {
        let [vmx, svm] = &super::DEMOS;
        runs(vmx, &[("L2", "VMLAUNCH", 1), ("L3", "CPUID", 10), ("L3", "EPT violation", 17)]);
        // VMRUN: the first, and behind each exit that L2 answers.
        runs(svm, &[("L2", "VMRUN", 84), ("L2", "MSR", 1), ("L3", "CPUID", 10), ("L3", "IOIO", 73), ("L3", "NPF", 17)]);
    }
}
