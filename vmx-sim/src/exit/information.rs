//! "VM-Exit Instruction Information": what a VM exit tells of its instruction's operands. The instruction is decoded once more, from the bytes
//! that were fetched.

use iced_x86::{Decoder, DecoderOptions, Instruction, Mnemonic, OpKind, Register};
use x86::extension::code_at_rip;
use x86::mode::Mode;
use x86::processor::P;
use x86::segment;

/// The instruction at RIP.
#[derive(Clone, Copy, Debug)]
pub struct Decoded {
    insn: Instruction,
    /// Its default address size: 0 for 16 bits, 1 for 32, 2 for 64.
    code_size: u64,
}

impl Decoded {
    /// Decodes it.
    pub fn at_rip(h: &P) -> Option<Decoded> {
        let bytes = code_at_rip(h);
        let mode = Mode::of(h.arch);
        let bits = mode.code.bits();
        let insn = Decoder::with_ip(bits, &bytes, mode.ip(h.core.pc), DecoderOptions::NONE).decode();
        (!insn.is_invalid()).then_some(Decoded { insn, code_size: u64::from(bits.trailing_zeros() - 4) })
    }

    /// How long it is, in bytes.
    pub fn length(&self) -> u64 {
        self.insn.len() as u64
    }

    /// Its mnemonic.
    pub fn mnemonic(&self) -> Mnemonic {
        self.insn.mnemonic()
    }

    fn has_memory(&self) -> bool {
        (0..self.insn.op_count()).any(|i| self.insn.op_kind(i) == OpKind::Memory)
    }

    fn address_size(&self) -> u64 {
        let i = &self.insn;
        let of_register = |r: Register| match r.size() {
            2 => 0,
            4 => 1,
            _ => 2,
        };
        match (i.memory_base(), i.memory_index()) {
            (Register::None, Register::None) => match i.memory_displ_size() {
                2 => 0,
                4 => 1,
                8 => 2,
                _ => self.code_size,
            },
            (Register::None, index) => of_register(index),
            (base, _) => of_register(base),
        }
    }

    /// What all instructions with an operand in memory have in common.
    fn memory(&self) -> u64 {
        let i = &self.insn;
        let scale = u64::from(i.memory_index_scale().trailing_zeros());
        let place = |r: Register, shift: u32| {
            if r.is_gpr() { (r.number() as u64) << shift } else { 1 << (shift + 4) }
        };
        scale
            | self.address_size() << 7
            | segment::number_of(i.memory_segment()) << 15
            | place(i.memory_index(), 18)
            | place(i.memory_base(), 23)
    }

    /// The displacement of its operand in memory; for one that is relative to RIP, the address.
    pub fn displacement(&self) -> u64 {
        if !self.has_memory() {
            return 0;
        }
        let displacement = self.insn.memory_displacement64();
        match self.address_size() {
            0 => displacement as i16 as u64,
            1 => displacement as i32 as u64,
            _ => displacement,
        }
    }

    fn register(&self, i: u32) -> u64 {
        let is_register = i < self.insn.op_count() && self.insn.op_kind(i) == OpKind::Register;
        if is_register { self.insn.op_register(i).number() as u64 } else { 0 }
    }

    /// An operand in memory, or else the register `reg1`.
    fn memory_or_register(&self, operand: u32) -> u64 {
        const IS_REGISTER: u64 = 1 << 10;
        if self.has_memory() { self.memory() } else { IS_REGISTER | self.register(operand) << 3 }
    }

    /// VMCLEAR, VMPTRLD, VMPTRST, VMXON, XRSTORS, XSAVES; INVEPT, INVPCID, INVVPID, whose register is `reg2`; VMREAD and VMWRITE.
    pub fn of_vmx(&self) -> u64 {
        match self.insn.mnemonic() {
            Mnemonic::Vmread => self.memory_or_register(0) | self.register(1) << 28,
            Mnemonic::Vmwrite => self.memory_or_register(1) | self.register(0) << 28,
            Mnemonic::Invept | Mnemonic::Invpcid | Mnemonic::Invvpid => self.memory() | self.register(0) << 28,
            _ => self.memory(),
        }
    }

    /// SGDT, SIDT, LGDT, LIDT: 0 to 3.
    pub fn of_gdtr(&self, identity: u8) -> u64 {
        let wide = u64::from(self.code_size != 0 || self.insn.op_code().operand_size() == 32);
        self.memory() | wide << 11 | u64::from(identity) << 28
    }

    /// SLDT, STR, LLDT, LTR: 0 to 3.
    pub fn of_ldtr(&self, identity: u8) -> u64 {
        self.memory_or_register(0) | u64::from(identity) << 28
    }

    /// INS and OUTS.
    pub fn of_string(&self) -> u64 {
        let pointer = (0..self.insn.op_count()).map(|i| self.insn.op_kind(i)).find_map(|kind| match kind {
            OpKind::MemorySegSI | OpKind::MemoryESDI => Some(0),
            OpKind::MemorySegESI | OpKind::MemoryESEDI => Some(1),
            OpKind::MemorySegRSI | OpKind::MemoryESRDI => Some(2),
            _ => None,
        });
        let is_outs = matches!(self.insn.mnemonic(), Mnemonic::Outsb | Mnemonic::Outsw | Mnemonic::Outsd);
        let segment = if is_outs { segment::number_of(self.insn.memory_segment()) } else { 0 };
        pointer.unwrap_or(self.code_size) << 7 | segment << 15
    }

    /// RDRAND, RDSEED, TPAUSE, UMWAIT.
    pub fn of_register(&self) -> u64 {
        let size = match self.insn.op_register(0).size() {
            2 => 0,
            4 => 1,
            _ => 2,
        };
        self.register(0) << 3 | size << 11
    }

    /// IN and OUT with the port in the instruction.
    pub fn has_immediate(&self) -> bool {
        (0..self.insn.op_count()).any(|i| self.insn.op_kind(i) == OpKind::Immediate8)
    }

    /// For a string instruction of I/O: the general register that points to memory, whether it is in ES, and the address size.
    pub fn string_segment(&self) -> (usize, bool) {
        let is_outs = matches!(self.insn.mnemonic(), Mnemonic::Outsb | Mnemonic::Outsw | Mnemonic::Outsd);
        (if is_outs { segment::number_of(self.insn.memory_segment()) as usize } else { 0 }, is_outs)
    }

    /// Address size in bits of a string instruction.
    pub fn string_address_bits(&self) -> u32 {
        16 << (self.of_string() >> 7 & 3)
    }
}
