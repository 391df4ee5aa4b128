//! Debian's kernel on a PC: its boot, each kind of exit from a guest of its KVM, and its boot as such a guest.

use std::path::Path;

use crate::emulators::{Emulator, Laboratory};
use crate::linux::more_than;
use crate::report::{Measured, Peer, Row, Target, Unit};

/// A boot at most takes 1.5 times as long as QEMU's.
const BOOT: &[Target] = &[Target { peer: Peer::QemuPc, times: 1.0 / 1.5 }];
const EXITS: &[Target] = &[Target { peer: Peer::QemuPc, times: 6.0 }];

/// One kind of exit by itself: a phase of the KVM client, how often, and what is counted.
const KINDS: &[(&str, &str, u64, &str, &[Target])] = &[
    ("KVM: port-I/O exit to user space", "port", 100_000, "exits/s", EXITS),
    ("KVM: MMIO exit to user space", "mmio", 50_000, "exits/s", &[]),
    ("KVM: CPUID, in the kernel", "cpuid", 200_000, "exits/s", &[]),
    ("KVM: VMCALL or VMMCALL, in the kernel", "hypercall", 200_000, "exits/s", &[]),
    ("KVM: page touched first", "pages", 20_000, "pages/s", &[]),
];

/// A boot as a guest.
const NESTED: &str = "the same as a guest of QEMU with KVM";

const SHELL: &str = "UNDERVISOR-SHELL: up cpus=1 ";

/// The rows of boots whose names `wanted` accepts. `files` holds what `prepare-amd64` makes, for each suite.
pub fn rows(laboratory: &Laboratory, files: &Path, wanted: impl Fn(&str) -> bool) {
    for suite in ["trixie", "sid"] {
        let name = format!("boot of {suite} to power-off");
        if wanted(&name) {
            row(&name, Unit::Seconds, BOOT, Bochs::Boots, |emulator| {
                laboratory.pc_linux(emulator, &files.join(suite), "quiet", 1)
            });
        }
    }
    let files = &files.join("trixie");
    if wanted(NESTED) {
        row(NESTED, Unit::Seconds, BOOT, Bochs::IsNotAsked, |emulator| {
            let alone = laboratory.pc_linux(emulator, files, "quiet", 1);
            more_than(&alone, laboratory.pc_linux(emulator, files, "quiet vmm -- console=ttyS0 quiet", 2))
        });
    }
    let kinds: Vec<_> = KINDS.iter().filter(|kind| wanted(kind.0)).collect();
    if kinds.is_empty() {
        return;
    }
    let none = |emulator| laboratory.pc_linux(emulator, files, "quiet kvmtest=none", 1);
    let (ours, theirs) = (none(Emulator::Undervisor), none(Emulator::Peer(Peer::QemuPc)));
    for (name, phase, count, unit, targets) in kinds {
        row(name, Unit::Rate(*count as f64, unit), targets, Bochs::IsNotAsked, |emulator| {
            let base = if emulator == Emulator::Undervisor { &ours } else { &theirs };
            more_than(base, laboratory.pc_linux(emulator, files, &format!("quiet kvmtest=none,{phase}={count}"), 1))
        });
    }
}

/// What Bochs has to do with it.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Bochs {
    Boots,
    /// It takes what it boots from a disk, with words that stand there.
    IsNotAsked,
}

fn row(name: &str, unit: Unit, targets: &[Target], bochs: Bochs, run: impl Fn(Emulator) -> Measured) {
    let peers = super::PEERS.iter().map(|peer| match peer {
        Peer::Bochs if bochs == Bochs::IsNotAsked => (*peer, Err("not asked".into())),
        _ => (*peer, run(Emulator::Peer(*peer))),
    });
    let peers = peers.collect();
    Row { name, unit, ours: run(Emulator::Undervisor), peers, targets }.print();
}

/// What the console must show for these words, where so many kernels boot.
pub fn expected(words: &str, boots: usize) -> impl Fn(&str) -> bool {
    let has_client = words.contains("kvmtest");
    move |console| {
        console.matches(SHELL).count() == boots
            && console.matches("UNDERVISOR-DONE rc=0").count() == boots
            && (!has_client || console.contains("KVM-CLIENT: OK"))
    }
}
