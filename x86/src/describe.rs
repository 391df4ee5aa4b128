//! What values say, in words: for people. Extensions have more of it, for what is theirs.

use crate::control;
use crate::exception;

/// Names of the bits that are set, in the order of `known`; then the numbers of those that have none.
pub fn bits(value: u64, known: &[(&str, u64)]) -> String {
    let named = known.iter().filter(|(_, bit)| value & bit != 0).map(|(name, _)| *name);
    let unnamed = known.iter().fold(value, |rest, (_, bit)| rest & !bit);
    let numbers = (unnamed != 0).then(|| ranges(unnamed));
    named.map(str::to_owned).chain(numbers).collect::<Vec<_>>().join(" ")
}

/// Numbers of the bits that are set: `bits 1 4-6`.
fn ranges(mut value: u64) -> String {
    let mut text = "bits".to_owned();
    while value != 0 {
        let first = value.trailing_zeros();
        let length = (value >> first).trailing_ones();
        text += &match length {
            1 => format!(" {first}"),
            _ => format!(" {first}-{}", first + length - 1),
        };
        value &= !(u64::MAX >> (64 - length) << first);
    }
    text
}

/// The words whose condition holds, with commas.
pub fn words<const N: usize>(words: [(bool, &str); N]) -> String {
    let said: Vec<_> = words.into_iter().filter(|(holds, _)| *holds).map(|(_, word)| word).collect();
    said.join(", ")
}

/// An event as VMX's interruption information has it, and SVM's EVENTINJ and EXITINTINFO; nothing if it is not valid.
pub fn event(information: u64, error: u64) -> String {
    if information >> 31 & 1 == 0 {
        return String::new();
    }
    let vector = information as u8;
    let kind = information >> 8 & 7;
    let name = exception::name(vector);
    let mut text = match kind {
        0 => format!("external interrupt {vector:#x}"),
        2 => "NMI".to_owned(),
        3 => format!("exception {name}"),
        4 => format!("INT {vector:#x}"),
        5 => "INT1".to_owned(),
        6 => format!("software exception {name}"),
        7 => "pending MTF".to_owned(),
        _ => format!("event of type {kind}, vector {vector:#x}"),
    };
    if information >> 11 & 1 != 0 {
        text += &format!(", error code {error:#x}");
    }
    text
}

/// Names of the general registers, by number.
pub const REGISTERS: [&str; 16] =
    ["rax", "rcx", "rdx", "rbx", "rsp", "rbp", "rsi", "rdi", "r8", "r9", "r10", "r11", "r12", "r13", "r14", "r15"];

/// Rights as `rwx`.
pub fn rights(read: bool, write: bool, execute: bool) -> String {
    let all = [(read, 'r'), (write, 'w'), (execute, 'x')];
    all.into_iter().map(|(has, letter)| if has { letter } else { '-' }).collect()
}

/// A segment's attributes, as [`Attributes`](crate::segment::Attributes) has them.
pub fn access_rights(value: u64) -> String {
    if value >> 16 & 1 != 0 {
        return "unusable".to_owned();
    }
    let has = |bit: u32| value >> bit & 1 != 0;
    let (is_code, kind) = (has(3), value & 15);
    let what = match (has(4), is_code) {
        (true, true) => {
            "code".to_owned() + if has(1) { ", readable" } else { "" } + if has(2) { ", conforming" } else { "" }
        }
        (true, false) => {
            "data".to_owned() + if has(1) { ", writable" } else { "" } + if has(2) { ", down" } else { "" }
        }
        (false, _) => match kind {
            2 => "LDT".to_owned(),
            3 => "busy 16-bit TSS".to_owned(),
            11 => "busy TSS".to_owned(),
            _ => format!("system type {kind}"),
        },
    };
    let size = match (has(13), has(14)) {
        (true, _) => ", 64-bit",
        (_, true) => ", 32-bit",
        _ => "",
    };
    let flags = [(!has(7), ", not present"), (has(4) && has(0), ", accessed"), (has(15), ", 4K granular")];
    let flags: String = flags.into_iter().filter(|(is, _)| *is).map(|(_, text)| text).collect();
    format!("{what}{size}, DPL {}{flags}", value >> 5 & 3)
}

/// Exceptions, a bit for each vector.
pub fn exceptions(value: u64) -> String {
    let name = |n: u8| match exception::name(n) {
        "interrupt" => format!("vector {n}"),
        name => name.to_owned(),
    };
    (0..32).filter(|n| value >> n & 1 != 0).map(name).collect::<Vec<_>>().join(" ")
}

/// RFLAGS, with the arithmetic flags.
pub fn rflags(value: u64) -> String {
    let flags = [("CF", 1), ("PF", 4), ("AF", 16), ("ZF", 64), ("SF", 128), ("OF", 1 << 11)];
    bits(value & !2 & !(3 << 12), &[&flags, control::rflags::ALL].concat())
}

/// A page's size in words.
pub fn size(log2: u32) -> &'static str {
    match log2 {
        12 => "4-KByte page",
        21 => "2-MByte page",
        22 => "4-MByte page",
        30 => "1-GByte page",
        _ => "page",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn in_words() {
        assert_eq!(bits(u64::MAX, &[("A", 1 << 3)]), "A bits 0-2 4-63");
        assert_eq!(rflags(0x246), "PF ZF IF");
        assert_eq!(exceptions(1 << 14 | 1 << 9), "vector 9 #PF");
        assert_eq!(access_rights(0xa09b), "code, readable, 64-bit, DPL 0, accessed, 4K granular");
    }
}
