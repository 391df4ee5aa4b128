//! Memory of the process beside the pages that its guest uses.

use std::path::Path;

use emu_core::machine::End;
use riscv::platform::virt::{File, Firmware, Images, VirtConfig, build};

use crate::emulators::{Emulator, Laboratory};
use crate::guests::Guest;
use crate::linux;
use crate::report::{print_memory, print_memory_head};
use undervisor_benches::image::Ending;

/// The rows of memory whose names `wanted` accepts. Comes last: machines run in this process here, and a child's peak
/// begins with what its parent had.
pub fn rows(laboratory: &Laboratory, guests: &[Guest], boots: Option<&Path>, wanted: impl Fn(&str) -> bool) {
    let bare: Vec<_> = guests
        .iter()
        .filter(|g| wanted(g.name))
        .map(|g| (g.name, laboratory.bare(Emulator::Undervisor, g.elf), Work::Bare(g)))
        .collect();
    let linux = boots.into_iter().flat_map(|files| linux::BOOTS.iter().map(move |boot| (files, boot)));
    let linux: Vec<_> = linux
        .filter(|(_, (name, _))| wanted(name))
        .map(|(files, (name, words))| {
            let run = laboratory.linux(Emulator::Undervisor, files, words, &linux::expected(words));
            (*name, run, Work::Linux(files, words))
        })
        .collect();
    print_memory_head();
    for (name, run, work) in bare.into_iter().chain(linux) {
        match run.and_then(|run| Ok((pages_in_use(&work)?, run))) {
            Ok((pages, run)) => print_memory(name, pages, &run),
            Err(why) => println!("| {name} | {why} | | |"),
        }
    }
}

enum Work<'a> {
    Bare(&'a Guest),
    Linux(&'a Path, &'a str),
}

/// MiB of guest pages that are not all zero when the guest has powered off. A lower bound of the pages touched.
fn pages_in_use(work: &Work) -> Result<f64, String> {
    let (config, images) = match work {
        Work::Bare(guest) => {
            let kernel = File { name: guest.name.into(), bytes: (guest.elf)(Ending::Finisher) };
            let config = VirtConfig { memory: 256 << 20, ..VirtConfig::default() };
            (config, Images { firmware: Firmware::None, kernel: Some(kernel), initrd: None })
        }
        Work::Linux(files, words) => {
            let read = |name: &str| {
                let bytes = std::fs::read(files.join(name)).map_err(|e| format!("{name}: {e}"))?;
                Ok::<_, String>(File { name: name.into(), bytes })
            };
            let bootargs = format!("console=ttyS0 {words}");
            let firmware = Firmware::File(read("fw_dynamic.bin")?);
            let images = Images { firmware, kernel: Some(read("Image")?), initrd: Some(read("initrd.cpio")?) };
            (VirtConfig { memory: 1 << 30, bootargs, ..VirtConfig::default() }, images)
        }
    };
    let mut machine = build(&config, &images).map_err(|e| e.to_string())?;
    drop(images);
    match machine.run(u64::MAX) {
        End::PowerOff(0) => {}
        end => return Err(format!("it ended with {end:?}")),
    }
    let mut pages = 0u32;
    machine.world.ram.for_each_page(|_, _| pages += 1);
    Ok(f64::from(pages) / 256.0)
}
