//! Each encoding by itself.

use std::collections::{BTreeMap, BTreeSet};

use iced_x86::{Decoder, DecoderOptions, Encoder};

use crate::encodings;
use crate::host::Native;
use crate::machine::Emulated;
use crate::operands::instance;
use crate::state::{DATA, Random, cases, difference};
use crate::undefined::{forget_undefined_results, is_undefined, undefined_flags};

#[test]
fn every_encoding_does_what_the_processor_does() {
    let mut native = Native::new();
    let mut emulated = Emulated::new(&native);
    let (at, data_at) = (native.at(), native.base() + DATA as u64);
    let codes = encodings::tried();
    let each = cases() / codes.len() as u64 + 1;
    let mut r = Random(1);
    let (mut done, mut faults, mut tried, mut untried) = (0, 0, BTreeSet::new(), BTreeSet::new());
    let mut mnemonics = BTreeSet::new();
    let mut wrong: BTreeMap<String, (u64, String)> = BTreeMap::new();
    let mut encoder = Encoder::new(64);
    for code in codes {
        let mut instances = 0;
        for _ in 0..each {
            let Some((insn, state)) = instance(code, &mut r, data_at) else { continue };
            let encoded = encoder.encode(&insn, at).is_ok();
            let bytes = encoder.take_buffer();
            if !encoded {
                continue;
            }
            let insn = Decoder::with_ip(64, &bytes, at, DecoderOptions::NONE).decode();
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
    println!("{done} cases ({faults} of them faults) of {encodings} encodings of {mnemonics} mnemonics");
    println!("without an instance: {untried:?}");
    for (code, (n, example)) in &wrong {
        println!("{code}: {n} wrong, such as\n{example}");
    }
    assert!(wrong.is_empty(), "{} encodings differ", wrong.len());
    assert!(tried.len() > 250, "{}", tried.len());
}
