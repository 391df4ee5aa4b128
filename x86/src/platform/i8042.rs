//! The keyboard controller ("IBM Personal System/2 Hardware Interface Technical Reference", May 1988, "Keyboard and Auxiliary
//! Device Controller"), with a keyboard ("Keyboards (101- and 102-Key)") and a mouse ("Auxiliary Device", "Mouse") behind it.
//!
//! Nothing takes time: answers are there at once, and the next byte follows when the last was read. Keys come from a port of
//! the door, as bytes of scan code set 2 as a keyboard would send them.
//!
//! Not modelled: movements and buttons of the mouse; scan code sets 1 and 3 (they can be selected, keys come in set 2 all
//! the same); password, multiplexing and diagnostic commands of the controller.

use std::collections::VecDeque;

use emu_core::device::{Access, Device, DeviceCx};
use emu_core::device_state;
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

/// The codes of set 1 for those of set 2, from 0 on ("Keyboard Scan Code Specification", Microsoft, revision 1.3a).
#[rustfmt::skip]
const SET_1: [u8; 0x80] = [
    0xff, 0x43, 0x41, 0x3f, 0x3d, 0x3b, 0x3c, 0x58, 0x64, 0x44, 0x42, 0x40, 0x3e, 0x0f, 0x29, 0x59,
    0x65, 0x38, 0x2a, 0x70, 0x1d, 0x10, 0x02, 0x5a, 0x66, 0x71, 0x2c, 0x1f, 0x1e, 0x11, 0x03, 0x5b,
    0x67, 0x2e, 0x2d, 0x20, 0x12, 0x05, 0x04, 0x5c, 0x68, 0x39, 0x2f, 0x21, 0x14, 0x13, 0x06, 0x5d,
    0x69, 0x31, 0x30, 0x23, 0x22, 0x15, 0x07, 0x5e, 0x6a, 0x72, 0x32, 0x24, 0x16, 0x08, 0x09, 0x5f,
    0x6b, 0x33, 0x25, 0x17, 0x18, 0x0b, 0x0a, 0x60, 0x6c, 0x34, 0x35, 0x26, 0x27, 0x19, 0x0c, 0x61,
    0x6d, 0x73, 0x28, 0x74, 0x1a, 0x0d, 0x62, 0x6e, 0x3a, 0x36, 0x1c, 0x1b, 0x75, 0x2b, 0x63, 0x76,
    0x55, 0x56, 0x77, 0x78, 0x79, 0x7a, 0x0e, 0x7b, 0x7c, 0x4f, 0x7d, 0x4b, 0x47, 0x7e, 0x7f, 0x6f,
    0x52, 0x53, 0x50, 0x4c, 0x4d, 0x48, 0x01, 0x45, 0x57, 0x4e, 0x51, 0x4a, 0x37, 0x49, 0x46, 0x54,
];

/// The code of set 1; there are two beyond the table, and answers stay what they are.
fn translate(code: u8) -> u8 {
    match code {
        0x83 => 0x41,
        0x84 => 0x54,
        code => SET_1.get(usize::from(code)).copied().unwrap_or(code),
    }
}

/// "Keyboard Commands from the System".
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Keyboard {
    queue: VecDeque<u8>,
    /// A command that waits for its argument.
    command: Option<u8>,
    scans: bool,
    leds: u8,
    set: u8,
    typematic: u8,
    last: u8,
}

impl Keyboard {
    fn new() -> Self {
        Keyboard { queue: VecDeque::new(), command: None, scans: true, leds: 0, set: 2, typematic: 0x2b, last: 0 }
    }

    fn answer(&mut self, bytes: &[u8]) {
        self.queue.extend(bytes);
    }

    fn receive(&mut self, byte: u8) {
        match (self.command.take(), byte) {
            (Some(0xed), 0..0xed) => self.leds = byte & 7,
            (Some(0xf0), 0) => return self.answer(&[answer::ACK, self.set]),
            (Some(0xf0), 1..=3) => self.set = byte,
            (Some(0xf3), 0..0xed) => self.typematic = byte & 0x7f,
            (Some(0xfb..=0xfd), 0..0xed) => {} // key types of set 3
            (_, 0xed | 0xf0 | 0xf3 | 0xfb..=0xfd) => self.command = Some(byte),
            (_, 0xee) => return self.answer(&[answer::ECHO]),
            (_, 0xf2) => return self.answer(&[answer::ACK, 0xab, 0x83]),
            (_, 0xf4) => {
                self.queue.clear();
                self.scans = true;
            }
            (_, 0xf5 | 0xf6) => *self = Keyboard { scans: byte == 0xf6, ..Keyboard::new() },
            (_, 0xf7..=0xfa) => {} // key types of set 3
            (_, 0xfe) => return self.answer(&[self.last]),
            (_, 0xff) => {
                *self = Keyboard::new();
                return self.answer(&[answer::ACK, answer::TEST_PASSED]);
            }
            _ => return self.answer(&[answer::RESEND]),
        }
        self.answer(&[answer::ACK]);
    }
}

/// "Mouse Commands"; three sample rates of 200, 100 and 80 in a row ask for a wheel, and change the device ID.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Mouse {
    queue: VecDeque<u8>,
    command: Option<u8>,
    reports: bool,
    wraps: bool,
    remote: bool,
    doubles: bool,
    resolution: u8,
    rate: u8,
    knock: [u8; 2],
    id: u8,
}

impl Mouse {
    fn new() -> Self {
        Mouse {
            queue: VecDeque::new(),
            command: None,
            reports: false,
            wraps: false,
            remote: false,
            doubles: false,
            resolution: 2,
            rate: 100,
            knock: [0; 2],
            id: 0,
        }
    }

    fn answer(&mut self, bytes: &[u8]) {
        self.queue.extend(bytes);
    }

    fn set_rate(&mut self, rate: u8) {
        if (self.knock, rate) == ([200, 100], 80) {
            self.id = 3;
        }
        self.knock = [self.knock[1], rate];
        self.rate = rate;
    }

    fn receive(&mut self, byte: u8) {
        if self.wraps && byte != 0xec && byte != 0xff {
            return self.answer(&[byte]);
        }
        match (self.command.take(), byte) {
            (Some(0xe8), 0..=3) => self.resolution = byte,
            (Some(0xf3), 1..=200) => self.set_rate(byte),
            (_, 0xe6 | 0xe7) => self.doubles = byte == 0xe7,
            (_, 0xe8 | 0xf3) => self.command = Some(byte),
            (_, 0xe9) => {
                let bits = u8::from(self.remote) << 6 | u8::from(self.reports) << 5 | u8::from(self.doubles) << 4;
                return self.answer(&[answer::ACK, bits, self.resolution, self.rate]);
            }
            (_, 0xea | 0xf0) => self.remote = byte == 0xf0,
            (_, 0xeb) => {
                let packet = [answer::ACK, 8, 0, 0, 0]; // nothing has moved
                return self.answer(&packet[..if self.id == 3 { 5 } else { 4 }]);
            }
            (_, 0xec | 0xee) => self.wraps = byte == 0xee,
            (_, 0xf2) => return self.answer(&[answer::ACK, self.id]),
            (_, 0xf4 | 0xf5) => self.reports = byte == 0xf4,
            (_, 0xf6) => *self = Mouse { id: self.id, ..Mouse::new() },
            (_, 0xff) => {
                *self = Mouse::new();
                return self.answer(&[answer::ACK, answer::TEST_PASSED, self.id]);
            }
            _ => return self.answer(&[answer::RESEND]),
        }
        self.answer(&[answer::ACK]);
    }
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
mod tests {
    use emu_core::device::{Bench, Signal};
    use proptest::prelude::*;

    use super::*;

    struct Rig(I8042, Bench);
    impl Rig {
        fn new() -> Self {
            Rig(I8042::new(Some(0)), Bench::default())
        }
        fn command(&mut self, value: u8) {
            self.1.write(&mut self.0, COMMAND, 1, value.into());
        }
        fn data(&mut self, value: u8) {
            self.1.write(&mut self.0, DATA, 1, value.into());
        }
        fn status(&mut self) -> u8 {
            self.1.read(&mut self.0, COMMAND, 1) as u8
        }
        /// All that there is, mouse bytes with bit 8 set.
        fn drain(&mut self) -> Vec<u16> {
            let mut bytes = Vec::new();
            loop {
                let s = self.status();
                if s & status::OBF == 0 {
                    return bytes;
                }
                bytes.push(self.1.read(&mut self.0, DATA, 1) as u16 | u16::from(s & status::AUX) << 3);
            }
        }
        fn keyboard(&mut self, value: u8) -> Vec<u16> {
            self.data(value);
            self.drain()
        }
        fn mouse(&mut self, value: u8) -> Vec<u16> {
            self.command(0xd4);
            self.data(value);
            self.drain()
        }
        fn mode(&mut self, value: u8) {
            self.command(0x60);
            self.data(value);
        }
    }

    /// Writes, and what is to be read after them.
    type Talk = (&'static [u8], &'static [u16]);

    /// The steps of a driver that looks for the controller and its ports.
    #[test]
    fn controller_commands() {
        let mut k = Rig::new();
        let table: &[(u8, &[u8], &[u16])] = &[
            (0xaa, &[], &[0x55]),
            (0x20, &[], &[0x74]),
            (0xab, &[], &[0]),
            (0xa9, &[], &[0]),
            (0xd3, &[0x5a], &[0x15a]),
            (0xd2, &[0xa5], &[0xa5]),
            (0xa8, &[], &[]),
            (0x20, &[], &[0x54]),
            (0xa7, &[], &[]),
            (0x20, &[], &[0x74]),
            (0xae, &[], &[]),
            (0x20, &[], &[0x64]),
            (0x7f, &[0x99], &[]),
            (0x3f, &[], &[0x99]),
            (0xd0, &[], &[3]),
            (0xc0, &[], &[0x80]),
            (0xe0, &[], &[0]),
            (0x01, &[], &[]),
        ];
        for (command, arguments, answer) in table {
            k.command(*command);
            for a in *arguments {
                k.data(*a);
            }
            assert_eq!(k.drain(), *answer, "command {command:#x}");
        }
        assert_eq!(k.status(), status::SYS | status::A2 | status::NOT_INHIBITED);
        k.mode(0);
        assert_eq!(k.status(), status::NOT_INHIBITED);
    }

    #[test]
    fn the_keyboard() {
        let mut k = Rig::new();
        k.mode(0);
        let table: &[Talk] = &[
            (&[0xff], &[0xfa, 0xaa]),
            (&[0xf2], &[0xfa, 0xab, 0x83]),
            (&[0xee], &[0xee]),
            (&[0xed, 7], &[0xfa, 0xfa]),
            (&[0xf3, 0x20], &[0xfa, 0xfa]),
            (&[0xf0, 0], &[0xfa, 0xfa, 2]),
            (&[0xf0, 3, 0xf0, 0], &[0xfa, 0xfa, 0xfa, 0xfa, 3]),
            (&[0xed, 0xf5], &[0xfa, 0xfa]),
            (&[0x33], &[0xfe]),
            (&[0xfe], &[0xfe]),
            (&[0xf4], &[0xfa]),
        ];
        for (writes, answers) in table {
            let got: Vec<u16> = writes.iter().flat_map(|w| k.keyboard(*w)).collect();
            assert_eq!(got, *answers, "{writes:x?}");
        }
        k.mode(mode::TRANSLATE);
        assert_eq!(k.keyboard(0xf2), [0xfa, 0xab, 0x41]);
        assert_eq!(k.0.state.keyboard.leds, 0, "defaults were set after the LEDs");
    }

    #[test]
    fn the_mouse() {
        let mut k = Rig::new();
        let table: &[Talk] = &[
            (&[0xff], &[0x1fa, 0x1aa, 0x100]),
            (&[0xf2], &[0x1fa, 0x100]),
            (&[0xe8, 3, 0xe7, 0xf4], &[0x1fa; 4]),
            (&[0xe9], &[0x1fa, 0x130, 0x103, 0x164]),
            (&[0xeb], &[0x1fa, 0x108, 0x100, 0x100]),
            (&[0xee, 0x12, 0xec], &[0x1fa, 0x112, 0x1fa]),
            (&[0xf3, 200, 0xf3, 100, 0xf3, 80], &[0x1fa; 6]),
            (&[0xf2], &[0x1fa, 0x103]),
            (&[0x11], &[0x1fe]),
            (&[0xf6], &[0x1fa]),
        ];
        for (writes, answers) in table {
            let got: Vec<u16> = writes.iter().flat_map(|w| k.mouse(*w)).collect();
            assert_eq!(got, *answers, "{writes:x?}");
        }
    }

    #[test]
    fn keys_in_both_sets() {
        // A, F7, right Ctrl: pressed and released
        let codes = [0x1c, 0xf0, 0x1c, 0x83, 0xf0, 0x83, 0xe0, 0x14, 0xe0, 0xf0, 0x14];
        for (mode, expected) in [
            (mode::TRANSLATE, vec![0x1e, 0x9e, 0x41, 0xc1, 0xe0, 0x1d, 0xe0, 0x9d]),
            (0, codes.iter().map(|c| u16::from(*c)).collect()),
        ] {
            let mut k = Rig::new();
            k.mode(mode);
            k.1.door.arrive(0, &codes);
            k.0.tick(&mut k.1.cx());
            assert_eq!(k.drain(), expected);
        }
        let mut sorted = SET_1;
        sorted.sort();
        assert!(sorted.windows(2).all(|w| w[0] != w[1]), "no two keys are one");
    }

    #[test]
    fn each_byte_is_an_edge() {
        let mut k = Rig::new();
        k.mode(mode::INT | mode::AUX_INT);
        k.1.take_signals();
        k.data(0xf2);
        k.drain();
        let edge = |line| [true, false].map(|level| Signal::Line { line, level });
        assert_eq!(k.1.take_signals(), [edge(IRQ1), edge(IRQ1), edge(IRQ1)].concat());
        k.mouse(0xf4);
        assert_eq!(k.1.take_signals(), edge(IRQ12));
        k.mode(mode::INT | mode::KBD_OFF);
        k.1.door.arrive(0, b"\x1c");
        k.0.tick(&mut k.1.cx());
        assert_eq!(k.drain(), [], "the keyboard is switched off");
        k.command(0xae);
        assert_eq!(k.1.take_signals(), [Signal::Line { line: IRQ1, level: true }]);
    }

    #[test]
    fn address_line_20_and_reset() {
        let mut k = Rig::new();
        k.0.tick(&mut k.1.cx());
        assert_eq!(k.1.take_signals(), [], "it is high at power-on");
        k.command(0xd1);
        k.data(0x01);
        assert_eq!(k.1.last_level(A20), Some(false));
        k.command(0xdf);
        assert_eq!((k.1.last_level(A20), k.1.last_level(INIT)), (Some(true), None));
        k.command(0xf1);
        assert_eq!(k.1.last_level(INIT), None);
        for command in [0xfe, 0xf0] {
            k.1.take_signals();
            k.command(command);
            assert_eq!(k.1.take_signals(), [true, false].map(|level| Signal::Line { line: INIT, level }));
        }
        k.command(0xd1);
        k.data(0x02);
        assert_eq!(k.1.last_level(INIT), Some(false));
    }

    proptest! {
        #[test]
        fn nothing_panics_and_saved_state_goes_on_alike(
            ops in prop::collection::vec((0u64..3, 1u8..=8, any::<u64>(), 0u8..3), 1..300)
        ) {
            let (mut a, mut b) = (Rig::new(), Rig::new());
            let half = ops.len() / 2;
            for (i, (at, size, value, what)) in ops.into_iter().enumerate() {
                if i == half {
                    b.0.restore(&a.0.save()).unwrap();
                    a.1.take_signals();
                    b.1.take_signals();
                }
                let go = |k: &mut Rig| match what {
                    0 => k.1.read(&mut k.0, at, size),
                    1 => { k.1.write(&mut k.0, at, size, value); 0 }
                    _ => { k.1.door.arrive(0, &value.to_le_bytes()); k.0.tick(&mut k.1.cx()); 0 }
                };
                let result = go(&mut a);
                if i >= half {
                    prop_assert_eq!(result, go(&mut b));
                    prop_assert_eq!(a.1.take_signals(), b.1.take_signals());
                } else if what == 2 {
                    // What waits at the door is machine state too.
                    b.1.door.set_waiting(a.1.door.waiting().to_vec());
                }
                if i + 1 == half {
                    b.1.door.set_waiting(a.1.door.waiting().to_vec());
                }
            }
            prop_assert_eq!(&a.0.state, &b.0.state);
            prop_assert!(a.0.state.keyboard.queue.len() <= QUEUE + 4);
        }
    }
}
