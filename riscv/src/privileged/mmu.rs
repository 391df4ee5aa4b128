//! Address translation (volume II, "Sv39/48/57: Page-Based Virtual-Memory Systems" and "Two-Stage Address Translation").
//!
//! A virtual address of Sv39 (48, 57: one and two more VPNs on the left; for guest-physical addresses the leftmost is two
//! bits wider):
//!
//! ```text
//! 38      30 29      21 20      12 11           0
//! [ VPN[2] ] [ VPN[1] ] [ VPN[0] ] [ page offset ]
//! ```

use emu_core::engine::{Access, Hart, Intent, Step, Stop};
use emu_core::tlb::{Mapping, Space, SpaceKey};

use super::csr::{envcfg, hgatp, hstatus, mstatus, satp};
use super::{cause, pmp};
use crate::cpu::Ext;
use crate::hart::{FaultDetails, Priv, Riscv};

type H<'a> = Hart<'a, Riscv>;

/// As whom an access is made: as the hart is (with MPRV, for loads and stores).
pub(crate) const AS_SELF: u8 = 0;
/// As HLV and HSV do.
pub(crate) const AS_GUEST: u8 = 1;
/// As HLVX does.
pub(crate) const AS_GUEST_EXECUTE: u8 = 2;
/// As the hart is, without MPRV and without effects: the debugger.
pub(crate) const AS_DEBUGGER: u8 = 3;

/// Page table entries.
mod pte {
    pub(super) const V: u64 = 1;
    pub(super) const R: u64 = 1 << 1;
    pub(super) const W: u64 = 1 << 2;
    pub(super) const X: u64 = 1 << 3;
    pub(super) const U: u64 = 1 << 4;
    pub(super) const A: u64 = 1 << 6;
    pub(super) const D: u64 = 1 << 7;
    pub(super) const RESERVED: u64 = 0x7f << 54;
    pub(super) const PBMT: u64 = 3 << 61;
    pub(super) const N: u64 = 1 << 63;
    pub(super) fn ppn(e: u64) -> u64 {
        e >> 10 & ((1 << 44) - 1)
    }
}

/// The mode that an access is made in.
#[derive(Clone, Copy, Debug)]
struct Who {
    mode: Priv,
    v: bool,
    /// SUM of the stage that translates virtual addresses.
    sum: bool,
    /// MXR of that stage, and of both.
    mxr: bool,
    /// MXR for both stages: mstatus.MXR.
    mxr_both: bool,
    /// Executable is what counts, not readable.
    hlvx: bool,
}

fn who(h: &H, as_whom: u8, intent: Intent) -> Who {
    let a = &h.arch;
    let (mut mode, mut v) = (a.mode, a.v);
    let status = a.csr.mstatus;
    match as_whom {
        AS_GUEST | AS_GUEST_EXECUTE => {
            v = true;
            mode = Priv::from_bits(hstatus::SPVP.of(a.csr.hstatus));
        }
        AS_SELF if intent != Intent::Fetch && mstatus::MPRV.is(status) && a.nmie() => {
            mode = Priv::from_bits(mstatus::MPP.of(status));
            v = mode != Priv::Machine && mstatus::MPV.is(status);
        }
        _ => {}
    }
    if intent == Intent::Fetch {
        return Who { mode, v, sum: false, mxr: false, mxr_both: false, hlvx: false };
    }
    let own = if v { a.csr.vsstatus } else { status };
    let mxr_both = mstatus::MXR.is(status);
    Who {
        mode,
        v,
        sum: mstatus::SUM.is(own),
        mxr: mxr_both || mstatus::MXR.is(own),
        mxr_both,
        hlvx: as_whom == AS_GUEST_EXECUTE,
    }
}

/// What translations are tagged with: mode and rights, ASID and VMID. Not the root of the page table: a change of satp
/// alone invalidates nothing ("Supervisor Memory-Management Fence Instruction").
pub(crate) fn space(h: &mut H, as_whom: u8, intent: Intent) -> Space {
    let w = who(h, as_whom, intent);
    let key = if w.mode == Priv::Machine {
        SpaceKey(Priv::Machine as u64, 0)
    } else {
        let c = &h.arch.csr;
        let (table, g) = if w.v { (c.vsatp, c.hgatp) } else { (c.satp, 0) };
        let rights =
            u64::from(w.sum) << 3 | u64::from(w.mxr) << 4 | u64::from(w.mxr_both) << 5 | u64::from(w.hlvx) << 6;
        let modes = satp::MODE.of(table) << 8 | hgatp::MODE.of(g) << 12;
        SpaceKey(w.mode as u64 | u64::from(w.v) << 2 | rights | modes, satp::ASID.of(table) | hgatp::VMID.of(g) << 16)
    };
    h.core.mmu.intern(key)
}

/// Whether a key is of a virtual machine's translations.
pub(crate) fn is_guest_key(key: SpaceKey) -> bool {
    key.0 >> 2 & 1 != 0
}

fn asid_of_key(key: SpaceKey) -> u64 {
    key.1 & 0xffff
}

fn vmid_of_key(key: SpaceKey) -> u64 {
    key.1 >> 16
}

/// SFENCE.VMA and HFENCE.VVMA: drops translations of the first stage, of this ASID if one is given, of this address if one
/// is given. Global mappings are dropped with each ASID that has used them.
pub(crate) fn drop_first_stage(h: &mut H, guest: bool, vmid: u64, asid: Option<u64>, va: Option<u64>) {
    let which =
        |k: SpaceKey| is_guest_key(k) == guest && vmid_of_key(k) == vmid && asid.is_none_or(|a| a == asid_of_key(k));
    match va {
        Some(va) => h.core.mmu.drop_page(va, which),
        None => h.core.mmu.drop_spaces(which),
    }
    h.core.spaces_changed = true;
}

/// HFENCE.GVMA: drops translations through the second stage, of this VMID, of this guest-physical address.
pub(crate) fn drop_second_stage(h: &mut H, vmid: Option<u64>, gpa: Option<u64>) {
    let which = |k: SpaceKey| is_guest_key(k) && vmid.is_none_or(|v| v == vmid_of_key(k));
    match gpa {
        Some(gpa) => h.core.mmu.drop_guest_page(gpa, which),
        None => h.core.mmu.drop_spaces(which),
    }
    h.core.spaces_changed = true;
}

/// What a stage found.
#[derive(Clone, Copy)]
struct Leaf {
    pa: u64,
    size_log2: u8,
    read: bool,
    write: bool,
    /// Allows what was asked for.
    allowed: bool,
}

/// Why a walk failed.
enum Fail {
    /// Page fault of the first stage.
    Page,
    /// Guest-page fault: the guest-physical address, and the pseudoinstruction of an implicit access.
    Guest(u64, u32),
    /// Access fault.
    Access,
}

/// Pseudoinstructions for implicit accesses of 64 bits ("Transformed Instruction or Pseudoinstruction for mtinst or
/// htinst").
const PSEUDO_READ: u32 = 0x3000;
const PSEUDO_WRITE: u32 = 0x3020;

struct Walk<'a, 'b> {
    h: &'a mut H<'b>,
    who: Who,
    intent: Intent,
    /// Nothing may be changed: A and D stay, faults leave no trace.
    quiet: bool,
    /// Who wants to know of each entry that is read.
    trail: Option<&'a mut Vec<WalkStep>>,
}

/// A page table entry that a walk has read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WalkStep {
    /// It is of the G-stage.
    pub guest_stage: bool,
    /// Its level: 0 has leaves alone.
    pub level: u32,
    /// Its physical address.
    pub at: u64,
    /// What it holds.
    pub entry: u64,
}

/// One of the two stages.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// S- or VS-stage.
    First,
    /// G-stage.
    Guest,
}

impl Walk<'_, '_> {
    /// The number of levels of a mode in satp or hgatp; 0 is Bare.
    fn levels(mode: u64) -> u32 {
        match mode {
            8 => 3,
            9 => 4,
            10 => 5,
            _ => 0,
        }
    }

    /// "Virtual Address Translation Process", steps 1 to 10, for either stage.
    fn walk(&mut self, stage: Stage, register: u64, address: u64) -> Result<Leaf, Fail> {
        let levels = Self::levels(satp::MODE.of(register));
        if levels == 0 {
            return Ok(Leaf { pa: address, size_log2: 63, read: true, write: true, allowed: true });
        }
        let bits = 12 + 9 * levels;
        let fits = match stage {
            Stage::First => (address as i64) << (64 - bits) >> (64 - bits) == address as i64,
            Stage::Guest => address >> (bits + 2) == 0,
        };
        if !fits {
            return Err(self.page_fault(stage, address));
        }
        // 1.
        let mut table = satp::PPN.of(register) << 12;
        for level in (0..levels).rev() {
            // 2.
            let low = 12 + 9 * level;
            let wider = stage == Stage::Guest && level == levels - 1;
            let vpn = address >> low & if wider { 0x7ff } else { 0x1ff };
            let at = self.table_entry(stage, table + vpn * 8, false)?;
            let entry = self.h.world.ram.load(at, 8).map_err(|_| Fail::Access)?;
            if let Some(trail) = &mut self.trail {
                trail.push(WalkStep { guest_stage: stage == Stage::Guest, level, at, entry });
            }
            // 3.
            let fault = |w: &Self| Err(w.page_fault(stage, address));
            if entry & pte::V == 0 || entry & (pte::R | pte::W) == pte::W || entry & pte::RESERVED != 0 {
                return fault(self);
            }
            if entry & (pte::PBMT | pte::N) != 0 && !self.allows_extensions(stage, entry) {
                return fault(self);
            }
            // 4.
            if entry & (pte::R | pte::X) == 0 {
                if entry & (pte::A | pte::D | pte::U | pte::PBMT | pte::N) != 0 {
                    return fault(self);
                }
                table = pte::ppn(entry) << 12;
                continue;
            }
            // 5. to 8.
            let mut size_log2 = low;
            let mut base = pte::ppn(entry) << 12;
            if entry & pte::N != 0 {
                // Svnapot: 64 KiB is the one size there is.
                if level != 0 || base >> 12 & 15 != 8 {
                    return fault(self);
                }
                size_log2 = 16;
                base &= !0xffff;
            }
            if base & ((1 << size_log2) - 1) != 0 {
                return fault(self);
            }
            let (read, write, allowed) = self.rights(stage, entry);
            if !allowed {
                return fault(self);
            }
            // 9.
            let mut entry = entry;
            let wanted = pte::A | if self.intent == Intent::Write { pte::D } else { 0 };
            if entry & wanted != wanted {
                if !self.updates_ad(stage) {
                    return fault(self);
                }
                if !self.quiet {
                    let at = self.table_entry(stage, table + vpn * 8, true)?;
                    entry |= wanted;
                    self.h.write_physical(at, 8, entry).ok_or(Fail::Access)?;
                }
            }
            // 10.
            return Ok(Leaf {
                pa: base | address & ((1 << size_log2) - 1),
                size_log2: size_log2 as u8,
                read,
                write: write && entry & pte::D != 0,
                allowed,
            });
        }
        Err(self.page_fault(stage, address))
    }

    /// Whether bits 63 to 61 may be what they are (Svnapot, Svpbmt).
    fn allows_extensions(&self, stage: Stage, entry: u64) -> bool {
        let c = &self.h.arch.csr;
        let config = if stage == Stage::First && self.who.v { c.henvcfg() } else { c.menvcfg };
        let pbmt = entry & pte::PBMT;
        (entry & pte::N == 0 || self.h.arch.cpu.has(Ext::Svnapot))
            && (pbmt == 0 || pbmt != pte::PBMT && envcfg::PBMTE.is(config))
    }

    /// Whether A and D are set by hardware (Svadu): else an access that needs them faults (Svade).
    fn updates_ad(&self, stage: Stage) -> bool {
        let c = &self.h.arch.csr;
        envcfg::ADUE.is(if stage == Stage::First && self.who.v { c.henvcfg() } else { c.menvcfg })
    }

    /// Loads and stores that a leaf allows, and whether it allows what is asked for.
    fn rights(&self, stage: Stage, e: u64) -> (bool, bool, bool) {
        let (w, user) = (&self.who, e & pte::U != 0);
        let mode_fits = match stage {
            // G-stage: all accesses are as of user mode.
            Stage::Guest => user,
            Stage::First => match w.mode {
                Priv::User => user,
                _ => !user || w.sum && self.intent != Intent::Fetch,
            },
        };
        let mxr = if stage == Stage::Guest { w.mxr_both } else { w.mxr };
        let execute = mode_fits && e & pte::X != 0;
        let read = if w.hlvx { execute } else { mode_fits && (e & pte::R != 0 || mxr && e & pte::X != 0) };
        let write = mode_fits && e & pte::W != 0;
        let allowed = match self.intent {
            Intent::Fetch => execute,
            Intent::Read => read,
            Intent::Write => write,
        };
        (read, write, allowed)
    }

    fn page_fault(&self, stage: Stage, address: u64) -> Fail {
        match stage {
            Stage::First => Fail::Page,
            Stage::Guest => Fail::Guest(address, 0),
        }
    }

    /// The physical address of a page table entry, checked: step 2's PMA and PMP, and the G-stage for a guest's tables.
    fn table_entry(&mut self, stage: Stage, address: u64, write: bool) -> Result<u64, Fail> {
        let intent = if write { Intent::Write } else { Intent::Read };
        let pa = if stage == Stage::First && self.who.v {
            let who = Who { mxr_both: false, hlvx: false, ..self.who };
            let mut implicit = Walk { h: self.h, who, intent, quiet: self.quiet, trail: self.trail.as_deref_mut() };
            let register = implicit.h.arch.csr.hgatp;
            let pseudo = if write { PSEUDO_WRITE } else { PSEUDO_READ };
            let leaf = implicit.walk(Stage::Guest, register, address).map_err(|f| match f {
                Fail::Guest(gpa, _) => Fail::Guest(gpa, pseudo),
                other => other,
            })?;
            leaf.pa
        } else {
            address
        };
        // Implicit accesses are as of supervisor mode.
        if !pmp::allows(self.h, pa, 8, intent, Priv::Supervisor) {
            return Err(Fail::Access);
        }
        Ok(pa)
    }

    fn translate(&mut self, access: &Access) -> Result<Mapping, Fail> {
        let c = &self.h.arch.csr;
        let (first, guest) = if self.who.v { (c.vsatp, c.hgatp) } else { (c.satp, 0) };
        let va = access.va;
        let machine = self.who.mode == Priv::Machine;
        let one = self.walk(Stage::First, if machine { 0 } else { first }, va)?;
        let two = if self.who.v { self.walk(Stage::Guest, guest, one.pa)? } else { Leaf { size_log2: 0, ..one } };
        debug_assert!(one.allowed && two.allowed);
        let pmp = pmp::page_rights(self.h, two.pa, access.size, self.who.mode);
        let allowed = match self.intent {
            Intent::Read => pmp.read,
            Intent::Write => pmp.write,
            Intent::Fetch => pmp.execute,
        };
        if !allowed {
            return Err(Fail::Access);
        }
        Ok(Mapping {
            pa: two.pa & !0xfff,
            gpa: one.pa & !0xfff,
            size_log2: if one.size_log2 == 63 { 12 } else { one.size_log2 },
            guest_size_log2: two.size_log2,
            read: one.read && two.read && pmp.read,
            write: one.write && two.write && pmp.write,
            keep: pmp.whole,
        })
    }
}

/// See [`Arch::walk`](emu_core::engine::Arch::walk).
pub(crate) fn walk(h: &mut H, access: Access) -> Step<Mapping> {
    let intent = access.intent;
    let who = who(h, access.as_whom, intent);
    h.arch.csr.counters.count(super::counters::Event::TlbMiss);
    let result = Walk { h, who, intent, quiet: false, trail: None }.translate(&access);
    result.map_err(|fail| {
        let page = |code: u32| Stop::exception(code, access.va);
        let mut details = FaultDetails { as_guest: who.v, ..FaultDetails::default() };
        let stop = match fail {
            Fail::Page => page(match intent {
                Intent::Fetch => cause::INSTRUCTION_PAGE,
                Intent::Read => cause::LOAD_PAGE,
                Intent::Write => cause::STORE_PAGE,
            }),
            Fail::Guest(gpa, pseudo) => {
                details.gpa = gpa;
                details.pseudo = pseudo;
                page(match intent {
                    Intent::Fetch => cause::INSTRUCTION_GUEST_PAGE,
                    Intent::Read => cause::LOAD_GUEST_PAGE,
                    Intent::Write => cause::STORE_GUEST_PAGE,
                })
            }
            Fail::Access => page(access_fault(intent)),
        };
        h.arch.fault = details;
        stop
    })
}

/// The access fault of an access.
pub(crate) fn access_fault(intent: Intent) -> u32 {
    match intent {
        Intent::Fetch => cause::INSTRUCTION_ACCESS,
        Intent::Read => cause::LOAD_ACCESS,
        Intent::Write => cause::STORE_ACCESS,
    }
}

/// Whose addresses a debugger means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum View {
    /// The hart's, as it is.
    Current,
    /// Those of the guest whose tables vsatp and hgatp name, whether it runs or not.
    Guest,
    /// Physical ones.
    Physical,
}

/// The physical address of `va`, with no effect on anything; for debuggers.
pub fn debug_translate(h: &mut H, va: u64, view: View) -> Option<u64> {
    if view == View::Physical {
        return Some(va);
    }
    let intents = [Intent::Read, Intent::Fetch, Intent::Write];
    intents.into_iter().find_map(|intent| {
        let mut who = who(h, AS_DEBUGGER, intent);
        if view == View::Guest {
            (who.mode, who.v) = (Priv::Supervisor, true);
        }
        who.sum = true;
        let access = Access { va, intent, as_whom: AS_DEBUGGER, size: 1 };
        // User pages are not executable for a supervisor, nor readable without SUM: ask as their user too.
        let modes = [who.mode, if who.mode == Priv::Machine { Priv::Machine } else { Priv::User }];
        modes.into_iter().find_map(|mode| {
            let map = Walk { h, who: Who { mode, ..who }, intent, quiet: true, trail: None }.translate(&access).ok()?;
            Some(map.pa | va & 0xfff)
        })
    })
}

/// Why a walk leads nowhere, for people.
fn why(fail: &Fail) -> String {
    match fail {
        Fail::Page => "page fault".to_owned(),
        Fail::Guest(gpa, 0) => format!("guest-page fault at guest-physical {gpa:#x}"),
        Fail::Guest(gpa, _) => format!("guest-page fault at guest-physical {gpa:#x}, of a page table entry"),
        Fail::Access => "access fault: PMP refuses, or there is no RAM".to_owned(),
    }
}

/// The walk of a load from an address, by a supervisor with SUM and MXR, and where it leads; for people, with no effect on anything. A guest's is
/// through both stages, a guest-physical address through the G-stage.
pub fn debug_walk(h: &mut H, address: u64, of: Addresses) -> (Vec<WalkStep>, Result<u64, String>) {
    let mut trail = Vec::new();
    let intent = Intent::Read;
    let mut who = who(h, AS_DEBUGGER, intent);
    (who.sum, who.mxr, who.mxr_both) = (true, true, true);
    if of != Addresses::Current {
        (who.mode, who.v) = (Priv::Supervisor, true);
    }
    let register = h.arch.csr.hgatp;
    let mut once = |who: Who, trail: &mut Vec<WalkStep>| {
        let mut walk = Walk { h, who, intent, quiet: true, trail: Some(trail) };
        if of == Addresses::GuestPhysical {
            return walk.walk(Stage::Guest, register, address).map(|leaf| leaf.pa);
        }
        let access = Access { va: address, intent, as_whom: AS_DEBUGGER, size: 1 };
        walk.translate(&access).map(|map| map.pa | address & 0xfff)
    };
    let result = once(who, &mut trail);
    (trail, result.map_err(|fail| why(&fail)))
}

/// Whose addresses a walk is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Addresses {
    /// The hart's, as it is.
    Current,
    /// Virtual ones of the guest whose tables vsatp and hgatp name.
    Guest,
    /// Guest-physical ones.
    GuestPhysical,
}
