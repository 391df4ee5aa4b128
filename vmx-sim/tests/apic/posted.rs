//! "Posted-Interrupt Processing".

use vmx_sim::control::{Control, pin};
use vmx_sim::exit::Reason;
use vmx_sim::field::*;

use crate::rig::*;

const IF: u64 = 0x202;
const NOTIFICATION: u8 = 0xf2;
/// Outstanding notification, with vector and destination.
const OUTSTANDING: u64 = 1 | (NOTIFICATION as u64) << 16;

fn rig(processors: u32, guest: Code) -> Rig {
    let controls: Vec<Control> = [&X2APIC[..], &[pin::PROCESS_POSTED_INTERRUPTS]].concat();
    let mut g = Rig::of(processors, &controls, guest);
    g.set_field(POSTED_INTERRUPT_NOTIFICATION_VECTOR, NOTIFICATION.into());
    g
}

/// Vectors are posted.
fn post(g: &mut Rig, vectors: &[u8]) {
    for vector in vectors {
        let at = DESCRIPTOR + u64::from(vector / 64) * 8;
        let word = g.get(at);
        g.put(at, word | 1 << (vector % 64));
    }
    g.put(DESCRIPTOR + 32, OUTSTANDING);
}

#[test]
fn a_notification_brings_what_is_posted() {
    let mut g = rig(1, &|a| a.nop());
    post(&mut g, &[0x45, 0x61, 0xe0]);
    g.set_field(GUEST_RFLAGS, IF);
    assert_eq!(g.enter_after(&|a| self_ipi(a, NOTIFICATION)).0, Reason::Vmcall);
    assert_eq!((g.taken(), g.field(GUEST_INTERRUPT_STATUS)), (vec![0xe0], 0xe061));
    assert!(g.has_vector(0x200, 0x45) && g.has_vector(0x200, 0x61));
    assert_eq!([0, 8, 16, 24, 32].map(|i| g.get(DESCRIPTOR + i)), [0, 0, 0, 0, OUTSTANDING & !1]);
    // The notification itself has been dismissed.
    assert_eq!((g.cpu().apic.pending_vector(), g.cpu().apic.ppr()), (None, 0));
}

#[test]
fn it_is_processed_though_interrupts_are_masked() {
    let mut g = rig(1, &|a| a.nop());
    post(&mut g, &[0x45]);
    assert_eq!(g.enter_after(&|a| self_ipi(a, NOTIFICATION)).0, Reason::Vmcall);
    assert_eq!((g.taken(), g.field(GUEST_INTERRUPT_STATUS)), (vec![], 0x45));
}

#[test]
fn other_vectors_exit() {
    let mut g = rig(1, &|a| a.nop());
    assert_eq!(g.enter_after(&|a| self_ipi(a, 0xf3)).0, Reason::ExternalInterrupt);
    assert_eq!(g.field(EXIT_INTERRUPTION_INFORMATION), 1 << 31 | 0xf3);
}

/// Another processor posts while the guest halts: a vector that it takes, or one that its flag masks.
#[test]
fn a_guest_that_halts_wakes_for_the_interrupt_alone() {
    for flags in [IF, 2] {
        let mut g = rig(2, &|a| a.hlt());
        g.set_field(GUEST_RFLAGS, flags);
        g.assemble(0x3_d000, &|a| {
            use iced_x86::code_asm::*;
            // The other is in its guest by then.
            a.mov(ecx, 5000)?;
            let mut again = a.create_label();
            a.set_label(&mut again)?;
            a.dec(ecx)?;
            a.jnz(again)?;
            a.mov(rax, 1u64 << 0x21)?;
            a.mov(qword_ptr(DESCRIPTOR + 8), rax)?;
            a.mov(dword_ptr(DESCRIPTOR + 32), OUTSTANDING as i32)?;
            write_apic(a, 0xf0, 0x1ff)?;
            write_apic(a, 0x310, 0)?;
            write_apic(a, 0x300, NOTIFICATION.into())?;
            a.hlt()
        });
        g.machine.vcpus[1].core.pc = 0x3_d000;
        g.run_guest(&|a| write_apic(a, 0xf0, 0x1ff));
        assert_eq!(g.get(DESCRIPTOR + 32), OUTSTANDING & !1, "{flags:x}");
        let is_taken = flags == IF;
        assert_eq!(g.vmx().in_guest, !is_taken);
        assert_eq!(g.taken(), if is_taken { vec![0x61] } else { vec![] });
        assert_eq!(g.field(GUEST_INTERRUPT_STATUS), if is_taken { 0x6100 } else { 0x61 });
    }
}
