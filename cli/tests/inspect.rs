//! `undervisor inspect` of a RISC-V machine: registers, CSRs, walks of both stages. (Of a PC: `vmx/`.)

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
