//! RAM as bus masters see it.

use crate::device::DeviceCx;
use crate::iommu::MasterAccess;
use crate::ram::NoRam;

/// Beyond this nobody on a bus can form an address: boards keep memory of their own there.
const LIMIT: u64 = 1 << 52;

/// RAM for direct memory access, through the board's IOMMU if there is one and the device has a requester ID. What the board hides from bus
/// masters reads as ones, and takes nothing. An access to what is no RAM, or that the IOMMU refuses, is an error; what of it comes before
/// has been done.
pub struct Dma<'a>(pub(crate) DeviceCx<'a>);

impl Dma<'_> {
    /// The part of a range that is hidden, as offsets in it.
    fn hidden_part(&self, pa: u64, len: usize) -> std::ops::Range<usize> {
        let Some((base, size)) = self.0.hidden else { return 0..0 };
        let (first, end) = (pa.max(base), (pa + len as u64).min(base + size));
        if first < end { (first - pa) as usize..(end - pa) as usize } else { 0..0 }
    }

    fn is_translated(&self) -> bool {
        self.0.iommu.is_some() && self.0.requester.is_some()
    }

    /// Whether all of `len` bytes at `pa` are RAM of one region. Of an address that is translated, only an access will tell.
    pub fn contains(&self, pa: u64, len: u64) -> bool {
        self.is_translated() || pa < LIMIT && self.0.ram.contains(pa, len)
    }

    fn require(&self, pa: u64, len: usize) -> Result<(), NoRam> {
        if pa < LIMIT && self.0.ram.contains(pa, len as u64) { Ok(()) } else { Err(NoRam { pa }) }
    }

    /// Does something with the pieces of a range: where they are, and the offsets in it.
    fn pieces(
        &mut self,
        address: u64,
        len: usize,
        writes: bool,
        mut each: impl FnMut(&mut Self, u64, std::ops::Range<usize>) -> Result<(), NoRam>,
    ) -> Result<(), NoRam> {
        let Some(requester) = self.0.requester.filter(|_| self.is_translated()) else {
            return each(self, address, 0..len);
        };
        let mut done = 0;
        while done < len {
            let pa = address.wrapping_add(done as u64);
            let access = MasterAccess { requester, address: pa, len: (len - done) as u64, writes };
            let piece = self.0.iommu().and_then(|(iommu, mut cx)| iommu.translate(access, &mut cx));
            let (at, n) = piece.ok_or(NoRam { pa })?;
            let end = done + n.clamp(1, access.len) as usize;
            each(self, at, done..end)?;
            done = end;
        }
        Ok(())
    }

    /// Reads bytes.
    pub fn read(&mut self, pa: u64, bytes: &mut [u8]) -> Result<(), NoRam> {
        self.pieces(pa, bytes.len(), false, |dma, pa, part| {
            let bytes = &mut bytes[part];
            dma.require(pa, bytes.len())?;
            dma.0.ram.read(pa, bytes)?;
            let hidden = dma.hidden_part(pa, bytes.len());
            bytes[hidden].fill(0xff);
            Ok(())
        })
    }

    /// Writes bytes. Translated blocks of lines that are hit will die before the next instruction.
    pub fn write(&mut self, pa: u64, bytes: &[u8]) -> Result<(), NoRam> {
        self.pieces(pa, bytes.len(), true, |dma, pa, part| {
            let bytes = &bytes[part];
            dma.require(pa, bytes.len())?;
            let hidden = dma.hidden_part(pa, bytes.len());
            for part in [0..hidden.start, hidden.end..bytes.len()] {
                if !part.is_empty() {
                    dma.0.ram.write(pa + part.start as u64, &bytes[part])?;
                }
            }
            Ok(())
        })
    }

    /// Reads a little-endian number of `size` bytes (1 to 8), zero-extended.
    pub fn load(&mut self, pa: u64, size: u8) -> Result<u64, NoRam> {
        let mut bytes = [0; 8];
        self.read(pa, &mut bytes[..size.min(8).into()])?;
        Ok(u64::from_le_bytes(bytes))
    }

    /// Writes the low `size` bytes (1 to 8) of a number, little-endian.
    pub fn store(&mut self, pa: u64, size: u8, value: u64) -> Result<(), NoRam> {
        self.write(pa, &value.to_le_bytes()[..size.min(8).into()])
    }
}

#[cfg(test)]
mod tests {
    use crate::device::Bench;

    #[test]
    fn what_is_hidden_reads_as_ones_and_takes_nothing() {
        let mut b = Bench { hidden: Some((0x1000, 0x1000)), ..Bench::default() };
        b.ram.add(0, 0x4000).unwrap();
        b.ram.add(1 << 56, 0x1000).unwrap();
        let mut cx = b.cx();
        let mut dma = cx.dma();
        dma.write(0xffe, &[0x11; 0x1004]).unwrap();
        for (at, value) in [(0xffc, 0x1111_0000), (0xffe, 0xffff_1111), (0x1800, 0xffff_ffff), (0x1ffe, 0x1111_ffff)] {
            assert_eq!(dma.load(at, 4), Ok(value), "{at:#x}");
        }
        dma.store(0x1ffc, 8, 0x8877_6655_4433_2211).unwrap();
        assert_eq!(dma.load(0x1ffc, 8), Ok(0x8877_6655_ffff_ffff));
        assert!(dma.load(1 << 56, 1).is_err() && dma.store(0x3ffc, 8, 0).is_err() && !dma.contains(1 << 56, 1));
        assert_eq!((b.ram.load(0x1000, 8), b.ram.load(0x1ff8, 8)), (Ok(0), Ok(0)), "it is as it was");
    }
}
