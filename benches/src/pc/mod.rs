//! The PC beside QEMU and Bochs: bare guests and boots of Debian's kernel.

pub mod disk;
mod guests;
pub mod image;
pub mod linux;
mod svm;
mod vmx;

use std::path::Path;

use crate::emulators::{Emulator, Laboratory, Vendor};
use crate::report::{Peer, Row, Unit};
use guests::Guest;

/// Whose columns the table has.
const PEERS: &[Peer] = &[Peer::QemuPc, Peer::Bochs];

/// The rows whose names `wanted` accepts. `files` holds what `prepare-amd64` makes, for each suite.
pub fn rows(laboratory: &Laboratory, files: Option<&Path>, wanted: impl Fn(&str) -> bool) {
    crate::report::print_head(PEERS);
    // Each has its own way to a guest, through firmware or not.
    let nothing = guests::NOTHING.image();
    let [ours, qemu, bochs] = [Emulator::Undervisor, Emulator::Peer(Peer::QemuPc), Emulator::Peer(Peer::Bochs)]
        .map(|e| laboratory.pc(e, Vendor::Intel, &nothing));
    let nothing = |emulator| match emulator {
        Emulator::Undervisor => &ours,
        Emulator::Peer(Peer::Bochs) => &bochs,
        Emulator::Peer(_) => &qemu,
    };
    let run = |emulator, guest: &Guest| {
        Ok(laboratory.pc(emulator, guest.vendor, &guest.image())?.without(nothing(emulator).as_ref()?))
    };
    for guest in guests::ALL.iter().filter(|g| wanted(g.name)) {
        let mut peers: Vec<_> = PEERS.iter().map(|peer| (*peer, run(Emulator::Peer(*peer), guest))).collect();
        if guest.targets.iter().any(|t| t.peer == Peer::Alone) {
            peers.push((Peer::Alone, run(Emulator::Undervisor, &guests::INTEGER)));
        }
        Row {
            name: guest.name,
            unit: Unit::Rate(guest.work, guest.unit),
            ours: run(Emulator::Undervisor, guest),
            peers,
            targets: guest.targets,
        }
        .print();
    }
    let Some(files) = files else {
        println!("| boots | skipped: UNDERVISOR_PC_BOOT_FILES is not set |");
        return;
    };
    linux::rows(laboratory, files, wanted);
}

/// Writes the bare guests' images, for a profiler or a debugger.
pub fn write(dir: &Path) {
    for (i, guest) in guests::ALL.iter().enumerate() {
        let path = dir.join(format!("pc-{i}.multiboot"));
        std::fs::write(&path, guest.image()).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        println!("{}: {}", path.display(), guest.name);
    }
}
