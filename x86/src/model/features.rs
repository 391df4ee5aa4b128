//! Features, by the names that Linux has for them in /proc/cpuinfo, and where CPUID tells of each.

use serde::{Deserialize, Serialize};

/// Registers of CPUID's answer, as indices.
const EAX: u8 = 0;
const EBX: u8 = 1;
const ECX: u8 = 2;
const EDX: u8 = 3;

/// Where CPUID tells of a feature: leaf, subleaf, register, bit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place {
    pub leaf: u32,
    pub subleaf: u32,
    pub register: u8,
    pub bit: u8,
}

/// Whether a model has a feature.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum In {
    /// Unless it is switched off.
    On,
    /// If it is switched on.
    Off,
    /// Parts of this kind never have it.
    No,
}

/// All that is known of a feature.
pub(super) struct Row {
    pub feature: Feature,
    pub name: &'static str,
    pub place: Place,
    pub intel: In,
    pub amd: In,
}

macro_rules! features {
    ($($name:ident $text:literal $leaf:literal $subleaf:literal $register:ident $bit:literal $intel:ident $amd:ident;)*) => {
        /// What a processor may have.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
        #[repr(u8)]
        #[allow(missing_docs, reason = "the names say it")]
        pub enum Feature { $($name,)* }

        pub(super) const ROWS: &[Row] = &[$(Row {
            feature: Feature::$name,
            name: $text,
            place: Place { leaf: $leaf, subleaf: $subleaf, register: $register, bit: $bit },
            intel: In::$intel,
            amd: In::$amd,
        },)*];
    };
}

features! {
//  feature      name                  leaf        subleaf, bit      Intel AMD
    Fpu         "fpu"                  1           0 EDX 0           On    On;
    Vme         "vme"                  1           0 EDX 1           On    On;
    De          "de"                   1           0 EDX 2           On    On;
    Pse         "pse"                  1           0 EDX 3           On    On;
    Tsc         "tsc"                  1           0 EDX 4           On    On;
    Msr         "msr"                  1           0 EDX 5           On    On;
    Pae         "pae"                  1           0 EDX 6           On    On;
    Mce         "mce"                  1           0 EDX 7           On    On;
    Cx8         "cx8"                  1           0 EDX 8           On    On;
    Apic        "apic"                 1           0 EDX 9           On    On;
    Sep         "sep"                  1           0 EDX 11          On    On;
    Mtrr        "mtrr"                 1           0 EDX 12          On    On;
    Pge         "pge"                  1           0 EDX 13          On    On;
    Mca         "mca"                  1           0 EDX 14          On    On;
    Cmov        "cmov"                 1           0 EDX 15          On    On;
    Pat         "pat"                  1           0 EDX 16          On    On;
    Pse36       "pse36"                1           0 EDX 17          On    On;
    Clflush     "clflush"              1           0 EDX 19          On    On;
    Mmx         "mmx"                  1           0 EDX 23          On    On;
    Fxsr        "fxsr"                 1           0 EDX 24          On    On;
    Sse         "sse"                  1           0 EDX 25          On    On;
    Sse2        "sse2"                 1           0 EDX 26          On    On;
    SelfSnoop   "ss"                   1           0 EDX 27          On    No;
    Sse3        "pni"                  1           0 ECX 0           On    On;
    Pclmulqdq   "pclmulqdq"            1           0 ECX 1           On    On;
    Monitor     "monitor"              1           0 ECX 3           On    On;
    Ssse3       "ssse3"                1           0 ECX 9           On    On;
    Fma         "fma"                  1           0 ECX 12          On    On;
    Cx16        "cx16"                 1           0 ECX 13          On    On;
    Pdcm        "pdcm"                 1           0 ECX 15          On    No;
    Pcid        "pcid"                 1           0 ECX 17          On    On;
    Sse41       "sse4_1"               1           0 ECX 19          On    On;
    Sse42       "sse4_2"               1           0 ECX 20          On    On;
    X2apic      "x2apic"               1           0 ECX 21          On    On;
    Movbe       "movbe"                1           0 ECX 22          On    On;
    Popcnt      "popcnt"               1           0 ECX 23          On    On;
    TscDeadline "tsc_deadline_timer"   1           0 ECX 24          On    No;
    Aes         "aes"                  1           0 ECX 25          On    On;
    Xsave       "xsave"                1           0 ECX 26          On    On;
    Avx         "avx"                  1           0 ECX 28          On    On;
    F16c        "f16c"                 1           0 ECX 29          On    On;
    Rdrand      "rdrand"               1           0 ECX 30          On    On;
    Arat        "arat"                 6           0 EAX 2           On    On;
    Aperfmperf  "aperfmperf"           6           0 ECX 0           On    On;
    Fsgsbase    "fsgsbase"             7           0 EBX 0           On    On;
    TscAdjust   "tsc_adjust"           7           0 EBX 1           On    No;
    Bmi1        "bmi1"                 7           0 EBX 3           On    On;
    Avx2        "avx2"                 7           0 EBX 5           On    On;
    Smep        "smep"                 7           0 EBX 7           On    On;
    Bmi2        "bmi2"                 7           0 EBX 8           On    On;
    Erms        "erms"                 7           0 EBX 9           On    On;
    Invpcid     "invpcid"              7           0 EBX 10          On    On;
    Rdseed      "rdseed"               7           0 EBX 18          On    On;
    Adx         "adx"                  7           0 EBX 19          On    On;
    Smap        "smap"                 7           0 EBX 20          On    On;
    Clflushopt  "clflushopt"           7           0 EBX 23          On    On;
    Clwb        "clwb"                 7           0 EBX 24          On    On;
    ShaNi       "sha_ni"               7           0 EBX 29          On    On;
    Umip        "umip"                 7           0 ECX 2           On    On;
    Pku         "pku"                  7           0 ECX 3           On    On;
    Waitpkg     "waitpkg"              7           0 ECX 5           On    No;
    Shstk       "shstk"                7           0 ECX 7           On    On;
    Gfni        "gfni"                 7           0 ECX 8           On    On;
    Vaes        "vaes"                 7           0 ECX 9           On    On;
    Vpclmulqdq  "vpclmulqdq"           7           0 ECX 10          On    On;
    La57        "la57"                 7           0 ECX 16          Off   Off;
    Rdpid       "rdpid"                7           0 ECX 22          On    On;
    Cldemote    "cldemote"             7           0 ECX 25          On    No;
    Movdiri     "movdiri"              7           0 ECX 27          On    No;
    Movdir64b   "movdir64b"            7           0 ECX 28          On    No;
    Pks         "pks"                  7           0 ECX 31          Off   No;
    Fsrm        "fsrm"                 7           0 EDX 4           On    On;
    MdClear     "md_clear"             7           0 EDX 10          On    No;
    Serialize   "serialize"            7           0 EDX 14          On    No;
    ArchLbr     "arch_lbr"             7           0 EDX 19          Off   No;
    Ibt         "ibt"                  7           0 EDX 20          On    No;
    SpecCtrl    "spec_ctrl"            7           0 EDX 26          On    No;
    IntelStibp  "intel_stibp"          7           0 EDX 27          On    No;
    FlushL1d    "flush_l1d"            7           0 EDX 28          On    No;
    ArchCapabilities "arch_capabilities" 7         0 EDX 29          On    No;
    Ssbd        "ssbd"                 7           0 EDX 31          On    No;
    Fzrm        "fzrm"                 7           1 EAX 10          On    No;
    Fsrs        "fsrs"                 7           1 EAX 11          On    No;
    Fsrc        "fsrc"                 7           1 EAX 12          On    No;
    Wrmsrns     "wrmsrns"              7           1 EAX 19          Off   No;
    Lam         "lam"                  7           1 EAX 26          Off   No;
    Msrlist     "msrlist"              7           1 EAX 27          Off   No;
    MsrImm      "msr_imm"              7           1 ECX 5           Off   No;
    UserMsr     "user_msr"             7           1 EDX 15          Off   No;
    IntelPsfd   "intel_psfd"           7           2 EDX 0           On    No;
    IpredCtrl   "ipred_ctrl"           7           2 EDX 1           On    No;
    RrsbaCtrl   "rrsba_ctrl"           7           2 EDX 2           On    No;
    BhiCtrl     "bhi_ctrl"             7           2 EDX 4           On    No;
    Xsaveopt    "xsaveopt"             0xd         1 EAX 0           On    On;
    Xsavec      "xsavec"               0xd         1 EAX 1           On    On;
    Xgetbv1     "xgetbv1"              0xd         1 EAX 2           On    On;
    Xsaves      "xsaves"               0xd         1 EAX 3           On    On;
    LahfLm      "lahf_lm"              0x8000_0001 0 ECX 0           On    On;
    Extapic     "extapic"              0x8000_0001 0 ECX 3           No    On;
    Cr8Legacy   "cr8_legacy"           0x8000_0001 0 ECX 4           No    On;
    Abm         "abm"                  0x8000_0001 0 ECX 5           On    On;
    Sse4a       "sse4a"                0x8000_0001 0 ECX 6           No    On;
    Prefetchw   "3dnowprefetch"        0x8000_0001 0 ECX 8           On    On;
    Osvw        "osvw"                 0x8000_0001 0 ECX 9           No    On;
    Tce         "tce"                  0x8000_0001 0 ECX 17          No    On;
    Topoext     "topoext"              0x8000_0001 0 ECX 22          No    On;
    PerfctrCore "perfctr_core"         0x8000_0001 0 ECX 23          No    On;
    Mwaitx      "mwaitx"               0x8000_0001 0 ECX 29          No    On;
    Syscall     "syscall"              0x8000_0001 0 EDX 11          On    On;
    Nx          "nx"                   0x8000_0001 0 EDX 20          On    On;
    Mmxext      "mmxext"               0x8000_0001 0 EDX 22          No    On;
    FxsrOpt     "fxsr_opt"             0x8000_0001 0 EDX 25          No    On;
    Pdpe1gb     "pdpe1gb"              0x8000_0001 0 EDX 26          On    On;
    Rdtscp      "rdtscp"               0x8000_0001 0 EDX 27          On    On;
    Lm          "lm"                   0x8000_0001 0 EDX 29          On    On;
    Succor      "succor"               0x8000_0007 0 EBX 1           No    On;
    Smca        "smca"                 0x8000_0007 0 EBX 3           No    On;
    HwPstate    "hw_pstate"            0x8000_0007 0 EDX 7           No    On;
    NonstopTsc  "nonstop_tsc"          0x8000_0007 0 EDX 8           On    On;
    EffFreqRo   "eff_freq_ro"          0x8000_0007 0 EDX 10          No    On;
    Clzero      "clzero"               0x8000_0008 0 EBX 0           No    On;
    Irperf      "irperf"               0x8000_0008 0 EBX 1           No    On;
    Xsaveerptr  "xsaveerptr"           0x8000_0008 0 EBX 2           No    On;
    Invlpgb     "invlpgb"              0x8000_0008 0 EBX 3           No    On;
    Rdpru       "rdpru"                0x8000_0008 0 EBX 4           No    On;
    Mcommit     "mcommit"              0x8000_0008 0 EBX 8           No    Off;
    Wbnoinvd    "wbnoinvd"             0x8000_0008 0 EBX 9           On    On;
    Ibpb        "ibpb"                 0x8000_0008 0 EBX 12          No    On;
    Ibrs        "ibrs"                 0x8000_0008 0 EBX 14          No    On;
    Stibp       "stibp"                0x8000_0008 0 EBX 15          No    On;
    StibpAlways "stibp_always_on"      0x8000_0008 0 EBX 17          No    On;
    LmsleUnsupported "no_lmsle"        0x8000_0008 0 EBX 20          No    On;
    InvlpgbNested "invlpgb_nested"     0x8000_0008 0 EBX 21          No    On;
    AmdSsbd     "amd_ssbd"             0x8000_0008 0 EBX 24          No    On;
    AmdPsfd     "amd_psfd"             0x8000_0008 0 EBX 28          No    On;
    IbpbRet     "ibpb_ret"             0x8000_0008 0 EBX 30          No    On;
    NoNestedDataBp "no_nested_data_bp" 0x8000_0021 0 EAX 0           No    On;
    LfenceRdtsc "lfence_rdtsc"         0x8000_0021 0 EAX 2           No    On;
    NullSelClrBase "null_sel_clr_base" 0x8000_0021 0 EAX 6           No    On;
    Autoibrs    "autoibrs"             0x8000_0021 0 EAX 8           No    On;
    NoSmmCtlMsr "no_smm_ctl_msr"       0x8000_0021 0 EAX 9           No    On;
    CpuidUserDis "cpuid_user_dis"      0x8000_0021 0 EAX 17          No    On;
    Sbpb        "sbpb"                 0x8000_0021 0 EAX 27          No    On;
    IbpbBrtype  "ibpb_brtype"          0x8000_0021 0 EAX 28          No    On;
    SrsoNo      "srso_no"              0x8000_0021 0 EAX 29          No    On;
    PerfmonV2   "perfmon_v2"           0x8000_0022 0 EAX 0           No    On;
    AmdLbrV2    "amd_lbr_v2"           0x8000_0022 0 EAX 1           No    Off;
    AmdLbrPmcFreeze "amd_lbr_pmc_freeze" 0x8000_0022 0 EAX 2         No    Off;
//  Leaf 0AH tells of this one in a way of its own; here it stands for its MSRs and its leaf.
    ArchPerfmon "arch_perfmon"         0xffff_ffff 0 EAX 0           On    No;
//  CPUID tells of these two if the extension is there.
    Vmx         "vmx"                  0xffff_ffff 0 EAX 2           On    No;
    Svm         "svm"                  0xffff_ffff 0 EAX 3           No    On;
//  Nobody tells of this one: the processor holds VMCBs, and what their clean bits call clean it does not read anew.
    VmcbCache   "vmcb_cache"           0xffff_ffff 0 EAX 4           No    On;
//  So it does of what SVM has.
    Npt         "npt"                  0x8000_000a 0 EDX 0           No    On;
    Lbrv        "lbrv"                 0x8000_000a 0 EDX 1           No    On;
    SvmLock     "svm_lock"             0x8000_000a 0 EDX 2           No    On;
    NripSave    "nrip_save"            0x8000_000a 0 EDX 3           No    On;
    TscScale    "tsc_scale"            0x8000_000a 0 EDX 4           No    On;
    VmcbClean   "vmcb_clean"           0x8000_000a 0 EDX 5           No    On;
    FlushByAsid "flushbyasid"          0x8000_000a 0 EDX 6           No    On;
    DecodeAssists "decodeassists"      0x8000_000a 0 EDX 7           No    On;
    PauseFilter "pausefilter"          0x8000_000a 0 EDX 10          No    On;
    PfThreshold "pfthreshold"          0x8000_000a 0 EDX 12          No    On;
    Avic        "avic"                 0x8000_000a 0 EDX 13          No    On;
    VVmsaveVmload "v_vmsave_vmload"    0x8000_000a 0 EDX 15          No    On;
    Vgif        "vgif"                 0x8000_000a 0 EDX 16          No    On;
    Gmet        "gmet"                 0x8000_000a 0 EDX 17          No    On;
    X2avic      "x2avic"               0x8000_000a 0 EDX 18          No    On;
    SssCheck    "sss_check"            0x8000_000a 0 EDX 19          No    On;
    VSpecCtrl   "v_spec_ctrl"          0x8000_000a 0 EDX 20          No    On;
    TlbiCtl     "tlbi_ctl"             0x8000_000a 0 EDX 24          No    On;
    Vnmi        "vnmi"                 0x8000_000a 0 EDX 25          No    On;
    ExtLvtAvicAccess "ext_lvt_avic_access" 0x8000_000a 0 EDX 27      No    On;
    SvmeAddrChk "svme_addr_chk"        0x8000_000a 0 EDX 28          No    On;
    BusLockThreshold "bus_lock_threshold" 0x8000_000a 0 EDX 29       No    On;
    IdleHlt     "idle_hlt"             0x8000_000a 0 EDX 30          No    On;
    X2avicExt   "x2avic_ext"           0x8000_000a 0 ECX 6           No    On;
//  IA32_PERF_CAPABILITIES tells of this one: the stack of last branch records that is not architectural.
    Lbr         "lbr"                  0xffff_ffff 0 EAX 1           Off   No;
}

/// A set of features.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Features([u64; 4]);

const _: () = assert!(ROWS.len() <= 256);

impl Features {
    /// Whether it is in the set.
    pub const fn has(self, f: Feature) -> bool {
        self.0[f as usize / 64] >> (f as usize % 64) & 1 != 0
    }

    /// Puts it in, or takes it out.
    pub fn set(&mut self, f: Feature, on: bool) {
        let (word, bit) = (f as usize / 64, f as usize % 64);
        self.0[word] = self.0[word] & !(1 << bit) | u64::from(on) << bit;
    }

    /// The bits of a register of a leaf that tell of features in the set.
    pub(super) fn bits(self, leaf: u32, subleaf: u32, register: usize) -> u32 {
        let here = |p: &Place| p.leaf == leaf && p.subleaf == subleaf && usize::from(p.register) == register;
        ROWS.iter().filter(|r| here(&r.place) && self.has(r.feature)).fold(0, |bits, r| bits | 1 << r.place.bit)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_places_are_unique() {
        for (i, a) in ROWS.iter().enumerate() {
            assert_eq!(a.feature as usize, i);
            for b in &ROWS[..i] {
                assert!(a.name != b.name && a.place != b.place, "{} and {}", a.name, b.name);
            }
        }
    }
}
