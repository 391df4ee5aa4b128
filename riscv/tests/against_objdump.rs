//! Decode rows against GNU objdump: the same mnemonic where both know an encoding, the same encodings known, and the same
//! text for a compressed instruction as for what it expands to.
//!
//! The environment variable `UNDERVISOR_RISCV64_OBJDUMP` names an objdump for RISC-V (binutils 2.44 or later: it must know
//! Zabha, Zacas, Zimop); without it the test is skipped, and says so. An ELF file's attributes tell objdump which
//! extensions there are, so that what it prints as data is what it takes for illegal.

use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;

use emu_core::random::SplitMix64;
use riscv::cpu::CpuConfig;
use riscv::isa::{Insn, decode, expand, rows};

/// What the model `max` has, in objdump's spelling.
const ARCH: &str = "rv64i2p1_m2p0_a2p1_f2p2_d2p2_c2p0_h1p0_zicbom1p0_zicbop1p0_zicboz1p0_zicond1p0_zicsr2p0_zifencei2p0_\
zihintntl1p0_zihintpause2p0_zimop1p0_zabha1p0_zacas1p0_zawrs1p0_zfa1p0_zfh1p0_zfhmin1p0_zba1p0_zbb1p0_zbc1p0_zbkb1p0_\
zbkc1p0_zbkx1p0_zbs1p0_zca1p0_zcb1p0_zcd1p0_zcmop1p0_smrnmi1p0_svinval1p0";

/// An ELF object with code and the attributes that name the extensions.
fn object(code: &[u8]) -> Vec<u8> {
    let mut arch = vec![5u8];
    arch.extend(ARCH.bytes());
    arch.push(0);
    let mut attributes = b"A".to_vec();
    attributes.extend((4 + 6 + 5 + arch.len() as u32).to_le_bytes());
    attributes.extend(b"riscv\0\x01");
    attributes.extend((5 + arch.len() as u32).to_le_bytes());
    attributes.extend(arch);
    let names = b"\0.text\0.riscv.attributes\0.shstrtab\0";
    let sections: [(u32, u32, u64, &[u8]); 3] =
        [(1, 1, 6, code), (7, 0x7000_0003, 0, &attributes), (25, 3, 0, &names[..])];

    let size: usize = sections.iter().map(|s| s.3.len().next_multiple_of(8)).sum();
    let mut file = b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0".to_vec();
    file.extend([1u16, 243].iter().flat_map(|x| x.to_le_bytes()));
    file.extend(1u32.to_le_bytes());
    file.extend([0, 0, 64 + size as u64].iter().flat_map(|x| x.to_le_bytes()));
    file.extend(5u32.to_le_bytes()); // RVC, double-float ABI
    file.extend([64u16, 0, 0, 64, 4, 3].iter().flat_map(|x| x.to_le_bytes()));
    let mut headers = vec![0u8; 64];
    for (name, kind, flags, bytes) in sections {
        headers.extend([name, kind].iter().flat_map(|x| x.to_le_bytes()));
        let words = [flags, 0, file.len() as u64, bytes.len() as u64, 0, 2, 0];
        headers.extend(words.iter().flat_map(|x| x.to_le_bytes()));
        file.extend(bytes);
        file.resize(file.len().next_multiple_of(8), 0);
    }
    file.extend(headers);
    file
}

/// What objdump prints for each of these encodings, 2 or 4 bytes long: mnemonic and operands. `None` for data.
fn disassemble(objdump: &str, codes: &[Vec<u8>], options: &str) -> Vec<Option<(String, String)>> {
    let name = std::env::temp_dir().join(format!("undervisor-objdump-{}-{}.o", std::process::id(), codes.len()));
    std::fs::write(&name, object(&codes.concat())).unwrap();
    let out = Command::new(objdump).args(["-d", "-z", "-w", "-M", options]).arg(&name).output().expect("objdump runs");
    std::fs::remove_file(&name).unwrap();
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    let text = String::from_utf8(out.stdout).unwrap();
    let mut lines: BTreeMap<u64, (String, String)> = BTreeMap::new();
    for line in text.lines() {
        let mut fields = line.split('\t');
        let Some(at) = fields.next().and_then(|f| f.trim().strip_suffix(':')) else { continue };
        let (Ok(at), Some(_)) = (u64::from_str_radix(at, 16), fields.next()) else { continue };
        let mnemonic = fields.next().unwrap_or_default().trim().to_owned();
        let operands = fields.next().unwrap_or_default();
        // A branch's target is an address, which depends on where the instruction stands.
        let operands = operands.split_once(" #").map_or(operands, |(o, _)| o).trim().to_owned();
        lines.insert(at, (mnemonic, operands));
    }
    let mut at = 0;
    let found = codes.iter().map(|code| {
        let (mnemonic, operands) = lines.get(&at).unwrap_or_else(|| panic!("a line at {at:#x}")).clone();
        at += code.len() as u64;
        (!mnemonic.starts_with('.') && mnemonic != "unimp").then_some((mnemonic, operands))
    });
    found.collect()
}

/// Our name of an encoding, spelled as objdump does.
fn spelled(name: &str, code: u32) -> String {
    let field = |low: u32, width: u32| code >> low & ((1 << width) - 1);
    let order = || ["", ".rl", ".aq", ".aqrl"][field(25, 2) as usize];
    let integer = ["w", "wu", "l", "lu"][field(20, 2) as usize];
    match name {
        _ if code & 0x7f == 0x2f => format!("{name}{}", order()),
        _ if name.contains("int") && name.starts_with("fcvt") => name.replace("int", integer),
        "mop.r" => format!("mop.r.{}", field(30, 1) << 4 | field(26, 2) << 2 | field(20, 2)),
        "mop.rr" => format!("mop.rr.{}", field(30, 1) << 2 | field(26, 2)),
        "fence" if code == 0x0100_000f => "pause".into(),
        "fence" if code == 0x8330_000f => "fence.tso".into(),
        _ => name.into(),
    }
}

/// Encodings on which the two may differ, and why.
fn is_known_difference(code: u32, ours: &str, theirs: &str) -> bool {
    let (rd, rs2, funct3) = (code >> 7 & 31, code >> 20 & 31, code >> 12 & 7);
    match (ours, theirs) {
        // Odd registers are no pair: reserved, and refused when the instruction runs.
        (_, "illegal") if ours.starts_with("amocas.q") => rd % 2 != 0 || rs2 % 2 != 0,
        // Conversions that are exact take any rounding mode; objdump wants the one that assemblers write.
        ("fcvt.d.h" | "fcvt.d.s" | "fcvt.s.h" | "fcvt.d.w" | "fcvt.d.wu", "illegal") => funct3 != 0,
        // "Base implementations shall ignore these fields": fm, rd and rs1 of FENCE; rd, rs1 and imm of FENCE.I.
        ("fence", "illegal") => code & 0xf00f_8f80 != 0,
        ("fence.i", "illegal") => code & 0xffff_8f80 != 0,
        // Returns of privilege modes that there are no longer.
        ("illegal", "uret" | "hret") => true,
        // Other names: of hints, and of PACKW with x0.
        ("ori", _) if theirs.starts_with("prefetch.") => rd == 0,
        ("packw", "zext.h") => rs2 == 0,
        _ => false,
    }
}

fn objdump() -> Option<String> {
    let name = std::env::var("UNDERVISOR_RISCV64_OBJDUMP").ok();
    if name.is_none() {
        eprintln!("skipped: UNDERVISOR_RISCV64_OBJDUMP names no objdump");
    }
    name
}

#[test]
fn mnemonics_agree() {
    let Some(objdump) = objdump() else { return };
    let cpu = CpuConfig::max();
    let mut r = SplitMix64(1);
    let mut codes: Vec<u32> = Vec::new();
    for row in rows() {
        codes.extend((0..200).map(|_| row.value | r.next() as u32 & !row.mask));
        // One bit that the row fixes, turned over.
        codes.extend(
            (0..32)
                .filter(|bit| *bit > 1 && row.mask >> bit & 1 != 0)
                .map(|bit| (row.value | r.next() as u32 & !row.mask) ^ 1 << bit),
        );
    }
    codes.extend((0..100_000).map(|_| r.next() as u32 | 3));
    codes.retain(|c| c & 3 == 3 && c & 0x1f != 0x1f);
    let bytes: Vec<Vec<u8>> = codes.iter().map(|c| c.to_le_bytes().to_vec()).collect();
    let theirs = disassemble(&objdump, &bytes, "no-aliases");

    let mut agreed = BTreeSet::new();
    let mut wrong: BTreeMap<(String, String), (u32, u32)> = BTreeMap::new();
    for (code, theirs) in codes.iter().zip(theirs) {
        let ours = decode(Insn(*code), &cpu).map(|(_, row)| spelled(row.name, *code));
        let theirs = theirs.map(|t| t.0);
        if ours == theirs {
            agreed.extend(ours);
        } else {
            let [ours, theirs] = [ours, theirs].map(|n| n.unwrap_or_else(|| "illegal".into()));
            if !is_known_difference(*code, &ours, &theirs) {
                wrong.entry((ours, theirs)).or_insert((0, *code)).0 += 1;
            }
        }
    }
    println!("{} mnemonics agree", agreed.len());
    for ((ours, theirs), (n, example)) in &wrong {
        println!("{ours} here, {theirs} there: {n} times, such as {example:#010x}");
    }
    assert!(wrong.is_empty());
    assert!(agreed.len() > 300, "{}", agreed.len());
}

#[test]
fn expansions_agree() {
    let Some(objdump) = objdump() else { return };
    let cpu = CpuConfig::max();
    let short: Vec<u16> = (0..=u16::MAX).filter(|x| x & 3 != 3).collect();
    let expanded: Vec<Option<u32>> = short.iter().map(|x| expand(*x, &cpu)).collect();
    // Four bytes each, so that a jump leads to the same place as its expansion does.
    const C_NOP: u32 = 1;
    let bytes: Vec<Vec<u8>> = short.iter().map(|c| (u32::from(*c) | C_NOP << 16).to_le_bytes().to_vec()).collect();
    let theirs = disassemble(&objdump, &bytes, "numeric");
    let bytes: Vec<Vec<u8>> = expanded.iter().map(|c| c.unwrap_or(0x13).to_le_bytes().to_vec()).collect();
    let ours = disassemble(&objdump, &bytes, "numeric");
    let (mut agreed, mut wrong) = (0, 0);
    for (((x, expanded), theirs), ours) in short.iter().zip(&expanded).zip(theirs).zip(ours) {
        let ours = expanded.and(ours);
        // Hints keep their own names: what they expand to writes x0, or adds or shifts by nothing.
        let is_hint = expanded
            .is_some_and(|e| e >> 7 & 31 == 0 || e & 0x7f == 0x13 && e >> 20 & 0xfff == e >> 20 & 0x400)
            && theirs.as_ref().is_some_and(|t| t.0.starts_with("c.") || t.0 == "addi");
        // C.MV is ADD rd, x0, rs2, which has no other name as a long instruction.
        let is_move =
            |o: &(String, String), t: &(String, String)| o.0 == "add" && t.0 == "mv" && o.1.replace(",x0,", ",") == t.1;
        let is_same = ours == theirs || matches!((&ours, &theirs), (Some(o), Some(t)) if is_move(o, t));
        // C.ADDI16SP with an immediate of 0 is reserved.
        let is_reserved = *x == 0x6101 && ours.is_none();
        if is_same {
            agreed += 1;
        } else if !is_hint && !is_reserved {
            wrong += 1;
            if wrong < 60 {
                println!("{x:#06x}: {ours:?} here, {theirs:?} there");
            }
        }
    }
    println!("{agreed} expansions agree");
    assert_eq!(wrong, 0);
}
