use crate::host::{In, Random};
use x86::vector::integer::*;
use x86::vector::shift::*;
use x86::vector::{Status, V, Width};

/// `insn ymm0, ymm1, ymm2` and, of the same name without the V, `insn mm0, mm2`.
macro_rules! both {
    ($($insn:literal $f:expr;)*) => { $(
        check!(256, concat!("v", $insn, " ymm0, ymm1, ymm2"), |x: &In| $f(x.a, x.b));
        check!(mmx, concat!($insn, " mm0, mm2"), |x: &In| $f(x.d, x.b));
    )* };
}

macro_rules! ymm {
    ($($insn:literal $f:expr;)*) => { $(
        check!(256, $insn, $f);
    )* };
}

#[test]
fn lanewise() {
    if !host_has!("avx2") {
        return;
    }
    both! {
        "paddb" padd::<u8>; "paddw" padd::<u16>; "paddd" padd::<u32>; "paddq" padd::<u64>;
        "psubb" psub::<u8>; "psubw" psub::<u16>; "psubd" psub::<u32>; "psubq" psub::<u64>;
        "paddsb" padds::<i8>; "paddsw" padds::<i16>; "paddusb" padds::<u8>; "paddusw" padds::<u16>;
        "psubsb" psubs::<i8>; "psubsw" psubs::<i16>; "psubusb" psubs::<u8>; "psubusw" psubs::<u16>;
        "pminub" pmin::<u8>; "pminsw" pmin::<i16>; "pmaxub" pmax::<u8>; "pmaxsw" pmax::<i16>;
        "pcmpeqb" pcmpeq::<u8>; "pcmpeqw" pcmpeq::<u16>; "pcmpeqd" pcmpeq::<u32>;
        "pcmpgtb" pcmpgt::<i8>; "pcmpgtw" pcmpgt::<i16>; "pcmpgtd" pcmpgt::<i32>;
        "psignb" psign::<i8>; "psignw" psign::<i16>; "psignd" psign::<i32>;
        "pavgb" pavgb; "pavgw" pavgw; "pand" pand; "pandn" pandn; "por" por; "pxor" pxor;
        "pmullw" pmull::<i16>; "pmulhw" pmulhw; "pmulhuw" pmulhuw; "pmulhrsw" pmulhrsw; "pmuludq" pmuludq;
        "pmaddwd" pmaddwd; "pmaddubsw" pmaddubsw; "psadbw" psadbw;
    }
    ymm! {
        "vpminsb ymm0, ymm1, ymm2" |x| pmin::<i8>(x.a, x.b); "vpminsd ymm0, ymm1, ymm2" |x| pmin::<i32>(x.a, x.b);
        "vpminuw ymm0, ymm1, ymm2" |x| pmin::<u16>(x.a, x.b); "vpminud ymm0, ymm1, ymm2" |x| pmin::<u32>(x.a, x.b);
        "vpmaxsb ymm0, ymm1, ymm2" |x| pmax::<i8>(x.a, x.b); "vpmaxsd ymm0, ymm1, ymm2" |x| pmax::<i32>(x.a, x.b);
        "vpmaxuw ymm0, ymm1, ymm2" |x| pmax::<u16>(x.a, x.b); "vpmaxud ymm0, ymm1, ymm2" |x| pmax::<u32>(x.a, x.b);
        "vpcmpeqq ymm0, ymm1, ymm2" |x| pcmpeq::<u64>(x.a, x.b); "vpcmpgtq ymm0, ymm1, ymm2" |x| pcmpgt::<i64>(x.a, x.b);
        "vpmulld ymm0, ymm1, ymm2" |x| pmull::<i32>(x.a, x.b); "vpmuldq ymm0, ymm1, ymm2" |x| pmuldq(x.a, x.b);
        "vandnps ymm0, ymm1, ymm2" |x| pandn(x.a, x.b); "vorpd ymm0, ymm1, ymm2" |x| por(x.a, x.b);
        "vpabsb ymm0, ymm1" |x| pabs::<i8>(x.a); "vpabsw ymm0, ymm1" |x| pabs::<i16>(x.a);
        "vpabsd ymm0, ymm1" |x| pabs::<i32>(x.a);
    }
    check!(mmx, "pabsb mm0, mm1", |x| pabs::<i8>(x.a));
    check!(mmx, "pabsw mm0, mm1", |x| pabs::<i16>(x.a));
    check!(mmx, "pabsd mm0, mm1", |x| pabs::<i32>(x.a));
}

#[test]
fn horizontal() {
    if !host_has!("avx2") {
        return;
    }
    macro_rules! horizontal {
        ($($insn:literal $f:expr;)*) => { $(
            check!(256, concat!("v", $insn, " ymm0, ymm1, ymm2"), |x: &In| $f(Width::Ymm, x.a, x.b));
            check!(mmx, concat!($insn, " mm0, mm2"), |x: &In| $f(Width::Mmx, x.d, x.b));
        )* };
    }
    horizontal! {
        "phaddw" phadd::<u16>; "phaddd" phadd::<u32>; "phaddsw" phaddsw;
        "phsubw" phsub::<u16>; "phsubd" phsub::<u32>; "phsubsw" phsubsw;
    }
    check!(128, "vphminposuw xmm0, xmm1", |x| phminposuw(x.a));
    check_imm!(256, "vmpsadbw ymm0, ymm1, ymm2, {imm}", |x: &In, imm| mpsadbw(x.a, x.b, imm));
}

#[test]
fn shifts() {
    if !host_has!("avx2") {
        return;
    }
    // The count operand's low 64 bits are often large; make them small half of the time.
    let count = |x: &In| x.b.mmx();
    macro_rules! shifts {
        ($($insn:literal $f:ident $t:ty;)*) => { $(
            check!(256, concat!("v", $insn, " ymm0, ymm1, xmm2"), |x: &In| $f::<$t>(x.a, count(x)));
            check!(mmx, concat!($insn, " mm0, mm2"), |x: &In| $f::<$t>(x.d, count(x)));
            check_imm!(256, concat!("v", $insn, " ymm0, ymm1, {imm}"), |x: &In, imm: u8| $f::<$t>(x.a, imm.into()));
        )* };
    }
    shifts! {
        "psllw" psll u16; "pslld" psll u32; "psllq" psll u64;
        "psrlw" psr u16; "psrld" psr u32; "psrlq" psr u64; "psraw" psr i16; "psrad" psr i32;
    }
    check_imm!(256, "vpslldq ymm0, ymm1, {imm}", |x: &In, imm| pslldq(x.a, imm));
    check_imm!(256, "vpsrldq ymm0, ymm1, {imm}", |x: &In, imm| psrldq(x.a, imm));
    ymm! {
        "vpsllvd ymm0, ymm1, ymm2" |x| psllv::<u32>(x.a, x.b); "vpsllvq ymm0, ymm1, ymm2" |x| psllv::<u64>(x.a, x.b);
        "vpsrlvd ymm0, ymm1, ymm2" |x| psrv::<u32>(x.a, x.b); "vpsrlvq ymm0, ymm1, ymm2" |x| psrv::<u64>(x.a, x.b);
        "vpsravd ymm0, ymm1, ymm2" |x| psrv::<i32>(x.a, x.b);
    }
}

/// All operands that matter to a test of zeros and signs.
fn sparse(random: &mut Random) -> V {
    let mask = random.word();
    let v = random.integers();
    V::build(|i| if mask >> i & 1 != 0 { v.get::<u64>(i) } else { 0 })
}

#[test]
fn tests() {
    if !host_has!("avx2") {
        return;
    }
    let check = |insn: &str, host: fn(&In) -> crate::host::Out, f: &dyn Fn(V, V) -> Status| {
        let mut random = Random::new(insn);
        for _ in 0..20_000 {
            let a = sparse(&mut random);
            let b = match random.below(3) {
                0 => a,
                1 => pandn(a, sparse(&mut random)),
                _ => sparse(&mut random),
            };
            let x = In { d: a, a, b, c: b, rax: 0, rdx: 0, mxcsr: 0x1f80 };
            assert_eq!(f(a, b).0, host(&x).flags as u32 & Status::ALL, "{insn} {x:x?}");
        }
    };
    check("ptest", host!("ptest xmm1, xmm2"), &|a, b| ptest(Width::Xmm, a, b));
    check("vptest", host!("vptest ymm1, ymm2"), &|a, b| ptest(Width::Ymm, a, b));
    check("vtestps", host!("vtestps xmm1, xmm2"), &|a, b| vtest::<u32>(Width::Xmm, a, b));
    check("vtestps", host!("vtestps ymm1, ymm2"), &|a, b| vtest::<u32>(Width::Ymm, a, b));
    check("vtestpd", host!("vtestpd xmm1, xmm2"), &|a, b| vtest::<u64>(Width::Xmm, a, b));
    check("vtestpd", host!("vtestpd ymm1, ymm2"), &|a, b| vtest::<u64>(Width::Ymm, a, b));
}
