//! Machines that make no sense: whatever comes of them, the emulator neither panics nor hangs.

#![expect(clippy::disallowed_types, clippy::disallowed_methods, reason = "the host's time tells of a hang")]

use std::time::{Duration, Instant};

use proptest::prelude::*;
use proptest::test_runner::TestRunner;

/// A case takes milliseconds.
const LIMIT: Duration = Duration::from_secs(20);

fn variable(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

/// Makes so many of them from seeds, or `NONSENSE_CASES`; or the one of `NONSENSE_SEED`, to look at a seed that has failed.
///
/// # Panics
/// If one does, or hangs.
pub fn check(cases: u32, run: fn(&[u8])) {
    if let Some(seed) = variable("NONSENSE_SEED") {
        return run(&seed.to_le_bytes());
    }
    let cases = variable("NONSENSE_CASES").map_or(cases, |n| n as u32);
    let config = ProptestConfig { cases, failure_persistence: None, max_shrink_iters: 0, ..ProptestConfig::default() };
    let result = TestRunner::new(config).run(&any::<u64>(), |seed| {
        let begin = Instant::now();
        run(&seed.to_le_bytes());
        prop_assert!(begin.elapsed() < LIMIT, "it hangs");
        Ok(())
    });
    if let Err(why) = result {
        panic!("{why}");
    }
}
