//! What a bare guest of a PC is made of: a Multiboot image whose 32-bit code enters 64-bit mode, identity mapping of 4 GiB, and a way to say that
//! it is done.
//!
//! ```text
//! 0x100000  Multiboot header, 32-bit code
//! 0x101000  GDT, IDT
//! 0x102000  PML4, PDPT, four page directories of 2-MiB pages
//! 0x108000  64-bit code
//! 0x110000  stack, downwards
//! ```

use iced_x86::code_asm::*;

/// Where the image is entered, behind its begin.
pub const ENTRY: u64 = 0x40;
/// Where the image is loaded.
pub const BASE: u64 = 0x10_0000;
/// The GDT: code, data.
pub const GDT: u64 = BASE + 0x1000;
/// The IDT: 32 gates, which code fills in.
pub const IDT: u64 = BASE + 0x1100;
/// The top paging structure.
pub const PML4: u64 = BASE + 0x2000;
/// Where 64-bit code begins.
pub const CODE: u64 = BASE + 0x8000;
const STACK: u64 = BASE + 0x1_0000;

/// Writes a word into the image.
fn put(image: &mut Vec<u8>, address: u64, bytes: &[u8]) {
    let at = (address - BASE) as usize;
    if image.len() < at + bytes.len() {
        image.resize(at + bytes.len(), 0);
    }
    image[at..][..bytes.len()].copy_from_slice(bytes);
}

/// Code that goes from the entry of Multiboot to [`CODE`].
fn entry() -> Result<Vec<u8>, IcedError> {
    let mut a = CodeAssembler::new(32)?;
    a.lgdt(ptr(GDT + 0x20))?;
    a.mov(eax, 0x620)?; // PAE, OSFXSR, OSXMMEXCPT
    a.mov(cr4, eax)?;
    a.mov(eax, PML4 as u32)?;
    a.mov(cr3, eax)?;
    a.mov(ecx, 0xc000_0080_u32)?;
    a.mov(eax, 0x100)?; // EFER.LME
    a.xor(edx, edx)?;
    a.wrmsr()?;
    a.mov(eax, 0x8001_0001_u32)?; // PG, WP, PE
    a.mov(cr0, eax)?;
    a.mov(esp, STACK as u32)?;
    a.push(8)?;
    a.push(CODE as i32)?;
    a.retf()?;
    a.assemble(BASE + ENTRY)
}

/// The image around 64-bit code, which `write` writes. It ends by going to one of the labels `done` and `failed`.
pub fn image(write: impl Fn(&mut CodeAssembler, CodeLabel, CodeLabel) -> Result<(), IcedError>) -> Vec<u8> {
    let mut a = CodeAssembler::new(64).expect("there is 64-bit code");
    let (mut done, mut failed) = (a.create_label(), a.create_label());
    let code = (|| {
        for segment in [ds, es, ss] {
            a.mov(eax, 0x10)?;
            a.mov(segment, eax)?;
        }
        a.lidt(ptr(GDT + 0x30))?;
        write(&mut a, done, failed)?;
        a.set_label(&mut done)?;
        // Bochs ends where this is written to its port 8900h.
        a.mov(dx, 0x8900)?;
        for byte in b"Shutdown" {
            a.mov(al, i32::from(*byte))?;
            a.out(dx, al)?;
        }
        // S5 by the PM1 control register of both machines' ICH9.
        // The sleep type of S5 is 0 in QEMU's, 7 in Intel's.
        a.mov(dx, 0x604)?;
        for value in [0x2000, 0x3c00] {
            a.mov(ax, value)?;
            a.out(dx, ax)?;
        }
        a.hlt()?;
        a.set_label(&mut failed)?;
        a.mov(dx, 0xf4)?;
        a.mov(al, 1)?;
        a.out(dx, al)?;
        a.hlt()?;
        a.assemble(CODE)
    })()
    .expect("the guest's code is right");
    let mut image = Vec::new();
    let magic = 0x1bad_b002_u32;
    let flags = 0x1_0000_u32; // addresses follow
    let end = (CODE + code.len() as u64) as u32;
    let header = [
        magic,
        flags,
        0u32.wrapping_sub(magic).wrapping_sub(flags),
        BASE as u32,
        BASE as u32,
        end,
        0x20_0000,
        (BASE + ENTRY) as u32,
    ];
    for (i, word) in header.into_iter().enumerate() {
        put(&mut image, BASE + 4 * i as u64, &word.to_le_bytes());
    }
    put(&mut image, BASE + ENTRY, &entry().expect("the entry's code is right"));
    for (i, descriptor) in [0, 0x00af_9b00_0000_ffff_u64, 0x00cf_9300_0000_ffff].into_iter().enumerate() {
        put(&mut image, GDT + 8 * i as u64, &descriptor.to_le_bytes());
    }
    put(&mut image, GDT + 0x20, &[&23u16.to_le_bytes()[..], &GDT.to_le_bytes()].concat());
    put(&mut image, GDT + 0x30, &[&(32 * 16 - 1u16).to_le_bytes()[..], &IDT.to_le_bytes()].concat());
    let present = 3;
    put(&mut image, PML4, &((PML4 + 0x1000) | present).to_le_bytes());
    for i in 0..4 {
        let directory = PML4 + 0x2000 + 0x1000 * i;
        put(&mut image, PML4 + 0x1000 + 8 * i, &(directory | present).to_le_bytes());
        for j in 0..512 {
            put(&mut image, directory + 8 * j, &((i * 512 + j) << 21 | 0x83).to_le_bytes());
        }
    }
    put(&mut image, CODE, &code);
    image
}

/// Code that makes a label the handler of an exception.
pub fn handler(a: &mut CodeAssembler, vector: u64, label: CodeLabel) -> Result<(), IcedError> {
    let gate = IDT + 16 * vector;
    a.lea(rax, ptr(label))?;
    a.mov(rbx, gate)?;
    a.mov(word_ptr(rbx), ax)?;
    a.mov(word_ptr(rbx + 2), 8)?;
    a.mov(word_ptr(rbx + 4), 0x8e00)?;
    a.shr(rax, 16)?;
    a.mov(word_ptr(rbx + 6), ax)?;
    a.shr(rax, 16)?;
    a.mov(dword_ptr(rbx + 8), eax)
}
