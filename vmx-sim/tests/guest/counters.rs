//! Performance counters that a VM entry starts.

use iced_x86::code_asm::*;
use vmx_sim::control::entry;
use vmx_sim::field::*;
use x86::msr;

use crate::base::on;
use crate::machine::{DATA, run};

/// IA32_FIXED_CTR_CTRL: the first fixed counter counts at all levels.
const FIXED_CTR_CTRL: u32 = 0x38d;
const FIRST_FIXED: u64 = 1 << 32;

/// What is counted is of the guest: neither the host's instructions nor the one that enters.
#[test]
fn they_count_the_guests_instructions() {
    let bare = run(
        |v| {
            on(v, entry::LOAD_PERF_GLOBAL_CTRL);
            v[GUEST_PERF_GLOBAL_CTRL] = FIRST_FIXED;
        },
        |bare| {
            let mut h = bare.at_work();
            msr::write(&mut h, msr::PERF_GLOBAL_CTRL, 0).unwrap();
            msr::write(&mut h, FIXED_CTR_CTRL, 3).unwrap();
        },
        &|a| {
            a.nop()?;
            a.mov(ecx, 1u32 << 30)?;
            a.rdpmc()?;
            a.mov(qword_ptr(DATA), rax)?;
            a.vmcall()
        },
    );
    assert_eq!(bare.get(DATA), 2);
}
