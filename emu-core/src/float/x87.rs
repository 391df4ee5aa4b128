//! What only the x87 has: the partial remainder.

use super::arith::truncated_rem;
use super::round::{invalid, note_denormal, propagate, round_pack, unpack};
use super::{Env, F80, Format, Round};

/// The result of a partial remainder.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PartialRemainder {
    /// The remainder, or where it is not complete a dividend reduced so far.
    pub value: u128,
    /// The low three bits of the quotient's magnitude, where the remainder is complete; else zero. C0, C3, C1.
    pub quotient: u8,
    /// Whether the remainder is complete. The inverse of C2.
    pub complete: bool,
}

/// FPREM: the remainder of a quotient that is truncated. SDM vol. 2A, "FPREM - Partial Remainder".
pub fn fprem(a: u128, b: u128, env: &mut Env) -> PartialRemainder {
    partial_remainder(a, b, Round::TowardZero, env)
}

/// FPREM1: the remainder of a quotient that is rounded to nearest. SDM vol. 2A, "FPREM1 - Partial Remainder".
pub fn fprem1(a: u128, b: u128, env: &mut Env) -> PartialRemainder {
    partial_remainder(a, b, Round::NearestEven, env)
}

fn partial_remainder(a: u128, b: u128, round: Round, env: &mut Env) -> PartialRemainder {
    let complete = |value| PartialRemainder { value, quotient: 0, complete: true };
    let (x, y) = (unpack::<F80>(env, a), unpack::<F80>(env, b));
    if x.is_nan() || y.is_nan() {
        return complete(propagate::<F80>(env, &[x, y]));
    }
    if x.is_infinite() || y.is_zero() {
        return complete(invalid::<F80>(env));
    }
    note_denormal(env, x.subnormal || y.subnormal);
    if x.is_zero() {
        return complete(a);
    }
    let distance = x.exp - y.exp;
    if y.is_infinite() || distance < -1 {
        return complete(round_pack::<F80>(env, x.sign, x.exp, x.sig));
    }
    let packed = |env: &mut Env, sign: bool, exp: i32, rest: u128| {
        if rest == 0 {
            return F80::zero(x.sign);
        }
        let shift = rest.leading_zeros() - 1;
        round_pack::<F80>(env, sign, exp - shift as i32, rest << shift)
    };
    if distance >= 64 {
        // Reduced by an amount that the manual leaves to the implementation, between 32 and 63: the one that leaves a
        // distance which is a multiple of 32.
        let by = distance & 31 | 32;
        let (rest, _) = truncated_rem(x.sig, y.sig, by);
        return PartialRemainder { value: packed(env, x.sign, x.exp - by, rest), quotient: 0, complete: false };
    }

    // In units of the smaller exponent.
    let (exp, divisor) = if distance < 0 { (x.exp, y.sig << 1) } else { (y.exp, y.sig) };
    let (mut rest, mut quotient) = (x.sig, 0u64);
    for step in 0..=distance.max(0) {
        if step > 0 {
            rest <<= 1;
        }
        quotient <<= 1;
        if rest >= divisor {
            rest -= divisor;
            quotient |= 1;
        }
    }
    let mut sign = x.sign;
    let up = divisor - rest;
    if round == Round::NearestEven && (rest > up || (rest == up && quotient & 1 != 0)) {
        rest = up;
        sign = !sign;
        quotient = quotient.wrapping_add(1);
    }
    PartialRemainder { value: packed(env, sign, exp, rest), quotient: (quotient & 7) as u8, complete: true }
}
