//! AES and, on both blocks of 256 bits, VAES (SDM vol. 1, "Programming with AES", FIPS 197).

use super::{Lane, V};

/// x times the polynomial x, modulo x^8 + x^4 + x^3 + x + 1.
const fn xtime(x: u8) -> u8 {
    x << 1 ^ if x & 0x80 != 0 { 0x1b } else { 0 }
}

/// The product in GF(2^8), modulo x^8 + x^4 + x^3 + x + 1.
pub(super) const fn multiply(a: u8, b: u8) -> u8 {
    let (mut product, mut a, mut b) = (0, a, b);
    while b != 0 {
        if b & 1 != 0 {
            product ^= a;
        }
        a = xtime(a);
        b >>= 1;
    }
    product
}

/// The inverse in GF(2^8): `x^254`. That of zero is zero.
pub(super) const fn inverse(x: u8) -> u8 {
    let (mut power, mut square, mut bit) = (1, x, 1);
    while bit < 8 {
        square = multiply(square, square);
        power = multiply(power, square);
        bit += 1;
    }
    power
}

/// FIPS 197, "SubBytes() Transformation".
const S_BOX: [u8; 256] = {
    let mut table = [0; 256];
    let mut x = 0;
    while x < 256 {
        let y = inverse(x as u8);
        table[x] = y ^ y.rotate_left(1) ^ y.rotate_left(2) ^ y.rotate_left(3) ^ y.rotate_left(4) ^ 0x63;
        x += 1;
    }
    table
};

/// FIPS 197, "InvSubBytes() Transformation".
const INVERSE_S_BOX: [u8; 256] = {
    let mut table = [0; 256];
    let mut x = 0;
    while x < 256 {
        table[S_BOX[x] as usize] = x as u8;
        x += 1;
    }
    table
};

/// The products of every byte with a constant.
const fn multiples(by: u8) -> [u8; 256] {
    let mut table = [0; 256];
    let mut x = 0;
    while x < 256 {
        table[x] = multiply(x as u8, by);
        x += 1;
    }
    table
}

const TIMES_9: [u8; 256] = multiples(0x9);
const TIMES_B: [u8; 256] = multiples(0xb);
const TIMES_D: [u8; 256] = multiples(0xd);
const TIMES_E: [u8; 256] = multiples(0xe);

/// The state: byte `4 * c + r` is in row r, column c.
type State = [u8; 16];

/// FIPS 197, "ShiftRows() Transformation": row r moves left by r columns.
fn shift_rows(s: State) -> State {
    core::array::from_fn(|i| s[(i + 4 * (i % 4)) % 16])
}

fn inv_shift_rows(s: State) -> State {
    core::array::from_fn(|i| s[(i + 16 - 4 * (i % 4)) % 16])
}

fn sub_bytes(s: State) -> State {
    s.map(|x| S_BOX[usize::from(x)])
}

fn inv_sub_bytes(s: State) -> State {
    s.map(|x| INVERSE_S_BOX[usize::from(x)])
}

/// FIPS 197, "MixColumns() Transformation".
fn mix_columns(s: State) -> State {
    core::array::from_fn(|i| {
        let column = |k: usize| s[i / 4 * 4 + (i + k) % 4];
        xtime(column(0)) ^ xtime(column(1)) ^ column(1) ^ column(2) ^ column(3)
    })
}

/// FIPS 197, "InvMixColumns() Transformation".
fn inv_mix_columns(s: State) -> State {
    core::array::from_fn(|i| {
        let column = |k: usize| usize::from(s[i / 4 * 4 + (i + k) % 4]);
        TIMES_E[column(0)] ^ TIMES_B[column(1)] ^ TIMES_D[column(2)] ^ TIMES_9[column(3)]
    })
}

/// Each block transformed, then the round key added.
fn round(state: V, key: V, f: impl Fn(State) -> State) -> V {
    state.zip(key, |s: u128, k| u128::from_le_bytes(f(s.to_le_bytes())) ^ k)
}

/// AESENC, VAESENC: one round of encryption.
pub fn aesenc(state: V, key: V) -> V {
    round(state, key, |s| mix_columns(sub_bytes(shift_rows(s))))
}

/// AESENCLAST, VAESENCLAST: the last round of encryption.
pub fn aesenclast(state: V, key: V) -> V {
    round(state, key, |s| sub_bytes(shift_rows(s)))
}

/// AESDEC, VAESDEC: one round of decryption, by the "Equivalent Inverse Cipher".
pub fn aesdec(state: V, key: V) -> V {
    round(state, key, |s| inv_mix_columns(inv_sub_bytes(inv_shift_rows(s))))
}

/// AESDECLAST, VAESDECLAST: the last round of decryption.
pub fn aesdeclast(state: V, key: V) -> V {
    round(state, key, |s| inv_sub_bytes(inv_shift_rows(s)))
}

/// AESIMC: a round key for decryption.
pub fn aesimc(key: V) -> V {
    round(key, V::ZERO, inv_mix_columns)
}

/// AESKEYGENASSIST: a step of the key expansion; the immediate is the round constant.
pub fn aeskeygenassist(a: V, rcon: u8) -> V {
    let sub_word = |x: u32| u32::from_le_bytes(x.to_le_bytes().map(|x| S_BOX[usize::from(x)]));
    let (x1, x3) = (sub_word(a.get(1)), sub_word(a.get(3)));
    let rotated = |x: u32| x.rotate_right(8) ^ u32::from(rcon);
    u32::join([x1, rotated(x1), x3, rotated(x3), 0, 0, 0, 0])
}
