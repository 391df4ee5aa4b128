//! What whole runs and micro-benchmarks share: images of bare guests, with page tables, and machines that hold them.

pub mod image;

use riscv::hart::Riscv;
use riscv::platform::virt::{File, Firmware, Images, VirtConfig, build};

/// A machine of one hart.
pub type Machine = emu_core::machine::Machine<Riscv>;

/// A machine of 64 MiB that begins at this image in M-mode.
pub fn machine(image: Vec<u8>) -> Machine {
    let config = VirtConfig { memory: 64 << 20, ..VirtConfig::default() };
    let kernel = Some(File { name: "guest".into(), bytes: image });
    build(&config, &Images { firmware: Firmware::None, kernel, initrd: None }).expect("the image fits")
}
