//! Each encoding by itself.

use std::collections::{BTreeMap, BTreeSet};

use iced_x86::{Decoder, DecoderOptions, Encoder};

use crate::compatibility;
use crate::encodings;
use crate::host::Native;
use crate::machine::Emulated;
use crate::mode::Mode;
use crate::operands::instance;
use crate::state::{DATA, Random, cases, difference};
use crate::undefined::{forget_undefined_results, is_undefined, undefined_flags};

#[test]
fn every_encoding_does_what_the_processor_does() {
    every_encoding(Mode::Long, cases(), 250);
}

/// In compatibility mode, 32-bit and 16-bit code with 32-bit and 16-bit stacks.
#[test]
fn every_encoding_of_compatibility_mode() {
    for mode in Mode::COMPATIBILITY {
        every_encoding(mode, cases() / Mode::COMPATIBILITY.len() as u64, 1000);
    }
}

/// Tries so many cases of a mode, of at least so many encodings.
fn every_encoding(mode: Mode, cases: u64, least: usize) {
    let Some(mut native) = Native::of(mode) else {
        println!("{mode:?}: skipped, for the system gives no LDT");
        return;
    };
    let mut emulated = Emulated::new(&native);
    let segments = native.segments;
    let ip = segments.ip(native.at());
    let data_at = segments.offset(native.base() + DATA as u64);
    let codes = encodings::tried(mode);
    let each = cases / codes.len() as u64 + 1;
    let mut r = Random::new(1);
    let (mut done, mut faults, mut tried, mut untried) = (0, 0, BTreeSet::new(), BTreeSet::new());
    let mut mnemonics = BTreeSet::new();
    let mut wrong: BTreeMap<String, (u64, String)> = BTreeMap::new();
    let mut encoder = Encoder::new(mode.bits());
    for code in codes {
        let mut instances = 0;
        for _ in 0..each {
            let Some((insn, state)) = instance(code, &mut r, &segments, data_at) else { continue };
            let encoded = encoder.encode(&insn, ip).is_ok();
            let bytes = encoder.take_buffer();
            if !encoded {
                continue;
            }
            let insn = Decoder::with_ip(mode.bits(), &bytes, ip, DecoderOptions::NONE).decode();
            if is_undefined(&insn, &state) {
                continue;
            }
            let mut ours = emulated.run(&bytes, &state).expect("it ends");
            let mut theirs = state.clone();
            native.run(&bytes, &mut theirs);
            instances += 1;
            faults += u64::from(ours.trap.is_some());
            let undefined = undefined_flags(&insn);
            ours.flags &= !undefined;
            theirs.flags &= !undefined;
            forget_undefined_results(&insn, &state, &mut ours, &mut theirs);
            if mode != Mode::Long {
                compatibility::forget(&insn, &state, &mut ours, &theirs);
            }
            if ours != theirs {
                let text = difference(&bytes, &insn, &state, &ours, &theirs);
                wrong.entry(format!("{code:?}")).or_insert((0, text)).0 += 1;
            }
        }
        done += instances;
        if instances > 0 {
            tried.insert(code);
            mnemonics.insert(format!("{:?}", code.mnemonic()));
        } else {
            untried.insert(code);
        };
    }
    let (encodings, mnemonics) = (tried.len(), mnemonics.len());
    println!("{mode:?}: {done} cases ({faults} of them faults) of {encodings} encodings of {mnemonics} mnemonics");
    println!("without an instance: {untried:?}");
    for (code, (n, example)) in &wrong {
        println!("{code}: {n} wrong, such as\n{example}");
    }
    assert!(wrong.is_empty(), "{} encodings differ", wrong.len());
    assert!(tried.len() > least, "{}", tried.len());
}
