//! VM entries that make no sense: whatever comes of them, the emulator neither panics nor hangs, and stops only where a processor shuts down.
//! `NONSENSE_CASES` says how many are tried; `vmx-sim/fuzz` does the same for ever.

#[path = "entry/base.rs"]
#[allow(dead_code, reason = "the tests of VM entries use the rest")]
mod base;
#[path = "nonsense/guest.rs"]
mod guest;

#[test]
fn nonsense_neither_panics_nor_hangs() {
    x86_bare::nonsense::check(1000, guest::run);
}
