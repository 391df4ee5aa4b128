//! "Event Injection": what EVENTINJ delivers, and EXITINTINFO, where a #VMEXIT comes in the delivery of something.

#[path = "../vmrun/base.rs"]
#[allow(dead_code, reason = "the tests of VMRUN use the rest")]
mod base;

use base::{Base, GUEST, NPT_TABLE, intercept, machine, on, read};
use svm_sim::exit::code;
use svm_sim::vmcb::*;
use x86_bare::{Bare, IDT, STACK};

const VALID: u64 = 1 << 31;
const HAS_ERROR: u64 = 1 << 11;
/// Types.
const INTR: u64 = 0;
const NMI: u64 = 2 << 8;
const EXCEPTION: u64 = 3 << 8;
const SOFTWARE: u64 = 4 << 8;

fn error(code: u64) -> u64 {
    HAS_ERROR | code << 32
}

/// A guest that begins with this event, on such a processor.
fn injected(model: &str, event: u64, change: impl FnOnce(&mut Vmcb)) -> Bare {
    let mut v = Base::Nested.vmcb();
    v.set(EVENTINJ, event | VALID);
    v.set(NRIP, GUEST + 2);
    change(&mut v);
    let mut bare = machine(model, &v);
    bare.machine.run(1000);
    bare
}

/// Vector, error code, RIP that the handler finds.
fn found(event: u64) -> (u64, u64, u64) {
    injected("amd", event, |_| {}).found()
}

#[test]
fn every_type_is_delivered() {
    assert_eq!(found(INTR | 0x40), (0x40, 0, GUEST));
    assert_eq!(found(INTR | 0xff), (0xff, 0, GUEST));
    assert_eq!(found(NMI | 2), (2, 0, GUEST));
    assert_eq!(found(NMI | 0x55), (2, 0, GUEST), "the vector of an NMI does not count");
    assert_eq!(found(EXCEPTION), (0, 0, GUEST));
    assert_eq!(found(EXCEPTION | 6), (6, 0, GUEST));
    assert_eq!(found(EXCEPTION | 13 | error(0x1234)), (13, 0x1234, GUEST));
    assert_eq!(found(EXCEPTION | 14 | error(7)), (14, 7, GUEST));
    assert_eq!(found(SOFTWARE | 0x80), (0x80, 0, GUEST + 2), "it returns behind the instruction");
    assert_eq!(found(SOFTWARE | 6), (6, 0, GUEST + 2));
    // INT3 in 64-bit mode; INTO there is none.
    assert_eq!(found(EXCEPTION | 3), (3, 0, GUEST + 2));
}

/// Without nRIP software's events return where RIP is.
#[test]
fn without_next_rip() {
    let model = "amd,-nrip_save";
    assert_eq!(injected(model, SOFTWARE | 0x80, |_| {}).found(), (0x80, 0, GUEST));
}

/// RFLAGS.IF does not count, nor does an interrupt shadow.
#[test]
fn interrupts_are_injected_whatever_masks_them() {
    let bare = injected("amd", INTR | 0x40, |v| v.set(INTERRUPT_SHADOW, 1));
    assert_eq!(bare.found(), (0x40, 0, GUEST));
}

/// What is not valid is not delivered; EVENTINJ is so no longer behind a #VMEXIT.
#[test]
fn the_valid_bit() {
    let mut v = Base::Nested.vmcb();
    v.set(EVENTINJ, INTR | 0x40);
    let mut bare = machine("amd", &v);
    bare.machine.run(1000);
    assert_eq!((read(&bare, EXITCODE), bare.found().0), (code::VMMCALL, 0));

    let mut v = Base::Nested.vmcb();
    v.set(EVENTINJ, INTR | 0x40 | VALID);
    let mut bare = machine("amd", &v);
    bare.handler(0x40, &|a| a.vmmcall());
    bare.machine.run(1000);
    assert_eq!(read(&bare, EXITCODE), code::VMMCALL);
    assert_eq!(read(&bare, EVENTINJ) & VALID, 0);
    assert_eq!(read(&bare, EXITINTINFO), 0);
}

/// An injected exception is not intercepted, nor an injected interrupt.
#[test]
fn intercepts_are_not_for_what_is_injected() {
    for (event, code) in [
        (EXCEPTION | 13 | error(0), code::EXCEPTION + 13),
        (EXCEPTION | 3, code::EXCEPTION + 3),
        (INTR | 0x40, code::INTR),
        (NMI | 2, code::NMI),
        (SOFTWARE | 0x80, code::INTN),
    ] {
        let bare = injected("amd", event, |v| intercept(v, code));
        assert_eq!(bare.found().0, if event == NMI | 2 { 2 } else { event & 0xff }, "{event:#x}");
    }
}

/// An injected page fault finds in CR2 what the VMCB has.
#[test]
fn cr2_is_the_vmcbs() {
    let bare = injected("amd", EXCEPTION | 14 | error(2), |v| v.set(CR2, 0x1234_5000));
    assert_eq!((bare.frame().vector, bare.frame().cr2), (14, 0x1234_5000));
}

/// Every kind of event whose delivery faults: the fault's intercept tells of it.
#[test]
fn an_event_whose_delivery_faults_is_told() {
    for event in [INTR | 0x40, NMI | 2, EXCEPTION | 6, EXCEPTION | 3, EXCEPTION | 14 | error(0x12), SOFTWARE | 0x80] {
        let bare = injected("amd", event, |v| {
            v.set(IDTR_LIMIT, 0);
            intercept(v, code::EXCEPTION + 13);
        });
        assert_eq!(read(&bare, EXITCODE), code::EXCEPTION + 13, "{event:#x}");
        assert_eq!(read(&bare, EXITINTINFO), event | VALID, "{event:#x}");
        // The error code names the gate, and whether somebody outside is to blame.
        let vector = event & 0xff;
        let external = u64::from(matches!(event & 0x700, INTR | NMI));
        assert_eq!(read(&bare, EXITINFO1), vector << 3 | 2 | external, "{event:#x}");
    }
}

/// So it is where nested paging stops a delivery: at the IDT, or at the stack.
#[test]
fn an_event_whose_delivery_nested_paging_stops_is_told() {
    for (page, address, access) in [(IDT, IDT + 16 * 0x40, 4), (STACK - 0x1000, STACK - 0x800 - 8, 6)] {
        for event in [INTR | 0x40, SOFTWARE | 0x40] {
            let mut v = Base::Nested.vmcb();
            v.set(EVENTINJ, event | VALID);
            v.set(NRIP, GUEST + 2);
            let mut bare = machine("amd", &v);
            bare.put(NPT_TABLE + page / 512, 0);
            bare.machine.run(1000);
            assert_eq!(read(&bare, EXITCODE), code::NPF, "{page:#x}");
            assert_eq!(read(&bare, EXITINFO1), 1 << 32 | access, "{page:#x}");
            assert_eq!(read(&bare, EXITINFO2) & !0xfff, address & !0xfff);
            assert_eq!(read(&bare, EXITINTINFO), event | VALID, "{page:#x}");
            assert_eq!((read(&bare, RIP), read(&bare, RSP)), (GUEST, STACK - 0x800), "nothing is done");
        }
    }
}

/// What the guest's own instructions bring about: INT n is of type 4, INT3 and faults of type 3.
#[test]
fn events_of_the_guests_own() {
    type Asm = fn(&mut iced_x86::code_asm::CodeAssembler) -> x86_bare::Result;
    let cases: [(Asm, u64); 4] = [
        (|a| a.int(0x80), SOFTWARE | 0x80),
        (|a| a.int3(), EXCEPTION | 3),
        (|a| a.ud2(), EXCEPTION | 6),
        (|a| a.int1(), EXCEPTION | 1),
    ];
    for (instruction, event) in cases {
        let mut v = Base::Nested.vmcb();
        v.set(IDTR_LIMIT, 0);
        intercept(&mut v, code::EXCEPTION + 13);
        let mut bare = machine("amd", &v);
        bare.assemble(GUEST, &instruction);
        bare.machine.run(1000);
        assert_eq!(read(&bare, EXITCODE), code::EXCEPTION + 13, "{event:#x}");
        assert_eq!(read(&bare, EXITINTINFO), event | VALID, "{event:#x}");
        assert_eq!(read(&bare, RIP), GUEST);
    }
}

/// In real mode the vector is an entry of the table of far pointers; no error code is pushed there, whatever EVENTINJ says.
#[test]
fn real_mode() {
    const TABLE: u64 = 0x7_0000;
    for event in [INTR | 0x40, SOFTWARE | 0x40] {
        let mut v = Base::Real.vmcb();
        v.set(EVENTINJ, event | VALID);
        v.set(NRIP, GUEST - 0x1_0000 + 2);
        v.set(IDTR_BASE, TABLE);
        let mut bare = machine("amd", &v);
        bare.put(TABLE + 4 * 0x40, 0x1000_5000);
        bare.assemble_of(16, 0x1_5000, &|a| a.vmmcall());
        bare.machine.run(1000);
        assert_eq!((read(&bare, EXITCODE), read(&bare, RIP)), (code::VMMCALL, 0x5000));
        let back = if event == INTR | 0x40 { 0x4000 } else { 0x4002 };
        assert_eq!(bare.load(0x1_0000 + 0x1000 - 6, 2), back, "{event:#x}");
    }
}

/// With NMI virtualization, an injected NMI blocks virtual ones until IRET.
#[test]
fn an_injected_nmi_blocks_virtual_ones() {
    let mut v = Base::Nested.vmcb();
    v.set(EVENTINJ, NMI | VALID);
    intercept(&mut v, code::NMI);
    on(&mut v, VINTR, vintr::V_NMI_ENABLE | vintr::V_GIF_ENABLE | vintr::V_GIF);
    let mut bare = machine("amd", &v);
    bare.handler(2, &|a| a.vmmcall());
    bare.machine.run(1000);
    assert_eq!(read(&bare, EXITCODE), code::VMMCALL);
    assert_ne!(read(&bare, VINTR) & vintr::V_NMI_BLOCKING, 0);
}
