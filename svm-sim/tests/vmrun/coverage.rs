//! No rule without a case. The rules are the texts in the sources of the checks.

use std::collections::{BTreeMap, BTreeSet};

use crate::cases;

const SOURCES: [&str; 2] = [include_str!("../../src/vmrun/checks.rs"), include_str!("../../src/vmrun/load.rs")];

/// The texts in a source, but for its comments and names of fields.
fn rules(source: &'static str) -> impl Iterator<Item = &'static str> {
    let code = source.lines().filter(|line| !line.trim_start().starts_with("//"));
    let texts = code.flat_map(|line| line.split('"').skip(1).step_by(2));
    texts.filter(|text| text.chars().any(char::is_lowercase))
}

#[test]
fn every_rule_has_a_case() {
    let mut wanted: BTreeMap<&str, usize> = BTreeMap::new();
    for rule in SOURCES.into_iter().flat_map(rules) {
        *wanted.entry(rule).or_default() += 1;
    }
    let mut broken: BTreeMap<&str, BTreeSet<_>> = BTreeMap::new();
    for case in cases::ALL {
        broken.entry(case.rule).or_default().insert(case.field);
    }
    let missing: Vec<_> = wanted.iter().filter(|(rule, n)| broken.get(**rule).map_or(0, BTreeSet::len) < **n).collect();
    assert!(missing.is_empty(), "{} of {} rules without a case: {missing:#?}", missing.len(), wanted.len());
}
