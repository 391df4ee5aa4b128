//! Guests that need no hypervisor extension.

use undervisor_benches::image::*;
use undervisor_conformance::asm::*;

use super::Guest;
use crate::report::{Peer, Target};

const TURNS: u64 = 100_000_000;

/// Ten instructions a turn: arithmetic, a multiplication, a branch.
pub const INTEGER: Guest = Guest {
    name: "integer",
    unit: "million instructions/s",
    work: 10.0 * TURNS as f64 / 1e6,
    targets: &[Target { peer: Peer::Rv64, times: 0.5 }, Target { peer: Peer::Max, times: 1.5 }],
    elf: integer,
};

fn integer(ending: Ending) -> Vec<u8> {
    let mut expected = 1u64;
    for _ in 0..TURNS {
        expected = expected.wrapping_mul(0x1234_5677).wrapping_add(99);
        let t0 = expected >> 7;
        expected ^= t0;
        expected = expected.wrapping_add((expected << 3).wrapping_add(t0) & 1023);
    }
    let mut a = Asm::new(RAM);
    a.li(A0, 1);
    a.li(A1, 0x1234_5677);
    a.li(A2, TURNS);
    a.label("turn");
    a.mul(A0, A0, A1);
    a.addi(A0, A0, 99);
    a.srli(T0, A0, 7);
    a.xor(A0, A0, T0);
    a.slli(T1, A0, 3);
    a.add(T2, T1, T0);
    a.andi(T2, T2, 1023);
    a.add(A0, A0, T2);
    a.addi(A2, A2, -1);
    a.bne(A2, ZERO, "turn");
    a.li(A1, expected);
    a.bne(A0, A1, "failed");
    let code = finish(a, ending);
    elf(&code, code.len())
}

const NODES: u64 = 1 << 20;
const STEPS: u64 = 30_000_000;

/// A chain through 64 MiB, one pointer in each 64 bytes.
pub const CHASE: Guest = Guest {
    name: "pointer chase, 64 MiB",
    unit: "million loads/s",
    work: STEPS as f64 / 1e6,
    targets: &[],
    elf: chase,
};

fn chase(ending: Ending) -> Vec<u8> {
    // Node i leads to node i * STRIDE + 1 modulo their number: one cycle through all of them.
    const STRIDE: u64 = 0x9_e371;
    const FIRST: u64 = RAM + 0x100_0000;
    let last = (0..STEPS).fold(0, |node: u64, _| (node * STRIDE + 1) % NODES);
    let mut a = Asm::new(RAM);
    a.li(A0, FIRST);
    a.li(A1, NODES);
    a.li(T0, 0);
    a.li(T3, STRIDE);
    a.li(T4, NODES - 1);
    a.label("node");
    a.slli(T1, T0, 6);
    a.add(T1, T1, A0);
    a.mul(T2, T0, T3);
    a.addi(T2, T2, 1);
    a.and(T2, T2, T4);
    a.slli(T2, T2, 6);
    a.add(T2, T2, A0);
    a.sd(T2, T1, 0);
    a.addi(T0, T0, 1);
    a.bne(T0, A1, "node");
    a.li(A2, STEPS);
    a.label("step");
    a.ld(A0, A0, 0);
    a.addi(A2, A2, -1);
    a.bne(A2, ZERO, "step");
    a.li(A1, FIRST + last * 64);
    a.bne(A0, A1, "failed");
    let code = finish(a, ending);
    elf(&code, code.len())
}

const FENCES: u64 = 300_000;

/// S-mode with Sv39 (leaves of 2 MiB): a fence of everything, then 16 pages.
pub const SFENCE: Guest = Guest {
    name: "sfence.vma and 16 pages",
    unit: "turns/s",
    work: FENCES as f64,
    targets: &[Target { peer: Peer::Rv64, times: 8.0 }],
    elf: sfence,
};

fn sfence(ending: Ending) -> Vec<u8> {
    const TABLES: u64 = 0x10_0000;
    let mut tables = Tables::at(RAM + TABLES);
    let root = tables.root(1);
    tables.map(root, RAM, RAM, 1, LEAF);
    tables.map(root, RAM + 0x20_0000, RAM + 0x20_0000, 1, LEAF);
    tables.map(root, FINISHER, FINISHER, 0, LEAF);
    let mut a = Asm::new(RAM);
    open_machine(&mut a);
    a.li(T1, SV39 | root >> 12);
    a.csrw(SATP, T1);
    a.li(T0, MPP_S);
    a.csrs(MSTATUS, T0);
    a.la(T0, "supervisor");
    a.csrw(MEPC, T0);
    a.mret();
    a.label("supervisor");
    a.li(A2, FENCES);
    a.li(T2, 4096);
    a.label("turn");
    a.sfence_vma(ZERO, ZERO);
    a.li(T0, RAM + 0x20_0000);
    a.li(T1, RAM + 0x21_0000);
    a.label("page");
    a.ld(T3, T0, 0);
    a.add(T0, T0, T2);
    a.bltu(T0, T1, "page");
    a.addi(A2, A2, -1);
    a.bne(A2, ZERO, "turn");
    let mut image = finish(a, ending);
    let code = image.len();
    put(&mut image, TABLES, &tables.bytes());
    elf(&image, code)
}
