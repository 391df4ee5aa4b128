//! Decode rows against a second decoder, rvdasm: the same mnemonic for every row, whatever its free bits are.
//!
//! rvdasm 0.4 knows I, M, A, F, D, C, Zicsr and the privileged instructions of M- and S-mode. What it does not know is
//! counted and named, not taken for agreement.

use std::collections::{BTreeMap, BTreeSet};

use riscv::cpu::{CpuConfig, Ext};
use riscv::isa::{Insn, decode, rows};
use rvdasm::disassembler::{Disassembler, Xlen};

/// Extensions whose instructions rvdasm must know.
const KNOWN: &[Ext] = &[Ext::I, Ext::M, Ext::A, Ext::F, Ext::D];

/// Rows of these extensions of which it knows a part: it wants reserved fields 0, or the rounding mode that assemblers write.
const NARROWER: &[&str] = &["fence", "fcvt.d.int", "fcvt.d.s"];

/// Our conversions to and from integers are one row for all four integer types.
fn with_integer_type(name: &str, code: u32) -> String {
    name.replace("int", ["w", "wu", "l", "lu"][(code >> 20 & 3) as usize])
}

#[test]
fn mnemonics_agree() {
    let other = Disassembler::new(Xlen::XLEN64);
    let cpu = CpuConfig::max();
    let mut noise = 1u64;
    let mut wrong: BTreeMap<(String, String), u32> = BTreeMap::new();
    let (mut agreed, mut unknown) = (BTreeSet::new(), BTreeSet::new());
    for row in rows() {
        for _ in 0..500 {
            noise = noise.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(0x1405_7b7e_f767_814f);
            let code = row.value | (noise >> 32) as u32 & !row.mask;
            let Some((_, ours)) = decode(Insn(code), &cpu) else { continue };
            let Some(theirs) = other.disassmeble_one(code) else {
                let must_know = ours.ext.iter().any(|e| KNOWN.contains(e)) && !NARROWER.contains(&ours.name);
                if must_know && !ours.name.contains("int") {
                    *wrong.entry((ours.name.into(), "unknown".into())).or_default() += 1;
                }
                unknown.insert(ours.name);
                continue;
            };
            let (ours, theirs) = (with_integer_type(ours.name, code), theirs.name.replace('_', ".").to_lowercase());
            if ours == theirs {
                agreed.insert(ours);
            } else {
                *wrong.entry((ours, theirs)).or_default() += 1;
            }
        }
    }
    println!("{} mnemonics agree; skipped, for rvdasm does not know them: {unknown:?}", agreed.len());
    assert!(wrong.is_empty(), "{wrong:?}");
    assert!(agreed.len() > 120, "{}", agreed.len());
}
