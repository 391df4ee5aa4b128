//! The TLB and RAM by themselves, and page walks.

use std::hint::black_box;
use std::time::Duration;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use emu_core::machine::End;
use emu_core::ram::Ram;
use emu_core::tlb::{Mapping, SpaceKey, Tlb};
use riscv::hart::Priv;
use undervisor_benches::image::*;
use undervisor_benches::{Machine, machine};
use undervisor_conformance::asm::*;

const PAGE: u64 = 4096;
const PAGES: u64 = 1024;

fn tlb(c: &mut Criterion) {
    let mut group = c.benchmark_group("tlb");
    group.throughput(Throughput::Elements(PAGES));
    let map = |pa| Mapping { pa, gpa: pa, size_log2: 12, guest_size_log2: 0, read: true, write: true, keep: true };
    let mut tlb = Tlb::default();
    let space = tlb.intern(SpaceKey(1, 2));
    (0..PAGES).for_each(|i| tlb.fill_data(i * PAGE, space, map(i * PAGE)));
    group.bench_function("hit", |b| {
        b.iter(|| (0..PAGES).filter(|i| tlb.data(black_box(i * PAGE), space).is_some()).count());
    });
    group.bench_function("miss and fill", |b| {
        b.iter(|| {
            tlb.drop_spaces(|_| true);
            let space = tlb.intern(SpaceKey(1, 2));
            for i in 0..PAGES {
                if tlb.data(black_box(i * PAGE), space).is_none() {
                    tlb.fill_data(i * PAGE, space, map(i * PAGE));
                }
            }
        });
    });
    group.finish();
}

fn ram(c: &mut Criterion) {
    let mut group = c.benchmark_group("ram");
    group.throughput(Throughput::Elements(PAGES));
    let mut ram = Ram::default();
    ram.add(RAM, 16 << 20).expect("16 MiB can be had");
    group.bench_function("load 8 bytes", |b| {
        b.iter(|| (0..PAGES).fold(0, |sum, i| sum ^ ram.load(black_box(RAM + i * 8), 8).expect("RAM")));
    });
    group.bench_function("store 8 bytes", |b| {
        b.iter(|| (0..PAGES).for_each(|i| ram.store(black_box(RAM + i * 8), 8, i).expect("RAM")));
    });
    group.finish();
}

/// Two pages that have the same place in a TLB of 16,384 entries: each access of one makes the next of the other a miss.
const PAIR: [u64; 2] = [0x1000_0000, 0x1000_0000 + 16384 * PAGE];
const TABLES: u64 = 0x10_0000;
const GUEST_TABLES: u64 = 0x10_0000;
const GUEST: u64 = 0x20_0000;

/// A hart that turns on the spot in HS-mode under Sv39, or in VS-mode under Sv39 and Sv39x4, leaves of 4 KiB all.
fn paged(is_guest: bool) -> Machine {
    let mut tables = Tables::at(RAM + TABLES);
    let g = tables.root(4);
    tables.map_pages(g, RAM, RAM + GUEST, 512, LEAF_U);
    let distance = if is_guest { GUEST_TABLES } else { 0 };
    let mut first = Tables::at(RAM + if is_guest { distance } else { TABLES + 0x4_0000 });
    let root = first.root(1);
    first.map(root, RAM, RAM, 0, LEAF);
    PAIR.iter().zip(1..).for_each(|(va, page)| first.map(root, *va, RAM + page * PAGE, 0, LEAF));

    let mut a = Asm::new(RAM);
    open_machine(&mut a);
    a.li(T0, SV39 | root >> 12);
    a.csrw(if is_guest { VSATP } else { SATP }, T0);
    a.li(T0, if is_guest { SV39 | g >> 12 } else { 0 });
    a.csrw(HGATP, T0);
    a.li(T0, MPP_S | if is_guest { 1 << 39 } else { 0 });
    a.csrs(MSTATUS, T0);
    a.la(T0, "spot");
    a.csrw(MEPC, T0);
    a.mret();
    a.label("spot");
    a.j("spot");
    let mut image = finish(a, Ending::Finisher);
    let guest = image.clone();
    put(&mut image, TABLES, &tables.bytes());
    if is_guest {
        put(&mut image, GUEST, &guest);
        put(&mut image, GUEST + GUEST_TABLES, &first.bytes());
    } else {
        put(&mut image, TABLES + 0x4_0000, &first.bytes());
    }
    let mut machine = machine(image);
    assert_eq!(machine.run(1000), End::Limit);
    assert_eq!((machine.vcpus[0].arch.mode, machine.vcpus[0].arch.v), (Priv::Supervisor, is_guest));
    machine
}

fn walk(c: &mut Criterion) {
    let mut group = c.benchmark_group("page walk and fill");
    group.throughput(Throughput::Elements(PAIR.len() as u64));
    for (name, is_guest) in [("Sv39", false), ("Sv39 under Sv39x4", true)] {
        let mut machine = paged(is_guest);
        let Machine { world, vcpus, .. } = &mut machine;
        let mut hart = vcpus[0].at(world);
        group.bench_function(name, |b| {
            b.iter(|| PAIR.iter().for_each(|va| _ = black_box(hart.load(*va, 8, 0).expect("it is mapped"))));
        });
    }
    group.finish();
}

fn config() -> Criterion {
    let second = Duration::from_secs(1);
    Criterion::default().sample_size(20).warm_up_time(second / 5).measurement_time(second)
}

criterion_group! { name = all; config = config(); targets = tlb, ram, walk }
criterion_main!(all);
