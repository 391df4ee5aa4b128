//! The state save maps in IA-32e mode: Intel's ("SMRAM State Save Map for Intel 64 Architecture") and AMD's ("SMRAM State-Save Area",
//! "AMD64 Architecture SMM State-Save Area").
//!
//! Of Intel's map we do not know where what segment registers cache goes, and the limits of GDT and IDT: here they lie in what is reserved between
//! 7C00H and 7DCFH.

use crate::control::{cr0, cr3, cr4, efer};
use crate::extension::GuestInMap;
use crate::model::Vendor;
use crate::msr::{self, perf};
use crate::processor::{P, ProcessorExt, base_of};
use crate::registers::SSP;
use crate::segment::{Attributes, Segment, Table};

/// What is saved. The general registers come first, by their numbers.
pub(crate) mod item {
    pub(crate) const RIP: usize = 16;
    pub(crate) const RFLAGS: usize = 17;
    pub(crate) const CR0: usize = 18;
    pub(crate) const CR3: usize = 19;
    pub(crate) const CR4: usize = 20;
    pub(crate) const EFER: usize = 21;
    pub(crate) const DR6: usize = 22;
    pub(crate) const DR7: usize = 23;
    pub(crate) const GDT_BASE: usize = 24;
    pub(crate) const GDT_LIMIT: usize = 25;
    pub(crate) const IDT_BASE: usize = 26;
    pub(crate) const IDT_LIMIT: usize = 27;
    pub(crate) const SMBASE: usize = 28;
    /// "SMM Revision Identifier".
    pub(crate) const REVISION: usize = 29;
    /// "Auto HALT Restart".
    pub(crate) const HALT: usize = 30;
    /// "I/O Instruction Restart".
    pub(crate) const IO_RESTART: usize = 31;
    pub(crate) const IO_RIP: usize = 32;
    pub(crate) const IO_RCX: usize = 33;
    pub(crate) const IO_RSI: usize = 34;
    pub(crate) const IO_RDI: usize = 35;
    /// Intel's IO_MISC, AMD's I/O trap.
    pub(crate) const IO_TRAP: usize = 36;
    pub(crate) const SSP: usize = 37;
    /// ES, CS, SS, DS, FS, GS, LDTR, TR: each of the four below.
    pub(crate) const SEGMENTS: usize = 38;
    pub(crate) const SELECTOR: usize = 0;
    pub(crate) const ATTRIBUTES: usize = 1;
    pub(crate) const LIMIT: usize = 2;
    pub(crate) const BASE: usize = 3;
    /// Of AMD's map: what [`GuestInMap`](crate::extension::GuestInMap) says, in its order.
    pub(crate) const GUEST: usize = SEGMENTS + 4 * 8;
    pub(crate) const GUEST_WORDS: usize = 8;
    pub(crate) const COUNT: usize = GUEST + GUEST_WORDS;

    pub(crate) const fn of_segment(segment: usize, part: usize) -> usize {
        SEGMENTS + 4 * segment + part
    }
}

/// LDTR and TR among the segments.
const LDTR: usize = 6;
const TR: usize = 7;

/// A place in a map: its offset from SMBASE, its size in bytes, what it holds, from which bit of that.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Field {
    pub(crate) at: u64,
    pub(crate) size: u8,
    pub(crate) item: usize,
    pub(crate) shift: u32,
}

const fn field(at: u64, size: u8, item: usize) -> Field {
    Field { at: 0x8000 + at, size, item, shift: 0 }
}

/// Intel's map.
fn intel() -> Vec<Field> {
    use item as i;
    let high = |at, item| Field { shift: 32, ..field(at, 4, item) };
    let ldt_base = i::of_segment(LDTR, i::BASE);
    let mut fields = vec![
        field(0x7ff8, 8, i::CR0),
        field(0x7ff0, 8, i::CR3),
        field(0x7fe8, 8, i::RFLAGS),
        field(0x7fe0, 8, i::EFER),
        field(0x7fd8, 8, i::RIP),
        field(0x7fd0, 8, i::DR6),
        field(0x7fc8, 8, i::DR7),
        field(0x7fa4, 4, i::IO_TRAP),
        field(0x7f02, 2, i::HALT),
        field(0x7f00, 2, i::IO_RESTART),
        field(0x7efc, 4, i::REVISION),
        field(0x7ef8, 4, i::SMBASE),
        field(0x7ec8, 8, i::SSP),
        field(0x7e9c, 4, ldt_base),
        field(0x7e94, 4, i::IDT_BASE),
        field(0x7e8c, 4, i::GDT_BASE),
        field(0x7e40, 4, i::CR4),
        field(0x7de8, 8, i::IO_RIP),
        high(0x7dd8, i::IDT_BASE),
        high(0x7dd4, ldt_base),
        high(0x7dd0, i::GDT_BASE),
        // Reserved.
        field(0x7dc8, 4, i::IDT_LIMIT),
        field(0x7dc4, 4, i::GDT_LIMIT),
        field(0x7db0, 8, i::IO_RDI),
        field(0x7da8, 8, i::IO_RSI),
        field(0x7da0, 8, i::IO_RCX),
    ];
    // RDI down to RAX, then R8 to R15.
    fields.extend((0..).zip((0..8).rev().chain(8..16)).map(|(n, r)| field(0x7f94 - 8 * n, 8, r)));
    // TR and LDTR; GS down to ES.
    let selectors = [TR, LDTR, 5, 4, 3, 2, 1, 0];
    fields.extend((0..).zip(selectors).map(|(n, s)| field(0x7fc4 - 4 * n, 4, i::of_segment(s, i::SELECTOR))));
    for s in 0..8 {
        let at = 0x7d00 + 0x10 * s as u64;
        fields.push(field(at, 4, i::of_segment(s, i::ATTRIBUTES)));
        fields.push(field(at + 4, 4, i::of_segment(s, i::LIMIT)));
        if s != LDTR {
            fields.push(field(at + 8, 8, i::of_segment(s, i::BASE)));
        }
    }
    fields
}

/// AMD's map.
fn amd() -> Vec<Field> {
    use item as i;
    let mut fields = vec![
        field(0x7e64, 4, i::GDT_LIMIT),
        field(0x7e68, 8, i::GDT_BASE),
        field(0x7e84, 4, i::IDT_LIMIT),
        field(0x7e88, 8, i::IDT_BASE),
        field(0x7ea0, 8, i::IO_RIP),
        field(0x7ea8, 8, i::IO_RCX),
        field(0x7eb0, 8, i::IO_RSI),
        field(0x7eb8, 8, i::IO_RDI),
        field(0x7ec0, 4, i::IO_TRAP),
        field(0x7ec8, 1, i::IO_RESTART),
        field(0x7ec9, 1, i::HALT),
        field(0x7ed0, 8, i::EFER),
        field(0x7ed8, 8, i::GUEST),     // whether it is one
        field(0x7ee0, 8, i::GUEST + 1), // VMCB
        field(0x7ee8, 8, i::GUEST + 2), // virtual interrupts
        field(0x7efc, 4, i::REVISION),
        field(0x7f00, 4, i::SMBASE),
        field(0x7f18, 8, i::SSP),
        field(0x7f20, 8, i::GUEST + 3), // the guest's PAT
        field(0x7f28, 8, i::GUEST + 4), // the host's EFER
        field(0x7f30, 8, i::GUEST + 5), // the host's CR4
        field(0x7f38, 8, i::GUEST + 6), // nested CR3
        field(0x7f40, 8, i::GUEST + 7), // the host's CR0
        field(0x7f48, 8, i::CR4),
        field(0x7f50, 8, i::CR3),
        field(0x7f58, 8, i::CR0),
        field(0x7f60, 8, i::DR7),
        field(0x7f68, 8, i::DR6),
        field(0x7f70, 8, i::RFLAGS),
        field(0x7f78, 8, i::RIP),
    ];
    fields.extend((0..16).map(|r| field(0x7ff8 - 8 * r as u64, 8, r)));
    for (s, at) in [(0, 0x00), (1, 0x10), (2, 0x20), (3, 0x30), (4, 0x40), (5, 0x50), (LDTR, 0x70), (TR, 0x90)] {
        let at = 0x7e00 + at;
        fields.push(field(at, 2, i::of_segment(s, i::SELECTOR)));
        fields.push(field(at + 2, 2, i::of_segment(s, i::ATTRIBUTES)));
        fields.push(field(at + 4, 4, i::of_segment(s, i::LIMIT)));
        fields.push(field(at + 8, 8, i::of_segment(s, i::BASE)));
    }
    fields
}

/// The fields of a vendor's map.
pub(crate) fn fields(map: Vendor) -> Vec<Field> {
    match map {
        Vendor::Intel => intel(),
        Vendor::Amd => amd(),
    }
}

/// I/O instruction restart, SMBASE relocation; and whose map it is.
fn revision(map: Vendor) -> u64 {
    match map {
        Vendor::Intel => 0x0003_0101,
        Vendor::Amd => 0x0003_0064,
    }
}

/// What a map holds, by [`item`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Values([u64; item::COUNT]);

impl Values {
    pub(crate) fn get(&self, i: usize) -> u64 {
        self.0[i]
    }

    pub(crate) fn set(&mut self, i: usize, value: u64) {
        self.0[i] = value;
    }

    /// What AMD's map holds of a guest.
    pub(crate) fn set_guest(&mut self, guest: &GuestInMap) {
        let &GuestInMap { state, vmcb, virtual_interrupts, pat, host_efer, host_cr4, nested_cr3, host_cr0 } = guest;
        let words = [state, vmcb, virtual_interrupts, pat, host_efer, host_cr4, nested_cr3, host_cr0];
        self.0[item::GUEST..].copy_from_slice(&words);
    }

    /// Of a processor between two instructions.
    pub(crate) fn of(h: &P) -> Self {
        let mut v = Values([0; item::COUNT]);
        v.0[..16].copy_from_slice(&h.core.regs[..16]);
        v.set(item::SSP, h.reg(SSP));
        let a = &h.arch;
        for (i, value) in [
            (item::RIP, h.ip(h.core.pc)),
            (item::RFLAGS, h.rflags()),
            (item::CR0, a.cr0),
            (item::CR3, a.cr3),
            (item::CR4, a.cr4),
            (item::EFER, a.efer),
            (item::DR6, a.dr6),
            (item::DR7, a.dr7),
            (item::GDT_BASE, a.gdtr.base),
            (item::GDT_LIMIT, a.gdtr.limit.into()),
            (item::IDT_BASE, a.idtr.base),
            (item::IDT_LIMIT, a.idtr.limit.into()),
            (item::SMBASE, a.smm.base.into()),
            (item::REVISION, revision(a.smm.map)),
        ] {
            v.set(i, value);
        }
        for s in 0..8 {
            let (segment, base) = match s {
                LDTR => (a.ldtr, a.ldtr.base),
                TR => (a.tr, a.tr.base),
                _ => (a.segments[s], base_of(h, s)),
            };
            // In the map, what cannot be used is not present.
            let attributes = segment.attributes.0 & 0xffff;
            let attributes = if segment.attributes.is_unusable() { attributes & !0x80 } else { attributes };
            let parts = [u64::from(segment.selector), attributes.into(), segment.limit.into(), base];
            for (part, value) in parts.into_iter().enumerate() {
                v.set(item::of_segment(s, part), value);
            }
        }
        v
    }

    /// Writes the map.
    pub(crate) fn save(&self, h: &mut P) {
        for f in fields(h.arch.smm.map) {
            let at = place(h, f.at);
            let value = self.get(f.item) >> f.shift;
            let _ = h.write_physical(at, f.size, value & u64::MAX >> (64 - 8 * u32::from(f.size))); // without RAM it is lost
        }
    }

    /// Reads the map.
    pub(crate) fn load(h: &mut P) -> Self {
        let mut v = Values([0; item::COUNT]);
        for f in fields(h.arch.smm.map) {
            let at = place(h, f.at);
            v.0[f.item] |= h.read_physical(at, f.size).unwrap_or(u64::MAX) << f.shift;
        }
        v
    }

    /// "Exiting From SMM"; APM vol. 3, "RSM": the reasons for a shutdown.
    pub(crate) fn are_valid(&self, h: &P) -> bool {
        let [cr0, cr3, cr4, efer] = [item::CR0, item::CR3, item::CR4, item::EFER].map(|i| self.get(i));
        let has = |value: u64, bits: u64| value & bits == bits;
        let is_paged = has(cr0, cr0::PG);
        let is_long = is_paged && has(efer, efer::LME);
        let more = h.arch.extension.get().map_or(0, |e| e.cr4_bits());
        // "Paged Real Mode": a guest may come back to it.
        let allows_paged_real_mode = h.arch.extension.get().is_some_and(|e| e.returns_to_guest());
        let cs = Attributes(self.get(item::of_segment(1, item::ATTRIBUTES)) as u32);
        let lam = cr3::LAM_U48 | cr3::LAM_U57;
        let rules = [
            cr0 >> 32 == 0,
            !is_paged || has(cr0, cr0::PE) || allows_paged_real_mode,
            !has(cr0, cr0::NW) || has(cr0, cr0::CD),
            cr4 & !(h.arch.model.cr4_bits() | more) == 0,
            efer & !(msr::efer_bits(h) | efer::LMA) == 0,
            !is_long || has(cr4, cr4::PAE),
            !is_long || (cr3 & !lam) >> h.arch.physical_bits == 0,
            !(is_long && cs.is_long() && cs.is_big()),
            is_long || !has(cr4, cr4::PCIDE),
            has(cr0, cr0::WP) || !has(cr4, cr4::CET),
            self.get(item::DR6) >> 32 == 0 && self.get(item::DR7) >> 32 == 0,
        ];
        rules.iter().all(|rule| *rule)
    }

    /// Puts it all back, but for RIP.
    pub(crate) fn restore(&self, h: &mut P) {
        h.core.regs[..16].copy_from_slice(&self.0[..16]);
        h.set_reg(SSP, self.get(item::SSP));
        let a = &mut h.arch;
        (a.cr0, a.cr3, a.cr4) = (self.get(item::CR0) | cr0::ET, self.get(item::CR3), self.get(item::CR4));
        let is_long = self.get(item::CR0) & cr0::PG != 0 && self.get(item::EFER) & efer::LME != 0;
        (a.dr6, a.dr7) = (self.get(item::DR6), self.get(item::DR7));
        a.gdtr = Table { base: self.get(item::GDT_BASE), limit: self.get(item::GDT_LIMIT) as u16 };
        a.idtr = Table { base: self.get(item::IDT_BASE), limit: self.get(item::IDT_LIMIT) as u16 };
        a.smm.base = self.get(item::SMBASE) as u32;
        perf::set_efer(h, self.get(item::EFER) & !efer::LMA | if is_long { efer::LMA } else { 0 });
        for s in 0..8 {
            let part = |part| self.get(item::of_segment(s, part));
            let attributes = Attributes(part(item::ATTRIBUTES) as u32 & 0xf0ff);
            let unusable = if attributes.is_present() { 0 } else { Attributes::UNUSABLE.0 };
            let segment = Segment {
                selector: part(item::SELECTOR) as u16,
                base: part(item::BASE),
                limit: part(item::LIMIT) as u32,
                attributes: Attributes(attributes.0 | unusable),
            };
            match s {
                LDTR => h.arch.ldtr = segment,
                TR => h.arch.tr = segment,
                _ => h.set_segment(s, segment),
            }
        }
        h.set_rflags(self.get(item::RFLAGS));
    }
}

/// Where a field is on the bus, now that the processor is in system management mode.
fn place(h: &P, offset: u64) -> u64 {
    let at = h.arch.smm.base.wrapping_add(offset as u32);
    h.arch.on_bus(at.into(), false)
}
