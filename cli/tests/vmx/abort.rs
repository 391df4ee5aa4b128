//! A hypervisor whose guest's VM exit cannot load the host's MSRs.

use iced_x86::code_asm::*;

use super::guest::{FIRST, assembled, enter, operation, put, vmcs, write};

/// A guest whose VM exit is to load an MSR that such lists may not have.
pub fn code() -> Vec<u8> {
    const LIST: u64 = 0x20_4800;
    const FS_BASE: u64 = 0xc000_0100;
    assembled(|a| {
        let mut guest = a.create_label();
        a.mov(esp, 0x7000)?;
        operation(a)?;
        vmcs(a, FIRST, guest)?;
        put(a, LIST, FS_BASE)?;
        write(a, 0x2008, LIST)?;
        write(a, 0x4010, 1)?;
        enter(a, true)?;
        a.hlt()?;
        a.set_label(&mut guest)?;
        a.cpuid()?;
        a.hlt()
    })
}
