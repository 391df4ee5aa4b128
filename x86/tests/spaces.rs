//! Address spaces whose numbers begin anew: nothing that was known of a number is so any longer.

use emu_core::tlb::SpaceKey;
use iced_x86::code_asm::*;
use x86::control::cr4;
use x86::registers::RBX;
use x86_bare::{Bare, CODE, PD, PDPT, PML4, PT};

/// How many numbers there are.
const NUMBERS: u64 = 4095;
/// Another set of page tables, which maps one page elsewhere.
const TABLES: u64 = 0x6_0000;
const TARGET: u64 = 0x7_0000;
const ELSEWHERE: u64 = 0x7_1000;
/// Where the program goes on in the other space.
const THEN: u64 = 0x7_2000;

/// Jumps to the target through a register, often enough to be remembered, and halts.
fn calls(a: &mut CodeAssembler) -> x86_bare::Result {
    let (mut again, mut back) = (a.create_label(), a.create_label());
    a.mov(ecx, 3)?;
    a.mov(eax, TARGET as u32)?;
    a.lea(rdx, ptr(back))?;
    a.set_label(&mut again)?;
    a.jmp(rax)?;
    a.set_label(&mut back)?;
    a.dec(ecx)?;
    a.jnz(again)?;
    a.hlt()
}

fn machine() -> Bare {
    let mut bare = Bare::new("amd");
    for (i, table) in [PML4, PDPT, PD, PT].into_iter().enumerate() {
        for entry in 0..512 {
            bare.put(TABLES + 0x1000 * i as u64 + 8 * entry, bare.get(table + 8 * entry));
        }
    }
    for i in 0..3 {
        bare.put(TABLES + 0x1000 * i, (TABLES + 0x1000 * (i + 1)) | 3);
    }
    bare.put(TABLES + 0x3000 + TARGET / 512, ELSEWHERE | 3);
    for (at, mark) in [(TARGET, 1), (ELSEWHERE, 2)] {
        bare.assemble(at, &|a| {
            a.mov(ebx, mark)?;
            a.jmp(rdx)
        });
    }
    bare.assemble(CODE, &calls);
    bare.assemble(THEN, &|a| {
        a.mov(rax, TABLES | 2)?;
        a.mov(cr3, rax)?;
        calls(a)
    });
    let cpu = bare.cpu();
    cpu.cr4 |= cr4::PCIDE;
    cpu.cr3 = PML4 | 1;
    bare
}

/// A space gets the number that another had: what the jump cache holds of that number is the other's.
#[test]
fn a_number_that_has_been_anothers() {
    let mut bare = machine();
    bare.go_on();
    assert_eq!(bare.reg(RBX), 1);
    let mmu = &mut bare.machine.vcpus[0].core.mmu;
    let dummy = |i: u64| SpaceKey(u64::MAX, i);
    let before: Vec<_> = (1..NUMBERS).map(|i| mmu.intern(dummy(i))).collect();
    assert_eq!(mmu.intern(dummy(2)), before[1], "all numbers are taken, and none is again");
    bare.machine.vcpus[0].core.pc = THEN;
    bare.cpu().waiting.sleeps(false);
    bare.go_on();
    assert_eq!(bare.reg(RBX), 2);
    assert_ne!(bare.machine.vcpus[0].core.mmu.intern(dummy(2)), before[1], "the numbers have begun anew");
}
