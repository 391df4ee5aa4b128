//! Quadruple precision, in which the transcendental functions are computed: 113 significant bits, for results of 64.

use core::ops::{Add, Div, Mul, Neg, Sub};
use emu_core::float::{self, Denormals, Env, F80, F128, Format, Round};

/// A number in quadruple precision. Its operations round to nearest.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Quad(pub u128);

fn nearest() -> Env {
    Env::default()
}

/// An environment that rounds to odd: where a result is inexact, its last bit is set. The rounding to 64 bits that comes after
/// is then right in any mode, as if the result had all its digits.
fn odd() -> Env {
    Env { round: Round::Odd, ..Env::default() }
}

impl Quad {
    /// A number in extended precision: exact.
    pub fn from_f80(x: u128) -> Quad {
        Quad(float::convert::<F80, F128>(x, &mut nearest()))
    }

    /// An integer.
    pub fn from_int(x: i32) -> Quad {
        Quad(float::from_i32::<F128>(x, &mut nearest()))
    }

    /// Rounded to extended precision, as the environment says.
    pub fn to_f80(self, env: &mut Env) -> u128 {
        let mut own = Env { denormals: Denormals::Use, ..*env };
        let result = float::convert::<F128, F80>(self.0, &mut own);
        env.raise(own.flags);
        result
    }

    /// Rounded to an integer.
    pub fn nearest_int(self) -> i32 {
        float::to_i32::<F128>(self.0, Round::NearestEven, &mut nearest())
    }

    /// The absolute value.
    pub fn abs(self) -> Quad {
        Quad(self.0 & (u128::MAX >> 1))
    }

    /// A number whose magnitude is smaller by less than its last bit shows.
    pub fn just_below(self) -> Quad {
        self.add_odd(Quad(self.0 & 1 << 127 ^ (1 << 127 | 1)))
    }

    /// A number whose magnitude is larger by less than its last bit shows.
    pub fn just_above(self) -> Quad {
        self.add_odd(Quad(self.0 & 1 << 127 | 1))
    }

    /// Whether its square adds nothing to 1 that shows.
    pub fn is_small(self) -> bool {
        self.abs().0 >> 112 < 0x3fff - 64
    }

    /// Times a power of two, rounded to odd if it is too small for the format.
    pub fn times_power_of_two(self, n: i32) -> Quad {
        let step = n.clamp(-16000, 16000);
        let result = self.mul_odd(Quad(F128::pack(false, step + F128::BIAS, 1 << 126)));
        if step == n { result } else { result.times_power_of_two(n - step) }
    }

    /// The sum, rounded to odd.
    pub fn add_odd(self, other: Quad) -> Quad {
        Quad(float::add::<F128>(self.0, other.0, &mut odd()))
    }

    /// The product, rounded to odd.
    pub fn mul_odd(self, other: Quad) -> Quad {
        Quad(float::mul::<F128>(self.0, other.0, &mut odd()))
    }

    /// The quotient, rounded to odd.
    pub fn div_odd(self, other: Quad) -> Quad {
        Quad(float::div::<F128>(self.0, other.0, &mut odd()))
    }

    /// `c[0] * x + c[1] * x^2 + ...`.
    pub fn series(self, c: &[Quad]) -> Quad {
        c.iter().rev().fold(Quad(0), |sum, c| (sum + *c) * self)
    }
}

impl Add for Quad {
    type Output = Quad;
    fn add(self, other: Quad) -> Quad {
        Quad(float::add::<F128>(self.0, other.0, &mut nearest()))
    }
}

impl Sub for Quad {
    type Output = Quad;
    fn sub(self, other: Quad) -> Quad {
        Quad(float::sub::<F128>(self.0, other.0, &mut nearest()))
    }
}

impl Mul for Quad {
    type Output = Quad;
    fn mul(self, other: Quad) -> Quad {
        Quad(float::mul::<F128>(self.0, other.0, &mut nearest()))
    }
}

impl Div for Quad {
    type Output = Quad;
    fn div(self, other: Quad) -> Quad {
        Quad(float::div::<F128>(self.0, other.0, &mut nearest()))
    }
}

impl Neg for Quad {
    type Output = Quad;
    fn neg(self) -> Quad {
        Quad(self.0 ^ 1 << 127)
    }
}
