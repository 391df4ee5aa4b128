//! What the manuals leave undefined, and where processors differ.

use iced_x86::{Instruction, Mnemonic, OpKind, RflagsBits};

use crate::state::State;

/// Flags that the SDM leaves undefined, as iced-x86's tables have them.
pub fn undefined_flags(insn: &Instruction) -> u64 {
    use RflagsBits as B;
    let bits = insn.rflags_undefined();
    [(B::CF, 1), (B::PF, 4), (B::AF, 16), (B::ZF, 64), (B::SF, 128), (B::OF, 0x800)]
        .into_iter()
        .filter(|(b, _)| bits & b != 0)
        .fold(0, |all, (_, f)| all | f)
}

/// "If the count is greater than the operand size, the result is undefined" (SHLD, SHRD); of 16 bits, BSWAP is.
pub fn is_undefined(insn: &Instruction, state: &State) -> bool {
    match insn.mnemonic() {
        Mnemonic::Shld | Mnemonic::Shrd if insn.op_register(1).size() == 2 => {
            let count = if insn.op_kind(2) == OpKind::Register { state.gpr[1] as u8 } else { insn.immediate8() };
            count & 31 > 16
        }
        Mnemonic::Bswap => insn.op_register(0).size() == 2,
        _ => false,
    }
}

/// Results that the SDM leaves undefined, or that processors have another way than its text: the destination of BSF and BSR of
/// 0, and the upper half of a register that CMPXCHG of 32 bits does not exchange.
pub fn forget_undefined_results(insn: &Instruction, ours: &mut State, theirs: &mut State) {
    const ZF: u64 = 1 << 6;
    let zero = theirs.flags & ZF != 0;
    let d = insn.op_register(0);
    match insn.mnemonic() {
        Mnemonic::Bsf | Mnemonic::Bsr if zero => {
            let d = d.full_register().number();
            ours.gpr[d] = theirs.gpr[d];
        }
        Mnemonic::Cmpxchg if !zero && d.size() == 4 => {
            let r = &mut ours.gpr[d.full_register().number()];
            *r = *r & 0xffff_ffff | theirs.gpr[d.full_register().number()] & !0xffff_ffff;
        }
        _ => {}
    }
}
