//! VMCBs that make no sense: whatever comes of them is an exit, an exception or a shutdown. The emulator neither panics nor hangs, and a machine
//! that is restored goes on as the one that was saved. `NONSENSE_CASES` says how many are tried; `svm-sim/fuzz` does the same for ever.

#[path = "vmrun/base.rs"]
#[allow(dead_code, reason = "the tests of VMRUN use the rest")]
mod base;
#[path = "nonsense/guest.rs"]
mod guest;

#[test]
fn nonsense_neither_panics_nor_hangs() {
    x86_bare::nonsense::check(1000, guest::run);
}
