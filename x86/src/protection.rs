//! Segment registers and what protects them (SDM vol. 3A, chapters "Protected-Mode Memory Management" and "Protection").

use emu_core::engine::{Step, Stop};

use crate::exception::{Exception, vector};
use crate::processor::{AS_PROCESSOR, P, ProcessorExt, segments};
use crate::segment::{Attributes, Descriptor, Segment, index_of};

/// Which exception a selector causes that cannot be used.
#[derive(Clone, Copy)]
pub(crate) struct Refusal {
    vector: u8,
    ext: u16,
}

impl Refusal {
    /// #GP(selector).
    pub(crate) const GP: Refusal = Refusal { vector: vector::GP, ext: 0 };
    /// #TS(selector): in a task switch, or of a TSS.
    pub(crate) const TS: Refusal = Refusal { vector: vector::TS, ext: 0 };

    /// Bit 0 of the error code: somebody outside the program is to blame.
    pub(crate) const fn with_ext(self, ext: u16) -> Refusal {
        Refusal { ext, ..self }
    }

    /// The exception of this selector.
    #[inline]
    pub(crate) fn of(self, selector: u16) -> Exception {
        Exception::with(self.vector, index_of(selector) | self.ext)
    }

    /// #NP or #SS of this selector.
    pub(crate) fn absent(self, vector: u8, selector: u16) -> Exception {
        Exception::with(vector, index_of(selector) | self.ext)
    }
}

/// The linear address of a selector's descriptor, of which `size` bytes lie within the table.
#[inline(always)]
fn descriptor_at(h: &P, selector: u16, size: u32, refusal: Refusal) -> Step<u64> {
    let (base, limit) = if selector & 4 == 0 {
        (h.arch.gdtr.base, u32::from(h.arch.gdtr.limit))
    } else {
        h.fault_if(h.arch.ldtr.attributes.is_unusable(), refusal.of(selector))?;
        (h.arch.ldtr.base, h.arch.ldtr.limit)
    };
    let offset = u32::from(selector & !7);
    h.fault_if(offset + size - 1 > limit, refusal.of(selector))?;
    let at = base.wrapping_add(offset.into());
    Ok(if h.arch.is_long() { at } else { at & 0xffff_ffff })
}

/// A descriptor of 8 bytes.
#[inline(always)]
pub(crate) fn descriptor(h: &mut P, selector: u16, refusal: Refusal) -> Step<Descriptor> {
    let at = descriptor_at(h, selector, 8, refusal)?;
    Ok(Descriptor(h.load_word(at, AS_PROCESSOR)?))
}

/// A system descriptor: of 16 bytes in IA-32e mode, where it has 64 bits of base.
pub(crate) fn system_descriptor(h: &mut P, selector: u16, refusal: Refusal) -> Step<(Descriptor, u64)> {
    if !h.arch.is_long() {
        let d = descriptor(h, selector, refusal)?;
        return Ok((d, d.base().into()));
    }
    let at = descriptor_at(h, selector, 16, refusal)?;
    let (low, high) = (h.read_system(at, 8)?, h.read_system(at.wrapping_add(8), 8)?);
    // The type of the upper half is 0.
    h.fault_if(high >> 40 & 0x1f != 0, refusal.of(selector))?;
    let d = Descriptor(low);
    Ok((d, u64::from(d.base()) | high << 32))
}

/// Sets bits of a descriptor's type in memory.
pub(crate) fn set_type(h: &mut P, selector: u16, set: u64, clear: u64) -> Step {
    let at = descriptor_at(h, selector, 8, Refusal::GP)?.wrapping_add(5);
    let old = h.read_system(at, 1)?;
    h.write_system(at, 1, old & !clear | set)
}

/// Marks a segment accessed, and returns what is loaded.
#[inline(always)]
pub(crate) fn accessed(h: &mut P, selector: u16, d: Descriptor) -> Step<Segment> {
    if d.attributes().0 & 1 == 0 {
        set_type(h, selector, 1, 0)?;
    }
    Ok(Descriptor(d.0 | 1 << 40).segment(selector))
}

/// What a null selector leaves in a segment register.
pub(crate) fn null(selector: u16) -> Segment {
    Segment { selector, attributes: Attributes::UNUSABLE, ..Segment::default() }
}

/// A null selector in SS in 64-bit mode: its RPL is the privilege level.
#[inline]
pub(crate) fn null_stack(cpl: u8) -> Segment {
    let dpl = u32::from(cpl) << 5;
    let attributes = Attributes(Attributes::UNUSABLE.0 | 0xc093 | dpl);
    Segment { selector: cpl.into(), base: 0, limit: u32::MAX, attributes }
}

/// What a selector loads in real and virtual-8086 mode: limits stay in the one, with granularity and size, and are 64 KiB in the other.
pub(crate) fn real(h: &P, i: usize, selector: u16) -> Segment {
    let base = u64::from(selector) << 4;
    if h.arch.is_v8086() {
        return Segment { selector, base, limit: 0xffff, attributes: Attributes(0xf3) };
    }
    let old = h.arch.segments[i];
    let (limit, kept) = if old.attributes.is_unusable() { (0xffff, 0) } else { (old.limit, old.attributes.0 & 0xd000) };
    Segment { selector, base, limit, attributes: Attributes(kept | 0x93) }
}

/// What a selector loads into SS for privilege level `cpl`.
#[inline(always)]
pub(crate) fn stack(h: &mut P, selector: u16, cpl: u8, refusal: Refusal) -> Step<(u16, Descriptor)> {
    h.fault_if(index_of(selector) == 0, Exception::with(refusal.vector, refusal.ext))?;
    let d = descriptor(h, selector, refusal)?;
    let a = d.attributes();
    let fits = (selector & 3) as u8 == cpl && a.is_writable_data() && a.dpl() == cpl;
    h.fault_if(!fits, refusal.of(selector))?;
    h.fault_if(!a.is_present(), refusal.absent(vector::SS, selector))?;
    Ok((selector, d))
}

/// Loads ES, SS, DS, FS or GS (SDM vol. 2B, "MOV—Move").
pub(crate) fn load(h: &mut P, i: usize, selector: u16, refusal: Refusal) -> Step {
    if !h.arch.is_protected() {
        let segment = real(h, i, selector);
        h.set_segment(i, segment);
        return Ok(());
    }
    let (cpl, rpl) = (h.arch.cpl(), (selector & 3) as u8);
    let loaded = if i == segments::SS {
        if index_of(selector) == 0 && h.arch.is_64() && cpl != 3 && rpl == cpl {
            null_stack(cpl)
        } else {
            let (selector, d) = stack(h, selector, cpl, refusal)?;
            accessed(h, selector, d)?
        }
    } else if index_of(selector) == 0 {
        null(selector)
    } else {
        let d = descriptor(h, selector, refusal)?;
        let a = d.attributes();
        let is_outer = a.dpl() < rpl.max(cpl) && !(a.is_code() && a.is_conforming());
        h.fault_if(!a.is_readable() || is_outer, refusal.of(selector))?;
        h.fault_if(!a.is_present(), refusal.absent(vector::NP, selector))?;
        accessed(h, selector, d)?
    };
    h.set_segment(i, loaded);
    Ok(())
}

/// Data segments that an outer level may not hold become null.
pub(crate) fn drop_segments(h: &mut P, cpl: u8) {
    for i in [segments::ES, segments::DS, segments::FS, segments::GS] {
        let s = h.arch.segments[i];
        let a = s.attributes;
        if !(a.is_code() && a.is_conforming()) && a.dpl() < cpl {
            // The base stays where it is, as processors have it.
            let unusable = Attributes(a.0 | Attributes::UNUSABLE.0);
            h.arch.segments[i] = Segment { selector: 0, attributes: unusable, ..s };
        }
    }
    h.all_changed();
}

/// The segment that code of privilege level `cpl` runs in.
#[inline(always)]
pub(crate) fn code_at(segment: Segment, cpl: u8) -> Segment {
    Segment { selector: index_of(segment.selector) | u16::from(cpl), ..segment }
}

/// LLDT.
pub(crate) fn load_ldt(h: &mut P, selector: u16, refusal: Refusal) -> Step {
    if index_of(selector) == 0 {
        h.arch.ldtr = null(selector);
        return Ok(());
    }
    h.fault_if(selector & 4 != 0, refusal.of(selector))?;
    let (d, base) = system_descriptor(h, selector, refusal)?;
    let a = d.attributes();
    h.fault_if(a.is_code_or_data() || a.kind() != 2, refusal.of(selector))?;
    h.fault_if(
        !a.is_present(),
        refusal.absent(if refusal.vector == vector::TS { vector::TS } else { vector::NP }, selector),
    )?;
    h.fault_if(!h.arch.is_canonical_in_registers(base), refusal.of(selector))?;
    h.arch.ldtr = Segment { selector, base, limit: d.limit(), attributes: a };
    Ok(())
}

/// LTR: an available TSS, which becomes busy.
pub(crate) fn load_task_register(h: &mut P, selector: u16) -> Step {
    let refusal = Refusal::GP;
    h.fault_if(index_of(selector) == 0, Exception::gp(0))?;
    h.fault_if(selector & 4 != 0, refusal.of(selector))?;
    let (d, base) = system_descriptor(h, selector, refusal)?;
    let a = d.attributes();
    let is_task = a.kind() == 9 || a.kind() == 1 && !h.arch.is_long();
    h.fault_if(a.is_code_or_data() || !is_task, refusal.of(selector))?;
    h.fault_if(!a.is_present(), refusal.absent(vector::NP, selector))?;
    h.fault_if(!h.arch.is_canonical_in_registers(base), refusal.of(selector))?;
    set_type(h, selector, 2, 0)?;
    h.arch.tr = Segment { selector, base, limit: d.limit(), attributes: Attributes(a.0 | 2) };
    Ok(())
}

/// What a selector names, for instructions that only look: `None` where a fault other than a page fault would be.
fn look_up(h: &mut P, selector: u16) -> Step<Option<Descriptor>> {
    if index_of(selector) == 0 {
        return Ok(None);
    }
    let found = descriptor(h, selector, Refusal::GP);
    let is_beyond = |stop: &Stop| *stop == Refusal::GP.of(selector).into();
    match found {
        Err(stop) if is_beyond(&stop) => Ok(None),
        found => found.map(Some),
    }
}

/// Whether CPL and RPL may see a descriptor.
fn is_visible(h: &P, selector: u16, a: Attributes) -> bool {
    a.is_code() && a.is_conforming() || a.dpl() >= h.arch.cpl().max((selector & 3) as u8)
}

/// LAR: the access rights, if they may be seen.
pub(crate) fn access_rights(h: &mut P, selector: u16) -> Step<Option<u64>> {
    let Some(d) = look_up(h, selector)? else { return Ok(None) };
    let a = d.attributes();
    let is_known = a.is_code_or_data()
        || if h.arch.is_long() { matches!(a.kind(), 2 | 9 | 11 | 12) } else { matches!(a.kind(), 1..=5 | 9 | 11 | 12) };
    Ok((is_known && is_visible(h, selector, a)).then_some(d.0 >> 32 & 0x00ff_ff00))
}

/// LSL: the limit, if it may be seen.
pub(crate) fn segment_limit(h: &mut P, selector: u16) -> Step<Option<u64>> {
    let Some(d) = look_up(h, selector)? else { return Ok(None) };
    let a = d.attributes();
    let is_known = a.is_code_or_data()
        || if h.arch.is_long() { matches!(a.kind(), 2 | 9 | 11) } else { matches!(a.kind(), 1..=3 | 9 | 11) };
    Ok((is_known && is_visible(h, selector, a)).then_some(d.limit().into()))
}

/// VERR and VERW: whether a segment can be read, or written.
pub(crate) fn verify(h: &mut P, selector: u16, writes: bool) -> Step<bool> {
    let Some(d) = look_up(h, selector)? else { return Ok(false) };
    let a = d.attributes();
    let is_allowed = if writes { a.is_writable_data() } else { a.is_readable() };
    Ok(is_allowed && is_visible(h, selector, a))
}
