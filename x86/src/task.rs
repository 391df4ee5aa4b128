//! Task-state segments and task switches (SDM vol. 3A, chapter "Task Management").

use emu_core::engine::flags::Size;
use emu_core::engine::{Intent, Step};

use crate::control::{cr0, dr6, rflags, user_cet};
use crate::control_registers;
use crate::debug;
use crate::exception::{Exception, vector};
use crate::extension::{Intercept, ask_after};
use crate::frame::Stack;
use crate::processor::{AS_PROCESSOR, P, ProcessorExt, segments};
use crate::protection::{self, Refusal, accessed, code_at, descriptor, null, system_descriptor};
use crate::registers::{RAX, RSP};
use crate::segment::{Attributes, Segment, index_of};
use crate::shadow_stack::{self, Frame};

/// What a task is switched by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Switch {
    Jump,
    /// CALL, or a task gate in the IDT: the new task is nested.
    Call,
    Return,
}

/// The stack of an inner level, from the present TSS of a mode other than IA-32e, or of IA-32e mode ("Stack Switching").
pub(crate) fn inner_stack(h: &mut P, cpl: u8, ext: u16) -> Step<Stack> {
    let tr = h.arch.tr;
    let beyond = Refusal::TS.with_ext(ext).of(tr.selector);
    if h.arch.is_long() {
        let sp = long_stack(h, 4 + 8 * u32::from(cpl), ext)?;
        return Ok(Stack { segment: protection::null_stack(cpl), sp, cpl, is_64: true });
    }
    let is_32 = tr.attributes.kind() & 8 != 0;
    let (at, size) = if is_32 { (4 + 8 * u32::from(cpl), 4) } else { (2 + 4 * u32::from(cpl), 2) };
    h.fault_if(at + u32::from(size) + 1 > tr.limit, beyond)?;
    let sp = h.read_system(tr.base.wrapping_add(at.into()), size)?;
    let ss = h.read_system(tr.base.wrapping_add(u64::from(at) + u64::from(size)), 2)? as u16;
    let (ss, d) = protection::stack(h, ss, cpl, Refusal::TS.with_ext(ext))?;
    let segment = accessed(h, ss, d)?;
    Ok(Stack { segment, sp, cpl, is_64: false })
}

/// A stack pointer at an offset in the 64-bit TSS.
pub(crate) fn long_stack(h: &mut P, offset: u32, ext: u16) -> Step<u64> {
    let tr = h.arch.tr;
    h.fault_if(offset + 7 > tr.limit, Refusal::TS.with_ext(ext).of(tr.selector))?;
    let sp = h.load_word(tr.base.wrapping_add(offset.into()), AS_PROCESSOR)?;
    h.fault_if(!h.arch.is_canonical(sp), Exception::with(vector::SS, ext))?;
    Ok(sp)
}

/// Whether the TSS lets this port through, or has the bit of this interrupt clear in its redirection map.
pub(crate) fn permits(h: &mut P, port: u64, size: u8) -> Step<bool> {
    let Some(map) = io_map(h)? else { return Ok(false) };
    let at = u64::from(map) + port / 8;
    if at + 1 > h.arch.tr.limit.into() {
        return Ok(false);
    }
    let bits = h.read_system(h.arch.tr.base.wrapping_add(at), 2)?;
    Ok(bits >> (port & 7) & ((1 << size) - 1) == 0)
}

/// Whether INT n in virtual-8086 mode goes to the program's own handler ("Interrupt Redirection Bit Map").
pub(crate) fn redirects(h: &mut P, vector: u8) -> Step<bool> {
    let Some(map) = io_map(h)? else { return Ok(false) };
    let at = u64::from(map).wrapping_sub(32) + u64::from(vector / 8);
    if map < 32 || at > h.arch.tr.limit.into() {
        return Ok(false);
    }
    Ok(h.read_system(h.arch.tr.base.wrapping_add(at), 1)? >> (vector & 7) & 1 == 0)
}

/// Where the I/O permission bitmap begins.
fn io_map(h: &mut P) -> Step<Option<u16>> {
    let tr = h.arch.tr;
    if tr.attributes.is_unusable() || tr.attributes.kind() & 8 == 0 || tr.limit < 103 {
        return Ok(None);
    }
    Ok(Some(h.read_system(tr.base.wrapping_add(102), 2)? as u16))
}

/// Where a 32-bit TSS has the task's SSP.
const SSP: u32 = 104;

/// Where things are in a TSS, in bytes.
struct Layout {
    /// Of general registers, instruction pointer, flags.
    size: u8,
    cr3: Option<u64>,
    ip: u64,
    flags: u64,
    /// EAX to EDI.
    registers: u64,
    /// ES, CS, SS, DS, then FS and GS where there are such.
    segments: u64,
    segment_step: u64,
    segment_count: usize,
    ldt: u64,
    limit: u32,
}

const TSS_16: Layout = Layout {
    size: 2,
    cr3: None,
    ip: 14,
    flags: 16,
    registers: 18,
    segments: 34,
    segment_step: 2,
    segment_count: 4,
    ldt: 42,
    limit: 43,
};
const TSS_32: Layout = Layout {
    size: 4,
    cr3: Some(28),
    ip: 32,
    flags: 36,
    registers: 40,
    segments: 72,
    segment_step: 4,
    segment_count: 6,
    ldt: 96,
    limit: 103,
};

fn layout(kind: u32) -> &'static Layout {
    if kind & 8 != 0 { &TSS_32 } else { &TSS_16 }
}

/// IRET with NT: back to the task that this one is nested in.
pub(crate) fn back(h: &mut P) -> Step {
    let tr = h.arch.tr;
    let selector = h.read_system(tr.base, 2)? as u16;
    h.fault_if(selector & 4 != 0 || index_of(selector) == 0, Refusal::TS.of(selector))?;
    switch(h, selector, Switch::Return, None)
}

/// Switches to the task of a TSS; `error` is pushed on its stack. Faults of the new task are taken in it.
pub(crate) fn switch(h: &mut P, selector: u16, how: Switch, error: Option<u16>) -> Step {
    let return_to = h.ip(h.core.next_pc);
    switch_from(h, selector, how, error, return_to, 0)
}

/// Likewise; the old task goes on at `return_to`. `ext` is bit 0 of error codes.
pub(crate) fn switch_from(h: &mut P, selector: u16, how: Switch, error: Option<u16>, return_to: u64, ext: u16) -> Step {
    let refusal = if how == Switch::Return { Refusal::TS } else { Refusal::GP }.with_ext(ext);
    h.fault_if(selector & 4 != 0 || index_of(selector) == 0, refusal.of(selector))?;
    let (d, base) = system_descriptor(h, selector, refusal)?;
    let a = d.attributes();
    let busy = if how == Switch::Return { 2 } else { 0 };
    h.fault_if(a.is_code_or_data() || a.kind() & 7 != 1 | busy, refusal.of(selector))?;
    h.fault_if(!a.is_present(), Exception::with(vector::NP, index_of(selector) | ext))?;
    let reason = match (how, h.arch.delivering.is_some()) {
        (Switch::Call, false) => 0,
        (Switch::Return, _) => 1,
        (Switch::Jump, _) => 2,
        (Switch::Call, true) => 3,
    };
    ask_after(h, || Intercept::TaskSwitch { selector, reason, error })?;
    let new = layout(a.kind());
    h.fault_if(d.limit() < new.limit, Refusal::TS.with_ext(ext).of(selector))?;
    let old_tr = h.arch.tr;
    let old = layout(old_tr.attributes.kind());
    // All that is read or written can be, before anything has changed.
    for (tss, l, intent) in [(old_tr.base, old, Intent::Write), (base, new, Intent::Read)] {
        h.resolve(tss, 1, intent, AS_PROCESSOR)?;
        h.resolve(tss + u64::from(l.limit), 1, intent, AS_PROCESSOR)?;
    }
    let read = |h: &mut P, at: u64, size: u8| h.read_system(base.wrapping_add(at), size);
    let (ip, flags) = (read(h, new.ip, new.size)?, read(h, new.flags, new.size)?);
    let mut registers = [0; 8];
    for (i, r) in registers.iter_mut().enumerate() {
        *r = read(h, new.registers + i as u64 * u64::from(new.size), new.size)?;
    }
    let mut selectors = [0u16; 6];
    for (i, s) in selectors.iter_mut().enumerate().take(new.segment_count) {
        *s = read(h, new.segments + i as u64 * new.segment_step, 2)? as u16;
    }
    let ldt = read(h, new.ldt, 2)? as u16;
    let cr3 = match new.cr3 {
        Some(at) => Some(read(h, at, 4)?),
        None => None,
    };
    let traps = new.size == 4 && read(h, 100, 2)? & 1 != 0;
    let refused = Refusal::TS.with_ext(ext).of(selector);
    let to_v8086 = flags & rflags::VM != 0 && new.size == 4;
    h.fault_if(to_v8086 && h.arch.cet_at(3) & (user_cet::ENDBR_EN | user_cet::SH_STK_EN) != 0, refused)?;
    let new_cpl = if to_v8086 { 3 } else { (selectors[segments::CS] & 3) as u8 };
    let ssp = if how != Switch::Return && h.arch.has_shadow_stack_at(new_cpl) {
        h.fault_if(new.size == 2 || d.limit() < SSP + 3, refused)?;
        read(h, SSP.into(), 4)?
    } else {
        0
    };
    let frame = Frame { cs: h.arch.segments[segments::CS].selector, lip: h.linear_ip(return_to) };
    let shadow = shadow_stack::leave_task(h, how, new_cpl, ssp, frame)?;
    // The old task.
    if matches!(how, Switch::Jump | Switch::Return) {
        protection::set_type(h, old_tr.selector, 0, 2)?;
    }
    let mut saved_flags = h.rflags();
    if how == Switch::Return {
        saved_flags &= !rflags::NT;
    }
    let write = |h: &mut P, at: u64, size: u8, value: u64| h.write_system(old_tr.base.wrapping_add(at), size, value);
    write(h, old.ip, old.size, return_to)?;
    write(h, old.flags, old.size, saved_flags)?;
    for i in 0..8u8 {
        write(h, old.registers + u64::from(i) * u64::from(old.size), old.size, h.reg(RAX + i))?;
    }
    for i in 0..old.segment_count {
        write(h, old.segments + i as u64 * old.segment_step, 2, h.arch.segments[i].selector.into())?;
    }
    // The new one.
    let mut flags = flags;
    if how == Switch::Call {
        h.write_system(base, 2, old_tr.selector.into())?;
        flags |= rflags::NT;
    }
    if how != Switch::Return {
        protection::set_type(h, selector, 2, 0)?;
    }
    h.arch.tr = Segment { selector, base, limit: d.limit(), attributes: Attributes(a.0 | 2) };
    h.arch.cr0 |= cr0::TS;
    if let Some(cr3) = cr3.filter(|_| h.arch.cr0 & cr0::PG != 0) {
        control_registers::load_cr3(h, cr3)?;
    }
    h.arch.dr7 &= !0x155;
    let keep = if new.size == 2 { h.rflags() & 0xffff_0000 } else { 0 };
    h.set_rflags(flags | keep);
    h.all_changed();
    for (i, value) in registers.into_iter().enumerate() {
        let value = if new.size == 2 { value | 0xffff_0000 } else { value };
        h.set_reg(RAX + i as u8, value);
    }
    h.core.next_pc = ip;
    load_segments(h, selectors, ldt, ip, ext)?;
    let frame = Frame { cs: selectors[segments::CS], lip: h.core.next_pc };
    shadow_stack::enter_task(h, shadow, frame, refused)?;
    if let Some(error) = error {
        let mut stack = Stack::present(h);
        let size = if new.size == 4 { Size::Bits32 } else { Size::Bits16 };
        stack.push(h, &[error.into()], size, Exception::with(vector::SS, ext))?;
        h.set_reg(RSP, stack.sp);
    }
    if traps {
        debug::trap_behind(h, dr6::BT);
    }
    Ok(())
}

/// The segments of a new task. A fault here is the new task's.
fn load_segments(h: &mut P, selectors: [u16; 6], ldt: u16, ip: u64, ext: u16) -> Step {
    let refusal = Refusal::TS.with_ext(ext);
    for (i, selector) in selectors.into_iter().enumerate() {
        h.arch.segments[i] = null(selector);
    }
    h.arch.ldtr = null(ldt);
    if h.arch.is_v8086() {
        for (i, selector) in selectors.into_iter().enumerate() {
            let segment = protection::real(h, i, selector);
            h.set_segment(i, segment);
        }
        h.core.next_pc = h.linear_ip(ip);
        return protection::load_ldt(h, ldt, refusal);
    }
    let cs = selectors[segments::CS];
    let cpl = (cs & 3) as u8;
    // The privilege level is that of the new code from here on.
    h.arch.segments[segments::SS].attributes.0 |= u32::from(cpl) << 5;
    protection::load_ldt(h, ldt, refusal)?;
    h.fault_if(index_of(cs) == 0, Exception::with(vector::TS, ext))?;
    let d = descriptor(h, cs, refusal)?;
    let a = d.attributes();
    let fits = if a.is_conforming() { a.dpl() <= cpl } else { a.dpl() == cpl };
    h.fault_if(!a.is_code() || !fits, refusal.of(cs))?;
    h.fault_if(!a.is_present(), Exception::with(vector::NP, index_of(cs) | ext))?;
    let code = code_at(accessed(h, cs, d)?, cpl);
    h.set_segment(segments::CS, code);
    h.core.next_pc = h.linear_ip(ip);
    let (ss, d) = protection::stack(h, selectors[segments::SS], cpl, refusal)?;
    let stack = accessed(h, ss, d)?;
    h.set_segment(segments::SS, stack);
    for i in [segments::ES, segments::DS, segments::FS, segments::GS] {
        protection::load(h, i, selectors[i], refusal)?;
    }
    h.fault_if(ip > code.limit.into(), Exception::gp(ext))
}
