//! Instructions against the processor that the tests run on: every form of every mnemonic of the data path, on random and on
//! boundary values; all general registers, the flags that the SDM defines, and memory are compared.
//!
//! Only on x86-64 hosts. `UNDERVISOR_FUZZ_CASES` sets how many cases there are.
#![allow(unsafe_code, reason = "instructions are run by the host's processor")]
#![cfg(all(target_arch = "x86_64", unix))]

use std::collections::{BTreeMap, BTreeSet};

use emu_core::bus::VcpuSignal;
use emu_core::engine::flags::{FLAGS_KIND, FLAGS_X, FLAGS_Y, Flags};
use emu_core::engine::{Access, Arch, Hart, Intent, Lift, RunEnd, Step, Stop, StopKind, Vcpu, World};
use emu_core::time::{Frequency, VirtualTime};
use emu_core::tlb::{Mapping, Space, SpaceKey};
use iced_x86::code_asm::{CodeAssembler, r12, r13, r14, r15, rbp, rbx};
use iced_x86::{
    Code, CpuidFeature, Decoder, DecoderOptions, Encoder, Instruction, Mnemonic, OpCodeOperandKind, OpKind, Register,
    RflagsBits,
};
use serde::{Deserialize, Serialize};
use x86::isa::{self, compute};
use x86::registers::{DIRECTION, MXCSR, VECTORS, temp};

/// What an instruction that is not lifted ends in.
const UNKNOWN: u32 = 6;

/// A processor that has nothing but the data path, in flat memory.
#[derive(Clone, Serialize, Deserialize)]
struct DataPath;

impl Arch for DataPath {
    const REGISTERS: usize = x86::registers::COUNT;

    fn lift(&self, pc: u64, bytes: &[u8], lift: &mut Lift) -> Option<u8> {
        let insn = Decoder::with_ip(64, bytes, pc, DecoderOptions::NONE).decode();
        if isa::lift(lift, &insn).is_err() {
            lift.call_and_end(u16::MAX, 0);
        }
        Some(insn.len() as u8)
    }

    fn mode(&self) -> u32 {
        0
    }

    fn level(&self) -> u8 {
        1
    }

    fn call(h: &mut Hart<Self>, function: u16, operand: u32) -> Step {
        match function {
            compute::FUNCTION => {}
            isa::vector::LEGACY | isa::vector::VEX => {
                return Ok(isa::vector::run(function, operand, &mut h.core.regs)?);
            }
            _ => return Err(Stop::exception(UNKNOWN, 0)),
        }
        let r = &mut h.core.regs;
        let mut values = compute::Values {
            first: r[usize::from(temp::FIRST)],
            second: r[usize::from(temp::SECOND)],
            third: r[usize::from(temp::THIRD)],
            flags: flags(r),
            size: compute::size_in(operand),
        };
        compute::run(operand, &mut values)?;
        r[usize::from(temp::FIRST)] = values.first;
        r[usize::from(temp::SECOND)] = values.second;
        set_flags(r, values.flags);
        Ok(())
    }

    fn space(h: &mut Hart<Self>, _: u8, _: Intent) -> Space {
        h.core.mmu.intern(SpaceKey(1, 0))
    }

    fn walk(_: &mut Hart<Self>, access: Access) -> Step<Mapping> {
        let pa = access.va & !0xfff;
        Ok(Mapping { pa, gpa: pa, size_log2: 12, guest_size_log2: 0, read: true, write: true, keep: true })
    }

    fn bus_error(_: &mut Hart<Self>, access: Access) -> Stop {
        Stop::exception(14, access.va)
    }

    fn trap(_: &mut Hart<Self>, stop: Stop) -> Step {
        Err(Stop { kind: StopKind::Shutdown, ..stop })
    }

    fn interrupt(_: &mut Hart<Self>) -> Step {
        Ok(())
    }

    fn signal(_: &mut Hart<Self>, _: VcpuSignal) {}

    fn tick(_: &mut Hart<Self>) {}

    fn wakes_at(_: &Hart<Self>) -> Option<VirtualTime> {
        None
    }

    fn is_awake(_: &Hart<Self>) -> bool {
        true
    }

    fn descheduled(&mut self) {}
}

fn flags(r: &[u64; 256]) -> Flags {
    let [kind, x, y] = [FLAGS_KIND, FLAGS_X, FLAGS_Y].map(|i| r[usize::from(i)]);
    Flags { kind, x, y }
}

fn set_flags(r: &mut [u64; 256], flags: Flags) {
    for (i, value) in [(FLAGS_KIND, flags.kind), (FLAGS_X, flags.x), (FLAGS_Y, flags.y)] {
        r[usize::from(i)] = value;
    }
}

const PAGE: usize = 4096;
/// Code, then registers in and out, then data that instructions work on.
const REGISTERS: usize = PAGE;
const DATA: usize = 2 * PAGE;
const SIZE: usize = 4 * PAGE;
/// The flags that are compared.
const STATUS: u64 = emu_core::engine::flags::ALL;
/// MXCSR with all exceptions masked.
const MASKED: u64 = 0x1f80;
/// RFLAGS.DF.
const DF: u64 = 1 << 10;

#[derive(Clone, Debug, PartialEq, Eq)]
struct State {
    gpr: [u64; 16],
    flags: u64,
    data: Vec<u8>,
    /// YMM0 to YMM15, four words each.
    vectors: Vec<u64>,
    mxcsr: u64,
}

/// Where the vectors are in the page of registers, and MXCSR.
const VECTORS_AT: usize = 512;
const MXCSR_AT: usize = 264;
/// MXCSR as the test itself wants it, there too.
const OWN_MXCSR_AT: usize = 272;

unsafe extern "C" {
    fn mprotect(at: *mut u8, size: usize, rights: i32) -> i32;
}

/// The host's processor, with a stage of its own.
struct Native {
    map: memmap2::MmapMut,
    prologue: usize,
    epilogue: usize,
}

impl Native {
    fn new() -> Self {
        const READ_WRITE_EXECUTE: i32 = 7;
        let mut map = memmap2::MmapOptions::new().len(SIZE).map_anon().unwrap();
        // SAFETY: the mapping is our own.
        let done = unsafe { mprotect(map.as_mut_ptr(), SIZE, READ_WRITE_EXECUTE) };
        assert_eq!(done, 0, "memory that can be executed is to be had");
        let base = map.as_ptr() as u64;
        let registers = base + REGISTERS as u64;
        let saved = [rbx, rbp, r12, r13, r14, r15];
        let mut a = CodeAssembler::new(64).unwrap();
        let at = |i: u64| iced_x86::MemoryOperand::with_base_displ(Register::RIP, (registers + 8 * i) as i64);
        let add = |a: &mut CodeAssembler, insn: Result<Instruction, iced_x86::IcedError>| {
            a.add_instruction(insn.unwrap()).unwrap();
        };
        for r in saved {
            a.push(r).unwrap();
        }
        add(&mut a, Instruction::with2(Code::Mov_rm64_r64, at(32), Register::RSP));
        add(&mut a, Instruction::with1(Code::Push_rm64, at(16)));
        a.popfq().unwrap();
        let place = |at: usize| {
            iced_x86::MemoryOperand::with_base_displ(Register::RIP, (base + (REGISTERS + at) as u64) as i64)
        };
        let avx = is_x86_feature_detected!("avx");
        if avx {
            add(&mut a, Instruction::with1(Code::Ldmxcsr_m32, place(MXCSR_AT)));
            for i in 0..16 {
                let from = place(VECTORS_AT + 32 * i);
                add(&mut a, Instruction::with2(Code::VEX_Vmovups_ymm_ymmm256, Register::YMM0 + i as u32, from));
            }
        }
        for i in 0..16 {
            add(&mut a, Instruction::with2(Code::Mov_r64_rm64, Register::RAX + i as u32, at(i)));
        }
        let prologue = a.assemble(base).unwrap();
        let epilogue_at = PAGE / 2;
        let mut a = CodeAssembler::new(64).unwrap();
        for i in 0..16 {
            add(&mut a, Instruction::with2(Code::Mov_rm64_r64, at(i), Register::RAX + i as u32));
        }
        add(&mut a, Instruction::with2(Code::Mov_r64_rm64, Register::RSP, at(32)));
        a.pushfq().unwrap();
        add(&mut a, Instruction::with1(Code::Pop_rm64, at(16)));
        if avx {
            for i in 0..16 {
                let to = place(VECTORS_AT + 32 * i);
                add(&mut a, Instruction::with2(Code::VEX_Vmovups_ymmm256_ymm, to, Register::YMM0 + i as u32));
            }
            add(&mut a, Instruction::with1(Code::Stmxcsr_m32, place(MXCSR_AT)));
            add(&mut a, Instruction::with1(Code::Ldmxcsr_m32, place(OWN_MXCSR_AT)));
            a.vzeroupper().unwrap();
        }
        for r in saved.into_iter().rev() {
            a.pop(r).unwrap();
        }
        a.cld().unwrap();
        a.ret().unwrap();
        let epilogue = a.assemble(base + epilogue_at as u64).unwrap();
        map[..prologue.len()].copy_from_slice(&prologue);
        map[epilogue_at..epilogue_at + epilogue.len()].copy_from_slice(&epilogue);
        Native { map, prologue: prologue.len(), epilogue: epilogue_at }
    }

    fn base(&self) -> u64 {
        self.map.as_ptr() as u64
    }

    /// Address of the instruction that is tried.
    fn at(&self) -> u64 {
        self.base() + self.prologue as u64
    }

    fn run(&mut self, insn: &[u8], state: &mut State) {
        let end = self.prologue + insn.len();
        self.map[self.prologue..end].copy_from_slice(insn);
        let distance = (self.epilogue - end - 5) as i32;
        self.map[end] = 0xe9; // JMP
        self.map[end + 1..end + 5].copy_from_slice(&distance.to_le_bytes());
        for (i, value) in state.gpr.iter().chain([&(state.flags | 0x202)]).enumerate() {
            self.map[REGISTERS + 8 * i..][..8].copy_from_slice(&value.to_le_bytes());
        }
        self.map[DATA..].copy_from_slice(&state.data);
        for (i, word) in state.vectors.iter().enumerate() {
            self.map[REGISTERS + VECTORS_AT + 8 * i..][..8].copy_from_slice(&word.to_le_bytes());
        }
        self.map[REGISTERS + MXCSR_AT..][..8].copy_from_slice(&state.mxcsr.to_le_bytes());
        self.map[REGISTERS + OWN_MXCSR_AT..][..8].copy_from_slice(&MASKED.to_le_bytes());
        // SAFETY: the code saves and restores what a function must, and the instruction works on registers and our data.
        let f: extern "C" fn() = unsafe { std::mem::transmute(self.map.as_ptr()) };
        f();
        let word = |i: usize| u64::from_le_bytes(self.map[REGISTERS + 8 * i..][..8].try_into().unwrap());
        state.gpr = std::array::from_fn(word);
        state.flags = word(16) & STATUS;
        if is_x86_feature_detected!("avx") {
            state.vectors = (0..64).map(|i| word(VECTORS_AT / 8 + i)).collect();
            state.mxcsr = word(MXCSR_AT / 8) & 0xffff;
        }
        state.data.copy_from_slice(&self.map[DATA..]);
    }
}

/// The data path, with memory where the native one has it.
struct Emulated {
    world: World,
    vcpu: Vcpu<DataPath>,
    at: u64,
    data_at: u64,
}

impl Emulated {
    fn new(native: &Native) -> Self {
        let mut world = World::new(Frequency::default());
        let (at, data_at) = (native.at(), native.base() + DATA as u64);
        world.ram.add(at & !0xfff, PAGE as u64).unwrap();
        world.ram.add(data_at, (SIZE - DATA) as u64).unwrap();
        Emulated { world, vcpu: Vcpu::new(0, DataPath), at, data_at }
    }

    /// Runs code to its end; `None` if it faults before.
    fn run(&mut self, code: &[u8], state: &State) -> Option<State> {
        const UD2: [u8; 2] = [0x0f, 0x0b];
        self.world.ram.write(self.at, &[code, &UD2].concat()).unwrap();
        self.world.ram.write(self.data_at, &state.data).unwrap();
        let core = &mut self.vcpu.core;
        core.regs[..16].copy_from_slice(&state.gpr);
        set_flags(&mut core.regs, Flags::eager(state.flags));
        core.regs[usize::from(DIRECTION)] = if state.flags & DF != 0 { u64::MAX } else { 0 };
        core.regs[usize::from(VECTORS)..][..64].copy_from_slice(&state.vectors);
        core.regs[usize::from(MXCSR)] = state.mxcsr;
        core.pc = self.at;
        let end = self.vcpu.run(&mut self.world, 0, 10_000).1;
        let unknown = Stop { kind: StopKind::Shutdown, ..Stop::exception(UNKNOWN, 0) };
        if end != RunEnd::Shutdown(unknown) || self.vcpu.core.pc != self.at + code.len() as u64 {
            return None;
        }
        let mut data = vec![0; SIZE - DATA];
        self.world.ram.read(self.data_at, &mut data).unwrap();
        let r = &self.vcpu.core.regs;
        Some(State {
            gpr: r[..16].try_into().unwrap(),
            flags: flags(r).all(),
            data,
            vectors: r[usize::from(VECTORS)..][..64].to_vec(),
            mxcsr: r[usize::from(MXCSR)],
        })
    }
}

struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ self.0 >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ z >> 31
    }

    fn below(&mut self, n: u64) -> u64 {
        self.next() % n
    }

    /// A word of a vector: any bits, or one or two floating-point numbers that meet.
    fn element(&mut self) -> u64 {
        const SINGLES: [u32; 8] = [0, 1 << 31, 0x3f80_0000, 0x7f80_0000, 0xff80_0000, 0x7fc0_0000, 0x7f80_0001, 1];
        const DOUBLES: [u64; 7] = [0, 1 << 63, 0x7ff0 << 48, 0xfff0 << 48, 0x7ff8 << 48, 0x7ff0 << 48 | 1, 1];
        let single = |r: &mut Self| match r.below(4) {
            0 => u64::from(SINGLES[r.below(8) as usize]),
            1 => 0x3f00_0000 | r.next() & 0x81ff_ffff,
            _ => r.next() & 0xffff_ffff,
        };
        match self.below(4) {
            0 => self.value(),
            1 => 0x3fe0 << 48 | self.next() & 0x803f_ffff_ffff_ffff,
            2 => DOUBLES[self.below(7) as usize],
            _ => single(self) | single(self) << 32,
        }
    }

    /// A value: any, small, or at a boundary of some size.
    fn value(&mut self) -> u64 {
        let any = self.next();
        match self.below(6) {
            0 => any,
            1 => any % 64,
            2 => (1u64 << (any % 64)).wrapping_add(any >> 60).wrapping_sub(8),
            3 => u64::MAX >> (any % 64),
            4 => (any as i8) as i64 as u64,
            _ => any >> (any % 64),
        }
    }
}

/// The mnemonics of the data path, but for branches.
fn is_tried(mnemonic: Mnemonic) -> bool {
    use Mnemonic as M;
    let name = format!("{mnemonic:?}");
    name.starts_with("Cmov")
        || name.starts_with("Set") && mnemonic != M::Setssbsy
        || isa::vector::is_known(mnemonic)
        || matches!(
            mnemonic,
            M::Mov
                | M::Movzx
                | M::Movsx
                | M::Movsxd
                | M::Lea
                | M::Push
                | M::Pop
                | M::Xchg
                | M::Xadd
                | M::Cmpxchg
                | M::Bswap
                | M::Movbe
                | M::Cbw
                | M::Cwde
                | M::Cdqe
                | M::Cwd
                | M::Cdq
                | M::Cqo
                | M::Add
                | M::Adc
                | M::Sub
                | M::Sbb
                | M::And
                | M::Or
                | M::Xor
                | M::Inc
                | M::Dec
                | M::Cmp
                | M::Test
                | M::Neg
                | M::Not
                | M::Imul
                | M::Mul
                | M::Div
                | M::Idiv
                | M::Mulx
                | M::Adcx
                | M::Adox
                | M::Andn
                | M::Shl
                | M::Sal
                | M::Shr
                | M::Sar
                | M::Rol
                | M::Ror
                | M::Rcl
                | M::Rcr
                | M::Shld
                | M::Shrd
                | M::Shlx
                | M::Shrx
                | M::Sarx
                | M::Rorx
                | M::Bt
                | M::Bts
                | M::Btr
                | M::Btc
                | M::Bsf
                | M::Bsr
                | M::Tzcnt
                | M::Lzcnt
                | M::Popcnt
                | M::Blsi
                | M::Blsr
                | M::Blsmsk
                | M::Bextr
                | M::Bzhi
                | M::Pdep
                | M::Pext
                | M::Crc32
                | M::Clc
                | M::Stc
                | M::Cmc
                | M::Lahf
                | M::Sahf
                | M::Nop
                | M::Leave
                | M::Enter
                | M::Cmpxchg8b
                | M::Cmpxchg16b
                | M::Lfence
                | M::Mfence
                | M::Sfence
        )
}

/// Whether the host has what an encoding needs.
fn host_has(code: Code) -> bool {
    use CpuidFeature as F;
    code.cpuid_features().iter().all(|f| match f {
        F::INTEL8086 | F::INTEL186 | F::INTEL286 | F::INTEL386 | F::INTEL486 | F::X64 | F::CMOV | F::MULTIBYTENOP => {
            true
        }
        F::MOVBE => is_x86_feature_detected!("movbe"),
        F::ADX => is_x86_feature_detected!("adx"),
        F::BMI1 => is_x86_feature_detected!("bmi1"),
        F::BMI2 => is_x86_feature_detected!("bmi2"),
        F::LZCNT => is_x86_feature_detected!("lzcnt"),
        F::POPCNT => is_x86_feature_detected!("popcnt"),
        F::SSE4_2 => is_x86_feature_detected!("sse4.2"),
        F::CX8 | F::SSE | F::SSE2 => true,
        F::SSE3 => is_x86_feature_detected!("sse3"),
        F::SSSE3 => is_x86_feature_detected!("ssse3"),
        F::SSE4_1 => is_x86_feature_detected!("sse4.1"),
        F::AVX => is_x86_feature_detected!("avx"),
        F::AVX2 => is_x86_feature_detected!("avx2"),
        F::AES => is_x86_feature_detected!("aes"),
        F::PCLMULQDQ => is_x86_feature_detected!("pclmulqdq"),
        F::SHA => is_x86_feature_detected!("sha"),
        F::VAES => is_x86_feature_detected!("vaes"),
        F::VPCLMULQDQ => is_x86_feature_detected!("vpclmulqdq"),
        F::CMPXCHG16B => is_x86_feature_detected!("cmpxchg16b"),
        _ => false,
    })
}

/// A general register of a size; not RSP, nor its parts.
fn register(r: &mut Random, bytes: usize) -> Register {
    let number = loop {
        let n = r.below(16) as u32;
        if n != 4 {
            break n;
        }
    };
    match bytes {
        // AH to BH stand between BL and SPL; the encoder refuses them beside a REX prefix.
        1 if number < 4 => Register::AL + number + 4 * r.below(2) as u32,
        1 => Register::AL + number + 4,
        2 => Register::AX + number,
        4 => Register::EAX + number,
        _ => Register::RAX + number,
    }
}

/// An instruction of this encoding, with operands at random, and a state for it. `None` if it has operands of other kinds.
fn instance(code: Code, r: &mut Random, data_at: u64) -> Option<(Instruction, State)> {
    use OpCodeOperandKind as K;
    let mut state = State {
        gpr: std::array::from_fn(|_| r.value()),
        flags: r.next() & STATUS,
        data: (0..(SIZE - DATA) / 8).flat_map(|_| r.element().to_le_bytes()).collect(),
        vectors: (0..64).map(|_| r.element()).collect(),
        // Rounding, FTZ and DAZ vary; all exceptions are masked.
        mxcsr: MASKED | r.next() & 0xe040,
    };
    let middle = data_at + (SIZE - DATA) as u64 / 2;
    state.gpr[4] = middle;
    let mut insn = Instruction::default();
    insn.set_code(code);
    let info = code.op_code();
    let mut memory = None;
    for i in 0..info.op_count() {
        let kind = info.op_kind(i);
        let bytes = match kind {
            K::r8_reg | K::r8_or_mem | K::r8_opcode => 1,
            K::r16_reg | K::r16_or_mem | K::r16_opcode | K::r16_rm => 2,
            K::r32_reg | K::r32_or_mem | K::r32_opcode | K::r32_rm | K::r32_vvvv => 4,
            _ => 8,
        };
        let fixed = |r: Register| Some((OpKind::Register, r, 0));
        let immediate = |kind: OpKind, value: u64| Some((kind, Register::None, value));
        if kind == K::mem_offs {
            insn.set_op_kind(i, OpKind::Memory);
            insn.set_memory_displ_size(8);
            insn.set_memory_displacement64(data_at + r.below(4000));
            continue;
        }
        let may_be_memory = matches!(kind, K::r8_or_mem | K::r16_or_mem | K::r32_or_mem | K::r64_or_mem);
        let may_be_memory = may_be_memory || matches!(kind, K::xmm_or_mem | K::ymm_or_mem);
        if kind == K::mem || may_be_memory && r.below(2) == 0 {
            memory = Some(i);
            continue;
        }
        let (kind, register, value) = match kind {
            K::r8_reg
            | K::r8_or_mem
            | K::r8_opcode
            | K::r16_reg
            | K::r16_or_mem
            | K::r16_opcode
            | K::r16_rm
            | K::r32_reg
            | K::r32_or_mem
            | K::r32_opcode
            | K::r32_rm
            | K::r32_vvvv
            | K::r64_reg
            | K::r64_or_mem
            | K::r64_opcode
            | K::r64_rm
            | K::r64_vvvv => fixed(register(r, bytes)),
            K::xmm_reg | K::xmm_or_mem | K::xmm_vvvv | K::xmm_rm => fixed(Register::XMM0 + r.below(16) as u32),
            K::ymm_reg | K::ymm_or_mem | K::ymm_vvvv | K::ymm_rm => fixed(Register::YMM0 + r.below(16) as u32),
            K::al => fixed(Register::AL),
            K::cl => fixed(Register::CL),
            K::ax => fixed(Register::AX),
            K::eax => fixed(Register::EAX),
            K::rax => fixed(Register::RAX),
            K::imm8_const_1 => immediate(OpKind::Immediate8, 1),
            K::imm8 => immediate(OpKind::Immediate8, r.value()),
            K::imm16 => immediate(OpKind::Immediate16, r.value()),
            K::imm32 => immediate(OpKind::Immediate32, r.value()),
            K::imm64 => immediate(OpKind::Immediate64, r.value()),
            K::imm8sex16 => immediate(OpKind::Immediate8to16, r.value()),
            K::imm8sex32 => immediate(OpKind::Immediate8to32, r.value()),
            K::imm8sex64 => immediate(OpKind::Immediate8to64, r.value()),
            K::imm32sex64 => immediate(OpKind::Immediate32to64, r.value()),
            _ => None,
        }?;
        insn.set_op_kind(i, kind);
        if kind == OpKind::Register {
            insn.set_op_register(i, register);
        } else {
            insn.set_immediate_u64(i, value);
        }
    }
    if let Some(i) = memory {
        place_memory(&mut insn, &mut state, r, middle)?;
        insn.set_op_kind(i, OpKind::Memory);
    }
    match code.mnemonic() {
        Mnemonic::Leave => state.gpr[5] = middle + 64,
        Mnemonic::Enter => {
            state.gpr[5] = middle + 1024;
            insn.set_immediate16(r.below(600) as u16);
            insn.set_op1_kind(OpKind::Immediate8_2nd);
            insn.set_immediate8_2nd(if r.below(2) == 0 { 0 } else { r.value() as u8 });
        }
        Mnemonic::Cmpxchg8b | Mnemonic::Cmpxchg16b if r.below(2) == 0 => agree(&insn, &mut state, data_at),
        _ => {}
    }
    Some((insn, state))
}

/// The accumulator of CMPXCHG8B and CMPXCHG16B becomes what is in memory, as far as the address does not depend on it.
fn agree(insn: &Instruction, state: &mut State, data_at: u64) {
    let value = |r: Register| if r == Register::None { 0 } else { state.gpr[r.number()] };
    let at = value(insn.memory_base())
        .wrapping_add(value(insn.memory_index()).wrapping_mul(insn.memory_index_scale().into()))
        .wrapping_add(insn.memory_displacement64());
    let offset = (at - data_at) as usize;
    let wide = insn.mnemonic() == Mnemonic::Cmpxchg16b;
    let word = |at: usize, n: usize| {
        let mut bytes = [0; 8];
        bytes[..n].copy_from_slice(&state.data[at..at + n]);
        u64::from_le_bytes(bytes)
    };
    let n = if wide { 8 } else { 4 };
    let (low, high) = (word(offset, n), word(offset + n, n));
    for (r, new) in [(Register::RAX, low), (Register::RDX, high)] {
        if insn.memory_base() != r && insn.memory_index() != r {
            state.gpr[r.number()] = new;
        }
    }
}

/// An address within the data, whatever registers it is made of.
fn place_memory(insn: &mut Instruction, state: &mut State, r: &mut Random, middle: u64) -> Option<()> {
    let named: Vec<Register> = (0..insn.op_count())
        .filter(|i| insn.op_kind(*i) == OpKind::Register)
        .map(|i| insn.op_register(i).full_register())
        .collect();
    let any = |r: &mut Random| loop {
        let candidate = Register::RAX + r.below(16) as u32;
        if candidate != Register::RSP {
            return candidate;
        }
    };
    let base = if r.below(6) == 0 { Register::RSP } else { any(r) };
    let index = Some(any(r)).filter(|i| r.below(2) == 0 && *i != base);
    let scale = 1 << r.below(4);
    insn.set_memory_base(base);
    insn.set_memory_index(index.unwrap_or(Register::None));
    insn.set_memory_index_scale(scale);
    insn.set_memory_displacement64((r.below(600) as i64 - 300) as u64);
    insn.set_memory_displ_size(8);
    if let Some(index) = index {
        state.gpr[index.number()] = (r.below(128) as i64 - 64) as u64;
    }
    if base != Register::RSP {
        state.gpr[base.number()] = middle;
    }
    // A bit offset in a register reaches beyond the operand.
    if matches!(insn.mnemonic(), Mnemonic::Bt | Mnemonic::Bts | Mnemonic::Btr | Mnemonic::Btc)
        && let Some(offset) = named.first()
    {
        if *offset == base || Some(*offset) == index {
            return None;
        }
        state.gpr[offset.number()] = (r.below(2000) as i64 - 1000) as u64;
    }
    Some(())
}

/// Flags that the SDM leaves undefined, as iced-x86's tables have them.
fn undefined_flags(insn: &Instruction) -> u64 {
    use RflagsBits as B;
    let bits = insn.rflags_undefined();
    [(B::CF, 1), (B::PF, 4), (B::AF, 16), (B::ZF, 64), (B::SF, 128), (B::OF, 0x800)]
        .into_iter()
        .filter(|(b, _)| bits & b != 0)
        .fold(0, |all, (_, f)| all | f)
}

/// "If the count is greater than the operand size, the result is undefined" (SHLD, SHRD); of 16 bits, BSWAP is.
fn is_undefined(insn: &Instruction, state: &State) -> bool {
    match insn.mnemonic() {
        Mnemonic::Shld | Mnemonic::Shrd if insn.op_register(1).size() == 2 => {
            let count = if insn.op_kind(2) == OpKind::Register { state.gpr[1] as u8 } else { insn.immediate8() };
            count & 31 > 16
        }
        Mnemonic::Bswap => insn.op_register(0).size() == 2,
        _ => false,
    }
}

/// Results that the SDM leaves undefined, or that processors have another way than its text: the destination of BSF and BSR of
/// 0, and the upper half of a register that CMPXCHG of 32 bits does not exchange.
fn forget_undefined_results(insn: &Instruction, ours: &mut State, theirs: &State) {
    const ZF: u64 = 1 << 6;
    let zero = theirs.flags & ZF != 0;
    let d = insn.op_register(0);
    match insn.mnemonic() {
        Mnemonic::Bsf | Mnemonic::Bsr if zero => {
            let d = d.full_register().number();
            ours.gpr[d] = theirs.gpr[d];
        }
        Mnemonic::Cmpxchg if !zero && d.size() == 4 => {
            let r = &mut ours.gpr[d.full_register().number()];
            *r = *r & 0xffff_ffff | theirs.gpr[d.full_register().number()] & !0xffff_ffff;
        }
        _ => {}
    }
}

fn difference(bytes: &[u8], insn: &Instruction, before: &State, ours: &State, theirs: &State) -> String {
    let operands: Vec<_> = (0..insn.op_count()).map(|i| (insn.op_kind(i), insn.op_register(i))).collect();
    let mut text = format!("  {bytes:02x?} {operands:?}\n");
    for i in 0..16 {
        let [b, o, t] = [before, ours, theirs].map(|s| s.gpr[i]);
        if o != t {
            text += &format!("  {:?}: before {b:#x}, here {o:#x}, there {t:#x}\n", Register::RAX + i as u32);
        }
    }
    for (i, word) in before.vectors.iter().enumerate() {
        let (o, t) = (ours.vectors[i], theirs.vectors[i]);
        if o != t {
            text += &format!("  YMM{} word {}: before {word:#x}, here {o:#x}, there {t:#x}\n", i / 4, i % 4);
        }
    }
    text += &format!("  mxcsr: before {:#x}, here {:#x}, there {:#x}\n", before.mxcsr, ours.mxcsr, theirs.mxcsr);
    text += &format!("  flags: before {:#x}, here {:#x}, there {:#x}\n", before.flags, ours.flags, theirs.flags);
    if let Some(i) = ours.data.iter().zip(&theirs.data).position(|(a, b)| a != b) {
        text += &format!("  data at {i:#x}: here {:#x}, there {:#x}\n", ours.data[i], theirs.data[i]);
    }
    text + &format!("  registers before: {:x?}\n", before.gpr)
}

#[test]
fn the_data_path_is_that_of_the_processor() {
    let cases: u64 = std::env::var("UNDERVISOR_FUZZ_CASES").ok().and_then(|n| n.parse().ok()).unwrap_or(100_000);
    let mut native = Native::new();
    let mut emulated = Emulated::new(&native);
    let (at, data_at) = (native.at(), native.base() + DATA as u64);
    let codes: Vec<Code> = Code::values()
        .filter(|c| is_tried(c.mnemonic()) && c.op_code().is_instruction() && c.op_code().mode64() && host_has(*c))
        .collect();
    let each = cases / codes.len() as u64 + 1;
    let mut r = Random(1);
    let (mut done, mut tried, mut untried) = (0, BTreeSet::new(), BTreeSet::new());
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
            // A divide error would end the test on the host.
            let Some(mut ours) = emulated.run(&bytes, &state) else { continue };
            let mut theirs = state.clone();
            native.run(&bytes, &mut theirs);
            instances += 1;
            let undefined = undefined_flags(&insn);
            ours.flags &= !undefined;
            theirs.flags &= !undefined;
            forget_undefined_results(&insn, &mut ours, &theirs);
            if ours != theirs {
                let text = difference(&bytes, &insn, &state, &ours, &theirs);
                wrong.entry(format!("{code:?}")).or_insert((0, text)).0 += 1;
            }
        }
        done += instances;
        if instances > 0 {
            tried.insert(code)
        } else {
            untried.insert(code)
        };
    }
    println!("{done} cases of {} encodings; without an instance: {untried:?}", tried.len());
    for (code, (n, example)) in &wrong {
        println!("{code}: {n} wrong, such as\n{example}");
    }
    assert!(wrong.is_empty(), "{} encodings differ", wrong.len());
    assert!(tried.len() > 250, "{}", tried.len());
}

/// A short block: instructions, and branches over one of them. Flags that one leaves undefined would spread, so there are none
/// such but A, which nothing here asks for.
fn block(codes: &[Code], r: &mut Random, at: u64, data_at: u64) -> (Vec<u8>, State) {
    let mut encoder = Encoder::new(64);
    let mut code = Vec::new();
    let mut state = None;
    let length = 2 + r.below(12);
    while (code.len() as u64) < length * 4 {
        let Some((insn, its)) = instance(codes[r.below(codes.len() as u64) as usize], r, data_at) else { continue };
        let is_memory = (0..insn.op_count()).any(|i| insn.op_kind(i) == OpKind::Memory);
        // RSP is where it was; other registers may have changed.
        if is_memory && (insn.memory_base() != Register::RSP || insn.memory_index() != Register::None) {
            continue;
        }
        // Vectors may have to be aligned.
        if is_memory && insn.memory_size().size() >= 16 && !insn.memory_displacement64().is_multiple_of(32) {
            continue;
        }
        let encoded = encoder.encode(&insn, at + code.len() as u64).is_ok();
        let bytes = encoder.take_buffer();
        if !encoded {
            continue;
        }
        let insn = Decoder::with_ip(64, &bytes, at + code.len() as u64, DecoderOptions::NONE).decode();
        if undefined_flags(&insn) & !emu_core::engine::flags::ADJUST != 0 {
            continue;
        }
        if r.below(3) == 0 {
            code.extend([0x70 + r.below(16) as u8, bytes.len() as u8]); // Jcc
        }
        code.extend(bytes);
        state.get_or_insert(its);
    }
    (code, state.expect("a block has an instruction"))
}

#[test]
fn short_blocks_do_the_same() {
    let cases: u64 = std::env::var("UNDERVISOR_FUZZ_CASES").ok().and_then(|n| n.parse().ok()).unwrap_or(100_000);
    let mut native = Native::new();
    let mut emulated = Emulated::new(&native);
    let (at, data_at) = (native.at(), native.base() + DATA as u64);
    let unfit = |m: Mnemonic| {
        use Mnemonic as M;
        matches!(
            m,
            M::Div
                | M::Idiv
                | M::Bsf
                | M::Bsr
                | M::Cmpxchg
                | M::Push
                | M::Pop
                | M::Leave
                | M::Enter
                | M::Cmpxchg16b
                | M::Lahf
                | M::Sahf
                | M::Bt
                | M::Bts
                | M::Btr
                | M::Btc
        )
    };
    let codes: Vec<Code> = Code::values()
        .filter(|c| is_tried(c.mnemonic()) && !unfit(c.mnemonic()) && c.op_code().is_instruction())
        .filter(|c| c.op_code().mode64() && host_has(*c))
        .collect();
    let mut r = Random(2);
    let mut done = 0;
    for _ in 0..cases / 4 {
        let (code, state) = block(&codes, &mut r, at, data_at);
        let Some(mut ours) = emulated.run(&code, &state) else { panic!("{code:02x?} did not end") };
        let mut theirs = state.clone();
        native.run(&code, &mut theirs);
        ours.flags &= !emu_core::engine::flags::ADJUST;
        theirs.flags &= !emu_core::engine::flags::ADJUST;
        let first = Decoder::with_ip(64, &code, at, DecoderOptions::NONE).decode();
        assert!(ours == theirs, "{}", difference(&code, &first, &state, &ours, &theirs));
        done += 1;
    }
    println!("{done} blocks");
}

/// MOVS, STOS, LODS, CMPS, SCAS of all sizes, in both directions, with and without repeat prefixes.
#[test]
fn strings_go_as_the_processor_has_them() {
    let mut native = Native::new();
    let mut emulated = Emulated::new(&native);
    let middle = emulated.data_at + (SIZE - DATA) as u64 / 2;
    let mut r = Random(4);
    let mut done = 0;
    for opcode in [0xa4u8, 0xa5, 0xa6, 0xa7, 0xaa, 0xab, 0xac, 0xad, 0xae, 0xaf] {
        for size in [&[][..], &[0x66], &[0x48]] {
            for repeat in [&[][..], &[0xf2], &[0xf3]] {
                for _ in 0..60 {
                    // An operand size goes before, REX behind the repeat prefix.
                    let code = if size == [0x48] { [repeat, size].concat() } else { [size, repeat].concat() };
                    let code = [&code[..], &[opcode]].concat();
                    // Few different bytes, so that comparisons find what they look for now and then.
                    let data = (0..SIZE - DATA).map(|_| if r.below(8) == 0 { r.next() as u8 } else { 0 }).collect();
                    let mut state = State {
                        gpr: std::array::from_fn(|_| r.value()),
                        flags: r.next() & (STATUS | DF),
                        data,
                        vectors: vec![0; 64],
                        mxcsr: MASKED,
                    };
                    state.gpr[0] = if r.below(2) == 0 { 0 } else { r.next() };
                    state.gpr[1] = if r.below(4) == 0 { 0 } else { r.below(100) };
                    // At times the two overlap.
                    state.gpr[6] = middle + r.below(64);
                    state.gpr[7] =
                        if r.below(2) == 0 { state.gpr[6] + r.below(8) } else { middle + 1500 + r.below(64) };
                    state.gpr[4] = middle;
                    let ours = emulated.run(&code, &state).expect("it does not fault");
                    let mut theirs = state.clone();
                    native.run(&code, &mut theirs);
                    let insn = Decoder::with_ip(64, &code, emulated.at, DecoderOptions::NONE).decode();
                    assert!(ours == theirs, "{}", difference(&code, &insn, &state, &ours, &theirs));
                    done += 1;
                }
            }
        }
    }
    println!("{done} strings");
}

/// Handlers jump to each other: however long a chain of blocks is, it takes no more of the host's stack.
#[test]
fn a_long_chain_takes_no_stack() {
    const STACK: usize = 128 << 10;
    let work = || {
        let mut r = Random(3);
        let native = Native::new();
        let mut emulated = Emulated::new(&native);
        let codes: Vec<Code> = Code::values()
            .filter(|c| is_tried(c.mnemonic()) && c.op_code().is_instruction() && c.op_code().mode64())
            .filter(|c| !matches!(c.mnemonic(), Mnemonic::Div | Mnemonic::Idiv | Mnemonic::Leave))
            .collect();
        for _ in 0..300 {
            let (mut code, state) = block(&codes, &mut r, emulated.at, emulated.data_at);
            // Back to the start, for ever; pushes and pops leave the data sooner or later.
            let back = -(code.len() as i32 + 5);
            code.push(0xe9);
            code.extend(back.to_le_bytes());
            emulated.world.ram.write(emulated.at, &code).unwrap();
            emulated.world.ram.write(emulated.data_at, &state.data).unwrap();
            let core = &mut emulated.vcpu.core;
            core.regs[..16].copy_from_slice(&state.gpr);
            core.pc = emulated.at;
            emulated.vcpu.run(&mut emulated.world, 0, 100_000);
        }
    };
    std::thread::Builder::new().stack_size(STACK).spawn(work).unwrap().join().unwrap();
}
