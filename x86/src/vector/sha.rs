//! SHA: instructions for SHA-1 and SHA-256 (SDM vol. 1, "Intel SHA Extensions"; FIPS 180-4).
//!
//! The manual numbers the words from the top for SHA-1 (A is bits 127:96), so they are reversed on the way in and out.

use super::{Lane, V};

/// The four doublewords of a block, the highest first.
fn from_top(a: V) -> [u32; 4] {
    [3, 2, 1, 0].map(|i| a.get(i))
}

/// The inverse of [`from_top`].
fn to_top(x: [u32; 4]) -> V {
    u32::join([x[3], x[2], x[1], x[0], 0, 0, 0, 0])
}

/// FIPS 180-4, "Ch(x, y, z)".
fn ch(x: u32, y: u32, z: u32) -> u32 {
    x & y ^ !x & z
}

/// FIPS 180-4, "Maj(x, y, z)".
fn maj(x: u32, y: u32, z: u32) -> u32 {
    x & y ^ x & z ^ y & z
}

/// FIPS 180-4, "Parity(x, y, z)".
fn parity(x: u32, y: u32, z: u32) -> u32 {
    x ^ y ^ z
}

/// SHA1RNDS4: four rounds; the immediate's bits 1:0 choose the function and the constant.
pub fn sha1rnds4(a: V, b: V, imm: u8) -> V {
    let (f, k): (fn(u32, u32, u32) -> u32, u32) = match imm & 3 {
        0 => (ch, 0x5a82_7999),
        1 => (parity, 0x6ed9_eba1),
        2 => (maj, 0x8f1b_bcdc),
        _ => (parity, 0xca62_c1d6),
    };
    let words = from_top(b);
    let [mut a, mut b, mut c, mut d] = from_top(a);
    let mut e = 0u32; // the first word has it added already: SHA1NEXTE
    for w in words {
        let next = f(b, c, d).wrapping_add(a.rotate_left(5)).wrapping_add(w).wrapping_add(e).wrapping_add(k);
        (a, b, c, d, e) = (next, a, b.rotate_left(30), c, d);
    }
    to_top([a, b, c, d])
}

/// SHA1NEXTE: E after four rounds, added to the next words.
pub fn sha1nexte(a: V, b: V) -> V {
    let e = from_top(a)[0].rotate_left(30);
    let [w0, w1, w2, w3] = from_top(b);
    to_top([w0.wrapping_add(e), w1, w2, w3])
}

/// SHA1MSG1: the first step to the next four words of the message.
pub fn sha1msg1(a: V, b: V) -> V {
    let ([w0, w1, w2, w3], [w4, w5, _, _]) = (from_top(a), from_top(b));
    to_top([w2 ^ w0, w3 ^ w1, w4 ^ w2, w5 ^ w3])
}

/// SHA1MSG2: the last step to the next four words of the message.
pub fn sha1msg2(a: V, b: V) -> V {
    let ([x0, x1, x2, x3], [_, w13, w14, w15]) = (from_top(a), from_top(b));
    let w16 = (x0 ^ w13).rotate_left(1);
    to_top([w16, (x1 ^ w14).rotate_left(1), (x2 ^ w15).rotate_left(1), (x3 ^ w16).rotate_left(1)])
}

/// SHA256RNDS2: two rounds. `wk` is XMM0: words of the message with the constants added.
pub fn sha256rnds2(a: V, b: V, wk: V) -> V {
    let ([mut c, mut d, mut g, mut h], [mut a, mut b, mut e, mut f]) = (from_top(a), from_top(b));
    for i in 0..2 {
        let big_sigma_1 = e.rotate_right(6) ^ e.rotate_right(11) ^ e.rotate_right(25);
        let big_sigma_0 = a.rotate_right(2) ^ a.rotate_right(13) ^ a.rotate_right(22);
        let t1 = h.wrapping_add(big_sigma_1).wrapping_add(ch(e, f, g)).wrapping_add(wk.get(i));
        let t2 = big_sigma_0.wrapping_add(maj(a, b, c));
        (h, g, f, e, d, c, b, a) = (g, f, e, d.wrapping_add(t1), c, b, a, t1.wrapping_add(t2));
    }
    to_top([a, b, e, f])
}

fn sigma_0(x: u32) -> u32 {
    x.rotate_right(7) ^ x.rotate_right(18) ^ x >> 3
}

fn sigma_1(x: u32) -> u32 {
    x.rotate_right(17) ^ x.rotate_right(19) ^ x >> 10
}

/// SHA256MSG1: the first step to the next four words of the message.
pub fn sha256msg1(a: V, b: V) -> V {
    let ([w3, w2, w1, w0], w4) = (from_top(a), b.get::<u32>(0));
    to_top([(w3, w4), (w2, w3), (w1, w2), (w0, w1)].map(|(w, next)| w.wrapping_add(sigma_0(next))))
}

/// SHA256MSG2: the last step to the next four words of the message.
pub fn sha256msg2(a: V, b: V) -> V {
    let ([x3, x2, x1, x0], [w15, w14, _, _]) = (from_top(a), from_top(b));
    let (w16, w17) = (x0.wrapping_add(sigma_1(w14)), x1.wrapping_add(sigma_1(w15)));
    let (w18, w19) = (x2.wrapping_add(sigma_1(w16)), x3.wrapping_add(sigma_1(w17)));
    to_top([w19, w18, w17, w16])
}
