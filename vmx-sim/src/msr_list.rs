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

/// Loads a list. An error is the number of the entry that failed, the first being 1.
pub(crate) fn load(vmx: &mut Vmx, h: &mut P, address: u64, count: u64, is_entry: bool) -> Result<(), u64> {
    for i in 0..count {
        let failed = Err(i + 1);
        if i == MSR_LIST_MAX {
            return failed;
        }
        let at = address + 16 * i;
        let index = h.read_physical(at, 8).unwrap_or(u64::MAX);
        let msr = index as u32;
        let refused = matches!(msr, FS_BASE | GS_BASE | SMM_MONITOR_CTL)
            || is_entry && matches!(msr, BIOS_UPDT_TRIG | BIOS_SIGN_ID)
            || is_x2apic(msr);
        if index >> 32 != 0 || refused {
            return failed;
        }
        let value = h.read_physical(at + 8, 8).unwrap_or(u64::MAX);
        if vmx.write_any_msr(h, msr, value).is_err() {
            return failed;
        }
    }
    Ok(())
}

/// Stores a list; likewise.
pub(crate) fn store(vmx: &mut Vmx, h: &mut P, address: u64, count: u64) -> Result<(), u64> {
    for i in 0..count {
        let failed = Err(i + 1);
        if i == MSR_LIST_MAX {
            return failed;
        }
        let at = address + 16 * i;
        let index = h.read_physical(at, 8).unwrap_or(u64::MAX);
        let msr = index as u32;
        if index >> 32 != 0 || is_x2apic(msr) || msr == SMBASE {
            return failed;
        }
        let Ok(value) = vmx.read_any_msr(h, msr) else { return failed };
        let _ = h.write_physical(at + 8, 8, value);
    }
    Ok(())
}
