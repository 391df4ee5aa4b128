//! A guest of 64 bits, and EPT paging structures for it.

use vmx_sim::Vmx;
use vmx_sim::vmcs::Vmcs;
use x86::extension::Slot;
use x86_bare::{Bare, Code, assemble};

use crate::base::{Base, EPT, GUEST, enter_with, with_ept};

/// The EPT page table of the first 2 MiB.
const TABLE: u64 = EPT + 0x3000;
/// Bits of an EPT entry that maps write-back memory, and lets everything be done there.
pub const ALL: u64 = 0x37;
/// A page that the guest has, and another.
pub const DATA: u64 = 0x6_0000;
pub const MORE: u64 = 0x6_1000;
/// A page of the host's, for what a field points to.
pub const TARGET: u64 = 0x7_0000;

/// The VMCS.
pub fn vmcs(bare: &Bare) -> &Vmcs {
    let extension = bare.machine.vcpus[0].arch.extension.get().unwrap();
    let vmx: &Vmx = extension.as_any().downcast_ref().unwrap();
    assert_eq!(vmx.failure, None);
    &vmx.vmcs
}

/// Where the EPT entry of a page in the first 2 MiB is.
pub fn entry(page: u64) -> u64 {
    TABLE + page / 4096 * 8
}

/// Maps a page with these bits.
pub fn map(bare: &mut Bare, page: u64, bits: u64) {
    bare.put(entry(page), page | bits);
}

/// Enters a guest with this code; its VMCS, with EPT, and the machine are `spoil`ed before.
pub fn run(spoil: impl FnOnce(&mut Vmcs), prepare: impl FnOnce(&mut Bare), code: Code) -> Bare {
    let (_, mut bare) = enter_with(Base::Long, with_ept, |bare| {
        // All is allowed above the page table, fetches from user-mode addresses too.
        for level in 0..3 {
            bare.put(EPT + 0x1000 * level, (EPT + 0x1000 * (level + 1)) | 0x407);
        }
        for page in (0..0x20_0000).step_by(4096) {
            map(bare, page, ALL);
        }
        let bytes = assemble(64, GUEST, code);
        bare.machine.world.ram.write(GUEST, &bytes).unwrap();
        change(bare, spoil);
        prepare(bare);
    });
    bare.go_on();
    bare
}

/// Changes the VMCS.
pub fn change(bare: &mut Bare, f: impl FnOnce(&mut Vmcs)) {
    let slot = &mut bare.cpu().extension;
    let vmx: &Vmx = slot.get().unwrap().as_any().downcast_ref().unwrap();
    let mut vmx = vmx.clone();
    f(&mut vmx.vmcs);
    *slot = Slot::with(Box::new(vmx));
}
