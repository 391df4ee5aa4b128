//! Basic arithmetic, and the instructions that round, scale and take numbers apart.

use super::status::*;
use super::{INDEFINITE, Source, X87};
use emu_core::float::{self, Class, Denormals, Env, F80, Flags, Format, Round};

/// An operation of two operands: the destination and the source.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Arith {
    /// FADD, FADDP, FIADD.
    Add,
    /// FSUB, FSUBP, FISUB: destination less source.
    Sub,
    /// FSUBR, FSUBRP, FISUBR: source less destination.
    Subr,
    /// FMUL, FMULP, FIMUL.
    Mul,
    /// FDIV, FDIVP, FIDIV: destination by source.
    Div,
    /// FDIVR, FDIVRP, FIDIVR: source by destination.
    Divr,
}

/// By what the exponent of a result is biased that does not fit, where that exception is not masked. SDM vol. 1, "Numeric
/// Overflow Exception (#O)".
const BIAS_ADJUST: i32 = 24576;

/// What a number of two is, `2^exp`, of a normal exponent.
fn power_of_two(exp: i32) -> u128 {
    F80::pack(false, exp + F80::BIAS, 1 << 126)
}

/// The exponent and the 64-bit significand of a finite number other than zero, normalised.
pub(super) fn normalised(x: u128) -> (bool, i32, u64) {
    let (exp, significand) = ((x >> 64) as i32 & F80::EXP_MAX, x as u64);
    let shift = significand.leading_zeros();
    (x >> 79 & 1 != 0, exp.max(1) - F80::BIAS - shift as i32, significand << shift)
}

/// A finite number times `2^by`. What would be too small becomes the smallest normal number: of an operand of a sum whose
/// other operand is large, no more matters.
pub(super) fn scaled(x: u128, by: i32) -> u128 {
    if x as u64 == 0 {
        return x;
    }
    let (sign, exp, significand) = normalised(x);
    F80::pack(sign, (exp + by + F80::BIAS).clamp(1, F80::EXP_MAX - 1), u128::from(significand) << 63)
}

/// Whether a result is a denormal number.
pub(super) fn is_denormal(x: u128) -> bool {
    matches!(float::classify::<F80>(x), Class::PositiveSubnormal | Class::NegativeSubnormal)
}

impl Arith {
    fn apply(self, x: u128, y: u128, env: &mut Env) -> u128 {
        match self {
            Arith::Add => float::add::<F80>(x, y, env),
            Arith::Sub => float::sub::<F80>(x, y, env),
            Arith::Subr => float::sub::<F80>(y, x, env),
            Arith::Mul => float::mul::<F80>(x, y, env),
            Arith::Div => float::div::<F80>(x, y, env),
            Arith::Divr => float::div::<F80>(y, x, env),
        }
    }

    /// The operands scaled such that the result is scaled by `2^by`.
    fn scale(self, x: u128, y: u128, by: i32) -> (u128, u128) {
        match self {
            Arith::Add | Arith::Sub | Arith::Subr => (scaled(x, by), scaled(y, by)),
            Arith::Mul => (scaled(x, by / 2), scaled(y, by / 2)),
            Arith::Div => (scaled(x, by / 2), scaled(y, -by / 2)),
            Arith::Divr => (scaled(x, -by / 2), scaled(y, by / 2)),
        }
    }
}

impl X87 {
    /// By which power of two a result is biased, as the flags of the operation say: not at all, if those exceptions are
    /// masked.
    fn bias(&self, result: u128, env: &Env) -> Option<i32> {
        if env.flags.contains(Flags::OVERFLOW) && !self.is_masked(OE) {
            return Some(-BIAS_ADJUST);
        }
        let tiny = env.flags.contains(Flags::UNDERFLOW) || is_denormal(result);
        (tiny && !self.is_masked(UE)).then_some(BIAS_ADJUST)
    }

    /// A rounded result, biased if need be: `f` computes it, scaled by a power of two.
    pub(super) fn rounded(&self, env: &mut Env, f: impl Fn(i32, &mut Env) -> u128) -> u128 {
        let result = f(0, env);
        let Some(by) = self.bias(result, env) else {
            return result;
        };
        let mut again = Env { flags: Flags::NONE, denormals: Denormals::Use, ..*env };
        let biased = f(by, &mut again);
        let range = if by < 0 { Flags::OVERFLOW } else { Flags::UNDERFLOW };
        env.flags = Flags(env.flags.0 & (Flags::DENORMAL.0 | Flags::INVALID.0)) | range | again.flags;
        biased
    }

    /// FADD, FSUB, FSUBR, FMUL, FDIV, FDIVR in all their forms, with a pop and with integers: ST(dst) = ST(dst) op source.
    pub fn arith(&mut self, op: Arith, dst: usize, source: Source, pops: bool) {
        match (self.source(Source::St(dst)), self.source(source)) {
            (Some((x, _)), Some((y, was_denormal))) => {
                let mut env = self.env();
                let result = self.rounded(&mut env, |by, env| {
                    let (x, y) = if by == 0 { (x, y) } else { op.scale(x, y, by) };
                    op.apply(x, y, env)
                });
                let earlier = env.flags.0 & (Flags::INVALID | Flags::DIVIDE_BY_ZERO).0 != 0;
                if was_denormal && !earlier && !float::is_nan::<F80>(result) {
                    env.raise(Flags::DENORMAL);
                }
                if !self.accrue(env.flags) {
                    return;
                }
                self.set(dst, result);
            }
            _ => {
                if !self.stack_underflow() {
                    return;
                }
                self.set(dst, INDEFINITE);
            }
        }
        if pops {
            self.pop();
        }
    }

    /// An operation on ST(0).
    pub(super) fn unary(&mut self, f: impl Fn(&Self, u128, &mut Env) -> u128) {
        if self.is_empty(0) {
            if self.stack_underflow() {
                self.set(0, INDEFINITE);
            }
            return;
        }
        let mut env = self.env();
        let result = f(self, self.st(0), &mut env);
        if self.accrue(env.flags) {
            self.set(0, result);
        }
    }

    /// An operation on ST(0) and ST(1) whose result is ST(0).
    fn binary(&mut self, f: impl Fn(&Self, u128, u128, &mut Env) -> u128) {
        if self.is_empty(0) || self.is_empty(1) {
            if self.stack_underflow() {
                self.set(0, INDEFINITE);
            }
            return;
        }
        let mut env = self.env();
        let result = f(self, self.st(0), self.st(1), &mut env);
        if self.accrue(env.flags) {
            self.set(0, result);
        }
    }

    /// FSQRT.
    pub fn fsqrt(&mut self) {
        self.unary(|_, x, env| float::sqrt::<F80>(x, env));
    }

    /// FRNDINT.
    pub fn frndint(&mut self) {
        self.unary(|_, x, env| float::round_to_integral::<F80>(x, env.round, true, env));
    }

    /// FABS.
    pub fn fabs(&mut self) {
        self.unary(|_, x, _| x & !(1 << 79));
    }

    /// FCHS.
    pub fn fchs(&mut self) {
        self.unary(|_, x, _| x ^ 1 << 79);
    }

    /// FSCALE: ST(0) times two to the power of ST(1), truncated.
    pub fn fscale(&mut self) {
        self.binary(|fpu, x, y, env| fpu.scale_by(x, y, env));
    }

    /// SDM vol. 2A, "FSCALE - Scale", table "FSCALE Results".
    fn scale_by(&self, x: u128, y: u128, env: &mut Env) -> u128 {
        use Class::*;
        let (x_class, y_class) = (float::classify::<F80>(x), float::classify::<F80>(y));
        if float::is_nan::<F80>(x) || float::is_nan::<F80>(y) {
            return float::add::<F80>(x, y, env); // a sum propagates NaNs by the same rules
        }
        let is_zero = matches!(x_class, PositiveZero | NegativeZero);
        let is_infinite = matches!(x_class, PositiveInfinity | NegativeInfinity);
        if (y_class == PositiveInfinity && is_zero) || (y_class == NegativeInfinity && is_infinite) {
            env.raise(Flags::INVALID);
            return INDEFINITE;
        }
        if is_denormal(x) || is_denormal(y) {
            env.raise(Flags::DENORMAL);
        }
        let sign = x >> 79 & 1 != 0;
        match y_class {
            _ if is_zero || is_infinite => x,
            PositiveInfinity => F80::infinity(sign),
            NegativeInfinity => F80::zero(sign),
            _ => {
                let quiet = &mut Env::x87(X87::INITIAL_CONTROL);
                let n = float::to_i32::<F80>(y, Round::TowardZero, quiet);
                // The indefinite is negative, whatever the operand.
                let far = quiet.flags.contains(Flags::INVALID);
                let n = if far && y >> 79 & 1 == 0 { i32::MAX } else { n }.clamp(-0x2_0000, 0x2_0000);
                self.rounded(env, |by, env| match exponent(x) + n + by {
                    exp if by > 0 && exp < 1 - F80::BIAS => massive(F80::zero(sign), Flags::INEXACT, env),
                    exp if by < 0 && exp > F80::BIAS => {
                        massive(F80::infinity(sign), Flags::INEXACT | Flags::ROUNDED_UP, env)
                    }
                    _ => times_power_of_two(x, n + by, env),
                })
            }
        }
    }

    /// FPREM.
    pub fn fprem(&mut self) {
        self.remainder(float::x87::fprem);
    }

    /// FPREM1.
    pub fn fprem1(&mut self) {
        self.remainder(float::x87::fprem1);
    }

    /// C2 says that the remainder is not complete; C0, C3 and C1 are the low bits of the quotient.
    fn remainder(&mut self, f: fn(u128, u128, &mut Env) -> float::x87::PartialRemainder) {
        self.set_if(C2, false);
        if self.is_empty(0) || self.is_empty(1) {
            if self.stack_underflow() {
                self.set(0, INDEFINITE);
            }
            return;
        }
        let mut env = self.env();
        let mut result = f(self.st(0), self.st(1), &mut env);
        if is_denormal(result.value) && !self.is_masked(UE) {
            env.raise(Flags::UNDERFLOW);
            result.value = scaled(result.value, BIAS_ADJUST);
        }
        if !self.accrue(env.flags) {
            return;
        }
        self.set(0, result.value);
        if float::is_nan::<F80>(result.value) {
            return;
        }
        let q = result.quotient;
        self.set_if(C2, !result.complete);
        self.set_if(C0, q & 4 != 0);
        self.set_if(C3, q & 2 != 0);
        self.set_if(C1, q & 1 != 0);
    }

    /// FXTRACT: ST(0) becomes the exponent; then the significand is pushed.
    pub fn fxtract(&mut self) {
        if self.is_empty(0) || !self.is_empty(7) {
            let masked = if self.is_empty(0) { self.stack_underflow() } else { self.stack_overflow() };
            if masked {
                self.set(0, INDEFINITE);
                self.push(INDEFINITE);
            }
            return;
        }
        let mut env = self.env();
        let (exponent, significand) = extract(self.st(0), &mut env);
        if self.accrue(env.flags) {
            self.set(0, exponent);
            self.push(significand);
        }
    }
}

/// A finite number times `2^n`, rounded once.
pub(super) fn times_power_of_two(x: u128, n: i32, env: &mut Env) -> u128 {
    let (sign, exp, significand) = normalised(x);
    let exp = exp + n;
    let (low, high) = (1 - F80::BIAS, F80::EXP_MAX - 1 - F80::BIAS);
    let within = exp.clamp(low, high);
    let in_range = F80::pack(sign, within + F80::BIAS, u128::from(significand) << 63);
    if exp == within {
        return in_range;
    }
    let mut own = Env { precision: float::Precision::Extended, ..*env };
    let result = float::mul::<F80>(in_range, power_of_two((exp - within).clamp(-100, 100)), &mut own);
    env.raise(own.flags);
    result
}

/// The exponent of a finite number other than zero.
fn exponent(x: u128) -> i32 {
    normalised(x).1
}

/// What FSCALE gives where the result does not fit even with its exponent biased. SDM vol. 1, "Numeric Overflow Exception
/// (#O)".
fn massive(x: u128, flags: Flags, env: &mut Env) -> u128 {
    env.raise(flags);
    x
}

/// The exponent and the significand. SDM vol. 2A, "FXTRACT - Extract Exponent and Significand".
fn extract(x: u128, env: &mut Env) -> (u128, u128) {
    let sign = x >> 79 & 1 != 0;
    match float::classify::<F80>(x) {
        Class::QuietNan | Class::SignalingNan | Class::Unsupported => {
            let nan = float::add::<F80>(x, x, env);
            (nan, nan)
        }
        Class::PositiveInfinity | Class::NegativeInfinity => (F80::infinity(false), x),
        Class::PositiveZero | Class::NegativeZero => {
            env.raise(Flags::DIVIDE_BY_ZERO);
            (F80::infinity(true), x)
        }
        class => {
            if matches!(class, Class::PositiveSubnormal | Class::NegativeSubnormal) {
                env.raise(Flags::DENORMAL);
            }
            let (_, exp, significand) = normalised(x);
            (float::from_i32::<F80>(exp, env), F80::pack(sign, F80::BIAS, u128::from(significand) << 63))
        }
    }
}
