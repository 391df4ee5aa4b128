//! riscv-tests: ELF files that end by a store to `tohost` (HTIF): 1 is a pass, 2n + 1 the failure of test n.

use std::path::Path;

use emu_core::engine::World;
use emu_core::machine::{End, Machine, Schedule};
use emu_core::time::Frequency;
use object::{Object, ObjectSegment, ObjectSymbol};
use rayon::prelude::*;
use riscv::cpu::CpuConfig;
use riscv::hart::Riscv;
use riscv::platform::board::{self, BoardConfig};

use crate::suite::{Outcome, Verdict, files};

/// Instructions after which a test is given up.
pub const LIMIT: u64 = 50_000_000;

/// Runs all ELF files of a directory.
pub fn run(dir: &Path, cpu: CpuConfig) -> std::io::Result<Vec<Outcome>> {
    let is_elf = |p: &Path| std::fs::read(p).is_ok_and(|b| b.starts_with(b"\x7fELF"));
    let tests = files(dir, is_elf)?;
    Ok(tests.par_iter().map(|p| run_one(p, cpu)).collect())
}

/// Runs one test.
pub fn run_one(path: &Path, cpu: CpuConfig) -> Outcome {
    let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    match start(path, cpu) {
        Err(why) => Outcome { name, verdict: Verdict::Fail(why), instructions: 0 },
        Ok((mut machine, tohost)) => {
            let verdict = finish(&mut machine, tohost);
            Outcome { name, verdict, instructions: machine.retired() }
        }
    }
}

fn start(path: &Path, cpu: CpuConfig) -> Result<(Machine<Riscv>, u64), String> {
    let bytes = std::fs::read(path).map_err(|e| e.to_string())?;
    let elf = object::File::parse(&*bytes).map_err(|e| e.to_string())?;
    let tohost = elf.symbols().find(|s| s.name() == Ok("tohost")).ok_or("it has no symbol `tohost`")?.address();
    let mut world = World::new(Frequency::default());
    let config = BoardConfig { ram_size: 128 << 20, ..BoardConfig::default() };
    world.ram.add(board::RAM, config.ram_size).map_err(|e| e.to_string())?;
    board::build(&config, &mut world.bus).map_err(|e| e.to_string())?;
    for segment in elf.segments() {
        let data = segment.data().map_err(|e| e.to_string())?;
        let at = segment.address();
        world.ram.write(at, data).map_err(|_| format!("its segment at {at:#x} is not RAM"))?;
    }
    let mut machine = Machine::new(world, vec![Riscv::new(cpu)], Schedule::new(emu_core::machine::DEFAULT_QUANTUM, 0));
    machine.vcpus[0].core.pc = elf.entry();
    Ok((machine, tohost))
}

fn finish(machine: &mut Machine<Riscv>, tohost: u64) -> Verdict {
    loop {
        let end = machine.run(machine.retired() + 5_000);
        match machine.world.ram.load(tohost, 8) {
            Ok(0) => {}
            Ok(1) => return Verdict::Pass,
            Ok(n) => return Verdict::Fail(format!("test {} ({n:#x})", n >> 1)),
            Err(_) => return Verdict::Fail("`tohost` is not in RAM".into()),
        }
        if end != End::Limit {
            return Verdict::Fail(format!("{end:?} at {:#x}", machine.vcpus[0].core.pc));
        }
        if machine.retired() > LIMIT {
            return Verdict::Fail(format!("no end after {LIMIT} instructions, at {:#x}", machine.vcpus[0].core.pc));
        }
    }
}
