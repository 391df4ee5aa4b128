//! IMSIC: the incoming MSI controller (RISC-V Advanced Interrupt Architecture 1.0, chapter "Incoming MSI Controller").
//!
//! An [`ImsicFile`] is one interrupt file; the files are part of their hart, which reaches them through CSRs. [`Imsic`] is
//! the memory side of all of them, which turns writes into messages to harts.

use emu_core::device::{Access, Device, DeviceCx};
use serde::{Deserialize, Serialize};

/// `*iselect` of `eidelivery`.
pub const EIDELIVERY: u64 = 0x70;
/// `*iselect` of `eithreshold`.
pub const EITHRESHOLD: u64 = 0x72;
/// `*iselect` of `eip0`.
pub const EIP0: u64 = 0x80;
/// `*iselect` of `eie0`.
pub const EIE0: u64 = 0xc0;

/// An `*iselect` that names no register: the access to `*ireg` raises an illegal instruction exception, or a virtual
/// instruction exception in VS-mode.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NoRegister;

/// An interrupt file, as its hart sees it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImsicFile {
    /// The highest identity.
    identities: u32,
    eidelivery: bool,
    eithreshold: u32,
    eip: Vec<u64>,
    eie: Vec<u64>,
}

impl ImsicFile {
    /// A file at reset, with identities 1 to `identities`. "Interrupt files and interrupt identities": one less than a
    /// multiple of 64, 63 to 2047; other numbers are rounded up to one.
    pub fn new(identities: u32) -> Self {
        let words = (identities.clamp(1, 2047) as usize + 1).div_ceil(64);
        ImsicFile {
            identities: words as u32 * 64 - 1,
            eidelivery: false,
            eithreshold: 0,
            eip: vec![0; words],
            eie: vec![0; words],
        }
    }

    /// The highest identity.
    pub fn identities(&self) -> u32 {
        self.identities
    }

    /// Reads the register that `select` (0x70 to 0xff) names, as RV64 does: "Indirectly accessed interrupt-file registers".
    pub fn read(&self, select: u64) -> Result<u64, NoRegister> {
        match select {
            EIDELIVERY => Ok(self.eidelivery.into()),
            EITHRESHOLD => Ok(self.eithreshold.into()),
            EIP0..=0xff if select % 2 == 1 => Err(NoRegister), // odd registers do not exist where XLEN is 64
            EIP0..EIE0 => Ok(self.eip.get(word(select - EIP0)).copied().unwrap_or(0)),
            EIE0..=0xff => Ok(self.eie.get(word(select - EIE0)).copied().unwrap_or(0)),
            0x71 | 0x73..EIP0 => Ok(0), // reserved
            _ => Err(NoRegister),
        }
    }

    /// Writes the register that `select` names. Identities that do not exist stay 0.
    pub fn write(&mut self, select: u64, value: u64) -> Result<(), NoRegister> {
        match select {
            EIDELIVERY => self.eidelivery = if value <= 1 { value == 1 } else { self.eidelivery },
            EITHRESHOLD => self.eithreshold = value as u32 & self.identities,
            EIP0..=0xff if select % 2 == 1 => return Err(NoRegister),
            EIP0..EIE0 => set_word(&mut self.eip, word(select - EIP0), value),
            EIE0..=0xff => set_word(&mut self.eie, word(select - EIE0), value),
            0x71 | 0x73..EIP0 => {} // reserved
            _ => return Err(NoRegister),
        }
        Ok(())
    }

    /// An MSI has come for `identity`. Identities that do not exist are ignored.
    pub fn set_pending(&mut self, identity: u32) {
        if (1..=self.identities).contains(&identity) {
            self.eip[identity as usize / 64] |= 1 << (identity % 64);
        }
    }

    /// The identity that `*topei` shows: the lowest one pending, enabled and below a threshold that is not 0; 0 for none.
    pub fn top(&self) -> u32 {
        let words = self.eip.iter().zip(&self.eie).enumerate();
        let first = words.map(|(i, (p, e))| (i, p & e)).find(|(_, both)| *both != 0);
        match first.map(|(i, both)| i as u32 * 64 + both.trailing_zeros()) {
            Some(identity) if self.eithreshold == 0 || identity < self.eithreshold => identity,
            _ => 0,
        }
    }

    /// The value of `*topei` ("Top external interrupt CSRs"): identity in bits 26:16 and again, as priority, in 10:0.
    pub fn topei(&self) -> u64 {
        u64::from(self.top()) << 16 | u64::from(self.top())
    }

    /// A write of `*topei`: takes the pending bit of [`ImsicFile::top`] away. Returns the value that `*topei` had.
    pub fn claim(&mut self) -> u64 {
        let topei = self.topei();
        let identity = self.top();
        if identity != 0 {
            self.eip[identity as usize / 64] &= !(1 << (identity % 64));
        }
        topei
    }

    /// Whether the file signals an external interrupt to its hart ("Interrupt delivery and handling").
    pub fn signals(&self) -> bool {
        self.eidelivery && self.top() != 0
    }
}

/// Index of the 64-bit word that the even register `k` is.
fn word(k: u64) -> usize {
    (k / 2) as usize
}

fn set_word(words: &mut [u64], word: usize, value: u64) {
    if let Some(w) = words.get_mut(word) {
        *w = if word == 0 { value & !1 } else { value };
    }
}

/// `seteipnum_le` in a file's page.
const SETEIPNUM_LE: u64 = 0;
/// `seteipnum_be` in a file's page.
const SETEIPNUM_BE: u64 = 4;
const PAGE: u64 = 4096;

/// Message to a vCPU: the number of a hart's interrupt file. The value is an interrupt identity.
pub const FILE_M: u32 = 0;
/// See [`FILE_M`]; guest file n (of `hstatus.VGEIN`, from 1) is `FILE_S + n`.
pub const FILE_S: u32 = 1;

/// Which interrupt files a region of memory holds ("Arrangement of the memory regions of multiple interrupt files").
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ImsicRegion {
    /// Machine level: one page a hart.
    Machine,
    /// Supervisor level, with guest files after the supervisor's own.
    Supervisor {
        /// GEILEN: guest files a hart.
        guest_files: u32,
    },
}

impl ImsicRegion {
    /// Binary logarithm of the pages that a hart takes.
    pub fn guest_index_bits(self) -> u32 {
        match self {
            ImsicRegion::Machine => 0,
            ImsicRegion::Supervisor { guest_files } => (guest_files + 1).next_power_of_two().trailing_zeros(),
        }
    }

    /// Size in bytes of the region of `harts` harts.
    pub fn size(self, harts: u32) -> u64 {
        (u64::from(harts) << self.guest_index_bits()) * PAGE
    }
}

/// The pages of the interrupt files of all harts, at one level. It has no state: it sends each write on to its hart, with
/// the file's number ([`FILE_M`], [`FILE_S`] and so on) as message and the identity as value.
pub struct Imsic {
    region: ImsicRegion,
    harts: u32,
}

impl Imsic {
    /// The region of a machine with `harts` harts.
    pub fn new(region: ImsicRegion, harts: u32) -> Self {
        Imsic { region, harts }
    }
}

impl Device for Imsic {
    fn name(&self) -> &'static str {
        match self.region {
            ImsicRegion::Machine => "imsic-m",
            ImsicRegion::Supervisor { .. } => "imsic-s",
        }
    }

    fn read(&mut self, _: Access, _: &mut DeviceCx) -> u64 {
        0
    }

    /// "Memory region for an interrupt file": naturally aligned words only.
    fn write(&mut self, access: Access, value: u64, cx: &mut DeviceCx) {
        let (page, at) = (access.offset / PAGE, access.offset % PAGE);
        let identity = match at {
            SETEIPNUM_LE => value as u32,
            SETEIPNUM_BE => (value as u32).swap_bytes(),
            _ => return,
        };
        let bits = self.region.guest_index_bits();
        let (hart, index) = ((page >> bits) as u32, (page & ((1 << bits) - 1)) as u32);
        let file = match self.region {
            ImsicRegion::Machine => FILE_M,
            ImsicRegion::Supervisor { guest_files } if index <= guest_files => FILE_S + index,
            ImsicRegion::Supervisor { .. } => return, // a page between
        };
        if access.size == 4 && hart < self.harts && identity != 0 {
            cx.vcpu(hart, file, identity.into());
        }
    }

    fn reset(&mut self) {}

    fn save(&self) -> Vec<u8> {
        Vec::new()
    }

    fn restore(&mut self, bytes: &[u8]) -> Result<(), String> {
        if bytes.is_empty() { Ok(()) } else { Err("an IMSIC region has no state".into()) }
    }
}

#[cfg(test)]
mod tests {
    use emu_core::device::{Bench, Signal};
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_number_of_identities() {
        for (asked, got) in [(0, 63), (63, 63), (64, 127), (255, 255), (2047, 2047), (9999, 2047)] {
            assert_eq!(ImsicFile::new(asked).identities(), got);
        }
    }

    /// "Indirectly accessed interrupt-file registers".
    #[test]
    fn registers() {
        let mut f = ImsicFile::new(127);
        for select in 0x70..=0xff {
            let odd = select >= EIP0 && select % 2 == 1;
            assert_eq!(f.write(select, u64::MAX).is_err(), odd, "{select:#x}");
            assert_eq!(f.read(select).is_err(), odd, "{select:#x}");
        }
        let read = |f: &ImsicFile, s| f.read(s).unwrap();
        assert_eq!((read(&f, 0x70), read(&f, 0x71), read(&f, 0x72), read(&f, 0x7f)), (0, 0, 127, 0));
        assert_eq!((read(&f, 0x80), read(&f, 0x82), read(&f, 0x84)), (u64::MAX - 1, u64::MAX, 0));
        assert_eq!((read(&f, 0xc0), read(&f, 0xc2), read(&f, 0xc4)), (u64::MAX - 1, u64::MAX, 0));
        assert_eq!((f.read(0x6f), f.write(0x100, 0)), (Err(NoRegister), Err(NoRegister)));
        f.write(EIDELIVERY, 1).unwrap();
        f.write(EIDELIVERY, 0x4000_0000).unwrap();
        assert_eq!(f.read(EIDELIVERY), Ok(1), "delivery from an APLIC is not supported");
    }

    /// "Top external interrupt CSRs" and "Interrupt delivery and handling".
    #[test]
    fn top_threshold_claim_delivery() {
        let mut f = ImsicFile::new(255);
        f.set_pending(0);
        f.set_pending(256);
        f.set_pending(200);
        f.set_pending(70);
        assert_eq!(f.topei(), 0);
        f.write(0xc6, u64::MAX).unwrap();
        assert_eq!((f.topei(), f.signals()), (200 << 16 | 200, false));
        f.write(0xc2, u64::MAX).unwrap();
        f.write(EIDELIVERY, 1).unwrap();
        assert_eq!((f.top(), f.signals()), (70, true));
        f.write(EITHRESHOLD, 70).unwrap();
        assert_eq!((f.topei(), f.signals()), (0, false));
        f.write(EITHRESHOLD, 71).unwrap();
        assert_eq!(f.claim(), 70 << 16 | 70);
        f.write(EITHRESHOLD, 0).unwrap();
        assert_eq!((f.claim() >> 16, f.claim(), f.signals()), (200, 0, false));
    }

    /// "Memory region for an interrupt file" and the arrangement of several.
    #[test]
    fn pages() {
        let mut b = Bench::default();
        let region = ImsicRegion::Supervisor { guest_files: 5 };
        assert_eq!((region.guest_index_bits(), region.size(2)), (3, 0x1_0000));
        let mut s = Imsic::new(region, 2);
        b.write(&mut s, 0x8000, 4, 9);
        b.write(&mut s, 0x5004, 4, 0x0900_0000);
        assert_eq!(
            b.take_signals(),
            [
                Signal::Vcpu { vcpu: 1, message: FILE_S, value: 9 },
                Signal::Vcpu { vcpu: 0, message: FILE_S + 5, value: 9 }
            ]
        );
        for (at, size) in [(0x6000, 4), (0x8008, 4), (0x8000, 2), (0x8000, 8), (0x1_0000, 4)] {
            b.write(&mut s, at, size, 9);
        }
        assert_eq!((b.take_signals().len(), b.read(&mut s, 0, 4)), (0, 0));
        let mut m = Imsic::new(ImsicRegion::Machine, 2);
        b.write(&mut m, 0x1000, 4, 1);
        assert_eq!(b.take_signals(), [Signal::Vcpu { vcpu: 1, message: FILE_M, value: 1 }]);
    }

    proptest! {
        #[test]
        fn nothing_panics(ops in prop::collection::vec((0u64..0x110, any::<u64>(), 0u8..4), 1..100)) {
            let mut f = ImsicFile::new(127);
            for (select, value, op) in ops {
                match op {
                    0 => drop(f.write(select, value)),
                    1 => drop(f.read(select)),
                    2 => f.set_pending(value as u32 % 300),
                    _ => drop(f.claim()),
                }
                prop_assert_eq!(f.top() != 0, f.topei() != 0);
                prop_assert!(f.eip[0] & 1 == 0 && f.eie[0] & 1 == 0);
            }
        }
    }
}
