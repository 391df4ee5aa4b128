//! The same operations through the host's floating-point unit, wherever that is proved to give the same bits and the same
//! flags. In all other cases these functions call the soft ones, so they may always be called in their place.
//!
//! The proof rests on this: Rust's `+ - * / sqrt mul_add` on `f32` and `f64` are those of IEEE 754, correctly rounded to
//! nearest, ties to even, with subnormals (Rust reference, "Numeric types"; primitive `f32`, "NaN bit patterns" says that
//! only NaNs are unspecified). Let the environment round to nearest even, and let `r` be the host's result.
//!
//! * Where `r` is finite, every infinite or NaN operand is excluded, except for a divisor that is infinite, where `r` is
//!   zero. So `r` is the rounded result, whatever the [`NanRule`](super::NanRule), and neither INVALID nor DIVIDE_BY_ZERO
//!   is due; nor is OVERFLOW, for in this rounding mode it gives infinity.
//! * Where besides the exponent field of `r` is two or more, the exact result is at least twice the smallest normal number
//!   less half a unit in the last place, so it is not tiny, before rounding or after, and UNDERFLOW is not due, nor is `r`
//!   to be flushed.
//! * Any sum or difference that is smaller is exact, for it is a multiple of the smallest subnormal number and has no more
//!   bits than a significand. So no UNDERFLOW is due there either, and only a flush needs care.
//! * DENORMAL is due, or an operand flushed, only where an operand is subnormal and the environment says so. That is tested.
//! * There remains INEXACT. Mostly it is set already, for it accumulates and few guests ever clear it. Where it is not, a
//!   sum's error is computed exactly (the TwoSum of Knuth: `a + b = s + error`, barring overflow), and a product is known
//!   to be exact where its operands have so many trailing zeros that it has no more bits than a significand.

use super::{Denormals, Env, F32, F64, Flags, Fma, Format, Round, Tiny};

/// A format that the host's floating-point unit has.
pub trait Host: Format {
    /// `a + b` and whether it is inexact. The latter is valid where no intermediate result overflows.
    fn two_sum(a: Self::Bits, b: Self::Bits) -> (Self::Bits, bool);
    /// `a + b`.
    fn add(a: Self::Bits, b: Self::Bits) -> Self::Bits;
    /// `a * b`.
    fn mul(a: Self::Bits, b: Self::Bits) -> Self::Bits;
    /// `a / b`.
    fn div(a: Self::Bits, b: Self::Bits) -> Self::Bits;
    /// The square root.
    fn sqrt(a: Self::Bits) -> Self::Bits;
    /// `a * b + c`, rounded once.
    fn mul_add(a: Self::Bits, b: Self::Bits, c: Self::Bits) -> Self::Bits;
    /// The same with the sign flipped.
    fn negate(a: Self::Bits) -> Self::Bits;
    /// How the operands compare, `None` where either is a NaN.
    fn partial_cmp(a: Self::Bits, b: Self::Bits) -> Option<core::cmp::Ordering>;
    /// The exponent field.
    fn exponent(a: Self::Bits) -> i32;
    /// Whether it is a zero.
    fn is_zero(a: Self::Bits) -> bool;
    /// The number of trailing zeros of the fraction.
    fn trailing_zeros(a: Self::Bits) -> u32;
}

macro_rules! host {
    ($format:ty, $float:ty, $bits:ty) => {
        impl Host for $format {
            #[inline]
            fn two_sum(a: $bits, b: $bits) -> ($bits, bool) {
                let (a, b) = (<$float>::from_bits(a), <$float>::from_bits(b));
                let sum = a + b;
                let b_in_sum = sum - a;
                let a_in_sum = sum - b_in_sum;
                let error = (a - a_in_sum) + (b - b_in_sum);
                (sum.to_bits(), error != 0.0)
            }
            #[inline]
            fn add(a: $bits, b: $bits) -> $bits {
                (<$float>::from_bits(a) + <$float>::from_bits(b)).to_bits()
            }
            #[inline]
            fn mul(a: $bits, b: $bits) -> $bits {
                (<$float>::from_bits(a) * <$float>::from_bits(b)).to_bits()
            }
            #[inline]
            fn div(a: $bits, b: $bits) -> $bits {
                (<$float>::from_bits(a) / <$float>::from_bits(b)).to_bits()
            }
            #[inline]
            fn sqrt(a: $bits) -> $bits {
                <$float>::from_bits(a).sqrt().to_bits()
            }
            #[inline]
            fn mul_add(a: $bits, b: $bits, c: $bits) -> $bits {
                <$float>::from_bits(a).mul_add(<$float>::from_bits(b), <$float>::from_bits(c)).to_bits()
            }
            #[inline]
            fn negate(a: $bits) -> $bits {
                a ^ (1 << (<$bits>::BITS - 1))
            }
            #[inline]
            fn partial_cmp(a: $bits, b: $bits) -> Option<core::cmp::Ordering> {
                <$float>::from_bits(a).partial_cmp(&<$float>::from_bits(b))
            }
            #[inline]
            fn exponent(a: $bits) -> i32 {
                (a >> Self::FRAC_BITS) as i32 & Self::EXP_MAX
            }
            #[inline]
            fn is_zero(a: $bits) -> bool {
                a << 1 == 0
            }
            #[inline]
            fn trailing_zeros(a: $bits) -> u32 {
                (a | 1 << Self::FRAC_BITS).trailing_zeros()
            }
        }
    };
}

host!(F32, f32, u32);
host!(F64, f64, u64);

/// Whether the environment has nothing to say about the operand's being subnormal.
#[inline]
fn is_plain<F: Host>(env: &Env, a: F::Bits) -> bool {
    env.denormals == Denormals::Use || F::exponent(a) != 0 || F::is_zero(a)
}

/// Whether the result is finite and well away from the subnormal numbers.
#[inline]
fn is_safe<F: Host>(result: F::Bits) -> bool {
    (2..F::EXP_MAX).contains(&F::exponent(result))
}

/// `a + b`.
#[inline]
pub fn add<F: Host>(a: F::Bits, b: F::Bits, env: &mut Env) -> F::Bits {
    match sum::<F>(a, b, env) {
        Some(result) => result,
        None => super::add::<F>(a, b, env),
    }
}

/// `a - b`.
#[inline]
pub fn sub<F: Host>(a: F::Bits, b: F::Bits, env: &mut Env) -> F::Bits {
    match sum::<F>(a, F::negate(b), env) {
        Some(result) => result,
        None => super::sub::<F>(a, b, env),
    }
}

#[inline]
fn sum<F: Host>(a: F::Bits, b: F::Bits, env: &mut Env) -> Option<F::Bits> {
    if env.round != Round::NearestEven || !is_plain::<F>(env, a) || !is_plain::<F>(env, b) {
        return None;
    }
    if env.flags.contains(Flags::INEXACT) {
        let result = F::add(a, b);
        let fits = is_safe::<F>(result) || (env.tiny == Tiny::Subnormal && F::exponent(result) < F::EXP_MAX);
        return fits.then_some(result);
    }
    // Below 2^(emax - 3), so that all intermediate results of the TwoSum are below 2^emax.
    let moderate = |x| F::exponent(x) < F::EXP_MAX - 4;
    let (result, inexact) = F::two_sum(a, b);
    if !(moderate(a) && moderate(b) && moderate(result) && is_safe::<F>(result)) {
        return None;
    }
    if inexact {
        env.raise(Flags::INEXACT);
    }
    Some(result)
}

/// `a * b`.
#[inline]
pub fn mul<F: Host>(a: F::Bits, b: F::Bits, env: &mut Env) -> F::Bits {
    if env.round == Round::NearestEven && is_plain::<F>(env, a) && is_plain::<F>(env, b) {
        let result = F::mul(a, b);
        // Significands of p - m and p - n bits have a product of at most 2p - m - n bits. (Of a subnormal operand the
        // integer bit is not set, but is counted as if; that can only lessen the number of trailing zeros.)
        let exact = || F::trailing_zeros(a) + F::trailing_zeros(b) >= F::PRECISION;
        if is_safe::<F>(result) && (env.flags.contains(Flags::INEXACT) || exact()) {
            return result;
        }
    }
    super::mul::<F>(a, b, env)
}

/// `a / b`.
#[inline]
pub fn div<F: Host>(a: F::Bits, b: F::Bits, env: &mut Env) -> F::Bits {
    let known = env.round == Round::NearestEven && env.flags.contains(Flags::INEXACT);
    if known && is_plain::<F>(env, a) && is_plain::<F>(env, b) {
        let result = F::div(a, b);
        if is_safe::<F>(result) {
            return result;
        }
    }
    super::div::<F>(a, b, env)
}

/// The square root.
#[inline]
pub fn sqrt<F: Host>(a: F::Bits, env: &mut Env) -> F::Bits {
    let known = env.round == Round::NearestEven && env.flags.contains(Flags::INEXACT);
    if known && is_plain::<F>(env, a) {
        let result = F::sqrt(a);
        if is_safe::<F>(result) {
            return result;
        }
    }
    super::sqrt::<F>(a, env)
}

/// `a * b + c` with the signs of `kind`, rounded once.
#[inline]
pub fn fused_mul_add<F: Host>(a: F::Bits, b: F::Bits, c: F::Bits, kind: Fma, env: &mut Env) -> F::Bits {
    let known = env.round == Round::NearestEven && env.flags.contains(Flags::INEXACT);
    if known && is_plain::<F>(env, a) && is_plain::<F>(env, b) && is_plain::<F>(env, c) {
        let x = if matches!(kind, Fma::NegMulAdd | Fma::NegMulSub) { F::negate(a) } else { a };
        let z = if matches!(kind, Fma::MulSub | Fma::NegMulSub) { F::negate(c) } else { c };
        let result = F::mul_add(x, b, z);
        if is_safe::<F>(result) {
            return result;
        }
    }
    super::fused_mul_add::<F>(a, b, c, kind, env)
}

/// `a == b`, quiet. A comparison of numbers is exact, whatever the rounding mode, and raises no flag but DENORMAL.
#[inline]
pub fn eq<F: Host>(a: F::Bits, b: F::Bits, env: &mut Env) -> bool {
    match F::partial_cmp(a, b) {
        Some(order) if is_plain::<F>(env, a) && is_plain::<F>(env, b) => order.is_eq(),
        _ => super::eq::<F>(a, b, env),
    }
}

/// `a < b`, signaling.
#[inline]
pub fn lt<F: Host>(a: F::Bits, b: F::Bits, env: &mut Env) -> bool {
    match F::partial_cmp(a, b) {
        Some(order) if is_plain::<F>(env, a) && is_plain::<F>(env, b) => order.is_lt(),
        _ => super::lt::<F>(a, b, env),
    }
}

/// `a <= b`, signaling.
#[inline]
pub fn le<F: Host>(a: F::Bits, b: F::Bits, env: &mut Env) -> bool {
    match F::partial_cmp(a, b) {
        Some(order) if is_plain::<F>(env, a) && is_plain::<F>(env, b) => order.is_le(),
        _ => super::le::<F>(a, b, env),
    }
}

/// Single to double precision: exact for a normal number, whatever the rounding mode.
#[inline]
pub fn f32_to_f64(a: u32, env: &mut Env) -> u64 {
    if (1..F32::EXP_MAX).contains(&F32::exponent(a)) {
        f64::from(f32::from_bits(a)).to_bits()
    } else {
        super::convert::<F32, F64>(a, env)
    }
}

/// Double to single precision.
#[inline]
pub fn f64_to_f32(a: u64, env: &mut Env) -> u32 {
    let known = env.round == Round::NearestEven && env.flags.contains(Flags::INEXACT);
    if known {
        // Where the result is a normal number, so was the operand.
        let result = (f64::from_bits(a) as f32).to_bits();
        if is_safe::<F32>(result) {
            return result;
        }
    }
    super::convert::<F64, F32>(a, env)
}
