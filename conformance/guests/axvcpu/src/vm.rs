//! A virtual machine: memory, one virtual processor, and the devices that its guest talks to.

use alloc::collections::BTreeMap;
use alloc::string::String;
use core::mem;
use core::slice;

use axaddrspace::{AddrSpace, AddrSpaceError, MappingFlags};
use axvm_types::GuestPhysAddr;
use x86_vcpu::{
    X86AccessWidth, X86GuestPhysAddr, X86HostPhysAddr, X86NestedPagingConfig, X86NestedPagingFormat,
    X86PortIoDirection, X86Vcpu, X86VcpuCreateConfig, X86VcpuError, X86VcpuSetupConfig, X86VmExit,
};

use crate::host::{self, Pc};
use crate::memory::{self, Own, PAGE};
use crate::nested::Tables;
use crate::{cpu, println};

/// Memory at guest-physical address 0, in bytes: a page of 2 MiB.
const MEMORY: usize = 2 << 20;
/// Behind that memory that is there when it is touched, then a page that may only be read.
const ON_DEMAND: usize = 6 << 20;
const READ_ONLY: usize = MEMORY + ON_DEMAND;
/// Ports.
const CONSOLE: u16 = 0x3f8;
const POWER: u16 = 0x604;
const NUMBERS: u16 = 0x5000;
/// Memory-mapped device: what is written is read again.
const DEVICE: usize = 0xd000_0000;
/// #GP.
const GENERAL_PROTECTION: usize = 13;

unsafe extern "C" {
    static guest_image: u8;
    static guest_size: u8;
    /// Where guests have VMCALL, up to the second.
    static hypercalls: u16;
    static hypercalls_end: u16;
}

static CURRENT: Own<(usize, usize)> = Own::new((0, 0));

/// The virtual machine that runs.
pub fn current() -> usize {
    CURRENT.with(|(id, _)| *id)
}

/// A byte of its memory.
pub fn read_memory_of_current(at: usize) -> Option<u8> {
    // SAFETY: it is its memory, for ever.
    (at < MEMORY).then(|| CURRENT.with(|(_, memory)| unsafe { ((*memory + at) as *const u8).read_volatile() }))
}

/// A virtual machine.
pub struct Vm {
    id: usize,
    vcpu: X86Vcpu<Pc>,
    space: AddrSpace<Tables>,
    memory: usize,
    line: String,
    device: [u8; 8],
    number: u32,
    /// An interrupt for later: after so many expirations of the preemption timer.
    later: Option<(usize, u64)>,
    exits: BTreeMap<&'static str, u64>,
    has_ended: bool,
}

impl Vm {
    /// One whose guest begins at this address.
    pub fn new(id: usize, entry: usize) -> Result<Self, X86VcpuError> {
        let memory = memory::frames(MEMORY / PAGE, MEMORY).ok_or(X86VcpuError::NoMemory)?;
        let space = address_space(memory).map_err(|error| {
            println!("vm{id}: {error}");
            X86VcpuError::NoMemory
        })?;
        let format = x86_vcpu::selected_nested_paging_format()?;
        load(memory, format);
        CURRENT.with(|current| *current = (id, memory));
        let mut vcpu = X86Vcpu::new_with_config(id, 0, X86VcpuCreateConfig)?;
        vcpu.set_entry(X86GuestPhysAddr::from_usize(entry))?;
        let root = X86HostPhysAddr::from_usize(space.page_table_root().as_usize());
        vcpu.set_nested_page_table(X86NestedPagingConfig::new(root, space.page_table_levels(), 48, 0))?;
        let mut setup = X86VcpuSetupConfig::default();
        setup.add_intercepted_mmio_range(X86GuestPhysAddr::from_usize(DEVICE), PAGE)?;
        vcpu.setup(setup)?;
        Ok(Vm {
            id,
            vcpu,
            space,
            memory,
            line: String::new(),
            device: [0; 8],
            number: 0,
            later: None,
            exits: BTreeMap::new(),
            has_ended: false,
        })
    }

    /// Whether the guest has powered off, or cannot go on.
    pub fn has_ended(&self) -> bool {
        self.has_ended
    }

    /// Tells how many exits of each kind the crate has reported.
    pub fn tell_exits(&self) {
        for (name, count) in &self.exits {
            println!("vm{} exits {name} {count}", self.id);
        }
    }

    /// Runs the guest until it waits, or the timer takes its turn away.
    pub fn take_turn(&mut self) -> Result<(), X86VcpuError> {
        CURRENT.with(|current| *current = (self.id, self.memory));
        self.vcpu.bind()?;
        let mut goes_on = true;
        while goes_on && !self.has_ended {
            for vector in host::interrupts_of(self.id) {
                self.vcpu.inject_interrupt(vector.into())?;
            }
            let exit = self.vcpu.run()?;
            *self.exits.entry(name(&exit)).or_default() += 1;
            goes_on = self.handle(exit)?;
        }
        self.vcpu.unbind()
    }

    /// Does what an exit asks for; whether the guest may go on.
    fn handle(&mut self, exit: X86VmExit) -> Result<bool, X86VcpuError> {
        match exit {
            X86VmExit::Nothing | X86VmExit::InterruptEnd { .. } => {}
            X86VmExit::Hypercall { nr, args } => self.hypercall(nr, args)?,
            X86VmExit::PortIoWrite { port, data, .. } => self.write_port(port.number(), data),
            X86VmExit::PortIoRead { port, .. } => {
                let value = self.read_port(port.number());
                self.vcpu.set_return_value(value as usize);
            }
            X86VmExit::PortIoString(io) => {
                let size = io.width().size();
                let at = io.guest_paddr().as_usize();
                match io.direction() {
                    X86PortIoDirection::Out => {
                        let value = number(&self.memory()[at..][..size]);
                        self.write_port(io.port().number(), value);
                    }
                    X86PortIoDirection::In => {
                        let value = self.read_port(io.port().number());
                        self.memory()[at..][..size].copy_from_slice(&value.to_le_bytes()[..size]);
                    }
                }
                self.vcpu.complete_port_io_string(io)?;
            }
            X86VmExit::MmioWrite { addr, width, data } => {
                let at = addr.as_usize() - DEVICE;
                self.device[at..][..width.size()].copy_from_slice(&data.to_le_bytes()[..width.size()]);
            }
            X86VmExit::MmioRead { addr, width, reg, byte_reg, .. } => {
                let value = number(&self.device[addr.as_usize() - DEVICE..][..width.size()]);
                match (width, byte_reg) {
                    (X86AccessWidth::Byte, Some(byte)) => self.vcpu.set_gpr_byte(byte, value as u8),
                    (X86AccessWidth::Word, _) => self.vcpu.set_gpr_word(reg, value as u16),
                    _ => self.vcpu.set_gpr(reg, value as usize),
                }
            }
            // Nothing in the crate's interface goes on behind the instruction: it faults.
            X86VmExit::MsrRead { addr } | X86VmExit::MsrWrite { addr, .. } => {
                println!("vm{} refuses {addr:?}", self.id);
                self.vcpu.inject_interrupt(GENERAL_PROTECTION)?;
            }
            X86VmExit::NestedPageFault { addr, access_flags } => {
                let at = GuestPhysAddr::from(addr.as_usize());
                let flags = MappingFlags::from_bits_truncate(access_flags.bits());
                if self.space.handle_page_fault(at, flags) {
                    println!("vm{} maps {addr:?} for {access_flags:?}", self.id);
                } else {
                    println!("vm{} lets {addr:?} for {access_flags:?}", self.id);
                    allow(&mut self.space, at).map_err(|_| X86VcpuError::BadState)?;
                }
            }
            X86VmExit::PreemptionTimer => {
                if let Some((vector, turns)) = self.later.take() {
                    match turns {
                        1 => self.vcpu.inject_interrupt(vector)?,
                        _ => self.later = Some((vector, turns - 1)),
                    }
                }
                return Ok(false);
            }
            X86VmExit::Halt => {
                while !self.vcpu.has_pending_event() {
                    cpu::wait();
                }
                return Ok(false);
            }
            ended => {
                println!("vm{} ends: {ended:?}", self.id);
                self.has_ended = true;
            }
        }
        Ok(true)
    }

    fn hypercall(&mut self, number: u64, [name, value, ..]: [u64; 6]) -> Result<(), X86VcpuError> {
        match number as u32 {
            1 => {
                let id = self.id;
                let name = &self.memory()[name as u32 as usize..];
                let name = name.split(|b| *b == 0).next().unwrap_or_default();
                println!("vm{id} {} = {:#x}", String::from_utf8_lossy(name), value as u32);
            }
            2 => self.vcpu.inject_interrupt(name as u8 as usize)?,
            3 => self.later = Some((name as u8 as usize, u64::from(value as u32))),
            other => println!("vm{}: no such hypercall: {other}", self.id),
        }
        Ok(())
    }

    fn write_port(&mut self, port: u16, value: u64) {
        match (port, value as u8) {
            (CONSOLE, b'\n') => println!("vm{} {}", self.id, mem::take(&mut self.line)),
            (CONSOLE, byte) => self.line.push(byte.into()),
            (POWER, _) => self.has_ended = true,
            _ => println!("vm{} writes {value:#x} to port {port:#x}", self.id),
        }
    }

    fn read_port(&mut self, port: u16) -> u64 {
        if port != NUMBERS {
            println!("vm{} reads port {port:#x}", self.id);
            return 0;
        }
        self.number += 0x111;
        self.number.into()
    }

    fn memory(&mut self) -> &mut [u8] {
        // SAFETY: it is this machine's, whose guest does not run while it is lent.
        unsafe { slice::from_raw_parts_mut(self.memory as *mut u8, MEMORY) }
    }
}

const ALL: MappingFlags = MappingFlags::READ.union(MappingFlags::WRITE).union(MappingFlags::EXECUTE);

/// The guest-physical addresses of a machine with this memory.
fn address_space(memory: usize) -> Result<AddrSpace<Tables>, AddrSpaceError> {
    let tables = Tables::new().map_err(|_| AddrSpaceError::InvalidMapping)?;
    let mut space = AddrSpace::new_empty(tables, 0.into(), 1 << 32)?;
    space.map_linear(0.into(), memory.into(), MEMORY, ALL)?;
    space.map_alloc(MEMORY.into(), ON_DEMAND, ALL, false)?;
    space.map_alloc(READ_ONLY.into(), PAGE, MappingFlags::READ, true)?;
    // Where there is no such page the crate answers accesses that nothing is mapped for.
    if let (Ok(guest), Ok(page)) = (x86_vcpu::apic_access_page_gpa(), x86_vcpu::apic_access_page_addr::<Pc>()) {
        space.map_linear(
            guest.as_usize().into(),
            page.as_usize().into(),
            PAGE,
            MappingFlags::READ | MappingFlags::WRITE,
        )?;
    }
    Ok(space)
}

/// Another page, with all rights, in the place of one.
fn allow(space: &mut AddrSpace<Tables>, at: GuestPhysAddr) -> Result<(), AddrSpaceError> {
    let page = GuestPhysAddr::from(at.as_usize() & !(PAGE - 1));
    space.unmap(page, PAGE)?;
    space.map_alloc(page, PAGE, ALL, true)
}

/// Puts what guests run into one's memory.
fn load(memory: usize, format: X86NestedPagingFormat) {
    /// Where it is linked to.
    const AT: usize = 0x8000;
    const VMMCALL: [u8; 3] = [0x0f, 0x01, 0xd9];
    // SAFETY: the linker's script has these, and nobody else knows of this memory.
    unsafe {
        let bytes = slice::from_raw_parts(&raw const guest_image, &raw const guest_size as usize);
        let memory = slice::from_raw_parts_mut(memory as *mut u8, MEMORY);
        memory.fill(0);
        memory[AT..][..bytes.len()].copy_from_slice(bytes);
        if format == X86NestedPagingFormat::Npt {
            let count = (&raw const hypercalls_end).offset_from_unsigned(&raw const hypercalls);
            for at in slice::from_raw_parts(&raw const hypercalls, count) {
                memory[usize::from(*at)..][..3].copy_from_slice(&VMMCALL);
            }
        }
    }
}

fn number(bytes: &[u8]) -> u64 {
    bytes.iter().rev().fold(0, |n, b| n << 8 | u64::from(*b))
}

fn name(exit: &X86VmExit) -> &'static str {
    match exit {
        X86VmExit::Hypercall { .. } => "Hypercall",
        X86VmExit::PortIoRead { .. } => "PortIoRead",
        X86VmExit::PortIoWrite { .. } => "PortIoWrite",
        X86VmExit::PortIoString(_) => "PortIoString",
        X86VmExit::MmioRead { .. } => "MmioRead",
        X86VmExit::MmioWrite { .. } => "MmioWrite",
        X86VmExit::MsrRead { .. } => "MsrRead",
        X86VmExit::MsrWrite { .. } => "MsrWrite",
        X86VmExit::NestedPageFault { .. } => "NestedPageFault",
        X86VmExit::PreemptionTimer => "PreemptionTimer",
        X86VmExit::InterruptEnd { .. } => "InterruptEnd",
        X86VmExit::Halt => "Halt",
        X86VmExit::SystemDown => "SystemDown",
        X86VmExit::FailEntry { .. } => "FailEntry",
        X86VmExit::Nothing => "Nothing",
        _ => "another",
    }
}
