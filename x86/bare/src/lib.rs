//! A bare machine for tests of the processor: in 64-bit mode (or on the way there), with flat segments, page tables, a task-state segment,
//! and gates whose handlers note what they find and stop.
//!
//! ```
//! use x86_bare::{Bare, CODE};
//!
//! let mut g = Bare::new("intel");
//! g.run(&|a| a.ud2());
//! assert_eq!(g.found(), (6, 0, CODE));
//! ```

mod found;
mod layout;
pub mod nonsense;

use emu_core::engine::World;
use emu_core::machine::{End, Machine, Schedule};
use emu_core::time::Frequency;
pub use found::Found;
use iced_x86::code_asm::*;
pub use layout::*;
use x86::control::{cr0, rflags};
use x86::model::CpuModel;
use x86::processor::{P, X86, segments};
use x86::registers::RSP;
use x86::segment::{Attributes, Segment, Table};

/// What code for the machine is made with.
pub type Result<T = ()> = std::result::Result<T, IcedError>;
/// A piece of code.
pub type Code<'a> = &'a dyn Fn(&mut CodeAssembler) -> Result;

/// How the processor runs when it begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum In {
    /// Real-address mode, with data segments that reach 4 GiB. There are no handlers.
    Real,
    /// Protected mode without paging. There are no handlers.
    Protected,
    /// 64-bit mode.
    Long,
}

impl In {
    fn bits(self) -> u32 {
        match self {
            In::Real => 16,
            In::Protected => 32,
            In::Long => 64,
        }
    }
}

/// What machine is to be built.
pub struct Setup<'a> {
    /// The processors' model.
    pub model: &'a str,
    /// How many processors. All begin at [`CODE`], each with 1 KiB of the stack.
    pub processors: u32,
    /// How they run.
    pub mode: In,
    /// RAM: address and size of each region.
    pub ram: &'a [(u64, u64)],
    /// The low bits of the entry that maps a page of the first 2 MiB, from its address. What lies above, up to 4 GiB, is mapped to itself for
    /// supervisor mode.
    pub page: fn(u64) -> u64,
    /// Instructions of a processor's turn.
    pub turn: u64,
}

impl Setup<'_> {
    /// One processor in 64-bit mode, with 2 MiB of RAM; user mode has what lies above [`USER`].
    pub fn of(model: &str) -> Setup<'_> {
        let page = |at| if at >= USER { page::USER } else { page::SUPERVISOR };
        Setup { model, processors: 1, mode: In::Long, ram: &[(0, 0x20_0000)], page, turn: 1000 }
    }
}

/// The machine.
pub struct Bare {
    /// All of it.
    pub machine: Machine<X86>,
    mode: In,
}

impl Bare {
    /// [`Setup::of`] a model.
    pub fn new(model: &str) -> Bare {
        Bare::build(&Setup::of(model))
    }

    /// A machine that is about to run what is at [`CODE`].
    pub fn build(setup: &Setup) -> Bare {
        let mut world = World::new(Frequency::default());
        for (at, size) in setup.ram {
            world.ram.add(*at, *size).unwrap();
        }
        let model = CpuModel::parse(setup.model).unwrap();
        let processor = |id| in_mode(setup.mode, X86::flat_64().of_model(model, id, setup.processors, 0));
        let machine = Machine::new(world, (0..setup.processors).map(processor).collect(), Schedule::new(setup.turn, 0));
        let mut bare = Bare { machine, mode: setup.mode };
        bare.start_at_code();
        bare.descriptors();
        bare.page_tables(setup.page);
        bare.handlers();
        bare
    }

    fn start_at_code(&mut self) {
        for (n, v) in self.machine.vcpus.iter_mut().enumerate() {
            v.core.pc = CODE;
            v.core.regs[usize::from(RSP)] = STACK - 0x400 * n as u64;
        }
    }

    fn descriptors(&mut self) {
        for (selector, descriptor) in DESCRIPTORS {
            self.put(GDT + selector, descriptor);
        }
        self.put(TSS + 4, STACK_0);
        self.put(TSS + 36, STACK_IST);
    }

    fn page_tables(&mut self, low: fn(u64) -> u64) {
        const LARGE: u64 = 0x80;
        self.put(PML4, PDPT | page::USER);
        for i in 0..4 {
            self.put(PDPT + 8 * i, (PD + 0x1000 * i) | page::USER);
        }
        self.put(PD, PT | page::USER);
        for i in 1..2048 {
            self.put(PD + 8 * i, i << 21 | LARGE | page::SUPERVISOR);
        }
        for i in 0..512 {
            self.put(PT + 8 * i, i << 12 | low(i << 12));
        }
    }

    /// All gates are there; user mode may call those of INT3 and [`SYSTEM_CALL`].
    fn handlers(&mut self) {
        for vector in 0..256 {
            let dpl = if matches!(vector, 3 | SYSTEM_CALL) { 3 } else { 0 };
            self.gate(vector, dpl, 0);
            self.handler(vector, &|a| {
                a.endbr64()?;
                if !matches!(vector, 8 | 10..=14 | 17 | 21 | 29 | 30) {
                    a.push(0)?;
                }
                a.push(vector as i32)?;
                a.jmp(HANDLERS + 32 * 256)
            });
        }
        // No register changes, but for RSP.
        self.assemble(HANDLERS + 32 * 256, &|a| {
            for i in 0..7 {
                a.pop(qword_ptr(FOUND + 8 * i))?;
            }
            a.mov(qword_ptr(FOUND + 64), rax)?;
            a.mov(rax, cr2)?;
            a.mov(qword_ptr(FOUND + 56), rax)?;
            a.mov(rax, qword_ptr(FOUND + 64))?;
            a.hlt()
        });
    }

    /// An interrupt gate of the IDT to the vector's handler, on a stack of the interrupt stack table.
    pub fn gate(&mut self, vector: u64, dpl: u64, ist: u64) {
        let at = HANDLERS + 32 * vector;
        let attributes = 0x8e | dpl << 5;
        self.put(IDT + 16 * vector, at & 0xffff | KERNEL_CS << 16 | ist << 32 | attributes << 40 | at >> 16 << 48);
        self.put(IDT + 16 * vector + 8, 0);
    }

    /// Takes a gate away.
    pub fn no_gate(&mut self, vector: u64) {
        self.put(IDT + 16 * vector, 0);
    }

    /// A handler of one's own: at most 32 bytes.
    pub fn handler(&mut self, vector: u64, code: Code) {
        let end = self.assemble(HANDLERS + 32 * vector, code);
        assert!(end <= HANDLERS + 32 * (vector + 1), "it does not fit");
    }

    /// Where SYSCALL leads from [`Bare::run_user`].
    pub fn system_call(&mut self, code: Code) {
        self.assemble(ENTRY, code);
    }

    /// Puts 64-bit code somewhere. Says where it ends.
    pub fn assemble(&mut self, at: u64, code: Code) -> u64 {
        self.assemble_of(64, at, code)
    }

    /// Puts code of so many bits somewhere. Says where it ends.
    pub fn assemble_of(&mut self, bits: u32, at: u64, code: Code) -> u64 {
        let bytes = assemble(bits, at, code);
        self.machine.world.ram.write(at, &bytes).unwrap();
        at + bytes.len() as u64
    }

    /// Puts code at [`CODE`], of the mode that the processors begin in.
    pub fn code(&mut self, code: Code) {
        self.assemble_of(self.mode.bits(), CODE, code);
    }

    /// Stores a word.
    pub fn put(&mut self, at: u64, value: u64) {
        self.machine.world.ram.store(at, 8, value).unwrap();
    }

    /// Loads a word.
    pub fn get(&self, at: u64) -> u64 {
        self.load(at, 8)
    }

    /// Loads so many bytes.
    pub fn load(&self, at: u64, size: u8) -> u64 {
        self.machine.world.ram.load(at, size).unwrap()
    }

    /// Runs code from [`CODE`] on until all processors halt for ever.
    ///
    /// # Panics
    /// If that is not how it ends.
    pub fn run(&mut self, code: Code) -> &mut Self {
        assert_eq!(self.end_of(code), End::Deadlock);
        self
    }

    /// Runs code from [`CODE`] on, and says how that ends.
    pub fn end_of(&mut self, code: Code) -> End {
        self.code(code);
        self.start_at_code();
        self.go_on()
    }

    /// Goes on from where the processors are, for as long as any test should take.
    pub fn go_on(&mut self) -> End {
        self.machine.run(100_000)
    }

    /// Runs code at [`USER`] with CPL 3, with TR loaded, until it halts for ever. SYSCALL leads to [`Bare::system_call`]'s code.
    ///
    /// # Panics
    /// If that is not how it ends.
    pub fn run_user(&mut self, code: Code) -> &mut Self {
        self.assemble(USER, code);
        self.run(&|a| {
            a.mov(ax, TSS_SELECTOR as u32)?;
            a.ltr(ax)?;
            write_msr(a, msr::STAR, STAR)?;
            write_msr(a, msr::LSTAR, ENTRY)?;
            write_msr(a, msr::FMASK, rflags::DF | rflags::IF | rflags::TF)?;
            a.mov(rcx, USER)?;
            a.mov(r11, 2u64)?;
            a.mov(rsp, USER_STACK)?;
            a.sysretq()
        })
    }

    /// What a handler has found: vector, error code, RIP. Zeros if none has been called.
    pub fn found(&self) -> (u64, u64, u64) {
        let f = self.frame();
        (f.vector, f.error, f.rip)
    }

    /// Vector and error code.
    pub fn raised(&self) -> (u64, u64) {
        (self.frame().vector, self.frame().error)
    }

    /// All that a handler has found.
    pub fn frame(&self) -> Found {
        Found::of(std::array::from_fn(|i| self.get(FOUND + 8 * i as u64)))
    }

    /// A register of the first processor.
    pub fn reg(&self, r: u8) -> u64 {
        self.machine.vcpus[0].core.regs[usize::from(r)]
    }

    /// Writes a register of the first processor.
    pub fn set(&mut self, r: u8, value: u64) {
        self.machine.vcpus[0].core.regs[usize::from(r)] = value;
    }

    /// The first processor at work.
    pub fn at_work(&mut self) -> P<'_> {
        self.machine.vcpus[0].at(&mut self.machine.world)
    }

    /// The first processor's state.
    pub fn cpu(&mut self) -> &mut X86 {
        &mut self.machine.vcpus[0].arch
    }
}

/// Code of so many bits, for an address.
pub fn assemble(bits: u32, at: u64, code: Code) -> Vec<u8> {
    let mut a = CodeAssembler::new(bits).unwrap();
    code(&mut a).unwrap();
    a.assemble(at).unwrap()
}

/// WRMSR of a constant.
pub fn write_msr(a: &mut CodeAssembler, number: u32, value: u64) -> Result {
    a.mov(ecx, number)?;
    a.mov(eax, value as u32)?;
    a.mov(edx, (value >> 32) as u32)?;
    a.wrmsr()
}

/// A processor in 64-bit mode as it is in another.
fn in_mode(mode: In, mut p: X86) -> X86 {
    p.gdtr = Table { base: GDT, limit: GDT_LIMIT };
    p.idtr = Table { base: IDT, limit: if mode == In::Long { 0xfff } else { 0 } };
    let flat =
        |selector, attributes| Segment { selector, base: 0, limit: u32::MAX, attributes: Attributes(attributes) };
    match mode {
        In::Long => {
            p.cr3 = PML4;
            p.cr0 |= cr0::PG;
        }
        In::Protected => {
            (p.cr4, p.efer) = (0, 0);
            p.segments = [flat(KERNEL_SS as u16, 0xc093); 6];
            p.segments[segments::CS] = flat(COMPATIBILITY_CS as u16, 0xc09b);
        }
        In::Real => {
            (p.cr4, p.efer, p.cr0) = (0, 0, cr0::ET);
            p.segments = [flat(0, 0x8093); 6];
            p.segments[segments::CS] =
                Segment { selector: (CODE >> 4) as u16, base: CODE, limit: 0xffff, attributes: Attributes(0x9b) };
        }
    }
    p
}
