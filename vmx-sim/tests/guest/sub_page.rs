//! "Sub-Page Write Permissions".

use iced_x86::code_asm::*;
use vmx_sim::control::secondary;
use vmx_sim::exit::Reason;
use vmx_sim::field::*;
use vmx_sim::vmcs::Vmcs;
use x86_bare::{Bare, Code};

use crate::base::on;
use crate::machine::{ALL, DATA, TARGET, entry, map, run, vmcs};

const WRITE: u64 = 2;
const SUB_PAGE: u64 = 1 << 61;
/// The vector of [`DATA`].
const VECTOR: u64 = TARGET + 0x3000 + DATA / 4096 * 8;

fn has_sub_pages(v: &mut Vmcs) {
    on(v, secondary::SUB_PAGE_WRITE_PERMISSIONS);
    v[SUB_PAGE_PERMISSION_TABLE_POINTER] = TARGET;
}

/// Regions 1 and 2 may be written.
fn tables(bare: &mut Bare) {
    for level in 0..3 {
        bare.put(TARGET + 0x1000 * level, (TARGET + 0x1000 * (level + 1)) | 1);
    }
    bare.put(VECTOR, 1 << 2 | 1 << 4);
    map(bare, DATA, ALL & !WRITE | SUB_PAGE);
}

fn outcome(bare: &Bare) -> (Option<Reason>, u64) {
    (Reason::of(vmcs(bare)[EXIT_REASON]), vmcs(bare)[EXIT_QUALIFICATION])
}

/// Writes 8 bytes there.
fn write(offset: u64, prepare: impl FnOnce(&mut Bare)) -> (Option<Reason>, u64, u64) {
    let code: Code = &|a| {
        a.mov(rax, qword_ptr(DATA))?;
        a.mov(rax, 0x1234u64)?;
        a.mov(qword_ptr(DATA + offset), rax)?;
        a.vmcall()
    };
    let with_tables = |bare: &mut Bare| {
        tables(bare);
        prepare(bare);
    };
    let bare = run(has_sub_pages, with_tables, code);
    let (reason, qualification) = outcome(&bare);
    (reason, qualification, bare.get(DATA + offset))
}

const DONE: (Option<Reason>, u64, u64) = (Some(Reason::Vmcall), 0, 0x1234);
/// Of an EPT violation by a write to a readable, executable page, at a user-mode address.
const VIOLATION: (Option<Reason>, u64, u64) = (Some(Reason::EptViolation), 0x7aa, 0);

#[test]
fn regions_have_permissions_of_their_own() {
    for (offset, expected) in [
        (0x80, DONE),
        (0xfc, DONE),
        (0x178, DONE),
        (0, VIOLATION),
        (0x7c, VIOLATION),
        (0x17c, VIOLATION),
        (0xf80, VIOLATION),
    ] {
        assert_eq!(write(offset, |_| {}), expected, "{offset:x}");
    }
}

/// What was allowed once is asked about again.
#[test]
fn nothing_is_held_of_a_region() {
    let code: Code = &|a| {
        a.mov(qword_ptr(DATA + 0x80), rax)?;
        a.mov(qword_ptr(DATA + 0x88), rax)?;
        a.mov(qword_ptr(DATA + 0x180), rax)?;
        a.vmcall()
    };
    let bare = run(has_sub_pages, tables, code);
    assert_eq!((outcome(&bare).0, vmcs(&bare)[GUEST_LINEAR_ADDRESS]), (Some(Reason::EptViolation), DATA + 0x180));
}

#[test]
fn only_pages_that_say_so_have_them() {
    assert_eq!(write(0x80, |bare| map(bare, DATA, ALL & !WRITE)), VIOLATION);
    // And whose structures above allow writes.
    let above = |bare: &mut Bare| bare.put(crate::base::EPT + 0x2000, (crate::base::EPT + 0x3000) | 5);
    let code: Code = &|a| a.mov(qword_ptr(DATA + 0x80), rax);
    let both = |bare: &mut Bare| {
        tables(bare);
        above(bare);
        bare.put(entry(DATA), DATA | ALL & !WRITE | SUB_PAGE);
    };
    assert_eq!(outcome(&run(has_sub_pages, both, code)).0, Some(Reason::EptViolation));
}

#[test]
fn misses_and_misconfigurations() {
    let related = Some(Reason::SubPagePermission);
    assert_eq!(write(0x80, |bare| bare.put(TARGET + 0x2000, 0)), (related, 1 << 11, 0));
    assert_eq!(write(0x80, |bare| bare.put(TARGET + 0x1000, 1 | 1 << 46)), (related, 0, 0));
    assert_eq!(write(0x80, |bare| bare.put(TARGET, bare.get(TARGET) | 2)), (related, 0, 0));
    assert_eq!(write(0x80, |bare| bare.put(VECTOR, 1 << 2 | 1 << 3)), (related, 0, 0));
}
