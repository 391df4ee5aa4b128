//! Pending interrupts, their priority, and whether one is taken (volume II, "Machine Interrupt Registers"; AIA, "Interrupts
//! for Machine and Supervisor Levels" and "Interrupts for Virtual Machines (VS Level)").

use emu_core::bus::VcpuSignal;
use emu_core::engine::{Hart, Step};
use emu_core::time::VirtualTime;

use super::counters;
use super::csr::{Csrs, envcfg, hvictl, mstatus};
use super::trap::{INTERRUPT, Target, take_interrupt_trap, take_nmi};
use crate::cpu::Ext;
use crate::hart::{HartExt, Priv, Riscv};
use crate::platform::aclint::{MESSAGE_TIME_OFFSET, NANOSECONDS_PER_TICK};
use crate::platform::imsic::FILE_S;

type H<'a> = Hart<'a, Riscv>;

/// Interrupt numbers and their bits.
pub mod irq {
    #![allow(missing_docs, reason = "the manual's names")]
    pub const SSI: u32 = 1;
    pub const VSSI: u32 = 2;
    pub const MSI: u32 = 3;
    pub const STI: u32 = 5;
    pub const VSTI: u32 = 6;
    pub const MTI: u32 = 7;
    pub const SEI: u32 = 9;
    pub const VSEI: u32 = 10;
    pub const MEI: u32 = 11;
    pub const SGEI: u32 = 12;
    pub const LCOFI: u32 = 13;

    pub const SSI_BIT: u64 = 1 << SSI;
    pub const VSSI_BIT: u64 = 1 << VSSI;
    pub const MSI_BIT: u64 = 1 << MSI;
    pub const STI_BIT: u64 = 1 << STI;
    pub const VSTI_BIT: u64 = 1 << VSTI;
    pub const MTI_BIT: u64 = 1 << MTI;
    pub const SEI_BIT: u64 = 1 << SEI;
    pub const VSEI_BIT: u64 = 1 << VSEI;
    pub const MEI_BIT: u64 = 1 << MEI;
    pub const SGEI_BIT: u64 = 1 << SGEI;
    pub const LCOFI_BIT: u64 = 1 << LCOFI;
    /// VS-level interrupts as mip, mie and hideleg number them.
    pub const VS_BITS: u64 = VSSI_BIT | VSTI_BIT | VSEI_BIT;
    /// Supervisor level.
    pub const S_BITS: u64 = SSI_BIT | STI_BIT | SEI_BIT;
    /// Machine level.
    pub const M_BITS: u64 = MSI_BIT | MTI_BIT | MEI_BIT;
    /// Interrupts that software can assert for lower levels: 13 to 63.
    pub const HIGH_BITS: u64 = !0x1fff;
}
use irq::*;

/// The pin of the resumable non-maskable interrupt (Smrnmi).
pub const NMI_PIN: u32 = 63;

/// "Default priority order for major interrupts", highest first; numbers for which the AIA gives no order come last.
const DEFAULT_ORDER: [u8; 64] = [
    47, 23, 46, 45, 22, 44, 43, 21, 42, 41, 20, 40, 11, 3, 7, 9, 1, 5, 12, 10, 2, 6, 13, 39, 19, 38, 37, 18, 36, 35,
    17, 34, 33, 16, 32, 63, 62, 61, 60, 59, 58, 57, 56, 55, 54, 53, 52, 51, 50, 49, 48, 31, 30, 29, 28, 27, 26, 25, 24,
    15, 14, 8, 4, 0,
];

const RANK: [u8; 64] = {
    let (mut rank, mut i) = ([0; 64], 0);
    while i < 64 {
        rank[DEFAULT_ORDER[i] as usize] = i as u8;
        i += 1;
    }
    rank
};

/// The lowest priority number: that of an interrupt below external ones by default.
const LOWEST: u16 = u16::MAX;
/// An external interrupt for which no controller gives a number.
const NO_NUMBER: u16 = 256;

/// An interrupt at the top of its level: what *topi tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Top {
    pub number: u32,
    /// 0 is the highest.
    priority: u16,
    rank: u8,
}

impl Top {
    /// The value of mtopi, stopi or vstopi.
    pub(crate) fn topi(self) -> u64 {
        u64::from(self.number) << 16 | u64::from(self.priority.min(255))
    }
}

/// Of the interrupts in `set`, the one that comes first. `external` has the priority that its controller says.
fn top(set: u64, priorities: impl Fn(u32) -> u8, external: u32, external_priority: u16) -> Option<Top> {
    let mut best: Option<Top> = None;
    let mut rest = set;
    while rest != 0 {
        let number = rest.trailing_zeros();
        rest &= rest - 1;
        let rank = RANK[number as usize];
        let priority = match priorities(number) {
            _ if number == external => external_priority,
            0 if rank < RANK[external as usize] => 0,
            0 => LOWEST,
            p => p.into(),
        };
        if best.is_none_or(|b| (priority, rank) < (b.priority, b.rank)) {
            best = Some(Top { number, priority, rank });
        }
    }
    best
}

fn file_priority(c: &Csrs, file: usize) -> u16 {
    match c.files.get(file).map(|f| f.top()) {
        Some(identity) if identity != 0 => identity as u16,
        _ => NO_NUMBER,
    }
}

/// hgeip: guest files that signal.
pub(crate) fn hgeip(c: &Csrs) -> u64 {
    c.files.iter().enumerate().skip(2).filter(|(_, f)| f.signals()).fold(0, |bits, (i, _)| bits | 1 << (i - 1))
}

/// Whether stimecmp takes effect (Sstc: menvcfg.STCE).
fn has_stimecmp(h: &H) -> bool {
    h.arch.cpu.has(Ext::Sstc) && envcfg::STCE.is(h.arch.csr.menvcfg)
}

/// Whether vstimecmp takes effect.
fn has_vstimecmp(h: &H) -> bool {
    h.arch.cpu.has(Ext::Sstc) && h.arch.cpu.has(Ext::H) && envcfg::STCE.is(h.arch.csr.henvcfg())
}

/// mip.
pub(crate) fn mip(h: &H) -> u64 {
    let c = &h.arch.csr;
    let mut mip = c.mip & (SSI_BIT | LCOFI_BIT) | c.pins & (M_BITS | SEI_BIT) | c.hvip & VS_BITS;
    if c.mvien & SEI_BIT == 0 {
        mip |= c.mip & SEI_BIT;
    }
    if has_stimecmp(h) {
        if h.mtime() >= c.stimecmp {
            mip |= STI_BIT;
        }
    } else {
        mip |= c.mip & STI_BIT;
    }
    if has_vstimecmp(h) && h.mtime().wrapping_add(c.htimedelta) >= c.vstimecmp {
        mip |= VSTI_BIT;
    }
    if !c.files.is_empty() {
        if c.files[0].signals() {
            mip |= MEI_BIT;
        }
        if c.files[1].signals() {
            mip |= SEI_BIT;
        }
        let hgeip = hgeip(c);
        if hgeip & c.hgeie != 0 {
            mip |= SGEI_BIT;
        }
        if hgeip >> super::csr::hstatus::VGEIN.of(c.hstatus) & 1 != 0 {
            mip |= VSEI_BIT;
        }
    }
    mip
}

/// Pending at supervisor level, VS-level ones with their own numbers included: sip and hip.
pub(crate) fn pending_s(c: &Csrs, mip: u64) -> u64 {
    let asserted = c.mvip & (SSI_BIT | HIGH_BITS) | c.mip & SEI_BIT;
    mip & c.mideleg | asserted & c.mvien & !c.mideleg
}

/// Enabled at supervisor level: sie and hie.
pub(crate) fn enabled_s(c: &Csrs) -> u64 {
    c.mie & c.mideleg | c.sie & c.mvien & !c.mideleg
}

/// vsip.
pub(crate) fn pending_vs(c: &Csrs, mip: u64) -> u64 {
    (mip & c.hideleg & VS_BITS) >> 1 | (pending_s(c, mip) & c.hideleg | c.hvip & c.hvien & !c.hideleg) & HIGH_BITS
}

/// vsie.
pub(crate) fn enabled_vs(c: &Csrs) -> u64 {
    (c.mie & c.hideleg & VS_BITS) >> 1 | (enabled_s(c) & c.hideleg | c.vsie & c.hvien & !c.hideleg) & HIGH_BITS
}

/// mtopi.
pub(crate) fn top_m(h: &H, mip: u64) -> Option<Top> {
    let c = &h.arch.csr;
    let set = mip & c.mie & !c.mideleg;
    if set == 0 {
        return None;
    }
    top(set, |n| c.miprio[n as usize], MEI, file_priority(c, 0))
}

/// stopi.
pub(crate) fn top_s(h: &H, mip: u64) -> Option<Top> {
    let c = &h.arch.csr;
    let set = pending_s(c, mip) & enabled_s(c) & !c.hideleg;
    if set == 0 {
        return None;
    }
    top(set, |n| c.siprio[n as usize], SEI, file_priority(c, 1))
}

/// vstopi: the candidates of AIA, "Virtual supervisor top interrupt CSR".
pub(crate) fn top_vs(h: &H, mip: u64) -> Option<Top> {
    let c = &h.arch.csr;
    let set = pending_vs(c, mip) & enabled_vs(c);
    let vti = hvictl::VTI.is(c.hvictl);
    if set == 0 && !vti {
        return None;
    }
    let (iid, iprio) = (hvictl::IID.of(c.hvictl) as u32, hvictl::IPRIO.of(c.hvictl) as u16);
    let external = (set & SEI_BIT != 0).then(|| {
        let of_file = c.guest_file().map(|f| c.files[f].top() as u16).filter(|p| *p != 0);
        let no_guest = super::csr::hstatus::VGEIN.of(c.hstatus) == 0;
        let of_hvictl = (no_guest && iid == SEI && iprio != 0).then_some(iprio);
        Top { number: SEI, priority: of_file.or(of_hvictl).unwrap_or(NO_NUMBER), rank: RANK[SEI as usize] }
    });
    let other = if !vti {
        top(set & !SEI_BIT, |n| hviprio(c, n), SEI, NO_NUMBER)
    } else if iid != SEI {
        let below = hvictl::DPR.is(c.hvictl);
        let priority = if iprio != 0 {
            iprio
        } else if below {
            LOWEST
        } else {
            0
        };
        Some(Top { number: iid, priority, rank: if below { u8::MAX } else { 0 } })
    } else {
        None
    };
    [external, other].into_iter().flatten().min_by_key(|t| (t.priority, t.rank))
}

/// The value of vstopi.
pub(crate) fn vstopi(h: &H, top: Top) -> u64 {
    if hvictl::IPRIOM.is(h.arch.csr.hvictl) { top.topi() } else { u64::from(top.number) << 16 | 1 }
}

/// Where hviprio1 and hviprio2 hold the priority of a VS-level interrupt: byte 0 to 15.
const HVIPRIO_BYTES: [u32; 16] = [64, 1, 64, 5, 64, 13, 14, 15, 16, 17, 18, 19, 20, 21, 22, 23];

fn hviprio(c: &Csrs, number: u32) -> u8 {
    match HVIPRIO_BYTES.iter().position(|n| *n == number) {
        Some(byte) => (c.hviprio[byte / 8] >> (8 * (byte % 8))) as u8,
        None => 0,
    }
}

/// The bytes of hviprio1 (0) and hviprio2 (1) that are there.
pub(crate) fn hviprio_mask(register: usize) -> u64 {
    (0..8).filter(|b| HVIPRIO_BYTES[register * 8 + b] != 64).fold(0, |mask, b| mask | 0xff << (8 * b))
}

/// An interrupt that is to be taken.
enum Due {
    Nmi,
    Interrupt(u32, Target),
}

/// The interrupt that is to be taken before the next instruction.
fn due(h: &H) -> Option<Due> {
    if !h.arch.nmie() {
        return None;
    }
    if h.arch.csr.pins >> NMI_PIN & 1 != 0 && h.arch.cpu.has(Ext::Smrnmi) {
        return Some(Due::Nmi);
    }
    let mip = mip(h);
    let (mode, v, c) = (h.arch.mode, h.arch.v, &h.arch.csr);
    if (mode != Priv::Machine || mstatus::MIE.is(c.mstatus))
        && let Some(top) = top_m(h, mip)
    {
        return Some(Due::Interrupt(top.number, Target::Machine));
    }
    if mode == Priv::Machine {
        return None;
    }
    if (v || mode == Priv::User || mstatus::SIE.is(c.mstatus))
        && let Some(top) = top_s(h, mip)
    {
        return Some(Due::Interrupt(top.number, Target::Hypervisor));
    }
    if v && (mode == Priv::User || mstatus::SIE.is(c.vsstatus))
        && let Some(top) = top_vs(h, mip)
    {
        return Some(Due::Interrupt(top.number, Target::Guest));
    }
    None
}

/// See [`Arch::interrupt`](emu_core::engine::Arch::interrupt).
pub(crate) fn take_interrupt(h: &mut H) -> Step {
    super::sbi::resumed(h);
    match due(h) {
        None => Ok(()),
        Some(Due::Nmi) => {
            h.arch.csr.pins &= !(1 << NMI_PIN);
            take_nmi(h, INTERRUPT);
            Ok(())
        }
        Some(Due::Interrupt(number, target)) => take_interrupt_trap(h, number, target),
    }
}

/// Something that interrupts depend on has changed: if one is to be taken now, the block ends here.
pub(crate) fn look_again(h: &mut H) {
    if due(h).is_some() {
        h.core.check_interrupts = true;
        h.core.leave = true;
    }
}

/// Whether WFI ends (AIA, "WFI (Wait for Interrupt) instruction"): an interrupt is pending at any level, whatever the
/// global enables say.
pub(crate) fn has_reason_to_wake(h: &H) -> bool {
    let mip = mip(h);
    let c = &h.arch.csr;
    mip & c.mie != 0 || c.pins >> NMI_PIN & 1 != 0 || pending_s(c, mip) & enabled_s(c) != 0 || top_vs(h, mip).is_some()
}

/// See [`Arch::signal`](emu_core::engine::Arch::signal).
pub(crate) fn signal(h: &mut H, signal: VcpuSignal) {
    match signal {
        // SSWI's line is high for a moment: an edge sets mip.SSIP.
        VcpuSignal::Pin { pin: SSI, level } => h.arch.csr.mip |= if level { SSI_BIT } else { 0 },
        VcpuSignal::Pin { pin, level } => {
            let bit = 1u64 << (pin & 63);
            let pins = &mut h.arch.csr.pins;
            *pins = if level { *pins | bit } else { *pins & !bit };
        }
        VcpuSignal::Message { message: MESSAGE_TIME_OFFSET, value } => h.arch.csr.time_offset = value,
        VcpuSignal::Message { message: super::sbi::MESSAGE_IPI, .. } => h.arch.csr.mip |= SSI_BIT,
        VcpuSignal::Message { message: super::sbi::MESSAGE_START, .. } => super::sbi::started(h),
        VcpuSignal::Message { message: message @ super::sbi::MESSAGE_FENCE.., value } => {
            super::sbi::fence(h, message, value);
        }
        VcpuSignal::Words { .. } => {}
        VcpuSignal::Message { message, value } => {
            if let Some(file) = h.arch.csr.files.get_mut(message as usize) {
                file.set_pending(value as u32);
                if message > FILE_S {
                    let details = [("file", u64::from(message - FILE_S)), ("identity", value)];
                    super::trap::note_injection(h, VSEI, &details);
                }
                debug_assert!(message <= FILE_S || h.arch.cpu.geilen + FILE_S >= message);
            }
        }
    }
    h.core.check_interrupts = true;
}

/// See [`Arch::tick`](emu_core::engine::Arch::tick).
pub(crate) fn tick(h: &mut H) {
    let now = counters::Now::of(h);
    if h.arch.csr.counters.see_to_overflows(now) {
        h.arch.csr.mip |= LCOFI_BIT;
    }
    if h.arch.sbi_timer.is_some_and(|t| t <= h.mtime()) {
        h.arch.sbi_timer = None;
        h.arch.csr.mip |= STI_BIT;
    }
    h.core.check_interrupts = true;
}

/// See [`Arch::wakes_at`](emu_core::engine::Arch::wakes_at): the next timer, or the earliest point at which a counter can
/// overflow.
pub(crate) fn wakes_at(h: &H) -> Option<VirtualTime> {
    let c = &h.arch.csr;
    let mtime = h.mtime();
    let now_tick = mtime.wrapping_sub(c.time_offset);
    let after = |ticks: u64| now_tick.checked_add(ticks)?.checked_mul(NANOSECONDS_PER_TICK);
    let mut next = None;
    if has_stimecmp(h) && c.stimecmp > mtime {
        next = after(c.stimecmp - mtime);
    }
    if let Some(at) = h.arch.sbi_timer {
        // One that is due already gets its tick at once.
        next = after(at.saturating_sub(mtime)).map(|t| t.max(h.now() + 1));
    }
    if has_vstimecmp(h) {
        let time = mtime.wrapping_add(c.htimedelta);
        if c.vstimecmp > time {
            next = [next, after(c.vstimecmp - time)].into_iter().flatten().min();
        }
    }
    if let Some(instructions) = c.counters.until_overflow(counters::Now::of(h)) {
        let frequency = h.world.frequency;
        let at = frequency.time_of(h.core.count().saturating_add(instructions)).max(h.now() + 1);
        next = Some(next.map_or(at, |n| n.min(at)));
    }
    next
}
