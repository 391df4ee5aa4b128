//! The MMIO transport, modern interface (Virtio 1.2, "Virtio Over MMIO").

use super::Backend;
use super::queue::Queue;
use super::transport::{self, Notifications, set_high, set_low};
use crate::device::{Access, Device, DeviceCx};
use crate::time::VirtualTime;

/// Size in bytes of a device's registers.
pub const MMIO_SIZE: u64 = 0x1000;

const MAGIC_VALUE: u64 = 0x000;
const VERSION: u64 = 0x004;
const DEVICE_ID: u64 = 0x008;
const VENDOR_ID: u64 = 0x00c;
const DEVICE_FEATURES: u64 = 0x010;
const DEVICE_FEATURES_SEL: u64 = 0x014;
const DRIVER_FEATURES: u64 = 0x020;
const DRIVER_FEATURES_SEL: u64 = 0x024;
const QUEUE_SEL: u64 = 0x030;
const QUEUE_NUM_MAX: u64 = 0x034;
const QUEUE_NUM: u64 = 0x038;
const QUEUE_READY: u64 = 0x044;
const QUEUE_NOTIFY: u64 = 0x050;
const INTERRUPT_STATUS: u64 = 0x060;
const INTERRUPT_ACK: u64 = 0x064;
const STATUS: u64 = 0x070;
const QUEUE_DESC_LOW: u64 = 0x080;
const QUEUE_DESC_HIGH: u64 = 0x084;
const QUEUE_DRIVER_LOW: u64 = 0x090;
const QUEUE_DRIVER_HIGH: u64 = 0x094;
const QUEUE_DEVICE_LOW: u64 = 0x0a0;
const QUEUE_DEVICE_HIGH: u64 = 0x0a4;
const SHM_LEN_LOW: u64 = 0x0b0;
const SHM_BASE_HIGH: u64 = 0x0bc;
const CONFIG_GENERATION: u64 = 0x0fc;
const CONFIG: u64 = 0x100;

/// "virt".
const MAGIC: u32 = 0x7472_6976;
const MODERN: u32 = 2;
/// "UNDV".
const VENDOR: u32 = 0x5644_4e55;

/// `InterruptStatus`: a used buffer notification.
const USED_BUFFER: u32 = 1;
/// A configuration change notification.
const CONFIGURATION: u32 = 2;

/// A virtio device in an MMIO slot. Output line 0 is its interrupt.
pub struct VirtioMmio {
    device: transport::Device,
    interrupt: u32,
    /// The level of the interrupt line.
    line: bool,
}

impl VirtioMmio {
    /// A slot with a device in it.
    pub fn new(backend: Box<dyn Backend>) -> Self {
        VirtioMmio { device: transport::Device::new(backend), interrupt: 0, line: false }
    }

    fn raise(&mut self, notifications: Notifications, cx: &mut DeviceCx) {
        self.interrupt |= if notifications.queues != 0 { USED_BUFFER } else { 0 };
        self.interrupt |= if notifications.configuration { CONFIGURATION } else { 0 };
        self.update_line(cx);
    }

    fn update_line(&mut self, cx: &mut DeviceCx) {
        let level = self.interrupt != 0;
        if level != self.line {
            self.line = level;
            cx.line(0, level);
        }
    }

    fn read_register(&mut self, at: u64) -> u32 {
        match at {
            MAGIC_VALUE => MAGIC,
            VERSION => MODERN,
            DEVICE_ID => self.device.backend.id(),
            VENDOR_ID => VENDOR,
            DEVICE_FEATURES => self.device.device_features(),
            QUEUE_NUM_MAX => self.device.queue_size_max().into(),
            QUEUE_READY => self.device.queue().is_some_and(|q| q.ready).into(),
            INTERRUPT_STATUS => self.interrupt,
            STATUS => self.device.state.status.into(),
            SHM_LEN_LOW..=SHM_BASE_HIGH => u32::MAX, // no shared memory region
            CONFIG_GENERATION => 0,                  // configurations here do not change
            _ => 0,
        }
    }

    fn write_register(&mut self, at: u64, value: u32, cx: &mut DeviceCx) {
        match at {
            DEVICE_FEATURES_SEL => self.device.state.device_feature_select = value,
            DRIVER_FEATURES_SEL => self.device.state.driver_feature_select = value,
            DRIVER_FEATURES => self.device.set_driver_features(value),
            QUEUE_SEL => self.device.state.queue_select = value,
            QUEUE_NUM => self.device.set_queue_size(value.into()),
            QUEUE_READY => {
                if let Some(q) = self.device.queue() {
                    if value & 1 == 0 {
                        q.stop();
                    } else {
                        q.ready = q.size != 0;
                    }
                }
            }
            QUEUE_NOTIFY => {
                let notifications = self.device.notify(value.into(), cx);
                self.raise(notifications, cx);
            }
            INTERRUPT_ACK => self.interrupt &= !value,
            STATUS => {
                let is_reset = self.device.set_status(value as u8);
                if is_reset {
                    self.interrupt = 0;
                }
            }
            QUEUE_DESC_LOW..=QUEUE_DEVICE_HIGH => {
                // A queue that is ready is left alone until it is made not ready.
                if let Some(q) = self.device.queue().filter(|q| !q.ready) {
                    set_up_queue(q, at, value);
                }
            }
            _ => {}
        }
    }
}

/// "Virtqueue Configuration": where its parts are.
fn set_up_queue(q: &mut Queue, at: u64, value: u32) {
    match at {
        QUEUE_DESC_LOW => set_low(&mut q.descriptors, value),
        QUEUE_DESC_HIGH => set_high(&mut q.descriptors, value),
        QUEUE_DRIVER_LOW => set_low(&mut q.available, value),
        QUEUE_DRIVER_HIGH => set_high(&mut q.available, value),
        QUEUE_DEVICE_LOW => set_low(&mut q.used, value),
        QUEUE_DEVICE_HIGH => set_high(&mut q.used, value),
        _ => {}
    }
}

impl Device for VirtioMmio {
    fn name(&self) -> &'static str {
        self.device.backend.name()
    }

    /// Registers are aligned words; the configuration space takes any size.
    fn read(&mut self, access: Access, _: &mut DeviceCx) -> u64 {
        match access.offset {
            CONFIG.. => self.device.read_config(access.offset - CONFIG, access.size),
            _ if access.size == 4 => self.read_register(access.offset).into(),
            _ => 0,
        }
    }

    fn write(&mut self, access: Access, value: u64, cx: &mut DeviceCx) {
        if access.size == 4 && access.offset < CONFIG {
            self.write_register(access.offset, value as u32, cx);
            self.update_line(cx);
        }
    }

    fn tick(&mut self, cx: &mut DeviceCx) {
        let notifications = self.device.tick(cx);
        self.raise(notifications, cx);
    }

    fn wakes_at(&self) -> Option<VirtualTime> {
        self.device.wakes_at()
    }

    fn reset(&mut self) {
        self.device.reset();
        (self.interrupt, self.line) = (0, false);
    }

    fn save(&self) -> Vec<u8> {
        crate::to_bytes(&(serde_bytes::ByteBuf::from(self.device.save()), self.interrupt, self.line))
    }

    fn restore(&mut self, bytes: &[u8]) -> Result<(), String> {
        let (device, interrupt, line): (serde_bytes::ByteBuf, _, _) = crate::from_bytes(bytes)?;
        self.device.restore(&device)?;
        (self.interrupt, self.line) = (interrupt, line);
        Ok(())
    }
}

/// A slot without a device: device ID 0, which drivers pass over.
pub struct EmptySlot;

impl Device for EmptySlot {
    fn name(&self) -> &'static str {
        "virtio-empty"
    }

    fn read(&mut self, access: Access, _: &mut DeviceCx) -> u64 {
        match (access.offset, access.size) {
            (MAGIC_VALUE, 4) => MAGIC.into(),
            (VERSION, 4) => MODERN.into(),
            (VENDOR_ID, 4) => VENDOR.into(),
            _ => 0,
        }
    }

    fn write(&mut self, _: Access, _: u64, _: &mut DeviceCx) {}

    fn reset(&mut self) {}

    fn save(&self) -> Vec<u8> {
        Vec::new()
    }

    fn restore(&mut self, bytes: &[u8]) -> Result<(), String> {
        if bytes.is_empty() { Ok(()) } else { Err("an empty slot has no state".into()) }
    }
}
