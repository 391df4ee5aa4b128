//! String instructions with a repeat prefix, and INS and OUTS (SDM vol. 1, "String Operations"; vol. 2B, "REP/REPE/REPZ/REPNE/REPNZ").
//!
//! A call does as many elements as lie in one page of RAM, where nothing can tell that from one after the other; else it does one.

use emu_core::engine::alu::AluOp;
use emu_core::engine::flags::Size;
use emu_core::engine::{Intent, Lift, Step};
use emu_core::ram::{PAGE_MASK, PAGE_SIZE};

use crate::extension::{Intercept, ask_after};
use crate::linear::Segmented;
use crate::processor::{P, flags, segments, set_flags};
use crate::registers::{DIRECTION, RAX, RCX, RDI, RDX, RSI, temp};
use crate::{io_instructions, smm};

/// What is done with an element.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Does {
    /// MOVS: from RSI to RDI.
    Move,
    /// STOS: the accumulator to RDI.
    Store,
    /// LODS: from RSI to the accumulator.
    Load,
    /// CMPS: RSI with RDI.
    Compare,
    /// SCAS: the accumulator with RDI.
    Scan,
    /// INS: from port DX to RDI.
    Input,
    /// OUTS: from RSI to port DX.
    Output,
}

/// An instruction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Repeat {
    pub what: Does,
    /// Of an element.
    pub size: Size,
    /// Of RCX, RSI and RDI.
    pub address: Size,
    /// Where RSI leads.
    pub segment: u8,
    /// It has a prefix.
    pub repeats: bool,
    /// The prefix is REPNE.
    pub until_equal: bool,
}

/// The function number of this module's call.
pub(crate) const FUNCTION: u16 = 0x181;

/// Bytes of an operation on strings that is short.
const SHORT: usize = 256;

/// A call does no more elements, so that what comes from outside is not kept waiting.
const MOST: u64 = 4096;
/// An element that is done by itself counts as so many, so that no instruction takes longer than a thousand others.
const ALONE: u64 = 32;

/// Lifts a call. It leaves in [`temp::TEST`] whether the instruction is to be run again.
pub(crate) fn lift(lift: &mut Lift, r: Repeat) {
    let log2 = |s: Size| u32::from(s.bytes()).trailing_zeros();
    let operand = r.what as u32
        | log2(r.size) << 3
        | log2(r.address) << 5
        | u32::from(r.segment) << 7
        | u32::from(r.repeats) << 10
        | u32::from(r.until_equal) << 11;
    lift.call(FUNCTION, operand);
}

impl Repeat {
    fn of(operand: u32) -> Self {
        use Does as D;
        const SIZES: [Size; 4] = [Size::Bits8, Size::Bits16, Size::Bits32, Size::Bits64];
        const WHAT: [Does; 8] = [D::Move, D::Store, D::Load, D::Compare, D::Scan, D::Input, D::Output, D::Output];
        Repeat {
            what: WHAT[(operand & 7) as usize],
            size: SIZES[(operand >> 3 & 3) as usize],
            address: SIZES[(operand >> 5 & 3) as usize],
            segment: (operand >> 7 & 7) as u8,
            repeats: operand >> 10 & 1 != 0,
            until_equal: operand >> 11 & 1 != 0,
        }
    }

    /// RSI counts.
    fn has_source(self) -> bool {
        matches!(self.what, Does::Move | Does::Load | Does::Compare | Does::Output)
    }

    /// RDI counts.
    fn has_destination(self) -> bool {
        matches!(self.what, Does::Move | Does::Store | Does::Compare | Does::Scan | Does::Input)
    }

    /// The value of a register in the address size.
    fn register(self, h: &P, r: u8) -> u64 {
        h.core.regs[usize::from(r)] & u64::MAX >> (64 - 8 * u32::from(self.address.bytes()))
    }

    /// Moves a register by so many elements.
    fn step(self, h: &mut P, r: u8, by: u64) {
        let old = h.core.regs[usize::from(r)];
        h.core.regs[usize::from(r)] = self.address.merge(old, old.wrapping_add(by));
    }

    /// The linear address of `elements` elements.
    fn source(self, h: &mut P, elements: u64) -> Step<u64> {
        let offset = self.register(h, RSI);
        h.linear(self.segment.into(), offset, (elements * u64::from(self.size.bytes())) as u32, false)
    }

    fn destination(self, h: &mut P, elements: u64) -> Step<u64> {
        let offset = self.register(h, RDI);
        let writes = matches!(self.what, Does::Move | Does::Store | Does::Input);
        h.linear(segments::ES, offset, (elements * u64::from(self.size.bytes())) as u32, writes)
    }

    /// Does one element, or faults before anything has changed.
    fn one(self, h: &mut P) -> Step {
        let size = self.size.bytes();
        let old = h.core.regs[usize::from(RAX)];
        match self.what {
            Does::Move => {
                let from = self.source(h, 1)?;
                let value = h.load(from, size, 0)?;
                let to = self.destination(h, 1)?;
                h.store(to, size, value, 0)?;
            }
            Does::Store => {
                let to = self.destination(h, 1)?;
                h.store(to, size, old, 0)?;
            }
            Does::Load => {
                let from = self.source(h, 1)?;
                h.core.regs[usize::from(RAX)] = self.size.merge(old, h.load(from, size, 0)?);
            }
            Does::Compare => {
                let from = self.source(h, 1)?;
                let a = h.load(from, size, 0)?;
                let to = self.destination(h, 1)?;
                let b = h.load(to, size, 0)?;
                self.compare(h, a, b);
            }
            Does::Scan => {
                let to = self.destination(h, 1)?;
                let b = h.load(to, size, 0)?;
                self.compare(h, old, b);
            }
            Does::Input => {
                let port = h.core.regs[usize::from(RDX)] & 0xffff;
                io_instructions::require_port(h, port, size)?;
                let repeats = self.repeats;
                ask_after(h, || Intercept::In { port: port as u16, size, string: true, repeats })?;
                let to = self.destination(h, 1)?;
                let place = h.resolve(to, size, Intent::Write, 0)?;
                let value = h.read_port(port, size);
                smm::note_io(h, port as u16, size, true, Some(repeats));
                h.store_at(place, size, value)?;
            }
            Does::Output => {
                let port = h.core.regs[usize::from(RDX)] & 0xffff;
                io_instructions::require_port(h, port, size)?;
                let repeats = self.repeats;
                ask_after(h, || Intercept::Out { port: port as u16, size, string: true, repeats })?;
                let from = self.source(h, 1)?;
                let value = h.load(from, size, 0)?;
                h.write_port(port, size, value);
                smm::note_io(h, port as u16, size, false, Some(repeats));
            }
        }
        self.advance(h, 1);
        Ok(())
    }

    fn compare(self, h: &mut P, a: u64, b: u64) {
        let shift = 64 - 8 * u32::from(self.size.bytes());
        let flags = AluOp::Sub.apply(a << shift, b << shift, shift, flags(&h.core.regs)).1;
        set_flags(&mut h.core.regs, flags);
    }

    /// RSI, RDI and RCX are as after so many elements.
    fn advance(self, h: &mut P, elements: u64) {
        let bytes = elements.wrapping_mul(self.size.bytes().into());
        let by = if h.core.regs[usize::from(DIRECTION)] == 0 { bytes } else { bytes.wrapping_neg() };
        if self.has_source() {
            self.step(h, RSI, by);
        }
        if self.has_destination() {
            self.step(h, RDI, by);
        }
        if self.repeats {
            self.step(h, RCX, elements.wrapping_neg());
        }
    }

    /// How many elements from `linear` on lie in its page.
    fn in_page(self, linear: u64) -> u64 {
        (PAGE_SIZE - (linear & PAGE_MASK)) / u64::from(self.size.bytes())
    }

    /// Moves or stores many elements at once, where that is the same as one after the other: upwards, in pages of RAM that nobody watches,
    /// and without an overlap that would repeat a pattern. Returns how many; 0 if it cannot be done so.
    fn many(self, h: &mut P, most: u64) -> Step<u64> {
        let bytes = u64::from(self.size.bytes());
        let is_up = h.core.regs[usize::from(DIRECTION)] == 0;
        if !is_up || !matches!(self.what, Does::Move | Does::Store) || most < 2 {
            return Ok(0);
        }
        // Of two operands the first may have to fault: one after the other.
        let Ok(to) = self.destination(h, 1) else { return Ok(0) };
        let mut n = most.min(self.in_page(to));
        let from = if self.what == Does::Move { self.source(h, 1)? } else { 0 };
        if self.what == Does::Move {
            n = n.min(self.in_page(from));
        }
        // Neither offset wraps, and all is within the limits.
        let room = (u64::MAX >> (64 - 8 * u32::from(self.address.bytes()))) / bytes;
        let highest = [RSI, RDI].map(|r| self.register(h, r) / bytes).into_iter().max().unwrap_or(0);
        n = n.min(room.saturating_sub(highest));
        let is_watched = h.world.debug.watches_page(to) || h.world.debug.watches_page(from);
        if n < 2 || is_watched || h.arch.watches_data() {
            return Ok(0);
        }
        if self.destination(h, n).is_err() || self.what == Does::Move && self.source(h, n).is_err() {
            return Ok(0);
        }
        let len = n * bytes;
        // Most are short, and to clear a page takes longer than all the rest then.
        let (mut short, mut page);
        let buffer: &mut [u8] = if len <= SHORT as u64 {
            short = [0; SHORT];
            &mut short
        } else {
            page = [0; PAGE_SIZE as usize];
            &mut page
        };
        let data = &mut buffer[..len as usize];
        if self.what == Does::Move {
            let source = h.resolve(from, 1, Intent::Read, 0)?.pa;
            let place = h.resolve(to, 1, Intent::Write, 0)?.pa;
            let repeats_itself = place > source && place < source + len;
            if repeats_itself || !h.world.ram.contains(place, len) || h.world.ram.read(source, data).is_err() {
                return Ok(0);
            }
            h.world.ram.write(place, data).expect("it is RAM");
        } else {
            let value = h.core.regs[usize::from(RAX)].to_le_bytes();
            data.chunks_exact_mut(bytes as usize).for_each(|e| e.copy_from_slice(&value[..bytes as usize]));
            let place = h.resolve(to, 1, Intent::Write, 0)?.pa;
            if h.world.ram.write(place, data).is_err() {
                return Ok(0);
            }
        }
        self.advance(h, n);
        Ok(n)
    }
}

/// Runs a call.
#[inline(never)]
pub(crate) fn call(h: &mut P, operand: u32) -> Step {
    let r = Repeat::of(operand);
    h.core.regs[usize::from(temp::TEST)] = 0;
    if !r.repeats {
        return r.one(h);
    }
    let count = r.register(h, RCX);
    // One after the other where each is looked at.
    let mut budget = if h.arch.is_stepped() { 1 } else { MOST };
    let mut left = count;
    while left > 0 && budget > 0 {
        let done = r.many(h, left.min(budget))?;
        if done == 0 {
            r.one(h)?;
        }
        left -= done.max(1);
        budget = budget.saturating_sub(if done == 0 { ALONE } else { done });
        if matches!(r.what, Does::Compare | Does::Scan) && flags(&h.core.regs).zero() == r.until_equal {
            return Ok(());
        }
        // Not wherever the run loop is to be gone back to: what blocks there are is nothing that a program may see.
        if h.core.check_interrupts || h.has_news() {
            break;
        }
    }
    h.core.regs[usize::from(temp::TEST)] = u64::from(r.register(h, RCX) != 0);
    Ok(())
}
