use crate::host::{In, Out, Random};
use x86::vector::string::*;
use x86::vector::{Status, V};

/// Strings over few characters, of any length.
fn string(random: &mut Random) -> V {
    let words = random.below(2) != 0;
    let alphabet: &[u16] =
        random.of(&[&[0, 1, 2, 3][..], &[1, 2], &[0x7f, 0x80, 0xff, 1], &[0x8000, 0x7fff, 0xffff, 5], &[1]]);
    let end = random.below(20) as usize;
    let mut character = |i: usize| if i == end { 0 } else { random.of(alphabet) };
    if words { V::build(&mut character) } else { V::build(|i| character(i) as u8) }
}

fn input(random: &mut Random) -> In {
    let lengths =
        [0, 1, 2, 3, 5, 7, 8, 9, 15, 16, 17, 100, -1, -3, -8, -9, -16, -17, i32::MIN.into(), i64::MIN, i64::MAX];
    let a = string(random);
    let b = if random.below(4) == 0 { a } else { string(random) };
    let (rax, rdx) = (random.of(&lengths) as u64, random.of(&lengths) as u64);
    In { d: a, a, b, c: b, rax, rdx, mxcsr: 0x1f80 }
}

/// What a comparison gives: ECX or XMM0, and the flags.
type Outcome = (u64, V, u32);

fn index((ecx, flags): (u32, Status)) -> Outcome {
    (ecx.into(), V::ZERO, flags.0)
}

fn mask((xmm0, flags): (V, Status)) -> Outcome {
    (0, xmm0, flags.0)
}

fn compare(insn: &str, cases: u32, host: fn(&In) -> Out, is_index: bool, f: &dyn Fn(&In) -> Outcome) {
    let mut random = Random::new(insn);
    for _ in 0..cases {
        let x = input(&mut random);
        let out = host(&x);
        let flags = out.flags as u32 & Status::ALL;
        let theirs = if is_index { (out.rcx, V::ZERO, flags) } else { (0, V::from_xmm(out.v.xmm()), flags) };
        assert_eq!(f(&x), theirs, "{insn} {x:x?}");
    }
}

macro_rules! strings {
    ($($imm:literal)*) => { $(
        compare(concat!("pcmpistri ", $imm), 400, host!("vpcmpistri xmm1, xmm2, {imm}", $imm), true,
            &|x| index(pcmpistri(x.a, x.b, $imm)));
        compare(concat!("pcmpistrm ", $imm), 400, host!("vpcmpistrm xmm1, xmm2, {imm}", $imm), false,
            &|x| mask(pcmpistrm(x.a, x.b, $imm)));
        compare(concat!("pcmpestri ", $imm), 400, host!("pcmpestri xmm1, xmm2, {imm}", $imm), true,
            &|x| index(pcmpestri(x.a, (x.rax as i32).into(), x.b, (x.rdx as i32).into(), $imm)));
        compare(concat!("pcmpestrm ", $imm), 400, host!("pcmpestrm xmm1, xmm2, {imm}", $imm), false,
            &|x| mask(pcmpestrm(x.a, (x.rax as i32).into(), x.b, (x.rdx as i32).into(), $imm)));
        // pcmpestri with REX.W, which some assemblers do not have: 66 REX.W 0F 3A 61 /r ib.
        compare(concat!("pcmpestri64 ", $imm), 100, host!(".byte 0x66, 0x48, 0x0f, 0x3a, 0x61, 0xca, {imm}", $imm), true,
            &|x| index(pcmpestri(x.a, x.rax as i64, x.b, x.rdx as i64, $imm)));
    )* };
}

#[test]
fn comparisons() {
    if !host_has!("avx", "sse4.2") {
        return;
    }
    strings! {
        0x00 0x01 0x02 0x03 0x04 0x05 0x06 0x07 0x08 0x09 0x0a 0x0b 0x0c 0x0d 0x0e 0x0f
        0x10 0x11 0x12 0x13 0x14 0x15 0x16 0x17 0x18 0x19 0x1a 0x1b 0x1c 0x1d 0x1e 0x1f
        0x20 0x21 0x22 0x23 0x24 0x25 0x26 0x27 0x28 0x29 0x2a 0x2b 0x2c 0x2d 0x2e 0x2f
        0x30 0x31 0x32 0x33 0x34 0x35 0x36 0x37 0x38 0x39 0x3a 0x3b 0x3c 0x3d 0x3e 0x3f
        0x40 0x41 0x42 0x43 0x44 0x45 0x46 0x47 0x48 0x49 0x4a 0x4b 0x4c 0x4d 0x4e 0x4f
        0x50 0x51 0x52 0x53 0x54 0x55 0x56 0x57 0x58 0x59 0x5a 0x5b 0x5c 0x5d 0x5e 0x5f
        0x60 0x61 0x62 0x63 0x64 0x65 0x66 0x67 0x68 0x69 0x6a 0x6b 0x6c 0x6d 0x6e 0x6f
        0x70 0x71 0x72 0x73 0x74 0x75 0x76 0x77 0x78 0x79 0x7a 0x7b 0x7c 0x7d 0x7e 0x7f
    }
}

#[test]
fn crc() {
    if !host_has!("avx", "sse4.2") {
        return;
    }
    let hosts = [
        (1, host!("crc32 eax, dl")),
        (2, host!("crc32 eax, dx")),
        (4, host!("crc32 eax, edx")),
        (8, host!("crc32 rax, rdx")),
    ];
    let mut random = Random::new("crc32");
    for (bytes, host) in hosts {
        for _ in 0..20_000 {
            let x = input(&mut random);
            let x = In { rax: random.word(), rdx: random.word(), ..x };
            assert_eq!(u64::from(crc32(x.rax as u32, x.rdx, bytes)), host(&x).rax);
        }
    }
}
