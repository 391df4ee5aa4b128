//! Model-specific registers (SDM vol. 4, "Architectural MSRs", "MSRs in the 4th and 5th Generation Intel Xeon Scalable Processor Families";
//! APM vol. 2, appendix A; "Processor Programming Reference for AMD Family 19h Model 11h").
//!
//! [`table::ROWS`] says of each register what it is. Those that are more than storage have functions, here and in [`perf`].
//!
//! APERF and MPERF count what the processor retires.

mod branch_events;
mod cet;
mod mtrr;
pub mod perf;
pub(crate) mod smm;
mod table;

use std::collections::BTreeMap;

use emu_core::engine::Step;
use serde::{Deserialize, Serialize};

use crate::control::{cr0, efer};
use crate::exception::Exception;
use crate::model::{self, Feature, Query, misc_enable};
use crate::processor::{P, ProcessorExt, X86, base_of, segments};
use crate::registers::{FS_BASE, GS_BASE};
use crate::{apic, branch, extension, lbr};
use table::{Kind, row};

/// Numbers of registers that more than the table speaks of.
pub(crate) mod number {
    #![allow(missing_docs, reason = "the manual's names")]
    pub(crate) const TSC: u32 = 0x10;
    pub(crate) const FEATURE_CONTROL: u32 = 0x3a;
    pub(crate) const BIOS_SIGN_ID: u32 = 0x8b;
    pub(crate) const MPERF: u32 = 0xe7;
    pub(crate) const APERF: u32 = 0xe8;
    pub(crate) const MISC_FEATURES_ENABLES: u32 = 0x140;
    pub(crate) const SYSENTER_CS: u32 = 0x174;
    pub(crate) const SYSENTER_ESP: u32 = 0x175;
    pub(crate) const SYSENTER_EIP: u32 = 0x176;
    pub(crate) const MISC_ENABLE: u32 = 0x1a0;
    pub(crate) const SMRR_PHYSBASE: u32 = 0x1f2;
    pub(crate) const SMRR_PHYSMASK: u32 = 0x1f3;
    pub(crate) const DEBUGCTL: u32 = 0x1d9;
    pub(crate) const PAT: u32 = 0x277;
    pub(crate) const EFER: u32 = 0xc000_0080;
    pub(crate) const STAR: u32 = 0xc000_0081;
    pub(crate) const LSTAR: u32 = 0xc000_0082;
    pub(crate) const CSTAR: u32 = 0xc000_0083;
    pub(crate) const FMASK: u32 = 0xc000_0084;
    pub(crate) const FS_BASE: u32 = 0xc000_0100;
    pub(crate) const GS_BASE: u32 = 0xc000_0101;
    pub(crate) const KERNEL_GS_BASE: u32 = 0xc000_0102;
    pub(crate) const TSC_AUX: u32 = 0xc000_0103;
    pub(crate) const MPERF_RO: u32 = 0xc000_00e7;
    pub(crate) const APERF_RO: u32 = 0xc000_00e8;
    pub(crate) const HWCR: u32 = 0xc001_0015;
    pub(crate) const SMM_BASE: u32 = 0xc001_0111;
    pub(crate) const SMM_MASK: u32 = 0xc001_0113;
    pub(crate) const SMM_CTL: u32 = 0xc001_0116;
    pub(crate) const SMM_KEY: u32 = 0xc001_0119;
}
use number as n;

/// EFER.AIBRSE.
const AIBRSE: u64 = 1 << 21;
/// HWCR.
mod hwcr {
    pub(super) const SMM_LOCK: u64 = 1;
    pub(super) const MC_STATUS_WRITE: u64 = 1 << 18;
    pub(super) const CPUID_USER_DISABLE: u64 = 1 << 35;
}

/// State of model-specific registers that have no field of their own in [`X86`].
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Msrs {
    /// Registers of plain storage that do not hold their reset value.
    stored: BTreeMap<u32, u64>,
    /// SMM_KEY.
    smm_key: u64,
    /// IA32_TSC_ADJUST: by how much the TSC is ahead of the machine's clock.
    tsc_adjust: u64,
    /// IA32_BIOS_SIGN_ID.
    signature: u64,
    /// IA32_CSTAR.
    cstar: u64,
    /// IA32_PAT.
    pat: Pat,
    /// By how much IA32_MPERF and IA32_APERF are ahead of the instructions retired.
    perf_adjust: [u64; 2],
    /// Performance counters.
    pub(crate) perf: perf::Perf,
    /// Last branch records.
    pub(crate) lbr: lbr::Lbr,
    /// Who watches branches.
    pub(crate) watch: branch::Watch,
}

/// Memory types by number, a byte each.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Pat(u64);

impl Default for Pat {
    /// After RESET ("Programming the PAT").
    fn default() -> Self {
        Pat(0x0007_0406_0007_0406)
    }
}

impl X86 {
    /// The TSC at a count of the machine's clock.
    pub fn tsc(&self, count: u64) -> u64 {
        count.wrapping_add(self.msrs.tsc_adjust)
    }

    /// What a register of plain storage holds.
    pub(crate) fn stored_msr(&self, number: u32) -> u64 {
        match self.msrs.stored.get(&number) {
            Some(value) => *value,
            None => row(self, number).map_or(0, |r| r.kind.reset(self)),
        }
    }

    /// IA32_CSTAR.
    pub fn cstar(&self) -> u64 {
        self.msrs.cstar
    }

    /// Loads IA32_CSTAR.
    pub fn set_cstar(&mut self, value: u64) {
        self.msrs.cstar = value;
    }

    /// IA32_PAT.
    #[inline]
    pub fn pat(&self) -> u64 {
        self.msrs.pat.0
    }

    /// CPUID is #GP but for the kernel: "CPUID Faulting", HWCR.CpuidUserDis.
    pub(crate) fn faults_cpuid(&self) -> bool {
        if self.model.is_intel() {
            self.stored_msr(n::MISC_FEATURES_ENABLES) & 1 != 0
        } else {
            self.stored_msr(n::HWCR) & hwcr::CPUID_USER_DISABLE != 0
        }
    }

    /// A linear address that a register takes, by WRMSR, LGDT, LIDT, LLDT, LTR: canonical in as many bits as the processor has, whatever the
    /// mode is (SDM vol. 1, "Canonical Addressing").
    pub(crate) fn is_canonical_in_registers(&self, value: u64) -> bool {
        let shift = 64 - u32::from(self.model.linear_bits());
        (value as i64) << shift >> shift == value as i64
    }
}

/// What CPUID answers now; leaf 1 also loads the microcode's revision into IA32_BIOS_SIGN_ID ("Determining the Signature").
pub(crate) fn cpuid(h: &mut P, leaf: u32, subleaf: u32) -> [u32; 4] {
    let a = &h.arch;
    let query = Query {
        model: a.model,
        id: a.id,
        cores: a.cores,
        frequency: h.world.frequency,
        apic: a.apic.is_enabled(),
        cr4: a.cr4,
        xcr0: a.xcr0,
        xss: a.xss,
        misc_enable: if a.model.is_intel() { a.stored_msr(n::MISC_ENABLE) } else { misc_enable::MONITOR },
    };
    if leaf == 1 {
        h.arch.msrs.signature = u64::from(model::INTEL_MICROCODE) << 32;
    }
    let mut answer = model::cpuid(&query, leaf, subleaf);
    if let Some(e) = h.arch.extension.get() {
        e.cpuid(leaf, subleaf, &mut answer);
    }
    answer
}

/// RDMSR: #GP where there is no such register.
pub fn read(h: &mut P, number: u32) -> Step<u64> {
    if h.arch.extension.get().is_some()
        && let Some(own) = extension::act(h, |e, h| e.read_msr(h, number)).flatten()
    {
        return own;
    }
    if let 0x800..=0x8ff = number {
        return apic::read_msr(h, number - 0x800);
    }
    let refused = Exception::gp(0).into();
    let Some(row) = row(h.arch, number) else { return Err(refused) };
    match row.kind {
        Kind::Constant(value) | Kind::Ignored(value) => Ok(value),
        Kind::Computed(f) => Ok(f(h.arch, number, h.world.frequency)),
        Kind::Command { .. } => Err(refused),
        Kind::Stored { .. } | Kind::Kept { .. } | Kind::Locking { .. } | Kind::Checked { .. } => {
            Ok(h.arch.stored_msr(number))
        }
        Kind::Own { read, .. } => read(h, number),
    }
}

/// WRMSR: #GP where there is no such register, or it does not take the value.
pub fn write(h: &mut P, number: u32, value: u64) -> Step {
    if h.arch.extension.get().is_some()
        && let Some(own) = extension::act(h, |e, h| e.write_msr(h, number, value)).flatten()
    {
        return own;
    }
    if let 0x800..=0x8ff = number {
        return apic::write_msr(h, number - 0x800, value);
    }
    let refused = Err(Exception::gp(0).into());
    let Some(row) = row(h.arch, number) else { return refused };
    let value = match row.kind {
        Kind::Constant(_) | Kind::Computed(_) => return refused,
        Kind::Ignored(_) => return Ok(()),
        Kind::Command { writable } => return h.fault_if(value & !writable != 0, Exception::gp(0)),
        Kind::Stored { writable, .. } if value & !writable != 0 => return refused,
        Kind::Checked { is_legal, .. } if !is_legal(h.arch, number, value) => return refused,
        Kind::Kept { writable, .. } => h.arch.stored_msr(number) & !writable | value & writable,
        Kind::Locking { writable, sticky, .. } => {
            let old = h.arch.stored_msr(number);
            old & !writable | value & writable | old & sticky
        }
        Kind::Stored { .. } | Kind::Checked { .. } => value,
        Kind::Own { write, .. } => return write(h, number, value),
    };
    h.arch.msrs.stored.insert(number, value);
    Ok(())
}

/// IA32_PERF_GLOBAL_CTRL.
pub const PERF_GLOBAL_CTRL: u32 = 0x38f;

/// Loads IA32_DEBUGCTL with a value that it may have.
pub fn set_debugctl(h: &mut P, value: u64) {
    if h.arch.debugctl() != value {
        let _ = lbr::write_debugctl(h, n::DEBUGCTL, value);
    }
}

/// Whether IA32_DEBUGCTL may have a value.
pub fn is_debugctl(arch: &X86, value: u64) -> bool {
    lbr::is_debugctl(arch, value)
}

/// Whether IA32_LBR_CTL may have a value.
pub fn is_lbr_ctl(value: u64) -> bool {
    lbr::is_ctl(value)
}

pub use perf::{not_retired, skip_present, world_changes};

/// The bits that there are of IA32_PERF_GLOBAL_CTRL.
pub fn perf_global_bits(h: &P) -> u64 {
    perf::global_bits(h)
}

/// The bits that there are of IA32_EFER.
pub fn defined_efer_bits(h: &P) -> u64 {
    efer_bits(h)
}

/// Loads IA32_PAT with a value that it may have.
#[inline]
pub fn set_pat(h: &mut P, value: u64) {
    h.arch.msrs.pat = Pat(value);
}

fn read_pat(h: &mut P, _: u32) -> Step<u64> {
    Ok(h.arch.pat())
}

fn write_pat(h: &mut P, _: u32, value: u64) -> Step {
    h.fault_if(!pat_is_legal(value), Exception::gp(0))?;
    set_pat(h, value);
    Ok(())
}

/// IA32_PAT ("Memory Types That Can Be Encoded With PAT").
fn pat_is_legal(value: u64) -> bool {
    value.to_le_bytes().iter().all(|b| matches!(b, 0 | 1 | 4..=7))
}

fn read_time(h: &mut P, number: u32) -> Step<u64> {
    Ok(match number {
        n::TSC => extension::tsc(h),
        _ => h.arch.msrs.tsc_adjust,
    })
}

/// IA32_TIME_STAMP_COUNTER, IA32_TSC_ADJUST: a write to either changes both ("Time-Stamp Counter Adjustment").
fn write_time(h: &mut P, number: u32, value: u64) -> Step {
    h.arch.msrs.tsc_adjust = if number == n::TSC { value.wrapping_sub(h.core.count()) } else { value };
    apic::time_changed(h);
    Ok(())
}

fn read_deadline(h: &mut P, _: u32) -> Step<u64> {
    Ok(apic::deadline(h))
}

fn write_deadline(h: &mut P, _: u32, value: u64) -> Step {
    apic::set_deadline(h, value);
    Ok(())
}

fn read_apic_base(h: &mut P, _: u32) -> Step<u64> {
    Ok(h.arch.apic.base())
}

fn write_apic_base(h: &mut P, _: u32, value: u64) -> Step {
    apic::write_base(h, value)
}

/// IA32_FEATURE_CONTROL: until the next reset it is as it was locked.
fn feature_control_is_legal(arch: &X86, number: u32, value: u64) -> bool {
    arch.stored_msr(number) & 1 == 0 && value & !1 == 0
}

fn read_signature(h: &mut P, _: u32) -> Step<u64> {
    Ok(h.arch.msrs.signature)
}

fn write_signature(h: &mut P, _: u32, value: u64) -> Step {
    h.arch.msrs.signature = value;
    Ok(())
}

/// IA32_MPERF, IA32_APERF; AMD has read-only twins.
fn read_aperf(h: &mut P, number: u32) -> Step<u64> {
    Ok(h.core.retired().wrapping_add(h.arch.msrs.perf_adjust[usize::from(matches!(number, n::APERF | n::APERF_RO))]))
}

fn write_aperf(h: &mut P, number: u32, value: u64) -> Step {
    h.fault_if(matches!(number, n::APERF_RO | n::MPERF_RO), Exception::gp(0))?;
    h.arch.msrs.perf_adjust[usize::from(number == n::APERF)] = value.wrapping_sub(h.core.retired());
    Ok(())
}

/// MPERF and APERF, as RDPRU reads them.
pub(crate) fn effective_frequency(h: &mut P, aperf: bool) -> u64 {
    h.core.retired().wrapping_add(h.arch.msrs.perf_adjust[usize::from(aperf)])
}

/// IRPERF.
fn read_irperf(h: &mut P, _: u32) -> Step<u64> {
    Ok(perf::instructions(h))
}

fn write_nothing(_: &mut P, _: u32, _: u64) -> Step {
    Ok(())
}

fn read_refused(_: &mut P, _: u32) -> Step<u64> {
    Err(Exception::gp(0).into())
}

fn write_refused(_: &mut P, _: u32, _: u64) -> Step {
    Err(Exception::gp(0).into())
}

/// IA32_PRED_CMD, PRED_CMD: IBPB, and AMD's SBPB.
fn write_prediction(h: &mut P, _: u32, value: u64) -> Step {
    const IBPB: u64 = 1;
    const SBPB: u64 = 1 << 7;
    let defined = IBPB | if h.arch.model.is_amd() { SBPB } else { 0 };
    h.fault_if(value & !defined != 0, Exception::gp(0))?;
    if value != 0 {
        h.arch.prediction_barrier();
    }
    Ok(())
}

fn read_system_call(h: &mut P, number: u32) -> Step<u64> {
    let a = &h.arch;
    Ok(match number {
        n::SYSENTER_CS => a.sysenter_cs,
        n::SYSENTER_ESP => a.sysenter_esp,
        n::SYSENTER_EIP => a.sysenter_eip,
        n::STAR => a.star,
        n::LSTAR => a.lstar,
        n::CSTAR => a.msrs.cstar,
        _ => a.fmask,
    })
}

/// SYSENTER's and SYSCALL's registers. AMD's parts keep 32 bits of SYSENTER's.
fn write_system_call(h: &mut P, number: u32, value: u64) -> Step {
    let is_intel = h.arch.model.is_intel();
    let takes_address =
        matches!(number, n::LSTAR | n::CSTAR) || is_intel && matches!(number, n::SYSENTER_ESP | n::SYSENTER_EIP);
    h.fault_if(takes_address && !h.arch.is_canonical_in_registers(value), Exception::gp(0))?;
    let sysenter = if is_intel { value } else { value & 0xffff_ffff };
    let a = &mut h.arch;
    match number {
        n::SYSENTER_CS => a.sysenter_cs = value & 0xffff_ffff,
        n::SYSENTER_ESP => a.sysenter_esp = sysenter,
        n::SYSENTER_EIP => a.sysenter_eip = sysenter,
        n::STAR => a.star = value,
        n::LSTAR => a.lstar = value,
        n::CSTAR => a.msrs.cstar = value,
        _ => a.fmask = value & 0xffff_ffff,
    }
    Ok(())
}

fn read_bases(h: &mut P, number: u32) -> Step<u64> {
    Ok(match number {
        n::FS_BASE => base_of(h, segments::FS),
        n::GS_BASE => base_of(h, segments::GS),
        _ => h.arch.kernel_gs_base,
    })
}

fn write_bases(h: &mut P, number: u32, value: u64) -> Step {
    h.fault_if(!h.arch.is_canonical_in_registers(value), Exception::gp(0))?;
    match number {
        n::FS_BASE => h.core.regs[usize::from(FS_BASE)] = value,
        n::GS_BASE => h.core.regs[usize::from(GS_BASE)] = value,
        _ => h.arch.kernel_gs_base = value,
    }
    Ok(())
}

fn read_tsc_aux(h: &mut P, _: u32) -> Step<u64> {
    Ok(h.arch.tsc_aux)
}

/// IA32_TSC_AUX: bits 63 to 32 are reserved with Intel, and ignored with AMD.
fn write_tsc_aux(h: &mut P, _: u32, value: u64) -> Step {
    h.fault_if(h.arch.model.is_intel() && value >> 32 != 0, Exception::gp(0))?;
    h.arch.tsc_aux = value & 0xffff_ffff;
    Ok(())
}

fn read_efer(h: &mut P, _: u32) -> Step<u64> {
    Ok(h.arch.efer)
}

/// IA32_EFER ("Extended Feature Enable Register"): LMA is the processor's to write.
fn write_efer(h: &mut P, _: u32, value: u64) -> Step {
    h.fault_if(value & !efer_bits(h) != 0, Exception::gp(0))?;
    let old = h.arch.efer;
    h.fault_if(h.arch.cr0 & cr0::PG != 0 && (value ^ old) & efer::LME != 0, Exception::gp(0))?;
    if (value ^ old) & efer::NXE != 0 {
        h.core.mmu.drop_spaces(|_| true);
        h.core.spaces_changed = true;
    }
    perf::set_efer(h, value & !efer::LMA | old & efer::LMA);
    Ok(())
}

/// The bits of EFER that there are.
pub(crate) fn efer_bits(h: &P) -> u64 {
    let m = h.arch.model;
    let xd_off = m.is_intel() && h.arch.stored_msr(n::MISC_ENABLE) & misc_enable::XD_DISABLE != 0;
    let defined = [
        (efer::SCE, m.has(Feature::Syscall)),
        (efer::LME | efer::LMA, m.has(Feature::Lm)),
        (efer::NXE, m.has(Feature::Nx) && !xd_off),
        (efer::FFXSR, m.has(Feature::FxsrOpt)),
        (efer::TCE, m.has(Feature::Tce)),
        (efer::MCOMMIT, m.has(Feature::Mcommit)),
        (AIBRSE, m.has(Feature::Autoibrs)),
    ];
    let defined = defined.iter().filter(|(_, there)| *there).fold(0, |bits, (bit, _)| bits | bit);
    defined | h.arch.extension.get().map_or(0, |e| e.efer_bits())
}

fn read_xss(h: &mut P, _: u32) -> Step<u64> {
    Ok(h.arch.xss)
}

fn write_xss(h: &mut P, _: u32, value: u64) -> Step {
    h.fault_if(value & !h.arch.model.xss_bits() != 0, Exception::gp(0))?;
    h.arch.xss = value;
    Ok(())
}

fn read_pkrs(h: &mut P, _: u32) -> Step<u64> {
    Ok(h.arch.pkrs.into())
}

fn write_pkrs(h: &mut P, _: u32, value: u64) -> Step {
    h.fault_if(value >> 32 != 0, Exception::gp(0))?;
    h.arch.pkrs = value as u32;
    h.core.spaces_changed = true;
    Ok(())
}

/// MCi_STATUS: only zeros can be written, unless HWCR lets tests write others.
fn machine_check_is_legal(arch: &X86, value: u64) -> bool {
    value == 0 || arch.model.is_amd() && arch.stored_msr(n::HWCR) & hwcr::MC_STATUS_WRITE != 0
}

#[cfg(test)]
mod tests;
