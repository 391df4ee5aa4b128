//! "A" Extension for Atomic Instructions (Zalrsc, Zaamo), Zabha, Zacas, Zawrs.
//!
//! All harts run on one host thread, so an instruction is atomic by itself. A reservation does not outlive its hart's
//! quantum, so no other hart's store need be compared with it.

use emu_core::engine::{Intent, Step, Stop, StopKind};

use super::Does::Call;
use super::{H, Insn, Row, illegal, row};
use crate::cpu::Ext;
use crate::hart::Reservation;
use crate::privileged::{cause, require_wrs};

const A: &[Ext] = &[Ext::A];
const ZABHA: &[Ext] = &[Ext::Zabha];
const ZACAS: &[Ext] = &[Ext::Zacas];

macro_rules! amo_rows {
    ($($funct5:literal $name:literal $op:expr;)*) => {
        [$(
            row(concat!($funct5, ".. ..... ..... 000 ..... 0101111"), concat!("amo", $name, ".b"), ZABHA, Call(|h, i| amo::<1>(h, i, $op))),
            row(concat!($funct5, ".. ..... ..... 001 ..... 0101111"), concat!("amo", $name, ".h"), ZABHA, Call(|h, i| amo::<2>(h, i, $op))),
            row(concat!($funct5, ".. ..... ..... 010 ..... 0101111"), concat!("amo", $name, ".w"), A, Call(|h, i| amo::<4>(h, i, $op))),
            row(concat!($funct5, ".. ..... ..... 011 ..... 0101111"), concat!("amo", $name, ".d"), A, Call(|h, i| amo::<8>(h, i, $op))),
        )*]
    };
}

/// AMOs: the operands are sign-extended, and so is the old value that goes to rd.
pub(crate) const AMO_ROWS: &[Row] = &amo_rows! {
    "00001" "swap" |_, y| y;
    "00000" "add" |x, y| x.wrapping_add(y);
    "00100" "xor" |x, y| x ^ y;
    "01100" "and" |x, y| x & y;
    "01000" "or" |x, y| x | y;
    "10000" "min" |x, y| (x as i64).min(y as i64) as u64;
    "10100" "max" |x, y| (x as i64).max(y as i64) as u64;
    "11000" "minu" |x, y| x.min(y);
    "11100" "maxu" |x, y| x.max(y);
};

pub(crate) const ROWS: &[Row] = &[
    row("00010 .. 00000 ..... 010 ..... 0101111", "lr.w", A, Call(lr::<4>)),
    row("00010 .. 00000 ..... 011 ..... 0101111", "lr.d", A, Call(lr::<8>)),
    row("00011 .. ..... ..... 010 ..... 0101111", "sc.w", A, Call(sc::<4>)),
    row("00011 .. ..... ..... 011 ..... 0101111", "sc.d", A, Call(sc::<8>)),
    row("00101 .. ..... ..... 000 ..... 0101111", "amocas.b", &[Ext::Zabha], Call(amocas_narrow::<1>)),
    row("00101 .. ..... ..... 001 ..... 0101111", "amocas.h", &[Ext::Zabha], Call(amocas_narrow::<2>)),
    row("00101 .. ..... ..... 010 ..... 0101111", "amocas.w", ZACAS, Call(amocas::<4>)),
    row("00101 .. ..... ..... 011 ..... 0101111", "amocas.d", ZACAS, Call(amocas::<8>)),
    row("00101 .. ..... ..... 100 ..... 0101111", "amocas.q", ZACAS, Call(amocas_q)),
    row("000000001101 00000 000 00000 1110011", "wrs.nto", &[Ext::Zawrs], Call(wrs)),
    row("000000011101 00000 000 00000 1110011", "wrs.sto", &[Ext::Zawrs], Call(wrs)),
];

fn sext<const SIZE: u8>(x: u64) -> u64 {
    let shift = 64 - 8 * u32::from(SIZE);
    ((x << shift) as i64 >> shift) as u64
}

fn set(h: &mut H, rd: u8, value: u64) {
    if rd != 0 {
        h.core.regs[usize::from(rd)] = value;
    }
}

/// Atomics must be naturally aligned.
fn require_aligned(va: u64, size: u64, code: u32) -> Step {
    if va & (size - 1) != 0 { Err(Stop::exception(code, va)) } else { Ok(()) }
}

fn amo<const SIZE: u8>(h: &mut H, i: Insn, op: impl Fn(u64, u64) -> u64) -> Step {
    let va = h.core.regs[usize::from(i.rs1())];
    require_aligned(va, SIZE.into(), cause::STORE_MISALIGNED)?;
    let place = h.resolve(va, SIZE, Intent::Write, 0)?;
    let old = sext::<SIZE>(h.load_at(place, SIZE)?);
    let new = op(old, sext::<SIZE>(h.core.regs[usize::from(i.rs2())]));
    h.store_at(place, SIZE, low::<SIZE>(new))?;
    set(h, i.rd(), old);
    Ok(())
}

fn low<const SIZE: u8>(x: u64) -> u64 {
    x & u64::MAX >> (64 - 8 * u32::from(SIZE))
}

/// LR.
fn lr<const SIZE: u8>(h: &mut H, i: Insn) -> Step {
    let va = h.core.regs[usize::from(i.rs1())];
    require_aligned(va, SIZE.into(), cause::LOAD_MISALIGNED)?;
    let place = h.resolve(va, SIZE, Intent::Read, 0)?;
    let value = h.load_at(place, SIZE)?;
    h.arch.reservation = Some(Reservation { pa: place.pa, size: SIZE });
    set(h, i.rd(), sext::<SIZE>(value));
    Ok(())
}

/// SC: succeeds where its own LR has reserved the same bytes.
fn sc<const SIZE: u8>(h: &mut H, i: Insn) -> Step {
    let va = h.core.regs[usize::from(i.rs1())];
    require_aligned(va, SIZE.into(), cause::STORE_MISALIGNED)?;
    let place = h.resolve(va, SIZE, Intent::Write, 0)?;
    let succeeds = h.arch.reservation.take() == Some(Reservation { pa: place.pa, size: SIZE });
    if succeeds {
        let value = low::<SIZE>(h.core.regs[usize::from(i.rs2())]);
        h.store_at(place, SIZE, value)?;
    }
    set(h, i.rd(), u64::from(!succeeds));
    Ok(())
}

/// AMOCAS of one register: rd is compared, and gets the old value.
fn amocas<const SIZE: u8>(h: &mut H, i: Insn) -> Step {
    let va = h.core.regs[usize::from(i.rs1())];
    require_aligned(va, SIZE.into(), cause::STORE_MISALIGNED)?;
    let place = h.resolve(va, SIZE, Intent::Write, 0)?;
    let old = h.load_at(place, SIZE)?;
    if old == low::<SIZE>(h.core.regs[usize::from(i.rd())]) {
        let new = low::<SIZE>(h.core.regs[usize::from(i.rs2())]);
        h.store_at(place, SIZE, new)?;
    }
    set(h, i.rd(), sext::<SIZE>(old));
    Ok(())
}

/// AMOCAS.B and AMOCAS.H are Zabha's where Zacas is there too.
fn amocas_narrow<const SIZE: u8>(h: &mut H, i: Insn) -> Step {
    if !h.arch.cpu.has(Ext::Zacas) {
        return illegal();
    }
    amocas::<SIZE>(h, i)
}

/// AMOCAS.Q: pairs of registers, the even one first; the pair of x0 is zero.
fn amocas_q(h: &mut H, i: Insn) -> Step {
    if (i.rd() | i.rs2()) & 1 != 0 {
        return illegal();
    }
    let va = h.core.regs[usize::from(i.rs1())];
    require_aligned(va, 16, cause::STORE_MISALIGNED)?;
    let pair = |h: &H, r: u8| if r == 0 { [0, 0] } else { [0, 1].map(|k| h.core.regs[usize::from(r) + k]) };
    let low = h.resolve(va, 8, Intent::Write, 0)?;
    let high = h.resolve(va + 8, 8, Intent::Write, 0)?;
    let old = [h.load_at(low, 8)?, h.load_at(high, 8)?];
    if old == pair(h, i.rd()) {
        let new = pair(h, i.rs2());
        h.store_at(low, 8, new[0])?;
        h.store_at(high, 8, new[1])?;
    }
    if i.rd() != 0 {
        set(h, i.rd(), old[0]);
        set(h, i.rd() + 1, old[1]);
    }
    Ok(())
}

/// WRS.NTO, WRS.STO: waits while the reservation stands. Others can break it only in their turn.
fn wrs(h: &mut H, i: Insn) -> Step {
    if h.arch.reservation.is_none() {
        return Ok(());
    }
    require_wrs(h, i)?;
    Err(Stop::of(StopKind::Yield))
}
