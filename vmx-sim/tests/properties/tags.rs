//! Tags of translations against a reference machine, which drops all translations before every instruction: for a hypervisor and guests that
//! invalidate what the manual asks for ("Operations that Invalidate Cached Mappings", "Guidelines for Use of the INVVPID Instruction",
//! "Guidelines for Use of the INVEPT Instruction"), both come to the same state.

use emu_core::machine::End;
use emu_core::random::SplitMix64;
use iced_x86::code_asm::*;
use vmx_sim::Vmx;
use vmx_sim::capability::REVISION;
use vmx_sim::control::{primary, secondary};
use vmx_sim::field::*;
use x86::control::cr4;
use x86::extension::Slot;
use x86::model::CpuModel;
use x86_bare::{Bare, Result};

use crate::base::{long, on};

/// Code of the host's and of guests', in turn: it stands where it is for both.
const PROGRAM: u64 = 0x8_0000;
/// EPT paging structures, by root; guests' paging structures, by VPID and table.
const EPT: u64 = 0x10_0000;
const TABLES: u64 = 0x11_0000;
const VMCS: u64 = 0x13_0000;
/// A descriptor of INVEPT or INVVPID.
const DESCRIPTOR: u64 = 0x13_2000;
/// Pages of the host's, which guests find at guest-physical addresses, which they map.
const DATA: u64 = 0x18_0000;
const PHYSICAL: u64 = 0x20_0000;
const LINEAR: u64 = 0x40_0000;
const PAGES: u64 = 6;
const ROOTS: u64 = 2;
/// VPIDs 1 and 2; and a guest without one.
const GUESTS: u64 = 3;
const WITHOUT: u64 = 2;
/// Times that a guest is entered.
const ENTRIES: u64 = 40;

/// Bits of entries of guests' paging structures.
const PAGE: u64 = 0x63;

/// An EPT entry that maps a page of write-back memory, and one of a guest's page table.
fn ept_page(page: u64) -> u64 {
    (DATA + 0x1000 * page) | 0x37
}

fn page_of(page: u64) -> u64 {
    (PHYSICAL + 0x1000 * page) | PAGE
}

fn eptp(root: u64) -> u64 {
    (EPT + 0x4000 * root) | 3 << 3 | 6
}

fn root_of(guest: u64, table: u64) -> u64 {
    TABLES + 0x4000 * (2 * guest + table)
}

/// The entries of the last level.
fn ept_entry(root: u64, page: u64) -> u64 {
    EPT + 0x4000 * root + 0x3000 + 8 * page
}

fn entry(guest: u64, table: u64, page: u64) -> u64 {
    root_of(guest, table) + 0x3000 + 8 * page
}

/// Paging structures: the first 2 MiB as they are, and another page table from 2 MiB times `second` on.
fn structures(bare: &mut Bare, at: u64, bits: u64, large: u64, second: u64) {
    bare.put(at, (at + 0x1000) | bits);
    bare.put(at + 0x1000, (at + 0x2000) | bits);
    bare.put(at + 0x2000, large);
    bare.put(at + 0x2000 + 8 * second, (at + 0x3000) | bits);
}

/// A hypervisor and its guests: straight code that goes back and forth.
struct Workload {
    a: CodeAssembler,
    r: SplitMix64,
    /// Some INVEPTs and INVVPIDs are left out.
    forgets: bool,
    /// Which table CR3 names, by guest.
    tables: [u64; GUESTS as usize],
}

impl Workload {
    fn put(&mut self, at: u64, value: u64) -> Result {
        self.a.mov(rbx, at)?;
        self.a.mov(rax, value)?;
        self.a.mov(qword_ptr(rbx), rax)
    }

    fn vmwrite(&mut self, field: Field, value: u64) -> Result {
        self.a.mov(eax, u32::from(field.0))?;
        self.a.mov(rcx, value)?;
        self.a.vmwrite(rax, rcx)
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

    fn descriptor(&mut self, low: u64, high: u64, kind: u64) -> Result {
        self.put(DESCRIPTOR, low)?;
        self.put(DESCRIPTOR + 8, high)?;
        self.a.mov(rbx, DESCRIPTOR)?;
        self.a.mov(rax, kind)
    }

    fn is_forgotten(&mut self) -> bool {
        self.forgets && self.r.one_in(2)
    }

    fn invept(&mut self, root: u64) -> Result {
        if self.is_forgotten() {
            return Ok(());
        }
        let kind = self.r.of(&[1, 2]);
        self.descriptor(eptp(root), 0, kind)?;
        self.a.invept(rax, xmmword_ptr(rbx))
    }

    /// INVVPID for a guest: all that is its, or of one address, if that is enough. Without a VPID there is nothing to do.
    fn invvpid(&mut self, guest: u64, linear: Option<u64>) -> Result {
        if guest == WITHOUT || self.is_forgotten() {
            return Ok(());
        }
        let kind = if linear.is_some() { self.r.below(4) } else { self.r.of(&[1, 2, 3]) };
        self.descriptor(guest + 1, linear.unwrap_or(0), kind)?;
        self.a.invvpid(rax, xmmword_ptr(rbx))
    }

    fn of_host(&mut self) -> Result {
        let [guest, table, root] = [GUESTS, 2, ROOTS].map(|n| self.r.below(n));
        let [page, other] = [(); 2].map(|()| self.r.below(PAGES));
        match self.r.below(4) {
            0 => {
                self.put(ept_entry(root, page), ept_page(other))?;
                self.invept(root)
            }
            1 => {
                self.put(entry(guest, table, page), page_of(other))?;
                self.invvpid(guest, Some(LINEAR + 0x1000 * page))
            }
            2 => {
                self.tables[guest as usize] = table;
                self.invvpid(guest, None)
            }
            _ => self.touch(DATA + 0x1000 * page),
        }
    }

    fn of_guest(&mut self, guest: u64) -> Result {
        let table = self.r.below(2);
        let [page, other] = [(); 2].map(|()| self.r.below(PAGES));
        match self.r.below(8) {
            0 => {
                self.put(entry(guest, table, page), page_of(other))?;
                if table != self.tables[guest as usize] {
                    // MOV to CR3 will see to it.
                    return Ok(());
                }
                self.a.mov(rbx, LINEAR + 0x1000 * page)?;
                self.a.invlpg(byte_ptr(rbx))
            }
            1 => {
                self.tables[guest as usize] = table;
                self.a.mov(rax, root_of(guest, table))?;
                self.a.mov(cr3, rax)
            }
            _ => self.touch(LINEAR + 0x1000 * page),
        }
    }

    /// The host at work; then a guest, to its VMCALL.
    fn turn(&mut self, is_first: bool, secondary: u64) -> Result {
        for _ in 0..self.r.below(4) {
            self.of_host()?;
        }
        let [guest, root] = [GUESTS, ROOTS].map(|n| self.r.below(n));
        let vpid = 1 << secondary::ENABLE_VPID.bit;
        self.vmwrite(SECONDARY_CONTROLS, if guest == WITHOUT { secondary & !vpid } else { secondary | vpid })?;
        self.vmwrite(VPID, guest + 1)?;
        self.vmwrite(EPT_POINTER, eptp(root))?;
        self.vmwrite(GUEST_CR3, root_of(guest, self.tables[guest as usize]))?;
        let (mut begin, mut end) = (self.a.create_label(), self.a.create_label());
        for (field, label) in [(GUEST_RIP, begin), (HOST_RIP, end)] {
            self.a.mov(eax, u32::from(field.0))?;
            self.a.lea(rcx, ptr(label))?;
            self.a.vmwrite(rax, rcx)?;
        }
        if is_first {
            self.a.vmlaunch()?;
        } else {
            self.a.vmresume()?;
        }
        self.a.hlt()?;
        self.a.set_label(&mut begin)?;
        for _ in 0..1 + self.r.below(6) {
            self.of_guest(guest)?;
        }
        self.a.vmcall()?;
        self.a.set_label(&mut end)?;
        self.a.inc(r13)
    }
}

/// A machine that is about to run such a workload.
fn machine(case: u64, forgets: bool) -> Bare {
    let mut bare = Bare::new("intel");
    let mut vmx = Vmx::new(&CpuModel::parse("intel").unwrap());
    vmx.vmxon = Some(VMCS + 0x1000);
    vmx.current = Some(VMCS);
    vmx.vmcs = long(&vmx);
    for c in [primary::ACTIVATE_SECONDARY_CONTROLS, secondary::ENABLE_EPT] {
        on(&mut vmx.vmcs, c);
    }
    bare.put(VMCS, REVISION.into());
    for root in 0..ROOTS {
        structures(&mut bare, EPT + 0x4000 * root, 7, 0xb7, PHYSICAL >> 21);
        for page in 0..PAGES {
            bare.put(ept_entry(root, page), ept_page((page + root) % PAGES));
        }
    }
    for guest in 0..GUESTS {
        for table in 0..2 {
            structures(&mut bare, root_of(guest, table), PAGE, 0xe3, LINEAR >> 21);
            for page in 0..PAGES {
                let other = (page + table) % PAGES;
                bare.put(entry(guest, table, page), page_of(other));
            }
        }
    }
    for page in 0..PAGES {
        bare.put(DATA + 0x1000 * page, page);
    }
    let controls = vmx.vmcs[SECONDARY_CONTROLS];
    let mut w = Workload { a: CodeAssembler::new(64).unwrap(), r: SplitMix64(case), forgets, tables: [0; 3] };
    for i in 0..ENTRIES {
        w.turn(i == 0, controls).unwrap();
    }
    w.a.hlt().unwrap();
    let bytes = w.a.assemble(PROGRAM).unwrap();
    bare.machine.world.ram.write(PROGRAM, &bytes).unwrap();
    let cpu = bare.cpu();
    cpu.cr4 |= cr4::VMXE;
    cpu.extension = Slot::with(Box::new(vmx));
    bare.machine.vcpus[0].core.pc = PROGRAM;
    bare
}

/// Its end: registers, the VMCS, memory.
fn state(bare: &Bare) -> (Vec<u64>, vmx_sim::vmcs::Vmcs, Vec<u8>) {
    let vcpu = &bare.machine.vcpus[0];
    let vmx: &Vmx = vcpu.arch.extension.get().unwrap().as_any().downcast_ref().unwrap();
    let mut memory = vec![0; 0x20_0000];
    bare.machine.world.ram.read(0, &mut memory).unwrap();
    (vcpu.core.regs[..16].to_vec(), vmx.vmcs.clone(), memory)
}

/// Whether the machine and the reference come to the same end.
fn is_same(case: u64, forgets: bool) -> bool {
    let [mut bare, mut reference] = [(); 2].map(|()| machine(case, forgets));
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

/// The other way round: who forgets INVEPT or INVVPID sees translations that are out of date.
#[test]
fn who_forgets_sees_them() {
    let different = (0..40).filter(|case| !is_same(*case, true)).count();
    assert!(different >= 10, "{different} of 40");
}
