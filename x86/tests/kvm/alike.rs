//! Paging with two and three levels against four, here alone: what a KVM without them can compare of four holds for all.

use std::collections::BTreeMap;

use x86::control::cr4;
use x86::exception::vector;

use crate::compare::{here, registers, sample};
use crate::paging;
use crate::stage::{Case, LARGE, Mode, PAGE, handler, page_entry, state};

/// What an access has come to: where, with what in ECX, the page and its entry, CR2, the error code of a page fault.
#[derive(Debug, PartialEq, Eq)]
struct Outcome {
    at: u64,
    ecx: u64,
    memory: u64,
    entry: u64,
    cr2: u64,
    error: u64,
}

fn outcome(c: &Case) -> Outcome {
    let (ram, cpu) = state(c);
    let (machine, _) = here(&ram, cpu, &registers(c));
    let (vcpu, ram) = (&machine.vcpus[0], &machine.world.ram);
    let is_fault = vcpu.core.pc == handler(vector::PF) + 1;
    let wide = if c.mode == Mode::Paging32 { 4 } else { 8 };
    let linear = if c.name.contains("large") { LARGE } else { PAGE };
    Outcome {
        at: vcpu.core.pc,
        ecx: vcpu.core.regs[1],
        memory: ram.load(PAGE + 0x10, 8).unwrap(),
        entry: ram.load(page_entry(c.mode, linear), wide).unwrap() & 0xfff,
        cr2: vcpu.arch.cr2,
        error: if is_fault { ram.load(vcpu.core.regs[4], 4).unwrap() } else { 0 },
    }
}

#[test]
fn all_paging_modes_have_the_same_rights() {
    let (mut of_four, others): (Vec<_>, Vec<_>) =
        paging::cases().into_iter().filter(|c| c.mode != Mode::Long).partition(|c| c.mode == Mode::Compatibility);
    // Without PSE, two levels have no large pages.
    let has_page = |c: &Case| c.mode != Mode::Paging32 || c.more_cr4 & cr4::PSE != 0 || !c.name.contains("large");
    let of_four: BTreeMap<_, _> = of_four.drain(..).map(|c| ((c.name.clone(), c.user), c)).collect();
    let mut compared = [0, 0];
    for c in sample(others).iter().filter(|c| has_page(c)) {
        let Some(like) = of_four.get(&(c.name.clone(), c.user)) else { continue };
        // An instruction fetch is told of where XD can be, and with SMEP.
        let mut expected = outcome(like);
        if c.mode == Mode::Paging32 && c.more_cr4 & cr4::SMEP == 0 && expected.error & 16 != 0 {
            expected.error &= !16;
        }
        assert_eq!(outcome(c), expected, "{:?}, {}, {}", c.mode, c.user, c.name);
        compared[usize::from(c.mode == Mode::Pae)] += 1;
    }
    println!("{compared:?} compared");
    assert!(compared[0] > 50 && compared[1] > 100);
}
