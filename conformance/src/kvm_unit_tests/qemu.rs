//! QEMU's options, as `unittests.cfg` has them, in terms of the `pc` machine.

use x86::model::{CpuModel, ModelError, Vendor};
use x86::platform::pc::PcConfig;
use x86::platform::pci::chipset::Chipset;
use x86::platform::vtd::VtdConfig;

/// QEMU's names of features that Linux calls otherwise.
const NAMES: &[(&str, &str)] = &[
    ("tsc-deadline", "tsc_deadline_timer"),
    ("pause-filter", "pausefilter"),
    ("sse3", "pni"),
    ("tsc-adjust", "tsc_adjust"),
];

/// Applies `-cpu`, `-m`, `-machine` and the like; an error is the first parameter that has no counterpart.
pub(super) fn translate(parameters: &str, cpu: Option<&str>, config: &mut PcConfig) -> Result<(), String> {
    let mut words = parameters.split_whitespace();
    let mut model = "";
    while let Some(option) = words.next() {
        if option == "-enable-kvm" {
            continue;
        }
        let value = words.next().ok_or_else(|| format!("{option}: its value is missing"))?;
        let done = match option {
            "-cpu" => {
                model = value;
                true
            }
            "-m" => memory(value).is_some_and(|bytes| {
                config.memory = bytes;
                true
            }),
            "-machine" | "-M" => value.split(',').all(|word| machine(word, config)),
            "-device" if value == "edu" => {
                config.edu = true;
                true
            }
            "-device" if value.starts_with("intel-iommu") => iommu(value, config),
            // The processors' idle states on the host.
            "-overcommit" => true,
            _ => false,
        };
        if !done {
            return Err(format!("{option} {value}: it has no counterpart"));
        }
    }
    config.cpu = processor(model, cpu)?;
    Ok(())
}

/// A size in MiB, or with a unit.
fn memory(text: &str) -> Option<u64> {
    let (digits, shift) = match text.strip_suffix(['g', 'G']) {
        Some(digits) => (digits, 30),
        None => (text.trim_end_matches(['m', 'M']), 20),
    };
    digits.parse::<u64>().ok().map(|n| n << shift)
}

/// The DMA remapping unit. QEMU's I/O APIC has no requester ID, and units name another's.
fn iommu(value: &str, config: &mut PcConfig) -> bool {
    let mut unit = VtdConfig { verifies_ioapic: false, ..VtdConfig::default() };
    for word in value.split(',').skip(1) {
        match word {
            "intremap=on" | "eim=on" | "caching-mode=off" => {}
            "eim=off" => unit.extended_interrupt_mode = false,
            "caching-mode=on" => unit.caching_mode = true,
            _ => return false,
        }
    }
    config.iommu = Some(unit);
    true
}

/// Options of `-machine` that change nothing that a test could see, and the chipset.
fn machine(word: &str, config: &mut PcConfig) -> bool {
    match word {
        "q35" => config.chipset = Chipset::Q35,
        "pc" => config.chipset = Chipset::I440Fx,
        // The timer would be in KVM's way.
        "pit=off" => {}
        _ => return word.starts_with("kernel-irqchip="),
    }
    true
}

/// The model that QEMU's stands for: of AMD, where its name or its features say so. `max` and `host` have every feature.
fn processor(model: &str, cpu: Option<&str>) -> Result<String, String> {
    let mut words = model.split(',');
    let name = words.next().unwrap_or("");
    let words: Vec<&str> = words.collect();
    let is_amd = words.contains(&"vendor=AuthenticAMD")
        || words.contains(&"+svm")
        || ["Opteron", "EPYC", "phenom", "athlon"].iter().any(|n| name.starts_with(n));
    let mut ours = cpu.unwrap_or(if is_amd { "amd" } else { "intel" }).to_owned();
    let known = CpuModel::parse(&ours).map_err(|e| e.to_string())?;
    if matches!(name, "max" | "host") {
        // Of two kinds of last branch records a part has one; the units know the earlier.
        let more = known.optional().filter(|f| *f != "arch_lbr").map(|feature| format!(",+{feature}"));
        ours.extend(more);
    }
    for word in words {
        let Some((sign, feature)) = word.split_at_checked(1).filter(|(sign, _)| matches!(*sign, "+" | "-")) else {
            match word.split_once('=') {
                Some(("vendor", "GenuineIntel")) if known.is_amd() => {
                    return Err(format!("-cpu {word}: the model is AMD's"));
                }
                Some(("vendor", "AuthenticAMD")) if known.is_intel() => {
                    return Err(format!("-cpu {word}: the model is Intel's"));
                }
                Some(("vendor" | "host-phys-bits" | "migratable", _)) => {}
                Some(("phys-bits", _)) => ours = format!("{ours},{word}"),
                None if word == "host-phys-bits" => {}
                _ => return Err(format!("-cpu {word}: it has no counterpart")),
            }
            continue;
        };
        let feature = NAMES.iter().find(|(theirs, _)| *theirs == feature).map_or(feature, |(_, ours)| ours);
        // A feature that parts of the kind never have is off, and cannot be asked for where the user chose the kind.
        let switched = CpuModel::parse(&format!("{},{sign}{feature}", vendor_name(known.vendor)));
        let is_unknown = matches!(switched, Err(ModelError::Feature { .. }));
        if !is_unknown || sign == "+" && cpu.is_none() {
            ours = format!("{ours},{sign}{feature}");
        }
    }
    Ok(ours)
}

fn vendor_name(vendor: Vendor) -> &'static str {
    match vendor {
        Vendor::Intel => "intel",
        Vendor::Amd => "amd",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(parameters: &str, cpu: Option<&str>) -> Result<PcConfig, String> {
        let mut config = PcConfig::default();
        translate(parameters, cpu, &mut config).map(|()| config)
    }

    #[test]
    fn models_and_features() {
        let cpu = |parameters, cpu| of(parameters, cpu).unwrap().cpu;
        assert_eq!(cpu("", None), "intel");
        assert_eq!(cpu("-cpu qemu64,-pcid,+tsc-deadline", None), "intel,-pcid,+tsc_deadline_timer");
        assert_eq!(cpu("-cpu Opteron_G1,vendor=AuthenticAMD", None), "amd");
        assert!(cpu("-cpu max,host-phys-bits", None).starts_with("intel,+"));
        assert_eq!(cpu("-cpu qemu64,+umip", Some("amd,-avx")), "amd,-avx,+umip");
        assert_eq!(cpu("-cpu qemu64,+tsc-deadline", Some("amd")), "amd", "AMD has none");
        assert!(of("-cpu max,vendor=GenuineIntel", Some("amd")).unwrap_err().contains("vendor=GenuineIntel"));
        assert_eq!(cpu("-cpu qemu64,-skinit", None), "intel", "what is not there is off");
        assert_eq!(cpu("-cpu IvyBridge,phys-bits=36,host-phys-bits=off", None), "intel,phys-bits=36");
    }

    #[test]
    fn machines_and_memory() {
        let config = of("-machine pit=off -m 2048", None).unwrap();
        assert_eq!(config.memory, 2 << 30);
        assert_eq!(of("-enable-kvm -m 4g -cpu host", None).unwrap().memory, 4 << 30);
        assert_eq!(of("-M q35,kernel-irqchip=split -device edu", None).unwrap().chipset, Chipset::Q35);
        assert_eq!(of("-machine vmport=on -cpu max", None).unwrap_err(), "-machine vmport=on: it has no counterpart");
        assert_eq!(of("-cpu host,hv_passthrough", None).unwrap_err(), "-cpu hv_passthrough: it has no counterpart");
        let iommu =
            of("-M q35,kernel-irqchip=split -device intel-iommu,intremap=on,eim=off -device edu", None).unwrap();
        assert!(iommu.edu && iommu.iommu.is_some_and(|unit| !unit.extended_interrupt_mode));
        assert!(of("-device intel-iommu,pt=off", None).is_err() && of("-cpu", None).is_err());
    }
}
