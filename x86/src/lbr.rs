//! Last branch records: the stack of earlier processors (SDM vol. 3B, "Last Branch, Interrupt, and Exception Recording Overview", "LBR Stack",
//! "Filtering of Last Branch Records"), architectural ones (SDM vol. 3B, "Last Branch Records"), and AMD's (APM vol. 2, "Control-Transfer
//! Recording", "Last Branch Stack"; PPR). Each is a switch of the model; AMD's pair of the last branch is always there.
//!
//! Records hold linear addresses. The cycles between two are instructions. Where the manuals leave room: a record is made where the level that
//! a branch ends in is enabled; IA32_LBR_CTL.LBREn survives a debug exception, and XSAVES.

use emu_core::engine::Step;
use serde::{Deserialize, Serialize};

use crate::branch::{Branch, Kind};
use crate::exception::Exception;
use crate::model::Feature;
use crate::processor::{P, ProcessorExt, X86};

/// IA32_DEBUGCTL, DebugCtl.
pub(crate) mod debugctl {
    pub(crate) const LBR: u64 = 1 << 0;
    pub(crate) const BTF: u64 = 1 << 1;
    /// AMD: pin control.
    pub(crate) const PB: u64 = 0xf << 2;
    pub(crate) const FREEZE_LBRS_ON_PMI: u64 = 1 << 11;
    pub(crate) const FREEZE_PERFMON_ON_PMI: u64 = 1 << 12;
    pub(crate) const FREEZE_WHILE_SMM: u64 = 1 << 14;
}

/// MSR_LBR_SELECT, LBR_SELECT: what is set is not captured. AMD's has no EN_CALLSTACK.
mod select {
    pub(super) const CPL_EQ_0: u64 = 1 << 0;
    pub(super) const CPL_NEQ_0: u64 = 1 << 1;
    pub(super) const JCC: u64 = 1 << 2;
    pub(super) const NEAR_REL_CALL: u64 = 1 << 3;
    pub(super) const NEAR_IND_CALL: u64 = 1 << 4;
    pub(super) const NEAR_RET: u64 = 1 << 5;
    pub(super) const NEAR_IND_JMP: u64 = 1 << 6;
    pub(super) const NEAR_REL_JMP: u64 = 1 << 7;
    pub(super) const FAR_BRANCH: u64 = 1 << 8;
    pub(super) const EN_CALLSTACK: u64 = 1 << 9;
    pub(super) const ALL_AMD: u64 = 0x1ff;
    pub(super) const ALL: u64 = 0x3ff;
}

/// IA32_LBR_CTL: what is set is recorded.
mod ctl {
    pub(super) const LBREN: u64 = 1 << 0;
    pub(super) const OS: u64 = 1 << 1;
    pub(super) const USR: u64 = 1 << 2;
    pub(super) const CALL_STACK: u64 = 1 << 3;
    pub(super) const COND: u64 = 1 << 16;
    pub(super) const NEAR_REL_JMP: u64 = 1 << 17;
    pub(super) const NEAR_IND_JMP: u64 = 1 << 18;
    pub(super) const NEAR_REL_CALL: u64 = 1 << 19;
    pub(super) const NEAR_IND_CALL: u64 = 1 << 20;
    pub(super) const NEAR_RET: u64 = 1 << 21;
    pub(super) const OTHER_BRANCH: u64 = 1 << 22;
    pub(super) const ALL: u64 = 0x7f_000f;
}

/// DBG_EXTN_CFG: two bits that are always set, and LBRV2EN.
mod extension_config {
    pub(super) const RESET: u64 = 3 << 3;
    pub(super) const LBRV2EN: u64 = 1 << 6;
}

/// A record's last word: IA32_LBR_x_INFO. That of the stack, and AMD's registers, are made of it.
mod info {
    pub(super) const MISPRED: u64 = 1 << 63;
    pub(super) const CYC_CNT_VALID: u64 = 1 << 60;
    pub(super) const BR_TYPE_SHIFT: u32 = 56;
    pub(super) const OTHER: u64 = 8;
    pub(super) const CYC_CNT: u64 = 0xffff;
    /// What software may write.
    pub(super) const WRITABLE: u64 = 0xff << 56 | CYC_CNT;
    /// MISPRED, IN_TSX, TSX_ABORT, the count of cycles: what the stack's have.
    pub(super) const OF_STACK: u64 = 7 << 61 | CYC_CNT;
}

/// AMD's: bits of the address; of the second register, that the record is valid.
const AMD_ADDRESS: u64 = (1 << 58) - 1;
const AMD_VALID: u64 = 1 << 63;

/// MSR_LASTBRANCH_0_FROM_IP to MSR_LASTBRANCH_31_FROM_IP.
pub(crate) const DEPTH: usize = 32;
/// AMD's stack.
const DEPTH_AMD: usize = 16;

/// What IA32_PERF_CAPABILITIES.LBR_FMT says: linear addresses, with the rest in MSR_LBR_INFO_x; or that records are architectural.
pub(crate) fn format(model: &crate::model::CpuModel) -> u64 {
    if model.has(Feature::ArchLbr) {
        0x3f
    } else if model.has(Feature::Lbr) {
        7
    } else {
        0
    }
}

/// Leaf 1CH: depths of 8, 16 and 32; addresses are linear; filters of levels and types, call-stack mode; mispredictions, cycles, types.
pub(crate) const LEAF: [u32; 4] = [1 << 31 | 0b1011, 7, 7, 0];

/// A record: from where, to where, and IA32_LBR_x_INFO.
type Record = [u64; 3];

/// All registers of last branch records.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Lbr {
    /// IA32_DEBUGCTL.
    debugctl: u64,
    /// MSR_LBR_SELECT.
    select: u64,
    /// IA32_LBR_CTL.
    ctl: u64,
    /// DBG_EXTN_CFG.
    extension_config: u64,
    /// IA32_PERF_GLOBAL_STATUS.LBR_FRZ and its like: recording has stopped.
    pub(crate) frozen: bool,
    /// The stack; `top` is its latest record.
    records: [Record; DEPTH],
    top: usize,
    /// IA32_LBR_DEPTH.
    depth: usize,
    /// The last branch, and the last one before an interrupt or exception.
    last: Record,
    last_before_event: Record,
    /// What had been retired when the last record was made.
    since: u64,
}

impl Default for Lbr {
    fn default() -> Self {
        Lbr {
            debugctl: 0,
            select: 0,
            ctl: 0,
            extension_config: extension_config::RESET,
            frozen: false,
            records: [[0; 3]; DEPTH],
            top: 0,
            depth: DEPTH,
            last: [0; 3],
            last_before_event: [0; 3],
            since: 0,
        }
    }
}

/// How a model records.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Design {
    /// A stack whose top MSR_LASTBRANCH_TOS names.
    Stack,
    /// IA32_LBR_0_FROM_IP and its like are the latest.
    Architectural,
    /// So are AMD's.
    Amd,
    None,
}

impl Design {
    fn of(arch: &X86) -> Design {
        if arch.model.has(Feature::ArchLbr) {
            Design::Architectural
        } else if arch.model.has(Feature::Lbr) {
            Design::Stack
        } else if arch.model.has(Feature::AmdLbrV2) {
            Design::Amd
        } else {
            Design::None
        }
    }
}

impl X86 {
    /// IA32_DEBUGCTL.
    pub fn debugctl(&self) -> u64 {
        self.msrs.lbr.debugctl
    }

    /// Some branches are recorded.
    pub(crate) fn records_branches(&self) -> bool {
        self.records_stack(Design::of(self)) || self.records_last()
    }

    /// The pair of the last branch is kept: always on AMD, and with Intel's records beside them.
    fn records_last(&self) -> bool {
        let l = &self.msrs.lbr;
        match Design::of(self) {
            Design::Architectural => l.ctl & ctl::LBREN != 0 && !l.frozen,
            _ => l.debugctl & debugctl::LBR != 0,
        }
    }

    fn records_stack(&self, design: Design) -> bool {
        let l = &self.msrs.lbr;
        !l.frozen
            && match design {
                Design::Stack => l.debugctl & debugctl::LBR != 0,
                Design::Architectural => l.ctl & ctl::LBREN != 0,
                Design::Amd => l.extension_config & extension_config::LBRV2EN != 0,
                Design::None => false,
            }
    }
}

impl Lbr {
    /// The register with this number, from 0, is this record.
    fn place(&self, design: Design, i: usize) -> usize {
        match design {
            Design::Stack | Design::None => i,
            Design::Architectural => (self.top + self.depth - i) % self.depth,
            Design::Amd => (self.top + DEPTH_AMD - i) % DEPTH_AMD,
        }
    }

    fn depth(&self, design: Design) -> usize {
        match design {
            Design::Stack | Design::None => DEPTH,
            Design::Architectural => self.depth,
            Design::Amd => DEPTH_AMD,
        }
    }

    /// Whether the filters let a branch pass, and whether calls and returns are paired.
    fn passes(&self, design: Design, b: &Branch) -> (bool, bool) {
        if design == Design::Architectural {
            let level = if b.to_user { ctl::USR } else { ctl::OS };
            let kind = match b.kind {
                Kind::Conditional => ctl::COND,
                Kind::IndirectJump => ctl::NEAR_IND_JMP,
                Kind::RelativeJump => ctl::NEAR_REL_JMP,
                Kind::IndirectCall => ctl::NEAR_IND_CALL,
                Kind::RelativeCall => ctl::NEAR_REL_CALL,
                Kind::Return => ctl::NEAR_RET,
                Kind::Far | Kind::Event => ctl::OTHER_BRANCH,
            };
            return (self.ctl & level != 0 && self.ctl & kind != 0, self.ctl & ctl::CALL_STACK != 0);
        }
        let level = if b.to_user { select::CPL_NEQ_0 } else { select::CPL_EQ_0 };
        let kind = match b.kind {
            Kind::Conditional => select::JCC,
            Kind::IndirectJump => select::NEAR_IND_JMP,
            Kind::RelativeJump => select::NEAR_REL_JMP,
            Kind::IndirectCall => select::NEAR_IND_CALL,
            Kind::RelativeCall => select::NEAR_REL_CALL,
            Kind::Return => select::NEAR_RET,
            Kind::Far | Kind::Event => select::FAR_BRANCH,
        };
        (self.select & (level | kind) == 0, self.select & select::EN_CALLSTACK != 0)
    }

    fn push(&mut self, design: Design, record: Record) {
        self.top = (self.top + 1) % self.depth(design);
        self.records[self.top] = record;
    }

    /// "Call-Stack Mode": a return takes the latest record away.
    fn pop(&mut self, design: Design) {
        if design == Design::Architectural {
            self.records[self.top] = [0; 3];
        }
        let depth = self.depth(design);
        self.top = (self.top + depth - 1) % depth;
    }
}

/// The size of the state component of architectural records ("Architectural LBR State"): five words, and three for each record.
pub const STATE_SIZE: u64 = 8 * (5 + 3 * DEPTH as u64);

impl Lbr {
    /// IA32_LBR_CTL, IA32_LBR_DEPTH, the last branch before an event; from where, to where and what of each record.
    pub(crate) fn state(&self) -> [u64; STATE_SIZE as usize / 8] {
        let mut state = [0; STATE_SIZE as usize / 8];
        (state[0], state[1]) = (self.ctl, self.depth as u64);
        state[2..5].copy_from_slice(&self.last_before_event);
        for (i, record) in state[5..].chunks_exact_mut(3).take(self.depth).enumerate() {
            record.copy_from_slice(&self.records[self.place(Design::Architectural, i)]);
        }
        state
    }

    /// All of it is as after a reset, but for the depth.
    pub(crate) fn is_initial(&self) -> bool {
        self.ctl == 0 && self.last_before_event == [0; 3] && self.records == [[0; 3]; DEPTH]
    }
}

/// Whether IA32_LBR_CTL may have a value.
pub(crate) fn is_ctl(value: u64) -> bool {
    value & !ctl::ALL == 0
}

/// Whether WRMSR would take all words of a [state](Lbr::state).
pub(crate) fn is_state(arch: &X86, words: &[u64]) -> bool {
    let is_record =
        |r: &[u64]| r[..2].iter().all(|ip| arch.is_canonical_in_registers(*ip)) && r[2] & !info::WRITABLE == 0;
    is_ctl(words[0]) && is_depth(words[1]) && words[2..].chunks_exact(3).all(is_record)
}

/// Loads a state. Where it is all zeros, which initializes, the depth stays.
pub(crate) fn set_state(h: &mut P, words: &[u64]) {
    let l = &mut h.arch.msrs.lbr;
    l.ctl = words[0];
    if is_depth(words[1]) {
        l.depth = words[1] as usize;
    }
    l.top = 0;
    let mut records = words[2..].chunks_exact(3).map(|r| [r[0], r[1], r[2]]);
    l.last_before_event = records.next().expect("a state has records");
    for i in 0..l.depth {
        let place = l.place(Design::Architectural, i);
        l.records[place] = records.next().expect("as many as the greatest depth");
    }
    changed(h);
}

/// What IA32_LBR_DEPTH may hold.
fn is_depth(depth: u64) -> bool {
    matches!(depth, 8 | 16 | 32)
}

/// Records a taken branch.
pub(crate) fn record(arch: &mut X86, b: &Branch, now: u64) {
    let design = Design::of(arch);
    let (records_last, records_stack) = (arch.records_last(), arch.records_stack(design));
    let l = &mut arch.msrs.lbr;
    let kind = match b.kind {
        Kind::Far | Kind::Event => info::OTHER,
        near => near as u64,
    };
    let mispredicted = if b.mispredicted { info::MISPRED } else { 0 };
    let cycles = now.wrapping_sub(l.since).min(info::CYC_CNT);
    let record = [b.from, b.to, mispredicted | info::CYC_CNT_VALID | kind << info::BR_TYPE_SHIFT | cycles];
    if records_last {
        l.last = record;
    }
    if !records_stack {
        return;
    }
    let (passes, pairs) = l.passes(design, b);
    if !passes {
        return;
    }
    match b.kind {
        Kind::Return if pairs => l.pop(design),
        // A call of the next instruction only wants to know where it is.
        Kind::RelativeCall if pairs && b.to == b.next => {}
        _ => {
            l.push(design, record);
            l.since = now;
        }
    }
}

/// An interrupt or exception is about to be recorded: the last branch before it is kept ("Last Exception Records"; LastIntFromIP, LastIntToIP).
pub(crate) fn before_event(arch: &mut X86) {
    if arch.records_last() {
        arch.msrs.lbr.last_before_event = arch.msrs.lbr.last;
    }
}

/// A debug exception ends recording, and single-stepping on branches.
pub(crate) fn debug_exception(arch: &mut X86) {
    if arch.debugctl() & (debugctl::LBR | debugctl::BTF) != 0 {
        arch.msrs.lbr.debugctl &= !(debugctl::LBR | debugctl::BTF);
        arch.watch_again();
    }
}

/// A performance-monitoring interrupt comes ("Freezing LBR and Performance Counters on PMI"). Returns whether recording has stopped in a way
/// that the counters' status tells of.
pub(crate) fn freeze(arch: &mut X86) -> bool {
    let freezes = arch.debugctl() & debugctl::FREEZE_LBRS_ON_PMI != 0;
    let design = Design::of(arch);
    let l = &mut arch.msrs.lbr;
    let tells = freezes && matches!(design, Design::Architectural | Design::Amd);
    match design {
        Design::Stack if freezes => l.debugctl &= !debugctl::LBR,
        _ => l.frozen |= tells,
    }
    if freezes {
        arch.watch_again();
    }
    tells
}

fn changed(h: &mut P) {
    h.arch.watch_again();
    h.all_changed();
}

pub(crate) fn read_debugctl(h: &mut P, _: u32) -> Step<u64> {
    Ok(h.arch.debugctl())
}

/// With Intel reserved bits must be 0.
pub(crate) fn is_debugctl(arch: &X86, value: u64) -> bool {
    let freezes = debugctl::FREEZE_LBRS_ON_PMI | debugctl::FREEZE_PERFMON_ON_PMI | debugctl::FREEZE_WHILE_SMM;
    arch.model.is_amd() || value & !(debugctl::LBR | debugctl::BTF | freezes) == 0
}

/// LBR reads as 0 where there is nothing that it could switch on.
pub(crate) fn write_debugctl(h: &mut P, _: u32, value: u64) -> Step {
    let m = h.arch.model;
    h.fault_if(!is_debugctl(h.arch, value), Exception::gp(0))?;
    let both = debugctl::LBR | debugctl::BTF;
    let value = if m.is_intel() {
        if m.has(Feature::Lbr) { value } else { value & !debugctl::LBR }
    } else {
        let freezes = debugctl::FREEZE_LBRS_ON_PMI | debugctl::FREEZE_PERFMON_ON_PMI;
        value & (both | debugctl::PB | if m.has(Feature::AmdLbrPmcFreeze) { freezes } else { 0 })
    };
    h.arch.msrs.lbr.debugctl = value;
    changed(h);
    Ok(())
}

/// The word of which record an MSR is, and how records are read there.
fn entry(h: &P, number: u32) -> Step<(usize, usize)> {
    let design = Design::of(h.arch);
    let (i, word) = match number {
        0x680..=0x69f => (number - 0x680, 0),
        0x6c0..=0x6df => (number - 0x6c0, 1),
        0xdc0..=0xddf => (number - 0xdc0, 2),
        0x1500..=0x151f => (number - 0x1500, 0),
        0x1600..=0x161f => (number - 0x1600, 1),
        0x1200..=0x121f => (number - 0x1200, 2),
        _ => ((number - 0xc001_0300) >> 1, number & 1),
    };
    let l = &h.arch.msrs.lbr;
    h.fault_if(i as usize >= l.depth(design), Exception::gp(0))?;
    Ok((l.place(design, i as usize), word as usize))
}

pub(crate) fn read_record(h: &mut P, number: u32) -> Step<u64> {
    let (i, word) = entry(h, number)?;
    let record = h.arch.msrs.lbr.records[i];
    Ok(match Design::of(h.arch) {
        Design::Stack if word == 2 => record[2] & info::OF_STACK,
        Design::Amd if record == [0; 3] => 0,
        Design::Amd if word == 0 => record[0] & AMD_ADDRESS | record[2] & info::MISPRED,
        Design::Amd => record[1] & AMD_ADDRESS | AMD_VALID,
        _ => record[word],
    })
}

pub(crate) fn write_record(h: &mut P, number: u32, value: u64) -> Step {
    let (i, word) = entry(h, number)?;
    let design = Design::of(h.arch);
    if design == Design::Amd {
        // The mispredicted bit is kept where the other designs have it.
        let record = &mut h.arch.msrs.lbr.records[i];
        record[word] = ((value << 6) as i64 >> 6) as u64;
        if word == 0 {
            record[2] = value & info::MISPRED;
        }
        return Ok(());
    }
    let allowed = if word == 2 {
        value & !(if design == Design::Stack { info::OF_STACK } else { info::WRITABLE }) == 0
    } else {
        h.arch.is_canonical_in_registers(value)
    };
    h.fault_if(!allowed, Exception::gp(0))?;
    h.arch.msrs.lbr.records[i][word] = value;
    Ok(())
}

/// LastBranchFromIP, LastBranchToIP, LastIntFromIP, LastIntToIP; MSR_LER_FROM_LIP, MSR_LER_TO_LIP; IA32_LER_INFO.
/// DebugCtl, LastBranchFromIP, LastBranchToIP, LastIntFromIP, LastIntToIP.
pub(crate) fn last_branches(arch: &X86) -> [u64; 5] {
    let l = &arch.msrs.lbr;
    [l.debugctl, l.last[0], l.last[1], l.last_before_event[0], l.last_before_event[1]]
}

/// Loads them. Bits of DebugCtl that there are not stay 0.
pub(crate) fn set_last_branches(h: &mut P, [debugctl, from, to, event_from, event_to]: [u64; 5]) {
    let l = &mut h.arch.msrs.lbr;
    l.last = [from, to, 0];
    l.last_before_event = [event_from, event_to, 0];
    if debugctl != l.debugctl {
        let _ = write_debugctl(h, crate::msr::number::DEBUGCTL, debugctl);
    }
}

pub(crate) fn read_last(h: &mut P, number: u32) -> Step<u64> {
    let l = &h.arch.msrs.lbr;
    Ok(match number {
        0x1db => l.last[0],
        0x1dc => l.last[1],
        0x1dd => l.last_before_event[0],
        0x1de => l.last_before_event[1],
        _ => l.last_before_event[2],
    })
}

pub(crate) fn write_last(h: &mut P, number: u32, value: u64) -> Step {
    let word = match number {
        0x1dd => 0,
        0x1de => 1,
        _ => 2,
    };
    let allowed = if word == 2 { value & !info::WRITABLE == 0 } else { h.arch.is_canonical_in_registers(value) };
    h.fault_if(!allowed, Exception::gp(0))?;
    h.arch.msrs.lbr.last_before_event[word] = value;
    Ok(())
}

/// MSR_LBR_SELECT, MSR_LASTBRANCH_TOS, IA32_LBR_CTL, IA32_LBR_DEPTH, AMD's LBR_SELECT and DBG_EXTN_CFG.
pub(crate) fn read_control(h: &mut P, number: u32) -> Step<u64> {
    let l = &h.arch.msrs.lbr;
    Ok(match number {
        0x1c8 | 0xc000_010e => l.select,
        0x1c9 => l.top as u64,
        0x14ce => l.ctl,
        0x14cf => l.depth as u64,
        _ => l.extension_config,
    })
}

pub(crate) fn write_control(h: &mut P, number: u32, value: u64) -> Step {
    let allowed = match number {
        0x1c8 => value & !select::ALL == 0,
        0xc000_010e => value & !select::ALL_AMD == 0,
        0x1c9 => value < DEPTH as u64,
        0x14ce => is_ctl(value),
        0x14cf => is_depth(value),
        _ => true,
    };
    h.fault_if(!allowed, Exception::gp(0))?;
    let l = &mut h.arch.msrs.lbr;
    match number {
        0x1c8 | 0xc000_010e => l.select = value,
        0x1c9 => l.top = value as usize,
        0x14ce => l.ctl = value,
        0x14cf => {
            // Another depth begins with no records.
            l.depth = value as usize;
            l.top = 0;
            l.records = [[0; 3]; DEPTH];
        }
        _ => l.extension_config = extension_config::RESET | value & extension_config::LBRV2EN,
    }
    changed(h);
    Ok(())
}
