//! Lazy flags: an operation leaves its operands, and whoever asks makes flags of them.
//!
//! The state is three words in the register file. [`FLAGS_X`] and [`FLAGS_Y`] hold values of 8 to 64 bits moved up to the
//! top, so that comparing them as words of 64 bits compares the values; [`FLAGS_KIND`] says what they are, and by how much they
//! were moved. Where a block knows the kind, a condition is one comparison of two registers, as it is where an
//! instruction set has no flags.
//!
//! Flags have the places that they have in x86's EFLAGS: C 0, P 2, A 4, Z 6, S 7, O 11. Arm's N, Z, C, V are S, Z, C (its
//! borrow inverted) and O.

use super::uop::Cond;

/// Holds a [`Kind`], and in bits 15 to 8 how far X and Y were moved up: 0, 32, 48 or 56.
pub const FLAGS_KIND: u8 = 252;
/// See [`Kind`].
pub const FLAGS_X: u8 = 253;
/// See [`Kind`].
pub const FLAGS_Y: u8 = 254;

/// Always 0: what results are compared with.
pub const FLAGS_NONE: u8 = 251;

/// Carry.
pub const CARRY: u64 = 1;
/// Parity: the low 8 bits of the result have an even number of ones.
pub const PARITY: u64 = 1 << 2;
/// Carry out of bit 3.
pub const ADJUST: u64 = 1 << 4;
/// The result is 0.
pub const ZERO: u64 = 1 << 6;
/// The result's highest bit.
pub const SIGN: u64 = 1 << 7;
/// Signed overflow.
pub const OVERFLOW: u64 = 1 << 11;
/// All of them.
pub const ALL: u64 = CARRY | PARITY | ADJUST | ZERO | SIGN | OVERFLOW;

/// What X and Y are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Kind {
    /// Y is the flags themselves.
    Eager,
    /// X less Y. A result by itself, without carry and overflow, is that result less 0.
    Sub,
    /// X less Y less 1.
    SubBorrow,
    /// X is a sum, Y what was added.
    Add,
    /// X is a sum and 1, Y what was added.
    AddCarry,
    /// X is a result; Y has C, A and O as flags.
    Result,
    /// X is a sum with 1, Y is C.
    Inc,
    /// X is a difference of 1, Y is C.
    Dec,
}

const KINDS: [Kind; 8] =
    [Kind::Eager, Kind::Sub, Kind::SubBorrow, Kind::Add, Kind::AddCarry, Kind::Result, Kind::Inc, Kind::Dec];

/// How far values of so many bytes are moved up.
pub(crate) const fn shift_of(bytes: u8) -> u32 {
    64 - 8 * bytes as u32
}

/// The word in [`FLAGS_KIND`].
pub(crate) const fn kind_word(kind: Kind, shift: u32) -> u64 {
    kind as u64 | (shift as u64) << 8
}

/// What a condition asks of the flags.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FlagCond {
    /// O.
    Overflow,
    /// C: below.
    Carry,
    /// Z: equal.
    Zero,
    /// C or Z: below or equal.
    CarryOrZero,
    /// S.
    Sign,
    /// P.
    Parity,
    /// S is not O: less.
    Less,
    /// Z, or S is not O: less or equal.
    LessOrEqual,
}

impl FlagCond {
    /// All of them, in the order of x86's condition codes.
    pub const ALL: [FlagCond; 8] = [
        FlagCond::Overflow,
        FlagCond::Carry,
        FlagCond::Zero,
        FlagCond::CarryOrZero,
        FlagCond::Sign,
        FlagCond::Parity,
        FlagCond::Less,
        FlagCond::LessOrEqual,
    ];

    /// The same as a comparison of two registers, where it is known what the flags are of; `None` if there is none.
    pub(crate) fn compared(self, of: Known, negate: bool) -> Option<(Cond, u8, u8)> {
        let (cond, a, b) = match (of, self) {
            (Known::Nothing, _) => return None,
            (_, FlagCond::Zero) if of != Known::Difference => (Cond::Eq, FLAGS_X, FLAGS_NONE),
            (_, FlagCond::Sign) if of != Known::Difference => (Cond::Lt, FLAGS_X, FLAGS_NONE),
            (Known::Result, _) => return None,
            // A bitwise result is a difference from 0.
            (_, FlagCond::Zero) => (Cond::Eq, FLAGS_X, FLAGS_Y),
            (_, FlagCond::Carry) => (Cond::Ltu, FLAGS_X, FLAGS_Y),
            (_, FlagCond::CarryOrZero) => (Cond::Geu, FLAGS_Y, FLAGS_X),
            (_, FlagCond::Less) => (Cond::Lt, FLAGS_X, FLAGS_Y),
            (_, FlagCond::LessOrEqual) => (Cond::Ge, FLAGS_Y, FLAGS_X),
            (_, FlagCond::Overflow | FlagCond::Sign | FlagCond::Parity) => return None,
        };
        Some((if negate { cond.negated() } else { cond }, a, b))
    }
}

/// What a block knows of the flags while it is lifted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Known {
    #[default]
    Nothing,
    /// They are of X less Y.
    Difference,
    /// They are of X, a bitwise result, and Y is 0.
    Bitwise,
    /// Z and S are those of X.
    Result,
}

/// The state, as it stands in the register file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Flags {
    /// [`FLAGS_KIND`].
    pub kind: u64,
    /// [`FLAGS_X`].
    pub x: u64,
    /// [`FLAGS_Y`].
    pub y: u64,
}

impl Flags {
    /// These flags.
    pub fn eager(flags: u64) -> Self {
        Flags { kind: kind_word(Kind::Eager, 0), x: 0, y: flags & ALL }
    }

    #[inline(always)]
    fn kind(self) -> Kind {
        KINDS[self.kind as usize & 7]
    }

    #[inline(always)]
    fn shift(self) -> u32 {
        (self.kind >> 8) as u32 & 63
    }

    /// The result, moved up.
    #[inline(always)]
    fn result(self) -> u64 {
        match self.kind() {
            Kind::Sub => self.x.wrapping_sub(self.y),
            Kind::SubBorrow => self.x.wrapping_sub(self.y).wrapping_sub(1 << self.shift()),
            _ => self.x,
        }
    }

    /// C.
    #[inline(always)]
    pub fn carry(self) -> bool {
        match self.kind() {
            Kind::Eager | Kind::Result | Kind::Inc | Kind::Dec => self.y & CARRY != 0,
            Kind::Sub | Kind::Add => self.x < self.y,
            Kind::SubBorrow | Kind::AddCarry => self.x <= self.y,
        }
    }

    /// Z.
    #[inline(always)]
    pub fn zero(self) -> bool {
        if self.kind() == Kind::Eager { self.y & ZERO != 0 } else { self.result() == 0 }
    }

    /// S.
    #[inline(always)]
    pub fn sign(self) -> bool {
        if self.kind() == Kind::Eager { self.y & SIGN != 0 } else { self.result() >> 63 != 0 }
    }

    /// O.
    #[inline(always)]
    pub fn overflow(self) -> bool {
        match self.kind() {
            Kind::Eager | Kind::Result => self.y & OVERFLOW != 0,
            Kind::Sub | Kind::SubBorrow => ((self.x ^ self.y) & (self.x ^ self.result())) >> 63 != 0,
            Kind::Add | Kind::AddCarry => ((self.x ^ self.y) & (self.x ^ self.augend())) >> 63 != 0,
            Kind::Inc => self.x == 1 << 63,
            Kind::Dec => self.x >> self.shift() == (1 << (63 - self.shift())) - 1,
        }
    }

    /// What Y was added to.
    #[inline(always)]
    fn augend(self) -> u64 {
        let carry = if self.kind() == Kind::AddCarry { 1 << self.shift() } else { 0 };
        self.x.wrapping_sub(self.y).wrapping_sub(carry)
    }

    /// P.
    #[inline(always)]
    pub fn parity(self) -> bool {
        match self.kind() {
            Kind::Eager => self.y & PARITY != 0,
            _ => ((self.result() >> self.shift()) as u8).count_ones().is_multiple_of(2),
        }
    }

    /// A.
    #[inline(always)]
    pub fn adjust(self) -> bool {
        let bit = |x: u64| x >> self.shift() & 16 != 0;
        match self.kind() {
            Kind::Eager | Kind::Result => self.y & ADJUST != 0,
            Kind::Sub | Kind::SubBorrow => bit(self.x ^ self.y ^ self.result()),
            Kind::Add | Kind::AddCarry => bit(self.x ^ self.y ^ self.augend()),
            Kind::Inc => self.x >> self.shift() & 15 == 0,
            Kind::Dec => self.x >> self.shift() & 15 == 15,
        }
    }

    /// All flags.
    #[inline(always)]
    pub fn all(self) -> u64 {
        if self.kind() == Kind::Eager {
            return self.y;
        }
        let flag = |is: bool, flag: u64| if is { flag } else { 0 };
        flag(self.carry(), CARRY)
            | flag(self.parity(), PARITY)
            | flag(self.adjust(), ADJUST)
            | flag(self.zero(), ZERO)
            | flag(self.sign(), SIGN)
            | flag(self.overflow(), OVERFLOW)
    }

    /// These flags, but for those in `which`, which become those of `to`.
    #[inline(always)]
    pub fn with(self, which: u64, to: u64) -> Self {
        Flags::eager(self.all() & !which | to)
    }

    /// These flags with other C and O.
    #[inline(always)]
    pub(crate) fn with_carry_and_overflow(self, to: u64) -> Self {
        if self.kind() == Kind::Eager {
            return Flags { y: self.y & !(CARRY | OVERFLOW) | to, ..self };
        }
        let adjust = if self.adjust() { ADJUST } else { 0 };
        Flags { kind: kind_word(Kind::Result, self.shift()), x: self.result(), y: adjust | to }
    }

    /// Whether a condition holds.
    #[inline(always)]
    pub fn holds(self, cond: FlagCond) -> bool {
        match cond {
            FlagCond::Overflow => self.overflow(),
            FlagCond::Carry => self.carry(),
            FlagCond::Zero => self.zero(),
            FlagCond::CarryOrZero => self.carry() || self.zero(),
            FlagCond::Sign => self.sign(),
            FlagCond::Parity => self.parity(),
            FlagCond::Less => self.sign() != self.overflow(),
            FlagCond::LessOrEqual => self.zero() || self.sign() != self.overflow(),
        }
    }
}

/// Size of an operation: what of a register it reads and writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Size {
    /// 8 bits; the others stay.
    Bits8,
    /// 16 bits; the others stay.
    Bits16,
    /// 32 bits; the upper half becomes 0.
    Bits32,
    /// 64 bits.
    Bits64,
}

impl Size {
    /// In bytes.
    pub const fn bytes(self) -> u8 {
        match self {
            Size::Bits8 => 1,
            Size::Bits16 => 2,
            Size::Bits32 => 4,
            Size::Bits64 => 8,
        }
    }

    /// A register that held `old`, once `new` has been written to it in this size.
    #[inline(always)]
    pub const fn merge(self, old: u64, new: u64) -> u64 {
        match self {
            Size::Bits8 => old & !0xff | new & 0xff,
            Size::Bits16 => old & !0xffff | new & 0xffff,
            Size::Bits32 => new & 0xffff_ffff,
            Size::Bits64 => new,
        }
    }
}
