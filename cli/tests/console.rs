//! What is looked for in the console, and where its output goes.

mod common;

use std::fs::File;
use std::io::{Read, Write};
use std::process::Stdio;

use common::{Dir, Guest, command, guest, stderr, undervisor, wait};
use undervisor_conformance::asm::*;

const BARE: [&str; 4] = ["run", "--firmware", "none", "--kernel"];

fn forever(a: &mut Asm) {
    a.label("forever");
    a.j("forever");
}

/// Writes `n` characters to the UART.
fn fill(a: &mut Asm, character: u8, n: u64) {
    a.li(T0, 0x1000_0000);
    a.li(T1, character.into());
    a.li(T2, n);
    a.label("fill");
    a.sb(T1, T0, 0);
    a.addi(T2, T2, -1);
    a.bne(T2, ZERO, "fill");
}

#[test]
fn an_unfinished_last_line_counts() {
    let dir = Dir::new("last-line");
    let fails = dir.file(
        "fails",
        &guest(|a| {
            a.say("\nall is well");
            a.fail();
            forever(a);
        }),
    );
    let code = |more: &[&str]| undervisor(&[&BARE[..], &[&fails], more].concat()).status.code();
    assert_eq!(code(&[]), Some(1));
    assert_eq!(code(&["--expect", "^all is well$"]), Some(0));
    assert_eq!(code(&["--expect", "^is well"]), Some(1));
    assert_eq!(code(&["--fail-on", "well$"]), Some(5));
    let stays = dir.file(
        "stays",
        &guest(|a| {
            a.say("login:");
            forever(a);
        }),
    );
    let code = |pattern| {
        let more = ["--max-instructions", "1000000", "--expect", pattern];
        undervisor(&[&BARE[..], &[&stays], &more].concat()).status.code()
    };
    assert_eq!(code("login:"), Some(0), "a prompt has no end of line");
    assert_eq!(code("login:$"), Some(0), "the run's end is its end");
    assert_eq!(code("login: "), Some(4));
}

#[test]
fn a_line_may_be_long() {
    let dir = Dir::new("long-line");
    let long = dir.file(
        "long",
        &guest(|a| {
            // Blanks: a look at the line after each of them would take its time.
            fill(a, b' ', 2_000_000);
            a.say("needle\n");
            a.power_off();
            forever(a);
        }),
    );
    let code = |more: &[&str]| undervisor(&[&BARE[..], &[&long, "--console", "null"], more].concat()).status.code();
    assert_eq!(code(&["--fail-on", " needle$"]), Some(5));
    assert_eq!(code(&["--fail-on", "^needle"]), Some(0));
}

#[test]
fn what_comes_first_counts_and_where_the_run_ends_is_a_matter_of_the_guest() {
    let dir = Dir::new("verdicts");
    let kernel = dir.file(
        "kernel",
        &guest(|a| {
            a.say("good\nbad\n");
            forever(a);
        }),
    );
    let run = |more: &[&str]| {
        let json = dir.path("summary");
        let out = undervisor(&[&BARE[..], &[&kernel, "--json", &json], more].concat());
        let summary = dir.json("summary");
        (out.status.code().unwrap(), summary["instructions"].clone(), summary["state_hash"].clone())
    };
    let expected = run(&["--expect", "good", "--fail-on", "bad"]);
    assert_eq!((expected.0, run(&["--expect", "bad", "--fail-on", "good"]).0), (0, 5));
    assert_eq!(run(&["--expect", "good", "--fail-on", "good"]).0, 5);
    let snapshot = dir.path("snapshot");
    assert_eq!(run(&["--expect", "good", "--snapshot-at", "1001", "--snapshot", &snapshot]), expected);
    assert_eq!(run(&["--expect", "good", "--max-instructions", "777777"]), expected);
    // A snapshot where the expectation is met, and on from there: what was seen is not seen again.
    assert_eq!(run(&["--expect", "good", "--snapshot", &snapshot]), expected);
    let at = expected.1.as_u64().unwrap();
    let json = dir.path("restored");
    let more = ["--json", &json, "--expect", "good", "--max-instructions", &(at + 500_000).to_string()];
    assert_eq!(undervisor(&[&["run", "--restore", &snapshot][..], &more].concat()).status.code(), Some(4));
    assert_eq!(dir.json("restored")["instructions"], at + 500_000);
}

#[test]
fn nobody_waits_for_input_once_the_verdict_is_there() {
    let dir = Dir::new("prompt");
    let kernel = dir.file(
        "kernel",
        &guest(|a| {
            // By then the UART takes a character as soon as it is asked.
            a.li(T0, 1_000_000);
            a.label("while");
            a.addi(T0, T0, -1);
            a.bne(T0, ZERO, "while");
            a.say("login: ");
            a.hear("hear");
            forever(a);
        }),
    );
    let mut child = command(&[&BARE[..], &[&kernel, "--expect", "login: $|login: "]].concat())
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    assert_eq!(wait(&mut child), Some(0));
}

#[test]
fn a_question_is_seen_before_its_answer_is_waited_for() {
    let dir = Dir::new("question");
    let kernel = dir.file(
        "kernel",
        &guest(|a| {
            a.say("name? ");
            a.hear("hear");
            a.li(T0, 0x1000_0000);
            a.sb(A0, T0, 0);
            a.power_off();
            forever(a);
        }),
    );
    let mut child =
        command(&[&BARE[..], &[&kernel]].concat()).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let mut text = [0; 6];
    child.stdout.as_mut().unwrap().read_exact(&mut text).unwrap();
    assert_eq!(&text, b"name? ");
    child.stdin.as_mut().unwrap().write_all(b"x").unwrap();
    assert_eq!(wait(&mut child), Some(0));
    let mut rest = String::new();
    child.stdout.unwrap().read_to_string(&mut rest).unwrap();
    assert_eq!(rest, "x");
}

#[test]
fn output_that_is_lost_is_told_and_changes_nothing() {
    let dir = Dir::new("lost");
    let kernel = dir.file(
        "kernel",
        &guest(|a| {
            fill(a, b'x', 100_000);
            a.power_off();
            forever(a);
        }),
    );
    let run = |console: &str, stdout: Stdio| {
        let json = dir.path("summary");
        let all = [&BARE[..], &[&kernel, "--json", &json, "--console", console]].concat();
        let mut child = command(&all).stdout(stdout).stderr(Stdio::piped()).spawn().unwrap();
        drop(child.stdout.take());
        let out = child.wait_with_output().unwrap();
        assert_eq!(out.status.code(), Some(0), "{}", stderr(&out));
        (stderr(&out), dir.json("summary"))
    };
    let (said, good) = run("null", Stdio::null());
    assert_eq!(said, "");
    for (said, summary) in [run("file:/dev/full", Stdio::null()), run("stdio", Stdio::piped())] {
        assert_eq!(said.lines().count(), 1, "{said}");
        assert!(said.contains("warning") && said.contains("console"), "{said}");
        assert_eq!(summary, good);
    }
}

#[test]
fn a_reader_of_lists_may_go_away() {
    for list in ["features", "cpus", "demo"] {
        let mut child = command(&[list]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        drop(child.stdout.take());
        let out = child.wait_with_output().unwrap();
        assert_eq!((out.status.code(), stderr(&out).as_str()), (Some(0), ""), "{list}");
    }
    let full = File::options().write(true).open("/dev/full").unwrap();
    let out = command(&["cpus"]).stdout(full).output().unwrap();
    assert_eq!((out.status.code(), stderr(&out).lines().count()), (Some(2), 1), "{}", stderr(&out));
    let full = File::options().write(true).open("/dev/full").unwrap();
    let out = command(&["run"]).stderr(full).output().unwrap();
    assert_eq!(out.status.code(), Some(2), "no panic, even if nobody can be told");
}
