//! A UART of the kind 16550A (TI TL16C550C and National PC16550D data sheets; register names are theirs).
//!
//! Where this chip differs from the data sheets:
//! - The transmitter takes no time: a character leaves through the door when it is written.
//! - The wire to the outside carries 8 bits and no errors, whatever LCR says. Loopback obeys LCR.
//! - The wire waits while the receiver is full, so an overrun happens in loopback only.
//! - The modem inputs CTS, DSR and DCD are always active.
//!
//! Received characters follow each other at the programmed speed in virtual time. The door is asked for one only when the
//! guest listens: it has enabled the receive interrupt, or it reads LSR again and again without doing anything else.

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};

use crate::device::{Access, Device, DeviceCx};
use crate::device_state;
use crate::time::VirtualTime;

/// Depth of both FIFOs in characters.
const FIFO_DEPTH: usize = 16;
/// The divisor at power-on (the data sheets leave it undefined): 9600 baud at a clock of 1.8432 MHz.
const RESET_DIVISOR: u16 = 12;
/// So many reads of LSR in succession mean that the guest waits for input. A guest that waits for the transmitter finds it
/// empty at the first.
const POLLS_OF_A_LISTENER: u8 = 3;

/// Interrupt Enable Register.
mod ier {
    pub const ERBI: u8 = 1;
    pub const ETBEI: u8 = 2;
    pub const ELSI: u8 = 4;
    pub const EDSSI: u8 = 8;
    pub const ALL: u8 = 0xf;
}

/// Interrupt Identification Register.
mod iir {
    pub const MODEM_STATUS: u8 = 0x0;
    pub const NONE: u8 = 0x1;
    pub const THR_EMPTY: u8 = 0x2;
    pub const DATA_AVAILABLE: u8 = 0x4;
    pub const LINE_STATUS: u8 = 0x6;
    pub const TIMEOUT: u8 = 0xc;
    pub const FIFOS_ENABLED: u8 = 0xc0;
}

/// FIFO Control Register.
mod fcr {
    pub const ENABLE: u8 = 1;
    pub const CLEAR_RX: u8 = 2;
    /// DMA mode and the receiver's trigger level.
    pub const KEPT: u8 = 0xc8;
}

/// Line Control Register.
mod lcr {
    pub const STB: u8 = 4;
    pub const PEN: u8 = 8;
    pub const BREAK: u8 = 0x40;
    pub const DLAB: u8 = 0x80;
}

/// Modem Control Register.
mod mcr {
    pub const DTR: u8 = 1;
    pub const RTS: u8 = 2;
    pub const OUT1: u8 = 4;
    pub const OUT2: u8 = 8;
    pub const LOOP: u8 = 0x10;
    pub const ALL: u8 = 0x1f;
}

/// Line Status Register.
mod lsr {
    pub const DR: u8 = 1;
    pub const OE: u8 = 2;
    pub const PE: u8 = 4;
    pub const FE: u8 = 8;
    pub const BI: u8 = 0x10;
    pub const THRE: u8 = 0x20;
    pub const TEMT: u8 = 0x40;
    pub const FIFO_ERROR: u8 = 0x80;
    /// Errors that belong to one character.
    pub const OF_A_CHARACTER: u8 = PE | FE | BI;
}

/// Modem Status Register.
mod msr {
    pub const TERI: u8 = 4;
    pub const CTS: u8 = 0x10;
    pub const DSR: u8 = 0x20;
    pub const RI: u8 = 0x40;
    pub const DCD: u8 = 0x80;
    pub const DELTAS: u8 = 0xf;
}

/// A received character and its errors, as bits of LSR.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Received {
    byte: u8,
    errors: u8,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct State {
    ier: u8,
    fcr: u8,
    lcr: u8,
    mcr: u8,
    scr: u8,
    divisor: u16,
    /// Errors that a read of LSR has not cleared yet.
    errors: u8,
    /// MSR, low half: changes that a read of MSR has not cleared yet.
    deltas: u8,
    /// The THR has become empty and neither a read of IIR nor a write of THR has cleared it.
    thr_empty: bool,
    /// The receiver FIFO, or RBR where the FIFOs are off.
    rx: VecDeque<Received>,
    /// The last character read, which RBR shows while nothing is there.
    rbr: u8,
    /// The wire may bring the next character from here on.
    next_rx: VirtualTime,
    /// When the receiver FIFO will have been left alone for four character times.
    timeout_at: Option<VirtualTime>,
    /// It has.
    timed_out: bool,
    /// The outside had nothing. Input that arrives later comes with a tick.
    starved: bool,
    /// Somebody waited for characters when that was last looked at.
    awaited: bool,
    /// Reads of LSR in succession.
    polls: u8,
    /// The level of the interrupt line.
    line: bool,
}

impl Default for State {
    fn default() -> Self {
        State {
            ier: 0,
            fcr: 0,
            lcr: 0,
            mcr: 0,
            scr: 0,
            divisor: RESET_DIVISOR,
            errors: 0,
            deltas: 0,
            thr_empty: false,
            rx: VecDeque::new(),
            rbr: 0,
            next_rx: 0,
            timeout_at: None,
            timed_out: false,
            starved: false,
            awaited: false,
            polls: 0,
            line: false,
        }
    }
}

/// How a UART is built into its board.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UartConfig {
    /// The console of the door that the wire leads to.
    pub port: u32,
    /// Registers are `1 << reg_shift` bytes apart.
    pub reg_shift: u32,
    /// Frequency of the chip's clock in hertz: sixteen times the speed in baud at divisor 1.
    pub clock: u32,
}

/// The UART. Output line 0 is its interrupt.
pub struct Uart16550 {
    config: UartConfig,
    state: State,
}

impl Uart16550 {
    /// A UART at power-on.
    pub fn new(config: UartConfig) -> Self {
        Uart16550 { config, state: State::default() }
    }

    /// One character's time on the wire in nanoseconds: start bit, data bits, parity bit, stop bits. Divisor 0 is 1.
    fn character_time(&self) -> VirtualTime {
        let s = &self.state;
        let data = 5 + u64::from(s.lcr & 3);
        let parity = u64::from(s.lcr & lcr::PEN != 0);
        let stop_halves = match (s.lcr & lcr::STB != 0, data) {
            (false, _) => 2,
            (true, 5) => 3,
            (true, _) => 4,
        };
        let half_bits = 2 * (1 + data + parity) + stop_halves;
        let time = half_bits * 8 * u64::from(s.divisor.max(1)) * 1_000_000_000 / u64::from(self.config.clock.max(1));
        time.max(1)
    }

    fn fifos(&self) -> bool {
        self.state.fcr & fcr::ENABLE != 0
    }

    fn depth(&self) -> usize {
        if self.fifos() { FIFO_DEPTH } else { 1 }
    }

    /// Characters in the receiver at which it asks for attention ("Receiver FIFO trigger level").
    fn trigger(&self) -> usize {
        if self.fifos() { [1, 4, 8, 14][usize::from(self.state.fcr >> 6)] } else { 1 }
    }

    /// Whether anybody waits for characters.
    fn is_awaited(&self) -> bool {
        let s = &self.state;
        s.mcr & mcr::LOOP == 0 && (s.ier & ier::ERBI != 0 || s.polls >= POLLS_OF_A_LISTENER)
    }

    /// Whether the receiver takes a character from the wire if there is one.
    fn listens(&self) -> bool {
        self.is_awaited() && self.state.rx.len() < self.depth()
    }

    /// What has happened since the last call.
    fn advance(&mut self, cx: &mut DeviceCx) {
        if self.state.timeout_at.is_some_and(|t| t <= cx.now) {
            self.state.timeout_at = None;
            self.state.timed_out = true;
        }
        // A character that waits on the wire takes its time once somebody listens: a driver that has just switched
        // interrupts on and reads RBR to clear it must not lose input.
        let awaited = self.is_awaited();
        if awaited && !std::mem::replace(&mut self.state.awaited, awaited) {
            self.state.next_rx = self.state.next_rx.max(cx.now.saturating_add(self.character_time()));
        }
        self.state.awaited = awaited;
        if self.listens() && !self.state.starved && self.state.next_rx <= cx.now {
            match cx.door.read(self.config.port) {
                Some(byte) => {
                    self.receive(Received { byte, errors: 0 }, cx.now);
                    self.state.next_rx = cx.now.saturating_add(self.character_time());
                }
                None => self.state.starved = true,
            }
        }
    }

    /// A character has come in.
    fn receive(&mut self, character: Received, now: VirtualTime) {
        if self.state.rx.len() == self.depth() {
            self.state.errors |= lsr::OE;
            if self.fifos() {
                return; // the character in the shift register is lost
            }
            self.state.rx.clear(); // without FIFOs the one in RBR is lost
        }
        self.state.rx.push_back(character);
        if self.state.rx.len() == 1 {
            self.state.errors |= character.errors;
        }
        self.rest(now);
    }

    /// The receiver FIFO has been filled or read: four character times of rest begin anew.
    fn rest(&mut self, now: VirtualTime) {
        self.state.timed_out = false;
        self.state.timeout_at =
            (self.fifos() && !self.state.rx.is_empty()).then(|| now.saturating_add(4 * self.character_time()));
    }

    fn clear_rx(&mut self) {
        self.state.rx.clear();
        self.state.timeout_at = None;
        self.state.timed_out = false;
    }

    /// The interrupt of the highest priority ("Interrupt control functions").
    fn pending(&self) -> u8 {
        let s = &self.state;
        if s.ier & ier::ELSI != 0 && s.errors != 0 {
            iir::LINE_STATUS
        } else if s.ier & ier::ERBI != 0 && s.rx.len() >= self.trigger() {
            iir::DATA_AVAILABLE
        } else if s.ier & ier::ERBI != 0 && s.timed_out {
            iir::TIMEOUT
        } else if s.ier & ier::ETBEI != 0 && s.thr_empty {
            iir::THR_EMPTY
        } else if s.ier & ier::EDSSI != 0 && s.deltas != 0 {
            iir::MODEM_STATUS
        } else {
            iir::NONE
        }
    }

    fn update_line(&mut self, cx: &mut DeviceCx) {
        let level = self.pending() != iir::NONE;
        if level != self.state.line {
            self.state.line = level;
            cx.line(0, level);
        }
    }

    /// MSR, high half: the modem's outputs, or the chip's own in loopback.
    fn modem_inputs(&self) -> u8 {
        let m = self.state.mcr;
        if m & mcr::LOOP == 0 {
            return msr::CTS | msr::DSR | msr::DCD;
        }
        [(mcr::RTS, msr::CTS), (mcr::DTR, msr::DSR), (mcr::OUT1, msr::RI), (mcr::OUT2, msr::DCD)]
            .iter()
            .map(|(out, input)| if m & out != 0 { *input } else { 0 })
            .sum()
    }

    /// Writes MCR, which in loopback moves the modem's inputs.
    fn set_mcr(&mut self, value: u8) {
        let old = self.modem_inputs();
        self.state.mcr = value & mcr::ALL;
        let new = self.modem_inputs();
        let mut changed = (old ^ new) >> 4;
        if changed & msr::TERI != 0 && new & msr::RI != 0 {
            changed &= !msr::TERI; // the trailing edge of RI only
        }
        self.state.deltas |= changed & msr::DELTAS;
    }

    fn transmit(&mut self, byte: u8, cx: &mut DeviceCx) {
        self.state.thr_empty = false;
        self.update_line(cx);
        if self.state.mcr & mcr::LOOP == 0 {
            cx.door.write(self.config.port, &[byte]);
        } else if self.state.lcr & lcr::BREAK == 0 {
            let mask = 0xff >> (3 - (self.state.lcr & 3));
            self.receive(Received { byte: byte & mask, errors: 0 }, cx.now);
        }
        self.state.thr_empty = true;
    }

    fn read_register(&mut self, register: u64, cx: &mut DeviceCx) -> u8 {
        let dlab = self.state.lcr & lcr::DLAB != 0;
        match register {
            0 if dlab => self.state.divisor as u8,
            0 => self.read_rbr(cx.now),
            1 if dlab => (self.state.divisor >> 8) as u8,
            1 => self.state.ier,
            2 => {
                let id = self.pending();
                if id == iir::THR_EMPTY {
                    self.state.thr_empty = false;
                }
                if self.fifos() { id | iir::FIFOS_ENABLED } else { id }
            }
            3 => self.state.lcr,
            4 => self.state.mcr,
            5 => self.read_lsr(),
            6 => self.modem_inputs() | std::mem::take(&mut self.state.deltas),
            _ => self.state.scr,
        }
    }

    fn read_rbr(&mut self, now: VirtualTime) -> u8 {
        if let Some(character) = self.state.rx.pop_front() {
            self.state.rbr = character.byte;
            // Errors are revealed when their character comes to the top of the FIFO.
            self.state.errors |= self.state.rx.front().map_or(0, |next| next.errors);
            self.rest(now);
        }
        self.state.rbr
    }

    fn read_lsr(&mut self) -> u8 {
        let mut value = lsr::THRE | lsr::TEMT | std::mem::take(&mut self.state.errors);
        if !self.state.rx.is_empty() {
            value |= lsr::DR;
        }
        if self.fifos() && self.state.rx.iter().any(|c| c.errors & lsr::OF_A_CHARACTER != 0) {
            value |= lsr::FIFO_ERROR;
        }
        if let Some(top) = self.state.rx.front_mut() {
            top.errors = 0;
        }
        value
    }

    fn write_register(&mut self, register: u64, value: u8, cx: &mut DeviceCx) {
        let dlab = self.state.lcr & lcr::DLAB != 0;
        match register {
            0 if dlab => self.state.divisor = self.state.divisor & 0xff00 | u16::from(value),
            0 => self.transmit(value, cx),
            1 if dlab => self.state.divisor = self.state.divisor & 0xff | u16::from(value) << 8,
            1 => {
                let rising = value & !self.state.ier;
                self.state.ier = value & ier::ALL;
                if rising & ier::ETBEI != 0 {
                    self.state.thr_empty = true; // enabling the interrupt while THR is empty raises it
                }
            }
            2 => self.write_fcr(value),
            3 => {
                let starts_break = value & !self.state.lcr & lcr::BREAK != 0;
                self.state.lcr = value;
                if starts_break && self.state.mcr & mcr::LOOP != 0 {
                    self.receive(Received { byte: 0, errors: lsr::BI | lsr::FE }, cx.now);
                }
            }
            4 => self.set_mcr(value),
            5 | 6 => {} // LSR and MSR are for reading
            _ => self.state.scr = value,
        }
    }

    /// FCR: a change of its enable bit empties both FIFOs; its other bits count only while that is written as 1.
    fn write_fcr(&mut self, value: u8) {
        if (value ^ self.state.fcr) & fcr::ENABLE != 0 {
            self.clear_rx();
        }
        if value & fcr::ENABLE == 0 {
            self.state.fcr = 0;
            return;
        }
        if value & fcr::CLEAR_RX != 0 {
            self.clear_rx();
        }
        self.state.fcr = value & (fcr::ENABLE | fcr::KEPT);
    }

    /// The registers that an access touches: register number, and the byte of the access that it is.
    fn touched(&self, access: Access) -> impl Iterator<Item = (u64, u32)> + use<> {
        let shift = self.config.reg_shift;
        (0..u64::from(access.size)).filter_map(move |i| {
            let at = access.offset.wrapping_add(i);
            (at & ((1 << shift) - 1) == 0).then_some(((at >> shift) & 7, i as u32))
        })
    }

    /// Keeps count of reads of LSR without another register between them; RBR does not count.
    fn note(&mut self, register: u64, is_read: bool) {
        match (register, is_read) {
            (5, true) => self.state.polls = (self.state.polls + 1).min(POLLS_OF_A_LISTENER),
            (0, true) => {}
            _ => self.state.polls = 0,
        }
    }
}

impl Device for Uart16550 {
    fn name(&self) -> &'static str {
        "uart"
    }

    fn read(&mut self, access: Access, cx: &mut DeviceCx) -> u64 {
        let mut value = 0;
        for (register, byte) in self.touched(access) {
            self.note(register, true);
            self.advance(cx);
            value |= u64::from(self.read_register(register, cx)) << (8 * byte);
        }
        self.update_line(cx);
        value
    }

    fn write(&mut self, access: Access, value: u64, cx: &mut DeviceCx) {
        for (register, byte) in self.touched(access) {
            self.note(register, false);
            self.advance(cx);
            self.write_register(register, (value >> (8 * byte)) as u8, cx);
        }
        self.update_line(cx);
    }

    fn tick(&mut self, cx: &mut DeviceCx) {
        self.state.starved = false;
        self.advance(cx);
        self.update_line(cx);
    }

    fn wakes_at(&self) -> Option<VirtualTime> {
        let receive = (self.listens() && !self.state.starved).then_some(self.state.next_rx);
        let timeout = self.state.timeout_at.filter(|_| self.state.ier & ier::ERBI != 0);
        receive.into_iter().chain(timeout).min()
    }

    fn reset(&mut self) {
        self.state = State::default();
    }

    device_state!(state);
}

#[cfg(test)]
mod tests;
