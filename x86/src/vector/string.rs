//! SSE4.2: PCMPESTRI, PCMPESTRM, PCMPISTRI, PCMPISTRM, CRC32 (SDM vol. 2, "Imm8 Control Byte Operation for PCMPESTRI /
//! PCMPESTRM / PCMPISTRI / PCMPISTRM").

use super::{Lane, Status, V};

/// PCMPESTRI: the index for ECX. The lengths are EAX and EDX, or RAX and RDX where REX.W is set.
pub fn pcmpestri(a: V, a_length: i64, b: V, b_length: i64, imm: u8) -> (u32, Status) {
    let compared = Compared::explicit(a, a_length, b, b_length, imm);
    (compared.index(imm), compared.status())
}

/// PCMPESTRM: the mask for XMM0.
pub fn pcmpestrm(a: V, a_length: i64, b: V, b_length: i64, imm: u8) -> (V, Status) {
    let compared = Compared::explicit(a, a_length, b, b_length, imm);
    (compared.mask(imm), compared.status())
}

/// PCMPISTRI: the index for ECX.
pub fn pcmpistri(a: V, b: V, imm: u8) -> (u32, Status) {
    let compared = Compared::implicit(a, b, imm);
    (compared.index(imm), compared.status())
}

/// PCMPISTRM: the mask for XMM0.
pub fn pcmpistrm(a: V, b: V, imm: u8) -> (V, Status) {
    let compared = Compared::implicit(a, b, imm);
    (compared.mask(imm), compared.status())
}

/// Whether bit 0 of the immediate asks for words, not bytes.
fn is_words(imm: u8) -> bool {
    imm & 1 != 0
}

/// The number of elements.
fn count(imm: u8) -> usize {
    if is_words(imm) { 8 } else { 16 }
}

/// "Source Data Format": the elements, extended.
fn elements(a: V, imm: u8) -> [i32; 16] {
    let element: &dyn Fn(usize) -> i32 = match imm & 3 {
        0b00 => &|i| a.get::<u8>(i).into(),
        0b01 => &|i| a.get::<u16>(i).into(),
        0b10 => &|i| a.get::<i8>(i).into(),
        _ => &|i| a.get::<i16>(i).into(),
    };
    core::array::from_fn(element)
}

/// A string operand: its elements, and how many of them are valid.
struct Fragment {
    elements: [i32; 16],
    valid: usize,
}

impl Fragment {
    fn explicit(a: V, length: i64, imm: u8) -> Fragment {
        let valid = length.unsigned_abs().min(count(imm) as u64) as usize;
        Fragment { elements: elements(a, imm), valid }
    }

    fn implicit(a: V, imm: u8) -> Fragment {
        let elements = elements(a, imm);
        let valid = elements[..count(imm)].iter().position(|x| *x == 0).unwrap_or(count(imm));
        Fragment { elements, valid }
    }
}

/// The result of a comparison, before it is made an index or a mask.
struct Compared {
    /// IntRes2.
    bits: u16,
    count: usize,
    a_valid: usize,
    b_valid: usize,
}

impl Compared {
    fn explicit(a: V, a_length: i64, b: V, b_length: i64, imm: u8) -> Compared {
        Compared::new(&Fragment::explicit(a, a_length, imm), &Fragment::explicit(b, b_length, imm), imm)
    }

    fn implicit(a: V, b: V, imm: u8) -> Compared {
        Compared::new(&Fragment::implicit(a, imm), &Fragment::implicit(b, imm), imm)
    }

    fn new(a: &Fragment, b: &Fragment, imm: u8) -> Compared {
        let n = count(imm);
        let all = if is_words(imm) { 0x00ff } else { 0xffff };
        let int_res1 = aggregate(a, b, imm);
        let valid = ((1u32 << b.valid) - 1) as u16;
        // "Polarity"
        let bits = match imm >> 4 & 3 {
            0b01 => !int_res1 & all,
            0b11 => int_res1 ^ valid,
            _ => int_res1,
        };
        Compared { bits, count: n, a_valid: a.valid, b_valid: b.valid }
    }

    /// "Output Selection", an index: of the lowest or, where bit 6 is set, of the highest bit.
    fn index(&self, imm: u8) -> u32 {
        match imm >> 6 & 1 {
            _ if self.bits == 0 => self.count as u32,
            0 => self.bits.trailing_zeros(),
            _ => self.bits.ilog2(),
        }
    }

    /// "Output Selection", a mask: of bits or, where bit 6 is set, of elements.
    fn mask(&self, imm: u8) -> V {
        let bit = |i: usize| i < self.count && self.bits >> i & 1 != 0;
        let v = match (imm >> 6 & 1, is_words(imm)) {
            (0, _) => V::from_mmx(self.bits.into()),
            (_, false) => V::build(|i| u8::ones_if(i < 16 && bit(i))),
            (_, true) => V::build(|i| u16::ones_if(i < 8 && bit(i))),
        };
        V::from_xmm(v.xmm())
    }

    fn status(&self) -> Status {
        Status::of(&[
            (Status::CF, self.bits != 0),
            (Status::ZF, self.b_valid < self.count),
            (Status::SF, self.a_valid < self.count),
            (Status::OF, self.bits & 1 != 0),
        ])
    }
}

/// "Aggregation Operation": IntRes1. Invalid elements are overridden as "Valid/Invalid Override of Comparisons" says.
fn aggregate(a: &Fragment, b: &Fragment, imm: u8) -> u16 {
    let n = count(imm);
    let bits = |f: &dyn Fn(usize) -> bool| (0..n).fold(0, |bits, j| bits | u16::from(f(j)) << j);
    let equal = |i: usize, j: usize| a.elements[i] == b.elements[j];
    match imm >> 2 & 3 {
        // Equal any: an element of b is one of the set a.
        0b00 => bits(&|j| j < b.valid && (0..a.valid).any(|i| equal(i, j))),
        // Ranges: an element of b is in one of the ranges a.
        0b01 => bits(&|j| {
            let within = |i: usize| a.elements[i] <= b.elements[j] && b.elements[j] <= a.elements[i + 1];
            j < b.valid && (0..a.valid / 2).any(|k| within(2 * k))
        }),
        // Equal each: the elements are equal in pairs; both beyond the end is equal.
        0b10 => bits(&|j| match (j < a.valid, j < b.valid) {
            (true, true) => equal(j, j),
            (false, false) => true,
            _ => false,
        }),
        // Equal ordered: the string a begins there in b; it may go on beyond the fragment.
        _ => bits(&|j| (0..n - j).all(|i| i >= a.valid || (i + j < b.valid && equal(i, i + j)))),
    }
}

/// The polynomial of CRC-32C, 11EDC6F41H, its bits reversed.
const CRC32C: u32 = 0x82f6_3b78;

/// What a byte adds to the remainder.
const CRC32C_OF_BYTE: [u32; 256] = {
    let mut table = [0; 256];
    let mut byte = 0;
    while byte < 256 {
        let mut crc = byte as u32;
        let mut bit = 0;
        while bit < 8 {
            crc = if crc & 1 != 0 { crc >> 1 ^ CRC32C } else { crc >> 1 };
            bit += 1;
        }
        table[byte] = crc;
        byte += 1;
    }
    table
};

/// CRC32: accumulates the low `bytes` bytes (1, 2, 4 or 8) of `data`. The result is zero-extended to the destination.
pub fn crc32(crc: u32, data: u64, bytes: usize) -> u32 {
    data.to_le_bytes()[..bytes].iter().fold(crc, |crc, byte| crc >> 8 ^ CRC32C_OF_BYTE[(crc as u8 ^ byte) as usize])
}
