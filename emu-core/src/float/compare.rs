//! Comparison, minimum and maximum, classification.

use super::round::{Kind, Unpacked, note_denormal, propagate, unpack, unpack_raw};
use super::{Denormals, Env, Flags, Format, Significand};
use core::cmp::Ordering;

/// How two numbers compare. Zeros are equal.
fn order<S: Significand>(x: &Unpacked<S>, y: &Unpacked<S>) -> Ordering {
    if x.is_zero() && y.is_zero() {
        return Ordering::Equal;
    }
    if x.sign != y.sign {
        return if x.sign { Ordering::Less } else { Ordering::Greater };
    }
    let magnitudes = x.kind.cmp(&y.kind).then_with(|| match x.kind {
        Kind::Finite => (x.exp, x.sig).cmp(&(y.exp, y.sig)),
        _ => Ordering::Equal,
    });
    if x.sign { magnitudes.reverse() } else { magnitudes }
}

fn compare_operands<F: Format>(a: F::Bits, b: F::Bits, signaling: bool, env: &mut Env) -> Option<Ordering> {
    let (x, y) = (unpack::<F>(env, a), unpack::<F>(env, b));
    if x.is_nan() || y.is_nan() {
        if signaling || x.is_signaling() || y.is_signaling() {
            env.raise(Flags::INVALID);
        }
        return None;
    }
    note_denormal(env, x.subnormal || y.subnormal);
    Some(order(&x, &y))
}

/// How `a` compares with `b`; `None` where they are unordered, which is invalid. x86: COMISD; Arm: FCMPE.
pub fn compare<F: Format>(a: F::Bits, b: F::Bits, env: &mut Env) -> Option<Ordering> {
    compare_operands::<F>(a, b, true, env)
}

/// How `a` compares with `b`; `None` where they are unordered, which is invalid for a signaling NaN only. x86: UCOMISD;
/// Arm: FCMP.
pub fn compare_quiet<F: Format>(a: F::Bits, b: F::Bits, env: &mut Env) -> Option<Ordering> {
    compare_operands::<F>(a, b, false, env)
}

/// `a == b`, quiet. RISC-V: FEQ.
pub fn eq<F: Format>(a: F::Bits, b: F::Bits, env: &mut Env) -> bool {
    compare_quiet::<F>(a, b, env) == Some(Ordering::Equal)
}

/// `a == b`, signaling.
pub fn eq_signaling<F: Format>(a: F::Bits, b: F::Bits, env: &mut Env) -> bool {
    compare::<F>(a, b, env) == Some(Ordering::Equal)
}

/// `a < b`, signaling. RISC-V: FLT.
pub fn lt<F: Format>(a: F::Bits, b: F::Bits, env: &mut Env) -> bool {
    compare::<F>(a, b, env) == Some(Ordering::Less)
}

/// `a <= b`, signaling. RISC-V: FLE.
pub fn le<F: Format>(a: F::Bits, b: F::Bits, env: &mut Env) -> bool {
    compare::<F>(a, b, env).is_some_and(Ordering::is_le)
}

/// `a < b`, quiet. RISC-V, Zfa: FLTQ.
pub fn ltq<F: Format>(a: F::Bits, b: F::Bits, env: &mut Env) -> bool {
    compare_quiet::<F>(a, b, env) == Some(Ordering::Less)
}

/// `a <= b`, quiet. RISC-V, Zfa: FLEQ.
pub fn leq<F: Format>(a: F::Bits, b: F::Bits, env: &mut Env) -> bool {
    compare_quiet::<F>(a, b, env).is_some_and(Ordering::is_le)
}

/// What minimum and maximum do with NaNs and zeros.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum MinMax {
    /// IEEE 754-2019 minimumNumber: a number wins over any NaN; a signaling NaN is invalid. -0 < +0. RISC-V: FMIN, FMAX.
    Number2019,
    /// IEEE 754-2008 minNum: a number wins over a quiet NaN, a signaling NaN over all. -0 < +0. Arm: FMINNM, FMAXNM.
    Number2008,
    /// IEEE 754-2019 minimum: a NaN wins. -0 < +0. RISC-V, Zfa: FMINM, FMAXM; Arm: FMIN, FMAX.
    Propagate,
    /// The second operand where either is a NaN, which is invalid, or where both are zeros. x86: MINSD, MAXSD.
    Second,
}

/// The smaller operand.
pub fn min<F: Format>(a: F::Bits, b: F::Bits, flavour: MinMax, env: &mut Env) -> F::Bits {
    choose::<F>(a, b, flavour, Ordering::Less, env)
}

/// The larger operand.
pub fn max<F: Format>(a: F::Bits, b: F::Bits, flavour: MinMax, env: &mut Env) -> F::Bits {
    choose::<F>(a, b, flavour, Ordering::Greater, env)
}

/// The first operand where it compares as `wanted` with the second, else the second.
fn choose<F: Format>(a: F::Bits, b: F::Bits, flavour: MinMax, wanted: Ordering, env: &mut Env) -> F::Bits {
    let (x, y) = (unpack::<F>(env, a), unpack::<F>(env, b));
    // An operand that was flushed to zero is returned as that zero.
    let (a, b) = if env.denormals == Denormals::Use {
        (a, b)
    } else {
        (if x.is_zero() { F::zero(x.sign) } else { a }, if y.is_zero() { F::zero(y.sign) } else { b })
    };
    let any_signaling = x.is_signaling() || y.is_signaling();
    match flavour {
        _ if !x.is_nan() && !y.is_nan() => {}
        MinMax::Second => {
            env.raise(Flags::INVALID);
            return b;
        }
        MinMax::Number2019 if !x.is_nan() || !y.is_nan() => {
            if any_signaling {
                env.raise(Flags::INVALID);
            }
            return if x.is_nan() { b } else { a };
        }
        MinMax::Number2008 if !any_signaling && x.is_nan() != y.is_nan() => {
            return if x.is_nan() { b } else { a };
        }
        _ => return propagate::<F>(env, &[x, y]),
    }
    note_denormal(env, x.subnormal || y.subnormal);
    let first = if x.is_zero() && y.is_zero() && flavour != MinMax::Second {
        // A negative zero is the smaller one.
        x.sign == (wanted == Ordering::Less)
    } else {
        order(&x, &y) == wanted
    };
    if first { a } else { b }
}

/// The classes of numbers, each with the number of its bit in the result of RISC-V's FCLASS.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum Class {
    /// Negative infinity.
    NegativeInfinity = 0,
    /// A negative normal number.
    NegativeNormal = 1,
    /// A negative subnormal number.
    NegativeSubnormal = 2,
    /// -0.
    NegativeZero = 3,
    /// +0.
    PositiveZero = 4,
    /// A positive subnormal number.
    PositiveSubnormal = 5,
    /// A positive normal number.
    PositiveNormal = 6,
    /// Positive infinity.
    PositiveInfinity = 7,
    /// A signaling NaN.
    SignalingNan = 8,
    /// A quiet NaN.
    QuietNan = 9,
    /// An unsupported pattern of the x87's format. FXAM.
    Unsupported = 10,
}

impl Class {
    /// The result of RISC-V's FCLASS: one bit.
    #[inline]
    pub const fn mask(self) -> u16 {
        1 << self as u8
    }
}

/// The class of a bit pattern. Raises no flag.
pub fn classify<F: Format>(a: F::Bits) -> Class {
    let x = unpack_raw::<F>(a);
    match (x.kind, x.sign) {
        (Kind::Infinite, true) => Class::NegativeInfinity,
        (Kind::Finite, true) if !x.subnormal => Class::NegativeNormal,
        (Kind::Finite, true) => Class::NegativeSubnormal,
        (Kind::Zero, true) => Class::NegativeZero,
        (Kind::Zero, false) => Class::PositiveZero,
        (Kind::Finite, false) if x.subnormal => Class::PositiveSubnormal,
        (Kind::Finite, false) => Class::PositiveNormal,
        (Kind::Infinite, false) => Class::PositiveInfinity,
        (Kind::SignalingNan, _) => Class::SignalingNan,
        (Kind::QuietNan, _) => Class::QuietNan,
        (Kind::Unsupported, _) => Class::Unsupported,
    }
}

/// Whether it is a NaN (of the x87's format: or unsupported). Raises no flag.
pub fn is_nan<F: Format>(a: F::Bits) -> bool {
    unpack_raw::<F>(a).is_nan()
}

/// Whether it is a signaling NaN (of the x87's format: or unsupported). Raises no flag.
pub fn is_signaling_nan<F: Format>(a: F::Bits) -> bool {
    unpack_raw::<F>(a).is_signaling()
}
