//! The fast paths against the soft operations, in environments of which some allow the fast path and some do not.

use crate::operands::*;
use emu_core::float::fast::Host;
use emu_core::float::*;

fn environments() -> Vec<Env> {
    let mut all: Vec<Env> = ROUNDS.into_iter().map(Env::riscv).collect();
    // As of reset; with FTZ; with DAZ; with both. FPCR: as of reset; with FZ.
    all.extend([0x1f80, 0x9f80, 0x1fc0, 0x9fc0].map(Env::x86_sse));
    all.extend([0, 1 << 24].map(Env::arm));
    let known = all.clone();
    all.extend(known.into_iter().map(|env| Env { flags: Flags::INEXACT, ..env }));
    all
}

fn same<F: Raw, T: PartialEq + std::fmt::Debug>(
    what: &str,
    operands: [u128; 3],
    env: Env,
    soft: impl Fn(&mut Env) -> T,
    fast: impl Fn(&mut Env) -> T,
) {
    let (mut by_soft, mut by_fast) = (env, env);
    let (expected, got) = (soft(&mut by_soft), fast(&mut by_fast));
    assert_eq!((&got, by_fast), (&expected, by_soft), "{what} {operands:x?}");
}

fn check<F: Raw + Host>(shape: Shape, cases: usize)
where
    F::Bits: PartialEq,
{
    let mut rng = Rng::new(u64::from(F::PRECISION));
    for env in environments() {
        for i in 0..cases {
            let a = shape.operand(&mut rng);
            let b = shape.near(&mut rng, a);
            let c = shape.addend(&mut rng, a, b);
            let (x, y, z) = (F::from(a), F::from(b), F::from(c));
            let all = [a, b, c];
            same::<F, _>("add", all, env, |e| add::<F>(x, y, e), |e| fast::add::<F>(x, y, e));
            same::<F, _>("sub", all, env, |e| sub::<F>(x, y, e), |e| fast::sub::<F>(x, y, e));
            same::<F, _>("mul", all, env, |e| mul::<F>(x, y, e), |e| fast::mul::<F>(x, y, e));
            same::<F, _>("div", all, env, |e| div::<F>(x, y, e), |e| fast::div::<F>(x, y, e));
            same::<F, _>("sqrt", all, env, |e| sqrt::<F>(x, e), |e| fast::sqrt::<F>(x, e));
            let kind = [Fma::MulAdd, Fma::MulSub, Fma::NegMulAdd, Fma::NegMulSub][i & 3];
            same::<F, _>(
                "fma",
                all,
                env,
                |e| fused_mul_add::<F>(x, y, z, kind, e),
                |e| fast::fused_mul_add::<F>(x, y, z, kind, e),
            );
            same::<F, _>("eq", all, env, |e| eq::<F>(x, y, e), |e| fast::eq::<F>(x, y, e));
            same::<F, _>("lt", all, env, |e| lt::<F>(x, y, e), |e| fast::lt::<F>(x, y, e));
            same::<F, _>("le", all, env, |e| le::<F>(x, y, e), |e| fast::le::<F>(x, y, e));
        }
    }
}

#[test]
fn f32() {
    check::<F32>(F32_, 10_000);
}

#[test]
fn f64() {
    check::<F64>(F64_, 10_000);
}

/// Sums at the edge of what the TwoSum is proved for, and of overflow; products at the edge of exactness and of underflow.
#[test]
fn edges() {
    let env = Env::riscv(Round::NearestEven);
    let fractions =
        [0, 1, 0x8_0000_0000_0000, 0xf_ffff_ffff_ffff, 0xf_ffff_f800_0000, 0x0_0000_0400_0000, 0x0_0000_0800_0000];
    for exp_a in [1u64, 2, 54, 511, 512, 1023, 2040, 2041, 2042, 2043, 2044, 2045, 2046] {
        for exp_b in
            [0u64, 1, 2, 3, 511, 512, 513, 970, 1023, 1988, 1989, 1990, 2040, 2041, 2042, 2043, 2044, 2045, 2046]
        {
            for (fa, fb, sign) in
                fractions.iter().flat_map(|&fa| fractions.iter().flat_map(move |&fb| [(fa, fb, 0), (fa, fb, 1u64)]))
            {
                let (a, b) = (exp_a << 52 | fa, sign << 63 | exp_b << 52 | fb);
                for env in [env, Env { flags: Flags::INEXACT, ..env }] {
                    let all = [a.into(), b.into(), 0];
                    same::<F64, _>("add", all, env, |e| add::<F64>(a, b, e), |e| fast::add::<F64>(a, b, e));
                    same::<F64, _>("sub", all, env, |e| sub::<F64>(b, a, e), |e| fast::sub::<F64>(b, a, e));
                    same::<F64, _>("mul", all, env, |e| mul::<F64>(a, b, e), |e| fast::mul::<F64>(a, b, e));
                    same::<F64, _>("div", all, env, |e| div::<F64>(a, b, e), |e| fast::div::<F64>(a, b, e));
                }
            }
        }
    }
}

#[test]
fn conversions() {
    let mut rng = Rng::new(1);
    for env in environments() {
        for _ in 0..20_000 {
            let (a, b) = (F32_.operand(&mut rng), F64_.operand(&mut rng));
            let (x, mut y) = (a as u32, b as u64);
            if y & 1 != 0 {
                // In the range of single precision.
                y = y & !(0x7ff << 52) | (800 + (y >> 52 & 0x7ff) % 400) << 52;
            }
            let all = [a, y.into(), 0];
            same::<F32, _>("f32_to_f64", all, env, |e| convert::<F32, F64>(x, e), |e| fast::f32_to_f64(x, e));
            same::<F64, _>("f64_to_f32", all, env, |e| convert::<F64, F32>(y, e), |e| fast::f64_to_f32(y, e));
        }
    }
}
