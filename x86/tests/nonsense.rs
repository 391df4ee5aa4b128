//! Guest nonsense: random states, tables, code and signals on the whole board. Whatever comes of them, the emulator neither panics nor hangs, and
//! a restored machine goes on as the one that was saved. `NONSENSE_CASES` says how many are tried; `x86/fuzz` does the same for ever.

#[path = "nonsense/guest.rs"]
mod guest;

#[test]
fn nonsense_neither_panics_nor_hangs() {
    x86_bare::nonsense::check(400, guest::run);
}
