//! "Exit Qualification for I/O Instructions", of INS and OUTS.

use iced_x86::code_asm::*;
use vmx_sim::control::primary;
use vmx_sim::exit::Reason;
use vmx_sim::field::*;
use vmx_sim::vmcs::Vmcs;
use x86_bare::Code;

use crate::base::on;
use crate::machine::{DATA, entry, run, vmcs};

const STRING: u64 = 1 << 4;
const IN: u64 = 1 << 3;
const REP: u64 = 1 << 5;
const PORT: u64 = 0x1234;
const FS_BASE: u64 = 0x1000;

/// Reason, qualification, instruction information, linear address, length. Nothing is at the operand's address.
fn exit_of(instruction: Code, count: u64) -> (Option<Reason>, u64, u64, u64, u64) {
    let exits = |v: &mut Vmcs| {
        on(v, primary::UNCONDITIONAL_IO_EXITING);
        v[GUEST_FS_BASE] = FS_BASE;
    };
    let bare = run(exits, |bare| bare.put(entry(DATA), 0), &|a| {
        a.mov(edx, PORT as u32)?;
        a.mov(rcx, count)?;
        a.mov(rsi, DATA + 3 + (1 << 32))?;
        a.mov(rdi, DATA + 5 + (1 << 32))?;
        instruction(a)?;
        a.vmcall()
    });
    let v = vmcs(&bare);
    (
        Reason::of(v[EXIT_REASON]),
        v[EXIT_QUALIFICATION],
        v[EXIT_INSTRUCTION_INFORMATION],
        v[GUEST_LINEAR_ADDRESS],
        v[EXIT_INSTRUCTION_LENGTH],
    )
}

/// The exit comes before the operand in memory is looked at, and tells where that is.
#[test]
fn strings() {
    let io = Some(Reason::Io);
    let port = PORT << 16;
    let high = 1 << 32;
    // Address size: 2 is 64 bits, 1 is 32. Segment: 3 is DS, 4 is FS.
    assert_eq!(exit_of(&|a| a.outsb(), 1), (io, STRING | port, 2 << 7 | 3 << 15, DATA + 3 + high, 1));
    assert_eq!(exit_of(&|a| a.insw(), 1), (io, 1 | IN | STRING | port, 2 << 7, DATA + 5 + high, 2));
    assert_eq!(exit_of(&|a| a.rep().outsd(), 2), (io, 3 | STRING | REP | port, 2 << 7 | 3 << 15, DATA + 3 + high, 2));
    // FS OUTSB with 32-bit addresses.
    let by_fs: Code = &|a| a.db(&[0x64, 0x67, 0x6e]);
    assert_eq!(exit_of(by_fs, 1), (io, STRING | port, 1 << 7 | 4 << 15, FS_BASE + DATA + 3, 3));
}

/// Nothing is repeated no times.
#[test]
fn no_elements() {
    assert_eq!(exit_of(&|a| a.rep().insb(), 0).0, Some(Reason::Vmcall));
}
