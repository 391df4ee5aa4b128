//! What an instruction finds and leaves.

use std::ops::{Deref, DerefMut};

use emu_core::engine::flags::ALL;
use emu_core::random::SplitMix64;
use iced_x86::{Instruction, Register};

pub const PAGE: usize = 4096;
/// Code, then registers in and out, then data that instructions work on, then a page that is not there.
pub const REGISTERS: usize = PAGE;
pub const DATA: usize = 2 * PAGE;
pub const SIZE: usize = 4 * PAGE;
/// Size of the data.
pub const DATA_SIZE: usize = SIZE - DATA;
/// The flags that are compared.
pub const STATUS: u64 = ALL;
/// MXCSR with all exceptions masked.
pub const MASKED: u64 = 0x1f80;
/// RFLAGS.DF.
pub const DF: u64 = 1 << 10;

/// An exception.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Trap {
    pub vector: u8,
    /// The error code, 0 if there is none.
    pub error: u64,
    /// Of #PF, the address.
    pub address: u64,
    /// Where: the offset in the code segment that was saved.
    pub ip: u64,
}

/// The x87's part of FXSAVE's image: bytes 0 to 23 and 32 to 159.
pub const X87_SIZE: usize = 160;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct State {
    pub gpr: [u64; 16],
    pub flags: u64,
    /// ES, CS, SS, DS, FS, GS; not of 64-bit mode.
    pub selectors: [u16; 6],
    pub data: Vec<u8>,
    /// YMM0 to YMM15, four words each.
    pub vectors: Vec<u64>,
    pub mxcsr: u64,
    pub x87: Vec<u8>,
    /// What ended the code, if not its end.
    pub trap: Option<Trap>,
}

/// Random operands and states.
pub struct Random(SplitMix64);

impl Deref for Random {
    type Target = SplitMix64;

    fn deref(&self) -> &SplitMix64 {
        &self.0
    }
}

impl DerefMut for Random {
    fn deref_mut(&mut self) -> &mut SplitMix64 {
        &mut self.0
    }
}

impl Random {
    pub fn new(seed: u64) -> Self {
        Random(SplitMix64(seed))
    }

    /// A word of a vector: any bits, or one or two floating-point numbers that meet.
    pub fn element(&mut self) -> u64 {
        const SINGLES: [u32; 8] = [0, 1 << 31, 0x3f80_0000, 0x7f80_0000, 0xff80_0000, 0x7fc0_0000, 0x7f80_0001, 1];
        const DOUBLES: [u64; 7] = [0, 1 << 63, 0x7ff0 << 48, 0xfff0 << 48, 0x7ff8 << 48, 0x7ff0 << 48 | 1, 1];
        let single = |r: &mut Self| match r.below(4) {
            0 => u64::from(SINGLES[r.below(8) as usize]),
            1 => 0x3f00_0000 | r.next() & 0x81ff_ffff,
            _ => r.next() & 0xffff_ffff,
        };
        match self.below(4) {
            0 => self.value(),
            1 => 0x3fe0 << 48 | self.next() & 0x803f_ffff_ffff_ffff,
            2 => DOUBLES[self.below(7) as usize],
            _ => single(self) | single(self) << 32,
        }
    }

    /// A register of the x87: any bits, or a number that is likely to meet others.
    pub fn extended(&mut self) -> u128 {
        const SPECIAL: [u128; 10] = [
            0,
            1 << 79,
            0x3fff << 64 | 1 << 63,
            0x7fff << 64 | 1 << 63,
            0xffff << 64 | 1 << 63,
            0x7fff << 64 | 3 << 62,
            0x7fff << 64 | 1 << 63 | 1,
            1,
            1 << 63,
            0x3fff << 64,
        ];
        let fraction = u128::from(self.next() >> (self.next() % 64) << (self.next() % 64));
        let sign = u128::from(self.next() & 1) << 79;
        match self.below(5) {
            0 => SPECIAL[self.below(10) as usize],
            1 => u128::from(self.next()) | u128::from(self.next() & 0xffff) << 64,
            2 => sign | u128::from(self.below(0x7fff)) << 64 | 1 << 63 | fraction,
            _ => sign | u128::from(0x3fff - 32 + self.below(64)) << 64 | 1 << 63 | fraction,
        }
    }

    /// A state of the x87, as FXSAVE has it: mostly of a full stack and with all exceptions masked.
    fn x87(&mut self) -> Vec<u8> {
        let mut image = vec![0; X87_SIZE];
        let masks = if self.below(8) == 0 { self.next() & 0x3f } else { 0x3f };
        let control = masks | 0x40 | self.next() & 0x0c00 | [0, 0x200, 0x300, 0x300][self.below(4) as usize];
        let flags = if self.below(4) == 0 { self.next() & 0x7f } else { 0 };
        let pending = if flags & !control & 0x3f != 0 { 0x8080 } else { 0 };
        let status = self.next() & 0x7f00 | flags | pending;
        let tag = match self.below(4) {
            0 => self.next() as u8,
            1 => 0x7f << (self.below(2)) | self.below(2) as u8,
            // ST(7) is empty, so that there is room for another.
            _ => !(1u8 << ((status >> 11).wrapping_sub(1) & 7)),
        };
        image[..2].copy_from_slice(&(control as u16).to_le_bytes());
        image[2..4].copy_from_slice(&(status as u16).to_le_bytes());
        image[4] = tag;
        for i in 0..8 {
            image[32 + 16 * i..][..10].copy_from_slice(&self.extended().to_le_bytes()[..10]);
        }
        image
    }

    /// A state for an instruction. Rounding, FTZ and DAZ vary; mostly all exceptions are masked.
    pub fn state(&mut self) -> State {
        let masks = if self.below(8) == 0 { self.next() & 0x1fbf } else { MASKED };
        State {
            gpr: std::array::from_fn(|_| self.value()),
            flags: self.next() & STATUS,
            selectors: [0; 6],
            data: (0..DATA_SIZE / 8).flat_map(|_| self.element().to_le_bytes()).collect(),
            vectors: (0..64).map(|_| self.element()).collect(),
            mxcsr: masks | self.next() & 0xe040,
            x87: self.x87(),
            trap: None,
        }
    }

    /// A value: any, small, or at a boundary of some size.
    pub fn value(&mut self) -> u64 {
        let any = self.next();
        match self.below(6) {
            0 => any,
            1 => any % 64,
            2 => (1u64 << (any % 64)).wrapping_add(any >> 60).wrapping_sub(8),
            3 => u64::MAX >> (any % 64),
            4 => (any as i8) as i64 as u64,
            _ => any >> (any % 64),
        }
    }
}

/// How many cases a test tries.
pub fn cases() -> u64 {
    std::env::var("UNDERVISOR_FUZZ_CASES").ok().and_then(|n| n.parse().ok()).unwrap_or(100_000)
}

pub fn difference(bytes: &[u8], insn: &Instruction, before: &State, ours: &State, theirs: &State) -> String {
    let operands: Vec<_> = (0..insn.op_count()).map(|i| (insn.op_kind(i), insn.op_register(i))).collect();
    let mut text = format!("  {bytes:02x?} {operands:?}\n");
    for i in 0..16 {
        let [b, o, t] = [before, ours, theirs].map(|s| s.gpr[i]);
        if o != t {
            text += &format!("  {:?}: before {b:#x}, here {o:#x}, there {t:#x}\n", Register::RAX + i as u32);
        }
    }
    for (i, word) in before.vectors.iter().enumerate() {
        let (o, t) = (ours.vectors[i], theirs.vectors[i]);
        if o != t {
            text += &format!("  YMM{} word {}: before {word:#x}, here {o:#x}, there {t:#x}\n", i / 4, i % 4);
        }
    }
    if let Some(i) = ours.x87.iter().zip(&theirs.x87).position(|(a, b)| a != b) {
        let hex = |x87: &[u8]| x87.chunks(16).map(|row| format!("    {row:02x?}\n")).collect::<String>();
        let [before, ours, theirs] = [before, ours, theirs].map(|s| hex(&s.x87));
        text += &format!("  x87 at {i}: before\n{before}    here\n{ours}    there\n{theirs}");
    }
    text += &format!("  trap: here {:x?}, there {:x?}\n", ours.trap, theirs.trap);
    text += &format!(
        "  selectors: before {:x?}, here {:x?}, there {:x?}\n",
        before.selectors, ours.selectors, theirs.selectors
    );
    text += &format!("  mxcsr: before {:#x}, here {:#x}, there {:#x}\n", before.mxcsr, ours.mxcsr, theirs.mxcsr);
    text += &format!("  flags: before {:#x}, here {:#x}, there {:#x}\n", before.flags, ours.flags, theirs.flags);
    if let Some(i) = ours.data.iter().zip(&theirs.data).position(|(a, b)| a != b) {
        text += &format!("  data at {i:#x}: here {:#x}, there {:#x}\n", ours.data[i], theirs.data[i]);
    }
    text + &format!("  registers before: {:x?}\n", before.gpr)
}
