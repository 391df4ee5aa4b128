//! What a board may be given in a place for a virtio device, whatever transport it has there.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::Backend;
use super::blk::Blk;
use super::console::Console;
use super::disk::{Disk, DiskError, DiskMode};
use super::net::Net;
use super::rng::Rng;

/// A virtio device to be made.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum VirtioDevice {
    /// A drive.
    Drive {
        /// A raw file.
        path: PathBuf,
        /// What happens to writes.
        mode: DiskMode,
        /// Serial number that the guest sees, up to 20 bytes.
        serial: String,
    },
    /// A console.
    Console {
        /// The door's port.
        port: u32,
    },
    /// A source of entropy.
    Rng {
        /// From which it all follows.
        seed: u64,
    },
    /// A network card.
    Net {
        /// Its address.
        mac: [u8; 6],
    },
}

impl VirtioDevice {
    /// Makes it. The file of a drive is opened.
    pub fn open(&self) -> Result<Box<dyn Backend>, DiskError> {
        Ok(match self {
            VirtioDevice::Drive { path, mode, serial } => Box::new(Blk::new(Disk::open(path, *mode)?, serial)),
            VirtioDevice::Console { port } => Box::new(Console::new(*port)),
            VirtioDevice::Rng { seed } => Box::new(Rng::new(*seed)),
            VirtioDevice::Net { mac } => Box::new(Net::new(*mac)),
        })
    }
}
