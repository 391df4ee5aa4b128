//! SSE and AVX instructions (SDM vol. 1, 5.5 to 5.15): moves and bitwise operations are micro-ops on words of 64 bits; what computes is a
//! call of a function of [`crate::vector`], one line each in a table.
//!
//! A vector register is four words of the register file. An operand in memory is brought into temporaries first, so that it faults before
//! anything is written. Legacy instructions leave what is above 128 bits alone, VEX-encoded ones clear it.

use emu_core::engine::flags::Size;
use emu_core::engine::uop::{BinaryOp, Operand, UnaryOp, Width as Access};
use iced_x86::{Mnemonic, OpKind};

use super::compute::Compute;
use super::{Lifting, Unknown};
use crate::exception::{Exception, vector};
use crate::registers::{MXCSR, VECTORS, temp};
use crate::vector::{Mxcsr, SimdException, V, Width, aes, clmul, float, integer, sha, shift, shuffle};

/// Function numbers of calls: legacy and VEX encodings.
pub const LEGACY: u16 = 0x100;
/// See [`LEGACY`].
pub const VEX: u16 = 0x101;

/// What a function of the table is given.
struct Args<'a> {
    w: Width,
    a: V,
    b: V,
    imm: u8,
    mxcsr: &'a mut Mxcsr,
}

type Function = fn(&mut Args) -> Result<V, SimdException>;

/// An instruction: its mnemonics, and what it computes.
struct Row {
    legacy: Mnemonic,
    vex: Mnemonic,
    /// It works on one element.
    scalar: bool,
    function: Function,
}

macro_rules! rows {
    ($($legacy:ident $vex:ident |$x:ident| $body:expr;)*) => {
        &[$(Row { legacy: Mnemonic::$legacy, vex: Mnemonic::$vex, scalar: false, function: |$x| $body },)*]
    };
}
macro_rules! scalar_rows {
    ($($legacy:ident $vex:ident |$x:ident| $body:expr;)*) => {
        &[$(Row { legacy: Mnemonic::$legacy, vex: Mnemonic::$vex, scalar: true, function: |$x| $body },)*]
    };
}

use emu_core::float::{F32, F64};

/// Instructions of two operands and a constant whose result is a vector.
const TABLES: [&[Row]; 2] = [
    rows! {
        Paddb Vpaddb |x| Ok(integer::padd::<u8>(x.a, x.b));
        Paddw Vpaddw |x| Ok(integer::padd::<u16>(x.a, x.b));
        Paddd Vpaddd |x| Ok(integer::padd::<u32>(x.a, x.b));
        Paddq Vpaddq |x| Ok(integer::padd::<u64>(x.a, x.b));
        Psubb Vpsubb |x| Ok(integer::psub::<u8>(x.a, x.b));
        Psubw Vpsubw |x| Ok(integer::psub::<u16>(x.a, x.b));
        Psubd Vpsubd |x| Ok(integer::psub::<u32>(x.a, x.b));
        Psubq Vpsubq |x| Ok(integer::psub::<u64>(x.a, x.b));
        Paddsb Vpaddsb |x| Ok(integer::padds::<i8>(x.a, x.b));
        Paddsw Vpaddsw |x| Ok(integer::padds::<i16>(x.a, x.b));
        Paddusb Vpaddusb |x| Ok(integer::padds::<u8>(x.a, x.b));
        Paddusw Vpaddusw |x| Ok(integer::padds::<u16>(x.a, x.b));
        Psubsb Vpsubsb |x| Ok(integer::psubs::<i8>(x.a, x.b));
        Psubsw Vpsubsw |x| Ok(integer::psubs::<i16>(x.a, x.b));
        Psubusb Vpsubusb |x| Ok(integer::psubs::<u8>(x.a, x.b));
        Psubusw Vpsubusw |x| Ok(integer::psubs::<u16>(x.a, x.b));
        Pminub Vpminub |x| Ok(integer::pmin::<u8>(x.a, x.b));
        Pminuw Vpminuw |x| Ok(integer::pmin::<u16>(x.a, x.b));
        Pminud Vpminud |x| Ok(integer::pmin::<u32>(x.a, x.b));
        Pminsb Vpminsb |x| Ok(integer::pmin::<i8>(x.a, x.b));
        Pminsw Vpminsw |x| Ok(integer::pmin::<i16>(x.a, x.b));
        Pminsd Vpminsd |x| Ok(integer::pmin::<i32>(x.a, x.b));
        Pmaxub Vpmaxub |x| Ok(integer::pmax::<u8>(x.a, x.b));
        Pmaxuw Vpmaxuw |x| Ok(integer::pmax::<u16>(x.a, x.b));
        Pmaxud Vpmaxud |x| Ok(integer::pmax::<u32>(x.a, x.b));
        Pmaxsb Vpmaxsb |x| Ok(integer::pmax::<i8>(x.a, x.b));
        Pmaxsw Vpmaxsw |x| Ok(integer::pmax::<i16>(x.a, x.b));
        Pmaxsd Vpmaxsd |x| Ok(integer::pmax::<i32>(x.a, x.b));
        Pcmpeqb Vpcmpeqb |x| Ok(integer::pcmpeq::<u8>(x.a, x.b));
        Pcmpeqw Vpcmpeqw |x| Ok(integer::pcmpeq::<u16>(x.a, x.b));
        Pcmpeqd Vpcmpeqd |x| Ok(integer::pcmpeq::<u32>(x.a, x.b));
        Pcmpeqq Vpcmpeqq |x| Ok(integer::pcmpeq::<u64>(x.a, x.b));
        Pcmpgtb Vpcmpgtb |x| Ok(integer::pcmpgt::<i8>(x.a, x.b));
        Pcmpgtw Vpcmpgtw |x| Ok(integer::pcmpgt::<i16>(x.a, x.b));
        Pcmpgtd Vpcmpgtd |x| Ok(integer::pcmpgt::<i32>(x.a, x.b));
        Pcmpgtq Vpcmpgtq |x| Ok(integer::pcmpgt::<i64>(x.a, x.b));
        Pabsb Vpabsb |x| Ok(integer::pabs::<i8>(x.b));
        Pabsw Vpabsw |x| Ok(integer::pabs::<i16>(x.b));
        Pabsd Vpabsd |x| Ok(integer::pabs::<i32>(x.b));
        Psignb Vpsignb |x| Ok(integer::psign::<i8>(x.a, x.b));
        Psignw Vpsignw |x| Ok(integer::psign::<i16>(x.a, x.b));
        Psignd Vpsignd |x| Ok(integer::psign::<i32>(x.a, x.b));
        Pavgb Vpavgb |x| Ok(integer::pavgb(x.a, x.b));
        Pavgw Vpavgw |x| Ok(integer::pavgw(x.a, x.b));
        Pmullw Vpmullw |x| Ok(integer::pmull::<i16>(x.a, x.b));
        Pmulld Vpmulld |x| Ok(integer::pmull::<i32>(x.a, x.b));
        Pmulhw Vpmulhw |x| Ok(integer::pmulhw(x.a, x.b));
        Pmulhuw Vpmulhuw |x| Ok(integer::pmulhuw(x.a, x.b));
        Pmulhrsw Vpmulhrsw |x| Ok(integer::pmulhrsw(x.a, x.b));
        Pmuludq Vpmuludq |x| Ok(integer::pmuludq(x.a, x.b));
        Pmuldq Vpmuldq |x| Ok(integer::pmuldq(x.a, x.b));
        Pmaddwd Vpmaddwd |x| Ok(integer::pmaddwd(x.a, x.b));
        Pmaddubsw Vpmaddubsw |x| Ok(integer::pmaddubsw(x.a, x.b));
        Phaddw Vphaddw |x| Ok(integer::phadd::<i16>(x.w, x.a, x.b));
        Phaddd Vphaddd |x| Ok(integer::phadd::<i32>(x.w, x.a, x.b));
        Phsubw Vphsubw |x| Ok(integer::phsub::<i16>(x.w, x.a, x.b));
        Phsubd Vphsubd |x| Ok(integer::phsub::<i32>(x.w, x.a, x.b));
        Phaddsw Vphaddsw |x| Ok(integer::phaddsw(x.w, x.a, x.b));
        Phsubsw Vphsubsw |x| Ok(integer::phsubsw(x.w, x.a, x.b));
        Psadbw Vpsadbw |x| Ok(integer::psadbw(x.a, x.b));
        Mpsadbw Vmpsadbw |x| Ok(integer::mpsadbw(x.a, x.b, x.imm));
        Phminposuw Vphminposuw |x| Ok(integer::phminposuw(x.b));
        Packsswb Vpacksswb |x| Ok(shuffle::packsswb(x.w, x.a, x.b));
        Packssdw Vpackssdw |x| Ok(shuffle::packssdw(x.w, x.a, x.b));
        Packuswb Vpackuswb |x| Ok(shuffle::packuswb(x.w, x.a, x.b));
        Packusdw Vpackusdw |x| Ok(shuffle::packusdw(x.w, x.a, x.b));
        Punpcklbw Vpunpcklbw |x| Ok(shuffle::punpckl::<u8>(x.w, x.a, x.b));
        Punpcklwd Vpunpcklwd |x| Ok(shuffle::punpckl::<u16>(x.w, x.a, x.b));
        Punpckldq Vpunpckldq |x| Ok(shuffle::punpckl::<u32>(x.w, x.a, x.b));
        Punpcklqdq Vpunpcklqdq |x| Ok(shuffle::punpckl::<u64>(x.w, x.a, x.b));
        Punpckhbw Vpunpckhbw |x| Ok(shuffle::punpckh::<u8>(x.w, x.a, x.b));
        Punpckhwd Vpunpckhwd |x| Ok(shuffle::punpckh::<u16>(x.w, x.a, x.b));
        Punpckhdq Vpunpckhdq |x| Ok(shuffle::punpckh::<u32>(x.w, x.a, x.b));
        Punpckhqdq Vpunpckhqdq |x| Ok(shuffle::punpckh::<u64>(x.w, x.a, x.b));
        Unpcklps Vunpcklps |x| Ok(shuffle::punpckl::<u32>(x.w, x.a, x.b));
        Unpcklpd Vunpcklpd |x| Ok(shuffle::punpckl::<u64>(x.w, x.a, x.b));
        Unpckhps Vunpckhps |x| Ok(shuffle::punpckh::<u32>(x.w, x.a, x.b));
        Unpckhpd Vunpckhpd |x| Ok(shuffle::punpckh::<u64>(x.w, x.a, x.b));
        Pshufb Vpshufb |x| Ok(shuffle::pshufb(x.w, x.a, x.b));
        Pshufd Vpshufd |x| Ok(shuffle::pshufd(x.b, x.imm));
        Pshufhw Vpshufhw |x| Ok(shuffle::pshufhw(x.b, x.imm));
        Pshuflw Vpshuflw |x| Ok(shuffle::pshuflw(x.b, x.imm));
        Shufps Vshufps |x| Ok(shuffle::shufps(x.a, x.b, x.imm));
        Shufpd Vshufpd |x| Ok(shuffle::shufpd(x.a, x.b, x.imm));
        Palignr Vpalignr |x| Ok(shuffle::palignr(x.w, x.a, x.b, x.imm));
        Movsldup Vmovsldup |x| Ok(shuffle::movsldup(x.b));
        Movshdup Vmovshdup |x| Ok(shuffle::movshdup(x.b));
        Blendps Vblendps |x| Ok(shuffle::blend::<u32>(x.a, x.b, x.imm));
        Blendpd Vblendpd |x| Ok(shuffle::blend::<u64>(x.a, x.b, x.imm));
        Pblendw Vpblendw |x| Ok(shuffle::blend::<u16>(x.a, x.b, x.imm));
        Aesenc Vaesenc |x| Ok(aes::aesenc(x.a, x.b));
        Aesenclast Vaesenclast |x| Ok(aes::aesenclast(x.a, x.b));
        Aesdec Vaesdec |x| Ok(aes::aesdec(x.a, x.b));
        Aesdeclast Vaesdeclast |x| Ok(aes::aesdeclast(x.a, x.b));
        Aesimc Vaesimc |x| Ok(aes::aesimc(x.b));
        Aeskeygenassist Vaeskeygenassist |x| Ok(aes::aeskeygenassist(x.b, x.imm));
        Pclmulqdq Vpclmulqdq |x| Ok(clmul::pclmulqdq(x.a, x.b, x.imm));
        Sha1nexte INVALID |x| Ok(sha::sha1nexte(x.a, x.b));
        Sha1msg1 INVALID |x| Ok(sha::sha1msg1(x.a, x.b));
        Sha1msg2 INVALID |x| Ok(sha::sha1msg2(x.a, x.b));
        Sha1rnds4 INVALID |x| Ok(sha::sha1rnds4(x.a, x.b, x.imm));
        Sha256msg1 INVALID |x| Ok(sha::sha256msg1(x.a, x.b));
        Sha256msg2 INVALID |x| Ok(sha::sha256msg2(x.a, x.b));
        INVALID Vpsllvd |x| Ok(shift::psllv::<u32>(x.a, x.b));
        INVALID Vpsllvq |x| Ok(shift::psllv::<u64>(x.a, x.b));
        INVALID Vpsrlvd |x| Ok(shift::psrv::<u32>(x.a, x.b));
        INVALID Vpsrlvq |x| Ok(shift::psrv::<u64>(x.a, x.b));
        INVALID Vpsravd |x| Ok(shift::psrv::<i32>(x.a, x.b));
        Addps Vaddps |x| float::add::<F32>(x.w, x.a, x.b, x.mxcsr);
        Addpd Vaddpd |x| float::add::<F64>(x.w, x.a, x.b, x.mxcsr);
        Subps Vsubps |x| float::sub::<F32>(x.w, x.a, x.b, x.mxcsr);
        Subpd Vsubpd |x| float::sub::<F64>(x.w, x.a, x.b, x.mxcsr);
        Mulps Vmulps |x| float::mul::<F32>(x.w, x.a, x.b, x.mxcsr);
        Mulpd Vmulpd |x| float::mul::<F64>(x.w, x.a, x.b, x.mxcsr);
        Divps Vdivps |x| float::div::<F32>(x.w, x.a, x.b, x.mxcsr);
        Divpd Vdivpd |x| float::div::<F64>(x.w, x.a, x.b, x.mxcsr);
        Sqrtps Vsqrtps |x| float::sqrt::<F32>(x.w, x.a, x.b, x.mxcsr);
        Sqrtpd Vsqrtpd |x| float::sqrt::<F64>(x.w, x.a, x.b, x.mxcsr);
        Haddps Vhaddps |x| float::hadd::<F32>(x.w, x.a, x.b, x.mxcsr);
        Haddpd Vhaddpd |x| float::hadd::<F64>(x.w, x.a, x.b, x.mxcsr);
        Addsubps Vaddsubps |x| float::addsub::<F32>(x.w, x.a, x.b, x.mxcsr);
        Addsubpd Vaddsubpd |x| float::addsub::<F64>(x.w, x.a, x.b, x.mxcsr);
        Minps Vminps |x| crate::vector::compare::min::<F32>(x.w, x.a, x.b, x.mxcsr);
        Minpd Vminpd |x| crate::vector::compare::min::<F64>(x.w, x.a, x.b, x.mxcsr);
        Maxps Vmaxps |x| crate::vector::compare::max::<F32>(x.w, x.a, x.b, x.mxcsr);
        Maxpd Vmaxpd |x| crate::vector::compare::max::<F64>(x.w, x.a, x.b, x.mxcsr);
    },
    scalar_rows! {
        Addss Vaddss |x| float::add::<F32>(x.w, x.a, x.b, x.mxcsr);
        Addsd Vaddsd |x| float::add::<F64>(x.w, x.a, x.b, x.mxcsr);
        Subss Vsubss |x| float::sub::<F32>(x.w, x.a, x.b, x.mxcsr);
        Subsd Vsubsd |x| float::sub::<F64>(x.w, x.a, x.b, x.mxcsr);
        Mulss Vmulss |x| float::mul::<F32>(x.w, x.a, x.b, x.mxcsr);
        Mulsd Vmulsd |x| float::mul::<F64>(x.w, x.a, x.b, x.mxcsr);
        Divss Vdivss |x| float::div::<F32>(x.w, x.a, x.b, x.mxcsr);
        Divsd Vdivsd |x| float::div::<F64>(x.w, x.a, x.b, x.mxcsr);
        Sqrtss Vsqrtss |x| float::sqrt::<F32>(x.w, x.a, x.b, x.mxcsr);
        Sqrtsd Vsqrtsd |x| float::sqrt::<F64>(x.w, x.a, x.b, x.mxcsr);
        Minss Vminss |x| crate::vector::compare::min::<F32>(x.w, x.a, x.b, x.mxcsr);
        Minsd Vminsd |x| crate::vector::compare::min::<F64>(x.w, x.a, x.b, x.mxcsr);
        Maxss Vmaxss |x| crate::vector::compare::max::<F32>(x.w, x.a, x.b, x.mxcsr);
        Maxsd Vmaxsd |x| crate::vector::compare::max::<F64>(x.w, x.a, x.b, x.mxcsr);
    },
];

fn rows() -> impl Iterator<Item = &'static Row> {
    TABLES.into_iter().flatten()
}

/// Whether there is a row, or a micro-op, for a mnemonic.
pub fn is_known(m: Mnemonic) -> bool {
    m != Mnemonic::INVALID
        && (rows().any(|r| r.legacy == m || r.vex == m) || is_move(m).is_some() || bitwise(m).is_some())
}

/// How a call names its operands: row 10 bits, registers of the result and of both sources 4 each, whether the second is in the
/// temporaries, constant 8, 256 bits.
fn pack(row: usize, d: u8, a: u8, b: Source, imm: u8, ymm: bool) -> u32 {
    let (b, temporary) = match b {
        Source::Register(b) => (b, 0),
        Source::Temporary => (0, 1),
    };
    row as u32
        | u32::from(d) << 10
        | u32::from(a) << 14
        | u32::from(b) << 18
        | temporary << 22
        | u32::from(imm) << 23
        | u32::from(ymm) << 31
}

#[derive(Clone, Copy)]
enum Source {
    Register(u8),
    Temporary,
}

/// Word `i` of a vector register.
fn word(register: u8, i: u8) -> u8 {
    VECTORS + 4 * register + i
}

/// Runs what a call of [`LEGACY`] or [`VEX`] names.
pub fn run(function: u16, operand: u32, regs: &mut [u64; 256]) -> Result<(), Exception> {
    let row = rows().nth(operand as usize & 0x3ff).expect("it was lifted");
    let field = |at: u32| (operand >> at & 15) as u8;
    let (d, a, b) = (field(10), field(14), field(18));
    let ymm = operand >> 31 != 0;
    let value = |first: u8| V::from_words(std::array::from_fn(|i| regs[usize::from(first) + i]));
    let (a, b) = (value(word(a, 0)), value(if operand >> 22 & 1 != 0 { temp::VECTOR } else { word(b, 0) }));
    let whole = if ymm { Width::Ymm } else { Width::Xmm };
    let w = if row.scalar { Width::Scalar } else { whole };
    let mut mxcsr = Mxcsr(regs[usize::from(MXCSR)] as u32);
    let result = (row.function)(&mut Args { w, a, b, imm: (operand >> 23) as u8, mxcsr: &mut mxcsr });
    regs[usize::from(MXCSR)] = mxcsr.0.into();
    let result = result.map_err(|_| Exception::plain(vector::XM))?;
    let words = result.zero_above(whole).lanes::<u64>();
    let count = if function == VEX { 4 } else { 2 };
    for (i, value) in words.into_iter().take(count).enumerate() {
        regs[usize::from(word(d, 0)) + i] = value;
    }
    Ok(())
}

/// Moves of whole registers, and the alignment that memory must have.
fn is_move(m: Mnemonic) -> Option<bool> {
    use Mnemonic as M;
    match m {
        M::Movaps | M::Movapd | M::Movdqa | M::Vmovaps | M::Vmovapd | M::Vmovdqa => Some(true),
        M::Movups | M::Movupd | M::Movdqu | M::Lddqu | M::Vmovups | M::Vmovupd | M::Vmovdqu | M::Vlddqu => Some(false),
        _ => None,
    }
}

fn bitwise(m: Mnemonic) -> Option<BinaryOp> {
    use Mnemonic as M;
    Some(match m {
        M::Pxor | M::Xorps | M::Xorpd | M::Vpxor | M::Vxorps | M::Vxorpd => BinaryOp::Xor,
        M::Pand | M::Andps | M::Andpd | M::Vpand | M::Vandps | M::Vandpd => BinaryOp::And,
        M::Por | M::Orps | M::Orpd | M::Vpor | M::Vorps | M::Vorpd => BinaryOp::Or,
        // The first source is the one that is inverted.
        M::Pandn | M::Andnps | M::Andnpd | M::Vpandn | M::Vandnps | M::Vandnpd => BinaryOp::AndNot,
        _ => return None,
    })
}

pub(super) fn lift(l: &mut Lifting) -> Result<(), Unknown> {
    let m = l.mnemonic();
    if let Some(aligned) = is_move(m) {
        return transfer(l, aligned);
    }
    if let Some(op) = bitwise(m) {
        return combine(l, op);
    }
    let (i, _) = rows().enumerate().find(|(_, r)| r.legacy == m || r.vex == m).ok_or(Unknown)?;
    let vex = is_vex(l);
    let (d, ymm) = register(l, 0)?;
    let last_is_constant = l.insn.op_kind(l.insn.op_count() - 1) == OpKind::Immediate8;
    let operands = l.insn.op_count() - u32::from(last_is_constant);
    let imm = if last_is_constant { l.insn.immediate8() } else { 0 };
    let a = if operands == 3 { register(l, 1)?.0 } else { d };
    let b = source(l, operands - 1, vex)?;
    let function = if vex { VEX } else { LEGACY };
    l.lift.call(function, pack(i, d, a, b, imm, ymm));
    Ok(())
}

fn is_vex(l: &Lifting) -> bool {
    l.insn.op_code().encoding() == iced_x86::EncodingKind::VEX
}

/// The number of a vector register, and whether all of its 256 bits are meant.
fn register(l: &Lifting, i: u32) -> Result<(u8, bool), Unknown> {
    let r = l.insn.op_register(i);
    if l.insn.op_kind(i) != OpKind::Register || !(r.is_xmm() || r.is_ymm()) || r.number() > 15 {
        return Err(Unknown);
    }
    Ok((r.number() as u8, r.is_ymm()))
}

/// The last source: a register, or memory, which legacy instructions want aligned where it is 16 bytes.
fn source(l: &mut Lifting, i: u32, vex: bool) -> Result<Source, Unknown> {
    if l.insn.op_kind(i) == OpKind::Register {
        return Ok(Source::Register(register(l, i)?.0));
    }
    let bytes = l.insn.memory_size().size();
    load(l, bytes, !vex && bytes == 16)?;
    Ok(Source::Temporary)
}

/// Brings the operand in memory into the temporaries; what is above it there becomes 0.
fn load(l: &mut Lifting, bytes: usize, aligned: bool) -> Result<(), Unknown> {
    let m = address(l, aligned.then_some(bytes))?;
    let width = match bytes {
        4 => Access::U32,
        8 | 16 | 32 => Access::U64,
        _ => return Err(Unknown),
    };
    for i in 0..4u8 {
        if usize::from(i) * 8 < bytes {
            l.lift.load(width, temp::VECTOR + i, m, i32::from(i) * 8);
        } else {
            l.lift.constant(temp::VECTOR + i, 0);
        }
    }
    Ok(())
}

/// The register that holds the address of the operand in memory, a multiple of `alignment` if that is asked for.
fn address(l: &mut Lifting, alignment: Option<usize>) -> Result<u8, Unknown> {
    l.address_in_register()?;
    if let Some(bytes) = alignment {
        l.lift.unary(UnaryOp::Move, temp::FIRST, temp::ADDRESS);
        let what = if bytes == 32 { Compute::RequireAligned32 } else { Compute::RequireAligned16 };
        l.compute(what, Size::Bits64);
    }
    Ok(temp::ADDRESS)
}

/// MOVAPS, MOVUPS and their kin.
fn transfer(l: &mut Lifting, aligned: bool) -> Result<(), Unknown> {
    let vex = is_vex(l);
    if l.insn.op_kind(0) == OpKind::Memory {
        let (s, ymm) = register(l, 1)?;
        let bytes = if ymm { 32 } else { 16 };
        let at = address(l, aligned.then_some(bytes))?;
        // All of it can be stored, or none of it is.
        l.lift.load_to_update(Access::U64, temp::TEST, at, bytes as i32 - 8);
        for i in 0..bytes as u8 / 8 {
            l.lift.store(Access::U64, at, word(s, i), i32::from(i) * 8);
        }
        return Ok(());
    }
    let (d, ymm) = register(l, 0)?;
    let bytes = if ymm { 32 } else { 16 };
    let from = if l.insn.op_kind(1) == OpKind::Memory {
        load(l, bytes, aligned)?;
        temp::VECTOR
    } else {
        word(register(l, 1)?.0, 0)
    };
    for i in 0..if vex { 4 } else { 2 } {
        if usize::from(i) * 8 < bytes {
            l.lift.unary(UnaryOp::Move, word(d, i), from + i);
        } else {
            l.lift.constant(word(d, i), 0);
        }
    }
    Ok(())
}

/// PXOR and its kin.
fn combine(l: &mut Lifting, op: BinaryOp) -> Result<(), Unknown> {
    let vex = is_vex(l);
    let (d, ymm) = register(l, 0)?;
    let bytes = if ymm { 32 } else { 16 };
    let operands = l.insn.op_count();
    let a = if operands == 3 { register(l, 1)?.0 } else { d };
    let b = match source(l, operands - 1, vex)? {
        Source::Register(b) => word(b, 0),
        Source::Temporary => temp::VECTOR,
    };
    for i in 0..if vex { 4 } else { 2 } {
        if usize::from(i) * 8 >= bytes {
            l.lift.constant(word(d, i), 0);
        } else if op == BinaryOp::AndNot {
            l.lift.binary(op, word(d, i), b + i, Operand::Reg(word(a, i)));
        } else {
            l.lift.binary(op, word(d, i), word(a, i), Operand::Reg(b + i));
        }
    }
    Ok(())
}
