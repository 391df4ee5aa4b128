//! Guests with guests: M-mode makes room for HS-mode, HS-mode runs code in VS-mode.

use undervisor_benches::image::*;
use undervisor_conformance::asm::*;

use super::Guest;
use crate::report::{Peer, Target};

const CALLS: u64 = 1_000_000;

/// A guest that does nothing but call a hypervisor that does nothing but return.
pub const ECALL: Guest = Guest {
    name: "VS to HS ecall",
    unit: "round trips/s",
    work: CALLS as f64,
    targets: &[Target { peer: Peer::Rv64, times: 8.0 }],
    elf: ecall,
};

/// From M-mode through HS-mode into VS-mode at the address in T2. (In QEMU 11.1 mstatus.MPV cannot be
/// written, so MRET does not lead there.)
fn enter_guest(a: &mut Asm) {
    a.la(T0, "hypervisor");
    a.csrw(MEPC, T0);
    a.li(T0, MPP_S);
    a.csrs(MSTATUS, T0);
    a.mret();
    a.label("hypervisor");
    a.li(T0, SPV | SPVP);
    a.csrs(HSTATUS, T0);
    a.li(T0, SPP);
    a.csrs(SSTATUS, T0);
    a.csrw(SEPC, T2);
    a.sret();
}

fn ecall(ending: Ending) -> Vec<u8> {
    let mut a = Asm::new(RAM);
    open_machine(&mut a);
    a.li(T0, TO_HS);
    a.csrw(MEDELEG, T0);
    a.la(T0, "exit");
    a.csrw(STVEC, T0);
    a.li(A2, CALLS);
    a.la(T2, "guest");
    enter_guest(&mut a);
    a.align(4);
    a.label("exit");
    a.csrr(T0, SEPC);
    a.addi(T0, T0, 4);
    a.csrw(SEPC, T0);
    a.addi(A2, A2, -1);
    a.beq(A2, ZERO, "counted");
    a.sret();
    a.label("guest");
    a.ecall();
    a.j("guest");
    a.label("counted");
    a.csrr(T0, SCAUSE);
    a.li(T1, ECALL_VS);
    a.bne(T0, T1, "failed");
    let code = finish(a, ending);
    elf(&code, code.len())
}

/// What the hypervisor's image is made of, as distances from the start of RAM.
const TABLES: u64 = 0x10_0000;
/// The guest's memory: guest-physical 0x8000_0000 and on.
const GUEST: u64 = 0x20_0000;
const GUEST_PAGES: u64 = 64;
/// The guest's page tables and data, as distances from the start of its memory.
const GUEST_TABLES: u64 = 0x1_0000;
const GUEST_DATA: u64 = 0x2_0000;

const FENCES: u64 = 200_000;

/// HFENCE.GVMA of everything, then the guest loads from 16 pages under Sv39x4 (leaves of 4 KiB, no VS-stage) and calls.
pub const HFENCE: Guest = Guest {
    name: "hfence.gvma, 16 guest pages, ecall",
    unit: "turns/s",
    work: FENCES as f64,
    targets: &[Target { peer: Peer::Rv64, times: 8.0 }],
    elf: hfence,
};

/// A G-stage for the guest's memory.
fn g_stage(tables: &mut Tables) -> u64 {
    let root = tables.root(4);
    tables.map_pages(root, RAM, RAM + GUEST, GUEST_PAGES, LEAF_U);
    root
}

fn hfence(ending: Ending) -> Vec<u8> {
    let mut tables = Tables::at(RAM + TABLES);
    let g = g_stage(&mut tables);

    let mut a = Asm::new(RAM);
    open_machine(&mut a);
    a.li(T0, TO_HS);
    a.csrw(MEDELEG, T0);
    a.la(T0, "exit");
    a.csrw(STVEC, T0);
    a.li(T0, SV39 | g >> 12);
    a.csrw(HGATP, T0);
    a.li(A2, FENCES);
    a.li(A1, ECALL_VS);
    a.li(T2, RAM);
    enter_guest(&mut a);
    a.align(4);
    a.label("exit");
    a.csrr(T0, SCAUSE);
    a.bne(T0, A1, "failed");
    a.csrr(T0, SEPC);
    a.addi(T0, T0, 4);
    a.csrw(SEPC, T0);
    a.hfence_gvma(ZERO, ZERO);
    a.addi(A2, A2, -1);
    a.beq(A2, ZERO, "done");
    a.sret();

    let mut guest = Asm::new(RAM);
    guest.li(T2, 4096);
    guest.label("turn");
    guest.li(T0, RAM + GUEST_DATA);
    guest.li(T1, RAM + GUEST_DATA + 16 * 4096);
    guest.label("page");
    guest.ld(T3, T0, 0);
    guest.add(T0, T0, T2);
    guest.bltu(T0, T1, "page");
    guest.ecall();
    guest.j("turn");

    let mut image = finish(a, ending);
    let code = image.len();
    put(&mut image, TABLES, &tables.bytes());
    put(&mut image, GUEST, &guest.finish());
    elf(&image, code)
}

const SWITCHES: u64 = 300_000;

/// A hypervisor's own way: all registers and six CSRs are exchanged both ways, and both sides work on 8 pages of theirs.
pub const WORLD_SWITCH: Guest = Guest {
    name: "VS to HS world switch",
    unit: "round trips/s",
    work: SWITCHES as f64,
    targets: &[Target { peer: Peer::Rv64, times: 8.0 }],
    elf: world_switch,
};

/// Virtual addresses of the hypervisor's data and of the guest's.
const DATA: u64 = 0x4000_0000;
const GUEST_CODE_VA: u64 = 0x1000_0000;
const GUEST_DATA_VA: u64 = 0x1010_0000;
const WORK_PAGES: u64 = 8;

/// Offsets in the context, which is a page of the hypervisor's data: the guest's registers at 8 times their numbers, the
/// hypervisor's likewise behind them, then CSRs.
const HOST: i32 = 256;
const GUEST_CSRS: [(u32, i32); 3] = [(SSTATUS, 512), (HSTATUS, 520), (SCOUNTEREN, 528)];
const GUEST_SEPC: i32 = 536;
const HOST_CSRS: [i32; 3] = [544, 552, 560];
const HOST_STVEC: i32 = 568;
const HOST_SSCRATCH: i32 = 576;

const GP: Reg = 3;
const TP: Reg = 4;
const S1: Reg = 9;
const S2: Reg = 18;

/// What a called function leaves alone, and RA.
fn callee_saved() -> impl Iterator<Item = Reg> {
    [RA, SP, GP, TP, S0, S1].into_iter().chain(S2..T3)
}

/// Adds one to the first word of each of the pages at `base`. Uses T0 to T3.
fn work(a: &mut Asm, base: u64, label: &'static str) {
    a.li(T0, base);
    a.li(T1, base + WORK_PAGES * 4096);
    a.li(T2, 4096);
    a.label(label);
    a.ld(T3, T0, 0);
    a.addi(T3, T3, 1);
    a.sd(T3, T0, 0);
    a.add(T0, T0, T2);
    a.bltu(T0, T1, label);
}

/// Into the guest and out of it: a function that is called with the context in A0.
fn switch(a: &mut Asm) {
    a.label("enter");
    callee_saved().for_each(|r| a.sd(r, A0, HOST + 8 * r as i32));
    for ((csr, guest), host) in GUEST_CSRS.into_iter().zip(HOST_CSRS) {
        a.ld(T0, A0, guest);
        a.csrrw(T0, csr, T0);
        a.sd(T0, A0, host);
    }
    a.la(T0, "exit");
    a.csrrw(T0, STVEC, T0);
    a.sd(T0, A0, HOST_STVEC);
    a.csrrw(T0, SSCRATCH, A0);
    a.sd(T0, A0, HOST_SSCRATCH);
    a.ld(T0, A0, GUEST_SEPC);
    a.csrw(SEPC, T0);
    (1..32).filter(|r| *r != A0).for_each(|r| a.ld(r, A0, 8 * r as i32));
    a.ld(A0, A0, 8 * A0 as i32);
    a.sret();

    a.align(4);
    a.label("exit");
    a.csrrw(A0, SSCRATCH, A0);
    (1..32).filter(|r| *r != A0).for_each(|r| a.sd(r, A0, 8 * r as i32));
    a.csrr(T0, SEPC);
    a.sd(T0, A0, GUEST_SEPC);
    a.ld(T0, A0, HOST_STVEC);
    a.csrw(STVEC, T0);
    a.ld(T0, A0, HOST_SSCRATCH);
    a.csrrw(T0, SSCRATCH, T0);
    a.sd(T0, A0, 8 * A0 as i32);
    for ((csr, guest), host) in GUEST_CSRS.into_iter().zip(HOST_CSRS) {
        a.ld(T0, A0, host);
        a.csrrw(T0, csr, T0);
        a.sd(T0, A0, guest);
    }
    callee_saved().for_each(|r| a.ld(r, A0, HOST + 8 * r as i32));
    a.ret();
}

fn world_switch(ending: Ending) -> Vec<u8> {
    const CONTEXT: u64 = DATA + WORK_PAGES * 4096;
    const SHARED: u64 = CONTEXT + 4096;
    let mut tables = Tables::at(RAM + TABLES);
    let g = g_stage(&mut tables);
    let hs = tables.root(1);
    tables.map(hs, RAM, RAM, 1, LEAF);
    tables.map(hs, FINISHER, FINISHER, 0, LEAF);
    tables.map_pages(hs, DATA, RAM + 0x40_0000, WORK_PAGES + 1, LEAF);
    // A look at the guest's first page of data.
    tables.map(hs, SHARED, RAM + GUEST + GUEST_DATA, 0, LEAF);
    let mut guest_tables = Tables::at(RAM + GUEST_TABLES);
    let vs = guest_tables.root(1);
    guest_tables.map(vs, GUEST_CODE_VA, RAM, 0, LEAF);
    guest_tables.map_pages(vs, GUEST_DATA_VA, RAM + GUEST_DATA, WORK_PAGES, LEAF);

    let mut a = Asm::new(RAM);
    open_machine(&mut a);
    a.li(T0, TO_HS);
    a.csrw(MEDELEG, T0);
    for (csr, value) in [(SATP, SV39 | hs >> 12), (HGATP, SV39 | g >> 12), (VSATP, SV39 | vs >> 12)] {
        a.li(T0, value);
        a.csrw(csr, T0);
    }
    a.li(T0, MPP_S);
    a.csrs(MSTATUS, T0);
    a.la(T0, "hypervisor");
    a.csrw(MEPC, T0);
    a.mret();

    a.label("hypervisor");
    a.la(T0, "failed");
    a.csrw(STVEC, T0);
    a.li(S1, CONTEXT);
    a.li(S0, SWITCHES);
    // The guest begins in VS-mode.
    a.csrr(T0, SSTATUS);
    a.ori(T0, T0, SPP as i32);
    a.sd(T0, S1, GUEST_CSRS[0].1);
    a.csrr(T0, HSTATUS);
    a.ori(T0, T0, (SPV | SPVP) as i32);
    a.sd(T0, S1, GUEST_CSRS[1].1);
    a.li(T0, GUEST_CODE_VA);
    a.sd(T0, S1, GUEST_SEPC);
    a.label("turn");
    a.addi(A0, S1, 0);
    a.jal(RA, "enter");
    // Why it came back, as a hypervisor asks.
    a.csrr(T0, SCAUSE);
    a.csrr(T1, STVAL);
    a.csrr(T2, HTVAL);
    a.csrr(T3, HTINST);
    a.li(T1, ECALL_VS);
    a.bne(T0, T1, "failed");
    a.ld(T0, S1, GUEST_SEPC);
    a.addi(T0, T0, 4);
    a.sd(T0, S1, GUEST_SEPC);
    work(&mut a, DATA, "hypervisor's page");
    a.addi(S0, S0, -1);
    a.bne(S0, ZERO, "turn");
    // Both have counted the round trips, and the guest in a register too.
    a.li(T1, SWITCHES);
    for address in [DATA, SHARED, CONTEXT + 8 * u64::from(A1)] {
        a.li(T0, address);
        a.ld(T0, T0, 0);
        a.bne(T0, T1, "failed");
    }
    a.j("done");
    a.align(4);
    switch(&mut a);

    let mut guest = Asm::new(GUEST_CODE_VA);
    guest.label("turn");
    work(&mut guest, GUEST_DATA_VA, "guest's page");
    guest.addi(A1, A1, 1);
    guest.ecall();
    guest.j("turn");

    let mut image = finish(a, ending);
    let code = image.len();
    put(&mut image, TABLES, &tables.bytes());
    put(&mut image, GUEST, &guest.finish());
    put(&mut image, GUEST + GUEST_TABLES, &guest_tables.bytes());
    elf(&image, code)
}
