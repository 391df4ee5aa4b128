//! Files that a run writes: nothing is lost silently, and nothing is touched by a run that cannot be.

mod common;

use std::fs;
use std::os::unix::fs::FileTypeExt;

use common::{Dir, Guest, guest, stderr, undervisor};
use undervisor_conformance::asm::*;

fn forever(a: &mut Asm) {
    a.label("forever");
    a.j("forever");
}

fn kernel(dir: &Dir) -> String {
    dir.file(
        "kernel",
        &guest(|a| {
            a.say("hello\n");
            a.power_off();
            forever(a);
        }),
    )
}

#[track_caller]
fn is_refused(arguments: &[&str], words: &[&str]) {
    let out = undervisor(arguments);
    let text = stderr(&out);
    assert_eq!((out.status.code(), text.lines().count()), (Some(2), 1), "{arguments:?}: {text}");
    assert!(words.iter().all(|w| text.contains(w)), "{arguments:?}: {text}");
}

#[test]
fn a_usage_error_makes_no_file_and_destroys_none() {
    let dir = Dir::new("usage");
    let kernel = kernel(&dir);
    let (old, console) = (dir.file("old", b"precious"), format!("file:{}", dir.path("console")));
    let (trace, json, record) = (dir.path("trace"), dir.path("json"), dir.path("record"));
    let snapshot = dir.path("snapshot");
    let wrong: &[&[&str]] = &[
        &["--expect", "("],
        &["--gdb", "nowhere"],
        &["--gdb", "192.0.2.1:1"],
        &["--replay", &kernel],
        &["--drive", &old],
        &["--smp", "0"],
        &["--smp", "4000000000"],
        &["--memory", "4096"],
        &["--memory", "16000000G"],
        &["--frequency", "0"],
        &["--quantum", "0"],
        &["--quantum", "18446744073709551615", "--seed", "1"],
        &["--device", "virtio-rocket"],
        &["--initrd", "/dev/null"],
        &["--initrd", "/no/such/file"],
        &["--json", "/no/such/dir/json"],
        &["--console", "file:/no/such/dir/console"],
        &["--console", "null"],
    ];
    for wrong in wrong {
        for trace in [&trace, &old] {
            let mut all = vec!["run", "--firmware", "none", "--kernel", &kernel, "--console", &console];
            all.extend(["--trace", trace]);
            if !wrong.contains(&"--json") {
                all.extend(["--json", &json]);
            }
            if !wrong.contains(&"--replay") {
                all.extend(["--record", &record]);
            }
            all.extend(["--snapshot-at", "5", "--snapshot", &snapshot]);
            all.extend(wrong.iter());
            let out = undervisor(&all);
            assert_eq!(out.status.code(), Some(2), "{wrong:?}: {}", stderr(&out));
            assert!(!stderr(&out).contains("panicked"), "{wrong:?}: {}", stderr(&out));
            assert_eq!(dir.names(), ["kernel", "old"], "{wrong:?}");
            assert_eq!(fs::read(&old).unwrap(), b"precious", "{wrong:?}");
        }
    }
}

#[test]
fn a_full_disk_is_told() {
    let dir = Dir::new("full");
    let kernel = kernel(&dir);
    let run = ["run", "--kernel", &kernel, "--firmware", "none"];
    let (json, record) = (dir.path("json"), dir.path("record"));
    let more = ["--trace", "/dev/full", "--json", &json, "--record", &record];
    is_refused(&[&run[..], &more].concat(), &["/dev/full", "trace", "No space left"]);
    assert_eq!((&dir.json("json")["cause"], &dir.json("json")["exit_code"]), (&"power-off".into(), &2.into()));
    assert!(fs::metadata(record).is_ok());
    for option in ["--json", "--record", "--report"] {
        is_refused(&[&run[..], &[option, "/dev/full"]].concat(), &["/dev/full", "No space left"]);
        assert!(fs::metadata("/dev/full").unwrap().file_type().is_char_device(), "a device is not replaced");
    }
    is_refused(&[&run[..], &["--snapshot", "/dev/full", "--snapshot-at", "5"]].concat(), &["/dev/full"]);
    let out = undervisor(&[&run[..], &["--json", "/dev/stdout", "--trace", "/dev/null"]].concat());
    assert_eq!(out.status.code(), Some(0), "{}", stderr(&out));
    assert!(String::from_utf8_lossy(&out.stdout).contains("power-off"));
}

#[test]
fn a_suite_is_not_run_for_a_report_that_cannot_be() {
    let dir = Dir::new("junit");
    is_refused(&["conformance", "riscv-tests", &dir.path(""), "--junit", "/no/such/dir/x"], &["/no/such/dir"]);
}

#[test]
fn no_file_is_written_twice_or_read_and_written() {
    let dir = Dir::new("twice");
    let kernel = kernel(&dir);
    let run = ["run", "--firmware", "none", "--kernel", &kernel];
    let with = |more: &[&str]| [&run[..], more].concat().into_iter().map(String::from).collect::<Vec<_>>();
    let refused = |more: &[&str], words: &[&str]| {
        let all = with(more);
        is_refused(&all.iter().map(String::as_str).collect::<Vec<_>>(), words);
    };
    let (x, disk) = (dir.path("x"), dir.file("disk", &[0; 512]));
    let around = dir.path("./x");
    refused(&["--json", &x, "--trace", &around], &["--json", "--trace", "same file"]);
    refused(&["--console", &format!("file:{x}"), "--record", &x], &["--console", "--record"]);
    refused(&["--trace", &kernel], &["--trace", "--kernel"]);
    refused(&["--report", &kernel], &["--report", "--kernel"]);
    refused(&["--drive", &disk, "--json", &disk], &["--json", "--drive"]);
    refused(&["--initrd", &disk, "--console", &format!("file:{disk}")], &["--console", "--initrd"]);
    std::os::unix::fs::symlink(&disk, dir.path("link")).unwrap();
    refused(&["--drive", &disk, "--trace", &dir.path("link")], &["--trace", "--drive"]);
    assert_eq!(dir.names(), ["disk", "kernel", "link"]);
    let out = undervisor(&[&run[..], &["--json", &dir.path("link")]].concat());
    assert_eq!(out.status.code(), Some(0), "{}", stderr(&out));
    assert!(fs::symlink_metadata(dir.path("link")).unwrap().is_symlink(), "a link stays a link");
    assert_eq!(dir.json("disk")["exit_code"], 0);
}

#[test]
fn a_snapshot_that_was_not_taken_is_told() {
    let dir = Dir::new("snapshots");
    let kernel = dir.file("kernel", &guest(forever));
    let snapshot = dir.path("snapshot");
    let run = ["run", "--firmware", "none", "--kernel", &kernel, "--max-instructions", "1000", "--snapshot", &snapshot];
    let out = undervisor(&[&run[..], &["--snapshot-at", "2000"]].concat());
    assert_eq!(out.status.code(), Some(4));
    assert!(stderr(&out).contains("no snapshot was taken: the run ended after 1000 of 2000"), "{}", stderr(&out));
    assert_eq!(dir.names(), ["kernel"]);
    let out = undervisor(&[&run[..], &["--snapshot-at", "500"]].concat());
    assert_eq!((out.status.code(), stderr(&out).lines().count()), (Some(4), 1), "{}", stderr(&out));

    let restore = ["run", "--restore", &snapshot, "--max-instructions", "1000"];
    let other = dir.path("other");
    let past = [&restore[..], &["--snapshot-at", "499", "--snapshot", &other]].concat();
    is_refused(&past, &["--snapshot-at 499", "500 instructions already"]);
    // A snapshot may take the place of the one that was restored.
    let again = [&restore[..], &["--snapshot-at", "700", "--snapshot", &snapshot]].concat();
    assert_eq!(undervisor(&again).status.code(), Some(4));
    is_refused(&past, &["700 instructions already"]);
    let now = [&restore[..], &["--snapshot-at", "700", "--snapshot", &other]].concat();
    assert_eq!(undervisor(&now).status.code(), Some(4));
    assert!(fs::metadata(&other).is_ok());
    is_refused(&[&restore[..], &["--trace", &snapshot]].concat(), &["--trace", "--restore"]);
}

#[test]
fn the_machine_is_the_snapshots() {
    let dir = Dir::new("contradictions");
    let kernel = dir.file("kernel", &guest(forever));
    let snapshot = dir.path("snapshot");
    let run = ["run", "--firmware", "none", "--kernel", &kernel, "--max-instructions", "9", "--snapshot", &snapshot];
    assert_eq!(undervisor(&[&run[..], &["--snapshot-at", "5"]].concat()).status.code(), Some(4));
    for (option, value) in [
        ("--kernel", kernel.as_str()),
        ("--firmware", "builtin"),
        ("--initrd", &kernel),
        ("--append", ""),
        ("--machine", "virt"),
        ("--cpu", "rv64"),
        ("--smp", "1"),
        ("--memory", "512M"),
        ("--drive", &kernel),
        ("--device", "virtio-net"),
        ("--frequency", "1000000000"),
        ("--quantum", "20000"),
        ("--seed", "0"),
    ] {
        is_refused(&["run", "--restore", &snapshot, option, value], &[option, "--restore", "snapshot's"]);
    }
    is_refused(&["run", "--restore", &snapshot, "--on-reset", "reboot"], &["--on-reset reboot", "--restore"]);
    for ignored in [["--trace-format", "jsonl"], ["--trace-events", "uops"]] {
        let out = undervisor(&["run", "--restore", &snapshot, ignored[0], ignored[1]]);
        assert!(out.status.code() == Some(2) && stderr(&out).contains("--trace <FILE>"), "{}", stderr(&out));
    }
    let out = undervisor(&["run", "--restore", &snapshot, "--max-instructions", "0"]);
    assert_eq!(out.status.code(), Some(4));
}
