//! A processor in 64-bit mode with pages that are shadow stacks.

pub use x86_bare::*;

use iced_x86::code_asm::*;
use x86::control::{cr4, user_cet};
use x86::registers::SSP;

/// Shadow stacks: of the kernel, for its interrupts, of the user. Each is a page that begins here.
pub const SHADOW: u64 = 0x10_0000;
pub const SHADOW_0: u64 = 0x10_1000;
pub const SHADOW_IST: u64 = 0x10_2000;
pub const USER_SHADOW: u64 = 0x11_0000;
pub const USER_SHADOW_2: u64 = 0x11_1000;
pub const PAGE: u64 = 0x1000;

pub const BOTH: u64 = user_cet::SH_STK_EN | user_cet::WR_SHSTK_EN | user_cet::ENDBR_EN;

/// A guest with these values in IA32_S_CET and IA32_U_CET.
pub fn guest(supervisor: u64, user: u64) -> Bare {
    guest_of("intel", supervisor, user)
}

/// Likewise, of a model. User mode may call vectors 80h and 81h; SYSCALL from there notes SSP.
pub fn guest_of(model: &str, supervisor: u64, user: u64) -> Bare {
    // Dirty and not writable: a shadow stack.
    let page = |at| match at {
        USER_SHADOW.. => 0x45,
        SHADOW.. => 0x41,
        USER.. => page::USER,
        _ => page::SUPERVISOR,
    };
    let mut g = Bare::build(&Setup { page, ..Setup::of(model) });
    let cpu = g.cpu();
    cpu.cr4 |= cr4::CET | cr4::OSXSAVE;
    cpu.cet.supervisor = supervisor;
    cpu.cet.user = user;
    cpu.cet.ssp = [SHADOW_0 + PAGE - 8, 0, 0, USER_SHADOW + PAGE];
    g.put(SHADOW_0 + PAGE - 8, SHADOW_0 + PAGE - 8);
    g.set(SSP, SHADOW + PAGE);
    g.gate(SYSTEM_CALL + 1, 3, 0);
    g.system_call(&|a| {
        a.endbr64()?;
        a.mov(rbx, -1i64)?;
        a.rdsspq(rbx)?;
        a.mov(qword_ptr(NOTES), rbx)?;
        a.hlt()
    });
    g
}

/// A far pointer at `NOTES + 0x100`, through which it is called or jumped to: `opcode` is /3 or /5.
pub fn far(a: &mut CodeAssembler, opcode: u8, selector: u64, offset: u64) -> Result {
    a.mov(dword_ptr(NOTES + 0x100), offset as i32)?;
    a.mov(word_ptr(NOTES + 0x104), selector as i32)?;
    let at = (NOTES + 0x100) as u32;
    let [b0, b1, b2, b3] = at.to_le_bytes();
    a.db(&[0xff, opcode << 3 | 4, 0x25, b0, b1, b2, b3])
}
pub const CALL: u8 = 3;
pub const JUMP: u8 = 5;
