//! The console: where the guest's output goes, what is looked for in it, where its input comes from.

use std::io::{IsTerminal, Read, Write};
use std::sync::{Arc, Mutex, mpsc};

use emu_core::door::{Input, Output};
use regex::bytes::Regex;

/// What the console has come to.
#[derive(Default)]
pub struct Seen {
    /// `--expect` matched.
    pub expected: bool,
    /// `--fail-on` matched.
    pub failed: bool,
    /// Of all bytes.
    hasher: blake3::Hasher,
    /// The present line, as far as it goes.
    line: Vec<u8>,
}

/// No line is looked at beyond so many bytes.
const LONGEST_LINE: usize = 8192;

/// The end of the console that the machine writes to.
pub struct Console {
    to: Box<dyn Write + Send>,
    expect: Option<Regex>,
    fail_on: Option<Regex>,
    seen: Arc<Mutex<Seen>>,
}

impl Console {
    /// A console, and what it sees.
    pub fn new(to: Box<dyn Write + Send>, expect: Option<Regex>, fail_on: Option<Regex>) -> (Self, Arc<Mutex<Seen>>) {
        let seen = Arc::new(Mutex::new(Seen::default()));
        (Console { to, expect, fail_on, seen: seen.clone() }, seen)
    }
}

impl Output for Console {
    fn write(&mut self, bytes: &[u8]) {
        // A host's output that is gone must not change what the guest does.
        let _ = self.to.write_all(bytes).and_then(|()| self.to.flush());
        let mut seen = self.seen.lock().expect("nobody panics with it");
        seen.hasher.update(bytes);
        for b in bytes {
            if seen.line.len() < LONGEST_LINE {
                seen.line.push(*b);
            }
            // A prompt has no end of line: the unfinished line is looked at from its last character that is no letter.
            if !b.is_ascii_alphanumeric() || seen.line.len() == LONGEST_LINE {
                let end = seen.line.iter().rposition(|b| !b"\r\n".contains(b)).map_or(0, |i| i + 1);
                let line = &seen.line[..end];
                let (expected, failed) =
                    [&self.expect, &self.fail_on].map(|r| r.as_ref().is_some_and(|r| r.is_match(line))).into();
                seen.expected |= expected;
                seen.failed |= failed;
            }
            if *b == b'\n' {
                seen.line.clear();
            }
        }
    }
}

/// BLAKE3 of all bytes that the guest wrote.
pub fn hash(seen: &Mutex<Seen>) -> String {
    seen.lock().expect("nobody panics with it").hasher.finalize().to_hex().to_string()
}

/// Standard input that is a file or a pipe: read when the guest asks.
pub struct Piped(pub std::io::Stdin);

impl Input for Piped {
    fn read(&mut self) -> Option<u8> {
        let mut byte = [0];
        match self.0.lock().read(&mut byte) {
            Ok(1) => Some(byte[0]),
            _ => None,
        }
    }
}

/// Bytes that were piped when the run was recorded.
pub struct Recorded(pub std::collections::VecDeque<u8>);

impl Input for Recorded {
    fn read(&mut self) -> Option<u8> {
        self.0.pop_front()
    }
}

/// The escape key: Ctrl-A.
const ESCAPE: u8 = 1;

/// A terminal in raw mode. It is put back when this is dropped.
pub struct Terminal {
    before: rustix::termios::Termios,
    keys: mpsc::Receiver<u8>,
    escaped: bool,
}

/// What was typed.
pub enum Typed {
    /// Bytes for the guest; maybe none.
    Bytes(Vec<u8>),
    /// Ctrl-A x.
    Quit,
}

impl Terminal {
    /// Standard input, if it is a terminal.
    pub fn open() -> Option<Self> {
        let stdin = std::io::stdin();
        if !stdin.is_terminal() {
            return None;
        }
        let before = rustix::termios::tcgetattr(&stdin).ok()?;
        let mut raw = before.clone();
        raw.make_raw();
        // Output keeps its line ends.
        raw.output_modes = before.output_modes;
        rustix::termios::tcsetattr(&stdin, rustix::termios::OptionalActions::Now, &raw).ok()?;
        let saved = before.clone();
        let hook = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            restore(&saved);
            hook(info);
        }));
        let (sender, keys) = mpsc::channel();
        #[expect(
            clippy::disallowed_methods,
            reason = "typed input is stamped with the instruction count as it arrives"
        )]
        std::thread::spawn(move || {
            let mut byte = [0];
            while std::io::stdin().read(&mut byte).is_ok_and(|n| n == 1) && sender.send(byte[0]).is_ok() {}
        });
        Some(Terminal { before, keys, escaped: false })
    }

    /// What has been typed since the last call; waits for up to `milliseconds` if there is nothing.
    pub fn read(&mut self, milliseconds: u64) -> Typed {
        let mut bytes = Vec::new();
        let first = if milliseconds == 0 {
            self.keys.try_recv().ok()
        } else {
            self.keys.recv_timeout(std::time::Duration::from_millis(milliseconds)).ok()
        };
        for key in first.into_iter().chain(self.keys.try_iter()) {
            match (std::mem::take(&mut self.escaped), key) {
                (false, ESCAPE) => self.escaped = true,
                (true, b'x') => return Typed::Quit,
                (true, ESCAPE) | (false, _) => bytes.push(key),
                (true, _) => {}
            }
        }
        Typed::Bytes(bytes)
    }
}

fn restore(to: &rustix::termios::Termios) {
    // There is no better place for it to be said.
    let _ = rustix::termios::tcsetattr(std::io::stdin(), rustix::termios::OptionalActions::Now, to);
}

impl Drop for Terminal {
    fn drop(&mut self) {
        restore(&self.before);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_found_however_it_comes() {
        let regex = |s| Some(Regex::new(s).unwrap());
        let (mut console, seen) = Console::new(Box::new(std::io::sink()), regex("up \\d+$"), regex("login: "));
        for b in b"not up\r\nsystem up 12" {
            console.write(&[*b]);
        }
        assert!(!seen.lock().unwrap().expected);
        console.write(b"\nlogin: ");
        assert!(seen.lock().unwrap().failed);
    }
}
