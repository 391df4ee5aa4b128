//! What all transports have in common (Virtio 1.2, "Basic Facilities of a Virtio Device"): the device status field, the features that driver
//! and device agree on, the virtqueues and the device behind them.

use serde::{Deserialize, Serialize};

use super::queue::{Broken, Queue};
use super::{Backend, F_ACCESS_PLATFORM, F_EVENT_IDX, F_INDIRECT_DESC, F_VERSION_1};
use crate::device::DeviceCx;
use crate::time::VirtualTime;

/// "Device Status Field".
mod status {
    pub const DRIVER_OK: u8 = 4;
    pub const FEATURES_OK: u8 = 8;
    pub const NEEDS_RESET: u8 = 64;
}

/// What the driver has said, and the queues.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct State {
    /// The device status field.
    pub status: u8,
    /// Which word of the features that the device offers is seen.
    pub device_feature_select: u32,
    /// Which word of the features that the driver wants is seen.
    pub driver_feature_select: u32,
    /// The features that the driver wants.
    driver_features: u64,
    /// Which queue is seen.
    pub queue_select: u32,
    /// The queues.
    pub queues: Vec<Queue>,
}

/// "Notifications" that the device owes its driver.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Notifications {
    /// Used buffer notifications: a bit for each queue.
    pub queues: u64,
    /// A configuration change notification.
    pub configuration: bool,
}

/// A device behind a transport.
pub struct Device {
    /// What kind of device it is.
    pub backend: Box<dyn Backend>,
    /// What the driver has said.
    pub state: State,
    /// Its accesses to memory can go the way of all others on the platform, through an IOMMU.
    pub offers_access_platform: bool,
}

impl Device {
    /// A device that no driver has found.
    pub fn new(backend: Box<dyn Backend>) -> Self {
        let mut device = Device { backend, state: State::default(), offers_access_platform: false };
        device.reset();
        device
    }

    /// "Device Reset".
    pub fn reset(&mut self) {
        self.backend.reset();
        self.state = State { queues: vec![Queue::default(); self.backend.queues().len()], ..State::default() };
    }

    /// Writes the device status field ("Device Initialization"); says whether that was a reset. FEATURES_OK stays clear if the driver wants
    /// what was not offered.
    pub fn set_status(&mut self, value: u8) -> bool {
        if value == 0 {
            self.reset();
            return true;
        }
        let mut status = value | self.state.status & status::NEEDS_RESET;
        let features = self.state.driver_features;
        if features & !self.offered() != 0 || features & F_VERSION_1 == 0 {
            status &= !status::FEATURES_OK;
        }
        for q in &mut self.state.queues {
            q.indirect = features & F_INDIRECT_DESC != 0;
            q.event_idx = features & F_EVENT_IDX != 0;
        }
        self.state.status = status;
        false
    }

    /// Whether the driver runs the device.
    pub fn runs(&self) -> bool {
        let bits = self.state.status & (status::DRIVER_OK | status::FEATURES_OK | status::NEEDS_RESET);
        bits == status::DRIVER_OK | status::FEATURES_OK
    }

    fn offered(&self) -> u64 {
        let platform = if self.offers_access_platform { F_ACCESS_PLATFORM } else { 0 };
        self.backend.features() | F_INDIRECT_DESC | F_EVENT_IDX | F_VERSION_1 | platform
    }

    /// VIRTIO_F_ACCESS_PLATFORM has been agreed upon. Else addresses are physical.
    fn accesses_platform(&self) -> bool {
        self.state.driver_features & F_ACCESS_PLATFORM != 0
    }

    /// What is lent to the device while it works with its queues.
    fn lends<'a>(&self, cx: &'a mut DeviceCx) -> DeviceCx<'a> {
        let requester = cx.requester.filter(|_| self.accesses_platform());
        DeviceCx { requester, ..cx.lent() }
    }

    /// The selected word of the features that the device offers.
    pub fn device_features(&self) -> u32 {
        half(self.offered(), self.state.device_feature_select)
    }

    /// The selected word of the features that the driver wants.
    pub fn driver_features(&self) -> u32 {
        half(self.state.driver_features, self.state.driver_feature_select)
    }

    /// Writes the selected word of the features that the driver wants, until both have agreed.
    pub fn set_driver_features(&mut self, value: u32) {
        let features = &mut self.state.driver_features;
        if self.state.status & status::FEATURES_OK == 0 {
            match self.state.driver_feature_select {
                0 => set_low(features, value),
                1 => set_high(features, value),
                _ => {}
            }
        }
    }

    /// The selected queue, if there is one.
    pub fn queue(&mut self) -> Option<&mut Queue> {
        self.state.queues.get_mut(self.state.queue_select as usize)
    }

    /// The largest size of the selected queue; 0 if there is none.
    pub fn queue_size_max(&self) -> u16 {
        self.backend.queues().get(self.state.queue_select as usize).copied().unwrap_or(0)
    }

    /// Sets the size of the selected queue, unless it is ready.
    pub fn set_queue_size(&mut self, size: u64) {
        let max = self.queue_size_max();
        if let Some(q) = self.queue().filter(|q| !q.ready)
            && size <= max.into()
            && size.is_power_of_two()
        {
            q.size = size as u16;
        }
    }

    /// "Available Buffer Notifications": the driver has made buffers available in a queue.
    pub fn notify(&mut self, queue: u64, cx: &mut DeviceCx) -> Notifications {
        if !self.runs() || queue >= self.state.queues.len() as u64 {
            return Notifications::default();
        }
        let mut cx = self.lends(cx);
        let result = self.backend.notify(queue as usize, &mut self.state.queues, &mut cx);
        self.finish(result, &mut cx)
    }

    /// See [`Backend::tick`].
    pub fn tick(&mut self, cx: &mut DeviceCx) -> Notifications {
        if !self.runs() {
            return Notifications::default();
        }
        let mut cx = self.lends(cx);
        let result = self.backend.tick(&mut self.state.queues, &mut cx);
        self.finish(result, &mut cx)
    }

    /// When the device wants [`Device::tick`].
    pub fn wakes_at(&self) -> Option<VirtualTime> {
        self.backend.wakes_at().filter(|_| self.runs())
    }

    /// After the device has worked: what the driver is told, or DEVICE_NEEDS_RESET.
    fn finish(&mut self, result: Result<(), Broken>, cx: &mut DeviceCx) -> Notifications {
        let mut notifications = Notifications::default();
        let finished = result.and_then(|()| {
            for (i, q) in self.state.queues.iter_mut().enumerate() {
                notifications.queues |= u64::from(q.finish(&mut cx.dma())?) << i;
            }
            Ok(())
        });
        if finished.is_err() {
            self.state.status |= status::NEEDS_RESET;
            notifications.configuration = true;
        }
        notifications
    }

    /// Reads the device's configuration space: as many bytes as an access has, at most 8.
    pub fn read_config(&self, offset: u64, size: u8) -> u64 {
        let mut bytes = [0; 8];
        self.backend.read_config(offset, &mut bytes[..usize::from(size.min(8))]);
        u64::from_le_bytes(bytes)
    }

    /// All state, that of the kind of device included.
    pub fn save(&self) -> Vec<u8> {
        crate::to_bytes(&(&self.state, serde_bytes::ByteBuf::from(self.backend.save())))
    }

    /// Restores what [`Device::save`] has saved.
    pub fn restore(&mut self, bytes: &[u8]) -> Result<(), String> {
        let (state, backend): (State, serde_bytes::ByteBuf) = crate::from_bytes(bytes)?;
        if state.queues.len() != self.backend.queues().len() {
            return Err(format!("{} has another number of queues", self.backend.name()));
        }
        self.backend.restore(&backend)?;
        self.state = state;
        Ok(())
    }
}

/// A word of a register of two.
fn half(value: u64, select: u32) -> u32 {
    match select {
        0 => value as u32,
        1 => (value >> 32) as u32,
        _ => 0,
    }
}

/// Writes the low word of a register of two.
pub fn set_low(register: &mut u64, value: u32) {
    *register = *register & !0xffff_ffff | u64::from(value);
}

/// Writes the high word of a register of two.
pub fn set_high(register: &mut u64, value: u32) {
    *register = *register & 0xffff_ffff | u64::from(value) << 32;
}
