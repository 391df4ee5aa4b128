//! Appendix "SVM Intercept Exit Codes". Up to BFH an exit code is the number of its intercept's bit, in the intercept vectors of the VMCB.

#![allow(missing_docs, reason = "the manual's names")]

pub const CR_READ: u64 = 0x00;
pub const CR_WRITE: u64 = 0x10;
pub const DR_READ: u64 = 0x20;
pub const DR_WRITE: u64 = 0x30;
pub const EXCEPTION: u64 = 0x40;

macro_rules! codes {
    ($($name:ident = $code:literal $text:literal;)*) => {
        $(pub const $name: u64 = $code;)*
        const NAMES: &[(u64, &str)] = &[$(($code, $text),)*];
    };
}

codes! {
    INTR = 0x60 "INTR";
    NMI = 0x61 "NMI";
    SMI = 0x62 "SMI";
    INIT = 0x63 "INIT";
    VINTR = 0x64 "VINTR";
    CR0_SELECTIVE_WRITE = 0x65 "CR0_SEL_WRITE";
    IDTR_READ = 0x66 "IDTR_READ";
    GDTR_READ = 0x67 "GDTR_READ";
    LDTR_READ = 0x68 "LDTR_READ";
    TR_READ = 0x69 "TR_READ";
    IDTR_WRITE = 0x6a "IDTR_WRITE";
    GDTR_WRITE = 0x6b "GDTR_WRITE";
    LDTR_WRITE = 0x6c "LDTR_WRITE";
    TR_WRITE = 0x6d "TR_WRITE";
    RDTSC = 0x6e "RDTSC";
    RDPMC = 0x6f "RDPMC";
    PUSHF = 0x70 "PUSHF";
    POPF = 0x71 "POPF";
    CPUID = 0x72 "CPUID";
    RSM = 0x73 "RSM";
    IRET = 0x74 "IRET";
    INTN = 0x75 "SWINT";
    INVD = 0x76 "INVD";
    PAUSE = 0x77 "PAUSE";
    HLT = 0x78 "HLT";
    INVLPG = 0x79 "INVLPG";
    INVLPGA = 0x7a "INVLPGA";
    IOIO = 0x7b "IOIO";
    MSR = 0x7c "MSR";
    TASK_SWITCH = 0x7d "TASK_SWITCH";
    FERR_FREEZE = 0x7e "FERR_FREEZE";
    SHUTDOWN = 0x7f "SHUTDOWN";
    VMRUN = 0x80 "VMRUN";
    VMMCALL = 0x81 "VMMCALL";
    VMLOAD = 0x82 "VMLOAD";
    VMSAVE = 0x83 "VMSAVE";
    STGI = 0x84 "STGI";
    CLGI = 0x85 "CLGI";
    SKINIT = 0x86 "SKINIT";
    RDTSCP = 0x87 "RDTSCP";
    ICEBP = 0x88 "ICEBP";
    WBINVD = 0x89 "WBINVD";
    MONITOR = 0x8a "MONITOR";
    MWAIT = 0x8b "MWAIT";
    MWAIT_CONDITIONAL = 0x8c "MWAIT_CONDITIONAL";
    XSETBV = 0x8d "XSETBV";
    RDPRU = 0x8e "RDPRU";
    EFER_WRITE_TRAP = 0x8f "EFER_WRITE_TRAP";
    CR_WRITE_TRAP = 0x90 "CR0_WRITE_TRAP";
    INVLPGB = 0xa0 "INVLPGB";
    INVLPGB_ILLEGAL = 0xa1 "INVLPGB_ILLEGAL";
    INVPCID = 0xa2 "INVPCID";
    MCOMMIT = 0xa3 "MCOMMIT";
    TLBSYNC = 0xa4 "TLBSYNC";
    BUS_LOCK = 0xa5 "BUSLOCK";
    IDLE_HLT = 0xa6 "IDLE_HLT";
    NPF = 0x400 "NPF";
    AVIC_INCOMPLETE_IPI = 0x401 "AVIC_INCOMPLETE_IPI";
    AVIC_NOACCEL = 0x402 "AVIC_NOACCEL";
    INVALID = 0xffff_ffff_ffff_ffff "INVALID";
}

const READS: [&str; 16] = [
    "CR0_READ",
    "CR1_READ",
    "CR2_READ",
    "CR3_READ",
    "CR4_READ",
    "CR5_READ",
    "CR6_READ",
    "CR7_READ",
    "CR8_READ",
    "CR9_READ",
    "CR10_READ",
    "CR11_READ",
    "CR12_READ",
    "CR13_READ",
    "CR14_READ",
    "CR15_READ",
];
const WRITES: [&str; 16] = [
    "CR0_WRITE",
    "CR1_WRITE",
    "CR2_WRITE",
    "CR3_WRITE",
    "CR4_WRITE",
    "CR5_WRITE",
    "CR6_WRITE",
    "CR7_WRITE",
    "CR8_WRITE",
    "CR9_WRITE",
    "CR10_WRITE",
    "CR11_WRITE",
    "CR12_WRITE",
    "CR13_WRITE",
    "CR14_WRITE",
    "CR15_WRITE",
];
const DEBUG_READS: [&str; 16] = [
    "DR0_READ",
    "DR1_READ",
    "DR2_READ",
    "DR3_READ",
    "DR4_READ",
    "DR5_READ",
    "DR6_READ",
    "DR7_READ",
    "DR8_READ",
    "DR9_READ",
    "DR10_READ",
    "DR11_READ",
    "DR12_READ",
    "DR13_READ",
    "DR14_READ",
    "DR15_READ",
];
const DEBUG_WRITES: [&str; 16] = [
    "DR0_WRITE",
    "DR1_WRITE",
    "DR2_WRITE",
    "DR3_WRITE",
    "DR4_WRITE",
    "DR5_WRITE",
    "DR6_WRITE",
    "DR7_WRITE",
    "DR8_WRITE",
    "DR9_WRITE",
    "DR10_WRITE",
    "DR11_WRITE",
    "DR12_WRITE",
    "DR13_WRITE",
    "DR14_WRITE",
    "DR15_WRITE",
];
const EXCEPTIONS: [&str; 32] = [
    "EXCP_DE", "EXCP_DB", "EXCP_NMI", "EXCP_BP", "EXCP_OF", "EXCP_BR", "EXCP_UD", "EXCP_NM", "EXCP_DF", "EXCP9",
    "EXCP_TS", "EXCP_NP", "EXCP_SS", "EXCP_GP", "EXCP_PF", "EXCP15", "EXCP_MF", "EXCP_AC", "EXCP_MC", "EXCP_XF",
    "EXCP20", "EXCP_CP", "EXCP22", "EXCP23", "EXCP24", "EXCP25", "EXCP26", "EXCP27", "EXCP_HV", "EXCP_VC", "EXCP_SX",
    "EXCP31",
];
const WRITE_TRAPS: [&str; 16] = [
    "CR0_WRITE_TRAP",
    "CR1_WRITE_TRAP",
    "CR2_WRITE_TRAP",
    "CR3_WRITE_TRAP",
    "CR4_WRITE_TRAP",
    "CR5_WRITE_TRAP",
    "CR6_WRITE_TRAP",
    "CR7_WRITE_TRAP",
    "CR8_WRITE_TRAP",
    "CR9_WRITE_TRAP",
    "CR10_WRITE_TRAP",
    "CR11_WRITE_TRAP",
    "CR12_WRITE_TRAP",
    "CR13_WRITE_TRAP",
    "CR14_WRITE_TRAP",
    "CR15_WRITE_TRAP",
];

/// The manual's name of an exit code, without VMEXIT_ before it.
pub fn name(code: u64) -> &'static str {
    known(code).unwrap_or("an exit code that is not known")
}

/// Likewise, if it is known.
pub fn known(code: u64) -> Option<&'static str> {
    let i = (code & 15) as usize;
    Some(match code {
        0x00..0x10 => READS[i],
        0x10..0x20 => WRITES[i],
        0x20..0x30 => DEBUG_READS[i],
        0x30..0x40 => DEBUG_WRITES[i],
        0x40..0x60 => EXCEPTIONS[(code - EXCEPTION) as usize],
        0x90..0xa0 => WRITE_TRAPS[i],
        _ => NAMES.iter().find(|(c, _)| *c == code)?.1,
    })
}

/// Where statistics have those that are no intercepts.
const BEYOND: u64 = 0xe0;
/// Where they have VMEXIT_INVALID.
const INVALID_INDEX: u64 = 0xff;

/// The number by which statistics know an exit code, below 256.
pub fn index(code: u64) -> u32 {
    match code {
        0..=0xbf => code as u32,
        NPF..=0x41e => (code - NPF + BEYOND) as u32,
        _ => INVALID_INDEX as u32,
    }
}

/// The exit code that statistics know by a number.
pub fn of_index(index: u32) -> u64 {
    match u64::from(index) {
        i @ 0..=0xbf => i,
        INVALID_INDEX => INVALID,
        i => i.wrapping_sub(BEYOND).wrapping_add(NPF),
    }
}
