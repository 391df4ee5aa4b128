//! Events: exceptions and what they occur in, interrupts, windows, injected events, NMIs, shutdown.

use iced_x86::code_asm::*;
use x86::extension::{Delivery, Origin};

use crate::machine::{ABSENT, CODE, DATA, GDT, HOST, IDT, Rig, STACK, TSS};
use crate::toy::{Order, Toy};

fn rig(takes: &[&str], code: impl FnOnce(&mut CodeAssembler)) -> Rig {
    Rig::new("intel", Toy::new(Order::Vmx, takes), code)
}

/// The interrupt controller has a vector for the processor.
fn interrupt(rig: &mut Rig, vector: u32) {
    let mut h = rig.at_work();
    x86::apic::write(&mut h, 0xf0, 4, 0x1ff);
    x86::apic::write(&mut h, 0x300, 4, u64::from(1 << 18 | vector));
}

#[test]
fn an_exception_that_is_taken_has_no_effect() {
    let mut r = rig(&["Exception"], |a| a.mov(rax, qword_ptr(ABSENT + 8)).unwrap());
    r.run();
    let exits = r.exits();
    assert_eq!(exits.len(), 1);
    assert!(exits[0].what.contains("vector: 14, error: Some(0), address: 196616"), "{exits:?}");
    assert_eq!((exits[0].pc, r.cpu().cr2, r.reg(4)), (CODE, 0, STACK), "CR2 and the stack are as they were");
    assert_eq!(r.machine.vcpus[0].core.pc, HOST + 1);
}

#[test]
fn an_exception_in_the_delivery_of_another_tells_of_it() {
    // The gate of #UD is absent: #NP, then the one of #NP too: #DF.
    let mut r = rig(&["Exception"], |a| a.ud2().unwrap());
    let mut toy = r.toy();
    toy.takes.clear();
    r.cpu().extension = x86::extension::Slot::with(Box::new(toy));
    r.put(IDT + 16 * 6, 0);
    r.run();
    assert_eq!(r.vector(), Some(13), "a gate that is none is #GP");
    let mut r = rig(&["Exception"], |a| a.int(0x80).unwrap());
    r.put(IDT + 16 * 0x80, 0);
    r.run();
    let exits = r.exits();
    let first = Delivery { origin: Origin::SoftwareInterrupt, vector: 0x80, error: None, length: 2 };
    assert!(exits[0].what.contains("vector: 13, error: Some(1026)"), "{exits:?}");
    assert!(exits[0].what.contains(&format!("first: Some({first:?})")), "{exits:?}");
}

#[test]
fn int3_is_a_software_exception_and_faults_are_not() {
    for (code, software, vector) in
        [((|a| a.int3().unwrap()) as fn(&mut CodeAssembler), true, 3), (|a| a.ud2().unwrap(), false, 6)]
    {
        let mut r = rig(&["Exception"], code);
        r.run();
        let what = &r.exits()[0].what;
        assert!(
            what.contains(&format!("vector: {vector},")) && what.contains(&format!("software: {software}")),
            "{what}"
        );
    }
}

#[test]
fn a_triple_fault_is_taken_or_is_the_end() {
    for takes in [&["TripleFault"][..], &[]] {
        let mut r = rig(takes, |a| a.ud2().unwrap());
        r.cpu().idtr.limit = 0;
        let end = r.run();
        assert_eq!(r.exits().len(), takes.len());
        assert_eq!(matches!(end, emu_core::machine::End::Shutdown(..)), takes.is_empty(), "{end:?}");
    }
}

#[test]
fn interrupts_from_outside() {
    // With IF: taken in both cases; without: only if the extension wants masked ones.
    for (sti, wants_masked, taken) in [(true, false, true), (false, false, false), (false, true, true)] {
        let toy = Toy { takes_masked: wants_masked, ..Toy::new(Order::Vmx, &["ExternalInterrupt"]) };
        let mut r = Rig::new("intel", toy, |a| {
            if sti {
                a.sti().unwrap();
            }
            a.nop().unwrap();
            a.nop().unwrap();
        });
        interrupt(&mut r, 0x41);
        r.run();
        assert_eq!(r.exits().len(), usize::from(taken), "{sti} {wants_masked}");
        if taken {
            let exit = &r.exits()[0];
            assert_eq!(exit.what, format!("ExternalInterrupt {{ masked: {} }}", !sti));
            // The instruction behind STI has been done.
            assert_eq!(exit.pc, CODE + if sti { 2 } else { 0 });
        }
        // Nobody has acknowledged it.
        assert_eq!(r.vector(), None);
    }
}

#[test]
fn an_interrupt_that_is_not_taken_is_the_guests() {
    let mut r = rig(&[], |a| {
        a.sti().unwrap();
        a.nop().unwrap();
    });
    interrupt(&mut r, 0x41);
    r.run();
    assert_eq!((r.vector(), r.exits().len()), (Some(0x41), 0));
}

#[test]
fn nmis_are_taken_held_and_unblocked() {
    let mut r = rig(&["Nmi"], |a| a.nop().unwrap());
    r.cpu().pending.nmi = true;
    r.machine.vcpus[0].core.check_interrupts = true;
    r.run();
    // It is still there, and the host's.
    assert_eq!((r.exits()[0].what.as_str(), r.exits()[0].pc, r.vector()), ("Nmi", CODE, Some(2)));
    // Held, guest or not.
    for guest in [true, false] {
        let toy = Toy { guest, holds: vec!["Nmi".into()], ..Toy::new(Order::Svm, &["Nmi"]) };
        let mut r = Rig::new("amd", toy, |a| a.nop().unwrap());
        r.cpu().pending.nmi = true;
        r.machine.vcpus[0].core.check_interrupts = true;
        r.run();
        assert_eq!((r.exits().len(), r.vector(), r.cpu().pending.nmi), (0, None, true));
    }
    // IRET unblocks the extension's own blocking, and not the processor's.
    let toy = Toy { own_nmi_blocking: Some(true), ..Toy::new(Order::Vmx, &[]) };
    let mut r = Rig::new("intel", toy, |a| {
        let mut next = a.create_label();
        a.push(16).unwrap();
        a.push(STACK as i32).unwrap();
        a.push(2).unwrap();
        a.push(8).unwrap();
        a.lea(rax, ptr(next)).unwrap();
        a.push(rax).unwrap();
        a.iretq().unwrap();
        a.set_label(&mut next).unwrap();
        a.nop().unwrap();
    });
    r.cpu().nmi_blocked = true;
    r.run();
    assert_eq!((r.toy().own_nmi_blocking, r.cpu().nmi_blocked, r.vector()), (Some(false), true, None));
}

#[test]
fn init_and_smi() {
    for name in ["Init", "Smi"] {
        let mut r = rig(&[name], |a| a.nop().unwrap());
        r.cpu().pending.init = name == "Init";
        r.cpu().pending.smi = name == "Smi";
        r.machine.vcpus[0].core.check_interrupts = true;
        r.run();
        assert_eq!((r.exits()[0].what.as_str(), r.exits()[0].pc), (name, CODE));
    }
    let toy = Toy { guest: false, holds: vec!["Init".into()], ..Toy::new(Order::Vmx, &[]) };
    let mut r = Rig::new("intel", toy, |a| a.nop().unwrap());
    r.cpu().pending.init = true;
    r.machine.vcpus[0].core.check_interrupts = true;
    r.run();
    assert!(r.cpu().pending.init);
    // A guest that waits for its start-up message.
    let mut r = rig(&["Sipi"], |a| a.nop().unwrap());
    r.cpu().waiting.waits_for_sipi();
    r.cpu().pending.sipi = Some(8);
    r.machine.vcpus[0].core.check_interrupts = true;
    r.run();
    assert_eq!(r.exits()[0].what, "Sipi(8)");
}

#[test]
fn every_boundary_can_be_asked_for() {
    let toy = Toy { steps: true, ..Toy::new(Order::Vmx, &["Boundary"]) };
    let mut r = Rig::new("intel", toy, |a| {
        a.vmcall().unwrap();
    });
    // The host enters a guest of nops five times, each time behind where it was left, and counts.
    r.code(HOST, |a| {
        let mut done = a.create_label();
        a.inc(rdx).unwrap();
        a.cmp(rdx, 6).unwrap();
        a.je(done).unwrap();
        a.lea(rbx, ptr(rdx + DATA)).unwrap();
        a.vmcall().unwrap();
        a.set_label(&mut done).unwrap();
    });
    r.machine.world.ram.write(DATA, &[0x90; 16]).unwrap();
    r.machine.vcpus[0].core.check_interrupts = true;
    r.run();
    let exits = r.exits();
    assert_eq!(exits.len(), 6, "{exits:?}");
    // A guest that is entered is asked before its first instruction.
    assert_eq!(
        exits.iter().map(|e| e.pc).collect::<Vec<_>>(),
        [CODE, DATA + 1, DATA + 2, DATA + 3, DATA + 4, DATA + 5]
    );
    assert!(exits.iter().all(|e| e.what == "Boundary { shadowed: false }"), "{exits:?}");
}

/// An injected event is delivered before the guest's next instruction; one of an instruction returns behind it.
#[test]
fn injected_events() {
    for (event, returns_to) in [
        (Delivery { origin: Origin::External, vector: 0x50, error: None, length: 0 }, CODE),
        (Delivery { origin: Origin::Nmi, vector: 2, error: None, length: 0 }, CODE),
        (Delivery { origin: Origin::Exception, vector: 13, error: Some(0x18), length: 0 }, CODE),
        (Delivery { origin: Origin::SoftwareInterrupt, vector: 0x80, error: None, length: 2 }, CODE + 2),
    ] {
        let mut r = rig(&["ExternalInterrupt", "Nmi", "Exception", "SoftwareInterrupt"], |a| a.nop().unwrap());
        r.cpu().injected = Some(event);
        r.machine.vcpus[0].core.check_interrupts = true;
        r.run();
        assert_eq!((r.vector(), r.exits().len()), (Some(event.vector.into()), 0), "{event:?}");
        let at = STACK - 40 - if event.error.is_some() { 8 } else { 0 };
        let frame = at + if event.error.is_some() { 8 } else { 0 };
        assert_eq!(r.machine.world.ram.load(frame, 8).unwrap(), returns_to, "{event:?}");
        // Whether an NMI blocks others is the extension's to say.
        assert_eq!((r.reg(4), r.cpu().nmi_blocked), (at, false), "{event:?}");
        // The same, with a gate that is none: the exit tells what was being delivered.
        let mut r = rig(&["Exception"], |a| a.nop().unwrap());
        r.put(IDT + 16 * u64::from(event.vector), 0);
        r.cpu().injected = Some(event);
        r.machine.vcpus[0].core.check_interrupts = true;
        r.run();
        let what = &r.exits()[0].what;
        assert!(what.contains(&format!("first: Some({event:?})")), "{what}");
        assert_eq!(r.exits()[0].pc, CODE);
    }
}

/// A second exception is asked about as it is, before two of them are a double fault, and the double fault only if nobody wanted it.
#[test]
fn a_second_exception_is_asked_about_before_the_double_fault() {
    let first = Delivery { origin: Origin::Exception, vector: 14, error: Some(0), length: 0 };
    let mut r = rig(&["Exception"], |a| a.nop().unwrap());
    r.cpu().injected = Some(first);
    r.machine.vcpus[0].core.regs[4] = ABSENT + 0x1000;
    r.machine.vcpus[0].core.check_interrupts = true;
    r.run();
    let what = &r.exits()[0].what;
    assert!(what.contains("vector: 14,") && what.contains(&format!("address: {}", ABSENT + 0xff8)), "{what}");
    assert!(what.contains(&format!("first: Some({first:?})")), "{what}");
    // Nobody wants any: #DF, and no place for it either.
    let mut r = rig(&["TripleFault"], |a| a.nop().unwrap());
    r.cpu().injected = Some(first);
    r.machine.vcpus[0].core.regs[4] = ABSENT + 0x1000;
    r.machine.vcpus[0].core.check_interrupts = true;
    r.run();
    assert_eq!(r.exits().iter().map(|e| e.what.as_str()).collect::<Vec<_>>(), ["TripleFault"]);
}

/// Through a task gate, in 32-bit mode.
#[test]
fn task_switches_are_asked_about() {
    for (kind, reason) in [("jmp", 2), ("call", 0), ("int", 3)] {
        let mut r = rig(&["TaskSwitch"], |_| ());
        let cpu = r.cpu();
        cpu.efer = 0;
        cpu.cr0 &= !(1 << 31);
        cpu.cr4 = 0;
        cpu.segments[1].attributes.0 = 0xc09b;
        cpu.idtr = x86::segment::Table { base: IDT, limit: 0x7ff };
        r.put(GDT + 8, 0x00cf_9b00_0000_ffff);
        r.put(GDT + 0x30, 0x0000_8900_0000_0067 | (TSS + 0x100) << 16);
        r.put(IDT + 8 * 0x80, 0x30 << 16 | 0x85 << 40);
        let code: &[u8] = match kind {
            "jmp" => &[0xea, 0, 0, 0, 0, 0x30, 0],
            "call" => &[0x9a, 0, 0, 0, 0, 0x30, 0],
            _ => &[0xcd, 0x80],
        };
        r.machine.world.ram.write(CODE, code).unwrap();
        r.run();
        let exits = r.exits();
        assert_eq!(exits.len(), 1, "{kind}: {:x}", r.machine.vcpus[0].core.pc);
        assert_eq!(exits[0].what, format!("TaskSwitch {{ selector: 48, reason: {reason}, error: None }}"));
        assert_eq!((exits[0].pc, usize::from(exits[0].length)), (CODE, code.len()), "{kind}");
        assert_eq!(exits[0].delivering.is_some(), kind == "int");
    }
}

/// In a REP, the exit is at an element: what came before has been done.
#[test]
fn a_repeated_instruction_is_left_in_the_middle() {
    let mut r = rig(&["Exception"], |a| {
        a.mov(rdi, ABSENT - 24).unwrap();
        a.mov(ecx, 10).unwrap();
        a.rep().stosq().unwrap();
    });
    r.run();
    assert_eq!((r.exits().len(), r.reg(1), r.reg(7)), (1, 7, ABSENT));
}
