//! Instructions: intercept words 3 to 5, without events.

use iced_x86::code_asm::*;
use svm_sim::exit::code::*;
use svm_sim::vmcb::{CR0, CR4, NESTED_CONTROL, Vmcb, nested};
use x86::control::{cr0, cr4};
use x86_bare::*;

use crate::base::{Base, IOPM, MSRPM, SECOND, on};
use crate::case::{Case, of};

/// A page of its own.
const DATA: u64 = 0x6_0000;

fn fill(bare: &mut Bare, map: u64, pages: u64) {
    bare.machine.world.ram.write(map, &vec![0xff; 0x1000 * pages as usize]).unwrap();
}

fn all_ports(bare: &mut Bare) {
    fill(bare, IOPM, 3);
}

fn all_msrs(bare: &mut Bare) {
    fill(bare, MSRPM, 2);
}

/// RAX is a VMCB's address.
fn vmcb(a: &mut CodeAssembler) -> Result {
    a.mov(eax, SECOND as u32)
}

/// The guest has INVLPGB and TLBSYNC.
fn broadcasts(v: &mut Vmcb) {
    on(v, NESTED_CONTROL, nested::INVLPGB_ENABLE);
}

/// Operands of INVLPGB, with some ECX.
fn all_pages(a: &mut CodeAssembler, count: u32) -> Result {
    a.xor(eax, eax)?;
    a.mov(ecx, count)?;
    a.xor(edx, edx)
}

fn monitor(a: &mut CodeAssembler) -> Result {
    a.mov(eax, DATA as u32)?;
    a.xor(ecx, ecx)?;
    a.xor(edx, edx)
}

fn armed(a: &mut CodeAssembler) -> Result {
    monitor(a)?;
    a.monitor()?;
    a.xor(eax, eax)
}

/// EXITINFO1 of the intercept of I/O: the port, size in bytes, address size in bytes.
const fn io(port: u64, size: u64, address: u64) -> u64 {
    port << 16 | size << 4 | address << 6
}
const IN: u64 = 1;
const STR: u64 = 1 << 2;
const REP: u64 = 1 << 3;

#[rustfmt::skip]
pub const ALL: &[Case] = &[
    of(IDTR_READ, |a| a.sidt(ptr(DATA))),
    of(GDTR_READ, |a| a.sgdt(ptr(DATA))),
    of(LDTR_READ, |a| a.sldt(eax)),
    of(TR_READ, |a| a.str(eax)),
    of(IDTR_WRITE, |a| a.lidt(ptr(DATA))),
    of(GDTR_WRITE, |a| a.lgdt(ptr(DATA))),
    of(LDTR_WRITE, |a| a.lldt(ax)).before(|a| a.xor(eax, eax)),
    of(TR_WRITE, |a| a.ltr(ax)).before(|a| a.mov(eax, TSS_SELECTOR as u32)),
    of(RDTSC, |a| a.rdtsc()),
    of(RDPMC, |a| a.rdpmc()).before(|a| a.xor(ecx, ecx)),
    of(PUSHF, |a| a.pushfq()),
    of(POPF, |a| a.popfq()),
    of(CPUID, |a| a.cpuid()),
    of(RSM, |a| a.rsm()),
    of(IRET, |a| a.iretq()),
    of(INTN, |a| a.int(0x80)).info(0x80, 0),
    of(INTN, |a| a.int(14)).info(14, 0),
    of(INTN, |a| a.int(3)).info(3, 0),
    of(INVD, |a| a.invd()),
    of(PAUSE, |a| a.pause()),
    of(HLT, |a| a.hlt()),
    of(INVLPG, |a| a.invlpg(ptr(rbx + 8))).before(|a| a.mov(rbx, 0x1234_5678_0000u64)).info(0x1234_5678_0008, 0),
    of(INVLPG, |a| a.invlpg(ptr(ebx).fs())).in_base(Base::Protected).before(|a| a.mov(ebx, 0x7000)).info(0x7000, 0),
    of(INVLPGA, |a| a.invlpga()).before(|a| a.mov(rax, 0x12_3456u64)).info(0x12_3456, 0),
    of(IOIO, |a| a.in_(al, dx)).before(|a| a.mov(edx, 0x3f8)).prepare(all_ports).info(IN | io(0x3f8, 1, 8), 0),
    of(IOIO, |a| a.in_(ax, 0x71)).prepare(all_ports).info(IN | io(0x71, 2, 8), 0),
    of(IOIO, |a| a.out(dx, eax)).before(|a| a.mov(edx, 0xcf8)).prepare(all_ports).info(io(0xcf8, 4, 8), 0),
    of(IOIO, |a| a.out(0x80, al)).in_base(Base::Protected).prepare(all_ports).info(io(0x80, 1, 4), 0),
    of(IOIO, |a| a.out(0x80, al)).in_base(Base::Real).prepare(all_ports).info(io(0x80, 1, 2), 0),
    of(IOIO, |a| a.insb()).before(|a| a.mov(edx, 0x60)).prepare(all_ports).info(IN | STR | io(0x60, 1, 8), 0),
    of(IOIO, |a| a.rep().insd()).before(|a| {
        a.mov(edx, 0x60)?;
        a.mov(ecx, 2)
    }).prepare(all_ports).info(IN | STR | REP | io(0x60, 4, 8), 0),
    // Of OUTS the effective segment is told: DS is 3.
    of(IOIO, |a| a.outsw()).before(|a| a.mov(edx, 0x60)).prepare(all_ports).info(STR | io(0x60, 2, 8) | 3 << 10, 0),
    of(IOIO, |a| a.db(&[0x64, 0x67, 0x6e])).before(|a| a.mov(edx, 0x60)).prepare(all_ports).info(STR | io(0x60, 1, 4) | 4 << 10, 0),
    of(IOIO, |a| a.db(&[0x26, 0x6e])).in_base(Base::Protected).before(|a| a.mov(edx, 0x60)).prepare(all_ports).info(STR | io(0x60, 1, 4), 0),
    of(MSR, |a| a.rdmsr()).before(|a| a.mov(ecx, 0x10)).prepare(all_msrs),
    of(MSR, |a| a.wrmsr()).before(|a| a.mov(ecx, 0xc000_0081u32)).prepare(all_msrs).info(1, 0),
    of(VMRUN, |a| a.vmrun()).before(vmcb),
    of(VMMCALL, |a| a.vmmcall()),
    of(VMLOAD, |a| a.vmload()).before(vmcb),
    of(VMSAVE, |a| a.vmsave()).before(vmcb),
    of(STGI, |a| a.stgi()),
    of(CLGI, |a| a.clgi()),
    of(RDTSCP, |a| a.rdtscp()),
    of(ICEBP, |a| a.int1()),
    of(WBINVD, |a| a.wbinvd()),
    of(WBINVD, |a| a.wbnoinvd()),
    of(MONITOR, |a| a.monitor()).before(monitor),
    of(MONITOR, |a| a.monitorx()).before(monitor),
    of(MWAIT, |a| a.mwait()).before(|a| a.xor(ecx, ecx)),
    of(MWAIT, |a| a.mwaitx()).before(|a| a.xor(ecx, ecx)),
    of(MWAIT_CONDITIONAL, |a| a.mwait()).before(armed),
    of(XSETBV, |a| a.xsetbv()).vmcb(|v| on(v, CR4, cr4::OSXSAVE)).before(|a| {
        a.xor(ecx, ecx)?;
        a.xgetbv()
    }),
    of(RDPRU, |a| a.rdpru()).before(|a| a.xor(ecx, ecx)),
    of(INVPCID, |a| a.invpcid(rax, ptr(DATA))).before(|a| a.mov(eax, 2)),
    of(INVLPGB, |a| a.invlpgb()).vmcb(broadcasts).before(|a| all_pages(a, 0)),
    of(INVLPGB_ILLEGAL, |a| a.invlpgb()).vmcb(broadcasts).before(|a| all_pages(a, 1 << 16)),
    of(TLBSYNC, |a| a.tlbsync()).vmcb(broadcasts),
    of(BUS_LOCK, |a| a.lock().inc(dword_ptr(DATA + 62))).without_next(),
    of(IDLE_HLT, |a| a.hlt()),
    of(FERR_FREEZE, |a| a.fldz()).without_next().vmcb(|v| v.set(CR0, v.get(CR0) & !cr0::NE)).before(|a| {
        // An exception that is not masked waits.
        a.fninit()?;
        a.mov(word_ptr(DATA), 0x37e)?;
        a.fldcw(ptr(DATA))?;
        a.fchs()
    }),
];
