//! VM entries that make no sense: whatever comes of them, the emulator neither panics nor hangs, and stops only where a processor shuts down.
//! `NONSENSE_CASES` says how many are tried; `vmx-sim/fuzz` does the same for ever.

#![expect(clippy::disallowed_types, clippy::disallowed_methods, reason = "the host's time tells of a hang")]

use std::time::{Duration, Instant};

use proptest::prelude::*;

#[path = "entry/base.rs"]
#[allow(dead_code, reason = "the tests of VM entries use the rest")]
mod base;
#[path = "nonsense/guest.rs"]
mod guest;

fn cases() -> ProptestConfig {
    let cases = std::env::var("NONSENSE_CASES").ok().and_then(|s| s.parse().ok()).unwrap_or(1000);
    ProptestConfig { cases, failure_persistence: None, max_shrink_iters: 0, ..ProptestConfig::default() }
}

/// A case takes milliseconds.
const LIMIT: Duration = Duration::from_secs(20);

proptest! {
    #![proptest_config(cases())]

    #[test]
    fn nonsense_neither_panics_nor_hangs(seed in any::<u64>()) {
        let begin = Instant::now();
        guest::run(&seed.to_le_bytes());
        prop_assert!(begin.elapsed() < LIMIT, "seed {seed:#x}");
    }
}

/// `NONSENSE_SEED` alone, to look at a seed that has failed.
#[test]
fn one_seed() {
    if let Some(seed) = std::env::var("NONSENSE_SEED").ok().and_then(|s| s.parse::<u64>().ok()) {
        guest::run(&seed.to_le_bytes());
    }
}
