//! What a host bridge puts below 1 MiB: ROM or the RAM that shadows it ("82441FX", Intel 290549-001, "PAM - Programmable
//! Attribute Map Registers"; the Q35 has them too).
//!
//! What reads see, ROM or RAM, lies in guest RAM at its place, read-only unless writes go there as well; the other of the two
//! is kept here, and they change places when the guest says so.

use emu_core::device::Access;
use emu_core::ram::Ram;
use serde::{Deserialize, Serialize};

use crate::platform::memory::{SHADOW, SHADOW_END};
use crate::platform::{low_bytes, write_bytes};

/// Number of PAM registers.
pub const REGISTERS: usize = 7;

/// "Read Enable": reads are of RAM.
const RE: u8 = 1;
/// "Write Enable": writes go to RAM.
const WE: u8 = 2;

/// Segments: base, size in bytes, PAM register, shift of its field.
const SEGMENTS: [(u64, u64, usize, u8); 13] = [
    (0xf_0000, 0x1_0000, 0, 4),
    (0xc_0000, 0x4000, 1, 0),
    (0xc_4000, 0x4000, 1, 4),
    (0xc_8000, 0x4000, 2, 0),
    (0xc_c000, 0x4000, 2, 4),
    (0xd_0000, 0x4000, 3, 0),
    (0xd_4000, 0x4000, 3, 4),
    (0xd_8000, 0x4000, 4, 0),
    (0xd_c000, 0x4000, 4, 4),
    (0xe_0000, 0x4000, 5, 0),
    (0xe_4000, 0x4000, 5, 4),
    (0xe_8000, 0x4000, 6, 0),
    (0xe_c000, 0x4000, 6, 4),
];

/// The shadow. At reset all reads are of ROM and writes are lost.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Shadow {
    /// RE and WE of each segment, as they are in force.
    fields: [u8; SEGMENTS.len()],
    /// What reads do not see; empty until something has changed places.
    hidden: Vec<u8>,
}

impl Default for Shadow {
    fn default() -> Self {
        Shadow { fields: [0; SEGMENTS.len()], hidden: Vec::new() }
    }
}

impl Shadow {
    fn hidden(&mut self) -> &mut [u8] {
        self.hidden.resize((SHADOW_END - SHADOW) as usize, 0);
        &mut self.hidden
    }

    /// The PAM registers hold this now.
    pub fn set(&mut self, registers: [u8; REGISTERS], ram: &mut Ram) {
        for (i, (base, size, register, shift)) in SEGMENTS.into_iter().enumerate() {
            let field = registers[register] >> shift & (RE | WE);
            let was = std::mem::replace(&mut self.fields[i], field);
            if field == was || !ram.contains(base, size) {
                continue;
            }
            if (field ^ was) & RE != 0 {
                let hidden = &mut self.hidden()[(base - SHADOW) as usize..][..size as usize];
                let mut seen = vec![0; size as usize];
                ram.read(base, &mut seen).expect("it is RAM");
                ram.program(base, hidden).expect("it is RAM");
                hidden.copy_from_slice(&seen);
            }
            ram.set_read_only(base, size, field != RE | WE).expect("it is RAM");
        }
    }

    /// A write that guest RAM has not taken. Where reads are of ROM and writes go to RAM, RAM takes it here.
    pub fn write(&mut self, address: u64, access: Access, value: u64) {
        let writes_ram = |at: u64| {
            let segment = SEGMENTS.iter().position(|(base, size, ..)| at.wrapping_sub(*base) < *size);
            segment.is_some_and(|i| self.fields[i] == WE)
        };
        if !writes_ram(address) {
            return;
        }
        let hidden = self.hidden();
        write_bytes(Access { offset: address - SHADOW, ..access }, value & low_bytes(access.size), |at, byte| {
            if let Some(place) = hidden.get_mut(at as usize) {
                *place = byte;
            }
        });
    }
}

/// Where the host bridge answers for ROM: base and size in bytes.
pub const ROM_WINDOW: (u64, u64) = (SHADOW, SHADOW_END - SHADOW);

#[cfg(test)]
mod tests {
    use super::*;

    fn ram() -> Ram {
        let mut ram = Ram::default();
        ram.add(SHADOW, SHADOW_END - SHADOW).unwrap();
        ram.program(0xf_0000, &[0x11]).unwrap();
        ram.program(0xc_4000, &[0x22]).unwrap();
        ram.set_read_only(SHADOW, SHADOW_END - SHADOW, true).unwrap();
        ram
    }

    /// Each of the four settings, as its table in the data sheet says.
    #[test]
    fn reads_and_writes_go_where_the_registers_say() {
        let (mut ram, mut s) = (ram(), Shadow::default());
        let one = Access { offset: 0, size: 1 };
        let set = |s: &mut Shadow, ram: &mut Ram, field: u8| s.set([field << 4, 0, 0, 0, 0, 0, 0], ram);
        let write = |s: &mut Shadow, ram: &mut Ram, value: u64| {
            if ram.store(0xf_0000, 1, value).is_err() {
                s.write(0xf_0000, one, value);
            }
        };
        write(&mut s, &mut ram, 1);
        assert_eq!(ram.load(0xf_0000, 1), Ok(0x11), "ROM, and writes are lost");
        set(&mut s, &mut ram, WE);
        write(&mut s, &mut ram, 2);
        assert_eq!(ram.load(0xf_0000, 1), Ok(0x11), "ROM, and writes go to RAM");
        set(&mut s, &mut ram, RE);
        write(&mut s, &mut ram, 3);
        assert_eq!(ram.load(0xf_0000, 1), Ok(2), "RAM, write-protected");
        set(&mut s, &mut ram, RE | WE);
        write(&mut s, &mut ram, 4);
        assert_eq!(ram.load(0xf_0000, 1), Ok(4), "RAM");
        set(&mut s, &mut ram, 0);
        assert_eq!((ram.load(0xf_0000, 1), ram.load(0xc_4000, 1)), (Ok(0x11), Ok(0x22)));
        s.set([0, 0x30, 0, 0, 0, 0, 0], &mut ram);
        assert!(ram.store(0xc_4000, 1, 5).is_ok() && ram.store(0xc_0000, 1, 5).is_err());
        set(&mut s, &mut ram, RE | WE);
        assert_eq!((ram.load(0xf_0000, 1), ram.load(0xc_4000, 1)), (Ok(4), Ok(0x22)), "nothing is lost");
    }

    #[test]
    fn segments_cover_the_shadow_once() {
        let mut segments = SEGMENTS.to_vec();
        segments.sort();
        let end = segments.iter().fold(SHADOW, |at, (base, size, ..)| {
            assert_eq!(at, *base);
            at + size
        });
        assert_eq!(end, SHADOW_END);
    }
}
