//! From an offset in a segment to a linear address, with the checks of protection (SDM vol. 3A, "Limit Checking", "Type Checking").

use emu_core::engine::{Lift, Step};

use crate::exception::{Exception, vector};
use crate::processor::{P, base_of, segments};
use crate::registers::temp;
use crate::segment::Segment;

/// Function number of the call that makes an offset in [`temp::ADDRESS`] a linear address.
pub(crate) const FUNCTION: u16 = 0x180;

/// Lifts the check of an access of `size` bytes to the offset in [`temp::ADDRESS`], which becomes a linear address.
pub(crate) fn lift(lift: &mut Lift, segment: usize, size: u32, writes: bool) {
    lift.call(FUNCTION, segment as u32 | u32::from(writes) << 3 | size << 8);
}

/// Runs it.
#[inline(never)]
pub(crate) fn call(h: &mut P, operand: u32) -> Step {
    let offset = h.core.regs[usize::from(temp::ADDRESS)];
    let linear = h.linear((operand & 7) as usize, offset, operand >> 8, operand & 8 != 0)?;
    h.core.regs[usize::from(temp::ADDRESS)] = linear;
    Ok(())
}

/// Whether `size` bytes at `offset` are within a segment's limit.
pub(crate) fn is_within(s: &Segment, offset: u64, size: u32) -> bool {
    let last = offset + u64::from(size) - 1;
    let a = s.attributes;
    let is_expand_down = a.is_code_or_data() && a.0 & 12 == 4;
    if is_expand_down {
        let top: u64 = if a.is_big() { 0xffff_ffff } else { 0xffff };
        offset > s.limit.into() && last <= top
    } else {
        last <= s.limit.into()
    }
}

/// Accesses to memory through segments, for what is not in the data path.
pub(crate) trait Segmented {
    /// The linear address of `size` bytes at an offset into a segment, or #GP(0), #SS(0). Canonical addresses are the walk's concern.
    fn linear(&mut self, segment: usize, offset: u64, size: u32, writes: bool) -> Step<u64>;
}

impl Segmented for P<'_> {
    fn linear(&mut self, segment: usize, offset: u64, size: u32, writes: bool) -> Step<u64> {
        let base = base_of(self, segment);
        if self.arch.is_64() {
            return Ok(offset.wrapping_add(base));
        }
        let s = self.arch.segments[segment];
        let a = s.attributes;
        // In real mode code can be written.
        let is_allowed = if writes { a.is_writable_data() || !self.arch.is_protected() } else { a.is_readable() };
        if a.is_unusable() || !is_allowed || !is_within(&s, offset, size) {
            let vector = if segment == segments::SS { vector::SS } else { vector::GP };
            return Err(Exception::with(vector, 0).into());
        }
        Ok((offset as u32).wrapping_add(base as u32).into())
    }
}
