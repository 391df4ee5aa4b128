//! What the hypervisors of both vendors share in machine code, and where all of it is.

use iced_x86::code_asm::*;

pub type Result<T = ()> = std::result::Result<T, IcedError>;

/// Where the guests' memory is in the machine; they find it at 0.
pub const MEMORY: u64 = 8 << 20;
/// Bytes of it.
pub const SIZE: u64 = 2 << 20;
/// L1's code, and its stack's end.
pub const L1: u64 = 0x10_0000;
pub const STACK: u64 = 0x20_0000;
/// L1 puts 1 here when all has gone well.
pub const DONE: u64 = 0x20_0000;
/// L1's structures, from here on.
pub const STRUCTURES: u64 = 0x20_1000;
/// Guest-physical: L2, and the stack's end; L3; L2's structures.
pub const L2: u64 = 0x1_0000;
pub const L2_STACK: u64 = 0x2_0000;
pub const L3: u64 = 0x3_0000;
pub const L3_STACK: u64 = 0x4_0000;
pub const L2_STRUCTURES: u64 = 0x5_0000;
/// Page tables, of L1 and of its guests likewise: 1 GiB as it is.
pub const PML4: u64 = 0x1000;

/// The serial port.
pub const PORT: u32 = 0x3f8;
/// Registers that an exit leaves as they are, but for RSP, and on SVM RAX.
const REGISTERS: [AsmRegister64; 15] = [rax, rcx, rdx, rbx, rbp, rsi, rdi, r8, r9, r10, r11, r12, r13, r14, r15];

/// Where things go in the machine, and their bytes.
pub type Images = Vec<(u64, Vec<u8>)>;

/// Code of a part.
pub type Part = fn(&mut CodeAssembler) -> Result;

/// L1, L2, L3 and page tables.
pub fn images([l1, l2, l3]: [Part; 3]) -> Result<Images> {
    let assemble = |at: u64, code: Part| {
        let mut a = CodeAssembler::new(64)?;
        code(&mut a)?;
        a.assemble(at)
    };
    let mut images = vec![(L1, assemble(L1, l1)?), (MEMORY + L2, assemble(L2, l2)?), (MEMORY + L3, assemble(L3, l3)?)];
    // Levels 4 and 3, and pages of 2 MiB.
    for base in [0, MEMORY] {
        images.push((base + PML4, (PML4 + 0x1003).to_le_bytes().into()));
        images.push((base + PML4 + 0x1000, (PML4 + 0x2003).to_le_bytes().into()));
        images.push((base + PML4 + 0x2000, (0..512u64).flat_map(|i| (i << 21 | 0x83).to_le_bytes()).collect()));
    }
    Ok(images)
}

/// Three levels of a second stage's tables, one of each, that lead to one of the last level, which is empty. Changes RAX, RBX.
pub fn second_stage(a: &mut CodeAssembler, tables: u64) -> Result {
    for level in 0..3 {
        a.mov(rax, (tables + 0x1000 * (level + 1)) | 7)?;
        a.mov(rbx, tables + 0x1000 * level)?;
        a.mov(qword_ptr(rbx), rax)?;
    }
    Ok(())
}

/// Maps the page of the guests' memory that is at the guest-physical address in RCX, by an entry with these bits. Changes RCX, RDX.
pub fn map(a: &mut CodeAssembler, tables: u64, bits: u64, failed: CodeLabel) -> Result {
    a.cmp(rcx, SIZE as i32)?;
    a.jae(failed)?;
    a.shr(rcx, 12)?;
    a.mov(rdx, rcx)?;
    a.shl(rdx, 12)?;
    a.add(rdx, (MEMORY | bits) as i32)?;
    a.mov(qword_ptr(rcx * 8 + (tables + 0x3000) as i32), rdx)
}

pub fn save(a: &mut CodeAssembler) -> Result {
    REGISTERS.iter().rev().try_for_each(|r| a.push(*r))
}

pub fn restore(a: &mut CodeAssembler) -> Result {
    REGISTERS.iter().try_for_each(|r| a.pop(*r))
}

/// A saved register, on the stack.
pub fn saved(register: AsmRegister64) -> AsmMemoryOperand {
    let i = REGISTERS.iter().position(|r| *r == register).unwrap_or(0);
    qword_ptr(rsp + 8 * i as i32)
}

/// Goes where it is known what to do about the number in EBX.
pub fn dispatch(a: &mut CodeAssembler, known: &[(i32, CodeLabel)]) -> Result {
    for (number, label) in known {
        a.cmp(ebx, *number)?;
        a.je(*label)?;
    }
    Ok(())
}

/// Prints what is in RAX, for a guest.
pub fn print_for_guest(a: &mut CodeAssembler) -> Result {
    a.mov(edx, PORT)?;
    a.out(dx, al)
}

/// Prints a text, byte by byte. Changes RAX, RDX, RSI.
pub fn print(a: &mut CodeAssembler, text: &str) -> Result {
    let (mut bytes, mut begin, mut next, mut end) =
        (a.create_label(), a.create_label(), a.create_label(), a.create_label());
    a.jmp(begin)?;
    a.set_label(&mut bytes)?;
    a.db(text.as_bytes())?;
    a.db(&[0])?;
    a.set_label(&mut begin)?;
    a.lea(rsi, ptr(bytes))?;
    a.mov(edx, PORT)?;
    a.set_label(&mut next)?;
    a.lodsb()?;
    a.test(al, al)?;
    a.je(end)?;
    a.out(dx, al)?;
    a.jmp(next)?;
    a.set_label(&mut end)?;
    a.nop()
}

/// L3, the innermost guest, up to the call with which it ends.
pub fn l3(a: &mut CodeAssembler) -> Result {
    let (mut touch, mut again) = (a.create_label(), a.create_label());
    print(a, "L3: hello from the guest's guest\n")?;
    // Memory that nobody has touched: each page is an exit to L1, of which L2 hears nothing.
    a.mov(rbx, 0x10_0000u64)?;
    a.set_label(&mut touch)?;
    a.mov(qword_ptr(rbx), rbx)?;
    a.add(rbx, 0x1000)?;
    a.cmp(rbx, 0x11_0000)?;
    a.jb(touch)?;
    print(a, "L3: 16 pages touched\n")?;
    // Each is an exit to L1, which lets L2 answer.
    a.mov(rbp, 10u64)?;
    a.set_label(&mut again)?;
    a.cpuid()?;
    a.dec(rbp)?;
    a.jne(again)?;
    print(a, "L3: 10 times CPUID\n")
}
