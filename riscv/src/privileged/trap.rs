//! Taking traps and returning from them (volume II, "Trap" sections of machine, supervisor and hypervisor level).

use emu_core::engine::{Hart, Step, Stop, StopKind};
use emu_core::event::{Event, Kind};

use super::csr::{envcfg, hstatus, mnstatus, mstatus};
use super::{cause, irq};
use crate::cpu::Ext;
use crate::hart::{FaultDetails, Priv, Riscv};

type H<'a> = Hart<'a, Riscv>;

/// Bit 63 of *cause.
pub(crate) const INTERRUPT: u64 = 1 << 63;

/// The manual's name of an exception code.
pub fn cause_name(code: u32) -> &'static str {
    match code {
        0 => "instruction-address-misaligned",
        1 => "instruction-access-fault",
        2 => "illegal-instruction",
        3 => "breakpoint",
        4 => "load-address-misaligned",
        5 => "load-access-fault",
        6 => "store-address-misaligned",
        7 => "store-access-fault",
        8 => "ecall-from-u",
        9 => "ecall-from-s",
        10 => "ecall-from-vs",
        11 => "ecall-from-m",
        12 => "instruction-page-fault",
        13 => "load-page-fault",
        15 => "store-page-fault",
        16 => "double-trap",
        20 => "instruction-guest-page-fault",
        21 => "load-guest-page-fault",
        22 => "virtual-instruction",
        23 => "store-guest-page-fault",
        _ => "reserved-exception",
    }
}

/// The manual's name of an interrupt.
pub fn interrupt_name(number: u32) -> &'static str {
    match number {
        1 => "supervisor-software-interrupt",
        2 => "virtual-supervisor-software-interrupt",
        3 => "machine-software-interrupt",
        5 => "supervisor-timer-interrupt",
        6 => "virtual-supervisor-timer-interrupt",
        7 => "machine-timer-interrupt",
        9 => "supervisor-external-interrupt",
        10 => "virtual-supervisor-external-interrupt",
        11 => "machine-external-interrupt",
        12 => "supervisor-guest-external-interrupt",
        13 => "counter-overflow-interrupt",
        _ => "other-interrupt",
    }
}

/// Where statistics count an interrupt: behind the exceptions.
pub const INTERRUPT_REASONS: u32 = 64;

/// A trap that is to be taken.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Trap {
    /// Exception code or interrupt number.
    pub code: u32,
    pub interrupt: bool,
    /// For *tval.
    pub tval: u64,
    /// For mtval2 and htval, shifted as they want it.
    pub tval2: u64,
    /// For mtinst and htinst.
    pub tinst: u64,
    /// tval is a guest virtual address.
    pub gva: bool,
}

impl Trap {
    pub(crate) fn interrupt(number: u32) -> Self {
        Trap { code: number, interrupt: true, tval: 0, tval2: 0, tinst: 0, gva: false }
    }

    fn cause(&self) -> u64 {
        u64::from(self.code) | if self.interrupt { INTERRUPT } else { 0 }
    }
}

/// Where a trap goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Target {
    Machine,
    Hypervisor,
    Guest,
}

/// See [`Arch::trap`](emu_core::engine::Arch::trap).
pub(crate) fn take_exception(h: &mut H, stop: Stop) -> Step {
    let fault = std::mem::take(&mut h.arch.fault);
    let c = &mut h.arch.csr;
    c.counters.traps += 1;
    c.counters.count(super::counters::Event::Exception);
    let code = stop.code();
    let tval = match code {
        cause::ILLEGAL_INSTRUCTION | cause::VIRTUAL_INSTRUCTION => h.core.note.into(),
        _ => stop.value,
    };
    let is_address = matches!(code, 0 | 1 | 3..=7 | 12..=15 | 20 | 21 | 23);
    let is_guest_page = matches!(code, 20 | 21 | 23);
    let trap = Trap {
        code,
        interrupt: false,
        tval,
        tval2: if is_guest_page { fault.gpa >> 2 } else { 0 },
        tinst: trap_instruction(h, code, tval, &fault),
        gva: is_address && (h.arch.v || fault.as_guest),
    };
    // Exceptions are delegated by medeleg, and a guest's by hedeleg ("Machine Trap Delegation", "Hypervisor Trap
    // Delegation").
    let bit = 1u64 << code;
    let target = if h.arch.mode == Priv::Machine || h.arch.csr.medeleg & bit == 0 {
        Target::Machine
    } else if h.arch.v && h.arch.csr.hedeleg & bit != 0 {
        Target::Guest
    } else {
        Target::Hypervisor
    };
    take(h, trap, target)
}

/// "Transformed Instruction or Pseudoinstruction for mtinst or htinst".
fn trap_instruction(h: &H, code: u32, tval: u64, fault: &FaultDetails) -> u64 {
    if fault.pseudo != 0 {
        return fault.pseudo.into();
    }
    if !matches!(code, 4..=7 | 13 | 15 | 21 | 23) {
        return 0;
    }
    let raw = h.core.note;
    let compressed = raw & 3 != 3;
    let Some(insn) = (if compressed { crate::isa::expand(raw as u16, &h.arch.cpu) } else { Some(raw) }) else {
        return 0;
    };
    // Where rs1 stood, the distance from the access's address to the faulting one.
    let base = h.core.regs[(insn >> 15 & 31) as usize];
    let (keep, offset) = match insn & 0x7f {
        0x03 | 0x07 => (0x0000_7fff, crate::isa::Insn(insn).imm_i()),
        0x23 | 0x27 => (0x01f0_707f, crate::isa::Insn(insn).imm_s()),
        0x2f | 0x73 => (0xfff0_7fff, 0),
        0x0f => (0xfff0_7fff, 0),
        _ => return 0,
    };
    let distance = tval.wrapping_sub(base.wrapping_add(offset as i64 as u64));
    let distance = if distance < 32 && insn & 0x7f != 0x0f { distance as u32 } else { 0 };
    let transformed = insn & keep | distance << 15;
    u64::from(if compressed { transformed & !2 } else { transformed })
}

/// Takes a trap.
pub(crate) fn take(h: &mut H, trap: Trap, target: Target) -> Step {
    note_event(h, &trap, target);
    match target {
        Target::Machine => to_machine(h, trap),
        Target::Hypervisor => {
            // Double Trap Control in sstatus: a trap while SDT is set goes to M-mode.
            if double_trap_enabled(h, false) && mstatus::SDT.is(h.arch.csr.mstatus) {
                return double_trap(h, trap);
            }
            to_hypervisor(h, trap);
            Ok(())
        }
        Target::Guest => {
            if double_trap_enabled(h, true) && mstatus::SDT.is(h.arch.csr.vsstatus) {
                return double_trap(h, trap);
            }
            to_guest(h, trap);
            Ok(())
        }
    }
}

/// Whether sstatus.SDT (or vsstatus.SDT) is there (Ssdbltrp).
pub(crate) fn double_trap_enabled(h: &H, guest: bool) -> bool {
    let config = if guest { h.arch.csr.henvcfg() } else { h.arch.csr.menvcfg };
    h.arch.cpu.has(Ext::Ssdbltrp) && envcfg::DTE.is(config)
}

fn double_trap(h: &mut H, trap: Trap) -> Step {
    let double = Trap { code: cause::DOUBLE_TRAP, interrupt: false, tval2: trap.cause(), ..trap };
    to_machine(h, double)
}

/// Changes the privilege mode.
pub(crate) fn set_mode(h: &mut H, mode: Priv, v: bool) {
    let now = super::counters::Now::of(h);
    change_mode(h, mode, v, now);
}

/// Likewise; counters of the present mode count up to `now`.
fn change_mode(h: &mut H, mode: Priv, v: bool, now: super::counters::Now) {
    if h.arch.v != v {
        let level = 1 + u8::from(h.arch.v);
        h.count_level(level);
        let (from, to) = (usize::from(level), 1 + usize::from(v));
        h.world.events.stats.switches[from][to] += 1;
        if v {
            let retired = h.core.retired();
            h.world.events.end_handling(h.core.index, retired);
        }
        if h.world.events.is_on() {
            let name = if v { "enter" } else { "leave" };
            let details = [("to", to as u64), ("mode", mode as u64)];
            let event = Event { details: &details, to: Some(to as u8), ..h.event(Kind::Switch, name) };
            h.world.events.send(&event);
        }
    }
    if h.arch.csr.counters.is_filtered() {
        h.arch.csr.counters.settle(now);
    }
    h.arch.mode = mode;
    h.arch.v = v;
    if h.arch.csr.counters.is_filtered() {
        h.arch.csr.counters.update(mode, v);
        h.core.call_for_attention();
    }
    h.core.spaces_changed = true;
    h.core.check_interrupts = true;
}

fn vector(tvec: u64, trap: &Trap) -> u64 {
    let base = tvec & !3;
    if tvec & 1 != 0 && trap.interrupt { base + 4 * u64::from(trap.code) } else { base }
}

fn to_machine(h: &mut H, trap: Trap) -> Step {
    let (mode, v) = (h.arch.mode, h.arch.v);
    if h.arch.built_in_sbi {
        return Err(Stop::new(StopKind::Shutdown, trap.code, h.core.pc));
    }
    let nmie = h.arch.nmie();
    if h.arch.cpu.has(Ext::Smdbltrp) {
        // Double Trap Control in mstatus.
        let unexpected = mstatus::MDT.is(h.arch.csr.mstatus) || !nmie && mode == Priv::Machine;
        if unexpected && h.arch.cpu.has(Ext::Smrnmi) && nmie {
            take_nmi(h, trap.cause());
            return Ok(());
        }
        if unexpected {
            return Err(Stop::new(StopKind::Shutdown, trap.code, h.core.pc));
        }
    }
    let c = &mut h.arch.csr;
    c.mepc = h.core.pc;
    c.mcause = trap.cause();
    c.mtval = trap.tval;
    c.mtval2 = trap.tval2;
    c.mtinst = trap.tinst;
    let s = &mut c.mstatus;
    mstatus::MPIE.put(s, mstatus::MIE.of(*s));
    mstatus::MIE.put(s, 0);
    mstatus::MPP.put(s, mode as u64);
    mstatus::MPV.put(s, v.into());
    mstatus::GVA.put(s, trap.gva.into());
    if h.arch.cpu.has(Ext::Smdbltrp) {
        mstatus::MDT.put(&mut h.arch.csr.mstatus, 1);
    }
    // An exception while NMIE is clear goes to the RNMI exception handler: that of mtvec here.
    h.core.pc = vector(h.arch.csr.mtvec, &trap);
    set_mode(h, Priv::Machine, false);
    Ok(())
}

fn to_hypervisor(h: &mut H, trap: Trap) {
    let (mode, v) = (h.arch.mode, h.arch.v);
    let sdt = double_trap_enabled(h, false);
    let c = &mut h.arch.csr;
    c.sepc = h.core.pc;
    c.scause = trap.cause();
    c.stval = trap.tval;
    c.htval = trap.tval2;
    c.htinst = trap.tinst;
    hstatus::SPV.put(&mut c.hstatus, v.into());
    if v {
        hstatus::SPVP.put(&mut c.hstatus, mode as u64);
    }
    hstatus::GVA.put(&mut c.hstatus, trap.gva.into());
    let s = &mut c.mstatus;
    mstatus::SPIE.put(s, mstatus::SIE.of(*s));
    mstatus::SIE.put(s, 0);
    mstatus::SPP.put(s, mode as u64);
    if sdt {
        mstatus::SDT.put(s, 1);
    }
    h.core.pc = vector(h.arch.csr.stvec, &trap);
    set_mode(h, Priv::Supervisor, false);
}

fn to_guest(h: &mut H, trap: Trap) {
    let mode = h.arch.mode;
    let sdt = double_trap_enabled(h, true);
    // Interrupts of VS-level have the numbers there that they have at supervisor level.
    let c = &mut h.arch.csr;
    c.vsepc = h.core.pc;
    c.vscause = trap.cause();
    c.vstval = trap.tval;
    let s = &mut c.vsstatus;
    mstatus::SPIE.put(s, mstatus::SIE.of(*s));
    mstatus::SIE.put(s, 0);
    mstatus::SPP.put(s, mode as u64);
    if sdt {
        mstatus::SDT.put(s, 1);
    }
    h.core.pc = vector(h.arch.csr.vstvec, &trap);
    set_mode(h, Priv::Supervisor, true);
}

/// A resumable non-maskable interrupt, or an unexpected trap that is delivered as one (Smrnmi).
pub(crate) fn take_nmi(h: &mut H, mncause: u64) {
    let (mode, v) = (h.arch.mode, h.arch.v);
    let c = &mut h.arch.csr;
    c.mnepc = h.core.pc;
    c.mncause = mncause;
    let s = &mut c.mnstatus;
    mnstatus::MNPP.put(s, mode as u64);
    mnstatus::MNPV.put(s, v.into());
    mnstatus::NMIE.put(s, 0);
    h.core.pc = c.mtvec & !3;
    set_mode(h, Priv::Machine, false);
}

/// MRET (Trap-Return Instructions).
pub(crate) fn mret(h: &mut H) {
    let c = &mut h.arch.csr;
    let s = &mut c.mstatus;
    let mode = Priv::from_bits(mstatus::MPP.of(*s));
    let v = mode != Priv::Machine && mstatus::MPV.is(*s);
    mstatus::MIE.put(s, mstatus::MPIE.of(*s));
    mstatus::MPIE.put(s, 1);
    mstatus::MPP.put(s, Priv::User as u64);
    mstatus::MPV.put(s, 0);
    mstatus::MDT.put(s, 0);
    if mode != Priv::Machine {
        mstatus::MPRV.put(s, 0);
    }
    h.core.next_pc = c.mepc;
    forget_disabled_traps(h, mode, v);
    returned(h, "mret", mode, v);
}

/// MRET, SRET and MNRET to a less privileged mode end the state in which a trap is unexpected there (Ssdbltrp).
fn forget_disabled_traps(h: &mut H, mode: Priv, v: bool) {
    if mode == Priv::User || v {
        mstatus::SDT.put(&mut h.arch.csr.mstatus, 0);
        if mode == Priv::User && v {
            mstatus::SDT.put(&mut h.arch.csr.vsstatus, 0);
        }
    }
}

/// SRET in M- or HS-mode.
pub(crate) fn sret(h: &mut H) {
    let from_machine = h.arch.mode == Priv::Machine;
    let c = &mut h.arch.csr;
    let s = &mut c.mstatus;
    let mode = Priv::from_bits(mstatus::SPP.of(*s));
    let v = hstatus::SPV.is(c.hstatus);
    hstatus::SPV.put(&mut c.hstatus, 0);
    mstatus::SIE.put(s, mstatus::SPIE.of(*s));
    mstatus::SPIE.put(s, 1);
    mstatus::SPP.put(s, 0);
    mstatus::MPRV.put(s, 0);
    mstatus::SDT.put(s, 0);
    if from_machine {
        mstatus::MDT.put(s, 0);
    }
    h.core.next_pc = c.sepc;
    forget_disabled_traps(h, mode, v);
    returned(h, "sret", mode, v);
}

/// SRET in VS-mode.
pub(crate) fn sret_in_guest(h: &mut H) {
    let c = &mut h.arch.csr;
    let s = &mut c.vsstatus;
    let mode = Priv::from_bits(mstatus::SPP.of(*s));
    mstatus::SIE.put(s, mstatus::SPIE.of(*s));
    mstatus::SPIE.put(s, 1);
    mstatus::SPP.put(s, 0);
    mstatus::SDT.put(s, 0);
    h.core.next_pc = c.vsepc;
    returned(h, "sret", mode, true);
}

/// MNRET (Smrnmi).
pub(crate) fn mnret(h: &mut H) {
    let c = &mut h.arch.csr;
    let mode = Priv::from_bits(mnstatus::MNPP.of(c.mnstatus));
    let v = mode != Priv::Machine && mnstatus::MNPV.is(c.mnstatus);
    mnstatus::NMIE.put(&mut c.mnstatus, 1);
    if mode != Priv::Machine {
        mstatus::MPRV.put(&mut c.mstatus, 0);
        mstatus::MDT.put(&mut c.mstatus, 0);
    }
    h.core.next_pc = c.mnepc;
    forget_disabled_traps(h, mode, v);
    returned(h, "mnret", mode, v);
}

fn returned(h: &mut H, name: &str, mode: Priv, v: bool) {
    if h.world.events.is_on() {
        let to = h.core.next_pc;
        send(h, Kind::Return, name, &[("to", to), ("mode", mode as u64), ("v", v.into())]);
    }
    let now = super::counters::Now::of(h).after();
    change_mode(h, mode, v, now);
}

fn note_event(h: &mut H, trap: &Trap, target: Target) {
    let level = 1 + u8::from(h.arch.v);
    let reason = trap.code + if trap.interrupt { INTERRUPT_REASONS } else { 0 };
    h.world.events.count_exit(level, reason);
    if h.arch.v && target != Target::Guest {
        let retired = h.core.retired();
        h.world.events.begin_handling(h.core.index, level, reason, retired);
    }
    if h.world.events.is_on() {
        let (kind, name) = if trap.interrupt {
            (Kind::Interrupt, interrupt_name(trap.code))
        } else {
            (Kind::Trap, cause_name(trap.code))
        };
        let to = match target {
            Target::Machine => 3,
            Target::Hypervisor => 1,
            Target::Guest => 5,
        };
        let details = [
            ("mode", h.arch.mode as u64),
            ("to", to),
            ("tval", trap.tval),
            ("gpa", trap.tval2 << 2),
            ("tinst", trap.tinst),
        ];
        let n = if trap.interrupt { 2 } else { 5 };
        send(h, kind, name, &details[..n]);
    }
}

/// An interrupt has been made pending for a guest.
pub(crate) fn note_injection(h: &mut H, number: u32, details: &[(&'static str, u64)]) {
    const GUEST: u8 = 2;
    h.world.events.count_injection(GUEST, number + INTERRUPT_REASONS);
    if h.world.events.is_on() {
        send(h, Kind::Injection, interrupt_name(number), details);
    }
}

pub(crate) fn send(h: &mut H, kind: Kind, name: &str, details: &[(&'static str, u64)]) {
    let event = Event { details, ..h.event(kind, name) };
    h.world.events.send(&event);
}

/// Takes an interrupt that has been chosen.
pub(crate) fn take_interrupt_trap(h: &mut H, number: u32, target: Target) -> Step {
    h.arch.csr.counters.count(super::counters::Event::Interrupt);
    debug_assert!(target != Target::Guest || irq::VS_BITS >> number & 1 == 0);
    take(h, Trap::interrupt(number), target)
}
