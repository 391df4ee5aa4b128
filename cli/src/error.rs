//! Bad input: one line that names the thing and what was expected.

use std::fmt::Display;
use std::io::Write;

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

/// Says something in one line, whatever its causes have to say.
pub fn tell(what: impl Display) {
    let line = what.to_string().replace('\n', " ");
    let _ = writeln!(std::io::stderr(), "undervisor: {line}"); // there is no better place for it to be said
}

/// Prints what was asked for. A reader that has seen enough is no error.
pub fn print(text: &str) -> Result<(), UserError> {
    let mut out = std::io::stdout();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(e) if e.kind() != std::io::ErrorKind::BrokenPipe => Err(about("standard output", e)),
        _ => Ok(()),
    }
}
