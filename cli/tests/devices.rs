//! Devices that are named on the command line.

mod common;

use std::fs;
use std::io::{Read, Write};
use std::process::{Child, Stdio};

use common::{Dir, Guest, SECTOR, STATUS, command, guest, stderr, undervisor, wait};
use undervisor_conformance::asm::*;

const BARE: [&str; 3] = ["run", "--firmware", "none"];

#[test]
fn further_devices_have_their_other_ends() {
    let dir = Dir::new("devices");
    let sends = |slot| {
        guest(|a| {
            a.say("uart\n");
            a.store_double(SECTOR, u64::from_le_bytes(*b"virtual\n"));
            a.start_virtio(slot, 1);
            a.send(slot, 8);
            a.end_by_used();
            a.label("forever");
            a.j("forever");
        })
    };
    // The entropy source has slot 0.
    let (first, second) = (dir.file("first", &sends(1)), dir.file("second", &sends(2)));
    let run = |kernel: &str, more: &[&str]| undervisor(&[&BARE[..], &["--kernel", kernel], more].concat());
    let console = format!("file:{}", dir.path("console"));

    let out = run(&first, &["--device", "virtio-console"]);
    assert_eq!((out.status.code(), out.stdout.as_slice()), (Some(0), &b"uart\n"[..]), "{}", stderr(&out));
    let out = run(&first, &["--device", "virtio-console", "--console", "null", "--console", "stdio"]);
    assert_eq!((out.status.code(), out.stdout.as_slice()), (Some(0), &b"virtual\n"[..]), "{}", stderr(&out));
    let both = ["--device", "virtio-net", "--device", "virtio-console", "--console", "stdio", "--console", &console];
    let out = run(&second, &both);
    assert_eq!((out.status.code(), out.stdout.as_slice()), (Some(0), &b"uart\n"[..]), "{}", stderr(&out));
    assert_eq!(fs::read(dir.path("console")).unwrap(), b"virtual\n");
    let out = run(&first, &["--device", "virtio-net"]);
    assert_eq!(out.status.code(), Some(0), "what is sent to nobody is sent: {}", stderr(&out));
    let out = run(&first, &["--device", "virtio-console", "--fail-on", "virtual"]);
    assert_eq!(out.status.code(), Some(5), "all consoles are looked at");

    let refused = |more: &[&str], words: &str| {
        let out = run(&first, more);
        assert_eq!((out.status.code(), stderr(&out).lines().count()), (Some(2), 1), "{}", stderr(&out));
        assert!(stderr(&out).contains(words), "{}", stderr(&out));
    };
    refused(&["--console", "null", "--console", "null"], "2 times --console");
    refused(&["--device", "virtio-console", "--console", "stdio", "--console", "stdio"], "one console only");
    refused(&["--device", "virtio-net"].repeat(8), "9 virtio devices");
}

#[test]
fn a_drives_mode_is_a_word_that_is_one() {
    let dir = Dir::new("modes");
    let kernel = dir.file("kernel", &guest(|a| a.power_off()));
    let disk = dir.file("disk", &[0; 512]);
    let run = |drive: String| undervisor(&[&BARE[..], &["--kernel", &kernel, "--drive", &drive]].concat());
    for mode in ["", ",rw", ",ro", ",overlay"] {
        assert_eq!(run(format!("{disk}{mode}")).status.code(), Some(0), "{mode}");
    }
    let comma = dir.file("a,b", &[0; 512]);
    assert_eq!(run(comma).status.code(), Some(0), "a name may have a comma in it");
    for (drive, words) in [
        (format!("{disk},wr"), "`wr` is no mode; expected rw, ro or overlay"),
        (format!("{disk},"), "`` is no mode"),
        (dir.path("absent,rw"), "absent: No such file"),
        (dir.path(""), "directory"),
        (dir.file("odd", &[0; 100]), "sectors"),
    ] {
        let out = run(drive);
        let text = stderr(&out);
        assert!(out.status.code() == Some(2) && text.lines().count() == 1 && text.contains(words), "{text}");
    }
}

/// The drive is cut short while the machine runs: the guest gets an I/O error.
#[test]
fn a_drive_may_vanish() {
    let dir = Dir::new("vanish");
    let kernel = dir.file(
        "kernel",
        &guest(|a| {
            a.start_virtio(0, 0);
            for (number, label) in [(1, "first"), (2, "second"), (3, "third")] {
                a.transfer(number == 3, number);
                a.li(T0, STATUS);
                a.lbu(T1, T0, 0);
                a.addi(T1, T1, 0x30);
                a.li(T0, 0x1000_0000);
                a.sb(T1, T0, 0);
                a.hear(label);
            }
            a.power_off();
            a.label("forever");
            a.j("forever");
        }),
    );
    let next = |child: &mut Child| {
        let mut status = [0];
        child.stdout.as_mut().unwrap().read_exact(&mut status).unwrap();
        status[0]
    };
    for mode in ["rw", "ro", "overlay"] {
        let disk = dir.file("disk", &[0; 512]);
        let drive = format!("{disk},{mode}");
        let mut child = command(&[&BARE[..], &["--kernel", &kernel, "--drive", &drive]].concat())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        assert_eq!(next(&mut child), b'0', "{mode}");
        fs::OpenOptions::new().write(true).open(&disk).unwrap().set_len(0).unwrap();
        child.stdin.as_mut().unwrap().write_all(b"x").unwrap();
        assert_eq!(next(&mut child), b'1', "{mode}: a read of what is not there fails");
        child.stdin.as_mut().unwrap().write_all(b"xx").unwrap();
        assert_eq!(wait(&mut child), Some(0), "{mode}");
        assert_eq!(fs::metadata(&disk).unwrap().len(), 0, "{mode}: it does not grow again");
    }
}
