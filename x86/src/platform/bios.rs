//! What a BIOS has left when a boot loader starts a kernel that may go back to real mode: interrupt controllers and system timer as an IBM PC
//! has them, LINT0 as their way to the processor, and an interrupt vector table. Its entries lead to handlers of our own in the segment
//! F000h, which end interrupts, count the timer's ticks, and say of each service that it is not there (CF = 1, AH = 86h).

use emu_core::bus::{Bus, BusCx, Space};
use emu_core::door::Door;
use emu_core::ram::Ram;

/// The handlers' segment.
const SEGMENT: u64 = 0xf000;
/// Where they are in it, behind all tables.
const OFFSET: u64 = 0xe000;

/// IRET.
const IGNORE: &[u8] = &[0xcf];
/// PUSH DS; PUSH AX; XOR AX, AX; MOV DS, AX; INC DWORD [046Ch]; MOV AL, 20h; OUT 20h, AL; POP AX; POP DS; IRET.
const TICK: &[u8] =
    &[0x1e, 0x50, 0x31, 0xc0, 0x8e, 0xd8, 0x66, 0xff, 0x06, 0x6c, 0x04, 0xb0, 0x20, 0xe6, 0x20, 0x58, 0x1f, 0xcf];
/// PUSH AX; MOV AL, 20h; OUT 20h, AL; POP AX; IRET.
const END_OF_MASTER: &[u8] = &[0x50, 0xb0, 0x20, 0xe6, 0x20, 0x58, 0xcf];
/// PUSH AX; MOV AL, 20h; OUT A0h, AL; OUT 20h, AL; POP AX; IRET.
const END_OF_SLAVE: &[u8] = &[0x50, 0xb0, 0x20, 0xe6, 0xa0, 0xe6, 0x20, 0x58, 0xcf];
/// MOV AH, 86h; PUSH BP; MOV BP, SP; OR BYTE [BP+6], 1; POP BP; IRET.
const NO_SERVICE: &[u8] = &[0xb4, 0x86, 0x55, 0x89, 0xe5, 0x80, 0x4e, 0x06, 0x01, 0x5d, 0xcf];
const HANDLERS: [&[u8]; 5] = [IGNORE, TICK, END_OF_MASTER, END_OF_SLAVE, NO_SERVICE];

/// The handler of a vector.
fn handler(vector: u64) -> &'static [u8] {
    match vector {
        0x08 => TICK,
        0x09..=0x0f => END_OF_MASTER,
        0x10..=0x1a => NO_SERVICE,
        0x70..=0x77 => END_OF_SLAVE,
        _ => IGNORE,
    }
}

/// Writes to ports, in their order.
const PORTS: &[(u64, u64)] = &[
    // The 8259As: ICW1 to ICW4, vectors from 08h and 70h; of their inputs timer, keyboard and cascade are let through.
    (0x20, 0x11),
    (0xa0, 0x11),
    (0x21, 0x08),
    (0xa1, 0x70),
    (0x21, 0x04),
    (0xa1, 0x02),
    (0x21, 0x01),
    (0xa1, 0x01),
    (0x21, 0xf8),
    (0xa1, 0xff),
    // Counter 0 of the 8254: rate generator, 65536, which is 18.2 Hz.
    (0x43, 0x34),
    (0x40, 0x00),
    (0x40, 0x00),
];

/// Leaves it all, but for the local APIC. The shadow is RAM.
pub fn leave(bus: &mut Bus, ram: &mut Ram, door: &mut Door) {
    for (port, value) in PORTS {
        let cx = BusCx { now: 0, ram, door };
        bus.write(Space::Port, *port, 1, *value, cx).expect("the chips are there");
    }
    let code = HANDLERS.concat();
    ram.write(SEGMENT << 4 | OFFSET, &code).expect("the shadow is RAM now");
    for vector in 0..256 {
        let place = HANDLERS.iter().take_while(|h| **h != handler(vector)).map(|h| h.len() as u64).sum::<u64>();
        ram.store(4 * vector, 4, SEGMENT << 16 | (OFFSET + place)).expect("it is base memory");
    }
}
