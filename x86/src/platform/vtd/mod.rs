//! A DMA remapping hardware unit ("Intel Virtualization Technology for Directed I/O Architecture Specification"), for all bus masters of the
//! board. Files are the specification's chapters.
//!
//! What it has: legacy mode with second-stage tables of 3, 4 and 5 levels and pages of 4 KiB, 2 MiB and 1 GiB, pass-through, the queued and
//! the register-based invalidation interface, primary fault logging, interrupt remapping in both interrupt modes, interrupt posting.
//! Not there, and not advertised: scalable mode (first-stage and nested translation, PASIDs), device TLBs, page requests, advanced fault
//! logging, protected memory regions.
//!
//! Everything is done at once: a command or a descriptor has its effect before the write that gave it returns. What a table or an
//! entry in memory says is kept in [`caching`] until it is invalidated.

mod caching;
mod dma_remapping;
mod fault;
mod interrupt_posting;
mod interrupt_remapping;
mod queue;
mod register;
#[cfg(test)]
mod tests;

use emu_core::device::{Access, Device, DeviceCx};
use emu_core::device_state;
use emu_core::iommu::{Iommu, MasterAccess};
use serde::{Deserialize, Serialize};

use super::msi::InterruptMessage;
use caching::Caches;
use register::*;

/// Where a Q35's unit has its registers.
pub const BASE: u64 = 0xfed9_0000;
/// Size in bytes.
pub const SIZE: u64 = 0x1000;
/// Requester ID of the I/O APIC: bus F0h, device 1Fh, function 0 ("IOxAPIC Bus:Device:Function" of later chipsets at reset).
pub const IOAPIC: u16 = 0xf0f8;
/// Requester ID of the HPET: bus F0h, device 0Fh, function 0.
pub const HPET: u16 = 0xf078;
/// Bits of a host physical address ("Host Address Width" of the DMAR table).
pub const HOST_ADDRESS_WIDTH: u32 = 46;

/// A unit to be built.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct VtdConfig {
    /// ECAP.EIM: x2APIC IDs as destinations.
    pub extended_interrupt_mode: bool,
    /// CAP.CM: what is not present or in error is cached too.
    pub caching_mode: bool,
    /// The I/O APIC's messages have to come from the source that their entry names. QEMU's I/O APIC has no requester ID, so that software that
    /// was written for it may name any.
    pub verifies_ioapic: bool,
}

impl Default for VtdConfig {
    fn default() -> Self {
        VtdConfig { extended_interrupt_mode: true, caching_mode: false, verifies_ioapic: true }
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct State {
    registers: Registers,
    /// RTADDR_REG as SRTP has taken it.
    root_table: u64,
    /// IRTA_REG as SIRTP has taken it.
    interrupt_table: u64,
    /// The fault recording register that is next.
    next_record: usize,
    caches: Caches,
}

/// For statistics.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Counts {
    walks: u64,
    remapped: u64,
    posted: u64,
    notifications: u64,
    faults: u64,
}

/// The unit. It has no lines: its own interrupts are messages too, which are not remapped.
pub struct Vtd {
    config: VtdConfig,
    vcpus: u32,
    state: State,
    counts: Counts,
}

impl State {
    fn at_reset(config: &VtdConfig) -> Self {
        State {
            registers: Registers::at_reset(config),
            root_table: 0,
            interrupt_table: 0,
            next_record: 0,
            caches: Caches::default(),
        }
    }
}

impl Vtd {
    /// A unit at reset, of a machine with so many processors.
    pub fn new(config: VtdConfig, vcpus: u32) -> Self {
        Vtd { config, vcpus, state: State::at_reset(&config), counts: Counts::default() }
    }

    fn get(&self, register: Register) -> u64 {
        self.state.registers.get(register)
    }

    fn set(&mut self, register: Register, value: u64) {
        self.state.registers.set(register, value);
    }

    fn has(&self, register: Register, bit: u64) -> bool {
        self.get(register) & bit != 0
    }

    /// Sets or clears bits.
    fn put(&mut self, register: Register, bits: u64, value: bool) {
        let rest = self.get(register) & !bits;
        self.set(register, if value { rest | bits } else { rest });
    }

    /// "Global Command Register", "Global Status Register". AFL and write-buffer flushing are not there.
    fn command(&mut self, command: u64, cx: &mut DeviceCx) {
        if command & gcmd::SRTP != 0 {
            self.state.root_table = self.get(RTADDR_REG);
            self.put(GSTS_REG, gcmd::SRTP, true);
        }
        if command & gcmd::SIRTP != 0 {
            self.state.interrupt_table = self.get(IRTA_REG);
            self.put(GSTS_REG, gcmd::SIRTP, true);
        }
        for bit in [gcmd::TE, gcmd::IRE, gcmd::CFI] {
            self.put(GSTS_REG, bit, command & bit != 0);
        }
        if command & gcmd::QIE != self.get(GSTS_REG) & gcmd::QIE {
            self.put(GSTS_REG, gcmd::QIE, command & gcmd::QIE != 0);
            self.set(IQH_REG, 0);
            self.run_queue(cx);
        }
    }

    /// What follows from a write to a doubleword.
    fn written(&mut self, at: u64, value: u32, cx: &mut DeviceCx) {
        const HIGH: u64 = 4;
        match at {
            _ if at == GCMD_REG.at => self.command(value.into(), cx),
            _ if at == CCMD_REG.at + HIGH => self.context_command(),
            _ if at == IOTLB_REG.at + HIGH => self.iotlb_command(),
            _ if at == IQT_REG.at => self.run_queue(cx),
            _ if at == FSTS_REG.at => {
                self.fault_status_written();
                self.run_queue(cx);
            }
            _ if at == ICS_REG.at && !self.has(ICS_REG, ics::IWC) => self.put(IECTL_REG, event::IP, false),
            _ if at == FECTL_REG.at => self.send_event(FAULT_EVENT, cx),
            _ if at == IECTL_REG.at => self.send_event(COMPLETION_EVENT, cx),
            FIRST_RECORD.. => self.fault_status_written(),
            _ => {}
        }
    }

    /// "Fault Event Control Register", "Invalidation Event Control Register": an event that is pending and not masked is sent.
    fn send_event(&mut self, event: Event, cx: &mut DeviceCx) {
        let control = self.get(event.control);
        if control & (event::IP | event::IM) != event::IP {
            return;
        }
        self.put(event.control, event::IP, false);
        let message = InterruptMessage::decode(self.get(event.address), self.get(event.data) as u32);
        let destination = message.destination | self.get(event.upper_address) as u32 & !0xff;
        InterruptMessage { destination, wide: self.is_extended(), ..message }.deliver(self.vcpus, cx);
    }

    /// A condition has come up: it is an event, sent now or when it is no longer masked.
    fn raise_event(&mut self, event: Event, cx: &mut DeviceCx) {
        self.put(event.control, event::IP, true);
        self.send_event(event, cx);
    }
}

impl Iommu for Vtd {
    fn translate(&mut self, access: MasterAccess, cx: &mut DeviceCx) -> Option<(u64, u64)> {
        self.remap_dma(access, cx)
    }

    fn message(&mut self, requester: u16, address: u64, data: u32, cx: &mut DeviceCx) -> bool {
        let is_interrupt = is_interrupt_address(address);
        if is_interrupt {
            self.remap_interrupt(requester, address, data, cx);
        }
        is_interrupt
    }
}

/// "Interrupt Address Range": FEEx_xxxxh is never translated.
fn is_interrupt_address(address: u64) -> bool {
    address >> 20 == 0xfee
}

impl Device for Vtd {
    fn name(&self) -> &'static str {
        "vtd"
    }

    fn read(&mut self, access: Access, _: &mut DeviceCx) -> u64 {
        super::read_bytes(access, |at| self.state.registers.byte(at))
    }

    /// "Software Access to Registers": aligned doublewords and quadwords; a quadword is written low half first.
    fn write(&mut self, access: Access, value: u64, cx: &mut DeviceCx) {
        let Access { offset, size } = access;
        if !matches!(size, 4 | 8) || !offset.is_multiple_of(size.into()) {
            return;
        }
        for half in 0..u64::from(size / 4) {
            let (at, value) = (offset + 4 * half, (value >> (32 * half)) as u32);
            self.state.registers.write(at, value);
            self.written(at, value, cx);
        }
    }

    fn iommu(&mut self) -> Option<&mut (dyn Iommu + 'static)> {
        Some(self)
    }

    fn counts(&self) -> Vec<(&'static str, u64)> {
        let Counts { walks, remapped, posted, notifications, faults } = self.counts;
        vec![
            ("second-stage walks", walks),
            ("interrupts remapped", remapped),
            ("interrupts posted", posted),
            ("notifications", notifications),
            ("faults", faults),
        ]
    }

    fn reset(&mut self) {
        self.state = State::at_reset(&self.config);
    }

    device_state!(state);
}
