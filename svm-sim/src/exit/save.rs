//! "#VMEXIT": the guest's state is saved in the VMCB.

use x86::extension;
use x86::model::Feature;
use x86::processor::{P, ProcessorExt, segments};
use x86::registers::{self, FS_BASE, GS_BASE};
use x86::segment::{Attributes, Segment, Table};

use super::host::BRANCHES;
use crate::svm::Svm;
use crate::vmcb::*;

/// Attributes as a VMCB has them: bits 55 to 52 and 47 to 40 of a descriptor, without a gap. A register that holds a null selector is not present.
fn pack(a: Attributes) -> u64 {
    let bits = u64::from(a.0 & 0xff | a.0 >> 4 & 0xf00);
    if a.is_unusable() { bits & !0x80 } else { bits }
}

/// Saves a segment register.
fn save_segment(v: &mut Vmcb, i: usize, s: Segment) {
    let [selector, attributes, limit, base] = segment(i);
    v.set(selector, s.selector.into());
    v.set(attributes, pack(s.attributes));
    v.set(limit, s.limit.into());
    v.set(base, s.base);
}

fn save_table(v: &mut Vmcb, i: usize, t: Table) {
    let [_, _, limit, base] = segment(i);
    v.set(limit, t.limit.into());
    v.set(base, t.base);
}

/// What VMRUN saves of the host, and #VMEXIT of the guest: ES, CS, SS, DS, GDTR, IDTR, EFER, CR0, CR3, CR4, RFLAGS, RSP, RAX. RIP is the caller's.
pub(super) fn save_state(h: &P, v: &mut Vmcb) {
    let a = &h.arch;
    for i in [segments::ES, segments::CS, segments::SS, segments::DS] {
        save_segment(v, i, a.segments[i]);
    }
    save_table(v, GDTR, a.gdtr);
    save_table(v, IDTR, a.idtr);
    v.set(EFER, a.efer);
    v.set(CR0, a.cr0);
    v.set(CR3, a.cr3);
    v.set(CR4, a.cr4);
    v.set(RFLAGS, h.rflags());
    v.set(RSP, h.reg(registers::RSP));
    v.set(RAX, h.reg(registers::RAX));
    if a.model.has(Feature::Shstk) {
        v.set(S_CET, a.cet.supervisor);
        v.set(SSP, h.reg(registers::SSP));
        v.set(ISST_ADDR, a.cet.interrupt_ssp_table);
    }
}

/// What VMSAVE saves: FS, GS, LDTR, TR with all that they cache, KernelGSBase, the registers of SYSCALL and SYSENTER.
pub(crate) fn save_more(h: &P, v: &mut Vmcb) {
    let a = &h.arch;
    save_segment(v, segments::FS, Segment { base: h.reg(FS_BASE), ..a.segments[segments::FS] });
    save_segment(v, segments::GS, Segment { base: h.reg(GS_BASE), ..a.segments[segments::GS] });
    save_segment(v, LDTR, a.ldtr);
    save_segment(v, TR, a.tr);
    v.set(STAR, a.star);
    v.set(LSTAR, a.lstar);
    v.set(CSTAR, a.cstar());
    v.set(SFMASK, a.fmask);
    v.set(KERNEL_GS_BASE, a.kernel_gs_base);
    v.set(SYSENTER_CS, a.sysenter_cs);
    v.set(SYSENTER_ESP, a.sysenter_esp);
    v.set(SYSENTER_EIP, a.sysenter_eip);
}

impl Svm {
    /// Saves the guest's state.
    pub(super) fn save_guest(&mut self, h: &mut P) {
        save_state(h, &mut self.vmcb);
        self.save_tpr(h);
        let present = extension::present_instruction(h);
        let is_shadowed = h.arch.shadow == Some(present);
        let a = &mut h.arch;
        let v = &mut self.vmcb;
        v.set(CPL, a.cpl().into());
        v.set(CR2, a.cr2);
        v.set(DR6, a.dr6);
        v.set(DR7, a.dr7);
        v.set(INTERRUPT_SHADOW, is_shadowed.into());
        a.waiting.ends();
        a.woken_at = None;
        a.shadow = None;
        a.shadow_holds_traps = false;
        a.step_from = None;
        a.resumed_at = None;
        a.debug_trap = 0;
        a.injected = None;
        if self.nested(nested::NP_ENABLE) {
            self.vmcb.set(G_PAT, h.arch.pat());
        }
        if self.virtualizes_branches() {
            let registers = extension::last_branches(h);
            for (f, value) in BRANCHES.into_iter().zip(registers) {
                self.vmcb.set(f, value);
            }
        }
        self.vmcb.set(RIP, h.ip(h.core.pc));
    }

    /// "LBR Virtualization".
    pub(crate) fn virtualizes_branches(&self) -> bool {
        self.has(Feature::Lbrv) && self.vmcb.get(VIRTUALIZATION_CONTROL) & more::LBR_VIRTUALIZATION_ENABLE != 0
    }
}
