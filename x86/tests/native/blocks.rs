//! Short blocks, and long chains of them.

use iced_x86::{Code, Decoder, DecoderOptions, Encoder, Mnemonic, OpKind, Register};

use crate::encodings;
use crate::host::Native;
use crate::machine::Emulated;
use crate::mode::{Mode, Segments};
use crate::operands::instance;
use crate::state::{DATA, Random, State, cases, difference};
use crate::undefined::{forget_pointers, is_special, undefined_flags};

/// A short block: instructions, and branches over one of them. Flags that one leaves undefined would spread, so there are none
/// such but A, which nothing here asks for.
fn block(codes: &[Code], r: &mut Random, segments: &Segments, at: u64, data_at: u64) -> (Vec<u8>, State) {
    let mut encoder = Encoder::new(64);
    let mut code = Vec::new();
    let mut state = None;
    let length = 2 + r.below(12);
    while (code.len() as u64) < length * 4 {
        let Some((insn, its)) = instance(codes[r.below(codes.len() as u64) as usize], r, segments, data_at) else {
            continue;
        };
        let is_memory = (0..insn.op_count()).any(|i| insn.op_kind(i) == OpKind::Memory);
        // RSP is where it was; other registers may have changed.
        if is_memory && (insn.memory_base() != Register::RSP || insn.memory_index() != Register::None) {
            continue;
        }
        // Vectors may have to be aligned.
        if is_memory && insn.memory_size().size() >= 16 && !insn.memory_displacement64().is_multiple_of(32) {
            continue;
        }
        let encoded = encoder.encode(&insn, at + code.len() as u64).is_ok();
        let bytes = encoder.take_buffer();
        if !encoded {
            continue;
        }
        let insn = Decoder::with_ip(64, &bytes, at + code.len() as u64, DecoderOptions::NONE).decode();
        if undefined_flags(&insn) & !emu_core::engine::flags::ADJUST != 0 {
            continue;
        }
        if r.below(3) == 0 {
            code.extend([0x70 + r.below(16) as u8, bytes.len() as u8]); // Jcc
        }
        code.extend(bytes);
        state.get_or_insert(its);
    }
    (code, state.expect("a block has an instruction"))
}

#[test]
fn short_blocks_do_the_same() {
    let mut native = Native::new();
    let mut emulated = Emulated::new(&native);
    let (at, data_at) = (native.at(), native.base() + DATA as u64);
    let unfit = |m: Mnemonic| {
        use Mnemonic as M;
        is_special(m)
            || matches!(
                m,
                M::Div
                    | M::Idiv
                    | M::Bsf
                    | M::Bsr
                    | M::Cmpxchg
                    | M::Push
                    | M::Pop
                    | M::Leave
                    | M::Enter
                    | M::Cmpxchg16b
                    | M::Lahf
                    | M::Sahf
                    | M::Bt
                    | M::Bts
                    | M::Btr
                    | M::Btc
            )
    };
    let codes: Vec<Code> = encodings::tried(Mode::Long).into_iter().filter(|c| !unfit(c.mnemonic())).collect();
    let mut r = Random(2);
    let mut done = 0;
    for _ in 0..cases() / 4 {
        let (code, state) = block(&codes, &mut r, &emulated.segments, at, data_at);
        let Some(mut ours) = emulated.run(&code, &state) else { panic!("{code:02x?} did not end") };
        let mut theirs = state.clone();
        native.run(&code, &mut theirs);
        forget_pointers(&mut ours, &mut theirs);
        ours.flags &= !emu_core::engine::flags::ADJUST;
        theirs.flags &= !emu_core::engine::flags::ADJUST;
        let first = Decoder::with_ip(64, &code, at, DecoderOptions::NONE).decode();
        assert!(ours == theirs, "{}", difference(&code, &first, &state, &ours, &theirs));
        done += 1;
    }
    println!("{done} blocks");
}

/// Handlers jump to each other: however long a chain of blocks is, it takes no more of the host's stack.
#[test]
fn a_long_chain_takes_no_stack() {
    const STACK: usize = 128 << 10;
    let work = || {
        let mut r = Random(3);
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
