//! The integers that hold significands: `u64`, `u128`, and pairs of either for exact products.

use core::fmt::Debug;
use core::ops::{Add, BitAnd, BitOr, Not, Shl, Shr, Sub};

/// An unsigned integer that holds a significand, normalised so that its leading one is bit `BITS - 2`.
pub trait Significand:
    Copy
    + Ord
    + Debug
    + Add<Output = Self>
    + Sub<Output = Self>
    + BitAnd<Output = Self>
    + BitOr<Output = Self>
    + Not<Output = Self>
    + Shl<u32, Output = Self>
    + Shr<u32, Output = Self>
{
    /// Width in bits.
    const BITS: u32;
    /// Zero.
    const ZERO: Self;
    /// One.
    const ONE: Self;

    /// The number of zeros above the leading one.
    fn leading_zeros(self) -> u32;
    /// The number of zeros below the lowest one.
    fn trailing_zeros(self) -> u32;
    /// The sum, and whether it carries out.
    fn overflowing_add(self, other: Self) -> (Self, bool);
    /// The difference, and whether it borrows.
    fn overflowing_sub(self, other: Self) -> (Self, bool);
    /// The exact product.
    fn widening_mul(self, other: Self) -> Wide<Self>;
    /// `self / divisor * 2^(BITS - 2)`, sticky. Both are normalised and `self >= divisor`, so the result is normalised.
    fn quotient(self, divisor: Self) -> Self;
    /// The square root, sticky and normalised, of the normalised `self` or, where `odd`, of twice that.
    fn root(self, odd: bool) -> Self;
    /// The same significand in 128 bits, normalised in those.
    fn to_u128(self) -> u128;
    /// The inverse of [`Significand::to_u128`], sticky.
    fn from_u128(wide: u128) -> Self;
    /// The integer of the same value.
    fn from_int(value: u32) -> Self;
    /// The low 32 bits.
    fn low_u32(self) -> u32;

    /// Shifted right by any number of bits, sticky.
    #[inline]
    fn shift_right_sticky(self, by: u32) -> Self {
        if by == 0 {
            return self;
        }
        if by >= Self::BITS {
            return if self == Self::ZERO { Self::ZERO } else { Self::ONE };
        }
        let lost = self << (Self::BITS - by);
        (self >> by).with_sticky(lost != Self::ZERO)
    }

    /// The lowest bit set where `sticky`.
    #[inline]
    fn with_sticky(self, sticky: bool) -> Self {
        if sticky { self | Self::ONE } else { self }
    }
}

impl Significand for u64 {
    const BITS: u32 = u64::BITS;
    const ZERO: u64 = 0;
    const ONE: u64 = 1;

    #[inline]
    fn leading_zeros(self) -> u32 {
        u64::leading_zeros(self)
    }
    #[inline]
    fn trailing_zeros(self) -> u32 {
        u64::trailing_zeros(self)
    }
    #[inline]
    fn overflowing_add(self, other: u64) -> (u64, bool) {
        u64::overflowing_add(self, other)
    }
    #[inline]
    fn overflowing_sub(self, other: u64) -> (u64, bool) {
        u64::overflowing_sub(self, other)
    }
    #[inline]
    fn widening_mul(self, other: u64) -> Wide<u64> {
        let product = u128::from(self) * u128::from(other);
        Wide { hi: (product >> 64) as u64, lo: product as u64 }
    }
    #[inline]
    fn quotient(self, divisor: u64) -> u64 {
        let dividend = u128::from(self) << 62;
        let divisor = u128::from(divisor);
        ((dividend / divisor) as u64).with_sticky(dividend % divisor != 0)
    }
    #[inline]
    fn root(self, odd: bool) -> u64 {
        let radicand = u128::from(self) << (62 + u32::from(odd)); // 2^124 ..= 2^126 - 1
        let root = radicand.isqrt();
        (root as u64).with_sticky(root * root != radicand)
    }
    #[inline]
    fn to_u128(self) -> u128 {
        u128::from(self) << 64
    }
    #[inline]
    fn from_u128(wide: u128) -> u64 {
        ((wide >> 64) as u64).with_sticky(wide as u64 != 0)
    }
    #[inline]
    fn from_int(value: u32) -> u64 {
        u64::from(value)
    }
    #[inline]
    fn low_u32(self) -> u32 {
        self as u32
    }
}

impl Significand for u128 {
    const BITS: u32 = u128::BITS;
    const ZERO: u128 = 0;
    const ONE: u128 = 1;

    #[inline]
    fn leading_zeros(self) -> u32 {
        u128::leading_zeros(self)
    }
    #[inline]
    fn trailing_zeros(self) -> u32 {
        u128::trailing_zeros(self)
    }
    #[inline]
    fn overflowing_add(self, other: u128) -> (u128, bool) {
        u128::overflowing_add(self, other)
    }
    #[inline]
    fn overflowing_sub(self, other: u128) -> (u128, bool) {
        u128::overflowing_sub(self, other)
    }
    fn widening_mul(self, other: u128) -> Wide<u128> {
        let half = |x: u128| (x >> 64, x & u128::from(u64::MAX));
        let ((a1, a0), (b1, b0)) = (half(self), half(other));
        let low = a0 * b0;
        let (middle, carry) = (a1 * b0).overflowing_add(a0 * b1);
        let (lo, carry_low) = low.overflowing_add(middle << 64);
        let hi = a1 * b1 + (middle >> 64) + (u128::from(carry) << 64) + u128::from(carry_low);
        Wide { hi, lo }
    }
    fn quotient(self, divisor: u128) -> u128 {
        if (self | divisor) << 65 == 0 {
            // F80: 64 significant bits. Two digits of 63 bits, each a division of 128 by 64 bits.
            let (a, b) = (self >> 63, divisor >> 63);
            let (high, rest) = ((a << 63) / b, (a << 63) % b);
            let (low, rest) = ((rest << 63) / b, (rest << 63) % b);
            return (high << 63 | low).with_sticky(rest != 0);
        }
        // Bit by bit. The remainder stays below twice the divisor, so below 2^128.
        let (mut quotient, mut rest) = (0u128, self);
        for _ in 0..127 {
            quotient <<= 1;
            if rest >= divisor {
                rest -= divisor;
                quotient |= 1;
            }
            rest <<= 1;
        }
        quotient.with_sticky(rest != 0)
    }
    fn root(self, odd: bool) -> u128 {
        // Bit by bit, in fixed point with 1.0 at bit 125: x is in [1, 4) and has no bit below the point, for a significand
        // has guard bits that are zero. Invariant: rest = (x - q^2) / bit, twice = 2q. With (q + bit)^2 > x after each step,
        // rest < 2q + bit < 4, so that doubled it stays below 8.0 = 2^128.
        let mut rest = if odd { self } else { self >> 1 };
        let (mut root, mut twice) = (0u128, 0u128);
        let mut bit = 1u128 << 125;
        while bit != 0 {
            let trial = twice + bit;
            if trial <= rest {
                rest -= trial;
                twice = trial + bit;
                root |= bit;
            }
            rest <<= 1;
            bit >>= 1;
        }
        (root << 1).with_sticky(rest != 0)
    }
    #[inline]
    fn to_u128(self) -> u128 {
        self
    }
    #[inline]
    fn from_u128(wide: u128) -> u128 {
        wide
    }
    #[inline]
    fn from_int(value: u32) -> u128 {
        u128::from(value)
    }
    #[inline]
    fn low_u32(self) -> u32 {
        self as u32
    }
}

/// An unsigned integer of twice the width: an exact product.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Wide<S> {
    /// The high half.
    pub hi: S,
    /// The low half.
    pub lo: S,
}

impl<S: Significand> Wide<S> {
    /// Zero.
    pub const ZERO: Wide<S> = Wide { hi: S::ZERO, lo: S::ZERO };

    /// The sum, which must fit.
    #[inline]
    #[must_use]
    pub fn plus(self, other: Wide<S>) -> Wide<S> {
        let (lo, carry) = self.lo.overflowing_add(other.lo);
        let hi = self.hi + other.hi;
        Wide { hi: if carry { hi + S::ONE } else { hi }, lo }
    }

    /// The difference; `self >= other`.
    #[inline]
    #[must_use]
    pub fn minus(self, other: Wide<S>) -> Wide<S> {
        let (lo, borrow) = self.lo.overflowing_sub(other.lo);
        let hi = self.hi - other.hi;
        Wide { hi: if borrow { hi - S::ONE } else { hi }, lo }
    }

    /// The number of zeros above the leading one.
    #[inline]
    pub fn leading_zeros(self) -> u32 {
        if self.hi == S::ZERO { S::BITS + self.lo.leading_zeros() } else { self.hi.leading_zeros() }
    }

    /// Shifted left by any number of bits.
    #[inline]
    #[must_use]
    pub fn shift_left(self, by: u32) -> Wide<S> {
        if by == 0 {
            self
        } else if by < S::BITS {
            Wide { hi: (self.hi << by) | (self.lo >> (S::BITS - by)), lo: self.lo << by }
        } else if by < 2 * S::BITS {
            Wide { hi: self.lo << (by - S::BITS), lo: S::ZERO }
        } else {
            Wide::ZERO
        }
    }

    /// Shifted right by any number of bits, sticky.
    #[inline]
    #[must_use]
    pub fn shift_right_sticky(self, by: u32) -> Wide<S> {
        if by == 0 {
            self
        } else if by < S::BITS {
            let lost = self.lo << (S::BITS - by);
            let lo = (self.lo >> by) | (self.hi << (S::BITS - by));
            Wide { hi: self.hi >> by, lo: lo.with_sticky(lost != S::ZERO) }
        } else {
            let lo = self.hi.shift_right_sticky(by - S::BITS);
            Wide { hi: S::ZERO, lo: lo.with_sticky(self.lo != S::ZERO) }
        }
    }

    /// The high half, sticky.
    #[inline]
    pub fn high_sticky(self) -> S {
        self.hi.with_sticky(self.lo != S::ZERO)
    }
}
