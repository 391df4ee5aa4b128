//! "VMRUN Instruction": the guest's state is loaded.

use x86::control::{DR7_ENABLES, cr0, cr4, efer, rflags};
use x86::extension;
use x86::model::Feature;
use x86::processor::{P, ProcessorExt, segments};
use x86::registers;
use x86::segment::{Attributes, Segment, Table};

use super::{Check, Failure};
use crate::exit::BRANCHES;
use crate::svm::Svm;
use crate::vmcb::*;

/// CR0's bits that there are.
const CR0_DEFINED: u64 =
    cr0::PE | cr0::MP | cr0::EM | cr0::TS | cr0::NE | cr0::WP | cr0::AM | cr0::NW | cr0::CD | cr0::PG;
/// DR6 and DR7: bits that are 1, and those that software sets.
const DR6_FIXED_1: u64 = 0xffff_0ff0;
const DR6_WRITABLE: u64 = 0xe00f;
const DR7_FIXED_1: u64 = 0x400;
const DR7_WRITABLE: u64 = 0xffff_2bff;

/// A linear address, canonical by its lower bits ("Canonicalization").
fn canonical(h: &P, address: u64) -> u64 {
    let shift = 64 - u32::from(h.arch.model.linear_bits());
    ((address << shift) as i64 >> shift) as u64
}

/// A segment register as a VMCB has it. One that is not present holds a null selector.
fn loaded(h: &P, v: &Vmcb, i: usize) -> Segment {
    let [selector, attributes, limit, base] = segment(i);
    let bits = v.get(attributes) as u32;
    let attributes = Attributes(bits & 0xff | (bits & 0xf00) << 4);
    let attributes =
        if attributes.is_present() { attributes } else { Attributes(attributes.0 | Attributes::UNUSABLE.0) };
    let base = canonical(h, v.get(base));
    Segment { selector: v.get(selector) as u16, base, limit: v.get(limit) as u32, attributes }
}

fn table(h: &P, v: &Vmcb, i: usize) -> Table {
    let [_, _, limit, base] = segment(i);
    Table { base: canonical(h, v.get(base)), limit: v.get(limit) as u16 }
}

/// Loads what VMRUN loads of a guest, and #VMEXIT of the host, but for RIP.
pub(crate) fn load_state(h: &mut P, v: &Vmcb, cpl: u64) {
    let a = &mut h.arch;
    a.cr0 = v.get(CR0) & CR0_DEFINED | cr0::ET;
    a.cr3 = v.get(CR3);
    a.cr4 = v.get(CR4);
    let is_long = v.get(EFER) & efer::LME != 0 && a.cr0 & cr0::PG != 0;
    a.efer = v.get(EFER) & !efer::LMA | if is_long { efer::LMA } else { 0 };
    for i in [segments::ES, segments::CS, segments::SS, segments::DS] {
        let mut s = loaded(h, v, i);
        if i == segments::SS {
            // CPL is SS's DPL here.
            s.attributes = Attributes(s.attributes.0 & !0x60 | (cpl as u32) << 5);
        }
        h.set_segment(i, s);
    }
    h.arch.gdtr = table(h, v, GDTR);
    h.arch.idtr = table(h, v, IDTR);
    h.set_rflags(v.get(RFLAGS));
    h.set_reg(registers::RSP, v.get(RSP));
    h.set_reg(registers::RAX, v.get(RAX));
    if h.arch.model.has(Feature::Shstk) {
        h.arch.cet.supervisor = v.get(S_CET);
        h.arch.cet.interrupt_ssp_table = v.get(ISST_ADDR);
        h.set_reg(registers::SSP, v.get(SSP));
    }
}

/// What VMLOAD loads.
pub(crate) fn load_more(h: &mut P, v: &Vmcb) {
    for i in [segments::FS, segments::GS] {
        let s = loaded(h, v, i);
        h.set_segment(i, s);
    }
    h.arch.ldtr = loaded(h, v, LDTR);
    h.arch.tr = loaded(h, v, TR);
    let c = |f| canonical(h, v.get(f));
    let [lstar, cstar, kernel_gs_base] = [LSTAR, CSTAR, KERNEL_GS_BASE].map(c);
    let [sysenter_esp, sysenter_eip] = [SYSENTER_ESP, SYSENTER_EIP].map(c);
    let a = &mut h.arch;
    a.star = v.get(STAR);
    a.lstar = lstar;
    a.set_cstar(cstar);
    a.fmask = v.get(SFMASK);
    a.kernel_gs_base = kernel_gs_base;
    a.sysenter_cs = v.get(SYSENTER_CS);
    a.sysenter_esp = sysenter_esp;
    a.sysenter_eip = sysenter_eip;
}

impl Svm {
    /// "TLB Control": 1 drops all that there is, 3 what the guest's ASID tags, 7 what of it is not global. Translations for global pages
    /// are held as others are, and dropped with them.
    pub(super) fn control_translations(&mut self, h: &mut P) {
        let asid = self.vmcb.get(GUEST_ASID);
        match self.vmcb.get(TLB_CONTROL) {
            0 => {}
            3 | 7 if self.has(Feature::FlushByAsid) => h.core.mmu.drop_spaces(|key| key.0 >> 20 == asid),
            _ => h.core.mmu.drop_spaces(|_| true),
        }
    }

    /// Loads the guest.
    pub(super) fn load_guest(&mut self, h: &mut P) {
        let v = &self.vmcb;
        let cpl = match (v.get(CR0) & cr0::PE != 0, v.get(RFLAGS) & rflags::VM != 0) {
            (false, _) => 0,
            (true, true) => 3,
            _ => v.get(CPL) & 3,
        };
        load_state(h, v, cpl);
        h.arch.cr2 = v.get(CR2);
        h.arch.dr6 = v.get(DR6) & DR6_WRITABLE | DR6_FIXED_1;
        let dr7 = v.get(DR7) & DR7_WRITABLE | DR7_FIXED_1;
        if dr7 & DR7_ENABLES != 0 {
            // Pages that are watched now may be held.
            h.core.mmu.drop_spaces(|_| true);
        }
        h.arch.dr7 = dr7;
        if self.nested(nested::NP_ENABLE) {
            x86::msr::set_pat(h, self.vmcb.get(G_PAT));
        }
        if self.virtualizes_branches() {
            extension::set_last_branches(h, BRANCHES.map(|f| self.vmcb.get(f)));
        }
        h.core.next_pc = h.linear_ip(self.vmcb.get(RIP));
        h.all_changed();
    }

    /// "Canonicalization and Consistency Checks": PDPTEs that cannot be loaded. With nested paging there are no registers for them.
    pub(super) fn load_pdptes(&self, h: &mut P) -> Check {
        let is_pae = h.arch.cr0 & cr0::PG != 0 && h.arch.cr4 & cr4::PAE != 0 && !h.arch.is_long();
        if self.nested(nested::NP_ENABLE) || !is_pae {
            return Ok(());
        }
        let cr3 = self.vmcb.get(CR3);
        let rule = "PDPTEs without reserved bits";
        extension::load_pdptes(h, cr3).map_err(|_| Failure { field: "CR3", value: cr3, rule })
    }
}
