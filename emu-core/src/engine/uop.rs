//! Micro-ops, as instruction sets lift them: neutral, unfused, one list.
//!
//! Registers are numbers into one file of 256 values of 64 bits: the guest's registers first, temporaries behind them.
//! Register [`SINK`] takes results that nobody reads. This form is what `--trace uops` prints and what a compiler takes as
//! its input; [`encode`](super::encode) turns it into the form that the interpreter runs.

use std::fmt;

use super::alu::AluOp;
use super::flags::{FlagCond, Size};

/// Results that nobody reads go to this register.
pub const SINK: u8 = 255;

/// Declares the operations of two values: name, picture in prints, meaning. The one list from which the enum, the
/// printer, the meaning and (in `encode`) the handlers are made.
macro_rules! binary_ops {
    ($callback:ident) => {
        $callback! {
            /// Sum.
            Add "+" |x, y| x.wrapping_add(y);
            /// Difference.
            Sub "-" |x, y| x.wrapping_sub(y);
            /// Bitwise and.
            And "&" |x, y| x & y;
            /// Bitwise or.
            Or "|" |x, y| x | y;
            /// Bitwise exclusive or.
            Xor "^" |x, y| x ^ y;
            /// And with complement.
            AndNot "&~" |x, y| x & !y;
            /// Or with complement.
            OrNot "|~" |x, y| x | !y;
            /// Complement of exclusive or.
            Xnor "~^" |x, y| !(x ^ y);
            /// Shift left by `y mod 64`.
            Shl "<<" |x, y| x.wrapping_shl(y as u32);
            /// Logical shift right by `y mod 64`.
            Shr ">>" |x, y| x.wrapping_shr(y as u32);
            /// Arithmetic shift right by `y mod 64`.
            Sar ">>s" |x, y| (x as i64).wrapping_shr(y as u32) as u64;
            /// Rotate left by `y mod 64`.
            Rol "rol" |x, y| x.rotate_left(y as u32 & 63);
            /// Rotate right by `y mod 64`.
            Ror "ror" |x, y| x.rotate_right(y as u32 & 63);
            /// 32-bit sum, sign-extended.
            AddW "+w" |x, y| sext32(x.wrapping_add(y));
            /// 32-bit difference, sign-extended.
            SubW "-w" |x, y| sext32(x.wrapping_sub(y));
            /// 32-bit shift left by `y mod 32`, sign-extended.
            ShlW "<<w" |x, y| sext32(u64::from((x as u32).wrapping_shl(y as u32)));
            /// 32-bit logical shift right by `y mod 32`, sign-extended.
            ShrW ">>w" |x, y| sext32(u64::from((x as u32).wrapping_shr(y as u32)));
            /// 32-bit arithmetic shift right by `y mod 32`, sign-extended.
            SarW ">>sw" |x, y| (x as i32).wrapping_shr(y as u32) as i64 as u64;
            /// 32-bit rotate left, sign-extended.
            RolW "rolw" |x, y| sext32(u64::from((x as u32).rotate_left(y as u32 & 31)));
            /// 32-bit rotate right, sign-extended.
            RorW "rorw" |x, y| sext32(u64::from((x as u32).rotate_right(y as u32 & 31)));
            /// 1 where `x < y`, signed.
            Lt "<s" |x, y| u64::from((x as i64) < y as i64);
            /// 1 where `x < y`, unsigned.
            Ltu "<u" |x, y| u64::from(x < y);
            /// The lesser, signed.
            Min "min" |x, y| (x as i64).min(y as i64) as u64;
            /// The greater, signed.
            Max "max" |x, y| (x as i64).max(y as i64) as u64;
            /// The lesser, unsigned.
            Minu "minu" |x, y| x.min(y);
            /// The greater, unsigned.
            Maxu "maxu" |x, y| x.max(y);
            /// Low half of the product.
            Mul "*" |x, y| x.wrapping_mul(y);
            /// 32-bit product, sign-extended.
            MulW "*w" |x, y| sext32(x.wrapping_mul(y));
            /// High half of the signed product.
            MulHigh "*h" |x, y| ((i128::from(x as i64) * i128::from(y as i64)) >> 64) as u64;
            /// High half of the unsigned product.
            MulHighu "*hu" |x, y| ((u128::from(x) * u128::from(y)) >> 64) as u64;
            /// High half of signed `x` times unsigned `y`.
            MulHighsu "*hsu" |x, y| ((i128::from(x as i64) * i128::from(y)) >> 64) as u64;
            /// Signed quotient; all ones for a divisor of 0, the dividend where it overflows.
            Div "/s" |x, y| if y == 0 { u64::MAX } else { (x as i64).wrapping_div(y as i64) as u64 };
            /// Unsigned quotient; all ones for a divisor of 0.
            Divu "/u" |x, y| x.checked_div(y).unwrap_or(u64::MAX);
            /// Signed remainder; the dividend for a divisor of 0, 0 where the quotient overflows.
            Rem "%s" |x, y| if y == 0 { x } else { (x as i64).wrapping_rem(y as i64) as u64 };
            /// Unsigned remainder; the dividend for a divisor of 0.
            Remu "%u" |x, y| x.checked_rem(y).unwrap_or(x);
            /// 32-bit [`BinaryOp::Div`], sign-extended.
            DivW "/sw" |x, y| if y as u32 == 0 { u64::MAX } else { (x as i32).wrapping_div(y as i32) as i64 as u64 };
            /// 32-bit [`BinaryOp::Divu`], sign-extended.
            DivuW "/uw" |x, y| (x as u32).checked_div(y as u32).map_or(u64::MAX, |q| sext32(u64::from(q)));
            /// 32-bit [`BinaryOp::Rem`], sign-extended.
            RemW "%sw" |x, y| if y as u32 == 0 { sext32(x) } else { (x as i32).wrapping_rem(y as i32) as i64 as u64 };
            /// 32-bit [`BinaryOp::Remu`], sign-extended.
            RemuW "%uw" |x, y| sext32(u64::from((x as u32).checked_rem(y as u32).unwrap_or(x as u32)));
            /// `2x + y`.
            Shl1Add "<<1+" |x, y| (x << 1).wrapping_add(y);
            /// `4x + y`.
            Shl2Add "<<2+" |x, y| (x << 2).wrapping_add(y);
            /// `8x + y`.
            Shl3Add "<<3+" |x, y| (x << 3).wrapping_add(y);
            /// Low 32 bits of `x`, plus `y`.
            AddU32 "u32+" |x, y| (x & 0xffff_ffff).wrapping_add(y);
            /// Low 32 bits of `x`, shifted left by `y mod 64`.
            ShlU32 "u32<<" |x, y| (x & 0xffff_ffff).wrapping_shl(y as u32);
            /// `x` with bit `y mod 64` clear.
            BitClear "bclr" |x, y| x & !(1u64.wrapping_shl(y as u32));
            /// `x` with bit `y mod 64` set.
            BitSet "bset" |x, y| x | 1u64.wrapping_shl(y as u32);
            /// `x` with bit `y mod 64` inverted.
            BitInvert "binv" |x, y| x ^ 1u64.wrapping_shl(y as u32);
            /// Bit `y mod 64` of `x`.
            BitTest "bext" |x, y| x.wrapping_shr(y as u32) & 1;
            /// Low half of the carry-less product.
            ClMul "clmul" |x, y| clmul(x, y) as u64;
            /// High half of the carry-less product.
            ClMulHigh "clmulh" |x, y| (clmul(x, y) >> 64) as u64;
            /// Bits 126 to 63 of the carry-less product.
            ClMulReversed "clmulr" |x, y| (clmul(x, y) >> 63) as u64;
            /// 0 where `y` is 0, else `x`.
            ZeroIfZero "czero.eqz" |x, y| if y == 0 { 0 } else { x };
            /// 0 where `y` is not 0, else `x`.
            ZeroIfNonzero "czero.nez" |x, y| if y == 0 { x } else { 0 };
            /// `x` with the sign bit of `y`.
            CopySign "copysign" |x, y| x & !SIGN | y & SIGN;
            /// `x` with the inverse of the sign bit of `y`.
            CopySignNot "copysignn" |x, y| x & !SIGN | !y & SIGN;
            /// `x` with its sign bit exclusive-ored with that of `y`.
            XorSign "xorsign" |x, y| x ^ y & SIGN;
            /// Low halves of `y` above those of `x`: 32 bits each.
            Pack32 "pack" |x, y| x & 0xffff_ffff | y << 32;
            /// `x` with the low 8 bits of `y`.
            Merge8 "merge8" |x, y| x & !0xff | y & 0xff;
            /// `x` with the low 16 bits of `y`.
            Merge16 "merge16" |x, y| x & !0xffff | y & 0xffff;
            /// `x` with the low 8 bits of `y` in bits 15 to 8.
            MergeHigh8 "mergehigh8" |x, y| x & !0xff00 | (y & 0xff) << 8;
            /// 32-bit sum, zero-extended.
            Add32 "+32" |x, y| x.wrapping_add(y) & 0xffff_ffff;
            /// 1 where `x` is `y`.
            Eq "==" |x, y| u64::from(x == y);
            /// 1 where `x` is not `y`.
            Ne "!=" |x, y| u64::from(x != y);
            /// 1 where `x >= y`, signed.
            Ge ">=s" |x, y| u64::from(x as i64 >= y as i64);
            /// 1 where `x >= y`, unsigned.
            Geu ">=u" |x, y| u64::from(x >= y);
        }
    };
}
pub(crate) use binary_ops;

/// Declares the operations of one value.
macro_rules! unary_ops {
    ($callback:ident) => {
        $callback! {
            /// The same value.
            Move "" |x| x;
            /// Sign-extended low 8 bits.
            Sext8 "sext8" |x| x as i8 as i64 as u64;
            /// Sign-extended low 16 bits.
            Sext16 "sext16" |x| x as i16 as i64 as u64;
            /// Sign-extended low 32 bits.
            Sext32 "sext32" |x| sext32(x);
            /// Zero-extended low 8 bits.
            Zext8 "zext8" |x| x & 0xff;
            /// Zero-extended low 16 bits.
            Zext16 "zext16" |x| x & 0xffff;
            /// Zero-extended low 32 bits.
            Zext32 "zext32" |x| x & 0xffff_ffff;
            /// Leading zeroes: 64 for 0.
            Clz "clz" |x| u64::from(x.leading_zeros());
            /// Leading zeroes of the low 32 bits: 32 for 0.
            ClzW "clzw" |x| u64::from((x as u32).leading_zeros());
            /// Trailing zeroes: 64 for 0.
            Ctz "ctz" |x| u64::from(x.trailing_zeros());
            /// Trailing zeroes of the low 32 bits: 32 for 0.
            CtzW "ctzw" |x| u64::from((x as u32).trailing_zeros());
            /// Ones.
            Popcount "cpop" |x| u64::from(x.count_ones());
            /// Ones of the low 32 bits.
            PopcountW "cpopw" |x| u64::from((x as u32).count_ones());
            /// Every byte that is not 0 becomes all ones.
            OrCombine "orc.b" |x| or_combine(x);
            /// Bytes in reverse order.
            ByteReverse "rev8" |x| x.swap_bytes();
            /// Low 32 bits under ones (how RISC-V boxes a narrow float).
            Box32 "box32" |x| x | 0xffff_ffff_0000_0000;
            /// Low 16 bits under ones.
            Box16 "box16" |x| x | 0xffff_ffff_ffff_0000;
        }
    };
}
pub(crate) use unary_ops;

pub(crate) const SIGN: u64 = 1 << 63;

#[inline(always)]
pub(crate) fn sext32(x: u64) -> u64 {
    x as i32 as i64 as u64
}

#[inline(always)]
pub(crate) fn clmul(x: u64, y: u64) -> u128 {
    (0..64).filter(|i| y >> i & 1 != 0).fold(0, |sum, i| sum ^ u128::from(x) << i)
}

#[inline(always)]
pub(crate) fn or_combine(x: u64) -> u64 {
    let low = 0x7f7f_7f7f_7f7f_7f7f;
    // Bit 7 of each byte is set where the byte is not 0, then spread over the byte.
    let some = (((x & low) + low) | x) & !low;
    (some >> 7) * 255
}

macro_rules! binary_enum {
    ($($(#[$m:meta])* $name:ident $print:literal |$x:ident, $y:ident| $body:expr;)*) => {
        /// An operation of two values.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum BinaryOp { $($(#[$m])* $name,)* }
        impl BinaryOp {
            /// All of them.
            pub const ALL: &[BinaryOp] = &[$(BinaryOp::$name),*];
            /// The value. What the interpreter and a compiler are held to.
            pub fn apply(self, x: u64, y: u64) -> u64 {
                match self { $(BinaryOp::$name => { let ($x, $y) = (x, y); $body })* }
            }
            fn print(self) -> &'static str { match self { $(BinaryOp::$name => $print,)* } }
        }
    };
}
macro_rules! unary_enum {
    ($($(#[$m:meta])* $name:ident $print:literal |$x:ident| $body:expr;)*) => {
        /// An operation of one value.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum UnaryOp { $($(#[$m])* $name,)* }
        impl UnaryOp {
            /// All of them.
            pub const ALL: &[UnaryOp] = &[$(UnaryOp::$name),*];
            /// The value. What the interpreter and a compiler are held to.
            pub fn apply(self, x: u64) -> u64 { match self { $(UnaryOp::$name => { let $x = x; $body })* } }
            fn print(self) -> &'static str { match self { $(UnaryOp::$name => $print,)* } }
        }
    };
}
binary_ops!(binary_enum);
unary_ops!(unary_enum);

/// What a load makes of the bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Width {
    /// 8 bits, zero-extended.
    U8,
    /// 16 bits, zero-extended.
    U16,
    /// 32 bits, zero-extended.
    U32,
    /// 64 bits.
    U64,
    /// 8 bits, sign-extended.
    I8,
    /// 16 bits, sign-extended.
    I16,
    /// 32 bits, sign-extended.
    I32,
    /// 32 bits under ones.
    Box32,
    /// 16 bits under ones.
    Box16,
}

impl Width {
    /// Size of the access in bytes.
    pub const fn bytes(self) -> u8 {
        match self {
            Width::U8 | Width::I8 => 1,
            Width::U16 | Width::I16 | Width::Box16 => 2,
            Width::U32 | Width::I32 | Width::Box32 => 4,
            Width::U64 => 8,
        }
    }

    /// Extends the zero-extended bytes as this width asks for.
    #[inline(always)]
    pub const fn extend(self, x: u64) -> u64 {
        match self {
            Width::U8 | Width::U16 | Width::U32 | Width::U64 => x,
            Width::I8 => x as i8 as i64 as u64,
            Width::I16 => x as i16 as i64 as u64,
            Width::I32 => x as i32 as i64 as u64,
            Width::Box32 => x | 0xffff_ffff_0000_0000,
            Width::Box16 => x | 0xffff_ffff_ffff_0000,
        }
    }
}

/// When a branch is taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cond {
    /// Equal.
    Eq,
    /// Not equal.
    Ne,
    /// Less, signed.
    Lt,
    /// Greater or equal, signed.
    Ge,
    /// Less, unsigned.
    Ltu,
    /// Greater or equal, unsigned.
    Geu,
}

impl Cond {
    /// The opposite.
    pub const fn negated(self) -> Self {
        match self {
            Cond::Eq => Cond::Ne,
            Cond::Ne => Cond::Eq,
            Cond::Lt => Cond::Ge,
            Cond::Ge => Cond::Lt,
            Cond::Ltu => Cond::Geu,
            Cond::Geu => Cond::Ltu,
        }
    }

    /// The operation whose value is 1 where it holds.
    pub const fn value(self) -> BinaryOp {
        match self {
            Cond::Eq => BinaryOp::Eq,
            Cond::Ne => BinaryOp::Ne,
            Cond::Lt => BinaryOp::Lt,
            Cond::Ge => BinaryOp::Ge,
            Cond::Ltu => BinaryOp::Ltu,
            Cond::Geu => BinaryOp::Geu,
        }
    }

    /// Whether it holds.
    #[inline(always)]
    pub const fn holds(self, x: u64, y: u64) -> bool {
        match self {
            Cond::Eq => x == y,
            Cond::Ne => x != y,
            Cond::Lt => (x as i64) < y as i64,
            Cond::Ge => x as i64 >= y as i64,
            Cond::Ltu => x < y,
            Cond::Geu => x >= y,
        }
    }
}

/// The second operand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operand {
    /// A register.
    Reg(u8),
    /// A constant, sign-extended.
    Imm(i32),
}

/// A micro-op. `d` is where the result goes, `a` the first source.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Uop {
    /// `d = value`
    Const {
        /// Destination.
        d: u8,
        /// The constant.
        value: u64,
    },
    /// `d = op(a)`
    Unary {
        /// The operation.
        op: UnaryOp,
        /// Destination.
        d: u8,
        /// Source.
        a: u8,
    },
    /// `d = op(a, b)`
    Binary {
        /// The operation.
        op: BinaryOp,
        /// Destination.
        d: u8,
        /// First source.
        a: u8,
        /// Second source.
        b: Operand,
    },
    /// `d = op(a, b)` in this size, with flags.
    Alu {
        /// The operation.
        op: AluOp,
        /// What of the registers is meant.
        size: Size,
        /// Destination; [`SINK`] for the flags alone.
        d: u8,
        /// First source.
        a: u8,
        /// Second source.
        b: Operand,
    },
    /// `d = 1` if the flags fulfil the condition (or do not, if `negate`), else 0.
    SetIf {
        /// The condition.
        cond: FlagCond,
        /// Its opposite is meant.
        negate: bool,
        /// Destination.
        d: u8,
    },
    /// Leaves for `target` likewise.
    BranchIf {
        /// The condition.
        cond: FlagCond,
        /// Its opposite is meant.
        negate: bool,
        /// Virtual address.
        target: u64,
    },
    /// `d = all flags`
    GetFlags {
        /// Destination.
        d: u8,
    },
    /// All flags become those in `a`.
    SetFlags {
        /// Source.
        a: u8,
    },
    /// `d = a` if `test` is not 0.
    MoveIf {
        /// Destination.
        d: u8,
        /// Source.
        a: u8,
        /// What is asked.
        test: u8,
    },
    /// `d = memory[a + (b << scale) + offset]`
    LoadIndexed {
        /// Size and extension.
        width: Width,
        /// Destination.
        d: u8,
        /// Base.
        a: u8,
        /// Index.
        b: u8,
        /// By how much the index is shifted: 0 to 3.
        scale: u8,
        /// Offset in bytes.
        offset: i32,
    },
    /// `memory[a + (b << scale) + offset] = value`
    StoreIndexed {
        /// Size.
        width: Width,
        /// Base.
        a: u8,
        /// Index.
        b: u8,
        /// By how much the index is shifted: 0 to 3.
        scale: u8,
        /// The value.
        value: u8,
        /// Offset in bytes.
        offset: i32,
    },
    /// `d = memory[a + offset]`, of what a store to the same place follows: faults as the store would.
    LoadToUpdate {
        /// Size and extension.
        width: Width,
        /// Destination.
        d: u8,
        /// Base.
        a: u8,
        /// Offset in bytes.
        offset: i32,
    },
    /// `memory[a + offset] = b`, then `a = a + offset`.
    StoreBack {
        /// Size.
        width: Width,
        /// Base.
        a: u8,
        /// The value.
        b: u8,
        /// Offset in bytes.
        offset: i32,
    },
    /// `d = memory[a]`, and `a = a + step` before `d` is written.
    LoadPast {
        /// Size and extension.
        width: Width,
        /// Destination.
        d: u8,
        /// Base.
        a: u8,
        /// Step in bytes.
        step: i32,
    },
    /// `d = memory[a + offset]`
    Load {
        /// Size and extension.
        width: Width,
        /// Destination.
        d: u8,
        /// Base.
        a: u8,
        /// Offset in bytes.
        offset: i32,
    },
    /// `memory[a + offset] = b`
    Store {
        /// Size.
        width: Width,
        /// Base.
        a: u8,
        /// The value.
        b: u8,
        /// Offset in bytes.
        offset: i32,
    },
    /// Leaves for `target` if the condition holds, else goes on.
    Branch {
        /// The condition.
        cond: Cond,
        /// First value.
        a: u8,
        /// Second value.
        b: u8,
        /// Virtual address.
        target: u64,
    },
    /// Leaves for `target`.
    Goto {
        /// Virtual address.
        target: u64,
    },
    /// Leaves for `(a + offset) & !clear`.
    GotoReg {
        /// Base.
        a: u8,
        /// Offset in bytes.
        offset: i32,
        /// Low bits that are cleared.
        clear: u8,
    },
    /// Architecture code: function `function` with `operand`. If `ends`, the block ends there and goes on at the address
    /// that the architecture set.
    Call {
        /// The architecture's number of the function.
        function: u16,
        /// What it is called with: instruction bits, or an index of the architecture's own.
        operand: u32,
        /// Whether the block ends here.
        ends: bool,
    },
}

impl Uop {
    /// It is an access to memory or a call: the vCPU may have to leave behind its instruction.
    pub(crate) const fn may_leave(&self) -> bool {
        matches!(
            self,
            Uop::Load { .. }
                | Uop::Store { .. }
                | Uop::LoadIndexed { .. }
                | Uop::StoreIndexed { .. }
                | Uop::LoadToUpdate { .. }
                | Uop::StoreBack { .. }
                | Uop::LoadPast { .. }
                | Uop::Call { .. }
        )
    }
}

impl fmt::Display for Uop {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        match *self {
            Uop::Const { d, value } => write!(f, "r{d} = {value:#x}"),
            Uop::Unary { op, d, a } => write!(f, "r{d} = {} r{a}", op.print()),
            Uop::Binary { op, d, a, b: Operand::Reg(b) } => write!(f, "r{d} = r{a} {} r{b}", op.print()),
            Uop::Binary { op, d, a, b: Operand::Imm(b) } => write!(f, "r{d} = r{a} {} {b}", op.print()),
            Uop::Alu { op, size, d, a, b: Operand::Reg(b) } => write!(f, "r{d} = r{a} {} r{b} ({size:?})", op.print()),
            Uop::Alu { op, size, d, a, b: Operand::Imm(b) } => write!(f, "r{d} = r{a} {} {b} ({size:?})", op.print()),
            Uop::SetIf { cond, negate, d } => write!(f, "r{d} = {}{cond:?}", if negate { "not " } else { "" }),
            Uop::BranchIf { cond, negate, target } => {
                write!(f, "if {}{cond:?} goto {target:#x}", if negate { "not " } else { "" })
            }
            Uop::GetFlags { d } => write!(f, "r{d} = flags"),
            Uop::SetFlags { a } => write!(f, "flags = r{a}"),
            Uop::MoveIf { d, a, test } => write!(f, "if r{test} r{d} = r{a}"),
            Uop::LoadIndexed { width, d, a, b, scale, offset } => {
                write!(f, "r{d} = {width:?}[r{a} + (r{b} << {scale}) + {offset}]")
            }
            Uop::StoreIndexed { width, a, b, scale, value, offset } => {
                write!(f, "{width:?}[r{a} + (r{b} << {scale}) + {offset}] = r{value}")
            }
            Uop::LoadToUpdate { width, d, a, offset } => write!(f, "r{d} = {width:?}[r{a} + {offset}] to update"),
            Uop::StoreBack { width, a, b, offset } => write!(f, "{width:?}[r{a} += {offset}] = r{b}"),
            Uop::LoadPast { width, d, a, step } => write!(f, "r{d} = {width:?}[r{a}], r{a} += {step}"),
            Uop::Load { width, d, a, offset } => write!(f, "r{d} = {width:?}[r{a} + {offset}]"),
            Uop::Store { width, a, b, offset } => write!(f, "{width:?}[r{a} + {offset}] = r{b}"),
            Uop::Branch { cond, a, b, target } => write!(f, "if r{a} {cond:?} r{b} goto {target:#x}"),
            Uop::Goto { target } => write!(f, "goto {target:#x}"),
            Uop::GotoReg { a, offset, clear } => write!(f, "goto (r{a} + {offset}) &~ {clear}"),
            Uop::Call { function, operand, ends } => {
                write!(f, "call {function}({operand:#x}){}", if ends { ", end" } else { "" })
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hand_checked_values() {
        assert_eq!(BinaryOp::Div.apply(i64::MIN as u64, u64::MAX), i64::MIN as u64);
        assert_eq!(BinaryOp::Rem.apply(i64::MIN as u64, u64::MAX), 0);
        assert_eq!(BinaryOp::RemW.apply(0x8000_0000, 0), 0xffff_ffff_8000_0000);
        assert_eq!(BinaryOp::MulHighsu.apply(u64::MAX, u64::MAX), u64::MAX);
        assert_eq!(BinaryOp::ClMul.apply(0b11, 0b11), 0b101);
        assert_eq!(BinaryOp::ClMulHigh.apply(1 << 63, 2), 1);
        assert_eq!(BinaryOp::ClMulReversed.apply(1 << 63, 1), 1);
        assert_eq!(UnaryOp::OrCombine.apply(0x0100_8000_0010_00ff), 0xff00_ff00_00ff_00ff);
        assert_eq!(BinaryOp::XorSign.apply(SIGN | 5, SIGN), 5);
        assert_eq!(BinaryOp::CopySignNot.apply(5, 0), SIGN | 5);
    }
}
