//! What the manuals leave undefined, and where processors differ.

use iced_x86::{Instruction, Mnemonic, OpKind, RflagsBits};

use crate::state::{DATA_SIZE, State};

/// The effective address of the operand in memory.
pub fn address(insn: &Instruction, state: &State) -> u64 {
    let operand = (0..insn.op_count()).find(|i| insn.op_kind(*i) == OpKind::Memory).unwrap_or(0);
    insn.virtual_address(operand, 0, |r, _, _| Some(if r.is_gpr() { state.gpr[r.number()] } else { 0 })).unwrap_or(0)
}

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
        // "Type 4" of the SDM, with #GP for what is not aligned; AMD's processors do not look.
        m if format!("{m:?}").starts_with("Sha") && has_memory(insn) => !address(insn, state).is_multiple_of(16),
        Mnemonic::Bswap => insn.op_register(0).size() == 2,
        _ => false,
    }
}

fn has_memory(insn: &Instruction) -> bool {
    (0..insn.op_count()).any(|i| insn.op_kind(i) == OpKind::Memory)
}

/// ES, and C0, C2, C3 of the x87's status word.
const ES: u16 = 1 << 7;
const CODES: u16 = 0x4500;

const C1: u16 = 1 << 9;
const CONDITION_CODES: u16 = CODES | C1;

fn forget_status(ours: &mut State, theirs: &State, bits: u16) {
    let both = status(ours) & !bits | status(theirs) & bits;
    ours.x87[2..4].copy_from_slice(&both.to_le_bytes());
}

/// Of a transcendental function, the last bit of a result may differ, and with it C1; and all of it where the operand is beyond what
/// the function is defined for.
fn forget_last_bits(m: Mnemonic, before: &State, ours: &mut State, theirs: &State) {
    let register = |state: &State, i: usize| u128::from_le_bytes(state.x87[32 + 16 * i..][..16].try_into().unwrap());
    let magnitude = register(before, 0) >> 64 & 0x7fff;
    if m == Mnemonic::F2xm1 && magnitude >= 0x3fff || m == Mnemonic::Fyl2xp1 && magnitude >= 0x3ffd {
        ours.x87.clone_from(&theirs.x87);
        return;
    }
    forget_status(ours, theirs, CONDITION_CODES & !0x400);
    for i in 0..8 {
        if place(register(ours, i)).abs_diff(place(register(theirs, i))) <= 1 {
            let bytes = 32 + 16 * i..48 + 16 * i;
            ours.x87[bytes.clone()].copy_from_slice(&theirs.x87[bytes]);
        }
    }
}

/// A place on the number line: how many representable numbers lie between zero and here.
fn place(x: u128) -> u128 {
    (x >> 64) << 63 | x & 0x7fff_ffff_ffff_ffff
}

fn status(state: &State) -> u16 {
    u16::from_le_bytes([state.x87[2], state.x87[3]])
}

/// Results that the manuals leave undefined, or that processors have another way than their text.
pub fn forget_undefined_results(insn: &Instruction, before: &State, ours: &mut State, theirs: &mut State) {
    use Mnemonic as M;
    const ZF: u64 = 1 << 6;
    let zero = theirs.flags & ZF != 0;
    let d = insn.op_register(0);
    let name = format!("{:?}", insn.mnemonic()).to_lowercase();
    forget_pointers(ours, theirs);
    // An access of several parts may begin with any of them.
    let is_image =
        ["fnsave", "fnstenv", "frstor", "fldenv", "fxsave", "fxrstor", "xsave", "xrstor", "vmaskmov", "maskmov"];
    if is_image.iter().any(|n| name.starts_with(n))
        && let (Some(a), Some(b)) = (&mut ours.trap, &theirs.trap)
    {
        a.address = if a.address & !0xfff == b.address & !0xfff { b.address } else { a.address };
    }
    match insn.mnemonic() {
        // The destination, where the source is 0.
        M::Bsf | M::Bsr if zero => {
            let d = d.full_register().number();
            ours.gpr[d] = theirs.gpr[d];
        }
        // The upper half of a register of 32 bits that is not exchanged.
        M::Cmpxchg if !zero && d.size() == 4 => {
            let r = &mut ours.gpr[d.full_register().number()];
            *r = *r & 0xffff_ffff | theirs.gpr[d.full_register().number()] & !0xffff_ffff;
        }
        // AMD's processors load 32 bits for a destination of 16.
        M::Movsxd if d.size() == 2 && theirs.trap.is_some() => *ours = theirs.clone(),
        // Approximations differ from processor to processor.
        _ if name.contains("rcp") || name.contains("rsqrt") => {
            for (a, b) in ours.vectors.iter_mut().zip(&theirs.vectors) {
                if is_near(*a as u32, *b as u32) && is_near((*a >> 32) as u32, (*b >> 32) as u32) {
                    *a = *b;
                }
            }
        }
        // AMD's processors set the condition codes, and EFLAGS, in spite of an exception that is not masked.
        _ if name.starts_with("fcom") || name.starts_with("ficom") || name.starts_with("fucom") || name == "ftst" => {
            if status(before) & ES == 0 && status(theirs) & ES != 0 {
                forget_status(ours, theirs, CODES);
                ours.flags = theirs.flags;
            }
            // AMD's processors leave C1 alone.
            if name.starts_with("fcomi") || name.starts_with("fucomi") {
                forget_status(ours, theirs, C1);
            }
        }
        // "C0, C1, C2, C3 undefined".
        M::Ffree | M::Ffreep => forget_status(ours, theirs, CONDITION_CODES),
        M::F2xm1 | M::Fyl2x | M::Fyl2xp1 | M::Fpatan | M::Fsin | M::Fcos | M::Fsincos | M::Fptan => {
            forget_last_bits(insn.mnemonic(), before, ours, theirs);
        }
        // It may fault where no byte is stored.
        M::Maskmovq | M::Maskmovdqu | M::Vmaskmovdqu if theirs.trap.is_some_and(|t| t.vector == 14) => {
            *ours = theirs.clone();
        }
        // AMD's processors leave the x87 alone where the operand is in memory.
        M::Cvtpi2ps if has_memory(insn) => {
            if ours.trap.is_some_and(|t| t.vector == 16) {
                *ours = theirs.clone();
            }
            ours.x87.clone_from(&theirs.x87);
        }
        // Which elements have been loaded when one faults.
        _ if name.contains("gather") && theirs.trap.is_some() => {
            ours.vectors.clone_from(&theirs.vectors);
            ours.trap = theirs.trap;
        }
        // MXCSR_MASK: AMD's processors have a bit of their own.
        _ if name.starts_with("fxsave") || name.starts_with("xsave") => {
            let at = (address(insn, before).wrapping_sub(before.gpr[4]) as usize).wrapping_add(DATA_SIZE / 2 + 28);
            if theirs.trap.is_none() && at + 4 <= DATA_SIZE && ours.data[at..at + 2] == [0xff; 2] {
                ours.data[at + 2] |= theirs.data[at + 2] & 2;
            }
        }
        // Bit 17 of MXCSR is reserved; AMD's processors have it.
        _ if ["ldmxcsr", "vldmxcsr", "fxrstor", "xrstor"].iter().any(|n| name.starts_with(n))
            && ours.trap.is_some_and(|t| t.vector == 13 && t.error == 0)
            && theirs.trap.is_none() =>
        {
            *ours = theirs.clone();
        }
        // Only as much of the pointers as an address has.
        M::Fxrstor64 | M::Xrstor64 => {
            for at in [14, 15, 22, 23] {
                ours.x87[at] = theirs.x87[at];
            }
        }
        _ => {}
    }
}

/// Whether processors differ in what is left by instructions of a mnemonic, so that what follows would differ too.
pub fn is_special(m: Mnemonic) -> bool {
    const SPECIAL: [&str; 21] = [
        "fcom", "ficom", "fucom", "ftst", "ffree", "f2xm1", "fyl2x", "fpatan", "fsin", "fcos", "fptan", "fnstenv",
        "fnsave", "fldenv", "frstor", "fx", "xs", "xr", "cvtpi2ps", "maskmov", "sha",
    ];
    let name = format!("{m:?}").to_lowercase();
    let name = name.strip_prefix('v').unwrap_or(&name);
    SPECIAL.iter().any(|n| name.starts_with(n)) || ["rcp", "rsqrt", "gather"].iter().any(|n| name.contains(n))
}

/// Processors of AMD keep the last instruction and operand of the x87 only while an exception is pending.
pub fn forget_pointers(ours: &mut State, theirs: &mut State) {
    if (status(ours) & status(theirs)) & ES == 0 {
        for state in [ours, theirs] {
            state.x87[6..24].fill(0);
        }
    }
}

/// Whether two approximations are of the same number: each may be wrong by 1.5 * 2^-12 of it.
fn is_near(a: u32, b: u32) -> bool {
    let (x, y) = (f32::from_bits(a), f32::from_bits(b));
    a == b || (x - y).abs() <= y.abs() * (3.0 / 4096.0) + f32::MIN_POSITIVE
}
