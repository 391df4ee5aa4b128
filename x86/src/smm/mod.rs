//! System management mode (SDM vol. 3C, chapter "System Management Mode"; APM vol. 2, chapter "System-Management Mode"): the way in, the
//! way out, and what is different between them.
//!
//! An SMI is taken between two instructions, before debug traps and NMIs. The processor writes its state to the [`map`] at SMBASE + FC00H or
//! SMBASE + FE00H, and begins at SMBASE + 8000H in an environment like real mode, but for limits of 4 GiB. RSM reads all of it back. What
//! neither manual gives a place in the map is kept in [`Within`], or in the parts of the map that are reserved.
//!
//! [`memory`] says which physical addresses are system management RAM, and for whom.

pub mod map;
pub mod memory;
#[cfg(test)]
mod tests;

use emu_core::engine::{Step, Stop, StopKind};
use emu_core::event::{Event, Kind};
use serde::{Deserialize, Serialize};

use crate::control::{cr0, dr6};
use crate::control_registers::load_pdptes;
use crate::debug;
use crate::exception::Exception;
use crate::extension::{self, Intercept, ask_before};
use crate::model::Vendor;
use crate::msr::{self, perf};
use crate::processor::{P, ProcessorExt, X86, segments, shutdown};
use crate::registers::{RCX, RDI, RSI, SSP};
use crate::segment::{Attributes, Segment};
use map::{Values, item};
use memory::Memory;

/// SMBASE after RESET ("SMRAM").
pub const DEFAULT_BASE: u32 = 0x3_0000;
/// Where the handler begins, from SMBASE.
const ENTRY: u64 = 0x8000;
/// "I/O Instruction Restart": RSM begins with the interrupted I/O instruction again.
const RESTARTS_IO: u64 = 0xff;
/// "Auto HALT Restart": the processor was in HLT, and RSM goes back there.
const RESTARTS_HALT: u64 = 1;

/// What is kept of a processor in system management mode beside its map.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Within {
    /// NMIs were blocked.
    nmi_blocked: bool,
    /// Debug traps that are still to come.
    debug_trap: u64,
}

/// An I/O instruction: what an SMI that it causes tells of it ("State Saved on an SMI Caused by an I/O Instruction"; APM, "SMM I/O Trap and
/// I/O Restart").
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Io {
    /// Instructions retired before it, by this processor.
    at: u64,
    /// Its linear address.
    pc: u64,
    port: u16,
    /// In bytes.
    size: u8,
    input: bool,
    string: bool,
    repeats: bool,
    /// Before it.
    rcx: u64,
    rsi: u64,
    rdi: u64,
}

/// A processor's system management mode.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Smm {
    /// What is kept while it is in this mode.
    pub within: Option<Within>,
    /// SMBASE.
    pub base: u32,
    /// Whose state save map it has.
    pub map: Vendor,
    /// Where system management RAM is.
    pub memory: Memory,
    /// The last I/O instruction that has made a device signal something to a processor.
    io: Option<Io>,
    /// MSR_SMI_COUNT.
    pub(crate) count: u32,
}

impl Smm {
    /// After RESET, with this vendor's map.
    pub fn of(map: Vendor) -> Self {
        Smm { within: None, base: DEFAULT_BASE, map, memory: Memory::default(), io: None, count: 0 }
    }

    /// The processor is in system management mode.
    #[inline]
    pub fn is_on(&self) -> bool {
        self.within.is_some()
    }
}

/// The port of an I/O instruction has been accessed, and nothing else has been done: what it is is kept if somebody has been sent a signal.
#[inline]
pub(crate) fn note_io(h: &mut P, port: u16, size: u8, input: bool, string: Option<bool>) {
    if h.world.bus.has_signals() {
        keep_io(h, port, size, input, string);
    }
}

#[cold]
fn keep_io(h: &mut P, port: u16, size: u8, input: bool, string: Option<bool>) {
    let [rcx, rsi, rdi] = [RCX, RSI, RDI].map(|r| h.reg(r));
    let (at, pc) = (h.core.retired(), h.core.pc);
    let (string, repeats) = (string.is_some(), string.unwrap_or(false));
    h.arch.smm.io = Some(Io { at, pc, port, size, input, string, repeats, rcx, rsi, rdi });
}

/// The instruction behind which the processor stands, if it is one of I/O.
fn io_just_done(h: &P) -> Option<Io> {
    h.arch.smm.io.filter(|io| io.at + 1 == h.core.retired())
}

/// SMI# as the chipset gives it in answer to an I/O instruction: it is for the processor that has executed that.
pub(crate) fn answers_io(h: &mut P) {
    if io_just_done(h).is_some() {
        h.arch.pending.smi = true;
    }
}

/// "SMM-Lock": registers of system management mode cannot be written, and SMIs of a guest of SVM cannot be intercepted.
pub fn is_locked(arch: &X86) -> bool {
    msr::smm::is_locked(arch)
}

/// Whether an SMI would be taken now ("System Management Interrupt (SMI)": one is remembered in system management mode).
pub(crate) fn is_pending(h: &P) -> bool {
    h.arch.pending.smi && !h.arch.smm.is_on() && !h.arch.extension.holds(Intercept::Smi)
}

/// "Entering SMM". `halted` says that the processor was in HLT.
pub(crate) fn enter(h: &mut P, halted: bool) {
    let now = h.core.retired();
    h.arch.pending.smi = false;
    h.arch.smm.count = h.arch.smm.count.wrapping_add(1);
    let mut values = Values::of(h);
    values.set(item::HALT, if halted { RESTARTS_HALT } else { 0 });
    if let Some(io) = io_just_done(h) {
        values.set(item::IO_TRAP, if h.arch.smm.map == Vendor::Intel { io_misc(&io) } else { io_trap(&io) });
        let rip = h.ip(io.pc);
        for (i, value) in
            [item::IO_RIP, item::IO_RCX, item::IO_RSI, item::IO_RDI].into_iter().zip([rip, io.rcx, io.rsi, io.rdi])
        {
            values.set(i, value);
        }
    }
    note(h);
    let stepped = if h.arch.step_from.is_some_and(|from| from < now) { dr6::BS } else { 0 };
    let debug_trap = std::mem::take(&mut h.arch.debug_trap) | stepped;
    h.arch.smm.within = Some(Within { nmi_blocked: h.arch.nmi_blocked, debug_trap });
    let guest = extension::act(h, |e, h| e.enters_smm(h)).unwrap_or_default();
    values.set_guest(&guest);
    values.save(h);
    set_environment(h);
}

/// SMM_CTL: system management RAM is there, NMIs and SMIs are blocked, and nothing else changes.
pub(crate) fn enter_without_state(h: &mut P) {
    if !h.arch.smm.is_on() {
        h.arch.smm.within = Some(Within { nmi_blocked: h.arch.nmi_blocked, debug_trap: 0 });
        h.arch.nmi_blocked = true;
        translations_changed(h);
    }
}

/// SMM_CTL: the way back.
pub(crate) fn leave_without_state(h: &mut P) {
    if let Some(within) = h.arch.smm.within.take() {
        h.arch.nmi_blocked = within.nmi_blocked;
        h.core.check_interrupts = true;
        translations_changed(h);
    }
}

/// For traces.
fn note(h: &mut P) {
    if h.world.events.is_on() {
        let details = [("smbase", h.arch.smm.base.into())];
        let event = Event { level: 1, details: &details, ..h.event(Kind::Trap, "SMI") };
        h.world.events.send(&event);
    }
}

/// "SMI Handler Execution Environment": the table "Processor Register Initialization in SMM".
fn set_environment(h: &mut P) {
    let base = u64::from(h.arch.smm.base);
    let a = &mut h.arch;
    a.nmi_blocked = true;
    a.step_from = None;
    a.cr0 &= !(cr0::PE | cr0::EM | cr0::TS | cr0::PG);
    a.cr4 = 0;
    a.dr7 = debug::DR7_RESET;
    perf::set_efer(h, 0);
    let data = Segment { selector: 0, base: 0, limit: u32::MAX, attributes: Attributes(0x8093) };
    let code = Segment { selector: (base >> 4) as u16, base, attributes: Attributes(0x809b), ..data };
    for i in 0..6 {
        h.set_segment(i, if i == segments::CS { code } else { data });
    }
    h.set_reg(SSP, 0);
    h.set_rflags(2);
    h.core.pc = h.linear_ip(ENTRY);
    translations_changed(h);
}

/// The same addresses lead elsewhere.
pub(crate) fn translations_changed(h: &mut P) {
    h.core.mmu.drop_spaces(|_| true);
    h.all_changed();
}

/// RSM ("Exiting From SMM").
pub(crate) fn rsm(h: &mut P, _: u32) -> Step {
    ask_before(h, || Intercept::Rsm)?;
    let Some(within) = h.arch.smm.within else { return Err(Exception::UD.into()) };
    let values = Values::load(h);
    if !values.are_valid(h) {
        return shutdown();
    }
    h.arch.smm.within = None;
    h.arch.nmi_blocked = within.nmi_blocked;
    h.arch.debug_trap = within.debug_trap;
    values.restore(h);
    translations_changed(h);
    extension::act(h, |e, h| e.leaves_smm(h));
    if h.arch.pae_paging() && load_pdptes(h, h.arch.cr3).is_err() {
        return shutdown();
    }
    let mut ip = values.get(item::RIP);
    let restarts_io = values.get(item::IO_RESTART) & 0xff == RESTARTS_IO;
    if restarts_io {
        ip = values.get(item::IO_RIP);
        for (r, i) in [(RCX, item::IO_RCX), (RSI, item::IO_RSI), (RDI, item::IO_RDI)] {
            h.set_reg(r, values.get(i));
        }
    }
    h.core.next_pc = h.linear_ip(ip);
    if values.get(item::HALT) & RESTARTS_HALT != 0 && !restarts_io {
        h.arch.waiting.halts();
        return Err(Stop::of(StopKind::Wait));
    }
    Ok(())
}

/// Intel's IO_MISC.
fn io_misc(io: &Io) -> u64 {
    let kind = match (io.string, io.repeats, io.input) {
        (false, _, input) => u64::from(input),
        (true, repeats, input) => 2 | u64::from(repeats) << 2 | u64::from(input),
    };
    1 | u64::from(io.size) << 1 | kind << 4 | u64::from(io.port) << 16
}

/// AMD's "SMM I/O Trap" double word.
fn io_trap(io: &Io) -> u64 {
    let flags = [io.input, true, io.string, io.repeats, io.size == 1, io.size == 2, io.size == 4];
    flags.iter().rev().fold(0, |word, flag| word << 1 | u64::from(*flag)) | u64::from(io.port) << 16
}
