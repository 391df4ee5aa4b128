use crate::host::{Machine, Random, STATUS, is_measured, run};
use core::cell::Cell;
use emu_core::float::x87;
use x86::fpu::arithmetic::Arith;
use x86::fpu::compare::Nans;
use x86::fpu::image::{Layout, Pointers};
use x86::fpu::transfer::{Constant, Rounding};
use x86::fpu::{Source, X87, status};

/// What is in memory, and how much of it counts.
#[derive(Clone, Copy)]
enum Memory {
    F32,
    F64,
    F80,
    Bcd,
    Int,
}

fn operand(random: &mut Random, memory: Memory) -> u128 {
    match memory {
        Memory::F32 => random.f32().into(),
        Memory::F64 => random.f64().into(),
        Memory::F80 => random.f80(),
        Memory::Int => match random.below(4) {
            0 => u128::from(random.below(3).wrapping_sub(1)),
            1 => 0x8000_0000_8000_8000 >> random.below(2),
            _ => random.word().into(),
        },
        Memory::Bcd => {
            let digits = (0..18).fold(0, |all, i| all | u128::from(random.below(10)) << (4 * i));
            let digits = if random.below(4) == 0 { 0 } else { digits >> (4 * random.below(18)) };
            digits | u128::from(random.below(2)) << 79
        }
    }
}

/// What our function makes of an operand in memory: what is there afterwards, and the status flags if they change.
type Ours<'a> = &'a dyn Fn(&mut X87, &mut u128) -> Option<u64>;

thread_local! {
    static FAILURES: Cell<u32> = const { Cell::new(0) };
}

/// Fails a test in which an instruction did.
fn verdict() {
    assert_eq!(FAILURES.get(), 0, "instructions failed");
}

/// Tries an instruction. `undefined`: condition codes that it leaves undefined.
fn compare(insn: &str, cases: u32, undefined: u16, memory: Memory, host: fn(&mut Machine), ours: Ours) {
    let mut random = Random::new(insn);
    for _ in 0..cases {
        let before = random.state();
        let was = operand(&mut random, memory);
        if !check(insn, &before, was, |_| undefined, host, ours) {
            return;
        }
    }
}

/// Tries an instruction with one state. `undefined` tells from our result which bits of the status word not to compare.
fn check(
    insn: &str,
    before: &X87,
    was: u128,
    undefined: impl Fn(&X87) -> u16,
    host: fn(&mut Machine),
    ours: Ours,
) -> bool {
    let (mut fpu, mut memory) = (before.clone(), was);
    let flags = ours(&mut fpu, &mut memory).unwrap_or(STATUS);
    let (mut theirs, their_memory, their_flags, _) = run(host, before, was);
    // The host's pointers are not ours.
    (theirs.instruction, theirs.data, theirs.opcode) = (fpu.instruction, fpu.data, fpu.opcode);
    let undefined = undefined(&fpu);
    fpu.status &= !undefined;
    theirs.status &= !undefined;
    // Where an exception is not masked, FCOMI leaves the flags alone by the SDM; not so on all processors.
    let flags_count = !fpu.is_pending();
    let flags_differ = flags_count && flags != their_flags;
    let same = (&fpu, memory) == (&theirs, their_memory) && !flags_differ;
    if !same {
        FAILURES.set(FAILURES.get() + 1);
        let show = |fpu: &X87| {
            let st: [u128; 8] = core::array::from_fn(|i| fpu.st(i));
            format!("control {:x} status {:x} tag {:x} st {st:x?}", fpu.control, fpu.status, fpu.tag)
        };
        println!("{insn}\nbefore {} {was:x}", show(before));
        println!("ours   {} {memory:x} {flags:x}", show(&fpu));
        println!("theirs {} {their_memory:x} {their_flags:x}", show(&theirs));
    }
    same
}

/// C0, C2 and C3, which most instructions leave undefined.
const C023: u16 = status::C0 | status::C2 | status::C3;

macro_rules! registers {
    ($($insn:literal $f:expr;)*) => { $(
        compare($insn, 20_000, C023, Memory::Int, host!($insn), &|fpu, _| {
            let f: fn(&mut X87) = $f;
            f(fpu);
            None
        });
    )* };
}

macro_rules! loads {
    ($($memory:ident $insn:literal $f:expr;)*) => { $(
        compare($insn, 20_000, C023, Memory::$memory, host!($insn), &|fpu, memory| {
            let f: fn(&mut X87, u128) = $f;
            f(fpu, *memory);
            None
        });
    )* };
}

macro_rules! stores {
    ($($bits:literal $insn:literal $f:expr;)*) => { $(
        compare($insn, 40_000, C023, Memory::F80, host!($insn), &|fpu, memory| {
            let f: fn(&mut X87) -> Option<u128> = $f;
            if let Some(stored) = f(fpu) {
                let mask = (1u128 << $bits) - 1;
                *memory = *memory & !mask | stored & mask;
            }
            None
        });
    )* };
}

#[test]
fn arithmetic() {
    if !is_measured("arithmetic") {
        return;
    }
    use Arith::*;
    use Source::*;
    registers! {
        "fadd st, st(1)" |f| f.arith(Add, 0, St(1), false); "fadd st(3), st" |f| f.arith(Add, 3, St(0), false);
        "faddp st(1), st" |f| f.arith(Add, 1, St(0), true); "fadd st, st(0)" |f| f.arith(Add, 0, St(0), false);
        "fsub st, st(1)" |f| f.arith(Sub, 0, St(1), false); "fsubr st, st(1)" |f| f.arith(Subr, 0, St(1), false);
        ".byte 0xdc, 0xe9" |f| f.arith(Sub, 1, St(0), false); ".byte 0xdc, 0xe1" |f| f.arith(Subr, 1, St(0), false);
        ".byte 0xde, 0xe9" |f| f.arith(Sub, 1, St(0), true); ".byte 0xde, 0xe1" |f| f.arith(Subr, 1, St(0), true);
        "fmul st, st(1)" |f| f.arith(Mul, 0, St(1), false); "fmulp st(1), st" |f| f.arith(Mul, 1, St(0), true);
        "fdiv st, st(1)" |f| f.arith(Div, 0, St(1), false); "fdivr st, st(1)" |f| f.arith(Divr, 0, St(1), false);
        ".byte 0xde, 0xf9" |f| f.arith(Div, 1, St(0), true); ".byte 0xde, 0xf1" |f| f.arith(Divr, 1, St(0), true);
    }
    loads! {
        F32 "fadd dword ptr [{m}]" |f, x| f.arith(Add, 0, F32(x as u32), false);
        F64 "fadd qword ptr [{m}]" |f, x| f.arith(Add, 0, F64(x as u64), false);
        Int "fiadd word ptr [{m}]" |f, x| f.arith(Add, 0, I16(x as i16), false);
        Int "fiadd dword ptr [{m}]" |f, x| f.arith(Add, 0, I32(x as i32), false);
        F32 "fsub dword ptr [{m}]" |f, x| f.arith(Sub, 0, F32(x as u32), false);
        F64 "fsubr qword ptr [{m}]" |f, x| f.arith(Subr, 0, F64(x as u64), false);
        F32 "fmul dword ptr [{m}]" |f, x| f.arith(Mul, 0, F32(x as u32), false);
        Int "fimul dword ptr [{m}]" |f, x| f.arith(Mul, 0, I32(x as i32), false);
        F64 "fdiv qword ptr [{m}]" |f, x| f.arith(Div, 0, F64(x as u64), false);
        F32 "fdivr dword ptr [{m}]" |f, x| f.arith(Divr, 0, F32(x as u32), false);
        Int "fidiv word ptr [{m}]" |f, x| f.arith(Div, 0, I16(x as i16), false);
        Int "fidivr dword ptr [{m}]" |f, x| f.arith(Divr, 0, I32(x as i32), false);
    }
    verdict();
}

#[test]
fn unary() {
    if !is_measured("unary") {
        return;
    }
    registers! {
        "fsqrt" X87::fsqrt; "frndint" X87::frndint; "fabs" X87::fabs; "fchs" X87::fchs;
        "fxtract" X87::fxtract; "fscale" X87::fscale;
    }
    verdict();
}

/// What is left of a dividend that is not reduced completely is up to the processor, so exponents are near here.
#[test]
fn remainders() {
    if !is_measured("remainders") {
        return;
    }
    let check = |insn: &str, host: fn(&mut Machine), f: fn(&mut X87), reference: fn(u128, u128, &mut _) -> _| {
        let mut random = Random::new(insn);
        for _ in 0..40_000 {
            let mut before = random.state();
            let (x, y) = (before.st(0), before.st(1));
            if random.below(2) == 0 {
                let (top, next) = (before.top(), (before.top() + 1) & 7);
                let exp = (y >> 64 & 0x7fff) as i64 + random.below(70) as i64 - 6;
                before.r[top] = x & !(0x7fff << 64) | (exp.clamp(0, 0x7fff) as u128) << 64;
                before.r[next] = y;
            }
            let mut env = emu_core::float::Env::x87(before.control);
            let result: x87::PartialRemainder = reference(before.st(0), before.st(1), &mut env);
            if result.complete {
                let same = self::check(insn, &before, 0, |_| 0, host, &|fpu, _| {
                    f(fpu);
                    None
                });
                if !same {
                    return;
                }
            }
        }
    };
    check("fprem", host!("fprem"), X87::fprem, x87::fprem);
    check("fprem1", host!("fprem1"), X87::fprem1, x87::fprem1);
    verdict();
}

#[test]
fn transfers() {
    if !is_measured("transfers") {
        return;
    }
    loads! {
        F32 "fld dword ptr [{m}]" |f, x| f.fld32(x as u32); F64 "fld qword ptr [{m}]" |f, x| f.fld64(x as u64);
        F80 "fld tbyte ptr [{m}]" X87::fld80; Bcd "fbld [{m}]" X87::fbld;
        Int "fild word ptr [{m}]" |f, x| f.fild((x as i16).into());
        Int "fild dword ptr [{m}]" |f, x| f.fild((x as i32).into());
        Int "fild qword ptr [{m}]" |f, x| f.fild(x as i64);
    }
    registers! {
        "fld st(0)" |f| f.fld(0); "fld st(3)" |f| f.fld(3); "fld st(7)" |f| f.fld(7);
        "fst st(2)" |f| f.fst(2, false); "fstp st(0)" |f| f.fst(0, true); "fstp st(5)" |f| f.fst(5, true);
        "fxch st(1)" |f| f.fxch(1); "fxch st(6)" |f| f.fxch(6); "fxch st(0)" |f| f.fxch(0);
        "fld1" |f| f.fld_constant(Constant::One); "fldl2t" |f| f.fld_constant(Constant::L2t);
        "fldl2e" |f| f.fld_constant(Constant::L2e); "fldpi" |f| f.fld_constant(Constant::Pi);
        "fldlg2" |f| f.fld_constant(Constant::Lg2); "fldln2" |f| f.fld_constant(Constant::Ln2);
        "fldz" |f| f.fld_constant(Constant::Zero);
        // All status flags are set, and then none.
        "fcmovb st, st(2)" |f| f.fcmov(2, true); "fcmovnb st, st(2)" |f| f.fcmov(2, false);
    }
    stores! {
        32 "fst dword ptr [{m}]" |f| f.fst32(false).map(Into::into);
        32 "fstp dword ptr [{m}]" |f| f.fst32(true).map(Into::into);
        64 "fst qword ptr [{m}]" |f| f.fst64(false).map(Into::into);
        64 "fstp qword ptr [{m}]" |f| f.fst64(true).map(Into::into);
        80 "fstp tbyte ptr [{m}]" |f| f.fstp80();
        16 "fist word ptr [{m}]" |f| f.fist16(Rounding::Control, false).map(|x| x as u128);
        16 "fistp word ptr [{m}]" |f| f.fist16(Rounding::Control, true).map(|x| x as u128);
        16 "fisttp word ptr [{m}]" |f| f.fist16(Rounding::Truncated, true).map(|x| x as u128);
        32 "fist dword ptr [{m}]" |f| f.fist32(Rounding::Control, false).map(|x| x as u128);
        32 "fistp dword ptr [{m}]" |f| f.fist32(Rounding::Control, true).map(|x| x as u128);
        32 "fisttp dword ptr [{m}]" |f| f.fist32(Rounding::Truncated, true).map(|x| x as u128);
        64 "fistp qword ptr [{m}]" |f| f.fistp64(Rounding::Control).map(|x| x as u128);
        64 "fisttp qword ptr [{m}]" |f| f.fistp64(Rounding::Truncated).map(|x| x as u128);
        80 "fbstp [{m}]" |f| f.fbstp();
    }
    verdict();
}

#[test]
fn comparisons() {
    if !is_measured("comparisons") {
        return;
    }
    use Nans::*;
    use Source::*;
    macro_rules! codes {
        ($($memory:ident $insn:literal $f:expr;)*) => { $(
            // An exception that is not masked leaves the condition codes alone by the SDM; not so on all processors.
            let mut random = Random::new($insn);
            for _ in 0..20_000 {
                let before = random.state();
                let was = operand(&mut random, Memory::$memory);
                let undefined = |after: &X87| if after.is_pending() { C023 } else { 0 };
                let f: fn(&mut X87, u128) = $f;
                let same = check($insn, &before, was, undefined, host!($insn), &|fpu, memory| {
                    f(fpu, *memory);
                    None
                });
                if !same {
                    break;
                }
            }
        )* };
    }
    codes! {
        Int "fcom st(1)" |f, _| f.fcom(St(1), Invalid, 0); Int "fcomp st(1)" |f, _| f.fcom(St(1), Invalid, 1);
        Int "fcompp" |f, _| f.fcom(St(1), Invalid, 2); Int "fucom st(1)" |f, _| f.fcom(St(1), Quiet, 0);
        Int "fucomp st(1)" |f, _| f.fcom(St(1), Quiet, 1); Int "fucompp" |f, _| f.fcom(St(1), Quiet, 2);
        Int "ftst" |f, _| f.ftst(); Int "fxam" |f, _| f.fxam();
        F32 "fcom dword ptr [{m}]" |f, x| f.fcom(F32(x as u32), Invalid, 0);
        F64 "fcomp qword ptr [{m}]" |f, x| f.fcom(F64(x as u64), Invalid, 1);
        Int "ficom word ptr [{m}]" |f, x| f.fcom(I16(x as i16), Invalid, 0);
        Int "ficomp dword ptr [{m}]" |f, x| f.fcom(I32(x as i32), Invalid, 1);
    }
    macro_rules! flags {
        ($($insn:literal $f:expr;)*) => { $(
            // C1 is set to zero by the SDM; not so on all processors.
            compare($insn, 20_000, status::C1, Memory::Int, host!($insn), &|fpu, _| $f(fpu).map(|s: x86::vector::Status| s.0.into()));
        )* };
    }
    flags! {
        "fcomi st, st(1)" |f: &mut X87| f.fcomi(1, Invalid, false); "fcompi st, st(1)" |f: &mut X87| f.fcomi(1, Invalid, true);
        "fucomi st, st(1)" |f: &mut X87| f.fcomi(1, Quiet, false); "fucompi st, st(1)" |f: &mut X87| f.fcomi(1, Quiet, true);
    }
    verdict();
}

#[test]
fn control() {
    if !is_measured("control") {
        return;
    }
    registers! {
        "fincstp" X87::fincstp; "fdecstp" X87::fdecstp; "fninit" X87::fninit;
        "fnclex" X87::fnclex; "emms" X87::emms;
        "movq mm2, mm3" |f| {
            f.enter_mmx();
            f.set_mmx(2, f.mmx(3));
        };
        "fnop" |_| {};
    }
    compare("ffree st(2)", 20_000, status::CC, Memory::Int, host!("ffree st(2)"), &|fpu, _| {
        fpu.ffree(2);
        None
    });
    compare("ffreep st(3)", 20_000, status::CC, Memory::Int, host!(".byte 0xdf, 0xc3"), &|fpu, _| {
        fpu.ffreep(3);
        None
    });
    loads! { Int "fldcw [{m}]" |f, x| f.fldcw(x as u16); }
    stores! {
        16 "fnstcw [{m}]" |f| Some(f.fnstcw().into());
        16 "fnstsw [{m}]" |f| Some(f.fnstsw().into());
    }
    verdict();
}

/// The images of our own state, written and read, and FXSAVE's as the host writes it.
#[test]
fn images() {
    if !is_measured("images") {
        return;
    }
    let mut random = Random::new("images");
    for _ in 0..20_000 {
        let mut fpu = random.state();
        fpu.note_instruction(random.word() as u16, random.word() & 0xffff_ffff, random.word() as u16);
        fpu.note_operand(random.word() as u16, random.word() & 0xffff_ffff);
        let mut image = [0; 108];
        let (mut saved, mut restored) = (fpu.clone(), X87::default());
        saved.fnsave(Layout::Protected32, &mut image);
        restored.frstor(Layout::Protected32, &image);
        assert_eq!(fpu, restored);
        assert_eq!(saved, X87 { r: fpu.r, ..X87::default() });

        // What is above the words of the fields, too.
        let mut machine = Machine { image, pad: [0; 4], memory: [0; 16], flags: 0x202, ax: 0 };
        host!("")(&mut machine);
        assert_eq!((&machine.image[..12], &machine.image[26..]), (&image[..12], &image[26..]));

        let mut image = [0; 512];
        fpu.fxsave(Pointers::Selectors, &mut image);
        let mut restored = X87::default();
        restored.fxrstor(Pointers::Selectors, &image);
        assert_eq!(fpu, restored);
        let theirs = host_fxsave(&fpu);
        assert_eq!(image[..6], theirs[..6]);
        for i in 0..8 {
            assert_eq!(image[32 + 16 * i..][..10], theirs[32 + 16 * i..][..10]);
        }

        // In real mode an address is linear.
        for (layout, bits) in [(Layout::Real16, 20), (Layout::Real32, 32)] {
            let mut image = [0; 108];
            let mut restored = X87::default();
            fpu.clone().fnsave(layout, &mut image);
            restored.frstor(layout, &image);
            let linear = |p: x86::fpu::Pointer| (u64::from(p.selector) * 16 + p.offset) & ((1 << bits) - 1);
            assert_eq!(restored.instruction.offset, linear(fpu.instruction));
            assert_eq!(restored.data.offset, linear(fpu.data));
            assert_eq!((restored.opcode, restored.r, restored.tag), (fpu.opcode, fpu.r, fpu.tag));
        }
        let mut environment = [0; 28];
        let mut after = fpu.clone();
        after.fnstenv(Layout::Protected32, &mut environment);
        assert_eq!(after, X87 { control: fpu.control | 0x3f, ..fpu });
    }
}

#[repr(C, align(16))]
struct Area([u8; 512]);

fn host_fxsave(fpu: &X87) -> [u8; 512] {
    let mut image = [0; 108];
    let mut area = Area([0; 512]);
    fpu.clone().fnsave(Layout::Protected32, &mut image);
    // SAFETY: it reads `image`, writes `area`, and leaves the x87 as FNINIT does.
    unsafe {
        core::arch::asm!(
            "frstor [{i}]", "fxsave [{o}]", "fninit",
            i = in(reg) &image, o = in(reg) &mut area,
            out("st(0)") _, out("st(1)") _, out("st(2)") _, out("st(3)") _,
            out("st(4)") _, out("st(5)") _, out("st(6)") _, out("st(7)") _,
        );
    }
    area.0
}

/// SDM vol. 1, figures "Protected Mode x87 FPU State Image in Memory" and "Real Mode x87 FPU State Image in Memory".
#[test]
fn layouts() {
    let mut fpu = X87::default();
    fpu.note_instruction(0x1234, 0x89ab_cdef, 0x5a5);
    fpu.note_operand(0x4321, 0x7654_3210);
    let image = |layout: Layout| {
        let mut image = vec![0; layout.environment()];
        fpu.clone().fnstenv(layout, &mut image);
        image
    };
    let words = |image: &[u8]| image.chunks(2).map(|word| u16::from_le_bytes([word[0], word[1]])).collect::<Vec<_>>();
    assert_eq!(words(&image(Layout::Protected16)), [0x037f, 0, 0xffff, 0xcdef, 0x1234, 0x3210, 0x4321]);
    assert_eq!(
        words(&image(Layout::Protected32))[6..],
        [0xcdef, 0x89ab, 0x1234, 0x05a5, 0x3210, 0x7654, 0x4321, 0xffff]
    );
    // The linear addresses are 12340h + 89abcdefh = 89acf12fh, and 43210h + 76543210h = 76586420h.
    assert_eq!(words(&image(Layout::Real16)), [0x037f, 0, 0xffff, 0xf12f, 0xc5a5, 0x6420, 0x8000]);
    let real32 = image(Layout::Real32);
    assert_eq!(words(&real32)[6..8], [0xf12f, 0xffff]);
    assert_eq!(real32[16..20], (0x089a_c000u32 | 0x5a5).to_le_bytes());
    assert_eq!(real32[24..28], 0x0765_8000u32.to_le_bytes());
}
