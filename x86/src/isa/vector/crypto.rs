//! AES, SHA, carry-less products, GF(2^8), and the strings of SSE4.2.

use super::table::{Row, rows};
use crate::registers::{RAX, RDX};
use crate::vector::{aes, clmul, gfni, sha, string};

pub(super) const ROWS: &[Row] = rows! {
    Aesenc Vaesenc |x| aes::aesenc(x.a, x.b);
    Aesenclast Vaesenclast |x| aes::aesenclast(x.a, x.b);
    Aesdec Vaesdec |x| aes::aesdec(x.a, x.b);
    Aesdeclast Vaesdeclast |x| aes::aesdeclast(x.a, x.b);
    Aesimc Vaesimc |x| aes::aesimc(x.b);
    Aeskeygenassist Vaeskeygenassist |x| aes::aeskeygenassist(x.b, x.imm);
    Pclmulqdq Vpclmulqdq |x| clmul::pclmulqdq(x.a, x.b, x.imm);
    Sha1nexte INVALID |x| sha::sha1nexte(x.a, x.b);
    Sha1msg1 INVALID |x| sha::sha1msg1(x.a, x.b);
    Sha1msg2 INVALID |x| sha::sha1msg2(x.a, x.b);
    Sha1rnds4 INVALID |x| sha::sha1rnds4(x.a, x.b, x.imm);
    Sha256msg1 INVALID |x| sha::sha256msg1(x.a, x.b);
    Sha256msg2 INVALID |x| sha::sha256msg2(x.a, x.b);
    Sha256rnds2 INVALID |x| sha::sha256rnds2(x.a, x.b, x.register(x.imm));
    Gf2p8mulb Vgf2p8mulb |x| gfni::gf2p8mulb(x.a, x.b);
    Gf2p8affineqb Vgf2p8affineqb |x| gfni::gf2p8affineqb(x.a, x.b, x.imm);
    Gf2p8affineinvqb Vgf2p8affineinvqb |x| gfni::gf2p8affineinvqb(x.a, x.b, x.imm);
    Pcmpistri Vpcmpistri |x| string::pcmpistri(x.a, x.b, x.imm);
    Pcmpistrm Vpcmpistrm |x| string::pcmpistrm(x.a, x.b, x.imm);
    Pcmpestri Vpcmpestri |x| string::pcmpestri(x.a, x.length(RAX), x.b, x.length(RDX), x.imm);
    Pcmpestrm Vpcmpestrm |x| string::pcmpestrm(x.a, x.length(RAX), x.b, x.length(RDX), x.imm);
    Pcmpestri64 Vpcmpestri64 |x| string::pcmpestri(x.a, x.long_length(RAX), x.b, x.long_length(RDX), x.imm);
    Pcmpestrm64 Vpcmpestrm64 |x| string::pcmpestrm(x.a, x.long_length(RAX), x.b, x.long_length(RDX), x.imm);
};
