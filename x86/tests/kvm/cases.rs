//! Cases in 32-bit protected mode, with 32-bit and PAE paging, in real mode, and in 64-bit mode.

use emu_core::engine::World;
use emu_core::machine::{End as MachineEnd, Machine, Schedule};
use emu_core::time::Frequency;
use x86::control::{cr0, cr4, efer};
use x86::processor::X86;
use x86::segment::{Attributes, Segment, Table};

use crate::kvm::{End, Kind, Oracle, RAM};

const CODE: u64 = 0x1000;
const GDT: u64 = 0x2000;
const IDT: u64 = 0x3000;
const TSS: u64 = 0x4000;
const OTHER_TSS: u64 = 0x4100;
const HANDLERS: u64 = 0x5000;
const STACK: u64 = 0x8000;
const TABLES: u64 = 0x1_0000;
/// Pages that the cases are about.
const PAGE: u64 = 0x4_0000;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mode {
    Real,
    Protected,
    Paging32,
    Pae,
    Long,
}

/// What is run, and what there is to compare.
struct Case {
    name: &'static str,
    mode: Mode,
    /// Rights of the page at `PAGE`.
    rights: u64,
    more_cr0: u64,
    more_cr4: u64,
    code: &'static [u8],
}

const fn case(name: &'static str, mode: Mode, code: &'static [u8]) -> Case {
    Case { name, mode, rights: 3, more_cr0: 0, more_cr4: 0, code }
}

const READ: &[u8] = &[0xa1, 0x10, 0x00, 0x04, 0x00, 0xf4]; // mov eax, [40010h]; hlt
const WRITE: &[u8] = &[0xa3, 0x10, 0x00, 0x04, 0x00, 0xf4];
const READ_64: &[u8] = &[0x8b, 0x04, 0x25, 0x10, 0x00, 0x04, 0x00, 0xf4];
const WRITE_64: &[u8] = &[0x89, 0x04, 0x25, 0x10, 0x00, 0x04, 0x00, 0xf4];

fn cases() -> Vec<Case> {
    use Mode as M;
    let mut list = vec![
        case("load a segment", M::Protected, &[0x66, 0xb8, 0x10, 0, 0x8e, 0xe0, 0xf4]),
        case("load an absent segment", M::Protected, &[0x66, 0xb8, 0x20, 0, 0x8e, 0xe0, 0xf4]),
        case("load a segment beyond the table", M::Protected, &[0x66, 0xb8, 0xf8, 0xff, 0x8e, 0xe0, 0xf4]),
        case("load SS with code", M::Protected, &[0x66, 0xb8, 0x08, 0, 0x8e, 0xd0, 0xf4]),
        case("load SS with null", M::Protected, &[0x31, 0xc0, 0x8e, 0xd0, 0xf4]),
        case("load a null segment", M::Protected, &[0x31, 0xc0, 0x8e, 0xe0, 0xf4]),
        case("far jump", M::Protected, &[0xea, 0x07, 0x10, 0, 0, 0x08, 0, 0xf4]),
        case("far jump to data", M::Protected, &[0xea, 0x07, 0x10, 0, 0, 0x10, 0, 0xf4]),
        case("far call and return", M::Protected, &[0x9a, 0x08, 0x10, 0, 0, 0x08, 0, 0xf4, 0xcb]),
        case("call gate", M::Protected, &[0x9a, 0, 0, 0, 0, 0x30, 0, 0xf4]),
        case("LTR twice", M::Protected, &[0x66, 0xb8, 0x28, 0, 0x0f, 0, 0xd8, 0x0f, 0, 0xd8, 0xf4]),
        case("task switch by JMP", M::Protected, &[0xea, 0, 0, 0, 0, 0x38, 0, 0xf4]),
        case("task switch by CALL", M::Protected, &[0x9a, 0, 0, 0, 0, 0x38, 0, 0xf4]),
        case("LLDT of what is none", M::Protected, &[0x66, 0xb8, 0x10, 0, 0x0f, 0, 0xd0, 0xf4]),
        case("UD2", M::Protected, &[0x0f, 0x0b, 0xf4]),
        case("DIV by 0", M::Protected, &[0x31, 0xc9, 0xf7, 0xf1, 0xf4]),
        case("MOV to CR0: PG without PE", M::Protected, &[0xb8, 0, 0, 0, 0x80, 0x0f, 0x22, 0xc0, 0xf4]),
        case("MOV to CR0: NW without CD", M::Protected, &[0xb8, 1, 0, 0, 0x20, 0x0f, 0x22, 0xc0, 0xf4]),
        case("MOV to CR4: reserved", M::Protected, &[0xb8, 0, 0, 0, 0x80, 0x0f, 0x22, 0xe0, 0xf4]),
        case("MOV to CR4: PSE", M::Protected, &[0xb8, 0x10, 0, 0, 0, 0x0f, 0x22, 0xe0, 0xf4]),
        case("MOV to DR7: high bits", M::Long, &[0x48, 0xb8, 0, 0, 0, 0, 1, 0, 0, 0, 0x0f, 0x23, 0xf8, 0xf4]),
        case(
            "WRMSR EFER: reserved",
            M::Protected,
            &[0xb9, 0x80, 0, 0, 0xc0, 0xb8, 2, 0, 0, 0, 0x31, 0xd2, 0x0f, 0x30, 0xf4],
        ),
        case(
            "WRMSR LSTAR: not canonical",
            M::Long,
            &[0xb9, 0x82, 0, 0, 0xc0, 0x31, 0xc0, 0xba, 0, 0, 0, 0x80, 0x0f, 0x30, 0xf4],
        ),
        case("load not canonical", M::Long, &[0x48, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0x80, 0x48, 0x8b, 0x18, 0xf4]),
        case("LMSW, SMSW", M::Real, &[0x0f, 0x01, 0xe0, 0x0c, 0x02, 0x0f, 0x01, 0xf0, 0xf4]),
        case("PUSHF, POPF", M::Real, &[0x9c, 0x58, 0x0d, 0x00, 0x70, 0x50, 0x9d, 0xf4]),
        case("far call", M::Real, &[0x9a, 0x08, 0x10, 0, 0, 0xf4, 0x90, 0x90, 0xcb]),
        case("DIV by 0", M::Real, &[0x31, 0xc9, 0xf7, 0xf1, 0xf4]),
        case("beyond the limit", M::Real, &[0xb8, 0xff, 0xff, 0x89, 0xc3, 0x8b, 0x07, 0xf4]),
        case(
            "into protected mode",
            M::Real,
            &[0x0f, 0x20, 0xc0, 0x0c, 0x01, 0x0f, 0x22, 0xc0, 0xea, 0x0d, 0x10, 0x08, 0x00, 0xf4],
        ),
    ];
    for mode in [M::Paging32, M::Pae, M::Long] {
        let (read, write) = if mode == M::Long { (READ_64, WRITE_64) } else { (READ, WRITE) };
        for rights in [0, 1, 3, 5, 7, 0x63] {
            for wp in [0, cr0::WP] {
                list.push(Case { name: "read", mode, rights, more_cr0: wp, more_cr4: 0, code: read });
                list.push(Case { name: "write", mode, rights, more_cr0: wp, more_cr4: 0, code: write });
            }
        }
        if mode != M::Paging32 {
            // A reserved bit, and XD.
            list.push(Case {
                name: "read, reserved bit",
                mode,
                rights: 3 | 1 << 51,
                more_cr0: 0,
                more_cr4: 0,
                code: read,
            });
            list.push(Case { name: "read, XD", mode, rights: 3 | 1 << 63, more_cr0: 0, more_cr4: 0, code: read });
        }
    }
    list
}

/// The machine's memory and processor for a case.
fn state(c: &Case) -> (Vec<u8>, X86) {
    let mut ram = vec![0u8; RAM];
    let mut put = |at: u64, value: u64| ram[at as usize..at as usize + 8].copy_from_slice(&value.to_le_bytes());
    let is_long = c.mode == Mode::Long;
    let code = if is_long { 0x00af_9b00_0000_ffff } else { 0x00cf_9b00_0000_ffff };
    for (i, d) in [
        0,
        code,
        0x00cf_9300_0000_ffff,
        0x00cf_fb00_0000_ffff,
        0x00cf_1300_0000_ffff,
        0x0000_8900_0000_0067 | TSS << 16,
        0x0000_8c00_0008_0000 | (CODE + 7),
        0x0000_8900_0000_0067 | OTHER_TSS << 16,
        0x0000_8b00_0000_0067 | TSS << 16,
    ]
    .into_iter()
    .enumerate()
    {
        put(GDT + 8 * i as u64, d);
    }
    for vector in 0..32u64 {
        // It halts where one can tell which it was.
        let at = HANDLERS + 16 * vector;
        put(at, 0xf4);
        let gate = at & 0xffff | 8 << 16 | 0x8e << 40;
        match c.mode {
            Mode::Long => put(IDT + 16 * vector, gate),
            Mode::Real => {}
            _ => put(IDT + 8 * vector, gate),
        }
    }
    if c.mode == Mode::Real {
        for vector in 0..32u64 {
            put(4 * vector, HANDLERS + 16 * vector);
        }
    }
    // The other task: halts at the first handler's place.
    for (at, value) in [(32, HANDLERS), (36, 2), (56, STACK - 0x100), (72, 0x10), (76, 8), (80, 0x10), (84, 0x10)] {
        put(OTHER_TSS + at, value & 0xffff_ffff);
    }
    put(TSS + 4, STACK - 0x200);
    let page = |i: u64| if i << 12 == PAGE { PAGE | c.rights } else { i << 12 | 3 };
    match c.mode {
        Mode::Paging32 => {
            put(TABLES, (TABLES + 0x1000) | 7);
            for i in 0..256 {
                put(TABLES + 0x1000 + 8 * i, page(2 * i) | page(2 * i + 1) << 32);
            }
        }
        Mode::Pae | Mode::Long => {
            put(TABLES, if c.mode == Mode::Pae { (TABLES + 0x2000) | 1 } else { (TABLES + 0x1000) | 7 });
            put(TABLES + 0x1000, (TABLES + 0x2000) | 7);
            put(TABLES + 0x2000, (TABLES + 0x3000) | 7);
            for i in 0..512 {
                put(TABLES + 0x3000 + 8 * i, page(i));
            }
        }
        _ => {}
    }
    ram[CODE as usize..CODE as usize + c.code.len()].copy_from_slice(c.code);
    let mut cpu = X86::flat_64();
    let paging = if matches!(c.mode, Mode::Real | Mode::Protected) { 0 } else { cr0::PG };
    let pe = if c.mode == Mode::Real { 0 } else { cr0::PE };
    cpu.cr0 = pe | paging | cr0::ET | cr0::NE | c.more_cr0;
    cpu.cr4 = c.more_cr4 | if matches!(c.mode, Mode::Pae | Mode::Long) { cr4::PAE } else { 0 };
    cpu.efer = match c.mode {
        Mode::Long => efer::LME | efer::LMA | efer::NXE,
        Mode::Pae => efer::NXE,
        _ => 0,
    };
    cpu.cr3 = if paging != 0 { TABLES } else { 0 };
    if c.mode == Mode::Pae {
        cpu.pdptes = [(TABLES + 0x2000) | 1, 0, 0, 0];
    }
    cpu.gdtr = Table { base: GDT, limit: 0x47 };
    cpu.idtr = Table { base: if c.mode == Mode::Real { 0 } else { IDT }, limit: 0x3ff };
    cpu.tr = Segment { selector: 0x40, base: TSS, limit: 0x67, attributes: Attributes(0x8b) };
    for (i, s) in cpu.segments.iter_mut().enumerate() {
        let is_code = i == 1;
        *s = match c.mode {
            Mode::Real => Segment {
                selector: 0,
                base: 0,
                limit: 0xffff,
                attributes: Attributes(if is_code { 0x9b } else { 0x93 }),
            },
            Mode::Long if is_code => Segment { selector: 8, base: 0, limit: u32::MAX, attributes: Attributes(0xa09b) },
            _ if is_code => Segment { selector: 8, base: 0, limit: u32::MAX, attributes: Attributes(0xc09b) },
            _ => Segment { selector: 16, base: 0, limit: u32::MAX, attributes: Attributes(0xc093) },
        };
    }
    (ram, cpu)
}

/// Runs a case here: the machine when it has halted; `None` if it has shut down.
fn here(ram: &[u8], cpu: X86, regs: &[u64; 16]) -> (Machine<X86>, MachineEnd) {
    let mut world = World::new(Frequency::default());
    world.ram.add(0, RAM as u64).unwrap();
    world.ram.write(0, ram).unwrap();
    let mut machine = Machine::new(world, vec![cpu], Schedule::new(1000, 0));
    machine.vcpus[0].core.pc = CODE;
    machine.vcpus[0].core.regs[..16].copy_from_slice(regs);
    let end = machine.run(1000);
    (machine, end)
}

#[test]
fn supervisor_code_does_the_same() {
    let Some(mut oracle) = Oracle::open() else {
        println!("SKIP: /dev/kvm does not open");
        return;
    };
    println!("KVM on {}", if oracle.kind == Kind::Hardware { "hardware" } else { "an emulator of ring 0" });
    // A mode in which it cannot even halt is none that it can be asked about.
    let mut lacks = vec![];
    for mode in [Mode::Real, Mode::Protected, Mode::Paging32, Mode::Pae, Mode::Long] {
        let (ram, cpu) = state(&case("probe", mode, &[0xf4]));
        oracle.ram.copy_from_slice(&ram);
        let end = oracle.run(&cpu, &[0; 16], CODE);
        if end != End::Halted {
            println!("SKIP: all of {mode:?}: HLT comes to {end:?}");
            lacks.push(mode);
            let Some(again) = Oracle::open() else { return };
            oracle = again;
        }
    }
    let (mut compared, mut differences) = (0, vec![]);
    for c in cases().into_iter().filter(|c| !lacks.contains(&c.mode)) {
        let label = format!("{:?}, {} (rights {:x}, CR0 {:x})", c.mode, c.name, c.rights, c.more_cr0);
        let (ram, cpu) = state(&c);
        let mut regs = [0u64; 16];
        regs[4] = STACK;
        regs[6] = 0x1234_5678;
        oracle.ram.copy_from_slice(&ram);
        let end = oracle.run(&cpu, &regs, CODE);
        if matches!(end, End::Refused | End::TimedOut) {
            println!("SKIP: {label}: {end:?}");
            if end == End::TimedOut {
                let Some(again) = Oracle::open() else { return };
                oracle = again;
            }
            continue;
        }
        let (machine, our_end) = here(&ram, cpu, &regs);
        let (theirs, rip, flags) = oracle.registers();
        let vcpu = &machine.vcpus[0];
        let mut found = vec![];
        if (end == End::Shutdown) != matches!(our_end, MachineEnd::Shutdown(..)) {
            found.push(format!("ends: {our_end:?}, {end:?}"));
        } else if end == End::Halted {
            let our_ip = vcpu.core.pc.wrapping_sub(vcpu.arch.segments[1].base);
            if our_ip != rip {
                found.push(format!("RIP {our_ip:x} {rip:x}"));
            }
            for (i, (x, y)) in vcpu.core.regs.iter().zip(theirs).enumerate() {
                if *x != y {
                    found.push(format!("register {i}: {x:x} {y:x}"));
                }
            }
            let control = [vcpu.arch.cr0, vcpu.arch.cr2, vcpu.arch.cr3, vcpu.arch.cr4];
            if control != oracle.control() {
                found.push(format!("CR {control:x?} {:x?}", oracle.control()));
            }
            if vcpu.arch.rflags & 0x3f_7700 & !0x400 != flags & 0x3f_7700 & !0x400 {
                found.push(format!("flags {:x} {flags:x}", vcpu.arch.rflags));
            }
            let a = &vcpu.arch;
            let ours = [0, 1, 2, 3, 4, 5].map(|i| &a.segments[i]).into_iter().chain([&a.ldtr, &a.tr]);
            for (i, (s, t)) in ours.zip(oracle.segments()).enumerate() {
                let s = if s.attributes.is_unusable() { (s.selector, 0, 0) } else { (s.selector, s.base, s.limit) };
                if s != t && i != 6 {
                    found.push(format!("segment {i}: {s:x?} {t:x?}"));
                }
            }
            let mut memory = vec![0; RAM];
            machine.world.ram.read(0, &mut memory).unwrap();
            for (at, (x, y)) in memory.iter().zip(oracle.ram.iter()).enumerate().filter(|(_, (x, y))| x != y).take(4) {
                found.push(format!("[{at:x}]: {x:x} {y:x}"));
            }
        }
        compared += 1;
        if !found.is_empty() {
            differences.push(format!("{label}: {}", found.join(", ")));
        }
    }
    println!("{compared} compared");
    assert!(differences.is_empty(), "ours, theirs:\n{}", differences.join("\n"));
}
