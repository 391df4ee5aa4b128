//! Files that a run writes. All are checked before any is made, so that no run is lost to a wrong path, and a usage error
//! leaves no file behind and destroys none.

use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use emu_core::snapshot;

use crate::error::{UserError, about};

/// A file that a run reads or writes, and the option that names it.
pub struct Named<'a> {
    /// Such as `--trace`.
    pub option: &'static str,
    /// The file.
    pub path: &'a Path,
}

/// Whether both are the same file, or will be. A device, a pipe or `/dev/null` may serve many.
fn are_one(a: &Path, b: &Path) -> bool {
    match (fs::metadata(a), fs::metadata(b)) {
        (Ok(a), Ok(b)) => a.is_file() && (a.dev(), a.ino()) == (b.dev(), b.ino()),
        (Err(_), Err(_)) => place(a).is_some_and(|p| Some(p) == place(b)),
        _ => false,
    }
}

/// Where a file that is not there yet will be.
fn place(path: &Path) -> Option<PathBuf> {
    Some(directory(path).canonicalize().ok()?.join(path.file_name()?))
}

fn directory(path: &Path) -> &Path {
    path.parent().filter(|d| !d.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// What is written can be, and destroys nothing that is read. A snapshot may take the place of the one that was restored.
pub fn check(written: &[Named], read: &[Named]) -> Result<(), UserError> {
    for (i, one) in written.iter().enumerate() {
        require_writable(one)?;
        let is_replaced = |other: &&Named| one.option == "--snapshot" && other.option == "--restore";
        let others = written[..i].iter().chain(read.iter().filter(|other| !is_replaced(other)));
        for other in others {
            if are_one(one.path, other.path) {
                let both = format!("{} and {} name the same file", other.option, one.option);
                return Err(about(one.path.display(), both));
            }
        }
    }
    Ok(())
}

/// The file can be written, or made: its directory exists and takes files.
fn require_writable(file: &Named) -> Result<(), UserError> {
    use rustix::fs::{Access, access};
    let (path, dir) = (file.path, directory(file.path));
    if path.is_dir() {
        return Err(about(path.display(), "it is a directory; expected a file"));
    }
    if file.option == "--snapshot" && path.exists() && !path.is_file() {
        return Err(about(path.display(), "expected an ordinary file for a snapshot"));
    }
    if !dir.is_dir() {
        return Err(about(path.display(), format!("there is no directory {}", dir.display())));
    }
    let needed = if path.exists() && !is_made_aside(file) { path } else { dir };
    access(needed, Access::WRITE_OK).map_err(|e| about(path.display(), std::io::Error::from(e)))
}

/// Such a file is written aside and renamed when it is whole.
fn is_made_aside(file: &Named) -> bool {
    !matches!(file.option, "--trace" | "--console") && file.path.is_file()
}

/// Opens files to be written while the machine runs. If one cannot be, all are as they were.
pub fn open(paths: &[&Path]) -> Result<Vec<File>, UserError> {
    let mut files = Vec::new();
    let mut made = Vec::new();
    for path in paths {
        let is_new = !path.exists();
        match OpenOptions::new().write(true).create(true).truncate(false).open(path) {
            Ok(file) => files.push(file),
            Err(e) => {
                made.iter().for_each(|path| drop(fs::remove_file(path))); // the first error is the one that counts
                return Err(about(path.display(), e));
            }
        }
        if is_new {
            made.push(path);
        }
    }
    for (file, path) in files.iter().zip(paths) {
        if path.is_file() {
            file.set_len(0).map_err(|e| about(path.display(), e))?;
        }
    }
    Ok(files)
}

/// Writes a whole file: aside, then renamed, so that whoever reads it sees the old one or the new one. What is no ordinary
/// file, such as `/dev/stdout`, is written as it is.
pub fn save(path: &Path, parts: &[&[u8]]) -> Result<(), UserError> {
    let written = match fs::metadata(path) {
        Ok(data) if !data.is_file() => OpenOptions::new()
            .write(true)
            .open(path)
            .and_then(|mut file| parts.iter().try_for_each(|part| file.write_all(part))),
        // A link stays a link.
        Ok(_) => path.canonicalize().and_then(|path| snapshot::write_aside(&path, parts)),
        Err(_) => snapshot::write_aside(path, parts),
    };
    written.map_err(|e| about(path.display(), e))
}
