//! Indirect CSR access (Smcsrind, Sscsrind): interrupt priorities and interrupt files (AIA), delegated counters (Smcdeleg).

use emu_core::engine::Step;

use super::counters::{Now, config};
use super::csr::{envcfg, stateen};
use super::virtual_instruction;
use crate::cpu::Ext;
use crate::hart::Priv;
use crate::isa::{H, illegal};

/// Which of the three windows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Window {
    Machine,
    Supervisor,
    /// vsireg, and sireg in VS-mode.
    Guest,
}

/// What a *select value leads to.
enum Place {
    /// Byte 0 of eight priorities.
    Priorities(usize),
    /// A register of an interrupt file.
    File { file: usize, register: u64 },
    /// A counter, and whether it is its configuration.
    Counter { index: usize, configuration: bool },
}

/// Where `*ireg` (number 1) or `*iregN` leads; the exceptions are those of AIA, "Control and Status Registers (CSRs) Added
/// to Harts", and Smcdeleg, "Counter Delegation".
fn place(h: &H, window: Window, number: u32) -> Step<Place> {
    let c = &h.arch.csr;
    let select = match window {
        Window::Machine => c.miselect,
        Window::Supervisor => c.siselect,
        Window::Guest => c.vsiselect,
    };
    let below_machine = h.arch.mode != Priv::Machine;
    // From VS-mode what is inaccessible traps to HS-mode.
    let inaccessible = || if h.arch.v { virtual_instruction() } else { illegal() };
    let closed = |field: super::csr::Field| -> Step {
        if h.arch.cpu.has(Ext::Smstateen) && below_machine {
            if !field.is(c.mstateen[0]) {
                return illegal();
            }
            if h.arch.v && !field.is(c.hstateen[0]) {
                return virtual_instruction();
            }
        }
        Ok(())
    };
    let aia = h.arch.cpu.has(Ext::Ssaia);
    match select {
        0x30..=0x3f if aia && window != Window::Guest => {
            if window == Window::Supervisor {
                closed(stateen::AIA)?;
            }
            if number != 1 || select % 2 == 1 {
                return illegal();
            }
            Ok(Place::Priorities((select - 0x30) as usize * 4))
        }
        0x40..=0x5f if h.arch.cpu.has(Ext::Ssccfg) && window != Window::Machine => {
            let enabled = envcfg::CDE.is(c.menvcfg);
            if window == Window::Guest {
                return if h.arch.v && enabled { virtual_instruction() } else { illegal() };
            }
            let index = (select - 0x40) as usize;
            let delegated = c.mcounteren >> index & 1 != 0;
            if !enabled || !delegated || index == 1 || !matches!(number, 1 | 2) {
                return illegal();
            }
            if number == 2 && index < 3 && !h.arch.cpu.has(Ext::Smcntrpmf) {
                return illegal();
            }
            Ok(Place::Counter { index, configuration: number == 2 })
        }
        0x70..=0xff if aia => {
            if !c.files.is_empty() {
                if window != Window::Machine {
                    closed(stateen::IMSIC)?;
                }
                // AIA, "Interrupt filtering and virtual interrupts for supervisor level".
                if window == Window::Supervisor && below_machine && c.mvien & super::irq::SEI_BIT != 0 {
                    return illegal();
                }
            }
            let file = match window {
                Window::Machine => 0,
                Window::Supervisor => 1,
                Window::Guest => match c.guest_file() {
                    Some(file) => file,
                    None => return inaccessible(),
                },
            };
            if number != 1 || file >= c.files.len() {
                return inaccessible();
            }
            Ok(Place::File { file, register: select })
        }
        _ => inaccessible(),
    }
}

/// Interrupts whose priority can be set at machine and at supervisor level: those that can be enabled, but the external one.
const MACHINE_PRIORITIES: u64 = super::irq::M_BITS & !super::irq::MEI_BIT | super::irq::S_BITS | super::irq::LCOFI_BIT;
const SUPERVISOR_PRIORITIES: u64 =
    super::irq::S_BITS & !super::irq::SEI_BIT | super::irq::VS_BITS | super::irq::SGEI_BIT | super::irq::HIGH_BITS;

/// Reads through a window.
pub(crate) fn read(h: &H, window: Window, number: u32) -> Step<u64> {
    let c = &h.arch.csr;
    match place(h, window, number)? {
        Place::Priorities(first) => {
            let array = if window == Window::Machine { &c.miprio } else { &c.siprio };
            Ok(u64::from_le_bytes(array[first..first + 8].try_into().expect("8 bytes")))
        }
        Place::File { file, register } => match c.files[file].read(register) {
            Ok(value) => Ok(value),
            Err(_) if h.arch.v => virtual_instruction(),
            Err(_) => illegal(),
        },
        Place::Counter { index, configuration: false } => Ok(c.counters.read(index, Now::of(h))),
        Place::Counter { index, .. } => Ok(c.counters.config(index) & !config::MINH.mask()),
    }
}

/// Writes through a window.
pub(crate) fn write(h: &mut H, window: Window, number: u32, value: u64) -> Step {
    match place(h, window, number)? {
        Place::Priorities(first) => {
            let c = &mut h.arch.csr;
            let (array, settable) = match window {
                Window::Machine => (&mut c.miprio, MACHINE_PRIORITIES),
                _ => (&mut c.siprio, SUPERVISOR_PRIORITIES),
            };
            for (i, byte) in value.to_le_bytes().into_iter().enumerate() {
                if settable >> (first + i) & 1 != 0 {
                    array[first + i] = byte;
                }
            }
        }
        Place::File { file, register } => {
            if h.arch.csr.files[file].write(register, value).is_err() {
                return if h.arch.v { virtual_instruction() } else { illegal() };
            }
        }
        Place::Counter { index, configuration: false } => {
            let after = Now::of(h).after();
            h.arch.csr.counters.write(index, value, after);
            h.core.call_for_attention();
        }
        Place::Counter { index, .. } => {
            let now = Now::of(h);
            let kept = h.arch.csr.counters.config(index) & config::MINH.mask();
            h.arch.csr.counters.set_config(index, value & !config::MINH.mask() | kept, now);
            h.core.call_for_attention();
        }
    }
    Ok(())
}
