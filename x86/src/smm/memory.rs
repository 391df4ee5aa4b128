//! System management RAM ("SMRAM"; "Intel 3 Series Express Chipset Family", "System Management Mode (SMM)"; APM vol. 2, "SMRAM Locations"): who
//! finds what where.
//!
//! The host bridge decodes two ranges for a processor in system management mode: the compatible one at A0000H, where everybody else finds video
//! memory, and TSEG below the top of low memory, where everybody else finds nothing. Processors have ranges of their own beside: Intel's SMRR,
//! AMD's TSeg. Registers of the host bridge reach processors as a message, when they are written.
//!
//! Bus masters reach neither, whatever registers say.

use serde::{Deserialize, Serialize};

use crate::platform::memory::{BASE_END, SMRAM, SMRAM_SIZE};

/// `VcpuSignal::Message`: the host bridge decodes system management RAM so from now on ([`Bridge::pack`]).
pub const DECODE: u32 = 3;
/// Nobody answers there.
const NOWHERE: u64 = 1 << 57;
const MIB: u64 = 1 << 20;

/// What the host bridge decodes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bridge {
    /// G_SMRAME: there is a compatible range.
    pub compatible: bool,
    /// D_OPEN: it is for everybody.
    pub open: bool,
    /// D_CLS: it is for code alone.
    pub closed: bool,
    /// Base and size of TSEG in bytes, multiples of 1 MiB.
    pub tseg: Option<(u64, u64)>,
}

impl Bridge {
    /// As a message's value.
    pub fn pack(self) -> u64 {
        let (base, size) = self.tseg.unwrap_or((0, 0));
        let flags = u64::from(self.compatible) | u64::from(self.open) << 1 | u64::from(self.closed) << 2;
        flags | (size / MIB) << 8 | (base / MIB) << 32
    }

    /// Of a message's value.
    pub fn unpack(value: u64) -> Self {
        let (base, size) = ((value >> 32) * MIB, (value >> 8 & 0xff_ffff) * MIB);
        Bridge {
            compatible: value & 1 != 0,
            open: value & 2 != 0,
            closed: value & 4 != 0,
            tseg: (size != 0).then_some((base, size)),
        }
    }
}

/// A range that a register of the processor says is system management RAM: an address belongs to it if it is `base` in the bits of `mask`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Masked {
    base: u64,
    mask: u64,
}

/// All that decides.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Memory {
    /// The host bridge.
    pub bridge: Bridge,
    /// IA32_SMRR_PHYSBASE and _PHYSMASK; SMMADDR and SMMMASK.
    pub(crate) registers: [u64; 2],
    is_amd: bool,
}

/// SMMMASK.
mod mask {
    pub(super) const A_VALID: u64 = 1;
    pub(super) const T_VALID: u64 = 2;
    pub(super) const A_CLOSE: u64 = 4;
    pub(super) const T_CLOSE: u64 = 8;
    pub(super) const ADDRESS: u64 = !0x1_ffff;
}
/// IA32_SMRR_PHYSMASK.V.
const VALID: u64 = 1 << 11;

impl Memory {
    /// Writes one of the processor's own registers.
    pub(crate) fn write(&mut self, i: usize, value: u64, is_amd: bool) {
        self.registers[i] = value;
        self.is_amd = is_amd;
    }

    /// The range of the processor's registers, if there is one.
    fn own(&self) -> Option<Masked> {
        let [base, mask] = self.registers;
        let (valid, bits) = if self.is_amd { (mask::T_VALID, mask::ADDRESS) } else { (VALID, !0xfff) };
        (mask & valid != 0).then_some(Masked { base: base & mask & bits, mask: mask & bits })
    }

    /// Where an access goes on the bus.
    #[inline]
    pub(crate) fn place(&self, pa: u64, is_on: bool, is_fetch: bool) -> u64 {
        let compatible = pa.wrapping_sub(BASE_END) < SMRAM_SIZE;
        let is_free = !compatible && self.bridge.tseg.is_none() && self.registers[1] == 0;
        if is_free { pa } else { self.decode(pa, compatible, is_on, is_fetch) }
    }

    #[cold]
    fn decode(&self, pa: u64, compatible: bool, is_on: bool, is_fetch: bool) -> u64 {
        let b = &self.bridge;
        let of_amd = if self.is_amd { self.registers[1] } else { 0 };
        let closes = |bit: u64| b.closed && !b.open || of_amd & bit != 0;
        if compatible {
            let own = of_amd & mask::A_VALID != 0 && is_on;
            let decoded = b.compatible && (is_on || b.open);
            let is_seen = (own || decoded) && (is_fetch || !closes(mask::A_CLOSE));
            return if is_seen { SMRAM + (pa - BASE_END) } else { pa };
        }
        let in_tseg = b.tseg.is_some_and(|(base, size)| pa.wrapping_sub(base) < size);
        let in_own = self.own().is_some_and(|r| pa & r.mask == r.base);
        let may = match (in_tseg, in_own) {
            (false, false) => true,
            (_, false) => (is_on || b.open) && (is_fetch || !closes(0)),
            (..) => is_on && (is_fetch || !closes(mask::T_CLOSE)),
        };
        if may { pa } else { NOWHERE | pa }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PA: u64 = 0xa_1000;

    #[test]
    fn messages_survive() {
        for tseg in [None, Some((0x7f80_0000, 8 * MIB)), Some((MIB, MIB))] {
            for bits in 0..8 {
                let b = Bridge { compatible: bits & 1 != 0, open: bits & 2 != 0, closed: bits & 4 != 0, tseg };
                assert_eq!(Bridge::unpack(b.pack()), b);
            }
        }
    }

    /// "SMM Space Definition", its table of what D_OPEN, D_CLS and the processor's mode come to.
    #[test]
    fn the_compatible_range() {
        // (G_SMRAME, D_OPEN, D_CLS, in SMM) => code, data
        for (bits, code, data) in [
            ((false, false, false, true), false, false),
            ((true, false, false, false), false, false),
            ((true, false, false, true), true, true),
            ((true, true, false, false), true, true),
            ((true, true, false, true), true, true),
            ((true, false, true, true), true, false),
            ((true, false, true, false), false, false),
        ] {
            let (compatible, open, closed, is_on) = bits;
            let m = Memory { bridge: Bridge { compatible, open, closed, tseg: None }, ..Memory::default() };
            let seen = |is_fetch| m.place(PA, is_on, is_fetch) == SMRAM + 0x1000;
            assert_eq!((seen(true), seen(false)), (code, data), "{bits:?}");
            assert_eq!(m.place(0xc_0000, is_on, false), 0xc_0000);
        }
    }

    #[test]
    fn ranges_that_nobody_else_sees() {
        let at = 0x7f80_0000;
        let bridge = Bridge { tseg: Some((at, 8 * MIB)), ..Bridge::default() };
        let chipset = Memory { bridge, ..Memory::default() };
        let mut intel = Memory::default();
        intel.write(0, at | 6, false);
        intel.write(1, 0xff80_0000 | VALID, false);
        let mut amd = Memory::default();
        amd.write(0, at, true);
        amd.write(1, 0xff80_0000 | mask::T_VALID, true);
        for m in [chipset, intel, amd.clone()] {
            for (pa, inside) in [(at - 1, false), (at, true), (at + 8 * MIB - 1, true), (at + 8 * MIB, false)] {
                assert_eq!(m.place(pa, true, false), pa);
                assert_eq!(m.place(pa, false, false) != pa, inside, "{pa:#x}");
            }
        }
        amd.write(1, 0xff80_0000 | 0xf, true);
        assert_eq!((amd.place(at, true, true), amd.place(at, true, false) == at), (at, false), "closed to data");
        assert_eq!((amd.place(PA, true, true), amd.place(PA, true, false)), (SMRAM + 0x1000, PA));
        assert_eq!(amd.place(PA, false, true), PA);
    }
}
