use crate::host::In;
use x86::vector::{aes::*, clmul::*, sha::*};

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
