//! Lists of MSRs that VM entries and exits load and store (SDM vol. 3C, "Loading MSRs", "Saving MSRs"). An entry has 16 bytes: the MSR's number,
//! 32 reserved bits, its value.

use x86::processor::P;

use crate::capability::MSR_LIST_MAX;
use crate::vmx::Vmx;

const FS_BASE: u32 = 0xc000_0100;
const GS_BASE: u32 = 0xc000_0101;
const BIOS_UPDT_TRIG: u32 = 0x79;
const BIOS_SIGN_ID: u32 = 0x8b;
const SMM_MONITOR_CTL: u32 = 0x9b;
const SMBASE: u32 = 0x9e;

fn is_x2apic(msr: u32) -> bool {
    msr >> 8 == 8
}

/// Goes through a list, with each entry's MSR and where its value stands, until one fails. An error is the number of that entry, the first
/// being 1.
fn each(h: &mut P, address: u64, count: u64, mut f: impl FnMut(&mut P, u32, u64) -> Option<()>) -> Result<(), u64> {
    for i in 0..count {
        let mut entry = || {
            if i == MSR_LIST_MAX {
                return None;
            }
            let at = address + 16 * i;
            let index = h.read_physical(at, 8).unwrap_or(u64::MAX);
            // Bits 63 to 32 are reserved.
            let msr = u32::try_from(index).ok().filter(|msr| !is_x2apic(*msr))?;
            f(h, msr, at + 8)
        };
        entry().ok_or(i + 1)?;
    }
    Ok(())
}

/// Loads a list.
pub(crate) fn load(vmx: &mut Vmx, h: &mut P, address: u64, count: u64, is_entry: bool) -> Result<(), u64> {
    each(h, address, count, |h, msr, at| {
        let refused = matches!(msr, FS_BASE | GS_BASE | SMM_MONITOR_CTL)
            || is_entry && matches!(msr, BIOS_UPDT_TRIG | BIOS_SIGN_ID);
        if refused {
            return None;
        }
        let value = h.read_physical(at, 8).unwrap_or(u64::MAX);
        vmx.write_any_msr(h, msr, value).ok()
    })
}

/// Stores a list.
pub(crate) fn store(vmx: &mut Vmx, h: &mut P, address: u64, count: u64) -> Result<(), u64> {
    each(h, address, count, |h, msr, at| {
        if msr == SMBASE {
            return None;
        }
        let value = vmx.read_any_msr(h, msr).ok()?;
        let _ = h.write_physical(at, 8, value);
        Some(())
    })
}
