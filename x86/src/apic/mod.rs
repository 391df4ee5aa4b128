//! The local APIC (SDM vol. 3A, "Advanced Programmable Interrupt Controller (APIC)"; APM vol. 2, chapter 16): xAPIC and x2APIC.
//!
//! ```text
//! pins ----> LVT ---+                               +--> Pending (NMI, SMI, INIT, SIPI, ExtINT)
//! timer ---> LVT ---+--> delivery by mode ----------+
//! messages, IPIs ---+                               +--> IRR --(above PPR)--> vector --> ISR --(EOI)
//! ```
//!
//! What the manuals leave open: a lowest-priority interrupt goes to the processor with the lowest PPR, among equals to the first.
//! Every APIC publishes what that takes in words that all processors share; an IPI's sender finds its receivers there too. An
//! access that is not 32 bits wide and aligned to 16 bytes reads its part of the register, and writes nothing.

mod message;
pub mod page;
mod registers;
mod timer;

use serde::{Deserialize, Serialize};

use crate::processor::P;
use crate::{interrupt, smm};

pub(crate) use message::{DOORBELL, IPI, accept, receive_ipi, ring, send};
pub use registers::{local_read, local_write, read, write};
pub(crate) use registers::{read_msr, write_base, write_msr, x2apic_bits};
pub(crate) use timer::{deadline, set_deadline, tick, time_changed, time_of, wakes_at};

/// A vCPU's input pins.
pub mod pin {
    /// LINT0, or INTR: the 8259A's.
    pub const LINT0: u32 = 0;
    /// LINT1, or NMI.
    pub const LINT1: u32 = 1;
    /// SMI#.
    pub const SMI: u32 = 2;
    /// INIT#.
    pub const INIT: u32 = 3;
    /// A20M#: high lets address bit 20 through.
    pub const A20: u32 = 4;
    /// SMI# in answer to an I/O instruction: for the processor that has executed it.
    pub const SMI_OF_IO: u32 = 5;
    /// RESET#, while the PC sleeps.
    pub const SLEEP: u32 = 6;
    /// IGNNE#, high where it is asserted.
    pub const IGNNE: u32 = 7;
}

/// Bits of IA32_APIC_BASE ("Figure 11-5. IA32_APIC_BASE MSR").
pub mod base {
    #![allow(missing_docs, reason = "the manual's names")]
    pub const BSP: u64 = 1 << 8;
    pub const EXTD: u64 = 1 << 10;
    pub const EN: u64 = 1 << 11;
}

/// Where the registers are after reset.
pub const BASE: u64 = 0xfee0_0000;

/// Entries of the local vector table, in the order of their registers.
pub(crate) mod lvt {
    pub(crate) const CMCI: usize = 0;
    pub(crate) const TIMER: usize = 1;
    // 2 is the thermal sensor's.
    pub(crate) const PC: usize = 3;
    pub(crate) const LINT0: usize = 4;
    pub(crate) const LINT1: usize = 5;
    pub(crate) const ERROR: usize = 6;
    pub(super) const COUNT: usize = 7;

    pub(super) const REMOTE_IRR: u32 = 1 << 14;
    pub(super) const LEVEL: u32 = 1 << 15;
    pub(super) const MASKED: u32 = 1 << 16;
}

/// Delivery modes beyond those of [`crate::platform::msi::delivery`].
const SIPI: u8 = 6;

/// Error Status Register ("Error Handling").
mod esr {
    pub(super) const SEND_ILLEGAL: u32 = 1 << 5;
    pub(super) const RECEIVE_ILLEGAL: u32 = 1 << 6;
    pub(super) const ILLEGAL_REGISTER: u32 = 1 << 7;
}

/// Spurious-Interrupt Vector Register.
mod svr {
    pub(super) const ENABLED: u32 = 1 << 8;
    pub(super) const NO_EOI_BROADCAST: u32 = 1 << 12;
}

/// What has reached the processor and is not a vector of the APIC's.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pending {
    /// A non-maskable interrupt.
    pub nmi: bool,
    /// A system-management interrupt.
    pub smi: bool,
    /// INIT.
    pub init: bool,
    /// A start-up IPI, with its vector: for a processor that waits for one.
    pub sipi: Option<u8>,
    /// The 8259A has a vector to give.
    pub ext_int: bool,
}

/// 256 bits: ISR, TMR, IRR.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Vectors([u32; 8]);

impl Vectors {
    fn has(&self, v: u8) -> bool {
        self.0[usize::from(v / 32)] >> (v % 32) & 1 != 0
    }

    fn set(&mut self, v: u8, on: bool) {
        let word = &mut self.0[usize::from(v / 32)];
        *word = *word & !(1 << (v % 32)) | u32::from(on) << (v % 32);
    }

    #[inline]
    fn is_empty(&self) -> bool {
        self.0 == [0; 8]
    }

    fn highest(&self) -> Option<u8> {
        let i = self.0.iter().rposition(|w| *w != 0)?;
        Some((32 * i as u32 + 31 - self.0[i].leading_zeros()) as u8)
    }
}

/// A local APIC's registers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LocalApic {
    /// IA32_APIC_BASE.
    base: u64,
    /// The x2APIC ID.
    id: u32,
    /// The xAPIC ID: the other's low byte until it is written.
    xapic_id: u8,
    tpr: u8,
    /// As xAPIC mode has it, in bits 31 to 24.
    ldr: u32,
    dfr: u32,
    svr: u32,
    esr: u32,
    /// Errors since ESR was last written.
    errors: u32,
    icr: u64,
    lvt: [u32; lvt::COUNT],
    isr: Vectors,
    tmr: Vectors,
    irr: Vectors,
    timer: timer::Timer,
    /// Levels of LINT0 and LINT1.
    lint: [bool; 2],
    /// An ExtINT came as a message.
    ext_int_message: bool,
    /// AMD: Extended APIC Control, Extended Interrupt LVTs.
    extended: [u32; 5],
}

impl LocalApic {
    /// An APIC after power-up, with this ID ("Local APIC State After Power-Up or Reset").
    pub fn new(id: u32, is_bsp: bool) -> Self {
        LocalApic {
            base: BASE | base::EN | if is_bsp { base::BSP } else { 0 },
            id,
            xapic_id: id as u8,
            tpr: 0,
            ldr: 0,
            dfr: u32::MAX,
            svr: 0xff,
            esr: 0,
            errors: 0,
            icr: 0,
            lvt: [lvt::MASKED; lvt::COUNT],
            isr: Vectors::default(),
            tmr: Vectors::default(),
            irr: Vectors::default(),
            timer: timer::Timer::default(),
            lint: [false; 2],
            ext_int_message: false,
            extended: [0, lvt::MASKED, lvt::MASKED, lvt::MASKED, lvt::MASKED],
        }
    }

    /// "Virtual Wire Mode" (MultiProcessor Specification 1.4): enabled, LINT0 is the 8259A's interrupt and LINT1 is NMI.
    pub(crate) fn set_virtual_wire(&mut self) {
        const EXT_INT: u32 = 7 << 8;
        const NMI: u32 = 4 << 8;
        self.svr |= 1 << 8;
        (self.lvt[lvt::LINT0], self.lvt[lvt::LINT1]) = (EXT_INT, NMI);
    }

    /// "Local APIC State After an INIT Reset": as after power-up, but for the APIC's ID and its base register.
    fn init(&mut self) {
        let Self { base, xapic_id, lint, .. } = *self;
        *self = LocalApic { base, xapic_id, lint, ..LocalApic::new(self.id, false) };
    }

    /// "Local APIC State After Power-Up or Reset".
    pub(crate) fn after_reset(&self) -> Self {
        LocalApic { lint: self.lint, ..LocalApic::new(self.id, self.is_bsp()) }
    }

    /// IA32_APIC_BASE.EN: "Enabling or Disabling the Local APIC".
    pub fn is_enabled(&self) -> bool {
        self.base & base::EN != 0
    }

    /// It is in x2APIC mode.
    pub fn is_x2apic(&self) -> bool {
        self.base & (base::EN | base::EXTD) == base::EN | base::EXTD
    }

    /// It is the bootstrap processor's.
    pub fn is_bsp(&self) -> bool {
        self.base & base::BSP != 0
    }

    /// The physical page of its registers, in xAPIC mode.
    pub fn page(&self) -> Option<u64> {
        (self.is_enabled() && !self.is_x2apic()).then_some(self.base & !0xfff)
    }

    /// SVR: enabled by software.
    fn is_software_enabled(&self) -> bool {
        self.is_enabled() && self.svr & svr::ENABLED != 0
    }

    /// TPR.
    pub fn tpr(&self) -> u8 {
        self.tpr
    }

    /// "Processor Priority Register (PPR)".
    pub fn ppr(&self) -> u8 {
        let serving = self.isr.highest().unwrap_or(0);
        if self.tpr >> 4 >= serving >> 4 { self.tpr } else { serving & 0xf0 }
    }

    /// Some vector is in IRR.
    #[inline]
    pub(crate) fn has_requests(&self) -> bool {
        !self.irr.is_empty()
    }

    /// The vector that the processor is to take next: the highest of IRR, if its class is above that of PPR.
    pub fn pending_vector(&self) -> Option<u8> {
        self.irr.highest().filter(|v| self.is_software_enabled() && v >> 4 > self.ppr() >> 4)
    }

    /// The processor takes [`LocalApic::pending_vector`]: from IRR to ISR. With none it is the spurious vector.
    pub fn acknowledge(&mut self) -> u8 {
        let Some(vector) = self.pending_vector() else { return self.svr as u8 };
        self.irr.set(vector, false);
        self.isr.set(vector, true);
        vector
    }

    /// What a physical destination names: "Local APIC ID Register", "x2APIC ID".
    fn physical_id(&self) -> u32 {
        if self.is_x2apic() { self.id } else { self.xapic_id.into() }
    }

    /// LDR: in x2APIC mode it follows from the ID ("Deriving Logical x2APIC ID from the Local x2APIC ID").
    fn logical_id(&self) -> u32 {
        if self.is_x2apic() { self.id >> 4 << 16 | 1 << (self.id & 15) } else { self.ldr }
    }
}

/// Interrupts are to be looked at before the next instruction.
fn notify(h: &mut P) {
    h.core.check_interrupts = true;
    h.core.leave = true;
}

/// The processor takes the pending vector, and its priority is known to the others.
pub fn acknowledge(h: &mut P) -> u8 {
    let vector = h.arch.apic.acknowledge();
    message::publish(h);
    vector
}

/// The processor's INTA cycle: the vector that the 8259A gives. One that came as a message is gone by that; a pin stays as high as it
/// is.
pub fn acknowledge_ext_int(h: &mut P) -> u8 {
    h.arch.apic.ext_int_message = false;
    let vector = h.read_port(crate::platform::pic::INTA, 1) as u8;
    update_ext_int(h);
    vector
}

/// CR8: bits 7 to 4 of TPR ("Interaction of Task Priorities between CR8 and APIC").
pub fn cr8(h: &P) -> u64 {
    u64::from(h.arch.apic.tpr >> 4)
}

/// MOV to CR8.
pub fn set_cr8(h: &mut P, value: u64) {
    set_tpr(h, (value as u8) << 4);
}

fn set_tpr(h: &mut P, value: u8) {
    h.arch.apic.tpr = value;
    message::publish(h);
    notify(h);
}

/// The processor is initialized by INIT: its APIC too.
pub fn init(h: &mut P) {
    h.arch.apic.init();
    changed(h);
}

/// The processor is reset: its APIC too.
pub fn reset(h: &mut P) {
    changed(h);
}

/// A pin's level is this now.
pub(crate) fn set_pin(h: &mut P, number: u32, level: bool) {
    match number {
        pin::LINT0 | pin::LINT1 => set_lint(h, number as usize, level),
        pin::SMI if level => h.arch.pending.smi = true,
        pin::SMI_OF_IO if level => smm::answers_io(h),
        pin::INIT if level => (h.arch.pending.init, h.arch.pending.sipi) = (true, None),
        pin::IGNNE => h.arch.error_pins.ignne = level,
        pin::SLEEP => interrupt::sleep(h, level),
        pin::A20 if level != h.arch.a20 => {
            h.arch.a20 = level;
            h.core.mmu.clear();
            h.core.spaces_changed = true;
        }
        _ => {}
    }
    notify(h);
}

fn set_lint(h: &mut P, i: usize, level: bool) {
    let rises = level && !h.arch.apic.lint[i];
    h.arch.apic.lint[i] = level;
    update_ext_int(h);
    if !h.arch.apic.is_enabled() {
        // "The processor's LINT[1:0] pins are NMI and INTR."
        if i == 1 && rises {
            h.arch.pending.nmi = true;
        }
        return;
    }
    let entry = h.arch.apic.lvt[lvt::LINT0 + i];
    let is_level = entry & lvt::LEVEL != 0 && entry >> 8 & 7 == 0;
    if rises && !is_level {
        fire(h, lvt::LINT0 + i);
    }
    redeliver_lint(h);
}

/// Level-triggered LINT pins that are high and not being served.
fn redeliver_lint(h: &mut P) {
    for i in [0, 1] {
        let entry = h.arch.apic.lvt[lvt::LINT0 + i];
        let is_level = entry & lvt::LEVEL != 0 && entry >> 8 & 7 == 0;
        if is_level && h.arch.apic.lint[i] && entry & (lvt::MASKED | lvt::REMOTE_IRR) == 0 {
            h.arch.apic.lvt[lvt::LINT0 + i] |= lvt::REMOTE_IRR;
            message::accept_vector(h, entry as u8, true);
        }
    }
}

/// INTR: through LINT0 as ExtINT, or directly while the APIC is disabled.
fn update_ext_int(h: &mut P) {
    let a = &h.arch.apic;
    let through = |i: usize| {
        let entry = a.lvt[lvt::LINT0 + i];
        a.lint[i] && entry & lvt::MASKED == 0 && entry >> 8 & 7 == 7
    };
    let asks = if a.is_enabled() { through(0) || through(1) || a.ext_int_message } else { a.lint[0] };
    if asks != h.arch.pending.ext_int {
        h.arch.pending.ext_int = asks;
        notify(h);
    }
}

/// Whatever the registers decide has to be looked at anew.
fn changed(h: &mut P) {
    update_ext_int(h);
    redeliver_lint(h);
    message::publish(h);
    notify(h);
    h.core.call_for_attention();
}

/// An interrupt of the processor's own, by its entry of the local vector table ("Local Vector Table").
pub(crate) fn fire(h: &mut P, i: usize) {
    let entry = h.arch.apic.lvt[i];
    if entry & lvt::MASKED != 0 || !h.arch.apic.is_enabled() {
        return;
    }
    if i == lvt::PC && h.arch.model.is_intel() {
        h.arch.apic.lvt[i] |= lvt::MASKED;
    }
    let mode = if matches!(i, lvt::TIMER | lvt::ERROR) { 0 } else { (entry >> 8 & 7) as u8 };
    match mode {
        // Here ExtINT is a level, see `update_ext_int`.
        7 => {}
        mode => message::receive(h, mode, entry as u8, false),
    }
}

/// "Error Handling": notes an error, and interrupts.
fn error(h: &mut P, bit: u32) {
    h.arch.apic.errors |= bit;
    // An error entry whose own vector is illegal would go on for ever.
    if h.arch.apic.lvt[lvt::ERROR] & 0xf0 != 0 {
        fire(h, lvt::ERROR);
    }
}

/// "Signaling Interrupt Servicing Completion".
pub(crate) fn end_of_interrupt(h: &mut P) {
    let a = &mut h.arch.apic;
    let Some(vector) = a.isr.highest() else { return };
    a.isr.set(vector, false);
    let is_level = a.tmr.has(vector);
    let broadcasts = is_level && a.svr & svr::NO_EOI_BROADCAST == 0;
    if is_level {
        for i in [lvt::LINT0, lvt::LINT1] {
            if a.lvt[i] as u8 == vector {
                a.lvt[i] &= !lvt::REMOTE_IRR;
            }
        }
    }
    if broadcasts {
        use crate::platform::ioapic;
        let _ = h.write_physical(ioapic::BASE + ioapic::EOI, 4, vector.into()); // without an IOAPIC nobody hears it
    }
    redeliver_lint(h);
    message::publish(h);
    notify(h);
}

#[cfg(test)]
mod tests;
