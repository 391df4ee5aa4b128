//! Recordings, from power-on and from a snapshot.

mod common;

use std::fs::{self, File};
use std::process::Stdio;

use common::{Dir, Guest, command, guest, stderr, undervisor};
use undervisor_conformance::asm::*;

/// Counts, hears characters, and powers off at a `q`.
fn listener(start: u64) -> Vec<u8> {
    guest(|a| {
        a.li(S0, start);
        a.label("again");
        a.addi(S0, S0, 1);
        a.hear("hear");
        a.add(S0, S0, A0);
        a.li(T0, u64::from(b'q'));
        a.bne(A0, T0, "again");
        a.power_off();
        a.label("forever");
        a.j("forever");
    })
}

#[test]
fn a_recording_from_a_snapshot_is_replayed_from_it() {
    let dir = Dir::new("replay");
    let kernel = dir.file("kernel", &listener(0));
    let bare = ["run", "--firmware", "none", "--kernel", &kernel];
    let snapshot = dir.path("snapshot");
    let take = ["--snapshot-at", "3000000", "--snapshot", &snapshot, "--max-instructions", "3000500"];
    // By then the guest has come to the end of its input, which was empty.
    let out = undervisor(&[&bare[..], &take].concat());
    assert_eq!(out.status.code(), Some(4), "{}", stderr(&out));

    let input = dir.file("input", b"abq");
    let (json, recording) = (dir.path("json"), dir.path("recording"));
    let run = |arguments: &[&str], stdin: Stdio| {
        let all = [arguments, &["--json", &json, "--max-instructions", "10000000"]].concat();
        let out = command(&all).stdin(stdin).output().unwrap();
        assert_eq!(out.status.code(), Some(0), "{}", stderr(&out));
        dir.json("json")
    };
    let restored = ["run", "--restore", &snapshot];
    let first = run(&[&restored[..], &["--record", &recording]].concat(), File::open(&input).unwrap().into());
    assert_eq!(run(&restored, File::open(&input).unwrap().into()), first, "a recording changes nothing");
    assert_eq!(run(&[&restored[..], &["--replay", &recording]].concat(), Stdio::null()), first);

    let refuse = |arguments: &[&str], words: &str| {
        let out = undervisor(&[arguments, &["--replay", &recording]].concat());
        assert_eq!((out.status.code(), stderr(&out).lines().count()), (Some(2), 1), "{}", stderr(&out));
        assert!(stderr(&out).contains(words), "{}", stderr(&out));
    };
    refuse(&bare, "it begins at count 3000000");
    refuse(&[&bare[..], &["--smp", "2"]].concat(), "another machine");
    run(&[&bare[..], &["--record", &recording]].concat(), File::open(&input).unwrap().into());
    refuse(&restored, "it begins at count 0");
    fs::write(&kernel, listener(1)).unwrap();
    refuse(&bare, "another kernel");
    let mut bytes = fs::read(&recording).unwrap();
    bytes.truncate(bytes.len() - 1);
    fs::write(&recording, bytes).unwrap();
    refuse(&bare, "truncated");
}

/// A run from a snapshot is the run that went on, if the input that was not read yet is the same.
#[test]
fn a_snapshot_goes_on_as_the_run_did() {
    let dir = Dir::new("goes-on");
    let kernel = dir.file(
        "kernel",
        &guest(|a| {
            a.li(S0, 2_000_000);
            a.label("while");
            a.addi(S0, S0, -1);
            a.bne(S0, ZERO, "while");
            a.hear("first");
            a.hear("second");
            a.power_off();
            a.label("forever");
            a.j("forever");
        }),
    );
    let (json, snapshot, input) = (dir.path("json"), dir.path("snapshot"), dir.file("input", b"ab"));
    let run = |arguments: &[&str]| {
        let all = [arguments, &["--json", &json]].concat();
        let out = command(&all).stdin(File::open(&input).unwrap()).output().unwrap();
        assert_eq!(out.status.code(), Some(0), "{}", stderr(&out));
        let summary = dir.json("json");
        (summary["state_hash"].clone(), summary["instructions"].clone())
    };
    let take = ["--seed", "5", "--smp", "2", "--snapshot-at", "1000000", "--snapshot", &snapshot];
    let whole = run(&[&["run", "--firmware", "none", "--kernel", &kernel], &take[..]].concat());
    assert_eq!(run(&["run", "--restore", &snapshot]), whole);
}
