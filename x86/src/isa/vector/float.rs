//! Floating point: arithmetic, comparison, conversion, fused multiply-add.

use super::table::{Args, Row, rows};
use crate::vector::Width::{Mmx, Scalar, Xmm};
use crate::vector::approximate;
use crate::vector::compare::{self, Predicate};
use crate::vector::convert::{self, Integers, ToInt};
use crate::vector::float::{self, FmaForm, FmaKind};
use crate::vector::mxcsr::Float;
use emu_core::float::{F32, F64};

pub(super) const ROWS: &[Row] = rows! {
    Addps Vaddps |x| float::add::<F32>(x.w, x.a, x.b, x.mxcsr);
    Addpd Vaddpd |x| float::add::<F64>(x.w, x.a, x.b, x.mxcsr);
    Addss Vaddss |x| float::add::<F32>(Scalar, x.a, x.b, x.mxcsr);
    Addsd Vaddsd |x| float::add::<F64>(Scalar, x.a, x.b, x.mxcsr);
    Subps Vsubps |x| float::sub::<F32>(x.w, x.a, x.b, x.mxcsr);
    Subpd Vsubpd |x| float::sub::<F64>(x.w, x.a, x.b, x.mxcsr);
    Subss Vsubss |x| float::sub::<F32>(Scalar, x.a, x.b, x.mxcsr);
    Subsd Vsubsd |x| float::sub::<F64>(Scalar, x.a, x.b, x.mxcsr);
    Mulps Vmulps |x| float::mul::<F32>(x.w, x.a, x.b, x.mxcsr);
    Mulpd Vmulpd |x| float::mul::<F64>(x.w, x.a, x.b, x.mxcsr);
    Mulss Vmulss |x| float::mul::<F32>(Scalar, x.a, x.b, x.mxcsr);
    Mulsd Vmulsd |x| float::mul::<F64>(Scalar, x.a, x.b, x.mxcsr);
    Divps Vdivps |x| float::div::<F32>(x.w, x.a, x.b, x.mxcsr);
    Divpd Vdivpd |x| float::div::<F64>(x.w, x.a, x.b, x.mxcsr);
    Divss Vdivss |x| float::div::<F32>(Scalar, x.a, x.b, x.mxcsr);
    Divsd Vdivsd |x| float::div::<F64>(Scalar, x.a, x.b, x.mxcsr);
    Sqrtps Vsqrtps |x| float::sqrt::<F32>(x.w, x.a, x.b, x.mxcsr);
    Sqrtpd Vsqrtpd |x| float::sqrt::<F64>(x.w, x.a, x.b, x.mxcsr);
    Sqrtss Vsqrtss |x| float::sqrt::<F32>(Scalar, x.a, x.b, x.mxcsr);
    Sqrtsd Vsqrtsd |x| float::sqrt::<F64>(Scalar, x.a, x.b, x.mxcsr);
    Minps Vminps |x| compare::min::<F32>(x.w, x.a, x.b, x.mxcsr);
    Minpd Vminpd |x| compare::min::<F64>(x.w, x.a, x.b, x.mxcsr);
    Minss Vminss |x| compare::min::<F32>(Scalar, x.a, x.b, x.mxcsr);
    Minsd Vminsd |x| compare::min::<F64>(Scalar, x.a, x.b, x.mxcsr);
    Maxps Vmaxps |x| compare::max::<F32>(x.w, x.a, x.b, x.mxcsr);
    Maxpd Vmaxpd |x| compare::max::<F64>(x.w, x.a, x.b, x.mxcsr);
    Maxss Vmaxss |x| compare::max::<F32>(Scalar, x.a, x.b, x.mxcsr);
    Maxsd Vmaxsd |x| compare::max::<F64>(Scalar, x.a, x.b, x.mxcsr);
    Haddps Vhaddps |x| float::hadd::<F32>(x.w, x.a, x.b, x.mxcsr);
    Haddpd Vhaddpd |x| float::hadd::<F64>(x.w, x.a, x.b, x.mxcsr);
    Hsubps Vhsubps |x| float::hsub::<F32>(x.w, x.a, x.b, x.mxcsr);
    Hsubpd Vhsubpd |x| float::hsub::<F64>(x.w, x.a, x.b, x.mxcsr);
    Addsubps Vaddsubps |x| float::addsub::<F32>(x.w, x.a, x.b, x.mxcsr);
    Addsubpd Vaddsubpd |x| float::addsub::<F64>(x.w, x.a, x.b, x.mxcsr);
    Dpps Vdpps |x| float::dp::<F32>(x.w, x.a, x.b, x.imm, x.mxcsr);
    Dppd Vdppd |x| float::dp::<F64>(x.w, x.a, x.b, x.imm, x.mxcsr);
    Roundps Vroundps |x| float::round::<F32>(x.w, x.a, x.b, x.imm, x.mxcsr);
    Roundpd Vroundpd |x| float::round::<F64>(x.w, x.a, x.b, x.imm, x.mxcsr);
    Roundss Vroundss |x| float::round::<F32>(Scalar, x.a, x.b, x.imm, x.mxcsr);
    Roundsd Vroundsd |x| float::round::<F64>(Scalar, x.a, x.b, x.imm, x.mxcsr);
    Cmpps Vcmpps |x| compare::cmp::<F32>(x.w, x.a, x.b, x.predicate(), x.mxcsr);
    Cmppd Vcmppd |x| compare::cmp::<F64>(x.w, x.a, x.b, x.predicate(), x.mxcsr);
    Cmpss Vcmpss |x| compare::cmp::<F32>(Scalar, x.a, x.b, x.predicate(), x.mxcsr);
    Cmpsd Vcmpsd |x| compare::cmp::<F64>(Scalar, x.a, x.b, x.predicate(), x.mxcsr);
    Comiss Vcomiss |x| compare::comis::<F32>(x.a, x.b, x.mxcsr);
    Comisd Vcomisd |x| compare::comis::<F64>(x.a, x.b, x.mxcsr);
    Ucomiss Vucomiss |x| compare::ucomis::<F32>(x.a, x.b, x.mxcsr);
    Ucomisd Vucomisd |x| compare::ucomis::<F64>(x.a, x.b, x.mxcsr);
    Rcpps Vrcpps |x| approximate::rcpps(x.w, x.a, x.b);
    Rcpss Vrcpss |x| approximate::rcpps(Scalar, x.a, x.b);
    Rsqrtps Vrsqrtps |x| approximate::rsqrtps(x.w, x.a, x.b);
    Rsqrtss Vrsqrtss |x| approximate::rsqrtps(Scalar, x.a, x.b);
    Cvtps2dq Vcvtps2dq |x| convert::cvt_to_i32::<F32>(x.w, x.b, ToInt::Rounded, x.mxcsr);
    Cvttps2dq Vcvttps2dq |x| convert::cvt_to_i32::<F32>(x.w, x.b, ToInt::Truncated, x.mxcsr);
    Cvtpd2dq Vcvtpd2dq |x| convert::cvt_to_i32::<F64>(x.w, x.b, ToInt::Rounded, x.mxcsr);
    Cvttpd2dq Vcvttpd2dq |x| convert::cvt_to_i32::<F64>(x.w, x.b, ToInt::Truncated, x.mxcsr);
    Cvtps2pi INVALID |x| convert::cvt_to_i32::<F32>(Mmx, x.b, ToInt::Rounded, x.mxcsr);
    Cvttps2pi INVALID |x| convert::cvt_to_i32::<F32>(Mmx, x.b, ToInt::Truncated, x.mxcsr);
    Cvtpd2pi INVALID |x| convert::cvt_to_i32::<F64>(Xmm, x.b, ToInt::Rounded, x.mxcsr);
    Cvttpd2pi INVALID |x| convert::cvt_to_i32::<F64>(Xmm, x.b, ToInt::Truncated, x.mxcsr);
    Cvtdq2ps Vcvtdq2ps |x| convert::cvt_from_i32::<F32>(x.w, x.b, x.mxcsr);
    Cvtdq2pd Vcvtdq2pd |x| convert::cvt_from_i32::<F64>(x.w, x.b, x.mxcsr);
    Cvtpi2ps INVALID |x| convert::cvt_from_i32::<F32>(Mmx, x.b, x.mxcsr).map(|v| x.a.with(0, v.mmx()));
    Cvtpi2pd INVALID |x| convert::cvt_from_i32::<F64>(Xmm, x.b, x.mxcsr);
    Cvtss2si Vcvtss2si |x| x.integer::<F32>(ToInt::Rounded);
    Cvtsd2si Vcvtsd2si |x| x.integer::<F64>(ToInt::Rounded);
    Cvttss2si Vcvttss2si |x| x.integer::<F32>(ToInt::Truncated);
    Cvttsd2si Vcvttsd2si |x| x.integer::<F64>(ToInt::Truncated);
    Cvtsi2ss Vcvtsi2ss |x| convert::cvt_from_si::<F32>(x.a, x.signed(), x.mxcsr);
    Cvtsi2sd Vcvtsi2sd |x| convert::cvt_from_si::<F64>(x.a, x.signed(), x.mxcsr);
    Cvtps2pd Vcvtps2pd |x| convert::cvtps2pd(x.w, x.a, x.b, x.mxcsr);
    Cvtss2sd Vcvtss2sd |x| convert::cvtps2pd(Scalar, x.a, x.b, x.mxcsr);
    Cvtpd2ps Vcvtpd2ps |x| convert::cvtpd2ps(x.w, x.a, x.b, x.mxcsr);
    Cvtsd2ss Vcvtsd2ss |x| convert::cvtpd2ps(Scalar, x.a, x.b, x.mxcsr);
    INVALID Vcvtph2ps |x| convert::vcvtph2ps(x.w, x.b, x.mxcsr);
    INVALID Vcvtps2ph |x| convert::vcvtps2ph(x.w, x.b, x.imm, x.mxcsr);
};

macro_rules! fma_rows {
    ($($form:ident $kind:ident: $($mnemonic:ident $width:ident $format:ident),*;)*) => {
        rows! { $($(INVALID $mnemonic |x| x.$width::<$format>(FmaForm::$form, FmaKind::$kind);)*)* }
    };
}

impl Args<'_> {
    fn packed<F: Float>(&mut self, form: FmaForm, kind: FmaKind) -> float::Result {
        float::fma::<F>(self.w, form, kind, self.old(), self.a, self.b, self.mxcsr)
    }

    fn scalar<F: Float>(&mut self, form: FmaForm, kind: FmaKind) -> float::Result {
        float::fma::<F>(Scalar, form, kind, self.old(), self.a, self.b, self.mxcsr)
    }

    /// To an integer of the destination's size, zero-extended.
    fn integer<F: Integers>(&mut self, how: ToInt) -> float::Result<u64> {
        if self.long {
            convert::cvt_to_si64::<F>(self.b, how, self.mxcsr).map(|x| x as u64)
        } else {
            convert::cvt_to_si32::<F>(self.b, how, self.mxcsr).map(|x| u64::from(x as u32))
        }
    }

    /// The general register or operand in memory, sign-extended.
    fn signed(&self) -> i64 {
        if self.long { self.b.get(0) } else { self.b.get::<i32>(0).into() }
    }

    fn predicate(&self) -> Predicate {
        if self.vex { Predicate::vex(self.imm) } else { Predicate::legacy(self.imm) }
    }
}

pub(super) const FMA: &[Row] = fma_rows! {
    F132 Madd: Vfmadd132ps packed F32, Vfmadd132pd packed F64, Vfmadd132ss scalar F32, Vfmadd132sd scalar F64;
    F213 Madd: Vfmadd213ps packed F32, Vfmadd213pd packed F64, Vfmadd213ss scalar F32, Vfmadd213sd scalar F64;
    F231 Madd: Vfmadd231ps packed F32, Vfmadd231pd packed F64, Vfmadd231ss scalar F32, Vfmadd231sd scalar F64;
    F132 Msub: Vfmsub132ps packed F32, Vfmsub132pd packed F64, Vfmsub132ss scalar F32, Vfmsub132sd scalar F64;
    F213 Msub: Vfmsub213ps packed F32, Vfmsub213pd packed F64, Vfmsub213ss scalar F32, Vfmsub213sd scalar F64;
    F231 Msub: Vfmsub231ps packed F32, Vfmsub231pd packed F64, Vfmsub231ss scalar F32, Vfmsub231sd scalar F64;
    F132 Nmadd: Vfnmadd132ps packed F32, Vfnmadd132pd packed F64, Vfnmadd132ss scalar F32, Vfnmadd132sd scalar F64;
    F213 Nmadd: Vfnmadd213ps packed F32, Vfnmadd213pd packed F64, Vfnmadd213ss scalar F32, Vfnmadd213sd scalar F64;
    F231 Nmadd: Vfnmadd231ps packed F32, Vfnmadd231pd packed F64, Vfnmadd231ss scalar F32, Vfnmadd231sd scalar F64;
    F132 Nmsub: Vfnmsub132ps packed F32, Vfnmsub132pd packed F64, Vfnmsub132ss scalar F32, Vfnmsub132sd scalar F64;
    F213 Nmsub: Vfnmsub213ps packed F32, Vfnmsub213pd packed F64, Vfnmsub213ss scalar F32, Vfnmsub213sd scalar F64;
    F231 Nmsub: Vfnmsub231ps packed F32, Vfnmsub231pd packed F64, Vfnmsub231ss scalar F32, Vfnmsub231sd scalar F64;
    F132 Maddsub: Vfmaddsub132ps packed F32, Vfmaddsub132pd packed F64;
    F213 Maddsub: Vfmaddsub213ps packed F32, Vfmaddsub213pd packed F64;
    F231 Maddsub: Vfmaddsub231ps packed F32, Vfmaddsub231pd packed F64;
    F132 Msubadd: Vfmsubadd132ps packed F32, Vfmsubadd132pd packed F64;
    F213 Msubadd: Vfmsubadd213ps packed F32, Vfmsubadd213pd packed F64;
    F231 Msubadd: Vfmsubadd231ps packed F32, Vfmsubadd231pd packed F64;
};
