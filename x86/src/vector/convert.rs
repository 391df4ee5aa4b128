//! Conversions between formats, and from and to integers. What an integer cannot hold is the "integer indefinite" and
//! invalid. A denormal operand is no exception of a conversion to an integer.
//!
//! Those with an MMX register (CVTPI2PS, CVTPS2PI and so on) are MMX instructions too: the caller looks for a pending exception
//! of the x87 and calls [`enter_mmx`](crate::fpu::X87::enter_mmx). CVTPI2PD does neither where its operand is in memory.

use super::float::Result;
use super::mxcsr::{Float, Mxcsr, widened};
use super::{V, Width};
use emu_core::float::fast::{self, Host};
use emu_core::float::{self, Denormals, Env, F16, F32, F64, Flags, Format, Round};

/// How a conversion to an integer rounds.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ToInt {
    /// As MXCSR.RC says: CVTPS2DQ, CVTSD2SI.
    Rounded,
    /// Toward zero: CVTTPS2DQ, CVTTSD2SI.
    Truncated,
}

impl ToInt {
    fn round(self, round: Round) -> Round {
        match self {
            ToInt::Rounded => round,
            ToInt::Truncated => Round::TowardZero,
        }
    }
}

/// A format that the host converts from and to integers, exactly where these functions say so.
pub trait Integers: Float {
    /// The number that is this integer, if its magnitude has no more bits than a significand.
    fn exactly(x: i64) -> Option<Self::Bits>;
    /// A number truncated to an integer below 2^`bits`, and whether it was one already. `None` if it is not below that, or is
    /// not normal.
    fn truncated(x: Self::Bits, bits: i32) -> Option<(i64, bool)>;
}

macro_rules! integers {
    ($format:ty, $float:ty) => {
        impl Integers for $format {
            #[inline]
            fn exactly(x: i64) -> Option<Self::Bits> {
                (x.unsigned_abs() >> Self::PRECISION == 0).then(|| (x as $float).to_bits())
            }
            #[inline]
            fn truncated(x: Self::Bits, bits: i32) -> Option<(i64, bool)> {
                (1..Self::BIAS + bits).contains(&Self::exponent(x)).then(|| {
                    let x = <$float>::from_bits(x);
                    (x as i64, x as i64 as $float == x)
                })
            }
        }
    };
}

integers!(F32, f32);
integers!(F64, f64);

/// To a signed integer of so many bits: through the host where it truncates, else by `soft`.
#[inline]
fn to_integer<F: Integers, I: TryFrom<i64>>(
    x: F::Bits,
    how: ToInt,
    bits: i32,
    soft: fn(F::Bits, Round, &mut Env) -> I,
    env: &mut Env,
) -> I {
    if how == ToInt::Truncated
        && let Some((integer, exact)) = F::truncated(x, bits - 1)
        && let Ok(integer) = I::try_from(integer)
    {
        if !exact {
            env.raise(Flags::INEXACT);
        }
        return integer;
    }
    soft(x, how.round(env.round), env)
}

/// From an integer: through the host where that is exact.
#[inline]
fn from_integer<F: Integers>(x: i64, env: &mut Env) -> F::Bits {
    F::exactly(x).unwrap_or_else(|| float::from_i64::<F>(x, env))
}

/// CVTPS2DQ, CVTTPS2DQ, CVTPD2DQ, CVTTPD2DQ; CVTPS2PI, CVTTPS2PI (of 64 bits), CVTPD2PI, CVTTPD2PI. The width is that of
/// the operand; above the results there are zeros.
pub fn cvt_to_i32<F: Integers>(w: Width, b: V, how: ToInt, mxcsr: &mut Mxcsr) -> Result {
    mxcsr.first_elements(w.count::<F::Bits>(), V::ZERO, |i, env| {
        to_integer::<F, _>(b.get(i), how, 32, float::to_i32::<F>, env)
    })
}

/// CVTDQ2PS, CVTDQ2PD; CVTPI2PS (of 64 bits: the caller keeps the high half), CVTPI2PD. The width is that of the result.
pub fn cvt_from_i32<F: Integers>(w: Width, b: V, mxcsr: &mut Mxcsr) -> Result {
    mxcsr.elements(w, V::ZERO, |i, env| from_integer::<F>(b.get::<i32>(i).into(), env))
}

/// CVTSS2SI, CVTTSS2SI, CVTSD2SI, CVTTSD2SI to 32 bits.
pub fn cvt_to_si32<F: Integers>(b: V, how: ToInt, mxcsr: &mut Mxcsr) -> Result<i32> {
    let mut env = mxcsr.env();
    let x = to_integer::<F, _>(b.get(0), how, 32, float::to_i32::<F>, &mut env);
    mxcsr.accrue(env.flags)?;
    Ok(x)
}

/// CVTSS2SI, CVTTSS2SI, CVTSD2SI, CVTTSD2SI to 64 bits.
pub fn cvt_to_si64<F: Integers>(b: V, how: ToInt, mxcsr: &mut Mxcsr) -> Result<i64> {
    let mut env = mxcsr.env();
    let x = to_integer::<F, _>(b.get(0), how, 64, float::to_i64::<F>, &mut env);
    mxcsr.accrue(env.flags)?;
    Ok(x)
}

/// CVTSI2SS, CVTSI2SD: of 64 bits, or of 32 that are sign-extended.
pub fn cvt_from_si<F: Integers>(a: V, x: i64, mxcsr: &mut Mxcsr) -> Result {
    mxcsr.elements(Width::Scalar, a, |_, env| from_integer::<F>(x, env))
}

/// CVTSS2SD, CVTPS2PD. The width is that of the result. Of a scalar, the other element is that of `a`.
pub fn cvtps2pd(w: Width, a: V, b: V, mxcsr: &mut Mxcsr) -> Result {
    mxcsr.elements(w, a, |i, env| fast::f32_to_f64(b.get(i), env))
}

/// CVTSD2SS, CVTPD2PS. The width is that of the operand. Of a scalar, the other elements are those of `a`; else there are
/// zeros above the results.
pub fn cvtpd2ps(w: Width, a: V, b: V, mxcsr: &mut Mxcsr) -> Result {
    let control = *mxcsr;
    let above = if w == Width::Scalar { a } else { V::ZERO };
    mxcsr.first_elements(w.count::<u64>(), above, |i, env| {
        let convert = |env: &mut Env| fast::f64_to_f32(b.get(i), env);
        if control.masks_range() {
            return convert(env);
        }
        control.with_range_exceptions::<F32>(env, convert, |_| widened::<F64>(b.get(i), control))
    })
}

/// VCVTPH2PS. The width is that of the result. MXCSR.DAZ has no effect, and a denormal operand is no exception.
pub fn vcvtph2ps(w: Width, b: V, mxcsr: &mut Mxcsr) -> Result {
    mxcsr.elements(w, V::ZERO, |i, env| {
        env.denormals = Denormals::Use;
        float::convert::<F16, F32>(b.get(i), env)
    })
}

/// VCVTPS2PH. The width is that of the operand. The immediate's bits 1:0 are the rounding mode, unless bit 2 asks for
/// MXCSR's. MXCSR.FTZ has no effect.
pub fn vcvtps2ph(w: Width, b: V, imm: u8, mxcsr: &mut Mxcsr) -> Result {
    let control = *mxcsr;
    mxcsr.first_elements(w.count::<u32>(), V::ZERO, |i, env| {
        env.tiny = float::Tiny::Subnormal;
        if imm & 4 == 0 {
            env.round = Round::from_x86(imm);
        }
        let convert = |env: &mut Env| float::convert::<F32, F16>(b.get(i), env);
        control.with_range_exceptions::<F16>(env, convert, |_| widened::<F32>(b.get(i), control))
    })
}
