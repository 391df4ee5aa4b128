use emu_core::engine::World;
use emu_core::machine::{End, Machine, Schedule};
use emu_core::time::Frequency;
use iced_x86::code_asm::*;

use crate::model::CpuModel;
use crate::msr;
use crate::processor::X86;
use crate::registers::{RAX, RSP};
use crate::segment::Table;

const CODE: u64 = 0x1000;
const STACK: u64 = 0x9000;
const HANDLER: u64 = 0x6000;
/// Where the handler of #DB leaves what it has found.
const FOUND: u64 = 0x7000;

const DEBUGCTL: u32 = 0x1d9;
const LBR_SELECT: u32 = 0x1c8;
const LBR_TOS: u32 = 0x1c9;
const LBR_CTL: u32 = 0x14ce;
const LBR_DEPTH: u32 = 0x14cf;

type Program = fn(&mut CodeAssembler) -> Result<(), IcedError>;

/// A processor at [`CODE`] in flat 64-bit mode, with a GDT and an IDT of which #DB has an entry.
fn machine(model: &str, program: Program) -> Machine<X86> {
    let mut world = World::new(Frequency::default());
    world.ram.add(0, 0x10_0000).unwrap();
    let mut a = CodeAssembler::new(64).unwrap();
    program(&mut a).unwrap();
    a.hlt().unwrap();
    world.ram.write(CODE, &a.assemble(CODE).unwrap()).unwrap();
    let mut a = CodeAssembler::new(64).unwrap();
    let mut write = || {
        a.mov(rax, qword_ptr(rsp))?;
        a.stosq()?;
        a.mov(ecx, DEBUGCTL)?;
        a.mov(eax, 2)?;
        a.xor(edx, edx)?;
        a.wrmsr()?;
        a.iretq()
    };
    write().unwrap();
    world.ram.write(HANDLER, &a.assemble(HANDLER).unwrap()).unwrap();
    // GDT at 4000h: null, code, data. IDT at 5000h.
    for (i, d) in [0u64, 0x00af_9b00_0000_ffff, 0x00cf_9300_0000_ffff].into_iter().enumerate() {
        world.ram.write(0x4000 + 8 * i as u64, &d.to_le_bytes()).unwrap();
    }
    world.ram.write(0x5010, &(HANDLER | 8 << 16 | 0x8e << 40).to_le_bytes()).unwrap();
    let model = CpuModel::parse(model).unwrap();
    let mut arch = X86::flat_64().of_model(model, 0, 1, 7);
    arch.gdtr = Table { base: 0x4000, limit: 23 };
    arch.idtr = Table { base: 0x5000, limit: 0xfff };
    let mut m = Machine::new(world, vec![arch], Schedule::new(1000, 0));
    m.vcpus[0].core.pc = CODE;
    m.vcpus[0].core.regs[usize::from(RSP)] = STACK;
    m.vcpus[0].core.regs[7] = FOUND;
    m
}

fn write(m: &mut Machine<X86>, number: u32, value: u64) {
    msr::write(&mut m.vcpus[0].at(&mut m.world), number, value).unwrap_or_else(|e| panic!("{number:#x}: {e:?}"));
}

fn read(m: &mut Machine<X86>, number: u32) -> u64 {
    msr::read(&mut m.vcpus[0].at(&mut m.world), number).unwrap_or_else(|e| panic!("{number:#x}: {e:?}"))
}

/// A machine with MSRs written, having run to its HLT.
fn run(model: &str, msrs: &[(u32, u64)], program: Program) -> Machine<X86> {
    let mut m = machine(model, program);
    for (number, value) in msrs {
        write(&mut m, *number, *value);
    }
    assert_eq!(m.run(100_000), End::Deadlock, "{model}");
    m
}

/// Ten turns of a loop with a call each, then an indirect jump and an indirect call: 10 + 10 + 10 + 1 + 1 + 1 branches.
fn calls(a: &mut CodeAssembler) -> Result<(), IcedError> {
    let (mut turn, mut function, mut behind, mut end) =
        (a.create_label(), a.create_label(), a.create_label(), a.create_label());
    a.mov(ecx, 10)?;
    a.set_label(&mut turn)?;
    a.call(function)?;
    a.loop_(turn)?;
    a.lea(rbx, ptr(behind))?;
    a.jmp(rbx)?;
    a.set_label(&mut function)?;
    a.inc(eax)?;
    a.ret()?;
    a.set_label(&mut behind)?;
    a.lea(rbx, ptr(function))?;
    a.call(rbx)?;
    a.jmp(end)?;
    a.nop()?;
    a.set_label(&mut end)?;
    a.nop()
}

#[test]
fn counters_count_branches_exactly() {
    /// PERF_CTL0, IA32_PERFEVTSEL0: enabled for all levels.
    const ON: u64 = 3 << 16 | 1 << 22;
    for (event, count) in [
        (0xc2, 34),
        (0xc3, 2 + 2), // the loop's first turn and end; jump and call through RBX
        (0xc4, 33),
        (0xc6, 0),
        (0xc8, 11),
        (0xca, 2),
        (0xcc, 2),
        (0xd1, 10),
        (0x1_0000_00c9, 22 + 2 - 1 + 1), // calls, returns, jumps
    ] {
        let mut m = run("amd", &[(0xc001_0200, ON | event)], calls);
        assert_eq!(read(&mut m, 0xc001_0201), count, "{event:#x}");
    }
    for (event, count) in
        [(0x00c4, 34), (0x00c5, 4), (0x02c4, 11), (0x08c4, 11), (0x10c4, 1), (0x20c4, 33), (0x80c4, 2)]
    {
        let mut m = run("intel", &[(0x186, ON | event), (0x38f, 1)], calls);
        assert_eq!(read(&mut m, 0xc1), count, "{event:#x}");
    }
    // Of CPL 3 only, with a counter that is off, or with one that the global control switches off: none.
    for msrs in [[(0x186, 1 << 16 | 1 << 22 | 0xc4), (0x38f, 1)], [(0x186, ON | 0xc4), (0x38f, 2)]] {
        let mut m = run("intel", &msrs, calls);
        assert_eq!(read(&mut m, 0xc1), 0);
        assert_eq!(m.vcpus[0].core.regs[usize::from(RAX)], 11);
    }
    // An overflow shows.
    let mut m = run("amd", &[(0xc001_0200, ON | 0xc2), (0xc001_0201, (1 << 48) - 34), (0xc000_0301, 1)], calls);
    assert_eq!((read(&mut m, 0xc001_0201), read(&mut m, 0xc000_0300)), (0, 1));
}

/// The latest records of the stack, latest first: offsets from [`CODE`].
fn stack(m: &mut Machine<X86>, count: u32) -> Vec<(u64, u64)> {
    let top = read(m, LBR_TOS) as u32;
    let place = |i: u32| (top + 32 - i) % 32;
    (0..count).map(|i| (read(m, 0x680 + place(i)) - CODE, read(m, 0x6c0 + place(i)) - CODE)).collect()
}

/// A jump, a call, a return, a branch that is taken and one that is not: at 0, 7, 11, 0ch, 0eh.
fn few(a: &mut CodeAssembler) -> Result<(), IcedError> {
    let (mut main, mut function, mut end) = (a.create_label(), a.create_label(), a.create_label());
    a.jmp(main)?; // 0
    a.set_label(&mut function)?;
    a.nop()?; // 2
    a.ret()?; // 3
    a.set_label(&mut main)?;
    a.call(function)?; // 4
    a.test(rsp, rsp)?; // 9
    a.je(end)?; // 0ch
    a.jne(end)?; // 0eh
    a.nop()?;
    a.set_label(&mut end)?; // 11h
    a.nop()
}
const FEW: [(u64, u64); 4] = [(0xe, 0x11), (3, 9), (4, 2), (0, 4)];

#[test]
fn the_stack_of_last_branches() {
    let mut m = run("intel,+lbr", &[(DEBUGCTL, 1)], few);
    assert_eq!((stack(&mut m, 4), read(&mut m, LBR_TOS)), (FEW.to_vec(), 4));
    assert_eq!((read(&mut m, 0x680), read(&mut m, 0x345) & 0x3f), (0, 7));
    // JNE was predicted not to be taken; two instructions retired since the return.
    assert_eq!(read(&mut m, 0xdc4), 1 << 63 | 3);
    assert_eq!(read(&mut m, 0xdc2), 1);
    // What the filter names is left out.
    for (select, left) in [(1 << 2, &FEW[1..]), (1 << 5, &[FEW[0], FEW[2], FEW[3]]), (1 << 3 | 1 << 7, &FEW[..2])] {
        let mut m = run("intel,+lbr", &[(LBR_SELECT, select), (DEBUGCTL, 1)], few);
        assert_eq!(stack(&mut m, left.len() as u32), left, "{select:#x}");
        assert_eq!(read(&mut m, LBR_TOS), left.len() as u64);
    }
    // Neither at CPL 0, nor when it is off.
    for msrs in [[(LBR_SELECT, 1), (DEBUGCTL, 1)], [(LBR_SELECT, 0), (DEBUGCTL, 0)]] {
        assert_eq!(read(&mut run("intel,+lbr", &msrs, few), LBR_TOS), 0);
    }
    // Calls and returns are paired: nothing is left.
    let only_calls = 1 << 9 | 1 << 2 | 1 << 6 | 1 << 7 | 1 << 8;
    assert_eq!(read(&mut run("intel,+lbr", &[(LBR_SELECT, only_calls), (DEBUGCTL, 1)], few), LBR_TOS), 0);
}

#[test]
fn architectural_records() {
    const ALL: u64 = 0x7f_0007;
    let mut m = run("intel,+arch_lbr", &[(LBR_CTL, ALL)], few);
    for (i, (from, to)) in FEW.into_iter().enumerate() {
        let i = i as u32;
        assert_eq!((read(&mut m, 0x1500 + i), read(&mut m, 0x1600 + i)), (CODE + from, CODE + to), "{i}");
    }
    let info: Vec<_> = (0..4).map(|i| read(&mut m, 0x1200 + i) >> 56).collect();
    // Mispredicted and with cycles: conditional; a return, a relative call, a relative jump.
    assert_eq!(info, [0x90, 0x15, 0x14, 0x12]);
    assert_eq!((read(&mut m, 0x1504), read(&mut m, 0x345) & 0x3f), (0, 0x3f));
    // Types and levels.
    let mut m = run("intel,+arch_lbr", &[(LBR_CTL, 1 << 21 | 3)], few);
    assert_eq!((read(&mut m, 0x1500), read(&mut m, 0x1501)), (CODE + 3, 0));
    assert_eq!(read(&mut run("intel,+arch_lbr", &[(LBR_CTL, 0x7f_0005)], few), 0x1500), 0);
    // A return takes its call away.
    let call_stack = 1 << 19 | 1 << 20 | 1 << 21 | 1 << 3 | 3;
    assert_eq!(read(&mut run("intel,+arch_lbr", &[(LBR_CTL, call_stack)], few), 0x1500), 0);
    // There are as many as the depth says.
    let mut m = run("intel,+arch_lbr", &[(LBR_DEPTH, 8), (LBR_CTL, ALL)], calls);
    assert_ne!(read(&mut m, 0x1507), 0);
    let mut h = m.vcpus[0].at(&mut m.world);
    assert!(msr::read(&mut h, 0x1508).is_err() && msr::write(&mut h, LBR_DEPTH, 12).is_err());
    assert!(msr::write(&mut h, LBR_CTL, 1 << 4).is_err() && msr::read(&mut h, LBR_TOS).is_err());
    msr::write(&mut h, LBR_DEPTH, 16).unwrap();
    assert_eq!(msr::read(&mut h, 0x1500), Ok(0), "another depth begins empty");
    // IA32_DEBUGCTL.LBR has no meaning.
    assert_eq!(read(&mut run("intel,+arch_lbr", &[(DEBUGCTL, 1)], few), 0x1500), 0);
}

#[test]
fn records_of_amd() {
    // The last branch is there without a switch.
    let mut m = run("amd", &[(DEBUGCTL, 1)], few);
    assert_eq!((read(&mut m, 0x1db), read(&mut m, 0x1dc)), (CODE + FEW[0].0, CODE + FEW[0].1));
    assert!(msr::read(&mut m.vcpus[0].at(&mut m.world), 0xc001_0300).is_err());
    let mut m = run("amd,+amd_lbr_v2", &[(0xc000_010f, 1 << 6)], few);
    for (i, (from, to)) in FEW.into_iter().enumerate() {
        let wrong = if i == 0 { 1 << 63 } else { 0 };
        let at = 0xc001_0300 + 2 * i as u32;
        let record = ((CODE + from) | wrong, (CODE + to) | 1 << 63);
        assert_eq!((read(&mut m, at), read(&mut m, at + 1)), record, "{i}");
    }
    assert_eq!((read(&mut m, 0xc001_0309), read(&mut m, 0xc000_010f)), (0, 0x58));
    let mut m = run("amd,+amd_lbr_v2", &[(0xc000_010e, 0x1ff & !(1 << 5 | 1)), (0xc000_010f, 1 << 6)], few);
    assert_eq!((read(&mut m, 0xc001_0300), read(&mut m, 0xc001_0302)), (CODE + 3, 0));
}

/// Single steps stop behind branches that are taken, and #DB ends both it and recording.
#[test]
fn stepping_on_branches() {
    fn program(a: &mut CodeAssembler) -> Result<(), IcedError> {
        let mut end = a.create_label();
        a.pushfq()?; // 0
        a.or(byte_ptr(rsp + 1), 1)?; // TF
        a.popfq()?;
        a.nop()?;
        a.test(rsp, rsp)?;
        a.je(end)?;
        a.nop()?;
        a.jne(end)?;
        a.nop()?;
        a.nop()?;
        a.set_label(&mut end)?;
        a.nop()?;
        a.pushfq()?;
        a.and(byte_ptr(rsp + 1), 0xfe)?;
        a.popfq()
    }
    let found = |m: &Machine<X86>| -> Vec<u64> {
        let all = (0..16).map(|i| m.world.ram.load(FOUND + 8 * i, 8).unwrap());
        all.take_while(|word| *word != 0).map(|rip| rip - CODE).collect()
    };
    for model in ["intel", "intel,+lbr", "amd"] {
        let m = run(model, &[(DEBUGCTL, 2)], program);
        assert_eq!(found(&m), [0x12], "{model}");
        // Without BTF, the first step is behind NOP, and then the handler switches it on.
        let m = run(model, &[], program);
        assert_eq!(found(&m), [8, 0x12], "{model}");
    }
    let mut m = machine("intel,+lbr", program);
    write(&mut m, DEBUGCTL, 3);
    while m.vcpus[0].core.pc < HANDLER {
        assert_eq!(m.run(m.retired() + 1), End::Limit);
    }
    assert_eq!((read(&mut m, DEBUGCTL), read(&mut m, LBR_TOS)), (0, 1));
}

#[test]
fn architectural_records_are_a_state_component() {
    const XSS: u32 = 0xda0;
    const AREA: u64 = 0xa000;
    let mut m = run("intel,+arch_lbr", &[(XSS, 1 << 15), (LBR_DEPTH, 16), (LBR_CTL, 0x7f_0007)], |a| {
        let mut end = a.create_label();
        a.jmp(end)?;
        a.nop()?;
        a.set_label(&mut end)?;
        // CR4.OSXSAVE
        a.mov(rax, cr4)?;
        a.or(eax, 1 << 18)?;
        a.mov(cr4, rax)?;
        a.mov(eax, 1 << 15)?;
        a.xor(edx, edx)?;
        a.xsaves(ptr(AREA))?;
        // Initialized, then loaded.
        a.mov(rcx, qword_ptr(AREA + 512))?;
        a.mov(qword_ptr(AREA + 512), 0)?;
        a.xrstors(ptr(AREA))?;
        a.mov(rsi, rcx)?;
        a.mov(ecx, LBR_CTL)?;
        a.rdmsr()?;
        a.mov(ebx, eax)?;
        a.mov(eax, 1 << 15)?;
        a.mov(qword_ptr(AREA + 512), rsi)?;
        a.xrstors(ptr(AREA))
    });
    let word = |m: &Machine<X86>, i: u64| m.world.ram.load(AREA + 8 * i, 8).unwrap();
    assert_eq!(
        [64, 65, 72, 73, 77, 78].map(|i| word(&m, i)),
        [1 << 15, 1 << 15 | 1 << 63, 0x7f_0007, 16, CODE, CODE + 3]
    );
    assert_eq!((m.vcpus[0].core.regs[3], read(&mut m, LBR_CTL), read(&mut m, LBR_DEPTH)), (0, 0x7f_0007, 16));
    assert_eq!((read(&mut m, 0x1500), read(&mut m, 0x1600), read(&mut m, 0x1501)), (CODE, CODE + 3, 0));
}
