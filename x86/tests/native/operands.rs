//! Instructions with operands at random.

use iced_x86::{Code, Instruction, Mnemonic, OpCodeOperandKind as K, OpKind, Register};

use crate::compatibility::{self, is_narrow, place_narrow};
use crate::mode::{Mode, Segments};
use crate::state::{DATA_SIZE, Random, State};
use crate::undefined;

/// A general register of a size; not RSP, nor its parts.
fn register(r: &mut Random, mode: Mode, bytes: usize) -> Register {
    let number = loop {
        // Without REX, bytes are of the first four registers.
        let n = r.below(if bytes == 1 && mode != Mode::Long { 4 } else { mode.registers() }) as u32;
        if n != 4 {
            break n;
        }
    };
    match bytes {
        // AH to BH stand between BL and SPL; the encoder refuses them beside a REX prefix.
        1 if number < 4 => Register::AL + number + 4 * r.below(2) as u32,
        1 => Register::AL + number + 4,
        2 => Register::AX + number,
        4 => Register::EAX + number,
        _ => Register::RAX + number,
    }
}

/// An instruction of this encoding, with operands at random, and a state for it. `None` if it has operands of other kinds.
pub fn instance(code: Code, r: &mut Random, segments: &Segments, data_at: u64) -> Option<(Instruction, State)> {
    let mode = segments.mode;
    let mut state = r.state();
    if mode != Mode::Long {
        state.gpr = std::array::from_fn(|i| if i < 8 { state.gpr[i] & mode.mask() } else { 0 });
        state.selectors = segments.all().map(|s| s.selector);
    }
    let middle = data_at + DATA_SIZE as u64 / 2;
    state.gpr[4] = middle;
    let mut insn = Instruction::default();
    insn.set_code(code);
    let info = code.op_code();
    let mut memory = None;
    let mut immediates = 0;
    for i in 0..info.op_count() {
        let kind = info.op_kind(i);
        let is_either = matches!(kind, K::r8_or_mem | K::r16_or_mem | K::r32_or_mem | K::r64_or_mem)
            || matches!(kind, K::mm_or_mem | K::xmm_or_mem | K::ymm_or_mem);
        let is_indexed = matches!(kind, K::mem_vsib32x | K::mem_vsib32y | K::mem_vsib64x | K::mem_vsib64y);
        if kind == K::mem_offs {
            insn.set_op_kind(i, OpKind::Memory);
            let narrow = mode != Mode::Long && r.below(2) == 0;
            insn.set_memory_displ_size(if mode == Mode::Long {
                8
            } else if narrow {
                2
            } else {
                4
            });
            insn.set_memory_displacement64((data_at + r.below(4000)) & if narrow { 0xffff } else { u64::MAX });
        } else if kind == K::seg_rDI {
            insn.set_op_kind(i, if mode == Mode::Long { OpKind::MemorySegRDI } else { OpKind::MemorySegEDI });
            state.gpr[7] = somewhere(r, middle);
        } else if kind == K::mem || is_indexed || is_either && r.below(2) == 0 {
            memory = Some((i, kind));
        } else if kind == K::imm8 && immediates == 1 {
            insn.set_op_kind(i, OpKind::Immediate8_2nd);
            insn.set_immediate8_2nd(r.value() as u8);
        } else if let Some(register) = any_register(kind, r, mode) {
            insn.set_op_kind(i, OpKind::Register);
            insn.set_op_register(i, register);
        } else {
            let (kind, value) = immediate(kind, r)?;
            immediates += 1;
            insn.set_op_kind(i, kind);
            insn.set_immediate_u64(i, value);
        }
    }
    if let Some((i, kind)) = memory {
        insn.set_op_kind(i, OpKind::Memory);
        if mode == Mode::Long || !is_narrow(mode, r, kind) {
            place_memory(&mut insn, &mut state, r, middle, kind, mode)?;
        } else {
            place_narrow(&mut insn, &mut state, r, middle);
        }
    }
    if mode != Mode::Long {
        compatibility::prepare(&mut insn, &mut state, r, segments, data_at);
    }
    match code.mnemonic() {
        Mnemonic::Leave => state.gpr[5] = middle + 64,
        Mnemonic::Enter => {
            state.gpr[5] = middle + 1024;
            insn.set_immediate16(r.below(600) as u16);
            insn.set_op1_kind(OpKind::Immediate8_2nd);
            insn.set_immediate8_2nd(if r.below(2) == 0 { 0 } else { r.value() as u8 });
        }
        Mnemonic::Cmpxchg8b | Mnemonic::Cmpxchg16b if r.below(2) == 0 => agree(&insn, &mut state, data_at),
        m if is_xsave(m) => {
            // Components that the host has, and we have not, are left out.
            if insn.memory_base().full_register() == Register::RSP && insn.memory_index() == Register::None {
                state.gpr[0] = r.next() & 7;
                state.gpr[2] = 0;
            } else {
                return None;
            }
            let at = undefined::address(&insn, &state).wrapping_sub(data_at) as usize;
            if at + 1024 <= DATA_SIZE {
                place_area(&mut state.data[at..], r);
            }
        }
        _ => {}
    }
    Some((insn, state))
}

/// Instructions with an area of FXSAVE or XSAVE.
fn is_xsave(m: Mnemonic) -> bool {
    let name = format!("{m:?}");
    ["Fxsave", "Fxrstor", "Xsave", "Xrstor"].iter().any(|n| name.starts_with(n))
}

/// What FXRSTOR and XRSTOR mostly accept: no reserved bit of MXCSR and of the header is set.
fn place_area(area: &mut [u8], r: &mut Random) {
    let mut put = |at: usize, bytes: &[u8]| area[at..at + bytes.len()].copy_from_slice(bytes);
    if r.below(16) != 0 {
        put(26, &[0; 2]);
    }
    let compacted = if r.below(2) == 0 { 1 << 63 | r.next() & 7 } else { 0 };
    let allowed = if compacted == 0 || r.below(8) == 0 { 7 } else { compacted & 7 };
    put(512, &(r.next() & allowed).to_le_bytes());
    put(520, &u64::to_le_bytes(compacted));
    if r.below(16) != 0 {
        put(528, &[0; 48]);
    }
}

/// A register of a kind, if it is one of registers.
fn any_register(kind: K, r: &mut Random, mode: Mode) -> Option<Register> {
    let vectors = mode.registers();
    Some(match kind {
        K::r8_reg | K::r8_or_mem | K::r8_opcode => register(r, mode, 1),
        K::r16_reg | K::r16_or_mem | K::r16_opcode | K::r16_rm => register(r, mode, 2),
        K::r32_reg | K::r32_or_mem | K::r32_opcode | K::r32_rm | K::r32_vvvv => register(r, mode, 4),
        K::r64_reg | K::r64_or_mem | K::r64_opcode | K::r64_rm | K::r64_vvvv => register(r, mode, 8),
        K::mm_reg | K::mm_or_mem | K::mm_rm => Register::MM0 + r.below(8) as u32,
        K::xmm_reg | K::xmm_or_mem | K::xmm_vvvv | K::xmm_rm | K::xmm_is4 => Register::XMM0 + r.below(vectors) as u32,
        K::ymm_reg | K::ymm_or_mem | K::ymm_vvvv | K::ymm_rm | K::ymm_is4 => Register::YMM0 + r.below(vectors) as u32,
        K::sti_opcode => Register::ST0 + r.below(8) as u32,
        K::st0 => Register::ST0,
        K::al => Register::AL,
        K::cl => Register::CL,
        K::ax => Register::AX,
        K::eax => Register::EAX,
        K::rax => Register::RAX,
        K::dx => Register::DX,
        _ if mode == Mode::Long => return None,
        // FS is the C library's.
        K::seg_reg => [Register::ES, Register::CS, Register::SS, Register::DS, Register::GS][r.below(5) as usize],
        K::es => Register::ES,
        K::cs => Register::CS,
        K::ss => Register::SS,
        K::ds => Register::DS,
        K::fs => Register::FS,
        K::gs => Register::GS,
        _ => return None,
    })
}

fn immediate(kind: K, r: &mut Random) -> Option<(OpKind, u64)> {
    Some(match kind {
        K::imm8_const_1 => (OpKind::Immediate8, 1),
        K::imm8 => (OpKind::Immediate8, r.value()),
        K::imm16 => (OpKind::Immediate16, r.value()),
        K::imm32 => (OpKind::Immediate32, r.value()),
        K::imm64 => (OpKind::Immediate64, r.value()),
        K::imm8sex16 => (OpKind::Immediate8to16, r.value()),
        K::imm8sex32 => (OpKind::Immediate8to32, r.value()),
        K::imm8sex64 => (OpKind::Immediate8to64, r.value()),
        K::imm32sex64 => (OpKind::Immediate32to64, r.value()),
        _ => return None,
    })
}

/// An address in the data: mostly aligned for whatever it may be; now and then at the end, behind which there is no page, and beyond.
fn somewhere(r: &mut Random, middle: u64) -> u64 {
    let end = middle + DATA_SIZE as u64 / 2;
    match r.below(16) {
        0 => (end + 16).wrapping_sub(r.below(96)),
        1..6 => middle.wrapping_add(r.below(1200)).wrapping_sub(600),
        _ => middle.wrapping_add(64 * r.below(16)).wrapping_sub(512),
    }
}

/// The accumulator of CMPXCHG8B and CMPXCHG16B becomes what is in memory, as far as the address does not depend on it.
fn agree(insn: &Instruction, state: &mut State, data_at: u64) {
    // Registers of an address of 16 bits have more in their upper halves.
    let wide = insn.memory_base().size() != 2 && insn.memory_index().size() != 2;
    let mask = if wide { u64::MAX } else { 0xffff };
    let value = |r: Register| if r == Register::None { 0 } else { state.gpr[r.number()] & mask };
    let at = value(insn.memory_base())
        .wrapping_add(value(insn.memory_index()).wrapping_mul(insn.memory_index_scale().into()))
        .wrapping_add(insn.memory_displacement64());
    let offset = (at.wrapping_sub(data_at) & mask) as usize;
    let wide = insn.mnemonic() == Mnemonic::Cmpxchg16b;
    let word = |at: usize, n: usize| {
        let mut bytes = [0; 8];
        bytes[..n].copy_from_slice(&state.data[at..at + n]);
        u64::from_le_bytes(bytes)
    };
    let n = if wide { 8 } else { 4 };
    if offset.saturating_add(2 * n) > DATA_SIZE {
        return;
    }
    let (low, high) = (word(offset, n), word(offset + n, n));
    for (r, new) in [(Register::RAX, low), (Register::RDX, high)] {
        if insn.memory_base().full_register() != r && insn.memory_index().full_register() != r {
            state.gpr[r.number()] = new;
        }
    }
}

/// An address, whatever registers it is made of.
fn place_memory(
    insn: &mut Instruction,
    state: &mut State,
    r: &mut Random,
    middle: u64,
    kind: K,
    mode: Mode,
) -> Option<()> {
    let first = if mode == Mode::Long { Register::RAX } else { Register::EAX };
    let stack = first + 4;
    let named: Vec<Register> = (0..insn.op_count())
        .filter(|i| insn.op_kind(*i) == OpKind::Register)
        .map(|i| insn.op_register(i).full_register())
        .collect();
    let any = |r: &mut Random| loop {
        let candidate = first + r.below(mode.registers()) as u32;
        if candidate != stack {
            return candidate;
        }
    };
    let base = if r.below(6) == 0 { stack } else { any(r) };
    let scale = 1 << r.below(4);
    insn.set_memory_base(base);
    insn.set_memory_displ_size(if mode == Mode::Long { 8 } else { 4 });
    if base != stack {
        state.gpr[base.number()] = middle;
    }
    let mut target = somewhere(r, middle);
    if let Some((index, wide)) = vector_index(kind, r, mode) {
        insn.set_memory_index(index);
        insn.set_memory_index_scale(scale);
        target &= !63;
        insn.set_memory_index_scale(scale);
        insn.set_memory_displacement64(target.wrapping_sub(middle) & mode.mask());
        let to_end = (middle + DATA_SIZE as u64 / 2).saturating_sub(target);
        place_indices(state, r, index.number(), wide, to_end as i32 / scale as i32);
        return Some(());
    }
    let index = Some(any(r)).filter(|i| r.below(2) == 0 && *i != base);
    if let Some(index) = index {
        let value = (r.below(128) as i64 - 64) as u64;
        insn.set_memory_index(index);
        insn.set_memory_index_scale(scale);
        state.gpr[index.number()] = value & mode.mask();
        target = target.wrapping_sub(value.wrapping_mul(scale.into()));
    }
    insn.set_memory_displacement64(target.wrapping_sub(middle) & mode.mask());
    // A bit offset in a register reaches beyond the operand.
    if matches!(insn.mnemonic(), Mnemonic::Bt | Mnemonic::Bts | Mnemonic::Btr | Mnemonic::Btc)
        && let Some(offset) = named.first()
    {
        if *offset == base.full_register() || index.is_some_and(|i| i.full_register() == *offset) {
            return None;
        }
        state.gpr[offset.number()] = (r.below(2000) as i64 - 1000) as u64 & mode.mask();
    }
    Some(())
}

/// The register of indices of a gather, and whether they have 64 bits.
fn vector_index(kind: K, r: &mut Random, mode: Mode) -> Option<(Register, bool)> {
    let number = r.below(mode.registers()) as u32;
    Some(match kind {
        K::mem_vsib32x => (Register::XMM0 + number, false),
        K::mem_vsib64x => (Register::XMM0 + number, true),
        K::mem_vsib32y => (Register::YMM0 + number, false),
        K::mem_vsib64y => (Register::YMM0 + number, true),
        _ => return None,
    })
}

/// Indices that mostly stay within the data, which ends at one of them.
fn place_indices(state: &mut State, r: &mut Random, register: usize, wide: bool, end: i32) {
    let far = r.below(4) == 0;
    let mut index = || match r.below(8) {
        0 if far => end + 16,
        _ => r.below(128) as i32 - 64,
    };
    for word in &mut state.vectors[4 * register..4 * register + 4] {
        *word =
            if wide { i64::from(index()) as u64 } else { u64::from(index() as u32) | u64::from(index() as u32) << 32 };
    }
}
