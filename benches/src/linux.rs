//! Whole boots of Debian's kernel, and each kind of exit from a guest under its KVM.

use std::path::Path;

use crate::emulators::{Emulator, Laboratory};
use crate::memory::Work;
use crate::report::{Measured, Peer, Row, Run, Target, Unit};

/// A boot at most takes 1.5 times as long as QEMU's.
const BOOT: &[Target] = &[Target { peer: Peer::Rv64, times: 1.0 / 1.5 }];
const EXITS: &[Target] = &[Target { peer: Peer::Rv64, times: 5.0 }];

/// What is booted besides: name and words for the kernel.
const BOOTS: &[(&str, &str)] =
    &[("boot of sid to power-off", "quiet"), ("the same with all of the KVM client", "quiet kvmtest")];

/// One kind of exit by itself: a phase of the KVM client, how often, and what is counted. The counts are such that QEMU
/// spends more time on them than on the boot.
const KINDS: &[(&str, &str, u64, &str)] = &[
    ("KVM: MMIO exit to user space", "mmio", 100_000, "exits/s"),
    ("KVM: SBI call, in the kernel", "sbi", 300_000, "exits/s"),
    ("KVM: page touched first, 3 G-stage faults", "pages", 25_000, "pages/s"),
];

const DONE: &str = "UNDERVISOR-DONE rc=0";

/// The rows of boots and exits whose names `wanted` accepts. Returns our runs of the boots.
pub fn rows<'a>(
    laboratory: &Laboratory,
    files: &'a Path,
    wanted: impl Fn(&str) -> bool,
) -> Vec<(&'static str, Work<'a>, Measured)> {
    let mut boots = Vec::new();
    for (name, words) in BOOTS.iter().filter(|b| wanted(b.0)) {
        let boot = |emulator| laboratory.linux(emulator, files, words, &expected(words));
        let row = row(name, Unit::Seconds, BOOT, boot);
        row.print();
        boots.push((*name, Work::Linux(files, words), row.ours));
    }
    let kinds: Vec<_> = KINDS.iter().filter(|k| wanted(k.0)).collect();
    if kinds.is_empty() {
        return boots;
    }
    let none = |emulator| laboratory.linux(emulator, files, "quiet kvmtest=none,ticks", &expected("kvmtest"));
    let (ours, theirs) = (none(Emulator::Undervisor), none(Emulator::Peer(Peer::Rv64)));
    for (name, phase, count, unit) in kinds {
        let words = format!("quiet kvmtest=none,{phase}={count},ticks");
        let lines = [expected(&words), vec![format!("KVM-CLIENT: {phase} count={count} ")]].concat();
        row(name, Unit::Rate(*count as f64, unit), EXITS, |emulator| {
            let base = if emulator == Emulator::Undervisor { &ours } else { &theirs };
            more_than(base, laboratory.linux(emulator, files, &words, &lines))
        })
        .print();
    }
    boots
}

/// What a run took more than another, without which the figure is worth nothing.
pub fn more_than(base: &Measured, run: Measured) -> Measured {
    let (base, run) = (base.clone()?, run?);
    let seconds = run.seconds - base.seconds;
    if seconds <= 0.0 {
        return Err("lost in noise".into());
    }
    Ok(Run { seconds, slowest: run.slowest - base.seconds, ..run })
}

fn row<'a>(name: &'a str, unit: Unit, targets: &'a [Target], boot: impl Fn(Emulator) -> Measured) -> Row<'a> {
    let ours = boot(Emulator::Undervisor);
    let peers = Peer::RISCV.iter().map(|peer| match peer {
        Peer::Max => (*peer, Err(String::new())),
        _ => (*peer, boot(Emulator::Peer(*peer))),
    });
    let peers = peers.collect();
    Row { name, unit, ours, peers, targets }
}

/// What the console must show for these words.
fn expected(words: &str) -> Vec<String> {
    let mut lines = vec![DONE.to_owned()];
    if words.contains("kvmtest") {
        lines.push("KVM-CLIENT: OK".into());
    }
    lines
}
