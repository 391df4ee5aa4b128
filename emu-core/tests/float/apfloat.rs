//! The soft float against LLVM's APFloat, as ported to Rust: numbers, exceptions, five rounding modes.
//!
//! APFloat differs from IEEE 754 in two flags, in these ways:
//! * a result is tiny where, once rounded to the format, it is subnormal. IEEE 754-2019, 7.5, has two ways of detecting
//!   tininess and this is neither: of the results that round up to the smallest normal number, one of the two calls all tiny,
//!   the other some. So UNDERFLOW is not compared where the result is the smallest normal number;
//! * an overflow that gives the largest finite number is inexact only. IEEE 754-2019, 7.4, has OVERFLOW signaled whatever
//!   the rounding mode, so it is expected here.
//!
//! NaN operands are left to `berkeley.rs` and `rules.rs`, for APFloat has yet another rule for them.

use crate::operands::*;
use emu_core::float::*;
use rustc_apfloat::ieee::{BFloat, Double, Half, Quad, Single, X87DoubleExtended};
use rustc_apfloat::{Float, FloatConvert, Round as ApRound, Status, StatusAnd};

const ROUNDS: [(Round, ApRound); 5] = [
    (Round::NearestEven, ApRound::NearestTiesToEven),
    (Round::TowardZero, ApRound::TowardZero),
    (Round::Down, ApRound::TowardNegative),
    (Round::Up, ApRound::TowardPositive),
    (Round::NearestMaxMagnitude, ApRound::NearestTiesToAway),
];

fn flags(status: Status) -> Flags {
    let mut flags = Flags::NONE;
    for (theirs, ours) in [
        (Status::INVALID_OP, Flags::INVALID),
        (Status::DIV_BY_ZERO, Flags::DIVIDE_BY_ZERO),
        (Status::OVERFLOW, Flags::OVERFLOW),
        (Status::UNDERFLOW, Flags::UNDERFLOW),
        (Status::INEXACT, Flags::INEXACT),
    ] {
        if status.contains(theirs) {
            flags |= ours;
        }
    }
    flags
}

/// Compares a result and its flags with APFloat's, whose flags are first corrected as said above.
fn compare_result<A: Float>(what: &str, shape: Shape, env: Env, ours: u128, theirs: StatusAnd<A>) {
    let (value, mut expected, mut got) = (theirs.value, flags(theirs.status), env.flags);
    got.0 &= !Flags::ROUNDED_UP.0;
    if value.is_nan() {
        assert!(shape.is_nan(ours), "{what}: {ours:x}, not a NaN");
    } else {
        assert_eq!(ours, value.to_bits(), "{what}: {ours:x}, not {:x}", value.to_bits());
        if value.is_smallest_normalized() {
            expected.0 &= !Flags::UNDERFLOW.0;
            got.0 &= !Flags::UNDERFLOW.0;
        }
        if value.is_largest() && got.contains(Flags::OVERFLOW | Flags::INEXACT) {
            // Either exact and no overflow, or this.
            expected |= Flags::OVERFLOW;
        }
    }
    assert_eq!(got, expected, "{what} = {ours:x}");
}

fn operations<F: Raw, A: Float>(shape: Shape, cases: usize) -> usize {
    let mut rng = Rng::new(u64::from(F::PRECISION));
    let mut compared = 0;
    for (round, ap_round) in ROUNDS {
        for case in 0..cases {
            let a = shape.operand(&mut rng);
            let b = shape.near(&mut rng, a);
            let c = shape.addend(&mut rng, a, b);
            if [a, b, c].iter().any(|&x| shape.is_nan(x)) {
                continue;
            }
            compared += 1;
            let (x, y, z) = (A::from_bits(a), A::from_bits(b), A::from_bits(c));
            let (u, v, w) = (F::from(a), F::from(b), F::from(c));
            let check = |op: &str, ours: &dyn Fn(&mut Env) -> F::Bits, theirs: StatusAnd<A>| {
                let mut env = Env::riscv(round);
                let ours = F::to(ours(&mut env));
                let what = format_args!("{} {op} {round:?} {a:x} {b:x} {c:x}", shape.name).to_string();
                compare_result(&what, shape, env, ours, theirs);
            };
            check("add", &|e| add::<F>(u, v, e), x.add_r(y, ap_round));
            check("sub", &|e| sub::<F>(u, v, e), x.sub_r(y, ap_round));
            check("mul", &|e| mul::<F>(u, v, e), x.mul_r(y, ap_round));
            check("div", &|e| div::<F>(u, v, e), x.div_r(y, ap_round));
            let (kind, p, q) =
                [(Fma::MulAdd, x, z), (Fma::MulSub, x, -z), (Fma::NegMulAdd, -x, z), (Fma::NegMulSub, -x, -z)]
                    [case & 3];
            check("fma", &|e| fused_mul_add::<F>(u, v, w, kind, e), p.mul_add_r(y, q, ap_round));
            if F::EXP_BITS < 15 && case % 8 == 0 {
                check("rem", &|e| rem::<F>(u, v, e), x.ieee_rem(y));
            }
            check("rintx", &|e| round_to_integral::<F>(u, round, true, e), x.round_to_integral(ap_round));

            let n = integer(&mut rng);
            let n_signed = i128::from(n as i64);
            check("from_u64", &|e| from_u64::<F>(n, e), A::from_u128_r(n.into(), ap_round));
            check("from_i64", &|e| from_i64::<F>(n as i64, e), A::from_i128_r(n_signed, ap_round));
            check("from_u32", &|e| from_u32::<F>(n as u32, e), A::from_u128_r((n as u32).into(), ap_round));
            check("from_i32", &|e| from_i32::<F>(n as i32, e), A::from_i128_r((n as i32).into(), ap_round));
            to_integers::<F, A>(a, round, ap_round);
        }
    }
    compared
}

/// All conversions to integers, of numbers and NaNs. (APFloat's rule is that of Arm; RISC-V's differs for NaNs.)
fn to_integers<F: Raw, A: Float>(a: u128, round: Round, ap_round: ApRound) {
    let (u, x) = (F::from(a), A::from_bits(a));
    let check = |bits: usize, signed: bool, ours: &dyn Fn(&mut Env) -> i128| {
        let mut exact = false;
        let (status, value) = if signed {
            let r = x.to_i128_r(bits, ap_round, &mut exact);
            (r.status, r.value)
        } else {
            let r = x.to_u128_r(bits, ap_round, &mut exact);
            (r.status, r.value as i128)
        };
        let mut env = Env { integers: IntRule::SaturateNanZero, ..Env::riscv(round) };
        assert_eq!(ours(&mut env), value, "{a:x} to {bits} bits, signed: {signed}, {round:?}");
        assert_eq!(env.flags, flags(status), "{a:x} to {bits} bits, signed: {signed}, {round:?}");

        let mut env = Env::riscv(round);
        let largest = (1i128 << (bits - usize::from(signed))) - 1;
        assert_eq!(ours(&mut env), if x.is_nan() { largest } else { value });
        let mut env = Env { integers: IntRule::Indefinite, ..Env::riscv(round) };
        let indefinite = if signed { -largest - 1 } else { largest };
        assert_eq!(ours(&mut env), if status.contains(Status::INVALID_OP) { indefinite } else { value });
    };
    check(16, true, &|e| to_i16::<F>(u, round, e).into());
    check(16, false, &|e| to_u16::<F>(u, round, e).into());
    check(32, true, &|e| to_i32::<F>(u, round, e).into());
    check(32, false, &|e| to_u32::<F>(u, round, e).into());
    check(64, true, &|e| to_i64::<F>(u, round, e).into());
    check(64, false, &|e| to_u64::<F>(u, round, e).into());
}

fn converts<F: Raw, A, G: Raw, B: Float>(from: Shape, to: Shape, cases: usize)
where
    A: FloatConvert<B> + Float,
{
    let mut rng = Rng::new(u64::from(F::PRECISION * 128 + G::PRECISION));
    for (round, ap_round) in ROUNDS {
        for case in 0..cases {
            // Half precision and brain float: every one.
            let a = if cases == 1 << 16 { case as u128 } else { from.operand(&mut rng) };
            if from.is_nan(a) {
                continue;
            }
            let mut env = Env::riscv(round);
            let ours = G::to(convert::<F, G>(F::from(a), &mut env));
            let mut loses = false;
            let theirs: StatusAnd<B> = A::from_bits(a).convert_r(ap_round, &mut loses);
            let what = format_args!("{} to {} {round:?} {a:x}", from.name, to.name).to_string();
            compare_result(&what, to, env, ours, theirs);
        }
    }
}

const CASES: usize = 10_000;

#[test]
fn bf16() {
    assert!(operations::<Bf16, BFloat>(BF16, CASES) > CASES * 3);
}

#[test]
fn f16() {
    assert!(operations::<F16, Half>(F16_, CASES) > CASES * 3);
}

#[test]
fn f32() {
    assert!(operations::<F32, Single>(F32_, CASES) > CASES * 3);
}

#[test]
fn f64() {
    assert!(operations::<F64, Double>(F64_, CASES) > CASES * 3);
}

#[test]
fn f80() {
    assert!(operations::<F80, X87DoubleExtended>(F80_, CASES) > CASES * 3);
}

#[test]
fn f128() {
    assert!(operations::<F128, Quad>(F128_, CASES) > CASES * 3);
}

#[test]
fn conversions() {
    macro_rules! pairs {
        ($($f:ty, $a:ty, $shape:expr, $cases:expr;)*) => {$(
            converts::<$f, $a, Bf16, BFloat>($shape, BF16, $cases);
            converts::<$f, $a, F16, Half>($shape, F16_, $cases);
            converts::<$f, $a, F32, Single>($shape, F32_, $cases);
            converts::<$f, $a, F64, Double>($shape, F64_, $cases);
            converts::<$f, $a, F80, X87DoubleExtended>($shape, F80_, $cases);
            converts::<$f, $a, F128, Quad>($shape, F128_, $cases);
        )*};
    }
    pairs! {
        Bf16, BFloat, BF16, 1 << 16;
        F16, Half, F16_, 1 << 16;
        F32, Single, F32_, CASES;
        F64, Double, F64_, CASES;
        F80, X87DoubleExtended, F80_, CASES;
        F128, Quad, F128_, CASES;
    }
}

/// All unary operations on all 16-bit numbers.
fn unary<F: Raw, A: Float>(shape: Shape) {
    for a in 0..1u128 << 16 {
        for (round, ap_round) in ROUNDS {
            to_integers::<F, A>(a, round, ap_round);
            if shape.is_nan(a) {
                continue;
            }
            for exact in [false, true] {
                let mut env = Env::riscv(round);
                let ours = F::to(round_to_integral::<F>(F::from(a), round, exact, &mut env));
                let mut theirs = A::from_bits(a).round_to_integral(ap_round);
                if !exact {
                    theirs.status = Status::OK;
                }
                compare_result(&format!("rint {a:x}"), shape, env, ours, theirs);
            }
        }
    }
}

#[test]
fn all_f16() {
    unary::<F16, Half>(F16_);
}

#[test]
fn all_bf16() {
    unary::<Bf16, BFloat>(BF16);
}

/// The square roots of all 16-bit numbers, against the host's: in double precision, forced to odd, then rounded by APFloat.
/// Rounding to odd with at least two bits to spare makes the second rounding exact (Boldo, Melquiond: "Emulation of a FMA and
/// correctly rounded sums: proved algorithms using rounding to odd").
fn roots<F: Raw, A: Float + FloatConvert<Double>>(shape: Shape)
where
    Double: FloatConvert<A>,
{
    for a in 0..1u128 << 16 {
        if shape.is_nan(a) {
            continue;
        }
        let mut loses = false;
        let wide: StatusAnd<Double> = A::from_bits(a).convert(&mut loses);
        let x = f64::from_bits(wide.value.to_bits() as u64);
        for (round, ap_round) in ROUNDS {
            let mut env = Env::riscv(round);
            let ours = F::to(sqrt::<F>(F::from(a), &mut env));
            if x < 0.0 {
                assert!(shape.is_nan(ours));
                assert_eq!(env.flags, Flags::INVALID);
                continue;
            }
            let mut root = x.sqrt();
            let error = root.mul_add(root, -x);
            if root.is_finite() && error != 0.0 {
                let below = if error > 0.0 { root.to_bits() - 1 } else { root.to_bits() };
                root = f64::from_bits(below | 1);
            }
            let theirs: StatusAnd<A> = Double::from_bits(root.to_bits().into()).convert_r(ap_round, &mut loses);
            compare_result(&format!("sqrt {round:?} {a:x}"), shape, env, ours, theirs);
        }
    }
}

#[test]
fn all_square_roots() {
    roots::<F16, Half>(F16_);
    roots::<Bf16, BFloat>(BF16);
}
