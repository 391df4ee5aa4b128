//! MMX, SSE and AVX instructions (SDM vol. 1, 5.4 to 5.15). Moves and bitwise operations are micro-ops on words of 64 bits
//! ([`moves`]); what computes is a call of a function of [`crate::vector`], one line each in a [`table`]; [`memory`] has those whose
//! accesses depend on a mask.
//!
//! A vector register is four words of the register file; an MMX register is a part of the x87's. An operand in memory, or in a
//! general register, is brought into temporaries first, so that it faults before anything is written; from there goes a
//! result that is for a general register or for memory. Legacy instructions leave what is above 128 bits alone, VEX-encoded ones
//! clear it.

mod crypto;
mod float;
mod integer;
mod memory;
mod moves;
mod shuffle;
mod table;

use emu_core::engine::Step;
use emu_core::engine::flags::Flags;
use emu_core::engine::uop::{UnaryOp, Width as Access};
use iced_x86::{Code, EncodingKind, Mnemonic, OpKind, Register};

use self::memory::Special;
use self::table::{Args, COUNT, ROWS, row_of};
use super::{Lifting, Unknown, x87};
use crate::control::cr4;
use crate::exception::{Exception, vector};
use crate::processor::{P, set_flags};
use crate::registers::{MXCSR, RCX, VECTORS, temp};
use crate::system;
use crate::vector::{Mxcsr, SimdException, V, Width};

/// Function numbers of this module's calls: the rows of the table, then [`Special`].
pub(super) const FIRST: u16 = super::FIRST;

/// Word `i` of a vector register.
fn word(register: u8, i: u8) -> u8 {
    VECTORS + 4 * register + i
}

/// The vector whose words begin at a register.
fn words(regs: &[u64; 256], first: u8) -> V {
    V::from_words(std::array::from_fn(|i| regs[usize::from(first) + i]))
}

/// Where an operand is: 0 to 15 is a vector register, 16 to 23 an MMX register.
type Location = u8;
const MMX: Location = 16;
/// In the temporaries.
const TEMPORARY: Location = 24;

/// What a call names.
#[derive(Clone, Copy)]
struct Operands {
    d: Location,
    a: Location,
    b: Location,
    imm: u8,
    has_imm: bool,
    w: Width,
    vex: bool,
    long: bool,
    /// It is an MMX instruction too.
    mmx: bool,
}

const WIDTHS: [Width; 3] = [Width::Mmx, Width::Xmm, Width::Ymm];

impl Operands {
    /// Bits 4 to 0, 9 to 5, 14 to 10: locations; 22 to 15: constant; 24 and 23: width; then flags.
    fn pack(self) -> u32 {
        let locations = u32::from(self.d) | u32::from(self.a) << 5 | u32::from(self.b) << 10;
        let w = WIDTHS.iter().position(|w| *w == self.w).expect("registers have one of these widths") as u32;
        let flags = [self.has_imm, self.vex, self.long, self.mmx].map(u32::from);
        let flags = flags[0] | flags[1] << 1 | flags[2] << 2 | flags[3] << 3;
        locations | u32::from(self.imm) << 15 | w << 23 | flags << 25
    }

    fn unpack(operand: u32) -> Self {
        let location = |at: u32| (operand >> at & 31) as u8;
        let flag = |at: u32| operand >> at & 1 != 0;
        Operands {
            d: location(0),
            a: location(5),
            b: location(10),
            imm: (operand >> 15) as u8,
            has_imm: flag(25),
            w: WIDTHS[(operand >> 23 & 3) as usize],
            vex: flag(26),
            long: flag(27),
            mmx: flag(28),
        }
    }
}

/// What is at a location.
fn value(h: &P, at: Location) -> V {
    match at {
        TEMPORARY => words(&h.core.regs, temp::VECTOR),
        MMX.. => V::from_mmx(h.arch.x87.mmx(usize::from(at - MMX))),
        _ => words(&h.core.regs, word(at, 0)),
    }
}

/// Writes a result to its destination.
fn write(h: &mut P, o: &Operands, v: V) {
    let first = match o.d {
        TEMPORARY => temp::VECTOR,
        MMX.. => return h.arch.x87.set_mmx(usize::from(o.d - MMX), v.mmx()),
        d => word(d, 0),
    };
    // In halves: what is read as one half has been written as one.
    let v = v.lanes::<u64>();
    let registers = &mut h.core.regs[usize::from(first)..][..4];
    registers[..2].copy_from_slice(&v[..2]);
    if o.d == TEMPORARY || o.w == Width::Ymm {
        registers[2..].copy_from_slice(&v[2..]);
    } else if o.vex {
        registers[2..].fill(0);
    }
}

/// "Unmasked SIMD floating-point exception": #XM, or #UD where the system does not handle them (SDM vol. 3A, "CR4.OSXMMEXCPT").
fn simd_exception(h: &P) -> Exception {
    if h.arch.cr4 & cr4::OSXMMEXCPT != 0 { Exception::plain(vector::XM) } else { Exception::UD }
}

/// Runs what a call of this module names.
#[inline(never)]
pub(super) fn call(h: &mut P, function: u16, operand: u32) -> Step {
    let Some(row) = ROWS.get(usize::from(function - FIRST)) else {
        return memory::call(h, function - FIRST - COUNT as u16, operand);
    };
    let o = Operands::unpack(operand);
    if o.mmx {
        x87::fault_if_pending(h)?;
        h.arch.x87.enter_mmx();
    }
    let mut mxcsr = Mxcsr(h.core.regs[usize::from(MXCSR)] as u32);
    let mut x = Args {
        w: o.w,
        vex: o.vex,
        long: o.long,
        a: value(h, o.a),
        b: value(h, o.b),
        has_imm: o.has_imm,
        imm: o.imm,
        d: o.d,
        mxcsr: &mut mxcsr,
        regs: &h.core.regs,
        result: V::ZERO,
        writes: true,
        status: None,
    };
    let done = (row.function)(&mut x);
    let (result, writes, status) = (x.result, x.writes, x.status);
    h.core.regs[usize::from(MXCSR)] = mxcsr.0.into();
    done.map_err(|SimdException| simd_exception(h))?;
    if let Some(status) = status {
        set_flags(&mut h.core.regs, Flags::eager(status.0.into()));
    }
    if writes {
        write(h, &o, result);
    }
    Ok(())
}

/// Whether such an instruction can be used now; an error if it is none of this module.
fn rights(l: &Lifting) -> Result<Result<(), Exception>, Unknown> {
    let registers = || (0..l.insn.op_count()).map(|i| l.insn.op_register(i));
    Ok(match (l.insn.op_code().encoding(), l.mnemonic()) {
        (_, Mnemonic::Movnti) => Ok(()),
        (EncodingKind::VEX, _) => l.mode.avx(),
        (EncodingKind::Legacy, Mnemonic::Ldmxcsr | Mnemonic::Stmxcsr) => l.mode.sse(),
        (EncodingKind::Legacy, _) if registers().any(Register::is_xmm) => l.mode.sse(),
        (EncodingKind::Legacy, _) if registers().any(Register::is_mm) => l.mode.mmx(),
        (EncodingKind::Legacy, m) if row_of(m).is_some() => l.mode.sse(),
        _ => return Err(Unknown),
    })
}

pub(super) fn lift(l: &mut Lifting) -> Result<(), Unknown> {
    if let Err(exception) = rights(l)? {
        system::raise(l.lift, exception);
        return Ok(());
    }
    moves::lift(l).or_else(|Unknown| memory::lift(l)).or_else(|Unknown| {
        let row = row_of(l.mnemonic()).ok_or(Unknown)?;
        computed(l, row)
    })
}

/// An instruction of the table.
fn computed(l: &mut Lifting, row: u16) -> Result<(), Unknown> {
    use Mnemonic as M;
    let mut o = operands_of(l);
    if matches!(l.mnemonic(), M::Extrq | M::Insertq) && o.has_imm {
        return bit_field(l, row, o);
    }
    if o.mmx && has_memory(l) {
        l.special(Special::MmxReady, 0);
    }
    // A constant, or the register in its place, is behind the sources.
    let last = l.insn.op_count() - u32::from(o.has_imm || l.insn.op_count() == 4);
    // Comparisons of strings name their sources, and imply where the result goes.
    let (first, implied) = match l.mnemonic() {
        M::Pcmpestri | M::Pcmpistri | M::Pcmpestri64 => (0, Some(TEMPORARY)),
        M::Vpcmpestri | M::Vpcmpistri | M::Vpcmpestri64 => (0, Some(TEMPORARY)),
        M::Pcmpestrm | M::Pcmpistrm | M::Pcmpestrm64 => (0, Some(0)),
        M::Vpcmpestrm | M::Vpcmpistrm | M::Vpcmpestrm64 => (0, Some(0)),
        _ => (1, None),
    };
    let named = location(l, 0);
    o.d = implied.or(named).unwrap_or(TEMPORARY);
    let writes_memory = l.insn.op0_kind() == OpKind::Memory;
    if writes_memory {
        let bytes = l.insn.memory_size().size();
        probe(l, bytes)?;
    }
    o.a = if last - first == 2 { location(l, first) } else { named }.unwrap_or(TEMPORARY);
    o.b = if last == first { o.a } else { source(l, last - 1, implied.is_none() && !o.vex)? };
    l.lift.call(FIRST + row, o.pack());
    if writes_memory {
        let bytes = l.insn.memory_size().size();
        return store(l, bytes, temp::VECTOR);
    }
    let to = if implied == Some(TEMPORARY) { Some(RCX) } else { general(l, 0) };
    if let Some(r) = to.filter(|_| o.d == TEMPORARY) {
        let op = if l.insn.op0_register().size() == 4 { UnaryOp::Zext32 } else { UnaryOp::Move };
        l.lift.unary(op, r, temp::VECTOR);
    }
    Ok(())
}

/// EXTRQ and INSERTQ with constants: as their other form, which has them in a register (APM vol. 4).
fn bit_field(l: &mut Lifting, row: u16, o: Operands) -> Result<(), Unknown> {
    let d = location(l, 0).ok_or(Unknown)?;
    let count = l.insn.op_count();
    let (length, index) = (l.insn.immediate8(), l.insn.immediate8_2nd());
    let control = u64::from(length) | u64::from(index) << 8;
    if count == 4 {
        let from = location(l, 1).ok_or(Unknown)?;
        l.lift.unary(UnaryOp::Move, temp::VECTOR, word(from, 0));
        l.lift.constant(temp::VECTOR + 1, control);
    } else {
        l.lift.constant(temp::VECTOR, control);
    }
    l.lift.call(FIRST + row, Operands { d, a: d, b: TEMPORARY, ..o }.pack());
    Ok(())
}

/// What of a call's operands does not depend on the roles of registers.
fn operands_of(l: &Lifting) -> Operands {
    let count = l.insn.op_count();
    let kinds = || (0..count).map(|i| l.insn.op_kind(i));
    let registers = || (0..count).filter(|i| l.insn.op_kind(*i) == OpKind::Register).map(|i| l.insn.op_register(i));
    let has_imm = kinds().any(|k| k == OpKind::Immediate8);
    let in_memory = if has_memory(l) { l.insn.memory_size().size() } else { 0 };
    let fourth = if count == 4 && !has_imm { l.insn.op_register(3).number() as u8 } else { 0 };
    let mut imm = if has_imm { l.insn.immediate8() } else { fourth };
    if matches!(l.mnemonic(), Mnemonic::Insertps | Mnemonic::Vinsertps) && has_memory(l) {
        imm &= 0x3f; // memory has one element
    }
    let has_mmx = registers().any(Register::is_mm);
    let only_mmx = has_mmx && !registers().any(Register::is_xmm);
    let w = match registers().any(Register::is_ymm) || in_memory == 32 {
        _ if only_mmx => Width::Mmx,
        true => Width::Ymm,
        false => Width::Xmm,
    };
    Operands {
        d: TEMPORARY,
        a: TEMPORARY,
        b: TEMPORARY,
        imm,
        has_imm,
        w,
        vex: is_vex(l),
        long: registers().any(Register::is_gpr64) || in_memory == 8 && !registers().any(Register::is_gpr32),
        // CVTPI2PD is none where its operand is in memory.
        mmx: has_mmx || l.code() == Code::Cvtpi2ps_xmm_mmm64,
    }
}

fn is_vex(l: &Lifting) -> bool {
    l.insn.op_code().encoding() == EncodingKind::VEX
}

fn has_memory(l: &Lifting) -> bool {
    (0..l.insn.op_count()).any(|i| l.insn.op_kind(i) == OpKind::Memory)
}

/// The location of an operand that is a vector or MMX register.
fn location(l: &Lifting, i: u32) -> Option<Location> {
    let r = l.insn.op_register(i);
    if l.insn.op_kind(i) != OpKind::Register {
        None
    } else if r.is_mm() {
        Some(MMX + r.number() as u8)
    } else if (r.is_xmm() || r.is_ymm()) && r.number() < 16 {
        Some(r.number() as u8)
    } else {
        None
    }
}

/// The number of an operand that is a general register.
fn general(l: &Lifting, i: u32) -> Option<u8> {
    let is = l.insn.op_kind(i) == OpKind::Register && l.insn.op_register(i).is_gpr();
    is.then(|| l.insn.op_register(i).full_register().number() as u8)
}

/// Brings a source that is in memory or in a general register into the temporaries. Legacy instructions want 16 bytes in memory
/// aligned.
fn source(l: &mut Lifting, i: u32, aligned: bool) -> Result<Location, Unknown> {
    if let Some(at) = location(l, i) {
        return Ok(at);
    }
    if let Some(r) = general(l, i) {
        l.lift.unary(UnaryOp::Move, temp::VECTOR, r);
        return Ok(TEMPORARY);
    }
    let bytes = l.insn.memory_size().size();
    load(l, bytes, aligned && bytes == 16)?;
    Ok(TEMPORARY)
}

/// Brings the operand in memory into the temporaries. What is above it there is anything.
fn load(l: &mut Lifting, bytes: usize, aligned: bool) -> Result<(), Unknown> {
    if bytes <= 8 {
        let m = l.memory()?;
        l.load(access(bytes)?, temp::VECTOR, m);
        return Ok(());
    }
    let at = address(l, aligned.then_some(bytes))?;
    for i in 0..bytes as u8 / 8 {
        l.lift.load(Access::U64, temp::VECTOR + i, at, i32::from(i) * 8);
    }
    Ok(())
}

/// Whatever can fault in a store to the operand in memory does so now, at its first byte that faults, and the address is in its
/// register.
fn probe(l: &mut Lifting, bytes: usize) -> Result<(), Unknown> {
    let at = address(l, None)?;
    let width = access(bytes.min(8))?;
    for i in 0..bytes.div_ceil(8) as i32 {
        l.lift.load_to_update(width, temp::TEST, at, 8 * i);
    }
    Ok(())
}

/// Stores the words that begin at a register to the address in its register: where [`probe`] has been, or what is aligned and so in
/// one page.
fn store(l: &mut Lifting, bytes: usize, first: u8) -> Result<(), Unknown> {
    let width = access(bytes.min(8))?;
    for i in 0..bytes.div_ceil(8) as u8 {
        l.lift.store(width, temp::ADDRESS, first + i, i32::from(i) * 8);
    }
    Ok(())
}

fn access(bytes: usize) -> Result<Access, Unknown> {
    Ok(match bytes {
        1 => Access::U8,
        2 => Access::U16,
        4 => Access::U32,
        8 => Access::U64,
        _ => return Err(Unknown),
    })
}

/// The register that holds the address of the operand in memory, a multiple of `alignment` if that is asked for.
fn address(l: &mut Lifting, alignment: Option<usize>) -> Result<u8, Unknown> {
    l.address_in_register()?;
    if let Some(bytes) = alignment {
        l.special(Special::Aligned, bytes as u32);
    }
    Ok(temp::ADDRESS)
}
