//! Devices common to all machines.

pub mod goldfish_rtc;
pub mod syscon;
pub mod uart16550;
pub mod virtio;
