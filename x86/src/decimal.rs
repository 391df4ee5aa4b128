//! "Decimal Arithmetic Instructions" (SDM vol. 1, 5.1.3). Flags that the manual leaves undefined are what processors leave: S, Z and P of the
//! result, O clear.

use emu_core::engine::Step;
use emu_core::engine::flags::{ADJUST, CARRY, Flags, PARITY, SIGN, ZERO};

use crate::exception::{Exception, vector};
use crate::processor::{P, ProcessorExt, flags, set_flags};
use crate::registers::RAX;

fn finish(h: &mut P, ax: u64, carry: bool, adjust: bool) -> Step {
    let al = ax as u8;
    let flag = |is: bool, flag: u64| if is { flag } else { 0 };
    let all = flag(carry, CARRY)
        | flag(adjust, ADJUST)
        | flag(al == 0, ZERO)
        | flag(al >> 7 != 0, SIGN)
        | flag(al.count_ones().is_multiple_of(2), PARITY);
    set_flags(&mut h.core.regs, Flags::eager(all));
    let rax = h.reg(RAX) & !0xffff | ax & 0xffff;
    h.set_reg(RAX, rax);
    Ok(())
}

fn before(h: &P) -> (u64, bool, bool) {
    let f = flags(&h.core.regs);
    (h.reg(RAX) & 0xffff, f.carry(), f.adjust())
}

/// AAA and AAS.
fn ascii(h: &mut P, by: u64) -> Step {
    let (ax, _, adjust) = before(h);
    let adjusts = ax & 15 > 9 || adjust;
    let ax = if adjusts { ax.wrapping_add(by) } else { ax };
    finish(h, ax & 0xff0f, adjusts, adjusts)
}

pub(crate) fn aaa(h: &mut P, _: u32) -> Step {
    ascii(h, 0x106)
}

pub(crate) fn aas(h: &mut P, _: u32) -> Step {
    ascii(h, 0x106_u64.wrapping_neg())
}

/// DAA and DAS.
fn packed(h: &mut P, is_sum: bool) -> Step {
    let (ax, carry, adjust) = before(h);
    let al = ax as u8;
    let (low, high) = (al & 15 > 9 || adjust, al > 0x99 || carry);
    let by = if low { 6 } else { 0 } + if high { 0x60 } else { 0 };
    let (new, borrow) = if is_sum { (al.wrapping_add(by), false) } else { (al.wrapping_sub(by), low && al < 6) };
    finish(h, ax & 0xff00 | u64::from(new), high || borrow, low)
}

pub(crate) fn daa(h: &mut P, _: u32) -> Step {
    packed(h, true)
}

pub(crate) fn das(h: &mut P, _: u32) -> Step {
    packed(h, false)
}

pub(crate) fn aam(h: &mut P, base: u32) -> Step {
    h.fault_if(base == 0, Exception::plain(vector::DE))?;
    let al = h.reg(RAX) & 0xff;
    let (high, low) = (al / u64::from(base), al % u64::from(base));
    finish(h, high << 8 | low, false, false)
}

pub(crate) fn aad(h: &mut P, base: u32) -> Step {
    let ax = h.reg(RAX) & 0xffff;
    finish(h, (ax + (ax >> 8) * u64::from(base)) & 0xff, false, false)
}
