//! The firmware configuration device ("QEMU Firmware Configuration (fw_cfg) Device", docs/specs/fw_cfg of QEMU 10): items of
//! bytes under 16-bit keys, some of them named files, read byte by byte or by DMA.
//!
//! Writing goes by DMA only, and only to files that the board has made writable.
//!
//! Three files are for an agreement on what an SMI by command is ([`smi`]): whoever selects the third has asked for what the second holds.

use std::collections::BTreeMap;

use emu_core::device::{Access, Device, DeviceCx};
use emu_core::dma::Dma;
use serde::{Deserialize, Serialize};

use super::{Ports, read_bytes, write_bytes};

/// Where the registers are.
pub const PORTS: [Ports; 1] = [Ports { port: 0x510, size: 12, offset: 0 }];

const SELECTOR: u64 = 0;
const DATA: u64 = 1;
const DMA: u64 = 4;

/// Keys with a fixed meaning.
pub mod key {
    /// The letters "QEMU".
    pub const SIGNATURE: u16 = 0x00;
    /// What the interface can do.
    pub const ID: u16 = 0x01;
    /// Size of RAM in bytes, 8 bytes little-endian.
    pub const RAM_SIZE: u16 = 0x03;
    /// There is no graphics, 2 bytes.
    pub const NOGRAPHIC: u16 = 0x04;
    /// The number of processors, 2 bytes.
    pub const NB_CPUS: u16 = 0x05;
    /// Addresses and sizes (4 bytes each) and bytes of the kernel, initial RAM disk, command line and set-up code.
    pub const KERNEL_ADDR: u16 = 0x07;
    /// See [`KERNEL_ADDR`].
    pub const KERNEL_SIZE: u16 = 0x08;
    /// See [`KERNEL_ADDR`].
    pub const INITRD_ADDR: u16 = 0x0a;
    /// See [`KERNEL_ADDR`].
    pub const INITRD_SIZE: u16 = 0x0b;
    /// Whether firmware shows a menu, 2 bytes.
    pub const BOOT_MENU: u16 = 0x0e;
    /// The most processors that there can be, 2 bytes.
    pub const MAX_CPUS: u16 = 0x0f;
    /// See [`KERNEL_ADDR`].
    pub const KERNEL_DATA: u16 = 0x11;
    /// See [`KERNEL_ADDR`].
    pub const INITRD_DATA: u16 = 0x12;
    /// See [`KERNEL_ADDR`].
    pub const CMDLINE_ADDR: u16 = 0x13;
    /// See [`KERNEL_ADDR`].
    pub const CMDLINE_SIZE: u16 = 0x14;
    /// See [`KERNEL_ADDR`].
    pub const CMDLINE_DATA: u16 = 0x15;
    /// See [`KERNEL_ADDR`].
    pub const SETUP_ADDR: u16 = 0x16;
    /// See [`KERNEL_ADDR`].
    pub const SETUP_SIZE: u16 = 0x17;
    /// See [`KERNEL_ADDR`].
    pub const SETUP_DATA: u16 = 0x18;
    /// The directory of files.
    pub const FILE_DIR: u16 = 0x19;
    /// The first file.
    pub const FILE_FIRST: u16 = 0x20;
    /// Items of the architecture begin here.
    pub const ARCH_LOCAL: u16 = 0x8000;
    /// Selects an item for writing; without meaning by now.
    pub const WRITE_CHANNEL: u16 = 0x4000;
}

/// ID: the traditional interface, and DMA.
const FEATURES: u32 = 3;
/// What the DMA address register reads as: "QEMU CFG".
const DMA_SIGNATURE: u64 = 0x5145_4d55_2043_4647;
/// Bytes of a file's name, the last of which is 0.
const NAME: usize = 56;
/// Bytes of an entry of the directory.
const ENTRY: usize = 64;

/// "Guest-side DMA Interface": FWCfgDmaAccess.control.
mod dma {
    pub const ERROR: u32 = 1;
    pub const READ: u32 = 2;
    pub const SKIP: u32 = 4;
    pub const SELECT: u32 = 8;
    pub const WRITE: u32 = 16;
}

/// Features of SMIs that firmware may ask for (files `etc/smi/...`).
pub mod smi {
    use super::File;

    /// The features that there are, 8 bytes little-endian.
    pub const SUPPORTED: &str = "etc/smi/supported-features";
    /// Those that the guest wants, likewise: for writing.
    pub const REQUESTED: &str = "etc/smi/requested-features";
    /// Selecting it asks for them; it reads as 1 from then on if that is granted, and nothing changes any more until the next reset.
    pub const OK: &str = "etc/smi/features-ok";
    /// A feature: a command gives an SMI to all processors.
    pub const BROADCAST: u64 = 1;

    /// The three files.
    pub fn files() -> [File; 3] {
        let file = |name: &str, bytes: &[u8], writable| File { name: name.into(), bytes: bytes.into(), writable };
        [file(SUPPORTED, &BROADCAST.to_le_bytes(), false), file(REQUESTED, &[0; 8], true), file(OK, &[0], false)]
    }
}

/// Output: SMIs by command are for all processors.
pub const BROADCAST: u32 = 0;

/// A named file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct File {
    /// Its name, such as `etc/e820`. Cut after 55 bytes.
    pub name: String,
    /// Its contents.
    pub bytes: Vec<u8>,
    /// The guest may change them.
    pub writable: bool,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct State {
    selector: u16,
    offset: u64,
    /// The high half of the DMA address that comes.
    dma_high: u32,
    /// Contents of writable files as the guest has left them.
    written: BTreeMap<u16, Vec<u8>>,
    /// Features of SMIs that are agreed on.
    features: Option<u64>,
}

/// The device. Input 0 says that the PC sleeps, which ends what is agreed on; the output is [`BROADCAST`].
pub struct FwCfg {
    items: BTreeMap<u16, Vec<u8>>,
    writable: BTreeMap<u16, Vec<u8>>,
    /// Keys of [`smi::REQUESTED`] and [`smi::OK`].
    smi: Option<(u16, u16)>,
    state: State,
}

impl FwCfg {
    /// A device with these items (beside signature and ID) and files. Files take keys in the order of their names.
    pub fn new(items: impl IntoIterator<Item = (u16, Vec<u8>)>, mut files: Vec<File>) -> Self {
        let mut items: BTreeMap<u16, Vec<u8>> = items.into_iter().collect();
        let mut writable = BTreeMap::new();
        files.sort_by(|a, b| a.name.cmp(&b.name));
        let key_of = |name| Some(key::FILE_FIRST + files.iter().position(|f| f.name == name)? as u16);
        let smi = key_of(smi::REQUESTED).zip(key_of(smi::OK));
        let mut directory = (files.len() as u32).to_be_bytes().to_vec();
        for (key, file) in (key::FILE_FIRST..).zip(files) {
            directory.extend((file.bytes.len() as u32).to_be_bytes());
            directory.extend(key.to_be_bytes());
            directory.extend([0; 2]);
            let mut name = file.name.into_bytes();
            name.truncate(NAME - 1);
            name.resize(NAME, 0);
            directory.extend(name);
            if file.writable {
                writable.insert(key, file.bytes);
            } else {
                items.insert(key, file.bytes);
            }
        }
        debug_assert!((directory.len() - 4).is_multiple_of(ENTRY));
        items.insert(key::FILE_DIR, directory);
        items.insert(key::SIGNATURE, b"QEMU".to_vec());
        items.insert(key::ID, FEATURES.to_le_bytes().to_vec());
        let mut device = FwCfg { items, writable, smi, state: State::default() };
        device.reset();
        device
    }

    fn select(&mut self, selector: u16) {
        self.state.selector = selector & !key::WRITE_CHANNEL;
        self.state.offset = 0;
        if let Some((requested, ok)) = self.smi
            && self.state.selector == ok
            && self.state.features.is_none()
        {
            let wanted = u64::from_le_bytes(self.state.written[&requested][..].try_into().expect("8 bytes"));
            self.state.features = (wanted & !smi::BROADCAST == 0).then_some(wanted);
        }
    }

    /// Firmware and board agree on that.
    fn broadcasts(&self) -> bool {
        self.state.features.is_some_and(|features| features & smi::BROADCAST != 0)
    }

    /// The output follows from what is agreed on.
    fn update_line(&self, was: bool, cx: &mut DeviceCx) {
        if self.broadcasts() != was {
            cx.line(BROADCAST, !was);
        }
    }

    fn item(&self) -> &[u8] {
        let key = self.state.selector;
        if self.state.features.is_some() && self.smi.is_some_and(|(_, ok)| key == ok) {
            return &[1];
        }
        self.state.written.get(&key).or(self.items.get(&key)).map_or(&[], Vec::as_slice)
    }

    /// What the item still has to give.
    fn rest(&self) -> &[u8] {
        usize::try_from(self.state.offset).ok().and_then(|at| self.item().get(at..)).unwrap_or(&[])
    }

    /// "Data Register": beyond its end an item is zeroes.
    fn read_data(&mut self) -> u8 {
        let byte = self.rest().first().copied().unwrap_or(0);
        self.state.offset += 1;
        byte
    }

    /// "Guest-side DMA Interface": carries out what the structure at `address` says, and tells the result in it.
    fn run_dma(&mut self, address: u64, ram: &mut Dma) {
        let mut access = [0; 16];
        if ram.read(address, &mut access).is_err() {
            return; // nowhere to tell it
        }
        let word = |i: usize| u32::from_be_bytes(access[i..i + 4].try_into().expect("four bytes"));
        let (control, length) = (word(0), word(4));
        let at = u64::from(word(8)) << 32 | u64::from(word(12));
        if control & dma::SELECT != 0 {
            self.select((control >> 16) as u16);
        }
        let ok = if control & dma::READ != 0 {
            self.dma_read(at, length, ram)
        } else if control & dma::WRITE != 0 {
            self.dma_write(at, length, ram)
        } else {
            Some(())
        };
        if ok.is_some() && control & (dma::READ | dma::WRITE | dma::SKIP) != 0 {
            self.state.offset = self.state.offset.saturating_add(length.into());
        }
        let result = if ok.is_some() { 0 } else { dma::ERROR };
        let _ = ram.write(address, &result.to_be_bytes()); // ROM keeps what it holds
    }

    fn dma_read(&self, at: u64, length: u32, ram: &mut Dma) -> Option<()> {
        if !ram.contains(at, length.into()) {
            return None;
        }
        let rest = self.rest();
        let n = rest.len().min(length as usize);
        ram.write(at, &rest[..n]).ok()?;
        let zeroes = [0; 4096];
        let mut done = n as u64;
        while done < length.into() {
            let n = (u64::from(length) - done).min(4096);
            ram.write(at + done, &zeroes[..n as usize]).ok()?;
            done += n;
        }
        Some(())
    }

    fn dma_write(&mut self, at: u64, length: u32, ram: &mut Dma) -> Option<()> {
        let offset = usize::try_from(self.state.offset).ok()?;
        let file = self.state.written.get_mut(&self.state.selector)?;
        let bytes = file.get_mut(offset..offset.checked_add(length as usize)?)?;
        ram.read(at, bytes).ok()
    }
}

impl Device for FwCfg {
    fn name(&self) -> &'static str {
        "fw_cfg"
    }

    fn read(&mut self, access: Access, _: &mut DeviceCx) -> u64 {
        read_bytes(access, |at| match at {
            DATA => self.read_data(),
            DMA..12 => (DMA_SIGNATURE >> (8 * (11 - at))) as u8,
            _ => 0,
        })
    }

    /// The selector is one word; the DMA address is two big-endian words, the low of which starts the transfer.
    fn write(&mut self, access: Access, value: u64, cx: &mut DeviceCx) {
        let broadcast = self.broadcasts();
        match (access.offset, access.size) {
            (SELECTOR, 2) => self.select(value as u16),
            (DMA, 4) => self.state.dma_high = (value as u32).swap_bytes(),
            (DMA, 8) => self.run_dma(value.swap_bytes(), &mut cx.dma()),
            (8, 4) => {
                let high = std::mem::take(&mut self.state.dma_high);
                self.run_dma(u64::from(high) << 32 | u64::from((value as u32).swap_bytes()), &mut cx.dma());
            }
            _ => write_bytes(access, value, |_, _| {}), // the data register no longer takes writes
        }
        self.update_line(broadcast, cx);
    }

    fn input(&mut self, _: u32, sleeps: bool, cx: &mut DeviceCx) {
        let broadcast = self.broadcasts();
        if sleeps {
            self.state.features = None;
        }
        self.update_line(broadcast, cx);
    }

    fn reset(&mut self) {
        self.state = State { written: self.writable.clone(), ..State::default() };
    }

    fn save(&self) -> Vec<u8> {
        emu_core::to_bytes(&(&self.items, &self.state))
    }

    /// Takes over the items too: a kernel among them is no part of a board.
    fn restore(&mut self, bytes: &[u8]) -> Result<(), String> {
        let (items, state): (BTreeMap<u16, Vec<u8>>, State) = emu_core::from_bytes(bytes)?;
        let sizes = state.written.iter().map(|(key, bytes)| (*key, bytes.len()));
        if !sizes.eq(self.writable.iter().map(|(key, bytes)| (*key, bytes.len()))) {
            return Err("its writable files are not those of this machine".into());
        }
        (self.items, self.state) = (items, state);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use emu_core::device::Bench;
    use proptest::prelude::*;

    use super::*;

    fn rig() -> (Bench, FwCfg) {
        let mut b = Bench::default();
        b.ram.add(0, 0x4000).unwrap();
        let file = |name: &str, bytes: &[u8], writable| File { name: name.into(), bytes: bytes.into(), writable };
        let files = vec![file("opt/z", b"zz", false), file("etc/a", b"abcdef", false), file("etc/w", &[0; 4], true)];
        (b, FwCfg::new([(key::NB_CPUS, vec![2, 0])], files))
    }

    fn read(b: &mut Bench, f: &mut FwCfg, key: u16, n: usize) -> Vec<u8> {
        b.write(f, SELECTOR, 2, key.into());
        (0..n).map(|_| b.read(f, DATA, 1) as u8).collect()
    }

    /// Puts the structure at 1000h and starts it. Returns what is left of its control word.
    fn dma(b: &mut Bench, f: &mut FwCfg, control: u32, length: u32, at: u64) -> u32 {
        let access =
            [control.to_be_bytes().to_vec(), length.to_be_bytes().to_vec(), at.to_be_bytes().to_vec()].concat();
        b.ram.write(0x1000, &access).unwrap();
        b.write(f, DMA, 4, 0);
        b.write(f, 8, 4, u64::from(0x1000u32.swap_bytes()));
        (b.ram.load(0x1000, 4).unwrap() as u32).swap_bytes()
    }

    #[test]
    fn items_and_the_directory() {
        let (mut b, mut f) = rig();
        assert_eq!(read(&mut b, &mut f, 0, 6), b"QEMU\0\0");
        assert_eq!(read(&mut b, &mut f, key::ID, 4), [3, 0, 0, 0]);
        assert_eq!(read(&mut b, &mut f, key::NB_CPUS | key::WRITE_CHANNEL, 3), [2, 0, 0]);
        assert_eq!(read(&mut b, &mut f, 0xffff, 2), [0, 0]);
        let dir = read(&mut b, &mut f, key::FILE_DIR, 4 + 3 * ENTRY);
        assert_eq!(dir[..20], *b"\0\0\0\x03\0\0\0\x06\0\x20\0\0etc/a\0\0\0");
        let names: Vec<_> = (0..3).map(|i| dir[4 + 64 * i + 8..][..5].to_vec()).collect();
        assert_eq!(names, [b"etc/a", b"etc/w", b"opt/z"], "by name");
        assert_eq!(read(&mut b, &mut f, 0x22, 2), b"zz");
        b.write(&mut f, DATA, 1, 0xff);
        assert_eq!(read(&mut b, &mut f, 0x22, 2), b"zz");
        assert_eq!(b.read(&mut f, DMA, 8).to_le_bytes(), *b"QEMU CFG");
    }

    #[test]
    fn transfers() {
        let (mut b, mut f) = rig();
        let mut text = [0xff; 10];
        assert_eq!(dma(&mut b, &mut f, 0x20 << 16 | dma::SELECT | dma::SKIP, 2, 0), 0);
        b.ram.write(0x2000, &text).unwrap();
        assert_eq!(dma(&mut b, &mut f, dma::READ, 3, 0x2000), 0);
        assert_eq!(dma(&mut b, &mut f, dma::READ, 4, 0x2003), 0);
        b.ram.read(0x2000, &mut text).unwrap();
        assert_eq!(text, *b"cdef\0\0\0\xff\xff\xff");
        assert_eq!(dma(&mut b, &mut f, 0x20 << 16 | dma::SELECT | dma::READ, 8, 0x3ffc), dma::ERROR, "beyond RAM");
        b.ram.write(0x2000, b"1234567").unwrap();
        assert_eq!(dma(&mut b, &mut f, dma::WRITE, 1, 0x2000), dma::ERROR, "not writable");
        assert_eq!(dma(&mut b, &mut f, 0x21 << 16 | dma::SELECT | dma::WRITE, 4, 0x2000), 0);
        assert_eq!(dma(&mut b, &mut f, dma::WRITE, 1, 0x2000), dma::ERROR, "beyond its end");
        assert_eq!(read(&mut b, &mut f, 0x21, 4), b"1234");
        let saved = f.save();
        f.reset();
        assert_eq!(read(&mut b, &mut f, 0x21, 4), [0; 4]);
        f.restore(&saved).unwrap();
        assert_eq!(read(&mut b, &mut f, 0x21, 4), b"1234");
        b.write(&mut f, DMA, 8, 0xffff_ffff_ffff_ffff);
    }

    /// What is agreed on stays so until the next reset or sleep; what is not supported is refused.
    #[test]
    fn features_of_smis() {
        // In the order of their names.
        const OK: u16 = 0x20;
        const REQUESTED: u16 = 0x21;
        const SUPPORTED: u16 = 0x22;
        let mut b = Bench::default();
        b.ram.add(0, 0x4000).unwrap();
        let mut f = FwCfg::new([], smi::files().to_vec());
        assert_eq!(read(&mut b, &mut f, SUPPORTED, 9), [1, 0, 0, 0, 0, 0, 0, 0, 0]);
        let ask = |b: &mut Bench, f: &mut FwCfg, features: u64| {
            b.ram.write(0x2000, &features.to_le_bytes()).unwrap();
            let control = u32::from(REQUESTED) << 16 | dma::SELECT | dma::WRITE;
            assert_eq!(dma(b, f, control, 8, 0x2000), 0);
            let ok = read(b, f, OK, 1)[0];
            (ok, b.last_level(BROADCAST))
        };
        assert_eq!(ask(&mut b, &mut f, 3), (0, None));
        assert_eq!(ask(&mut b, &mut f, 1), (1, Some(true)));
        b.take_signals();
        assert_eq!(ask(&mut b, &mut f, 0), (1, None), "too late");
        assert_eq!(dma(&mut b, &mut f, u32::from(OK) << 16 | dma::SELECT | dma::WRITE, 1, 0x2000), dma::ERROR);
        let mut g = FwCfg::new([], smi::files().to_vec());
        g.restore(&f.save()).unwrap();
        assert_eq!((&g.state, g.broadcasts()), (&f.state, true));
        f.input(0, true, &mut b.cx());
        f.input(0, false, &mut b.cx());
        assert_eq!(b.take_signals(), [emu_core::device::Signal::Line { line: BROADCAST, level: false }]);
        assert_eq!(ask(&mut b, &mut f, 0), (1, None));
        f.reset();
        assert_eq!(read(&mut b, &mut f, REQUESTED, 8), [0; 8]);
    }

    proptest! {
        #[test]
        fn nothing_panics_and_saved_state_goes_on_alike(
            ops in prop::collection::vec((0u64..14, 1u8..=8, any::<u64>(), 0u8..4, 0u32..0x30), 1..100)
        ) {
            let ((mut ab, mut a), (mut bb, mut b)) = (rig(), rig());
            let half = ops.len() / 2;
            for (i, (at, size, value, what, key)) in ops.into_iter().enumerate() {
                if i == half {
                    b.restore(&a.save()).unwrap();
                    bb.ram.restore(&ab.ram.snapshot()).unwrap();
                }
                let go = |bench: &mut Bench, f: &mut FwCfg| match what {
                    0 => bench.read(f, at, size),
                    1 => { bench.write(f, at, size, value); 0 }
                    2 => { bench.write(f, SELECTOR, 2, key.into()); 0 }
                    _ => dma(bench, f, key << 16 | value as u32 & 0x1f, (value >> 8) as u32 & 0xfff, value >> 50).into(),
                };
                let result = go(&mut ab, &mut a);
                if i >= half {
                    prop_assert_eq!(result, go(&mut bb, &mut b));
                }
            }
        }
    }
}
