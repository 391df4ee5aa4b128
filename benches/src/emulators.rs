//! The emulators that run guests, and what a run of one costs.

use std::ffi::OsString;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use undervisor_benches::image::Ending;
use wait4::Wait4;

use crate::pc::disk::{CYLINDERS, disk};
use crate::pc::image::ENTRY;
use crate::pc::linux::expected;
use crate::report::{Measured, Peer, Run};

/// Who runs a guest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Emulator {
    Undervisor,
    Peer(Peer),
}

/// Whose processor a PC has, where the emulator has both: with VMX, or with SVM. QEMU has one that has SVM.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Vendor {
    Intel,
    Amd,
}

impl Vendor {
    /// Our name of the model.
    const fn model(self) -> &'static str {
        match self {
            Vendor::Intel => "intel",
            Vendor::Amd => "amd",
        }
    }

    /// The name of Bochs.
    const fn bochs(self) -> &'static str {
        match self {
            Vendor::Intel => "corei7_haswell_4770",
            Vendor::Amd => "ryzen",
        }
    }
}

/// Where the emulators are; how often each guest is run; where files for them go.
pub struct Laboratory {
    qemu: Option<OsString>,
    spike: Option<OsString>,
    qemu_pc: Option<OsString>,
    bochs: Option<OsString>,
    runs: u32,
    file: PathBuf,
}

const UNDERVISOR: &str = "target/release/undervisor";

impl Laboratory {
    /// As the environment says.
    pub fn from_environment() -> Self {
        Laboratory {
            qemu: std::env::var_os("UNDERVISOR_QEMU_SYSTEM_RISCV64"),
            spike: std::env::var_os("UNDERVISOR_SPIKE"),
            qemu_pc: std::env::var_os("UNDERVISOR_QEMU_SYSTEM_X86_64"),
            bochs: std::env::var_os("UNDERVISOR_BOCHS"),
            runs: std::env::var("UNDERVISOR_BENCH_RUNS").map_or(3, |n| n.parse().expect("a number of runs")),
            file: std::env::temp_dir().join(format!("undervisor-bench-{}", std::process::id())),
        }
    }

    /// The program, or which variable should name it.
    fn program(&self, emulator: Emulator) -> Result<OsString, String> {
        let (path, variable) = match emulator {
            Emulator::Undervisor => return Ok(undervisor()),
            Emulator::Peer(Peer::Spike) => (&self.spike, "UNDERVISOR_SPIKE"),
            Emulator::Peer(Peer::Bochs) => (&self.bochs, "UNDERVISOR_BOCHS"),
            Emulator::Peer(Peer::QemuPc) => (&self.qemu_pc, "UNDERVISOR_QEMU_SYSTEM_X86_64"),
            Emulator::Peer(_) => (&self.qemu, "UNDERVISOR_QEMU_SYSTEM_RISCV64"),
        };
        path.clone().ok_or_else(|| format!("skipped: {variable} is not set"))
    }

    /// Runs a bare guest, whose ELF file is made for how this emulator ends.
    pub fn bare(&self, emulator: Emulator, elf: fn(Ending) -> Vec<u8>) -> Measured {
        let mut command = Command::new(self.program(emulator)?);
        let elf = match emulator {
            Emulator::Undervisor => {
                command.args(["run", "--firmware", "none", "--memory", "256M", "--kernel"]);
                elf(Ending::Finisher)
            }
            Emulator::Peer(Peer::Spike) => {
                command.args(["--isa=rv64gch_zicntr_zba_zbb_svinval", "-m256"]);
                elf(Ending::Htif)
            }
            Emulator::Peer(peer) => {
                command.args(["-M", "virt", "-cpu", cpu(peer), "-m", "256M", "-bios", "none"]);
                command.args(["-display", "none", "-serial", "null", "-monitor", "none", "-kernel"]);
                elf(Ending::Finisher)
            }
        };
        let path = self.file.with_extension("elf");
        std::fs::write(&path, elf).map_err(|e| format!("{}: {e}", path.display()))?;
        command.arg(&path);
        let best = self.best(&mut command, &[]);
        let _ = std::fs::remove_file(&path); // it lies in the directory for such files
        best
    }

    /// Runs a bare guest of a PC, a Multiboot image.
    pub fn pc(&self, emulator: Emulator, vendor: Vendor, image: &[u8]) -> Measured {
        if emulator == Emulator::Peer(Peer::Bochs) {
            let path = self.file.with_extension("disk");
            let disk = disk(image, ENTRY as u32);
            std::fs::write(&path, disk).map_err(|e| format!("{}: {e}", path.display()))?;
            let best = self.bochs(vendor, &path, CYLINDERS, 512, "Shutdown port: shutdown requested");
            let _ = std::fs::remove_file(&path); // it lies in the directory for such files
            return best;
        }
        let mut command = self.pc_command(emulator, vendor, "512M")?;
        let path = self.file.with_extension("multiboot");
        std::fs::write(&path, image).map_err(|e| format!("{}: {e}", path.display()))?;
        command.arg("--kernel").arg(&path);
        let best = self.best(&mut command, &[]);
        let _ = std::fs::remove_file(&path); // it lies in the directory for such files
        best
    }

    /// Boots Linux on a PC with a root file system on a disk; the console must show that so many kernels have come up and gone down.
    pub fn pc_linux(&self, emulator: Emulator, vendor: Vendor, files: &Path, words: &str, boots: usize) -> Measured {
        if emulator == Emulator::Peer(Peer::Bochs) {
            return self.bochs(vendor, &files.join("grub.img"), 0, 1024, "reboot: Power down");
        }
        let mut command = self.pc_command(emulator, vendor, "2G")?;
        let disk = files.join("root.img");
        match emulator {
            Emulator::Undervisor => command.args(["--drive", &format!("{},ro", disk.display())]),
            Emulator::Peer(_) => {
                command.args(["-drive", &format!("file={},format=raw,if=virtio,readonly=on", disk.display())])
            }
        };
        command.arg("--kernel").arg(files.join("vmlinuz")).arg("--initrd").arg(files.join("initrd.cpio"));
        command.args(["--append", &format!("console=ttyS0 {words}")]);
        let expected = expected(words, boots);
        self.best_that(&mut command, |succeeded, shown| succeeded && expected(shown))
    }

    /// Boots Bochs from a disk of so many cylinders, or as many as it finds. It always ends by what it calls a panic: `expected` is in its log, or on its serial port.
    fn bochs(&self, vendor: Vendor, disk: &Path, cylinders: usize, memory: u32, expected: &str) -> Measured {
        let program = self.program(Emulator::Peer(Peer::Bochs))?;
        let shown = self.file.with_extension("shown");
        let configuration = format!(
            "memory: guest={memory}, host={memory}\n\
             romimage: file=$BXSHARE/BIOS-bochs-latest, options=fastboot\n\
             vgaromimage: file=$BXSHARE/VGABIOS-lgpl/VGABIOS-lgpl-latest.bin\n\
             cpu: model={}, ips=100000000, ignore_bad_msrs=1\n\
             clock: sync=none, time0=1700000000\n\
             ata0-master: type=disk, mode=volatile, path={}, cylinders={cylinders}, heads=16, spt=63\n\
             boot: disk\ncom1: enabled=1, mode=file, dev={}\ndisplay_library: nogui\n\
             log: /dev/stderr\npanic: action=fatal\nerror: action=ignore\ninfo: action=ignore\nspeaker: enabled=0\n",
            vendor.bochs(),
            disk.display(),
            shown.display()
        );
        let path = self.file.with_extension("bochsrc");
        std::fs::write(&path, configuration).map_err(|e| format!("{}: {e}", path.display()))?;
        let mut command = Command::new(program);
        command.arg("-q").arg("-f").arg(&path);
        let best = self.best_that(&mut command, |_, log| {
            let console = std::fs::read(&shown).unwrap_or_default();
            log.contains(expected) || String::from_utf8_lossy(&console).contains(expected)
        });
        for file in [&path, &shown] {
            let _ = std::fs::remove_file(file); // it lies in the directory for such files
        }
        best
    }

    /// A PC with so much memory; what is loaded is to follow.
    fn pc_command(&self, emulator: Emulator, vendor: Vendor, memory: &str) -> Result<Command, String> {
        let mut command = Command::new(self.program(emulator)?);
        match emulator {
            Emulator::Undervisor => {
                command.args(["run", "--machine", "pc", "--cpu", vendor.model(), "--memory", memory])
            }
            Emulator::Peer(_) => {
                command.args(["-M", "q35", "-accel", "tcg", "-cpu", "max", "-m", memory, "-display", "none"]);
                command.args(["-serial", "stdio", "-monitor", "none", "-no-reboot", "-nodefaults"]);
                command.args(["-device", "isa-debug-exit,iobase=0xf4,iosize=4"])
            }
        };
        Ok(command)
    }

    /// Boots Linux with firmware; the console must show these lines.
    pub fn linux(&self, emulator: Emulator, files: &Path, words: &str, expected: &[String]) -> Measured {
        let mut command = Command::new(self.program(emulator)?);
        let append = format!("console=ttyS0 {words}");
        let file = |name: &str| files.join(name);
        match emulator {
            Emulator::Undervisor => {
                command.args(["run", "--memory", "1G", "--append", &append]);
                command.arg("--firmware").arg(file("fw_dynamic.bin")).arg("--kernel").arg(file("Image"));
                command.arg("--initrd").arg(file("initrd.cpio"));
            }
            Emulator::Peer(Peer::Spike) => return Err("not asked".into()),
            Emulator::Peer(peer) => {
                command.args(["-M", "virt", "-cpu", cpu(peer), "-m", "1G", "-nographic", "-no-reboot"]);
                command.args(["-append", &append]);
                command.arg("-bios").arg(file("fw_dynamic.bin")).arg("-kernel").arg(file("Image"));
                command.arg("-initrd").arg(file("initrd.cpio"));
            }
        }
        self.best(&mut command, expected)
    }

    /// The best of some runs, each of which ends with success and shows what is expected.
    fn best(&self, command: &mut Command, expected: &[String]) -> Measured {
        self.best_that(command, |succeeded, shown| {
            succeeded && expected.iter().all(|line| shown.contains(line.as_str()))
        })
    }

    /// The best of some runs, of which `is_good` says by success and output whether they did what they should.
    fn best_that(&self, command: &mut Command, is_good: impl Fn(bool, &str) -> bool) -> Measured {
        let mut best = self.measure(command, &is_good)?;
        for _ in 1..self.runs {
            let run = self.measure(command, &is_good)?;
            let slowest = best.slowest.max(run.slowest);
            best = Run { slowest, ..if run.seconds < best.seconds { run } else { best } };
        }
        Ok(best)
    }

    /// One run.
    fn measure(&self, command: &mut Command, is_good: impl Fn(bool, &str) -> bool) -> Measured {
        let program = command.get_program().display().to_string();
        let about = |what: &dyn std::fmt::Display| format!("{program}: {what}");
        let output = self.file.with_extension("out");
        let file = File::create(&output).map_err(|e| about(&e))?;
        let errors = file.try_clone().map_err(|e| about(&e))?;
        let mut child = command.stdin(Stdio::null()).stdout(file).stderr(errors).spawn().map_err(|e| about(&e))?;
        let used = child.wait4().map_err(|e| about(&e))?;
        let shown = std::fs::read(&output).map_err(|e| about(&e))?;
        let _ = std::fs::remove_file(&output); // it lies in the directory for such files
        if !is_good(used.status.success(), &String::from_utf8_lossy(&shown)) {
            return Err(about(&format!("{}, or not what was expected of it", used.status)));
        }
        let seconds = (used.rusage.utime + used.rusage.stime).as_secs_f64();
        Ok(Run { seconds, slowest: seconds, memory: used.rusage.maxrss as f64 / f64::from(1 << 20) })
    }
}

fn cpu(peer: Peer) -> &'static str {
    if peer == Peer::Max { "max" } else { "rv64,h=true" }
}

/// Ours: as `UNDERVISOR` says, else beside this program, where `cargo build --release` puts it.
fn undervisor() -> OsString {
    std::env::var_os("UNDERVISOR").unwrap_or_else(|| {
        let beside = std::env::current_exe().ok().map(|me| me.with_file_name("undervisor"));
        beside.filter(|p| p.exists()).map_or_else(|| UNDERVISOR.into(), PathBuf::into_os_string)
    })
}
