//! The state as an image in memory: FSTENV, FSAVE (SDM vol. 1, "Saving the x87 FPU's State"), FXSAVE and the legacy region of
//! XSAVE (SDM vol. 1, "FXSAVE Area", "Legacy Region of an XSAVE Area").

use super::status::*;
use super::{Pointer, X87};
use emu_core::float::{self, Class, F80};

/// The layout of FSTENV's image: by operand size and mode (virtual-8086 mode counts as real).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Layout {
    /// 14 bytes, selectors and offsets.
    Protected16,
    /// 14 bytes, linear addresses.
    Real16,
    /// 28 bytes, selectors and offsets. Also in 64-bit mode.
    Protected32,
    /// 28 bytes, linear addresses.
    Real32,
}

impl Layout {
    /// The size of FSTENV's image.
    pub const fn environment(self) -> usize {
        match self {
            Layout::Protected16 | Layout::Real16 => 14,
            Layout::Protected32 | Layout::Real32 => 28,
        }
    }

    /// The size of FSAVE's image: eight registers follow.
    pub const fn save(self) -> usize {
        self.environment() + 80
    }

    /// The size of a field: the fields are control, status and tag words and the two pointers.
    const fn field(self) -> usize {
        self.environment() / 7
    }
}

/// The form of FXSAVE's pointers.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Pointers {
    /// 32 bits and a selector.
    Selectors,
    /// 64 bits, with REX.W.
    Long,
}

fn put<const N: usize>(image: &mut [u8], at: usize, bytes: [u8; N]) {
    image[at..at + N].copy_from_slice(&bytes);
}

fn take<const N: usize>(image: &[u8], at: usize) -> [u8; N] {
    core::array::from_fn(|i| image[at + i])
}

fn put_register(image: &mut [u8], at: usize, x: u128) {
    image[at..at + 10].copy_from_slice(&x.to_le_bytes()[..10]);
}

fn take_register(image: &[u8], at: usize) -> u128 {
    let mut bytes = [0; 16];
    bytes[..10].copy_from_slice(&image[at..at + 10]);
    u128::from_le_bytes(bytes)
}

impl Pointer {
    fn linear(self) -> u32 {
        (u32::from(self.selector) << 4).wrapping_add(self.offset as u32)
    }
}

impl X87 {
    /// The tag word: of each register 0 (valid), 1 (zero), 2 (special) or 3 (empty).
    pub fn tag_word(&self) -> u16 {
        (0..8).fold(0, |word, n| {
            let tag = match float::classify::<F80>(self.r[n]) {
                _ if self.tag >> n & 1 == 0 => 3,
                Class::PositiveZero | Class::NegativeZero => 1,
                Class::PositiveNormal | Class::NegativeNormal => 0,
                _ => 2,
            };
            word | tag << (2 * n)
        })
    }

    fn set_tag_word(&mut self, word: u16) {
        self.tag = (0..8).fold(0, |tag, n| tag | u8::from(word >> (2 * n) & 3 != 3) << n);
    }

    /// FNSTENV: the image; then all exceptions are masked.
    pub fn fnstenv(&mut self, layout: Layout, image: &mut [u8]) {
        self.put_environment(layout, image);
        self.control |= EXCEPTIONS;
        self.update_summary();
    }

    fn put_environment(&self, layout: Layout, image: &mut [u8]) {
        let (ip, dp) = (self.instruction, self.data);
        let opcode = u32::from(self.opcode);
        // In a field of 32 bits, what is above a word is reserved and reads as ones.
        let word = |x: u16| 0xffff_0000 | u32::from(x);
        let [ip0, ip1, dp0, dp1] = match layout {
            Layout::Protected16 => [ip.offset as u32, ip.selector.into(), dp.offset as u32, dp.selector.into()],
            Layout::Real16 => {
                let (ip, dp) = (ip.linear(), dp.linear());
                [ip, ip >> 4 & 0xf000 | opcode, dp, dp >> 4 & 0xf000]
            }
            Layout::Protected32 => {
                [ip.offset as u32, u32::from(ip.selector) | opcode << 16, dp.offset as u32, word(dp.selector)]
            }
            Layout::Real32 => {
                let (ip, dp) = (ip.linear(), dp.linear());
                [word(ip as u16), ip >> 16 << 12 | opcode, word(dp as u16), dp >> 16 << 12]
            }
        };
        let fields = [word(self.control), word(self.status), word(self.tag_word()), ip0, ip1, dp0, dp1];
        let size = layout.field();
        for (i, field) in fields.iter().enumerate() {
            image[i * size..(i + 1) * size].copy_from_slice(&field.to_le_bytes()[..size]);
        }
    }

    /// FLDENV. An exception whose flag is set and whose mask is not becomes pending.
    pub fn fldenv(&mut self, layout: Layout, image: &[u8]) {
        let size = layout.field();
        let field = |i: usize| {
            let mut bytes = [0; 4];
            bytes[..size].copy_from_slice(&image[i * size..(i + 1) * size]);
            u32::from_le_bytes(bytes)
        };
        self.status = field(1) as u16;
        self.fldcw(field(0) as u16);
        self.set_tag_word(field(2) as u16);
        let [ip0, ip1, dp0, dp1] = [3, 4, 5, 6].map(field);
        let (ip, dp) = match layout {
            Layout::Protected16 | Layout::Protected32 => ((ip1 as u16, ip0), (dp1 as u16, dp0)),
            Layout::Real16 => ((0, ip0 | (ip1 & 0xf000) << 4), (0, dp0 | (dp1 & 0xf000) << 4)),
            Layout::Real32 => {
                let high = |field: u32| (field >> 12 & 0xffff) << 16;
                ((0, ip0 & 0xffff | high(ip1)), (0, dp0 & 0xffff | high(dp1)))
            }
        };
        self.instruction = Pointer { selector: ip.0, offset: ip.1.into() };
        self.data = Pointer { selector: dp.0, offset: dp.1.into() };
        self.opcode = match layout {
            Layout::Protected16 => 0,
            Layout::Real16 | Layout::Real32 => ip1 as u16 & 0x7ff,
            Layout::Protected32 => (ip1 >> 16) as u16 & 0x7ff,
        };
    }

    /// FNSAVE: the image, ST(0) first; then FNINIT.
    pub fn fnsave(&mut self, layout: Layout, image: &mut [u8]) {
        self.put_environment(layout, image);
        for i in 0..8 {
            put_register(image, layout.environment() + 10 * i, self.st(i));
        }
        self.fninit();
    }

    /// FRSTOR.
    pub fn frstor(&mut self, layout: Layout, image: &[u8]) {
        self.fldenv(layout, image);
        for i in 0..8 {
            let n = self.number(i);
            self.r[n] = take_register(image, layout.environment() + 10 * i);
        }
    }

    /// The x87's part of FXSAVE's image (or XSAVE's, of state component 0): bytes 0 to 23 and 32 to 159. Does not change the
    /// state.
    pub fn fxsave(&self, pointers: Pointers, image: &mut [u8]) {
        put(image, 0, self.control.to_le_bytes());
        put(image, 2, self.status.to_le_bytes());
        put(image, 4, [self.tag, 0]);
        put(image, 6, self.opcode.to_le_bytes());
        for (at, pointer) in [(8, self.instruction), (16, self.data)] {
            match pointers {
                Pointers::Long => put(image, at, pointer.offset.to_le_bytes()),
                Pointers::Selectors => {
                    put(image, at, (pointer.offset as u32).to_le_bytes());
                    put(image, at + 4, u32::from(pointer.selector).to_le_bytes());
                }
            }
        }
        for i in 0..8 {
            put(image, 32 + 16 * i, self.st(i).to_le_bytes());
        }
    }

    /// The x87's part of FXRSTOR's image.
    pub fn fxrstor(&mut self, pointers: Pointers, image: &[u8]) {
        self.status = u16::from_le_bytes(take(image, 2));
        self.fldcw(u16::from_le_bytes(take(image, 0)));
        self.tag = image[4];
        self.opcode = u16::from_le_bytes(take(image, 6)) & 0x7ff;
        let pointer = |at: usize| match pointers {
            Pointers::Long => Pointer { selector: 0, offset: u64::from_le_bytes(take(image, at)) },
            Pointers::Selectors => Pointer {
                selector: u16::from_le_bytes(take(image, at + 4)),
                offset: u32::from_le_bytes(take(image, at)).into(),
            },
        };
        (self.instruction, self.data) = (pointer(8), pointer(16));
        for i in 0..8 {
            let n = self.number(i);
            self.r[n] = take_register(image, 32 + 16 * i);
        }
    }
}

/// The other part of FXSAVE's image (or XSAVE's, of state component 1): MXCSR, MXCSR_MASK, XMM registers. Outside of 64-bit
/// mode there are eight of those.
pub fn fxsave_sse(mxcsr: u32, mxcsr_mask: u32, xmm: impl Iterator<Item = u128>, image: &mut [u8]) {
    put(image, 24, mxcsr.to_le_bytes());
    put(image, 28, mxcsr_mask.to_le_bytes());
    for (i, v) in xmm.enumerate() {
        put(image, 160 + 16 * i, v.to_le_bytes());
    }
}
