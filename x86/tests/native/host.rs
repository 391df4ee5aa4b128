//! The host's processor.

use std::cell::Cell;
use std::mem;

use iced_x86::code_asm::{CodeAssembler, r12, r13, r14, r15, rbp, rbx};
use iced_x86::{Code, IcedError, Instruction, MemoryOperand, Register};

use crate::mode::{FIELD, FIELD_MIDDLE, HLT, Mode, Segments, USER_CS, USER_DS};
use crate::state::{DATA, MASKED, PAGE, REGISTERS, SIZE, STATUS, State, Trap, X87_SIZE};

/// Bytes of addresses that are the stage's: a segment of 64 KiB fits behind its data, where nothing else is.
const RESERVED: usize = 0x20_000;
/// Where things are in the page of registers: general registers and flags, selectors, a far pointer to the instruction, null selectors, RSP of the
/// test, MXCSR, vectors, FXSAVE's image.
const SELECTORS_AT: usize = 144;
const FAR_AT: usize = 160;
const NULL_AT: usize = 168;
const OWN_RSP_AT: usize = 256;
const OWN_MXCSR_AT: usize = 272;
const VECTORS_AT: usize = 512;
const IMAGE_AT: usize = 1024;

/// EFLAGS.TF.
const TF: i64 = 1 << 8;

/// The host's processor, with a stage of its own.
pub struct Native {
    map: &'static mut [u8],
    pub segments: Segments,
    /// Where the instruction is, and what follows.
    insn: usize,
    epilogue: usize,
}

impl Drop for Native {
    fn drop(&mut self) {
        // SAFETY: it was mapped by `new`, and nothing refers to it any more.
        unsafe { libc::munmap(self.map.as_mut_ptr().cast(), RESERVED) };
    }
}

impl Native {
    pub fn new() -> Self {
        Native::of(Mode::Long).expect("64-bit mode is always to be had")
    }

    /// In a mode, if the system has it.
    pub fn of(mode: Mode) -> Option<Self> {
        let low = if mode == Mode::Long { 0 } else { libc::MAP_32BIT };
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE | low;
        // SAFETY: the mapping is new, our own, and lives as long as this.
        let map = unsafe {
            let map = libc::mmap(std::ptr::null_mut(), RESERVED, libc::PROT_NONE, flags, -1, 0);
            assert_ne!(map, libc::MAP_FAILED, "memory is to be had");
            let data = libc::PROT_READ | libc::PROT_WRITE;
            let done =
                libc::mprotect(map, PAGE, data | libc::PROT_EXEC) | libc::mprotect(map.add(PAGE), SIZE - PAGE, data);
            assert_eq!(done, 0, "memory that can be executed is to be had");
            std::slice::from_raw_parts_mut(map.cast::<u8>(), SIZE)
        };
        let segments = Segments::new(mode, map.as_ptr() as u64)?;
        let base = map.as_ptr() as u64;
        let place = |at: usize| MemoryOperand::with_base_displ(Register::RIP, (base + (REGISTERS + at) as u64) as i64);
        let gpr = |i: usize| (place(8 * i), Register::RAX + i as u32);
        let ymm = |i: usize| (place(VECTORS_AT + 32 * i), Register::YMM0 + i as u32);
        let add = |a: &mut CodeAssembler, insn: Result<Instruction, IcedError>| {
            a.add_instruction(insn.unwrap()).unwrap();
        };
        let saved = [rbx, rbp, r12, r13, r14, r15];
        let mut a = CodeAssembler::new(64).unwrap();
        for r in saved {
            a.push(r).unwrap();
        }
        add(&mut a, Instruction::with2(Code::Mov_rm64_r64, place(OWN_RSP_AT), Register::RSP));
        add(&mut a, Instruction::with1(Code::Fxrstor64_m512byte, place(IMAGE_AT)));
        for (at, register) in (0..16).map(ymm) {
            add(&mut a, Instruction::with2(Code::VEX_Vmovups_ymm_ymmm256, register, at));
        }
        add(&mut a, Instruction::with1(Code::Push_rm64, place(128)));
        a.popfq().unwrap();
        for (at, register) in (0..16).map(gpr) {
            add(&mut a, Instruction::with2(Code::Mov_r64_rm64, register, at));
        }
        if mode != Mode::Long {
            for i in [0, 2, 3, 5] {
                let at = place(SELECTORS_AT + 2 * i);
                add(&mut a, Instruction::with2(Code::Mov_Sreg_rm16, Register::ES + i as u32, at));
            }
            add(&mut a, Instruction::with1(Code::Jmp_m1632, place(FAR_AT)));
        }
        let prologue = a.assemble(base).unwrap();
        let epilogue_at = PAGE / 2;
        let mut a = CodeAssembler::new(64).unwrap();
        for (at, register) in (0..16).map(gpr) {
            add(&mut a, Instruction::with2(Code::Mov_rm64_r64, at, register));
        }
        if mode != Mode::Long {
            // SS is in the signal's frame; FS is the C library's.
            for i in [0, 3, 5] {
                let register = Register::ES + i as u32;
                add(&mut a, Instruction::with2(Code::Mov_rm16_Sreg, place(SELECTORS_AT + 2 * i), register));
                add(&mut a, Instruction::with2(Code::Mov_Sreg_rm16, register, place(NULL_AT)));
            }
        }
        add(&mut a, Instruction::with2(Code::Mov_r64_rm64, Register::RSP, place(OWN_RSP_AT)));
        a.pushfq().unwrap();
        add(&mut a, Instruction::with1(Code::Pop_rm64, place(128)));
        for (at, register) in (0..16).map(ymm) {
            add(&mut a, Instruction::with2(Code::VEX_Vmovups_ymmm256_ymm, at, register));
        }
        add(&mut a, Instruction::with1(Code::Fxsave64_m512byte, place(IMAGE_AT)));
        a.fninit().unwrap();
        add(&mut a, Instruction::with1(Code::Ldmxcsr_m32, place(OWN_MXCSR_AT)));
        a.vzeroupper().unwrap();
        for r in saved.into_iter().rev() {
            a.pop(r).unwrap();
        }
        a.cld().unwrap();
        a.ret().unwrap();
        let epilogue = a.assemble(base + epilogue_at as u64).unwrap();
        map[..prologue.len()].copy_from_slice(&prologue);
        map[epilogue_at..epilogue_at + epilogue.len()].copy_from_slice(&epilogue);
        assert!(prologue.len() < epilogue_at && epilogue_at + epilogue.len() < FIELD.start);
        let mut insn = prologue.len();
        if mode != Mode::Long {
            map[FIELD].fill(HLT);
            insn = FIELD_MIDDLE;
        }
        catch_signals();
        Some(Native { map, segments, insn, epilogue: epilogue_at })
    }

    pub fn base(&self) -> u64 {
        self.map.as_ptr() as u64
    }

    /// Address of the instruction that is tried.
    pub fn at(&self) -> u64 {
        self.base() + self.insn as u64
    }

    pub fn run(&mut self, insn: &[u8], state: &mut State) {
        let end = self.insn + insn.len();
        self.map[self.insn..end].copy_from_slice(insn);
        let is_long = self.segments.mode == Mode::Long;
        if is_long {
            let distance = (self.epilogue - end - 5) as i32;
            self.map[end] = 0xe9; // JMP
            self.map[end + 1..end + 5].copy_from_slice(&distance.to_le_bytes());
        } else {
            self.map[end..end + 16].fill(HLT);
        }
        self.map[DATA..SIZE].copy_from_slice(&state.data);
        let base = self.base();
        let ip = self.segments.ip(self.at());
        let page = &mut self.map[REGISTERS..][..PAGE];
        let mut put = |at: usize, value: u64| page[at..at + 8].copy_from_slice(&value.to_le_bytes());
        for (i, value) in state.gpr.iter().chain([&(state.flags | 0x202)]).enumerate() {
            put(8 * i, *value);
        }
        for (i, word) in state.vectors.iter().enumerate() {
            put(VECTORS_AT + 8 * i, *word);
        }
        put(OWN_MXCSR_AT, MASKED);
        page[IMAGE_AT..][..X87_SIZE].copy_from_slice(&state.x87);
        page[IMAGE_AT + 24..][..8].copy_from_slice(&state.mxcsr.to_le_bytes());
        if !is_long {
            for (i, selector) in state.selectors.iter().enumerate() {
                page[SELECTORS_AT + 2 * i..][..2].copy_from_slice(&selector.to_le_bytes());
            }
            page[FAR_AT..][..4].copy_from_slice(&(ip as u32).to_le_bytes());
            page[FAR_AT + 4..][..2].copy_from_slice(&state.selectors[1].to_le_bytes());
            page[NULL_AT..][..2].fill(0);
        }
        EPILOGUE.set(Some(base + self.epilogue as u64));
        TRAP.set(None);
        // SAFETY: the code saves and restores what a function must, and the instruction works on registers and our data.
        let f: extern "C" fn() = unsafe { mem::transmute(self.map.as_ptr()) };
        f();
        EPILOGUE.set(None);
        let page = &self.map[REGISTERS..][..PAGE];
        let word = |at: usize| u64::from_le_bytes(page[at..at + 8].try_into().unwrap());
        let mask = self.segments.mode.mask();
        state.gpr = std::array::from_fn(|i| word(8 * i) & mask);
        state.flags = word(128) & STATUS;
        state.vectors = (0..64).map(|i| word(VECTORS_AT + 8 * i)).collect();
        state.mxcsr = word(IMAGE_AT + 24) & 0xffff;
        state.x87.copy_from_slice(&page[IMAGE_AT..][..X87_SIZE]);
        state.x87[24..32].fill(0);
        state.data.copy_from_slice(&self.map[DATA..SIZE]);
        let trap = TRAP.get();
        if !is_long {
            let (cs, ss) = FOUND.get();
            for i in [0, 3, 5] {
                let at = SELECTORS_AT + 2 * i;
                state.selectors[i] = u16::from_le_bytes([page[at], page[at + 1]]);
            }
            (state.selectors[1], state.selectors[2]) = (cs, ss);
        }
        let end = Trap { vector: 13, error: 0, address: 0, ip: ip + insn.len() as u64 };
        state.trap = trap.filter(|t| is_long || *t != end);
    }
}

thread_local! {
    /// While an instruction may fault: where to go on then.
    static EPILOGUE: Cell<Option<u64>> = const { Cell::new(None) };
    static TRAP: Cell<Option<Trap>> = const { Cell::new(None) };
    /// CS and SS of what was left.
    static FOUND: Cell<(u16, u16)> = const { Cell::new((0, 0)) };
}

/// Faults of the instruction that is tried lead to the epilogue, with the registers as they are.
fn catch_signals() {
    const STACK: usize = 64 << 10;
    let stack = Box::leak(vec![0u8; STACK].into_boxed_slice());
    // SAFETY: the stack lives on, and the handler does nothing but read and write its arguments and constant-initialized cells.
    unsafe {
        let own = libc::stack_t { ss_sp: stack.as_mut_ptr().cast(), ss_flags: 0, ss_size: STACK };
        assert_eq!(libc::sigaltstack(&own, std::ptr::null_mut()), 0);
        let mut action: libc::sigaction = mem::zeroed();
        action.sa_sigaction = on_fault as *const () as usize;
        action.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK;
        for signal in [libc::SIGFPE, libc::SIGSEGV, libc::SIGILL, libc::SIGBUS, libc::SIGTRAP] {
            assert_eq!(libc::sigaction(signal, &action, std::ptr::null_mut()), 0);
        }
    }
}

extern "C" fn on_fault(signal: i32, _: *mut libc::siginfo_t, context: *mut libc::c_void) {
    // SAFETY: the kernel passes a context; `_exit` may be called here.
    unsafe {
        let registers = &mut (*context.cast::<libc::ucontext_t>()).uc_mcontext.gregs;
        let Some(epilogue) = EPILOGUE.take() else {
            libc::_exit(128 + signal); // a fault of the test itself
        };
        let rip = registers[libc::REG_RIP as usize] as u64;
        let selectors = registers[libc::REG_CSGSFS as usize] as u64;
        let (cs, ss) = (selectors as u16, (selectors >> 48) as u16);
        let get = |i: i32| registers[i as usize] as u64;
        let vector = get(libc::REG_TRAPNO) as u8;
        let address = if vector == 14 { get(libc::REG_CR2) } else { 0 };
        let error = if matches!(vector, 10..=14 | 17) { get(libc::REG_ERR) } else { 0 };
        TRAP.set(Some(Trap { vector, error, address, ip: rip }));
        FOUND.set((cs, ss));
        let selectors = selectors & 0xffff_ffff_0000 | u64::from(USER_CS.selector) | u64::from(USER_DS.selector) << 48;
        registers[libc::REG_CSGSFS as usize] = selectors as i64;
        registers[libc::REG_RIP as usize] = epilogue as i64;
        registers[libc::REG_EFL as usize] &= !TF;
    }
}
