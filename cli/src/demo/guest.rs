//! The hypervisor and its guest, in machine code.

use undervisor_conformance::asm::*;

/// Where the hypervisor stands and begins.
pub const HYPERVISOR: u64 = 0x8020_0000;
/// Where the guest's memory is in the machine; the guest finds it at [`GUEST_BASE`].
const GUEST_MEMORY: u64 = 0x8100_0000;
/// Guest-physical.
const GUEST_BASE: u64 = 0x8000_0000;
/// Bytes of it.
const GUEST_SIZE: u64 = 2 << 20;
/// The guest's UART, which there is not: the hypervisor acts for it.
const GUEST_UART: u64 = 0x1000_0000;
/// Page tables of the G-stage: a root of 16 KiB and one table for each level below it.
const ROOT: u64 = 0x8030_0000;
const LEVEL_1: u64 = 0x8030_4000;
const LEVEL_0: u64 = 0x8030_5000;
/// The guest's registers while the hypervisor runs.
const FRAME: u64 = 0x8030_6000;

const SSTATUS: u32 = 0x100;
const SIE: u32 = 0x104;
const STVEC: u32 = 0x105;
const SSCRATCH: u32 = 0x140;
const SEPC: u32 = 0x141;
const SCAUSE: u32 = 0x142;
const STIMECMP: u32 = 0x14d;
const HSTATUS: u32 = 0x600;
const HEDELEG: u32 = 0x602;
const HIDELEG: u32 = 0x603;
const HCOUNTEREN: u32 = 0x606;
const HENVCFG: u32 = 0x60a;
const HTVAL: u32 = 0x643;
const HTINST: u32 = 0x64a;
const HGATP: u32 = 0x680;
const TIME: u32 = 0xc01;

const SBI_DBCN: u64 = 0x4442_434e;
const SBI_SRST: u64 = 0x5352_5354;

/// Where they go, and their bytes.
pub fn images() -> [(u64, Vec<u8>); 2] {
    [(HYPERVISOR, hypervisor()), (GUEST_MEMORY, guest())]
}

/// L1: sets up the H extension, enters the guest, and serves its exits.
fn hypervisor() -> Vec<u8> {
    let mut a = Asm::new(HYPERVISOR);
    a.la(A1, "hello");
    a.jal(RA, "print");
    a.la(T0, "exit");
    a.csrw(STVEC, T0);
    a.li(T0, FRAME);
    a.csrw(SSCRATCH, T0);
    // The guest handles its user's calls and all its interrupts itself, and sets its own timer.
    a.li(T0, 1 << 8);
    a.csrw(HEDELEG, T0);
    a.li(T0, 0x444);
    a.csrw(HIDELEG, T0);
    a.li(T0, 1 << 63);
    a.csrw(HENVCFG, T0);
    a.li(T0, 7);
    a.csrw(HCOUNTEREN, T0);
    // Nothing of the guest's memory is mapped yet: tables only.
    a.li(T0, ROOT);
    a.li(T1, LEVEL_1 >> 2 | 1);
    a.sd(T1, T0, 8 * (GUEST_BASE >> 30) as i32);
    a.li(T0, LEVEL_1);
    a.li(T1, LEVEL_0 >> 2 | 1);
    a.sd(T1, T0, 0);
    a.li(T0, 8 << 60 | 1 << 44 | ROOT >> 12);
    a.csrw(HGATP, T0);
    a.hfence_gvma(ZERO, ZERO);
    // hstatus.SPV and sstatus.SPP: SRET goes to VS-mode.
    a.li(T0, 1 << 7);
    a.csrs(HSTATUS, T0);
    a.li(T0, 1 << 8);
    a.csrs(SSTATUS, T0);
    a.li(T0, GUEST_BASE);
    a.csrw(SEPC, T0);
    a.sret();

    // An exit: all registers to the frame.
    a.align(4);
    a.label("exit");
    a.csrrw(SP, SSCRATCH, SP);
    for r in (1..32).filter(|r| *r != SP) {
        a.sd(r, SP, 8 * r as i32);
    }
    a.csrr(S0, SCAUSE);
    for (cause, handler) in [(10, "call"), (20, "map"), (21, "map"), (22, "virtual"), (23, "store")] {
        a.li(T0, cause);
        a.beq(S0, T0, handler);
    }
    a.la(A1, "unexpected");
    a.jal(RA, "print");
    a.li(A1, 1);
    a.j("shutdown");

    a.label("resume");
    for r in (1..32).filter(|r| *r != SP) {
        a.ld(r, SP, 8 * r as i32);
    }
    a.csrrw(SP, SSCRATCH, SP);
    a.sret();

    // A store: to memory that is not mapped yet, or to the UART.
    a.label("store");
    a.csrr(T0, HTVAL);
    a.slli(T0, T0, 2);
    a.li(T1, GUEST_UART);
    a.bne(T0, T1, "map");
    // The transformed instruction says which register, and by its bit 1 how long the instruction is.
    a.csrr(T1, HTINST);
    a.srli(T2, T1, 20);
    a.andi(T2, T2, 31);
    a.slli(T2, T2, 3);
    a.add(T2, T2, SP);
    a.ld(A0, T2, 0);
    a.andi(T1, T1, 2);
    a.addi(T1, T1, 2);
    a.jal(RA, "skip");
    a.li(A7, SBI_DBCN);
    a.li(A6, 2);
    a.ecall();
    a.j("resume");

    // A page of the guest's memory is touched for the first time.
    a.label("map");
    a.csrr(T0, HTVAL);
    a.slli(T0, T0, 2);
    a.li(T1, GUEST_BASE);
    a.sub(T2, T0, T1);
    a.li(T3, GUEST_SIZE);
    a.bltu(T2, T3, "inside");
    a.la(A1, "outside");
    a.jal(RA, "print");
    a.li(A1, 1);
    a.j("shutdown");
    a.label("inside");
    a.srli(T2, T2, 12);
    a.li(T3, GUEST_MEMORY >> 12);
    a.add(T3, T3, T2);
    a.slli(T3, T3, 10);
    a.ori(T3, T3, 0xdf); // D A U X W R V
    a.slli(T2, T2, 3);
    a.li(T4, LEVEL_0);
    a.add(T4, T4, T2);
    a.sd(T3, T4, 0);
    a.srli(T0, T0, 2);
    a.hfence_gvma(T0, ZERO);
    a.j("resume");

    // The guest has touched what is the hypervisor's: it reads as 0.
    a.label("virtual");
    a.sd(ZERO, SP, 8 * A0 as i32);
    a.li(T1, 4);
    a.jal(RA, "skip");
    a.j("resume");

    // A call: 1 is the end, everything else counts up.
    a.label("call");
    a.ld(T0, SP, 8 * A7 as i32);
    a.li(T1, 1);
    a.beq(T0, T1, "end");
    a.ld(T0, SP, 8 * A0 as i32);
    a.addi(T0, T0, 1);
    a.sd(T0, SP, 8 * A0 as i32);
    a.li(T1, 4);
    a.jal(RA, "skip");
    a.j("resume");
    a.label("end");
    a.la(A1, "goodbye");
    a.jal(RA, "print");
    a.li(A1, 0);
    a.label("shutdown");
    a.li(A0, 0);
    a.li(A7, SBI_SRST);
    a.li(A6, 0);
    a.ecall();
    a.label("never");
    a.j("never");

    // sepc += t1
    a.label("skip");
    a.csrr(T5, SEPC);
    a.add(T5, T5, T1);
    a.csrw(SEPC, T5);
    a.ret();

    // Prints the text at a1.
    a.label("print");
    a.addi(A0, ZERO, 0);
    a.label("length");
    a.add(T0, A1, A0);
    a.lbu(T0, T0, 0);
    a.beq(T0, ZERO, "counted");
    a.addi(A0, A0, 1);
    a.j("length");
    a.label("counted");
    a.li(A2, 0);
    a.li(A7, SBI_DBCN);
    a.li(A6, 0);
    a.ecall();
    a.ret();

    a.label("hello");
    a.text("L1: hypervisor in HS-mode, G-stage Sv39x4, nothing mapped; entering the guest\n");
    a.label("goodbye");
    a.text("L1: the guest has ended\n");
    a.label("unexpected");
    a.text("L1: an exit that nobody expected\n");
    a.label("outside");
    a.text("L1: the guest has left its memory\n");
    a.finish()
}

/// L2: what a small kernel does.
fn guest() -> Vec<u8> {
    let mut a = Asm::new(GUEST_BASE);
    a.la(SP, "end");
    a.la(T0, "trap");
    a.csrw(STVEC, T0);
    a.la(A1, "hello");
    a.jal(RA, "print");
    // Memory that nobody has touched: each page is an exit.
    a.li(T0, GUEST_BASE + 0x10_0000);
    a.li(T1, GUEST_BASE + 0x11_0000);
    a.li(T2, 4096);
    a.label("touch");
    a.sd(T0, T0, 0);
    a.ld(T3, T0, 0);
    a.add(T0, T0, T2);
    a.bltu(T0, T1, "touch");
    a.la(A1, "touched");
    a.jal(RA, "print");
    // 100 calls to the hypervisor.
    a.li(A0, 0);
    a.li(A7, 0);
    a.li(S0, 100);
    a.label("calls");
    a.ecall();
    a.bne(A0, S0, "calls");
    a.la(A1, "called");
    a.jal(RA, "print");
    // A register of the hypervisor: a virtual-instruction exception.
    a.csrr(A0, HGATP);
    a.bne(A0, ZERO, "wrong");
    a.la(A1, "virtual");
    a.jal(RA, "print");
    // A timer interrupt in 20 microseconds, without the hypervisor.
    a.csrr(T0, TIME);
    a.addi(T0, T0, 200);
    a.csrw(STIMECMP, T0);
    a.li(T0, 1 << 5);
    a.csrw(SIE, T0);
    a.li(S0, 0);
    a.li(T0, 2);
    a.csrs(SSTATUS, T0);
    a.label("sleep");
    a.wfi();
    a.beq(S0, ZERO, "sleep");
    a.csrc(SSTATUS, T0);
    a.la(A1, "timer");
    a.jal(RA, "print");
    // User mode, and a call from there.
    a.li(T0, 1 << 8);
    a.csrc(SSTATUS, T0);
    a.la(T0, "user");
    a.csrw(SEPC, T0);
    a.sret();
    a.label("user");
    a.ecall();
    a.label("wrong");
    a.j("wrong");

    a.label("back");
    a.la(A1, "user text");
    a.jal(RA, "print");
    a.li(A7, 1);
    a.ecall();
    a.j("wrong");

    // Traps within the guest: the timer, and the user's call.
    a.align(4);
    a.label("trap");
    a.csrr(T5, SCAUSE);
    a.li(T6, 8);
    a.beq(T5, T6, "back");
    a.li(S0, 1);
    a.li(T6, u64::MAX);
    a.csrw(STIMECMP, T6);
    a.sret();

    // Prints the text at a1, byte by byte: each is an exit.
    a.label("print");
    a.li(T0, GUEST_UART);
    a.label("next");
    a.lbu(T1, A1, 0);
    a.beq(T1, ZERO, "printed");
    a.sb(T1, T0, 0);
    a.addi(A1, A1, 1);
    a.j("next");
    a.label("printed");
    a.ret();

    a.label("hello");
    a.text("L2: hello from VS-mode\n");
    a.label("touched");
    a.text("L2: 16 pages touched\n");
    a.label("called");
    a.text("L2: 100 calls\n");
    a.label("virtual");
    a.text("L2: hgatp reads as 0 here\n");
    a.label("timer");
    a.text("L2: timer interrupt\n");
    a.label("user text");
    a.text("L2: back from VU-mode\n");
    a.label("end");
    a.finish()
}
