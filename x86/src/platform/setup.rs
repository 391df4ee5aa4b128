//! What a kernel expects firmware to have done, done by the board where there is no firmware: PCI functions have their places
//! and interrupts, power management its ports, RAM shadows the ROM, and the BIOS data area says where base memory ends.

use emu_core::bus::{Bus, BusCx, Space};
use emu_core::door::Door;
use emu_core::ram::Ram;

use super::acpi::{Firmware, PIRQ_IRQS, Tables};
use super::board::{MMIO, SCI_IRQ};
use super::memory::{BASE_END, EBDA, Layout};
use super::pci::Slot;
use super::pci::chipset::Chipset;
use super::pci::config::{command, header};
use super::smbios::Smbios;
use super::smi;

/// Where ACPI's tables go: behind their RSDP, which is looked for on multiples of 16.
pub const ACPI: u64 = 0xe_0000;
/// Its tables behind it.
pub const TABLES: u64 = ACPI + 64;
/// Where SMBIOS goes.
const SMBIOS: u64 = 0xf_0000;
/// Ports of functions count up from here.
const IO_BASE: u64 = 0xc000;
/// BIOS data area.
const EBDA_SEGMENT: u64 = 0x40e;
const BASE_KIB: u64 = 0x413;

/// The board's devices and RAM at power-on.
pub struct Setup<'a> {
    /// The devices.
    pub bus: &'a mut Bus,
    /// RAM.
    pub ram: &'a mut Ram,
    /// The door.
    pub door: &'a mut Door,
    /// The chipset.
    pub chipset: Chipset,
    /// Where RAM lies.
    pub layout: Layout,
    /// What firmware chooses.
    pub firmware: Firmware,
}

impl Setup<'_> {
    fn write_port(&mut self, port: u64, size: u8, value: u64) {
        let cx = BusCx { now: 0, ram: self.ram, door: self.door };
        let _ = self.bus.write(Space::Port, port, size, value, cx); // PCI answers at all ports
    }

    /// Points configuration mechanism 1 at a register; returns the data port.
    fn select(&mut self, slot: Slot, at: usize) -> u64 {
        let address = 1 << 31 | u64::from(slot.device) << 11 | u64::from(slot.function) << 8 | (at as u64 & 0xfc);
        self.write_port(0xcf8, 4, address);
        0xcfc + (at as u64 & 3)
    }

    fn read(&mut self, slot: Slot, at: usize, size: u8) -> u64 {
        let port = self.select(slot, at);
        let cx = BusCx { now: 0, ram: self.ram, door: self.door };
        self.bus.read(Space::Port, port, size, cx).unwrap_or(u64::MAX)
    }

    fn write(&mut self, slot: Slot, at: usize, size: u8, value: u64) {
        let port = self.select(slot, at);
        self.write_port(port, size, value);
    }

    /// Does it all.
    pub fn run(&mut self, tables: &Tables, smbios: &Smbios) -> u64 {
        self.chipset();
        self.functions();
        let number = |ram: &mut Ram, at, value: u64| ram.store(at, 2, value).expect("it is base memory");
        number(self.ram, EBDA_SEGMENT, EBDA >> 4);
        number(self.ram, BASE_KIB, EBDA >> 10);
        number(self.ram, EBDA, (BASE_END - EBDA) >> 10);
        let (block, rsdp) = tables.linked(TABLES);
        self.ram.write(ACPI, &rsdp).expect("the shadow is RAM now");
        self.ram.write(TABLES, &block).expect("the shadow is RAM now");
        self.ram.write(SMBIOS, &smbios.linked(SMBIOS)).expect("the shadow is RAM now");
        ACPI
    }

    /// The chipset's own registers.
    fn chipset(&mut self) {
        const LEVEL: u64 = 1 << (SCI_IRQ - 8) | 1 << (10 - 8) | 1 << (11 - 8);
        let pm = u64::from(self.firmware.pm_base) | 1;
        let bridge = Slot::device(0);
        let (pam, smram) = match self.chipset {
            Chipset::I440Fx => (0x59, 0x72),
            Chipset::Q35 => (0x90, 0x9d),
        };
        self.write(bridge, smram, 1, smi::CONTROL);
        self.write(bridge, pam, 1, 0x30);
        (1..7).for_each(|i| self.write(bridge, pam + i, 1, 0x33));
        let routes = PIRQ_IRQS.iter().rev().fold(0, |word, irq| word << 8 | u64::from(*irq));
        match self.chipset {
            Chipset::I440Fx => {
                self.write(Slot::device(1), 0x60, 4, routes);
                let management = Slot { device: 1, function: 3 };
                self.write(management, 0x40, 4, pm);
                self.write(management, 0x80, 1, 1);
            }
            Chipset::Q35 => {
                self.write(bridge, 0x64, 4, self.firmware.ecam >> 32);
                self.write(bridge, 0x60, 4, self.firmware.ecam | 1);
                let lpc = Slot::device(31);
                self.write(lpc, 0x60, 4, routes);
                self.write(lpc, 0x68, 4, routes);
                self.write(lpc, 0x40, 4, pm);
                self.write(lpc, 0x44, 1, 0x80);
                self.write(lpc, 0xf0, 4, 0xfed1_c001);
            }
        }
        // ELCR2: PCI's interrupts and the SCI are levels.
        self.write_port(0x4d1, 1, LEVEL);
    }

    /// Base addresses and interrupt lines of all functions that have some.
    fn functions(&mut self) {
        let mut next = [IO_BASE, self.memory_base()];
        for device in 1..32 {
            for function in 0..8 {
                let slot = Slot { device, function };
                if self.read(slot, 0, 2) != 0xffff {
                    self.place(slot, &mut next);
                }
            }
        }
        debug_assert!(next[0] <= 0x1_0000 && next[1] <= MMIO);
    }

    /// Where memory of functions begins: behind RAM and, on a Q35, the enhanced configuration space.
    fn memory_base(&self) -> u64 {
        match self.chipset {
            Chipset::I440Fx => self.layout.low_end.max(0xc000_0000),
            Chipset::Q35 => 0xc000_0000,
        }
    }

    /// "Base Address Register" sizing and placing. `next` are the next free port and memory address.
    fn place(&mut self, slot: Slot, next: &mut [u64; 2]) {
        let mut n = 0;
        while n < 6 {
            let at = header::BARS + 4 * n;
            self.write(slot, at, 4, u64::from(u32::MAX));
            let mask = self.read(slot, at, 4);
            let is_io = mask & 1 != 0;
            let is_64 = !is_io && mask & 6 == 4;
            let fixed = mask & if is_io { !3 } else { !0xf };
            let size = if fixed == 0 { 0 } else { (!fixed & u64::from(u32::MAX)) + 1 };
            if size != 0 {
                let free = &mut next[usize::from(!is_io)];
                let place = free.next_multiple_of(size);
                *free = place + size;
                self.write(slot, at, 4, place);
                if is_64 {
                    self.write(slot, at + 4, 4, 0);
                }
            }
            n += if is_64 { 2 } else { 1 };
        }
        let pin = self.read(slot, header::INTERRUPT_PIN, 1);
        if (1..=4).contains(&pin) && !self.is_sci(slot) {
            let pirq = self.chipset.pirq(slot, pin as u8 - 1);
            self.write(slot, header::INTERRUPT_LINE, 1, PIRQ_IRQS[usize::from(pirq & 3)].into());
        }
        let enabled = self.read(slot, header::COMMAND, 2) | u64::from(command::IO | command::MEMORY);
        self.write(slot, header::COMMAND, 2, enabled);
    }

    /// Power management of the PIIX4, whose interrupt is the SCI and none of PCI's.
    fn is_sci(&self, slot: Slot) -> bool {
        self.chipset == Chipset::I440Fx && slot.device == 1
    }
}
