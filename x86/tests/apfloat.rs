//! SSE and the x87 against LLVM's APFloat, as ported to Rust: numbers, and the flags IE, ZE, OE and PE, in all rounding modes.
//!
//! UE is left out, for APFloat finds tininess in another way than IEEE 754 has, and so is OE where the result is the largest finite
//! number, which APFloat calls inexact only. Of NaNs only that they are some is compared; `native` has their bits.

use emu_core::float::{F32, F64};
use emu_core::random::SplitMix64;
use rustc_apfloat::ieee::{Double, Single, X87DoubleExtended};
use rustc_apfloat::{Float, FloatConvert, Round, Status, StatusAnd};
use x86::fpu::arithmetic::Arith;
use x86::fpu::transfer::Rounding;
use x86::fpu::{Source, X87};
use x86::vector::convert::{self, ToInt};
use x86::vector::float::{self, FmaForm, FmaKind};
use x86::vector::{Mxcsr, V, Width};

/// By the rounding control's value.
const ROUNDS: [Round; 4] = [Round::NearestTiesToEven, Round::TowardNegative, Round::TowardPositive, Round::TowardZero];
const CASES: usize = 10_000;

const IE: u32 = 1;
const ZE: u32 = 1 << 2;
const OE: u32 = 1 << 3;
const PE: u32 = 1 << 5;

struct Random(SplitMix64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0.next()
    }

    /// A number of so many bits, of which `fraction` are the fraction: any, or one whose exponent is that of others, or a special one.
    fn number(&mut self, bits: u32, fraction: u32) -> u128 {
        let all = (1u128 << (bits - 1)) - 1;
        let any = u128::from(self.next()) | u128::from(self.next()) << 64;
        let short = (u128::MAX << (any as u32 % fraction)) & ((1 << fraction) - 1);
        let one = all >> 1 & !((1 << fraction) - 1);
        let magnitude = match self.next() % 8 {
            0 => any,
            1 => any & ((1 << fraction) - 1),
            2 => all & !((1 << fraction) - 1),
            3 => (any & all) | 0x3f << fraction,
            4 => all & !((1 << fraction) - 1) & !(1 << fraction) | any & short,
            _ => (one + (u128::from(self.next() % 8) << fraction) - (4 << fraction)) | any & short,
        };
        magnitude & all | u128::from(self.next() & 1) << (bits - 1)
    }

    /// A number in extended precision, whose integer bit is what it should be.
    fn extended(&mut self) -> u128 {
        let x = self.number(79, 63);
        let (top, fraction) = (x >> 63, x & ((1 << 63) - 1));
        top << 64 | u128::from(top & 0x7fff != 0) << 63 | fraction
    }
}

/// What APFloat says, and we.
fn compare<A: Float>(what: &str, ours: u128, flags: u32, theirs: &StatusAnd<A>, bits: impl Fn(&A) -> u128) {
    let mut mask = IE | ZE | OE | PE;
    if theirs.value.is_largest() {
        mask &= !OE;
    }
    let status = theirs.status;
    let expected = [(Status::INVALID_OP, IE), (Status::DIV_BY_ZERO, ZE), (Status::OVERFLOW, OE), (Status::INEXACT, PE)]
        .into_iter()
        .filter(|(s, _)| status.contains(*s))
        .fold(0, |all, (_, flag)| all | flag);
    if !theirs.value.is_nan() {
        assert_eq!(ours, bits(&theirs.value), "{what}: {ours:x}, not {:x}", bits(&theirs.value));
    }
    assert_eq!(flags & mask, expected & mask, "{what}: flags");
}

type Binary<A> = fn(A, A, Round) -> StatusAnd<A>;
type Packed3 = fn(V, V, V, &mut Mxcsr) -> float::Result;
type Packed = fn(Width, V, V, &mut Mxcsr) -> float::Result;

fn vector<A: Float>(size: u32, fraction: u32, ops: &[(&str, Packed, Binary<A>)], fma: Packed3) {
    let mut r = Random(SplitMix64(size.into()));
    let v = |x: u128| V::from_xmm(x);
    let low = |v: V| v.xmm() & (u128::MAX >> (128 - size));
    for (rc, round) in ROUNDS.into_iter().enumerate() {
        for _ in 0..CASES {
            let [x, y, z] = [(); 3].map(|()| r.number(size, fraction));
            let what = |op: &str| format!("{op} of {size} bits {x:x} {y:x} {z:x} {round:?}");
            for (name, ours, theirs) in ops {
                let mut mxcsr = Mxcsr(Mxcsr::RESET | (rc as u32) << 13);
                let result = ours(Width::Scalar, v(x), v(y), &mut mxcsr).unwrap();
                let expected = theirs(A::from_bits(x), A::from_bits(y), round);
                compare(&what(name), low(result), mxcsr.0 & 0x3f, &expected, |a| a.to_bits());
            }
            let mut mxcsr = Mxcsr(Mxcsr::RESET | (rc as u32) << 13);
            let result = fma(v(x), v(y), v(z), &mut mxcsr).unwrap();
            let expected = A::from_bits(x).mul_add_r(A::from_bits(y), A::from_bits(z), round);
            // Whether 0 * infinity + NaN is invalid is left open by IEEE 754.
            if ![x, y, z].into_iter().any(|x| A::from_bits(x).is_nan()) {
                compare(&what("fma"), low(result), mxcsr.0 & 0x3f, &expected, |a| a.to_bits());
            }
        }
    }
}

#[test]
fn single_precision() {
    let ops: &[(&str, Packed, Binary<Single>)] = &[
        ("add", float::add::<F32>, Single::add_r),
        ("sub", float::sub::<F32>, Single::sub_r),
        ("mul", float::mul::<F32>, Single::mul_r),
        ("div", float::div::<F32>, Single::div_r),
    ];
    let fma: Packed3 = |x, y, z, m| float::fma::<F32>(Width::Scalar, FmaForm::F213, FmaKind::Madd, y, x, z, m);
    vector::<Single>(32, 23, ops, fma);
}

#[test]
fn double_precision() {
    let ops: &[(&str, Packed, Binary<Double>)] = &[
        ("add", float::add::<F64>, Double::add_r),
        ("sub", float::sub::<F64>, Double::sub_r),
        ("mul", float::mul::<F64>, Double::mul_r),
        ("div", float::div::<F64>, Double::div_r),
    ];
    let fma: Packed3 = |x, y, z, m| float::fma::<F64>(Width::Scalar, FmaForm::F213, FmaKind::Madd, y, x, z, m);
    vector::<Double>(64, 52, ops, fma);
}

/// CVTSS2SD, CVTSD2SS, CVTSD2SI, CVTSI2SD.
#[test]
fn conversions() {
    let mut r = Random(SplitMix64(7));
    for (rc, round) in ROUNDS.into_iter().enumerate() {
        let fresh = || Mxcsr(Mxcsr::RESET | (rc as u32) << 13);
        for _ in 0..CASES {
            let (x, y, n) = (r.number(32, 23), r.number(64, 52), (r.next() as i64) >> (r.next() % 64));
            let (mut mxcsr, mut loses) = (fresh(), false);
            let ours = convert::cvtps2pd(Width::Scalar, V::ZERO, V::from_xmm(x), &mut mxcsr).unwrap();
            let theirs: StatusAnd<Double> = Single::from_bits(x).convert_r(round, &mut loses);
            compare(&format!("cvtss2sd {x:x}"), ours.mmx().into(), mxcsr.0 & 0x3f, &theirs, |a| a.to_bits());
            let mut mxcsr = fresh();
            let ours = convert::cvtpd2ps(Width::Scalar, V::ZERO, V::from_xmm(y), &mut mxcsr).unwrap();
            let theirs: StatusAnd<Single> = Double::from_bits(y).convert_r(round, &mut loses);
            let what = format!("cvtsd2ss {y:x} {round:?}");
            compare(&what, ours.get::<u32>(0).into(), mxcsr.0 & 0x3f, &theirs, |a| a.to_bits());
            let mut mxcsr = fresh();
            let ours = convert::cvt_from_si::<F64>(V::ZERO, n, &mut mxcsr).unwrap();
            let theirs = Double::from_i128_r(n.into(), round);
            compare(&format!("cvtsi2sd {n} {round:?}"), ours.mmx().into(), mxcsr.0 & 0x3f, &theirs, |a| a.to_bits());
            let mut mxcsr = fresh();
            let ours = convert::cvt_to_si64::<F64>(V::from_xmm(y), ToInt::Rounded, &mut mxcsr).unwrap();
            let theirs = Double::from_bits(y).to_i128_r(64, round, &mut false);
            let invalid = theirs.status.contains(Status::INVALID_OP);
            let expected = if invalid { i64::MIN } else { theirs.value as i64 };
            assert_eq!(ours, expected, "cvtsd2si {y:x} {round:?}");
            assert_eq!(mxcsr.0 & IE != 0, invalid, "cvtsd2si {y:x} {round:?}");
        }
    }
}

/// FADD, FSUB, FMUL and FDIV in extended precision; FLD and FST of the shorter formats; FILD and FISTP.
#[test]
fn extended_precision() {
    type Ext = X87DoubleExtended;
    let mut r = Random(SplitMix64(80));
    let ops: [(Arith, Binary<Ext>); 4] =
        [(Arith::Add, Ext::add_r), (Arith::Sub, Ext::sub_r), (Arith::Mul, Ext::mul_r), (Arith::Div, Ext::div_r)];
    for (rc, round) in ROUNDS.into_iter().enumerate() {
        let fresh = || {
            let mut fpu = X87::default();
            fpu.fldcw(X87::INITIAL_CONTROL | (rc as u16) << 10);
            fpu
        };
        for _ in 0..CASES {
            let (x, y) = (r.extended(), r.extended());
            for (op, theirs) in ops {
                let mut fpu = fresh();
                fpu.fld80(y);
                fpu.fld80(x);
                fpu.arith(op, 0, Source::St(1), false);
                let expected = theirs(Ext::from_bits(x), Ext::from_bits(y), round);
                let what = format!("{op:?} {x:x} {y:x} {round:?}");
                compare(&what, fpu.st(0), u32::from(fpu.status) & 0x3f, &expected, |a| a.to_bits());
            }
            let mut fpu = fresh();
            fpu.fld80(x);
            let ours = fpu.fst64(false).unwrap();
            let theirs: StatusAnd<Double> = Ext::from_bits(x).convert_r(round, &mut false);
            let what = format!("fst64 {x:x} {round:?}");
            compare(&what, ours.into(), u32::from(fpu.status) & 0x3f, &theirs, |a| a.to_bits());
            let mut fpu = fresh();
            fpu.fld80(x);
            let ours = fpu.fst32(false).unwrap();
            let theirs: StatusAnd<Single> = Ext::from_bits(x).convert_r(round, &mut false);
            let what = format!("fst32 {x:x} {round:?}");
            compare(&what, ours.into(), u32::from(fpu.status) & 0x3f, &theirs, |a| a.to_bits());
            let mut fpu = fresh();
            fpu.fld80(x);
            let ours = fpu.fistp64(Rounding::Control).unwrap();
            let theirs = Ext::from_bits(x).to_i128_r(64, round, &mut false);
            let invalid = theirs.status.contains(Status::INVALID_OP);
            assert_eq!(ours, if invalid { i64::MIN } else { theirs.value as i64 }, "fistp {x:x} {round:?}");
            let n = r.next() as i64;
            let mut fpu = fresh();
            fpu.fild(n);
            assert_eq!(fpu.st(0), Ext::from_i128_r(n.into(), round).value.to_bits(), "fild {n}");
        }
    }
}
