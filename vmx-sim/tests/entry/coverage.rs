//! No rule without a case. The rules are the texts in the sources of the checks.

use std::collections::{BTreeMap, BTreeSet};

use crate::cases::{self, NOT_REACHED};

const SOURCES: [&str; 6] = [
    include_str!("../../src/entry/apic.rs"),
    include_str!("../../src/entry/controls.rs"),
    include_str!("../../src/entry/host.rs"),
    include_str!("../../src/entry/guest.rs"),
    include_str!("../../src/entry/guest_segments.rs"),
    include_str!("../../src/entry/non_register.rs"),
];

/// The texts in a source, but for its comments.
fn texts(source: &'static str) -> impl Iterator<Item = &'static str> {
    let code = source.lines().filter(|line| !line.trim_start().starts_with("//"));
    code.flat_map(|line| line.split('"').skip(1).step_by(2))
}

#[test]
fn every_rule_has_a_case() {
    let mut wanted: BTreeMap<&str, usize> = BTreeMap::new();
    for rule in SOURCES.into_iter().flat_map(texts) {
        *wanted.entry(rule).or_default() += 1;
    }
    let mut broken: BTreeMap<&str, BTreeSet<_>> = BTreeMap::new();
    for case in cases::all() {
        broken.entry(case.rule).or_default().insert(case.field);
    }
    let count = |rule: &str| {
        let not_reached = NOT_REACHED.iter().filter(|(_, r, _)| *r == rule).count();
        broken.get(rule).map_or(0, BTreeSet::len) + not_reached
    };
    let missing: Vec<_> = wanted.iter().filter(|(rule, n)| count(rule) < **n).collect();
    assert!(missing.is_empty(), "{} of {} rules without a case: {missing:#?}", missing.len(), wanted.len());
}
