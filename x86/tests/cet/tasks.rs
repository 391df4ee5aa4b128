//! "Shadow Stack Usage on Task Switch": 32-bit tasks, without paging.

use emu_core::engine::World;
use emu_core::machine::{End, Machine, Schedule};
use emu_core::time::Frequency;
use iced_x86::IcedError;
use iced_x86::code_asm::*;
use x86::control::{cr0, cr4, user_cet};
use x86::model::CpuModel;
use x86::processor::X86;
use x86::registers::{RSP, SSP};
use x86::segment::{Attributes, Segment, Table};

const CODE: u64 = 0x1_0000;
const OTHER: u64 = 0x1_1000;
const GDT: u64 = 0x1000;
const IDT: u64 = 0x2000;
const HANDLERS: u64 = 0x2_0000;
const FOUND: u64 = 0x3000;
/// TSSs of both tasks, and their shadow stacks.
const TSS: [u64; 2] = [0x4000, 0x5000];
const SHADOW: [u64; 2] = [0x6ff8, 0x7ff8];
const ON: u64 = user_cet::SH_STK_EN;

struct Tasks(Machine<X86>);

impl Tasks {
    /// Two tasks of level 0. `limit` is that of the other's TSS.
    fn new(cet: u64, limit: u64) -> Self {
        let mut world = World::new(Frequency::default());
        world.ram.add(0, 0x20_0000).unwrap();
        let mut put = |at: u64, value: u64| world.ram.store(at, 8, value).unwrap();
        for (i, d) in [
            0,
            0x00cf_9b00_0000_ffff,
            0x00cf_9300_0000_ffff,
            0x0000_8b00_0000_006b | TSS[0] << 16,
            0x0000_8900_0000_0000 | limit | TSS[1] << 16,
        ]
        .into_iter()
        .enumerate()
        {
            put(GDT + 8 * i as u64, d);
        }
        let word = |low: u64, high: u64| low | high << 32;
        // EIP, EFLAGS; ESP; segments; SSP.
        put(TSS[1] + 32, word(OTHER, 2));
        put(TSS[1] + 56, word(0xe000, 0));
        for (at, selectors) in [(72, word(16, 8)), (80, word(16, 16)), (88, word(16, 16))] {
            put(TSS[1] + at, selectors);
        }
        put(TSS[1] + 104, SHADOW[1]);
        put(SHADOW[1], SHADOW[1]);
        for vector in 0..32u64 {
            let at = HANDLERS + 64 * vector;
            put(IDT + 8 * vector, at & 0xffff | 8 << 16 | 0x8e00 << 32 | at >> 16 << 48);
        }
        let mut hart = X86::flat_64().of_model(CpuModel::parse("intel").unwrap(), 0, 1, 0);
        hart.efer = 0;
        hart.cr0 = cr0::PE | cr0::WP | cr0::ET;
        hart.cr4 = cr4::CET;
        let flat =
            |selector, attributes| Segment { selector, base: 0, limit: u32::MAX, attributes: Attributes(attributes) };
        let (code, data) = (flat(8, 0xc09b), flat(16, 0xc093));
        hart.segments = [data, code, data, data, data, data];
        hart.tr = Segment { selector: 24, base: TSS[0], limit: 0x6b, attributes: Attributes(0x8b) };
        hart.gdtr = Table { base: GDT, limit: 0x27 };
        hart.idtr = Table { base: IDT, limit: 0xff };
        hart.cet.supervisor = cet;
        let machine = Machine::new(world, vec![hart], Schedule::new(1000, 0));
        let mut tasks = Tasks(machine);
        for vector in 0..32u64 {
            tasks.assemble(HANDLERS + 64 * vector, &|a| {
                a.endbr32()?;
                if !matches!(vector, 8 | 10..=14 | 17 | 21) {
                    a.push(0)?;
                }
                a.mov(dword_ptr(FOUND), vector as i32)?;
                a.pop(dword_ptr(FOUND + 4))?;
                a.hlt()
            });
        }
        let core = &mut tasks.0.vcpus[0].core;
        core.pc = CODE;
        core.regs[usize::from(RSP)] = 0xf000;
        core.regs[usize::from(SSP)] = SHADOW[0];
        tasks
    }

    fn assemble(&mut self, at: u64, build: &dyn Fn(&mut CodeAssembler) -> Result<(), IcedError>) {
        let mut a = CodeAssembler::new(32).unwrap();
        build(&mut a).unwrap();
        self.0.world.ram.write(at, &a.assemble(at).unwrap()).unwrap();
    }

    fn get(&self, at: u64) -> u64 {
        self.0.world.ram.load(at, 8).unwrap()
    }

    /// Calls the other task, which does `other`, and halts when that is back. Returns vector and error code.
    fn run(&mut self, other: &dyn Fn(&mut CodeAssembler) -> Result<(), IcedError>) -> (u64, u64) {
        self.assemble(CODE, &|a| {
            a.db(&[0x9a, 0, 0, 0, 0, 32, 0])?;
            a.hlt()
        });
        self.assemble(OTHER, other);
        assert_eq!(self.0.run(10_000), End::Deadlock);
        let found = self.get(FOUND);
        (found & 0xffff_ffff, found >> 32)
    }

    fn ssp(&self) -> u64 {
        self.0.vcpus[0].core.regs[usize::from(SSP)]
    }
}

/// A nested task has the other's CS, address and SSP on its shadow stack, whose token is busy until it returns.
#[test]
fn a_task_is_called_and_returns() {
    let mut t = Tasks::new(ON, 0x6b);
    assert_eq!(t.run(&|a| a.hlt()), (0, 0));
    assert_eq!((t.ssp(), t.get(SHADOW[1])), (SHADOW[1] - 24, SHADOW[1] | 1));
    assert_eq!([24, 16, 8].map(|at| t.get(SHADOW[1] - at)), [SHADOW[0], CODE + 7, 8]);
    let mut t = Tasks::new(ON, 0x6b);
    assert_eq!(t.run(&|a| a.iretd()), (0, 0));
    assert_eq!((t.ssp(), t.get(SHADOW[1]), t.0.vcpus[0].arch.tr.selector), (SHADOW[0], SHADOW[1], 24));
}

/// Another return address in the TSS than on the shadow stack: #CP(FAR-RET/IRET), of the task that is returned to.
#[test]
fn a_return_to_elsewhere() {
    let mut t = Tasks::new(ON, 0x6b);
    let found = t.run(&|a| {
        a.inc(dword_ptr(TSS[0] + 32))?;
        a.iretd()
    });
    assert_eq!((found, t.0.vcpus[0].arch.tr.selector), ((21, 2), 24));
}

/// #TS(new TSS): a TSS that ends before the SSP, an SSP that is not aligned, a token that is none or busy.
#[test]
fn shadow_stacks_that_cannot_be_taken() {
    for (limit, ssp, token) in
        [(0x6a, SHADOW[1], SHADOW[1]), (0x6b, SHADOW[1] + 4, 0), (0x6b, SHADOW[1], 0), (0x6b, SHADOW[1], SHADOW[1] | 1)]
    {
        let mut t = Tasks::new(ON, limit);
        t.0.world.ram.store(TSS[1] + 104, 4, ssp).unwrap();
        t.0.world.ram.store(SHADOW[1], 8, token).unwrap();
        assert_eq!(t.run(&|a| a.hlt()), (10, 32), "{limit:#x} {ssp:#x} {token:#x}");
    }
    // Without one a TSS may be shorter.
    assert_eq!(Tasks::new(0, 0x67).run(&|a| a.hlt()), (0, 0));
}

/// The new task begins with an ENDBRANCH, ENDBR32; the one that is returned to need not.
#[test]
fn a_task_is_tracked() {
    let mut t = Tasks::new(user_cet::ENDBR_EN, 0x6b);
    assert_eq!(t.run(&|a| a.hlt()), (21, 3));
    let mut t = Tasks::new(user_cet::ENDBR_EN, 0x6b);
    let found = t.run(&|a| {
        a.endbr32()?;
        a.iretd()
    });
    assert_eq!(found, (0, 0));
}
