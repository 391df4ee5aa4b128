//! What tools show of a RISC-V machine and its guest: `undervisor inspect`, statistics, the report. (Of a PC: `vmx/`.)

mod common;

use common::{Dir, Guest, RAM, guest, stderr, undervisor};
use undervisor_conformance::asm::*;

const HGATP: u32 = 0x680;
const VSATP: u32 = 0x280;
const PMPCFG0: u32 = 0x3a0;
const PMPADDR0: u32 = 0x3b0;
/// Roots: of the G-stage, Sv39x4; of the VS-stage, Sv39, in the guest's memory.
const G_ROOT: u64 = RAM + 0x30_0000;
const VS_ROOT: u64 = RAM + 0x40_0000;

/// Both stages map what follows [`RAM`] to itself, by a page of 1 GiB: the guest finds it at 0 to 1 GiB.
fn two_stages(a: &mut Asm) {
    const USER_PAGE: u64 = 0xdf;
    const PAGE: u64 = 0xcf;
    a.store_double(G_ROOT + 8 * 2, RAM >> 2 | USER_PAGE);
    a.store_double(VS_ROOT, RAM >> 2 | PAGE);
    // Supervisors may use all memory.
    for (csr, value) in [(PMPADDR0, u64::MAX), (PMPCFG0, 0x1f)] {
        a.li(T0, value);
        a.csrw(csr, T0);
    }
    for (csr, root) in [(HGATP, G_ROOT), (VSATP, VS_ROOT)] {
        a.li(T0, 8 << 60 | root >> 12);
        a.csrw(csr, T0);
    }
    a.li(A0, 0x1234);
    a.label("forever");
    a.j("forever");
}

#[test]
fn a_hart_and_its_guest() {
    let dir = Dir::new("inspect");
    let (kernel, snap) = (dir.file("kernel", &guest(two_stages)), dir.path("snap"));
    let limits = ["--max-instructions", "2000", "--snapshot-at", "1000", "--snapshot", &snap];
    let out = undervisor(&[&["run", "--firmware", "none", "--kernel", &kernel], &limits[..]].concat());
    assert_eq!(out.status.code(), Some(4), "{}", stderr(&out));
    let inspect = |more: &[&str], words: &[&str]| {
        let out = undervisor(&[&["inspect", &snap], more].concat());
        let text = String::from_utf8_lossy(&out.stdout).into_owned() + &stderr(&out);
        words.iter().for_each(|w| assert!(text.contains(w), "{w}: {text}"));
        out.status.code()
    };
    assert_eq!(
        inspect(&[], &["vCPU 0\n", "Machine mode, V = 0", "a0   0x0000000000001234", "hgatp          0x80000000"]),
        Some(0)
    );
    let both = ["      G level 2", "DA-UXWRV page 0x80000000", "\n  level 2", "DA--XWRV"];
    assert_eq!(inspect(&["--walk", "0x1000", "--as", "gva"], &both), Some(0));
    assert_eq!(inspect(&["--walk", "0x1000", "--as", "gva"], &["physical 0x80001000: RAM:"]), Some(0));
    assert_eq!(inspect(&["--walk", "0x80000000", "--as", "gpa"], &["  G level 2", "page 0x80000000"]), Some(0));
    assert_eq!(inspect(&["--walk", "0", "--as", "gpa"], &["not valid", "ends: guest-page fault"]), Some(0));
    assert_eq!(inspect(&["--walk", "0x40000000", "--as", "gva"], &["not valid", "ends: page fault"]), Some(0));
    assert_eq!(inspect(&["--walk", "0x10000000"], &["physical 0x10000000: ", "offset 0x0"]), Some(0));
    assert_eq!(inspect(&["--vmcs", "0x80000000"], &["a RISC-V machine has none"]), Some(2));
}

/// Enters VS-mode, and comes back by ECALL.
fn a_guest(a: &mut Asm) {
    const MSTATUS: u32 = 0x300;
    const MTVEC: u32 = 0x305;
    const MEPC: u32 = 0x341;
    for (csr, value) in [(PMPADDR0, u64::MAX), (PMPCFG0, 0x1f), (MSTATUS, 1 << 39 | 1 << 11)] {
        a.li(T0, value);
        a.csrw(csr, T0);
    }
    for (csr, label) in [(MTVEC, "exit"), (MEPC, "guest")] {
        a.la(T0, label);
        a.csrw(csr, T0);
    }
    a.mret();
    a.label("guest");
    a.li(A0, 500);
    a.label("count");
    a.addi(A0, A0, -1);
    a.bne(A0, ZERO, "count");
    a.ecall();
    a.label("exit");
    a.addi(S0, S0, 1);
    a.li(T0, 3);
    a.beq(S0, T0, "done");
    a.mret();
    a.label("done");
    a.power_off();
    a.label("forever");
    a.j("forever");
}

#[test]
fn a_harts_levels_and_exits() {
    let dir = Dir::new("levels");
    let (kernel, page, json) = (dir.file("kernel", &guest(a_guest)), dir.path("page.html"), dir.path("json"));
    let reports = ["--report", &page, "--json", &json, "--stats"];
    let out = undervisor(&[&["run", "--firmware", "none", "--kernel", &kernel], &reports[..]].concat());
    assert_eq!(out.status.code(), Some(0), "{}", stderr(&out));
    let levels = &dir.json("json")["levels"]["L2"];
    let reason = levels["exits"].as_object().unwrap().keys().next().unwrap().clone();
    assert_eq!((&levels["exits"][&reason], &levels["mean_handler_instructions"][&reason]), (&3.into(), &3.0.into()));
    let page = std::fs::read_to_string(page).unwrap();
    let data = page.split_once("id=\"data\">").unwrap().1.split_once("</script>").unwrap().0;
    let data: serde_json::Value = serde_json::from_str(data).unwrap();
    let (site, track) = (&data["timeline"]["sites"][0], &data["timeline"]["tracks"][0]);
    assert_eq!((&site["level"], &site["reason"], &site["count"]), (&"L2".into(), &reason.into(), &3.into()));
    let of = |level: usize| {
        track["levels"][level]["at"].as_array().unwrap().iter().map(|n| n.as_u64().unwrap()).sum::<u64>()
    };
    assert!(of(1) > 20 * of(0) && of(0) > 0, "{track}");
    assert_eq!(track["exits"].as_array().unwrap().iter().map(|n| n.as_u64().unwrap()).sum::<u64>(), 3);
}
