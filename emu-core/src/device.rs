//! Devices are chips: plain registers, level lines, a next wake-up (docs/design.md, decision 9).
//!
//! A device keeps no thread, no clock and no handle of the machine. Whatever it may touch is lent to it for the call, as
//! a [`DeviceCx`].

use crate::dma::Dma;
use crate::door::Door;
use crate::iommu::Iommu;
use crate::ram::Ram;
use crate::time::VirtualTime;

/// One access to a device's registers. Never wider than 8 bytes; the bus has cut it at the device's edges.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Access {
    /// Offset in bytes from the start of the device's mapping.
    pub offset: u64,
    /// Size in bytes: 1 to 8 (3, 5, 6, 7 only where a misaligned access was cut).
    pub size: u8,
}

/// A device's place on the bus, and its name in wires, traces and snapshots.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
pub struct DeviceId(pub u16);

/// Who signals.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Source {
    /// The device.
    pub device: DeviceId,
    /// The requester ID that goes with its messages; see [`DeviceCx::requester`].
    pub requester: Option<u16>,
}

/// What a device tells the rest of the machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signal {
    /// An output line of the device has this level now. Where it leads is the platform's wiring.
    Line {
        /// The device's own number of its line.
        line: u32,
        /// The level.
        level: bool,
    },
    /// A message-signalled interrupt: a write of 4 bytes to a physical address.
    Msi {
        /// Physical address written to.
        address: u64,
        /// Value written.
        data: u32,
    },
    /// A message to a vCPU's own interrupt logic (an IMSIC file, a local APIC).
    Vcpu {
        /// Index of the vCPU.
        vcpu: u32,
        /// What it means is between the device and the architecture.
        message: u32,
        /// Likewise.
        value: u64,
    },
}

/// What a device asks of the machine as a whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub enum Request {
    /// Power off; 0 is success, everything else is the guest's failure code.
    PowerOff {
        /// The guest's own code.
        code: u32,
    },
    /// Reset of the whole machine.
    Reset,
}

/// What is lent to a device for one call.
pub struct DeviceCx<'a> {
    /// Virtual time of the access, in nanoseconds.
    pub now: VirtualTime,
    /// Guest RAM, for chips that make up the board's memory; others have [`DeviceCx::dma`]. Physical addresses; a write that hits translated
    /// code kills it.
    pub ram: &'a mut Ram,
    /// The one door to the world outside.
    pub door: &'a mut Door,
    /// The ID that the device's accesses to memory and its messages go out with, by which an [`Iommu`] knows them. `None`: they are
    /// not translated. A bus with functions of their own IDs sets it for each call of one.
    pub requester: Option<u16>,
    pub(crate) iommu: Option<(DeviceId, &'a mut (dyn Iommu + 'static))>,
    pub(crate) hidden: Option<(u64, u64)>,
    pub(crate) signals: &'a mut Vec<(Source, Signal)>,
    pub(crate) request: &'a mut Option<Request>,
    pub(crate) device: DeviceId,
}

impl DeviceCx<'_> {
    /// RAM as bus masters see it.
    pub fn dma(&mut self) -> Dma<'_> {
        Dma(self.lent())
    }

    /// The same, lent on.
    pub(crate) fn lent(&mut self) -> DeviceCx<'_> {
        DeviceCx {
            now: self.now,
            ram: self.ram,
            door: self.door,
            requester: self.requester,
            iommu: self.iommu.as_mut().map(|(id, iommu)| (*id, &mut **iommu)),
            hidden: self.hidden,
            signals: self.signals,
            request: self.request,
            device: self.device,
        }
    }

    /// The IOMMU, with what is lent to it while the device asks for something. Its own accesses are not translated.
    pub(crate) fn iommu(&mut self) -> Option<(&mut (dyn Iommu + 'static), DeviceCx<'_>)> {
        let (id, iommu) = self.iommu.as_mut()?;
        let cx = DeviceCx {
            now: self.now,
            ram: self.ram,
            door: self.door,
            requester: None,
            iommu: None,
            hidden: self.hidden,
            signals: self.signals,
            request: self.request,
            device: *id,
        };
        Some((&mut **iommu, cx))
    }

    fn signal(&mut self, signal: Signal) {
        self.signals.push((Source { device: self.device, requester: self.requester }, signal));
    }

    /// Sets the level of the device's output `line`. Setting it to the level that it has is allowed and costs little.
    pub fn line(&mut self, line: u32, level: bool) {
        self.signal(Signal::Line { line, level });
    }

    /// Sends a message-signalled interrupt.
    pub fn msi(&mut self, address: u64, data: u32) {
        self.signal(Signal::Msi { address, data });
    }

    /// Sends a message to a vCPU's interrupt logic.
    pub fn vcpu(&mut self, vcpu: u32, message: u32, value: u64) {
        self.signal(Signal::Vcpu { vcpu, message, value });
    }

    /// Asks for power-off or reset. The first request stands.
    pub fn request(&mut self, request: Request) {
        self.request.get_or_insert(request);
    }
}

/// A chip. State is plain data; see the module's text.
pub trait Device: Send {
    /// A short name for traces and errors, such as `"uart"`.
    fn name(&self) -> &'static str;

    /// Reads a register. A register that does not exist reads as the real chip's would (mostly 0).
    fn read(&mut self, access: Access, cx: &mut DeviceCx) -> u64;

    /// Writes a register; only the low `access.size` bytes of `value` count, the others are 0.
    fn write(&mut self, access: Access, value: u64, cx: &mut DeviceCx);

    /// An input wire of this device (an interrupt controller) has changed to `level`.
    fn input(&mut self, _line: u32, _level: bool, _cx: &mut DeviceCx) {}

    /// The time that [`Device::wakes_at`] named has come, or input may have arrived.
    fn tick(&mut self, _cx: &mut DeviceCx) {}

    /// When the device wants [`Device::tick`] next; asked again after every call of the others.
    fn wakes_at(&self) -> Option<VirtualTime> {
        None
    }

    /// Of a host bridge ([`Bus::hosts`](crate::bus::Bus::hosts)): RAM that it keeps from bus masters, base and size in bytes.
    fn hides(&self) -> Option<(u64, u64)> {
        None
    }

    /// Of an IOMMU ([`Bus::translates`](crate::bus::Bus::translates)): itself.
    fn iommu(&mut self) -> Option<&mut (dyn Iommu + 'static)> {
        None
    }

    /// What it has counted, for statistics: names and counts. They are no part of its state.
    fn counts(&self) -> Vec<(&'static str, u64)> {
        Vec::new()
    }

    /// Back to the state at power-on. Backing storage stays as it is.
    fn reset(&mut self);

    /// The whole state, as bytes (see [`device_state`](crate::device_state)).
    fn save(&self) -> Vec<u8>;

    /// Takes the state that [`Device::save`] gave; an error says what is wrong with it.
    fn restore(&mut self, bytes: &[u8]) -> Result<(), String>;
}

/// Implements [`Device::save`] and [`Device::restore`] for a device whose whole state is the named serde field.
#[macro_export]
macro_rules! device_state {
    ($field:ident) => {
        fn save(&self) -> Vec<u8> {
            $crate::to_bytes(&self.$field)
        }
        fn restore(&mut self, bytes: &[u8]) -> Result<(), String> {
            self.$field = $crate::from_bytes(bytes)?;
            Ok(())
        }
    };
}

/// A single chip on the bench: what [`DeviceCx`] lends, without a machine around it. For tests of devices.
#[derive(Default)]
pub struct Bench {
    /// Virtual time that the next call sees.
    pub now: VirtualTime,
    /// RAM that the next call sees.
    pub ram: Ram,
    /// What of RAM bus masters do not see.
    pub hidden: Option<(u64, u64)>,
    /// The requester ID of the device.
    pub requester: Option<u16>,
    /// The door that the next call sees.
    pub door: Door,
    /// What the device has asked of the machine.
    pub request: Option<Request>,
    /// What it has signalled.
    pub signals: Vec<(Source, Signal)>,
}

impl Bench {
    /// What is lent to the device for one call.
    pub fn cx(&mut self) -> DeviceCx<'_> {
        DeviceCx {
            now: self.now,
            ram: &mut self.ram,
            requester: self.requester,
            iommu: None,
            hidden: self.hidden,
            door: &mut self.door,
            signals: &mut self.signals,
            request: &mut self.request,
            device: DeviceId(0),
        }
    }

    /// Reads `size` bytes of the device's registers at `offset`.
    pub fn read(&mut self, device: &mut dyn Device, offset: u64, size: u8) -> u64 {
        device.read(Access { offset, size }, &mut self.cx())
    }

    /// Writes `size` bytes of the device's registers at `offset`.
    pub fn write(&mut self, device: &mut dyn Device, offset: u64, size: u8, value: u64) {
        device.write(Access { offset, size }, value, &mut self.cx());
    }

    /// Lets virtual time go on to `to`, with a tick whenever the device wakes.
    pub fn run_to(&mut self, device: &mut dyn Device, to: VirtualTime) {
        let mut bound = 100_000;
        while let Some(at) = device.wakes_at().filter(|at| *at <= to) {
            self.now = self.now.max(at);
            device.tick(&mut self.cx());
            bound -= 1;
            assert!(bound > 0, "{} wakes for ever", device.name());
        }
        self.now = to;
    }

    /// The signals since the last call.
    pub fn take_signals(&mut self) -> Vec<Signal> {
        std::mem::take(&mut self.signals).into_iter().map(|(_, s)| s).collect()
    }

    /// The last level that output `line` was set to since signals were last taken.
    pub fn last_level(&self, line: u32) -> Option<bool> {
        self.signals.iter().rev().find_map(|(_, s)| match s {
            Signal::Line { line: l, level } if *l == line => Some(*level),
            _ => None,
        })
    }
}
