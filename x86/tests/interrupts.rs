//! What is pending while an interrupt or a trap is taken.

use emu_core::machine::End;
use iced_x86::code_asm::*;
use x86::control::rflags;
use x86::processor::ProcessorExt;
use x86::registers::RBX;
use x86::segment::{Attributes, Segment};
use x86_bare::{Bare, CODE, HANDLERS, IDT, STACK_IST, TSS, TSS_SELECTOR};

/// An NMI whose handler leaves interrupts on, and counts in RBX for ever.
fn machine(model: &str) -> Bare {
    const TRAP_GATE: u64 = 0x8f << 40;
    let mut bare = Bare::new(model);
    bare.put(IDT + 16 * 2, bare.get(IDT + 16 * 2) | TRAP_GATE);
    bare.handler(2, &|a| {
        let mut again = a.create_label();
        a.set_label(&mut again)?;
        a.inc(rbx)?;
        a.jmp(again)
    });
    bare.code(&|a| a.hlt());
    bare
}

/// An NMI comes, and an interrupt too, if `both`.
fn interrupted(bare: &mut Bare, both: bool) {
    bare.machine.vcpus[0].core.pc = CODE;
    bare.set(RBX, 0);
    let mut h = bare.at_work();
    h.set_rflags(2 | rflags::IF);
    if both {
        x86::apic::write(&mut h, 0xf0, 4, 0x1ff);
        x86::apic::write(&mut h, 0x300, 4, 1 << 18 | 0x40);
    }
    h.arch.nmi_blocked = false;
    h.arch.pending.nmi = true;
    h.core.check_interrupts = true;
}

/// The interrupt that is pending behind an NMI comes before the second instruction of its handler, however far the machine is told to run.
#[test]
fn one_behind_the_other() {
    for model in ["amd", "intel"] {
        for limit in [10, 64, 100, 1000, 100_000] {
            let mut bare = machine(model);
            // The handler has been at work before: its blocks lead to each other.
            interrupted(&mut bare, false);
            bare.machine.run(1000);
            interrupted(&mut bare, true);
            bare.machine.run(1000 + limit);
            bare.go_on();
            assert_eq!(bare.found().0, 0x40, "{model}, {limit}");
            assert!(bare.reg(RBX) <= 1, "{model}, {limit}: {}", bare.reg(RBX));
            assert!((HANDLERS + 64..HANDLERS + 96).contains(&bare.found().2));
        }
    }
}

/// The stack of the debug exception's handler has a breakpoint on data: a processor delivers the exception for ever. Its clock goes on.
#[test]
fn debug_exceptions_without_end() {
    const WATCHED: u64 = STACK_IST - 8;
    for model in ["amd", "intel"] {
        let mut bare = Bare::new(model);
        bare.gate(1, 0, 1);
        bare.code(&|a| {
            a.mov(qword_ptr(WATCHED), rax)?;
            a.inc(rbx)?;
            a.hlt()
        });
        let cpu = bare.cpu();
        cpu.tr = Segment { selector: TSS_SELECTOR as u16, base: TSS, limit: 0x67, attributes: Attributes(0x8b) };
        // Stores to 8 bytes.
        (cpu.dr[0], cpu.dr7) = (WATCHED, 0x401 | 1 << 16 | 2 << 18);
        for limit in [10, 1000, 1001, 5000] {
            assert_eq!(bare.machine.run(limit), End::Limit, "{model}");
            assert_eq!(bare.machine.retired(), limit);
        }
        assert_eq!((bare.reg(RBX), bare.found()), (0, (0, 0, 0)), "nobody gets to an instruction");
        // INIT comes all the same.
        bare.cpu().pending.init = true;
        bare.machine.run(5100);
        assert_ne!(bare.cpu().dr7 & 1, 1, "{model}");
    }
}
