//! Addition, subtraction, multiplication, division, square root, remainder.

use super::round::{Kind, invalid, note_denormal, propagate, round_pack, round_pack_controlled, unpack};
use super::{Env, Flags, Format, Round, Significand};

/// `a + b`.
#[inline]
pub fn add<F: Format>(a: F::Bits, b: F::Bits, env: &mut Env) -> F::Bits {
    add_or_sub::<F>(a, b, false, env)
}

/// `a - b`.
#[inline]
pub fn sub<F: Format>(a: F::Bits, b: F::Bits, env: &mut Env) -> F::Bits {
    add_or_sub::<F>(a, b, true, env)
}

/// The sign of an exact zero that is the sum of operands of different sign.
#[inline]
pub(super) fn sign_of_cancelled(round: Round) -> bool {
    round == Round::Down
}

fn add_or_sub<F: Format>(a: F::Bits, b: F::Bits, subtract: bool, env: &mut Env) -> F::Bits {
    let (x, mut y) = (unpack::<F>(env, a), unpack::<F>(env, b));
    if x.is_nan() || y.is_nan() {
        return propagate::<F>(env, &[x, y]);
    }
    y.sign ^= subtract;
    if x.is_infinite() && y.is_infinite() && x.sign != y.sign {
        return invalid::<F>(env);
    }
    note_denormal(env, x.subnormal || y.subnormal);
    match (x.kind, y.kind) {
        (Kind::Infinite, _) => return F::infinity(x.sign),
        (_, Kind::Infinite) => return F::infinity(y.sign),
        (Kind::Zero, Kind::Zero) => {
            return F::zero(if x.sign == y.sign { x.sign } else { sign_of_cancelled(env.round) });
        }
        (Kind::Zero, _) => return round_pack_controlled::<F>(env, y.sign, y.exp, y.sig),
        (_, Kind::Zero) => return round_pack_controlled::<F>(env, x.sign, x.exp, x.sig),
        _ => {}
    }

    let (large, small) = if (x.exp, x.sig) >= (y.exp, y.sig) { (x, y) } else { (y, x) };
    let aligned = small.sig.shift_right_sticky((large.exp - small.exp) as u32);
    if x.sign == y.sign {
        let sum = large.sig + aligned;
        return if sum.leading_zeros() == 0 {
            round_pack_controlled::<F>(env, large.sign, large.exp + 1, sum.shift_right_sticky(1))
        } else {
            round_pack_controlled::<F>(env, large.sign, large.exp, sum)
        };
    }
    // Where the exponents differ by two or more, at most one leading bit cancels and the sticky bit stays below the guard
    // bits that decide; where they differ by less, nothing was shifted out.
    let difference = large.sig - aligned;
    if difference == F::Sig::ZERO {
        return F::zero(sign_of_cancelled(env.round));
    }
    let shift = difference.leading_zeros() - 1;
    round_pack_controlled::<F>(env, large.sign, large.exp - shift as i32, difference << shift)
}

/// `a * b`.
pub fn mul<F: Format>(a: F::Bits, b: F::Bits, env: &mut Env) -> F::Bits {
    let (x, y) = (unpack::<F>(env, a), unpack::<F>(env, b));
    if x.is_nan() || y.is_nan() {
        return propagate::<F>(env, &[x, y]);
    }
    let sign = x.sign ^ y.sign;
    if (x.is_infinite() && y.is_zero()) || (x.is_zero() && y.is_infinite()) {
        return invalid::<F>(env);
    }
    note_denormal(env, x.subnormal || y.subnormal);
    if x.is_infinite() || y.is_infinite() {
        return F::infinity(sign);
    }
    if x.is_zero() || y.is_zero() {
        return F::zero(sign);
    }
    let product = (x.sig << 1).widening_mul(y.sig).high_sticky();
    let exp = x.exp + y.exp;
    if product.leading_zeros() == 1 {
        round_pack_controlled::<F>(env, sign, exp + 1, product)
    } else {
        round_pack_controlled::<F>(env, sign, exp, product << 1)
    }
}

/// `a / b`.
pub fn div<F: Format>(a: F::Bits, b: F::Bits, env: &mut Env) -> F::Bits {
    let (x, y) = (unpack::<F>(env, a), unpack::<F>(env, b));
    if x.is_nan() || y.is_nan() {
        return propagate::<F>(env, &[x, y]);
    }
    let sign = x.sign ^ y.sign;
    if (x.is_infinite() && y.is_infinite()) || (x.is_zero() && y.is_zero()) {
        return invalid::<F>(env);
    }
    if y.is_zero() && !x.is_infinite() {
        env.raise(Flags::DIVIDE_BY_ZERO);
        return F::infinity(sign);
    }
    note_denormal(env, x.subnormal || y.subnormal);
    if x.is_infinite() {
        return F::infinity(sign);
    }
    if x.is_zero() || y.is_infinite() {
        return F::zero(sign);
    }
    let exp = x.exp - y.exp;
    if x.sig >= y.sig {
        round_pack_controlled::<F>(env, sign, exp, x.sig.quotient(y.sig))
    } else {
        round_pack_controlled::<F>(env, sign, exp - 1, (x.sig << 1).quotient(y.sig))
    }
}

/// The square root.
pub fn sqrt<F: Format>(a: F::Bits, env: &mut Env) -> F::Bits {
    let x = unpack::<F>(env, a);
    if x.is_nan() {
        return propagate::<F>(env, &[x]);
    }
    if x.is_zero() {
        return F::zero(x.sign);
    }
    if x.sign {
        return invalid::<F>(env);
    }
    note_denormal(env, x.subnormal);
    if x.is_infinite() {
        return F::infinity(false);
    }
    round_pack_controlled::<F>(env, false, x.exp >> 1, x.sig.root(x.exp & 1 != 0))
}

/// The remainder of IEEE 754: `a - b * n`, where `n` is the integer nearest to `a / b`, of two the even one. Exact.
pub fn rem<F: Format>(a: F::Bits, b: F::Bits, env: &mut Env) -> F::Bits {
    let (x, y) = (unpack::<F>(env, a), unpack::<F>(env, b));
    if x.is_nan() || y.is_nan() {
        return propagate::<F>(env, &[x, y]);
    }
    if x.is_infinite() || y.is_zero() {
        return invalid::<F>(env);
    }
    note_denormal(env, x.subnormal || y.subnormal);
    if x.is_zero() {
        return F::zero(x.sign);
    }
    if y.is_infinite() || x.exp < y.exp - 1 {
        return round_pack::<F>(env, x.sign, x.exp, x.sig);
    }
    let steps = (x.exp - y.exp).max(0);
    let (mut rest, mut odd) = truncated_rem(x.sig, y.sig, steps);
    // In units of the exponent of y, halved where x lies in the binade below.
    let mut exp = y.exp;
    let mut divisor = y.sig;
    if x.exp < y.exp {
        (rest, odd) = (x.sig, false);
        (exp, divisor) = (x.exp, y.sig << 1);
    }
    // Nearest: compare the remainder with the rest up to the divisor.
    let up = divisor - rest;
    let mut sign = x.sign;
    if rest > up || (rest == up && odd) {
        rest = up;
        sign = !sign;
    }
    if rest == F::Sig::ZERO {
        return F::zero(x.sign);
    }
    let shift = rest.leading_zeros() - 1;
    round_pack::<F>(env, sign, exp - shift as i32, rest << shift)
}

/// `dividend * 2^steps mod divisor`, and whether the quotient is odd. Both are normalised.
pub(super) fn truncated_rem<S: Significand>(dividend: S, divisor: S, steps: i32) -> (S, bool) {
    let mut rest = dividend;
    let mut odd = rest >= divisor;
    if odd {
        rest = rest - divisor;
    }
    for _ in 0..steps {
        rest = rest << 1;
        odd = rest >= divisor;
        if odd {
            rest = rest - divisor;
        }
    }
    (rest, odd)
}
