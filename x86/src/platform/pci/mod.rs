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
        let Some(function) = self.function_at(number) else { return };
        write_bytes(access, value, |at, byte| function.write_config(at as usize, byte, cx));
        function.config_written(cx);
        self.decode();
    }

    /// "Configuration Mechanism #1": the function and register that an access to CONFIG_DATA is for.
    fn mechanism_1(&self, access: Access) -> Option<(u8, Access)> {
        let address = self.state.address;
        let (enabled, bus) = (address >> 31 != 0, address >> 16 & 0xff);
        let offset = u64::from(address & 0xfc) + (access.offset - CONFIG_DATA);
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
            CONFIG_ADDRESS if access.size == 4 => return Some(self.state.address.into()),
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
        Some(self.functions[index].1.read(region, inner, cx) & !ones | ones)
    }

    fn write_any(&mut self, access: Access, value: u64, cx: &mut DeviceCx) {
        let target = match access.offset {
            CONFIG_ADDRESS if access.size == 4 => {
                self.state.address = value as u32 & 0x80ff_fffc;
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
                    self.functions[index].1.write(region, inner, value & low_bytes(inner.size), cx);
                }
            }
        }
    }

    /// What follows from a call of functions.
    fn settle(&mut self, cx: &mut DeviceCx) {
        if self.functions.iter_mut().any(|(_, f)| f.has_woken()) {
            self.functions.iter_mut().for_each(|(_, f)| f.wake(cx));
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
        for (_, function) in &mut self.functions {
            function.input(line, level, cx);
        }
        self.settle(cx);
    }

    fn tick(&mut self, cx: &mut DeviceCx) {
        for (_, function) in &mut self.functions {
            function.tick(cx);
        }
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
mod tests {
    use emu_core::device::{Bench, Request, Signal};
    use proptest::prelude::*;

    use super::edu::Edu;
    use super::*;

    struct Rig(PciBus, Bench);
    impl Rig {
        /// With the educational device in slot 3.
        fn new(chipset: Chipset) -> Self {
            let mut bus = PciBus::new(chipset);
            assert!(bus.insert(Slot::device(3), Box::new(Edu::new(u64::MAX))));
            assert!(!bus.insert(Slot::device(3), Box::new(Edu::new(0))), "the slot is taken");
            let mut bench = Bench::default();
            bench.ram.add(0, 0x1_0000).unwrap();
            Rig(bus, bench)
        }
        fn port(&mut self, port: u64, size: u8) -> u64 {
            self.1.read(&mut self.0, port, size)
        }
        fn set_port(&mut self, port: u64, size: u8, value: u64) {
            self.1.write(&mut self.0, port, size, value);
        }
        fn memory(&mut self, at: u64, size: u8) -> u64 {
            self.1.read(&mut self.0, MEMORY + at, size)
        }
        fn set_memory(&mut self, at: u64, size: u8, value: u64) {
            self.1.write(&mut self.0, MEMORY + at, size, value);
        }
        fn select(&mut self, device: u8, function: u8, at: u64) {
            let slot = Slot { device, function };
            self.set_port(CONFIG_ADDRESS, 4, 1 << 31 | u64::from(slot.number()) << 8 | at & 0xfc);
        }
        fn config(&mut self, device: u8, at: u64, size: u8) -> u64 {
            self.select(device, 0, at);
            self.port(CONFIG_DATA + at % 4, size)
        }
        fn set_config(&mut self, device: u8, at: u64, size: u8, value: u64) {
            self.select(device, 0, at);
            self.set_port(CONFIG_DATA + at % 4, size, value);
        }
        fn lines(&mut self) -> Vec<(u32, bool)> {
            let line = |s: &Signal| match s {
                Signal::Line { line, level } => Some((*line, *level)),
                _ => None,
            };
            self.1.take_signals().iter().filter_map(line).collect()
        }
    }

    #[test]
    fn configuration_mechanism_1() {
        let mut p = Rig::new(Chipset::I440Fx);
        let ids: Vec<_> = (0..5).map(|d| p.config(d, 0, 4)).collect();
        assert_eq!(ids, [0x1237_8086, 0x7000_8086, 0xffff_ffff, 0x11e8_1234, 0xffff_ffff]);
        p.select(1, 3, 0);
        assert_eq!([p.port(0xcfc, 4), p.port(0xcfe, 2), p.port(0xcfd, 1)], [0x7113_8086, 0x7113, 0x80]);
        p.set_port(CONFIG_ADDRESS, 4, 0x0000_1800);
        assert_eq!(p.port(CONFIG_DATA, 4), 0xffff_ffff, "not enabled");
        p.set_port(CONFIG_ADDRESS, 4, 0x8001_0000);
        assert_eq!((p.port(CONFIG_ADDRESS, 4), p.port(CONFIG_DATA, 4)), (0x8001_0000, 0xffff_ffff), "another bus");
        p.set_port(CONFIG_ADDRESS, 4, 0xffff_ffff);
        assert_eq!(p.port(CONFIG_ADDRESS, 4), 0x80ff_fffc);
        p.set_port(CONFIG_ADDRESS, 2, 0);
        p.set_port(0xcfa, 1, 0);
        assert_eq!(
            (p.port(CONFIG_ADDRESS, 4), p.port(CONFIG_ADDRESS, 1)),
            (0x80ff_fffc, 0xff),
            "it takes words of 32 bits"
        );
        p.set_config(3, 0x3c, 4, 0xffff_ff0b);
        assert_eq!(p.config(3, 0x3c, 2), 0x010b, "the pin is for reading");
    }

    #[test]
    fn the_enhanced_mechanism() {
        let mut p = Rig::new(Chipset::Q35);
        assert_eq!(p.memory(0xb000_0000, 4), 0xffff_ffff);
        p.set_config(0, 0x60, 4, 0xb000_0001);
        let at = |device: u64, register: u64| 0xb000_0000 + (device << 15) + register;
        assert_eq!(
            [p.memory(at(0, 0), 4), p.memory(at(31, 2), 2), p.memory(at(2, 0), 2)],
            [0x29c0_8086, 0x2918, 0xffff]
        );
        assert_eq!(
            [p.memory(at(3, 0x100), 4), p.memory(at(32, 0), 4)],
            [0, 0xffff_ffff],
            "no extended space, no bus 1"
        );
        p.set_memory(at(3, 0x10), 4, 0xfe00_0000);
        p.set_memory(at(3, 4), 2, 2);
        assert_eq!((p.config(3, 0x10, 4), p.memory(0xfe00_0000, 4)), (0xfe00_0000, 0x0100_00ed));
        p.set_config(0, 0x60, 4, 0xc000_0005);
        assert_eq!((p.memory(at(0, 0), 2), p.memory(0xc000_0000, 2)), (0xffff, 0x8086), "64 MiB at another place");
    }

    #[test]
    fn base_addresses_move() {
        let mut p = Rig::new(Chipset::I440Fx);
        p.set_config(3, 0x10, 4, 0xffff_ffff);
        assert_eq!(p.config(3, 0x10, 4), 0xfff0_0000);
        for base in [0xfeb0_0000, 0xe000_0000] {
            p.set_config(3, 4, 2, 0);
            p.set_config(3, 0x10, 4, base);
            assert_eq!(p.memory(base, 4), 0xffff_ffff);
            p.set_config(3, 4, 2, 2);
            assert_eq!(p.memory(base, 4), 0x0100_00ed);
            p.set_memory(base + 4, 4, base);
            assert_eq!(p.memory(base + 4, 4), !base & 0xffff_ffff);
        }
        assert_eq!(p.memory(0xfeb0_0000, 4), 0xffff_ffff, "where it was");
        assert_eq!(p.memory(0xe000_0000 + (1 << 20) - 4, 8) >> 32, 0xffff_ffff, "beyond its end");
        assert_eq!(p.port(0xe000, 4), 0xffff_ffff);
    }

    #[test]
    fn interrupts_are_routed() {
        // (chipset, the register that routes INTA# of device 3, PIRQ)
        for (chipset, bridge, register, pirq) in [(Chipset::I440Fx, 1, 0x62, 2), (Chipset::Q35, 31, 0x6b, 7)] {
            let mut p = Rig::new(chipset);
            p.set_config(3, 0x10, 4, 0xfe00_0000);
            p.set_config(3, 4, 2, 2);
            p.set_memory(0xfe00_0060, 4, 1);
            assert_eq!((p.lines(), p.config(3, 6, 1) & 8), (vec![(16 + pirq, true)], 8), "{chipset:?}: not routed yet");
            p.set_config(bridge, register, 1, 0x0b);
            assert_eq!(p.lines(), [(11, true)]);
            p.set_config(bridge, register, 1, 0x05);
            assert_eq!(p.lines(), [(5, true), (11, false)]);
            p.set_config(bridge, register, 1, 0x02);
            assert_eq!(p.lines(), [(5, false)], "no such route");
            p.set_config(bridge, register, 1, 0x0a);
            p.lines();
            p.set_config(3, 4, 2, 0x402);
            assert_eq!((p.lines(), p.config(3, 6, 1) & 8), (vec![(10, false), (16 + pirq, false)], 8), "disabled");
            p.set_config(3, 4, 2, 2);
            p.lines();
            p.set_memory(0xfe00_0064, 4, 1);
            assert_eq!(p.lines(), [(10, false), (16 + pirq, false)]);
        }
        let swizzle: Vec<_> = (0..4).map(|pin| Chipset::I440Fx.pirq(Slot::device(4), pin)).collect();
        assert_eq!(swizzle, [3, 0, 1, 2]);
    }

    #[test]
    fn power_management_is_where_its_base_says() {
        let mut p = Rig::new(Chipset::I440Fx);
        p.select(1, 3, 0x40);
        p.set_port(CONFIG_DATA, 4, 0xffff_b000);
        assert_eq!((p.port(CONFIG_DATA, 4), p.port(0xb008, 4)), (0xb001, 0xffff_ffff), "not enabled");
        p.select(1, 3, 0x80);
        p.set_port(CONFIG_DATA, 1, 1);
        p.1.now = 1_000_000_000;
        assert_eq!(p.port(0xb008, 4), 3_579_545);
        p.set_port(0xb2, 1, 0xf1);
        assert_eq!((p.port(0xb004, 2), p.port(0xb2, 1)), (1, 0xf1));
        p.0.input(super::super::pm::POWER_BUTTON, true, &mut p.1.cx());
        p.set_port(0xb002, 2, 0x100);
        assert_eq!(p.lines(), [(SCI, true)]);
        p.set_port(0xb004, 2, 0x2001);
        assert_eq!(p.1.request, Some(Request::PowerOff { code: 0 }));
        let mut p = Rig::new(Chipset::Q35);
        p.set_config(31, 0x40, 4, 0x600);
        p.set_config(31, 0x44, 1, 0x80);
        p.set_port(0x602, 2, 1);
        assert_eq!((p.port(0x602, 2), p.0.wakes_at().is_some()), (1, true));
        p.set_config(31, 0xf0, 4, 0xfed1_c001);
        assert_eq!(p.memory(0xfed1_c000 + 0x3140, 2), 0x3210);
        p.set_memory(0xfed1_c000 + 0x3410, 4, 0x20);
        assert_eq!(p.memory(0xfed1_c000 + 0x3410, 4), 0x20);
    }

    #[test]
    fn reset_control_lies_between() {
        let mut p = Rig::new(Chipset::I440Fx);
        p.set_port(CONFIG_ADDRESS, 4, 0x8000_0600);
        assert_eq!((p.1.request, p.port(RESET_CONTROL, 1)), (None, 0));
        p.set_port(RESET_CONTROL, 1, 4);
        assert_eq!(p.lines(), [(INIT, true), (INIT, false)]);
        p.set_port(RESET_CONTROL, 1, 2);
        p.set_port(RESET_CONTROL, 1, 6);
        assert_eq!((p.1.request, p.port(RESET_CONTROL, 1)), (Some(Request::Reset), 6));
    }

    /// PAM is kept; SMRAM's lock closes it.
    #[test]
    fn registers_of_the_host_bridges() {
        for (chipset, pam, smram) in [(Chipset::I440Fx, 0x5a, 0x72), (Chipset::Q35, 0x91, 0x9d)] {
            let mut p = Rig::new(chipset);
            p.set_config(0, pam, 1, 0x33);
            assert_eq!((p.config(0, pam, 1), p.config(0, smram, 1)), (0x33, 2));
            p.set_config(0, smram, 1, 0x4a);
            assert_eq!(p.config(0, smram, 1), 0x4a);
            p.set_config(0, smram, 1, 0x5a);
            p.set_config(0, smram, 1, 0x4a);
            assert_eq!(p.config(0, smram, 1), 0x1a, "locked, and closed by that");
            p.0.reset();
            assert_eq!((p.config(0, pam, 1), p.config(0, smram, 1)), (0, 2));
        }
    }

    /// On a machine's bus: other chips come first, and what is nobody's reads as ones.
    #[test]
    fn below_all_other_devices() {
        use emu_core::bus::BusCx;
        let (mut ram, mut door) = (emu_core::ram::Ram::default(), emu_core::door::Door::default());
        let mut bus = Bus::default();
        bus.add(Box::new(super::super::pit::Pit::new()));
        bus.map(Space::Port, 0x40, 4, DeviceId(0), 0, 0);
        let p = Rig::new(Chipset::I440Fx).0;
        p.map(&mut bus, &[(0xc000_0000, 1 << 32), (1 << 32, 1 << 46)]);
        let mut io = |space, at, size, value: Option<u64>| {
            let cx = BusCx { now: 0, ram: &mut ram, door: &mut door };
            match value {
                None => bus.read(space, at, size, cx),
                Some(v) => bus.write(space, at, size, v, cx).map(|()| 0),
            }
        };
        io(Space::Port, 0xcf8, 4, Some(0x8000_1810));
        io(Space::Port, 0xcfc, 4, Some(0xd000_0000));
        io(Space::Port, 0xcf8, 4, Some(0x8000_1804));
        io(Space::Port, 0xcfc, 2, Some(2));
        assert_eq!(io(Space::Memory, 0xd000_0000, 4, None), Some(0x0100_00ed));
        assert_eq!(io(Space::Memory, 0xd010_0000, 2, None), Some(0xffff));
        assert_eq!(io(Space::Memory, 0x8000_0000, 4, None), None);
        assert_eq!((io(Space::Port, 0x43, 1, None), io(Space::Port, 0x300, 1, None)), (Some(0), Some(0xff)));
    }

    proptest! {
        #[test]
        fn nothing_panics_and_saved_state_goes_on_alike(
            q35: bool,
            ops in prop::collection::vec((0u8..6, any::<u64>(), 0u32..64, 1u8..=8, any::<u64>(), 0u64..300_000), 1..200)
        ) {
            let chipset = if q35 { Chipset::Q35 } else { Chipset::I440Fx };
            let (mut a, mut b) = (Rig::new(chipset), Rig::new(chipset));
            let half = ops.len() / 2;
            for p in [&mut a, &mut b] {
                p.set_config(3, 0x10, 4, 0xfe00_0000);
                p.set_config(3, 4, 2, 6);
            }
            for (i, (what, at, shift, size, value, ns)) in ops.into_iter().enumerate() {
                if i == half {
                    b.0.restore(&a.0.save()).unwrap();
                    b.1.ram.restore(&a.1.ram.snapshot()).unwrap();
                    b.1.now = a.1.now;
                    a.1.take_signals();
                    b.1.take_signals();
                }
                let slot = [(0, 0), (1, 0), (1, 3), (3, 0), (31, 0), (9, 1)][(at % 6) as usize];
                let go = |p: &mut Rig| {
                    p.1.run_to(&mut p.0, p.1.now + ns);
                    match what {
                        0 => return p.1.read(&mut p.0, at >> shift | at << 63, size),
                        1 => p.1.write(&mut p.0, at >> shift | at << 63, size, value),
                        2 | 3 => {
                            p.select(slot.0, slot.1, value >> 56);
                            if what == 2 { return p.port(CONFIG_DATA + value % 4, size) }
                            p.set_port(CONFIG_DATA + value % 4, size, value >> shift);
                        }
                        4 => p.set_memory(0xfe00_0000 + at % 0xa0 / 4 * 4, 4 + size / 8 * 4, value >> shift),
                        _ => return p.memory(0xfe00_0000 + at % 0xa0, size),
                    }
                    0
                };
                let result = go(&mut a);
                if i >= half {
                    prop_assert_eq!(result, go(&mut b));
                    prop_assert_eq!(a.1.take_signals(), b.1.take_signals());
                }
            }
            prop_assert_eq!(a.0.save(), b.0.save());
        }
    }
}
