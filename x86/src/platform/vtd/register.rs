//! "Register Descriptions".

use serde::{Deserialize, Serialize};

use super::{HOST_ADDRESS_WIDTH, VtdConfig};

/// A register: where it is, its size in bytes, and what software can do with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Register {
    pub at: u64,
    pub size: u64,
    /// Bits that are as they were written.
    writable: u64,
    /// Bits that a 1 clears.
    clears: u64,
}

const fn register(at: u64, size: u64, writable: u64) -> Register {
    Register { at, size, writable, clears: 0 }
}

const fn status(at: u64, size: u64, clears: u64) -> Register {
    Register { at, size, writable: 0, clears }
}

const PAGE: u64 = !0xfff;

// "Register Set", in its order.
pub(super) const VER_REG: Register = register(0x00, 4, 0);
pub(super) const CAP_REG: Register = register(0x08, 8, 0);
pub(super) const ECAP_REG: Register = register(0x10, 8, 0);
/// It is for writing; what it commands shows in GSTS_REG.
pub(super) const GCMD_REG: Register = register(0x18, 4, 0);
pub(super) const GSTS_REG: Register = register(0x1c, 4, 0);
pub(super) const RTADDR_REG: Register = register(0x20, 8, PAGE);
pub(super) const CCMD_REG: Register = register(0x28, 8, 0xe000_0003_ffff_ffff);
pub(super) const FSTS_REG: Register = status(0x34, 4, 0x71);
pub(super) const FECTL_REG: Register = register(0x38, 4, event::IM);
pub(super) const FEDATA_REG: Register = register(0x3c, 4, 0xffff);
pub(super) const FEADDR_REG: Register = register(0x40, 4, !3);
pub(super) const FEUADDR_REG: Register = register(0x44, 4, 0xffff_ffff);
pub(super) const IQH_REG: Register = register(0x80, 8, 0);
pub(super) const IQT_REG: Register = register(0x88, 8, 0x7_fff0);
pub(super) const IQA_REG: Register = register(0x90, 8, PAGE | 7);
pub(super) const ICS_REG: Register = status(0x9c, 4, ics::IWC);
pub(super) const IECTL_REG: Register = register(0xa0, 4, event::IM);
pub(super) const IEDATA_REG: Register = register(0xa4, 4, 0xffff);
pub(super) const IEADDR_REG: Register = register(0xa8, 4, !3);
pub(super) const IEUADDR_REG: Register = register(0xac, 4, 0xffff_ffff);
pub(super) const IQERCD_REG: Register = register(0xb0, 8, 0);
pub(super) const IRTA_REG: Register = register(0xb8, 8, PAGE | irta::EIME | 0xf);
/// ECAP_REG.IRO says where this is; IOTLB_REG is behind it.
pub(super) const IVA_REG: Register = register(0xf0, 8, PAGE | 0x7f);
pub(super) const IOTLB_REG: Register = register(0xf8, 8, 0xb003_ffff_0000_0000);
/// CAP_REG.FRO says where fault recording registers begin.
pub(super) const FIRST_RECORD: u64 = 0x220;
/// How many there are.
pub(super) const RECORDS: usize = 8;

/// The halves of a fault recording register.
pub(super) const fn record(n: usize) -> (Register, Register) {
    let at = FIRST_RECORD + 16 * n as u64;
    (register(at, 8, 0), status(at + 8, 8, frcd::F))
}

const REGISTERS: &[Register] = &[
    VER_REG,
    CAP_REG,
    ECAP_REG,
    GCMD_REG,
    GSTS_REG,
    RTADDR_REG,
    CCMD_REG,
    FSTS_REG,
    FECTL_REG,
    FEDATA_REG,
    FEADDR_REG,
    FEUADDR_REG,
    IQH_REG,
    IQT_REG,
    IQA_REG,
    ICS_REG,
    IECTL_REG,
    IEDATA_REG,
    IEADDR_REG,
    IEUADDR_REG,
    IQERCD_REG,
    IRTA_REG,
    IVA_REG,
    IOTLB_REG,
];

/// "Global Command Register"; the bits of "Global Status Register" are at the same places.
pub(super) mod gcmd {
    pub const TE: u64 = 1 << 31;
    pub const SRTP: u64 = 1 << 30;
    pub const QIE: u64 = 1 << 26;
    pub const IRE: u64 = 1 << 25;
    pub const SIRTP: u64 = 1 << 24;
    pub const CFI: u64 = 1 << 23;
}

/// "Fault Status Register".
pub(super) mod fsts {
    /// Primary fault overflow.
    pub const PFO: u64 = 1;
    /// Primary pending fault: some fault recording register has F set.
    pub const PPF: u64 = 1 << 1;
    /// Invalidation queue error.
    pub const IQE: u64 = 1 << 4;
    /// Fault record index.
    pub const FRI: u64 = 0xff00;
}

/// "Fault Event Control Register", "Invalidation Event Control Register".
pub(super) mod event {
    pub const IM: u64 = 1 << 31;
    pub const IP: u64 = 1 << 30;
}

/// "Invalidation Completion Status Register".
pub(super) mod ics {
    pub const IWC: u64 = 1;
}

/// "Interrupt Remapping Table Address Register".
pub(super) mod irta {
    pub const EIME: u64 = 1 << 11;
}

/// "Context Command Register", "IOTLB Invalidate Register": invalidate now.
pub(super) const INVALIDATE: u64 = 1 << 63;

/// "Fault Recording Registers", bits 127:64.
pub(super) mod frcd {
    pub const F: u64 = 1 << 63;
    /// The request was a read.
    pub const T: u64 = 1 << 62;
}

/// The registers of an event's message.
#[derive(Clone, Copy)]
pub(super) struct Event {
    pub control: Register,
    pub data: Register,
    pub address: Register,
    pub upper_address: Register,
}

pub(super) const FAULT_EVENT: Event =
    Event { control: FECTL_REG, data: FEDATA_REG, address: FEADDR_REG, upper_address: FEUADDR_REG };
pub(super) const COMPLETION_EVENT: Event =
    Event { control: IECTL_REG, data: IEDATA_REG, address: IEADDR_REG, upper_address: IEUADDR_REG };

/// The largest address mask of a page-selective invalidation (CAP_REG.MAMV): 1 GiB.
pub(super) const MAX_ADDRESS_MASK: u64 = 18;
/// Bits of an address that a bus master can form (CAP_REG.MGAW).
pub(super) const MAX_GUEST_ADDRESS_WIDTH: u32 = 57;

/// "Capability Register".
fn capability(config: &VtdConfig) -> u64 {
    const ND: u64 = 6; // domain IDs of 16 bits
    const SAGAW: u64 = 0b01110 << 8; // 39, 48 and 57 bits
    const ZLR: u64 = 1 << 22;
    const SSLPS: u64 = 0b11 << 34; // pages of 2 MiB and 1 GiB
    const PSI: u64 = 1 << 39;
    const DWD: u64 = 1 << 54;
    const DRD: u64 = 1 << 55;
    const PI: u64 = 1 << 59;
    ND | u64::from(config.caching_mode) << 7
        | SAGAW
        | u64::from(MAX_GUEST_ADDRESS_WIDTH - 1) << 16
        | ZLR
        | (FIRST_RECORD / 16) << 24
        | SSLPS
        | PSI
        | (RECORDS as u64 - 1) << 40
        | MAX_ADDRESS_MASK << 48
        | DWD
        | DRD
        | PI
}

/// "Extended Capability Register".
fn extended_capability(config: &VtdConfig) -> u64 {
    const C: u64 = 1; // page walks are coherent
    const QI: u64 = 1 << 1;
    const IR: u64 = 1 << 3;
    const PT: u64 = 1 << 6;
    const SC: u64 = 1 << 7;
    const MHMV: u64 = 0xf << 20;
    C | QI | IR | u64::from(config.extended_interrupt_mode) << 4 | PT | SC | (IVA_REG.at / 16) << 8 | MHMV
}

/// Bits of an address in a table that have to be 0: those above the host address width.
pub(super) const fn beyond_host_addresses() -> u64 {
    !((1 << HOST_ADDRESS_WIDTH) - 1)
}

/// All registers, as doublewords.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Registers(Vec<u32>);

impl Registers {
    pub fn at_reset(config: &VtdConfig) -> Self {
        let mut registers = Registers(vec![0; FIRST_RECORD as usize / 4 + 4 * RECORDS]);
        registers.set(VER_REG, 0x10);
        registers.set(CAP_REG, capability(config));
        registers.set(ECAP_REG, extended_capability(config));
        registers.set(FECTL_REG, event::IM);
        registers.set(IECTL_REG, event::IM);
        registers
    }

    pub fn get(&self, register: Register) -> u64 {
        let i = register.at as usize / 4;
        let high = if register.size == 8 { self.0[i + 1] } else { 0 };
        u64::from(high) << 32 | u64::from(self.0[i])
    }

    pub fn set(&mut self, register: Register, value: u64) {
        let i = register.at as usize / 4;
        self.0[i] = value as u32;
        if register.size == 8 {
            self.0[i + 1] = (value >> 32) as u32;
        }
    }

    /// What is at a byte.
    pub fn byte(&self, at: u64) -> u8 {
        self.0.get(at as usize / 4).map_or(0, |word| (word >> (8 * (at % 4))) as u8)
    }

    /// The register that a doubleword belongs to.
    fn find(at: u64) -> Option<Register> {
        let holds = |r: &Register| (r.at..r.at + r.size).contains(&at);
        let records = (0..RECORDS).flat_map(|n| <[Register; 2]>::from(record(n)));
        REGISTERS.iter().copied().chain(records).find(holds)
    }

    /// Software writes a doubleword.
    pub fn write(&mut self, at: u64, value: u32) {
        let Some(register) = Self::find(at) else { return };
        let half = 8 * (at - register.at);
        let (writable, clears) = ((register.writable >> half) as u32, (register.clears >> half) as u32);
        let word = &mut self.0[at as usize / 4];
        *word = *word & !writable & !(clears & value) | value & writable;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn registers_are_apart() {
        let records = (0..RECORDS).flat_map(|n| <[Register; 2]>::from(record(n)));
        let all: Vec<_> = REGISTERS.iter().copied().chain(records).collect();
        assert!(all.windows(2).all(|w| w[0].at + w[0].size <= w[1].at && w[1].at % w[1].size == 0));
        assert!(all.iter().all(|r| r.writable & r.clears == 0));
    }

    #[test]
    fn what_is_advertised() {
        let config = VtdConfig::default();
        assert_eq!(capability(&config), 0x08d2_078c_2278_0e06);
        assert_eq!(extended_capability(&config), 0x00f0_0fdb);
        assert_eq!(capability(&VtdConfig { caching_mode: true, ..config }) ^ capability(&config), 0x80);
    }
}
