//! `riscv64-virt`.

use emu_core::engine::{Stop, Vcpu};
use emu_core::machine::Machine;
use riscv::cpu::CpuConfig;
use riscv::hart::Riscv;
use riscv::platform::board::IrqChip;
use riscv::platform::virt::{self, CONSOLE, Firmware, Images, VirtConfig};
use riscv::privileged::{INTERRUPT_REASONS, cause_name, interrupt_name};
use serde_json::json;

use super::{Config, Platform, firmware_file, read_file, refuse, virtio};
use crate::error::{UserError, about};
use crate::options::{DeviceKind, Run};

/// Names of the machine.
pub const NAMES: [&str; 2] = ["riscv64-virt", "virt"];

/// The machine's options: `riscv64-virt,aia=aplic-imsic,guests=3`.
pub fn machine_options(text: &str) -> Result<IrqChip, UserError> {
    let mut words = text.split(',');
    let name = words.next().unwrap_or_default();
    if !NAMES.contains(&name) {
        return Err(about(name, "there is no such machine; expected riscv64-virt"));
    }
    let (mut aia, mut guests) = ("none", None);
    for word in words {
        match word.split_once('=') {
            Some(("aia", value)) => aia = value,
            Some(("guests", value)) => {
                let number = value.parse();
                guests = Some(number.map_err(|_| about(word, "expected a number of guest interrupt files, 0 to 63"))?);
            }
            _ => return Err(about(word, "expected aia=none|aplic|aplic-imsic or guests=N")),
        }
    }
    match (aia, guests) {
        ("aplic-imsic", guests) => Ok(IrqChip::AplicImsic { guest_files: guests.unwrap_or(3) }),
        ("none" | "aplic", Some(guests)) => Err(about(format!("guests={guests}"), "it needs aia=aplic-imsic")),
        ("none", None) => Ok(IrqChip::Plic),
        ("aplic", None) => Ok(IrqChip::Aplic),
        _ => Err(about(format!("aia={aia}"), "expected none, aplic or aplic-imsic")),
    }
}

/// What a command line makes of it.
pub fn config(o: &Run, machine: &str) -> Result<VirtConfig, UserError> {
    refuse(!o.module.is_empty(), "--module", NAMES[0])?;
    refuse(o.firmware_vars.is_some(), "--firmware-vars", NAMES[0])?;
    refuse(o.device.contains(&DeviceKind::Edu), "--device edu", NAMES[0])?;
    Ok(VirtConfig {
        cpu: CpuConfig::parse(o.cpu.as_deref().unwrap_or("rv64"))?,
        harts: o.smp,
        memory: o.memory,
        irqchip: machine_options(machine)?,
        virtio: virtio(o, CONSOLE)?,
        bootargs: o.append.clone(),
        seed: o.seed,
        quantum: o.quantum,
        hertz: o.frequency,
        ..VirtConfig::default()
    })
}

fn images(o: &Run) -> Result<Images, UserError> {
    let firmware = match firmware_file(o) {
        Some(path) => Firmware::File(read_file(path)?),
        None if o.firmware.as_ref().is_some_and(|f| f.as_os_str() == "none") => Firmware::None,
        None => Firmware::BuiltIn,
    };
    let kernel = o.kernel.as_deref().map(read_file).transpose()?;
    if kernel.is_none() && !matches!(firmware, Firmware::File(_)) {
        return Err(UserError("nothing to run: expected --kernel FILE, --firmware FILE or --restore FILE".into()));
    }
    Ok(Images { firmware, kernel, initrd: o.initrd.as_deref().map(read_file).transpose()? })
}

impl Platform for Riscv {
    type Config = VirtConfig;

    fn any(config: &VirtConfig) -> Config {
        Config::Riscv(config.clone())
    }

    fn build(o: &Run, config: &VirtConfig) -> Result<Machine<Self>, UserError> {
        Ok(virt::build(config, &images(o)?)?)
    }

    fn build_empty(config: &VirtConfig) -> Result<Machine<Self>, UserError> {
        Ok(virt::build_empty(config)?.0)
    }

    fn reason_name(reason: u32) -> &'static str {
        if reason >= INTERRUPT_REASONS { interrupt_name(reason - INTERRUPT_REASONS) } else { cause_name(reason) }
    }

    fn shutdown(vcpu: u32, stop: Stop) -> String {
        let cause = cause_name(stop.code());
        format!("hart {vcpu} cannot go on: {cause} while a trap to M-mode is unexpected, at {:#x}", stop.value)
    }

    fn summary(v: &Vcpu<Self>) -> serde_json::Value {
        json!({
            "pc": format!("{:#x}", v.core.pc),
            "mode": format!("{:?}", v.arch.mode),
            "virtual": v.arch.v,
        })
    }
}
