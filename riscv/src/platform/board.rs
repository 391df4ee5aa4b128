//! The board: memory map, devices and their wires. Addresses and interrupt numbers are those of QEMU's `virt` machine for
//! RISC-V, for which OpenSBI's generic platform, Linux and most kernels of one's own are made.

use emu_core::bus::{Bus, Space, Wire};
use emu_core::device::DeviceId;
use emu_core::devices::goldfish_rtc::GoldfishRtc;
use emu_core::devices::syscon::TestFinisher;
use emu_core::devices::uart16550::{Uart16550, UartConfig};
pub use emu_core::devices::virtio::VirtioDevice;
use emu_core::devices::virtio::disk::DiskError;
use emu_core::devices::virtio::mmio::{EmptySlot, MMIO_SIZE, VirtioMmio};

use super::aclint::{CLINT_SIZE, Clint, SSWI_SIZE, Sswi, msip_line, mtip_line};
use super::aplic::{Aplic, AplicConfig, DOMAIN_SIZE};
use super::imsic::{Imsic, ImsicRegion};
use super::plic::{Plic, plic_size};

/// Base of the test finisher, through which the machine is powered off and reset.
pub const TEST: u64 = 0x10_0000;
/// Size in bytes of the test finisher.
pub const TEST_SIZE: u64 = 0x1000;
/// Base of the real-time clock.
pub const RTC: u64 = 0x10_1000;
/// Size in bytes of the real-time clock.
pub const RTC_SIZE: u64 = 0x1000;
/// Interrupt of the real-time clock.
pub const RTC_IRQ: u32 = 11;
/// Base of MSWI and MTIMER.
pub const CLINT: u64 = 0x200_0000;
/// Base of SSWI.
pub const SSWI: u64 = 0x2f0_0000;
/// Base of the PLIC.
pub const PLIC: u64 = 0xc00_0000;
/// Base of the APLIC's machine-level domain.
pub const APLIC_M: u64 = 0xc00_0000;
/// Base of the APLIC's supervisor-level domain.
pub const APLIC_S: u64 = 0xd00_0000;
/// Base of the UART.
pub const UART: u64 = 0x1000_0000;
/// Size in bytes of the UART.
pub const UART_SIZE: u64 = 0x100;
/// Interrupt of the UART.
pub const UART_IRQ: u32 = 10;
/// Frequency of the UART's clock in hertz.
pub const UART_CLOCK: u32 = 3_686_400;
/// Base of the first virtio slot; the others follow.
pub const VIRTIO: u64 = 0x1000_1000;
/// The number of virtio slots.
pub const VIRTIO_SLOTS: usize = 8;
/// Interrupt of the first virtio slot.
pub const VIRTIO_IRQ: u32 = 1;
/// Base of the machine-level interrupt files.
pub const IMSIC_M: u64 = 0x2400_0000;
/// Base of the supervisor-level and guest interrupt files.
pub const IMSIC_S: u64 = 0x2800_0000;
/// Base of RAM.
pub const RAM: u64 = 0x8000_0000;

/// The highest interrupt source of PLIC and APLIC.
pub const SOURCES: u32 = 95;
/// Identities of an interrupt file.
pub const IMSIC_IDENTITIES: u32 = 255;
/// The most harts.
pub const MAX_HARTS: u32 = 512;
/// The most guest interrupt files of a hart.
pub const MAX_GUEST_FILES: u32 = 63;

/// Pins of a hart: numbers of its interrupts (Privileged Architecture, "Machine Cause Register").
pub mod pin {
    /// Supervisor software interrupt: high for a moment sets `mip.SSIP`.
    pub const SSIP: u32 = 1;
    /// Machine software interrupt.
    pub const MSIP: u32 = 3;
    /// Machine timer interrupt.
    pub const MTIP: u32 = 7;
    /// Supervisor external interrupt.
    pub const SEIP: u32 = 9;
    /// Machine external interrupt.
    pub const MEIP: u32 = 11;
}

/// How device interrupts reach harts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub enum IrqChip {
    /// PLIC.
    Plic,
    /// APLIC in direct delivery mode; the harts have no IMSICs.
    Aplic,
    /// APLIC in MSI delivery mode, and IMSICs.
    AplicImsic {
        /// Guest interrupt files of each hart (GEILEN), up to [`MAX_GUEST_FILES`].
        guest_files: u32,
    },
}

/// A board to be built.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BoardConfig {
    /// Harts, 1 to [`MAX_HARTS`]. Hart IDs count from 0.
    pub harts: u32,
    /// Bytes of RAM at [`RAM`].
    pub ram_size: u64,
    /// How device interrupts reach harts.
    pub irqchip: IrqChip,
    /// Whether there is an SSWI device.
    pub sswi: bool,
    /// `riscv,isa` of the harts.
    pub isa: String,
    /// `riscv,isa-extensions` of the harts.
    pub isa_extensions: Vec<String>,
    /// `mmu-type` of the harts, such as `riscv,sv57`.
    pub mmu: String,
    /// Bytes in a cache block, for Zicbom, Zicboz and Zicbop.
    pub cache_block: u32,
    /// The kernel's command line.
    pub bootargs: String,
    /// Where the initial RAM disk lies: first address, and first address after it.
    pub initrd: Option<(u64, u64)>,
    /// `rng-seed`, from which a kernel starts its random numbers.
    pub rng_seed: [u8; 32],
    /// Seconds since 1970 that the real-time clock shows at power-on.
    pub rtc_epoch: u64,
    /// The door's port of the UART.
    pub uart_port: u32,
    /// Devices in virtio slots, from slot 0 on.
    pub virtio: Vec<VirtioDevice>,
    /// The device tree is for a supervisor, without firmware that would amend it: machine-level devices are disabled there.
    pub for_supervisor: bool,
}

impl Default for BoardConfig {
    fn default() -> Self {
        BoardConfig {
            harts: 1,
            ram_size: 128 << 20,
            irqchip: IrqChip::Plic,
            sswi: false,
            isa: "rv64imafdch_zicsr_zifencei".into(),
            isa_extensions: ["i", "m", "a", "f", "d", "c", "h", "zicsr", "zifencei"].map(String::from).into(),
            mmu: "riscv,sv57".into(),
            cache_block: 64,
            bootargs: String::new(),
            initrd: None,
            rng_seed: [0; 32],
            rtc_epoch: 0,
            uart_port: 0,
            virtio: Vec::new(),
            for_supervisor: false,
        }
    }
}

/// A board that cannot be.
#[derive(Debug, thiserror::Error)]
pub enum BoardError {
    /// Too many harts or none.
    #[error("{0} harts: this board has 1 to {MAX_HARTS}")]
    Harts(u32),
    /// Too many guest interrupt files.
    #[error("{0} guest interrupt files: a hart has up to {MAX_GUEST_FILES}")]
    GuestFiles(u32),
    /// Too many virtio devices.
    #[error("{0} virtio devices: this board has {VIRTIO_SLOTS} slots")]
    Slots(usize),
    /// A drive's file.
    #[error(transparent)]
    Disk(#[from] DiskError),
    /// Text that a device tree cannot hold, such as a command line with a NUL.
    #[error("the device tree cannot be written: {0}")]
    DeviceTree(#[from] vm_fdt::Error),
}

impl BoardConfig {
    /// Whether there can be such a board.
    pub fn check(&self) -> Result<(), BoardError> {
        if !(1..=MAX_HARTS).contains(&self.harts) {
            return Err(BoardError::Harts(self.harts));
        }
        if self.virtio.len() > VIRTIO_SLOTS {
            return Err(BoardError::Slots(self.virtio.len()));
        }
        match self.irqchip {
            IrqChip::AplicImsic { guest_files } if guest_files > MAX_GUEST_FILES => {
                Err(BoardError::GuestFiles(guest_files))
            }
            _ => Ok(()),
        }
    }
}

/// The devices of a board that was built, by their place on the bus.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Board {
    /// MSWI and MTIMER.
    pub clint: DeviceId,
    /// SSWI.
    pub sswi: Option<DeviceId>,
    /// PLIC or APLIC.
    pub irqchip: DeviceId,
    /// The machine-level and supervisor-level regions of the IMSICs.
    pub imsics: Option<[DeviceId; 2]>,
    /// The test finisher.
    pub test: DeviceId,
    /// The real-time clock.
    pub rtc: DeviceId,
    /// The UART.
    pub uart: DeviceId,
    /// The virtio slots.
    pub virtio: Vec<DeviceId>,
}

/// Size in bytes of the PLIC or of each APLIC domain.
pub fn irqchip_size(config: &BoardConfig) -> u64 {
    match config.irqchip {
        IrqChip::Plic => plic_size(2 * config.harts),
        _ => DOMAIN_SIZE,
    }
}

/// Adds the devices of a board to a bus, maps them and wires them. Device IDs depend on `config` alone.
pub fn build(config: &BoardConfig, bus: &mut Bus) -> Result<Board, BoardError> {
    config.check()?;
    let (irqchip, imsics) = add_irqchip(config, bus);
    let clint = bus.add(Box::new(Clint::new(config.harts)));
    bus.map_memory(CLINT, CLINT_SIZE, clint);
    for hart in 0..config.harts {
        bus.wire(clint, msip_line(hart), Wire::Vcpu { vcpu: hart, pin: pin::MSIP });
        bus.wire(clint, mtip_line(hart), Wire::Vcpu { vcpu: hart, pin: pin::MTIP });
    }
    let sswi = config.sswi.then(|| {
        let sswi = bus.add(Box::new(Sswi::new(config.harts)));
        bus.map_memory(SSWI, SSWI_SIZE, sswi);
        (0..config.harts).for_each(|h| bus.wire(sswi, h, Wire::Vcpu { vcpu: h, pin: pin::SSIP }));
        sswi
    });
    let test = bus.add(Box::new(TestFinisher));
    bus.map_memory(TEST, TEST_SIZE, test);
    let rtc = bus.add(Box::new(GoldfishRtc::new(config.rtc_epoch)));
    bus.map_memory(RTC, RTC_SIZE, rtc);
    bus.wire(rtc, 0, Wire::Device { device: irqchip, input: RTC_IRQ });
    let uart = UartConfig { port: config.uart_port, reg_shift: 0, clock: UART_CLOCK };
    let uart = bus.add(Box::new(Uart16550::new(uart)));
    bus.map_memory(UART, UART_SIZE, uart);
    bus.wire(uart, 0, Wire::Device { device: irqchip, input: UART_IRQ });
    let mut virtio = Vec::new();
    for slot in 0..VIRTIO_SLOTS {
        let id = match config.virtio.get(slot) {
            Some(device) => bus.add(Box::new(VirtioMmio::new(device.open()?))),
            None => bus.add(Box::new(EmptySlot)),
        };
        bus.map_memory(virtio_base(slot), MMIO_SIZE, id);
        bus.wire(id, 0, Wire::Device { device: irqchip, input: VIRTIO_IRQ + slot as u32 });
        virtio.push(id);
    }
    Ok(Board { clint, sswi, irqchip, imsics, test, rtc, uart, virtio })
}

/// Sets up what firmware would set up at machine level: the APLIC's root domain delegates all sources to the supervisor's
/// domain, and tells it where the interrupt files are (AIA, "Advanced PLIC").
pub fn delegate_interrupts(config: &BoardConfig, write: &mut dyn FnMut(u64, u32)) {
    const SOURCECFG: u64 = 0;
    const DELEGATED_TO_CHILD_0: u32 = 1 << 10;
    if config.irqchip == IrqChip::Plic {
        return;
    }
    for source in 1..=u64::from(SOURCES) {
        write(APLIC_M + SOURCECFG + 4 * source, DELEGATED_TO_CHILD_0);
    }
    if let IrqChip::AplicImsic { guest_files } = config.irqchip {
        let hart_bits = u32::BITS - (config.harts - 1).leading_zeros();
        let guest_bits = ImsicRegion::Supervisor { guest_files }.guest_index_bits();
        write(APLIC_M + 0x1bc0, (IMSIC_M >> 12) as u32);
        write(APLIC_M + 0x1bc4, hart_bits << 12);
        write(APLIC_M + 0x1bc8, (IMSIC_S >> 12) as u32);
        write(APLIC_M + 0x1bcc, guest_bits << 20);
    }
}

/// Base of a virtio slot.
pub fn virtio_base(slot: usize) -> u64 {
    VIRTIO + slot as u64 * MMIO_SIZE
}

/// PLIC or APLIC, and the IMSICs' regions.
fn add_irqchip(config: &BoardConfig, bus: &mut Bus) -> (DeviceId, Option<[DeviceId; 2]>) {
    let harts = config.harts;
    let guest_files = match config.irqchip {
        IrqChip::Plic => {
            let plic = bus.add(Box::new(Plic::new(SOURCES, harts)));
            bus.map_memory(PLIC, irqchip_size(config), plic);
            wire_external(bus, plic, harts);
            return (plic, None);
        }
        IrqChip::Aplic => None,
        IrqChip::AplicImsic { guest_files } => Some(guest_files),
    };
    let aplic = bus.add(Box::new(Aplic::new(AplicConfig {
        sources: SOURCES,
        harts,
        msi: guest_files.is_some(),
        guest_files: guest_files.unwrap_or(0),
    })));
    bus.map(Space::Memory, APLIC_M, DOMAIN_SIZE, aplic, 0, 0);
    bus.map(Space::Memory, APLIC_S, DOMAIN_SIZE, aplic, DOMAIN_SIZE, 0);
    let Some(guest_files) = guest_files else {
        wire_external(bus, aplic, harts);
        return (aplic, None);
    };
    let regions = [(IMSIC_M, ImsicRegion::Machine), (IMSIC_S, ImsicRegion::Supervisor { guest_files })];
    let imsics = regions.map(|(base, region)| {
        let id = bus.add(Box::new(Imsic::new(region, harts)));
        // Pages of harts that do not exist read as 0, up to a power of two of harts.
        bus.map_memory(base, region.size(harts.next_power_of_two()), id);
        id
    });
    (aplic, Some(imsics))
}

/// Lines 2 h and 2 h + 1 of an interrupt controller are the external interrupts of hart h.
fn wire_external(bus: &mut Bus, device: DeviceId, harts: u32) {
    for hart in 0..harts {
        bus.wire(device, 2 * hart, Wire::Vcpu { vcpu: hart, pin: pin::MEIP });
        bus.wire(device, 2 * hart + 1, Wire::Vcpu { vcpu: hart, pin: pin::SEIP });
    }
}

#[cfg(test)]
mod tests {
    use emu_core::bus::BusCx;
    use emu_core::door::Door;
    use emu_core::ram::Ram;

    use super::*;

    fn io(bus: &mut Bus, at: u64, size: u8, value: Option<u64>) -> Option<u64> {
        let (mut ram, mut door) = (Ram::default(), Door::default());
        let cx = BusCx { now: 0, ram: &mut ram, door: &mut door };
        match value {
            None => bus.read(Space::Memory, at, size, cx),
            Some(v) => bus.write(Space::Memory, at, size, v, cx).map(|()| 0),
        }
    }

    #[test]
    fn every_device_answers_at_its_place() {
        for irqchip in [IrqChip::Plic, IrqChip::Aplic, IrqChip::AplicImsic { guest_files: 3 }] {
            let mut bus = Bus::default();
            let virtio = vec![VirtioDevice::Rng { seed: 1 }, VirtioDevice::Console { port: 1 }];
            let config = BoardConfig { harts: 3, irqchip, sswi: true, virtio, ..BoardConfig::default() };
            let board = build(&config, &mut bus).unwrap();
            assert_eq!(board.virtio.len(), VIRTIO_SLOTS);
            for at in [TEST, RTC, CLINT, SSWI, PLIC, UART, VIRTIO + 0x7000] {
                assert_eq!(io(&mut bus, at & !3, 4, None).is_some(), bus.answers(Space::Memory, at));
                assert!(bus.answers(Space::Memory, at), "{at:#x}");
            }
            assert_eq!([8, 0x1008, 0x2008].map(|at| io(&mut bus, VIRTIO + at, 4, None)), [Some(4), Some(3), Some(0)]);
            let imsic = matches!(irqchip, IrqChip::AplicImsic { .. });
            for (at, is_there) in [
                (APLIC_S, irqchip != IrqChip::Plic),
                (IMSIC_M + 0x2000, imsic),
                (IMSIC_S + 0xffff, imsic),
                (IMSIC_S + 0x1_0000, false),
                (RAM, false),
            ] {
                assert_eq!(bus.answers(Space::Memory, at), is_there, "{irqchip:?} {at:#x}");
            }
            if irqchip != IrqChip::Plic {
                assert!(io(&mut bus, APLIC_S, 4, None).is_some_and(|v| v >> 24 == 0x80));
            }
        }
    }

    /// UART to PLIC: the interrupt is there to be claimed.
    #[test]
    fn an_interrupt_goes_along_the_wires() {
        let mut bus = Bus::default();
        build(&BoardConfig::default(), &mut bus).unwrap();
        io(&mut bus, PLIC + 4 * u64::from(UART_IRQ), 4, Some(1));
        io(&mut bus, PLIC + 0x2080, 4, Some(1 << UART_IRQ));
        io(&mut bus, UART + 1, 1, Some(2));
        assert_eq!(io(&mut bus, PLIC + 0x20_1004, 4, None), Some(10));
    }

    #[test]
    fn boards_that_cannot_be() {
        let build = |config: BoardConfig| build(&config, &mut Bus::default());
        assert!(matches!(build(BoardConfig { harts: 0, ..BoardConfig::default() }), Err(BoardError::Harts(0))));
        let virtio = vec![VirtioDevice::Rng { seed: 1 }; 9];
        assert!(matches!(build(BoardConfig { virtio, ..BoardConfig::default() }), Err(BoardError::Slots(9))));
        let irqchip = IrqChip::AplicImsic { guest_files: 64 };
        assert!(matches!(build(BoardConfig { irqchip, ..BoardConfig::default() }), Err(BoardError::GuestFiles(64))));
    }
}
