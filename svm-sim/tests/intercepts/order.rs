//! What comes first: an exception, or the intercept ("Instruction Intercepts"). Both are intercepted, and the exit code says which it was.

use iced_x86::code_asm::*;
use svm_sim::exit::code::*;
use svm_sim::vmcb::{CR4, EXITCODE, IDTR_LIMIT, MSRPM_BASE_PA, RFLAGS};
use x86::control::{cr0, cr4, rflags};
use x86::segment::{Attributes, Segment};
use x86_bare::*;

use crate::base::{Base, IOPM, MSRPM, SECOND, on, read};
use crate::case::{Asm, Case, of};

const UD: u64 = EXCEPTION + 6;
const GP: u64 = EXCEPTION + 13;
const PF: u64 = EXCEPTION + 14;
const NON_CANONICAL: u64 = 1 << 63;
const HOLE: u64 = 0x9_0000;

/// An intercept, and the exception that comes before or behind it.
struct Order {
    first: u64,
    second: u64,
    case: Case,
}

/// The exception comes first.
const fn fault(exception: u64, intercept: u64, instruction: Asm) -> Order {
    Order { first: exception, second: intercept, case: of(intercept, instruction) }
}

/// The intercept comes first.
const fn taken(intercept: u64, exception: u64, instruction: Asm) -> Order {
    Order { first: intercept, second: exception, case: of(intercept, instruction) }
}

impl Order {
    const fn user(self) -> Order {
        Order { case: self.case.user(), ..self }
    }

    const fn before(self, before: Asm) -> Order {
        Order { case: self.case.before(before), ..self }
    }

    const fn vmcb(self, vmcb: fn(&mut svm_sim::vmcb::Vmcb)) -> Order {
        Order { case: self.case.vmcb(vmcb), ..self }
    }

    const fn prepare(self, prepare: fn(&mut Bare)) -> Order {
        Order { case: self.case.prepare(prepare), ..self }
    }

    const fn in_base(self, base: Base) -> Order {
        Order { case: self.case.in_base(base), ..self }
    }
}

fn hole(bare: &mut Bare) {
    bare.put(PT + HOLE / 512, 0);
}

fn all_ones(bare: &mut Bare) {
    for page in [IOPM, IOPM + 0x1000, IOPM + 0x2000, MSRPM, MSRPM + 0x1000] {
        bare.machine.world.ram.write(page, &[0xff; 0x1000]).unwrap();
    }
}

/// TR's task has no bitmap of ports.
fn no_bitmap(bare: &mut Bare) {
    all_ones(bare);
    bare.put(TSS + 0x60, 0x68 << 48);
    bare.cpu().tr = Segment { selector: TSS_SELECTOR as u16, base: TSS, limit: 0x67, attributes: Attributes(0x8b) };
}

/// There is no stack.
fn no_stack(a: &mut CodeAssembler) -> Result {
    a.mov(rsp, NON_CANONICAL)
}

fn misaligned(a: &mut CodeAssembler) -> Result {
    a.mov(eax, SECOND as u32 + 8)
}

fn beyond(a: &mut CodeAssembler) -> Result {
    a.mov(rax, 1u64 << 48)
}

#[rustfmt::skip]
const ALL: &[Order] = &[
    // "Check non-memory exceptions before the intercept."
    fault(GP, CR_WRITE, |a| a.mov(cr0, rax)).before(|a| a.mov(eax, cr0::PG as i32)),
    fault(GP, CR0_SELECTIVE_WRITE, |a| a.mov(cr0, rax)).before(|a| a.mov(eax, cr0::PG as i32)),
    fault(GP, CR_WRITE, |a| a.mov(cr0, rax)).before(|a| a.mov(rax, 1u64 << 32)),
    fault(GP, CR_WRITE + 3, |a| a.mov(cr3, rax)).before(|a| a.mov(rax, 1u64 << 52)),
    fault(GP, CR_WRITE_TRAP + 3, |a| a.mov(cr3, rax)).before(|a| a.mov(rax, 1u64 << 52)),
    fault(GP, CR_WRITE + 4, |a| a.mov(cr4, rax)).before(|a| a.mov(eax, cr4::VMXE as i32)),
    fault(GP, CR_WRITE + 4, |a| a.mov(cr4, rax)).before(|a| a.xor(eax, eax)),
    fault(GP, CR_WRITE + 8, |a| a.mov(cr8, rax)).before(|a| a.mov(eax, 16)),
    fault(GP, CR_WRITE, |a| a.mov(cr0, rax)).user(),
    fault(GP, CR_READ, |a| a.mov(rax, cr0)).user(),
    fault(GP, CR_READ + 8, |a| a.mov(rax, cr8)).user(),
    fault(GP, CR_WRITE, |a| a.clts()).user(),
    fault(GP, CR_WRITE, |a| a.lmsw(ax)).user(),
    fault(GP, CR_READ, |a| a.smsw(eax)).user().vmcb(|v| on(v, CR4, cr4::UMIP)),
    taken(CR_READ, PF, |a| a.smsw(word_ptr(HOLE))).prepare(hole),
    fault(UD, CR_READ + 1, |a| a.db(&[0x0f, 0x20, 0xc8])),
    fault(GP, DR_WRITE + 7, |a| a.mov(dr7, rax)).before(|a| a.mov(rax, 1u64 << 32)),
    fault(GP, DR_READ, |a| a.mov(rax, dr0)).user(),
    fault(UD, DR_READ + 4, |a| a.mov(rax, dr4)).vmcb(|v| on(v, CR4, cr4::DE)),
    fault(EXCEPTION + 1, DR_READ, |a| a.mov(rax, dr0)).vmcb(|v| on(v, svm_sim::vmcb::DR7, 1 << 13)),
    // "Checked after exceptions that are not of memory": before any access.
    fault(GP, GDTR_WRITE, |a| a.lgdt(ptr(USER))).user(),
    fault(GP, IDTR_READ, |a| a.sidt(ptr(USER))).user().vmcb(|v| on(v, CR4, cr4::UMIP)),
    fault(GP, LDTR_WRITE, |a| a.lldt(ax)).user(),
    fault(GP, TR_WRITE, |a| a.ltr(ax)).user(),
    fault(GP, TR_READ, |a| a.str(eax)).user().vmcb(|v| on(v, CR4, cr4::UMIP)),
    fault(UD, TR_READ, |a| a.str(eax)).in_base(Base::Real),
    taken(GDTR_WRITE, PF, |a| a.lgdt(ptr(HOLE))).prepare(hole),
    taken(GDTR_READ, PF, |a| a.sgdt(ptr(HOLE))).prepare(hole),
    taken(LDTR_WRITE, GP, |a| a.lldt(ax)).before(|a| a.mov(eax, 0x1238)),
    taken(TR_WRITE, GP, |a| a.ltr(ax)).before(|a| a.mov(eax, 0x1238)),
    // "Check all exceptions before the SVM intercept."
    fault(GP, RDTSC, |a| a.rdtsc()).user().vmcb(|v| on(v, CR4, cr4::TSD)),
    fault(GP, RDTSCP, |a| a.rdtscp()).user().vmcb(|v| on(v, CR4, cr4::TSD)),
    fault(GP, RDPMC, |a| a.rdpmc()).user(),
    fault(GP, RDPMC, |a| a.rdpmc()).before(|a| a.mov(ecx, 0x1000)),
    fault(UD, RDPRU, |a| a.rdpru()).user().vmcb(|v| on(v, CR4, cr4::TSD)),
    // "The intercept takes priority over any exceptions."
    taken(PUSHF, EXCEPTION + 12, |a| a.pushfq()).before(no_stack),
    taken(POPF, EXCEPTION + 12, |a| a.popfq()).before(no_stack),
    taken(IRET, EXCEPTION + 12, |a| a.iretq()).before(no_stack),
    taken(PUSHF, GP, |a| a.pushf()).in_base(Base::V8086).vmcb(|v| v.set(RFLAGS, 2 | rflags::VM)),
    taken(POPF, GP, |a| a.popf()).in_base(Base::V8086).vmcb(|v| v.set(RFLAGS, 2 | rflags::VM)),
    taken(IRET, GP, |a| a.iret()).in_base(Base::V8086).vmcb(|v| v.set(RFLAGS, 2 | rflags::VM)),
    taken(RSM, UD, |a| a.rsm()),
    taken(RSM, UD, |a| a.rsm()).user(),
    taken(INTN, GP, |a| a.int(0x80)).vmcb(|v| v.set(IDTR_LIMIT, 0)),
    taken(INTN, GP, |a| a.int(0x20)).user(),
    taken(INTN, GP, |a| a.int(0x20)).in_base(Base::V8086).vmcb(|v| v.set(RFLAGS, 2 | rflags::VM)),
    taken(ICEBP, GP, |a| a.int1()).vmcb(|v| v.set(IDTR_LIMIT, 0)),
    taken(VMMCALL, UD, |a| a.vmmcall()).user(),
    taken(VMMCALL, UD, |a| a.vmmcall()).in_base(Base::Real),
    // "Exceptions (#GP) are checked before the intercept."
    fault(GP, INVD, |a| a.invd()).user(),
    fault(GP, WBINVD, |a| a.wbinvd()).user(),
    fault(GP, HLT, |a| a.hlt()).user(),
    fault(GP, IDLE_HLT, |a| a.hlt()).user(),
    fault(GP, INVLPG, |a| a.invlpg(ptr(rax))).user(),
    fault(GP, INVLPGA, |a| a.invlpga()).user(),
    fault(GP, VMRUN, |a| a.vmrun()).user(),
    fault(GP, VMLOAD, |a| a.vmload()).user(),
    fault(GP, VMSAVE, |a| a.vmsave()).user(),
    fault(GP, STGI, |a| a.stgi()).user(),
    fault(GP, CLGI, |a| a.clgi()).user(),
    fault(GP, VMRUN, |a| a.vmrun()).before(misaligned),
    fault(GP, VMLOAD, |a| a.vmload()).before(misaligned),
    fault(GP, VMSAVE, |a| a.vmsave()).before(misaligned),
    fault(GP, VMRUN, |a| a.vmrun()).before(beyond),
    fault(UD, VMRUN, |a| a.vmrun()).in_base(Base::Real),
    fault(UD, VMLOAD, |a| a.vmload()).in_base(Base::V8086),
    fault(UD, STGI, |a| a.stgi()).in_base(Base::Real),
    fault(UD, INVLPGA, |a| a.db(&[0x0f, 0x01, 0xdf])).in_base(Base::Real),
    fault(UD, MONITOR, |a| a.monitor()).user(),
    fault(GP, MONITOR, |a| a.monitor()).before(|a| a.mov(ecx, 1)),
    fault(UD, MWAIT, |a| a.mwait()).user(),
    fault(GP, MWAIT, |a| a.mwait()).before(|a| a.mov(ecx, 2)),
    fault(UD, XSETBV, |a| a.xsetbv()),
    fault(GP, XSETBV, |a| a.xsetbv()).user().vmcb(|v| on(v, CR4, cr4::OSXSAVE)),
    taken(XSETBV, GP, |a| a.xsetbv()).vmcb(|v| on(v, CR4, cr4::OSXSAVE)).before(|a| a.mov(ecx, 1)),
    fault(GP, INVPCID, |a| a.invpcid(rax, ptr(USER))).user(),
    // "MSR Intercepts": the privilege level comes first; what MSRs there are does not count.
    fault(GP, MSR, |a| a.rdmsr()).user().prepare(all_ones),
    taken(MSR, GP, |a| a.rdmsr()).before(|a| a.mov(ecx, 0x1fff)).prepare(all_ones),
    taken(MSR, GP, |a| a.wrmsr()).before(|a| a.mov(ecx, 0x1234_5678)).vmcb(|v| v.set(MSRPM_BASE_PA, MSRPM)),
    // "IOIO Intercepts": the TSS and its bitmap come first.
    fault(GP, IOIO, |a| a.in_(al, 0x80)).user().prepare(no_bitmap),
    fault(GP, IOIO, |a| a.in_(al, 0x80)).in_base(Base::V8086).prepare(no_bitmap),
    taken(IOIO, PF, |a| a.insb()).before(|a| a.mov(rdi, HOLE)).prepare(|bare| {
        hole(bare);
        all_ones(bare);
    }),
    // "Exception Intercepts": before the exception is delivered.
    taken(UD, GP, |a| a.ud2()).vmcb(|v| v.set(IDTR_LIMIT, 0)),
    taken(EXCEPTION + 3, GP, |a| a.int3()).vmcb(|v| v.set(IDTR_LIMIT, 0)),
];

#[test]
fn what_comes_first() {
    let wrong: Vec<_> = ALL
        .iter()
        .enumerate()
        .filter_map(|(i, o)| {
            let (mut bare, ..) = o.case.machine(&[o.first, o.second]);
            bare.machine.run(1000);
            let found = read(&bare, EXITCODE);
            (found != o.first).then(|| format!("{i}: {}, not {} of {}", name(found), name(o.first), name(o.second)))
        })
        .collect();
    assert!(wrong.is_empty(), "{wrong:#?}");
}

/// Each would be taken the other way, if the first were not intercepted: the pair is one of two that are due.
#[test]
fn the_second_is_due_too() {
    let wrong: Vec<_> = ALL
        .iter()
        .enumerate()
        .filter_map(|(i, o)| {
            let is_exception = |code| (EXCEPTION..EXCEPTION + 32).contains(&code);
            // VMMCALL is how guests end here.
            if !is_exception(o.second) || o.first == VMMCALL {
                return None;
            }
            let (mut bare, ..) = o.case.machine(&[o.second]);
            bare.machine.run(1000);
            let found = read(&bare, EXITCODE);
            (found != o.second)
                .then(|| format!("{i}: {}, not {} behind {}", name(found), name(o.second), name(o.first)))
        })
        .collect();
    assert!(wrong.is_empty(), "{wrong:#?}");
}

/// Without "nested VMCB address check" the intercept comes before the address is looked at.
#[test]
fn a_misaligned_address_without_the_check() {
    let mut v = Base::Long.vmcb();
    crate::base::intercept(&mut v, VMLOAD);
    let mut bare = crate::base::machine("amd,-svme_addr_chk", &v);
    bare.assemble(crate::base::GUEST, &|a| {
        misaligned(a)?;
        a.vmload()
    });
    bare.machine.run(1000);
    assert_eq!(read(&bare, EXITCODE), VMLOAD);
}

/// INT n dispatches through vectors of exceptions, too: their intercepts are not for it.
#[test]
fn a_software_interrupt_is_no_exception() {
    let case = of(PF, |a| a.int(14));
    let (mut bare, ..) = case.machine(&[PF]);
    bare.machine.run(1000);
    assert_ne!(read(&bare, EXITCODE), PF);
    assert_eq!(bare.load(x86_bare::FOUND, 8), 14, "its handler has been called");
}
