//! Makes VM entries that make no sense from a source of choices: a seed, or a fuzzer's bytes. A VMCS that enters, EPT paging structures and a guest's
//! code are spoiled here and there.

use emu_core::engine::{Stop, StopKind};
use emu_core::machine::End;
use iced_x86::code_asm::*;
use vmx_sim::Vmx;
use vmx_sim::capability::REVISION;
use vmx_sim::exit::Abort;
use vmx_sim::field::*;
use vmx_sim::vmcs::{SHADOW, Vmcs};
use x86::exception::vector;
use x86::extension::Slot;
use x86_bare::nonsense::Choices;
use x86_bare::{Bare, assemble};

use crate::base::{Base, EPT, GUEST, HOST, PAGE, enter_with};

/// The EPT page table of the first 2 MiB, if there is one.
const TABLE: u64 = EPT + 0x3000;

/// What a field gets: one bit other than before, or something new.
fn value(r: &mut Choices, old: u64) -> u64 {
    match r.below(8) {
        0..=2 => old ^ 1 << r.below(64),
        3 => r.below(16),
        4 => PAGE + 0x1000 * r.below(4),
        5 => r.below(0x20_0000),
        6 => u64::MAX >> r.below(64),
        _ => r.next(),
    }
}

/// Spoils the VMCS: controls that are there first, then any field.
fn spoil(r: &mut Choices, vmx: &mut Vmx) {
    let c = &vmx.capabilities;
    let v = &mut vmx.vmcs;
    let may = [
        (PIN_CONTROLS, u64::from(c.pin.may)),
        (PRIMARY_CONTROLS, c.primary.may.into()),
        (SECONDARY_CONTROLS, c.secondary.may.into()),
        (TERTIARY_CONTROLS, c.tertiary),
        (EXIT_CONTROLS, c.exit.may.into()),
        (ENTRY_CONTROLS, c.entry.may.into()),
    ];
    for _ in 0..r.below(5) {
        let (field, may) = r.of(&may);
        v[field] ^= may & 1 << r.below(64);
    }
    if r.below(2) == 0 {
        needs(v);
    }
    let fields: Vec<_> = Field::all().collect();
    for _ in 0..r.below(4) {
        let field = r.of(&fields);
        v[field] = field.cut(value(r, v[field]));
    }
}

/// What most controls ask for to be let in: pages, a timer's value.
fn needs(v: &mut Vmcs) {
    v[VPID] = 1;
    v[TSC_MULTIPLIER] = 1 << 48;
    v[PREEMPTION_TIMER_VALUE] = 20;
    v[VM_FUNCTION_CONTROLS] = 1;
    v[PML_INDEX] = 3;
    for (i, field) in [
        VIRTUAL_APIC_ADDRESS,
        APIC_ACCESS_ADDRESS,
        PML_ADDRESS,
        EPTP_LIST_ADDRESS,
        VMREAD_BITMAP,
        VMWRITE_BITMAP,
        VIRTUALIZATION_EXCEPTION_INFORMATION_ADDRESS,
        SUB_PAGE_PERMISSION_TABLE_POINTER,
        POSTED_INTERRUPT_DESCRIPTOR_ADDRESS,
        PID_POINTER_TABLE_ADDRESS,
        MSR_BITMAPS,
        IO_BITMAP_A,
        IO_BITMAP_B,
    ]
    .into_iter()
    .enumerate()
    {
        v[field] = PAGE + 0x1000 * i as u64;
    }
}

/// Instructions of the guest: those that VMX has something to say about, or noise. It ends with VMCALL.
fn code(r: &mut Choices) -> Vec<u8> {
    const KNOWN: &[&[u8]] = &[
        &[0x0f, 0xa2],                         // CPUID
        &[0x0f, 0x01, 0xd4],                   // VMFUNC
        &[0x0f, 0x32],                         // RDMSR
        &[0x0f, 0x30],                         // WRMSR
        &[0xf2, 0x0f, 0x01, 0xc6],             // RDMSRLIST
        &[0x0f, 0x78, 0xca],                   // VMREAD rdx, rcx
        &[0x0f, 0x78, 0x0f],                   // VMREAD [rdi], rcx
        &[0x0f, 0x79, 0x0f],                   // VMWRITE rcx, [rdi]
        &[0x0f, 0x22, 0xc0],                   // MOV CR0, rax
        &[0x0f, 0x22, 0xd8],                   // MOV CR3, rax
        &[0x0f, 0x22, 0xe0],                   // MOV CR4, rax
        &[0x0f, 0x20, 0xc0],                   // MOV rax, CR0
        &[0x44, 0x0f, 0x22, 0xc0],             // MOV CR8, rax
        &[0x0f, 0x23, 0xf8],                   // MOV DR7, rax
        &[0x48, 0x89, 0x07],                   // MOV [rdi], rax
        &[0x48, 0x8b, 0x06],                   // MOV rax, [rsi]
        &[0xf3, 0xa4],                         // REP MOVSB
        &[0xf3, 0x6c],                         // REP INSB
        &[0x6e],                               // OUTSB
        &[0xec],                               // IN al, dx
        &[0xee],                               // OUT dx, al
        &[0xfb],                               // STI
        &[0xf4],                               // HLT
        &[0xcc],                               // INT3
        &[0xcd, 0x80],                         // INT 80h
        &[0xf1],                               // INT1
        &[0x0f, 0x0b],                         // UD2
        &[0x48, 0xcf],                         // IRETQ
        &[0x9d],                               // POPF
        &[0x50],                               // PUSH rax
        &[0xe8, 0, 0, 0, 0],                   // CALL
        &[0x0f, 0x01, 0x3f],                   // INVLPG [rdi]
        &[0x0f, 0x01, 0xf9],                   // RDTSCP
        &[0xf3, 0x90],                         // PAUSE
        &[0x0f, 0xc7, 0xf0],                   // RDRAND eax
        &[0x0f, 0x01, 0x17],                   // LGDT [rdi]
        &[0x0f, 0x00, 0xd8],                   // LTR ax
        &[0x8e, 0xd0],                         // MOV SS, ax
        &[0xc4, 0xe2, 0x6d, 0x90, 0x04, 0x06], // VPGATHERDD
    ];
    let mut bytes = Vec::new();
    for _ in 0..r.below(12) {
        match r.below(8) {
            0 => bytes.extend(r.next().to_le_bytes()),
            // MOV of an address or a number to RAX, RCX, RDX, RSI or RDI.
            1 | 2 => {
                bytes.extend([0x48, r.of(&[0xb8, 0xb9, 0xba, 0xbe, 0xbf])]);
                let number = value(r, 0);
                bytes.extend(number.to_le_bytes());
            }
            _ => bytes.extend(r.of(KNOWN)),
        }
    }
    bytes.extend([0x0f, 0x01, 0xc1, 0xf4]);
    bytes
}

fn spoil_machine(r: &mut Choices, bare: &mut Bare) {
    let ram = &mut bare.machine.world.ram;
    ram.write(GUEST, &code(r)).unwrap();
    // The host goes on with its guest behind VM exits, with other registers.
    let host = assemble(64, HOST, &|a| {
        a.add(rax, 0x1234)?;
        a.xchg(rdi, rsi)?;
        a.vmresume()?;
        a.hlt()
    });
    ram.write(HOST, &host).unwrap();
    if r.below(2) == 0 {
        bare.put(EPT + 0x2000, TABLE | 0x407);
        for page in (0..0x20_0000).step_by(4096) {
            bare.put(TABLE + page / 512, page | 0x437);
        }
    }
    for _ in 0..r.below(6) {
        let at = match r.below(4) {
            0 => EPT + 8 * r.below(0x800),
            1 => TABLE + 8 * r.below(0x80),
            2 => PAGE + 8 * r.below(0x1a00),
            _ => 0x1000 + 8 * r.below(0x2000),
        };
        let new = value(r, bare.get(at));
        bare.put(at, new);
    }
    bare.put(PAGE, u64::from(REVISION | if r.below(2) == 0 { SHADOW } else { 0 }));
    for register in 0..16 {
        if register != 4 {
            let new = value(r, 0);
            bare.set(register, new);
        }
    }
}

/// One of them, from choices.
///
/// # Panics
/// If it ends in another way than machines may.
pub fn run(bytes: &[u8]) {
    vmx_sim::register();
    let mut r = Choices::new(bytes);
    let base = r.of(&Base::ALL);
    let (_, mut bare) = enter_with(
        base,
        |_| {},
        |bare| {
            let slot = &mut bare.cpu().extension;
            let mut vmx = slot.get().unwrap().as_any().downcast_ref::<Vmx>().unwrap().clone();
            spoil(&mut r, &mut vmx);
            *slot = Slot::with(Box::new(vmx));
            spoil_machine(&mut r, bare);
        },
    );
    let end = bare.machine.run(3000);
    let is_shutdown =
        |stop: Stop| Abort::of(stop).is_some() || stop.kind() == StopKind::Shutdown && stop.code() == vector::DF.into();
    match end {
        End::Limit | End::Deadlock => {}
        End::Shutdown(_, stop) if is_shutdown(stop) => {}
        other => panic!("{base:?}: {other:?}"),
    }
    // Its state is one that a snapshot can hold.
    let slot = &bare.cpu().extension;
    let bytes = postcard::to_stdvec(slot).unwrap();
    let again: Slot = postcard::from_bytes(&bytes).unwrap();
    assert_eq!(*slot, again);
}
