//! Locks of the bus (APM vol. 2, "Bus Lock Threshold"): of an operand that crosses a cache line, or that is in memory which is not cached. Memory types
//! have no effect here (docs/design.md): what is not cached is what is no RAM.
//!
//! Whether somebody wants to know is a bit of a block's mode. Then an instruction that locks begins with a call, which comes to the operand's faults first.

use emu_core::engine::{Intent, Lift, Step};
use iced_x86::{Instruction, Mnemonic as M, OpKind};

use crate::caches::LINE;
use crate::extension::{Intercept, ask_after};
use crate::isa::Lifting;
use crate::mode::Mode;
use crate::processor::{P, ProcessorExt};
use crate::registers::temp;

/// Function number of the call.
pub(crate) const FUNCTION: u16 = 0x185;
/// Above the operand's size in bytes stands the register that holds a bit's number, if there is one.
const BIT: u32 = 1 << 16;

/// The instruction writes its operand in memory under lock.
fn locks(insn: &Instruction) -> bool {
    insn.op0_kind() == OpKind::Memory && (insn.has_lock_prefix() || insn.mnemonic() == M::Xchg)
}

/// The register that says how far from its operand's address an instruction finds its bit.
fn bit_register(insn: &Instruction) -> Option<u32> {
    let is_of_bits = matches!(insn.mnemonic(), M::Bts | M::Btr | M::Btc) && insn.op1_kind() == OpKind::Register;
    is_of_bits.then(|| insn.op1_register().full_register().number() as u32)
}

/// Lifts the call.
pub(crate) fn watch(lift: &mut Lift, insn: &Instruction, mode: &Mode) {
    if !mode.watches_bus_locks || !locks(insn) {
        return;
    }
    let size = insn.memory_size().size() as u32;
    // CMPXCHG16B is aligned, or faults.
    if size > 8 || Lifting::new(lift, insn, mode).address_in_register().is_err() {
        return;
    }
    lift.call(FUNCTION, size | bit_register(insn).map_or(0, |r| BIT | r << 8));
}

/// The call.
pub(crate) fn call(h: &mut P, operand: u32) -> Step {
    let size = operand as u8;
    let mut at = h.core.regs[usize::from(temp::ADDRESS)];
    if operand & BIT != 0 {
        let unused = 64 - 8 * u32::from(size);
        let bit = (h.reg((operand >> 8) as u8) << unused) as i64 >> unused;
        let bits = 8 * i64::from(size);
        at = at.wrapping_add_signed(bit.div_euclid(bits) * i64::from(size));
    }
    let place = h.resolve(at, size, Intent::Write, 0)?;
    let is_split = at % LINE + u64::from(size) > LINE;
    if is_split || !h.world.ram.contains(place.pa, 1) {
        ask_after(h, || Intercept::BusLock)?;
    }
    Ok(())
}
