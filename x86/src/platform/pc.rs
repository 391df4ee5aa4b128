//! The `pc` machine: a board, processors, and what is loaded into RAM or found at the reset vector.

use emu_core::engine::{Vcpu, World};
use emu_core::file::File;
use emu_core::machine::{DEFAULT_QUANTUM, Machine, Schedule};
use emu_core::ram::RamError;
use emu_core::time::{DEFAULT_HERTZ, Frequency};
use serde::{Deserialize, Serialize};

use super::acpi::{self, Described, Tables};
use super::bios;
use super::board::{self, Board, BoardConfig, BoardError, Transport, VirtioDevice};
use super::flash::Flash;
use super::fw_cfg::{self, FwCfg, key};
use super::loader::{Entry, LoadError, Loader, Mode, Module, Protocol, Software};
use super::memory::{self, FOUR_GIB, Layout, SHADOW, SHADOW_END};
use super::pci::chipset::Chipset;
use super::restart;
use super::setup::{self, Setup};
use super::smbios::Smbios;
use super::smi;
use super::vtd::VtdConfig;
use crate::control::{cr0, cr4, efer};
use crate::extension::Slot;
use crate::model::{Cores, CpuModel, ModelError, Vendor};
use crate::processor::{X86, segments};
use crate::registers::{FS_BASE, GS_BASE, RDX};
use crate::segment::{Attributes, Segment, Table};
use crate::xsave::reset_registers;

/// The console's port of the door: the first serial port.
pub const CONSOLE: u32 = 0;
/// The door's port of the second serial port, which nothing is connected to unless somebody does it: beyond all others.
pub const SECOND_SERIAL: u32 = 64;

/// The most NUMA nodes.
pub const MAX_NODES: u32 = 8;

/// Firmware, as far as the machine has to know it before its contents.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FirmwareShape {
    /// Bytes below 4 GiB.
    pub code: u64,
    /// Bytes of variables below that.
    pub variables: u64,
    /// It is UEFI's, whose addresses are others than SeaBIOS's.
    pub is_uefi: bool,
}

/// Everything that the machine is made from, but the contents of files.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PcConfig {
    /// The processors' model and its switches.
    pub cpu: String,
    /// Number of processors.
    pub vcpus: u32,
    /// Bytes of RAM.
    pub memory: u64,
    /// NUMA nodes that RAM and processors are divided into, 1 to [`MAX_NODES`]; `None` tells nothing of nodes.
    pub nodes: Option<u32>,
    /// The chipset.
    pub chipset: Chipset,
    /// Devices, in their order.
    pub virtio: Vec<VirtioDevice>,
    /// How they are reached.
    pub transport: Transport,
    /// Whether there is the educational device.
    pub edu: bool,
    /// The DMA remapping unit, if there is one: with a Q35 only.
    pub iommu: Option<VtdConfig>,
    /// Whether firmware's log goes to the console.
    pub firmware_log: bool,
    /// The firmware, if there is one.
    pub firmware: Option<FirmwareShape>,
    /// Which of the kernel's entries is taken.
    pub protocol: Protocol,
    /// The kernel's command line.
    pub arguments: String,
    /// Varies the interleaving of processors; 0 for equal turns. Also seeds the guest's entropy.
    pub seed: u64,
    /// A turn, in instructions.
    pub quantum: u64,
    /// The nominal frequency in hertz.
    pub hertz: u64,
    /// Seconds since 1970 at power-on.
    pub rtc_epoch: u64,
}

impl Default for PcConfig {
    fn default() -> Self {
        PcConfig {
            cpu: "intel".into(),
            vcpus: 1,
            memory: 512 << 20,
            nodes: None,
            chipset: Chipset::Q35,
            virtio: Vec::new(),
            transport: Transport::Pci,
            edu: false,
            iommu: None,
            firmware_log: false,
            firmware: None,
            protocol: Protocol::Auto,
            arguments: String::new(),
            seed: 0,
            quantum: DEFAULT_QUANTUM,
            hertz: DEFAULT_HERTZ,
            rtc_epoch: 1_700_000_000,
        }
    }
}

/// What is loaded.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Images {
    /// Firmware, which processors find at their reset vector.
    pub firmware: Option<File>,
    /// Its variables.
    pub variables: Option<File>,
    /// The kernel.
    pub kernel: Option<File>,
    /// The initial RAM disk.
    pub initrd: Option<File>,
    /// Modules of Multiboot and PVH.
    pub modules: Vec<Module>,
}

/// A machine that cannot be.
#[derive(Debug, thiserror::Error)]
pub enum PcError {
    /// The board's word.
    #[error(transparent)]
    Board(#[from] BoardError),
    /// RAM of that size.
    #[error(transparent)]
    Ram(#[from] RamError),
    /// The processors' model.
    #[error(transparent)]
    Model(#[from] ModelError),
    /// What is loaded.
    #[error(transparent)]
    Load(#[from] LoadError),
    /// Frequency out of range.
    #[error("{0} Hz: the nominal frequency is 1 kHz to 1 THz")]
    Frequency(u64),
    /// RAM out of range.
    #[error("{0} bytes of RAM: a PC has 2 MiB to 1 TiB")]
    Memory(u64),
    /// Too many nodes or none.
    #[error("{nodes} NUMA nodes with {vcpus} vCPUs: a PC has 1 to {MAX_NODES} nodes, each with a vCPU")]
    Nodes {
        /// So many were asked for.
        nodes: u32,
        /// Processors.
        vcpus: u32,
    },
    /// An IOMMU on a board that has no place for it.
    #[error("VT-d: the i440FX has none, expected chipset=q35")]
    Iommu,
    /// Firmware of a size that cannot be.
    #[error("{name}: {size} bytes; expected whole pages of firmware, 64 KiB to 8 MiB")]
    Firmware {
        /// The file.
        name: String,
        /// Its size in bytes.
        size: u64,
    },
}

impl FirmwareShape {
    /// The most bytes of firmware and its variables.
    pub const MAX: u64 = 8 << 20;

    /// What these files make.
    pub fn of(code: &File, variables: Option<&File>) -> Result<Self, PcError> {
        let size = |file: &File, least: u64| {
            let size = file.bytes.len() as u64;
            let fits = size.is_multiple_of(0x1000) && (least..=Self::MAX).contains(&size);
            if fits { Ok(size) } else { Err(PcError::Firmware { name: file.name.clone(), size }) }
        };
        let variables = variables.map(|f| size(f, 0x1000)).transpose()?.unwrap_or(0);
        // UEFI Platform Initialization, volume 3, "Firmware Volume Header": the signature at offset 40.
        let is_uefi = code.bytes.get(40..44) == Some(b"_FVH");
        Ok(FirmwareShape { code: size(code, 0x1_0000)?, variables, is_uefi })
    }

    /// Where its code and its variables begin.
    fn bases(&self) -> (u64, u64) {
        (FOUR_GIB - self.code, FOUR_GIB - self.code - self.variables)
    }
}

/// Random bytes that follow from a seed.
fn random_bytes(seed: u64) -> [u8; 32] {
    let mut bytes = [0; 32];
    let mut state = seed ^ 0x756e_6465_7276_6973;
    for chunk in bytes.chunks_mut(8) {
        state = state.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(0x1405_7b7e_f767_814f);
        chunk.copy_from_slice(&(state ^ state >> 29).to_le_bytes());
    }
    bytes
}

impl PcConfig {
    fn layout(&self) -> Layout {
        Layout::new(self.chipset, self.memory)
    }

    /// What firmware of this kind chooses.
    fn firmware_choice(&self) -> acpi::Firmware {
        match self.firmware {
            Some(FirmwareShape { is_uefi: true, .. }) => acpi::Firmware {
                pm_base: if self.chipset == Chipset::I440Fx { 0xb000 } else { 0x600 },
                ecam: 0xe000_0000,
            },
            _ => acpi::Firmware::default(),
        }
    }

    fn described(&self) -> Described {
        Described {
            chipset: self.chipset,
            vcpus: self.vcpus,
            layout: self.layout(),
            nodes: self.nodes,
            iommu: self.iommu,
            virtio: (self.virtio.len(), self.transport),
            firmware: self.firmware_choice(),
        }
    }

    /// What firmware reads: the machine's shape, tables, and the kernel, if there is one.
    fn fw_cfg(&self, images: &Images) -> FwCfg {
        let layout = self.layout();
        let word = |value: u32| value.to_le_bytes().to_vec();
        let half = |value: u32| (value as u16).to_le_bytes().to_vec();
        let mut items = vec![
            (key::RAM_SIZE, self.memory.to_le_bytes().to_vec()),
            (key::NOGRAPHIC, half(1)),
            (key::NB_CPUS, half(self.vcpus)),
            (key::MAX_CPUS, half(self.vcpus)),
            (key::BOOT_MENU, half(0)),
        ];
        if self.firmware.is_some() {
            let mut blob = |size_key, data_key, bytes: &[u8]| {
                items.push((size_key, word(bytes.len() as u32)));
                items.push((data_key, bytes.to_vec()));
            };
            if let Some(kernel) = &images.kernel {
                let sectors = kernel.bytes.get(0x1f1).map_or(4, |n| if *n == 0 { 4 } else { usize::from(*n) });
                let setup = (512 * (sectors + 1)).min(kernel.bytes.len());
                blob(key::SETUP_SIZE, key::SETUP_DATA, &kernel.bytes[..setup]);
                blob(key::KERNEL_SIZE, key::KERNEL_DATA, &kernel.bytes[setup..]);
                blob(key::CMDLINE_SIZE, key::CMDLINE_DATA, &[self.arguments.as_bytes(), &[0]].concat());
            }
            if let Some(initrd) = &images.initrd {
                blob(key::INITRD_SIZE, key::INITRD_DATA, &initrd.bytes);
            }
        }
        let file = |name: &str, bytes| fw_cfg::File { name: name.into(), bytes, writable: false };
        let ram =
            layout.e820().into_iter().filter(|(base, _, kind)| *kind == memory::range::RAM && *base >= SHADOW_END);
        let ram = [(0, layout.low_end)].into_iter().chain(ram.skip(1).map(|(base, size, _)| (base, size)));
        let e820 = ram.flat_map(|(base, size): (u64, u64)| {
            [&base.to_le_bytes()[..], &size.to_le_bytes(), &memory::range::RAM.to_le_bytes()].concat()
        });
        let mut files =
            vec![file("etc/e820", e820.collect()), file("etc/system-states", vec![128, 0, 0, 129, 128, 128])];
        if self.chipset == Chipset::Q35 && self.firmware.is_some() {
            files.extend(fw_cfg::smi::files());
        }
        files.extend(Tables::new(&self.described()).files());
        files.extend(Smbios::new(self.vcpus, &layout).files());
        FwCfg::new(items, files)
    }

    fn board(&self) -> BoardConfig {
        BoardConfig {
            chipset: self.chipset,
            vcpus: self.vcpus,
            layout: self.layout(),
            rtc_epoch: self.rtc_epoch,
            serial: [CONSOLE, SECOND_SERIAL],
            virtio: self.virtio.clone(),
            transport: self.transport,
            edu: self.edu,
            iommu: self.iommu,
            firmware_log: self.firmware_log,
            has_firmware: self.firmware.is_some(),
        }
    }
}

fn build_with(config: &PcConfig, images: &Images) -> Result<(Machine<X86>, Board), PcError> {
    let frequency = Frequency::new(config.hertz).ok_or(PcError::Frequency(config.hertz))?;
    if !(memory::MIN..=memory::MAX).contains(&config.memory) {
        return Err(PcError::Memory(config.memory));
    }
    if let Some(nodes) = config.nodes.filter(|n| !(1..=MAX_NODES.min(config.vcpus)).contains(n)) {
        return Err(PcError::Nodes { nodes, vcpus: config.vcpus });
    }
    if config.iommu.is_some() && config.chipset != Chipset::Q35 {
        return Err(PcError::Iommu);
    }
    let mut world = World::new(frequency);
    let layout = config.layout();
    let board = board::build(&config.board(), config.fw_cfg(images), &mut world.bus)?;
    layout.add(&mut world.ram)?;
    world.ram.set_read_only(SHADOW, SHADOW_END - SHADOW, true).expect("the shadow is RAM");
    if config.firmware.is_none() {
        restart::add(&mut world.ram)?;
        smi::put(&mut world.ram, config.vcpus);
    }
    if let Some(shape) = &config.firmware {
        let (code, variables) = shape.bases();
        world.ram.add(code, shape.code)?;
        world.ram.set_read_only(code, shape.code, true).expect("it was added");
        if shape.variables != 0 {
            let bytes = images.variables.as_ref().map_or(Vec::new(), |f| f.bytes.clone());
            let flash = world.bus.add(Box::new(Flash::new(bytes)));
            world.bus.map_memory(variables, shape.variables, flash);
        }
    }
    let model = CpuModel::parse(&config.cpu)?;
    let cores = Cores::in_nodes(config.vcpus, config.nodes.unwrap_or(1));
    let processor = |id| {
        let mut arch = X86::reset(id).of_model(model, id, cores, config.seed);
        arch.extension = Slot::of_model(&model);
        if config.firmware.is_some() {
            // Firmware for this board knows one state save map, of whichever vendor the processor is.
            arch.smm.map = Vendor::Amd;
        } else {
            arch.set_up_mtrrs(layout.low_end);
            arch.smm.base = smi::base(id);
        }
        arch
    };
    let processors = (0..config.vcpus).map(processor).collect();
    let mut machine = Machine::new(world, processors, Schedule::new(config.quantum, config.seed));
    for id in 0..machine.vcpus.len() {
        let core = &mut machine.vcpus[id].core;
        reset_registers(&mut core.regs);
        // "First Instruction Executed".
        core.pc = 0xffff_fff0;
        core.regs[usize::from(RDX)] = model.signature().into();
        // The others wait for the first one to start them.
        if id != 0 {
            machine.vcpus[id].arch.waiting.waits_for_sipi();
            machine.set_waiting(id);
        }
    }
    Ok((machine, board))
}

/// Builds the machine without loading anything: for restoring a snapshot.
pub fn build_empty(config: &PcConfig) -> Result<(Machine<X86>, Board), PcError> {
    build_with(config, &Images::default())
}

/// Builds the machine and loads it.
pub fn build(config: &PcConfig, images: &Images) -> Result<Machine<X86>, PcError> {
    let (mut machine, _) = build_with(config, images)?;
    match (&config.firmware, &images.firmware) {
        (Some(shape), Some(code)) => put_firmware(&mut machine.world, shape, code),
        _ => {
            let entry = load(config, images, &mut machine.world)?;
            enter(&mut machine.vcpus[0], &entry);
            if entry.after_bios {
                let World { bus, ram, door, .. } = &mut machine.world;
                bios::leave(bus, ram, door);
                machine.vcpus[0].arch.apic.set_virtual_wire();
            }
        }
    }
    Ok(machine)
}

/// Firmware below 4 GiB, and its end below 1 MiB too.
fn put_firmware(world: &mut World, shape: &FirmwareShape, code: &File) {
    let mut put = |at, bytes: &[u8]| world.ram.program(at, bytes).expect("there is room for it");
    put(shape.bases().0, &code.bytes);
    let mut shadow = vec![0xff; (SHADOW_END - SHADOW) as usize];
    let seen = code.bytes.len().min(128 << 10);
    let from = shadow.len() - seen;
    shadow[from..].copy_from_slice(&code.bytes[code.bytes.len() - seen..]);
    put(SHADOW, &shadow);
}

/// The kernel, and all that firmware would have left for it.
fn load(config: &PcConfig, images: &Images, world: &mut World) -> Result<Entry, PcError> {
    let layout = config.layout();
    let (tables, smbios) = (Tables::new(&config.described()), Smbios::new(config.vcpus, &layout));
    let World { bus, ram, door, .. } = world;
    let (chipset, firmware) = (config.chipset, config.firmware_choice());
    let rsdp = Setup { bus, ram, door, chipset, layout, firmware }.run(&tables, &smbios);
    let software = Software {
        kernel: images.kernel.as_ref(),
        initrd: images.initrd.as_ref(),
        modules: &images.modules,
        arguments: &config.arguments,
        protocol: config.protocol,
        rsdp,
        seed: random_bytes(config.seed),
    };
    let mut loader = Loader::new(ram, layout);
    let entry = loader.load(&software)?;
    let loaded = loader.loaded();
    restart::leave(ram, &entry, &loaded, tables.waking_vector(setup::TABLES));
    Ok(entry)
}

const CODE_64: Attributes = Attributes(0xa09b);
const CODE_32: Attributes = Attributes(0xc09b);
const DATA: Attributes = Attributes(0xc093);
const REAL: Attributes = Attributes(0x93);
const REAL_CODE: Attributes = Attributes(0x9b);

/// Lets a processor begin where a loader says.
fn enter(vcpu: &mut Vcpu<X86>, entry: &Entry) {
    let (code, data) = entry.selectors;
    let arch = &mut vcpu.arch;
    arch.gdtr = Table { base: entry.gdt.0, limit: entry.gdt.1 };
    arch.idtr = Table { base: 0, limit: if matches!(entry.mode, Mode::Real { .. }) { 0xffff } else { 0 } };
    let flat = |selector, attributes| Segment { selector, base: 0, limit: u32::MAX, attributes };
    let of_8086 =
        |selector: u16, attributes| Segment { selector, base: u64::from(selector) << 4, limit: 0xffff, attributes };
    (arch.cr3, arch.cr4, arch.efer) = (0, 0, 0);
    let pc;
    match entry.mode {
        Mode::Real { cs, ip } => {
            arch.cr0 = cr0::ET;
            arch.segments = [of_8086(data, REAL); 6];
            arch.segments[segments::CS] = of_8086(cs, REAL_CODE);
            pc = (u64::from(cs) << 4) + u64::from(ip);
        }
        Mode::Protected32 { eip } => {
            arch.cr0 = cr0::PE | cr0::ET;
            arch.segments = [flat(data, DATA); 6];
            arch.segments[segments::CS] = flat(code, CODE_32);
            pc = eip.into();
        }
        Mode::Long64 { rip, cr3 } => {
            arch.cr0 = cr0::PE | cr0::ET | cr0::PG;
            arch.cr4 = cr4::PAE;
            arch.efer = efer::LME | efer::LMA;
            arch.cr3 = cr3;
            arch.segments = [flat(data, DATA); 6];
            arch.segments[segments::CS] = flat(code, CODE_64);
            pc = rip;
        }
    }
    vcpu.core.regs[..16].fill(0);
    let base = |s: usize| vcpu.arch.segments[s].base;
    let bases = [(FS_BASE, base(segments::FS)), (GS_BASE, base(segments::GS))];
    for (register, value) in entry.registers.iter().copied().chain(bases) {
        vcpu.core.regs[usize::from(register)] = value;
    }
    vcpu.core.pc = pc;
}
