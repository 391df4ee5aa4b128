//! A machine with the extension in it: 64-bit mode, 2 MiB mapped to themselves, handlers that halt where one can tell which it was.

use emu_core::engine::World;
use emu_core::machine::{End, Machine, Schedule};
use emu_core::time::Frequency;
use iced_x86::code_asm::CodeAssembler;
use x86::control::{cr0, cr4};
use x86::extension::Slot;
use x86::model::CpuModel;
use x86::processor::X86;
use x86::registers::RSP;
use x86::segment::{Attributes, Segment, Table};

use crate::toy::{Exit, Toy};

pub const CODE: u64 = 0x1_0000;
/// The host goes on here after an exit.
pub const HOST: u64 = 0x1_8000;
pub const GDT: u64 = 0x1000;
pub const IDT: u64 = 0x2000;
pub const TSS: u64 = 0x3000;
pub const PML4: u64 = 0x4000;
pub const PT: u64 = 0x7000;
pub const STACK: u64 = 0xf000;
pub const HANDLERS: u64 = 0x9000;
/// A page that no table maps.
pub const ABSENT: u64 = 0x3_0000;
/// Data.
pub const DATA: u64 = 0x4_0000;

pub type Code = fn(&mut CodeAssembler);

pub struct Rig {
    pub machine: Machine<X86>,
}

impl Rig {
    /// The guest is at work, and will run `code`.
    pub fn new(model: &str, toy: Toy, code: impl FnOnce(&mut CodeAssembler)) -> Rig {
        let mut world = World::new(Frequency::default());
        world.ram.add(0, 0x20_0000).unwrap();
        let mut put = |at: u64, value: u64| world.ram.store(at, 8, value).unwrap();
        // Null, code and data, the TSS.
        for (i, d) in [0, 0x00af_9b00_0000_ffff, 0x00cf_9300_0000_ffff, 0x0000_8900_0000_0067 | TSS << 16, 0]
            .into_iter()
            .enumerate()
        {
            put(GDT + 8 * i as u64, d);
        }
        for (at, to) in [(PML4, 0x5000), (0x5000, 0x6000), (0x6000, PT)] {
            put(at, to | 3);
        }
        for page in 0..512u64 {
            put(PT + 8 * page, if page << 12 == ABSENT { 0 } else { page << 12 | 3 });
        }
        for vector in 0..=255 {
            let at = HANDLERS + 16 * vector;
            put(at, 0xf4);
            put(IDT + 16 * vector, at & 0xffff | 8 << 16 | 0x8e << 40 | at >> 16 << 48);
        }
        put(HOST, 0xf4);
        let mut cpu = X86::flat_64().of_model(CpuModel::parse(model).unwrap(), 0, 1, 1);
        cpu.gdtr = Table { base: GDT, limit: 0x27 };
        cpu.idtr = Table { base: IDT, limit: 0xfff };
        cpu.tr = Segment { selector: 0x18, base: TSS, limit: 0x67, attributes: Attributes(0x8b) };
        cpu.cr3 = PML4;
        cpu.cr0 |= cr0::PG;
        cpu.cr4 |= cr4::OSXSAVE | cr4::OSFXSR;
        cpu.extension = Slot::with(Box::new(toy));
        let mut machine = Machine::new(world, vec![cpu], Schedule::new(1000, 0));
        machine.vcpus[0].core.pc = CODE;
        machine.vcpus[0].core.regs[usize::from(RSP)] = STACK;
        let mut rig = Rig { machine };
        rig.code(CODE, code);
        rig
    }

    pub fn code(&mut self, at: u64, code: impl FnOnce(&mut CodeAssembler)) {
        let mut a = CodeAssembler::new(64).unwrap();
        code(&mut a);
        a.hlt().unwrap();
        self.machine.world.ram.write(at, &a.assemble(at).unwrap()).unwrap();
    }

    pub fn put(&mut self, at: u64, value: u64) {
        self.machine.world.ram.store(at, 8, value).unwrap();
    }

    pub fn run(&mut self) -> End {
        self.machine.run(100_000)
    }

    pub fn cpu(&mut self) -> &mut X86 {
        &mut self.machine.vcpus[0].arch
    }

    pub fn reg(&self, r: u8) -> u64 {
        self.machine.vcpus[0].core.regs[usize::from(r)]
    }

    pub fn set(&mut self, r: u8, value: u64) {
        self.machine.vcpus[0].core.regs[usize::from(r)] = value;
    }

    pub fn toy(&self) -> Toy {
        Toy::from_bytes(&self.machine.vcpus[0].arch.extension.get().unwrap().save())
    }

    pub fn exits(&self) -> Vec<Exit> {
        self.toy().exits
    }

    /// The vector of the handler that has halted.
    pub fn vector(&self) -> Option<u64> {
        let pc = self.machine.vcpus[0].core.pc;
        (HANDLERS..HANDLERS + 0x1000).contains(&pc).then(|| (pc - HANDLERS) / 16)
    }
}
