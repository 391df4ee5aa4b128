//! What a guest's console says of the test that ran in it.

use crate::suite::Verdict;

/// The exit code of a test that skips itself (`kselftest.h`).
const SKIP: &str = "4";
/// The exit code of what is killed.
const KILLED: &str = "137";

/// What is said of a test that is killed when its time is over.
pub(super) const ENDLESS: &str = "it has not ended";

/// Words in a kernel's log that make a test fail, whatever it says itself.
const COMPLAINTS: [&str; 4] = ["WARNING:", "BUG:", "unchecked MSR", "general protection"];

/// How a test ended.
pub(super) fn of(console: &str) -> Verdict {
    let lines: Vec<&str> = console.lines().map(|line| line.trim_end_matches('\r')).collect();
    let is_complaint = |line: &&&str| line.starts_with('<') && COMPLAINTS.iter().any(|word| line.contains(word));
    let complaint = lines.iter().find(is_complaint).map(|line| (*line).to_owned());
    let code = lines.iter().find_map(|line| line.split_once("UNDERVISOR-DONE rc=")).map(|(_, code)| code);
    match (code, complaint) {
        (Some("0"), None) => Verdict::Pass,
        (Some(SKIP), None) => Verdict::Skip(last_words(&lines, "# SKIP")),
        (Some("0" | SKIP), Some(complaint)) => Verdict::Fail(complaint),
        (Some(KILLED), _) => Verdict::Fail(ENDLESS.into()),
        (Some(code), _) => Verdict::Fail(format!("{} (exit code {code})", failure(&lines))),
        (None, _) => Verdict::Fail("the kernel did not power off".into()),
    }
}

/// The assertion that failed and what was said of it, or the first part of the test that did.
fn failure(lines: &[&str]) -> String {
    let mut assertion = lines.iter().skip_while(|line| !line.contains("Test Assertion Failure")).skip(1);
    match (assertion.next(), lines.iter().find(|line| line.starts_with("not ok"))) {
        (Some(at), None) => format!("{}: {}", at.trim(), last_words(lines, "# ")),
        (_, Some(part)) => (*part).into(),
        (None, None) => last_words(lines, "# "),
    }
}

/// The last thing that the test itself has said; if some line has the mark, what is behind it in the last of those.
fn last_words(lines: &[&str], mark: &str) -> String {
    let end = lines.iter().position(|line| line.starts_with("UNDERVISOR-DMESG")).unwrap_or(lines.len());
    let said = &lines[..end];
    let marked = said.iter().rev().find_map(|line| line.split_once(mark)).map(|(_, words)| words);
    let words = marked.or(said.last().copied()).unwrap_or_default();
    words.trim().trim_start_matches("- ").into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn consoles_tell() {
        let end = |code| format!("UNDERVISOR-DMESG-BEGIN\r\nUNDERVISOR-DMESG-END\r\nUNDERVISOR-DONE rc={code}\r\n");
        let with = |said: &str, code| of(&format!("20 sid/a\r\n{said}{}", end(code)));
        assert_eq!(with("Random seed: 1\r\n", 0), Verdict::Pass);
        assert_eq!(with("1..0 # SKIP - not met: x\r\n", 4), Verdict::Skip("not met: x".into()));
        assert_eq!(with("HUGETLB is not enabled\r\n", 4), Verdict::Skip("HUGETLB is not enabled".into()));
        let assertion = "==== Test Assertion Failure ====\r\n  x86/a.c:7: a == b\r\n  pid=1\r\n  Wanted 1, got 2\r\n";
        assert_eq!(with(assertion, 254), Verdict::Fail("x86/a.c:7: a == b: Wanted 1, got 2 (exit code 254)".into()));
        assert_eq!(with("ok 1 x\r\nnot ok 2 y\r\n# FAILED\r\n", 1), Verdict::Fail("not ok 2 y (exit code 1)".into()));
        assert_eq!(with("", 137), Verdict::Fail(ENDLESS.into()));
        assert!(matches!(of("Kernel panic"), Verdict::Fail(_)));
        let warned = format!("<4>[    3.0] WARNING: arch/x86/kvm/x86.c\r\n{}", end(0));
        assert!(matches!(of(&warned), Verdict::Fail(_)));
    }
}
