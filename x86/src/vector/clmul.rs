//! PCLMULQDQ, VPCLMULQDQ.

use super::V;

/// The product of polynomials over GF(2).
fn carryless_product(a: u64, b: u64) -> u128 {
    (0..64).filter(|i| b >> i & 1 != 0).fold(0, |product, i| product ^ u128::from(a) << i)
}

/// PCLMULQDQ: in each block, of the quadword of `a` that bit 0 of the immediate chooses, and that of `b` which bit 4 does.
pub fn pclmulqdq(a: V, b: V, imm: u8) -> V {
    let chosen = |x: u128, high: u8| (x >> (64 * (high & 1))) as u64;
    a.zip(b, |x: u128, y| carryless_product(chosen(x, imm), chosen(y, imm >> 4)))
}
