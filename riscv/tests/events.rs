//! What the event stream tells of injections and device accesses.

use std::sync::{Arc, Mutex};

use emu_core::event::{Event, Sink};
use emu_core::machine::{End, Machine, Schedule};
use emu_core::time::Frequency;
use emu_core::{engine::World, event::Kind};
use riscv::cpu::CpuConfig;
use riscv::hart::{Priv, Riscv};
use riscv::platform::board::{self, BoardConfig, IrqChip};

const HVIP: u32 = 0x645;
const HVICTL: u32 = 0x609;

/// CSRRW x0, csr, x`rs`.
fn csrw(csr: u32, rs: u32) -> u32 {
    csr << 20 | rs << 15 | 1 << 12 | 0x73
}

#[derive(Clone, Default)]
struct Heard(Arc<Mutex<Vec<String>>>);

impl Sink for Heard {
    fn event(&mut self, e: &Event) {
        if matches!(e.kind, Kind::Injection | Kind::DeviceRead | Kind::DeviceWrite) {
            let text = format!("{} L{} {:#x} {} {} {:x?}", e.count, e.level, e.pc, e.kind.name(), e.name, e.details);
            self.0.lock().unwrap().push(text);
        }
    }
}

#[test]
fn injections_and_device_accesses_say_where_they_happened() {
    let mut world = World::new(Frequency::default());
    let irqchip = IrqChip::AplicImsic { guest_files: 1 };
    let config = BoardConfig { harts: 1, ram_size: 1 << 20, irqchip, ..BoardConfig::default() };
    world.ram.add(board::RAM, 1 << 20).unwrap();
    board::build(&config, &mut world.bus).unwrap();
    const LBU_X5_X4: u32 = 0x0002_4283;
    const SW_X7_X6: u32 = 0x0073_2023;
    const NOP: u32 = 0x13;
    // The same bits once more are no news; nor are fewer.
    let code = [NOP, csrw(HVIP, 1), csrw(HVIP, 1), csrw(HVIP, 2), csrw(HVICTL, 3), NOP, LBU_X5_X4, SW_X7_X6, NOP];
    for (i, word) in code.into_iter().enumerate() {
        world.ram.store(board::RAM + 4 * i as u64, 4, word.into()).unwrap();
    }
    let mut cpu = CpuConfig::rv64();
    (cpu.imsic, cpu.geilen) = (true, 1);
    let mut hart = Riscv::new(cpu);
    hart.mode = Priv::Supervisor;
    hart.csr.pmp.write_address(0, u64::MAX);
    hart.csr.pmp.write_config(0, 0x1f);
    hart.csr.mstateen = [u64::MAX; 4];
    let mut machine = Machine::new(world, vec![hart], Schedule::new(1000, 0));
    let heard = Heard::default();
    machine.world.events.listen(Box::new(heard.clone()));
    let core = &mut machine.vcpus[0].core;
    core.pc = board::RAM;
    core.regs[1] = 1 << 2 | 1 << 10;
    core.regs[2] = 1 << 10;
    core.regs[3] = 1 << 30 | 7 << 16; // VTI, IID 7
    core.regs[4] = 0x1000_0005; // LSR
    core.regs[6] = 0x2800_1000; // the guest's interrupt file
    core.regs[7] = 9;
    assert_eq!(machine.run(code.len() as u64), End::Limit);

    let heard = heard.0.lock().unwrap();
    assert_eq!(
        *heard,
        [
            "1 L1 0x80000004 injection virtual-supervisor-software-interrupt []",
            "1 L1 0x80000004 injection virtual-supervisor-external-interrupt []",
            "4 L1 0x80000010 injection machine-timer-interrupt []",
            "6 L1 0x80000018 device-read  [(\"address\", 10000005), (\"size\", 1), (\"value\", 60)]",
            "7 L1 0x8000001c device-write  [(\"address\", 28001000), (\"size\", 4), (\"value\", 9)]",
            "8 L1 0x80000020 injection virtual-supervisor-external-interrupt [(\"file\", 1), (\"identity\", 9)]",
        ]
    );
    assert_eq!(machine.world.events.stats.injections[2].iter().sum::<u64>(), 4);
}
