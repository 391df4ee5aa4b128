//! Far calls and returns, events and IRET, fast system calls.

use iced_x86::code_asm::*;
use x86::control::user_cet;
use x86::registers::{RAX, RBX, RCX, RDX, RSI, SSP};

use crate::machine::*;

const ON: u64 = user_cet::SH_STK_EN;
const WRITES: u64 = ON | user_cet::WR_SHSTK_EN;
/// The token of the kernel's shadow stack.
const TOKEN: u64 = SHADOW_0 + PAGE - 8;

/// "CALL", "RET" of the same level: CS, linear instruction pointer and SSP.
#[test]
fn far_calls_and_returns() {
    let mut g = guest(ON, 0);
    g.run(&|a| {
        let mut f = a.create_label();
        let mut begin = a.create_label();
        a.jmp(begin)?;
        a.set_label(&mut f)?;
        a.rdsspq(rax)?;
        a.mov(rbx, qword_ptr(rax))?;
        a.mov(rcx, qword_ptr(rax + 8))?;
        a.mov(rdx, qword_ptr(rax + 16))?;
        a.db(&[0xcb])?; // RETF of 32 bits
        a.set_label(&mut begin)?;
        far(a, CALL, KERNEL_CS, CODE + 2)?;
        a.mov(rsi, 1u64)?;
        a.hlt()
    });
    assert_eq!((g.raised(), g.reg(RSI)), ((0, 0), 1));
    assert_eq!((g.reg(RAX), g.reg(RBX), g.reg(RDX)), (SHADOW + PAGE - 24, SHADOW + PAGE, KERNEL_CS));
    assert_eq!(
        (g.get(STACK - 8) >> 32 << 32 | g.reg(RCX) & 0xffff_ffff, g.reg(SSP)),
        (8 << 32 | g.reg(RCX), SHADOW + PAGE)
    );
    // Another address, or another SSP than one that could have been.
    let tampered: [(&str, Code); 4] = [
        ("address", &|a| a.inc(dword_ptr(rsp))),
        ("CS", &|a| {
            a.mov(rax, 0x1_0000_0008u64)?;
            a.wrssq(ptr(SHADOW + PAGE - 8), rax)
        }),
        ("SSP", &|a| {
            a.mov(rax, SHADOW + PAGE - 2)?;
            a.wrssq(ptr(SHADOW + PAGE - 24), rax)
        }),
        ("alignment", &|a| {
            a.mov(eax, 1)?;
            a.incsspd(eax)
        }),
    ];
    for (what, tamper) in tampered {
        let mut g = guest(WRITES, 0);
        g.run(&|a| {
            let (mut f, mut begin) = (a.create_label(), a.create_label());
            a.jmp(begin)?;
            a.set_label(&mut f)?;
            tamper(a)?;
            a.db(&[0xcb])?;
            a.set_label(&mut begin)?;
            far(a, CALL, KERNEL_CS, CODE + 2)?;
            a.hlt()
        });
        assert_eq!((g.raised(), g.frame().rsp), ((21, 2), STACK - 8), "{what}");
    }
}

/// A shadow stack beyond 4 GBytes is none for code that is no 64-bit code.
#[test]
fn compatibility_mode_reaches_4_gbytes() {
    for (kind, high, vector) in [(JUMP, true, 13), (CALL, true, 13), (JUMP, false, 6), (CALL, false, 6)] {
        let mut g = guest(ON, 0);
        // The upper half of linear addresses is the lower one again.
        g.put(0x4008, 0x5007);
        let ssp = SHADOW + PAGE + if high { 1 << 39 } else { 0 };
        g.set(SSP, ssp);
        g.assemble(USER - 0x100, &|a| a.ud2());
        g.run(&|a| far(a, kind, COMPATIBILITY_CS, USER - 0x100));
        assert_eq!(g.raised().0, vector, "{kind} {high}");
    }
}

/// "INT n": at the same level a frame on the same shadow stack; IRET pops it.
#[test]
fn events_of_the_same_level() {
    let mut g = guest(ON, 0);
    g.handler(0x80, &|a| {
        a.rdsspq(rax)?;
        a.mov(rbx, qword_ptr(rax))?;
        a.mov(rcx, qword_ptr(rax + 8))?;
        a.mov(rdx, qword_ptr(rax + 16))?;
        a.iretq()
    });
    g.run(&|a| {
        a.int(0x80)?;
        a.rdsspq(rsi)?;
        a.hlt()
    });
    assert_eq!((g.reg(RAX), g.reg(RBX)), (SHADOW + PAGE - 24, SHADOW + PAGE));
    assert_eq!((g.reg(RCX), g.reg(RDX), g.reg(RSI)), (CODE + 2, KERNEL_CS, SHADOW + PAGE));
    // A return to elsewhere.
    let mut g = guest(ON, 0);
    g.handler(0x80, &|a| {
        a.inc(qword_ptr(rsp))?;
        a.iretq()
    });
    assert_eq!(g.run(&|a| a.int(0x80)).raised(), (21, 2));
}

fn with_table(g: &mut Bare, token: u64) {
    g.gate(0x80, 3, 1);
    g.cpu().cet.interrupt_ssp_table = NOTES;
    g.put(NOTES + 8, SHADOW_IST + PAGE - 8);
    g.put(SHADOW_IST + PAGE - 8, token);
}

/// The interrupt SSP table: a gate with an IST takes a shadow stack from there, whose token is busy until IRET.
#[test]
fn events_with_an_interrupt_stack() {
    let token = SHADOW_IST + PAGE - 8;
    let mut g = guest(ON, 0);
    with_table(&mut g, token);
    g.handler(0x80, &|a| {
        a.rdsspq(rax)?;
        a.mov(rbx, qword_ptr(token))?;
        a.mov(rcx, qword_ptr(rax))?;
        a.iretq()
    });
    g.run(&|a| {
        a.mov(ax, TSS_SELECTOR as u32)?;
        a.ltr(ax)?;
        a.int(0x80)?;
        a.rdsspq(rsi)?;
        a.hlt()
    });
    assert_eq!((g.reg(RAX), g.reg(RBX), g.reg(RCX)), (token - 24, token | 1, SHADOW + PAGE));
    assert_eq!((g.reg(RSI), g.get(token)), (SHADOW + PAGE, token));
    // Busy, elsewhere, not aligned, or across 32 bytes: #GP(0), and the token stays.
    for (at, value) in [(token, token | 1), (token, token + 8), (token + 4, token + 4), (token - 8, token - 8)] {
        let mut g = guest(ON, 0);
        with_table(&mut g, token);
        g.put(NOTES + 8, at);
        g.put(at & !7, value);
        g.run(&|a| {
            a.mov(ax, TSS_SELECTOR as u32)?;
            a.ltr(ax)?;
            a.int(0x80)
        });
        assert_eq!((g.raised(), g.get(at & !7)), ((13, 0), value), "{at:#x} {value:#x}");
    }
}

/// APM vol. 2, "Shadow Stacks": a token and the frame behind it may be apart.
#[test]
fn a_token_anywhere() {
    let at = SHADOW_IST + PAGE - 16;
    let mut g = guest_of("amd", ON, 0);
    with_table(&mut g, 0);
    g.put(NOTES + 8, at);
    g.put(at, at);
    g.run(&|a| {
        a.mov(ax, TSS_SELECTOR as u32)?;
        a.ltr(ax)?;
        a.int(0x80)
    });
    assert_eq!((g.raised().0, g.get(at), g.reg(SSP)), (0x80, at | 1, at - 24));
}

/// From user mode: IA32_PL3_SSP has the user's SSP, the shadow stack of IA32_PL0_SSP is taken, without a frame.
#[test]
fn events_from_user_mode() {
    let mut g = guest(ON, ON);
    g.handler(0x80, &|a| {
        a.rdsspq(r8)?;
        a.mov(rbx, qword_ptr(r8))?;
        a.iretq()
    });
    g.run_user(&|a| {
        let mut f = a.create_label();
        a.call(f)?;
        a.set_label(&mut f)?;
        a.int(0x80)?;
        a.rdsspq(rsi)?;
        a.int(0x81)
    });
    assert_eq!((g.reg(8), g.reg(RBX), g.reg(RSI)), (TOKEN, TOKEN | 1, USER_SHADOW + PAGE));
    assert_eq!((g.found().0, g.get(TOKEN)), (0x81, TOKEN | 1));
    // The user alone has one, the kernel alone.
    for (supervisor, user) in [(0, ON), (ON, 0)] {
        let mut g = guest(supervisor, user);
        g.handler(0x80, &|a| a.iretq());
        g.run_user(&|a| {
            a.mov(rsi, 1u64)?;
            a.push(rax)?;
            a.int(0x80)?;
            a.rdsspq(rsi)?;
            a.int(0x81)
        });
        let (ssp, token) = if user != 0 { (USER_SHADOW + PAGE, TOKEN) } else { (1, TOKEN | 1) };
        assert_eq!((g.reg(RSI), g.get(TOKEN), g.cpu().cet.ssp[3]), (ssp, token, USER_SHADOW + PAGE));
    }
    // A busy token: #GP(0) of the delivery, which is one of an event from user mode too: the end is a double fault, on a stack of its own.
    let mut g = guest(ON, ON);
    g.put(TOKEN, TOKEN | 1);
    g.gate(8, 0, 1);
    g.cpu().cet.interrupt_ssp_table = NOTES;
    g.put(NOTES + 8, SHADOW_IST + PAGE - 8);
    g.put(SHADOW_IST + PAGE - 8, SHADOW_IST + PAGE - 8);
    g.run_user(&|a| a.ud2());
    assert_eq!(g.raised(), (8, 0));
}

/// "SYSCALL", "SYSRET": no shadow stack in the kernel but by SETSSBSY; the user's comes from IA32_PL3_SSP.
#[test]
fn fast_system_calls() {
    let mut g = guest(ON, ON);
    g.cpu().cet.ssp[3] = USER_SHADOW + 0x100;
    g.run_user(&|a| a.syscall());
    assert_eq!((g.get(NOTES), g.cpu().cet.ssp[3], g.reg(SSP)), (0, USER_SHADOW + 0x100, 0));
    let mut g = guest(0, ON);
    g.cpu().cet.ssp[3] = USER_SHADOW + 0x100;
    g.run_user(&|a| a.syscall());
    assert_eq!((g.get(NOTES), g.cpu().cet.ssp[3]), (u64::MAX, USER_SHADOW + 0x100));
}

/// "SYSENTER", "SYSEXIT" likewise.
#[test]
fn sysenter_and_sysexit() {
    let mut g = guest(ON, ON);
    g.assemble(USER + 0x100, &|a| {
        a.rdsspq(rsi)?;
        a.sysenter()
    });
    g.assemble(CODE + 0x800, &|a| {
        a.mov(rbx, -1i64)?;
        a.rdsspq(rbx)?;
        a.hlt()
    });
    g.cpu().sysenter_cs = 8;
    g.cpu().sysenter_eip = CODE + 0x800;
    g.cpu().sysenter_esp = STACK;
    g.run(&|a| {
        a.mov(rdx, USER + 0x100)?;
        a.mov(rcx, USER + 0x800)?;
        a.sysexitq()
    });
    assert_eq!((g.raised(), g.reg(RSI), g.reg(RBX)), ((0, 0), USER_SHADOW + PAGE, 0));
    assert_eq!(g.cpu().cet.ssp[3], USER_SHADOW + PAGE);
}

/// A call gate to an inner level, and the far return from there.
#[test]
fn call_gates() {
    let mut g = guest(ON, ON);
    // A gate of DPL 3 at selector 40H.
    let to = CODE + 0x800;
    g.put(GDT + 0x40, to & 0xffff | KERNEL_CS << 16 | 0xec << 40 | (to >> 16) << 48);
    g.put(0x1048, 0);
    g.assemble(to, &|a| {
        a.rdsspq(r8)?;
        a.mov(rbx, qword_ptr(r8))?;
        a.db(&[0x48, 0xcb])
    });
    g.put(USER + 0x700, 0x0043_0000_0000);
    g.run_user(&|a| {
        let at = (USER + 0x700) as u32;
        let [b0, b1, b2, b3] = at.to_le_bytes();
        a.db(&[0xff, 0x1c, 0x25, b0, b1, b2, b3])?;
        a.rdsspq(rsi)?;
        a.int(0x80)
    });
    assert_eq!((g.raised().0, g.reg(8), g.reg(RBX), g.reg(RSI)), (0x80, TOKEN, TOKEN | 1, USER_SHADOW + PAGE));
    // It has been freed, and taken again by INT.
    assert_eq!((g.get(TOKEN), g.cpu().cet.ssp[3]), (TOKEN | 1, USER_SHADOW + PAGE));
}

/// An SMI leaves CET behind and RSM finds it again; SSP is in the state save map, and may be changed there.
#[test]
fn system_management_mode() {
    const SMBASE: u64 = 0x3_0000;
    for (model, at) in [("intel,-ibt", 0xfec8u64), ("amd", 0xff18)] {
        let mut g = guest_of(model, ON, 0);
        // MOV DWORD [at], immediate; RSM: 16-bit code with 32-bit addresses.
        let [place, value] = [SMBASE + at, SHADOW + 0x800].map(|word| (word as u32).to_le_bytes());
        let handler = [&[0x67, 0x66, 0xc7, 0x05][..], &place, &value, &[0x0f, 0xaa]].concat();
        g.machine.world.ram.write(SMBASE + 0x8000, &handler).unwrap();
        g.cpu().pending.smi = true;
        g.machine.vcpus[0].core.check_interrupts = true;
        g.run(&|a| {
            a.rdsspq(rbx)?;
            a.hlt()
        });
        assert_eq!((g.reg(RBX), g.raised()), (SHADOW + 0x800, (0, 0)), "{model}");
    }
}
