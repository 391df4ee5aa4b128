//! "Loading Guest State", "Event Injection", "Special Features of VM Entry".

use emu_core::engine::{Step, Stop, StopKind};
use x86::control::{DR7_ENABLES, cr0, cr4, dr6, efer};
use x86::extension::{self, Delivery, Origin};
use x86::processor::{P, ProcessorExt, segments};
use x86::registers::{RSP, SSP};
use x86::segment::{Attributes, Segment, Table};

use super::{Vmx, activity, interruptibility as blocking};
use crate::capability::CR0_KEPT;
use crate::control::{entry, pin, secondary};
use crate::exit::VALID;
use crate::field::*;
use crate::msr::LBR_CTL;
use crate::tags::Tags;

/// DR7's bits that are fixed, and those that are 0.
const DR7_FIXED_1: u64 = 0x400;
const DR7_FIXED_0: u64 = 0xd000;

impl Vmx {
    /// Loads all of it.
    pub(super) fn load_guest(&mut self, h: &mut P) {
        self.in_guest = true;
        self.load_registers(h);
        self.load_segments(h);
        let v = &self.vmcs;
        h.set_reg(RSP, v[GUEST_RSP]);
        h.set_rflags(v[GUEST_RFLAGS]);
        h.core.next_pc = h.linear_ip(v[GUEST_RIP]);
        if v.has(entry::LOAD_CET_STATE) {
            h.arch.cet.supervisor = v[GUEST_S_CET];
            h.arch.cet.interrupt_ssp_table = v[GUEST_INTERRUPT_SSP_TABLE_ADDR];
            h.set_reg(SSP, v[GUEST_SSP]);
        }
        let vpid = if v.has(secondary::ENABLE_VPID) { v[VPID] } else { 0 };
        if vpid == 0 {
            Tags::drop_vpid_0(h);
        }
        let v = &self.vmcs;
        self.tags.enter(vpid, v.uses_ept().then_some(v[EPT_POINTER]));
        h.all_changed();
        self.load_pdptes(h);
    }

    /// "Loading Guest Control Registers, Debug Registers, and MSRs".
    fn load_registers(&mut self, h: &mut P) {
        let v = &self.vmcs;
        let a = &mut h.arch;
        a.cr0 = a.cr0 & CR0_KEPT | v[GUEST_CR0] & !CR0_KEPT;
        a.cr3 = v[GUEST_CR3];
        a.cr4 = v[GUEST_CR4];
        a.sysenter_cs = v[GUEST_SYSENTER_CS];
        a.sysenter_esp = v[GUEST_SYSENTER_ESP];
        a.sysenter_eip = v[GUEST_SYSENTER_EIP];
        if v.has(entry::LOAD_EFER) {
            a.efer = v[GUEST_EFER];
        } else {
            let lma = if v.has(entry::IA32E_MODE_GUEST) { efer::LMA } else { 0 };
            let paged = v[GUEST_CR0] & cr0::PG != 0;
            let lme = if paged { lma >> 2 } else { a.efer & efer::LME };
            a.efer = a.efer & !(efer::LMA | efer::LME) | lma | lme;
        }
        if v.has(entry::LOAD_PKRS) {
            a.pkrs = v[GUEST_PKRS] as u32;
        }
        if v.has(entry::LOAD_DEBUG_CONTROLS) {
            let dr7 = v[GUEST_DR7] & !DR7_FIXED_0 | DR7_FIXED_1;
            if dr7 & DR7_ENABLES != 0 {
                // Pages that are watched now may be held.
                h.core.mmu.drop_spaces(|_| true);
            }
            h.arch.dr7 = dr7;
            x86::msr::set_debugctl(h, v[GUEST_DEBUGCTL]);
        }
        if v.has(entry::LOAD_PAT) {
            x86::msr::set_pat(h, v[GUEST_PAT]);
        }
        if v.has(entry::LOAD_PERF_GLOBAL_CTRL) {
            let _ = x86::msr::write(h, x86::msr::PERF_GLOBAL_CTRL, v[GUEST_PERF_GLOBAL_CTRL]);
            x86::msr::skip_present(h);
        }
        if v.has(entry::LOAD_LBR_CTL) {
            let _ = x86::msr::write(h, LBR_CTL, v[GUEST_LBR_CTL]);
        }
    }

    /// "Loading Guest Segment Registers and Descriptor-Table Registers".
    fn load_segments(&mut self, h: &mut P) {
        let v = &self.vmcs;
        let segment = |i: usize| {
            let [selector, base, limit, rights] = guest_segment(i);
            Segment {
                selector: v[selector] as u16,
                base: v[base],
                limit: v[limit] as u32,
                attributes: Attributes(v[rights] as u32),
            }
        };
        for i in 0..6 {
            let mut s = segment(i);
            if s.attributes.is_unusable() && !matches!(i, segments::CS | segments::FS | segments::GS) {
                s.base = 0;
            }
            h.set_segment(i, s);
        }
        h.arch.ldtr = segment(LDTR);
        h.arch.tr = segment(TR);
        h.arch.gdtr = Table { base: v[GUEST_GDTR_BASE], limit: v[GUEST_GDTR_LIMIT] as u16 };
        h.arch.idtr = Table { base: v[GUEST_IDTR_BASE], limit: v[GUEST_IDTR_LIMIT] as u16 };
    }

    /// "Loading Page-Directory-Pointer-Table Entries".
    fn load_pdptes(&mut self, h: &mut P) {
        if h.arch.is_long() {
            return;
        }
        if self.vmcs.uses_ept() {
            for (i, pdpte) in h.arch.pdptes.iter_mut().enumerate() {
                *pdpte = self.vmcs[Field(GUEST_PDPTE0.0 + 2 * i as u16)];
            }
        } else if h.arch.cr0 & cr0::PG != 0 && h.arch.cr4 & cr4::PAE != 0 {
            // They have been checked.
            let _ = extension::load_pdptes(h, self.vmcs[GUEST_CR3]);
        }
    }

    /// What the guest begins with: its interruptibility, what is injected or pending, its activity state.
    pub(super) fn begin(&mut self, h: &mut P) -> Step {
        // The VM entry is an instruction, too; the guest's is the next.
        let first = extension::present_instruction(h) + 1;
        self.iret_unblocked_at = None;
        self.pauses = None;
        let v = &self.vmcs;
        let state = v[GUEST_INTERRUPTIBILITY_STATE];
        let information = v[ENTRY_INTERRUPTION_INFORMATION];
        let is_valid = information & VALID != 0;
        let shadowed = state & (blocking::STI | blocking::MOV_SS) != 0 && !is_valid;
        h.arch.shadow = shadowed.then_some(first);
        h.arch.shadow_holds_traps = shadowed && state & blocking::MOV_SS != 0;
        let nmi = state & blocking::NMI != 0;
        if v.has(pin::VIRTUAL_NMIS) {
            self.virtual_nmi_blocked = nmi;
            h.arch.nmi_blocked = false;
        } else {
            h.arch.nmi_blocked = nmi;
        }
        self.start_timer(h);
        self.begin_virtual_apic(h);
        let v = &self.vmcs;
        // "Pending Debug Exceptions": injected events but NMIs and interrupts discard them.
        let kind = information >> 8 & 7;
        let keeps = !is_valid || matches!(kind, 0 | 2 | 7);
        let pending = if keeps { v[GUEST_PENDING_DEBUG_EXCEPTIONS] } else { 0 };
        h.arch.debug_trap = pending & (0xf | dr6::BS);
        h.arch.step_from = None;
        h.arch.injected = None;
        self.trap_flag_from = first + 1;
        if is_valid {
            self.trap_flag_from = first;
            self.inject(h, information);
        }
        h.core.check_interrupts = true;
        let v = &self.vmcs;
        match v[GUEST_ACTIVITY_STATE] {
            _ if is_valid && kind != 7 => return Ok(()),
            activity::HLT => h.arch.waiting.halts(),
            activity::SHUTDOWN => h.arch.waiting.shuts_down(),
            activity::WAIT_FOR_SIPI => h.arch.waiting.waits_for_sipi(),
            _ => return Ok(()),
        }
        Err(Stop::of(StopKind::Wait))
    }

    /// "Event Injection".
    fn inject(&mut self, h: &mut P, information: u64) {
        let origin = match information >> 8 & 7 {
            0 => Origin::External,
            2 => Origin::Nmi,
            3 => Origin::Exception,
            4 => Origin::SoftwareInterrupt,
            5 => Origin::PrivilegedSoftwareException,
            6 => Origin::SoftwareException,
            _ => {
                self.trap_flag_pending = true;
                return;
            }
        };
        let v = &self.vmcs;
        let is_software = matches!(information >> 8 & 7, 4..=6);
        let length = if is_software { v[ENTRY_INSTRUCTION_LENGTH] } else { 0 };
        let error = (information >> 11 & 1 != 0).then_some(v[ENTRY_EXCEPTION_ERROR_CODE] as u16);
        if origin == Origin::Nmi {
            if v.has(pin::VIRTUAL_NMIS) {
                self.virtual_nmi_blocked = true;
            } else {
                h.arch.nmi_blocked = true;
            }
        }
        h.arch.injected = Some(Delivery { origin, vector: information as u8, error, length });
    }
}
