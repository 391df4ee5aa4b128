//! Small guests in 64-bit mode: faults, gates, privilege levels, returns, as the manual tells them.

use emu_core::machine::End;
use iced_x86::code_asm::*;
use x86::control::{cr3, cr4, rflags};
use x86::registers::{RAX, RBX, RCX, RDX, RSP};
use x86::segment::Table;
use x86_bare::*;

const ABSENT: u64 = 0x3_0000;
const READ_ONLY: u64 = 0x3_1000;

fn guest() -> Bare {
    guest_of("intel")
}

fn guest_of(model: &str) -> Bare {
    let page = |at| match at {
        ABSENT => page::ABSENT,
        READ_ONLY => page::USER_READ_ONLY,
        USER.. => page::USER,
        _ => page::SUPERVISOR,
    };
    Bare::build(&Setup { page, ..Setup::of(model) })
}

#[test]
fn a_page_fault_tells_address_and_error() {
    for (at, write, error) in [(ABSENT + 8, false, 0), (ABSENT + 8, true, 2), (READ_ONLY, true, 3)] {
        let mut g = guest();
        g.run(&|a| {
            a.nop()?;
            if write {
                a.mov(qword_ptr(at), rbx)?;
            } else {
                a.mov(rbx, qword_ptr(at))?;
            }
            Ok(())
        });
        assert_eq!((g.found(), g.frame().cr2), ((14, error, CODE + 1), at));
        assert_eq!((g.frame().cs, g.frame().rsp, g.frame().ss), (KERNEL_CS, STACK, 16));
    }
}

#[test]
fn a_handler_repairs_and_returns() {
    let mut g = guest();
    // The handler of #PF maps the page and goes back.
    g.handler(14, &|a| {
        a.mov(eax, (PT + 8 * (ABSENT >> 12)) as u32)?;
        a.mov(qword_ptr(rax), (ABSENT | 3) as i32)?;
        a.add(rsp, 8)?;
        a.iretq()
    });
    g.put(ABSENT, 0x1234_5678_9abc_def0);
    g.run(&|a| {
        a.mov(rbx, qword_ptr(ABSENT))?;
        a.mov(rcx, rbx)?;
        a.hlt()
    });
    assert_eq!((g.reg(RCX), g.reg(RSP)), (0x1234_5678_9abc_def0, STACK));
    // The entries on the way are accessed; nothing is dirty.
    assert_eq!(g.get(PT + 8 * (ABSENT >> 12)) & 0x60, 0x20);
}

/// A breakpoint on data comes behind the access that succeeds: not behind one that faults, nor for what an instruction did before it faulted.
#[test]
fn a_watched_access_in_an_instruction_that_faults() {
    for (watched, is_string, end) in [(ABSENT, false, 34), (ABSENT, true, 28), (NOTES, true, 28)] {
        let mut g = guest();
        g.handler(14, &|a| {
            a.mov(eax, (PT + 8 * (ABSENT >> 12)) as u32)?;
            a.mov(qword_ptr(rax), (ABSENT | 3) as i32)?;
            a.add(rsp, 8)?;
            a.iretq()
        });
        g.run(&|a| {
            a.mov(eax, watched as u32)?;
            a.mov(dr0, rax)?;
            // Eight bytes, reads and writes.
            a.mov(eax, 0x000b_0402u32)?;
            a.mov(dr7, rax)?;
            a.mov(esi, NOTES as u32)?;
            a.mov(edi, ABSENT as u32)?;
            if is_string {
                a.movsq()?
            } else {
                a.mov(qword_ptr(ABSENT), rdx)?
            }
            a.hlt()
        });
        assert_eq!((g.found(), g.cpu().dr6 & 0xf), ((1, 0, CODE + end), 1), "{watched:#x}");
    }
}

#[test]
fn exceptions_of_instructions() {
    let cases: [(Code, u64, u64, u64); 6] = [
        (&|a| a.ud2(), 6, 0, 0),
        (&|a| a.div(rbx), 0, 0, 0),
        (&|a| a.int3(), 3, 0, 1),
        (&|a| a.int(0x80), 0x80, 0, 2),
        (&|a| a.mov(rax, qword_ptr(rdi)), 13, 0, 0),
        (&|a| a.mov(rax, qword_ptr(rbp)), 12, 0, 0),
    ];
    for (build, vector, error, past) in cases {
        let mut g = guest();
        for r in [5, 7] {
            g.machine.vcpus[0].core.regs[r] = 1 << 60; // not canonical
        }
        g.run(build);
        assert_eq!(g.found(), (vector, error, CODE + past));
    }
}

#[test]
fn user_mode_is_kept_out() {
    let cases: [(Code, u64, u64); 6] = [
        (&|a| a.mov(rax, qword_ptr(CODE)), 14, 5),
        (&|a| a.mov(qword_ptr(CODE), rax), 14, 7),
        (&|a| a.cli(), 13, 0),
        (&|a| a.hlt(), 13, 0),
        (&|a| a.mov(rax, cr3), 13, 0),
        (&|a| a.int(0x81), 13, 0x81 * 8 + 2),
    ];
    for (build, vector, error) in cases {
        let mut g = guest();
        g.run_user(build);
        assert_eq!(g.found(), (vector, error, USER));
        assert_eq!((g.frame().cs, g.frame().rsp, g.frame().ss), (USER_CS, USER_STACK, USER_SS));
        // The handler ran on the stack of level 0, whose SS is null.
        assert_eq!(g.reg(RSP), STACK_0);
        assert_eq!(g.cpu().segments[2].selector, 0);
    }
}

#[test]
fn a_gate_of_dpl_3_and_the_way_back() {
    let mut g = guest();
    g.handler(SYSTEM_CALL, &|a| {
        a.mov(rbx, 7u64)?;
        a.iretq()
    });
    g.run_user(&|a| {
        a.int(0x80)?;
        a.mov(rdx, rbx)?;
        a.ud2()
    });
    assert_eq!((g.reg(RDX)), (7));
    assert_eq!(g.found().0, 6);
    assert_eq!(g.frame().cs, USER_CS);
}

#[test]
fn syscall_leaves_where_it_came_from() {
    let mut g = guest();
    g.system_call(&|a| a.hlt());
    g.run_user(&|a| {
        a.stc()?;
        a.syscall()
    });
    let hart = g.cpu();
    assert_eq!((hart.cpl(), hart.segments[1].selector), (0, 8));
    assert_eq!((g.reg(RCX), g.reg(11)), (USER + 3, 3));
}

#[test]
fn an_absent_handler_is_a_double_fault_and_an_absent_one_of_that_is_the_end() {
    let mut g = guest();
    g.no_gate(14);
    g.gate(8, 0, 1);
    let touch: Code = &|a| {
        a.mov(ax, TSS_SELECTOR as u32)?;
        a.ltr(ax)?;
        a.mov(rbx, qword_ptr(ABSENT))
    };
    g.run(touch);
    assert_eq!((g.raised().0, g.raised().1, g.reg(RSP)), (8, 0, STACK_IST));
    let mut g = guest();
    g.no_gate(14);
    g.no_gate(8);
    let end = g.end_of(touch);
    assert!(matches!(end, End::Shutdown(0, _)), "{end:?}");
}

/// EXT, of an exception that a gate has no place for.
#[test]
fn an_exception_is_external_to_the_program_with_intel() {
    for (model, error) in [("intel", 0x33), ("amd", 0x32)] {
        let mut g = guest_of(model);
        g.no_gate(6);
        g.run(&|a| a.ud2());
        assert_eq!(g.raised(), (13, error), "{model}");
    }
}

#[test]
fn smap_and_smep_keep_the_kernel_out_of_user_pages() {
    for (bits, ac, vector, error) in [(cr4::SMAP, false, 14, 1), (cr4::SMAP, true, 6, 0), (cr4::SMEP, false, 14, 0x11)]
    {
        let mut g = guest();
        g.assemble(USER, &|a| a.ud2());
        g.run(&|a| {
            a.mov(rax, cr4)?;
            a.or(rax, bits as i32)?;
            a.mov(cr4, rax)?;
            if ac {
                a.pushfq()?;
                a.or(dword_ptr(rsp), 1 << 18)?;
                a.popfq()?;
            }
            if bits == cr4::SMAP {
                a.mov(rbx, qword_ptr(USER + 8))?;
                a.ud2()?;
            } else {
                a.mov(rax, USER)?;
                a.jmp(rax)?;
            }
            Ok(())
        });
        assert_eq!(g.raised(), (vector, error));
    }
}

#[test]
fn an_interrupt_waits_for_if_and_for_the_instruction_behind_sti() {
    let mut g = guest();
    // Its local APIC is enabled, and sends itself an interrupt.
    let mut h = g.at_work();
    x86::apic::write(&mut h, 0xf0, 4, 0x1ff);
    x86::apic::write(&mut h, 0x300, 4, 1 << 18 | 0x40);
    g.run(&|a| {
        a.mov(rbx, 1u64)?;
        a.sti()?;
        a.inc(rbx)?;
        a.inc(rbx)
    });
    // The instruction behind STI has been done, the next one has not.
    assert_eq!((g.found().0, g.reg(RBX)), (0x40, 2));
    assert_eq!(g.frame().rflags & 1 << 9, 1 << 9, "IF as it was");
    assert_eq!(g.cpu().rflags & 1 << 9, 0, "an interrupt gate clears IF");
}

#[test]
fn a_run_goes_on_from_its_snapshot() {
    let build: Code = &|a| {
        let mut top = a.create_label();
        a.mov(rbx, 5000u64)?;
        a.set_label(&mut top)?;
        a.add(qword_ptr(STACK - 64), rbx)?;
        a.dec(rbx)?;
        a.jne(top)?;
        a.ud2()
    };
    let mut whole = guest();
    whole.run(build);
    let mut first = guest();
    first.code(build);
    // Between DEC and JNE, whose flags are in the snapshot.
    assert_eq!(first.machine.run(3 * 700 + 3), End::Limit);
    let image = first.machine.save();
    let mut second = guest();
    second.machine.restore(&image).unwrap();
    assert_eq!(second.go_on(), End::Deadlock);
    assert_eq!(second.machine.state_hash(), whole.machine.state_hash());
    assert_eq!(second.reg(RAX), whole.reg(RAX));
}

/// Goes to 32-bit code at `USER` by SYSRET, with these flags; SYSCALL from there leads to a handler.
fn to_compatibility_mode(a: &mut CodeAssembler, flags: u64) -> Result {
    write_msr(a, msr::STAR, STAR)?;
    write_msr(a, msr::CSTAR, ENTRY)?;
    write_msr(a, msr::FMASK, rflags::TF)?;
    a.mov(ax, TSS_SELECTOR as u32)?;
    a.ltr(ax)?;
    a.mov(rcx, USER)?;
    a.mov(r11, flags)?;
    a.sysret()
}

/// APM vol. 3, "SYSCALL": compatibility mode has it, by CSTAR. SDM vol. 2B: #UD there.
#[test]
fn syscall_in_compatibility_mode() {
    for model in ["amd", "intel"] {
        let mut g = guest_of(model);
        g.system_call(&|a| a.hlt());
        g.assemble_of(32, USER, &|a| a.syscall());
        g.run(&|a| to_compatibility_mode(a, 3));
        let hart = g.cpu();
        if model == "amd" {
            assert!(hart.is_64() && hart.cpl() == 0);
            assert_eq!((g.frame().vector, g.reg(RCX), g.reg(11)), (0, USER + 2, 3));
        } else {
            assert_eq!((g.found(), g.frame().cs), ((6, 0, USER), 0x13));
        }
    }
}

/// RFLAGS.TF counts as SYSRET and SYSCALL leave it: #DB comes behind SYSRET, and none behind SYSCALL that has masked TF.
#[test]
fn stepping_over_system_calls() {
    let mut g = guest_of("amd");
    g.run(&|a| to_compatibility_mode(a, 2 | rflags::TF));
    assert_eq!((g.found(), g.frame().cs), ((1, 0, USER), 0x13));
    let mut g = guest_of("amd");
    g.system_call(&|a| a.hlt());
    g.assemble_of(32, USER, &|a| {
        a.mov(esp, USER_STACK as u32)?;
        a.pushfd()?;
        a.or(dword_ptr(esp), rflags::TF as i32)?;
        a.popfd()?;
        a.syscall()
    });
    g.run(&|a| to_compatibility_mode(a, 2));
    assert_eq!((g.frame().vector, g.reg(11) & rflags::TF), (0, rflags::TF));
}

/// "Canonical Addressing": LGDT takes as many bits as the processor has, whatever the paging mode is.
#[test]
fn descriptor_tables_as_far_as_the_processor_reaches() {
    for (model, base, vector) in [
        ("intel", 0x0000_7fff_ffff_f000u64, 0),
        ("intel", 0x0000_8000_0000_0000, 13),
        ("intel,+la57", 0x0000_8000_0000_0000, 0),
        ("intel,+la57", 0x0100_0000_0000_0000, 13),
    ] {
        let mut g = guest_of(model);
        g.put(NOTES + 2, base);
        g.run(&|a| {
            a.lgdt(ptr(NOTES))?;
            a.hlt()
        });
        assert_eq!((g.frame().vector), (vector), "{model} {base:#x}");
    }
}

/// "Linear-Address Masking": loads and stores leave metadata out, fetches do not.
#[test]
fn linear_address_masking() {
    const METADATA: u64 = 0x7e00_0000_0000_0000;
    for (bits, vector, loaded) in [(0, 13, 0), (cr3::LAM_U57, 6, 0x55aa), (cr3::LAM_U48, 6, 0x55aa)] {
        let mut g = guest_of("intel,+lam");
        g.put(USER + 0x100, 0x55aa);
        g.run(&|a| {
            a.mov(rax, PML4 | bits)?;
            a.mov(cr3, rax)?;
            a.mov(rax, METADATA | (USER + 0x100))?;
            a.mov(rbx, qword_ptr(rax))?;
            a.ud2()
        });
        assert_eq!((g.frame().vector, g.reg(RBX)), (vector, loaded));
    }
    let mut g = guest_of("intel,+lam");
    g.run(&|a| {
        a.mov(rax, PML4 | cr3::LAM_U57)?;
        a.mov(cr3, rax)?;
        a.mov(rax, METADATA | CODE)?;
        a.jmp(rax)
    });
    assert_eq!(g.frame().vector, 13);
    let mut g = guest_of("intel");
    g.run(&|a| {
        a.mov(rax, PML4 | cr3::LAM_U57)?;
        a.mov(cr3, rax)
    });
    assert_eq!(g.frame().vector, 13, "a reserved bit without the feature");
}

/// A near branch to what is not canonical is #GP(0) of the branch, though the block knows where it leads; one that is not taken goes on.
#[test]
fn branches_to_what_is_not_canonical() {
    // The last page below.
    const LAST: u64 = 0x7fff_ffff_f000;
    type Code = fn(&mut CodeAssembler);
    let cases: [(u64, u64, Code); 5] = [
        (CODE, 10, |a| {
            a.mov(rax, 1u64 << 63).unwrap();
            a.jmp(rax).unwrap();
        }),
        (LAST, 0, |a| a.jmp(LAST + 0x2000).unwrap()),
        (LAST, 0, |a| a.call(LAST + 0x2000).unwrap()),
        (LAST, 3, |a| {
            a.cmp(rax, rax).unwrap();
            a.je(LAST + 0x2000).unwrap();
        }),
        (LAST, 9, |a| {
            a.cmp(rax, rax).unwrap();
            a.jne(LAST + 0x2000).unwrap();
            a.ud2().unwrap();
        }),
    ];
    for (at, fault, code) in cases {
        let mut g = guest();
        for (at, to) in [(PML4 + 8 * 255, PDPT), (PDPT + 8 * 511, PD), (PD + 8 * 511, PT)] {
            g.put(at, to | 7);
        }
        g.put(PT + 8 * 511, CODE | 3);
        let mut a = CodeAssembler::new(64).unwrap();
        code(&mut a);
        let bytes = a.assemble(at).unwrap();
        g.machine.world.ram.write(CODE, &bytes).unwrap();
        let core = &mut g.machine.vcpus[0].core;
        (core.pc, core.regs[usize::from(RSP)]) = (at, STACK);
        assert_eq!(g.machine.run(1000), End::Deadlock);
        let vector = if fault == 9 { 6 } else { 13 };
        assert_eq!((g.found(), g.frame().rsp), ((vector, 0, at + fault), STACK));
    }
}

/// A table that ends where canonical addresses do: what lies beyond is #GP(0), of the delivery that looks there.
#[test]
fn a_descriptor_that_is_not_at_a_canonical_address() {
    let mut g = guest();
    for (at, to) in [(PML4 + 8 * 255, PDPT), (PDPT + 8 * 511, PD), (PD + 8 * 511, PT)] {
        g.put(at, to | 7);
    }
    // Number 1 is the last quadword below.
    g.put(0x1f_fff8, 0x00af_9b00_0000_ffff);
    g.cpu().gdtr = Table { base: 0x7fff_ffff_fff0, limit: 0x37 };
    // The gate of #UD leads to number 2.
    let gate = g.get(IDT + 16 * 6);
    g.put(IDT + 16 * 6, gate & !0xffff_0000 | 16 << 16);
    g.run(&|a| a.ud2());
    assert_eq!(g.raised(), (13, 0));
}
