//! What the manuals say and no other library checks: minima, classes, modular conversion, subnormals, NaNs of fused
//! multiply-adds, the partial remainder.

use crate::operands::*;
use core::cmp::Ordering;
use emu_core::float::*;

const ONE: u32 = 0x3f80_0000;
const TWO: u32 = 0x4000_0000;
const INF: u32 = 0x7f80_0000;
const QNAN: u32 = 0x7fc0_1234;
const SNAN: u32 = 0x7fa0_5678;
const NEG: u32 = 0x8000_0000;
const CANONICAL: u32 = 0x7fc0_0000;
const INDEFINITE: u32 = 0xffc0_0000;
const SUBNORMAL: u32 = 0x0040_0000;
const SMALLEST_NORMAL: u32 = 0x0080_0000;

fn riscv() -> Env {
    Env::riscv(Round::NearestEven)
}

fn sse() -> Env {
    Env::x86_sse(0x1f80)
}

fn arm() -> Env {
    Env::arm(0)
}

/// Runs an operation and returns its result and flags.
fn with<T>(mut env: Env, f: impl Fn(&mut Env) -> T) -> (T, Flags) {
    let result = f(&mut env);
    (result, env.flags)
}

#[test]
fn min_and_max() {
    use MinMax::{Number2008, Number2019, Propagate, Second};
    let none = Flags::NONE;
    let nv = Flags::INVALID;
    #[rustfmt::skip]
    let table: &[(Env, MinMax, u32, u32, u32, u32, Flags)] = &[
        // environment, flavour, a, b, min, max, flags
        (riscv(), Number2019, ONE, TWO, ONE, TWO, none),
        (riscv(), Number2019, ONE | NEG, TWO, ONE | NEG, TWO, none),
        (riscv(), Number2019, ONE | NEG, TWO | NEG, TWO | NEG, ONE | NEG, none),
        (riscv(), Number2019, 0, NEG, NEG, 0, none),
        (riscv(), Number2019, NEG, 0, NEG, 0, none),
        (riscv(), Number2019, QNAN, ONE, ONE, ONE, none),
        (riscv(), Number2019, ONE, QNAN, ONE, ONE, none),
        (riscv(), Number2019, SNAN, ONE, ONE, ONE, nv),
        (riscv(), Number2019, ONE, SNAN, ONE, ONE, nv),
        (riscv(), Number2019, QNAN, QNAN, CANONICAL, CANONICAL, none),
        (riscv(), Number2019, QNAN, SNAN, CANONICAL, CANONICAL, nv),
        (riscv(), Number2019, INF, ONE, ONE, INF, none),
        (riscv(), Propagate, 0, NEG, NEG, 0, none),
        (riscv(), Propagate, QNAN, ONE, CANONICAL, CANONICAL, none),
        (riscv(), Propagate, ONE, SNAN, CANONICAL, CANONICAL, nv),
        (arm(), Propagate, ONE, QNAN, QNAN, QNAN, none),
        (arm(), Propagate, QNAN, SNAN, SNAN | 0x0040_0000, SNAN | 0x0040_0000, nv),
        (arm(), Propagate, 0, NEG, NEG, 0, none),
        (arm(), Number2008, ONE, QNAN, ONE, ONE, none),
        (arm(), Number2008, ONE, SNAN, SNAN | 0x0040_0000, SNAN | 0x0040_0000, nv),
        (arm(), Number2008, QNAN, QNAN | 1, QNAN, QNAN, none),
        (sse(), Second, ONE, TWO, ONE, TWO, none),
        (sse(), Second, 0, NEG, NEG, NEG, none),
        (sse(), Second, NEG, 0, 0, 0, none),
        (sse(), Second, QNAN, ONE, ONE, ONE, nv),
        (sse(), Second, ONE, SNAN, SNAN, SNAN, nv),
        (sse(), Second, SUBNORMAL, ONE, SUBNORMAL, ONE, Flags::DENORMAL),
        (Env::x86_sse(0x1fc0), Second, SUBNORMAL, NEG, NEG, NEG, none),
        (Env::x86_sse(0x1fc0), Second, ONE | NEG, SUBNORMAL, ONE | NEG, 0, none),
    ];
    for &(env, flavour, a, b, smaller, larger, flags) in table {
        assert_eq!(with(env, |e| min::<F32>(a, b, flavour, e)), (smaller, flags), "min {flavour:?} {a:x} {b:x}");
        assert_eq!(with(env, |e| max::<F32>(a, b, flavour, e)), (larger, flags), "max {flavour:?} {a:x} {b:x}");
    }
}

/// All pairs of f16 in a sample, against the order of their values.
#[test]
fn order_of_f16() {
    let value = |a: u16| f64::from_bits(with(riscv(), |e| convert::<F16, F64>(a, e)).0);
    let mut rng = Rng::new(16);
    for _ in 0..200_000 {
        let a = F16_.operand(&mut rng);
        let b = F16_.near(&mut rng, a) as u16;
        let a = a as u16;
        let (x, y) = (value(a), value(b));
        assert_eq!(with(riscv(), |e| compare_quiet::<F16>(a, b, e)).0, x.partial_cmp(&y), "{a:x} {b:x}");
        if x.partial_cmp(&y) == Some(Ordering::Less) {
            for flavour in [MinMax::Number2019, MinMax::Number2008, MinMax::Propagate, MinMax::Second] {
                for (p, q) in [(a, b), (b, a)] {
                    assert_eq!(with(riscv(), |e| min::<F16>(p, q, flavour, e)), (a, Flags::NONE));
                    assert_eq!(with(riscv(), |e| max::<F16>(p, q, flavour, e)), (b, Flags::NONE));
                }
            }
        }
    }
}

/// The encodings of RISC-V Unprivileged Architecture, table "Format of result of FCLASS instruction".
#[test]
fn classes_of_all_f16() {
    for a in 0..=u16::MAX {
        let expected = match a {
            0xfc00 => 0,
            0x8400..=0xfbff => 1,
            0x8001..=0x83ff => 2,
            0x8000 => 3,
            0x0000 => 4,
            0x0001..=0x03ff => 5,
            0x0400..=0x7bff => 6,
            0x7c00 => 7,
            0x7c01..=0x7dff | 0xfc01..=0xfdff => 8,
            0x7e00..=0x7fff | 0xfe00..=0xffff => 9,
        };
        assert_eq!(classify::<F16>(a).mask(), 1 << expected, "{a:x}");
        assert_eq!(is_nan::<F16>(a), expected >= 8);
        assert_eq!(is_signaling_nan::<F16>(a), expected == 8);
    }
}

#[test]
fn classes_of_f80() {
    let int = 1u128 << 63;
    for (a, class) in [
        (0, Class::PositiveZero),
        (1, Class::PositiveSubnormal),
        (int, Class::PositiveSubnormal), // pseudo-denormal
        (1 << 64 | int, Class::PositiveNormal),
        (1 << 64, Class::Unsupported), // unnormal
        (0x7fff << 64 | int, Class::PositiveInfinity),
        (0x7fff << 64, Class::Unsupported),     // pseudo-infinity
        (0x7fff << 64 | 1, Class::Unsupported), // pseudo-NaN
        (0x7fff << 64 | int | 1, Class::SignalingNan),
        (0xffff << 64 | 3 << 62, Class::QuietNan),
    ] {
        assert_eq!(classify::<F80>(a), class, "{a:x}");
    }
}

/// SDM vol. 1, "Unsupported Double Extended-Precision Floating-Point Encodings and Pseudo-Denormals".
#[test]
fn unsupported_and_pseudo_denormal_f80() {
    let env = Env::x87(0x37f);
    let one = 0x3fff << 64 | 1u128 << 63;
    let indefinite = 0xffff << 64 | 3u128 << 62;
    let qnan = 0x7fff << 64 | 3u128 << 62 | 5;
    for unsupported in [1 << 64, 0x3fff << 64, 0x7fff << 64, 0x7fff << 64 | 1] {
        assert_eq!(with(env, |e| add::<F80>(unsupported, one, e)), (indefinite, Flags::INVALID));
        assert_eq!(with(env, |e| add::<F80>(qnan, unsupported, e)), (indefinite, Flags::INVALID));
        assert_eq!(with(env, |e| sqrt::<F80>(unsupported, e)), (indefinite, Flags::INVALID));
        assert_eq!(with(env, |e| to_i64::<F80>(unsupported, Round::Up, e)), (i64::MIN, Flags::INVALID));
        assert_eq!(with(env, |e| convert::<F80, F64>(unsupported, e)), (0xfff8 << 48, Flags::INVALID));
    }
    // A pseudo-denormal has the value of the normal number with exponent 1.
    let (pseudo, normal) = (1u128 << 63, 1u128 << 64 | 1 << 63);
    assert_eq!(with(env, |e| compare::<F80>(pseudo, normal, e)), (Some(Ordering::Equal), Flags::DENORMAL));
    assert_eq!(with(env, |e| mul::<F80>(pseudo, one, e)), (normal, Flags::DENORMAL));
}

/// C1 of the x87's status word tells a magnitude that was rounded up.
#[test]
fn rounded_up_f80() {
    let one = 0x3fff << 64 | 1u128 << 63;
    let three = 0x4000 << 64 | 3u128 << 62;
    let nx = Flags::INEXACT;
    let up = Flags::INEXACT | Flags::ROUNDED_UP;
    let third = 0x3ffd << 64 | 0xaaaa_aaaa_aaaa_aaaau128;
    // Round to nearest (0.101010...|10 rounds up), down, up, toward zero.
    for (control, result, flags) in
        [(0x37f, third + 1, up), (0x77f, third, nx), (0xb7f, third + 1, up), (0xf7f, third, nx)]
    {
        assert_eq!(with(Env::x87(control), |e| div::<F80>(one, three, e)), (result, flags), "{control:x}");
    }
    assert_eq!(with(Env::x87(0x37f), |e| div::<F80>(three, one, e)), (three, Flags::NONE));
    let largest = 0x7ffe << 64 | u128::from(u64::MAX);
    let (result, flags) = with(Env::x87(0x37f), |e| add::<F80>(largest, largest, e));
    assert_eq!((result, flags), (0x7fff << 64 | 1 << 63, up | Flags::OVERFLOW));
}

#[test]
fn fcvtmod() {
    let mut rng = Rng::new(64);
    let mut low_parts = 0;
    for i in 0..200_000 {
        let mut a = F64_.operand(&mut rng) as u64;
        if i & 1 != 0 {
            // Where the result depends on the modulus.
            a = a & !(0x7ff << 52) | (1023 + (a >> 52) % 90) << 52;
        }
        let (result, flags) = with(riscv(), |e| fcvtmod_w_d(a, e));
        let (saturated, expected_flags) = with(riscv(), |e| to_i32::<F64>(a, Round::TowardZero, e));
        assert_eq!(flags, expected_flags, "{a:x}");
        let exp = (a >> 52 & 0x7ff) as i32 - 1075;
        let sig = a & ((1 << 52) - 1) | 1 << 52;
        // sig * 2^exp modulo 2^32
        let magnitude = match exp {
            972 => 0, // infinity or NaN
            32.. => 0,
            0..=31 => (sig as u32).wrapping_mul(1 << exp),
            -52..=-1 => (sig >> -exp) as u32,
            _ => 0,
        };
        let expected = if a >> 63 != 0 { magnitude.wrapping_neg() } else { magnitude } as i32;
        assert_eq!(result, expected, "{a:x}");
        if flags == Flags::INVALID {
            low_parts += usize::from(result != 0);
        } else {
            assert_eq!(result, saturated, "{a:x}");
        }
    }
    assert!(low_parts > 10_000, "{low_parts}");
}

#[test]
fn nans_of_fused_multiply_add() {
    let quiet = |nan: u32| nan | 0x0040_0000;
    let none = Flags::NONE;
    let nv = Flags::INVALID;
    let third = QNAN | 0x10_0000;
    for (env, a, b, c, result, flags) in [
        (riscv(), INF, 0, QNAN, CANONICAL, nv),
        (riscv(), 0, INF, ONE, CANONICAL, nv),
        (riscv(), ONE, QNAN, ONE, CANONICAL, none),
        (riscv(), ONE, ONE, SNAN, CANONICAL, nv),
        (sse(), INF, 0, QNAN, QNAN, none),
        (sse(), 0, INF, SNAN, quiet(SNAN), nv),
        (sse(), 0, INF, ONE, INDEFINITE, nv),
        (sse(), ONE, QNAN, SNAN, QNAN, nv),
        (sse(), QNAN, third, ONE, QNAN, none),
        (sse(), ONE, third, QNAN, third, none),
        (arm(), INF, 0, QNAN, CANONICAL, nv),
        (arm(), INF, 0, SNAN, quiet(SNAN), nv),
        (arm(), QNAN, ONE, third, third, none),
        (arm(), QNAN, third, ONE, QNAN, none),
        (arm(), QNAN, SNAN, third, quiet(SNAN), nv),
        (arm(), SNAN, QNAN, SNAN | 1, quiet(SNAN | 1), nv),
        (Env::arm(1 << 25), SNAN, QNAN, ONE, CANONICAL, nv),
    ] {
        for kind in [Fma::MulAdd, Fma::MulSub, Fma::NegMulAdd, Fma::NegMulSub] {
            assert_eq!(
                with(env, |e| fused_mul_add::<F32>(a, b, c, kind, e)),
                (result, flags),
                "{kind:?} {a:x} {b:x} {c:x}"
            );
        }
    }
}

/// A NaN keeps its sign and the high bits of its payload in a conversion.
#[test]
fn nans_converted() {
    for (env, a, result, flags) in [
        (sse(), 0xfff8_0000_e000_0001, 0xffc0_0007, Flags::NONE),
        (sse(), 0x7ff4_0000_2000_0000, 0x7fe0_0001, Flags::INVALID),
        (arm(), 0x7ff0_0000_0000_0001, 0x7fc0_0000, Flags::INVALID),
        (riscv(), 0xfff8_0000_e000_0001, 0x7fc0_0000, Flags::NONE),
    ] {
        assert_eq!(with(env, |e| convert::<F64, F32>(a, e)), (result, flags), "{a:x}");
    }
    assert_eq!(with(sse(), |e| convert::<F32, Bf16>(0x7fbd_ca8c, e)), (0x7ffd, Flags::INVALID));
    assert_eq!(with(sse(), |e| convert::<Bf16, F32>(0xfffc, e)), (0xfffc_0000, Flags::NONE));
    assert_eq!(with(sse(), |e| convert::<F32, F64>(0xffc0_0007, e)), (0xfff8_0000_e000_0000, Flags::NONE));
}

#[test]
fn subnormal_operands() {
    let (daz, fz) = (Env::x86_sse(0x1fc0), Env::arm(1 << 24));
    let none = Flags::NONE;
    let de = Flags::DENORMAL;
    type Op = fn(&mut Env) -> u32;
    #[rustfmt::skip]
    let table: [(Env, Op, u32, Flags); 22] = [
        (riscv(), |e| add::<F32>(SUBNORMAL, ONE, e), ONE, Flags::INEXACT),
        (sse(), |e| add::<F32>(SUBNORMAL, ONE, e), ONE, Flags::INEXACT | de),
        (daz, |e| add::<F32>(SUBNORMAL, ONE, e), ONE, none),
        (fz, |e| add::<F32>(SUBNORMAL, ONE, e), ONE, de),
        (sse(), |e| add::<F32>(SUBNORMAL, QNAN, e), QNAN, none),
        (fz, |e| add::<F32>(SUBNORMAL, QNAN, e), QNAN, de),
        (sse(), |e| add::<F32>(SUBNORMAL, INF, e), INF, de),
        (daz, |e| mul::<F32>(SUBNORMAL | NEG, INF, e), INDEFINITE, Flags::INVALID),
        (sse(), |e| mul::<F32>(SUBNORMAL | NEG, INF, e), INF | NEG, de),
        (sse(), |e| div::<F32>(SUBNORMAL, 0, e), INF, Flags::DIVIDE_BY_ZERO),
        (daz, |e| div::<F32>(ONE, SUBNORMAL | NEG, e), INF | NEG, Flags::DIVIDE_BY_ZERO),
        (sse(), |e| sqrt::<F32>(SUBNORMAL | NEG, e), INDEFINITE, Flags::INVALID),
        (daz, |e| sqrt::<F32>(SUBNORMAL | NEG, e), NEG, none),
        (sse(), |e| sqrt::<F32>(2, e), 0x1a80_0000, de),
        (sse(), |e| fused_mul_add::<F32>(ONE, ONE, SUBNORMAL, Fma::MulAdd, e), ONE, Flags::INEXACT | de),
        (daz, |e| fused_mul_add::<F32>(ONE, SUBNORMAL, 0, Fma::MulAdd, e), 0, none),
        (sse(), |e| u32::from(lt::<F32>(0, SUBNORMAL, e)), 1, de),
        (daz, |e| u32::from(eq::<F32>(NEG, SUBNORMAL, e)), 1, none),
        (sse(), |e| to_i32::<F32>(SUBNORMAL, Round::Up, e) as u32, 1, Flags::INEXACT),
        (daz, |e| to_i32::<F32>(SUBNORMAL, Round::Up, e) as u32, 0, none),
        (sse(), |e| (convert::<F32, F64>(SUBNORMAL, e) >> 32) as u32, 0x3800_0000, de),
        (fz, |e| (convert::<F32, F64>(SUBNORMAL | NEG, e) >> 32) as u32, NEG, de),
    ];
    for (i, (env, op, result, flags)) in table.into_iter().enumerate() {
        assert_eq!(with(env, op), (result, flags), "row {i}");
    }
}

#[test]
fn tiny_results() {
    let (ftz, fz) = (Env::x86_sse(0x9f80), Env::arm(1 << 24));
    let (uf, nx) = (Flags::UNDERFLOW, Flags::INEXACT);
    let half = 0x3f00_0000;
    // FTZ has no effect on an unmasked underflow.
    assert_eq!(Env::x86_sse(0x8780).tiny, Tiny::Subnormal);
    // Exact.
    assert_eq!(with(riscv(), |e| mul::<F32>(SMALLEST_NORMAL, half, e)), (SUBNORMAL, Flags::NONE));
    assert_eq!(with(ftz, |e| mul::<F32>(SMALLEST_NORMAL | NEG, half, e)), (NEG, uf | nx));
    assert_eq!(with(fz, |e| mul::<F32>(SMALLEST_NORMAL | NEG, half, e)), (NEG, uf));
    // Inexact.
    assert_eq!(with(riscv(), |e| mul::<F32>(SMALLEST_NORMAL | 1, half, e)), (SUBNORMAL, uf | nx));
    // 2^-126 * (1 - 2^-24): a tie, rounded to the smallest normal number. With an unbounded exponent it is a number of 24
    // bits, and below 2^-126: tiny either way.
    assert_eq!(with(riscv(), |e| mul::<F32>(0x00ff_ffff, half, e)), (SMALLEST_NORMAL, uf | nx));
    assert_eq!(with(arm(), |e| mul::<F32>(0x00ff_ffff, half, e)), (SMALLEST_NORMAL, uf | nx));
    // 2^-126 - 2^-177: below the smallest normal number, but rounded to 24 bits it is that. Tiny before rounding only.
    // The product is 2^-100 * -2^-77.
    let small = (127 - 100) << 23;
    let smaller = (127 - 77) << 23 | NEG;
    let f = |e: &mut Env| fused_mul_add::<F32>(small, smaller, SMALLEST_NORMAL, Fma::MulAdd, e);
    assert_eq!(with(riscv(), f), (SMALLEST_NORMAL, nx));
    assert_eq!(with(ftz, f), (SMALLEST_NORMAL, nx));
    assert_eq!(with(arm(), f), (SMALLEST_NORMAL, uf | nx));
    assert_eq!(with(fz, f), (0, uf));
}

#[test]
fn flags_of_the_manuals() {
    let all = [
        // ours, fflags, MXCSR, FPSR
        (Flags::INEXACT, 0x01, 0x20, 0x10),
        (Flags::UNDERFLOW, 0x02, 0x10, 0x08),
        (Flags::OVERFLOW, 0x04, 0x08, 0x04),
        (Flags::DIVIDE_BY_ZERO, 0x08, 0x04, 0x02),
        (Flags::INVALID, 0x10, 0x01, 0x01),
        (Flags::DENORMAL, 0x00, 0x02, 0x80),
        (Flags::ROUNDED_UP, 0x00, 0x00, 0x00),
    ];
    for (flag, fflags, mxcsr, fpsr) in all {
        assert_eq!((flag.to_riscv(), flag.to_x86(), flag.to_arm()), (fflags, mxcsr, fpsr), "{flag:?}");
    }
    assert_eq!(Flags::from_riscv(0xff).0, 0x1f);
    let none = None;
    let modes = [
        Some(Round::NearestEven),
        Some(Round::TowardZero),
        Some(Round::Down),
        Some(Round::Up),
        Some(Round::NearestMaxMagnitude),
        none,
        none,
        none,
    ];
    for (rm, mode) in modes.into_iter().enumerate() {
        assert_eq!(Round::from_riscv(rm as u8), mode);
    }
    assert_eq!([0, 1, 2, 3].map(Round::from_x86), [Round::NearestEven, Round::Down, Round::Up, Round::TowardZero]);
    assert_eq!([0, 1, 2, 3].map(Round::from_arm), [Round::NearestEven, Round::Up, Round::Down, Round::TowardZero]);
}

/// The partial remainder against exact integers.
#[test]
fn partial_remainder() {
    let env = Env { denormals: Denormals::Use, ..Env::x87(0x37f) };
    // A finite nonzero number is sig * 2^exp.
    let parts = |a: u128| ((a >> 64 & 0x7fff).max(1) as i32 - 16446, a & u128::from(u64::MAX), a >> 79 != 0);
    let mut rng = Rng::new(80);
    let (mut finished, mut unfinished, mut adjusted) = (0, 0, 0);
    for _ in 0..100_000 {
        let mut a = F80_.operand(&mut rng);
        let b = F80_.near(&mut rng, a);
        if rng.next() & 3 == 0 {
            a ^= u128::from(rng.next() & 63) << 64; // a distance below 64
            if a >> 64 & 0x7fff != 0 {
                a |= 1 << 63;
            }
        }
        let ((ea, sa, sign), (eb, sb, _)) = (parts(a), parts(b));
        let infinite = |x: u128| x >> 64 & 0x7fff == 0x7fff;
        if infinite(a)
            || infinite(b)
            || sa == 0
            || sb == 0
            || (ea < -16444 && sa >> 63 != 0)
            || (eb < -16444 && sb >> 63 != 0)
        {
            continue;
        }
        let log = |e: i32, s: u128| e + 127 - s.leading_zeros() as i32;
        let distance = log(ea, sa) - log(eb, sb);
        let same_value = |r: u128, magnitude: u128, exp: i32, negative: bool, what: &str| {
            let (er, sr, sr_sign) = parts(r);
            if magnitude == 0 {
                assert_eq!(r, u128::from(sign) << 79, "{what} {a:x} {b:x}");
                return;
            }
            let zeros = (sr.trailing_zeros() as i32, magnitude.trailing_zeros() as i32);
            assert_eq!((sr >> zeros.0, er + zeros.0), (magnitude >> zeros.1, exp + zeros.1), "{what} {a:x} {b:x}");
            assert_eq!(sr_sign, negative, "{what} {a:x} {b:x}");
        };
        if distance >= 64 {
            unfinished += 1;
            let by = distance & 31 | 32;
            let (p, flags) = with(env, |e| x87::fprem(a, b, e));
            assert_eq!((p.complete, p.quotient, flags), (false, 0, Flags::NONE));
            assert_eq!(with(env, |e| x87::fprem1(a, b, e)).0, p);
            // Normalised as the manual has it: a is reduced by a multiple of b * 2^(distance - by).
            let (na, nb) = (sa << (sa.leading_zeros() - 64), sb << (sb.leading_zeros() - 64));
            let rest = (na << by) % nb;
            same_value(p.value, rest, log(ea, sa) - 63 - by, sign, "partial");
        } else if distance < -1 {
            for p in [with(env, |e| x87::fprem(a, b, e)), with(env, |e| x87::fprem1(a, b, e))] {
                assert_eq!(p, (x87::PartialRemainder { value: a, quotient: 0, complete: true }, Flags::NONE));
            }
        } else {
            finished += 1;
            // Both in units of the smaller exponent, normalised, so that they fit: 64 bits shifted by 63 at most.
            let (na, nb) = (sa << (sa.leading_zeros() - 64), sb << (sb.leading_zeros() - 64));
            let unit = log(eb, sb).min(log(ea, sa)) - 63;
            let (na, nb) = (na << distance.max(0), nb << (-distance).max(0));
            let (q, r) = (na / nb, na % nb);
            let (p, flags) = with(env, |e| x87::fprem(a, b, e));
            assert_eq!((p.complete, u128::from(p.quotient), flags), (true, q & 7, Flags::NONE), "{a:x} {b:x}");
            same_value(p.value, r, unit, sign, "fprem");
            let up = 2 * r > nb || (2 * r == nb && q & 1 != 0);
            adjusted += usize::from(up);
            let (q, r) = if up { (q + 1, nb - r) } else { (q, r) };
            let (p, flags) = with(env, |e| x87::fprem1(a, b, e));
            assert_eq!((p.complete, u128::from(p.quotient), flags), (true, q & 7, Flags::NONE), "{a:x} {b:x}");
            same_value(p.value, r, unit, sign ^ up, "fprem1");
            assert_eq!(with(env, |e| rem::<F80>(a, b, e)).0, p.value);
        }
    }
    assert!(finished > 10_000 && unfinished > 10_000 && adjusted > 3_000, "{finished} {unfinished} {adjusted}");
}
