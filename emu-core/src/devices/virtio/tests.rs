use std::collections::VecDeque;
use std::fs;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use proptest::prelude::*;

use super::blk::Blk;
use super::console::Console;
use super::disk::{Disk, DiskError, DiskMode};
use super::driver::{DATA, Driver, Part, RAM, RAM_SIZE};
use super::mmio::{EmptySlot, VirtioMmio};
use super::net::Net;
use super::rng::Rng;
use super::{F_EVENT_IDX, F_INDIRECT_DESC};
use crate::device::{Bench, Device};

/// A file of its own for each test, gone afterwards.
struct Temporary(PathBuf);
impl Temporary {
    fn new(name: &str, bytes: &[u8]) -> Self {
        let path = std::env::temp_dir().join(format!("emu-core-virtio-{}-{name}", std::process::id()));
        fs::write(&path, bytes).unwrap();
        Temporary(path)
    }
}
impl Drop for Temporary {
    fn drop(&mut self) {
        drop(fs::remove_file(&self.0));
    }
}

fn blk(disk: Disk) -> Driver {
    Driver::new(Blk::new(disk, "serial-number-of-this-drive"))
}

const HEADER: u64 = DATA;
const STATUS: u64 = DATA + 0x20;
const BUFFER: u64 = DATA + 0x1000;

/// One request of a block device: returns its status.
fn blk_request(d: &mut Driver, kind: u32, sector: u64, len: u32, writable: bool) -> u8 {
    d.put(HEADER, &kind.to_le_bytes());
    d.put(HEADER + 8, &sector.to_le_bytes());
    d.put(STATUS, &[0xff]);
    d.request(0, &[(HEADER, 16, false), (BUFFER, len, writable), (STATUS, 1, true)]);
    d.get::<1>(STATUS)[0]
}

/// "MMIO Device Register Layout".
#[test]
fn identification() {
    let mut d = blk(Disk::in_memory(64));
    assert_eq!((d.r(0), d.r(4), d.r(8)), (0x7472_6976, 2, 2));
    d.w(0x14, 1);
    assert_eq!((d.r(0x10), d.r(0xb0), d.r(0xb8)), (1, u32::MAX, u32::MAX));
    assert_eq!((d.r(0x100), d.r(0x104), d.bench.read(&mut d.device, 0x114, 2)), (64, 0, 512));
    d.w(0x30, 1);
    assert_eq!(d.r(0x34), 0, "there is no queue 1");
    let mut b = Bench::default();
    assert_eq!([0, 4, 8].map(|at| b.read(&mut EmptySlot, at, 4)), [0x7472_6976, 2, 0]);
}

/// "Driver Requirements: Device Initialization": a feature that was not offered, or no VIRTIO_F_VERSION_1.
#[test]
fn features_that_do_not_agree() {
    let mut d = blk(Disk::in_memory(64));
    for (low, high) in [(0, 0), (1 << 5, 1), (0, 3)] {
        d.w(0x70, 0);
        for (sel, value) in [(0, low), (1, high)] {
            d.w(0x24, sel);
            d.w(0x20, value);
        }
        d.w(0x70, 0xb);
        assert_eq!(d.r(0x70), 3);
        d.w(0x70, 0xf);
        d.add(0, &[(DATA, 16, false), (STATUS, 1, true)]);
        d.notify(0);
        assert_eq!(d.used(0), None);
    }
}

#[test]
fn interrupts() {
    let mut d = blk(Disk::in_memory(64));
    assert_eq!(blk_request(&mut d, 4, 0, 0, true), 0);
    assert_eq!((d.bench.last_level(0), d.r(0x60)), (Some(true), 1));
    d.w(0x64, 1);
    assert_eq!((d.bench.last_level(0), d.r(0x60)), (Some(false), 0));
    let ring = d.queue(0) + 0x1000;
    d.put(ring, &[1, 0]); // VIRTQ_AVAIL_F_NO_INTERRUPT
    blk_request(&mut d, 4, 0, 0, true);
    assert_eq!(d.r(0x60), 0);
}

/// "Used Buffer Notification Suppression" and "Available Buffer Notification Suppression" with VIRTIO_F_EVENT_IDX.
#[test]
fn event_indexes() {
    let mut d = Driver::with_features(Rng::new(1), F_EVENT_IDX);
    let (available, used, size) = (d.queue(0) + 0x1000, d.queue(0) + 0x2000, u64::from(d.size));
    d.put(available + 4 + 2 * size, &[2, 0]); // an interrupt at the third
    for (n, interrupt) in [(1, 0), (2, 0), (3, 1), (4, 0)] {
        d.w(0x64, 1);
        d.request(0, &[(DATA, 8, true)]);
        assert_eq!(d.r(0x60), interrupt, "chain {n}");
        assert_eq!(d.get::<2>(used + 4 + 8 * size), [n, 0], "avail_event");
    }
}

/// "Block Device", Device Operation.
#[test]
fn blk_reads_what_it_wrote() {
    let mut d = blk(Disk::in_memory(64));
    d.put(BUFFER, &[0x5a; 1024]);
    assert_eq!(blk_request(&mut d, 1, 62, 1024, false), 0);
    d.put(BUFFER, &[0; 2048]);
    assert_eq!(blk_request(&mut d, 0, 61, 1536, true), 0);
    assert_eq!((d.get::<512>(BUFFER), d.get::<1024>(BUFFER + 512)), ([0; 512], [0x5a; 1024]));
    for (kind, sector, len, writable, status) in [
        (0, 63, 1024, true, 1),
        (1, 63, 1024, false, 1),
        (0, u64::MAX, 512, true, 1),
        (0, 0, 511, true, 1),
        (4, 0, 0, true, 0),
        (99, 0, 512, true, 2),
    ] {
        assert_eq!(blk_request(&mut d, kind, sector, len, writable), status, "{kind} {sector} {len}");
    }
    assert_eq!(blk_request(&mut d, 8, 0, 20, true), 0);
    assert_eq!(&d.get::<20>(BUFFER), b"serial-number-of-thi");
}

#[test]
fn blk_discard_and_write_zeroes() {
    let mut d = blk(Disk::in_memory(64));
    d.put(BUFFER, &[0x5a; 4096]);
    assert_eq!(blk_request(&mut d, 1, 0, 4096, false), 0);
    let mut range = |kind: u32, sector: u64, sectors: u32, flags: u32| {
        let bytes = [&sector.to_le_bytes()[..], &sectors.to_le_bytes(), &flags.to_le_bytes()].concat();
        d.put(BUFFER, &bytes);
        blk_request(&mut d, kind, 0, 16, false)
    };
    assert_eq!((range(13, 1, 2, 1), range(11, 4, 1, 0)), (0, 0));
    assert_eq!((range(11, 4, 1, 1), range(13, 4, 1, 2), range(13, 63, 2, 0)), (2, 2, 1));
    blk_request(&mut d, 0, 0, 4096, true);
    let sectors: Vec<u8> = (0..8).map(|s| d.get::<1>(BUFFER + 512 * s)[0]).collect();
    assert_eq!(sectors, [0x5a, 0, 0, 0x5a, 0x5a, 0x5a, 0x5a, 0x5a]);
}

#[test]
fn a_file_is_written_and_locked() {
    let file = Temporary::new("rw", &[1; 4096]);
    let mut d = blk(Disk::open(&file.0, DiskMode::ReadWrite).unwrap());
    for mode in [DiskMode::ReadWrite, DiskMode::ReadOnly, DiskMode::Overlay] {
        assert!(matches!(Disk::open(&file.0, mode), Err(DiskError::InUse { .. })));
    }
    d.put(BUFFER, &[2; 512]);
    assert_eq!((blk_request(&mut d, 1, 7, 512, false), blk_request(&mut d, 4, 0, 0, true)), (0, 0));
    assert_eq!(fs::read(&file.0).unwrap()[3583..3585], [1, 2]);
    fs::File::options().write(true).open(&file.0).unwrap().set_len(2048).unwrap();
    assert_eq!(blk_request(&mut d, 0, 0, 512, true), 0);
    assert_eq!((blk_request(&mut d, 0, 4, 512, true), blk_request(&mut d, 1, 4, 512, false)), (1, 1));
    assert_eq!(fs::metadata(&file.0).unwrap().len(), 2048);
    drop(d);
    Disk::open(&file.0, DiskMode::ReadWrite).unwrap();
}

#[test]
fn a_read_only_disk_and_an_overlay_leave_the_file() {
    let file = Temporary::new("ro", &[1; 4096 + 512]);
    let mut read_only = blk(Disk::open(&file.0, DiskMode::ReadOnly).unwrap());
    let mut overlay = blk(Disk::open(&file.0, DiskMode::Overlay).unwrap());
    assert!(matches!(Disk::open(&file.0, DiskMode::ReadWrite), Err(DiskError::InUse { .. })));
    assert_eq!((read_only.r(0x10) >> 5 & 1, overlay.r(0x10) >> 5 & 1), (1, 0));
    assert_eq!(blk_request(&mut read_only, 1, 0, 512, false), 1);
    overlay.put(BUFFER, &[2; 512]);
    assert_eq!((blk_request(&mut overlay, 1, 1, 512, false), blk_request(&mut overlay, 1, 8, 512, false)), (0, 0));
    assert!(fs::read(&file.0).unwrap().iter().all(|b| *b == 1));
    let saved = overlay.device.save();
    let mut again = blk(Disk::open(&file.0, DiskMode::Overlay).unwrap());
    again.device.restore(&saved).unwrap();
    again.initialize(0);
    assert_eq!(blk_request(&mut again, 0, 0, 4096 + 512, true), 0);
    let sectors: Vec<u8> = (0..9).map(|s| again.get::<1>(BUFFER + 512 * s)[0]).collect();
    assert_eq!(sectors, [1, 2, 1, 1, 1, 1, 1, 1, 2]);
    assert!(VirtioMmio::new(Box::new(Blk::new(Disk::in_memory(8), ""))).restore(&saved).is_err());
}

#[test]
fn disks_that_cannot_be() {
    let file = Temporary::new("size", &[0; 100]);
    assert!(matches!(Disk::open(&file.0, DiskMode::ReadOnly), Err(DiskError::Size { size: 100, .. })));
    assert!(matches!(Disk::open(&file.0.join("x"), DiskMode::ReadOnly), Err(DiskError::Host { .. })));
}

/// "Indirect Descriptors".
#[test]
fn indirect_descriptors() {
    let mut d = Driver::with_features(Rng::new(1), F_INDIRECT_DESC);
    let (table, queue) = (DATA, d.queue(0));
    d.descriptor(table, DATA + 0x100, 4, 3, 2);
    d.descriptor(table + 32, DATA + 0x200, 4, 2, 0);
    d.descriptor(queue, table, 48, 4, 0);
    d.offer(0, 0);
    d.notify(0);
    assert_eq!(d.used(0), Some((0, 8)));
    assert!(d.get::<4>(DATA + 0x200) != [0; 4]);
    for (len, flags) in [(47, 4), (48, 5), (0, 4), (1 << 20, 4)] {
        d.initialize(F_INDIRECT_DESC);
        d.descriptor(queue, table, len, flags, 0);
        d.bench.ram.store(queue + 0x1000, 8, 0).unwrap();
        d.offer(0, 0);
        d.notify(0);
        assert!(d.is_broken(), "{len} {flags}");
    }
    d.initialize(F_INDIRECT_DESC);
    d.descriptor(table, table, 16, 4, 0);
    d.descriptor(queue, table, 16, 4, 0);
    d.bench.ram.store(queue + 0x1000, 8, 0).unwrap();
    d.offer(0, 0);
    d.notify(0);
    assert!(d.is_broken(), "a table within a table");
}

/// What a driver must not do ends in DEVICE_NEEDS_RESET, with a configuration interrupt; a reset cures it.
#[test]
fn broken_drivers() {
    let loops: [(u64, u32, u16, u16); 5] = [
        (DATA, 16, 1, 0),               // a chain that is its own next
        (DATA, 16, 1, 16),              // a descriptor that does not exist
        (RAM + RAM_SIZE - 8, 16, 2, 0), // beyond the end of RAM
        (u64::MAX, 16, 2, 0),
        (DATA, 16, 4, 0), // indirect without having agreed
    ];
    for (address, len, flags, next) in loops {
        let mut d = Driver::new(Rng::new(1));
        let queue = d.queue(0);
        d.descriptor(queue, address, len, flags, next);
        d.offer(0, 0);
        d.notify(0);
        assert!(d.is_broken() && d.used(0).is_none());
        assert_eq!((d.r(0x60), d.bench.last_level(0)), (2, Some(true)));
        d.bench.ram.store(queue + 0x1000, 8, 0).unwrap();
        d.initialize(0);
        assert_eq!((d.is_broken(), d.bench.last_level(0)), (false, Some(false)));
        assert_eq!(d.request(0, &[(DATA, 8, true)]), 8);
    }
    let bad: [&[Part]; 3] =
        [&[(HEADER, 15, false), (STATUS, 1, true)], &[(HEADER, 16, false)], &[(STATUS, 1, true), (HEADER, 16, false)]];
    for parts in bad {
        let mut d = blk(Disk::in_memory(8));
        d.add(0, parts);
        d.notify(0);
        assert!(d.is_broken());
    }
    let mut d = Driver::new(Rng::new(1));
    let ring = d.queue(0) + 0x1000;
    d.put(ring + 2, &[17, 0]);
    d.notify(0);
    assert!(d.is_broken(), "more chains than the queue has room for");
}

#[test]
fn console_sends_and_receives() {
    let (mut d, out) = (Driver::new(Console::new(3)), Arc::new(Mutex::new(Vec::new())));
    d.bench.door.connect_output(3, Box::new(out.clone()));
    d.bench.door.connect_piped(3, Box::new((0..70).collect::<VecDeque<_>>()));
    d.put(DATA, b"hello");
    d.request(1, &[(DATA, 2, false), (DATA + 2, 3, false)]);
    assert_eq!(*out.lock().unwrap(), b"hello");
    assert_eq!(d.device.wakes_at(), None, "no buffer, no demand");
    assert_eq!(d.request(0, &[(DATA, 100, true)]), 64);
    d.add(0, &[(DATA, 100, true)]);
    d.notify(0);
    assert_eq!((d.used(0), d.device.wakes_at()), (None, Some(1_000_000)));
    d.bench.run_to(&mut d.device, 1_000_000);
    assert_eq!((d.used(0).map(|u| u.1), d.get::<6>(DATA)), (Some(6), [64, 65, 66, 67, 68, 69]));
    d.add(0, &[(DATA, 100, true)]);
    d.notify(0);
    d.bench.run_to(&mut d.device, 9_000_000);
    assert_eq!((d.used(0), d.device.wakes_at()), (None, None), "the end of input does not wake for ever");
    d.bench.door.arrive(3, b"x");
    d.device.tick(&mut d.bench.cx());
    assert_eq!(d.used(0).map(|u| u.1), Some(1));
}

#[test]
fn rng_follows_its_seed() {
    let bytes = |seed| {
        let mut d = Driver::new(Rng::new(seed));
        assert_eq!(d.request(0, &[(DATA, 3, true), (DATA + 0x100, 61, true)]), 64);
        (d.get::<3>(DATA), d.get::<61>(DATA + 0x100))
    };
    assert_eq!(bytes(1), bytes(1));
    assert_ne!(bytes(1), bytes(2));
    let mut d = Driver::new(Rng::new(1));
    assert_eq!(d.request(0, &[(DATA, 0x8000, true)]), 4096, "fewer than asked for");
}

#[test]
fn net_has_an_address_and_swallows_what_is_sent() {
    let mut d = Driver::new(Net::new([2, 0, 0, 0, 0, 7]));
    assert_eq!(d.bench.read(&mut d.device, 0x100, 8), 0x0001_0700_0000_0002);
    assert_eq!(d.request(1, &[(DATA, 12, false), (DATA + 12, 60, false)]), 0);
    d.add(0, &[(DATA, 2000, true)]);
    d.notify(0);
    assert_eq!(d.used(0), None);
}

proptest! {
    /// Rings, tables and buffers full of anything: no panic, no endless loop.
    #[test]
    fn nothing_panics(
        kind in 0u8..4,
        features in 0u64..4,
        pokes in prop::collection::vec((0u64..0x40, 0u64..6, any::<u64>(), 0u8..6), 1..60),
        registers in prop::collection::vec((0u64..0x140, 1u8..=8, any::<u64>(), any::<bool>(), 0u32..3), 1..60),
    ) {
        let features = features << 28;
        let mut d = match kind {
            0 => Driver::with_features(Blk::new(Disk::in_memory(64), ""), features),
            1 => Driver::with_features(Console::new(0), features),
            2 => Driver::with_features(Rng::new(1), features),
            _ => Driver::with_features(Net::new([0; 6]), features),
        };
        d.bench.door.connect_piped(0, Box::new((0..70).collect::<VecDeque<_>>()));
        for ((word, page, value, shape), (at, size, data, write, notify)) in pokes.iter().zip(registers.iter().cycle()) {
            let value = match shape {
                0 => *value,                                             // anything
                1 => RAM + value % RAM_SIZE,                             // an address in RAM
                2 => value & 0x0007_0007_0000_ffff,                      // length, flags, next
                3 => value & 0x000f_0007_0000_01ff,
                4 => value & 0x000f_000f_000f_000f,                      // ring entries
                _ => value % 16,
            };
            d.bench.ram.store(RAM + 0x1000 * page + 8 * (word % 0x22), 8, value).unwrap();
            let notify = *notify;
            d.w(0x50, notify);
            if data % 8 == 0 {
                if *write { d.bench.write(&mut d.device, *at, *size, *data) } else { d.bench.read(&mut d.device, *at, *size); }
            }
            let to = d.bench.now + data % 0x10_0000;
            d.bench.run_to(&mut d.device, to);
            if d.is_broken() && data % 2 == 0 {
                d.bench.ram.write(RAM, &[0; 0x6000]).unwrap();
                d.initialize(features);
            }
        }
        let saved = d.device.save();
        d.device.restore(&saved).unwrap();
        prop_assert_eq!(saved, d.device.save());
    }
}
