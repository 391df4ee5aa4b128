//! A hypervisor with SVM on the PC, as the tools show it: traces, statistics, snapshots.

#[path = "../common/mod.rs"]
mod common;
mod guest;

use common::{Dir, exits_and_entries, looks_and_goes_on_from_a_snapshot, stderr, undervisor};
use guest::{FIRST, MSR, NESTED, SAVE_AREA, SECOND, UNMAPPED};

const MACHINE: [&str; 7] = ["run", "--machine", "pc,entry=raw64", "--memory", "64M", "--cpu", "amd"];

/// Runs the guest with these options; standard error.
#[track_caller]
fn run(dir: &Dir, more: &[&str]) -> String {
    let kernel = dir.file("kernel", &guest::code());
    let out = undervisor(&[&MACHINE[..], &["--kernel", &kernel], more].concat());
    assert_eq!(out.status.code(), Some(0), "{}", stderr(&out));
    stderr(&out)
}

#[test]
fn a_trace_tells_exits_entries_and_why_entries_fail() {
    let dir = Dir::new("svm-trace");
    let trace = dir.path("trace");
    run(&dir, &["--trace", &trace]);
    let lines = exits_and_entries(&trace);
    let has = |n: usize, words: &[&str]| {
        let line = &lines[n].1;
        assert!(words.iter().all(|w| line.contains(w)), "{n}: {line}: {words:?}");
    };
    let vmcb = format!("vmcb={FIRST:#x}");
    has(0, &["cpu0 L1 ", " entry VMRUN to=L2 ", &vmcb, &format!("ncr3={NESTED:#x}"), " asid=0x1 "]);
    has(1, &["cpu0 L2 ", " exit CPUID code=0x72 nrip=", "insn=\"cpuid\""]);
    has(21, &["exit IOIO ", "insn=\"out 0x80, al\"", "what=\"out byte, port 0x80\""]);
    has(23, &["exit MSR ", "insn=\"wrmsr\"", &format!("msr={MSR:#x}"), "what=\"WRMSR\""]);
    let address = format!("info2={UNMAPPED:#x}");
    has(25, &["exit NPF ", &address, "insn=\"mov eax, [rdi]\"", "user read of the final address, not present"]);
    has(27, &["cpu0 L2 ", "exit VMRUN"]);
    // The guest's guest: its level is inferred, and stays with its VMCB.
    has(28, &["cpu0 L1 ", "entry VMRUN to=L3? ", &format!("vmcb={SECOND:#x}")]);
    has(29, &["cpu0 L3? ", "exit VMMCALL"]);
    has(30, &["to=L3? "]);
    has(31, &["cpu0 L3? ", "exit HLT"]);
    has(32, &["to=L2 ", "inject=0x80000041", "event=\"external interrupt 0x41\""]);
    has(33, &["cpu0 L2 ", "exit VMMCALL"]);
    has(34, &["failed-entry not 0 value=0x0", "field=\"GUEST_ASID\"", "seen=\"VMEXIT_INVALID\""]);
    has(35, &["failed-entry bits 63 to 32 are 0 value=0x100000000", "field=\"CR0\""]);
    assert_eq!(lines.len(), 37);
}

#[test]
fn statistics_tell_levels_handlers_and_rules() {
    let dir = Dir::new("svm-stats");
    let json = dir.path("json");
    let text = run(&dir, &["--stats", "--json", &json]);
    let line = |words: &[&str]| text.lines().find(|l| words.iter().all(|w| l.contains(w)));
    let has = |words: &[&str]| assert!(line(words).is_some(), "{words:?}: {text}");
    has(&["L2 ", " CPUID ", " 10 "]);
    has(&["L3?", " VMMCALL ", " 1 ", "50.0%"]);
    has(&["VMEXIT_INVALID: CR0", " 2 "]);
    let levels = &dir.json("json")["levels"];
    assert_eq!((&levels["L3"]["inferred"], &levels["L3"]["exits"]["HLT"]), (&true.into(), &1.into()));
    assert_eq!(levels["L2"]["injections"]["interrupt"], 1);
    assert!(levels["L3"]["instructions"].as_u64().unwrap() > 2000);
}

/// Between two entries that fail: the processor holds what the first has read, and memory has something else.
#[test]
fn what_a_processor_holds_and_what_memory_has() {
    let dir = Dir::new("svm-held");
    let [trace, snap] = ["trace", "snap"].map(|n| dir.path(n));
    run(&dir, &["--trace", &trace]);
    let lines = exits_and_entries(&trace);
    let failed: Vec<_> = lines.iter().filter(|(_, line)| line.contains("failed-entry")).collect();
    let at = (failed[1].0 - 1).to_string();
    run(&dir, &["--snapshot-at", &at, "--snapshot", &snap]);
    let inspect = |more: &[&str]| String::from_utf8(undervisor(&[&["inspect", &snap], more].concat()).stdout).unwrap();
    let has = |text: &str, name: &str, words: &[&str]| {
        let line = text.lines().find(|line| line.trim().starts_with(name)).unwrap_or_else(|| panic!("{name}: {text}"));
        words.iter().for_each(|w| assert!(line.contains(w), "{w}: {line}"));
    };
    let state = inspect(&[]);
    has(&state, "SVM: host mode", &["GIF 0"]);
    has(&state, "VMRUN would fail", &["VMEXIT_INVALID: CR0 = 0x100000000: bits 63 to 32 are 0"]);
    has(&state, "GUEST_ASID", &[" 0x0  ", "[in memory: 0x1]"]);
    has(&state, "CR0 ", &["PE", "PG", "[in memory: 0x100000000]"]);
    has(&state, "EXITCODE", &["INVALID"]);
    has(&inspect(&["--vmcb", &format!("{FIRST:#x}")]), "GUEST_ASID", &[" 0x1  ", "[held: 0x0]"]);
    // The guest of the present VMCB, which is not at work, as the processor holds it.
    has(&inspect(&["--walk", "0x100000", "--as", "gva"]), "linear 0x100000, 4-level paging", &[]);
}

#[test]
fn whoever_looks_changes_nothing_and_levels_outlive_a_snapshot() {
    let dir = Dir::new("svm-looks");
    let snap = looks_and_goes_on_from_a_snapshot(&dir, |more| _ = run(&dir, more));
    let page = std::fs::read_to_string(dir.path("page.html")).unwrap();
    ["\"NPF\"", "\"IOIO\"", "VMEXIT_INVALID"].iter().for_each(|w| assert!(page.contains(w), "{w}"));
    let inspect = |more: &[&str]| {
        let out = undervisor(&[&["inspect", &snap], more].concat());
        assert_eq!(out.status.code(), Some(0), "{}", stderr(&out));
        String::from_utf8(out.stdout).unwrap()
    };
    let has = |text: &str, words: &[&str]| words.iter().for_each(|w| assert!(text.contains(w), "{w}: {text}"));
    let state = inspect(&[]);
    has(&state, &["vCPU 0\n", "64-bit mode, CPL 0; next: ", "SVM: L3? at work; GIF 1", "VM_HSAVE_PA 0x200000"]);
    has(&state, &["present VMCB 0x202000, guest at L3?", "CPUID HLT IOIO MSR SHUTDOWN", "VMRUN VMMCALL", "NP_ENABLE"]);
    has(&state, &[&format!("Host save area {SAVE_AREA:#x}\n"), "State-save area", "code, readable, 64-bit, DPL 0"]);
    has(&inspect(&["--vmcb", "0x201000"]), &["vCPU 0: VMCB 0x201000 in memory, guest at L2", "  VMRUN\n"]);
    has(&inspect(&["--vmcb", "0x203000"]), &["VMCB 0x203000 in memory, not known to have run"]);
    let walk = inspect(&["--walk", "0x100000", "--as", "gva"]);
    has(&walk, &["4-level paging, CR3 0x9000", "  NPT PDE ", "rwx user A D page", "physical 0x100000: RAM: bc 00 70"]);
    assert_eq!(walk, inspect(&["--walk", "0x100000"]), "the guest is at work");
    has(
        &inspect(&["--walk", "0x40000000", "--as", "gpa"]),
        &["NPT PDPTE", "not present", "ends: nested page fault: the entry is not present"],
    );
    has(&inspect(&["--walk", "0x1000000000000", "--as", "gpa"]), &["ends: nested page fault: the address is wider"]);
    has(&inspect(&["--walk", "0xfec00000", "--as", "pa"]), &["physical 0xfec00000: ioapic, offset 0x0"]);
    let refused = |more: &[&str], words: &str| {
        let out = undervisor(&[&["inspect", &snap], more].concat());
        let text = stderr(&out);
        assert_eq!((out.status.code(), text.lines().count()), (Some(2), 1), "{text}");
        assert!(text.contains(words), "{text}");
    };
    refused(&["--vmcb", "0x7fff000000000000"], "no RAM");
    refused(&["--vmcb", "0x201008"], "aligned");
    refused(&["--vmcs", "0x201000"], "no VMCS");
}
