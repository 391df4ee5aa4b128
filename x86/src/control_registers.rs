//! MOV to and from control registers (SDM vol. 2B, "MOV—Move to/from Control Registers"; vol. 3A, "Control Registers", "Initializing IA-32e
//! Mode").

use emu_core::engine::Step;

use crate::apic;
use crate::control::{cr0, cr3, cr4, efer};
use crate::exception::Exception;
use crate::extension::{self, Intercept, ask_after, ask_before};
use crate::model::Feature;
use crate::processor::{P, ProcessorExt, read_entry, segments};
use crate::registers::temp;
use crate::system::{first, reg, set};

/// MOV from CR0, CR2, CR3, CR4 or CR8: its number is above the general register's in the operand.
pub(crate) fn mov_from_cr(h: &mut P, operand: u32) -> Step {
    let (n, register) = (operand >> 8, operand as u8);
    h.fault_if(!matches!(n, 0 | 2 | 3 | 4 | 8), Exception::UD)?;
    h.require_cpl_0()?;
    ask_after(h, || Intercept::MovFromCr { cr: n as u8, register })?;
    let value = match n {
        0 => h.arch.cr0,
        2 => h.arch.cr2,
        3 => h.arch.cr3,
        4 => h.arch.cr4,
        _ => apic::cr8(h),
    };
    let value = extension::read_cr(h, n as u8, value);
    set(h, register, value);
    Ok(())
}

/// MOV to one.
pub(crate) fn mov_to_cr(h: &mut P, operand: u32) -> Step {
    let (n, register, value) = (operand >> 8, operand as u8, reg(h, operand));
    let value = if h.arch.is_64() { value } else { value & 0xffff_ffff };
    h.fault_if(!matches!(n, 0 | 2 | 3 | 4 | 8), Exception::UD)?;
    h.require_cpl_0()?;
    let what = Intercept::MovToCr { cr: n as u8, register, value };
    ask_before(h, || what)?;
    if n == 8 {
        return mov_to_cr8(h, value, what);
    }
    let Some(value) = extension::write_cr(h, n as u8, value)? else { return Ok(()) };
    check(h, n, value)?;
    ask_after(h, || what)?;
    match n {
        0 => write_cr0(h, value)?,
        2 => h.arch.cr2 = value,
        3 => load_cr3(h, value)?,
        _ => write_cr4(h, value)?,
    }
    h.all_changed();
    Ok(())
}

/// MOV to CR8: an extension may have one of its own, which is written when all has been asked.
fn mov_to_cr8(h: &mut P, value: u64, what: Intercept) -> Step {
    check(h, 8, value)?;
    ask_after(h, || what)?;
    if let Some(value) = extension::write_cr(h, 8, value)? {
        apic::set_cr8(h, value);
        h.all_changed();
    }
    Ok(())
}

/// With PCIDs, bit 63 of a value for CR3 keeps the translations of the new one.
const KEEP: u64 = 1 << 63;

/// Whether a value may be written: what can be said without the page tables.
fn check(h: &P, n: u32, value: u64) -> Step {
    let gp = Exception::gp(0);
    match n {
        0 => check_cr0(h, value)?,
        3 => {
            let lam = if h.arch.model.has(Feature::Lam) { cr3::LAM_U48 | cr3::LAM_U57 } else { 0 };
            let keep = if h.arch.cr4 & cr4::PCIDE != 0 { KEEP } else { 0 };
            let address = value & !(lam | keep);
            h.fault_if(h.arch.is_long() && address >> h.arch.physical_bits != 0, gp)?;
        }
        4 => check_cr4(h, value)?,
        8 => h.fault_if(value > 15, gp)?,
        _ => {}
    }
    let allowed = h.arch.extension.get().is_none_or(|e| e.allows_cr(n as u8, value));
    h.fault_if(!allowed, gp)
}

/// CR0 bits that there are.
const CR0: u64 =
    cr0::PE | cr0::MP | cr0::EM | cr0::TS | cr0::ET | cr0::NE | cr0::WP | cr0::AM | cr0::NW | cr0::CD | cr0::PG;

fn check_cr0(h: &P, value: u64) -> Step {
    let gp = Exception::gp(0);
    h.fault_if(value >> 32 != 0, gp)?;
    h.fault_if(value & cr0::PG != 0 && value & cr0::PE == 0, gp)?;
    h.fault_if(value & cr0::NW != 0 && value & cr0::CD == 0, gp)?;
    h.fault_if(value & cr0::WP == 0 && h.arch.cr4 & cr4::CET != 0, gp)?;
    let old = h.arch.cr0;
    let (sets, clears) = (value & !old, old & !value);
    if clears & cr0::PG != 0 {
        // Not in 64-bit code, and not while CR4.PCIDE is set.
        h.fault_if(h.arch.is_64() || h.arch.cr4 & cr4::PCIDE != 0, gp)?;
    }
    if sets & cr0::PG != 0 && h.arch.efer & efer::LME != 0 {
        // The APM asks nothing of the TSS.
        let is_16_bit_task = h.arch.model.is_intel() && matches!(h.arch.tr.attributes.kind(), 1 | 3);
        let cs = h.arch.segments[segments::CS].attributes;
        h.fault_if(h.arch.cr4 & cr4::PAE == 0 || cs.is_long() || is_16_bit_task, gp)?;
    }
    Ok(())
}

/// Writes CR0 when all has been checked but the page tables.
pub(crate) fn write_cr0(h: &mut P, value: u64) -> Step {
    let (old, new) = (h.arch.cr0, value & CR0 | cr0::ET);
    let is_pae = new & cr0::PG != 0 && h.arch.cr4 & cr4::PAE != 0 && h.arch.efer & efer::LME == 0;
    if is_pae && (new ^ old) & (cr0::PG | cr0::CD | cr0::NW) != 0 {
        load_pdptes(h, h.arch.cr3)?;
    }
    if (new ^ old) & cr0::PG != 0 {
        let lma = if new & cr0::PG != 0 && h.arch.efer & efer::LME != 0 { efer::LMA } else { 0 };
        h.arch.efer = h.arch.efer & !efer::LMA | lma;
    }
    if (new ^ old) & (cr0::PG | cr0::PE) != 0 {
        h.core.mmu.drop_spaces(|_| true);
    }
    h.arch.cr0 = new;
    Ok(())
}

/// CR3, as MOV and a task switch load it.
pub(crate) fn load_cr3(h: &mut P, value: u64) -> Step {
    let pcide = h.arch.cr4 & cr4::PCIDE != 0;
    let keep = pcide && value & KEEP != 0;
    let value = if pcide { value & !KEEP } else { value };
    if h.arch.pae_paging() {
        load_pdptes(h, value)?;
    }
    if !keep {
        let pcid = if pcide { value & 0xfff } else { 0 };
        let guest = h.arch.extension.facts();
        let is_whose = |k: u64| k & 0xfff == pcid && (k >> 12 ^ guest.address_space) & guest.linear_mask == 0;
        h.core.mmu.drop_spaces(|k| is_whose(k.0 >> 8));
    }
    h.arch.cr3 = value;
    h.all_changed();
    Ok(())
}

/// The four PDPTEs of PAE paging, which must not have reserved bits set ("PDPTE Registers").
pub(crate) fn load_pdptes(h: &mut P, cr3: u64) -> Step {
    if h.arch.extension.walks_pdptes() {
        return Ok(());
    }
    let reserved = h.arch.controls().pdpte_reserved();
    let mut pdptes = [0; 4];
    for (i, pdpte) in pdptes.iter_mut().enumerate() {
        let at = (cr3 & 0xffff_ffe0) + 8 * i as u64;
        *pdpte = read_entry(h, at, 8, None)?;
        h.fault_if(*pdpte & 1 != 0 && *pdpte & reserved != 0, Exception::gp(0))?;
    }
    h.arch.pdptes = pdptes;
    Ok(())
}

fn check_cr4(h: &P, value: u64) -> Step {
    let (old, gp) = (h.arch.cr4, Exception::gp(0));
    let more = h.arch.extension.get().map_or(0, |e| e.cr4_bits());
    h.fault_if(value & !(h.arch.model.cr4_bits() | more) != 0, gp)?;
    h.fault_if(value & cr4::CET != 0 && h.arch.cr0 & cr0::WP == 0, gp)?;
    if h.arch.is_long() {
        // IA-32e mode needs PAE, and keeps its levels.
        h.fault_if(value & cr4::PAE == 0 || (value ^ old) & cr4::LA57 != 0, gp)?;
    }
    let sets_pcide = value & !old & cr4::PCIDE != 0;
    h.fault_if(sets_pcide && (!h.arch.is_long() || h.arch.cr3 & 0xfff != 0), gp)
}

fn write_cr4(h: &mut P, value: u64) -> Step {
    let old = h.arch.cr4;
    // Changes of these bits drop all translations; the others of rights are part of a space's key, or do no harm.
    const DROPS: u64 = cr4::PSE | cr4::PAE | cr4::PGE | cr4::PCIDE | cr4::SMEP | cr4::PKE | cr4::PKS | cr4::LA57;
    h.arch.cr4 = value;
    let is_pae = h.arch.cr0 & cr0::PG != 0 && value & cr4::PAE != 0 && !h.arch.is_long();
    if is_pae
        && (value ^ old) & (cr4::PAE | cr4::PGE | cr4::PSE | cr4::SMEP) != 0
        && let Err(stop) = load_pdptes(h, h.arch.cr3)
    {
        h.arch.cr4 = old;
        return Err(stop);
    }
    if (value ^ old) & DROPS != 0 {
        h.core.mmu.drop_spaces(|_| true);
    }
    Ok(())
}

pub(crate) fn clts(h: &mut P, _: u32) -> Step {
    h.require_cpl_0()?;
    ask_after(h, || Intercept::Clts)?;
    if let Some(value) = extension::write_cr(h, 0, h.arch.cr0 & !cr0::TS)? {
        write_cr0(h, value)?;
    }
    h.all_changed();
    Ok(())
}

/// LMSW: PE can be set, and not cleared.
pub(crate) fn lmsw(h: &mut P, operand: u32) -> Step {
    h.require_cpl_0()?;
    let low = first(h) & (cr0::PE | cr0::MP | cr0::EM | cr0::TS);
    let (source, memory) = (first(h) as u16, (operand != 0).then(|| h.reg(temp::ADDRESS)));
    ask_after(h, || Intercept::Lmsw { source, memory })?;
    let value = h.arch.cr0 & !(cr0::MP | cr0::EM | cr0::TS) | low;
    if let Some(value) = extension::write_cr(h, 0, value)? {
        write_cr0(h, value)?;
    }
    h.all_changed();
    Ok(())
}

/// What UMIP keeps from programs.
pub(crate) fn require_no_umip(h: &P) -> Step {
    h.fault_if(h.arch.cr4 & cr4::UMIP != 0 && h.arch.cpl() != 0, Exception::gp(0))
}

pub(crate) fn smsw(h: &mut P, _: u32) -> Step {
    require_no_umip(h)?;
    ask_after(h, || Intercept::Smsw)?;
    let value = extension::read_cr(h, 0, h.arch.cr0);
    set(h, temp::FIRST, value);
    Ok(())
}
