//! What fields of a VMCS say, in words: for people.

use x86::control::{self, cr0, cr4, dr6, efer, rflags};
use x86::exception;

use crate::control::known;
use crate::entry::{activity, interruptibility};
use crate::exit::{ENTRY_FAILURE, NMI_UNBLOCKING, Reason, VALID};
use crate::field::*;
use crate::instructions::error;
use crate::vmcs::Vmcs;

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

/// Controls that are 1, by name. Those without one are 1 because they must be.
fn controls(f: Field, value: u64) -> String {
    let all: Vec<_> = known(f).map(|c| (c.name.to_lowercase(), 1 << c.bit)).collect();
    let all: Vec<_> = all.iter().map(|(name, bit)| (name.as_str(), *bit)).collect();
    bits(value, &all)
}

/// The words whose condition holds, with commas.
fn words<const N: usize>(words: [(bool, &str); N]) -> String {
    let said: Vec<_> = words.into_iter().filter(|(holds, _)| *holds).map(|(_, word)| word).collect();
    said.join(", ")
}

/// An event as interruption information has it ("VM-Exit Interruption Information"); nothing if it is not valid.
pub fn event(information: u64, error: u64) -> String {
    if information & VALID == 0 {
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
    if information & NMI_UNBLOCKING != 0 {
        text += ", NMI unblocking";
    }
    text
}

/// Names of the general registers, by number.
const REGISTERS: [&str; 16] =
    ["rax", "rcx", "rdx", "rbx", "rsp", "rbp", "rsi", "rdi", "r8", "r9", "r10", "r11", "r12", "r13", "r14", "r15"];

/// What an exit qualification says ("Exit Qualification"), where it is more than an address.
pub fn qualification(reason: Reason, q: u64) -> String {
    let register = REGISTERS[(q >> 8 & 15) as usize];
    match reason {
        Reason::ControlRegister => match q >> 4 & 3 {
            0 => format!("to CR{} from {register}", q & 15),
            1 => format!("from CR{} to {register}", q & 15),
            2 => "CLTS".to_owned(),
            _ => format!("LMSW {:#x}", q >> 16 & 0xffff),
        },
        Reason::MovDr if q >> 4 & 1 == 0 => format!("to DR{} from {register}", q & 7),
        Reason::MovDr => format!("from DR{} to {register}", q & 7),
        Reason::Io => {
            let direction = if q >> 3 & 1 == 0 { "out" } else { "in" };
            let more = words([(q >> 4 & 1 != 0, "string"), (q >> 5 & 1 != 0, "rep")]);
            let more = if more.is_empty() { more } else { format!(", {more}") };
            let size = ["byte", "2 bytes", "", "4 bytes"][(q & 3) as usize];
            format!("{direction} {size}, port {:#x}{more}", q >> 16 & 0xffff)
        }
        Reason::TaskSwitch => {
            let source = ["CALL", "IRET", "JMP", "a task gate"][(q >> 30 & 3) as usize];
            format!("to {:#x} by {source}", q & 0xffff)
        }
        Reason::EptViolation => {
            let kind = words([(q & 1 != 0, "read"), (q >> 1 & 1 != 0, "write"), (q >> 2 & 1 != 0, "fetch")]);
            let rights = rights(q >> 3 & 1 != 0, q >> 4 & 1 != 0, q >> 5 & 1 != 0);
            let what = match (q >> 7 & 1, q >> 8 & 1) {
                (0, _) => "no linear address",
                (_, 0) => "of a paging-structure entry",
                _ => "of the translation",
            };
            format!("{kind} {what}, EPT allows {rights}")
        }
        Reason::ApicAccess => {
            let kind = match q >> 12 & 15 {
                0 => "read",
                1 => "write",
                2 => "fetch",
                3 => "in event delivery",
                10 => "guest-physical in event delivery",
                15 => "guest-physical",
                _ => "of another type",
            };
            format!("{kind} at {:#x}", q & 0xfff)
        }
        Reason::ApicWrite => format!("at {q:#x}"),
        Reason::VirtualizedEoi | Reason::StartUpIpi => format!("vector {q:#x}"),
        Reason::ExceptionOrNmi | Reason::Invlpg if q != 0 => format!("address {q:#x}"),
        Reason::EntryMsrLoading => format!("entry {q} of the list"),
        _ => String::new(),
    }
}

/// Rights as `rwx`.
pub fn rights(read: bool, write: bool, execute: bool) -> String {
    let all = [(read, 'r'), (write, 'w'), (execute, 'x')];
    all.into_iter().map(|(has, letter)| if has { letter } else { '-' }).collect()
}

/// "Guest Register State": access rights of a segment.
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

fn exceptions(value: u64) -> String {
    let name = |n: u8| match exception::name(n) {
        "interrupt" => format!("vector {n}"),
        name => name.to_owned(),
    };
    (0..32).filter(|n| value >> n & 1 != 0).map(name).collect::<Vec<_>>().join(" ")
}

fn ept_pointer(value: u64) -> String {
    let memory = match value & 7 {
        0 => "uncacheable",
        6 => "write-back",
        _ => "reserved memory type",
    };
    let flags =
        words([(value >> 6 & 1 != 0, "accessed and dirty flags"), (value >> 7 & 1 != 0, "shadow-stack rights")]);
    let flags = if flags.is_empty() { flags } else { format!(", {flags}") };
    format!("{} levels, {memory}{flags}", (value >> 3 & 7) + 1)
}

fn exit_reason(value: u64) -> String {
    let name = Reason::of(value & 0xffff).map_or("no such reason", Reason::name);
    let failed = if value & ENTRY_FAILURE != 0 { ", VM-entry failure" } else { "" };
    format!("{name}{failed}")
}

/// What a field of a VMCS says; empty where it is but a number.
pub fn field(v: &Vmcs, f: Field) -> String {
    let value = v[f];
    let flags = [("CF", 1), ("PF", 4), ("AF", 16), ("ZF", 64), ("SF", 128), ("OF", 1 << 11)];
    match f {
        PIN_CONTROLS
        | PRIMARY_CONTROLS
        | SECONDARY_CONTROLS
        | TERTIARY_CONTROLS
        | EXIT_CONTROLS
        | SECONDARY_EXIT_CONTROLS
        | ENTRY_CONTROLS => controls(f, value),
        GUEST_CR0 | HOST_CR0 | CR0_MASK | CR0_READ_SHADOW => bits(value, cr0::ALL),
        GUEST_CR4 | HOST_CR4 | CR4_MASK | CR4_READ_SHADOW => bits(value, cr4::ALL),
        GUEST_EFER | HOST_EFER => bits(value, efer::ALL),
        GUEST_RFLAGS => bits(value & !2 & !(3 << 12), &[&flags, rflags::ALL].concat()),
        GUEST_S_CET | HOST_S_CET => bits(value & 0xfff, control::user_cet::ALL),
        GUEST_PENDING_DEBUG_EXCEPTIONS => bits(value, dr6::ALL),
        EXCEPTION_BITMAP => exceptions(value),
        EXIT_REASON => exit_reason(value),
        EXIT_QUALIFICATION => Reason::of(v[EXIT_REASON] & 0xffff).map_or_else(String::new, |r| qualification(r, value)),
        EXIT_INTERRUPTION_INFORMATION => event(value, v[EXIT_INTERRUPTION_ERROR_CODE]),
        IDT_VECTORING_INFORMATION => event(value, v[IDT_VECTORING_ERROR_CODE]),
        ENTRY_INTERRUPTION_INFORMATION => event(value, v[ENTRY_EXCEPTION_ERROR_CODE]),
        INSTRUCTION_ERROR => error::name(value).to_owned(),
        EPT_POINTER => ept_pointer(value),
        VMCS_LINK_POINTER if value == u64::MAX => "none".to_owned(),
        GUEST_ACTIVITY_STATE => match value {
            activity::ACTIVE => "active",
            activity::HLT => "HLT",
            activity::SHUTDOWN => "shutdown",
            activity::WAIT_FOR_SIPI => "wait for SIPI",
            _ => "reserved",
        }
        .to_owned(),
        GUEST_INTERRUPTIBILITY_STATE => {
            use interruptibility as i;
            let blocked = [
                ("blocking by STI", i::STI),
                ("blocking by MOV SS", i::MOV_SS),
                ("blocking by SMI", i::SMI),
                ("blocking by NMI", i::NMI),
                ("enclave interruption", i::ENCLAVE),
            ];
            bits(value, &blocked)
        }
        GUEST_INTERRUPT_STATUS => format!("RVI {:#x}, SVI {:#x}", value & 0xff, value >> 8),
        _ if is_access_rights(f) => access_rights(value),
        _ => String::new(),
    }
}

fn is_access_rights(f: Field) -> bool {
    (0..8).any(|i| guest_segment(i)[3] == f)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_in_words() {
        let mut v = Vmcs::default();
        for (f, value, text) in [
            (GUEST_CR0, 0x8000_0031, "PE ET NE PG"),
            (GUEST_CR4, 1 << 13 | 1 << 40, "VMXE bits 40"),
            (GUEST_RFLAGS, 0x246, "PF ZF IF"),
            (EXIT_REASON, 48, "EPT violation"),
            (EXIT_REASON, 1 << 31 | 33, "VM-entry failure: guest state, VM-entry failure"),
            (EXIT_INTERRUPTION_INFORMATION, 0x8000_0b0e, "exception #PF, error code 0x0"),
            (ENTRY_INTERRUPTION_INFORMATION, 0x8000_00ec, "external interrupt 0xec"),
            (ENTRY_INTERRUPTION_INFORMATION, 0xec, ""),
            (EPT_POINTER, 0x1000 | 3 << 3 | 6 | 1 << 6, "4 levels, write-back, accessed and dirty flags"),
            (GUEST_CS_ACCESS_RIGHTS, 0xa09b, "code, readable, 64-bit, DPL 0, accessed, 4K granular"),
            (GUEST_LDTR_ACCESS_RIGHTS, 0x1_0000, "unusable"),
            (GUEST_TR_ACCESS_RIGHTS, 0x8b, "busy TSS, DPL 0"),
            (GUEST_ACTIVITY_STATE, 1, "HLT"),
            (GUEST_INTERRUPTIBILITY_STATE, 9, "blocking by STI blocking by NMI"),
            (INSTRUCTION_ERROR, 7, "VM entry with invalid control fields"),
            (VMCS_LINK_POINTER, u64::MAX, "none"),
            (GUEST_RIP, 5, ""),
        ] {
            v[f] = value;
            assert_eq!(field(&v, f), text, "{f:?}");
        }
        assert_eq!(bits(u64::MAX, &[("A", 1 << 3)]), "A bits 0-2 4-63");
        v[PRIMARY_CONTROLS] = 1 << 7 | 1 << 1;
        assert_eq!(field(&v, PRIMARY_CONTROLS), "hlt_exiting bits 1");
    }

    #[test]
    fn qualifications_in_words() {
        let is = |reason, q, text: &str| assert_eq!(qualification(reason, q), text);
        is(Reason::Io, 0x3f8 << 16, "out byte, port 0x3f8");
        is(Reason::Io, 0x60 << 16 | 0x38 | 3, "in 4 bytes, port 0x60, string, rep");
        is(Reason::ControlRegister, 3 | 1 << 8, "to CR3 from rcx");
        is(Reason::EptViolation, 0x182, "write of the translation, EPT allows ---");
        is(Reason::Cpuid, 0, "");
    }
}
