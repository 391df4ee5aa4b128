//! What stands behind a drive: a raw file, or nothing, with an overlay on it or without.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use serde_bytes::ByteBuf;

/// Bytes in a sector.
pub const SECTOR: u64 = 512;
/// Bytes in a cluster of the overlay.
const CLUSTER: u64 = 4096;

/// What happens to writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum DiskMode {
    /// They go to the file, which no other writer or reader may have open under a lock.
    ReadWrite,
    /// The guest is told that the drive is read-only.
    ReadOnly,
    /// They are kept in memory, as part of the machine's state, and the file stays untouched.
    Overlay,
}

/// A disk that could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum DiskError {
    /// The host's word.
    #[error("{}: {source}", path.display())]
    Host {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Somebody else has it open.
    #[error("{}: another process uses this disk; only one may write to it", path.display())]
    InUse {
        /// The file.
        path: PathBuf,
    },
    /// A raw disk has whole sectors.
    #[error("{}: {size} bytes are not a whole number of sectors of 512 bytes", path.display())]
    Size {
        /// The file.
        path: PathBuf,
        /// Its size in bytes.
        size: u64,
    },
}

/// A disk.
pub struct Disk {
    file: Option<File>,
    mode: DiskMode,
    sectors: u64,
    overlay: BTreeMap<u64, ByteBuf>,
}

impl Disk {
    /// Opens a raw file. The lock lasts as long as the disk.
    pub fn open(path: &Path, mode: DiskMode) -> Result<Self, DiskError> {
        let host = |source| DiskError::Host { path: path.into(), source };
        let writes = mode == DiskMode::ReadWrite;
        let mut file = OpenOptions::new().read(true).write(writes).open(path).map_err(host)?;
        match if writes { file.try_lock() } else { file.try_lock_shared() } {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(DiskError::InUse { path: path.into() }),
            Err(TryLockError::Error(e)) => return Err(host(e)),
        }
        // Not the metadata's size, which is 0 for a block device.
        let size = file.seek(SeekFrom::End(0)).map_err(host)?;
        if !size.is_multiple_of(SECTOR) {
            return Err(DiskError::Size { path: path.into(), size });
        }
        Ok(Disk { file: Some(file), mode, sectors: size / SECTOR, overlay: BTreeMap::new() })
    }

    /// A disk of zeros that is kept in memory, as part of the machine's state.
    pub fn in_memory(sectors: u64) -> Self {
        Disk { file: None, mode: DiskMode::Overlay, sectors, overlay: BTreeMap::new() }
    }

    /// Its size in sectors.
    pub fn sectors(&self) -> u64 {
        self.sectors
    }

    /// What happens to writes.
    pub fn mode(&self) -> DiskMode {
        self.mode
    }

    /// Whether `len` bytes at `at` are on the disk.
    pub fn contains(&self, at: u64, len: u64) -> bool {
        at.checked_add(len).is_some_and(|end| end <= self.sectors * SECTOR)
    }

    fn read_file(&self, at: u64, bytes: &mut [u8]) -> io::Result<()> {
        let Some(mut file) = self.file.as_ref() else {
            bytes.fill(0);
            return Ok(());
        };
        file.seek(SeekFrom::Start(at))?;
        file.read_exact(bytes)
    }

    /// Reads bytes at `at`. A file that has become shorter is an error.
    pub fn read(&self, at: u64, bytes: &mut [u8]) -> io::Result<()> {
        self.require(at, bytes.len())?;
        if self.overlay.is_empty() {
            return self.read_file(at, bytes);
        }
        let mut done = 0;
        while done < bytes.len() {
            let (cluster, from) = ((at + done as u64) / CLUSTER, ((at + done as u64) % CLUSTER) as usize);
            let n = (bytes.len() - done).min(CLUSTER as usize - from);
            let piece = &mut bytes[done..done + n];
            match self.overlay.get(&cluster) {
                Some(kept) => piece.copy_from_slice(&kept[from..from + n]),
                None => self.read_file(at + done as u64, piece)?,
            }
            done += n;
        }
        Ok(())
    }

    /// Writes bytes at `at`. Of a write that fails some bytes may have been written.
    pub fn write(&mut self, at: u64, bytes: &[u8]) -> io::Result<()> {
        self.require(at, bytes.len())?;
        match self.mode {
            DiskMode::ReadOnly => Err(io::ErrorKind::ReadOnlyFilesystem.into()),
            DiskMode::ReadWrite => self.write_file(at, bytes),
            DiskMode::Overlay => self.write_overlay(at, bytes),
        }
    }

    fn write_file(&self, at: u64, bytes: &[u8]) -> io::Result<()> {
        let Some(mut file) = self.file.as_ref() else { return Err(io::ErrorKind::NotFound.into()) };
        // A file that was cut short must not grow again behind the guest's back.
        if file.seek(SeekFrom::End(0))? < at + bytes.len() as u64 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        file.seek(SeekFrom::Start(at))?;
        file.write_all(bytes)
    }

    fn write_overlay(&mut self, at: u64, bytes: &[u8]) -> io::Result<()> {
        let mut done = 0;
        while done < bytes.len() {
            let (cluster, from) = ((at + done as u64) / CLUSTER, ((at + done as u64) % CLUSTER) as usize);
            let n = (bytes.len() - done).min(CLUSTER as usize - from);
            if !self.overlay.contains_key(&cluster) {
                let mut kept = vec![0; CLUSTER as usize];
                if n < CLUSTER as usize {
                    let whole = CLUSTER.min(self.sectors * SECTOR - cluster * CLUSTER) as usize;
                    self.read_file(cluster * CLUSTER, &mut kept[..whole])?;
                }
                self.overlay.insert(cluster, ByteBuf::from(kept));
            }
            if let Some(kept) = self.overlay.get_mut(&cluster) {
                kept[from..from + n].copy_from_slice(&bytes[done..done + n]);
            }
            done += n;
        }
        Ok(())
    }

    /// Makes what was written last.
    pub fn flush(&self) -> io::Result<()> {
        match (&self.file, self.mode) {
            (Some(file), DiskMode::ReadWrite) => file.sync_data(),
            _ => Ok(()),
        }
    }

    fn require(&self, at: u64, len: usize) -> io::Result<()> {
        if self.contains(at, len as u64) { Ok(()) } else { Err(io::ErrorKind::InvalidInput.into()) }
    }

    /// The overlay, and what it lies on.
    pub(super) fn save(&self) -> Vec<u8> {
        crate::to_bytes(&(self.sectors, &self.overlay))
    }

    pub(super) fn restore(&mut self, bytes: &[u8]) -> Result<(), String> {
        let (sectors, overlay): (u64, BTreeMap<u64, ByteBuf>) = crate::from_bytes(bytes)?;
        if sectors != self.sectors {
            return Err(format!("the drive had {sectors} sectors and has {} now", self.sectors));
        }
        let clusters = (sectors * SECTOR).div_ceil(CLUSTER);
        if overlay.iter().any(|(at, bytes)| *at >= clusters || bytes.len() as u64 != CLUSTER) {
            return Err("the overlay does not fit the drive".into());
        }
        self.overlay = overlay;
        Ok(())
    }
}
