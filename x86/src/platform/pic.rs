//! The two interrupt controllers of a PC ("8259A Programmable Interrupt Controller", Intel 231468-003), as they are wired in
//! the PIIX3 ("82371FB/82371SB", Intel 290550-002, "Interrupt Controller"): the slave's INT at the master's IR2, and the
//! edge/level control registers ELCR1 and ELCR2.
//!
//! **Interrupt acknowledge.** Output line 0 is the master's INT, the processor's INTR. When the processor takes the
//! interrupt it calls for the vector with one read of one byte at [`INTA`], an address of the port space beyond the ports;
//! this is [`Pic::acknowledge`].
//!
//! Where this differs from the data sheet of the 8259A, as the PIIX3 does: LTIM of ICW1 is not heeded (ELCR takes its place)
//! and the cascade is fixed, whatever ICW3 says. The modes of the MCS-80/85 and buffered mode are not there.

use emu_core::device::{Access, Device, DeviceCx};
use emu_core::device_state;
use serde::{Deserialize, Serialize};

use super::{Pins, Ports, read_bytes, write_bytes};

/// Where the registers are.
pub const PORTS: [Ports; 4] = [
    Ports { port: 0x20, size: 2, offset: MASTER },
    Ports { port: 0xa0, size: 2, offset: SLAVE },
    Ports { port: 0x4d0, size: 2, offset: ELCR },
    Ports { port: INTA, size: 1, offset: ACKNOWLEDGE },
];
/// Address in the port space at which the processor reads the vector. No instruction reaches it.
pub const INTA: u64 = 0x2_0000;

const MASTER: u64 = 0;
const SLAVE: u64 = 2;
const ELCR: u64 = 4;
const ACKNOWLEDGE: u64 = 8;

/// The master's input that the slave's INT leads to.
const CASCADE: u8 = 2;

/// Initialization Command Words.
mod icw {
    /// ICW1: there will be an ICW4.
    pub const IC4: u8 = 1;
    /// ICW1: there will be no ICW3.
    pub const SNGL: u8 = 2;
    /// A write at A0 = 0 is ICW1.
    pub const IS_ICW1: u8 = 0x10;
    /// ICW4: automatic end of interrupt.
    pub const AEOI: u8 = 2;
    /// ICW4: special fully nested mode.
    pub const SFNM: u8 = 0x10;
}

/// Operation Command Word 3.
mod ocw3 {
    pub const IS_OCW3: u8 = 8;
    pub const RIS: u8 = 1;
    pub const RR: u8 = 2;
    pub const P: u8 = 4;
    pub const SMM: u8 = 0x20;
    pub const ESMM: u8 = 0x40;
}

/// Which initialization command word comes next.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
enum Expects {
    #[default]
    Ocw1,
    Icw2,
    Icw3,
    Icw4,
}

/// One 8259A.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Chip {
    /// Levels of the inputs.
    inputs: u8,
    /// Inputs that have risen and that were not acknowledged.
    edges: u8,
    /// Inputs that are level triggered.
    elcr: u8,
    imr: u8,
    isr: u8,
    icw1: u8,
    /// The vector of input 0.
    icw2: u8,
    icw4: u8,
    expects: Expects,
    /// The input of lowest priority.
    lowest: u8,
    rotates_on_aeoi: bool,
    special_mask: bool,
    reads_isr: bool,
    /// The next read is a poll.
    polls: bool,
}

impl Chip {
    fn new() -> Self {
        Chip {
            inputs: 0,
            edges: 0,
            elcr: 0,
            imr: 0,
            isr: 0,
            icw1: 0,
            icw2: 0,
            icw4: 0,
            expects: Expects::Ocw1,
            lowest: 7,
            rotates_on_aeoi: false,
            special_mask: false,
            reads_isr: false,
            polls: false,
        }
    }

    /// "Edge and level triggered modes". A request that is taken back before it is acknowledged is gone.
    fn set_input(&mut self, input: u8, level: bool) {
        let bit = 1 << input;
        if !level {
            self.inputs &= !bit;
            self.edges &= !bit;
        } else if self.inputs & bit == 0 {
            self.inputs |= bit;
            self.edges |= bit;
        }
    }

    fn irr(&self) -> u8 {
        self.edges & !self.elcr | self.inputs & self.elcr
    }

    /// The inputs from the highest priority to the lowest.
    fn by_priority(&self) -> impl Iterator<Item = u8> + use<> {
        let lowest = self.lowest;
        (1..=8).map(move |i| (lowest + i) % 8)
    }

    /// "Fully nested mode", "The special fully nest mode", "Special mask mode": the input whose request goes through.
    fn request(&self, cascade: Option<u8>) -> Option<u8> {
        let asks = self.irr() & !self.imr;
        let blocks = if self.special_mask { self.isr & !self.imr } else { self.isr };
        for input in self.by_priority() {
            let bit = 1 << input;
            let nests = self.icw4 & icw::SFNM != 0 && cascade == Some(input);
            let in_service = self.isr & bit != 0;
            if asks & bit != 0 && (!in_service || nests) {
                return Some(input);
            }
            if blocks & bit != 0 {
                return None;
            }
        }
        None
    }

    /// "Interrupt sequence": what INTA does to the input that goes through.
    fn take(&mut self, input: u8) {
        self.edges &= !(1 << input);
        if self.icw4 & icw::AEOI == 0 {
            self.isr |= 1 << input;
        } else if self.rotates_on_aeoi {
            self.lowest = input;
        }
    }

    fn write_icw1(&mut self, value: u8) {
        *self = Chip { inputs: self.inputs, elcr: self.elcr, icw2: self.icw2, ..Chip::new() };
        self.icw1 = value;
        self.expects = Expects::Icw2;
    }

    /// Writes at A0 = 1.
    fn write_data(&mut self, value: u8) {
        let icw4 = if self.icw1 & icw::IC4 != 0 { Expects::Icw4 } else { Expects::Ocw1 };
        self.expects = match self.expects {
            Expects::Ocw1 => {
                self.imr = value;
                Expects::Ocw1
            }
            Expects::Icw2 => {
                self.icw2 = value & 0xf8;
                if self.icw1 & icw::SNGL != 0 { icw4 } else { Expects::Icw3 }
            }
            Expects::Icw3 => icw4,
            Expects::Icw4 => {
                self.icw4 = value;
                Expects::Ocw1
            }
        };
    }

    /// Operation Command Word 2: R, SL, EOI in bits 7:5, a level in 2:0.
    fn write_ocw2(&mut self, value: u8) {
        let level = value & 7;
        match value >> 5 {
            0b001 => drop(self.end_of_interrupt()),
            0b011 => self.isr &= !(1 << level),
            0b101 => {
                if let Some(ended) = self.end_of_interrupt() {
                    self.lowest = ended;
                }
            }
            0b100 => self.rotates_on_aeoi = true,
            0b000 => self.rotates_on_aeoi = false,
            0b111 => {
                self.isr &= !(1 << level);
                self.lowest = level;
            }
            0b110 => self.lowest = level,
            _ => {} // no operation
        }
    }

    /// "End of interrupt", non-specific: the highest level in service. In special mask mode masked ones are passed over.
    fn end_of_interrupt(&mut self) -> Option<u8> {
        let isr = if self.special_mask { self.isr & !self.imr } else { self.isr };
        let ended = self.by_priority().find(|i| isr & 1 << i != 0)?;
        self.isr &= !(1 << ended);
        Some(ended)
    }

    fn write_ocw3(&mut self, value: u8) {
        if value & ocw3::ESMM != 0 {
            self.special_mask = value & ocw3::SMM != 0;
        }
        self.polls = value & ocw3::P != 0;
        if value & (ocw3::P | ocw3::RR) == ocw3::RR {
            self.reads_isr = value & ocw3::RIS != 0;
        }
    }

    fn write(&mut self, a0: u64, value: u8) {
        if a0 != 0 {
            self.write_data(value);
        } else if value & icw::IS_ICW1 != 0 {
            self.write_icw1(value);
        } else if value & ocw3::IS_OCW3 != 0 {
            self.write_ocw3(value);
        } else {
            self.write_ocw2(value);
        }
    }

    fn read(&mut self, a0: u64, cascade: Option<u8>) -> u8 {
        if std::mem::take(&mut self.polls) {
            // "Poll command": the read is an acknowledge.
            return match self.request(cascade) {
                Some(input) => {
                    self.take(input);
                    0x80 | input
                }
                None => 0,
            };
        }
        match (a0, self.reads_isr) {
            (1, _) => self.imr,
            (_, true) => self.isr,
            (_, false) => self.irr(),
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct State {
    pins: Pins,
    master: Chip,
    slave: Chip,
    /// The level of the output line.
    line: bool,
}

/// Both controllers. Inputs 0 to 15 are IRQ0 to IRQ15 (see [`Pins`]; IRQ2 is the slave's), output line 0 is INTR.
pub struct Pic {
    state: State,
}

impl Default for Pic {
    fn default() -> Self {
        Self::new()
    }
}

impl Pic {
    /// Both controllers at power-on.
    pub fn new() -> Self {
        Pic { state: State { pins: Pins::new(16), master: Chip::new(), slave: Chip::new(), line: false } }
    }

    /// Whether INTR is high.
    pub fn is_pending(&self) -> bool {
        self.state.line
    }

    /// "Interrupt sequence": the processor's INTA cycles. Returns the vector. With no request left it is that of input 7,
    /// and nothing is in service for it.
    pub fn acknowledge(&mut self, cx: &mut DeviceCx) -> u8 {
        let State { master, slave, .. } = &mut self.state;
        let input = match master.request(Some(CASCADE)) {
            None => return master.icw2 | 7,
            Some(input) => input,
        };
        master.take(input);
        let vector = if input == CASCADE {
            let input = slave.request(None);
            if let Some(input) = input {
                slave.take(input);
            }
            // The slave's INT falls with INTA, so that its next request is an edge.
            master.set_input(CASCADE, false);
            slave.icw2 | input.unwrap_or(7)
        } else {
            master.icw2 | input
        };
        self.update(cx);
        vector
    }

    /// After anything has changed: the slave's INT, then the master's.
    fn update(&mut self, cx: &mut DeviceCx) {
        let State { master, slave, line, .. } = &mut self.state;
        master.set_input(CASCADE, slave.request(None).is_some());
        let level = master.request(Some(CASCADE)).is_some();
        if level != *line {
            *line = level;
            cx.line(0, level);
        }
    }

    /// "ELCR1/ELCR2": IRQ0, 1, 2, 8 and 13 cannot be level triggered.
    fn write_elcr(&mut self, register: u64, value: u8) {
        if register == 0 {
            self.state.master.elcr = value & 0xf8;
        } else {
            self.state.slave.elcr = value & 0xde;
        }
    }
}

impl Device for Pic {
    fn name(&self) -> &'static str {
        "pic"
    }

    fn read(&mut self, access: Access, cx: &mut DeviceCx) -> u64 {
        if access.offset == ACKNOWLEDGE {
            return self.acknowledge(cx).into();
        }
        let value = read_bytes(access, |at| match at {
            MASTER..SLAVE => self.state.master.read(at, Some(CASCADE)),
            SLAVE..ELCR => {
                let polls = self.state.slave.polls;
                let value = self.state.slave.read(at - SLAVE, None);
                if polls && value & 0x80 != 0 {
                    self.state.master.set_input(CASCADE, false); // INT falls, as with INTA
                }
                value
            }
            ELCR => self.state.master.elcr,
            5 => self.state.slave.elcr,
            _ => 0xff,
        });
        self.update(cx);
        value
    }

    fn write(&mut self, access: Access, value: u64, cx: &mut DeviceCx) {
        write_bytes(access, value, |at, byte| match at {
            MASTER..SLAVE => self.state.master.write(at, byte),
            SLAVE..ELCR => self.state.slave.write(at - SLAVE, byte),
            ELCR..6 => self.write_elcr(at - ELCR, byte),
            _ => {}
        });
        self.update(cx);
    }

    fn input(&mut self, line: u32, level: bool, cx: &mut DeviceCx) {
        let Some((pin, _, level)) = self.state.pins.set(line, level) else { return };
        match pin as u8 {
            CASCADE => return, // not a pin of the package
            pin @ 0..8 => self.state.master.set_input(pin, level),
            pin => self.state.slave.set_input(pin - 8, level),
        }
        self.update(cx);
    }

    fn reset(&mut self) {
        *self = Pic::new();
    }

    device_state!(state);
}

#[cfg(test)]
mod tests;
