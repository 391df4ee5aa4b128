//! The fields of a VMCS (SDM vol. 3D, appendix "Field Encoding in VMCS").
//!
//! A field's width and type are bits of its encoding, so they are computed. All fields stand in one array; a field's place there, its
//! [slot](Field::slot), is known when the program is compiled.

use std::fmt;

/// A field, by its encoding for access to all of it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Field(pub u16);

/// How wide a field is: bits 14 to 13 of its encoding.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Width {
    /// 16 bits.
    Bits16,
    /// 64 bits.
    Bits64,
    /// 32 bits.
    Bits32,
    /// As wide as addresses are.
    Natural,
}

/// What a field is for: bits 11 to 10 of its encoding.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Type {
    /// Controls.
    Control,
    /// Information about VM exits: read-only.
    Exit,
    /// Guest state.
    Guest,
    /// Host state.
    Host,
}

/// By width and type: the first slot, and how many indices there are.
const GROUPS: [(usize, usize); 16] = {
    const SIZES: [usize; 16] = [8, 1, 12, 7, 40, 2, 16, 8, 20, 8, 24, 1, 8, 8, 24, 16];
    let mut groups = [(0, 0); 16];
    let (mut i, mut first) = (0, 0);
    while i < 16 {
        groups[i] = (first, SIZES[i]);
        first += SIZES[i];
        i += 1;
    }
    groups
};

/// How many slots there are.
pub const SLOTS: usize = GROUPS[15].0 + GROUPS[15].1;

impl Field {
    const fn group(self) -> usize {
        (self.0 as usize >> 13 & 3) << 2 | self.0 as usize >> 10 & 3
    }

    /// Bits 9 to 1 of the encoding.
    pub const fn index(self) -> usize {
        self.0 as usize >> 1 & 0x1ff
    }

    /// Its width.
    pub const fn width(self) -> Width {
        match self.group() >> 2 {
            0 => Width::Bits16,
            1 => Width::Bits64,
            2 => Width::Bits32,
            _ => Width::Natural,
        }
    }

    /// Its type.
    pub const fn kind(self) -> Type {
        match self.group() & 3 {
            0 => Type::Control,
            1 => Type::Exit,
            2 => Type::Guest,
            _ => Type::Host,
        }
    }

    /// Where it stands among all fields.
    #[inline(always)]
    pub const fn slot(self) -> usize {
        let (first, size) = GROUPS[self.group()];
        assert!(self.index() < size, "no such field");
        first + self.index()
    }

    /// The field of an encoding that VMREAD or VMWRITE names, and whether its high half alone is meant; `None` if there is none.
    pub fn of_encoding(encoding: u64) -> Option<(Field, bool)> {
        // Bits 31 to 15 and 12 are reserved.
        if encoding & !0x6fff != 0 {
            return None;
        }
        let is_high = encoding & 1 != 0;
        let field = Field(encoding as u16 & !1);
        let (first, size) = GROUPS[field.group()];
        let exists = field.index() < size && NAMES[first + field.index()].is_some();
        (exists && (!is_high || field.width() == Width::Bits64)).then_some((field, is_high))
    }

    /// Its name.
    pub fn name(self) -> &'static str {
        let (first, size) = GROUPS[self.group()];
        if self.index() < size { NAMES[first + self.index()].unwrap_or("reserved") } else { "reserved" }
    }

    /// All fields that there are, by slot.
    pub fn all() -> impl Iterator<Item = Field> {
        ALL.iter().copied()
    }

    /// The highest index of any field: IA32_VMX_VMCS_ENUM.
    pub fn highest_index() -> usize {
        Field::all().map(Field::index).max().unwrap_or(0)
    }

    /// A value cut to the field's width.
    #[inline]
    pub const fn cut(self, value: u64) -> u64 {
        match self.width() {
            Width::Bits16 => value & 0xffff,
            Width::Bits32 => value & 0xffff_ffff,
            _ => value,
        }
    }
}

impl fmt::Debug for Field {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str(self.name())
    }
}

macro_rules! fields {
    ($($name:ident = $encoding:literal,)*) => {
        $(#[allow(missing_docs, reason = "the manual's names")] pub const $name: Field = Field($encoding);)*

        const ALL: &[Field] = &[$($name,)*];

        const NAMES: [Option<&str>; SLOTS] = {
            let mut names = [None; SLOTS];
            $(names[$name.slot()] = Some(stringify!($name));)*
            names
        };
    };
}

fields! {
    // 16-bit control fields
    VPID = 0x0000,
    POSTED_INTERRUPT_NOTIFICATION_VECTOR = 0x0002,
    EPTP_INDEX = 0x0004,
    LAST_PID_POINTER_INDEX = 0x0008,
    // 16-bit guest-state fields
    GUEST_ES_SELECTOR = 0x0800,
    GUEST_CS_SELECTOR = 0x0802,
    GUEST_SS_SELECTOR = 0x0804,
    GUEST_DS_SELECTOR = 0x0806,
    GUEST_FS_SELECTOR = 0x0808,
    GUEST_GS_SELECTOR = 0x080a,
    GUEST_LDTR_SELECTOR = 0x080c,
    GUEST_TR_SELECTOR = 0x080e,
    GUEST_INTERRUPT_STATUS = 0x0810,
    PML_INDEX = 0x0812,
    // 16-bit host-state fields
    HOST_ES_SELECTOR = 0x0c00,
    HOST_CS_SELECTOR = 0x0c02,
    HOST_SS_SELECTOR = 0x0c04,
    HOST_DS_SELECTOR = 0x0c06,
    HOST_FS_SELECTOR = 0x0c08,
    HOST_GS_SELECTOR = 0x0c0a,
    HOST_TR_SELECTOR = 0x0c0c,
    // 64-bit control fields
    IO_BITMAP_A = 0x2000,
    IO_BITMAP_B = 0x2002,
    MSR_BITMAPS = 0x2004,
    EXIT_MSR_STORE_ADDRESS = 0x2006,
    EXIT_MSR_LOAD_ADDRESS = 0x2008,
    ENTRY_MSR_LOAD_ADDRESS = 0x200a,
    EXECUTIVE_VMCS_POINTER = 0x200c,
    PML_ADDRESS = 0x200e,
    TSC_OFFSET = 0x2010,
    VIRTUAL_APIC_ADDRESS = 0x2012,
    APIC_ACCESS_ADDRESS = 0x2014,
    POSTED_INTERRUPT_DESCRIPTOR_ADDRESS = 0x2016,
    VM_FUNCTION_CONTROLS = 0x2018,
    EPT_POINTER = 0x201a,
    EOI_EXIT_BITMAP_0 = 0x201c,
    EOI_EXIT_BITMAP_1 = 0x201e,
    EOI_EXIT_BITMAP_2 = 0x2020,
    EOI_EXIT_BITMAP_3 = 0x2022,
    EPTP_LIST_ADDRESS = 0x2024,
    VMREAD_BITMAP = 0x2026,
    VMWRITE_BITMAP = 0x2028,
    VIRTUALIZATION_EXCEPTION_INFORMATION_ADDRESS = 0x202a,
    XSS_EXITING_BITMAP = 0x202c,
    SUB_PAGE_PERMISSION_TABLE_POINTER = 0x2030,
    TSC_MULTIPLIER = 0x2032,
    TERTIARY_CONTROLS = 0x2034,
    PID_POINTER_TABLE_ADDRESS = 0x2042,
    SECONDARY_EXIT_CONTROLS = 0x2044,
    SPEC_CTRL_MASK = 0x204a,
    SPEC_CTRL_SHADOW = 0x204c,
    // 64-bit read-only data fields
    GUEST_PHYSICAL_ADDRESS = 0x2400,
    MSR_DATA = 0x2402,
    // 64-bit guest-state fields
    VMCS_LINK_POINTER = 0x2800,
    GUEST_DEBUGCTL = 0x2802,
    GUEST_PAT = 0x2804,
    GUEST_EFER = 0x2806,
    GUEST_PERF_GLOBAL_CTRL = 0x2808,
    GUEST_PDPTE0 = 0x280a,
    GUEST_PDPTE1 = 0x280c,
    GUEST_PDPTE2 = 0x280e,
    GUEST_PDPTE3 = 0x2810,
    GUEST_LBR_CTL = 0x2816,
    GUEST_PKRS = 0x2818,
    // 64-bit host-state fields
    HOST_PAT = 0x2c00,
    HOST_EFER = 0x2c02,
    HOST_PERF_GLOBAL_CTRL = 0x2c04,
    HOST_PKRS = 0x2c06,
    // 32-bit control fields
    PIN_CONTROLS = 0x4000,
    PRIMARY_CONTROLS = 0x4002,
    EXCEPTION_BITMAP = 0x4004,
    PAGE_FAULT_ERROR_CODE_MASK = 0x4006,
    PAGE_FAULT_ERROR_CODE_MATCH = 0x4008,
    CR3_TARGET_COUNT = 0x400a,
    EXIT_CONTROLS = 0x400c,
    EXIT_MSR_STORE_COUNT = 0x400e,
    EXIT_MSR_LOAD_COUNT = 0x4010,
    ENTRY_CONTROLS = 0x4012,
    ENTRY_MSR_LOAD_COUNT = 0x4014,
    ENTRY_INTERRUPTION_INFORMATION = 0x4016,
    ENTRY_EXCEPTION_ERROR_CODE = 0x4018,
    ENTRY_INSTRUCTION_LENGTH = 0x401a,
    TPR_THRESHOLD = 0x401c,
    SECONDARY_CONTROLS = 0x401e,
    PLE_GAP = 0x4020,
    PLE_WINDOW = 0x4022,
    INSTRUCTION_TIMEOUT = 0x4024,
    // 32-bit read-only data fields
    INSTRUCTION_ERROR = 0x4400,
    EXIT_REASON = 0x4402,
    EXIT_INTERRUPTION_INFORMATION = 0x4404,
    EXIT_INTERRUPTION_ERROR_CODE = 0x4406,
    IDT_VECTORING_INFORMATION = 0x4408,
    IDT_VECTORING_ERROR_CODE = 0x440a,
    EXIT_INSTRUCTION_LENGTH = 0x440c,
    EXIT_INSTRUCTION_INFORMATION = 0x440e,
    // 32-bit guest-state fields
    GUEST_ES_LIMIT = 0x4800,
    GUEST_CS_LIMIT = 0x4802,
    GUEST_SS_LIMIT = 0x4804,
    GUEST_DS_LIMIT = 0x4806,
    GUEST_FS_LIMIT = 0x4808,
    GUEST_GS_LIMIT = 0x480a,
    GUEST_LDTR_LIMIT = 0x480c,
    GUEST_TR_LIMIT = 0x480e,
    GUEST_GDTR_LIMIT = 0x4810,
    GUEST_IDTR_LIMIT = 0x4812,
    GUEST_ES_ACCESS_RIGHTS = 0x4814,
    GUEST_CS_ACCESS_RIGHTS = 0x4816,
    GUEST_SS_ACCESS_RIGHTS = 0x4818,
    GUEST_DS_ACCESS_RIGHTS = 0x481a,
    GUEST_FS_ACCESS_RIGHTS = 0x481c,
    GUEST_GS_ACCESS_RIGHTS = 0x481e,
    GUEST_LDTR_ACCESS_RIGHTS = 0x4820,
    GUEST_TR_ACCESS_RIGHTS = 0x4822,
    GUEST_INTERRUPTIBILITY_STATE = 0x4824,
    GUEST_ACTIVITY_STATE = 0x4826,
    GUEST_SMBASE = 0x4828,
    GUEST_SYSENTER_CS = 0x482a,
    PREEMPTION_TIMER_VALUE = 0x482e,
    // 32-bit host-state field
    HOST_SYSENTER_CS = 0x4c00,
    // Natural-width control fields
    CR0_MASK = 0x6000,
    CR4_MASK = 0x6002,
    CR0_READ_SHADOW = 0x6004,
    CR4_READ_SHADOW = 0x6006,
    CR3_TARGET_0 = 0x6008,
    CR3_TARGET_1 = 0x600a,
    CR3_TARGET_2 = 0x600c,
    CR3_TARGET_3 = 0x600e,
    // Natural-width read-only data fields
    EXIT_QUALIFICATION = 0x6400,
    IO_RCX = 0x6402,
    IO_RSI = 0x6404,
    IO_RDI = 0x6406,
    IO_RIP = 0x6408,
    GUEST_LINEAR_ADDRESS = 0x640a,
    // Natural-width guest-state fields
    GUEST_CR0 = 0x6800,
    GUEST_CR3 = 0x6802,
    GUEST_CR4 = 0x6804,
    GUEST_ES_BASE = 0x6806,
    GUEST_CS_BASE = 0x6808,
    GUEST_SS_BASE = 0x680a,
    GUEST_DS_BASE = 0x680c,
    GUEST_FS_BASE = 0x680e,
    GUEST_GS_BASE = 0x6810,
    GUEST_LDTR_BASE = 0x6812,
    GUEST_TR_BASE = 0x6814,
    GUEST_GDTR_BASE = 0x6816,
    GUEST_IDTR_BASE = 0x6818,
    GUEST_DR7 = 0x681a,
    GUEST_RSP = 0x681c,
    GUEST_RIP = 0x681e,
    GUEST_RFLAGS = 0x6820,
    GUEST_PENDING_DEBUG_EXCEPTIONS = 0x6822,
    GUEST_SYSENTER_ESP = 0x6824,
    GUEST_SYSENTER_EIP = 0x6826,
    GUEST_S_CET = 0x6828,
    GUEST_SSP = 0x682a,
    GUEST_INTERRUPT_SSP_TABLE_ADDR = 0x682c,
    // Natural-width host-state fields
    HOST_CR0 = 0x6c00,
    HOST_CR3 = 0x6c02,
    HOST_CR4 = 0x6c04,
    HOST_FS_BASE = 0x6c06,
    HOST_GS_BASE = 0x6c08,
    HOST_TR_BASE = 0x6c0a,
    HOST_GDTR_BASE = 0x6c0c,
    HOST_IDTR_BASE = 0x6c0e,
    HOST_SYSENTER_ESP = 0x6c10,
    HOST_SYSENTER_EIP = 0x6c12,
    HOST_RSP = 0x6c14,
    HOST_RIP = 0x6c16,
    HOST_S_CET = 0x6c18,
    HOST_SSP = 0x6c1a,
    HOST_INTERRUPT_SSP_TABLE_ADDR = 0x6c1c,
}

/// LDTR among a guest's segments; ES to GS come before it, by their numbers.
pub const LDTR: usize = 6;
/// TR likewise.
pub const TR: usize = 7;

/// The four fields of a guest's segment: selector, base, limit, access rights.
pub const fn guest_segment(i: usize) -> [Field; 4] {
    let i = 2 * i as u16;
    [
        Field(GUEST_ES_SELECTOR.0 + i),
        Field(GUEST_ES_BASE.0 + i),
        Field(GUEST_ES_LIMIT.0 + i),
        Field(GUEST_ES_ACCESS_RIGHTS.0 + i),
    ]
}

/// Segments, RFLAGS and DR7 of a guest in flat 64-bit mode, as a hypervisor of one guest has them: what of its state does not depend on where things
/// are ("Guest Register State").
pub const FLAT_64_BIT_GUEST: [(Field, u64); 15] = [
    (GUEST_ES_LIMIT, 0xffff_ffff),
    (GUEST_CS_LIMIT, 0xffff_ffff),
    (GUEST_SS_LIMIT, 0xffff_ffff),
    (GUEST_DS_LIMIT, 0xffff_ffff),
    (GUEST_TR_LIMIT, 0x67),
    (GUEST_ES_ACCESS_RIGHTS, 0xc093),
    (GUEST_CS_ACCESS_RIGHTS, 0xa09b),
    (GUEST_SS_ACCESS_RIGHTS, 0xc093),
    (GUEST_DS_ACCESS_RIGHTS, 0xc093),
    (GUEST_FS_ACCESS_RIGHTS, 0x1_0000),
    (GUEST_GS_ACCESS_RIGHTS, 0x1_0000),
    (GUEST_LDTR_ACCESS_RIGHTS, 0x1_0000),
    (GUEST_TR_ACCESS_RIGHTS, 0x8b),
    (GUEST_RFLAGS, 2),
    (GUEST_DR7, 0x400),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn encodings_are_unique_and_say_what_they_are() {
        let mut slots: Vec<_> = Field::all().map(Field::slot).collect();
        let count = slots.len();
        slots.sort_unstable();
        slots.dedup();
        assert_eq!(slots.len(), count);
        assert!(Field::all().all(|f| f.0 & 0x9001 == 0));
        assert_eq!((GUEST_RIP.width(), GUEST_RIP.kind(), GUEST_RIP.name()), (Width::Natural, Type::Guest, "GUEST_RIP"));
        assert_eq!((EXIT_REASON.width(), EXIT_REASON.kind()), (Width::Bits32, Type::Exit));
        assert_eq!(guest_segment(TR), [GUEST_TR_SELECTOR, GUEST_TR_BASE, GUEST_TR_LIMIT, GUEST_TR_ACCESS_RIGHTS]);
    }

    #[test]
    fn high_halves_are_of_64_bit_fields_alone() {
        assert_eq!(Field::of_encoding(0x2011), Some((TSC_OFFSET, true)));
        assert_eq!(Field::of_encoding(0x2010), Some((TSC_OFFSET, false)));
        for none in [0x4001, 0x6001, 0x1, 0x7000, 0x8000, 0x1_2010, 0xa, 0x203e, 0x6c20] {
            assert_eq!(Field::of_encoding(none), None, "{none:x}");
        }
    }
}
