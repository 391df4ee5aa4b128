//! A hart at work: the engine on blocks of one kind, lifting, traps, CSRs.

use std::cell::RefCell;
use std::time::Duration;

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use emu_core::machine::End;
use undervisor_benches::image::*;
use undervisor_benches::{Machine, machine};
use undervisor_conformance::asm::*;

/// What a benchmark runs at a time, in instructions.
const STRETCH: u64 = 100_000;

/// Runs on for some instructions.
fn run(machine: &mut Machine, instructions: u64) {
    let end = machine.run(machine.retired() + instructions);
    assert_eq!(end, End::Limit);
}

/// M-mode: `begin` once, then `turn` again and again.
fn turning(begin: impl FnOnce(&mut Asm), turn: impl FnOnce(&mut Asm)) -> Machine {
    let mut a = Asm::new(RAM);
    open_machine(&mut a);
    begin(&mut a);
    a.label("turn");
    turn(&mut a);
    a.j("turn");
    let mut machine = machine(finish(a, Ending::Finisher));
    run(&mut machine, STRETCH);
    machine
}

/// Benchmarks in units of one instruction.
fn per_instruction(c: &mut Criterion) {
    let mut group = c.benchmark_group("instruction");
    group.throughput(Throughput::Elements(STRETCH));
    let alu = |a: &mut Asm| {
        for r in [T0, T1, T2, A0, A1, A2] {
            a.addi(r, r, 3);
            a.xor(r, r, T3);
            a.slli(T3, r, 1);
            a.add(T4, T3, r);
        }
    };
    let load_store = |a: &mut Asm| {
        for offset in (0..64).step_by(8) {
            a.ld(T0, S0, offset);
            a.sd(T0, S0, offset + 64);
        }
    };
    let csr = |a: &mut Asm| {
        for _ in 0..8 {
            a.csrr(T0, MSCRATCH);
            a.csrw(MSCRATCH, T0);
        }
    };
    // Each block ends in a jump to the address in a register: the jump cache has it.
    let jumps = |a: &mut Asm| {
        for label in ["1", "2", "3", "4", "5", "6", "7", "8"] {
            a.la(RA, label);
            a.ret();
            a.label(label);
        }
    };
    let data = |a: &mut Asm| a.li(S0, RAM + 0x10_0000);
    for (name, mut machine) in [
        ("ALU", turning(|_| {}, alu)),
        ("load and store", turning(data, load_store)),
        ("CSR read and write", turning(|_| {}, csr)),
        ("indirect jump, a third of them", turning(|_| {}, jumps)),
    ] {
        group.bench_function(name, |b| b.iter(|| run(&mut machine, STRETCH)));
    }
    group.finish();
}

const MSCRATCH: u32 = 0x340;

/// A jump to itself, one instruction a run: what it costs to begin, look a block up by its key, and end.
fn lookup(c: &mut Criterion) {
    let mut machine = turning(|_| {}, |_| {});
    c.bench_function("block lookup, with its run", |b| b.iter(|| run(&mut machine, 1)));
}

/// Straight-line code of 128 blocks of 64 instructions, lifted anew each time and run once.
fn lift(c: &mut Criterion) {
    const INSTRUCTIONS: u64 = 128 * 64;
    let mut a = Asm::new(RAM);
    a.label("again");
    for i in 0..INSTRUCTIONS / 8 {
        a.ld(T0, S0, (i % 64) as i32 * 8);
        a.add(T1, T0, T2);
        a.slli(T2, T1, 3);
        a.mul(T3, T2, T1);
        a.xor(T4, T3, T2);
        a.andi(T4, T4, 255);
        a.addi(A0, A0, 1);
        a.sub(A1, A0, T4);
    }
    a.j("again");
    let mut machine = machine(finish(a, Ending::Finisher));
    machine.vcpus[0].core.regs[S0 as usize] = RAM + 0x100_0000;
    let machine = RefCell::new(machine);
    let mut group = c.benchmark_group("lifting");
    group.throughput(Throughput::Elements(INSTRUCTIONS + 1));
    group.bench_function("instruction, lifted, encoded and run once", |b| {
        // To set breakpoints, even none, drops all blocks.
        let forget = || machine.borrow_mut().set_stops([], Vec::new());
        let once = |()| run(&mut machine.borrow_mut(), INSTRUCTIONS + 1);
        b.iter_batched(forget, once, BatchSize::PerIteration);
    });
    group.finish();
}

/// Round trips.
fn traps(c: &mut Criterion) {
    // ECALL (a trap counts as one), CSRR, ADDI, CSRW, MRET, J.
    let machine_mode = turning(
        |a| {
            a.la(T0, "trap");
            a.csrw(MTVEC, T0);
            a.j("turn");
            a.align(4);
            a.label("trap");
            a.csrr(T0, MEPC);
            a.addi(T0, T0, 4);
            a.csrw(MEPC, T0);
            a.mret();
        },
        Asm::ecall,
    );
    // The same between VS-mode and HS-mode.
    let from_guest = turning(
        |a| {
            a.li(T0, TO_HS);
            a.csrw(MEDELEG, T0);
            a.la(T0, "trap");
            a.csrw(STVEC, T0);
            a.li(T0, MPP_S | 1 << 39);
            a.csrs(MSTATUS, T0);
            a.la(T0, "turn");
            a.csrw(MEPC, T0);
            a.mret();
            a.label("trap");
            a.csrr(T0, SEPC);
            a.addi(T0, T0, 4);
            a.csrw(SEPC, T0);
            a.sret();
        },
        Asm::ecall,
    );
    const TRIPS: u64 = 10_000;
    let mut group = c.benchmark_group("trap and return");
    group.throughput(Throughput::Elements(TRIPS));
    for (name, mut machine) in [("M-mode to itself", machine_mode), ("VS-mode to HS-mode", from_guest)] {
        group.bench_function(name, |b| b.iter(|| run(&mut machine, 6 * TRIPS)));
    }
    group.finish();
}

fn config() -> Criterion {
    let second = Duration::from_secs(1);
    Criterion::default().sample_size(20).warm_up_time(second / 5).measurement_time(second)
}

criterion_group! { name = all; config = config(); targets = per_instruction, lookup, lift, traps }
criterion_main!(all);
