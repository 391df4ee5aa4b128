//! What processors find at their reset vector where there is no firmware ("Software Initialization Code Required", "First Instruction
//! Executed"): a small program of our own at F000:FFF0, which does what a BIOS does when a processor begins anew with memory as it was.
//!
//! It looks at the shutdown status byte of the clock's RAM ([`STATUS`]). By that the PC has slept, and the program goes where the FACS says
//! ("Firmware ACPI Control Structure", waking vector); or somebody has left an address at 40:67; or the machine starts again. What was loaded
//! before the start is kept beyond all addresses that a guest can form: a write to [`PORT`] brings it back to its places, and the kernel is
//! entered as it was. If that is too much, or it was entered in another mode than 32-bit protected mode, the whole PC is reset instead.

use emu_core::device::{Access, Device, DeviceCx};
use emu_core::ram::{Ram, RamError};

use super::Ports;
use super::loader::{Entry, Mode};
use super::memory::{FOUR_GIB, SHADOW_END};

/// Brings back what was loaded.
pub const PORT: Ports = Ports { port: 0x520, size: 1, offset: 0 };
/// "Shutdown status byte" of an IBM AT.
pub const STATUS: u8 = 0xf;
/// A value of it: the PC wakes from suspend to RAM, as firmware for QEMU knows it.
pub const WAKES: u8 = 0xfe;

/// Where it is kept: a number of ranges; first address and size of each; their bytes.
const KEPT: u64 = 1 << 58;
const KEPT_SIZE: u64 = 16 << 20;
/// The end of the address space that processors begin in.
const ROM: u64 = FOUR_GIB - ROM_SIZE;
const ROM_SIZE: u64 = 0x1_0000;
/// The BIOS's segment, and the program in it.
const SEGMENT: u64 = SHADOW_END - ROM_SIZE;
const OFFSET: u64 = 0xf800;
const VECTOR: u64 = 0xfff0;

/// The RAM that this takes.
pub fn add(ram: &mut Ram) -> Result<(), RamError> {
    ram.add(ROM, ROM_SIZE)?;
    ram.set_read_only(ROM, ROM_SIZE, true).expect("it was added");
    ram.add(KEPT, KEPT_SIZE)
}

/// Keeps what was loaded; false if it is too much.
fn keep(ram: &mut Ram, ranges: &[(u64, u64)]) -> bool {
    let mut at = KEPT + 8 + 16 * ranges.len() as u64;
    let size: u64 = ranges.iter().map(|(_, size)| size).sum();
    if at + size > KEPT + KEPT_SIZE {
        return false;
    }
    let header = ranges.iter().flat_map(|(base, size)| [*base, *size]);
    let header: Vec<u8> = [ranges.len() as u64].into_iter().chain(header).flat_map(u64::to_le_bytes).collect();
    ram.write(KEPT, &header).expect("there is room");
    for (base, size) in ranges {
        let mut bytes = vec![0; *size as usize];
        ram.read(*base, &mut bytes).expect("it was loaded there");
        ram.write(at, &bytes).expect("there is room");
        at += size;
    }
    true
}

/// Writes the program. `waking` is the address of the FACS's waking vector. The shadow is RAM now.
pub fn leave(ram: &mut Ram, entry: &Entry, loaded: &[(u64, u64)], waking: u64) {
    let again = match entry.mode {
        Mode::Protected32 { eip } if keep(ram, loaded) => Some(eip),
        _ => None,
    };
    let jump = [END_OF_INTERRUPT, JUMP].concat();
    let mut program = [STATUS_TO_AH, &unless(WAKES, &wake(waking)), &unless(5, &jump), &unless(0xa, JUMP)].concat();
    let start = again.map_or(RESET.to_vec(), |eip| enter(entry, eip, OFFSET + program.len() as u64));
    program.extend(start);
    let [offset, segment] = [OFFSET, SEGMENT >> 4].map(|word| (word as u16).to_le_bytes());
    let far_jump = [&[0xea], &offset[..], &segment].concat();
    for base in [SEGMENT, ROM] {
        for (at, bytes) in [(OFFSET, &program), (VECTOR, &far_jump)] {
            ram.program(base + at, bytes).expect("it is RAM");
        }
    }
}

/// CLI; the status byte goes to AH, and 0 to its place, to BX and to DS.
const STATUS_TO_AH: &[u8] = &[
    0xfa, 0xb0, STATUS, 0xe6, 0x70, 0xe4, 0x71, 0x88, 0xc4, 0xb0, STATUS, 0xe6, 0x70, 0xb0, 0x00, 0xe6, 0x71, 0x31,
    0xdb, 0x8e, 0xdb,
];
/// MOV AL, 20h; OUT A0h, AL; OUT 20h, AL.
const END_OF_INTERRUPT: &[u8] = &[0xb0, 0x20, 0xe6, 0xa0, 0xe6, 0x20];
/// JMP FAR [0467h].
const JUMP: &[u8] = &[0xff, 0x2e, 0x67, 0x04];
/// MOV DX, CF9h; MOV AL, 2; OUT DX, AL; MOV AL, 6; OUT DX, AL; HLT.
const RESET: &[u8] = &[0xba, 0xf9, 0x0c, 0xb0, 0x02, 0xee, 0xb0, 0x06, 0xee, 0xf4];

/// CMP AH, status; JNE behind the code.
fn unless(status: u8, code: &[u8]) -> Vec<u8> {
    [&[0x80, 0xfc, status, 0x75, code.len() as u8], code].concat()
}

/// The vector to 40:67 as a segment and an offset below 16, and to there.
fn wake(waking: u64) -> Vec<u8> {
    let [segment, offset] = [waking >> 4 & 0xf000, waking & 0xffff].map(|word| (word as u16).to_le_bytes());
    let code: [&[u8]; 10] = [
        &[0xb8],
        &segment,
        &[0x8e, 0xd8, 0x66, 0xa1], // MOV AX, segment; MOV DS, AX; MOV EAX, [offset]
        &offset,
        &[0x8e, 0xdb, 0x66, 0x89, 0xc1], // MOV DS, BX; MOV ECX, EAX
        &[0x83, 0xe0, 0x0f],             // AND AX, 15
        &[0xa3, 0x67, 0x04],             // MOV [0467h], AX
        &[0x66, 0xc1, 0xe9, 0x04],       // SHR ECX, 4
        &[0x89, 0x0e, 0x69, 0x04],       // MOV [0469h], CX
        JUMP,
    ];
    code.concat()
}

/// Brings back what was loaded, and enters it. `at` is the offset of this code.
fn enter(entry: &Entry, eip: u32, at: u64) -> Vec<u8> {
    const REAL_SIZE: u64 = 28;
    const SIZE: u64 = REAL_SIZE + 14 + 40 + 7;
    let (code, data) = (entry.selectors.0.to_le_bytes(), entry.selectors.1.to_le_bytes());
    let gdt = ((at + SIZE) as u16).to_le_bytes();
    let next = ((SEGMENT + at + REAL_SIZE) as u32).to_le_bytes();
    let port = (PORT.port as u16).to_le_bytes();
    let real: [&[u8]; 9] = [
        &[0xba],
        &port,
        &[0xee, 0x2e, 0x66, 0x0f, 0x01, 0x16], // MOV DX, port; OUT DX, AL; LGDT CS:[gdt]
        &gdt,
        &[0x66, 0xb8, 0x11, 0, 0, 0],    // MOV EAX, PE and ET
        &[0x0f, 0x22, 0xc0, 0x66, 0xea], // MOV CR0, EAX; JMP FAR code:next
        &next,
        &code,
        &[0x66, 0xb8], // in 32-bit code: MOV AX, data
    ];
    let mut bytes = real.concat();
    bytes.extend(data);
    // MOV DS, ES, FS, GS and SS, AX.
    bytes.extend([0x8e, 0xd8, 0x8e, 0xc0, 0x8e, 0xe0, 0x8e, 0xe8, 0x8e, 0xd0]);
    for register in 0..8u8 {
        let value = entry.registers.iter().find(|(r, _)| *r == register).map_or(0, |(_, value)| *value as u32);
        bytes.push(0xb8 | register);
        bytes.extend(value.to_le_bytes());
    }
    bytes.push(0xea);
    bytes.extend(eip.to_le_bytes());
    bytes.extend(code);
    debug_assert_eq!(bytes.len() as u64, SIZE);
    bytes.extend(entry.gdt.1.to_le_bytes());
    bytes.extend((entry.gdt.0 as u32).to_le_bytes());
    bytes
}

/// The port.
pub struct Restart;

impl Device for Restart {
    fn name(&self) -> &'static str {
        "restart"
    }

    fn read(&mut self, _: Access, _: &mut DeviceCx) -> u64 {
        0xff
    }

    fn write(&mut self, _: Access, _: u64, cx: &mut DeviceCx) {
        let word = |ram: &Ram, at| ram.load(KEPT + at, 8).unwrap_or(0);
        let count = word(cx.ram, 0);
        let mut at = KEPT + 8 + 16 * count;
        for i in 0..count {
            let (base, size) = (word(cx.ram, 8 + 16 * i), word(cx.ram, 16 + 16 * i));
            let mut bytes = vec![0; size as usize];
            if cx.ram.read(at, &mut bytes).is_ok() {
                let _ = cx.ram.write(base, &bytes); // it was loaded there: it is RAM
            }
            at += size;
        }
    }

    fn reset(&mut self) {}

    fn save(&self) -> Vec<u8> {
        Vec::new()
    }

    fn restore(&mut self, bytes: &[u8]) -> Result<(), String> {
        if bytes.is_empty() { Ok(()) } else { Err("the port has no state".into()) }
    }
}
