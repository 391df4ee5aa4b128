use emu_core::device::{Bench, Signal};
use proptest::prelude::*;

use super::keyboard::SET_1;
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
