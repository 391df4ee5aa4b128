//! A disk with a root file system of Debian, for a virtual-machine monitor inside a guest: ext4, without a partition table.

use std::fs;
use std::path::Path;
use std::process::Command;

use crate::cache;
use crate::debian::{self, Unpacked};
use crate::prepare::Error;

/// What the file system is made with: nothing that changes from one time to the next, and nothing that a kernel needs further modules for
/// or that a disk which is only read has no use for.
const OPTIONS: [&str; 12] = [
    "-q",
    "-t",
    "ext4",
    "-O",
    "^metadata_csum,^has_journal,^resize_inode",
    "-m",
    "0",
    "-U",
    "756e6465-7276-4973-8f72-000000000001",
    "-E",
    "root_owner=0:0,hash_seed=756e6465-7276-4973-8f72-000000000002",
    "-d",
];

/// 2023-11-14 22:13:20, the time at which machines begin.
const TIME: &str = "1700000000";

/// Writes the image of a disk with a root file system and these files in its `/boot`.
pub fn write(path: &Path, root: &Unpacked, boot: &[&Path]) -> Result<(), Error> {
    debian::require_host_packages(&["e2fsprogs"])?;
    let in_file = |path: &Path| {
        let path = path.to_path_buf();
        move |source| Error::Io { path, source }
    };
    let staged = cache::scratch_beside(&root.root).map_err(in_file(&root.root))?;
    debian::run(Command::new("cp").args(["--archive", "--link"]).arg(root.root.join(".")).arg(&staged))?;
    for file in boot {
        fs::copy(file, staged.join("boot").join(file.file_name().unwrap_or_default())).map_err(in_file(file))?;
    }
    let kibibytes = debian::run(Command::new("du").args(["--summarize", "--block-size=1024"]).arg(&staged))?;
    let used: u64 = kibibytes.split_whitespace().next().and_then(|n| n.parse().ok()).unwrap_or_default();
    if path.exists() {
        fs::remove_file(path).map_err(in_file(path))?;
    }
    let made = debian::run(
        Command::new("mke2fs")
            .env("E2FSPROGS_FAKE_TIME", TIME)
            .args(OPTIONS)
            .arg(&staged)
            .arg(path)
            .arg(format!("{}k", used + used / 8 + 16 * 1024)),
    );
    fs::remove_dir_all(&staged).map_err(in_file(&staged))?;
    Ok(made.map(drop)?)
}
