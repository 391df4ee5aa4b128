//! Whole runs by CPU time, beside other emulators in the same run. See README.md.

mod emulators;
mod guests;
mod linux;
mod memory;
mod pc;
mod report;

use std::path::{Path, PathBuf};

use undervisor_benches::image::Ending;

use emulators::{Emulator, Laboratory};
use memory::Work;
use report::{Peer, Row, Unit};

fn main() {
    let words: Vec<String> = std::env::args().skip(1).collect();
    if let [option, dir] = &words[..]
        && option == "--write"
    {
        return write(Path::new(dir));
    }
    let laboratory = Laboratory::from_environment();
    if let Some(("pc", words)) = words.split_first().map(|(w, rest)| (w.as_str(), rest)) {
        let files = std::env::var_os("UNDERVISOR_PC_BOOT_FILES").map(PathBuf::from);
        let wanted = |name: &str| words.is_empty() || words.iter().any(|w| name.contains(w.as_str()));
        return pc::rows(&laboratory, files.as_deref(), wanted);
    }
    let wanted = |name: &str| words.is_empty() || words.iter().any(|w| name.contains(w.as_str()));
    let boots = std::env::var_os("UNDERVISOR_BOOT_FILES").map(|dir| PathBuf::from(dir).join("sid"));
    let mut runs = Vec::new();
    report::print_head(Peer::RISCV);
    for guest in guests::ALL.iter().filter(|g| wanted(g.name)) {
        let run = |emulator| laboratory.bare(emulator, guest.elf);
        let row = Row {
            name: guest.name,
            unit: Unit::Rate(guest.work, guest.unit),
            ours: run(Emulator::Undervisor),
            peers: Peer::RISCV.iter().map(|peer| (*peer, run(Emulator::Peer(*peer)))).collect(),
            targets: guest.targets,
        };
        row.print();
        runs.push((guest.name, Work::Bare(guest), row.ours));
    }
    match &boots {
        Some(files) => runs.extend(linux::rows(&laboratory, files, wanted)),
        None => println!("| boots and KVM's exits | skipped: UNDERVISOR_BOOT_FILES is not set |"),
    }
    memory::rows(&runs);
}

/// Writes the bare guests as ELF files, for a profiler or a debugger.
fn write(dir: &Path) {
    for guest in guests::ALL {
        let name: String = guest.name.chars().map(|c| if c.is_alphanumeric() { c } else { '-' }).collect();
        for (ending, suffix) in [(Ending::Finisher, "elf"), (Ending::Htif, "htif.elf")] {
            let path = dir.join(format!("{name}.{suffix}"));
            std::fs::write(&path, (guest.elf)(ending)).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
            println!("{}", path.display());
        }
    }
    pc::write(dir);
}
