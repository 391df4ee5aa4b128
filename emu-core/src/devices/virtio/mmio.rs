//! The MMIO transport, modern interface (Virtio 1.2, "Virtio Over MMIO").

use serde::{Deserialize, Serialize};

use super::queue::{Broken, Queue};
use super::{Backend, F_EVENT_IDX, F_INDIRECT_DESC, F_VERSION_1};
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

/// "Device Status Field": DRIVER_OK.
const DRIVER_OK: u8 = 4;
/// FEATURES_OK.
const FEATURES_OK: u8 = 8;
/// DEVICE_NEEDS_RESET.
const NEEDS_RESET: u8 = 64;

/// `InterruptStatus`: a used buffer notification.
const USED_BUFFER: u32 = 1;
/// A configuration change notification.
const CONFIGURATION: u32 = 2;

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct State {
    status: u8,
    interrupt: u32,
    device_features_sel: u32,
    driver_features_sel: u32,
    driver_features: u64,
    queue_sel: u32,
    queues: Vec<Queue>,
    /// The level of the interrupt line.
    line: bool,
}

/// A virtio device in an MMIO slot. Output line 0 is its interrupt.
pub struct VirtioMmio {
    backend: Box<dyn Backend>,
    state: State,
}

impl VirtioMmio {
    /// A slot with a device in it.
    pub fn new(backend: Box<dyn Backend>) -> Self {
        let mut slot = VirtioMmio { backend, state: State::default() };
        slot.reset();
        slot
    }

    fn offered(&self) -> u64 {
        self.backend.features() | F_INDIRECT_DESC | F_EVENT_IDX | F_VERSION_1
    }

    /// Whether the driver runs the device.
    fn runs(&self) -> bool {
        self.state.status & (DRIVER_OK | FEATURES_OK | NEEDS_RESET) == DRIVER_OK | FEATURES_OK
    }

    /// The queue that `QueueSel` names.
    fn queue(&mut self) -> Option<&mut Queue> {
        self.state.queues.get_mut(self.state.queue_sel as usize)
    }

    /// After the backend has worked: interrupts, or DEVICE_NEEDS_RESET.
    fn finish(&mut self, result: Result<(), Broken>, cx: &mut DeviceCx) {
        let finished = result.and_then(|()| {
            let mut interrupt = false;
            for q in &mut self.state.queues {
                interrupt |= q.finish(&mut cx.dma())?;
            }
            Ok(interrupt)
        });
        match finished {
            Ok(true) => self.state.interrupt |= USED_BUFFER,
            Ok(false) => {}
            Err(_) => {
                self.state.status |= NEEDS_RESET;
                self.state.interrupt |= CONFIGURATION;
            }
        }
    }

    fn update_line(&mut self, cx: &mut DeviceCx) {
        let level = self.state.interrupt != 0;
        if level != self.state.line {
            self.state.line = level;
            cx.line(0, level);
        }
    }

    /// "Device Initialization". Writing 0 resets. FEATURES_OK stays clear if the driver wants what was not offered.
    fn write_status(&mut self, value: u8) {
        if value == 0 {
            let line = self.state.line;
            self.reset();
            self.state.line = line;
            return;
        }
        let mut status = value | self.state.status & NEEDS_RESET;
        let features = self.state.driver_features;
        if features & !self.offered() != 0 || features & F_VERSION_1 == 0 {
            status &= !FEATURES_OK;
        }
        for q in &mut self.state.queues {
            q.indirect = features & F_INDIRECT_DESC != 0;
            q.event_idx = features & F_EVENT_IDX != 0;
        }
        self.state.status = status;
    }

    fn read_register(&mut self, at: u64) -> u32 {
        let s = &self.state;
        match at {
            MAGIC_VALUE => MAGIC,
            VERSION => MODERN,
            DEVICE_ID => self.backend.id(),
            VENDOR_ID => VENDOR,
            DEVICE_FEATURES => half(self.offered(), s.device_features_sel),
            QUEUE_NUM_MAX => self.backend.queues().get(s.queue_sel as usize).copied().unwrap_or(0).into(),
            QUEUE_READY => self.queue().is_some_and(|q| q.ready).into(),
            INTERRUPT_STATUS => s.interrupt,
            STATUS => s.status.into(),
            SHM_LEN_LOW..=SHM_BASE_HIGH => u32::MAX, // no shared memory region
            CONFIG_GENERATION => 0,                  // configurations here do not change
            _ => 0,
        }
    }

    fn write_register(&mut self, at: u64, value: u32, cx: &mut DeviceCx) {
        let max = self.backend.queues().get(self.state.queue_sel as usize).copied().unwrap_or(0);
        let agreed = self.state.status & FEATURES_OK != 0;
        match at {
            DEVICE_FEATURES_SEL => self.state.device_features_sel = value,
            DRIVER_FEATURES_SEL => self.state.driver_features_sel = value,
            DRIVER_FEATURES if !agreed => {
                let f = &mut self.state.driver_features;
                match self.state.driver_features_sel {
                    0 => set_low(f, value),
                    1 => set_high(f, value),
                    _ => {}
                }
            }
            QUEUE_SEL => self.state.queue_sel = value,
            QUEUE_NOTIFY if self.runs() && (value as usize) < self.state.queues.len() => {
                let result = self.backend.notify(value as usize, &mut self.state.queues, cx);
                self.finish(result, cx);
            }
            INTERRUPT_ACK => self.state.interrupt &= !value,
            STATUS => self.write_status(value as u8),
            QUEUE_NUM..=QUEUE_READY | QUEUE_DESC_LOW..=QUEUE_DEVICE_HIGH => {
                if let Some(q) = self.queue() {
                    set_up_queue(q, max, at, value);
                }
            }
            _ => {}
        }
    }
}

fn half(value: u64, sel: u32) -> u32 {
    match sel {
        0 => value as u32,
        1 => (value >> 32) as u32,
        _ => 0,
    }
}

fn set_low(register: &mut u64, value: u32) {
    *register = *register & !0xffff_ffff | u64::from(value);
}

fn set_high(register: &mut u64, value: u32) {
    *register = *register & 0xffff_ffff | u64::from(value) << 32;
}

/// "Virtqueue Configuration". A queue that is ready is left alone until it is made not ready.
fn set_up_queue(q: &mut Queue, max: u16, at: u64, value: u32) {
    if at == QUEUE_READY {
        if value & 1 == 0 {
            q.stop();
        } else {
            q.ready = q.size != 0;
        }
        return;
    }
    if q.ready {
        return;
    }
    match at {
        QUEUE_NUM if value <= max.into() && value.is_power_of_two() => q.size = value as u16,
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
        self.backend.name()
    }

    /// Registers are aligned words; the configuration space takes any size.
    fn read(&mut self, access: Access, _: &mut DeviceCx) -> u64 {
        if access.offset >= CONFIG {
            let mut bytes = [0; 8];
            self.backend.read_config(access.offset - CONFIG, &mut bytes[..usize::from(access.size.min(8))]);
            return u64::from_le_bytes(bytes);
        }
        if access.size == 4 { self.read_register(access.offset).into() } else { 0 }
    }

    fn write(&mut self, access: Access, value: u64, cx: &mut DeviceCx) {
        if access.size == 4 && access.offset < CONFIG {
            self.write_register(access.offset, value as u32, cx);
            self.update_line(cx);
        }
    }

    fn tick(&mut self, cx: &mut DeviceCx) {
        if self.runs() {
            let result = self.backend.tick(&mut self.state.queues, cx);
            self.finish(result, cx);
            self.update_line(cx);
        }
    }

    fn wakes_at(&self) -> Option<VirtualTime> {
        self.backend.wakes_at().filter(|_| self.runs())
    }

    fn reset(&mut self) {
        self.backend.reset();
        self.state = State { queues: vec![Queue::default(); self.backend.queues().len()], ..State::default() };
    }

    fn save(&self) -> Vec<u8> {
        crate::to_bytes(&(&self.state, serde_bytes::ByteBuf::from(self.backend.save())))
    }

    fn restore(&mut self, bytes: &[u8]) -> Result<(), String> {
        let (state, backend): (State, serde_bytes::ByteBuf) = crate::from_bytes(bytes)?;
        if state.queues.len() != self.backend.queues().len() {
            return Err(format!("{} has another number of queues", self.backend.name()));
        }
        self.backend.restore(&backend)?;
        self.state = state;
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
