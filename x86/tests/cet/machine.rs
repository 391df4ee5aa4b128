//! A processor in 64-bit mode with pages that are shadow stacks, and handlers that tell what they find.

use emu_core::engine::World;
use emu_core::machine::{End, Machine, Schedule};
use emu_core::time::Frequency;
use iced_x86::IcedError;
use iced_x86::code_asm::*;
use x86::control::{cr0, cr4, user_cet};
use x86::model::CpuModel;
use x86::processor::X86;
use x86::registers::{RSP, SSP};
use x86::segment::Table;

pub const CODE: u64 = 0x1_0000;
pub const USER: u64 = 0x2_0000;
const GDT: u64 = 0x1000;
pub const IDT: u64 = 0x2000;
pub const TSS: u64 = 0x3000;
const PML4: u64 = 0x4000;
const PT: u64 = 0x7000;
/// Where handlers leave what they find: vector, error, RIP, CS, RFLAGS, RSP, SS.
const FOUND: u64 = 0x8000;
/// Memory for whatever the guest has to say.
pub const NOTES: u64 = 0x8800;
pub const STACK: u64 = 0xf000;
const STACK_0: u64 = 0xe000;
const STACK_IST: u64 = 0xd000;
const HANDLERS: u64 = 0x9000;
/// Shadow stacks: of the kernel, for its interrupts, of the user. Each is a page that begins here.
pub const SHADOW: u64 = 0x10_0000;
pub const SHADOW_0: u64 = 0x10_1000;
pub const SHADOW_IST: u64 = 0x10_2000;
pub const USER_SHADOW: u64 = 0x11_0000;
pub const USER_SHADOW_2: u64 = 0x11_1000;
pub const PAGE: u64 = 0x1000;

pub const KERNEL_CS: u64 = 8;
/// 32-bit code of the kernel.
pub const COMPATIBILITY_CS: u64 = 0x38;

pub const BOTH: u64 = user_cet::SH_STK_EN | user_cet::WR_SHSTK_EN | user_cet::ENDBR_EN;

pub struct Guest {
    pub machine: Machine<X86>,
}

pub type Code<'a> = &'a dyn Fn(&mut CodeAssembler) -> Result<(), IcedError>;

impl Guest {
    /// With these values in IA32_S_CET and IA32_U_CET.
    pub fn new(supervisor: u64, user: u64) -> Self {
        Guest::of("intel", supervisor, user)
    }

    pub fn of(model: &str, supervisor: u64, user: u64) -> Self {
        let mut world = World::new(Frequency::default());
        world.ram.add(0, 0x20_0000).unwrap();
        let mut put = |at: u64, value: u64| world.ram.store(at, 8, value).unwrap();
        for (i, d) in [
            0,
            0x00af_9b00_0000_ffff,
            0x00cf_9300_0000_ffff,
            0x00cf_f300_0000_ffff,
            0x00af_fb00_0000_ffff,
            0x0000_8900_0000_0067 | TSS << 16,
            0,
            0x00cf_9b00_0000_ffff,
        ]
        .into_iter()
        .enumerate()
        {
            put(GDT + 8 * i as u64, d);
        }
        put(TSS + 4, STACK_0);
        put(TSS + 36, STACK_IST);
        for (at, to) in [(PML4, 0x5000), (0x5000, 0x6000), (0x6000, PT)] {
            put(at, to | 7);
        }
        for page in 0..512u64 {
            let at = page << 12;
            // Dirty and not writable: a shadow stack.
            let flags = match at {
                _ if at >= USER_SHADOW => 0x45,
                _ if at >= SHADOW => 0x41,
                _ if at >= USER => 7,
                _ => 3,
            };
            put(PT + 8 * page, at | flags);
        }
        let mut hart = X86::flat_64().of_model(CpuModel::parse(model).unwrap(), 0, 1, 0);
        hart.gdtr = Table { base: GDT, limit: 0x4f };
        hart.idtr = Table { base: IDT, limit: 0xfff };
        hart.cr3 = PML4;
        hart.cr0 |= cr0::PG;
        hart.cr4 |= cr4::CET | cr4::OSXSAVE;
        hart.cet.supervisor = supervisor;
        hart.cet.user = user;
        hart.cet.ssp = [SHADOW_0 + PAGE - 8, 0, 0, USER_SHADOW + PAGE];
        let machine = Machine::new(world, vec![hart], Schedule::new(1000, 0));
        let mut guest = Guest { machine };
        guest.put(SHADOW_0 + PAGE - 8, SHADOW_0 + PAGE - 8);
        for vector in 0..=0x82 {
            guest.gate(vector, if matches!(vector, 3 | 0x80 | 0x81) { 3 } else { 0 }, 0);
        }
        guest.handlers();
        guest.set(SSP, SHADOW + PAGE);
        guest
    }

    pub fn put(&mut self, at: u64, value: u64) {
        self.machine.world.ram.store(at, 8, value).unwrap();
    }

    pub fn get(&self, at: u64) -> u64 {
        self.machine.world.ram.load(at, 8).unwrap()
    }

    /// An interrupt gate to the vector's handler, on a stack of the interrupt stack table.
    pub fn gate(&mut self, vector: u64, dpl: u64, ist: u64) {
        let at = HANDLERS + 32 * vector;
        let low =
            at & 0xffff | KERNEL_CS << 16 | ist << 32 | 0xe << 40 | dpl << 45 | 1 << 47 | (at >> 16 & 0xffff) << 48;
        self.put(IDT + 16 * vector, low);
        self.put(IDT + 16 * vector + 8, at >> 32);
    }

    /// Handlers note what they find, and stop.
    fn handlers(&mut self) {
        let common = HANDLERS + 32 * 0x90;
        for vector in 0..=0x82u64 {
            let mut a = CodeAssembler::new(64).unwrap();
            a.endbr64().unwrap();
            if !matches!(vector, 8 | 10..=14 | 17 | 21) {
                a.push(0).unwrap();
            }
            a.push(vector as i32).unwrap();
            a.jmp(common).unwrap();
            self.code(HANDLERS + 32 * vector, a);
        }
        let mut a = CodeAssembler::new(64).unwrap();
        for i in 0..7 {
            a.pop(rax).unwrap();
            a.mov(qword_ptr(FOUND + 8 * i), rax).unwrap();
        }
        a.hlt().unwrap();
        self.code(common, a);
    }

    /// A handler of one's own.
    pub fn handler(&mut self, vector: u64, build: Code) {
        self.assemble(HANDLERS + 32 * vector, build);
    }

    pub fn assemble(&mut self, at: u64, build: Code) {
        let mut a = CodeAssembler::new(64).unwrap();
        build(&mut a).unwrap();
        self.code(at, a);
    }

    fn code(&mut self, at: u64, mut a: CodeAssembler) {
        let bytes = a.assemble(at).unwrap();
        self.machine.world.ram.write(at, &bytes).unwrap();
    }

    /// Runs code at `CODE` in kernel mode, until it halts for ever.
    pub fn run(&mut self, build: Code) -> &mut Self {
        self.assemble(CODE, build);
        self.machine.vcpus[0].core.pc = CODE;
        self.set(RSP, STACK);
        self.go_on()
    }

    pub fn go_on(&mut self) -> &mut Self {
        assert_eq!(self.machine.run(100_000), End::Deadlock);
        self
    }

    /// Runs code at `USER` with CPL 3, entered by SYSRET; SYSCALL leads to code that notes SSP, and stops.
    pub fn run_user(&mut self, build: Code) -> &mut Self {
        self.assemble(USER, build);
        self.assemble(HANDLERS + 0xf00 * 2, &|a| {
            a.endbr64()?;
            a.mov(rbx, -1i64)?;
            a.rdsspq(rbx)?;
            a.mov(qword_ptr(NOTES), rbx)?;
            a.hlt()
        });
        self.run(&|a| {
            a.mov(ax, 0x28)?;
            a.ltr(ax)?;
            write_msr(a, 0xc000_0081, 0x0010_0008 << 32)?;
            write_msr(a, 0xc000_0082, HANDLERS + 0xf00 * 2)?;
            a.mov(rcx, USER)?;
            a.mov(r11, 2u64)?;
            a.mov(rsp, USER + 0x800)?;
            a.sysretq()
        })
    }

    /// Vector, error code, RIP; zeros if nothing was found.
    pub fn found(&self) -> (u64, u64, u64) {
        (self.get(FOUND), self.get(FOUND + 8), self.get(FOUND + 16))
    }

    /// Vector and error code.
    pub fn raised(&self) -> (u64, u64) {
        (self.found().0, self.found().1)
    }

    /// RSP where the handler was called.
    pub fn found_sp(&self) -> u64 {
        self.get(FOUND + 40)
    }

    pub fn reg(&self, r: u8) -> u64 {
        self.machine.vcpus[0].core.regs[usize::from(r)]
    }

    pub fn set(&mut self, r: u8, value: u64) {
        self.machine.vcpus[0].core.regs[usize::from(r)] = value;
    }

    pub fn arch(&mut self) -> &mut X86 {
        &mut self.machine.vcpus[0].arch
    }
}

pub fn write_msr(a: &mut CodeAssembler, number: u32, value: u64) -> Result<(), IcedError> {
    a.mov(ecx, number)?;
    a.mov(eax, value as u32)?;
    a.mov(edx, (value >> 32) as u32)?;
    a.wrmsr()
}

/// A far pointer at `NOTES + 0x100`, through which it is called or jumped to: `opcode` is /3 or /5.
pub fn far(a: &mut CodeAssembler, opcode: u8, selector: u64, offset: u64) -> Result<(), IcedError> {
    a.mov(dword_ptr(NOTES + 0x100), offset as i32)?;
    a.mov(word_ptr(NOTES + 0x104), selector as i32)?;
    let at = (NOTES + 0x100) as u32;
    let [b0, b1, b2, b3] = at.to_le_bytes();
    a.db(&[0xff, opcode << 3 | 4, 0x25, b0, b1, b2, b3])
}
pub const CALL: u8 = 3;
pub const JUMP: u8 = 5;
