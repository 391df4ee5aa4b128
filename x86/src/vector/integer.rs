//! Integer arithmetic, logic and comparison.

use super::{Lane, Status, V, Width};

/// The arithmetic of an element. The instructions that exist have elements of 8 to 64 bits.
pub trait Int: Lane + Ord {
    /// The sum, modulo the element's size.
    fn wrapping_add(self, other: Self) -> Self;
    /// The difference, modulo the element's size.
    fn wrapping_sub(self, other: Self) -> Self;
    /// The low half of the product.
    fn wrapping_mul(self, other: Self) -> Self;
    /// The sum, saturated.
    fn saturating_add(self, other: Self) -> Self;
    /// The difference, saturated.
    fn saturating_sub(self, other: Self) -> Self;
}

macro_rules! ints {
    ($($int:ident)*) => { $(
        impl Int for $int {
            #[inline]
            fn wrapping_add(self, other: Self) -> Self {
                self.wrapping_add(other)
            }
            #[inline]
            fn wrapping_sub(self, other: Self) -> Self {
                self.wrapping_sub(other)
            }
            #[inline]
            fn wrapping_mul(self, other: Self) -> Self {
                self.wrapping_mul(other)
            }
            #[inline]
            fn saturating_add(self, other: Self) -> Self {
                self.saturating_add(other)
            }
            #[inline]
            fn saturating_sub(self, other: Self) -> Self {
                self.saturating_sub(other)
            }
        }
    )* };
}

ints!(u8 i8 u16 i16 u32 i32 u64 i64);

/// PADDB, PADDW, PADDD, PADDQ.
pub fn padd<T: Int>(a: V, b: V) -> V {
    a.zip(b, T::wrapping_add)
}

/// PSUBB, PSUBW, PSUBD, PSUBQ.
pub fn psub<T: Int>(a: V, b: V) -> V {
    a.zip(b, T::wrapping_sub)
}

/// PADDSB, PADDSW; PADDUSB, PADDUSW.
pub fn padds<T: Int>(a: V, b: V) -> V {
    a.zip(b, T::saturating_add)
}

/// PSUBSB, PSUBSW; PSUBUSB, PSUBUSW.
pub fn psubs<T: Int>(a: V, b: V) -> V {
    a.zip(b, T::saturating_sub)
}

/// PMINSB, PMINSW, PMINSD; PMINUB, PMINUW, PMINUD.
pub fn pmin<T: Int>(a: V, b: V) -> V {
    a.zip(b, T::min)
}

/// PMAXSB, PMAXSW, PMAXSD; PMAXUB, PMAXUW, PMAXUD.
pub fn pmax<T: Int>(a: V, b: V) -> V {
    a.zip(b, T::max)
}

/// PCMPEQB, PCMPEQW, PCMPEQD, PCMPEQQ.
pub fn pcmpeq<T: Int>(a: V, b: V) -> V {
    a.zip(b, |x: T, y| T::ones_if(x == y))
}

/// PCMPGTB, PCMPGTW, PCMPGTD, PCMPGTQ: of signed elements.
pub fn pcmpgt<T: Int>(a: V, b: V) -> V {
    a.zip(b, |x: T, y| T::ones_if(x > y))
}

/// PABSB, PABSW, PABSD: of signed elements.
pub fn pabs<T: Int>(a: V) -> V {
    a.map(|x: T| if x.sign() { T::default().wrapping_sub(x) } else { x })
}

/// PSIGNB, PSIGNW, PSIGND: of signed elements.
pub fn psign<T: Int>(a: V, b: V) -> V {
    let zero = T::default();
    a.zip(b, |x: T, y| match y.cmp(&zero) {
        core::cmp::Ordering::Less => zero.wrapping_sub(x),
        core::cmp::Ordering::Equal => zero,
        core::cmp::Ordering::Greater => x,
    })
}

/// PAVGB.
pub fn pavgb(a: V, b: V) -> V {
    a.zip(b, |x: u8, y| ((u16::from(x) + u16::from(y) + 1) >> 1) as u8)
}

/// PAVGW.
pub fn pavgw(a: V, b: V) -> V {
    a.zip(b, |x: u16, y| ((u32::from(x) + u32::from(y) + 1) >> 1) as u16)
}

/// PAND, ANDPS, ANDPD.
pub fn pand(a: V, b: V) -> V {
    a.zip(b, |x: u64, y| x & y)
}

/// PANDN, ANDNPS, ANDNPD: the first operand is the one that is inverted.
pub fn pandn(a: V, b: V) -> V {
    a.zip(b, |x: u64, y| !x & y)
}

/// POR, ORPS, ORPD.
pub fn por(a: V, b: V) -> V {
    a.zip(b, |x: u64, y| x | y)
}

/// PXOR, XORPS, XORPD.
pub fn pxor(a: V, b: V) -> V {
    a.zip(b, |x: u64, y| x ^ y)
}

/// PMULLW, PMULLD.
pub fn pmull<T: Int>(a: V, b: V) -> V {
    a.zip(b, T::wrapping_mul)
}

/// PMULHW.
pub fn pmulhw(a: V, b: V) -> V {
    a.zip(b, |x: i16, y| ((i32::from(x) * i32::from(y)) >> 16) as i16)
}

/// PMULHUW.
pub fn pmulhuw(a: V, b: V) -> V {
    a.zip(b, |x: u16, y| ((u32::from(x) * u32::from(y)) >> 16) as u16)
}

/// PMULHRSW: the product's high bits, rounded.
pub fn pmulhrsw(a: V, b: V) -> V {
    a.zip(b, |x: i16, y| ((((i32::from(x) * i32::from(y)) >> 14) + 1) >> 1) as i16)
}

/// PMULUDQ: of the even elements.
pub fn pmuludq(a: V, b: V) -> V {
    a.zip(b, |x: u64, y| (x & 0xffff_ffff) * (y & 0xffff_ffff))
}

/// PMULDQ: of the even elements.
pub fn pmuldq(a: V, b: V) -> V {
    a.zip(b, |x: i64, y| i64::from(x as i32) * i64::from(y as i32))
}

/// PMADDWD: sums of two products.
pub fn pmaddwd(a: V, b: V) -> V {
    let (a, b) = (a.lanes::<i16>(), b.lanes::<i16>());
    let product = |i: usize| i32::from(a[i]) * i32::from(b[i]);
    V::build(|i| product(2 * i).wrapping_add(product(2 * i + 1)))
}

/// PMADDUBSW: saturated sums of two products of an unsigned byte of `a` and a signed byte of `b`.
pub fn pmaddubsw(a: V, b: V) -> V {
    let (a, b) = (a.lanes::<u8>(), b.lanes::<i8>());
    let product = |i: usize| i16::from(a[i]) * i16::from(b[i]);
    V::build(|i| product(2 * i).saturating_add(product(2 * i + 1)))
}

/// Of each block, pairs of `a` and then of `b`, reduced by `f`.
#[inline(always)]
fn horizontal<T: Lane>(w: Width, a: V, b: V, f: impl Fn(T, T) -> T) -> V {
    let (a, b) = (a.lanes::<T>(), b.lanes::<T>());
    w.with_block(
        #[inline(always)]
        |block| {
            let per_block = block / T::BYTES;
            V::build(|i| {
                let (first, pair) = (i / per_block * per_block, i % per_block * 2);
                let (source, at) = if pair < per_block { (&a, first + pair) } else { (&b, first + pair - per_block) };
                f(source.as_ref()[at], source.as_ref()[at + 1])
            })
        },
    )
}

/// PHADDW, PHADDD.
pub fn phadd<T: Int>(w: Width, a: V, b: V) -> V {
    horizontal(w, a, b, T::wrapping_add)
}

/// PHSUBW, PHSUBD.
pub fn phsub<T: Int>(w: Width, a: V, b: V) -> V {
    horizontal(w, a, b, T::wrapping_sub)
}

/// PHADDSW.
pub fn phaddsw(w: Width, a: V, b: V) -> V {
    horizontal(w, a, b, i16::saturating_add)
}

/// PHSUBSW.
pub fn phsubsw(w: Width, a: V, b: V) -> V {
    horizontal(w, a, b, i16::saturating_sub)
}

/// PSADBW: sums of eight absolute differences.
pub fn psadbw(a: V, b: V) -> V {
    let (a, b) = (a.bytes(), b.bytes());
    V::build(|i| (8 * i..8 * i + 8).map(|k| u64::from(a[k].abs_diff(b[k]))).sum::<u64>())
}

/// MPSADBW: sums of four absolute differences, of four bytes of `b` with each of eight places in `a`. The immediate's bits
/// 2:0 choose for the low block, bits 5:3 for the high one.
pub fn mpsadbw(a: V, b: V, imm: u8) -> V {
    let (a, b) = (a.bytes(), b.bytes());
    V::build(|i| {
        let (block, choice) = (i / 8 * 16, usize::from(imm >> (i / 8 * 3)));
        let a = &a[block + (choice >> 2 & 1) * 4 + i % 8..][..4];
        let b = &b[block + (choice & 3) * 4..][..4];
        a.iter().zip(b).map(|(x, y)| u16::from(x.abs_diff(*y))).sum::<u16>()
    })
}

/// PHMINPOSUW: the smallest of eight words, and where it is.
pub fn phminposuw(a: V) -> V {
    let a = a.lanes::<u16>();
    let (at, min) = a[..8].iter().enumerate().min_by_key(|(_, x)| **x).map_or((0, 0), |(at, x)| (at, *x));
    V::from_mmx(u64::from(min) | (at as u64) << 16)
}

fn is_zero(w: Width, a: V) -> bool {
    a.zero_above(w) == V::ZERO
}

/// PTEST, VPTEST: ZF where `a AND b` is zero, CF where `NOT a AND b` is.
pub fn ptest(w: Width, a: V, b: V) -> Status {
    Status::of(&[(Status::ZF, is_zero(w, pand(a, b))), (Status::CF, is_zero(w, pandn(a, b)))])
}

/// VTESTPS (`T` is `u32`), VTESTPD (`u64`): PTEST of the signs only.
pub fn vtest<T: Lane>(w: Width, a: V, b: V) -> Status {
    ptest(w, super::shuffle::element_mask::<T>(a), super::shuffle::element_mask::<T>(b))
}
