//! What the chips of a PC do, each after its data sheet, as devices of `emu-core`.
//!
//! A chip names the ports that a PC has it at as a table `PORTS`; [`add_at_ports`] puts it there. An interrupt controller
//! takes several wires at one pin: input `pin + 256 * k` is wire `k` of that pin, and the pin is high while any of its wires
//! is ([`Pins`]).
//!
//! # Wires
//!
//! | from | to |
//! |---|---|
//! | [`pic`] 0 (INTR) | the processor, which reads the vector at [`pic::INTA`]; LINT0 of its local APIC |
//! | [`pit`] 0 | [`hpet`] input 0 |
//! | [`rtc`] 0 | [`hpet`] input 1 |
//! | [`rtc`] 1 (NMI masked) | whatever lets NMI through |
//! | [`hpet`] `IRQ0`, `IRQ8` | [`pic`] 0 and 8, [`ioapic`] 2 and 8 |
//! | [`hpet`] n below 32 | [`ioapic`] n |
//! | [`i8042`] `IRQ1`, `IRQ12` | [`pic`] and [`ioapic`] 1, 12 |
//! | [`i8042`] `A20` | [`reset::Port92`] input 0, whose `A20` is the processor's; both are high at power-on |
//! | `INIT` of [`i8042`], [`reset::Port92`], [`pci`] | all processors |
//! | [`pci`] 0 to 15 | [`pic`], a wire of its own (256 + n); with a PIIX3 also [`ioapic`] |
//! | [`pci`] 16 to 23 | with an ICH9: [`ioapic`], a wire of its own |
//! | [`pci`] `SCI` | [`pic`] and [`ioapic`] 9, a wire of its own |
//! | [`coprocessor`] `IRQ13` | [`pic`] and [`ioapic`] 13 |
//! | [`coprocessor`] `IGNNE` | all processors, which tell of FERR# at [`coprocessor::FERR`] |
//! | [`rtc`] 0 | power management in [`pci`], whose alarm it is |
//! | [`pci`] `SLEEP` | all processors, which are in reset while it is high; [`rtc`], whose RAM tells firmware; [`fw_cfg`] |
//! | [`pci`] `SMI` | the processor whose I/O instruction that is the answer to |
//! | [`pci`] `SMI_OF_ALL` | all processors |
//! | [`fw_cfg`] `BROADCAST` | power management in [`pci`], which takes the latter line then |
//! | MSIs of all, [`ioapic`] included | by the bus to [`msi::MsiWindow`], and by it to all local APICs |
//!
//! A local APIC that ends a level-triggered interrupt writes its vector to the EOI register of every [`ioapic`].

pub mod acpi;
pub mod bios;
pub mod board;
pub mod coprocessor;
pub mod debug;
pub mod flash;
pub mod fw_cfg;
pub mod hpet;
pub mod i8042;
pub mod ioapic;
pub mod loader;
pub mod memory;
pub mod msi;
pub mod pc;
pub mod pci;
pub mod pic;
pub mod pit;
pub mod pm;
pub mod reset;
pub mod restart;
pub mod rtc;
pub mod setup;
pub mod smbios;
mod smi;
pub mod vtd;

use emu_core::bus::{Bus, Space};
use emu_core::device::{Access, Device, DeviceId};
use serde::{Deserialize, Serialize};

/// A stretch of ports of a chip.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ports {
    /// The first port.
    pub port: u64,
    /// How many.
    pub size: u64,
    /// The chip's register offset of the first.
    pub offset: u64,
}

/// Adds a chip and maps its ports.
pub fn add_at_ports(bus: &mut Bus, device: Box<dyn Device>, ports: &[Ports]) -> DeviceId {
    let id = bus.add(device);
    for p in ports {
        bus.map(Space::Port, p.port, p.size, id, p.offset, 0);
    }
    id
}

/// The input pins of an interrupt controller. Wires that lead to one pin are ORed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pins(Vec<u32>);

impl Pins {
    /// All pins low.
    pub fn new(pins: usize) -> Self {
        Pins(vec![0; pins])
    }

    /// The wire of input number `input` (see the module's text) has this level now. Returns the pin and whether it was
    /// high and is; `None` if there is no such wire.
    pub fn set(&mut self, input: u32, level: bool) -> Option<(usize, bool, bool)> {
        let (pin, wire) = ((input % 256) as usize, input / 256);
        let wires = self.0.get_mut(pin).filter(|_| wire < 32)?;
        let was = *wires != 0;
        *wires = *wires & !(1 << wire) | u32::from(level) << wire;
        Some((pin, was, *wires != 0))
    }

    /// Whether the pin is high.
    pub fn level(&self, pin: usize) -> bool {
        self.0.get(pin).is_some_and(|w| *w != 0)
    }
}

/// The mask of a value of `size` bytes (1 to 8).
fn low_bytes(size: u8) -> u64 {
    u64::MAX >> (64 - 8 * u32::from(size.clamp(1, 8)))
}

/// Reads registers of one byte each.
fn read_bytes(access: Access, mut register: impl FnMut(u64) -> u8) -> u64 {
    (0..access.size.min(8))
        .fold(0, |value, i| value | u64::from(register(access.offset.wrapping_add(u64::from(i)))) << (8 * i))
}

/// Writes registers of one byte each.
fn write_bytes(access: Access, value: u64, mut register: impl FnMut(u64, u8)) {
    for i in 0..access.size.min(8) {
        register(access.offset.wrapping_add(u64::from(i)), (value >> (8 * i)) as u8);
    }
}
