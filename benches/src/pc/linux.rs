//! Debian's kernel on a PC: its boot, each kind of exit from a guest of its KVM, and its boot as such a guest.

use std::path::Path;

use crate::emulators::{Emulator, Laboratory, Vendor};
use crate::linux::more_than;
use crate::report::{Measured, Peer, Row, Target, Unit};

/// A boot at most takes 1.5 times as long as QEMU's.
const BOOT: &[Target] = &[Target { peer: Peer::QemuPc, times: 1.0 / 1.5 }];
/// That of a guest under SVM, which QEMU has too, takes no longer.
const SVM_BOOT: &[Target] = &[Target { peer: Peer::QemuPc, times: 1.0 }];
const EXITS: &[Target] = &[Target { peer: Peer::QemuPc, times: 6.0 }];

/// One kind of exit by itself: what it is, a phase of the KVM client, how often, and what is counted.
type Kind = (&'static str, &'static str, u64, &'static str, &'static [Target]);
const KINDS: &[Kind] = &[
    ("port-I/O exit to user space", "port", 100_000, "exits/s", EXITS),
    ("MMIO exit to user space", "mmio", 50_000, "exits/s", &[]),
    ("CPUID, in the kernel", "cpuid", 200_000, "exits/s", &[]),
    ("VMCALL or VMMCALL, in the kernel", "hypercall", 200_000, "exits/s", &[]),
    ("page touched first", "pages", 20_000, "pages/s", &[]),
];

/// A boot as a guest, with each vendor's virtualization.
const NESTED: [(&str, Vendor, &[Target]); 2] = [
    ("the same as a guest of QEMU with KVM", Vendor::Intel, BOOT),
    ("the same as a guest of QEMU with KVM, by SVM", Vendor::Amd, SVM_BOOT),
];

const SHELL: &str = "UNDERVISOR-SHELL: up cpus=1 ";

/// The rows of boots whose names `wanted` accepts. `files` holds what `prepare-amd64` makes, for each suite.
pub fn rows(laboratory: &Laboratory, files: &Path, wanted: impl Fn(&str) -> bool) {
    for suite in ["trixie", "sid"] {
        let name = format!("boot of {suite} to power-off");
        if wanted(&name) {
            row(&name, Unit::Seconds, BOOT, Bochs::Boots, |emulator| {
                laboratory.pc_linux(emulator, Vendor::Intel, &files.join(suite), "quiet", 1)
            });
        }
    }
    let files = &files.join("trixie");
    for (name, vendor, targets) in NESTED.into_iter().filter(|nested| wanted(nested.0)) {
        row(name, Unit::Seconds, targets, Bochs::IsNotAsked, |emulator| {
            let alone = laboratory.pc_linux(emulator, vendor, files, "quiet", 1);
            more_than(&alone, laboratory.pc_linux(emulator, vendor, files, "quiet vmm -- console=ttyS0 quiet", 2))
        });
    }
    for (by, vendor) in [("KVM", Vendor::Intel), ("KVM by SVM", Vendor::Amd)] {
        let names = KINDS.iter().map(|kind| (format!("{by}: {}", kind.0), kind));
        exits(laboratory, vendor, files, names.filter(|(name, _)| wanted(name)).collect());
    }
}

/// The rows of exits by their names.
fn exits(laboratory: &Laboratory, vendor: Vendor, files: &Path, kinds: Vec<(String, &Kind)>) {
    if kinds.is_empty() {
        return;
    }
    let none = |emulator| laboratory.pc_linux(emulator, vendor, files, "quiet kvmtest=none", 1);
    let (ours, theirs) = (none(Emulator::Undervisor), none(Emulator::Peer(Peer::QemuPc)));
    for (name, (_, phase, count, unit, targets)) in &kinds {
        row(name, Unit::Rate(*count as f64, unit), targets, Bochs::IsNotAsked, |emulator| {
            let base = if emulator == Emulator::Undervisor { &ours } else { &theirs };
            let words = format!("quiet kvmtest=none,{phase}={count}");
            more_than(base, laboratory.pc_linux(emulator, vendor, files, &words, 1))
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
