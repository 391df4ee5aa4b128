//! `undervisor inspect`, and what GDB's monitor commands ask for: the state of a machine in words. Nothing of it is changed.

mod riscv;
mod x86;

use std::fmt::Write as _;

use ::riscv::hart::Riscv;
use ::x86::processor::X86;
use clap::ValueEnum as _;
use emu_core::bus::Space;
use emu_core::engine::{Arch, Hart, World};
use emu_core::machine::Machine;

pub use self::x86::{Guest, LOAD, Peek};
use crate::error::{UserError, about, print};
use crate::machine::{Config, Platform};
use crate::options::{AddressKind, Inspect, address};
use crate::run::load_snapshot;

/// A structure of virtualization, by its physical address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Structure {
    /// Of VMX.
    Vmcs(u64),
    /// Of SVM.
    Vmcb(u64),
}

impl std::fmt::Display for Structure {
    fn fmt(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        match self {
            Structure::Vmcs(at) => write!(f, "VMCS {at:#x}"),
            Structure::Vmcb(at) => write!(f, "VMCB {at:#x}"),
        }
    }
}

/// What can be said of a vCPU.
pub trait Inspectable: Arch {
    /// Its state: registers, virtualization, structures that it works with.
    fn state(h: &mut Hart<'_, Self>) -> String;

    /// Its virtualization in a few lines.
    fn virtualization(h: &mut Hart<'_, Self>) -> String;

    /// Whether the vCPU itself works with this structure.
    fn holds(_: &Hart<'_, Self>, _: Structure) -> bool {
        false
    }

    /// A structure, or why there is none.
    fn structure(h: &mut Hart<'_, Self>, structure: Structure) -> Result<String, String>;

    /// The steps of a walk, and where it leads; or why there is nothing to walk.
    fn steps(h: &mut Hart<'_, Self>, address: u64, kind: AddressKind) -> Result<String, String>;
}

/// What is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum What {
    /// The state of vCPUs.
    State,
    /// Their virtualization.
    Virtualization,
    /// A VMCS or a VMCB.
    Structure(Structure),
    /// A walk.
    Walk(u64, AddressKind),
}

/// What is asked for, and of whom.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Question {
    what: What,
    vcpu: Option<usize>,
}

impl Question {
    /// What a monitor command asks: `inspect`, `walk`, `vmx` or `svm`, and its words.
    pub fn of_words(command: &str, words: &[&str]) -> Result<Self, UserError> {
        let is_virtualization = matches!(command, "vmx" | "svm");
        let (mut what, mut vcpu) = (if is_virtualization { What::Virtualization } else { What::State }, None);
        let at = |word: &str| address(word).map_err(|e| about(word, e));
        let mut words = words.iter().copied();
        if command == "walk" {
            let word = words.next().ok_or_else(|| about("walk", "expected an address"))?;
            what = What::Walk(at(word)?, AddressKind::Va);
        }
        while let Some(word) = words.next() {
            let mut argument = || words.next().ok_or_else(|| about(word, "expected a number"));
            match (word, what) {
                ("vcpu", _) => vcpu = Some(at(argument()?)? as usize),
                ("vmcs", What::State) => what = What::Structure(Structure::Vmcs(at(argument()?)?)),
                ("vmcb", What::State) => what = What::Structure(Structure::Vmcb(at(argument()?)?)),
                (_, What::Walk(at, _)) => match AddressKind::from_str(word, false) {
                    Ok(kind) => what = What::Walk(at, kind),
                    Err(_) => return Err(about(word, "expected va, gva, gpa, pa or vcpu N")),
                },
                _ => return Err(about(word, format!("{command} knows no such word; see help"))),
            }
        }
        Ok(Question { what, vcpu })
    }
}

/// The answer.
pub fn answer<A: Platform>(machine: &mut Machine<A>, q: &Question) -> Result<String, UserError> {
    let count = machine.vcpus.len();
    if let Some(n) = q.vcpu.filter(|n| *n >= count) {
        return Err(about(format!("vCPU {n}"), format!("the machine has {count}, from 0 on")));
    }
    let one = q.vcpu.unwrap_or(0);
    let which = q.vcpu.map_or(0..count, |n| n..n + 1);
    let mut text = String::new();
    match q.what {
        What::State | What::Virtualization => {
            for n in which {
                let waits = if machine.is_waiting(n) { ", waiting" } else { "" };
                let _ = writeln!(text, "{}vCPU {n}{waits}", if text.is_empty() { "" } else { "\n" });
                let mut h = machine.vcpus[n].at(&mut machine.world);
                text += &if q.what == What::State { A::state(&mut h) } else { A::virtualization(&mut h) };
            }
        }
        What::Structure(structure) => {
            let world = &mut machine.world;
            let holder = machine.vcpus.iter_mut().position(|v| A::holds(&v.at(world), structure));
            let mut h = machine.vcpus[holder.unwrap_or(one)].at(world);
            text = A::structure(&mut h, structure).map_err(|e| about(structure, e))?;
        }
        What::Walk(at, AddressKind::Pa) => text = physical(&machine.world, at),
        What::Walk(at, kind) => {
            let mut h = machine.vcpus[one].at(&mut machine.world);
            text = A::steps(&mut h, at, kind).map_err(|e| about(format!("{at:#x}"), e))?;
        }
    }
    Ok(text)
}

/// What is at a physical address.
pub fn physical(world: &World, at: u64) -> String {
    let mut bytes = String::new();
    for i in 0..16 {
        match world.ram.load(at.wrapping_add(i), 1) {
            Ok(byte) => bytes += &format!(" {byte:02x}"),
            Err(_) => break,
        }
    }
    if !bytes.is_empty() {
        return format!("physical {at:#x}: RAM:{bytes}\n");
    }
    match world.bus.device_at(Space::Memory, at) {
        Some((name, offset)) => format!("physical {at:#x}: {name}, offset {offset:#x}\n"),
        None => format!("physical {at:#x}: nothing answers there\n"),
    }
}

/// An entry of a table, as walks show it.
pub fn entry(text: &mut String, indent: &str, name: &str, at: u64, entry: u64, says: &str) {
    let line = format!("  {indent}{name:10} {at:#014x}: {entry:#018x}  {says}");
    let _ = writeln!(text, "{}", line.trim_end());
}

/// Runs the command; the exit code.
pub fn run(o: &Inspect) -> Result<u8, UserError> {
    let what = match (o.walk, o.vmcs, o.vmcb) {
        (Some(at), ..) => What::Walk(at, o.kind),
        (_, Some(region), _) => What::Structure(Structure::Vmcs(region)),
        (.., Some(at)) => What::Structure(Structure::Vmcb(at)),
        _ => What::State,
    };
    let question = Question { what, vcpu: o.vcpu };
    let (source, image) = load_snapshot(&o.snapshot)?;
    let restored = |e| about(o.snapshot.display(), e);
    let text = match source.config {
        Config::Riscv(config) => {
            let mut machine = Riscv::build_empty(&config)?;
            machine.restore(&image).map_err(restored)?;
            answer(&mut machine, &question)?
        }
        Config::Pc(config) => {
            let mut machine = X86::build_empty(&config)?;
            machine.restore(&image).map_err(restored)?;
            answer(&mut machine, &question)?
        }
    };
    print(&text).map(|()| 0)
}
