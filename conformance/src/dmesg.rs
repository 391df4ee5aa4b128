//! What a kernel complains about on its console, less what it also complains about elsewhere.
//!
//! The guest prints its log with levels (`dmesg -r`). A complaint is a line of level 4 ("warning") or worse, or one with a word
//! that means trouble whatever its level, or such a line of Xen's. The same kernels were run with the same command lines under
//! QEMU 11.1 (q35 and pc; `-cpu max`, `SapphireRapids`, `EPYC-Genoa`; with Xen, and through OVMF), and the complaints compared:
//! [`KNOWN`] has what is left of ours, and why it is.

/// Words that mean trouble at any level.
const ALARMS: &[&str] = &[
    "unchecked MSR",
    "WARNING",
    "Call Trace",
    "BUG",
    "Firmware Bug",
    "failed",
    "fail to",
    "unsupported",
    "not supported",
    "can't claim",
    "not reserved",
    "no compatible",
    "unexpected",
    "timed out",
    "unstable",
    "soft lockup",
    " stall",
    "mismatch",
    "Error:",
];

/// A line of level 4 has this before it, one of level 0 too.
const LEVELS: std::ops::RangeInclusive<char> = '0'..='4';

/// Parts of lines that are no fault of the machine, and where else they are seen.
const KNOWN: &[(&str, &str)] = &[
    ("amd_pstate: The CPPC feature is supported but", "under QEMU as EPYC-Genoa: neither board has _CPC objects"),
    ("Please enable it if your BIOS has the CPPC option", "its second line"),
    ("amd_pstate: the _CPC object is not present", "under QEMU, all models with CPPC"),
    ("can't access extended configuration space", "under QEMU on pc with an Intel model: an i440FX has no ECAM"),
    ("mtrr: your CPUs had inconsistent", "under QEMU, through SeaBIOS with more than one processor"),
    ("full-width counters, Intel PMU driver", "a line that is continued loses its level; on all with such counters"),
    ("CPUID marked event:", "the model tells by CPUID 0AH which events it does not count; no PMU under QEMU"),
    ("is not supported as a normal event", "7.2 says so, for information, of topdown events; no PMU under QEMU"),
    ("Grant table initialized", "under QEMU with Xen: printed without a level"),
    ("hpet_acpi_add: no address or irqs in _CRS", "under QEMU with Xen: its HPET has no interrupt in _CRS either"),
    ("PM-Timer failed consistency check", "under QEMU with Xen, which keeps the timer from its domains"),
    ("unsupported p6 CPU model", "under QEMU with Xen, which hides the performance counters"),
    ("intel_pstate: CPU model not supported", "under QEMU with Xen, which hides MSRs"),
    ("ACPI: IRQ 4 override to edge(!), high(!)", "of 7.2 in guests of QEMU 11.1's, on any processor"),
    ("spinlock event irq", "of Xen's with more than one processor: printed without a level"),
    ("FACS address mismatch in FADT", "under QEMU with Xen: both have the 32-bit address only"),
    ("HVMOP_pagetable_dying not supported", "in Xen's HVM and PVH domains on any processor"),
    ("Std. Loglevel: Errors, warnings", "Xen's own settings"),
    ("Guest Loglevel:", "Xen's own settings"),
];

/// How Xen's own lines begin.
const XEN: &str = "(XEN)";

/// What kernels complain about in Xen's domains on AMD's processors: HWCR says so there, for Xen lets them have no constant TSC.
const KNOWN_OF_DOMAINS: &[&str] =
    &["TSC doesn't count with P0 frequency", "Marking TSC unstable due to TSCs unsynchronized"];

/// What a kernel says that begins a log of a domain of the kind PVH.
const PVH_DOMAIN: &str = "Booting kernel on Xen PVH";

/// What such a kernel complains about on any processor: it has no I/O APIC, no PCI, no 8254, and no system control interrupt, and if it is of the
/// first domain may not count processors.
const KNOWN_OF_PVH_DOMAINS: &[&str] = &[
    "tsc: Fast TSC calibration failed",
    "ACPI: No IOAPIC entries present",
    "ACPI: setting ELCR to 0200 (from ffff)",
    "PCI: Fatal: No config space access function found",
    "ACPI: OSL: SCI (ACPI GSI 9) not registered",
    "PCI: System does not support PCI",
    "xen_mcelog: Failed to get CPU numbers",
];

/// The complaints on a console that nobody knows of, each once; none where all is well.
pub fn complaints(console: &str) -> Vec<&str> {
    let mut found: Vec<&str> = Vec::new();
    let of = |sign: &str, list: &'static [&str]| if console.contains(sign) { list } else { &[] };
    let of_domains = of(XEN, KNOWN_OF_DOMAINS).iter().chain(of(PVH_DOMAIN, KNOWN_OF_PVH_DOMAINS));
    let known: Vec<_> = KNOWN.iter().map(|(known, _)| known).chain(of_domains).collect();
    let is_known = |text: &str| known.iter().any(|known| text.contains(**known));
    for line in console.lines().map(|l| l.trim_end_matches('\r')) {
        let Some((is_warning, text)) = message(line) else { continue };
        let is_complaint = is_warning || ALARMS.iter().any(|word| text.contains(word));
        if is_complaint && !is_known(text) && !found.contains(&text) {
            found.push(text);
        }
    }
    found
}

/// Whether a line's level is that of a warning, and its text; `None` where it is not of a log.
fn message(line: &str) -> Option<(bool, &str)> {
    if let Some(text) = line.strip_prefix(XEN) {
        return Some((false, text.trim_start()));
    }
    // `<4>[    0.123456] text`
    let (level, rest) = line.strip_prefix('<')?.split_once('>')?;
    let text = rest.split_once("] ").map_or(rest, |(_, text)| text);
    let is_warning = level.len() == 1 && level.chars().all(|c| LEVELS.contains(&c));
    Some((is_warning, text))
}

/// Whether the console holds a log with levels at all.
pub fn has_log(console: &str) -> bool {
    console.lines().any(|l| l.starts_with("<6>["))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn warnings_and_words_are_complaints() {
        let console = "[    0.1] BUG without a level\r\n<6>[    0.1] all is well\r\n<4>[    0.2] a warning\r\n<4>[    0.3] a warning\r\n<6>[    0.4] probe failed\r\n(XEN) WARNING: this\r\n<12>[    0.5] of user space\r\n";
        assert_eq!(complaints(console), ["a warning", "probe failed", "WARNING: this"]);
        assert!(has_log(console) && !has_log("[    0.1] x"));
    }

    #[test]
    fn what_is_seen_elsewhere_is_none() {
        for (known, why) in KNOWN {
            assert_eq!(complaints(&format!("<3>[    1.0] x {known} y")), [""; 0], "{why}");
        }
        for known in KNOWN_OF_PVH_DOMAINS {
            let line = format!("<3>[    1.0] {known}");
            assert_eq!(complaints(&line), [*known], "elsewhere it is one");
            assert_eq!(complaints(&format!("<6>[    0.9] {PVH_DOMAIN}\n{line}")), [""; 0]);
        }
    }
}
