//! Compressed instructions (volume I, "C" Extension, Zcb, Zcmop): each is another form of a 32-bit one.

use crate::cpu::{CpuConfig, Ext};

/// Bits `high` to `low` of `x`, moved up to `to`.
const fn bits(x: u32, high: u32, low: u32, to: u32) -> u32 {
    (x >> low & ((1 << (high - low + 1)) - 1)) << to
}

const fn sign_extend(x: u32, width: u32) -> u32 {
    ((x << (32 - width)) as i32 >> (32 - width)) as u32
}

const fn i_type(imm: u32, rs1: u32, funct3: u32, rd: u32, opcode: u32) -> u32 {
    imm << 20 | rs1 << 15 | funct3 << 12 | rd << 7 | opcode
}

const fn s_type(imm: u32, rs2: u32, rs1: u32, funct3: u32, opcode: u32) -> u32 {
    bits(imm, 11, 5, 25) | rs2 << 20 | rs1 << 15 | funct3 << 12 | bits(imm, 4, 0, 7) | opcode
}

const fn r_type(funct7: u32, rs2: u32, rs1: u32, funct3: u32, rd: u32, opcode: u32) -> u32 {
    funct7 << 25 | rs2 << 20 | rs1 << 15 | funct3 << 12 | rd << 7 | opcode
}

const LOAD: u32 = 0x03;
const LOAD_FP: u32 = 0x07;
const OP_IMM: u32 = 0x13;
const OP_IMM_32: u32 = 0x1b;
const STORE: u32 = 0x23;
const STORE_FP: u32 = 0x27;
const OP: u32 = 0x33;
const LUI: u32 = 0x37;
const OP_32: u32 = 0x3b;
const BRANCH: u32 = 0x63;
const JALR: u32 = 0x67;
const JAL: u32 = 0x6f;
const EBREAK: u32 = 0x0010_0073;
const NOP: u32 = OP_IMM;

/// The 32-bit instruction that a 16-bit one stands for; `None` if it is illegal.
pub fn expand(insn: u16, cpu: &CpuConfig) -> Option<u32> {
    if !cpu.has(Ext::C) {
        return None;
    }
    let x = u32::from(insn);
    let funct3 = x >> 13;
    match x & 3 {
        0 => quadrant_0(x, funct3, cpu),
        1 => quadrant_1(x, funct3, cpu),
        2 => quadrant_2(x, funct3, cpu),
        _ => None,
    }
}

fn quadrant_0(x: u32, funct3: u32, cpu: &CpuConfig) -> Option<u32> {
    let rs1 = 8 + bits(x, 9, 7, 0);
    let rd = 8 + bits(x, 4, 2, 0);
    let word = bits(x, 12, 10, 3) | bits(x, 6, 6, 2) | bits(x, 5, 5, 6);
    let double = bits(x, 12, 10, 3) | bits(x, 6, 5, 6);
    Some(match funct3 {
        0 => {
            let imm = bits(x, 12, 11, 4) | bits(x, 10, 7, 6) | bits(x, 6, 6, 2) | bits(x, 5, 5, 3);
            if imm == 0 {
                return None;
            }
            i_type(imm, 2, 0, rd, OP_IMM) // c.addi4spn
        }
        1 if cpu.has(Ext::D) => i_type(double, rs1, 3, rd, LOAD_FP),
        2 => i_type(word, rs1, 2, rd, LOAD),
        3 => i_type(double, rs1, 3, rd, LOAD),
        4 if cpu.has(Ext::Zcb) => {
            let byte = bits(x, 6, 6, 0) | bits(x, 5, 5, 1);
            let half = bits(x, 5, 5, 1);
            match (bits(x, 12, 10, 0), bits(x, 6, 6, 0)) {
                (0, _) => i_type(byte, rs1, 4, rd, LOAD),
                (1, 0) => i_type(half, rs1, 5, rd, LOAD),
                (1, _) => i_type(half, rs1, 1, rd, LOAD),
                (2, _) => s_type(byte, rd, rs1, 0, STORE),
                (3, 0) => s_type(half, rd, rs1, 1, STORE),
                _ => return None,
            }
        }
        5 if cpu.has(Ext::D) => s_type(double, rd, rs1, 3, STORE_FP),
        6 => s_type(word, rd, rs1, 2, STORE),
        7 => s_type(double, rd, rs1, 3, STORE),
        _ => return None,
    })
}

fn quadrant_1(x: u32, funct3: u32, cpu: &CpuConfig) -> Option<u32> {
    let rd = bits(x, 11, 7, 0);
    let imm = sign_extend(bits(x, 12, 12, 5) | bits(x, 6, 2, 0), 6);
    Some(match funct3 {
        0 => i_type(imm, rd, 0, rd, OP_IMM),
        1 if rd != 0 => i_type(imm, rd, 0, rd, OP_IMM_32),
        2 => i_type(imm, 0, 0, rd, OP_IMM),
        3 if imm == 0 && cpu.has(Ext::Zcmop) && rd & 0x11 == 1 => NOP, // c.mop.n
        3 if imm == 0 => return None,
        3 if rd == 2 => {
            let imm = bits(x, 12, 12, 9) | bits(x, 6, 6, 4) | bits(x, 5, 5, 6) | bits(x, 4, 3, 7) | bits(x, 2, 2, 5);
            i_type(sign_extend(imm, 10), 2, 0, 2, OP_IMM) // c.addi16sp
        }
        3 => imm << 12 | rd << 7 | LUI,
        4 => return arithmetic(x, imm, cpu),
        5 => {
            let imm = bits(x, 12, 12, 11)
                | bits(x, 11, 11, 4)
                | bits(x, 10, 9, 8)
                | bits(x, 8, 8, 10)
                | bits(x, 7, 7, 6)
                | bits(x, 6, 6, 7)
                | bits(x, 5, 3, 1)
                | bits(x, 2, 2, 5);
            let imm = sign_extend(imm, 12);
            bits(imm, 20, 20, 31) | bits(imm, 10, 1, 21) | bits(imm, 11, 11, 20) | bits(imm, 19, 12, 12) | JAL
        }
        6 | 7 => {
            let imm = bits(x, 12, 12, 8) | bits(x, 11, 10, 3) | bits(x, 6, 5, 6) | bits(x, 4, 3, 1) | bits(x, 2, 2, 5);
            let imm = sign_extend(imm, 9);
            let rs1 = 8 + bits(x, 9, 7, 0);
            bits(imm, 12, 12, 31)
                | bits(imm, 10, 5, 25)
                | rs1 << 15
                | (funct3 & 1) << 12
                | bits(imm, 4, 1, 8)
                | bits(imm, 11, 11, 7)
                | BRANCH
        }
        _ => return None,
    })
}

/// The register-register and shift instructions of quadrant 1.
fn arithmetic(x: u32, imm: u32, cpu: &CpuConfig) -> Option<u32> {
    let rd = 8 + bits(x, 9, 7, 0);
    let rs2 = 8 + bits(x, 4, 2, 0);
    let shamt = imm & 63;
    Some(match (bits(x, 11, 10, 0), bits(x, 12, 12, 0), bits(x, 6, 5, 0)) {
        (0, ..) => i_type(shamt, rd, 5, rd, OP_IMM),
        (1, ..) => i_type(0x400 | shamt, rd, 5, rd, OP_IMM),
        (2, ..) => i_type(imm, rd, 7, rd, OP_IMM),
        (_, 0, 0) => r_type(0x20, rs2, rd, 0, rd, OP),
        (_, 0, 1) => r_type(0, rs2, rd, 4, rd, OP),
        (_, 0, 2) => r_type(0, rs2, rd, 6, rd, OP),
        (_, 0, _) => r_type(0, rs2, rd, 7, rd, OP),
        (_, _, 0) => r_type(0x20, rs2, rd, 0, rd, OP_32),
        (_, _, 1) => r_type(0, rs2, rd, 0, rd, OP_32),
        (_, _, 2) if cpu.has(Ext::Zcb) && cpu.has(Ext::M) => r_type(1, rs2, rd, 0, rd, OP),
        (_, _, 3) if cpu.has(Ext::Zcb) => match bits(x, 4, 2, 0) {
            0 => i_type(0xff, rd, 7, rd, OP_IMM),                       // c.zext.b
            1 if cpu.has(Ext::Zbb) => i_type(0x604, rd, 1, rd, OP_IMM), // c.sext.b
            2 if cpu.has(Ext::Zbb) => r_type(4, 0, rd, 4, rd, OP_32),   // c.zext.h
            3 if cpu.has(Ext::Zbb) => i_type(0x605, rd, 1, rd, OP_IMM), // c.sext.h
            4 if cpu.has(Ext::Zba) => r_type(4, 0, rd, 0, rd, OP_32),   // c.zext.w
            5 => i_type(0xfff, rd, 4, rd, OP_IMM),                      // c.not
            _ => return None,
        },
        _ => return None,
    })
}

fn quadrant_2(x: u32, funct3: u32, cpu: &CpuConfig) -> Option<u32> {
    let rd = bits(x, 11, 7, 0);
    let rs2 = bits(x, 6, 2, 0);
    let load_double = bits(x, 12, 12, 5) | bits(x, 6, 5, 3) | bits(x, 4, 2, 6);
    let load_word = bits(x, 12, 12, 5) | bits(x, 6, 4, 2) | bits(x, 3, 2, 6);
    let store_double = bits(x, 12, 10, 3) | bits(x, 9, 7, 6);
    let store_word = bits(x, 12, 9, 2) | bits(x, 8, 7, 6);
    Some(match funct3 {
        0 => i_type(bits(x, 12, 12, 5) | rs2, rd, 1, rd, OP_IMM),
        1 if cpu.has(Ext::D) => i_type(load_double, 2, 3, rd, LOAD_FP),
        2 if rd != 0 => i_type(load_word, 2, 2, rd, LOAD),
        3 if rd != 0 => i_type(load_double, 2, 3, rd, LOAD),
        4 => match (bits(x, 12, 12, 0), rd, rs2) {
            (0, 0, 0) => return None,
            (0, _, 0) => i_type(0, rd, 0, 0, JALR),
            (0, ..) => r_type(0, rs2, 0, 0, rd, OP),
            (_, 0, 0) => EBREAK,
            (_, _, 0) => i_type(0, rd, 0, 1, JALR),
            _ => r_type(0, rs2, rd, 0, rd, OP),
        },
        5 if cpu.has(Ext::D) => s_type(store_double, rs2, 2, 3, STORE_FP),
        6 => s_type(store_word, rs2, 2, 2, STORE),
        7 => s_type(store_double, rs2, 2, 3, STORE),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::isa::{Insn, decode};

    #[test]
    fn what_is_expanded_is_an_instruction() {
        for cpu in [CpuConfig::max(), CpuConfig::max().without(Ext::Zbb), CpuConfig::rv64().without(Ext::F)] {
            for x in 0..=0xffffu16 {
                if let Some(insn) = expand(x, &cpu) {
                    assert!(x & 3 != 3 && decode(Insn(insn), &cpu).is_some(), "{x:#06x} -> {insn:#010x}");
                }
            }
        }
        assert_eq!(expand(0, &CpuConfig::max()), None);
        assert_eq!(expand(0x8082, &CpuConfig::max()), Some(0x0000_8067)); // ret
    }
}
