//! A hypervisor with a guest, and a guest of that: raw 64-bit code for the PC. It is a straight line; behind each VM exit the next step begins.

use iced_x86::IcedError;
use iced_x86::code_asm::*;
use vmx_sim::field::FLAT_64_BIT_GUEST;

/// Where the code is, and what the machine begins with.
pub const AT: u64 = 0x10_0000;
const CR3: u64 = 0x9000;
const GDT: u64 = 0x500;
/// The VMXON region, two VMCSs, three pointers, a guest's IDT, EPT paging structures for 1 GiB.
const VMXON: u64 = 0x20_0000;
pub const FIRST: u64 = 0x20_1000;
pub const SECOND: u64 = 0x20_2000;
const POINTERS: u64 = 0x20_3000;
const IDT: u64 = 0x20_4000;
pub const EPT: u64 = 0x20_5000;
/// Guest-physical: what is at physical address 0.
pub const ALIAS: u64 = 0x200_0000;
/// No EPT entry maps this.
pub const UNMAPPED: u64 = 1 << 30;
/// The vector that is injected.
pub const VECTOR: u64 = 0x41;

type Result<T = ()> = std::result::Result<T, IcedError>;
type A<'a> = &'a mut CodeAssembler;

pub fn write(a: A, field: u32, value: u64) -> Result {
    a.mov(eax, field)?;
    a.mov(rcx, value)?;
    a.vmwrite(rax, rcx)
}

fn write_label(a: A, field: u32, label: CodeLabel) -> Result {
    a.lea(rcx, ptr(label))?;
    a.mov(eax, field)?;
    a.vmwrite(rax, rcx)
}

/// Controls, as a capability MSR lets them be.
fn control(a: A, field: u32, msr: u32, wanted: u32) -> Result {
    a.mov(ecx, msr)?;
    a.rdmsr()?;
    a.or(eax, wanted as i32)?;
    a.and(eax, edx)?;
    a.mov(ecx, eax)?;
    a.mov(eax, field)?;
    a.vmwrite(rax, rcx)
}

pub fn put(a: A, at: u64, value: u64) -> Result {
    a.mov(rbx, at)?;
    a.mov(rax, value)?;
    a.mov(qword_ptr(rbx), rax)
}

pub fn operation(a: A) -> Result {
    a.mov(ecx, 0x3a)?;
    a.mov(eax, 5)?;
    a.xor(edx, edx)?;
    a.wrmsr()?;
    a.mov(rax, cr4)?;
    a.or(eax, 1 << 13)?;
    a.mov(cr4, rax)?;
    a.mov(rax, cr0)?;
    a.or(eax, 1 << 5)?;
    a.mov(cr0, rax)?;
    for (i, region) in [VMXON, FIRST, SECOND].into_iter().enumerate() {
        a.mov(ecx, 0x480)?;
        a.rdmsr()?;
        a.mov(rbx, region)?;
        a.mov(dword_ptr(rbx), eax)?;
        put(a, POINTERS + 8 * i as u64, region)?;
    }
    for (at, entry) in [(EPT, EPT + 0x1007), (EPT + 0x1000, EPT + 0x2007)] {
        put(a, at, entry)?;
    }
    let mut entry = a.create_label();
    a.mov(rbx, EPT + 0x2000)?;
    a.mov(rax, 0xb7u64)?;
    a.mov(ecx, 512)?;
    a.set_label(&mut entry)?;
    a.mov(qword_ptr(rbx), rax)?;
    a.add(rbx, 8)?;
    a.add(rax, 1 << 21)?;
    a.dec(ecx)?;
    a.jne(entry)?;
    put(a, EPT + 0x2000 + 8 * (ALIAS >> 21), 0xb7)?;
    a.mov(rbx, POINTERS)?;
    a.vmxon(qword_ptr(rbx))
}

fn load(a: A, vmcs: u64) -> Result {
    a.mov(rbx, POINTERS + (vmcs - VMXON) / 0x1000 * 8)?;
    a.vmptrld(qword_ptr(rbx))
}

/// A VMCS whose guest has the host's state, but for RIP.
pub fn vmcs(a: A, vmcs: u64, guest: CodeLabel) -> Result {
    a.mov(rbx, POINTERS + (vmcs - VMXON) / 0x1000 * 8)?;
    a.vmclear(qword_ptr(rbx))?;
    load(a, vmcs)?;
    control(a, 0x4000, 0x481, 0)?;
    control(a, 0x4002, 0x482, 1 << 7 | 1 << 24 | 1 << 31)?;
    control(a, 0x401e, 0x48b, 1 << 1 | 1 << 5)?;
    control(a, 0x400c, 0x483, 1 << 9)?;
    control(a, 0x4012, 0x484, 1 << 9)?;
    for (field, value) in [
        (0x0000, 1),
        (0x201a, EPT | 3 << 3 | 6),
        (0x2800, u64::MAX),
        (0x0c02, 0x10),
        (0x0c00, 0x18),
        (0x0c04, 0x18),
        (0x0c06, 0x18),
        (0x0c0c, 0x20),
        (0x6c0c, GDT),
        (0x0802, 0x10),
        (0x0800, 0x18),
        (0x0804, 0x18),
        (0x0806, 0x18),
        (0x080e, 0x20),
        (0x4810, 31),
        (0x4812, 0xfff),
        (0x6816, GDT),
        (0x6818, IDT),
        (0x681c, 0x8000),
        (0x6c14, 0x7000),
    ] {
        write(a, field, value)?;
    }
    for (field, value) in FLAT_64_BIT_GUEST {
        write(a, field.0.into(), value)?;
    }
    for field in [0x6c00, 0x6800] {
        a.mov(rcx, cr0)?;
        a.mov(eax, field)?;
        a.vmwrite(rax, rcx)?;
        write(a, field + 2, CR3)?;
        a.mov(rcx, cr4)?;
        a.mov(eax, field + 4)?;
        a.vmwrite(rax, rcx)?;
    }
    write_label(a, 0x681e, guest)
}

/// Enters the guest; goes on behind its VM exit.
pub fn enter(a: A, launch: bool) -> Result {
    let mut exit = a.create_label();
    write_label(a, 0x6c16, exit)?;
    if launch {
        a.vmlaunch()?
    } else {
        a.vmresume()?
    }
    a.hlt()?;
    a.set_label(&mut exit)?;
    a.nop()
}

/// The guest goes on behind the instruction that has exited.
fn skip(a: A) -> Result {
    a.mov(eax, 0x440c)?;
    a.vmread(rcx, rax)?;
    a.mov(eax, 0x681e)?;
    a.vmread(rdx, rax)?;
    a.add(rcx, rdx)?;
    a.vmwrite(rax, rcx)
}

/// A VM entry that fails before the guest's state is loaded.
fn fail(a: A, launch: bool) -> Result {
    if launch { a.vmlaunch() } else { a.vmresume() }
}

pub fn assembled(code: impl FnOnce(A) -> Result) -> Vec<u8> {
    let assemble = || {
        let mut a = CodeAssembler::new(64)?;
        code(&mut a)?;
        a.assemble(AT)
    };
    assemble().expect("the guest's code is right")
}

/// The code.
pub fn code() -> Vec<u8> {
    assembled(|a| {
        let (mut guest, mut inner, mut handler) = (a.create_label(), a.create_label(), a.create_label());
        a.mov(esp, 0x7000)?;
        operation(a)?;
        // A gate of the guest's IDT.
        a.lea(rax, ptr(handler))?;
        a.mov(rbx, IDT + 16 * VECTOR)?;
        a.mov(word_ptr(rbx), ax)?;
        a.mov(dword_ptr(rbx + 2), 0x8e00_0010u32 as i32)?;
        a.mov(word_ptr(rbx + 2), 0x10)?;
        a.mov(word_ptr(rbx + 4), 0x8e00)?;
        a.shr(rax, 16)?;
        a.mov(word_ptr(rbx + 6), ax)?;
        vmcs(a, SECOND, inner)?;
        vmcs(a, FIRST, guest)?;
        // CPUID, ten times; I/O; an EPT violation; VMLAUNCH.
        enter(a, true)?;
        for _ in 0..11 {
            skip(a)?;
            enter(a, false)?;
        }
        skip(a)?;
        enter(a, false)?;
        // What the guest has asked for: another guest, twice.
        load(a, SECOND)?;
        enter(a, true)?;
        skip(a)?;
        enter(a, false)?;
        // Back to the first, with an interrupt.
        load(a, FIRST)?;
        skip(a)?;
        write(a, 0x6820, 0x202)?;
        write(a, 0x4016, 1 << 31 | VECTOR)?;
        enter(a, false)?;
        // Entries that fail: the launch state, a control, the host's state; twice the guest's.
        fail(a, true)?;
        write(a, 0x400a, 5)?;
        fail(a, false)?;
        write(a, 0x400a, 0)?;
        write(a, 0x6c16, 1 << 62)?;
        fail(a, false)?;
        for _ in 0..2 {
            write(a, 0x6820, 0)?;
            enter(a, false)?;
        }
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
        a.mov(rdi, UNMAPPED)?;
        a.mov(eax, dword_ptr(rdi))?;
        a.vmlaunch()?;
        a.hlt()?;
        a.set_label(&mut handler)?;
        a.vmcall()?;
        a.hlt()?;
        a.set_label(&mut inner)?;
        let mut count = a.create_label();
        a.mov(ecx, 1000)?;
        a.set_label(&mut count)?;
        a.dec(ecx)?;
        a.jne(count)?;
        a.vmcall()?;
        a.hlt()
    })
}
