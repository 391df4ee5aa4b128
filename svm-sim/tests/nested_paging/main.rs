//! "Nested Paging": what is translated twice, what a nested page fault tells, in every mode that a host may have.

#[path = "../vmrun/base.rs"]
#[allow(dead_code, reason = "the tests of VMRUN use the rest")]
mod base;
mod hosts;

use base::{Base, GUEST, NPT, NPT_TABLE, PDPT_PAE, SECOND, intercept, machine, on, read};
use iced_x86::code_asm::*;
use svm_sim::exit::code;
use svm_sim::vmcb::*;
use x86_bare::{Bare, CODE, PD, PDPT, PML4, PT, Result, USER, USER_CS, USER_SS, USER_STACK};

const DATA: u64 = 0x6_0000;
/// Bits of EXITINFO1, beside those of a page fault.
const FINAL: u64 = 1 << 32;
const WALK: u64 = 1 << 33;
const P: u64 = 1;
const WR: u64 = 2;
const US: u64 = 4;
const RSV: u64 = 8;
const ID: u64 = 16;

/// Where the nested page table maps a page of the first 2 MiB.
fn entry(page: u64) -> u64 {
    NPT_TABLE + page / 512
}

fn run(
    change: impl FnOnce(&mut Vmcb),
    prepare: impl FnOnce(&mut Bare),
    guest: &dyn Fn(&mut CodeAssembler) -> Result,
) -> Bare {
    let mut v = Base::Nested.vmcb();
    change(&mut v);
    let mut bare = machine("amd", &v);
    bare.assemble(GUEST, &|a| {
        guest(a)?;
        a.vmmcall()
    });
    prepare(&mut bare);
    bare.machine.run(1000);
    bare
}

/// EXITINFO1 and EXITINFO2 of a nested page fault; zeros if there is none.
fn fault(bare: &Bare) -> (u64, u64) {
    match read(bare, EXITCODE) {
        code::NPF => (read(bare, EXITINFO1), read(bare, EXITINFO2)),
        other => {
            assert_eq!(other, code::VMMCALL);
            (0, 0)
        }
    }
}

fn load(a: &mut CodeAssembler) -> Result {
    a.mov(rax, qword_ptr(DATA + 8))
}

fn store(a: &mut CodeAssembler) -> Result {
    a.mov(qword_ptr(DATA + 8), rax)
}

fn jump(a: &mut CodeAssembler) -> Result {
    a.mov(eax, DATA as u32)?;
    a.jmp(rax)
}

fn of_entry(new: u64, guest: &dyn Fn(&mut CodeAssembler) -> Result) -> (u64, u64) {
    let prepare = |bare: &mut Bare| {
        bare.put(entry(DATA), new);
        bare.put(DATA, 0xd9_010f);
    };
    fault(&run(|_| {}, prepare, guest))
}

/// All accesses are users' accesses, whatever the guest's privilege level is.
#[test]
fn what_faults_tell_of_the_last_access() {
    const XD: u64 = 1 << 63;
    let at = DATA + 8;
    assert_eq!(of_entry(0, &load), (FINAL | US, at));
    assert_eq!(of_entry(0, &store), (FINAL | US | WR, at));
    assert_eq!(of_entry(0, &jump), (FINAL | US | ID, DATA));
    assert_eq!(of_entry(DATA | 5, &load), (0, 0));
    assert_eq!(of_entry(DATA | 5, &store), (FINAL | US | WR | P, at));
    assert_eq!(of_entry(DATA | 3, &load), (FINAL | US | P, at), "a supervisor's page");
    assert_eq!(of_entry(DATA | 3, &store), (FINAL | US | WR | P, at));
    assert_eq!(of_entry(DATA | 7 | XD, &jump), (FINAL | US | ID | P, DATA));
    assert_eq!(of_entry(DATA | 7 | XD, &load), (0, 0));
    assert_eq!(of_entry(DATA | 7 | 1 << 51, &load), (FINAL | US | RSV | P, at));
    assert_eq!(of_entry(DATA | 7, &store), (0, 0));
    // What reads and writes, writes.
    let both = |a: &mut CodeAssembler| a.add(qword_ptr(DATA + 8), rax);
    assert_eq!(of_entry(0, &both).0 & !WR, FINAL | US);
    assert_eq!(of_entry(DATA | 5, &both), (FINAL | US | WR | P, at));
}

/// The guest's tables are walked as users, and as if they were written.
#[test]
fn what_faults_tell_of_the_walk() {
    for (table, address) in [(PML4, PML4), (PDPT, PDPT), (PD, PD), (PT, PT + DATA / 512)] {
        for (new, present) in [(0, 0), (table | 5, P), (table | 3, P)] {
            // The guest's own instructions need the tables of the first 2 MiB, too: PML4 to PD are missed by its first fetch.
            let is_leaf = table == PT;
            let bare = run(
                |_| {},
                |bare| {
                    if is_leaf {
                        // Another page table for the page, so that the guest begins.
                        bare.put(PD, 0x7_0000 | 7);
                        for i in 0..512 {
                            bare.put(0x7_0000 + 8 * i, bare.get(PT + 8 * i));
                        }
                        bare.put(PD + 8, PT | 7);
                    }
                    bare.put(entry(table), new);
                },
                &|a| a.mov(qword_ptr(if is_leaf { DATA + 0x20_0000 } else { DATA } + 8), rax),
            );
            let first = if is_leaf { PT + DATA / 512 } else { address };
            assert_eq!(fault(&bare), (WALK | US | WR | present, first), "{table:#x}, {new:#x}");
        }
    }
}

/// PDPTEs of a guest with PAE paging are read when they are needed.
#[test]
fn a_pae_guests_pdptes() {
    let mut bare = machine("amd", &Base::NestedPae.vmcb());
    bare.put(entry(PDPT_PAE), 0);
    bare.machine.run(1000);
    assert_eq!(fault(&bare), (WALK | US | WR, PDPT_PAE));
}

/// What the guest's own tables refuse is the guest's fault, and comes first.
#[test]
fn the_guests_faults_come_first() {
    let bare = run(
        |v| intercept(v, code::EXCEPTION + 14),
        |bare| {
            bare.put(entry(DATA), 0);
            bare.put(PT + DATA / 512, DATA | 1);
        },
        &store,
    );
    assert_eq!((read(&bare, EXITCODE), read(&bare, EXITINFO1)), (code::EXCEPTION + 14, 3));
}

/// Accessed and dirty flags, of both stages: a walk of the guest's tables makes their pages dirty.
#[test]
fn accessed_and_dirty() {
    const A: u64 = 1 << 5;
    const D: u64 = 1 << 6;
    let flags = |guest: &dyn Fn(&mut CodeAssembler) -> Result| {
        let bare = run(|_| {}, |_| {}, guest);
        let of = |at| bare.get(at) & (A | D);
        for table in [NPT, NPT + 0x1000, NPT + 0x2000] {
            assert_eq!(of(table), A, "no entry of a table above is dirty");
        }
        for table in [PML4, PDPT, PD, PT] {
            assert_eq!(of(entry(table)), A | D, "{table:#x}");
        }
        assert_eq!(of(entry(GUEST)), A, "code is read");
        (of(entry(DATA)), of(PT + DATA / 512))
    };
    assert_eq!(flags(&load), (A, A));
    assert_eq!(flags(&store), (A | D, A | D));
    assert_eq!(flags(&|a| a.nop()), (0, 0));
}

/// A fault says which part of an access across pages it was.
#[test]
fn across_pages() {
    let bare = run(|_| {}, |bare| bare.put(entry(DATA + 0x1000), 0), &|a| a.mov(qword_ptr(DATA + 0xffc), rax));
    assert_eq!(fault(&bare), (FINAL | US | WR, DATA + 0x1000));
    assert_eq!(bare.get(DATA + 0xff8), 0, "nothing of it is stored");
}

#[test]
fn pages_of_1_gib() {
    let large = |bits: u64| fault(&run(|_| {}, |bare| bare.put(NPT + 0x1000, bits), &store));
    assert_eq!(large(0x87), (0, 0));
    // Bits 29 to 13 are reserved. The walk begins with the guest's PML4.
    assert_eq!(large(0x87 | 1 << 13), (WALK | US | WR | RSV | P, PML4));
    assert_eq!(large(0x85), (WALK | US | WR | P, PML4));
    let two_mib = |bits: u64| fault(&run(|_| {}, |bare| bare.put(NPT + 0x2000, bits), &store));
    assert_eq!(two_mib(0x87), (0, 0));
    assert_eq!(two_mib(0x87 | 1 << 13), (WALK | US | WR | RSV | P, PML4));
}

/// A hypervisor that makes a page present behind its fault need not flush anything: what is not there is not held.
#[test]
fn a_page_that_comes_needs_no_flush() {
    let mut v = Base::Nested.vmcb();
    v.set(RAX, 0x1234);
    let mut bare = machine("amd", &v);
    bare.put(entry(DATA), 0);
    bare.assemble(GUEST, &|a| {
        store(a)?;
        a.vmmcall()
    });
    bare.assemble(CODE, &|a| {
        a.vmrun()?;
        a.mov(rbx, DATA | 7)?;
        a.mov(qword_ptr(entry(DATA)), rbx)?;
        a.vmrun()?;
        a.hlt()
    });
    bare.machine.run(1000);
    assert_eq!((read(&bare, EXITCODE), bare.get(DATA + 8)), (code::VMMCALL, 0x1234));
}

/// PAT is the guest's own, and goes to the VMCB; the host's comes back.
#[test]
fn pat() {
    const OTHER: u64 = 0x0606_0606_0606_0606;
    const NEW: u64 = 0x0404_0404_0404_0404;
    let bare = &mut run(
        |v| v.set(G_PAT, OTHER),
        |bare| {
            bare.assemble(CODE, &|a| {
                a.vmrun()?;
                a.mov(ecx, 0x277)?;
                a.rdmsr()?;
                a.hlt()
            });
        },
        &|a| {
            a.mov(ecx, 0x277)?;
            a.rdmsr()?;
            a.mov(dword_ptr(DATA), eax)?;
            a.mov(eax, NEW as u32)?;
            a.mov(edx, NEW as u32)?;
            a.wrmsr()
        },
    );
    assert_eq!((read(bare, EXITCODE), bare.load(DATA, 4)), (code::VMMCALL, OTHER & 0xffff_ffff));
    assert_eq!(read(bare, G_PAT), NEW);
    assert_eq!(bare.reg(0), 0x0007_0406, "the host's");
}

/// Guests of CPL 3, at USER.
fn user(v: &mut Vmcb) {
    v.set(CPL, 3);
    base::put_segment(v, 1, [USER_CS, 0x2fb, 0xffff_ffff, 0]);
    base::put_segment(v, 2, [USER_SS, 0xcf3, 0xffff_ffff, 0]);
    v.set(RIP, USER);
    v.set(RSP, USER_STACK);
}

/// "Guest Mode Execute Trap": the guest's supervisors fetch nothing from pages of users; data and users are left alone.
#[test]
fn guest_mode_execute_trap() {
    let gmet = |v: &mut Vmcb| on(v, NESTED_CONTROL, nested::GMET_ENABLE);
    let supervisor = |bits: u64, guest: &dyn Fn(&mut CodeAssembler) -> Result| {
        let prepare = |bare: &mut Bare| {
            bare.put(entry(GUEST), GUEST | 3);
            bare.put(entry(DATA), DATA | bits);
            bare.put(DATA, 0xd9_010f);
        };
        fault(&run(gmet, prepare, guest))
    };
    assert_eq!(supervisor(3, &jump), (0, 0));
    assert_eq!(supervisor(7, &jump), (FINAL | ID | P, DATA));
    assert_eq!(supervisor(7, &store), (0, 0));
    assert_eq!(supervisor(3, &store), (0, 0), "U/S says nothing of data");
    let of_user = |bits: u64| {
        let prepare = |bare: &mut Bare| {
            bare.put(entry(USER), USER | bits);
            bare.assemble(USER, &|a| a.vmmcall());
        };
        let change = |v: &mut Vmcb| {
            gmet(v);
            user(v);
        };
        fault(&run(change, prepare, &|a| a.nop()))
    };
    assert_eq!(of_user(7), (0, 0));
    assert_eq!(of_user(3), (0, 0));
}

/// Virtualized VMLOAD and VMSAVE take RAX for a guest-physical address.
#[test]
fn virtualized_vmload_and_vmsave() {
    let virtual_vmsave = |map: u64| {
        run(
            |v| on(v, VIRTUALIZATION_CONTROL, more::V_VMLOAD_VMSAVE_ENABLE),
            |bare| bare.put(entry(SECOND), map),
            &|a| {
                a.mov(eax, SECOND as u32)?;
                a.vmsave()
            },
        )
    };
    let bare = virtual_vmsave(DATA | 7);
    assert_eq!(fault(&bare), (0, 0));
    assert_ne!(bare.load(DATA + u64::from(TR_LIMIT.offset), 4), 0);
    assert_eq!(bare.load(SECOND + u64::from(TR_LIMIT.offset), 4), 0);
    assert_eq!(fault(&virtual_vmsave(0)).0 & !US, FINAL | WR);
}
