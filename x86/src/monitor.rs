//! Waiting: MONITOR and MWAIT, MONITORX and MWAITX, UMONITOR, UMWAIT and TPAUSE, PAUSE (SDM vol. 2; APM vol. 3).
//!
//! A monitored line wakes its processor once it holds something else than when it was looked at: a store of what was there already is
//! not seen. A processor that waits is looked at whenever another has had its turn, and when a device has written.

use emu_core::engine::flags::Flags;
use emu_core::engine::{Intent, Step, Stop, StopKind};
use emu_core::time::{VirtualTime, earlier};
use serde::{Deserialize, Serialize};

use crate::apic;
use crate::caches::LINE;
use crate::control::cr4;
use crate::exception::Exception;
use crate::extension::{self, Intercept, ask_after, ask_before};
use crate::model::{Feature, misc_enable};
use crate::model_specific::pair;
use crate::msr::{number, perf};
use crate::processor::{P, ProcessorExt, base_of, segments, set_flags};
use crate::processor_instructions::Operand;
use crate::registers::{RBX, RCX};
use crate::smm;

/// What the processor waits for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
enum Wait {
    /// It does not wait.
    #[default]
    No,
    /// HLT: an interrupt that it may take.
    Halted,
    /// FERR# is asserted: an interrupt, or IGNNE#.
    Frozen,
    /// A start-up IPI.
    ForSipi,
    /// Shutdown, in a guest: what is above interrupts.
    Shutdown,
    /// RESET#: the PC sleeps.
    Asleep,
    /// It has been reset, and begins.
    Reset,
    /// The monitored line, an interrupt (even one that is masked), or a point of time, which may be the system's limit.
    Monitor { masked: bool, until: Option<u64>, limited: bool },
}

/// What MONITOR has armed, and what the processor waits for.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Waiting {
    /// Physical address of a line, and what it held.
    line: Option<(u64, [u64; 8])>,
    wait: Wait,
}

impl Waiting {
    /// HLT: to be said before the processor waits.
    pub fn halts(&mut self) {
        self.wait = Wait::Halted;
    }

    /// INIT of an application processor: likewise.
    pub fn waits_for_sipi(&mut self) {
        *self = Waiting { line: None, wait: Wait::ForSipi };
    }

    /// Shutdown: likewise.
    pub fn shuts_down(&mut self) {
        self.wait = Wait::Shutdown;
    }

    /// Shutdown is what it waits in.
    pub fn is_shut_down(&self) -> bool {
        self.wait == Wait::Shutdown
    }

    /// A waiting instruction of the x87 cannot begin.
    pub fn freezes(&mut self) {
        self.wait = Wait::Frozen;
    }

    /// RESET# is held, or no longer.
    pub fn sleeps(&mut self, is: bool) {
        *self = Waiting { line: None, wait: if is { Wait::Asleep } else { Wait::Reset } };
    }

    /// RESET# is held.
    pub fn is_asleep(&self) -> bool {
        self.wait == Wait::Asleep
    }

    /// HLT is what it waits in.
    pub fn is_halted(&self) -> bool {
        self.wait == Wait::Halted
    }

    /// A start-up IPI is all that it waits for.
    pub fn is_for_sipi(&self) -> bool {
        self.wait == Wait::ForSipi
    }

    /// The processor goes on.
    pub fn ends(&mut self) {
        if self.wait != Wait::No {
            *self = Waiting::default();
        }
    }
}

/// Whether an interrupt is pending that the processor takes, or would take if interrupts were not `masked`.
fn has_interrupt(h: &P, masked: bool) -> bool {
    let maskable = h.arch.pending.ext_int || h.arch.apic.pending_vector().is_some();
    let x = &h.arch.extension;
    let masked = masked || !x.masks_interrupts(h.arch.rflags) || x.takes_masked_interrupts();
    has_event_above_interrupts(h) || maskable && masked && !x.holds(Intercept::ExternalInterrupt { masked: false })
}

/// Whether there is anything to be taken that RFLAGS.IF does not mask.
fn has_event_above_interrupts(h: &P) -> bool {
    let (p, x) = (&h.arch.pending, &h.arch.extension);
    p.nmi && !h.arch.nmi_blocked && !x.holds(Intercept::Nmi)
        || p.init && !x.holds(Intercept::Init) && !h.arch.smm.is_on()
        || smm::is_pending(h)
        || h.arch.injected.is_some()
        || x.get().is_some_and(|e| e.is_guest() && e.is_awake(h))
}

/// Whether a processor that waits has a reason to go on.
pub(crate) fn is_awake(h: &P) -> bool {
    match h.arch.waiting.wait {
        Wait::No | Wait::Halted => has_interrupt(h, false),
        Wait::Frozen => has_interrupt(h, false) || h.arch.error_pins.ignne,
        Wait::Shutdown => has_event_above_interrupts(h),
        Wait::Asleep => false,
        Wait::Reset => true,
        Wait::ForSipi => h.arch.pending.sipi.is_some() || h.arch.pending.init && !h.arch.smm.is_on(),
        Wait::Monitor { masked, until, .. } => {
            has_interrupt(h, masked) || until.is_some_and(|at| at <= h.core.count()) || line_has_changed(h)
        }
    }
}

fn line_has_changed(h: &P) -> bool {
    h.arch.waiting.line.is_some_and(|(pa, words)| read_line(h, pa) != words)
}

/// What a line in RAM holds. A line elsewhere does not change.
fn read_line(h: &P, pa: u64) -> [u64; 8] {
    std::array::from_fn(|i| h.world.ram.load(pa + 8 * i as u64, 8).unwrap_or(0))
}

/// When a wait ends, and when a performance counter overflows.
pub(crate) fn wakes_at(h: &P) -> Option<VirtualTime> {
    let (until, runs) = match h.arch.waiting.wait {
        Wait::No => (None, true),
        Wait::Monitor { until, .. } => (until.filter(|at| *at > h.core.count()), is_awake(h)),
        _ => (None, false),
    };
    let overflow = if runs { perf::due(h) } else { None };
    let until = earlier(until, h.arch.extension.wakes_at().filter(|at| *at > h.core.count()));
    earlier(until, overflow).map(|count| apic::time_of(h, count))
}

/// A wait that has come to the system's limit says so in CF.
pub(crate) fn tick(h: &mut P) {
    if let Wait::Monitor { until: Some(at), limited: true, .. } = h.arch.waiting.wait
        && at <= h.core.count()
    {
        h.arch.waiting.wait = Wait::Monitor { masked: true, until: Some(at), limited: false };
        const CF: u64 = 1;
        set_flags(&mut h.core.regs, Flags::eager(CF));
    }
}

/// The linear address in a register, in its segment.
pub(crate) fn linear(h: &P, o: Operand) -> u64 {
    let value = h.core.regs[o.register()];
    let value = match o.size() {
        2 => value & 0xffff,
        4 => value & 0xffff_ffff,
        _ => value,
    };
    let is_64 = h.arch.is_64();
    match (is_64, o.segment()) {
        (true, s @ (segments::FS | segments::GS)) => value.wrapping_add(base_of(h, s)),
        (true, _) => value,
        (false, s) => value.wrapping_add(base_of(h, s)) & 0xffff_ffff,
    }
}

/// Arms the monitor: a load of a byte.
fn arm(h: &mut P, o: Operand) -> Step {
    let at = linear(h, o);
    let pa = h.resolve(at, 1, Intent::Read, 0)?.pa & !(LINE - 1);
    h.arch.waiting.line = Some((pa, read_line(h, pa)));
    Ok(())
}

fn ecx(h: &P) -> u64 {
    h.core.regs[usize::from(RCX)] & 0xffff_ffff
}

/// MONITOR and MWAIT are for CPL 0, and can be switched off.
fn require_monitor(h: &P) -> Step {
    let off = h.arch.model.is_intel() && h.arch.stored_msr(number::MISC_ENABLE) & misc_enable::MONITOR == 0;
    h.fault_if(off || h.arch.cpl() != 0, Exception::UD)
}

/// MONITOR: there are no extensions.
pub(crate) fn monitor(h: &mut P, o: Operand) -> Step {
    require_monitor(h)?;
    ask_before(h, || Intercept::Monitor)?;
    h.fault_if(ecx(h) != 0, Exception::gp(0))?;
    ask_after(h, || Intercept::Monitor)?;
    arm(h, o)
}

/// MONITORX, at any privilege level.
pub(crate) fn monitorx(h: &mut P, o: Operand) -> Step {
    ask_before(h, || Intercept::Monitor)?;
    h.fault_if(ecx(h) != 0, Exception::gp(0))?;
    ask_after(h, || Intercept::Monitor)?;
    arm(h, o)
}

/// UMONITOR, at any privilege level.
pub(crate) fn umonitor(h: &mut P, o: Operand) -> Step {
    extension::require_enabled(h, Feature::Waitpkg)?;
    arm(h, o)
}

/// Waits, if the monitor is armed and its line is as it was. Without an armed monitor the next instruction follows at once.
fn wait(h: &mut P, masked: bool, until: Option<u64>, limited: bool) -> Step {
    if h.arch.waiting.line.is_none() {
        return Ok(());
    }
    begin(h, masked, until, limited)
}

fn begin(h: &mut P, masked: bool, until: Option<u64>, limited: bool) -> Step {
    h.arch.waiting.wait = Wait::Monitor { masked, until, limited };
    if is_awake(h) {
        h.arch.waiting.ends();
        return Ok(());
    }
    Err(Stop::of(StopKind::Wait))
}

/// MWAIT: bit 0 of ECX makes masked interrupts break events.
pub(crate) fn mwait(h: &mut P, _: Operand) -> Step {
    require_monitor(h)?;
    let what = Intercept::Mwait { armed: h.arch.waiting.line.is_some() };
    ask_before(h, || what)?;
    let extensions = ecx(h);
    h.fault_if(extensions & !1 != 0, Exception::gp(0))?;
    ask_after(h, || what)?;
    wait(h, extensions & 1 != 0, None, false)
}

/// MWAITX: bit 1 of ECX bounds the wait by EBX, in ticks of the TSC.
pub(crate) fn mwaitx(h: &mut P, _: Operand) -> Step {
    let what = Intercept::Mwait { armed: h.arch.waiting.line.is_some() };
    ask_before(h, || what)?;
    let extensions = ecx(h);
    h.fault_if(extensions & !3 != 0, Exception::gp(0))?;
    ask_after(h, || what)?;
    let ticks = h.core.regs[usize::from(RBX)] & 0xffff_ffff;
    let until = (extensions & 2 != 0).then(|| h.core.count().saturating_add(ticks));
    wait(h, extensions & 1 != 0, until, false)
}

/// What UMWAIT and TPAUSE have in common: the deadline in EDX:EAX, and IA32_UMWAIT_CONTROL.
fn user_deadline(h: &mut P, o: Operand) -> Step<(Option<u64>, bool)> {
    extension::require_enabled(h, Feature::Waitpkg)?;
    h.fault_if(h.arch.cr4 & cr4::TSD != 0 && h.arch.cpl() != 0, Exception::gp(0))?;
    h.fault_if(h.core.regs[o.register()] as u32 & !1 != 0, Exception::gp(0))?;
    ask_after(h, || Intercept::Umwait)?;
    const UMWAIT_CONTROL: u32 = 0xe1;
    let now = h.core.count();
    let deadline = now.saturating_add(pair(h).saturating_sub(extension::tsc(h)));
    let limit = match h.arch.stored_msr(UMWAIT_CONTROL) & 0xffff_fffc {
        0 => u64::MAX,
        ticks => now.saturating_add(ticks),
    };
    set_flags(&mut h.core.regs, Flags::eager(0));
    Ok((Some(deadline.min(limit)), limit < deadline))
}

/// UMWAIT.
pub(crate) fn umwait(h: &mut P, o: Operand) -> Step {
    let (until, limited) = user_deadline(h, o)?;
    wait(h, true, until, limited)
}

/// TPAUSE: as UMWAIT, with nothing monitored.
pub(crate) fn tpause(h: &mut P, o: Operand) -> Step {
    let (until, limited) = user_deadline(h, o)?;
    h.arch.waiting.line = None;
    begin(h, true, until, limited)
}

/// PAUSE: others may go on.
pub(crate) fn pause(h: &mut P, _: Operand) -> Step {
    ask_after(h, || Intercept::Pause)?;
    Err(Stop::of(StopKind::Yield))
}
