//! Privileged instructions, ECALL, EBREAK, and those that access CSRs.

use emu_core::engine::{Hart, Step, Stop, StopKind};

use super::csr::{hgatp, hstatus, mstatus};
use super::mmu::{AS_GUEST, AS_GUEST_EXECUTE};
use super::{cause, csr_access, trap, virtual_instruction};
use crate::cpu::Ext;
use crate::hart::{Priv, Riscv};
use crate::isa::Does::{Call, CallAndEnd};
use crate::isa::{H, Insn, Row, illegal, row};

/// Privileged instructions.
pub const ROWS: &[Row] = &[
    row("000000000000 00000 000 00000 1110011", "ecall", &[Ext::I], CallAndEnd(ecall)),
    row("000000000001 00000 000 00000 1110011", "ebreak", &[Ext::I], CallAndEnd(ebreak)),
    row("001100000010 00000 000 00000 1110011", "mret", &[Ext::I], CallAndEnd(mret)),
    row("000100000010 00000 000 00000 1110011", "sret", &[Ext::S], CallAndEnd(sret)),
    row("011100000010 00000 000 00000 1110011", "mnret", &[Ext::Smrnmi], CallAndEnd(mnret)),
    row("000100000101 00000 000 00000 1110011", "wfi", &[Ext::I], CallAndEnd(wfi)),
    row("0001001 ..... ..... 000 00000 1110011", "sfence.vma", &[Ext::S], CallAndEnd(sfence_vma)),
    row("0001011 ..... ..... 000 00000 1110011", "sinval.vma", &[Ext::Svinval], CallAndEnd(sfence_vma)),
    row("0001100 00000 00000 000 00000 1110011", "sfence.w.inval", &[Ext::Svinval], CallAndEnd(sfence_order)),
    row("0001100 00001 00000 000 00000 1110011", "sfence.inval.ir", &[Ext::Svinval], CallAndEnd(sfence_order)),
    row("0010001 ..... ..... 000 00000 1110011", "hfence.vvma", &[Ext::H], CallAndEnd(hfence_vvma)),
    row("0110001 ..... ..... 000 00000 1110011", "hfence.gvma", &[Ext::H], CallAndEnd(hfence_gvma)),
    row("0010011 ..... ..... 000 00000 1110011", "hinval.vvma", &[Ext::Svinval], CallAndEnd(hfence_vvma)),
    row("0110011 ..... ..... 000 00000 1110011", "hinval.gvma", &[Ext::Svinval], CallAndEnd(hfence_gvma)),
    row("0110000 00000 ..... 100 ..... 1110011", "hlv.b", &[Ext::H], Call(hlv::<1, true>)),
    row("0110000 00001 ..... 100 ..... 1110011", "hlv.bu", &[Ext::H], Call(hlv::<1, false>)),
    row("0110010 00000 ..... 100 ..... 1110011", "hlv.h", &[Ext::H], Call(hlv::<2, true>)),
    row("0110010 00001 ..... 100 ..... 1110011", "hlv.hu", &[Ext::H], Call(hlv::<2, false>)),
    row("0110010 00011 ..... 100 ..... 1110011", "hlvx.hu", &[Ext::H], Call(hlvx::<2>)),
    row("0110100 00000 ..... 100 ..... 1110011", "hlv.w", &[Ext::H], Call(hlv::<4, true>)),
    row("0110100 00001 ..... 100 ..... 1110011", "hlv.wu", &[Ext::H], Call(hlv::<4, false>)),
    row("0110100 00011 ..... 100 ..... 1110011", "hlvx.wu", &[Ext::H], Call(hlvx::<4>)),
    row("0110110 00000 ..... 100 ..... 1110011", "hlv.d", &[Ext::H], Call(hlv::<8, false>)),
    row("0110001 ..... ..... 100 00000 1110011", "hsv.b", &[Ext::H], Call(hsv::<1>)),
    row("0110011 ..... ..... 100 00000 1110011", "hsv.h", &[Ext::H], Call(hsv::<2>)),
    row("0110101 ..... ..... 100 00000 1110011", "hsv.w", &[Ext::H], Call(hsv::<4>)),
    row("0110111 ..... ..... 100 00000 1110011", "hsv.d", &[Ext::H], Call(hsv::<8>)),
    row("............ ..... 001 ..... 1110011", "csrrw", &[Ext::I], Call(csrrw)),
    row("............ ..... 010 ..... 1110011", "csrrs", &[Ext::I], Call(csrrs)),
    row("............ ..... 011 ..... 1110011", "csrrc", &[Ext::I], Call(csrrc)),
    row("............ ..... 101 ..... 1110011", "csrrwi", &[Ext::I], Call(csrrw)),
    row("............ ..... 110 ..... 1110011", "csrrsi", &[Ext::I], Call(csrrs)),
    row("............ ..... 111 ..... 1110011", "csrrci", &[Ext::I], Call(csrrc)),
];

/// ECALL (Environment Call and Breakpoint).
fn ecall(h: &mut H, _: Insn) -> Step {
    if h.arch.built_in_sbi && h.arch.mode == Priv::Supervisor && !h.arch.v {
        return super::sbi::call(h);
    }
    let code = match (h.arch.mode, h.arch.v) {
        (Priv::User, _) => cause::ECALL_U,
        (Priv::Supervisor, false) => cause::ECALL_S,
        (Priv::Supervisor, true) => cause::ECALL_VS,
        (Priv::Machine, _) => cause::ECALL_M,
    };
    Err(Stop::exception(code, 0))
}

/// EBREAK.
fn ebreak(h: &mut H, _: Insn) -> Step {
    Err(Stop::exception(cause::BREAKPOINT, h.core.pc))
}

/// MRET (Trap-Return Instructions).
fn mret(h: &mut H, _: Insn) -> Step {
    if h.arch.mode != Priv::Machine {
        return illegal();
    }
    trap::mret(h);
    Ok(())
}

/// MNRET (Smrnmi).
fn mnret(h: &mut H, _: Insn) -> Step {
    if h.arch.mode != Priv::Machine {
        return illegal();
    }
    trap::mnret(h);
    Ok(())
}

/// SRET (Trap-Return Instructions; for V=1 Virtual-Instruction Exceptions).
fn sret(h: &mut H, _: Insn) -> Step {
    let c = &h.arch.csr;
    match (h.arch.mode, h.arch.v) {
        (Priv::User, false) => illegal(),
        (Priv::User, true) => virtual_instruction(),
        (Priv::Supervisor, false) if mstatus::TSR.is(c.mstatus) => illegal(),
        (Priv::Supervisor, true) if hstatus::VTSR.is(c.hstatus) => virtual_instruction(),
        (Priv::Supervisor, true) => {
            trap::sret_in_guest(h);
            Ok(())
        }
        _ => {
            trap::sret(h);
            Ok(())
        }
    }
}

/// WFI (Wait for Interrupt). Its bound, where it has one, is 0.
fn wfi(h: &mut H, _: Insn) -> Step {
    let c = &h.arch.csr;
    let tw = mstatus::TW.is(c.mstatus);
    match (h.arch.mode, h.arch.v) {
        (Priv::Machine, _) => {}
        _ if tw => return illegal(),
        (Priv::User, false) if h.arch.cpu.has(Ext::S) => return illegal(),
        (Priv::User, true) => return virtual_instruction(),
        (Priv::Supervisor, true) if hstatus::VTW.is(c.hstatus) => return virtual_instruction(),
        _ => {}
    }
    if super::has_reason_to_wake(h) {
        return Ok(());
    }
    Err(Stop::of(StopKind::Wait))
}

/// SFENCE.VMA (Supervisor Memory-Management Fence Instruction), and SINVAL.VMA, which is as strong here.
fn sfence_vma(h: &mut H, i: Insn) -> Step {
    let c = &h.arch.csr;
    match (h.arch.mode, h.arch.v) {
        (Priv::User, false) => return illegal(),
        (Priv::User, true) => return virtual_instruction(),
        (Priv::Supervisor, false) if mstatus::TVM.is(c.mstatus) => return illegal(),
        (Priv::Supervisor, true) if hstatus::VTVM.is(c.hstatus) => return virtual_instruction(),
        _ => {}
    }
    let v = h.arch.v;
    let vmid = if v { hgatp::VMID.of(c.hgatp) } else { 0 };
    fence(h, i, v, vmid);
    Ok(())
}

/// Drops translations of the first stage: of the address in rs1, or of all; of the ASID in rs2, or of all.
fn fence(h: &mut H, i: Insn, guest: bool, vmid: u64) {
    let asid = (i.rs2() != 0).then(|| h.core.regs[i.rs2() as usize] & 0xffff);
    let va = (i.rs1() != 0).then(|| h.core.regs[i.rs1() as usize]);
    super::mmu::drop_first_stage(h, guest, vmid, asid, va);
}

/// SFENCE.W.INVAL and SFENCE.INVAL.IR: all is in order already.
fn sfence_order(h: &mut H, _: Insn) -> Step {
    match (h.arch.mode, h.arch.v) {
        (Priv::User, false) => illegal(),
        (Priv::User, true) => virtual_instruction(),
        _ => Ok(()),
    }
}

/// What hypervisor instructions have in common: none for guests, none for U-mode.
fn require_hypervisor(h: &H) -> Step {
    if h.arch.v {
        virtual_instruction()
    } else if h.arch.mode == Priv::User {
        illegal()
    } else {
        Ok(())
    }
}

/// HFENCE.VVMA (Hypervisor Memory-Management Fence Instructions), HINVAL.VVMA.
fn hfence_vvma(h: &mut H, i: Insn) -> Step {
    require_hypervisor(h)?;
    let vmid = hgatp::VMID.of(h.arch.csr.hgatp);
    fence(h, i, true, vmid);
    Ok(())
}

/// HFENCE.GVMA, HINVAL.GVMA: rs1 holds a guest-physical address shifted right by 2.
fn hfence_gvma(h: &mut H, i: Insn) -> Step {
    require_hypervisor(h)?;
    if h.arch.mode == Priv::Supervisor && mstatus::TVM.is(h.arch.csr.mstatus) {
        return illegal();
    }
    let vmid = (i.rs2() != 0).then(|| h.core.regs[i.rs2() as usize] & 0x3fff);
    let gpa = (i.rs1() != 0).then(|| h.core.regs[i.rs1() as usize] << 2);
    super::mmu::drop_second_stage(h, vmid, gpa);
    Ok(())
}

/// What HLV and HSV need (Hypervisor Virtual-Machine Load and Store Instructions).
fn require_guest_access(h: &H) -> Step {
    if h.arch.v {
        virtual_instruction()
    } else if h.arch.mode == Priv::User && !hstatus::HU.is(h.arch.csr.hstatus) {
        illegal()
    } else {
        Ok(())
    }
}

fn set(h: &mut Hart<Riscv>, rd: u8, value: u64) {
    if rd != 0 {
        h.core.regs[rd as usize] = value;
    }
}

/// HLV.width.
fn hlv<const SIZE: u8, const SIGNED: bool>(h: &mut H, i: Insn) -> Step {
    require_guest_access(h)?;
    let value = h.load(h.core.regs[i.rs1() as usize], SIZE, AS_GUEST)?;
    let shift = 64 - 8 * u32::from(SIZE);
    set(h, i.rd(), if SIGNED { ((value << shift) as i64 >> shift) as u64 } else { value });
    Ok(())
}

/// HLVX.HU, HLVX.WU.
fn hlvx<const SIZE: u8>(h: &mut H, i: Insn) -> Step {
    require_guest_access(h)?;
    let value = h.load(h.core.regs[i.rs1() as usize], SIZE, AS_GUEST_EXECUTE)?;
    set(h, i.rd(), value);
    Ok(())
}

/// HSV.width.
fn hsv<const SIZE: u8>(h: &mut H, i: Insn) -> Step {
    require_guest_access(h)?;
    h.store(h.core.regs[i.rs1() as usize], SIZE, h.core.regs[i.rs2() as usize], AS_GUEST)
}

/// The operand of a CSR instruction: rs1, or its number.
fn operand(h: &H, i: Insn) -> u64 {
    if i.rm() & 4 != 0 { i.rs1().into() } else { h.core.regs[i.rs1() as usize] }
}

/// CSRRW, CSRRWI (volume I, "Zicsr").
fn csrrw(h: &mut H, i: Insn) -> Step {
    let new = operand(h, i);
    let old = if i.rd() == 0 {
        csr_access::require_write(h, i.csr())?;
        0
    } else {
        csr_access::read(h, i.csr(), true)?
    };
    csr_access::write(h, i.csr(), new)?;
    set(h, i.rd(), old);
    Ok(())
}

/// Whether CSRRS and its like write: reading alone changes nothing that code depends on.
fn writes(i: Insn) -> bool {
    i.rs1() != 0
}

fn update(h: &mut H, i: Insn, f: impl FnOnce(u64, u64) -> u64) -> Step {
    let write = writes(i);
    let mask = operand(h, i);
    let old = csr_access::read(h, i.csr(), write)?;
    if write {
        let new = f(csr_access::base_for_update(h, i.csr(), old), mask);
        csr_access::write(h, i.csr(), new)?;
    }
    set(h, i.rd(), old);
    Ok(())
}

/// CSRRS, CSRRSI.
fn csrrs(h: &mut H, i: Insn) -> Step {
    update(h, i, |old, mask| old | mask)
}

/// CSRRC, CSRRCI.
fn csrrc(h: &mut H, i: Insn) -> Step {
    update(h, i, |old, mask| old & !mask)
}
