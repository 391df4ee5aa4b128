//! The board: chips at their places and the wires between them, as the table in [the platform's text](super) has them.

use emu_core::bus::{Bus, Space, Wire};
use emu_core::device::{Device, DeviceId};
use emu_core::devices::uart16550::{Uart16550, UartConfig};
pub use emu_core::devices::virtio::VirtioDevice;
use emu_core::devices::virtio::disk::DiskError;
use emu_core::devices::virtio::mmio::VirtioMmio;
use serde::{Deserialize, Serialize};

use super::coprocessor::{self, Coprocessor};
use super::debug::{self, DebugConsole, DebugExit, Post, TestDevice};
use super::fw_cfg::FwCfg;
use super::memory::{BASE_END, FIXED, FOUR_GIB, Layout, SHADOW_END};
pub use super::pci::chipset::Chipset;
use super::pci::edu::Edu;
use super::pci::virtio::VirtioPci;
use super::pci::{self, PciBus, SCI, SLEEP, SMI, SMI_OF_ALL, Slot};
use super::rtc::{self, Rtc, RtcConfig, memory_size_bytes};
use super::vtd::{self, Vtd, VtdConfig};
use super::{Ports, add_at_ports, fw_cfg, hpet, i8042, ioapic, msi, pic, pit, pm, reset, restart};
use crate::apic::pin;

/// Serial ports: first port and interrupt.
pub const SERIAL: [(u64, u32); 2] = [(0x3f8, 4), (0x2f8, 3)];
/// Frequency of a serial port's clock in hertz.
const SERIAL_CLOCK: u32 = 1_843_200;
/// Where kernels that know [`DebugExit`] by QEMU's own place look for it.
const EXIT: Ports = Ports { port: 0x501, size: 4, offset: 0 };
/// Where SeaBIOS and OVMF write their logs.
pub const FIRMWARE_LOG: u64 = 0x402;
/// Base of the first virtio-mmio slot; the others follow.
pub const MMIO: u64 = 0xfeb0_0000;
/// Distance of virtio-mmio slots in bytes.
pub const MMIO_STRIDE: u64 = 0x200;
/// Input of the I/O APIC of the first virtio-mmio slot.
pub const MMIO_GSI: u32 = 16;
/// The number of virtio-mmio slots: inputs 16 to 19 of the I/O APIC are no function's on PCI.
pub const MMIO_SLOTS: usize = 4;
/// Base of the enhanced configuration space where nobody else says so. Its size is 256 MiB.
pub use super::memory::ECAM;
/// Input of the I/O APIC that ISA's interrupt 0 is wired to.
pub const IRQ0_GSI: u32 = 2;
/// ID of the I/O APIC.
pub const IOAPIC_ID: u8 = 0;
/// The system control interrupt.
pub const SCI_IRQ: u32 = 9;
/// End of the addresses that are led to PCI: what processors with 46 address bits can form.
pub const PCI_END: u64 = 1 << 46;
/// The most vCPUs.
pub const MAX_VCPUS: u32 = 512;

/// Inputs of the interrupt controllers have a wire for each of these.
mod wire_of {
    pub const ISA: u32 = 0;
    pub const PCI: u32 = 256;
    pub const SCI: u32 = 2 * 256;
    pub const TEST: u32 = 3 * 256;
    pub const HPET: u32 = 4 * 256;
    pub const MMIO: u32 = 5 * 256;
}

/// How virtio devices are reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Transport {
    /// Functions on PCI.
    Pci,
    /// Registers in memory, told by ACPI.
    Mmio,
}

/// A board to be built.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BoardConfig {
    /// The chipset.
    pub chipset: Chipset,
    /// Processors, 1 to [`MAX_VCPUS`].
    pub vcpus: u32,
    /// Where RAM lies.
    pub layout: Layout,
    /// Seconds since 1970 that the clock shows at power-on.
    pub rtc_epoch: u64,
    /// The door's ports of the serial ports; the first is that of the debug consoles too.
    pub serial: [u32; 2],
    /// Devices, in their order.
    pub virtio: Vec<VirtioDevice>,
    /// How they are reached.
    pub transport: Transport,
    /// Whether there is the educational device.
    pub edu: bool,
    /// The DMA remapping unit, if there is one.
    pub iommu: Option<VtdConfig>,
    /// Whether the firmware's log at [`FIRMWARE_LOG`] goes to the first serial port's console.
    pub firmware_log: bool,
    /// Whether processors find firmware at their reset vector.
    pub has_firmware: bool,
}

/// A board that cannot be.
#[derive(Debug, thiserror::Error)]
pub enum BoardError {
    /// Too many processors or none.
    #[error("{0} vCPUs: this board has 1 to {MAX_VCPUS}")]
    Vcpus(u32),
    /// Too many virtio devices.
    #[error("{found} virtio devices: this board has {room} slots for them")]
    Slots {
        /// So many were asked for.
        found: usize,
        /// So many there can be.
        room: usize,
    },
    /// A drive's file.
    #[error(transparent)]
    Disk(#[from] DiskError),
}

/// The devices of a board that was built, by their place on the bus.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Board {
    /// The 8259As.
    pub pic: DeviceId,
    /// The I/O APIC.
    pub ioapic: DeviceId,
    /// PCI.
    pub pci: DeviceId,
    /// The serial ports.
    pub serial: [DeviceId; 2],
    /// Slots of PCI that virtio devices are in.
    pub slots: Vec<Slot>,
}

/// Connects lines to lines.
struct Wiring<'a> {
    bus: &'a mut Bus,
    pic: DeviceId,
    ioapic: DeviceId,
    vcpus: u32,
}

impl Wiring<'_> {
    fn device(&mut self, from: DeviceId, line: u32, device: DeviceId, input: u32) {
        self.bus.wire(from, line, Wire::Device { device, input });
    }

    /// To both interrupt controllers, as ISA's interrupts are.
    fn irq(&mut self, from: DeviceId, line: u32, irq: u32, wire: u32) {
        let gsi = if irq == 0 { IRQ0_GSI } else { irq };
        self.device(from, line, self.pic, irq + wire);
        self.device(from, line, self.ioapic, gsi + wire);
    }

    fn gsi(&mut self, from: DeviceId, line: u32, gsi: u32, wire: u32) {
        self.device(from, line, self.ioapic, gsi + wire);
    }

    /// To a pin of all processors.
    fn processors(&mut self, from: DeviceId, line: u32, pin: u32) {
        for vcpu in 0..self.vcpus {
            self.bus.wire(from, line, Wire::Vcpu { vcpu, pin });
        }
    }
}

/// Adds the devices of a board to a bus, maps them and wires them. Device IDs depend on `config` alone.
pub fn build(config: &BoardConfig, fw_cfg: FwCfg, bus: &mut Bus) -> Result<Board, BoardError> {
    if !(1..=MAX_VCPUS).contains(&config.vcpus) {
        return Err(BoardError::Vcpus(config.vcpus));
    }
    let mut at_ports = |device: Box<dyn Device>, ports: &[Ports]| add_at_ports(bus, device, ports);
    let pic = at_ports(Box::<pic::Pic>::default(), &pic::PORTS);
    let pit = at_ports(Box::new(pit::Pit::new()), &pit::PORTS);
    let clock = RtcConfig {
        epoch: config.rtc_epoch,
        bytes: memory_size_bytes(config.layout.low_end, config.layout.high()),
        ..RtcConfig::default()
    };
    let rtc = at_ports(Box::new(Rtc::new(&clock)), &rtc::PORTS);
    let keyboard = at_ports(Box::new(i8042::I8042::new(None)), &i8042::PORTS);
    let port92 = at_ports(Box::<reset::Port92>::default(), &reset::PORTS);
    let coprocessor = at_ports(Box::<Coprocessor>::default(), &coprocessor::PORTS);
    let fw_cfg = at_ports(Box::new(fw_cfg), &fw_cfg::PORTS);
    let serial = [0, 1].map(|n| {
        let uart = UartConfig { port: config.serial[n], reg_shift: 0, clock: SERIAL_CLOCK };
        at_ports(Box::new(Uart16550::new(uart)), &[Ports { port: SERIAL[n].0, size: 8, offset: 0 }])
    });
    // The debug console takes a port among the test device's: it is mapped later.
    let test = at_ports(Box::<TestDevice>::default(), &debug::TEST_PORTS);
    let mut consoles = vec![debug::CONSOLE, debug::TEST_CONSOLE];
    consoles.extend(config.firmware_log.then_some(FIRMWARE_LOG));
    let consoles: Vec<_> = consoles.into_iter().map(|port| Ports { port, size: 1, offset: 0 }).collect();
    at_ports(Box::new(DebugConsole::new(config.serial[0])), &consoles);
    at_ports(Box::new(DebugExit), &[debug::TEST_EXIT, EXIT]);
    at_ports(Box::<Post>::default(), &[debug::POST]);
    let test_memory = (debug::TEST_MEMORY, debug::TEST_MEMORY_SIZE, debug::TEST_MEMORY_OFFSET);
    bus.map(Space::Memory, test_memory.0, test_memory.1, test, test_memory.2, 0);

    let window = bus.add(Box::new(msi::MsiWindow::new(config.vcpus)));
    bus.map_memory(msi::BASE, msi::SIZE, window);
    let ioapic = bus.add(Box::new(ioapic::IoApic::new(IOAPIC_ID, ioapic::Polarity::Ignored)));
    bus.map_memory(ioapic::BASE, ioapic::SIZE, ioapic);
    let routes = if config.chipset == Chipset::Q35 { 0x00ff_0104 } else { 0x0000_0104 };
    let hpet = bus.add(Box::new(hpet::Hpet::new(3, routes)));
    bus.map_memory(hpet::BASE, hpet::SIZE, hpet);

    let mut functions = PciBus::for_processors(config.chipset, config.vcpus);
    if config.edu {
        functions.insert(functions.free_slot().expect("the bus has room"), Box::new(Edu::new((1 << 28) - 1)));
    }
    let mut slots = Vec::new();
    let mut mmio = Vec::new();
    for (n, device) in config.virtio.iter().enumerate() {
        let slots_full = |room| BoardError::Slots { found: config.virtio.len(), room };
        match config.transport {
            Transport::Pci => {
                let slot = functions.free_slot().filter(|s| s.device < 31).ok_or(slots_full(n))?;
                let function = VirtioPci::new(device.open()?);
                let function = if config.iommu.is_some() { function.behind_iommu() } else { function };
                functions.insert(slot, Box::new(function));
                slots.push(slot);
            }
            Transport::Mmio if n >= MMIO_SLOTS => return Err(slots_full(MMIO_SLOTS)),
            Transport::Mmio => {
                let id = bus.add(Box::new(VirtioMmio::new(device.open()?)));
                bus.map_memory(MMIO + MMIO_STRIDE * n as u64, MMIO_STRIDE, id);
                mmio.push(id);
            }
        }
    }
    let high = (config.layout.high_end, PCI_END);
    let pci = functions.map(bus, &[(BASE_END, SHADOW_END), (config.layout.low_end, FOUR_GIB), high]);

    if !config.has_firmware {
        add_at_ports(bus, Box::new(restart::Restart), &[restart::PORT]);
    }
    if let Some(unit) = config.iommu {
        let iommu = bus.add(Box::new(Vtd::new(unit, config.vcpus)));
        bus.map_memory(vtd::BASE, vtd::SIZE, iommu);
        bus.translates(iommu);
        bus.requests_as(ioapic, vtd::IOAPIC);
        bus.requests_as(hpet, vtd::HPET);
    }
    let mut wires = Wiring { bus, pic, ioapic, vcpus: config.vcpus };
    wires.processors(pic, 0, pin::LINT0);
    wires.device(pit, 0, hpet, 0);
    wires.device(rtc, 0, hpet, 1);
    wires.irq(hpet, hpet::IRQ0, 0, wire_of::ISA);
    wires.irq(hpet, hpet::IRQ8, 8, wire_of::ISA);
    (0..24).for_each(|pin| wires.gsi(hpet, pin, pin, wire_of::HPET));
    wires.irq(keyboard, i8042::IRQ1, 1, wire_of::ISA);
    wires.irq(keyboard, i8042::IRQ12, 12, wire_of::ISA);
    wires.device(keyboard, i8042::A20, port92, 0);
    wires.processors(port92, reset::A20, pin::A20);
    for (device, line) in [(keyboard, i8042::INIT), (port92, reset::INIT), (pci, pci::INIT)] {
        wires.processors(device, line, pin::INIT);
    }
    for (id, (_, irq)) in serial.into_iter().zip(SERIAL) {
        wires.irq(id, 0, irq, wire_of::ISA);
    }
    // What PCI's router makes ISA's interrupts goes to the I/O APIC too, as in QEMU's Q35: software relies on it.
    (0..16).for_each(|line| wires.irq(pci, line, line, wire_of::PCI));
    if config.chipset == Chipset::Q35 {
        (16..24).for_each(|pin| wires.gsi(pci, pin, pin, wire_of::PCI));
    }
    wires.irq(pci, SCI, SCI_IRQ, wire_of::SCI);
    wires.processors(pci, SMI, pin::SMI_OF_IO);
    wires.processors(pci, SMI_OF_ALL, pin::SMI);
    wires.device(fw_cfg, fw_cfg::BROADCAST, pci, pm::BROADCAST);
    wires.irq(coprocessor, coprocessor::IRQ13, 13, wire_of::ISA);
    wires.processors(coprocessor, coprocessor::IGNNE, pin::IGNNE);
    wires.device(rtc, 0, pci, pm::RTC_ALARM);
    wires.processors(pci, SLEEP, pin::SLEEP);
    wires.device(pci, SLEEP, rtc, 0);
    wires.device(pci, SLEEP, fw_cfg, 0);
    (0..16).for_each(|line| wires.irq(test, line, line, wire_of::TEST));
    (16..24).for_each(|line| wires.gsi(test, line, line, wire_of::TEST));
    for (gsi, id) in (MMIO_GSI..).zip(mmio) {
        wires.gsi(id, 0, gsi, wire_of::MMIO);
    }
    debug_assert!(config.layout.low_end <= FIXED);
    Ok(Board { pic, ioapic, pci, serial, slots })
}
