//! Accesses to a page with all rights, small and large, from both levels, as the bits of CR0, CR4 and EFER have them ("Access Rights").

use x86::control::{cr0, cr4};

use crate::stage::{Case, LARGE, Mode, PAGE};

/// RFLAGS.AC.
const AC: u64 = 1 << 18;
const XD: u64 = 1 << 63;
/// Reserved in entries of 8 bytes, and in those of large pages.
const HIGH: u64 = 1 << 51;
const BIT_13: u64 = 1 << 13;
const BIT_21: u64 = 1 << 21;

/// Control bits: a name, CR0, CR4, flags, without EFER.NXE.
const CONTROLS: [(&str, u64, u64, u64, bool); 8] = [
    ("", 0, 0, 0, false),
    ("WP", cr0::WP, 0, 0, false),
    ("PSE", cr0::WP, cr4::PSE, 0, false),
    ("SMEP", cr0::WP, cr4::SMEP | cr4::PSE, 0, false),
    ("SMAP", cr0::WP, cr4::SMAP | cr4::PSE, 0, false),
    ("SMAP and AC", cr0::WP, cr4::SMAP | cr4::PSE, AC, false),
    ("PGE", cr0::WP, cr4::PGE, 0, false),
    ("no NXE", cr0::WP, 0, 0, true),
];

/// What is done with the page at a place: read, write, read and write, execute.
fn accesses(mode: Mode, page: u64) -> [(&'static str, Vec<u8>); 4] {
    let place = (page as u32 + 0x10).to_le_bytes();
    // In 64-bit mode a SIB byte without a base has the displacement alone.
    let memory = if mode == Mode::Long { &[0x0c, 0x25][..] } else { &[0x0d] };
    let of = |opcode: u8| [&[opcode], memory, &place, &[0xf4]].concat();
    // MOV EAX, place; JMP EAX
    let to = (page as u32 + 0x20).to_le_bytes();
    [
        ("read", of(0x8b)),
        ("write", of(0x89)),
        ("add", of(0x01)),
        ("execute", [&[0xb8], &to[..], &[0xff, 0xe0]].concat()),
    ]
}

pub fn cases() -> Vec<Case> {
    let mut list = vec![];
    for mode in Mode::ALL.into_iter().filter(|m| m.has_paging()) {
        for (page, size) in [(PAGE, "4 KiB"), (LARGE, "large")] {
            let mut all = vec![0, 1, 3, 5, 7, 0x63, 0x67, 0x103];
            if mode != Mode::Paging32 {
                all.extend([3 | XD, 7 | XD, 5 | XD, 3 | HIGH, 1 | HIGH | XD]);
            }
            if page == LARGE {
                all.push(3 | if mode == Mode::Paging32 { BIT_21 } else { BIT_13 });
            }
            for rights in all {
                for (control, more_cr0, more_cr4, flags, no_nxe) in CONTROLS {
                    for user in [false, true] {
                        for (access, code) in accesses(mode, page) {
                            let name = format!("{access}, {size}, rights {rights:x}, {control}");
                            let case = Case::new(name, mode, &code);
                            list.push(Case { user, rights, more_cr0, more_cr4, flags, no_nxe, ..case });
                        }
                    }
                }
            }
        }
    }
    list
}
