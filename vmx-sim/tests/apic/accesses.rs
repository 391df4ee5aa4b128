//! "Virtualizing Memory-Mapped APIC Accesses".

use iced_x86::code_asm::*;
use vmx_sim::control::{Control, primary, secondary};
use vmx_sim::exit::Reason;
use vmx_sim::field::*;
use x86_bare::{NOTES, PT};

use crate::rig::*;

const PAGE: i32 = ACCESS as i32;
const NONE: &[Control] = &[secondary::VIRTUALIZE_APIC_ACCESSES];
const SHADOW: &[Control] = &[primary::USE_TPR_SHADOW, secondary::VIRTUALIZE_APIC_ACCESSES];
const REGISTERS: &[Control] =
    &[primary::USE_TPR_SHADOW, secondary::VIRTUALIZE_APIC_ACCESSES, secondary::APIC_REGISTER_VIRTUALIZATION];

/// Without EPT and with it.
fn both(controls: &[Control]) -> [Vec<Control>; 2] {
    [controls.to_vec(), [controls, &[secondary::ENABLE_EPT]].concat()]
}

/// What an instruction at the guest's first address comes to.
fn outcome(controls: &[Control], code: Code) -> (Reason, u64) {
    let mut g = Rig::new(controls, code);
    let exit = g.enter();
    if exit.0 == Reason::ApicAccess {
        assert_eq!(g.field(GUEST_RIP), GUEST);
        assert_ne!(g.field(EXIT_INSTRUCTION_LENGTH), 0);
    }
    exit
}

#[test]
fn reads() {
    type Case = (&'static [Control], Code<'static>, Option<u64>);
    let cases: &[Case] = &[
        (NONE, &|a| a.mov(eax, dword_ptr(PAGE + 0x80)), Some(0x080)),
        (SHADOW, &|a| a.mov(eax, dword_ptr(PAGE + 0x80)), None),
        (SHADOW, &|a| a.mov(al, byte_ptr(PAGE + 0x80)), None),
        (SHADOW, &|a| a.mov(al, byte_ptr(PAGE + 0x81)), Some(0x081)),
        (SHADOW, &|a| a.mov(rax, qword_ptr(PAGE + 0x80)), Some(0x080)),
        (SHADOW, &|a| a.mov(eax, dword_ptr(PAGE + 0x20)), Some(0x020)),
        (REGISTERS, &|a| a.mov(eax, dword_ptr(PAGE + 0x20)), None),
        (REGISTERS, &|a| a.mov(ax, word_ptr(PAGE + 0x22)), None),
        (REGISTERS, &|a| a.mov(ax, word_ptr(PAGE + 0x23)), Some(0x023)),
        (REGISTERS, &|a| a.mov(eax, dword_ptr(PAGE + 0x24)), Some(0x024)),
        (REGISTERS, &|a| a.mov(eax, dword_ptr(PAGE + 0x22)), Some(0x022)),
        (REGISTERS, &|a| a.mov(eax, dword_ptr(PAGE + 0x1f0)), None),
        (REGISTERS, &|a| a.mov(eax, dword_ptr(PAGE + 0xa0)), Some(0x0a0)),
        (REGISTERS, &|a| a.mov(eax, dword_ptr(PAGE + 0x390)), Some(0x390)),
        // Half of it is in the page before, half in the page.
        (REGISTERS, &|a| a.mov(eax, dword_ptr(PAGE - 2)), Some(0)),
        (REGISTERS, &|a| a.movups(xmm0, xmmword_ptr(PAGE + 0x80)), Some(0x080)),
        (NONE, &|a| a.cmp(dword_ptr(PAGE + 0xffc), 0), Some(0xffc)),
    ];
    for (i, (controls, code, qualification)) in cases.iter().enumerate() {
        for controls in both(controls) {
            let expected = qualification.map_or((Reason::Vmcall, 0), |q| (Reason::ApicAccess, q));
            assert_eq!(outcome(&controls, *code), expected, "{i} {}", controls.len());
        }
    }
}

#[test]
fn a_read_is_of_the_virtual_page() {
    for controls in both(REGISTERS) {
        let mut g = Rig::new(&controls, &|a| {
            a.mov(eax, dword_ptr(PAGE + 0x30))?;
            a.mov(qword_ptr(NOTES), rax)
        });
        g.put(ACCESS + 0x30, 0x1111_1111);
        g.set_virtual(0x30, 0x1234_5678);
        assert_eq!(g.enter().0, Reason::Vmcall);
        assert_eq!(g.get(NOTES), 0x1234_5678);
    }
}

#[test]
fn writes() {
    const DELIVERY: &[Control] =
        &[primary::USE_TPR_SHADOW, secondary::VIRTUALIZE_APIC_ACCESSES, secondary::VIRTUAL_INTERRUPT_DELIVERY];
    const WRITE: u64 = 1 << 12;
    let access = |offset: u64| (Reason::ApicAccess, WRITE | offset);
    let done = (Reason::Vmcall, 0);
    let behind = |offset: u64| (Reason::ApicWrite, offset);
    type Case = (&'static [Control], Code<'static>, (Reason, u64));
    let cases: &[Case] = &[
        (NONE, &|a| a.mov(dword_ptr(PAGE + 0x80), eax), access(0x080)),
        (SHADOW, &|a| a.mov(dword_ptr(PAGE + 0x80), eax), done),
        (SHADOW, &|a| a.mov(byte_ptr(PAGE + 0x81), al), access(0x081)),
        (SHADOW, &|a| a.mov(qword_ptr(PAGE + 0x80), rax), access(0x080)),
        (SHADOW, &|a| a.mov(dword_ptr(PAGE + 0xb0), eax), access(0x0b0)),
        (DELIVERY, &|a| a.mov(dword_ptr(PAGE + 0xb0), eax), done),
        (DELIVERY, &|a| a.mov(dword_ptr(PAGE + 0x310), eax), access(0x310)),
        (DELIVERY, &|a| a.mov(dword_ptr(PAGE + 0x300), eax), behind(0x300)),
        (REGISTERS, &|a| a.mov(dword_ptr(PAGE + 0xb0), eax), behind(0x0b0)),
        (REGISTERS, &|a| a.mov(dword_ptr(PAGE + 0x310), eax), done),
        (REGISTERS, &|a| a.mov(byte_ptr(PAGE + 0x311), al), done),
        (REGISTERS, &|a| a.mov(byte_ptr(PAGE + 0xf1), al), behind(0x0f1)),
        (REGISTERS, &|a| a.mov(dword_ptr(PAGE + 0x30), eax), access(0x030)),
        (REGISTERS, &|a| a.mov(dword_ptr(PAGE + 0x100), eax), access(0x100)),
        (REGISTERS, &|a| a.or(dword_ptr(PAGE + 0xf0), 1), behind(0x0f0)),
        (REGISTERS, &|a| a.xchg(dword_ptr(PAGE + 0xf0), eax), behind(0x0f0)),
        (REGISTERS, &|a| a.lock().or(dword_ptr(PAGE + 0xf0), 1), behind(0x0f0)),
        // What it reads first cannot be virtualized.
        (DELIVERY, &|a| a.or(dword_ptr(PAGE + 0x300), 1), (Reason::ApicAccess, 0x300)),
    ];
    for (i, (controls, code, expected)) in cases.iter().enumerate() {
        for controls in both(controls) {
            assert_eq!(outcome(&controls, *code), *expected, "{i} {}", controls.len());
        }
    }
}

#[test]
fn a_write_is_to_the_virtual_page_and_the_rest_is_cleared() {
    let mut g = Rig::new(REGISTERS, &|a| {
        a.mov(dword_ptr(PAGE + 0x80), 0x1234_5678)?;
        a.mov(dword_ptr(PAGE + 0x310), -1)?;
        a.mov(dword_ptr(PAGE + 0x320), 0x55)
    });
    assert_eq!(g.enter(), (Reason::ApicWrite, 0x320));
    assert_eq!(g.field(GUEST_RIP), GUEST + 33);
    let registers = [0x80, 0x310, 0x320].map(|r| g.virtual_register(r));
    assert_eq!(registers, [0x78, 0xff00_0000, 0x55]);
    assert_eq!(g.get(ACCESS + 0x80), 0);
    assert_eq!(g.enter().0, Reason::Vmcall);
}

#[test]
fn string_instructions_write_one_element_at_a_time() {
    let mut g = Rig::new(REGISTERS, &|a| {
        a.mov(edi, PAGE + 0x0f0)?;
        a.mov(ecx, 2)?;
        a.mov(eax, 7)?;
        a.rep().stosd()
    });
    assert_eq!(g.enter(), (Reason::ApicWrite, 0x0f0));
    assert_eq!((g.reg(x86::registers::RCX), g.field(GUEST_RIP)), (1, GUEST + 15));
    assert_eq!(g.enter(), (Reason::ApicAccess, 1 << 12 | 0x0f4));
}

#[test]
fn fetches_always_exit() {
    for controls in both(REGISTERS) {
        let mut g = Rig::new(&controls, &|a| a.jmp(ACCESS + 0x80));
        assert_eq!(g.enter(), (Reason::ApicAccess, 2 << 12 | 0x080));
        assert_eq!(g.field(GUEST_RIP), ACCESS + 0x80);
    }
}

#[test]
fn the_delivery_of_an_event_has_a_type_of_its_own() {
    for controls in both(REGISTERS) {
        let mut g = Rig::new(&controls, &|a| {
            a.mov(esp, PAGE + 0x100)?;
            a.int(0x40)
        });
        let (reason, qualification) = g.enter();
        assert_eq!((reason, qualification >> 12), (Reason::ApicAccess, 3));
        assert_eq!(g.field(IDT_VECTORING_INFORMATION), 1 << 31 | 4 << 8 | 0x40);
        assert_eq!((g.field(EXIT_INSTRUCTION_LENGTH), g.field(GUEST_RIP)), (2, GUEST + 5));
    }
}

#[test]
fn paging_structures_there_are_guest_physical_accesses() {
    let ept = [REGISTERS, &[secondary::ENABLE_EPT]].concat();
    let mut g = Rig::new(&ept, &|a| a.nop());
    g.set_field(APIC_ACCESS_ADDRESS, PT);
    assert_eq!(g.enter(), (Reason::ApicAccess, 15 << 12));
    // Without EPT they are physical accesses, which go to memory.
    let mut g = Rig::new(REGISTERS, &|a| a.nop());
    g.set_field(APIC_ACCESS_ADDRESS, PT);
    assert_eq!(g.enter().0, Reason::Vmcall);
}

#[test]
fn an_ept_violation_comes_first() {
    let mut g = Rig::new(&[REGISTERS, &[secondary::ENABLE_EPT]].concat(), &|a| {
        a.mov(rax, 0xffff_f000u64)?;
        a.mov(eax, dword_ptr(rax))
    });
    g.set_field(APIC_ACCESS_ADDRESS, 0xffff_f000);
    assert_eq!(g.enter(), (Reason::ApicAccess, 0));
    // The last GiB is not mapped any more.
    g.put(0x3_5018, 0);
    assert_eq!(g.enter().0, Reason::EptViolation);
}

#[test]
fn debug_traps_wait_behind_the_exit() {
    let mut g = Rig::new(REGISTERS, &|a| a.mov(dword_ptr(PAGE + 0xf0), eax));
    g.set_field(GUEST_RFLAGS, 0x102);
    assert_eq!(g.enter(), (Reason::ApicWrite, 0x0f0));
    assert_eq!(g.field(GUEST_PENDING_DEBUG_EXCEPTIONS), 1 << 14);
    assert!(g.taken().is_empty());
}

#[test]
fn without_the_control_the_page_is_memory() {
    let mut g = Rig::new(&[primary::USE_TPR_SHADOW], &|a| a.mov(dword_ptr(PAGE + 0x80), 0x55));
    assert_eq!(g.enter().0, Reason::Vmcall);
    assert_eq!((g.get(ACCESS + 0x80), g.virtual_register(0x80)), (0x55, 0));
}
