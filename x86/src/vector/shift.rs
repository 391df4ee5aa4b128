//! Shifts.

use super::{Lane, V};

/// An element that can be shifted.
pub trait Shift: Lane {
    /// Shifted left; all zeros where the count reaches the element's size.
    fn left(self, count: u64) -> Self;
    /// Shifted right; zeros come in where the element is unsigned, copies of the sign where it is signed.
    fn right(self, count: u64) -> Self;
}

macro_rules! shifts {
    ($($unsigned:ident $signed:ident)*) => { $(
        impl Shift for $unsigned {
            #[inline]
            fn left(self, count: u64) -> Self {
                if count < u64::from(Self::BITS) { self << count } else { 0 }
            }
            #[inline]
            fn right(self, count: u64) -> Self {
                if count < u64::from(Self::BITS) { self >> count } else { 0 }
            }
        }
        impl Shift for $signed {
            #[inline]
            fn left(self, count: u64) -> Self {
                if count < u64::from(Self::BITS) { self << count } else { 0 }
            }
            #[inline]
            fn right(self, count: u64) -> Self {
                self >> count.min(u64::from(Self::BITS - 1))
            }
        }
    )* };
}

shifts!(u16 i16 u32 i32 u64 i64);

/// PSLLW, PSLLD, PSLLQ. The count is the immediate, or the low 64 bits of the second operand.
pub fn psll<T: Shift>(a: V, count: u64) -> V {
    a.map(|x: T| x.left(count))
}

/// PSRLW, PSRLD, PSRLQ (unsigned elements), PSRAW, PSRAD (signed ones). The count is the immediate, or the low 64 bits of
/// the second operand.
pub fn psr<T: Shift>(a: V, count: u64) -> V {
    a.map(|x: T| x.right(count))
}

/// PSLLDQ: each block shifted left by bytes.
pub fn pslldq(a: V, bytes: u8) -> V {
    a.map(|x: u128| if bytes < 16 { x << (8 * bytes) } else { 0 })
}

/// PSRLDQ: each block shifted right by bytes.
pub fn psrldq(a: V, bytes: u8) -> V {
    a.map(|x: u128| if bytes < 16 { x >> (8 * bytes) } else { 0 })
}

/// VPSLLVD, VPSLLVQ: each element has its own count. Of unsigned elements.
pub fn psllv<T: Shift>(a: V, counts: V) -> V {
    a.zip(counts, |x: T, count| x.left(count.to_u64()))
}

/// VPSRLVD, VPSRLVQ (unsigned elements), VPSRAVD (signed): each element has its own count, which is unsigned.
pub fn psrv<T: Shift>(a: V, counts: V) -> V {
    a.zip(counts, |x: T, count| x.right(count.to_u64()))
}
