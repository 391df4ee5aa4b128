//! MSRs in VMX non-root operation (SDM vol. 3C, "Changes to Instruction Behavior in VMX Non-Root Operation"; "MSR-Bitmap Address").

use emu_core::engine::Step;
use x86::extension::Intercept;
use x86::processor::P;

use crate::control::{primary, tertiary};
use crate::exit::{Exit, Reason};
use crate::field::{MSR_BITMAPS, MSR_DATA, SPEC_CTRL_MASK, SPEC_CTRL_SHADOW};
use crate::vmx::Vmx;

/// IA32_SPEC_CTRL.
pub(crate) const SPEC_CTRL: u32 = 0x48;
/// IA32_LBR_CTL.
pub(crate) const LBR_CTL: u32 = 0x14ce;

impl Vmx {
    /// "MSR-Bitmap Address".
    fn msr_exits(&self, h: &mut P, msr: u32, write: bool) -> bool {
        if !self.vmcs.has(primary::USE_MSR_BITMAPS) {
            return true;
        }
        let offset = match msr {
            0..=0x1fff => 0,
            0xc000_0000..=0xc000_1fff => 1024,
            _ => return true,
        };
        let offset = offset + if write { 2048 } else { 0 } + u64::from(msr & 0x1fff) / 8;
        let byte = h.read_physical(self.vmcs[MSR_BITMAPS] + offset, 1).unwrap_or(0xff);
        byte >> (msr & 7) & 1 != 0
    }

    /// An instruction is about to read or write an MSR.
    pub(crate) fn msr_exit(&mut self, h: &mut P, what: &Intercept) -> Option<Exit> {
        use Intercept as I;
        let (reason, msr, written, register) = match *what {
            I::Rdmsr(msr) => (Reason::Rdmsr, msr, None, None),
            I::Wrmsr { msr, value } | I::Wrmsrns { msr, value } => (Reason::Wrmsr, msr, Some(value), None),
            I::Rdmsrlist(msr) => (Reason::Rdmsrlist, msr, None, None),
            I::Wrmsrlist { msr, value } => (Reason::Wrmsrlist, msr, Some(value), None),
            I::RdmsrImmediate { msr, register } => (Reason::RdmsrImmediate, msr, None, Some(register)),
            I::WrmsrnsImmediate { msr, register, value } => {
                (Reason::WrmsrnsImmediate, msr, Some(value), Some(register))
            }
            I::Urdmsr { msr, register } => (Reason::Urdmsr, msr, None, Some(register)),
            I::Uwrmsr { msr, register, value } => (Reason::Uwrmsr, msr, Some(value), Some(register)),
            _ => return None,
        };
        if !self.msr_exits(h, msr, written.is_some()) {
            return None;
        }
        let is_list = matches!(reason, Reason::Rdmsrlist | Reason::Wrmsrlist);
        // Of a list the MSR is told, and the value for it, if a bitmap asks for the exit.
        let is_told = register.is_some() || is_list && self.vmcs.has(primary::USE_MSR_BITMAPS);
        if is_list {
            self.vmcs[MSR_DATA] = written.filter(|_| is_told).unwrap_or(0);
        }
        let exit = Exit::instruction(reason).qualified(if is_told { msr.into() } else { 0 });
        Some(Exit { instruction_information: register.map(|r| u64::from(r) << 3), ..exit })
    }

    /// "Virtualize IA32_SPEC_CTRL".
    pub(crate) fn virtualizes_spec_ctrl(&self) -> bool {
        self.in_guest && self.vmcs.has(tertiary::VIRTUALIZE_IA32_SPEC_CTRL)
    }

    /// A guest reads the shadow.
    pub(crate) fn read_spec_ctrl(&self) -> Option<Step<u64>> {
        self.virtualizes_spec_ctrl().then(|| Ok(self.vmcs[SPEC_CTRL_SHADOW]))
    }

    /// A guest writes the shadow, and those bits of the MSR that the mask leaves to it. It may write what the MSR may hold.
    pub(crate) fn write_spec_ctrl(&mut self, h: &mut P, value: u64) -> Option<Step> {
        if !self.virtualizes_spec_ctrl() {
            return None;
        }
        let mut write = || {
            let (old, mask) = (x86::msr::read(h, SPEC_CTRL)?, self.vmcs[SPEC_CTRL_MASK]);
            x86::msr::write(h, SPEC_CTRL, value)?;
            x86::msr::write(h, SPEC_CTRL, old & mask | value & !mask)?;
            self.vmcs[SPEC_CTRL_SHADOW] = value;
            Ok(())
        };
        Some(write())
    }
}
