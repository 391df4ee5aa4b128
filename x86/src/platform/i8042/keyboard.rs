//! The keyboard behind the controller ("Keyboards (101- and 102-Key)"), and the codes of its keys.

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};

use super::answer;

/// The codes of set 1 for those of set 2, from 0 on ("Keyboard Scan Code Specification", Microsoft, revision 1.3a).
#[rustfmt::skip]
pub(super) const SET_1: [u8; 0x80] = [
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
pub(super) fn translate(code: u8) -> u8 {
    match code {
        0x83 => 0x41,
        0x84 => 0x54,
        code => SET_1.get(usize::from(code)).copied().unwrap_or(code),
    }
}

/// "Keyboard Commands from the System".
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Keyboard {
    pub(super) queue: VecDeque<u8>,
    /// A command that waits for its argument.
    command: Option<u8>,
    pub(super) scans: bool,
    pub(super) leds: u8,
    set: u8,
    typematic: u8,
    pub(super) last: u8,
}

impl Keyboard {
    pub(super) fn new() -> Self {
        Keyboard { queue: VecDeque::new(), command: None, scans: true, leds: 0, set: 2, typematic: 0x2b, last: 0 }
    }

    fn answer(&mut self, bytes: &[u8]) {
        self.queue.extend(bytes);
    }

    pub(super) fn receive(&mut self, byte: u8) {
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
