//! Operations in a size, with lazy flags, and what asks for the flags.
#![allow(unsafe_code)] // the engine is one of the two places of `unsafe`, see docs/design.md

use super::*;

macro_rules! alu_handlers {
    ($($(#[$m:meta])* $name:ident $print:literal |$a:ident, $b:ident, $shift:ident, $flags:ident| $body:expr;)*) => {
        pub(super) mod op {
            use crate::engine::alu::*;
            use crate::engine::flags::*;
            $(pub(in crate::engine::encode) struct $name;
            impl super::Alu for $name {
                #[inline(always)]
                fn apply($a: u64, $b: u64, $shift: u32, $flags: Flags) -> (u64, Flags) { $body }
                const READS_FLAGS: bool = AluOp::$name.reads_flags();
            })*
        }
        pub(super) fn alu_handler(op: AluOp, size: Size, form: Form, flags: bool) -> Handler {
            match op { $(AluOp::$name => of_size::<op::$name>(size, form, flags),)* }
        }
    };
}
alu_ops!(alu_handlers);

pub(super) mod size {
    pub(in crate::engine::encode) struct Bits8;
    pub(in crate::engine::encode) struct Bits16;
    pub(in crate::engine::encode) struct Bits32;
    pub(in crate::engine::encode) struct Bits64;
}
impl OfSize for size::Bits8 {
    const SIZE: Size = Size::Bits8;
}
impl OfSize for size::Bits16 {
    const SIZE: Size = Size::Bits16;
}
impl OfSize for size::Bits32 {
    const SIZE: Size = Size::Bits32;
}
impl OfSize for size::Bits64 {
    const SIZE: Size = Size::Bits64;
}

/// Where the operands of an operation come from. Narrow ones do not come from the last result.
#[derive(Clone, Copy)]
pub(super) enum Form {
    Registers,
    FirstLast,
    SecondLast,
    Immediate,
    ImmediateFirstLast,
}

pub(super) fn of_size<F: Alu>(size: Size, form: Form, flags: bool) -> Handler {
    match size {
        Size::Bits8 => narrow::<F, size::Bits8>(form, flags),
        Size::Bits16 => narrow::<F, size::Bits16>(form, flags),
        Size::Bits32 => wide::<F, size::Bits32>(form, flags),
        Size::Bits64 => wide::<F, size::Bits64>(form, flags),
    }
}

pub(super) fn narrow<F: Alu, S: OfSize>(form: Form, flags: bool) -> Handler {
    match (form, flags) {
        (Form::Immediate | Form::ImmediateFirstLast, false) => alu::<F, S, true, false, false, false>,
        (Form::Immediate | Form::ImmediateFirstLast, true) => alu::<F, S, true, false, false, true>,
        (_, false) => alu::<F, S, false, false, false, false>,
        (_, true) => alu::<F, S, false, false, false, true>,
    }
}

pub(super) fn wide<F: Alu, S: OfSize>(form: Form, flags: bool) -> Handler {
    match (form, flags) {
        (Form::Registers, false) => alu::<F, S, false, false, false, false>,
        (Form::Registers, true) => alu::<F, S, false, false, false, true>,
        (Form::FirstLast, false) => alu::<F, S, false, true, false, false>,
        (Form::FirstLast, true) => alu::<F, S, false, true, false, true>,
        (Form::SecondLast, false) => alu::<F, S, false, false, true, false>,
        (Form::SecondLast, true) => alu::<F, S, false, false, true, true>,
        (Form::Immediate, false) => alu::<F, S, true, false, false, false>,
        (Form::Immediate, true) => alu::<F, S, true, false, false, true>,
        (Form::ImmediateFirstLast, false) => alu::<F, S, true, true, false, false>,
        (Form::ImmediateFirstLast, true) => alu::<F, S, true, true, false, true>,
    }
}

#[inline(always)]
pub(super) unsafe fn flags(core: *mut Core) -> Flags {
    // SAFETY: as in `get`.
    unsafe { Flags { kind: get(core, FLAGS_KIND), x: get(core, FLAGS_X), y: get(core, FLAGS_Y) } }
}

#[inline(always)]
pub(super) unsafe fn set_flags(core: *mut Core, flags: Flags) {
    // SAFETY: as in `get`.
    unsafe {
        set(core, FLAGS_KIND, flags.kind);
        set(core, FLAGS_X, flags.x);
        set(core, FLAGS_Y, flags.y);
    }
}

/// An operation in a size. Flags are left only if somebody may ask for them.
pub(super) unsafe fn alu<F: Alu, S: OfSize, const IMM: bool, const A: bool, const B: bool, const FLAGS: bool>(
    core: *mut Core,
    op: *const Op,
    budget: i64,
    last: u64,
) -> Exit {
    // SAFETY: as in `reg_reg`.
    unsafe {
        let shift = shift_of(S::SIZE.bytes());
        let a = first::<A>(core, op, last) << shift;
        let b = if IMM { (*op).imm as i64 as u64 } else { second::<B>(core, op, last) } << shift;
        let before = if F::READS_FLAGS { flags(core) } else { Flags { kind: 0, x: 0, y: 0 } };
        let (result, after) = F::apply(a, b, shift, before);
        let result = S::SIZE.merge(get(core, (*op).d), result >> shift);
        set(core, (*op).d, result);
        if FLAGS {
            set_flags(core, after);
        }
        goto!(core, op.add(1), budget, result)
    }
}

/// An operation, and the branch behind it that asks for its flags. CMP and TEST write no register.
pub(super) unsafe fn alu_branch<
    F: Alu,
    S: OfSize,
    C: Condition,
    const WRITES: bool,
    const IMM: bool,
    const WITH: u8,
    const FAR_AWAY: bool,
>(
    core: *mut Core,
    op: *const Op,
    budget: i64,
    last: u64,
) -> Exit {
    // SAFETY: as in `reg_imm_branch`.
    unsafe {
        let shift = shift_of(S::SIZE.bytes());
        let a = get(core, (*op).a) << shift;
        let b = if IMM { (*op).imm as i64 as u64 } else { get(core, (*op).b) } << shift;
        let before = if F::READS_FLAGS { flags(core) } else { Flags { kind: 0, x: 0, y: 0 } };
        let (result, after) = F::apply(a, b, shift, before);
        let last = if WRITES { S::SIZE.merge(get(core, (*op).d), result >> shift) } else { last };
        if WRITES {
            set(core, (*op).d, last);
        }
        set_flags(core, after);
        let exit = op.add(1);
        let holds = match WITH {
            X_WITH_Y => C::COND.holds(after.x, after.y),
            Y_WITH_X => C::COND.holds(after.y, after.x),
            _ => C::COND.holds(after.x, 0),
        };
        if !holds {
            return goto!(core, exit.add(2), budget, last);
        }
        leave_by::<FAR_AWAY>(core, exit, budget, branch::<C, false, false, LINKED>)
    }
}

/// What the condition behind CMP or TEST compares.
pub(super) const X_WITH_Y: u8 = 0;
pub(super) const Y_WITH_X: u8 = 1;
pub(super) const X_WITH_NONE: u8 = 2;

/// The handler of an operation with a branch behind it, if there is one.
pub(super) fn alu_branch_handler(
    op: AluOp,
    size: Size,
    writes: bool,
    immediate: bool,
    cond: Cond,
    (x, y): (u8, u8),
    far: bool,
) -> Option<Handler> {
    let with = match (x, y) {
        (FLAGS_X, FLAGS_Y) => X_WITH_Y,
        (FLAGS_Y, FLAGS_X) => Y_WITH_X,
        (FLAGS_X, FLAGS_NONE) => X_WITH_NONE,
        _ => return None,
    };
    if writes {
        return match (op, size) {
            (AluOp::Add, Size::Bits32) => update_handler::<op::Add, size::Bits32>(cond, immediate, with, far),
            (AluOp::Add, Size::Bits64) => update_handler::<op::Add, size::Bits64>(cond, immediate, with, far),
            (AluOp::Sub, Size::Bits32) => compare_handler::<op::Sub, size::Bits32, true>(cond, immediate, with, far),
            (AluOp::Sub, Size::Bits64) => compare_handler::<op::Sub, size::Bits64, true>(cond, immediate, with, far),
            (AluOp::And, Size::Bits32) => update_handler::<op::And, size::Bits32>(cond, immediate, with, far),
            (AluOp::And, Size::Bits64) => update_handler::<op::And, size::Bits64>(cond, immediate, with, far),
            (AluOp::Inc, Size::Bits32) => update_handler::<op::Inc, size::Bits32>(cond, immediate, with, far),
            (AluOp::Inc, Size::Bits64) => update_handler::<op::Inc, size::Bits64>(cond, immediate, with, far),
            (AluOp::Dec, Size::Bits32) => update_handler::<op::Dec, size::Bits32>(cond, immediate, with, far),
            (AluOp::Dec, Size::Bits64) => update_handler::<op::Dec, size::Bits64>(cond, immediate, with, far),
            _ => None,
        };
    }
    match (op, size) {
        (AluOp::Sub, Size::Bits32) => compare_handler::<op::Sub, size::Bits32, false>(cond, immediate, with, far),
        (AluOp::Sub, Size::Bits64) => compare_handler::<op::Sub, size::Bits64, false>(cond, immediate, with, far),
        (AluOp::And, Size::Bits8) => compare_handler::<op::And, size::Bits8, false>(cond, immediate, with, far),
        (AluOp::And, Size::Bits32) => compare_handler::<op::And, size::Bits32, false>(cond, immediate, with, far),
        (AluOp::And, Size::Bits64) => compare_handler::<op::And, size::Bits64, false>(cond, immediate, with, far),
        (AluOp::Sub, Size::Bits8) => compare_handler::<op::Sub, size::Bits8, false>(cond, immediate, with, far),
        _ => None,
    }
}

pub(super) fn compare_of<F: Alu, S: OfSize, C: Condition, const W: bool>(
    immediate: bool,
    with: u8,
    far: bool,
) -> Handler {
    match (immediate, with, far) {
        (false, X_WITH_Y, false) => alu_branch::<F, S, C, W, false, X_WITH_Y, false>,
        (false, X_WITH_Y, true) => alu_branch::<F, S, C, W, false, X_WITH_Y, true>,
        (false, Y_WITH_X, false) => alu_branch::<F, S, C, W, false, Y_WITH_X, false>,
        (false, Y_WITH_X, true) => alu_branch::<F, S, C, W, false, Y_WITH_X, true>,
        (false, _, false) => alu_branch::<F, S, C, W, false, X_WITH_NONE, false>,
        (false, _, true) => alu_branch::<F, S, C, W, false, X_WITH_NONE, true>,
        (true, X_WITH_Y, false) => alu_branch::<F, S, C, W, true, X_WITH_Y, false>,
        (true, X_WITH_Y, true) => alu_branch::<F, S, C, W, true, X_WITH_Y, true>,
        (true, Y_WITH_X, false) => alu_branch::<F, S, C, W, true, Y_WITH_X, false>,
        (true, Y_WITH_X, true) => alu_branch::<F, S, C, W, true, Y_WITH_X, true>,
        (true, _, false) => alu_branch::<F, S, C, W, true, X_WITH_NONE, false>,
        (true, _, true) => alu_branch::<F, S, C, W, true, X_WITH_NONE, true>,
    }
}

/// Of the result alone: the comparisons that there are between two values are those of CMP.
pub(super) fn result_of<F: Alu, S: OfSize, C: Condition>(immediate: bool, far: bool) -> Handler {
    match (immediate, far) {
        (false, false) => alu_branch::<F, S, C, true, false, X_WITH_NONE, false>,
        (false, true) => alu_branch::<F, S, C, true, false, X_WITH_NONE, true>,
        (true, false) => alu_branch::<F, S, C, true, true, X_WITH_NONE, false>,
        (true, true) => alu_branch::<F, S, C, true, true, X_WITH_NONE, true>,
    }
}

/// The condition in `b`, inverted if `a` is not 0.
#[inline(always)]
pub(super) unsafe fn asked(core: *mut Core, op: *const Op) -> bool {
    // SAFETY: as in `reg_reg`.
    unsafe { flags(core).holds(FlagCond::ALL[usize::from((*op).b & 7)]) != ((*op).a != 0) }
}

pub(super) unsafe fn set_if(core: *mut Core, op: *const Op, budget: i64, _last: u64) -> Exit {
    // SAFETY: as in `reg_reg`.
    unsafe {
        let result = u64::from(asked(core, op));
        set(core, (*op).d, result);
        goto!(core, op.add(1), budget, result)
    }
}

pub(super) unsafe fn branch_if<const HOW: u8>(core: *mut Core, op: *const Op, budget: i64, last: u64) -> Exit {
    // SAFETY: as in `leave`.
    unsafe {
        if asked(core, op) {
            return leave::<HOW>(core, op, budget, branch_if::<LINKED>);
        }
        goto!(core, op.add(2), budget, last)
    }
}

pub(super) unsafe fn get_flags(core: *mut Core, op: *const Op, budget: i64, _last: u64) -> Exit {
    // SAFETY: as in `reg_reg`.
    unsafe {
        let result = flags(core).all();
        set(core, (*op).d, result);
        goto!(core, op.add(1), budget, result)
    }
}

pub(super) unsafe fn put_flags(core: *mut Core, op: *const Op, budget: i64, last: u64) -> Exit {
    // SAFETY: as in `reg_reg`.
    unsafe {
        set_flags(core, Flags::eager(get(core, (*op).a)));
        goto!(core, op.add(1), budget, last)
    }
}

pub(super) unsafe fn move_if(core: *mut Core, op: *const Op, budget: i64, _last: u64) -> Exit {
    // SAFETY: as in `reg_reg`.
    unsafe {
        let result = get(core, if get(core, (*op).b) != 0 { (*op).a } else { (*op).d });
        set(core, (*op).d, result);
        goto!(core, op.add(1), budget, result)
    }
}
