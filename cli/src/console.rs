//! Consoles: where the guest's output goes, what is looked for in it, where piped input comes from.

use std::io::{BufWriter, Read, Write};
use std::sync::{Arc, Mutex, MutexGuard};

use emu_core::door::{Input, Output};

use crate::expect::Pattern;

/// What a console has come to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// `--expect` matched.
    Expected,
    /// `--fail-on` matched.
    Failed,
}

/// A console's other end.
pub struct Console {
    to: BufWriter<Box<dyn Write + Send>>,
    /// The first thing that could not be written; nothing is from then on.
    error: Option<std::io::Error>,
    /// In the order in which they are asked: of two that match at the same byte the failure counts.
    patterns: Vec<(Verdict, Pattern)>,
    /// The first match.
    verdict: Option<Verdict>,
    /// Of all bytes.
    hasher: blake3::Hasher,
    /// The unfinished line has not been looked at since it last grew.
    has_grown: bool,
}

impl Console {
    fn write(&mut self, bytes: &[u8]) {
        self.try_to(|to| to.write_all(bytes));
        self.hasher.update(bytes);
        self.has_grown = true;
        for byte in bytes {
            for (verdict, pattern) in &mut self.patterns {
                if pattern.take(*byte) {
                    self.verdict = self.verdict.or(Some(*verdict));
                }
            }
        }
    }

    /// A host's output that is gone must not change what the guest does: it is told at the end.
    fn try_to(&mut self, write: impl FnOnce(&mut BufWriter<Box<dyn Write + Send>>) -> std::io::Result<()>) {
        if self.error.is_none() {
            self.error = write(&mut self.to).err();
        }
    }

    /// Lets out what has been written.
    pub fn flush(&mut self) {
        self.try_to(|to| to.flush());
    }

    /// The verdict so far, after a look at the unfinished line.
    pub fn look(&mut self) -> Option<Verdict> {
        if std::mem::take(&mut self.has_grown) && self.verdict.is_none() {
            self.verdict = self.patterns.iter().find(|(_, p)| p.matches_already()).map(|(v, _)| *v);
        }
        self.verdict
    }

    /// The machine has ended, or starts anew: so has the line.
    pub fn end_line(&mut self) -> Option<Verdict> {
        for (verdict, pattern) in &mut self.patterns {
            if pattern.end() {
                self.verdict = self.verdict.or(Some(*verdict));
            }
        }
        self.verdict
    }

    /// BLAKE3 of all bytes that the guest wrote.
    pub fn hash(&self) -> String {
        self.hasher.finalize().to_hex().to_string()
    }

    /// What went wrong with the output, if anything did.
    pub fn take_error(&mut self) -> Option<std::io::Error> {
        self.error.take()
    }
}

/// A console, shared between the machine's door and whoever looks at it.
#[derive(Clone)]
pub struct Shared(Arc<Mutex<Console>>);

impl Shared {
    /// A console whose output goes to `to`, with patterns that are looked for.
    pub fn new(to: Box<dyn Write + Send>, patterns: Vec<(Verdict, Pattern)>) -> Self {
        let to = BufWriter::new(to);
        let hasher = blake3::Hasher::new();
        Shared(Arc::new(Mutex::new(Console { to, error: None, patterns, verdict: None, hasher, has_grown: false })))
    }

    /// The console.
    pub fn lock(&self) -> MutexGuard<'_, Console> {
        self.0.lock().expect("nobody panics with it")
    }
}

impl Output for Shared {
    fn write(&mut self, bytes: &[u8]) {
        self.lock().write(bytes);
    }
}

/// Standard input that is a file or a pipe: read when the guest asks. Once a verdict is there, the run is about to end, and
/// nothing more is waited for.
pub struct Piped(pub Shared);

impl Input for Piped {
    fn read(&mut self) -> Option<u8> {
        {
            let mut console = self.0.lock();
            if console.look().is_some() {
                return None;
            }
            // Whoever is to answer has to see the question.
            console.flush();
        }
        std::io::stdin().lock().bytes().next()?.ok()
    }
}

/// Bytes that were piped when the run was recorded.
pub struct Recorded(pub std::collections::VecDeque<u8>);

impl Input for Recorded {
    fn read(&mut self) -> Option<u8> {
        self.0.pop_front()
    }
}
