//! Control of the x87: FINIT, FCLEX, control and status words, the stack pointer; what MMX does to the state.

use super::X87;
use super::status::*;

impl X87 {
    /// FNINIT.
    pub fn fninit(&mut self) {
        *self = X87 { r: self.r, ..X87::default() };
    }

    /// FNCLEX.
    pub fn fnclex(&mut self) {
        self.status &= !(EXCEPTIONS | SF | ES | B);
    }

    /// FLDCW. An exception whose flag is set already may become pending.
    pub fn fldcw(&mut self, control: u16) {
        self.control = control & 0x1f3f | 0x0040;
        self.update_summary();
    }

    /// FNSTCW.
    pub fn fnstcw(&self) -> u16 {
        self.control
    }

    /// FNSTSW.
    pub fn fnstsw(&self) -> u16 {
        self.status
    }

    /// FINCSTP.
    pub fn fincstp(&mut self) {
        self.set_if(C1, false);
        self.set_top(self.top() + 1);
    }

    /// FDECSTP.
    pub fn fdecstp(&mut self) {
        self.set_if(C1, false);
        self.set_top(self.top() + 7);
    }

    /// FFREE.
    pub fn ffree(&mut self, i: usize) {
        self.free(i);
    }

    /// FFREEP: FFREE, and a pop. In the opcode maps, though on no page of its own.
    pub fn ffreep(&mut self, i: usize) {
        self.free(i);
        self.pop();
    }

    /// What every MMX instruction but EMMS does: TOP is 0 and all registers are in use. SDM vol. 1, "Effect of MMX, x87 FPU,
    /// FXSAVE, and FXRSTOR Instructions on the x87 FPU Tag Word".
    pub fn enter_mmx(&mut self) {
        self.set_top(0);
        self.tag = 0xff;
    }

    /// An MMX register. To be read after [`X87::enter_mmx`].
    pub fn mmx(&self, i: usize) -> u64 {
        self.r[i] as u64
    }

    /// A write of an MMX register: the exponent and the sign of the x87's become ones.
    pub fn set_mmx(&mut self, i: usize, x: u64) {
        self.r[i] = 0xffff << 64 | u128::from(x);
    }

    /// EMMS.
    pub fn emms(&mut self) {
        self.set_top(0);
        self.tag = 0;
    }
}
