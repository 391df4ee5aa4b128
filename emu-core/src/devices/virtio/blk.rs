//! Block device (Virtio 1.2, "Block Device").

use super::disk::{Disk, DiskMode, SECTOR};
use super::queue::{Broken, Chain, Queue};
use super::{Backend, copy_config};
use crate::device::DeviceCx;
use crate::dma::Dma;

const F_SEG_MAX: u64 = 1 << 2;
const F_RO: u64 = 1 << 5;
const F_BLK_SIZE: u64 = 1 << 6;
const F_FLUSH: u64 = 1 << 9;
const F_DISCARD: u64 = 1 << 13;
const F_WRITE_ZEROES: u64 = 1 << 14;

const QUEUE_SIZE: u16 = 256;
/// Sectors of one range to be discarded or zeroed: 32 MiB.
const MAX_RANGE: u32 = 0x1_0000;
const MAX_RANGES: u32 = 16;
/// Bytes copied at a time.
const PIECE: usize = 0x1_0000;
const HEADER: u64 = 16;
const ID_BYTES: usize = 20;

/// `virtio_blk_req.status`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Status {
    Ok = 0,
    IoErr = 1,
    Unsupp = 2,
}

/// A drive.
pub struct Blk {
    disk: Disk,
    serial: [u8; ID_BYTES],
}

impl Blk {
    /// A drive with a serial number, of which the first 20 bytes count.
    pub fn new(disk: Disk, serial: &str) -> Self {
        let mut id = [0; ID_BYTES];
        copy_config(serial.as_bytes(), 0, &mut id);
        Blk { disk, serial: id }
    }

    /// The disk.
    pub fn disk(&self) -> &Disk {
        &self.disk
    }

    /// "Device configuration layout".
    fn config(&self) -> [u8; 60] {
        let mut c = [0; 60];
        let mut put = |at: usize, bytes: &[u8]| c[at..at + bytes.len()].copy_from_slice(bytes);
        put(0, &self.disk.sectors().to_le_bytes());
        put(12, &u32::from(QUEUE_SIZE - 2).to_le_bytes()); // seg_max
        put(20, &(SECTOR as u32).to_le_bytes()); // blk_size
        put(36, &MAX_RANGE.to_le_bytes()); // max_discard_sectors
        put(40, &MAX_RANGES.to_le_bytes()); // max_discard_seg
        put(44, &1u32.to_le_bytes()); // discard_sector_alignment
        put(48, &MAX_RANGE.to_le_bytes()); // max_write_zeroes_sectors
        put(52, &MAX_RANGES.to_le_bytes()); // max_write_zeroes_seg
        c
    }

    /// "Device Operation". Returns the status and how many bytes were written before it.
    fn request(&mut self, ram: &mut Dma, chain: &Chain) -> Result<(Status, u64), Broken> {
        let header: [u8; 16] = chain.readable.read_array(ram, 0)?;
        let kind = u32::from_le_bytes(header[..4].try_into().unwrap_or_default());
        let sector = u64::from_le_bytes(header[8..].try_into().unwrap_or_default());
        let (input, output) = (chain.writable.len() - 1, chain.readable.len() - HEADER);
        let writes = matches!(kind, 1 | 11 | 13);
        if writes && self.disk.mode() == DiskMode::ReadOnly {
            return Ok((Status::IoErr, 0));
        }
        match kind {
            0 => self.read(ram, chain, sector, input),
            1 => Ok((self.write(ram, chain, sector, output)?, 0)),
            4 => Ok((if self.disk.flush().is_ok() { Status::Ok } else { Status::IoErr }, 0)),
            8 => {
                let n = input.min(ID_BYTES as u64);
                chain.writable.write(ram, 0, &self.serial[..n as usize])?;
                Ok((Status::Ok, n))
            }
            11 | 13 => Ok((self.ranges(ram, chain, output, kind == 13)?, 0)),
            _ => Ok((Status::Unsupp, 0)),
        }
    }

    /// The byte at which a transfer of `len` bytes starts, if it is of whole sectors and on the disk.
    fn place(&self, sector: u64, len: u64) -> Option<u64> {
        let at = sector.checked_mul(SECTOR)?;
        (len.is_multiple_of(SECTOR) && self.disk.contains(at, len)).then_some(at)
    }

    /// VIRTIO_BLK_T_IN.
    fn read(&self, ram: &mut Dma, chain: &Chain, sector: u64, len: u64) -> Result<(Status, u64), Broken> {
        let Some(at) = self.place(sector, len) else { return Ok((Status::IoErr, 0)) };
        let mut piece = vec![0; PIECE.min(len as usize)];
        let mut done = 0;
        while done < len {
            let n = (len - done).min(PIECE as u64) as usize;
            if self.disk.read(at + done, &mut piece[..n]).is_err() {
                return Ok((Status::IoErr, done));
            }
            chain.writable.write(ram, done, &piece[..n])?;
            done += n as u64;
        }
        Ok((Status::Ok, done))
    }

    /// VIRTIO_BLK_T_OUT.
    fn write(&mut self, ram: &mut Dma, chain: &Chain, sector: u64, len: u64) -> Result<Status, Broken> {
        let Some(at) = self.place(sector, len) else { return Ok(Status::IoErr) };
        let mut piece = vec![0; PIECE.min(len as usize)];
        let mut done = 0;
        while done < len {
            let n = (len - done).min(PIECE as u64) as usize;
            chain.readable.read(ram, HEADER + done, &mut piece[..n])?;
            if self.disk.write(at + done, &piece[..n]).is_err() {
                return Ok(Status::IoErr);
            }
            done += n as u64;
        }
        Ok(Status::Ok)
    }

    /// VIRTIO_BLK_T_DISCARD and VIRTIO_BLK_T_WRITE_ZEROES. Sectors that are discarded keep their contents, which the
    /// specification allows.
    fn ranges(&mut self, ram: &mut Dma, chain: &Chain, len: u64, zeroes: bool) -> Result<Status, Broken> {
        if !len.is_multiple_of(16) || len / 16 > u64::from(MAX_RANGES) {
            return Ok(Status::IoErr);
        }
        for i in 0..len / 16 {
            let range: [u8; 16] = chain.readable.read_array(ram, HEADER + 16 * i)?;
            let sector = u64::from_le_bytes(range[..8].try_into().unwrap_or_default());
            let sectors = u32::from_le_bytes(range[8..12].try_into().unwrap_or_default());
            let flags = u32::from_le_bytes(range[12..].try_into().unwrap_or_default());
            if flags & !1 != 0 || flags != 0 && !zeroes {
                return Ok(Status::Unsupp); // bit 0 is "unmap", which only write-zeroes has
            }
            let Some(at) = self.place(sector, u64::from(sectors) * SECTOR).filter(|_| sectors <= MAX_RANGE) else {
                return Ok(Status::IoErr);
            };
            let end = at + u64::from(sectors) * SECTOR;
            let mut at = at;
            while zeroes && at < end {
                let n = (end - at).min(PIECE as u64);
                if self.disk.write(at, &[0; PIECE][..n as usize]).is_err() {
                    return Ok(Status::IoErr);
                }
                at += n;
            }
        }
        Ok(Status::Ok)
    }
}

impl Backend for Blk {
    fn name(&self) -> &'static str {
        "virtio-blk"
    }

    fn id(&self) -> u32 {
        2
    }

    fn features(&self) -> u64 {
        let writable = F_DISCARD | F_WRITE_ZEROES;
        let mode = if self.disk.mode() == DiskMode::ReadOnly { F_RO } else { writable };
        F_SEG_MAX | F_BLK_SIZE | F_FLUSH | mode
    }

    fn queues(&self) -> &'static [u16] {
        &[QUEUE_SIZE]
    }

    fn read_config(&self, offset: u64, bytes: &mut [u8]) {
        copy_config(&self.config(), offset, bytes);
    }

    fn notify(&mut self, _: usize, queues: &mut [Queue], cx: &mut DeviceCx) -> Result<(), Broken> {
        let q = &mut queues[0];
        for _ in 0..q.available(&mut cx.dma())? {
            let Some(chain) = q.pop(&mut cx.dma())? else { break };
            // The status is the last byte of all, wherever that is.
            let at = chain.writable.len().checked_sub(1).ok_or(Broken::Request)?;
            let (status, written) = self.request(&mut cx.dma(), &chain)?;
            chain.writable.write(&mut cx.dma(), at, &[status as u8])?;
            q.push(&mut cx.dma(), chain.head, u32::try_from(written + 1).unwrap_or(u32::MAX))?;
        }
        Ok(())
    }

    fn reset(&mut self) {}

    fn save(&self) -> Vec<u8> {
        self.disk.save()
    }

    fn restore(&mut self, bytes: &[u8]) -> Result<(), String> {
        self.disk.restore(bytes)
    }
}
