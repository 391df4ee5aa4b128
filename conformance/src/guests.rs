//! Programs of our own that run inside guests: their sources stand in `conformance/guests`, are linked into this
//! library, and are built by Debian's cross compilers.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::{fs, io};

use crate::cache;
use crate::debian::{self, require_host_packages};

/// The first process of the riscv64 guest, a shell script.
pub const RISCV64_INIT: &str = include_str!("../guests/riscv64/init.sh");

/// The first process of the amd64 guest, a shell script.
pub const AMD64_INIT: &str = include_str!("../guests/amd64/init.sh");

/// A static program in C and assembly.
#[derive(Clone, Copy, Debug)]
pub struct Program {
    /// The name of the executable.
    pub name: &'static str,
    /// Host packages with the compiler and the C library.
    pub packages: &'static [&'static str],
    /// The compiler.
    pub compiler: &'static str,
    /// Names and contents of the source files, and of what they include.
    pub sources: &'static [(&'static str, &'static str)],
}

/// A client of KVM on riscv64; `kvm_client.c` says how it is called.
pub const RISCV64_KVM_CLIENT: Program = Program {
    name: "kvm_client",
    packages: &["gcc-riscv64-linux-gnu", "libc6-dev-riscv64-cross"],
    compiler: "riscv64-linux-gnu-gcc",
    sources: &[
        ("kvm_client.c", include_str!("../guests/riscv64/kvm_client.c")),
        ("kvm_common.c", include_str!("../guests/kvm_common.c")),
        ("kvm_common.h", include_str!("../guests/kvm_common.h")),
        ("kvm_guest.S", include_str!("../guests/riscv64/kvm_guest.S")),
    ],
};

/// A client of KVM on amd64; `kvm_client.c` says how it is called.
pub const AMD64_KVM_CLIENT: Program = Program {
    name: "kvm_client",
    packages: if cfg!(target_arch = "x86_64") {
        &["gcc", "libc6-dev"]
    } else {
        &["gcc-x86-64-linux-gnu", "libc6-dev-amd64-cross"]
    },
    compiler: "x86_64-linux-gnu-gcc",
    sources: &[
        ("kvm_client.c", include_str!("../guests/amd64/kvm_client.c")),
        ("kvm_interrupts.c", include_str!("../guests/amd64/kvm_interrupts.c")),
        ("kvm_machine.c", include_str!("../guests/amd64/kvm_machine.c")),
        ("kvm_vfio.c", include_str!("../guests/amd64/kvm_vfio.c")),
        ("kvm_client.h", include_str!("../guests/amd64/kvm_client.h")),
        ("kvm_common.c", include_str!("../guests/kvm_common.c")),
        ("kvm_common.h", include_str!("../guests/kvm_common.h")),
        ("kvm_guest.S", include_str!("../guests/amd64/kvm_guest.S")),
        ("kvm_instructions.inc", include_str!("../guests/amd64/kvm_instructions.inc")),
        ("kvm_interrupts.inc", include_str!("../guests/amd64/kvm_interrupts.inc")),
        ("kvm_device.inc", include_str!("../guests/amd64/kvm_device.inc")),
        ("kvm_modes.inc", include_str!("../guests/amd64/kvm_modes.inc")),
    ],
};

const FLAGS: &[&str] = &["-O2", "-static", "-Wall", "-Wextra", "-Werror"];

impl Program {
    /// Builds the program into the usual cache, unless it is there already, and gives its path.
    pub fn build(&self) -> Result<PathBuf, debian::Error> {
        self.build_in(&cache::root().join("guests"))
    }

    /// Builds the program below `directory`, in one named after the sources' and the flags' hash.
    pub fn build_in(&self, directory: &Path) -> Result<PathBuf, debian::Error> {
        let built = directory.join(format!("{}-{}", self.name, self.hash()));
        cache::directory::<debian::Error>(&built, |scratch| {
            require_host_packages(self.packages)?;
            for (name, text) in self.sources {
                fs::write(scratch.join(name), text)?;
            }
            let sources =
                self.sources.iter().map(|(name, _)| name).filter(|name| name.ends_with(".c") || name.ends_with(".S"));
            debian::run(
                Command::new(self.compiler).args(FLAGS).args(["-o", self.name]).args(sources).current_dir(scratch),
            )?;
            Ok(())
        })?;
        Ok(built.join(self.name))
    }

    /// The built program's bytes.
    pub fn bytes(&self) -> Result<Vec<u8>, debian::Error> {
        let path = self.build()?;
        fs::read(&path).map_err(|error| io::Error::new(error.kind(), format!("{}: {error}", path.display())).into())
    }

    fn hash(&self) -> String {
        let mut hasher = blake3::Hasher::new();
        let words = [self.compiler].into_iter().chain(FLAGS.iter().copied());
        for part in words.chain(self.sources.iter().flat_map(|(name, text)| [*name, *text])) {
            hasher.update(&(part.len() as u64).to_le_bytes());
            hasher.update(part.as_bytes());
        }
        hasher.finalize().to_hex()[..16].to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_source_is_another_directory() {
        let other = Program { sources: &[("kvm_client.c", "")], ..RISCV64_KVM_CLIENT };
        assert_ne!(other.hash(), RISCV64_KVM_CLIENT.hash());
        assert_eq!(RISCV64_KVM_CLIENT.hash(), RISCV64_KVM_CLIENT.hash());
    }
}
