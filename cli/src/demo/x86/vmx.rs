//! VMX: the hypervisors and the innermost guest, in machine code.
//!
//! L1 shows L2 a processor with VMX. L2's instructions of VMX exit to L1, which does what they ask for; but VMREAD and VMWRITE, which go to a
//! shadow VMCS. So L3 has a VMCS of L1's making, with what L2 has written into its own, and its exits go on to L2. The guests' memory is mapped
//! as they touch it.

use iced_x86::code_asm::*;
use vmx_sim::field::FLAT_64_BIT_GUEST;

use super::code::{
    self, Images, L2, L2_STACK, L2_STRUCTURES, L3, L3_STACK, PML4, Result, STACK, STRUCTURES, dispatch, print,
    print_for_guest, restore, save, saved,
};

/// A global descriptor table, and what is in it.
const GDT: u64 = 0x4000;
const CODE: u64 = 8;
const DATA: u64 = 16;
const TASK: u64 = 24;

/// L1's regions: VMXON, the VMCSs for L2 and for L3, the shadow VMCS, bitmaps of zeros. Pointers to them.
const VMXON: u64 = STRUCTURES;
const VMCS_L2: u64 = STRUCTURES + 0x1000;
const VMCS_L3: u64 = STRUCTURES + 0x2000;
const SHADOW: u64 = STRUCTURES + 0x3000;
const BITMAP: u64 = STRUCTURES + 0x4000;
const POINTERS: u64 = STRUCTURES + 0x5000;
/// EPT paging structures: one of each level.
const EPT: u64 = STRUCTURES + 0x6000;

/// Basic exit reasons.
mod reason {
    pub(super) const CPUID: i32 = 10;
    pub(super) const VMCALL: i32 = 18;
    pub(super) const VMCLEAR: i32 = 19;
    pub(super) const VMLAUNCH: i32 = 20;
    pub(super) const VMPTRLD: i32 = 21;
    pub(super) const VMRESUME: i32 = 24;
    pub(super) const VMXOFF: i32 = 26;
    pub(super) const VMXON: i32 = 27;
    pub(super) const IO: i32 = 30;
    pub(super) const EPT_VIOLATION: i32 = 48;
}

/// Fields of a VMCS, by their encodings.
mod field {
    pub(super) const GUEST_PHYSICAL_ADDRESS: u32 = 0x2400;
    pub(super) const EXIT_REASON: u32 = 0x4402;
    pub(super) const EXIT_INSTRUCTION_LENGTH: u32 = 0x440c;
    pub(super) const EXIT_QUALIFICATION: u32 = 0x6400;
    pub(super) const GUEST_RSP: u32 = 0x681c;
    pub(super) const GUEST_RIP: u32 = 0x681e;
    pub(super) const HOST_RSP: u32 = 0x6c14;
    pub(super) const HOST_RIP: u32 = 0x6c16;
}
use field::*;

/// Where they go in the machine, and their bytes.
pub fn images() -> Result<Images> {
    let mut images = code::images([l1, l2, l3])?;
    images.push((GDT, [0, 0x00af_9b00_0000_ffff, 0x00cf_9300_0000_ffffu64].map(u64::to_le_bytes).concat()));
    Ok(images)
}

fn vmwrite(a: &mut CodeAssembler, field: u32, value: u64) -> Result {
    a.mov(eax, field)?;
    a.mov(rcx, value)?;
    a.vmwrite(rax, rcx)
}

fn vmwrite_label(a: &mut CodeAssembler, field: u32, label: CodeLabel) -> Result {
    a.mov(eax, field)?;
    a.lea(rcx, ptr(label))?;
    a.vmwrite(rax, rcx)
}

/// VMREAD; changes RAX.
fn vmread(a: &mut CodeAssembler, to: AsmRegister64, field: u32) -> Result {
    a.mov(eax, field)?;
    a.vmread(to, rax)
}

/// VMWRITE of a register; changes RAX.
fn vmwrite_from(a: &mut CodeAssembler, field: u32, from: AsmRegister64) -> Result {
    a.mov(eax, field)?;
    a.vmwrite(rax, from)
}

/// VMWRITE of controls, as a capability MSR lets them be.
fn controls(a: &mut CodeAssembler, field: u32, msr: u32, wanted: i32) -> Result {
    a.mov(ecx, msr)?;
    a.rdmsr()?;
    a.or(eax, wanted)?;
    a.and(eax, edx)?;
    a.mov(ecx, eax)?;
    a.mov(eax, field)?;
    a.vmwrite(rax, rcx)
}

/// Behind the instruction that has exited.
fn skip(a: &mut CodeAssembler) -> Result {
    vmread(a, rcx, GUEST_RIP)?;
    vmread(a, rdx, EXIT_INSTRUCTION_LENGTH)?;
    a.add(rcx, rdx)?;
    vmwrite_from(a, GUEST_RIP, rcx)
}

/// The current VMCS, for a guest that begins at `rip`: its state is L1's but for that, the stack and the memory.
fn vmcs(a: &mut CodeAssembler, vpid: u64, rip: u64, stack: u64, shadows: bool, exit: CodeLabel) -> Result {
    const IO_EXITING: i32 = 1 << 24;
    const SECONDARY: i32 = 1 << 31;
    const EPT_AND_VPID: i32 = 1 << 1 | 1 << 5;
    const VMCS_SHADOWING: i32 = 1 << 14;
    controls(a, 0x4000, 0x481, 0)?;
    controls(a, 0x4002, 0x482, IO_EXITING | SECONDARY)?;
    controls(a, 0x401e, 0x48b, EPT_AND_VPID | if shadows { VMCS_SHADOWING } else { 0 })?;
    controls(a, 0x400c, 0x483, 1 << 9)?;
    controls(a, 0x4012, 0x484, 1 << 9)?;
    let link = if shadows { SHADOW } else { u64::MAX };
    for (field, value) in [
        (0x0000, vpid),
        (0x201a, EPT | 3 << 3 | 6),
        (0x2026, BITMAP),
        (0x2028, BITMAP),
        (0x2800, link),
        (0x6c02, PML4),
        (0x6c0c, GDT),
        (0x0c02, CODE),
        (0x0c04, DATA),
        (0x0c0c, TASK),
        (HOST_RSP, STACK),
        (0x6802, PML4),
        (0x6816, GDT),
        (0x4810, 23),
        (0x0802, CODE),
        (0x0804, DATA),
        (0x080e, TASK),
        (GUEST_RSP, stack),
        (GUEST_RIP, rip),
    ] {
        vmwrite(a, field, value)?;
    }
    for (field, value) in FLAT_64_BIT_GUEST {
        vmwrite(a, field.0.into(), value)?;
    }
    for control_register in [cr0, cr4] {
        let offset = if control_register == cr0 { 0 } else { 4 };
        a.mov(rcx, control_register)?;
        vmwrite_from(a, 0x6800 + offset, rcx)?;
        vmwrite_from(a, 0x6c00 + offset, rcx)?;
    }
    vmwrite_label(a, HOST_RIP, exit)
}

/// Into VMX operation; then VMCLEAR of the VMCSs.
fn operation(a: &mut CodeAssembler) -> Result {
    a.mov(ecx, 0x3a)?;
    a.mov(eax, 5)?;
    a.xor(edx, edx)?;
    a.wrmsr()?;
    a.mov(rax, cr4)?;
    a.or(eax, 1 << 13)?;
    a.mov(cr4, rax)?;
    a.mov(ecx, 0x480)?;
    a.rdmsr()?;
    a.mov(rbx, POINTERS)?;
    for (i, region) in [VMXON, VMCS_L2, VMCS_L3, SHADOW].into_iter().enumerate() {
        a.mov(rcx, region)?;
        a.mov(dword_ptr(rcx), eax)?;
        a.mov(qword_ptr(rbx + 8 * i as i32), rcx)?;
    }
    a.bts(dword_ptr(SHADOW), 31)?;
    a.vmxon(qword_ptr(POINTERS))?;
    [1, 2, 3].iter().try_for_each(|i| a.vmclear(qword_ptr(POINTERS + 8 * i)))
}

/// L1: enters L2, and serves its exits and L3's.
fn l1(a: &mut CodeAssembler) -> Result {
    let [mut exit, mut exit_of_l3, mut resume, mut skipped, mut map] = [(); 5].map(|()| a.create_label());
    let [mut failed, mut vmx, mut enter, mut launch, mut reflect] = [(); 5].map(|()| a.create_label());
    let (mut cpuid, mut io, mut ended) = (a.create_label(), a.create_label(), a.create_label());
    print(a, "L1: hypervisor in VMX root operation, EPT with nothing mapped; entering L2\n")?;
    operation(a)?;
    code::second_stage(a, EPT)?;
    a.vmptrld(qword_ptr(POINTERS + 16))?;
    vmcs(a, 2, 0, 0, false, exit_of_l3)?;
    a.vmptrld(qword_ptr(POINTERS + 8))?;
    vmcs(a, 1, L2, L2_STACK, true, exit)?;
    a.vmlaunch()?;
    a.jmp(failed)?;

    // An exit of L2.
    a.set_label(&mut exit)?;
    save(a)?;
    vmread(a, rbx, EXIT_REASON)?;
    let known = [
        (reason::EPT_VIOLATION, map),
        (reason::IO, io),
        (reason::CPUID, cpuid),
        (reason::VMXON, vmx),
        (reason::VMXOFF, vmx),
        (reason::VMCLEAR, vmx),
        (reason::VMPTRLD, vmx),
        (reason::VMLAUNCH, enter),
        (reason::VMRESUME, enter),
        (reason::VMCALL, ended),
    ];
    dispatch(a, &known)?;
    a.set_label(&mut failed)?;
    print(a, "L1: what nobody expected\n")?;
    a.hlt()?;

    // A page of the guests' memory is touched for the first time.
    a.set_label(&mut map)?;
    vmread(a, rcx, GUEST_PHYSICAL_ADDRESS)?;
    code::map(a, EPT, 0x37, failed)?;
    a.jmp(resume)?;

    // L2 acts for L3, or for itself: L1 prints.
    a.set_label(&mut io)?;
    a.mov(rax, saved(rax))?;
    print_for_guest(a)?;
    a.jmp(skipped)?;

    // L2 finds VMX in CPUID, for L1 makes it up to it.
    a.set_label(&mut cpuid)?;
    a.mov(rax, saved(rax))?;
    a.mov(rcx, saved(rcx))?;
    a.cpuid()?;
    for register in [rax, rcx, rdx, rbx] {
        a.mov(saved(register), register)?;
    }
    a.jmp(skipped)?;

    // VMXON, VMXOFF, VMCLEAR, VMPTRLD of L2: VMsucceed. There is one VMCS for it, the shadow VMCS.
    a.set_label(&mut vmx)?;
    vmread(a, rcx, 0x6820)?;
    a.and(rcx, !0x8d5)?;
    vmwrite_from(a, 0x6820, rcx)?;

    a.set_label(&mut skipped)?;
    skip(a)?;
    a.set_label(&mut resume)?;
    restore(a)?;
    a.vmresume()?;
    a.jmp(failed)?;

    // VMLAUNCH and VMRESUME of L2: what it has written of L3's state goes into the VMCS for L3.
    a.set_label(&mut enter)?;
    a.vmptrld(qword_ptr(POINTERS + 24))?;
    vmread(a, rcx, GUEST_RIP)?;
    vmread(a, rdx, GUEST_RSP)?;
    a.vmptrld(qword_ptr(POINTERS + 16))?;
    vmwrite_from(a, GUEST_RIP, rcx)?;
    vmwrite_from(a, GUEST_RSP, rdx)?;
    a.cmp(ebx, reason::VMLAUNCH)?;
    a.je(launch)?;
    a.jmp(resume)?;
    a.set_label(&mut launch)?;
    restore(a)?;
    a.vmlaunch()?;
    a.jmp(failed)?;

    // An exit of L3: of memory, which is L1's concern; or else L2's.
    a.set_label(&mut exit_of_l3)?;
    save(a)?;
    vmread(a, rbx, EXIT_REASON)?;
    a.cmp(ebx, reason::EPT_VIOLATION)?;
    a.je(map)?;
    vmread(a, rcx, EXIT_QUALIFICATION)?;
    vmread(a, rdx, EXIT_INSTRUCTION_LENGTH)?;
    vmread(a, rsi, GUEST_RIP)?;
    vmread(a, rdi, GUEST_RSP)?;
    a.vmptrld(qword_ptr(POINTERS + 24))?;
    for (field, register) in [
        (EXIT_REASON, rbx),
        (EXIT_QUALIFICATION, rcx),
        (EXIT_INSTRUCTION_LENGTH, rdx),
        (GUEST_RIP, rsi),
        (GUEST_RSP, rdi),
    ] {
        vmwrite_from(a, field, register)?;
    }
    vmread(a, rcx, HOST_RIP)?;
    vmread(a, rdx, HOST_RSP)?;
    a.set_label(&mut reflect)?;
    a.vmptrld(qword_ptr(POINTERS + 8))?;
    vmwrite_from(a, GUEST_RIP, rcx)?;
    vmwrite_from(a, GUEST_RSP, rdx)?;
    a.jmp(resume)?;

    a.set_label(&mut ended)?;
    a.vmxoff()?;
    print(a, "L1: L2 has ended\n")?;
    a.mov(qword_ptr(code::DONE), 1)?;
    a.hlt()
}

/// L2's regions, and pointers to them.
const L2_VMXON: u64 = L2_STRUCTURES;
const L2_VMCS: u64 = L2_STRUCTURES + 0x1000;
const L2_POINTERS: u64 = L2_STRUCTURES + 0x2000;

/// L2: a hypervisor as it might be on a processor. It runs L3, and serves its exits.
fn l2(a: &mut CodeAssembler) -> Result {
    let [mut exit, mut io, mut cpuid, mut resume, mut ended, mut no_vmx] = [(); 6].map(|()| a.create_label());
    print(a, "L2: hypervisor under a hypervisor; entering L3\n")?;
    a.mov(eax, 1)?;
    a.cpuid()?;
    a.bt(ecx, 5)?;
    a.jae(no_vmx)?;
    a.mov(ecx, 0x480)?;
    for (region, pointer) in [(L2_VMXON, L2_POINTERS), (L2_VMCS, L2_POINTERS + 8)] {
        a.mov(rax, region)?;
        a.mov(qword_ptr(pointer), rax)?;
    }
    a.vmxon(qword_ptr(L2_POINTERS))?;
    a.vmclear(qword_ptr(L2_POINTERS + 8))?;
    a.vmptrld(qword_ptr(L2_POINTERS + 8))?;
    vmwrite(a, GUEST_RIP, L3)?;
    vmwrite(a, GUEST_RSP, L3_STACK)?;
    vmwrite(a, HOST_RSP, L2_STACK)?;
    vmwrite_label(a, HOST_RIP, exit)?;
    a.vmlaunch()?;
    a.set_label(&mut no_vmx)?;
    print(a, "L2: no VMX\n")?;
    a.vmcall()?;

    // An exit of L3.
    a.set_label(&mut exit)?;
    save(a)?;
    vmread(a, rbx, EXIT_REASON)?;
    dispatch(a, &[(reason::IO, io), (reason::CPUID, cpuid), (reason::VMCALL, ended)])?;
    print(a, "L2: what nobody expected\n")?;
    a.ud2()?;

    a.set_label(&mut io)?;
    a.mov(rax, saved(rax))?;
    print_for_guest(a)?;
    a.jmp(resume)?;

    // L3 is told its level.
    a.set_label(&mut cpuid)?;
    a.mov(qword_ptr(rsp), 3)?;
    a.set_label(&mut resume)?;
    skip(a)?;
    restore(a)?;
    a.vmresume()?;
    a.ud2()?;

    a.set_label(&mut ended)?;
    a.vmxoff()?;
    print(a, "L2: L3 has ended\n")?;
    a.vmcall()
}

fn l3(a: &mut CodeAssembler) -> Result {
    code::l3(a)?;
    a.vmcall()
}
