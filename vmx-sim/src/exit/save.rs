//! "Saving Guest State".

use x86::control::{dr6, efer, rflags};
use x86::exception::vector;
use x86::extension::{self, Delivery, Origin};
use x86::processor::{P, ProcessorExt, segments};
use x86::registers::{FS_BASE, GS_BASE, RSP, SSP};
use x86::segment::Segment;

use super::{Exit, Reason};
use crate::control::{entry, exit, pin, secondary};
use crate::entry::activity;
use crate::entry::interruptibility;
use crate::field::*;
use crate::msr::LBR_CTL;
use crate::vmx::Vmx;

/// What RFLAGS.RF is saved as ("Saving RIP, RSP, RFLAGS, and SSP").
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Resume {
    /// As the guest has it.
    AsItIs,
    /// 0: an instruction that exits.
    Clear,
    /// 1: something like a fault.
    Set,
}

/// Bit 12 of the pending debug exceptions: an enabled breakpoint.
const ENABLED_BREAKPOINT: u64 = 1 << 12;

impl Vmx {
    /// Saves the guest's state.
    pub(super) fn save_guest(&mut self, h: &mut P, e: &Exit, delivering: Option<Delivery>) {
        self.save_control_registers(h);
        self.save_segments(h);
        let v = &mut self.vmcs;
        v[GUEST_RIP] = h.ip(h.core.pc);
        v[GUEST_RSP] = h.reg(RSP);
        v[GUEST_RFLAGS] = flags_to_save(h, e, delivering);
        if self.capabilities.has(entry::LOAD_CET_STATE) {
            v[GUEST_S_CET] = h.arch.cet.supervisor;
            v[GUEST_INTERRUPT_SSP_TABLE_ADDR] = h.arch.cet.interrupt_ssp_table;
            v[GUEST_SSP] = h.reg(SSP);
        }
        self.save_non_register_state(h, e, delivering);
    }

    /// "Saving Control Registers, Debug Registers, and MSRs".
    fn save_control_registers(&mut self, h: &mut P) {
        let saves = |c| self.vmcs.has(c);
        let (debug, pat, perf) =
            (saves(exit::SAVE_DEBUG_CONTROLS), saves(exit::SAVE_PAT), saves(exit::SAVE_PERF_GLOBAL_CTRL));
        let saves_efer = saves(exit::SAVE_EFER);
        let v = &mut self.vmcs;
        v[GUEST_CR0] = h.arch.cr0;
        v[GUEST_CR3] = h.arch.cr3;
        v[GUEST_CR4] = h.arch.cr4;
        v[GUEST_SYSENTER_CS] = h.arch.sysenter_cs;
        v[GUEST_SYSENTER_ESP] = h.arch.sysenter_esp;
        v[GUEST_SYSENTER_EIP] = h.arch.sysenter_eip;
        if debug {
            v[GUEST_DR7] = h.arch.dr7;
            v[GUEST_DEBUGCTL] = h.arch.debugctl();
        }
        if pat {
            v[GUEST_PAT] = h.arch.pat();
        }
        if saves_efer {
            v[GUEST_EFER] = h.arch.efer;
        }
        if perf {
            v[GUEST_PERF_GLOBAL_CTRL] = x86::msr::read(h, x86::msr::PERF_GLOBAL_CTRL).unwrap_or(0);
        }
        if self.capabilities.has(entry::LOAD_LBR_CTL) {
            v[GUEST_LBR_CTL] = x86::msr::read(h, LBR_CTL).unwrap_or(0);
        }
        if self.capabilities.has(entry::LOAD_PKRS) {
            v[GUEST_PKRS] = h.arch.pkrs.into();
        }
        // IA32_VMX_MISC says that EFER.LMA is stored.
        if v.has(entry::IA32E_MODE_GUEST) != (h.arch.efer & efer::LMA != 0) {
            v[ENTRY_CONTROLS] ^= 1 << entry::IA32E_MODE_GUEST.bit;
        }
    }

    /// "Saving Segment Registers and Descriptor-Table Registers".
    fn save_segments(&mut self, h: &P) {
        let a = &h.arch;
        let v = &mut self.vmcs;
        for i in 0..8 {
            let s = match i {
                LDTR => a.ldtr,
                TR => a.tr,
                segments::FS => Segment { base: h.reg(FS_BASE), ..a.segments[i] },
                segments::GS => Segment { base: h.reg(GS_BASE), ..a.segments[i] },
                _ => a.segments[i],
            };
            let [selector, base, limit, rights] = guest_segment(i);
            v[selector] = s.selector.into();
            v[base] = s.base;
            v[limit] = s.limit.into();
            v[rights] = (s.attributes.0 & 0x1_f0ff).into();
        }
        v[GUEST_GDTR_BASE] = a.gdtr.base;
        v[GUEST_GDTR_LIMIT] = a.gdtr.limit.into();
        v[GUEST_IDTR_BASE] = a.idtr.base;
        v[GUEST_IDTR_LIMIT] = a.idtr.limit.into();
    }

    /// "Saving Non-Register State".
    fn save_non_register_state(&mut self, h: &mut P, e: &Exit, delivering: Option<Delivery>) {
        let present = extension::present_instruction(h);
        let state = if h.arch.waiting.is_halted() {
            activity::HLT
        } else if h.arch.waiting.is_shut_down() {
            activity::SHUTDOWN
        } else if h.arch.waiting.is_for_sipi() || e.reason == Reason::StartUpIpi {
            activity::WAIT_FOR_SIPI
        } else {
            activity::ACTIVE
        };
        let is_between = !e.is_of_instruction && h.arch.woken_at == Some(present) && delivering.is_none();
        let state = match (is_between, h.arch.woken_from_shutdown) {
            (true, false) => activity::HLT,
            (true, true) => activity::SHUTDOWN,
            _ => state,
        };
        h.arch.woken_at = None;
        h.arch.waiting.ends();
        let is_shadowed = h.arch.shadow == Some(present);
        let mut blocking = match (is_shadowed, h.arch.shadow_holds_traps) {
            (false, _) => 0,
            (true, false) => interruptibility::STI,
            (true, true) => interruptibility::MOV_SS,
        };
        let nmi = if self.vmcs.has(pin::VIRTUAL_NMIS) { self.virtual_nmi_blocked } else { h.arch.nmi_blocked };
        if nmi {
            blocking |= interruptibility::NMI;
        }
        let stepped = if h.arch.step_from.is_some_and(|from| from < present) { dr6::BS } else { 0 };
        let traps = std::mem::take(&mut h.arch.debug_trap) | stepped;
        let is_trap = e.interruption.is_some_and(|(i, _)| i as u8 == vector::DB && e.reason == Reason::ExceptionOrNmi);
        // Other exits find none, or are of an instruction that will match its breakpoints again.
        let is_behind = matches!(
            e.reason,
            Reason::InitSignal
                | Reason::TprBelowThreshold
                | Reason::VirtualizedEoi
                | Reason::ApicWrite
                | Reason::MonitorTrapFlag
        );
        let is_held = blocking & interruptibility::MOV_SS != 0 && !is_trap;
        let pending = if is_behind || is_held { traps } else { 0 };
        let breakpoint = if pending & 0xf != 0 { ENABLED_BREAKPOINT } else { 0 };
        h.arch.step_from = None;
        h.arch.shadow = None;
        h.arch.shadow_holds_traps = false;
        h.arch.resumed_at = None;
        let v = &mut self.vmcs;
        v[GUEST_ACTIVITY_STATE] = state;
        v[GUEST_INTERRUPTIBILITY_STATE] = blocking;
        v[GUEST_PENDING_DEBUG_EXCEPTIONS] = pending & (0xf | dr6::BS) | breakpoint;
        if v.has(secondary::ENABLE_EPT) {
            for (i, pdpte) in h.arch.pdptes.iter().enumerate() {
                v[Field(GUEST_PDPTE0.0 + 2 * i as u16)] = *pdpte;
            }
        }
    }
}

/// RFLAGS with the RF that it is saved with.
fn flags_to_save(h: &P, e: &Exit, delivering: Option<Delivery>) -> u64 {
    let flags = h.rflags();
    let rf = match e.resume {
        Resume::AsItIs => flags & rflags::RF,
        Resume::Clear => 0,
        // In the delivery of an event, as that would have pushed it.
        Resume::Set => match delivering {
            Some(d) if d.origin != Origin::Exception => flags & rflags::RF,
            _ => rflags::RF,
        },
    };
    flags & !rflags::RF | rf
}
