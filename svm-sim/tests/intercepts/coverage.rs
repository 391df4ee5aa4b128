//! No intercept without a case: the bits of words 0 to 5 are told by cases, or stand here for being what no guest can come to.

use std::collections::BTreeSet;

use svm_sim::exit::code::*;

/// Control and debug registers that there are not: such a MOV is #UD.
fn is_no_register(code: u64) -> bool {
    match code {
        0x00..0x20 => !matches!(code & 15, 0 | 2 | 3 | 4 | 8),
        0x20..0x40 => code & 15 > 7,
        // The traps are of CR0, CR3, CR4, CR8.
        0x90..0xa0 => !matches!(code & 15, 0 | 3 | 4 | 8),
        _ => false,
    }
}

/// Exceptions that no guest here comes to: NMI, which has an intercept of its own; the coprocessor's overrun, machine checks, those of SEV,
/// reserved ones.
fn is_no_exception(code: u64) -> bool {
    matches!(code.wrapping_sub(EXCEPTION), 2 | 9 | 15 | 18 | 20 | 22..=29 | 31)
}

/// Intercepts of #SX and of what the processor has not: SKINIT, and MCOMMIT, which `tests/features` has; and reserved bits.
fn is_elsewhere(code: u64) -> bool {
    const SX: u64 = EXCEPTION + 30;
    matches!(code, SX | SKINIT | MCOMMIT) || code > IDLE_HLT
}

#[test]
fn every_intercept_has_a_case() {
    let cases: BTreeSet<u64> = crate::all().map(|c| c.code).collect();
    let open =
        |code: &u64| !cases.contains(code) && !is_no_register(*code) && !is_no_exception(*code) && !is_elsewhere(*code);
    let missing: Vec<_> = (0..0xc0).filter(open).map(name).collect();
    assert!(missing.is_empty(), "{missing:?}");
    let twice: Vec<_> =
        cases.iter().filter(|c| is_no_register(**c) || is_no_exception(**c) || is_elsewhere(**c)).collect();
    assert!(twice.is_empty(), "cases for what nobody comes to: {twice:x?}");
}
