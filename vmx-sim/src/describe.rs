//! What fields of a VMCS say, in words: for people.

use x86::control::{self, cr0, cr4, dr6, efer};
use x86::describe::{self, REGISTERS, access_rights, bits, exceptions, rflags, rights, words};

use crate::control::known;
use crate::entry::{activity, interruptibility};
use crate::exit::{ENTRY_FAILURE, NMI_UNBLOCKING, Reason, VALID};
use crate::field::*;
use crate::instructions::error;
use crate::vmcs::Vmcs;

/// Controls that are 1, by name. Those without one are 1 because they must be.
fn controls(f: Field, value: u64) -> String {
    let all: Vec<_> = known(f).map(|c| (c.name.to_lowercase(), 1 << c.bit)).collect();
    let all: Vec<_> = all.iter().map(|(name, bit)| (name.as_str(), *bit)).collect();
    bits(value, &all)
}

/// "VM-Exit Interruption Information"; nothing if it is not valid.
pub fn event(information: u64, error: u64) -> String {
    let mut text = describe::event(information, error);
    if information & VALID != 0 && information & NMI_UNBLOCKING != 0 {
        text += ", NMI unblocking";
    }
    text
}

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
        GUEST_RFLAGS => rflags(value),
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
