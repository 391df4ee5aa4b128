//! The way in and the way out: operands are unpacked, NaNs propagated, results rounded and packed.

use super::{Denormals, Env, Flags, Format, NanRule, Precision, Round, Significand, Tininess, Tiny};

/// What kind of number an operand is. The NaNs come last.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) enum Kind {
    Zero,
    Finite,
    Infinite,
    QuietNan,
    SignalingNan,
    /// F80 only: a pattern whose integer bit should be set and is not. Always an invalid operand.
    Unsupported,
}

/// An operand taken apart.
#[derive(Clone, Copy, Debug)]
pub(super) struct Unpacked<S> {
    pub sign: bool,
    pub kind: Kind,
    /// Whether it was subnormal, or an F80 pseudo-denormal.
    pub subnormal: bool,
    /// Exponent of the leading one, unbiased. Only where finite.
    pub exp: i32,
    /// Normalised. Of a NaN: the payload with the integer bit set, so that bit `BITS - 3` is the quiet bit.
    pub sig: S,
}

impl<S: Significand> Unpacked<S> {
    #[inline]
    pub fn is_nan(&self) -> bool {
        self.kind >= Kind::QuietNan
    }
    #[inline]
    pub fn is_signaling(&self) -> bool {
        self.kind >= Kind::SignalingNan
    }
    #[inline]
    pub fn is_infinite(&self) -> bool {
        self.kind == Kind::Infinite
    }
    #[inline]
    pub fn is_zero(&self) -> bool {
        self.kind == Kind::Zero
    }
}

/// Takes apart a bit pattern; subnormals are taken as they are.
#[inline]
pub(super) fn unpack_raw<F: Format>(bits: F::Bits) -> Unpacked<F::Sig> {
    let raw = F::widen(bits);
    let one = F::Sig::ONE;
    let top = F::Sig::BITS - 2;
    let sign = raw >> (F::FRAC_BITS + F::EXP_BITS) != F::Sig::ZERO;
    let biased = (raw >> F::FRAC_BITS).low_u32() as i32 & F::EXP_MAX;
    let stored = (raw & ((one << F::FRAC_BITS) - one)) << F::GUARD_BITS;
    let integer = one << top;
    let (has_integer, frac) =
        if F::EXPLICIT_INTEGER { (stored & integer != F::Sig::ZERO, stored & !integer) } else { (biased != 0, stored) };

    let mut u = Unpacked { sign, kind: Kind::Finite, subnormal: false, exp: biased - F::BIAS, sig: frac | integer };
    if biased == 0 {
        if stored == F::Sig::ZERO {
            u.kind = Kind::Zero;
        } else {
            u.subnormal = true;
            let shift = stored.leading_zeros() - 1;
            u.sig = stored << shift;
            u.exp = 1 - F::BIAS - shift as i32;
        }
    } else if F::EXPLICIT_INTEGER && !has_integer {
        u.kind = Kind::Unsupported;
    } else if biased == F::EXP_MAX {
        u.kind = if frac == F::Sig::ZERO {
            Kind::Infinite
        } else if frac & (one << (top - 1)) != F::Sig::ZERO {
            Kind::QuietNan
        } else {
            Kind::SignalingNan
        };
    }
    u
}

/// Takes apart an operand; subnormals are treated as the environment says, except that DENORMAL for a subnormal that is
/// used is left to [`note_denormal`].
#[inline]
pub(super) fn unpack<F: Format>(env: &mut Env, bits: F::Bits) -> Unpacked<F::Sig> {
    let mut u = unpack_raw::<F>(bits);
    if u.subnormal && matches!(env.denormals, Denormals::Flush | Denormals::FlushAndFlag) {
        if env.denormals == Denormals::FlushAndFlag {
            env.raise(Flags::DENORMAL);
        }
        u.kind = Kind::Zero;
        u.subnormal = false;
    }
    u
}

/// Raises DENORMAL where the environment asks for it. Called once it is known that no operand is a NaN, and that the
/// operation is not invalid: those come first.
#[inline]
pub(super) fn note_denormal(env: &mut Env, subnormal: bool) {
    if subnormal && env.denormals == Denormals::UseAndFlag {
        env.raise(Flags::DENORMAL);
    }
}

/// The NaN that an invalid operation gives.
#[inline]
pub(super) fn default_nan<F: Format>(env: &Env) -> F::Bits {
    let sign = matches!(env.nan, NanRule::X86Sse | NanRule::X87);
    F::pack(sign, F::EXP_MAX, F::Sig::from_int(3) << (F::Sig::BITS - 3))
}

/// The default NaN, and INVALID.
#[inline]
pub(super) fn invalid<F: Format>(env: &mut Env) -> F::Bits {
    env.raise(Flags::INVALID);
    default_nan::<F>(env)
}

/// A NaN operand as a result: made quiet.
#[inline]
pub(super) fn quieted<F: Format>(nan: &Unpacked<F::Sig>) -> F::Bits {
    F::pack(nan.sign, F::EXP_MAX, nan.sig | F::Sig::ONE << (F::Sig::BITS - 3))
}

/// The result of an operation of which some operand is a NaN, by the environment's [`NanRule`].
///
/// Operands are in the order in which the rule prefers them.
#[cold]
pub(super) fn propagate<F: Format>(env: &mut Env, operands: &[Unpacked<F::Sig>]) -> F::Bits {
    if operands.iter().any(Unpacked::is_signaling) {
        env.raise(Flags::INVALID);
    }
    if operands.iter().any(|u| u.kind == Kind::Unsupported) {
        return default_nan::<F>(env);
    }
    let mut nans = operands.iter().filter(|u| u.is_nan());
    let chosen = match env.nan {
        NanRule::Canonical | NanRule::Arm { default_nan: true } => None,
        NanRule::X86Sse => nans.next(),
        NanRule::Arm { default_nan: false } => operands.iter().find(|u| u.is_signaling()).or_else(|| nans.next()),
        // SDM vol. 1, "Operating on SNaNs and QNaNs", table "Rules for Handling NaNs". Of two of a kind the larger
        // significand; where those are equal too, the positive one.
        NanRule::X87 => nans.max_by_key(|u| (!u.is_signaling(), u.sig, !u.sign)),
    };
    match chosen {
        Some(nan) => quieted::<F>(nan),
        None => default_nan::<F>(env),
    }
}

/// Whether a magnitude is rounded away from zero. `odd`: the last bit kept. `half`: the first bit lost. `rest`: whether any
/// other bit that is lost is set.
#[inline]
pub(super) fn rounds_up(round: Round, sign: bool, odd: bool, half: bool, rest: bool) -> bool {
    match round {
        Round::NearestEven => half && (rest || odd),
        Round::NearestMaxMagnitude => half,
        Round::TowardZero => false,
        Round::Down => sign && (half || rest),
        Round::Up => !sign && (half || rest),
        Round::Odd => !odd && (half || rest),
    }
}

/// Rounds off the low `drop` bits (at least one). Returns the rounded significand, whether it is inexact, and whether it was
/// rounded up.
#[inline]
pub(super) fn round_off<S: Significand>(round: Round, sign: bool, sig: S, drop: u32) -> (S, bool, bool) {
    let ulp = S::ONE << drop;
    let half = S::ONE << (drop - 1);
    let lost = sig & (ulp - S::ONE);
    let kept = sig & !(ulp - S::ONE);
    if lost == S::ZERO {
        return (kept, false, false);
    }
    let rest = lost & (half - S::ONE) != S::ZERO;
    let up = rounds_up(round, sign, sig & ulp != S::ZERO, sig & half != S::ZERO, rest);
    (if up { kept + ulp } else { kept }, true, up)
}

/// Rounds a normalised, sticky significand to the format and packs it.
#[inline]
pub(super) fn round_pack<F: Format>(env: &mut Env, sign: bool, exp: i32, sig: F::Sig) -> F::Bits {
    round_pack_to::<F>(env, sign, exp, sig, F::PRECISION)
}

/// Like [`round_pack`], but obeys the x87's precision control where the format is F80.
#[inline]
pub(super) fn round_pack_controlled<F: Format>(env: &mut Env, sign: bool, exp: i32, sig: F::Sig) -> F::Bits {
    let precision = match env.precision {
        _ if !F::EXPLICIT_INTEGER => F::PRECISION,
        Precision::Single => 24,
        Precision::Double => 53,
        Precision::Extended => 64,
    };
    round_pack_to::<F>(env, sign, exp, sig, precision)
}

/// Rounds a normalised, sticky significand to a precision no larger than that of the format, and packs it.
#[inline]
fn round_pack_to<F: Format>(env: &mut Env, sign: bool, exp: i32, sig: F::Sig, precision: u32) -> F::Bits {
    debug_assert_eq!(sig.leading_zeros(), 1);
    let drop = F::Sig::BITS - 1 - precision;
    let integer = F::Sig::ONE << (F::Sig::BITS - 2);
    let carry = integer << 1;

    let mut biased = exp + F::BIAS;
    let mut sig = sig;
    let mut tiny = false;
    if biased < 1 {
        // After rounding, a value in the binade just below the smallest normal number is not tiny if it rounds up to that
        // number even with the precision of a normal number.
        tiny =
            env.tininess == Tininess::BeforeRounding || biased < 0 || round_off(env.round, sign, sig, drop).0 < carry;
        if tiny && env.tiny != Tiny::Subnormal {
            env.raise(Flags::UNDERFLOW);
            if env.tiny == Tiny::FlushInexact {
                env.raise(Flags::INEXACT);
            }
            return F::zero(sign);
        }
        sig = sig.shift_right_sticky((1 - biased) as u32);
        biased = 0;
    }

    let (mut rounded, inexact, up) = round_off(env.round, sign, sig, drop);
    if rounded >= carry {
        rounded = rounded >> 1;
        biased += 1;
    }
    if biased == 0 && rounded >= integer {
        biased = 1;
    }
    if F::EXPLICIT_INTEGER && up {
        env.raise(Flags::ROUNDED_UP);
    }
    if biased >= F::EXP_MAX {
        env.raise(Flags::OVERFLOW | Flags::INEXACT);
        let to_infinity = match env.round {
            Round::NearestEven | Round::NearestMaxMagnitude => true,
            Round::TowardZero | Round::Odd => false,
            Round::Down => sign,
            Round::Up => !sign,
        };
        if F::EXPLICIT_INTEGER && to_infinity {
            env.raise(Flags::ROUNDED_UP);
        }
        return if to_infinity {
            F::infinity(sign)
        } else {
            F::pack(sign, F::EXP_MAX - 1, carry - (F::Sig::ONE << drop))
        };
    }
    if inexact {
        env.raise(if tiny { Flags::UNDERFLOW | Flags::INEXACT } else { Flags::INEXACT });
    }
    F::pack(sign, biased, rounded)
}
