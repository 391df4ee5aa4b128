//! What each register is.

use emu_core::engine::Step;
use emu_core::time::Frequency;

use super::*;
use crate::model::AMD_MICROCODE;

/// Where a register is.
pub(super) enum On {
    All,
    Intel,
    Amd,
    Has(Feature),
    AmdWithout(Feature),
}

impl On {
    pub(super) fn is_there(&self, arch: &X86) -> bool {
        match self {
            On::All => true,
            On::Intel => arch.model.is_intel(),
            On::Amd => arch.model.is_amd(),
            On::Has(f) => arch.model.has(*f),
            On::AmdWithout(f) => arch.model.is_amd() && !arch.model.has(*f),
        }
    }
}

/// What it is.
pub(super) enum Kind {
    /// Read-only: a write is #GP.
    Constant(u64),
    /// Read-only likewise, by the model and the frequency.
    Computed(fn(&X86, u32, Frequency) -> u64),
    /// Writes are lost.
    Ignored(u64),
    /// Write-only; there is nothing in this machine that it could do. Other bits are #GP.
    Command { writable: u64 },
    /// Storage; other bits are #GP.
    Stored { reset: u64, writable: u64 },
    /// Storage; other bits stay as they are.
    Kept { reset: u64, writable: u64 },
    /// Storage; other bits stay as they are, and so do `sticky` ones that are set.
    Locking { reset: u64, writable: u64, sticky: u64 },
    /// Storage of legal values; others are #GP.
    Checked { reset: u64, is_legal: fn(&X86, u32, u64) -> bool },
    /// More than storage.
    Own { read: fn(&mut P, u32) -> Step<u64>, write: fn(&mut P, u32, u64) -> Step },
}

impl Kind {
    pub(super) fn reset(&self, _: &X86) -> u64 {
        match self {
            Kind::Stored { reset, .. }
            | Kind::Kept { reset, .. }
            | Kind::Locking { reset, .. }
            | Kind::Checked { reset, .. } => *reset,
            _ => 0,
        }
    }
}

/// A register, or several in a row.
pub(super) struct Row {
    pub first: u32,
    pub last: u32,
    pub on: On,
    pub kind: Kind,
}

const fn one(first: u32, on: On, kind: Kind) -> Row {
    Row { first, last: first, on, kind }
}

const fn some(first: u32, last: u32, on: On, kind: Kind) -> Row {
    Row { first, last, on, kind }
}

const ALL: u64 = u64::MAX;
/// Any value.
const ANY: Kind = Kind::Stored { reset: 0, writable: ALL };

/// Machine-check banks.
const BANKS: u32 = 10;
/// MCG_CAP: banks, CMCI, threshold-based status, software error recovery.
const MCG_CAP_INTEL: u64 = BANKS as u64 | 1 << 10 | 1 << 11 | 1 << 24;
const MCG_CAP_AMD: u64 = BANKS as u64 | 1 << 8;

/// IA32_ARCH_CAPABILITIES: RDCL_NO, IBRS_ALL, SKIP_L1DFL_VMENTRY, SSB_NO, MDS_NO, IF_PSCHANGE_MC_NO, TAA_NO, SBDR_SSDP_NO, FBSDP_NO, PSDP_NO,
/// FB_CLEAR, BHI_NO, PBRSB_NO, GDS_NO, RFDS_NO, ITS_NO.
const ARCH_CAPABILITIES: u64 = 1 << 0
    | 1 << 1
    | 1 << 3
    | 1 << 4
    | 1 << 5
    | 1 << 6
    | 1 << 8
    | 1 << 13
    | 1 << 14
    | 1 << 15
    | 1 << 17
    | 1 << 20
    | 1 << 24
    | 1 << 26
    | 1 << 27
    | 1 << 62;

/// DOITM, IA32_UARCH_MISC_CTL is there, comes with UWRMSR, which is for it.
fn arch_capabilities(arch: &X86, _: u32, _: Frequency) -> u64 {
    ARCH_CAPABILITIES | if arch.model.has(Feature::UserMsr) { 1 << 12 } else { 0 }
}

/// IA32_SPEC_CTRL: IBRS, STIBP, SSBD, IPRED_DIS_U and _S, RRSBA_DIS_U and _S, PSFD, BHI_DIS_S.
const SPEC_CTRL_INTEL: u64 = 0x4ff;
/// SPEC_CTRL: IBRS, STIBP, SSBD, PSFD.
const SPEC_CTRL_AMD: u64 = 0x87;

/// IA32_MISC_ENABLE: fast strings, performance monitoring, no BTS, no PEBS, enhanced SpeedStep, MONITOR.
const MISC_ENABLE: u64 = 1 | 1 << 7 | 1 << 11 | 1 << 12 | 1 << 16 | 1 << 18;
const MISC_ENABLE_WRITABLE: u64 = 1 | 1 << 3 | 1 << 16 | 1 << 18 | 1 << 22 | 1 << 23 | 1 << 34 | 1 << 38;

/// SYSCFG: MtrrFixDramEn, MtrrFixDramModEn, MtrrVarDramEn, MtrrTom2En, Tom2ForceMemTypeWB.
const SYSCFG_WRITABLE: u64 = 0x7c_0000;
/// HWCR: TscFreqSel says that the TSC counts at P0's frequency.
const HWCR: u64 = 1 << 24;
const HWCR_WRITABLE: u64 = hwcr::SMM_LOCK
    | 1 << 3
    | 1 << 4
    | 1 << 8
    | 1 << 9
    | 1 << 17
    | 1 << 18
    | 1 << 25
    | 1 << 26
    | 1 << 27
    | 1 << 30
    | 1 << 35;

/// Numbers that there may be rows for: from these on, so many.
const BANKED: [u32; 3] = [0, 0xc000_0000, 0xc001_0000];
const BANK: usize = 0x2100;
/// No row.
const NONE: u8 = u8::MAX;

/// The first row of each number.
static FIRST: [[u8; BANK]; BANKED.len()] = {
    let mut first = [[NONE; BANK]; BANKED.len()];
    let mut i = ROWS.len();
    assert!(i <= NONE as usize);
    while i > 0 {
        i -= 1;
        let bank = match ROWS[i].first >> 16 {
            0xc000 => 1,
            0xc001 => 2,
            _ => 0,
        };
        let mut number = ROWS[i].first;
        while number <= ROWS[i].last {
            first[bank][(number - BANKED[bank]) as usize] = i as u8;
            number += 1;
        }
    }
    first
};

/// The row of a number. The first that fits counts.
pub(super) fn row(arch: &X86, number: u32) -> Option<&'static Row> {
    let bank = BANKED.iter().rposition(|base| *base <= number)?;
    let first = *FIRST[bank].get((number - BANKED[bank]) as usize)?;
    let rows = ROWS.get(usize::from(first)..)?;
    rows.iter().find(|r| (r.first..=r.last).contains(&number) && r.on.is_there(arch))
}

/// Every register.
pub(super) static ROWS: &[Row] = &[
    // SDM vol. 4, "Architectural MSRs", in the order of their numbers.
    some(0x0, 0x1, On::All, Kind::Ignored(0)), // P5_MC_ADDR, P5_MC_TYPE
    one(n::TSC, On::All, Kind::Own { read: read_time, write: write_time }),
    one(0x17, On::Intel, Kind::Constant(0)), // IA32_PLATFORM_ID
    one(0x1b, On::All, Kind::Own { read: read_apic_base, write: write_apic_base }),
    one(0x1c, On::Has(Feature::UserMsr), Kind::Checked { reset: 0, is_legal: user_msr_control_is_legal }),
    one(0x2f, On::Has(Feature::Msrlist), Kind::Constant(0)), // IA32_BARRIER
    one(0x34, On::Intel, Kind::Computed(|a, _, _| a.smm.count.into())), // MSR_SMI_COUNT
    one(0x35, On::Intel, Kind::Computed(|a, _, _| u64::from(a.cores.count) << 16 | u64::from(a.cores.count))), // MSR_CORE_THREAD_COUNT
    one(n::FEATURE_CONTROL, On::Intel, Kind::Checked { reset: 0, is_legal: feature_control_is_legal }),
    one(0x3b, On::Has(Feature::TscAdjust), Kind::Own { read: read_time, write: write_time }),
    one(0x48, On::Has(Feature::SpecCtrl), Kind::Stored { reset: 0, writable: SPEC_CTRL_INTEL }),
    one(0x48, On::Has(Feature::Ibrs), Kind::Stored { reset: 0, writable: SPEC_CTRL_AMD }),
    one(0x49, On::Has(Feature::SpecCtrl), PREDICTION),
    one(0x49, On::Has(Feature::Ibpb), PREDICTION),
    one(0x79, On::Intel, Kind::Command { writable: ALL }), // IA32_BIOS_UPDT_TRIG: an update changes nothing
    one(n::BIOS_SIGN_ID, On::Intel, Kind::Own { read: read_signature, write: write_signature }),
    one(n::BIOS_SIGN_ID, On::Amd, Kind::Constant(AMD_MICROCODE as u64)), // PATCH_LEVEL
    some(0xc1, 0xc8, On::Has(Feature::ArchPerfmon), perf::COUNTER),      // IA32_PMC0 to 7
    one(0xce, On::Intel, Kind::Computed(platform_info)),
    one(0xe1, On::Has(Feature::Waitpkg), Kind::Stored { reset: 0, writable: 0xffff_fffd }), // IA32_UMWAIT_CONTROL
    one(0xe2, On::Intel, Kind::Kept { reset: 1 << 15, writable: 0 }), // MSR_PKG_CST_CONFIG_CONTROL, locked: no package C-states
    some(n::MPERF, n::APERF, On::Has(Feature::Aperfmperf), Kind::Own { read: read_aperf, write: write_aperf }),
    one(0xfe, On::Intel, Kind::Constant(0xd0a)), // IA32_MTRRCAP: SMRR, WC, fixed ranges, ten variable ones
    one(0xfe, On::Amd, Kind::Constant(0x508)),
    one(0x10a, On::Has(Feature::ArchCapabilities), Kind::Computed(arch_capabilities)),
    one(0x10b, On::Has(Feature::FlushL1d), Kind::Command { writable: 1 }), // IA32_FLUSH_CMD
    one(n::MISC_FEATURES_ENABLES, On::Intel, Kind::Stored { reset: 0, writable: 1 }),
    some(n::SYSENTER_CS, n::SYSENTER_EIP, On::Has(Feature::Sep), SYSTEM_CALL),
    one(0x179, On::Intel, Kind::Constant(MCG_CAP_INTEL)),
    one(0x179, On::Amd, Kind::Constant(MCG_CAP_AMD)),
    one(0x17a, On::All, Kind::Stored { reset: 0, writable: 7 }), // IA32_MCG_STATUS
    one(0x17b, On::Amd, Kind::Stored { reset: 0, writable: ALL }), // MCG_CTL
    some(0x186, 0x18d, On::Has(Feature::ArchPerfmon), perf::SELECT), // IA32_PERFEVTSEL0 to 7
    one(0x198, On::Intel, Kind::Computed(|_, _, f| ratio(f) << 8)), // IA32_PERF_STATUS
    one(0x199, On::Intel, ANY),                                  // IA32_PERF_CTL
    one(0x19a, On::Intel, Kind::Stored { reset: 0, writable: 0x1f }), // IA32_CLOCK_MODULATION
    one(0x19b, On::Intel, Kind::Stored { reset: 0, writable: 0x1ff_ff1f }), // IA32_THERM_INTERRUPT
    one(0x19c, On::Intel, Kind::Kept { reset: 0, writable: 0 }), // IA32_THERM_STATUS
    one(n::MISC_ENABLE, On::Intel, Kind::Kept { reset: MISC_ENABLE, writable: MISC_ENABLE_WRITABLE }),
    one(0x1a2, On::Intel, Kind::Constant(100 << 16)), // MSR_TEMPERATURE_TARGET
    one(0x1aa, On::Intel, Kind::Constant(0)),         // MSR_MISC_PWR_MGMT
    some(0x1a6, 0x1a7, On::Has(Feature::ArchPerfmon), ANY), // MSR_OFFCORE_RSP_0, _1
    one(0x1ad, On::Intel, Kind::Computed(|_, _, f| ratio(f) * 0x0101_0101_0101_0101)), // MSR_TURBO_RATIO_LIMIT
    one(0x1ae, On::Intel, Kind::Constant(0x4038_3028_2018_1008)), // MSR_TURBO_RATIO_LIMIT_CORES
    some(0x1c8, 0x1c9, On::Has(Feature::Lbr), LBR_CONTROL), // MSR_LBR_SELECT, MSR_LASTBRANCH_TOS
    one(n::DEBUGCTL, On::All, Kind::Own { read: lbr::read_debugctl, write: lbr::write_debugctl }),
    some(0x1db, 0x1de, On::Amd, Kind::Own { read: lbr::read_last, write: write_refused }), // LastBranchFromIP to LastIntToIP
    some(0x1dd, 0x1de, On::Has(Feature::Lbr), LAST), // MSR_LER_FROM_LIP, MSR_LER_TO_LIP
    some(0x1dd, 0x1de, On::Has(Feature::ArchLbr), LAST), // IA32_LER_FROM_IP, IA32_LER_TO_IP
    one(0x1e0, On::Has(Feature::ArchLbr), LAST),     // IA32_LER_INFO
    some(n::SMRR_PHYSBASE, n::SMRR_PHYSMASK, On::Intel, Kind::Own { read: smm::read_smrr, write: smm::write_smrr }),
    one(0x1fc, On::Intel, ANY), // MSR_POWER_CTL
    some(0x200, 0x213, On::Intel, Kind::Checked { reset: 0, is_legal: variable_range_is_legal }),
    some(0x200, 0x20f, On::Amd, Kind::Checked { reset: 0, is_legal: variable_range_is_legal }),
    one(0x250, On::Has(Feature::Mtrr), FIXED_RANGE),
    some(0x258, 0x259, On::Has(Feature::Mtrr), FIXED_RANGE),
    some(0x268, 0x26f, On::Has(Feature::Mtrr), FIXED_RANGE),
    one(n::PAT, On::Has(Feature::Pat), Kind::Own { read: read_pat, write: write_pat }),
    some(0x280, 0x280 + BANKS - 1, On::Intel, Kind::Stored { reset: 0, writable: 0x4000_7fff }), // IA32_MCi_CTL2
    one(0x2ff, On::Has(Feature::Mtrr), Kind::Checked { reset: 0, is_legal: default_type_is_legal }), // IA32_MTRR_DEF_TYPE
    some(0x309, 0x30b, On::Has(Feature::ArchPerfmon), perf::COUNTER), // IA32_FIXED_CTR0 to 2
    one(0x345, On::Has(Feature::Pdcm), Kind::Computed(|a, _, _| 1 << 13 | lbr::format(&a.model))), // IA32_PERF_CAPABILITIES: full-width writes
    one(0x38d, On::Has(Feature::ArchPerfmon), perf::FIXED_CONTROL),
    some(0x38e, 0x390, On::Has(Feature::ArchPerfmon), perf::GLOBAL),
    some(0x400, 0x400 + 4 * BANKS - 1, On::All, Kind::Checked { reset: 0, is_legal: bank_is_legal }),
    some(0x4c1, 0x4c8, On::Has(Feature::ArchPerfmon), perf::COUNTER), // IA32_A_PMC0 to 7
    some(0x680, 0x69f, On::Has(Feature::Lbr), LBR_RECORD),            // MSR_LASTBRANCH_0_FROM_IP to _31_
    one(0x6a0, On::Has(Feature::Shstk), cet::CONTROL),                // IA32_U_CET
    one(0x6a0, On::Has(Feature::Ibt), cet::CONTROL),
    one(0x6a2, On::Has(Feature::Shstk), cet::CONTROL), // IA32_S_CET
    one(0x6a2, On::Has(Feature::Ibt), cet::CONTROL),
    some(0x6a4, 0x6a7, On::Has(Feature::Shstk), cet::POINTER),
    one(0x6a8, On::Has(Feature::Shstk), cet::TABLE),
    some(0x6c0, 0x6df, On::Has(Feature::Lbr), LBR_RECORD), // MSR_LASTBRANCH_0_TO_IP
    one(0x6e0, On::Has(Feature::TscDeadline), Kind::Own { read: read_deadline, write: write_deadline }),
    one(0x6e1, On::Has(Feature::Pks), Kind::Own { read: read_pkrs, write: write_pkrs }),
    one(0xda0, On::Has(Feature::Xsaves), Kind::Own { read: read_xss, write: write_xss }),
    some(0xdc0, 0xddf, On::Has(Feature::Lbr), LBR_RECORD), // MSR_LBR_INFO_0
    some(0x1200, 0x121f, On::Has(Feature::ArchLbr), LBR_RECORD), // IA32_LBR_0_INFO
    some(0x14ce, 0x14cf, On::Has(Feature::ArchLbr), LBR_CONTROL), // IA32_LBR_CTL, IA32_LBR_DEPTH
    some(0x1500, 0x151f, On::Has(Feature::ArchLbr), LBR_RECORD), // IA32_LBR_0_FROM_IP
    some(0x1600, 0x161f, On::Has(Feature::ArchLbr), LBR_RECORD), // IA32_LBR_0_TO_IP
    one(0x1b01, On::Has(Feature::UserMsr), Kind::Stored { reset: 0, writable: 1 }), // IA32_UARCH_MISC_CTL
    // Of both.
    one(n::EFER, On::All, Kind::Own { read: read_efer, write: write_efer }),
    some(n::STAR, n::FMASK, On::Has(Feature::Syscall), SYSTEM_CALL),
    some(n::MPERF_RO, n::APERF_RO, On::Has(Feature::EffFreqRo), Kind::Own { read: read_aperf, write: write_aperf }),
    one(0xc000_00e9, On::Has(Feature::Irperf), Kind::Own { read: read_irperf, write: write_nothing }),
    some(n::FS_BASE, n::KERNEL_GS_BASE, On::Has(Feature::Lm), Kind::Own { read: read_bases, write: write_bases }),
    one(n::TSC_AUX, On::Has(Feature::Rdtscp), Kind::Own { read: read_tsc_aux, write: write_tsc_aux }),
    // APM vol. 2, appendix A; PPR, "MSR Registers".
    some(0xc000_010e, 0xc000_010f, On::Has(Feature::AmdLbrV2), LBR_CONTROL), // LBR_SELECT, DBG_EXTN_CFG
    some(0xc000_0300, 0xc000_0302, On::Has(Feature::PerfmonV2), perf::GLOBAL),
    some(
        0xc000_2000,
        0xc000_2000 + 16 * BANKS - 1,
        On::Has(Feature::Smca),
        Kind::Checked { reset: 0, is_legal: smca_is_legal },
    ),
    some(0xc001_0000, 0xc001_0003, On::Amd, perf::SELECT), // PERF_LEGACY_CTL
    some(0xc001_0004, 0xc001_0007, On::Amd, perf::COUNTER),
    one(0xc001_0010, On::Amd, Kind::Kept { reset: 0, writable: SYSCFG_WRITABLE }),
    one(n::HWCR, On::Amd, Kind::Locking { reset: HWCR, writable: HWCR_WRITABLE, sticky: hwcr::SMM_LOCK }),
    some(0xc001_0016, 0xc001_0019, On::Amd, ANY), // IORRs
    one(0xc001_001a, On::Amd, Kind::Kept { reset: 0, writable: 0x000f_ffff_ff80_0000 }), // TOP_MEM
    one(0xc001_001d, On::Amd, Kind::Kept { reset: 0, writable: 0x000f_ffff_ff80_0000 }), // TOM2
    one(0xc001_001f, On::Amd, ANY),               // NB_CFG
    one(0xc001_0020, On::Amd, Kind::Command { writable: ALL }), // PATCH_LOADER: an update changes nothing
    one(0xc001_0022, On::Amd, ANY),               // McExcepRedir
    some(0xc001_0030, 0xc001_0035, On::Amd, Kind::Computed(processor_name)),
    one(0xc001_0055, On::Amd, Kind::Ignored(0)),  // INT_PENDING
    one(0xc001_0058, On::Amd, ANY),               // MmioCfgBaseAddr
    one(0xc001_0061, On::Amd, Kind::Constant(0)), // PStateCurLim: P0 is all there is
    one(0xc001_0062, On::Amd, Kind::Stored { reset: 0, writable: 7 }),
    one(0xc001_0063, On::Amd, Kind::Constant(0)),
    one(0xc001_0064, On::Amd, Kind::Computed(pstate)),
    some(0xc001_0065, 0xc001_006b, On::Amd, ANY),
    one(0xc001_0073, On::Amd, Kind::Stored { reset: 0, writable: 0xffff }), // CStateBaseAddr
    some(n::SMM_BASE, n::SMM_MASK, On::Amd, Kind::Own { read: smm::read_amd, write: smm::write_amd }),
    one(0xc001_0114, On::Amd, Kind::Kept { reset: 1 << 4 | 1 << 3, writable: 7 }), // VM_CR: SVMDIS, LOCK
    one(0xc001_0115, On::Amd, ANY),                                                // IGNNE
    one(n::SMM_CTL, On::AmdWithout(Feature::NoSmmCtlMsr), Kind::Own { read: read_refused, write: smm::write_control }),
    one(n::SMM_KEY, On::Amd, Kind::Own { read: smm::read_key, write: smm::write_key }),
    some(0xc001_0140, 0xc001_0141, On::Has(Feature::Osvw), ANY),
    some(0xc001_0200, 0xc001_020b, On::Has(Feature::PerfctrCore), perf::PAIR),
    one(0xc001_0293, On::Amd, Kind::Computed(pstate)), // hardware P-state status
    some(0xc001_0300, 0xc001_031f, On::Has(Feature::AmdLbrV2), LBR_RECORD), // LastBranchStackFromIP, ToIP, in turn
    some(0xc001_0400, 0xc001_0400 + BANKS - 1, On::Has(Feature::Smca), ANY), // MCA_CTL_MASK
    some(0xc001_1020, 0xc001_1023, On::Amd, ANY),      // LS_CFG, IC_CFG, DC_CFG, TW_CFG
    one(0xc001_1028, On::Amd, ANY),                    // FP_CFG
    one(0xc001_1029, On::Amd, Kind::Stored { reset: 2, writable: ALL }), // DE_CFG: LFENCE waits for what is before it
    some(0xc001_102a, 0xc001_102e, On::Amd, ANY),      // CU_CFG2, CU_CFG3, EX_CFG, LS_CFG2, BP_CFG
    one(0xc001_10e3, On::Amd, ANY),                    // DE_CFG2
];

const LBR_CONTROL: Kind = Kind::Own { read: lbr::read_control, write: lbr::write_control };
const LBR_RECORD: Kind = Kind::Own { read: lbr::read_record, write: lbr::write_record };
const LAST: Kind = Kind::Own { read: lbr::read_last, write: lbr::write_last };
const SYSTEM_CALL: Kind = Kind::Own { read: read_system_call, write: write_system_call };
const PREDICTION: Kind = Kind::Own { read: read_refused, write: write_prediction };
const FIXED_RANGE: Kind = Kind::Checked { reset: 0, is_legal: fixed_range_is_legal };

/// The ratio of the TSC's frequency to 100 MHz.
fn ratio(f: Frequency) -> u64 {
    (f.hertz() / 100_000_000).clamp(1, 255)
}

/// MSR_PLATFORM_INFO: the highest ratio without turbo, CPUID faulting, the lowest ratio.
fn platform_info(_: &X86, _: u32, f: Frequency) -> u64 {
    ratio(f) << 8 | 1 << 31 | ratio(f) << 40
}

/// P-state 0: enabled, FID and DID. The core's frequency is 200 MHz * FID / DID.
fn pstate(_: &X86, number: u32, f: Frequency) -> u64 {
    let enabled = if number == 0xc001_0064 { 1 << 63 } else { 0 };
    enabled | 8 << 8 | (f.hertz() / 25_000_000).clamp(1, 255)
}

/// ProcNameString: what Fn8000_0002 to Fn8000_0004 say.
fn processor_name(arch: &X86, number: u32, frequency: Frequency) -> u64 {
    let i = number - 0xc001_0030;
    let query = Query {
        model: arch.model,
        id: 0,
        cores: 1.into(),
        frequency,
        apic: true,
        cr4: 0,
        xcr0: 1,
        xss: 0,
        misc_enable: 0,
    };
    let r = model::cpuid(&query, 0x8000_0002 + i / 2, 0);
    let at = 2 * (i % 2) as usize;
    u64::from(r[at]) | u64::from(r[at + 1]) << 32
}

/// "Memory Types That Can Be Encoded in MTRRs".
fn is_memory_type(value: u64) -> bool {
    matches!(value & 0xff, 0 | 1 | 4..=6)
}

/// IA32_MTRR_PHYSBASEn and _PHYSMASKn.
fn variable_range_is_legal(arch: &X86, number: u32, value: u64) -> bool {
    let address = ((1 << arch.model.physical_bits) - 1) & !0xfff;
    if number.is_multiple_of(2) {
        value & !(address | 0xff) == 0 && is_memory_type(value)
    } else {
        value & !(address | 1 << 11) == 0
    }
}

/// IA32_USER_MSR_CTL: enable, and the address of the bitmap.
fn user_msr_control_is_legal(arch: &X86, _: u32, value: u64) -> bool {
    value & 0xffe == 0 && arch.is_canonical_in_registers(value)
}

/// A byte for each range; with AMD's RdMem and WrMem, where SYSCFG.MtrrFixDramModEn lets them be seen.
fn fixed_range_is_legal(arch: &X86, _: u32, value: u64) -> bool {
    let dram = if arch.model.is_amd() && arch.stored_msr(0xc001_0010) & 1 << 19 != 0 { 0x18 } else { 0 };
    value.to_le_bytes().iter().all(|b| is_memory_type(u64::from(*b) & !dram))
}

fn default_type_is_legal(_: &X86, _: u32, value: u64) -> bool {
    value & !0xcff == 0 && is_memory_type(value)
}

/// IA32_MCi_CTL, _STATUS, _ADDR, _MISC. Intel's parts enable all errors of a bank or none.
fn bank_is_legal(arch: &X86, number: u32, value: u64) -> bool {
    match number % 4 {
        0 => arch.model.is_amd() || value == 0 || value == u64::MAX,
        1 => machine_check_is_legal(arch, value),
        _ => true,
    }
}

/// Scalable MCA: sixteen registers a bank. STATUS and DESTAT are as above, the others free.
fn smca_is_legal(arch: &X86, number: u32, value: u64) -> bool {
    !matches!(number % 16, 1 | 8) || machine_check_is_legal(arch, value)
}
