//! SVM: the hypervisors and the innermost guest, in machine code.
//!
//! L1 runs L2, and intercepts its VMRUN. Then it runs L3 by a VMCB of its own making, with what L2 has written into its, and passes L3's exits on to
//! L2: to that VMRUN seems to have come back. The guests' memory is mapped as they touch it.

use iced_x86::code_asm::*;
use svm_sim::exit::code as exit_code;
use svm_sim::msr::number::VM_HSAVE_PA;
use svm_sim::vmcb::{self, FLAT_64_BIT_GUEST, Field};

use super::code::{
    self, Images, L2, L2_STACK, L2_STRUCTURES, L3, L3_STACK, MEMORY, PML4, Result, SIZE, STRUCTURES, dispatch, print,
    print_for_guest, restore, save, saved,
};

/// L1's structures: the host save area, VMCBs for L2 and for L3, permissions maps of I/O (all ones) and MSRs.
const SAVE_AREA: u64 = STRUCTURES;
const VMCB_L2: u64 = STRUCTURES + 0x1000;
const VMCB_L3: u64 = STRUCTURES + 0x2000;
const IOPM: u64 = STRUCTURES + 0x3000;
const MSRPM: u64 = STRUCTURES + 0x6000;
/// Whose turn it is: the address of a VMCB. Where the VMCB is that L2 has named.
const PRESENT: u64 = STRUCTURES + 0x8000;
const NAMED: u64 = PRESENT + 8;
/// Nested page tables: one of each level.
const NESTED: u64 = STRUCTURES + 0x9000;

/// L2's host save area, and its VMCB.
const L2_SAVE_AREA: u64 = L2_STRUCTURES;
const L2_VMCB: u64 = L2_STRUCTURES + 0x1000;

/// Where they go in the machine, and their bytes.
pub fn images() -> Result<Images> {
    let mut images = code::images([l1, l2, l3])?;
    images.push((IOPM, vec![0xff; 0x3000]));
    // The bit of WRMSR to VM_HSAVE_PA.
    let bit = 2 * (0x4000 + (u64::from(VM_HSAVE_PA) & 0x1fff)) + 1;
    images.push((MSRPM + bit / 8, vec![1 << (bit % 8)]));
    Ok(images)
}

/// A field of the VMCB at RBP.
fn field(f: Field) -> AsmMemoryOperand {
    qword_ptr(rbp + i32::from(f.offset))
}

/// Writes a field of the VMCB at RBP: RCX.
fn write_rcx(a: &mut CodeAssembler, f: Field) -> Result {
    let at = rbp + i32::from(f.offset);
    match f.size {
        1 => a.mov(byte_ptr(at), cl),
        2 => a.mov(word_ptr(at), cx),
        4 => a.mov(dword_ptr(at), ecx),
        _ => a.mov(qword_ptr(at), rcx),
    }
}

/// A VMCB, for a guest that begins at `rip`: its state is the present one but for that, the stack and the memory. Changes RAX, RCX, RDX, RBP.
fn vmcb(a: &mut CodeAssembler, at: u64, tables: Option<u64>, [asid, rip, stack]: [u64; 3]) -> Result {
    let bit = |code: u64| 1 << (code & 31);
    let intercepts = [exit_code::CPUID, exit_code::IOIO, exit_code::MSR, exit_code::SHUTDOWN];
    a.mov(rbp, at)?;
    for (f, value) in [
        (vmcb::INTERCEPT_3, intercepts.into_iter().map(bit).sum()),
        (vmcb::INTERCEPT_4, bit(exit_code::VMRUN) | bit(exit_code::VMMCALL)),
        (vmcb::IOPM_BASE_PA, IOPM),
        (vmcb::MSRPM_BASE_PA, MSRPM),
        (vmcb::GUEST_ASID, asid),
        (vmcb::NESTED_CONTROL, u64::from(tables.is_some())),
        (vmcb::N_CR3, tables.unwrap_or(0)),
        (vmcb::CR3, PML4),
        (vmcb::RIP, rip),
        (vmcb::RSP, stack),
    ]
    .into_iter()
    .chain(FLAT_64_BIT_GUEST)
    {
        a.mov(rcx, value)?;
        write_rcx(a, f)?;
    }
    for (f, register) in [(vmcb::CR0, cr0), (vmcb::CR4, cr4)] {
        a.mov(rcx, register)?;
        write_rcx(a, f)?;
    }
    a.mov(ecx, 0xc000_0080u32)?;
    a.rdmsr()?;
    a.mov(ecx, eax)?;
    write_rcx(a, vmcb::EFER)
}

/// EFER.SVME, and the host save area.
fn operation(a: &mut CodeAssembler, save_area: u64) -> Result {
    a.mov(ecx, 0xc000_0080u32)?;
    a.rdmsr()?;
    a.or(eax, 1 << 12)?;
    a.wrmsr()?;
    a.mov(ecx, VM_HSAVE_PA)?;
    a.mov(rax, save_area)?;
    a.xor(edx, edx)?;
    a.wrmsr()
}

/// Runs the guest whose VMCB `present` names, with the registers on the stack. Behind its #VMEXIT they are there again, the VMCB is at RBP, and the exit
/// code in EBX.
fn run(a: &mut CodeAssembler, present: impl Fn(&mut CodeAssembler) -> Result) -> Result {
    restore(a)?;
    present(a)?;
    a.vmrun()?;
    save(a)?;
    a.mov(rbp, rax)?;
    a.mov(rbx, field(vmcb::EXITCODE))
}

/// The guest of the VMCB at RBP goes on behind the instruction that has exited. Changes RCX.
fn skip(a: &mut CodeAssembler) -> Result {
    a.mov(rcx, field(vmcb::NRIP))?;
    a.mov(field(vmcb::RIP), rcx)
}

/// Fields go from the VMCB at `from` to that at `to`. Changes RCX.
fn copy(a: &mut CodeAssembler, from: AsmRegister64, to: AsmRegister64, fields: &[Field]) -> Result {
    for f in fields {
        a.mov(rcx, qword_ptr(from + i32::from(f.offset)))?;
        a.mov(qword_ptr(to + i32::from(f.offset)), rcx)?;
    }
    Ok(())
}

/// L1: runs L2, and serves its exits and L3's.
fn l1(a: &mut CodeAssembler) -> Result {
    use exit_code as e;
    let [mut again, mut skipped, mut map, mut failed, mut reflect] = [(); 5].map(|()| a.create_label());
    let [mut enter, mut cpuid, mut io, mut ended] = [(); 4].map(|()| a.create_label());
    print(a, "L1: hypervisor with SVM, nested paging with nothing mapped; running L2\n")?;
    operation(a, SAVE_AREA)?;
    code::second_stage(a, NESTED)?;
    vmcb(a, VMCB_L3, Some(NESTED), [2, 0, 0])?;
    vmcb(a, VMCB_L2, Some(NESTED), [1, L2, L2_STACK])?;
    a.mov(qword_ptr(PRESENT), rbp)?;
    save(a)?;

    a.set_label(&mut again)?;
    run(a, |a| a.mov(rax, qword_ptr(PRESENT)))?;
    dispatch(a, &[(e::NPF as i32, map)])?;
    a.cmp(rbp, VMCB_L3 as i32)?;
    a.je(reflect)?;
    let known = [(e::IOIO, io), (e::CPUID, cpuid), (e::MSR, skipped), (e::VMRUN, enter), (e::VMMCALL, ended)];
    dispatch(a, &known.map(|(code, label)| (code as i32, label)))?;
    a.set_label(&mut failed)?;
    print(a, "L1: what nobody expected\n")?;
    a.hlt()?;

    // A page of the guests' memory is touched for the first time.
    a.set_label(&mut map)?;
    a.mov(rcx, field(vmcb::EXITINFO2))?;
    code::map(a, NESTED, 7, failed)?;
    a.jmp(again)?;

    // L2 acts for L3, or for itself: L1 prints.
    a.set_label(&mut io)?;
    a.mov(rax, field(vmcb::RAX))?;
    print_for_guest(a)?;
    a.jmp(skipped)?;

    a.set_label(&mut cpuid)?;
    a.mov(rax, field(vmcb::RAX))?;
    a.mov(rcx, saved(rcx))?;
    a.cpuid()?;
    a.mov(field(vmcb::RAX), rax)?;
    for register in [rcx, rdx, rbx] {
        a.mov(saved(register), register)?;
    }

    // WRMSR of VM_HSAVE_PA: L2's own save area is L1's concern, which needs none.
    a.set_label(&mut skipped)?;
    skip(a)?;
    a.jmp(again)?;

    // VMRUN of L2: what it has written of L3's state goes into the VMCB for L3.
    a.set_label(&mut enter)?;
    a.mov(rsi, field(vmcb::RAX))?;
    a.cmp(rsi, (SIZE - 0x1000) as i32)?;
    a.ja(failed)?;
    a.add(rsi, MEMORY as i32)?;
    a.mov(qword_ptr(NAMED), rsi)?;
    a.mov(rdi, VMCB_L3)?;
    copy(a, rsi, rdi, &[vmcb::RIP, vmcb::RSP, vmcb::RAX])?;
    a.mov(qword_ptr(PRESENT), rdi)?;
    a.jmp(again)?;

    // An exit of L3 that is L2's concern: L2 finds it in its VMCB, behind its VMRUN.
    a.set_label(&mut reflect)?;
    a.mov(rsi, qword_ptr(NAMED))?;
    let told = [vmcb::EXITCODE, vmcb::EXITINFO1, vmcb::EXITINFO2, vmcb::NRIP, vmcb::RIP, vmcb::RSP, vmcb::RAX];
    copy(a, rbp, rsi, &told)?;
    a.mov(rbp, VMCB_L2)?;
    a.mov(qword_ptr(PRESENT), rbp)?;
    a.jmp(skipped)?;

    a.set_label(&mut ended)?;
    print(a, "L1: L2 has ended\n")?;
    a.mov(qword_ptr(code::DONE), 1)?;
    a.stgi()?;
    a.hlt()
}

/// L2: a hypervisor as it might be on a processor. It runs L3, and serves its exits.
fn l2(a: &mut CodeAssembler) -> Result {
    use exit_code as e;
    let [mut again, mut skipped, mut io, mut cpuid, mut ended, mut no_svm] = [(); 6].map(|()| a.create_label());
    print(a, "L2: hypervisor under a hypervisor; running L3\n")?;
    a.mov(eax, 0x8000_0001u32)?;
    a.cpuid()?;
    a.bt(ecx, 2)?;
    a.jae(no_svm)?;
    operation(a, L2_SAVE_AREA)?;
    vmcb(a, L2_VMCB, None, [1, L3, L3_STACK])?;
    save(a)?;

    a.set_label(&mut again)?;
    run(a, |a| a.mov(rax, L2_VMCB))?;
    let known = [(e::IOIO, io), (e::CPUID, cpuid), (e::VMMCALL, ended)];
    dispatch(a, &known.map(|(code, label)| (code as i32, label)))?;
    print(a, "L2: what nobody expected\n")?;
    a.ud2()?;

    a.set_label(&mut io)?;
    a.mov(rax, field(vmcb::RAX))?;
    print_for_guest(a)?;
    a.jmp(skipped)?;

    // L3 is told its level.
    a.set_label(&mut cpuid)?;
    a.mov(field(vmcb::RAX), 3)?;
    a.set_label(&mut skipped)?;
    skip(a)?;
    a.jmp(again)?;

    a.set_label(&mut no_svm)?;
    print(a, "L2: no SVM\n")?;
    a.ud2()?;

    a.set_label(&mut ended)?;
    print(a, "L2: L3 has ended\n")?;
    a.vmmcall()
}

fn l3(a: &mut CodeAssembler) -> Result {
    code::l3(a)?;
    a.vmmcall()
}
