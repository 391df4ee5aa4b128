//! Memory and processor that a case begins with, in each mode.

use x86::control::{cr0, cr4, efer};
use x86::processor::X86;
use x86::segment::{Attributes, Segment, Table};

use crate::kvm::RAM;

pub const CODE: u64 = 0x1000;
/// An HLT behind the code, where far transfers lead.
pub const LANDING: u64 = CODE + 0x80;
const GDT: u64 = 0x2000;
const IDT: u64 = 0x3000;
const TSS: u64 = 0x4000;
const OTHER_TSS: u64 = 0x4100;
const LDT: u64 = 0x4200;
const HANDLERS: u64 = 0x5000;
/// Of CPL 0, where CPL 3 has the other.
const INNER_STACK: u64 = 0x8000;
pub const STACK: u64 = 0x8800;
/// Of an outer level that is returned to.
pub const OUTER_STACK: u64 = STACK - 0x400;
/// The page of STACK.
const USER_STACK: u64 = 0x8000;
const TABLES: u64 = 0x1_0000;
/// The page that cases are about, and where it is found once more, in a large page.
pub const PAGE: u64 = 0x4_0000;
pub const LARGE: u64 = 0x80_0000 + PAGE;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    Real,
    /// Protected mode, 16-bit code and stack.
    Protected16,
    Protected,
    Paging32,
    Pae,
    /// Compatibility mode.
    Compatibility,
    Long,
}

impl Mode {
    pub const ALL: [Mode; 7] =
        [Mode::Real, Mode::Protected16, Mode::Protected, Mode::Paging32, Mode::Pae, Mode::Compatibility, Mode::Long];

    pub fn is_ia32e(self) -> bool {
        matches!(self, Mode::Long | Mode::Compatibility)
    }

    pub fn has_paging(self) -> bool {
        matches!(self, Mode::Paging32 | Mode::Pae) || self.is_ia32e()
    }
}

/// What is run, and from which state.
#[derive(Clone)]
pub struct Case {
    pub name: String,
    pub mode: Mode,
    /// At CPL 3.
    pub user: bool,
    /// Bits of the entry for `PAGE`, and of that for the large page.
    pub rights: u64,
    pub more_cr0: u64,
    pub more_cr4: u64,
    /// Not EFER.NXE.
    pub no_nxe: bool,
    pub flags: u64,
    pub ax: u64,
    /// Words of memory.
    pub words: Vec<(u64, u64)>,
    /// It loads or looks at descriptors.
    pub is_about_segments: bool,
    pub code: Vec<u8>,
}

impl Case {
    /// The first part of its name, before what it is done with.
    pub fn instruction(&self) -> &str {
        self.name.split(": ").next().and_then(|n| n.split(", ").next()).unwrap_or_default()
    }

    pub fn new(name: impl Into<String>, mode: Mode, code: &[u8]) -> Self {
        Case {
            name: name.into(),
            mode,
            user: false,
            rights: 3,
            more_cr0: 0,
            more_cr4: 0,
            no_nxe: false,
            flags: 0,
            ax: 0,
            words: vec![],
            is_about_segments: false,
            code: code.into(),
        }
    }
}

/// Selectors with a place in the code below.
const KERNEL_CODE: u16 = 0x08;
const KERNEL_DATA: u16 = 0x10;
const USER_CODE: u16 = 0x1b;
const BUSY_TSS: u16 = 0x40;
pub const USER_DATA: u16 = 0x5b;
const CODE_16: u16 = 0x60;
const DATA_16: u16 = 0x68;
const LONG_CODE: u16 = 0xc8;
const LONG_USER_CODE: u16 = 0xd3;

const fn gate(kind: u64, selector: u16, offset: u64) -> u64 {
    offset & 0xffff | (selector as u64) << 16 | kind << 40 | offset >> 16 << 48
}

/// The GDT: what each entry is.
pub const ENTRIES: [(&str, u64); 40] = [
    ("null", 0),
    ("code", 0x00cf_9b00_0000_ffff),
    ("data", 0x00cf_9300_0000_ffff),
    ("code of DPL 3", 0x00cf_fb00_0000_ffff),
    ("absent data", 0x00cf_1300_0000_ffff),
    ("TSS", 0x0000_8900_0000_0067 | TSS << 16),
    ("call gate", gate(0x8c, KERNEL_CODE, LANDING)),
    ("another TSS", 0x0000_8900_0000_0067 | OTHER_TSS << 16),
    ("busy TSS", 0x0000_8b00_0000_0067 | TSS << 16),
    ("conforming code", 0x00cf_9f00_0000_ffff),
    ("conforming code of DPL 3", 0x00cf_ff00_0000_ffff),
    ("data of DPL 3", 0x00cf_f300_0000_ffff),
    ("16-bit code", 0x0000_9b00_0000_ffff),
    ("16-bit data", 0x0000_9300_0000_ffff),
    ("expand-down data", 0x0040_9700_0000_0fff),
    ("execute-only code", 0x00cf_9900_0000_ffff),
    ("read-only data", 0x00cf_9100_0000_ffff),
    ("LDT", 0x0000_8200_0000_0007 | LDT << 16),
    ("call gate of DPL 3", gate(0xec, KERNEL_CODE, LANDING)),
    ("call gate of DPL 3 to conforming code", gate(0xec, 0x48, LANDING)),
    ("16-bit call gate", gate(0xe4, KERNEL_CODE, LANDING)),
    ("task gate", gate(0xe5, 0x38, 0)),
    ("absent code", 0x00cf_1b00_0000_ffff),
    ("code, not accessed", 0x00cf_9a00_0000_ffff),
    ("data, not accessed", 0x00cf_9200_0000_ffff),
    ("64-bit code", 0x00af_9b00_0000_ffff),
    ("64-bit code of DPL 3", 0x00af_fb00_0000_ffff),
    ("call gate of DPL 3 to 64-bit code", gate(0xec, LONG_CODE, LANDING)),
    ("null (the gate's upper half)", 0),
    ("code with L and D", 0x00ef_9b00_0000_ffff),
    ("call gate to absent code", gate(0xec, 0xb0, LANDING)),
    ("null (the gate's upper half)", 0),
    ("64-bit TSS", 0x0000_8900_0000_0067 | OTHER_TSS << 16),
    ("null (the TSS's upper half)", 0),
    ("64-bit LDT", 0x0000_8200_0000_0007 | LDT << 16),
    ("null (the LDT's upper half)", 0),
    ("call gate to 64-bit code", gate(0x8c, LONG_CODE, LANDING)),
    ("null (the gate's upper half)", 0),
    ("absent call gate", gate(0x6c, LONG_CODE, LANDING)),
    ("null (the gate's upper half)", 0),
];

/// Where the handler of an exception is.
pub fn handler(vector: u8) -> u64 {
    HANDLERS + 16 * u64::from(vector)
}

/// Where the entry is that has the rights of a page.
pub fn page_entry(mode: Mode, linear: u64) -> u64 {
    match (mode, linear) {
        (Mode::Paging32, LARGE) => TABLES + 4 * (LARGE >> 22),
        (Mode::Paging32, _) => TABLES + 0x1000 + 4 * (linear >> 12),
        (_, LARGE) => TABLES + 0x2000 + 8 * (LARGE >> 21),
        _ => TABLES + 0x3000 + 8 * (linear >> 12),
    }
}

/// The machine's memory and processor for a case.
pub fn state(c: &Case) -> (Vec<u8>, X86) {
    let mut ram = vec![0u8; RAM];
    let mut put = |at: u64, value: u64| ram[at as usize..at as usize + 8].copy_from_slice(&value.to_le_bytes());
    let is_ia32e = c.mode.is_ia32e();
    for (i, (_, descriptor)) in ENTRIES.iter().enumerate() {
        put(GDT + 8 * i as u64, *descriptor);
    }
    for vector in 0..32u64 {
        // It halts where one can tell which it was.
        let at = handler(vector as u8);
        put(at, 0xf4);
        match c.mode {
            Mode::Real => put(4 * vector, at),
            Mode::Long | Mode::Compatibility => put(IDT + 16 * vector, gate(0x8e, LONG_CODE, at)),
            _ => put(IDT + 8 * vector, gate(0x8e, KERNEL_CODE, at)),
        }
    }
    put(LANDING, 0xf4);
    put(LDT, 0x00cf_9300_0000_ffff);
    // The other task: halts at the first handler's place.
    for (at, value) in [(32, HANDLERS), (36, 2), (56, STACK - 0x100), (72, 0x10), (76, 8), (80, 0x10), (84, 0x10)] {
        put(OTHER_TSS + at, value & 0xffff_ffff);
    }
    put(TSS + 4, INNER_STACK | if is_ia32e { 0 } else { u64::from(KERNEL_DATA) << 32 });
    // What CPL 3 needs is the user's: not the inner stack and the tables, which SMAP keeps from CPL 0 then.
    let page = |i: u64| match i << 12 {
        PAGE => PAGE | c.rights,
        at => at | if c.user && matches!(at, CODE | USER_STACK) { 7 } else { 3 },
    };
    // The large page is of the first memory.
    let large = c.rights | 0x80;
    match c.mode {
        Mode::Paging32 => {
            put(TABLES, (TABLES + 0x1000) | 7);
            put(TABLES + 8, large & 0xffff_ffff);
            for i in 0..256 {
                put(TABLES + 0x1000 + 8 * i, page(2 * i) | page(2 * i + 1) << 32);
            }
        }
        mode if mode.has_paging() => {
            put(TABLES, if mode == Mode::Pae { (TABLES + 0x2000) | 1 } else { (TABLES + 0x1000) | 7 });
            put(TABLES + 0x1000, (TABLES + 0x2000) | 7);
            put(TABLES + 0x2000, (TABLES + 0x3000) | 7);
            put(TABLES + 0x2020, large);
            for i in 0..512 {
                put(TABLES + 0x3000 + 8 * i, page(i));
            }
        }
        _ => {}
    }
    put(PAGE + 0x20, 0xf4);
    c.words.iter().for_each(|(at, value)| put(*at, *value));
    ram[CODE as usize..CODE as usize + c.code.len()].copy_from_slice(&c.code);
    (ram, processor(c))
}

fn processor(c: &Case) -> X86 {
    let is_ia32e = c.mode.is_ia32e();
    let mut cpu = X86::flat_64();
    let paging = if c.mode.has_paging() { cr0::PG } else { 0 };
    let pe = if c.mode == Mode::Real { 0 } else { cr0::PE };
    cpu.cr0 = pe | paging | cr0::ET | cr0::NE | c.more_cr0;
    cpu.cr4 = c.more_cr4 | if c.mode == Mode::Pae || is_ia32e { cr4::PAE } else { 0 };
    let nxe = if c.no_nxe { 0 } else { efer::NXE };
    cpu.efer = match c.mode {
        Mode::Pae => nxe,
        _ if is_ia32e => efer::LME | efer::LMA | nxe,
        _ => 0,
    };
    cpu.cr3 = if paging != 0 { TABLES } else { 0 };
    if c.mode == Mode::Pae {
        cpu.pdptes = [(TABLES + 0x2000) | 1, 0, 0, 0];
    }
    cpu.gdtr = Table { base: GDT, limit: 8 * ENTRIES.len() as u16 - 1 };
    cpu.idtr = Table { base: if c.mode == Mode::Real { 0 } else { IDT }, limit: 0x3ff };
    cpu.tr = Segment { selector: BUSY_TSS, base: TSS, limit: 0x67, attributes: Attributes(0x8b) };
    let of = |selector: u16| {
        let d = ENTRIES[usize::from(selector) / 8].1;
        let attributes = Attributes((d >> 40 & 0xf0ff) as u32);
        let limit = (d & 0xffff) as u32;
        Segment { selector, base: 0, limit: if attributes.0 >> 15 != 0 { u32::MAX } else { limit }, attributes }
    };
    let (code, data) = match (c.mode, c.user) {
        (Mode::Real, _) => (0, 0),
        (Mode::Protected16, _) => (CODE_16, DATA_16),
        (Mode::Long, false) => (LONG_CODE, KERNEL_DATA),
        (Mode::Long, true) => (LONG_USER_CODE, USER_DATA),
        (_, false) => (KERNEL_CODE, KERNEL_DATA),
        (_, true) => (USER_CODE, USER_DATA),
    };
    for (i, s) in cpu.segments.iter_mut().enumerate() {
        let is_code = i == 1;
        *s = if c.mode == Mode::Real {
            let attributes = Attributes(if is_code { 0x9b } else { 0x93 });
            Segment { selector: 0, base: 0, limit: 0xffff, attributes }
        } else {
            of(if is_code { code } else { data })
        };
    }
    cpu.rflags |= c.flags;
    cpu
}
