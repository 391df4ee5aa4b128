//! "Mode-based execute control for EPT". The guest's page tables say which pages are user-mode ones: a supervisor may fetch from them, too.

use vmx_sim::control::secondary;
use vmx_sim::exit::Reason;
use vmx_sim::field::*;
use x86_bare::{Bare, Code, PT, USER, page};

use crate::base::on;
use crate::machine::{ALL, map, run, vmcs};

const EXECUTE: u64 = 1 << 2;
const EXECUTE_USER: u64 = 1 << 10;
const SUPERVISOR: u64 = USER - 0x1000;

/// Jumps to a page that the guest's own tables give to user mode, or not, and whose EPT entry has these bits. Gives the exit reason and qualification.
fn jump(to: u64, bits: u64, by_mode: bool) -> (Option<Reason>, u64) {
    let code: Code = &|a| {
        a.mov(iced_x86::code_asm::rax, to)?;
        a.jmp(iced_x86::code_asm::rax)
    };
    let bare = run(
        |v| {
            if by_mode {
                on(v, secondary::MODE_BASED_EXECUTE_CONTROL);
            }
        },
        |bare: &mut Bare| {
            let user = if to == USER { page::USER } else { page::SUPERVISOR };
            bare.put(PT + to / 4096 * 8, to | user);
            bare.assemble(to, &|a| a.vmcall());
            map(bare, to, bits);
        },
        code,
    );
    (Reason::of(vmcs(&bare)[EXIT_REASON]), vmcs(&bare)[EXIT_QUALIFICATION])
}

#[test]
fn fetches_ask_the_bit_of_their_pages_mode() {
    let done = (Some(Reason::Vmcall), 0);
    for (to, granted, refused) in [(USER, EXECUTE_USER, EXECUTE), (SUPERVISOR, EXECUTE, EXECUTE_USER)] {
        let without = ALL & !EXECUTE;
        assert_eq!(jump(to, without | granted, true), done);
        let (reason, qualification) = jump(to, without | refused, true);
        assert_eq!(reason, Some(Reason::EptViolation));
        let bits = if refused == EXECUTE { 1 << 5 } else { 1 << 6 };
        let user = u64::from(to == USER) << 9;
        assert_eq!(qualification, 1 << 2 | 3 << 3 | bits | 3 << 7 | user | 1 << 10);
        // Without the control bit 10 says nothing.
        assert_eq!(jump(to, without | EXECUTE, false), done);
        assert_eq!(jump(to, without | EXECUTE_USER, false).1 >> 3 & 0xf, 3);
    }
}

/// Bit 10 alone makes an entry present.
#[test]
fn user_execute_only() {
    assert_eq!(jump(USER, 0x30 | EXECUTE_USER, true).0, Some(Reason::Vmcall));
    assert_eq!(jump(USER, 0x30 | EXECUTE_USER, false).1 >> 3 & 0xf, 0);
}
