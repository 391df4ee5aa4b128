//! Elements moved about: packs, unpacks, shuffles, permutations, blends, insertions, broadcasts, extensions, masks.

use super::{Lane, V, Width};

/// Element `i` is that of `source(i)`: an operand and an element of it.
#[inline(always)]
fn pick<T: Lane>(operands: [V; 2], source: impl Fn(usize) -> (usize, usize)) -> V {
    let operands = operands.map(T::split);
    V::build(|i| {
        let (operand, at) = source(i);
        operands[operand].as_ref()[at]
    })
}

/// Element `i` is element `source(i)` of `a`.
#[inline(always)]
fn permute<T: Lane>(a: V, source: impl Fn(usize) -> usize) -> V {
    let a = T::split(a);
    V::build(|i| a.as_ref()[source(i)])
}

/// Of each block, the elements of `a` and then those of `b`, each made narrower by `f`.
#[inline(always)]
fn pack<From: Lane, To: Lane>(w: Width, a: V, b: V, f: impl Fn(From) -> To) -> V {
    let narrow = |v: V| {
        let (v, mut all) = (From::split(v), To::split(V::ZERO));
        for (y, x) in all.as_mut().iter_mut().zip(v.as_ref()) {
            *y = f(*x);
        }
        To::join(all)
    };
    let (a, b) = (narrow(a), narrow(b));
    match w {
        Width::Mmx => a.with(1, b.get::<u32>(0)),
        _ => V::from_words([a.get(0), b.get(0), a.get(1), b.get(1)]),
    }
}

/// PACKSSWB.
pub fn packsswb(w: Width, a: V, b: V) -> V {
    pack(w, a, b, |x: i16| x.clamp(i8::MIN.into(), i8::MAX.into()) as i8)
}

/// PACKSSDW.
pub fn packssdw(w: Width, a: V, b: V) -> V {
    pack(w, a, b, |x: i32| x.clamp(i16::MIN.into(), i16::MAX.into()) as i16)
}

/// PACKUSWB: of signed words.
pub fn packuswb(w: Width, a: V, b: V) -> V {
    pack(w, a, b, |x: i16| x.clamp(0, u8::MAX.into()) as u8)
}

/// PACKUSDW: of signed doublewords.
pub fn packusdw(w: Width, a: V, b: V) -> V {
    pack(w, a, b, |x: i32| x.clamp(0, u16::MAX.into()) as u16)
}

/// Of each block, the elements of a half of `a` and of `b`, alternately.
#[inline(always)]
fn interleave<T: Lane>(w: Width, a: V, b: V, high: bool) -> V {
    w.with_block(
        #[inline(always)]
        |block| {
            let per_block = block / T::BYTES;
            let first = if high { per_block / 2 } else { 0 };
            pick::<T>([a, b], |i| (i % 2, i / per_block * per_block + first + i % per_block / 2))
        },
    )
}

/// PUNPCKLBW, PUNPCKLWD, PUNPCKLDQ, PUNPCKLQDQ; UNPCKLPS (`u32`), UNPCKLPD (`u64`); MOVLHPS (`u64`).
pub fn punpckl<T: Lane>(w: Width, a: V, b: V) -> V {
    interleave::<T>(w, a, b, false)
}

/// PUNPCKHBW, PUNPCKHWD, PUNPCKHDQ, PUNPCKHQDQ; UNPCKHPS (`u32`), UNPCKHPD (`u64`).
pub fn punpckh<T: Lane>(w: Width, a: V, b: V) -> V {
    interleave::<T>(w, a, b, true)
}

/// MOVHLPS: the high half of `b` below the high half of `a`.
pub fn movhlps(a: V, b: V) -> V {
    a.with(0, b.get::<u64>(1))
}

/// PSHUFB: bit 7 of a control byte clears, its low bits choose within the block.
pub fn pshufb(w: Width, a: V, control: V) -> V {
    let (a, control) = (a.bytes(), control.bytes());
    V::build(|i| {
        let block = i / w.block() * w.block();
        if control[i].sign() { 0 } else { a[block + usize::from(control[i]) % w.block()] }
    })
}

/// Two bits of an immediate.
fn two_bits(imm: u8, i: usize) -> usize {
    usize::from(imm >> (2 * i) & 3)
}

/// PSHUFD, VPERMILPS with an immediate.
pub fn pshufd(a: V, imm: u8) -> V {
    permute::<u32>(a, |i| i / 4 * 4 + two_bits(imm, i % 4))
}

/// PSHUFHW: the high half of each block; the low one is unchanged.
pub fn pshufhw(a: V, imm: u8) -> V {
    permute::<u16>(a, |i| if i % 8 < 4 { i } else { i / 4 * 4 + two_bits(imm, i % 4) })
}

/// PSHUFLW, and PSHUFW of MMX: the low half of each block; the high one is unchanged.
pub fn pshuflw(a: V, imm: u8) -> V {
    permute::<u16>(a, |i| if i % 8 >= 4 { i } else { i / 4 * 4 + two_bits(imm, i % 4) })
}

/// SHUFPS: two elements of `a`, then two of `b`.
pub fn shufps(a: V, b: V, imm: u8) -> V {
    pick::<u32>([a, b], |i| (i % 4 / 2, i / 4 * 4 + two_bits(imm, i % 4)))
}

/// SHUFPD: an element of `a`, then one of `b`; one bit of the immediate for each.
pub fn shufpd(a: V, b: V, imm: u8) -> V {
    pick::<u64>([a, b], |i| (i % 2, i / 2 * 2 + usize::from(imm >> i & 1)))
}

/// VPERMILPS with a vector of controls.
pub fn vpermilps(a: V, control: V) -> V {
    let control = control.lanes::<u32>();
    permute::<u32>(a, |i| i / 4 * 4 + (control[i] & 3) as usize)
}

/// VPERMILPD with a vector of controls: bit 1 of each chooses.
pub fn vpermilpd(a: V, control: V) -> V {
    let control = control.lanes::<u64>();
    permute::<u64>(a, |i| i / 2 * 2 + (control[i] >> 1 & 1) as usize)
}

/// VPERMILPD with an immediate: one bit for each element.
pub fn vpermilpd_imm(a: V, imm: u8) -> V {
    permute::<u64>(a, |i| i / 2 * 2 + usize::from(imm >> i & 1))
}

/// VPERMD, VPERMPS: across the whole vector. `indices` is the first source (VEX.vvvv), `a` the second.
pub fn vpermd(indices: V, a: V) -> V {
    let indices = indices.lanes::<u32>();
    permute::<u32>(a, |i| (indices[i] & 7) as usize)
}

/// VPERMQ, VPERMPD: across the whole vector.
pub fn vpermq(a: V, imm: u8) -> V {
    permute::<u64>(a, |i| two_bits(imm, i))
}

/// VPERM2I128, VPERM2F128: of the four blocks, two; bits 3 and 7 of the immediate clear.
pub fn vperm2i128(a: V, b: V, imm: u8) -> V {
    let blocks = [a.lanes::<u128>(), b.lanes::<u128>()];
    V::build(|i| {
        let control = imm >> (4 * i);
        if control & 8 != 0 { 0 } else { blocks[usize::from(control >> 1 & 1)][usize::from(control & 1)] }
    })
}

/// PALIGNR: of `a` above `b`, the bytes from number `imm` on.
pub fn palignr(w: Width, a: V, b: V, imm: u8) -> V {
    let bits = 8 * u32::from(imm);
    if w == Width::Mmx {
        let both = u128::from(a.mmx()) << 64 | u128::from(b.mmx());
        return V::from_mmx(both.checked_shr(bits).unwrap_or(0) as u64);
    }
    a.zip(b, |a: u128, b| match bits {
        0 => b,
        1..128 => b >> bits | a << (128 - bits),
        _ => a.checked_shr(bits - 128).unwrap_or(0),
    })
}

/// MOVSLDUP: the even elements, twice each.
pub fn movsldup(a: V) -> V {
    permute::<u32>(a, |i| i & !1)
}

/// MOVSHDUP: the odd elements, twice each.
pub fn movshdup(a: V) -> V {
    permute::<u32>(a, |i| i | 1)
}

/// MOVDDUP: the even elements, twice each.
pub fn movddup(a: V) -> V {
    permute::<u64>(a, |i| i & !1)
}

/// PBLENDW (`u16`, the immediate serves each block), VPBLENDD and BLENDPS (`u32`), BLENDPD (`u64`): element `i` is that of
/// `b` where bit `i` of the immediate is set.
pub fn blend<T: Lane>(a: V, b: V, imm: u8) -> V {
    pick::<T>([a, b], |i| (usize::from(imm >> (i % 8) & 1), i))
}

/// PBLENDVB (`u8`), BLENDVPS (`u32`), BLENDVPD (`u64`): the element of `b` where the mask's element is negative.
pub fn blendv<T: Lane>(a: V, b: V, mask: V) -> V {
    let mask = T::split(mask);
    pick::<T>([a, b], |i| (usize::from(mask.as_ref()[i].sign()), i))
}

/// MOVSS (`u32`), MOVSD (`u64`) between registers, MOVLPS and MOVLPD (`u64`): element 0 of `b`, the others of `a`.
pub fn move_low<T: Lane>(a: V, b: V) -> V {
    a.with(0, b.get::<T>(0))
}

/// INSERTPS. Where the source is memory, it is element 0 of `b` and bits 7:6 of the immediate are taken as zero: see
/// [`insertps_memory`].
pub fn insertps(a: V, b: V, imm: u8) -> V {
    insertps_memory(a, b.get(two_bits(imm, 3)), imm)
}

/// INSERTPS from memory: bits 5:4 of the immediate say where to, bits 3:0 which elements are cleared.
pub fn insertps_memory(a: V, x: u32, imm: u8) -> V {
    let mut all = a.with(two_bits(imm, 2), x).lanes::<u32>();
    for (i, element) in all[..4].iter_mut().enumerate() {
        if imm >> i & 1 != 0 {
            *element = 0;
        }
    }
    V::from_lanes::<u32>(all)
}

/// PINSRB, PINSRW, PINSRD, PINSRQ. The place is taken modulo the number of elements.
pub fn pinsr<T: Lane>(w: Width, a: V, x: T, imm: u8) -> V {
    a.with(usize::from(imm) % w.count::<T>(), x)
}

/// PEXTRB, PEXTRW, PEXTRD, PEXTRQ, EXTRACTPS. The place is taken modulo the number of elements; the caller zero-extends.
pub fn pextr<T: Lane>(w: Width, a: V, imm: u8) -> T {
    a.get(usize::from(imm) % w.count::<T>())
}

/// VINSERTI128, VINSERTF128.
pub fn vinserti128(a: V, b: V, imm: u8) -> V {
    a.with(usize::from(imm & 1), b.xmm())
}

/// VEXTRACTI128, VEXTRACTF128.
pub fn vextracti128(a: V, imm: u8) -> V {
    V::from_xmm(a.get(usize::from(imm & 1)))
}

/// VPBROADCASTB, VPBROADCASTW, VPBROADCASTD, VPBROADCASTQ; VBROADCASTSS (`u32`), VBROADCASTSD (`u64`), VBROADCASTF128 and
/// VBROADCASTI128 (`u128`): element 0 everywhere.
pub fn broadcast<T: Lane>(a: V) -> V {
    let x = a.get::<T>(0);
    V::build(|_| x)
}

/// PMOVZXBW and its five sisters (`From` is unsigned), PMOVSXBW and its five (signed): the low elements, extended.
pub fn pmovx<From: Lane, To: Lane>(a: V) -> V {
    let a = From::split(a);
    V::build(|i| To::from_u64(a.as_ref()[i].to_u64()))
}

/// PMOVMSKB (`u8`), MOVMSKPS (`u32`), MOVMSKPD (`u64`): the elements' signs. So it is also which elements VMASKMOVPS,
/// VPMASKMOVD, MASKMOVDQU and the gathers access.
pub fn movmsk<T: Lane>(w: Width, a: V) -> u32 {
    let a = T::split(a);
    (0..w.count::<T>()).fold(0, |mask, i| mask | u32::from(a.as_ref()[i].sign()) << i)
}

/// All bits of each element are its sign: what a masked store may write, with [`blendv`], and a masked load keep, with
/// [`pand`](super::integer::pand).
pub fn element_mask<T: Lane>(a: V) -> V {
    a.map(|x: T| T::ones_if(x.sign()))
}

/// VPGATHERDD and its sisters: what element `i` of the indices (`i32` or `i64`) adds to the base address.
pub fn gather_offset<Index: Lane>(indices: V, i: usize, scale: u64) -> u64 {
    indices.get::<Index>(i).to_u64().wrapping_mul(scale)
}
