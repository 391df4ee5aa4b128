//! "Evaluation and Delivery of Virtual Interrupts".

use emu_core::machine::End;
use iced_x86::code_asm::*;
use vmx_sim::control::primary;
use vmx_sim::exit::Reason;
use vmx_sim::field::*;
use x86_bare::{HANDLERS, write_msr};

use crate::rig::*;

const IF: u64 = 0x202;
const VISR: u64 = 0x100;
const VIRR: u64 = 0x200;

fn eoi(a: &mut CodeAssembler) -> x86_bare::Result {
    write_msr(a, 0x80b, 0)
}

#[test]
fn an_entry_recognizes_what_is_requested() {
    let mut g = Rig::new(&X2APIC, &|a| a.nop());
    g.request(0x45).request(0x61).set_field(GUEST_RFLAGS, IF);
    assert_eq!(g.enter().0, Reason::Vmcall);
    assert_eq!(g.taken(), [0x61]);
    // It is in service, and the other waits behind it.
    assert_eq!(g.field(GUEST_INTERRUPT_STATUS), 0x6145);
    assert_eq!(g.virtual_register(0xa0), 0x60);
    assert!(g.has_vector(VISR, 0x61) && !g.has_vector(VIRR, 0x61) && g.has_vector(VIRR, 0x45));
}

#[test]
fn priorities() {
    // VTPR, what is in service, what is requested, and whether that is taken; VPPR.
    let cases: [(u32, u64, u8, bool, u64); 6] = [
        (0x40, 0, 0x51, true, 0x50),
        (0x50, 0, 0x51, false, 0x50),
        (0x55, 0, 0x5f, false, 0x55),
        (0, 0x51, 0x5f, false, 0x50),
        (0, 0x51, 0x60, true, 0x60),
        (0x57, 0x51, 0x5f, false, 0x57),
    ];
    for (vtpr, svi, rvi, is_taken, vppr) in cases {
        let mut g = Rig::new(&X2APIC, &|a| a.nop());
        g.set_virtual(0x80, vtpr).set_field(GUEST_INTERRUPT_STATUS, svi << 8).set_field(GUEST_RFLAGS, IF);
        g.request(rvi);
        assert_eq!(g.enter().0, Reason::Vmcall);
        assert_eq!(!g.taken().is_empty(), is_taken, "{vtpr:x} {svi:x} {rvi:x}");
        assert_eq!(g.virtual_register(0xa0), vppr, "{vtpr:x} {svi:x} {rvi:x}");
    }
}

#[test]
fn the_flag_and_shadows_hold_it() {
    let mut g = Rig::new(&X2APIC, &|a| {
        a.nop()?;
        a.sti()?;
        a.mov(rbx, qword_ptr(TAKEN))?;
        a.mov(rdx, qword_ptr(TAKEN))
    });
    g.request(0x45);
    assert_eq!(g.enter().0, Reason::Vmcall);
    assert_eq!((g.reg(x86::registers::RBX), g.reg(x86::registers::RDX)), (0, 1));
}

#[test]
fn the_end_of_one_lets_the_next_come() {
    let mut g = Rig::new(&X2APIC, &|a| {
        a.nop()?;
        eoi(a)?;
        eoi(a)
    });
    g.request(0x45).request(0x61).set_field(GUEST_RFLAGS, IF);
    assert_eq!(g.enter().0, Reason::Vmcall);
    assert_eq!(g.taken(), [0x61, 0x45]);
    assert_eq!((g.field(GUEST_INTERRUPT_STATUS), g.virtual_register(0xa0)), (0, 0));
    assert!(!g.has_vector(VISR, 0x61) && !g.has_vector(VISR, 0x45));
}

#[test]
fn the_exit_bitmap_tells_of_the_end() {
    let mut g = Rig::new(&X2APIC, &|a| {
        a.nop()?;
        eoi(a)
    });
    g.request(0x45).request(0x61).set_field(GUEST_RFLAGS, IF).set_field(EOI_EXIT_BITMAP_1, 1 << 0x21);
    assert_eq!(g.enter(), (Reason::VirtualizedEoi, 0x61));
    assert_eq!((g.field(GUEST_RIP), g.field(GUEST_INTERRUPT_STATUS)), (GUEST + 18, 0x45));
    assert_eq!(g.taken(), [0x61]);
    // The next entry looks for what waits.
    assert_eq!(g.enter().0, Reason::Vmcall);
    assert_eq!(g.taken(), [0x61, 0x45]);
}

#[test]
fn a_lower_tpr_lets_it_come() {
    let mut g = Rig::new(&X2APIC, &|a| {
        a.nop()?;
        a.xor(ecx, ecx)?;
        a.mov(cr8, rcx)?;
        a.mov(rbx, qword_ptr(TAKEN))
    });
    g.set_virtual(0x80, 0xf0).request(0x45).set_field(GUEST_RFLAGS, IF);
    assert_eq!(g.enter().0, Reason::Vmcall);
    assert_eq!((g.taken(), g.reg(x86::registers::RBX)), (vec![0x45], 1));
}

#[test]
fn a_self_ipi_comes_at_once() {
    let mut g = Rig::new(&X2APIC, &|a| {
        write_msr(a, 0x83f, 0x77)?;
        a.mov(rbx, qword_ptr(TAKEN))
    });
    g.set_field(GUEST_RFLAGS, IF);
    assert_eq!(g.enter().0, Reason::Vmcall);
    assert_eq!((g.taken(), g.reg(x86::registers::RBX)), (vec![0x77], 1));
}

#[test]
fn memory_does_what_msrs_do() {
    let mut g = Rig::new(&ALL, &|a| {
        a.mov(dword_ptr(ACCESS + 0x300), 0x4_0077)?;
        a.mov(dword_ptr(ACCESS + 0xb0), 0)?;
        a.mov(dword_ptr(ACCESS + 0x300), 0x4_0078)
    });
    g.set_field(GUEST_RFLAGS, IF);
    assert_eq!(g.enter().0, Reason::Vmcall);
    assert_eq!(g.taken(), [0x77, 0x78]);
    assert_eq!(g.field(GUEST_INTERRUPT_STATUS), 0x7800);
}

#[test]
fn windows_are_instead() {
    let mut g = Rig::new(&[&X2APIC[..], &[primary::INTERRUPT_WINDOW_EXITING]].concat(), &|a| a.nop());
    g.request(0x45).set_field(GUEST_RFLAGS, IF);
    assert_eq!(g.enter().0, Reason::InterruptWindow);
    assert_eq!((g.taken(), g.field(GUEST_INTERRUPT_STATUS)), (vec![], 0x45));
}

/// What is injected comes first, and is interrupted before its handler begins if that lets interrupts in: it does not.
#[test]
fn injection_comes_first() {
    let mut g = Rig::new(&X2APIC, &|a| a.nop());
    g.request(0x61).set_field(GUEST_RFLAGS, IF).set_field(ENTRY_INTERRUPTION_INFORMATION, 1 << 31 | 0x30);
    assert_eq!(g.enter().0, Reason::Vmcall);
    assert_eq!(g.taken(), [0x30, 0x61]);
}

#[test]
fn it_wakes_from_hlt() {
    let mut g = Rig::new(&X2APIC, &|a| a.nop());
    g.request(0x61).set_field(GUEST_RFLAGS, IF).set_field(GUEST_ACTIVITY_STATE, 1);
    assert_eq!(g.enter().0, Reason::Vmcall);
    assert_eq!(g.taken(), [0x61]);
    // Not if interrupts are masked.
    let mut g = Rig::new(&X2APIC, &|a| a.nop());
    g.request(0x61).set_field(GUEST_ACTIVITY_STATE, 1);
    assert_eq!(g.run_guest(&|_| Ok(())), End::Deadlock);
    assert!(g.vmx().in_guest && g.taken().is_empty());
}

#[test]
fn its_delivery_can_exit() {
    let mut g = Rig::new(&X2APIC, &|a| a.nop());
    g.no_gate(0x61);
    g.request(0x61).set_field(GUEST_RFLAGS, IF).set_field(EXCEPTION_BITMAP, 1 << 11 | 1 << 13);
    assert_eq!(g.enter().0, Reason::ExceptionOrNmi);
    assert_eq!(g.field(IDT_VECTORING_INFORMATION), 1 << 31 | 0x61);
    assert_eq!(g.field(GUEST_INTERRUPT_STATUS), 0x6100);
}

#[test]
fn the_monitor_trap_flag_follows_its_delivery() {
    let mut g = Rig::new(&[&X2APIC[..], &[primary::MONITOR_TRAP_FLAG]].concat(), &|a| a.nop());
    g.request(0x61).set_field(GUEST_RFLAGS, IF);
    assert_eq!(g.enter().0, Reason::MonitorTrapFlag);
    assert_eq!(g.field(GUEST_RIP), HANDLERS + 32 * 0x61);
}

/// Above it are NMIs, below it are interrupts from outside.
#[test]
fn between_nmis_and_interrupts_from_outside() {
    let mut g = Rig::new(&X2APIC, &|a| a.nop());
    g.request(0x61).set_field(GUEST_RFLAGS, IF).set_nmi();
    assert_eq!(g.enter().0, Reason::Vmcall);
    // The NMI's handler begins with interrupts off.
    assert_eq!(g.taken(), [2, 0x61]);
    let mut g = Rig::new(&X2APIC, &|a| a.nop());
    g.request(0x61).set_field(GUEST_RFLAGS, IF);
    assert_eq!(g.enter_after(&|a| self_ipi(a, 0xf3)).0, Reason::ExternalInterrupt);
    assert_eq!((g.field(GUEST_RIP), g.field(GUEST_INTERRUPT_STATUS)), (HANDLERS + 32 * 0x61, 0x6100));
}

/// A snapshot after each instruction changes nothing: what waits to be emulated, or delivered, is in it.
#[test]
fn snapshots_hold_it() {
    let code: Code = &|a| {
        a.cli()?;
        a.mov(dword_ptr(ACCESS + 0x300), 0x4_0077)?;
        a.nop()?;
        a.sti()?;
        a.nop()?;
        a.mov(dword_ptr(ACCESS + 0x320), 1)
    };
    let mut whole = Rig::new(&ALL, code);
    assert_eq!(whole.enter(), (Reason::ApicWrite, 0x320));
    let mut g = Rig::new(&ALL, code);
    g.code(&|a| {
        a.vmlaunch()?;
        a.hlt()
    });
    for instructions in 1..100 {
        g.machine.run(instructions);
        let image = g.machine.save();
        g.machine.restore(&image).unwrap();
    }
    assert!(g.machine.is_waiting(0));
    assert_eq!(g.taken(), [0x77]);
    assert_eq!(g.vmx().vmcs, whole.vmx().vmcs);
}
