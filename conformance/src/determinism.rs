//! Whether runs that must be the same are, by what `undervisor run --json` says of them.

use serde_json::Value;

use crate::suite::{Outcome, Verdict};

/// A run's summary, or why there is none.
pub(crate) type Summary = Result<Value, String>;

/// Runs of one machine.
pub(crate) struct Runs<'a> {
    pub(crate) once: &'a Summary,
    /// The same, with a snapshot taken in the middle.
    pub(crate) again: &'a Summary,
    pub(crate) other_seed: &'a Summary,
    /// From that snapshot.
    pub(crate) restored: &'a Summary,
    /// With something typed.
    pub(crate) typed: &'a Summary,
    /// The same, recorded.
    pub(crate) recorded: &'a Summary,
    /// From that recording.
    pub(crate) replayed: &'a Summary,
}

impl Runs<'_> {
    /// What must be the same is.
    pub(crate) fn outcomes(&self, prefix: &str) -> Vec<Outcome> {
        let name = |what: &str| format!("{prefix}{what}");
        vec![
            states(&name("the same seed: the same state"), self.once, self.again, true),
            consoles(&name("the same seed: the same console"), self.once, self.again, true),
            states(&name("another seed: another run"), self.once, self.other_seed, false),
            states(&name("a snapshot, restored: the same state"), self.once, self.restored, true),
            states(&name("a recording, replayed: the same state"), self.recorded, self.replayed, true),
            states(&name("a recording changes nothing"), self.typed, self.recorded, true),
        ]
    }
}

/// Where two runs must have come to: the same count of instructions, and the same state of the machine.
pub(crate) fn states(name: &str, one: &Summary, other: &Summary, are_equal: bool) -> Outcome {
    compare(name, one, other, are_equal, |s| format!("{} {}", s["state_hash"], s["instructions"]))
}

/// The same of what their consoles have shown.
pub(crate) fn consoles(name: &str, one: &Summary, other: &Summary, are_equal: bool) -> Outcome {
    compare(name, one, other, are_equal, |s| s["console_hash"].to_string())
}

fn compare(name: &str, one: &Summary, other: &Summary, are_equal: bool, of: impl Fn(&Value) -> String) -> Outcome {
    let verdict = match (one, other) {
        (Ok(one), Ok(other)) if (of(one) == of(other)) == are_equal => Verdict::Pass,
        (Ok(one), Ok(other)) => Verdict::Fail(format!("{} and {}", of(one), of(other))),
        (Err(why), _) | (_, Err(why)) => Verdict::Fail(why.clone()),
    };
    Outcome { name: name.into(), verdict, instructions: 0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_must_be_equal_is_and_what_must_not_be_is_not() {
        let run = |state: &str| Ok(serde_json::json!({"state_hash": state, "instructions": 1, "console_hash": "c"}));
        let (a, b, none) = (run("a"), run("b"), Err("it did not end".to_owned()));
        let passes = |o: Outcome| o.verdict == Verdict::Pass;
        assert!(passes(states("", &a, &a, true)) && !passes(states("", &a, &b, true)));
        assert!(passes(states("", &a, &b, false)) && !passes(states("", &a, &a, false)));
        assert!(passes(consoles("", &a, &b, true)));
        assert!(!passes(states("", &none, &a, false)) && !passes(consoles("", &a, &none, true)));
    }
}
