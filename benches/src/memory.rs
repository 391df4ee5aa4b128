//! Memory of the process beside the pages that its guest uses.

use std::path::Path;

use emu_core::machine::End;
use riscv::platform::virt::{File, Firmware, Images, VirtConfig, build};
use undervisor_benches::image::Ending;

use crate::guests::Guest;
use crate::report::{Measured, print_memory, print_memory_head};

/// What has been run, and is run again in this process.
pub enum Work<'a> {
    Bare(&'a Guest),
    /// Linux from the files of this directory, with these words for the kernel.
    Linux(&'a Path, &'a str),
}

/// The rows of what has been run with its name and cost. Comes last: machines run in this process here, and a child's
/// peak begins with what its parent has.
pub fn rows(runs: &[(&str, Work, Measured)]) {
    print_memory_head();
    for (name, work, run) in runs {
        match run.as_ref().map_err(Clone::clone).and_then(|run| Ok((pages_in_use(work)?, run))) {
            Ok((used, run)) => print_memory(name, &used, run),
            Err(why) => println!("| {name} | {why} | | | |"),
        }
    }
}

/// What a guest uses of its RAM until it powers off, in MiB.
pub struct Used {
    /// Pages that are not all zero at the end: fewer than were touched.
    pub not_zero: f64,
    /// Pages that the host has given. Those that nobody has touched take no memory.
    pub given: f64,
}

fn pages_in_use(work: &Work) -> Result<Used, String> {
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
    let smaps = std::fs::read_to_string("/proc/self/smaps").map_err(|e| format!("/proc/self/smaps: {e}"))?;
    let given = resident(&smaps, config.memory).ok_or("the mapping of RAM is not to be found")?;
    let mut pages = 0u32;
    machine.world.ram.for_each_page(|_, _| pages += 1);
    Ok(Used { not_zero: f64::from(pages) / 256.0, given })
}

/// MiB of resident memory in the mapping of exactly this size.
fn resident(smaps: &str, size: u64) -> Option<f64> {
    let number = |line: &str, name| {
        let words = line.strip_prefix(name)?.trim();
        words.strip_suffix(" kB")?.parse::<u64>().ok()
    };
    let mut lines = smaps.lines();
    lines.find(|line| number(line, "Size:") == Some(size >> 10))?;
    lines.find_map(|line| number(line, "Rss:")).map(|kib| kib as f64 / 1024.0)
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_mapping_is_found_by_its_size() {
        let smaps = "1000-2000 rw-p\nSize:      4 kB\nRss:    4 kB\n3000-9000 rw-p\nSize:  1048576 kB\nPss: 1 kB\nRss:   2048 kB\n";
        assert_eq!(super::resident(smaps, 1 << 30), Some(2.0));
        assert_eq!(super::resident(smaps, 2 << 30), None);
    }
}
