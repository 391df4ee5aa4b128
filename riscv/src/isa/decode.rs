//! From bits to a row, and from a row to micro-ops.

use std::sync::LazyLock;

use emu_core::engine::{Lift, Step};

use super::{Does, H, Insn, Lifting, Row, atomic, bitmanip, cache, compressed, float, illegal, integer, multiply};
use crate::cpu::{CpuConfig, Ext};
use crate::hart::{HartExt, Mode, Riscv};
use crate::privileged;

/// All tables, in the manual's order.
const TABLES: &[&[Row]] = &[
    integer::ROWS,
    multiply::ROWS,
    atomic::ROWS,
    atomic::AMO_ROWS,
    float::ROWS,
    float::SINGLE,
    float::SINGLE_SIGN,
    float::DOUBLE,
    float::HALF,
    float::HALF_SIGN,
    float::SINGLE_ZFA,
    float::DOUBLE_ZFA,
    float::HALF_ZFA,
    bitmanip::ROWS,
    cache::ROWS,
    privileged::ROWS,
];

const COUNT: usize = {
    let (mut n, mut i) = (0, 0);
    while i < TABLES.len() {
        n += TABLES[i].len();
        i += 1;
    }
    n
};

static ROWS: [Row; COUNT] = {
    let mut rows = [TABLES[0][0]; COUNT];
    let (mut n, mut i) = (0, 0);
    while i < TABLES.len() {
        let mut k = 0;
        while k < TABLES[i].len() {
            rows[n] = TABLES[i][k];
            n += 1;
            k += 1;
        }
        i += 1;
    }
    rows
};

/// All instructions.
pub fn rows() -> &'static [Row] {
    &ROWS
}

/// Indices of rows by bits 6 to 2 of the instruction.
static BY_OPCODE: LazyLock<[Vec<u16>; 32]> = LazyLock::new(|| {
    std::array::from_fn(|opcode| {
        let rows = ROWS.iter().enumerate().filter(|(_, r)| (r.value >> 2 & 31) as usize == opcode);
        rows.map(|(i, _)| i as u16).collect()
    })
});

/// Whether the hart has the floating-point format that an instruction's fmt field names: an extension such as Zfa adds
/// instructions in the formats that there are.
fn has_format(insn: Insn, row: &Row, cpu: &CpuConfig) -> bool {
    let is_float = matches!(insn.0 & 0x7f, 0x43 | 0x47 | 0x4b | 0x4f | 0x53);
    match insn.0 >> 25 & 3 {
        1 if is_float => cpu.has(Ext::D),
        2 if is_float => cpu.has(Ext::Zfh) || row.ext.contains(&Ext::Zfhmin),
        _ => true,
    }
}

/// The row of a 32-bit instruction, if the hart has it.
pub fn decode(insn: Insn, cpu: &CpuConfig) -> Option<(u16, &'static Row)> {
    let candidates = &BY_OPCODE[(insn.0 >> 2 & 31) as usize];
    candidates
        .iter()
        .map(|i| (*i, &ROWS[usize::from(*i)]))
        .find(|(_, r)| insn.0 & r.mask == r.value && r.ext.iter().any(|e| cpu.has(*e)) && has_format(insn, r, cpu))
}

/// Function numbers behind those of the rows.
const ILLEGAL: u16 = COUNT as u16;
const MAKE_FS_DIRTY: u16 = COUNT as u16 + 1;
const CHECKED_JUMP: u16 = COUNT as u16 + 2;

/// See [`Arch::lift`](emu_core::engine::Arch::lift).
pub(crate) fn lift(arch: &Riscv, pc: u64, bytes: &[u8], lift: &mut Lift) -> Option<u8> {
    let low = u16::from_le_bytes([*bytes.first()?, *bytes.get(1)?]);
    let (bits, raw, len) = if low & 3 == 3 {
        let raw = u32::from_le_bytes(bytes.get(..4)?.try_into().expect("4 bytes"));
        (Some(raw), raw, 4)
    } else {
        (compressed::expand(low, &arch.cpu), low.into(), 2)
    };
    lift.note(raw);
    let Some((number, row)) = bits.and_then(|b| decode(Insn(b), &arch.cpu)) else {
        lift.call_and_end(ILLEGAL, raw);
        return Some(len);
    };
    let insn = Insn(bits.expect("it was decoded"));
    // Zicsr's are the instructions of SYSTEM whose funct3 is neither 0 nor 4. A CSR may not be there.
    let is_csr = insn.0 & 0x7f == 0x73 && insn.rm() & 3 != 0;
    if is_csr && !privileged::csr_access::exists(arch, insn.csr()) {
        lift.call_and_end(ILLEGAL, raw);
        return Some(len);
    }
    let mode = arch.code_mode();
    let is_float = matches!(row.does, Does::LiftFloat(_) | Does::CallFloat(_));
    if is_float && !mode.has(Mode::FS_ON) {
        lift.call_and_end(ILLEGAL, raw);
        return Some(len);
    }
    let mut l = Lifting { lift, pc, len, cpu: &arch.cpu, fs_dirty: mode.has(Mode::FS_DIRTY) };
    match row.does {
        Does::Lift(f) | Does::LiftFloat(f) => f(&mut l, insn),
        Does::Call(_) => l.lift.call(number, insn.0),
        Does::CallAndEnd(_) => l.lift.call_and_end(number, insn.0),
        Does::CallFloat(_) => {
            l.make_fs_dirty();
            l.lift.call(number, insn.0);
        }
    }
    Some(len)
}

/// See [`Arch::call`](emu_core::engine::Arch::call).
pub(crate) fn call(h: &mut H, function: u16, operand: u32) -> Step {
    match function {
        ILLEGAL => illegal(),
        MAKE_FS_DIRTY => {
            h.make_fs_dirty();
            Ok(())
        }
        CHECKED_JUMP => integer::checked_jump(h, Insn(operand)),
        _ => match ROWS[usize::from(function)].does {
            Does::Call(f) | Does::CallAndEnd(f) | Does::CallFloat(f) => f(h, Insn(operand)),
            Does::Lift(_) | Does::LiftFloat(_) => unreachable!("it was lifted"),
        },
    }
}

impl Lifting<'_> {
    /// Makes FS dirty. Call it behind the last micro-op that can fault, before the first floating-point register is
    /// written.
    pub fn make_fs_dirty(&mut self) {
        if !self.fs_dirty {
            self.lift.call(MAKE_FS_DIRTY, 0);
        }
    }

    /// A jump that may have to fault.
    pub(super) fn checked_jump(&mut self, i: Insn) {
        self.lift.call_and_end(CHECKED_JUMP, i.0);
    }

    /// Whether it may jump to a static address, which must be aligned as the hart wants it: to 2 bytes with C, else to 4.
    pub fn may_jump_to(&self, target: u64) -> bool {
        self.cpu.has(Ext::C) || target & 3 == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_two_rows_overlap() {
        for (i, a) in ROWS.iter().enumerate() {
            assert_eq!(a.value & 3, 3, "{}", a.name);
            for b in &ROWS[i + 1..] {
                let both = a.mask & b.mask;
                assert!(a.value & both != b.value & both, "{} and {} overlap", a.name, b.name);
            }
        }
    }
}
