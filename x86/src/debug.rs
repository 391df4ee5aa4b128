//! Debug registers (SDM vol. 3B, "Debug Registers", "Debug Exceptions").
//!
//! Pages that hold an enabled breakpoint are never kept in the TLB, so that each access to them comes past [`sees`].

use emu_core::engine::{Access, Intent, Step};

use crate::control::{DR7_ENABLES, cr4, dr6, dr7};
use crate::exception::{Exception, vector};
use crate::extension::{Intercept, ask_after, ask_before};
use crate::lbr;
use crate::processor::{P, ProcessorExt, X86};
use crate::system::{reg, set};

/// DR6 after RESET: the bits that are always 1.
pub const DR6_RESET: u64 = 0xffff_0ff0;
/// DR7 after RESET.
pub const DR7_RESET: u64 = 0x400;

/// Bits of DR6 that hardware sets.
const DR6_WRITABLE: u64 = dr6::B0 | dr6::B1 | dr6::B2 | dr6::B3 | dr6::BD | dr6::BS | dr6::BT;

/// What a breakpoint waits for: R/W0 to R/W3 in DR7.
#[derive(Clone, Copy, PartialEq, Eq)]
enum On {
    Execution,
    Write,
    Port,
    Access,
}

/// An enabled breakpoint: its number, kind, first address, length in bytes.
fn enabled(p: &X86) -> impl Iterator<Item = (u32, On, u64, u64)> + '_ {
    (0..4).filter(|i| p.dr7 >> (2 * i) & 3 != 0).map(|i| {
        let field = p.dr7 >> (16 + 4 * i);
        let on = match field & 3 {
            0 => On::Execution,
            1 => On::Write,
            2 => On::Port,
            _ => On::Access,
        };
        let length = [1, 2, 8, 4][(field >> 2 & 3) as usize];
        (i, on, p.dr[i as usize] & !(length - 1), length)
    })
}

/// Whether there is an enabled breakpoint on instructions, or on data.
pub(crate) fn watches(p: &X86, instructions: bool) -> bool {
    enabled(p).any(|(_, on, ..)| match on {
        On::Execution => instructions,
        On::Write | On::Access => !instructions,
        On::Port => false,
    })
}

/// What [`sees`] says of an access.
#[derive(Clone, Copy, Default)]
pub(crate) struct Seen {
    /// Its page holds a breakpoint of its kind.
    pub(crate) is_near: bool,
    /// Breakpoints on data that it matches: bits of DR6. They are [`hit`] once nothing of the access faults.
    pub(crate) hits: u64,
}

/// An access comes by. An instruction at a breakpoint faults.
pub(crate) fn sees(h: &P, access: Access) -> Step<Seen> {
    if h.arch.dr7 & DR7_ENABLES == 0 {
        return Ok(Seen::default());
    }
    let (first, last) = (access.va, access.va.wrapping_add(u64::from(access.size).max(1) - 1));
    let is_fetch = access.intent == Intent::Fetch;
    let (mut is_near, mut hits) = (false, 0);
    for (i, on, at, length) in enabled(h.arch) {
        let is_kind = match on {
            On::Execution => is_fetch,
            On::Write | On::Access => !is_fetch,
            On::Port => false,
        };
        if !is_kind {
            continue;
        }
        is_near |= at >> 12 == access.va >> 12 || (at + length - 1) >> 12 == access.va >> 12;
        let is_hit = match on {
            On::Execution => at == first,
            On::Write => access.intent == Intent::Write && at <= last && first < at + length,
            _ => at <= last && first < at + length,
        };
        hits |= u64::from(is_hit) << i;
    }
    // Processors of Intel have none behind MOV SS ("Masking Exceptions and Interrupts When Switching Stacks").
    let is_held = h.arch.model.is_intel() && h.arch.shadow_holds_traps && h.arch.shadow == Some(h.core.retired());
    if is_fetch && hits != 0 && !h.resumes() && access.va == h.core.pc && !is_held {
        return Err(Exception { vector: vector::DB, error: None, address: hits }.into());
    }
    Ok(Seen { is_near, hits: if is_fetch { 0 } else { hits } })
}

/// The present instruction faults: what it has matched before is not told, for it will be matched again. What MOV SS holds is not its own.
pub(crate) fn forget_matches(h: &mut P) {
    if !h.arch.shadow_holds_traps {
        h.arch.debug_trap = 0;
    }
}

/// An access to a port comes by ("I/O breakpoints").
pub(crate) fn sees_port(h: &mut P, port: u64, size: u8) {
    if h.arch.dr7 & DR7_ENABLES == 0 || h.arch.cr4 & cr4::DE == 0 {
        return;
    }
    let hits = enabled(h.arch)
        .filter(|(_, on, at, length)| *on == On::Port && *at < port + u64::from(size) && port < at + length)
        .fold(0, |hits, (i, ..)| hits | 1 << i);
    hit(h, hits);
}

/// Breakpoints have been hit that are traps.
pub(crate) fn hit(h: &mut P, hits: u64) {
    if hits != 0 && !h.arch.extension.discards_breakpoints() {
        trap_behind(h, hits);
    }
}

/// A debug exception comes behind the present instruction.
pub(crate) fn trap_behind(h: &mut P, bits: u64) {
    h.arch.debug_trap |= bits;
    h.core.check_interrupts = true;
    h.core.leave = true;
}

/// What #DB does to DR6, DR7 and IA32_DEBUGCTL.
pub(crate) fn record(p: &mut X86, bits: u64) {
    lbr::debug_exception(p);
    p.dr6 = p.dr6 & !0xf | bits;
    p.dr7 &= !dr7::GD;
}

/// The register that DR4 or DR5 is another name of, unless CR4.DE makes them undefined.
fn number(h: &P, n: u32) -> Step<u32> {
    h.fault_if(matches!(n, 4 | 5) && h.arch.cr4 & cr4::DE != 0, Exception::UD)?;
    Ok(if matches!(n, 4 | 5) { n + 2 } else { n })
}

/// General detect: any access to debug registers faults.
fn require_no_detect(h: &P) -> Step {
    let detected = Exception { vector: vector::DB, error: None, address: dr6::BD };
    h.fault_if(h.arch.dr7 & dr7::GD != 0, detected)
}

/// MOV from a debug register: its number is above the general register's in the operand.
pub(crate) fn mov_from_dr(h: &mut P, operand: u32) -> Step {
    let (n, register) = (operand >> 8, operand as u8);
    let what = Intercept::MovFromDr { dr: n as u8, register };
    h.require_cpl_0()?;
    let n = number(h, n)?;
    ask_before(h, || what)?;
    require_no_detect(h)?;
    ask_after(h, || what)?;
    let value = match n {
        6 => h.arch.dr6,
        7 => h.arch.dr7,
        n => h.arch.dr[n as usize & 3],
    };
    set(h, register, value);
    Ok(())
}

/// MOV to a debug register.
pub(crate) fn mov_to_dr(h: &mut P, operand: u32) -> Step {
    let (n, register, value) = (operand >> 8, operand as u8, reg(h, operand));
    let value = if h.arch.is_64() { value } else { value & 0xffff_ffff };
    let what = Intercept::MovToDr { dr: n as u8, register };
    h.require_cpl_0()?;
    let n = number(h, n)?;
    ask_before(h, || what)?;
    require_no_detect(h)?;
    h.fault_if(n >= 6 && value >> 32 != 0, Exception::gp(0))?;
    ask_after(h, || what)?;
    match n {
        6 => h.arch.dr6 = value & DR6_WRITABLE | DR6_RESET,
        7 => h.arch.dr7 = value & 0xffff_2bff | DR7_RESET,
        n => h.arch.dr[n as usize & 3] = value,
    }
    // Pages that are watched now may be held.
    h.core.mmu.drop_spaces(|_| true);
    h.all_changed();
    Ok(())
}
