//! The ordinary case of an event's delivery and of IRETQ: between 64-bit code and 64-bit code, by descriptors as kernels have them, with all
//! words at hand. Nothing can fail in it, and it is looked at in one go. Whatever is out of the ordinary is left to
//! [`interrupt`](crate::interrupt) and [`far`](crate::far), which define what happens; a test compares the two ways.

use emu_core::tlb::Space;

use crate::control::{cr4, rflags};
use crate::processor::{AS_PROCESSOR, P, ProcessorExt, X86, segments};
use crate::protection::{code_at, null_stack};
use crate::registers::RSP;
use crate::segment::{Descriptor, Segment, Table, index_of};

/// Bits of a descriptor, or of a gate's lower half.
const ACCESSED: u64 = 1 << 40;
const WRITABLE: u64 = 1 << 41;
const CONFORMING: u64 = 1 << 42;
const CODE: u64 = 1 << 43;
/// S: of code or data.
const NO_SYSTEM: u64 = 1 << 44;
const PRESENT: u64 = 1 << 47;
const LONG: u64 = 1 << 53;
const BIG: u64 = 1 << 54;
const IST: u64 = 7 << 32;
/// The type of a gate, but for the bit that tells trap gates from interrupt gates.
const GATE: u64 = 7 << 41;
/// That bit.
const TRAP_GATE: u64 = 1 << 40;

/// Where an event leads.
pub(crate) struct Entry {
    pub code: Segment,
    /// Of another privilege level.
    pub stack: Option<Segment>,
    pub sp: u64,
    pub target: u64,
    /// It is an interrupt gate.
    pub masks: bool,
}

/// Where IRETQ leads.
pub(crate) struct Return {
    pub code: Segment,
    pub ip: u64,
    pub flags: u64,
    pub stack: Segment,
    pub sp: u64,
}

fn is_ordinary(a: &X86) -> bool {
    a.is_64() && a.cr4 & cr4::CET == 0 && a.rflags & (rflags::NT | rflags::VM) == 0
}

fn dpl(descriptor: u64) -> u8 {
    (descriptor >> 45 & 3) as u8
}

/// The descriptor of a selector that names one in the GDT.
#[inline(always)]
fn descriptor(h: &P, own: Space, selector: u16) -> Option<u64> {
    let Table { base, limit } = h.arch.gdtr;
    if selector & 4 != 0 || index_of(selector) == 0 || selector | 7 > limit {
        return None;
    }
    let [word] = h.words_in(own, base.wrapping_add(u64::from(selector & !7)))?;
    Some(word)
}

/// 64-bit code, for whoever has its privilege level.
#[inline(always)]
fn code(h: &P, own: Space, selector: u16) -> Option<u64> {
    let code = descriptor(h, own, selector)?;
    let wanted = ACCESSED | CODE | NO_SYSTEM | PRESENT | LONG;
    (code & (wanted | CONFORMING | BIG) == wanted).then_some(code)
}

/// Delivers an event but for what depends on nothing but where it leads. `asks_dpl` says that a program asks for it.
#[inline(always)]
pub(crate) fn deliver(h: &mut P, vector: u8, error: Option<u16>, asks_dpl: bool, ip: u64, flags: u64) -> Option<Entry> {
    let Table { base, limit } = h.arch.idtr;
    let offset = 16 * u16::from(vector);
    if !is_ordinary(h.arch) || offset + 15 > limit {
        return None;
    }
    let cpl = h.arch.cpl();
    let own = h.space(AS_PROCESSOR);
    let [low, high] = h.words_in(own, base.wrapping_add(offset.into()))?;
    if low & (GATE | NO_SYSTEM | PRESENT | IST) != GATE | PRESENT || asks_dpl && dpl(low) < cpl {
        return None;
    }
    let target = low & 0xffff | low >> 32 & 0xffff_0000 | high << 32;
    let selector = (low >> 16) as u16;
    let code = code(h, own, selector)?;
    let new_cpl = dpl(code);
    if new_cpl > cpl || !h.arch.is_canonical(target) {
        return None;
    }
    let old_sp = h.reg(RSP);
    let (sp, stack, as_whom) = if new_cpl == cpl {
        (old_sp, None, 0)
    } else {
        let (tr, at) = (h.arch.tr, 4 + 8 * u32::from(new_cpl));
        if at + 7 > tr.limit {
            return None;
        }
        let [sp] = h.words_in(own, tr.base.wrapping_add(at.into()))?;
        (sp, Some(null_stack(new_cpl)), AS_PROCESSOR)
    };
    let [cs, ss] = [segments::CS, segments::SS].map(|i| u64::from(h.arch.segments[i].selector));
    let frame = [error.unwrap_or(0).into(), ip, cs, flags, old_sp, ss];
    let frame = if error.is_some() { &frame[..] } else { &frame[1..] };
    let sp = (sp & !15).wrapping_sub(8 * frame.len() as u64);
    if !h.store_words(sp, frame.iter(), as_whom) {
        return None;
    }
    let code = code_at(Descriptor(code).segment(selector), new_cpl);
    Some(Entry { code, stack, sp, target, masks: low & TRAP_GATE == 0 })
}

/// Looks where IRETQ leads.
#[inline(always)]
pub(crate) fn iret(h: &mut P) -> Option<Return> {
    if !is_ordinary(h.arch) {
        return None;
    }
    let [ip, cs, flags, sp, ss] = h.load_words(h.reg(RSP), 0)?;
    let own = h.space(AS_PROCESSOR);
    let (cs, ss, cpl, rpl) = (cs as u16, ss as u16, h.arch.cpl(), (cs & 3) as u8);
    let code = code(h, own, cs)?;
    if rpl < cpl || dpl(code) != rpl || ss & 3 != rpl.into() || !h.arch.is_canonical(ip) {
        return None;
    }
    let stack = if index_of(ss) == 0 && rpl != 3 {
        null_stack(rpl)
    } else {
        let data = descriptor(h, own, ss)?;
        let wanted = ACCESSED | WRITABLE | NO_SYSTEM | PRESENT;
        if data & (wanted | CODE) != wanted || dpl(data) != rpl {
            return None;
        }
        Descriptor(data).segment(ss)
    };
    Some(Return { code: Descriptor(code).segment(cs), ip, flags, stack, sp })
}
