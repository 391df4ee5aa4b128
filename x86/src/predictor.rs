//! A branch predictor, so that counters and last branch records can tell of branches that were predicted wrongly. No manual says how one
//! predicts. This one is of the textbook kind (Smith, "A Study of Branch Prediction Strategies", 1981; Kaeli and Emma, 1991): directions from
//! counters of two bits, indirect jumps and calls as they went the last time, returns from a stack of sixteen. Direct jumps and calls are
//! always right; far transfers, interrupts and exceptions are not predicted.
//!
//! It learns while somebody watches branches ([`branch`](crate::branch)), and begins knowing nothing.

use serde::{Deserialize, Serialize};

use crate::branch::{Branch, Kind};

const DIRECTIONS: usize = 1024;
const TARGETS: usize = 256;
const RETURNS: usize = 16;

/// A counter of two bits that says "not taken", but only just.
const WEAKLY_NOT_TAKEN: u8 = 1;

/// What it has learned.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Predictor {
    /// Counters of two bits, by the branch's address. Empty until the first is needed.
    directions: Vec<u8>,
    /// Addresses of indirect branches, and where they led.
    targets: Vec<(u64, u64)>,
    /// Where calls will return to, the latest last.
    returns: Vec<u64>,
}

impl Predictor {
    /// A branch has retired: learns from it, and tells whether it was predicted wrongly.
    pub(crate) fn learn(&mut self, b: &Branch) -> bool {
        match b.kind {
            Kind::Conditional => self.learn_direction(b.from, b.taken),
            Kind::IndirectJump => self.learn_target(b.from, b.to),
            Kind::RelativeCall | Kind::IndirectCall => {
                if self.returns.len() == RETURNS {
                    self.returns.remove(0);
                }
                self.returns.push(b.next);
                b.kind == Kind::IndirectCall && self.learn_target(b.from, b.to)
            }
            Kind::Return => self.returns.pop() != Some(b.to),
            Kind::RelativeJump | Kind::Far | Kind::Event => false,
        }
    }

    fn learn_direction(&mut self, from: u64, taken: bool) -> bool {
        if self.directions.is_empty() {
            self.directions = vec![WEAKLY_NOT_TAKEN; DIRECTIONS];
        }
        let counter = &mut self.directions[(from ^ from >> 10) as usize % DIRECTIONS];
        let predicted = *counter > WEAKLY_NOT_TAKEN;
        *counter = if taken { (*counter + 1).min(3) } else { counter.saturating_sub(1) };
        predicted != taken
    }

    fn learn_target(&mut self, from: u64, to: u64) -> bool {
        if self.targets.is_empty() {
            self.targets = vec![(0, 0); TARGETS];
        }
        let entry = &mut self.targets[(from ^ from >> 8) as usize % TARGETS];
        std::mem::replace(entry, (from, to)) != (from, to)
    }

    /// An indirect branch prediction barrier: what came before it controls the prediction of no indirect branch behind it.
    pub(crate) fn barrier(&mut self) {
        self.targets.clear();
        self.returns.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn branch(kind: Kind, from: u64, to: u64, taken: bool) -> Branch {
        Branch { kind, taken, mispredicted: false, from, to, next: from + 5, from_user: false, to_user: false }
    }

    #[test]
    fn loops_calls_and_jumps() {
        let mut p = Predictor::default();
        let mut wrong = |kind, from, to, taken| p.learn(&branch(kind, from, to, taken));
        // The first turn of a loop and its end are wrong.
        let turns: Vec<_> = (0..10).map(|i| wrong(Kind::Conditional, 0x100, 0x80, i < 9)).collect();
        assert_eq!(turns.iter().filter(|w| **w).count(), 2);
        assert!(turns[0] && turns[9]);
        // An indirect jump is as it was the last time.
        let jumps = [0x500, 0x500, 0x600, 0x500].map(|to| wrong(Kind::IndirectJump, 0x200, to, true));
        assert_eq!(jumps, [true, false, true, true]);
        // Returns are as calls say.
        assert!(!wrong(Kind::RelativeCall, 0x300, 0x900, true) && wrong(Kind::IndirectCall, 0x905, 0xa00, true));
        assert!(!wrong(Kind::Return, 0xa08, 0x90a, true) && !wrong(Kind::Return, 0x910, 0x305, true));
        assert!(wrong(Kind::Return, 0x310, 0x777, true), "there was no call");
        assert!(!wrong(Kind::RelativeJump, 0x400, 0x401, true) && !wrong(Kind::Far, 0x400, 0x401, true));
        p.barrier();
        assert!(p.learn(&branch(Kind::IndirectJump, 0x200, 0x500, true)), "a barrier makes it forget");
    }

    #[test]
    fn returns_beyond_sixteen_are_lost() {
        let mut p = Predictor::default();
        for i in 0..20 {
            p.learn(&branch(Kind::RelativeCall, 0x100 * i, 0x100 * (i + 1), true));
        }
        let wrong = (0..20).rev().filter(|i| p.learn(&branch(Kind::Return, 0, 0x100 * i + 5, true))).count();
        assert_eq!(wrong, 4);
    }
}
