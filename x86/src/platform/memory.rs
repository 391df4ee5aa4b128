//! Where a PC's RAM lies: below 1 MiB with the holes that the IBM PC left, up to the hole for devices below 4 GiB, and on
//! from 4 GiB.

use emu_core::ram::{Ram, RamError};

use super::pci::chipset::Chipset;

/// End of the RAM that real-mode programs see. Video memory would follow, and system management RAM lies behind it.
pub const BASE_END: u64 = 0xa_0000;
/// The extended BIOS data area: the last KiB of base memory.
pub const EBDA: u64 = 0x9_fc00;
/// Where option ROMs and the BIOS are shadowed by RAM.
pub const SHADOW: u64 = 0xc_0000;
/// End of the shadow, and start of extended memory.
pub const SHADOW_END: u64 = 0x10_0000;
/// End of the 32-bit addresses.
pub const FOUR_GIB: u64 = 1 << 32;
/// Where Q35's enhanced configuration space lies, unless firmware moves it.
pub const ECAM: u64 = 0xb000_0000;
/// Size in bytes of the enhanced configuration space.
pub const ECAM_SIZE: u64 = 256 << 20;
/// Where the devices below 4 GiB begin that have fixed places: the I/O APIC is the first.
pub const FIXED: u64 = 0xfec0_0000;
/// Base of system management RAM in guest RAM, beyond all addresses that a guest can form. What a processor in system
/// management mode accesses at [`BASE_END`] up to [`SHADOW`] lies here at the same offset.
pub const SMRAM: u64 = 1 << 56;
/// Size of system management RAM in bytes.
pub const SMRAM_SIZE: u64 = SHADOW - BASE_END;
/// The least RAM that a PC has, in bytes.
pub const MIN: u64 = 2 << 20;
/// The most RAM that a PC has here, in bytes.
pub const MAX: u64 = 1 << 40;

/// RAM of a machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Layout {
    /// End of the RAM below 4 GiB.
    pub low_end: u64,
    /// End of the RAM above 4 GiB; 4 GiB where there is none.
    pub high_end: u64,
    /// Where the enhanced configuration space lies without firmware, if there is one.
    pub ecam: Option<u64>,
}

/// Types of ranges, as in E820 ("ACPI Specification 6.5", "Address Range Types").
pub mod range {
    /// RAM.
    pub const RAM: u32 = 1;
    /// Not to be used.
    pub const RESERVED: u32 = 2;
    /// RAM with ACPI tables.
    pub const ACPI: u32 = 3;
}

impl Layout {
    /// How `size` bytes of RAM are split. The hole below 4 GiB begins where QEMU's machines have it, which firmware relies
    /// on: at 3.5 GiB or, with more RAM than fits below, 3 GiB (i440FX); at 2.75 or 2 GiB (Q35, whose enhanced configuration
    /// space lies there too).
    pub fn new(chipset: Chipset, size: u64) -> Self {
        let (limit, split, ecam) = match chipset {
            Chipset::I440Fx => (0xe000_0000, 0xc000_0000, None),
            Chipset::Q35 => (ECAM, 0x8000_0000, Some(ECAM)),
        };
        let low_end = if size < limit { size } else { split };
        Layout { low_end, high_end: FOUR_GIB + (size - low_end), ecam }
    }

    /// Bytes above 4 GiB.
    pub fn high(&self) -> u64 {
        self.high_end - FOUR_GIB
    }

    /// Adds the regions to a machine's RAM, system management RAM and the shadow included.
    pub fn add(&self, ram: &mut Ram) -> Result<(), RamError> {
        ram.add(0, BASE_END)?;
        ram.add(SHADOW, self.low_end - SHADOW)?;
        ram.add(SMRAM, SMRAM_SIZE)?;
        if self.high() != 0 {
            ram.add(FOUR_GIB, self.high())?;
        }
        Ok(())
    }

    /// The memory map as a PC's firmware tells it: base and size in bytes, and type. "PCI Firmware Specification", "MCFG Table
    /// Description": the enhanced configuration space is reserved.
    pub fn e820(&self) -> Vec<(u64, u64, u32)> {
        let mut map = vec![
            (0, EBDA, range::RAM),
            (EBDA, BASE_END - EBDA, range::RESERVED),
            (0xe_0000, SHADOW_END - 0xe_0000, range::RESERVED),
            (SHADOW_END, self.low_end - SHADOW_END, range::RAM),
        ];
        map.extend(self.ecam.map(|base| (base, ECAM_SIZE, range::RESERVED)));
        if self.high() != 0 {
            map.push((FOUR_GIB, self.high(), range::RAM));
        }
        map
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_ram_is_there_and_leaves_the_holes() {
        for chipset in [Chipset::I440Fx, Chipset::Q35] {
            for mib in [2, 512, 2815, 2816, 3583, 3584, 4096, 70_000] {
                let layout = Layout::new(chipset, mib << 20);
                assert_eq!(layout.low_end + layout.high(), mib << 20, "{mib}");
                assert!(layout.low_end <= 0xe000_0000 && layout.low_end >= 2 << 20);
                let e820 = layout.e820();
                assert!(e820.windows(2).all(|w| w[0].0 + w[0].1 <= w[1].0), "ascending, and none overlaps");
                let ram: u64 = e820.iter().filter(|r| r.2 == range::RAM).map(|r| r.1).sum();
                assert_eq!(ram, (mib << 20) - (SHADOW_END - EBDA), "{mib}");
            }
        }
        let mut ram = Ram::default();
        Layout::new(Chipset::Q35, 64 << 20).add(&mut ram).unwrap();
        for (at, is_ram) in
            [(0x9_ffff, true), (0xa_0000, false), (0xc_0000, true), (0x3ff_ffff, true), (0x400_0000, false)]
        {
            assert_eq!(ram.contains(at, 1), is_ram, "{at:#x}");
        }
    }
}
