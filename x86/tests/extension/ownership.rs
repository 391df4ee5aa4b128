//! What is the extension's own: an opcode, an MSR, a leaf of CPUID, bits of CR4 and EFER, what is read from CR0, the time; and its state.

use iced_x86::code_asm::*;
use x86::control::cr0;
use x86::extension::{self, Kind};
use x86::registers::{RAX, RBX, RCX, RDX};

use crate::machine::{CODE, HOST, Rig};
use crate::toy::{self, CR4_BIT, EFER_BIT, LEAF, MSR, Order, TSC_OFFSET, Toy};

#[test]
fn its_opcode_is_undefined_without_it() {
    let mut r = Rig::new("intel", Toy::new(Order::Vmx, &[]), |a| a.vmcall().unwrap());
    r.run();
    assert_eq!((r.exits()[0].what.as_str(), r.exits()[0].length, r.vector()), ("Vmcall", 3, None));
    let mut r = Rig::new("intel", Toy::new(Order::Vmx, &[]), |a| a.vmcall().unwrap());
    r.cpu().extension = extension::Slot::default();
    r.run();
    assert_eq!(r.vector(), Some(6));
}

#[test]
fn its_msr_and_leaf() {
    let mut r = Rig::new("intel", Toy::new(Order::Vmx, &[]), |a| {
        a.mov(ecx, MSR).unwrap();
        a.rdmsr().unwrap();
        a.mov(esi, eax).unwrap();
        a.mov(eax, 9).unwrap();
        a.wrmsr().unwrap();
        a.mov(eax, LEAF).unwrap();
        a.cpuid().unwrap();
    });
    r.run();
    assert_eq!((r.reg(6), r.toy().msr), (7, 9));
    assert_eq!([RAX, RBX, RCX, RDX].map(|i| r.reg(i)), [1, 2, 3, 4]);
}

#[test]
fn its_bits() {
    // CR4's bit can be set, and cleared unless the extension objects.
    for (keeps_cr4, faults) in [(false, false), (true, true)] {
        let mut r = Rig::new("intel", Toy { keeps_cr4, ..Toy::new(Order::Vmx, &[]) }, |a| {
            a.mov(rax, cr4).unwrap();
            a.mov(rbx, rax).unwrap();
            a.or(rax, CR4_BIT as i32).unwrap();
            a.mov(cr4, rax).unwrap();
            a.mov(cr4, rbx).unwrap();
        });
        r.run();
        assert_eq!(r.vector(), faults.then_some(13));
        assert_eq!(r.cpu().cr4 & CR4_BIT != 0, faults);
    }
    let mut r = Rig::new("intel", Toy::new(Order::Vmx, &[]), |a| {
        a.mov(ecx, 0xc000_0080u32).unwrap();
        a.rdmsr().unwrap();
        a.or(eax, EFER_BIT as i32).unwrap();
        a.wrmsr().unwrap();
    });
    r.run();
    assert_eq!((r.vector(), r.cpu().efer & EFER_BIT), (None, EFER_BIT));
}

/// The guest neither sees nor changes bits of CR0 that are the host's.
#[test]
fn it_keeps_bits_of_cr0() {
    let toy = Toy { cr0_mask: cr0::TS | cr0::NE, cr0_shadow: cr0::TS, ..Toy::new(Order::Vmx, &[]) };
    let mut r = Rig::new("intel", toy, |a| {
        a.mov(rbx, cr0).unwrap();
        a.mov(rax, rbx).unwrap();
        a.or(rax, 2).unwrap();
        a.mov(cr0, rax).unwrap();
        a.smsw(ecx).unwrap();
        a.clts().unwrap();
    });
    r.run();
    assert_eq!((r.reg(RBX) & (cr0::TS | cr0::NE), r.reg(RCX) & cr0::TS), (cr0::TS, cr0::TS));
    assert_eq!(r.cpu().cr0 & (cr0::TS | cr0::NE | cr0::MP), cr0::NE | cr0::MP);
}

#[test]
fn its_time() {
    for guest in [true, false] {
        let mut r = Rig::new("intel", Toy { guest, ..Toy::new(Order::Vmx, &[]) }, |a| {
            a.rdtsc().unwrap();
            a.mov(ebx, edx).unwrap();
            a.rdtscp().unwrap();
            a.mov(esi, edx).unwrap();
            a.mov(ecx, 0x10).unwrap();
            a.rdmsr().unwrap();
        });
        r.run();
        let high = if guest { TSC_OFFSET >> 32 } else { 0 };
        assert_eq!([RBX, 6, RDX].map(|i| r.reg(i)), [high; 3]);
    }
}

/// A machine that is restored in the middle of a guest goes on as the first one.
#[test]
fn it_comes_back_from_a_snapshot() {
    let fresh = || {
        let pages = vec![(0x40, 0x50, 7)];
        let mut r = Rig::new("intel", Toy { pages: Some(pages), tag: 3, ..Toy::new(Order::Svm, &["Cpuid"]) }, |a| {
            let mut again = a.create_label();
            a.set_label(&mut again).unwrap();
            a.inc(qword_ptr(0x4_0000)).unwrap();
            a.cpuid().unwrap();
        });
        r.code(HOST, |a| {
            a.mov(ebx, CODE as u32).unwrap();
            a.vmcall().unwrap();
        });
        r
    };
    let mut whole = fresh();
    whole.machine.run(2000);
    let mut first = fresh();
    first.machine.run(1000);
    let image = first.machine.save();
    let mut second = fresh();
    assert!(second.machine.restore(&image).is_err(), "not known yet");
    extension::register(Kind {
        name: toy::NAME,
        feature: None,
        make: |_| Box::new(Toy::new(Order::Vmx, &[])),
        restore: toy::restore,
    });
    second.machine.restore(&image).unwrap();
    assert_eq!(second.toy(), first.toy());
    second.machine.run(2000);
    assert_eq!(second.machine.state_hash(), whole.machine.state_hash());
    assert_eq!(second.toy(), whole.toy());
    assert!(second.exits().len() > 300);
    assert_eq!(second.machine.world.ram.load(0x5_0000, 8).unwrap() as usize, second.exits().len());
}
