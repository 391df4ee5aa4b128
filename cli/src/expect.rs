//! `--expect` and `--fail-on`: regular expressions that follow a console byte by byte.
//!
//! A lazy DFA keeps no text: a line may be as long as it likes, and a byte costs one step. What is found depends on the
//! bytes alone, not on how they came.

use regex_automata::Input;
use regex_automata::hybrid::LazyStateID;
use regex_automata::hybrid::dfa::{Cache, DFA};
use regex_automata::nfa::thompson;
use regex_automata::util::syntax;

/// A regular expression, and how far it has come in the present line.
///
/// `^` and `$` are the ends of a line; carriage returns before a line feed belong to the end. `.` is a byte, and classes are
/// ASCII's, for a console is bytes.
pub struct Pattern {
    dfa: DFA,
    cache: Cache,
    /// After all bytes of the line but those in `returns`.
    state: LazyStateID,
    /// Carriage returns that may yet turn out to be the end of the line.
    returns: usize,
    /// Nothing of the line has come.
    is_empty: bool,
}

impl Pattern {
    /// The expression that `text` is. An error says what is wrong with it.
    pub fn new(text: &str) -> Result<Self, String> {
        let dfa = DFA::builder()
            .configure(DFA::config().skip_cache_capacity_check(true))
            .syntax(syntax::Config::new().unicode(false).utf8(false))
            .thompson(thompson::Config::new().utf8(false).nfa_size_limit(Some(10 << 20)))
            .build(text)
            .map_err(|e| {
                // A syntax error comes as a picture of several lines, the last of which says what it is.
                let text = std::error::Error::source(&e).map_or_else(|| e.to_string(), ToString::to_string);
                text.lines().last().unwrap_or_default().trim_start_matches("error: ").to_owned()
            })?;
        let mut cache = dfa.create_cache();
        let state = start(&dfa, &mut cache)?;
        Ok(Pattern { dfa, cache, state, returns: 0, is_empty: true })
    }

    fn step(&mut self, byte: u8) -> bool {
        self.state = self.dfa.next_state(&mut self.cache, self.state, byte).expect(NEVER_GIVES_UP);
        self.state.is_match()
    }

    /// Takes a byte; whether the line matches now, whatever comes next in it.
    pub fn take(&mut self, byte: u8) -> bool {
        match byte {
            b'\n' => self.end_line(),
            b'\r' => {
                self.returns += 1;
                false
            }
            _ => {
                self.is_empty = false;
                let returned = (0..std::mem::take(&mut self.returns)).any(|_| self.step(b'\r'));
                returned || self.step(byte)
            }
        }
    }

    /// The line has ended; whether it matches.
    fn end_line(&mut self) -> bool {
        let end = self.dfa.next_eoi_state(&mut self.cache, self.state).expect(NEVER_GIVES_UP);
        self.state = start(&self.dfa, &mut self.cache).expect("it started before");
        self.returns = 0;
        self.is_empty = true;
        end.is_match()
    }

    /// Nothing more will come: whether the line matches as it is, if there is one.
    pub fn end(&mut self) -> bool {
        !self.is_empty && self.end_line()
    }

    /// Whether the line matches whatever comes next: a prompt has no end. A DFA sees a match one byte later, for the byte
    /// may be an end of word; so both kinds of bytes are tried, on a copy, for a full cache forgets its states.
    pub fn matches_already(&self) -> bool {
        let with = |byte| {
            let mut cache = self.cache.clone();
            self.dfa.next_state(&mut cache, self.state, byte).expect(NEVER_GIVES_UP).is_match()
        };
        !self.is_empty && with(b'a') && with(b' ')
    }
}

const NEVER_GIVES_UP: &str = "the cache is cleared as often as it is full";

fn start(dfa: &DFA, cache: &mut Cache) -> Result<LazyStateID, String> {
    dfa.start_state_forward(cache, &Input::new(b"")).map_err(|e| e.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// After which byte of `text` the pattern is found: by its bytes, by a look at the unfinished line, or by the end.
    fn found(pattern: &str, text: &str) -> Option<usize> {
        let mut p = Pattern::new(pattern).unwrap();
        for (i, byte) in text.bytes().enumerate() {
            if p.take(byte) || p.matches_already() {
                return Some(i);
            }
        }
        p.end().then_some(text.len())
    }

    #[test]
    fn a_line_is_found_however_it_comes() {
        assert_eq!(found("login: ", "login: "), Some(6));
        assert_eq!(found("up \\d+$", "not up\r\nsystem up 12"), Some(20), "`up 1` may go on");
        assert_eq!(found("up \\d+$", "system up 12\r\r\n"), Some(14));
        assert_eq!(found("12\\b", "up 123 12 "), Some(9));
        assert_eq!(found("^b", "ab\ncb\n\rb"), None, "a carriage return starts no line");
        assert_eq!(found("^b", "ab\nb"), Some(3));
        assert_eq!(found("^$", "a\n"), None);
        assert_eq!(found("^$", "a\n\n"), Some(2));
        assert_eq!(found("é+$", "éé\n"), Some(4));
        assert_eq!(found("a.b", "a\nb"), None);
    }

    #[test]
    fn a_line_may_be_long() {
        let mut text = "x".repeat(100_000);
        text.push_str("needle");
        assert_eq!(found("needle", &text), Some(100_005));
        assert_eq!(found("^needle", &text), None);
        // More states than a cache holds.
        assert_eq!(found("[xy]{300}needle", &text), Some(100_005));
    }

    #[test]
    fn what_is_no_expression_is_one_line() {
        for bad in ["(", "a{2,1}", "[é]", "(?:(?:x{1000}){1000}){1000}"] {
            let error = Pattern::new(bad).err().unwrap();
            assert_eq!(error.lines().count(), 1, "{error}");
        }
    }
}
