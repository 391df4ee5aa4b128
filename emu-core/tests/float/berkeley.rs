//! The soft float against Berkeley SoftFloat 3e: digests of results and flags, which `berkeley.c` wrote to
//! `berkeley.txt` for the operands that are generated here in the same way.
//!
//! Where a digest differs, `FLOAT_CASES=riscv.f32.add cargo test --test float berkeley -- --nocapture` prints every case
//! of it, and so does the C program.
//!
//! Three kinds of cases are left out, for there SoftFloat follows no manual:
//! * SSE, `fma(inf, 0, NaN)`: SoftFloat raises INVALID and returns its default NaN. The SDM (vol. 1,
//!   "Fused-Multiply-ADD (FMA) Numeric Behavior") has the NaN returned and, where it is quiet, no exception.
//! * Arm, `fma` of more than one NaN: SoftFloat prefers the factors to the addend. The Arm ARM (FPProcessNaNs3 as called by
//!   FPMulAdd) prefers the addend.
//! * SSE, a bf16 NaN converted from or to f32: SoftFloat shifts its payload by 56 bits where 57 are right (the fraction has
//!   seven bits), so that 0x7fbdca8c becomes 0x7ffb, not 0x7ffd.
//!
//! All are tested in `rules.rs`.

use crate::operands::*;
use emu_core::float::*;
use std::fmt::Write;

const DIGESTS: &str = include_str!("berkeley.txt");

const OPS: [&str; 29] = [
    "add",
    "sub",
    "mul",
    "div",
    "sqrt",
    "rem",
    "fma",
    "eq",
    "eq_signaling",
    "lt",
    "le",
    "ltq",
    "leq",
    "to_i32",
    "to_u32",
    "to_i64",
    "to_u64",
    "rint",
    "rintx",
    "from_i32",
    "from_u32",
    "from_i64",
    "from_u64",
    "to_bf16",
    "to_f16",
    "to_f32",
    "to_f64",
    "to_f80",
    "to_f128",
];

/// All four kinds of fused multiply-add are tested against the one that SoftFloat has, by signs flipped beforehand. With
/// canonical NaNs only, for a NaN keeps its sign.
fn fma<F: Raw>(a: u128, b: u128, c: u128, kind: u64, env: &mut Env) -> u128 {
    let sign = 1 << (F::FRAC_BITS + F::EXP_BITS);
    let (kind, a, c) = match (env.nan, kind & 3) {
        (NanRule::Canonical, 1) => (Fma::MulSub, a, c ^ sign),
        (NanRule::Canonical, 2) => (Fma::NegMulAdd, a ^ sign, c),
        (NanRule::Canonical, 3) => (Fma::NegMulSub, a ^ sign, c ^ sign),
        _ => (Fma::MulAdd, a, c),
    };
    F::to(fused_mul_add::<F>(F::from(a), F::from(b), F::from(c), kind, env))
}

fn run<F: Raw>(op: &str, [a, b, c]: [u128; 3], n: u64, env: &mut Env) -> u128 {
    let (x, y, round) = (F::from(a), F::from(b), env.round);
    match op {
        "add" => F::to(add::<F>(x, y, env)),
        "sub" => F::to(sub::<F>(x, y, env)),
        "mul" => F::to(mul::<F>(x, y, env)),
        "div" => F::to(div::<F>(x, y, env)),
        "sqrt" => F::to(sqrt::<F>(x, env)),
        "rem" => F::to(rem::<F>(x, y, env)),
        "fma" => fma::<F>(a, b, c, n, env),
        "eq" => eq::<F>(x, y, env).into(),
        "eq_signaling" => eq_signaling::<F>(x, y, env).into(),
        "lt" => lt::<F>(x, y, env).into(),
        "le" => le::<F>(x, y, env).into(),
        "ltq" => ltq::<F>(x, y, env).into(),
        "leq" => leq::<F>(x, y, env).into(),
        "to_i32" => u128::from(to_i32::<F>(x, round, env) as u64),
        "to_u32" => to_u32::<F>(x, round, env).into(),
        "to_i64" => u128::from(to_i64::<F>(x, round, env) as u64),
        "to_u64" => to_u64::<F>(x, round, env).into(),
        "rint" => F::to(round_to_integral::<F>(x, round, false, env)),
        "rintx" => F::to(round_to_integral::<F>(x, round, true, env)),
        "from_i32" => F::to(from_i32::<F>(n as i32, env)),
        "from_u32" => F::to(from_u32::<F>(n as u32, env)),
        "from_i64" => F::to(from_i64::<F>(n as i64, env)),
        "from_u64" => F::to(from_u64::<F>(n, env)),
        "to_bf16" => Bf16::to(convert::<F, Bf16>(x, env)),
        "to_f16" => F16::to(convert::<F, F16>(x, env)),
        "to_f32" => F32::to(convert::<F, F32>(x, env)),
        "to_f64" => F64::to(convert::<F, F64>(x, env)),
        "to_f80" => convert::<F, F80>(x, env),
        "to_f128" => convert::<F, F128>(x, env),
        _ => panic!("{op}"),
    }
}

/// Checks all digests of a rule and format; returns how many cases that were.
fn check<F: Raw>(rule: &str, shape: Shape, base: Env) -> usize {
    let wanted_cases = std::env::var("FLOAT_CASES").unwrap_or_default();
    let (mut total, mut wrong) = (0, String::new());
    for line in DIGESTS.lines() {
        let (name, digest) = line.split_once(' ').unwrap();
        let mut parts = name.split('.');
        if parts.next() != Some(rule) || parts.next() != Some(shape.name) {
            continue;
        }
        let op = parts.next().unwrap();
        assert!(OPS.contains(&op), "{op}");
        let mut rng = Rng::new(name.bytes().fold(0, |h: u64, b| h.wrapping_mul(31).wrapping_add(u64::from(b))));
        let cases = match (op, shape.exp_bits, rule) {
            ("rem", 15, _) => 300,
            (_, _, "riscv") => 10000,
            _ => 3000,
        };
        let mut h = 0xcbf2_9ce4_8422_2325u64;
        for (m, round) in ROUNDS.into_iter().enumerate() {
            for i in 0..cases {
                let a = shape.operand(&mut rng);
                let b = shape.near(&mut rng, a);
                let c = shape.addend(&mut rng, a, b);
                let n = integer(&mut rng);
                let excluded = match (rule, op) {
                    ("sse", _) if op == "to_bf16" || shape.name == "bf16" => shape.is_nan(a),
                    ("sse", "fma") => shape.is_inf_times_zero(a, b) && shape.is_nan(c),
                    ("arm" | "arm-dn", "fma") => [a, b, c].iter().filter(|&&x| shape.is_nan(x)).count() > 1,
                    _ => false,
                };
                if excluded {
                    continue;
                }
                let mut env = Env { round, precision: PRECISIONS[i % 3], ..base };
                let r = run::<F>(op, [a, b, c], n, &mut env);
                let flags = env.flags.0 & !Flags::ROUNDED_UP.0;
                for word in [r as u64, (r >> 64) as u64, u64::from(flags)] {
                    h = (h ^ word).wrapping_mul(0x100_0000_01b3);
                    h ^= h >> 29;
                }
                if wanted_cases == name {
                    println!("{m} {} {a:032x} {b:032x} {c:032x} {n:016x} => {r:032x} {flags:02x}", i % 3);
                }
                total += 1;
            }
        }
        if format!("{h:016x}") != digest {
            writeln!(wrong, "{name}").unwrap();
        }
    }
    assert!(wrong.is_empty(), "these differ:\n{wrong}");
    total
}

fn arm(default_nan: bool) -> Env {
    Env::arm(u64::from(default_nan) << 25)
}

/// As [`Env::x87`] and [`Env::x86_sse`], except that SoftFloat knows no DENORMAL flag.
fn x86(nan: NanRule) -> Env {
    Env { nan, denormals: Denormals::Use, ..Env::x86_sse(0) }
}

#[test]
fn riscv_bf16() {
    assert_eq!(check::<Bf16>("riscv", BF16, Env::riscv(Round::NearestEven)), 60_000);
}

#[test]
fn riscv_f16() {
    assert_eq!(check::<F16>("riscv", F16_, Env::riscv(Round::NearestEven)), 26 * 60_000);
}

#[test]
fn riscv_f32() {
    assert_eq!(check::<F32>("riscv", F32_, Env::riscv(Round::NearestEven)), 27 * 60_000);
}

#[test]
fn riscv_f64() {
    assert_eq!(check::<F64>("riscv", F64_, Env::riscv(Round::NearestEven)), 26 * 60_000);
}

#[test]
fn riscv_f128() {
    assert_eq!(check::<F128>("riscv", F128_, Env::riscv(Round::NearestEven)), 25 * 60_000 + 1_800);
}

#[test]
fn sse() {
    let total = check::<F16>("sse", F16_, x86(NanRule::X86Sse))
        + check::<F32>("sse", F32_, x86(NanRule::X86Sse))
        + check::<F64>("sse", F64_, x86(NanRule::X86Sse))
        + check::<Bf16>("sse", BF16, x86(NanRule::X86Sse));
    assert!(total > 76 * 18_000, "{total}");
}

#[test]
fn x87() {
    let total = check::<F80>("x87", F80_, x86(NanRule::X87))
        + check::<F16>("x87", F16_, x86(NanRule::X87))
        + check::<F32>("x87", F32_, x86(NanRule::X87))
        + check::<F64>("x87", F64_, x86(NanRule::X87))
        + check::<F128>("x87", F128_, x86(NanRule::X87));
    assert!(total > 29 * 18_000, "{total}");
}

#[test]
fn arm_propagating() {
    let total = check::<F16>("arm", F16_, arm(false))
        + check::<F32>("arm", F32_, arm(false))
        + check::<F64>("arm", F64_, arm(false))
        + check::<F128>("arm", F128_, arm(false));
    assert!(total > 96 * 18_000, "{total}");
}

#[test]
fn arm_default_nan() {
    let total = check::<F16>("arm-dn", F16_, arm(true))
        + check::<F32>("arm-dn", F32_, arm(true))
        + check::<F64>("arm-dn", F64_, arm(true))
        + check::<F128>("arm-dn", F128_, arm(true));
    assert!(total > 96 * 18_000, "{total}");
}
