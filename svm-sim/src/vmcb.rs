//! The virtual machine control block (APM vol. 2, appendix B, "VMCB Layout"), and what a processor holds of it ("VMCB State Caching").
//!
//! A processor holds the VMCBs that it has run last. VMRUN loads of such a one only what the clean bits do not call clean: software that changes a
//! field and forgets to clear its bit goes on with what the field was.

use emu_core::ram::Ram;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use x86::processor::P;

/// How much of the page is of use: the control area, and the state-save area behind it.
pub const SIZE: usize = 0x6e8;
/// Where the state-save area begins.
pub const SAVE: usize = 0x400;

/// A field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Field {
    /// Its offset in the VMCB, in bytes.
    pub offset: u16,
    /// Its size in bytes.
    pub size: u8,
}

macro_rules! fields {
    ($($(#[$m:meta])* $name:ident = $offset:literal, $size:literal;)*) => {
        $($(#[$m])* #[allow(missing_docs, reason = "the manual's name")]
        pub const $name: Field = Field { offset: $offset, size: $size };)*

        /// All fields, with their names, by offset.
        pub const FIELDS: &[(&str, Field)] = &[$((stringify!($name), $name),)*];
    };
}

fields! {
    INTERCEPT_CR = 0x000, 4;
    INTERCEPT_DR = 0x004, 4;
    INTERCEPT_EXCEPTIONS = 0x008, 4;
    INTERCEPT_3 = 0x00c, 4;
    INTERCEPT_4 = 0x010, 4;
    INTERCEPT_5 = 0x014, 4;
    PAUSE_FILTER_THRESHOLD = 0x03c, 2;
    PAUSE_FILTER_COUNT = 0x03e, 2;
    IOPM_BASE_PA = 0x040, 8;
    MSRPM_BASE_PA = 0x048, 8;
    TSC_OFFSET = 0x050, 8;
    GUEST_ASID = 0x058, 4;
    TLB_CONTROL = 0x05c, 1;
    /// V_TPR, V_IRQ, V_GIF and their like: see [`vintr`].
    VINTR = 0x060, 8;
    INTERRUPT_SHADOW = 0x068, 8;
    EXITCODE = 0x070, 8;
    EXITINFO1 = 0x078, 8;
    EXITINFO2 = 0x080, 8;
    EXITINTINFO = 0x088, 8;
    /// NP_ENABLE and its like: see [`nested`].
    NESTED_CONTROL = 0x090, 8;
    AVIC_APIC_BAR = 0x098, 8;
    GHCB = 0x0a0, 8;
    EVENTINJ = 0x0a8, 8;
    N_CR3 = 0x0b0, 8;
    /// LBR_VIRTUALIZATION_ENABLE and its like: see [`more`].
    VIRTUALIZATION_CONTROL = 0x0b8, 8;
    CLEAN_BITS = 0x0c0, 4;
    NRIP = 0x0c8, 8;
    FETCHED_BYTES = 0x0d0, 1;
    GUEST_INSTRUCTION_BYTES_LOW = 0x0d1, 7;
    GUEST_INSTRUCTION_BYTES_HIGH = 0x0d8, 8;
    AVIC_BACKING_PAGE = 0x0e0, 8;
    AVIC_LOGICAL_TABLE = 0x0f0, 8;
    AVIC_PHYSICAL_TABLE = 0x0f8, 8;
    VMSA = 0x108, 8;
    BUS_LOCK_COUNTER = 0x120, 2;

    ES_SELECTOR = 0x400, 2;
    ES_ATTRIB = 0x402, 2;
    ES_LIMIT = 0x404, 4;
    ES_BASE = 0x408, 8;
    CS_SELECTOR = 0x410, 2;
    CS_ATTRIB = 0x412, 2;
    CS_LIMIT = 0x414, 4;
    CS_BASE = 0x418, 8;
    SS_SELECTOR = 0x420, 2;
    SS_ATTRIB = 0x422, 2;
    SS_LIMIT = 0x424, 4;
    SS_BASE = 0x428, 8;
    DS_SELECTOR = 0x430, 2;
    DS_ATTRIB = 0x432, 2;
    DS_LIMIT = 0x434, 4;
    DS_BASE = 0x438, 8;
    FS_SELECTOR = 0x440, 2;
    FS_ATTRIB = 0x442, 2;
    FS_LIMIT = 0x444, 4;
    FS_BASE = 0x448, 8;
    GS_SELECTOR = 0x450, 2;
    GS_ATTRIB = 0x452, 2;
    GS_LIMIT = 0x454, 4;
    GS_BASE = 0x458, 8;
    GDTR_LIMIT = 0x464, 4;
    GDTR_BASE = 0x468, 8;
    LDTR_SELECTOR = 0x470, 2;
    LDTR_ATTRIB = 0x472, 2;
    LDTR_LIMIT = 0x474, 4;
    LDTR_BASE = 0x478, 8;
    IDTR_LIMIT = 0x484, 4;
    IDTR_BASE = 0x488, 8;
    TR_SELECTOR = 0x490, 2;
    TR_ATTRIB = 0x492, 2;
    TR_LIMIT = 0x494, 4;
    TR_BASE = 0x498, 8;
    CPL = 0x4cb, 1;
    EFER = 0x4d0, 8;
    CR4 = 0x548, 8;
    CR3 = 0x550, 8;
    CR0 = 0x558, 8;
    DR7 = 0x560, 8;
    DR6 = 0x568, 8;
    RFLAGS = 0x570, 8;
    RIP = 0x578, 8;
    RSP = 0x5d8, 8;
    S_CET = 0x5e0, 8;
    SSP = 0x5e8, 8;
    ISST_ADDR = 0x5f0, 8;
    RAX = 0x5f8, 8;
    STAR = 0x600, 8;
    LSTAR = 0x608, 8;
    CSTAR = 0x610, 8;
    SFMASK = 0x618, 8;
    KERNEL_GS_BASE = 0x620, 8;
    SYSENTER_CS = 0x628, 8;
    SYSENTER_ESP = 0x630, 8;
    SYSENTER_EIP = 0x638, 8;
    CR2 = 0x640, 8;
    G_PAT = 0x668, 8;
    DBGCTL = 0x670, 8;
    BR_FROM = 0x678, 8;
    BR_TO = 0x680, 8;
    LASTEXCPFROM = 0x688, 8;
    LASTEXCPTO = 0x690, 8;
    SPEC_CTRL = 0x6e0, 8;
}

/// Fields of a segment register: ES, CS, SS, DS, FS, GS by their numbers, then GDTR (6), LDTR (7), IDTR (8), TR (9): selector, attributes, limit, base.
pub const fn segment(i: usize) -> [Field; 4] {
    let at = (SAVE + 16 * i) as u16;
    [
        Field { offset: at, size: 2 },
        Field { offset: at + 2, size: 2 },
        Field { offset: at + 4, size: 4 },
        Field { offset: at + 8, size: 8 },
    ]
}
/// Number of GDTR, for [`segment`].
pub const GDTR: usize = 6;
/// Number of LDTR.
pub const LDTR: usize = 7;
/// Number of IDTR.
pub const IDTR: usize = 8;
/// Number of TR.
pub const TR: usize = 9;

macro_rules! bits {
    ($(#[$m:meta])* $module:ident { $($name:ident = $bit:literal,)* }) => {
        $(#[$m])*
        #[allow(missing_docs, reason = "the manual's names")]
        pub mod $module {
            $(pub const $name: u64 = 1 << $bit;)*
            /// All of them, by name.
            pub const ALL: &[(&str, u64)] = &[$((stringify!($name), $name),)*];
        }
    };
}
pub(crate) use bits;

bits! {
    /// Bits of [`VINTR`], beside V_TPR (3:0), V_INTR_PRIO (19:16), V_INTR_VECTOR (39:32).
    vintr {
        V_IRQ = 8, V_GIF = 9, V_NMI_PENDING = 11, V_NMI_BLOCKING = 12, V_IGN_TPR = 20, V_INTR_MASKING = 24, V_GIF_ENABLE = 25,
        V_NMI_ENABLE = 26, X2AVIC_ENABLE = 30, AVIC_ENABLE = 31,
    }
}
bits! {
    /// Bits of [`NESTED_CONTROL`].
    nested {
        NP_ENABLE = 0, SEV_ENABLE = 1, SEV_ES_ENABLE = 2, GMET_ENABLE = 3, SSS_CHECK_ENABLE = 4, VTE = 5, ROGPT = 6,
        INVLPGB_ENABLE = 7,
    }
}
bits! {
    /// Bits of [`VIRTUALIZATION_CONTROL`].
    more {
        LBR_VIRTUALIZATION_ENABLE = 0, V_VMLOAD_VMSAVE_ENABLE = 1, IBS_VIRTUALIZATION_ENABLE = 2, PMC_VIRTUALIZATION_ENABLE = 3,
    }
}
bits! {
    /// Clean bits ("VMCB Clean Field").
    clean {
        I = 0, IOPM = 1, ASID = 2, TPR = 3, NP = 4, CRX = 5, DRX = 6, DT = 7, SEG = 8, CR2 = 9, LBR = 10, AVIC = 11, CET = 12,
    }
}

/// Fields of a guest in 64-bit mode with flat segments: those that do not depend on its memory. Others are 0, but for control registers,
/// tables, selectors, RSP and RIP.
pub const FLAT_64_BIT_GUEST: [(Field, u64); 14] = [
    (ES_ATTRIB, 0xc93),
    (ES_LIMIT, 0xffff_ffff),
    (CS_ATTRIB, 0xa9b),
    (CS_LIMIT, 0xffff_ffff),
    (SS_ATTRIB, 0xc93),
    (SS_LIMIT, 0xffff_ffff),
    (DS_ATTRIB, 0xc93),
    (DS_LIMIT, 0xffff_ffff),
    (TR_ATTRIB, 0x8b),
    (TR_LIMIT, 0x67),
    (DR6, 0xffff_0ff0),
    (DR7, 0x400),
    (RFLAGS, 2),
    (G_PAT, 0x0007_0406_0007_0406),
];

/// What each clean bit is about: first byte and what is behind the last.
const GROUPS: [&[(usize, usize)]; 13] = [
    &[(0x000, 0x018), (0x03c, 0x040), (0x050, 0x058)],
    &[(0x040, 0x050)],
    &[(0x058, 0x05c)],
    &[(0x060, 0x068)],
    &[(0x090, 0x098), (0x0b0, 0x0b8), (0x668, 0x670)],
    &[(0x4d0, 0x4d8), (0x548, 0x560)],
    &[(0x560, 0x570)],
    &[(0x460, 0x470), (0x480, 0x490)],
    &[(0x400, 0x440), (0x4cb, 0x4cc)],
    &[(0x640, 0x648)],
    &[(0x670, 0x698)],
    &[(0x098, 0x0a0), (0x0e0, 0x0e8), (0x0f0, 0x100)],
    &[(0x5e0, 0x5f8)],
];
/// What VMLOAD and VMSAVE are about: FS, GS, LDTR, TR; STAR to KernelGSBase, SYSENTER.
pub(crate) const LOADED: &[(usize, usize)] = &[(0x440, 0x460), (0x470, 0x480), (0x490, 0x4a0), (0x600, 0x640)];

/// What no clean bit is about.
const ALWAYS: &[(usize, usize)] = &[
    (0x05c, 0x060),
    (0x068, 0x070),
    (0x0a8, 0x0b0),
    (0x0b8, 0x0d0),
    (0x108, 0x122),
    (0x570, 0x580),
    (0x5d8, 0x5e0),
    (0x5f8, 0x600),
    (0x6e0, 0x6e8),
];

/// What #VMEXIT writes in any case: V_TPR and its like with the interrupt shadow and exit information, EVENTINJ, nRIP with the instruction's bytes,
/// the bus-lock counter; segments, descriptor tables, CPL, control registers, RIP and RFLAGS, RSP with CET state and RAX, CR2, SPEC_CTRL.
const SAVED: &[(usize, usize)] = &[
    (0x060, 0x090),
    (0x0a8, 0x0b0),
    (0x0c8, 0x0e0),
    (0x120, 0x122),
    (0x400, 0x440),
    (0x460, 0x470),
    (0x480, 0x490),
    (0x4cb, 0x4cc),
    (0x4d0, 0x4d8),
    (0x548, 0x580),
    (0x5d8, 0x600),
    (0x640, 0x648),
    (0x6e0, 0x6e8),
];

/// What VMRUN writes to the host save area: segments, descriptor tables, EFER, control registers, RFLAGS and RIP, RSP with CET state and RAX, the PAT.
const HOST: &[(usize, usize)] = &[
    (0x400, 0x440),
    (0x460, 0x470),
    (0x480, 0x490),
    (0x4d0, 0x4d8),
    (0x548, 0x560),
    (0x570, 0x580),
    (0x5d8, 0x600),
    (0x668, 0x670),
];

fn is_within(f: Field, ranges: &[(usize, usize)]) -> bool {
    ranges.iter().any(|(from, to)| (*from..*to).contains(&f.offset.into()))
}

/// VMRUN writes this field to the host save area; with LBR virtualization also those of branches.
pub fn is_saved_of_host(f: Field, with_branches: bool) -> bool {
    is_within(f, HOST) || with_branches && is_within(f, GROUPS[10])
}

/// A VMCB, as a processor holds it.
#[derive(Clone, PartialEq, Eq)]
pub struct Vmcb(Box<[u8; SIZE]>);

impl Default for Vmcb {
    fn default() -> Self {
        Vmcb(Box::new([0; SIZE]))
    }
}

impl std::fmt::Debug for Vmcb {
    fn fmt(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        f.debug_map().entries(FIELDS.iter().map(|(name, field)| (name, self.get(*field)))).finish()
    }
}

impl Serialize for Vmcb {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.serialize_bytes(&self.0[..])
    }
}

impl<'de> Deserialize<'de> for Vmcb {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        let bytes = Vec::<u8>::deserialize(d)?;
        let bytes: Box<[u8; SIZE]> =
            bytes.try_into().map_err(|_| serde::de::Error::custom("a VMCB of another size"))?;
        Ok(Vmcb(bytes))
    }
}

/// Reads physical memory, whatever is there.
fn read(h: &mut P, pa: u64, bytes: &mut [u8]) {
    if h.world.ram.read(pa, bytes).is_ok() {
        return;
    }
    for (i, chunk) in bytes.chunks_mut(4).enumerate() {
        let value = h.read_physical(pa + 4 * i as u64, chunk.len() as u8).unwrap_or(u64::MAX);
        chunk.copy_from_slice(&value.to_le_bytes()[..chunk.len()]);
    }
}

/// Writes it.
fn write(h: &mut P, pa: u64, bytes: &[u8]) {
    if h.world.ram.write(pa, bytes).is_ok() {
        h.core.leave |= h.world.ram.has_killed();
        return;
    }
    for (i, chunk) in bytes.chunks(4).enumerate() {
        let mut value = [0; 8];
        value[..chunk.len()].copy_from_slice(chunk);
        let _ = h.write_physical(pa + 4 * i as u64, chunk.len() as u8, u64::from_le_bytes(value));
    }
}

impl Vmcb {
    /// A field.
    #[inline(always)]
    pub fn get(&self, f: Field) -> u64 {
        let at = usize::from(f.offset);
        let b = &self.0;
        match f.size {
            1 => b[at].into(),
            2 => u16::from_le_bytes([b[at], b[at + 1]]).into(),
            4 => u32::from_le_bytes([b[at], b[at + 1], b[at + 2], b[at + 3]]).into(),
            7 => self.get(Field { size: 8, ..f }) & (u64::MAX >> 8),
            _ => u64::from_le_bytes(std::array::from_fn(|i| b[at + i])),
        }
    }

    /// Writes one; what is beyond its size is lost.
    #[inline(always)]
    pub fn set(&mut self, f: Field, value: u64) {
        let at = usize::from(f.offset);
        let n = usize::from(f.size);
        self.0[at..at + n].copy_from_slice(&value.to_le_bytes()[..n]);
    }

    /// Whether the intercept with this exit code is on. The intercept vectors are a string of bits in the order of exit codes.
    #[inline(always)]
    pub fn intercepts(&self, code: u64) -> bool {
        code < 0xc0 && self.0[(code / 8) as usize] >> (code % 8) & 1 != 0
    }

    /// Its bytes.
    pub fn bytes(&self) -> &[u8] {
        &self.0[..]
    }

    /// The same, but for what only VMLOAD and VMSAVE are about: a processor holds nothing of that.
    pub(crate) fn with_loaded_of(&self, other: &Vmcb) -> Vmcb {
        let mut v = self.clone();
        for (from, to) in LOADED {
            v.0[*from..*to].copy_from_slice(&other.0[*from..*to]);
        }
        v
    }

    /// What RAM holds, if all of it is RAM: nothing else is looked at.
    pub fn of_ram(ram: &Ram, pa: u64) -> Option<Self> {
        let mut v = Vmcb::default();
        ram.read(pa, &mut v.0[..]).is_ok().then_some(v)
    }

    /// VMLOAD: all comes from memory.
    pub(crate) fn load_all(&mut self, h: &mut P, pa: u64) {
        read(h, pa, &mut self.0[..]);
    }

    /// VMRUN: loads all of it, or, of one that is held already, what is not clean.
    pub(crate) fn load(&mut self, h: &mut P, pa: u64, is_held: bool) {
        if let Ok(memory) = h.world.ram.bytes(pa, SIZE as u64) {
            return self.take(memory, is_held);
        }
        let mut memory = [0; SIZE];
        read(h, pa, &mut memory);
        self.take(&memory, is_held);
    }

    fn take(&mut self, memory: &[u8], is_held: bool) {
        let at = usize::from(CLEAN_BITS.offset);
        let clean = if is_held { u32::from_le_bytes(std::array::from_fn(|i| memory[at + i])) } else { 0 };
        if clean & ((1 << GROUPS.len()) - 1) == 0 {
            return self.0.copy_from_slice(memory);
        }
        for (i, ranges) in GROUPS.iter().enumerate() {
            if clean >> i & 1 == 0 {
                self.take_ranges(memory, ranges);
            }
        }
        self.take_ranges(memory, ALWAYS);
    }

    #[inline(always)]
    fn take_ranges(&mut self, memory: &[u8], ranges: &[(usize, usize)]) {
        for (from, to) in ranges {
            self.0[*from..*to].copy_from_slice(&memory[*from..*to]);
        }
    }

    /// #VMEXIT(INVALID): what tells of it goes to memory. What is held of the rest, memory may have otherwise.
    pub(crate) fn store_exit(&self, h: &mut P, pa: u64) {
        self.store_ranges(h, pa, &[(0x070, 0x090), (0x0c8, 0x0d0)]);
    }

    /// #VMEXIT: what it writes goes back to memory.
    pub(crate) fn store(&self, h: &mut P, pa: u64) {
        self.store_ranges(h, pa, SAVED);
        if self.get(NESTED_CONTROL) & nested::NP_ENABLE != 0 {
            self.store_ranges(h, pa, &[(0x668, 0x670)]);
        }
        if self.get(VIRTUALIZATION_CONTROL) & more::LBR_VIRTUALIZATION_ENABLE != 0 {
            self.store_ranges(h, pa, GROUPS[10]);
        }
    }

    /// A copy for each caller, whose ranges the compiler knows, is several times as fast.
    #[inline(always)]
    fn store_ranges(&self, h: &mut P, pa: u64, ranges: &[(usize, usize)]) {
        let to_write = h.world.ram.parts_to_write(pa, SIZE as u64, ranges).ok();
        if let Some(memory) = to_write.and_then(|memory| <&mut [u8; SIZE]>::try_from(memory).ok()) {
            for (from, to) in ranges {
                memory[*from..*to].copy_from_slice(&self.0[*from..*to]);
            }
            h.core.leave |= h.world.ram.has_killed();
            return;
        }
        self.write_ranges(h, pa, ranges);
    }

    #[cold]
    fn write_ranges(&self, h: &mut P, pa: u64, ranges: &[(usize, usize)]) {
        for (from, to) in ranges {
            write(h, pa + *from as u64, &self.0[*from..*to]);
        }
    }

    /// What VMRUN saves goes to the host save area, whose layout is a VMCB's. Software may have the rest for itself, for VMSAVE.
    pub(crate) fn store_host(&self, h: &mut P, pa: u64, with_branches: bool) {
        self.store_ranges(h, pa, HOST);
        if with_branches {
            self.store_ranges(h, pa, GROUPS[10]);
        }
    }

    /// The state-save area comes from the host save area.
    pub(crate) fn load_save_area(&mut self, h: &mut P, pa: u64) {
        read(h, pa + SAVE as u64, &mut self.0[SAVE..]);
    }

    /// VMSAVE: what it is about goes to memory.
    pub(crate) fn store_loaded(&self, h: &mut P, pa: u64) {
        self.store_ranges(h, pa, LOADED);
    }
}

/// The most VMCBs that a processor holds beside the present one.
const HELD: usize = 3;

/// The VMCBs that a processor holds, by physical address: the present one, and those before it, the latest first.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Held {
    at: Option<u64>,
    others: Vec<(u64, Vmcb)>,
}

impl Held {
    /// Where the present one is.
    pub(crate) fn present(&self) -> Option<u64> {
        self.at
    }

    /// One that was present before.
    pub(crate) fn other(&self, pa: u64) -> Option<&Vmcb> {
        self.others.iter().find(|(at, _)| *at == pa).map(|(_, v)| v)
    }

    /// The VMCB at this address becomes the present one. Returns whether it was held.
    #[inline]
    pub(crate) fn turn_to(&mut self, present: &mut Vmcb, pa: u64) -> bool {
        self.at == Some(pa) || self.switch(present, pa)
    }

    fn switch(&mut self, present: &mut Vmcb, pa: u64) -> bool {
        let found = self.others.iter().position(|(at, _)| *at == pa);
        let (_, next) = match found {
            Some(i) => self.others.remove(i),
            None if self.others.len() == HELD => self.others.remove(HELD - 1),
            None => (pa, Vmcb::default()),
        };
        let before = std::mem::replace(present, next);
        if let Some(at) = self.at.replace(pa) {
            self.others.insert(0, (at, before));
        }
        found.is_some()
    }
}
