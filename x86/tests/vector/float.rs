use crate::host::{In, Out, Random, UnmaskedFault};
use emu_core::float::{F32, F64};
use x86::vector::approximate::*;
use x86::vector::compare::*;
use x86::vector::convert::*;
use x86::vector::float::{self, *};
use x86::vector::{Mxcsr, SimdException, Status, V, Width};

/// How operands are made up.
#[derive(Clone, Copy, PartialEq)]
enum Of {
    Half,
    Single,
    Double,
    Int,
}

/// A number of `width` bits of which `fraction` are the fraction: random, or at a boundary.
fn number(random: &mut Random, width: u32, fraction: u32) -> u64 {
    let one = 1u64 << fraction;
    let exp_max = (1u64 << (width - 1 - fraction)) - 1;
    let bias = exp_max >> 1;
    let sign = random.below(2) << (width - 1);
    let significand = match random.below(6) {
        0 => 0,
        1 => random.below(4),
        2 => one - 1 - random.below(4),
        3 => one >> random.below(u64::from(fraction)),
        4 => random.word() & (one - 1) & !((one >> random.below(u64::from(fraction))) - 1),
        _ => random.word() & (one - 1),
    };
    let exp = match random.below(10) {
        0 => 0,
        1 => 1 + random.below(3),
        2 => exp_max - random.below(3),
        3 => exp_max,
        4 => bias / 2 + random.below(4),
        5 => bias + bias / 2 + random.below(4),
        6 => random.below(exp_max + 1),
        7 => bias + random.below(66).min(bias),
        _ => bias + random.below(5) - 2,
    };
    sign | exp << fraction | significand
}

fn numbers(random: &mut Random, of: Of) -> V {
    match of {
        Of::Half => V::build(|_| number(random, 16, 10) as u16),
        Of::Single => V::build(|_| number(random, 32, 23) as u32),
        Of::Double => V::build(|_| number(random, 64, 52)),
        Of::Int => random.integers(),
    }
}

/// MXCSR with any rounding mode, DAZ, FTZ and flags; all exceptions masked, or some not.
fn mxcsr(random: &mut Random, masked: bool) -> u64 {
    let flags = if random.below(2) == 0 { 0 } else { random.below(0x40) };
    let control = random.word() & 0xe040;
    let control = if random.below(2) == 0 { control & 0x6000 } else { control };
    let masks = if masked { 0x1f80 } else { random.word() & 0x1f80 };
    flags | control | masks
}

/// Numbers near 1, and zeros: what most operands are.
fn tame_numbers(random: &mut Random, of: Of) -> V {
    match of {
        Of::Single => V::build(|_| match random.below(12) {
            0 => (random.below(2) << 31) as u32,
            _ => (random.below(2) << 31 | (124 + random.below(6)) << 23 | random.word() >> 41) as u32,
        }),
        _ => V::build(|_| match random.below(12) {
            0 => random.below(2) << 63,
            _ => random.below(2) << 63 | (1020 + random.below(6)) << 52 | random.word() >> 12,
        }),
    }
}

fn input(random: &mut Random, of: Of, masked: bool) -> In {
    if masked && matches!(of, Of::Single | Of::Double) && random.below(4) == 0 {
        let a = tame_numbers(random, of);
        let b = if random.below(8) == 0 { a } else { tame_numbers(random, of) };
        let d = tame_numbers(random, of);
        return In { d, a, b, c: d, rax: 0, rdx: 0, mxcsr: 0x1fa0 | random.word() & 0x8040 };
    }
    let a = numbers(random, of);
    // Sometimes the same, or near: so differences cancel, and comparisons find equality.
    let b = match random.below(8) {
        0 => a,
        1 if of == Of::Double => a.map(|x: u64| x ^ 1),
        1 => a.map(|x: u32| x ^ 0x8000_0001),
        _ => numbers(random, of),
    };
    let (d, c) = (numbers(random, of), numbers(random, of));
    In { d, a, b, c, rax: random.word() >> random.below(64), rdx: 0, mxcsr: mxcsr(random, masked) }
}

/// Tries an instruction with all exceptions masked, and then with some that are not.
fn compare(insn: &str, bits: u32, of: Of, cases: u32, host: fn(&In) -> Out, f: &dyn Fn(&In, &mut Mxcsr) -> Result) {
    let mut random = Random::new(insn);
    let mask = |v: V| V::build(|i| if 64 * (i as u32) < bits { v.get::<u64>(i) } else { 0 });
    for _ in 0..cases {
        let x = input(&mut random, of, true);
        let mut mxcsr = Mxcsr(x.mxcsr as u32);
        let ours = f(&x, &mut mxcsr).map(mask);
        let out = host(&x);
        let theirs = (Ok(mask(out.v)), out.mxcsr as u32);
        assert_eq!((ours, mxcsr.0), theirs, "{insn}: {x:x?}: ours {ours:x?} {:x}, theirs {theirs:x?}", mxcsr.0);
    }
    for _ in 0..cases / 20 {
        let x = input(&mut random, of, false);
        let mut mxcsr = Mxcsr(x.mxcsr as u32);
        let ours = f(&x, &mut mxcsr).map(mask);
        let theirs = match UnmaskedFault::of(host, &x) {
            Ok(out) => (Ok(mask(out.v)), out.mxcsr as u32),
            Err(at_fault) => (Err(SimdException), at_fault),
        };
        assert_eq!((ours, mxcsr.0), theirs, "{insn}: {x:x?}: ours {ours:x?} {:x}, theirs {theirs:x?}", mxcsr.0);
    }
}

macro_rules! check {
    ($($of:ident $bits:literal $insn:expr, $f:expr;)*) => { $(
        compare($insn, $bits, Of::$of, 20_000, host!($insn), &$f);
    )* };
}

/// `insn` in its four forms: PS and PD of 256 bits, SS, SD.
macro_rules! four {
    ($($insn:literal $f:ident;)*) => { $( check! {
        Single 256 concat!("v", $insn, "ps ymm0, ymm1, ymm2"), |x: &In, m: &mut Mxcsr| $f::<F32>(Width::Ymm, x.a, x.b, m);
        Double 256 concat!("v", $insn, "pd ymm0, ymm1, ymm2"), |x: &In, m: &mut Mxcsr| $f::<F64>(Width::Ymm, x.a, x.b, m);
        Single 128 concat!("v", $insn, "ps xmm0, xmm1, xmm2"), |x: &In, m: &mut Mxcsr| $f::<F32>(Width::Xmm, x.a, x.b, m);
        Single 128 concat!($insn, "ss xmm0, xmm2"), |x: &In, m: &mut Mxcsr| $f::<F32>(Width::Scalar, x.d, x.b, m);
        Double 128 concat!($insn, "sd xmm0, xmm2"), |x: &In, m: &mut Mxcsr| $f::<F64>(Width::Scalar, x.d, x.b, m);
    } )* };
}

#[test]
fn arithmetic() {
    if !host_has!("avx2") {
        return;
    }
    four! { "add" add; "sub" sub; "mul" mul; "div" div; "min" min; "max" max; }
}

#[test]
fn square_roots() {
    if !host_has!("avx2") {
        return;
    }
    check! {
        Single 256 "vsqrtps ymm0, ymm2", |x, m| sqrt::<F32>(Width::Ymm, V::ZERO, x.b, m);
        Double 256 "vsqrtpd ymm0, ymm2", |x, m| sqrt::<F64>(Width::Ymm, V::ZERO, x.b, m);
        Single 128 "vsqrtss xmm0, xmm1, xmm2", |x, m| sqrt::<F32>(Width::Scalar, x.a, x.b, m);
        Double 128 "sqrtsd xmm0, xmm2", |x, m| sqrt::<F64>(Width::Scalar, x.d, x.b, m);
    }
}

#[test]
fn horizontal_and_dot_products() {
    if !host_has!("avx2") {
        return;
    }
    macro_rules! packed {
        ($($insn:literal $f:ident;)*) => { $( check! {
            Single 256 concat!("v", $insn, "ps ymm0, ymm1, ymm2"), |x, m| $f::<F32>(Width::Ymm, x.a, x.b, m);
            Double 256 concat!("v", $insn, "pd ymm0, ymm1, ymm2"), |x, m| $f::<F64>(Width::Ymm, x.a, x.b, m);
            Single 128 concat!($insn, "ps xmm0, xmm2"), |x, m| $f::<F32>(Width::Xmm, x.d, x.b, m);
        } )* };
    }
    packed! { "addsub" addsub; "hadd" hadd; "hsub" hsub; }
    macro_rules! dot {
        ($($imm:literal)*) => { $( check! {
            Single 256 concat!("vdpps ymm0, ymm1, ymm2, ", $imm), |x, m| dp::<F32>(Width::Ymm, x.a, x.b, $imm, m);
            Double 128 concat!("vdppd xmm0, xmm1, xmm2, ", $imm), |x, m| dp::<F64>(Width::Xmm, x.a, x.b, $imm, m);
        } )* };
    }
    dot! { 0x00 0x11 0x22 0x33 0x7f 0xf1 0xff 0x35 0xca 0xa8 }
}

#[test]
fn rounding() {
    if !host_has!("avx2") {
        return;
    }
    macro_rules! round {
        ($($imm:literal)*) => { $( check! {
            Single 256 concat!("vroundps ymm0, ymm2, ", $imm), |x, m| float::round::<F32>(Width::Ymm, x.a, x.b, $imm, m);
            Double 256 concat!("vroundpd ymm0, ymm2, ", $imm), |x, m| float::round::<F64>(Width::Ymm, x.a, x.b, $imm, m);
            Single 128 concat!("roundss xmm0, xmm2, ", $imm), |x, m| float::round::<F32>(Width::Scalar, x.d, x.b, $imm, m);
            Double 128 concat!("vroundsd xmm0, xmm1, xmm2, ", $imm), |x, m| {
                float::round::<F64>(Width::Scalar, x.a, x.b, $imm, m)
            };
        } )* };
    }
    round! { 0 1 2 3 4 5 7 8 9 10 11 12 }
}

#[test]
fn predicates() {
    if !host_has!("avx2") {
        return;
    }
    macro_rules! predicates {
        ($($imm:literal)*) => { $( check! {
            Single 256 concat!("vcmpps ymm0, ymm1, ymm2, ", $imm), |x, m| {
                cmp::<F32>(Width::Ymm, x.a, x.b, Predicate::vex($imm), m)
            };
            Double 128 concat!("vcmpsd xmm0, xmm1, xmm2, ", $imm), |x, m| {
                cmp::<F64>(Width::Scalar, x.a, x.b, Predicate::vex($imm), m)
            };
        } )* };
    }
    predicates! { 0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20 21 22 23 24 25 26 27 28 29 30 31 }
    macro_rules! legacy {
        ($($imm:literal)*) => { $( check! {
            Double 128 concat!("cmppd xmm0, xmm2, ", $imm), |x, m| cmp::<F64>(Width::Xmm, x.d, x.b, Predicate::legacy($imm), m);
            Single 128 concat!("cmpss xmm0, xmm2, ", $imm), |x, m| cmp::<F32>(Width::Scalar, x.d, x.b, Predicate::legacy($imm), m);
        } )* };
    }
    legacy! { 0 1 2 3 4 5 6 7 }
}

#[test]
fn comparisons_to_flags() {
    if !host_has!("avx2") {
        return;
    }
    let flags = |status: Result<Status>| status.map(|s| V::from_mmx(s.0.into()));
    macro_rules! flags {
        ($($of:ident $insn:literal $f:expr;)*) => { $( check! {
            $of 64 concat!("xor eax, eax\n inc eax\n mov eax, 0\n", $insn, " xmm1, xmm2\n pushfq\n pop rax\n and eax, 0x8d5\n vmovq xmm0, rax"), |x: &In, m: &mut Mxcsr| flags($f(x.a, x.b, m));
        } )* };
    }
    flags! {
        Single "comiss" comis::<F32>; Double "comisd" comis::<F64>;
        Single "ucomiss" ucomis::<F32>; Double "ucomisd" ucomis::<F64>;
        Double "vucomisd" ucomis::<F64>;
    }
}

#[test]
fn fused_multiply_add() {
    if !host_has!("avx2", "fma") {
        return;
    }
    macro_rules! fma {
        ($($name:literal $kind:ident;)*) => { $( fma!(@ $name, FmaKind::$kind, "132" F132 "213" F213 "231" F231); )* };
        (@ $name:literal, $kind:expr, $($digits:literal $form:ident)*) => { $( check! {
            Single 256 concat!("v", $name, $digits, "ps ymm0, ymm1, ymm2"), |x, m| {
                float::fma::<F32>(Width::Ymm, FmaForm::$form, $kind, x.d, x.a, x.b, m)
            };
            Double 256 concat!("v", $name, $digits, "pd ymm0, ymm1, ymm2"), |x, m| {
                float::fma::<F64>(Width::Ymm, FmaForm::$form, $kind, x.d, x.a, x.b, m)
            };
        } )* };
    }
    fma! {
        "fmadd" Madd; "fmsub" Msub; "fnmadd" Nmadd; "fnmsub" Nmsub; "fmaddsub" Maddsub; "fmsubadd" Msubadd;
    }
    check! {
        Single 128 "vfmadd213ss xmm0, xmm1, xmm2", |x, m| {
            float::fma::<F32>(Width::Scalar, FmaForm::F213, FmaKind::Madd, x.d, x.a, x.b, m)
        };
        Double 128 "vfnmsub231sd xmm0, xmm1, xmm2", |x, m| {
            float::fma::<F64>(Width::Scalar, FmaForm::F231, FmaKind::Nmsub, x.d, x.a, x.b, m)
        };
    }
}

#[test]
fn conversions() {
    if !host_has!("avx2", "f16c") {
        return;
    }
    use ToInt::{Rounded, Truncated};
    check! {
        Single 256 "vcvtps2dq ymm0, ymm1", |x, m| cvt_to_i32::<F32>(Width::Ymm, x.a, Rounded, m);
        Single 256 "vcvttps2dq ymm0, ymm1", |x, m| cvt_to_i32::<F32>(Width::Ymm, x.a, Truncated, m);
        Double 256 "vcvtpd2dq xmm0, ymm1", |x, m| cvt_to_i32::<F64>(Width::Ymm, x.a, Rounded, m);
        Double 256 "vcvttpd2dq xmm0, ymm1", |x, m| cvt_to_i32::<F64>(Width::Ymm, x.a, Truncated, m);
        Double 128 "cvtpd2dq xmm0, xmm1", |x, m| cvt_to_i32::<F64>(Width::Xmm, x.a, Rounded, m);
        Int 256 "vcvtdq2ps ymm0, ymm1", |x, m| cvt_from_i32::<F32>(Width::Ymm, x.a, m);
        Int 256 "vcvtdq2pd ymm0, xmm1", |x, m| cvt_from_i32::<F64>(Width::Ymm, x.a, m);
        Single 256 "vcvtps2pd ymm0, xmm1", |x, m| cvtps2pd(Width::Ymm, x.a, x.a, m);
        Single 128 "vcvtss2sd xmm0, xmm1, xmm2", |x, m| cvtps2pd(Width::Scalar, x.a, x.b, m);
        Double 256 "vcvtpd2ps xmm0, ymm1", |x, m| cvtpd2ps(Width::Ymm, x.a, x.a, m);
        Double 128 "cvtpd2ps xmm0, xmm1", |x, m| cvtpd2ps(Width::Xmm, x.a, x.a, m);
        Double 128 "cvtsd2ss xmm0, xmm1", |x, m| cvtpd2ps(Width::Scalar, x.d, x.a, m);
        Int 128 "cvtsi2ss xmm0, eax", |x, m| cvt_from_si::<F32>(x.d, (x.rax as i32).into(), m);
        Int 128 "cvtsi2ss xmm0, rax", |x, m| cvt_from_si::<F32>(x.d, x.rax as i64, m);
        Int 128 "vcvtsi2sd xmm0, xmm1, rax", |x, m| cvt_from_si::<F64>(x.a, x.rax as i64, m);
        Half 256 "vcvtph2ps ymm0, xmm1", |x, m| vcvtph2ps(Width::Ymm, x.a, m);
        Half 128 "vcvtph2ps xmm0, xmm1", |x, m| vcvtph2ps(Width::Xmm, x.a, m);
        Single 128 "vcvtps2ph xmm0, ymm1, 0", |x, m| vcvtps2ph(Width::Ymm, x.a, 0, m);
        Single 128 "vcvtps2ph xmm0, ymm1, 1", |x, m| vcvtps2ph(Width::Ymm, x.a, 1, m);
        Single 128 "vcvtps2ph xmm0, ymm1, 2", |x, m| vcvtps2ph(Width::Ymm, x.a, 2, m);
        Single 128 "vcvtps2ph xmm0, ymm1, 3", |x, m| vcvtps2ph(Width::Ymm, x.a, 3, m);
        Single 128 "vcvtps2ph xmm0, xmm1, 4", |x, m| vcvtps2ph(Width::Xmm, x.a, 4, m);
    }
    // Operands and results that are MMX registers.
    check! {
        Single 64 "movdq2q mm0, xmm1\n cvtps2pi mm1, xmm1\n movq2dq xmm0, mm1\n emms", |x, m| cvt_to_i32::<F32>(Width::Mmx, x.a, Rounded, m);
        Single 64 "cvttps2pi mm1, xmm1\n movq2dq xmm0, mm1\n emms", |x, m| cvt_to_i32::<F32>(Width::Mmx, x.a, Truncated, m);
        Double 64 "cvtpd2pi mm1, xmm1\n movq2dq xmm0, mm1\n emms", |x, m| cvt_to_i32::<F64>(Width::Xmm, x.a, Rounded, m);
        Double 64 "cvttpd2pi mm1, xmm1\n movq2dq xmm0, mm1\n emms", |x, m| cvt_to_i32::<F64>(Width::Xmm, x.a, Truncated, m);
        Int 128 "movdq2q mm1, xmm1\n cvtpi2ps xmm0, mm1\n emms", |x, m| {
            Ok(cvt_from_i32::<F32>(Width::Mmx, x.a, m)?.merge_above(Width::Mmx, x.d))
        };
        Int 128 "movdq2q mm1, xmm1\n cvtpi2pd xmm0, mm1\n emms", |x, m| cvt_from_i32::<F64>(Width::Xmm, x.a, m);
    }
    macro_rules! to_register {
        ($($of:ident $insn:literal $f:expr;)*) => { $( check! {
            $of 64 concat!($insn, "\n vmovq xmm0, rax"), $f;
        } )* };
    }
    fn si32(x: Result<i32>) -> Result {
        x.map(|x| V::from_mmx((x as u32).into()))
    }
    fn si64(x: Result<i64>) -> Result {
        x.map(|x| V::from_mmx(x as u64))
    }
    to_register! {
        Single "cvtss2si eax, xmm1" |x, m| si32(cvt_to_si32::<F32>(x.a, Rounded, m));
        Single "cvttss2si eax, xmm1" |x, m| si32(cvt_to_si32::<F32>(x.a, Truncated, m));
        Double "cvtsd2si eax, xmm1" |x, m| si32(cvt_to_si32::<F64>(x.a, Rounded, m));
        Double "cvttsd2si eax, xmm1" |x, m| si32(cvt_to_si32::<F64>(x.a, Truncated, m));
        Single "cvtss2si rax, xmm1" |x, m| si64(cvt_to_si64::<F32>(x.a, Rounded, m));
        Single "cvttss2si rax, xmm1" |x, m| si64(cvt_to_si64::<F32>(x.a, Truncated, m));
        Double "cvtsd2si rax, xmm1" |x, m| si64(cvt_to_si64::<F64>(x.a, Rounded, m));
        Double "cvttsd2si rax, xmm1" |x, m| si64(cvt_to_si64::<F64>(x.a, Truncated, m));
    }
}

/// The relative error of the approximations is at most 1.5 * 2^-12, and the special cases are the host's.
#[test]
fn approximations() {
    if !host_has!("avx2") {
        return;
    }
    let bound = 1.5 / 4096.0;
    type Approximation = (fn(&In) -> Out, fn(Width, V, V) -> V, fn(f64) -> f64);
    let hosts: [Approximation; 2] =
        [(host!("vrcpps ymm0, ymm1"), rcpps, |x| 1.0 / x), (host!("vrsqrtps ymm0, ymm1"), rsqrtps, |x| 1.0 / x.sqrt())];
    for (host, ours, exact) in hosts {
        let mut random = Random::new("rcp");
        for _ in 0..20_000 {
            let x = input(&mut random, Of::Single, true);
            let out = host(&x);
            assert_eq!(out.mxcsr, x.mxcsr);
            let (ours, theirs) = (ours(Width::Ymm, V::ZERO, x.a).lanes::<u32>(), out.v.lanes::<u32>());
            for (i, operand) in x.a.lanes::<u32>().into_iter().enumerate() {
                let (our, their) = (f32::from_bits(ours[i]), f32::from_bits(theirs[i]));
                let exact = exact(f32::from_bits(operand).into());
                let is_subnormal = |x: f32| x.is_subnormal() || x == 0.0;
                if our.is_normal() && their.is_normal() {
                    let error = (f64::from(our) - exact).abs() / exact.abs();
                    assert!(error <= bound, "{operand:x}: {our} {exact} {error}");
                } else if is_subnormal(our) && is_subnormal(their) {
                    assert_eq!(our.is_sign_negative(), their.is_sign_negative());
                } else if exact.abs() > 1.0e-38 && exact.abs() < 1.2e-38 {
                    // At the smallest normal number they may differ.
                } else {
                    assert_eq!(ours[i], theirs[i], "{operand:x}");
                }
            }
        }
    }
    // Exact values, so that no change goes unnoticed.
    let rcp = |x: f32| f32::from_bits(rcpps(Width::Scalar, V::ZERO, V::from_mmx(x.to_bits().into())).get(0));
    let rsqrt = |x: f32| f32::from_bits(rsqrtps(Width::Scalar, V::ZERO, V::from_mmx(x.to_bits().into())).get(0));
    assert_eq!((rcp(1.0), rcp(2.0), rcp(-4.0)), (1.0, 0.5, -0.25));
    assert_eq!((rsqrt(1.0), rsqrt(4.0), rsqrt(0.25)), (1.0, 0.5, 2.0));
    assert_eq!(rcp(3.0), 2731.0 / 8192.0);
    assert_eq!(rsqrt(2.0), 2896.0 / 4096.0);
}
