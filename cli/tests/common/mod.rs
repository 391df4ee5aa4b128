//! What the tests of the command line share: a directory, the program, guests.
#![allow(dead_code, reason = "every test takes a part of it")]

use std::fs;
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use undervisor_conformance::asm::*;

/// The lines of a trace that are of VMX or SVM, with their counts.
pub fn exits_and_entries(trace: &str) -> Vec<(u64, String)> {
    let text = fs::read_to_string(trace).unwrap();
    let kinds = [" exit ", " entry ", " failed-entry "];
    let wanted = text.lines().filter(|line| kinds.iter().any(|kind| line.contains(kind)));
    let split = |line: &str| {
        let (count, rest) = line.split_once(' ').unwrap();
        (count.parse().unwrap(), rest.to_owned())
    };
    wanted.map(split).collect()
}

/// Whoever looks at a run changes nothing; and a snapshot that is taken in a guest's guest knows its level. `run` runs a guest that has one, with options.
/// Returns the snapshot.
pub fn looks_and_goes_on_from_a_snapshot(dir: &Dir, run: impl Fn(&[&str])) -> String {
    let [plain, looked, trace, report] = ["plain.json", "looked.json", "trace", "page.html"].map(|n| dir.path(n));
    run(&["--json", &plain]);
    run(&["--json", &looked, "--trace", &trace, "--report", &report, "--stats"]);
    assert_eq!(dir.json("plain.json"), dir.json("looked.json"));
    let all = exits_and_entries(&trace);
    let (entered, _) = all.iter().find(|(_, line)| line.contains("to=L3? ")).unwrap();
    let [at, snap, rest, again] =
        [(entered + 1000).to_string(), dir.path("snap"), dir.path("rest"), dir.path("again.json")];
    run(&["--snapshot-at", &at, "--snapshot", &snap]);
    let out = undervisor(&["run", "--restore", &snap, "--trace", &rest, "--json", &again]);
    assert_eq!(out.status.code(), Some(0), "{}", stderr(&out));
    assert_eq!(dir.json("again.json")["state_hash"], dir.json("plain.json")["state_hash"]);
    let rest = exits_and_entries(&rest);
    assert_eq!(rest, all[all.len() - rest.len()..], "the rest is told as it was");
    assert!(rest[0].1.contains("cpu0 L3? "));
    snap
}

/// A directory that lasts as long as this.
pub struct Dir(PathBuf);

impl Dir {
    pub fn new(name: &str) -> Self {
        let dir = std::env::temp_dir().join(format!("undervisor-{name}-{}", std::process::id()));
        fs::create_dir_all(&dir).unwrap();
        Dir(dir)
    }

    pub fn file(&self, name: &str, bytes: &[u8]) -> String {
        let path = self.0.join(name);
        fs::write(&path, bytes).unwrap();
        path.display().to_string()
    }

    pub fn path(&self, name: &str) -> String {
        self.0.join(name).display().to_string()
    }

    /// The names of all files in it.
    pub fn names(&self) -> Vec<String> {
        let entries = fs::read_dir(&self.0).unwrap();
        let mut names: Vec<_> = entries.map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    /// A JSON file in it.
    pub fn json(&self, name: &str) -> serde_json::Value {
        serde_json::from_slice(&fs::read(self.0.join(name)).unwrap()).unwrap()
    }
}

impl Drop for Dir {
    fn drop(&mut self) {
        fs::remove_dir_all(&self.0).unwrap();
    }
}

pub fn command(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_undervisor"));
    command.args(arguments).stdin(Stdio::null());
    command
}

pub fn undervisor(arguments: &[&str]) -> Output {
    command(arguments).output().unwrap()
}

pub fn stderr(out: &Output) -> String {
    String::from_utf8_lossy(&out.stderr).into_owned()
}

/// Waits for a process that has to end.
#[track_caller]
pub fn wait(child: &mut Child) -> Option<i32> {
    for _ in 0..600 {
        if let Some(status) = child.try_wait().unwrap() {
            return status.code();
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    child.kill().unwrap();
    panic!("it does not end");
}

pub const RISCV: u16 = 243;
pub const RAM: u64 = 0x8000_0000;

/// A 64-bit ELF file for `machine` with one segment of `size` bytes at `at`.
pub fn elf(machine: u16, at: u64, code: &[u32], size: u64) -> Vec<u8> {
    let mut file = Vec::new();
    file.extend(b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0\x02\0");
    file.extend(machine.to_le_bytes());
    file.extend(1u32.to_le_bytes());
    [at, 64, 0].iter().for_each(|w| file.extend(w.to_le_bytes()));
    file.extend(0u32.to_le_bytes());
    [64u16, 56, 1, 0, 0, 0].iter().for_each(|w| file.extend(w.to_le_bytes()));
    file.extend(1u32.to_le_bytes());
    file.extend(7u32.to_le_bytes());
    [120, at, at, 4 * code.len() as u64, size, 1].iter().for_each(|w| file.extend(w.to_le_bytes()));
    code.iter().for_each(|w| file.extend(w.to_le_bytes()));
    file
}

/// An ELF file of a guest that starts in M-mode.
pub fn guest(write: impl FnOnce(&mut Asm)) -> Vec<u8> {
    let mut a = Asm::new(RAM);
    write(&mut a);
    let code: Vec<u32> = a.finish().chunks(4).map(|c| u32::from_le_bytes(c.try_into().unwrap())).collect();
    elf(RISCV, RAM, &code, 4 * code.len() as u64)
}

/// What the guests do. Registers T0 and T1 are lost.
pub trait Guest {
    fn store_word(&mut self, at: u64, value: u64);
    fn store_double(&mut self, at: u64, value: u64);
    /// Writes text to the UART.
    fn say(&mut self, text: &str);
    /// Waits for a character at the UART, which comes to A0.
    fn hear(&mut self, label: &'static str);
    fn finisher(&mut self, value: u64);
    fn power_off(&mut self) {
        self.finisher(0x5555);
    }
    fn fail(&mut self) {
        self.finisher(0x7_3333);
    }
    fn reset(&mut self) {
        self.finisher(0x7777);
    }
    /// Starts the virtio device in a slot, with one of its queues.
    fn start_virtio(&mut self, slot: u64, queue: u64);
    /// Sends what lies at [`SECTOR`] through queue 1 of the device in a slot, once.
    fn send(&mut self, slot: u64, len: u64);
    /// Powers off if a device has used a buffer, else fails.
    fn end_by_used(&mut self);
    /// Reads the first sector of the drive to [`SECTOR`] or writes it; the status is at [`STATUS`]. The first request after
    /// the start has number 1.
    fn transfer(&mut self, writes: bool, number: u64);
}

const UART: u64 = 0x1000_0000;
const VIRTIO: u64 = 0x1000_1000;
const QUEUE: u64 = 0x8010_0000;
const HEADER: u64 = 0x8010_3000;
pub const SECTOR: u64 = 0x8010_4000;
pub const STATUS: u64 = 0x8010_5000;

impl Guest for Asm {
    fn store_word(&mut self, at: u64, value: u64) {
        self.li(T0, at);
        self.li(T1, value);
        self.sw(T1, T0, 0);
    }

    fn store_double(&mut self, at: u64, value: u64) {
        self.li(T0, at);
        self.li(T1, value);
        self.sd(T1, T0, 0);
    }

    fn say(&mut self, text: &str) {
        self.li(T0, UART);
        for byte in text.bytes() {
            self.li(T1, byte.into());
            self.sb(T1, T0, 0);
        }
    }

    fn hear(&mut self, label: &'static str) {
        self.li(T0, UART);
        self.label(label);
        self.lbu(T1, T0, 5);
        self.andi(T1, T1, 1);
        self.beq(T1, ZERO, label);
        self.lbu(A0, T0, 0);
    }

    fn finisher(&mut self, value: u64) {
        self.store_word(0x10_0000, value);
    }

    fn start_virtio(&mut self, slot: u64, queue: u64) {
        let registers = [
            (0x70, 0),
            (0x70, 3),
            (0x24, 1),
            (0x20, 1), // VIRTIO_F_VERSION_1
            (0x70, 11),
            (0x30, queue),
            (0x38, 8),
            (0x80, QUEUE),
            (0x84, 0),
            (0x90, QUEUE + 0x1000),
            (0x94, 0),
            (0xa0, QUEUE + 0x2000),
            (0xa4, 0),
            (0x44, 1),
            (0x70, 15),
        ];
        for (register, value) in registers {
            self.store_word(VIRTIO + 0x1000 * slot + register, value);
        }
    }

    fn transfer(&mut self, writes: bool, number: u64) {
        const NEXT: u64 = 1;
        const WRITE: u64 = 2;
        let data = if writes { NEXT } else { NEXT | WRITE };
        let chain = [(HEADER, 16, NEXT, 1), (SECTOR, 512, data, 2), (STATUS, 1, WRITE, 0)];
        for (i, (at, len, flags, next)) in (0..).zip(chain) {
            self.store_double(QUEUE + 16 * i, at);
            self.store_double(QUEUE + 16 * i + 8, len | flags << 32 | next << 48);
        }
        self.store_double(HEADER, writes.into());
        self.store_double(HEADER + 8, 0);
        self.store_double(STATUS, 0xff);
        self.store_double(QUEUE + 0x1000, number << 16);
        self.store_word(VIRTIO + 0x50, 0);
    }

    fn send(&mut self, slot: u64, len: u64) {
        self.store_double(QUEUE, SECTOR);
        self.store_double(QUEUE + 8, len);
        self.store_double(QUEUE + 0x1000, 1 << 16);
        self.store_word(VIRTIO + 0x1000 * slot + 0x50, 1);
    }

    fn end_by_used(&mut self) {
        self.li(T0, QUEUE + 0x2000);
        self.lbu(T1, T0, 2);
        self.beq(T1, ZERO, "unused");
        self.power_off();
        self.label("unused");
        self.fail();
    }
}
