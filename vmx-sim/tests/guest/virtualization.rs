//! "Virtualization Exceptions" and "VM Functions".

use iced_x86::code_asm::*;
use vmx_sim::control::secondary;
use vmx_sim::exit::Reason;
use vmx_sim::field::*;
use vmx_sim::vmcs::Vmcs;
use x86_bare::{Bare, Code, IDT};

use crate::base::{EPT, GUEST, on};
use crate::machine::{ALL, DATA, MORE, TARGET, entry, map, run, vmcs};

const SUPPRESS: u64 = 1 << 63;
const AREA: u64 = TARGET;
const LIST: u64 = TARGET + 0x1000;
/// Another root, whose page table has [`DATA`] at [`MORE`].
const OTHER: u64 = TARGET + 0x2000;
const EPTP: u64 = 3 << 3 | 6;

fn reason(bare: &Bare) -> Option<Reason> {
    Reason::of(vmcs(bare)[EXIT_REASON])
}

fn has_ve(v: &mut Vmcs) {
    on(v, secondary::EPT_VIOLATION_VE);
    (v[VIRTUALIZATION_EXCEPTION_INFORMATION_ADDRESS], v[EPTP_INDEX]) = (AREA, 7);
}

const WRITES: Code = &|a| a.mov(qword_ptr(DATA + 8), rax);

/// The guest's handler of #VE makes a VM exit of itself.
fn handles(bare: &mut Bare) {
    bare.handler(20, &|a| {
        a.pop(r8)?;
        a.vmcall()
    });
}

#[test]
fn a_convertible_violation_is_an_exception() {
    // Not writable; and not present.
    for (bits, rights) in [(ALL & !2, 0x28), (0, 0)] {
        let prepare = |bare: &mut Bare| {
            handles(bare);
            map(bare, DATA, bits);
        };
        let bare = run(has_ve, prepare, WRITES);
        assert_eq!((reason(&bare), bare.reg(8)), (Some(Reason::Vmcall), GUEST));
        let area: Vec<_> = (0..5).map(|i| bare.get(AREA + 8 * i)).collect();
        assert_eq!(area, [48 | 0xffff_ffff << 32, 2 | rights | 0x780, DATA + 8, DATA + 8, 7]);
    }
}

#[test]
fn what_is_not_convertible_exits() {
    let suppressed = |bare: &mut Bare| map(bare, DATA, ALL & !2 | SUPPRESS);
    assert_eq!(reason(&run(has_ve, suppressed, WRITES)), Some(Reason::EptViolation));
    let absent = |bare: &mut Bare| bare.put(entry(DATA), SUPPRESS);
    assert_eq!(reason(&run(has_ve, absent, WRITES)), Some(Reason::EptViolation));
    // The area is in use.
    let busy = |bare: &mut Bare| {
        map(bare, DATA, ALL & !2);
        bare.put(AREA, 1 << 32);
    };
    let bare = run(has_ve, busy, WRITES);
    assert_eq!((reason(&bare), bare.get(AREA)), (Some(Reason::EptViolation), 1 << 32));
    // In the delivery of another event.
    let bare = run(has_ve, |bare| map(bare, IDT, ALL & !1 & !2), &|a| a.ud2());
    assert_eq!((reason(&bare), bare.get(AREA)), (Some(Reason::EptViolation), 0));
    assert_eq!(vmcs(&bare)[IDT_VECTORING_INFORMATION], 1 << 31 | 3 << 8 | 6);
}

/// The information is there, though the exception causes a VM exit.
#[test]
fn the_exception_bitmap_has_its_say() {
    let bitmap = |v: &mut Vmcs| {
        has_ve(v);
        v[EXCEPTION_BITMAP] = 1 << 20;
    };
    let bare = run(bitmap, |bare| map(bare, DATA, ALL & !2), WRITES);
    assert_eq!((reason(&bare), bare.get(AREA) as u32), (Some(Reason::ExceptionOrNmi), 48));
    assert_eq!(vmcs(&bare)[EXIT_INTERRUPTION_INFORMATION], 1 << 31 | 3 << 8 | 20);
}

fn has_functions(v: &mut Vmcs) {
    on(v, secondary::ENABLE_VM_FUNCTIONS);
    (v[VM_FUNCTION_CONTROLS], v[EPTP_LIST_ADDRESS]) = (1, LIST);
}

/// Entry 5 of the list is another root.
fn other_root(bare: &mut Bare) {
    bare.put(LIST + 8 * 5, OTHER | EPTP);
    bare.put(LIST + 8 * 6, OTHER | EPTP | 1 << 11);
    for level in 0..3 {
        bare.put(OTHER + 0x1000 * level, (OTHER + 0x1000 * (level + 1)) | 7);
    }
    for page in (0..0x20_0000).step_by(4096) {
        let to = if page == MORE { DATA } else { page };
        bare.put(OTHER + 0x3000 + page / 4096 * 8, to | ALL);
    }
    bare.put(DATA, 0x11);
    bare.put(MORE, 0x22);
}

fn vmfunc(bare: fn(&mut Vmcs), eax_: u32, ecx_: u32) -> Bare {
    run(bare, other_root, &|a| {
        a.mov(r8, qword_ptr(MORE))?;
        a.mov(eax, eax_)?;
        a.mov(ecx, ecx_)?;
        a.db(&[0x0f, 0x01, 0xd4])?;
        a.mov(r9, qword_ptr(MORE))?;
        a.vmcall()
    })
}

#[test]
fn eptp_switching() {
    let bare = vmfunc(has_functions, 0, 5);
    assert_eq!((reason(&bare), bare.reg(8), bare.reg(9)), (Some(Reason::Vmcall), 0x22, 0x11));
    assert_eq!((vmcs(&bare)[EPT_POINTER], vmcs(&bare)[EPTP_INDEX]), (OTHER | EPTP, 0));
    let both = |v: &mut Vmcs| {
        has_functions(v);
        has_ve(v);
    };
    assert_eq!(vmcs(&vmfunc(both, 0, 5))[EPTP_INDEX], 5);
}

#[test]
fn functions_that_exit_or_are_none() {
    // No valid EPTP, beyond the list, not enabled.
    for (function, index) in [(0, 6), (0, 4), (0, 512), (1, 5), (63, 5)] {
        let bare = vmfunc(has_functions, function, index);
        assert_eq!((reason(&bare), vmcs(&bare)[EXIT_INSTRUCTION_LENGTH]), (Some(Reason::Vmfunc), 3));
        assert_eq!(vmcs(&bare)[EPT_POINTER], EPT | EPTP);
    }
    // #UD.
    let intercepts = |v: &mut Vmcs| {
        has_functions(v);
        v[EXCEPTION_BITMAP] = 1 << 6;
    };
    assert_eq!(reason(&vmfunc(intercepts, 64, 5)), Some(Reason::ExceptionOrNmi));
    let bare = vmfunc(|v| v[EXCEPTION_BITMAP] = 1 << 6, 0, 5);
    assert_eq!(reason(&bare), Some(Reason::ExceptionOrNmi));
}
