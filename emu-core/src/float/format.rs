//! The formats.

use super::Significand;
use core::fmt::Debug;

/// A floating-point format. Values are passed around as bit patterns, [`Format::Bits`].
pub trait Format: Copy + Debug {
    /// A bit pattern.
    type Bits: Copy + Eq + Debug;
    /// The integer in which significands are held.
    type Sig: Significand;

    /// Width of the exponent field.
    const EXP_BITS: u32;
    /// Width of the significand with its integer bit, whether that is stored or not.
    const PRECISION: u32;
    /// Whether the integer bit is stored.
    const EXPLICIT_INTEGER: bool = false;

    /// Width of what is stored of the significand.
    const FRAC_BITS: u32 = if Self::EXPLICIT_INTEGER { Self::PRECISION } else { Self::PRECISION - 1 };
    /// The exponent field of infinities and NaNs.
    const EXP_MAX: i32 = (1 << Self::EXP_BITS) - 1;
    /// The exponent field of one.
    const BIAS: i32 = Self::EXP_MAX >> 1;
    /// How far a stored fraction is below a normalised significand.
    const GUARD_BITS: u32 = Self::Sig::BITS - 1 - Self::PRECISION;

    /// The bit pattern in the low bits of an integer.
    fn widen(bits: Self::Bits) -> Self::Sig;
    /// The inverse of [`Format::widen`].
    fn narrow(raw: Self::Sig) -> Self::Bits;

    /// Puts together the fields: the significand is normalised, or below that for a subnormal.
    #[inline]
    fn pack(sign: bool, biased: i32, sig: Self::Sig) -> Self::Bits {
        let mask = (Self::Sig::ONE << Self::FRAC_BITS) - Self::Sig::ONE;
        let frac = (sig >> Self::GUARD_BITS) & mask;
        let exp = Self::Sig::from_int(biased as u32) << Self::FRAC_BITS;
        let sign = Self::Sig::from_int(u32::from(sign)) << (Self::FRAC_BITS + Self::EXP_BITS);
        Self::narrow(sign | exp | frac)
    }

    /// Zero.
    #[inline]
    fn zero(sign: bool) -> Self::Bits {
        Self::pack(sign, 0, Self::Sig::ZERO)
    }

    /// Infinity.
    #[inline]
    fn infinity(sign: bool) -> Self::Bits {
        Self::pack(sign, Self::EXP_MAX, Self::Sig::ONE << (Self::Sig::BITS - 2))
    }
}

/// Half precision, binary16.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct F16;

/// Brain float: the range of binary32, eight bits of precision.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Bf16;

/// Single precision, binary32.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct F32;

/// Double precision, binary64.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct F64;

/// Double extended precision of the x87, in the low 80 bits of a `u128`. Its integer bit is stored.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct F80;

/// Quadruple precision, binary128.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct F128;

impl Format for F16 {
    type Bits = u16;
    type Sig = u64;
    const EXP_BITS: u32 = 5;
    const PRECISION: u32 = 11;
    #[inline]
    fn widen(bits: u16) -> u64 {
        u64::from(bits)
    }
    #[inline]
    fn narrow(raw: u64) -> u16 {
        raw as u16
    }
}

impl Format for Bf16 {
    type Bits = u16;
    type Sig = u64;
    const EXP_BITS: u32 = 8;
    const PRECISION: u32 = 8;
    #[inline]
    fn widen(bits: u16) -> u64 {
        u64::from(bits)
    }
    #[inline]
    fn narrow(raw: u64) -> u16 {
        raw as u16
    }
}

impl Format for F32 {
    type Bits = u32;
    type Sig = u64;
    const EXP_BITS: u32 = 8;
    const PRECISION: u32 = 24;
    #[inline]
    fn widen(bits: u32) -> u64 {
        u64::from(bits)
    }
    #[inline]
    fn narrow(raw: u64) -> u32 {
        raw as u32
    }
}

impl Format for F64 {
    type Bits = u64;
    type Sig = u64;
    const EXP_BITS: u32 = 11;
    const PRECISION: u32 = 53;
    #[inline]
    fn widen(bits: u64) -> u64 {
        bits
    }
    #[inline]
    fn narrow(raw: u64) -> u64 {
        raw
    }
}

impl Format for F80 {
    type Bits = u128;
    type Sig = u128;
    const EXP_BITS: u32 = 15;
    const PRECISION: u32 = 64;
    const EXPLICIT_INTEGER: bool = true;
    #[inline]
    fn widen(bits: u128) -> u128 {
        bits & ((1 << 80) - 1)
    }
    #[inline]
    fn narrow(raw: u128) -> u128 {
        raw
    }
}

impl Format for F128 {
    type Bits = u128;
    type Sig = u128;
    const EXP_BITS: u32 = 15;
    const PRECISION: u32 = 113;
    #[inline]
    fn widen(bits: u128) -> u128 {
        bits
    }
    #[inline]
    fn narrow(raw: u128) -> u128 {
        raw
    }
}
