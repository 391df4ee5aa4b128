//! Soft floating point: IEEE 754 arithmetic in integers, exact to the last bit and to the last flag.
//!
//! What a guest computes must not depend on the host's floating-point unit, its rounding mode or its idea of a NaN.
//! So every operation here works on bit patterns and takes all that may influence it from an [`Env`]: rounding mode,
//! the rule for NaNs, when tininess is detected, what becomes of subnormal operands and results. Flags accumulate in it.
//!
//! An operation is a plain function, generic over the [`Format`]: `add::<F64>(a, b, &mut env)`.
//!
//! How the code is laid out:
//!
//! * `format`: the formats, and `significand`: the integers that hold their significands;
//! * `round`: operands are unpacked, results rounded and packed; NaNs are propagated;
//! * `arith`, `fma`, `compare`, `convert`: the operations;
//! * [`x87`]: what only the 80-bit format of the x87 has;
//! * [`fast`]: the same operations through the host's floating-point unit, where that is proved to be identical.
//!
//! The significand of a finite operand is kept normalised: its leading one is bit `BITS - 2` of the integer that holds
//! it. The bit above takes the carry of an addition; the bits below the format's precision are guard bits, of which the
//! lowest is *sticky* (it is set where any bit was lost to the right of it). There are at least ten guard bits.

mod arith;
mod compare;
mod convert;
pub mod fast;
mod fma;
mod format;
mod round;
mod significand;
pub mod x87;

pub use arith::{add, div, mul, rem, sqrt, sub};
pub use compare::{
    Class, MinMax, classify, compare, compare_quiet, eq, eq_signaling, is_nan, is_signaling_nan, le, leq, lt, ltq, max,
    min,
};
pub use convert::{
    convert, fcvtmod_w_d, from_i32, from_i64, from_u32, from_u64, round_to_integral, to_i16, to_i32, to_i64, to_u16,
    to_u32, to_u64,
};
pub use fma::{Fma, fused_mul_add};
pub use format::{Bf16, F16, F32, F64, F80, F128, Format};
pub use significand::{Significand, Wide};

/// How a result that the format cannot hold is rounded.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Round {
    /// To the nearest, ties to even. RISC-V: RNE.
    #[default]
    NearestEven,
    /// Toward zero. RISC-V: RTZ.
    TowardZero,
    /// Toward negative infinity. RISC-V: RDN.
    Down,
    /// Toward positive infinity. RISC-V: RUP.
    Up,
    /// To the nearest, ties to the larger magnitude. RISC-V: RMM; Arm: FPRounding_TIEAWAY.
    NearestMaxMagnitude,
    /// To odd: an inexact result has its last bit set. Arm: FPRounding_ODD. A later rounding to a shorter format is then
    /// as if it were the first. Overflow gives the largest finite number.
    Odd,
}

impl Round {
    /// The rounding mode encoded by `rm` or `frm`; `None` for the reserved encodings and for DYN.
    ///
    /// RISC-V Unprivileged Architecture, "Floating-Point Control and Status Register".
    pub const fn from_riscv(rm: u8) -> Option<Round> {
        match rm {
            0b000 => Some(Round::NearestEven),
            0b001 => Some(Round::TowardZero),
            0b010 => Some(Round::Down),
            0b011 => Some(Round::Up),
            0b100 => Some(Round::NearestMaxMagnitude),
            _ => None,
        }
    }

    /// The rounding mode encoded by the two bits of MXCSR.RC or of the x87 control word's RC.
    pub const fn from_x86(rc: u8) -> Round {
        match rc & 3 {
            0b00 => Round::NearestEven,
            0b01 => Round::Down,
            0b10 => Round::Up,
            _ => Round::TowardZero,
        }
    }

    /// The rounding mode encoded by the two bits of FPCR.RMode.
    pub const fn from_arm(rmode: u8) -> Round {
        match rmode & 3 {
            0b00 => Round::NearestEven,
            0b01 => Round::Up,
            0b10 => Round::Down,
            _ => Round::TowardZero,
        }
    }
}

/// A set of exception flags. The low five bits are those of RISC-V's `fflags`.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Flags(
    /// The flags, one bit each.
    pub u8,
);

impl Flags {
    /// No flag.
    pub const NONE: Flags = Flags(0);
    /// Inexact (NX): the result was rounded.
    pub const INEXACT: Flags = Flags(1 << 0);
    /// Underflow (UF): the result is tiny and inexact.
    pub const UNDERFLOW: Flags = Flags(1 << 1);
    /// Overflow (OF): the rounded result is larger than the largest finite number.
    pub const OVERFLOW: Flags = Flags(1 << 2);
    /// Divide by zero (DZ): an exact infinity of finite operands.
    pub const DIVIDE_BY_ZERO: Flags = Flags(1 << 3);
    /// Invalid operation (NV).
    pub const INVALID: Flags = Flags(1 << 4);
    /// An operand was subnormal. x86: DE; Arm: IDC. Raised as [`Denormals`] says; never on RISC-V.
    pub const DENORMAL: Flags = Flags(1 << 5);
    /// The magnitude was rounded up. Raised for results in [`F80`] only: C1 of the x87 status word. Not an exception, and
    /// not cleared by a result that was not rounded up: the x87 clears it before each instruction.
    pub const ROUNDED_UP: Flags = Flags(1 << 6);

    /// Whether every flag of `other` is set.
    #[inline]
    pub const fn contains(self, other: Flags) -> bool {
        self.0 & other.0 == other.0
    }

    /// The flags of both.
    #[inline]
    #[must_use]
    pub const fn union(self, other: Flags) -> Flags {
        Flags(self.0 | other.0)
    }

    /// The five accrued exceptions of `fflags`: NV, DZ, OF, UF, NX.
    pub const fn to_riscv(self) -> u8 {
        self.0 & 0x1f
    }

    /// The accrued exceptions of `fflags`.
    pub const fn from_riscv(fflags: u8) -> Flags {
        Flags(fflags & 0x1f)
    }

    /// The six exception flags of MXCSR and of the x87 status word: PE, UE, OE, ZE, DE, IE.
    pub const fn to_x86(self) -> u8 {
        let f = self.0;
        (f >> 4 & 1) | (f >> 5 & 1) << 1 | (f >> 3 & 1) << 2 | (f >> 2 & 1) << 3 | (f >> 1 & 1) << 4 | (f & 1) << 5
    }

    /// The cumulative exception bits of FPSR: IDC, IXC, UFC, OFC, DZC, IOC.
    pub const fn to_arm(self) -> u8 {
        let f = self.0;
        (f >> 4 & 1) | (f >> 3 & 1) << 1 | (f >> 2 & 1) << 2 | (f >> 1 & 1) << 3 | (f & 1) << 4 | (f >> 5 & 1) << 7
    }
}

impl core::ops::BitOr for Flags {
    type Output = Flags;
    #[inline]
    fn bitor(self, other: Flags) -> Flags {
        self.union(other)
    }
}

impl core::ops::BitOrAssign for Flags {
    #[inline]
    fn bitor_assign(&mut self, other: Flags) {
        self.0 |= other.0;
    }
}

/// Which NaN an operation returns.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum NanRule {
    /// RISC-V: always the canonical NaN, positive and quiet with a payload of zero. `fma(inf, 0, qNaN)` is invalid.
    #[default]
    Canonical,
    /// SSE and AVX: the first operand that is a NaN, quieted. The default NaN is negative. `fma(inf, 0, qNaN)` is valid.
    X86Sse,
    /// x87: of two NaNs the quiet one, else the one with the larger significand, quieted. The default NaN is negative.
    X87,
    /// Arm: the first signaling NaN, else the first quiet one; the addend is the first operand of a fused multiply-add.
    /// `fma(inf, 0, qNaN)` is invalid and gives the default NaN.
    Arm {
        /// FPCR.DN: the default NaN always.
        default_nan: bool,
    },
}

/// When a result counts as tiny.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Tininess {
    /// The exact result lies below the smallest normal number. Arm.
    BeforeRounding,
    /// The result, rounded as if the exponent were unbounded, does. RISC-V, x86.
    #[default]
    AfterRounding,
}

/// What becomes of a subnormal operand.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Denormals {
    /// It is a number like any other. RISC-V; Arm without FPCR.FZ.
    #[default]
    Use,
    /// It is a number, and DENORMAL is raised, unless an operand is a NaN or the operation is invalid or divides by zero:
    /// those come first. x86 without MXCSR.DAZ; x87.
    UseAndFlag,
    /// It is a zero of the same sign. x86 with MXCSR.DAZ; Arm with FPCR.FZ16, for half precision.
    Flush,
    /// It is a zero of the same sign, and DENORMAL is raised. Arm with FPCR.FZ.
    FlushAndFlag,
}

/// What becomes of a tiny result.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Tiny {
    /// It is rounded to a subnormal number.
    #[default]
    Subnormal,
    /// It is a zero of the same sign, with UNDERFLOW and INEXACT. x86 with MXCSR.FTZ.
    FlushInexact,
    /// It is a zero of the same sign, with UNDERFLOW only. Arm with FPCR.FZ.
    Flush,
}

/// What an operand becomes that the integer format cannot hold. INVALID is raised in any case, INEXACT not.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum IntRule {
    /// RISC-V: the nearest integer; NaN is the largest.
    #[default]
    SaturateNanMax,
    /// Arm: the nearest integer; NaN is zero.
    SaturateNanZero,
    /// x86: the "integer indefinite": the most negative integer where signed, the largest where unsigned.
    Indefinite,
}

/// To how many bits the x87 rounds a significand: its precision control.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Precision {
    /// 24 bits.
    Single,
    /// 53 bits.
    Double,
    /// 64 bits.
    #[default]
    Extended,
}

/// All that influences an operation besides its operands, and the flags that it raises.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Env {
    /// The rounding mode.
    pub round: Round,
    /// The flags raised so far.
    pub flags: Flags,
    /// Which NaN is returned.
    pub nan: NanRule,
    /// When a result counts as tiny.
    pub tininess: Tininess,
    /// What becomes of subnormal operands.
    pub denormals: Denormals,
    /// What becomes of tiny results.
    pub tiny: Tiny,
    /// What becomes of operands out of range of an integer.
    pub integers: IntRule,
    /// Precision control. Applies to [`add`], [`sub`], [`mul`], [`div`] and [`sqrt`] in [`F80`], to nothing else.
    pub precision: Precision,
}

impl Env {
    /// RISC-V: canonical NaNs, tininess after rounding, saturating conversions.
    pub const fn riscv(round: Round) -> Env {
        Env {
            round,
            flags: Flags::NONE,
            nan: NanRule::Canonical,
            tininess: Tininess::AfterRounding,
            denormals: Denormals::Use,
            tiny: Tiny::Subnormal,
            integers: IntRule::SaturateNanMax,
            precision: Precision::Extended,
        }
    }

    /// SSE and AVX, as MXCSR says: DAZ is bit 6, RC is bits 14:13, FTZ is bit 15. The flags are clear.
    ///
    /// FTZ has an effect only while the underflow exception is masked (UM, bit 11).
    pub const fn x86_sse(mxcsr: u32) -> Env {
        Env {
            round: Round::from_x86((mxcsr >> 13) as u8),
            flags: Flags::NONE,
            nan: NanRule::X86Sse,
            tininess: Tininess::AfterRounding,
            denormals: if mxcsr >> 6 & 1 != 0 { Denormals::Flush } else { Denormals::UseAndFlag },
            tiny: if mxcsr >> 15 & 1 != 0 && mxcsr >> 11 & 1 != 0 { Tiny::FlushInexact } else { Tiny::Subnormal },
            integers: IntRule::Indefinite,
            precision: Precision::Extended,
        }
    }

    /// The x87, as its control word says: PC is bits 9:8, RC is bits 11:10. The flags are clear.
    pub const fn x87(control: u16) -> Env {
        Env {
            round: Round::from_x86((control >> 10) as u8),
            flags: Flags::NONE,
            nan: NanRule::X87,
            tininess: Tininess::AfterRounding,
            denormals: Denormals::UseAndFlag,
            tiny: Tiny::Subnormal,
            integers: IntRule::Indefinite,
            precision: match control >> 8 & 3 {
                0b00 => Precision::Single,
                0b10 => Precision::Double,
                _ => Precision::Extended, // 01 is reserved
            },
        }
    }

    /// Arm, single and double precision, as FPCR says: RMode is bits 23:22, FZ is bit 24, DN is bit 25. The flags are clear.
    pub const fn arm(fpcr: u64) -> Env {
        let flush = fpcr >> 24 & 1 != 0;
        Env {
            round: Round::from_arm((fpcr >> 22) as u8),
            flags: Flags::NONE,
            nan: NanRule::Arm { default_nan: fpcr >> 25 & 1 != 0 },
            tininess: Tininess::BeforeRounding,
            denormals: if flush { Denormals::FlushAndFlag } else { Denormals::Use },
            tiny: if flush { Tiny::Flush } else { Tiny::Subnormal },
            integers: IntRule::SaturateNanZero,
            precision: Precision::Extended,
        }
    }

    /// Raises flags.
    #[inline]
    pub fn raise(&mut self, flags: Flags) {
        self.flags |= flags;
    }
}
