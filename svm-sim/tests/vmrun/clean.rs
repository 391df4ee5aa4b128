//! "VMCB State Caching": a field that is changed without its clean bit being cleared stays what it was.

use svm_sim::exit::code;
use svm_sim::vmcb::*;
use x86_bare::Bare;

use crate::base::{Base, GUEST, SECOND, VMCB, intercept, machine, read, run_until, write};

/// A machine that runs the VMCB, which intercepts CPUID, time and again; the guest is CPUID, then VMMCALL.
fn twice(model: &str, between: impl FnOnce(&mut Bare)) -> u64 {
    twice_and(model, between, |_| {})
}

/// Likewise, with a look at the end.
fn twice_and(model: &str, between: impl FnOnce(&mut Bare), look: impl FnOnce(&Bare)) -> u64 {
    let mut v = Base::Long.vmcb();
    intercept(&mut v, code::CPUID);
    let mut bare = machine(model, &v);
    bare.assemble(x86_bare::CODE, &|a| {
        a.vmrun()?;
        a.mov(iced_x86::code_asm::ebx, 1)?;
        a.vmrun()?;
        a.hlt()
    });
    bare.assemble(GUEST, &|a| {
        a.cpuid()?;
        a.vmmcall()
    });
    // Behind the first #VMEXIT.
    run_until(&mut bare, |bare| bare.reg(x86::registers::RBX) == 1);
    assert_eq!(read(&bare, EXITCODE), code::CPUID);
    between(&mut bare);
    bare.machine.run(1000);
    look(&bare);
    read(&bare, EXITCODE)
}

fn put(bare: &mut Bare, f: Field, value: u64) {
    let old = bare.get(VMCB + u64::from(f.offset));
    let mask = u64::MAX >> (64 - 8 * u32::from(f.size));
    bare.put(VMCB + u64::from(f.offset), old & !mask | value & mask);
}

#[test]
fn what_is_called_clean_stays_as_it_was() {
    let forget = |clean: u64| {
        move |bare: &mut Bare| {
            put(bare, INTERCEPT_3, 0);
            put(bare, CLEAN_BITS, clean);
        }
    };
    assert_eq!(twice("amd", forget(0)), code::VMMCALL);
    assert_eq!(twice("amd", forget(!clean::I)), code::VMMCALL);
    assert_eq!(twice("amd", forget(clean::I)), code::CPUID);
    assert_eq!(twice("amd,-vmcb_clean", forget(clean::I)), code::VMMCALL, "a processor that has no clean bits");
}

#[test]
fn the_guests_state_is_held_too() {
    // RAX and RIP are in no group. CR2, segments, control registers are.
    let clean = |bits: u64| {
        move |bare: &mut Bare| {
            put(bare, CR4, 0);
            put(bare, CLEAN_BITS, bits);
        }
    };
    assert_eq!(twice("amd", clean(0)), code::INVALID);
    assert_eq!(twice("amd", clean(clean::CRX)), code::CPUID);
}

/// Clean bits are of the VMCB that has been run: another is read whole.
#[test]
fn another_vmcb_is_not_held() {
    let mut v = Base::Long.vmcb();
    v.set(CLEAN_BITS, u64::MAX);
    v.set(GUEST_ASID, 2);
    let mut bare = machine("amd", &Base::Long.vmcb());
    write(&mut bare, SECOND, &v);
    bare.assemble(x86_bare::CODE, &|a| {
        a.vmrun()?;
        a.mov(iced_x86::code_asm::eax, SECOND as u32)?;
        a.vmrun()?;
        a.hlt()
    });
    // The first one's guest is at its VMMCALL still; the second's exits by a nested page fault, for its N_CR3 leads nowhere.
    bare.put(SECOND + u64::from(N_CR3.offset), 0x10_0000);
    bare.put(SECOND + u64::from(NESTED_CONTROL.offset), nested::NP_ENABLE);
    bare.machine.run(1000);
    assert_eq!(read(&bare, EXITCODE), code::VMMCALL);
    assert_eq!(bare.load(SECOND + u64::from(EXITCODE.offset), 8), code::NPF);
}

/// VMEXIT_INVALID does not save the guest's state: what memory has is left as it is, whatever the processor holds.
#[test]
fn invalid_saves_nothing() {
    let spoil = |bare: &mut Bare| {
        put(bare, GUEST_ASID, 0);
        put(bare, CR2, 0x1234);
        put(bare, CLEAN_BITS, clean::CR2);
    };
    let mut found = 0;
    assert_eq!(twice_and("amd", spoil, |bare| found = read(bare, CR2)), code::INVALID);
    assert_eq!(found, 0x1234);
}
