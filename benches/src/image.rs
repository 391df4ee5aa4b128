//! What a bare guest is made of: code at the start of RAM, page tables behind it, and a way to say that it is done.

#![allow(missing_docs, reason = "the names of registers and fields")]

use undervisor_conformance::asm::*;

/// Where RAM begins.
pub const RAM: u64 = 0x8000_0000;
/// The finisher of QEMU's `virt` machine, which ours has too.
pub const FINISHER: u64 = 0x10_0000;

/// How a guest tells its machine that it is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// A store to the finisher.
    Finisher,
    /// A store to the word that the symbol `tohost` names, as Spike has it.
    Htif,
}

/// The two ways to end, at the labels `done` and `failed`. Comes last: the words of HTIF stand behind the code.
pub fn finish(mut a: Asm, ending: Ending) -> Vec<u8> {
    for (label, stay, finisher, tohost) in [("done", "stay", 0x5555, 1), ("failed", "stay failed", 0x1_3333, 3)] {
        a.label(label);
        match ending {
            Ending::Finisher => {
                a.li(T0, FINISHER);
                a.li(T1, finisher);
                a.sw(T1, T0, 0);
            }
            Ending::Htif => {
                a.la(T0, "tohost");
                a.li(T1, tohost);
                a.sd(T1, T0, 0);
            }
        }
        a.label(stay);
        a.j(stay);
    }
    a.align(64);
    a.label("tohost");
    for _ in ["tohost", "fromhost"] {
        a.text("");
        a.align(64);
    }
    a.finish()
}

/// PMP lets every mode do everything; traps to M-mode end the run as a failure.
pub fn open_machine(a: &mut Asm) {
    a.li(T0, u64::MAX);
    a.csrw(PMPADDR0, T0);
    a.li(T0, 0x1f); // NAPOT, XWR
    a.csrw(PMPCFG0, T0);
    a.la(T0, "failed");
    a.csrw(MTVEC, T0);
}

pub const SSTATUS: u32 = 0x100;
pub const STVEC: u32 = 0x105;
pub const SCOUNTEREN: u32 = 0x106;
pub const SSCRATCH: u32 = 0x140;
pub const SEPC: u32 = 0x141;
pub const SCAUSE: u32 = 0x142;
pub const STVAL: u32 = 0x143;
pub const SATP: u32 = 0x180;
pub const VSATP: u32 = 0x280;
pub const MSTATUS: u32 = 0x300;
pub const MEDELEG: u32 = 0x302;
pub const MTVEC: u32 = 0x305;
pub const MEPC: u32 = 0x341;
pub const PMPCFG0: u32 = 0x3a0;
pub const PMPADDR0: u32 = 0x3b0;
pub const HSTATUS: u32 = 0x600;
pub const HTVAL: u32 = 0x643;
pub const HTINST: u32 = 0x64a;
pub const HGATP: u32 = 0x680;

/// mstatus.MPP for S-mode.
pub const MPP_S: u64 = 1 << 11;
/// sstatus.SPP for S-mode.
pub const SPP: u64 = 1 << 8;
/// hstatus.SPV, SPVP.
pub const SPV: u64 = 1 << 7;
pub const SPVP: u64 = 1 << 8;
/// What goes to HS-mode: every exception but the calls of HS-mode and M-mode.
pub const TO_HS: u64 = 0x00f0_b5ff;
/// scause of an environment call from VS-mode.
pub const ECALL_VS: u64 = 10;
/// satp.MODE, vsatp.MODE, hgatp.MODE for Sv39 and Sv39x4.
pub const SV39: u64 = 8 << 60;

/// PTE bits of a leaf: D A - - X W R V.
pub const LEAF: u64 = 0xcf;
/// The same with U, which every leaf of a G-stage has.
pub const LEAF_U: u64 = 0xdf;

const PAGE: u64 = 4096;

/// Page tables of three levels: Sv39, or Sv39x4 whose root is four pages.
pub struct Tables {
    /// Where they stand, as the walker's addresses have it.
    base: u64,
    words: Vec<u64>,
}

impl Tables {
    /// Tables that will stand at `base`, a multiple of 16 KiB.
    pub fn at(base: u64) -> Self {
        Tables { base, words: Vec::new() }
    }

    /// An empty root of `pages` pages. Those of four come first, for their alignment.
    pub fn root(&mut self, pages: usize) -> u64 {
        let root = self.base + self.words.len() as u64 * 8;
        assert_eq!(root % (pages as u64 * PAGE), 0, "a root is aligned to its size");
        self.words.resize(self.words.len() + pages * 512, 0);
        root
    }

    /// Maps a leaf of 4 KiB (`level` 0) or 2 MiB (1).
    pub fn map(&mut self, root: u64, va: u64, pa: u64, level: u32, bits: u64) {
        let mut table = root;
        for at in (level..3).rev() {
            let mask = if at == 2 { 0x7ff } else { 0x1ff };
            let entry = ((table - self.base) / 8 + (va >> (12 + 9 * at) & mask)) as usize;
            if at == level {
                self.words[entry] = pa >> 2 | bits;
            } else {
                if self.words[entry] == 0 {
                    self.words[entry] = self.root(1) >> 2 | 1;
                }
                table = (self.words[entry] & !0x3ff) << 2;
            }
        }
    }

    /// Maps `pages` pages of 4 KiB.
    pub fn map_pages(&mut self, root: u64, va: u64, pa: u64, pages: u64, bits: u64) {
        (0..pages).for_each(|i| self.map(root, va + i * PAGE, pa + i * PAGE, 0, bits));
    }

    /// Their bytes.
    pub fn bytes(&self) -> Vec<u8> {
        self.words.iter().flat_map(|w| w.to_le_bytes()).collect()
    }
}

/// Puts bytes into an image at a distance from its beginning, behind what is there.
pub fn put(image: &mut Vec<u8>, at: u64, bytes: &[u8]) {
    assert!(image.len() as u64 <= at, "the parts of an image overlap");
    image.resize(at as usize, 0);
    image.extend(bytes);
}

/// A RISC-V ELF file with this image at the start of RAM, whose code ends with the words of [`finish`].
pub fn elf(image: &[u8], code: usize) -> Vec<u8> {
    const HEADERS: u64 = 64 + 56;
    const NAMES: &[u8] = b"\0.symtab\0.strtab\0tohost\0fromhost\0";
    const SECTIONS: u16 = 3;
    let symbols_at = HEADERS + image.len() as u64;
    let names_at = symbols_at + 3 * 24;
    let sections_at = names_at + NAMES.len() as u64;
    let words = |file: &mut Vec<u8>, words: &[u64]| words.iter().for_each(|w| file.extend(w.to_le_bytes()));
    let halves = |file: &mut Vec<u8>, halves: &[u16]| halves.iter().for_each(|h| file.extend(h.to_le_bytes()));
    // The file's header: ELF64, little-endian, executable, RISC-V.
    let mut file = b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0\x02\0\xf3\0\x01\0\0\0".to_vec();
    words(&mut file, &[RAM, 64, sections_at]);
    file.extend(0u32.to_le_bytes());
    halves(&mut file, &[64, 56, 1, 64, SECTIONS, SECTIONS - 1]);
    // One segment, PT_LOAD, RWX.
    let size = image.len() as u64;
    words(&mut file, &[1 | 7 << 32, HEADERS, RAM, RAM, size, size, 64]);
    file.extend(image);
    // Symbols: name, global object of the first section, value, size.
    let htif = RAM + code as u64 - 128;
    words(&mut file, &[0; 3]);
    for (name, value) in [(17u64, htif), (24, htif + 64)] {
        words(&mut file, &[name | 0x11 << 32 | 0xfff1 << 48, value, 8]);
    }
    file.extend(NAMES);
    // Sections: name and type, flags, address, offset, size, link and info, alignment, size of an entry.
    words(&mut file, &[0; 8]);
    words(&mut file, &[1 | 2 << 32, 0, 0, symbols_at, 3 * 24, 2 | 1 << 32, 8, 24]);
    words(&mut file, &[9 | 3 << 32, 0, 0, names_at, NAMES.len() as u64, 0, 1, 0]);
    file
}
