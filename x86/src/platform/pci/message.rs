//! Message-signalled interrupts of a function ("PCI Local Bus Specification", revision 3.0, section 6.8): MSI and MSI-X.

use emu_core::device::DeviceCx;
use serde::{Deserialize, Serialize};

use super::config::{Config, command};

const MSI_ID: u8 = 0x05;
const MSIX_ID: u8 = 0x11;

/// "MSI Capability Structure": one message, an address of 64 bits, no masking.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Msi {
    at: usize,
}

impl Msi {
    const ENABLE: u32 = 1;
    const ADDRESS_64: u32 = 0x80;

    /// Adds the capability.
    pub fn new(config: &mut Config) -> Self {
        let at = config.add_capability(MSI_ID, 14);
        config.set(at + 2, 2, Self::ADDRESS_64);
        config.allow(at + 2, 2, Self::ENABLE);
        config.allow(at + 4, 4, !3);
        config.allow(at + 8, 4, u32::MAX);
        config.allow(at + 12, 2, 0xffff);
        Msi { at }
    }

    /// Whether it takes the place of INTx#.
    pub fn is_enabled(self, config: &Config) -> bool {
        config.get(self.at + 2, 2) & Self::ENABLE != 0
    }

    /// Sends the message.
    pub fn send(self, config: &Config, cx: &mut DeviceCx) {
        if self.is_enabled(config) && config.has(command::MASTER) {
            let address = u64::from(config.get(self.at + 8, 4)) << 32 | u64::from(config.get(self.at + 4, 4));
            cx.msi(address, config.get(self.at + 12, 2));
        }
    }
}

/// Table and pending bits of MSI-X.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MsiXState {
    /// Address low, address high, data, vector control.
    table: Vec<[u32; 4]>,
    pending: Vec<bool>,
}

/// "MSI-X Capability and Table Structures".
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MsiX {
    at: usize,
    /// Offset of the pending bits in the BAR; the table is at 0.
    pending_at: u64,
    /// What changes of it, but for the capability.
    pub state: MsiXState,
}

impl MsiX {
    const ENABLE: u32 = 0x8000;
    const FUNCTION_MASK: u32 = 0x4000;
    const MASKED: u32 = 1;

    /// Adds the capability, with so many vectors (1 to 2048). Table and pending bits are in BAR `bar`, which they have for
    /// themselves: the table at 0, the pending bits at half of [`MsiX::size`].
    pub fn new(config: &mut Config, bar: u8, vectors: u16) -> Self {
        let at = config.add_capability(MSIX_ID, 12);
        let vectors = vectors.clamp(1, 2048);
        let pending_at = Self::size(vectors) / 2;
        config.set(at + 2, 2, u32::from(vectors) - 1);
        config.allow(at + 2, 2, Self::ENABLE | Self::FUNCTION_MASK);
        config.set(at + 4, 4, bar.into());
        config.set(at + 8, 4, pending_at as u32 | u32::from(bar));
        MsiX { at, pending_at, state: Self::at_reset(vectors.into()) }
    }

    fn at_reset(vectors: usize) -> MsiXState {
        MsiXState { table: vec![[0, 0, 0, Self::MASKED]; vectors], pending: vec![false; vectors] }
    }

    /// The size in bytes of the BAR for so many vectors.
    pub fn size(vectors: u16) -> u64 {
        (u64::from(vectors) * 16).next_power_of_two().max(0x800) * 2
    }

    /// Back to power-on.
    pub fn reset(&mut self) {
        self.state = Self::at_reset(self.state.table.len());
    }

    /// Takes over a state.
    pub fn set_state(&mut self, state: MsiXState) -> Result<(), String> {
        let n = self.state.table.len();
        if state.table.len() != n || state.pending.len() != n {
            return Err("an MSI-X table has another size".into());
        }
        self.state = state;
        Ok(())
    }

    /// Whether it takes the place of INTx#.
    pub fn is_enabled(&self, config: &Config) -> bool {
        config.get(self.at + 2, 2) & Self::ENABLE != 0
    }

    /// How many vectors there are.
    pub fn vectors(&self) -> usize {
        self.state.table.len()
    }

    fn is_masked(&self, config: &Config, vector: usize) -> bool {
        config.get(self.at + 2, 2) & Self::FUNCTION_MASK != 0 || self.state.table[vector][3] & Self::MASKED != 0
    }

    /// Sends the message of a vector, or keeps it in mind while it is masked. A vector that there is not is no interrupt.
    pub fn send(&mut self, config: &Config, vector: u16, cx: &mut DeviceCx) {
        let vector = usize::from(vector);
        if vector >= self.vectors() || !self.is_enabled(config) {
            return;
        }
        if self.is_masked(config, vector) || !config.has(command::MASTER) {
            self.state.pending[vector] = true;
            return;
        }
        let [low, high, data, _] = self.state.table[vector];
        cx.msi(u64::from(high) << 32 | u64::from(low), data);
    }

    /// After table or capability were written: sends what is no longer masked.
    pub fn update(&mut self, config: &Config, cx: &mut DeviceCx) {
        for vector in 0..self.vectors() {
            if self.state.pending[vector] && self.is_enabled(config) && !self.is_masked(config, vector) {
                self.state.pending[vector] = false;
                self.send(config, vector as u16, cx);
            }
        }
    }

    /// Reads a byte of the BAR.
    pub fn read(&self, at: u64) -> u8 {
        if at < self.pending_at {
            let entry = self.state.table.get((at / 16) as usize);
            return entry.map_or(0, |e| (e[(at / 4 % 4) as usize] >> (8 * (at % 4))) as u8);
        }
        let first = 8 * (at - self.pending_at) as usize;
        (0..8).filter(|i| self.state.pending.get(first + i) == Some(&true)).map(|i| 1u8 << i).sum()
    }

    /// Writes a byte of the BAR. Call [`MsiX::update`] after the last. The pending bits are for reading.
    pub fn write(&mut self, at: u64, value: u8) {
        if at >= self.pending_at {
            return;
        }
        if let Some(entry) = self.state.table.get_mut((at / 16) as usize) {
            let shift = 8 * (at % 4);
            let word = &mut entry[(at / 4 % 4) as usize];
            *word = *word & !(0xff << shift) | u32::from(value) << shift;
        }
    }
}

#[cfg(test)]
mod tests {
    use emu_core::device::{Bench, Signal};

    use super::super::config::header;
    use super::*;

    fn message(address: u64, data: u32) -> Vec<Signal> {
        vec![Signal::Msi { address, data }]
    }

    #[test]
    fn msi() {
        let mut b = Bench::default();
        let mut c = Config::new(1, 2, 3, 4);
        let msi = Msi::new(&mut c);
        for (at, byte) in [(4, 0xff), (5, 0x10), (6, 0xe0), (7, 0xfe), (12, 0x41), (2, 0xff), (0, 0xff)] {
            c.write(0x40 + at, byte);
        }
        assert_eq!((c.get(0x40, 4), c.get(0x44, 4)), (0x0081_0005, 0xfee0_10fc));
        msi.send(&c, &mut b.cx());
        assert_eq!(b.take_signals(), [], "not a bus master");
        c.write(header::COMMAND, 4);
        msi.send(&c, &mut b.cx());
        assert_eq!(b.take_signals(), message(0xfee0_10fc, 0x41));
    }

    #[test]
    fn msix() {
        let mut b = Bench::default();
        let mut c = Config::new(1, 2, 3, 4);
        let mut m = MsiX::new(&mut c, 1, 3);
        assert_eq!((c.get(0x40, 4), c.get(0x44, 4), c.get(0x48, 4)), (0x0002_0011, 1, 0x801));
        c.write(header::COMMAND, 4);
        m.send(&c, 1, &mut b.cx());
        assert_eq!((b.take_signals(), m.read(0x800)), (vec![], 0), "switched off: nothing is pending either");
        c.write(0x43, 0x80);
        for (i, byte) in [4, 0, 0xe0, 0xfe, 0, 0, 0, 0, 0x55].into_iter().enumerate() {
            m.write(16 + i as u64, byte);
        }
        m.send(&c, 1, &mut b.cx());
        m.send(&c, 3, &mut b.cx());
        m.send(&c, 0xffff, &mut b.cx());
        assert_eq!((b.take_signals(), m.read(0x800), m.read(16)), (vec![], 2, 4), "masked");
        m.write(28, 0);
        m.update(&c, &mut b.cx());
        assert_eq!((b.take_signals(), m.read(0x800)), (message(0xfee0_0004, 0x55), 0));
        c.write(0x43, 0xc0);
        m.send(&c, 1, &mut b.cx());
        c.write(0x43, 0x80);
        m.update(&c, &mut b.cx());
        assert_eq!(b.take_signals(), message(0xfee0_0004, 0x55), "the function mask");
    }
}
