//! Instructions that are plain functions of plain values.
//!
//! Flags that the SDM leaves undefined are what recent processors of both vendors leave, where they agree, else 0 or
//! unchanged; each such choice stands beside its function.

use emu_core::engine::flags::{ADJUST, CARRY, Flags, OVERFLOW, PARITY, SIGN, Size, ZERO};
use emu_core::engine::uop::UnaryOp;

use super::{Lifting, Place};
use crate::exception::{Exception, vector};
use crate::registers::temp;

/// The operands of a computation, and what comes of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Values {
    /// In and out. Bits above the size are anything.
    pub first: u64,
    /// In and out.
    pub second: u64,
    /// In.
    pub third: u64,
    /// In and out.
    pub flags: Flags,
    /// What of the values counts.
    pub size: Size,
}

/// #DE: a divisor of 0, or a quotient that does not fit.
const DIVIDE_ERROR: Exception = Exception::plain(vector::DE);

macro_rules! computes {
    ($($(#[$m:meta])* $name:ident $f:path;)*) => {
        /// A computation.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[repr(u8)]
        pub enum Compute { $($(#[$m])* $name,)* }
        const ALL: &[Compute] = &[$(Compute::$name,)*];
        impl Compute {
            fn function(self) -> fn(&mut Values) -> Result<(), Exception> {
                match self { $(Compute::$name => $f,)* }
            }
        }
    };
}
computes! {
    /// MUL: FIRST by SECOND; low half in FIRST, high half in SECOND (of 8 bits: all in FIRST).
    Mul mul;
    /// IMUL with one operand, likewise.
    Imul imul;
    /// DIV: THIRD:FIRST by SECOND (of 8 bits: AX in FIRST); quotient in FIRST, remainder in SECOND.
    Div div;
    /// IDIV, likewise.
    Idiv idiv;
    /// ADCX: FIRST and SECOND and C.
    Adcx adcx;
    /// ADOX: FIRST and SECOND and O.
    Adox adox;
    /// RCL of FIRST by SECOND.
    Rcl rcl;
    /// RCR.
    Rcr rcr;
    /// SHLD of FIRST by SECOND: bits come from THIRD.
    Shld shld;
    /// SHRD, likewise.
    Shrd shrd;
    /// BSF of FIRST; SECOND is the destination, all of it.
    Bsf bsf;
    /// BSR, likewise.
    Bsr bsr;
    /// TZCNT.
    Tzcnt tzcnt;
    /// LZCNT.
    Lzcnt lzcnt;
    /// POPCNT.
    Popcnt popcnt;
    /// BLSI.
    Blsi blsi;
    /// BLSR.
    Blsr blsr;
    /// BLSMSK.
    Blsmsk blsmsk;
    /// BEXTR: of FIRST, start and length in SECOND.
    Bextr bextr;
    /// PDEP: mask in SECOND.
    Pdep pdep;
    /// PEXT.
    Pext pext;
    /// CRC32 of SECOND, accumulated in FIRST.
    Crc32 crc32;
    /// Z becomes bit 0 of THIRD.
    SetZero set_zero;
    /// #GP unless the address in FIRST is a multiple of 16.
    RequireAligned16 require_aligned_16;
}

/// Runs the computation that a call names.
pub fn run(operand: u32, values: &mut Values) -> Result<(), Exception> {
    ALL[operand as usize & 0xff].function()(values)
}

/// The size in a call's operand.
pub fn size_in(operand: u32) -> Size {
    [Size::Bits8, Size::Bits16, Size::Bits32, Size::Bits64][(operand >> 8 & 3) as usize]
}

/// The function number of all computations.
pub const FUNCTION: u16 = 0;

impl Lifting<'_> {
    pub(super) fn compute(&mut self, what: Compute, size: Size) {
        let size = u32::from(size.bytes()).trailing_zeros();
        self.lift.call(FUNCTION, what as u32 | size << 8);
    }

    /// Brings an operand into register `t` itself.
    pub(super) fn bring(&mut self, place: Place, size: Size, t: u8) {
        let r = self.read(place, size, t);
        self.move_to(t, r);
    }

    pub(super) fn move_to(&mut self, t: u8, r: u8) {
        if r != t {
            self.lift.unary(UnaryOp::Move, t, r);
        }
    }

    /// Memory at the address in [`temp::ADDRESS`].
    pub(super) fn at_address(&self) -> Place {
        Place::Memory(super::Memory::at(temp::ADDRESS))
    }
}

type Done = Result<(), Exception>;

impl Values {
    fn bits(&self) -> u32 {
        8 * u32::from(self.size.bytes())
    }

    fn mask(&self) -> u64 {
        u64::MAX >> (64 - self.bits())
    }

    fn unsigned(&self, x: u64) -> u64 {
        x & self.mask()
    }

    fn signed(&self, x: u64) -> i64 {
        (x << (64 - self.bits())) as i64 >> (64 - self.bits())
    }

    fn top(&self, x: u64) -> bool {
        x >> (self.bits() - 1) & 1 != 0
    }

    /// Sets the flags in `which` to those of `to`.
    fn change(&mut self, which: u64, to: u64) {
        self.flags = Flags::eager(self.flags.all() & !which | to & which);
    }

    /// S, Z and P of a result.
    fn of_result(&self, r: u64) -> u64 {
        let r = self.unsigned(r);
        flag(self.top(r), SIGN) | flag(r == 0, ZERO) | flag((r as u8).count_ones().is_multiple_of(2), PARITY)
    }
}

fn flag(is: bool, flag: u64) -> u64 {
    if is { flag } else { 0 }
}

const ARITHMETIC: u64 = CARRY | PARITY | ADJUST | ZERO | SIGN | OVERFLOW;

/// C and O where the high half is no extension of the low one. S and P are those of the low half, Z and A clear: undefined by
/// the SDM, and so on recent processors of Intel.
fn multiplied(v: &mut Values, low: u64, high: u64, fits: bool) {
    let result = v.of_result(low) & !ZERO;
    v.change(ARITHMETIC, flag(!fits, CARRY | OVERFLOW) | result);
    if v.size == Size::Bits8 {
        v.first = v.unsigned(low) | v.unsigned(high) << 8;
    } else {
        (v.first, v.second) = (low, high);
    }
}

fn mul(v: &mut Values) -> Done {
    let product = u128::from(v.unsigned(v.first)) * u128::from(v.unsigned(v.second));
    let (low, high) = (v.unsigned(product as u64), v.unsigned((product >> v.bits()) as u64));
    multiplied(v, low, high, high == 0);
    Ok(())
}

fn imul(v: &mut Values) -> Done {
    let product = i128::from(v.signed(v.first)) * i128::from(v.signed(v.second));
    let (low, high) = (v.unsigned(product as u64), v.unsigned((product >> v.bits()) as u64));
    let fits = i128::from(v.signed(low)) == product;
    multiplied(v, low, high, fits);
    Ok(())
}

/// The dividend: AX, DX:AX, EDX:EAX, RDX:RAX.
fn dividend(v: &Values) -> u128 {
    if v.size == Size::Bits8 {
        u128::from(v.first as u16)
    } else {
        u128::from(v.unsigned(v.third)) << v.bits() | u128::from(v.unsigned(v.first))
    }
}

fn divided(v: &mut Values, quotient: u64, remainder: u64) {
    if v.size == Size::Bits8 {
        v.first = v.unsigned(quotient) | v.unsigned(remainder) << 8;
    } else {
        (v.first, v.second) = (quotient, remainder);
    }
}

/// No flag changes: undefined by the SDM.
fn div(v: &mut Values) -> Done {
    let (dividend, divisor) = (dividend(v), u128::from(v.unsigned(v.second)));
    let quotient = dividend.checked_div(divisor).filter(|q| *q <= u128::from(v.mask())).ok_or(DIVIDE_ERROR)?;
    divided(v, quotient as u64, (dividend % divisor) as u64);
    Ok(())
}

fn idiv(v: &mut Values) -> Done {
    let unused = 128 - 2 * v.bits();
    let dividend = (dividend(v) << unused) as i128 >> unused;
    let divisor = i128::from(v.signed(v.second));
    let quotient = dividend.checked_div(divisor).ok_or(DIVIDE_ERROR)?;
    if i128::from(v.signed(quotient as u64)) != quotient {
        return Err(DIVIDE_ERROR);
    }
    divided(v, quotient as u64, (dividend % divisor) as u64);
    Ok(())
}

fn add_with(v: &mut Values, which: u64) -> Done {
    let carry = u128::from(v.flags.all() & which != 0);
    let sum = u128::from(v.unsigned(v.first)) + u128::from(v.unsigned(v.second)) + carry;
    v.first = sum as u64;
    v.change(which, flag(sum >> v.bits() != 0, which));
    Ok(())
}

fn adcx(v: &mut Values) -> Done {
    add_with(v, CARRY)
}

fn adox(v: &mut Values) -> Done {
    add_with(v, OVERFLOW)
}

/// A count: of it, 5 bits count, or 6 for 64 bits. `None` changes nothing, flags included.
fn count(v: &Values) -> Option<u32> {
    let n = v.second as u32 & if v.size == Size::Bits64 { 63 } else { 31 };
    (n != 0).then_some(n)
}

/// Flags of a shift: A is undefined, and clear. O is defined for a count of 1 only; the same formula is used for all.
fn shifted(v: &mut Values, result: u64, carry: bool, overflow: bool) -> Done {
    let flags = v.of_result(result) | flag(carry, CARRY) | flag(overflow, OVERFLOW);
    v.change(ARITHMETIC, flags);
    v.first = result;
    Ok(())
}

/// The operand with C above it: 9, 17, 33 or 65 bits.
fn rotate_through_carry(v: &Values, left: u32) -> u128 {
    let bits = v.bits() + 1;
    let x = u128::from(v.unsigned(v.first)) | u128::from(v.flags.carry()) << v.bits();
    let left = left % bits;
    let rotated = if left == 0 { x } else { x << left | x >> (bits - left) };
    rotated & ((1 << bits) - 1)
}

/// Rotates change C and O alone. O is defined for a count of 1 only; the same formula is used for all.
fn rcl(v: &mut Values) -> Done {
    let Some(n) = count(v) else { return Ok(()) };
    let rotated = rotate_through_carry(v, n);
    let (result, carry) = (v.unsigned(rotated as u64), rotated >> v.bits() != 0);
    v.change(CARRY | OVERFLOW, flag(carry, CARRY) | flag(v.top(result) != carry, OVERFLOW));
    v.first = result;
    Ok(())
}

fn rcr(v: &mut Values) -> Done {
    let Some(n) = count(v) else { return Ok(()) };
    let bits = v.bits() + 1;
    let rotated = rotate_through_carry(v, bits - n % bits);
    let (result, carry) = (v.unsigned(rotated as u64), rotated >> v.bits() != 0);
    let second = result >> (v.bits() - 2) & 1 != 0;
    v.change(CARRY | OVERFLOW, flag(carry, CARRY) | flag(v.top(result) != second, OVERFLOW));
    v.first = result;
    Ok(())
}

/// Of 16 bits, a count beyond 16 is undefined; the bits go round, as processors of Intel have it.
fn shld(v: &mut Values) -> Done {
    let Some(n) = count(v) else { return Ok(()) };
    let (x, from, bits) = (v.unsigned(v.first), v.unsigned(v.third), v.bits());
    // x:from:x moves through a window of the operand's size.
    let wide = u128::from(x) << bits | u128::from(from);
    let (result, carry) = if n <= bits {
        ((wide << n >> bits) as u64, wide >> (2 * bits - n) & 1 != 0)
    } else {
        let wide = u128::from(from) << bits | u128::from(x);
        ((wide << (n - bits) >> bits) as u64, wide >> (3 * bits - n) & 1 != 0)
    };
    let result = v.unsigned(result);
    shifted(v, result, carry, v.top(result) != v.top(x))
}

fn shrd(v: &mut Values) -> Done {
    let Some(n) = count(v) else { return Ok(()) };
    let (x, from, bits) = (v.unsigned(v.first), v.unsigned(v.third), v.bits());
    let wide = u128::from(from) << bits | u128::from(x);
    let (result, carry) = if n <= bits {
        ((wide >> n) as u64, wide >> (n - 1) & 1 != 0)
    } else {
        let wide = u128::from(x) << bits | u128::from(from);
        ((wide >> (n - bits)) as u64, wide >> (n - bits - 1) & 1 != 0)
    };
    let result = v.unsigned(result);
    shifted(v, result, carry, v.top(result) != v.top(x))
}

/// Z says whether there was a bit; the others are undefined, and stay.
fn search(v: &mut Values, find: fn(u64) -> u32) -> Done {
    let x = v.unsigned(v.first);
    v.change(ZERO, flag(x == 0, ZERO));
    v.first = if x == 0 { v.second } else { v.size.merge(v.second, find(x).into()) };
    Ok(())
}

fn bsf(v: &mut Values) -> Done {
    search(v, u64::trailing_zeros)
}

fn bsr(v: &mut Values) -> Done {
    search(v, |x| 63 - x.leading_zeros())
}

/// C for a source of 0, Z for a result of 0; the others are undefined, and stay.
fn counted(v: &mut Values, result: u32) -> Done {
    let is_zero = v.unsigned(v.first) == 0;
    v.change(CARRY | ZERO, flag(is_zero, CARRY) | flag(result == 0, ZERO));
    v.first = result.into();
    Ok(())
}

fn tzcnt(v: &mut Values) -> Done {
    let n = v.unsigned(v.first).trailing_zeros().min(v.bits());
    counted(v, n)
}

fn lzcnt(v: &mut Values) -> Done {
    let n = v.unsigned(v.first).leading_zeros() - (64 - v.bits());
    counted(v, n)
}

fn popcnt(v: &mut Values) -> Done {
    v.first = v.unsigned(v.first).count_ones().into();
    v.change(ARITHMETIC, flag(v.first == 0, ZERO));
    Ok(())
}

/// BLSI, BLSR, BLSMSK: O is clear; A and P are undefined, and clear.
fn lowest(v: &mut Values, result: u64, carry: bool) -> Done {
    let result = v.unsigned(result);
    let flags = v.of_result(result) & (SIGN | ZERO) | flag(carry, CARRY);
    v.change(ARITHMETIC, flags);
    v.first = result;
    Ok(())
}

fn blsi(v: &mut Values) -> Done {
    let x = v.unsigned(v.first);
    lowest(v, x.wrapping_neg() & x, x != 0)
}

fn blsr(v: &mut Values) -> Done {
    let x = v.unsigned(v.first);
    lowest(v, x.wrapping_sub(1) & x, x == 0)
}

fn blsmsk(v: &mut Values) -> Done {
    let x = v.unsigned(v.first);
    lowest(v, x.wrapping_sub(1) ^ x, x == 0)
}

/// Z is that of the result, C and O are clear; S, A and P are undefined, and clear.
fn bextr(v: &mut Values) -> Done {
    let (start, length) = (v.second as u8, (v.second >> 8) as u8);
    let x = v.unsigned(v.first).checked_shr(start.into()).unwrap_or(0);
    v.first = if length < 64 { x & ((1 << length) - 1) } else { x };
    v.change(ARITHMETIC, flag(v.first == 0, ZERO));
    Ok(())
}

fn pdep(v: &mut Values) -> Done {
    let (mut mask, mut result, x) = (v.unsigned(v.second), 0, v.first);
    let mut k = 0;
    while mask != 0 {
        let lowest = mask & mask.wrapping_neg();
        if x >> k & 1 != 0 {
            result |= lowest;
        }
        mask ^= lowest;
        k += 1;
    }
    v.first = result;
    Ok(())
}

fn pext(v: &mut Values) -> Done {
    let (mut mask, mut result, x) = (v.unsigned(v.second), 0, v.first);
    let mut k = 0;
    while mask != 0 {
        let lowest = mask & mask.wrapping_neg();
        if x & lowest != 0 {
            result |= 1 << k;
        }
        mask ^= lowest;
        k += 1;
    }
    v.first = result;
    Ok(())
}

/// The polynomial 11EDC6F41h, bits reflected.
fn crc32(v: &mut Values) -> Done {
    let mut crc = v.first as u32;
    for byte in v.second.to_le_bytes().into_iter().take(v.size.bytes().into()) {
        crc ^= u32::from(byte);
        for _ in 0..8 {
            crc = crc >> 1 ^ if crc & 1 != 0 { 0x82f6_3b78 } else { 0 };
        }
    }
    v.first = crc.into();
    Ok(())
}

fn set_zero(v: &mut Values) -> Done {
    v.change(ZERO, flag(v.third & 1 != 0, ZERO));
    Ok(())
}

fn require_aligned_16(v: &mut Values) -> Done {
    if v.first.is_multiple_of(16) { Ok(()) } else { Err(Exception::gp(0)) }
}
