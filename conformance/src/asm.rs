//! A small RV64 assembler: as much as the demonstration and the benchmarks need.
#![allow(missing_docs, reason = "the names of registers and instructions")]

use std::collections::BTreeMap;

/// A register's number.
pub type Reg = u32;
pub const ZERO: Reg = 0;
pub const RA: Reg = 1;
pub const SP: Reg = 2;
pub const T0: Reg = 5;
pub const T1: Reg = 6;
pub const T2: Reg = 7;
pub const S0: Reg = 8;
pub const A0: Reg = 10;
pub const A1: Reg = 11;
pub const A2: Reg = 12;
pub const A6: Reg = 16;
pub const A7: Reg = 17;
pub const T3: Reg = 28;
pub const T4: Reg = 29;
pub const T5: Reg = 30;
pub const T6: Reg = 31;

/// What a place that names a label becomes once the label is known.
enum Fixup {
    Branch,
    Jump,
    /// AUIPC and ADDI.
    Address,
}

/// Code under construction.
pub struct Asm {
    base: u64,
    bytes: Vec<u8>,
    labels: BTreeMap<&'static str, u64>,
    fixups: Vec<(usize, &'static str, Fixup)>,
}

impl Asm {
    /// Code that will stand at `base`.
    pub fn new(base: u64) -> Self {
        Asm { base, bytes: Vec::new(), labels: BTreeMap::new(), fixups: Vec::new() }
    }

    fn here(&self) -> u64 {
        self.base + self.bytes.len() as u64
    }

    fn word(&mut self, word: u32) {
        self.bytes.extend(word.to_le_bytes());
    }

    /// The next instruction has this name.
    pub fn label(&mut self, name: &'static str) {
        let here = self.here();
        assert!(self.labels.insert(name, here).is_none(), "{name} is there twice");
    }

    /// Text, with its end at a multiple of 4.
    pub fn text(&mut self, text: &str) {
        self.bytes.extend(text.as_bytes());
        self.bytes.push(0);
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }

    /// Goes on at the next multiple of `size`.
    pub fn align(&mut self, size: usize) {
        self.bytes.resize(self.bytes.len().next_multiple_of(size), 0);
    }

    fn i(&mut self, opcode: u32, funct3: u32, rd: Reg, rs1: Reg, imm: i32) {
        assert!((-2048..2048).contains(&imm), "{imm} does not fit in 12 bits");
        self.word((imm as u32) << 20 | rs1 << 15 | funct3 << 12 | rd << 7 | opcode);
    }

    fn r(&mut self, opcode: u32, funct3: u32, funct7: u32, rd: Reg, rs1: Reg, rs2: Reg) {
        self.word(funct7 << 25 | rs2 << 20 | rs1 << 15 | funct3 << 12 | rd << 7 | opcode);
    }

    pub fn addi(&mut self, rd: Reg, rs1: Reg, imm: i32) {
        self.i(0x13, 0, rd, rs1, imm);
    }
    pub fn andi(&mut self, rd: Reg, rs1: Reg, imm: i32) {
        self.i(0x13, 7, rd, rs1, imm);
    }
    pub fn ori(&mut self, rd: Reg, rs1: Reg, imm: i32) {
        self.i(0x13, 6, rd, rs1, imm);
    }
    pub fn slli(&mut self, rd: Reg, rs1: Reg, n: i32) {
        self.i(0x13, 1, rd, rs1, n);
    }
    pub fn srli(&mut self, rd: Reg, rs1: Reg, n: i32) {
        self.i(0x13, 5, rd, rs1, n);
    }
    pub fn add(&mut self, rd: Reg, rs1: Reg, rs2: Reg) {
        self.r(0x33, 0, 0, rd, rs1, rs2);
    }
    pub fn sub(&mut self, rd: Reg, rs1: Reg, rs2: Reg) {
        self.r(0x33, 0, 0x20, rd, rs1, rs2);
    }
    pub fn and(&mut self, rd: Reg, rs1: Reg, rs2: Reg) {
        self.r(0x33, 7, 0, rd, rs1, rs2);
    }
    pub fn lbu(&mut self, rd: Reg, rs1: Reg, imm: i32) {
        self.i(0x03, 4, rd, rs1, imm);
    }
    pub fn ld(&mut self, rd: Reg, rs1: Reg, imm: i32) {
        self.i(0x03, 3, rd, rs1, imm);
    }
    fn s(&mut self, funct3: u32, rs2: Reg, rs1: Reg, imm: i32) {
        assert!((-2048..2048).contains(&imm));
        let imm = imm as u32;
        self.word((imm >> 5 & 0x7f) << 25 | rs2 << 20 | rs1 << 15 | funct3 << 12 | (imm & 31) << 7 | 0x23);
    }
    pub fn sb(&mut self, rs2: Reg, rs1: Reg, imm: i32) {
        self.s(0, rs2, rs1, imm);
    }
    pub fn sd(&mut self, rs2: Reg, rs1: Reg, imm: i32) {
        self.s(3, rs2, rs1, imm);
    }
    /// CSRRW rd, csr, rs1.
    pub fn csrrw(&mut self, rd: Reg, csr: u32, rs1: Reg) {
        self.word(csr << 20 | rs1 << 15 | 1 << 12 | rd << 7 | 0x73);
    }
    pub fn csrw(&mut self, csr: u32, rs1: Reg) {
        self.csrrw(ZERO, csr, rs1);
    }
    pub fn csrr(&mut self, rd: Reg, csr: u32) {
        self.word(csr << 20 | 2 << 12 | rd << 7 | 0x73);
    }
    pub fn csrs(&mut self, csr: u32, rs1: Reg) {
        self.word(csr << 20 | rs1 << 15 | 2 << 12 | 0x73);
    }
    pub fn csrc(&mut self, csr: u32, rs1: Reg) {
        self.word(csr << 20 | rs1 << 15 | 3 << 12 | 0x73);
    }
    pub fn mul(&mut self, rd: Reg, rs1: Reg, rs2: Reg) {
        self.r(0x33, 0, 1, rd, rs1, rs2);
    }
    pub fn xor(&mut self, rd: Reg, rs1: Reg, rs2: Reg) {
        self.r(0x33, 4, 0, rd, rs1, rs2);
    }
    pub fn sw(&mut self, rs2: Reg, rs1: Reg, imm: i32) {
        self.s(2, rs2, rs1, imm);
    }
    pub fn mret(&mut self) {
        self.word(0x3020_0073);
    }
    pub fn sfence_vma(&mut self, rs1: Reg, rs2: Reg) {
        self.r(0x73, 0, 9, 0, rs1, rs2);
    }
    pub fn ecall(&mut self) {
        self.word(0x73);
    }
    pub fn sret(&mut self) {
        self.word(0x1020_0073);
    }
    pub fn wfi(&mut self) {
        self.word(0x1050_0073);
    }
    pub fn hfence_gvma(&mut self, rs1: Reg, rs2: Reg) {
        self.r(0x73, 0, 0x31, 0, rs1, rs2);
    }

    fn fix(&mut self, label: &'static str, fixup: Fixup) {
        self.fixups.push((self.bytes.len(), label, fixup));
    }
    fn branch(&mut self, funct3: u32, rs1: Reg, rs2: Reg, to: &'static str) {
        self.fix(to, Fixup::Branch);
        self.r(0x63, funct3, 0, 0, rs1, rs2);
    }
    pub fn beq(&mut self, rs1: Reg, rs2: Reg, to: &'static str) {
        self.branch(0, rs1, rs2, to);
    }
    pub fn bne(&mut self, rs1: Reg, rs2: Reg, to: &'static str) {
        self.branch(1, rs1, rs2, to);
    }
    pub fn bltu(&mut self, rs1: Reg, rs2: Reg, to: &'static str) {
        self.branch(6, rs1, rs2, to);
    }
    pub fn jal(&mut self, rd: Reg, to: &'static str) {
        self.fix(to, Fixup::Jump);
        self.word(rd << 7 | 0x6f);
    }
    pub fn j(&mut self, to: &'static str) {
        self.jal(ZERO, to);
    }
    pub fn ret(&mut self) {
        self.i(0x67, 0, ZERO, RA, 0);
    }
    /// The address of a label.
    pub fn la(&mut self, rd: Reg, of: &'static str) {
        self.fix(of, Fixup::Address);
        self.word(rd << 7 | 0x17);
        self.i(0x13, 0, rd, rd, 0);
    }
    /// Any constant.
    pub fn li(&mut self, rd: Reg, value: u64) {
        let low = (value as i64) << 52 >> 52;
        let rest = (value as i64).wrapping_sub(low);
        if rest == 0 {
            self.addi(rd, ZERO, low as i32);
        } else if rest as i32 as i64 == rest {
            self.word(rest as u32 & 0xffff_f000 | rd << 7 | 0x37);
            if low != 0 {
                self.i(0x1b, 0, rd, rd, low as i32);
            }
        } else {
            self.li(rd, (rest >> 12) as u64);
            self.slli(rd, rd, 12);
            if low != 0 {
                self.addi(rd, rd, low as i32);
            }
        }
    }

    /// The finished code.
    pub fn finish(mut self) -> Vec<u8> {
        for (at, label, fixup) in &self.fixups {
            let target = *self.labels.get(label).unwrap_or_else(|| panic!("there is no label {label}"));
            let distance = target.wrapping_sub(self.base + *at as u64) as i64;
            let x = distance as u32;
            let mut patch = |at: usize, bits: u32| {
                let word = u32::from_le_bytes(self.bytes[at..at + 4].try_into().expect("4 bytes")) | bits;
                self.bytes[at..at + 4].copy_from_slice(&word.to_le_bytes());
            };
            match fixup {
                Fixup::Branch => {
                    assert!((-4096..4096).contains(&distance), "{label} is too far");
                    let high = (x >> 12 & 1) << 31 | (x >> 5 & 0x3f) << 25;
                    patch(*at, high | (x >> 1 & 15) << 8 | (x >> 11 & 1) << 7);
                }
                Fixup::Jump => {
                    let high = (x >> 20 & 1) << 31 | (x >> 1 & 0x3ff) << 21;
                    patch(*at, high | (x >> 11 & 1) << 20 | (x >> 12 & 0xff) << 12);
                }
                Fixup::Address => {
                    let low = (x & 0xfff) << 20;
                    patch(*at, x.wrapping_add(0x800) & 0xffff_f000);
                    patch(at + 4, low);
                }
            }
        }
        self.bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Words that another assembler gives.
    #[test]
    fn encodings() {
        let mut a = Asm::new(0x8000_0000);
        a.label("start");
        a.addi(A0, ZERO, -1);
        a.sd(A0, SP, -8);
        a.beq(A0, ZERO, "start");
        a.jal(RA, "start");
        a.csrw(0x680, T0);
        a.hfence_gvma(ZERO, ZERO);
        a.li(T0, 0x8000_0000_0000_0001);
        let words: Vec<u32> = a.finish().chunks(4).map(|c| u32::from_le_bytes(c.try_into().unwrap())).collect();
        assert_eq!(words[..6], [0xfff0_0513, 0xfea1_3c23, 0xfe05_0ce3, 0xff5f_f0ef, 0x6802_9073, 0x6200_0073]);
    }
}
