//! Fused multiply-add: one rounding.

use super::arith::sign_of_cancelled;
use super::round::{Kind, default_nan, invalid, note_denormal, propagate, quieted, round_pack, unpack};
use super::{Env, Flags, Format, NanRule, Significand, Wide};

/// The four signs of a fused multiply-add.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Fma {
    /// `a * b + c`. RISC-V: FMADD; x86: VFMADD.
    MulAdd,
    /// `a * b - c`. RISC-V: FMSUB; x86: VFMSUB.
    MulSub,
    /// `-(a * b) + c`. RISC-V: FNMSUB; x86: VFNMADD.
    NegMulAdd,
    /// `-(a * b) - c`. RISC-V: FNMADD; x86: VFNMSUB.
    NegMulSub,
}

/// `a * b + c` with the signs of `kind`, rounded once.
///
/// A NaN operand keeps its sign: the signs apply to numbers. Arm negates the operand itself, NaN or not, so its FMSUB,
/// FNMADD and FNMSUB flip the sign bit and ask for [`Fma::MulAdd`].
pub fn fused_mul_add<F: Format>(a: F::Bits, b: F::Bits, c: F::Bits, kind: Fma, env: &mut Env) -> F::Bits {
    let (x, y) = (unpack::<F>(env, a), unpack::<F>(env, b));
    let mut z = unpack::<F>(env, c);
    let product_invalid = (x.is_infinite() && y.is_zero()) || (x.is_zero() && y.is_infinite());

    if x.is_nan() || y.is_nan() || z.is_nan() {
        // IEEE 754-2019, 7.2 c) leaves it open whether fma(inf, 0, qNaN) is invalid.
        return match env.nan {
            NanRule::Canonical => {
                if product_invalid {
                    env.raise(Flags::INVALID);
                }
                propagate::<F>(env, &[x, y, z])
            }
            NanRule::Arm { .. } if product_invalid && z.kind == Kind::QuietNan => {
                env.raise(Flags::INVALID);
                default_nan::<F>(env)
            }
            NanRule::Arm { .. } => propagate::<F>(env, &[z, x, y]),
            NanRule::X86Sse | NanRule::X87 if product_invalid && z.kind == Kind::QuietNan => quieted::<F>(&z),
            NanRule::X86Sse | NanRule::X87 => propagate::<F>(env, &[x, y, z]),
        };
    }

    let sign = x.sign ^ y.sign ^ matches!(kind, Fma::NegMulAdd | Fma::NegMulSub);
    z.sign ^= matches!(kind, Fma::MulSub | Fma::NegMulSub);
    let product_infinite = x.is_infinite() || y.is_infinite();
    if product_invalid || (product_infinite && z.is_infinite() && sign != z.sign) {
        return invalid::<F>(env);
    }
    note_denormal(env, x.subnormal || y.subnormal || z.subnormal);
    if product_infinite {
        return F::infinity(sign);
    }
    if z.is_infinite() {
        return F::infinity(z.sign);
    }
    if x.is_zero() || y.is_zero() {
        return if !z.is_zero() {
            round_pack::<F>(env, z.sign, z.exp, z.sig)
        } else {
            F::zero(if sign == z.sign { sign } else { sign_of_cancelled(env.round) })
        };
    }

    // The exact product in twice the width, its leading one at bit 2 * BITS - 2.
    let mut product = (x.sig << 1).widening_mul(y.sig);
    let mut exp = x.exp + y.exp + 1;
    if product.leading_zeros() == 2 {
        product = product.shift_left(1);
        exp -= 1;
    }
    if z.is_zero() {
        return round_pack::<F>(env, sign, exp, product.high_sticky());
    }

    let addend = Wide { hi: z.sig, lo: F::Sig::ZERO };
    let product_larger = (exp, product) >= (z.exp, addend);
    let (large, large_exp, large_sign, small, small_exp) =
        if product_larger { (product, exp, sign, addend, z.exp) } else { (addend, z.exp, z.sign, product, exp) };
    let aligned = small.shift_right_sticky((large_exp - small_exp) as u32);
    if sign == z.sign {
        let sum = large.plus(aligned);
        return if sum.leading_zeros() == 0 {
            round_pack::<F>(env, sign, large_exp + 1, sum.shift_right_sticky(1).high_sticky())
        } else {
            round_pack::<F>(env, sign, large_exp, sum.high_sticky())
        };
    }
    // As in an addition: much cancels only where nothing was shifted out. Both have at least 2 * 10 guard bits.
    let difference = large.minus(aligned);
    if difference == Wide::ZERO {
        return F::zero(sign_of_cancelled(env.round));
    }
    let shift = difference.leading_zeros() - 1;
    round_pack::<F>(env, large_sign, large_exp - shift as i32, difference.shift_left(shift).high_sticky())
}
