//! Where things are in the machine.

/// The global descriptor table: what [`DESCRIPTORS`] says.
pub const GDT: u64 = 0x1000;
/// Its limit: there is room for more.
pub const GDT_LIMIT: u16 = 0xff;
/// The interrupt descriptor table, with gates for all vectors.
pub const IDT: u64 = 0x2000;
/// The 64-bit task-state segment.
pub const TSS: u64 = 0x3000;
/// Page tables: identity for 4 GiB, the first 2 MiB of it by 4-KiB pages.
pub const PML4: u64 = 0x4000;
/// The page-directory-pointer table.
pub const PDPT: u64 = 0x5000;
/// Four page directories.
pub const PD: u64 = 0x6000;
/// The page table of the first 2 MiB.
pub const PT: u64 = 0xa000;
/// Where handlers leave what they find: see [`Found`](crate::Found).
pub const FOUND: u64 = 0xb000;
/// Memory for whatever a guest has to say.
pub const NOTES: u64 = 0xb800;
/// The top of stack 1 of the interrupt stack table.
pub const STACK_IST: u64 = 0xd000;
/// The top of the stack of privilege level 0, for whatever comes from another.
pub const STACK_0: u64 = 0xe000;
/// The top of the stack that code begins with.
pub const STACK: u64 = 0xf000;
/// Code that the machine begins with.
pub const CODE: u64 = 0x1_0000;
/// Handlers, 32 bytes each.
pub const HANDLERS: u64 = 0x1_8000;
/// Where SYSCALL leads.
pub const ENTRY: u64 = 0x1_b000;
/// Code for user mode.
pub const USER: u64 = 0x2_0000;
/// The top of its stack.
pub const USER_STACK: u64 = USER + 0x800;

/// The selector of 64-bit code.
pub const KERNEL_CS: u64 = 0x08;
/// Of data.
pub const KERNEL_SS: u64 = 0x10;
/// Of user data.
pub const USER_SS: u64 = 0x1b;
/// Of 64-bit user code.
pub const USER_CS: u64 = 0x23;
/// Of the task-state segment, which TR does not hold at first.
pub const TSS_SELECTOR: u64 = 0x28;
/// Of 32-bit code.
pub const COMPATIBILITY_CS: u64 = 0x38;

/// Selectors and descriptors.
pub const DESCRIPTORS: [(u64, u64); 6] = [
    (KERNEL_CS, 0x00af_9b00_0000_ffff),
    (KERNEL_SS, 0x00cf_9300_0000_ffff),
    (USER_SS & !3, 0x00cf_f300_0000_ffff),
    (USER_CS & !3, 0x00af_fb00_0000_ffff),
    (TSS_SELECTOR, 0x0000_8900_0000_0067 | TSS << 16),
    (COMPATIBILITY_CS, 0x00cf_9b00_0000_ffff),
];

/// A vector that user mode may call.
pub const SYSTEM_CALL: u64 = 0x80;

/// IA32_STAR for these selectors.
pub const STAR: u64 = KERNEL_SS << 48 | KERNEL_CS << 32;

/// Low bits of entries of page tables.
pub mod page {
    /// Not mapped.
    pub const ABSENT: u64 = 0;
    /// For supervisor mode.
    pub const SUPERVISOR: u64 = 3;
    /// For user mode, and for supervisor mode.
    pub const USER: u64 = 7;
    /// For user mode, read-only.
    pub const USER_READ_ONLY: u64 = 5;
}

/// Numbers of model-specific registers.
pub mod msr {
    /// IA32_STAR.
    pub const STAR: u32 = 0xc000_0081;
    /// IA32_LSTAR.
    pub const LSTAR: u32 = 0xc000_0082;
    /// CSTAR.
    pub const CSTAR: u32 = 0xc000_0083;
    /// IA32_FMASK.
    pub const FMASK: u32 = 0xc000_0084;
}
