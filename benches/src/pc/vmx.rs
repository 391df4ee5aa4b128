//! Guests of VMX: a hypervisor that enters its guest, and a guest that leaves it, many times; with EPT, and a VPID.

use iced_x86::code_asm::*;
use vmx_sim::field::FLAT_64_BIT_GUEST;

use super::image::{GDT, IDT, PML4};

/// The VMXON region, the VMCS, two pointers; then EPT paging structures for 1 GiB.
const VMXON: u64 = 24 << 20;
const VMCS: u64 = VMXON + 0x1000;
const POINTERS: u64 = VMXON + 0x2000;
const EPT: u64 = VMXON + 0x3000;
/// No EPT entry maps this.
pub const UNMAPPED: u64 = 1 << 30;

type Result<T = ()> = std::result::Result<T, IcedError>;

/// Primary processor-based controls.
pub const HLT_EXITING: u32 = 1 << 7;
/// Likewise.
pub const UNCONDITIONAL_IO_EXITING: u32 = 1 << 24;
const SECONDARY: u32 = 1 << 31;

/// VMWRITE of a constant.
fn write(a: &mut CodeAssembler, field: u32, value: u64) -> Result {
    a.mov(eax, field)?;
    a.mov(rcx, value)?;
    a.vmwrite(rax, rcx)
}

/// VMWRITE of controls, as a capability MSR lets them be.
fn control(a: &mut CodeAssembler, field: u32, msr: u32, wanted: u32) -> Result {
    a.mov(ecx, msr)?;
    a.rdmsr()?;
    a.or(eax, wanted as i32)?;
    a.and(eax, edx)?;
    a.mov(ecx, eax)?;
    a.mov(eax, field)?;
    a.vmwrite(rax, rcx)
}

fn label(a: &mut CodeAssembler, field: u32, label: CodeLabel) -> Result {
    a.lea(rcx, ptr(label))?;
    a.mov(eax, field)?;
    a.vmwrite(rax, rcx)
}

/// A region with its revision.
fn region(a: &mut CodeAssembler, at: u64, pointer: u64) -> Result {
    a.mov(ecx, 0x480)?;
    a.rdmsr()?;
    a.mov(rbx, at)?;
    a.mov(dword_ptr(rbx), eax)?;
    a.mov(rax, pointer)?;
    a.mov(qword_ptr(rax), rbx)
}

/// EPT paging structures: 1 GiB by pages of 2 MiB.
fn paging(a: &mut CodeAssembler) -> Result {
    for (at, entry) in [(EPT, EPT + 0x1007), (EPT + 0x1000, EPT + 0x2007)] {
        a.mov(rbx, at)?;
        a.mov(rax, entry)?;
        a.mov(qword_ptr(rbx), rax)?;
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
    a.jne(entry)
}

/// Into VMX operation, with a current VMCS.
fn operation(a: &mut CodeAssembler) -> Result {
    let mut locked = a.create_label();
    a.mov(ecx, 0x3a)?;
    a.rdmsr()?;
    a.test(eax, 1)?;
    a.jne(locked)?;
    a.or(eax, 5)?;
    a.wrmsr()?;
    a.set_label(&mut locked)?;
    a.mov(rax, cr4)?;
    a.or(eax, 1 << 13)?;
    a.mov(cr4, rax)?;
    a.mov(rax, cr0)?;
    a.or(eax, 1 << 5)?;
    a.mov(cr0, rax)?;
    region(a, VMXON, POINTERS)?;
    region(a, VMCS, POINTERS + 8)?;
    a.mov(rbx, POINTERS)?;
    a.vmxon(qword_ptr(rbx))?;
    a.vmclear(qword_ptr(rbx + 8))?;
    a.vmptrld(qword_ptr(rbx + 8))
}

/// The VMCS: the guest has the host's state, but for RIP.
fn vmcs(a: &mut CodeAssembler, primary: u32, guest: CodeLabel, exit: CodeLabel) -> Result {
    control(a, 0x4000, 0x481, 0)?;
    control(a, 0x4002, 0x482, primary | SECONDARY)?;
    control(a, 0x401e, 0x48b, 1 << 1 | 1 << 5)?;
    control(a, 0x400c, 0x483, 1 << 9)?;
    control(a, 0x4012, 0x484, 1 << 9)?;
    for (field, value) in [
        (0x0000, 1),
        (0x201a, EPT | 3 << 3 | 6),
        (0x2800, u64::MAX),
        (0x0c02, 8),
        (0x0c00, 16),
        (0x0c04, 16),
        (0x0c06, 16),
        (0x0c0c, 0x18),
        (0x6c0c, GDT),
        (0x6c0e, IDT),
        (0x0802, 8),
        (0x0800, 16),
        (0x0804, 16),
        (0x0806, 16),
        (0x080e, 0x18),
        (0x4810, 23),
        (0x4812, 32 * 16 - 1),
        (0x6816, GDT),
        (0x6818, IDT),
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
        write(a, field + 2, PML4)?;
        a.mov(rcx, cr4)?;
        a.mov(eax, field + 4)?;
        a.vmwrite(rax, rcx)?;
    }
    for field in [0x6c14, 0x681c] {
        a.mov(eax, field)?;
        a.vmwrite(rax, rsp)?;
    }
    label(a, 0x681e, guest)?;
    label(a, 0x6c16, exit)
}

/// So many round trips: the guest begins with `body` each time.
pub fn trips(
    a: &mut CodeAssembler,
    done: CodeLabel,
    failed: CodeLabel,
    times: u64,
    primary: u32,
    body: impl Fn(&mut CodeAssembler) -> Result,
) -> Result {
    let (mut guest, mut exit, mut begin) = (a.create_label(), a.create_label(), a.create_label());
    a.jmp(begin)?;
    a.set_label(&mut guest)?;
    body(a)?;
    a.vmcall()?;
    a.set_label(&mut begin)?;
    a.mov(eax, 1)?;
    a.cpuid()?;
    a.bt(ecx, 5)?;
    a.jae(failed)?;
    operation(a)?;
    paging(a)?;
    vmcs(a, primary, guest, exit)?;
    a.mov(r15, times)?;
    a.vmlaunch()?;
    a.jmp(failed)?;
    a.set_label(&mut exit)?;
    a.dec(r15)?;
    a.je(done)?;
    a.vmresume()?;
    a.jmp(failed)
}
