//! Our decoder, iced-x86, against another, capstone: what is an instruction, how long it is, and what it is called, in code of all widths.

use std::collections::BTreeMap;

use capstone::prelude::*;
use emu_core::random::SplitMix64;
use iced_x86::{Decoder, DecoderOptions};

/// Prefixes, a map, an opcode, operands.
fn bytes(r: &mut SplitMix64, bits: u32) -> Vec<u8> {
    let mut out = vec![];
    if r.next().is_multiple_of(3) {
        out.push(r.of(&[0x66, 0x67, 0xf2, 0xf3, 0x2e, 0x64]));
    }
    if bits == 64 && r.next().is_multiple_of(3) {
        out.push(0x40 | r.next() as u8 & 15);
    }
    let maps: [&[u8]; 8] =
        [&[], &[], &[0x0f], &[0x0f], &[0x0f, 0x38], &[0x0f, 0x3a], &[0xc5, 0xf9], &[0xc4, 0xe2, 0x79]];
    out.extend(r.of(&maps));
    out.extend(r.next().to_le_bytes());
    out.extend(r.next().to_le_bytes());
    out.truncate(15);
    out
}

/// What a decoder makes of some bytes: length and mnemonic.
type Decoded = Option<(usize, String)>;

/// Names that mean the same.
const ALIASES: &[(&str, &str)] = &[
    ("cbw", "cwde"),
    ("cwd", "cdq"),
    ("reservednop", "nop"),
    ("prefetchit0", "nop"),
    ("prefetchit1", "nop"),
    ("getsecq", "getsec"),
    ("int1", "icebp"),
    ("xlatb", "xlat"),
    ("fstpnce", "fstp"),
    ("fnsetpm", "fsetpm"),
    ("vmgexit", "vmmcall"),
    ("seamcall", "encls"),
    ("fneni", "feni8087_nop"),
    ("fndisi", "fdisi8087_nop"),
];

/// Capstone's name without prefixes, and without what tells a far branch, a size, or that FWAIT is not waited for.
fn is_same(ours: &str, theirs: &str) -> bool {
    let theirs = theirs.rsplit(' ').next().unwrap_or(theirs);
    let plain = theirs.strip_prefix('l').unwrap_or(theirs);
    ours == theirs
        || ours == plain
        || theirs.starts_with(ours)
        || ours.starts_with(theirs)
        || (ours.starts_with("cmp") && theirs.starts_with("cmp"))
        || (ours.starts_with("vcmp") && theirs.starts_with("vcmp"))
        || (ours.len() > 4 && theirs.len() > 4 && ours[..4] == theirs[..4])
        || ALIASES.contains(&(ours, theirs))
}

/// A difference that is known: whose it is, by the manual.
struct Difference {
    why: &'static str,
    applies: fn(u32, &[u8], &Decoded, &Decoded) -> bool,
}

fn name(d: &Decoded) -> &str {
    d.as_ref().map_or("", |d| &d.1)
}

fn is_legacy_prefix(b: u8) -> bool {
    matches!(b, 0x66 | 0x67 | 0xf2 | 0xf3 | 0xf0 | 0x26 | 0x2e | 0x36 | 0x3e | 0x64 | 0x65)
}

/// The bytes behind legacy prefixes and REX, and whether there was 66, F2, F3, F0 or REX.
fn behind_prefixes(bytes: &[u8]) -> (&[u8], bool) {
    let mut rest = bytes;
    let mut has = false;
    while let Some((b, more)) = rest.split_first() {
        if !is_legacy_prefix(*b) && b & 0xf0 != 0x40 {
            break;
        }
        has |= matches!(b, 0x66 | 0xf2 | 0xf3 | 0xf0) || b & 0xf0 == 0x40;
        rest = more;
    }
    (rest, has)
}

/// In all of these the manual is with iced-x86.
const DIFFERENCES: &[Difference] = &[
    Difference {
        why: "66, F2, F3, LOCK or REX before a VEX prefix is #UD (SDM vol. 2A, \"VEX and the 66H, F2H, and F3H prefixes\")",
        applies: |_, b, ours, _| ours.is_none() && matches!(behind_prefixes(b), ([0xc4 | 0xc5, ..], true)),
    },
    Difference {
        why: "NP: these are #UD with 66, F2 or F3 (SDM vol. 2A, \"Opcode Column in the Instruction Summary Table\")",
        applies: |_, b, ours, _| ours.is_none() && matches!(behind_prefixes(b), ([0x0f, ..], true)),
    },
    Difference {
        why: "there is no such control or debug register",
        applies: |_, b, ours, theirs| {
            ours.is_none() && name(theirs) == "mov" && matches!(behind_prefixes(b).0, [0x0f, 0x20..=0x23, ..])
        },
    },
    Difference {
        why: "UD0 and UD1 have a ModR/M byte (SDM vol. 2B, \"UD—Undefined Instruction\")",
        applies: |_, _, ours, _| matches!(name(ours), "ud0" | "ud1"),
    },
    Difference {
        why: "0F 0D and 0F 18 to 0F 1F are NOPs, whatever their operands (SDM vol. 2D, \"Two-byte Opcode Map\"); MPX is gone",
        applies: |_, b, _, _| matches!(behind_prefixes(b).0, [0x0f, 0x0d | 0x18..=0x1f, ..]),
    },
    Difference { why: "MOVSXD without REX.W is an instruction", applies: |_, _, ours, _| name(ours) == "movsxd" },
    Difference {
        why: "aliases of x87 instructions, which the opcode map leaves blank and processors execute",
        applies: |_, b, ours, theirs| {
            theirs.is_none() && name(ours).starts_with('f') && matches!(behind_prefixes(b).0, [0xd8..=0xdf, ..])
        },
    },
    Difference {
        why: "LOCK before what cannot be locked is #UD",
        applies: |_, b, ours, _| {
            ours.is_none() && b.iter().take_while(|b| is_legacy_prefix(**b) || **b & 0xf0 == 0x40).any(|b| *b == 0xf0)
        },
    },
    Difference {
        why: "in 16-bit code 66 is part of these opcodes as elsewhere",
        applies: |bits, b, ours, _| {
            bits == 16 && ours.is_some() && b.contains(&0x66) && matches!(behind_prefixes(b), ([0x0f, ..], true))
        },
    },
    Difference {
        why: "MOV to CS is #UD",
        applies: |_, b, ours, _| ours.is_none() && matches!(behind_prefixes(b).0, [0x8e, ..]),
    },
    Difference {
        why: "fences are fences with any r/m (SDM vol. 2A, \"LFENCE—Load Fence\")",
        applies: |_, _, ours, theirs| theirs.is_none() && matches!(name(ours), "lfence" | "mfence" | "sfence"),
    },
    Difference {
        why: "66 before a near branch of 64-bit code is ignored by processors of Intel",
        applies: |bits, b, ours, theirs| bits == 64 && b.contains(&0x66) && name(ours) == name(theirs),
    },
    Difference {
        why: "F2 and F3 before BSF, BSR and IMUL are ignored",
        applies: |_, _, ours, theirs| theirs.is_none() && matches!(name(ours), "bsf" | "bsr" | "imul"),
    },
    Difference {
        why: "REX.W goes before 66, and changes nothing of PAUSE",
        applies: |bits, _, ours, _| {
            bits == 64
                && matches!(name(ours), "insd" | "outsd" | "pause" | "jrcxz" | "jecxz" | "loop" | "loope" | "loopne")
        },
    },
    Difference {
        why: "a gather whose registers are not three different ones is #UD",
        applies: |_, _, ours, theirs| ours.is_none() && name(theirs).contains("gather"),
    },
    Difference {
        why: "VIA's PadLock wants a REP prefix, except for XSTORE",
        applies: |_, b, _, _| matches!(behind_prefixes(b).0, [0x0f, 0xa6 | 0xa7, ..]),
    },
    Difference {
        why: "EVEX or XOP behind a prefix that they do not allow, or with reserved bits",
        applies: |_, b, ours, _| ours.is_none() && matches!(behind_prefixes(b).0, [0x62 | 0x8f, ..]),
    },
    Difference {
        why: "SWAPGS is one of 64-bit code only",
        applies: |bits, _, ours, theirs| bits != 64 && ours.is_none() && name(theirs) == "swapgs",
    },
    Difference {
        why: "PAUSE is F3 90, whatever else stands before it",
        applies: |_, _, ours, _| name(ours) == "pause",
    },
    Difference {
        why: "later than this capstone: AVX-VNNI(-INT8, -INT16), AVX-NE-CONVERT, CMPccXADD, RAO-INT, SM3, SM4, ENQCMD, MSRLIST, ...",
        applies: |_, _, ours, theirs| {
            const NEWER: &[&str] = &[
                "vpdp",
                "cmp",
                "aadd",
                "aand",
                "aor",
                "axor",
                "vsm",
                "vbcst",
                "vcvtne",
                "enqcmd",
                "movdir",
                "wrss",
                "wruss",
                "vpmadd52",
                "vaes",
                "vgf2p8",
                "gf2p8",
                "vpclmul",
                "xstore",
                "xcrypt",
                "ccs",
                "montmul",
                "xsha",
                "pconfig",
                "sm",
                "tc",
                "td",
                "tile",
                "aesenc",
                "aesdec",
                "encodekey",
                "pbndkb",
                "serialize",
                "hreset",
                "sttilecfg",
                "ldtilecfg",
                "uiret",
                "senduipi",
                "clui",
                "stui",
                "testui",
                "tdcall",
                "seam",
                "rdmsrlist",
                "wrmsrlist",
                "wrmsrns",
                "eret",
                "vp2",
                "loadiwkey",
                "lkgs",
                "ptwrite",
                "rdpru",
                "tlbsync",
                "invlpgb",
                "xresldtrk",
                "xsusldtrk",
                "rmp",
                "pvalidate",
                "psmash",
                "umwait",
                "tpause",
                "umonitor",
                "incssp",
                "clrssbsy",
                "rstorssp",
                "setssbsy",
                "saveprevssp",
                "mcommit",
                "monitorx",
            ];
            theirs.is_none() && NEWER.iter().any(|n| name(ours).starts_with(n))
        },
    },
];

/// How many of each width: `DECODER_CASES`, or some ten thousand.
fn cases() -> u64 {
    std::env::var("DECODER_CASES").ok().and_then(|s| s.parse().ok()).unwrap_or(40_000)
}

#[test]
fn both_decoders_agree_but_for_what_is_known() {
    use arch::x86::ArchMode;
    let mut r = SplitMix64(1);
    let mut unknown: BTreeMap<String, (u32, String)> = BTreeMap::new();
    let mut known = vec![0u32; DIFFERENCES.len()];
    let mut same = 0;
    for (bits, mode) in [(16, ArchMode::Mode16), (32, ArchMode::Mode32), (64, ArchMode::Mode64)] {
        let cs = Capstone::new().x86().mode(mode).build().unwrap();
        for _ in 0..cases() {
            let b = bytes(&mut r, bits);
            let insn = Decoder::with_ip(bits, &b, 0, DecoderOptions::NONE).decode();
            let ours: Decoded =
                (!insn.is_invalid()).then(|| (insn.len(), format!("{:?}", insn.mnemonic()).to_lowercase()));
            let theirs = cs.disasm_count(&b, 0, 1).unwrap();
            let theirs: Decoded = theirs.first().map(|i| (i.bytes().len(), i.mnemonic().unwrap_or("").to_string()));
            let is_equal = match (&ours, &theirs) {
                (None, None) => true,
                (Some((n, a)), Some((m, b))) => n == m && is_same(a, b),
                _ => false,
            };
            if is_equal {
                same += 1;
            } else if let Some(i) = DIFFERENCES.iter().position(|d| (d.applies)(bits, &b, &ours, &theirs)) {
                known[i] += 1;
            } else {
                let hex: String = b.iter().map(|b| format!("{b:02x} ")).collect();
                let row = unknown.entry(format!("{bits} {} / {}", name(&ours), name(&theirs)));
                row.or_insert((0, format!("{hex} {ours:?} {theirs:?}"))).0 += 1;
            }
        }
    }
    println!("{same} alike");
    for (difference, count) in DIFFERENCES.iter().zip(known) {
        println!("{count:6} {}", difference.why);
    }
    let list: Vec<String> = unknown.iter().map(|(k, (n, example))| format!("{n:6} {k}: {example}")).collect();
    assert!(unknown.is_empty(), "{}", list.join("\n"));
}
