//! What fields of a VMCB say, in words: for people.

use x86::control::{cr0, cr4, dr6, efer, user_cet};
use x86::describe::{REGISTERS, access_rights, bits, event, rflags, words};
use x86::paging::error as fault;

use crate::exit::code;
use crate::nested_paging::error;
use crate::vmcb::*;

/// Words that are not empty, with commas.
fn list<const N: usize>(words: [String; N]) -> String {
    words.into_iter().filter(|w| !w.is_empty()).collect::<Vec<_>>().join(", ")
}

/// EXITINFO1 of #VMEXIT(IOIO) ("IOIO Intercepts").
fn io(info: u64) -> String {
    let direction = if info & 1 == 0 { "out" } else { "in" };
    let size = match info >> 4 & 7 {
        1 => "byte",
        2 => "2 bytes",
        4 => "4 bytes",
        _ => "no size",
    };
    let more = words([(info >> 2 & 1 != 0, "string"), (info >> 3 & 1 != 0, "rep")]);
    list([format!("{direction} {size}"), format!("port {:#x}", info >> 16 & 0xffff), more])
}

/// EXITINFO1 of #VMEXIT(NPF) ("Nested versus Guest Page Faults").
fn nested_page_fault(info: u64) -> String {
    let has = |bit: u32| info & u64::from(bit) != 0;
    let kind = match (has(fault::ID), has(fault::WR)) {
        (true, _) => "fetch",
        (_, true) => "write",
        _ => "read",
    };
    let user = if has(fault::US) { "user" } else { "supervisor" };
    let part = match (info & error::TABLE_WALK != 0, info & error::FINAL != 0) {
        (true, _) => "of a guest page-table entry",
        (_, true) => "of the final address",
        _ => "of nothing that is named",
    };
    let why = match (has(fault::P), has(fault::RSVD)) {
        (false, _) => "not present",
        (_, true) => "a reserved bit is set",
        _ => "not allowed",
    };
    let more = words([(has(fault::SS), "shadow stack"), (info & error::SSS != 0, "supervisor shadow stack")]);
    list([format!("{user} {kind} {part}"), why.to_owned(), more])
}

/// EXITINFO1 and EXITINFO2 of #VMEXIT(TASK_SWITCH) ("Task Switches").
fn task_switch(info_1: u64, info_2: u64) -> String {
    let by = match (info_2 >> 36 & 1 != 0, info_2 >> 38 & 1 != 0) {
        (true, _) => "IRET",
        (_, true) => "JMP",
        _ => "CALL, an exception or an interrupt",
    };
    let error = if info_2 >> 44 & 1 != 0 { format!(", error code {:#x}", info_2 & 0xffff_ffff) } else { String::new() };
    format!("to {:#x} by {by}{error}", info_1 & 0xffff)
}

/// EXITINFO1 and EXITINFO2 of #VMEXIT(AVIC_INCOMPLETE_IPI) ("AVIC IPI Delivery Not Completed").
fn incomplete_ipi(icr: u64, info_2: u64) -> String {
    let why = match info_2 >> 32 {
        0 => "invalid interrupt type",
        1 => "the target is not running",
        2 => "no valid target",
        3 => "invalid backing page",
        4 => "invalid vector",
        _ => "an identifier that is reserved",
    };
    format!("ICR {icr:#x}, {why}, index {:#x}", info_2 & 0xfff)
}

/// What an exit's EXITINFO1 and EXITINFO2 say ("SVM Intercept Exit Codes"), where they say something that is not just a number.
pub fn information(exit_code: u64, info_1: u64, info_2: u64) -> String {
    let register = REGISTERS[(info_1 & 15) as usize];
    let number = exit_code & 15;
    let is_mov = info_1 >> 63 != 0;
    match exit_code {
        0x00..=0x0f if is_mov => format!("from CR{number} to {register}"),
        0x10..=0x1f | code::CR0_SELECTIVE_WRITE if is_mov => {
            format!("to CR{} from {register}", if exit_code == code::CR0_SELECTIVE_WRITE { 0 } else { number })
        }
        0x00 => "no MOV: SMSW".to_owned(),
        0x10 | code::CR0_SELECTIVE_WRITE => "no MOV: LMSW or CLTS".to_owned(),
        0x20..=0x2f => format!("from DR{number} to {register}"),
        0x30..=0x3f => format!("to DR{number} from {register}"),
        0x4e => format!("address {info_2:#x}, error code {info_1:#x}"),
        // The exceptions with an error code: #DF, #TS, #NP, #SS, #GP, #AC, #CP.
        0x48 | 0x4a..=0x4d | 0x51 | 0x55 => format!("error code {info_1:#x}"),
        code::SMI if info_1 >> 32 & 1 != 0 => "from outside".to_owned(),
        code::INTN => format!("INT {info_1:#x}"),
        code::INVLPG | code::INVLPGA => format!("address {info_1:#x}"),
        code::IOIO => io(info_1),
        code::MSR if info_1 == 0 => "RDMSR".to_owned(),
        code::MSR => "WRMSR".to_owned(),
        code::TASK_SWITCH => task_switch(info_1, info_2),
        code::EFER_WRITE_TRAP => bits(info_1, efer::ALL),
        0x90..=0x9f => format!("CR{number} is {info_1:#x}"),
        code::NPF => nested_page_fault(info_1),
        code::AVIC_INCOMPLETE_IPI => incomplete_ipi(info_1, info_2),
        code::AVIC_NOACCEL => {
            let kind = if info_1 >> 32 & 1 != 0 { "write" } else { "read" };
            format!("{kind} at {:#x}, vector {:#x}", info_1 & 0xff0, info_2 & 0xff)
        }
        _ => String::new(),
    }
}

/// Intercepts that are on, by the names of their exit codes.
fn intercepts(f: Field, value: u64) -> String {
    let first = u64::from(f.offset) * 8;
    let known: Vec<_> = (0..32).filter_map(|i| Some((code::known(first + i)?, 1 << i))).collect();
    bits(value, &known)
}

/// EVENTINJ or EXITINTINFO.
pub fn injection(value: u64) -> String {
    event(value, value >> 32)
}

/// V_TPR and its like ("Virtual Interrupt").
fn virtual_interrupt(value: u64) -> String {
    const FIELDS: u64 = 0xff | 0xf << 16 | 0xff << 32;
    let numbers = [("V_TPR", 0xff, 0), ("V_INTR_PRIO", 0xf, 16), ("V_INTR_VECTOR", 0xff, 32)];
    let numbers = numbers.map(|(name, mask, shift)| (name, value >> shift & mask)).into_iter();
    let numbers: String = numbers.filter(|(_, n)| *n != 0).map(|(name, n)| format!(" {name}={n:#x}")).collect();
    format!("{}{numbers}", bits(value & !FIELDS, vintr::ALL)).trim_start().to_owned()
}

/// What a field of a VMCB says; empty where it is but a number.
pub fn field(v: &Vmcb, f: Field) -> String {
    let value = v.get(f);
    match f {
        INTERCEPT_CR | INTERCEPT_DR | INTERCEPT_EXCEPTIONS | INTERCEPT_3 | INTERCEPT_4 | INTERCEPT_5 => {
            intercepts(f, value)
        }
        TLB_CONTROL => match value {
            0 => "nothing",
            1 => "flush all",
            3 => "flush the guest's",
            7 => "flush the guest's that are not global",
            _ => "reserved",
        }
        .to_owned(),
        VINTR => virtual_interrupt(value),
        INTERRUPT_SHADOW => bits(value, &[("INTERRUPT_SHADOW", 1), ("GUEST_INTERRUPT_MASK", 2)]),
        EXITCODE => code::name(value).to_owned(),
        EXITINFO1 => information(v.get(EXITCODE), value, v.get(EXITINFO2)),
        EXITINTINFO | EVENTINJ => injection(value),
        NESTED_CONTROL => bits(value, nested::ALL),
        VIRTUALIZATION_CONTROL => bits(value, more::ALL),
        CLEAN_BITS => bits(value, clean::ALL),
        CR0 => bits(value, cr0::ALL),
        CR4 => bits(value, cr4::ALL),
        EFER => bits(value, efer::ALL),
        // Bit 11 is 0 where a lock of the bus was trapped.
        DR6 => bits(value & 0xe00f | !value & dr6::BLD, dr6::ALL),
        RFLAGS => rflags(value),
        S_CET => bits(value & 0xfff, user_cet::ALL),
        _ if (0..10).any(|i| segment(i)[1] == f) => access_rights(value & 0xff | (value & 0xf00) << 4),
        _ => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_in_words() {
        let mut v = Vmcb::default();
        for (f, value, text) in [
            (INTERCEPT_CR, 1 | 1 << 19, "CR0_READ CR3_WRITE"),
            (INTERCEPT_EXCEPTIONS, 1 << 14 | 1 << 6, "EXCP_UD EXCP_PF"),
            (INTERCEPT_3, 1 << 27 | 1 << 31, "IOIO SHUTDOWN"),
            (INTERCEPT_4, 1 | 1 << 16, "VMRUN CR0_WRITE_TRAP"),
            (INTERCEPT_5, 1 << 6 | 1 << 30, "IDLE_HLT bits 30"),
            (VINTR, 1 << 8 | 1 << 24 | 0x41 << 32 | 5, "V_IRQ V_INTR_MASKING V_TPR=0x5 V_INTR_VECTOR=0x41"),
            (VINTR, 7, "V_TPR=0x7"),
            (TLB_CONTROL, 3, "flush the guest's"),
            (EXITCODE, 0x400, "NPF"),
            (EXITCODE, u64::MAX, "INVALID"),
            (EVENTINJ, 0x8000_0041, "external interrupt 0x41"),
            (EXITINTINFO, 0x2_8000_0b0e, "exception #PF, error code 0x2"),
            (NESTED_CONTROL, 9, "NP_ENABLE GMET_ENABLE"),
            (CLEAN_BITS, 0x11, "I NP"),
            (INTERRUPT_SHADOW, 1, "INTERRUPT_SHADOW"),
            (CS_ATTRIB, 0xa9b, "code, readable, 64-bit, DPL 0, accessed, 4K granular"),
            (DR6, 0xffff_4ff0, "BS"),
            (RFLAGS, 0x246, "PF ZF IF"),
            (RIP, 5, ""),
        ] {
            v.set(f, value);
            assert_eq!(field(&v, f), text, "{f:?}");
        }
    }

    #[test]
    fn exits_in_words() {
        let is = |code, info_1, info_2, text: &str| assert_eq!(information(code, info_1, info_2), text, "{code:#x}");
        is(code::IOIO, 0x3f8_0090, 0, "out byte, port 0x3f8");
        is(code::IOIO, 0x60_00cd, 0, "in 4 bytes, port 0x60, string, rep");
        is(0x13, 1 << 63 | 1, 0, "to CR3 from rcx");
        is(0x08, 1 << 63 | 9, 0, "from CR8 to r9");
        is(code::CR0_SELECTIVE_WRITE, 0, 0, "no MOV: LMSW or CLTS");
        is(0x37, 2, 0, "to DR7 from rdx");
        is(code::MSR, 1, 0, "WRMSR");
        is(code::NPF, 1 << 32 | 6, 0x1000, "user write of the final address, not present");
        is(code::NPF, 1 << 33 | 7, 0, "user write of a guest page-table entry, not allowed");
        is(code::NPF, 1 << 32 | 0x1d, 0, "user fetch of the final address, a reserved bit is set");
        is(0x4e, 2, 0x1234, "address 0x1234, error code 0x2");
        is(code::TASK_SWITCH, 0x28, 1 << 38, "to 0x28 by JMP");
        is(code::AVIC_INCOMPLETE_IPI, 0xfd, 1 << 32 | 2, "ICR 0xfd, the target is not running, index 0x2");
        is(code::AVIC_NOACCEL, 1 << 32 | 0xb0, 0x41, "write at 0xb0, vector 0x41");
        is(code::CPUID, 0, 0, "");
    }
}
