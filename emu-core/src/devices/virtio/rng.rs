//! Entropy device (Virtio 1.2, "Entropy Device"). Its entropy is a function of the machine's seed: a guest must not see
//! the host's.

use serde::{Deserialize, Serialize};

use super::Backend;
use super::queue::{Broken, Queue};
use crate::device::DeviceCx;
use crate::random::SplitMix64;

/// The most bytes for one buffer; the specification lets a device give fewer than asked for.
const MAX_BYTES: u64 = 4096;

/// xoshiro256++ (Blackman and Vigna), seeded through SplitMix64.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Generator([u64; 4]);

impl Generator {
    fn new(seed: u64) -> Self {
        let mut seeds = SplitMix64(seed);
        Generator(std::array::from_fn(|_| seeds.next()))
    }

    fn next(&mut self) -> u64 {
        let s = &mut self.0;
        let result = s[0].wrapping_add(s[3]).rotate_left(23).wrapping_add(s[0]);
        let t = s[1] << 17;
        s[2] ^= s[0];
        s[3] ^= s[1];
        s[1] ^= s[2];
        s[0] ^= s[3];
        s[2] ^= t;
        s[3] = s[3].rotate_left(45);
        result
    }
}

/// The device.
pub struct Rng {
    generator: Generator,
}

impl Rng {
    /// A source whose bytes follow from `seed`.
    pub fn new(seed: u64) -> Self {
        Rng { generator: Generator::new(seed) }
    }
}

impl Backend for Rng {
    fn name(&self) -> &'static str {
        "virtio-rng"
    }

    fn id(&self) -> u32 {
        4
    }

    fn features(&self) -> u64 {
        0
    }

    fn queues(&self) -> &'static [u16] {
        &[64]
    }

    fn read_config(&self, _: u64, _: &mut [u8]) {}

    fn notify(&mut self, _: usize, queues: &mut [Queue], cx: &mut DeviceCx) -> Result<(), Broken> {
        let q = &mut queues[0];
        for _ in 0..q.available(&mut cx.dma())? {
            let Some(chain) = q.pop(&mut cx.dma())? else { break };
            let n = chain.writable.len().min(MAX_BYTES) as usize;
            let mut bytes: Vec<u8> = Vec::with_capacity(n + 7);
            while bytes.len() < n {
                bytes.extend(self.generator.next().to_le_bytes());
            }
            chain.writable.write(&mut cx.dma(), 0, &bytes[..n])?;
            q.push(&mut cx.dma(), chain.head, n as u32)?;
        }
        Ok(())
    }

    /// A reset does not start the sequence again: a machine that reboots gets other bytes, as on hardware.
    fn reset(&mut self) {}

    crate::device_state!(generator);
}
