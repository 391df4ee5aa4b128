//! "Exception Intercepts": word 2. Faults have no nRIP; INT3, INTO and BOUND have.

use iced_x86::code_asm::*;
use svm_sim::exit::code::*;
use svm_sim::vmcb::{CR0, CR4, RFLAGS, S_CET, SSP};
use x86::control::{cr0, cr4, rflags};
use x86::segment::{Attributes, Segment};
use x86_bare::*;

use crate::base::{Base, GUEST, on};
use crate::case::{Case, of};

const DE: u64 = EXCEPTION;
const DB: u64 = EXCEPTION + 1;
const BP: u64 = EXCEPTION + 3;
const OF: u64 = EXCEPTION + 4;
const BR: u64 = EXCEPTION + 5;
const UD: u64 = EXCEPTION + 6;
const NM: u64 = EXCEPTION + 7;
const DF: u64 = EXCEPTION + 8;
const TS: u64 = EXCEPTION + 10;
const NP: u64 = EXCEPTION + 11;
const SS: u64 = EXCEPTION + 12;
const GP: u64 = EXCEPTION + 13;
const PF: u64 = EXCEPTION + 14;
const MF: u64 = EXCEPTION + 16;
const AC: u64 = EXCEPTION + 17;
const XF: u64 = EXCEPTION + 19;
const CP: u64 = EXCEPTION + 21;

/// A page that nobody maps, and the entry for it.
const HOLE: u64 = 0x9_0000;
const DATA: u64 = 0x6_0000;
/// A page of a shadow stack.
const SHADOW: u64 = 0x6_1000;

/// A fault: nRIP is 0.
const fn fault(code: u64, instruction: crate::case::Asm) -> Case {
    of(code, instruction).without_next()
}

fn hole(bare: &mut Bare) {
    bare.put(PT + HOLE / 512, 0);
}

/// An #UD whose gate is not there, and neither is that of the #NP.
fn no_gates(bare: &mut Bare) {
    bare.no_gate(6);
    bare.no_gate(13);
    bare.no_gate(11);
}

/// A descriptor of data that is not present, at selector 40H.
fn bad_descriptors(bare: &mut Bare) {
    bare.put(GDT + 0x40, 0x00cf_1300_0000_ffff);
}

#[rustfmt::skip]
pub const ALL: &[Case] = &[
    fault(DE, |a| a.div(ecx)).before(|a| a.xor(ecx, ecx)),
    // A trap: the instruction is done.
    of(DB, |a| a.nop()).vmcb(|v| on(v, RFLAGS, rflags::TF)).behind(),
    // A fault: an instruction breakpoint.
    fault(DB, |a| a.nop()).vmcb(|v| {
        v.set(svm_sim::vmcb::DR7, 0x402);
    }).prepare(|bare| bare.cpu().dr[0] = GUEST),
    of(BP, |a| a.int3()),
    of(OF, |a| a.into()).in_base(Base::Protected).before(|a| {
        a.mov(al, 0x7f)?;
        a.inc(al)
    }),
    of(BR, |a| a.bound(ecx, ptr(DATA))).in_base(Base::Protected).before(|a| a.mov(ecx, 1)),
    fault(UD, |a| a.ud2()),
    fault(NM, |a| a.fnop()).vmcb(|v| on(v, CR0, cr0::TS)),
    fault(DF, |a| a.ud2()).prepare(no_gates),
    // IRET of a nested task: the back link is no TSS's.
    fault(TS, |a| a.iretd()).vmcb(|v| {
        on(v, RFLAGS, rflags::NT);
    }).in_base(Base::Protected).prepare(|bare| {
        bare.cpu().tr = Segment { selector: TSS_SELECTOR as u16, base: TSS, limit: 0x67, attributes: Attributes(0x8b) };
        bare.put(TSS, KERNEL_SS);
    }).info(KERNEL_SS, 0),
    fault(NP, |a| a.mov(ds, ax)).before(|a| a.mov(eax, 0x40)).prepare(bad_descriptors).info(0x40, 0),
    fault(SS, |a| a.mov(ss, ax)).before(|a| a.mov(eax, 0x40)).prepare(bad_descriptors).info(0x40, 0),
    fault(SS, |a| a.mov(rax, ptr(rsp))).before(|a| a.mov(rsp, 1u64 << 63)),
    fault(GP, |a| a.mov(rax, ptr(rbx))).before(|a| a.mov(rbx, 1u64 << 63)),
    fault(GP, |a| a.mov(ds, ax)).before(|a| a.mov(eax, 0x1238)).info(0x1238, 0),
    fault(PF, |a| a.mov(qword_ptr(HOLE + 8), rax)).prepare(hole).info(2, HOLE + 8).with_bytes(),
    fault(PF, |a| a.mov(rax, qword_ptr(HOLE + 8))).prepare(hole).info(0, HOLE + 8).with_bytes(),
    fault(MF, |a| a.fldz()).before(|a| {
        a.fninit()?;
        a.mov(word_ptr(DATA), 0x37e)?;
        a.fldcw(ptr(DATA))?;
        a.fchs()
    }),
    fault(AC, |a| a.mov(eax, ptr(USER + 0x101))).user().vmcb(|v| {
        on(v, CR0, cr0::AM);
        on(v, RFLAGS, rflags::AC);
    }),
    fault(XF, |a| a.divps(xmm0, xmm1)).vmcb(|v| on(v, CR4, cr4::OSFXSR | cr4::OSXMMEXCPT)).before(|a| {
        a.mov(dword_ptr(DATA), 0)?;
        a.ldmxcsr(ptr(DATA))?;
        a.mov(eax, 0x3f80_0000)?;
        a.movd(xmm0, eax)?;
        a.pxor(xmm1, xmm1)
    }),
    // A return address that the shadow stack does not have.
    fault(CP, |a| a.ret()).vmcb(|v| {
        on(v, CR4, cr4::CET);
        v.set(S_CET, 1);
        v.set(SSP, SHADOW);
    }).before(|a| a.push(1)).prepare(|bare| bare.put(PT + SHADOW / 512, SHADOW | 0x41)).info(1, 0),
];

/// What the exceptions' own registers hold: those of an intercepted #PF are the guest's from before.
#[test]
fn an_intercepted_page_fault_leaves_cr2() {
    let case = fault(PF, |a| a.mov(rax, qword_ptr(HOLE))).prepare(hole).vmcb(|v| v.set(svm_sim::vmcb::CR2, 0x1234));
    let (mut bare, ..) = case.machine(&[PF]);
    bare.machine.run(1000);
    assert_eq!(crate::base::read(&bare, svm_sim::vmcb::EXITCODE), PF);
    assert_eq!(crate::base::read(&bare, svm_sim::vmcb::CR2), 0x1234);
}

/// "The value saved for DR6 and DR7 matches what would be visible to a #DB exception handler."
#[test]
fn an_intercepted_debug_exception_has_written_dr6() {
    let case = of(DB, |a| a.nop()).vmcb(|v| on(v, RFLAGS, rflags::TF));
    let (mut bare, ..) = case.machine(&[DB]);
    bare.machine.run(1000);
    assert_eq!(crate::base::read(&bare, svm_sim::vmcb::DR6), 0xffff_4ff0);
}

/// Instruction bytes are those at RIP, from the first.
#[test]
fn a_page_fault_tells_the_instructions_bytes() {
    use svm_sim::vmcb::{FETCHED_BYTES, GUEST_INSTRUCTION_BYTES_LOW};
    let case = fault(PF, |a| a.mov(rax, qword_ptr(HOLE))).prepare(hole);
    let (mut bare, at, _) = case.machine(&[PF]);
    bare.machine.run(1000);
    assert_eq!(crate::base::read(&bare, FETCHED_BYTES), 15);
    assert_eq!(bare.load(crate::base::VMCB + u64::from(GUEST_INSTRUCTION_BYTES_LOW.offset), 8), bare.get(at));
}
