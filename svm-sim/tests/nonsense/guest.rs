//! Makes hypervisors that make no sense from a source of choices: a seed, or a fuzzer's bytes. VMCBs that enter, nested page tables, the maps of
//! permissions, a guest's code and its host's are spoiled here and there.

use emu_core::bus::VcpuSignal;
use emu_core::engine::{Arch, StopKind};
use emu_core::machine::End;
use svm_sim::exit::code;
use svm_sim::vmcb::*;
use x86::control::cr0;
use x86::exception::vector;
use x86::processor::X86;
use x86::segment::{Attributes, Segment};
use x86_bare::nonsense::Choices;
use x86_bare::{Bare, CODE, IDT, TSS, TSS_SELECTOR};

use crate::base::{Base, GUEST, HSAVE, IOPM, MSRPM, NPT, NPT_TABLE, PDPT_PAE, SECOND, VMCB, machine, nest};

/// Processors: some of what SVM has, others lack.
const MODELS: [&str; 4] = [
    "amd",
    "amd",
    "amd,-vmcb_cache,-flushbyasid,-gmet,-svme_addr_chk",
    "amd,-nrip_save,-decodeassists,-vnmi,-pfthreshold",
];

/// Pages for whatever wants some.
const PAGES: u64 = 0x6_0000;

/// A number that may mean something: an address of what is there, a mask, a small one, or noise.
fn word(r: &mut Choices, old: u64) -> u64 {
    match r.below(10) {
        0..=2 => old ^ 1 << r.below(64),
        3 => r.below(16),
        4 => r.of(&[VMCB, SECOND, HSAVE, IOPM, MSRPM, NPT, NPT_TABLE, PDPT_PAE, GUEST]),
        5 => PAGES + 0x1000 * r.below(8),
        6 => r.below(0x20_0000),
        7 => u64::MAX >> r.below(64),
        8 => 0xfee0_0000 + (r.below(0x1000) & !3),
        _ => r.next(),
    }
}

/// Every feature that VMCBs turn on, and what it asks for.
fn features(r: &mut Choices, v: &mut Vmcb) {
    if r.one_in(2) {
        nest(v);
    }
    for (field, bits) in [(VINTR, vintr::ALL), (NESTED_CONTROL, nested::ALL), (VIRTUALIZATION_CONTROL, more::ALL)] {
        for _ in 0..r.below(3) {
            let (_, bit) = r.of(bits);
            v.set(field, v.get(field) ^ bit);
        }
    }
    v.set(VINTR, v.get(VINTR) ^ r.below(16) ^ r.below(16) << 16 ^ r.below(256) << 32);
    for field in [INTERCEPT_CR, INTERCEPT_DR, INTERCEPT_EXCEPTIONS, INTERCEPT_3, INTERCEPT_4, INTERCEPT_5] {
        match r.below(4) {
            0 => v.set(field, v.get(field) ^ r.next() & r.next() & r.next()),
            1 => v.set(field, r.next()),
            _ => {}
        }
    }
    if r.one_in(3) {
        let event = r.below(256) | r.of(&[0, 2, 3, 3, 4]) << 8 | r.below(2) << 11 | 1 << 31 | r.next() << 32;
        v.set(EVENTINJ, if event >> 8 & 7 == 3 { event & !0xe0 } else { event });
        v.set(NRIP, v.get(RIP) + r.below(4));
    }
    for (field, value) in [
        (INTERRUPT_SHADOW, r.below(4)),
        (TLB_CONTROL, r.below(8)),
        (PAUSE_FILTER_COUNT, r.below(4)),
        (PAUSE_FILTER_THRESHOLD, r.below(20)),
        (CPL, r.of(&[0, 0, 3])),
        (RFLAGS, 2 | r.below(2) << 9 | r.below(4) << 12),
        (DR7, 0x400 | r.next() & 0xffff_00ff),
        (AVIC_APIC_BAR, 0xfee0_0000),
        (AVIC_BACKING_PAGE, PAGES),
        (AVIC_LOGICAL_TABLE, PAGES + 0x1000),
        (AVIC_PHYSICAL_TABLE, (PAGES + 0x2000) | r.below(4)),
    ] {
        if r.one_in(2) {
            v.set(field, value);
        }
    }
}

/// What most VMCBs need to be let in.
fn needs(v: &mut Vmcb) {
    for (field, code) in [(INTERCEPT_4, code::VMRUN), (INTERCEPT_3, code::NMI)] {
        v.set(field, v.get(field) | 1 << (code % 32));
    }
    v.set(NESTED_CONTROL, v.get(NESTED_CONTROL) & !(nested::SEV_ENABLE | nested::SEV_ES_ENABLE));
    v.set(GUEST_ASID, v.get(GUEST_ASID).clamp(1, 3));
}

/// A VMCB that is run here.
fn vmcb(r: &mut Choices, base: Base) -> Vmcb {
    let mut v = base.vmcb();
    features(r, &mut v);
    for _ in 0..r.below(4) {
        let (_, field) = r.of(FIELDS);
        v.set(field, word(r, v.get(field)));
    }
    if !r.one_in(4) {
        needs(&mut v);
    }
    if r.one_in(16) {
        let at = (r.below(SIZE as u64 / 8) * 8) as u16;
        v.set(Field { offset: at, size: 8 }, r.next());
    }
    v
}

/// Instructions that SVM has something to say about; in 16-bit and 32-bit code some of them are others.
const KNOWN: &[&[u8]] = &[
    &[0x0f, 0xa2],                         // CPUID
    &[0x0f, 0x32],                         // RDMSR
    &[0x0f, 0x30],                         // WRMSR
    &[0x0f, 0x31],                         // RDTSC
    &[0x0f, 0x01, 0xf9],                   // RDTSCP
    &[0x0f, 0x33],                         // RDPMC
    &[0x0f, 0x01, 0xfd],                   // RDPRU
    &[0x0f, 0x01, 0xd1],                   // XSETBV
    &[0x0f, 0x22, 0xc0],                   // MOV CR0, rax
    &[0x0f, 0x22, 0xd8],                   // MOV CR3, rax
    &[0x0f, 0x22, 0xe0],                   // MOV CR4, rax
    &[0x0f, 0x20, 0xc0],                   // MOV rax, CR0
    &[0x44, 0x0f, 0x22, 0xc0],             // MOV CR8, rax
    &[0x44, 0x0f, 0x20, 0xc0],             // MOV rax, CR8
    &[0x0f, 0x06],                         // CLTS
    &[0x0f, 0x01, 0xf0],                   // LMSW ax
    &[0x0f, 0x01, 0xe0],                   // SMSW ax
    &[0x0f, 0x23, 0xf8],                   // MOV DR7, rax
    &[0x0f, 0x21, 0xf0],                   // MOV rax, DR6
    &[0x48, 0x89, 0x07],                   // MOV [rdi], rax
    &[0x48, 0x8b, 0x06],                   // MOV rax, [rsi]
    &[0xf0, 0x48, 0x0f, 0xc1, 0x07],       // LOCK XADD [rdi], rax
    &[0xf3, 0xa4],                         // REP MOVSB
    &[0xf3, 0x6c],                         // REP INSB
    &[0x6e],                               // OUTSB
    &[0xf3, 0x67, 0x6f],                   // REP OUTSD, a smaller address size
    &[0xec],                               // IN al, dx
    &[0xef],                               // OUT dx, eax
    &[0xfb],                               // STI
    &[0xfa],                               // CLI
    &[0xf4],                               // HLT
    &[0xcc],                               // INT3
    &[0xcd, 0x80],                         // INT 80h
    &[0xf1],                               // INT1
    &[0x0f, 0x0b],                         // UD2
    &[0x48, 0xcf],                         // IRETQ
    &[0xcf],                               // IRET
    &[0x0f, 0xaa],                         // RSM
    &[0x9c],                               // PUSHF
    &[0x9d],                               // POPF
    &[0x50],                               // PUSH rax
    &[0xe8, 0, 0, 0, 0],                   // CALL
    &[0xeb, 0],                            // JMP
    &[0x0f, 0x01, 0x3f],                   // INVLPG [rdi]
    &[0x66, 0x0f, 0x38, 0x82, 0x07],       // INVPCID rax, [rdi]
    &[0xf3, 0x90],                         // PAUSE
    &[0x0f, 0x01, 0xc8],                   // MONITOR
    &[0x0f, 0x01, 0xc9],                   // MWAIT
    &[0x0f, 0x08],                         // INVD
    &[0x0f, 0x09],                         // WBINVD
    &[0x0f, 0x01, 0x17],                   // LGDT [rdi]
    &[0x0f, 0x01, 0x0f],                   // SIDT [rdi]
    &[0x0f, 0x00, 0xd8],                   // LTR ax
    &[0x0f, 0x00, 0xc0],                   // SLDT eax
    &[0x8e, 0xd0],                         // MOV SS, ax
    &[0x8e, 0xe0],                         // MOV FS, ax
    &[0xea, 0, 0, 0, 0, 0x28, 0],          // JMP far, to a TSS
    &[0x0f, 0x01, 0xd8],                   // VMRUN
    &[0x0f, 0x01, 0xd9],                   // VMMCALL
    &[0x0f, 0x01, 0xda],                   // VMLOAD
    &[0x0f, 0x01, 0xdb],                   // VMSAVE
    &[0x0f, 0x01, 0xdc],                   // STGI
    &[0x0f, 0x01, 0xdd],                   // CLGI
    &[0x0f, 0x01, 0xde],                   // SKINIT
    &[0x0f, 0x01, 0xdf],                   // INVLPGA
    &[0x0f, 0x01, 0xfe],                   // INVLPGB
    &[0x0f, 0x01, 0xff],                   // TLBSYNC
    &[0xf3, 0x0f, 0x01, 0xfa],             // MCOMMIT
    &[0xc4, 0xe2, 0x6d, 0x90, 0x04, 0x06], // VPGATHERDD
];

/// MSRs that SVM has something to say about.
const MSRS: [u64; 12] = [
    0x10,
    0x1b,
    0x48,
    0x1d9,
    0x277,
    0xc000_0080,
    0xc000_0104,
    0xc001_0114,
    0xc001_0116,
    0xc001_0117,
    0xc001_0118,
    0x808,
];

/// MOV of a number to a register, in 64-bit code.
fn mov(bytes: &mut Vec<u8>, register: u8, value: u64) {
    bytes.extend([0x48, 0xb8 | register]);
    bytes.extend(value.to_le_bytes());
}

/// An instruction, or noise.
fn instruction(r: &mut Choices, bytes: &mut Vec<u8>) {
    match r.below(10) {
        0 => bytes.extend(r.next().to_le_bytes()),
        1 | 2 => {
            let register = r.of(&[0, 1, 2, 6, 7]);
            let number = word(r, 0);
            mov(bytes, register, number);
        }
        3 => mov(bytes, 1, r.of(&MSRS)),
        4 => mov(bytes, 2, r.below(0x100)),
        _ => bytes.extend(r.of(KNOWN)),
    }
}

/// The guest's code. It ends with VMMCALL.
fn guest_code(r: &mut Choices) -> Vec<u8> {
    let mut bytes = Vec::new();
    for _ in 0..r.below(12) {
        instruction(r, &mut bytes);
    }
    bytes.extend([0x0f, 0x01, 0xd9, 0xf4]);
    bytes
}

/// MOV of RBX to or from memory, by an opcode for so many bytes.
fn mov_rbx(bytes: &mut Vec<u8>, prefix: &[u8], opcode: u8, at: u64) {
    bytes.extend(prefix);
    bytes.extend([opcode, 0x1c, 0x25]);
    bytes.extend((at as u32).to_le_bytes());
}

/// Changes a field of a VMCB; its clean bits may say otherwise.
fn change(r: &mut Choices, bytes: &mut Vec<u8>, vmcb: u64) {
    let (_, field) = r.of(FIELDS);
    let value = word(r, 0);
    mov(bytes, 3, value);
    let (prefix, opcode): (&[u8], u8) = match field.size {
        1 => (&[], 0x88),
        2 => (&[0x66], 0x89),
        4 => (&[], 0x89),
        _ => (&[0x48], 0x89),
    };
    mov_rbx(bytes, prefix, opcode, vmcb + u64::from(field.offset));
}

/// The host's code: it runs one VMCB and another, over and over.
fn host_code(r: &mut Choices) -> Vec<u8> {
    let mut bytes = Vec::new();
    for _ in 0..1 + r.below(6) {
        let vmcb = r.of(&[VMCB, VMCB, SECOND]);
        match r.below(8) {
            // Behind the instruction that the guest has come out by.
            0 | 1 => {
                mov_rbx(&mut bytes, &[0x48], 0x8b, vmcb + u64::from(NRIP.offset));
                mov_rbx(&mut bytes, &[0x48], 0x89, vmcb + u64::from(RIP.offset));
            }
            2 => change(r, &mut bytes, vmcb),
            3 => {
                mov(&mut bytes, 0, vmcb);
                bytes.extend(r.of(&[&[0x0f, 0x01, 0xda], &[0x0f, 0x01, 0xdb]]));
            }
            4 => bytes.extend(r.of(&[&[0x0f, 0x01, 0xdc], &[0x0f, 0x01, 0xdd]])),
            5 => bytes.push(r.of(&[0xfa, 0xfb])),
            6 => mov_clean(r, &mut bytes, vmcb),
            _ => instruction(r, &mut bytes),
        }
        mov(&mut bytes, 0, vmcb);
        bytes.extend([0x0f, 0x01, 0xd8]);
    }
    let back = -(bytes.len() as i32 + 5);
    bytes.push(0xe9);
    bytes.extend(back.to_le_bytes());
    bytes
}

fn mov_clean(r: &mut Choices, bytes: &mut Vec<u8>, vmcb: u64) {
    let some = r.next();
    let clean = r.of(&[0, 0x1fff, some]);
    mov(bytes, 3, clean);
    mov_rbx(bytes, &[], 0x89, vmcb + u64::from(CLEAN_BITS.offset));
}

fn spoil_memory(r: &mut Choices, bare: &mut Bare) {
    for page in [IOPM, IOPM + 0x1000, IOPM + 0x2000, MSRPM, MSRPM + 0x1000] {
        if r.one_in(4) {
            let filling = r.of(&[0xff, 0x55, 0x0f]);
            bare.machine.world.ram.write(page, &[filling; 0x1000]).unwrap();
        }
    }
    for _ in 0..r.below(6) {
        let at = match r.below(6) {
            0 => NPT + 8 * r.below(0x600),
            1 => NPT_TABLE + 8 * r.below(0x80),
            2 => PDPT_PAE + 8 * r.below(0x400),
            3 => HSAVE + SAVE as u64 + 8 * r.below(0x60),
            4 => PAGES + 8 * r.below(0x1000),
            _ => 0x1000 + 8 * r.below(0x2000),
        };
        let new = word(r, bare.get(at));
        bare.put(at, new);
    }
}

/// A machine that is about to run one of them.
fn begin(r: &mut Choices, model: &'static str) -> Bare {
    let base = r.of(&Base::ALL);
    let mut bare = machine(model, &vmcb(r, base));
    let base = r.of(&Base::ALL);
    crate::base::write(&mut bare, SECOND, &vmcb(r, base));
    let ram = &mut bare.machine.world.ram;
    ram.write(GUEST, &guest_code(r)).unwrap();
    ram.write(CODE, &host_code(r)).unwrap();
    spoil_memory(r, &mut bare);
    // Gates that leave interrupts on, and stacks that never end.
    for _ in 0..r.below(4) {
        let vector = r.of(&[1, 2, 8, 14, 0x40, 0xff]);
        let gate = bare.get(IDT + 16 * vector);
        bare.put(IDT + 16 * vector, gate | r.of(&[1, 0x100, 0x101]) << 32);
    }
    for register in 1..16 {
        if register != 4 {
            let new = word(r, 0);
            bare.set(register, new);
        }
    }
    let cpu = bare.cpu();
    cpu.tr = Segment { selector: TSS_SELECTOR as u16, base: TSS, limit: 0x67, attributes: Attributes(0x8b) };
    if r.one_in(16) {
        cpu.cr0 &= !cr0::PG;
    }
    bare
}

/// Something comes from outside.
fn disturb(r: &mut Choices, bare: &mut Bare) {
    use x86::apic::pin;
    let mut h = bare.at_work();
    match r.below(8) {
        0 => h.arch.pending.nmi = true,
        1 => X86::signal(&mut h, VcpuSignal::Pin { pin: r.of(&[pin::SMI, pin::INIT]), level: true }),
        2 => X86::signal(&mut h, VcpuSignal::Pin { pin: pin::LINT0, level: r.one_in(2) }),
        // Interrupts that it sends itself.
        3..=6 => {
            x86::apic::write(&mut h, 0xf0, 4, 0x1ff);
            x86::apic::write(&mut h, 0x300, 4, 1 << 18 | (16 + r.below(240)));
        }
        _ => {}
    }
    h.core.check_interrupts = true;
}

/// A machine that has come so far with its choices; `None` if it has shut down.
///
/// # Panics
/// If it has ended in another way than machines may.
fn midway(r: &mut Choices, model: &'static str) -> Option<Bare> {
    let mut bare = begin(r, model);
    for _ in 0..3 {
        let until = bare.machine.retired() + 1 + r.below(600);
        if !goes_on(bare.machine.run(until)) {
            return None;
        }
        disturb(r, &mut bare);
    }
    Some(bare)
}

/// Whether it does, or has shut down.
fn goes_on(end: End) -> bool {
    match end {
        End::Limit | End::Deadlock | End::Idle(_) => true,
        End::Shutdown(_, stop) if stop.kind() == StopKind::Shutdown && stop.code() == vector::DF.into() => false,
        other => panic!("{other:?}"),
    }
}

/// One of them, from choices: twice, to the same state. Then it goes on, and another from its image, to the same state.
///
/// # Panics
/// If the states differ, or it ends in another way than machines may.
pub fn run(bytes: &[u8]) {
    svm_sim::register();
    let mut r = Choices::new(bytes);
    let model = r.of(&MODELS);
    let mut again = Choices::new(bytes);
    again.next();
    let (Some(mut bare), Some(mut twin)) = (midway(&mut r, model), midway(&mut again, model)) else { return };
    assert_eq!(bare.machine.state_hash(), twin.machine.state_hash(), "the same once more");
    let image = bare.machine.save();
    let mut other = Bare::new(model);
    other.machine.restore(&image).expect("what was saved can be restored");
    let until = bare.machine.retired() + 1000;
    let end = bare.machine.run(until);
    assert_eq!(end, other.machine.run(until));
    assert_eq!(bare.machine.state_hash(), other.machine.state_hash(), "from its image");
    goes_on(end);
}
