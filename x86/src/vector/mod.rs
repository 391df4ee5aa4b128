//! MMX, SSE and AVX: instructions on vectors, as plain functions on plain values (SDM vol. 1, chapters 9 to 14; vol. 2).
//!
//! A function here is the "Operation" section of a page of the manual, without its operands: the caller decodes, reads
//! registers and memory, calls, and writes the result. The interface is small:
//!
//! * A value is a [`V`]: 256 bits. An MMX register is its low 64 bits, an XMM register its low 128. What lies above an
//!   operand does not matter. What a result has above the operands' width is meaningless too: the caller writes as much
//!   as the instruction says, with [`V::zero_above`] (VEX) or [`V::merge_above`] (legacy SSE).
//! * One function serves all element sizes and all widths of an instruction, and is generic over the element:
//!   `padd::<u8>` is PADDB, `padd::<u64>` PADDQ; `add::<F64>` is ADDPD and ADDSD, and VADDPD, and so on.
//! * Operands come in the order of the VEX form: where the legacy form is `PSUBB xmm1, xmm2`, `a` is xmm1 (the
//!   destination as it was), `b` is xmm2. Then come immediates and implicit operands (XMM0 of BLENDVPS).
//! * Where more than the element matters, a function takes a [`Width`] first: packs, unpacks and shuffles, which work
//!   within 128 bits, but within 64 for MMX; and all floating-point operations, since an element that is not there must
//!   not raise an exception. `Width::Scalar` is one element; the others of the result are those of `a`.
//! * Floating-point operations take `&mut Mxcsr` last and return `Result<V, SimdException>`. In the case of an `Err` the
//!   flags are set, and the destination is to be left unchanged: #XM (or #UD, where CR4.OSXMMEXCPT is clear).
//! * Results for the flags register are [`Status`]: all six status flags, of which these instructions clear those that
//!   they do not set.
//!
//! ```
//! use emu_core::float::F64;
//! use x86::vector::{Mxcsr, V, Width, float, integer};
//!
//! let (a, b) = (V::from_words([1.5f64.to_bits(), 7, 0, 0]), V::from_words([0.25f64.to_bits(), 9, 0, 0]));
//! let mut mxcsr = Mxcsr::default();
//! // ADDSD xmm1, xmm2: the high quadword is that of xmm1.
//! let sum = float::add::<F64>(Width::Scalar, a, b, &mut mxcsr).unwrap();
//! assert_eq!(sum.xmm(), u128::from(1.75f64.to_bits()) | 7 << 64);
//! // VPADDQ xmm0, xmm1, xmm2.
//! assert_eq!(integer::padd::<u64>(a, b).zero_above(Width::Xmm).get::<u64>(1), 16);
//! ```
//!
//! Nothing here reads memory. For masked moves and gathers there are [`shuffle::movmsk`] (which elements are accessed) and
//! [`shuffle::gather_offset`].
//!
//! * [`integer`], [`shift`] and [`shuffle`]: MMX, SSE2, SSSE3, SSE4.1, AVX2;
//! * [`string`] has SSE4.2;
//! * [`float`], [`compare`], [`convert`] and [`approximate`]: SSE to SSE4.1, AVX, FMA, F16C, with [`mxcsr`];
//! * [`aes`], [`sha`], [`clmul`] and [`gfni`]: AES, SHA, PCLMULQDQ and GFNI, and on 256 bits VAES, VPCLMULQDQ and GFNI;
//! * [`sse4a`]: what only AMD's processors have.

pub mod aes;
pub mod approximate;
pub mod clmul;
pub mod compare;
pub mod convert;
pub mod float;
pub mod gfni;
pub mod integer;
pub mod mxcsr;
pub mod sha;
pub mod shift;
pub mod shuffle;
pub mod sse4a;
pub mod string;

pub use mxcsr::{Mxcsr, SimdException};

use serde::{Deserialize, Serialize};

/// The value of a vector register or of a vector operand in memory, little-endian: element 0 is the low bits.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug, Serialize, Deserialize)]
#[repr(align(16))]
pub struct V([u8; 32]);

/// How much of a [`V`] an instruction works on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Width {
    /// One element of a floating-point vector: ADDSS, ADDSD.
    Scalar,
    /// 64 bits.
    Mmx,
    /// 128 bits.
    Xmm,
    /// 256 bits: two blocks of 128.
    Ymm,
}

impl Width {
    /// The number of bytes of a block: what is packed, unpacked and shuffled stays within one.
    #[inline]
    pub const fn block(self) -> usize {
        if matches!(self, Width::Mmx) { 8 } else { 16 }
    }

    /// `f` of [`Width::block`], compiled once for each size: divisions by it become shifts.
    #[inline(always)]
    pub(crate) fn with_block<R>(self, f: impl Fn(usize) -> R) -> R {
        if matches!(self, Width::Mmx) { f(8) } else { f(16) }
    }

    /// The number of elements.
    #[inline]
    pub const fn count<T: Lane>(self) -> usize {
        match self {
            Width::Scalar => 1,
            Width::Mmx => 8 / T::BYTES,
            Width::Xmm => 16 / T::BYTES,
            Width::Ymm => 32 / T::BYTES,
        }
    }

    /// The number of bytes; of a scalar it depends on the element, and counts as a whole block.
    #[inline]
    pub const fn bytes(self) -> usize {
        match self {
            Width::Mmx => 8,
            Width::Scalar | Width::Xmm => 16,
            Width::Ymm => 32,
        }
    }
}

/// An element of a vector: an integer of 8 to 128 bits.
pub trait Lane: Copy + Default + PartialEq + core::fmt::Debug + 'static {
    /// The element's size.
    const BYTES: usize;
    /// All elements of a [`V`]: an array.
    type All: Copy + AsRef<[Self]> + AsMut<[Self]>;
    /// The elements of a vector.
    fn split(v: V) -> Self::All;
    /// The vector of these elements.
    fn join(all: Self::All) -> V;
    /// One element of a vector.
    fn get(v: V, i: usize) -> Self;
    /// One element of a vector replaced.
    fn set(v: &mut V, i: usize, x: Self);
    /// The vector whose element `i` is `f(i)`.
    fn build(f: impl FnMut(usize) -> Self) -> V;
    /// Zero- or sign-extended to 64 bits, or truncated.
    fn to_u64(self) -> u64;
    /// The low bits of 64.
    fn from_u64(x: u64) -> Self;
    /// Whether the top bit is set.
    fn sign(self) -> bool;
    /// All bits set, or none.
    fn ones_if(condition: bool) -> Self;
}

macro_rules! lanes {
    ($($int:ident)*) => { $(
        impl Lane for $int {
            const BYTES: usize = size_of::<$int>();
            type All = [$int; 32 / size_of::<$int>()];
            #[inline]
            fn split(v: V) -> Self::All {
                const SIZE: usize = size_of::<$int>();
                let mut all: Self::All = [0; 32 / SIZE];
                for (x, bytes) in all.iter_mut().zip(v.0.as_chunks::<SIZE>().0) {
                    *x = $int::from_le_bytes(*bytes);
                }
                all
            }
            #[inline]
            fn join(all: Self::All) -> V {
                const SIZE: usize = size_of::<$int>();
                let mut v = V::ZERO;
                for (x, bytes) in all.iter().zip(v.0.as_chunks_mut::<SIZE>().0) {
                    *bytes = x.to_le_bytes();
                }
                v
            }
            #[inline]
            fn get(v: V, i: usize) -> Self {
                $int::from_le_bytes(v.0.as_chunks().0[i])
            }
            #[inline]
            fn set(v: &mut V, i: usize, x: Self) {
                v.0.as_chunks_mut().0[i] = x.to_le_bytes();
            }
            #[inline]
            fn build(f: impl FnMut(usize) -> Self) -> V {
                Self::join(core::array::from_fn(f))
            }
            #[inline]
            fn to_u64(self) -> u64 {
                self as u64
            }
            #[inline]
            fn from_u64(x: u64) -> Self {
                x as $int
            }
            #[inline]
            fn sign(self) -> bool {
                self >> (<$int>::BITS - 1) & 1 != 0
            }
            #[inline]
            fn ones_if(condition: bool) -> Self {
                $int::from(condition).wrapping_neg()
            }
        }
    )* };
}

lanes!(u8 i8 u16 i16 u32 i32 u64 i64 u128);

impl V {
    /// All bits clear.
    pub const ZERO: V = V([0; 32]);
    /// All bits set.
    pub const ONES: V = V([0xff; 32]);

    /// The 32 bytes.
    #[inline]
    pub const fn bytes(self) -> [u8; 32] {
        self.0
    }

    /// The vector of 32 bytes.
    #[inline]
    pub const fn from_bytes(bytes: [u8; 32]) -> V {
        V(bytes)
    }

    /// The vector of four quadwords.
    #[inline]
    pub fn from_words(words: [u64; 4]) -> V {
        u64::join(words)
    }

    /// An MMX register.
    #[inline]
    pub fn from_mmx(x: u64) -> V {
        V::from_words([x, 0, 0, 0])
    }

    /// An XMM register.
    #[inline]
    pub fn from_xmm(x: u128) -> V {
        u128::join([x, 0])
    }

    /// The low 64 bits.
    #[inline]
    pub fn mmx(self) -> u64 {
        self.get(0)
    }

    /// The low 128 bits.
    #[inline]
    pub fn xmm(self) -> u128 {
        self.get(0)
    }

    /// All elements.
    #[inline]
    pub fn lanes<T: Lane>(self) -> T::All {
        T::split(self)
    }

    /// The vector of these elements.
    #[inline]
    pub fn from_lanes<T: Lane>(all: T::All) -> V {
        T::join(all)
    }

    /// Element `i`.
    #[inline]
    pub fn get<T: Lane>(self, i: usize) -> T {
        T::get(self, i)
    }

    /// Element `i` replaced.
    #[inline]
    #[must_use]
    pub fn with<T: Lane>(self, i: usize, x: T) -> V {
        let mut v = self;
        T::set(&mut v, i, x);
        v
    }

    /// The vector whose element `i` is `f(i)`.
    #[inline]
    pub fn build<T: Lane>(f: impl FnMut(usize) -> T) -> V {
        T::build(f)
    }

    /// The vector of `f(a)` for each element.
    #[inline]
    #[must_use]
    pub fn map<T: Lane>(self, f: impl Fn(T) -> T) -> V {
        let mut all = T::split(self);
        for x in all.as_mut() {
            *x = f(*x);
        }
        T::join(all)
    }

    /// The vector of `f(a, b)` for each pair of elements.
    #[inline]
    #[must_use]
    pub fn zip<T: Lane>(self, b: V, f: impl Fn(T, T) -> T) -> V {
        let (mut all, b) = (T::split(self), T::split(b));
        for (x, y) in all.as_mut().iter_mut().zip(b.as_ref()) {
            *x = f(*x, *y);
        }
        T::join(all)
    }

    /// What a VEX-encoded instruction writes to its destination: zeros above the operands' width.
    #[inline]
    #[must_use]
    pub fn zero_above(self, w: Width) -> V {
        self.merge_above(w, V::ZERO)
    }

    /// What a legacy instruction writes to its destination: the bits above the operands' width are unchanged.
    #[inline]
    #[must_use]
    pub fn merge_above(self, w: Width, old: V) -> V {
        let mut merged = old;
        merged.0[..w.bytes()].copy_from_slice(&self.0[..w.bytes()]);
        merged
    }
}

/// The status flags that an instruction sets, at their places in RFLAGS: CF, PF, AF, ZF, SF, OF. Those that are not set here
/// are to be cleared.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Status(
    /// The flags.
    pub u32,
);

impl Status {
    /// Carry.
    pub const CF: u32 = 1 << 0;
    /// Parity.
    pub const PF: u32 = 1 << 2;
    /// Auxiliary carry.
    pub const AF: u32 = 1 << 4;
    /// Zero.
    pub const ZF: u32 = 1 << 6;
    /// Sign.
    pub const SF: u32 = 1 << 7;
    /// Overflow.
    pub const OF: u32 = 1 << 11;
    /// All six.
    pub const ALL: u32 = Self::CF | Self::PF | Self::AF | Self::ZF | Self::SF | Self::OF;

    /// The flags for which a condition holds.
    #[inline]
    pub(crate) fn of(flags: &[(u32, bool)]) -> Status {
        Status(flags.iter().filter(|(_, set)| *set).fold(0, |all, (flag, _)| all | flag))
    }
}
