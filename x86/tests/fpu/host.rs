//! Instructions executed by the host on a state that FRSTOR loads and FNSAVE stores, and the states to try.

use emu_core::random::SplitMix64;
use x86::fpu::X87;
use x86::fpu::image::Layout;

/// A state, an operand in memory, EFLAGS (the status flags) and AX.
#[repr(C)]
#[derive(Clone, Copy, PartialEq)]
pub struct Machine {
    pub image: [u8; 108],
    pub pad: [u8; 4],
    pub memory: [u8; 16],
    pub flags: u64,
    pub ax: u64,
}

/// A function that executes instructions. `{m}` in the text is the address of the operand in memory.
macro_rules! host {
    ($insn:expr) => {{
        fn run(machine: &mut $crate::host::Machine) {
            // SAFETY: it reads and writes `machine`, and leaves the x87 as FNINIT does.
            unsafe {
                core::arch::asm!(
                    "frstor [{i}]",
                    "push qword ptr [{i} + 128]",
                    "popfq",
                    $insn,
                    "fnsave [{i}]",
                    "pushfq",
                    "pop qword ptr [{i} + 128]",
                    "mov [{i} + 136], rax",
                    "/* {m} */",
                    i = in(reg) machine as *mut $crate::host::Machine,
                    m = in(reg) &raw mut machine.memory,
                    out("rax") _,
                    out("st(0)") _, out("st(1)") _, out("st(2)") _, out("st(3)") _,
                    out("st(4)") _, out("st(5)") _, out("st(6)") _, out("st(7)") _,
                );
            }
        }
        run as fn(&mut $crate::host::Machine)
    }};
}

/// Whether the host is of those whose x87 was measured where the SDM is silent: AMD's. Else a test is skipped, and says so.
pub fn is_measured(test: &str) -> bool {
    let vendor = core::arch::x86_64::__cpuid(0);
    let name: Vec<u8> = [vendor.ebx, vendor.edx, vendor.ecx].iter().flat_map(|r| r.to_le_bytes()).collect();
    let measured = name == b"AuthenticAMD";
    if !measured {
        println!("skipped: {test}: the host is {}, not AuthenticAMD", String::from_utf8_lossy(&name));
    }
    measured
}

/// Pseudorandom numbers.
pub struct Random(SplitMix64);

impl Random {
    /// A stream for a name.
    pub fn new(name: &str) -> Random {
        Random(SplitMix64(
            name.bytes().fold(2024, |seed, byte| (seed ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)),
        ))
    }

    pub fn word(&mut self) -> u64 {
        self.0.next()
    }

    pub fn below(&mut self, n: u64) -> u64 {
        self.0.below(n)
    }

    pub fn of<T: Copy>(&mut self, choices: &[T]) -> T {
        self.0.of(choices)
    }

    /// A number of `bits` bits of which `fraction` are the fraction, without the integer bit of extended precision.
    fn fields(&mut self, exp_bits: u32, fraction: u32) -> (u64, u64, u64) {
        let one = 1u64 << fraction;
        let exp_max = (1u64 << exp_bits) - 1;
        let bias = exp_max >> 1;
        let significand = match self.below(6) {
            0 => 0,
            1 => self.below(4),
            2 => one - 1 - self.below(4),
            3 => one >> (1 + self.below(u64::from(fraction))),
            4 => self.word() & (one - 1) & !((one >> self.below(u64::from(fraction))) - 1),
            _ => self.word() & (one - 1),
        };
        let exp = match self.below(12) {
            0 => 0,
            1 => 1 + self.below(3),
            2 => exp_max - self.below(3),
            3 => exp_max,
            4 => bias / 2 + self.below(8),
            5 => bias + bias / 2 + self.below(8),
            6 => self.below(exp_max + 1),
            7 | 8 => (bias + self.below(70)).min(exp_max),
            9 => bias - self.below(70).min(bias),
            _ => bias + self.below(5) - 2,
        };
        (self.below(2), exp, significand)
    }

    pub fn f32(&mut self) -> u32 {
        let (sign, exp, significand) = self.fields(8, 23);
        (sign << 31 | exp << 23 | significand) as u32
    }

    pub fn f64(&mut self) -> u64 {
        let (sign, exp, significand) = self.fields(11, 52);
        sign << 63 | exp << 52 | significand
    }

    /// A number in extended precision; sometimes a pattern that is not supported, or a pseudo-denormal; sometimes near the
    /// range of a shorter format.
    pub fn f80(&mut self) -> u128 {
        let (sign, mut exp, significand) = self.fields(15, 63);
        match self.below(16) {
            0 => exp = 0x3fff - 126 - self.below(26),
            1 => exp = 0x3fff + 126 + self.below(4),
            2 => exp = 0x3fff - 1022 - self.below(55),
            3 => exp = 0x3fff + 1022 + self.below(4),
            _ => {}
        }
        let integer = u64::from(exp != 0) ^ u64::from(self.below(40) == 0);
        u128::from(sign << 15 | exp) << 64 | u128::from(integer << 63 | significand)
    }

    /// A state. Of those exceptions that are not masked, no flag is set: none is pending.
    pub fn state(&mut self) -> X87 {
        let mut fpu = X87::default();
        let masks = if self.below(4) == 0 { self.below(64) as u16 } else { 0x3f };
        let precision = self.of(&[0x000, 0x200, 0x300, 0x300, 0x300]);
        fpu.fldcw(masks | precision | (self.below(4) as u16) << 10);
        let flags = if self.below(2) == 0 { 0 } else { self.below(128) as u16 & (masks | 0x40) };
        fpu.status = flags | self.word() as u16 & 0x7f00;
        fpu.tag = if self.below(4) == 0 { self.word() as u8 } else { 0xff };
        if self.below(2) == 0 {
            fpu.tag &= !(1 << ((fpu.top() + 7) & 7));
        }
        for r in &mut fpu.r {
            *r = self.f80();
        }
        // Sometimes ST(1) is near ST(0).
        let (top, next) = (fpu.top(), (fpu.top() + 1) & 7);
        match self.below(8) {
            0 => fpu.r[next] = fpu.r[top],
            1 => fpu.r[next] = fpu.r[top] ^ 1 << 79 ^ u128::from(self.below(3)),
            _ => {}
        }
        fpu
    }
}

/// The status flags of EFLAGS.
pub const STATUS: u64 = 0x8d5;

/// Runs instructions on the host: the state, the operand in memory, the status flags and AX after them.
pub fn run(host: fn(&mut Machine), fpu: &X87, memory: u128) -> (X87, u128, u64, u16) {
    let mut machine =
        Machine { image: [0; 108], pad: [0; 4], memory: memory.to_le_bytes(), flags: 0x202 | STATUS, ax: 0 };
    fpu.clone().fnsave(Layout::Protected32, &mut machine.image);
    host(&mut machine);
    let mut after = X87::default();
    after.frstor(Layout::Protected32, &machine.image);
    let tags = u16::from_le_bytes([machine.image[8], machine.image[9]]);
    assert_eq!(after.tag_word(), tags, "the host's tag word, {after:x?}");
    assert_eq!(machine.image[4..6], after.status.to_le_bytes(), "the host's summary, {after:x?}");
    (after, u128::from_le_bytes(machine.memory), machine.flags & STATUS, machine.ax as u16)
}
