//! Moves and bitwise operations, as micro-ops.

use emu_core::engine::flags::Size;
use emu_core::engine::uop::{BinaryOp, Operand, UnaryOp, Width as Access};
use iced_x86::{Mnemonic, OpKind};

use super::{Location, access, address, general, is_vex, load, location, probe, source, store, word};
use crate::isa::{Lifting, Unknown};
use crate::registers::temp;

pub(super) fn lift(l: &mut Lifting) -> Result<(), Unknown> {
    use Mnemonic as M;
    match l.mnemonic() {
        M::Movaps | M::Movapd | M::Movdqa | M::Vmovaps | M::Vmovapd | M::Vmovdqa => whole(l, true),
        M::Movntps | M::Movntpd | M::Movntdq | M::Movntdqa => whole(l, true),
        M::Vmovntps | M::Vmovntpd | M::Vmovntdq | M::Vmovntdqa => whole(l, true),
        M::Movups | M::Movupd | M::Movdqu | M::Lddqu => whole(l, false),
        M::Vmovups | M::Vmovupd | M::Vmovdqu | M::Vlddqu => whole(l, false),
        M::Movss | M::Vmovss | M::Movntss => low(l, 4),
        M::Movsd | M::Vmovsd | M::Movntsd => low(l, 8),
        M::Movd | M::Vmovd | M::Movq | M::Vmovq if !has_mmx(l) => alone(l),
        M::Movlps | M::Movlpd | M::Vmovlps | M::Vmovlpd => half(l, 0),
        M::Movhps | M::Movhpd | M::Vmovhps | M::Vmovhpd => half(l, 1),
        M::Movhlps | M::Vmovhlps => between_halves(l, (1, 0)),
        M::Movlhps | M::Vmovlhps => between_halves(l, (0, 1)),
        M::Movnti => to_memory(l),
        M::Pxor | M::Xorps | M::Xorpd | M::Vpxor | M::Vxorps | M::Vxorpd => bitwise(l, BinaryOp::Xor),
        M::Pand | M::Andps | M::Andpd | M::Vpand | M::Vandps | M::Vandpd => bitwise(l, BinaryOp::And),
        M::Por | M::Orps | M::Orpd | M::Vpor | M::Vorps | M::Vorpd => bitwise(l, BinaryOp::Or),
        M::Pandn | M::Andnps | M::Andnpd | M::Vpandn | M::Vandnps | M::Vandnpd => bitwise(l, BinaryOp::AndNot),
        _ => Err(Unknown),
    }
}

fn has_mmx(l: &Lifting) -> bool {
    (0..l.insn.op_count()).any(|i| l.insn.op_register(i).is_mm())
}

/// The number of a register, and how many bytes of it are meant.
fn vector(l: &Lifting, i: u32) -> Result<(u8, u8), Unknown> {
    let at = location(l, i).ok_or(Unknown)?;
    Ok((at, if l.insn.op_register(i).is_ymm() { 32 } else { 16 }))
}

/// Writes words of a register; those above are cleared where the instruction is VEX-encoded. `None` keeps a word, or in the upper
/// half clears it.
fn write(l: &mut Lifting, d: Location, from: [Option<u8>; 4]) {
    let own = word(d, 0)..word(d, 0) + 4;
    // What another word would overwrite first goes aside.
    let from: [_; 4] = std::array::from_fn(|i| {
        let overwritten = |s: &u8| own.contains(s) && *s < word(d, i as u8);
        match from[i].filter(overwritten) {
            Some(s) => {
                l.move_to(temp::ASIDE + i as u8, s);
                Some(temp::ASIDE + i as u8)
            }
            None => from[i],
        }
    });
    for (i, from) in from.into_iter().enumerate() {
        let to = word(d, i as u8);
        match from {
            Some(from) => l.move_to(to, from),
            None if i >= 2 && is_vex(l) => l.lift.constant(to, 0),
            None => {}
        }
    }
}

/// MOVAPS, MOVUPS and their kin.
fn whole(l: &mut Lifting, aligned: bool) -> Result<(), Unknown> {
    if l.insn.op0_kind() == OpKind::Memory {
        let (s, bytes) = vector(l, 1)?;
        if aligned {
            address(l, Some(bytes.into()))?;
        } else {
            probe(l, bytes.into())?;
        }
        return store(l, bytes.into(), word(s, 0));
    }
    let (d, bytes) = vector(l, 0)?;
    let from = if l.insn.op1_kind() == OpKind::Memory {
        load(l, bytes.into(), aligned)?;
        temp::VECTOR
    } else {
        word(vector(l, 1)?.0, 0)
    };
    write(l, d, std::array::from_fn(|i| (8 * i < bytes.into()).then_some(from + i as u8)));
    Ok(())
}

/// MOVSS and MOVSD: between registers the low element alone, from memory zero-extended.
fn low(l: &mut Lifting, bytes: usize) -> Result<(), Unknown> {
    if l.insn.op0_kind() == OpKind::Memory || l.insn.op1_kind() == OpKind::Memory {
        return alone(l);
    }
    let d = vector(l, 0)?.0;
    let (a, b) = if l.insn.op_count() == 3 { (vector(l, 1)?.0, vector(l, 2)?.0) } else { (d, vector(l, 1)?.0) };
    let mut element = word(b, 0);
    if bytes == 4 {
        l.lift.binary(BinaryOp::Shr, temp::FIRST, word(a, 0), Operand::Imm(32));
        l.lift.binary(BinaryOp::Pack32, temp::FIRST, element, Operand::Reg(temp::FIRST));
        element = temp::FIRST;
    }
    write(l, d, [Some(element), Some(word(a, 1)), None, None]);
    Ok(())
}

/// MOVD, MOVQ; MOVSS and MOVSD from and to memory: a value in the low bits, with zeros above.
fn alone(l: &mut Lifting) -> Result<(), Unknown> {
    if let Some(d) = location(l, 0) {
        let narrow = matches!(l.mnemonic(), Mnemonic::Movd | Mnemonic::Vmovd);
        let from = match (location(l, 1), general(l, 1)) {
            (Some(s), _) => word(s, 0),
            (_, Some(r)) if narrow => {
                l.lift.unary(UnaryOp::Zext32, temp::FIRST, r);
                temp::FIRST
            }
            (_, Some(r)) => r,
            _ => {
                let (m, bytes) = (l.memory()?, l.insn.memory_size().size());
                l.load(access(bytes)?, word(d, 0), m);
                word(d, 0)
            }
        };
        l.move_to(word(d, 0), from);
        l.lift.constant(word(d, 1), 0);
        write(l, d, [None; 4]);
        return Ok(());
    }
    let s = word(location(l, 1).ok_or(Unknown)?, 0);
    let (place, size) = (l.place(0)?, l.size(0)?);
    l.write(place, size, s);
    Ok(())
}

/// MOVLPS, MOVHPS: one half from memory or to it.
fn half(l: &mut Lifting, i: u8) -> Result<(), Unknown> {
    let m = l.memory()?;
    if l.insn.op0_kind() == OpKind::Memory {
        l.store(Size::Bits64, m, word(vector(l, 1)?.0, i));
        return Ok(());
    }
    let d = vector(l, 0)?.0;
    let a = if l.insn.op_count() == 3 { vector(l, 1)?.0 } else { d };
    l.load(Access::U64, temp::VECTOR, m);
    let mut from = [Some(word(a, 0)), Some(word(a, 1)), None, None];
    from[usize::from(i)] = Some(temp::VECTOR);
    write(l, d, from);
    Ok(())
}

/// MOVHLPS, MOVLHPS: from one half of the last operand to the other.
fn between_halves(l: &mut Lifting, (from, to): (u8, usize)) -> Result<(), Unknown> {
    let d = vector(l, 0)?.0;
    let (a, b) = if l.insn.op_count() == 3 { (vector(l, 1)?.0, vector(l, 2)?.0) } else { (d, vector(l, 1)?.0) };
    let mut words = [Some(word(a, 0)), Some(word(a, 1)), None, None];
    words[to] = Some(word(b, from));
    write(l, d, words);
    Ok(())
}

/// MOVNTI.
fn to_memory(l: &mut Lifting) -> Result<(), Unknown> {
    let (to, size, from) = (l.place(0)?, l.size(0)?, general(l, 1).ok_or(Unknown)?);
    l.write(to, size, from);
    Ok(())
}

/// PXOR and its kin.
fn bitwise(l: &mut Lifting, op: BinaryOp) -> Result<(), Unknown> {
    if has_mmx(l) {
        return Err(Unknown); // in the table
    }
    let vex = is_vex(l);
    let (d, bytes) = vector(l, 0)?;
    let operands = l.insn.op_count();
    let a = if operands == 3 { vector(l, 1)?.0 } else { d };
    let b = match source(l, operands - 1, !vex)? {
        super::TEMPORARY => temp::VECTOR,
        b => word(b, 0),
    };
    for i in 0..if vex { 4 } else { 2 } {
        if 8 * i >= bytes {
            l.lift.constant(word(d, i), 0);
        } else if op == BinaryOp::AndNot {
            // The first source is the one that is inverted.
            l.lift.binary(op, word(d, i), b + i, Operand::Reg(word(a, i)));
        } else {
            l.lift.binary(op, word(d, i), word(a, i), Operand::Reg(b + i));
        }
    }
    Ok(())
}
