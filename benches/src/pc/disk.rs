//! A disk for an emulator that has no loader of its own: its boot sector reads a Multiboot image to 1 MiB and enters it.

use iced_x86::code_asm::*;

/// Cylinders of 16 heads of 63 sectors of 512 bytes.
pub const CYLINDERS: usize = 20;
const SECTOR: usize = 512;
/// Where the BIOS puts the first sector.
const HERE: u64 = 0x7c00;
/// Where the image is read to, 32 KiB at a time.
const BUFFER: u32 = 0x1_0000;
const PIECE: usize = 32 << 10;
/// The GDT, the word and address that LGDT takes, and the packets of INT 13h stand in the sector's second half.
const GDT: usize = 0x120;
const GDTR: usize = 0x138;
const PACKETS: usize = 0x140;

/// The disk with an image that is loaded at 1 MiB and entered `entry` bytes behind.
pub fn disk(image: &[u8], entry: u32) -> Vec<u8> {
    let pieces = image.len().div_ceil(PIECE);
    let mut disk = vec![0; CYLINDERS * 16 * 63 * SECTOR];
    let real = real_mode(pieces).expect("the boot sector's code is right");
    disk[..real.len()].copy_from_slice(&real);
    let protected = protected_mode(pieces, entry).expect("the boot sector's code is right");
    disk[0xc0..][..protected.len()].copy_from_slice(&protected);
    for (i, descriptor) in [0, 0x00cf_9b00_0000_ffff_u64, 0x00cf_9300_0000_ffff].into_iter().enumerate() {
        disk[GDT + 8 * i..][..8].copy_from_slice(&descriptor.to_le_bytes());
    }
    disk[GDTR..][..2].copy_from_slice(&23u16.to_le_bytes());
    disk[GDTR + 2..][..4].copy_from_slice(&(HERE as u32 + GDT as u32).to_le_bytes());
    for i in 0..pieces {
        let segment = (BUFFER as usize + i * PIECE) as u64 >> 4;
        let sectors = (PIECE / SECTOR) as u64;
        let packet = &mut disk[PACKETS + 16 * i..][..16];
        packet[..8].copy_from_slice(&(16 | sectors << 16 | segment << 48).to_le_bytes());
        packet[8..].copy_from_slice(&(1 + i as u64 * sectors).to_le_bytes());
    }
    disk[SECTOR - 2..SECTOR].copy_from_slice(&[0x55, 0xaa]);
    disk[SECTOR..][..image.len()].copy_from_slice(image);
    disk
}

/// Reads the pieces by INT 13h, function 42h, and goes to protected mode.
fn real_mode(pieces: usize) -> Result<Vec<u8>, IcedError> {
    let mut a = CodeAssembler::new(16)?;
    a.xor(ax, ax)?;
    a.mov(ds, eax)?;
    a.mov(ss, eax)?;
    a.mov(sp, HERE as i32)?;
    for i in 0..pieces {
        a.mov(ah, 0x42)?;
        a.mov(dl, 0x80)?;
        a.mov(si, HERE as i32 + PACKETS as i32 + 16 * i as i32)?;
        a.int(0x13)?;
    }
    a.cli()?;
    a.in_(al, 0x92)?; // A20
    a.or(al, 2)?;
    a.out(0x92, al)?;
    a.lgdt(word_ptr(HERE + GDTR as u64))?;
    a.mov(eax, cr0)?;
    a.or(eax, 1)?;
    a.mov(cr0, eax)?;
    a.push(8)?;
    a.push(HERE as i32 + 0xc0)?;
    a.retf()?;
    a.assemble(HERE)
}

/// Moves the image to 1 MiB and enters it.
fn protected_mode(pieces: usize, entry: u32) -> Result<Vec<u8>, IcedError> {
    let mut a = CodeAssembler::new(32)?;
    for segment in [ds, es, ss] {
        a.mov(eax, 0x10)?;
        a.mov(segment, eax)?;
    }
    a.mov(esi, BUFFER)?;
    a.mov(edi, 0x10_0000)?;
    a.mov(ecx, (pieces * PIECE) as u32 / 4)?;
    a.cld()?;
    a.rep().movsd()?;
    a.mov(eax, 0x10_0000 + entry)?;
    a.jmp(eax)?;
    a.assemble(HERE + 0xc0)
}
