//! A guest that runs code, to the VMMCALL behind it.

use svm_sim::vmcb::*;
use x86_bare::{Bare, Code};

use crate::base::{self, GUEST, read};

/// The machine, about to run VMRUN of a VMCB whose guest has this code.
pub fn machine(model: &str, v: &Vmcb, code: Code) -> Bare {
    let mut bare = base::machine(model, v);
    bare.assemble(GUEST, &|a| {
        code(a)?;
        a.vmmcall()
    });
    bare
}

/// Runs it until the host halts; the exit code.
pub fn run(bare: &mut Bare) -> u64 {
    bare.machine.run(10_000);
    read(bare, EXITCODE)
}

/// The exit code that a guest's code comes to.
pub fn exit_of(model: &str, v: &Vmcb, code: Code) -> u64 {
    run(&mut machine(model, v, code))
}
