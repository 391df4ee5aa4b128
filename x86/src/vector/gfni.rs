//! GFNI: arithmetic in GF(2^8) (SDM vol. 2, "GF2P8MULB", "GF2P8AFFINEQB", "GF2P8AFFINEINVQB").

use super::V;
use super::aes::{inverse, multiply};

/// GF2P8MULB: products modulo x^8 + x^4 + x^3 + x + 1.
pub fn gf2p8mulb(a: V, b: V) -> V {
    a.zip(b, multiply)
}

/// Each byte of `a` times the matrix of 8 by 8 bits that is the quadword of `b` at the same place, plus `c`: row 0 is the
/// quadword's highest byte, and bit i of the product is the parity of row `7 - i` and the byte.
fn affine(a: V, b: V, c: u8, f: fn(u8) -> u8) -> V {
    let (a, b) = (a.bytes(), b.bytes());
    V::build(|k| {
        let x = f(a[k]);
        (0..8).fold(c, |y, i| y ^ ((b[k / 8 * 8 + 7 - i] & x).count_ones() as u8 & 1) << i)
    })
}

/// GF2P8AFFINEQB.
pub fn gf2p8affineqb(a: V, b: V, imm: u8) -> V {
    affine(a, b, imm, |x| x)
}

/// GF2P8AFFINEINVQB: of the bytes' inverses.
pub fn gf2p8affineinvqb(a: V, b: V, imm: u8) -> V {
    affine(a, b, imm, inverse)
}
