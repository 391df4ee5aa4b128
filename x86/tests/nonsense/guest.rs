//! Makes a machine that makes no sense from a source of choices: a seed, or a fuzzer's bytes.

use emu_core::bus::VcpuSignal;
use emu_core::engine::Arch;
use emu_core::file::File;
use emu_core::machine::{End, Machine};
use iced_x86::Decoder;
use x86::control::{cr0, cr4, efer};
use x86::model::Feature;
use x86::platform::loader::Protocol;
use x86::platform::pc::{self, Images, PcConfig};
use x86::processor::X86;
use x86::registers::SSP;
use x86::segment::{Attributes, Segment, Table};
use x86_bare::nonsense::Choices;

/// Where things are; all of it within the first 2 MiB.
const BASE: u64 = 0x10_0000;
const SIZE: u64 = 0x2_0000;
const GDT: u64 = BASE + 0x8000;
const IDT: u64 = BASE + 0x9000;
const TSS: u64 = BASE + 0xa000;
const TABLES: u64 = BASE + 0xc000;

/// A number that may mean something: an address of what is there, a mask, a small one, or noise.
fn word(r: &mut Choices) -> u64 {
    match r.below(8) {
        0 => r.below(16),
        1 | 2 => BASE + r.below(SIZE),
        3 => r.below(0x10_0000),
        4 => 1 << r.below(64),
        5 => (1u64 << r.below(64)).wrapping_neg(),
        6 => r.of(&[0xfee0_0000, 0xfec0_0000, 0xfed0_0000, 0xe000_0000, 0xa_0000]) + (r.below(0x1000) & !3),
        _ => r.next(),
    }
}

fn selector(r: &mut Choices) -> u16 {
    if r.one_in(8) { r.next() as u16 } else { (r.below(24) << 3 | r.of(&[0, 0, 3, 4, 7])) as u16 }
}

/// A descriptor: of a segment, a gate, a TSS, or noise.
fn descriptor(r: &mut Choices) -> u64 {
    let access = r.below(256) | 0x80;
    let sized = |base: u64, limit: u64, access: u64, flags: u64| {
        limit & 0xffff
            | base << 16 & 0xff_ffff_0000
            | access << 40
            | (limit >> 16 & 15) << 48
            | flags << 52
            | base >> 24 << 56
    };
    match r.below(8) {
        0 => r.next(),
        1 => u64::from(selector(r)) << 16 | access << 40 | (BASE + r.below(0x8000)) & 0xffff | BASE >> 16 << 48,
        2 => sized(TSS + r.below(4) * 0x80, r.of(&[0x67, 0x2b, 0x66, 0xfff]), r.of(&[0x89, 0x8b, 0x81, 0xe9]), 0),
        3 => sized(GDT, 0xfff, 0x82, 0),
        4 | 5 => sized(0, 0xf_ffff, r.of(&[0x9b, 0x93, 0xfb, 0xf3, 0x9f, 0x97, 0xdb]), r.of(&[0xa, 0xc, 0x8])),
        _ => sized(r.of(&[0, BASE, 0x1000]), r.below(0x10_0000), access, r.below(16)),
    }
}

/// An entry of a paging structure: mostly one that leads somewhere.
fn entry(r: &mut Choices, to: u64) -> u64 {
    let noise = if r.one_in(16) { r.next() } else { 0 };
    to | r.of(&[7, 7, 7, 3, 5, 1, 0x67, 0x87, 0xe7, 0x107, 0]) ^ noise
}

const MSRS: [u32; 40] = [
    0x10,
    0x1b,
    0x3a,
    0x3b,
    0x79,
    0x8b,
    0xc1,
    0xe1,
    0x122,
    0x174,
    0x175,
    0x176,
    0x186,
    0x1a0,
    0x1c8,
    0x1d9,
    0x277,
    0x2ff,
    0x309,
    0x38d,
    0x38f,
    0x390,
    0x400,
    0x6e0,
    0x808,
    0x80b,
    0x830,
    0x838,
    0xda0,
    0x1500,
    0x14ce,
    0x14cf,
    0xc000_0080,
    0xc000_0081,
    0xc000_0100,
    0xc000_010f,
    0xc001_0015,
    0xc001_0200,
    0xc001_0201,
    0xc001_0300,
];
const PORTS: [u16; 40] = [
    0x00, 0x20, 0x21, 0xa0, 0xa1, 0x40, 0x42, 0x43, 0x60, 0x61, 0x64, 0x70, 0x71, 0x80, 0x92, 0xb2, 0xb3, 0xe9, 0xf4,
    0x1ce, 0x3f8, 0x3f9, 0x3fb, 0x402, 0x4d0, 0x510, 0x511, 0x514, 0x518, 0x600, 0x604, 0x608, 0x620, 0xcf8, 0xcf9,
    0xcfc, 0xcfd, 0xcfe, 0xc000, 0xc040,
];

/// A few instructions that system software would use, with operands that it would not.
fn system_code(r: &mut Choices, bits: u32, code: &mut Vec<u8>) {
    let mov = |register: u8, value: u64, code: &mut Vec<u8>| {
        if bits == 16 {
            code.push(0x66);
        }
        code.push(0xb8 + register);
        code.extend((value as u32).to_le_bytes());
    };
    let value = word(r);
    match r.below(10) {
        0 => {
            mov(1, r.of(&MSRS).into(), code);
            mov(0, value, code);
            mov(2, if r.one_in(2) { 0 } else { word(r) }, code);
            code.extend([0x0f, r.of(&[0x30, 0x30, 0x32])]);
        }
        1 | 2 => {
            mov(2, r.of(&PORTS).into(), code);
            mov(0, if r.one_in(2) { 0x8000_0000 | value & 0xffff } else { value }, code);
            code.push(r.of(&[0xec, 0xed, 0xee, 0xef, 0x6c, 0x6f]));
        }
        3 => {
            let n = r.of(&[0u8, 0, 2, 3, 4, 4, 8]);
            code.extend([0x0f, 0x20, 0xc0 | (n & 7) << 3]);
            if bits == 16 {
                code.push(0x66);
            }
            code.extend([0x0f, 0xba, 0xf8, r.below(32) as u8]);
            code.extend([0x0f, 0x22, 0xc0 | (n & 7) << 3]);
        }
        4 => code.extend([0x0f, r.of(&[0x21, 0x23]), 0xc0 | (r.below(8) as u8) << 3]),
        5 => {
            mov(0, selector(r).into(), code);
            code.extend(r.of(&[[0x8e, 0xd0], [0x8e, 0xd8], [0x8e, 0xe0], [0x8e, 0xc0]]));
        }
        6 => {
            mov(0, selector(r).into(), code);
            code.extend([0x0f, 0x00, 0xc0 | (r.below(6) as u8) << 3]);
        }
        7 => {
            // A far transfer.
            for _ in 0..5 {
                mov(0, if r.one_in(2) { selector(r).into() } else { BASE + r.below(0x8000) }, code);
                code.push(0x50);
            }
            code.push(r.of(&[0xcf, 0xcb, 0x9d]));
        }
        8 => code.extend([0xcd, r.next() as u8]),
        _ => code.extend(r.of(&[
            &[0xfb][..],
            &[0xfa],
            &[0xf4],
            &[0x0f, 0xa2],
            &[0x0f, 0x01, 0xf8],
            &[0x0f, 0x05],
            &[0x0f, 0x34],
            &[0x0f, 0x08],
            &[0x0f, 0x01, 0xc8],
            &[0x0f, 0x01, 0xc9],
            &[0x0f, 0x01, 0xd1],
            &[0xf1],
            &[0xcc],
            &[0x9d],
            &[0x0f, 0x01, 0xca],
        ])),
    }
}

/// An instruction that there is: bytes of all maps, until they are one.
fn valid(r: &mut Choices, bits: u32, code: &mut Vec<u8>) {
    for _ in 0..8 {
        let mut bytes = vec![];
        if r.one_in(3) {
            bytes.push(r.of(&[0x66, 0x67, 0xf2, 0xf3, 0xf0, 0x2e, 0x36, 0x64, 0x65, 0x26]));
        }
        if bits == 64 && r.one_in(2) {
            bytes.push(0x40 | r.below(16) as u8);
        }
        let map: &[u8] = r.of(&[
            &[][..],
            &[],
            &[],
            &[0x0f],
            &[0x0f],
            &[0x0f, 0x38],
            &[0x0f, 0x3a],
            &[0xc5, 0xf9],
            &[0xc4, 0xe2, 0x79],
        ]);
        bytes.extend(map);
        bytes.extend(r.next().to_le_bytes());
        bytes.extend(r.next().to_le_bytes());
        let mut decoder = Decoder::new(bits, &bytes, 0);
        let insn = decoder.decode();
        if !insn.is_invalid() {
            code.extend(&bytes[..insn.len()]);
            return;
        }
    }
}

/// A mode to begin in: the width of its code, CR0, CR4, EFER.
type Start = (u32, u64, u64, u64);
const LONG: u64 = efer::LME | efer::LMA | efer::SCE | efer::NXE;
const PROTECTED: u64 = cr0::PE | cr0::ET | cr0::NE;
const STARTS: [Start; 9] = [
    (16, cr0::ET, 0, 0),
    (16, PROTECTED, 0, 0),
    (32, PROTECTED, 0, 0),
    (32, PROTECTED | cr0::PG | cr0::WP, cr4::PSE | cr4::VME, 0),
    (32, PROTECTED | cr0::PG, cr4::PAE | cr4::PGE, efer::NXE),
    (32, PROTECTED | cr0::PG, cr4::PAE, LONG),
    (64, PROTECTED | cr0::PG | cr0::WP, cr4::PAE | cr4::OSFXSR | cr4::OSXSAVE | cr4::PGE, LONG),
    (64, PROTECTED | cr0::PG, cr4::PAE | cr4::PCIDE | cr4::SMEP | cr4::SMAP | cr4::PKE, LONG),
    // Virtual-8086 mode is entered below.
    (16, PROTECTED | cr0::PG, cr4::VME | cr4::PSE, 0),
];

fn config(choice: u64) -> PcConfig {
    let protocol = Protocol::Raw { bits: 64, at: BASE };
    const INTEL: &str = "intel,+arch_lbr,+wrmsrns,+msrlist,+user_msr,+msr_imm";
    const AMD: &str = "amd,+amd_lbr_v2,+amd_lbr_pmc_freeze";
    let cpu = ["intel,-shstk,-ibt,+lbr", "amd,-shstk", INTEL, AMD][(choice & 1 | choice >> 1 & 2) as usize];
    PcConfig {
        cpu: cpu.into(),
        vcpus: 1 + (choice >> 1 & 1) as u32,
        protocol,
        memory: 8 << 20,
        quantum: 1000,
        ..PcConfig::default()
    }
}

/// The board, with nothing on it yet.
pub fn board(choice: u64) -> Machine<X86> {
    let kernel = File { name: "nonsense".into(), bytes: vec![0xf4; 16] };
    pc::build(&config(choice), &Images { kernel: Some(kernel), ..Images::default() })
        .expect("the board is as it always is")
}

/// Fills tables, code and the first processor's state.
pub fn fill(machine: &mut Machine<X86>, r: &mut Choices) {
    let is_v8086 = r.one_in(9);
    let (bits, cr0, cr4, efer) = if is_v8086 { STARTS[8] } else { STARTS[r.below(8) as usize] };
    let levels = if efer & efer::LMA != 0 { 4 } else { 2 };
    let ram = &mut machine.world.ram;
    let mut put = |at: u64, value: u64| ram.store(at, 8, value).unwrap();
    for i in 0..64 {
        put(GDT + 8 * i, descriptor(r));
    }
    put(GDT, 0);
    for i in 0..512 {
        put(IDT + 8 * i, if efer & efer::LMA != 0 && i & 1 == 1 { 0 } else { descriptor(r) });
    }
    for i in 0..64 {
        put(TSS + 8 * i, word(r));
    }
    // Some gates lead to code, whatever the rest does.
    for vector in [6, 13, 14] {
        let at = BASE + r.below(0x4000);
        let step = if efer & efer::LMA != 0 { 16 } else { 8 };
        let gate = at & 0xffff | 8 << 16 | 0x8e << 40 | at >> 16 << 48;
        put(IDT + step * vector, gate);
    }
    let code = if bits == 64 { 0x00af_9b00_0000_ffff } else { 0x00cf_9b00_0000_ffff };
    put(GDT + 8, code);
    put(GDT + 16, 0x00cf_9300_0000_ffff);
    if cr4 & cr4::PAE != 0 {
        let (pml4, pdpt, pd, pt) = (TABLES, TABLES + 0x1000, TABLES + 0x2000, TABLES + 0x3000);
        put(pml4, pdpt | 7);
        put(pdpt, pd | if levels == 4 { 7 } else { 1 });
        put(pd, pt | 7);
        for i in 0..512 {
            let at = i << 12;
            let to = if at >> 16 == BASE >> 16 { at | 7 } else { entry(r, at) };
            put(pt + 8 * i, to);
        }
        for table in [pml4, pdpt, pd] {
            for i in 1..8 {
                let to = BASE + (r.below(SIZE) & !0xfff);
                put(table + 8 * i, if levels == 2 && table == pdpt { 0 } else { entry(r, to) });
            }
        }
    } else {
        for i in 0..512 {
            let pair = (i * 0x1000) | 7 | (if r.one_in(8) { r.next() & 0xfff } else { 7 }) << 32;
            put(TABLES + 8 * i, pair);
        }
        put(TABLES, 0x87 | (0x40_0087 << 32));
    }
    let mut bytes = vec![];
    while bytes.len() < 0x6000 {
        match r.below(8) {
            0 => bytes.extend(r.next().to_le_bytes()),
            1 | 2 => system_code(r, bits, &mut bytes),
            _ => valid(r, bits, &mut bytes),
        }
    }
    machine.world.ram.write(BASE, &bytes).unwrap();
    // Real mode finds some of it below 64 KiB.
    machine.world.ram.write(0x1000, &bytes[..0x6000]).unwrap();
    let is_real = cr0 & cr0::PE == 0 || is_v8086;
    let cpu = &mut machine.vcpus[0].arch;
    (cpu.cr0, cpu.cr4, cpu.efer, cpu.cr3) = (cr0, cr4, efer, TABLES);
    if cr4 & cr4::PAE != 0 && levels == 2 {
        cpu.cr3 = TABLES + 0x1000;
        cpu.pdptes = [(TABLES + 0x2000) | 1, 0, 0, 0];
    }
    cpu.gdtr = Table { base: GDT, limit: r.of(&[0x1ff, 0x1ff, 0x7f]) };
    cpu.idtr = if is_real { Table { base: 0, limit: 0x3ff } } else { Table { base: IDT, limit: 0xfff } };
    cpu.tr = Segment { selector: 0x18, base: TSS, limit: 0x67, attributes: Attributes(0x8b) };
    let dpl = if is_v8086 || r.one_in(4) && !is_real { 3 } else { 0 };
    for (i, segment) in cpu.segments.iter_mut().enumerate() {
        let is_code = i == 1;
        *segment = if is_real {
            Segment {
                selector: 0x100,
                base: 0x1000,
                limit: 0xffff,
                attributes: Attributes(if is_code { 0x9b } else { 0x93 } | dpl << 5),
            }
        } else {
            let kind = if is_code { 0x9b } else { 0x93 };
            let size = match (is_code, bits) {
                (true, 64) => 0xa000,
                (_, 16) => 0x8000,
                _ => 0xc000,
            };
            let selector = (if is_code { 8 } else { 16 }) | dpl as u16;
            Segment { selector, base: 0, limit: u32::MAX, attributes: Attributes(size | kind | dpl << 5) }
        };
    }
    if cpu.model.has(Feature::Shstk) && cr0 & cr0::PE != 0 && r.one_in(2) {
        protect_control_flow(machine, r, cr4 & cr4::PAE != 0);
    }
    let cpu = &mut machine.vcpus[0].arch;
    cpu.rflags = 2
        | if is_v8086 { 1 << 17 } else { 0 }
        | if r.one_in(4) { 3 << 12 } else { 0 }
        | if r.one_in(8) { 1 << 8 } else { 0 };
    if r.one_in(4) {
        cpu.rflags |= 1 << 9;
    }
    let core = &mut machine.vcpus[0].core;
    core.pc = if is_real { 0x1000 } else { BASE };
    for i in 0..16 {
        core.regs[i] = word(r);
    }
    core.regs[4] = if is_real { 0xff0 } else { BASE + SIZE - 0x100 };
    core.spaces_changed = true;
    core.check_interrupts = true;
}

/// Control-flow Enforcement Technology, with two shadow stacks at the end of what is there; their tokens may be good.
fn protect_control_flow(machine: &mut Machine<X86>, r: &mut Choices, has_wide_entries: bool) {
    const SHADOW: u64 = BASE + 0x1_0000;
    let (token, user) = (SHADOW + 0xff8, SHADOW + 0x1000);
    let ram = &mut machine.world.ram;
    ram.store(token, 8, token | r.below(2)).unwrap();
    ram.store(user + 0x100, 8, (user + 0x108) | 1).unwrap();
    if has_wide_entries {
        let pt = TABLES + 0x3000;
        for (page, flags) in [(SHADOW, 0x41), (user, 0x45)] {
            ram.store(pt + (page >> 12 & 0x1ff) * 8, 8, page | flags).unwrap();
        }
    }
    let cpu = &mut machine.vcpus[0].arch;
    let there = if cpu.model.has(Feature::Ibt) { 0x3f } else { 3 };
    cpu.cr0 |= cr0::WP;
    cpu.cr4 |= cr4::CET;
    cpu.cet.user = r.next() & there;
    cpu.cet.supervisor = r.next() & there;
    cpu.cet.ssp = [token, token, token, user + 0x100];
    cpu.cet.interrupt_ssp_table = TSS;
    machine.vcpus[0].core.regs[usize::from(SSP)] = if r.one_in(2) { SHADOW + 0x800 } else { user + 0x800 };
}

/// Something comes from outside.
pub fn disturb(machine: &mut Machine<X86>, r: &mut Choices) {
    let vcpu = r.below(machine.vcpus.len() as u64) as usize;
    let mut h = machine.vcpus[vcpu].at(&mut machine.world);
    match r.below(8) {
        // INIT is the end of most: it comes seldom.
        0 if r.one_in(4) => X86::signal(&mut h, VcpuSignal::Pin { pin: x86::apic::pin::INIT, level: true }),
        0 | 1 => {
            let pin = r.of(&[x86::apic::pin::LINT0, x86::apic::pin::LINT1, x86::apic::pin::SMI]);
            X86::signal(&mut h, VcpuSignal::Pin { pin, level: r.one_in(2) });
        }
        2 => h.arch.pending.nmi = true,
        // Interrupts that it sends itself, of all modes.
        3 | 4 => {
            x86::apic::write(&mut h, 0xf0, 4, 0x1ff);
            x86::apic::write(&mut h, 0x300, 4, 1 << 18 | r.below(8) << 8 | r.below(256));
        }
        5 => X86::signal(&mut h, VcpuSignal::Message { message: r.below(4) as u32, value: r.next() }),
        _ => {
            let at = (r.below(0x40) << 4) as u32;
            let value = word(r) & 0xffff_ffff;
            x86::apic::write(&mut h, at, 4, value);
        }
    }
    h.core.check_interrupts = true;
}

/// Runs for some thousand instructions, with disturbances; then from a snapshot, which must come to the same.
pub fn run(bytes: &[u8]) {
    let mut r = Choices::new(bytes);
    let choice = r.next();
    let mut machine = board(choice);
    fill(&mut machine, &mut r);
    for _ in 0..4 {
        let until = machine.retired() + 1 + r.below(1500);
        if !matches!(machine.run(until), End::Limit | End::Deadlock | End::Idle(_)) {
            break;
        }
        disturb(&mut machine, &mut r);
    }
    let image = machine.save();
    let mut other = board(choice);
    other.restore(&image).expect("what was saved can be restored");
    assert_eq!(other.state_hash(), machine.state_hash());
    let until = machine.retired() + 1500;
    assert_eq!(machine.run(until), other.run(until));
    assert_eq!(machine.state_hash(), other.state_hash());
}
