//! Access to CSRs: who may, what is read, what a write changes (volume II, "Control and Status Registers (CSRs)").

use emu_core::engine::Step;

use super::aia::{self, Window};
use super::counters::{COUNTER_BITS, COUNTERS, Now};
use super::csr::{envcfg, hgatp, hstatus, hvictl, mnstatus, mseccfg, mstatus, satp, stateen};
use super::interrupt::{
    enabled_s, enabled_vs, hgeip, hviprio_mask, look_again, mip, pending_s, pending_vs, top_m, top_s, top_vs, vstopi,
};
use super::irq::*;
use super::trap::double_trap_enabled;
use super::virtual_instruction;
use crate::cpu::{CpuConfig, Ext, PMP_ENTRIES};
use crate::hart::{HartExt, Priv, Riscv};
use crate::isa::{H, illegal};

macro_rules! numbers {
    ($($number:literal $name:ident)*) => {
        /// Numbers of CSRs.
        #[allow(non_upper_case_globals, dead_code, reason = "the manual's names; some occur in ranges only")]
        pub(crate) mod n { $(pub(crate) const $name: u16 = $number;)* }
        /// All CSRs that are known by name: number and name. Counters and PMP entries beyond the first follow them.
        pub const CSR_NAMES: &[(u16, &str)] = &[$(($number, stringify!($name))),*];
    };
}

numbers! {
    0x001 fflags 0x002 frm 0x003 fcsr 0x015 seed
    0x100 sstatus 0x104 sie 0x105 stvec 0x106 scounteren 0x10a senvcfg 0x10c sstateen0 0x120 scountinhibit
    0x140 sscratch 0x141 sepc 0x142 scause 0x143 stval 0x144 sip 0x14d stimecmp 0x150 siselect 0x151 sireg 0x152 sireg2
    0x153 sireg3 0x155 sireg4 0x156 sireg5 0x157 sireg6 0x15c stopei 0x180 satp 0xda0 scountovf 0xdb0 stopi
    0x200 vsstatus 0x204 vsie 0x205 vstvec 0x240 vsscratch 0x241 vsepc 0x242 vscause 0x243 vstval 0x244 vsip
    0x24d vstimecmp 0x250 vsiselect 0x251 vsireg 0x252 vsireg2 0x253 vsireg3 0x255 vsireg4 0x256 vsireg5 0x257 vsireg6
    0x25c vstopei 0x280 vsatp 0xeb0 vstopi
    0x300 mstatus 0x301 misa 0x302 medeleg 0x303 mideleg 0x304 mie 0x305 mtvec 0x306 mcounteren 0x308 mvien 0x309 mvip
    0x30a menvcfg 0x30c mstateen0 0x320 mcountinhibit 0x321 mcyclecfg 0x322 minstretcfg 0x340 mscratch 0x341 mepc
    0x342 mcause 0x343 mtval 0x344 mip 0x34a mtinst 0x34b mtval2 0x350 miselect 0x351 mireg 0x352 mireg2 0x353 mireg3
    0x355 mireg4 0x356 mireg5 0x357 mireg6 0x35c mtopei 0xfb0 mtopi 0x3a0 pmpcfg0 0x3b0 pmpaddr0
    0x600 hstatus 0x602 hedeleg 0x603 hideleg 0x604 hie 0x605 htimedelta 0x606 hcounteren 0x607 hgeie 0x608 hvien
    0x609 hvictl 0x60a henvcfg 0x60c hstateen0 0x643 htval 0x644 hip 0x645 hvip 0x646 hviprio1 0x647 hviprio2
    0x64a htinst 0x680 hgatp 0xe12 hgeip
    0x740 mnscratch 0x741 mnepc 0x742 mncause 0x744 mnstatus 0x747 mseccfg
    0x7a0 tselect 0x7a1 tdata1 0x7a2 tdata2 0x7a3 tdata3 0x7a4 tinfo
    0xb00 mcycle 0xb02 minstret 0xc00 cycle 0xc01 time 0xc02 instret
    0xf11 mvendorid 0xf12 marchid 0xf13 mimpid 0xf14 mhartid 0xf15 mconfigptr
}

/// Bits of mstatus that software writes, F and H granted.
const MSTATUS: u64 = mstatus::SIE.mask()
    | mstatus::MIE.mask()
    | mstatus::SPIE.mask()
    | mstatus::MPIE.mask()
    | mstatus::SPP.mask()
    | mstatus::FS.mask()
    | mstatus::MPRV.mask()
    | mstatus::SUM.mask()
    | mstatus::MXR.mask()
    | mstatus::TVM.mask()
    | mstatus::TW.mask()
    | mstatus::TSR.mask();
/// Of these, those that sstatus and vsstatus show.
const SSTATUS: u64 = mstatus::SIE.mask()
    | mstatus::SPIE.mask()
    | mstatus::SPP.mask()
    | mstatus::FS.mask()
    | mstatus::SUM.mask()
    | mstatus::MXR.mask();
/// hedeleg: exceptions that VS-mode can have delegated ("Hypervisor Trap Delegation Registers").
const HEDELEG: u64 = 0x1ff | 1 << 12 | 1 << 13 | 1 << 15 | 1 << 18 | 1 << 19;

/// misa.
pub(crate) fn misa(cpu: &CpuConfig) -> u64 {
    let letters = [
        (Ext::I, 'i'),
        (Ext::M, 'm'),
        (Ext::A, 'a'),
        (Ext::F, 'f'),
        (Ext::D, 'd'),
        (Ext::C, 'c'),
        (Ext::U, 'u'),
        (Ext::S, 's'),
        (Ext::H, 'h'),
    ];
    letters.iter().filter(|(e, _)| cpu.has(*e)).fold(2 << 62, |m, (_, l)| m | 1 << (*l as u8 - b'a'))
}

fn with_sd(status: u64) -> u64 {
    status | if mstatus::FS.of(status) == 3 { mstatus::SD.mask() } else { 0 }
}

fn has_s(h: &H) -> bool {
    h.arch.cpu.has(Ext::S)
}

/// The extension that a CSR belongs to, beside those of its privilege level; `None` for a CSR that there is not.
fn extension(number: u16) -> Option<Ext> {
    Some(match number {
        n::fflags..=n::fcsr => Ext::F,
        n::seed => Ext::Zkr,
        n::cycle..=n::instret | n::mcycle | n::minstret => Ext::Zicntr,
        0xc03..=0xc1f | 0xb03..=0xb1f | 0x323..=0x33f => Ext::Zihpm,
        n::mcyclecfg | n::minstretcfg => Ext::Smcntrpmf,
        n::scountovf => Ext::Sscofpmf,
        n::scountinhibit => Ext::Ssccfg,
        n::stimecmp | n::vstimecmp => Ext::Sstc,
        n::mstateen0..=0x30f => Ext::Smstateen,
        n::hstateen0..=0x60f | n::sstateen0..=0x10f => Ext::Ssstateen,
        n::siselect..=n::sireg3 | n::sireg4..=n::sireg6 | n::vsiselect..=n::vsireg3 | n::vsireg4..=n::vsireg6 => {
            Ext::Sscsrind
        }
        n::miselect..=n::mireg3 | n::mireg4..=n::mireg6 => Ext::Smcsrind,
        n::stopi | n::stopei | n::vstopi | n::vstopei | n::hvien | n::hvictl | n::hviprio1 | n::hviprio2 => Ext::Ssaia,
        n::mvien | n::mvip | n::mtopi | n::mtopei => Ext::Smaia,
        0x3a0..=0x3ef => Ext::Smpmp,
        n::mnscratch..=n::mncause | n::mnstatus => Ext::Smrnmi,
        n::mtinst => Ext::H,
        n::mtval2 => Ext::I,
        n::medeleg | n::mideleg => Ext::S,
        n::menvcfg | n::mcounteren => Ext::U,
        0x200..=0x2ff | 0x600..=0x6ff | 0xe00..=0xeff => Ext::H,
        0x100..=0x1ff | 0xd00..=0xdff => Ext::S,
        _ => Ext::I,
    })
}

/// A bit for each number in [`CSR_NAMES`].
const KNOWN: [u64; 64] = {
    let (mut known, mut i) = ([0; 64], 0);
    while i < CSR_NAMES.len() {
        known[CSR_NAMES[i].0 as usize / 64] |= 1 << (CSR_NAMES[i].0 % 64);
        i += 1;
    }
    known
};

/// Whether a CSR is there, whoever asks. It is asked when an access is lifted.
pub(crate) fn exists(hart: &Riscv, number: u16) -> bool {
    let cpu = &hart.cpu;
    let by_name = KNOWN[usize::from(number / 64)] >> (number % 64) & 1 != 0;
    let in_row = matches!(number, 0xc03..=0xc1f | 0xb03..=0xb1f | 0x323..=0x33f | 0x3a0..=0x3af | 0x3b0..=0x3ef
        | 0x30c..=0x30f | 0x60c..=0x60f | 0x10c..=0x10f)
        && !(matches!(number, 0x3a0..=0x3af) && number % 2 == 1);
    let level = match number >> 8 & 3 {
        1 => Ext::S,
        2 => Ext::H,
        _ => Ext::I,
    };
    let needs_h = matches!(number, n::mtinst);
    (by_name || in_row)
        && cpu.has(level)
        && extension(number).is_none_or(|e| cpu.has(e))
        && (!needs_h || cpu.has(Ext::H))
        && (number != n::mtval2 || cpu.has(Ext::H) || cpu.has(Ext::Ssdbltrp))
        && (!matches!(number, n::mtopei | n::stopei | n::vstopei) || !hart.csr.files.is_empty() || number == n::vstopei)
        && (number != n::mseccfg || cpu.has(Ext::Zkr))
}

/// Whether a CSR is of those that only the privilege level decides on.
fn has_no_rule_of_its_own(number: u16) -> bool {
    const NUMBERS: [u16; 19] = [
        n::sstatus,
        n::stvec,
        n::scounteren,
        n::sscratch,
        n::sepc,
        n::scause,
        n::stval,
        n::hstatus,
        n::htval,
        n::htinst,
        n::hedeleg,
        n::hideleg,
        n::hcounteren,
        n::vsstatus,
        n::vstvec,
        n::vsscratch,
        n::vsepc,
        n::vscause,
        n::vstval,
    ];
    const SET: [u64; 64] = {
        let (mut set, mut i) = ([0; 64], 0);
        while i < NUMBERS.len() {
            set[NUMBERS[i] as usize / 64] |= 1 << (NUMBERS[i] % 64);
            i += 1;
        }
        set
    };
    SET[usize::from(number / 64)] >> (number % 64) & 1 != 0
}

/// Whether the hart may access a CSR that is there ("CSR Address Mapping Conventions"; for V=1 "Virtual-Instruction
/// Exceptions").
fn require_access(h: &H, number: u16, write: bool) -> Step {
    debug_assert!(exists(h.arch, number));
    let (mode, v) = (h.arch.mode, h.arch.v);
    let lowest = number >> 8 & 3;
    let c = &h.arch.csr;
    if mode == Priv::Supervisor && !v && has_no_rule_of_its_own(number) {
        return Ok(());
    }
    if write && number >> 10 == 3 {
        return illegal();
    }
    if mode == Priv::Machine {
        return require_specific(h, number, write);
    }
    // What HS-mode could do decides between illegal and virtual.
    let level = if v || mode == Priv::Supervisor { 2 } else { 0 };
    if lowest > level && !(lowest == 1 && level == 2) {
        return illegal();
    }
    if h.arch.cpu.has(Ext::Smstateen)
        && let Some(field) = stateen_field(h, number)
        && !field.is(c.mstateen[stateen_index(number)])
    {
        return illegal();
    }
    // Registers that machine level closes to all lower levels.
    if number == n::satp && !v && mstatus::TVM.is(c.mstatus) || number == n::hgatp && mstatus::TVM.is(c.mstatus) && !v {
        return illegal();
    }
    if matches!(number, n::stimecmp | n::vstimecmp) && (!envcfg::STCE.is(c.menvcfg) || c.mcounteren & 2 == 0) {
        return illegal();
    }
    if number == n::scountinhibit && !envcfg::CDE.is(c.menvcfg) {
        return illegal();
    }
    if matches!(number, n::sireg..=n::sireg3 | n::sireg4..=n::sireg6) && v && mode == Priv::User {
        return virtual_instruction();
    }
    if v && (lowest == 2 || lowest == 1 && mode == Priv::User) {
        return virtual_instruction();
    }
    if v {
        if h.arch.cpu.has(Ext::Ssstateen)
            && let Some(field) = stateen_field(h, number)
            && !field.is(c.hstateen[stateen_index(number)])
        {
            return virtual_instruction();
        }
        let vti = hvictl::VTI.is(c.hvictl);
        let closed = match number {
            n::satp => hstatus::VTVM.is(c.hstatus),
            n::sie | n::sip => vti,
            n::stimecmp => !envcfg::STCE.is(c.henvcfg()) || c.hcounteren & 2 == 0 || vti && write,
            n::scountinhibit => true,
            n::scountovf => h.arch.cpu.has(Ext::Ssccfg) && envcfg::CDE.is(c.menvcfg),
            n::stopei => c.guest_file().is_none(),
            _ => false,
        };
        if closed {
            return virtual_instruction();
        }
    }
    require_specific(h, number, write)
}

/// Conditions that do not follow from the number.
fn require_specific(h: &H, number: u16, write: bool) -> Step {
    let c = &h.arch.csr;
    let (mode, v) = (h.arch.mode, h.arch.v);
    match number {
        n::fflags..=n::fcsr if !h.arch.code_mode().has(crate::hart::Mode::FS_ON) => illegal(),
        n::seed => {
            let s = c.mseccfg;
            let allowed = match mode {
                Priv::Machine => true,
                Priv::Supervisor => mseccfg::SSEED.is(s),
                Priv::User => mseccfg::USEED.is(s) || v && mseccfg::SSEED.is(s),
            };
            if !write || !allowed {
                illegal()
            } else if v {
                virtual_instruction()
            } else {
                Ok(())
            }
        }
        n::cycle..=0xc1f if mode != Priv::Machine => {
            let bit = 1u64 << (number & 31);
            if c.mcounteren & bit == 0 || !v && mode == Priv::User && has_s(h) && c.scounteren & bit == 0 {
                return illegal();
            }
            if v && (c.hcounteren & bit == 0 || mode == Priv::User && c.scounteren & bit == 0) {
                return virtual_instruction();
            }
            Ok(())
        }
        n::stopei if mode == Priv::Supervisor && !v && c.mvien & SEI_BIT != 0 => illegal(),
        n::vstopei if c.guest_file().is_none() => illegal(),
        _ => Ok(()),
    }
}

/// The bit of *stateen that controls a CSR.
fn stateen_field(h: &H, number: u16) -> Option<super::csr::Field> {
    Some(match number {
        n::senvcfg | n::henvcfg => stateen::ENVCFG,
        n::hstateen0..=0x60f | n::sstateen0..=0x10f => stateen::SE,
        n::siselect..=n::sireg3 | n::sireg4..=n::sireg6 | n::vsiselect..=n::vsireg3 | n::vsireg4..=n::vsireg6 => {
            stateen::CSRIND
        }
        n::stopi | n::vstopi | n::hvien | n::hvictl | n::hviprio1 | n::hviprio2 => stateen::AIA,
        n::stopei | n::vstopei if !h.arch.csr.files.is_empty() => stateen::IMSIC,
        _ => return None,
    })
}

fn stateen_index(number: u16) -> usize {
    match number {
        n::hstateen0..=0x60f | n::sstateen0..=0x10f => usize::from(number & 3),
        _ => 0,
    }
}

/// The VS register that a supervisor one stands for while V=1.
fn substitute(number: u16, v: bool) -> u16 {
    match number {
        n::sstatus | n::sie | n::stvec | n::sscratch..=n::sip | n::stimecmp | n::satp | n::stopei if v => {
            number + 0x100
        }
        n::siselect..=n::sireg3 | n::sireg4..=n::sireg6 if v => number + 0x100,
        n::stopi if v => n::vstopi,
        _ => number,
    }
}

/// Reads a CSR as an instruction does. `write` tells whether the instruction writes it as well.
pub(crate) fn read(h: &mut H, number: u16, write: bool) -> Step<u64> {
    require_access(h, number, write)?;
    value(h, substitute(number, h.arch.v))
}

/// What the instructions that set and clear bits start from: mip and mvip have a bit that is not what is read.
pub(crate) fn base_for_update(h: &H, number: u16, read: u64) -> u64 {
    match number {
        n::mip if h.arch.csr.mvien & SEI_BIT == 0 => read & !SEI_BIT | h.arch.csr.mip & SEI_BIT,
        _ => read,
    }
}

/// Reads a CSR for a debugger: no rights, no effects.
pub fn peek(h: &mut H, number: u16) -> Option<u64> {
    if !exists(h.arch, number) || number == n::seed {
        return None;
    }
    value(h, number).ok()
}

/// The value of a CSR that is there.
fn value(h: &mut H, number: u16) -> Step<u64> {
    let c = &h.arch.csr;
    Ok(match number {
        n::fflags => h.arch.fcsr.flags.into(),
        n::frm => h.arch.fcsr.frm.into(),
        n::fcsr => u64::from(h.arch.fcsr.flags) | u64::from(h.arch.fcsr.frm) << 5,
        n::seed => {
            let c = &mut h.arch.csr;
            c.entropy = c.entropy.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(0x1405_7b7e_f767_814f);
            // OPST is ES16: 16 bits are there.
            2 << 30 | c.entropy >> 48
        }

        n::sstatus => {
            let shown = SSTATUS | mstatus::UBE.mask() | mstatus::SDT.mask();
            with_sd(c.mstatus & shown | 2 << mstatus::UXL.0)
        }
        n::sie => enabled_s(c) & (S_BITS | HIGH_BITS),
        n::stvec => c.stvec,
        n::scounteren => c.scounteren,
        n::senvcfg => c.senvcfg,
        n::sstateen0..=0x10f => 0,
        n::scountinhibit => c.counters.inhibit() & c.mcounteren,
        n::sscratch => c.sscratch,
        n::sepc => c.sepc,
        n::scause => c.scause,
        n::stval => c.stval,
        n::sip => pending_s(c, mip(h)) & (S_BITS | HIGH_BITS),
        n::stimecmp => c.stimecmp,
        n::siselect => c.siselect,
        n::sireg..=n::sireg6 => aia::read(h, Window::Supervisor, window_number(number))?,
        n::stopei => c.files[1].topei(),
        n::satp => c.satp,
        n::scountovf => {
            let readable = match (h.arch.mode, h.arch.v) {
                (Priv::Machine, _) => COUNTER_BITS,
                (_, false) => c.mcounteren,
                (_, true) => c.mcounteren & c.hcounteren,
            };
            c.counters.overflows() & readable
        }
        n::stopi => top_s(h, mip(h)).map_or(0, |t| t.topi()),

        n::vsstatus => with_sd(c.vsstatus | 2 << mstatus::UXL.0),
        n::vsie => enabled_vs(c),
        n::vstvec => c.vstvec,
        n::vsscratch => c.vsscratch,
        n::vsepc => c.vsepc,
        n::vscause => c.vscause,
        n::vstval => c.vstval,
        n::vsip => pending_vs(c, mip(h)),
        n::vstimecmp => c.vstimecmp,
        n::vsiselect => c.vsiselect,
        n::vsireg..=n::vsireg6 => aia::read(h, Window::Guest, window_number(number))?,
        n::vstopei => match c.guest_file() {
            Some(file) => c.files[file].topei(),
            None => return illegal(),
        },
        n::vsatp => c.vsatp,
        n::vstopi => top_vs(h, mip(h)).map_or(0, |t| vstopi(h, t)),

        n::mstatus => {
            let xl = if has_s(h) { 2 << mstatus::SXL.0 } else { 0 };
            let ul = if h.arch.cpu.has(Ext::U) { 2 << mstatus::UXL.0 } else { 0 };
            with_sd(c.mstatus | xl | ul)
        }
        n::misa => misa(&h.arch.cpu),
        n::medeleg => c.medeleg,
        n::mideleg => c.mideleg,
        n::mie => c.mie,
        n::mtvec => c.mtvec,
        n::mcounteren => c.mcounteren,
        n::mvien => c.mvien,
        n::mvip => {
            let ssip = if c.mvien & SSI_BIT != 0 { c.mvip } else { c.mip } & SSI_BIT;
            let stip = if envcfg::STCE.is(c.menvcfg) { 0 } else { c.mip & STI_BIT };
            ssip | stip | c.mip & SEI_BIT | c.mvip & HIGH_BITS
        }
        n::menvcfg => c.menvcfg,
        n::mstateen0..=0x30f => c.mstateen[usize::from(number & 3)],
        n::mcountinhibit => c.counters.inhibit(),
        n::mcyclecfg => c.counters.config(0),
        n::minstretcfg => c.counters.config(2),
        0x323..=0x33f => match usize::from(number & 31) {
            i if i < COUNTERS => c.counters.config(i),
            _ => 0,
        },
        n::mscratch => c.mscratch,
        n::mepc => c.mepc,
        n::mcause => c.mcause,
        n::mtval => c.mtval,
        n::mip => mip(h),
        n::mtinst => c.mtinst,
        n::mtval2 => c.mtval2,
        n::miselect => c.miselect,
        n::mireg..=n::mireg6 => aia::read(h, Window::Machine, window_number(number))?,
        n::mtopei => c.files[0].topei(),
        n::mtopi => top_m(h, mip(h)).map_or(0, |t| t.topi()),
        0x3a0..=0x3af => c.pmp.read_config(usize::from(number - 0x3a0) * 4),
        0x3b0..=0x3ef => c.pmp.read_address(usize::from(number - 0x3b0)),

        n::hstatus => c.hstatus | 2 << hstatus::VSXL.0,
        n::hedeleg => c.hedeleg,
        n::hideleg => c.hideleg,
        n::hie => c.mie & (VS_BITS | SGEI_BIT),
        n::htimedelta => c.htimedelta,
        n::hcounteren => c.hcounteren,
        n::hgeie => c.hgeie,
        n::hvien => c.hvien,
        n::hvictl => c.hvictl,
        n::henvcfg => c.henvcfg(),
        n::hstateen0..=0x60f => {
            let i = usize::from(number & 3);
            c.hstateen[i] & gate(h, i)
        }
        n::htval => c.htval,
        n::hip => mip(h) & (VS_BITS | SGEI_BIT),
        n::hvip => c.hvip,
        n::hviprio1 => c.hviprio[0],
        n::hviprio2 => c.hviprio[1],
        n::htinst => c.htinst,
        n::hgatp => c.hgatp,
        n::hgeip => hgeip(c),

        n::mnscratch => c.mnscratch,
        n::mnepc => c.mnepc,
        n::mncause => c.mncause,
        n::mnstatus => c.mnstatus,
        n::mseccfg => c.mseccfg,

        n::time => {
            let delta = if h.arch.v { c.htimedelta } else { 0 };
            h.mtime().wrapping_add(delta)
        }
        n::mcycle | n::cycle => c.counters.read(0, Now::of(h)),
        n::minstret | n::instret => c.counters.read(2, Now::of(h)),
        0xb03..=0xb1f | 0xc03..=0xc1f => match usize::from(number & 31) {
            i if i < COUNTERS => c.counters.read(i, Now::of(h)),
            _ => 0,
        },
        n::mhartid => h.arch.id,
        n::tinfo => 1, // there is no trigger at this tselect
        _ => 0,
    })
}

/// hstateen shows no bit that mstateen has clear.
fn gate(h: &H, i: usize) -> u64 {
    if h.arch.cpu.has(Ext::Smstateen) { h.arch.csr.mstateen[i] } else { u64::MAX }
}

/// 1 for *ireg, 2 for *ireg2 and so on.
fn window_number(number: u16) -> u32 {
    match number & 0xf {
        n @ 1..=3 => n.into(),
        n => u32::from(n) - 1,
    }
}

/// Bits of *stateen0 that there are.
fn stateen_bits(h: &H, i: usize) -> u64 {
    let cpu = &h.arch.cpu;
    let mut bits = stateen::SE.mask();
    if i == 0 {
        bits |= stateen::ENVCFG.mask();
        bits |= if cpu.has(Ext::Sscsrind) { stateen::CSRIND.mask() } else { 0 };
        bits |= if cpu.has(Ext::Ssaia) { stateen::AIA.mask() } else { 0 };
        bits |= if h.arch.csr.files.is_empty() { 0 } else { stateen::IMSIC.mask() };
    }
    bits
}

/// Bits of menvcfg that there are.
pub(crate) fn menvcfg_bits(cpu: &CpuConfig) -> u64 {
    let has = |e: Ext, field: super::csr::Field| if cpu.has(e) { field.mask() } else { 0 };
    envcfg::FIOM.mask()
        | has(Ext::Zicbom, envcfg::CBIE)
        | has(Ext::Zicbom, envcfg::CBCFE)
        | has(Ext::Zicboz, envcfg::CBZE)
        | has(Ext::Ssdbltrp, envcfg::DTE)
        | has(Ext::Smcdeleg, envcfg::CDE)
        | if cpu.has(Ext::Svadu) { envcfg::ADUE.mask() } else { 0 }
        | has(Ext::Svpbmt, envcfg::PBMTE)
        | has(Ext::Sstc, envcfg::STCE)
}

fn masked(old: u64, new: u64, mask: u64) -> u64 {
    old & !mask | new & mask
}

/// CBIE has one reserved value, which leaves it as it was.
fn write_envcfg(old: u64, value: u64, mask: u64) -> u64 {
    let mut new = masked(old, value, mask);
    if envcfg::CBIE.of(new) == 2 {
        envcfg::CBIE.put(&mut new, envcfg::CBIE.of(old));
    }
    new
}

/// sstatus.SDT set by a write clears SIE, which it holds clear while it stays ("Double Trap Control in sstatus").
fn hold_sie(status: &mut u64) {
    if mstatus::SDT.is(*status) {
        mstatus::SIE.put(status, 0);
    }
}

fn tvec(old: u64, value: u64) -> u64 {
    if value & 2 != 0 { old & 3 | value & !3 } else { value }
}

/// satp and vsatp: a write with a mode that there is not changes nothing.
fn write_satp(cpu: &CpuConfig, old: u64, value: u64) -> u64 {
    let modes = [(0, Ext::S), (8, Ext::Sv39), (9, Ext::Sv48), (10, Ext::Sv57)];
    let known = modes.iter().any(|(m, e)| *m == satp::MODE.of(value) && cpu.has(*e));
    if known { value } else { old }
}

/// What a write to a CSR changes beyond the register.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Effect {
    /// Nothing.
    Nothing,
    /// Which interrupts are to be taken.
    Interrupts,
    /// Anything: translation, rights, what code means.
    All,
}

impl Effect {
    /// Of a write to this register.
    fn of(number: u16) -> Self {
        match number {
            // What a trap has left, what software keeps there, and what is asked for when it is needed.
            n::mscratch | n::mepc | n::mcause | n::mtval | n::mtinst | n::mtval2 | n::mtvec | n::mcounteren => {
                Effect::Nothing
            }
            n::sscratch | n::sepc | n::scause | n::stval | n::stvec | n::scounteren | n::senvcfg => Effect::Nothing,
            n::vsscratch | n::vsepc | n::vscause | n::vstval | n::vstvec => Effect::Nothing,
            n::htval | n::htinst | n::hcounteren | n::medeleg | n::hedeleg => Effect::Nothing,
            n::siselect | n::vsiselect | n::miselect | n::fflags..=n::fcsr => Effect::Nothing,
            n::mie | n::mip | n::mideleg | n::mvien | n::mvip | n::mtopei => Effect::Interrupts,
            n::sie | n::sip | n::stopei | n::stimecmp | n::vsie | n::vsip | n::vstopei | n::vstimecmp => {
                Effect::Interrupts
            }
            n::hie | n::hip | n::hvip | n::hideleg | n::hvien | n::hvictl | n::hviprio1 | n::hviprio2 | n::hgeie => {
                Effect::Interrupts
            }
            n::hstatus | n::htimedelta => Effect::Interrupts,
            n::sireg..=n::sireg6 | n::vsireg..=n::vsireg6 | n::mireg..=n::mireg6 => Effect::Interrupts,
            _ => Effect::All,
        }
    }

    /// Of a change to a status register of these bits.
    fn of_status(changed: u64) -> Self {
        const ENABLES: u64 = mstatus::SIE.mask() | mstatus::MIE.mask();
        const LEFT: u64 = mstatus::SPIE.mask() | mstatus::SPP.mask() | mstatus::MPIE.mask();
        match changed & !LEFT {
            0 => Effect::Nothing,
            c if c & !ENABLES == 0 => Effect::Interrupts,
            _ => Effect::All,
        }
    }
}

/// Writes a CSR that an instruction has been allowed to write ([`read`] or [`require_write`] came first). The block ends
/// behind it if that changes what comes next.
pub(crate) fn write(h: &mut H, number: u16, value: u64) -> Step {
    let number = substitute(number, h.arch.v);
    let c = &h.arch.csr;
    let before = (c.mstatus, c.vsstatus);
    let injected = (c.hvip, c.hvictl);
    put(h, number, value)?;
    if !h.arch.v && (h.arch.csr.hvip, h.arch.csr.hvictl) != injected {
        note_injections(h, injected.0, injected.1);
    }
    let c = &h.arch.csr;
    let effect = match number {
        n::mstatus | n::sstatus => Effect::of_status(before.0 ^ c.mstatus),
        // While no guest is running, its registers change nothing; but M-mode can load and store as a guest.
        n::vsstatus | n::vsatp | n::hgatp if !h.arch.v && h.arch.mode != Priv::Machine => Effect::Nothing,
        n::vsstatus => Effect::of_status(before.1 ^ c.vsstatus),
        _ => Effect::of(number),
    };
    match effect {
        Effect::Nothing => {}
        Effect::Interrupts => look_again(h),
        Effect::All => {
            h.core.spaces_changed = true;
            h.core.check_interrupts = true;
            h.core.leave = true;
        }
    }
    Ok(())
}

/// Interrupts that hvip and hvictl have pending for the guest, and had not.
fn note_injections(h: &mut H, hvip: u64, hvictl: u64) {
    let c = &h.arch.csr;
    let mut new = c.hvip & !hvip;
    if hvictl::VTI.is(c.hvictl) && c.hvictl != hvictl {
        new |= 1 << hvictl::IID.of(c.hvictl);
    }
    while new != 0 {
        super::trap::note_injection(h, new.trailing_zeros(), &[]);
        new &= new - 1;
    }
}

fn put(h: &mut H, number: u16, value: u64) -> Step {
    let cpu = h.arch.cpu;
    let float = if cpu.has(Ext::F) { u64::MAX } else { !mstatus::FS.mask() };
    let epc = if cpu.has(Ext::C) { !1 } else { !3 };
    match number {
        n::fflags..=n::fcsr => {
            let f = &mut h.arch.fcsr;
            match number {
                n::fflags => f.flags = value as u8 & 31,
                n::frm => f.frm = value as u8 & 7,
                _ => {
                    f.flags = value as u8 & 31;
                    f.frm = (value >> 5) as u8 & 7;
                }
            }
            h.make_fs_dirty();
            return Ok(());
        }
        n::sireg..=n::sireg6 => return aia::write(h, Window::Supervisor, window_number(number), value),
        n::vsireg..=n::vsireg6 => return aia::write(h, Window::Guest, window_number(number), value),
        n::mireg..=n::mireg6 => return aia::write(h, Window::Machine, window_number(number), value),
        n::scountinhibit | n::mcountinhibit => {
            let now = Now::of(h).after();
            let c = &mut h.arch.csr;
            let mask = if number == n::mcountinhibit { u64::MAX } else { c.mcounteren };
            let value = masked(c.counters.inhibit(), value, mask);
            c.counters.set_inhibit(value, now);
            h.core.call_for_attention();
            return Ok(());
        }
        n::mcyclecfg | n::minstretcfg | 0x323..=0x33f => {
            let now = Now::of(h).after();
            let i = usize::from(number & 31) - if number == n::mcyclecfg { 1 } else { 0 };
            if i < COUNTERS {
                let mut value = value;
                if i < 3 || !cpu.has(Ext::Sscofpmf) {
                    super::counters::config::OF.put(&mut value, 0);
                }
                if i >= 3 && !cpu.has(Ext::Sscofpmf) {
                    value &= !super::counters::config::INH;
                }
                if !cpu.has(Ext::H) {
                    super::counters::config::VSINH.put(&mut value, 0);
                    super::counters::config::VUINH.put(&mut value, 0);
                }
                h.arch.csr.counters.set_config(i, value, now);
                h.core.call_for_attention();
            }
            return Ok(());
        }
        n::mcycle | n::minstret | 0xb03..=0xb1f => {
            let after = Now::of(h).after();
            let i = usize::from(number & 31);
            if i < COUNTERS {
                h.arch.csr.counters.write(i, value, after);
                h.core.call_for_attention();
            }
            return Ok(());
        }
        _ => {}
    }
    let index = usize::from(number & 3);
    let sdt = match number {
        n::mstatus | n::sstatus if double_trap_enabled(h, false) => mstatus::SDT.mask(),
        n::vsstatus if double_trap_enabled(h, true) => mstatus::SDT.mask(),
        _ => 0,
    };
    let writable = match number {
        n::mstateen0..=0x30f => stateen_bits(h, index),
        n::hstateen0..=0x60f => stateen_bits(h, index) & gate(h, index),
        _ => 0,
    };
    let c = &mut h.arch.csr;
    match number {
        n::mstatus => {
            let mut mask = MSTATUS & float;
            if !cpu.has(Ext::S) {
                mask &= mstatus::MIE.mask() | mstatus::MPIE.mask() | mstatus::FS.mask() | mstatus::MPRV.mask();
            }
            if cpu.has(Ext::H) {
                mask |= mstatus::GVA.mask() | mstatus::MPV.mask();
            }
            mask |= sdt;
            mask |= if cpu.has(Ext::Smdbltrp) { mstatus::MDT.mask() } else { 0 };
            let known = match mstatus::MPP.of(value) {
                0 => cpu.has(Ext::U),
                1 => cpu.has(Ext::S),
                n => n == 3,
            };
            mask |= if known { mstatus::MPP.mask() } else { 0 };
            c.mstatus = masked(c.mstatus, value, mask);
            hold_sie(&mut c.mstatus);
            if mstatus::MDT.is(c.mstatus) {
                mstatus::MIE.put(&mut c.mstatus, 0);
            }
        }
        n::sstatus => {
            let mask = SSTATUS & float | sdt;
            c.mstatus = masked(c.mstatus, value, mask);
            hold_sie(&mut c.mstatus);
        }
        n::vsstatus => {
            let mask = SSTATUS & float | sdt;
            c.vsstatus = masked(c.vsstatus, value, mask);
            hold_sie(&mut c.vsstatus);
        }
        n::medeleg => {
            // ECALL from M-mode and double traps are not delegable.
            let mut mask = 0xb3ff & !(1 << 11);
            if cpu.has(Ext::H) {
                mask |= 0x00f0_0400;
            }
            c.medeleg = value & mask;
        }
        n::mideleg => {
            let mask = S_BITS | if cpu.has(Ext::Sscofpmf) { LCOFI_BIT } else { 0 };
            c.mideleg = masked(c.mideleg, value, mask);
        }
        n::mie => {
            let mut mask = M_BITS;
            mask |= if cpu.has(Ext::S) { S_BITS } else { 0 };
            mask |= if cpu.has(Ext::H) { VS_BITS | SGEI_BIT } else { 0 };
            mask |= if cpu.has(Ext::Sscofpmf) { LCOFI_BIT } else { 0 };
            c.mie = value & mask;
        }
        n::mtvec => c.mtvec = tvec(c.mtvec, value),
        n::stvec => c.stvec = tvec(c.stvec, value),
        n::vstvec => c.vstvec = tvec(c.vstvec, value),
        n::mcounteren => c.mcounteren = value & COUNTER_BITS,
        n::scounteren => c.scounteren = value & COUNTER_BITS,
        n::hcounteren => c.hcounteren = value & COUNTER_BITS,
        n::mvien => {
            c.mvien = value & (SSI_BIT | SEI_BIT | HIGH_BITS);
        }
        n::mvip => {
            if c.mvien & SSI_BIT != 0 {
                c.mvip = masked(c.mvip, value, SSI_BIT);
            } else {
                c.mip = masked(c.mip, value, SSI_BIT);
            }
            let stip = if envcfg::STCE.is(c.menvcfg) { 0 } else { STI_BIT };
            c.mip = masked(c.mip, value, SEI_BIT | stip);
            c.mvip = masked(c.mvip, value, HIGH_BITS);
        }
        n::mip => {
            let mut mask = SSI_BIT | LCOFI_BIT;
            mask |= if envcfg::STCE.is(c.menvcfg) { 0 } else { STI_BIT };
            mask |= if c.mvien & SEI_BIT == 0 { SEI_BIT } else { 0 };
            if !cpu.has(Ext::S) {
                mask = 0;
            }
            if !cpu.has(Ext::Sscofpmf) {
                mask &= !LCOFI_BIT;
            }
            c.mip = masked(c.mip, value, mask);
            if cpu.has(Ext::H) {
                c.hvip = masked(c.hvip, value, VSSI_BIT);
            }
        }
        n::sie => {
            let shown = S_BITS | HIGH_BITS;
            let implemented = S_BITS | LCOFI_BIT;
            c.mie = masked(c.mie, value, c.mideleg & shown & implemented);
            c.sie = masked(c.sie, value, c.mvien & !c.mideleg & shown);
        }
        n::sip => {
            c.mip = masked(c.mip, value, c.mideleg & (SSI_BIT | LCOFI_BIT));
            let asserted = c.mvien & !c.mideleg;
            c.mvip = masked(c.mvip, value, asserted & (SSI_BIT | HIGH_BITS));
        }
        n::hie => c.mie = masked(c.mie, value, VS_BITS | SGEI_BIT),
        n::hip => c.hvip = masked(c.hvip, value, VSSI_BIT),
        n::hvip => {
            let high = if cpu.has(Ext::Ssaia) { HIGH_BITS } else { 0 };
            c.hvip = value & (VS_BITS | high);
        }
        n::vsie => {
            c.mie = masked(c.mie, value << 1, c.hideleg & VS_BITS);
            let delegated = c.hideleg & HIGH_BITS;
            c.mie = masked(c.mie, value, delegated & c.mideleg & LCOFI_BIT);
            c.sie = masked(c.sie, value, delegated & c.mvien & !c.mideleg);
            c.vsie = masked(c.vsie, value, c.hvien & !c.hideleg & HIGH_BITS);
        }
        n::vsip => {
            c.hvip = masked(c.hvip, value << 1, c.hideleg & VSSI_BIT);
            let delegated = c.hideleg & HIGH_BITS;
            c.mip = masked(c.mip, value, delegated & c.mideleg & LCOFI_BIT);
            c.mvip = masked(c.mvip, value, delegated & c.mvien & !c.mideleg);
            c.hvip = masked(c.hvip, value, c.hvien & !c.hideleg & HIGH_BITS);
        }
        n::menvcfg => {
            c.menvcfg = write_envcfg(c.menvcfg, value, menvcfg_bits(&cpu));
            if !envcfg::DTE.is(c.menvcfg) {
                mstatus::SDT.put(&mut c.mstatus, 0);
            }
            // What page tables mean has changed for all spaces.
            h.core.mmu.clear();
            h.core.call_for_attention();
        }
        n::henvcfg => {
            let mask = (menvcfg_bits(&cpu) & !envcfg::CDE.mask())
                & (!(envcfg::STCE.mask() | envcfg::PBMTE.mask() | envcfg::ADUE.mask() | envcfg::DTE.mask())
                    | c.menvcfg);
            let old = c.henvcfg();
            c.henvcfg = write_envcfg(c.henvcfg, value, mask);
            if !envcfg::DTE.is(c.henvcfg()) {
                mstatus::SDT.put(&mut c.vsstatus, 0);
            }
            if (old ^ c.henvcfg()) & (envcfg::PBMTE.mask() | envcfg::ADUE.mask()) != 0 {
                h.core.mmu.drop_spaces(super::mmu::is_guest_key);
            }
            h.core.call_for_attention();
        }
        n::senvcfg => {
            let mask = envcfg::FIOM.mask()
                | menvcfg_bits(&cpu) & (envcfg::CBIE.mask() | envcfg::CBCFE.mask() | envcfg::CBZE.mask());
            c.senvcfg = write_envcfg(c.senvcfg, value, mask);
        }
        n::mstateen0..=0x30f => c.mstateen[index] = value & writable,
        n::hstateen0..=0x60f => c.hstateen[index] = masked(c.hstateen[index], value, writable),
        n::mscratch => c.mscratch = value,
        n::mepc => c.mepc = value & epc,
        n::mcause => c.mcause = value,
        n::mtval => c.mtval = value,
        n::mtinst => c.mtinst = value,
        n::mtval2 => c.mtval2 = value,
        n::sscratch => c.sscratch = value,
        n::sepc => c.sepc = value & epc,
        n::scause => c.scause = value,
        n::stval => c.stval = value,
        n::stimecmp => {
            c.stimecmp = value;
            h.core.call_for_attention();
        }
        n::satp => c.satp = write_satp(&cpu, c.satp, value),
        n::miselect => c.miselect = value & 0xfff,
        n::siselect => c.siselect = value & 0xfff,
        n::vsiselect => c.vsiselect = value & 0xfff,
        n::mtopei => drop(c.files[0].claim()),
        n::stopei => drop(c.files[1].claim()),
        n::vstopei => {
            if let Some(file) = c.guest_file() {
                c.files[file].claim();
            }
        }
        0x3a0..=0x3af => {
            c.pmp.write_config(usize::from(number - 0x3a0) * 4, value);
            h.core.mmu.clear();
        }
        0x3b0..=0x3ef => {
            c.pmp.write_address(usize::from(number - 0x3b0), value);
            h.core.mmu.clear();
        }
        n::vsscratch => c.vsscratch = value,
        n::vsepc => c.vsepc = value & epc,
        n::vscause => c.vscause = value,
        n::vstval => c.vstval = value,
        n::vstimecmp => {
            c.vstimecmp = value;
            h.core.call_for_attention();
        }
        n::vsatp => c.vsatp = write_satp(&cpu, c.vsatp, value),
        n::hstatus => {
            let mut mask = hstatus::GVA.mask()
                | hstatus::SPV.mask()
                | hstatus::SPVP.mask()
                | hstatus::HU.mask()
                | hstatus::VTVM.mask()
                | hstatus::VTW.mask()
                | hstatus::VTSR.mask();
            let files = if cpu.imsic { cpu.geilen.into() } else { 0 };
            mask |= if hstatus::VGEIN.of(value) <= files { hstatus::VGEIN.mask() } else { 0 };
            c.hstatus = masked(c.hstatus, value, mask);
        }
        n::hedeleg => c.hedeleg = value & HEDELEG,
        n::hideleg => {
            let high = if cpu.has(Ext::Ssaia) || cpu.has(Ext::Sscofpmf) { LCOFI_BIT } else { 0 };
            c.hideleg = value & (VS_BITS | high & (c.mideleg | c.mvien));
        }
        n::htimedelta => {
            c.htimedelta = value;
            h.core.call_for_attention();
        }
        n::hgeie => {
            let files = if cpu.imsic { cpu.geilen } else { 0 };
            c.hgeie = value & ((1u64 << files) - 1) << 1;
        }
        n::hvien => c.hvien = value & HIGH_BITS,
        n::hvictl => {
            let iid = 0x3f << hvictl::IID.0;
            c.hvictl = value & (hvictl::VTI.mask() | iid | hvictl::DPR.mask() | hvictl::IPRIOM.mask() | 0xff);
        }
        n::hviprio1 => c.hviprio[0] = value & hviprio_mask(0),
        n::hviprio2 => c.hviprio[1] = value & hviprio_mask(1),
        n::htval => c.htval = value,
        n::htinst => c.htinst = value,
        n::hgatp => {
            let modes = [(0, Ext::H), (8, Ext::Sv39), (9, Ext::Sv48), (10, Ext::Sv57)];
            let known = modes.iter().any(|(m, e)| *m == hgatp::MODE.of(value) && cpu.has(*e));
            let mask = hgatp::VMID.mask() | hgatp::PPN.mask() & !3 | if known { hgatp::MODE.mask() } else { 0 };
            c.hgatp = masked(c.hgatp, value, mask);
        }
        n::mnscratch => c.mnscratch = value,
        n::mnepc => c.mnepc = value & epc,
        n::mncause => c.mncause = value,
        n::mnstatus => {
            let nmie = c.mnstatus & mnstatus::NMIE.mask();
            let mpp = if mnstatus::MNPP.of(value) == 2 { 0 } else { mnstatus::MNPP.mask() };
            let mpv = if cpu.has(Ext::H) { mnstatus::MNPV.mask() } else { 0 };
            c.mnstatus = masked(c.mnstatus, value, mpp | mpv | mnstatus::NMIE.mask()) | nmie;
        }
        n::mseccfg => c.mseccfg = value & (mseccfg::SSEED.mask() | mseccfg::USEED.mask()),
        _ => {} // misa, and whatever is read-only zero: there are no triggers (Sdtrig), so tdata1 says so at any tselect
    }
    Ok(())
}

/// Whether an instruction that does not read may write a CSR.
pub(crate) fn require_write(h: &H, number: u16) -> Step {
    require_access(h, number, true)
}

/// Writes a CSR for a debugger.
pub fn poke(h: &mut H, number: u16, value: u64) -> bool {
    exists(h.arch, number) && number >> 10 != 3 && write(h, number, value).is_ok()
}

const _: () = assert!(PMP_ENTRIES <= 64);
