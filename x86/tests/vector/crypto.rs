use crate::host::In;
use x86::vector::{aes::*, clmul::*, gfni::*, sha::*, sse4a::*};

#[test]
fn aes_rounds() {
    if !host_has!("avx", "aes") {
        return;
    }
    check!(128, "vaesenc xmm0, xmm1, xmm2", |x| aesenc(x.a, x.b));
    check!(128, "vaesenclast xmm0, xmm1, xmm2", |x| aesenclast(x.a, x.b));
    check!(128, "vaesdec xmm0, xmm1, xmm2", |x| aesdec(x.a, x.b));
    check!(128, "vaesdeclast xmm0, xmm1, xmm2", |x| aesdeclast(x.a, x.b));
    check!(128, "vaesimc xmm0, xmm1", |x| aesimc(x.a));
    check_imm!(128, "vaeskeygenassist xmm0, xmm1, {imm}", |x: &In, imm| aeskeygenassist(x.a, imm));
}

#[test]
fn vaes_rounds() {
    if !host_has!("avx", "vaes") {
        return;
    }
    check!(256, "vaesenc ymm0, ymm1, ymm2", |x| aesenc(x.a, x.b));
    check!(256, "vaesenclast ymm0, ymm1, ymm2", |x| aesenclast(x.a, x.b));
    check!(256, "vaesdec ymm0, ymm1, ymm2", |x| aesdec(x.a, x.b));
    check!(256, "vaesdeclast ymm0, ymm1, ymm2", |x| aesdeclast(x.a, x.b));
}

#[test]
fn carryless_products() {
    if !host_has!("avx", "pclmulqdq") {
        return;
    }
    check_imm!(128, "vpclmulqdq xmm0, xmm1, xmm2, {imm}", |x: &In, imm| pclmulqdq(x.a, x.b, imm));
    if !host_has!("vpclmulqdq") {
        return;
    }
    check_imm!(256, "vpclmulqdq ymm0, ymm1, ymm2, {imm}", |x: &In, imm| pclmulqdq(x.a, x.b, imm));
}

#[test]
fn sha_rounds() {
    if !host_has!("avx", "sha") {
        return;
    }
    // Legacy instructions: xmm0 is the destination, and XMM0 itself the implicit operand of SHA256RNDS2.
    check_imm!(128, "sha1rnds4 xmm0, xmm2, ({imm} & 3)", |x: &In, imm| sha1rnds4(x.d, x.b, imm));
    check!(128, "sha1nexte xmm0, xmm2", |x| sha1nexte(x.d, x.b));
    check!(128, "sha1msg1 xmm0, xmm2", |x| sha1msg1(x.d, x.b));
    check!(128, "sha1msg2 xmm0, xmm2", |x| sha1msg2(x.d, x.b));
    check!(
        128,
        "sha256rnds2 xmm1, xmm2, xmm0
                 movdqa xmm0, xmm1",
        |x| sha256rnds2(x.a, x.b, x.d)
    );
    check!(128, "sha256msg1 xmm0, xmm2", |x| sha256msg1(x.d, x.b));
    check!(128, "sha256msg2 xmm0, xmm2", |x| sha256msg2(x.d, x.b));
}

#[test]
fn galois_fields() {
    if !host_has!("avx", "gfni") {
        return;
    }
    check!(256, "vgf2p8mulb ymm0, ymm1, ymm2", |x| gf2p8mulb(x.a, x.b));
    check_imm!(256, "vgf2p8affineqb ymm0, ymm1, ymm2, {imm}", |x: &In, imm| gf2p8affineqb(x.a, x.b, imm));
    check_imm!(256, "vgf2p8affineinvqb ymm0, ymm1, ymm2, {imm}", |x: &In, imm| gf2p8affineinvqb(x.a, x.b, imm));
}

/// Fields within the quadword: others are undefined.
#[test]
fn bit_fields() {
    if !host_has!("avx", "sse4a") {
        return;
    }
    let fields = |x: u64| {
        let (length, index) = (x as u8 & 63, (x >> 8) as u8 & 63);
        if length == 0 { (0, 0) } else { (length, index.min(64 - length)) }
    };
    check!(64, "extrq xmm0, 17, 5", |x| extrq(x.d, 17, 5));
    check!(64, "extrq xmm0, 0, 0", |x| extrq(x.d, 0, 0));
    check!(64, "insertq xmm0, xmm2, 40, 20", |x| insertq(x.d, x.b, 40, 20));
    let (extract, insert) = (host!("extrq xmm0, xmm2"), host!("insertq xmm0, xmm2"));
    let mut random = crate::host::Random::new("extrq");
    for _ in 0..20_000 {
        let (d, value) = (random.integers(), random.integers());
        let (length, index) = fields(random.word());
        let control = u64::from(length) | u64::from(index) << 8;
        let x = In { d, a: d, b: x86::vector::V::from_mmx(control), c: d, rax: 0, rdx: 0, mxcsr: 0x1f80 };
        assert_eq!(extract(&x).v.mmx(), extrq(d, length, index).mmx());
        let x = In { b: x86::vector::V::from_words([value.mmx(), control, 0, 0]), ..x };
        assert_eq!(insert(&x).v.mmx(), insertq(d, value, length, index).mmx());
    }
}
