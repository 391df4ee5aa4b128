//! A page of memory that has a local APIC's registers at their offsets: VMX calls it virtual-APIC page, SVM vAPIC backing page.

use crate::processor::P;

/// Offsets of registers in the page.
pub mod offset {
    #![allow(missing_docs, reason = "the manuals' names")]
    pub const ID: u16 = 0x020;
    pub const VERSION: u16 = 0x030;
    pub const TPR: u16 = 0x080;
    pub const APR: u16 = 0x090;
    pub const PPR: u16 = 0x0a0;
    pub const EOI: u16 = 0x0b0;
    pub const RRD: u16 = 0x0c0;
    pub const LDR: u16 = 0x0d0;
    pub const DFR: u16 = 0x0e0;
    pub const SVR: u16 = 0x0f0;
    /// The first of 8 words, 16 bytes apart.
    pub const ISR: u16 = 0x100;
    /// Likewise.
    pub const TMR: u16 = 0x180;
    /// Likewise.
    pub const IRR: u16 = 0x200;
    pub const ESR: u16 = 0x280;
    pub const ICR_LOW: u16 = 0x300;
    pub const ICR_HIGH: u16 = 0x310;
    pub const LVT_TIMER: u16 = 0x320;
    pub const LVT_ERROR: u16 = 0x370;
    pub const INITIAL_COUNT: u16 = 0x380;
    pub const CURRENT_COUNT: u16 = 0x390;
    pub const DIVIDE: u16 = 0x3e0;
    pub const SELF_IPI: u16 = 0x3f0;
}

/// All of an access lies in a register: in the low 4 bytes of 16.
pub fn is_within_register(offset: u16, size: u8) -> bool {
    size <= 4 && (offset & 0xf) + u16::from(size) <= 4
}

/// Which word of ISR, TMR or IRR has a vector's bit.
fn word_of(register: u16, vector: u8) -> u16 {
    register + u16::from(vector / 32) * 16
}

/// The page at this physical address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ApicPage(pub u64);

impl ApicPage {
    /// Reads up to 8 bytes. What is no memory reads as 0.
    pub fn load(self, h: &mut P, offset: u16, size: u8) -> u64 {
        h.read_physical(self.0 + u64::from(offset), size).unwrap_or(0)
    }

    /// Writes them.
    pub fn store(self, h: &mut P, offset: u16, size: u8, value: u64) {
        let _ = h.write_physical(self.0 + u64::from(offset), size, value);
    }

    /// Reads a register.
    pub fn read(self, h: &mut P, register: u16) -> u32 {
        self.load(h, register, 4) as u32
    }

    /// Writes one.
    pub fn write(self, h: &mut P, register: u16, value: u32) {
        self.store(h, register, 4, value.into());
    }

    /// A vector's bit of ISR, TMR or IRR.
    pub fn has_vector(self, h: &mut P, register: u16, vector: u8) -> bool {
        self.read(h, word_of(register, vector)) >> (vector % 32) & 1 != 0
    }

    /// Writes it.
    pub fn set_vector(self, h: &mut P, register: u16, vector: u8, on: bool) {
        let at = word_of(register, vector);
        let bit = 1 << (vector % 32);
        let word = self.read(h, at);
        self.write(h, at, if on { word | bit } else { word & !bit });
    }

    /// The highest vector of ISR, TMR or IRR; 0 if there is none.
    pub fn highest(self, h: &mut P, register: u16) -> u8 {
        (0..8u8)
            .rev()
            .find_map(|i| {
                let word = self.read(h, register + u16::from(i) * 16);
                (word != 0).then(|| 32 * i + 31 - word.leading_zeros() as u8)
            })
            .unwrap_or(0)
    }
}
