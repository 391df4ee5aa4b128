//! Instructions executed by the host, and the operands to try.

use core::cell::Cell;
use emu_core::random::SplitMix64;
use std::sync::Once;
use x86::vector::{Lane, V};

/// What an instruction finds in the registers: ymm0 is `d`, ymm1 is `a`, ymm2 is `b`, ymm3 is `c`; or mm0 to mm3.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct In {
    pub d: V,
    pub a: V,
    pub b: V,
    pub c: V,
    pub rax: u64,
    pub rdx: u64,
    pub mxcsr: u64,
}

/// What it leaves there: ymm0 or mm0, RAX, RCX, RFLAGS, MXCSR.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Out {
    pub v: V,
    pub rax: u64,
    pub rcx: u64,
    pub flags: u64,
    pub mxcsr: u64,
}

/// A function that executes one instruction. `$insn` is assembly text; `{imm}` in it is the value of `$imm`.
macro_rules! host {
    ($insn:expr $(, $imm:expr)?) => {{
        fn run(input: &$crate::host::In) -> $crate::host::Out {
            let mut output = $crate::host::Out::default();
            let usual_mxcsr = 0x1f80u32;
            // SAFETY: it reads `input`, writes `output`, and restores MXCSR.
            unsafe {
                core::arch::asm!(
                    "vmovdqu ymm0, [{i}]",
                    "vmovdqu ymm1, [{i} + 32]",
                    "vmovdqu ymm2, [{i} + 64]",
                    "vmovdqu ymm3, [{i} + 96]",
                    "mov rax, [{i} + 128]",
                    "mov rdx, [{i} + 136]",
                    "ldmxcsr [{i} + 144]",
                    $insn,
                    "stmxcsr [{o} + 56]",
                    "vmovdqu [{o}], ymm0",
                    "mov [{o} + 32], rax",
                    "mov [{o} + 40], rcx",
                    "pushfq",
                    "pop rax",
                    "mov [{o} + 48], rax",
                    "ldmxcsr [{usual}]",
                    "vzeroupper",
                    i = in(reg) input,
                    o = in(reg) &mut output,
                    usual = in(reg) &usual_mxcsr,
                    $(imm = const $imm,)?
                    out("rax") _, out("rcx") _, out("rdx") _,
                    out("xmm0") _, out("xmm1") _, out("xmm2") _, out("xmm3") _,
                    out("mm0") _, out("mm1") _,
                );
            }
            output
        }
        run as fn(&$crate::host::In) -> $crate::host::Out
    }};
}

/// Like `host!`, with MMX registers.
macro_rules! host_mmx {
    ($insn:expr $(, $imm:expr)?) => {{
        fn run(input: &$crate::host::In) -> $crate::host::Out {
            let mut output = $crate::host::Out::default();
            // SAFETY: it reads `input`, writes `output`, and leaves the x87 empty.
            unsafe {
                core::arch::asm!(
                    "movq mm0, [{i}]",
                    "movq mm1, [{i} + 32]",
                    "movq mm2, [{i} + 64]",
                    "movq mm3, [{i} + 96]",
                    $insn,
                    "movq [{o}], mm0",
                    "emms",
                    i = in(reg) input,
                    o = in(reg) &mut output,
                    $(imm = const $imm,)?
                    out("mm0") _, out("mm1") _, out("mm2") _, out("mm3") _,
                    out("mm4") _, out("mm5") _, out("mm6") _, out("mm7") _,
                    out("st(0)") _, out("st(1)") _, out("st(2)") _, out("st(3)") _,
                    out("st(4)") _, out("st(5)") _, out("st(6)") _, out("st(7)") _,
                    out("eax") _, out("rcx") _, out("rdx") _,
                );
            }
            output
        }
        run as fn(&$crate::host::In) -> $crate::host::Out
    }};
}

/// Tries an instruction with many operands: the result has so many bits.
macro_rules! check {
    ($bits:literal, $insn:expr, $f:expr) => {
        $crate::host::compare($insn, $bits, 2000, host!($insn), &$f)
    };
    (mmx, $insn:expr, $f:expr) => {
        $crate::host::compare($insn, 64, 2000, host_mmx!($insn), &$f)
    };
}

/// Tries an instruction with an immediate: with each of the chosen ones, and many operands. `$f` takes that too.
macro_rules! check_imm {
    ($bits:literal, $insn:expr, $f:expr) => {
        check_imm!(@ host, $bits, $insn, $f,
            0x00 0x01 0x02 0x03 0x04 0x05 0x06 0x07 0x08 0x09 0x0a 0x0b 0x0c 0x0d 0x0e 0x0f 0x10 0x11 0x12 0x13 0x14 0x17
            0x18 0x1b 0x1f 0x20 0x21 0x23 0x28 0x2d 0x31 0x36 0x38 0x3f 0x40 0x4e 0x55 0x57 0x64 0x71 0x78 0x80 0x88 0x8d
            0x93 0x9c 0xa5 0xaa 0xb1 0xb8 0xc0 0xc6 0xcc 0xd2 0xd8 0xe4 0xe9 0xf0 0xf7 0xff)
    };
    (mmx, $insn:expr, $f:expr) => {
        check_imm!(@ host_mmx, 64, $insn, $f,
            0x00 0x01 0x02 0x03 0x04 0x05 0x06 0x07 0x08 0x09 0x0a 0x0b 0x0c 0x0d 0x0e 0x0f 0x10 0x11 0x12 0x13 0x1b 0x21
            0x36 0x4e 0x55 0x80 0x93 0xaa 0xb1 0xc6 0xd8 0xe4 0xff)
    };
    (@ $host:ident, $bits:literal, $insn:expr, $f:expr, $($imm:literal)*) => {{
        let f = $f;
        $( $crate::host::compare($insn, $bits, 400, $host!($insn, $imm), &|x| f(x, $imm)); )*
    }};
}

/// Whether the host has what the tests need; says so where it has not.
macro_rules! host_has {
    ($($feature:tt),*) => {
        [$((std::arch::is_x86_feature_detected!($feature), $feature)),*].iter().all(|(has, feature)| {
            if !has {
                println!("skipped: the host has no {feature}");
            }
            *has
        })
    };
}

/// Tries integer operands of all kinds.
pub fn compare(insn: &str, bits: u32, cases: u32, host: fn(&In) -> Out, f: &dyn Fn(&In) -> V) {
    let mut random = Random::new(insn);
    let mask = |v: V| V::build(|i| if 64 * (i as u32) < bits { v.get::<u64>(i) } else { 0 });
    for _ in 0..cases {
        let x = In {
            d: random.integers(),
            a: random.integers(),
            b: random.integers(),
            c: random.integers(),
            rax: random.word(),
            rdx: random.word(),
            mxcsr: 0x1f80,
        };
        let (ours, theirs) = (mask(f(&x)), mask(host(&x).v));
        assert_eq!(ours, theirs, "{insn}: {x:x?}: ours {ours:x?}, the host's {theirs:x?}");
    }
}

/// Pseudorandom numbers.
pub struct Random(SplitMix64);

impl Random {
    /// A stream for a name.
    pub fn new(name: &str) -> Random {
        Random(SplitMix64(
            name.bytes().fold(1469, |seed, byte| (seed ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)),
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

    /// A vector of elements of some size, each random or near a boundary.
    pub fn integers(&mut self) -> V {
        match self.below(5) {
            0 => self.elements::<u8>(),
            1 => self.elements::<u16>(),
            2 => self.elements::<u32>(),
            3 => self.elements::<u64>(),
            _ => V::build(|_| self.word()),
        }
    }

    fn elements<T: Lane>(&mut self) -> V {
        let top = 8 * T::BYTES as u32 - 1;
        V::build(|_| {
            T::from_u64(match self.below(6) {
                0 => self.below(4),
                1 => self.below(4).wrapping_neg(),
                2 => (1 << top) | self.below(2),
                3 => (1u64 << top) - 1 - self.below(2),
                4 => self.below(80),
                _ => self.word(),
            })
        })
    }
}

/// Unmasked exceptions of the host: Linux delivers SIGFPE; the handler notes MXCSR and masks all exceptions, so the
/// instruction completes when it is tried again.
pub struct UnmaskedFault;

thread_local! {
    static MXCSR_AT_FAULT: Cell<Option<u32>> = const { Cell::new(None) };
}

/// `struct sigaction` of Linux's C library on x86-64.
#[repr(C)]
struct SigAction {
    handler: extern "C" fn(i32, *mut u8, *mut u8),
    mask: [u64; 16],
    flags: i32,
    restorer: usize,
}

unsafe extern "C" {
    fn sigaction(signal: i32, new: *const SigAction, old: *mut SigAction) -> i32;
}

const SIGFPE: i32 = 8;
const SA_SIGINFO: i32 = 4;

extern "C" fn on_sigfpe(_signal: i32, _info: *mut u8, context: *mut u8) {
    // SAFETY: in `ucontext_t`, after 40 bytes come 23 registers, and then the address of the FXSAVE image, in which MXCSR
    // is at 24.
    unsafe {
        let image = context.add(40 + 23 * 8).cast::<*mut u8>().read();
        let mxcsr = image.add(24).cast::<u32>();
        MXCSR_AT_FAULT.set(Some(mxcsr.read()));
        mxcsr.write(mxcsr.read() | 0x1f80);
    }
}

impl UnmaskedFault {
    /// Executes an instruction: MXCSR as it was when an exception was delivered, if one was.
    pub fn of(host: fn(&In) -> Out, x: &In) -> Result<Out, u32> {
        static INSTALL: Once = Once::new();
        INSTALL.call_once(|| {
            let action = SigAction { handler: on_sigfpe, mask: [0; 16], flags: SA_SIGINFO, restorer: 0 };
            // SAFETY: the layout is the C library's, the handler touches only its frame and a thread-local cell.
            assert_eq!(unsafe { sigaction(SIGFPE, &action, core::ptr::null_mut()) }, 0);
        });
        MXCSR_AT_FAULT.set(None);
        let out = host(x);
        match MXCSR_AT_FAULT.get() {
            None => Ok(out),
            Some(mxcsr) => Err(mxcsr),
        }
    }
}
