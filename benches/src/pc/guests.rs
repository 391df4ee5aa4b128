//! The bare guests: each does one thing, many times, and ends.

use iced_x86::code_asm::*;
use svm_sim::exit::code;

use super::image::{PML4, handler, image};
use super::svm::Around;
use super::{svm, vmx};
use crate::emulators::Vendor;
use crate::report::{Peer, Target};

/// A guest, and how much it does.
pub struct Guest {
    /// Its row in the table.
    pub name: &'static str,
    /// What is done `work` times.
    pub unit: &'static str,
    /// Units of work.
    pub work: f64,
    /// What the row should come to.
    pub targets: &'static [Target],
    /// On whose processor it runs.
    pub vendor: Vendor,
    /// Its code.
    pub code: fn(&mut CodeAssembler, CodeLabel, CodeLabel) -> Result<(), IcedError>,
}

impl Guest {
    /// Its Multiboot image.
    pub fn image(&self) -> Vec<u8> {
        image(self.code)
    }
}

const fn of(peer: Peer, times: f64) -> Target {
    Target { peer, times }
}

/// As fast as both.
const SAME: &[Target] = &[of(Peer::QemuPc, 1.0), of(Peer::Bochs, 1.0)];
const TRAP: &[Target] = &[of(Peer::QemuPc, 1.5), of(Peer::Bochs, 1.5)];
const TRIP: &[Target] = &[of(Peer::Bochs, 8.0)];
const RUN: &[Target] = &[of(Peer::QemuPc, 8.0), of(Peer::Bochs, 8.0)];
const IN_GUEST: &[Target] = &[of(Peer::Alone, 0.95), of(Peer::Bochs, 2.0)];
const SWITCH: &[Target] = &[of(Peer::QemuPc, 10.0), of(Peer::Bochs, 10.0)];

const fn guest(
    name: &'static str,
    unit: &'static str,
    work: u64,
    targets: &'static [Target],
    code: fn(&mut CodeAssembler, CodeLabel, CodeLabel) -> Result<(), IcedError>,
) -> Guest {
    Guest { name, unit, work: work as f64, targets, vendor: Vendor::Intel, code }
}

/// A guest of an AMD processor, which goes into guests of its own.
const fn svm(name: &'static str, code: fn(&mut CodeAssembler, CodeLabel, CodeLabel) -> Result<(), IcedError>) -> Guest {
    Guest { vendor: Vendor::Amd, ..guest(name, "round trips/s", TRIPS, RUN, code) }
}

const ROUNDS: u64 = 120_000_000;
const STEPS: u64 = 8_000_000;
const WORDS: u64 = 16 << 20;
/// How often they are copied.
const COPIES: u64 = 10;
const TRAPS: u64 = 4_000_000;
const TRIPS: u64 = 1_000_000;
/// Data begins here, at 16 MiB.
const DATA: u64 = 16 << 20;
/// From one buffer to the other: far apart by any power of two, or by one.
const APART: u64 = (136 << 20) + (37 << 12);
const ALIASED: u64 = 128 << 20;
/// The nodes of the chase: 64 MiB of lines of 64 bytes.
const NODES: u64 = 1 << 20;

/// The loop that guests run as well.
pub const INTEGER: Guest =
    guest("integer", "instructions/s", ROUNDS * 12, &[of(Peer::QemuPc, 0.28), of(Peer::Bochs, 2.0)], integer);

/// In the order of the table.
pub const ALL: &[Guest] = &[
    INTEGER,
    guest("pointer chase, 64 MiB", "loads/s", STEPS, SAME, chase),
    guest("copy loop of 8-byte words", "words/s", COPIES * WORDS, SAME, |a, d, _| copy(a, d, APART)),
    guest("the same, buffers 128 MiB apart", "words/s", COPIES * WORDS, SAME, |a, d, _| copy(a, d, ALIASED)),
    guest("rep movsq, 512 MiB", "bytes/s", 512 << 20, SAME, |a, d, _| rep(a, d, APART, true)),
    guest("the same, buffers 128 MiB apart ", "bytes/s", 512 << 20, SAME, |a, d, _| rep(a, d, ALIASED, true)),
    guest("rep movsb, 512 MiB", "bytes/s", 512 << 20, SAME, |a, d, _| rep(a, d, APART, false)),
    guest("#UD and IRETQ", "round trips/s", TRAPS, TRAP, undefined),
    guest("#PF and IRETQ", "round trips/s", TRAPS, TRAP, |a, d, f| page_fault(a, d, f, TRAPS, false)),
    guest("#PF, map, INVLPG", "round trips/s", TRAPS / 4, TRAP, |a, d, f| page_fault(a, d, f, TRAPS / 4, true)),
    guest("MOV to CR3", "writes/s", TRAPS, SWITCH, |a, d, _| {
        repeated(a, d, TRAPS, |a| {
            a.mov(rax, cr3)?;
            a.mov(cr3, rax)
        })
    }),
    guest("CPUID", "instructions/s", 4 * TRAPS, &[], |a, d, _| {
        repeated(a, d, 4 * TRAPS, |a| {
            a.xor(eax, eax)?;
            a.xor(ecx, ecx)?;
            a.cpuid()
        })
    }),
    guest("VMRESUME and VMCALL", "round trips/s", TRIPS, TRIP, |a, d, f| {
        vmx::trips(a, d, f, TRIPS, 0, CodeAssembler::vmcall)
    }),
    guest("VMRESUME and CPUID", "round trips/s", TRIPS, TRIP, |a, d, f| {
        vmx::trips(a, d, f, TRIPS, 0, CodeAssembler::cpuid)
    }),
    guest("VMRESUME and HLT", "round trips/s", TRIPS, TRIP, |a, d, f| {
        vmx::trips(a, d, f, TRIPS, vmx::HLT_EXITING, CodeAssembler::hlt)
    }),
    guest("VMRESUME and IN", "round trips/s", TRIPS, TRIP, |a, d, f| {
        vmx::trips(a, d, f, TRIPS, vmx::UNCONDITIONAL_IO_EXITING, |a| a.in_(al, 0x80))
    }),
    guest("VMRESUME and an EPT violation", "round trips/s", TRIPS, TRIP, |a, d, f| {
        vmx::trips(a, d, f, TRIPS, 0, |a| {
            a.mov(rax, vmx::UNMAPPED)?;
            a.mov(rax, qword_ptr(rax))
        })
    }),
    guest("integer in a guest", "instructions/s", ROUNDS * 12, IN_GUEST, |a, d, f| {
        vmx::trips(a, d, f, 1, 0, integer_once)
    }),
    svm("VMRUN and VMMCALL", |a, d, f| {
        svm::trips(a, d, f, TRIPS, Around::Nothing, code::VMMCALL, CodeAssembler::vmmcall)
    }),
    svm("the same with VMLOAD, VMSAVE, CLGI, STGI", |a, d, f| {
        svm::trips(a, d, f, TRIPS, Around::Switch, code::VMMCALL, CodeAssembler::vmmcall)
    }),
    svm("VMRUN and CPUID", |a, d, f| svm::trips(a, d, f, TRIPS, Around::Nothing, code::CPUID, CodeAssembler::cpuid)),
    svm("VMRUN and HLT", |a, d, f| svm::trips(a, d, f, TRIPS, Around::Nothing, code::HLT, CodeAssembler::hlt)),
    svm("VMRUN and IN", |a, d, f| svm::trips(a, d, f, TRIPS, Around::Nothing, code::IOIO, |a| a.in_(al, 0x80))),
    svm("VMRUN and RDMSR", |a, d, f| {
        svm::trips(a, d, f, TRIPS, Around::Nothing, code::MSR, |a| {
            a.mov(ecx, svm::INTERCEPTED_MSR)?;
            a.rdmsr()
        })
    }),
    svm("VMRUN and a nested page fault", |a, d, f| {
        svm::trips(a, d, f, TRIPS, Around::Nothing, code::NPF, |a| {
            a.mov(rax, svm::UNMAPPED)?;
            a.mov(rax, qword_ptr(rax))
        })
    }),
    Guest {
        vendor: Vendor::Amd,
        ..guest("integer in a guest of VMRUN", "instructions/s", ROUNDS * 12, IN_GUEST, |a, d, f| {
            svm::trips(a, d, f, 1, Around::Nothing, code::VMMCALL, integer_once)
        })
    },
    guest("IN from port 80h", "instructions/s", 4 * TRAPS, &[], |a, d, _| {
        repeated(a, d, 4 * TRAPS, |a| a.in_(al, 0x80))
    }),
];

/// Ends at once: what another takes to come so far.
pub const NOTHING: Guest = guest("nothing", "runs", 1, &[], |a, done, _| a.jmp(done));

/// A body, so many times; RBP counts.
fn repeated(
    a: &mut CodeAssembler,
    done: CodeLabel,
    times: u64,
    body: impl Fn(&mut CodeAssembler) -> Result<(), IcedError>,
) -> Result<(), IcedError> {
    let mut turn = a.create_label();
    a.mov(rbp, times)?;
    a.set_label(&mut turn)?;
    body(a)?;
    a.dec(rbp)?;
    a.jne(turn)?;
    a.jmp(done)
}

/// Twelve instructions a round, as compilers mix them.
fn integer(a: &mut CodeAssembler, done: CodeLabel, _: CodeLabel) -> Result<(), IcedError> {
    a.mov(rbx, 0x9e37_79b9_7f4a_7c15_u64)?;
    a.xor(esi, esi)?;
    repeated(a, done, ROUNDS, |a| {
        a.mov(rax, rbx)?;
        a.shr(rax, 29)?;
        a.xor(rax, rbx)?;
        a.imul_2(rax, rbx)?;
        a.lea(rcx, rax + rsi * 4 + 7)?;
        a.add(rsi, rcx)?;
        a.and(ecx, 63)?;
        a.sub(rsi, rax)?;
        a.test(ecx, 1)?;
        a.cmovne(rdx, rcx)
    })
}

/// The same, and on.
fn integer_once(a: &mut CodeAssembler) -> Result<(), IcedError> {
    let mut end = a.create_label();
    integer(a, end, end)?;
    a.set_label(&mut end)
}

/// A list through 64 MiB in an order that no stride shows, then steps along it.
fn chase(a: &mut CodeAssembler, done: CodeLabel, _: CodeLabel) -> Result<(), IcedError> {
    let mut build = a.create_label();
    a.mov(rdi, DATA)?;
    a.xor(eax, eax)?;
    a.mov(rcx, NODES)?;
    a.set_label(&mut build)?;
    // The next of node i is 5 i + 77_777 modulo the number of nodes: one cycle through all of them.
    a.lea(rdx, rax + rax * 4 + 77_777)?;
    a.and(rdx, NODES as i32 - 1)?;
    a.mov(rbx, rax)?;
    a.shl(rbx, 6)?;
    a.mov(r8, rdx)?;
    a.shl(r8, 6)?;
    a.add(r8, rdi)?;
    a.mov(qword_ptr(rdi + rbx), r8)?;
    a.inc(rax)?;
    a.dec(rcx)?;
    a.jne(build)?;
    a.mov(rax, rdi)?;
    repeated(a, done, STEPS, |a| a.mov(rax, qword_ptr(rax)))
}

/// A loop of loads and stores.
fn copy(a: &mut CodeAssembler, done: CodeLabel, apart: u64) -> Result<(), IcedError> {
    repeated(a, done, COPIES, |a| {
        let mut word = a.create_label();
        a.mov(rsi, DATA)?;
        a.mov(rdi, DATA + apart)?;
        a.mov(rcx, WORDS)?;
        a.set_label(&mut word)?;
        a.mov(rax, qword_ptr(rsi))?;
        a.mov(qword_ptr(rdi), rax)?;
        a.add(rsi, 8)?;
        a.add(rdi, 8)?;
        a.dec(rcx)?;
        a.jne(word)
    })
}

/// Sixteen times 32 MiB.
fn rep(a: &mut CodeAssembler, done: CodeLabel, apart: u64, words: bool) -> Result<(), IcedError> {
    repeated(a, done, 16, |a| {
        a.mov(rsi, DATA)?;
        a.mov(rdi, DATA + apart)?;
        a.mov(rcx, if words { 4_u64 << 20 } else { 32 << 20 })?;
        if words { a.rep().movsq() } else { a.rep().movsb() }
    })
}

fn undefined(a: &mut CodeAssembler, done: CodeLabel, failed: CodeLabel) -> Result<(), IcedError> {
    let (mut handle, mut begin) = (a.create_label(), a.create_label());
    a.jmp(begin)?;
    a.set_label(&mut handle)?;
    a.add(qword_ptr(rsp), 2)?;
    a.iretq()?;
    a.set_label(&mut begin)?;
    handler(a, 6, handle)?;
    handler(a, 13, failed)?;
    repeated(a, done, TRAPS, CodeAssembler::ud2)
}

/// Loads from a page that is not there. The handler steps over the load, or maps the page, and then it is unmapped again.
fn page_fault(
    a: &mut CodeAssembler,
    done: CodeLabel,
    failed: CodeLabel,
    times: u64,
    maps: bool,
) -> Result<(), IcedError> {
    let (mut handle, mut begin) = (a.create_label(), a.create_label());
    const PAGE: u64 = 1 << 39;
    // The tables of the page: entry 1 of the PML4, then entries 0.
    let tables = DATA;
    a.jmp(begin)?;
    a.set_label(&mut handle)?;
    a.add(rsp, 8)?;
    if maps {
        a.mov(qword_ptr(r10), r11)?;
    } else {
        a.add(qword_ptr(rsp), 3)?;
    }
    a.iretq()?;
    a.set_label(&mut begin)?;
    handler(a, 14, handle)?;
    handler(a, 13, failed)?;
    for (at, value) in
        [(PML4 + 8, tables | 3), (tables, (tables + 0x1000) | 3), (tables + 0x1000, (tables + 0x2000) | 3)]
    {
        a.mov(rax, value)?;
        a.mov(rbx, at)?;
        a.mov(qword_ptr(rbx), rax)?;
    }
    a.mov(r10, tables + 0x2000)?;
    a.mov(r11, (tables + 0x3000) | 3)?;
    a.mov(r9, PAGE)?;
    repeated(a, done, times, |a| {
        a.mov(rax, qword_ptr(r9))?; // three bytes
        if maps {
            a.mov(qword_ptr(r10), 0)?;
            a.invlpg(ptr(r9))?;
        }
        Ok(())
    })
}
