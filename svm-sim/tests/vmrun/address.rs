//! Where a VMCB may be.

use svm_sim::exit::code;
use svm_sim::vmcb::*;
use x86_bare::{Bare, CODE};

use crate::base::{Base, machine, svm};

/// VMRUN of what is at this address.
fn run(model: &str, at: u64) -> Bare {
    let mut bare = machine(model, &Base::Long.vmcb());
    bare.set(0, at);
    bare.machine.run(1000);
    bare
}

#[test]
fn misaligned_or_beyond_is_general_protection() {
    for model in ["amd", "amd,-svme_addr_chk"] {
        for at in [0x3_0001, 0x3_0800, 1 << 48, 1 << 63] {
            let bare = run(model, at);
            assert_eq!(bare.raised().0, 13, "{at:#x}");
            assert_eq!((svm(&bare).failure, svm(&bare).present()), (None, None));
        }
    }
}

/// What nothing answers reads as ones: a VMCB whose first broken rule is that of CR0. Its exit is told to nobody, and the host goes on.
#[test]
fn where_nothing_is_it_is_all_ones() {
    let bare = run("amd", 0xd000_0000);
    let failure = svm(&bare).failure.expect("it breaks a rule");
    assert_eq!((failure.field, failure.value), ("CR0", u64::MAX));
    assert_eq!(bare.machine.vcpus[0].core.pc, CODE + 4);
}

/// The local APIC's registers are no VMCB: EFER.SVME is 0 there.
#[test]
fn devices_are_read_as_they_are() {
    let bare = run("amd", x86::apic::BASE);
    let failure = svm(&bare).failure.expect("it breaks a rule");
    assert_eq!((failure.field, failure.value), ("EFER", 0));
    assert_eq!(bare.machine.vcpus[0].core.pc, CODE + 4);
    assert_eq!(svm(&bare).vmcb.get(EXITCODE), code::INVALID);
}
