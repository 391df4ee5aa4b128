//! Interrupts between virtual processors.

use svm_sim::exit::code;
use svm_sim::vmcb::*;

use crate::base::{VMCB, read};
use crate::rig::*;

const IRR: u64 = 0x200;

/// Why an IPI is not completed.
const INVALID_TYPE: u64 = 0;
const NOT_RUNNING: u64 = 1;
const INVALID_TARGET: u64 = 2;
const INVALID_BACKING_PAGE: u64 = 3;
const INVALID_VECTOR: u64 = 4;

const LOGICAL_MODE: u32 = 1 << 11;
const TO_SELF: u32 = 1 << 18;
const TO_ALL: u32 = 2 << 18;
const TO_OTHERS: u32 = 3 << 18;

/// A guest that sends this.
fn sender(command: u32, destination: u32) -> Rig {
    Rig::new(&move |a| {
        store(a, 0x310, destination << 24)?;
        store(a, 0x300, command)
    })
}

fn got(r: &Rig) -> [bool; 2] {
    [PAGE, OTHER_PAGE].map(|page| r.has_vector(page, IRR, 0x45))
}

/// What a guest has sent is in these backing pages; nothing is told.
fn sends(mut r: Rig, to: [bool; 2]) {
    assert_eq!((r.enter()[0], got(&r)), (code::VMMCALL, to));
}

/// It is told why not, with an index.
fn fails(mut r: Rig, command: u32, destination: u32, why: u64, index: u64, to: [bool; 2]) {
    let icr = u64::from(destination) << 56 | u64::from(command);
    assert_eq!(r.enter(), [code::AVIC_INCOMPLETE_IPI, icr, why << 32 | index]);
    assert_eq!(got(&r), to);
    // It is behind the instruction.
    assert_eq!(r.load(read(&r, RIP), 3), 0xd9_010f);
}

#[test]
fn physical() {
    sends(sender(0x45, 1), [false, true]);
    sends(sender(0x45, 0), [true, false]);
    sends(sender(0x45, 0xff), [true, true]);
    sends(sender(0x45 | TO_SELF, 1), [true, false]);
    sends(sender(0x45 | TO_ALL, 9), [true, true]);
    sends(sender(0x45 | TO_OTHERS, 9), [false, true]);
    fails(sender(0x45, 2), 0x45, 2, INVALID_TARGET, 2, [false; 2]);
    fails(sender(0x45, 9), 0x45, 9, INVALID_TARGET, 9, [false; 2]);
}

#[test]
fn what_is_not_accelerated() {
    for mode in 1..8 {
        let command = 0x45 | mode << 8;
        fails(sender(command, 1), command, 1, INVALID_TYPE, 0, [false; 2]);
    }
    fails(sender(0x8045, 1), 0x8045, 1, INVALID_TYPE, 0, [false; 2]);
    fails(sender(0x0f, 1), 0x0f, 1, INVALID_VECTOR, 0, [false; 2]);
    fails(sender(0x0f | TO_SELF, 1), 0x0f | TO_SELF, 1, INVALID_VECTOR, 0, [false; 2]);
}

#[test]
fn a_target_that_does_not_run() {
    let mut r = sender(0x45, 1);
    r.set_entry(1, VALID | OTHER_PAGE | 1);
    fails(r, 0x45, 1, NOT_RUNNING, 1, [false, true]);
    let mut r = sender(0x45 | TO_ALL, 0);
    r.set_entry(1, VALID | OTHER_PAGE | 1);
    fails(r, 0x45 | TO_ALL, 0, NOT_RUNNING, 1, [true, true]);
}

#[test]
fn a_backing_page_beyond_memory() {
    let mut r = sender(0x45, 1);
    r.set_entry(1, VALID | IS_RUNNING | 1 << 51);
    fails(r, 0x45, 1, INVALID_BACKING_PAGE, 1, [false; 2]);
}

#[test]
fn logical_flat() {
    let guest = |destination| {
        let mut r = sender(0x45 | LOGICAL_MODE, destination);
        r.machine.world.ram.store(LOGICAL, 4, 1 << 31).unwrap();
        r.machine.world.ram.store(LOGICAL + 4, 4, 1 << 31 | 1).unwrap();
        r.machine.world.ram.store(LOGICAL + 8, 4, 1 << 31 | 2).unwrap();
        r
    };
    sends(guest(1), [true, false]);
    sends(guest(2), [false, true]);
    sends(guest(3), [true, true]);
    sends(guest(0xff), [true, true]);
    sends(guest(0), [false, false]);
    let command = 0x45 | LOGICAL_MODE;
    // One whose entry has no such processor; one without an entry.
    fails(guest(5), command, 5, INVALID_TARGET, 2, [false; 2]);
    fails(guest(8), command, 8, INVALID_TARGET, 3, [false; 2]);
}

#[test]
fn logical_clusters() {
    let guest = |destination| {
        let mut r = sender(0x45 | LOGICAL_MODE, destination);
        r.set_register(0xe0, 0x0fff_ffff);
        r.machine.world.ram.store(LOGICAL + 4 * 9, 4, 1 << 31 | 1).unwrap();
        r
    };
    sends(guest(0x22), [false, true]);
    let command = 0x45 | LOGICAL_MODE;
    fails(guest(0x21), command, 0x21, INVALID_TARGET, 8, [false; 2]);
    let mut r = guest(0x22);
    r.set_entry(1, VALID | OTHER_PAGE | 1);
    fails(r, command, 0x22, NOT_RUNNING, 9, [false, true]);
}

#[test]
fn a_guest_at_work_takes_it() {
    let mut r = Rig::new(&|a| {
        store(a, 0x310, 1 << 24)?;
        store(a, 0x300, 0x45)
    })
    .with_other(&|a| a.jmp(SECOND_GUEST));
    // Its handler has run; it is at work for ever.
    r.set(0, VMCB);
    r.machine.run(100_000);
    assert_eq!((read(&r, EXITCODE), r.taken()), (code::VMMCALL, vec![0x45]));
}
