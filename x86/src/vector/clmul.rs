//! PCLMULQDQ, VPCLMULQDQ.

use super::V;

/// The product of polynomials over GF(2): four bits of `b` at a time.
fn carryless_product(a: u64, b: u64) -> u128 {
    let mut multiples = [0; 16];
    for i in 1..16 {
        multiples[i] = multiples[i / 2] << 1 ^ if i % 2 != 0 { u128::from(a) } else { 0 };
    }
    (0..16).rev().fold(0, |product, i| product << 4 ^ multiples[(b >> (4 * i) & 15) as usize])
}

/// PCLMULQDQ: in each block, of the quadword of `a` that bit 0 of the immediate chooses, and that of `b` which bit 4 does.
pub fn pclmulqdq(a: V, b: V, imm: u8) -> V {
    let chosen = |x: u128, high: u8| (x >> (64 * (high & 1))) as u64;
    a.zip(b, |x: u128, y| carryless_product(chosen(x, imm), chosen(y, imm >> 4)))
}
