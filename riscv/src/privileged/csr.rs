//! CSRs: their state, their fields, and what they are at reset.

use serde::{Deserialize, Serialize};

use super::counters::Counters;
use super::pmp::Pmp;
use crate::cpu::{CpuConfig, Ext};
use crate::platform::imsic::ImsicFile;

/// A field: its lowest bit and its width.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Field(pub u8, pub u8);

impl Field {
    /// The bits that it takes.
    pub const fn mask(self) -> u64 {
        (u64::MAX >> (64 - self.1)) << self.0
    }
    /// Its value in a register.
    #[inline]
    pub const fn of(self, register: u64) -> u64 {
        register >> self.0 & (u64::MAX >> (64 - self.1))
    }
    /// Whether a field of one bit is set.
    #[inline]
    pub const fn is(self, register: u64) -> bool {
        register & self.mask() != 0
    }
    /// Puts a value in.
    #[inline]
    pub const fn put(self, register: &mut u64, value: u64) {
        *register = *register & !self.mask() | value << self.0 & self.mask();
    }
}

macro_rules! fields {
    ($(#[$m:meta])* $module:ident: $($name:ident $low:literal $width:literal;)*) => {
        $(#[$m])*
        pub mod $module {
            #![allow(missing_docs, reason = "the manual's names")]
            use super::Field;
            $(pub const $name: Field = Field($low, $width);)*
        }
    };
}

fields! {
    /// Machine Status Register, and sstatus and vsstatus, which are views of the same layout.
    mstatus:
    SIE 1 1; MIE 3 1; SPIE 5 1; UBE 6 1; MPIE 7 1; SPP 8 1; VS 9 2; MPP 11 2; FS 13 2; XS 15 2; MPRV 17 1; SUM 18 1;
    MXR 19 1; TVM 20 1; TW 21 1; TSR 22 1; SDT 24 1; UXL 32 2; SXL 34 2; GVA 38 1; MPV 39 1; MDT 42 1; SD 63 1;
}
fields! {
    /// Hypervisor Status Register.
    hstatus:
    GVA 6 1; SPV 7 1; SPVP 8 1; HU 9 1; VGEIN 12 6; VTVM 20 1; VTW 21 1; VTSR 22 1; VSXL 32 2;
}
fields! {
    /// Machine, hypervisor and supervisor environment configuration registers.
    envcfg:
    FIOM 0 1; CBIE 4 2; CBCFE 6 1; CBZE 7 1; DTE 59 1; CDE 60 1; ADUE 61 1; PBMTE 62 1; STCE 63 1;
}
fields! {
    /// Machine Security Configuration Register.
    mseccfg:
    USEED 8 1; SSEED 9 1;
}
fields! {
    /// Address translation registers satp and vsatp.
    satp:
    PPN 0 44; ASID 44 16; MODE 60 4;
}
fields! {
    /// Hypervisor Guest Address Translation and Protection Register.
    hgatp:
    PPN 0 44; VMID 44 14; MODE 60 4;
}
fields! {
    /// Resumable NMI status register.
    mnstatus:
    NMIE 3 1; MNPV 7 1; MNPP 11 2;
}
fields! {
    /// State enable registers (Smstateen).
    stateen:
    IMSIC 58 1; AIA 59 1; CSRIND 60 1; ENVCFG 62 1; SE 63 1;
}
fields! {
    /// Hypervisor Virtual Interrupt Control (AIA, "Virtual interrupts for VS level").
    hvictl:
    IPRIO 0 8; IPRIOM 8 1; DPR 9 1; IID 16 12; VTI 30 1;
}

/// All CSRs but fcsr. Fields have the names of their registers.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[allow(missing_docs, reason = "the manual's names")]
pub struct Csrs {
    pub mstatus: u64,
    pub medeleg: u64,
    pub mideleg: u64,
    pub mie: u64,
    pub mtvec: u64,
    pub mcounteren: u64,
    pub mscratch: u64,
    pub mepc: u64,
    pub mcause: u64,
    pub mtval: u64,
    pub mtval2: u64,
    pub mtinst: u64,
    pub menvcfg: u64,
    pub mseccfg: u64,
    pub mnscratch: u64,
    pub mnepc: u64,
    pub mncause: u64,
    pub mnstatus: u64,
    /// The bits of mip that software writes: SSIP, STIP, SEIP, LCOFIP.
    pub mip: u64,
    /// Levels of the pins, by interrupt number.
    pub pins: u64,

    pub stvec: u64,
    pub scounteren: u64,
    pub senvcfg: u64,
    pub sscratch: u64,
    pub sepc: u64,
    pub scause: u64,
    pub stval: u64,
    pub satp: u64,
    pub stimecmp: u64,

    pub hstatus: u64,
    pub hedeleg: u64,
    pub hideleg: u64,
    pub hcounteren: u64,
    pub hgeie: u64,
    pub htval: u64,
    pub htinst: u64,
    pub hvip: u64,
    pub henvcfg: u64,
    pub htimedelta: u64,
    pub hgatp: u64,

    pub vsstatus: u64,
    pub vstvec: u64,
    pub vsscratch: u64,
    pub vsepc: u64,
    pub vscause: u64,
    pub vstval: u64,
    pub vsatp: u64,
    pub vstimecmp: u64,

    pub mstateen: [u64; 4],
    pub hstateen: [u64; 4],

    pub miselect: u64,
    pub siselect: u64,
    pub vsiselect: u64,
    pub mvien: u64,
    /// Bits 1 and 13 to 63; bit 9 is that of `mip`.
    pub mvip: u64,
    pub hvien: u64,
    pub hvictl: u64,
    pub hviprio: [u64; 2],
    /// Bits of sie that are not aliases of mie.
    pub sie: u64,
    /// Bits of vsie that are aliases of nothing.
    pub vsie: u64,
    /// Priorities of major interrupts at machine and supervisor level.
    #[serde(with = "serde_bytes")]
    pub miprio: [u8; 64],
    #[serde(with = "serde_bytes")]
    pub siprio: [u8; 64],
    /// Interrupt files: machine, supervisor, guests. None without IMSIC.
    pub files: Vec<ImsicFile>,

    pub pmp: Pmp,
    pub counters: Counters,
    /// What to add to virtual time, in ticks, to get `time`.
    pub time_offset: u64,
    /// State of the entropy source.
    pub entropy: u64,
}

impl Csrs {
    /// What registers are at reset. Those that the manual leaves open are 0.
    pub fn new(cpu: &CpuConfig) -> Self {
        let mut c = Csrs {
            mstatus: 0,
            medeleg: 0,
            mideleg: 0,
            mie: 0,
            mtvec: 0,
            mcounteren: 0,
            mscratch: 0,
            mepc: 0,
            mcause: 0,
            mtval: 0,
            mtval2: 0,
            mtinst: 0,
            menvcfg: 0,
            mseccfg: 0,
            mnscratch: 0,
            mnepc: 0,
            mncause: 0,
            mnstatus: 0,
            mip: 0,
            pins: 0,
            stvec: 0,
            scounteren: 0,
            senvcfg: 0,
            sscratch: 0,
            sepc: 0,
            scause: 0,
            stval: 0,
            satp: 0,
            stimecmp: u64::MAX,
            hstatus: 0,
            hedeleg: 0,
            hideleg: 0,
            hcounteren: 0,
            hgeie: 0,
            htval: 0,
            htinst: 0,
            hvip: 0,
            henvcfg: 0,
            htimedelta: 0,
            hgatp: 0,
            vsstatus: 0,
            vstvec: 0,
            vsscratch: 0,
            vsepc: 0,
            vscause: 0,
            vstval: 0,
            vsatp: 0,
            vstimecmp: u64::MAX,
            mstateen: [0; 4],
            hstateen: [0; 4],
            miselect: 0,
            siselect: 0,
            vsiselect: 0,
            mvien: 0,
            mvip: 0,
            hvien: 0,
            hvictl: 0,
            hviprio: [0; 2],
            sie: 0,
            vsie: 0,
            miprio: [0; 64],
            siprio: [0; 64],
            files: Vec::new(),
            pmp: Pmp::default(),
            counters: Counters::default(),
            time_offset: 0,
            entropy: cpu.seed,
        };
        if cpu.imsic {
            c.files = (0..2 + cpu.geilen).map(|_| ImsicFile::new(cpu.identities)).collect();
        }
        if cpu.has(Ext::H) {
            c.mideleg = super::irq::VS_BITS | super::irq::SGEI_BIT;
        }
        if cpu.has(Ext::Svadu) && !cpu.has(Ext::Svade) {
            envcfg::ADUE.put(&mut c.menvcfg, 1);
        }
        if cpu.has(Ext::Smdbltrp) {
            mstatus::MDT.put(&mut c.mstatus, 1);
        }
        c
    }

    /// henvcfg as it takes effect: fields that menvcfg switches off read as 0 (Hypervisor Environment Configuration
    /// Register).
    pub fn henvcfg(&self) -> u64 {
        const GATED: u64 = envcfg::STCE.mask() | envcfg::PBMTE.mask() | envcfg::ADUE.mask() | envcfg::DTE.mask();
        self.henvcfg & (!GATED | self.menvcfg)
    }

    /// The interrupt file that hstatus.VGEIN names, if there is one.
    pub fn guest_file(&self) -> Option<usize> {
        let guest = hstatus::VGEIN.of(self.hstatus) as usize;
        (guest != 0 && guest + 2 <= self.files.len()).then_some(guest + 1)
    }
}
