//! What lies where after each protocol has loaded a kernel made for the test.

use super::*;
use crate::platform::pci::chipset::Chipset;
use crate::registers::{RAX, RBX, RSI, RSP};

const MEMORY: u64 = 64 << 20;

fn file(name: &str, bytes: Vec<u8>) -> File {
    File { name: name.into(), bytes }
}

/// Loads into fresh RAM; the entry, and RAM.
fn load(software: &Software) -> (Result<Entry, LoadError>, Ram) {
    let layout = Layout::new(Chipset::Q35, MEMORY);
    let mut ram = Ram::default();
    layout.add(&mut ram).unwrap();
    let entry = Loader::new(&mut ram, layout).load(software);
    (entry, ram)
}

fn put(bytes: &mut Vec<u8>, at: usize, size: usize, value: u64) {
    bytes.resize(bytes.len().max(at + size), 0);
    bytes[at..at + size].copy_from_slice(&value.to_le_bytes()[..size]);
}

fn text(ram: &Ram, at: u64) -> String {
    (at..).map(|a| ram.load(a, 1).unwrap() as u8).take_while(|b| *b != 0).map(char::from).collect()
}

/// A bzImage of boot protocol 2.15: one sector of set-up code, and what follows is `code`.
fn bzimage(code: &[u8]) -> File {
    let mut b = vec![0; 1024];
    for (at, size, value) in [
        (0x1f1, 1, 1),
        (0x200, 2, 0x6aeb),
        (0x202, 4, 0x5372_6448),
        (0x206, 2, 0x20f),
        (0x211, 1, 1),
        (0x22c, 4, 0x7fff_ffff),
        (0x234, 1, 1),
        (0x236, 2, 1),
        (0x238, 4, 255),
        (0x258, 8, 0x100_0000),
        (0x260, 4, 0x20_0000),
    ] {
        put(&mut b, at, size, value);
    }
    b.extend(code);
    file("boot/vmlinuz", b)
}

#[test]
fn linux_finds_its_zero_page() {
    let (kernel, initrd) = (bzimage(b"code"), file("initrd", vec![7; 5000]));
    let software = Software {
        kernel: Some(&kernel),
        initrd: Some(&initrd),
        arguments: "console=ttyS0",
        rsdp: 0xe_0000,
        seed: [9; 32],
        ..Software::default()
    };
    let (entry, ram) = load(&software);
    let entry = entry.unwrap();
    assert_eq!(entry.mode, Mode::Long64 { rip: 0x100_0200, cr3: PAGE_TABLES });
    assert_eq!(entry.registers, [(RSI, ZERO_PAGE)]);
    let page = |at: u64, size| ram.load(ZERO_PAGE + at, size).unwrap();
    assert_eq!((page(0x202, 4), page(0x210, 1), page(0x214, 4)), (0x5372_6448, 0xff, 0x100_0000));
    assert_eq!(text(&ram, page(0x228, 4)), "console=ttyS0");
    let (at, size) = (page(0x218, 4), page(0x21c, 4));
    assert_eq!((at % 4096, size, ram.load(at + 4999, 1)), (0, 5000, Ok(7)));
    assert!(at + size <= MEMORY && at > MEMORY - 0x3000, "at the end of RAM");
    assert_eq!((page(0x70, 8), page(0x1e8, 1)), (0xe_0000, 5));
    assert_eq!((page(0x2d0, 8), page(0x2d8, 8), page(0x2e0, 4)), (0, 0x9_fc00, 1));
    let seed = page(0x250, 8);
    assert_eq!([0, 8, 12, 16].map(|i| ram.load(seed + i, 4).unwrap()), [0, 9, 32, 0x0909_0909]);
    assert_eq!(ram.load(0x100_0000, 4), Ok(u64::from(u32::from_le_bytes(*b"code"))));
    // Page tables: the last of 2048 pages of 2 MiB, mapped as it is; and what the selectors name.
    assert_eq!(ram.load(PAGE_TABLES + 0x5ff8, 8), Ok(0xffe0_0083));
    assert_eq!(ram.load(entry.gdt.0 + u64::from(entry.selectors.0), 8), Ok(0x00af_9b00_0000_ffff));

    let (entry, _) = load(&Software { protocol: Protocol::Linux32, ..software.clone() });
    assert_eq!(entry.unwrap().mode, Mode::Protected32 { eip: 0x100_0000 });
    let (entry, ram) = load(&Software { protocol: Protocol::Linux16, ..software.clone() });
    let entry = entry.unwrap();
    assert_eq!((entry.mode, entry.selectors.1), (Mode::Real { cs: 0x1020, ip: 0 }, 0x1000));
    assert_eq!((entry.registers, ram.load(0x1_0202, 4)), (vec![(RSP, 0xe000)], Ok(0x5372_6448)));
    assert_eq!(ram.load(0x10_0000, 1), Ok(b'c'.into()));

    let long = "x".repeat(256);
    let (refused, _) = load(&Software { arguments: &long, ..software.clone() });
    assert!(refused.unwrap_err().to_string().contains("256 bytes"));
    let module = [Module { file: file("m", vec![1]), arguments: String::new() }];
    assert!(load(&Software { modules: &module, ..software }).0.unwrap_err().to_string().contains("--module"));
}

/// A 32-bit ELF file with one segment at 2 MiB, linked 3 GiB above, and a note.
fn elf32(note: &[u8], segment: &[u8]) -> File {
    let mut b = b"\x7fELF\x01\x01\x01".to_vec();
    for (at, size, value) in
        [(16, 2, 2), (18, 2, 3), (20, 4, 1), (24, 4, 0xc020_0010), (28, 4, 52), (40, 2, 52), (42, 2, 32), (44, 2, 2)]
    {
        put(&mut b, at, size, value);
    }
    let [note_at, at] = [116, (116 + note.len()).next_multiple_of(8)];
    for (i, word) in [1, at, 0xc020_0000, 0x20_0000, segment.len(), 0x2000, 7, 16].iter().enumerate() {
        put(&mut b, 52 + 4 * i, 4, *word as u64);
    }
    for (i, word) in [4, note_at, 0, 0, note.len(), note.len(), 4, 4].iter().enumerate() {
        put(&mut b, 84 + 4 * i, 4, *word as u64);
    }
    b.extend(note);
    b.resize(at, 0);
    b.extend(segment);
    file("dir/kernel", b)
}

const PVH_NOTE: &[u8] = b"\x04\0\0\0\x04\0\0\0\x12\0\0\0Xen\0\x20\0\x20\0";

fn modules() -> [Module; 2] {
    [("a/dom0", "root=x"), ("initrd", "")]
        .map(|(name, words)| Module { file: file(name, vec![5; 4097]), arguments: words.into() })
}

#[test]
fn pvh_gets_its_start_information() {
    let (kernel, modules) = (elf32(PVH_NOTE, b"\x90\x90"), modules());
    let software = Software {
        kernel: Some(&kernel),
        modules: &modules,
        arguments: "dom0_mem=64M",
        rsdp: 0xe_0000,
        ..Software::default()
    };
    let (entry, ram) = load(&software);
    let entry = entry.unwrap();
    assert_eq!(entry.mode, Mode::Protected32 { eip: 0x20_0020 });
    assert_eq!(entry.registers, [(RBX, START_INFO)]);
    let word = |at: u64, size| ram.load(START_INFO + at, size).unwrap();
    assert_eq!((word(0, 4), word(4, 4), word(12, 4)), (0x336e_c578, 1, 2));
    assert_eq!((text(&ram, word(24, 8)), word(32, 8)), ("dom0_mem=64M".into(), 0xe_0000));
    let list = word(16, 8);
    let of = |n: u64, i: u64| ram.load(list + 32 * n + 8 * i, 8).unwrap();
    // Behind the segment, which has 2000h bytes in memory.
    assert_eq!((of(0, 0), of(0, 1), text(&ram, of(0, 2))), (0x20_2000, 4097, "root=x".into()));
    assert_eq!((of(1, 0), ram.load(of(1, 0) + 4096, 1)), (0x20_4000, Ok(5)));
    let map = word(40, 8);
    assert_eq!((word(48, 4), ram.load(map + 8, 8), ram.load(map + 16, 4)), (5, Ok(0x9_fc00), Ok(1)));
}

#[test]
fn elf_files_without_notes_begin_at_their_entry() {
    let kernel = elf32(b"", b"\x90\x90");
    let (entry, ram) = load(&Software { kernel: Some(&kernel), ..Software::default() });
    assert_eq!(entry.unwrap().mode, Mode::Protected32 { eip: 0x20_0010 });
    assert_eq!(ram.load(0x20_0000, 2), Ok(0x9090));
    let initrd = file("initrd", vec![1]);
    let (refused, _) = load(&Software { kernel: Some(&kernel), initrd: Some(&initrd), ..Software::default() });
    assert!(refused.unwrap_err().to_string().contains("--initrd"));
}

#[test]
fn multiboot_gets_its_information() {
    let header: Vec<u8> =
        [0x1bad_b002u32, 3, 0u32.wrapping_sub(0x1bad_b005)].iter().flat_map(|w| w.to_le_bytes()).collect();
    let (kernel, modules) = (elf32(b"", &header), modules());
    let software = Software { kernel: Some(&kernel), modules: &modules, arguments: "smp=1", ..Software::default() };
    let (entry, ram) = load(&software);
    let entry = entry.unwrap();
    assert_eq!(entry.mode, Mode::Protected32 { eip: 0x20_0010 });
    assert_eq!(entry.registers, [(RAX, 0x2bad_b002), (RBX, INFO)]);
    let word = |at: u64| ram.load(INFO + at, 4).unwrap();
    assert_eq!((word(0), word(4), word(8)), (0x24d, 640, 63 << 10));
    assert_eq!((text(&ram, word(16)), word(20)), ("kernel smp=1".into(), 2));
    let module = |n: u64, i: u64| ram.load(word(24) + 16 * n + 4 * i, 4).unwrap();
    assert_eq!((module(0, 0), module(0, 1), text(&ram, module(0, 2))), (0x20_2000, 0x20_3001, "dom0 root=x".into()));
    assert_eq!(text(&ram, module(1, 2)), "initrd");
    let entries: Vec<_> = (0..word(44) / 24).map(|i| ram.load(word(48) + 24 * i + 20, 4).unwrap()).collect();
    // The last is the enhanced configuration space.
    assert_eq!(entries, [1, 2, 2, 1, 2]);
}

#[test]
fn multiboot2_gets_its_tags() {
    let mut header = Vec::new();
    let words = [0xe852_50d6u32, 0, 32, 0u32.wrapping_sub(0xe852_50d6 + 32), 3, 12, 0x20_0004, 0, 0, 8];
    words.iter().for_each(|w| header.extend(w.to_le_bytes()));
    put(&mut header, 8, 4, 40);
    put(&mut header, 12, 4, u64::from(0u32.wrapping_sub(0xe852_50d6 + 40)));
    let (kernel, modules) = (elf32(PVH_NOTE, &header), modules());
    let software =
        Software { kernel: Some(&kernel), modules: &modules, arguments: "com1", rsdp: 0xe_0000, ..Software::default() };
    let (entry, ram) = load(&software);
    let entry = entry.unwrap();
    assert_eq!(
        (entry.mode, entry.registers),
        (Mode::Protected32 { eip: 0x20_0004 }, vec![(RAX, 0x36d7_6289), (RBX, INFO)])
    );
    let word = |at: u64| ram.load(at, 4).unwrap();
    let (mut at, mut kinds) = (INFO + 8, Vec::new());
    while at < INFO + word(INFO) {
        match word(at) {
            1 => assert_eq!(text(&ram, at + 8), "kernel com1"),
            3 if !kinds.contains(&3) => {
                assert_eq!((word(at + 8), text(&ram, at + 16)), (0x20_2000, "dom0 root=x".into()));
            }
            _ => {}
        }
        kinds.push(word(at));
        at += word(at + 4).next_multiple_of(8);
    }
    assert_eq!(kinds, [1, 2, 3, 3, 4, 6, 15, 0]);
}

#[test]
fn things_that_do_not_fit_are_named() {
    let mut kernel = bzimage(b"code");
    put(&mut kernel.bytes, 0x260, 4, 1 << 30);
    let refused = |software: &Software| load(software).0.unwrap_err().to_string();
    let text = refused(&Software { kernel: Some(&kernel), ..Software::default() });
    assert!(text.contains("vmlinuz") && text.contains("do not fit in 64 MiB"), "{text}");
    let raw = file("raw", vec![0xf4; 16]);
    let at = |at, bits| Protocol::Raw { at, bits };
    let (entry, ram) = load(&Software { kernel: Some(&raw), protocol: at(0x7c00, 16), ..Software::default() });
    assert_eq!((entry.unwrap().mode, ram.load(0x7c0f, 1)), (Mode::Real { cs: 0x7c0, ip: 0 }, Ok(0xf4)));
    let text = refused(&Software { kernel: Some(&raw), protocol: at(0xa_0000, 32), ..Software::default() });
    assert!(text.contains("0xa0000"), "{text}");
    let text = refused(&Software { kernel: Some(&raw), protocol: at(0x500, 32), ..Software::default() });
    assert!(text.contains("raw") && text.contains("GDT"), "{text}");
    assert!(refused(&Software { kernel: Some(&raw), ..Software::default() }).contains("none of these"));
}
