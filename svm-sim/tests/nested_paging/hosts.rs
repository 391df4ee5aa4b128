//! Nested page tables have the format of the host's own: with 64 bits, with PAE paging, with 32-bit paging.

use iced_x86::code_asm::*;
use svm_sim::exit::code;
use svm_sim::vmcb::*;
use x86::control::{cr4, efer};
use x86::processor::segments;
use x86::segment::{Attributes, Segment};
use x86_bare::{Bare, COMPATIBILITY_CS};

use crate::base::{Base, GUEST, PDPT_PAE, machine, nest, read};
use crate::{DATA, FINAL, P, RSV, US, WR};

/// Tables for nested paging.
const ROOT: u64 = 0x5_0000;
const DIRECTORY: u64 = 0x5_1000;
const TABLE: u64 = 0x5_2000;
/// A page directory of the host's own, of 4-MiB pages.
const HOST: u64 = 0x5_3000;

/// A machine whose host has 32 bits, and such paging; the guest, too, with nested paging. It stores to DATA.
fn of_32_bits(features: u64, root: u64) -> Bare {
    let mut v = Base::Protected.vmcb();
    nest(&mut v);
    v.set(N_CR3, ROOT);
    let mut bare = machine("amd", &v);
    bare.put(HOST, 0x83);
    bare.assemble_of(32, GUEST, &|a| {
        a.mov(dword_ptr(DATA as u32 + 8), eax)?;
        a.vmmcall()
    });
    let cpu = bare.cpu();
    cpu.efer = efer::SVME | efer::NXE;
    (cpu.cr3, cpu.cr4) = (root, features);
    for s in &mut cpu.segments {
        *s = Segment { selector: 0x10, base: 0, limit: u32::MAX, attributes: Attributes(0xc093) };
    }
    cpu.segments[segments::CS] =
        Segment { selector: COMPATIBILITY_CS as u16, base: 0, limit: u32::MAX, attributes: Attributes(0xc09b) };
    bare
}

fn of_pae() -> Bare {
    let mut bare = of_32_bits(cr4::PAE, PDPT_PAE);
    let directory = bare.get(PDPT_PAE) & !1;
    bare.cpu().pdptes = [directory | 1, 0, 0, 0];
    bare.put(ROOT, DIRECTORY | 1);
    bare.put(DIRECTORY, TABLE | 7);
    for page in (0..0x20_0000).step_by(4096) {
        bare.put(TABLE + page / 512, page | 7);
    }
    bare
}

fn of_legacy() -> Bare {
    let mut bare = of_32_bits(cr4::PSE, HOST);
    bare.put(ROOT, TABLE | 7);
    for page in (0..0x20_0000u64).step_by(8192) {
        bare.put(TABLE + page / 1024, page | 7 | ((page + 4096) | 7) << 32);
    }
    bare
}

fn outcome(mut bare: Bare) -> (u64, u64, u64) {
    bare.machine.run(1000);
    assert_eq!(crate::base::svm(&bare).failure, None);
    assert_eq!(bare.cpu().efer & efer::LMA, 0, "the host is what it was");
    (read(&bare, EXITCODE), read(&bare, EXITINFO1), read(&bare, EXITINFO2))
}

const WENT_WELL: (u64, u64, u64) = (code::VMMCALL, 0, 0);

#[test]
fn pae_paging() {
    assert_eq!(outcome(of_pae()), WENT_WELL);
    let with = |at: u64, value: u64| {
        let mut bare = of_pae();
        bare.put(at, value);
        outcome(bare)
    };
    let leaf = TABLE + DATA / 512;
    assert_eq!(with(leaf, 0), (code::NPF, FINAL | US | WR, DATA + 8));
    assert_eq!(with(leaf, DATA | 5), (code::NPF, FINAL | US | WR | P, DATA + 8));
    assert_eq!(with(leaf, DATA | 7 | 1 << 52), (code::NPF, FINAL | US | WR | P | RSV, DATA + 8));
    assert_eq!(with(DIRECTORY, 0x87), WENT_WELL, "a page of 2 MiB");
    // A PDPTE has no bits for rights: those are reserved.
    assert_eq!(with(ROOT, DIRECTORY | 7).1 & RSV, RSV);
    assert_eq!(with(ROOT, 0).0, code::NPF);
}

#[test]
fn legacy_paging() {
    assert_eq!(outcome(of_legacy()), WENT_WELL);
    let with = |at: u64, value: u64| {
        let mut bare = of_legacy();
        bare.machine.world.ram.store(at, 4, value).unwrap();
        outcome(bare)
    };
    let leaf = TABLE + DATA / 1024;
    assert_eq!(with(leaf, 0), (code::NPF, FINAL | US | WR, DATA + 8));
    assert_eq!(with(leaf, DATA | 5), (code::NPF, FINAL | US | WR | P, DATA + 8));
    assert_eq!(with(ROOT, 0x87), WENT_WELL, "a page of 4 MiB");
}

/// With 32-bit paging there is no NX: fetches are not told of.
#[test]
fn legacy_paging_has_no_fetches() {
    let mut bare = of_legacy();
    bare.machine.world.ram.store(TABLE + GUEST / 1024, 4, 0).unwrap();
    assert_eq!(outcome(bare), (code::NPF, FINAL | US, GUEST));
}
