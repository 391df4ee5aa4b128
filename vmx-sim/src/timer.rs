//! The VMX-preemption timer (SDM vol. 3C, "VMX-Preemption Timer"). It counts down by one whenever bit [`TIMER_RATE`] of the TSC changes, and its
//! VM exit comes when it has come to zero: at a count of the machine's clock that is known as the guest begins.

use x86::processor::P;

use crate::capability::TIMER_RATE;
use crate::control::{exit, pin};
use crate::field::PREEMPTION_TIMER_VALUE;
use crate::vmx::Vmx;

/// The TSC in units of the timer.
fn ticks(h: &P) -> u64 {
    h.arch.tsc(h.core.count()) >> TIMER_RATE
}

impl Vmx {
    /// The guest begins.
    pub(crate) fn start_timer(&mut self, h: &mut P) {
        if !self.vmcs.has(pin::ACTIVATE_VMX_PREEMPTION_TIMER) {
            self.timer_expires = None;
            return;
        }
        let (now, value) = (h.core.count(), self.vmcs[PREEMPTION_TIMER_VALUE]);
        let expires = ticks(h).wrapping_add(value) << TIMER_RATE;
        let left = if value == 0 { 0 } else { expires.wrapping_sub(h.arch.tsc(now)) };
        self.timer_expires = Some(now + left);
        // The machine is to know when it comes to zero.
        h.core.call_for_attention();
    }

    /// It has come to zero.
    pub(crate) fn timer_has_expired(&self, h: &P) -> bool {
        self.timer_expires.is_some_and(|at| at <= h.core.count())
    }

    /// The guest ends: what is left is saved, if that is wanted.
    pub(crate) fn stop_timer(&mut self, h: &mut P) {
        let Some(expires) = self.timer_expires.take() else { return };
        // Nor does the machine plan for it any longer: whether it once did is no state.
        h.core.call_for_attention();
        if self.vmcs.has(exit::SAVE_PREEMPTION_TIMER) {
            let left = expires.saturating_sub(h.core.count());
            self.vmcs[PREEMPTION_TIMER_VALUE] = left.div_ceil(1 << TIMER_RATE);
        }
    }
}
