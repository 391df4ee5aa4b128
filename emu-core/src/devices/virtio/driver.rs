//! A small driver, for tests of devices.

use super::mmio::VirtioMmio;
use super::{Backend, F_VERSION_1};
use crate::device::Bench;

pub(super) const RAM: u64 = 0x8000_0000;
pub(super) const RAM_SIZE: u64 = 0x10_0000;
/// Each queue has a page for each of its three parts.
const RINGS: u64 = RAM;
/// Buffers are here.
pub(super) const DATA: u64 = RAM + 0x4_0000;

/// A buffer of a chain: address, size, whether the device writes it.
pub(super) type Part = (u64, u32, bool);

pub(super) struct Driver {
    pub device: VirtioMmio,
    pub bench: Bench,
    pub size: u16,
    free: [u16; 2],
    seen_used: [u16; 2],
    ring_index: [u16; 2],
}

impl Driver {
    pub fn new(backend: impl Backend + 'static) -> Self {
        Self::with_features(backend, 0)
    }

    /// Goes through "Device Initialization" with some transport features.
    pub fn with_features(backend: impl Backend + 'static, features: u64) -> Self {
        let mut bench = Bench::default();
        bench.ram.add(RAM, RAM_SIZE).unwrap();
        let mut d = Driver {
            device: VirtioMmio::new(Box::new(backend)),
            bench,
            size: 16,
            free: [0; 2],
            seen_used: [0; 2],
            ring_index: [0; 2],
        };
        d.initialize(features);
        d
    }

    pub fn initialize(&mut self, features: u64) {
        let features = features | F_VERSION_1;
        self.w(0x70, 0);
        self.w(0x70, 3);
        for sel in [0, 1] {
            self.w(0x24, sel);
            self.w(0x20, (features >> (32 * sel)) as u32);
        }
        self.w(0x70, 0xb);
        assert_eq!(self.r(0x70), 0xb, "FEATURES_OK");
        for q in 0..2u32 {
            self.w(0x30, q);
            if self.r(0x34) == 0 {
                continue;
            }
            let at = self.queue(q as usize);
            self.w(0x38, self.size.into());
            for (register, pa) in [(0x80, at), (0x90, at + 0x1000), (0xa0, at + 0x2000)] {
                self.w(register, pa as u32);
                self.w(register + 4, (pa >> 32) as u32);
            }
            self.w(0x44, 1);
        }
        self.w(0x70, 0xf);
        (self.free, self.seen_used, self.ring_index) = ([0; 2], [0; 2], [0; 2]);
    }

    pub fn r(&mut self, at: u64) -> u32 {
        self.bench.read(&mut self.device, at, 4) as u32
    }

    pub fn w(&mut self, at: u64, value: u32) {
        self.bench.write(&mut self.device, at, 4, value.into());
    }

    /// Where the descriptor table of a queue is; the available ring is a page further, the used ring two.
    pub fn queue(&self, q: usize) -> u64 {
        RINGS + 0x3000 * q as u64
    }

    pub fn put(&mut self, pa: u64, bytes: &[u8]) {
        self.bench.ram.write(pa, bytes).unwrap();
    }

    pub fn get<const N: usize>(&self, pa: u64) -> [u8; N] {
        let mut bytes = [0; N];
        self.bench.ram.read(pa, &mut bytes).unwrap();
        bytes
    }

    pub fn descriptor(&mut self, pa: u64, address: u64, len: u32, flags: u16, next: u16) {
        self.bench.ram.store(pa, 8, address).unwrap();
        let rest = u64::from(len) | u64::from(flags) << 32 | u64::from(next) << 48;
        self.bench.ram.store(pa + 8, 8, rest).unwrap();
    }

    /// Puts a chain's number into the available ring.
    pub fn offer(&mut self, q: usize, head: u16) {
        let ring = self.queue(q) + 0x1000;
        let index = self.ring_index[q];
        self.bench.ram.store(ring + 4 + 2 * u64::from(index % self.size), 2, head.into()).unwrap();
        self.ring_index[q] = index.wrapping_add(1);
        self.bench.ram.store(ring + 2, 2, self.ring_index[q].into()).unwrap();
    }

    /// Makes a chain of direct descriptors and offers it.
    pub fn add(&mut self, q: usize, parts: &[Part]) -> u16 {
        let (table, head, size) = (self.queue(q), self.free[q], self.size);
        for (i, (address, len, writable)) in parts.iter().enumerate() {
            let number = (head + i as u16) % size;
            let flags = u16::from(i + 1 < parts.len()) | u16::from(*writable) << 1;
            self.descriptor(table + 16 * u64::from(number), *address, *len, flags, (number + 1) % size);
        }
        self.free[q] = (head + parts.len() as u16) % size;
        self.offer(q, head);
        head
    }

    pub fn notify(&mut self, q: usize) {
        self.w(0x50, q as u32);
    }

    /// The next used chain: number and bytes written.
    pub fn used(&mut self, q: usize) -> Option<(u32, u32)> {
        let ring = self.queue(q) + 0x2000;
        let index = self.bench.ram.load(ring + 2, 2).unwrap() as u16;
        if index == self.seen_used[q] {
            return None;
        }
        let entry = self.bench.ram.load(ring + 4 + 8 * u64::from(self.seen_used[q] % self.size), 8).unwrap();
        self.seen_used[q] = self.seen_used[q].wrapping_add(1);
        Some((entry as u32, (entry >> 32) as u32))
    }

    /// Adds a chain, notifies, and expects it back. Returns the bytes written.
    pub fn request(&mut self, q: usize, parts: &[Part]) -> u32 {
        let head = self.add(q, parts);
        self.notify(q);
        let (id, written) = self.used(q).expect("the request is done");
        assert_eq!(id, head.into());
        written
    }

    /// Whether the device has said that it needs a reset.
    pub fn is_broken(&mut self) -> bool {
        self.r(0x70) & 64 != 0
    }
}
