//! Floating-point comparison.

use super::float::Result;
use super::mxcsr::{Float, Mxcsr};
use super::{Lane, Status, V, Width};
use core::cmp::Ordering;
use emu_core::float;

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

/// CMPPS, CMPSS, CMPPD, CMPSD.
pub fn cmp<F: Float>(w: Width, a: V, b: V, predicate: Predicate, mxcsr: &mut Mxcsr) -> Result {
    let (x, y) = (a.lanes::<F::Bits>(), b.lanes::<F::Bits>());
    mxcsr.elements(w, a, |i, env| {
        let (x, y) = (x.as_ref()[i], y.as_ref()[i]);
        let order = if predicate.is_signaling() {
            float::compare::<F>(x, y, env)
        } else {
            float::compare_quiet::<F>(x, y, env)
        };
        F::Bits::ones_if(predicate.holds(order))
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
    let order = float::compare::<F>(a.get(0), b.get(0), &mut env);
    mxcsr.accrue(env.flags)?;
    Ok(status(order))
}

/// UCOMISS, UCOMISD: a signaling NaN is invalid.
pub fn ucomis<F: Float>(a: V, b: V, mxcsr: &mut Mxcsr) -> Result<Status> {
    let mut env = mxcsr.env();
    let order = float::compare_quiet::<F>(a.get(0), b.get(0), &mut env);
    mxcsr.accrue(env.flags)?;
    Ok(status(order))
}
