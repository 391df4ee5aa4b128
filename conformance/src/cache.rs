//! Where fetched and built files stand: `$UNDERVISOR_CACHE`, else `debian/` in cargo's target directory.

use std::path::{Path, PathBuf};
use std::{env, fs, io, process};

/// The root of all that this crate fetches and builds.
pub fn root() -> PathBuf {
    if let Some(cache) = env::var_os("UNDERVISOR_CACHE") {
        return cache.into();
    }
    let target = env::var_os("CARGO_TARGET_DIR")
        .map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../target"), PathBuf::from);
    target.join("debian")
}

/// Makes `path` (a directory) whole or not at all: `fill` works in a directory beside it, which is then renamed.
///
/// When another process was faster, its result stays.
pub fn directory<E: From<io::Error>>(path: &Path, fill: impl FnOnce(&Path) -> Result<(), E>) -> Result<(), E> {
    if path.is_dir() {
        return Ok(());
    }
    let scratch = scratch_beside(path)?;
    let filled = fill(&scratch);
    if filled.is_ok() && fs::rename(&scratch, path).is_ok() {
        return Ok(());
    }
    fs::remove_dir_all(&scratch)?;
    filled?;
    if path.is_dir() { Ok(()) } else { Err(io::Error::other(format!("cannot create {}", path.display())).into()) }
}

/// An empty directory of this process only, beside `path`.
pub fn scratch_beside(path: &Path) -> io::Result<PathBuf> {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(format!(".{}", process::id()));
    let scratch = path.with_file_name(name);
    if scratch.exists() {
        fs::remove_dir_all(&scratch)?;
    }
    fs::create_dir_all(&scratch)?;
    Ok(scratch)
}
