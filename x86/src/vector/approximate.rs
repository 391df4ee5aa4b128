//! RCPPS, RSQRTPS: approximations with a relative error of at most 1.5 * 2^-12.
//!
//! Real processors differ in these results, within that bound; a machine that computes the same everywhere needs one
//! definition. It is the simplest there is: *the exact result, rounded to nearest to 12 significant bits*, so the error
//! is at most 2^-12 and powers of two (of four, for RSQRT) are exact. The special cases are the manual's: MXCSR has no effect
//! and takes no flags, denormal operands and results are zeros of the same sign, a NaN is made quiet, and RSQRT of a negative
//! number is the default NaN. SDM vol. 2, "RCPPS" and "RSQRTPS".

use super::{V, Width};

/// Significant bits of a result.
const PRECISION: u32 = 12;

const INFINITY: u32 = 0x7f80_0000;
const QUIET: u32 = 0x0040_0000;
const DEFAULT_NAN: u32 = 0xffc0_0000;

/// The magnitude of an operand.
enum Magnitude {
    /// A zero, or a denormal that is taken as one.
    Zero,
    /// `significand * 2^(exp - 23)`; the significand has 24 bits.
    Normal {
        exp: i32,
        significand: u32,
    },
    Infinite,
    Nan,
}

fn magnitude(x: u32) -> Magnitude {
    let fraction = x & 0x007f_ffff;
    match x >> 23 & 0xff {
        0 => Magnitude::Zero,
        0xff if fraction == 0 => Magnitude::Infinite,
        0xff => Magnitude::Nan,
        biased => Magnitude::Normal { exp: biased as i32 - 127, significand: fraction | 1 << 23 },
    }
}

/// `significand * 2^(exp - 11)` of a significand of 12 bits, or 2^12 itself. A denormal result is a zero.
fn pack(exp: i32, significand: u32) -> u32 {
    let (exp, significand) =
        if significand >> PRECISION != 0 { (exp + 1, significand >> 1) } else { (exp, significand) };
    match exp + 127 {
        biased @ 1.. => (biased as u32) << 23 | (significand << (24 - PRECISION) & 0x007f_ffff),
        _ => 0,
    }
}

/// The reciprocal of a number.
fn rcp(x: u32) -> u32 {
    let sign = x & 0x8000_0000;
    sign | match magnitude(x) {
        Magnitude::Zero => INFINITY,
        Magnitude::Infinite => 0,
        Magnitude::Nan => return x | QUIET,
        Magnitude::Normal { exp, significand } => {
            // 1 / significand lies in (2^-24, 2^-23]. Halfway cases do not occur: the quotient is never that short.
            let twice = (1u64 << (23 + PRECISION + 1)) / u64::from(significand); // [2^12, 2^13]
            pack(-exp - 1, ((twice + 1) >> 1) as u32)
        }
    }
}

/// The reciprocal of a number's square root.
fn rsqrt(x: u32) -> u32 {
    let negative = x >> 31 != 0;
    match magnitude(x) {
        Magnitude::Zero => x & 0x8000_0000 | INFINITY,
        Magnitude::Nan => x | QUIET,
        _ if negative => DEFAULT_NAN,
        Magnitude::Infinite => 0,
        Magnitude::Normal { exp, significand } => {
            // With an even exponent, the number is m * 2^e with m in [1, 4): the result is 1 / sqrt(m) * 2^(-e / 2).
            let m = u128::from(significand) << (exp & 1);
            let twice = ((1u128 << (23 + 2 * (PRECISION + 1))) / m).isqrt() as u32; // (2^12, 2^13]
            pack(-(exp >> 1) - 1, (twice + 1) >> 1)
        }
    }
}

/// RCPPS, RCPSS: of `b`. The other elements of a scalar are those of `a`.
pub fn rcpps(w: Width, a: V, b: V) -> V {
    first(w, a, b, rcp)
}

/// RSQRTPS, RSQRTSS: of `b`. The other elements of a scalar are those of `a`.
pub fn rsqrtps(w: Width, a: V, b: V) -> V {
    first(w, a, b, rsqrt)
}

fn first(w: Width, a: V, b: V, f: fn(u32) -> u32) -> V {
    let n = w.count::<u32>();
    let (a, b) = (a.lanes::<u32>(), b.lanes::<u32>());
    V::build(|i| if i < n { f(b[i]) } else { a[i] })
}
