//! INT n, INTO, INT3 and INT1 (SDM vol. 2A, "INT n/INTO/INT3/INT1—Call to Interrupt Procedure").

use emu_core::engine::Step;

use crate::debug;
use crate::exception::{Exception, vector};
use crate::extension::{Intercept, ask_after, ask_before};
use crate::interrupt::{self, Source};
use crate::processor::P;

pub(crate) fn int(h: &mut P, vector: u32) -> Step {
    ask_before(h, || Intercept::SoftwareInterrupt(vector as u8))?;
    interrupt_by_software(h, vector as u8, Source::Software)
}

/// INT1 (ICEBP): #DB as of hardware, which says nothing in DR6.
pub(crate) fn int1(h: &mut P, _: u32) -> Step {
    ask_before(h, || Intercept::Icebp)?;
    // What was to come behind it comes with it.
    let waiting = std::mem::take(&mut h.arch.debug_trap);
    debug::record(h.arch, waiting);
    interrupt_by_software(h, vector::DB, Source::Icebp)
}

/// INT3 and INTO raise exceptions, which an extension may take.
fn ask_exception(h: &mut P, vector: u8) -> Step {
    ask_after(h, || Intercept::Exception { exception: Exception::plain(vector), software: true, first: None })
}

pub(crate) fn int3(h: &mut P, _: u32) -> Step {
    ask_exception(h, vector::BP)?;
    interrupt_by_software(h, vector::BP, Source::SoftwareException)
}

pub(crate) fn into(h: &mut P, _: u32) -> Step {
    ask_exception(h, vector::OF)?;
    interrupt_by_software(h, vector::OF, Source::SoftwareException)
}

/// The return address is behind the instruction; a fault in delivery is one of the instruction itself.
fn interrupt_by_software(h: &mut P, vector: u8, source: Source) -> Step {
    let pc = h.core.pc;
    let next = h.core.next_pc;
    interrupt::take(h, vector, source, next)?;
    h.core.next_pc = std::mem::replace(&mut h.core.pc, pc);
    Ok(())
}
