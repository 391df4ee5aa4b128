//! Machines that make no sense: whatever comes of them, the emulator neither panics nor hangs.

#![expect(clippy::disallowed_types, clippy::disallowed_methods, reason = "the host's time tells of a hang")]

use std::time::{Duration, Instant};

use emu_core::random::SplitMix64;
use proptest::prelude::*;
use proptest::test_runner::TestRunner;

/// Choices: a fuzzer's bytes, or a seed's, as long as there are any, then what follows from them (SplitMix64).
pub struct Choices<'a> {
    bytes: &'a [u8],
    state: SplitMix64,
}

impl<'a> Choices<'a> {
    /// From bytes.
    pub fn new(bytes: &'a [u8]) -> Self {
        let state = bytes.iter().fold(0xcbf2_9ce4_8422_2325, |h, b| (h ^ u64::from(*b)).wrapping_mul(0x100_0000_01b3));
        Choices { bytes, state: SplitMix64(state) }
    }

    /// Any number.
    #[expect(clippy::should_implement_trait, reason = "there is no end to them")]
    pub fn next(&mut self) -> u64 {
        if self.bytes.len() >= 8 {
            let (now, rest) = self.bytes.split_at(8);
            self.bytes = rest;
            return u64::from_le_bytes(now.try_into().unwrap());
        }
        self.state.next()
    }

    /// A number below `n`.
    pub fn below(&mut self, n: u64) -> u64 {
        self.next() % n
    }

    /// Yes, once in `n` times.
    pub fn one_in(&mut self, n: u64) -> bool {
        self.below(n) == 0
    }

    /// One of several.
    pub fn of<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.below(from.len() as u64) as usize]
    }
}

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
