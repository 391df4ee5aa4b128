//! The transcendental functions: FSIN, FCOS, FSINCOS, FPTAN, FPATAN, F2XM1, FYL2X, FYL2XP1.
//!
//! The manual asks for an error below 1 ulp and leaves the rest to the processor. Here a result is computed in quadruple
//! precision, with an error of some 2^-110, and rounded once, as RC says: so it is the exact one, rounded, but for rare halfway
//! cases; and the same on every host. It always counts as inexact, where it is not one of the special cases.
//!
//! The argument of FSIN, FCOS, FSINCOS and FPTAN is reduced with the π of the x87, which has 66 bits: SDM vol. 1, "Approximation
//! of Pi". So for large arguments the result is not the sine, but that of a wave whose period is twice this π. The reduction
//! itself is exact.

use super::arithmetic::{is_denormal, normalised, scaled, times_power_of_two};
use super::elementary::*;
use super::quad::Quad;
use super::status::*;
use super::{INDEFINITE, Source, X87};
use emu_core::float::{self, Class, Env, F80, Flags, Format};

fn sign(x: u128) -> bool {
    x >> 79 & 1 != 0
}

fn is_zero(x: u128) -> bool {
    matches!(float::classify::<F80>(x), Class::PositiveZero | Class::NegativeZero)
}

fn is_infinite(x: u128) -> bool {
    matches!(float::classify::<F80>(x), Class::PositiveInfinity | Class::NegativeInfinity)
}

fn invalid(env: &mut Env) -> u128 {
    env.raise(Flags::INVALID);
    INDEFINITE
}

/// Every result counts as inexact, so a tiny one is an underflow.
fn note_inexact(result: u128, env: &mut Env) {
    env.raise(Flags::INEXACT);
    if is_denormal(result) || is_zero(result) {
        env.raise(Flags::UNDERFLOW);
    }
}

impl X87 {
    /// A result, which is never exact. `f` computes it, scaled by a power of two where it can.
    fn inexact(&self, env: &mut Env, f: impl Fn(i32) -> Quad) -> u128 {
        self.rounded(env, |by, env| {
            let result = f(by).to_f80(env);
            note_inexact(result, env);
            result
        })
    }

    /// F2XM1: `2^ST(0) - 1`, for ST(0) between -1 and 1. Elsewhere the manual defines no result; here ST(0) does not change.
    pub fn f2xm1(&mut self) {
        self.unary(|fpu, x, env| {
            if float::is_nan::<F80>(x) {
                return float::add::<F80>(x, x, env);
            }
            if is_denormal(x) {
                env.raise(Flags::DENORMAL);
            }
            let magnitude = x & !(1 << 79);
            match magnitude.cmp(&ONE_F80) {
                _ if is_zero(x) => x,
                core::cmp::Ordering::Less => fpu.inexact(env, |by| {
                    // Only the smallest operands have a result that is tiny.
                    let z = Quad::from_f80(if by == 0 { x } else { scaled(x, by) }) * LN_2;
                    if by == 0 { exp_minus_1(z) } else { z }
                }),
                core::cmp::Ordering::Equal if sign(x) => 0xbffe_8000_0000_0000_0000,
                _ if x == F80::infinity(true) => ONE_F80 | 1 << 79,
                _ => x,
            }
        });
    }

    /// The angle of a trigonometric function: `None` where the instruction is complete, with C2 set where ST(0) is out of range.
    fn angle(&mut self, pushes: bool) -> Option<u128> {
        self.set_if(C2, false);
        let (empty, full) = (self.is_empty(0), pushes && !self.is_empty(7));
        if empty || full {
            let masked = if empty { self.stack_underflow() } else { self.stack_overflow() };
            if masked {
                self.set(0, INDEFINITE);
                if pushes {
                    self.push(INDEFINITE);
                }
            }
            return None;
        }
        let x = self.st(0);
        if (x >> 64) as i32 & F80::EXP_MAX >= F80::BIAS + 63 && !is_infinite(x) && !float::is_nan::<F80>(x) {
            self.set_if(C1, false);
            self.set_if(C2, true);
            return None;
        }
        Some(x)
    }

    /// A function of an angle: `f`, or where that is zero `at_zero`.
    fn of_angle(&self, x: u128, at_zero: u128, env: &mut Env, f: impl Fn(&Reduced) -> Quad) -> u128 {
        if float::is_nan::<F80>(x) {
            return float::add::<F80>(x, x, env);
        }
        if is_infinite(x) {
            return invalid(env);
        }
        if is_zero(x) {
            return at_zero;
        }
        if is_denormal(x) {
            env.raise(Flags::DENORMAL);
        }
        self.inexact(env, |by| {
            // Only where the angle is tiny, and is itself the result, is that tiny.
            if by == 0 { f(&reduce(x)) } else { Quad::from_f80(scaled(x, by)) }
        })
    }

    /// FSIN.
    pub fn fsin(&mut self) {
        if let Some(x) = self.angle(false) {
            self.unary(|fpu, _, env| fpu.of_angle(x, x, env, |angle| angle.sine(0)));
        }
    }

    /// FCOS.
    pub fn fcos(&mut self) {
        if let Some(x) = self.angle(false) {
            self.unary(|fpu, _, env| fpu.of_angle(x, ONE_F80, env, |angle| angle.sine(1)));
        }
    }

    /// FSINCOS: the sine replaces ST(0), and the cosine is pushed.
    pub fn fsincos(&mut self) {
        let Some(x) = self.angle(true) else {
            return;
        };
        // C1 is that of the cosine, the last to be rounded.
        let mut env = self.env();
        let sine = self.of_angle(x, x, &mut env, |angle| angle.sine(0));
        let mut env_of_cosine = self.env();
        let cosine = self.of_angle(x, ONE_F80, &mut env_of_cosine, |angle| angle.sine(1));
        let flags = Flags(env.flags.0 & !Flags::ROUNDED_UP.0) | env_of_cosine.flags;
        if self.accrue(flags) {
            self.set(0, sine);
            self.push(cosine);
        }
    }

    /// FPTAN: the tangent replaces ST(0), and 1.0 is pushed; or the same NaN.
    pub fn fptan(&mut self) {
        let Some(x) = self.angle(true) else {
            return;
        };
        let mut env = self.env();
        let tangent = self.of_angle(x, x, &mut env, Reduced::tangent);
        if self.accrue(env.flags) {
            self.set(0, tangent);
            self.push(if float::is_nan::<F80>(tangent) { tangent } else { ONE_F80 });
        }
    }

    /// An operation on ST(1) and ST(0), whose result replaces ST(1); then ST(0) is popped.
    fn binary_pop(&mut self, f: impl Fn(&Self, u128, u128, &mut Env) -> u128) {
        let result = match (self.source(Source::St(1)), self.source(Source::St(0))) {
            (Some((y, _)), Some((x, _))) => {
                let mut env = self.env();
                let result = if float::is_nan::<F80>(x) || float::is_nan::<F80>(y) {
                    float::add::<F80>(y, x, &mut env)
                } else {
                    f(self, y, x, &mut env)
                };
                let earlier = env.flags.0 & (Flags::INVALID | Flags::DIVIDE_BY_ZERO).0 != 0;
                if (is_denormal(x) || is_denormal(y)) && !earlier && !float::is_nan::<F80>(result) {
                    env.raise(Flags::DENORMAL);
                }
                if !self.accrue(env.flags) {
                    return;
                }
                result
            }
            _ if self.stack_underflow() => INDEFINITE,
            _ => return,
        };
        self.set(1, result);
        self.pop();
    }

    /// FPATAN: the angle of the point whose abscissa is ST(0) and whose ordinate is ST(1).
    pub fn fpatan(&mut self) {
        self.binary_pop(Self::arc_tangent_of);
    }

    /// SDM vol. 2A, "FPATAN - Partial Arctangent", table "FPATAN Results".
    fn arc_tangent_of(&self, y: u128, x: u128, env: &mut Env) -> u128 {
        let with_sign = |angle: Quad| if sign(y) { -angle } else { angle };
        let eighths =
            |n: i32, env: &mut Env| self.inexact(env, |_| with_sign(PI * Quad::from_int(n) / Quad::from_int(8)));
        match (is_zero(y), is_infinite(y), is_zero(x), is_infinite(x)) {
            (_, true, _, true) => return eighths(if sign(x) { 6 } else { 2 }, env),
            (_, true, _, _) | (false, _, true, _) => return eighths(4, env),
            (true, ..) | (.., true) if sign(x) => return eighths(8, env),
            (true, ..) | (.., true) => return F80::zero(sign(y)),
            _ => {}
        }
        let (ordinate, abscissa) = (Quad::from_f80(y).abs(), Quad::from_f80(x).abs());
        let distance = normalised(y).1 - normalised(x).1;
        if distance < -100 && !sign(x) {
            // Little less than the quotient, which may be tiny.
            let quotient = significand(y).div_odd(significand(x)).just_below();
            return self.inexact(env, |by| with_sign(quotient.times_power_of_two(distance + by)));
        }
        self.inexact(env, |_| {
            let steep = ordinate.0 > abscissa.0;
            // The angle with the nearer axis; then from that axis on.
            let angle = if steep { arc_tangent(abscissa / ordinate) } else { arc_tangent(ordinate / abscissa) };
            with_sign(match (steep, sign(x)) {
                (false, false) => angle,
                (true, false) => HALF_PI.add_odd(-angle),
                (true, true) => HALF_PI.add_odd(angle),
                (false, true) => PI.add_odd(-angle),
            })
        })
    }

    /// FYL2X: `ST(1) * log2(ST(0))`.
    pub fn fyl2x(&mut self) {
        self.binary_pop(Self::y_log2_x);
    }

    /// SDM vol. 2A, "FYL2X - Compute y * log2x", table "FYL2X Results".
    fn y_log2_x(&self, y: u128, x: u128, env: &mut Env) -> u128 {
        if is_zero(x) {
            return match () {
                () if is_zero(y) => invalid(env),
                () => {
                    if !is_infinite(y) {
                        env.raise(Flags::DIVIDE_BY_ZERO);
                    }
                    F80::infinity(!sign(y))
                }
            };
        }
        if sign(x) {
            return invalid(env);
        }
        let below_one = x < ONE_F80;
        if is_infinite(x) || is_infinite(y) {
            let undefined = is_zero(y) || x == ONE_F80;
            return if undefined { invalid(env) } else { F80::infinity(sign(y) ^ below_one) };
        }
        let (_, exp, significand) = normalised(x);
        if is_zero(y) || significand == 1 << 63 {
            // The logarithm is an integer, or does not matter. The result counts as inexact all the same, unless it is zero.
            let exp = if is_zero(y) && below_one {
                -1
            } else if is_zero(y) {
                1
            } else {
                exp
            };
            return self.times(y, exp, env);
        }
        self.times_log(y, log2_of_f80(x), env)
    }

    /// A number times a logarithm.
    fn times_log(&self, y: u128, log: Quad, env: &mut Env) -> u128 {
        if normalised(y).1 < 100 {
            return self.inexact(env, |by| Quad::from_f80(if by == 0 { y } else { scaled(y, by) }).mul_odd(log));
        }
        // It may overflow, in quadruple precision too. A part of that is no tiny number, so it may be rounded first.
        let part = Quad::from_f80(scaled(y, -64)).mul_odd(log).to_f80(env);
        self.rounded(env, |by, env| {
            env.raise(Flags::INEXACT);
            times_power_of_two(part, 64 + by, env)
        })
    }

    /// A number times an integer.
    fn times(&self, y: u128, n: i32, env: &mut Env) -> u128 {
        let factor = float::from_i32::<F80>(n, env);
        self.rounded(env, |by, env| {
            let mut own = Env { precision: float::Precision::Extended, ..*env };
            let product = float::mul::<F80>(if by == 0 { y } else { scaled(y, by) }, factor, &mut own);
            env.raise(own.flags);
            if !is_zero(product) {
                note_inexact(product, env);
            }
            product
        })
    }

    /// FYL2XP1: `ST(1) * log2(ST(0) + 1)`. The manual defines it for `|ST(0)| < 1 - sqrt(1/2)`; here it is right for any number
    /// above -1, and invalid below.
    pub fn fyl2xp1(&mut self) {
        self.binary_pop(Self::y_log2_x_plus_1);
    }

    /// SDM vol. 2A, "FYL2XP1 - Compute y * log2(x + 1)", table "FYL2XP1 Results".
    fn y_log2_x_plus_1(&self, y: u128, x: u128, env: &mut Env) -> u128 {
        let result_sign = sign(y) ^ sign(x);
        if sign(x) && x & !(1 << 79) >= ONE_F80 {
            return invalid(env);
        }
        if is_infinite(x) || is_infinite(y) {
            let undefined = is_zero(y) || is_zero(x);
            return if undefined { invalid(env) } else { F80::infinity(result_sign) };
        }
        if is_zero(x) || is_zero(y) {
            return F80::zero(result_sign);
        }
        if normalised(x).1 < -115 {
            // The logarithm is `x / ln(2)`, but may be too small for the format.
            let product = significand(y) * significand(x) * TWO_OVER_LN_2;
            let exp = normalised(y).1 + normalised(x).1 - 1;
            let product = if result_sign { -product } else { product };
            return self.inexact(env, |by| product.times_power_of_two(exp + by));
        }
        let log = log2_of_1_plus(Quad::from_f80(x));
        self.times_log(y, log, env)
    }
}
