//! Operations that set flags: what they make of two values and the flags before, of any size.

use super::flags::{CARRY, Flags, Kind, Known, OVERFLOW, PARITY, SIGN, ZERO, kind_word};

/// Declares the operations that set flags: name, picture in prints, meaning. `a` and `b` are moved up by `shift`, as is the
/// result; `flags` are those before.
macro_rules! alu_ops {
    ($callback:ident) => {
        $callback! {
            /// Sum.
            Add "+f" |a, b, shift, flags| {
                let _ = flags;
                let r = a.wrapping_add(b);
                (r, Flags { kind: kind_word(Kind::Add, shift), x: r, y: b })
            };
            /// Difference.
            Sub "-f" |a, b, shift, flags| {
                let _ = flags;
                (a.wrapping_sub(b), Flags { kind: kind_word(Kind::Sub, shift), x: a, y: b })
            };
            /// Sum and carry.
            Adc "+cf" |a, b, shift, flags| {
                if flags.carry() {
                    let r = a.wrapping_add(b).wrapping_add(1 << shift);
                    (r, Flags { kind: kind_word(Kind::AddCarry, shift), x: r, y: b })
                } else {
                    let r = a.wrapping_add(b);
                    (r, Flags { kind: kind_word(Kind::Add, shift), x: r, y: b })
                }
            };
            /// Difference, less carry.
            Sbb "-cf" |a, b, shift, flags| {
                let borrow = u64::from(flags.carry());
                let kind = if borrow == 0 { Kind::Sub } else { Kind::SubBorrow };
                let r = a.wrapping_sub(b).wrapping_sub(borrow << shift);
                (r, Flags { kind: kind_word(kind, shift), x: a, y: b })
            };
            /// Bitwise and.
            And "&f" |a, b, shift, flags| {
                let _ = flags;
                (a & b, Flags { kind: kind_word(Kind::Sub, shift), x: a & b, y: 0 })
            };
            /// Bitwise or.
            Or "|f" |a, b, shift, flags| {
                let _ = flags;
                (a | b, Flags { kind: kind_word(Kind::Sub, shift), x: a | b, y: 0 })
            };
            /// Bitwise exclusive or.
            Xor "^f" |a, b, shift, flags| {
                let _ = flags;
                (a ^ b, Flags { kind: kind_word(Kind::Sub, shift), x: a ^ b, y: 0 })
            };
            /// Sum with 1 (`b` counts for nothing); C stays.
            Inc "++f" |a, b, shift, flags| {
                let _ = b;
                let r = a.wrapping_add(1 << shift);
                (r, Flags { kind: kind_word(Kind::Inc, shift), x: r, y: u64::from(flags.carry()) })
            };
            /// Difference of 1 (`b` counts for nothing); C stays.
            Dec "--f" |a, b, shift, flags| {
                let _ = b;
                let r = a.wrapping_sub(1 << shift);
                (r, Flags { kind: kind_word(Kind::Dec, shift), x: r, y: u64::from(flags.carry()) })
            };
            /// Signed product; C and O where it does not fit.
            Mul "*f" |a, b, shift, flags| {
                let _ = flags;
                let product = i128::from(a as i64 >> shift) * i128::from(b as i64 >> shift);
                let r = (product as u64) << shift;
                (r, of_product(r, shift, i128::from(r as i64 >> shift) == product))
            };
            /// Low half of the unsigned product; C and O where there is more of it.
            MulLow "*lowf" |a, b, shift, flags| {
                let _ = flags;
                let product = u128::from(a >> shift) * u128::from(b >> shift);
                let r = (product as u64) << shift;
                (r, of_product(r, shift, u128::from(r >> shift) == product))
            };
            /// Shift left by `b`, which is not 0 and at most 63 (moved up like `a`).
            Shl "<<f" |a, b, shift, flags| {
                let _ = flags;
                shl(a, (b >> shift) as u32, shift)
            };
            /// Logical shift right, likewise.
            Shr ">>f" |a, b, shift, flags| {
                let _ = flags;
                shr(a, (b >> shift) as u32, shift)
            };
            /// Arithmetic shift right, likewise.
            Sar ">>sf" |a, b, shift, flags| {
                let _ = flags;
                sar(a, (b >> shift) as u32, shift)
            };
            /// Shift left by `b`, at most 63. By 0 the flags stay.
            ShlBy "<<nf" |a, b, shift, flags| {
                if b == 0 { (a, flags) } else { shl(a, (b >> shift) as u32, shift) }
            };
            /// Logical shift right, likewise.
            ShrBy ">>nf" |a, b, shift, flags| {
                if b == 0 { (a, flags) } else { shr(a, (b >> shift) as u32, shift) }
            };
            /// Arithmetic shift right, likewise.
            SarBy ">>snf" |a, b, shift, flags| {
                if b == 0 { (a, flags) } else { sar(a, (b >> shift) as u32, shift) }
            };
            /// Rotate left by `b`: C is the lowest bit of the result, O says whether the highest is another. By 0 all flags stay.
            Rol "rolf" |a, b, shift, flags| {
                let r = rotated_left(a, (b >> shift) as u32, shift);
                let carry = r >> shift & 1;
                let overflow = if r >> 63 != carry { OVERFLOW } else { 0 };
                (r, if b == 0 { flags } else { flags.with_carry_and_overflow(carry | overflow) })
            };
            /// Rotate right by `b`: C is the highest bit of the result, O says whether the one below is another.
            Ror "rorf" |a, b, shift, flags| {
                let r = rotated_left(a, ((b >> shift) as u32).wrapping_neg(), shift);
                let carry = r >> 63;
                let overflow = if r >> 62 & 1 != carry { OVERFLOW } else { 0 };
                (r, if b == 0 { flags } else { flags.with_carry_and_overflow(carry | overflow) })
            };
            /// Bits below bit `b mod 256`; C where that is beyond the size.
            LowBits "lowf" |a, b, shift, flags| {
                let _ = flags;
                let n = (b >> shift) as u8;
                let beyond = u32::from(n) >= 64 - shift;
                let r = if beyond { a } else { (a >> shift & !(u64::MAX << n)) << shift };
                let (sign, zero) = (if r >> 63 != 0 { SIGN } else { 0 }, if r == 0 { ZERO } else { 0 });
                (r, Flags::eager(sign | zero | u64::from(beyond)))
            };
            /// Nothing but C: bit `b` modulo the size of `a`.
            BitTest "btf" |a, b, shift, flags| {
                (a, flags.with(CARRY, a >> bit_number(b, shift) & 1))
            };
            /// Sets that bit; C is what it was.
            BitSet "btsf" |a, b, shift, flags| {
                let n = bit_number(b, shift);
                (a | 1 << n, flags.with(CARRY, a >> n & 1))
            };
            /// Clears that bit, likewise.
            BitClear "btrf" |a, b, shift, flags| {
                let n = bit_number(b, shift);
                (a & !(1 << n), flags.with(CARRY, a >> n & 1))
            };
            /// Inverts that bit, likewise.
            BitInvert "btcf" |a, b, shift, flags| {
                let n = bit_number(b, shift);
                (a ^ 1 << n, flags.with(CARRY, a >> n & 1))
            };
        }
    };
}
pub(crate) use alu_ops;

/// Of a product that is `r`: Z and A are clear, S and P those of the low half.
#[inline(always)]
pub(crate) fn of_product(r: u64, shift: u32, fits: bool) -> Flags {
    let sign = if r >> 63 != 0 { SIGN } else { 0 };
    let parity = if ((r >> shift) as u8).count_ones().is_multiple_of(2) { PARITY } else { 0 };
    Flags::eager(sign | parity | if fits { 0 } else { CARRY | OVERFLOW })
}

#[inline(always)]
pub(crate) fn shl(a: u64, n: u32, shift: u32) -> (u64, Flags) {
    let r = a.checked_shl(n).unwrap_or(0);
    let carry = a.checked_shl(n - 1).unwrap_or(0) >> 63;
    let overflow = if r >> 63 != carry { OVERFLOW } else { 0 };
    (r, Flags { kind: kind_word(Kind::Result, shift), x: r, y: carry | overflow })
}

#[inline(always)]
pub(crate) fn shr(a: u64, n: u32, shift: u32) -> (u64, Flags) {
    let value = a >> shift;
    let r = value.checked_shr(n).unwrap_or(0) << shift;
    let carry = value.checked_shr(n - 1).unwrap_or(0) & 1;
    let overflow = if a >> 63 != 0 { OVERFLOW } else { 0 };
    (r, Flags { kind: kind_word(Kind::Result, shift), x: r, y: carry | overflow })
}

#[inline(always)]
pub(crate) fn sar(a: u64, n: u32, shift: u32) -> (u64, Flags) {
    let value = a as i64 >> shift;
    let r = ((value >> n.min(63)) as u64) << shift;
    let carry = (value >> (n - 1).min(63)) as u64 & 1;
    (r, Flags { kind: kind_word(Kind::Result, shift), x: r, y: carry })
}

#[inline(always)]
pub(crate) fn rotated_left(a: u64, n: u32, shift: u32) -> u64 {
    let (value, n) = (a >> shift, n & (63 - shift));
    (value << n | value >> ((64 - shift - n) & 63)) << shift
}

/// Which bit of a value that is moved up.
#[inline(always)]
pub(crate) fn bit_number(b: u64, shift: u32) -> u32 {
    ((b >> shift) as u32 & (63 - shift)) + shift
}

macro_rules! alu_enum {
    ($($(#[$m:meta])* $name:ident $print:literal |$a:ident, $b:ident, $shift:ident, $flags:ident| $body:expr;)*) => {
        /// An operation that sets flags.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum AluOp { $($(#[$m])* $name,)* }
        impl AluOp {
            /// All of them.
            pub const ALL: &[AluOp] = &[$(AluOp::$name),*];
            /// The result and the flags. What the interpreter and a compiler are held to.
            pub fn apply(self, a: u64, b: u64, shift: u32, flags: Flags) -> (u64, Flags) {
                match self { $(AluOp::$name => {
                    let ($a, $b, $shift, $flags) = (a, b, shift, flags);
                    $body
                })* }
            }
            pub(crate) fn print(self) -> &'static str { match self { $(AluOp::$name => $print,)* } }
        }
    };
}
alu_ops!(alu_enum);

impl AluOp {
    /// Whether the flags before matter.
    pub(crate) const fn reads_flags(self) -> bool {
        self.computes_with_flags() || self.keeps_flags()
    }

    /// Whether they matter for the result.
    pub(crate) const fn computes_with_flags(self) -> bool {
        matches!(self, AluOp::Adc | AluOp::Sbb)
    }

    /// Whether some may stay as they were.
    const fn keeps_flags(self) -> bool {
        match self {
            AluOp::Inc | AluOp::Dec => true,
            AluOp::ShlBy | AluOp::ShrBy | AluOp::SarBy | AluOp::Rol | AluOp::Ror => true,
            AluOp::BitTest | AluOp::BitSet | AluOp::BitClear | AluOp::BitInvert => true,
            AluOp::Add | AluOp::Sub | AluOp::Adc | AluOp::Sbb | AluOp::And | AluOp::Or | AluOp::Xor => false,
            AluOp::Mul | AluOp::MulLow | AluOp::Shl | AluOp::Shr | AluOp::Sar | AluOp::LowBits => false,
        }
    }

    /// What is known of the flags that it leaves.
    pub(crate) const fn leaves(self) -> Known {
        match self {
            AluOp::Sub => Known::Difference,
            AluOp::And | AluOp::Or | AluOp::Xor => Known::Bitwise,
            AluOp::Add | AluOp::Adc | AluOp::Inc | AluOp::Dec | AluOp::Shl | AluOp::Shr | AluOp::Sar => Known::Result,
            AluOp::Sbb | AluOp::Mul | AluOp::MulLow | AluOp::LowBits => Known::Nothing,
            AluOp::ShlBy | AluOp::ShrBy | AluOp::SarBy | AluOp::Rol | AluOp::Ror => Known::Nothing,
            AluOp::BitTest | AluOp::BitSet | AluOp::BitClear | AluOp::BitInvert => Known::Nothing,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::flags::{ADJUST, FLAGS_X, FLAGS_Y, FlagCond, Size, shift_of};
    use proptest::prelude::*;

    const SIZES: [Size; 4] = [Size::Bits8, Size::Bits16, Size::Bits32, Size::Bits64];

    /// Flags from first principles: the operation in 128 bits.
    fn sum(a: u64, b: u64, carry: bool, bits: u32) -> u64 {
        let mask = (1u128 << bits) - 1;
        let (a, b) = (u128::from(a) & mask, u128::from(b) & mask);
        let signed = |x: u128| ((x << (128 - bits)) as i128) >> (128 - bits);
        let wide = a + b + u128::from(carry);
        let r = wide & mask;
        let exact = signed(a) + signed(b) + i128::from(carry);
        let flag = |is: bool, flag: u64| if is { flag } else { 0 };
        flag(wide > mask, CARRY)
            | flag((r as u8).count_ones().is_multiple_of(2), PARITY)
            | flag((a & 15) + (b & 15) + u128::from(carry) > 15, ADJUST)
            | flag(r == 0, ZERO)
            | flag(r >> (bits - 1) != 0, SIGN)
            | flag(signed(r) != exact, OVERFLOW)
    }

    /// `a - b - borrow` is `a + !b + !borrow` with carry and adjust inverted.
    fn difference(a: u64, b: u64, borrow: bool, bits: u32) -> u64 {
        sum(a, !b, !borrow, bits) ^ CARRY ^ ADJUST
    }

    proptest! {
        #[test]
        fn flags_are_those_of_the_definition(a: u64, b: u64, before in 0u64..0x1000, size in 0usize..4, near: bool) {
            let b = if near { a.wrapping_add(b % 3).wrapping_sub(1) } else { b };
            let (size, before) = (SIZES[size], Flags::eager(before));
            let (shift, bits) = (shift_of(size.bytes()), 8 * u32::from(size.bytes()));
            let run = |op: AluOp, a: u64, b: u64| op.apply(a << shift, b << shift, shift, before);
            let carry = before.carry();
            prop_assert_eq!(run(AluOp::Add, a, b).1.all(), sum(a, b, false, bits));
            prop_assert_eq!(run(AluOp::Adc, a, b).1.all(), sum(a, b, carry, bits));
            prop_assert_eq!(run(AluOp::Sub, a, b).1.all(), difference(a, b, false, bits));
            prop_assert_eq!(run(AluOp::Sbb, a, b).1.all(), difference(a, b, carry, bits));
            let kept = |new: u64| new & !CARRY | u64::from(carry);
            prop_assert_eq!(run(AluOp::Inc, a, b).1.all(), kept(sum(a, 1, false, bits)));
            prop_assert_eq!(run(AluOp::Dec, a, b).1.all(), kept(difference(a, 1, false, bits)));
            // A bitwise result has neither carry nor overflow.
            let logic = sum(a & b, 0, false, bits);
            prop_assert_eq!(run(AluOp::And, a, b).1.all(), logic);
            for (op, (cond, negate)) in AluOp::ALL.iter().flat_map(|op| {
                FlagCond::ALL.into_iter().flat_map(move |c| [(*op, (c, false)), (*op, (c, true))])
            }) {
                // A shift has a count.
                let b = match op {
                    AluOp::Shl | AluOp::Shr | AluOp::Sar => b % 31 + 1,
                    AluOp::ShlBy | AluOp::ShrBy | AluOp::SarBy | AluOp::Rol | AluOp::Ror => b % 32,
                    _ => b,
                };
                let flags = run(op, a, b).1;
                if let Some((same, x, y)) = cond.compared(op.leaves(), negate) {
                    let value = |r| match r {
                        FLAGS_X => flags.x,
                        FLAGS_Y => flags.y,
                        _ => 0,
                    };
                    prop_assert_eq!(same.holds(value(x), value(y)), flags.holds(cond) != negate);
                }
                let eager = Flags::eager(flags.all());
                prop_assert_eq!(eager.holds(cond), flags.holds(cond));
            }
        }
    }
}
