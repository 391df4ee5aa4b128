//! "String Instructions".

use iced_x86::{Decoder, DecoderOptions};

use crate::host::Native;
use crate::machine::Emulated;
use crate::mode::Mode;
use crate::state::{DATA_SIZE, DF, Random, STATUS, State, Trap, cases, difference};
use crate::undefined::forget_pointers;

/// MOVS, STOS, LODS, CMPS, SCAS of all sizes, in both directions, with and without repeat prefixes.
#[test]
fn strings_go_as_the_processor_has_them() {
    strings(Mode::Long, 60);
}

/// With both address sizes, and to the end of what is there.
#[test]
fn strings_of_compatibility_mode() {
    for mode in Mode::COMPATIBILITY {
        strings(mode, (cases() / 10_000).clamp(4, 200));
    }
}

/// Tries so many cases of each combination of prefixes.
fn strings(mode: Mode, each: u64) {
    let Some(mut native) = Native::of(mode) else {
        println!("{mode:?}: strings are skipped, for the system gives no LDT");
        return;
    };
    let mut emulated = Emulated::new(&native);
    let segments = native.segments;
    let middle = segments.offset(emulated.data_at) + DATA_SIZE as u64 / 2;
    let is_long = mode == Mode::Long;
    let mut r = Random::new(4);
    let mut done = 0;
    // REX goes behind the repeat prefix, the others before.
    let sizes: &[&[u8]] = if is_long { &[&[], &[0x66], &[0x48]] } else { &[&[], &[0x66], &[0x67], &[0x66, 0x67]] };
    for opcode in [0xa4u8, 0xa5, 0xa6, 0xa7, 0xaa, 0xab, 0xac, 0xad, 0xae, 0xaf] {
        for size in sizes {
            for repeat in [&[][..], &[0xf2], &[0xf3]] {
                for _ in 0..each {
                    let code = if *size == [0x48] { [repeat, size].concat() } else { [size, repeat].concat() };
                    let mut code = [&code[..], &[opcode]].concat();
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
                    if !is_long {
                        state.gpr = std::array::from_fn(|i| if i < 8 { state.gpr[i] & mode.mask() } else { 0 });
                        state.selectors = segments.all().map(|s| s.selector);
                        compatibility(mode, &mut state, &mut code, &mut r, middle);
                    }
                    let mut ours = emulated.run(&code, &state).expect("it ends");
                    let mut theirs = state.clone();
                    native.run(&code, &mut theirs);
                    let ip = segments.ip(emulated.at);
                    let insn = Decoder::with_ip(mode.bits(), &code, ip, DecoderOptions::NONE).decode();
                    forget_pointers(&mut ours, &mut theirs);
                    // Which operand of CMPS is looked at first differs: between AMD's families 19h and 1Ah, and with the prefix and the size.
                    if matches!(opcode, 0xa6 | 0xa7) && ours.trap.is_some() && ours != theirs {
                        let at_fault = State { flags: state.flags, ..ours.clone() };
                        ours.trap = of_second(&mut emulated, &code, &at_fault).or(ours.trap);
                    }
                    assert!(ours == theirs, "{mode:?}\n{}", difference(&code, &insn, &state, &ours, &theirs));
                    done += 1;
                }
            }
        }
    }
    println!("{mode:?}: {done} strings");
}

/// What an element of CMPS would raise if only its second operand were looked at, which is that of SCAS.
fn of_second(emulated: &mut Emulated, code: &[u8], state: &State) -> Option<Trap> {
    let (opcode, prefixes) = code.split_last().expect("an opcode");
    let once = prefixes.iter().copied().filter(|b| !matches!(b, 0xf2 | 0xf3));
    emulated.run(&once.chain([opcode + 8]).collect::<Vec<_>>(), state).expect("it ends").trap
}

/// Upper halves that an address size of 16 bits ignores, the end of the data or the beginning of the segment, and other segments.
fn compatibility(mode: Mode, state: &mut State, code: &mut Vec<u8>, r: &mut Random, middle: u64) {
    const HALF: u64 = DATA_SIZE as u64 / 2;
    // In flat segments there is the test itself below the data.
    let is_open = mode == Mode::Flat;
    match r.below(8) {
        0 => state.gpr[7] = middle + HALF - r.below(200),
        1 => state.gpr[6] = middle + HALF - r.below(200),
        2 if !is_open => state.gpr[7] = middle - HALF + r.below(100),
        3 if !is_open => state.gpr[6] = middle - HALF + r.below(100),
        _ => {}
    }
    for i in [1, 6, 7] {
        if r.below(4) == 0 && !is_open {
            // A count of 32 bits is only that large where all of it is used, and then memory ends it.
            state.gpr[i] |= r.below(3) << 16;
        }
    }
    if r.below(8) == 0 {
        code.insert(0, [0x26, 0x36, 0x65][r.below(3) as usize]);
    }
}
