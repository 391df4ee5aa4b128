//! Floating point: "F", "D", Zfh, Zfhmin, Zfa.
//!
//! A narrower value stands in an f register under ones (NaN boxing); an operand that does not is the canonical NaN.

use emu_core::engine::Step;
use emu_core::engine::uop::{BinaryOp, Operand, SINK, UnaryOp, Width};
use emu_core::float::{self, Env, F16, F32, F64, Fma, Format, MinMax, Round, fast};

use super::Does::{CallFloat, LiftFloat};
use super::{F, H, Insn, Lifting, Row, TEMP, illegal, row};
use crate::cpu::Ext;

/// A format of the F, D and Zfh extensions.
trait Scalar: Format {
    /// Bits of the format.
    const WIDTH: u32;
    /// The canonical NaN.
    const NAN: u64;
    fn from_u64(x: u64) -> Self::Bits;
    fn to_u64(x: Self::Bits) -> u64;
    fn add(a: Self::Bits, b: Self::Bits, env: &mut Env) -> Self::Bits;
    fn sub(a: Self::Bits, b: Self::Bits, env: &mut Env) -> Self::Bits;
    fn mul(a: Self::Bits, b: Self::Bits, env: &mut Env) -> Self::Bits;
    fn div(a: Self::Bits, b: Self::Bits, env: &mut Env) -> Self::Bits;
    fn sqrt(a: Self::Bits, env: &mut Env) -> Self::Bits;
    fn fma(a: Self::Bits, b: Self::Bits, c: Self::Bits, kind: Fma, env: &mut Env) -> Self::Bits;
    fn eq(a: Self::Bits, b: Self::Bits, env: &mut Env) -> bool;
    fn lt(a: Self::Bits, b: Self::Bits, env: &mut Env) -> bool;
    fn le(a: Self::Bits, b: Self::Bits, env: &mut Env) -> bool;

    /// The value in an f register, its box checked.
    #[inline]
    fn unbox(register: u64) -> Self::Bits {
        let boxed = Self::WIDTH == 64 || register >> (Self::WIDTH & 63) == u64::MAX >> (Self::WIDTH & 63);
        Self::from_u64(if boxed { register } else { Self::NAN })
    }

    /// As it stands in an f register.
    #[inline]
    fn boxed(value: Self::Bits) -> u64 {
        let ones = if Self::WIDTH == 64 { 0 } else { u64::MAX << (Self::WIDTH & 63) };
        Self::to_u64(value) | ones
    }
}

macro_rules! scalar {
    ($F:ty, $bits:ty, $nan:literal, $($module:ident)::*) => {
        impl Scalar for $F {
            const WIDTH: u32 = <$bits>::BITS;
            const NAN: u64 = $nan;
            fn from_u64(x: u64) -> $bits { x as $bits }
            fn to_u64(x: $bits) -> u64 { x.into() }
            fn add(a: $bits, b: $bits, env: &mut Env) -> $bits { $($module)::*::add::<$F>(a, b, env) }
            fn sub(a: $bits, b: $bits, env: &mut Env) -> $bits { $($module)::*::sub::<$F>(a, b, env) }
            fn mul(a: $bits, b: $bits, env: &mut Env) -> $bits { $($module)::*::mul::<$F>(a, b, env) }
            fn div(a: $bits, b: $bits, env: &mut Env) -> $bits { $($module)::*::div::<$F>(a, b, env) }
            fn sqrt(a: $bits, env: &mut Env) -> $bits { $($module)::*::sqrt::<$F>(a, env) }
            fn fma(a: $bits, b: $bits, c: $bits, kind: Fma, env: &mut Env) -> $bits {
                $($module)::*::fused_mul_add::<$F>(a, b, c, kind, env)
            }
            fn eq(a: $bits, b: $bits, env: &mut Env) -> bool { $($module)::*::eq::<$F>(a, b, env) }
            fn lt(a: $bits, b: $bits, env: &mut Env) -> bool { $($module)::*::lt::<$F>(a, b, env) }
            fn le(a: $bits, b: $bits, env: &mut Env) -> bool { $($module)::*::le::<$F>(a, b, env) }
        }
    };
}
scalar!(F16, u16, 0x7e00, float);
scalar!(F32, u32, 0x7fc0_0000, fast);
scalar!(F64, u64, 0x7ff8_0000_0000_0000, fast);

fn x(h: &H, r: u8) -> u64 {
    h.core.regs[usize::from(r)]
}

fn set_x(h: &mut H, r: u8, value: u64) {
    if r != 0 {
        h.core.regs[usize::from(r)] = value;
    }
}

fn f<S: Scalar>(h: &H, r: u8) -> S::Bits {
    S::unbox(h.core.regs[usize::from(F + r)])
}

fn set_f<S: Scalar>(h: &mut H, r: u8, value: S::Bits) {
    h.core.regs[usize::from(F + r)] = S::boxed(value);
}

/// The environment that rm asks for; reserved rounding modes are illegal ("Floating-Point Control and Status Register").
fn env(h: &H, i: Insn) -> Step<Env> {
    let rm = if i.rm() == 7 { h.arch.fcsr.frm } else { i.rm() };
    match Round::from_riscv(rm) {
        Some(round) => Ok(Env::riscv(round)),
        None => illegal(),
    }
}

/// The environment of instructions that do not round.
fn exact() -> Env {
    Env::riscv(Round::NearestEven)
}

fn accrue(h: &mut H, env: &Env) {
    h.arch.fcsr.flags |= env.flags.to_riscv();
}

fn two<S: Scalar>(h: &mut H, i: Insn, op: impl Fn(S::Bits, S::Bits, &mut Env) -> S::Bits) -> Step {
    let mut env = env(h, i)?;
    let value = op(f::<S>(h, i.rs1()), f::<S>(h, i.rs2()), &mut env);
    set_f::<S>(h, i.rd(), value);
    accrue(h, &env);
    Ok(())
}

fn sqrt<S: Scalar>(h: &mut H, i: Insn) -> Step {
    two::<S>(h, i, |a, _, env| S::sqrt(a, env))
}

fn fma<S: Scalar>(h: &mut H, i: Insn, kind: Fma) -> Step {
    let mut env = env(h, i)?;
    let value = S::fma(f::<S>(h, i.rs1()), f::<S>(h, i.rs2()), f::<S>(h, i.rs3()), kind, &mut env);
    set_f::<S>(h, i.rd(), value);
    accrue(h, &env);
    Ok(())
}

/// FSGNJ, FSGNJN, FSGNJX: `op` makes the sign of the two.
fn sign<S: Scalar>(h: &mut H, i: Insn, op: impl Fn(u64, u64) -> u64) -> Step {
    let (a, b) = (S::to_u64(f::<S>(h, i.rs1())), S::to_u64(f::<S>(h, i.rs2())));
    let bit = 1 << (S::WIDTH - 1);
    set_f::<S>(h, i.rd(), S::from_u64(a & !bit | op(a, b) & bit));
    Ok(())
}

fn min_max<S: Scalar>(h: &mut H, i: Insn, is_max: bool, flavour: MinMax) -> Step {
    let mut env = exact();
    let (a, b) = (f::<S>(h, i.rs1()), f::<S>(h, i.rs2()));
    let value =
        if is_max { float::max::<S>(a, b, flavour, &mut env) } else { float::min::<S>(a, b, flavour, &mut env) };
    set_f::<S>(h, i.rd(), value);
    accrue(h, &env);
    Ok(())
}

fn compare<S: Scalar>(h: &mut H, i: Insn, op: impl Fn(S::Bits, S::Bits, &mut Env) -> bool) -> Step {
    let mut env = exact();
    let value = op(f::<S>(h, i.rs1()), f::<S>(h, i.rs2()), &mut env);
    set_x(h, i.rd(), value.into());
    accrue(h, &env);
    Ok(())
}

fn class<S: Scalar>(h: &mut H, i: Insn) -> Step {
    let class = float::classify::<S>(f::<S>(h, i.rs1())).mask();
    set_x(h, i.rd(), class.into());
    Ok(())
}

/// FCVT to an integer: rs2 is W, WU, L, LU.
fn to_integer<S: Scalar>(h: &mut H, i: Insn) -> Step {
    let mut env = env(h, i)?;
    let (a, round) = (f::<S>(h, i.rs1()), env.round);
    let value = match i.rs2() {
        0 => float::to_i32::<S>(a, round, &mut env) as i64 as u64,
        1 => float::to_u32::<S>(a, round, &mut env) as i32 as i64 as u64,
        2 => float::to_i64::<S>(a, round, &mut env) as u64,
        _ => float::to_u64::<S>(a, round, &mut env),
    };
    set_x(h, i.rd(), value);
    accrue(h, &env);
    Ok(())
}

/// FCVT from an integer: rs2 is W, WU, L, LU.
fn from_integer<S: Scalar>(h: &mut H, i: Insn) -> Step {
    let mut env = env(h, i)?;
    let a = x(h, i.rs1());
    let value = match i.rs2() {
        0 => float::from_i32::<S>(a as i32, &mut env),
        1 => float::from_u32::<S>(a as u32, &mut env),
        2 => float::from_i64::<S>(a as i64, &mut env),
        _ => float::from_u64::<S>(a, &mut env),
    };
    set_f::<S>(h, i.rd(), value);
    accrue(h, &env);
    Ok(())
}

/// FCVT between formats.
fn convert<From: Scalar, To: Scalar>(h: &mut H, i: Insn) -> Step {
    let mut env = env(h, i)?;
    let value = float::convert::<From, To>(f::<From>(h, i.rs1()), &mut env);
    set_f::<To>(h, i.rd(), value);
    accrue(h, &env);
    Ok(())
}

/// FROUND, FROUNDNX (Zfa).
fn round<S: Scalar>(h: &mut H, i: Insn, exact: bool) -> Step {
    let mut env = env(h, i)?;
    let mode = env.round;
    let value = float::round_to_integral::<S>(f::<S>(h, i.rs1()), mode, exact, &mut env);
    set_f::<S>(h, i.rd(), value);
    accrue(h, &env);
    Ok(())
}

/// FCVTMOD.W.D (Zfa).
fn fcvtmod(h: &mut H, i: Insn) -> Step {
    let mut env = Env::riscv(Round::TowardZero);
    let value = float::fcvtmod_w_d(f::<F64>(h, i.rs1()), &mut env);
    set_x(h, i.rd(), value as i64 as u64);
    accrue(h, &env);
    Ok(())
}

/// The constants of FLI ("Load-Immediate Instructions" of Zfa) but the minimum normal, infinity and NaN, in double precision.
const FLI: [f64; 32] = [
    -1.0,
    0.0,
    1.0 / 65536.0,
    1.0 / 32768.0,
    1.0 / 256.0,
    1.0 / 128.0,
    0.0625,
    0.125,
    0.25,
    0.3125,
    0.375,
    0.4375,
    0.5,
    0.625,
    0.75,
    0.875,
    1.0,
    1.25,
    1.5,
    1.75,
    2.0,
    2.5,
    3.0,
    4.0,
    8.0,
    16.0,
    128.0,
    256.0,
    32768.0,
    65536.0,
    f64::INFINITY,
    0.0,
];

/// FLI (Zfa).
fn fli<S: Scalar>(h: &mut H, i: Insn) -> Step {
    let value = match i.rs1() {
        1 => S::from_u64(1 << S::FRAC_BITS),
        31 => S::from_u64(S::NAN),
        n => float::convert::<F64, S>(FLI[usize::from(n)].to_bits(), &mut exact()),
    };
    set_f::<S>(h, i.rd(), value);
    Ok(())
}

fn load(l: &mut Lifting, i: Insn, width: Width) {
    if l.fs_dirty {
        l.lift.load(width, F + i.rd(), i.rs1(), i.imm_i());
    } else {
        l.lift.load(width, TEMP, i.rs1(), i.imm_i());
        l.make_fs_dirty();
        l.lift.unary(UnaryOp::Move, F + i.rd(), TEMP);
    }
}

fn store(l: &mut Lifting, i: Insn, width: Width) {
    l.lift.store(width, i.rs1(), F + i.rs2(), i.imm_s());
}

/// FMV to an x register.
fn move_to_x(l: &mut Lifting, i: Insn, op: UnaryOp) {
    let rd = if i.rd() == 0 { SINK } else { i.rd() };
    l.lift.unary(op, rd, F + i.rs1());
}

/// FMV from an x register.
fn move_to_f(l: &mut Lifting, i: Insn, op: UnaryOp) {
    l.make_fs_dirty();
    l.lift.unary(op, F + i.rd(), i.rs1());
}

/// FSGNJ and its like of double precision need no call.
fn sign_d(l: &mut Lifting, i: Insn, op: BinaryOp) {
    l.make_fs_dirty();
    if op == BinaryOp::CopySign && i.rs1() == i.rs2() {
        l.lift.unary(UnaryOp::Move, F + i.rd(), F + i.rs1());
    } else {
        l.lift.binary(op, F + i.rd(), F + i.rs1(), Operand::Reg(F + i.rs2()));
    }
}

/// The rows of one format. `$fmt` is its field, `$s` its suffix.
macro_rules! format_rows {
    ($F:ty, $fmt:literal, $s:literal, $ext:expr) => {
        [
            row(
                concat!("..... ", $fmt, " ..... ..... ... ..... 1000011"),
                concat!("fmadd.", $s),
                $ext,
                CallFloat(|h, i| fma::<$F>(h, i, Fma::MulAdd)),
            ),
            row(
                concat!("..... ", $fmt, " ..... ..... ... ..... 1000111"),
                concat!("fmsub.", $s),
                $ext,
                CallFloat(|h, i| fma::<$F>(h, i, Fma::MulSub)),
            ),
            row(
                concat!("..... ", $fmt, " ..... ..... ... ..... 1001011"),
                concat!("fnmsub.", $s),
                $ext,
                CallFloat(|h, i| fma::<$F>(h, i, Fma::NegMulAdd)),
            ),
            row(
                concat!("..... ", $fmt, " ..... ..... ... ..... 1001111"),
                concat!("fnmadd.", $s),
                $ext,
                CallFloat(|h, i| fma::<$F>(h, i, Fma::NegMulSub)),
            ),
            row(
                concat!("00000 ", $fmt, " ..... ..... ... ..... 1010011"),
                concat!("fadd.", $s),
                $ext,
                CallFloat(|h, i| two::<$F>(h, i, <$F as Scalar>::add)),
            ),
            row(
                concat!("00001 ", $fmt, " ..... ..... ... ..... 1010011"),
                concat!("fsub.", $s),
                $ext,
                CallFloat(|h, i| two::<$F>(h, i, <$F as Scalar>::sub)),
            ),
            row(
                concat!("00010 ", $fmt, " ..... ..... ... ..... 1010011"),
                concat!("fmul.", $s),
                $ext,
                CallFloat(|h, i| two::<$F>(h, i, <$F as Scalar>::mul)),
            ),
            row(
                concat!("00011 ", $fmt, " ..... ..... ... ..... 1010011"),
                concat!("fdiv.", $s),
                $ext,
                CallFloat(|h, i| two::<$F>(h, i, <$F as Scalar>::div)),
            ),
            row(
                concat!("01011 ", $fmt, " 00000 ..... ... ..... 1010011"),
                concat!("fsqrt.", $s),
                $ext,
                CallFloat(sqrt::<$F>),
            ),
            row(
                concat!("00101 ", $fmt, " ..... ..... 000 ..... 1010011"),
                concat!("fmin.", $s),
                $ext,
                CallFloat(|h, i| min_max::<$F>(h, i, false, MinMax::Number2019)),
            ),
            row(
                concat!("00101 ", $fmt, " ..... ..... 001 ..... 1010011"),
                concat!("fmax.", $s),
                $ext,
                CallFloat(|h, i| min_max::<$F>(h, i, true, MinMax::Number2019)),
            ),
            row(
                concat!("10100 ", $fmt, " ..... ..... 010 ..... 1010011"),
                concat!("feq.", $s),
                $ext,
                CallFloat(|h, i| compare::<$F>(h, i, <$F as Scalar>::eq)),
            ),
            row(
                concat!("10100 ", $fmt, " ..... ..... 001 ..... 1010011"),
                concat!("flt.", $s),
                $ext,
                CallFloat(|h, i| compare::<$F>(h, i, <$F as Scalar>::lt)),
            ),
            row(
                concat!("10100 ", $fmt, " ..... ..... 000 ..... 1010011"),
                concat!("fle.", $s),
                $ext,
                CallFloat(|h, i| compare::<$F>(h, i, <$F as Scalar>::le)),
            ),
            row(
                concat!("11100 ", $fmt, " 00000 ..... 001 ..... 1010011"),
                concat!("fclass.", $s),
                $ext,
                CallFloat(class::<$F>),
            ),
            row(
                concat!("11000 ", $fmt, " 000.. ..... ... ..... 1010011"),
                concat!("fcvt.int.", $s),
                $ext,
                CallFloat(to_integer::<$F>),
            ),
            row(
                concat!("11010 ", $fmt, " 000.. ..... ... ..... 1010011"),
                concat!("fcvt.", $s, ".int"),
                $ext,
                CallFloat(from_integer::<$F>),
            ),
        ]
    };
}

/// The rows of Zfa for one format, and of FSGNJ for those that are narrower than a register.
macro_rules! zfa_rows {
    ($F:ty, $fmt:literal, $s:literal, $ext:expr) => {
        [
            row(
                concat!("11110 ", $fmt, " 00001 ..... 000 ..... 1010011"),
                concat!("fli.", $s),
                $ext,
                CallFloat(fli::<$F>),
            ),
            row(
                concat!("00101 ", $fmt, " ..... ..... 010 ..... 1010011"),
                concat!("fminm.", $s),
                $ext,
                CallFloat(|h, i| min_max::<$F>(h, i, false, MinMax::Propagate)),
            ),
            row(
                concat!("00101 ", $fmt, " ..... ..... 011 ..... 1010011"),
                concat!("fmaxm.", $s),
                $ext,
                CallFloat(|h, i| min_max::<$F>(h, i, true, MinMax::Propagate)),
            ),
            row(
                concat!("01000 ", $fmt, " 00100 ..... ... ..... 1010011"),
                concat!("fround.", $s),
                $ext,
                CallFloat(|h, i| round::<$F>(h, i, false)),
            ),
            row(
                concat!("01000 ", $fmt, " 00101 ..... ... ..... 1010011"),
                concat!("froundnx.", $s),
                $ext,
                CallFloat(|h, i| round::<$F>(h, i, true)),
            ),
            row(
                concat!("10100 ", $fmt, " ..... ..... 100 ..... 1010011"),
                concat!("fleq.", $s),
                $ext,
                CallFloat(|h, i| compare::<$F>(h, i, float::leq::<$F>)),
            ),
            row(
                concat!("10100 ", $fmt, " ..... ..... 101 ..... 1010011"),
                concat!("fltq.", $s),
                $ext,
                CallFloat(|h, i| compare::<$F>(h, i, float::ltq::<$F>)),
            ),
        ]
    };
}

macro_rules! narrow_sign_rows {
    ($F:ty, $fmt:literal, $s:literal, $ext:expr) => {
        [
            row(
                concat!("00100 ", $fmt, " ..... ..... 000 ..... 1010011"),
                concat!("fsgnj.", $s),
                $ext,
                CallFloat(|h, i| sign::<$F>(h, i, |_, b| b)),
            ),
            row(
                concat!("00100 ", $fmt, " ..... ..... 001 ..... 1010011"),
                concat!("fsgnjn.", $s),
                $ext,
                CallFloat(|h, i| sign::<$F>(h, i, |_, b| !b)),
            ),
            row(
                concat!("00100 ", $fmt, " ..... ..... 010 ..... 1010011"),
                concat!("fsgnjx.", $s),
                $ext,
                CallFloat(|h, i| sign::<$F>(h, i, |a, b| a ^ b)),
            ),
        ]
    };
}

const EXT_F: &[Ext] = &[Ext::F];
const EXT_D: &[Ext] = &[Ext::D];
const ZFH: &[Ext] = &[Ext::Zfh];
const ZFHMIN: &[Ext] = &[Ext::Zfhmin];

pub(crate) const SINGLE: &[Row] = &format_rows!(F32, "00", "s", EXT_F);
pub(crate) const DOUBLE: &[Row] = &format_rows!(F64, "01", "d", EXT_D);
pub(crate) const HALF: &[Row] = &format_rows!(F16, "10", "h", ZFH);
pub(crate) const SINGLE_ZFA: &[Row] = &zfa_rows!(F32, "00", "s", &[Ext::Zfa]);
pub(crate) const DOUBLE_ZFA: &[Row] = &zfa_rows!(F64, "01", "d", &[Ext::Zfa]);
pub(crate) const HALF_ZFA: &[Row] = &zfa_rows!(F16, "10", "h", &[Ext::Zfa]);
pub(crate) const SINGLE_SIGN: &[Row] = &narrow_sign_rows!(F32, "00", "s", EXT_F);
pub(crate) const HALF_SIGN: &[Row] = &narrow_sign_rows!(F16, "10", "h", ZFH);

pub(crate) const ROWS: &[Row] = &[
    row("............ ..... 010 ..... 0000111", "flw", EXT_F, LiftFloat(|l, i| load(l, i, Width::Box32))),
    row("............ ..... 011 ..... 0000111", "fld", EXT_D, LiftFloat(|l, i| load(l, i, Width::U64))),
    row("............ ..... 001 ..... 0000111", "flh", ZFHMIN, LiftFloat(|l, i| load(l, i, Width::Box16))),
    row("....... ..... ..... 010 ..... 0100111", "fsw", EXT_F, LiftFloat(|l, i| store(l, i, Width::U32))),
    row("....... ..... ..... 011 ..... 0100111", "fsd", EXT_D, LiftFloat(|l, i| store(l, i, Width::U64))),
    row("....... ..... ..... 001 ..... 0100111", "fsh", ZFHMIN, LiftFloat(|l, i| store(l, i, Width::U16))),
    row("0010001 ..... ..... 000 ..... 1010011", "fsgnj.d", EXT_D, LiftFloat(|l, i| sign_d(l, i, BinaryOp::CopySign))),
    row(
        "0010001 ..... ..... 001 ..... 1010011",
        "fsgnjn.d",
        EXT_D,
        LiftFloat(|l, i| sign_d(l, i, BinaryOp::CopySignNot)),
    ),
    row("0010001 ..... ..... 010 ..... 1010011", "fsgnjx.d", EXT_D, LiftFloat(|l, i| sign_d(l, i, BinaryOp::XorSign))),
    row("111000000000 ..... 000 ..... 1010011", "fmv.x.w", EXT_F, LiftFloat(|l, i| move_to_x(l, i, UnaryOp::Sext32))),
    row("111000100000 ..... 000 ..... 1010011", "fmv.x.d", EXT_D, LiftFloat(|l, i| move_to_x(l, i, UnaryOp::Move))),
    row("111001000000 ..... 000 ..... 1010011", "fmv.x.h", ZFHMIN, LiftFloat(|l, i| move_to_x(l, i, UnaryOp::Sext16))),
    row("111100000000 ..... 000 ..... 1010011", "fmv.w.x", EXT_F, LiftFloat(|l, i| move_to_f(l, i, UnaryOp::Box32))),
    row("111100100000 ..... 000 ..... 1010011", "fmv.d.x", EXT_D, LiftFloat(|l, i| move_to_f(l, i, UnaryOp::Move))),
    row("111101000000 ..... 000 ..... 1010011", "fmv.h.x", ZFHMIN, LiftFloat(|l, i| move_to_f(l, i, UnaryOp::Box16))),
    row("010000000001 ..... ... ..... 1010011", "fcvt.s.d", EXT_D, CallFloat(convert::<F64, F32>)),
    row("010000100000 ..... ... ..... 1010011", "fcvt.d.s", EXT_D, CallFloat(convert::<F32, F64>)),
    row("010000000010 ..... ... ..... 1010011", "fcvt.s.h", ZFHMIN, CallFloat(convert::<F16, F32>)),
    row("010001000000 ..... ... ..... 1010011", "fcvt.h.s", ZFHMIN, CallFloat(convert::<F32, F16>)),
    row(
        "010000100010 ..... ... ..... 1010011",
        "fcvt.d.h",
        ZFHMIN,
        CallFloat(|h, i| with_d(h, i, convert::<F16, F64>)),
    ),
    row(
        "010001000001 ..... ... ..... 1010011",
        "fcvt.h.d",
        ZFHMIN,
        CallFloat(|h, i| with_d(h, i, convert::<F64, F16>)),
    ),
    row("110000101000 ..... 001 ..... 1010011", "fcvtmod.w.d", &[Ext::Zfa], CallFloat(|h, i| with_d(h, i, fcvtmod))),
];

/// Conversions of half to and from double precision are there only with D.
fn with_d(h: &mut H, i: Insn, f: impl FnOnce(&mut H, Insn) -> Step) -> Step {
    if h.arch.cpu.has(Ext::D) { f(h, i) } else { illegal() }
}
