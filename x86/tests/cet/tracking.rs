//! "Indirect Branch Tracking".

use emu_core::machine::End;
use iced_x86::code_asm::*;
use x86::control::{rflags, user_cet};
use x86::registers::RDX;

use crate::machine::*;

const ON: u64 = user_cet::ENDBR_EN;
const WAITS: u64 = user_cet::TRACKER;
const TARGET: u64 = CODE + 0x800;

/// What leads to `TARGET`: bytes of an indirect branch through RAX, or memory at `NOTES`.
fn branch(a: &mut CodeAssembler, bytes: &[u8]) -> Result {
    a.mov(rax, TARGET)?;
    a.mov(qword_ptr(NOTES), rax)?;
    a.mov(rbx, NOTES)?;
    a.db(bytes)
}

const JMP_RAX: &[u8] = &[0xff, 0xe0];
const CALL_RAX: &[u8] = &[0xff, 0xd0];
const JMP_MEMORY: &[u8] = &[0xff, 0x23];
const CALL_MEMORY: &[u8] = &[0xff, 0x13];
const NOTRACK_JMP: &[u8] = &[0x3e, 0xff, 0xe0];
const NOTRACK_CALL: &[u8] = &[0x3e, 0xff, 0x13];
const NOTRACK_FS_JMP: &[u8] = &[0x3e, 0x64, 0xff, 0xe0];

/// The state machine: what must lead to an ENDBRANCH, and what need not.
#[test]
fn indirect_branches() {
    let no_track = ON | user_cet::NO_TRACK_EN;
    for (cet, bytes, tracked) in [
        (ON, JMP_RAX, true),
        (ON, CALL_RAX, true),
        (ON, JMP_MEMORY, true),
        (ON, CALL_MEMORY, true),
        (ON, NOTRACK_JMP, true),
        (no_track, NOTRACK_JMP, false),
        (no_track, NOTRACK_CALL, false),
        (no_track, NOTRACK_FS_JMP, true),
        (no_track, JMP_RAX, true),
        (ON | user_cet::SUPPRESS, JMP_RAX, false),
        (0, JMP_RAX, false),
        (user_cet::SH_STK_EN, CALL_RAX, false),
        (BOTH, CALL_RAX, true),
    ] {
        for (endbranch, at) in [(true, 0), (false, 0)] {
            let mut g = guest(cet, 0);
            g.assemble(TARGET, &|a| {
                if endbranch {
                    a.endbr64()?;
                }
                a.ud2()
            });
            g.run(&|a| branch(a, bytes));
            let expected = match (tracked, endbranch) {
                (true, false) => (21, 3, TARGET + at),
                (_, true) => (6, 0, TARGET + 4),
                (false, false) => (6, 0, TARGET),
            };
            assert_eq!(g.found(), expected, "{cet:#x} {bytes:x?} {endbranch}");
        }
    }
    // Direct branches and returns lead anywhere; ENDBR32 is none in 64-bit mode.
    let mut g = guest(ON, 0);
    g.run(&|a| {
        let (mut f, mut done) = (a.create_label(), a.create_label());
        a.call(f)?;
        a.jmp(done)?;
        a.set_label(&mut f)?;
        a.ret()?;
        a.set_label(&mut done)?;
        a.hlt()
    });
    assert_eq!(g.raised(), (0, 0));
    let mut g = guest(ON, 0);
    g.assemble(TARGET, &|a| a.endbr32());
    assert_eq!(g.run(&|a| branch(a, JMP_RAX)).found(), (21, 3, TARGET));
}

/// A fault of the branch itself is not one of its target.
#[test]
fn branches_that_fault() {
    let mut g = guest(ON, 0);
    g.run(&|a| {
        a.mov(rax, 1u64 << 62)?;
        a.jmp(rax)
    });
    assert_eq!((g.raised(), g.cpu().cet.supervisor & WAITS), ((13, 0), 0));
    // #CP before #UD of the target's bytes; a page fault of its fetch before #CP.
    let mut g = guest(ON, 0);
    g.machine.world.ram.write(TARGET, &[0x0f, 0xff]).unwrap();
    assert_eq!(g.run(&|a| branch(a, JMP_RAX)).raised(), (21, 3));
    let mut g = guest(ON, 0);
    g.put(PT + 8 * 0x50, 0);
    g.run(&|a| {
        a.mov(rax, 0x5_0000u64)?;
        a.jmp(rax)
    });
    // The handler's ENDBRANCH has ended the wait.
    assert_eq!(g.found(), (14, 0x10, 0x5_0000));
}

/// Far branches, SYSCALL and events lead to an ENDBRANCH, suppressed or not; returns keep the tracker.
#[test]
fn far_transfers() {
    for (kind, suppress) in [(JUMP, 0), (CALL, 0), (JUMP, user_cet::SUPPRESS)] {
        let mut g = guest(ON | suppress, 0);
        g.assemble(TARGET, &|a| a.ud2());
        assert_eq!(g.run(&|a| far(a, kind, KERNEL_CS, TARGET)).found(), (21, 3, TARGET));
        let mut g = guest(ON | suppress, 0);
        g.assemble(TARGET, &|a| {
            a.endbr64()?;
            a.ud2()
        });
        assert_eq!(g.run(&|a| far(a, kind, KERNEL_CS, TARGET)).found(), (6, 0, TARGET + 4));
        assert_eq!(g.cpu().cet.supervisor & user_cet::SUPPRESS, 0);
    }
    // A handler without one.
    let mut g = guest(ON, 0);
    g.handler(0x80, &|a| a.hlt());
    assert_eq!(g.run(&|a| a.int(0x80)).raised(), (21, 3));
    // Code at SYSCALL's address.
    let mut g = guest(ON, 0);
    g.run_user(&|a| a.syscall());
    assert_eq!(g.raised(), (0, 0));
    let mut g = guest(ON, 0);
    g.run(&|a| {
        write_msr(a, 0xc000_0082, TARGET)?;
        a.syscall()
    });
    assert_eq!(g.found(), (21, 3, TARGET));
}

/// An event between a branch and its target finds the tracker waiting, and IRET leads back to it. The kernel's own tracker is
/// begun anew, the user's stays.
#[test]
fn events_between() {
    for endbranch in [true, false] {
        let mut g = guest(0, ON);
        g.handler(1, &|a| {
            a.mov(ecx, 0x6a0)?;
            a.rdmsr()?;
            a.shl(r8, 1)?;
            a.shr(eax, 11)?;
            a.and(eax, 1)?;
            a.or(r8, rax)?;
            a.iretq()
        });
        g.run_user(&|a| {
            let mut to = a.create_label();
            a.pushfq()?;
            a.or(qword_ptr(rsp), rflags::TF as i32)?;
            a.lea(rbx, ptr(to))?;
            a.popfq()?;
            a.jmp(rbx)?;
            a.set_label(&mut to)?;
            if endbranch {
                a.endbr64()?;
            }
            a.nop()?;
            a.int(0x80)
        });
        // Behind JMP, ENDBR64, NOP; or JMP alone, where the trap comes before #CP.
        let (vector, trackers) = if endbranch { (0x80, 0b100) } else { (21, 0b1) };
        assert_eq!((g.raised().0, g.reg(8)), (vector, trackers));
        assert_eq!(g.cpu().cet.user & WAITS != 0, !endbranch);
    }
}

/// Likewise in the data path, where a branch whose target is known to be an ENDBRANCH does not set the tracker: an NMI at any
/// instruction finds it set between the two, and only there.
#[test]
fn interrupts_at_every_instruction() {
    let mut seen = [0; 2];
    for count in 0..120 {
        let mut g = guest(0, ON);
        g.assemble(USER + 0x400, &|a| {
            a.endbr64()?;
            a.nop()?;
            a.ret()
        });
        // The handler takes its own gate's tracker: the user's is what is looked at.
        g.assemble(USER, &|a| {
            let mut again = a.create_label();
            a.mov(rbx, USER + 0x400)?;
            a.set_label(&mut again)?;
            a.nop()?;
            a.call(rbx)?;
            a.jmp(again)
        });
        g.assemble(CODE, &|a| {
            a.mov(ax, TSS_SELECTOR as u32)?;
            a.ltr(ax)?;
            write_msr(a, 0xc000_0081, 0x0010_0008 << 32)?;
            a.mov(rcx, USER)?;
            a.mov(r11, 2u64)?;
            a.mov(rsp, USER + 0x800)?;
            a.sysretq()
        });
        g.machine.vcpus[0].core.pc = CODE;
        g.machine.run(40 + count);
        g.cpu().pending.nmi = true;
        g.machine.vcpus[0].core.check_interrupts = true;
        assert_eq!(g.go_on(), End::Deadlock);
        let (vector, _, rip) = g.found();
        let waits = g.cpu().cet.user & WAITS != 0;
        assert_eq!((vector, waits), (2, rip == USER + 0x400), "{count}: {rip:#x}");
        seen[usize::from(waits)] += 1;
    }
    assert!(seen.iter().all(|n| *n > 10), "{seen:?}");
}

/// "INT3 Treatment": #BP, though the tracker waits, and goes on waiting.
#[test]
fn breakpoints_at_the_target() {
    let mut g = guest(0, ON);
    g.run_user(&|a| {
        let mut to = a.create_label();
        a.lea(rbx, ptr(to))?;
        a.jmp(rbx)?;
        a.set_label(&mut to)?;
        a.int3()
    });
    assert_eq!((g.raised().0, g.cpu().cet.user & WAITS), (3, WAITS));
}

/// "Legacy Compatibility Treatment": pages of the bitmap need no ENDBRANCH, and suppress tracking if they may.
#[test]
fn legacy_pages() {
    const BITMAP: u64 = 0xb_0000;
    let legacy = ON | user_cet::LEG_IW_EN | BITMAP;
    for (cet, page, raised, left) in [
        (legacy, true, 6, user_cet::SUPPRESS),
        (legacy | user_cet::SUPPRESS_DIS, true, 6, 0),
        (legacy, false, 21, WAITS),
        (ON | BITMAP, true, 21, WAITS),
    ] {
        let mut g = guest(0, cet);
        if page {
            g.put(BITMAP + (USER >> 15), 1 << (USER >> 12 & 7));
        }
        g.put(PT + 8 * (BITMAP >> 12), BITMAP | 5);
        g.run_user(&|a| {
            let mut to = a.create_label();
            a.lea(rbx, ptr(to))?;
            a.jmp(rbx)?;
            a.set_label(&mut to)?;
            a.nop()?;
            a.ud2()
        });
        let state = g.cpu().cet.user & (WAITS | user_cet::SUPPRESS);
        assert_eq!((g.raised().0, state), (raised, left), "{cet:#x} {page}");
    }
    // What is suppressed stays so until an ENDBRANCH.
    let mut g = guest(0, legacy);
    g.put(BITMAP + (USER >> 15), 1 << (USER >> 12 & 7));
    g.run_user(&|a| {
        let (mut one, mut two, mut three) = (a.create_label(), a.create_label(), a.create_label());
        a.lea(rbx, ptr(one))?;
        a.lea(rcx, ptr(two))?;
        a.lea(rdx, ptr(three))?;
        a.jmp(rbx)?;
        a.set_label(&mut one)?;
        a.jmp(rcx)?;
        a.set_label(&mut two)?;
        a.endbr64()?;
        a.mov(rax, BITMAP)?;
        a.mov(qword_ptr(rax + (USER >> 15)), 0)?;
        a.jmp(rdx)?;
        a.set_label(&mut three)?;
        a.ud2()
    });
    assert_eq!((g.raised(), g.found().2), ((21, 3), g.reg(RDX)));
    // The bitmap is read as the program reads.
    let mut g = guest(0, ON | user_cet::LEG_IW_EN | 0x1_0000);
    g.run_user(&|a| {
        a.lea(rbx, ptr(USER + 0x80))?;
        a.jmp(rbx)
    });
    assert_eq!((g.raised(), g.cpu().cet.user & WAITS), ((14, 5), WAITS));
}
