//! "VMX-Preemption Timer".

use vmx_sim::control::{exit, pin};
use vmx_sim::exit::Reason;
use vmx_sim::field::*;
use x86::registers::RAX;

use crate::base::on;
use crate::machine::{run, vmcs};

/// A guest that does nothing else is left when the timer comes to zero, to the tick.
#[test]
fn it_stops_a_loop() {
    const TICKS: u64 = 500;
    let with_timer = |v: &mut vmx_sim::vmcs::Vmcs| {
        on(v, pin::ACTIVATE_VMX_PREEMPTION_TIMER);
        on(v, exit::SAVE_PREEMPTION_TIMER);
        v[PREEMPTION_TIMER_VALUE] = TICKS;
    };
    let bare = run(with_timer, |_| {}, &|a| {
        let mut turn = a.create_label();
        a.set_label(&mut turn)?;
        a.inc(iced_x86::code_asm::rax)?;
        a.jmp(turn)
    });
    let v = vmcs(&bare);
    assert_eq!((Reason::of(v[EXIT_REASON]), v[PREEMPTION_TIMER_VALUE]), (Some(Reason::PreemptionTimer), 0));
    // The VM entry is a tick, and each of the two instructions.
    assert_eq!(bare.reg(RAX), TICKS / 2);
}
