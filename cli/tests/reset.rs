//! `--on-reset reboot`: what goes on, and what starts anew.

mod common;

use std::fs::{self, File};
use std::process::Stdio;

use common::{Dir, Guest, SECTOR, command, guest, stderr, undervisor};
use undervisor_conformance::asm::*;

const REBOOT: [&str; 8] = ["run", "--memory", "8M", "--firmware", "none", "--on-reset", "reboot", "--kernel"];

fn forever(a: &mut Asm) {
    a.label("forever");
    a.j("forever");
}

/// Says "b" and asks for a reset, for ever.
fn reset_loop() -> Vec<u8> {
    guest(|a| {
        a.say("b");
        a.reset();
        forever(a);
    })
}

/// Marks the first sector of its drive and asks for a reset; powers off if it is marked.
fn marks_its_drive() -> Vec<u8> {
    guest(|a| {
        a.start_virtio(0, 0);
        a.transfer(false, 1);
        a.li(T0, SECTOR);
        a.lbu(T1, T0, 0);
        a.li(T2, 7);
        a.beq(T1, T2, "marked");
        a.sb(T2, T0, 0);
        a.transfer(true, 2);
        a.reset();
        forever(a);
        a.label("marked");
        a.power_off();
        a.j("forever");
    })
}

#[test]
fn counts_go_on() {
    let dir = Dir::new("reset-counts");
    let kernel = dir.file("kernel", &reset_loop());
    let (json, trace, snapshot) = (dir.path("json"), dir.path("trace"), dir.path("snapshot"));
    let more = ["--max-instructions", "1003", "--json", &json, "--trace", &trace, "--snapshot-at", "500"];
    let out = undervisor(&[&REBOOT[..], &[&kernel, "--snapshot", &snapshot], &more].concat());
    assert_eq!(out.status.code(), Some(4), "{}", stderr(&out));
    assert!(out.stdout.len() > 50 && out.stdout.iter().all(|b| *b == b'b'));
    let summary = dir.json("json");
    let resets = summary["resets"].as_u64().unwrap();
    assert!(resets >= out.stdout.len() as u64 - 1, "{summary}");
    assert_eq!(summary["instructions"], 1003);
    assert_eq!(summary["levels"]["L1"]["instructions"], 1003, "{summary}");
    assert!(summary["virtual_time_ns"].as_u64().unwrap() >= 1003);
    let trace = fs::read_to_string(trace).unwrap();
    let counts: Vec<u64> = trace.lines().map(|l| l.split(' ').next().unwrap().parse().unwrap()).collect();
    assert!(counts.is_sorted() && *counts.last().unwrap() > 990);
    assert_eq!(trace.lines().filter(|l| l.ends_with(" reset")).count() as u64, resets);
    assert!(fs::metadata(snapshot).is_ok());
}

#[test]
fn a_drive_keeps_what_it_holds() {
    let dir = Dir::new("reset-drive");
    let kernel = dir.file("kernel", &marks_its_drive());
    let (disk, json) = (dir.file("disk", &[0; 4096]), dir.path("json"));
    let run = |drive: String| {
        let out = undervisor(&[&REBOOT[..], &[&kernel, "--drive", &drive, "--json", &json]].concat());
        assert_eq!(out.status.code(), Some(0), "{}", stderr(&out));
        dir.json("json")["resets"].as_u64().unwrap()
    };
    assert_eq!(run(format!("{disk},overlay")), 1);
    assert_eq!(fs::read(&disk).unwrap(), [0; 4096], "an overlay leaves the file alone");
    assert_eq!(run(format!("{disk},rw")), 1);
    assert_eq!(fs::read(&disk).unwrap()[0], 7);
    assert_eq!(run(disk), 0);
}

#[test]
fn a_recording_goes_on_over_resets() {
    let dir = Dir::new("reset-record");
    let kernel = dir.file(
        "kernel",
        &guest(|a| {
            a.hear("hear");
            a.li(T0, 0x1000_0000);
            a.sb(A0, T0, 0);
            a.li(T0, u64::from(b'q'));
            a.beq(A0, T0, "quit");
            a.reset();
            forever(a);
            a.label("quit");
            a.power_off();
            a.j("forever");
        }),
    );
    let input = dir.file("input", b"abcq");
    let (json, recording) = (dir.path("json"), dir.path("recording"));
    let run = |option, stdin: Stdio| {
        let all = [&REBOOT[..], &[&kernel, "--json", &json, option, &recording]].concat();
        let out = command(&all).stdin(stdin).output().unwrap();
        assert_eq!(out.status.code(), Some(0), "{}", stderr(&out));
        assert_eq!(out.stdout, b"abcq");
        dir.json("json")
    };
    let first = run("--record", File::open(input).unwrap().into());
    assert_eq!(first["resets"], 3);
    assert_eq!(run("--replay", Stdio::null()), first);
}

#[test]
fn a_line_ends_with_a_reset_and_the_verdict_comes_first() {
    let dir = Dir::new("reset-verdict");
    let kernel = dir.file(
        "kernel",
        &guest(|a| {
            a.say("b");
            a.li(T0, 10_000);
            a.label("while");
            a.addi(T0, T0, -1);
            a.bne(T0, ZERO, "while");
            a.reset();
            forever(a);
        }),
    );
    let code = |pattern| {
        let more = ["--max-instructions", "200001", "--expect", pattern];
        undervisor(&[&REBOOT[..], &[&kernel], &more].concat()).status.code()
    };
    assert_eq!((code("^b$"), code("bb")), (Some(0), Some(4)));
    let out = undervisor(&["run", "--firmware", "none", "--kernel", &kernel]);
    assert_eq!(out.status.code(), Some(3), "the default is to exit");
}
