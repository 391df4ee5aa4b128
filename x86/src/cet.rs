//! Control-flow Enforcement Technology (SDM vol. 1, chapter "Control-flow Enforcement Technology (CET)"; APM vol. 2, "Shadow Stacks"): its
//! registers, and when it is at work.

use serde::{Deserialize, Serialize};

use crate::control::{cr0, cr4, user_cet};
use crate::exception::{Exception, vector};
use crate::model::Feature;
use crate::processor::X86;

/// CET's registers but for SSP, which is among [`registers`](crate::registers).
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Cet {
    /// IA32_U_CET.
    pub user: u64,
    /// IA32_S_CET.
    pub supervisor: u64,
    /// IA32_PL0_SSP to IA32_PL3_SSP.
    pub ssp: [u64; 4],
    /// IA32_INTERRUPT_SSP_TABLE_ADDR.
    pub interrupt_ssp_table: u64,
    /// The instruction at this count of retired instructions is an ENDBRANCH that an indirect branch has led to: just before it the
    /// tracker waits, though its bit is not set.
    pub(crate) endbranch_at: Option<u64>,
}

/// Error codes of #CP ("Interrupt 21—Control Protection Exception (#CP)").
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "the manual's names")]
#[repr(u16)]
pub enum ControlProtection {
    NearRet = 1,
    FarRetIret = 2,
    Endbranch = 3,
    Rstorssp = 4,
    Setssbsy = 5,
}

impl From<ControlProtection> for Exception {
    fn from(cause: ControlProtection) -> Exception {
        Exception::with(vector::CP, cause as u16)
    }
}

/// Bits 9 to 6 of IA32_U_CET and IA32_S_CET.
const RESERVED: u64 = 0x3c0;
/// What there is of them for shadow stacks; the rest is for indirect branch tracking.
const SHADOW_STACKS: u64 = user_cet::SH_STK_EN | user_cet::WR_SHSTK_EN;

impl X86 {
    /// IA32_U_CET or IA32_S_CET, as a privilege level has it outside of virtual-8086 mode; 0 where CET is off.
    pub(crate) fn cet_at(&self, cpl: u8) -> u64 {
        if self.cr4 & cr4::CET == 0 || self.cr0 & cr0::PE == 0 {
            0
        } else if cpl == 3 {
            self.cet.user
        } else {
            self.cet.supervisor
        }
    }

    /// Likewise, at the present level and in the present mode.
    pub(crate) fn cet_now(&self) -> u64 {
        if self.is_v8086() { 0 } else { self.cet_at(self.cpl()) }
    }

    /// The present level's register.
    pub(crate) fn cet_register(&mut self, cpl: u8) -> &mut u64 {
        if cpl == 3 { &mut self.cet.user } else { &mut self.cet.supervisor }
    }

    /// ShadowStackEnabled(CPL).
    pub fn has_shadow_stack(&self) -> bool {
        self.cet_now() & user_cet::SH_STK_EN != 0
    }

    /// Whether a privilege level outside of virtual-8086 mode has a shadow stack.
    pub(crate) fn has_shadow_stack_at(&self, cpl: u8) -> bool {
        self.cet_at(cpl) & user_cet::SH_STK_EN != 0
    }

    /// Whether IA32_U_CET and IA32_S_CET take a value: reserved bits, the address of the bitmap, and never both SUPPRESS and a tracker that
    /// waits.
    pub fn is_cet_control(&self, value: u64) -> bool {
        let shadow_stacks = if self.model.has(Feature::Shstk) { SHADOW_STACKS } else { 0 };
        let tracking = if self.model.has(Feature::Ibt) { !(SHADOW_STACKS | RESERVED) } else { 0 };
        let both = user_cet::SUPPRESS | user_cet::TRACKER;
        value & !(shadow_stacks | tracking) == 0 && value & both != both && self.is_canonical_in_registers(value)
    }

    /// Whether IA32_PL0_SSP to IA32_PL3_SSP take a value.
    pub(crate) fn is_shadow_stack_pointer(&self, value: u64) -> bool {
        value & 3 == 0 && self.is_canonical_in_registers(value)
    }
}
