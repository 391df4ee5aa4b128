//! RAM as bus masters see it.

use crate::ram::{NoRam, Ram};

/// Beyond this nobody on a bus can form an address: boards keep memory of their own there.
const LIMIT: u64 = 1 << 52;

/// RAM for direct memory access. What the board hides from bus masters reads as ones, and takes nothing.
pub struct Dma<'a> {
    ram: &'a mut Ram,
    /// Base and size in bytes.
    hidden: Option<(u64, u64)>,
}

impl<'a> Dma<'a> {
    /// RAM without these bytes: base and size.
    pub fn new(ram: &'a mut Ram, hidden: Option<(u64, u64)>) -> Self {
        Dma { ram, hidden }
    }

    /// The part of a range that is hidden, as offsets in it.
    fn hidden_part(&self, pa: u64, len: usize) -> std::ops::Range<usize> {
        let Some((base, size)) = self.hidden else { return 0..0 };
        let (first, end) = (pa.max(base), (pa + len as u64).min(base + size));
        if first < end { (first - pa) as usize..(end - pa) as usize } else { 0..0 }
    }

    /// Whether all of `len` bytes at `pa` are RAM of one region.
    pub fn contains(&self, pa: u64, len: u64) -> bool {
        pa < LIMIT && self.ram.contains(pa, len)
    }

    fn require(&self, pa: u64, len: usize) -> Result<(), NoRam> {
        if self.contains(pa, len as u64) { Ok(()) } else { Err(NoRam { pa }) }
    }

    /// Reads bytes.
    pub fn read(&self, pa: u64, bytes: &mut [u8]) -> Result<(), NoRam> {
        self.require(pa, bytes.len())?;
        self.ram.read(pa, bytes)?;
        let hidden = self.hidden_part(pa, bytes.len());
        bytes[hidden].fill(0xff);
        Ok(())
    }

    /// Writes bytes. Translated blocks of lines that are hit will die before the next instruction.
    pub fn write(&mut self, pa: u64, bytes: &[u8]) -> Result<(), NoRam> {
        self.require(pa, bytes.len())?;
        let hidden = self.hidden_part(pa, bytes.len());
        for part in [0..hidden.start, hidden.end..bytes.len()] {
            if !part.is_empty() {
                self.ram.write(pa + part.start as u64, &bytes[part])?;
            }
        }
        Ok(())
    }

    /// Reads a little-endian number of `size` bytes (1 to 8), zero-extended.
    pub fn load(&self, pa: u64, size: u8) -> Result<u64, NoRam> {
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
    use super::*;

    #[test]
    fn what_is_hidden_reads_as_ones_and_takes_nothing() {
        let mut ram = Ram::default();
        ram.add(0, 0x4000).unwrap();
        ram.add(1 << 56, 0x1000).unwrap();
        let mut dma = Dma::new(&mut ram, Some((0x1000, 0x1000)));
        dma.write(0xffe, &[0x11; 0x1004]).unwrap();
        for (at, value) in [(0xffc, 0x1111_0000), (0xffe, 0xffff_1111), (0x1800, 0xffff_ffff), (0x1ffe, 0x1111_ffff)] {
            assert_eq!(dma.load(at, 4), Ok(value), "{at:#x}");
        }
        dma.store(0x1ffc, 8, 0x8877_6655_4433_2211).unwrap();
        assert_eq!(dma.load(0x1ffc, 8), Ok(0x8877_6655_ffff_ffff));
        assert!(dma.load(1 << 56, 1).is_err() && dma.store(0x3ffc, 8, 0).is_err() && !dma.contains(1 << 56, 1));
        assert_eq!((ram.load(0x1000, 8), ram.load(0x1ff8, 8)), (Ok(0), Ok(0)), "it is as it was");
    }
}
