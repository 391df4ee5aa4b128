//! Random instructions, here and in QEMU's user mode: every register, fcsr and memory must agree afterwards.
//!
//! The environment variable `UNDERVISOR_QEMU_RISCV64` names `qemu-riscv64` (10 or later: it must know Zacas, Zabha, Zfa);
//! without it the test is skipped, and says so. `UNDERVISOR_FUZZ_CASES` sets how many cases there are.

use std::os::unix::fs::PermissionsExt;
use std::process::Command;

use emu_core::engine::World;
use emu_core::machine::{End, Machine, Schedule};
use emu_core::random::SplitMix64;
use emu_core::time::Frequency;
use riscv::cpu::{CpuConfig, Ext};
use riscv::hart::Riscv;
use riscv::isa::{Insn, decode, expand, rows};

const BASE: u64 = 0x10_0000;
const CONTROL: u64 = BASE + 0x1000;
const TRAP: u64 = BASE + 0x1100;
const SCRATCH: u64 = BASE + 0x2000;
const SLOTS: u64 = BASE + 0x4000;
/// Words of a case: x1 to x30 at their numbers, f0 to f31 from 32, fcsr at 64.
const WORDS: u64 = 66;
const CASES: u64 = 10_000;
const INPUT: u64 = SLOTS + CASES * 8;
const OUTPUT: u64 = INPUT + CASES * WORDS * 8;
const END: u64 = OUTPUT + CASES * WORDS * 8;

struct Random(SplitMix64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0.next()
    }

    fn below(&mut self, n: u64) -> u64 {
        self.0.below(n)
    }

    /// Integers near the edges, or any.
    fn integer(&mut self) -> u64 {
        let edges =
            [0, 1, u64::MAX, i64::MAX as u64, i64::MIN as u64, i32::MAX as u64, i32::MIN as u64, 0xffff_ffff, 0x80, 63];
        match self.below(4) {
            0 => edges[self.below(edges.len() as u64) as usize],
            1 => self.next() >> self.below(64),
            2 => edges[self.below(edges.len() as u64) as usize].wrapping_add(self.below(5)).wrapping_sub(2),
            _ => self.next(),
        }
    }

    /// Floating-point values near the edges of a format, boxed or not.
    fn float(&mut self) -> u64 {
        let (exponent_bits, fraction_bits, boxes) =
            [(11, 52, 0), (8, 23, u64::MAX << 32), (5, 10, u64::MAX << 16)][self.below(3) as usize];
        let fraction_mask = (1u64 << fraction_bits) - 1;
        let top = (1u64 << exponent_bits) - 1;
        let exponent = match self.below(6) {
            0 => 0,
            1 => top,
            2 => top / 2 + self.below(5) - 2,
            3 => 1 + self.below(3),
            4 => top - 1 - self.below(2),
            _ => self.next() & top,
        };
        let fraction = match self.below(5) {
            0 => 0,
            1 => fraction_mask,
            2 => 1 << self.below(fraction_bits),
            3 => fraction_mask ^ 1 << self.below(fraction_bits),
            _ => self.next() & fraction_mask,
        };
        let value = self.below(2) << (exponent_bits + fraction_bits) | exponent << fraction_bits | fraction;
        if self.below(16) == 0 { self.next() } else { value | boxes }
    }
}

/// A random instruction that both sides can execute in a straight line.
fn instruction(r: &mut Random, cpu: &CpuConfig) -> (u32, bool, &'static str) {
    loop {
        if r.below(6) == 0 {
            let half = r.next() as u16;
            let Some(full) = expand(half, cpu) else { continue };
            let Some((_, row)) = decode(Insn(full), cpu) else { continue };
            let is_memory = matches!(full & 0x7f, 0x03 | 0x07 | 0x23 | 0x27);
            let base = full >> 15 & 31;
            if is_memory && base != 9 && base != 2
                || matches!(full & 0x7f, 0x63 | 0x67 | 0x6f | 0x73)
                || full >> 7 & 31 == 31
            {
                continue;
            }
            return (half.into(), true, row.name);
        }
        let row = &rows()[r.below(rows().len() as u64) as usize];
        let mut insn = row.value | r.next() as u32 & !row.mask;
        let Some((_, decoded)) = decode(Insn(insn), cpu) else { continue };
        if decoded.name != row.name {
            continue;
        }
        let name = row.name;
        match insn & 0x7f {
            0x63 | 0x67 | 0x6f | 0x17 => continue,
            // Of the system opcodes only may-be-operations.
            0x73 if !name.starts_with("mop") => continue,
            0x0f if name != "cbo.zero" && name != "fence" => continue,
            0x03 | 0x07 | 0x23 | 0x27 => insn = insn & !(31 << 15) | 9 << 15,
            0x2f | 0x0f => {
                if name.starts_with("lr") || name.starts_with("sc") {
                    continue;
                }
                if name == "amocas.q" && insn & (1 << 7 | 1 << 20) != 0 {
                    continue;
                }
                insn = insn & !(31 << 15) | 9 << 15;
                if insn == 0x0100_000f {
                    continue;
                }
            }
            0x43 | 0x47 | 0x4b | 0x4f | 0x53 => {
                // Reserved rounding modes are illegal.
                let rounds = row.mask >> 12 & 7 == 0;
                if rounds && matches!(insn >> 12 & 7, 5 | 6) {
                    continue;
                }
            }
            _ => {}
        }
        // x31 holds the way back; a pair would begin at x30.
        if matches!(insn >> 7 & 31, 30 | 31) && insn & 0x7f != 0x23 && insn & 0x7f != 0x27 {
            continue;
        }
        return (insn, false, name);
    }
}

fn i_type(imm: i32, rs1: u32, funct3: u32, rd: u32, opcode: u32) -> u32 {
    assert!((-2048..2048).contains(&imm));
    (imm as u32) << 20 | rs1 << 15 | funct3 << 12 | rd << 7 | opcode
}

fn s_type(imm: i32, rs2: u32, rs1: u32, funct3: u32, opcode: u32) -> u32 {
    let imm = imm as u32;
    (imm >> 5 & 0x7f) << 25 | rs2 << 20 | rs1 << 15 | funct3 << 12 | (imm & 31) << 7 | opcode
}

/// LUI and ADDIW.
fn constant(code: &mut Vec<u32>, rd: u32, value: u64) {
    let low = (value as i32) << 20 >> 20;
    code.push((value as u32).wrapping_sub(low as u32) & 0xffff_f000 | rd << 7 | 0x37);
    code.push(i_type(low, rd, 0, rd, 0x1b));
}

/// The loop around the cases.
fn program() -> Vec<u32> {
    let mut c = Vec::new();
    let top = 0;
    constant(&mut c, 31, CONTROL);
    c.push(i_type(0, 31, 3, 30, 0x03));
    c.push(i_type(512, 30, 3, 1, 0x03));
    c.push(0x0030_9073); // fscsr x1
    (0..32).for_each(|f| c.push(i_type(256 + 8 * f, 30, 3, f as u32, 0x07)));
    (1..30).for_each(|x| c.push(i_type(8 * x, 30, 3, x as u32, 0x03)));
    c.push(i_type(16, 31, 3, 30, 0x03));
    let back = BASE + 4 * (c.len() as u64 + 3);
    constant(&mut c, 31, back);
    c.push(i_type(0, 30, 0, 0, 0x67));
    assert_eq!(BASE + 4 * c.len() as u64, back);
    constant(&mut c, 31, CONTROL);
    c.push(i_type(8, 31, 3, 31, 0x03));
    (1..31).for_each(|x| c.push(s_type(8 * x, x as u32, 31, 3, 0x23)));
    (0..32).for_each(|f| c.push(s_type(256 + 8 * f, f as u32, 31, 3, 0x27)));
    c.push(0x0030_20f3); // frcsr x1
    c.push(s_type(512, 1, 31, 3, 0x23));
    constant(&mut c, 31, CONTROL);
    for (offset, step) in [(0, WORDS as i32 * 8), (8, WORDS as i32 * 8), (16, 8), (24, -1)] {
        c.push(i_type(offset, 31, 3, 1, 0x03));
        c.push(i_type(step, 1, 0, 1, 0x13));
        c.push(s_type(offset, 1, 31, 3, 0x23));
    }
    let distance = (top - c.len() as i32) * 4;
    // beq x1, x0, +8; jal x0, top
    c.push(8 << 7 | 1 << 15 | 0x63);
    let d = (distance - 4) as u32;
    c.push((d >> 20 & 1) << 31 | (d >> 1 & 0x3ff) << 21 | (d >> 11 & 1) << 20 | (d >> 12 & 0xff) << 12 | 0x6f);
    // write(1, SCRATCH page and OUTPUT), exit(0)
    for (at, size) in [(SCRATCH, 0x2000), (OUTPUT, CASES * WORDS * 8)] {
        constant(&mut c, 11, at);
        constant(&mut c, 12, size);
        c.push(i_type(1, 0, 0, 10, 0x13));
        c.push(i_type(64, 0, 0, 17, 0x13));
        c.push(0x73);
        // A pipe takes what it can: go on with the rest.
        c.push(0x00a5_85b3); // add x11, x11, x10
        c.push(0x40a6_0633); // sub x12, x12, x10
        let d = (-6i32 * 4) as u32;
        // bne x12, x0, to "li x10, 1"
        c.push(
            (d >> 12 & 1) << 31
                | (d >> 5 & 0x3f) << 25
                | 12 << 15
                | 1 << 12
                | (d >> 1 & 15) << 8
                | (d >> 11 & 1) << 7
                | 0x63,
        );
    }
    c.push(i_type(0, 0, 0, 10, 0x13));
    c.push(i_type(93, 0, 0, 17, 0x13));
    c.push(0x73);
    assert!(c.len() * 4 < 0x1000);
    c
}

/// One batch: the memory image, and the name of each case's instruction.
fn image(r: &mut Random, cpu: &CpuConfig) -> (Vec<u8>, Vec<(u32, &'static str)>) {
    let mut memory = vec![0u8; (END - BASE) as usize];
    let put = |memory: &mut Vec<u8>, at: u64, bytes: &[u8]| {
        memory[(at - BASE) as usize..][..bytes.len()].copy_from_slice(bytes);
    };
    for (i, word) in program().iter().enumerate() {
        put(&mut memory, BASE + 4 * i as u64, &word.to_le_bytes());
    }
    for (i, word) in [INPUT, OUTPUT, SLOTS, CASES].iter().enumerate() {
        put(&mut memory, CONTROL + 8 * i as u64, &word.to_le_bytes());
    }
    put(&mut memory, TRAP, &0x1050_0073u32.to_le_bytes());
    put(&mut memory, TRAP + 4, &0x0000_006fu32.to_le_bytes());
    let mut names = Vec::new();
    for case in 0..CASES {
        let (insn, compressed, name) = instruction(r, cpu);
        names.push((insn, name));
        let slot = SLOTS + 8 * case;
        put(&mut memory, slot, &insn.to_le_bytes());
        put(&mut memory, slot + if compressed { 2 } else { 4 }, &i_type(0, 31, 0, 0, 0x67).to_le_bytes());
        let atomic = insn & 0x7f == 0x2f;
        for word in 0..WORDS {
            let value = match word {
                2 => SCRATCH + 0x800,
                9 => SCRATCH + 0x1000 + if atomic { 0 } else { r.below(16) },
                0..32 => r.integer(),
                32..64 => r.float(),
                64 => r.below(32) | r.below(5) << 5,
                _ => 0,
            };
            put(&mut memory, INPUT + (case * WORDS + word) * 8, &value.to_le_bytes());
        }
    }
    (memory, names)
}

/// An ELF file with one segment that may be read, written and executed.
fn elf(memory: &[u8]) -> Vec<u8> {
    let mut file = Vec::new();
    file.extend(b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0");
    file.extend(2u16.to_le_bytes());
    file.extend(243u16.to_le_bytes());
    file.extend(1u32.to_le_bytes());
    for word in [BASE, 64, 0] {
        file.extend(word.to_le_bytes());
    }
    file.extend(5u32.to_le_bytes()); // RVC, double-float ABI
    for half in [64u16, 56, 1, 0, 0, 0] {
        file.extend(half.to_le_bytes());
    }
    file.extend(1u32.to_le_bytes());
    file.extend(7u32.to_le_bytes());
    for word in [0x1000, BASE, BASE, memory.len() as u64, memory.len() as u64, 0x1000] {
        file.extend(word.to_le_bytes());
    }
    file.resize(0x1000, 0);
    file.extend(memory);
    file
}

/// Scratch page and outputs, as this machine leaves them.
fn run_here(memory: &[u8], cpu: CpuConfig) -> Vec<u8> {
    let mut world = World::new(Frequency::default());
    world.ram.add(BASE, (memory.len() as u64).next_multiple_of(4096)).unwrap();
    world.ram.write(BASE, memory).unwrap();
    let mut hart = Riscv::new(cpu);
    hart.csr.mtvec = TRAP;
    hart.csr.mstatus = 1 << 13;
    let mut machine = Machine::new(world, vec![hart], Schedule::new(20_000, 0));
    machine.vcpus[0].core.pc = BASE;
    // The first ECALL ends it.
    let end = machine.run(u64::MAX);
    let csr = &machine.vcpus[0].arch.csr;
    assert_eq!((end, csr.mcause), (End::Deadlock, 11), "at {:#x}, tval {:#x}", csr.mepc, csr.mtval);
    let mut bytes = vec![0; (0x2000 + CASES * WORDS * 8) as usize];
    machine.world.ram.read(SCRATCH, &mut bytes[..0x2000]).unwrap();
    machine.world.ram.read(OUTPUT, &mut bytes[0x2000..]).unwrap();
    bytes
}

#[test]
fn random_instructions_do_the_same_in_qemu() {
    let Some(qemu) = std::env::var_os("UNDERVISOR_QEMU_RISCV64") else {
        println!("skipped: UNDERVISOR_QEMU_RISCV64 names no qemu-riscv64");
        return;
    };
    let total: u64 = std::env::var("UNDERVISOR_FUZZ_CASES").ok().and_then(|n| n.parse().ok()).unwrap_or(100_000);
    let seed: u64 = std::env::var("UNDERVISOR_FUZZ_SEED").ok().and_then(|n| n.parse().ok()).unwrap_or(1);
    let cpu = CpuConfig::rv64().without(Ext::Zkr);
    let mut r = Random(SplitMix64(seed));
    let mut wrong = Vec::new();
    let path = std::env::temp_dir().join(format!("undervisor-fuzz-{}", std::process::id()));
    let (mut done, mut kinds) = (0, std::collections::BTreeSet::new());
    while done < total {
        let (memory, names) = image(&mut r, &cpu);
        kinds.extend(names.iter().map(|(_, n)| *n));
        std::fs::write(&path, elf(&memory)).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
        let theirs = Command::new(&qemu).args(["-cpu", "max"]).arg(&path).output().unwrap();
        assert!(theirs.status.success(), "{}: {}", theirs.status, String::from_utf8_lossy(&theirs.stderr));
        let ours = run_here(&memory, cpu);
        assert_eq!(theirs.stdout.len(), ours.len());
        let word = |b: &[u8], i: u64| u64::from_le_bytes(b[0x2000 + i as usize * 8..][..8].try_into().unwrap());
        let input = |i: u64| u64::from_le_bytes(memory[(INPUT - BASE + i * 8) as usize..][..8].try_into().unwrap());
        for (case, (insn, name)) in names.iter().enumerate() {
            for w in 1..65u64 {
                let i = case as u64 * WORDS + w;
                // x31 is not an output.
                if w != 31 && word(&ours, i) != word(&theirs.stdout, i) {
                    let sources = [*insn >> 15 & 31, *insn >> 20 & 31, *insn >> 27];
                    let offset = if insn & 0x7c == 0x50 || insn & 0x70 == 0x40 { 32 } else { 0 };
                    let values = sources.map(|s| format!("{:#x}", input(case as u64 * WORDS + u64::from(s) + offset)));
                    wrong.push(format!(
                        "{name} {insn:#010x}: word {w} is {:#x}, in QEMU {:#x}; sources {values:?} fcsr {:#x}",
                        word(&ours, i),
                        word(&theirs.stdout, i),
                        input(case as u64 * WORDS + 64),
                    ));
                }
            }
        }
        if wrong.is_empty() {
            assert_eq!(ours[..0x2000], theirs.stdout[..0x2000], "scratch memory");
        }
        done += CASES;
    }
    let _ = std::fs::remove_file(&path); // it lies in the directory for such files
    println!("{done} cases of {} instructions", kinds.len());
    wrong.sort();
    assert!(
        wrong.is_empty(),
        "{} differences:\n{}",
        wrong.len(),
        wrong.iter().step_by(wrong.len().div_ceil(40)).cloned().collect::<Vec<_>>().join("\n")
    );
}
