//! Segments and their descriptors (SDM vol. 3A, "Protected-Mode Memory Management", "System Architecture in IA-32e Mode").

use serde::{Deserialize, Serialize};

/// A segment register: what it shows, and what it caches.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Segment {
    /// The selector.
    pub selector: u16,
    /// Linear address of the segment.
    pub base: u64,
    /// Its last byte.
    pub limit: u32,
    /// Type and flags.
    pub attributes: Attributes,
}

/// Type and flags of a segment, as bits 55 to 40 of its descriptor have them: type, S, DPL, P, (limit), AVL, L, D/B, G. Bit 16: the
/// register is unusable, for it was loaded with a null selector.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attributes(pub u32);

impl Attributes {
    /// Of a register that was loaded with a null selector.
    pub const UNUSABLE: Attributes = Attributes(1 << 16);

    /// The four bits of the type.
    pub const fn kind(self) -> u32 {
        self.0 & 15
    }

    /// It is of code or data, not of the system.
    pub const fn is_code_or_data(self) -> bool {
        self.0 >> 4 & 1 != 0
    }

    /// It is a code segment.
    pub const fn is_code(self) -> bool {
        self.is_code_or_data() && self.0 & 8 != 0
    }

    /// A conforming code segment.
    pub const fn is_conforming(self) -> bool {
        self.0 & 4 != 0
    }

    /// Data that can be written.
    pub const fn is_writable_data(self) -> bool {
        self.is_code_or_data() && self.0 & 10 == 2
    }

    /// Data, or code that can be read.
    pub const fn is_readable(self) -> bool {
        self.is_code_or_data() && (self.0 & 8 == 0 || self.0 & 2 != 0)
    }

    /// Privilege level.
    pub const fn dpl(self) -> u8 {
        (self.0 >> 5 & 3) as u8
    }

    /// Present.
    pub const fn is_present(self) -> bool {
        self.0 >> 7 & 1 != 0
    }

    /// L: 64-bit code.
    pub const fn is_long(self) -> bool {
        self.0 >> 13 & 1 != 0
    }

    /// D/B: 32-bit code, stack or limit.
    pub const fn is_big(self) -> bool {
        self.0 >> 14 & 1 != 0
    }

    /// The register was loaded with a null selector.
    pub const fn is_unusable(self) -> bool {
        self.0 >> 16 & 1 != 0
    }
}

/// A descriptor of 8 bytes ("Segment Descriptors").
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Descriptor(pub u64);

impl Descriptor {
    /// Type and flags.
    #[inline]
    pub const fn attributes(self) -> Attributes {
        Attributes((self.0 >> 40 & 0xf0ff) as u32)
    }

    /// Base, 32 bits.
    #[inline]
    pub const fn base(self) -> u32 {
        (self.0 >> 16 & 0xff_ffff | self.0 >> 32 & 0xff00_0000) as u32
    }

    /// The segment's last byte, by its granularity.
    #[inline]
    pub const fn limit(self) -> u32 {
        let limit = (self.0 & 0xffff | self.0 >> 32 & 0xf_0000) as u32;
        if self.0 >> 55 & 1 != 0 { limit << 12 | 0xfff } else { limit }
    }

    /// A segment register that was loaded from it.
    #[inline]
    pub fn segment(self, selector: u16) -> Segment {
        Segment { selector, base: self.base().into(), limit: self.limit(), attributes: self.attributes() }
    }
}

/// GDTR or IDTR.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Table {
    /// Linear address.
    pub base: u64,
    /// Its last byte.
    pub limit: u16,
}

/// A segment register's number, as ModR/M has it; DS is also that of none.
pub fn number_of(register: iced_x86::Register) -> u64 {
    use iced_x86::Register as R;
    match register {
        R::ES => 0,
        R::CS => 1,
        R::SS => 2,
        R::FS => 4,
        R::GS => 5,
        _ => 3,
    }
}

/// A selector without its RPL: what error codes tell.
pub const fn index_of(selector: u16) -> u16 {
    selector & !3
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_descriptor_is_read_as_it_is_drawn() {
        let d = Descriptor(0x12cf_9b34_5678_ffff);
        assert_eq!((d.base(), d.limit()), (0x1234_5678, 0xffff_ffff));
        let a = d.attributes();
        assert!(a.is_code() && a.is_present() && a.is_big() && !a.is_long() && !a.is_conforming() && a.is_readable());
        assert_eq!((a.dpl(), a.kind()), (0, 11));
        let long = Descriptor(0x00af_fb00_0000_ffff).attributes();
        assert!(long.is_long() && !long.is_big());
        assert_eq!(long.dpl(), 3);
        assert_eq!(Descriptor(0x0040_9300_0000_0fff).limit(), 0xfff);
        assert!(Descriptor(0x00cf_9300_0000_ffff).attributes().is_writable_data());
    }
}
