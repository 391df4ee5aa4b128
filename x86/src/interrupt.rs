//! Delivery of interrupts and exceptions (SDM vol. 3A, "Interrupt and Exception Handling"; "64-Bit Mode IDT"; vol. 3B, "Interrupt and Exception
//! Handling in Virtual-8086 Mode").

use emu_core::engine::flags::Size;
use emu_core::engine::{Arch, Step, Stop, StopKind};
use emu_core::event::{Event, Kind};

use crate::apic::{self, Pending};
use crate::branch;
use crate::control::{cr4, dr6, rflags};
use crate::debug;
use crate::exception::{Conclusion, Exception, name, vector};
use crate::extension::{self, Delivery, Intercept, Origin, ask_after};
use crate::frame::Stack;
use crate::ibt;
use crate::linear::is_within;
use crate::ordinary::{self, Entry};
use crate::processor::{AS_PROCESSOR, P, ProcessorExt, X86, exception_of, segments, shutdown};
use crate::protection::{self, Refusal, accessed, code_at, descriptor, null_stack};
use crate::registers::RSP;
use crate::segment::{Attributes, Descriptor, Segment, index_of};
use crate::shadow_stack::{self, Frame};
use crate::smm;
use crate::task::{self, Switch};

/// #SX's error code for an INIT that has become one (APM vol. 2, "#SX—Security Exception").
const SX_INIT: u16 = 1;

/// What is delivered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Source {
    /// An exception of the processor's own.
    Exception,
    /// INT1.
    Icebp,
    /// INT n: the gate's DPL counts, and IOPL in virtual-8086 mode.
    Software,
    /// INT3, INTO: the gate's DPL counts.
    SoftwareException,
    /// An interrupt from outside.
    External,
    /// A non-maskable interrupt.
    Nmi,
}

impl Source {
    /// EXT (SDM vol. 3A, "Error Code"): the program is not to blame. To AMD's processors exceptions are not external (APM vol. 2, "Selector-Error
    /// Code").
    fn ext(self, is_amd: bool) -> u16 {
        u16::from(match self {
            Source::Software | Source::SoftwareException => false,
            Source::Exception | Source::Icebp => !is_amd,
            Source::External | Source::Nmi => true,
        })
    }

    fn asks_dpl(self) -> bool {
        matches!(self, Source::Software | Source::SoftwareException)
    }

    fn origin(self) -> Origin {
        match self {
            Source::Exception => Origin::Exception,
            Source::Icebp => Origin::PrivilegedSoftwareException,
            Source::Software => Origin::SoftwareInterrupt,
            Source::SoftwareException => Origin::SoftwareException,
            Source::External => Origin::External,
            Source::Nmi => Origin::Nmi,
        }
    }

    fn of(origin: Origin) -> Self {
        match origin {
            Origin::Exception => Source::Exception,
            Origin::PrivilegedSoftwareException => Source::Icebp,
            Origin::SoftwareInterrupt => Source::Software,
            Origin::SoftwareException => Source::SoftwareException,
            Origin::External => Source::External,
            Origin::Nmi => Source::Nmi,
        }
    }
}

/// Takes an exception, and whatever its delivery comes to.
#[inline]
pub(crate) fn take_exception(h: &mut P, exception: Exception) -> Step {
    ask_about(h, exception, None)?;
    take_unasked(h, exception)
}

/// Takes an exception that nobody else wants, and whatever its delivery comes to.
#[inline]
fn take_unasked(h: &mut P, exception: Exception) -> Step {
    let mut e = exception;
    loop {
        match e.vector {
            vector::PF => h.arch.cr2 = e.address,
            vector::DB => debug::record(h.arch, e.address),
            _ => {}
        }
        note(h, e);
        // Faults are to be taken once: the handler's IRET steps over a breakpoint on their instruction.
        let is_fault = !matches!(e.vector, vector::DB | vector::BP | vector::OF);
        let rf = if is_fault { rflags::RF } else { 0 };
        let event = Delivery { origin: Origin::Exception, vector: e.vector, error: e.error, length: 0 };
        let Some(second) = delivered(h, event, h.core.pc, rf)? else { return Ok(()) };
        let next = in_place_of(h, event, second)?;
        if next == e && e.vector == vector::AC {
            return deliver_for_ever(h, event);
        }
        e = next;
    }
}

/// The exception to take where the delivery of an event came to a second one. An extension is asked about that one as it is before the two
/// are combined into a double fault: a VMM that takes page faults gets the one in the delivery of a page fault, too.
fn in_place_of(h: &mut P, event: Delivery, second: Exception) -> Step<Exception> {
    ask_about(h, second, Some(event))?;
    if event.origin != Origin::Exception {
        return Ok(second);
    }
    let first = Exception { vector: event.vector, error: event.error, address: 0 };
    match first.and_then(second) {
        Conclusion::Second => Ok(second),
        Conclusion::DoubleFault => {
            let double = Exception::with(vector::DF, 0);
            ask_about(h, double, Some(event))?;
            Ok(double)
        }
        Conclusion::Shutdown => {
            ask_after(h, || Intercept::TripleFault)?;
            shutdown()
        }
    }
}

fn ask_about(h: &mut P, exception: Exception, first: Option<Delivery>) -> Step {
    ask_after(h, || Intercept::Exception { exception, software: false, first })
}

/// The delivery of an alignment check comes to another, and that one's to the next: a processor never gets to the end of an instruction. Here its
/// clock goes on, events that are due are taken, and the instruction faults again.
fn deliver_for_ever(h: &mut P, event: Delivery) -> Step {
    h.arch.delivering = Some(event);
    let result = ask_after(h, || Intercept::Endless);
    h.arch.delivering = None;
    h.core.check_interrupts = true;
    result
}

/// Delivers an interrupt that an instruction or somebody outside asks for; `rip` is the linear address where it returns to.
pub(crate) fn take(h: &mut P, vector: u8, source: Source, rip: u64) -> Step {
    // What an instruction asks for returns behind it.
    let length = rip.wrapping_sub(h.core.pc);
    let event = Delivery { origin: source.origin(), vector, error: None, length };
    take_event(h, event, rip)
}

fn take_event(h: &mut P, event: Delivery, rip: u64) -> Step {
    match delivered(h, event, rip, 0)? {
        None => Ok(()),
        Some(second) => {
            let exception = in_place_of(h, event, second)?;
            take_unasked(h, exception)
        }
    }
}

/// Delivers an event, or gives the exception that its delivery comes to.
#[inline(always)]
fn delivered(h: &mut P, event: Delivery, rip: u64, rf: u64) -> Step<Option<Exception>> {
    h.arch.delivering = Some(event);
    let (from, watched, from_user) = (h.core.pc, h.arch.watches_branches(), h.arch.cpl() == 3);
    let result = match deliver(h, event.vector, event.error, Source::of(event.origin), rip, rf) {
        Ok(()) => {
            if watched {
                branch::delivered(h, Source::of(event.origin), from, from_user);
                h.core.check_interrupts = true;
            }
            Ok(None)
        }
        Err(stop) => exception_of(h, stop).map(Some),
    };
    h.arch.delivering = None;
    result
}

fn note(h: &mut P, e: Exception) {
    let level = h.arch.level();
    h.world.events.count_exit(level, e.vector.into());
    if h.world.events.is_on() {
        let details = [("error", e.error.unwrap_or(0).into()), ("address", e.address)];
        let event = Event { details: &details, ..h.event(Kind::Trap, name(e.vector)) };
        h.world.events.send(&event);
    }
}

/// How many events are delivered before time passes. A delivery may make the next event come, and that one the next: the stack of a debug
/// exception's handler has a breakpoint, or a line stays high and a handler lets interrupts in. A processor never gets to an instruction then.
const DELIVERIES: usize = 16;

/// See [`Arch::interrupt`](emu_core::engine::Arch::interrupt).
pub(crate) fn take_pending(h: &mut P) -> Step {
    for _ in 0..DELIVERIES {
        h.core.check_interrupts = false;
        if !take_next(h)? {
            return Ok(());
        }
    }
    h.core.check_interrupts = true;
    Err(Stop::of(StopKind::Yield))
}

/// What comes between two instructions, by priority ("Priority Among Concurrent Events"). Returns whether something has been delivered: there
/// may be more before the handler's first instruction.
fn take_next(h: &mut P) -> Step<bool> {
    if h.arch.waiting.is_asleep() {
        return Err(Stop::of(StopKind::Wait));
    }
    if h.arch.extension.has_work() {
        ask_after(h, || Intercept::Over)?;
    }
    take_initialization(h)?;
    let (halted, shut_down) = (h.arch.waiting.is_halted(), h.arch.waiting.is_shut_down());
    h.arch.waiting.ends();
    let now = h.core.retired();
    h.arch.woken_at = (halted || shut_down).then_some(now);
    h.arch.woken_from_shutdown = shut_down;
    if deliver_injected(h)? {
        return Ok(true);
    }
    let is_shadowed = h.arch.shadow == Some(now);
    if !is_shadowed {
        h.arch.shadow = None;
        h.arch.shadow_holds_traps = false;
    }
    let is_intercepted = |h: &P| h.arch.extension.takes_in_shadow(Intercept::Smi) && !smm::is_locked(h.arch);
    if smm::is_pending(h) && (!is_shadowed || is_intercepted(h)) {
        ask_after(h, || Intercept::Smi)?;
        smm::enter(h, halted);
        return Ok(false);
    }
    if take_traps(h, now)? || take_at_boundary(h, is_shadowed)? || take_interrupts(h, is_shadowed)? {
        return Ok(true);
    }
    h.arch.step_from = h.arch.is_stepped().then_some(now);
    h.arch.step_begins();
    // The next instruction stands alone, for something is to be looked at behind it.
    h.core.check_interrupts |= h.arch.shadow.is_some() || h.arch.is_stepped() || h.arch.extension.steps();
    Ok(false)
}

/// INIT, and the start-up message that a processor waits for behind it.
fn take_initialization(h: &mut P) -> Step {
    if h.arch.pending.init && !h.arch.smm.is_on() && !h.arch.extension.holds(Intercept::Init) {
        ask_after(h, || Intercept::Init)?;
        if h.arch.extension.redirects_init() {
            h.arch.pending.init = false;
            h.core.check_interrupts = true;
            return take_exception(h, Exception::with(vector::SX, SX_INIT));
        }
        initialize(h);
    }
    if h.arch.waiting.is_for_sipi() {
        let Some(vector) = h.arch.pending.sipi.take() else { return Err(Stop::of(StopKind::Wait)) };
        ask_after(h, || Intercept::Sipi(vector))?;
        start_up(h, vector);
    }
    h.arch.pending.sipi = None;
    Ok(())
}

/// "Traps on the previous instruction": debug traps, and before them what an extension has of the kind. As of those below,
/// the result is whether something has been delivered.
fn take_traps(h: &mut P, now: u64) -> Step<bool> {
    if h.arch.extension.is_guest() {
        ask_after(h, || Intercept::Completed)?;
    }
    if h.arch.shadow_holds_traps {
        return Ok(false);
    }
    let is_stepped = h.arch.step_from.is_some_and(|from| from < now) && h.arch.step_is_due();
    let stepped = if is_stepped { dr6::BS } else { 0 };
    let bits = std::mem::take(&mut h.arch.debug_trap) | stepped;
    if bits == 0 {
        return Ok(false);
    }
    h.arch.step_from = None;
    h.core.check_interrupts = true;
    take_exception(h, Exception { vector: vector::DB, error: None, address: bits })?;
    Ok(true)
}

/// What an extension has between traps and interrupts.
fn take_at_boundary(h: &mut P, is_shadowed: bool) -> Step<bool> {
    if !h.arch.extension.is_guest() {
        return Ok(false);
    }
    ask_after(h, || Intercept::Boundary { shadowed: is_shadowed })?;
    deliver_injected(h)
}

/// "Nonmaskable interrupts", "Maskable hardware interrupts".
fn take_interrupts(h: &mut P, is_shadowed: bool) -> Step<bool> {
    let x = &h.arch.extension;
    let is_held = is_shadowed && !x.takes_in_shadow(Intercept::Nmi);
    let holds_nmi = h.arch.nmi_blocked || is_held || x.holds(Intercept::Nmi);
    if h.arch.pending.nmi && !holds_nmi {
        ask_after(h, || Intercept::Nmi)?;
        h.arch.pending.nmi = false;
        h.arch.nmi_blocked = true;
        take_from_outside(h, vector::NMI, Source::Nmi)?;
        return Ok(true);
    }
    let has_vector = h.arch.pending.ext_int || h.arch.apic.pending_vector().is_some();
    let x = &h.arch.extension;
    let masked = x.masks_interrupts(h.arch.rflags);
    let what = Intercept::ExternalInterrupt { masked };
    let concerns = !masked || x.takes_masked_interrupts();
    if !has_vector || !concerns || is_shadowed && !x.takes_in_shadow(what) || x.holds(what) {
        return Ok(false);
    }
    ask_after(h, || what)?;
    if masked {
        return Ok(false);
    }
    let vector = acknowledge(h);
    take_from_outside(h, vector, Source::External)?;
    Ok(true)
}

/// The interrupt controllers give their vector.
pub(crate) fn acknowledge(h: &mut P) -> u8 {
    if h.arch.pending.ext_int { apic::acknowledge_ext_int(h) } else { apic::acknowledge(h) }
}

/// What an extension wants delivered is: as if it had occurred before the instruction that is next. Whether an NMI blocks others is the
/// extension's to say.
fn deliver_injected(h: &mut P) -> Step<bool> {
    let Some(event) = h.arch.injected.take() else { return Ok(false) };
    h.core.check_interrupts = true;
    let rip = h.core.pc.wrapping_add(event.length);
    take_event(h, event, rip)?;
    Ok(true)
}

fn take_from_outside(h: &mut P, vector: u8, source: Source) -> Step {
    h.world.events.count_exit(h.arch.level(), vector.into());
    if h.world.events.is_on() {
        let details = [("vector", vector.into())];
        let event = Event { details: &details, ..h.event(Kind::Interrupt, name(vector)) };
        h.world.events.send(&event);
    }
    h.core.check_interrupts = true;
    take(h, vector, source, h.core.pc)
}

/// RESET# is held while the PC sleeps ("Processor State After Reset").
pub(crate) fn sleep(h: &mut P, is_asleep: bool) {
    if is_asleep {
        h.arch.waiting.sleeps(true);
        return;
    }
    let a = &h.arch;
    let mut fresh = X86::reset(a.id).of_model(a.model, a.id, a.cores, 0);
    (fresh.smm.map, fresh.smm.memory.bridge) = (a.smm.map, a.smm.memory.bridge);
    (fresh.a20, fresh.random, fresh.extension) = (a.a20, a.random, a.extension.clone());
    fresh.apic = a.apic.after_reset();
    *h.arch = fresh;
    extension::act(h, |e, _| e.reset());
    h.core.regs[..crate::registers::COUNT].fill(0);
    crate::xsave::reset_registers(&mut h.core.regs);
    begin(h);
    apic::reset(h);
    if h.arch.apic.is_bsp() {
        h.arch.waiting.sleeps(false);
    }
}

/// What RESET and INIT have in common.
fn begin(h: &mut P) {
    h.set_reg(crate::registers::RDX, h.arch.model.signature().into());
    crate::processor::set_flags(&mut h.core.regs, emu_core::engine::flags::Flags::eager(0));
    h.core.mmu.clear();
    h.core.pc = 0xffff_fff0;
    if !h.arch.apic.is_bsp() {
        h.arch.waiting.waits_for_sipi();
    }
    h.all_changed();
}

/// INIT: the bootstrap processor begins anew, the others wait for a start-up message.
fn initialize(h: &mut P) {
    *h.arch = h.arch.after_init();
    // A start-up message that came behind INIT still counts, and so does an SMI.
    let Pending { ext_int, sipi, smi, .. } = h.arch.pending;
    h.arch.pending = Pending { ext_int, sipi, smi, ..Pending::default() };
    let vectors = usize::from(crate::registers::VECTORS)..crate::registers::COUNT;
    let mxcsr = h.reg(crate::registers::MXCSR);
    h.core.regs[..vectors.start].fill(0);
    h.set_reg(crate::registers::MXCSR, mxcsr);
    begin(h);
    apic::init(h);
}

/// A start-up message: the processor begins at the page of its vector ("MP Initialization Protocol"). An SMI that has come while it waited is
/// taken then.
fn start_up(h: &mut P, vector: u8) {
    let base = u64::from(vector) << 12;
    let code = Segment { selector: u16::from(vector) << 8, base, ..h.arch.segments[segments::CS] };
    h.set_segment(segments::CS, code);
    h.core.pc = base;
}

/// One delivery. Nothing is changed before the last step that can fail, but in a task switch.
fn deliver(h: &mut P, vector: u8, error: Option<u16>, source: Source, rip: u64, rf: u64) -> Step {
    let ip = h.ip(rip);
    if h.arch.cr0 & crate::control::cr0::PE == 0 {
        deliver_real(h, vector, ip)?;
    } else {
        if h.arch.is_v8086() && source == Source::Software {
            if h.arch.cr4 & cr4::VME != 0 && task::redirects(h, vector)? {
                return deliver_redirected(h, vector, ip);
            }
            h.fault_if(h.arch.iopl() < 3, Exception::gp(0))?;
        }
        deliver_protected(h, vector, error, source, ip, rf)?;
    }
    h.arch.step_from = None;
    h.arch.resumed_at = None;
    h.arch.woken_at = None;
    h.core.check_interrupts |= may_be_pending(h);
    Ok(())
}

/// Whether [`take_pending`] might have something to do. As long as nothing is there, whoever makes something come asks for it to be looked
/// at.
#[inline]
fn may_be_pending(h: &P) -> bool {
    let a = &h.arch;
    let Pending { nmi, smi, init, sipi, ext_int } = &a.pending;
    let waits = *nmi || *smi || *init || sipi.is_some() || *ext_int || a.apic.has_requests();
    let traps = a.debug_trap != 0 || a.is_stepped() || a.shadow.is_some();
    waits || traps || a.injected.is_some() || a.extension.is_guest()
}

/// Through the interrupt vector table of real mode.
fn deliver_real(h: &mut P, vector: u8, ip: u64) -> Step {
    let at = 4 * u64::from(vector);
    h.fault_if(at + 3 > h.arch.idtr.limit.into(), Exception::with(vector::GP, u16::from(vector) << 3 | 2))?;
    let entry = h.read_system(h.arch.idtr.base.wrapping_add(at) & 0xffff_ffff, 4)?;
    enter_real(h, entry, ip, h.rflags())?;
    h.arch.rflags &= !(rflags::IF | rflags::TF | rflags::AC);
    h.core.spaces_changed = true;
    Ok(())
}

/// INT n of a virtual-8086 program that its own handler takes ("Software Interrupt Handling Methods").
fn deliver_redirected(h: &mut P, vector: u8, ip: u64) -> Step {
    let entry = h.load(4 * u64::from(vector), 4, 0)?;
    let has_iopl = h.arch.iopl() == 3;
    let mut flags = h.rflags();
    if !has_iopl {
        let vif = if flags & rflags::VIF != 0 { rflags::IF } else { 0 };
        flags = flags & !rflags::IF | vif | 3 << 12;
    }
    enter_real(h, entry, ip, flags)?;
    h.arch.rflags &= !(rflags::TF | if has_iopl { rflags::IF } else { rflags::VIF });
    h.all_changed();
    Ok(())
}

/// Pushes flags, CS and IP, and goes to an entry of an interrupt vector table.
fn enter_real(h: &mut P, entry: u64, ip: u64, flags: u64) -> Step {
    let mut stack = Stack::present(h);
    let cs = h.arch.segments[segments::CS];
    let (target, selector) = (entry & 0xffff, (entry >> 16) as u16);
    let words = [flags & 0xffff, cs.selector.into(), ip & 0xffff];
    let mut code = protection::real(h, segments::CS, selector);
    if !h.arch.is_v8086() {
        code.attributes = Attributes(code.attributes.0 | 8);
    }
    h.fault_if(!is_within(&code, target, 1), Exception::gp(0))?;
    stack.push(h, &words, Size::Bits16, Exception::with(vector::SS, 0))?;
    h.set_reg(RSP, stack.sp);
    h.set_segment(segments::CS, code);
    h.core.pc = h.linear_ip(target);
    Ok(())
}

/// Through a gate of the IDT.
fn deliver_protected(h: &mut P, vector: u8, error: Option<u16>, source: Source, ip: u64, rf: u64) -> Step {
    let ext = source.ext(h.arch.model.is_amd());
    let flags = h.rflags() | rf;
    if let Some(entry) = ordinary::deliver(h, vector, error, source.asks_dpl(), ip, flags) {
        enter(h, entry);
        return Ok(());
    }
    let in_idt = u16::from(vector) << 3 | 2;
    let is_long = h.arch.is_long();
    // The gate.
    let bytes = if is_long { 16 } else { 8 };
    let offset = u32::from(vector) * bytes;
    h.fault_if(offset + bytes - 1 > h.arch.idtr.limit.into(), Exception::gp(in_idt | ext))?;
    let at = h.arch.idtr.base.wrapping_add(offset.into());
    let low = h.load_word(at, AS_PROCESSOR)?;
    let high = if is_long { h.load_word(at.wrapping_add(8), AS_PROCESSOR)? } else { 0 };
    let attributes = Descriptor(low).attributes();
    let kind = attributes.kind();
    let is_gate = if is_long { matches!(kind, 14 | 15) } else { matches!(kind, 5 | 6 | 7 | 14 | 15) };
    h.fault_if(attributes.is_code_or_data() || !is_gate, Exception::gp(in_idt | ext))?;
    let cpl = h.arch.cpl();
    h.fault_if(source.asks_dpl() && attributes.dpl() < cpl, Exception::gp(in_idt))?;
    h.fault_if(!attributes.is_present(), Exception::with(vector::NP, in_idt | ext))?;
    let selector = (low >> 16) as u16;
    if kind == 5 {
        let flags = h.arch.rflags;
        h.arch.rflags |= rf;
        let done = task::switch_from(h, selector, Switch::Call, error, ip, ext);
        if h.arch.tr.selector == selector {
            // The switch was made: a fault from now on is of the new task's first instruction.
            h.core.pc = h.core.next_pc;
        } else {
            h.arch.rflags = flags;
        }
        return done;
    }
    let size = match (is_long, kind & 8 != 0) {
        (true, _) => Size::Bits64,
        (_, true) => Size::Bits32,
        _ => Size::Bits16,
    };
    let target = low & 0xffff | low >> 32 & 0xffff_0000 | high << 32;
    let target = size.merge(0, target);
    // The code segment.
    h.fault_if(index_of(selector) == 0, Exception::gp(ext))?;
    let d = descriptor(h, selector, Refusal::GP.with_ext(ext))?;
    let a = d.attributes();
    let refused = Refusal::GP.with_ext(ext).of(selector);
    h.fault_if(!a.is_code() || a.dpl() > cpl, refused)?;
    h.fault_if(!a.is_present(), Exception::with(vector::NP, index_of(selector) | ext))?;
    h.fault_if(is_long && (!a.is_long() || a.is_big()), refused)?;
    let new_cpl = if a.is_conforming() { cpl } else { a.dpl() };
    let from_v8086 = h.arch.is_v8086();
    h.fault_if(from_v8086 && new_cpl != 0, refused)?;
    // The stack.
    let ist = if is_long { low >> 32 & 7 } else { 0 };
    let old = Stack::present(h);
    let mut stack = if ist != 0 {
        let sp = task::long_stack(h, 28 + 8 * ist as u32, ext)?;
        Stack { segment: null_stack(new_cpl), sp, cpl: new_cpl, is_64: true }
    } else if new_cpl < cpl {
        task::inner_stack(h, new_cpl, ext)?
    } else {
        Stack { is_64: is_long, ..old }
    };
    let shadow = shadow_stack::switched_to(h, new_cpl, ist)?;
    let fits = if is_long { h.arch.is_canonical(target) } else { target <= d.limit().into() };
    h.fault_if(!fits, Exception::gp(ext))?;
    // All that a frame may have: from virtual-8086 mode, of 64-bit code or another level's stack, always, where there is an error code.
    let selector_of = |i: usize| u64::from(h.arch.segments[i].selector);
    let frame = [
        selector_of(segments::GS),
        selector_of(segments::FS),
        selector_of(segments::DS),
        selector_of(segments::ES),
        selector_of(segments::SS),
        old.sp,
        flags,
        selector_of(segments::CS),
        ip,
        error.unwrap_or(0).into(),
    ];
    let begins = match (from_v8086, is_long || new_cpl < cpl) {
        (true, _) => 0,
        (_, true) => 4,
        _ => 6,
    };
    if is_long {
        stack.sp &= !15;
    }
    let inner = if new_cpl < cpl { index_of(stack.segment.selector) } else { 0 };
    let words = &frame[begins..9 + usize::from(error.is_some())];
    stack.push(h, words, size, Exception::with(vector::SS, inner | ext))?;
    let code = code_at(accessed(h, selector, d)?, new_cpl);
    let left = Frame { cs: h.arch.segments[segments::CS].selector, lip: h.linear_ip(ip) };
    shadow_stack::enter(h, new_cpl, shadow, is_long, left)?.commit(h);
    // Nothing below can fail.
    if from_v8086 {
        for i in [segments::GS, segments::FS, segments::DS, segments::ES] {
            h.set_segment(i, Segment { attributes: Attributes::UNUSABLE, ..Segment::default() });
        }
        h.core.spaces_changed = true;
    }
    let stack_of_inner = (new_cpl < cpl).then_some(stack.segment);
    enter(h, Entry { code, stack: stack_of_inner, sp: stack.sp, target, masks: kind & 1 == 0 });
    ibt::wait(h, new_cpl);
    Ok(())
}

/// The handler begins.
#[inline(always)]
fn enter(h: &mut P, entry: Entry) {
    h.set_segment(segments::CS, entry.code);
    if let Some(stack) = entry.stack {
        h.set_segment(segments::SS, stack);
    }
    h.set_reg(RSP, entry.sp);
    let masked = if entry.masks { rflags::IF } else { 0 };
    h.arch.rflags &= !(rflags::TF | rflags::NT | rflags::VM | masked);
    h.core.pc = h.linear_ip(entry.target);
}
