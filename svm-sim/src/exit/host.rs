//! "#VMEXIT": the host's state comes back from the host save area.
//!
//! The area at VM_HSAVE_PA has a VMCB's layout: the host's state is where a guest's is in the state-save area, RIP is that of the instruction behind
//! VMRUN. VMRUN writes it, #VMEXIT reads it; what is not listed at `save_state` is left alone. With LBR virtualization the host's registers of it
//! are there, too, and with nested paging its PAT.

use emu_core::engine::{Stop, StopKind};
use x86::control::{cr0, cr4, dr6, efer, rflags};
use x86::exception::vector;
use x86::extension;
use x86::processor::{P, ProcessorExt};
use x86::segment::Attributes;

use super::save::save_state;
use crate::svm::Svm;
use crate::vmcb::*;
use crate::vmrun::load_state;

/// What a VMCB has room for in what VMRUN writes, and not every host has: nothing that was there before goes to memory.
const UNUSED: [Field; 7] = {
    let [gdtr_selector, gdtr_attributes, ..] = segment(GDTR);
    let [idtr_selector, idtr_attributes, ..] = segment(IDTR);
    [gdtr_selector, gdtr_attributes, idtr_selector, idtr_attributes, S_CET, SSP, ISST_ADDR]
};

/// DR7 without breakpoints.
const DR7_NONE: u64 = 0x400;

impl Svm {
    /// VMRUN: saves the host's state; RIP is that of the next instruction.
    pub(crate) fn save_host(&mut self, h: &mut P) {
        let v = &mut self.room;
        for f in UNUSED {
            v.set(f, 0);
        }
        save_state(h, v);
        v.set(RIP, h.ip(h.core.next_pc));
        v.set(G_PAT, h.arch.pat());
        for (f, value) in BRANCHES.into_iter().zip(extension::last_branches(h)) {
            v.set(f, value);
        }
        v.store_host(h, self.msrs.hsave_pa, self.model.has(x86::model::Feature::Lbrv));
        self.host_if = h.arch.rflags & rflags::IF != 0;
        self.note_host(h);
    }

    /// Loads it. What cannot be the host's state is a shutdown.
    pub(super) fn load_host(&mut self, h: &mut P) -> Result<(), Stop> {
        self.room.load_save_area(h, self.msrs.hsave_pa);
        if !self.is_host_state(&self.room) {
            return Err(shutdown());
        }
        let v = &mut self.room;
        v.set(CR0, v.get(CR0) | cr0::PE);
        v.set(RFLAGS, v.get(RFLAGS) & !rflags::VM);
        let v = &self.room;
        load_state(h, v, 0);
        h.arch.dr7 = DR7_NONE;
        if self.nested(nested::NP_ENABLE) {
            x86::msr::set_pat(h, v.get(G_PAT));
        }
        if self.virtualizes_branches() {
            extension::set_last_branches(h, BRANCHES.map(|f| v.get(f)));
        }
        h.core.pc = h.linear_ip(v.get(RIP));
        if v.get(RFLAGS) & rflags::TF != 0 {
            // VMRUN has been stepped over.
            h.arch.debug_trap = dr6::BS;
        }
        h.all_changed();
        let is_pae = h.arch.cr0 & cr0::PG != 0 && h.arch.cr4 & cr4::PAE != 0 && !h.arch.is_long();
        if is_pae && extension::load_pdptes(h, v.get(CR3)).is_err() {
            return Err(shutdown());
        }
        Ok(())
    }

    /// What VMRUN asks of a guest's state, the host's must have, too.
    fn is_host_state(&self, v: &Vmcb) -> bool {
        let (cr0, cr4, efer) = (v.get(CR0), v.get(CR4), v.get(EFER));
        let is_long = efer & efer::LME != 0 && cr0 & cr0::PG != 0;
        let code = Attributes(v.get(CS_ATTRIB) as u32 & 0xff | (v.get(CS_ATTRIB) as u32 & 0xf00) << 4);
        efer & efer::SVME != 0
            && cr0 >> 32 == 0
            && (cr0 & cr0::NW == 0 || cr0 & cr0::CD != 0)
            && (!is_long || cr4 & cr4::PAE != 0 && cr0 & cr0::PE != 0)
            && (!is_long || !code.is_long() || !code.is_big())
            && (!is_long || self.is_physical(v.get(CR3) & !0xfff))
            && cr4 & !self.cr4_bits == 0
    }
}

/// The registers of "LBR Virtualization".
pub(crate) const BRANCHES: [Field; 5] = [DBGCTL, BR_FROM, BR_TO, LASTEXCPFROM, LASTEXCPTO];

fn shutdown() -> Stop {
    Stop::new(StopKind::Shutdown, vector::DF.into(), 0)
}
