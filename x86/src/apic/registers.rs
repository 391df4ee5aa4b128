//! The register map ("Table 11-1. Local APIC Register Address Map", "Table 11-6. Local APIC Register Address Map Supported by x2APIC"):
//! as memory in xAPIC mode, as MSRs 800H to 8FFH in x2APIC mode, and IA32_APIC_BASE.

use emu_core::engine::Step;

use super::{base, changed, end_of_interrupt, error, esr, lvt, message, set_tpr, svr, timer};
use crate::exception::Exception;
use crate::model::Feature;
use crate::processor::{P, ProcessorExt};

/// Numbers of registers: their offsets without the last digit, or their MSRs' last two.
mod register {
    pub(super) const ID: u32 = 0x02;
    pub(super) const VERSION: u32 = 0x03;
    pub(super) const TPR: u32 = 0x08;
    pub(super) const APR: u32 = 0x09;
    pub(super) const PPR: u32 = 0x0a;
    pub(super) const EOI: u32 = 0x0b;
    pub(super) const RRD: u32 = 0x0c;
    pub(super) const LDR: u32 = 0x0d;
    pub(super) const DFR: u32 = 0x0e;
    pub(super) const SVR: u32 = 0x0f;
    pub(super) const ISR: u32 = 0x10;
    pub(super) const TMR: u32 = 0x18;
    pub(super) const IRR: u32 = 0x20;
    pub(super) const ESR: u32 = 0x28;
    pub(super) const CMCI: u32 = 0x2f;
    pub(super) const ICR: u32 = 0x30;
    pub(super) const ICR_HIGH: u32 = 0x31;
    pub(super) const TIMER: u32 = 0x32;
    pub(super) const ERROR: u32 = 0x37;
    pub(super) const INITIAL: u32 = 0x38;
    pub(super) const CURRENT: u32 = 0x39;
    pub(super) const DIVIDE: u32 = 0x3e;
    pub(super) const SELF_IPI: u32 = 0x3f;
    /// AMD: Extended APIC Feature, Control, Interrupt LVTs.
    pub(super) const EXTENDED_FEATURE: u32 = 0x40;
    pub(super) const EXTENDED_CONTROL: u32 = 0x41;
    pub(super) const EXTENDED_LVT: u32 = 0x50;
}
use register as r;

/// The entry of the local vector table behind a register.
fn lvt_of(h: &P, number: u32) -> Option<usize> {
    match number {
        r::CMCI if h.arch.model.is_intel() => Some(lvt::CMCI),
        r::TIMER..=r::ERROR => Some((number - r::TIMER) as usize + lvt::TIMER),
        _ => None,
    }
}

/// Delivery status and remote IRR of an entry: they are for reading, and not reserved. Linux writes ones to them in x2APIC mode.
const LVT_STATUS: u32 = 1 << 12 | 1 << 14;

/// Bits of an entry that can be written ("Figure 11-8. Local Vector Table (LVT)").
fn lvt_bits(h: &P, i: usize) -> u32 {
    match i {
        lvt::TIMER if h.arch.model.has(Feature::TscDeadline) => 0x7_00ff,
        lvt::TIMER => 0x3_00ff,
        lvt::LINT0 | lvt::LINT1 => 0x1_a7ff,
        lvt::ERROR => 0x1_00ff,
        _ => 0x1_07ff,
    }
}

/// AMD's registers beyond 3F0H: which of `extended`.
fn extended(h: &P, number: u32) -> Option<usize> {
    if !h.arch.model.has(Feature::Extapic) {
        return None;
    }
    match number {
        r::EXTENDED_CONTROL => Some(0),
        _ => number.checked_sub(r::EXTENDED_LVT).filter(|i| *i < 4).map(|i| i as usize + 1),
    }
}

/// Version, highest LVT entry, what else there is ("Local APIC Version Register"; APM, "APIC Version Register").
fn version(h: &P) -> u32 {
    if h.arch.model.is_intel() {
        return 0x15 | (lvt::COUNT as u32 - 1) << 16 | 1 << 24; // SVR can suppress the EOI broadcast
    }
    0x10 | (lvt::COUNT as u32 - 2) << 16 | u32::from(h.arch.model.has(Feature::Extapic)) << 31
}

/// What a register reads as; `None` if there is none, or it cannot be read.
fn get(h: &mut P, number: u32) -> Option<u32> {
    let a = &h.arch.apic;
    Some(match number {
        r::ID if a.is_x2apic() => a.id,
        r::ID => a.physical_id() << 24,
        r::VERSION => version(h),
        r::TPR => a.tpr.into(),
        // Arbitration is not by a bus; what the register would hold is the priority.
        // AMD has the register in x2APIC mode, too.
        r::APR if !a.is_x2apic() || h.arch.model.is_amd() => a.ppr().into(),
        r::RRD if !a.is_x2apic() => 0,
        r::PPR => a.ppr().into(),
        r::LDR => a.logical_id(),
        r::DFR if !a.is_x2apic() => a.dfr,
        r::SVR => a.svr,
        r::ISR..=0x17 => a.isr.0[(number - r::ISR) as usize],
        r::TMR..=0x1f => a.tmr.0[(number - r::TMR) as usize],
        r::IRR..=0x27 => a.irr.0[(number - r::IRR) as usize],
        r::ESR => a.esr,
        r::ICR => a.icr as u32,
        r::ICR_HIGH if !a.is_x2apic() => (a.icr >> 32) as u32,
        r::INITIAL => a.timer.initial,
        r::CURRENT => timer::current(h),
        r::DIVIDE => a.timer.divide,
        r::EXTENDED_FEATURE if h.arch.model.has(Feature::Extapic) => 4 << 16,
        _ => match (lvt_of(h, number), extended(h, number)) {
            (Some(i), _) => h.arch.apic.lvt[i],
            (_, Some(i)) => h.arch.apic.extended[i],
            _ => return None,
        },
    })
}

/// The bits that a register takes, in x2APIC mode or not; `None` if it cannot be written.
fn writable(h: &P, number: u32, x2apic: bool) -> Option<u32> {
    Some(match number {
        // Software may change it where the processor lets it ("Local APIC ID"): these do, outside of x2APIC mode.
        r::ID if !x2apic => 0xff00_0000,
        r::TPR => 0xff,
        r::EOI | r::ESR => 0,
        r::LDR if !x2apic => 0xff00_0000,
        r::DFR if !x2apic => 0xf000_0000,
        r::SVR if h.arch.model.is_intel() => 0x1ff | svr::NO_EOI_BROADCAST,
        r::SVR => 0x1ff,
        r::ICR => 0xc_cfff,
        r::ICR_HIGH if !x2apic => 0xff00_0000,
        r::INITIAL => u32::MAX,
        r::DIVIDE => 0xb,
        r::SELF_IPI if x2apic => 0xff,
        _ => match (lvt_of(h, number), extended(h, number)) {
            (Some(i), _) => lvt_bits(h, i),
            (_, Some(0)) => 0,
            (_, Some(_)) => 0x1_07ff,
            _ => return None,
        },
    })
}

/// Writes a register, whose reserved bits are gone already.
fn set(h: &mut P, number: u32, value: u32) {
    let a = &mut h.arch.apic;
    match number {
        r::ID => a.xapic_id = (value >> 24) as u8,
        r::TPR => set_tpr(h, value as u8),
        r::EOI => end_of_interrupt(h),
        r::LDR => a.ldr = value,
        r::DFR => a.dfr = value | 0x0fff_ffff,
        r::SVR => {
            a.svr = value;
            if value & svr::ENABLED == 0 {
                // "The mask bits for all the LVT entries are set."
                a.lvt.iter_mut().for_each(|e| *e |= lvt::MASKED);
            }
        }
        r::ESR => a.esr = std::mem::take(&mut a.errors),
        r::ICR => {
            a.icr = a.icr >> 32 << 32 | u64::from(value);
            let destination = (a.icr >> if a.is_x2apic() { 32 } else { 56 }) as u32;
            return message::send(h, value, destination);
        }
        r::ICR_HIGH => a.icr = a.icr & 0xffff_ffff | u64::from(value) << 32,
        r::INITIAL => return timer::set_initial(h, value),
        r::DIVIDE => return timer::set_divide(h, value),
        r::SELF_IPI => return message::send(h, value | 1 << 18, 0),
        _ => return set_entry(h, number, value),
    }
    changed(h);
}

fn set_entry(h: &mut P, number: u32, value: u32) {
    if let Some(i) = lvt_of(h, number) {
        let a = &mut h.arch.apic;
        let old = a.lvt[i];
        let disabled = if a.is_software_enabled() { 0 } else { lvt::MASKED };
        let served = if value & lvt::LEVEL != 0 { old & lvt::REMOTE_IRR } else { 0 };
        a.lvt[i] = value | disabled | served;
        if i == lvt::TIMER {
            timer::mode_changed(h, old);
        }
    } else if let Some(i) = extended(h, number) {
        h.arch.apic.extended[i] = value;
    }
    changed(h);
}

/// A load from the registers' page, in xAPIC mode.
#[inline(never)]
pub fn read(h: &mut P, offset: u32, size: u8) -> u64 {
    let within = offset & 0xf;
    let Some(value) = get(h, offset >> 4) else {
        error(h, esr::ILLEGAL_REGISTER);
        return 0;
    };
    if within >= 4 {
        return 0;
    }
    u64::from(value) >> (8 * within) & (u64::MAX >> (64 - 8 * u32::from(size.clamp(1, 8))))
}

/// A store to the registers' page, in xAPIC mode.
#[inline(never)]
pub fn write(h: &mut P, offset: u32, size: u8, value: u64) {
    let number = offset >> 4;
    match writable(h, number, false) {
        Some(bits) if offset & 0xf == 0 && size >= 4 => set(h, number, value as u32 & bits),
        Some(_) => {}
        None if get(h, number).is_some() => {} // it can be read alone
        None => error(h, esr::ILLEGAL_REGISTER),
    }
}

/// A load from a physical address, if it is the APIC's.
#[inline]
pub fn local_read(h: &mut P, pa: u64, size: u8) -> Option<u64> {
    let is_own = h.arch.apic.page() == Some(pa & !0xfff);
    is_own.then(|| read(h, (pa & 0xfff) as u32, size))
}

/// A store to a physical address, if it is the APIC's.
#[inline]
pub fn local_write(h: &mut P, pa: u64, size: u8, value: u64) -> Option<()> {
    let is_own = h.arch.apic.page() == Some(pa & !0xfff);
    is_own.then(|| write(h, (pa & 0xfff) as u32, size, value))
}

/// RDMSR of 800H to 8FFH, whose number is less by 800H. There is nothing outside of x2APIC mode.
pub(crate) fn read_msr(h: &mut P, number: u32) -> Step<u64> {
    h.fault_if(!h.arch.apic.is_x2apic(), Exception::gp(0))?;
    if number == r::ICR {
        return Ok(h.arch.apic.icr);
    }
    get(h, number).map(u64::from).ok_or(Exception::gp(0).into())
}

/// WRMSR likewise: a reserved bit is #GP.
pub(crate) fn write_msr(h: &mut P, number: u32, value: u64) -> Step {
    h.fault_if(!h.arch.apic.is_x2apic(), Exception::gp(0))?;
    let Some(bits) = x2apic_bits(h, number) else { return Err(Exception::gp(0).into()) };
    h.fault_if(value & !bits != 0, Exception::gp(0))?;
    if number == r::ICR {
        h.arch.apic.icr = value;
    }
    let taken = writable(h, number, true).unwrap_or(0);
    set(h, number, value as u32 & taken);
    Ok(())
}

/// The bits that WRMSR may have set for a register in x2APIC mode; `None` if it cannot be written.
pub(crate) fn x2apic_bits(h: &P, number: u32) -> Option<u64> {
    let bits = u64::from(writable(h, number, true)?);
    Some(match number {
        r::ICR => bits | u64::MAX << 32,
        _ if lvt_of(h, number).is_some() => bits | u64::from(LVT_STATUS),
        _ => bits,
    })
}

impl super::LocalApic {
    /// IA32_APIC_BASE.
    pub fn base(&self) -> u64 {
        self.base
    }
}

/// WRMSR to IA32_APIC_BASE ("x2APIC State Transitions").
pub(crate) fn write_base(h: &mut P, value: u64) -> Step {
    const MODE: u64 = base::EN | base::EXTD;
    let model = h.arch.model;
    let x2apic = if model.has(Feature::X2apic) { base::EXTD } else { 0 };
    let address = ((1 << model.physical_bits) - 1) & !0xfff;
    h.fault_if(value & !(address | base::BSP | base::EN | x2apic) != 0, Exception::gp(0))?;
    let old_base = h.arch.apic.base;
    let (old, new) = (old_base & MODE, value & MODE);
    h.fault_if(new == base::EXTD, Exception::gp(0))?;
    h.fault_if(old == MODE && new == base::EN, Exception::gp(0))?;
    h.fault_if(old == 0 && new == MODE, Exception::gp(0))?;
    h.arch.apic.base = value;
    if old != new && (old == 0 || new == 0) {
        h.arch.apic.init();
        h.arch.apic.xapic_id = h.arch.apic.id as u8;
    }
    if value != old_base {
        // Where the registers' page was or is, translations lead elsewhere.
        h.core.mmu.drop_spaces(|_| true);
        h.core.spaces_changed = true;
    }
    changed(h);
    Ok(())
}
