//! Tags of translations against a reference machine, which drops all translations before every instruction: for a hypervisor and guests that
//! invalidate what the manual asks for ("TLB Control", "Address Space Identifiers", "INVLPGA"), both come to the same state.

use emu_core::machine::End;
use emu_core::random::SplitMix64;
use iced_x86::code_asm::*;
use svm_sim::vmcb::*;
use x86_bare::{Bare, Result};

use crate::base::{Base, VMCB, machine};

/// Code of the host's and of guests', in turn: it stands where it is for both.
const PROGRAM: u64 = 0x8_0000;
/// Nested page tables, by root; guests' tables, by guest and table.
const NESTED: u64 = 0x10_0000;
const TABLES: u64 = 0x11_0000;
/// Pages of the host's, which guests find at guest-physical addresses, which they map.
const DATA: u64 = 0x18_0000;
const PHYSICAL: u64 = 0x20_0000;
const LINEAR: u64 = 0x40_0000;
const PAGES: u64 = 6;
const ROOTS: u64 = 2;
const GUESTS: u64 = 2;
/// A guest has an ASID for each root.
const SPACES: usize = (GUESTS * ROOTS) as usize;
/// Times that a guest is entered.
const ENTRIES: u64 = 40;

/// Bits of entries: present, writable, accessed, dirty; for users, where paging is nested.
const PAGE: u64 = 0x63;
const NESTED_PAGE: u64 = 0x67;

fn root_of(guest: u64, table: u64) -> u64 {
    TABLES + 0x4000 * (2 * guest + table)
}

fn nested_root(root: u64) -> u64 {
    NESTED + 0x4000 * root
}

fn space(guest: u64, root: u64) -> usize {
    (guest * ROOTS + root) as usize
}

/// The entries of the last level.
fn nested_entry(root: u64, page: u64) -> u64 {
    nested_root(root) + 0x3000 + 8 * page
}

fn entry(guest: u64, table: u64, page: u64) -> u64 {
    root_of(guest, table) + 0x3000 + 8 * page
}

/// Tables: the first 2 MiB as they are, and another page table from 2 MiB times `second` on.
fn structures(bare: &mut Bare, at: u64, bits: u64, second: u64) {
    bare.put(at, (at + 0x1000) | bits);
    bare.put(at + 0x1000, (at + 0x2000) | bits);
    bare.put(at + 0x2000, 0x80 | bits);
    bare.put(at + 0x2000 + 8 * second, (at + 0x3000) | bits);
}

/// A hypervisor and its guests: straight code that goes back and forth.
struct Workload {
    a: CodeAssembler,
    r: SplitMix64,
    /// Some invalidations are left out.
    forgets: bool,
    /// Which table CR3 names, by guest.
    tables: [u64; GUESTS as usize],
    /// ASIDs that the next VMRUN has to flush.
    stale: [bool; SPACES],
}

impl Workload {
    fn put(&mut self, at: u64, value: u64) -> Result {
        self.a.mov(rbx, at)?;
        self.a.mov(rax, value)?;
        self.a.mov(qword_ptr(rbx), rax)
    }

    fn field(&mut self, field: Field, value: u64) -> Result {
        self.a.mov(rbx, VMCB + u64::from(field.offset))?;
        self.a.mov(rax, value)?;
        match field.size {
            1 => self.a.mov(byte_ptr(rbx), al),
            4 => self.a.mov(dword_ptr(rbx), eax),
            _ => self.a.mov(qword_ptr(rbx), rax),
        }
    }

    /// A load or a store, of a word whose page is somebody's.
    fn touch(&mut self, page: u64) -> Result {
        let at = page + 8 * self.r.below(4);
        self.a.mov(rbx, at)?;
        if self.r.one_in(2) {
            self.a.rol(r12, 7)?;
            self.a.xor(r12, qword_ptr(rbx))
        } else {
            self.a.inc(r12)?;
            self.a.mov(qword_ptr(rbx), r12)
        }
    }

    fn is_forgotten(&mut self) -> bool {
        self.forgets && self.r.one_in(2)
    }

    /// What a guest's ASIDs hold is out of date, but for that of the present root, if there is one.
    fn outdate(&mut self, guest: u64, but: Option<u64>) {
        for root in (0..ROOTS).filter(|root| Some(*root) != but) {
            self.stale[space(guest, root)] = true;
        }
    }

    /// An address of a guest's is out of date: INVLPGA with its ASIDs, or a flush at the next VMRUN.
    fn invalidate(&mut self, guest: u64, linear: u64) -> Result {
        if self.r.one_in(2) {
            self.outdate(guest, None);
            return Ok(());
        }
        for root in 0..ROOTS {
            if self.is_forgotten() {
                continue;
            }
            self.a.mov(rax, linear)?;
            self.a.mov(ecx, space(guest, root) as u32 + 1)?;
            self.a.invlpga()?;
        }
        Ok(())
    }

    fn of_host(&mut self) -> Result {
        let [guest, table, root] = [GUESTS, 2, ROOTS].map(|n| self.r.below(n));
        let [page, other] = [(); 2].map(|()| self.r.below(PAGES));
        match self.r.below(4) {
            0 => {
                self.put(nested_entry(root, page), (DATA + 0x1000 * other) | NESTED_PAGE)?;
                for guest in 0..GUESTS {
                    self.stale[space(guest, root)] = true;
                }
                Ok(())
            }
            1 => {
                self.put(entry(guest, table, page), (PHYSICAL + 0x1000 * other) | PAGE)?;
                self.invalidate(guest, LINEAR + 0x1000 * page)
            }
            2 => {
                self.tables[guest as usize] = table;
                self.outdate(guest, None);
                Ok(())
            }
            _ => self.touch(DATA + 0x1000 * page),
        }
    }

    fn of_guest(&mut self, guest: u64, root: u64) -> Result {
        let table = self.r.below(2);
        let [page, other] = [(); 2].map(|()| self.r.below(PAGES));
        match self.r.below(8) {
            0 => {
                self.put(entry(guest, table, page), (PHYSICAL + 0x1000 * other) | PAGE)?;
                self.outdate(guest, Some(root));
                if table != self.tables[guest as usize] {
                    // MOV to CR3 will see to it.
                    return Ok(());
                }
                self.a.mov(rbx, LINEAR + 0x1000 * page)?;
                self.a.invlpg(byte_ptr(rbx))
            }
            1 => {
                self.tables[guest as usize] = table;
                self.outdate(guest, Some(root));
                self.a.mov(rax, root_of(guest, table))?;
                self.a.mov(cr3, rax)
            }
            _ => self.touch(LINEAR + 0x1000 * page),
        }
    }

    /// What TLB_CONTROL has to be for an ASID.
    fn control(&mut self, space: usize) -> u64 {
        if !self.stale[space] || self.is_forgotten() {
            return 0;
        }
        let control = self.r.of(&[1, 3, 3, 7]);
        if control == 1 {
            self.stale = [false; SPACES];
        }
        self.stale[space] = false;
        control
    }

    /// The host at work; then a guest, to its VMMCALL.
    fn turn(&mut self) -> Result {
        for _ in 0..self.r.below(4) {
            self.of_host()?;
        }
        let [guest, root] = [GUESTS, ROOTS].map(|n| self.r.below(n));
        let space = space(guest, root);
        let control = self.control(space);
        let changed = clean::ASID | clean::NP | clean::CRX;
        let clean = self.r.next() & 0x1fff & !changed;
        for (field, value) in [
            (GUEST_ASID, space as u64 + 1),
            (TLB_CONTROL, control),
            (N_CR3, nested_root(root)),
            (CR3, root_of(guest, self.tables[guest as usize])),
            (CLEAN_BITS, clean),
        ] {
            self.field(field, value)?;
        }
        let (mut begin, mut end) = (self.a.create_label(), self.a.create_label());
        self.a.lea(rax, ptr(begin))?;
        self.a.mov(rbx, VMCB + u64::from(RIP.offset))?;
        self.a.mov(qword_ptr(rbx), rax)?;
        self.a.mov(eax, VMCB as u32)?;
        self.a.vmrun()?;
        self.a.jmp(end)?;
        self.a.set_label(&mut begin)?;
        for _ in 0..1 + self.r.below(6) {
            self.of_guest(guest, root)?;
        }
        self.a.vmmcall()?;
        self.a.set_label(&mut end)?;
        self.a.inc(r13)
    }
}

/// A machine that is about to run such a workload.
fn workload(case: u64, forgets: bool) -> Bare {
    let mut bare = machine("amd", &Base::Nested.vmcb());
    for root in 0..ROOTS {
        structures(&mut bare, nested_root(root), NESTED_PAGE, PHYSICAL >> 21);
        for page in 0..PAGES {
            bare.put(nested_entry(root, page), (DATA + 0x1000 * ((page + root) % PAGES)) | NESTED_PAGE);
        }
    }
    for guest in 0..GUESTS {
        for table in 0..2 {
            structures(&mut bare, root_of(guest, table), PAGE, LINEAR >> 21);
            for page in 0..PAGES {
                bare.put(entry(guest, table, page), (PHYSICAL + 0x1000 * ((page + table) % PAGES)) | PAGE);
            }
        }
    }
    for page in 0..PAGES {
        bare.put(DATA + 0x1000 * page, page);
    }
    let mut w = Workload {
        a: CodeAssembler::new(64).unwrap(),
        r: SplitMix64(case),
        forgets,
        tables: [0; GUESTS as usize],
        stale: [false; SPACES],
    };
    for _ in 0..ENTRIES {
        w.turn().unwrap();
    }
    w.a.hlt().unwrap();
    let bytes = w.a.assemble(PROGRAM).unwrap();
    bare.machine.world.ram.write(PROGRAM, &bytes).unwrap();
    bare.machine.vcpus[0].core.pc = PROGRAM;
    bare
}

/// Its end: registers, memory with the VMCB.
fn state(bare: &Bare) -> (Vec<u64>, Vec<u8>) {
    let mut memory = vec![0; 0x20_0000];
    bare.machine.world.ram.read(0, &mut memory).unwrap();
    (bare.machine.vcpus[0].core.regs[..16].to_vec(), memory)
}

/// Whether the machine and the reference come to the same end.
fn is_same(case: u64, forgets: bool) -> bool {
    let [mut bare, mut reference] = [(); 2].map(|()| workload(case, forgets));
    assert_eq!(bare.machine.run(1_000_000), End::Deadlock);
    let mut end = End::Limit;
    while end == End::Limit {
        let core = &mut reference.machine.vcpus[0].core;
        core.mmu.drop_spaces(|_| true);
        core.spaces_changed = true;
        end = reference.machine.run(reference.machine.retired() + 1);
    }
    assert_eq!(end, End::Deadlock);
    assert_eq!(reference.reg(13), ENTRIES, "case {case}: all guests have run");
    state(&bare) == state(&reference)
}

#[test]
fn who_invalidates_sees_no_tags() {
    let wrong: Vec<_> = (0..60).filter(|case| !is_same(*case, false)).collect();
    assert!(wrong.is_empty(), "cases {wrong:?}");
}

/// The other way round: who forgets a flush or INVLPGA sees translations that are out of date.
#[test]
fn who_forgets_sees_them() {
    let different = (0..40).filter(|case| !is_same(*case, true)).count();
    assert!(different >= 10, "{different} of 40");
}
