//! "IPI Virtualization".

use iced_x86::code_asm::*;
use vmx_sim::control::{Control, tertiary};
use vmx_sim::exit::Reason;
use vmx_sim::field::*;
use x86_bare::write_msr;

use crate::rig::*;

const PIR: u64 = DESCRIPTOR;
const NOTIFICATION: u64 = DESCRIPTOR + 32;
/// Vector F2H to the xAPIC with ID 1.
const TO_1: u64 = 0xf2 << 16 | 1 << 40;

/// A guest whose virtual processor 3 has [`DESCRIPTOR`]; a second processor that counts its interrupts.
fn rig(controls: &[Control], guest: Code) -> Rig {
    let controls = [controls, &[tertiary::IPI_VIRTUALIZATION]].concat();
    let mut g = Rig::of(2, &controls, guest);
    g.put(TABLE + 8 * 3, DESCRIPTOR | 1);
    g.put(NOTIFICATION, TO_1);
    g.set_field(LAST_PID_POINTER_INDEX, 3);
    g.assemble(0x3_d000, &|a| {
        write_apic(a, 0xf0, 0x1ff)?;
        a.sti()?;
        a.hlt()?;
        a.cli()?;
        a.hlt()
    });
    g.machine.vcpus[1].core.pc = 0x3_d000;
    g
}

/// Code that gives the other processor time to be ready.
fn wait(a: &mut CodeAssembler) -> x86_bare::Result {
    a.mov(ecx, 5000)?;
    let mut again = a.create_label();
    a.set_label(&mut again)?;
    a.dec(ecx)?;
    a.jnz(again)
}

#[test]
fn a_vector_is_posted_and_its_processor_notified() {
    let mut g = rig(&X2APIC, &|a| write_msr(a, 0x830, 3 << 32 | 0x45));
    assert_eq!(g.enter_after(&wait).0, Reason::Vmcall);
    assert_eq!(g.get(PIR + 8), 1 << 5);
    assert_eq!(g.get(NOTIFICATION), TO_1 | 1);
    assert_eq!(g.taken(), [0xf2]);
}

#[test]
fn memory_does_the_same() {
    let mut g = rig(&ALL, &|a| {
        a.mov(dword_ptr(ACCESS + 0x310), 3 << 24)?;
        a.mov(dword_ptr(ACCESS + 0x300), 0x45)
    });
    assert_eq!(g.enter_after(&wait).0, Reason::Vmcall);
    assert_eq!((g.get(PIR + 8), g.taken()), (1 << 5, vec![0xf2]));
}

#[test]
fn one_notification_is_enough() {
    for notification in [TO_1 | 1, TO_1 | 2] {
        let mut g = rig(&X2APIC, &|a| write_msr(a, 0x830, 3 << 32 | 0x45));
        g.put(NOTIFICATION, notification);
        assert_eq!(g.enter_after(&wait).0, Reason::Vmcall);
        assert_eq!((g.get(PIR + 8), g.get(NOTIFICATION), g.taken()), (1 << 5, notification, vec![]));
    }
}

#[test]
fn what_cannot_be_virtualized_exits() {
    // The value of the interrupt-command register, and the table's entry.
    let cases = [
        (4 << 32 | 0x45, DESCRIPTOR | 1),
        (3 << 32 | 0x0f, DESCRIPTOR | 1),
        (3 << 32 | 0x45, DESCRIPTOR),
        (3 << 32 | 0x45, DESCRIPTOR | 3),
        (3 << 32 | 0x45, 1 << 51 | 1),
        (3 << 32 | 0x45 | 1 << 11, DESCRIPTOR | 1),
        (3 << 32 | 0x45 | 1 << 8, DESCRIPTOR | 1),
        (3 << 32 | 0x45 | 1 << 15, DESCRIPTOR | 1),
        (3 << 32 | 0x45 | 3 << 18, DESCRIPTOR | 1),
    ];
    for (command, entry) in cases {
        let mut g = rig(&X2APIC, &|a| write_msr(a, 0x830, command));
        g.put(TABLE + 8 * 3, entry);
        assert_eq!(g.enter_after(&wait), (Reason::ApicWrite, 0x300), "{command:x} {entry:x}");
        assert_eq!((g.get(PIR + 8), g.get(VIRTUAL + 0x300)), (0, command));
        assert!(g.taken().is_empty());
    }
}
