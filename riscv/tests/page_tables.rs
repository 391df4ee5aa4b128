//! Address translation against a second reading of the manual: page tables of random entries, walked by a model that has
//! no TLB, written down step by step from "Virtual Address Translation Process" and "Two-Stage Address Translation".

use emu_core::engine::{Vcpu, World};
use emu_core::random::SplitMix64;
use emu_core::time::Frequency;
use riscv::cpu::CpuConfig;
use riscv::hart::{Priv, Riscv};
use riscv::platform::board::RAM;
use riscv::privileged::cause;

const PAGE: u64 = 4096;
const PAGES: u64 = 64;
const SIZE: u64 = PAGES * PAGE;

const V: u64 = 1;
const R: u64 = 2;
const W: u64 = 4;
const X: u64 = 8;
const U: u64 = 16;
const A: u64 = 64;
const D: u64 = 128;
const SUM: u64 = 1 << 18;
const MXR: u64 = 1 << 19;
const ADUE: u64 = 1 << 61;

/// The level of the tables that a page of RAM is meant for; `None` for data. Roots are at multiples of four pages.
fn level_of(page: u64) -> Option<u64> {
    match page % 4 {
        0 => Some(2 + page / 4 % 3),
        1 => Some(1),
        2 => Some(0),
        _ => None,
    }
}

fn page_of(r: &mut SplitMix64, level: Option<u64>) -> u64 {
    std::iter::repeat_with(|| r.below(PAGES)).find(|p| level_of(*p) == level).expect("each level has pages")
}

/// The word at an index of RAM: an entry that mostly makes sense where it stands. The lowest level maps a page to one that
/// is meant for the same, so that a guest's tables are tables through the G-stage too.
fn entry(r: &mut SplitMix64, index: u64) -> u64 {
    if r.one_in(60) {
        return r.next();
    }
    let leaf = |r: &mut SplitMix64, page: u64| {
        let rights = r.of(&[R | W | X, R | W | X, R | W | X, R | W, R | X, R, X, W]);
        let mut e = (RAM / PAGE + page) << 10 | V | rights | U | A | D;
        e ^= if r.one_in(4) { U } else { 0 };
        e ^= if r.one_in(6) { A } else { 0 };
        e ^= if r.one_in(6) { D } else { 0 };
        e ^= if r.one_in(40) { 1 << 63 | 8 << 10 } else { 0 };
        e ^ if r.one_in(60) { 1 << 61 } else { 0 }
    };
    match level_of(index / 512) {
        None => r.next(),
        Some(0) if r.one_in(10) => {
            let any = r.below(PAGES + 2);
            leaf(r, any)
        }
        Some(0) => {
            let like = page_of(r, level_of(index % 512 % PAGES));
            leaf(r, like)
        }
        // Large leaves, aligned or not.
        Some(_) if r.one_in(12) => {
            let page = if r.one_in(2) { 0 } else { r.below(PAGES) };
            leaf(r, page)
        }
        Some(level) => (RAM / PAGE + page_of(r, Some(level - 1))) << 10 | V,
    }
}

/// What an access does to the state that is compared: a value, or cause, tval, and the guest-physical address.
type Outcome = Result<u64, (u32, u64, u64, u32)>;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Load,
    Store,
    /// HLVX: a load that needs the right to execute.
    LoadExecutable,
}

/// The hart's state, as far as translation asks for it, and memory.
struct Model {
    bytes: Vec<u8>,
    mode: Priv,
    v: bool,
    mstatus: u64,
    vsstatus: u64,
    satp: u64,
    vsatp: u64,
    hgatp: u64,
    menvcfg: u64,
    henvcfg: u64,
    kind: Kind,
}

enum Fault {
    Page,
    Guest(u64, u32),
    Access,
}

impl Model {
    fn word(&self, pa: u64) -> Option<u64> {
        let at = pa.checked_sub(RAM)? as usize;
        Some(u64::from_le_bytes(self.bytes.get(at..at + 8)?.try_into().unwrap()))
    }

    fn set_word(&mut self, pa: u64, value: u64) {
        let at = (pa - RAM) as usize;
        self.bytes[at..at + 8].copy_from_slice(&value.to_le_bytes());
    }

    /// One stage, for a load or store that software makes, or an implicit one.
    fn stage(&mut self, guest: bool, address: u64, store: bool, implicit: bool) -> Result<u64, Fault> {
        let atp = match (guest, self.v) {
            (true, _) => self.hgatp,
            (false, true) => self.vsatp,
            (false, false) => self.satp,
        };
        let fault = if guest { Fault::Guest(address, 0) } else { Fault::Page };
        let levels = match atp >> 60 {
            0 => return Ok(address),
            mode => mode - 5,
        };
        let width = 12 + 9 * levels + if guest { 2 } else { 0 };
        let canonical = if guest {
            address >> width == 0
        } else {
            let top = (address as i64) >> (width - 1);
            top == 0 || top == -1
        };
        if !canonical {
            return Err(fault);
        }
        // Step 1.
        let mut a = (atp & ((1 << 44) - 1)) * PAGE;
        let mut i = levels;
        loop {
            i -= 1;
            // Step 2.
            let bits = if guest && i == levels - 1 { 11 } else { 9 };
            let at = a + (address >> (12 + 9 * i) & ((1 << bits) - 1)) * 8;
            let two_stages = !guest && self.v;
            let at_pa = if two_stages { self.implicit(at, false)? } else { at };
            let pte = self.word(at_pa).ok_or(Fault::Access)?;
            // Step 3. menvcfg.PBMTE is clear throughout.
            if pte & V == 0 || pte & (R | W) == W || pte >> 54 & 0x7f != 0 || pte >> 61 & 3 != 0 {
                return Err(fault);
            }
            let napot = pte >> 63 != 0;
            let ppn = pte >> 10 & ((1 << 44) - 1);
            // Step 4.
            if pte & (R | X) == 0 {
                if pte & (A | D | U) != 0 || napot || i == 0 {
                    return Err(fault);
                }
                a = ppn * PAGE;
                continue;
            }
            // Steps 5 to 8, in an order that does not matter: they all end in the same fault.
            let mut size = 12 + 9 * i;
            let mut base = ppn * PAGE;
            if napot {
                if i != 0 || ppn & 15 != 8 {
                    return Err(fault);
                }
                size = 16;
                base &= !0xffff;
            }
            if !base.is_multiple_of(1 << size) {
                return Err(fault);
            }
            let status = if self.v { self.vsstatus } else { self.mstatus };
            let user_fits = match (guest, self.mode) {
                (true, _) | (false, Priv::User) => pte & U != 0,
                (false, _) => pte & U == 0 || status & SUM != 0,
            };
            let mxr = !implicit && (self.mstatus & MXR != 0 || !guest && status & MXR != 0);
            let right = if store {
                pte & W != 0
            } else if self.kind == Kind::LoadExecutable && !implicit {
                pte & X != 0
            } else {
                pte & R != 0 || mxr && pte & X != 0
            };
            if !user_fits || !right {
                return Err(fault);
            }
            // Step 9.
            let wanted = A | if store { D } else { 0 };
            if pte & wanted != wanted {
                let config = if !guest && self.v { self.henvcfg & self.menvcfg } else { self.menvcfg };
                if config & ADUE == 0 {
                    return Err(fault);
                }
                let at_pa = if two_stages { self.implicit(at, true)? } else { at_pa };
                self.set_word(at_pa, pte | wanted);
            }
            // Step 10.
            return Ok(base + address % (1 << size));
        }
    }

    /// The G-stage for an access to a page table of the VS-stage.
    fn implicit(&mut self, gpa: u64, store: bool) -> Result<u64, Fault> {
        self.stage(true, gpa, store, true).map_err(|f| match f {
            Fault::Guest(gpa, _) => Fault::Guest(gpa, if store { 0x3020 } else { 0x3000 }),
            other => other,
        })
    }

    fn translate(&mut self, va: u64) -> Result<u64, (u32, u64, u64, u32)> {
        let store = self.kind == Kind::Store;
        let found = self.stage(false, va, store, false).and_then(|gpa| {
            let pa = if self.v { self.stage(true, gpa, store, false)? } else { gpa };
            Ok(pa)
        });
        found.map_err(|f| match (f, store) {
            (Fault::Page, false) => (cause::LOAD_PAGE, va, 0, 0),
            (Fault::Page, true) => (cause::STORE_PAGE, va, 0, 0),
            (Fault::Guest(gpa, pseudo), false) => (cause::LOAD_GUEST_PAGE, va, gpa, pseudo),
            (Fault::Guest(gpa, pseudo), true) => (cause::STORE_GUEST_PAGE, va, gpa, pseudo),
            (Fault::Access, false) => (cause::LOAD_ACCESS, va, 0, 0),
            (Fault::Access, true) => (cause::STORE_ACCESS, va, 0, 0),
        })
    }

    fn access(&mut self, va: u64, size: u64, value: u64) -> Outcome {
        let here = size.min(PAGE - va % PAGE);
        let first = self.translate(va)?;
        let second = if here < size { Some(self.translate(va.wrapping_add(here))?) } else { None };
        let places: Vec<u64> =
            (0..size).map(|i| if i < here { first + i } else { second.unwrap_or(0) + i - here }).collect();
        // All of RAM is one region; what is beyond it answers nothing. tval is of the part that faults.
        if let Some(i) = places.iter().position(|pa| !(RAM..RAM + SIZE).contains(pa)) {
            let code = if self.kind == Kind::Store { cause::STORE_ACCESS } else { cause::LOAD_ACCESS };
            return Err((code, if i as u64 >= here { va.wrapping_add(here) } else { va }, 0, 0));
        }
        let mut loaded = 0;
        for (i, pa) in places.iter().enumerate() {
            let byte = &mut self.bytes[(pa - RAM) as usize];
            match self.kind {
                Kind::Store => *byte = (value >> (8 * i)) as u8,
                _ => loaded |= u64::from(*byte) << (8 * i),
            }
        }
        Ok(loaded)
    }
}

/// A hart, its memory, and the model of both.
struct Pair {
    world: World,
    vcpu: Vcpu<Riscv>,
    model: Model,
    /// Values of satp, vsatp and hgatp: each ASID and VMID goes with one root and mode, as software keeps it.
    tables: [[u64; 4]; 3],
}

impl Pair {
    /// Page tables at random.
    fn new(r: &mut SplitMix64) -> Self {
        let mut world = World::new(Frequency::default());
        world.ram.add(RAM, SIZE).unwrap();
        let mut vcpu = Vcpu::new(0, Riscv::new(CpuConfig::rv64()));
        let bytes: Vec<u8> = (0..SIZE / 8).flat_map(|i| entry(r, i).to_le_bytes()).collect();
        world.ram.write(RAM, &bytes).unwrap();
        let c = &mut vcpu.arch.csr;
        c.menvcfg = if r.one_in(3) { 0 } else { ADUE };
        c.henvcfg = if r.one_in(3) { 0 } else { ADUE };
        c.pmp.write_address(0, u64::MAX);
        c.pmp.write_config(0, 0x1f);
        let tables = std::array::from_fn(|_| {
            std::array::from_fn(|i| {
                let mode = r.of(&[0, 8, 8, 8, 9, 10]);
                let root = RAM / PAGE + if mode == 0 { 0 } else { page_of(r, Some(mode - 6)) };
                mode << 60 | (i as u64 + 1) << 44 | root
            })
        });
        let model = Model {
            bytes,
            mode: Priv::User,
            v: false,
            mstatus: 0,
            vsstatus: 0,
            satp: 0,
            vsatp: 0,
            hgatp: 0,
            menvcfg: c.menvcfg,
            henvcfg: c.henvcfg,
            kind: Kind::Load,
        };
        Pair { world, vcpu, model, tables }
    }

    /// Another mode, other rights, other spaces: none of it takes a fence.
    fn switch(&mut self, r: &mut SplitMix64) {
        let (a, m) = (&mut self.vcpu.arch, &mut self.model);
        (a.mode, a.v) = r.of(&[
            (Priv::User, false),
            (Priv::Supervisor, false),
            (Priv::User, true),
            (Priv::Supervisor, true),
            (Priv::Supervisor, true),
        ]);
        a.csr.mstatus = r.next() & (SUM | MXR);
        a.csr.vsstatus = r.next() & (SUM | MXR);
        [a.csr.satp, a.csr.vsatp, a.csr.hgatp] = self.tables.map(|values| r.of(&values));
        (m.mode, m.v, m.mstatus, m.vsstatus) = (a.mode, a.v, a.csr.mstatus, a.csr.vsstatus);
        (m.satp, m.vsatp, m.hgatp) = (a.csr.satp, a.csr.vsatp, a.csr.hgatp);
    }

    /// Makes one access on both sides, and asserts that it comes to the same. Whether it succeeded.
    fn access(&mut self, r: &mut SplitMix64, kind: Kind, va: u64) -> bool {
        let size = r.of(&[1u64, 2, 4, 8]);
        let value = r.next();
        self.model.kind = kind;
        let model = self.model.access(va, size, value);
        self.vcpu.arch.fault = Default::default();
        let mut h = self.vcpu.at(&mut self.world);
        let outcome = match kind {
            Kind::Store => h.store(va, size as u8, value, 0).map(|()| 0),
            Kind::Load => h.load(va, size as u8, 0),
            Kind::LoadExecutable => {
                // HLVX is made from HS-mode, as the mode in hstatus.SPVP.
                h.arch.csr.hstatus = (h.arch.mode as u64) << 8;
                (h.arch.mode, h.arch.v) = (Priv::Supervisor, false);
                let outcome = h.load(va, size as u8, 2);
                (h.arch.mode, h.arch.v) = (self.model.mode, true);
                outcome
            }
        };
        let fault = self.vcpu.arch.fault;
        let outcome = outcome.map_err(|stop| (stop.code(), stop.value, fault.gpa, fault.pseudo));
        assert_eq!(outcome, model, "{kind:?} of {size} bytes at {va:#x}");
        outcome.is_ok()
    }

    fn assert_same_memory(&self) {
        let mut bytes = vec![0; SIZE as usize];
        self.world.ram.read(RAM, &mut bytes).unwrap();
        let differs = bytes.iter().zip(&self.model.bytes).position(|(a, b)| a != b);
        assert_eq!(differs, None, "memory differs there");
    }
}

/// An address whose parts are small, so that walks meet again; at times one that crosses pages, or is not canonical.
fn address(r: &mut SplitMix64) -> u64 {
    let vpn = |r: &mut SplitMix64| if r.one_in(6) { 511 } else { r.below(6) };
    let mut va = (0..5).fold(0, |va, _| va << 9 | vpn(r)) << 12 | r.below(PAGE);
    match r.below(8) {
        0 => va |= 0xffc,
        1..=3 => va &= !7,
        _ => va &= !0xff8,
    }
    let bits = r.of(&[39u32, 41, 48, 57]);
    va &= (1 << bits) - 1;
    if va >> (bits - 1) != 0 && !r.one_in(4) { va | u64::MAX << bits } else { va }
}

#[test]
fn every_walk_is_as_the_manual_says() {
    let mut r = SplitMix64(1);
    let mut outcomes = [0; 2];
    for _ in 0..600 {
        let mut p = Pair::new(&mut r);
        for _ in 0..60 {
            p.switch(&mut r);
            let kind = match r.below(5) {
                0 if p.model.v => Kind::LoadExecutable,
                0..=2 => Kind::Load,
                _ => Kind::Store,
            };
            p.vcpu.core.mmu.clear();
            let va = address(&mut r);
            outcomes[usize::from(p.access(&mut r, kind, va))] += 1;
        }
        p.assert_same_memory();
    }
    assert!(outcomes[0] > 3000 && outcomes[1] > 3000, "{outcomes:?}: both should be common");
}

/// The TLB holds what walks have found, for whom they found it: loads in changing spaces come to what walks come to, with
/// no fence but after a change to the tables.
#[test]
fn the_tlb_says_what_a_walk_would() {
    let mut r = SplitMix64(2);
    let mut outcomes = [0; 2];
    for _ in 0..300 {
        let mut p = Pair::new(&mut r);
        let places: Vec<u64> = (0..12).map(|_| address(&mut r)).collect();
        for _ in 0..400 {
            if r.one_in(4) {
                p.switch(&mut r);
            }
            if r.one_in(40) {
                let index = r.below(SIZE / 8);
                let value = entry(&mut r, index);
                p.model.set_word(RAM + index * 8, value);
                p.world.ram.store(RAM + index * 8, 8, value).unwrap();
                p.vcpu.core.mmu.drop_spaces(|_| true);
            }
            let kind = if p.model.v && r.one_in(4) { Kind::LoadExecutable } else { Kind::Load };
            let va = r.of(&places) ^ r.below(8);
            outcomes[usize::from(p.access(&mut r, kind, va))] += 1;
        }
        p.assert_same_memory();
    }
    assert!(outcomes[0] > 10_000 && outcomes[1] > 10_000, "{outcomes:?}: both should be common");
}
