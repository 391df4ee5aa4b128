//! Frames that the processor itself pushes and pops: of interrupts, calls through gates, far calls and their returns.

use emu_core::engine::flags::Size;
use emu_core::engine::{Intent, Step};

use crate::exception::{Exception, vector};
use crate::linear::is_within;
use crate::processor::{AS_PROCESSOR, P, ProcessorExt, segments};
use crate::registers::RSP;
use crate::segment::Segment;

/// A stack: its segment and its pointer.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Stack {
    pub segment: Segment,
    pub sp: u64,
    /// The privilege level that pushes.
    pub cpl: u8,
    /// The stack of 64-bit code.
    pub is_64: bool,
}

impl Stack {
    /// The present one.
    #[inline]
    pub(crate) fn present(h: &P) -> Stack {
        Stack { segment: h.arch.segments[segments::SS], sp: h.reg(RSP), cpl: h.arch.cpl(), is_64: h.arch.is_64() }
    }

    /// The size of the stack pointer.
    #[inline]
    pub(crate) fn pointer(&self) -> Size {
        match (self.is_64, self.segment.attributes.is_big()) {
            (true, _) => Size::Bits64,
            (_, true) => Size::Bits32,
            _ => Size::Bits16,
        }
    }

    /// The stack pointer, moved.
    #[inline]
    pub(crate) fn moved(&self, by: i64) -> u64 {
        self.pointer().merge(self.sp, self.sp.wrapping_add(by as u64))
    }

    /// The linear address of `size` bytes at an offset from the stack pointer.
    #[inline]
    fn linear(&self, h: &P, offset: i64, size: u8, refusal: Exception) -> Step<u64> {
        if self.is_64 {
            return Ok(self.sp.wrapping_add(offset as u64));
        }
        let at = self.pointer().merge(0, self.sp.wrapping_add(offset as u64));
        let usable = !self.segment.attributes.is_unusable();
        h.fault_if(!usable || !is_within(&self.segment, at, size.into()), refusal)?;
        Ok((self.segment.base.wrapping_add(at)) & 0xffff_ffff)
    }

    #[inline]
    fn as_whom(&self, h: &P) -> u8 {
        // Of the level that is gone to, whoever is there now.
        if self.cpl == 3 || self.cpl == h.arch.cpl() { 0 } else { AS_PROCESSOR }
    }

    /// Pushes words of `size`, all of them or none. `refusal` is what it causes that they lie beyond the limit.
    #[inline]
    pub(crate) fn push(&mut self, h: &mut P, words: &[u64], size: Size, refusal: Exception) -> Step {
        let (bytes, as_whom) = (size.bytes(), self.as_whom(h));
        for i in [1, words.len() as i64] {
            let at = self.linear(h, -i * i64::from(bytes), bytes, refusal)?;
            h.fault_if(self.is_64 && !h.arch.is_canonical(at), refusal)?;
            h.resolve(at, bytes, Intent::Write, as_whom)?;
        }
        for (i, word) in words.iter().enumerate() {
            let at = self.linear(h, -(i as i64 + 1) * i64::from(bytes), bytes, refusal)?;
            h.store(at, bytes, *word, as_whom)?;
        }
        self.sp = self.moved(-(words.len() as i64) * i64::from(bytes));
        Ok(())
    }

    /// Reads word `i` of `size` from the top, which is number 0.
    pub(crate) fn peek(&self, h: &mut P, i: i64, size: Size) -> Step<u64> {
        let bytes = size.bytes();
        self.peek_at(h, i * i64::from(bytes), size)
    }

    /// Reads a word at an offset from the top.
    pub(crate) fn peek_at(&self, h: &mut P, offset: i64, size: Size) -> Step<u64> {
        let at = self.linear(h, offset, size.bytes(), Exception::with(vector::SS, 0))?;
        h.load(at, size.bytes(), 0)
    }
}
