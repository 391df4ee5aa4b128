//! What an SMI finds where there is no firmware ("SMRAM", "SMBASE Relocation"): the compatible range at A0000H has a handler for each processor,
//! which is RSM. The host bridge decodes it for processors in system management mode alone, and is locked.

use emu_core::ram::Ram;

use super::memory::{BASE_END, SMRAM};

/// SMRAM, the host bridge's register: G_SMRAME, D_LCK, C_BASE_SEG.
pub(super) const CONTROL: u64 = 1 << 3 | 1 << 4 | 2;
/// Where a handler begins, from SMBASE on.
const ENTRY: u64 = 0x8000;
/// State save maps of two processors must not meet. Those of more than this many share theirs.
const STEP: u64 = 0x400;
const PLACES: u64 = 64;
const RSM: [u8; 2] = [0x0f, 0xaa];

/// SMBASE of a processor.
pub(super) fn base(id: u32) -> u32 {
    (BASE_END + STEP * (u64::from(id) % PLACES)) as u32
}

/// Puts the handlers there.
pub(super) fn put(ram: &mut Ram, processors: u32) {
    for id in 0..processors.min(PLACES as u32) {
        let at = SMRAM + (u64::from(base(id)) - BASE_END) + ENTRY;
        ram.program(at, &RSM).expect("SMRAM is RAM");
    }
}
