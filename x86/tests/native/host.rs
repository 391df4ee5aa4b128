//! The host's processor.

use std::cell::Cell;
use std::mem;

use iced_x86::code_asm::{CodeAssembler, r12, r13, r14, r15, rbp, rbx};
use iced_x86::{Code, IcedError, Instruction, MemoryOperand, Register};

use crate::state::{DATA, MASKED, PAGE, REGISTERS, SIZE, STATUS, State, Trap, X87_SIZE};

/// Where things are in the page of registers: general registers and flags, RSP of the test, MXCSR, vectors, FXSAVE's image.
const OWN_RSP_AT: usize = 256;
const OWN_MXCSR_AT: usize = 272;
const VECTORS_AT: usize = 512;
const IMAGE_AT: usize = 1024;

/// The host's processor, with a stage of its own.
pub struct Native {
    map: memmap2::MmapMut,
    prologue: usize,
    epilogue: usize,
}

impl Native {
    pub fn new() -> Self {
        let mut map = memmap2::MmapOptions::new().len(SIZE + PAGE).map_anon().unwrap();
        let all = libc::PROT_READ | libc::PROT_WRITE | libc::PROT_EXEC;
        // SAFETY: the mapping is our own, and nothing is in its last page.
        let done = unsafe {
            libc::mprotect(map.as_mut_ptr().cast(), SIZE, all)
                | libc::mprotect(map.as_mut_ptr().add(SIZE).cast(), PAGE, libc::PROT_NONE)
        };
        assert_eq!(done, 0, "memory that can be executed is to be had");
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
        let prologue = a.assemble(base).unwrap();
        let epilogue_at = PAGE / 2;
        let mut a = CodeAssembler::new(64).unwrap();
        for (at, register) in (0..16).map(gpr) {
            add(&mut a, Instruction::with2(Code::Mov_rm64_r64, at, register));
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
        catch_signals();
        Native { map, prologue: prologue.len(), epilogue: epilogue_at }
    }

    pub fn base(&self) -> u64 {
        self.map.as_ptr() as u64
    }

    /// Address of the instruction that is tried.
    pub fn at(&self) -> u64 {
        self.base() + self.prologue as u64
    }

    pub fn run(&mut self, insn: &[u8], state: &mut State) {
        let end = self.prologue + insn.len();
        self.map[self.prologue..end].copy_from_slice(insn);
        let distance = (self.epilogue - end - 5) as i32;
        self.map[end] = 0xe9; // JMP
        self.map[end + 1..end + 5].copy_from_slice(&distance.to_le_bytes());
        self.map[DATA..SIZE].copy_from_slice(&state.data);
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
        let base = self.base();
        STAGE.set((base, base + self.epilogue as u64));
        TRAP.set(None);
        // SAFETY: the code saves and restores what a function must, and the instruction works on registers and our data.
        let f: extern "C" fn() = unsafe { mem::transmute(self.map.as_ptr()) };
        f();
        let page = &self.map[REGISTERS..][..PAGE];
        let word = |at: usize| u64::from_le_bytes(page[at..at + 8].try_into().unwrap());
        state.gpr = std::array::from_fn(|i| word(8 * i));
        state.flags = word(128) & STATUS;
        state.vectors = (0..64).map(|i| word(VECTORS_AT + 8 * i)).collect();
        state.mxcsr = word(IMAGE_AT + 24) & 0xffff;
        state.x87.copy_from_slice(&page[IMAGE_AT..][..X87_SIZE]);
        state.x87[24..32].fill(0);
        state.data.copy_from_slice(&self.map[DATA..SIZE]);
        state.trap = TRAP.get();
    }
}

thread_local! {
    /// Where an instruction may fault, and where to go on then.
    static STAGE: Cell<(u64, u64)> = const { Cell::new((0, 0)) };
    static TRAP: Cell<Option<Trap>> = const { Cell::new(None) };
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
        let (begin, end) = STAGE.get();
        let rip = registers[libc::REG_RIP as usize] as u64;
        if !(begin..end).contains(&rip) {
            libc::_exit(128 + signal); // a fault of the test itself
        }
        let get = |i: i32| registers[i as usize] as u64;
        let vector = get(libc::REG_TRAPNO) as u8;
        let address = if vector == 14 { get(libc::REG_CR2) } else { 0 };
        let error = if matches!(vector, 10..=14 | 17) { get(libc::REG_ERR) } else { 0 };
        TRAP.set(Some(Trap { vector, error, address }));
        registers[libc::REG_RIP as usize] = end as i64;
    }
}
