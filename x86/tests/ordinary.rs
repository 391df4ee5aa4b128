//! Delivery of an exception and IRETQ have a short way for the ordinary case. Here one machine may take it, and the other never can, since none of
//! its translations is at hand; whichever bit of gates, descriptors and frames is another one, they do the same.

use emu_core::engine::World;
use emu_core::machine::{End, Machine, Schedule};
use emu_core::time::Frequency;
use x86::control::{cr0, cr4, rflags};
use x86::model::CpuModel;
use x86::processor::{X86, segments};
use x86::registers::RSP;
use x86::segment::{Attributes, Descriptor, Segment, Table};

const CODE: u64 = 0x1_0000;
const GDT: u64 = 0x1000;
const IDT: u64 = 0x2000;
const TSS: u64 = 0x3000;
const PML4: u64 = 0x4000;
const HANDLER: u64 = 0x9000;
const STOP: u64 = 0xa000;
const INNER_STACK: u64 = 0xc800;
const STACK: u64 = 0xe800;
/// Descriptors: null, code and data of the kernel, of programs; the TSS.
const DESCRIPTORS: [u64; 7] = [
    0,
    0x00af_9b00_0000_ffff,
    0x00cf_9300_0000_ffff,
    0x00af_fb00_0000_ffff,
    0x00cf_f300_0000_ffff,
    0x0000_8900_0000_0067 | TSS << 16,
    0,
];
/// UD2 at this level in an endless loop.
fn machine(model: &str, cpl: u8) -> Machine<X86> {
    let mut world = World::new(Frequency::default());
    world.ram.add(0, 0x2_0000).unwrap();
    let mut put = |at: u64, value: u64| world.ram.store(at, 8, value).unwrap();
    for (i, d) in DESCRIPTORS.into_iter().enumerate() {
        put(GDT + 8 * i as u64, d);
    }
    for (at, to) in [(PML4, 0x5000), (0x5000, 0x6000), (0x6000, 0x7000)] {
        put(at, to | 7);
    }
    for page in 0..32 {
        put(0x7000 + 8 * page, page << 12 | 7);
    }
    put(TSS + 4, INNER_STACK);
    for vector in 0..32 {
        let handler = if vector == 6 { HANDLER } else { STOP };
        put(IDT + 16 * vector, handler & 0xffff | 8 << 16 | 0x8e << 40);
    }
    for (at, code) in [(CODE, 0x0b0f), (HANDLER, 0xcf48), (STOP, 0xf4)] {
        put(at, code); // UD2; IRETQ; HLT
    }
    let mut cpu = X86::flat_64().of_model(CpuModel::parse(model).unwrap(), 0, 1, 1);
    cpu.gdtr = Table { base: GDT, limit: 0x37 };
    cpu.idtr = Table { base: IDT, limit: 0x1ff };
    cpu.tr = Segment { selector: 0x28, base: TSS, limit: 0x67, attributes: Attributes(0x8b) };
    (cpu.cr3, cpu.cr0, cpu.cr4) = (PML4, cpu.cr0 | cr0::PG, cpu.cr4 | cr4::OSFXSR);
    cpu.rflags |= rflags::IF;
    let [code, data] = if cpl == 0 { [8, 0x10] } else { [0x1b, 0x23] };
    for (i, selector) in [(segments::CS, code), (segments::SS, data)] {
        cpu.segments[i] = Descriptor(DESCRIPTORS[usize::from(selector) / 8]).segment(selector);
    }
    let mut machine = Machine::new(world, vec![cpu], Schedule::new(1000, 0));
    machine.vcpus[0].core.pc = CODE;
    machine.vcpus[0].core.regs[usize::from(RSP)] = STACK;
    // What they need is at hand from now on.
    assert_eq!(machine.run(4), End::Limit);
    machine
}

/// Both do the same for a few instructions, once `change` has been made to both.
fn compare(model: &str, cpl: u8, what: &str, ahead: u64, change: impl Fn(&mut Machine<X86>)) {
    let [mut one, mut other] = [0; 2].map(|_| machine(model, cpl));
    let context = format!("{model}, level {cpl}: {what}");
    for m in [&mut one, &mut other] {
        assert_eq!(m.run(4 + ahead), End::Limit);
        change(m);
    }
    for n in 1..=4 {
        other.vcpus[0].core.mmu.close_all();
        let ends = [&mut one, &mut other].map(|m| m.run(4 + ahead + n));
        assert_eq!(ends[0], ends[1], "{context}, after {n}");
        let [a, b] = [&one, &other].map(|m| &m.vcpus[0]);
        assert_eq!((a.core.pc, &a.arch), (b.core.pc, &b.arch), "{context}, after {n}");
        assert!(one.state_hash() == other.state_hash(), "{context}, after {n}");
        if ends[0] != End::Limit {
            break;
        }
    }
}

fn flip(m: &mut Machine<X86>, at: u64, bit: u64) {
    let old = m.world.ram.load(at, 8).unwrap();
    m.world.ram.store(at, 8, old ^ 1 << bit).unwrap();
}

#[test]
fn every_bit_of_tables() {
    for (model, cpl) in [("intel", 0), ("amd", 0), ("intel", 3), ("amd", 3)] {
        let descriptors = (1..5).map(|i| GDT + 8 * i);
        for at in descriptors.chain([IDT + 0x60, IDT + 0x68, TSS + 4]) {
            for bit in 0..64 {
                compare(model, cpl, &format!("bit {bit} at {at:#x}"), 0, |m| flip(m, at, bit));
            }
        }
    }
}

#[test]
fn every_bit_of_a_frame() {
    for (model, cpl) in [("intel", 0), ("amd", 0), ("intel", 3), ("amd", 3)] {
        for word in 0..5 {
            for bit in 0..64 {
                compare(model, cpl, &format!("bit {bit} of word {word}"), 1, |m| {
                    let sp = m.vcpus[0].core.regs[usize::from(RSP)];
                    flip(m, sp + 8 * word, bit);
                });
            }
        }
    }
}

#[test]
fn other_frames_and_states() {
    for (model, cpl) in [("intel", 0), ("intel", 3)] {
        // Selectors of all kinds; what a handler at level 0 returns to.
        for word in [1, 4] {
            for selector in 0..0x40 {
                compare(model, cpl, &format!("selector {selector:#x} as word {word}"), 1, |m| {
                    let sp = m.vcpus[0].core.regs[usize::from(RSP)];
                    m.world.ram.store(sp + 8 * word, 8, selector).unwrap();
                });
            }
        }
        for (cs, ss) in [(0x1b, 0x23), (0x1b, 0), (8, 0), (8, 0x10)] {
            compare(model, cpl, &format!("to {cs:#x} with {ss:#x}"), 1, |m| {
                let sp = m.vcpus[0].core.regs[usize::from(RSP)];
                m.world.ram.store(sp + 8, 8, cs).unwrap();
                m.world.ram.store(sp + 32, 8, ss).unwrap();
            });
        }
        for ahead in [0, 1] {
            for bit in 0..32 {
                compare(model, cpl, &format!("bit {bit} of RFLAGS"), ahead, |m| m.vcpus[0].arch.rflags ^= 1 << bit);
            }
            for low in 0..16 {
                compare(model, cpl, &format!("a stack at {low}"), ahead, |m| {
                    m.vcpus[0].core.regs[usize::from(RSP)] += low;
                });
            }
            for limit in [0, 7, 8, 15, 0x1e, 0x1f, 0x26, 0x27, 0x6e, 0x6f] {
                compare(model, cpl, &format!("a GDT to {limit:#x}"), ahead, |m| m.vcpus[0].arch.gdtr.limit = limit);
                compare(model, cpl, &format!("an IDT to {limit:#x}"), ahead, |m| m.vcpus[0].arch.idtr.limit = limit);
                compare(model, cpl, &format!("a TSS to {limit:#x}"), ahead, |m| {
                    m.vcpus[0].arch.tr.limit = limit.into()
                });
            }
        }
        for edge in [0x10, 0x20, 0x28] {
            compare(model, cpl, &format!("a stack {edge:#x} above its page's begin"), 0, |m| {
                m.vcpus[0].core.regs[usize::from(RSP)] = 0xe000 + edge;
                m.world.ram.store(TSS + 4, 8, 0xc000 + edge).unwrap();
            });
        }
    }
}
