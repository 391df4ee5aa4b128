//! A second stage of translation: for data, code and the paging structures; what it refuses; its tags.

use iced_x86::code_asm::*;
use x86::extension::{OWN, Slot};
use x86::registers::{RBX, RCX};

use crate::machine::{CODE, DATA, HOST, IDT, PML4, PT, Rig, STACK};
use crate::toy::{Order, Page, Toy};

const READ: u8 = 1;
const WRITE: u8 = 2;
const ALL: u8 = 7;

fn rig(pages: &[Page], code: impl FnOnce(&mut CodeAssembler)) -> Rig {
    let toy = Toy { pages: Some(pages.to_vec()), tag: 1, ..Toy::new(Order::Vmx, &[]) };
    Rig::new("intel", toy, code)
}

const OTHER: u64 = 0x5_0000;

#[test]
fn data_code_and_tables_go_through_it() {
    // DATA is OTHER's page; the page table itself lies elsewhere; so does the code.
    let pages = [(DATA >> 12, OTHER >> 12, ALL), (PT >> 12, 0x60, ALL), (CODE >> 12, 0x61, ALL)];
    let mut r = rig(&pages, |a| {
        a.mov(rbx, qword_ptr(DATA + 8)).unwrap();
        a.mov(qword_ptr(DATA + 16), 5).unwrap();
    });
    for (from, to) in [(PT, 0x60 << 12), (CODE, 0x61 << 12)] {
        let mut page = vec![0; 4096];
        r.machine.world.ram.read(from, &mut page).unwrap();
        r.machine.world.ram.write(to, &page).unwrap();
        r.machine.world.ram.write(from, &vec![0xcc; 4096]).unwrap();
    }
    r.put(OTHER + 8, 77);
    r.run();
    assert_eq!((r.reg(RBX), r.vector(), r.exits().len()), (77, None, 0));
    assert_eq!(r.machine.world.ram.load(OTHER + 16, 8).unwrap(), 5);
    // Accessed and dirty bits went to where the table really is.
    assert_eq!(r.machine.world.ram.load((0x60 << 12) + 8 * (DATA >> 12), 8).unwrap() & 0x60, 0x60);
}

/// Each refusal: pages, code, what the exit says, and where the guest is.
#[test]
fn refusals_exit_with_both_addresses() {
    type Case = (Page, fn(&mut CodeAssembler), &'static str, u64);
    let cases: &[Case] = &[
        // Behind other instructions of the same block, so that the place is not its first.
        (
            (DATA >> 12, 0, 0),
            |a| {
                a.nop().unwrap();
                a.inc(rdx).unwrap();
                a.mov(rbx, qword_ptr(DATA + 8)).unwrap();
            },
            "SecondAccess { address: 40008, size: 8, kind: Read, linear: Some(40008), is_entry: false, page: Rights { user: false, writable: true, executable: true }, user: false, shadow_stack: false } 1",
            CODE + 4,
        ),
        (
            (DATA >> 12, DATA >> 12, READ),
            |a| a.add(qword_ptr(DATA), rbx).unwrap(),
            "SecondAccess { address: 40000, size: 8, kind: Write, linear: Some(40000), is_entry: false, page: Rights { user: false, writable: true, executable: true }, user: false, shadow_stack: false } 102",
            CODE,
        ),
        (
            (DATA >> 12, DATA >> 12, READ | WRITE),
            |a| {
                a.mov(eax, DATA as u32).unwrap();
                a.jmp(rax).unwrap();
            },
            "SecondAccess { address: 40000, size: 2, kind: Fetch, linear: Some(40000), is_entry: false, page: Rights { user: false, writable: true, executable: true }, user: false, shadow_stack: false } 304",
            DATA,
        ),
        // An entry of a paging structure.
        (
            (PML4 >> 12, PML4 >> 12, READ),
            |a| a.mov(rbx, qword_ptr(DATA)).unwrap(),
            "SecondAccess { address: 4000, size: 8, kind: Write, linear: Some(10000), is_entry: true, page: Rights { user: true, writable: true, executable: true }, user: false, shadow_stack: false } 102",
            CODE,
        ),
        (
            (PT >> 12, 0, 0),
            |a| a.nop().unwrap(),
            "SecondAccess { address: a080, size: 8, kind: Read, linear: Some(10000), is_entry: true, page: Rights { user: true, writable: true, executable: true }, user: false, shadow_stack: false } 1",
            CODE,
        ),
    ];
    for (page, code, what, pc) in cases {
        let mut r = rig(&[*page], code);
        r.run();
        let exits = r.exits();
        assert_eq!(exits.len(), 1, "{what}");
        assert_eq!((exits[0].what.as_str(), exits[0].pc, exits[0].delivering), (*what, *pc, None));
        assert_eq!(r.machine.vcpus[0].core.pc, HOST + 1);
    }
}

#[test]
fn a_refusal_in_the_delivery_of_an_event() {
    // The stack, and then the IDT, cannot be reached.
    for (page, kind, address) in [((STACK - 8) >> 12, "Write", STACK - 8), (IDT >> 12, "Read", IDT + 16 * 6)] {
        let mut r = rig(&[(page, page, if kind == "Write" { READ } else { 0 })], |a| a.ud2().unwrap());
        r.run();
        let exits = r.exits();
        assert!(exits[0].what.contains(&format!("address: {address:x}, size: 8, kind: {kind}")), "{exits:?}");
        assert_eq!((exits[0].pc, exits[0].delivering.map(|d| d.vector)), (CODE, Some(6)));
        assert_eq!(r.reg(4), STACK, "nothing has been pushed");
    }
}

#[test]
fn a_refusal_in_a_repetition() {
    let next = (DATA >> 12) + 1;
    let mut r = rig(&[(next, next, READ)], |a| {
        a.mov(edi, (DATA + 0x1000 - 12) as u32).unwrap();
        a.mov(ecx, 8).unwrap();
        a.rep().stosd().unwrap();
    });
    r.run();
    assert_eq!((r.exits().len(), r.reg(RCX)), (1, 5));
    assert!(r.exits()[0].what.contains("address: 41000, size: 1, kind: Write"));
}

/// Translations are kept under their tag: neither host nor another guest sees them, and entering asks nothing again.
#[test]
fn translations_are_tagged() {
    let mut r = rig(&[(DATA >> 12, OTHER >> 12, ALL)], |a| {
        a.mov(rsi, qword_ptr(DATA)).unwrap();
        a.vmcall().unwrap();
    });
    // The host sees DATA itself, and enters again, thrice.
    r.code(HOST, |a| {
        let mut done = a.create_label();
        a.mov(rdi, qword_ptr(DATA)).unwrap();
        a.inc(rdx).unwrap();
        a.cmp(rdx, 3).unwrap();
        a.je(done).unwrap();
        a.mov(ebx, CODE as u32).unwrap();
        a.vmcall().unwrap();
        a.set_label(&mut done).unwrap();
    });
    r.put(DATA, 1);
    r.put(OTHER, 2);
    let mut walks = vec![];
    for _ in 0..2000 {
        let next = r.machine.retired() + 1;
        let end = r.machine.run(next);
        if walks.len() < r.exits().len() {
            walks.push(r.toy().walks);
        }
        if end != emu_core::machine::End::Limit {
            break;
        }
    }
    assert_eq!((r.reg(6), r.reg(7), walks.len()), (2, 1, 3));
    assert!(walks[0] > 0 && walks[1] == walks[0] && walks[2] == walks[0], "{walks:?}");
}

/// MOV to CR3 in a guest drops the guest's own translations.
#[test]
fn a_guest_drops_its_own() {
    let mut r = rig(&[], |a| {
        a.mov(rax, qword_ptr(DATA)).unwrap();
        a.mov(dword_ptr(PT + 8 * (DATA >> 12)), (OTHER | 3) as i32).unwrap();
        a.mov(rcx, cr3).unwrap();
        a.mov(cr3, rcx).unwrap();
        a.mov(rbx, qword_ptr(DATA)).unwrap();
    });
    r.put(DATA, 1);
    r.put(OTHER, 2);
    r.run();
    assert_eq!((r.reg(0), r.reg(RBX)), (1, 2));
}

/// What the extension drops by guest-physical address is asked for again.
#[test]
fn guest_physical_pages_can_be_dropped() {
    let mut r = rig(&[], |a| {
        a.mov(rax, qword_ptr(DATA)).unwrap();
        a.vmcall().unwrap();
    });
    r.code(HOST, |a| a.jmp(HOST).unwrap());
    r.machine.run(1000);
    let walks = r.toy().walks;
    let again = |r: &mut Rig| {
        let mut toy = r.toy();
        toy.guest = true;
        r.cpu().extension = x86::extension::Slot::with(Box::new(toy));
        let core = &mut r.machine.vcpus[0].core;
        core.pc = CODE;
        core.spaces_changed = true;
        let until = r.machine.retired() + 1000;
        r.machine.run(until);
        r.toy().walks
    };
    assert_eq!(again(&mut r), walks);
    r.machine.vcpus[0].core.mmu.drop_guest_page(DATA, |key| key.0 >> 20 == 1);
    assert!(again(&mut r) > walks);
}

/// Accesses to an address of the extension's own go to it, one by one; and it has its say behind each.
#[test]
fn accesses_of_its_own() {
    let mut r = rig(&[(DATA >> 12, OWN >> 12, ALL)], |a| {
        a.mov(ebx, dword_ptr(DATA + 0x80)).unwrap();
        a.mov(ecx, dword_ptr(DATA + 0x84)).unwrap();
        a.or(byte_ptr(DATA + 0x91), 2).unwrap();
        a.ud2().unwrap();
    });
    let toy = Toy { takes: vec!["Over".into()], ..r.toy() };
    r.cpu().extension = Slot::with(Box::new(toy));
    r.run();
    let toy = r.toy();
    assert_eq!((r.reg(RBX), r.reg(RCX)), (0x80, 0x84));
    assert_eq!(toy.own, [(0x80, 4, None), (0x84, 4, None), (0x91, 1, None), (0x91, 1, Some(0x93))]);
    assert_eq!(toy.exits.iter().map(|e| (e.what.as_str(), e.pc)).collect::<Vec<_>>(), [("Over", CODE + 22)]);
    assert_eq!(r.get(DATA + 0x90), 0);
}
