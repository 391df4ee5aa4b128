//! The pc machine by the command line: runs, snapshots and traces as for the other machine.

mod common;

use common::{Dir, stderr, undervisor};

/// 64-bit code: counts to 100,000 in RCX, says "x" at the serial port, powers off by ACPI.
const CODE: &[u8] = &[
    0x31, 0xc9, // xor ecx, ecx
    0xff, 0xc1, // inc ecx
    0x81, 0xf9, 0xa0, 0x86, 0x01, 0x00, // cmp ecx, 100000
    0x75, 0xf6, // jne to inc
    0x66, 0xba, 0xf8, 0x03, 0xb0, 0x78, 0xee, // mov dx, 3f8h; mov al, "x"; out dx, al
    0x66, 0xba, 0x04, 0x06, 0x66, 0xb8, 0x00, 0x3c, 0x66, 0xef, // mov dx, 604h; mov ax, 3c00h; out dx, ax
];

const MACHINE: [&str; 5] = ["run", "--machine", "pc,entry=raw64", "--memory", "16M"];

#[test]
fn a_snapshot_goes_on_as_the_run_did() {
    let dir = Dir::new("pc-snapshot");
    let code = dir.file("code", CODE);
    let [snap, one, other] = ["snap", "one.json", "other.json"].map(|name| dir.path(name));
    let more = ["--kernel", &code, "--snapshot-at", "150000", "--snapshot", &snap, "--json", &one];
    let out = undervisor(&[&MACHINE[..], &more].concat());
    assert_eq!((out.status.code(), out.stdout.as_slice()), (Some(0), &b"x"[..]), "{}", stderr(&out));
    let out = undervisor(&["run", "--restore", &snap, "--json", &other]);
    assert_eq!((out.status.code(), out.stdout.as_slice()), (Some(0), &b"x"[..]), "{}", stderr(&out));
    let (one, other) = (dir.json("one.json"), dir.json("other.json"));
    assert_eq!((&one["state_hash"], &one["instructions"]), (&other["state_hash"], &other["instructions"]));
}

#[test]
fn instructions_are_written_down_with_what_they_change() {
    let dir = Dir::new("pc-insns");
    let code = dir.file("code", CODE);
    let [trace, json, plain] = ["trace", "traced.json", "plain.json"].map(|name| dir.path(name));
    let run = |more: &[&str]| {
        let limit = ["--kernel", &code, "--max-instructions", "9"];
        assert_eq!(undervisor(&[&MACHINE[..], &limit, more].concat()).status.code(), Some(4));
    };
    run(&["--trace", &trace, "--trace-events", "insns", "--json", &json]);
    run(&["--json", &plain]);
    let text = std::fs::read_to_string(&trace).unwrap();
    let lines: Vec<Vec<&str>> = text.lines().map(|l| l.split_whitespace().collect()).collect();
    assert_eq!(lines[0], ["0", "cpu0", "0x100000", "31c9", "xor", "ecx,", "ecx", "eflags=0x46"]);
    assert_eq!(lines[1], ["1", "cpu0", "0x100002", "ffc1", "inc", "ecx", "rcx=0x1", "eflags=0x2"]);
    assert_eq!((lines.len(), lines[3].last()), (9, Some(&"0x100002")));
    assert_eq!(dir.json("traced.json")["state_hash"], dir.json("plain.json")["state_hash"], "nobody has noticed");
}

#[test]
fn code_is_disassembled() {
    let dir = Dir::new("pc-disas");
    let code = dir.file("code", CODE);
    let out = undervisor(&["disas", &code, "--arch", "x86-64"]);
    let text = String::from_utf8(out.stdout.clone()).unwrap();
    assert_eq!((out.status.code(), text.lines().count()), (Some(0), 10));
    assert!(text.starts_with("0x0 31c9                 xor ecx, ecx\n"), "{text}");
    let out = undervisor(&["disas", &code]);
    assert!(out.status.code() == Some(2) && stderr(&out).contains("--arch"), "{}", stderr(&out));
}

/// 64-bit code: starts all other processors, which count together; when they are beyond 50,000 it says the lowest byte of their
/// count and powers off. What it says depends on how the processors take turns.
const RACE: &[u8] = &[
    0xc7, 0x04, 0x25, 0x00, 0x80, 0x00, 0x00, 0xf0, 0xff, 0x06,
    0x00, // mov dword [8000h], lock inc word [1000h] ...
    0xc7, 0x04, 0x25, 0x04, 0x80, 0x00, 0x00, 0x10, 0xeb, 0xf9, 0xf4, // ... jmp to it; hlt
    0xb8, 0x00, 0x03, 0xe0, 0xfe, // mov eax, 0fee00300h: the interrupt command register
    0xc7, 0x00, 0x00, 0x45, 0x0c, 0x00, // mov dword [rax], INIT to all others
    0xc7, 0x00, 0x08, 0x46, 0x0c, 0x00, // mov dword [rax], SIPI to all others, at 8000h
    0x0f, 0xb7, 0x14, 0x25, 0x00, 0x10, 0x00, 0x00, // movzx edx, word [1000h]
    0x81, 0xfa, 0x50, 0xc3, 0x00, 0x00, // cmp edx, 50000
    0x72, 0xf0, // jb to movzx
    0x89, 0xd0, 0x66, 0xba, 0xf8, 0x03, 0xee, // mov eax, edx; mov dx, 3f8h; out dx, al
    0x66, 0xba, 0x04, 0x06, 0x66, 0xb8, 0x00, 0x3c, 0x66, 0xef, // mov dx, 604h; mov ax, 3c00h; out dx, ax
];

#[test]
fn four_processors_take_the_same_turns_again() {
    let dir = Dir::new("pc-race");
    let code = dir.file("code", RACE);
    let run = |name: &str, more: &[&str]| {
        let json = dir.path(name);
        let start = ["--smp", "4", "--kernel", &code, "--json", &json];
        let out = undervisor(&[&MACHINE[..], &start, more].concat());
        assert_eq!((out.status.code(), out.stdout.len()), (Some(0), 1), "{}", stderr(&out));
        dir.json(name)
    };
    let traces = ["one.trace", "other.trace"].map(|name| dir.path(name));
    let [snap, recording] = ["snap", "recording"].map(|name| dir.path(name));
    let once = run("once", &["--seed", "3"]);
    let events = traces.each_ref().map(|trace| {
        assert_eq!(run("traced", &["--seed", "3", "--trace", trace]), once, "a trace changes nothing");
        std::fs::read_to_string(trace).unwrap()
    });
    assert!(events[0] == events[1] && events[0].contains("device-write"), "{}", events[0]);
    assert_ne!(run("other", &["--seed", "4"])["state_hash"], once["state_hash"]);
    assert_eq!(run("again", &["--seed", "3", "--snapshot-at", "60000", "--snapshot", &snap]), once);
    assert_eq!(run("record", &["--seed", "3", "--record", &recording]), once);
    assert_eq!(run("replay", &["--seed", "3", "--replay", &recording]), once);
    let json = dir.path("restored");
    assert_eq!(undervisor(&["run", "--restore", &snap, "--json", &json]).status.code(), Some(0));
    // Counts of levels begin anew.
    for what in ["state_hash", "instructions", "virtual_time_ns", "harts"] {
        assert_eq!(dir.json("restored")[what], once[what], "{what}");
    }
}
