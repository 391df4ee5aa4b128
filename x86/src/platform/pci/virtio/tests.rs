use emu_core::device::{Bench, Signal};
use emu_core::devices::virtio::blk::Blk;
use emu_core::devices::virtio::disk::Disk;
use emu_core::devices::virtio::rng::Rng;
use proptest::prelude::*;

use super::*;

/// Queue 0: descriptors at 0, available ring at 1000h, used ring at 2000h.
struct Rig {
    f: VirtioPci,
    b: Bench,
}
impl Rig {
    fn new(backend: impl Backend + 'static) -> Self {
        let mut b = Bench::default();
        b.ram.add(0, 0x1_0000).unwrap();
        let mut rig = Rig { f: VirtioPci::new(Box::new(backend)), b };
        rig.set_config(header::COMMAND, &[6]);
        rig
    }
    fn set_config(&mut self, at: usize, bytes: &[u8]) {
        for (i, byte) in bytes.iter().enumerate() {
            self.f.write_config(at + i, *byte, &mut self.b.cx());
        }
        self.f.config_written(&mut self.b.cx());
    }
    fn r(&mut self, offset: u64, size: u8) -> u64 {
        self.f.read(BAR, Access { offset, size }, &mut self.b.cx())
    }
    fn w(&mut self, offset: u64, size: u8, value: u64) {
        self.f.write(BAR, Access { offset, size }, value, &mut self.b.cx());
    }
    /// "Driver Requirements: Device Initialization".
    fn initialize(&mut self) {
        for value in [0, 1, 3] {
            self.w(common::DEVICE_STATUS, 1, value);
        }
        for (select, features) in [(0, 0), (1, 1)] {
            self.w(common::DRIVER_FEATURE_SELECT, 4, select);
            self.w(common::DRIVER_FEATURE, 4, features);
        }
        self.w(common::DEVICE_STATUS, 1, 0xb);
        assert_eq!(self.r(common::DEVICE_STATUS, 1), 0xb);
        self.w(common::QUEUE_SELECT, 2, 0);
        self.w(common::QUEUE_SIZE, 2, 8);
        self.w(common::QUEUE_DESC, 8, 0);
        self.w(common::QUEUE_DRIVER, 4, 0x1000);
        self.w(common::QUEUE_DEVICE, 8, 0x2000);
        self.w(common::QUEUE_ENABLE, 2, 1);
        self.w(common::DEVICE_STATUS, 1, 0xf);
    }
    /// Offers a buffer of 16 bytes at 3000h to be written, for the `n`th time.
    fn request(&mut self, n: u64) {
        self.b.ram.store(0, 8, 0x3000).unwrap();
        self.b.ram.store(8, 8, 2 << 32 | 16).unwrap();
        self.b.ram.store(0x1000 + 4 + 2 * ((n - 1) % 8), 2, 0).unwrap();
        self.b.ram.store(0x1002, 2, n).unwrap();
        self.w(NOTIFY, 2, 0);
    }
    /// Where the capability of a kind is.
    fn capability(&self, kind: u32) -> usize {
        let mut at = usize::from(self.f.config.read(header::CAPABILITIES));
        while self.f.config.get(at, 1) != capability::ID.into() || self.f.config.get(at + capability::TYPE, 1) != kind {
            at = usize::from(self.f.config.read(at + 1));
            assert_ne!(at, 0, "no capability of kind {kind}");
        }
        at
    }
}

#[test]
fn identity_and_capabilities() {
    let r = Rig::new(Blk::new(Disk::in_memory(4), "x"));
    let c = r.f.config();
    assert_eq!((c.get(0, 4), c.get(8, 4), c.get(header::SUBSYSTEM, 4)), (0x1042_1af4, 0x0100_0001, 0x1100_1af4));
    for (kind, offset) in [(1, 0), (3, 0x1000), (4, 0x2000), (2, 0x3000)] {
        let at = r.capability(kind);
        assert_eq!((c.get(at + 4, 1), c.get(at + 8, 4), c.get(at + 12, 4)), (0, offset, 0x1000));
    }
    assert_eq!(c.get(r.capability(2) + 16, 4), 4);
}

#[test]
fn common_configuration() {
    let mut r = Rig::new(Rng::new(1));
    assert_eq!((r.r(common::NUM_QUEUES, 2), r.r(common::CONFIG_MSIX_VECTOR, 2)), (1, 0xffff));
    let max = r.r(common::QUEUE_SIZE, 2);
    assert!(max >= 8 && max.is_power_of_two());
    for (size, reads) in [(3, max), (max * 2, max), (4, 4)] {
        r.w(common::QUEUE_SIZE, 2, size);
        assert_eq!(r.r(common::QUEUE_SIZE, 2), reads);
    }
    r.w(common::QUEUE_DESC, 4, 0x1234_5000);
    r.w(common::QUEUE_DESC + 4, 4, 0x77);
    assert_eq!((r.r(common::QUEUE_DESC, 8), r.r(common::QUEUE_DESC + 4, 4)), (0x77_1234_5000, 0x77));
    r.w(common::QUEUE_DESC, 2, 0xffff);
    r.w(common::QUEUE_SELECT, 1, 9);
    assert_eq!(r.r(common::QUEUE_DESC, 4), 0x1234_5000, "fields are written whole");
    for (vector, reads) in [(1, 1), (2, 0xffff), (0, 0)] {
        r.w(common::QUEUE_MSIX_VECTOR, 2, vector);
        r.w(common::CONFIG_MSIX_VECTOR, 2, vector);
        assert_eq!((r.r(common::QUEUE_MSIX_VECTOR, 2), r.r(common::CONFIG_MSIX_VECTOR, 2)), (reads, reads));
    }
    r.w(common::QUEUE_SELECT, 2, 5);
    assert_eq!(r.r(common::QUEUE_SELECT, 8) >> 16, 0, "there is no queue 5");
    r.w(common::DRIVER_FEATURE_SELECT, 4, 1);
    r.w(common::DRIVER_FEATURE, 4, 3);
    r.w(common::DEVICE_STATUS, 1, 0xb);
    assert_eq!(r.r(common::DEVICE_STATUS, 1), 3, "a feature that was not offered");
    r.w(common::DEVICE_STATUS, 1, 0);
    assert_eq!((r.r(common::QUEUE_SELECT, 2), r.r(common::QUEUE_SIZE, 2)), (0, max));
}

#[test]
fn a_request_by_pin() {
    let mut r = Rig::new(Rng::new(1));
    r.initialize();
    r.request(1);
    assert_eq!((r.b.ram.load(0x2002, 2), r.b.ram.load(0x2008, 4)), (Ok(1), Ok(16)));
    assert_ne!(r.b.ram.load(0x3000, 8), Ok(0));
    assert!(r.f.intx());
    assert_eq!((r.r(ISR, 1), r.r(ISR, 1), r.f.intx()), (1, 0, false));
    r.set_config(header::COMMAND, &[2]);
    r.request(2);
    assert_eq!(r.b.ram.load(0x2002, 2), Ok(1), "not a bus master");
}

#[test]
fn a_request_by_message() {
    let mut r = Rig::new(Rng::new(1));
    let msix = usize::from(r.f.config.read(r.capability(capability::PCI) + 1));
    r.set_config(msix + 3, &[0x80]);
    r.initialize();
    r.w(common::QUEUE_MSIX_VECTOR, 2, 1);
    for (at, word) in [(16, 0xfee0_1000), (20, 0), (24, 0x4321)] {
        r.f.write(MSIX_BAR, Access { offset: at, size: 4 }, word, &mut r.b.cx());
    }
    r.request(1);
    assert_eq!((r.b.take_signals(), r.f.read(MSIX_BAR, Access { offset: 0x800, size: 8 }, &mut r.b.cx())), (vec![], 2));
    r.f.write(MSIX_BAR, Access { offset: 28, size: 4 }, 0, &mut r.b.cx());
    assert_eq!(r.b.take_signals(), [Signal::Msi { address: 0xfee0_1000, data: 0x4321 }]);
    r.request(2);
    assert_eq!(r.b.take_signals().len(), 1);
    assert_eq!((r.r(ISR, 1), r.f.intx()), (0, false));
}

/// "Reserved Feature Bits": VIRTIO_F_ACCESS_PLATFORM. Messages have the function's requester ID, whether it has been agreed upon or not.
#[test]
fn access_platform() {
    let offers = |r: &mut Rig| {
        r.w(common::DEVICE_FEATURE_SELECT, 4, 1);
        r.r(common::DEVICE_FEATURE, 4) >> 1 & 1
    };
    assert_eq!(offers(&mut Rig::new(Rng::new(1))), 0);
    let mut r = Rig::new(Rng::new(1));
    r.f = r.f.behind_iommu();
    assert_eq!(offers(&mut r), 1);
    r.b.requester = Some(0x18);
    let msix = usize::from(r.f.config.read(r.capability(capability::PCI) + 1));
    r.set_config(msix + 3, &[0x80]);
    r.initialize();
    r.w(common::QUEUE_MSIX_VECTOR, 2, 0);
    r.f.write(MSIX_BAR, Access { offset: 12, size: 4 }, 0, &mut r.b.cx());
    r.request(1);
    let sent: Vec<_> = r.b.signals.iter().map(|(source, _)| source.requester).collect();
    assert_eq!(sent, [Some(0x18)]);
}

#[test]
fn a_driver_that_breaks_the_rules() {
    let mut r = Rig::new(Rng::new(1));
    r.initialize();
    r.b.ram.store(0x1002, 2, 99).unwrap();
    r.w(NOTIFY, 2, 0);
    assert_eq!((r.r(common::DEVICE_STATUS, 1), r.r(ISR, 1)), (0x4f, 2));
    r.w(NOTIFY + 4, 2, 1);
    r.w(common::DEVICE_STATUS, 1, 0);
    r.initialize();
    r.b.ram.write(0x1000, &[0; 64]).unwrap();
    r.b.ram.write(0x2000, &[0; 128]).unwrap();
    r.request(1);
    assert_eq!(r.b.ram.load(0x2002, 2), Ok(1), "a reset helps");
}

/// "PCI configuration access capability".
#[test]
fn access_through_configuration_space() {
    let mut r = Rig::new(Blk::new(Disk::in_memory(0x1234), "x"));
    let at = r.capability(capability::PCI);
    let read = |r: &mut Rig| (0..4).map(|i| r.f.read_config(at + 16 + i, &mut r.b.cx())).collect::<Vec<_>>();
    r.set_config(at + 8, &[0, 0x20, 0, 0, 4, 0, 0, 0]);
    assert_eq!(read(&mut r), [0x34, 0x12, 0, 0], "the device's configuration");
    r.set_config(at + 8, &[common::QUEUE_SELECT as u8, 0, 0, 0, 2, 0, 0, 0]);
    r.set_config(at + 16, &[7, 0, 0xff, 0xff]);
    assert_eq!((read(&mut r), r.r(common::QUEUE_SELECT, 2)), (vec![7, 0, 0, 0], 7));
    for (bar, offset, length) in [(1, 0, 4), (0, 2, 4), (0, 0x3f, 4), (0, 0, 3), (0, 0, 0), (2, 0x10, 4)] {
        r.set_config(at + 4, &[bar, 0, 0, 0, 2, offset, 0, 0, length, 0, 0, 0]);
        assert_eq!(read(&mut r), [0; 4]);
    }
}

proptest! {
    #[test]
    fn nothing_panics_and_saved_state_goes_on_alike(
        ops in prop::collection::vec((0u8..6, any::<u64>(), 0u32..64, 1u8..=8, any::<u64>()), 1..200)
    ) {
        let (mut a, mut b) = (Rig::new(Rng::new(7)), Rig::new(Rng::new(7)));
        a.initialize();
        let half = ops.len() / 2;
        for (i, (what, at, shift, size, value)) in ops.into_iter().enumerate() {
            if i == half {
                b.f.restore(&a.f.save()).unwrap();
                b.b.ram.restore(&a.b.ram.snapshot()).unwrap();
                a.b.take_signals();
                b.b.take_signals();
            }
            let go = |r: &mut Rig| {
                let access = Access { offset: at % BAR_SIZE, size };
                match what {
                    0 => return r.r(at % common::END, size),
                    1 => r.w(at % common::END, size, value >> shift),
                    2 => r.set_config((at % 256) as usize, &value.to_le_bytes()[..usize::from(size.min(4))]),
                    3 => return r.f.read(at as u8 & 2, access, &mut r.b.cx()),
                    4 => r.f.write(at as u8 & 2, access, value >> shift, &mut r.b.cx()),
                    _ => r.request(value % 100 + 1),
                }
                0
            };
            let result = go(&mut a);
            if i >= half {
                prop_assert_eq!(result, go(&mut b));
                prop_assert_eq!(a.b.take_signals(), b.b.take_signals());
            }
        }
        prop_assert_eq!(a.f.save(), b.f.save());
    }
}
