//! `undervisor disas`: what an instruction is, in words.

use std::fmt::Write as _;
use std::io::Write as _;

use emu_core::event::Code;
use iced_x86::{Decoder, DecoderOptions, Formatter, IntelFormatter};
use object::{Architecture, Object, ObjectSection, SectionKind};
use riscv::cpu::CpuConfig;
use riscv::isa::{Insn, decode, expand};

use crate::error::{UserError, about};
use crate::machine::read_file;
use crate::options::{Disas, Isa};

/// The first instruction of `bytes`, which lie at `pc`: its length in bytes, and its text.
pub fn one(isa: Isa, bytes: &[u8], pc: u64) -> (usize, String) {
    match isa.x86_bits() {
        Some(bits) => x86(bits, bytes, pc),
        None => riscv(bytes),
    }
}

/// The instruction that an event is about.
pub fn code(code: &Code) -> String {
    x86(code.bits, code.bytes, code.ip).1
}

fn x86(bits: u32, bytes: &[u8], pc: u64) -> (usize, String) {
    let insn = Decoder::with_ip(bits, bytes, pc, DecoderOptions::NONE).decode();
    let mut text = String::new();
    let mut formatter = IntelFormatter::new();
    formatter.options_mut().set_space_after_operand_separator(true);
    formatter.options_mut().set_hex_prefix("0x");
    formatter.options_mut().set_hex_suffix("");
    formatter.options_mut().set_uppercase_hex(false);
    formatter.options_mut().set_branch_leading_zeros(false);
    formatter.format(&insn, &mut text);
    (insn.len().clamp(1, bytes.len().max(1)), text)
}

/// The name; operands are in the bytes for now.
fn riscv(bytes: &[u8]) -> (usize, String) {
    let cpu = CpuConfig::rv64();
    let [a, b, rest @ ..] = bytes else { return (1, "(truncated)".into()) };
    let half = u16::from_le_bytes([*a, *b]);
    let (len, word) = match rest {
        _ if half & 3 != 3 => (2, expand(half, &cpu)),
        [c, d, ..] => (4, Some(u32::from_le_bytes([*a, *b, *c, *d]))),
        _ => return (2, "(truncated)".into()),
    };
    let row = word.and_then(|w| decode(Insn(w), &cpu));
    (len, row.map_or("(bad)", |(_, row)| row.name).into())
}

/// A line: address, bytes, text.
pub fn line(out: &mut String, pc: u64, bytes: &[u8], text: &str) {
    let hex: String = bytes.iter().map(|b| format!("{b:02x}")).collect();
    let _ = write!(out, "{pc:#x} {hex:20} {text}");
}

/// Prints code: of an ELF file its sections with code, else all that there is.
pub fn run(o: &Disas) -> Result<u8, UserError> {
    let file = read_file(&o.file)?;
    let elf = file.bytes.starts_with(b"\x7fELF").then(|| object::File::parse(&*file.bytes));
    let mut parts = Vec::new();
    let mut found = None;
    match &elf {
        Some(Ok(elf)) => {
            found = match elf.architecture() {
                Architecture::X86_64 => Some(Isa::X86_64),
                Architecture::I386 => Some(Isa::X86_32),
                Architecture::Riscv64 => Some(Isa::Riscv),
                other => return Err(about(&file.name, format!("an ELF file for {other:?}; expected x86 or RISC-V"))),
            };
            for section in elf.sections().filter(|s| s.kind() == SectionKind::Text) {
                parts.push((section.address(), section.data().map_err(|e| about(&file.name, e))?));
            }
        }
        Some(Err(e)) => return Err(about(&file.name, format!("a broken ELF file ({e})"))),
        None => parts.push((o.at, &*file.bytes)),
    }
    let isa =
        o.arch.or(found).ok_or_else(|| about(&file.name, "no ELF file; expected --arch x86-16|x86-32|x86-64|riscv"))?;
    let mut out = std::io::BufWriter::new(std::io::stdout().lock());
    for (mut pc, mut rest) in parts {
        while !rest.is_empty() {
            let (len, text) = one(isa, rest, pc);
            let (bytes, after) = rest.split_at(len.min(rest.len()));
            let mut text_line = String::new();
            line(&mut text_line, pc, bytes, &text);
            if let Err(e) = writeln!(out, "{text_line}") {
                // A reader that has seen enough is no error.
                return if e.kind() == std::io::ErrorKind::BrokenPipe {
                    Ok(0)
                } else {
                    Err(about("standard output", e))
                };
            }
            pc = pc.wrapping_add(bytes.len() as u64);
            rest = after;
        }
    }
    Ok(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn instructions_in_words() {
        let text = |isa, bytes: &[u8]| one(isa, bytes, 0x1000);
        assert_eq!(text(Isa::X86_64, &[0x48, 0x01, 0x03, 0x90]), (3, "add [rbx], rax".into()));
        assert_eq!(text(Isa::X86_32, &[0xeb, 0xfe]), (2, "jmp short 0x1000".into()));
        assert_eq!(text(Isa::X86_16, &[0xb8, 0x34, 0x12]), (3, "mov ax, 0x1234".into()));
        assert_eq!(text(Isa::Riscv, &[0x13, 0, 0, 0]), (4, "addi".into()));
        assert_eq!(text(Isa::Riscv, &[0x01, 0, 0, 0]).0, 2);
        assert_eq!(text(Isa::Riscv, &[0xff]), (1, "(truncated)".into()));
        for isa in [Isa::X86_16, Isa::X86_32, Isa::X86_64, Isa::Riscv] {
            for byte in 0..=255 {
                let (len, _) = one(isa, &[byte; 3], 0);
                assert!((1..=4).contains(&len), "{isa:?} {byte:#x}");
            }
        }
    }
}
