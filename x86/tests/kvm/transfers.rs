//! Segment registers and far transfers: each instruction with each descriptor, from both levels.

use crate::stage::{Case, ENTRIES, LANDING, Mode, OUTER_STACK, STACK, USER_DATA};

/// Where a far pointer is.
const POINTER: u64 = STACK + 0x200;

/// Instructions on a selector in AX; SETZ tells what those have found that only look.
const ON_SELECTORS: [(&str, &[u8]); 12] = [
    ("MOV DS", &[0x8e, 0xd8]),
    ("MOV ES", &[0x8e, 0xc0]),
    ("MOV SS", &[0x8e, 0xd0]),
    ("MOV FS", &[0x8e, 0xe0]),
    ("MOV GS", &[0x8e, 0xe8]),
    ("MOV CS", &[0x8e, 0xc8]),
    ("LAR", &[0x0f, 0x02, 0xc8, 0x0f, 0x94, 0xc2]),
    ("LSL", &[0x0f, 0x03, 0xc8, 0x0f, 0x94, 0xc2]),
    ("VERR", &[0x0f, 0x00, 0xe0, 0x0f, 0x94, 0xc2]),
    ("VERW", &[0x0f, 0x00, 0xe8, 0x0f, 0x94, 0xc2]),
    ("LTR", &[0x0f, 0x00, 0xd8]),
    ("LLDT", &[0x0f, 0x00, 0xd0]),
];

/// Far transfers; a REX prefix is for 64-bit mode alone, and the first of these is not in it.
fn transfers(mode: Mode) -> Vec<(&'static str, Vec<u8>)> {
    let memory = |reg: u8| match mode {
        Mode::Long => [&[0xff, 0x04 | reg << 3, 0x25][..], &(POINTER as u32).to_le_bytes()].concat(),
        Mode::Protected16 => [&[0xff, 0x06 | reg << 3][..], &(POINTER as u16).to_le_bytes()].concat(),
        _ => [&[0xff, 0x05 | reg << 3][..], &(POINTER as u32).to_le_bytes()].concat(),
    };
    let mut list = vec![
        ("JMP m16:32", memory(5)),
        ("CALL m16:32", memory(3)),
        ("RET far", vec![0xcb]),
        ("RET far 8", vec![0xca, 8, 0]),
        ("IRET", vec![0xcf]),
    ];
    if mode == Mode::Long {
        let wide: Vec<_> = list.iter().map(|(_, code)| [&[0x48][..], code].concat()).collect();
        let names = ["JMP m16:64", "CALL m16:64", "RETQ far", "RETQ far 8", "IRETQ"];
        list.extend(names.into_iter().zip(wide));
    }
    list
}

/// The stack that returns find, in slots of an operand's size; IRET has the flags in between.
fn frame(width: u64, selector: u16, is_interrupt: bool, constant: u64) -> Vec<(u64, u64)> {
    let mut slots = vec![LANDING, selector.into()];
    if is_interrupt {
        slots.push(0x3002);
    }
    let mut at = STACK;
    let mut words = vec![];
    for (i, value) in slots.iter().chain(&[OUTER_STACK, USER_DATA.into()]).enumerate() {
        if i == 2 && !is_interrupt {
            at += constant;
        }
        words.push((at, *value));
        at += width;
    }
    words
}

pub fn cases() -> Vec<Case> {
    let mut list = vec![];
    for (mode, user) in [
        (Mode::Protected, false),
        (Mode::Protected, true),
        (Mode::Protected16, false),
        (Mode::Pae, false),
        (Mode::Pae, true),
        (Mode::Compatibility, false),
        (Mode::Compatibility, true),
        (Mode::Long, false),
        (Mode::Long, true),
    ] {
        for (i, (what, _)) in ENTRIES.iter().enumerate() {
            for rpl in [0, 3] {
                let selector = (i as u16) << 3 | rpl;
                for (name, code) in ON_SELECTORS {
                    let case = Case::new(format!("{name}: {what}, RPL {rpl}"), mode, &[code, &[0xf4]].concat());
                    list.push(Case { user, ax: selector.into(), is_about_segments: true, ..case });
                }
                for (name, code) in transfers(mode) {
                    let width = match mode {
                        Mode::Protected16 => 2,
                        _ if code[0] == 0x48 => 8,
                        _ => 4,
                    };
                    let mut words = vec![(POINTER, LANDING), (POINTER + width, selector.into())];
                    let constant = if name.ends_with('8') { 8 } else { 0 };
                    words.extend(frame(width, selector, name.starts_with("IRET"), constant));
                    let case = Case::new(format!("{name}: {what}, RPL {rpl}"), mode, &[&code[..], &[0xf4]].concat());
                    list.push(Case { user, words, is_about_segments: true, ..case });
                }
            }
        }
    }
    list
}
