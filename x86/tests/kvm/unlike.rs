//! What a KVM that emulates ring 0 in software does unlike a processor: what is skipped, by name.

use x86::exception::vector;

use crate::stage::{Case, Mode, handler};

/// Instructions on descriptors.
const ON_DESCRIPTORS: [&str; 4] = ["LAR", "LSL", "VERR", "VERW"];

/// Why a case is none to ask it about.
pub fn before(c: &Case) -> Option<&'static str> {
    let name = c.instruction();
    let is_native = c.mode == Mode::Long && c.user;
    if is_native && c.is_about_segments {
        return Some("code at CPL 3 runs with the descriptor tables of its host");
    }
    match name {
        "IRET" => Some("it knows IRETQ alone, others raise #GP(0)"),
        "RDFSBASE without FSGSBASE" => Some("its host has CR4.FSGSBASE set"),
        "MOV to CR0" if c.name.ends_with("high bits") => Some("it has 32 bits of CR0"),
        "LTR" | "LLDT" if c.mode == Mode::Compatibility => {
            Some("its descriptors have 8 bytes in compatibility mode, where the SDM's have 16 in all of IA-32e mode")
        }
        _ => None,
    }
}

/// Why a difference is none of ours: how we have ended, and how it has.
pub fn after(c: &Case, shuts_down: bool, ours: u64, theirs: u64) -> Option<&'static str> {
    let name = c.instruction();
    let is_fault = |rip: u64| (handler(0)..=handler(32)).contains(&rip);
    if theirs == handler(vector::UD) + 1 && ours != theirs {
        return Some("its emulator raises #UD");
    }
    if shuts_down && name == "PUSH" {
        return Some("it delivers #SS to a stack that has no room");
    }
    if ON_DESCRIPTORS.contains(&name) {
        return Some("its emulator has no such instruction");
    }
    if name == "IRETQ" && is_fault(ours) {
        return Some("it has an order of its own in what it checks of a frame");
    }
    if name == "add" && ours == theirs && is_fault(ours) {
        return Some("it reads, with what that does to A, before it finds that it may not write");
    }
    None
}
