//! What is compared.

use std::collections::BTreeMap;

use emu_core::engine::World;
use emu_core::machine::{End as MachineEnd, Machine, Schedule};
use emu_core::time::Frequency;
use x86::control::cr4;
use x86::processor::X86;
use x86::registers::{FS_BASE, GS_BASE};
use x86::segment::Segment;

use crate::kvm::{End, Kind, Oracle, RAM};
use crate::stage::{CODE, Case, Mode, STACK, state};
use crate::{instructions, paging, transfers, unlike};

/// Runs a case here.
pub fn here(ram: &[u8], cpu: X86, regs: &[u64; 16]) -> (Machine<X86>, MachineEnd) {
    let mut world = World::new(Frequency::default());
    world.ram.add(0, RAM as u64).unwrap();
    world.ram.write(0, ram).unwrap();
    let mut machine = Machine::new(world, vec![cpu], Schedule::new(1000, 0));
    machine.vcpus[0].core.pc = CODE;
    machine.vcpus[0].core.regs[..16].copy_from_slice(regs);
    let end = machine.run(1000);
    (machine, end)
}

pub fn registers(c: &Case) -> [u64; 16] {
    let mut regs = [0u64; 16];
    (regs[0], regs[4], regs[6]) = (c.ax, STACK, 0x1234_5678);
    regs
}

/// What differs between the machine here and the oracle, both of which have ended so.
fn differences(machine: &Machine<X86>, our_end: MachineEnd, oracle: &Oracle, end: End) -> Vec<String> {
    let mut found = vec![];
    if (end == End::Shutdown) != matches!(our_end, MachineEnd::Shutdown(..)) {
        found.push(format!("ends: {our_end:?}, {end:?}"));
    }
    if end != End::Halted || !found.is_empty() {
        return found;
    }
    let (theirs, rip, flags) = oracle.registers();
    let vcpu = &machine.vcpus[0];
    let our_ip = vcpu.core.pc.wrapping_sub(vcpu.arch.segments[1].base);
    if our_ip != rip {
        found.push(format!("RIP {our_ip:x} {rip:x}"));
    }
    for (i, (x, y)) in vcpu.core.regs.iter().zip(theirs).enumerate() {
        if *x != y {
            found.push(format!("register {i}: {x:x} {y:x}"));
        }
    }
    let control = [vcpu.arch.cr0, vcpu.arch.cr2, vcpu.arch.cr3, vcpu.arch.cr4];
    if control != oracle.control() {
        found.push(format!("CR {control:x?} {:x?}", oracle.control()));
    }
    if vcpu.arch.rflags & 0x3f_7700 & !0x400 != flags & 0x3f_7700 & !0x400 {
        found.push(format!("flags {:x} {flags:x}", vcpu.arch.rflags));
    }
    let a = &vcpu.arch;
    // The bases of FS and GS have registers of their own.
    let base = |i: usize| match i {
        4 => vcpu.core.regs[usize::from(FS_BASE)],
        5 => vcpu.core.regs[usize::from(GS_BASE)],
        _ => a.segments[i].base,
    };
    let ours = (0..6).map(|i| Segment { base: base(i), ..a.segments[i] }).chain([a.ldtr, a.tr]);
    for (i, (s, t)) in ours.zip(oracle.segments()).enumerate() {
        let s = if s.attributes.is_unusable() {
            (s.selector, 0, 0, 0)
        } else {
            (s.selector, s.base, s.limit, s.attributes.0 & 0xf0ff)
        };
        // What a null SS leaves of a descriptor is of no effect in 64-bit mode.
        let is_null_stack = i == 2 && s.0 < 4 && a.is_long();
        if s != t && i != 6 && !(is_null_stack && s.0 == t.0) {
            found.push(format!("segment {i}: {s:x?} {t:x?}"));
        }
    }
    let mut memory = vec![0; RAM];
    machine.world.ram.read(0, &mut memory).unwrap();
    for (at, (x, y)) in memory.iter().zip(oracle.ram.iter()).enumerate().filter(|(_, (x, y))| x != y).take(4) {
        found.push(format!("[{at:x}]: {x:x} {y:x}"));
    }
    found
}

/// The oracle, and what it cannot do.
struct Bench {
    oracle: Oracle,
    /// Modes and levels in which it cannot even halt.
    lacks: Vec<(Mode, bool)>,
    compared: usize,
    /// What was skipped, and why.
    skipped: BTreeMap<String, Vec<String>>,
    wrong: Vec<String>,
}

impl Bench {
    /// `None` where no KVM opens.
    fn new() -> Option<Self> {
        let oracle = Oracle::open()?;
        println!("KVM on {}", if oracle.kind == Kind::Hardware { "hardware" } else { "an emulator of ring 0" });
        let mut bench = Bench { oracle, lacks: vec![], compared: 0, skipped: BTreeMap::new(), wrong: vec![] };
        for mode in Mode::ALL {
            for user in
                [false, true].into_iter().take(if matches!(mode, Mode::Real | Mode::Protected16) { 1 } else { 2 })
            {
                let probe = Case { user, ..Case::new("probe", mode, &[0xf4]) };
                let (ram, cpu) = state(&probe);
                let end = bench.run(&ram, &cpu, &registers(&probe));
                if end != End::Halted {
                    println!("SKIP: all of {mode:?}{}: HLT comes to {end:?}", if user { " at CPL 3" } else { "" });
                    bench.lacks.push((mode, user));
                }
            }
        }
        Some(bench)
    }

    fn run(&mut self, ram: &[u8], cpu: &X86, regs: &[u64; 16]) -> End {
        self.oracle.ram.copy_from_slice(ram);
        let end = self.oracle.run(cpu, regs, CODE);
        if end == End::TimedOut {
            self.oracle = Oracle::open().expect("it has opened before");
        }
        end
    }

    fn skip(&mut self, c: &Case, why: &str) {
        let (what, with) = c.name.split_once(": ").or_else(|| c.name.split_once(", ")).unwrap_or((&c.name, ""));
        let at = if c.user { " at CPL 3" } else { "" };
        self.skipped.entry(format!("{:?}{at}, {what}: {why}", c.mode)).or_default().push(with.trim().into());
    }

    fn compare(&mut self, c: &Case) {
        if self.lacks.contains(&(c.mode, c.user)) {
            return;
        }
        let lacking = c.more_cr4 & !self.oracle.cr4();
        if lacking != 0 {
            return self.skip(c, if lacking & cr4::SMEP != 0 { "it has no SMEP" } else { "it has no SMAP" });
        }
        let is_software = self.oracle.kind == Kind::Software;
        if let Some(why) = unlike::before(c).filter(|_| is_software) {
            return self.skip(c, why);
        }
        let (ram, cpu) = state(c);
        let regs = registers(c);
        let end = self.run(&ram, &cpu, &regs);
        if matches!(end, End::Refused | End::TimedOut) {
            return self.skip(c, &format!("{end:?}"));
        }
        let (machine, our_end) = here(&ram, cpu, &regs);
        let found = differences(&machine, our_end, &self.oracle, end);
        let (ours, theirs) = (machine.vcpus[0].core.pc, self.oracle.registers().1);
        if let Some(why) = unlike::after(c, matches!(our_end, MachineEnd::Shutdown(..)), ours, theirs)
            .filter(|_| is_software && !found.is_empty())
        {
            return self.skip(c, why);
        }
        self.compared += 1;
        if !found.is_empty() {
            self.wrong.push(format!(
                "{:?}{}, {}: {}",
                c.mode,
                if c.user { " at CPL 3" } else { "" },
                c.name,
                found.join(", ")
            ));
        }
    }
}

/// One case in so many, unless `UNDERVISOR_KVM_ALL` is set: it has no factor in common with what the cases are products of.
const ONE_IN: usize = 11;

pub fn sample(cases: Vec<Case>) -> Vec<Case> {
    let step = if std::env::var_os("UNDERVISOR_KVM_ALL").is_some() { 1 } else { ONE_IN };
    cases.into_iter().step_by(step).collect()
}

fn compare(cases: &[Case]) {
    let Some(mut bench) = Bench::new() else {
        println!("SKIP: /dev/kvm does not open");
        return;
    };
    cases.iter().for_each(|c| bench.compare(c));
    for (what, with) in &bench.skipped {
        println!("SKIP: {what}: {}", with.join("; "));
    }
    println!("{} of {} compared", bench.compared, cases.len());
    assert!(bench.wrong.is_empty(), "{} differ; ours, theirs:\n{}", bench.wrong.len(), bench.wrong.join("\n"));
}

#[test]
fn instructions_of_system_software() {
    compare(&instructions::cases());
}

#[test]
fn segments_and_far_transfers() {
    compare(&sample(transfers::cases()));
}

#[test]
fn rights_of_pages() {
    compare(&sample(paging::cases()));
}
