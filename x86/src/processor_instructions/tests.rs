use emu_core::engine::World;
use emu_core::machine::{End, Machine, Schedule};
use emu_core::time::Frequency;
use iced_x86::code_asm::*;

use crate::apic;
use crate::control::cr4;
use crate::model::CpuModel;
use crate::processor::X86;
use crate::registers::{RAX, RBX, RCX, RDX};

const CODE: u64 = 0x1000;
const DATA: u64 = 0x8000;

type Program<'a> = &'a dyn Fn(&mut CodeAssembler) -> Result<(), IcedError>;

/// Processors in flat 64-bit mode with interrupts off and without an IDT: a fault shuts down.
fn machine(model: &str, programs: &[Program]) -> Machine<X86> {
    let model = CpuModel::parse(model).unwrap();
    let cores = programs.len() as u32;
    let mut world = World::new(Frequency::default());
    world.ram.add(0, 0x10_0000).unwrap();
    let arches: Vec<_> = (0..cores).map(|i| X86::flat_64().of_model(model, i, cores, 7)).collect();
    for (i, program) in programs.iter().enumerate() {
        let mut a = CodeAssembler::new(64).unwrap();
        program(&mut a).unwrap();
        a.hlt().unwrap();
        let at = CODE + 0x1000 * i as u64;
        world.ram.write(at, &a.assemble(at).unwrap()).unwrap();
    }
    let mut m = Machine::new(world, arches, Schedule::new(1000, 0));
    for (i, v) in m.vcpus.iter_mut().enumerate() {
        v.core.pc = CODE + 0x1000 * i as u64;
        v.arch.cr4 |= cr4::FSGSBASE;
    }
    m
}

fn reg(m: &Machine<X86>, r: u8) -> u64 {
    m.vcpus[0].core.regs[usize::from(r)]
}

/// Runs one program to its HLT.
fn run(model: &str, program: impl Fn(&mut CodeAssembler) -> Result<(), IcedError>) -> (End, Machine<X86>) {
    let mut m = machine(model, &[&program]);
    let end = m.run(100_000);
    (end, m)
}

#[test]
fn cpuid_and_msrs() {
    let (end, m) = run("amd", |a| {
        a.mov(eax, 0)?;
        a.cpuid()?;
        a.mov(esi, ebx)?;
        a.mov(ecx, 0xc000_0103u32)?;
        a.mov(eax, 0x55)?;
        a.mov(edx, 0)?;
        a.wrmsr()?;
        a.rdpid(rdi)?;
        a.rdmsr()
    });
    assert_eq!((end, reg(&m, crate::registers::RSI), reg(&m, RAX)), (End::Deadlock, 0x6874_7541, 0x55));
    assert_eq!(reg(&m, crate::registers::RDI), 0x55);
}

/// Model, instruction, whether it is there.
#[test]
fn instructions_by_model() {
    type Program = fn(&mut CodeAssembler) -> Result<(), IcedError>;
    let rows: &[(&str, &str, Program, bool)] = &[
        ("clzero", "amd", |a| a.clzero(), true),
        ("clzero", "intel", |a| a.clzero(), false),
        ("rdpru", "amd", |a| a.rdpru(), true),
        ("rdpru", "intel", |a| a.rdpru(), false),
        ("serialize", "intel", |a| a.serialize(), true),
        ("serialize", "amd", |a| a.serialize(), false),
        ("tpause", "intel", |a| a.tpause(ebx), true),
        ("tpause", "amd", |a| a.tpause(ebx), false),
        ("wbinvd", "intel", |a| a.wbinvd(), true),
        ("invd", "intel", |a| a.invd(), true),
        ("wbnoinvd", "intel", |a| a.wbnoinvd(), true),
        ("clflush", "intel", |a| a.clflush(byte_ptr(DATA)), true),
        ("clflushopt", "intel", |a| a.clflushopt(byte_ptr(DATA)), true),
        ("clflushopt", "intel,-clflushopt", |a| a.clflushopt(byte_ptr(DATA)), false),
        ("clwb", "amd", |a| a.clwb(byte_ptr(DATA)), true),
        ("cldemote", "intel", |a| a.cldemote(byte_ptr(DATA)), true),
        ("rdfsbase", "intel", |a| a.rdfsbase(rax), true),
        ("rdfsbase", "intel,-fsgsbase", |a| a.rdfsbase(rax), false),
        ("mwait", "intel", |a| a.mwait(), true),
        ("mwait", "intel,-monitor", |a| a.mwait(), false),
        ("mwaitx", "amd", |a| a.mwaitx(), true),
        ("rdmsr of none", "intel", |a| a.rdmsr(), true),
        ("pause", "intel", |a| a.pause(), true),
        ("rdpmc", "intel", |a| a.rdpmc(), true),
    ];
    for (name, model, program, is_there) in rows {
        let (end, _) = run(model, program);
        assert_eq!(end == End::Deadlock, *is_there, "{name} on {model}: {end:?}");
    }
}

#[test]
fn bases_stores_and_lines() {
    let (end, m) = run("intel", |a| {
        a.mov(rax, 0x1122_3344_5566_7788u64)?;
        a.mov(rbx, 0x7000_0000_1234u64)?;
        a.wrfsbase(rbx)?;
        a.rdfsbase(rcx)?;
        a.wrgsbase(ebx)?;
        a.rdgsbase(rdx)?;
        a.movdiri(qword_ptr(DATA), rax)?;
        a.movdiri(dword_ptr(DATA + 8), eax)?;
        a.mov(rsi, DATA + 0x40)?;
        a.movdir64b(rsi, zmmword_ptr(DATA))
    });
    assert_eq!(end, End::Deadlock);
    assert_eq!((reg(&m, RCX), reg(&m, RDX)), (0x7000_0000_1234, 0x1234));
    let line: Vec<_> = (0..2).map(|i| m.world.ram.load(DATA + 0x40 + 8 * i, 8).unwrap()).collect();
    assert_eq!(line, [0x1122_3344_5566_7788, 0x5566_7788]);
    let (end, _) = run("intel", |a| {
        a.mov(rsi, DATA + 8)?;
        a.movdir64b(rsi, zmmword_ptr(DATA))
    });
    assert!(matches!(end, End::Shutdown(..)), "an address that is not aligned to a line");
    let (end, m) = run("amd", |a| {
        a.mov(rax, u64::MAX)?;
        a.mov(qword_ptr(DATA + 0x38), rax)?;
        a.mov(qword_ptr(DATA + 0x40), rax)?;
        a.mov(rax, DATA + 0x11)?;
        a.clzero()
    });
    assert_eq!(end, End::Deadlock);
    assert_eq!([0x38, 0x40].map(|i| m.world.ram.load(DATA + i, 8).unwrap()), [0, u64::MAX]);
}

/// Numbers follow from the seed; CF says that there is one.
#[test]
fn random_numbers() {
    let numbers = |program: fn(&mut CodeAssembler) -> Result<(), IcedError>| {
        let (end, m) = run("intel", program);
        assert_eq!(end, End::Deadlock);
        (reg(&m, RAX), reg(&m, RBX), reg(&m, RCX))
    };
    let program = |a: &mut CodeAssembler| {
        a.mov(rbx, u64::MAX)?;
        a.rdrand(rax)?;
        a.rdseed(bx)?;
        a.setb(cl)
    };
    let first = numbers(program);
    assert_eq!(first, numbers(program));
    assert_eq!((first.1 >> 16, first.2 & 0xff), (u64::MAX >> 16, 1));
    assert_ne!(first.0, 0);
}

/// One processor waits for a line that the other writes.
#[test]
fn a_store_wakes_who_monitors() {
    let mut m = machine(
        "intel",
        &[
            &|a| {
                a.mov(rax, DATA)?;
                a.xor(ecx, ecx)?;
                a.xor(edx, edx)?;
                a.monitor()?;
                a.mwait()?;
                a.mov(rbx, qword_ptr(DATA + 8))
            },
            &|a| {
                a.mov(rcx, 5000u64)?;
                let mut again = a.create_label();
                a.set_label(&mut again)?;
                a.dec(rcx)?;
                a.jne(again)?;
                a.mov(qword_ptr(DATA + 8), 77)
            },
        ],
    );
    assert_eq!(m.run(4000), End::Limit);
    assert!(m.is_waiting(0));
    assert_eq!((m.run(100_000), reg(&m, RBX)), (End::Deadlock, 77));
}

#[test]
fn waits_with_a_deadline() {
    // TPAUSE, to a TSC of 50,000.
    let (end, m) = run("intel", |a| {
        a.mov(eax, 50_000)?;
        a.xor(edx, edx)?;
        a.mov(ebx, 1)?;
        a.stc()?;
        a.tpause(ebx)?;
        a.setb(cl)?;
        a.rdtsc()
    });
    assert_eq!((end, reg(&m, RCX) & 1), (End::Deadlock, 0));
    assert!((50_000..50_010).contains(&reg(&m, RAX)), "{}", reg(&m, RAX));
    // The system's limit comes before the deadline: CF.
    let (end, m) = run("intel", |a| {
        a.mov(ecx, 0xe1)?;
        a.mov(eax, 1000)?;
        a.xor(edx, edx)?;
        a.wrmsr()?;
        a.mov(eax, 50_000)?;
        a.mov(ebx, 1)?;
        a.tpause(ebx)?;
        a.setb(cl)?;
        a.rdtsc()
    });
    assert_eq!((end, reg(&m, RCX) & 1), (End::Deadlock, 1));
    assert!((1000..1020).contains(&reg(&m, RAX)), "{}", reg(&m, RAX));
    // MWAITX, 3000 ticks.
    let (end, m) = run("amd", |a| {
        a.mov(rax, DATA)?;
        a.xor(ecx, ecx)?;
        a.monitorx()?;
        a.mov(ecx, 2)?;
        a.mov(ebx, 3000)?;
        a.mwaitx()?;
        a.rdtsc()
    });
    assert_eq!(end, End::Deadlock);
    assert!((3000..3020).contains(&reg(&m, RAX)), "{}", reg(&m, RAX));
}

/// Counters count what is retired; an overflow interrupts at its instruction.
#[test]
fn performance_counters() {
    fn set(a: &mut CodeAssembler, msr: u32, value: u64) -> Result<(), IcedError> {
        a.mov(ecx, msr)?;
        a.mov(eax, value as u32)?;
        a.mov(edx, (value >> 32) as u32)?;
        a.wrmsr()
    }
    for (model, select, counter, index, event) in [
        ("intel", 0x186, 0xc1, 0, 0xc0),
        ("amd", 0xc001_0200, 0xc001_0201, 0, 0xc0),
        ("amd", 0xc001_0000, 0xc001_0004, 0, 0x76),
    ] {
        let (end, m) = run(model, |a| {
            if model == "amd" {
                set(a, 0xc000_0301, 0x3f)?;
            }
            set(a, counter, 100)?;
            set(a, select, 1 << 22 | 3 << 16 | event)?;
            for _ in 0..9 {
                a.nop()?;
            }
            a.mov(ecx, index)?;
            a.rdpmc()
        });
        assert_eq!((end, reg(&m, RAX)), (End::Deadlock, 100 + 11), "{model}: WRMSR, nine NOPs, MOV");
    }
    let (end, mut m) = run("intel", |a| {
        set(a, 0x4c1, (1 << 48) - 6)?;
        set(a, 0x186, 1 << 22 | 1 << 20 | 3 << 16 | 0x3c)?;
        a.mov(ecx, 0x38e)?;
        a.nop()?;
        a.nop()?;
        a.rdmsr()?;
        a.mov(ebx, eax)?;
        a.nop()?;
        a.rdmsr()
    });
    assert_eq!((end, reg(&m, RBX), reg(&m, RAX)), (End::Deadlock, 0, 1));
    assert_eq!(m.vcpus[0].at(&mut m.world).arch.apic.pending_vector(), None, "LVT PC is masked");
}

/// A performance interrupt comes at its instruction, and its entry is masked by that.
#[test]
fn a_performance_interrupt() {
    let mut m = machine(
        "intel",
        &[&|a| {
            for _ in 0..200 {
                a.nop()?;
            }
            Ok(())
        }],
    );
    m.run(0);
    {
        let mut h = m.vcpus[0].at(&mut m.world);
        apic::write(&mut h, 0xf0, 4, 0x1ff);
        apic::write(&mut h, 0x340, 4, 0x45);
        crate::msr::write(&mut h, 0x4c2, (1 << 48) - 50).unwrap();
        crate::msr::write(&mut h, 0x187, 1 << 22 | 1 << 20 | 1 << 17 | 0xc0).unwrap();
    }
    let before = |m: &mut Machine<X86>| m.vcpus[0].arch.apic.pending_vector();
    assert_eq!((m.run(49), before(&mut m)), (End::Limit, None));
    assert_eq!((m.run(51), before(&mut m)), (End::Limit, Some(0x45)));
    assert_eq!(apic::read(&mut m.vcpus[0].at(&mut m.world), 0x340, 4), 0x1_0045);
}

/// Counters of OS alone do not count what programs do, and the other way round.
#[test]
fn counters_by_privilege() {
    for (os, usr, cpl, counted) in [(1, 0, 0, 20), (0, 1, 0, 0), (1, 0, 3, 0), (0, 1, 3, 20), (1, 1, 3, 20)] {
        let mut m = machine(
            "intel",
            &[&|a| {
                for _ in 0..200 {
                    a.nop()?;
                }
                Ok(())
            }],
        );
        m.run(0);
        let mut h = m.vcpus[0].at(&mut m.world);
        crate::msr::write(&mut h, 0x186, 1 << 22 | usr << 16 | os << 17 | 0xc0).unwrap();
        h.arch.segments[crate::processor::segments::SS].attributes.0 |= if cpl == 3 { 0x60 } else { 0 };
        assert_eq!(m.run(20), End::Limit);
        let value = crate::msr::read(&mut m.vcpus[0].at(&mut m.world), 0xc1);
        assert_eq!(value, Ok(counted), "OS {os}, USR {usr}, CPL {cpl}");
    }
}
