//! Snapshot files: a header, then the compressed image of a machine.
//!
//! | bytes | |
//! |---|---|
//! | 8 | the letters `UNDERVIS` |
//! | 4 | version, little-endian |
//! | 8 | length of the payload |
//! | 32 | BLAKE3 of the payload |
//! | ... | payload: [`to_bytes`](crate::to_bytes) of [`Contents`], compressed as an LZ4 frame |

use std::fs::{self, File};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::machine::Image;
use crate::ram::{PAGE_SIZE, RamImage};

const MAGIC: &[u8; 8] = b"UNDERVIS";
/// Changes whenever the meaning of any saved state does.
pub const VERSION: u32 = 6;
const HEADER: usize = 52;

/// Why a snapshot could not be written or read.
#[derive(Debug, thiserror::Error)]
pub enum SnapshotError {
    /// The file system's word.
    #[error("snapshot {path}: {source}")]
    File {
        /// The file.
        path: PathBuf,
        /// Its error.
        source: std::io::Error,
    },
    /// Not a snapshot at all.
    #[error("snapshot {0}: not an Undervisor snapshot")]
    Foreign(PathBuf),
    /// Of another version.
    #[error("snapshot {path}: version {found}, expected {VERSION}")]
    Version {
        /// The file.
        path: PathBuf,
        /// Its version.
        found: u32,
    },
    /// Shorter than it says.
    #[error("snapshot {path}: truncated: {found} bytes, expected {expected}")]
    Truncated {
        /// The file.
        path: PathBuf,
        /// Its length in bytes.
        found: u64,
        /// The length that its header tells.
        expected: u64,
    },
    /// Its checksum does not fit, or its contents make no sense.
    #[error("snapshot {path}: corrupted: {reason}")]
    Corrupted {
        /// The file.
        path: PathBuf,
        /// What does not fit.
        reason: String,
    },
}

/// What a snapshot holds.
#[derive(Serialize, Deserialize)]
struct Contents {
    /// What the machine was built from, as the platform wrote it.
    platform: Vec<u8>,
    state: Vec<u8>,
    /// Pages that are not all zero: physical address and 4096 bytes.
    pages: Vec<(u64, serde_bytes::ByteBuf)>,
    /// Addresses of pages that are read-only.
    read_only: Vec<u64>,
}

/// Writes `image` to `path`. The file is written aside and renamed when it is whole, so a good file of that name survives
/// a failure.
pub fn save(path: &Path, platform: &[u8], image: &Image) -> Result<(), SnapshotError> {
    let pages = image.ram.pages().map(|(pa, page)| (pa, serde_bytes::ByteBuf::from(page.as_slice())));
    let contents = Contents {
        platform: platform.to_vec(),
        state: image.state.clone(),
        pages: pages.collect(),
        read_only: image.ram.read_only().collect(),
    };
    let mut encoder = lz4_flex::frame::FrameEncoder::new(Vec::new());
    let file_error = |source| SnapshotError::File { path: path.into(), source };
    encoder.write_all(&crate::to_bytes(&contents)).map_err(file_error)?;
    let payload = encoder.finish().map_err(|e| file_error(e.into()))?;
    let mut header = Vec::with_capacity(HEADER);
    header.extend(MAGIC);
    header.extend(VERSION.to_le_bytes());
    header.extend((payload.len() as u64).to_le_bytes());
    header.extend(blake3::hash(&payload).as_bytes());
    write_aside(path, &[&header, &payload]).map_err(file_error)
}

/// Writes a file aside, then renames it to `path`: whoever reads `path` sees the old file or the new one, whole.
pub fn write_aside(path: &Path, parts: &[&[u8]]) -> std::io::Result<()> {
    let mut name = path.file_name().ok_or(std::io::ErrorKind::InvalidFilename)?.to_owned();
    name.push(format!(".{}.part", std::process::id()));
    let aside = path.with_file_name(name);
    let written = (|| {
        let mut file = File::create(&aside)?;
        for part in parts {
            file.write_all(part)?;
        }
        file.sync_all()?;
        fs::rename(&aside, path)
    })();
    if written.is_err() {
        let _ = fs::remove_file(&aside); // what failed first is what is reported
    }
    written
}

/// Reads a snapshot: what the platform wrote, and the image.
pub fn load(path: &Path) -> Result<(Vec<u8>, Image), SnapshotError> {
    let file_error = |source| SnapshotError::File { path: path.into(), source };
    let corrupted = |reason: &str| SnapshotError::Corrupted { path: path.into(), reason: reason.into() };
    let mut bytes = Vec::new();
    File::open(path).and_then(|mut f| f.read_to_end(&mut bytes)).map_err(file_error)?;
    if !bytes.starts_with(MAGIC) {
        return Err(SnapshotError::Foreign(path.into()));
    }
    let truncated = |expected: u64| SnapshotError::Truncated { path: path.into(), found: bytes.len() as u64, expected };
    let Some((header, payload)) = bytes.split_at_checked(HEADER) else { return Err(truncated(HEADER as u64)) };
    let version = u32::from_le_bytes(header[8..12].try_into().expect("4 bytes"));
    if version != VERSION {
        return Err(SnapshotError::Version { path: path.into(), found: version });
    }
    let length = u64::from_le_bytes(header[12..20].try_into().expect("8 bytes"));
    if (payload.len() as u64) < length {
        return Err(truncated(length.saturating_add(HEADER as u64)));
    }
    if payload.len() as u64 != length || *blake3::hash(payload).as_bytes() != header[20..52] {
        return Err(corrupted("its checksum does not fit"));
    }
    let mut plain = Vec::new();
    lz4_flex::frame::FrameDecoder::new(payload).read_to_end(&mut plain).map_err(|e| corrupted(&e.to_string()))?;
    let contents: Contents = crate::from_bytes(&plain).map_err(|e| corrupted(&e))?;
    let mut ram = RamImage::default();
    for (pa, page) in &contents.pages {
        let page = page.as_slice().try_into().map_err(|_| corrupted("a page has not 4096 bytes"))?;
        if pa % PAGE_SIZE != 0 {
            return Err(corrupted("a page's address is not aligned"));
        }
        ram.insert(*pa, page);
    }
    contents.read_only.iter().for_each(|pa| ram.protect(*pa));
    Ok((contents.platform, Image { state: contents.state, ram }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_is_not_whole_is_refused_by_name() {
        let dir = std::env::temp_dir().join(format!("undervisor-snapshot-{}", std::process::id()));
        fs::create_dir_all(&dir).unwrap();
        let path = dir.join("a.snap");
        let mut ram = RamImage::default();
        ram.insert(0x8000_0000, [7; 4096]);
        save(&path, b"board", &Image { state: vec![1, 2, 3], ram }).unwrap();
        let (platform, image) = load(&path).unwrap();
        assert_eq!((platform.as_slice(), image.state.as_slice()), (b"board".as_slice(), [1, 2, 3].as_slice()));
        assert_eq!(image.ram.pages().map(|(pa, p)| (pa, p[5])).collect::<Vec<_>>(), [(0x8000_0000, 7)]);

        let good = fs::read(&path).unwrap();
        let case = |bytes: &[u8]| {
            fs::write(&path, bytes).unwrap();
            load(&path).map(|_| ()).unwrap_err().to_string()
        };
        assert!(case(&good[..good.len() - 1]).contains("truncated"));
        assert!(case(&good[..20]).contains("truncated"));
        assert!(case(b"").contains("not an Undervisor snapshot"));
        assert!(case(b"something else").contains("not an Undervisor snapshot"));
        let mut other = good.clone();
        *other.last_mut().unwrap() ^= 1;
        assert!(case(&other).contains("checksum"));
        let mut other = good.clone();
        other[8] = 99;
        assert!(case(&other).contains("version 99"));
        assert!(load(&dir.join("absent")).is_err());
        // A failed save leaves the good file as it is.
        fs::write(&path, &good).unwrap();
        assert!(write_aside(&dir.join("no/such"), &[b"x"]).is_err());
        assert_eq!(fs::read(&path).unwrap(), good);
        fs::remove_dir_all(&dir).unwrap();
    }
}
