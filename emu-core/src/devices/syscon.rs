//! The test finisher of SiFive's boards (`sifive,test0`), through which a guest powers the machine off or resets it.
//!
//! One register of 32 bits at offset 0. Bits 15:0 are the command, bits 31:16 the code of a failure.

use crate::device::{Access, Device, DeviceCx, Request};

/// Command: the guest has succeeded, power off.
pub const PASS: u16 = 0x5555;
/// Command: the guest has failed with the code in bits 31:16, power off.
pub const FAIL: u16 = 0x3333;
/// Command: reset the machine.
pub const RESET: u16 = 0x7777;

/// The finisher. It has no state.
#[derive(Default)]
pub struct TestFinisher;

impl Device for TestFinisher {
    fn name(&self) -> &'static str {
        "test"
    }

    fn read(&mut self, _: Access, _: &mut DeviceCx) -> u64 {
        0
    }

    /// A failure without a code has code 1, so that it is not taken for success. Other commands are ignored.
    fn write(&mut self, access: Access, value: u64, cx: &mut DeviceCx) {
        if access.offset != 0 || access.size < 2 {
            return;
        }
        let code = (value >> 16) as u32 & 0xffff;
        match value as u16 {
            PASS => cx.request(Request::PowerOff { code: 0 }),
            FAIL => cx.request(Request::PowerOff { code: code.max(1) }),
            RESET => cx.request(Request::Reset),
            _ => {}
        }
    }

    fn reset(&mut self) {}

    fn save(&self) -> Vec<u8> {
        Vec::new()
    }

    fn restore(&mut self, bytes: &[u8]) -> Result<(), String> {
        if bytes.is_empty() { Ok(()) } else { Err("the test finisher has no state".into()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device::Bench;

    #[test]
    fn commands() {
        for (value, want) in [
            (0x5555, Some(Request::PowerOff { code: 0 })),
            (0x2a_3333, Some(Request::PowerOff { code: 42 })),
            (0x3333, Some(Request::PowerOff { code: 1 })),
            (0x7777, Some(Request::Reset)),
            (0x1234, None),
        ] {
            let mut b = Bench::default();
            b.write(&mut TestFinisher, 4, 4, value);
            assert_eq!(b.request, None);
            b.write(&mut TestFinisher, 0, 4, value);
            assert_eq!((b.request, b.read(&mut TestFinisher, 0, 4)), (want, 0));
        }
    }
}
