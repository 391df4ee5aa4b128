//! A terminal in raw mode, as the other end of a console.

use std::io::{ErrorKind, IsTerminal, Read};
use std::sync::mpsc::{self, RecvTimeoutError, TryRecvError};
use std::time::Duration;

/// The escape key: Ctrl-A.
const ESCAPE: u8 = 1;

/// A terminal in raw mode. It is put back when this is dropped.
pub struct Terminal {
    before: rustix::termios::Termios,
    keys: mpsc::Receiver<u8>,
    escaped: bool,
}

/// What was typed.
#[derive(PartialEq, Eq)]
pub enum Typed {
    /// Bytes for the guest; maybe none.
    Bytes(Vec<u8>),
    /// Ctrl-A x.
    Quit,
    /// There is no terminal any more.
    Gone,
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
            loop {
                match std::io::stdin().read(&mut byte) {
                    Ok(1) if sender.send(byte[0]).is_ok() => {}
                    Err(e) if e.kind() == ErrorKind::Interrupted => {}
                    _ => break,
                }
            }
        });
        Some(Terminal { before, keys, escaped: false })
    }

    /// What has been typed since the last call; waits for up to `milliseconds` if there is nothing.
    pub fn read(&mut self, milliseconds: u64) -> Typed {
        let mut bytes = Vec::new();
        let first = match milliseconds {
            0 => self.keys.try_recv().map_err(|e| e == TryRecvError::Disconnected),
            n => self.keys.recv_timeout(Duration::from_millis(n)).map_err(|e| e == RecvTimeoutError::Disconnected),
        };
        if first == Err(true) {
            return Typed::Gone;
        }
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
