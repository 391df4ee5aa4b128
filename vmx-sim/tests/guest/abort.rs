//! "VMX Aborts": what a VM exit cannot do any more shuts the processor down.

use emu_core::machine::End;
use iced_x86::code_asm::ecx;
use vmx_sim::Vmx;
use vmx_sim::exit::Abort;
use vmx_sim::field::*;
use x86_bare::{Bare, Code, assemble};

use crate::base::{Base, GUEST, enter_with};
use crate::machine::{TARGET, change};

const SMBASE: u64 = 0x9e;
const FS_BASE: u64 = 0xc000_0100;
const SYSENTER_EIP: u64 = 0x176;
/// Where the VMX-abort indicator is in a region.
const INDICATOR: u64 = 4;

/// A guest that exits after some time.
const GUEST_CODE: Code = &|a| {
    let mut again = a.create_label();
    a.mov(ecx, 5000)?;
    a.set_label(&mut again)?;
    a.dec(ecx)?;
    a.jnz(again)?;
    a.vmcall()
};

/// A list of the VM exit has one entry, with this MSR.
fn exit_with(address: Field, count: Field, msr: u64) -> (End, Bare) {
    let (_, mut bare) = enter_with(
        Base::Long,
        |_| (),
        |bare| {
            bare.put(TARGET, msr);
            bare.machine.world.ram.write(GUEST, &assemble(64, GUEST, GUEST_CODE)).unwrap();
            change(bare, |v| (v[address], v[count]) = (TARGET, 1));
        },
    );
    (bare.go_on(), bare)
}

/// What comes of it; with another MSR the host goes on, and halts.
fn abort_with(address: Field, count: Field, msr: u64) -> Option<Abort> {
    assert_eq!(exit_with(address, count, SYSENTER_EIP).0, End::Deadlock);
    let (end, bare) = exit_with(address, count, msr);
    let End::Shutdown(0, stop) = end else { panic!("the processor goes on: {end:?}") };
    let extension = bare.machine.vcpus[0].arch.extension.get().unwrap();
    let vmx: &Vmx = extension.as_any().downcast_ref().unwrap();
    let indicator = bare.machine.world.ram.load(vmx.current.unwrap() + INDICATOR, 4);
    let abort = Abort::of(stop);
    assert_eq!(indicator, Ok(abort.map_or(0, |abort| abort as u64)));
    abort
}

#[test]
fn msrs_that_cannot_be_saved_or_loaded_abort() {
    let saving = abort_with(EXIT_MSR_STORE_ADDRESS, EXIT_MSR_STORE_COUNT, SMBASE);
    assert_eq!(saving, Some(Abort::SavingGuestMsrs));
    let loading = abort_with(EXIT_MSR_LOAD_ADDRESS, EXIT_MSR_LOAD_COUNT, FS_BASE);
    assert_eq!(loading, Some(Abort::LoadingHostMsrs));
    assert_eq!(loading.map(|abort| abort.to_string()).as_deref(), Some("VMX abort 4: a host MSR could not be loaded"));
}
