//! INVLPGB and TLBSYNC, MCOMMIT: what they ask for, and that a processor's INVLPGB reaches another's translations.

use iced_x86::code_asm::*;
use x86::control::efer;
use x86_bare::*;

const UD: u64 = 6;
const GP: u64 = 13;
/// No exception.
const NONE: u64 = 0;

/// The vector of what INVLPGB comes to with these in RAX, ECX, EDX.
fn raised(model: &str, flags: u64, pages: u64, tags: u64) -> u64 {
    let mut g = Bare::new(model);
    g.run(&|a| {
        a.mov(rax, flags)?;
        a.mov(rcx, pages)?;
        a.mov(rdx, tags)?;
        a.invlpgb()?;
        a.tlbsync()?;
        a.hlt()
    });
    g.raised().0
}

#[test]
fn what_may_be_asked_for() {
    for (model, flags, pages, tags, vector) in [
        ("amd", 0, 0, 0, NONE),
        ("amd", 0x1234_5000 | 0x3f, 0x8000_0007, 0xfff_0000, NONE),
        ("amd", 1, u64::MAX << 32, u64::MAX << 32, NONE),
        ("amd", 1, 8, 0, GP),
        ("amd", 0, 0xffff, 0, GP),
        ("amd", 1 << 6, 0, 0, GP),
        ("amd", 1 << 11, 0, 0, GP),
        ("amd", 0, 1 << 16, 0, GP),
        ("amd", 0, 1 << 30, 0, GP),
        ("amd", 0, 0, 1 << 28, GP),
        ("amd", 4, 0, 1, GP), // this processor has no SVM, and so no ASIDs
        ("amd,-invlpgb_nested", 1 << 5, 0, 0, GP),
        ("amd,-invlpgb", 0, 0, 0, UD),
        ("intel", 0, 0, 0, UD),
    ] {
        assert_eq!(raised(model, flags, pages, tags), vector, "{model}: {flags:#x} {pages:#x} {tags:#x}");
    }
}

#[test]
fn they_are_for_privileged_code_in_protected_mode() {
    for code in [(|a| a.invlpgb()) as fn(&mut CodeAssembler) -> Result, |a| a.tlbsync()] {
        let mut g = Bare::new("amd");
        g.run_user(&|a| code(a));
        assert_eq!(g.raised(), (GP, 0));
        let mut real = Bare::build(&Setup { mode: In::Real, ..Setup::of("amd") });
        assert!(matches!(real.end_of(&|a| a.db(&[0x0f, 0x01, 0xfe])), emu_core::machine::End::Shutdown(..)));
    }
}

/// What the second processor reads from, by a page-table entry that the first one changes.
const PAGE: u64 = 0x10_0000;
const OTHER: u64 = 0x10_1000;
/// Where they wait for each other, and what the second one has read.
const TURN: u64 = NOTES;
const SEEN: u64 = NOTES + 8;

/// Whether the second processor still sees what it has seen, after the first one has changed the entry and executed INVLPGB with these.
fn is_stale(flags: u64, pages: u32, tags: u32) -> bool {
    let mut g = Bare::build(&Setup { processors: 2, turn: 50, ..Setup::of("amd") });
    g.put(PAGE, 1);
    g.put(OTHER, 2);
    g.code(&|a| {
        let (mut second, mut wait, mut wait_2) = (a.create_label(), a.create_label(), a.create_label());
        a.mov(eax, 1)?;
        a.cpuid()?;
        a.shr(ebx, 24)?;
        a.jne(second)?;
        a.set_label(&mut wait)?;
        a.cmp(dword_ptr(TURN), 1)?;
        a.jne(wait)?;
        a.mov(rax, OTHER | page::SUPERVISOR)?;
        a.mov(qword_ptr(PT + PAGE / 512), rax)?;
        a.mov(rax, flags)?;
        a.mov(ecx, pages)?;
        a.mov(edx, tags)?;
        a.invlpgb()?;
        a.tlbsync()?;
        a.mov(dword_ptr(TURN), 2)?;
        a.hlt()?;
        a.set_label(&mut second)?;
        a.mov(r8, qword_ptr(PAGE))?;
        a.mov(dword_ptr(TURN), 1)?;
        a.set_label(&mut wait_2)?;
        a.cmp(dword_ptr(TURN), 2)?;
        a.jne(wait_2)?;
        a.mov(r8, qword_ptr(PAGE))?;
        a.mov(qword_ptr(SEEN), r8)?;
        a.hlt()
    });
    assert_eq!(g.go_on(), emu_core::machine::End::Deadlock);
    assert_eq!(g.raised().0, NONE);
    g.get(SEEN) == 1
}

#[test]
fn it_reaches_other_processors() {
    const VA: u64 = 1;
    const PCID: u64 = 2;
    const ASID: u64 = 4;
    const NESTED: u64 = 32;
    const STRIDE_2M: u32 = 1 << 31;
    for (flags, pages, tags, stale) in [
        (0, 0, 0, false),
        (PAGE | VA, 0, 0, false),
        (OTHER | VA, 0, 0, true),
        ((PAGE - 0x3000) | VA, 2, 0, true),
        ((PAGE - 0x3000) | VA, 3, 0, false),
        (PAGE.wrapping_sub(0x40_0000) | VA, 1 | STRIDE_2M, 0, true),
        (PAGE.wrapping_sub(0x40_0000) | VA, 2 | STRIDE_2M, 0, false),
        (PCID, 0, 0, false),
        (PCID, 0, 5 << 16, true),
        (PAGE | VA | PCID, 0, 5 << 16, true),
        (PAGE | VA | ASID, 0, 0, false),
        (PAGE | VA | ASID | PCID, 0, 0, false),
        (OTHER | VA | ASID | NESTED, 0, 0, false),
    ] {
        assert_eq!(is_stale(flags, pages, tags), stale, "{flags:#x} {pages:#x} {tags:#x}");
    }
}

#[test]
fn cpuid_tells_of_them() {
    let mut g = Bare::new("amd");
    g.run(&|a| {
        a.mov(eax, 0x8000_0008u32)?;
        a.cpuid()?;
        a.hlt()
    });
    assert_eq!((g.reg(3) >> 3 & 1, g.reg(3) >> 8 & 1, g.reg(3) >> 21 & 1, g.reg(2)), (1, 0, 1, 1 << 16 | 7));
}

#[test]
fn mcommit_finds_no_errors() {
    let run = |model: &str, enabled: bool| {
        let mut g = Bare::new(model);
        if enabled {
            g.cpu().efer |= efer::MCOMMIT;
        }
        g.run(&|a| {
            a.stc()?;
            a.mcommit()?;
            a.setb(bl)?;
            a.hlt()
        });
        (g.raised().0, g.reg(3) & 0xff)
    };
    assert_eq!(run("amd,+mcommit", true), (NONE, 0));
    assert_eq!(run("amd,+mcommit", false).0, UD);
    assert_eq!(run("amd", true).0, UD);
}
