//! The PCI transport of virtio devices, modern interface ("Virtual I/O Device (VIRTIO) Version 1.2", "Virtio Over PCI Bus").
//!
//! BAR 0 has the common configuration, ISR, device configuration and notifications; BAR 2 the MSI-X table, with a vector for
//! each queue and one for the configuration. There is no legacy interface.

use emu_core::device::{Access, DeviceCx};
use emu_core::devices::virtio::Backend;
use emu_core::devices::virtio::queue::Queue;
use emu_core::devices::virtio::transport::{self, Notifications, set_high, set_low};
use emu_core::time::VirtualTime;
use serde::{Deserialize, Serialize};

use super::Function;
use super::config::{Bar, Config, ConfigState, command, header};
use super::message::{MsiX, MsiXState};
use crate::platform::{low_bytes, read_bytes, write_bytes};

const VENDOR: u16 = 0x1af4;
/// "PCI Device Discovery": device IDs begin here.
const DEVICE: u16 = 0x1040;

// BAR 0. Each structure has a page.
const BAR: u8 = 0;
const BAR_SIZE: u64 = 0x4000;
const COMMON: u64 = 0x0000;
const ISR: u64 = 0x1000;
const DEVICE_CONFIG: u64 = 0x2000;
const NOTIFY: u64 = 0x3000;
const PAGE: u64 = 0x1000;
/// "notify_off_multiplier".
const NOTIFY_MULTIPLIER: u64 = 4;
const MSIX_BAR: u8 = 2;

/// "Virtio Structure PCI Capabilities".
mod capability {
    pub const ID: u8 = 0x09;
    pub const COMMON: u32 = 1;
    pub const NOTIFY: u32 = 2;
    pub const ISR: u32 = 3;
    pub const DEVICE: u32 = 4;
    pub const PCI: u32 = 5;
    // Offsets of its fields.
    pub const LEN: usize = 2;
    pub const TYPE: usize = 3;
    pub const BAR: usize = 4;
    pub const OFFSET: usize = 8;
    pub const LENGTH: usize = 12;
    /// Of notifications: the multiplier. Of PCI configuration access: the data.
    pub const MORE: usize = 16;
}

/// "Common configuration structure layout".
mod common {
    pub const DEVICE_FEATURE_SELECT: u64 = 0x00;
    pub const DEVICE_FEATURE: u64 = 0x04;
    pub const DRIVER_FEATURE_SELECT: u64 = 0x08;
    pub const DRIVER_FEATURE: u64 = 0x0c;
    pub const CONFIG_MSIX_VECTOR: u64 = 0x10;
    pub const NUM_QUEUES: u64 = 0x12;
    pub const DEVICE_STATUS: u64 = 0x14;
    pub const QUEUE_SELECT: u64 = 0x16;
    pub const QUEUE_SIZE: u64 = 0x18;
    pub const QUEUE_MSIX_VECTOR: u64 = 0x1a;
    pub const QUEUE_ENABLE: u64 = 0x1c;
    pub const QUEUE_NOTIFY_OFF: u64 = 0x1e;
    pub const QUEUE_DESC: u64 = 0x20;
    pub const QUEUE_DRIVER: u64 = 0x28;
    pub const QUEUE_DEVICE: u64 = 0x30;
    pub const END: u64 = 0x38;
}

/// ISR: a queue has used buffers.
const ISR_QUEUE: u8 = 1;
/// ISR: the device's configuration has changed.
const ISR_CONFIG: u8 = 2;
/// "VIRTIO_MSI_NO_VECTOR".
const NO_VECTOR: u16 = 0xffff;

/// What the transport has of its own.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct State {
    isr: u8,
    config_vector: u16,
    queue_vectors: Vec<u16>,
}

impl State {
    fn new(queues: usize) -> Self {
        State { isr: 0, config_vector: NO_VECTOR, queue_vectors: vec![NO_VECTOR; queues] }
    }
}

#[derive(Serialize, Deserialize)]
struct Saved {
    config: ConfigState,
    msix: MsiXState,
    state: State,
    device: Vec<u8>,
}

/// A virtio device in a PCI slot.
pub struct VirtioPci {
    device: transport::Device,
    config: Config,
    msix: MsiX,
    /// Where the capability of PCI configuration access is.
    window: usize,
    /// The data field of that capability has been written.
    window_written: bool,
    state: State,
}

impl VirtioPci {
    /// A function with a device behind it.
    pub fn new(backend: Box<dyn Backend>) -> Self {
        let id = backend.id();
        let class = match id {
            1 => 0x02_0000, // network
            2 => 0x01_0000, // mass storage
            3 => 0x07_8000, // communication
            _ => 0x00_ff00,
        };
        let mut c = Config::new(VENDOR, DEVICE + id as u16, class, 1);
        c.set(header::SUBSYSTEM, 4, u32::from(VENDOR) | 0x1100 << 16);
        c.set(header::INTERRUPT_PIN, 1, 1);
        c.add_bar(BAR.into(), Bar::Memory64(BAR_SIZE));
        let queues = backend.queues().len();
        let vectors = queues as u16 + 1;
        c.add_bar(MSIX_BAR.into(), Bar::Memory32(MsiX::size(vectors)));
        let mut structure = |kind: u32, offset: u64, length: u64, more: bool| {
            let size = capability::MORE + if more { 4 } else { 0 };
            let at = c.add_capability(capability::ID, size);
            c.set(at + capability::LEN, 1, size as u32);
            c.set(at + capability::TYPE, 1, kind);
            c.set(at + capability::BAR, 1, BAR.into());
            c.set(at + capability::OFFSET, 4, offset as u32);
            c.set(at + capability::LENGTH, 4, length as u32);
            at
        };
        structure(capability::COMMON, COMMON, PAGE, false);
        structure(capability::ISR, ISR, PAGE, false);
        structure(capability::DEVICE, DEVICE_CONFIG, PAGE, false);
        let notify = structure(capability::NOTIFY, NOTIFY, PAGE, true);
        let window = structure(capability::PCI, 0, 0, true);
        c.set(notify + capability::MORE, 4, NOTIFY_MULTIPLIER as u32);
        c.allow(window + capability::BAR, 1, 0xff);
        for field in [capability::OFFSET, capability::LENGTH, capability::MORE] {
            c.allow(window + field, 4, u32::MAX);
        }
        let msix = MsiX::new(&mut c, MSIX_BAR, vectors);
        let device = transport::Device::new(backend);
        let mut function =
            VirtioPci { device, config: c.seal(), msix, window, window_written: false, state: State::new(queues) };
        function.reset_state();
        function
    }

    /// The same on a platform with an IOMMU: its driver is offered VIRTIO_F_ACCESS_PLATFORM. One that does not accept it knows of no IOMMU, so
    /// that the device's accesses are not translated then.
    pub fn behind_iommu(mut self) -> Self {
        self.device.offers_access_platform = true;
        self
    }

    /// "Virtqueue Configuration": queues have the largest size until the driver says otherwise.
    fn reset_state(&mut self) {
        let sizes = self.device.backend.queues();
        self.state = State::new(sizes.len());
        for (queue, size) in self.device.state.queues.iter_mut().zip(sizes) {
            queue.size = *size;
        }
    }

    /// An interrupt by message, or by ISR and pin.
    fn interrupt(&mut self, vector: u16, isr: u8, cx: &mut DeviceCx) {
        if self.msix.is_enabled(&self.config) {
            self.msix.send(&self.config, vector, cx);
        } else {
            self.state.isr |= isr;
        }
    }

    fn raise(&mut self, notifications: Notifications, cx: &mut DeviceCx) {
        for i in 0..self.state.queue_vectors.len() {
            if notifications.queues >> i & 1 != 0 {
                self.interrupt(self.state.queue_vectors[i], ISR_QUEUE, cx);
            }
        }
        if notifications.configuration {
            self.interrupt(self.state.config_vector, ISR_CONFIG, cx);
        }
    }

    /// Whether the device may reach memory.
    fn is_master(&self) -> bool {
        self.config.has(command::MASTER)
    }

    fn notify(&mut self, queue: u64, cx: &mut DeviceCx) {
        if self.is_master() {
            let notifications = self.device.notify(queue, cx);
            self.raise(notifications, cx);
        }
    }

    /// The common configuration, as bytes. Of a queue that there is not, all is 0.
    fn common(&self) -> [u8; common::END as usize] {
        let (s, d) = (&self.state, &self.device.state);
        let mut bytes = [0; common::END as usize];
        let mut put = |at: u64, size: usize, value: u64| {
            bytes[at as usize..at as usize + size].copy_from_slice(&value.to_le_bytes()[..size]);
        };
        put(common::DEVICE_FEATURE_SELECT, 4, d.device_feature_select.into());
        put(common::DEVICE_FEATURE, 4, self.device.device_features().into());
        put(common::DRIVER_FEATURE_SELECT, 4, d.driver_feature_select.into());
        put(common::DRIVER_FEATURE, 4, self.device.driver_features().into());
        put(common::CONFIG_MSIX_VECTOR, 2, s.config_vector.into());
        put(common::NUM_QUEUES, 2, d.queues.len() as u64);
        put(common::DEVICE_STATUS, 1, d.status.into());
        put(common::QUEUE_SELECT, 2, d.queue_select.into());
        let select = d.queue_select as usize;
        if let Some(q) = d.queues.get(select) {
            put(common::QUEUE_SIZE, 2, q.size.into());
            put(common::QUEUE_MSIX_VECTOR, 2, s.queue_vectors[select].into());
            put(common::QUEUE_ENABLE, 2, q.ready.into());
            put(common::QUEUE_NOTIFY_OFF, 2, d.queue_select.into());
            put(common::QUEUE_DESC, 8, q.descriptors);
            put(common::QUEUE_DRIVER, 8, q.available);
            put(common::QUEUE_DEVICE, 8, q.used);
        }
        bytes
    }

    /// A field is written whole, those of 64 bits also by halves; other writes are not for the device.
    fn write_common(&mut self, access: Access, value: u64) {
        let vector = if value < self.msix.vectors() as u64 { value as u16 } else { NO_VECTOR };
        let (s, d) = (&mut self.state, &mut self.device);
        match (access.offset, access.size) {
            (common::DEVICE_FEATURE_SELECT, 4) => d.state.device_feature_select = value as u32,
            (common::DRIVER_FEATURE_SELECT, 4) => d.state.driver_feature_select = value as u32,
            (common::DRIVER_FEATURE, 4) => d.set_driver_features(value as u32),
            (common::CONFIG_MSIX_VECTOR, 2) => s.config_vector = vector,
            (common::DEVICE_STATUS, 1) => {
                let is_reset = d.set_status(value as u8);
                if is_reset {
                    self.reset_state();
                }
            }
            (common::QUEUE_SELECT, 2) => d.state.queue_select = value as u32 & 0xffff,
            (common::QUEUE_MSIX_VECTOR, 2) => {
                if let Some(v) = s.queue_vectors.get_mut(d.state.queue_select as usize) {
                    *v = vector;
                }
            }
            (common::QUEUE_SIZE, 2) => d.set_queue_size(value),
            (common::QUEUE_ENABLE..common::END, _) => {
                if let Some(q) = d.queue().filter(|q| !q.ready) {
                    set_up_queue(q, access, value);
                }
            }
            _ => {}
        }
    }

    /// Reading it acknowledges ("ISR status capability").
    fn read_isr(&mut self) -> u8 {
        std::mem::take(&mut self.state.isr)
    }

    fn read_bar(&mut self, access: Access) -> u64 {
        match access.offset {
            COMMON..ISR => {
                let bytes = self.common();
                read_bytes(access, |at| bytes.get(at as usize).copied().unwrap_or(0))
            }
            ISR => self.read_isr().into(),
            DEVICE_CONFIG..NOTIFY => self.device.read_config(access.offset - DEVICE_CONFIG, access.size),
            _ => 0,
        }
    }

    fn write_bar(&mut self, access: Access, value: u64, cx: &mut DeviceCx) {
        match access.offset {
            COMMON..ISR => self.write_common(access, value),
            NOTIFY.. => self.notify((access.offset - NOTIFY) / NOTIFY_MULTIPLIER, cx),
            _ => {}
        }
    }

    /// "PCI configuration access capability": the BAR and the access that its fields name. Others than those of 1, 2 or 4
    /// bytes, aligned and within the BAR, are not for the device.
    fn window_access(&self) -> Option<(u8, Access)> {
        let field = |at: usize, size: usize| self.config.get(self.window + at, size);
        let (bar, offset, length) =
            (field(capability::BAR, 1) as u8, field(capability::OFFSET, 4), field(capability::LENGTH, 4));
        let size = match bar {
            BAR => BAR_SIZE,
            MSIX_BAR => MsiX::size(self.msix.vectors() as u16),
            _ => return None,
        };
        let fits = matches!(length, 1 | 2 | 4) && offset % length == 0 && u64::from(offset) + u64::from(length) <= size;
        fits.then_some((bar, Access { offset: offset.into(), size: length as u8 }))
    }

    /// The byte of the data field that a configuration address is.
    fn window_byte(&self, at: usize) -> Option<u32> {
        at.checked_sub(self.window + capability::MORE).filter(|i| *i < 4).map(|i| i as u32)
    }
}

/// "Virtqueue Configuration", of a queue that is not enabled.
fn set_up_queue(q: &mut Queue, access: Access, value: u64) {
    match (access.offset, access.size) {
        (common::QUEUE_ENABLE, 2) => q.ready = value == 1 && q.size != 0,
        (common::QUEUE_DESC..common::END, 4 | 8) => {
            let field = match access.offset & !7 {
                common::QUEUE_DESC => &mut q.descriptors,
                common::QUEUE_DRIVER => &mut q.available,
                _ => &mut q.used,
            };
            match (access.offset % 8, access.size) {
                (0, 8) => *field = value,
                (0, _) => set_low(field, value as u32),
                (4, 4) => set_high(field, value as u32),
                _ => {}
            }
        }
        _ => {}
    }
}

impl Function for VirtioPci {
    fn name(&self) -> &'static str {
        self.device.backend.name()
    }

    fn config(&self) -> &Config {
        &self.config
    }

    fn config_mut(&mut self) -> &mut Config {
        &mut self.config
    }

    fn read_config(&mut self, at: usize, cx: &mut DeviceCx) -> u8 {
        let Some(byte) = self.window_byte(at) else { return self.config.read(at) };
        match self.window_access() {
            Some((region, access)) if byte < u32::from(access.size) => {
                (self.read(region, access, cx) >> (8 * byte)) as u8
            }
            _ => 0,
        }
    }

    fn write_config(&mut self, at: usize, value: u8, _: &mut DeviceCx) {
        self.window_written |= self.window_byte(at).is_some();
        self.config.write(at, value);
    }

    fn config_written(&mut self, cx: &mut DeviceCx) {
        if std::mem::take(&mut self.window_written)
            && let Some((region, access)) = self.window_access()
        {
            let data = u64::from(self.config.get(self.window + capability::MORE, 4));
            self.write(region, access, data & low_bytes(access.size), cx);
        }
        self.msix.update(&self.config, cx);
    }

    fn read(&mut self, region: u8, access: Access, _: &mut DeviceCx) -> u64 {
        match region {
            BAR => self.read_bar(access),
            _ => read_bytes(access, |at| self.msix.read(at)),
        }
    }

    fn write(&mut self, region: u8, access: Access, value: u64, cx: &mut DeviceCx) {
        if region == BAR {
            return self.write_bar(access, value, cx);
        }
        write_bytes(access, value, |at, byte| self.msix.write(at, byte));
        self.msix.update(&self.config, cx);
    }

    fn tick(&mut self, cx: &mut DeviceCx) {
        if self.is_master() {
            let notifications = self.device.tick(cx);
            self.raise(notifications, cx);
        }
    }

    fn wakes_at(&self) -> Option<VirtualTime> {
        self.device.wakes_at().filter(|_| self.is_master())
    }

    fn intx(&self) -> bool {
        self.state.isr != 0 && !self.msix.is_enabled(&self.config)
    }

    fn reset(&mut self) {
        self.device.reset();
        self.config.reset();
        self.msix.reset();
        self.reset_state();
    }

    fn save(&self) -> Vec<u8> {
        emu_core::to_bytes(&Saved {
            config: self.config.state(),
            msix: self.msix.state.clone(),
            state: self.state.clone(),
            device: self.device.save(),
        })
    }

    fn restore(&mut self, bytes: &[u8]) -> Result<(), String> {
        let saved: Saved = emu_core::from_bytes(bytes)?;
        if saved.state.queue_vectors.len() != self.state.queue_vectors.len() {
            return Err("it has another number of queues".into());
        }
        self.device.restore(&saved.device)?;
        self.config.set_state(saved.config)?;
        self.msix.set_state(saved.msix)?;
        self.state = saved.state;
        Ok(())
    }
}

#[cfg(test)]
mod tests;
