//! A machine of 64 MiB, all of it in use, as a whole: saved, put back, hashed.

use std::time::Duration;

use criterion::{Criterion, criterion_group, criterion_main};
use undervisor_benches::image::*;
use undervisor_benches::{Machine, machine};
use undervisor_conformance::asm::Asm;

const PAGE: u64 = 4096;
/// Pages written between two snapshots.
const WRITTEN: u64 = 256;

fn full() -> Machine {
    let mut machine = machine(finish(Asm::new(RAM), Ending::Finisher));
    let page: Vec<u8> = (0..PAGE).map(|i| (i * 31) as u8 | 1).collect();
    for pa in (RAM + PAGE..RAM + (64 << 20)).step_by(PAGE as usize) {
        machine.world.ram.write(pa, &page).expect("RAM");
    }
    machine
}

fn write(machine: &mut Machine, value: u64) {
    (0..WRITTEN).for_each(|i| machine.world.ram.store(RAM + (1 + i * 61) * PAGE, 8, value | 1).expect("RAM"));
}

fn state(c: &mut Criterion) {
    let mut machine = full();
    let first = machine.save();
    let mut group = c.benchmark_group("64 MiB machine");
    let mut value = 0;
    group.bench_function("save, 256 pages written", |b| {
        b.iter(|| {
            value += 2;
            write(&mut machine, value);
            machine.save()
        });
    });
    group.bench_function("restore, 256 pages written", |b| {
        b.iter(|| {
            value += 2;
            write(&mut machine, value);
            machine.restore(&first).expect("it is of this machine");
        });
    });
    group.bench_function("state hash", |b| b.iter(|| machine.state_hash()));
    group.finish();
}

fn config() -> Criterion {
    let second = Duration::from_secs(1);
    Criterion::default().sample_size(10).warm_up_time(second / 5).measurement_time(second * 2)
}

criterion_group! { name = all; config = config(); targets = state }
criterion_main!(all);
