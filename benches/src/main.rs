//! Whole runs by CPU time, beside other emulators in the same run. See README.md.

mod emulators;
mod guests;
mod linux;
mod memory;
mod report;

use std::path::PathBuf;

use emulators::{Emulator, Laboratory};
use report::{Peer, Row, Unit};

fn main() {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let wanted = |name: &str| words.is_empty() || words.iter().any(|w| name.contains(w.as_str()));
    let laboratory = Laboratory::from_environment();
    report::print_head();
    for guest in guests::ALL.iter().filter(|g| wanted(g.name)) {
        let run = |emulator| laboratory.bare(emulator, guest.elf);
        Row {
            name: guest.name,
            unit: Unit::Rate(guest.work, guest.unit),
            ours: run(Emulator::Undervisor),
            peers: Peer::ALL.map(|peer| run(Emulator::Peer(peer))),
            targets: guest.targets,
        }
        .print();
    }
    let boots = std::env::var_os("UNDERVISOR_BOOT_FILES").map(|dir| PathBuf::from(dir).join("sid"));
    if let Some(files) = &boots {
        linux::rows(&laboratory, files, wanted);
    }
    memory::rows(&laboratory, guests::ALL, boots.as_deref(), wanted);
    if boots.is_none() {
        println!("\nskipped: UNDERVISOR_BOOT_FILES is not set");
    }
}
