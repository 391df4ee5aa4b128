//! "Intercept Operation": every intercept has the guest's instruction that it takes, with what the exit tells; and what comes first, exceptions or
//! the intercept, as "Instruction Intercepts" has it.

#[path = "../vmrun/base.rs"]
#[allow(dead_code, reason = "the tests of VMRUN use the rest")]
mod base;
mod case;
mod coverage;
mod events;
mod exceptions;
mod instructions;
mod maps;
mod order;
mod registers;

use case::Case;

fn all() -> impl Iterator<Item = &'static Case> {
    registers::ALL.iter().chain(instructions::ALL).chain(exceptions::ALL).chain(events::ALL)
}

#[test]
fn each_is_taken_and_tells_what_it_must() {
    let wrong: Vec<_> = all().filter_map(|c| c.taken().err()).collect();
    assert!(wrong.is_empty(), "{wrong:#x?}");
}

#[test]
fn nothing_is_taken_without_its_bit() {
    let wrong: Vec<_> = all().filter_map(|c| c.left_alone().err()).collect();
    assert!(wrong.is_empty(), "{wrong:#x?}");
}
