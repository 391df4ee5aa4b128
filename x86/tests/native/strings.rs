//! "String Instructions".

use iced_x86::{Decoder, DecoderOptions};

use crate::host::Native;
use crate::machine::Emulated;
use crate::state::{DATA_SIZE, DF, Random, STATUS, difference};
use crate::undefined::forget_pointers;

/// MOVS, STOS, LODS, CMPS, SCAS of all sizes, in both directions, with and without repeat prefixes.
#[test]
fn strings_go_as_the_processor_has_them() {
    let mut native = Native::new();
    let mut emulated = Emulated::new(&native);
    let middle = emulated.data_at + DATA_SIZE as u64 / 2;
    let mut r = Random(4);
    let mut done = 0;
    for opcode in [0xa4u8, 0xa5, 0xa6, 0xa7, 0xaa, 0xab, 0xac, 0xad, 0xae, 0xaf] {
        for size in [&[][..], &[0x66], &[0x48]] {
            for repeat in [&[][..], &[0xf2], &[0xf3]] {
                for _ in 0..60 {
                    // An operand size goes before, REX behind the repeat prefix.
                    let code = if size == [0x48] { [repeat, size].concat() } else { [size, repeat].concat() };
                    let code = [&code[..], &[opcode]].concat();
                    // Few different bytes, so that comparisons find what they look for now and then.
                    let data = (0..DATA_SIZE).map(|_| if r.below(8) == 0 { r.next() as u8 } else { 0 }).collect();
                    let mut state = r.state();
                    state.flags = r.next() & (STATUS | DF);
                    state.data = data;
                    state.gpr[0] = if r.below(2) == 0 { 0 } else { r.next() };
                    state.gpr[1] = if r.below(4) == 0 { 0 } else { r.below(100) };
                    // At times the two overlap.
                    state.gpr[6] = middle + r.below(64);
                    state.gpr[7] =
                        if r.below(2) == 0 { state.gpr[6] + r.below(8) } else { middle + 1500 + r.below(64) };
                    state.gpr[4] = middle;
                    let mut ours = emulated.run(&code, &state).expect("it does not fault");
                    let mut theirs = state.clone();
                    native.run(&code, &mut theirs);
                    let insn = Decoder::with_ip(64, &code, emulated.at, DecoderOptions::NONE).decode();
                    forget_pointers(&mut ours, &mut theirs);
                    assert!(ours == theirs, "{}", difference(&code, &insn, &state, &ours, &theirs));
                    done += 1;
                }
            }
        }
    }
    println!("{done} strings");
}
