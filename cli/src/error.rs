//! Bad input: one line that names the thing and what was expected.

use std::fmt::Display;

/// What `undervisor` says before it ends with code 2.
#[derive(Debug)]
pub struct UserError(pub String);

impl<E: std::error::Error> From<E> for UserError {
    fn from(e: E) -> Self {
        UserError(e.to_string())
    }
}

/// An error about a named thing.
pub fn about(what: impl Display, problem: impl Display) -> UserError {
    UserError(format!("{what}: {problem}"))
}
