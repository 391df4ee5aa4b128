//! "Page-Modification Logging".

use iced_x86::code_asm::*;
use vmx_sim::control::secondary;
use vmx_sim::exit::Reason;
use vmx_sim::field::*;
use vmx_sim::vmcs::Vmcs;
use x86_bare::{Bare, Code};

use crate::base::on;
use crate::machine::{DATA, MORE, TARGET, entry, run, vmcs};

const ACCESSED: u64 = 1 << 8;
const DIRTY: u64 = 1 << 9;
const ACCESSED_DIRTY: u64 = 1 << 6;

fn logs(v: &mut Vmcs, index: u64) {
    on(v, secondary::ENABLE_PML);
    v[EPT_POINTER] |= ACCESSED_DIRTY;
    (v[PML_ADDRESS], v[PML_INDEX]) = (TARGET, index);
}

/// All flags but those of two pages are set.
fn clean(bare: &mut Bare) {
    for page in (0..0x20_0000).step_by(4096) {
        let flags = if matches!(page, DATA | MORE) { 0 } else { ACCESSED | DIRTY };
        bare.put(entry(page), bare.get(entry(page)) | flags);
    }
}

fn reason(bare: &Bare) -> Option<Reason> {
    Reason::of(vmcs(bare)[EXIT_REASON])
}

const WRITES: Code = &|a| {
    a.mov(eax, dword_ptr(MORE))?;
    a.mov(dword_ptr(DATA + 8), eax)?;
    a.mov(dword_ptr(DATA + 16), eax)?;
    a.mov(dword_ptr(MORE + 24), eax)?;
    a.vmcall()
};

#[test]
fn pages_are_logged_once_and_downwards() {
    let bare = run(|v| logs(v, 1), clean, WRITES);
    assert_eq!(reason(&bare), Some(Reason::Vmcall));
    assert_eq!((bare.get(TARGET + 8), bare.get(TARGET)), (DATA, MORE));
    assert_eq!(vmcs(&bare)[PML_INDEX], 0xffff);
}

#[test]
fn a_full_log_exits_before_the_access() {
    let bare = run(|v| logs(v, 0), clean, WRITES);
    assert_eq!(reason(&bare), Some(Reason::PageModificationLogFull));
    assert_eq!(vmcs(&bare)[EXIT_QUALIFICATION], 0);
    assert_eq!((bare.get(TARGET), bare.get(entry(MORE)) & (ACCESSED | DIRTY)), (DATA, ACCESSED));
    // An accessed flag wants room, too.
    let bare = run(|v| logs(v, 512), clean, WRITES);
    assert_eq!(reason(&bare), Some(Reason::PageModificationLogFull));
    assert_eq!(bare.get(entry(MORE)) & (ACCESSED | DIRTY), 0);
}

#[test]
fn without_flags_nothing_is_logged() {
    let bare = run(
        |v| {
            logs(v, 0xffff);
            v[EPT_POINTER] &= !ACCESSED_DIRTY;
        },
        clean,
        WRITES,
    );
    assert_eq!((reason(&bare), bare.get(TARGET)), (Some(Reason::Vmcall), 0));
}
