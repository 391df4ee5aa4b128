//! Registers of system management mode (SDM vol. 4, "IA32_SMRR_PHYSBASE"; PPR, "SMM_BASE", "SMMADDR", "SMMMASK"; APM vol. 2, "SMM_CTL MSR",
//! "SMM-Lock").

use emu_core::engine::Step;

use super::{hwcr, number as n};
use crate::exception::Exception;
use crate::processor::{P, ProcessorExt, X86};
use crate::smm;

/// "System-Management Range Registers": there in system management mode alone.
pub(super) fn read_smrr(h: &mut P, number: u32) -> Step<u64> {
    h.fault_if(!h.arch.smm.is_on(), Exception::gp(0))?;
    Ok(h.arch.smm.memory.registers[(number - n::SMRR_PHYSBASE) as usize])
}

/// Likewise: a base with a memory type, and a mask with a bit that makes both valid.
pub(super) fn write_smrr(h: &mut P, number: u32, value: u64) -> Step {
    let writable = if number == n::SMRR_PHYSBASE { 0xffff_f0ff } else { 0xffff_f800 };
    h.fault_if(!h.arch.smm.is_on() || value & !writable != 0, Exception::gp(0))?;
    h.arch.smm.memory.write((number - n::SMRR_PHYSBASE) as usize, value, false);
    smm::translations_changed(h);
    Ok(())
}

/// SMM_BASE, SMMADDR, SMMMASK.
pub(super) fn read_amd(h: &mut P, number: u32) -> Step<u64> {
    let smm = &h.arch.smm;
    Ok(if number == n::SMM_BASE { smm.base.into() } else { smm.memory.registers[(number - n::SMM_BASE - 1) as usize] })
}

/// Likewise, until HWCR.SmmLock is set.
pub(super) fn write_amd(h: &mut P, number: u32, value: u64) -> Step {
    let locked = is_locked(h.arch);
    let address = ((1 << h.arch.model.physical_bits) - 1) & !0x1_ffff;
    let writable = match number {
        n::SMM_BASE => 0xffff_ffff,
        n::SMM_MASK => address | 0x773f,
        _ => address,
    };
    h.fault_if(locked || value & !writable != 0, Exception::gp(0))?;
    if number == n::SMM_BASE {
        h.arch.smm.base = value as u32;
        return Ok(());
    }
    h.arch.smm.memory.write((number - n::SMM_BASE - 1) as usize, value, true);
    smm::translations_changed(h);
    Ok(())
}

/// HWCR.SmmLock.
pub(crate) fn is_locked(arch: &X86) -> bool {
    arch.stored_msr(n::HWCR) & hwcr::SMM_LOCK != 0
}

/// SMM_CTL is write-only. The special cycles are nobody's to hear. ENTER in system management mode and EXIT outside of it are undefined: here
/// they do nothing.
pub(super) fn write_control(h: &mut P, _: u32, value: u64) -> Step {
    const DISMISS: u64 = 1;
    const ENTER: u64 = 1 << 1;
    const EXIT: u64 = 1 << 3;
    const DEFINED: u64 = 0x1f;
    h.fault_if(is_locked(h.arch) || value & !DEFINED != 0, Exception::gp(0))?;
    if value & ENTER != 0 {
        smm::enter_without_state(h);
    }
    if value & DISMISS != 0 {
        h.arch.pending.smi = false;
    }
    if value & EXIT != 0 {
        smm::leave_without_state(h);
    }
    Ok(())
}

/// SMM_KEY reads as 0.
pub(super) fn read_key(_: &mut P, _: u32) -> Step<u64> {
    Ok(0)
}

/// A write sets the key while HWCR.SmmLock is clear; then the key, unless it is 0, clears that.
pub(super) fn write_key(h: &mut P, _: u32, value: u64) -> Step {
    if !is_locked(h.arch) {
        h.arch.msrs.smm_key = value;
    } else if value != 0 && h.arch.msrs.smm_key == value {
        let hwcr = h.arch.stored_msr(n::HWCR) & !hwcr::SMM_LOCK;
        h.arch.msrs.stored.insert(n::HWCR, hwcr);
    }
    Ok(())
}
