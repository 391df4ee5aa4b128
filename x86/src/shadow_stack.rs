//! "Shadow Stacks" (SDM vol. 1; APM vol. 2): accesses, near and far transfers of control.
//!
//! A far transfer asks here last, when all else has been asked: what has been written to shadow stacks by then stays only if the transfer is
//! made. SSP and IA32_PL3_SSP change when nothing can fail any more ([`Entered::commit`], or by the caller). Task switches are as the
//! manual's order has them: what fails late is the new task's fault.

use emu_core::engine::flags::Size;
use emu_core::engine::{Intent, Step, Stop};

use crate::cet::ControlProtection;
use crate::control::user_cet;
use crate::exception::Exception;
use crate::ibt;
use crate::isa::Lifting;
use crate::processor::{AS_SUPERVISOR_SHADOW, AS_USER_SHADOW, NON_CANONICAL, P, ProcessorExt};
use crate::registers::{SSP, temp};
use crate::task::Switch;

/// Function number of the calls of this module.
pub(crate) const FUNCTION: u16 = 0x184;
/// In a call's operand: a return, not a call. Bits 7 to 0 have the operand size in bytes.
const RETURN: u32 = 1 << 8;

/// Busy bit of a supervisor shadow stack token.
const BUSY: u64 = 1;

/// Lifts the push of the return address in [`temp::FIRST`].
pub(crate) fn lift_push(l: &mut Lifting, size: Size) {
    l.lift.call(FUNCTION, size.bytes().into());
}

/// Lifts the pop of a return address, which is to be that in [`temp::TARGET`].
pub(crate) fn lift_pop(l: &mut Lifting, size: Size) {
    l.lift.call(FUNCTION, u32::from(size.bytes()) | RETURN);
}

/// Runs a call of this module.
#[inline(never)]
pub(crate) fn call(h: &mut P, operand: u32) -> Step {
    let size = if operand & 0xff == 8 { 8 } else { 4 };
    let (ssp, cpl) = (h.reg(SSP), h.arch.cpl());
    if operand & RETURN == 0 {
        let at = ssp.wrapping_sub(size.into());
        let value = h.reg(temp::FIRST) & if operand & 0xff == 2 { 0xffff } else { u64::MAX };
        store(h, at, size, value, cpl)?;
        h.set_reg(SSP, at);
    } else {
        let (expected, target) = (load(h, ssp, size, cpl)?, h.ip(h.reg(temp::TARGET)));
        h.fault_if(target != expected, ControlProtection::NearRet.into())?;
        h.set_reg(SSP, ssp.wrapping_add(size.into()));
    }
    Ok(())
}

fn as_whom(cpl: u8) -> u8 {
    if cpl == 3 { AS_USER_SHADOW } else { AS_SUPERVISOR_SHADOW }
}

/// An address that is not canonical is #GP, whatever the instruction.
fn never_of_stack(stop: Stop) -> Stop {
    if stop.code() == NON_CANONICAL { Exception::gp(0).into() } else { stop }
}

/// The address size is 32 bits outside of 64-bit mode.
fn wrapped(h: &P, at: u64) -> u64 {
    if h.arch.is_64() { at } else { at & 0xffff_ffff }
}

/// A shadow-stack load.
pub(crate) fn load(h: &mut P, at: u64, size: u8, cpl: u8) -> Step<u64> {
    h.load(wrapped(h, at), size, as_whom(cpl)).map_err(never_of_stack)
}

/// A shadow-stack store.
pub(crate) fn store(h: &mut P, at: u64, size: u8, value: u64, cpl: u8) -> Step {
    h.store(wrapped(h, at), size, value, as_whom(cpl)).map_err(never_of_stack)
}

/// A store that could be made.
pub(crate) fn require_store(h: &mut P, at: u64, size: u8, cpl: u8) -> Step {
    h.resolve(at, size, Intent::Write, as_whom(cpl)).map(drop).map_err(never_of_stack)
}

/// shadow_stack_lock_cmpxchg8b: whether there was what was expected.
pub(crate) fn exchange(h: &mut P, at: u64, expected: u64, new: u64, cpl: u8) -> Step<bool> {
    let place = h.resolve(at, 8, Intent::Write, as_whom(cpl)).map_err(never_of_stack)?;
    let is_expected = h.load_at(place, 8)? == expected;
    if is_expected {
        h.store_at(place, 8, new)?;
    }
    Ok(is_expected)
}

/// Where a far call, or an event, returns to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Frame {
    pub cs: u16,
    /// The linear instruction pointer.
    pub lip: u64,
}

/// Pushes CS, the linear instruction pointer and SSP, aligned to 8 bytes; returns the new SSP.
pub(crate) fn push_frame(h: &mut P, to: u64, old_ssp: u64, frame: Frame, cpl: u8) -> Step<u64> {
    let top = to & !7;
    let ssp = top.wrapping_sub(24);
    require_store(h, to.wrapping_sub(4), 4, cpl)?;
    require_store(h, ssp, 8, cpl)?;
    store(h, to.wrapping_sub(4), 4, 0, cpl)?;
    for (i, word) in [old_ssp, frame.lip, frame.cs.into()].into_iter().enumerate() {
        h.store(ssp.wrapping_add(8 * i as u64), 8, word, as_whom(cpl)).map_err(never_of_stack)?;
    }
    Ok(ssp)
}

/// "Supervisor Shadow Stack Token": takes the shadow stack at `ssp`, which nobody else may be using. With Intel a frame behind the token
/// lies in the same 32 bytes, and so in the same page: nothing is ever busy too early.
pub(crate) fn acquire(h: &mut P, ssp: u64, to_64: bool, cpl: u8, refusal: Exception) -> Step {
    let is_apart = h.arch.model.is_intel() && (ssp ^ ssp.wrapping_sub(24)) & !0x1f != 0;
    h.fault_if(ssp & 7 != 0 || is_apart || !to_64 && ssp >> 32 != 0, refusal)?;
    let is_free = exchange(h, ssp, ssp, ssp | BUSY, cpl)?;
    h.fault_if(!is_free, refusal)
}

/// What a far transfer to the same or an inner level makes of shadow stacks.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Entered {
    ssp: u64,
    user_ssp: Option<u64>,
}

impl Entered {
    /// Nothing can fail any more.
    pub(crate) fn commit(self, h: &mut P) {
        h.set_reg(SSP, self.ssp);
        if let Some(ssp) = self.user_ssp {
            h.arch.cet.ssp[3] = ssp;
        }
    }
}

/// LA_adjust: bits above the processor's linear addresses are as the highest of them.
fn adjusted(h: &P, ssp: u64) -> u64 {
    if !h.arch.is_long() {
        return ssp;
    }
    let shift = 64 - u32::from(h.arch.model.linear_bits());
    ((ssp << shift) as i64 >> shift) as u64
}

/// The shadow stack that a call gate or an event switches to, if it does: of the inner level, or of the interrupt SSP table.
pub(crate) fn switched_to(h: &mut P, new_cpl: u8, ist: u64) -> Step<Option<u64>> {
    if !h.arch.has_shadow_stack_at(new_cpl) {
        return Ok(None);
    }
    if ist != 0 {
        let at = h.arch.cet.interrupt_ssp_table.wrapping_add(8 * ist);
        return h.read_system(at, 8).map(Some);
    }
    Ok((new_cpl < h.arch.cpl()).then(|| h.arch.cet.ssp[usize::from(new_cpl)]))
}

/// A far CALL, a call gate or an event goes to code at `new_cpl`, which is 64-bit code or not, on the shadow stack that it is
/// [switched to](switched_to). From user mode there is nothing to be pushed.
pub(crate) fn enter(h: &mut P, new_cpl: u8, switched_to: Option<u64>, to_64: bool, frame: Frame) -> Step<Entered> {
    let (cpl, ssp) = (h.arch.cpl(), h.reg(SSP));
    let leaves_user = cpl == 3 && new_cpl < 3;
    let user_ssp = (leaves_user && h.arch.has_shadow_stack()).then(|| adjusted(h, ssp));
    if !h.arch.has_shadow_stack_at(new_cpl) {
        return Ok(Entered { ssp, user_ssp });
    }
    let new = match switched_to {
        Some(new) => {
            acquire(h, new, to_64, new_cpl, Exception::gp(0))?;
            new
        }
        None => {
            require_reach(h, to_64)?;
            ssp
        }
    };
    let ssp = if leaves_user { new } else { push_frame(h, new, ssp, frame, new_cpl)? };
    Ok(Entered { ssp, user_ssp })
}

/// Code that is no 64-bit code has its shadow stack below 4 GBytes.
pub(crate) fn require_reach(h: &P, to_64: bool) -> Step {
    h.fault_if(h.arch.has_shadow_stack() && !to_64 && h.reg(SSP) >> 32 != 0, Exception::gp(0))
}

/// Pops a frame and compares it; returns the SSP that was saved in it.
fn pop_frame(h: &mut P, ssp: u64, frame: Frame) -> Step<u64> {
    let cpl = h.arch.cpl();
    let [cs, lip, previous] = [16, 8, 0].map(|at| load(h, ssp.wrapping_add(at), 8, cpl));
    let (cs, lip, previous) = (cs?, lip?, previous?);
    let fits = cs == u64::from(frame.cs) && lip == frame.lip && previous & 3 == 0;
    h.fault_if(!fits, ControlProtection::FarRetIret.into())?;
    Ok(previous)
}

/// SSP of the code that is returned to.
fn require_pointer(h: &P, ssp: u64, to_64: bool) -> Step {
    let fits = if to_64 { h.arch.is_canonical(ssp) } else { ssp >> 32 == 0 };
    h.fault_if(!fits, Exception::gp(0))
}

/// A far RET or IRET to code of the same level. Returns the new SSP; an IRET in IA-32e mode frees the shadow stack that it leaves.
pub(crate) fn leave_within(h: &mut P, to_64: bool, frame: Frame, is_iret: bool) -> Step<u64> {
    let ssp = h.reg(SSP);
    if !h.arch.has_shadow_stack() {
        return Ok(ssp);
    }
    h.fault_if(ssp & 7 != 0, ControlProtection::FarRetIret.into())?;
    let previous = pop_frame(h, ssp, frame)?;
    require_pointer(h, previous, to_64)?;
    let left = ssp.wrapping_add(24);
    if is_iret && h.arch.is_long() && previous != left {
        release(h, left, h.arch.cpl())?;
    }
    Ok(previous)
}

/// Likewise to an outer level.
pub(crate) fn leave_outward(h: &mut P, new_cpl: u8, to_64: bool, frame: Frame) -> Step<u64> {
    let (mut ssp, is_on) = (h.reg(SSP), h.arch.has_shadow_stack());
    let mut next = h.arch.cet.ssp[3];
    if is_on {
        h.fault_if(ssp & 7 != 0, ControlProtection::FarRetIret.into())?;
        if new_cpl != 3 {
            next = pop_frame(h, ssp, frame)?;
            ssp = ssp.wrapping_add(24);
        }
    }
    let new = if h.arch.has_shadow_stack_at(new_cpl) {
        require_pointer(h, next, to_64)?;
        next
    } else {
        ssp
    };
    if is_on {
        release(h, ssp, 0)?;
    }
    Ok(new)
}

/// IRET to virtual-8086 mode, which has neither shadow stacks nor tracking.
pub(crate) fn leave_to_v8086(h: &mut P) -> Step {
    h.fault_if(h.arch.cet_at(3) & (user_cet::ENDBR_EN | user_cet::SH_STK_EN) != 0, Exception::gp(0))?;
    if h.arch.has_shadow_stack() {
        let ssp = h.reg(SSP);
        h.fault_if(ssp & 7 != 0, ControlProtection::FarRetIret.into())?;
        release(h, ssp, 0)?;
    }
    Ok(())
}

/// Frees a shadow stack, if it has a busy token.
pub(crate) fn release(h: &mut P, ssp: u64, cpl: u8) -> Step {
    exchange(h, ssp, ssp | BUSY, ssp, cpl).map(drop)
}

/// SYSCALL, SYSENTER: the kernel comes without a shadow stack, and finds one by SETSSBSY.
pub(crate) fn enter_fast(h: &mut P) {
    if h.arch.has_shadow_stack() {
        h.arch.cet.ssp[3] = adjusted(h, h.reg(SSP));
    }
    if h.arch.has_shadow_stack_at(0) {
        h.set_reg(SSP, 0);
    }
}

/// SYSRET, SYSEXIT.
pub(crate) fn leave_fast(h: &mut P) {
    if h.arch.has_shadow_stack_at(3) {
        h.set_reg(SSP, h.arch.cet.ssp[3]);
    }
}

/// What a task switch takes along from the old task's shadow stack ("Shadow Stack Usage on Task Switch").
#[derive(Clone, Copy, Debug)]
pub(crate) enum TaskSwitch {
    /// The new task begins on the shadow stack of its TSS; with a frame of the old one, and its SSP, if it is nested in that.
    To { ssp: u64, frame: Option<(Frame, u64)> },
    /// Back: to the SSP that the frame of the nested task has, which was left with this frame; or to user mode's.
    Back { ssp: u64, frame: Option<Frame> },
}

/// The old task is left, for one at `new_cpl` whose TSS has `ssp`; `frame` is where it goes on. Nothing has changed so far.
pub(crate) fn leave_task(h: &mut P, how: Switch, new_cpl: u8, ssp: u64, frame: Frame) -> Step<TaskSwitch> {
    let (cpl, old, is_on) = (h.arch.cpl(), h.reg(SSP), h.arch.has_shadow_stack());
    if how != Switch::Return {
        let frame = (is_on && how == Switch::Call).then_some((frame, old));
        if is_on && new_cpl < cpl && cpl == 3 {
            h.arch.cet.ssp[3] = old;
            return Ok(TaskSwitch::To { ssp, frame: None });
        }
        return Ok(TaskSwitch::To { ssp, frame });
    }
    if !is_on {
        return Ok(TaskSwitch::Back { ssp: h.arch.cet.ssp[3], frame: None });
    }
    if new_cpl == 3 && cpl != 3 {
        release(h, old, cpl)?;
        return Ok(TaskSwitch::Back { ssp: h.arch.cet.ssp[3], frame: None });
    }
    let [ssp, lip, cs] = [0, 8, 16].map(|at| load(h, old.wrapping_add(at), 8, cpl));
    let (ssp, lip, cs) = (ssp?, lip?, cs?);
    let cs = u16::try_from(cs).map_err(|_| Exception::from(ControlProtection::FarRetIret))?;
    release(h, old.wrapping_add(24), cpl)?;
    Ok(TaskSwitch::Back { ssp, frame: Some(Frame { cs, lip }) })
}

/// The new task begins at `frame`; whatever fails is its own fault. `refusal` is that of its TSS.
pub(crate) fn enter_task(h: &mut P, switch: TaskSwitch, frame: Frame, refusal: Exception) -> Step {
    let (cpl, is_on) = (h.arch.cpl(), h.arch.has_shadow_stack());
    match switch {
        TaskSwitch::To { ssp, frame } => {
            if is_on {
                acquire(h, ssp, false, cpl, refusal)?;
                let ssp = match frame {
                    Some((frame, old)) => push_frame(h, ssp, old, frame, cpl)?,
                    None => ssp,
                };
                h.set_reg(SSP, ssp);
            }
            ibt::wait(h, cpl);
        }
        TaskSwitch::Back { ssp, frame: left } => {
            let refusal = ControlProtection::FarRetIret.into();
            h.fault_if(left.is_some_and(|left| left != frame), refusal)?;
            if is_on {
                h.fault_if(ssp & 3 != 0, refusal)?;
                require_pointer(h, ssp, false)?;
                h.set_reg(SSP, ssp);
            }
        }
    }
    Ok(())
}
