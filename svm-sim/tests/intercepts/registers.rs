//! Control registers, debug registers, their write traps: intercept words 0 and 1, and bits 16 to 31 of word 4.

use iced_x86::code_asm::*;
use svm_sim::exit::code::*;
use svm_sim::vmcb::{CR0, CR3, CR4, VINTR, vintr};
use x86::control::{cr0, cr4};
use x86_bare::PML4;

use crate::base::{Base, on};
use crate::case::{Case, of};

/// EXITINFO1: the instruction is a MOV.
const MOV: u64 = 1 << 63;
/// CR0 of the guests.
const GUEST_CR0: u64 = cr0::PE | cr0::ET | cr0::NE | cr0::WP | cr0::PG;

/// RAX is the guest's CR0, but for these bits.
macro_rules! cr0_but {
    ($bits:expr) => {
        |a| {
            a.mov(rax, cr0)?;
            a.xor(rax, $bits as i32)
        }
    };
}

#[rustfmt::skip]
pub const ALL: &[Case] = &[
    of(CR_READ, |a| a.mov(rbx, cr0)).info(MOV | 3, 0),
    of(CR_READ, |a| a.mov(r9, cr0)).info(MOV | 9, 0),
    of(CR_READ, |a| a.smsw(eax)),
    of(CR_READ + 2, |a| a.mov(rsp, cr2)).info(MOV | 4, 0),
    of(CR_READ + 3, |a| a.mov(r15, cr3)).info(MOV | 15, 0),
    of(CR_READ + 4, |a| a.mov(rdi, cr4)).info(MOV | 7, 0),
    of(CR_READ + 8, |a| a.mov(rdx, cr8)).info(MOV | 2, 0),
    of(CR_READ + 8, |a| a.mov(rdx, cr8)).vmcb(|v| on(v, VINTR, vintr::V_INTR_MASKING)).info(MOV | 2, 0),
    of(CR_READ, |a| a.mov(ebx, cr0)).in_base(Base::Protected).info(MOV | 3, 0),
    of(CR_WRITE, |a| a.mov(cr0, rax)).before(|a| a.mov(rax, cr0)).info(MOV, 0),
    of(CR_WRITE, |a| a.clts()),
    of(CR_WRITE, |a| a.lmsw(ax)).before(|a| a.smsw(eax)),
    of(CR_WRITE + 2, |a| a.mov(cr2, rsi)).info(MOV | 6, 0),
    of(CR_WRITE + 3, |a| a.mov(cr3, r8)).before(|a| a.mov(r8, PML4)).info(MOV | 8, 0),
    of(CR_WRITE + 4, |a| a.mov(cr4, rcx)).before(|a| a.mov(rcx, cr4)).info(MOV | 1, 0),
    of(CR_WRITE + 8, |a| a.mov(cr8, rbp)).before(|a| a.mov(ebp, 3)).info(MOV | 5, 0),
    // With V_INTR_MASKING the processor's own TPR is left alone; the intercept is the same.
    of(CR_WRITE + 8, |a| a.mov(cr8, rbp)).before(|a| a.mov(ebp, 3)).vmcb(|v| on(v, VINTR, vintr::V_INTR_MASKING)).info(MOV | 5, 0),
    of(CR0_SELECTIVE_WRITE, |a| a.mov(cr0, rax)).before(cr0_but!(cr0::AM)).info(MOV, 0),
    of(CR0_SELECTIVE_WRITE, |a| a.lmsw(ax)).before(|a| a.smsw(eax)),
    of(DR_READ, |a| a.mov(rbx, dr0)).info(3, 0),
    of(DR_READ + 1, |a| a.mov(r10, dr1)).info(10, 0),
    of(DR_READ + 2, |a| a.mov(rax, dr2)),
    of(DR_READ + 3, |a| a.mov(rsp, dr3)).info(4, 0),
    of(DR_READ + 4, |a| a.mov(rax, dr4)),
    of(DR_READ + 5, |a| a.mov(rax, dr5)),
    of(DR_READ + 6, |a| a.mov(r15, dr6)).info(15, 0),
    of(DR_READ + 7, |a| a.mov(rcx, dr7)).info(1, 0),
    of(DR_WRITE, |a| a.mov(dr0, rbx)).info(3, 0),
    of(DR_WRITE + 1, |a| a.mov(dr1, r10)).info(10, 0),
    of(DR_WRITE + 2, |a| a.mov(dr2, rax)),
    of(DR_WRITE + 3, |a| a.mov(dr3, rsp)).info(4, 0),
    of(DR_WRITE + 4, |a| a.mov(dr4, rbx)).before(|a| a.xor(ebx, ebx)).info(3, 0),
    of(DR_WRITE + 5, |a| a.mov(dr5, rbx)).before(|a| a.xor(ebx, ebx)).info(3, 0),
    of(DR_WRITE + 6, |a| a.mov(dr6, rbx)).before(|a| a.xor(ebx, ebx)).info(3, 0),
    of(DR_WRITE + 7, |a| a.mov(dr7, rbx)).before(|a| a.xor(ebx, ebx)).info(3, 0),
    // The traps tell of what has been written.
    of(CR_WRITE_TRAP, |a| a.mov(cr0, rax)).before(cr0_but!(cr0::AM)).info(GUEST_CR0 | cr0::AM, 0).behind(),
    of(CR_WRITE_TRAP, |a| a.clts()).vmcb(|v| on(v, CR0, cr0::TS)).info(GUEST_CR0, 0).behind(),
    of(CR_WRITE_TRAP, |a| a.lmsw(ax)).before(|a| {
        a.smsw(eax)?;
        a.or(eax, cr0::MP as i32)
    }).info(GUEST_CR0 | cr0::MP, 0).behind(),
    of(CR_WRITE_TRAP + 3, |a| a.mov(cr3, rax)).before(|a| a.mov(rax, PML4 | 8)).vmcb(|v| v.set(CR3, PML4)).info(PML4 | 8, 0).behind(),
    of(CR_WRITE_TRAP + 4, |a| a.mov(cr4, rax)).before(|a| a.mov(eax, (cr4::PAE | cr4::DE) as i32)).vmcb(|v| v.set(CR4, cr4::PAE)).info(cr4::PAE | cr4::DE, 0).behind(),
    of(CR_WRITE_TRAP + 8, |a| a.mov(cr8, rax)).before(|a| a.mov(eax, 5)).info(5, 0).behind(),
    of(EFER_WRITE_TRAP, |a| a.wrmsr()).before(|a| {
        a.mov(ecx, 0xc000_0080u32)?;
        a.rdmsr()?;
        a.or(eax, 1)
    }).info(0x1d01, 0).behind(),
];
