//! A flash chip, for firmware's variables ("Intel StrataFlash Memory (J3)", 290667, "Command Set"): array and status reads, byte
//! program, block erase. What is written lasts as long as the machine.
//!
//! Programming and erasing take no time. After CLEAR STATUS the ready bit is clear until the next operation, by which OVMF
//! tells flash from RAM and ROM. Not modelled: identifiers and CFI queries (the array is read), buffered programming, locks.

use emu_core::device::{Access, Device, DeviceCx};
use emu_core::device_state;
use serde::{Deserialize, Serialize};

use super::{read_bytes, write_bytes};

/// Size in bytes of an erase block.
pub const BLOCK: usize = 0x1000;

/// "Command Bus Cycles".
mod command {
    pub const PROGRAM: u8 = 0x40;
    pub const PROGRAM_ALTERNATE: u8 = 0x10;
    pub const BLOCK_ERASE: u8 = 0x20;
    pub const CLEAR_STATUS: u8 = 0x50;
    pub const READ_STATUS: u8 = 0x70;
    pub const CONFIRM: u8 = 0xd0;
}

/// "Status Register": ready; and, both of them, a wrong sequence of commands.
mod status {
    pub const READY: u8 = 0x80;
    pub const SEQUENCE_ERROR: u8 = 0x30;
}

/// What the next access is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
enum Mode {
    ReadArray,
    ReadStatus,
    /// The next write is data.
    Program,
    /// The next write confirms.
    Erase,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct State {
    mode: Mode,
    status: u8,
    bytes: Vec<u8>,
}

/// The chip.
pub struct Flash {
    state: State,
}

impl Flash {
    /// A chip with these contents.
    pub fn new(bytes: Vec<u8>) -> Self {
        Flash { state: State { mode: Mode::ReadArray, status: status::READY, bytes } }
    }

    fn command(&mut self, value: u8) {
        let s = &mut self.state;
        s.mode = match value {
            command::PROGRAM | command::PROGRAM_ALTERNATE => Mode::Program,
            command::BLOCK_ERASE => Mode::Erase,
            command::READ_STATUS => Mode::ReadStatus,
            command::CLEAR_STATUS => {
                s.status = 0;
                Mode::ReadArray
            }
            _ => Mode::ReadArray,
        };
    }

    /// Programming makes zeroes of ones, never the other way.
    fn program(&mut self, access: Access, value: u64) {
        write_bytes(access, value, |at, byte| {
            if let Some(place) = self.state.bytes.get_mut(at as usize) {
                *place &= byte;
            }
        });
        self.state.status = status::READY;
    }

    fn erase(&mut self, at: u64, confirmed: bool) {
        self.state.status = status::READY | if confirmed { 0 } else { status::SEQUENCE_ERROR };
        let first = at as usize / BLOCK * BLOCK;
        let end = (first + BLOCK).min(self.state.bytes.len());
        if let Some(block) = self.state.bytes.get_mut(first..end).filter(|_| confirmed) {
            block.fill(0xff);
        }
    }
}

impl Device for Flash {
    fn name(&self) -> &'static str {
        "flash"
    }

    fn read(&mut self, access: Access, _: &mut DeviceCx) -> u64 {
        let s = &self.state;
        match s.mode {
            Mode::ReadArray => read_bytes(access, |at| s.bytes.get(at as usize).copied().unwrap_or(0xff)),
            _ => s.status.into(),
        }
    }

    fn write(&mut self, access: Access, value: u64, _: &mut DeviceCx) {
        match self.state.mode {
            Mode::Program => {
                self.program(access, value);
                self.state.mode = Mode::ReadStatus;
            }
            Mode::Erase => {
                self.erase(access.offset, value as u8 == command::CONFIRM);
                self.state.mode = Mode::ReadStatus;
            }
            _ => self.command(value as u8),
        }
    }

    fn reset(&mut self) {
        (self.state.mode, self.state.status) = (Mode::ReadArray, status::READY);
    }

    device_state!(state);
}

#[cfg(test)]
mod tests {
    use emu_core::device::Bench;
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn program_and_erase() {
        let (mut b, mut f) = (Bench::default(), Flash::new(vec![0x0f; 2 * BLOCK]));
        let steps: [(u64, u64); 4] = [(0, 0x10), (0x1004, 0x3c), (0, 0x20), (8, 0xd0)];
        for (at, value) in &steps[..2] {
            b.write(&mut f, *at, 1, *value);
        }
        assert_eq!(b.read(&mut f, 0, 1), 0x80);
        b.write(&mut f, 0, 1, 0xff);
        assert_eq!(b.read(&mut f, 0x1003, 2), 0x0c0f, "ones were not made of zeroes");
        for (at, value) in &steps[2..] {
            b.write(&mut f, *at, 1, *value);
        }
        b.write(&mut f, 0, 1, 0xff);
        assert_eq!([0, 0xfff, 0x1000].map(|at| b.read(&mut f, at, 1)), [0xff, 0xff, 0x0f]);
        for value in [0x20, 0x00] {
            b.write(&mut f, 0x1000, 1, value);
        }
        assert_eq!(b.read(&mut f, 0, 1), 0xb0, "not confirmed");
        // As OVMF tells flash from RAM and ROM.
        for value in [0xff, 0x50, 0x70] {
            b.write(&mut f, 0, 1, value);
        }
        assert_eq!(b.read(&mut f, 0, 1), 0);
    }

    proptest! {
        #[test]
        fn nothing_panics_and_saved_state_goes_on_alike(
            ops in prop::collection::vec((0u64..0x2010, 1u8..=8, any::<u64>(), any::<bool>()), 1..60)
        ) {
            let (mut bench, mut a) = (Bench::default(), Flash::new(vec![0xff; 2 * BLOCK]));
            for (at, size, value, write) in ops {
                if write { bench.write(&mut a, at, size, value) } else { bench.read(&mut a, at, size); }
            }
            let mut b = Flash::new(Vec::new());
            b.restore(&a.save()).unwrap();
            prop_assert_eq!(a.state, b.state);
        }
    }
}
