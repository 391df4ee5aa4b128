//! Configuration space of a function ("PCI Local Bus Specification", revision 3.0, chapter 6).

use emu_core::bus::Space;
use serde::{Deserialize, Serialize};

/// Size in bytes of the space of a conventional function.
pub const SIZE: usize = 0x100;

/// Registers of the header ("Type 00h Configuration Space Header").
pub mod header {
    /// Command.
    pub const COMMAND: usize = 0x04;
    /// Status.
    pub const STATUS: usize = 0x06;
    /// Revision ID; the class code follows.
    pub const REVISION: usize = 0x08;
    /// Header type; bit 7: there are more functions than 0.
    pub const HEADER_TYPE: usize = 0x0e;
    /// The first of six base address registers.
    pub const BARS: usize = 0x10;
    /// Subsystem vendor ID; the subsystem ID follows.
    pub const SUBSYSTEM: usize = 0x2c;
    /// Capabilities pointer.
    pub const CAPABILITIES: usize = 0x34;
    /// Interrupt line, for software only.
    pub const INTERRUPT_LINE: usize = 0x3c;
    /// Interrupt pin: 1 to 4 are INTA# to INTD#.
    pub const INTERRUPT_PIN: usize = 0x3d;
}

/// "Command Register".
pub mod command {
    /// The function answers at I/O ports.
    pub const IO: u16 = 1;
    /// The function answers at memory addresses.
    pub const MEMORY: u16 = 2;
    /// The function may read and write memory, messages included.
    pub const MASTER: u16 = 4;
    /// INTx# is switched off.
    pub const INTX_DISABLE: u16 = 0x400;
    /// What can be written: these, parity and SERR#.
    pub const WRITABLE: u16 = 0x547;
}

/// "Status Register".
pub mod status {
    /// INTx# would be asserted.
    pub const INTERRUPT: u8 = 8;
    /// There are capabilities.
    pub const CAPABILITIES: u16 = 0x10;
}

/// A base address register. Sizes are in bytes, powers of two.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bar {
    /// I/O ports, at least 4.
    Io(u64),
    /// Memory below 4 GiB, at least 16.
    Memory32(u64),
    /// Memory anywhere, at least 16. Takes the next register too.
    Memory64(u64),
}

/// A stretch of addresses that a function answers for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Window {
    /// Memory or ports.
    pub space: Space,
    /// The first address.
    pub base: u64,
    /// How many bytes.
    pub size: u64,
    /// What the function knows it as: the number of its BAR, or a number of its own from 6 on.
    pub region: u8,
}

/// Bytes, and which of their bits software can change. What a function does beyond that is its own matter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    bytes: Vec<u8>,
    writable: Vec<u8>,
    /// Bits that a written 1 clears.
    clears: Vec<u8>,
    at_reset: Vec<u8>,
    bars: [Option<Bar>; 6],
    /// Where the next capability goes, and the pointer that will lead to it.
    next: (usize, usize),
}

/// What of a [`Config`] changes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConfigState(Vec<u8>);

impl Config {
    /// A header of type 0. `class` is the class code: base class, sub-class, interface.
    pub fn new(vendor: u16, device: u16, class: u32, revision: u8) -> Self {
        let mut c = Config {
            bytes: vec![0; SIZE],
            writable: vec![0; SIZE],
            clears: vec![0; SIZE],
            at_reset: Vec::new(),
            bars: [None; 6],
            next: (0x40, header::CAPABILITIES),
        };
        c.set(0, 2, vendor.into());
        c.set(2, 2, device.into());
        c.set(header::REVISION, 4, class << 8 | u32::from(revision));
        c.allow(header::COMMAND, 2, command::WRITABLE.into());
        c.allow(header::INTERRUPT_LINE, 1, 0xff);
        c.set_clears(header::STATUS + 1, 1, 0xf9); // errors that were seen
        c
    }

    /// The register at `at`, of `size` bytes (1, 2 or 4).
    pub fn get(&self, at: usize, size: usize) -> u32 {
        (0..size).map(|i| u32::from(self.bytes[at + i]) << (8 * i)).sum()
    }

    /// Sets a register, whatever software could change of it.
    pub fn set(&mut self, at: usize, size: usize, value: u32) {
        self.bytes[at..at + size].copy_from_slice(&value.to_le_bytes()[..size]);
    }

    /// Software can change these bits of a register.
    pub fn allow(&mut self, at: usize, size: usize, bits: u32) {
        self.writable[at..at + size].copy_from_slice(&bits.to_le_bytes()[..size]);
    }

    /// Software can clear these bits of a register by writing ones.
    pub fn set_clears(&mut self, at: usize, size: usize, bits: u32) {
        self.clears[at..at + size].copy_from_slice(&bits.to_le_bytes()[..size]);
    }

    /// "Base Addresses": register `n`.
    pub fn add_bar(&mut self, n: usize, bar: Bar) {
        let at = header::BARS + 4 * n;
        let (size, kind, flags) = match bar {
            Bar::Io(size) => (size.max(4), 1, 3),
            Bar::Memory32(size) => (size.max(16), 0, 0xf),
            Bar::Memory64(size) => (size.max(16), 4, 0xf),
        };
        let mask = !(size.next_power_of_two() - 1) & !flags;
        self.set(at, 4, kind);
        self.allow(at, 4, mask as u32);
        if matches!(bar, Bar::Memory64(_)) {
            self.allow(at + 4, 4, (mask >> 32) as u32);
        }
        self.bars[n] = Some(bar);
    }

    /// "Capabilities List": adds one of `size` bytes, ID and pointer included. Returns where it is.
    pub fn add_capability(&mut self, id: u8, size: usize) -> usize {
        let (at, pointer) = self.next;
        self.set(pointer, 1, at as u32);
        self.set(at, 1, id.into());
        let status = self.get(header::STATUS, 2) | u32::from(status::CAPABILITIES);
        self.set(header::STATUS, 2, status);
        self.next = ((at + size).next_multiple_of(4), at + 1);
        at
    }

    /// The header is complete: what it is now it will be after a reset.
    pub fn seal(mut self) -> Self {
        self.at_reset = self.bytes.clone();
        self
    }

    /// Back to what it was when it was sealed.
    pub fn reset(&mut self) {
        self.bytes = self.at_reset.clone();
    }

    /// Whether a bit of [`command`] is set.
    pub fn has(&self, bit: u16) -> bool {
        self.get(header::COMMAND, 2) as u16 & bit != 0
    }

    /// Software reads a byte; beyond the space there are zeroes.
    pub fn read(&self, at: usize) -> u8 {
        self.bytes.get(at).copied().unwrap_or(0)
    }

    /// Software writes a byte.
    pub fn write(&mut self, at: usize, value: u8) {
        if let Some(byte) = self.bytes.get_mut(at) {
            let w = self.writable[at];
            *byte = (*byte & !w | value & w) & !(value & self.clears[at]);
        }
    }

    /// What the base address registers make the function answer for. A base of 0 is none.
    pub fn windows(&self) -> Vec<Window> {
        let bars = self.bars.iter().enumerate();
        let windows = bars.filter_map(|(n, bar)| {
            let at = header::BARS + 4 * n;
            let low = u64::from(self.get(at, 4));
            let (space, base, size, enable) = match (*bar)? {
                Bar::Io(size) => (Space::Port, low & 0xfffc, size, command::IO),
                Bar::Memory32(size) => (Space::Memory, low & !0xf, size, command::MEMORY),
                Bar::Memory64(size) => {
                    (Space::Memory, low & !0xf | u64::from(self.get(at + 4, 4)) << 32, size, command::MEMORY)
                }
            };
            (self.has(enable) && base != 0).then_some(Window { space, base, size, region: n as u8 })
        });
        windows.collect()
    }

    /// What changes of it.
    pub fn state(&self) -> ConfigState {
        ConfigState(self.bytes.clone())
    }

    /// Takes over a state.
    pub fn set_state(&mut self, state: ConfigState) -> Result<(), String> {
        if state.0.len() != self.bytes.len() {
            return Err("a configuration space has another size".into());
        }
        self.bytes = state.0;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write32(c: &mut Config, at: usize, value: u32) {
        for (i, b) in value.to_le_bytes().into_iter().enumerate() {
            c.write(at + i, b);
        }
    }

    #[test]
    fn sizing_and_decoding_base_addresses() {
        let mut c = Config::new(0x1234, 0x5678, 0x01_02_03, 4);
        c.add_bar(0, Bar::Io(0x20));
        c.add_bar(1, Bar::Memory32(0x1000));
        c.add_bar(2, Bar::Memory64(1 << 33));
        let mut c = c.seal();
        assert_eq!((c.get(0, 4), c.get(8, 4)), (0x5678_1234, 0x0102_0304));
        for n in 0..6 {
            write32(&mut c, header::BARS + 4 * n, u32::MAX);
        }
        let sizes = [0, 1, 2, 3, 4].map(|n| c.get(header::BARS + 4 * n, 4));
        assert_eq!(sizes, [0xffff_ffe1, 0xffff_f000, 4, 0xffff_fffe, 0]);
        write32(&mut c, header::BARS, 0xc047);
        write32(&mut c, header::BARS + 4, 0xfebf_1234);
        write32(&mut c, header::BARS + 8, 0);
        write32(&mut c, header::BARS + 12, 0x11);
        assert_eq!(c.windows(), []);
        write32(&mut c, header::COMMAND, 0xffff_ffff);
        assert_eq!(c.get(header::COMMAND, 4), 0x0547);
        let window = |space, base, size, region| Window { space, base, size, region };
        assert_eq!(
            c.windows(),
            [
                window(Space::Port, 0xc040, 0x20, 0),
                window(Space::Memory, 0xfebf_1000, 0x1000, 1),
                window(Space::Memory, 0x10_0000_0000, 1 << 33, 2)
            ]
        );
        c.reset();
        assert_eq!((c.windows(), c.get(header::BARS, 4)), (vec![], 1));
    }

    #[test]
    fn capabilities_are_a_list() {
        let mut c = Config::new(1, 2, 3, 4);
        let at = [c.add_capability(5, 14), c.add_capability(0x11, 12), c.add_capability(9, 20)];
        assert_eq!(at, [0x40, 0x50, 0x5c]);
        assert_eq!([0x34, 0x41, 0x51, 0x5d].map(|i| c.read(i)), [0x40, 0x50, 0x5c, 0]);
        assert_eq!(c.get(header::STATUS, 2), 0x10);
        c.set(header::STATUS, 2, 0xf910);
        c.write(header::STATUS + 1, 0x80);
        assert_eq!((c.get(header::STATUS, 2), c.read(0x1000)), (0x7910, 0));
    }
}
