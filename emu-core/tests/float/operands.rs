//! Random operands, most of them near some boundary.
//!
//! `berkeley.c` has the same generators; they are changed together.

use emu_core::float::*;
use emu_core::random::SplitMix64;

pub struct Rng(SplitMix64);

impl Rng {
    pub fn new(seed: u64) -> Self {
        Rng(SplitMix64(seed))
    }
    pub fn next(&mut self) -> u64 {
        self.0.next()
    }
    pub fn next128(&mut self) -> u128 {
        u128::from(self.next()) << 64 | u128::from(self.next())
    }
}

/// What a generator of operands needs to know of a format.
#[derive(Clone, Copy)]
pub struct Shape {
    pub name: &'static str,
    pub exp_bits: u32,
    pub frac_bits: u32,
    pub integer: bool,
}

const fn shape(name: &'static str, exp_bits: u32, frac_bits: u32, integer: bool) -> Shape {
    Shape { name, exp_bits, frac_bits, integer }
}

pub const BF16: Shape = shape("bf16", 8, 7, false);
pub const F16_: Shape = shape("f16", 5, 10, false);
pub const F32_: Shape = shape("f32", 8, 23, false);
pub const F64_: Shape = shape("f64", 11, 52, false);
pub const F80_: Shape = shape("f80", 15, 63, true);
pub const F128_: Shape = shape("f128", 15, 112, false);

impl Shape {
    pub fn max(&self) -> i64 {
        (1 << self.exp_bits) - 1
    }
    pub fn bias(&self) -> i64 {
        self.max() >> 1
    }
    pub fn pack(&self, sign: u64, exp: i64, frac: u128) -> u128 {
        let exp = exp.clamp(0, self.max());
        let frac = frac & ((1 << self.frac_bits) - 1);
        let integer = u128::from(self.integer && exp != 0) << self.frac_bits;
        let top = self.frac_bits + u32::from(self.integer);
        u128::from(sign & 1) << (top + self.exp_bits) | (exp as u128) << top | integer | frac
    }
    pub fn exponent(&self, a: u128) -> i64 {
        (a >> (self.frac_bits + u32::from(self.integer))) as i64 & self.max()
    }
    fn fraction(&self, rng: &mut Rng) -> u128 {
        let r = rng.next();
        let random = rng.next128();
        let k = (r >> 3) % u64::from(self.frac_bits);
        match r & 7 {
            0 => 0,
            1 => u128::MAX,
            2 => 1 << k,
            3 => u128::MAX ^ 1 << k,
            4 => u128::MAX << k,
            5 => (1 << k) - 1,
            6 => random & u128::MAX << k,
            _ => random,
        }
    }
    pub fn operand(&self, rng: &mut Rng) -> u128 {
        let r = rng.next();
        let (max, bias, p) = (self.max(), self.bias(), i64::from(self.frac_bits) + 1);
        let special = [
            0,
            1,
            2,
            3,
            max,
            max - 1,
            max - 2,
            bias - 1,
            bias,
            bias + 1,
            bias + p - 1,
            bias + p,
            bias + 31,
            bias + 63,
            bias + 15,
            bias - p,
        ];
        let exp = match r & 7 {
            0..=2 => special[(r >> 4 & 15) as usize],
            3 | 4 => bias - p - 4 + ((r >> 4) % (2 * p + 8) as u64) as i64,
            _ => ((r >> 4) % (max + 1) as u64) as i64,
        };
        let frac = self.fraction(rng);
        self.pack(r >> 3, exp, frac)
    }
    /// An operand that likely cancels with `a`.
    pub fn near(&self, rng: &mut Rng, a: u128) -> u128 {
        let r = rng.next();
        if r & 1 != 0 {
            return self.operand(rng);
        }
        let mut exp = self.exponent(a);
        if r & 2 != 0 {
            exp += ((r >> 8) % 9) as i64 - 4;
        }
        let frac = if r & 4 != 0 {
            self.fraction(rng)
        } else if r & 8 != 0 {
            a ^ 1 << ((r >> 16) % u64::from(self.frac_bits))
        } else {
            a
        };
        self.pack(r >> 4, exp, frac)
    }
    /// An addend that likely cancels with `a * b`.
    pub fn addend(&self, rng: &mut Rng, a: u128, b: u128) -> u128 {
        let r = rng.next();
        if r & 1 != 0 {
            return self.operand(rng);
        }
        let p = i64::from(self.frac_bits) + 1;
        let product = self.exponent(a) + self.exponent(b) - self.bias();
        let exp = if r & 2 != 0 {
            product + (r >> 8 & 1) as i64
        } else {
            product + ((r >> 8) % (2 * p + 8) as u64) as i64 - p - 4
        };
        let frac = self.fraction(rng);
        self.pack(r >> 4, exp, frac)
    }
    pub fn is_nan(&self, a: u128) -> bool {
        self.exponent(a) == self.max() && a & ((1 << self.frac_bits) - 1) != 0
    }
    pub fn is_inf_times_zero(&self, a: u128, b: u128) -> bool {
        let inf = self.pack(0, self.max(), 0);
        let sign = 1u128 << (self.frac_bits + u32::from(self.integer) + self.exp_bits);
        let (a, b) = (a & !sign, b & !sign);
        (a == inf && b == 0) || (a == 0 && b == inf)
    }
}

/// An integer of any magnitude, often with few bits that matter.
pub fn integer(rng: &mut Rng) -> u64 {
    let (r, x) = (rng.next(), rng.next());
    let k = r >> 8 & 63;
    match r & 7 {
        0 => x,
        1 => x >> k,
        2 => 1 << k,
        3 => (1 << k) - 1,
        4 => !(x >> k),
        5 => u64::MAX << k,
        6 => (x | 1 << 63) >> k & u64::MAX << (r >> 16 & 63),
        _ => (r >> 16 & 15).wrapping_sub(8),
    }
}

/// A format whose bit patterns fit in the low bits of a `u128`.
pub trait Raw: Format {
    fn from(raw: u128) -> Self::Bits;
    fn to(bits: Self::Bits) -> u128;
}

macro_rules! raw {
    ($($format:ty: $bits:ty),*) => {
        $(impl Raw for $format {
            fn from(raw: u128) -> $bits {
                raw as $bits
            }
            fn to(bits: $bits) -> u128 {
                u128::from(bits)
            }
        })*
    };
}
raw!(Bf16: u16, F16: u16, F32: u32, F64: u64, F80: u128, F128: u128);

pub const ROUNDS: [Round; 6] =
    [Round::NearestEven, Round::TowardZero, Round::Down, Round::Up, Round::NearestMaxMagnitude, Round::Odd];
pub const PRECISIONS: [Precision; 3] = [Precision::Single, Precision::Double, Precision::Extended];
