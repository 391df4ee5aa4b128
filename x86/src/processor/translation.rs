//! From linear addresses to physical ones (SDM vol. 3A, "Paging"): the walk through page tables, behind which an extension may have a second
//! stage.

use emu_core::engine::{Access, Intent, Step, Stop, StopKind};
use emu_core::tlb::{Mapping, Space, SpaceKey};

use super::{AS_PROCESSOR, AS_SUPERVISOR_SHADOW, AS_USER_SHADOW, P, X86};
use crate::control::{cr0, cr4, rflags};
use crate::exception::{Exception, vector};
use crate::extension::{self, SecondAccess};
use crate::paging::{self, Fail, Kind, Rights, Tables};
use crate::{debug, msr};

/// The second stage refuses a guest-physical address.
pub(super) const SECOND_STAGE: u32 = u32::MAX - 2;
/// A linear address that is not canonical: #SS or #GP, as the segment has it.
pub(crate) const NON_CANONICAL: u32 = u32::MAX;

/// Physical memory as the walk of page tables reaches it.
struct Physical<'a, 'b> {
    h: &'a mut P<'b>,
    linear: Option<u64>,
    has_second: bool,
}

impl Physical<'_, '_> {
    /// Where an entry is.
    #[inline]
    fn place(&mut self, address: u64, size: u8, kind: Kind) -> Step<u64> {
        let physical = if self.has_second {
            let access = SecondAccess {
                address,
                size,
                kind,
                linear: self.linear,
                is_entry: true,
                page: Rights::ALL,
                user: false,
                shadow_stack: false,
            };
            second_stage(self.h, access)?.physical
        } else {
            address
        };
        Ok(self.h.arch.on_bus(physical, false))
    }
}

impl Tables for Physical<'_, '_> {
    type Stop = Stop;

    #[inline]
    fn read(&mut self, address: u64, size: u8) -> Step<u64> {
        let at = self.place(address, size, Kind::Read)?;
        Ok(self.h.read_physical(at, size).unwrap_or(u64::MAX >> (64 - 8 * u32::from(size))))
    }

    fn write(&mut self, address: u64, size: u8, value: u64) -> Step {
        let at = self.place(address, size, Kind::Write)?;
        let _ = self.h.write_physical(at, size, value);
        Ok(())
    }
}

#[inline(never)]
fn second_stage(h: &mut P, access: SecondAccess) -> Step<extension::SecondStage> {
    let answer = extension::second_stage(h, access).expect("it has a second stage");
    answer.map_err(|why| {
        h.arch.refused = Some((access, why));
        Stop::exception(SECOND_STAGE, access.address)
    })
}

/// Reads physical memory as paging does: through the second stage, if there is one.
pub(crate) fn read_entry(h: &mut P, address: u64, size: u8, linear: Option<u64>) -> Step<u64> {
    let has_second = h.arch.extension.has_second_stage();
    Physical { h, linear, has_second }.read(address, size)
}

/// The exception that a stop stands for, now that it is known whose it is; or an exit of the extension.
pub(crate) fn exception_of(h: &mut P, stop: Stop) -> Step<Exception> {
    match (stop.kind(), stop.code()) {
        (StopKind::Exception, SECOND_STAGE) => {
            let (access, why) = h.arch.refused.take().expect("the second stage has refused");
            let answer = extension::act(h, |e, h| e.second_stage_fault(h, access, why)).unwrap_or(stop);
            if answer.kind() == StopKind::Exception { Ok(Exception::of(answer)) } else { Err(answer) }
        }
        (StopKind::Exception, NON_CANONICAL) => Ok(Exception::gp(0)),
        (StopKind::Exception, _) => Ok(Exception::of(stop)),
        _ => Err(stop),
    }
}

/// An access, as the rights of pages ask for it.
fn rights(arch: &X86, as_whom: u8, intent: Intent) -> paging::Access {
    let kind = match intent {
        Intent::Read => Kind::Read,
        Intent::Write => Kind::Write,
        Intent::Fetch => Kind::Fetch,
    };
    let ac = arch.rflags & rflags::AC != 0;
    let (user, implicit, shadow_stack) = match as_whom {
        AS_PROCESSOR => (false, true, false),
        AS_USER_SHADOW => (true, false, true),
        AS_SUPERVISOR_SHADOW => (false, true, true),
        _ => (arch.cpl() == 3, false, false),
    };
    paging::Access { kind, user, implicit, ac, shadow_stack }
}

/// What translations are tagged with: who asks, what rights depend on, PCID.
pub(super) fn space(h: &mut P, as_whom: u8, intent: Intent) -> Space {
    if as_whom == 0 {
        // Asked whenever CPL may have changed.
        msr::perf::privilege_changed(h);
    }
    let a = &h.arch;
    let access = rights(a, as_whom, intent);
    let smap = a.cr4 & cr4::SMAP != 0 && !access.user && (access.implicit || !access.ac);
    let wp = a.cr0 & cr0::WP != 0;
    let pcid = if a.cr4 & cr4::PCIDE != 0 { a.cr3 & 0xfff } else { 0 };
    let bits = [access.user, smap, wp, a.checks_alignment() && as_whom == 0];
    let who = bits.iter().rev().fold(a.controls().mode() as u64, |who, bit| who << 1 | u64::from(*bit));
    let who = who | u64::from(access.shadow_stack) << 7;
    let keys = if a.cr4 & (cr4::PKE | cr4::PKS) != 0 { u64::from(a.pkru) | u64::from(a.pkrs) << 32 } else { 0 };
    let guest = a.extension.address_space();
    h.core.mmu.intern(SpaceKey(who | pcid << 8 | guest << 20, keys))
}

pub(super) fn walk(h: &mut P, access: Access) -> Step<Mapping> {
    let controls = h.arch.controls();
    let va = if h.arch.is_long() { access.va } else { access.va & 0xffff_ffff };
    let va = if access.intent == Intent::Fetch { va } else { controls.without_metadata(va) };
    let has_metadata = va != access.va;
    let access = Access { va, ..access };
    if !controls.is_canonical(va) {
        return Err(Stop::exception(NON_CANONICAL, va));
    }
    debug_assert!(!h.arch.extension.is_missed(), "an extension reaches its guest's memory through as_guest");
    let seen = debug::sees(h, access)?;
    let how = rights(h.arch, access.as_whom, access.intent);
    let has_second = h.arch.extension.has_second_stage();
    let t = match controls.translate(&mut Physical { h, linear: Some(va), has_second }, va, how) {
        Ok(t) => t,
        Err(Fail::PageFault(error)) => {
            return Err(Exception { vector: vector::PF, error: Some(error as u16), address: va }.into());
        }
        Err(Fail::Stop(stop)) => return Err(stop),
    };
    let gpa = t.physical & !0xfff;
    let size_log2 = if t.size_log2 == 32 { 12 } else { t.size_log2 };
    let is_fetch = access.intent == Intent::Fetch;
    let (mut pa, mut guest_size_log2, mut read, mut write) = (h.arch.on_bus(gpa, is_fetch), 0, t.read, t.write);
    let mut is_part = false;
    if has_second {
        let access = SecondAccess {
            address: t.physical,
            size: access.size,
            kind: how.kind,
            linear: Some(va),
            is_entry: false,
            page: t.rights,
            user: how.user,
            shadow_stack: how.shadow_stack,
        };
        let second = second_stage(h, access)?;
        pa = h.arch.on_bus(second.physical & !0xfff, is_fetch);
        guest_size_log2 = second.size_log2;
        is_part = matches!(second.size_log2, 1..12);
        read &= second.read;
        write &= second.write;
    }
    debug::hit(h, seen.hits);
    let is_own = pa & extension::OWN != 0 || h.arch.apic.page() == Some(pa);
    // What is held for a page, INVLPG finds by its address.
    let keep = !seen.is_near && !is_own && !h.arch.checks_alignment() && !has_metadata && !is_part;
    Ok(Mapping { pa, gpa, size_log2, guest_size_log2, read, write, keep })
}
