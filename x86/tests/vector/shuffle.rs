use crate::host::In;
use x86::vector::shuffle::*;
use x86::vector::{V, Width};

#[test]
fn packs_and_unpacks() {
    if !host_has!("avx2") {
        return;
    }
    macro_rules! both {
        ($($insn:literal $f:expr;)*) => { $(
            check!(256, concat!("v", $insn, " ymm0, ymm1, ymm2"), |x: &In| $f(Width::Ymm, x.a, x.b));
            check!(mmx, concat!($insn, " mm0, mm2"), |x: &In| $f(Width::Mmx, x.d, x.b));
        )* };
    }
    both! {
        "packsswb" packsswb; "packssdw" packssdw; "packuswb" packuswb;
        "punpcklbw" punpckl::<u8>; "punpcklwd" punpckl::<u16>; "punpckldq" punpckl::<u32>;
        "punpckhbw" punpckh::<u8>; "punpckhwd" punpckh::<u16>; "punpckhdq" punpckh::<u32>;
        "pshufb" pshufb;
    }
    check!(256, "vpackusdw ymm0, ymm1, ymm2", |x| packusdw(Width::Ymm, x.a, x.b));
    check!(256, "vpunpcklqdq ymm0, ymm1, ymm2", |x| punpckl::<u64>(Width::Ymm, x.a, x.b));
    check!(256, "vpunpckhqdq ymm0, ymm1, ymm2", |x| punpckh::<u64>(Width::Ymm, x.a, x.b));
    check!(256, "vunpcklps ymm0, ymm1, ymm2", |x| punpckl::<u32>(Width::Ymm, x.a, x.b));
    check!(256, "vunpckhpd ymm0, ymm1, ymm2", |x| punpckh::<u64>(Width::Ymm, x.a, x.b));
    check!(128, "vmovlhps xmm0, xmm1, xmm2", |x| punpckl::<u64>(Width::Xmm, x.a, x.b));
    check!(128, "vmovhlps xmm0, xmm1, xmm2", |x| movhlps(x.a, x.b));
}

#[test]
fn shuffles() {
    if !host_has!("avx2") {
        return;
    }
    check_imm!(256, "vpshufd ymm0, ymm1, {imm}", |x: &In, imm| pshufd(x.a, imm));
    check_imm!(256, "vpshufhw ymm0, ymm1, {imm}", |x: &In, imm| pshufhw(x.a, imm));
    check_imm!(256, "vpshuflw ymm0, ymm1, {imm}", |x: &In, imm| pshuflw(x.a, imm));
    check_imm!(mmx, "pshufw mm0, mm1, {imm}", |x: &In, imm| pshuflw(x.a, imm));
    check_imm!(256, "vshufps ymm0, ymm1, ymm2, {imm}", |x: &In, imm| shufps(x.a, x.b, imm));
    check_imm!(256, "vshufpd ymm0, ymm1, ymm2, {imm}", |x: &In, imm| shufpd(x.a, x.b, imm));
    check_imm!(256, "vpermilps ymm0, ymm1, {imm}", |x: &In, imm| pshufd(x.a, imm));
    check_imm!(256, "vpermilpd ymm0, ymm1, {imm}", |x: &In, imm| vpermilpd_imm(x.a, imm));
    check_imm!(256, "vpermq ymm0, ymm1, {imm}", |x: &In, imm| vpermq(x.a, imm));
    check_imm!(256, "vpermpd ymm0, ymm1, {imm}", |x: &In, imm| vpermq(x.a, imm));
    check_imm!(256, "vperm2i128 ymm0, ymm1, ymm2, {imm}", |x: &In, imm| vperm2i128(x.a, x.b, imm));
    check_imm!(256, "vperm2f128 ymm0, ymm1, ymm2, {imm}", |x: &In, imm| vperm2i128(x.a, x.b, imm));
    check_imm!(256, "vpalignr ymm0, ymm1, ymm2, {imm}", |x: &In, imm| palignr(Width::Ymm, x.a, x.b, imm));
    check_imm!(mmx, "palignr mm0, mm2, {imm}", |x: &In, imm| palignr(Width::Mmx, x.d, x.b, imm));
    check!(256, "vpermilps ymm0, ymm1, ymm2", |x| vpermilps(x.a, x.b));
    check!(256, "vpermilpd ymm0, ymm1, ymm2", |x| vpermilpd(x.a, x.b));
    check!(256, "vpermd ymm0, ymm1, ymm2", |x| vpermd(x.a, x.b));
    check!(256, "vpermps ymm0, ymm1, ymm2", |x| vpermd(x.a, x.b));
    check!(256, "vmovsldup ymm0, ymm1", |x| movsldup(x.a));
    check!(256, "vmovshdup ymm0, ymm1", |x| movshdup(x.a));
    check!(256, "vmovddup ymm0, ymm1", |x| movddup(x.a));
}

#[test]
fn blends_and_insertions() {
    if !host_has!("avx2") {
        return;
    }
    check_imm!(256, "vpblendw ymm0, ymm1, ymm2, {imm}", |x: &In, imm| blend::<u16>(x.a, x.b, imm));
    check_imm!(256, "vpblendd ymm0, ymm1, ymm2, {imm}", |x: &In, imm| blend::<u32>(x.a, x.b, imm));
    check_imm!(256, "vblendps ymm0, ymm1, ymm2, {imm}", |x: &In, imm| blend::<u32>(x.a, x.b, imm));
    check_imm!(256, "vblendpd ymm0, ymm1, ymm2, {imm}", |x: &In, imm| blend::<u64>(x.a, x.b, imm));
    check!(256, "vpblendvb ymm0, ymm1, ymm2, ymm3", |x| blendv::<u8>(x.a, x.b, x.c));
    check!(256, "vblendvps ymm0, ymm1, ymm2, ymm3", |x| blendv::<u32>(x.a, x.b, x.c));
    check!(256, "vblendvpd ymm0, ymm1, ymm2, ymm3", |x| blendv::<u64>(x.a, x.b, x.c));
    check!(128, "vmovss xmm0, xmm1, xmm2", |x| move_low::<u32>(x.a, x.b));
    check!(128, "vmovsd xmm0, xmm1, xmm2", |x| move_low::<u64>(x.a, x.b));
    check_imm!(128, "vinsertps xmm0, xmm1, xmm2, {imm}", |x: &In, imm| insertps(x.a, x.b, imm));
    check_imm!(128, "vpinsrb xmm0, xmm1, eax, {imm}", |x: &In, imm| pinsr(Width::Xmm, x.a, x.rax as u8, imm));
    check_imm!(128, "vpinsrw xmm0, xmm1, eax, {imm}", |x: &In, imm| pinsr(Width::Xmm, x.a, x.rax as u16, imm));
    check_imm!(128, "vpinsrd xmm0, xmm1, eax, {imm}", |x: &In, imm| pinsr(Width::Xmm, x.a, x.rax as u32, imm));
    check_imm!(128, "vpinsrq xmm0, xmm1, rax, {imm}", |x: &In, imm| pinsr(Width::Xmm, x.a, x.rax, imm));
    check_imm!(256, "vinserti128 ymm0, ymm1, xmm2, {imm}", |x: &In, imm| vinserti128(x.a, x.b, imm));
    check_imm!(256, "vextracti128 xmm0, ymm1, {imm}", |x: &In, imm| vextracti128(x.a, imm));
    // The element of MMX is in a general register, and back: the low word of the result.
    check_imm!(
        mmx,
        "movd eax, mm2
                     pinsrw mm0, eax, {imm}",
        |x: &In, imm| pinsr(Width::Mmx, x.d, x.b.mmx() as u16, imm)
    );
    check_imm!(
        mmx,
        "pextrw eax, mm2, {imm}
                     movd mm0, eax",
        |x: &In, imm| V::from_mmx(pextr::<u16>(Width::Mmx, x.b, imm).into())
    );
    check_imm!(
        128,
        "vpextrb eax, xmm1, {imm}
                     vmovq xmm0, rax",
        |x: &In, imm| V::from_mmx(pextr::<u8>(Width::Xmm, x.a, imm).into())
    );
    check_imm!(
        128,
        "vpextrw eax, xmm1, {imm}
                     vmovq xmm0, rax",
        |x: &In, imm| V::from_mmx(pextr::<u16>(Width::Xmm, x.a, imm).into())
    );
    check_imm!(
        128,
        "vextractps eax, xmm1, {imm}
                     vmovq xmm0, rax",
        |x: &In, imm| V::from_mmx(pextr::<u32>(Width::Xmm, x.a, imm).into())
    );
    check_imm!(
        128,
        "vpextrq rax, xmm1, {imm}
                     vmovq xmm0, rax",
        |x: &In, imm| V::from_mmx(pextr::<u64>(Width::Xmm, x.a, imm))
    );
}

#[test]
fn broadcasts_and_extensions() {
    if !host_has!("avx2") {
        return;
    }
    check!(256, "vpbroadcastb ymm0, xmm1", |x| broadcast::<u8>(x.a));
    check!(256, "vpbroadcastw ymm0, xmm1", |x| broadcast::<u16>(x.a));
    check!(256, "vpbroadcastd ymm0, xmm1", |x| broadcast::<u32>(x.a));
    check!(256, "vbroadcastsd ymm0, xmm1", |x| broadcast::<u64>(x.a));
    check!(256, "vperm2i128 ymm0, ymm1, ymm1, 0", |x| broadcast::<u128>(x.a));
    check!(256, "vpmovzxbw ymm0, xmm1", |x| pmovx::<u8, u16>(x.a));
    check!(256, "vpmovzxbd ymm0, xmm1", |x| pmovx::<u8, u32>(x.a));
    check!(256, "vpmovzxbq ymm0, xmm1", |x| pmovx::<u8, u64>(x.a));
    check!(256, "vpmovzxwd ymm0, xmm1", |x| pmovx::<u16, u32>(x.a));
    check!(256, "vpmovzxwq ymm0, xmm1", |x| pmovx::<u16, u64>(x.a));
    check!(256, "vpmovzxdq ymm0, xmm1", |x| pmovx::<u32, u64>(x.a));
    check!(256, "vpmovsxbw ymm0, xmm1", |x| pmovx::<i8, i16>(x.a));
    check!(256, "vpmovsxbd ymm0, xmm1", |x| pmovx::<i8, i32>(x.a));
    check!(256, "vpmovsxbq ymm0, xmm1", |x| pmovx::<i8, i64>(x.a));
    check!(256, "vpmovsxwd ymm0, xmm1", |x| pmovx::<i16, i32>(x.a));
    check!(256, "vpmovsxwq ymm0, xmm1", |x| pmovx::<i16, i64>(x.a));
    check!(256, "vpmovsxdq ymm0, xmm1", |x| pmovx::<i32, i64>(x.a));
}

#[test]
fn masks() {
    if !host_has!("avx2") {
        return;
    }
    let mask = |m: u32| V::from_mmx(m.into());
    check!(
        64,
        "vpmovmskb eax, ymm1
                vmovq xmm0, rax",
        |x| mask(movmsk::<u8>(Width::Ymm, x.a))
    );
    check!(
        64,
        "vpmovmskb eax, xmm1
                vmovq xmm0, rax",
        |x| mask(movmsk::<u8>(Width::Xmm, x.a))
    );
    check!(
        64,
        "vmovmskps eax, ymm1
                vmovq xmm0, rax",
        |x| mask(movmsk::<u32>(Width::Ymm, x.a))
    );
    check!(
        64,
        "vmovmskpd eax, ymm1
                vmovq xmm0, rax",
        |x| mask(movmsk::<u64>(Width::Ymm, x.a))
    );
    check!(
        64,
        "vmovmskpd eax, xmm1
                vmovq xmm0, rax",
        |x| mask(movmsk::<u64>(Width::Xmm, x.a))
    );
    check!(
        mmx,
        "pmovmskb eax, mm1
                 movd mm0, eax",
        |x| mask(movmsk::<u8>(Width::Mmx, x.a))
    );
}

/// A gather from a table in memory, element by element as a caller does it.
#[test]
fn gathers() {
    if !host_has!("avx2") {
        return;
    }
    let table: Vec<u32> = (0..4096u32).map(|i| i.wrapping_mul(0x9e37_79b9)).collect();
    let base = table.as_ptr() as u64 + 8192;
    let at = |offset: u64, bytes: usize| {
        let first = (offset as i64 + 8192) as usize;
        (0..bytes).fold(0, |x, i| x | u64::from(table[(first + i) / 4].to_le_bytes()[(first + i) % 4]) << (8 * i))
    };
    let mut random = crate::host::Random::new("gathers");
    let doublewords = host!("vpgatherdd ymm0, [rax + 4 * ymm1], ymm2");
    let quadwords = host!("vpgatherqq ymm0, [rax + 8 * ymm1], ymm2");
    for _ in 0..5000 {
        let (d, b) = (random.integers(), random.integers());
        let mut index = |_| random.below(800) as i64 - 400;
        let a = V::build(|i| index(i) as i32);
        let x = In { d, a, b, c: d, rax: base, rdx: 0, mxcsr: 0x1f80 };
        let mask = movmsk::<u32>(Width::Ymm, b);
        let ours =
            V::build(
                |i| {
                    if mask >> i & 1 != 0 { at(gather_offset::<i32>(a, i, 4), 4) as u32 } else { d.get::<u32>(i) }
                },
            );
        assert_eq!(ours, doublewords(&x).v);
        let a = V::build(&mut index);
        let x = In { a, ..x };
        let mask = movmsk::<u64>(Width::Ymm, b);
        let ours =
            V::build(|i| if mask >> i & 1 != 0 { at(gather_offset::<i64>(a, i, 8), 8) } else { d.get::<u64>(i) });
        assert_eq!(ours, quadwords(&x).v);
    }
}
