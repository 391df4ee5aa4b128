//! Network device (Virtio 1.2, "Network Device"), with the cable in a network where nobody is: what is sent vanishes and
//! nothing comes.

use super::queue::{Broken, Queue};
use super::{Backend, copy_config};
use crate::device::DeviceCx;

const F_MAC: u64 = 1 << 5;
const F_STATUS: u64 = 1 << 16;
/// `status`: VIRTIO_NET_S_LINK_UP.
const LINK_UP: u16 = 1;
const TRANSMIT: usize = 1;

/// The device.
pub struct Net {
    mac: [u8; 6],
}

impl Net {
    /// A network card with this address.
    pub fn new(mac: [u8; 6]) -> Self {
        Net { mac }
    }
}

impl Backend for Net {
    fn name(&self) -> &'static str {
        "virtio-net"
    }

    fn id(&self) -> u32 {
        1
    }

    fn features(&self) -> u64 {
        F_MAC | F_STATUS
    }

    fn queues(&self) -> &'static [u16] {
        &[256, 256]
    }

    fn read_config(&self, offset: u64, bytes: &mut [u8]) {
        let [a, b, c, d, e, f] = self.mac;
        let [low, high] = LINK_UP.to_le_bytes();
        copy_config(&[a, b, c, d, e, f, low, high], offset, bytes);
    }

    fn notify(&mut self, index: usize, queues: &mut [Queue], cx: &mut DeviceCx) -> Result<(), Broken> {
        if index != TRANSMIT {
            return Ok(());
        }
        let q = &mut queues[TRANSMIT];
        for _ in 0..q.available(&mut cx.dma())? {
            let Some(chain) = q.pop(&mut cx.dma())? else { break };
            q.push(&mut cx.dma(), chain.head, 0)?;
        }
        Ok(())
    }

    fn reset(&mut self) {}

    fn save(&self) -> Vec<u8> {
        Vec::new()
    }

    fn restore(&mut self, bytes: &[u8]) -> Result<(), String> {
        if bytes.is_empty() { Ok(()) } else { Err("the network card has no state".into()) }
    }
}
