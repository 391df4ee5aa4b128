//! System instructions (SDM vol. 1, "System Instructions", "64-Bit Mode Instructions"): what each is lifted to, and those that have no module of their own.

use emu_core::engine::flags::Size;
use emu_core::engine::uop::{BinaryOp, Operand, UnaryOp};
use emu_core::engine::{Lift, Step, Stop, StopKind};
use iced_x86::{Code, Instruction, Mnemonic, OpKind, Register};

use crate::control::{cr4, rflags};
use crate::exception::{Exception, vector};
use crate::extension::{Intercept, ask_after, ask_before};
use crate::far::{self, Transfer};
use crate::frame::Stack;
use crate::isa::{Lifting, Unknown};
use crate::mode::Mode;
use crate::processor::{P, ProcessorExt, segments};
use crate::registers::{DIRECTION, RAX, RBP, RBX, RCX, RDI, RDX, RSI, RSP, ZERO, temp};
use crate::{
    branch, control_registers, debug, decimal, fast_calls, flag_instructions, interrupt_instructions, io_instructions,
    segment_instructions, smm, table_instructions,
};

macro_rules! functions {
    ($($(#[$m:meta])* $name:ident $f:path;)*) => {
        /// What a call of this module does. Its operand names registers and constants.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[repr(u16)]
        enum Function { $($(#[$m])* $name,)* }
        const ALL: &[fn(&mut P, u32) -> Step] = &[$($f,)*];
    };
}
functions! {
    /// The exception, packed as that of a stop.
    Raise raise_now;
    /// A near branch leads to TARGET.
    CheckTarget check_target_now;
    /// Register in bits 7 to 0, control or debug register in bits 15 to 8.
    MovToCr control_registers::mov_to_cr;
    MovFromCr control_registers::mov_from_cr;
    MovToDr debug::mov_to_dr;
    MovFromDr debug::mov_from_dr;
    Clts control_registers::clts;
    /// The machine status word is in FIRST; whether it comes from the memory at ADDRESS.
    Lmsw control_registers::lmsw;
    Smsw control_registers::smsw;
    /// The address is in ADDRESS; size of an offset in bytes.
    Lgdt table_instructions::lgdt;
    Lidt table_instructions::lidt;
    Sgdt table_instructions::sgdt;
    Sidt table_instructions::sidt;
    /// The selector is in FIRST.
    Lldt table_instructions::lldt;
    Ltr table_instructions::ltr;
    /// The selector goes to FIRST.
    Sldt table_instructions::sldt;
    Str table_instructions::str;
    /// Selector in FIRST; result there, Z tells.
    Lar table_instructions::lar;
    Lsl table_instructions::lsl;
    Verr table_instructions::verr;
    Verw table_instructions::verw;
    /// Selectors in FIRST and SECOND.
    Arpl table_instructions::arpl;
    /// Segment register in bits 15 to 8; the selector is in FIRST.
    MovToSegment segment_instructions::mov_to_segment;
    LoadSegment segment_instructions::load_segment;
    MovFromSegment segment_instructions::mov_from_segment;
    Hlt hlt;
    Cli flag_instructions::cli;
    Sti flag_instructions::sti;
    /// Flags go to FIRST; bits: their size.
    Pushf flag_instructions::pushf;
    /// Flags come from FIRST; bits: their size.
    Popf flag_instructions::popf;
    /// The vector.
    Int interrupt_instructions::int;
    Int1 interrupt_instructions::int1;
    Int3 interrupt_instructions::int3;
    Into interrupt_instructions::into;
    /// Size of the operands in bytes.
    Iret iret;
    /// Size in bytes; selector in FIRST, offset in SECOND.
    FarJump far_jump;
    FarCall far_call;
    /// Size in bytes in bits 7 to 0, what is released above.
    FarReturn far_return;
    Syscall fast_calls::syscall;
    /// Size in bytes.
    Sysret fast_calls::sysret;
    Sysenter fast_calls::sysenter;
    Sysexit fast_calls::sysexit;
    Swapgs fast_calls::swapgs;
    /// What RFLAGS.AC becomes.
    SetAc set_ac;
    Rdpkru rdpkru;
    Wrpkru wrpkru;
    /// The address is in ADDRESS.
    Invlpg invlpg;
    /// Size in bytes; the port is in FIRST.
    In io_instructions::input;
    Out io_instructions::output;
    /// Index in FIRST, bounds in SECOND and THIRD; bits: their size.
    Bound bound;
    /// Size in bytes.
    Pusha pusha;
    Popa popa;
    Aaa decimal::aaa;
    Aas decimal::aas;
    Daa decimal::daa;
    Das decimal::das;
    /// The base.
    Aam decimal::aam;
    Aad decimal::aad;
    Rsm smm::rsm;
    /// A near branch: see [`branch::near`].
    NearBranch branch::near;
    /// Another function, in bits 7 to 0, that transfers control while branches are watched; its operand is above.
    Watched watched;
}

/// Functions of this module stand behind that of the computations.
const FIRST_FUNCTION: u16 = crate::isa::compute::FUNCTION + 1;

fn end(lift: &mut Lift, f: Function, operand: u32) {
    lift.call_and_end(FIRST_FUNCTION + f as u16, operand);
}

fn go_on(lift: &mut Lift, f: Function, operand: u32) {
    lift.call(FIRST_FUNCTION + f as u16, operand);
}

/// Lifts a transfer to another segment or privilege level.
fn transfer(l: &mut Lifting, f: Function, operand: u32) {
    if l.mode.watches_branches {
        end(l.lift, Function::Watched, f as u32 | operand << 8);
    } else {
        end(l.lift, f, operand);
    }
}

fn watched(h: &mut P, operand: u32) -> Step {
    branch::far(h, |h| ALL[(operand & 0xff) as usize](h, operand >> 8))
}

/// Lifts what tells of a near branch that is about to leave.
pub(crate) fn near_branch(lift: &mut Lift, operand: u32) {
    go_on(lift, Function::NearBranch, operand);
}

/// Lifts the raising of an exception.
pub(crate) fn raise(lift: &mut Lift, exception: Exception) {
    end(lift, Function::Raise, Stop::from(exception).code());
}

/// Lifts the check of an instruction pointer in [`temp::TARGET`] against the code segment's limit; it becomes a linear address.
pub(crate) fn check_target(lift: &mut Lift) {
    go_on(lift, Function::CheckTarget, 0);
}

/// See [`Arch::call`](emu_core::engine::Arch::call).
#[inline]
pub(crate) fn call(h: &mut P, function: u16, operand: u32) -> Step {
    ALL[usize::from(function - FIRST_FUNCTION)](h, operand)
}

/// Lifts a system instruction; false if it is none that is known here.
pub(crate) fn lift(lift: &mut Lift, i: &Instruction, mode: &Mode) -> bool {
    let mut l = Lifting::new(lift, i, mode);
    lift_system(&mut l, i).or_else(|Unknown| lift_legacy(&mut l, i)).is_ok()
}

fn gpr(r: Register) -> u32 {
    r.full_register().number() as u32
}

/// The size of a far transfer's or return's operands.
fn operand_size(i: &Instruction) -> u32 {
    i.op_code().operand_size() / 8
}

fn lift_system(l: &mut Lifting, i: &Instruction) -> Result<(), Unknown> {
    use Function as F;
    let is_64 = l.mode.is_64();
    match i.mnemonic() {
        Mnemonic::Mov => return mov(l, i),
        Mnemonic::Push if i.op0_register().is_segment_register() => {
            let size = l.stack_step()?;
            go_on(l.lift, F::MovFromSegment, (i.op0_register().number() as u32) << 8);
            l.push(size, temp::FIRST);
        }
        Mnemonic::Pop if i.op0_register().is_segment_register() => {
            let size = l.stack_step()?;
            l.peek(size, temp::FIRST);
            end(l.lift, F::LoadSegment, (i.op0_register().number() as u32) << 8 | u32::from(size.bytes()));
        }
        Mnemonic::Clts => end(l.lift, F::Clts, 0),
        Mnemonic::Lmsw => {
            l.bring_word(0)?;
            end(l.lift, F::Lmsw, u32::from(i.op0_kind() == OpKind::Memory));
        }
        Mnemonic::Smsw => {
            go_on(l.lift, F::Smsw, 0);
            l.write_selector()?;
        }
        Mnemonic::Lgdt | Mnemonic::Lidt | Mnemonic::Sgdt | Mnemonic::Sidt | Mnemonic::Invlpg => {
            l.address_in_register()?;
            let f = match i.mnemonic() {
                Mnemonic::Lgdt => F::Lgdt,
                Mnemonic::Lidt => F::Lidt,
                Mnemonic::Sgdt => F::Sgdt,
                Mnemonic::Sidt => F::Sidt,
                _ => F::Invlpg,
            };
            end(l.lift, f, if is_64 { 8 } else { operand_size(i) });
        }
        Mnemonic::Lldt | Mnemonic::Ltr | Mnemonic::Verr | Mnemonic::Verw => {
            require_protected(l)?;
            l.bring_word(0)?;
            match i.mnemonic() {
                Mnemonic::Lldt => end(l.lift, F::Lldt, 0),
                Mnemonic::Ltr => end(l.lift, F::Ltr, 0),
                Mnemonic::Verr => go_on(l.lift, F::Verr, 0),
                _ => go_on(l.lift, F::Verw, 0),
            }
        }
        Mnemonic::Sldt | Mnemonic::Str => {
            require_protected(l)?;
            go_on(l.lift, if i.mnemonic() == Mnemonic::Sldt { F::Sldt } else { F::Str }, 0);
            l.write_selector()?;
        }
        Mnemonic::Lar | Mnemonic::Lsl => {
            require_protected(l)?;
            l.bring_word(1)?;
            go_on(l.lift, if i.mnemonic() == Mnemonic::Lar { F::Lar } else { F::Lsl }, 0);
            l.write_if_zero()?;
        }
        Mnemonic::Arpl => {
            require_protected(l)?;
            let is_memory = i.op0_kind() == OpKind::Memory;
            return l.update_word(|l| go_on(l.lift, F::Arpl, is_memory.into()));
        }
        Mnemonic::Lds | Mnemonic::Les | Mnemonic::Lfs | Mnemonic::Lgs | Mnemonic::Lss => {
            let segment = match i.mnemonic() {
                Mnemonic::Lds => segments::DS,
                Mnemonic::Les => segments::ES,
                Mnemonic::Lfs => segments::FS,
                Mnemonic::Lgs => segments::GS,
                _ => segments::SS,
            };
            let size = l.bring_far_pointer(1)?;
            l.lift.unary(UnaryOp::Move, temp::THIRD, temp::SECOND);
            let to = gpr(i.op0_register()) << 16 | u32::from(size.bytes());
            end(l.lift, F::MovToSegment, (segment as u32) << 8 | to | 1 << 31);
        }
        Mnemonic::Hlt => end(l.lift, F::Hlt, 0),
        Mnemonic::Rsm => transfer(l, F::Rsm, 0),
        Mnemonic::Cli => go_on(l.lift, F::Cli, 0),
        Mnemonic::Sti => end(l.lift, F::Sti, 0),
        Mnemonic::Cld => l.lift.constant(DIRECTION, 0),
        Mnemonic::Std => l.lift.constant(DIRECTION, u64::MAX),
        Mnemonic::Pushfq | Mnemonic::Pushfd | Mnemonic::Pushf => {
            let size = l.stack_step()?;
            go_on(l.lift, F::Pushf, size.bytes().into());
            l.push(size, temp::FIRST);
        }
        Mnemonic::Popfq | Mnemonic::Popfd | Mnemonic::Popf => {
            let size = l.stack_step()?;
            end(l.lift, F::Popf, size.bytes().into());
        }
        Mnemonic::Int => end(l.lift, F::Int, i.immediate8().into()),
        Mnemonic::Int1 => end(l.lift, F::Int1, 0),
        Mnemonic::Int3 => end(l.lift, F::Int3, 0),
        Mnemonic::Into => {
            let next = l.next();
            l.lift.branch_if(emu_core::engine::flags::FlagCond::Overflow, true, next);
            end(l.lift, F::Into, 0);
        }
        Mnemonic::Iret | Mnemonic::Iretd | Mnemonic::Iretq => {
            let size = match i.mnemonic() {
                Mnemonic::Iret => 2,
                Mnemonic::Iretd => 4,
                _ => 8,
            };
            transfer(l, F::Iret, size);
        }
        Mnemonic::Jmp | Mnemonic::Call if is_far(i) => {
            let size = l.bring_far_pointer(0)?;
            let f = if i.mnemonic() == Mnemonic::Jmp { F::FarJump } else { F::FarCall };
            transfer(l, f, size.bytes().into());
        }
        Mnemonic::Retf => {
            let released = if i.op_count() == 0 { 0 } else { u32::from(i.immediate16()) };
            transfer(l, F::FarReturn, operand_size(i) | released << 8);
        }
        Mnemonic::Syscall => transfer(l, F::Syscall, 0),
        Mnemonic::Sysret | Mnemonic::Sysretq => transfer(l, F::Sysret, if i.code() == Code::Sysretq { 8 } else { 4 }),
        Mnemonic::Sysenter => transfer(l, F::Sysenter, 0),
        Mnemonic::Sysexit | Mnemonic::Sysexitq => {
            transfer(l, F::Sysexit, if i.code() == Code::Sysexitq { 8 } else { 4 });
        }
        Mnemonic::Swapgs => end(l.lift, F::Swapgs, 0),
        Mnemonic::Clac => end(l.lift, F::SetAc, 0),
        Mnemonic::Stac => end(l.lift, F::SetAc, 1),
        Mnemonic::Rdpkru => go_on(l.lift, F::Rdpkru, 0),
        Mnemonic::Wrpkru => end(l.lift, F::Wrpkru, 0),
        Mnemonic::In | Mnemonic::Out => {
            let is_in = i.mnemonic() == Mnemonic::In;
            let (data, port) = if is_in { (0, 1) } else { (1, 0) };
            let size = i.op_register(data).size() as u32;
            if i.op_kind(port) == OpKind::Register {
                l.lift.binary(BinaryOp::And, temp::FIRST, RDX, Operand::Imm(0xffff));
            } else {
                l.lift.constant(temp::FIRST, i.immediate8().into());
            }
            go_on(l.lift, if is_in { F::In } else { F::Out }, size);
        }
        Mnemonic::Ud2 | Mnemonic::Ud1 | Mnemonic::Ud0 => raise(l.lift, Exception::UD),
        _ => return Err(Unknown),
    }
    Ok(())
}

/// Instructions that 64-bit mode does not have.
fn lift_legacy(l: &mut Lifting, i: &Instruction) -> Result<(), Unknown> {
    use Function as F;
    match i.mnemonic() {
        Mnemonic::Bound => {
            let size = l.size(0)?;
            l.bring_bounds(size)?;
            go_on(l.lift, F::Bound, size.bytes().into());
        }
        Mnemonic::Pusha => end(l.lift, F::Pusha, 2),
        Mnemonic::Pushad => end(l.lift, F::Pusha, 4),
        Mnemonic::Popa => end(l.lift, F::Popa, 2),
        Mnemonic::Popad => end(l.lift, F::Popa, 4),
        Mnemonic::Aaa => go_on(l.lift, F::Aaa, 0),
        Mnemonic::Aas => go_on(l.lift, F::Aas, 0),
        Mnemonic::Daa => go_on(l.lift, F::Daa, 0),
        Mnemonic::Das => go_on(l.lift, F::Das, 0),
        Mnemonic::Aam => go_on(l.lift, F::Aam, i.immediate8().into()),
        Mnemonic::Aad => go_on(l.lift, F::Aad, i.immediate8().into()),
        Mnemonic::Salc => {
            l.lift.set_if(emu_core::engine::flags::FlagCond::Carry, false, temp::FIRST);
            l.lift.binary(BinaryOp::Sub, temp::FIRST, ZERO, Operand::Reg(temp::FIRST));
            l.lift.binary(BinaryOp::Merge8, RAX, RAX, Operand::Reg(temp::FIRST));
        }
        _ => return Err(Unknown),
    }
    Ok(())
}

/// What real and virtual-8086 mode do not have.
fn require_protected(l: &mut Lifting) -> Result<(), Unknown> {
    if l.mode.protected { Ok(()) } else { Err(Unknown) }
}

fn is_far(i: &Instruction) -> bool {
    i.is_jmp_far() || i.is_call_far() || i.is_jmp_far_indirect() || i.is_call_far_indirect()
}

/// MOV to and from control, debug and segment registers.
fn mov(l: &mut Lifting, i: &Instruction) -> Result<(), Unknown> {
    use Function as F;
    match i.code() {
        Code::Mov_cr_r64 | Code::Mov_cr_r32 => {
            end(l.lift, F::MovToCr, gpr(i.op1_register()) | (i.op0_register().number() as u32) << 8);
        }
        Code::Mov_r64_cr | Code::Mov_r32_cr => {
            go_on(l.lift, F::MovFromCr, gpr(i.op0_register()) | (i.op1_register().number() as u32) << 8);
        }
        Code::Mov_dr_r64 | Code::Mov_dr_r32 => {
            end(l.lift, F::MovToDr, gpr(i.op1_register()) | (i.op0_register().number() as u32) << 8);
        }
        Code::Mov_r64_dr | Code::Mov_r32_dr => {
            go_on(l.lift, F::MovFromDr, gpr(i.op0_register()) | (i.op1_register().number() as u32) << 8);
        }
        Code::Mov_Sreg_rm16 | Code::Mov_Sreg_r32m16 | Code::Mov_Sreg_r64m16 => {
            let segment = i.op0_register().number() as u32;
            l.bring_word(1)?;
            end(l.lift, F::MovToSegment, segment << 8);
        }
        Code::Mov_rm16_Sreg | Code::Mov_r32m16_Sreg | Code::Mov_r64m16_Sreg => {
            go_on(l.lift, F::MovFromSegment, (i.op1_register().number() as u32) << 8);
            l.write_selector()?;
        }
        _ => return Err(Unknown),
    }
    Ok(())
}

fn raise_now(_: &mut P, operand: u32) -> Step {
    Err(Stop::exception(operand, 0))
}

fn check_target_now(h: &mut P, _: u32) -> Step {
    let ip = h.reg(temp::TARGET);
    if h.arch.is_64() {
        return h.fault_if(!h.arch.is_canonical(ip), Exception::gp(0));
    }
    h.fault_if(ip > h.arch.segments[segments::CS].limit.into(), Exception::gp(0))?;
    let linear = h.linear_ip(ip);
    h.set_reg(temp::TARGET, linear);
    Ok(())
}

pub(crate) fn reg(h: &P, operand: u32) -> u64 {
    h.core.regs[(operand & 0xff) as usize]
}

pub(crate) fn set(h: &mut P, r: u8, value: u64) {
    h.core.regs[usize::from(r)] = value;
}

pub(crate) fn first(h: &P) -> u64 {
    h.core.regs[usize::from(temp::FIRST)]
}

/// A function's operand that names a size in bytes.
pub(crate) fn size_of(operand: u32) -> Size {
    match operand & 0xff {
        1 => Size::Bits8,
        2 => Size::Bits16,
        4 => Size::Bits32,
        _ => Size::Bits64,
    }
}

fn hlt(h: &mut P, _: u32) -> Step {
    h.require_cpl_0()?;
    ask_after(h, || Intercept::Hlt)?;
    h.arch.waiting.halts();
    Err(Stop::of(StopKind::Wait))
}

fn iret(h: &mut P, size: u32) -> Step {
    ask_before(h, || Intercept::Iret)?;
    far::iret(h, size_of(size))
}

fn far_jump(h: &mut P, size: u32) -> Step {
    far::transfer(h, Transfer::Jump, h.reg(temp::FIRST) as u16, h.reg(temp::SECOND), size_of(size))
}

fn far_call(h: &mut P, size: u32) -> Step {
    far::transfer(h, Transfer::Call, h.reg(temp::FIRST) as u16, h.reg(temp::SECOND), size_of(size))
}

fn far_return(h: &mut P, operand: u32) -> Step {
    far::ret(h, size_of(operand), (operand >> 8) as u16)
}

/// BOUND: signed, bounds included.
fn bound(h: &mut P, operand: u32) -> Step {
    let shift = 64 - 8 * operand;
    let [index, low, high] = [temp::FIRST, temp::SECOND, temp::THIRD].map(|r| (h.reg(r) << shift) as i64 >> shift);
    h.fault_if(index < low || index > high, Exception::plain(vector::BR))
}

/// PUSHA, PUSHAD.
fn pusha(h: &mut P, operand: u32) -> Step {
    let mut stack = Stack::present(h);
    let words = [RAX, RCX, RDX, RBX, RSP, RBP, RSI, RDI].map(|r| h.reg(r));
    stack.push(h, &words, size_of(operand), Exception::with(vector::SS, 0))?;
    set(h, RSP, stack.sp);
    Ok(())
}

/// POPA, POPAD: the stack pointer's place is skipped.
fn popa(h: &mut P, operand: u32) -> Step {
    let (stack, size) = (Stack::present(h), size_of(operand));
    let mut words = [0; 8];
    for (i, word) in words.iter_mut().enumerate() {
        *word = stack.peek(h, i as i64, size)?;
    }
    for (r, word) in [RDI, RSI, RBP, RSP, RBX, RDX, RCX, RAX].into_iter().zip(words) {
        if r != RSP {
            let value = size.merge(h.reg(r), word);
            set(h, r, value);
        }
    }
    set(h, RSP, stack.moved(8 * i64::from(operand)));
    Ok(())
}

/// CLAC, STAC.
fn set_ac(h: &mut P, value: u32) -> Step {
    h.fault_if(h.arch.cpl() != 0 || h.arch.is_v8086(), Exception::UD)?;
    h.arch.rflags = h.arch.rflags & !rflags::AC | if value != 0 { rflags::AC } else { 0 };
    h.core.spaces_changed = true;
    h.core.leave = true;
    Ok(())
}

fn rdpkru(h: &mut P, _: u32) -> Step {
    h.fault_if(h.arch.cr4 & cr4::PKE == 0, Exception::UD)?;
    h.fault_if(h.reg(RCX) as u32 != 0, Exception::gp(0))?;
    set(h, RAX, h.arch.pkru.into());
    set(h, RDX, 0);
    Ok(())
}

fn wrpkru(h: &mut P, _: u32) -> Step {
    h.fault_if(h.arch.cr4 & cr4::PKE == 0, Exception::UD)?;
    h.fault_if((h.reg(RCX) | h.reg(RDX)) as u32 != 0, Exception::gp(0))?;
    h.arch.pkru = h.reg(RAX) as u32;
    h.all_changed();
    Ok(())
}

fn invlpg(h: &mut P, _: u32) -> Step {
    h.require_cpl_0()?;
    let linear = h.core.regs[usize::from(temp::ADDRESS)];
    ask_after(h, || Intercept::Invlpg(linear))?;
    // Global translations are dropped for every PCID, and there is no telling which they are.
    h.core.mmu.drop_page(linear, |_| true);
    h.all_changed();
    Ok(())
}
