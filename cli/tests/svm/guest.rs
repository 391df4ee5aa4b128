//! A hypervisor with a guest, and a guest of that: raw 64-bit code for the PC, with SVM. It is a straight line; behind each #VMEXIT the next step begins.

use iced_x86::IcedError;
use iced_x86::code_asm::*;
use svm_sim::vmcb::{self, FLAT_64_BIT_GUEST, Field};

/// Where the code is, and what the machine begins with.
pub const AT: u64 = 0x10_0000;
const CR3: u64 = 0x9000;
const GDT: u64 = 0x500;
/// The host save area, two VMCBs, the maps of permissions, a guest's IDT, nested page tables for 1 GiB.
pub const SAVE_AREA: u64 = 0x20_0000;
pub const FIRST: u64 = 0x20_1000;
pub const SECOND: u64 = 0x20_2000;
/// What the guest calls its VMCB.
pub const OWN: u64 = 0x20_3000;
const IOPM: u64 = 0x20_4000;
const MSRPM: u64 = 0x20_8000;
const IDT: u64 = 0x20_b000;
pub const NESTED: u64 = 0x20_c000;
/// Guest-physical: what is at physical address 0.
pub const ALIAS: u64 = 0x200_0000;
/// No nested page-table entry maps this.
pub const UNMAPPED: u64 = 1 << 30;
/// An MSR that there is not.
pub const MSR: u32 = 0x4000_0000;
/// The vector that is injected.
pub const VECTOR: u64 = 0x41;

type Result<T = ()> = std::result::Result<T, IcedError>;
type A<'a> = &'a mut CodeAssembler;

fn put(a: A, at: u64, value: u64) -> Result {
    a.mov(rbx, at)?;
    a.mov(rax, value)?;
    a.mov(qword_ptr(rbx), rax)
}

/// Writes a field: RCX.
fn write_rcx(a: A, vmcb: u64, f: Field) -> Result {
    a.mov(rbx, vmcb + u64::from(f.offset))?;
    match f.size {
        1 => a.mov(byte_ptr(rbx), cl),
        2 => a.mov(word_ptr(rbx), cx),
        4 => a.mov(dword_ptr(rbx), ecx),
        _ => a.mov(qword_ptr(rbx), rcx),
    }
}

fn write(a: A, vmcb: u64, f: Field, value: u64) -> Result {
    a.mov(rcx, value)?;
    write_rcx(a, vmcb, f)
}

fn operation(a: A) -> Result {
    const EFER: u32 = 0xc000_0080;
    const VM_HSAVE_PA: u32 = 0xc001_0117;
    a.mov(ecx, EFER)?;
    a.rdmsr()?;
    a.or(eax, 1 << 12)?;
    a.wrmsr()?;
    a.mov(ecx, VM_HSAVE_PA)?;
    a.mov(eax, SAVE_AREA as u32)?;
    a.xor(edx, edx)?;
    a.wrmsr()?;
    // Port 0x80.
    put(a, IOPM + 0x80 / 8, 1)?;
    for (at, entry) in [(NESTED, NESTED + 0x1007), (NESTED + 0x1000, NESTED + 0x2007)] {
        put(a, at, entry)?;
    }
    let mut entry = a.create_label();
    a.mov(rbx, NESTED + 0x2000)?;
    a.mov(rax, 0x87u64)?;
    a.mov(ecx, 512)?;
    a.set_label(&mut entry)?;
    a.mov(qword_ptr(rbx), rax)?;
    a.add(rbx, 8)?;
    a.add(rax, 1 << 21)?;
    a.dec(ecx)?;
    a.jne(entry)?;
    put(a, NESTED + 0x2000 + 8 * (ALIAS >> 21), 0x87)
}

/// A VMCB whose guest has the host's state, but for RIP.
fn vmcb(a: A, at: u64, guest: CodeLabel) -> Result {
    const SVME_LMA_LME: u64 = 1 << 12 | 1 << 10 | 1 << 8;
    let intercepts_3 = [0x72, 0x78, 0x7b, 0x7c, 0x7f].iter().fold(0, |all, code| all | 1 << (code - 0x60));
    for (f, value) in [
        (vmcb::INTERCEPT_3, intercepts_3),
        (vmcb::INTERCEPT_4, 0b11),
        (vmcb::IOPM_BASE_PA, IOPM),
        (vmcb::MSRPM_BASE_PA, MSRPM),
        (vmcb::GUEST_ASID, 1),
        (vmcb::NESTED_CONTROL, vmcb::nested::NP_ENABLE),
        (vmcb::N_CR3, NESTED),
        (vmcb::CS_SELECTOR, 0x10),
        (vmcb::SS_SELECTOR, 0x18),
        (vmcb::DS_SELECTOR, 0x18),
        (vmcb::ES_SELECTOR, 0x18),
        (vmcb::GDTR_BASE, GDT),
        (vmcb::GDTR_LIMIT, 31),
        (vmcb::IDTR_BASE, IDT),
        (vmcb::IDTR_LIMIT, 0xfff),
        (vmcb::EFER, SVME_LMA_LME),
        (vmcb::CR3, CR3),
        (vmcb::RSP, 0x8000),
    ] {
        write(a, at, f, value)?;
    }
    for (f, value) in FLAT_64_BIT_GUEST {
        write(a, at, f, value)?;
    }
    a.mov(rcx, cr0)?;
    write_rcx(a, at, vmcb::CR0)?;
    a.mov(rcx, cr4)?;
    write_rcx(a, at, vmcb::CR4)?;
    a.lea(rcx, ptr(guest))?;
    write_rcx(a, at, vmcb::RIP)
}

/// Runs the guest; goes on behind its #VMEXIT. What is in ESI and RDI is the guest's.
fn run(a: A, vmcb: u64) -> Result {
    a.mov(rax, vmcb)?;
    a.vmrun()
}

/// The guest goes on behind the instruction that has exited.
fn skip(a: A, at: u64) -> Result {
    a.mov(rbx, at + u64::from(vmcb::NRIP.offset))?;
    a.mov(rcx, qword_ptr(rbx))?;
    write_rcx(a, at, vmcb::RIP)
}

/// The code.
pub fn code() -> Vec<u8> {
    let assemble = || {
        let mut a = CodeAssembler::new(64)?;
        all(&mut a)?;
        a.assemble(AT)
    };
    assemble().expect("the guest's code is right")
}

fn all(a: A) -> Result {
    let (mut guest, mut inner, mut handler) = (a.create_label(), a.create_label(), a.create_label());
    a.mov(esp, 0x7000)?;
    operation(a)?;
    // A gate of the guest's IDT.
    a.lea(rax, ptr(handler))?;
    a.mov(rbx, IDT + 16 * VECTOR)?;
    a.mov(word_ptr(rbx), ax)?;
    a.mov(word_ptr(rbx + 2), 0x10)?;
    a.mov(word_ptr(rbx + 4), 0x8e00)?;
    a.shr(rax, 16)?;
    a.mov(word_ptr(rbx + 6), ax)?;
    vmcb(a, SECOND, inner)?;
    vmcb(a, FIRST, guest)?;
    // CPUID, ten times; I/O; WRMSR; a nested page fault; VMRUN.
    run(a, FIRST)?;
    for _ in 0..12 {
        skip(a, FIRST)?;
        run(a, FIRST)?;
    }
    // A fault has no nRIP: MOV is of 2 bytes.
    a.mov(rbx, FIRST + u64::from(vmcb::RIP.offset))?;
    a.add(qword_ptr(rbx), 2)?;
    run(a, FIRST)?;
    // What the guest has asked for: another guest, twice.
    run(a, SECOND)?;
    skip(a, SECOND)?;
    run(a, SECOND)?;
    // Back to the first, with an interrupt.
    skip(a, FIRST)?;
    write(a, FIRST, vmcb::EVENTINJ, 1 << 31 | VECTOR)?;
    run(a, FIRST)?;
    // Entries that fail.
    write(a, FIRST, vmcb::GUEST_ASID, 0)?;
    run(a, FIRST)?;
    write(a, FIRST, vmcb::GUEST_ASID, 1)?;
    write(a, FIRST, vmcb::CR0, 1 << 32)?;
    run(a, FIRST)?;
    run(a, FIRST)?;
    a.mov(dx, 0x604)?;
    a.mov(ax, 0x3c00)?;
    a.out(dx, ax)?;
    a.hlt()?;

    a.set_label(&mut guest)?;
    let mut again = a.create_label();
    a.mov(esi, 10)?;
    a.set_label(&mut again)?;
    a.cpuid()?;
    a.dec(esi)?;
    a.jne(again)?;
    a.mov(al, 7)?;
    a.out(0x80, al)?;
    a.mov(ecx, MSR)?;
    a.wrmsr()?;
    a.mov(rdi, UNMAPPED)?;
    a.mov(eax, dword_ptr(rdi))?;
    a.mov(rax, OWN)?;
    a.vmrun()?;
    a.hlt()?;
    a.set_label(&mut handler)?;
    a.vmmcall()?;
    a.hlt()?;
    a.set_label(&mut inner)?;
    let mut count = a.create_label();
    a.mov(ecx, 1000)?;
    a.set_label(&mut count)?;
    a.dec(ecx)?;
    a.jne(count)?;
    a.vmmcall()?;
    a.hlt()
}
