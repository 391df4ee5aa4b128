//! Several processors: start-up by INIT and SIPI, interrupts between them, the timer, all by the local APIC's page and by its MSRs.

use emu_core::engine::World;
use emu_core::machine::{End, Machine, Schedule};
use emu_core::time::Frequency;
use iced_x86::code_asm::*;
use x86::model::CpuModel;
use x86::processor::X86;
use x86::registers::{RBX, RCX};
use x86::segment::Table;

const CODE: u64 = 0x1000;
/// Where the second processor starts: SIPI vector 8.
const TRAMPOLINE: u64 = 0x8000;
const MARK: u64 = 0x9000;
const IDT: u64 = 0xa000;
const GDT: u64 = 0xb000;
const HANDLER: u64 = 0xc000;
const STACK: u64 = 0xf000;
const APIC: u64 = 0xfee0_0000;

type Code<'a> = &'a dyn Fn(&mut CodeAssembler) -> Result<(), IcedError>;

fn assemble(bits: u32, at: u64, code: Code) -> Vec<u8> {
    let mut a = CodeAssembler::new(bits).unwrap();
    code(&mut a).unwrap();
    a.hlt().unwrap();
    a.assemble(at).unwrap()
}

/// The bootstrap processor in flat 64-bit mode, with a handler for vector 40H that counts in RBX; the other one waits for its start.
fn machine(model: &str, code: Code) -> Machine<X86> {
    let model = CpuModel::parse(model).unwrap();
    let mut world = World::new(Frequency::default());
    world.ram.add(0, 0x10_0000).unwrap();
    let handler = |a: &mut CodeAssembler| {
        a.inc(rbx)?;
        a.push(rax)?;
        a.push(rcx)?;
        a.push(rdx)?;
        a.mov(ecx, 0x1b)?;
        a.rdmsr()?;
        let (mut page, mut done) = (a.create_label(), a.create_label());
        a.test(eax, 0x400)?;
        a.je(page)?;
        a.mov(ecx, 0x80b)?;
        a.xor(eax, eax)?;
        a.xor(edx, edx)?;
        a.wrmsr()?;
        a.jmp(done)?;
        a.set_label(&mut page)?;
        a.mov(eax, APIC as u32)?;
        a.mov(dword_ptr(rax + 0xb0), 0)?;
        a.set_label(&mut done)?;
        a.pop(rdx)?;
        a.pop(rcx)?;
        a.pop(rax)?;
        a.iretq()
    };
    let second = |a: &mut CodeAssembler| {
        a.mov(word_ptr(MARK), 0x55aa)?;
        a.mov(ax, cs)?;
        a.mov(word_ptr(MARK + 2), ax)
    };
    for (at, bytes) in [
        (CODE, assemble(64, CODE, code)),
        (HANDLER, assemble(64, HANDLER, &handler)),
        (TRAMPOLINE, assemble(16, 0, &second)),
    ] {
        world.ram.write(at, &bytes).unwrap();
    }
    for (i, d) in [0, 0x00af_9b00_0000_ffffu64, 0x00cf_9300_0000_ffff].into_iter().enumerate() {
        world.ram.store(GDT + 8 * i as u64, 8, d).unwrap();
    }
    world.ram.store(IDT + 0x400, 8, HANDLER | 8 << 16 | 0x8e << 40).unwrap();
    let mut first = X86::flat_64().of_model(model, 0, 2, 1);
    first.gdtr = Table { base: GDT, limit: 23 };
    first.idtr = Table { base: IDT, limit: 0xfff };
    let mut other = X86::reset(1).of_model(model, 1, 2, 1);
    other.waiting.waits_for_sipi();
    let mut m = Machine::new(world, vec![first, other], Schedule::new(1000, 0));
    m.set_waiting(1);
    m.vcpus[0].core.pc = CODE;
    m.vcpus[0].core.regs[4] = STACK;
    m
}

/// Writes a register of the APIC's page.
fn page(a: &mut CodeAssembler, offset: i64, value: u32) -> Result<(), IcedError> {
    a.mov(esi, APIC as u32)?;
    a.mov(dword_ptr(rsi + offset), value)
}

fn msr(a: &mut CodeAssembler, number: u32, value: u64) -> Result<(), IcedError> {
    a.mov(ecx, number)?;
    a.mov(eax, value as u32)?;
    a.mov(edx, (value >> 32) as u32)?;
    a.wrmsr()
}

#[test]
fn the_second_processor_starts() {
    for model in ["intel", "amd"] {
        for x2apic in [false, true] {
            let mut m = machine(model, &|a| {
                if x2apic {
                    msr(a, 0x1b, 0xfee0_0d00)?;
                    msr(a, 0x830, 1 << 32 | 0x4500)?;
                    msr(a, 0x830, 1 << 32 | 0x4608)
                } else {
                    page(a, 0x310, 1 << 24)?;
                    page(a, 0x300, 0x4500)?;
                    page(a, 0x300, 0x4608)
                }
            });
            assert_eq!(m.run(10_000), End::Deadlock, "{model}");
            assert_eq!(m.world.ram.load(MARK, 4), Ok(0x0800_55aa), "{model}: it ran at 0800:0000");
        }
    }
}

/// An SMI that comes while the second processor waits for its start is taken as soon as it has started.
#[test]
fn an_smi_waits_for_the_start() {
    let mut m = machine("intel", &|a| {
        page(a, 0x310, 1 << 24)?;
        page(a, 0x300, 0x4500)?;
        page(a, 0x300, 0x4200)?;
        a.mov(word_ptr(MARK), 0x1111)?;
        page(a, 0x300, 0x4608)
    });
    let handler = assemble(16, 0, &|a| {
        a.mov(ax, word_ptr(MARK))?;
        a.mov(word_ptr(MARK + 4), ax)?;
        a.rsm()
    });
    m.world.ram.write(0x3_8000, &handler).unwrap();
    assert_eq!(m.run(10_000), End::Deadlock);
    assert_eq!(m.world.ram.load(MARK, 8), Ok(0x1111_0800_55aa), "before its first instruction");
}

/// Ticks of a periodic timer wake the processor from HLT, each at its time.
#[test]
fn the_timer_interrupts() {
    let mut m = machine("intel", &|a| {
        a.xor(ebx, ebx)?;
        page(a, 0xf0, 0x1ff)?;
        page(a, 0x3e0, 0xb)?;
        page(a, 0x320, 0x2_0040)?;
        page(a, 0x380, 100)?;
        a.sti()?;
        let mut again = a.create_label();
        a.set_label(&mut again)?;
        a.hlt()?;
        a.cmp(rbx, 5)?;
        a.jne(again)?;
        a.cli()?;
        page(a, 0x380, 0)?;
        a.rdtsc()?;
        a.mov(ecx, eax)
    });
    assert_eq!(m.run(10_000), End::Deadlock);
    let regs = &m.vcpus[0].core.regs;
    assert_eq!(regs[usize::from(RBX)], 5);
    // Five times 100 ticks of a clock of 38.4 MHz, and what the instructions around it take.
    let tsc = regs[usize::from(RCX)];
    assert!((13_020..13_100).contains(&tsc), "{tsc}");
}

/// A TSC deadline in x2APIC mode wakes a processor from MWAIT with interrupts off, and is taken as soon as they are on.
#[test]
fn a_deadline_ends_mwait() {
    let mut m = machine("intel", &|a| {
        a.xor(ebx, ebx)?;
        msr(a, 0x1b, 0xfee0_0d00)?;
        msr(a, 0x80f, 0x1ff)?;
        msr(a, 0x832, 0x4_0040)?;
        msr(a, 0x6e0, 30_000)?;
        a.mov(eax, MARK as u32)?;
        a.xor(ecx, ecx)?;
        a.xor(edx, edx)?;
        a.monitor()?;
        a.xor(eax, eax)?;
        a.mov(ecx, 1)?;
        a.mwait()?;
        a.rdtsc()?;
        a.mov(edi, eax)?;
        a.mov(ebp, ebx)?;
        a.sti()?;
        a.nop()?;
        a.nop()?;
        a.cli()
    });
    assert_eq!(m.run(10_000), End::Deadlock);
    let regs = &m.vcpus[0].core.regs;
    assert_eq!((regs[5], regs[usize::from(RBX)]), (0, 1), "not before STI, and once");
    assert!((30_000..30_010).contains(&regs[7]), "{}", regs[7]);
}

/// A run from a snapshot is the run itself.
#[test]
fn a_snapshot_goes_on() {
    let fresh = || {
        machine("amd", &|a| {
            a.xor(ebx, ebx)?;
            page(a, 0xf0, 0x1ff)?;
            page(a, 0x320, 0x2_0040)?;
            page(a, 0x380, 30)?;
            a.sti()?;
            let mut again = a.create_label();
            a.set_label(&mut again)?;
            a.rdrand(rdi)?;
            a.pause()?;
            a.jmp(again)
        })
    };
    let mut whole = fresh();
    whole.run(30_000);
    let mut half = fresh();
    half.run(15_000);
    let image = half.save();
    let mut other = fresh();
    other.restore(&image).unwrap();
    other.run(30_000);
    assert!(other.vcpus[0].arch == whole.vcpus[0].arch);
    assert_eq!(other.vcpus[0].core.regs[..32], whole.vcpus[0].core.regs[..32]);
    assert!(whole.vcpus[0].core.regs[usize::from(RBX)] > 10);
}
