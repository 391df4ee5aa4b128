//! Conversion between formats, from and to integers, and to integral values.

use super::round::{Kind, Unpacked, note_denormal, propagate, round_off, round_pack, rounds_up, unpack};
use super::{Env, F64, Flags, Format, IntRule, Round, Significand};

/// Converts from one format to another. A NaN keeps its sign and the high bits of its payload, where the environment's
/// [`NanRule`](super::NanRule) lets it.
pub fn convert<From: Format, To: Format>(a: From::Bits, env: &mut Env) -> To::Bits {
    let x = unpack::<From>(env, a);
    if x.is_nan() {
        // Any wider payload is cut off, without a sticky bit.
        let below = u128::MAX >> (1 + To::PRECISION);
        let sig = To::Sig::from_u128(x.sig.to_u128() & !below);
        return propagate::<To>(env, &[Unpacked { sign: x.sign, kind: x.kind, subnormal: false, exp: 0, sig }]);
    }
    note_denormal(env, x.subnormal);
    match x.kind {
        Kind::Zero => To::zero(x.sign),
        Kind::Infinite => To::infinity(x.sign),
        _ => round_pack::<To>(env, x.sign, x.exp, To::Sig::from_u128(x.sig.to_u128())),
    }
}

fn from_integer<F: Format>(sign: bool, magnitude: u64, env: &mut Env) -> F::Bits {
    if magnitude == 0 {
        return F::zero(false);
    }
    let shift = magnitude.leading_zeros();
    let sig = F::Sig::from_u128(u128::from(magnitude << shift) << 63);
    round_pack::<F>(env, sign, 63 - shift as i32, sig)
}

/// Converts from a signed 32-bit integer.
pub fn from_i32<F: Format>(value: i32, env: &mut Env) -> F::Bits {
    from_integer::<F>(value < 0, u64::from(value.unsigned_abs()), env)
}

/// Converts from an unsigned 32-bit integer.
pub fn from_u32<F: Format>(value: u32, env: &mut Env) -> F::Bits {
    from_integer::<F>(false, u64::from(value), env)
}

/// Converts from a signed 64-bit integer.
pub fn from_i64<F: Format>(value: i64, env: &mut Env) -> F::Bits {
    from_integer::<F>(value < 0, value.unsigned_abs(), env)
}

/// Converts from an unsigned 64-bit integer.
pub fn from_u64<F: Format>(value: u64, env: &mut Env) -> F::Bits {
    from_integer::<F>(false, value, env)
}

/// Rounds the magnitude of a finite number below 2^64 to an integer. Returns that, and whether it is inexact.
fn round_to_int<S: Significand>(x: &Unpacked<S>, round: Round) -> (u128, bool) {
    let sig = x.sig.to_u128(); // the leading one is bit 126
    let (int, half, rest) = if x.exp < -1 {
        (0, false, true)
    } else {
        let below = (126 - x.exp) as u32; // 63 ..= 127 bits below the point
        (sig >> below, sig >> (below - 1) & 1 != 0, sig & ((1 << (below - 1)) - 1) != 0)
    };
    let up = rounds_up(round, x.sign, int & 1 != 0, half, rest);
    (int + u128::from(up), half || rest)
}

/// Converts to an integer of `bits` bits, sign- or zero-extended to 64.
///
/// A subnormal operand raises no DENORMAL: on x86 these conversions do not have that exception.
fn to_integer<F: Format>(a: F::Bits, round: Round, bits: u32, signed: bool, env: &mut Env) -> u64 {
    let x = unpack::<F>(env, a);
    let largest = u64::MAX >> (64 - bits + u32::from(signed));
    let smallest = if signed { !largest } else { 0 };
    let in_range = match x.kind {
        Kind::Zero => return 0,
        Kind::Finite if x.exp < 64 => {
            let (magnitude, inexact) = round_to_int(&x, round);
            let limit = if x.sign { smallest.wrapping_neg() } else { largest };
            (magnitude <= u128::from(limit)).then_some((magnitude as u64, inexact))
        }
        _ => None,
    };
    if let Some((magnitude, inexact)) = in_range {
        if inexact {
            env.raise(Flags::INEXACT);
        }
        return if x.sign { magnitude.wrapping_neg() } else { magnitude };
    }
    env.raise(Flags::INVALID);
    match env.integers {
        IntRule::SaturateNanMax if x.is_nan() => largest,
        IntRule::SaturateNanZero if x.is_nan() => 0,
        IntRule::SaturateNanMax | IntRule::SaturateNanZero => {
            if x.sign {
                smallest
            } else {
                largest
            }
        }
        IntRule::Indefinite => {
            if signed {
                smallest
            } else {
                largest
            }
        }
    }
}

/// Converts to a signed 16-bit integer, rounding as `round` says.
pub fn to_i16<F: Format>(a: F::Bits, round: Round, env: &mut Env) -> i16 {
    to_integer::<F>(a, round, 16, true, env) as i16
}

/// Converts to an unsigned 16-bit integer, rounding as `round` says.
pub fn to_u16<F: Format>(a: F::Bits, round: Round, env: &mut Env) -> u16 {
    to_integer::<F>(a, round, 16, false, env) as u16
}

/// Converts to a signed 32-bit integer, rounding as `round` says.
pub fn to_i32<F: Format>(a: F::Bits, round: Round, env: &mut Env) -> i32 {
    to_integer::<F>(a, round, 32, true, env) as i32
}

/// Converts to an unsigned 32-bit integer, rounding as `round` says.
pub fn to_u32<F: Format>(a: F::Bits, round: Round, env: &mut Env) -> u32 {
    to_integer::<F>(a, round, 32, false, env) as u32
}

/// Converts to a signed 64-bit integer, rounding as `round` says.
pub fn to_i64<F: Format>(a: F::Bits, round: Round, env: &mut Env) -> i64 {
    to_integer::<F>(a, round, 64, true, env) as i64
}

/// Converts to an unsigned 64-bit integer, rounding as `round` says.
pub fn to_u64<F: Format>(a: F::Bits, round: Round, env: &mut Env) -> u64 {
    to_integer::<F>(a, round, 64, false, env)
}

/// The low 32 bits of the operand truncated to an integer of unbounded width; zero for infinities and NaNs. The flags are
/// those of the truncating [`to_i32`]. RISC-V, Zfa: FCVTMOD.W.D.
pub fn fcvtmod_w_d(a: u64, env: &mut Env) -> i32 {
    to_i32::<F64>(a, Round::TowardZero, env);
    let x = unpack::<F64>(env, a);
    if x.kind != Kind::Finite {
        return 0;
    }
    // The lowest bit of a significand is bit 10; at an exponent of 62 + 22 it leaves the low 32 bits.
    let magnitude = match x.exp {
        0..=62 => x.sig >> (62 - x.exp),
        63..=83 => x.sig << (x.exp - 62),
        _ => 0,
    };
    let low = magnitude as i32;
    if x.sign { low.wrapping_neg() } else { low }
}

/// Rounds to an integral value in the same format, as `round` says. INEXACT is raised only where `exact`.
///
/// RISC-V, Zfa: FROUND (not `exact`), FROUNDNX (`exact`). Arm: FRINTX is `exact`, the other FRINTs are not.
pub fn round_to_integral<F: Format>(a: F::Bits, round: Round, exact: bool, env: &mut Env) -> F::Bits {
    let x = unpack::<F>(env, a);
    if x.is_nan() {
        return propagate::<F>(env, &[x]);
    }
    note_denormal(env, x.subnormal);
    match x.kind {
        Kind::Zero => return F::zero(x.sign),
        Kind::Infinite => return F::infinity(x.sign),
        _ if x.exp >= F::PRECISION as i32 - 1 => return a,
        _ => {}
    }
    let integer = F::Sig::ONE << (F::Sig::BITS - 2);
    let mut exp = x.exp;
    let (mut rounded, inexact, up) = if exp >= 0 {
        round_off(round, x.sign, x.sig, F::Sig::BITS - 2 - exp as u32)
    } else {
        let half = exp == -1;
        let up = rounds_up(round, x.sign, false, half, !half || x.sig != integer);
        exp = 0;
        (if up { integer } else { F::Sig::ZERO }, true, up)
    };
    if inexact && exact {
        env.raise(Flags::INEXACT);
    }
    if F::EXPLICIT_INTEGER && up {
        env.raise(Flags::ROUNDED_UP);
    }
    if rounded == F::Sig::ZERO {
        return F::zero(x.sign);
    }
    if rounded >= integer << 1 {
        rounded = rounded >> 1;
        exp += 1;
    }
    F::pack(x.sign, exp + F::BIAS, rounded)
}
