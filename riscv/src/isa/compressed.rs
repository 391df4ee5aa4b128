//! Compressed instructions (volume I, "C" Extension): each is another form of a 32-bit one.

use crate::cpu::CpuConfig;

/// The 32-bit instruction that a 16-bit one stands for; `None` if it is illegal.
pub(crate) fn expand(_insn: u16, _cpu: &CpuConfig) -> Option<u32> {
    None
}
