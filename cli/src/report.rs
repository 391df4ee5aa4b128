//! What is told at the end of a run, and the lists that `undervisor` prints.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::Write as _;

use emu_core::bus::Bus;
use emu_core::device::Device;
use emu_core::event::{Failed, Handled, LAST_EXACT, LEVELS, REASONS, Rule, Stats, level_name};
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
    (
        "Tools",
        "yes",
        "traces, statistics by level and reason, entries that fail by rule, HTML report, inspect, GDB; levels beyond 2 are inferred",
    ),
    (
        "x86 VMX: not there",
        "no",
        "HLAT, dual-monitor treatment of SMIs, SGX, PT, SEAM, PASID translation, FRED; memory types of EPT change nothing",
    ),
    (
        "x86 VT-d",
        "yes",
        "legacy mode with all depths and page sizes, pass-through, queued invalidation, fault logging, interrupt remapping with x2APIC, posting; no scalable mode, no device TLBs",
    ),
    (
        "x86 SVM",
        "yes",
        "all checks of VMRUN by rule, clean bits honoured, ASID tags and TLB control, intercepts, decode assists, nested paging in all modes, GMET, virtual GIF and NMIs, AVIC and x2AVIC, LBR, VMLOAD, SPEC_CTRL and TSC virtualization, PAUSE filter, idle HLT, INVLPGB, bus-lock threshold, supervisor shadow stacks, SMIs in guests",
    ),
    ("x86 SVM: not there", "no", "SKINIT, SEV, Secure AVIC, IBS and PMC virtualization, an IOMMU of AMD's"),
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

/// What has been counted of a reason.
#[derive(Clone, Copy, Debug, Default)]
pub struct Counted {
    /// How often.
    pub times: u64,
    /// How it was handled, if it was an exit.
    pub handled: Handled,
}

/// What has been counted: level, reason, how often. Reasons of one name are one.
pub fn counted(
    counts: &[[u64; REASONS]; LEVELS],
    handled: Option<&[[Handled; REASONS]; LEVELS]>,
    name: ReasonName,
) -> BTreeMap<(u8, &'static str), Counted> {
    let mut all: BTreeMap<_, Counted> = BTreeMap::new();
    for (level, counts) in counts.iter().enumerate() {
        for (reason, times) in counts.iter().enumerate().filter(|(_, n)| **n != 0) {
            let counted = all.entry((level as u8, name(reason as u32))).or_default();
            counted.times += times;
            let one = handled.map_or_else(Handled::default, |h| h[level][reason]);
            counted.handled.times += one.times;
            counted.handled.instructions += one.instructions;
        }
    }
    all
}

/// The mean number of the hypervisor's instructions from an exit to the next entry.
pub fn mean(handled: Handled) -> Option<f64> {
    (handled.times != 0).then(|| handled.instructions as f64 / handled.times as f64)
}

fn by_count(all: BTreeMap<(u8, &'static str), Counted>) -> Vec<((u8, &'static str), Counted)> {
    let mut all: Vec<_> = all.into_iter().collect();
    all.sort_by_key(|((level, _), counted)| (*level, u64::MAX - counted.times));
    all
}

fn exit_table(text: &mut String, stats: &Stats, name: ReasonName) {
    let all = by_count(counted(&stats.exits, Some(&stats.handled), name));
    let _ = writeln!(
        text,
        "\nlevel  {:40} {:>12} {:>7} {:>12}",
        "exits, traps and interrupts", "count", "share", "handled in"
    );
    let mut total = [0; LEVELS];
    all.iter().for_each(|((level, _), counted)| total[usize::from(*level)] += counted.times);
    for ((level, reason), counted) in all {
        let share = 100.0 * counted.times as f64 / total[usize::from(level)] as f64;
        let mean = mean(counted.handled).map_or_else(String::new, |mean| format!("{mean:>12.1}"));
        let level = level_name(level);
        let line = format!("{level:6} {reason:40} {:>12} {share:>6.1}% {mean}", counted.times);
        let _ = writeln!(text, "{}", line.trim_end());
    }
}

fn injection_table(text: &mut String, stats: &Stats, name: ReasonName) {
    let all = by_count(counted(&stats.injections, None, name));
    if all.is_empty() {
        return;
    }
    let _ = writeln!(text, "\nlevel  {:40} {:>12}", "made pending for the guest at this level", "count");
    for ((level, reason), counted) in all {
        let _ = writeln!(text, "{:6} {reason:40} {:>12}", level_name(level), counted.times);
    }
}

/// Entries that failed, by rule.
pub fn failed_table(stats: &Stats) -> String {
    let mut text = String::new();
    if stats.failed.is_empty() {
        return text;
    }
    let _ = writeln!(text, "\nVM entries that failed {:>21}  last value: rule", "count");
    for (rule, failed) in &stats.failed {
        let (what, value) = (format!("{}: {}", rule.seen, rule.field), failed.value);
        let _ = writeln!(text, "{what:34} {:>9}  {value:#x}: {}", failed.times, rule.rule);
    }
    text
}

/// The counts as a table, by level.
pub fn stats_table(stats: &Stats, name: ReasonName) -> String {
    let mut text = String::from("level  instructions\n");
    for (level, n) in (0..).zip(&stats.instructions).filter(|(_, n)| **n != 0) {
        let _ = writeln!(text, "{:6} {n:>15}", level_name(level));
    }
    exit_table(&mut text, stats, name);
    injection_table(&mut text, stats, name);
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
    text + &failed_table(stats)
}

/// Prints the counts, beside the console.
pub fn print_stats(stats: &Stats, name: ReasonName) {
    let _ = std::io::stderr().write_all(stats_table(stats, name).as_bytes()); // there is no better place for it to be said
}

/// What devices have counted, if any has.
pub fn print_device_counts(bus: &Bus) {
    let mut text = String::new();
    for device in bus.devices() {
        for (name, n) in device.counts() {
            let _ = writeln!(text, "{:6} {name:40} {n:>12}", device.name());
        }
    }
    if !text.is_empty() {
        let _ = std::io::stderr().write_all(format!("\ndevice\n{text}").as_bytes()); // likewise
    }
}

/// The same for the summary.
pub fn devices_json(bus: &Bus) -> Value {
    let counts = |d: &dyn Device| d.counts().into_iter().map(|(name, n)| (name.to_owned(), n.into())).collect();
    let all = bus.devices().map(|d| (d.name().to_owned(), Value::Object(counts(d))));
    Value::Object(all.filter(|(_, counts)| counts.as_object().is_some_and(|c| !c.is_empty())).collect())
}

/// The counts for the summary.
pub fn stats_json(stats: &Stats, name: ReasonName) -> Value {
    let mut levels = serde_json::Map::new();
    let exits = counted(&stats.exits, Some(&stats.handled), name);
    let injections = counted(&stats.injections, None, name);
    for (level, n) in (0..).zip(&stats.instructions) {
        let by_reason = |all: &BTreeMap<(u8, &'static str), Counted>, value: fn(&Counted) -> Option<Value>| {
            let of_level = all.iter().filter(|((l, _), _)| *l == level);
            of_level
                .filter_map(|((_, reason), c)| Some(((*reason).to_owned(), value(c)?)))
                .collect::<serde_json::Map<_, _>>()
        };
        let exits_by = by_reason(&exits, |c| Some(c.times.into()));
        let injections = by_reason(&injections, |c| Some(c.times.into()));
        if *n == 0 && exits_by.is_empty() && injections.is_empty() {
            continue;
        }
        let mut of_level = json!({ "instructions": n, "exits": exits_by, "injections": injections });
        let handled = by_reason(&exits, |c| mean(c.handled).map(Value::from));
        if !handled.is_empty() {
            of_level["mean_handler_instructions"] = Value::Object(handled);
        }
        if level > LAST_EXACT {
            of_level["inferred"] = true.into();
        }
        levels.insert(format!("L{level}"), of_level);
    }
    Value::Object(levels)
}

/// Entries that failed, for the summary.
pub fn failed_json(stats: &Stats) -> Value {
    let one = |(rule, failed): (&Rule, &Failed)| {
        let value = format!("{:#x}", failed.value);
        json!({ "seen": rule.seen, "field": rule.field, "rule": rule.rule, "count": failed.times, "last_value": value })
    };
    stats.failed.iter().map(one).collect()
}
