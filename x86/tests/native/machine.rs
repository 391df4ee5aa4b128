//! The emulated processor: at CPL 3 in 64-bit or in compatibility mode, with the host's addresses, and handlers of exceptions that halt.

use emu_core::engine::flags::{FLAGS_KIND, FLAGS_X, FLAGS_Y, Flags};
use emu_core::engine::{RunEnd, Vcpu, World};
use emu_core::time::Frequency;
use x86::control::{cr0, cr4, rflags};
use x86::fpu::X87;
use x86::fpu::image::Pointers;
use x86::processor::{X86, segments};
use x86::registers::{DIRECTION, MXCSR, RSP, VECTORS};
use x86::segment::{Attributes, Segment, Table};

use crate::host::Native;
use crate::mode::{FIELD, HLT, Mode, Segments, USER_CS, USER_CS_32, USER_DS, descriptor};
use crate::state::{DATA, DATA_SIZE, DF, PAGE, STATUS, State, Trap, X87_SIZE};

/// Where things are that the host's processor has from its system: page tables from `TABLES` on. Their linear addresses are from `SYSTEM` on,
/// where no code at CPL 3 comes.
const SYSTEM: u64 = 0xffff_8000_0000_0000;
const GDT: u64 = 0x1000;
const TSS: u64 = 0x2000;
const IDT: u64 = 0x3000;
const HANDLERS: u64 = 0x4000;
const STACK: u64 = 0x6000;
const TABLES: u64 = 0x10_000;
/// Where the host's code and data are, in physical memory.
const CODE: u64 = 0x10_0000;
const RAM: u64 = 0x20_0000;
/// Bytes of handlers.
const HANDLER: u64 = 16;
const UD: u8 = 6;
const GP: u8 = 13;

/// The code segment of handlers, as in Linux's GDT.
const KERNEL_CS: u64 = 0x10;
/// No-execute, in an entry of a page table.
const NX: u64 = 1 << 63;
/// Space of the LDT.
const LDT: u64 = GDT + 0x800;

pub struct Emulated {
    pub world: World,
    pub vcpu: Vcpu<X86>,
    pub at: u64,
    pub data_at: u64,
    pub segments: Segments,
    to_physical: u64,
}

/// Maps a page in tables that are made as they are needed, from `free` on.
fn map(world: &mut World, free: &mut u64, va: u64, pa: u64, rights: u64) {
    let mut table = TABLES;
    for shift in [39, 30, 21] {
        let at = table + (va >> shift & 511) * 8;
        let mut entry = world.ram.load(at, 8).unwrap();
        if entry == 0 {
            *free += PAGE as u64;
            entry = *free | 7;
            world.ram.store(at, 8, entry).unwrap();
        }
        table = entry & !0xfff;
    }
    world.ram.store(table + (va >> 12 & 511) * 8, 8, pa | rights).unwrap();
}

impl Emulated {
    pub fn new(native: &Native) -> Self {
        const SUPERVISOR: u64 = 3;
        const USER: u64 = 7;
        let mut world = World::new(Frequency::default());
        world.ram.add(0, RAM).unwrap();
        let mut put = |at: u64, value: u64| world.ram.store(at, 8, value).unwrap();
        let mut gdt = [0xc09b, 0xa09b, 0xc093, 0, 0, 0].map(|a| Segment { attributes: Attributes(a), ..USER_DS });
        gdt[3..].copy_from_slice(&[USER_CS_32, USER_DS, USER_CS]);
        for (i, segment) in gdt.iter().enumerate() {
            put(GDT + 8 + 8 * i as u64, descriptor(segment));
        }
        let segments = native.segments;
        for segment in segments.local() {
            let at = u64::from(segment.selector & !7);
            assert!(at < 0x800, "the LDT has room");
            put(LDT + at, descriptor(&segment));
        }
        put(TSS + 36, SYSTEM + STACK);
        put(TSS + 96, 0xffff << 48); // no map of I/O permissions
        for vector in 0..32u64 {
            let handler = HANDLERS + vector * HANDLER;
            // A 64-bit interrupt gate, for the stack of IST1; #BP and #OF come of instructions at CPL 3.
            let kind = if matches!(vector, 3 | 4) { 0xee01 } else { 0x8e01 };
            put(IDT + 16 * vector, handler & 0xffff | KERNEL_CS << 16 | kind << 32 | handler >> 16 << 48);
            put(IDT + 16 * vector + 8, SYSTEM >> 32);
            put(handler, HLT.into());
        }
        let mut free = TABLES;
        for page in 1..7 {
            map(&mut world, &mut free, SYSTEM + (page << 12), page << 12, SUPERVISOR);
        }
        let base = native.base();
        for (page, rights) in [(0, USER), (PAGE, USER | NX), (DATA, USER | NX), (DATA + PAGE, USER | NX)] {
            map(&mut world, &mut free, base + page as u64, CODE + page as u64, rights);
        }
        if segments.mode != Mode::Long {
            world.ram.write(CODE + FIELD.start as u64, &[HLT; FIELD.end - FIELD.start]).unwrap();
        }
        // A processor of the host's kind: some instructions are one vendor's alone.
        let kind = if std::is_x86_feature_detected!("sse4a") { "amd" } else { "intel" };
        let model = x86::model::CpuModel::parse(kind).expect("a model");
        let mut arch = X86::flat_64().of_model(model, 0, 1, 0);
        arch.cr0 |= cr0::PG | cr0::NE;
        arch.cr3 = TABLES;
        arch.cr4 |= cr4::OSFXSR | cr4::OSXMMEXCPT | cr4::OSXSAVE;
        arch.xcr0 = 7;
        arch.gdtr = Table { base: SYSTEM + GDT, limit: 0x37 };
        arch.ldtr = Segment { selector: 0x50, base: SYSTEM + LDT, limit: 0x7ff, attributes: Attributes(0x82) };
        arch.idtr = Table { base: SYSTEM + IDT, limit: 0x1ff };
        arch.tr = Segment { selector: 0, base: SYSTEM + TSS, limit: 0x67, attributes: Attributes(0x8b) };
        let (at, data_at) = (native.at(), base + DATA as u64);
        Emulated { world, vcpu: Vcpu::new(0, arch), at, data_at, segments, to_physical: CODE.wrapping_sub(base) }
    }

    /// Writes code, with an instruction behind it that there is not, or not at CPL 3.
    pub fn put(&mut self, code: &[u8]) {
        const UD2: [u8; 2] = [0x0f, 0x0b];
        let at = self.at.wrapping_add(self.to_physical);
        let end = if self.segments.mode == Mode::Long { &UD2[..] } else { &[HLT; 16] };
        self.world.ram.write(at, &[code, end].concat()).unwrap();
    }

    /// The processor is about to run the code.
    pub fn stand(&mut self, state: &State) {
        let data_at = self.data_at.wrapping_add(self.to_physical);
        self.world.ram.write(data_at, &state.data).unwrap();
        let core = &mut self.vcpu.core;
        core.regs[..16].copy_from_slice(&state.gpr);
        let flags = Flags::eager(state.flags & STATUS);
        for (i, value) in [(FLAGS_KIND, flags.kind), (FLAGS_X, flags.x), (FLAGS_Y, flags.y)] {
            core.regs[usize::from(i)] = value;
        }
        core.regs[usize::from(DIRECTION)] = if state.flags & DF != 0 { u64::MAX } else { 0 };
        core.regs[usize::from(VECTORS)..][..64].copy_from_slice(&state.vectors);
        core.regs[usize::from(MXCSR)] = state.mxcsr;
        core.pc = self.at;
        core.spaces_changed = true;
        let arch = &mut self.vcpu.arch;
        arch.segments = self.segments.all();
        arch.rflags |= rflags::IF;
        arch.x87 = X87::default();
        arch.x87.fxrstor(Pointers::Long, &state.x87);
    }

    /// Runs code to its end, or to an exception; `None` if it goes on for ever.
    pub fn run(&mut self, code: &[u8], state: &State) -> Option<State> {
        self.put(code);
        self.stand(state);
        (self.vcpu.run(&mut self.world, 0, 10_000).1 == RunEnd::Wait).then(|| self.state(code.len()))
    }

    /// Runs code of this length from where it stands, to its end or to an exception.
    pub fn finish(&mut self, length: usize) -> State {
        assert_eq!(self.vcpu.run(&mut self.world, 0, 10_000).1, RunEnd::Wait);
        self.state(length)
    }

    /// The state that a handler has found.
    fn state(&self, length: usize) -> State {
        let vector = ((self.vcpu.core.pc - SYSTEM - HANDLERS) / HANDLER) as u8;
        // The frame, from the top: SS, RSP, RFLAGS, CS, RIP, and an error code.
        let frame = |i: u64| self.world.ram.load(STACK - 8 * i, 8).unwrap();
        let (rip, rsp) = (frame(5), frame(2));
        let error = if matches!(vector, 8 | 10..=14 | 17) { frame(6) } else { 0 };
        let address = if vector == 14 { self.vcpu.arch.cr2 } else { 0 };
        let end = self.segments.ip(self.at) + length as u64;
        let is_long = self.segments.mode == Mode::Long;
        let is_end = vector == if is_long { UD } else { GP } && rip == end && error == 0;
        let mut selectors = [0; 6];
        if !is_long {
            selectors = self.vcpu.arch.segments.map(|s| s.selector);
            (selectors[segments::CS], selectors[segments::SS]) = (frame(4) as u16, frame(1) as u16);
        }
        let r = &self.vcpu.core.regs;
        let mut gpr: [u64; 16] = r[..16].try_into().unwrap();
        gpr[usize::from(RSP)] = rsp;
        gpr = gpr.map(|r| r & self.segments.mode.mask());
        let mut data = vec![0; DATA_SIZE];
        self.world.ram.read(self.data_at.wrapping_add(self.to_physical), &mut data).unwrap();
        let mut x87 = vec![0; X87_SIZE];
        self.vcpu.arch.x87.fxsave(Pointers::Long, &mut x87);
        State {
            gpr,
            flags: frame(3) & STATUS,
            selectors,
            data,
            vectors: r[usize::from(VECTORS)..][..64].to_vec(),
            mxcsr: r[usize::from(MXCSR)],
            x87,
            trap: (!is_end).then_some(Trap { vector, error, address, ip: rip }),
        }
    }
}
