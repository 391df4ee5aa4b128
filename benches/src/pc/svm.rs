//! Guests of SVM: a hypervisor that runs its guest, and a guest that leaves it, many times; with nested paging, and an ASID.

use iced_x86::code_asm::*;
use svm_sim::exit::code;
use svm_sim::msr::number::VM_HSAVE_PA;
use svm_sim::vmcb::{self, FLAT_64_BIT_GUEST, Field};
use x86::control::efer;

use super::image::{GDT, IDT, PML4};

/// The host save area, the VMCB, the host's own for VMSAVE; then the permissions maps, and nested page tables for 1 GiB.
const SAVE_AREA: u64 = 24 << 20;
const VMCB: u64 = SAVE_AREA + 0x1000;
const HOST_VMCB: u64 = SAVE_AREA + 0x2000;
const IOPM: u64 = SAVE_AREA + 0x3000;
const MSRPM: u64 = SAVE_AREA + 0x6000;
const NESTED: u64 = SAVE_AREA + 0x8000;
/// Port 80h in the map.
const PORT_80: u64 = IOPM + 0x80 / 8;
/// The byte of a read of EFER in the map: two bits for each MSR, from C0000000h on at its byte 800h.
const EFER_READ: u64 = MSRPM + 0x800 + 0x80 / 4;
/// EFER.
pub const INTERCEPTED_MSR: u32 = 0xc000_0080;
/// No nested page table maps this.
pub const UNMAPPED: u64 = 1 << 30;

type Result<T = ()> = std::result::Result<T, IcedError>;

/// Stores a word.
fn put(a: &mut CodeAssembler, at: u64, value: u64) -> Result {
    a.mov(rbx, at)?;
    a.mov(rcx, value)?;
    a.mov(qword_ptr(rbx), rcx)
}

/// Writes a field of the VMCB at RBX: RCX.
fn write_rcx(a: &mut CodeAssembler, field: Field) -> Result {
    let at = rbx + i32::from(field.offset);
    match field.size {
        1 => a.mov(byte_ptr(at), cl),
        2 => a.mov(word_ptr(at), cx),
        4 => a.mov(dword_ptr(at), ecx),
        _ => a.mov(qword_ptr(at), rcx),
    }
}

/// Nested page tables: 1 GiB by pages of 2 MiB. All accesses are a user's.
fn paging(a: &mut CodeAssembler) -> Result {
    put(a, NESTED, NESTED + 0x1007)?;
    put(a, NESTED + 0x1000, NESTED + 0x2007)?;
    let mut entry = a.create_label();
    a.mov(rbx, NESTED + 0x2000)?;
    a.mov(rax, 0xe7u64)?;
    a.mov(ecx, 512)?;
    a.set_label(&mut entry)?;
    a.mov(qword_ptr(rbx), rax)?;
    a.add(rbx, 8)?;
    a.add(rax, 1 << 21)?;
    a.dec(ecx)?;
    a.jne(entry)
}

/// EFER.SVME, the host save area, permissions maps in which one port and one MSR are intercepted.
fn operation(a: &mut CodeAssembler) -> Result {
    a.mov(ecx, INTERCEPTED_MSR)?;
    a.rdmsr()?;
    a.or(eax, efer::SVME as i32)?;
    a.wrmsr()?;
    a.mov(ecx, VM_HSAVE_PA)?;
    a.mov(rax, SAVE_AREA)?;
    a.xor(edx, edx)?;
    a.wrmsr()?;
    put(a, PORT_80, 1)?;
    put(a, EFER_READ, 1)
}

/// The VMCB: the guest has the host's state, but for RIP.
fn vmcb(a: &mut CodeAssembler, guest: CodeLabel) -> Result {
    let bit = |code: u64| 1 << (code & 31);
    let intercepts = [code::CPUID, code::HLT, code::IOIO, code::MSR, code::SHUTDOWN];
    a.mov(rbx, VMCB)?;
    for (field, value) in [
        (vmcb::INTERCEPT_3, intercepts.into_iter().map(bit).sum()),
        (vmcb::INTERCEPT_4, bit(code::VMRUN) | bit(code::VMMCALL)),
        (vmcb::IOPM_BASE_PA, IOPM),
        (vmcb::MSRPM_BASE_PA, MSRPM),
        (vmcb::GUEST_ASID, 1),
        (vmcb::NESTED_CONTROL, vmcb::nested::NP_ENABLE),
        (vmcb::N_CR3, NESTED),
        (vmcb::CS_SELECTOR, 8),
        (vmcb::SS_SELECTOR, 16),
        (vmcb::DS_SELECTOR, 16),
        (vmcb::ES_SELECTOR, 16),
        (vmcb::GDTR_BASE, GDT),
        (vmcb::GDTR_LIMIT, 23),
        (vmcb::IDTR_BASE, IDT),
        (vmcb::IDTR_LIMIT, 32 * 16 - 1),
        (vmcb::EFER, efer::SVME | efer::LMA | efer::LME),
        (vmcb::CR3, PML4),
    ]
    .into_iter()
    .chain(FLAT_64_BIT_GUEST)
    {
        a.mov(rcx, value)?;
        write_rcx(a, field)?;
    }
    for (field, register) in [(vmcb::CR0, cr0), (vmcb::CR4, cr4)] {
        a.mov(rcx, register)?;
        write_rcx(a, field)?;
    }
    a.mov(rcx, rsp)?;
    write_rcx(a, vmcb::RSP)?;
    a.lea(rcx, ptr(guest))?;
    write_rcx(a, vmcb::RIP)
}

/// What the host does around VMRUN.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Around {
    /// Nothing.
    Nothing,
    /// It exchanges its state and the guest's by VMLOAD and VMSAVE, between CLGI and STGI.
    Switch,
}

/// So many round trips: the guest begins with `body` each time, whose #VMEXITs have this code.
pub fn trips(
    a: &mut CodeAssembler,
    done: CodeLabel,
    failed: CodeLabel,
    times: u64,
    around: Around,
    exit: u64,
    body: impl Fn(&mut CodeAssembler) -> Result,
) -> Result {
    let (mut guest, mut begin, mut next) = (a.create_label(), a.create_label(), a.create_label());
    a.jmp(begin)?;
    a.set_label(&mut guest)?;
    body(a)?;
    a.vmmcall()?;
    a.set_label(&mut begin)?;
    a.mov(eax, 0x8000_0001u32)?;
    a.cpuid()?;
    a.bt(ecx, 2)?;
    a.jae(failed)?;
    operation(a)?;
    paging(a)?;
    vmcb(a, guest)?;
    a.mov(r12, HOST_VMCB)?;
    a.mov(r13, VMCB)?;
    for at in [r12, r13] {
        a.mov(rax, at)?;
        a.vmsave()?;
    }
    a.mov(r15, times)?;
    a.set_label(&mut next)?;
    if around == Around::Switch {
        a.clgi()?;
        a.mov(rax, r13)?;
        a.vmload()?;
    }
    a.mov(rax, r13)?;
    a.vmrun()?;
    if around == Around::Switch {
        a.vmsave()?;
        a.mov(rax, r12)?;
        a.vmload()?;
        a.stgi()?;
    }
    a.dec(r15)?;
    a.jne(next)?;
    a.mov(rax, qword_ptr(r13 + i32::from(vmcb::EXITCODE.offset)))?;
    a.cmp(rax, exit as i32)?;
    a.jne(failed)?;
    a.jmp(done)
}
