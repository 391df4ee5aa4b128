//! Comparison and classification.

use super::status::*;
use super::{Source, X87};
use crate::vector::Status;
use core::cmp::Ordering;
use emu_core::float::{self, Class, Env, F80, Flags};

/// Whether a quiet NaN is an invalid operand of a comparison.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Nans {
    /// FCOM, FCOMI, FICOM, FTST: it is.
    Invalid,
    /// FUCOM, FUCOMI: only a signaling one is.
    Quiet,
}

impl X87 {
    /// How ST(0) compares with an operand, `None` if they are unordered. `Err` where an exception is not masked.
    fn order(&mut self, source: Source, nans: Nans) -> Result<Option<Ordering>, ()> {
        self.set_if(C1, false);
        let (false, Some((y, was_denormal))) = (self.is_empty(0), self.source(source)) else {
            return if self.stack_underflow() { Ok(None) } else { Err(()) };
        };
        let mut env = self.env();
        let x = self.st(0);
        let order = ordered(x, y, nans, &mut env);
        if was_denormal && order.is_some() {
            env.raise(Flags::DENORMAL);
        }
        if self.accrue(env.flags) { Ok(order) } else { Err(()) }
    }

    /// FCOM, FCOMP, FCOMPP, FUCOM, FUCOMP, FUCOMPP, FICOM, FICOMP: sets C3, C2 and C0, then pops so many times. Neither
    /// happens where an exception is not masked. (By the SDM; AMD's processors set the condition codes even then.)
    pub fn fcom(&mut self, source: Source, nans: Nans, pops: usize) {
        let Ok(order) = self.order(source, nans) else {
            return;
        };
        self.set_condition_codes(C3 | C2 | C0, condition_codes(order));
        for _ in 0..pops {
            self.pop();
        }
    }

    /// FTST: compares with zero.
    pub fn ftst(&mut self) {
        self.fcom(Source::F64(0), Nans::Invalid, 0);
    }

    /// FCOMI, FCOMIP, FUCOMI, FUCOMIP: ZF, PF and CF; the others are cleared. `None`: an exception is not masked, and they do
    /// not change.
    pub fn fcomi(&mut self, i: usize, nans: Nans, pops: bool) -> Option<Status> {
        let order = self.order(Source::St(i), nans).ok()?;
        if pops {
            self.pop();
        }
        Some(Status::of(&[
            (Status::ZF, order.is_none_or(Ordering::is_eq)),
            (Status::PF, order.is_none()),
            (Status::CF, order.is_none_or(Ordering::is_lt)),
        ]))
    }

    /// FXAM: C3, C2 and C0 are the class of ST(0), C1 its sign. SDM vol. 2A, "FXAM - Examine Floating-Point".
    pub fn fxam(&mut self) {
        let x = self.st(0);
        let class = match float::classify::<F80>(x) {
            _ if self.is_empty(0) => C3 | C0,
            Class::Unsupported => 0,
            Class::QuietNan | Class::SignalingNan => C0,
            Class::PositiveNormal | Class::NegativeNormal => C2,
            Class::PositiveInfinity | Class::NegativeInfinity => C2 | C0,
            Class::PositiveZero | Class::NegativeZero => C3,
            Class::PositiveSubnormal | Class::NegativeSubnormal => C3 | C2,
        };
        self.set_condition_codes(CC, class | if x >> 79 & 1 != 0 { C1 } else { 0 });
    }
}

fn ordered(x: u128, y: u128, nans: Nans, env: &mut Env) -> Option<Ordering> {
    match nans {
        Nans::Invalid => float::compare::<F80>(x, y, env),
        Nans::Quiet => float::compare_quiet::<F80>(x, y, env),
    }
}

fn condition_codes(order: Option<Ordering>) -> u16 {
    match order {
        Some(Ordering::Greater) => 0,
        Some(Ordering::Less) => C0,
        Some(Ordering::Equal) => C3,
        None => C3 | C2 | C0,
    }
}
