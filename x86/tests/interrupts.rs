//! Interrupts that are pending while another is taken.

use iced_x86::code_asm::*;
use x86::control::rflags;
use x86::processor::ProcessorExt;
use x86::registers::RBX;
use x86_bare::{Bare, CODE, HANDLERS, IDT};

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
