//! A disk that starts a kernel by GRUB, on a PC with BIOS and on one with UEFI.

use std::path::Path;
use std::process::Command;

use crate::debian::{self, Archive, Suite};
use crate::disk::{self, Files};
use crate::prepare::{Error, read};

/// What GRUB does without a key being pressed. `grub_platform` is `pc` or `efi`.
const CONFIGURATION: &str = "\
serial --unit=0 --speed=115200
terminal_output serial
echo \"UNDERVISOR-GRUB: $grub_platform\"
linux /boot/vmlinuz console=ttyS0
initrd /boot/initrd.img
boot
";

/// Modules that this takes, in both of GRUB's forms.
const MODULES: [&str; 9] = ["boot", "configfile", "echo", "fat", "linux", "normal", "part_msdos", "serial", "terminal"];

/// The first partition of the first disk, as GRUB calls it on both platforms.
const PREFIX: &str = "(hd0,msdos1)/boot/grub";

/// Writes the disk's image. GRUB's modules are Debian's; the program that puts them together is the host's.
pub fn write_disk(path: &Path, kernel: &Path, initrd: &Path) -> Result<(), Error> {
    debian::require_host_packages(&["grub-common"])?;
    let archive = Archive::new(Suite::Trixie, "amd64");
    let made = |package: &str, format: &str, more: &[&str]| -> Result<Vec<u8>, Error> {
        let modules = archive.unpacked(package)?.root.join("usr/lib/grub").join(format);
        let out = path.with_extension(format);
        let mut command = Command::new("grub-mkimage");
        command.args(["--format", format, "--prefix", PREFIX, "--directory"]).arg(modules);
        debian::run(command.arg("--output").arg(&out).args(MODULES).args(more))?;
        read(&out)
    };
    let core = made("grub-pc-bin", "i386-pc", &["biosdisk"])?;
    let efi = made("grub-efi-amd64-bin", "x86_64-efi", &[])?;
    let boot = read(&archive.unpacked("grub-pc-bin")?.file("usr/lib/grub/i386-pc/boot.img")?)?;

    let mut files = Files::default();
    files.add("boot/grub/grub.cfg", CONFIGURATION).add("efi/boot/bootx64.efi", efi);
    files.add("boot/vmlinuz", read(kernel)?).add("boot/initrd.img", read(initrd)?);
    crate::prepare::write(path, &disk::image(&boot, &core, &files))
}
