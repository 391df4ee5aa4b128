//! VM entries: every rule has a case that breaks it, in a VMCS that enters without that.

mod apic;
mod base;
mod cases;
mod coverage;

use base::{Base, How, Outcome, enter};

#[test]
fn the_bases_enter() {
    for base in Base::ALL {
        assert_eq!(enter(base, |_| {}), Outcome::Entered, "{base:?}");
    }
}

#[test]
fn each_case_breaks_its_rule() {
    let wrong: Vec<_> = cases::all()
        .map(|case| ((case.field, case.rule), enter(case.base, case.spoil)))
        .filter(|(expected, outcome)| {
            !matches!(outcome, Outcome::Failed { field, rule, .. } if (*field, *rule) == *expected)
        })
        .collect();
    assert!(wrong.is_empty(), "{wrong:#x?}");
}

/// "VM-Entry Failures": VMfail by number for controls and host state, a VM exit for guest state, with a qualification for three kinds of rules.
#[test]
fn how_an_entry_fails() {
    let how = |rule: &str| {
        let case = cases::all().find(|c| c.rule == rule).unwrap();
        match enter(case.base, case.spoil) {
            Outcome::Failed { how, .. } => how,
            other => panic!("{rule}: {other:?}"),
        }
    };
    assert_eq!(how("no more than 4 CR3-target values"), How::Fail(7));
    assert_eq!(how("LMA and LME as the host's address-space size has them"), How::Fail(8));
    assert_eq!(how("CR4.PCIDE only for an IA-32e mode guest"), How::Exit(0));
    assert_eq!(how("reserved bits of a present PDPTE are 0"), How::Exit(2));
    assert_eq!(how("no blocking by MOV SS where an NMI is injected"), How::Exit(3));
    assert_eq!(how("not the current VMCS"), How::Exit(4));
}
