//! Delivery of interrupts and exceptions, and the return from it (SDM vol. 3A, "64-Bit Mode IDT", "64-Bit Processing of Interrupts and
//! Exceptions").

use emu_core::engine::{Intent, Step, Stop, StopKind};
use emu_core::event::{Event, Kind};

use crate::control::rflags;
use crate::exception::{Conclusion, Exception, name, vector};
use crate::processor::{P, ProcessorExt, segments, shutdown};
use crate::registers::RSP;
use crate::segment::{Attributes, Descriptor, Segment, index_of};

/// What is delivered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Source {
    /// An exception of the processor's own.
    Exception,
    /// INT n, INT3, INTO: the gate's DPL counts.
    Software,
    /// An interrupt from outside.
    External,
}

/// Takes an exception, and whatever its delivery comes to.
pub(crate) fn take_exception(h: &mut P, exception: Exception) -> Step {
    let mut e = exception;
    loop {
        if e.vector == vector::PF {
            h.arch.cr2 = e.address;
        }
        note(h, e);
        let is_fault = !matches!(e.vector, vector::DB | vector::BP | vector::OF);
        let rf = if is_fault { rflags::RF } else { 0 };
        let Err(stop) = deliver(h, e.vector, e.error, Source::Exception, h.core.pc, rf) else { return Ok(()) };
        let second = require_exception(stop)?;
        e = match e.and_then(second) {
            Conclusion::Second => second,
            Conclusion::DoubleFault => Exception::with(vector::DF, 0),
            Conclusion::Shutdown => return shutdown(),
        };
    }
}

/// Delivers an interrupt that an instruction or somebody outside asks for; `rip` is where it returns to.
pub(crate) fn take(h: &mut P, vector: u8, source: Source, rip: u64) -> Step {
    match deliver(h, vector, None, source, rip, 0) {
        Ok(()) => Ok(()),
        Err(stop) => take_exception(h, require_exception(stop)?),
    }
}

fn require_exception(stop: Stop) -> Step<Exception> {
    if stop.kind == StopKind::Exception { Ok(Exception::of(stop)) } else { Err(stop) }
}

fn note(h: &mut P, e: Exception) {
    h.world.events.count_exit(1, e.vector.into());
    if h.world.events.is_on() {
        let details = [("error", e.error.unwrap_or(0).into()), ("address", e.address)];
        let event = Event {
            count: h.core.count(),
            vcpu: h.core.index,
            level: 1,
            pc: h.core.pc,
            kind: Kind::Trap,
            name: name(e.vector),
            details: &details,
        };
        h.world.events.send(&event);
    }
}

/// See [`Arch::interrupt`](emu_core::engine::Arch::interrupt).
pub(crate) fn take_pending(h: &mut P) -> Step {
    if h.arch.shadow == Some(h.core.retired()) {
        h.core.check_interrupts = true;
        return Ok(());
    }
    h.arch.shadow = None;
    if h.arch.rflags & rflags::IF == 0 {
        return Ok(());
    }
    let Some(vector) = h.arch.intr.take() else { return Ok(()) };
    h.world.events.count_exit(1, vector.into());
    take(h, vector, Source::External, h.core.pc)
}

/// A descriptor of a table, or #GP with its selector.
pub(crate) fn descriptor(h: &mut P, selector: u16, ext: u16) -> Step<Descriptor> {
    let (base, limit) = if selector & 4 == 0 {
        (h.arch.gdtr.base, u32::from(h.arch.gdtr.limit))
    } else {
        h.fault_if(h.arch.ldtr.attributes.is_unusable(), Exception::gp(index_of(selector) | ext))?;
        (h.arch.ldtr.base, h.arch.ldtr.limit)
    };
    let offset = u32::from(selector & !7);
    h.fault_if(offset + 7 > limit, Exception::gp(index_of(selector) | ext))?;
    Ok(Descriptor(h.read_system(base.wrapping_add(offset.into()), 8)?))
}

/// One delivery, step by step. Nothing is changed before the last step that can fail.
fn deliver(h: &mut P, vector: u8, error: Option<u16>, source: Source, rip: u64, rf: u64) -> Step {
    let ext = u16::from(source != Source::Software);
    let in_idt = u16::from(vector) << 3 | 2;
    // The gate.
    let offset = u32::from(vector) * 16;
    h.fault_if(offset + 15 > h.arch.idtr.limit.into(), Exception::gp(in_idt | ext))?;
    let at = h.arch.idtr.base.wrapping_add(offset.into());
    let (low, high) = (h.read_system(at, 8)?, h.read_system(at.wrapping_add(8), 8)?);
    let attributes = Descriptor(low).attributes();
    let kind = attributes.kind();
    h.fault_if(attributes.is_code_or_data() || !matches!(kind, 14 | 15), Exception::gp(in_idt | ext))?;
    let cpl = h.arch.cpl();
    h.fault_if(source == Source::Software && attributes.dpl() < cpl, Exception::gp(in_idt))?;
    h.fault_if(!attributes.is_present(), Exception::with(vector::NP, in_idt | ext))?;
    let target = low & 0xffff | low >> 32 & 0xffff_0000 | high << 32;
    // The code segment.
    let selector = (low >> 16) as u16;
    h.fault_if(index_of(selector) == 0, Exception::gp(ext))?;
    let code = descriptor(h, selector, ext)?;
    let a = code.attributes();
    let refused = Exception::gp(index_of(selector) | ext);
    h.fault_if(!a.is_code() || a.dpl() > cpl, refused)?;
    h.fault_if(!a.is_present(), Exception::with(vector::NP, index_of(selector) | ext))?;
    h.fault_if(!a.is_long() || a.is_big(), refused)?;
    let new_cpl = if a.is_conforming() { cpl } else { a.dpl() };
    // The stack ("Stack Switching in IA-32e Mode").
    let ist = low >> 32 & 7;
    let rsp = h.core.regs[usize::from(RSP)];
    let top = if ist != 0 {
        from_tss(h, 28 + 8 * ist as u32, ext)?
    } else if new_cpl < cpl {
        from_tss(h, 4 + 8 * u32::from(new_cpl), ext)?
    } else {
        rsp
    };
    h.fault_if(!h.arch.controls().is_canonical(target), Exception::gp(ext))?;
    let top = top & !15;
    h.fault_if(!h.arch.controls().is_canonical(top), Exception::with(vector::SS, ext))?;
    let saved = [
        u64::from(h.arch.segments[segments::SS].selector),
        rsp,
        h.rflags() | rf,
        h.arch.segments[segments::CS].selector.into(),
        rip,
    ];
    // Pushes are as of the new privilege level.
    let as_whom = if new_cpl == 3 { 0 } else { crate::processor::AS_PROCESSOR };
    // All of the frame can be written, or none of it is.
    let words = saved.len() as u64 + u64::from(error.is_some());
    for at in [top.wrapping_sub(8), top.wrapping_sub(8 * words)] {
        h.resolve(at, 8, Intent::Write, as_whom)?;
    }
    let mut sp = top;
    for word in saved.into_iter().chain(error.map(u64::from)) {
        sp = sp.wrapping_sub(8);
        h.store(sp, 8, word, as_whom)?;
    }
    // Nothing below can fail.
    h.core.regs[usize::from(RSP)] = sp;
    let mut cs = code.segment(index_of(selector) | u16::from(new_cpl));
    cs.attributes.0 |= 1; // accessed
    h.arch.segments[segments::CS] = cs;
    if new_cpl != cpl {
        h.arch.segments[segments::SS] = null_stack(new_cpl);
    }
    let mut cleared = rflags::TF | rflags::NT | rflags::RF | rflags::VM;
    if kind == 14 {
        cleared |= rflags::IF;
    }
    h.arch.rflags &= !cleared;
    h.core.pc = target;
    h.core.spaces_changed = true;
    h.core.check_interrupts = true;
    Ok(())
}

/// SS after a change of privilege in 64-bit mode: a null selector whose RPL is the new level.
fn null_stack(cpl: u8) -> Segment {
    let dpl = u32::from(cpl) << 5;
    Segment { selector: cpl.into(), base: 0, limit: u32::MAX, attributes: Attributes(0x1_0000 | 0xc093 | dpl) }
}

/// A stack pointer in the 64-bit TSS.
fn from_tss(h: &mut P, offset: u32, ext: u16) -> Step<u64> {
    let tr = h.arch.tr;
    h.fault_if(offset + 7 > tr.limit, Exception::with(vector::TS, index_of(tr.selector) | ext))?;
    h.read_system(tr.base.wrapping_add(offset.into()), 8)
}

/// IRETQ in 64-bit mode (SDM vol. 2A, "IRET/IRETD/IRETQ"): to 64-bit code at the same level, or an outer one.
pub(crate) fn iretq(h: &mut P) -> Step {
    h.fault_if(h.arch.rflags & rflags::NT != 0, Exception::gp(0))?;
    let sp = h.core.regs[usize::from(RSP)];
    let mut frame = [0; 5];
    for (i, word) in frame.iter_mut().enumerate() {
        *word = h.load(sp.wrapping_add(8 * i as u64), 8, 0)?;
    }
    let [rip, cs, flags, rsp, ss] = frame;
    let (cs, ss, cpl) = (cs as u16, ss as u16, h.arch.cpl());
    h.fault_if(index_of(cs) == 0, Exception::gp(0))?;
    let code = descriptor(h, cs, 0)?;
    let (a, rpl) = (code.attributes(), (cs & 3) as u8);
    let refused = Exception::gp(index_of(cs));
    h.fault_if(!a.is_code() || rpl < cpl, refused)?;
    h.fault_if(if a.is_conforming() { a.dpl() > rpl } else { a.dpl() != rpl }, refused)?;
    h.fault_if(!a.is_present(), Exception::with(vector::NP, index_of(cs)))?;
    h.fault_if(!a.is_long() || a.is_big(), refused)?;
    let stack = if index_of(ss) == 0 {
        h.fault_if(rpl == 3 || ss & 3 != u16::from(rpl), Exception::gp(0))?;
        null_stack(rpl)
    } else {
        let d = descriptor(h, ss, 0)?;
        let s = d.attributes();
        let refused = Exception::gp(index_of(ss));
        h.fault_if(ss & 3 != u16::from(rpl) || !s.is_writable_data() || s.dpl() != rpl, refused)?;
        h.fault_if(!s.is_present(), Exception::with(vector::SS, index_of(ss)))?;
        d.segment(ss)
    };
    h.fault_if(!h.arch.controls().is_canonical(rip), Exception::gp(0))?;
    // What CPL and IOPL let it change.
    let mut mask = !(rflags::VIF | rflags::VIP | rflags::VM | 3 << 12 | rflags::IF);
    if cpl == 0 {
        mask |= 3 << 12 | rflags::VIF | rflags::VIP;
    }
    if cpl <= h.arch.iopl() {
        mask |= rflags::IF;
    }
    let new = h.rflags() & !mask | flags & mask;
    h.set_rflags(new);
    let mut cs = code.segment(cs);
    cs.attributes.0 |= 1;
    h.arch.segments[segments::CS] = cs;
    h.arch.segments[segments::SS] = stack;
    if rpl > cpl {
        drop_segments(h, rpl);
    }
    h.core.regs[usize::from(RSP)] = rsp;
    h.core.next_pc = rip;
    Ok(())
}

/// Data segments that an outer level may not hold become null.
fn drop_segments(h: &mut P, cpl: u8) {
    for i in [segments::ES, segments::DS, segments::FS, segments::GS] {
        let s = &mut h.arch.segments[i];
        let a = s.attributes;
        if !(a.is_code() && a.is_conforming()) && a.dpl() < cpl {
            *s = Segment { attributes: Attributes::UNUSABLE, ..Segment::default() };
        }
    }
}
