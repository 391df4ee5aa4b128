//! FERR# and IGNNE# (SDM vol. 1, "MS-DOS* Compatibility Sub-mode", "Guidelines for Writing x87 FPU Exception Handlers"): where CR0.NE is clear,
//! an unmasked exception of the x87 asks the chipset for an interrupt, and the processor stands still before the next waiting instruction
//! until one comes, or until IGNNE# tells it to go on regardless.
//!
//! FERR# is asserted when a waiting instruction comes ("deferred"). That it is no longer is seen when the next one comes: nothing but such
//! an instruction could tell.

use emu_core::engine::{Step, Stop, StopKind};
use serde::{Deserialize, Serialize};

use crate::control::cr0;
use crate::exception::{Exception, vector};
use crate::extension::{Intercept, ask_after};
use crate::platform::coprocessor;
use crate::processor::P;

/// The two pins.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pins {
    /// FERR# is asserted.
    ferr: bool,
    /// IGNNE# is asserted.
    pub(crate) ignne: bool,
}

/// A waiting instruction comes: #MF or FERR#, if an exception is pending.
#[inline]
pub(crate) fn check(h: &mut P) -> Step {
    if h.arch.x87.is_pending() || h.arch.error_pins.ferr { ask(h) } else { Ok(()) }
}

#[cold]
fn ask(h: &mut P) -> Step {
    let is_pending = h.arch.x87.is_pending();
    let asserts = is_pending && h.arch.cr0 & cr0::NE == 0;
    if std::mem::replace(&mut h.arch.error_pins.ferr, asserts) != asserts {
        h.write_port(coprocessor::FERR, 1, asserts.into());
    }
    match (is_pending, asserts) {
        (false, _) => Ok(()),
        (true, false) => Err(Exception::plain(vector::MF).into()),
        (true, true) if h.arch.error_pins.ignne => Ok(()),
        (true, true) => {
            ask_after(h, || Intercept::FerrFreeze)?;
            h.core.next_pc = h.core.pc;
            h.arch.waiting.freezes();
            Err(Stop::of(StopKind::Wait))
        }
    }
}
