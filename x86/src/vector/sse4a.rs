//! SSE4A: EXTRQ, INSERTQ (APM vol. 4). MOVNTSS and MOVNTSD are plain stores.

use super::V;

/// A mask of so many bits: 0 is 64.
fn mask(length: u8) -> u64 {
    u64::MAX >> ((64 - length) % 64)
}

/// EXTRQ: of the low quadword, `length` bits from number `index` on. Both are taken modulo 64; a length of 0 is 64. The
/// register form has them in bits 5:0 and 13:8 of its second operand. The high quadword is undefined; it is cleared, as processors
/// do.
pub fn extrq(a: V, length: u8, index: u8) -> V {
    V::from_mmx(a.mmx() >> (index & 63) & mask(length & 63))
}

/// INSERTQ: the low `length` bits of `b` at number `index` of `a`. The register form has them in bits 69:64 and 77:72 of its
/// second operand. The high quadword is undefined; it is cleared, as processors
/// do.
pub fn insertq(a: V, b: V, length: u8, index: u8) -> V {
    let (mask, index) = (mask(length & 63), index & 63);
    V::from_mmx(a.mmx() & !(mask << index) | (b.mmx() & mask) << index)
}
