//! A processor: its state, and its part of the engine.

mod engine;
mod translation;

use emu_core::engine::flags::{FLAGS_KIND, FLAGS_X, FLAGS_Y, Flags};
use emu_core::engine::{Hart, Step, Stop, StopKind};
use serde::{Deserialize, Serialize};

use crate::apic::{LocalApic, Pending};
use crate::cet::Cet;
use crate::control::{DR7_ENABLES, cr0, cr4, efer, rflags};
use crate::exception::vector;
use crate::extension::{Delivery, SecondAccess, Slot};
use crate::fpu::X87;
use crate::model::{Cores, CpuModel, Feature, Vendor};
use crate::monitor::Waiting;
use crate::msr::Msrs;
use crate::paging::Controls;
use crate::registers::{FS_BASE, GS_BASE};
use crate::segment::{Attributes, Segment, Table};
use crate::smm::Smm;
use crate::{debug, ferr};

pub use crate::at_work::ProcessorExt;
pub(crate) use translation::{NON_CANONICAL, exception_of, read_entry};

/// A processor at work.
pub type P<'a> = Hart<'a, X86>;

/// The processor itself makes the access: to descriptor tables, a TSS, a stack of another privilege level.
pub(crate) const AS_PROCESSOR: u8 = 1;
/// A user-mode access to a shadow stack.
pub(crate) const AS_USER_SHADOW: u8 = 2;
/// A supervisor-mode access to a shadow stack.
pub(crate) const AS_SUPERVISOR_SHADOW: u8 = 3;

/// Numbers of segment registers, as ModR/M has them.
pub mod segments {
    #![allow(missing_docs, reason = "the manual's names")]
    pub const ES: usize = 0;
    pub const CS: usize = 1;
    pub const SS: usize = 2;
    pub const DS: usize = 3;
    pub const FS: usize = 4;
    pub const GS: usize = 5;
}

/// Everything that a processor has besides registers of the data path and TLB.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct X86 {
    /// Local APIC ID.
    pub id: u32,
    /// CR0.
    pub cr0: u64,
    /// CR2.
    pub cr2: u64,
    /// CR3.
    pub cr3: u64,
    /// CR4.
    pub cr4: u64,
    /// IA32_EFER.
    pub efer: u64,
    /// ES, CS, SS, DS, FS, GS. The bases of FS and GS are in the register file.
    pub segments: [Segment; 6],
    /// LDTR.
    pub ldtr: Segment,
    /// TR.
    pub tr: Segment,
    /// GDTR.
    pub gdtr: Table,
    /// IDTR.
    pub idtr: Table,
    /// RFLAGS, but for the arithmetic flags, DF and RF.
    pub rflags: u64,
    /// DR0 to DR3.
    pub dr: [u64; 4],
    /// DR6.
    pub dr6: u64,
    /// DR7.
    pub dr7: u64,
    /// What of DR6 the debug exception will show that comes behind the present instruction.
    pub debug_trap: u64,
    /// The PDPTE registers of PAE paging.
    pub pdptes: [u64; 4],
    /// NMIs are blocked until the next IRET.
    pub nmi_blocked: bool,
    /// Address line 20 is let through.
    pub a20: bool,
    /// IA32_STAR.
    pub star: u64,
    /// IA32_SYSENTER_CS.
    pub sysenter_cs: u64,
    /// IA32_SYSENTER_ESP.
    pub sysenter_esp: u64,
    /// IA32_SYSENTER_EIP.
    pub sysenter_eip: u64,
    /// IA32_LSTAR.
    pub lstar: u64,
    /// IA32_FMASK.
    pub fmask: u64,
    /// IA32_KERNEL_GS_BASE.
    pub kernel_gs_base: u64,
    /// IA32_TSC_AUX.
    pub tsc_aux: u64,
    /// PKRU.
    pub pkru: u32,
    /// IA32_PKRS.
    pub pkrs: u32,
    /// The instruction at this count of retired instructions is the one that no interrupt may come before (STI, MOV SS).
    pub shadow: Option<u64>,
    /// It is of MOV SS or POP SS: debug traps wait too.
    pub shadow_holds_traps: bool,
    /// RFLAGS.RF is set for the instruction at this count alone.
    pub resumed_at: Option<u64>,
    /// The instruction at this count began with RFLAGS.TF.
    pub step_from: Option<u64>,
    /// MAXPHYADDR.
    pub physical_bits: u32,
    /// The virtualization extension.
    pub extension: Slot,
    /// An event that it wants delivered before the next instruction.
    pub injected: Option<Delivery>,
    /// The event that is being delivered; none between two instructions.
    #[serde(skip)]
    pub delivering: Option<Delivery>,
    /// The processor has been woken, from HLT or from shutdown, before the instruction at this count of retired instructions.
    pub woken_at: Option<u64>,
    /// It was from shutdown.
    pub woken_from_shutdown: bool,
    /// The present instruction has faulted, and is counted.
    #[serde(skip)]
    pub(crate) has_faulted: bool,
    /// What the second stage has refused last, and why.
    #[serde(skip)]
    refused: Option<(SecondAccess, u64)>,
    /// The x87, and with it MMX.
    pub x87: X87,
    /// XCR0.
    pub xcr0: u64,
    /// IA32_XSS.
    pub xss: u64,
    /// The model.
    pub model: CpuModel,
    /// The processors that there are; each is a core of the one package.
    pub cores: Cores,
    /// Model-specific registers.
    pub msrs: Msrs,
    /// The local APIC.
    pub apic: LocalApic,
    /// What else waits to be taken.
    pub pending: Pending,
    /// FERR# and IGNNE#.
    pub error_pins: ferr::Pins,
    /// System management mode.
    pub smm: Smm,
    /// What MONITOR and waiting instructions have left.
    pub waiting: Waiting,
    /// Control-flow Enforcement Technology.
    pub cet: Cet,
    /// State of the generator behind RDRAND and RDSEED.
    pub random: u64,
}

impl X86 {
    /// A processor in 64-bit mode with paging off the table: flat segments, CPL 0, interrupts off. Paging is on as soon as CR0.PG
    /// is set; until then addresses are physical, which no real processor offers in this mode and bare tests like.
    pub fn flat_64() -> Self {
        let code = Segment { selector: 8, base: 0, limit: u32::MAX, attributes: Attributes(0xa09b) };
        let data = Segment { selector: 16, base: 0, limit: u32::MAX, attributes: Attributes(0xc093) };
        X86 {
            id: 0,
            cr0: cr0::PE | cr0::ET | cr0::NE | cr0::WP,
            cr2: 0,
            cr3: 0,
            cr4: cr4::PAE,
            efer: efer::LME | efer::LMA | efer::SCE | efer::NXE,
            segments: [data, code, data, data, data, data],
            ldtr: Segment { attributes: Attributes::UNUSABLE, ..Segment::default() },
            tr: Segment { selector: 0, base: 0, limit: 0xffff, attributes: Attributes(0x8b) },
            gdtr: Table::default(),
            idtr: Table::default(),
            rflags: 2,
            dr: [0; 4],
            dr6: debug::DR6_RESET,
            dr7: debug::DR7_RESET,
            debug_trap: 0,
            pdptes: [0; 4],
            nmi_blocked: false,
            a20: true,
            sysenter_cs: 0,
            sysenter_esp: 0,
            sysenter_eip: 0,
            star: 0,
            lstar: 0,
            fmask: 0,
            kernel_gs_base: 0,
            tsc_aux: 0,
            pkru: 0,
            pkrs: 0,
            shadow: None,
            shadow_holds_traps: false,
            resumed_at: None,
            step_from: None,
            physical_bits: 46,
            extension: Slot::default(),
            injected: None,
            delivering: None,
            woken_at: None,
            woken_from_shutdown: false,
            has_faulted: false,
            refused: None,
            x87: X87::default(),
            xcr0: crate::xsave::RESET_XCR0,
            xss: 0,
            model: CpuModel::of(Vendor::Intel),
            cores: Cores::from(1),
            msrs: Msrs::default(),
            apic: LocalApic::new(0, true),
            pending: Pending::default(),
            error_pins: ferr::Pins::default(),
            smm: Smm::of(Vendor::Intel),
            waiting: Waiting::default(),
            cet: Cet::default(),
            random: 0,
        }
    }

    /// Likewise, of a model: the one with this number among so many. The seed is of RDRAND's.
    pub fn of_model(self, model: CpuModel, id: u32, cores: impl Into<Cores>, seed: u64) -> Self {
        X86 {
            id,
            physical_bits: model.physical_bits.into(),
            model,
            smm: Smm::of(model.vendor),
            cores: cores.into(),
            apic: LocalApic::new(id, id == 0),
            random: seed ^ u64::from(id) << 32,
            ..self
        }
    }

    /// A processor after RESET ("Processor State After Reset"): in real mode, about to fetch from the last 16 bytes below 4 GiB. Its
    /// registers are [`reset_registers`]'s.
    pub fn reset(id: u32) -> Self {
        let data = Segment { selector: 0, base: 0, limit: 0xffff, attributes: Attributes(0x93) };
        let code = Segment { selector: 0xf000, base: 0xffff_0000, limit: 0xffff, attributes: Attributes(0x9b) };
        X86 {
            id,
            cr0: cr0::CD | cr0::NW | cr0::ET,
            cr4: 0,
            efer: 0,
            segments: [data, code, data, data, data, data],
            ldtr: Segment { attributes: Attributes(0x82), ..data },
            tr: Segment { attributes: Attributes(0x8b), ..data },
            gdtr: Table { base: 0, limit: 0xffff },
            idtr: Table { base: 0, limit: 0xffff },
            ..X86::flat_64()
        }
    }

    /// The processor after INIT ("Processor State After Reset", the table's last column): in real mode, as after RESET, but for what INIT
    /// leaves alone.
    pub fn after_init(&self) -> Self {
        X86 {
            cr0: self.cr0 & (cr0::CD | cr0::NW) | cr0::ET,
            star: self.star,
            lstar: self.lstar,
            fmask: self.fmask,
            kernel_gs_base: self.kernel_gs_base,
            tsc_aux: self.tsc_aux,
            sysenter_cs: self.sysenter_cs,
            sysenter_esp: self.sysenter_esp,
            sysenter_eip: self.sysenter_eip,
            a20: self.a20,
            physical_bits: self.physical_bits,
            extension: self.extension.clone(),
            x87: self.x87.clone(),
            xcr0: self.xcr0,
            xss: self.xss,
            model: self.model,
            cores: self.cores,
            msrs: self.msrs.clone(),
            apic: self.apic.clone(),
            pending: self.pending.clone(),
            smm: self.smm.clone(),
            error_pins: self.error_pins,
            waiting: self.waiting.clone(),
            random: self.random,
            ..X86::reset(self.id)
        }
    }

    /// Whether a linear address is canonical ([`Controls::is_canonical`]).
    pub fn is_canonical(&self, linear: u64) -> bool {
        let shift = if self.cr4 & cr4::LA57 != 0 { 7 } else { 16 };
        (linear as i64) << shift >> shift == linear as i64
    }

    /// 64-bit mode.
    pub fn is_64(&self) -> bool {
        self.efer & efer::LMA != 0 && self.segments[segments::CS].attributes.is_long()
    }

    /// IA-32e mode.
    pub fn is_long(&self) -> bool {
        self.efer & efer::LMA != 0
    }

    /// Virtual-8086 mode.
    pub fn is_v8086(&self) -> bool {
        self.rflags & rflags::VM != 0
    }

    /// Protected mode, IA-32e mode included, but not virtual-8086 mode.
    pub fn is_protected(&self) -> bool {
        self.cr0 & cr0::PE != 0 && !self.is_v8086()
    }

    /// A trap comes behind every instruction.
    pub fn is_stepped(&self) -> bool {
        self.rflags & rflags::TF != 0
    }

    /// A physical address as the bus sees it: without bit 20 where that is masked.
    pub fn through_a20(&self, physical: u64) -> u64 {
        if self.a20 { physical } else { physical & !(1 << 20) }
    }

    /// A physical address as the bus sees it: bit 20 as above, and system management RAM where the processor finds it.
    pub(crate) fn on_bus(&self, physical: u64, is_fetch: bool) -> u64 {
        self.smm.memory.place(self.through_a20(physical), self.smm.is_on(), is_fetch)
    }

    /// PAE paging.
    pub(crate) fn pae_paging(&self) -> bool {
        self.cr0 & cr0::PG != 0 && self.cr4 & cr4::PAE != 0 && !self.is_long()
    }

    /// Accesses that are not aligned fault ("Alignment Check Exception (#AC)").
    pub fn checks_alignment(&self) -> bool {
        self.rflags & rflags::AC != 0 && self.cr0 & cr0::AM != 0 && self.cpl() == 3
    }

    /// A breakpoint on data is enabled.
    pub fn watches_data(&self) -> bool {
        self.dr7 & DR7_ENABLES != 0 && debug::watches(self, false)
    }

    /// The current privilege level: DPL of SS ("Privilege Levels").
    pub fn cpl(&self) -> u8 {
        self.segments[segments::SS].attributes.dpl()
    }

    /// IOPL.
    pub fn iopl(&self) -> u8 {
        (self.rflags >> 12 & 3) as u8
    }

    /// What translation depends on.
    pub fn controls(&self) -> Controls {
        Controls {
            cr0: self.cr0,
            cr3: self.cr3,
            cr4: self.cr4,
            efer: self.efer,
            pkru: self.pkru,
            pkrs: self.pkrs,
            pdptes: (!self.extension.walks_pdptes()).then_some(self.pdptes),
            physical_bits: self.physical_bits,
            has_1g: self.model.has(Feature::Pdpe1gb),
            has_pse36: true,
            reserves_bit_8: self.model.is_amd(),
            is_nested: false,
        }
    }
}

pub(crate) fn flags(r: &[u64; 256]) -> Flags {
    let [kind, x, y] = [FLAGS_KIND, FLAGS_X, FLAGS_Y].map(|i| r[usize::from(i)]);
    Flags { kind, x, y }
}

pub(crate) fn set_flags(r: &mut [u64; 256], flags: Flags) {
    for (i, value) in [(FLAGS_KIND, flags.kind), (FLAGS_X, flags.x), (FLAGS_Y, flags.y)] {
        r[usize::from(i)] = value;
    }
}

/// The base of a segment register, wherever it is kept.
pub(crate) fn base_of(h: &P, segment: usize) -> u64 {
    match segment {
        segments::FS => h.core.regs[usize::from(FS_BASE)],
        segments::GS => h.core.regs[usize::from(GS_BASE)],
        _ => h.arch.segments[segment].base,
    }
}

/// The processor cannot go on: a triple fault.
pub(crate) fn shutdown<T>() -> Step<T> {
    Err(Stop::new(StopKind::Shutdown, vector::DF.into(), 0))
}
