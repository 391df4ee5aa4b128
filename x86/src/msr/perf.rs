//! Performance counters (SDM vol. 3B, "Architectural Performance Monitoring", version 2 with full-width writes; APM vol. 2, "Performance
//! Monitoring Counters", with PerfMonV2).
//!
//! Events that count: instructions retired, those that fault excepted, and unhalted cycles, core and reference, which are the same: an instruction
//! takes a cycle, and a trap another; and branches ([`branch_events`](super::branch_events)). CPUID says that the other architectural events are not there; they,
//! and all others, count nothing. E and AnyThread are not heeded. An overflow interrupts behind the instruction that it comes with.
//!
//! Instructions are counted when somebody asks: whether a counter of USR or OS alone counts is looked at when [`privilege_changed`] is called.
//! Branches are counted as they retire, at the level that they begin in; blocks tell of them while some counter wants to know.

use emu_core::engine::Step;
use serde::{Deserialize, Serialize};

use super::branch_events::{self, BranchEvent};
use super::table::Kind;
use crate::apic::{self, lvt};
use crate::branch::Branch;
use crate::control::efer;
use crate::exception::Exception;
use crate::lbr;
use crate::model::Feature;
use crate::processor::{P, ProcessorExt, X86};

pub(super) const COUNTER: Kind = Kind::Own { read: read_counter, write: write_counter };
pub(super) const SELECT: Kind = Kind::Own { read: read_select, write: write_select };
pub(super) const PAIR: Kind = Kind::Own { read: read_pair, write: write_pair };
pub(super) const FIXED_CONTROL: Kind = Kind::Own { read: read_fixed_control, write: write_fixed_control };
pub(super) const GLOBAL: Kind = Kind::Own { read: read_global, write: write_global };

const GENERAL: usize = 8;
const FIXED: usize = 3;
const WIDTH: u32 = 48;
const MASK: u64 = (1 << WIDTH) - 1;

/// PERFEVTSELx.
mod select {
    pub(super) const USR: u64 = 1 << 16;
    pub(super) const OS: u64 = 1 << 17;
    pub(super) const INT: u64 = 1 << 20;
    pub(super) const EN: u64 = 1 << 22;
    pub(super) const INV: u64 = 1 << 23;
    /// AMD's HostOnly and GuestOnly. With both all is counted.
    pub(super) const GUEST_ONLY: u64 = 1 << 40;
    pub(super) const HOST_ONLY: u64 = 1 << 41;

    /// "Counter Mask": a cycle counts if so many events come in it; with INV if fewer do. No cycle of ours has more than one.
    pub(super) fn counts_cycles_of_one(select: u64) -> bool {
        let mask = select >> 24 & 0xff;
        mask == 0 || (mask == 1) != (select & INV != 0)
    }

    /// Likewise of an event that does not come in each cycle. Cycles without it are not counted.
    pub(super) fn counts_single_events(select: u64) -> bool {
        matches!((select >> 24 & 0xff, select & INV != 0), (0, _) | (1, false))
    }
}

/// All counters. The fixed ones stand behind the others.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Perf {
    counters: [u64; GENERAL + FIXED],
    selects: [u64; GENERAL],
    fixed_control: u64,
    /// IA32_PERF_GLOBAL_CTRL.
    control: u64,
    status: u64,
    /// What branches each general counter counts while it is enabled.
    branches: [Option<BranchEvent>; GENERAL],
    /// Some counter is to interrupt.
    interrupts: bool,
    /// What had been retired when the counters were last brought up to date, and whether it is CPL 3 since.
    since: u64,
    user: bool,
    /// How many of those have been stopped by a fault, of all times and of those that the counters know.
    stopped: [u64; 2],
    /// A guest is at work, and some counter is for guests or the host alone.
    guest: bool,
    splits: bool,
}

/// What a counter counts from time to time.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Run {
    /// Instructions that have retired; else cycles.
    instructions: bool,
    /// It interrupts.
    interrupts: bool,
}

impl Default for Perf {
    /// After reset: of IA32_PERF_GLOBAL_CTRL the bits of the general counters are set.
    fn default() -> Self {
        Perf {
            counters: [0; GENERAL + FIXED],
            selects: [0; GENERAL],
            fixed_control: 0,
            control: (1 << GENERAL) - 1,
            status: 0,
            branches: [None; GENERAL],
            interrupts: false,
            since: 0,
            user: false,
            stopped: [0; 2],
            guest: false,
            splits: false,
        }
    }
}

/// The place of a counter's bit in the global registers.
fn global_bit(i: usize) -> u32 {
    if i < GENERAL { i as u32 } else { 32 + (i - GENERAL) as u32 }
}

/// What a counter's event is: with Intel event and unit mask, with AMD EventSelect.
fn event_of(is_intel: bool, select: u64) -> u16 {
    (if is_intel { select & 0xffff } else { select & 0xff | select >> 24 & 0xf00 }) as u16
}

impl Perf {
    /// The global registers let a counter count.
    fn is_enabled(&self, arch: &X86, i: usize) -> bool {
        let has_control = arch.model.is_intel() || arch.model.has(Feature::PerfmonV2);
        !has_control || self.control >> global_bit(i) & 1 != 0
    }

    /// "Host/Guest Only": with either bit nothing is counted while EFER.SVME is clear.
    fn is_of_world(&self, arch: &X86, select: u64) -> bool {
        let (guest, host) = (select & select::GUEST_ONLY != 0, select & select::HOST_ONLY != 0);
        !guest && !host || arch.efer & efer::SVME != 0 && (guest && host || guest == self.guest)
    }

    /// What a counter of instructions or cycles counts now, if anything.
    fn runs(&self, arch: &X86, i: usize) -> Option<Run> {
        let is_intel = arch.model.is_intel();
        if !self.is_enabled(arch, i) {
            return None;
        }
        let (os, usr, interrupts, instructions) = if i < GENERAL {
            let s = self.selects[i];
            let event = event_of(is_intel, s);
            let counts =
                if is_intel { matches!(event, 0x003c | 0x013c | 0x00c0) } else { matches!(event, 0x076 | 0x0c0) };
            if s & select::EN == 0 || !counts || !select::counts_cycles_of_one(s) || !self.is_of_world(arch, s) {
                return None;
            }
            (s & select::OS != 0, s & select::USR != 0, s & select::INT != 0, event == 0x0c0)
        } else {
            let field = self.fixed_control >> (4 * (i - GENERAL));
            (field & 1 != 0, field & 2 != 0, field & 8 != 0, i == GENERAL)
        };
        (if self.user { usr } else { os }).then_some(Run { instructions, interrupts })
    }

    /// What branches a counter counts, if any.
    fn branches_of(&self, arch: &X86, i: usize) -> Option<BranchEvent> {
        let (s, is_intel) = (self.selects[i], arch.model.is_intel());
        let is_on = s & select::EN != 0 && self.is_enabled(arch, i) && self.is_of_world(arch, s);
        let counts = is_on && select::counts_single_events(s);
        if counts { branch_events::find(is_intel, event_of(is_intel, s)) } else { None }
    }

    /// Whether some counter counts branches of CPL 0 to 2, and of CPL 3.
    pub(crate) fn branch_levels(&self) -> [bool; 2] {
        [select::OS, select::USR].map(|level| (0..GENERAL).any(|i| self.counts_branches(i, level).is_some()))
    }

    fn counts_branches(&self, i: usize, level: u64) -> Option<BranchEvent> {
        self.branches[i].filter(|_| self.selects[i] & level != 0)
    }
}

/// Finds out anew which counters count branches, and whether any may interrupt.
pub(crate) fn watch_again(arch: &mut X86) {
    /// IA32_FIXED_CTR_CTRL: PMI of each counter.
    const FIXED_PMI: u64 = 0x888;
    let found = std::array::from_fn(|i| arch.msrs.perf.branches_of(arch, i));
    let p = &mut arch.msrs.perf;
    p.branches = found;
    p.interrupts = p.fixed_control & FIXED_PMI != 0 || p.selects.iter().any(|s| s & select::INT != 0);
    p.splits = p.selects.iter().any(|s| s & (select::GUEST_ONLY | select::HOST_ONLY) != 0);
}

/// A branch has retired.
pub(crate) fn branch_retired(h: &mut P, b: &Branch) {
    let p = &mut h.arch.msrs.perf;
    let level = if b.from_user { select::USR } else { select::OS };
    let mut interrupts = false;
    for i in 0..GENERAL {
        if p.counts_branches(i, level).is_some_and(|event| event.counts(b)) {
            p.counters[i] = (p.counters[i] + 1) & MASK;
            if p.counters[i] == 0 {
                p.status |= 1 << global_bit(i);
                interrupts |= p.selects[i] & select::INT != 0;
            }
        }
    }
    if interrupts {
        interrupt(h);
    }
}

/// Bits of IA32_PERF_GLOBAL_STATUS and PerfCntrGlobalStatus: LBR_FRZ, and AMD's PmcFreeze.
const LBR_FRZ: u64 = 1 << 58;
const PMC_FREEZE: u64 = 1 << 59;

/// The performance-monitoring interrupt, which stops counters and last branch records where IA32_DEBUGCTL says so.
fn interrupt(h: &mut P) {
    if lbr::freeze(h.arch) {
        h.arch.msrs.perf.status |= LBR_FRZ;
    }
    if h.arch.debugctl() & lbr::debugctl::FREEZE_PERFMON_ON_PMI != 0 {
        // What was counted until here counts.
        sync_counters(h);
        let p = &mut h.arch.msrs.perf;
        p.control = 0;
        if h.arch.model.is_amd() {
            p.status |= PMC_FREEZE;
        }
        h.arch.watch_again();
    }
    h.core.spaces_changed = true;
    apic::fire(h, lvt::PC);
}

/// Brings the counters up to date, and interrupts for those that have overflowed.
pub(crate) fn sync(h: &mut P) {
    if sync_counters(h) {
        interrupt(h);
    }
}

/// Brings them up to date, and tells whether to interrupt.
fn sync_counters(h: &mut P) -> bool {
    let now = h.core.retired();
    let Some(done) = now.checked_sub(h.arch.msrs.perf.since) else { return false };
    let [stopped, known] = h.arch.msrs.perf.stopped;
    let retired = done.saturating_sub(stopped - known);
    let mut interrupts = false;
    for i in 0..GENERAL + FIXED {
        let Some(run) = h.arch.msrs.perf.runs(h.arch, i) else { continue };
        let p = &mut h.arch.msrs.perf;
        let sum = p.counters[i] + if run.instructions { retired } else { done };
        p.counters[i] = sum & MASK;
        if sum > MASK {
            p.status |= 1 << global_bit(i);
            interrupts |= run.interrupts;
        }
    }
    h.arch.msrs.perf.since = now;
    h.arch.msrs.perf.stopped = [stopped; 2];
    interrupts
}

/// The present instruction, which is counted already, has faulted, and does not retire.
#[inline]
pub(crate) fn faulted(arch: &mut X86) {
    arch.msrs.perf.stopped[0] += 1;
}

/// The present instruction, which is not counted yet, will not have retired: an exit takes its place.
pub fn not_retired(h: &mut P) {
    faulted(h.arch);
}

/// How many instructions have retired.
pub(crate) fn instructions(h: &P) -> u64 {
    h.core.retired() - h.arch.msrs.perf.stopped[0]
}

/// EFER gets a value. Without SVME in it, counters for guests or the host alone count nothing.
pub(crate) fn set_efer(h: &mut P, value: u64) {
    let splits = h.arch.msrs.perf.splits;
    if splits {
        sync(h);
    }
    h.arch.efer = value;
    if splits {
        changed(h);
    }
}

/// A guest is about to be entered, or has been left, and nothing of it is loaded yet. VMRUN is the guest's.
pub fn world_changes(h: &mut P, guest: bool) {
    if h.arch.msrs.perf.splits {
        sync(h);
    }
    h.arch.msrs.perf.guest = guest;
    if h.arch.msrs.perf.splits {
        changed(h);
    }
}

/// Counters count from the next instruction on: the present one enters a guest, and is none of the guest's.
pub fn skip_present(h: &mut P) {
    sync(h);
    h.arch.msrs.perf.since = h.core.retired() + 1;
}

/// CPL has changed to or from 3.
pub fn privilege_changed(h: &mut P) {
    let user = h.arch.cpl() == 3;
    if h.arch.msrs.perf.user != user {
        sync(h);
        h.arch.msrs.perf.user = user;
        if h.arch.msrs.perf.remaining(h.arch).is_some() {
            h.core.call_for_attention();
        }
    }
}

impl Perf {
    /// How many instructions, from `since` on, the first interrupt is away.
    fn remaining(&self, arch: &X86) -> Option<u64> {
        (0..GENERAL + FIXED)
            .filter(|i| self.runs(arch, *i).is_some_and(|r| r.interrupts))
            .map(|i| MASK + 1 - self.counters[i])
            .min()
    }
}

/// The machine's count at which the first counter interrupts, if nobody else runs until then.
pub(crate) fn due(h: &P) -> Option<u64> {
    let p = &h.arch.msrs.perf;
    if !p.interrupts {
        return None;
    }
    let left = p.remaining(h.arch)?.saturating_sub(h.core.retired().saturating_sub(p.since));
    Some(h.core.count().saturating_add(left.max(1)))
}

/// Something of what runs has changed.
fn changed(h: &mut P) {
    h.arch.watch_again();
    h.core.spaces_changed = true;
    h.core.call_for_attention();
}

/// The counter of an MSR.
fn counter_of(number: u32) -> usize {
    match number {
        0xc1..=0xc8 => (number - 0xc1) as usize,
        0x309..=0x30b => (number - 0x309) as usize + GENERAL,
        0x4c1..=0x4c8 => (number - 0x4c1) as usize,
        _ => (number & 3) as usize, // PERF_LEGACY_CTR
    }
}

fn read_counter(h: &mut P, number: u32) -> Step<u64> {
    sync(h);
    Ok(h.arch.msrs.perf.counters[counter_of(number)])
}

/// IA32_PMCx takes 32 bits, sign-extended; IA32_A_PMCx all ("Full-Width Writes to Performance Counter Registers").
fn write_counter(h: &mut P, number: u32, value: u64) -> Step {
    let value = match number {
        0xc1..=0xc8 => value as i32 as u64 & MASK,
        0xc001_0000.. => value & MASK,
        _ => {
            h.fault_if(value & !MASK != 0, Exception::gp(0))?;
            value
        }
    };
    set_counter(h, counter_of(number), value);
    Ok(())
}

fn set_counter(h: &mut P, i: usize, value: u64) {
    sync(h);
    h.arch.msrs.perf.counters[i] = value;
    changed(h);
}

fn select_of(number: u32) -> usize {
    if number < 0x200 { (number - 0x186) as usize } else { (number & 3) as usize }
}

fn read_select(h: &mut P, number: u32) -> Step<u64> {
    Ok(h.arch.msrs.perf.selects[select_of(number)])
}

fn write_select(h: &mut P, number: u32, value: u64) -> Step {
    set_select(h, select_of(number), value)
}

fn set_select(h: &mut P, i: usize, value: u64) -> Step {
    /// Bits 63 to 32 are reserved with Intel, 19 is pin control or reserved; AMD has EventSelect[11:8], HostOnly, GuestOnly.
    const INTEL: u64 = 0xffff_ffff & !(1 << 21);
    const AMD: u64 = 0x0000_030f_ffff_ffff & !(1 << 19 | 1 << 21);
    let value = if h.arch.model.is_intel() {
        h.fault_if(value & !INTEL != 0, Exception::gp(0))?;
        value
    } else {
        value & AMD
    };
    sync(h);
    h.arch.msrs.perf.selects[i] = value;
    h.arch.msrs.perf.user = h.arch.cpl() == 3;
    changed(h);
    Ok(())
}

/// PERF_CTL and PERF_CTR, in turn.
fn read_pair(h: &mut P, number: u32) -> Step<u64> {
    let i = (number & 15) as usize / 2;
    sync(h);
    let p = &h.arch.msrs.perf;
    Ok(if number.is_multiple_of(2) { p.selects[i] } else { p.counters[i] })
}

fn write_pair(h: &mut P, number: u32, value: u64) -> Step {
    let i = (number & 15) as usize / 2;
    if number.is_multiple_of(2) {
        return set_select(h, i, value);
    }
    set_counter(h, i, value & MASK);
    Ok(())
}

fn read_fixed_control(h: &mut P, _: u32) -> Step<u64> {
    Ok(h.arch.msrs.perf.fixed_control)
}

fn write_fixed_control(h: &mut P, _: u32, value: u64) -> Step {
    h.fault_if(value & !0xbbb != 0, Exception::gp(0))?;
    sync(h);
    h.arch.msrs.perf.fixed_control = value;
    h.arch.msrs.perf.user = h.arch.cpl() == 3;
    changed(h);
    Ok(())
}

/// The bits of counters in the global registers: eight and three with Intel, six with AMD.
pub(crate) fn global_bits(h: &P) -> u64 {
    if h.arch.model.is_intel() { 0xff | 7 << 32 } else { 0x3f }
}

/// IA32_PERF_GLOBAL_STATUS, _CTRL, _OVF_CTRL, and AMD's.
fn read_global(h: &mut P, number: u32) -> Step<u64> {
    sync(h);
    let p = &h.arch.msrs.perf;
    Ok(match number {
        0x38e | 0xc000_0300 => p.status,
        0x38f | 0xc000_0301 => p.control & global_bits(h),
        _ => 0,
    })
}

fn write_global(h: &mut P, number: u32, value: u64) -> Step {
    sync(h);
    let bits = global_bits(h);
    match number {
        0x38e => return Err(Exception::gp(0).into()),
        0xc000_0300 => {} // read-only, and writes are lost
        0x38f | 0xc000_0301 => {
            h.fault_if(value & !bits != 0, Exception::gp(0))?;
            h.arch.msrs.perf.control = value;
        }
        _ => {
            // OvfUncore, OvfBuf, CondChgd.
            let others = if h.arch.model.is_intel() { 7 << 61 } else { PMC_FREEZE };
            h.fault_if(value & !(bits | others | LBR_FRZ) != 0, Exception::gp(0))?;
            h.arch.msrs.perf.status &= !value;
            h.arch.msrs.lbr.frozen &= value & LBR_FRZ == 0;
        }
    }
    changed(h);
    Ok(())
}

/// RDPMC (SDM vol. 2B, "RDPMC—Read Performance-Monitoring Counters"; APM vol. 3): ECX chooses, with bit 30 a fixed counter of Intel's.
pub(crate) fn rdpmc(h: &mut P, ecx: u32) -> Step<u64> {
    let is_intel = h.arch.model.is_intel();
    let i = match ecx {
        0..=7 if is_intel && h.arch.model.has(Feature::ArchPerfmon) => ecx as usize,
        0x4000_0000..=0x4000_0002 if is_intel && h.arch.model.has(Feature::ArchPerfmon) => (ecx & 3) as usize + GENERAL,
        0..=5 if !is_intel => ecx as usize,
        _ => return Err(Exception::gp(0).into()),
    };
    sync(h);
    Ok(h.arch.msrs.perf.counters[i])
}

#[cfg(test)]
mod tests {
    use super::select::{INV, counts_cycles_of_one};

    #[test]
    fn counter_mask() {
        let mask = |n: u64| n << 24;
        assert!(counts_cycles_of_one(0) && counts_cycles_of_one(INV) && counts_cycles_of_one(mask(1)));
        assert!(!counts_cycles_of_one(mask(1) | INV) && !counts_cycles_of_one(mask(2)));
        assert!(counts_cycles_of_one(mask(2) | INV));
    }
}
