//! Split virtqueues (Virtio 1.2, "Split Virtqueues").

use serde::{Deserialize, Serialize};

use crate::dma::Dma;
use crate::ram::NoRam;

/// Descriptor flags: the chain goes on in `next`.
const DESC_F_NEXT: u16 = 1;
/// The device writes the buffer.
const DESC_F_WRITE: u16 = 2;
/// The buffer is a table of descriptors.
const DESC_F_INDIRECT: u16 = 4;
/// Available ring flags: the driver wants no interrupts.
const AVAIL_F_NO_INTERRUPT: u64 = 1;
const DESC_SIZE: u64 = 16;
/// The most descriptors in a chain, an indirect table's included.
const MAX_CHAIN: usize = 1024;

/// What a driver did that no device can work with. The device needs a reset then.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Broken {
    /// A ring or a buffer is not in RAM.
    #[error(transparent)]
    NoRam(#[from] NoRam),
    /// More buffers are available than the queue has room for.
    #[error("the available index is ahead by more than the queue's size")]
    AvailableIndex,
    /// A descriptor's number is beyond its table.
    #[error("descriptor {0} does not exist")]
    NoDescriptor(u16),
    /// A chain does not end, or is longer than the queue or 4 GiB.
    #[error("a descriptor chain is too long")]
    ChainLength,
    /// A buffer to be read follows one to be written.
    #[error("a readable buffer follows a writable one")]
    Order,
    /// An indirect table that was not agreed upon, is inside another or has a size that is not whole.
    #[error("a wrong indirect descriptor")]
    Indirect,
    /// A request without the parts that its device type demands.
    #[error("a request is too short")]
    Request,
}

/// A buffer in RAM.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Segment {
    /// Physical address.
    pub address: u64,
    /// Size in bytes.
    pub len: u32,
}

/// Some buffers that are one stretch of bytes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Buffers(Vec<Segment>);

impl Buffers {
    /// Size in bytes.
    pub fn len(&self) -> u64 {
        self.0.iter().map(|s| u64::from(s.len)).sum()
    }

    /// Whether there is no byte.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The pieces of RAM that hold `len` bytes from `at` on.
    fn pieces(&self, at: u64, len: u64) -> impl Iterator<Item = (u64, usize)> + '_ {
        let (end, mut start) = (at + len, 0);
        self.0.iter().filter_map(move |s| {
            let (first, last) = (at.max(start), end.min(start + u64::from(s.len)));
            let piece = (first < last).then(|| (s.address + (first - start), (last - first) as usize));
            start += u64::from(s.len);
            piece
        })
    }

    /// Reads bytes from `at` on; as many as there are. Returns how many.
    pub fn read(&self, ram: &mut Dma, at: u64, bytes: &mut [u8]) -> Result<usize, Broken> {
        let mut done = 0;
        for (pa, n) in self.pieces(at, bytes.len() as u64) {
            ram.read(pa, &mut bytes[done..done + n])?;
            done += n;
        }
        Ok(done)
    }

    /// Reads exactly as many bytes as `N` from `at` on.
    pub fn read_array<const N: usize>(&self, ram: &mut Dma, at: u64) -> Result<[u8; N], Broken> {
        let mut bytes = [0; N];
        if self.read(ram, at, &mut bytes)? == N { Ok(bytes) } else { Err(Broken::Request) }
    }

    /// Writes bytes from `at` on; as many as there is room for. Returns how many.
    pub fn write(&self, ram: &mut Dma, at: u64, bytes: &[u8]) -> Result<usize, Broken> {
        let mut done = 0;
        for (pa, n) in self.pieces(at, bytes.len() as u64) {
            ram.write(pa, &bytes[done..done + n])?;
            done += n;
        }
        Ok(done)
    }
}

/// A request: a descriptor chain, checked and whole within RAM.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chain {
    /// Number of its first descriptor.
    pub head: u16,
    /// What the device reads.
    pub readable: Buffers,
    /// What the device writes.
    pub writable: Buffers,
}

/// A virtqueue. Addresses are physical.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Queue {
    /// The number of descriptors, a power of two.
    pub size: u16,
    /// Whether the driver has set it up.
    pub ready: bool,
    /// Descriptor table.
    pub descriptors: u64,
    /// Available ring.
    pub available: u64,
    /// Used ring.
    pub used: u64,
    /// VIRTIO_F_INDIRECT_DESC has been agreed upon.
    pub indirect: bool,
    /// VIRTIO_F_EVENT_IDX has been agreed upon.
    pub event_idx: bool,
    /// The available index that comes next.
    next_available: u16,
    /// The used index that comes next.
    next_used: u16,
    /// The used index when an interrupt was last considered.
    considered: u16,
}

struct Descriptor {
    segment: Segment,
    flags: u16,
    next: u16,
}

/// Reads descriptor `number` of a table; physical addresses that overflow are not RAM.
fn descriptor(ram: &mut Dma, table: u64, number: u16) -> Result<Descriptor, Broken> {
    let pa = offset(table, DESC_SIZE * u64::from(number))?;
    let (address, rest) = (ram.load(pa, 8)?, ram.load(offset(pa, 8)?, 8)?);
    Ok(Descriptor {
        segment: Segment { address, len: rest as u32 },
        flags: (rest >> 32) as u16,
        next: (rest >> 48) as u16,
    })
}

fn offset(base: u64, by: u64) -> Result<u64, Broken> {
    base.checked_add(by).ok_or(Broken::NoRam(NoRam { pa: base }))
}

impl Queue {
    /// Forgets all that the driver has set up but the features.
    pub fn stop(&mut self) {
        *self = Queue { indirect: self.indirect, event_idx: self.event_idx, ..Queue::default() };
    }

    fn load(&self, ram: &mut Dma, ring: u64, at: u64) -> Result<u16, Broken> {
        Ok(ram.load(offset(ring, at)?, 2)? as u16)
    }

    /// How many chains are available now. The driver cannot add any while the device works, so a device that handles this
    /// many has handled all.
    pub fn available(&self, ram: &mut Dma) -> Result<u16, Broken> {
        if !self.ready {
            return Ok(0);
        }
        let n = self.load(ram, self.available, 2)?.wrapping_sub(self.next_available);
        if n <= self.size { Ok(n) } else { Err(Broken::AvailableIndex) }
    }

    /// Takes the next available chain.
    pub fn pop(&mut self, ram: &mut Dma) -> Result<Option<Chain>, Broken> {
        if self.available(ram)? == 0 {
            return Ok(None);
        }
        let slot = u64::from(self.next_available % self.size);
        let head = self.load(ram, self.available, 4 + 2 * slot)?;
        let chain = self.chain(ram, head)?;
        self.next_available = self.next_available.wrapping_add(1);
        Ok(Some(chain))
    }

    /// Follows a chain: "The Virtqueue Descriptor Table" and "Indirect Descriptors".
    fn chain(&self, ram: &mut Dma, head: u16) -> Result<Chain, Broken> {
        let (mut readable, mut writable) = (Buffers::default(), Buffers::default());
        let (mut table, mut size, mut inside) = (self.descriptors, self.size, false);
        let (mut number, mut seen, mut bytes) = (head, 0, 0u64);
        loop {
            if number >= size {
                return Err(Broken::NoDescriptor(number));
            }
            let Descriptor { segment, flags, next } = descriptor(ram, table, number)?;
            if flags & DESC_F_INDIRECT != 0 {
                let entries = u64::from(segment.len) / DESC_SIZE;
                let whole = u64::from(segment.len) % DESC_SIZE == 0;
                if inside || !self.indirect || !whole || flags & DESC_F_NEXT != 0 || entries > MAX_CHAIN as u64 {
                    return Err(Broken::Indirect);
                }
                (table, size, number, inside) = (segment.address, entries as u16, 0, true);
                seen = 0;
                continue;
            }
            seen += 1;
            bytes += u64::from(segment.len);
            if seen > usize::from(size).min(MAX_CHAIN) || bytes > 1 << 32 {
                return Err(Broken::ChainLength);
            }
            if segment.len != 0 && !ram.contains(segment.address, segment.len.into()) {
                return Err(NoRam { pa: segment.address }.into());
            }
            if flags & DESC_F_WRITE != 0 {
                writable.0.push(segment);
            } else if writable.0.is_empty() {
                readable.0.push(segment);
            } else {
                return Err(Broken::Order);
            }
            if flags & DESC_F_NEXT == 0 {
                return Ok(Chain { head, readable, writable });
            }
            number = next;
        }
    }

    /// Gives a chain back: "The Virtqueue Used Ring". `written` is the count of bytes that the device wrote.
    pub fn push(&mut self, ram: &mut Dma, head: u16, written: u32) -> Result<(), Broken> {
        let slot = u64::from(self.next_used % self.size.max(1));
        ram.store(offset(self.used, 4 + 8 * slot)?, 8, u64::from(written) << 32 | u64::from(head))?;
        self.next_used = self.next_used.wrapping_add(1);
        ram.store(offset(self.used, 2)?, 2, self.next_used.into())?;
        Ok(())
    }

    /// The device has gone through the queue: asks for a notification of the next chain ("Available Buffer Notification
    /// Suppression") and says whether the driver wants an interrupt ("Used Buffer Notification Suppression").
    pub fn finish(&mut self, ram: &mut Dma) -> Result<bool, Broken> {
        if !self.ready {
            return Ok(false);
        }
        let (old, new) = (std::mem::replace(&mut self.considered, self.next_used), self.next_used);
        if self.event_idx {
            let after_ring = 4 + 8 * u64::from(self.size);
            ram.store(offset(self.used, after_ring)?, 2, self.next_available.into())?;
        }
        if old == new {
            return Ok(false);
        }
        if !self.event_idx {
            return Ok(u64::from(self.load(ram, self.available, 0)?) & AVAIL_F_NO_INTERRUPT == 0);
        }
        let used_event = self.load(ram, self.available, 4 + 2 * u64::from(self.size))?;
        Ok(new.wrapping_sub(used_event).wrapping_sub(1) < new.wrapping_sub(old))
    }
}
