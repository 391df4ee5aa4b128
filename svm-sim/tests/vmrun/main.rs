//! VMRUN: every rule has a case that breaks it, in a VMCB that runs without that; clean bits; the host's state.

mod address;
mod base;
mod cases;
mod clean;
mod coverage;
mod host;

use base::{Base, Outcome, machine, outcome};

#[test]
fn the_bases_run() {
    for base in Base::ALL {
        let mut bare = machine("amd", &base.vmcb());
        bare.machine.run(1000);
        assert_eq!(outcome(&bare), Outcome::Entered, "{base:?}");
    }
}

#[test]
fn each_case_breaks_its_rule() {
    let wrong: Vec<_> = cases::ALL
        .iter()
        .map(|case| {
            let mut v = case.base.vmcb();
            (case.spoil)(&mut v);
            let mut bare = machine(case.model, &v);
            (case.prepare)(&mut bare);
            bare.machine.run(1000);
            ((case.field, case.rule), outcome(&bare))
        })
        .filter(|((field, rule), outcome)| *outcome != Outcome::Failed { field, rule })
        .collect();
    assert!(wrong.is_empty(), "{wrong:#x?}");
}
