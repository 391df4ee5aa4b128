//! Ways to reset a PC, and the gate of address line 20: the reset control register at port CF9h ("Intel I/O Controller Hub 9",
//! 316972-004, "RST_CNT - Reset Control Register"; the PIIX3 has it too) and port 92h ("PORT92 - Fast A20 and Init Register").
//!
//! A reset of the machine is a request. INIT, which resets processors alone and keeps RAM, is a line that goes high and low
//! again; the board leads it to the processors.

use emu_core::device::{Access, Device, DeviceCx, Request};
use emu_core::device_state;
use serde::{Deserialize, Serialize};

use super::Ports;

/// Where port 92h is.
pub const PORTS: [Ports; 1] = [Ports { port: 0x92, size: 1, offset: 0 }];
/// Output of [`Port92`]: address line 20 is let through.
pub const A20: u32 = 0;
/// Output of [`Port92`]: INIT.
pub const INIT: u32 = 1;

/// INIT goes high for a moment.
pub fn pulse(cx: &mut DeviceCx, line: u32) {
    cx.line(line, true);
    cx.line(line, false);
}

/// "RST_CNT". Not a device of its own: it lies between the ports of PCI's configuration mechanism.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ResetControl {
    value: u8,
}

impl ResetControl {
    const SYS_RST: u8 = 2;
    const RST_CPU: u8 = 4;
    const FULL_RST: u8 = 8;

    /// The register.
    pub fn read(self) -> u8 {
        self.value
    }

    /// When RST_CPU goes from 0 to 1 the machine is reset (SYS_RST is 1), or line `init` gives INIT.
    pub fn write(&mut self, value: u8, init: u32, cx: &mut DeviceCx) {
        let resets = value & !self.value & Self::RST_CPU != 0;
        self.value = value & (Self::SYS_RST | Self::RST_CPU | Self::FULL_RST);
        if resets && value & Self::SYS_RST != 0 {
            cx.request(Request::Reset);
        } else if resets {
            pulse(cx, init);
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct State {
    value: u8,
    /// The keyboard controller lets address line 20 through.
    keyboard: bool,
    /// The level of output A20.
    line: bool,
}

impl Default for State {
    fn default() -> Self {
        State { value: 0, keyboard: true, line: true }
    }
}

/// Port 92h. Input 0 is the keyboard controller's A20, which is ORed with the port's own; the outputs are [`A20`] and [`INIT`].
/// At power-on address line 20 is let through, by the keyboard controller alone.
#[derive(Default)]
pub struct Port92 {
    state: State,
}

impl Port92 {
    const INIT_NOW: u8 = 1;
    const ALT_A20_GATE: u8 = 2;

    fn update_line(&mut self, cx: &mut DeviceCx) {
        let line = self.state.keyboard || self.state.value & Self::ALT_A20_GATE != 0;
        if line != self.state.line {
            self.state.line = line;
            cx.line(A20, line);
        }
    }
}

impl Device for Port92 {
    fn name(&self) -> &'static str {
        "port92"
    }

    fn read(&mut self, _: Access, _: &mut DeviceCx) -> u64 {
        self.state.value.into()
    }

    fn write(&mut self, _: Access, value: u64, cx: &mut DeviceCx) {
        let value = value as u8;
        let inits = value & !self.state.value & Self::INIT_NOW != 0;
        self.state.value = value & (Self::INIT_NOW | Self::ALT_A20_GATE);
        self.update_line(cx);
        if inits {
            pulse(cx, INIT);
        }
    }

    fn input(&mut self, _: u32, level: bool, cx: &mut DeviceCx) {
        self.state.keyboard = level;
        self.update_line(cx);
    }

    fn reset(&mut self) {
        self.state = State::default();
    }

    device_state!(state);
}

#[cfg(test)]
mod tests {
    use emu_core::device::{Bench, Signal};

    use super::*;

    fn init(line: u32) -> [Signal; 2] {
        [true, false].map(|level| Signal::Line { line, level })
    }

    #[test]
    fn port_cf9() {
        // (writes, whether they reset the machine, whether they give INIT)
        let table: [(&[u8], bool, bool); 5] = [
            (&[2, 6], true, false),
            (&[0, 4], false, true),
            (&[0xe], true, false),
            (&[2, 8], false, false),
            (&[0], false, false),
        ];
        for (writes, resets, inits) in table {
            let (mut b, mut r) = (Bench::default(), ResetControl::default());
            for value in writes {
                r.write(*value, 7, &mut b.cx());
            }
            assert_eq!(b.request.is_some(), resets, "{writes:x?}");
            assert_eq!(b.take_signals(), if inits { init(7).to_vec() } else { vec![] }, "{writes:x?}");
        }
        let (mut b, mut r) = (Bench::default(), ResetControl::default());
        r.write(0xff, 7, &mut b.cx());
        assert_eq!(r.read(), 0xe);
    }

    #[test]
    fn port_92() {
        let (mut b, mut p) = (Bench::default(), Port92::default());
        p.input(0, false, &mut b.cx());
        assert_eq!(b.take_signals(), [Signal::Line { line: A20, level: false }]);
        b.write(&mut p, 0, 1, 0xfe);
        assert_eq!((b.read(&mut p, 0, 1), b.last_level(A20)), (2, Some(true)));
        b.take_signals();
        p.input(0, true, &mut b.cx());
        b.write(&mut p, 0, 1, 0);
        assert_eq!(b.take_signals(), [], "the keyboard controller lets it through");
        p.input(0, false, &mut b.cx());
        assert_eq!(b.take_signals(), [Signal::Line { line: A20, level: false }]);
        b.write(&mut p, 0, 1, 1);
        b.write(&mut p, 0, 1, 1);
        assert_eq!(b.take_signals(), init(INIT), "on a change from 0 to 1");
        let mut q = Port92::default();
        q.restore(&p.save()).unwrap();
        assert_eq!(q.state, p.state);
    }
}
