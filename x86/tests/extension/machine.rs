//! A machine with the extension in it, whose handlers halt where one can tell which it was.

use std::ops::{Deref, DerefMut};

use emu_core::machine::End;
use iced_x86::code_asm::CodeAssembler;
use x86::control::cr4;
use x86::extension::Slot;
use x86::segment::{Attributes, Segment};
use x86_bare::{Bare, Setup, TSS_SELECTOR, page};
pub use x86_bare::{CODE, GDT, HANDLERS, IDT, PML4, PT, STACK, TSS};

use crate::toy::{Exit, Toy};

/// The host goes on here after an exit.
pub const HOST: u64 = 0x1_c000;
/// A page that no table maps.
pub const ABSENT: u64 = 0x3_0000;
/// Data.
pub const DATA: u64 = 0x4_0000;

pub type Code = fn(&mut CodeAssembler);

pub struct Rig(Bare);

impl Deref for Rig {
    type Target = Bare;

    fn deref(&self) -> &Bare {
        &self.0
    }
}

impl DerefMut for Rig {
    fn deref_mut(&mut self) -> &mut Bare {
        &mut self.0
    }
}

impl Rig {
    /// The guest is at work, and will run `code`.
    pub fn new(model: &str, toy: Toy, code: impl FnOnce(&mut CodeAssembler)) -> Rig {
        let page = |at| if at == ABSENT { page::ABSENT } else { page::SUPERVISOR };
        let mut rig = Rig(Bare::build(&Setup { page, ..Setup::of(model) }));
        for vector in 0..256 {
            rig.handler(vector, &|a| a.hlt());
        }
        let cpu = rig.cpu();
        cpu.tr = Segment { selector: TSS_SELECTOR as u16, base: TSS, limit: 0x67, attributes: Attributes(0x8b) };
        cpu.cr4 |= cr4::OSXSAVE | cr4::OSFXSR;
        cpu.extension = Slot::with(Box::new(toy));
        rig.code(HOST, |_| ());
        rig.code(CODE, code);
        rig
    }

    /// Puts code somewhere, with a HLT behind it.
    pub fn code(&mut self, at: u64, code: impl FnOnce(&mut CodeAssembler)) {
        let mut a = CodeAssembler::new(64).unwrap();
        code(&mut a);
        a.hlt().unwrap();
        self.machine.world.ram.write(at, &a.assemble(at).unwrap()).unwrap();
    }

    pub fn run(&mut self) -> End {
        self.go_on()
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
        (HANDLERS..HANDLERS + 32 * 256).contains(&pc).then(|| (pc - HANDLERS) / 32)
    }
}
