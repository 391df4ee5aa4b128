//! A terminal as standard input: keys, the escape key, and what is left of it.

mod common;

use std::fs::File;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::fd::OwnedFd;
use std::process::{Child, Stdio};

use common::{Dir, Guest, command, guest, stderr, undervisor, wait};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use undervisor_conformance::asm::*;

/// Both sides of a terminal: the user's, and the one that programs see.
fn terminal() -> (File, File) {
    let user = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC).unwrap();
    grantpt(&user).unwrap();
    unlockpt(&user).unwrap();
    let name = ptsname(&user, Vec::new()).unwrap();
    let program = rustix::fs::open(name.as_c_str(), rustix::fs::OFlags::RDWR | rustix::fs::OFlags::NOCTTY, 0.into());
    (OwnedFd::into(user), program.unwrap().into())
}

/// Starts a run at a terminal, and waits until the guest says "hello", when the terminal is the guest's.
fn start(arguments: &[&str], program: &File) -> (Child, BufReader<std::process::ChildStdout>) {
    let mut child = command(arguments)
        .stdin(program.try_clone().unwrap())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdout = BufReader::new(child.stdout.take().unwrap());
    let mut line = String::new();
    stdout.read_line(&mut line).unwrap();
    assert_eq!(line, "hello\n");
    (child, stdout)
}

/// Sleeps a tenth of a millisecond of virtual time at a time, until there are characters, which it repeats up to a `q`. The
/// other harts sleep for ever.
fn sleeper() -> Vec<u8> {
    guest(|a| {
        a.csrr(T0, 0xf14); // mhartid
        a.bne(T0, ZERO, "forever");
        a.say("hello\n");
        a.label("sleep");
        a.li(T0, 0x200_bff8); // mtime
        a.ld(T1, T0, 0);
        a.li(T2, 1000);
        a.add(T1, T1, T2);
        a.li(T0, 0x200_4000); // mtimecmp
        a.sd(T1, T0, 0);
        a.li(T1, 0x80);
        a.csrw(0x304, T1); // mie
        a.wfi();
        a.li(T0, 0x1000_0000);
        for poll in ["first", "second", "third", "fourth"] {
            a.label(poll);
            a.lbu(T1, T0, 5);
        }
        a.andi(T1, T1, 1);
        a.beq(T1, ZERO, "sleep");
        a.lbu(A0, T0, 0);
        a.sb(A0, T0, 0);
        a.li(T1, u64::from(b'q'));
        a.bne(A0, T1, "sleep");
        a.power_off();
        a.label("forever");
        a.csrw(0x304, ZERO);
        a.wfi();
        a.j("forever");
    })
}

#[test]
fn what_is_typed_is_recorded_and_replayed() {
    let dir = Dir::new("typed");
    let kernel = dir.file("kernel", &sleeper());
    let (json, recording) = (dir.path("json"), dir.path("recording"));
    for machine in [&["--seed", "0"][..], &["--seed", "3", "--smp", "3"]] {
        let run = [&["run", "--firmware", "none", "--kernel", &kernel, "--json", &json], machine].concat();
        let (mut user, program) = terminal();
        let (mut child, mut stdout) = start(&[&run[..], &["--record", &recording]].concat(), &program);
        let mut text = [0];
        for key in *b"abc" {
            user.write_all(&[key]).unwrap();
            stdout.read_exact(&mut text).unwrap();
            assert_eq!(text, [key]);
        }
        user.write_all(b"\x01\x01q").unwrap();
        assert_eq!(wait(&mut child), Some(0));
        let mut rest = Vec::new();
        stdout.read_to_end(&mut rest).unwrap();
        assert_eq!(rest, b"\x01q");
        let first = dir.json("json");
        let out = undervisor(&[&run[..], &["--replay", &recording]].concat());
        assert_eq!((out.status.code(), out.stdout.as_slice()), (Some(0), &b"hello\nabc\x01q"[..]), "{}", stderr(&out));
        assert_eq!(dir.json("json"), first, "{machine:?}");
    }
}

#[test]
fn the_escape_key_ends_the_run_and_the_terminal_is_as_it_was() {
    let dir = Dir::new("escape");
    let idle = dir.file(
        "idle",
        &guest(|a| {
            a.say("hello\n");
            a.label("forever");
            a.wfi();
            a.j("forever");
        }),
    );
    let (json, trace) = (dir.path("json"), dir.path("trace"));
    for kernel in [&idle, &dir.file("sleeper", &sleeper())] {
        let (mut user, program) = terminal();
        let before = rustix::termios::tcgetattr(&program).unwrap();
        let run = ["run", "--firmware", "none", "--kernel", kernel, "--json", &json, "--trace", &trace, "--stats"];
        let (mut child, _stdout) = start(&run, &program);
        let during = rustix::termios::tcgetattr(&program).unwrap();
        assert_ne!(format!("{:?}", during.local_modes), format!("{:?}", before.local_modes));
        user.write_all(b"\x01x").unwrap();
        assert_eq!(wait(&mut child), Some(0));
        let mut said = String::new();
        child.stderr.unwrap().read_to_string(&mut said).unwrap();
        assert!(said.contains("quit by the user") && said.contains("level"), "{said}");
        assert_eq!(dir.json("json")["cause"], "quit");
        let after = rustix::termios::tcgetattr(&program).unwrap();
        assert_eq!(format!("{:?}", after.local_modes), format!("{:?}", before.local_modes));
    }
}

#[test]
fn a_terminal_that_goes_away_ends_a_guest_that_waits_for_it() {
    let dir = Dir::new("gone");
    let kernel = dir.file(
        "kernel",
        &guest(|a| {
            a.say("hello\n");
            a.label("forever");
            a.wfi();
            a.j("forever");
        }),
    );
    let (user, program) = terminal();
    let (mut child, _stdout) = start(&["run", "--firmware", "none", "--kernel", &kernel], &program);
    drop(user);
    assert_eq!(wait(&mut child), Some(3));
}

#[test]
fn a_usage_error_leaves_the_terminal_alone_and_a_replay_says_that_keys_are_not_let_in() {
    let dir = Dir::new("replays");
    let kernel = dir.file("kernel", &guest(|a| a.power_off()));
    let recording = dir.path("recording");
    let run = ["run", "--firmware", "none", "--kernel", &kernel];
    assert_eq!(undervisor(&[&run[..], &["--record", &recording]].concat()).status.code(), Some(0));
    let (_user, program) = terminal();
    let before = format!("{:?}", rustix::termios::tcgetattr(&program).unwrap().local_modes);
    for (more, code) in
        [(["--replay", recording.as_str()], 0), (["--json", "/no/dir/x"], 2), (["--trace", "/dev/full"], 2)]
    {
        let all = [&run[..], &more].concat();
        let out = command(&all).stdin(program.try_clone().unwrap()).output().unwrap();
        assert_eq!((out.status.code(), stderr(&out).lines().count()), (Some(code), 1), "{more:?}: {}", stderr(&out));
        assert_eq!(stderr(&out).contains("keys are not let in"), code == 0, "{}", stderr(&out));
        assert_eq!(format!("{:?}", rustix::termios::tcgetattr(&program).unwrap().local_modes), before);
    }
}
