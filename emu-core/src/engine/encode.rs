//! Micro-ops as the interpreter runs them: 16 bytes each, handler first.
//!
//! A handler ends in a call of the next one, which LLVM makes a jump at opt-level 2 and 3 (docs/design.md, "The engine").
//! That holds while all handlers have one signature and nothing in them has a destructor or an address that escapes, so
//! slow paths are calls through [`Hooks`](super::core::Hooks) that return plain flags. With the feature `loop-dispatch`,
//! and on hosts where nobody has looked at the assembly, the same handlers return to a loop instead.
//!
//! The last result travels in a register argument, so most operations have variants that take an operand from there.
#![allow(unsafe_code)] // the engine is one of the two places of `unsafe`, see docs/design.md

use std::marker::PhantomData;

use super::alu::{AluOp, alu_ops};
use super::core::{Core, JumpEntry, jump_slot};
use super::flags::{FLAGS_KIND, FLAGS_NONE, FLAGS_X, FLAGS_Y, FlagCond, Flags, Size, shift_of};
use super::uop::{BinaryOp, Cond, Operand, SIGN, SINK, UnaryOp, Uop, Width, binary_ops, unary_ops};
use super::uop::{clmul, or_combine, sext32};
use crate::ram::PAGE_MASK;
use crate::tlb::{DATA_ENTRIES, Fast, fold};

/// Whether handlers jump to each other, or return to a loop.
pub(crate) const TAIL: bool =
    cfg!(all(any(target_arch = "x86_64", target_arch = "aarch64"), not(feature = "loop-dispatch")));

/// Why a run of micro-ops ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Exit {
    /// Go on at `core.pc`.
    Next,
    /// Leave behind the instruction of `core.op`, all of which up to that micro-op has been done. `core.last` is the last
    /// result.
    Leave,
    /// The instruction of `core.op` did not complete: `core.stop` says why.
    Stop,
    /// The same, where `core.pc`, `core.note` and the budget are those of the instruction already.
    StopInCall,
    /// The call at `core.op` has been done, and the vCPU is to leave behind its instruction.
    LeaveInCall,
    /// `core.run_end` says how the run ends.
    Ended,
    /// Only where handlers return to a loop: go on at `core.op`.
    Continue,
}

/// # Safety
/// `core` and the stream at `op` are valid, and nothing else refers to them while the handler runs.
pub(crate) type Handler = unsafe fn(core: *mut Core, op: *const Op, budget: i64, last: u64) -> Exit;

/// One micro-op. Exits, wide constants and calls are followed by a second slot.
#[derive(Clone, Copy)]
#[repr(C)]
pub(crate) struct Op {
    pub run: Handler,
    pub imm: i32,
    pub a: u8,
    pub b: u8,
    /// Destination; in exits, how many instructions the block has retired there.
    pub d: u8,
    /// Index of the guest instruction in the block.
    pub insn: u8,
}

/// The second slot of an exit.
#[derive(Clone, Copy)]
#[repr(C)]
pub(crate) struct Link {
    pub target: *const Op,
    pub pc: u64,
}

/// The second slot of a call.
#[derive(Clone, Copy)]
#[repr(C)]
pub(crate) struct CallSite {
    pub pc: u64,
    pub note: u32,
    pub function: u16,
    pub len: u8,
}

/// 16 bytes of a stream.
#[derive(Clone, Copy)]
#[repr(C)]
pub(crate) union Slot {
    pub op: Op,
    pub link: Link,
    pub call: CallSite,
    pub value: u64,
}

const _: () = assert!(size_of::<Op>() == 16 && size_of::<Slot>() == 16);

/// Runs a stream until it exits. `last` is the last result.
///
/// # Safety
/// As for [`Handler`].
pub(crate) unsafe fn run(core: *mut Core, op: *const Op, budget: i64, last: u64) -> Exit {
    // SAFETY: by the caller.
    unsafe {
        let mut exit = ((*op).run)(core, op, budget, last);
        if !TAIL {
            while exit == Exit::Continue {
                let op = (*core).op;
                exit = ((*op).run)(core, op, (*core).budget, (*core).last);
            }
        }
        exit
    }
}

macro_rules! goto {
    ($core:expr, $op:expr, $budget:expr, $last:expr) => {{
        let op: *const Op = $op;
        if TAIL {
            ((*op).run)($core, op, $budget, $last)
        } else {
            (*$core).op = op;
            (*$core).budget = $budget;
            (*$core).last = $last;
            Exit::Continue
        }
    }};
}

mod alu;
mod memory;

pub(crate) use memory::end_of_instruction;

use alu::*;
use memory::*;

#[inline(always)]
unsafe fn get(core: *mut Core, r: u8) -> u64 {
    // SAFETY: the file has 256 registers and is the first field of `Core`.
    unsafe { *core.cast::<u64>().add(r as usize) }
}

#[inline(always)]
unsafe fn set(core: *mut Core, r: u8, value: u64) {
    // SAFETY: as in `get`.
    unsafe { *core.cast::<u64>().add(r as usize) = value }
}

#[inline(always)]
unsafe fn first<const LAST: bool>(core: *mut Core, op: *const Op, last: u64) -> u64 {
    // SAFETY: as for `Handler`.
    unsafe { if LAST { last } else { get(core, (*op).a) } }
}

#[inline(always)]
unsafe fn second<const LAST: bool>(core: *mut Core, op: *const Op, last: u64) -> u64 {
    // SAFETY: as for `Handler`.
    unsafe { if LAST { last } else { get(core, (*op).b) } }
}

trait Alu {
    fn apply(a: u64, b: u64, shift: u32, flags: Flags) -> (u64, Flags);
    const READS_FLAGS: bool;
}
trait OfSize {
    const SIZE: Size;
}
trait Binary {
    fn apply(x: u64, y: u64) -> u64;
}
trait Unary {
    fn apply(x: u64) -> u64;
}
trait Access {
    const WIDTH: Width;
}
trait Condition {
    const COND: Cond;
}

macro_rules! binary_handlers {
    ($($(#[$m:meta])* $name:ident $print:literal |$x:ident, $y:ident| $body:expr;)*) => {
        $(pub(super) struct $name;
        impl Binary for $name {
            #[inline(always)]
            fn apply($x: u64, $y: u64) -> u64 { $body }
        })*
        fn binary_handler(op: BinaryOp, a_last: bool, b: Source) -> Handler {
            match op {
                $(BinaryOp::$name => match (a_last, b) {
                    (false, Source::Reg) => reg_reg::<$name, false, false>,
                    (true, Source::Reg) => reg_reg::<$name, true, false>,
                    (false, Source::Last) => reg_reg::<$name, false, true>,
                    (true, Source::Last) => reg_reg::<$name, true, true>,
                    (false, Source::Imm) => reg_imm::<$name, false>,
                    (true, Source::Imm) => reg_imm::<$name, true>,
                },)*
            }
        }
    };
}
macro_rules! unary_handlers {
    ($($(#[$m:meta])* $name:ident $print:literal |$x:ident| $body:expr;)*) => {
        $(struct $name;
        impl Unary for $name {
            #[inline(always)]
            fn apply($x: u64) -> u64 { $body }
        })*
        fn unary_handler(op: UnaryOp, a_last: bool) -> Handler {
            match (op, a_last) {
                $((UnaryOp::$name, false) => reg::<$name, false>,
                (UnaryOp::$name, true) => reg::<$name, true>,)*
            }
        }
    };
}

/// Where the second operand of a handler comes from.
#[derive(Clone, Copy)]
enum Source {
    Reg,
    Last,
    Imm,
}

mod names {
    #![allow(clippy::wildcard_imports, reason = "the operations' names are types here, in a module of their own")]
    use super::*;
    binary_ops!(binary_handlers);
    unary_ops!(unary_handlers);
    pub(super) fn binary(op: BinaryOp, a_last: bool, b: Source) -> Handler {
        binary_handler(op, a_last, b)
    }
    pub(super) fn unary(op: UnaryOp, a_last: bool) -> Handler {
        unary_handler(op, a_last)
    }
}

unsafe fn reg_reg<F: Binary, const A: bool, const B: bool>(
    core: *mut Core,
    op: *const Op,
    budget: i64,
    last: u64,
) -> Exit {
    // SAFETY: as for `Handler`; the stream goes on behind `op`.
    unsafe {
        let result = F::apply(first::<A>(core, op, last), second::<B>(core, op, last));
        set(core, (*op).d, result);
        goto!(core, op.add(1), budget, result)
    }
}

unsafe fn reg_imm<F: Binary, const A: bool>(core: *mut Core, op: *const Op, budget: i64, last: u64) -> Exit {
    // SAFETY: as in `reg_reg`.
    unsafe {
        let result = F::apply(first::<A>(core, op, last), (*op).imm as i64 as u64);
        set(core, (*op).d, result);
        goto!(core, op.add(1), budget, result)
    }
}

unsafe fn reg<F: Unary, const A: bool>(core: *mut Core, op: *const Op, budget: i64, last: u64) -> Exit {
    // SAFETY: as in `reg_reg`.
    unsafe {
        let result = F::apply(first::<A>(core, op, last));
        set(core, (*op).d, result);
        goto!(core, op.add(1), budget, result)
    }
}

unsafe fn constant(core: *mut Core, op: *const Op, budget: i64, _last: u64) -> Exit {
    // SAFETY: as in `reg_reg`.
    unsafe {
        let result = (*op).imm as i64 as u64;
        set(core, (*op).d, result);
        goto!(core, op.add(1), budget, result)
    }
}

unsafe fn wide_constant(core: *mut Core, op: *const Op, budget: i64, _last: u64) -> Exit {
    // SAFETY: as in `reg_reg`; a wide constant has a second slot.
    unsafe {
        let result = (*op.add(1).cast::<Slot>()).value;
        set(core, (*op).d, result);
        goto!(core, op.add(2), budget, result)
    }
}

/// How an exit leaves.
const UNLINKED: u8 = 0;
const LINKED: u8 = 1;
const FAR: u8 = 2;

/// Leaves along the link in the slot behind `op`.
#[inline(always)]
unsafe fn leave<const HOW: u8>(core: *mut Core, op: *const Op, budget: i64, linked: Handler) -> Exit {
    // SAFETY: as in `reg_reg`; an exit has a second slot. A linked target is the start of a stream of the same page,
    // which lives as long as this one.
    unsafe {
        let link = op.add(1).cast::<Link>();
        let budget = budget - i64::from((*op).d);
        match HOW {
            LINKED => {
                if budget >= 0 {
                    return goto!(core, (*link).target, budget, 0);
                }
            }
            FAR => return find_next(core, (*link).pc, budget),
            _ => {
                (*core).unlinked = op.cast_mut();
                (*core).linked = linked;
            }
        }
        next(core, (*link).pc, budget)
    }
}

/// Leaves by the branch at `exit`, for a handler that stands before it and is not patched when it is linked.
#[inline(always)]
unsafe fn leave_by<const FAR_AWAY: bool>(core: *mut Core, exit: *const Op, budget: i64, linked: Handler) -> Exit {
    // SAFETY: as in `leave`.
    unsafe {
        if FAR_AWAY {
            leave::<FAR>(core, exit, budget, linked)
        } else if (*exit.add(1).cast::<Link>()).target.is_null() {
            leave::<UNLINKED>(core, exit, budget, linked)
        } else {
            leave::<LINKED>(core, exit, budget, linked)
        }
    }
}

#[inline(always)]
unsafe fn next(core: *mut Core, pc: u64, budget: i64) -> Exit {
    // SAFETY: as for `Handler`.
    unsafe {
        (*core).pc = pc;
        (*core).budget = budget;
        Exit::Next
    }
}

/// Goes on at `pc` if the jump cache knows it.
#[inline(always)]
unsafe fn find_next(core: *mut Core, pc: u64, budget: i64) -> Exit {
    // SAFETY: as for `Handler`; `jumps` points to the whole jump cache, and an entry whose key is the present one leads
    // to a live stream.
    unsafe {
        let entry: *const JumpEntry = (*core).jumps.add(jump_slot(pc, (*core).fetch_mix));
        if (*entry).pc == pc && (*entry).key == (*core).fetch_key && budget >= 0 {
            return goto!(core, (*entry).ops, budget, 0);
        }
        next(core, pc, budget)
    }
}

/// Goes on at `pc`, where an instruction has led that may have changed anything.
#[inline(always)]
unsafe fn go_on(core: *mut Core, pc: u64, budget: i64) -> Exit {
    // SAFETY: as in `find_next`.
    unsafe {
        if (*core).has_changed() {
            return next(core, pc, budget);
        }
        find_next(core, pc, budget)
    }
}

/// The instruction of `core.op` did not complete: goes on where its trap leads.
#[cold]
#[inline(never)]
unsafe fn stopped(core: *mut Core, exit: Exit) -> Exit {
    // SAFETY: as for `Handler`.
    unsafe {
        let exit = ((*core).hooks.stopped)(core, exit);
        if exit != Exit::Next {
            return exit;
        }
        go_on(core, (*core).pc, (*core).budget)
    }
}

unsafe fn branch<C: Condition, const A: bool, const B: bool, const HOW: u8>(
    core: *mut Core,
    op: *const Op,
    budget: i64,
    last: u64,
) -> Exit {
    // SAFETY: as in `leave`.
    unsafe {
        if C::COND.holds(first::<A>(core, op, last), second::<B>(core, op, last)) {
            return leave::<HOW>(core, op, budget, branch::<C, A, B, LINKED>);
        }
        goto!(core, op.add(2), budget, last)
    }
}

/// An operation with an immediate, and the branch behind it that compares its result: the end of many a loop.
unsafe fn reg_imm_branch<F: Binary, C: Condition, const A: bool, const FAR_AWAY: bool>(
    core: *mut Core,
    op: *const Op,
    budget: i64,
    last: u64,
) -> Exit {
    // SAFETY: as in `leave`; a branch stands behind `op`.
    unsafe {
        let result = F::apply(first::<A>(core, op, last), (*op).imm as i64 as u64);
        set(core, (*op).d, result);
        let exit = op.add(1);
        if !C::COND.holds(result, get(core, (*exit).b)) {
            return goto!(core, exit.add(2), budget, result);
        }
        leave_by::<FAR_AWAY>(core, exit, budget, branch::<C, true, false, LINKED>)
    }
}

unsafe fn jump<const HOW: u8>(core: *mut Core, op: *const Op, budget: i64, _last: u64) -> Exit {
    // SAFETY: as in `leave`.
    unsafe { leave::<HOW>(core, op, budget, jump::<LINKED>) }
}

unsafe fn jump_reg<const A: bool>(core: *mut Core, op: *const Op, budget: i64, last: u64) -> Exit {
    // SAFETY: as in `find_next`.
    unsafe {
        let target = first::<A>(core, op, last).wrapping_add((*op).imm as i64 as u64) & !u64::from((*op).b);
        let entry: *const JumpEntry = (*core).jumps.add(jump_slot(target, (*core).fetch_mix));
        let left = budget - i64::from((*op).d);
        if (*entry).pc == target && (*entry).key == (*core).fetch_key && left >= 0 {
            return goto!(core, (*entry).ops, left, 0);
        }
        // Only where the jump cache does not know the way is there time to ask.
        if !((*core).hooks.may_jump)(core, target) {
            (*core).budget = budget;
            (*core).op = op;
            return stopped(core, Exit::Stop);
        }
        next(core, target, left)
    }
}

unsafe fn call<const ENDS: bool>(core: *mut Core, op: *const Op, budget: i64, _last: u64) -> Exit {
    // SAFETY: as in `reg_reg`; a call has a second slot.
    unsafe {
        let site = op.add(1).cast::<CallSite>();
        (*core).budget = budget;
        (*core).op = op;
        (*core).pc = (*site).pc;
        (*core).next_pc = (*site).pc.wrapping_add(u64::from((*site).len));
        if !((*core).hooks.call)(core, (*site).function, (*op).imm as u32) {
            (*core).note = (*site).note;
            (*core).budget = budget - i64::from((*op).insn);
            return stopped(core, Exit::StopInCall);
        }
        if ENDS {
            return go_on(core, (*core).next_pc, budget - i64::from((*op).insn) - 1);
        }
        if (*core).leave {
            (*core).last = 0;
            return Exit::LeaveInCall;
        }
        goto!(core, op.add(2), budget, 0)
    }
}

struct Of<T>(PhantomData<T>);

macro_rules! widths {
    ($($name:ident)*) => {
        mod width {
            $(pub(super) struct $name;
            impl super::Access for $name { const WIDTH: super::Width = super::Width::$name; })*
        }
        fn load_handler(w: Width, a_last: bool) -> Handler {
            match w { $(Width::$name => if a_last { load::<width::$name, true> } else { load::<width::$name, false> },)* }
        }
        fn load_indexed_handler(w: Width, scale: u8) -> Handler {
            match w { $(Width::$name => match scale {
                0 => load_indexed::<width::$name, 0>,
                1 => load_indexed::<width::$name, 1>,
                2 => load_indexed::<width::$name, 2>,
                _ => load_indexed::<width::$name, 3>,
            },)* }
        }
        fn store_indexed_handler(w: Width, scale: u8) -> Handler {
            match w { $(Width::$name => match scale {
                0 => store_indexed::<width::$name, 0>,
                1 => store_indexed::<width::$name, 1>,
                2 => store_indexed::<width::$name, 2>,
                _ => store_indexed::<width::$name, 3>,
            },)* }
        }
        fn load_to_update_handler(w: Width) -> Handler {
            match w { $(Width::$name => load_to_update::<width::$name>,)* }
        }
        fn store_back_handler(w: Width, a_last: bool) -> Handler {
            match w {
                $(Width::$name if a_last => store_back::<width::$name, true>,
                Width::$name => store_back::<width::$name, false>,)*
            }
        }
        fn load_past_handler(w: Width, a_last: bool) -> Handler {
            match w {
                $(Width::$name if a_last => load_past::<width::$name, true>,
                Width::$name => load_past::<width::$name, false>,)*
            }
        }
        fn store_handler(w: Width, a_last: bool, b_last: bool) -> Handler {
            match w {
                $(Width::$name => match (a_last, b_last) {
                    (false, false) => store::<width::$name, false, false>,
                    (true, false) => store::<width::$name, true, false>,
                    (false, true) => store::<width::$name, false, true>,
                    (true, true) => store::<width::$name, true, true>,
                },)*
            }
        }
    };
}
widths!(U8 U16 U32 U64 I8 I16 I32 Box32 Box16);

macro_rules! conditions {
    ($($name:ident)*) => {
        mod cond {
            $(pub(super) struct $name;
            impl super::Condition for $name { const COND: super::Cond = super::Cond::$name; })*
        }
        fn branch_handler(c: Cond, a_last: bool, b_last: bool, far: bool) -> Handler {
            match c { $(Cond::$name => Of::<cond::$name>::branch(a_last, b_last, far),)* }
        }
        fn compare_handler<F: Alu, S: OfSize, const WRITES: bool>(
            c: Cond,
            immediate: bool,
            with: u8,
            far: bool,
        ) -> Option<Handler> {
            Some(match c { $(Cond::$name => compare_of::<F, S, cond::$name, WRITES>(immediate, with, far),)* })
        }
        fn update_handler<F: Alu, S: OfSize>(c: Cond, immediate: bool, with: u8, far: bool) -> Option<Handler> {
            if with != X_WITH_NONE {
                return None;
            }
            Some(match c { $(Cond::$name => result_of::<F, S, cond::$name>(immediate, far),)* })
        }
        fn fused_branch_handler(op: BinaryOp, c: Cond, a_last: bool, far: bool) -> Option<Handler> {
            match c { $(Cond::$name => Of::<cond::$name>::fused(op, a_last, far),)* }
        }
    };
}
impl<C: Condition> Of<C> {
    fn fused(op: BinaryOp, a_last: bool, far: bool) -> Option<Handler> {
        Some(match (op, a_last, far) {
            (BinaryOp::Add, false, false) => reg_imm_branch::<names::Add, C, false, false>,
            (BinaryOp::Add, true, false) => reg_imm_branch::<names::Add, C, true, false>,
            (BinaryOp::Add, false, true) => reg_imm_branch::<names::Add, C, false, true>,
            (BinaryOp::Add, true, true) => reg_imm_branch::<names::Add, C, true, true>,
            (BinaryOp::And, false, false) => reg_imm_branch::<names::And, C, false, false>,
            (BinaryOp::And, true, false) => reg_imm_branch::<names::And, C, true, false>,
            (BinaryOp::And, false, true) => reg_imm_branch::<names::And, C, false, true>,
            (BinaryOp::And, true, true) => reg_imm_branch::<names::And, C, true, true>,
            _ => return None,
        })
    }

    fn branch(a_last: bool, b_last: bool, far: bool) -> Handler {
        match (a_last, b_last, far) {
            (false, false, false) => branch::<C, false, false, UNLINKED>,
            (true, false, false) => branch::<C, true, false, UNLINKED>,
            (false, true, false) => branch::<C, false, true, UNLINKED>,
            (true, true, false) => branch::<C, true, true, UNLINKED>,
            (false, false, true) => branch::<C, false, false, FAR>,
            (true, false, true) => branch::<C, true, false, FAR>,
            (false, true, true) => branch::<C, false, true, FAR>,
            (true, true, true) => branch::<C, true, true, FAR>,
        }
    }
}
conditions!(Eq Ne Lt Ge Ltu Geu);

/// A lifted block, ready to be encoded: micro-ops with the index of their instruction.
#[derive(Clone, Debug, Default)]
pub struct Lifted {
    /// Virtual address of each instruction, then that of the first one behind the block.
    pub starts: Vec<u64>,
    /// What the instruction set noted of each instruction.
    pub notes: Vec<u32>,
    /// Micro-ops, each with the index of its instruction.
    pub uops: Vec<(u8, Uop)>,
}

impl Lifted {
    /// Instructions in the block.
    pub fn len(&self) -> usize {
        self.starts.len() - 1
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// For each micro-op, whether anybody may see the flags that it leaves: they are dead where others follow before an exit, a
/// reader, or an instruction that may stop.
fn wanted_flags(uops: &[(u8, Uop)]) -> Vec<bool> {
    let is_flag = |r: u8| r == FLAGS_X || r == FLAGS_Y;
    let mut wanted = vec![true; uops.len()];
    let mut asked = true;
    for (i, (insn, uop)) in uops.iter().enumerate().rev() {
        if uops.get(i + 1).is_none_or(|(next, _)| next != insn) {
            // Behind an instruction that accesses memory or calls, somebody else may go on.
            let own = uops[..=i].iter().rev().take_while(|(n, _)| n == insn);
            asked |= own.into_iter().any(|(_, u)| u.may_leave());
        }
        wanted[i] = asked;
        asked = match *uop {
            Uop::Alu { op, .. } => op.computes_with_flags() || op.reads_flags() && asked,
            Uop::SetFlags { .. } => false,
            Uop::Const { .. } | Uop::Unary { .. } | Uop::MoveIf { .. } => asked,
            Uop::Binary { a, b, .. } => asked || is_flag(a) || matches!(b, Operand::Reg(b) if is_flag(b)),
            _ => true,
        };
    }
    wanted
}

/// Set in the place where an instruction's slots begin: it is a branch, which the micro-op before it does as well.
pub(crate) const FUSED: u16 = 1 << 15;

/// Appends the stream of a block that starts at `starts[0]` to `out`. An exit to the block's own page can be linked, if
/// `linkable`. Returns where each instruction's slots begin, counted from the block's first, and where they end.
pub(crate) fn encode(block: &Lifted, linkable: bool, out: &mut Vec<Slot>) -> Vec<u16> {
    let begins = out.len();
    let mut slots = Vec::with_capacity(block.len() + 1);
    let page = block.starts[0] & !PAGE_MASK;
    let wanted = wanted_flags(&block.uops);
    let mut last: Option<u8> = None;
    let mut fused_ends = Vec::new();
    for (i, &(insn, uop)) in block.uops.iter().enumerate() {
        let is_last = |r: u8| last == Some(r);
        slots.resize((usize::from(insn) + 1).max(slots.len()), (out.len() - begins) as u16);
        let op = |run: Handler, imm: i32, a: u8, b: u8, d: u8| Slot { op: Op { run, imm, a, b, d, insn } };
        let far = |target: u64| !linkable || target & !PAGE_MASK != page;
        let link = |pc: u64| Slot { link: Link { target: std::ptr::null(), pc } };
        let mut result = None;
        match uop {
            Uop::Const { d, value } => {
                result = Some(d);
                match i32::try_from(value as i64) {
                    Ok(imm) => out.push(op(constant, imm, 0, 0, d)),
                    Err(_) => out.extend([op(wide_constant, 0, 0, 0, d), Slot { value }]),
                }
            }
            Uop::Unary { op: f, d, a } => {
                result = Some(d);
                out.push(op(names::unary(f, is_last(a)), 0, a, 0, d));
            }
            Uop::Binary { op: f, d, a, b } => {
                result = Some(d);
                out.push(match b {
                    Operand::Imm(imm) => {
                        // Only the first slot's handler differs: the branch behind it stands as it is.
                        let fused = match block.uops.get(i + 1) {
                            Some(&(_, Uop::Branch { cond, a: x, target, .. })) if x == d => {
                                fused_branch_handler(f, cond, is_last(a), far(target))
                            }
                            _ => None,
                        };
                        fused_ends.extend(fused.map(|_| insn));
                        op(fused.unwrap_or_else(|| names::binary(f, is_last(a), Source::Imm)), imm, a, 0, d)
                    }
                    Operand::Reg(b) => {
                        let source = if is_last(b) { Source::Last } else { Source::Reg };
                        op(names::binary(f, is_last(a), source), 0, a, b, d)
                    }
                });
            }
            Uop::Alu { op: f, size, d, a, b } => {
                result = Some(d);
                let (imm, b, immediate) = match b {
                    Operand::Imm(imm) => (imm, 0, true),
                    Operand::Reg(b) => (0, b, false),
                };
                let fused = match block.uops.get(i + 1) {
                    Some(&(_, Uop::Branch { cond, a: x, b: y, target })) => {
                        alu_branch_handler(f, size, d != SINK, immediate, cond, (x, y), far(target))
                    }
                    _ => None,
                };
                fused_ends.extend(fused.map(|_| insn));
                let form = match immediate {
                    true if is_last(a) => Form::ImmediateFirstLast,
                    true => Form::Immediate,
                    false if is_last(a) => Form::FirstLast,
                    false if is_last(b) => Form::SecondLast,
                    false => Form::Registers,
                };
                out.push(op(fused.unwrap_or_else(|| alu_handler(f, size, form, wanted[i])), imm, a, b, d));
            }
            Uop::SetIf { cond, negate, d } => {
                result = Some(d);
                out.push(op(set_if, 0, negate.into(), cond as u8, d));
            }
            Uop::BranchIf { cond, negate, target } => {
                let run: Handler = if far(target) { branch_if::<FAR> } else { branch_if::<UNLINKED> };
                out.push(op(run, 0, negate.into(), cond as u8, insn + 1));
                out.push(link(target));
            }
            Uop::GetFlags { d } => {
                result = Some(d);
                out.push(op(get_flags, 0, 0, 0, d));
            }
            Uop::SetFlags { a } => out.push(op(put_flags, 0, a, 0, 0)),
            Uop::MoveIf { d, a, test } => {
                result = Some(d);
                out.push(op(move_if, 0, a, test, d));
            }
            Uop::LoadIndexed { width, d, a, b, scale, offset } => {
                result = Some(d);
                out.push(op(load_indexed_handler(width, scale), offset, a, b, d));
            }
            Uop::StoreIndexed { width, a, b, scale, value, offset } => {
                out.push(op(store_indexed_handler(width, scale), offset, a, b, value));
            }
            Uop::LoadToUpdate { width, d, a, offset } => {
                result = Some(d);
                out.push(op(load_to_update_handler(width), offset, a, 0, d));
            }
            Uop::StoreBack { width, a, b, offset } => {
                result = Some(a);
                out.push(op(store_back_handler(width, is_last(a)), offset, a, b, 0));
            }
            Uop::LoadPast { width, d, a, step } => {
                result = Some(a);
                out.push(op(load_past_handler(width, is_last(a)), step, a, 0, d));
            }
            Uop::Load { width, d, a, offset } => {
                result = Some(d);
                out.push(op(load_handler(width, is_last(a)), offset, a, 0, d));
            }
            Uop::Store { width, a, b, offset } => {
                out.push(op(store_handler(width, is_last(a), is_last(b)), offset, a, b, 0));
            }
            Uop::Branch { cond, a, b, target } => {
                out.push(op(branch_handler(cond, is_last(a), is_last(b), far(target)), 0, a, b, insn + 1));
                out.push(link(target));
            }
            Uop::Goto { target } => {
                let run: Handler = if far(target) { jump::<FAR> } else { jump::<UNLINKED> };
                out.extend([op(run, 0, 0, 0, block.len() as u8), link(target)]);
            }
            Uop::GotoReg { a, offset, clear } => {
                let run: Handler = if is_last(a) { jump_reg::<true> } else { jump_reg::<false> };
                out.push(op(run, offset, a, clear, insn + 1));
            }
            Uop::Call { function, operand, ends } => {
                let run: Handler = if ends { call::<true> } else { call::<false> };
                let pc = block.starts[insn as usize];
                let len = (block.starts[insn as usize + 1] - pc) as u8;
                let note = block.notes[insn as usize];
                out.extend([op(run, operand as i32, 0, 0, 0), Slot { call: CallSite { pc, note, function, len } }]);
            }
        }
        last = match uop {
            Uop::Store { .. } | Uop::Branch { .. } | Uop::BranchIf { .. } => last,
            _ => result.filter(|d| *d != SINK),
        };
    }
    slots.resize(block.len() + 1, (out.len() - begins) as u16);
    for insn in fused_ends {
        // A branch of the same instruction stands before the next one's slots.
        let is_last =
            block.uops.iter().rfind(|(i, _)| *i == insn).is_some_and(|(_, u)| !matches!(u, Uop::Branch { .. }));
        slots[usize::from(insn) + 1] |= if is_last { FUSED } else { 0 };
    }
    slots
}
