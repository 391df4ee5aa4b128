//! Floating-point arithmetic: SSE, SSE2, SSE3, SSE4.1, AVX, FMA.
//!
//! `F` is [`F32`](emu_core::float::F32) for the instructions on single precision (PS, SS), and
//! [`F64`](emu_core::float::F64) for those on double precision (PD, SD). The width says how many elements: `Width::Scalar`
//! for SS and SD, whose other elements are those of `a`. So unary instructions have an `a` too: the destination as it was
//! or, where VEX-encoded, the first source; packed ones ignore it.

use super::mxcsr::{Float, Mxcsr, SimdException, widened};
use super::{Lane, V, Width};
use emu_core::float::fast;
use emu_core::float::{self, Env, F128, Flags, Fma, Round};

/// The result of an instruction on floating-point vectors.
pub type Result<T = V> = core::result::Result<T, SimdException>;

/// A number of a format.
type Bits<F> = <F as float::Format>::Bits;

/// An operation on two numbers of which the result is rounded.
#[derive(Clone, Copy)]
enum Op {
    Add,
    Sub,
    Mul,
    Div,
}

impl Op {
    #[inline(always)]
    fn rounded<F: Float>(self, x: Bits<F>, y: Bits<F>, env: &mut Env) -> Bits<F> {
        match self {
            Op::Add => fast::add::<F>(x, y, env),
            Op::Sub => fast::sub::<F>(x, y, env),
            Op::Mul => fast::mul::<F>(x, y, env),
            Op::Div => fast::div::<F>(x, y, env),
        }
    }

    #[inline(always)]
    fn host<F: Float>(self, x: Bits<F>, y: Bits<F>) -> Bits<F> {
        match self {
            Op::Add => F::add(x, y),
            Op::Sub => F::add(x, F::negate(y)),
            Op::Mul => F::mul(x, y),
            Op::Div => F::div(x, y),
        }
    }

    /// The same in quadruple precision.
    fn wide(self, x: u128, y: u128, env: &mut Env) -> u128 {
        match self {
            Op::Add => float::add::<F128>(x, y, env),
            Op::Sub => float::sub::<F128>(x, y, env),
            Op::Mul => float::mul::<F128>(x, y, env),
            Op::Div => float::div::<F128>(x, y, env),
        }
    }
}

/// An operation on pairs of elements: `op(i)` on element `i`.
#[inline(always)]
fn arithmetic<F: Float>(w: Width, a: V, b: V, mxcsr: &mut Mxcsr, op: impl Fn(usize) -> Op) -> Result {
    if mxcsr.masks_range() {
        if w != Width::Scalar
            && let Some(result) = at_once::<F>(w, a, b, mxcsr, &op)
        {
            return Ok(result);
        }
        return mxcsr.elements(w, a, |i, env| op(i).rounded::<F>(a.get(i), b.get(i), env));
    }
    let control = *mxcsr;
    mxcsr.elements(w, a, |i, env| {
        let (x, y) = (a.get(i), b.get(i));
        let wide = |env: &mut Env| op(i).wide(widened::<F>(x, control), widened::<F>(y, control), env);
        control.with_range_exceptions::<F>(env, |env| op(i).rounded::<F>(x, y, env), wide)
    })
}

/// All elements through the host, without a look at each: where it rounds as it does, PE is set and masked, no operand is
/// denormal, and all results are far from being tiny, infinite or a NaN. The proof is that of [`fast`].
#[inline(always)]
fn at_once<F: Float>(w: Width, a: V, b: V, mxcsr: &Mxcsr, op: &impl Fn(usize) -> Op) -> Option<V> {
    let env = mxcsr.env();
    if env.round != Round::NearestEven || !env.flags.contains(Flags::INEXACT) {
        return None;
    }
    let (x, y) = (a.lanes::<F::Bits>(), b.lanes::<F::Bits>());
    let (mut result, mut plain) = (a.lanes::<F::Bits>(), true);
    for (i, ((r, x), y)) in result.as_mut().iter_mut().zip(x.as_ref()).zip(y.as_ref()).enumerate() {
        let host = op(i).host::<F>(*x, *y);
        let counts = i < w.count::<F::Bits>();
        let normal = |x| (1..F::EXP_MAX).contains(&F::exponent(x)) | F::is_zero(x);
        let safe = (2..F::EXP_MAX).contains(&F::exponent(host));
        plain &= !counts | (normal(*x) & normal(*y) & safe);
        // No NaN of the host's shows, not even in an element that does not count.
        *r = if counts { host } else { *r };
    }
    plain.then(|| F::Bits::join(result))
}

/// ADDPS, ADDSS, ADDPD, ADDSD.
pub fn add<F: Float>(w: Width, a: V, b: V, mxcsr: &mut Mxcsr) -> Result {
    arithmetic::<F>(w, a, b, mxcsr, |_| Op::Add)
}

/// SUBPS, SUBSS, SUBPD, SUBSD.
pub fn sub<F: Float>(w: Width, a: V, b: V, mxcsr: &mut Mxcsr) -> Result {
    arithmetic::<F>(w, a, b, mxcsr, |_| Op::Sub)
}

/// MULPS, MULSS, MULPD, MULSD.
pub fn mul<F: Float>(w: Width, a: V, b: V, mxcsr: &mut Mxcsr) -> Result {
    arithmetic::<F>(w, a, b, mxcsr, |_| Op::Mul)
}

/// DIVPS, DIVSS, DIVPD, DIVSD.
pub fn div<F: Float>(w: Width, a: V, b: V, mxcsr: &mut Mxcsr) -> Result {
    arithmetic::<F>(w, a, b, mxcsr, |_| Op::Div)
}

/// SQRTPS, SQRTSS, SQRTPD, SQRTSD: of `b`. No square root overflows or is tiny.
pub fn sqrt<F: Float>(w: Width, a: V, b: V, mxcsr: &mut Mxcsr) -> Result {
    mxcsr.elements(w, a, |i, env| fast::sqrt::<F>(b.get(i), env))
}

/// ADDSUBPS, ADDSUBPD: the even elements are subtracted, the odd ones added.
pub fn addsub<F: Float>(w: Width, a: V, b: V, mxcsr: &mut Mxcsr) -> Result {
    arithmetic::<F>(w, a, b, mxcsr, |i| if i % 2 == 0 { Op::Sub } else { Op::Add })
}

/// Of each block, pairs of `a` and then of `b`.
fn horizontal<F: Float>(w: Width, a: V, b: V, mxcsr: &mut Mxcsr, op: Op) -> Result {
    // The even elements of both, and the odd ones.
    let gather = |odd: usize| {
        let (a, b) = (a.lanes::<F::Bits>(), b.lanes::<F::Bits>());
        let per_block = 16 / F::Bits::BYTES;
        V::build::<F::Bits>(|i| {
            let (block, pair) = (i / per_block * per_block, i % per_block * 2 + odd);
            if pair < per_block { a.as_ref()[block + pair] } else { b.as_ref()[block + pair - per_block] }
        })
    };
    arithmetic::<F>(w, gather(0), gather(1), mxcsr, |_| op)
}

/// HADDPS, HADDPD.
pub fn hadd<F: Float>(w: Width, a: V, b: V, mxcsr: &mut Mxcsr) -> Result {
    horizontal::<F>(w, a, b, mxcsr, Op::Add)
}

/// HSUBPS, HSUBPD.
pub fn hsub<F: Float>(w: Width, a: V, b: V, mxcsr: &mut Mxcsr) -> Result {
    horizontal::<F>(w, a, b, mxcsr, Op::Sub)
}

/// DPPS, DPPD: products where the immediate's bits 7:4 ask for them, their sum where its bits 3:0 do. The sum is that of
/// neighbours first; each operation is rounded and raises its exceptions before the next begins.
pub fn dp<F: Float>(w: Width, a: V, b: V, imm: u8, mxcsr: &mut Mxcsr) -> Result {
    let per_block = 16 / F::Bits::BYTES;
    let zero = F::zero(false);
    let asked = |bits: u8, i: usize| bits >> (i % per_block) & 1 != 0;
    // A product that is not asked for is that of zeros.
    let factors = |v: V| {
        let all = v.lanes::<F::Bits>();
        V::build(|i| if asked(imm >> 4, i) { all.as_ref()[i] } else { zero })
    };
    let mut sums = mul::<F>(w, factors(a), factors(b), mxcsr)?;
    let mut distance = 1;
    while distance < per_block {
        // Elements 0 and 1 become their sum, then 0 and 2. That each sum is formed twice shows nowhere.
        let all = sums.lanes::<F::Bits>();
        let low = V::build::<F::Bits>(|i| all.as_ref()[i & !distance]);
        let high = V::build::<F::Bits>(|i| all.as_ref()[i | distance]);
        sums = add::<F>(w, low, high, mxcsr)?;
        distance *= 2;
    }
    let sums = sums.lanes::<F::Bits>();
    Ok(V::build(|i| if asked(imm, i) { sums.as_ref()[i] } else { zero }))
}

/// ROUNDPS, ROUNDSS, ROUNDPD, ROUNDSD: of `b`. The immediate's bits 1:0 are the rounding mode, unless bit 2 asks for
/// MXCSR's; bit 3 suppresses the precision exception. A denormal operand is no exception.
pub fn round<F: Float>(w: Width, a: V, b: V, imm: u8, mxcsr: &mut Mxcsr) -> Result {
    mxcsr.elements(w, a, |i, env| {
        let round = if imm & 4 != 0 { env.round } else { Round::from_x86(imm) };
        without_denormal(env, |env| float::round_to_integral::<F>(b.get(i), round, imm & 8 == 0, env))
    })
}

/// `f`, of which a denormal operand is no exception. It is still flushed where MXCSR.DAZ says so.
#[inline]
pub(super) fn without_denormal<T>(env: &mut Env, f: impl FnOnce(&mut Env) -> T) -> T {
    let had = env.flags.contains(Flags::DENORMAL);
    let result = f(env);
    if !had {
        env.flags.0 &= !Flags::DENORMAL.0;
    }
    result
}

/// Which operands of VFMADD132PS, VFMADD213PS, VFMADD231PS and their sisters are multiplied: "132" is `op1 * op3 + op2`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum FmaForm {
    /// `op1 * op3 + op2`.
    F132,
    /// `op2 * op1 + op3`.
    F213,
    /// `op2 * op3 + op1`.
    F231,
}

/// The signs of a fused multiply-add.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum FmaKind {
    /// VFMADD.
    Madd,
    /// VFMSUB.
    Msub,
    /// VFNMADD.
    Nmadd,
    /// VFNMSUB.
    Nmsub,
    /// VFMADDSUB: even elements subtract, odd ones add.
    Maddsub,
    /// VFMSUBADD: even elements add, odd ones subtract.
    Msubadd,
}

impl FmaKind {
    fn of_element(self, i: usize) -> Fma {
        match (self, i % 2) {
            (FmaKind::Madd, _) | (FmaKind::Maddsub, 1) | (FmaKind::Msubadd, 0) => Fma::MulAdd,
            (FmaKind::Msub, _) | (FmaKind::Maddsub, _) | (FmaKind::Msubadd, _) => Fma::MulSub,
            (FmaKind::Nmadd, _) => Fma::NegMulAdd,
            (FmaKind::Nmsub, _) => Fma::NegMulSub,
        }
    }
}

/// VFMADD132PS and all other instructions of FMA: the form and the signs are parameters. `a` is the destination.
pub fn fma<F: Float>(w: Width, form: FmaForm, kind: FmaKind, a: V, b: V, c: V, mxcsr: &mut Mxcsr) -> Result {
    let (x, y, z) = match form {
        FmaForm::F132 => (a, c, b),
        FmaForm::F213 => (b, a, c),
        FmaForm::F231 => (b, c, a),
    };
    let control = *mxcsr;
    mxcsr.elements(w, a, |i, env| {
        let (x, y, z, kind) = (x.get(i), y.get(i), z.get(i), kind.of_element(i));
        let fused = |env: &mut Env| fast::fused_mul_add::<F>(x, y, z, kind, env);
        if control.masks_range() {
            return fused(env);
        }
        let wide = |x| widened::<F>(x, control);
        let wide = |env: &mut Env| float::fused_mul_add::<F128>(wide(x), wide(y), wide(z), kind, env);
        control.with_range_exceptions::<F>(env, fused, wide)
    })
}
