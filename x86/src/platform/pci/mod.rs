//! PCI ("PCI Local Bus Specification", revision 3.0): bus 0, its functions and the way to them.
//!
//! [`PciBus`] is one device on the machine's bus, below all others: whatever no other chip answers for is its, as a host
//! bridge passes on what is not RAM. It looks up which function's base address register (or other register with an address in
//! it) names the place, so that a function that moves needs nothing of the machine's bus, and a snapshot nothing but the
//! configuration spaces. Nobody answers: reads are ones, writes are lost ("Master Abort").
//!
//! Of ports it has configuration mechanism 1 (CF8h, CFCh) and, between them, the reset control register (CF9h); in memory
//! the enhanced mechanism, where the host bridge has one.
//!
//! **Outputs.** Lines 0 to 15 are interrupts routed to IRQ0 to IRQ15 (inputs of the 8259As; of the I/O APIC too with a PIIX3);
//! 16 to 23 are PIRQA# to PIRQH# (inputs 16 to 23 of the I/O APIC with an ICH9); then [`SCI`], [`SMI`], [`INIT`], [`SLEEP`] and
//! [`SMI_OF_ALL`].
//!
//! Not modelled: bridges and buses behind them, special cycles, parity and system errors, power states of functions.

pub mod chipset;
pub mod config;
pub mod edu;
pub mod message;
mod shadow;
pub mod virtio;

use emu_core::bus::{Bus, Space};
use emu_core::device::{Access, Device, DeviceCx, DeviceId};
use emu_core::time::VirtualTime;
use serde::{Deserialize, Serialize};

use super::reset::ResetControl;
use super::{low_bytes, read_bytes, write_bytes};
use chipset::Chipset;
use config::{Config, Window, command, header, status};

/// Output: the system control interrupt.
pub const SCI: u32 = 24;
/// Output: the system management interrupt, for the processor whose command it answers.
pub const SMI: u32 = 25;
/// Output: INIT.
pub const INIT: u32 = 26;
/// Output: the PC is suspended to RAM.
pub const SLEEP: u32 = 27;
/// Output: the system management interrupt, for all processors.
pub const SMI_OF_ALL: u32 = 28;

const CONFIG_ADDRESS: u64 = 0xcf8;
const RESET_CONTROL: u64 = 0xcf9;
const CONFIG_DATA: u64 = 0xcfc;
/// The offset of a memory address in the device; ports are at offset 0.
const MEMORY: u64 = 1 << 63;
/// So many bytes of configuration space a function has in the enhanced mechanism.
const ENHANCED_SIZE: u64 = 0x1000;

/// A function on the bus. It has its configuration space and registers in the regions that this opens.
pub trait Function: Send {
    /// A short name for traces and errors.
    fn name(&self) -> &'static str;

    /// Its configuration space.
    fn config(&self) -> &Config;

    /// Likewise, to change it.
    fn config_mut(&mut self) -> &mut Config;

    /// Reads a byte of the configuration space.
    fn read_config(&mut self, at: usize, _cx: &mut DeviceCx) -> u8 {
        self.config().read(at)
    }

    /// Writes a byte of the configuration space.
    fn write_config(&mut self, at: usize, value: u8, _cx: &mut DeviceCx) {
        self.config_mut().write(at, value);
    }

    /// A write to the configuration space is complete.
    fn config_written(&mut self, _cx: &mut DeviceCx) {}

    /// What it answers for.
    fn windows(&self) -> Vec<Window> {
        self.config().windows()
    }

    /// Reads registers; `access.offset` counts from the start of the region.
    fn read(&mut self, _region: u8, _access: Access, _cx: &mut DeviceCx) -> u64 {
        0
    }

    /// Writes registers.
    fn write(&mut self, _region: u8, _access: Access, _value: u64, _cx: &mut DeviceCx) {}

    /// An input wire of the bus has changed; they all go to the function that knows them.
    fn input(&mut self, _line: u32, _level: bool, _cx: &mut DeviceCx) {}

    /// See [`Device::tick`].
    fn tick(&mut self, _cx: &mut DeviceCx) {}

    /// See [`Device::wakes_at`].
    fn wakes_at(&self) -> Option<VirtualTime> {
        None
    }

    /// Of the host bridge: RAM that it keeps from bus masters, base and size in bytes.
    fn hides(&self) -> Option<(u64, u64)> {
        None
    }

    /// It has ended the PC's sleep since it was last asked.
    fn has_woken(&mut self) -> bool {
        false
    }

    /// The PC wakes: of what firmware has set up, the locks are gone.
    fn wake(&mut self, _cx: &mut DeviceCx) {}

    /// Whether it asks for an interrupt at its pin.
    fn intx(&self) -> bool {
        false
    }

    /// See [`Device::reset`].
    fn reset(&mut self);

    /// See [`Device::save`].
    fn save(&self) -> Vec<u8>;

    /// See [`Device::restore`].
    fn restore(&mut self, bytes: &[u8]) -> Result<(), String>;
}

/// Device and function number on the bus.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Slot {
    /// Device, 0 to 31.
    pub device: u8,
    /// Function, 0 to 7.
    pub function: u8,
}

impl Slot {
    /// Function 0 of a device.
    pub const fn device(device: u8) -> Self {
        Slot { device, function: 0 }
    }

    fn number(self) -> u8 {
        self.device << 3 | self.function
    }

    /// "Requester ID" on bus 0.
    pub fn requester(self) -> u16 {
        self.number().into()
    }
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct State {
    /// CONFIG_ADDRESS.
    address: u32,
    reset: ResetControl,
    /// Levels of outputs 0 to 23.
    lines: u32,
    functions: Vec<(Slot, Vec<u8>)>,
}

/// Bus 0. See the module's text.
pub struct PciBus {
    chipset: Chipset,
    /// By slot, ascending.
    functions: Vec<(Slot, Box<dyn Function>)>,
    /// What the functions answer for, by their index. Follows from their state.
    windows: Vec<(Window, usize)>,
    /// Base and size in bytes of the enhanced mechanism. Likewise.
    enhanced: Option<(u64, u64)>,
    state: State,
}

impl PciBus {
    /// The bus of a chipset, with its own functions on it, for one processor.
    pub fn new(chipset: Chipset) -> Self {
        PciBus::for_processors(chipset, 1)
    }

    /// Likewise, for so many, which the host bridge tells where system management RAM is.
    pub fn for_processors(chipset: Chipset, vcpus: u32) -> Self {
        let mut bus =
            PciBus { chipset, functions: Vec::new(), windows: Vec::new(), enhanced: None, state: State::default() };
        for (slot, function) in chipset.functions(vcpus) {
            bus.insert(slot, function);
        }
        bus
    }

    /// Puts a function into a slot. The number of the slot must be free; `false` if it is not.
    pub fn insert(&mut self, slot: Slot, function: Box<dyn Function>) -> bool {
        let at = self.functions.partition_point(|(s, _)| *s < slot);
        if self.functions.get(at).is_some_and(|(s, _)| *s == slot) || slot.device > 31 || slot.function > 7 {
            return false;
        }
        self.functions.insert(at, (slot, function));
        self.decode();
        true
    }

    /// The free device of the lowest number.
    pub fn free_slot(&self) -> Option<Slot> {
        (1..32).map(Slot::device).find(|s| self.functions.iter().all(|(o, _)| o.device != s.device))
    }

    /// Puts the bus below all other devices of a machine: at all ports, and at these ranges of memory, in bytes, first and
    /// end. They must have no RAM in them.
    pub fn map(self, bus: &mut Bus, memory: &[(u64, u64)]) -> DeviceId {
        let id = bus.add(Box::new(self));
        bus.hosts(id);
        bus.map(Space::Port, 0, 0x1_0000, id, 0, -1);
        for (first, end) in memory {
            bus.map(Space::Memory, *first, end - first, id, MEMORY + first, -1);
        }
        id
    }

    /// Looks again at what the functions answer for.
    fn decode(&mut self) {
        let functions = self.functions.iter().enumerate();
        self.windows = functions.flat_map(|(i, (_, f))| f.windows().into_iter().map(move |w| (w, i))).collect();
        let bridge = self.functions.iter().find(|(s, _)| *s == Slot::device(0));
        self.enhanced = bridge.and_then(|(_, f)| self.chipset.enhanced(f.config()));
    }

    fn function_at(&mut self, number: u8) -> Option<&mut (dyn Function + 'static)> {
        let (_, function) = self.functions.iter_mut().find(|(s, _)| s.number() == number)?;
        Some(&mut **function)
    }

    /// Reads configuration space; `None` if there is no such function.
    fn read_config(&mut self, number: u8, access: Access, cx: &mut DeviceCx) -> Option<u64> {
        cx.requester = Some(number.into());
        let function = self.function_at(number)?;
        Some(read_bytes(access, |at| {
            let mut byte = function.read_config(at as usize, cx);
            if at as usize == header::STATUS && function.intx() {
                byte |= status::INTERRUPT;
            }
            byte
        }))
    }

    fn write_config(&mut self, number: u8, access: Access, value: u64, cx: &mut DeviceCx) {
        cx.requester = Some(number.into());
        let Some(function) = self.function_at(number) else { return };
        write_bytes(access, value, |at, byte| function.write_config(at as usize, byte, cx));
        function.config_written(cx);
        self.decode();
    }

    /// "Configuration Mechanism #1": the function and register that an access to CONFIG_DATA is for. Bits 1:0 of CONFIG_ADDRESS are read as 0,
    /// but they count, as in QEMU's PCs: kvm-unit-tests reads the device ID at 2 by an address of 2.
    fn mechanism_1(&self, access: Access) -> Option<(u8, Access)> {
        let address = self.state.address;
        let (enabled, bus) = (address >> 31 != 0, address >> 16 & 0xff);
        let offset = u64::from(address & 0xff) | (access.offset - CONFIG_DATA);
        (enabled && bus == 0).then_some(((address >> 8) as u8, Access { offset, ..access }))
    }

    /// The same for the enhanced mechanism, if the address is in it. The inner `None` is another bus.
    fn mechanism_2(&self, access: Access) -> Option<Option<(u8, Access)>> {
        let (base, size) = self.enhanced?;
        let at = (access.offset & !MEMORY).checked_sub(base).filter(|at| *at < size && access.offset & MEMORY != 0)?;
        let access = Access { offset: at % ENHANCED_SIZE, ..access };
        Some((at >> 20 == 0).then_some(((at >> 12) as u8, access)))
    }

    /// The function that answers for an address, the region, and the access within it.
    fn find(&self, access: Access) -> Option<(usize, u8, Access)> {
        let (space, address) = match access.offset & MEMORY {
            0 => (Space::Port, access.offset),
            _ => (Space::Memory, access.offset & !MEMORY),
        };
        self.windows.iter().find_map(|(w, index)| {
            let offset = address.checked_sub(w.base).filter(|o| w.space == space && *o < w.size)?;
            // Beyond the end of the window nobody answers.
            let size = u64::from(access.size).min(w.size - offset) as u8;
            Some((*index, w.region, Access { offset, size }))
        })
    }

    fn read_any(&mut self, access: Access, cx: &mut DeviceCx) -> Option<u64> {
        let target = match access.offset {
            CONFIG_ADDRESS if access.size == 4 => return Some(u64::from(self.state.address & !3)),
            RESET_CONTROL if access.size == 1 => return Some(self.state.reset.read().into()),
            CONFIG_DATA..0xd00 => Some(self.mechanism_1(access)),
            _ => self.mechanism_2(access),
        };
        if let Some(target) = target {
            let (number, access) = target?;
            return self.read_config(number, access, cx);
        }
        let (index, region, inner) = self.find(access)?;
        let ones = !low_bytes(inner.size);
        cx.requester = Some(self.functions[index].0.requester());
        Some(self.functions[index].1.read(region, inner, cx) & !ones | ones)
    }

    fn write_any(&mut self, access: Access, value: u64, cx: &mut DeviceCx) {
        let target = match access.offset {
            CONFIG_ADDRESS if access.size == 4 => {
                self.state.address = value as u32 & 0x80ff_ffff;
                return;
            }
            RESET_CONTROL if access.size == 1 => return self.state.reset.write(value as u8, INIT, cx),
            CONFIG_DATA..0xd00 => Some(self.mechanism_1(access)),
            _ => self.mechanism_2(access),
        };
        match target {
            Some(Some((number, access))) => self.write_config(number, access, value, cx),
            Some(None) => {}
            None => {
                if let Some((index, region, inner)) = self.find(access) {
                    cx.requester = Some(self.functions[index].0.requester());
                    self.functions[index].1.write(region, inner, value & low_bytes(inner.size), cx);
                }
            }
        }
    }

    /// Calls all functions, each with its requester ID.
    fn each(&mut self, cx: &mut DeviceCx, mut call: impl FnMut(&mut dyn Function, &mut DeviceCx)) {
        for (slot, function) in &mut self.functions {
            cx.requester = Some(slot.requester());
            call(&mut **function, cx);
        }
    }

    /// What follows from a call of functions.
    fn settle(&mut self, cx: &mut DeviceCx) {
        if self.functions.iter_mut().any(|(_, f)| f.has_woken()) {
            self.each(cx, |f, cx| f.wake(cx));
        }
        self.update_lines(cx);
    }

    /// "Interrupt Pin": the pins that ask, through the chipset's wiring to PIRQs, and through its router to IRQs.
    fn update_lines(&mut self, cx: &mut DeviceCx) {
        let mut pirqs = 0u32;
        for (slot, function) in &self.functions {
            let pin = function.config().read(header::INTERRUPT_PIN);
            if pin != 0 && function.intx() && !function.config().has(command::INTX_DISABLE) {
                pirqs |= 1 << self.chipset.pirq(*slot, pin - 1);
            }
        }
        let mut lines = pirqs << 16;
        if let Some((_, bridge)) = self.functions.iter().find(|(s, _)| *s == self.chipset.isa_bridge()) {
            for pirq in (0..8).filter(|p| pirqs & 1 << p != 0) {
                lines |= self.chipset.route(bridge.config(), pirq).map_or(0, |irq| 1 << irq);
            }
        }
        let changed = lines ^ self.state.lines;
        self.state.lines = lines;
        for line in (0..24).filter(|l| changed & 1 << l != 0) {
            cx.line(line, lines & 1 << line != 0);
        }
    }
}

impl Device for PciBus {
    fn name(&self) -> &'static str {
        "pci"
    }

    fn read(&mut self, access: Access, cx: &mut DeviceCx) -> u64 {
        let value = self.read_any(access, cx).unwrap_or(u64::MAX) & low_bytes(access.size);
        self.update_lines(cx);
        value
    }

    fn write(&mut self, access: Access, value: u64, cx: &mut DeviceCx) {
        self.write_any(access, value, cx);
        self.settle(cx);
    }

    fn input(&mut self, line: u32, level: bool, cx: &mut DeviceCx) {
        self.each(cx, |f, cx| f.input(line, level, cx));
        self.settle(cx);
    }

    fn tick(&mut self, cx: &mut DeviceCx) {
        self.each(cx, |f, cx| f.tick(cx));
        self.settle(cx);
    }

    /// The host bridge is device 0, the first.
    fn hides(&self) -> Option<(u64, u64)> {
        self.functions.first().and_then(|(_, f)| f.hides())
    }

    fn wakes_at(&self) -> Option<VirtualTime> {
        self.functions.iter().filter_map(|(_, f)| f.wakes_at()).min()
    }

    fn reset(&mut self) {
        for (_, function) in &mut self.functions {
            function.reset();
        }
        self.state = State::default();
        self.decode();
    }

    fn save(&self) -> Vec<u8> {
        let functions = self.functions.iter().map(|(slot, f)| (*slot, f.save()));
        emu_core::to_bytes(&State { functions: functions.collect(), ..self.state.clone() })
    }

    fn restore(&mut self, bytes: &[u8]) -> Result<(), String> {
        let mut state: State = emu_core::from_bytes(bytes)?;
        let functions = std::mem::take(&mut state.functions);
        if !functions.iter().map(|(s, _)| s).eq(self.functions.iter().map(|(s, _)| s)) {
            return Err("its functions are not those of this machine".into());
        }
        for ((_, function), (_, bytes)) in self.functions.iter_mut().zip(&functions) {
            function.restore(bytes).map_err(|e| format!("{}: {e}", function.name()))?;
        }
        self.state = state;
        self.decode();
        Ok(())
    }
}

#[cfg(test)]
mod tests;
