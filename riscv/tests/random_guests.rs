//! Guests that make no sense: nothing they do may panic or hang the emulator, and a fault leaves the state as it was.

use emu_core::engine::{RunEnd, Vcpu, World};
use emu_core::machine::{End, Machine, Schedule};
use emu_core::random::SplitMix64;
use emu_core::time::Frequency;
use proptest::prelude::*;
use riscv::cpu::CpuConfig;
use riscv::hart::{Priv, Riscv};
use riscv::isa::{Row, rows};
use riscv::platform::board::{self, BoardConfig, IrqChip};
use riscv::privileged::CSR_NAMES;

const SIZE: u64 = 1 << 20;

/// A machine whose RAM is instructions of all rows, many of them with CSRs that there are.
fn nonsense(seed: u64, cpu: CpuConfig, irqchip: IrqChip) -> Machine<Riscv> {
    let mut r = SplitMix64(seed);
    let mut world = World::new(Frequency::default());
    let config = BoardConfig { harts: 2, ram_size: SIZE, irqchip, ..BoardConfig::default() };
    world.ram.add(board::RAM, SIZE).unwrap();
    board::build(&config, &mut world.bus).unwrap();
    for at in (0..SIZE).step_by(4) {
        let row = &rows()[r.next() as usize % rows().len()];
        let mut word = row.value | r.next() as u32 & !row.mask;
        if row.name.starts_with("csr") {
            let csr = CSR_NAMES[r.next() as usize % CSR_NAMES.len()].0;
            word = word & 0x000f_ffff | u32::from(csr) << 20;
        }
        if r.next().is_multiple_of(8) {
            word = r.next() as u32;
        }
        world.ram.store(board::RAM + at, 4, word.into()).unwrap();
    }
    let harts = (0..2).map(|id| {
        let mut hart = Riscv::with_id(cpu, id);
        hart.csr.mtvec = board::RAM + ((r.next() % SIZE) & !3);
        hart.csr.stvec = board::RAM + ((r.next() % SIZE) & !3);
        hart.csr.vstvec = board::RAM + ((r.next() % SIZE) & !3);
        hart.csr.medeleg = r.next() & 0x00f0_b7ff;
        hart.csr.hedeleg = r.next() & 0xb1ff;
        hart.csr.mstatus = 1 << 13;
        hart.csr.pmp.write_address(0, u64::MAX);
        hart.csr.pmp.write_config(0, 0x1f);
        (hart.mode, hart.v) =
            [(Priv::Machine, false), (Priv::Supervisor, false), (Priv::Supervisor, true), (Priv::User, true)]
                [r.next() as usize % 4];
        hart
    });
    let harts: Vec<_> = harts.collect();
    let mut machine = Machine::new(world, harts, Schedule::new(1000, seed | 1));
    for vcpu in &mut machine.vcpus {
        vcpu.core.pc = board::RAM + ((r.next() % SIZE) & !1);
        for register in &mut vcpu.core.regs[1..64] {
            *register =
                if r.next().is_multiple_of(2) { board::RAM + r.next() % SIZE } else { r.next() >> (r.next() % 64) };
        }
    }
    machine
}

#[test]
fn nonsense_neither_panics_nor_hangs() {
    let chips = [IrqChip::Plic, IrqChip::Aplic, IrqChip::AplicImsic { guest_files: 3 }];
    for seed in 0..60u64 {
        let irqchip = chips[seed as usize % 3];
        let mut cpu = if seed % 2 == 0 { CpuConfig::rv64() } else { CpuConfig::max() };
        cpu.imsic = matches!(irqchip, IrqChip::AplicImsic { .. });
        cpu.geilen = 3;
        let mut machine = nonsense(seed, cpu, irqchip);
        let end = machine.run(150_000);
        assert!(machine.vcpus.iter().all(|v| v.core.regs[0] == 0), "x0 is not 0 after seed {seed}");
        // A snapshot of whatever has become of it is as good as the machine.
        let image = machine.save();
        let hash = machine.state_hash();
        let mut other = nonsense(seed, cpu, irqchip);
        other.restore(&image).unwrap();
        assert_eq!(other.state_hash(), hash, "seed {seed}");
        if end == End::Limit {
            assert_eq!(machine.run(170_000), other.run(170_000), "seed {seed}");
            assert_eq!(machine.state_hash(), other.state_hash(), "seed {seed}");
        }
    }
}

proptest! {
    /// Loads, stores and atomics to where nothing is: every register and the program counter stay as they were.
    #[test]
    fn a_fault_leaves_the_state_unchanged(
        choice in any::<usize>(),
        noise in any::<u32>(),
        registers in proptest::collection::vec(any::<u64>(), 63),
    ) {
        // An SC that fails for want of a reservation makes no access.
        let accesses = |r: &&Row| matches!(r.value & 0x7f, 0x03 | 0x07 | 0x23 | 0x27 | 0x2f) && !r.name.starts_with("sc");
        let candidates: Vec<&Row> = rows().iter().filter(accesses).collect();
        let row = candidates[choice % candidates.len()];
        let mut world = World::new(Frequency::default());
        world.ram.add(board::RAM, 0x1000).unwrap();
        let insn = row.value | noise & !row.mask;
        world.ram.store(board::RAM, 4, insn.into()).unwrap();
        let mut hart = Riscv::new(CpuConfig::rv64());
        hart.csr.mstatus = 3 << 13;
        hart.csr.mtvec = board::RAM + 0x800;
        let mut vcpu = Vcpu::new(0, hart);
        vcpu.core.pc = board::RAM;
        vcpu.core.regs[1..64].copy_from_slice(&registers);
        // The base is far from RAM, and aligned for atomics.
        let base = (insn >> 15 & 31) as usize;
        if base != 0 {
            vcpu.core.regs[base] = 0x40_0000_0000;
        }
        let before = vcpu.core.regs[..64].to_vec();
        let (retired, end) = vcpu.run(&mut world, 0, 1);
        prop_assert_eq!((retired, end), (1, RunEnd::Budget));
        let csr = &vcpu.arch.csr;
        prop_assert!(matches!(csr.mcause, 2 | 5 | 7), "{} {:#x}: cause {}", row.name, insn, csr.mcause);
        prop_assert_eq!((csr.mepc, vcpu.core.pc), (board::RAM, board::RAM + 0x800));
        prop_assert_eq!(&vcpu.core.regs[..64], &before[..]);
    }
}
