//! "System Management BIOS (SMBIOS) Reference Specification", version 3.0: what the machine is, as its firmware would tell.

use super::fw_cfg::File;
use super::memory::Layout;

/// Size in bytes of the 64-bit entry point.
const ENTRY_3: usize = 0x18;
/// Size in bytes of the 32-bit entry point.
const ENTRY_2: usize = 0x1f;
/// Both entry points are looked for on multiples of this.
const ALIGNMENT: usize = 16;

/// The structures.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Smbios {
    structures: Vec<u8>,
    count: u16,
    largest: u16,
}

impl Smbios {
    fn add(&mut self, kind: u8, handle: u16, fields: &[u8], strings: &[&str]) {
        let start = self.structures.len();
        self.structures.extend([kind, 4 + fields.len() as u8]);
        self.structures.extend(handle.to_le_bytes());
        self.structures.extend(fields);
        for s in strings {
            self.structures.extend(s.as_bytes());
            self.structures.push(0);
        }
        if strings.is_empty() {
            self.structures.push(0);
        }
        self.structures.push(0);
        self.count += 1;
        self.largest = self.largest.max((self.structures.len() - start) as u16);
    }

    /// The structures of a machine.
    pub fn new(vcpus: u32, layout: &Layout) -> Self {
        let mut s = Smbios { structures: Vec::new(), count: 0, largest: 0 };
        let maker = "Undervisor";
        // BIOS Information: characteristics are "not supported", and "virtual machine".
        let mut bios = vec![1, 2, 0, 0xe8, 3, 0];
        bios.extend(8u64.to_le_bytes());
        bios.extend([0, 0x14, 0, 0, 0xff, 0xff]);
        s.add(0, 0, &bios, &[maker, "1", "01/01/2020"][..2]);
        // System Information: no UUID, woken by the power switch.
        let mut system = vec![1, 2, 3, 0];
        system.extend([0; 16]);
        system.extend([6, 0, 0]);
        s.add(1, 0x100, &system, &[maker, "PC", "1"]);
        // System Enclosure: other, states unknown.
        let mut chassis = vec![1, 1, 0, 0, 0, 3, 3, 3, 2];
        chassis.extend([0; 4]);
        chassis.extend([0, 0, 0, 0, 0]);
        s.add(3, 0x300, &chassis, &[maker]);
        for n in 0..vcpus.min(255) as u16 {
            let mut processor = vec![1, 3, 1, 2];
            processor.extend([0; 8]);
            processor.extend([3, 0]);
            processor.extend([0; 6]);
            processor.extend([0x41, 1]);
            processor.extend([0xff; 6]);
            processor.extend([0, 0, 0, 1, 1, 1]);
            processor.extend(4u16.to_le_bytes());
            processor.extend(1u16.to_le_bytes());
            s.add(4, 0x400 + n, &processor, &["CPU", maker]);
        }
        // Physical Memory Array, Memory Device, mapped addresses.
        let total = layout.low_end + layout.high();
        let mut array = vec![1, 3, 3];
        array.extend(0x8000_0000u32.to_le_bytes());
        array.extend(0xfffeu16.to_le_bytes());
        array.extend(1u16.to_le_bytes());
        array.extend(total.to_le_bytes());
        s.add(16, 0x1000, &array, &[]);
        let mut module = 0x1000u16.to_le_bytes().to_vec();
        module.extend([0xfe, 0xff, 0xff, 0xff, 0xff, 0xff]);
        module.extend(0x7fffu16.to_le_bytes());
        module.extend([9, 0, 1, 0, 7, 2, 0, 0, 0, 2, 0, 0, 0, 0]);
        module.extend(((total >> 20) as u32).to_le_bytes());
        module.extend([0; 8]);
        s.add(17, 0x1100, &module, &["DIMM 0", maker]);
        for (n, (base, end)) in (0..).zip([(0, layout.low_end), (1 << 32, layout.high_end)]) {
            if base != end {
                let mut mapped = [0xff; 8].to_vec();
                mapped.extend(0x1000u16.to_le_bytes());
                mapped.push(1);
                [base, end - 1].iter().for_each(|w: &u64| mapped.extend(w.to_le_bytes()));
                s.add(19, 0x1300 + n, &mapped, &[]);
            }
        }
        s.add(32, 0x2000, &[0; 7], &[]);
        s.add(127, 0x7f00, &[], &[]);
        s
    }

    /// "64-bit Entry Point" for structures at an address.
    fn entry_3(&self, structures: u64) -> Vec<u8> {
        let mut entry = b"_SM3_\0".to_vec();
        entry.extend([ENTRY_3 as u8, 3, 0, 0, 1, 0]);
        entry.extend((self.structures.len() as u32).to_le_bytes());
        entry.extend(structures.to_le_bytes());
        entry[5] = sum(&entry);
        entry
    }

    /// "32-bit Entry Point".
    fn entry_2(&self, structures: u32) -> Vec<u8> {
        let mut entry = b"_SM_\0".to_vec();
        entry.extend([ENTRY_2 as u8, 2, 8]);
        entry.extend(self.largest.to_le_bytes());
        entry.extend([0; 6]);
        entry.extend(b"_DMI_\0");
        entry.extend((self.structures.len() as u16).to_le_bytes());
        entry.extend(structures.to_le_bytes());
        entry.extend(self.count.to_le_bytes());
        entry.push(0x28);
        entry[0x15] = sum(&entry[0x10..]);
        entry[4] = sum(&entry);
        entry
    }

    /// Both entry points and the structures, as they lie at `base`.
    pub fn linked(&self, base: u64) -> Vec<u8> {
        let second = ENTRY_3.next_multiple_of(ALIGNMENT);
        let structures = second + ENTRY_2.next_multiple_of(ALIGNMENT);
        let mut bytes = self.entry_3(base + structures as u64);
        bytes.resize(second, 0);
        bytes.extend(self.entry_2((base as u32).wrapping_add(structures as u32)));
        bytes.resize(structures, 0);
        bytes.extend(&self.structures);
        bytes
    }

    /// The files from which firmware takes the structures.
    pub fn files(&self) -> Vec<File> {
        let file = |name: &str, bytes| File { name: name.into(), bytes, writable: false };
        vec![
            file("etc/smbios/smbios-anchor", self.entry_2(0)),
            file("etc/smbios/smbios-tables", self.structures.clone()),
        ]
    }
}

/// What makes all bytes add up to 0.
fn sum(bytes: &[u8]) -> u8 {
    bytes.iter().fold(0u8, |sum, b| sum.wrapping_sub(*b))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::platform::pci::chipset::Chipset;

    /// Follows both entry points through all structures.
    #[test]
    fn every_structure_is_found() {
        const BASE: usize = 0xf_0000;
        let s = Smbios::new(2, &Layout::new(Chipset::Q35, 4 << 30));
        let bytes = s.linked(BASE as u64);
        let add = |bytes: &[u8]| bytes.iter().fold(0u8, |s, b| s.wrapping_add(*b));
        let word = |at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap()) as usize;
        assert_eq!((&bytes[..5], add(&bytes[..ENTRY_3])), (&b"_SM3_"[..], 0));
        let old = &bytes[32..32 + ENTRY_2];
        assert_eq!((&old[..4], add(old), add(&old[16..])), (&b"_SM_"[..], 0, 0));
        let at = word(16) - BASE;
        assert_eq!(word(32 + 0x18) - BASE, at);
        let mut rest = &bytes[at..];
        let mut kinds = Vec::new();
        while !rest.is_empty() {
            kinds.push(rest[0]);
            let strings = &rest[usize::from(rest[1])..];
            let end = strings.windows(2).position(|w| w == [0, 0]).unwrap() + 2;
            rest = &strings[end..];
        }
        assert_eq!(kinds, [0, 1, 3, 4, 4, 16, 17, 19, 19, 32, 127]);
        assert_eq!(usize::from(s.count), kinds.len());
        // "Processor Information", version 2.6: 42 bytes; "Memory Device", version 2.8: 40.
        let lengths: Vec<_> = [4u8, 17]
            .iter()
            .map(|k| s.structures.windows(2).any(|w| w == [*k, if *k == 4 { 42 } else { 40 }]))
            .collect();
        assert_eq!(lengths, [true, true]);
    }
}
