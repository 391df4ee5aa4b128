//! Interrupt messages (SDM vol. 3A, "Message Signalled Interrupts"): writes of four bytes to FEEx_xxxxh. MSIs of devices,
//! the IOAPIC's and the HPET's all take this way, as `Signal::Msi`.
//!
//! [`MsiWindow`] is what lies there on the bus. It hands each message to every vCPU's local APIC, as `Signal::Vcpu` with
//! [`INTERRUPT`] and the message packed into the value; which of them it is for, and which takes one of lowest priority, is
//! for the local APICs to see.

use emu_core::device::{Access, Device, DeviceCx};

/// Base of the window.
pub const BASE: u64 = 0xfee0_0000;
/// Size of the window in bytes.
pub const SIZE: u64 = 0x10_0000;
/// `Signal::Vcpu`, message: an interrupt message; the value is [`InterruptMessage::pack`]'s.
pub const INTERRUPT: u32 = 1;

/// Delivery modes, as in the message's data, the ICR and the LVT.
pub mod delivery {
    /// To all that are named.
    pub const FIXED: u8 = 0;
    /// To one of those that are named.
    pub const LOWEST_PRIORITY: u8 = 1;
    /// System management interrupt.
    pub const SMI: u8 = 2;
    /// Non-maskable interrupt.
    pub const NMI: u8 = 4;
    /// INIT.
    pub const INIT: u8 = 5;
    /// The vector comes from the 8259A.
    pub const EXT_INT: u8 = 7;
}

/// An interrupt message.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct InterruptMessage {
    /// Destination ID: APIC ID, or logical destination.
    pub destination: u32,
    /// The destination has 32 bits, as the x2APIC IDs in interrupt remapping's entries. A message on the bus has 8.
    pub wide: bool,
    /// DM: the destination is logical.
    pub logical: bool,
    /// RH: goes to one of several.
    pub redirection_hint: bool,
    /// Vector.
    pub vector: u8,
    /// One of [`delivery`].
    pub delivery: u8,
    /// Level triggered.
    pub level_triggered: bool,
    /// Level: assert. Without meaning unless level triggered.
    pub assert: bool,
}

impl InterruptMessage {
    /// "Message Address Register Format", "Message Data Register Format", with the low 8 bits of the destination.
    pub fn encode(self) -> (u64, u32) {
        let address = BASE
            | u64::from(self.destination as u8) << 12
            | u64::from(self.redirection_hint) << 3
            | u64::from(self.logical) << 2;
        let data = u32::from(self.vector)
            | u32::from(self.delivery & 7) << 8
            | u32::from(self.assert) << 14
            | u32::from(self.level_triggered) << 15;
        (address, data)
    }

    /// The message that a write of `data` to `address` is. Reserved bits do not count.
    pub fn decode(address: u64, data: u32) -> Self {
        InterruptMessage {
            destination: (address >> 12) as u8 as u32,
            wide: false,
            redirection_hint: address & 8 != 0,
            logical: address & 4 != 0,
            vector: data as u8,
            delivery: (data >> 8) as u8 & 7,
            assert: data & 1 << 14 != 0,
            level_triggered: data & 1 << 15 != 0,
        }
    }

    /// The destination above; below the data, in which bits 11 to 13 tell of the address: the value of a `Signal::Vcpu`.
    pub fn pack(self) -> u64 {
        let (_, data) = self.encode();
        let flags = u64::from(self.logical) << 11 | u64::from(self.redirection_hint) << 12 | u64::from(self.wide) << 13;
        u64::from(self.destination) << 32 | flags | u64::from(data)
    }

    /// The reverse of [`InterruptMessage::pack`].
    pub fn unpack(value: u64) -> Self {
        InterruptMessage {
            destination: (value >> 32) as u32,
            logical: value & 1 << 11 != 0,
            redirection_hint: value & 1 << 12 != 0,
            wide: value & 1 << 13 != 0,
            ..Self::decode(0, value as u32)
        }
    }

    /// Tells all local APICs.
    pub fn deliver(self, vcpus: u32, cx: &mut DeviceCx) {
        for vcpu in 0..vcpus {
            cx.vcpu(vcpu, INTERRUPT, self.pack());
        }
    }
}

/// The window at [`BASE`], as devices see it. A processor's own accesses there are its local APIC's and never come here.
pub struct MsiWindow {
    vcpus: u32,
}

impl MsiWindow {
    /// The window of a machine with so many vCPUs.
    pub fn new(vcpus: u32) -> Self {
        MsiWindow { vcpus }
    }
}

impl Device for MsiWindow {
    fn name(&self) -> &'static str {
        "msi"
    }

    fn read(&mut self, _: Access, _: &mut DeviceCx) -> u64 {
        u64::MAX
    }

    /// Only aligned writes of four bytes are messages.
    fn write(&mut self, access: Access, value: u64, cx: &mut DeviceCx) {
        if access.size != 4 || !access.offset.is_multiple_of(4) || access.offset >= SIZE {
            return;
        }
        InterruptMessage::decode(BASE + access.offset, value as u32).deliver(self.vcpus, cx);
    }

    fn reset(&mut self) {}

    fn save(&self) -> Vec<u8> {
        Vec::new()
    }

    fn restore(&mut self, bytes: &[u8]) -> Result<(), String> {
        if bytes.is_empty() { Ok(()) } else { Err("the message window has no state".into()) }
    }
}

#[cfg(test)]
mod tests {
    use emu_core::device::{Bench, Signal};

    use super::*;

    #[test]
    fn messages_survive_their_encoding() {
        for bits in 0..1u32 << 14 {
            let message = InterruptMessage {
                destination: bits as u8 as u32,
                wide: false,
                logical: bits & 1 << 8 != 0,
                redirection_hint: bits & 1 << 9 != 0,
                vector: (bits as u8).wrapping_mul(37),
                delivery: (bits >> 10) as u8 & 7,
                level_triggered: bits & 1 << 13 != 0,
                assert: bits & 1 << 12 != 0,
            };
            let (address, data) = message.encode();
            assert_eq!(InterruptMessage::decode(address, data), message);
            assert_eq!(InterruptMessage::unpack(message.pack()), message);
            let message = InterruptMessage { destination: bits << 18 | 5, wide: true, ..message };
            assert_eq!(InterruptMessage::unpack(message.pack()), message);
        }
        let nmi = InterruptMessage { destination: 3, delivery: delivery::NMI, ..InterruptMessage::default() };
        assert_eq!(nmi.encode(), (0xfee0_3000, 0x400));
    }

    #[test]
    fn the_window_tells_all_vcpus() {
        let (mut b, mut w) = (Bench::default(), MsiWindow::new(2));
        b.write(&mut w, 0x1004, 4, 0x8041);
        b.write(&mut w, 0x1004, 8, 0x8041);
        b.write(&mut w, 0x1002, 4, 0x8041);
        let value = InterruptMessage::decode(0xfee0_1004, 0x8041).pack();
        let expected = [0, 1].map(|vcpu| Signal::Vcpu { vcpu, message: INTERRUPT, value });
        assert_eq!(b.take_signals(), expected);
    }
}
