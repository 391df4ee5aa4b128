//! Small guests in 64-bit mode: faults, gates, privilege levels, returns, as the manual tells them.

use emu_core::engine::World;
use emu_core::machine::{End, Machine, Schedule};
use emu_core::time::Frequency;
use iced_x86::code_asm::*;
use x86::control::{cr0, cr3, cr4, rflags};
use x86::model::CpuModel;
use x86::processor::X86;
use x86::registers::{RAX, RBX, RCX, RDX, RSP};
use x86::segment::Table;

const CODE: u64 = 0x1_0000;
const USER: u64 = 0x2_0000;
const GDT: u64 = 0x1000;
const IDT: u64 = 0x2000;
const TSS: u64 = 0x3000;
/// Page tables: identity for 2 MiB, user pages from `USER` on but for `KERNEL_ONLY`; `ABSENT` is not mapped.
const PML4: u64 = 0x4000;
const PT: u64 = 0x7000;
const ABSENT: u64 = 0x3_0000;
const READ_ONLY: u64 = 0x3_1000;
/// Where handlers leave what they find: vector, error, RIP, CS, RFLAGS, RSP, SS, CR2.
const FOUND: u64 = 0x8000;
const STACK: u64 = 0xf000;
const STACK_0: u64 = 0xe000;
const STACK_IST: u64 = 0xd000;
const HANDLERS: u64 = 0x9000;

const KERNEL_CS: u64 = 8;
const USER_SS: u64 = 0x1b;
const USER_CS: u64 = 0x23;

struct Guest {
    machine: Machine<X86>,
}

impl Guest {
    fn new() -> Self {
        Guest::of("intel")
    }

    fn of(model: &str) -> Self {
        let mut world = World::new(Frequency::default());
        world.ram.add(0, 0x20_0000).unwrap();
        let mut put = |at: u64, value: u64| world.ram.store(at, 8, value).unwrap();
        // Null, kernel code and data, user data and code, TSS.
        for (i, d) in [0, 0x00af_9b00_0000_ffff, 0x00cf_9300_0000_ffff, 0x00cf_f300_0000_ffff, 0x00af_fb00_0000_ffff]
            .into_iter()
            .enumerate()
        {
            put(GDT + 8 * i as u64, d);
        }
        put(GDT + 0x28, 0x0000_8900_0000_0067 | TSS << 16);
        put(TSS + 4, STACK_0);
        put(TSS + 36, STACK_IST);
        // Tables.
        for (at, to) in [(PML4, 0x5000), (0x5000, 0x6000), (0x6000, PT)] {
            put(at, to | 7);
        }
        for page in 0..512u64 {
            let at = page << 12;
            let flags = match at {
                ABSENT => 0,
                READ_ONLY => 5,
                _ if at >= USER => 7,
                _ => 3,
            };
            put(PT + 8 * page, at | flags);
        }
        let mut hart = X86::flat_64().of_model(CpuModel::parse(model).unwrap(), 0, 1, 0);
        hart.gdtr = Table { base: GDT, limit: 0x37 };
        hart.idtr = Table { base: IDT, limit: 0xfff };
        hart.cr3 = PML4;
        hart.cr0 |= cr0::PG;
        let machine = Machine::new(world, vec![hart], Schedule::new(1000, 0));
        let mut guest = Guest { machine };
        for vector in 0..=0x81 {
            guest.gate(vector, 0xe, if vector == 3 || vector == 0x80 { 3 } else { 0 }, 0);
        }
        guest.handlers();
        guest
    }

    fn put(&mut self, at: u64, value: u64) {
        self.machine.world.ram.store(at, 8, value).unwrap();
    }

    fn get(&self, at: u64) -> u64 {
        self.machine.world.ram.load(at, 8).unwrap()
    }

    /// A gate to the vector's handler.
    fn gate(&mut self, vector: u64, kind: u64, dpl: u64, ist: u64) {
        let at = HANDLERS + 16 * vector;
        let low =
            at & 0xffff | KERNEL_CS << 16 | ist << 32 | kind << 40 | dpl << 45 | 1 << 47 | (at >> 16 & 0xffff) << 48;
        self.put(IDT + 16 * vector, low);
        self.put(IDT + 16 * vector + 8, at >> 32);
    }

    /// Handlers push an error code where there is none, and their vector; then all go to one place, which notes what it finds and
    /// stops.
    fn handlers(&mut self) {
        let common = HANDLERS + 16 * 0x90;
        for vector in 0..=0x81u64 {
            let mut a = CodeAssembler::new(64).unwrap();
            if !matches!(vector, 8 | 10..=14 | 17 | 21) {
                a.push(0).unwrap();
            }
            a.push(vector as i32).unwrap();
            a.jmp(common).unwrap();
            self.code(HANDLERS + 16 * vector, a);
        }
        let mut a = CodeAssembler::new(64).unwrap();
        for i in 0..7 {
            a.pop(rax).unwrap();
            a.mov(qword_ptr(FOUND + 8 * i), rax).unwrap();
        }
        a.mov(rax, cr2).unwrap();
        a.mov(qword_ptr(FOUND + 56), rax).unwrap();
        a.hlt().unwrap();
        self.code(common, a);
    }

    fn code(&mut self, at: u64, mut a: CodeAssembler) -> u64 {
        let bytes = a.assemble(at).unwrap();
        self.machine.world.ram.write(at, &bytes).unwrap();
        at + bytes.len() as u64
    }

    /// Runs code at `CODE` in kernel mode, until it halts for ever.
    fn run(&mut self, build: impl FnOnce(&mut CodeAssembler)) -> End {
        let mut a = CodeAssembler::new(64).unwrap();
        build(&mut a);
        self.code(CODE, a);
        let core = &mut self.machine.vcpus[0].core;
        core.pc = CODE;
        core.regs[usize::from(RSP)] = STACK;
        self.machine.run(100_000)
    }

    /// Runs code at `USER` with CPL 3, entered by SYSRET.
    fn run_user(&mut self, build: impl FnOnce(&mut CodeAssembler)) -> End {
        let mut a = CodeAssembler::new(64).unwrap();
        build(&mut a);
        self.code(USER, a);
        self.run(|a| {
            a.mov(ax, 0x28).unwrap();
            a.ltr(ax).unwrap();
            a.mov(ecx, 0xc000_0081u32 as i32).unwrap();
            a.xor(eax, eax).unwrap();
            a.mov(edx, 0x0010_0008).unwrap();
            a.wrmsr().unwrap();
            a.mov(ecx, 0xc000_0082u32 as i32).unwrap();
            a.mov(eax, (HANDLERS + 0xf00) as i32).unwrap();
            a.xor(edx, edx).unwrap();
            a.wrmsr().unwrap();
            a.mov(ecx, 0xc000_0084u32 as i32).unwrap();
            a.mov(eax, 0x700).unwrap();
            a.wrmsr().unwrap();
            a.mov(rcx, USER).unwrap();
            a.mov(r11, 2u64).unwrap();
            a.mov(rsp, USER + 0x800).unwrap();
            a.sysretq().unwrap();
        })
    }

    /// Vector, error code, RIP.
    fn found(&self) -> (u64, u64, u64) {
        (self.get(FOUND), self.get(FOUND + 8), self.get(FOUND + 16))
    }

    fn reg(&self, r: u8) -> u64 {
        self.machine.vcpus[0].core.regs[usize::from(r)]
    }
}

#[test]
fn a_page_fault_tells_address_and_error() {
    for (at, write, error) in [(ABSENT + 8, false, 0), (ABSENT + 8, true, 2), (READ_ONLY, true, 3)] {
        let mut g = Guest::new();
        let end = g.run(|a| {
            a.nop().unwrap();
            if write {
                a.mov(qword_ptr(at), rbx).unwrap();
            } else {
                a.mov(rbx, qword_ptr(at)).unwrap();
            }
        });
        assert_eq!(end, End::Deadlock);
        assert_eq!((g.found(), g.get(FOUND + 56)), ((14, error, CODE + 1), at));
        assert_eq!((g.get(FOUND + 24), g.get(FOUND + 40), g.get(FOUND + 48)), (KERNEL_CS, STACK, 16));
    }
}

#[test]
fn a_handler_repairs_and_returns() {
    let mut g = Guest::new();
    // The handler of #PF maps the page and goes back.
    let mut a = CodeAssembler::new(64).unwrap();
    a.mov(rax, PT + 8 * (ABSENT >> 12)).unwrap();
    a.mov(qword_ptr(rax), (ABSENT | 3) as i32).unwrap();
    a.add(rsp, 8).unwrap();
    a.iretq().unwrap();
    g.code(HANDLERS + 16 * 14, a);
    g.put(ABSENT, 0x1234_5678_9abc_def0);
    let end = g.run(|a| {
        a.mov(rbx, qword_ptr(ABSENT)).unwrap();
        a.mov(rcx, rbx).unwrap();
        a.hlt().unwrap();
    });
    assert_eq!((end, g.reg(RCX), g.reg(RSP)), (End::Deadlock, 0x1234_5678_9abc_def0, STACK));
    // The entries on the way are accessed; nothing is dirty.
    assert_eq!(g.get(PT + 8 * (ABSENT >> 12)) & 0x60, 0x20);
}

#[test]
fn exceptions_of_instructions() {
    type Build = fn(&mut CodeAssembler);
    let cases: [(Build, u64, u64, u64); 6] = [
        (|a| a.ud2().unwrap(), 6, 0, 0),
        (|a| a.div(rbx).unwrap(), 0, 0, 0),
        (|a| a.int3().unwrap(), 3, 0, 1),
        (|a| a.int(0x80).unwrap(), 0x80, 0, 2),
        (|a| a.mov(rax, qword_ptr(rdi)).unwrap(), 13, 0, 0),
        (|a| a.mov(rax, qword_ptr(rbp)).unwrap(), 12, 0, 0),
    ];
    for (build, vector, error, past) in cases {
        let mut g = Guest::new();
        for r in [5, 7] {
            g.machine.vcpus[0].core.regs[r] = 1 << 60; // not canonical
        }
        assert_eq!(g.run(build), End::Deadlock);
        assert_eq!(g.found(), (vector, error, CODE + past));
    }
}

#[test]
fn user_mode_is_kept_out() {
    type Build = fn(&mut CodeAssembler);
    let cases: [(Build, u64, u64); 6] = [
        (|a| a.mov(rax, qword_ptr(CODE)).unwrap(), 14, 5),
        (|a| a.mov(qword_ptr(CODE), rax).unwrap(), 14, 7),
        (|a| a.cli().unwrap(), 13, 0),
        (|a| a.hlt().unwrap(), 13, 0),
        (|a| a.mov(rax, cr3).unwrap(), 13, 0),
        (|a| a.int(0x81).unwrap(), 13, 0x81 * 8 + 2),
    ];
    for (build, vector, error) in cases {
        let mut g = Guest::new();
        assert_eq!(g.run_user(build), End::Deadlock);
        assert_eq!(g.found(), (vector, error, USER));
        assert_eq!((g.get(FOUND + 24), g.get(FOUND + 40), g.get(FOUND + 48)), (USER_CS, USER + 0x800, USER_SS));
        // The handler ran on the stack of level 0, whose SS is null.
        assert_eq!(g.reg(RSP), STACK_0);
        assert_eq!(g.machine.vcpus[0].arch.segments[2].selector, 0);
    }
}

#[test]
fn a_gate_of_dpl_3_and_the_way_back() {
    let mut g = Guest::new();
    let mut a = CodeAssembler::new(64).unwrap();
    a.mov(rbx, 7u64).unwrap();
    a.iretq().unwrap();
    g.code(HANDLERS + 16 * 0x80, a);
    let end = g.run_user(|a| {
        a.int(0x80).unwrap();
        a.mov(rdx, rbx).unwrap();
        a.ud2().unwrap();
    });
    assert_eq!((end, g.reg(RDX)), (End::Deadlock, 7));
    assert_eq!(g.found().0, 6);
    assert_eq!(g.get(FOUND + 24), USER_CS);
}

#[test]
fn syscall_leaves_where_it_came_from() {
    let mut g = Guest::new();
    let mut a = CodeAssembler::new(64).unwrap();
    a.hlt().unwrap();
    g.code(HANDLERS + 0xf00, a);
    let end = g.run_user(|a| {
        a.stc().unwrap();
        a.syscall().unwrap();
    });
    let hart = &g.machine.vcpus[0].arch;
    assert_eq!((end, hart.cpl(), hart.segments[1].selector), (End::Deadlock, 0, 8));
    assert_eq!((g.reg(RCX), g.reg(11)), (USER + 3, 3));
}

#[test]
fn an_absent_handler_is_a_double_fault_and_an_absent_one_of_that_is_the_end() {
    let mut g = Guest::new();
    g.put(IDT + 16 * 14, 0);
    g.gate(8, 0xe, 0, 1);
    g.put(GDT + 0x28, 0x0000_8900_0000_0067 | TSS << 16);
    let touch = |a: &mut CodeAssembler| {
        a.mov(ax, 0x28).unwrap();
        a.ltr(ax).unwrap();
        a.mov(rbx, qword_ptr(ABSENT)).unwrap();
    };
    assert_eq!(g.run(touch), End::Deadlock);
    assert_eq!((g.found().0, g.found().1, g.reg(RSP)), (8, 0, STACK_IST));
    // A TSS is busy once it is loaded; loading it again is #GP with its selector.
    let mut g = Guest::new();
    g.put(IDT + 16 * 14, 0);
    g.put(IDT + 16 * 8, 0);
    let end = g.run(touch);
    assert!(matches!(end, End::Shutdown(0, _)), "{end:?}");
}

#[test]
fn smap_and_smep_keep_the_kernel_out_of_user_pages() {
    for (bits, ac, vector, error) in [(cr4::SMAP, false, 14, 1), (cr4::SMAP, true, 6, 0), (cr4::SMEP, false, 14, 0x11)]
    {
        let mut g = Guest::new();
        let mut ud2 = CodeAssembler::new(64).unwrap();
        ud2.ud2().unwrap();
        g.code(USER, ud2);
        let end = g.run(|a| {
            a.mov(rax, cr4).unwrap();
            a.or(rax, bits as i32).unwrap();
            a.mov(cr4, rax).unwrap();
            if ac {
                a.pushfq().unwrap();
                a.or(dword_ptr(rsp), 1 << 18).unwrap();
                a.popfq().unwrap();
            }
            if bits == cr4::SMAP {
                a.mov(rbx, qword_ptr(USER + 8)).unwrap();
                a.ud2().unwrap();
            } else {
                a.mov(rax, USER).unwrap();
                a.jmp(rax).unwrap();
            }
        });
        assert_eq!(end, End::Deadlock);
        assert_eq!((g.found().0, g.found().1), (vector, error));
    }
}

#[test]
fn an_interrupt_waits_for_if_and_for_the_instruction_behind_sti() {
    let mut g = Guest::new();
    // Its local APIC is enabled, and sends itself an interrupt.
    let mut h = g.machine.vcpus[0].at(&mut g.machine.world);
    x86::apic::write(&mut h, 0xf0, 4, 0x1ff);
    x86::apic::write(&mut h, 0x300, 4, 1 << 18 | 0x40);
    let end = g.run(|a| {
        a.mov(rbx, 1u64).unwrap();
        a.sti().unwrap();
        a.inc(rbx).unwrap();
        a.inc(rbx).unwrap();
    });
    assert_eq!(end, End::Deadlock);
    // The instruction behind STI has been done, the next one has not.
    assert_eq!((g.found().0, g.reg(RBX)), (0x40, 2));
    assert_eq!(g.get(FOUND + 32) & 1 << 9, 1 << 9, "IF as it was");
    assert_eq!(g.machine.vcpus[0].arch.rflags & 1 << 9, 0, "an interrupt gate clears IF");
}

#[test]
fn a_run_goes_on_from_its_snapshot() {
    let build = |a: &mut CodeAssembler| {
        let mut top = a.create_label();
        a.mov(rbx, 5000u64).unwrap();
        a.set_label(&mut top).unwrap();
        a.add(qword_ptr(STACK - 64), rbx).unwrap();
        a.dec(rbx).unwrap();
        a.jne(top).unwrap();
        a.ud2().unwrap();
    };
    let mut whole = Guest::new();
    assert_eq!(whole.run(build), End::Deadlock);
    let mut first = Guest::new();
    let mut a = CodeAssembler::new(64).unwrap();
    build(&mut a);
    first.code(CODE, a);
    first.machine.vcpus[0].core.pc = CODE;
    first.machine.vcpus[0].core.regs[usize::from(RSP)] = STACK;
    // Between DEC and JNE, whose flags are in the snapshot.
    assert_eq!(first.machine.run(3 * 700 + 3), End::Limit);
    let image = first.machine.save();
    let mut second = Guest::new();
    second.machine.restore(&image).unwrap();
    assert_eq!(second.machine.run(100_000), End::Deadlock);
    assert_eq!(second.machine.state_hash(), whole.machine.state_hash());
    assert_eq!(second.reg(RAX), whole.reg(RAX));
}

fn write_msr(a: &mut CodeAssembler, number: u32, value: u64) {
    a.mov(ecx, number).unwrap();
    a.mov(eax, value as u32).unwrap();
    a.mov(edx, (value >> 32) as u32).unwrap();
    a.wrmsr().unwrap();
}

/// Goes to 32-bit code at `USER` by SYSRET, with these flags; SYSCALL from there leads to a handler.
fn to_compatibility_mode(a: &mut CodeAssembler, flags: u64) {
    write_msr(a, 0xc000_0081, 0x0010_0008 << 32);
    write_msr(a, 0xc000_0083, HANDLERS + 0xf00);
    write_msr(a, 0xc000_0084, rflags::TF);
    a.mov(ax, 0x28).unwrap();
    a.ltr(ax).unwrap();
    a.mov(rcx, USER).unwrap();
    a.mov(r11, flags).unwrap();
    a.sysret().unwrap();
}

/// APM vol. 3, "SYSCALL": compatibility mode has it, by CSTAR. SDM vol. 2B: #UD there.
#[test]
fn syscall_in_compatibility_mode() {
    for model in ["amd", "intel"] {
        let mut g = Guest::of(model);
        let mut stop = CodeAssembler::new(64).unwrap();
        stop.hlt().unwrap();
        g.code(HANDLERS + 0xf00, stop);
        let mut user = CodeAssembler::new(32).unwrap();
        user.syscall().unwrap();
        g.code(USER, user);
        assert_eq!(g.run(|a| to_compatibility_mode(a, 3)), End::Deadlock);
        let hart = &g.machine.vcpus[0].arch;
        if model == "amd" {
            assert!(hart.is_64() && hart.cpl() == 0);
            assert_eq!((g.get(FOUND), g.reg(RCX), g.reg(11)), (0, USER + 2, 3));
        } else {
            assert_eq!((g.found(), g.get(FOUND + 24)), ((6, 0, USER), 0x13));
        }
    }
}

/// RFLAGS.TF counts as SYSRET and SYSCALL leave it: #DB comes behind SYSRET, and none behind SYSCALL that has masked TF.
#[test]
fn stepping_over_system_calls() {
    let mut g = Guest::of("amd");
    assert_eq!(g.run(|a| to_compatibility_mode(a, 2 | rflags::TF)), End::Deadlock);
    assert_eq!((g.found(), g.get(FOUND + 24)), ((1, 0, USER), 0x13));
    let mut g = Guest::of("amd");
    let mut stop = CodeAssembler::new(64).unwrap();
    stop.hlt().unwrap();
    g.code(HANDLERS + 0xf00, stop);
    let mut user = CodeAssembler::new(32).unwrap();
    user.mov(esp, (USER + 0x800) as u32).unwrap();
    user.pushfd().unwrap();
    user.or(dword_ptr(esp), rflags::TF as i32).unwrap();
    user.popfd().unwrap();
    user.syscall().unwrap();
    g.code(USER, user);
    assert_eq!(g.run(|a| to_compatibility_mode(a, 2)), End::Deadlock);
    assert_eq!((g.get(FOUND), g.reg(11) & rflags::TF), (0, rflags::TF));
}

/// "Canonical Addressing": LGDT takes as many bits as the processor has, whatever the paging mode is.
#[test]
fn descriptor_tables_as_far_as_the_processor_reaches() {
    for (model, base, vector) in [
        ("intel", 0x0000_7fff_ffff_f000u64, 0),
        ("intel", 0x0000_8000_0000_0000, 13),
        ("intel,+la57", 0x0000_8000_0000_0000, 0),
        ("intel,+la57", 0x0100_0000_0000_0000, 13),
    ] {
        let mut g = Guest::of(model);
        g.put(FOUND + 0x102, base);
        let end = g.run(|a| {
            a.lgdt(ptr(FOUND + 0x100)).unwrap();
            a.hlt().unwrap();
        });
        assert_eq!((end, g.get(FOUND)), (End::Deadlock, vector), "{model} {base:#x}");
    }
}

/// "Linear-Address Masking": loads and stores leave metadata out, fetches do not.
#[test]
fn linear_address_masking() {
    const METADATA: u64 = 0x7e00_0000_0000_0000;
    for (bits, vector, loaded) in [(0, 13, 0), (cr3::LAM_U57, 6, 0x55aa), (cr3::LAM_U48, 6, 0x55aa)] {
        let mut g = Guest::of("intel,+lam");
        g.put(USER + 0x100, 0x55aa);
        let end = g.run(|a| {
            a.mov(rax, PML4 | bits).unwrap();
            a.mov(cr3, rax).unwrap();
            a.mov(rax, METADATA | (USER + 0x100)).unwrap();
            a.mov(rbx, qword_ptr(rax)).unwrap();
            a.ud2().unwrap();
        });
        assert_eq!((end, g.get(FOUND), g.reg(RBX)), (End::Deadlock, vector, loaded));
    }
    let mut g = Guest::of("intel,+lam");
    g.run(|a| {
        a.mov(rax, PML4 | cr3::LAM_U57).unwrap();
        a.mov(cr3, rax).unwrap();
        a.mov(rax, METADATA | CODE).unwrap();
        a.jmp(rax).unwrap();
    });
    assert_eq!(g.get(FOUND), 13);
    let mut g = Guest::of("intel");
    g.run(|a| {
        a.mov(rax, PML4 | cr3::LAM_U57).unwrap();
        a.mov(cr3, rax).unwrap();
    });
    assert_eq!(g.get(FOUND), 13, "a reserved bit without the feature");
}

/// A table that ends where canonical addresses do: what lies beyond is #GP(0), of the delivery that looks there.
#[test]
fn a_descriptor_that_is_not_at_a_canonical_address() {
    let mut g = Guest::new();
    for (at, to) in [(PML4 + 8 * 255, 0x5000), (0x5000 + 8 * 511, 0x6000), (0x6000 + 8 * 511, PT)] {
        g.put(at, to | 7);
    }
    // Number 1 is the last quadword below.
    g.put(0x1f_fff8, 0x00af_9b00_0000_ffff);
    g.machine.vcpus[0].arch.gdtr = Table { base: 0x7fff_ffff_fff0, limit: 0x37 };
    // The gate of #UD leads to number 2.
    let gate = g.get(IDT + 16 * 6);
    g.put(IDT + 16 * 6, gate & !0xffff_0000 | 16 << 16);
    assert_eq!(g.run(|a| a.ud2().unwrap()), End::Deadlock);
    assert_eq!((g.found().0, g.found().1), (13, 0));
}
