//! Ports that tests, firmware and kernels talk to the emulator through: a console of one port, an exit port, POST codes, and
//! the test device of kvm-unit-tests (its `x86` and `lib/x86` folders; QEMU has these as `isa-debugcon`, `isa-debug-exit` and
//! `pc-testdev`).

use emu_core::device::{Access, Device, DeviceCx, Request};
use emu_core::device_state;
use serde::{Deserialize, Serialize};

use super::{Ports, low_bytes, read_bytes, write_bytes};

/// The usual port of [`DebugConsole`].
pub const CONSOLE: u64 = 0xe9;
/// The port that kvm-unit-tests print to.
pub const TEST_CONSOLE: u64 = 0xf1;
/// Where kvm-unit-tests have [`DebugExit`], and how many ports it takes.
pub const TEST_EXIT: Ports = Ports { port: 0xf4, size: 4, offset: 0 };
/// Where [`Post`] is.
pub const POST: Ports = Ports { port: 0x80, size: 1, offset: 0 };

/// A console of one port: what is written leaves through the door, and reading shows that it is there.
pub struct DebugConsole {
    door: u32,
}

impl DebugConsole {
    /// What a read gives.
    pub const HERE: u8 = 0xe9;

    /// A console that writes to this port of the door.
    pub fn new(door: u32) -> Self {
        DebugConsole { door }
    }
}

impl Device for DebugConsole {
    fn name(&self) -> &'static str {
        "debugcon"
    }

    fn read(&mut self, _: Access, _: &mut DeviceCx) -> u64 {
        Self::HERE.into()
    }

    fn write(&mut self, _: Access, value: u64, cx: &mut DeviceCx) {
        cx.door.write(self.door, &[value as u8]);
    }

    fn reset(&mut self) {}

    fn save(&self) -> Vec<u8> {
        Vec::new()
    }

    fn restore(&mut self, bytes: &[u8]) -> Result<(), String> {
        if bytes.is_empty() { Ok(()) } else { Err("a debug console has no state".into()) }
    }
}

/// The exit port: a write of `value` powers off with the code `value << 1 | 1`, in 32 bits.
pub struct DebugExit;

impl Device for DebugExit {
    fn name(&self) -> &'static str {
        "debug-exit"
    }

    fn read(&mut self, _: Access, _: &mut DeviceCx) -> u64 {
        0
    }

    fn write(&mut self, _: Access, value: u64, cx: &mut DeviceCx) {
        cx.request(Request::PowerOff { code: (value as u32) << 1 | 1 });
    }

    fn reset(&mut self) {}

    fn save(&self) -> Vec<u8> {
        Vec::new()
    }

    fn restore(&mut self, bytes: &[u8]) -> Result<(), String> {
        if bytes.is_empty() { Ok(()) } else { Err("an exit port has no state".into()) }
    }
}

/// The diagnostic port: it keeps the last code of the power-on self-test. Kernels write to it to pass time.
#[derive(Default)]
pub struct Post {
    code: u8,
}

impl Post {
    /// The last code.
    pub fn code(&self) -> u8 {
        self.code
    }
}

impl Device for Post {
    fn name(&self) -> &'static str {
        "post"
    }

    fn read(&mut self, _: Access, _: &mut DeviceCx) -> u64 {
        self.code.into()
    }

    fn write(&mut self, _: Access, value: u64, _: &mut DeviceCx) {
        self.code = value as u8;
    }

    fn reset(&mut self) {
        self.code = 0;
    }

    device_state!(code);
}

/// Ports of [`TestDevice`].
pub const TEST_PORTS: [Ports; 4] = [
    Ports { port: 0xe0, size: 4, offset: LATCH },
    Ports { port: 0xe4, size: 4, offset: FLUSH },
    Ports { port: 0xe8, size: 4, offset: BYTES },
    Ports { port: 0x2000, size: LINES, offset: LINE },
];
/// Base of [`TestDevice`]'s memory; it is mapped there from register [`TEST_MEMORY_OFFSET`] on.
pub const TEST_MEMORY: u64 = 0xff00_0000;
/// Size of [`TestDevice`]'s memory in bytes.
pub const TEST_MEMORY_SIZE: u64 = 0x1_0000;
/// Register offset of [`TestDevice`]'s memory.
pub const TEST_MEMORY_OFFSET: u64 = 0x1_0000;

const LATCH: u64 = 0x00;
const FLUSH: u64 = 0x04;
const BYTES: u64 = 0x08;
const LINE: u64 = 0x10;
const LINES: u64 = 24;

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct State {
    latch: u32,
    memory: Vec<u8>,
}

/// The test device. Four ports are one latch of 32 bits, taken whole, in words or in bytes, and four more the same in bytes;
/// a write to a line's port sets output 0 to 23 to whether the value is not zero; and there is memory that is a device's.
/// The ports at which a hypervisor would drop its mapping of a page do nothing here.
pub struct TestDevice {
    state: State,
}

impl Default for TestDevice {
    fn default() -> Self {
        TestDevice { state: State { latch: 0, memory: vec![0; TEST_MEMORY_SIZE as usize] } }
    }
}

impl TestDevice {
    fn memory(&mut self, at: u64) -> Option<&mut u8> {
        self.state.memory.get_mut(usize::try_from(at.checked_sub(TEST_MEMORY_OFFSET)?).ok()?)
    }
}

impl Device for TestDevice {
    fn name(&self) -> &'static str {
        "testdev"
    }

    fn read(&mut self, access: Access, _: &mut DeviceCx) -> u64 {
        read_bytes(access, |at| match at {
            LATCH..FLUSH | BYTES..0xc => (self.state.latch >> (8 * (at % 4))) as u8,
            _ => self.memory(at).map_or(0, |byte| *byte),
        })
    }

    fn write(&mut self, access: Access, value: u64, cx: &mut DeviceCx) {
        if (LINE..LINE + LINES).contains(&access.offset) {
            return cx.line((access.offset - LINE) as u32, value & low_bytes(access.size) != 0);
        }
        write_bytes(access, value, |at, byte| match at {
            LATCH..FLUSH | BYTES..0xc => {
                let shift = 8 * (at % 4);
                self.state.latch = self.state.latch & !(0xff << shift) | u32::from(byte) << shift;
            }
            _ => {
                if let Some(memory) = self.memory(at) {
                    *memory = byte;
                }
            }
        });
    }

    fn reset(&mut self) {
        *self = TestDevice::default();
    }

    device_state!(state);
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use emu_core::device::{Bench, Signal};
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn console_exit_and_post() {
        let (mut b, out) = (Bench::default(), Arc::new(Mutex::new(Vec::new())));
        b.door.connect_output(3, Box::new(out.clone()));
        let mut console = DebugConsole::new(3);
        for c in b"PASS" {
            b.write(&mut console, 0, 1, (*c).into());
        }
        assert_eq!((b.read(&mut console, 0, 1), out.lock().unwrap().as_slice()), (0xe9, &b"PASS"[..]));
        let mut post = Post::default();
        b.write(&mut post, 0, 1, 0x42);
        assert_eq!((b.read(&mut post, 0, 1), post.code()), (0x42, 0x42));
        assert_eq!(b.read(&mut DebugExit, 0, 4), 0);
        b.write(&mut DebugExit, 0, 4, 0x8000_0008);
        assert_eq!(b.request, Some(Request::PowerOff { code: 0x11 }));
        assert!(DebugExit.restore(&[1]).is_err() && console.restore(&[]).is_ok());
    }

    #[test]
    fn the_test_device() {
        let (mut b, mut t) = (Bench::default(), TestDevice::default());
        b.write(&mut t, 0, 4, 0x1234_5678);
        assert_eq!([b.read(&mut t, 0, 4), b.read(&mut t, 2, 2), b.read(&mut t, 9, 1)], [0x1234_5678, 0x1234, 0x56]);
        b.write(&mut t, 1, 1, 0xaa);
        b.write(&mut t, FLUSH, 4, 0xffff_ffff);
        assert_eq!(b.read(&mut t, 0, 4), 0x1234_aa78);
        b.write(&mut t, LINE + 14, 1, 1);
        b.write(&mut t, LINE + 14, 1, 0);
        assert_eq!(b.take_signals(), [true, false].map(|level| Signal::Line { line: 14, level }));
        b.write(&mut t, TEST_MEMORY_OFFSET + 0xfffc, 8, 0x0807_0605_0403_0201);
        assert_eq!(b.read(&mut t, TEST_MEMORY_OFFSET + 0xfffa, 8), 0x0403_0201_0000);
    }

    proptest! {
        #[test]
        fn nothing_panics_and_saved_state_goes_on_alike(
            ops in prop::collection::vec((any::<u64>(), 0u32..64, 1u8..=8, any::<u64>(), any::<bool>()), 1..50)
        ) {
            let (mut bench, mut a) = (Bench::default(), TestDevice::default());
            for (at, shift, size, value, write) in ops {
                let at = at >> shift;
                if write { bench.write(&mut a, at, size, value) } else { bench.read(&mut a, at, size); }
            }
            let mut b = TestDevice::default();
            b.restore(&a.save()).unwrap();
            prop_assert_eq!(a.state, b.state);
        }
    }
}
