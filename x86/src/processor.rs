//! A processor: its state, and its part of the engine.

use emu_core::bus::VcpuSignal;
use emu_core::engine::flags::{FLAGS_KIND, FLAGS_X, FLAGS_Y, Flags};
use emu_core::engine::{Access, Arch, Hart, Intent, Lift, Step, Stop, StopKind};
use emu_core::time::{VirtualTime, earlier};
use emu_core::tlb::{Mapping, Space, SpaceKey};
use iced_x86::{Decoder, DecoderError};
use serde::{Deserialize, Serialize};

use crate::apic::{self, LocalApic, Pending};
use crate::cet::Cet;
use crate::control::{DR7_ENABLES, cr0, cr4, efer, rflags};
use crate::exception::{Exception, vector};
use crate::extension::{self, Delivery, SecondAccess, Slot};
use crate::fpu::X87;
use crate::isa::{self, compute};
use crate::mode::Mode;
use crate::model::{CpuModel, Feature, Vendor};
use crate::monitor::{self, Waiting};
use crate::msr::{self, Msrs};
use crate::paging::{self, Controls, Fail, Kind, Rights, Tables};
use crate::platform::msi::{self, InterruptMessage};
use crate::registers::{FS_BASE, GS_BASE, RSP, SSP, temp};
use crate::segment::{Attributes, Segment, Table};
use crate::smm::{Smm, memory};
use crate::{
    debug, ferr, ibt, interrupt, linear, msr_instructions, processor_instructions, repeat, shadow_stack, smm, system,
};

pub use crate::at_work::ProcessorExt;

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
    /// The processor has been woken from HLT before the instruction at this count of retired instructions.
    pub woken_at: Option<u64>,
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
    /// How many processors there are; each is a core of the one package.
    pub cores: u32,
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
            has_faulted: false,
            refused: None,
            x87: X87::default(),
            xcr0: crate::xsave::RESET_XCR0,
            xss: 0,
            model: CpuModel::of(Vendor::Intel),
            cores: 1,
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
    pub fn of_model(self, model: CpuModel, id: u32, cores: u32, seed: u64) -> Self {
        X86 {
            id,
            physical_bits: model.physical_bits.into(),
            model,
            smm: Smm::of(model.vendor),
            cores,
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
            pdptes: self.pdptes,
            physical_bits: self.physical_bits,
            has_1g: self.model.has(Feature::Pdpe1gb),
            has_pse36: true,
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

/// No instruction is longer, in bytes ("Instruction Format").
const MAX_INSTRUCTION: usize = 15;
/// Set in an instruction's note: its memory operand is in the stack segment.
const NOTE_STACK: u32 = 1;
/// By how much it moves the stack pointer stands above this bit of its note.
const NOTE_MOVES: u32 = 1;
/// A near branch to an address that is not canonical.
const BAD_TARGET: u32 = u32::MAX - 1;
/// The second stage refuses a guest-physical address.
const SECOND_STAGE: u32 = u32::MAX - 2;
/// A linear address that is not canonical: #SS or #GP, as the segment has it.
pub(crate) const NON_CANONICAL: u32 = u32::MAX;

/// Physical memory as the walk of page tables reaches it.
struct Physical<'a, 'b> {
    h: &'a mut P<'b>,
    linear: Option<u64>,
    has_second: bool,
}

impl Physical<'_, '_> {
    /// Where an entry is.
    fn place(&mut self, address: u64, kind: Kind) -> Step<u64> {
        let physical = if self.has_second {
            let (linear, page) = (self.linear, Rights::ALL);
            let access = SecondAccess { address, kind, linear, is_entry: true, page, user: false, shadow_stack: false };
            second_stage(self.h, access)?.physical
        } else {
            address
        };
        Ok(self.h.arch.on_bus(physical, false))
    }
}

impl Tables for Physical<'_, '_> {
    type Stop = Stop;

    fn read(&mut self, address: u64, size: u8) -> Step<u64> {
        let at = self.place(address, Kind::Read)?;
        Ok(self.h.read_physical(at, size).unwrap_or(u64::MAX >> (64 - 8 * u32::from(size))))
    }

    fn write(&mut self, address: u64, size: u8, value: u64) -> Step {
        let at = self.place(address, Kind::Write)?;
        let _ = self.h.write_physical(at, size, value);
        Ok(())
    }
}

fn second_stage(h: &mut P, access: SecondAccess) -> Step<extension::SecondStage> {
    let answer = extension::act(h, |e, h| e.second_stage(h, access)).expect("it has a second stage");
    answer.map_err(|why| {
        h.arch.refused = Some((access, why));
        Stop::exception(SECOND_STAGE, access.address)
    })
}

/// Reads physical memory as paging does: through the second stage, if there is one.
pub(crate) fn read_entry(h: &mut P, address: u64, size: u8, linear: Option<u64>) -> Step<u64> {
    let has_second = h.arch.extension.get().is_some_and(|e| e.has_second_stage());
    Physical { h, linear, has_second }.read(address, size)
}

/// The exception that a stop stands for, now that it is known whose it is; or an exit of the extension.
pub(crate) fn exception_of(h: &mut P, stop: Stop) -> Step<Exception> {
    match (stop.kind, stop.code) {
        (StopKind::Exception, SECOND_STAGE) => {
            let (access, why) = h.arch.refused.take().expect("the second stage has refused");
            let answer = extension::act(h, |e, h| e.second_stage_fault(h, access, why)).unwrap_or(stop);
            if answer.kind == StopKind::Exception { Ok(Exception::of(answer)) } else { Err(answer) }
        }
        (StopKind::Exception, NON_CANONICAL) => Ok(Exception::gp(0)),
        (StopKind::Exception, _) => Ok(Exception::of(stop)),
        _ => Err(stop),
    }
}

/// An access, as the rights of pages ask for it.
fn access(arch: &X86, as_whom: u8, intent: Intent) -> paging::Access {
    let kind = match intent {
        Intent::Read => Kind::Read,
        Intent::Write => Kind::Write,
        Intent::Fetch => Kind::Fetch,
    };
    let ac = arch.rflags & rflags::AC != 0;
    let (user, implicit, shadow_stack) = match as_whom {
        AS_PROCESSOR => (false, true, false),
        AS_USER_SHADOW => (true, false, true),
        AS_SUPERVISOR_SHADOW => (false, true, true),
        _ => (arch.cpl() == 3, false, false),
    };
    paging::Access { kind, user, implicit, ac, shadow_stack }
}

impl Arch for X86 {
    const REGISTERS: usize = crate::registers::COUNT;
    const BUS_FLOATS: bool = true;
    const KEEPS_SPACES: bool = true;

    fn lift(&self, pc: u64, bytes: &[u8], lift: &mut Lift) -> Option<u8> {
        let mode = Mode::of(self);
        let ip = mode.ip(pc);
        let mut decoder = Decoder::with_ip(mode.code.bits(), bytes, ip, self.model.decoder_options());
        let insn = decoder.decode();
        let length = insn.len().max(1) as u8;
        if insn.is_invalid() {
            match msr_instructions::decode(&self.model, &mode, bytes) {
                Err(()) if bytes.len() < MAX_INSTRUCTION => return None,
                Ok(Some(decoded)) => {
                    ibt::check(lift, &insn, &mode);
                    return Some(decoded.lift(lift));
                }
                _ => {}
            }
            // Bytes are missing, or there are more than 15.
            let ends_early = decoder.last_error() == DecoderError::NoMoreBytes;
            if ends_early && bytes.len() < MAX_INSTRUCTION {
                return None;
            }
            if !ends_early {
                ibt::check(lift, &insn, &mode);
            }
            system::raise(lift, if ends_early { Exception::gp(0) } else { Exception::UD });
            return Some(length);
        }
        if ip + u64::from(length) - 1 > mode.cs_limit.into() && !mode.is_64() {
            system::raise(lift, Exception::gp(0));
            return Some(length);
        }
        let uses_stack = insn.memory_segment() == iced_x86::Register::SS || insn.is_stack_instruction();
        let moves = insn.stack_pointer_increment() as u32;
        lift.note(if uses_stack { NOTE_STACK } else { 0 } | moves << NOTE_MOVES);
        ibt::check(lift, &insn, &mode);
        let own = self.extension.get().and_then(|e| e.opcode(&insn));
        if let Some(opcode) = own {
            isa::lift_own(lift, &insn, &mode, opcode);
            return Some(length);
        }
        let is_lifted = self.model.allows(&insn)
            && (processor_instructions::lift(lift, &insn, &mode)
                || system::lift(lift, &insn, &mode)
                || isa::lift(lift, &insn, &mode).is_ok());
        if !is_lifted {
            system::raise(lift, Exception::UD);
        }
        Some(length)
    }

    fn mode(&self) -> u32 {
        // Rights are asked for when an instruction runs.
        Mode::of(self).bits()
    }

    fn context(&self) -> u64 {
        Mode::of(self).context()
    }

    fn is_single(&self) -> bool {
        self.shadow.is_some() || self.is_stepped() || self.extension.steps()
    }

    fn level(&self) -> u8 {
        self.extension.get().map_or(1, |e| e.level())
    }

    fn call(h: &mut P, function: u16, operand: u32) -> Step {
        match function {
            compute::FUNCTION => {}
            extension::FUNCTION => return extension::call(h, operand),
            linear::FUNCTION => return linear::call(h, operand),
            repeat::FUNCTION => return repeat::call(h, operand),
            ibt::FUNCTION => return ibt::call(h, operand),
            shadow_stack::FUNCTION => return shadow_stack::call(h, operand),
            isa::FIRST.. => return isa::call(h, function, operand),
            msr_instructions::FIRST_FUNCTION.. => return msr_instructions::call(h, function, operand),
            processor_instructions::FIRST_FUNCTION.. => return processor_instructions::call(h, function, operand),
            _ => return system::call(h, function, operand),
        }
        let r = &mut h.core.regs;
        let mut values = compute::Values {
            first: r[usize::from(temp::FIRST)],
            second: r[usize::from(temp::SECOND)],
            third: r[usize::from(temp::THIRD)],
            flags: flags(r),
            size: compute::size_in(operand),
        };
        compute::run(operand, &mut values)?;
        r[usize::from(temp::FIRST)] = values.first;
        r[usize::from(temp::SECOND)] = values.second;
        set_flags(r, values.flags);
        Ok(())
    }

    /// What translations are tagged with: who asks, what rights depend on, PCID.
    fn space(h: &mut P, as_whom: u8, intent: Intent) -> Space {
        if as_whom == 0 {
            // Asked whenever CPL may have changed.
            msr::perf::privilege_changed(h);
        }
        let a = &h.arch;
        let access = access(a, as_whom, intent);
        let smap = a.cr4 & cr4::SMAP != 0 && !access.user && (access.implicit || !access.ac);
        let wp = a.cr0 & cr0::WP != 0;
        let pcid = if a.cr4 & cr4::PCIDE != 0 { a.cr3 & 0xfff } else { 0 };
        let bits = [access.user, smap, wp, a.checks_alignment() && as_whom == 0];
        let who = bits.iter().rev().fold(a.controls().mode() as u64, |who, bit| who << 1 | u64::from(*bit));
        let who = who | u64::from(access.shadow_stack) << 7;
        let keys = if a.cr4 & (cr4::PKE | cr4::PKS) != 0 { u64::from(a.pkru) | u64::from(a.pkrs) << 32 } else { 0 };
        let guest = a.extension.get().map_or(0, |e| e.address_space());
        h.core.mmu.intern(SpaceKey(who | pcid << 8 | guest << 20, keys))
    }

    fn walk(h: &mut P, access: Access) -> Step<Mapping> {
        let controls = h.arch.controls();
        let va = if h.arch.is_long() { access.va } else { access.va & 0xffff_ffff };
        let va = if access.intent == Intent::Fetch { va } else { controls.without_metadata(va) };
        let has_metadata = va != access.va;
        let access = Access { va, ..access };
        if !controls.is_canonical(va) {
            return Err(Stop::exception(NON_CANONICAL, va));
        }
        debug_assert!(!h.arch.extension.is_missed(), "an extension reaches its guest's memory through as_guest");
        let is_watched = debug::sees(h, access)?;
        let how = self::access(h.arch, access.as_whom, access.intent);
        let has_second = h.arch.extension.get().is_some_and(|e| e.has_second_stage());
        let t = match controls.translate(&mut Physical { h, linear: Some(va), has_second }, va, how) {
            Ok(t) => t,
            Err(Fail::PageFault(error)) => {
                return Err(Exception { vector: vector::PF, error: Some(error as u16), address: va }.into());
            }
            Err(Fail::Stop(stop)) => return Err(stop),
        };
        let gpa = t.physical & !0xfff;
        let size_log2 = if t.size_log2 == 32 { 12 } else { t.size_log2 };
        let is_fetch = access.intent == Intent::Fetch;
        let (mut pa, mut guest_size_log2, mut read, mut write) = (h.arch.on_bus(gpa, is_fetch), 0, t.read, t.write);
        if has_second {
            let access = SecondAccess {
                address: t.physical,
                kind: how.kind,
                linear: Some(va),
                is_entry: false,
                page: t.rights,
                user: how.user,
                shadow_stack: how.shadow_stack,
            };
            let second = second_stage(h, access)?;
            pa = h.arch.on_bus(second.physical & !0xfff, is_fetch);
            guest_size_log2 = second.size_log2;
            read &= second.read;
            write &= second.write;
        }
        let is_own = h.arch.apic.page() == Some(pa);
        // What is held for a page, INVLPG finds by its address.
        let keep = !is_watched && !is_own && !h.arch.checks_alignment() && !has_metadata;
        Ok(Mapping { pa, gpa, size_log2, guest_size_log2, read, write, keep })
    }

    fn read_own(h: &mut P, pa: u64, size: u8) -> Option<u64> {
        apic::local_read(h, pa, size)
    }

    fn write_own(h: &mut P, pa: u64, size: u8, value: u64) -> Option<()> {
        apic::local_write(h, pa, size, value)
    }

    /// Only fetches come this far, from what is not RAM: a processor would read ones, which are no instruction.
    fn bus_error(_: &mut P, _: Access) -> Stop {
        Exception::UD.into()
    }

    fn misaligned(h: &mut P, access: Access, _: u8) -> Step {
        let checks = h.arch.checks_alignment() && access.as_whom == 0;
        h.fault_if(checks, Exception::with(vector::AC, 0))
    }

    fn jumps_to(h: &mut P, target: u64) -> Step {
        let allowed = !h.arch.is_64() || h.arch.controls().is_canonical(target);
        if allowed { Ok(()) } else { Err(Stop::exception(BAD_TARGET, target)) }
    }

    fn trap(h: &mut P, stop: Stop) -> Step {
        h.arch.has_faulted = true;
        let result = trap(h, stop);
        h.arch.has_faulted = false;
        result
    }

    fn interrupt(h: &mut P) -> Step {
        ibt::settle(h, h.core.retired());
        interrupt::take_pending(h)
    }
    fn signal(h: &mut P, signal: VcpuSignal) {
        match signal {
            VcpuSignal::Pin { pin, level } => apic::set_pin(h, pin, level),
            VcpuSignal::Message { message: msi::INTERRUPT, value } => apic::accept(h, InterruptMessage::unpack(value)),
            VcpuSignal::Message { message: apic::IPI, value } => apic::receive_ipi(h, value),
            VcpuSignal::Message { message: memory::DECODE, value } => {
                h.arch.smm.memory.bridge = memory::Bridge::unpack(value);
                smm::translations_changed(h);
            }
            VcpuSignal::Message { .. } => {}
        }
    }

    fn tick(h: &mut P) {
        apic::tick(h);
        monitor::tick(h);
        h.core.check_interrupts |= h.arch.extension.wakes_at().is_some_and(|at| at <= h.core.count());
        msr::perf::sync(h);
    }

    fn wakes_at(h: &P) -> Option<VirtualTime> {
        earlier(apic::wakes_at(h), monitor::wakes_at(h))
    }

    fn is_awake(h: &P) -> bool {
        monitor::is_awake(h)
    }

    fn descheduled(&mut self) {}
}

/// Takes the exception, or the exit, that a stopped instruction comes to.
fn trap(h: &mut P, stop: Stop) -> Step {
    // The instruction that has been stopped is counted.
    ibt::settle(h, h.core.retired() - 1);
    let exception = if stop.code == BAD_TARGET {
        // CALL and RET have moved the stack pointer.
        let moved = (h.core.note as i32 >> NOTE_MOVES) as i64 as u64;
        let sp = h.reg(RSP).wrapping_sub(moved);
        h.set_reg(RSP, sp);
        if h.arch.has_shadow_stack() {
            // So they have this one, by a word of 64-bit code.
            let back = 8 * (moved as i64).signum();
            let ssp = h.reg(SSP).wrapping_sub(back as u64);
            h.set_reg(SSP, ssp);
        }
        Exception::gp(0)
    } else if stop.code == NON_CANONICAL {
        let vector = if h.core.note & NOTE_STACK != 0 { vector::SS } else { vector::GP };
        Exception::with(vector, 0)
    } else {
        exception_of(h, stop)?
    };
    interrupt::take_exception(h, exception)
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
    Err(Stop { kind: StopKind::Shutdown, code: vector::DF.into(), value: 0 })
}
