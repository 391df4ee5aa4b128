//! "Loading Host State".

use x86::control::{cr4, efer};
use x86::extension;
use x86::processor::{P, ProcessorExt, segments};
use x86::registers::{RSP, SSP};
use x86::segment::{Attributes, Segment, Table};

use super::Abort;
use crate::capability::CR0_KEPT;
use crate::control::exit;
use crate::field::*;
use crate::msr::LBR_CTL;
use crate::vmx::Vmx;

/// DR7 of the host.
const DR7: u64 = 0x400;
/// Access rights of the host's code, in 64-bit mode and else; of its other segments; of its TR.
const CODE_64: Attributes = Attributes(0xa09b);
const CODE_32: Attributes = Attributes(0xc09b);
const DATA: Attributes = Attributes(0xc093);
const TASK: Attributes = Attributes(0x008b);

impl Vmx {
    pub(super) fn load_host(&mut self, h: &mut P) -> Result<(), Abort> {
        let v = &self.vmcs;
        let is_64 = v.has(exit::HOST_ADDRESS_SPACE_SIZE);
        // "Loading Host Control Registers, Debug Registers, MSRs".
        h.arch.dr7 = DR7;
        x86::msr::set_debugctl(h, 0);
        h.arch.cr0 = h.arch.cr0 & CR0_KEPT | v[HOST_CR0] & !CR0_KEPT;
        h.arch.cr3 = v[HOST_CR3];
        h.arch.cr4 = if is_64 { v[HOST_CR4] | cr4::PAE } else { v[HOST_CR4] & !cr4::PCIDE };
        h.arch.sysenter_cs = v[HOST_SYSENTER_CS];
        h.arch.sysenter_esp = v[HOST_SYSENTER_ESP];
        h.arch.sysenter_eip = v[HOST_SYSENTER_EIP];
        let size = if is_64 { efer::LMA | efer::LME } else { 0 };
        h.arch.efer = h.arch.efer & !(efer::LMA | efer::LME) | size;
        if v.has(exit::LOAD_EFER) {
            h.arch.efer = v[HOST_EFER];
        }
        if v.has(exit::LOAD_PAT) {
            x86::msr::set_pat(h, v[HOST_PAT]);
        }
        if v.has(exit::LOAD_PERF_GLOBAL_CTRL) {
            let _ = x86::msr::write(h, x86::msr::PERF_GLOBAL_CTRL, self.vmcs[HOST_PERF_GLOBAL_CTRL]);
        }
        let v = &self.vmcs;
        if v.has(exit::CLEAR_LBR_CTL) {
            let _ = x86::msr::write(h, LBR_CTL, 0);
        }
        if v.has(exit::LOAD_PKRS) {
            h.arch.pkrs = v[HOST_PKRS] as u32;
        }
        if v.has(exit::LOAD_CET_STATE) {
            h.arch.cet.supervisor = v[HOST_S_CET];
            h.arch.cet.interrupt_ssp_table = v[HOST_INTERRUPT_SSP_TABLE_ADDR];
            h.core.regs[usize::from(SSP)] = v[HOST_SSP];
        }
        // "Loading Host Segment and Descriptor-Table Registers".
        let code = if is_64 { CODE_64 } else { CODE_32 };
        let bases = [0, 0, 0, 0, v[HOST_FS_BASE], v[HOST_GS_BASE]];
        for (i, base) in bases.into_iter().enumerate() {
            let selector = self.vmcs[Field(HOST_ES_SELECTOR.0 + 2 * i as u16)] as u16;
            let attributes = match i {
                segments::CS => code,
                _ if selector == 0 => Attributes(Attributes::UNUSABLE.0 | DATA.0),
                _ => DATA,
            };
            h.set_segment(i, Segment { selector, base, limit: u32::MAX, attributes });
        }
        let v = &self.vmcs;
        h.arch.tr =
            Segment { selector: v[HOST_TR_SELECTOR] as u16, base: v[HOST_TR_BASE], limit: 0x67, attributes: TASK };
        h.arch.ldtr = Segment { attributes: Attributes::UNUSABLE, ..Segment::default() };
        h.arch.gdtr = Table { base: v[HOST_GDTR_BASE], limit: 0xffff };
        h.arch.idtr = Table { base: v[HOST_IDTR_BASE], limit: 0xffff };
        // "Loading Host RIP, RSP, RFLAGS, and SSP".
        h.set_rflags(2);
        h.arch.resumed_at = None;
        h.arch.step_from = None;
        h.set_reg(RSP, v[HOST_RSP]);
        let (rip, cr3) = (v[HOST_RIP], v[HOST_CR3]);
        h.core.pc = if is_64 { rip } else { rip & 0xffff_ffff };
        h.all_changed();
        // "Checking and Loading Host Page-Directory-Pointer-Table Entries".
        if !is_64 && h.arch.cr4 & cr4::PAE != 0 && extension::load_pdptes(h, cr3).is_err() {
            return Err(Abort::HostPdpte);
        }
        Ok(())
    }
}
