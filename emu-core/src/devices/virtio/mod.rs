//! Virtio devices (OASIS Virtual I/O Device Version 1.2). Requests complete before the notification that announced them
//! returns, so that they take no virtual time.
//!
//! A guest that breaks the rules gets DEVICE_NEEDS_RESET and nothing else: what it wrote is checked before it is used, and
//! the work for one notification is bounded by the size of its queue.

pub mod blk;
mod choice;
pub mod console;
pub mod disk;
pub mod mmio;
pub mod net;
pub mod queue;
pub mod rng;
pub mod transport;

pub use choice::VirtioDevice;

use crate::device::DeviceCx;
use crate::time::VirtualTime;
use queue::{Broken, Queue};

/// "Reserved Feature Bits": VIRTIO_F_INDIRECT_DESC.
pub const F_INDIRECT_DESC: u64 = 1 << 28;
/// VIRTIO_F_EVENT_IDX.
pub const F_EVENT_IDX: u64 = 1 << 29;
/// VIRTIO_F_VERSION_1.
pub const F_VERSION_1: u64 = 1 << 32;
/// VIRTIO_F_ACCESS_PLATFORM.
pub const F_ACCESS_PLATFORM: u64 = 1 << 33;

/// A kind of virtio device, behind a transport.
pub trait Backend: Send {
    /// A short name for traces and errors.
    fn name(&self) -> &'static str;

    /// "Device Types": its number.
    fn id(&self) -> u32;

    /// The feature bits of the device type; the transport adds its own.
    fn features(&self) -> u64;

    /// The largest sizes of its queues.
    fn queues(&self) -> &'static [u16];

    /// Reads the configuration space at `offset`. Bytes beyond its end stay 0.
    fn read_config(&self, offset: u64, bytes: &mut [u8]);

    /// The driver has made buffers of queue `index` available.
    fn notify(&mut self, index: usize, queues: &mut [Queue], cx: &mut DeviceCx) -> Result<(), Broken>;

    /// The time of [`Backend::wakes_at`] has come, or input may have arrived. Called while the driver runs the device.
    fn tick(&mut self, _queues: &mut [Queue], _cx: &mut DeviceCx) -> Result<(), Broken> {
        Ok(())
    }

    /// When the device wants [`Backend::tick`].
    fn wakes_at(&self) -> Option<VirtualTime> {
        None
    }

    /// Device reset by the driver, or power-on. Backing storage stays as it is.
    fn reset(&mut self);

    /// See [`Device::save`](crate::device::Device::save).
    fn save(&self) -> Vec<u8>;

    /// See [`Device::restore`](crate::device::Device::restore).
    fn restore(&mut self, bytes: &[u8]) -> Result<(), String>;
}

/// Copies what `config` has at `offset` to `bytes`.
fn copy_config(config: &[u8], offset: u64, bytes: &mut [u8]) {
    let rest = usize::try_from(offset).ok().and_then(|at| config.get(at..)).unwrap_or(&[]);
    let n = rest.len().min(bytes.len());
    bytes[..n].copy_from_slice(&rest[..n]);
}

#[cfg(test)]
mod driver;
#[cfg(test)]
mod tests;
