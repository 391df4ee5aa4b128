//! Paging (SDM vol. 3A, chapter "Paging"; APM vol. 2, chapter 5): from a linear address to a physical one, in all modes.
//!
//! ```text
//! 56      48 47      39 38      30 29      21 20      12 11         0
//! [ PML5 ]   [ PML4 ]   [ PDPT ]   [  PD  ]   [  PT  ]   [ offset ]
//! ```
//!
//! With 32-bit paging a table has 1024 entries of 4 bytes: bits 31 to 22 and 21 to 12.

use serde::{Deserialize, Serialize};

use crate::control::{cr0, cr3, cr4, efer};

/// How linear addresses are translated ("Paging Modes and Control Bits").
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Mode {
    /// CR0.PG = 0: not at all.
    Off,
    /// 32-bit paging.
    Bits32,
    /// PAE paging.
    Pae,
    /// 4-level paging.
    Level4,
    /// 5-level paging.
    Level5,
}

/// What translation depends on beside the address and the tables.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Controls {
    /// CR0.
    pub cr0: u64,
    /// CR3.
    pub cr3: u64,
    /// CR4.
    pub cr4: u64,
    /// IA32_EFER.
    pub efer: u64,
    /// PKRU.
    pub pkru: u32,
    /// IA32_PKRS.
    pub pkrs: u32,
    /// The PDPTE registers of PAE paging, as MOV to CR3 loaded them; none where every walk reads the table (APM vol. 2, "Nested Paging").
    pub pdptes: Option<[u64; 4]>,
    /// MAXPHYADDR: bits of a physical address.
    pub physical_bits: u32,
    /// 1-GByte pages are there (CPUID.80000001H:EDX.Page1GB).
    pub has_1g: bool,
    /// 36-bit page-size extension: 4-MByte pages beyond 4 GBytes.
    pub has_pse36: bool,
    /// AMD: bit 8 of PML5Es and PML4Es is reserved.
    pub reserves_bit_8: bool,
    /// They are AMD's nested page tables, which mark shadow-stack pages in a way of their own.
    pub is_nested: bool,
}

/// What is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A load.
    Read,
    /// A store.
    Write,
    /// An instruction fetch.
    Fetch,
}

/// An access to linear memory ("Access Rights").
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Access {
    /// What is done.
    pub kind: Kind,
    /// It is a user-mode access: CPL is 3, and it is none that the processor makes for itself.
    pub user: bool,
    /// It is one that the processor makes for itself: to the GDT, the IDT, a TSS.
    pub implicit: bool,
    /// EFLAGS.AC: an explicit supervisor-mode access may go to user-mode addresses in spite of SMAP.
    pub ac: bool,
    /// It is a shadow-stack access ("Shadow Stacks"), which goes to shadow-stack pages only.
    pub shadow_stack: bool,
}

/// Bits of a page fault's error code ("Page-Fault Exceptions").
pub mod error {
    #![allow(missing_docs, reason = "the manual's names")]
    pub const P: u32 = 1;
    pub const WR: u32 = 1 << 1;
    pub const US: u32 = 1 << 2;
    pub const RSVD: u32 = 1 << 3;
    pub const ID: u32 = 1 << 4;
    pub const PK: u32 = 1 << 5;
    pub const SS: u32 = 1 << 6;
}

/// Bits of paging-structure entries.
mod entry {
    pub(super) const P: u64 = 1;
    pub(super) const RW: u64 = 1 << 1;
    pub(super) const US: u64 = 1 << 2;
    pub(super) const A: u64 = 1 << 5;
    pub(super) const D: u64 = 1 << 6;
    pub(super) const PS: u64 = 1 << 7;
    pub(super) const G: u64 = 1 << 8;
    pub(super) const XD: u64 = 1 << 63;
}

/// Physical memory, where the paging structures are. With a second stage of translation it is guest-physical, and an access may
/// end the instruction.
pub trait Tables {
    /// What ends the instruction.
    type Stop;
    /// Reads an entry of `size` (4 or 8) bytes.
    fn read(&mut self, address: u64, size: u8) -> Result<u64, Self::Stop>;
    /// Writes an entry back whose flags have been set.
    fn write(&mut self, address: u64, size: u8, value: u64) -> Result<(), Self::Stop>;
}

/// A translation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Translated {
    /// The physical address.
    pub physical: u64,
    /// log2 of the page's size in bytes.
    pub size_log2: u8,
    /// Loads of the same kind are allowed.
    pub read: bool,
    /// Stores of the same kind are allowed, and the dirty flag is set.
    pub write: bool,
    /// The page is global.
    pub global: bool,
    /// What all entries together say of the page.
    pub rights: Rights,
}

/// What the paging structures say of a page, whoever asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rights {
    /// A user-mode address.
    pub user: bool,
    /// It may be written.
    pub writable: bool,
    /// Instructions may be fetched from it.
    pub executable: bool,
}

impl Rights {
    /// Where there is no paging.
    pub const ALL: Rights = Rights { user: true, writable: true, executable: true };
}

/// Why there is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fail<S> {
    /// #PF with this error code.
    PageFault(u32),
    /// The paging structures could not be reached.
    Stop(S),
}

impl<S> From<S> for Fail<S> {
    fn from(stop: S) -> Self {
        Fail::Stop(stop)
    }
}

impl Controls {
    /// The paging mode.
    pub fn mode(&self) -> Mode {
        if self.cr0 & cr0::PG == 0 {
            Mode::Off
        } else if self.cr4 & cr4::PAE == 0 {
            Mode::Bits32
        } else if self.efer & efer::LMA == 0 {
            Mode::Pae
        } else if self.cr4 & cr4::LA57 == 0 {
            Mode::Level4
        } else {
            Mode::Level5
        }
    }

    /// Whether a linear address is canonical, with as many bits as the mode translates.
    pub fn is_canonical(&self, linear: u64) -> bool {
        let bits = if self.cr4 & cr4::LA57 != 0 { 57 } else { 48 };
        (linear as i64) << (64 - bits) >> (64 - bits) == linear as i64
    }

    /// The linear address of a load or store, without the metadata in its upper bits ("Linear-Address Masking"): bits 62 to 57 become as
    /// bit 56 is, or bits 62 to 48 as bit 47. Bit 63 stays, and tells user-mode addresses from supervisor-mode ones.
    pub fn without_metadata(&self, linear: u64) -> u64 {
        let is_supervisor = linear >> 63 != 0;
        let width = match (is_supervisor, self.cr4 & cr4::LAM_SUP != 0, self.cr4 & cr4::LA57 != 0) {
            (true, true, true) => 57,
            (true, true, false) => 48,
            (false, ..) if self.cr3 & cr3::LAM_U57 != 0 => 57,
            (false, ..) if self.cr3 & cr3::LAM_U48 != 0 => 48,
            _ => return linear,
        };
        let extended = (linear << (64 - width)) as i64 >> (64 - width);
        extended as u64 & !(1 << 63) | linear & 1 << 63
    }

    fn nx(&self) -> bool {
        self.efer & efer::NXE != 0
    }

    /// Bits that a present PDPTE of PAE paging must have clear: else MOV to CR3 gives #GP ("PDPTE Registers").
    pub fn pdpte_reserved(&self) -> u64 {
        0x1e6 | self.beyond_physical()
    }

    /// Bits 63 to MAXPHYADDR.
    fn beyond_physical(&self) -> u64 {
        u64::MAX << self.physical_bits
    }

    /// Reserved bits of an entry of 8 bytes, whatever it is. "Paging-Structure Entries" by mode.
    fn reserved(&self) -> u64 {
        let mut reserved = self.beyond_physical() & ((1 << 52) - 1);
        if self.mode() == Mode::Pae {
            reserved |= 0x7ff << 52;
        }
        if !self.nx() {
            reserved |= entry::XD;
        }
        reserved
    }

    /// Whether an entry at a level maps a page.
    fn maps_page(&self, level: u32, e: u64) -> bool {
        match level {
            1 => true,
            2 => e & entry::PS != 0,
            3 => e & entry::PS != 0 && self.has_1g,
            _ => false,
        }
    }

    /// PS where it is reserved: above the levels that can map pages. So may bit 8 be there.
    fn has_reserved_flag(&self, level: u32, e: u64) -> bool {
        e & entry::PS != 0 && (level > 3 || level == 3 && !self.has_1g)
            || self.reserves_bit_8 && level > 3 && e & entry::G != 0
    }

    /// A page fault's error code: P and RSVD are the cause's.
    pub fn error_code(&self, access: Access, cause: u32) -> u32 {
        let mut code = cause;
        if access.kind == Kind::Write {
            code |= error::WR;
        }
        if access.user {
            code |= error::US;
        }
        let tells_fetches = self.cr4 & cr4::SMEP != 0 || self.cr4 & cr4::PAE != 0 && self.nx();
        if access.kind == Kind::Fetch && tells_fetches {
            code |= error::ID;
        }
        if access.shadow_stack {
            code |= error::SS;
        }
        code
    }

    /// Translates a canonical linear address. Accessed flags are set on the way, the dirty flag for a store that is allowed.
    pub fn translate<T: Tables>(&self, t: &mut T, linear: u64, access: Access) -> Result<Translated, Fail<T::Stop>> {
        match self.mode() {
            Mode::Off => {
                let physical = linear & 0xffff_ffff;
                Ok(Translated { physical, size_log2: 32, read: true, write: true, global: false, rights: Rights::ALL })
            }
            Mode::Bits32 => self.translate_32(t, linear as u32, access),
            Mode::Pae => {
                let i = linear >> 30 & 3;
                let pdpte = match self.pdptes {
                    Some(registers) => registers[i as usize],
                    None => t.read((self.cr3 & 0xffff_ffe0) + 8 * i, 8)?,
                };
                if self.pdptes.is_none() && pdpte & entry::P != 0 && pdpte & self.pdpte_reserved() != 0 {
                    return Err(Fail::PageFault(self.error_code(access, error::P | error::RSVD)));
                }
                if pdpte & entry::P == 0 {
                    return Err(Fail::PageFault(self.error_code(access, 0)));
                }
                // A PDPTE has neither rights nor an accessed flag.
                self.walk(t, linear & 0xffff_ffff, access, pdpte, 2)
            }
            Mode::Level4 => self.walk(t, linear, access, self.cr3, 4),
            Mode::Level5 => self.walk(t, linear, access, self.cr3, 5),
        }
    }

    /// Walks tables of 8-byte entries, from one of this level that `from` leads to.
    fn walk<T: Tables>(
        &self,
        t: &mut T,
        linear: u64,
        access: Access,
        from: u64,
        top: u32,
    ) -> Result<Translated, Fail<T::Stop>> {
        const ADDRESS: u64 = ((1 << 52) - 1) & !0xfff;
        let fault = |cause| Err(Fail::PageFault(self.error_code(access, cause)));
        let mut table = from & ADDRESS;
        // U/S and R/W of all levels, XD of any.
        let (mut rights, mut above, mut xd) = (entry::US | entry::RW, entry::RW, false);
        let reserved = self.reserved();
        for level in (1..=top).rev() {
            let shift = 12 + 9 * (level - 1);
            let at = table + (linear >> shift & 0x1ff) * 8;
            let e = t.read(at, 8)?;
            if e & entry::P == 0 {
                return fault(0);
            }
            let is_page = self.maps_page(level, e);
            let offset = (1u64 << shift) - 1;
            // Below the address of a large page stand PAT and reserved bits.
            let below = if is_page { offset & !0x1fff } else { 0 };
            if e & (reserved | below) != 0 || self.has_reserved_flag(level, e) {
                return fault(error::P | error::RSVD);
            }
            rights &= e;
            xd |= e & entry::XD != 0;
            if !is_page {
                if e & entry::A == 0 {
                    t.write(at, 8, e | entry::A)?;
                }
                table = e & ADDRESS;
                above = rights;
                continue;
            }
            let page = e & ADDRESS & !offset;
            // PAT stands where a large page's address has its lowest bit.
            let key = (e >> 59 & 15) as u32;
            return self.finish(
                t,
                access,
                Leaf { at, size: 8, e, rights, above, xd, key, physical: page | linear & offset, shift },
            );
        }
        unreachable!("level 1 maps a page")
    }

    /// 32-bit paging.
    fn translate_32<T: Tables>(&self, t: &mut T, linear: u32, access: Access) -> Result<Translated, Fail<T::Stop>> {
        let fault = |cause| Err(Fail::PageFault(self.error_code(access, cause)));
        let linear = u64::from(linear);
        let at = (self.cr3 & 0xffff_f000) + (linear >> 22) * 4;
        let pde = t.read(at, 4)?;
        if pde & entry::P == 0 {
            return fault(0);
        }
        if pde & entry::PS != 0 && self.cr4 & cr4::PSE != 0 {
            // Bits 20 to 13 are address bits 39 to 32, as far as there are such (PSE-36).
            let high = pde >> 13 & 0xff;
            let bits = if self.has_pse36 { self.physical_bits.min(40) - 32 } else { 0 };
            if pde & 1 << 21 != 0 || high >> bits != 0 {
                return fault(error::P | error::RSVD);
            }
            let physical = high << 32 | pde & 0xffc0_0000 | linear & 0x3f_ffff;
            return self.finish(
                t,
                access,
                Leaf { at, size: 4, e: pde, rights: pde, above: entry::RW, xd: false, key: 0, physical, shift: 22 },
            );
        }
        if pde & entry::A == 0 {
            t.write(at, 4, pde | entry::A)?;
        }
        let at = (pde & 0xffff_f000) + (linear >> 12 & 0x3ff) * 4;
        let pte = t.read(at, 4)?;
        if pte & entry::P == 0 {
            return fault(0);
        }
        let physical = pte & 0xffff_f000 | linear & 0xfff;
        let rights = pde & pte;
        self.finish(t, access, Leaf { at, size: 4, e: pte, rights, above: pde, xd: false, key: 0, physical, shift: 12 })
    }

    /// The entry that maps the page: rights, then its flags.
    fn finish<T: Tables>(&self, t: &mut T, access: Access, leaf: Leaf) -> Result<Translated, Fail<T::Stop>> {
        let allows = |kind| self.allows(Access { kind, ..access }, &leaf);
        if let Err(pk) = allows(access.kind) {
            return Err(Fail::PageFault(self.error_code(access, error::P | if pk { error::PK } else { 0 })));
        }
        let mut e = leaf.e | entry::A;
        if access.kind == Kind::Write {
            e |= entry::D;
        }
        if e != leaf.e {
            t.write(leaf.at, leaf.size, e)?;
        }
        Ok(Translated {
            physical: leaf.physical,
            size_log2: leaf.shift as u8,
            read: allows(Kind::Read).is_ok(),
            write: e & entry::D != 0 && allows(Kind::Write).is_ok(),
            global: e & entry::G != 0 && self.cr4 & cr4::PGE != 0,
            rights: Rights {
                user: leaf.rights & entry::US != 0,
                writable: leaf.rights & entry::RW != 0,
                executable: !leaf.xd,
            },
        })
    }

    /// "Determination of Access Rights" and "Protection Keys". An error says whether a protection key refuses.
    fn allows(&self, access: Access, leaf: &Leaf) -> Result<(), bool> {
        let user_address = leaf.rights & entry::US != 0;
        let writable = leaf.rights & entry::RW != 0;
        let wp = self.cr0 & cr0::WP != 0;
        let fits = if access.shadow_stack && self.is_nested {
            leaf.is_nested_shadow_stack()
        } else if access.shadow_stack {
            leaf.is_shadow_stack() && user_address == access.user
        } else if access.user {
            user_address
                && match access.kind {
                    Kind::Read => true,
                    Kind::Write => writable,
                    Kind::Fetch => !leaf.xd,
                }
        } else {
            let smap = user_address && self.cr4 & cr4::SMAP != 0 && (access.implicit || !access.ac);
            let smep = user_address && self.cr4 & cr4::SMEP != 0;
            match access.kind {
                Kind::Read => !smap,
                Kind::Write => !smap && (writable || !wp),
                Kind::Fetch => !smep && !leaf.xd,
            }
        };
        let key_refuses = access.kind != Kind::Fetch && self.key_refuses(access, leaf.key, user_address);
        if fits && !key_refuses { Ok(()) } else { Err(key_refuses) }
    }

    /// Whether the protection key of a page refuses a load or store.
    fn key_refuses(&self, access: Access, key: u32, user_address: bool) -> bool {
        if !matches!(self.mode(), Mode::Level4 | Mode::Level5) {
            return false;
        }
        let (enable, rights) = if user_address { (cr4::PKE, self.pkru) } else { (cr4::PKS, self.pkrs) };
        if self.cr4 & enable == 0 {
            return false;
        }
        let (access_disable, write_disable) = (rights >> (2 * key) & 1 != 0, rights >> (2 * key + 1) & 1 != 0);
        let write_counts = access.user || self.cr0 & cr0::WP != 0;
        access_disable || access.kind == Kind::Write && write_disable && write_counts
    }
}

/// The entry that maps a page, and what the entries on the way to it say.
struct Leaf {
    at: u64,
    size: u8,
    e: u64,
    /// U/S and R/W of all levels.
    rights: u64,
    /// Likewise, of the levels above this one.
    above: u64,
    xd: bool,
    key: u32,
    physical: u64,
    shift: u32,
}

impl Leaf {
    /// A shadow-stack page: dirty and not writable itself, writable by all entries above.
    fn is_shadow_stack(&self) -> bool {
        self.e & (entry::RW | entry::D) == entry::D && self.above & entry::RW != 0
    }

    /// APM vol. 2, "Supervisor Shadow Stacks": neither the user's nor executable by this entry itself, writable by all entries above.
    fn is_nested_shadow_stack(&self) -> bool {
        self.e & (entry::XD | entry::US) == entry::XD && self.above & entry::RW != 0
    }
}

#[cfg(test)]
mod tests;
