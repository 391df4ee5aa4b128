//! `--gdb`, spoken to as GDB does.

mod common;
#[path = "svm/guest.rs"]
mod svm_guest;
#[path = "vmx/guest.rs"]
mod vmx_guest;

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::{Child, Stdio};

use common::{Dir, Guest, RAM, RISCV, command, elf, guest, wait};

struct Session(TcpStream);

impl Session {
    /// Sends a packet; returns the reply's contents.
    fn ask(&mut self, packet: &str) -> String {
        let sum = packet.bytes().fold(0u8, u8::wrapping_add);
        write!(self.0, "${packet}#{sum:02x}").unwrap();
        self.reply()
    }

    /// The next packet's contents.
    fn reply(&mut self) -> String {
        let mut byte = [0];
        let mut next = |stream: &mut TcpStream| {
            stream.read_exact(&mut byte).unwrap();
            byte[0]
        };
        while next(&mut self.0) != b'$' {}
        let mut reply = Vec::new();
        loop {
            match next(&mut self.0) {
                b'#' => break,
                // Run-length encoding: the last character so many times more.
                b'*' => {
                    let (n, last) = (next(&mut self.0) - 29, *reply.last().unwrap());
                    reply.extend(std::iter::repeat_n(last, n.into()));
                }
                b => reply.push(b),
            }
        }
        next(&mut self.0);
        next(&mut self.0);
        self.0.write_all(b"+").unwrap();
        String::from_utf8(reply).unwrap()
    }

    /// Sends a monitor command; what it says.
    fn monitor(&mut self, command: &str) -> String {
        let hex: String = command.bytes().map(|b| format!("{b:02x}")).collect();
        let mut text = String::new();
        let mut reply = self.ask(&format!("qRcmd,{hex}"));
        while let Some(hex) = reply.strip_prefix('O').filter(|rest| *rest != "K") {
            let byte = |i| u8::from_str_radix(&hex[i..i + 2], 16).unwrap() as char;
            text.extend((0..hex.len()).step_by(2).map(byte));
            reply = self.reply();
        }
        assert_eq!(reply, "OK", "{command}");
        text
    }

    fn register(&mut self, number: usize) -> u64 {
        let text = self.ask(&format!("p{number:x}"));
        u64::from_str_radix(&text, 16).unwrap().swap_bytes()
    }
}

/// The program, which waits for a debugger, and the debugger.
fn debug(arguments: &[&str], stdin: Stdio) -> (Child, Session) {
    let all = [&["run", "--firmware", "none", "--gdb", "127.0.0.1:0"], arguments].concat();
    let mut child = command(&all).stdin(stdin).stderr(Stdio::piped()).spawn().unwrap();
    let mut line = String::new();
    let mut stderr = BufReader::new(child.stderr.take().unwrap());
    stderr.read_line(&mut line).unwrap();
    let stream = TcpStream::connect(line.trim().rsplit(' ').next().unwrap()).unwrap();
    stream.set_read_timeout(Some(std::time::Duration::from_secs(20))).unwrap();
    let mut gdb = Session(stream);
    assert!(gdb.ask("qSupported:multiprocess+;hwbreak+;swbreak+").contains("qXfer:features:read+"));
    (child, gdb)
}

#[test]
fn a_session() {
    let dir = Dir::new("gdb");
    // li a0, 5; auipc a1, 0; addi a0, a0, 1; sd a0, 64(a1); j .-8
    let code = [0x0050_0513, 0x0000_0597, 0x0015_0513, 0x04a5_b023, 0xff9f_f06f];
    let kernel = dir.file("kernel", &elf(RISCV, RAM, &code, 20));
    let (mut child, mut gdb) = debug(&["--kernel", &kernel], Stdio::null());

    assert!(gdb.ask("qXfer:features:read:target.xml:0,ffff").contains("name=\"zero\""));
    assert!(gdb.ask("?").starts_with('T'));
    assert_eq!(gdb.register(32), 0x8000_0000);
    assert_eq!(gdb.register(4161), 3, "M-mode");
    assert_eq!(gdb.register(65 + 0xf14), 0, "mhartid");
    gdb.ask("vCont;s:p1.1");
    assert_eq!((gdb.register(32), gdb.register(10)), (0x8000_0004, 5));
    // A breakpoint is where memory still shows the instruction.
    assert_eq!(gdb.ask("Z0,8000000c,4"), "OK");
    assert!(gdb.ask("vCont;c").contains("swbreak"));
    assert_eq!((gdb.register(32), gdb.register(10)), (0x8000_000c, 6));
    assert_eq!(gdb.ask("m8000000c,4"), "23b0a504");
    // It does not hold the hart where it is.
    assert!(gdb.ask("vCont;c").contains("swbreak"));
    assert_eq!(gdb.ask("z0,8000000c,4"), "OK");
    assert_eq!(gdb.ask("Z2,80000044,8"), "OK");
    let stop = gdb.ask("vCont;c");
    assert!(stop.contains("watch:80000044"), "{stop}");
    assert_eq!(gdb.ask("P20=0000008000000000"), "OK");
    assert_eq!(gdb.register(32), 0x8000_0000);
    assert_eq!(gdb.ask("M80000100,4:01020304"), "OK");
    assert_eq!(gdb.ask("m80000100,4"), "01020304");
    write!(gdb.0, "$vKill;1#6e").unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(0));
}

#[test]
fn a_run_that_the_debugger_ends_is_reported() {
    let dir = Dir::new("gdb-kill");
    let kernel = dir.file(
        "kernel",
        &guest(|a| {
            a.hear("hear");
            a.say("x\n");
            a.label("forever");
            a.j("forever");
        }),
    );
    let [json, trace, record] = ["json", "trace", "record"].map(|name| dir.path(name));
    let reports = ["--json", &json, "--trace", &trace, "--record", &record];
    let input = dir.file("input", b"k");
    let stdin = fs::File::open(input).unwrap();
    let all = [&["--kernel", &kernel, "--console", "stdio"], &reports[..]].concat();
    let (mut child, mut gdb) = debug(&all, stdin.into());
    assert_eq!(gdb.ask("Z2,80000200,8"), "OK");
    gdb.ask("vCont;s:p1.1");
    write!(gdb.0, "$vCont;c#a8").unwrap();
    std::thread::sleep(std::time::Duration::from_millis(300));
    gdb.0.write_all(&[3]).unwrap();
    write!(gdb.0, "$vKill;1#6e").unwrap();
    assert_eq!(wait(&mut child), Some(0));
    assert_eq!(dir.json("json")["cause"], "quit");
    assert!(fs::read_to_string(trace).unwrap().contains("device-write"));
    assert!(fs::read(record).unwrap().windows(2).any(|w| w == [1, b'k']), "what the guest heard is recorded");
}

#[test]
fn limits_hold_with_a_debugger_and_after_it() {
    let dir = Dir::new("gdb-limits");
    let kernel = dir.file(
        "kernel",
        &guest(|a| {
            a.hear("hear");
            a.say("got it");
            a.label("forever");
            a.j("forever");
        }),
    );
    let (json, snapshot) = (dir.path("json"), dir.path("snapshot"));
    let limits = ["--kernel", &kernel, "--json", &json, "--max-instructions", "9000000", "--snapshot-at", "5000"];
    let limits = [&limits[..], &["--snapshot", &snapshot]].concat();
    let (mut child, mut gdb) = debug(&limits, Stdio::null());
    assert!(gdb.ask("vCont;c").starts_with("W04"));
    assert_eq!(wait(&mut child), Some(4));
    assert_eq!(dir.json("json")["instructions"], 9_000_000);
    fs::remove_file(&snapshot).unwrap();
    // A debugger that vanishes leaves the run to itself.
    let (mut child, gdb) = debug(&limits, Stdio::null());
    drop(gdb);
    assert_eq!(wait(&mut child), Some(4));
    assert_eq!(dir.json("json")["instructions"], 9_000_000);
    fs::remove_file(&snapshot).unwrap();
    // So does one that lets go; and the pipe is heard.
    let expects = [&limits[..], &["--expect", "got it"]].concat();
    let (mut child, mut gdb) = debug(&expects, Stdio::piped());
    gdb.ask("vCont;s:p1.1");
    assert_eq!(gdb.ask("D;1"), "OK");
    child.stdin.take().unwrap().write_all(b"k").unwrap();
    assert_eq!(wait(&mut child), Some(0));
    assert_eq!(dir.json("json")["cause"], "expected");
    assert!(fs::metadata(&snapshot).is_ok());
}

#[test]
fn a_machine_that_ends_tells_the_debugger() {
    let dir = Dir::new("gdb-end");
    let json = dir.path("json");
    let fails = dir.file("fails", &guest(|a| a.fail()));
    let (mut child, mut gdb) = debug(&["--kernel", &fails, "--json", &json], Stdio::null());
    let reply = gdb.ask("vCont;c");
    assert!(reply.starts_with("W07"), "{reply}");
    assert_eq!(wait(&mut child), Some(1));
    assert_eq!((&dir.json("json")["guest_code"], &dir.json("json")["exit_code"]), (&7.into(), &1.into()));

    let resets = dir.file("resets", &guest(|a| a.reset()));
    let (mut child, mut gdb) = debug(&["--kernel", &resets, "--json", &json], Stdio::null());
    assert!(gdb.ask("vCont;c").starts_with("X06"));
    assert_eq!(wait(&mut child), Some(3));
    let reboots = ["--kernel", &resets, "--json", &json, "--on-reset", "reboot", "--memory", "8M"];
    let (mut child, mut gdb) = debug(&reboots, Stdio::null());
    assert_eq!(gdb.ask("Z0,80000000,4"), "OK");
    for _ in 0..3 {
        assert!(gdb.ask("vCont;c").contains("swbreak"), "a breakpoint outlives a reset");
        assert_eq!(gdb.register(32), RAM);
    }
    write!(gdb.0, "$vKill;1#6e").unwrap();
    assert_eq!(wait(&mut child), Some(0));
    assert_eq!(dir.json("json")["resets"], 3);
}

#[test]
fn a_session_with_a_pc_of_four_processors() {
    let dir = Dir::new("gdb-pc");
    // mov eax, 5; inc eax; mov [rip + 20h], rax; jmp to inc
    let code = [0xb8, 5, 0, 0, 0, 0xff, 0xc0, 0x48, 0x89, 0x05, 0x20, 0, 0, 0, 0xeb, 0xf5];
    let kernel = dir.file("kernel", &code);
    let machine = ["--machine", "pc,entry=raw64", "--smp", "4", "--memory", "16M", "--kernel", &kernel];
    let (mut child, mut gdb) = debug(&machine, Stdio::null());
    const RIP: usize = 16;
    assert!(gdb.ask("qXfer:features:read:target.xml:0,ffff").contains("i386:x86-64"));
    assert!(gdb.ask("qfThreadInfo").contains("p01.04"), "each processor is a thread");
    assert_eq!(gdb.register(RIP), 0x10_0000);
    gdb.ask("vCont;s:p1.1");
    assert_eq!((gdb.register(RIP), gdb.register(0)), (0x10_0005, 5));
    assert_eq!(gdb.ask("Z0,10000e,1"), "OK");
    assert!(gdb.ask("vCont;c").contains("swbreak"));
    assert_eq!((gdb.register(RIP), gdb.register(0)), (0x10_000e, 6));
    assert_eq!(gdb.ask("m10002e,2"), "0600");
    assert_eq!(gdb.ask("z0,10000e,1"), "OK");
    assert_eq!(gdb.ask("Z2,10002e,8"), "OK");
    let stop = gdb.ask("vCont;c");
    assert!(stop.contains("watch:10002e"), "{stop}");
    write!(gdb.0, "$vKill;1#6e").unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(0));
}

#[test]
fn monitor_commands_know_svm() {
    let dir = Dir::new("gdb-svm");
    let code = svm_guest::code();
    let kernel = dir.file("kernel", &code);
    let machine = ["--machine", "pc,entry=raw64", "--cpu", "amd", "--memory", "64M", "--kernel", &kernel];
    let (mut child, mut gdb) = debug(&machine, Stdio::null());
    let has = |text: &str, words: &[&str]| words.iter().for_each(|w| assert!(text.contains(w), "{w}: {text}"));
    has(&gdb.monitor("svm"), &["SVM: off (EFER.SVME is 0); GIF 1", "no VMCB has been run"]);
    has(&gdb.monitor("walk 0x100000 gpa"), &["this vCPU has no guest"]);
    // To where the machine would power off.
    let out = code.windows(3).position(|w| w == [0x66, 0xef, 0xf4]).unwrap() as u64;
    assert_eq!(gdb.ask(&format!("Z0,{:x},1", svm_guest::AT + out)), "OK");
    assert!(gdb.ask("vCont;c").contains("swbreak"));
    has(&gdb.monitor("svm"), &["host mode", "the last VMRUN that failed: CR0 = 0x100000000: bits 63 to 32 are 0"]);
    has(&gdb.monitor("inspect vmcb 0x202000"), &["VMCB 0x202000 in memory, guest at L3?", "the processor holds it"]);
    // The guest's memory, while its hypervisor is at work.
    let alias = svm_guest::ALIAS + svm_guest::AT;
    assert_eq!(gdb.monitor("memory guest"), "memory: Guest\n");
    has(
        &gdb.monitor(&format!("walk {alias:#x} gpa")),
        &["guest-physical 0x2100000 -> physical 0x100000 (2-MByte page)"],
    );
    assert_eq!(gdb.ask(&format!("m{alias:x},3")), "bc0070");
    write!(gdb.0, "$vKill;1#6e").unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(0));
}

#[test]
fn monitor_commands_look_into_the_machine() {
    let dir = Dir::new("gdb-monitor");
    let kernel = dir.file("kernel", &vmx_guest::code());
    let machine = ["--machine", "pc,entry=raw64", "--memory", "64M", "--kernel", &kernel];
    let (mut child, mut gdb) = debug(&machine, Stdio::null());
    let has = |text: &str, words: &[&str]| words.iter().for_each(|w| assert!(text.contains(w), "{w}: {text}"));
    has(&gdb.monitor("help"), &["inspect vmcs ADDRESS", "walk ADDRESS", "stats"]);
    assert_eq!(gdb.monitor("nonsense"), gdb.monitor("help"));
    has(&gdb.monitor("vmx"), &["vCPU 0\n", "VMX: off; IA32_FEATURE_CONTROL 0x0"]);
    has(&gdb.monitor("walk 0x100000 gva"), &["this vCPU has no guest"]);
    assert_eq!(gdb.monitor("memory physical"), "memory: Physical\n");
    // To where the machine would power off.
    let code = vmx_guest::code();
    let out = code.windows(3).position(|w| w == [0x66, 0xef, 0xf4]).unwrap() as u64;
    assert_eq!(gdb.ask(&format!("Z0,{:x},1", vmx_guest::AT + out)), "OK");
    assert!(gdb.ask("vCont;c").contains("swbreak"));
    has(
        &gdb.monitor("vmx"),
        &["root operation", "a VM entry would fail: exit 33: GUEST_RFLAGS = 0x0: ", "the last VM entry that failed"],
    );
    has(&gdb.monitor("stats"), &["EPT violation", "exit 33: GUEST_RFLAGS"]);
    has(&gdb.monitor("inspect vcpu 0"), &["rax  0x", "GUEST_RIP", "Host-state area"]);
    has(&gdb.monitor("inspect vmcs 0x202000"), &["VMCS 0x202000 in memory", "guest at L3?"]);
    has(&gdb.monitor("walk 0x100000 gva vcpu 0"), &["EPT PDE", "physical 0x100000: RAM: bc"]);
    // The guest's memory, while its hypervisor is at work.
    let alias = vmx_guest::ALIAS + vmx_guest::AT;
    assert_eq!(gdb.ask(&format!("m{alias:x},3")), "000000");
    assert_eq!(gdb.monitor("memory guest"), "memory: Guest\n");
    assert_eq!(gdb.ask(&format!("m{alias:x},3")), "bc0070");
    assert_eq!(gdb.ask(&format!("m{:x},3", vmx_guest::UNMAPPED)), "E79");
    has(
        &gdb.monitor(&format!("walk {alias:#x} gva")),
        &["guest-physical 0x2100000 -> physical 0x100000 (2-MByte page)"],
    );
    has(&gdb.monitor("walk 0x100000"), &["PML4E", "linear 0x100000 -> physical 0x100000"]);
    for (wrong, words) in [
        ("walk", "expected an address"),
        ("walk x", "expected an address"),
        ("walk 1 so", "so: expected va, gva, gpa, pa"),
        ("inspect vcpu 9", "vCPU 9: the machine has 1"),
        ("inspect vcpu", "vcpu: expected a number"),
        ("vmx vmcs 1", "knows no such word"),
    ] {
        has(&gdb.monitor(wrong), &[words]);
    }
    write!(gdb.0, "$vKill;1#6e").unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(0));
}
