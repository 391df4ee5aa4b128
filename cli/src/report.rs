//! What is told at the end of a run, and the lists that `undervisor` prints.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::Write as _;

use emu_core::event::{LEVELS, REASONS, Stats};
use riscv::cpu::{CpuConfig, Ext};
use serde_json::{Value, json};
use x86::model::{CpuModel, Vendor};

/// The models and the extensions of each.
pub fn cpus() -> String {
    let mut text = String::from("RISC-V models (--cpu MODEL,+EXT,-EXT):\n");
    for (name, what) in CpuConfig::MODELS {
        let _ = writeln!(text, "  {name:6} {what}");
    }
    text.push_str("\nExtensions (on: part of rv64):\n");
    for ext in Ext::ALL.iter().filter(|e| **e != Ext::I) {
        let state = if ext.is_default() { "on " } else { "off" };
        let needs: Vec<_> = ext.needs().iter().map(|e| e.name()).collect();
        let needs = if needs.is_empty() { String::new() } else { format!("needs {}", needs.join(", ")) };
        let _ = writeln!(text, "  {state} {:12} {needs}", ext.name());
    }
    for (vendor, name) in [(Vendor::Intel, "intel"), (Vendor::Amd, "amd")] {
        let model = CpuModel::of(vendor);
        let _ = writeln!(text, "\nx86 model {name} (--cpu {name},+FEATURE,-FEATURE):");
        let on: Vec<_> = model.switches().filter(|name| !model.optional().any(|o| o == *name)).collect();
        let _ = writeln!(text, "  on  {}", on.join(" "));
        let off: Vec<_> = model.optional().collect();
        let _ = writeln!(text, "  off {}", off.join(" "));
    }
    text
}

/// What there is and what there is not: area, state, what it covers.
const FEATURES: &[(&str, &str, &str)] = &[
    ("RV64 base", "yes", "IMAFDC, Zicsr, Zifencei, Zicntr, Zihpm; misaligned loads and stores in hardware"),
    ("Bit manipulation", "yes", "Zba, Zbb, Zbc, Zbs, Zbkb, Zbkc, Zbkx"),
    ("Atomics", "yes", "Zaamo, Zalrsc, Zabha, Zacas, Zawrs"),
    ("Floating point", "yes", "F, D, Zfh, Zfhmin, Zfa: all rounding modes, flags, NaN boxing, exact"),
    ("Cache blocks", "yes", "Zicbom, Zicbop, Zicboz"),
    ("Other unprivileged", "yes", "Zicond, Zihintpause, Zihintntl, Zimop, Zcmop, Zcb, Zkr"),
    ("Vector", "no", "V 1.0, and so RVA23"),
    ("Privilege", "yes", "M, S, U, HS, VS, VU; PMP with 16 entries"),
    ("Paging", "yes", "Sv39, Sv48, Sv57; Svade, Svadu, Svinval, Svnapot, Svpbmt, Svvptc"),
    ("Hypervisor", "yes", "H 1.0: two stages to Sv57x4, htinst, HLV/HSV, virtual-instruction exceptions"),
    ("Timers", "yes", "Sstc with vstimecmp; ACLINT"),
    ("State enable", "yes", "Smstateen, Ssstateen"),
    ("Counters", "yes", "Sscofpmf, Smcntrpmf, Smcdeleg, Ssccfg; cycles, instructions, traps, interrupts, page walks"),
    ("Double traps, NMI", "yes", "Ssdbltrp; Smdbltrp and Smrnmi as switches that are off by default"),
    ("Interrupts", "yes", "PLIC; AIA: Smaia, Ssaia, APLIC, IMSIC with up to 63 guest files"),
    ("Pointer masking, CFI", "no", "Smnpm, Ssnpm, Zicfilp, Zicfiss"),
    ("Debug triggers", "no", "Sdtrig: there are none, and tinfo says so"),
    ("IOMMU", "no", "RISC-V IOMMU"),
    ("User-mode network", "no", "a network device has no other end"),
    (
        "x86 modes",
        "yes",
        "real, virtual-8086 with VME, 16 and 32-bit protected with tasks and call gates, compatibility, 64-bit",
    ),
    (
        "x86 paging",
        "yes",
        "32-bit, PSE, PAE, 4 and 5 levels; PCID, NX, WP, SMEP, SMAP, UMIP, PKU, PKS, LAM as switches",
    ),
    (
        "x86 instructions",
        "yes",
        "x86-64-v3, x87, MMX, AES, VAES, SHA, PCLMUL, GFNI, SSE4A, ADX, XSAVE family, MOVDIR64B, WAITPKG",
    ),
    ("x86 models", "yes", "intel (family 6, model 8FH), amd (family 19H, model 11H): CPUID and MSRs, features by name"),
    (
        "x86 local APIC",
        "yes",
        "xAPIC, x2APIC, TSC deadline; INIT and start-up messages; IPIs to more than 255 processors",
    ),
    (
        "x86 counters",
        "yes",
        "cycles, instructions, branches by kind and those predicted wrongly, with overflow interrupts; no events of caches, no PEBS",
    ),
    (
        "x86 branch records",
        "yes",
        "last branches as switches: lbr, arch_lbr with XSAVES, amd_lbr_v2; AMD's pair always; filters, call stacks, freezing",
    ),
    (
        "x86 debugging",
        "yes",
        "debug registers, single-stepping, also on branches, shadows of STI and MOV SS, general detect",
    ),
    ("x86 AVX-512", "no", "the state components and instructions of EVEX"),
    ("x86 CET", "yes", "shadow stacks and IBT in all transfers, tasks and XSAVES, as the switches shstk and ibt"),
    ("x86 MSR instructions", "yes", "WRMSRNS, RDMSRLIST, WRMSRLIST, URDMSR, UWRMSR and immediates, as switches"),
    ("x86 SMM", "yes", "maps of both vendors, SMRAM with TSEG, SMRR, SMMADDR"),
    ("x86 MTRR, PAT, MCA", "part", "registers are held and checked; memory types change nothing, and no bank reports"),
    (
        "x86 PC",
        "yes",
        "Q35, i440FX; bzImage, PVH, Multiboot 1 and 2, ELF; SeaBIOS, OVMF, also with SMM; ACPI with S3 and NUMA, SMBIOS, virtio by PCI and MMIO",
    ),
    (
        "x86 VMX",
        "yes",
        "all instructions; VM entries with every check, VM exits with all they tell; VPID-tagged translations; preemption timer, MTF, windows, virtual NMIs",
    ),
    (
        "x86 VMX: virtual APIC",
        "yes",
        "TPR shadow, APIC accesses by memory and MSRs, register virtualization, virtual and posted interrupts, IPI virtualization",
    ),
    (
        "x86 VMX: EPT",
        "yes",
        "4 and 5 levels, A/D flags with PML, execution by mode, sub-pages, supervisor shadow stacks, #VE, EPTP switching",
    ),
    (
        "x86 VMX: further",
        "yes",
        "VMCS shadowing, MSR lists and MSRs by immediates, IA32_SPEC_CTRL, IA32_LBR_CTL, instruction timeout",
    ),
    ("x86 VT-d", "no", "not yet"),
    ("x86 SVM", "no", "not yet"),
    ("Arm EL2", "no", "not yet"),
];

/// The features as a table.
pub fn features() -> String {
    FEATURES.iter().fold(String::new(), |mut text, (area, state, what)| {
        let _ = writeln!(text, "{area:22} {state:4} {what}");
        text
    })
}

/// How an architecture names its reasons.
pub type ReasonName = fn(u32) -> &'static str;

/// What has been counted: level, reason, how often. Reasons of one name are one.
fn counted(counts: &[[u64; REASONS]; LEVELS], name: ReasonName) -> BTreeMap<(usize, &'static str), u64> {
    let mut all = BTreeMap::new();
    for (level, counts) in counts.iter().enumerate() {
        for (reason, n) in counts.iter().enumerate().filter(|(_, n)| **n != 0) {
            *all.entry((level, name(reason as u32))).or_insert(0) += n;
        }
    }
    all
}

fn count_table(text: &mut String, title: &str, counts: &[[u64; REASONS]; LEVELS], name: ReasonName) {
    let mut all: Vec<_> = counted(counts, name).into_iter().collect();
    all.sort_by_key(|((level, _), n)| (*level, u64::MAX - n));
    let _ = writeln!(text, "\nlevel  {title:40} {:>12}", "count");
    for ((level, reason), n) in all {
        let _ = writeln!(text, "L{level:<5} {reason:40} {n:>12}");
    }
}

/// The counts as a table, by level.
pub fn stats_table(stats: &Stats, name: ReasonName) -> String {
    let mut text = String::from("level  instructions\n");
    for (level, n) in stats.instructions.iter().enumerate().filter(|(_, n)| **n != 0) {
        let _ = writeln!(text, "L{level:<5} {n:>15}");
    }
    count_table(&mut text, "exits, traps and interrupts", &stats.exits, name);
    if stats.injections.as_flattened().iter().any(|n| *n != 0) {
        count_table(&mut text, "made pending for the guest at this level", &stats.injections, name);
    }
    let switches: Vec<_> = (0..LEVELS)
        .flat_map(|a| (0..LEVELS).map(move |b| (a, b)))
        .map(|(a, b)| (a, b, stats.switches[a][b]))
        .filter(|(.., n)| *n != 0)
        .collect();
    if !switches.is_empty() {
        text.push_str("\nworld switches\n");
        for (from, to, n) in switches {
            let _ = writeln!(text, "L{from} -> L{to} {n:>15}");
        }
    }
    text
}

/// Prints the counts, beside the console.
pub fn print_stats(stats: &Stats, name: ReasonName) {
    let _ = std::io::stderr().write_all(stats_table(stats, name).as_bytes()); // there is no better place for it to be said
}

/// The counts for the summary.
pub fn stats_json(stats: &Stats, name: ReasonName) -> Value {
    let mut levels = serde_json::Map::new();
    for level in 0..LEVELS {
        let by_reason = |counts| {
            let of_level = counted(counts, name).into_iter().filter(|((l, _), _)| *l == level);
            of_level.map(|((_, reason), n)| (reason.to_owned(), n.into())).collect::<serde_json::Map<_, _>>()
        };
        let (exits, injections) = (by_reason(&stats.exits), by_reason(&stats.injections));
        let n = stats.instructions[level];
        if n != 0 || !exits.is_empty() || !injections.is_empty() {
            levels.insert(format!("L{level}"), json!({ "instructions": n, "exits": exits, "injections": injections }));
        }
    }
    Value::Object(levels)
}
