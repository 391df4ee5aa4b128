//! The unit on the bench, with tables that let source 00:01.0 of domain 7 reach some pages.

mod caches;
mod dma;
mod faults;
mod interrupts;
mod queue;
mod state;

use emu_core::device::{Bench, Signal};
use emu_core::iommu::{Iommu, MasterAccess};

use super::register::*;
use super::{Vtd, VtdConfig};
use crate::platform::msi::InterruptMessage;

const ROOT: u64 = 0x1000;
const CONTEXTS: u64 = 0x2000;
/// The table of the highest level; those below it follow, a page each.
const TABLE: u64 = 0x3000;
const INTERRUPTS: u64 = 0x8000;
const QUEUE: u64 = 0x9000;
const DESCRIPTOR: u64 = 0xa000;
const RAM: u64 = 0x4_0000;

const SOURCE: u16 = 0x0008;
const DOMAIN: u64 = 7;
const RW: u64 = 3;

struct Rig {
    unit: Vtd,
    b: Bench,
    tail: u64,
}

impl Rig {
    fn new() -> Self {
        Rig::with(VtdConfig::default())
    }

    /// Tables of 4 levels, all enabled.
    fn with(config: VtdConfig) -> Self {
        let mut b = Bench::default();
        b.ram.add(0, RAM).unwrap();
        let mut rig = Rig { unit: Vtd::new(config, 1), b, tail: 0 };
        rig.store(ROOT, CONTEXTS | 1);
        rig.set_context(TABLE | 1, DOMAIN << 8 | 2);
        rig.w(RTADDR_REG, ROOT);
        rig.w(IRTA_REG, INTERRUPTS | 3);
        rig.w(IQA_REG, QUEUE);
        for bit in [gcmd::SRTP, gcmd::SIRTP, gcmd::QIE, gcmd::TE, gcmd::IRE] {
            let status = rig.r(GSTS_REG) & !(gcmd::SRTP | gcmd::SIRTP);
            rig.w(GCMD_REG, status | bit);
            assert_ne!(rig.r(GSTS_REG) & bit, 0);
        }
        rig
    }

    fn r(&mut self, register: Register) -> u64 {
        self.b.read(&mut self.unit, register.at, register.size as u8)
    }

    fn w(&mut self, register: Register, value: u64) {
        self.b.write(&mut self.unit, register.at, register.size as u8, value);
    }

    fn store(&mut self, at: u64, value: u64) {
        self.b.ram.store(at, 8, value).unwrap();
    }

    fn load(&mut self, at: u64) -> u64 {
        self.b.ram.load(at, 8).unwrap()
    }

    fn set_context(&mut self, low: u64, high: u64) {
        let at = CONTEXTS + 16 * u64::from(SOURCE);
        self.store(at, low);
        self.store(at + 8, high);
    }

    /// The entry that translates an address at a level, with tables of so many: those above it lead there.
    fn map(&mut self, address: u64, levels: u8, level: u8, entry: u64) {
        let index = |level: u8| address >> (12 + 9 * (level - 1)) & 0x1ff;
        let mut table = TABLE;
        for above in (level + 1..=levels).rev() {
            self.store(table + 8 * index(above), (table + 0x1000) | RW);
            table += 0x1000;
        }
        self.store(table + 8 * index(level), entry);
    }

    fn access_by(&mut self, requester: u16, address: u64, writes: bool) -> Option<(u64, u64)> {
        self.unit.translate(MasterAccess { requester, address, len: 1 << 40, writes }, &mut self.b.cx())
    }

    fn reads(&mut self, address: u64) -> Option<u64> {
        self.access_by(SOURCE, address, false).map(|(at, _)| at)
    }

    fn writes(&mut self, address: u64) -> Option<u64> {
        self.access_by(SOURCE, address, true).map(|(at, _)| at)
    }

    /// The reason in the fault recording register that was logged first; all are cleared.
    fn take_fault(&mut self) -> Option<(u64, u64, u64)> {
        let first = (self.r(FSTS_REG) >> 8) as usize;
        let (low, high) = (self.r(record(first).0), self.r(record(first).1));
        for n in 0..RECORDS {
            self.w(record(n).1, frcd::F);
        }
        self.w(FSTS_REG, fsts::PFO);
        (high & frcd::F != 0).then_some((high >> 32 & 0xff, high & (frcd::T | 0xffff), low))
    }

    fn fault(&mut self) -> Option<u64> {
        self.take_fault().map(|(reason, ..)| reason)
    }

    /// Puts a descriptor into the queue.
    fn queue(&mut self, low: u64, high: u64) {
        let at = QUEUE + self.tail;
        self.store(at, low);
        self.store(at + 8, high);
        self.tail = (self.tail + 16) % 0x1000;
        self.w(IQT_REG, self.tail);
    }

    /// The messages that processors have got.
    fn messages(&mut self) -> Vec<InterruptMessage> {
        let one = |s| match s {
            Signal::Vcpu { value, .. } => InterruptMessage::unpack(value),
            other => panic!("{other:?}"),
        };
        self.b.take_signals().into_iter().map(one).collect()
    }
}
