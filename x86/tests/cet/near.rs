//! Near calls and returns, and the instructions that manage shadow stacks.

use iced_x86::code_asm::*;
use x86::control::user_cet;
use x86::registers::{RAX, RBX, RCX, RDX, RSP, SSP};

use crate::machine::*;

const ON: u64 = user_cet::SH_STK_EN;
const WRITES: u64 = ON | user_cet::WR_SHSTK_EN;

/// "CALL", "RET", "RDSSPD/RDSSPQ": both stacks have the return address; a call of the next instruction is none.
#[test]
fn calls_and_returns() {
    for model in ["intel", "intel,-ibt", "amd"] {
        let mut g = guest_of(model, ON, 0);
        g.run(&|a| {
            let (mut f, mut next, mut done) = (a.create_label(), a.create_label(), a.create_label());
            a.call(f)?;
            a.call(next)?;
            a.set_label(&mut next)?;
            a.rdsspq(rcx)?;
            a.jmp(done)?;
            a.set_label(&mut f)?;
            a.rdsspq(rax)?;
            a.mov(rbx, qword_ptr(rax))?;
            a.mov(rdx, qword_ptr(rsp))?;
            a.ret()?;
            a.set_label(&mut done)?;
            a.hlt()
        });
        assert_eq!((g.reg(RAX), g.reg(RBX), g.reg(RDX)), (SHADOW + PAGE - 8, CODE + 5, CODE + 5), "{model}");
        assert_eq!((g.reg(RCX), g.reg(SSP), g.reg(RSP)), (SHADOW + PAGE, SHADOW + PAGE, STACK - 8));
    }
}

/// Without a shadow stack RDSSP does nothing, and the others are #UD.
#[test]
fn without_a_shadow_stack() {
    let mut g = guest(0, ON);
    g.run(&|a| {
        a.mov(rax, 5u64)?;
        a.rdsspq(rax)?;
        a.hlt()
    });
    assert_eq!(g.reg(RAX), 5);
    let instructions: [(&str, Code); 6] = [
        ("incssp", &|a| a.incsspq(rax)),
        ("saveprevssp", &|a| a.saveprevssp()),
        ("rstorssp", &|a| a.rstorssp(qword_ptr(SHADOW))),
        ("wrss", &|a| a.wrssq(ptr(SHADOW), rax)),
        ("setssbsy", &|a| a.setssbsy()),
        ("clrssbsy", &|a| a.clrssbsy(qword_ptr(SHADOW))),
    ];
    for (name, instruction) in instructions {
        let mut g = guest(0, ON);
        assert_eq!(g.run(instruction).found(), (6, 0, CODE), "{name}");
    }
    // WRUSS asks for CR4.CET alone, but a processor without shadow stacks has none.
    for (model, vector) in [("intel,-ibt", 0), ("intel,-shstk", 6)] {
        let mut g = guest_of(model, 0, 0);
        g.run(&|a| {
            a.wrussq(ptr(USER_SHADOW), rax)?;
            a.hlt()
        });
        assert_eq!(g.raised().0, vector, "{model}");
    }
}

/// A return address that has changed: #CP(NEAR-RET), with both stacks as they were.
#[test]
fn a_return_address_that_was_tampered_with() {
    let tampered: [Code; 2] = [&|a| a.ret(), &|a| a.ret_1(16)];
    for ret in tampered {
        let mut g = guest(ON, 0);
        g.run(&|a| {
            let mut f = a.create_label();
            a.call(f)?;
            a.nop()?;
            a.set_label(&mut f)?;
            a.inc(qword_ptr(rsp))?;
            ret(a)
        });
        assert_eq!((g.found(), g.frame().rsp), ((21, 1, CODE + 10), STACK - 8));
        // The frame of #CP is above the return address.
        assert_eq!(g.reg(SSP), SHADOW + PAGE - 8 - 24);
    }
    // Where it leads does not matter then.
    let mut g = guest(ON, 0);
    g.run(&|a| {
        let mut f = a.create_label();
        a.call(f)?;
        a.set_label(&mut f)?;
        a.ud2()
    });
    let mut g2 = guest(ON, 0);
    g2.run(&|a| {
        a.mov(rax, 1u64 << 63)?;
        a.push(rax)?;
        a.ret()
    });
    assert_eq!((g.raised().0, g2.raised()), (6, (21, 1)));
}

/// A jump to an address that is not canonical: CALL and RET leave both stacks alone.
#[test]
fn targets_that_are_not_canonical() {
    let mut g = guest(WRITES, 0);
    g.run(&|a| {
        a.mov(rax, 1u64 << 62)?;
        a.call(rax)
    });
    assert_eq!((g.raised(), g.frame().rsp, g.reg(SSP)), ((13, 0), STACK, SHADOW + PAGE - 24));
    let mut g = guest(WRITES, 0);
    g.set(SSP, SHADOW + PAGE - 8);
    g.run(&|a| {
        a.mov(rax, 1u64 << 62)?;
        a.push(rax)?;
        a.wrssq(ptr(SHADOW + PAGE - 8), rax)?;
        a.ret()
    });
    assert_eq!((g.raised(), g.frame().rsp, g.reg(SSP)), ((13, 0), STACK - 8, SHADOW + PAGE - 32));
}

/// "Shadow-Stack Accesses": stores of other instructions, and shadow stacks on other pages; error code bit 6.
#[test]
fn pages() {
    let mut g = guest(ON, 0);
    g.run(&|a| a.mov(qword_ptr(SHADOW + 8), rax));
    assert_eq!(g.raised(), (14, 3));
    // A call on a page that is none, by a privilege level that it is not for.
    for (at, error) in [(0xc000u64, 0x43), (USER_SHADOW + PAGE, 0x43)] {
        let mut g = guest(ON, 0);
        // The handler's frame needs a shadow stack too.
        g.gate(14, 0, 1);
        g.put(NOTES + 8, SHADOW_IST + PAGE - 8);
        g.put(SHADOW_IST + PAGE - 8, SHADOW_IST + PAGE - 8);
        g.cpu().cet.interrupt_ssp_table = NOTES;
        g.set(SSP, at);
        g.run(&|a| {
            a.mov(cx, TSS_SELECTOR as u32)?;
            a.ltr(cx)?;
            a.call(CODE)
        });
        assert_eq!((g.raised(), g.frame().rsp), ((14, error), STACK), "{at:#x}");
        assert_eq!(g.cpu().cr2, at - 8);
    }
    let mut g = guest(0, ON);
    g.cpu().cet.ssp[3] = USER + 0x800;
    g.run_user(&|a| a.call(USER));
    assert_eq!(g.raised(), (14, 0x47));
    let mut g = guest(0, ON);
    g.run_user(&|a| a.mov(qword_ptr(USER_SHADOW + 8), rax));
    assert_eq!(g.raised(), (14, 7));
    let mut g = guest(ON, 0);
    g.cpu().cet.ssp[0] = 0;
    g.set(SSP, 1 << 63);
    g.gate(13, 0, 1);
    g.put(NOTES + 8, SHADOW_IST + PAGE - 8);
    g.put(SHADOW_IST + PAGE - 8, SHADOW_IST + PAGE - 8);
    g.cpu().cet.interrupt_ssp_table = NOTES;
    g.run(&|a| {
        a.mov(cx, TSS_SELECTOR as u32)?;
        a.ltr(cx)?;
        a.call(CODE)
    });
    assert_eq!(g.raised(), (13, 0), "a shadow stack that is not at a canonical address is no #SS");
}

/// "INCSSPD/INCSSPQ".
#[test]
fn popping() {
    for (count, by) in [(3u64, 24), (0, 0), (0x102, 16)] {
        let mut g = guest(ON, 0);
        g.set(SSP, SHADOW + 0x100);
        g.run(&|a| {
            a.mov(rax, count)?;
            a.incsspq(rax)?;
            a.hlt()
        });
        assert_eq!(g.reg(SSP), SHADOW + 0x100 + by);
    }
    let mut g = guest(ON, 0);
    g.set(SSP, SHADOW + 0x100);
    g.run(&|a| {
        a.mov(eax, 3)?;
        a.incsspd(eax)?;
        a.rdsspd(ebx)?;
        a.hlt()
    });
    assert_eq!((g.reg(SSP), g.reg(RBX)), (SHADOW + 0x10c, SHADOW + 0x10c));
    // The last entry is looked at, and not one behind it.
    for (at, vector) in [(USER_SHADOW - 16, 0), (USER_SHADOW - 8, 14)] {
        let mut g = guest(ON, 0);
        g.set(SSP, at);
        g.run(&|a| {
            a.mov(eax, 2)?;
            a.incsspq(rax)?;
            a.hlt()
        });
        assert_eq!(g.raised().0, vector);
    }
}

/// "Switching Shadow Stacks": RSTORSSP goes to a restore token and makes it a previous-ssp token, SAVEPREVSSP leaves a restore token behind.
#[test]
fn switching() {
    let token = USER_SHADOW_2 + PAGE - 8;
    let mut g = guest(0, WRITES);
    g.put(token, (USER_SHADOW_2 + PAGE) | 1);
    g.run_user(&|a| {
        a.rstorssp(qword_ptr(token))?;
        a.setc(bl)?;
        a.rdsspq(rcx)?;
        a.mov(rdx, qword_ptr(rcx))?;
        a.saveprevssp()?;
        a.rdsspq(rsi)?;
        a.int(0x80)
    });
    assert_eq!(g.reg(RCX), token);
    assert_eq!(g.reg(RDX), (USER_SHADOW + PAGE) | 3, "the previous-ssp token");
    assert_eq!((g.reg(RBX) & 0xff, g.reg(6)), (0, USER_SHADOW_2 + PAGE));
    assert_eq!(g.get(USER_SHADOW + PAGE - 8), (USER_SHADOW + PAGE) | 1, "the restore token");
    // Tokens that are none: of another mode, reserved bit, not here; they stay.
    for bad in [USER_SHADOW_2 + PAGE, (USER_SHADOW_2 + PAGE) | 3, (USER_SHADOW_2 + PAGE + 8) | 1, 0] {
        let mut g = guest(0, ON);
        g.put(token, bad);
        g.run_user(&|a| a.rstorssp(qword_ptr(token)));
        assert_eq!((g.found(), g.get(token)), ((21, 4, USER), bad), "{bad:#x}");
    }
    // SSP may be 4 below in a restore token: a hole, of which CF tells, and which 64-bit code cannot pop.
    let mut g = guest(0, ON);
    g.put(token, (USER_SHADOW_2 + PAGE - 4 + 8) | 1);
    g.run_user(&|a| {
        a.rstorssp(qword_ptr(token))?;
        a.setc(bl)?;
        a.saveprevssp()
    });
    assert_eq!((g.reg(RBX) & 0xff, g.raised()), (1, (13, 0)));
    // Alignment; a page that is none.
    for (at, raised) in [(token + 4, (13, 0)), (USER + 0x100, (14, 0x47))] {
        let mut g = guest(0, ON);
        g.run_user(&|a| a.rstorssp(qword_ptr(at)));
        assert_eq!(g.raised(), raised);
    }
    // No previous-ssp token is on top.
    let mut g = guest(0, ON);
    g.cpu().cet.ssp[3] = USER_SHADOW + 8;
    g.run_user(&|a| a.saveprevssp());
    assert_eq!(g.raised(), (13, 0));
}

/// "WRSSD/WRSSQ", "WRUSSD/WRUSSQ".
#[test]
fn writing() {
    let mut g = guest(WRITES, WRITES);
    g.run(&|a| {
        a.mov(rax, 0x1122_3344_5566_7788u64)?;
        a.wrssq(ptr(SHADOW + 8), rax)?;
        a.wrssd(ptr(SHADOW + 4), eax)?;
        a.wrussq(ptr(USER_SHADOW + 8), rax)?;
        a.wrussd(ptr(USER_SHADOW + 4), eax)?;
        a.hlt()
    });
    for page in [SHADOW, USER_SHADOW] {
        assert_eq!((g.get(page), g.get(page + 8)), (0x5566_7788 << 32, 0x1122_3344_5566_7788));
    }
    let cases: [(u64, Code, (u64, u64)); 8] = [
        (ON, &|a| a.wrssq(ptr(SHADOW), rax), (6, 0)),
        (WRITES, &|a| a.wrssq(ptr(SHADOW + 4), rax), (13, 0)),
        (WRITES, &|a| a.wrssd(ptr(SHADOW + 2), eax), (13, 0)),
        (WRITES, &|a| a.wrussq(ptr(USER_SHADOW + 4), rax), (13, 0)),
        (WRITES, &|a| a.wrssq(ptr(STACK - 0x100), rax), (14, 0x43)),
        (WRITES, &|a| a.wrssq(ptr(USER_SHADOW), rax), (14, 0x43)),
        // WRUSS is a user-mode access.
        (WRITES, &|a| a.wrussq(ptr(SHADOW), rax), (14, 0x47)),
        (WRITES, &|a| a.wrussq(ptr(USER + 0x100), rax), (14, 0x47)),
    ];
    for (i, (supervisor, instruction, raised)) in cases.into_iter().enumerate() {
        let mut g = guest(supervisor, WRITES);
        assert_eq!(g.run(instruction).raised(), raised, "{i}");
    }
    let cases: [(u64, Code, (u64, u64)); 3] = [
        (ON, &|a| a.wrssq(ptr(USER_SHADOW), rax), (6, 0)),
        (WRITES, &|a| a.wrssq(ptr(SHADOW), rax), (14, 0x47)),
        (WRITES, &|a| a.wrussq(ptr(USER_SHADOW), rax), (13, 0)),
    ];
    for (user, instruction, raised) in cases {
        let mut g = guest(0, user);
        assert_eq!(g.run_user(instruction).raised(), raised);
    }
}

/// "SETSSBSY", "CLRSSBSY".
#[test]
fn busy_tokens() {
    let token = SHADOW_0 + PAGE - 8;
    let mut g = guest(ON, 0);
    g.set(SSP, 0);
    g.run(&|a| {
        a.setssbsy()?;
        a.rdsspq(rax)?;
        a.mov(rbx, qword_ptr(token))?;
        a.clrssbsy(qword_ptr(token))?;
        a.setc(cl)?;
        a.rdsspq(rdx)?;
        a.clrssbsy(qword_ptr(token))?;
        a.setc(ch)?;
        a.hlt()
    });
    assert_eq!((g.reg(RAX), g.reg(RBX), g.reg(RDX)), (token, token | 1, 0));
    assert_eq!((g.reg(RCX) & 0xffff, g.get(token)), (0x100, token));
    for (value, pointer, raised) in
        [(token | 1, token, (21, 5)), (token + 8, token, (21, 5)), (0, token + 4, (13, 0)), (0, STACK - 8, (14, 0x43))]
    {
        let mut g = guest(ON, 0);
        g.put(token, value);
        g.cpu().cet.ssp[0] = pointer;
        g.run(&|a| a.setssbsy());
        assert_eq!((g.raised(), g.get(token)), (raised, value));
    }
    for instruction in
        [&|a: &mut CodeAssembler| a.setssbsy(), (&|a: &mut CodeAssembler| a.clrssbsy(qword_ptr(SHADOW))) as Code]
    {
        let mut g = guest(ON, ON);
        assert_eq!(g.run_user(instruction).raised(), (13, 0));
    }
}
