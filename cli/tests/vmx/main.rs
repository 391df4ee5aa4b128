//! A hypervisor with VMX on the PC, as the tools show it: traces, statistics, snapshots, the report.

mod abort;
#[path = "../common/mod.rs"]
mod common;
mod guest;

use std::process::Command;

use common::{Dir, exits_and_entries, looks_and_goes_on_from_a_snapshot, stderr, undervisor};
use guest::{EPT, FIRST, SECOND, UNMAPPED};

const MACHINE: [&str; 5] = ["run", "--machine", "pc,entry=raw64", "--memory", "64M"];

/// Runs the guest with these options; standard error.
#[track_caller]
fn run(dir: &Dir, more: &[&str]) -> String {
    let kernel = dir.file("kernel", &guest::code());
    let out = undervisor(&[&MACHINE[..], &["--kernel", &kernel], more].concat());
    assert_eq!(out.status.code(), Some(0), "{}", stderr(&out));
    stderr(&out)
}

/// The lines of a trace that are of VMX.
fn lines(dir: &Dir, name: &str) -> Vec<(u64, String)> {
    exits_and_entries(&dir.path(name))
}

#[test]
fn a_trace_tells_exits_entries_and_why_entries_fail() {
    let dir = Dir::new("vmx-trace");
    let trace = dir.path("trace");
    run(&dir, &["--trace", &trace]);
    let lines = lines(&dir, "trace");
    let has = |n: usize, words: &[&str]| {
        let line = &lines[n].1;
        assert!(words.iter().all(|w| line.contains(w)), "{n}: {line}: {words:?}");
    };
    let region = format!("vmcs={FIRST:#x}");
    has(0, &["cpu0 L1 ", " entry VMLAUNCH to=L2 ", &region, " vpid=0x1 ", &format!("eptp={:#x}", EPT | 0x1e)]);
    has(1, &["cpu0 L2 ", " exit CPUID reason=0xa length=0x2 insn=\"cpuid\""]);
    has(2, &[" entry VMRESUME to=L2 "]);
    has(21, &["exit I/O instruction reason=0x1e", "insn=\"out 0x80, al\"", "what=\"out byte, port 0x80\""]);
    let address = format!("linear={UNMAPPED:#x} physical={UNMAPPED:#x}");
    has(23, &["exit EPT violation", "qualification=0x581", &address, "insn=\"mov eax, [rdi]\"", "EPT allows ---"]);
    has(25, &["cpu0 L2 ", "exit VMLAUNCH"]);
    // The guest's guest: its level is inferred, and stays with its VMCS.
    has(26, &["cpu0 L1 ", "entry VMLAUNCH to=L3? ", &format!("vmcs={SECOND:#x}")]);
    has(27, &["cpu0 L3? ", "exit VMCALL"]);
    has(28, &["to=L3? "]);
    has(29, &["cpu0 L3? ", "exit HLT"]);
    has(30, &["to=L2 ", "inject=0x80000041", "event=\"external interrupt 0x41\""]);
    has(31, &["cpu0 L2 ", "exit VMCALL"]);
    has(32, &["failed-entry clear, for VMLAUNCH value=0x1", "field=\"launch state\"", "seen=\"error 4\""]);
    has(33, &["failed-entry ", "value=0x5", "field=\"CR3_TARGET_COUNT\"", "seen=\"error 7\""]);
    has(34, &["failed-entry ", "value=0x4000000000000000", "field=\"HOST_RIP\"", "seen=\"error 8\""]);
    has(35, &["failed-entry ", "value=0x0", "field=\"GUEST_RFLAGS\"", "seen=\"exit 33\""]);
    assert_eq!(lines.len(), 37);

    run(&dir, &["--trace", &trace, "--trace-format", "jsonl"]);
    let text = std::fs::read_to_string(&trace).unwrap();
    let events: Vec<serde_json::Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let of = |kind: &str| events.iter().filter(|e| e["kind"] == kind).collect::<Vec<_>>();
    let (exits, entries, failed) = (of("exit"), of("entry"), of("failed-entry"));
    assert_eq!((exits.len(), entries.len(), failed.len()), (16, 16, 5));
    assert_eq!((&exits[13]["level"], &exits[13]["inferred"], &entries[13]["to"]), (&3.into(), &true.into(), &3.into()));
    assert_eq!((&exits[0]["insn"], &exits[0]["inferred"]), (&"cpuid".into(), &serde_json::Value::Null));
    assert_eq!((&failed[4]["field"], &failed[4]["value"]), (&"GUEST_RFLAGS".into(), &"0x0".into()));
}

/// "VMX Aborts": the processor shuts down, which ends the run, for a reason that is named.
#[test]
fn a_vmx_abort_is_named() {
    let dir = Dir::new("vmx-abort");
    let kernel = dir.file("kernel", &abort::code());
    let out = undervisor(&[&MACHINE[..], &["--kernel", &kernel]].concat());
    assert_eq!(out.status.code(), Some(3), "{}", stderr(&out));
    assert!(
        stderr(&out).contains("processor 0 cannot go on: VMX abort 4: a host MSR could not be loaded"),
        "{}",
        stderr(&out)
    );
}

#[test]
fn statistics_tell_levels_handlers_and_rules() {
    let dir = Dir::new("vmx-stats");
    let json = dir.path("json");
    let text = run(&dir, &["--stats", "--json", &json]);
    let line = |words: &[&str]| text.lines().find(|l| words.iter().all(|w| l.contains(w)));
    let has = |words: &[&str]| assert!(line(words).is_some(), "{words:?}: {text}");
    has(&["L2 ", " CPUID ", " 10 ", "62.5%"]);
    has(&["L3?", " VMCALL ", " 1 ", "50.0%"]);
    has(&["error 4: launch state", "clear, for VMLAUNCH"]);
    has(&["exit 33: GUEST_RFLAGS", " 2 ", "0x0: "]);
    let levels = &dir.json("json")["levels"];
    assert_eq!((&levels["L3"]["inferred"], &levels["L3"]["exits"]["HLT"]), (&true.into(), &1.into()));
    assert_eq!(levels["L2"]["injections"]["interrupt"], 1);
    assert_eq!(levels["L2"]["inferred"], serde_json::Value::Null);
    // Behind CPUID, skip and enter: 6 and 5 instructions, and the two of the exit and the entry themselves count as they retire.
    let mean = levels["L2"]["mean_handler_instructions"]["CPUID"].as_f64().unwrap();
    assert!((10.0..14.0).contains(&mean), "{mean}");
    assert!(levels["L3"]["instructions"].as_u64().unwrap() > 2000);
    let failed = dir.json("json")["failed_entries"].clone();
    assert_eq!((failed.as_array().unwrap().len(), &failed[1]["seen"]), (4, &"error 7".into()), "{failed}");
}

#[test]
fn whoever_looks_changes_nothing_and_levels_outlive_a_snapshot() {
    let dir = Dir::new("vmx-looks");
    let snap = looks_and_goes_on_from_a_snapshot(&dir, |more| _ = run(&dir, more));
    let inspect = |more: &[&str]| {
        let out = undervisor(&[&["inspect", &snap], more].concat());
        assert_eq!(out.status.code(), Some(0), "{}", stderr(&out));
        String::from_utf8(out.stdout).unwrap()
    };
    let has = |text: &str, words: &[&str]| words.iter().for_each(|w| assert!(text.contains(w), "{w}: {text}"));
    let state = inspect(&[]);
    has(&state, &["vCPU 0\n", "64-bit mode, CPL 0; next: ", "VMX: non-root operation, L3?; VMXON region 0x200000"]);
    has(
        &state,
        &["current VMCS 0x202000, launched, guest at L3?", "Host-state area", "HLT_EXITING".to_lowercase().as_str()],
    );
    has(&inspect(&["--vmcs", "0x201000"]), &["VMCS 0x201000 in memory, launched, guest at L2", "  VMLAUNCH\n"]);
    has(&inspect(&["--vmcs", "0x202000"]), &["VMCS 0x202000, current on vCPU 0"]);
    let walk = inspect(&["--walk", "0x100000", "--as", "gva"]);
    has(
        &walk,
        &["4-level paging, CR3 0x9000", "  EPT PDE ", "2-MByte page, write-back", "physical 0x100000: RAM: bc 00 70"],
    );
    assert_eq!(walk, inspect(&["--walk", "0x100000"]), "the guest is at work");
    has(
        &inspect(&["--walk", "0x40000000", "--as", "gpa"]),
        &["EPT PDPTE", "ends: EPT violation: the entry is not present"],
    );
    has(&inspect(&["--walk", "0xfec00000", "--as", "pa"]), &["physical 0xfec00000: ioapic, offset 0x0"]);
    has(&inspect(&["--walk", "0xffff000000000000"]), &["ends: the address is not canonical"]);
    let refused = |more: &[&str], words: &str| {
        let out = undervisor(&[&["inspect", &snap], more].concat());
        let text = stderr(&out);
        assert_eq!((out.status.code(), text.lines().count()), (Some(2), 1), "{text}");
        assert!(text.contains(words), "{text}");
    };
    refused(&["--vcpu", "1"], "vCPU 1: the machine has 1");
    refused(&["--vmcs", "0x100000"], "no VMCS");
    refused(&["--vmcs", "0x7fff000000000000"], "no RAM");
    refused(&["--vmcs", "0x201008"], "aligned");
    let out = undervisor(&["inspect", &dir.path("trace")]);
    assert!(out.status.code() == Some(2) && stderr(&out).contains("not an Undervisor snapshot"), "{}", stderr(&out));
}

/// The program that renders the page: `UNDERVISOR_CHROMIUM`, or one of the path.
fn chromium() -> Option<String> {
    let named = std::env::var("UNDERVISOR_CHROMIUM").ok();
    let known = ["chromium", "chromium-browser", "google-chrome"].map(String::from);
    let answers = |program: &String| Command::new(program).arg("--version").output().is_ok_and(|o| o.status.success());
    named.into_iter().chain(known).find(answers)
}

#[test]
fn the_report_is_drawn_by_a_browser() {
    let dir = Dir::new("vmx-report");
    let page = dir.path("page.html");
    run(&dir, &["--report", &page]);
    let Some(program) = chromium() else {
        eprintln!("skipped: the_report_is_drawn_by_a_browser: there is no Chromium (see UNDERVISOR_CHROMIUM)");
        return;
    };
    let profile = format!("--user-data-dir={}", dir.path("profile"));
    let options = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", &profile, "--dump-dom"];
    let out = Command::new(program).args(options).arg(format!("file://{page}")).output().unwrap();
    let dom = String::from_utf8_lossy(&out.stdout).into_owned();
    let body = dom.split("</script>").last().unwrap_or_default().to_owned()
        + dom.split_once("<main").map_or("", |(_, rest)| rest.split_once("</main>").map_or("", |(main, _)| main));
    for words in [
        "<h1>pc with kernel</h1>",
        "<td>CPUID</td>",
        "<td>EPT violation</td>",
        "<code>mov eax, [rdi]</code>",
        "<code>GUEST_RFLAGS</code>",
        "exit 33",
        "interrupt 0x41",
        "L3? guest's guest",
        "levels of vCPU 0 over time",
        ">62.5 %</td>",
    ] {
        assert!(body.contains(words), "{words}: {}: {body}", stderr(&out));
    }
    assert!(!body.contains("did not run"));
    assert!(!body.contains("undefined") && !body.contains("NaN"), "{body}");
}
