//! The coprocessor's errors as a PC has them ("Intel I/O Controller Hub 9", 316972-004, "FERR#/IGNNE# (Coprocessor Error)", "COPROC_ERR -
//! Coprocessor Error Register"): FERR# becomes IRQ13, and a write to port F0h ends that, and asserts IGNNE# until FERR# is over.

use emu_core::device::{Access, Device, DeviceCx};
use emu_core::device_state;
use serde::{Deserialize, Serialize};

use super::Ports;

/// Address in the port space at which a processor tells of FERR#. No instruction reaches it.
pub const FERR: u64 = 0x2_0001;
/// Where the registers are.
pub const PORTS: [Ports; 2] =
    [Ports { port: 0xf0, size: 1, offset: 0 }, Ports { port: FERR, size: 1, offset: FERR_OFFSET }];
/// Output: IRQ13.
pub const IRQ13: u32 = 0;
/// Output: IGNNE#, high where it is asserted.
pub const IGNNE: u32 = 1;

const FERR_OFFSET: u64 = 1;

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct State {
    ferr: bool,
    irq: bool,
    ignne: bool,
}

/// The logic. Outputs are [`IRQ13`] and [`IGNNE`].
#[derive(Default)]
pub struct Coprocessor {
    state: State,
}

impl Device for Coprocessor {
    fn name(&self) -> &'static str {
        "coprocessor"
    }

    fn read(&mut self, _: Access, _: &mut DeviceCx) -> u64 {
        0xff
    }

    fn write(&mut self, access: Access, value: u64, cx: &mut DeviceCx) {
        let s = &mut self.state;
        if access.offset == FERR_OFFSET {
            let rises = value & 1 != 0 && !s.ferr;
            s.ferr = value & 1 != 0;
            s.irq |= rises;
            s.ignne &= s.ferr;
        } else {
            s.irq = false;
            s.ignne = s.ferr;
        }
        cx.line(IRQ13, s.irq);
        cx.line(IGNNE, s.ignne);
    }

    fn reset(&mut self) {
        self.state = State::default();
    }

    device_state!(state);
}

#[cfg(test)]
mod tests {
    use emu_core::device::Bench;

    use super::*;

    #[test]
    fn an_error_and_its_end() {
        let (mut b, mut c) = (Bench::default(), Coprocessor::default());
        // (offset, value, IRQ13, IGNNE#)
        for (offset, value, irq, ignne) in [
            (0, 0, false, false),
            (FERR_OFFSET, 1, true, false),
            (0, 0x55, false, true),
            (FERR_OFFSET, 0, false, false),
            (FERR_OFFSET, 1, true, false),
            (FERR_OFFSET, 0, true, false),
            (0, 0, false, false),
        ] {
            b.write(&mut c, offset, 1, value);
            assert_eq!((b.last_level(IRQ13), b.last_level(IGNNE)), (Some(irq), Some(ignne)), "{offset}");
            b.take_signals();
        }
    }
}
