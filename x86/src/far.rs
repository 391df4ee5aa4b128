//! Control transfers between segments and privilege levels (SDM vol. 2A, "CALL", "JMP", "IRET/IRETD/IRETQ"; vol. 2B, "RET"; vol. 3A, "Privilege
//! Level Checking When Transferring Program Control Between Code Segments").

use emu_core::engine::Step;
use emu_core::engine::flags::Size;

use crate::control::rflags;
use crate::exception::{Exception, vector};
use crate::frame::Stack;
use crate::ibt;
use crate::linear::is_within;
use crate::ordinary::{self, Return};
use crate::processor::{P, ProcessorExt, segments};
use crate::protection::{self, Refusal, accessed, code_at, descriptor, null_stack};
use crate::registers::{RSP, SSP};
use crate::segment::{Attributes, Descriptor, Segment, index_of};
use crate::shadow_stack::{self, Frame};
use crate::task::{self, Switch};

/// A far JMP, or a far CALL.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Transfer {
    Jump,
    Call,
}

/// #GP(0) or #SS(0) of an instruction pointer beyond the segment's limit, or not canonical.
#[inline]
fn require_within(h: &P, code: &Segment, ip: u64) -> Step {
    let is_64 = is_64_bit(h, code);
    let fits = if is_64 { h.arch.is_canonical(ip) } else { ip <= code.limit.into() };
    h.fault_if(!fits, Exception::gp(0))
}

/// "IF stack not large enough": words at these offsets from the stack pointer are within the limit, before any is pushed or popped.
#[inline]
fn require_room(h: &P, stack: &Stack, offsets: impl IntoIterator<Item = i64>, size: Size, refusal: Exception) -> Step {
    if stack.is_64 {
        return Ok(());
    }
    let at = |offset: i64| stack.pointer().merge(0, stack.sp.wrapping_add(offset as u64));
    let fits = |offset| is_within(&stack.segment, at(offset), size.bytes().into());
    h.fault_if(stack.segment.attributes.is_unusable() || !offsets.into_iter().all(fits), refusal)
}

/// Offsets of so many words below the stack pointer, and from it on.
fn below(words: usize, size: Size) -> impl Iterator<Item = i64> {
    (1..=words as i64).map(move |i| -i * i64::from(size.bytes()))
}

fn above(words: i64, size: Size) -> impl Iterator<Item = i64> {
    (0..words).map(move |i| i * i64::from(size.bytes()))
}

const STACK_FAULT: Exception = Exception::with(vector::SS, 0);

/// CS becomes `code`, and the next instruction is at `ip` in it.
#[inline]
fn enter(h: &mut P, code: Segment, ip: u64) {
    h.set_segment(segments::CS, code);
    h.core.next_pc = h.linear_ip(ip);
}

/// Code with this descriptor is 64-bit code.
fn is_64_bit(h: &P, code: &Segment) -> bool {
    h.arch.is_long() && code.attributes.is_long()
}

/// What a shadow stack is to remember of the present code, which goes on behind this instruction.
fn present_frame(h: &P) -> Frame {
    Frame { cs: h.arch.segments[segments::CS].selector, lip: h.core.next_pc }
}

/// What it must remember of the code that is returned to.
fn returned_frame(h: &P, selector: u16, code: &Segment, ip: u64) -> Frame {
    let lip = if is_64_bit(h, code) { ip } else { code.base.wrapping_add(ip) & 0xffff_ffff };
    Frame { cs: selector, lip }
}

fn mask(size: Size, value: u64) -> u64 {
    size.merge(0, value)
}

/// Far JMP and CALL to `selector:offset`, with an operand size.
pub(crate) fn transfer(h: &mut P, how: Transfer, selector: u16, offset: u64, size: Size) -> Step {
    let offset = mask(size, offset);
    let return_to = [u64::from(h.arch.segments[segments::CS].selector), h.ip(h.core.next_pc)];
    if !h.arch.is_protected() {
        let code = protection::real(h, segments::CS, selector);
        let code =
            if h.arch.is_v8086() { code } else { Segment { attributes: Attributes(code.attributes.0 | 8), ..code } };
        let mut stack = Stack::present(h);
        if how == Transfer::Call {
            require_room(h, &stack, below(2, size), size, STACK_FAULT)?;
        }
        require_within(h, &code, offset)?;
        if how == Transfer::Call {
            stack.push(h, &return_to, size, STACK_FAULT)?;
            h.set_reg(RSP, stack.sp);
        }
        enter(h, code, offset);
        return Ok(());
    }
    h.fault_if(index_of(selector) == 0, Exception::gp(0))?;
    let d = descriptor(h, selector, Refusal::GP)?;
    let (a, cpl, rpl) = (d.attributes(), h.arch.cpl(), (selector & 3) as u8);
    let refused = Refusal::GP.of(selector);
    if a.is_code_or_data() {
        h.fault_if(!a.is_code(), refused)?;
        let fits = if a.is_conforming() { a.dpl() <= cpl } else { rpl <= cpl && a.dpl() == cpl };
        h.fault_if(!fits || h.arch.is_long() && a.is_long() && a.is_big(), refused)?;
        h.fault_if(!a.is_present(), Exception::with(vector::NP, index_of(selector)))?;
        return within(h, how, (selector, d), offset, &return_to, size);
    }
    h.fault_if(a.dpl() < cpl.max(rpl), refused)?;
    let switch = if how == Transfer::Jump { Switch::Jump } else { Switch::Call };
    let kind = a.kind();
    match (h.arch.is_long(), kind) {
        (true, 12) | (false, 4 | 12) => {
            h.fault_if(!a.is_present(), Exception::with(vector::NP, index_of(selector)))?;
            through_gate(h, how, selector, d)
        }
        (false, 1 | 9) => {
            h.fault_if(!a.is_present(), Exception::with(vector::NP, index_of(selector)))?;
            task::switch(h, selector, switch, None)
        }
        (false, 5) => {
            h.fault_if(!a.is_present(), Exception::with(vector::NP, index_of(selector)))?;
            task::switch(h, (d.0 >> 16) as u16, switch, None)
        }
        _ => Err(refused.into()),
    }
}

/// To code of the same level, whose descriptor has been checked.
fn within(
    h: &mut P,
    how: Transfer,
    (selector, d): (u16, Descriptor),
    ip: u64,
    return_to: &[u64; 2],
    size: Size,
) -> Step {
    let (cpl, frame) = (h.arch.cpl(), present_frame(h));
    let is_gate = h.arch.is_long() && size == Size::Bits64;
    let mut stack = Stack::present(h);
    stack.is_64 |= is_gate;
    if how == Transfer::Call {
        require_room(h, &stack, below(2, size), size, STACK_FAULT)?;
    }
    require_within(h, &d.segment(selector), ip)?;
    if how == Transfer::Call {
        stack.push(h, return_to, size, STACK_FAULT)?;
    }
    let code = code_at(accessed(h, selector, d)?, cpl);
    let to_64 = is_64_bit(h, &code);
    if how == Transfer::Call {
        shadow_stack::enter(h, cpl, None, to_64, frame)?.commit(h);
        h.set_reg(RSP, stack.sp);
    } else {
        shadow_stack::require_reach(h, to_64)?;
    }
    enter(h, code, ip);
    ibt::wait(h, cpl);
    Ok(())
}

/// A call gate ("Accessing a Code Segment Through a Call Gate", "Stack Switching in IA-32e Mode").
fn through_gate(h: &mut P, how: Transfer, gate_selector: u16, gate: Descriptor) -> Step {
    let is_long = h.arch.is_long();
    let mut target = gate.0 & 0xffff | gate.0 >> 32 & 0xffff_0000;
    if is_long {
        let (low, high) = system_gate(h, gate_selector)?;
        target = low & 0xffff | low >> 32 & 0xffff_0000 | high << 32;
    }
    let size = match (is_long, gate.attributes().kind()) {
        (true, _) => Size::Bits64,
        (_, 4) => Size::Bits16,
        _ => Size::Bits32,
    };
    let target = if size == Size::Bits16 { target & 0xffff } else { target };
    let selector = (gate.0 >> 16) as u16;
    h.fault_if(index_of(selector) == 0, Exception::gp(0))?;
    let d = descriptor(h, selector, Refusal::GP)?;
    let (a, cpl) = (d.attributes(), h.arch.cpl());
    let refused = Refusal::GP.of(selector);
    h.fault_if(!a.is_code() || a.dpl() > cpl, refused)?;
    h.fault_if(is_long && (!a.is_long() || a.is_big()), refused)?;
    h.fault_if(how == Transfer::Jump && !a.is_conforming() && a.dpl() != cpl, refused)?;
    h.fault_if(!a.is_present(), Exception::with(vector::NP, index_of(selector)))?;
    let code = d.segment(selector);
    let return_to = [u64::from(h.arch.segments[segments::CS].selector), h.ip(h.core.next_pc)];
    if how == Transfer::Jump || a.is_conforming() || a.dpl() == cpl {
        return within(h, how, (selector, d), target, &return_to, size);
    }
    // To an inner level, on its stack, with so many words of the old one.
    let new_cpl = a.dpl();
    let old = Stack::present(h);
    let mut stack = task::inner_stack(h, new_cpl, 0)?;
    let refusal = Exception::with(vector::SS, index_of(stack.segment.selector));
    let count = if is_long { 0 } else { (gate.0 >> 32 & 31) as i64 };
    require_room(h, &stack, below(4 + count as usize, size), size, refusal)?;
    require_within(h, &code, target)?;
    let mut words = vec![u64::from(old.segment.selector), old.sp];
    if !is_long {
        for i in (0..count).rev() {
            words.push(old.peek(h, i, size)?);
        }
    }
    words.extend(return_to);
    stack.push(h, &words, size, refusal)?;
    let code = code_at(accessed(h, selector, d)?, new_cpl);
    let shadow = shadow_stack::switched_to(h, new_cpl, 0)?;
    let (to_64, frame) = (is_64_bit(h, &code), present_frame(h));
    shadow_stack::enter(h, new_cpl, shadow, to_64, frame)?.commit(h);
    h.set_segment(segments::SS, stack.segment);
    h.set_reg(RSP, stack.sp);
    enter(h, code, target);
    ibt::wait(h, new_cpl);
    Ok(())
}

/// Both halves of a 64-bit call gate.
fn system_gate(h: &mut P, selector: u16) -> Step<(u64, u64)> {
    let (d, _) = protection::system_descriptor(h, selector, Refusal::GP)?;
    let high = descriptor(h, selector.wrapping_add(8), Refusal::GP)?;
    Ok((d.0, high.0))
}

/// The code segment that a return goes to, whose RPL is the new privilege level.
#[inline(always)]
fn returned_code(h: &mut P, selector: u16) -> Step<Descriptor> {
    h.fault_if(index_of(selector) == 0, Exception::gp(0))?;
    let code = descriptor(h, selector, Refusal::GP)?;
    let (a, rpl) = (code.attributes(), (selector & 3) as u8);
    let refused = Refusal::GP.of(selector);
    h.fault_if(!a.is_code() || rpl < h.arch.cpl(), refused)?;
    h.fault_if(if a.is_conforming() { a.dpl() > rpl } else { a.dpl() != rpl }, refused)?;
    h.fault_if(h.arch.is_long() && a.is_long() && a.is_big(), refused)?;
    h.fault_if(!a.is_present(), Exception::with(vector::NP, index_of(selector)))?;
    Ok(code)
}

/// The stack that a return to level `rpl` goes to; to 64-bit code it may be null, but not at level 3.
#[inline(always)]
fn returned_stack(h: &mut P, selector: u16, rpl: u8, to_64: bool) -> Step<Segment> {
    if index_of(selector) == 0 && to_64 && rpl != 3 && selector & 3 == u16::from(rpl) {
        return Ok(null_stack(rpl));
    }
    let (selector, d) = protection::stack(h, selector, rpl, Refusal::GP)?;
    accessed(h, selector, d)
}

/// RET, far, which releases so many bytes.
pub(crate) fn ret(h: &mut P, size: Size, release: u16) -> Step {
    let stack = Stack::present(h);
    require_room(h, &stack, above(2, size), size, STACK_FAULT)?;
    let (ip, selector) = (stack.peek(h, 0, size)?, stack.peek(h, 1, size)? as u16);
    let popped = 2 * i64::from(size.bytes()) + i64::from(release);
    if !h.arch.is_protected() {
        let code = protection::real(h, segments::CS, selector);
        let code =
            if h.arch.is_v8086() { code } else { Segment { attributes: Attributes(code.attributes.0 | 8), ..code } };
        require_within(h, &code, ip)?;
        h.set_reg(RSP, stack.moved(popped));
        enter(h, code, ip);
        return Ok(());
    }
    let d = returned_code(h, selector)?;
    let rpl = (selector & 3) as u8;
    let code = d.segment(selector);
    require_within(h, &code, ip)?;
    let (to_64, frame) = (is_64_bit(h, &code), returned_frame(h, selector, &code, ip));
    if rpl == h.arch.cpl() {
        let code = accessed(h, selector, d)?;
        let ssp = shadow_stack::leave_within(h, to_64, frame, false)?;
        h.set_reg(SSP, ssp);
        h.set_reg(RSP, stack.moved(popped));
        enter(h, code, ip);
        return Ok(());
    }
    require_room(h, &stack, [popped, popped + i64::from(size.bytes())], size, STACK_FAULT)?;
    let sp = stack.peek_at(h, popped, size)?;
    let ss = stack.peek_at(h, popped + i64::from(size.bytes()), size)? as u16;
    let segment = returned_stack(h, ss, rpl, to_64)?;
    let code = accessed(h, selector, d)?;
    let ssp = shadow_stack::leave_outward(h, rpl, to_64, frame)?;
    h.set_reg(SSP, ssp);
    h.set_segment(segments::SS, segment);
    let outer = Stack { segment, sp: mask(size, sp), cpl: rpl, is_64: to_64 };
    let sp = if outer.pointer() == Size::Bits16 { Size::Bits16.merge(h.reg(RSP), sp) } else { outer.sp };
    h.set_reg(RSP, Stack { sp, ..outer }.moved(release.into()));
    enter(h, code, ip);
    protection::drop_segments(h, rpl);
    Ok(())
}

/// Flags that an IRET or POPF to `size` may change at this privilege level.
#[inline]
pub(crate) fn changeable(h: &P, size: Size) -> u64 {
    let mut mask = emu_core::engine::flags::ALL | rflags::TF | rflags::DF | rflags::NT;
    if size != Size::Bits16 {
        mask |= rflags::AC | rflags::ID | rflags::RF;
    }
    let cpl = h.arch.cpl();
    if cpl <= h.arch.iopl() {
        mask |= rflags::IF;
    }
    if cpl == 0 {
        mask |= 3 << 12;
    }
    mask
}

/// IRET, IRETD, IRETQ.
pub(crate) fn iret(h: &mut P, size: Size) -> Step {
    if crate::extension::iret_unblocks_nmi(h) && h.arch.nmi_blocked {
        h.arch.nmi_blocked = false;
        h.all_changed();
    }
    if h.arch.is_v8086() {
        if h.arch.iopl() == 3 {
            return iret_real(h, size);
        }
        return if size == Size::Bits16 { iret_vme(h) } else { Err(Exception::gp(0).into()) };
    }
    if !h.arch.is_protected() {
        return iret_real(h, size);
    }
    if h.arch.rflags & rflags::NT != 0 {
        h.fault_if(h.arch.is_long(), Exception::gp(0))?;
        return task::back(h);
    }
    if size == Size::Bits64
        && let Some(Return { code, ip, flags, stack, sp }) = ordinary::iret(h)
    {
        complete_iret(h, size, (code, ip), flags, Some(stack), sp);
        return Ok(());
    }
    let stack = Stack::present(h);
    require_room(h, &stack, above(3, size), size, STACK_FAULT)?;
    let [ip, cs, flags] = [0, 1, 2].map(|i| stack.peek(h, i, size));
    let (ip, selector, flags) = (ip?, cs? as u16, flags?);
    let cpl = h.arch.cpl();
    if size == Size::Bits32 && flags & rflags::VM != 0 && cpl == 0 && !h.arch.is_long() {
        return to_v8086(h, &stack, ip, selector, flags);
    }
    let d = returned_code(h, selector)?;
    let rpl = (selector & 3) as u8;
    let code = d.segment(selector);
    require_within(h, &code, ip)?;
    let (to_64, left) = (is_64_bit(h, &code), returned_frame(h, selector, &code, ip));
    let bytes = i64::from(size.bytes());
    // 64-bit code always pops a stack.
    let outer = if rpl != cpl || h.arch.is_64() {
        require_room(h, &stack, [3 * bytes, 4 * bytes], size, STACK_FAULT)?;
        let (sp, ss) = (stack.peek(h, 3, size)?, stack.peek(h, 4, size)?);
        Some((sp, returned_stack(h, ss as u16, rpl, to_64)?))
    } else {
        None
    };
    let code = accessed(h, selector, d)?;
    let ssp = if rpl == cpl {
        shadow_stack::leave_within(h, to_64, left, true)?
    } else {
        shadow_stack::leave_outward(h, rpl, to_64, left)?
    };
    h.set_reg(SSP, ssp);
    let sp = match outer {
        None => stack.moved(3 * bytes),
        // In 64-bit code's frame there are 64 bits of it; else a 16-bit stack keeps the rest.
        Some((sp, _)) if size == Size::Bits64 => sp,
        Some((sp, segment)) => {
            let to = Stack { segment, sp, cpl: rpl, is_64: to_64 };
            to.pointer().merge(h.reg(RSP), mask(size, sp))
        }
    };
    complete_iret(h, size, (code, ip), flags, outer.map(|(_, segment)| segment), sp);
    Ok(())
}

/// What is left to do when nothing can fail any more.
#[inline(always)]
fn complete_iret(h: &mut P, size: Size, (code, ip): (Segment, u64), flags: u64, stack: Option<Segment>, sp: u64) {
    let (cpl, rpl) = (h.arch.cpl(), (code.selector & 3) as u8);
    let mut mask = changeable(h, size);
    if cpl == 0 && size != Size::Bits16 {
        mask |= rflags::VIF | rflags::VIP;
    }
    // All arithmetic flags come from the frame.
    let new = h.control_flags() & !mask | flags & mask;
    if let Some(stack) = stack {
        h.set_segment(segments::SS, stack);
    }
    h.set_rflags(new);
    h.set_reg(RSP, sp);
    enter(h, code, ip);
    if rpl > cpl {
        protection::drop_segments(h, rpl);
    }
}

/// In real mode, and in virtual-8086 mode with IOPL 3.
fn iret_real(h: &mut P, size: Size) -> Step {
    let stack = Stack::present(h);
    require_room(h, &stack, above(3, size), size, STACK_FAULT)?;
    let [ip, cs, flags] = [0, 1, 2].map(|i| stack.peek(h, i, size));
    let (ip, selector, flags) = (ip?, cs? as u16, flags?);
    let code = protection::real(h, segments::CS, selector);
    let code = if h.arch.is_v8086() { code } else { Segment { attributes: Attributes(code.attributes.0 | 8), ..code } };
    require_within(h, &code, ip)?;
    let mut mask = changeable(h, size) | rflags::IF;
    if !h.arch.is_v8086() {
        mask |= 3 << 12;
    }
    let new = h.rflags() & !mask | flags & mask;
    h.set_reg(RSP, stack.moved(3 * i64::from(size.bytes())));
    h.set_rflags(new);
    enter(h, code, ip);
    Ok(())
}

/// In virtual-8086 mode with IOPL below 3 and CR4.VME: IF stands for VIF ("Virtual Interrupt Flag").
fn iret_vme(h: &mut P) -> Step {
    use crate::control::cr4;
    h.fault_if(h.arch.cr4 & cr4::VME == 0, Exception::gp(0))?;
    let stack = Stack::present(h);
    let [ip, cs, flags] = [0, 1, 2].map(|i| stack.peek(h, i, Size::Bits16));
    let (ip, selector, flags) = (ip?, cs? as u16, flags?);
    let wants = flags & rflags::IF != 0;
    h.fault_if(flags & rflags::TF != 0 || wants && h.arch.rflags & rflags::VIP != 0, Exception::gp(0))?;
    let code = protection::real(h, segments::CS, selector);
    require_within(h, &code, ip)?;
    let mask = changeable(h, Size::Bits16) & !rflags::IF;
    let vif = if wants { rflags::VIF } else { 0 };
    let new = h.rflags() & !(mask | rflags::VIF) | flags & mask | vif;
    h.set_reg(RSP, stack.moved(6));
    h.set_rflags(new);
    enter(h, code, ip);
    Ok(())
}

/// IRETD at level 0 to virtual-8086 mode.
fn to_v8086(h: &mut P, stack: &Stack, ip: u64, cs: u16, flags: u64) -> Step {
    let mut words = [0; 9];
    for (i, word) in words.iter_mut().enumerate() {
        *word = stack.peek(h, i as i64, Size::Bits32)?;
    }
    h.fault_if(ip & 0xffff_ffff > 0xffff, Exception::gp(0))?;
    shadow_stack::leave_to_v8086(h)?;
    h.set_rflags(flags);
    let [_, _, _, sp, ss, es, ds, fs, gs] = words;
    for (i, selector) in
        [(segments::SS, ss), (segments::ES, es), (segments::DS, ds), (segments::FS, fs), (segments::GS, gs)]
    {
        let segment = protection::real(h, i, selector as u16);
        h.set_segment(i, segment);
    }
    h.set_reg(RSP, sp & 0xffff_ffff);
    let code = protection::real(h, segments::CS, cs);
    enter(h, code, ip & 0xffff);
    Ok(())
}
