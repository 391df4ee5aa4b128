//! "Queued Invalidation Interface": descriptors of 16 bytes in a ring in memory. A descriptor is done when the next one is looked at.

use emu_core::device::DeviceCx;

use super::Vtd;
use super::caching::Pages;
use super::dma_remapping::read_entry;
use super::register::*;

const DESCRIPTOR: u64 = 16;

/// "Invalidation Queue Error Information" of IQERCD_REG.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Error {
    /// The tail is beyond the queue.
    Tail = 1,
    /// A descriptor cannot be read.
    Fetch = 2,
    /// There is no such type.
    Type = 3,
    /// Reserved bits are set.
    Reserved = 4,
}

/// "Invalidation Descriptors": their types.
mod kind {
    pub const CONTEXT: u64 = 1;
    pub const IOTLB: u64 = 2;
    pub const INTERRUPT_ENTRY: u64 = 4;
    pub const WAIT: u64 = 5;
}

/// "Invalidation Wait Descriptor", bits 63:0.
mod wait {
    /// An event when it is done.
    pub const IF: u64 = 1 << 4;
    /// Status data is written when it is done.
    pub const SW: u64 = 1 << 5;
    /// What follows waits for it, as everything does here.
    pub const FN: u64 = 1 << 6;
}

/// `Err` if a descriptor has bits beyond those that it may have.
fn require_only(descriptor: [u64; 2], allowed: [u64; 2]) -> Result<(), Error> {
    let is_fine = descriptor[0] & !allowed[0] == 0 && descriptor[1] & !allowed[1] == 0;
    if is_fine { Ok(()) } else { Err(Error::Reserved) }
}

impl Vtd {
    /// Goes through the queue to its tail, or to an error, behind which software has to clear FSTS_REG.IQE.
    pub(super) fn run_queue(&mut self, cx: &mut DeviceCx) {
        let end = 0x1000 << (self.get(IQA_REG) & 7);
        while self.has(GSTS_REG, gcmd::QIE) && !self.has(FSTS_REG, fsts::IQE) {
            let (head, tail) = (self.get(IQH_REG), self.get(IQT_REG));
            if head == tail {
                break;
            }
            match self.run_descriptor(head, tail, end, cx) {
                Ok(()) => self.set(IQH_REG, (head + DESCRIPTOR) % end),
                Err(error) => {
                    self.set(IQERCD_REG, error as u64);
                    self.raise_fault(fsts::IQE, cx);
                }
            }
        }
    }

    fn run_descriptor(&mut self, head: u64, tail: u64, end: u64, cx: &mut DeviceCx) -> Result<(), Error> {
        if tail >= end || head >= end {
            return Err(Error::Tail);
        }
        let d = read_entry((self.get(IQA_REG) & !0xfff) + head, cx).ok_or(Error::Fetch)?;
        match d[0] & 0xf | d[0] >> 5 & 0x70 {
            kind::CONTEXT => self.context_descriptor(d),
            kind::IOTLB => self.iotlb_descriptor(d),
            kind::INTERRUPT_ENTRY => self.interrupt_entry_descriptor(d),
            kind::WAIT => self.wait_descriptor(d, cx),
            _ => Err(Error::Type),
        }
    }

    /// "Context-cache Invalidate Descriptor".
    fn context_descriptor(&mut self, d: [u64; 2]) -> Result<(), Error> {
        require_only(d, [0x0003_ffff_ffff_003f, 0])?;
        let (domain, source) = ((d[0] >> 16) as u16, (d[0] >> 32) as u16);
        let done = self.state.caches.invalidate_contexts(d[0] >> 4 & 3, domain, source, d[0] >> 48 & 3);
        if done { Ok(()) } else { Err(Error::Reserved) }
    }

    /// "IOTLB Invalidate Descriptor". Reads and writes are drained always, and hints about paging structures have no meaning here.
    fn iotlb_descriptor(&mut self, d: [u64; 2]) -> Result<(), Error> {
        require_only(d, [0xffff_00ff, !0xf80])?;
        let pages = Pages { address: d[1] & !0xfff, mask: d[1] & 0x3f };
        let done = self.state.caches.invalidate_iotlb(d[0] >> 4 & 3, (d[0] >> 16) as u16, pages);
        if done { Ok(()) } else { Err(Error::Reserved) }
    }

    /// "Interrupt Entry Cache Invalidate Descriptor".
    fn interrupt_entry_descriptor(&mut self, d: [u64; 2]) -> Result<(), Error> {
        const INDEX_SELECTIVE: u64 = 1 << 4;
        require_only(d, [0xffff_f800_001f, 0])?;
        if d[0] & INDEX_SELECTIVE == 0 {
            self.state.caches.interrupts.clear();
        } else {
            self.state.caches.invalidate_interrupts((d[0] >> 32) as u16, (d[0] >> 27) as u32 & 0x1f);
        }
        Ok(())
    }

    /// "Invalidation Wait Descriptor". All before it is done. A status that cannot be written is lost.
    fn wait_descriptor(&mut self, d: [u64; 2], cx: &mut DeviceCx) -> Result<(), Error> {
        require_only(d, [0xffff_ffff_0000_000f | wait::IF | wait::SW | wait::FN, !3])?;
        if d[0] & wait::SW != 0 {
            let _ = cx.dma().store(d[1], 4, d[0] >> 32);
        }
        if d[0] & wait::IF != 0 && !self.has(ICS_REG, ics::IWC) {
            self.put(ICS_REG, ics::IWC, true);
            self.raise_event(COMPLETION_EVENT, cx);
        }
        Ok(())
    }
}
