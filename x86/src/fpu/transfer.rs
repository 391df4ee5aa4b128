//! Loads, stores, constants and moves within the stack.

use super::status::*;
use super::{INDEFINITE, X87};
use emu_core::float::{self, Class, Denormals, Env, F32, F64, F80, F128, Flags, Format, IntRule, Round};

const L2T_F128: u128 = 0x4000_a934_f097_9a37_15fc_9257_edfe_9b5f;
const L2E_F128: u128 = 0x3fff_7154_7652_b82f_e177_7d0f_fda0_d23a;
const PI_F128: u128 = 0x4000_921f_b544_42d1_8469_898c_c517_01b8;
const LG2_F128: u128 = 0x3ffd_3441_3509_f79f_ef31_1f12_b358_16f9;
const LN2_F128: u128 = 0x3ffe_62e4_2fef_a39e_f357_93c7_6730_07e5;

/// The packed BCD indefinite.
const BCD_INDEFINITE: u128 = INDEFINITE;

/// A constant that is loaded: rounded as RC says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Constant {
    /// FLD1.
    One,
    /// FLDL2T: log2(10).
    L2t,
    /// FLDL2E: log2(e).
    L2e,
    /// FLDPI.
    Pi,
    /// FLDLG2: log10(2).
    Lg2,
    /// FLDLN2: ln(2).
    Ln2,
    /// FLDZ.
    Zero,
}

impl Constant {
    /// The value, truncated to quadruple precision.
    const fn value(self) -> u128 {
        match self {
            Constant::One => 0x3fff_0000_0000_0000_0000_0000_0000_0000,
            Constant::L2t => L2T_F128,
            Constant::L2e => L2E_F128,
            Constant::Pi => PI_F128,
            Constant::Lg2 => LG2_F128,
            Constant::Ln2 => LN2_F128,
            Constant::Zero => 0,
        }
    }
}

/// How FIST and FISTTP round.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Rounding {
    /// As RC says: FIST, FISTP.
    Control,
    /// Toward zero: FISTTP.
    Truncated,
}

impl X87 {
    /// Pushes what `f` gives, unless the stack is full.
    fn load(&mut self, f: impl FnOnce(&mut Env) -> u128) {
        if !self.is_empty(7) {
            if self.stack_overflow() {
                self.push(INDEFINITE);
            }
            return;
        }
        let mut env = self.env();
        let value = f(&mut env);
        // A denormal number is loaded even if that exception is not masked.
        let invalid = env.flags.contains(Flags::INVALID) && !self.is_masked(IE);
        self.accrue(env.flags);
        if !invalid {
            self.push(value);
        }
    }

    /// FLD m32fp.
    pub fn fld32(&mut self, x: u32) {
        self.load(|env| float::convert::<F32, F80>(x, env));
    }

    /// FLD m64fp.
    pub fn fld64(&mut self, x: u64) {
        self.load(|env| float::convert::<F64, F80>(x, env));
    }

    /// FLD m80fp: the 80 bits as they are.
    pub fn fld80(&mut self, x: u128) {
        self.load(|_| x & ((1 << 80) - 1));
    }

    /// FLD ST(i).
    pub fn fld(&mut self, i: usize) {
        if self.is_empty(i) {
            if self.stack_underflow() {
                self.push(INDEFINITE);
            }
            return;
        }
        let x = self.st(i);
        self.load(|_| x);
    }

    /// FILD: 16 and 32 bits are sign-extended.
    pub fn fild(&mut self, x: i64) {
        self.load(|env| float::from_i64::<F80>(x, env));
    }

    /// FBLD: 18 decimal digits and a sign.
    pub fn fbld(&mut self, bcd: u128) {
        let digits = (0..18).rev().fold(0, |value, i| value * 10 + ((bcd >> (4 * i)) as i64 & 0xf));
        self.load(|env| float::from_i64::<F80>(digits, env) | bcd & 1 << 79);
    }

    /// FLD1, FLDL2T, FLDL2E, FLDPI, FLDLG2, FLDLN2, FLDZ.
    pub fn fld_constant(&mut self, constant: Constant) {
        self.load(|env| float::convert::<F128, F80>(constant.value(), &mut Env { flags: Flags::NONE, ..*env }));
    }

    /// What a store writes: `f` of ST(0), or the indefinite where that is not in use. `None` if an exception is not masked.
    fn store<T>(
        &mut self,
        indefinite: T,
        pops: usize,
        f: impl FnOnce(&Self, u128, &mut Env) -> Option<T>,
    ) -> Option<T> {
        let stored = if self.is_empty(0) {
            if !self.stack_underflow() {
                return None;
            }
            indefinite
        } else {
            let mut env = self.env();
            let value = f(self, self.st(0), &mut env);
            if !self.accrue(env.flags) {
                return None;
            }
            value?
        };
        for _ in 0..pops {
            self.pop();
        }
        Some(stored)
    }

    /// A number in a shorter format; a denormal one is no exception. An overflow or underflow that is not masked leaves the
    /// destination and the stack alone, and is the only flag.
    fn shortened<F: Format>(&self, x: u128, env: &mut Env) -> Option<F::Bits> {
        env.denormals = Denormals::Use;
        let result = float::convert::<F80, F>(x, env);
        let tiny = env.flags.contains(Flags::UNDERFLOW)
            || matches!(float::classify::<F>(result), Class::PositiveSubnormal | Class::NegativeSubnormal);
        if env.flags.contains(Flags::OVERFLOW) && !self.is_masked(OE) {
            env.flags = Flags::OVERFLOW;
            return None;
        }
        if tiny && !self.is_masked(UE) {
            env.flags = Flags::UNDERFLOW;
            return None;
        }
        let back = float::convert::<F, F80>(result, &mut self.env());
        if env.flags.contains(Flags::INEXACT) && magnitude(back) > magnitude(x) {
            env.raise(Flags::ROUNDED_UP);
        }
        Some(result)
    }

    /// FST m32fp, FSTP m32fp.
    pub fn fst32(&mut self, pops: bool) -> Option<u32> {
        self.store(0xffc0_0000, pops.into(), |fpu, x, env| fpu.shortened::<F32>(x, env))
    }

    /// FST m64fp, FSTP m64fp.
    pub fn fst64(&mut self, pops: bool) -> Option<u64> {
        self.store(0xfff8_0000_0000_0000, pops.into(), |fpu, x, env| fpu.shortened::<F64>(x, env))
    }

    /// FSTP m80fp: the 80 bits as they are.
    pub fn fstp80(&mut self) -> Option<u128> {
        self.store(INDEFINITE, 1, |_, x, _| Some(x))
    }

    /// FST ST(i), FSTP ST(i).
    pub fn fst(&mut self, i: usize, pops: bool) {
        if let Some(x) = self.store(INDEFINITE, 0, |_, x, _| Some(x)) {
            self.set(i, x);
            if pops {
                self.pop();
            }
        }
    }

    /// FSTPNCE, an alias of FSTP ST(i) that is on no page of its own: where ST(0) is not in use, nothing happens but the pop.
    pub fn fstpnce(&mut self, i: usize) {
        if !self.is_empty(0) {
            return self.fst(i, true);
        }
        self.set_if(C1, false);
        self.pop();
    }

    /// FIST m16int, FISTP m16int, FISTTP m16int.
    pub fn fist16(&mut self, rounding: Rounding, pops: bool) -> Option<i16> {
        self.store(i16::MIN, pops.into(), |_, x, env| Some(integer(x, rounding, env, float::to_i16::<F80>)))
    }

    /// FIST m32int, FISTP m32int, FISTTP m32int.
    pub fn fist32(&mut self, rounding: Rounding, pops: bool) -> Option<i32> {
        self.store(i32::MIN, pops.into(), |_, x, env| Some(integer(x, rounding, env, float::to_i32::<F80>)))
    }

    /// FISTP m64int, FISTTP m64int.
    pub fn fistp64(&mut self, rounding: Rounding) -> Option<i64> {
        self.store(i64::MIN, 1, |_, x, env| Some(integer(x, rounding, env, float::to_i64::<F80>)))
    }

    /// FBSTP: 18 decimal digits and a sign.
    pub fn fbstp(&mut self) -> Option<u128> {
        self.store(BCD_INDEFINITE, 1, |_, x, env| Some(bcd(x, env)))
    }

    /// FXCH.
    pub fn fxch(&mut self, i: usize) {
        self.set_if(C1, false);
        if self.is_empty(0) || self.is_empty(i) {
            if !self.stack_underflow() {
                return;
            }
            for i in [0, i] {
                if self.is_empty(i) {
                    self.set(i, INDEFINITE);
                }
            }
        }
        let (x, y) = (self.st(0), self.st(i));
        self.set(0, y);
        self.set(i, x);
    }

    /// FCMOVB and its sisters: ST(0) becomes ST(i) where the condition holds.
    pub fn fcmov(&mut self, i: usize, condition: bool) {
        if self.is_empty(0) || self.is_empty(i) {
            if self.stack_underflow() {
                self.set(0, INDEFINITE);
            }
            return;
        }
        if condition {
            self.set(0, self.st(i));
        }
    }
}

/// A number without its sign.
fn magnitude(x: u128) -> u128 {
    x & ((1 << 79) - 1)
}

/// An integer, and C1 if its magnitude was rounded up.
fn integer<T>(x: u128, rounding: Rounding, env: &mut Env, f: fn(u128, Round, &mut Env) -> T) -> T {
    let round = match rounding {
        Rounding::Control => env.round,
        Rounding::Truncated => Round::TowardZero,
    };
    let value = f(x, round, env);
    if env.flags.contains(Flags::INEXACT) {
        let mut whole = Env::default();
        float::round_to_integral::<F80>(x, round, true, &mut whole);
        env.raise(Flags(whole.flags.0 & Flags::ROUNDED_UP.0));
    }
    value
}

/// Packed BCD.
fn bcd(x: u128, env: &mut Env) -> u128 {
    let mut own = Env { integers: IntRule::Indefinite, ..*env };
    let value = integer(x, Rounding::Control, &mut own, float::to_i64::<F80>).unsigned_abs();
    if own.flags.contains(Flags::INVALID) || value >= 1_000_000_000_000_000_000 {
        env.raise(Flags::INVALID);
        return BCD_INDEFINITE;
    }
    env.raise(own.flags);
    let digits = (0..18).fold((0, value), |(digits, rest), i| (digits | u128::from(rest % 10) << (4 * i), rest / 10)).0;
    digits | x & 1 << 79
}
