//! "VMCB State Caching": a field that is changed without its clean bit being cleared stays what it was.

use svm_sim::exit::code;
use svm_sim::vmcb::*;
use x86_bare::Bare;

use crate::base::{Base, GUEST, SECOND, VMCB, intercept, machine, read, run_until, write};

/// A machine that runs the VMCB, which intercepts CPUID, time and again; the guest is CPUID, then VMMCALL.
fn twice(model: &str, between: impl FnOnce(&mut Bare)) -> u64 {
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

#[test]
fn another_vmcb_is_not_held() {
    let moved = |bare: &mut Bare| {
        let mut v = Base::Long.vmcb();
        v.set(CLEAN_BITS, u64::MAX);
        v.set(RIP, GUEST + 2);
        write(bare, SECOND, &v);
        bare.set(0, SECOND);
    };
    let mut v = Base::Long.vmcb();
    intercept(&mut v, code::CPUID);
    assert_eq!(twice("amd", moved), code::CPUID, "the first is as it was left");
    // What VMRUN of the second has found is in its own exit code.
    let _ = v;
}
