//! The interval timer ("82C54 CHMOS Programmable Interval Timer", Intel 231244-006), and the port 61h that sits between its
//! counter 2 and the speaker ("82371FB/82371SB", Intel 290550-002, "NMI Status and Control Register").
//!
//! The counters run at [`HERTZ`], from virtual time without drift: CLK pulse n falls on the first nanosecond at which n
//! whole periods have gone by. Nothing is done per pulse; a counter is brought forward when somebody looks, or when the OUT
//! of counter 0 has to change.
//!
//! A cycle of the ISA bus is longer than CLK's, and an instruction here is shorter: a count that is read right behind its
//! writing is the one that CLK is about to load, as it is on hardware.
//!
//! The gates of counters 0 and 1 are tied high. Not modelled: the sources of NMI behind port 61h, which read as quiet, and
//! the digits above 9 of a BCD count (undefined), which count as what they are worth.

mod counter;

use counter::Counter;
use emu_core::device::{Access, Device, DeviceCx};
use emu_core::device_state;
use emu_core::time::VirtualTime;
use serde::{Deserialize, Serialize};

use super::{Ports, read_bytes, write_bytes};

/// Where the registers are.
pub const PORTS: [Ports; 2] =
    [Ports { port: 0x40, size: 4, offset: 0 }, Ports { port: 0x61, size: 1, offset: PORT_61 }];
/// Frequency of CLK in hertz.
pub const HERTZ: u64 = 1_193_182;

const CONTROL: u64 = 3;
const PORT_61: u64 = 4;

/// CLK pulses between two of counter 1's as a PC programs it, for the refresh toggle.
const REFRESH_PULSES: u64 = 18;

/// Port 61h, "NMI Status and Control Register".
mod port_61 {
    pub const GATE_2: u8 = 1;
    /// What is kept of a write: gate 2, speaker data, and the two NMI disables.
    pub const KEPT: u8 = 0xf;
    pub const REFRESH: u8 = 0x10;
    pub const OUT_2: u8 = 0x20;
}

/// The CLK pulses that have gone by at a time.
fn pulses(now: VirtualTime) -> u64 {
    (u128::from(now) * u128::from(HERTZ) / 1_000_000_000) as u64
}

/// The time at which CLK pulse `n` falls.
fn time_of(n: u64) -> Option<VirtualTime> {
    u64::try_from((u128::from(n) * 1_000_000_000).div_ceil(u128::from(HERTZ))).ok()
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct State {
    counters: [Counter; 3],
    port_61: u8,
    /// The level of the output line.
    line: bool,
}

impl Default for State {
    fn default() -> Self {
        State { counters: [true, true, false].map(Counter::new), port_61: 0, line: false }
    }
}

/// The timer. Output line 0 is OUT of counter 0, the PC's IRQ0.
#[derive(Default)]
pub struct Pit {
    state: State,
}

impl Pit {
    /// A timer at power-on.
    pub fn new() -> Self {
        Self::default()
    }

    fn advance(&mut self, cx: &mut DeviceCx) {
        for c in &mut self.state.counters {
            c.advance(pulses(cx.now));
        }
        self.update_line(cx);
    }

    fn update_line(&mut self, cx: &mut DeviceCx) {
        let out = self.state.counters[0].out;
        if out != self.state.line {
            self.state.line = out;
            cx.line(0, out);
        }
    }

    /// "Control word format".
    fn write_control(&mut self, value: u8) {
        let counter = usize::from(value >> 6);
        if counter == 3 {
            // "Read-back command": the counters in bits 3:1; COUNT and STATUS are latched where their bits are 0.
            for (i, c) in self.state.counters.iter_mut().enumerate() {
                if value & 2 << i == 0 {
                    continue;
                }
                if value & 0x20 == 0 {
                    c.latch_count();
                }
                if value & 0x10 == 0 {
                    c.latch_status();
                }
            }
        } else if value & 0x30 == 0 {
            self.state.counters[counter].latch_count();
        } else {
            self.state.counters[counter].write_control(value);
        }
    }

    fn read_port_61(&self, cx: &DeviceCx) -> u8 {
        let refresh = pulses(cx.now) / REFRESH_PULSES % 2 == 1;
        let mut value = self.state.port_61;
        if refresh {
            value |= port_61::REFRESH;
        }
        if self.state.counters[2].out {
            value |= port_61::OUT_2;
        }
        value
    }
}

impl Device for Pit {
    fn name(&self) -> &'static str {
        "pit"
    }

    fn read(&mut self, access: Access, cx: &mut DeviceCx) -> u64 {
        self.advance(cx);
        read_bytes(access, |at| match at {
            0..CONTROL => self.state.counters[at as usize].read(),
            CONTROL => 0, // "No operation", the bus floats
            PORT_61 => self.read_port_61(cx),
            _ => 0xff,
        })
    }

    fn write(&mut self, access: Access, value: u64, cx: &mut DeviceCx) {
        self.advance(cx);
        write_bytes(access, value, |at, byte| match at {
            0..CONTROL => self.state.counters[at as usize].write(byte),
            CONTROL => self.write_control(byte),
            PORT_61 => {
                self.state.port_61 = byte & port_61::KEPT;
                self.state.counters[2].set_gate(byte & port_61::GATE_2 != 0);
            }
            _ => {}
        });
        self.update_line(cx);
    }

    /// A pulse of OUT that is over before somebody looks is not lost: the levels come one by one.
    fn tick(&mut self, cx: &mut DeviceCx) {
        self.advance(cx);
    }

    fn wakes_at(&self) -> Option<VirtualTime> {
        time_of(self.state.counters[0].changes_at()?)
    }

    fn reset(&mut self) {
        self.state = State::default();
    }

    device_state!(state);
}

#[cfg(test)]
mod tests;
