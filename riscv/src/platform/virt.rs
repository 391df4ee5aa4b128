//! The `riscv64-virt` machine: a board, harts, and what is loaded into its RAM.
//!
//! ```text
//! 0x8000_0000 firmware, or an ELF kernel's own addresses
//! 0x8020_0000 Linux Image (its text_offset)
//! ...
//!             initial RAM disk
//! end of RAM  firmware information, device tree
//! ```

use std::io::Read;

use emu_core::bus::{BusCx, Space};
use emu_core::engine::World;
pub use emu_core::file::File;
use emu_core::machine::{DEFAULT_QUANTUM, Machine, Schedule};
use emu_core::ram::RamError;
use emu_core::time::{DEFAULT_HERTZ, Frequency};
use object::Object;
use serde::{Deserialize, Serialize};

use super::board::{self, Board, BoardConfig, BoardError, IrqChip, VirtioDevice};
use super::device_tree::device_tree;
use crate::cpu::{CACHE_BLOCK, CpuConfig, Ext};
use crate::hart::{Priv, Riscv};
use crate::privileged::sbi;

/// The console's port of the door.
pub const CONSOLE: u32 = 0;

/// Everything that the machine is made from, but the contents of files.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct VirtConfig {
    /// The harts' CPU.
    pub cpu: CpuConfig,
    /// Number of harts.
    pub harts: u32,
    /// Bytes of RAM.
    pub memory: u64,
    /// How device interrupts reach harts.
    pub irqchip: IrqChip,
    /// Devices in virtio slots.
    pub virtio: Vec<VirtioDevice>,
    /// The kernel's command line.
    pub bootargs: String,
    /// Varies the interleaving of harts; 0 for equal turns. Also seeds the guest's entropy.
    pub seed: u64,
    /// A turn, in instructions.
    pub quantum: u64,
    /// The nominal frequency in hertz.
    pub hertz: u64,
    /// Seconds since 1970 at power-on.
    pub rtc_epoch: u64,
}

impl Default for VirtConfig {
    fn default() -> Self {
        VirtConfig {
            cpu: CpuConfig::rv64(),
            harts: 1,
            memory: 512 << 20,
            irqchip: IrqChip::Plic,
            virtio: Vec::new(),
            bootargs: String::new(),
            seed: 0,
            quantum: DEFAULT_QUANTUM,
            hertz: DEFAULT_HERTZ,
            rtc_epoch: 1_700_000_000,
        }
    }
}

/// Who starts the kernel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Firmware {
    /// Nobody: all harts begin at the kernel in M-mode.
    None,
    /// The built-in SBI: hart 0 begins at the kernel in supervisor mode.
    BuiltIn,
    /// OpenSBI or another: ELF or raw. All harts begin there in M-mode.
    File(File),
}

/// What is loaded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Images {
    /// Who starts the kernel.
    pub firmware: Firmware,
    /// Linux Image, Image.gz, ELF, or raw with [`Firmware::None`].
    pub kernel: Option<File>,
    /// The initial RAM disk.
    pub initrd: Option<File>,
}

/// A machine that cannot be.
#[derive(Debug, thiserror::Error)]
pub enum VirtError {
    /// The board's word.
    #[error(transparent)]
    Board(#[from] BoardError),
    /// RAM of that size.
    #[error(transparent)]
    Ram(#[from] RamError),
    /// Frequency out of range.
    #[error("{0} Hz: the nominal frequency is 1 kHz to 1 THz")]
    Frequency(u64),
    /// A file is not what it should be.
    #[error("{name}: {found}; expected {expected}")]
    File {
        /// The file.
        name: String,
        /// What it is.
        found: String,
        /// What it should be.
        expected: &'static str,
    },
    /// A file does not fit into RAM.
    #[error("{name}: {size} bytes at {at:#x} do not fit in {memory} MiB of RAM at {base:#x}", base = board::RAM)]
    TooLarge {
        /// The file.
        name: String,
        /// Its size in bytes.
        size: u64,
        /// Where it would go.
        at: u64,
        /// RAM in MiB.
        memory: u64,
    },
    /// Two things lie at the same place.
    #[error("{0} and {1} overlap in RAM: give the machine more memory")]
    Overlap(String, String),
}

/// Where the Linux kernel goes: the first 2 MiB are the firmware's.
const KERNEL: u64 = board::RAM + 0x20_0000;

/// `riscv,isa-extensions`: names in the order of the specification's naming chapter.
pub fn isa_extensions(cpu: &CpuConfig) -> Vec<String> {
    const LETTERS: &[Ext] = &[Ext::I, Ext::M, Ext::A, Ext::F, Ext::D, Ext::C, Ext::H];
    let mut names: Vec<String> = LETTERS.iter().filter(|e| cpu.has(**e)).map(|e| e.name().to_owned()).collect();
    let mut rest: Vec<&str> = Ext::ALL
        .iter()
        .filter(|e| cpu.has(**e) && !LETTERS.contains(e))
        .map(|e| e.name())
        .filter(|n| n.len() > 1 && !["sv39", "sv48", "sv57", "smpmp"].contains(n))
        .collect();
    rest.push("zicsr");
    // Z before S; among Z by the letter that follows, in the order of the single letters.
    let rank = |n: &str| {
        let second = n.as_bytes()[1];
        let order = "imafdqlcbkjtpvnh".bytes().position(|b| b == second).unwrap_or(99);
        (n.starts_with('s'), if n.starts_with('s') { 0 } else { order })
    };
    rest.sort_by_key(|n| (rank(n), *n));
    names.extend(rest.into_iter().map(String::from));
    names
}

/// `riscv,isa`.
pub fn isa_string(cpu: &CpuConfig) -> String {
    let mut text = String::from("rv64");
    for name in isa_extensions(cpu) {
        if name.len() > 1 {
            text.push('_');
        }
        text.push_str(&name);
    }
    text
}

fn board_config(config: &VirtConfig) -> BoardConfig {
    let mmu = if config.cpu.has(Ext::Sv57) {
        "riscv,sv57"
    } else if config.cpu.has(Ext::Sv48) {
        "riscv,sv48"
    } else if config.cpu.has(Ext::Sv39) {
        "riscv,sv39"
    } else {
        "riscv,none"
    };
    let mut rng_seed = [0; 32];
    let mut state = config.seed ^ 0x756e_6465_7276_6973;
    for chunk in rng_seed.chunks_mut(8) {
        state = state.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(0x1405_7b7e_f767_814f);
        chunk.copy_from_slice(&(state ^ state >> 29).to_le_bytes());
    }
    BoardConfig {
        harts: config.harts,
        ram_size: config.memory,
        irqchip: config.irqchip,
        sswi: false,
        isa: isa_string(&config.cpu),
        isa_extensions: isa_extensions(&config.cpu),
        mmu: mmu.into(),
        cache_block: CACHE_BLOCK as u32,
        bootargs: config.bootargs.clone(),
        initrd: None,
        rng_seed,
        rtc_epoch: config.rtc_epoch,
        uart_port: CONSOLE,
        virtio: config.virtio.clone(),
        for_supervisor: false,
    }
}

/// What has been put into RAM: name, first address, first address after it.
struct Loaded(Vec<(String, u64, u64)>);

/// Builds the machine without loading anything: for restoring a snapshot.
pub fn build_empty(config: &VirtConfig) -> Result<(Machine<Riscv>, Board), VirtError> {
    let frequency = Frequency::new(config.hertz).ok_or(VirtError::Frequency(config.hertz))?;
    let mut world = World::new(frequency);
    let board_config = board_config(config);
    board_config.check()?;
    world.ram.add(board::RAM, config.memory)?;
    let board = board::build(&board_config, &mut world.bus)?;
    let mut cpu = config.cpu;
    if let IrqChip::AplicImsic { guest_files } = config.irqchip {
        cpu.imsic = true;
        cpu.geilen = guest_files;
        cpu.identities = board::IMSIC_IDENTITIES;
    }
    let harts = (0..config.harts).map(|id| {
        cpu.seed = config.seed ^ u64::from(id);
        Riscv::with_id(cpu, id.into())
    });
    let machine = Machine::new(world, harts.collect(), Schedule::new(config.quantum, config.seed));
    Ok((machine, board))
}

/// Builds the machine and loads it.
pub fn build(config: &VirtConfig, images: &Images) -> Result<Machine<Riscv>, VirtError> {
    let (mut machine, _) = build_empty(config)?;
    let mut loaded = Loaded(Vec::new());
    let firmware = match &images.firmware {
        Firmware::File(file) => Some(loaded.load_code(&mut machine, config, file, board::RAM, true)?),
        _ => None,
    };
    let raw_allowed = images.firmware == Firmware::None;
    let at = if raw_allowed { board::RAM } else { KERNEL };
    let kernel = match &images.kernel {
        Some(file) => Some(loaded.load_code(&mut machine, config, file, at, raw_allowed)?),
        None => None,
    };

    // From the end of RAM down: device tree, firmware information, initial RAM disk.
    let mut board_config = board_config(config);
    board_config.for_supervisor = images.firmware == Firmware::BuiltIn;
    let end = board::RAM + config.memory.min(3 << 30);
    let initrd_size = images.initrd.as_ref().map_or(0, |f| f.bytes.len() as u64);
    board_config.initrd = images.initrd.as_ref().map(|_| (0, initrd_size));
    let room = device_tree(&board_config)?.len() as u64;
    let dtb_at = end.saturating_sub(room) & !0x1f_ffff;
    let info_at = dtb_at.saturating_sub(0x1000);
    if let Some(initrd) = &images.initrd {
        let first = info_at.saturating_sub(initrd_size) & !0xfff;
        if initrd.bytes.is_empty() {
            return Err(empty(&initrd.name, "an initial RAM disk"));
        }
        if first < board::RAM {
            return Err(loaded.too_large(config, &initrd.name, initrd_size, first));
        }
        loaded.put(&mut machine, config, &initrd.name, first, &initrd.bytes)?;
        board_config.initrd = Some((first, first + initrd_size));
    }
    let dtb = device_tree(&board_config)?;
    loaded.put(&mut machine, config, "the device tree", dtb_at, &dtb)?;

    let entry = kernel.unwrap_or(KERNEL);
    // OpenSBI's struct fw_dynamic_info, version 2.
    let info: [u64; 6] = [0x4942_534f, 2, if kernel.is_some() { entry } else { 0 }, 1, 0, 0];
    let bytes: Vec<u8> = info.iter().flat_map(|w| w.to_le_bytes()).collect();
    loaded.put(&mut machine, config, "the firmware's information", info_at, &bytes)?;

    if board_config.for_supervisor {
        let World { bus, ram, door, .. } = &mut machine.world;
        board::delegate_interrupts(&board_config, &mut |address, value| {
            let cx = BusCx { now: 0, ram, door };
            bus.write(Space::Memory, address, 4, value.into(), cx).expect("the APLIC is there");
        });
    }
    machine.world.shared = sbi::shared_words(config.harts);
    for id in 0..machine.vcpus.len() {
        let vcpu = &mut machine.vcpus[id];
        vcpu.core.regs[10] = id as u64;
        vcpu.core.regs[11] = dtb_at;
        vcpu.core.regs[12] = info_at;
        vcpu.core.pc = firmware.unwrap_or(entry);
        if images.firmware == Firmware::BuiltIn {
            sbi::enter(&mut vcpu.arch, id == 0);
            vcpu.core.regs[12] = 0;
            if id != 0 {
                machine.set_waiting(id);
            }
        }
    }
    debug_assert!(machine.vcpus[0].arch.mode == Priv::Machine || images.firmware == Firmware::BuiltIn);
    Ok(machine)
}

fn empty(name: &str, expected: &'static str) -> VirtError {
    VirtError::File { name: name.into(), found: "it is empty".into(), expected }
}

const CODE: &str = "a RISC-V Linux Image, Image.gz, or 64-bit RISC-V ELF file";

impl Loaded {
    fn too_large(&self, config: &VirtConfig, name: &str, size: u64, at: u64) -> VirtError {
        VirtError::TooLarge { name: name.into(), size, at, memory: config.memory >> 20 }
    }

    fn put(
        &mut self,
        machine: &mut Machine<Riscv>,
        config: &VirtConfig,
        name: &str,
        at: u64,
        bytes: &[u8],
    ) -> Result<(), VirtError> {
        self.claim(config, name, at, bytes.len() as u64)?;
        machine.world.ram.write(at, bytes).expect("it was checked to be RAM");
        Ok(())
    }

    /// Makes sure that a range is RAM, and nothing else's.
    fn claim(&mut self, config: &VirtConfig, name: &str, at: u64, size: u64) -> Result<(), VirtError> {
        let end = at.saturating_add(size);
        if at < board::RAM || end > board::RAM + config.memory {
            return Err(self.too_large(config, name, size, at));
        }
        if let Some((other, ..)) = self.0.iter().find(|(n, a, b)| *a < end && at < *b && n != name) {
            return Err(VirtError::Overlap(name.into(), other.clone()));
        }
        self.0.push((name.into(), at, end));
        Ok(())
    }

    /// Loads firmware or a kernel; returns its entry.
    fn load_code(
        &mut self,
        machine: &mut Machine<Riscv>,
        config: &VirtConfig,
        file: &File,
        at: u64,
        raw_allowed: bool,
    ) -> Result<u64, VirtError> {
        let wrong = |found: String| VirtError::File { name: file.name.clone(), found, expected: CODE };
        let unpacked;
        let bytes = if file.bytes.starts_with(&[0x1f, 0x8b]) {
            let mut out = Vec::new();
            flate2::read::GzDecoder::new(&*file.bytes)
                .read_to_end(&mut out)
                .map_err(|e| wrong(format!("its gzip data is broken ({e})")))?;
            unpacked = out;
            &unpacked
        } else {
            &file.bytes
        };
        if bytes.is_empty() {
            return Err(empty(&file.name, CODE));
        }
        if bytes.starts_with(b"\x7fELF") {
            return self.load_elf(machine, config, file, bytes);
        }
        let word = |offset: usize| bytes.get(offset..offset + 8).map(|b| u64::from_le_bytes(b.try_into().expect("8")));
        match bytes.get(0x38..0x3c) {
            // Linux Documentation/arch/riscv/boot-image-header.rst
            Some(b"RSC\x05") => {
                let (text_offset, size) = (word(8).unwrap_or(0), word(16).unwrap_or(0));
                let at = if at == board::RAM { at } else { board::RAM + text_offset.max(0x20_0000) };
                self.claim(config, &file.name, at, size.max(bytes.len() as u64))?;
                self.put(machine, config, &file.name, at, bytes)?;
                return Ok(at);
            }
            Some(b"ARM\x64") => return Err(wrong("an arm64 Linux Image".into())),
            _ => {}
        }
        if bytes.get(0x202..0x206) == Some(b"HdrS") {
            return Err(wrong("an x86 Linux bzImage".into()));
        }
        if bytes.get(4..8) == Some(b"zimg") {
            return Err(wrong("an EFI zboot image".into()));
        }
        if !raw_allowed {
            return Err(wrong("neither of these".into()));
        }
        self.put(machine, config, &file.name, at, bytes)?;
        Ok(at)
    }

    fn load_elf(
        &mut self,
        machine: &mut Machine<Riscv>,
        config: &VirtConfig,
        file: &File,
        bytes: &[u8],
    ) -> Result<u64, VirtError> {
        let wrong = |found: String| VirtError::File { name: file.name.clone(), found, expected: CODE };
        let elf = object::File::parse(bytes).map_err(|e| wrong(format!("a broken ELF file ({e})")))?;
        if elf.architecture() != object::Architecture::Riscv64 {
            return Err(wrong(format!("an ELF file for {:?}", elf.architecture())));
        }
        let mut entry = elf.entry();
        for segment in physical_segments(bytes).ok_or_else(|| wrong("a broken ELF file".into()))? {
            let data = bytes
                .get(segment.offset as usize..)
                .and_then(|b| b.get(..segment.file_size as usize))
                .ok_or_else(|| wrong("a truncated ELF file".into()))?;
            self.claim(config, &file.name, segment.physical, segment.size)?;
            machine.world.ram.write(segment.physical, data).expect("it was claimed");
            // The entry is a virtual address; harts begin with translation off.
            if (segment.virtual_address..segment.virtual_address.saturating_add(segment.size)).contains(&elf.entry()) {
                entry = elf.entry() - segment.virtual_address + segment.physical;
            }
        }
        Ok(entry)
    }
}

struct Segment {
    offset: u64,
    virtual_address: u64,
    physical: u64,
    file_size: u64,
    size: u64,
}

/// PT_LOAD segments with their physical addresses (ELF-64 Object File Format, "Program Header").
fn physical_segments(bytes: &[u8]) -> Option<Vec<Segment>> {
    use object::elf::{FileHeader64, PT_LOAD};
    use object::read::elf::{FileHeader, ProgramHeader};
    let header = FileHeader64::<object::Endianness>::parse(bytes).ok()?;
    let endian = header.endian().ok()?;
    let headers = header.program_headers(endian, bytes).ok()?;
    let loads = headers.iter().filter(|p| p.p_type(endian) == PT_LOAD && p.p_memsz(endian) != 0);
    Some(
        loads
            .map(|p| Segment {
                offset: p.p_offset(endian),
                virtual_address: p.p_vaddr(endian),
                physical: p.p_paddr(endian),
                file_size: p.p_filesz(endian),
                size: p.p_memsz(endian).max(p.p_filesz(endian)),
            })
            .collect(),
    )
}
