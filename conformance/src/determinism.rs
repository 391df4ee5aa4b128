//! Whether runs that must be the same are, by what `undervisor run --json` says of them.

use serde_json::Value;

use crate::suite::{Outcome, Verdict};

/// A run's summary, or why there is none.
pub(crate) type Summary = Result<Value, String>;

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
