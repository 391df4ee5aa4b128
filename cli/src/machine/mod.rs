//! The machines that `undervisor run` knows: what the command line asks of each, and which one a command line means.

mod pc;
mod riscv;

use std::path::Path;

use ::riscv::platform::virt::VirtConfig;
use emu_core::devices::virtio::VirtioDevice;
use emu_core::engine::{Stop, Vcpu};
use emu_core::file::File;
use emu_core::machine::Machine;
use serde::{Deserialize, Serialize};
use x86::platform::pc::PcConfig;

pub use self::pc::machine_options as pc_options;
pub use self::riscv::machine_options as riscv_options;
use crate::error::{UserError, about};
use crate::gdb::Debuggable;
use crate::inspect::Inspectable;
use crate::options::{DeviceKind, Run};
use crate::outputs::Named;

/// What a machine is made from, as snapshots and recordings have it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Config {
    /// riscv64-virt.
    Riscv(VirtConfig),
    /// pc.
    Pc(PcConfig),
}

impl Config {
    /// The machine that a command line means.
    pub fn of(o: &Run) -> Result<Self, UserError> {
        let Some(text) = &o.machine else {
            let is_x86 = o.kernel.as_deref().is_some_and(is_for_x86) || o.firmware_vars.is_some();
            return if is_x86 {
                Ok(Config::Pc(pc::config(o, "pc")?))
            } else {
                riscv::config(o, "riscv64-virt").map(Config::Riscv)
            };
        };
        let name = text.split(',').next().unwrap_or_default();
        if riscv::NAMES.contains(&name) {
            riscv::config(o, text).map(Config::Riscv)
        } else if pc::NAMES.contains(&name) {
            pc::config(o, text).map(Config::Pc)
        } else {
            Err(about(name, "there is no such machine; expected riscv64-virt or pc"))
        }
    }

    /// Its name.
    pub fn name(&self) -> &'static str {
        match self {
            Config::Riscv(_) => riscv::NAMES[0],
            Config::Pc(_) => pc::NAMES[0],
        }
    }

    /// Its virtio devices.
    pub fn virtio(&self) -> &[VirtioDevice] {
        match self {
            Config::Riscv(c) => &c.virtio,
            Config::Pc(c) => &c.virtio,
        }
    }
}

/// What the command line has to know of an architecture and its machine.
pub trait Platform: Debuggable + Inspectable {
    /// What its machine is made from.
    type Config: Clone;

    /// The same, among those of all machines.
    fn any(config: &Self::Config) -> Config;

    /// Builds the machine that a command line means.
    fn build(o: &Run, config: &Self::Config) -> Result<Machine<Self>, UserError>;

    /// Builds the machine without loading anything: for restoring a snapshot.
    fn build_empty(config: &Self::Config) -> Result<Machine<Self>, UserError>;

    /// The name of a trap or interrupt in statistics.
    fn reason_name(reason: u32) -> &'static str;

    /// Why a vCPU cannot go on.
    fn shutdown(vcpu: u32, stop: Stop) -> String;

    /// What summaries say about a vCPU.
    fn summary(vcpu: &Vcpu<Self>) -> serde_json::Value;
}

/// Whether a file is a kernel for x86: a bzImage or an ELF file. One that cannot be read is told about when it is loaded.
fn is_for_x86(path: &Path) -> bool {
    use std::io::Read;
    let mut head = Vec::new();
    let is_read = std::fs::File::open(path).and_then(|f| f.take(0x210).read_to_end(&mut head));
    let machine = head.get(18..20);
    is_read.is_ok()
        && (head.get(0x202..0x206) == Some(b"HdrS")
            || head.starts_with(b"\x7fELF") && (machine == Some(&[3, 0]) || machine == Some(&[62, 0])))
}

/// Drives, a source of entropy, then further devices, in the order in which they were given.
fn virtio(o: &Run, console: u32) -> Result<Vec<VirtioDevice>, UserError> {
    let drives = o.drive.iter().enumerate().map(|(i, d)| drive(d, i));
    let mut virtio = drives.collect::<Result<Vec<_>, _>>()?;
    virtio.push(VirtioDevice::Rng { seed: o.seed });
    let (mut port, mut mac) = (console, [0x52, 0x54, 0, 0x12, 0x34, 0x55]);
    virtio.extend(o.device.iter().filter_map(|device| match device {
        DeviceKind::VirtioConsole => {
            port += 1;
            Some(VirtioDevice::Console { port })
        }
        DeviceKind::VirtioNet => {
            mac[5] += 1;
            Some(VirtioDevice::Net { mac })
        }
        DeviceKind::Edu => None,
    }));
    Ok(virtio)
}

/// A file name may have commas in it: the last word is a mode if it is one, and the rest of the name if there is such a file.
fn drive(text: &str, number: usize) -> Result<VirtioDevice, UserError> {
    use emu_core::devices::virtio::disk::DiskMode;
    let (path, mode) = match text.rsplit_once(',') {
        Some((path, "rw")) => (path, DiskMode::ReadWrite),
        Some((path, "ro")) => (path, DiskMode::ReadOnly),
        Some((path, "overlay")) => (path, DiskMode::Overlay),
        Some((_, word)) if !Path::new(text).exists() => {
            return Err(about(format!("--drive {text}"), format!("`{word}` is no mode; expected rw, ro or overlay")));
        }
        _ => (text, DiskMode::ReadWrite),
    };
    if path.is_empty() {
        return Err(about(format!("--drive {text}"), "expected a file"));
    }
    Ok(VirtioDevice::Drive { path: path.into(), mode, serial: format!("undervisor-{number}") })
}

/// Reads a file that a machine is loaded with.
pub fn read_file(path: &Path) -> Result<File, UserError> {
    use std::os::unix::fs::FileTypeExt;
    let name = path.display().to_string();
    // Some devices have no end.
    if std::fs::metadata(path).is_ok_and(|data| data.file_type().is_char_device()) {
        return Err(about(name, "it is a device; expected a file"));
    }
    match std::fs::read(path) {
        Ok(bytes) => Ok(File { name, bytes }),
        Err(e) => Err(about(name, e)),
    }
}

/// The file of `--firmware`, where the word is none of the others.
pub fn firmware_file(o: &Run) -> Option<&Path> {
    let path = o.firmware.as_deref()?;
    let is_word = path.as_os_str() == "none" || path.as_os_str() == "builtin";
    (!is_word).then_some(path)
}

/// A module's file and its words: `FILE=WORDS`.
pub fn module(text: &str) -> (&Path, &str) {
    match text.split_once('=') {
        Some((path, words)) if !Path::new(text).exists() => (Path::new(path), words),
        _ => (Path::new(text), ""),
    }
}

/// Files that a run reads, but for those of the machine's drives.
pub fn files(o: &Run) -> Vec<Named<'_>> {
    let options = [
        ("--kernel", o.kernel.as_deref()),
        ("--initrd", o.initrd.as_deref()),
        ("--firmware", firmware_file(o)),
        ("--firmware-vars", o.firmware_vars.as_deref()),
        ("--restore", o.restore.as_deref()),
        ("--replay", o.replay.as_deref()),
    ];
    let mut files: Vec<_> =
        options.into_iter().filter_map(|(option, path)| path.map(|path| Named { option, path })).collect();
    files.extend(o.module.iter().map(|m| Named { option: "--module", path: module(m).0 }));
    files
}

fn refuse(is_given: bool, what: &str, machine: &str) -> Result<(), UserError> {
    if is_given { Err(about(what, format!("the machine {machine} has no use for it"))) } else { Ok(()) }
}
