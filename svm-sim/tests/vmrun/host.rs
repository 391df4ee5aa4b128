//! The host save area: what VMRUN writes there, what #VMEXIT reads, and what cannot be a host's state.

use emu_core::engine::StopKind;
use emu_core::machine::End;
use iced_x86::code_asm::*;
use svm_sim::exit::code;
use svm_sim::vmcb::*;
use x86::control::{cr0, efer};
use x86_bare::{Bare, CODE, PML4, STACK};

use crate::base::{Base, HSAVE, SECOND, VMCB, machine, read, run_until, svm};

fn saved(bare: &Bare, f: Field) -> u64 {
    bare.load(HSAVE + u64::from(f.offset), f.size)
}

#[test]
fn the_hosts_state_is_in_memory() {
    let mut bare = machine("amd", &Base::Nested.vmcb());
    bare.put(HSAVE + u64::from(KERNEL_GS_BASE.offset), 0x1234);
    bare.machine.run(1000);
    assert_eq!(saved(&bare, RIP), CODE + 3);
    assert_eq!((saved(&bare, CR3), saved(&bare, RSP)), (PML4, STACK));
    assert_eq!(saved(&bare, CS_ATTRIB), 0xa9b);
    assert_eq!(saved(&bare, EFER) & efer::SVME, efer::SVME);
    assert_eq!(saved(&bare, KERNEL_GS_BASE), 0x1234, "what VMRUN does not save it leaves alone");
    assert!(!svm(&bare).gif && !svm(&bare).in_guest);
    assert_eq!(bare.machine.vcpus[0].core.pc, CODE + 3 + 1, "it halts");
}

/// The guest's VMMCALL leads to a host that somebody has changed in memory.
fn changed(field: Field, value: u64) -> (Bare, End) {
    let mut bare = machine("amd", &Base::Long.vmcb());
    run_until(&mut bare, |bare| svm(bare).in_guest);
    bare.put(HSAVE + u64::from(field.offset), value);
    let end = bare.machine.run(1000);
    (bare, end)
}

#[test]
fn it_comes_from_there() {
    let (bare, _) = changed(RSP, 0x4321);
    assert_eq!(bare.reg(x86::registers::RSP), 0x4321);
    assert_eq!(read(&bare, EXITCODE), code::VMMCALL);
}

#[test]
fn what_is_no_hosts_state_is_a_shutdown() {
    for (field, value) in [
        (EFER, efer::LMA | efer::LME),
        (CR0, 1 << 32 | cr0::PE | cr0::PG),
        (CR0, cr0::PE | cr0::PG | cr0::NW),
        (CR4, 0),
        (CR4, 1 << 63),
    ] {
        let (_, end) = changed(field, value);
        assert!(matches!(end, End::Shutdown(0, stop) if stop.kind() == StopKind::Shutdown), "{field:?}: {end:?}");
    }
}

/// What VMLOAD has brought from a VMCB shows in nothing that VMRUN writes.
#[test]
fn nothing_of_another_vmcb_is_in_it() {
    for model in ["amd", "amd,-shstk"] {
        let mut bare = machine(model, &Base::Long.vmcb());
        bare.machine.world.ram.write(SECOND, &[0xa5; SIZE]).unwrap();
        bare.assemble(CODE, &|a| {
            a.mov(eax, SECOND as u32)?;
            a.vmload()?;
            a.mov(eax, VMCB as u32)?;
            a.vmrun()?;
            a.hlt()
        });
        bare.machine.run(1000);
        assert_eq!(read(&bare, EXITCODE), code::VMMCALL);
        for [selector, attributes, ..] in [segment(GDTR), segment(IDTR)] {
            assert_eq!([selector, attributes].map(|f| saved(&bare, f)), [0; 2], "{model}");
        }
        assert_eq!([S_CET, SSP, ISST_ADDR].map(|f| saved(&bare, f)), [0; 3], "{model}");
    }
}
