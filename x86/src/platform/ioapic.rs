//! The I/O APIC ("82093AA I/O Advanced Programmable Interrupt Controller", Intel 290566-001), in the version 20h of later
//! chipsets ("Intel I/O Controller Hub 9", 316972-004, "APIC Direct Registers"), which has an EOI register.
//!
//! An interrupt leaves as an [`InterruptMessage`]. **End of interrupt:** when a local APIC ends a level-triggered interrupt it
//! broadcasts the vector; the board writes it to the EOI register (offset [`EOI`]) of every I/O APIC, or calls
//! [`IoApic::end_of_interrupt`].
//!
//! Where the data sheet is silent: an entry that becomes edge triggered loses its remote IRR. Messages are accepted at once, so
//! the delivery status reads as idle.

use emu_core::device::{Access, Device, DeviceCx};
use emu_core::device_state;
use serde::{Deserialize, Serialize};

use super::Pins;
use super::msi::{InterruptMessage, delivery};

/// Base of a PC's first I/O APIC.
pub const BASE: u64 = 0xfec0_0000;
/// Size in bytes.
pub const SIZE: u64 = 0x1000;
/// The number of pins.
pub const PINS: usize = 24;

/// I/O Register Select.
pub const IOREGSEL: u64 = 0x00;
/// I/O Window.
pub const IOWIN: u64 = 0x10;
/// EOI: a write of a vector ends the interrupts of all entries with it.
pub const EOI: u64 = 0x40;

/// Registers behind the window.
mod register {
    pub const ID: u8 = 0x00;
    pub const VERSION: u8 = 0x01;
    pub const ARBITRATION: u8 = 0x02;
    pub const REDIRECTION: u8 = 0x10;
}
/// "IOAPICVER": version 20h, the highest entry in 23:16.
const VERSION: u32 = 0x20 | (PINS as u32 - 1) << 16;
const ID_BITS: u32 = 0x0f00_0000;

/// "IOREDTBL".
mod entry {
    pub const LOGICAL: u64 = 1 << 11;
    pub const POLARITY_LOW: u64 = 1 << 13;
    pub const REMOTE_IRR: u64 = 1 << 14;
    pub const LEVEL: u64 = 1 << 15;
    pub const MASKED: u64 = 1 << 16;
    pub const WRITABLE: u64 = 0xffff_0000_0001_afff;
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct State {
    select: u8,
    id: u32,
    entries: [u64; PINS],
    pins: Pins,
}

/// What a pin's level has to do with the polarity that its entry is programmed for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Polarity {
    /// Nothing: a high wire asks, whatever the entry says. Software that was written for QEMU and KVM, which do this, may
    /// rely on it.
    Ignored,
    /// As in a real machine: the pins of these bits are low while their wires ask (PCI's INTx# are), and an entry of
    /// the wrong polarity asks while nobody does.
    Wired {
        /// A bit for each pin.
        active_low: u32,
    },
}

/// The controller. Inputs 0 to 23 are its pins (see [`Pins`]); a high input is a wire that asks.
pub struct IoApic {
    id: u8,
    polarity: Polarity,
    state: State,
}

impl IoApic {
    /// An I/O APIC at reset, with this ID (0 to 15).
    pub fn new(id: u8, polarity: Polarity) -> Self {
        let state = State {
            select: 0,
            id: u32::from(id) << 24 & ID_BITS,
            entries: [entry::MASKED; PINS],
            pins: Pins::new(PINS),
        };
        IoApic { id, polarity, state }
    }

    /// A local APIC has ended the level-triggered interrupt of this vector.
    pub fn end_of_interrupt(&mut self, vector: u8, cx: &mut DeviceCx) {
        for pin in 0..PINS {
            let e = &mut self.state.entries[pin];
            if *e & entry::LEVEL != 0 && *e as u8 == vector {
                *e &= !entry::REMOTE_IRR;
                self.deliver_level(pin, cx);
            }
        }
    }

    /// "Interrupt Input Pin Polarity".
    fn is_active(&self, pin: usize) -> bool {
        let asks = self.state.pins.level(pin);
        match self.polarity {
            Polarity::Ignored => asks,
            Polarity::Wired { active_low } => {
                let high = asks != (active_low & 1 << pin != 0);
                high != (self.state.entries[pin] & entry::POLARITY_LOW != 0)
            }
        }
    }

    /// Sends a level-triggered interrupt that asks and is not being served.
    fn deliver_level(&mut self, pin: usize, cx: &mut DeviceCx) {
        let e = self.state.entries[pin];
        if e & (entry::LEVEL | entry::MASKED | entry::REMOTE_IRR) == entry::LEVEL && self.is_active(pin) {
            self.state.entries[pin] |= entry::REMOTE_IRR;
            self.send(pin, cx);
        }
    }

    fn send(&self, pin: usize, cx: &mut DeviceCx) {
        let e = self.state.entries[pin];
        let mode = (e >> 8) as u8 & 7;
        let level = e & entry::LEVEL != 0;
        let (address, data) = InterruptMessage {
            destination: (e >> 56) as u32,
            logical: e & entry::LOGICAL != 0,
            redirection_hint: mode == delivery::LOWEST_PRIORITY,
            vector: e as u8,
            delivery: mode,
            level_triggered: level,
            assert: level,
            wide: false,
        }
        .encode();
        // "Extended Destination ID": bits 11 to 4 of the address, where interrupt remapping has a part of its handle.
        cx.msi(address | e >> 44 & 0xff0, data);
    }

    fn read_register(&self) -> u32 {
        let s = &self.state;
        match s.select {
            register::ID | register::ARBITRATION => s.id,
            register::VERSION => VERSION,
            select => match self.entry(select) {
                Some((pin, high)) => (s.entries[pin] >> if high { 32 } else { 0 }) as u32,
                None => 0,
            },
        }
    }

    /// Pin and half of the entry behind a register number.
    fn entry(&self, select: u8) -> Option<(usize, bool)> {
        let i = select.checked_sub(register::REDIRECTION)?;
        let pin = usize::from(i / 2);
        (pin < PINS).then_some((pin, i % 2 != 0))
    }

    fn write_register(&mut self, value: u32, cx: &mut DeviceCx) {
        if self.state.select == register::ID {
            self.state.id = value & ID_BITS;
        }
        let Some((pin, high)) = self.entry(self.state.select) else { return };
        let e = &mut self.state.entries[pin];
        let shift = if high { 32 } else { 0 };
        let writable = entry::WRITABLE & 0xffff_ffff << shift;
        *e = *e & !writable | u64::from(value) << shift & writable;
        if *e & entry::LEVEL == 0 {
            *e &= !entry::REMOTE_IRR;
        } else {
            self.deliver_level(pin, cx);
        }
    }
}

impl Device for IoApic {
    fn name(&self) -> &'static str {
        "ioapic"
    }

    /// Registers are aligned words of 32 bits. Of IOREGSEL the low byte can be accessed alone.
    fn read(&mut self, access: Access, _: &mut DeviceCx) -> u64 {
        match access.offset {
            IOREGSEL => self.state.select.into(),
            IOWIN if access.size >= 4 => self.read_register().into(),
            _ => 0,
        }
    }

    fn write(&mut self, access: Access, value: u64, cx: &mut DeviceCx) {
        match access.offset {
            IOREGSEL => self.state.select = value as u8,
            IOWIN if access.size >= 4 => self.write_register(value as u32, cx),
            EOI => self.end_of_interrupt(value as u8, cx),
            _ => {}
        }
    }

    fn input(&mut self, line: u32, level: bool, cx: &mut DeviceCx) {
        let pin = (line % 256) as usize;
        if pin >= PINS {
            return;
        }
        let was_active = self.is_active(pin);
        self.state.pins.set(line, level);
        let e = self.state.entries[pin];
        if e & entry::LEVEL != 0 {
            self.deliver_level(pin, cx);
        } else if e & entry::MASKED == 0 && !was_active && self.is_active(pin) {
            self.send(pin, cx); // "edge-sensitive interrupts signalled on a masked pin are ignored"
        }
    }

    fn reset(&mut self) {
        *self = IoApic::new(self.id, self.polarity);
    }

    device_state!(state);
}

#[cfg(test)]
mod tests {
    use emu_core::device::{Bench, Signal};
    use proptest::prelude::*;

    use super::*;

    struct Rig(IoApic, Bench);
    impl Rig {
        fn new() -> Self {
            Rig(IoApic::new(2, Polarity::Wired { active_low: 0 }), Bench::default())
        }
        fn r(&mut self, register: u8) -> u32 {
            self.1.write(&mut self.0, IOREGSEL, 4, register.into());
            self.1.read(&mut self.0, IOWIN, 4) as u32
        }
        fn w(&mut self, register: u8, value: u32) {
            self.1.write(&mut self.0, IOREGSEL, 4, register.into());
            self.1.write(&mut self.0, IOWIN, 4, value.into());
        }
        fn pin(&mut self, pin: u32, level: bool) {
            self.0.input(pin, level, &mut self.1.cx());
        }
        fn eoi(&mut self, vector: u64) {
            self.1.write(&mut self.0, EOI, 4, vector);
        }
        fn sent(&mut self) -> Vec<(u64, u32)> {
            let signals = self.1.take_signals();
            let one = |s: &Signal| match s {
                Signal::Msi { address, data } => (*address, *data),
                other => panic!("{other:?}"),
            };
            signals.iter().map(one).collect()
        }
    }

    #[test]
    fn registers() {
        let mut a = Rig::new();
        assert_eq!([a.r(0), a.r(1), a.r(2), a.r(3)], [0x0200_0000, 0x0017_0020, 0x0200_0000, 0]);
        a.w(0, u32::MAX);
        a.w(1, 0);
        assert_eq!([a.r(0), a.r(1), a.r(2)], [0x0f00_0000, 0x0017_0020, 0x0f00_0000]);
        assert_eq!([a.r(0x10), a.r(0x11), a.r(0x3e), a.r(0x40)], [0x1_0000, 0, 0x1_0000, 0]);
        a.w(0x3e, u32::MAX);
        a.w(0x3f, u32::MAX);
        assert_eq!([a.r(0x3e), a.r(0x3f)], [0x1_afff, 0xffff_0000], "status bits and reserved ones stay");
        a.1.write(&mut a.0, IOREGSEL, 1, 1);
        assert_eq!((a.1.read(&mut a.0, IOREGSEL, 1), a.1.read(&mut a.0, IOWIN, 2)), (1, 0));
    }

    /// "Extended Destination ID", as interrupt remapping's entries have it: interrupt index 9A5Ch in remappable format.
    #[test]
    fn the_extended_destination_is_part_of_the_address() {
        let mut a = Rig::new();
        a.w(0x19, 0x1a5c << 17 | 1 << 16);
        a.w(0x18, 1 << 11 | 0x31);
        a.pin(4, true);
        assert_eq!(a.sent(), [(0xfee0_0000 | 0x1a5c << 5 | 1 << 4 | 1 << 2, 0x31)]);
    }

    #[test]
    fn edges() {
        let mut a = Rig::new();
        a.pin(4, true);
        a.pin(4, false);
        a.w(0x19, 0x0300_0000);
        a.w(0x18, 0x0931);
        assert_eq!(a.sent(), [], "an edge at a masked pin is lost");
        a.pin(4, true);
        a.pin(4, true);
        a.pin(4 + 256, true);
        assert_eq!(a.sent(), [(0xfee0_300c, 0x131)], "logical, lowest priority: redirected");
        a.pin(4, false);
        a.pin(4 + 256, false);
        a.w(0x18, 0x2031);
        assert_eq!(a.sent(), [], "active low now; a write is no edge");
        a.pin(4, true);
        assert_eq!(a.sent(), []);
        a.pin(4, false);
        assert_eq!(a.sent(), [(0xfee0_3000, 0x31)]);
    }

    #[test]
    fn levels() {
        let mut a = Rig::new();
        a.pin(16, true);
        a.w(0x30, 0x8055);
        assert_eq!((a.sent(), a.r(0x30)), (vec![(0xfee0_0000, 0xc055)], 0xc055));
        a.pin(16, false);
        a.pin(16, true);
        a.eoi(0x54);
        assert_eq!(a.sent(), [], "it is being served");
        a.eoi(0x55);
        assert_eq!(a.sent().len(), 1);
        a.pin(16, false);
        a.eoi(0x55);
        assert_eq!((a.sent(), a.r(0x30)), (vec![], 0x8055));
        a.w(0x30, 0x1_8055);
        a.pin(16, true);
        assert_eq!(a.sent(), []);
        a.w(0x30, 0x8055);
        assert_eq!(a.sent().len(), 1);
        a.w(0x30, 0x1_0055);
        assert_eq!(a.r(0x30), 0x1_0055, "edge triggered: the remote IRR is gone");
        a.w(0x30, 0xa055);
        assert_eq!(a.sent(), []);
        a.pin(16, false);
        assert_eq!(a.sent().len(), 1, "active low");
    }

    #[test]
    fn polarity() {
        // (polarity, entry, whether it asks with a low input and with a high one)
        for (polarity, entry, low, high) in [
            (Polarity::Ignored, 0x8040, false, true),
            (Polarity::Ignored, 0xa040, false, true),
            (Polarity::Wired { active_low: 1 << 16 }, 0xa040, false, true),
            (Polarity::Wired { active_low: 1 << 16 }, 0x8040, true, false),
            (Polarity::Wired { active_low: 0 }, 0xa040, true, false),
        ] {
            for (level, asks) in [(false, low), (true, high)] {
                let mut a = Rig(IoApic::new(0, polarity), Bench::default());
                a.pin(16, level);
                a.w(0x30, entry);
                assert_eq!(a.sent().len(), usize::from(asks), "{polarity:?} {entry:#x} {level}");
            }
        }
    }

    #[test]
    fn one_end_serves_all_entries_of_the_vector() {
        let mut a = Rig::new();
        for pin in 0..3 {
            a.w(0x10 + 2 * pin, 0x8060);
            a.pin(pin.into(), true);
        }
        a.sent();
        a.pin(1, false);
        a.eoi(0x60);
        assert_eq!(a.sent().len(), 2);
        assert_eq!([a.r(0x10), a.r(0x12), a.r(0x14)], [0xc060, 0x8060, 0xc060]);
    }

    proptest! {
        #[test]
        fn nothing_panics_and_saved_state_goes_on_alike(
            ops in prop::collection::vec((0u64..0x50, 1u8..=8, any::<u64>(), 0u8..4, 0u32..9000), 1..200)
        ) {
            let (mut a, mut b) = (Rig::new(), Rig::new());
            let half = ops.len() / 2;
            for (i, (at, size, value, what, pin)) in ops.into_iter().enumerate() {
                if i == half {
                    b.0.restore(&a.0.save()).unwrap();
                    a.sent();
                    b.sent();
                }
                for r in [&mut a, &mut b] {
                    match what {
                        0 => r.1.write(&mut r.0, at, size, value),
                        1 => r.w(value as u8, (value >> 32) as u32),
                        2 => r.pin(pin, value & 1 != 0),
                        _ => { r.1.read(&mut r.0, at, size); }
                    }
                }
                if i >= half {
                    prop_assert_eq!(a.sent(), b.sent());
                }
            }
            prop_assert_eq!(&a.0.state, &b.0.state);
        }
    }
}
