//! The table: an instruction's mnemonics, and what it computes.

use iced_x86::Mnemonic;

use super::{crypto, float, integer, shuffle, word, words};
use crate::vector::{Mxcsr, SimdException, Status, V, Width};

/// What a row's function is given.
pub(super) struct Args<'a> {
    /// How much of the registers is meant.
    pub(super) w: Width,
    /// The instruction is VEX-encoded.
    pub(super) vex: bool,
    /// An operand is a general register of 64 bits, or as long in memory.
    pub(super) long: bool,
    /// The first source: where that is not named, the destination.
    pub(super) a: V,
    /// The last source.
    pub(super) b: V,
    /// The last operand is a constant.
    pub(super) has_imm: bool,
    /// That constant, or the number of a fourth register. Else 0: XMM0, where that is implied.
    pub(super) imm: u8,
    /// The number of the destination.
    pub(super) d: u8,
    pub(super) mxcsr: &'a mut Mxcsr,
    pub(super) regs: &'a [u64; 256],
    /// What is written to the destination.
    pub(super) result: V,
    /// Something is.
    pub(super) writes: bool,
    /// The flags, if they are set.
    pub(super) status: Option<Status>,
}

impl Args<'_> {
    pub(super) fn register(&self, n: u8) -> V {
        words(self.regs, word(n, 0))
    }

    /// The destination, as it was.
    pub(super) fn old(&self) -> V {
        self.register(self.d)
    }

    /// A shift by the constant, or by the second operand.
    pub(super) fn shifted(&self, f: fn(V, u64) -> V) -> V {
        if self.has_imm { f(self.b, self.imm.into()) } else { f(self.a, self.b.mmx()) }
    }

    /// The length of a string, in a register of 32 bits.
    pub(super) fn length(&self, r: u8) -> i64 {
        (self.long_length(r) as i32).into()
    }

    pub(super) fn long_length(&self, r: u8) -> i64 {
        self.regs[usize::from(r)] as i64
    }
}

/// What a row's function returns: a vector or a value for a general register, or flags, or both, or an exception.
pub(super) trait Outcome {
    /// Leaves it in [`Args::result`] and [`Args::status`].
    fn give(self, x: &mut Args) -> Result<(), SimdException>;
}

macro_rules! outcomes {
    ($($type:ty: |$value:ident, $x:ident| $give:expr;)*) => { $(
        impl Outcome for $type {
            #[inline(always)]
            fn give(self, $x: &mut Args) -> Result<(), SimdException> {
                let $value = self;
                $give;
                Ok(())
            }
        }
    )* };
}
outcomes! {
    V: |v, x| x.result = v;
    u8: |v, x| x.result = V::from_mmx(v.into());
    u16: |v, x| x.result = V::from_mmx(v.into());
    u32: |v, x| x.result = V::from_mmx(v.into());
    u64: |v, x| x.result = V::from_mmx(v);
    Status: |status, x| (x.status, x.writes) = (Some(status), false);
    (u32, Status): |v, x| (x.result, x.status) = (V::from_mmx(v.0.into()), Some(v.1));
    (V, Status): |v, x| (x.result, x.status) = (v.0, Some(v.1));
}

impl<T: Outcome> Outcome for Result<T, SimdException> {
    #[inline(always)]
    fn give(self, x: &mut Args) -> Result<(), SimdException> {
        self?.give(x)
    }
}

/// An instruction: its mnemonics, and what it computes.
#[derive(Clone, Copy)]
pub(super) struct Row {
    pub(super) legacy: Mnemonic,
    pub(super) vex: Mnemonic,
    pub(super) function: fn(&mut Args) -> Result<(), SimdException>,
}

/// Rows: legacy mnemonic, that of the VEX encoding, meaning. `INVALID` is none.
macro_rules! rows {
    ($($legacy:ident $vex:ident |$x:ident| $body:expr;)*) => {
        &[$($crate::isa::vector::table::Row {
            legacy: iced_x86::Mnemonic::$legacy,
            vex: iced_x86::Mnemonic::$vex,
            function: |$x| {
                let outcome = $body;
                $crate::isa::vector::table::Outcome::give(outcome, $x)
            },
        },)*]
    };
}
pub(super) use rows;

const TABLES: [&[Row]; 5] = [integer::ROWS, shuffle::ROWS, crypto::ROWS, float::ROWS, float::FMA];

/// Their number.
pub(super) const COUNT: usize = {
    let (mut count, mut t) = (0, 0);
    while t < TABLES.len() {
        count += TABLES[t].len();
        t += 1;
    }
    count
};

/// All rows; the number of a row is that of its call.
pub(super) static ROWS: [Row; COUNT] = {
    let mut all = [TABLES[0][0]; COUNT];
    let (mut n, mut t) = (0, 0);
    while t < TABLES.len() {
        let mut i = 0;
        while i < TABLES[t].len() {
            all[n] = TABLES[t][i];
            n += 1;
            i += 1;
        }
        t += 1;
    }
    all
};

/// Of each mnemonic, the number of its row and 1, or 0.
static INDEX: [u16; 2048] = {
    let mut index = [0; 2048];
    let mut i = 0;
    while i < COUNT {
        index[ROWS[i].legacy as usize] = i as u16 + 1;
        index[ROWS[i].vex as usize] = i as u16 + 1;
        i += 1;
    }
    index[Mnemonic::INVALID as usize] = 0;
    index
};

/// The number of the row of a mnemonic.
pub(super) fn row_of(m: Mnemonic) -> Option<u16> {
    INDEX.get(m as usize)?.checked_sub(1)
}
