//! "x87 FPU Instructions" (SDM vol. 1, 5.2), and EMMS: calls of the methods of [`X87`], one line each in a table.
//!
//! A waiting instruction first raises the exception that an earlier one left pending. It is #MF where CR0.NE is
//! set, and else [`ferr`]'s concern. Then come the faults of the operand in memory, then the operation.

use emu_core::engine::flags::Flags;
use emu_core::engine::uop::{BinaryOp, Operand};
use emu_core::engine::{Intent, Step};
use iced_x86::{Code, CodeSize, Instruction, MemorySize, Mnemonic, OpKind, Register};

use super::{Lifting, Unknown};
use crate::control::{cr0, rflags};
use crate::ferr;
use crate::fpu::arithmetic::Arith;
use crate::fpu::compare::Nans;
use crate::fpu::image::Layout;
use crate::fpu::transfer::{Constant, Rounding};
use crate::fpu::{Source, X87};
use crate::processor::{P, ProcessorExt, base_of, flags, segments, set_flags};
use crate::registers::{RAX, temp};
use crate::system;
use crate::vector::Status;
use crate::xsave::{load_bytes, store_bytes};

/// Function numbers of this module's calls: the rows of the table, then [`Image`].
pub(super) const FIRST: u16 = super::FIRST + 0x1000;

/// #MF, if an exception is pending. What MMX instructions ask too.
pub(super) fn fault_if_pending(h: &mut P) -> Step {
    ferr::check(h)
}

/// An operand in memory.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    None,
    I16,
    I32,
    I64,
    F32,
    F64,
    /// Extended precision, or packed BCD.
    Ten,
}

const KINDS: [Kind; 7] = [Kind::None, Kind::I16, Kind::I32, Kind::I64, Kind::F32, Kind::F64, Kind::Ten];

impl Kind {
    fn bytes(self) -> u8 {
        match self {
            Kind::None => 0,
            Kind::I16 => 2,
            Kind::I32 | Kind::F32 => 4,
            Kind::I64 | Kind::F64 => 8,
            Kind::Ten => 10,
        }
    }
}

/// What a row's function is given.
struct Args<'a> {
    fpu: &'a mut X87,
    /// The first operand, a register of the stack.
    dst: usize,
    /// The last one.
    src: usize,
    kind: Kind,
    /// What was loaded.
    memory: u128,
    /// The flags: FCMOVcc asks for them, FCOMI sets them.
    flags: Flags,
}

impl Args<'_> {
    fn source(&self) -> Source {
        match self.kind {
            Kind::I16 => Source::I16(self.memory as i16),
            Kind::I32 => Source::I32(self.memory as i32),
            Kind::F32 => Source::F32(self.memory as u32),
            Kind::F64 => Source::F64(self.memory as u64),
            _ => Source::St(self.src),
        }
    }

    fn arith(&mut self, op: Arith, pops: bool) {
        let source = self.source();
        self.fpu.arith(op, self.dst, source, pops);
    }

    fn fcom(&mut self, nans: Nans, pops: usize) {
        let source = self.source();
        self.fpu.fcom(source, nans, pops);
    }

    fn fcomi(&mut self, nans: Nans, pops: bool) {
        if let Some(Status(status)) = self.fpu.fcomi(self.src, nans, pops) {
            self.flags = Flags::eager(status.into());
        }
    }

    fn fld(&mut self) {
        match self.kind {
            Kind::F32 => self.fpu.fld32(self.memory as u32),
            Kind::F64 => self.fpu.fld64(self.memory as u64),
            Kind::Ten => self.fpu.fld80(self.memory),
            _ => self.fpu.fld(self.dst),
        }
    }

    fn fild(&mut self) {
        self.fpu.fild(match self.kind {
            Kind::I16 => (self.memory as i16).into(),
            Kind::I32 => (self.memory as i32).into(),
            _ => self.memory as i64,
        });
    }

    fn fst(&mut self, pops: bool) -> Option<u128> {
        match self.kind {
            Kind::F32 => self.fpu.fst32(pops).map(u128::from),
            Kind::F64 => self.fpu.fst64(pops).map(u128::from),
            Kind::Ten => self.fpu.fstp80(),
            _ => {
                self.fpu.fst(self.dst, pops);
                None
            }
        }
    }

    fn fist(&mut self, rounding: Rounding, pops: bool) -> Option<u128> {
        match self.kind {
            Kind::I16 => self.fpu.fist16(rounding, pops).map(|x| x as u128),
            Kind::I32 => self.fpu.fist32(rounding, pops).map(|x| x as u128),
            _ => self.fpu.fistp64(rounding).map(|x| x as u128),
        }
    }

    /// FCMOVcc: below, equal, unordered; or one of two.
    fn fcmov(&mut self, condition: fn(Flags) -> bool, negate: bool) {
        self.fpu.fcmov(self.src, condition(self.flags) != negate);
    }
}

/// What is stored: nothing, or what a method gives.
trait Outcome {
    fn stored(self) -> Option<u128>;
}

impl Outcome for () {
    fn stored(self) -> Option<u128> {
        None
    }
}

impl Outcome for Option<u128> {
    fn stored(self) -> Option<u128> {
        self
    }
}

impl Outcome for u16 {
    fn stored(self) -> Option<u128> {
        Some(self.into())
    }
}

/// SDM vol. 1, "x87 FPU Control Instructions".
#[derive(Clone, Copy, PartialEq, Eq)]
enum Class {
    /// Waits, and is kept as the last instruction.
    Operation,
    /// Waits.
    Waiting,
    /// Does not wait.
    Control,
}

/// What is done with an operand in memory.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Access {
    Loads,
    Stores,
}

struct Row {
    mnemonic: Mnemonic,
    class: Class,
    access: Access,
    function: fn(&mut Args) -> Option<u128>,
}

macro_rules! rows {
    ($($class:ident $access:ident { $($mnemonic:ident |$x:ident| $body:expr;)* })*) => {
        &[$($(Row {
            mnemonic: Mnemonic::$mnemonic,
            class: Class::$class,
            access: Access::$access,
            function: |$x| Outcome::stored($body),
        },)*)*]
    };
}

static ROWS: &[Row] = rows! {
    Operation Loads {
        Fadd |x| x.arith(Arith::Add, false);
        Faddp |x| x.arith(Arith::Add, true);
        Fiadd |x| x.arith(Arith::Add, false);
        Fsub |x| x.arith(Arith::Sub, false);
        Fsubp |x| x.arith(Arith::Sub, true);
        Fisub |x| x.arith(Arith::Sub, false);
        Fsubr |x| x.arith(Arith::Subr, false);
        Fsubrp |x| x.arith(Arith::Subr, true);
        Fisubr |x| x.arith(Arith::Subr, false);
        Fmul |x| x.arith(Arith::Mul, false);
        Fmulp |x| x.arith(Arith::Mul, true);
        Fimul |x| x.arith(Arith::Mul, false);
        Fdiv |x| x.arith(Arith::Div, false);
        Fdivp |x| x.arith(Arith::Div, true);
        Fidiv |x| x.arith(Arith::Div, false);
        Fdivr |x| x.arith(Arith::Divr, false);
        Fdivrp |x| x.arith(Arith::Divr, true);
        Fidivr |x| x.arith(Arith::Divr, false);
        Fcom |x| x.fcom(Nans::Invalid, 0);
        Fcomp |x| x.fcom(Nans::Invalid, 1);
        Fcompp |x| x.fcom(Nans::Invalid, 2);
        Ficom |x| x.fcom(Nans::Invalid, 0);
        Ficomp |x| x.fcom(Nans::Invalid, 1);
        Fucom |x| x.fcom(Nans::Quiet, 0);
        Fucomp |x| x.fcom(Nans::Quiet, 1);
        Fucompp |x| x.fcom(Nans::Quiet, 2);
        Fcomi |x| x.fcomi(Nans::Invalid, false);
        Fcomip |x| x.fcomi(Nans::Invalid, true);
        Fucomi |x| x.fcomi(Nans::Quiet, false);
        Fucomip |x| x.fcomi(Nans::Quiet, true);
        Ftst |x| x.fpu.ftst();
        Fxam |x| x.fpu.fxam();
        Fld |x| x.fld();
        Fild |x| x.fild();
        Fbld |x| x.fpu.fbld(x.memory);
        Fld1 |x| x.fpu.fld_constant(Constant::One);
        Fldl2t |x| x.fpu.fld_constant(Constant::L2t);
        Fldl2e |x| x.fpu.fld_constant(Constant::L2e);
        Fldpi |x| x.fpu.fld_constant(Constant::Pi);
        Fldlg2 |x| x.fpu.fld_constant(Constant::Lg2);
        Fldln2 |x| x.fpu.fld_constant(Constant::Ln2);
        Fldz |x| x.fpu.fld_constant(Constant::Zero);
        Fxch |x| x.fpu.fxch(x.src);
        Fcmovb |x| x.fcmov(Flags::carry, false);
        Fcmovnb |x| x.fcmov(Flags::carry, true);
        Fcmove |x| x.fcmov(Flags::zero, false);
        Fcmovne |x| x.fcmov(Flags::zero, true);
        Fcmovbe |x| x.fcmov(|f| f.carry() || f.zero(), false);
        Fcmovnbe |x| x.fcmov(|f| f.carry() || f.zero(), true);
        Fcmovu |x| x.fcmov(Flags::parity, false);
        Fcmovnu |x| x.fcmov(Flags::parity, true);
        Fabs |x| x.fpu.fabs();
        Fchs |x| x.fpu.fchs();
        Fsqrt |x| x.fpu.fsqrt();
        Frndint |x| x.fpu.frndint();
        Fscale |x| x.fpu.fscale();
        Fprem |x| x.fpu.fprem();
        Fprem1 |x| x.fpu.fprem1();
        Fxtract |x| x.fpu.fxtract();
        F2xm1 |x| x.fpu.f2xm1();
        Fsin |x| x.fpu.fsin();
        Fcos |x| x.fpu.fcos();
        Fsincos |x| x.fpu.fsincos();
        Fptan |x| x.fpu.fptan();
        Fpatan |x| x.fpu.fpatan();
        Fyl2x |x| x.fpu.fyl2x();
        Fyl2xp1 |x| x.fpu.fyl2xp1();
        Fincstp |x| x.fpu.fincstp();
        Fdecstp |x| x.fpu.fdecstp();
        Ffree |x| x.fpu.ffree(x.dst);
        Ffreep |x| x.fpu.ffreep(x.dst);
        Fnop |_x| ();
    }
    Operation Stores {
        Fst |x| x.fst(false);
        Fstp |x| x.fst(true);
        Fstpnce |x| x.fpu.fstpnce(x.dst);
        Fist |x| x.fist(Rounding::Control, false);
        Fistp |x| x.fist(Rounding::Control, true);
        Fisttp |x| x.fist(Rounding::Truncated, true);
        Fbstp |x| x.fpu.fbstp();
    }
    Waiting Loads {
        Fldcw |x| x.fpu.fldcw(x.memory as u16);
        Wait |_x| ();
        Emms |x| x.fpu.emms();
    }
    Control Loads {
        Fnclex |x| x.fpu.fnclex();
        Fninit |x| x.fpu.fninit();
        Fneni |_x| ();
        Fndisi |_x| ();
        Fnsetpm |_x| ();
    }
    Control Stores {
        Fnstcw |x| x.fpu.fnstcw();
        Fnstsw |x| x.fpu.fnstsw();
    }
};

/// What a call does: the operand is whether the image is that of 32-bit code.
type ImageFunction = fn(&mut P, u32) -> Step;

/// Instructions whose operand is an image of the state, in the order of their functions.
const IMAGES: [(Mnemonic, ImageFunction); 4] =
    [(Mnemonic::Fldenv, fldenv), (Mnemonic::Fnstenv, fnstenv), (Mnemonic::Frstor, frstor), (Mnemonic::Fnsave, fnsave)];

pub(super) fn lift(l: &mut Lifting) -> Result<(), Unknown> {
    let m = l.mnemonic();
    let image = IMAGES.iter().position(|(mnemonic, _)| *mnemonic == m);
    let row = ROWS.iter().position(|r| r.mnemonic == m);
    if image.is_none() && row.is_none() {
        return Err(Unknown);
    }
    let rights = match m {
        Mnemonic::Wait => l.mode.fwait(),
        Mnemonic::Emms => l.mode.mmx(),
        _ => l.mode.x87(),
    };
    if let Err(exception) = rights {
        system::raise(l.lift, exception);
        return Ok(());
    }
    if let Some(i) = image {
        let is_32 = matches!(
            l.code(),
            Code::Fldenv_m28byte | Code::Fnstenv_m28byte | Code::Frstor_m108byte | Code::Fnsave_m108byte
        );
        if matches!(m, Mnemonic::Fldenv | Mnemonic::Frstor) {
            wait(l);
        }
        l.address_in_register()?;
        l.lift.call(FIRST + ROWS.len() as u16 + i as u16, is_32.into());
        return Ok(());
    }
    let row = row.ok_or(Unknown)?;
    let kind = match l.insn.memory_size() {
        _ if l.insn.op_count() == 0 || l.insn.op0_kind() != OpKind::Memory => Kind::None,
        MemorySize::Int16 | MemorySize::UInt16 => Kind::I16,
        MemorySize::Int32 => Kind::I32,
        MemorySize::Int64 => Kind::I64,
        MemorySize::Float32 => Kind::F32,
        MemorySize::Float64 => Kind::F64,
        _ => Kind::Ten,
    };
    if kind != Kind::None {
        if ROWS[row].class != Class::Control {
            wait(l);
        }
        l.address_in_register()?;
    }
    let st = |i: u32| if l.insn.op_register(i).is_st() { l.insn.op_register(i).number() as u32 } else { 0 };
    let (dst, src) = match l.insn.op_count() {
        0 => (0, 1), // FCOMPP
        n => (st(0), st(n - 1)),
    };
    let segment = match l.insn.memory_segment() {
        Register::None => segments::DS,
        r => r.number(),
    };
    let kind_number = KINDS.iter().position(|k| *k == kind).unwrap_or(0);
    let place = dst | src << 3 | (kind_number as u32) << 6 | (segment as u32) << 9;
    l.lift.call(FIRST + row as u16, place | opcode(l.insn) << 12);
    if m == Mnemonic::Fnstsw && kind == Kind::None {
        l.lift.binary(BinaryOp::Merge16, RAX, RAX, Operand::Reg(temp::FIRST));
    }
    Ok(())
}

/// Where the operand's segment is looked at, a pending exception comes before what the segment forbids: as WAIT raises it.
fn wait(l: &mut Lifting) {
    if !l.is_flat(l.insn.memory_segment())
        && let Some(row) = ROWS.iter().position(|r| r.mnemonic == Mnemonic::Wait)
    {
        l.lift.call(FIRST + row as u16, 0);
    }
}

/// The low three bits of the first byte of an instruction and its ModR/M byte ("x87 FPU Opcode Register"), as assemblers encode it.
fn opcode(insn: &Instruction) -> u32 {
    let info = insn.op_code();
    if info.op_code_len() == 2 {
        let st = (0..insn.op_count()).map(|i| insn.op_register(i)).filter(|r| r.is_st()).map(|r| r.number()).max();
        return (info.op_code() + st.unwrap_or(0) as u32) & 0x7ff;
    }
    let group = info.group_index().max(0) as u32;
    (info.op_code() & 7) << 8 | group << 3 | addressing(insn)
}

/// Mod and R/M of a ModR/M byte (SDM vol. 2A, "Addressing-Mode Encoding of ModR/M and SIB Bytes").
fn addressing(insn: &Instruction) -> u32 {
    use Register as R;
    let (base, index) = (insn.memory_base(), insn.memory_index());
    let is_absolute = base == R::None && index == R::None;
    let is_16 = [base, index].iter().any(|r| r.is_gpr16()) || is_absolute && insn.memory_displ_size() == 2;
    let rm = match (base, index) {
        (R::BX, R::SI) => 0,
        (R::BX, R::DI) => 1,
        (R::BP, R::SI) => 2,
        (R::BP, R::DI) => 3,
        (R::SI, _) => 4,
        (R::DI, _) => 5,
        (R::BP, _) => 6,
        (R::BX, _) => 7,
        (R::None, R::None) if is_16 => 6,
        (R::None, R::None) if insn.code_size() != CodeSize::Code64 => 5,
        (R::RIP | R::EIP, _) => 5,
        (R::None, _) => 4,
        (_, R::None) => base.full_register().number() as u32 & 7,
        _ => 4,
    };
    let mode = match insn.memory_displ_size() {
        _ if base == R::None || base.is_ip() => 0,
        0 => 0,
        1 => 1,
        _ => 2,
    };
    mode << 6 | rm
}

/// Runs what a call of this module names.
#[inline(never)]
pub(super) fn call(h: &mut P, function: u16, operand: u32) -> Step {
    let index = usize::from(function - FIRST);
    let Some(row) = ROWS.get(index) else {
        return IMAGES[index - ROWS.len()].1(h, operand);
    };
    if row.class != Class::Control {
        fault_if_pending(h)?;
    }
    let at = h.core.regs[usize::from(temp::ADDRESS)];
    let kind = KINDS[(operand >> 6 & 7) as usize];
    let (low, high) = (kind.bytes().min(8), kind.bytes().saturating_sub(8));
    let (mut memory, mut places) = (0, [None, None]);
    for (i, size) in [low, high].into_iter().enumerate().filter(|(_, size)| *size != 0) {
        let at = at.wrapping_add(8 * i as u64);
        if row.access == Access::Stores {
            places[i] = Some((h.resolve(at, size, Intent::Write, 0)?, size));
        } else {
            memory |= u128::from(h.load(at, size, 0)?) << (64 * i);
        }
    }
    if row.class == Class::Operation {
        let ip = h.ip(h.core.pc);
        let segment = (operand >> 9 & 7) as usize;
        let offset = at.wrapping_sub(base_of(h, segment));
        let [cs, data] = [segments::CS, segment].map(|s| h.arch.segments[s].selector);
        h.arch.x87.note_instruction(cs, ip, (operand >> 12) as u16);
        if kind != Kind::None {
            h.arch.x87.note_operand(data, offset);
        }
    }
    let before = flags(&h.core.regs);
    let mut args = Args {
        fpu: &mut h.arch.x87,
        dst: (operand & 7) as usize,
        src: (operand >> 3 & 7) as usize,
        kind,
        memory,
        flags: before,
    };
    let stored = (row.function)(&mut args);
    let after = args.flags;
    set_flags(&mut h.core.regs, after);
    let Some(value) = stored else { return Ok(()) };
    if kind == Kind::None {
        h.core.regs[usize::from(temp::FIRST)] = value as u64;
    }
    for (i, (place, size)) in places.into_iter().flatten().enumerate() {
        let mask = u64::MAX >> (64 - 8 * u32::from(size));
        h.store_at(place, size, (value >> (64 * i)) as u64 & mask)?;
    }
    Ok(())
}

/// By operand size and mode; virtual-8086 mode counts as real.
fn layout(h: &P, is_32: u32) -> Layout {
    let protected = h.arch.cr0 & cr0::PE != 0 && h.arch.rflags & rflags::VM == 0;
    match (is_32 != 0, protected) {
        (true, true) => Layout::Protected32,
        (true, false) => Layout::Real32,
        (false, true) => Layout::Protected16,
        (false, false) => Layout::Real16,
    }
}

/// Loads an image of this many bytes.
fn load(h: &mut P, bytes: usize) -> Step<[u8; 108]> {
    fault_if_pending(h)?;
    let mut image = [0; 108];
    load_bytes(h, &mut image[..bytes])?;
    Ok(image)
}

fn fldenv(h: &mut P, is_32: u32) -> Step {
    let layout = layout(h, is_32);
    let image = load(h, layout.environment())?;
    h.arch.x87.fldenv(layout, &image);
    Ok(())
}

fn frstor(h: &mut P, is_32: u32) -> Step {
    let layout = layout(h, is_32);
    let image = load(h, layout.save())?;
    h.arch.x87.frstor(layout, &image);
    Ok(())
}

/// Makes an image, of a copy of the state that becomes the state once all is stored.
fn save(h: &mut P, bytes: usize, make: impl FnOnce(&mut X87, &mut [u8])) -> Step {
    let (mut after, mut image) = (h.arch.x87.clone(), [0; 108]);
    make(&mut after, &mut image);
    store_bytes(h, &image[..bytes])?;
    h.arch.x87 = after;
    Ok(())
}

fn fnstenv(h: &mut P, is_32: u32) -> Step {
    let layout = layout(h, is_32);
    save(h, layout.environment(), |x87, image| x87.fnstenv(layout, image))
}

fn fnsave(h: &mut P, is_32: u32) -> Step {
    let layout = layout(h, is_32);
    save(h, layout.save(), |x87, image| x87.fnsave(layout, image))
}
