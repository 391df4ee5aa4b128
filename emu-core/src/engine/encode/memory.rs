//! Loads and stores: one entry of the TLB is probed, and what does not hit takes the slow path.
#![allow(unsafe_code)] // the engine is one of the two places of `unsafe`, see docs/design.md

use super::*;

/// The entry that a data access to `va` probes.
#[inline(always)]
pub(super) unsafe fn probe(core: *mut Core, va: u64) -> *const Fast {
    const MASK: u64 = (DATA_ENTRIES as u64 - 1) << 5;
    // SAFETY: `tlb` points to `DATA_ENTRIES` entries of 32 bytes.
    unsafe { (*core).tlb.cast::<u8>().add(((fold(va) ^ (*core).mix) & MASK) as usize).cast() }
}

/// The tag that lets an access of `size` bytes at `va` through: that of its last byte's page, so that an access across
/// pages (whose entry is the first page's) never hits.
#[inline(always)]
pub(super) unsafe fn wanted(core: *mut Core, va: u64, size: u8) -> u64 {
    // SAFETY: as for `Handler`.
    unsafe { va.wrapping_add(size as u64 - 1) & !PAGE_MASK | (*core).space_id }
}

/// A word anywhere. Reading and writing it takes no address of a local, which would end the handlers' jumping (as
/// `read_unaligned` does where debug assertions are on).
#[repr(C, packed)]
pub(super) struct Anywhere<T>(T);

/// The value that a probe has let through.
#[inline(always)]
pub(super) unsafe fn host_load<W: Access>(va: u64, entry: *const Fast) -> u64 {
    // SAFETY: the tag fits, so the addend leads to the host's copy of that page.
    unsafe {
        let host = va.wrapping_add((*entry).addend) as *const u8;
        let value = match W::WIDTH.bytes() {
            1 => u64::from(*host),
            2 => u64::from(u16::from_le((*host.cast::<Anywhere<u16>>()).0)),
            4 => u64::from(u32::from_le((*host.cast::<Anywhere<u32>>()).0)),
            _ => u64::from_le((*host.cast::<Anywhere<u64>>()).0),
        };
        W::WIDTH.extend(value)
    }
}

#[inline(always)]
pub(super) unsafe fn host_store<W: Access>(va: u64, entry: *const Fast, value: u64) {
    // SAFETY: as in `host_load`.
    unsafe {
        let host = va.wrapping_add((*entry).addend) as *mut u8;
        match W::WIDTH.bytes() {
            1 => *host = value as u8,
            2 => (*host.cast::<Anywhere<u16>>()).0 = (value as u16).to_le(),
            4 => (*host.cast::<Anywhere<u32>>()).0 = (value as u32).to_le(),
            _ => (*host.cast::<Anywhere<u64>>()).0 = value.to_le(),
        }
    }
}

pub(super) unsafe fn load<W: Access, const A: bool>(core: *mut Core, op: *const Op, budget: i64, last: u64) -> Exit {
    // SAFETY: as in `reg_reg`.
    unsafe {
        let va = first::<A>(core, op, last).wrapping_add((*op).imm as i64 as u64);
        let entry = probe(core, va);
        if (*entry).read != wanted(core, va, W::WIDTH.bytes()) {
            return load_slow::<W>(core, op, budget, va);
        }
        let result = host_load::<W>(va, entry);
        set(core, (*op).d, result);
        goto!(core, op.add(1), budget, result)
    }
}

pub(super) unsafe fn load_indexed<W: Access, const SCALE: u8>(
    core: *mut Core,
    op: *const Op,
    budget: i64,
    _last: u64,
) -> Exit {
    // SAFETY: as in `load`.
    unsafe {
        let va = get(core, (*op).a).wrapping_add(get(core, (*op).b) << SCALE).wrapping_add((*op).imm as i64 as u64);
        let entry = probe(core, va);
        if (*entry).read != wanted(core, va, W::WIDTH.bytes()) {
            return load_slow::<W>(core, op, budget, va);
        }
        let result = host_load::<W>(va, entry);
        set(core, (*op).d, result);
        goto!(core, op.add(1), budget, result)
    }
}

pub(super) unsafe fn load_to_update<W: Access>(core: *mut Core, op: *const Op, budget: i64, _last: u64) -> Exit {
    // SAFETY: as in `load`. A page that stores may go to can be loaded from where `read` fits as well.
    unsafe {
        let va = get(core, (*op).a).wrapping_add((*op).imm as i64 as u64);
        let entry = probe(core, va);
        let tag = wanted(core, va, W::WIDTH.bytes());
        if (*entry).write != tag || (*entry).read != tag {
            (*core).budget = budget;
            (*core).op = op;
            if !((*core).hooks.may_store)(core, va, W::WIDTH.bytes()) {
                return stopped(core, Exit::Stop);
            }
            return load_slow::<W>(core, op, budget, va);
        }
        let result = host_load::<W>(va, entry);
        set(core, (*op).d, result);
        goto!(core, op.add(1), budget, result)
    }
}

pub(super) unsafe fn load_past<W: Access, const A: bool>(
    core: *mut Core,
    op: *const Op,
    budget: i64,
    last: u64,
) -> Exit {
    // SAFETY: as in `load`.
    unsafe {
        let va = first::<A>(core, op, last);
        let entry = probe(core, va);
        let result = if (*entry).read == wanted(core, va, W::WIDTH.bytes()) {
            host_load::<W>(va, entry)
        } else {
            (*core).budget = budget;
            (*core).op = op;
            if !((*core).hooks.load)(core, va, W::WIDTH.bytes()) {
                return stopped(core, Exit::Stop);
            }
            W::WIDTH.extend((*core).value)
        };
        let past = va.wrapping_add((*op).imm as i64 as u64);
        set(core, (*op).a, past);
        set(core, (*op).d, result);
        // What the base holds now: a stack's pointer is what comes next.
        let last = if (*op).d == (*op).a { result } else { past };
        if (*core).leave {
            return leave_behind(core, op, budget, last);
        }
        goto!(core, op.add(1), budget, last)
    }
}

#[cold]
#[inline(never)]
pub(super) unsafe fn load_slow<W: Access>(core: *mut Core, op: *const Op, budget: i64, va: u64) -> Exit {
    // SAFETY: as in `reg_reg`.
    unsafe {
        (*core).budget = budget;
        (*core).op = op;
        if !((*core).hooks.load)(core, va, W::WIDTH.bytes()) {
            return stopped(core, Exit::Stop);
        }
        let result = W::WIDTH.extend((*core).value);
        set(core, (*op).d, result);
        if (*core).leave {
            return leave_behind(core, op, budget, result);
        }
        goto!(core, op.add(1), budget, result)
    }
}

/// The micro-op has been done, and the vCPU is to leave behind its instruction.
#[cold]
#[inline(never)]
pub(super) unsafe fn leave_behind(core: *mut Core, op: *const Op, budget: i64, last: u64) -> Exit {
    // SAFETY: as for `Handler`.
    unsafe {
        (*core).budget = budget;
        (*core).op = op;
        (*core).last = last;
        Exit::Leave
    }
}

/// Stands behind the last micro-op of an instruction whose rest is run by itself.
pub(crate) unsafe fn end_of_instruction(core: *mut Core, op: *const Op, budget: i64, last: u64) -> Exit {
    // SAFETY: as for `Handler`.
    unsafe { leave_behind(core, op, budget, last) }
}

pub(super) unsafe fn store<W: Access, const A: bool, const B: bool>(
    core: *mut Core,
    op: *const Op,
    budget: i64,
    last: u64,
) -> Exit {
    // SAFETY: as in `load`.
    unsafe {
        let va = first::<A>(core, op, last).wrapping_add((*op).imm as i64 as u64);
        let value = second::<B>(core, op, last);
        let entry = probe(core, va);
        if (*entry).write != wanted(core, va, W::WIDTH.bytes()) {
            (*core).value = value;
            return store_slow::<W>(core, op, budget, last, va);
        }
        host_store::<W>(va, entry, value);
        goto!(core, op.add(1), budget, last)
    }
}

pub(super) unsafe fn store_indexed<W: Access, const SCALE: u8>(
    core: *mut Core,
    op: *const Op,
    budget: i64,
    last: u64,
) -> Exit {
    // SAFETY: as in `load`.
    unsafe {
        let va = get(core, (*op).a).wrapping_add(get(core, (*op).b) << SCALE).wrapping_add((*op).imm as i64 as u64);
        let value = get(core, (*op).d);
        let entry = probe(core, va);
        if (*entry).write != wanted(core, va, W::WIDTH.bytes()) {
            (*core).value = value;
            return store_slow::<W>(core, op, budget, last, va);
        }
        host_store::<W>(va, entry, value);
        goto!(core, op.add(1), budget, last)
    }
}

pub(super) unsafe fn store_back<W: Access, const A: bool>(
    core: *mut Core,
    op: *const Op,
    budget: i64,
    last: u64,
) -> Exit {
    // SAFETY: as in `load`.
    unsafe {
        let va = first::<A>(core, op, last).wrapping_add((*op).imm as i64 as u64);
        let value = get(core, (*op).b);
        let entry = probe(core, va);
        if (*entry).write == wanted(core, va, W::WIDTH.bytes()) {
            host_store::<W>(va, entry, value);
        } else {
            (*core).budget = budget;
            (*core).op = op;
            (*core).value = value;
            if !((*core).hooks.store)(core, va, W::WIDTH.bytes()) {
                return stopped(core, Exit::Stop);
            }
        }
        set(core, (*op).a, va);
        if (*core).leave {
            return leave_behind(core, op, budget, va);
        }
        goto!(core, op.add(1), budget, va)
    }
}

#[cold]
#[inline(never)]
pub(super) unsafe fn store_slow<W: Access>(core: *mut Core, op: *const Op, budget: i64, last: u64, va: u64) -> Exit {
    // SAFETY: as in `load`.
    unsafe {
        (*core).budget = budget;
        (*core).op = op;
        if !((*core).hooks.store)(core, va, W::WIDTH.bytes()) {
            return stopped(core, Exit::Stop);
        }
        if (*core).leave {
            return leave_behind(core, op, budget, last);
        }
        goto!(core, op.add(1), budget, last)
    }
}
