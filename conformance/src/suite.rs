//! What a test of a public suite came to, and how a list of them is told.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

/// How a test ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// As it should.
    Pass,
    /// Not so: what is wrong.
    Fail(String),
    /// It was not run: why.
    Skip(String),
}

/// A test that was run, or not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// Its name.
    pub name: String,
    /// How it ended.
    pub verdict: Verdict,
    /// Instructions that it took.
    pub instructions: u64,
}

/// How many passed, failed, were skipped.
pub fn counts(outcomes: &[Outcome]) -> [usize; 3] {
    let count = |f: fn(&Verdict) -> bool| outcomes.iter().filter(|o| f(&o.verdict)).count();
    [count(|v| *v == Verdict::Pass), count(|v| matches!(v, Verdict::Fail(_))), count(|v| matches!(v, Verdict::Skip(_)))]
}

/// One line a test, then the counts.
pub fn table(outcomes: &[Outcome]) -> String {
    let mut text = String::new();
    for o in outcomes {
        let (word, why) = match &o.verdict {
            Verdict::Pass => ("PASS", ""),
            Verdict::Fail(why) => ("FAIL", why.as_str()),
            Verdict::Skip(why) => ("SKIP", why.as_str()),
        };
        let _ = writeln!(text, "{word} {} {why}", o.name);
    }
    let [pass, fail, skip] = counts(outcomes);
    let _ = writeln!(text, "{pass} passed, {fail} failed, {skip} skipped");
    text
}

/// The same as JUnit's XML.
pub fn junit(suite: &str, outcomes: &[Outcome]) -> String {
    let escape = |s: &str| s.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;");
    let [_, fail, skip] = counts(outcomes);
    let mut text = format!(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<testsuite name=\"{}\" tests=\"{}\" failures=\"{fail}\" skipped=\"{skip}\">\n",
        escape(suite),
        outcomes.len()
    );
    for o in outcomes {
        let name = escape(&o.name);
        let _ = match &o.verdict {
            Verdict::Pass => writeln!(text, "  <testcase name=\"{name}\"/>"),
            Verdict::Fail(why) => {
                writeln!(text, "  <testcase name=\"{name}\"><failure message=\"{}\"/></testcase>", escape(why))
            }
            Verdict::Skip(why) => {
                writeln!(text, "  <testcase name=\"{name}\"><skipped message=\"{}\"/></testcase>", escape(why))
            }
        };
    }
    text.push_str("</testsuite>\n");
    text
}

/// The files of a directory that `accepts` takes, by name.
pub fn files(dir: &Path, accepts: impl Fn(&Path) -> bool) -> std::io::Result<Vec<PathBuf>> {
    let mut files: Vec<PathBuf> = std::fs::read_dir(dir)?.map(|e| e.map(|e| e.path())).collect::<Result<_, _>>()?;
    files.retain(|p| p.is_file() && accepts(p));
    files.sort();
    Ok(files)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_skipped_is_not_passed() {
        let o = |name: &str, verdict| Outcome { name: name.into(), verdict, instructions: 0 };
        let all = [o("a", Verdict::Pass), o("b<", Verdict::Fail("x & y".into())), o("c", Verdict::Skip("no F".into()))];
        assert_eq!(counts(&all), [1, 1, 1]);
        assert!(table(&all).ends_with("1 passed, 1 failed, 1 skipped\n"));
        let xml = junit("s", &all);
        assert!(xml.contains("failures=\"1\" skipped=\"1\"") && xml.contains("b&lt;") && xml.contains("x &amp; y"));
    }
}
