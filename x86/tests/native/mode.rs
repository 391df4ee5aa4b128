//! In which mode code runs: 64-bit mode, or compatibility mode with segments of the GDT or of our own.

use std::sync::atomic::{AtomicU16, Ordering};

use x86::segment::{Attributes, Segment};

use crate::state::{DATA, PAGE};

/// The modes that are compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// 64-bit mode.
    Long,
    /// 32-bit code, in the flat segments that Linux has in its GDT.
    Flat,
    /// Segments of the LDT with a base and 64 KiB: sizes of code and of stack, 16 or 32.
    Based { code: u32, stack: u32 },
}

impl Mode {
    /// All of compatibility mode.
    pub const COMPATIBILITY: [Mode; 5] = [
        Mode::Flat,
        Mode::Based { code: 32, stack: 32 },
        Mode::Based { code: 32, stack: 16 },
        Mode::Based { code: 16, stack: 32 },
        Mode::Based { code: 16, stack: 16 },
    ];

    /// Size of the code.
    pub fn bits(self) -> u32 {
        match self {
            Mode::Long => 64,
            Mode::Flat => 32,
            Mode::Based { code, .. } => code,
        }
    }

    /// How many registers of a kind an instruction can name.
    pub fn registers(self) -> u64 {
        if self == Mode::Long { 16 } else { 8 }
    }

    /// The bits of general registers that are looked at: the upper halves are undefined once a processor has been in a 32-bit mode
    /// (SDM vol. 1, "General-Purpose Registers in 64-Bit Mode").
    pub fn mask(self) -> u64 {
        if self == Mode::Long { u64::MAX } else { 0xffff_ffff }
    }
}

/// Linux's segments for 32-bit code, for data, and for 64-bit code.
pub const USER_CS_32: Segment = Segment { selector: 0x23, base: 0, limit: u32::MAX, attributes: Attributes(0xc0fb) };
pub const USER_DS: Segment = Segment { selector: 0x2b, base: 0, limit: u32::MAX, attributes: Attributes(0xc0f3) };
pub const USER_CS: Segment = Segment { selector: 0x33, base: 0, limit: u32::MAX, attributes: Attributes(0xa0fb) };

/// Code, stack and data.
#[derive(Clone, Copy, Debug)]
pub struct Segments {
    pub mode: Mode,
    pub code: Segment,
    pub stack: Segment,
    pub data: Segment,
}

impl Segments {
    /// Those of a mode, where code and data begin at `base`; `None` where the system gives no LDT.
    pub fn new(mode: Mode, base: u64) -> Option<Self> {
        Some(match mode {
            Mode::Long => Segments { mode, code: USER_CS, stack: USER_DS, data: USER_DS },
            Mode::Flat => Segments { mode, code: USER_CS_32, stack: USER_DS, data: USER_DS },
            Mode::Based { code, stack } => {
                let data = base + DATA as u64;
                Segments {
                    mode,
                    code: entry(base, 0xfb, code)?,
                    stack: entry(data, 0xf3, stack)?,
                    data: entry(data, 0xf3, 32)?,
                }
            }
        })
    }

    /// ES, CS, SS, DS, FS, GS.
    pub fn all(&self) -> [Segment; 6] {
        let null = Segment { attributes: Attributes::UNUSABLE, ..Segment::default() };
        let other = if self.mode == Mode::Long { self.data } else { null };
        [self.data, self.code, self.stack, self.data, other, other]
    }

    /// The entries in the LDT.
    pub fn local(&self) -> impl Iterator<Item = Segment> {
        [self.code, self.stack, self.data].into_iter().filter(|s| s.selector & 4 != 0)
    }

    /// Selectors that instructions load: good ones and others.
    pub fn selectors(&self) -> [u16; 16] {
        let [code, stack, data] = [self.code, self.stack, self.data].map(|s| s.selector);
        [0, 3, 0x2b, 0x28, 0x23, 0x33, 0x10, 0x1b, 0xfff8, 0xffff, code, stack, data, data & !3, stack & !1, 0x2b]
    }

    /// Offset of a linear address in the code segment.
    pub fn ip(&self, linear: u64) -> u64 {
        linear - self.code.base
    }

    /// Offset of a linear address in the data segment.
    pub fn offset(&self, linear: u64) -> u64 {
        linear - self.data.base
    }
}

/// A descriptor as it is in memory.
pub fn descriptor(s: &Segment) -> u64 {
    let granular = s.attributes.0 >> 15 & 1 != 0;
    let limit = u64::from(if granular { s.limit >> 12 } else { s.limit });
    let flags = u64::from(s.attributes.0);
    limit & 0xffff | (s.base & 0xff_ffff) << 16 | flags << 40 | (limit >> 16 & 15) << 48 | (s.base >> 24 & 0xff) << 56
}

/// An entry for modify_ldt(2), as `struct user_desc` has it.
#[repr(C)]
struct UserDesc {
    entry_number: u32,
    base_addr: u32,
    limit: u32,
    flags: u32,
}

/// Makes a new entry of this process's LDT, of 64 KiB.
fn entry(base: u64, access: u32, bits: u32) -> Option<Segment> {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    const LIMIT: u32 = 0xffff;
    let index = NEXT.fetch_add(1, Ordering::Relaxed);
    // seg_32bit, then two bits of contents: data or code.
    let flags = u32::from(bits == 32) | (access >> 2 & 3) << 1;
    let it = UserDesc { entry_number: index.into(), base_addr: u32::try_from(base).ok()?, limit: LIMIT, flags };
    const WRITE: i32 = 0x11;
    // SAFETY: the entry is our own, and nothing but the code that is tried uses it.
    let done = unsafe { libc::syscall(libc::SYS_modify_ldt, WRITE, &raw const it, size_of::<UserDesc>()) };
    let attributes = Attributes(access | u32::from(bits == 32) << 14);
    (done == 0).then_some(Segment { selector: index << 3 | 7, base, limit: LIMIT, attributes })
}

/// Where the instruction that is tried stands in compatibility mode, in the page of code: all around it is HLT, which only CPL 0 may execute, so
/// that whatever a branch does ends at once.
pub const FIELD: std::ops::Range<usize> = 0xa00..PAGE;
pub const FIELD_MIDDLE: usize = 0xd00;
pub const HLT: u8 = 0xf4;
