//! The keyboard controller ("IBM Personal System/2 Hardware Interface Technical Reference", May 1988, "Keyboard and Auxiliary
//! Device Controller"), with a keyboard ("Keyboards (101- and 102-Key)") and a mouse ("Auxiliary Device", "Mouse") behind it.
//!
//! Nothing takes time: answers are there at once, and the next byte follows when the last was read. Keys come from a port of
//! the door, as bytes of scan code set 2 as a keyboard would send them.
//!
//! Not modelled: movements and buttons of the mouse; scan code sets 1 and 3 (they can be selected, keys come in set 2 all
//! the same); password, multiplexing and diagnostic commands of the controller.

mod keyboard;
mod mouse;

use std::collections::VecDeque;

use emu_core::device::{Access, Device, DeviceCx};
use emu_core::device_state;
use keyboard::{Keyboard, translate};
use mouse::Mouse;
use serde::{Deserialize, Serialize};

use super::reset::pulse;
use super::{Ports, read_bytes, write_bytes};

/// Where the registers are.
pub const PORTS: [Ports; 2] =
    [Ports { port: 0x60, size: 1, offset: DATA }, Ports { port: 0x64, size: 1, offset: COMMAND }];
/// Output: IRQ1, a byte of the keyboard or the controller is there.
pub const IRQ1: u32 = 0;
/// Output: IRQ12, a byte of the mouse is there.
pub const IRQ12: u32 = 1;
/// Output: address line 20 is let through. To input 0 of port 92h.
pub const A20: u32 = 2;
/// Output: INIT.
pub const INIT: u32 = 3;

const DATA: u64 = 0;
const COMMAND: u64 = 1;

/// The most bytes that wait in a device. What comes later is lost, as in a keyboard.
const QUEUE: usize = 64;

/// "Status Register".
mod status {
    pub const OBF: u8 = 1;
    pub const SYS: u8 = 4;
    pub const A2: u8 = 8;
    pub const NOT_INHIBITED: u8 = 0x10;
    pub const AUX: u8 = 0x20;
}

/// "Command Byte".
mod mode {
    pub const INT: u8 = 1;
    pub const AUX_INT: u8 = 2;
    pub const SYS: u8 = 4;
    pub const KBD_OFF: u8 = 0x10;
    pub const AUX_OFF: u8 = 0x20;
    pub const TRANSLATE: u8 = 0x40;
}

/// "Output Port".
mod output {
    pub const NOT_RESET: u8 = 1;
    pub const A20: u8 = 2;
    pub const OBF: u8 = 0x10;
    pub const AUX_OBF: u8 = 0x20;
}

/// Answers of keyboard and mouse.
mod answer {
    pub const ACK: u8 = 0xfa;
    pub const TEST_PASSED: u8 = 0xaa;
    pub const ECHO: u8 = 0xee;
    pub const RESEND: u8 = 0xfe;
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct State {
    /// The controller's RAM; byte 0 is the command byte.
    ram: [u8; 32],
    output: u8,
    /// The byte in the output buffer, and whether it is the mouse's.
    buffer: Option<(u8, bool)>,
    /// What port 60h shows while nothing is there.
    last: u8,
    /// Answers of the controller itself.
    answers: VecDeque<(u8, bool)>,
    /// A command that waits for its argument.
    command: Option<u8>,
    /// The last write was a command.
    a2: bool,
    /// Translation has met the prefix of a break code.
    breaks: bool,
    keyboard: Keyboard,
    mouse: Mouse,
    lines: [bool; 3],
}

impl State {
    fn new() -> Self {
        let mut ram = [0; 32];
        ram[0] = mode::TRANSLATE | mode::AUX_OFF | mode::KBD_OFF;
        State {
            ram,
            output: output::NOT_RESET | output::A20,
            buffer: None,
            last: 0,
            answers: VecDeque::new(),
            command: None,
            a2: false,
            breaks: false,
            keyboard: Keyboard::new(),
            mouse: Mouse::new(),
            lines: [false, false, true],
        }
    }
}

/// The controller. Outputs are [`IRQ1`], [`IRQ12`], [`A20`] (high at power-on) and [`INIT`].
pub struct I8042 {
    /// The door's port that keys come from.
    keys: Option<u32>,
    state: State,
}

impl I8042 {
    /// A controller at power-on. Keys come from this port of the door.
    pub fn new(keys: Option<u32>) -> Self {
        I8042 { keys, state: State::new() }
    }

    fn has(&self, bit: u8) -> bool {
        self.state.ram[0] & bit != 0
    }

    /// The output buffer takes the next byte, if it is empty.
    fn fill(&mut self) {
        while self.state.buffer.is_none() {
            let (kbd_off, aux_off) = (self.has(mode::KBD_OFF), self.has(mode::AUX_OFF));
            let s = &mut self.state;
            if let Some(answer) = s.answers.pop_front() {
                s.buffer = Some(answer);
            } else if !kbd_off && let Some(code) = s.keyboard.queue.pop_front() {
                s.keyboard.last = code;
                self.state.buffer = self.take_code(code).map(|code| (code, false));
            } else if !aux_off && let Some(byte) = s.mouse.queue.pop_front() {
                s.buffer = Some((byte, true));
            } else {
                return;
            }
        }
    }

    /// "Scan code translation": nothing comes of the prefix of a break code, and the code after it has bit 7 set.
    fn take_code(&mut self, code: u8) -> Option<u8> {
        if !self.has(mode::TRANSLATE) {
            return Some(code);
        }
        if code == 0xf0 {
            self.state.breaks = true;
            return None;
        }
        let bit = if std::mem::take(&mut self.state.breaks) { 0x80 } else { 0 };
        Some(translate(code) | bit)
    }

    fn update_lines(&mut self, cx: &mut DeviceCx) {
        self.fill();
        let (kbd, aux) = match self.state.buffer {
            None => (false, false),
            Some((_, aux)) => (!aux && self.has(mode::INT), aux && self.has(mode::AUX_INT)),
        };
        let levels = [kbd, aux, self.state.output & output::A20 != 0];
        for (line, level) in levels.into_iter().enumerate() {
            if level != self.state.lines[line] {
                self.state.lines[line] = level;
                cx.line(line as u32, level);
            }
        }
    }

    fn status(&self) -> u8 {
        let s = &self.state;
        let buffer = match s.buffer {
            None => 0,
            Some((_, false)) => status::OBF,
            Some((_, true)) => status::OBF | status::AUX,
        };
        buffer
            | status::NOT_INHIBITED
            | if self.has(mode::SYS) { status::SYS } else { 0 }
            | if s.a2 { status::A2 } else { 0 }
    }

    /// The line of a byte falls when it is read, so that the next byte is an edge.
    fn read_data(&mut self, cx: &mut DeviceCx) -> u8 {
        if let Some((byte, aux)) = self.state.buffer.take() {
            self.state.last = byte;
            let line = if aux { IRQ12 } else { IRQ1 };
            if std::mem::take(&mut self.state.lines[line as usize]) {
                cx.line(line, false);
            }
        }
        self.state.last
    }

    /// What the controller itself says comes before what the devices have to say, and after what is in the buffer.
    fn say(&mut self, byte: u8, aux: bool) {
        self.state.answers.push_back((byte, aux));
    }

    fn write_output(&mut self, value: u8, cx: &mut DeviceCx) {
        self.state.output = value | output::NOT_RESET;
        if value & output::NOT_RESET == 0 {
            pulse(cx, INIT);
        }
    }

    /// Port 64h, "Controller Commands".
    fn write_command(&mut self, command: u8, cx: &mut DeviceCx) {
        self.state.a2 = true;
        self.state.command = None;
        let mut set = |bit: u8, on: bool| {
            let byte = &mut self.state.ram[0];
            *byte = if on { *byte | bit } else { *byte & !bit };
        };
        match command {
            0x20..=0x3f => self.say(self.state.ram[usize::from(command & 0x1f)], false),
            0x60..=0x7f | 0xd1..=0xd4 => self.state.command = Some(command),
            0xa7 => set(mode::AUX_OFF, true),
            0xa8 => set(mode::AUX_OFF, false),
            0xa9 | 0xab => self.say(0, false), // the clock and data lines are in order
            0xaa => {
                set(mode::SYS, true);
                self.say(0x55, false);
            }
            0xad => set(mode::KBD_OFF, true),
            0xae => set(mode::KBD_OFF, false),
            0xc0 => self.say(0x80, false), // the keyboard is not inhibited
            0xd0 => {
                let buffer = match self.state.buffer {
                    None => 0,
                    Some((_, false)) => output::OBF,
                    Some((_, true)) => output::AUX_OBF,
                };
                self.say(self.state.output & !(output::OBF | output::AUX_OBF) | buffer, false);
            }
            0xdd => self.state.output &= !output::A20,
            0xdf => self.state.output |= output::A20,
            0xe0 => self.say(0, false),
            0xf0..=0xff if command & output::NOT_RESET == 0 => pulse(cx, INIT),
            _ => {}
        }
    }

    /// Port 60h: the argument of a command, or a byte for the keyboard. A byte for a device lets it send again.
    fn write_data(&mut self, value: u8, cx: &mut DeviceCx) {
        self.state.a2 = false;
        match self.state.command.take() {
            Some(command @ 0x60..=0x7f) => self.state.ram[usize::from(command & 0x1f)] = value,
            Some(0xd1) => self.write_output(value, cx),
            Some(0xd2) => self.say(value, false),
            Some(0xd3) => self.say(value, true),
            Some(0xd4) => {
                self.state.ram[0] &= !mode::AUX_OFF;
                self.state.mouse.receive(value);
            }
            _ => {
                self.state.ram[0] &= !mode::KBD_OFF;
                self.state.keyboard.receive(value);
            }
        }
        // A guest that writes and never reads must not make the queues grow.
        self.state.keyboard.queue.truncate(QUEUE);
        self.state.mouse.queue.truncate(QUEUE);
    }
}

impl Device for I8042 {
    fn name(&self) -> &'static str {
        "i8042"
    }

    fn read(&mut self, access: Access, cx: &mut DeviceCx) -> u64 {
        let value = read_bytes(access, |at| match at {
            DATA => self.read_data(cx),
            COMMAND => self.status(),
            _ => 0xff,
        });
        self.update_lines(cx);
        value
    }

    fn write(&mut self, access: Access, value: u64, cx: &mut DeviceCx) {
        write_bytes(access, value, |at, byte| match at {
            DATA => self.write_data(byte, cx),
            COMMAND => self.write_command(byte, cx),
            _ => {}
        });
        self.state.answers.truncate(QUEUE);
        self.update_lines(cx);
    }

    fn tick(&mut self, cx: &mut DeviceCx) {
        let Some(port) = self.keys else { return };
        while self.state.keyboard.scans && self.state.keyboard.queue.len() < QUEUE {
            match cx.door.read(port) {
                Some(code) => self.state.keyboard.queue.push_back(code),
                None => break,
            }
        }
        self.update_lines(cx);
    }

    fn reset(&mut self) {
        self.state = State::new();
    }

    device_state!(state);
}

#[cfg(test)]
mod tests;
