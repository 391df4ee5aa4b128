//! The mouse behind the controller ("Auxiliary Device", "Mouse").

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};

use super::answer;

/// "Mouse Commands"; three sample rates of 200, 100 and 80 in a row ask for a wheel, and change the device ID.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Mouse {
    pub(super) queue: VecDeque<u8>,
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
    pub(super) fn new() -> Self {
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

    pub(super) fn receive(&mut self, byte: u8) {
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
