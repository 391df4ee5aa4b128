//! What operands are in 32-bit and 16-bit code.

use iced_x86::{Instruction, Mnemonic, OpCodeOperandKind as K, OpKind, Register};

use crate::mode::{Mode, Segments};
use crate::state::{DATA_SIZE, Random, State};
use crate::undefined;

/// Whether an address shall have 16 bits. In the flat segments there is nothing at such an address.
pub fn is_narrow(mode: Mode, r: &mut Random, kind: K) -> bool {
    let has_indices = matches!(kind, K::mem_vsib32x | K::mem_vsib32y | K::mem_vsib64x | K::mem_vsib64y);
    let of_eight = match mode {
        Mode::Long => 0,
        Mode::Flat => u64::from(r.below(4) == 0),
        Mode::Based { code: 16, .. } => 6,
        Mode::Based { .. } => 4,
    };
    !has_indices && r.below(8) < of_eight
}

/// A register has this in its lower half, and anything above.
fn set_half(state: &mut State, r: &mut Random, register: Register, value: u64) {
    let above = if r.below(2) == 0 { 0 } else { r.next() & 0xffff_0000 };
    state.gpr[register.number()] = value & 0xffff | above;
}

/// An address of 16 bits ("16-Bit Addressing Forms with the ModR/M Byte").
pub fn place_narrow(insn: &mut Instruction, state: &mut State, r: &mut Random, middle: u64) {
    use Register as R;
    const FORMS: [(R, R); 9] = [
        (R::BX, R::SI),
        (R::BX, R::DI),
        (R::BP, R::SI),
        (R::BP, R::DI),
        (R::SI, R::None),
        (R::DI, R::None),
        (R::BP, R::None),
        (R::BX, R::None),
        (R::None, R::None),
    ];
    let (base, index) = FORMS[r.below(9) as usize];
    insn.set_memory_base(base);
    insn.set_memory_index(index);
    insn.set_memory_index_scale(1);
    insn.set_memory_displ_size(2);
    let mut target = match r.below(16) {
        // At the end of the segment, and around it.
        0 => 16u64.wrapping_sub(r.below(32)),
        1 => middle + DATA_SIZE as u64 / 2 + 16 - r.below(96),
        2..6 => middle.wrapping_add(r.below(1200)).wrapping_sub(600),
        _ => middle.wrapping_add(64 * r.below(16)).wrapping_sub(512),
    };
    for (register, value) in [(base, middle), (index, r.value())] {
        if register != R::None {
            set_half(state, r, register, value);
            target = target.wrapping_sub(value);
        }
    }
    insn.set_memory_displacement64(target & 0xffff);
    if matches!(insn.mnemonic(), Mnemonic::Bt | Mnemonic::Bts | Mnemonic::Btr | Mnemonic::Btc)
        && insn.op1_kind() == OpKind::Register
    {
        let offset = insn.op1_register().full_register();
        if offset != base.full_register() && offset != index.full_register() {
            state.gpr[offset.number()] = (r.below(2000) as i64 - 1000) as u64 & 0xffff_ffff;
        }
    }
}

/// Segments, selectors, and what the stack holds.
pub fn prepare(insn: &mut Instruction, state: &mut State, r: &mut Random, segments: &Segments, data_at: u64) {
    use Mnemonic as M;
    let has_memory = (0..insn.op_count()).any(|i| insn.op_kind(i) == OpKind::Memory);
    if has_memory && r.below(8) == 0 {
        let prefixes = [Register::ES, Register::SS, Register::DS, Register::GS];
        insn.set_segment_prefix(prefixes[r.below(4) as usize]);
    }
    let selector = segments.selectors()[r.below(16) as usize];
    let above = if r.below(2) == 0 { 0 } else { r.next() & 0xffff_0000 };
    let put = |state: &mut State, at: u64, value: u16| {
        let at = at.wrapping_sub(data_at) as usize;
        if at < DATA_SIZE - 1 {
            state.data[at..at + 2].copy_from_slice(&value.to_le_bytes());
        }
    };
    let stack = state.gpr[4];
    match insn.mnemonic() {
        // TF and AC would have more of the host's exceptions.
        M::Popf | M::Popfd => {
            put(state, stack, (r.next() & !0x100) as u16);
            put(state, stack + 2, 0);
        }
        M::Pop if insn.op0_kind() == OpKind::Register && insn.op0_register().is_segment_register() => {
            put(state, stack, selector);
        }
        M::Mov | M::Lar | M::Lsl | M::Verr | M::Verw | M::Arpl | M::Lds | M::Les | M::Lss | M::Lgs => {
            let is_source = |i: &u32| insn.op_count() == 1 || *i == 1;
            let is_far = matches!(insn.mnemonic(), M::Lds | M::Les | M::Lss | M::Lgs);
            let is_of_segments = insn.mnemonic() != M::Mov
                || insn.op0_kind() == OpKind::Register && insn.op0_register().is_segment_register();
            for i in (0..insn.op_count()).filter(is_source).filter(|_| is_of_segments) {
                match insn.op_kind(i) {
                    OpKind::Register => {
                        let register = insn.op_register(i).full_register();
                        state.gpr[register.number()] = u64::from(selector) | above;
                    }
                    _ => {
                        let offset = if is_far { insn.memory_size().size() as u64 - 2 } else { 0 };
                        let at = undefined::address(insn, state).wrapping_add(offset);
                        put(state, at, selector);
                    }
                }
            }
        }
        _ => {}
    }
    // What is above SP is of no effect on a stack of 16 bits.
    if !segments.stack.attributes.is_big() && r.below(3) == 0 && insn.memory_base() != Register::ESP {
        state.gpr[4] |= r.next() & 0xffff_0000;
    }
}

/// What processors do in their own way in these modes.
pub fn forget(insn: &Instruction, before: &State, ours: &mut State, theirs: &State) {
    // "IRET": a return to CPL 3, as the one from the host's handler, clears null selectors, whatever their RPL was.
    for selector in ours.selectors.iter_mut().filter(|s| **s < 4) {
        *selector = 0;
    }
    let size = insn.memory_size().size() as u64;
    let at = undefined::address(insn, before);
    let name = format!("{:?}", insn.mnemonic()).to_lowercase();
    let crosses = at & 0xffff_ffff <= 0xffff && (at & 0xffff_ffff) + size > 0x1_0000;
    if let (Some(a), Some(b)) = (&mut ours.trap, &theirs.trap) {
        // "Priority Among Concurrent Events" has both in one class: beyond the limit of SS, and not aligned.
        if (a.vector, b.vector) == (12, 13) && b.error == 0 && size >= 16 && !at.is_multiple_of(size) {
            *a = *b;
        }
        // Part of the operand is beyond the limit, another is not present: any part may be the first.
        let is_of_parts = [
            "bound", "fnsave", "fnstenv", "frstor", "fldenv", "fxsave", "fxrstor", "lds", "les", "lss", "lgs", "fld",
            "fstp", "fbld", "fbstp",
        ];
        if crosses && matches!(a.vector, 12 | 13) && b.vector == 14 && is_of_parts.contains(&&*name) {
            *a = *b;
        }
    }
    // AMD's processors wrap each element's address at the address size; the SDM has the operand beyond the limit.
    let is_narrow =
        [insn.memory_base(), insn.memory_index()].iter().any(|r| r.is_gpr16()) || insn.memory_displ_size() == 2;
    if crosses && is_narrow && name.contains("maskmov") {
        *ours = theirs.clone();
    }
}
