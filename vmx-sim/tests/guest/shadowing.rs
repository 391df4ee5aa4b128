//! "VMCS Shadowing".

use iced_x86::code_asm::*;
use vmx_sim::capability::REVISION;
use vmx_sim::control::secondary;
use vmx_sim::exit::Reason;
use vmx_sim::field::*;
use vmx_sim::vmcs::{SHADOW, Vmcs};
use x86_bare::{Bare, Code};

use crate::base::on;
use crate::machine::{DATA, MORE, TARGET, change, entry, run, vmcs};

const READS: u64 = TARGET;
const WRITES: u64 = TARGET + 0x1000;
const REGION: u64 = TARGET + 0x2000;
/// Where a field is in a region.
const FIELDS: u64 = 16;

fn shadows(v: &mut Vmcs) {
    on(v, secondary::VMCS_SHADOWING);
    (v[VMREAD_BITMAP], v[VMWRITE_BITMAP], v[VMCS_LINK_POINTER]) = (READS, WRITES, REGION);
}

fn prepare(bare: &mut Bare) {
    bare.put(REGION, (REVISION | SHADOW).into());
    bare.put(REGION + FIELDS + 8 * GUEST_RIP.slot() as u64, 0x1234);
}

fn forbid(bare: &mut Bare, bitmap: u64, field: Field) {
    let at = bitmap + u64::from(field.0) / 64 * 8;
    bare.put(at, bare.get(at) | 1 << (field.0 % 64));
}

/// Reads RIP of the shadow VMCS and writes RSP, with the flags after each; as [`run`], with this before.
fn outcome(encodings: [u64; 2], before: fn(&mut Bare)) -> Bare {
    let code: Code = &|a| {
        a.mov(rcx, encodings[0])?;
        a.vmread(qword_ptr(DATA), rcx)?;
        a.pushfq()?;
        a.pop(r8)?;
        a.mov(rcx, encodings[1])?;
        a.vmwrite(rcx, qword_ptr(DATA))?;
        a.pushfq()?;
        a.pop(r9)?;
        a.vmcall()
    };
    run(
        shadows,
        |bare| {
            prepare(bare);
            before(bare);
        },
        code,
    )
}

fn reason(bare: &Bare) -> Option<Reason> {
    Reason::of(vmcs(bare)[EXIT_REASON])
}

fn of(field: Field) -> u64 {
    field.0.into()
}

const FLAGS: u64 = 0x8d5;

#[test]
fn what_the_bitmaps_let_through_goes_to_the_shadow() {
    let bare = outcome([of(GUEST_RIP), of(GUEST_RSP)], |_| {});
    assert_eq!(reason(&bare), Some(Reason::Vmcall));
    assert_eq!((bare.reg(8) & FLAGS, bare.reg(9) & FLAGS), (0, 0));
    assert_eq!((bare.get(DATA), bare.get(REGION + FIELDS + 8 * GUEST_RSP.slot() as u64)), (0x1234, 0x1234));
}

#[test]
fn what_they_do_not_exits() {
    let bare = outcome([of(GUEST_RIP), of(GUEST_RSP)], |bare| forbid(bare, READS, GUEST_RIP));
    assert_eq!((reason(&bare), vmcs(&bare)[EXIT_QUALIFICATION]), (Some(Reason::Vmread), DATA));
    let bare = outcome([of(GUEST_RIP), of(GUEST_RSP)], |bare| forbid(bare, WRITES, GUEST_RSP));
    assert_eq!((reason(&bare), bare.get(DATA)), (Some(Reason::Vmwrite), 0x1234));
    let bare = outcome([of(GUEST_RIP) | 1 << 15, 0], |_| {});
    assert_eq!(reason(&bare), Some(Reason::Vmread));
}

#[test]
fn failures_are_told_in_the_current_vmcs() {
    let bare = outcome([0x7ffe, of(GUEST_RSP)], |_| {});
    assert_eq!((reason(&bare), bare.reg(8) & FLAGS, bare.reg(9) & FLAGS), (Some(Reason::Vmcall), 0x40, 0));
    assert_eq!(vmcs(&bare)[INSTRUCTION_ERROR], 12);
    let bare = outcome([of(GUEST_RIP), of(GUEST_RSP)], |bare| change(bare, |v| v[VMCS_LINK_POINTER] = u64::MAX));
    assert_eq!((reason(&bare), bare.reg(8) & FLAGS, bare.reg(9) & FLAGS), (Some(Reason::Vmcall), 1, 1));
}

/// What the operand's page asks for happens to the guest, and is not forgotten.
#[test]
fn the_operand_is_the_guests() {
    let bare = outcome([of(GUEST_RIP), of(GUEST_RSP)], |bare| bare.put(entry(DATA), 0));
    assert_eq!((reason(&bare), vmcs(&bare)[GUEST_PHYSICAL_ADDRESS]), (Some(Reason::EptViolation), DATA));
    let bare = outcome([of(GUEST_RIP), of(GUEST_RSP)], |bare| {
        change(bare, |v| {
            on(v, secondary::ENABLE_PML);
            v[EPT_POINTER] |= 1 << 6;
            (v[PML_ADDRESS], v[PML_INDEX]) = (MORE, 511);
        });
    });
    let logged: Vec<_> = (vmcs(&bare)[PML_INDEX] + 1..512).map(|i| bare.get(MORE + 8 * i)).collect();
    assert!(logged.contains(&DATA), "{logged:x?}");
}
