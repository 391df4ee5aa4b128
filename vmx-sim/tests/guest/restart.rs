//! EPT violations in the middle of instructions and of events' deliveries: a host that maps the page and resumes, with whatever was being delivered
//! injected anew, sees its guest end as one does that never was without a page. So does a guest that is told by #VE, and asks for the page.

use iced_x86::code_asm::*;
use proptest::prelude::*;
use vmx_sim::control::secondary;
use vmx_sim::exit::Reason;
use vmx_sim::field::*;
use vmx_sim::vmcs::Vmcs;
use x86_bare::{Bare, GDT, GDT_LIMIT, HANDLERS, IDT, KERNEL_CS, KERNEL_SS, NOTES, PT, assemble};

use crate::base::{HOST, on};
use crate::machine::{ALL, DATA, entry, run, vmcs};

/// Pages of data.
const PAGES: u64 = 6;
/// What the host counts violations in, and behind that those among them that #VE has told of.
const COUNT: u64 = NOTES + 0x100;
/// Where the guest's own tables and stack are, in pages of their own, that may be absent, too.
const TABLES: u64 = DATA + 0x1_0000;
const GUEST_GDT: u64 = TABLES;
const GUEST_IDT: u64 = TABLES + 0x1000;
const GUEST_STACK: u64 = TABLES + 0x4000;
/// The pages that may be absent: those of data, then of tables, of stack.
const ABSENT: usize = PAGES as usize + 5;

/// The virtualization-exception information area, where no string reaches.
const AREA: u64 = DATA - 0x8000;
/// The handler of #VE.
const VE_HANDLER: u64 = HANDLERS + 32 * 20;

fn page(i: usize) -> u64 {
    if i < PAGES as usize { DATA + 0x1000 * i as u64 } else { TABLES + 0x1000 * (i as u64 - PAGES) }
}

/// The host: maps the page of an EPT violation and resumes its guest.
fn host(a: &mut CodeAssembler) -> x86_bare::Result {
    let mut done = a.create_label();
    let mut violation = a.create_label();
    let mut map = a.create_label();
    let mut resume = a.create_label();
    let used = [rax, rcx, rdx];
    for r in used {
        a.push(r)?;
    }
    let read = |a: &mut CodeAssembler, field: Field| {
        a.mov(ecx, u32::from(field.0))?;
        a.vmread(rax, rcx)
    };
    read(a, EXIT_REASON)?;
    a.cmp(eax, Reason::EptViolation as u32)?;
    a.je(violation)?;
    // The handler's VMCALL.
    read(a, GUEST_RIP)?;
    a.cmp(eax, VE_HANDLER as u32)?;
    a.jne(done)?;
    a.add(rax, 3)?;
    a.vmwrite(rcx, rax)?;
    a.inc(qword_ptr(COUNT + 8))?;
    a.mov(rax, qword_ptr(AREA + 24))?;
    a.jmp(map)?;
    a.set_label(&mut violation)?;
    read(a, GUEST_PHYSICAL_ADDRESS)?;
    a.set_label(&mut map)?;
    a.and(rax, -4096)?;
    a.mov(rdx, rax)?;
    a.shr(rdx, 9)?;
    a.or(rax, ALL as i32)?;
    a.mov(qword_ptr(rdx + entry(0)), rax)?;
    a.inc(qword_ptr(COUNT))?;
    read(a, IDT_VECTORING_INFORMATION)?;
    a.test(eax, eax)?;
    a.jns(resume)?;
    for (from, to) in [
        (IDT_VECTORING_INFORMATION, ENTRY_INTERRUPTION_INFORMATION),
        (IDT_VECTORING_ERROR_CODE, ENTRY_EXCEPTION_ERROR_CODE),
        (EXIT_INSTRUCTION_LENGTH, ENTRY_INSTRUCTION_LENGTH),
    ] {
        read(a, from)?;
        a.mov(ecx, u32::from(to.0))?;
        a.vmwrite(rcx, rax)?;
    }
    a.set_label(&mut resume)?;
    for r in used.into_iter().rev() {
        a.pop(r)?;
    }
    a.vmresume()?;
    a.hlt()?;
    a.set_label(&mut done)?;
    for r in used.into_iter().rev() {
        a.pop(r)?;
    }
    a.hlt()
}

type Instruction = fn(&mut CodeAssembler) -> x86_bare::Result;

/// What may be interrupted by a violation.
const INSTRUCTIONS: &[(&str, Instruction)] = &[
    ("rep movsb", |a| a.rep().movsb()),
    ("rep movsq", |a| a.rep().movsq()),
    ("rep movsd, downwards", |a| {
        a.std()?;
        a.rep().movsd()
    }),
    ("rep stosw", |a| a.rep().stosw()),
    ("rep lodsb", |a| a.rep().lodsb()),
    ("repe cmpsb", |a| a.repe().cmpsb()),
    ("repne scasd", |a| a.repne().scasd()),
    ("movsq", |a| a.movsq()),
    ("mov", |a| a.mov(qword_ptr(rdi), rsi)),
    ("add", |a| a.add(qword_ptr(rdi), rsi)),
    ("xchg", |a| a.xchg(qword_ptr(rdi), rsi)),
    ("push of memory", |a| a.push(qword_ptr(rsi))),
    ("pop to memory", |a| a.pop(qword_ptr(rdi))),
    ("call through memory, and what it calls", |a| {
        let mut target = a.create_label();
        a.lea(rax, ptr(target))?;
        a.mov(qword_ptr(rdi), rax)?;
        a.call(qword_ptr(rdi))?;
        a.set_label(&mut target)?;
        a.nop()
    }),
    ("enter", |a| a.enter(64, 3)),
    ("fxsave", |a| {
        a.and(rdi, -16)?;
        a.fxsave(ptr(rdi))
    }),
    ("vmovups", |a| {
        a.vmovups(ymm3, ymmword_ptr(rsi))?;
        a.vmovups(ymmword_ptr(rdi), ymm3)
    }),
    ("vpgatherdd", |a| {
        a.vpcmpeqd(ymm2, ymm2, ymm2)?;
        // vpgatherdd ymm1, [rbx+ymm0], ymm2
        a.db(&[0xc4, 0xe2, 0x6d, 0x90, 0x0c, 0x03])
    }),
    ("vgatherqpd", |a| {
        a.vpcmpeqd(ymm2, ymm2, ymm2)?;
        // vgatherqpd ymm1, [rbx+ymm4], ymm2
        a.db(&[0xc4, 0xe2, 0xed, 0x93, 0x0c, 0x23])
    }),
    ("int 80h", |a| a.int(0x80)),
    ("int3", |a| a.int3()),
    ("ud2", |a| a.ud2()),
    ("#PF", |a| a.mov(al, byte_ptr(0x7fff_ffff_0000u64))),
    ("#GP", |a| {
        a.mov(rax, 1u64 << 63)?;
        a.mov(al, byte_ptr(rax))
    }),
    ("iretq", |a| {
        let mut target = a.create_label();
        a.lea(rax, ptr(target))?;
        for word in [KERNEL_SS as i32, DATA as i32 + 0x880, 0x2, KERNEL_CS as i32] {
            a.push(word)?;
        }
        a.push(rax)?;
        a.iretq()?;
        a.set_label(&mut target)?;
        a.nop()
    }),
    ("retf", |a| {
        let mut target = a.create_label();
        a.lea(rax, ptr(target))?;
        a.push(KERNEL_CS as i32)?;
        a.push(rax)?;
        a.db(&[0x48, 0xcb])?;
        a.set_label(&mut target)?;
        a.nop()
    }),
    ("mov to ds", |a| {
        a.mov(eax, KERNEL_SS as u32)?;
        a.mov(ds, eax)
    }),
    ("sgdt, lgdt", |a| {
        a.sgdt(ptr(rdi))?;
        a.lgdt(ptr(rdi))
    }),
];

/// Registers that a case begins with.
#[derive(Clone, Copy, Debug)]
struct Begin {
    rsi: u64,
    rdi: u64,
    rcx: u64,
    /// Of the gathers, within the pages.
    indices: [u32; 8],
    /// How far from its page's end the stack begins.
    stack: u64,
}

fn begin() -> impl Strategy<Value = Begin> {
    let at =
        || (0..PAGES - 2, prop_oneof![0u64..0x1000, 0xff0u64..0x1000]).prop_map(|(p, o)| DATA + 0x1000 * (p + 1) + o);
    let indices = prop::array::uniform8(0u32..(PAGES as u32 - 1) << 12);
    (at(), at(), 0u64..0xa00, indices, 0u64..0x60).prop_map(|(source, destination, count, indices, stack)| Begin {
        rsi: source,
        rdi: destination,
        rcx: count,
        indices,
        stack,
    })
}

/// The end of a guest: its registers, what its VMCS says, and its memory; and what the host has counted.
fn end(instruction: Instruction, from: Begin, absent: u32, has_ve: bool) -> (Vec<u64>, (u64, u64)) {
    let vmcs_of = |v: &mut Vmcs| {
        if has_ve {
            on(v, secondary::EPT_VIOLATION_VE);
            v[VIRTUALIZATION_EXCEPTION_INFORMATION_ADDRESS] = AREA;
        }
        v[GUEST_CR4] |= x86::control::cr4::OSFXSR | x86::control::cr4::OSXSAVE;
        (v[GUEST_GDTR_BASE], v[GUEST_IDTR_BASE]) = (GUEST_GDT, GUEST_IDT);
        v[GUEST_RSP] = GUEST_STACK + 8 * from.stack;
    };
    let prepare = |bare: &mut Bare| {
        for i in 0..PAGES * 512 {
            // Runs of what is alike, for comparisons.
            bare.put(
                DATA + 8 * i,
                if i % 400 < 300 { 0x4141_4141_4141_4141 } else { i.wrapping_mul(0x9e37_79b9_7f4a_7c15) },
            );
        }
        bare.gate(20, 0, 1);
        bare.handler(20, &|a| {
            a.vmcall()?;
            a.mov(dword_ptr(AREA + 4), 0)?;
            a.iretq()
        });
        for at in (0..=u64::from(GDT_LIMIT)).step_by(8) {
            bare.put(GUEST_GDT + at, bare.get(GDT + at));
        }
        for at in (0..0x1000).step_by(8) {
            bare.put(GUEST_IDT + at, bare.get(IDT + at));
        }
        // The guest's pages of data are supervisor's, for nothing else changes there.
        for i in 0..ABSENT {
            bare.put(PT + page(i) / 512, page(i) | 0x63);
        }
        let bytes = assemble(64, HOST, &host);
        bare.machine.world.ram.write(HOST, &bytes).unwrap();
        // A handler's last HLT is the guest's end, too.
        for vector in [3, 6, 13, 14, 0x80] {
            bare.handler(vector, &|a| a.vmcall());
        }
        for i in (0..ABSENT).filter(|i| absent >> i & 1 != 0) {
            // The handler's own IRET needs tables: those are no cause of #VE.
            bare.put(entry(page(i)), if i < PAGES as usize { 0 } else { 1 << 63 });
        }
        for (r, value) in [(6, from.rsi), (7, from.rdi), (1, from.rcx), (3, DATA), (0, 0x4141_4141), (5, DATA + 0x2000)]
        {
            bare.set(r, value);
        }
        let p = bare.cpu();
        p.xcr0 = 7;
        for (i, index) in from.indices.iter().enumerate() {
            let at = NOTES + 4 * i as u64;
            bare.machine.world.ram.store(at, 4, (*index).into()).unwrap();
            bare.put(NOTES + 0x40 + 8 * (i as u64 % 4), (*index).into());
        }
    };
    let mut bare = run(vmcs_of, prepare, &|a| {
        a.vmovups(ymm0, ymmword_ptr(NOTES))?;
        a.vmovups(ymm4, ymmword_ptr(NOTES + 0x40))?;
        instruction(a)?;
        a.vmovups(ymmword_ptr(NOTES + 0x80), ymm1)?;
        a.vmovups(ymmword_ptr(NOTES + 0xa0), ymm2)?;
        a.vmcall()
    });
    let v = vmcs(&bare);
    assert_eq!(Reason::of(v[EXIT_REASON]), Some(Reason::Vmcall), "{v:#x?}");
    let count = (bare.get(COUNT), bare.get(COUNT + 8));
    let state: Vec<u64> = Field::all()
        .filter(|f| f.0 >> 10 & 3 == 2 && *f != PREEMPTION_TIMER_VALUE)
        .map(|f| v[f])
        .chain([v[EXIT_INSTRUCTION_LENGTH], v[ENTRY_INTERRUPTION_INFORMATION] >> 31])
        .collect();
    // The flags of the handler's VMCALL; CR2; registers but RSP, which is the host's.
    let registers: Vec<u64> = (0..16).filter(|r| *r != 4).map(|r| bare.reg(r)).collect();
    let memory: Vec<u64> =
        (0..ABSENT).flat_map(|i| (0..512).map(move |w| page(i) + 8 * w)).map(|at| bare.get(at)).collect();
    let notes: Vec<u64> = (0..8).map(|i| bare.get(NOTES + 0x80 + 8 * i)).collect();
    let fault = bare.cpu().cr2;
    (state.into_iter().chain(registers).chain(memory).chain(notes).chain([fault]).collect(), count)
}

/// How many are tried: `RESTART_CASES`, or a few.
fn cases() -> ProptestConfig {
    let cases = std::env::var("RESTART_CASES").ok().and_then(|s| s.parse().ok()).unwrap_or(40);
    ProptestConfig { cases, failure_persistence: None, ..ProptestConfig::default() }
}

proptest! {
    #![proptest_config(cases())]

    #[test]
    fn a_guest_goes_on_where_it_was(from in begin(), absent in prop_oneof![Just(u32::MAX), any::<u32>()], has_ve in any::<bool>()) {
        for (name, instruction) in INSTRUCTIONS {
            let (expected, none) = end(*instruction, from, 0, false);
            let (state, some) = end(*instruction, from, absent, has_ve);
            prop_assert_eq!(none, (0, 0));
            let differs = state.iter().zip(&expected).position(|(a, b)| a != b);
            prop_assert!(differs.is_none(), "{}: {:?} of {} with {:?} violations: {:#x?}", name, differs, state.len(), some,
                differs.map(|i| (state[i], expected[i])));
        }
    }
}

/// The test does what it says: there are violations, and in the delivery of events.
#[test]
fn there_are_violations() {
    let from = Begin {
        rsi: DATA + 0x1ff0,
        rdi: DATA + 0x2ff8,
        rcx: 0x900,
        indices: [0x10, 0x1010, 0x2010, 0x3010, 0x4010, 0x20, 0x1020, 0x2020],
        stack: 2,
    };
    let of = |name: &str, has_ve: bool| {
        let (_, instruction) = INSTRUCTIONS.iter().find(|(n, _)| *n == name).unwrap();
        end(*instruction, from, u32::MAX, has_ve).1
    };
    assert_eq!([of("rep movsb", false), of("vpgatherdd", false), of("vmovups", false)], [(3, 0), (5, 0), (3, 0)]);
    // With those of the delivery of #VE, of the gate and the descriptor.
    assert_eq!([of("rep movsb", true), of("vpgatherdd", true), of("vmovups", true)], [(5, 3), (7, 5), (5, 3)]);
    // The gate, the descriptor of its code, the two pages of the frame.
    assert_eq!([of("int 80h", false), of("ud2", true)], [(4, 0), (4, 0)]);
}
