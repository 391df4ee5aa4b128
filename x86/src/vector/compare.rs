//! Floating-point comparison, minimum and maximum.

use super::float::Result;
use super::mxcsr::{Float, Mxcsr};
use super::{Lane, Status, V, Width};
use core::cmp::Ordering;
use emu_core::float::{self, Env, MinMax};

/// The predicate of CMPPS and VCMPPS: an immediate's low three or five bits. SDM vol. 2, "CMPPD - Compare Packed
/// Double Precision Floating-Point Values", table "Comparison Predicate for CMPPD and VCMPPD Instructions".
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Predicate(u8);

impl Predicate {
    /// The predicate of a legacy instruction.
    pub const fn legacy(imm: u8) -> Predicate {
        Predicate(imm & 7)
    }

    /// The predicate of a VEX-encoded instruction.
    pub const fn vex(imm: u8) -> Predicate {
        Predicate(imm & 31)
    }

    /// Whether a quiet NaN is invalid. Predicates 16 to 31 are 0 to 15 with this inverted.
    const fn is_signaling(self) -> bool {
        matches!(self.0 & 7, 1 | 2 | 5 | 6) ^ (self.0 & 0x10 != 0)
    }

    /// Whether it is true of how two operands compare, `None` if they are unordered.
    fn holds(self, order: Option<Ordering>) -> bool {
        let ordered = |f: fn(Ordering) -> bool| order.is_some_and(f);
        match self.0 & 15 {
            0x0 => ordered(Ordering::is_eq),  // EQ_OQ
            0x1 => ordered(Ordering::is_lt),  // LT_OS
            0x2 => ordered(Ordering::is_le),  // LE_OS
            0x3 => order.is_none(),           // UNORD_Q
            0x4 => !ordered(Ordering::is_eq), // NEQ_UQ
            0x5 => !ordered(Ordering::is_lt), // NLT_US
            0x6 => !ordered(Ordering::is_le), // NLE_US
            0x7 => order.is_some(),           // ORD_Q
            0x8 => !ordered(Ordering::is_ne), // EQ_UQ
            0x9 => !ordered(Ordering::is_ge), // NGE_US
            0xa => !ordered(Ordering::is_gt), // NGT_US
            0xb => false,                     // FALSE_OQ
            0xc => ordered(Ordering::is_ne),  // NEQ_OQ
            0xd => ordered(Ordering::is_ge),  // GE_OS
            0xe => ordered(Ordering::is_gt),  // GT_OS
            _ => true,                        // TRUE_UQ
        }
    }
}

/// Whether a number is denormal.
#[inline]
fn is_denormal<F: Float>(x: F::Bits) -> bool {
    F::exponent(x) == 0 && !F::is_zero(x)
}

/// How two operands compare, through the host where neither is a NaN or denormal: then the comparison raises no flag.
#[inline]
fn order<F: Float>(a: F::Bits, b: F::Bits, signaling: bool, env: &mut Env) -> Option<Ordering> {
    match F::partial_cmp(a, b) {
        Some(order) if !is_denormal::<F>(a) && !is_denormal::<F>(b) => Some(order),
        _ if signaling => float::compare::<F>(a, b, env),
        _ => float::compare_quiet::<F>(a, b, env),
    }
}

/// CMPPS, CMPSS, CMPPD, CMPSD.
pub fn cmp<F: Float>(w: Width, a: V, b: V, predicate: Predicate, mxcsr: &mut Mxcsr) -> Result {
    mxcsr.elements(w, a, |i, env| {
        let (x, y) = (a.get(i), b.get(i));
        let order = if predicate.is_signaling() {
            float::compare::<F>(x, y, env)
        } else {
            float::compare_quiet::<F>(x, y, env)
        };
        F::Bits::ones_if(predicate.holds(order))
    })
}

/// MINPS, MINSS, MINPD, MINSD: the second operand where either is a NaN or both are zeros.
pub fn min<F: Float>(w: Width, a: V, b: V, mxcsr: &mut Mxcsr) -> Result {
    choose::<F>(w, a, b, Ordering::Less, float::min::<F>, mxcsr)
}

/// MAXPS, MAXSS, MAXPD, MAXSD: the second operand where either is a NaN or both are zeros.
pub fn max<F: Float>(w: Width, a: V, b: V, mxcsr: &mut Mxcsr) -> Result {
    choose::<F>(w, a, b, Ordering::Greater, float::max::<F>, mxcsr)
}

/// The first operand where it compares as `wanted` with the second; through the host as in [`order`].
#[inline]
fn choose<F: Float>(
    w: Width,
    a: V,
    b: V,
    wanted: Ordering,
    soft: fn(F::Bits, F::Bits, MinMax, &mut Env) -> F::Bits,
    mxcsr: &mut Mxcsr,
) -> Result {
    mxcsr.elements(w, a, |i, env| {
        let (x, y) = (a.get(i), b.get(i));
        match F::partial_cmp(x, y) {
            Some(order) if !is_denormal::<F>(x) && !is_denormal::<F>(y) => {
                if order == wanted {
                    x
                } else {
                    y
                }
            }
            _ => soft(x, y, MinMax::Second, env),
        }
    })
}

/// "Unordered" is ZF, PF and CF.
fn status(order: Option<Ordering>) -> Status {
    Status::of(&[
        (Status::ZF, order.is_none_or(Ordering::is_eq)),
        (Status::PF, order.is_none()),
        (Status::CF, order.is_none_or(Ordering::is_lt)),
    ])
}

/// COMISS, COMISD: any NaN is invalid.
pub fn comis<F: Float>(a: V, b: V, mxcsr: &mut Mxcsr) -> Result<Status> {
    let mut env = mxcsr.env();
    let order = order::<F>(a.get(0), b.get(0), true, &mut env);
    mxcsr.accrue(env.flags)?;
    Ok(status(order))
}

/// UCOMISS, UCOMISD: a signaling NaN is invalid.
pub fn ucomis<F: Float>(a: V, b: V, mxcsr: &mut Mxcsr) -> Result<Status> {
    let mut env = mxcsr.env();
    let order = order::<F>(a.get(0), b.get(0), false, &mut env);
    mxcsr.accrue(env.flags)?;
    Ok(status(order))
}
