//! "Decode Assists": what an intercepted I/O instruction tells of its address.

use iced_x86::{Decoder, DecoderOptions, Mnemonic};
use x86::extension::code_at_rip;
use x86::mode::Mode;
use x86::processor::P;
use x86::segment;

/// The instruction at RIP.
pub(crate) struct Decoded;

impl Decoded {
    /// Of an I/O instruction, in bits of EXITINFO1: its address size (1: 16 bits, 2: 32, 4: 64) and the effective segment, ES for what is no OUTS.
    pub(crate) fn io(h: &P, string: bool) -> (u64, u64) {
        let mode = Mode::of(h.arch);
        let default = mode.code.bits();
        // Without prefixes there is nothing to decode.
        let length = h.core.next_pc.wrapping_sub(h.core.pc);
        if !string && length == 1 {
            return (u64::from(default) >> 4, 0);
        }
        let bytes = code_at_rip(h);
        let has_prefix = bytes.iter().take_while(|b| is_prefix(**b)).any(|b| *b == 0x67);
        let size = match (default, has_prefix) {
            (64, false) => 4,
            (32, false) | (64 | 16, true) => 2,
            _ => 1,
        };
        if !string {
            return (size, 0);
        }
        let insn = Decoder::with_ip(default, &bytes, mode.ip(h.core.pc), DecoderOptions::NONE).decode();
        let is_outs = matches!(insn.mnemonic(), Mnemonic::Outsb | Mnemonic::Outsw | Mnemonic::Outsd);
        (size, if is_outs { segment::number_of(insn.memory_segment()) } else { 0 })
    }
}

fn is_prefix(byte: u8) -> bool {
    matches!(byte, 0x26 | 0x2e | 0x36 | 0x3e | 0x40..=0x4f | 0x64..=0x67 | 0xf0 | 0xf2 | 0xf3)
}
