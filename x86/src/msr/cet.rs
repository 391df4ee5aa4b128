//! MSRs of Control-flow Enforcement Technology (SDM vol. 4, "Architectural MSRs"; APM vol. 2, "Shadow Stacks").

use emu_core::engine::Step;

use super::table::Kind;
use crate::exception::Exception;
use crate::processor::{P, ProcessorExt};

const U_CET: u32 = 0x6a0;
const PL0_SSP: u32 = 0x6a4;

/// IA32_U_CET, IA32_S_CET.
pub(super) const CONTROL: Kind = Kind::Own { read: read_control, write: write_control };
/// IA32_PL0_SSP to IA32_PL3_SSP.
pub(super) const POINTER: Kind = Kind::Own { read: read_pointer, write: write_pointer };
/// IA32_INTERRUPT_SSP_TABLE_ADDR.
pub(super) const TABLE: Kind = Kind::Own { read: read_table, write: write_table };

fn read_control(h: &mut P, number: u32) -> Step<u64> {
    Ok(if number == U_CET { h.arch.cet.user } else { h.arch.cet.supervisor })
}

fn write_control(h: &mut P, number: u32, value: u64) -> Step {
    h.fault_if(!h.arch.is_cet_control(value), Exception::gp(0))?;
    *h.arch.cet_register(if number == U_CET { 3 } else { 0 }) = value;
    h.core.spaces_changed = true;
    Ok(())
}

fn read_pointer(h: &mut P, number: u32) -> Step<u64> {
    Ok(h.arch.cet.ssp[(number - PL0_SSP) as usize])
}

fn write_pointer(h: &mut P, number: u32, value: u64) -> Step {
    h.fault_if(!h.arch.is_shadow_stack_pointer(value), Exception::gp(0))?;
    h.arch.cet.ssp[(number - PL0_SSP) as usize] = value;
    Ok(())
}

fn read_table(h: &mut P, _: u32) -> Step<u64> {
    Ok(h.arch.cet.interrupt_ssp_table)
}

fn write_table(h: &mut P, _: u32, value: u64) -> Step {
    h.fault_if(!h.arch.is_canonical_in_registers(value), Exception::gp(0))?;
    h.arch.cet.interrupt_ssp_table = value;
    Ok(())
}
