//! Short blocks, and long chains of them.

use iced_x86::{Code, Decoder, DecoderOptions, Encoder, Instruction, Mnemonic, OpCodeOperandKind, OpKind, Register};

use crate::encodings;
use crate::host::Native;
use crate::machine::Emulated;
use crate::mode::{Mode, Segments};
use crate::operands::instance;
use crate::state::{DATA, DATA_SIZE, Random, State, cases, difference};
use crate::undefined::{forget_pointers, is_special, undefined_flags};

/// A short block: instructions, and branches over one of them. Flags that one leaves undefined would spread, so there are none
/// such but A, which nothing here asks for.
fn block(codes: &[Code], r: &mut Random, segments: &Segments, at: u64, data_at: u64) -> (Vec<u8>, State) {
    let bits = segments.mode.bits();
    let mut encoder = Encoder::new(bits);
    let mut code = Vec::new();
    let mut state = None;
    let length = 2 + r.below(12);
    while (code.len() as u64) < length * 4 {
        let Some((insn, its)) = instance(codes[r.below(codes.len() as u64) as usize], r, segments, data_at) else {
            continue;
        };
        if has_memory(&insn) && !is_fit(&insn) {
            continue;
        }
        let encoded = encoder.encode(&insn, at + code.len() as u64).is_ok();
        let bytes = encoder.take_buffer();
        if !encoded {
            continue;
        }
        let insn = Decoder::with_ip(bits, &bytes, at + code.len() as u64, DecoderOptions::NONE).decode();
        if undefined_flags(&insn) & !emu_core::engine::flags::ADJUST != 0 {
            continue;
        }
        if r.below(3) == 0 {
            code.extend([0x70 + r.below(16) as u8, bytes.len() as u8]); // Jcc
        }
        code.extend(bytes);
        state.get_or_insert(its);
    }
    let mut state = state.expect("a block has an instruction");
    // With nothing above a stack pointer of 16 bits.
    state.gpr[4] = data_at + DATA_SIZE as u64 / 2;
    (code, state)
}

fn has_memory(insn: &Instruction) -> bool {
    (0..insn.op_count()).any(|i| insn.op_kind(i) == OpKind::Memory)
}

/// Whether an operand in memory is where it was before the block, and is one that nothing but its page or its limit forbids.
fn is_fit(insn: &Instruction) -> bool {
    // The stack pointer is where it was; other registers may have changed.
    let is_based = match insn.memory_base() {
        Register::RSP | Register::ESP => true,
        base => base == Register::None && insn.memory_displ_size() == 2,
    };
    // Vectors may have to be aligned; in 16 bits, an operand around the end of the segment may fault in any of its parts.
    let (at, size) = (insn.memory_displacement64(), insn.memory_size().size() as u64);
    let is_inside = insn.memory_displ_size() != 2 || at + size.max(512) <= 0xffff;
    is_based && insn.memory_index() == Register::None && is_inside && (size < 16 || at.is_multiple_of(32))
}

/// Whether a mnemonic is none for a block: what it leaves differs between processors, or changes what those behind it find.
fn is_unfit(mnemonic: Mnemonic) -> bool {
    const NAMES: &str = "div idiv bsf bsr cmpxchg push pop leave enter cmpxchg16b lahf sahf bt bts btr btc \
        pushf pushfd popf popfd pusha pushad popa popad int3 into bound hlt in out cli sti lds les lss lgs lar lsl verr verw arpl";
    let name = format!("{mnemonic:?}").to_lowercase();
    is_special(mnemonic) || NAMES.split(' ').any(|n| n == name)
}

/// Whether an encoding writes a segment register.
fn writes_segment(code: Code) -> bool {
    use OpCodeOperandKind as K;
    let kind = code.op_code().op0_kind();
    matches!(kind, K::seg_reg | K::es | K::cs | K::ss | K::ds | K::fs | K::gs)
}

#[test]
fn short_blocks_do_the_same() {
    short_blocks(Mode::Long, cases() / 4);
}

/// In compatibility mode, 32-bit and 16-bit code.
#[test]
fn short_blocks_of_compatibility_mode() {
    for mode in Mode::COMPATIBILITY {
        short_blocks(mode, cases() / 20);
    }
}

fn short_blocks(mode: Mode, count: u64) {
    let Some(mut native) = Native::of(mode) else {
        println!("{mode:?}: blocks are skipped, for the system gives no LDT");
        return;
    };
    let mut emulated = Emulated::new(&native);
    let segments = native.segments;
    let (at, data_at) = (segments.ip(native.at()), segments.offset(native.base() + DATA as u64));
    let mut codes = encodings::tried(mode);
    codes.retain(|c| !is_unfit(c.mnemonic()) && !writes_segment(*c));
    let mut r = Random::new(2);
    let mut faults = 0;
    for _ in 0..count {
        let (code, state) = block(&codes, &mut r, &segments, at, data_at);
        let Some(mut ours) = emulated.run(&code, &state) else { panic!("{code:02x?} did not end") };
        let mut theirs = state.clone();
        native.run(&code, &mut theirs);
        faults += u64::from(ours.trap.is_some());
        forget_pointers(&mut ours, &mut theirs);
        ours.flags &= !emu_core::engine::flags::ADJUST;
        theirs.flags &= !emu_core::engine::flags::ADJUST;
        let first = Decoder::with_ip(mode.bits(), &code, at, DecoderOptions::NONE).decode();
        assert!(ours == theirs, "{mode:?}\n{}", difference(&code, &first, &state, &ours, &theirs));
    }
    println!("{mode:?}: {count} blocks, {faults} of them end in a fault");
}

/// Handlers jump to each other: however long a chain of blocks is, it takes no more of the host's stack.
#[test]
fn a_long_chain_takes_no_stack() {
    const STACK: usize = 128 << 10;
    let work = || {
        let mut r = Random::new(3);
        let native = Native::new();
        let mut emulated = Emulated::new(&native);
        let unfit = |m| matches!(m, Mnemonic::Div | Mnemonic::Idiv | Mnemonic::Leave);
        let codes: Vec<Code> = encodings::tried(Mode::Long).into_iter().filter(|c| !unfit(c.mnemonic())).collect();
        for _ in 0..300 {
            let (mut code, state) = block(&codes, &mut r, &emulated.segments, emulated.at, emulated.data_at);
            // Back to the start, for ever; pushes and pops leave the data sooner or later.
            let back = -(code.len() as i32 + 5);
            code.push(0xe9);
            code.extend(back.to_le_bytes());
            emulated.put(&code);
            emulated.stand(&state);
            emulated.vcpu.run(&mut emulated.world, 0, 100_000);
        }
    };
    std::thread::Builder::new().stack_size(STACK).spawn(work).unwrap().join().unwrap();
}
