//! `pc`.

use emu_core::engine::{Stop, Vcpu};
use emu_core::machine::Machine;
use serde_json::json;
use vmx_sim::exit::{Abort, Reason};
use x86::exception;
use x86::extension;
use x86::platform::board::Transport;
use x86::platform::loader::{Module, Protocol};
use x86::platform::pc::{self, CONSOLE, FirmwareShape, Images, PcConfig};
use x86::platform::pci::chipset::Chipset;
use x86::platform::vtd::VtdConfig;
use x86::processor::{X86, segments};

use super::{Config, Platform, firmware_file, module, read_file, refuse, virtio};
use crate::error::{UserError, about};
use crate::options::{DeviceKind, Run};

/// Names of the machine; those of its chipsets alone are short for it.
pub const NAMES: [&str; 5] = ["pc", "q35", "i440fx", "pc-q35", "pc-i440fx"];

/// Entries that a kernel can be asked for.
const PROTOCOLS: [(&str, Protocol); 8] = [
    ("auto", Protocol::Auto),
    ("linux64", Protocol::Linux64),
    ("linux32", Protocol::Linux32),
    ("linux16", Protocol::Linux16),
    ("pvh", Protocol::Pvh),
    ("multiboot", Protocol::Multiboot),
    ("multiboot2", Protocol::Multiboot2),
    ("elf", Protocol::Elf),
];
const PROTOCOL_NAMES: &str =
    "auto, linux64, linux32, linux16, pvh, multiboot, multiboot2, elf or raw16, raw32, raw64 with at=ADDRESS";

/// The machine's options: `pc,chipset=i440fx,virtio=mmio,entry=pvh`.
pub fn machine_options(text: &str, config: &mut PcConfig) -> Result<(), UserError> {
    let mut words = text.split(',');
    if words.next().is_some_and(|name| name.ends_with("i440fx")) {
        config.chipset = Chipset::I440Fx;
    }
    let (mut raw, mut at) = (None, None);
    for word in words {
        match word.split_once('=') {
            Some(("chipset", "q35")) => config.chipset = Chipset::Q35,
            Some(("chipset", "i440fx")) => config.chipset = Chipset::I440Fx,
            Some(("chipset", _)) => return Err(about(word, "expected q35 or i440fx")),
            Some(("virtio", "pci")) => config.transport = Transport::Pci,
            Some(("virtio", "mmio")) => config.transport = Transport::Mmio,
            Some(("virtio", _)) => return Err(about(word, "expected pci or mmio")),
            Some(("firmware-log", "on")) => config.firmware_log = true,
            Some(("firmware-log", "off")) => config.firmware_log = false,
            Some(("firmware-log", _)) => return Err(about(word, "expected on or off")),
            Some(("entry", name)) => match PROTOCOLS.iter().find(|(n, _)| *n == name) {
                Some((_, protocol)) => config.protocol = *protocol,
                None => match name.strip_prefix("raw").and_then(|bits| bits.parse().ok()) {
                    Some(bits @ (16 | 32 | 64)) => raw = Some(bits),
                    _ => return Err(about(word, format!("expected {PROTOCOL_NAMES}"))),
                },
            },
            Some(("numa", count)) => match count.parse() {
                Ok(count) => config.nodes = Some(count),
                Err(_) => return Err(about(word, "expected a number of nodes, 1 to 8")),
            },
            Some(("iommu", kinds)) => config.iommu = iommu(word, kinds)?,
            Some(("at", value)) => {
                let digits = value.strip_prefix("0x").map(|hex| u64::from_str_radix(hex, 16));
                let address = digits.unwrap_or_else(|| value.parse());
                at = Some(address.map_err(|_| about(word, "expected an address, such as 0x100000"))?);
            }
            _ => {
                let expected = "expected chipset=q35|i440fx, virtio=pci|mmio, entry=NAME, at=ADDRESS, numa=N, iommu=vtd|off or firmware-log=on|off";
                return Err(about(word, expected));
            }
        }
    }
    match (raw, at) {
        (Some(bits), at) => config.protocol = Protocol::Raw { bits, at: at.unwrap_or(0x10_0000) },
        (None, Some(at)) => return Err(about(format!("at={at:#x}"), "it needs entry=raw16, raw32 or raw64")),
        (None, None) => {}
    }
    Ok(())
}

/// `off`, or `vtd` and what is different of it, joined by `+`.
fn iommu(word: &str, kinds: &str) -> Result<Option<VtdConfig>, UserError> {
    let mut kinds = kinds.split('+');
    let mut unit = match kinds.next() {
        Some("off") => None,
        Some("vtd") => Some(VtdConfig::default()),
        _ => return Err(about(word, "expected off or vtd, vtd+cm, vtd+xapic")),
    };
    for kind in kinds {
        match (&mut unit, kind) {
            (Some(unit), "cm") => unit.caching_mode = true,
            (Some(unit), "xapic") => unit.extended_interrupt_mode = false,
            _ => return Err(about(word, "expected off or vtd, vtd+cm, vtd+xapic")),
        }
    }
    Ok(unit)
}

/// What a command line makes of it.
pub fn config(o: &Run, machine: &str) -> Result<PcConfig, UserError> {
    let mut config = PcConfig {
        vcpus: o.smp,
        memory: o.memory,
        virtio: virtio(o, CONSOLE)?,
        edu: o.device.contains(&DeviceKind::Edu),
        arguments: o.append.clone(),
        seed: o.seed,
        quantum: o.quantum,
        hertz: o.frequency,
        ..PcConfig::default()
    };
    if let Some(cpu) = &o.cpu {
        config.cpu = cpu.clone();
    }
    machine_options(machine, &mut config)?;
    let builtin = o.firmware.as_ref().is_some_and(|f| f.as_os_str() == "builtin");
    refuse(builtin, "--firmware builtin", "pc")?;
    let (firmware, variables) = firmware(o)?;
    if let Some(code) = &firmware {
        config.firmware = Some(FirmwareShape::of(code, variables.as_ref())?);
        refuse(!o.module.is_empty(), "--module", "pc with --firmware")?;
    } else if o.firmware_vars.is_some() {
        return Err(about("--firmware-vars", "it needs --firmware FILE"));
    }
    Ok(config)
}

type MaybeFile = Option<emu_core::file::File>;

fn firmware(o: &Run) -> Result<(MaybeFile, MaybeFile), UserError> {
    let code = firmware_file(o).map(read_file).transpose()?;
    Ok((code, o.firmware_vars.as_deref().map(read_file).transpose()?))
}

fn images(o: &Run) -> Result<Images, UserError> {
    let (firmware, variables) = firmware(o)?;
    let kernel = o.kernel.as_deref().map(read_file).transpose()?;
    if kernel.is_none() && firmware.is_none() {
        return Err(UserError("nothing to run: expected --kernel FILE, --firmware FILE or --restore FILE".into()));
    }
    let modules = o.module.iter().map(|text| {
        let (path, words) = module(text);
        Ok(Module { file: read_file(path)?, arguments: words.into() })
    });
    let modules = modules.collect::<Result<_, UserError>>()?;
    Ok(Images { firmware, variables, kernel, initrd: o.initrd.as_deref().map(read_file).transpose()?, modules })
}

impl Platform for X86 {
    type Config = PcConfig;

    fn any(config: &PcConfig) -> Config {
        Config::Pc(config.clone())
    }

    fn build(o: &Run, config: &PcConfig) -> Result<Machine<Self>, UserError> {
        Ok(pc::build(config, &images(o)?)?)
    }

    fn build_empty(config: &PcConfig) -> Result<Machine<Self>, UserError> {
        Ok(pc::build_empty(config)?.0)
    }

    fn reason_name(reason: u32) -> &'static str {
        match reason.checked_sub(extension::FIRST_EXIT) {
            Some(exit) => match reason.checked_sub(extension::FIRST_EXIT_SVM) {
                Some(index) => svm_sim::exit::code::name(svm_sim::exit::code::of_index(index)),
                None => Reason::of(exit.into()).map_or("exit", Reason::name),
            },
            None if reason < 32 => exception::name(reason as u8),
            None => "interrupt",
        }
    }

    fn shutdown(vcpu: u32, stop: Stop) -> String {
        let why = Abort::of(stop).map_or_else(|| "triple fault".to_owned(), |abort| abort.to_string());
        format!("processor {vcpu} cannot go on: {why}")
    }

    fn summary(v: &Vcpu<Self>) -> serde_json::Value {
        json!({
            "pc": format!("{:#x}", v.core.pc),
            "cs": format!("{:#x}", v.arch.segments[segments::CS].selector),
            "cr0": format!("{:#x}", v.arch.cr0),
            "cpl": v.arch.cpl(),
        })
    }
}
