//! CPUID (SDM vol. 2A, "CPUID—CPU Identification"; APM vol. 3, appendix E): every leaf as such a part has it, with the features of the
//! model and the present state.

use emu_core::time::Frequency;
use serde::{Deserialize, Serialize};

use super::intel::Cache;
use super::{CpuModel, Feature, Vendor, amd, intel};
use crate::control::cr4;
use crate::{broadcast, lbr, xsave};

const EAX: usize = 0;
const EBX: usize = 1;
const ECX: usize = 2;
const EDX: usize = 3;

/// The cores of a package.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cores {
    /// How many there are.
    pub count: u32,
    /// How many bits of an x2APIC ID tell cores apart that share a last-level cache.
    pub sharing: u32,
}

impl From<u32> for Cores {
    /// All share it.
    fn from(count: u32) -> Self {
        Cores { count, sharing: width(count) }
    }
}

impl Cores {
    /// None share it across the nodes of NUMA: each node has one, or as many as make the same power of two for all.
    pub fn in_nodes(count: u32, nodes: u32) -> Self {
        let first_of = |node: u32| (node * count).div_ceil(nodes);
        let sharing = (1..nodes).map(|node| first_of(node).trailing_zeros()).min().unwrap_or(width(count));
        Cores { count, sharing }
    }

    /// How many share a last-level cache.
    fn together(self) -> u32 {
        self.count.min(1 << self.sharing)
    }
}

/// What CPUID depends on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Query {
    /// The model.
    pub model: CpuModel,
    /// The processor's x2APIC ID.
    pub id: u32,
    /// The cores of the package; a core is one processor.
    pub cores: Cores,
    /// The frequency of virtual time, and so of the TSC.
    pub frequency: Frequency,
    /// IA32_APIC_BASE.EN.
    pub apic: bool,
    /// CR4: OSXSAVE and PKE show.
    pub cr4: u64,
    /// XCR0.
    pub xcr0: u64,
    /// IA32_XSS.
    pub xss: u64,
    /// IA32_MISC_ENABLE: some of its bits switch features off.
    pub misc_enable: u64,
}

/// Bits of IA32_MISC_ENABLE that CPUID heeds.
pub(crate) mod misc_enable {
    pub(crate) const MONITOR: u64 = 1 << 18;
    pub(crate) const LIMIT_CPUID: u64 = 1 << 22;
    pub(crate) const XD_DISABLE: u64 = 1 << 34;
}

/// The answer to a leaf and subleaf: EAX, EBX, ECX, EDX.
pub fn cpuid(q: &Query, leaf: u32, subleaf: u32) -> [u32; 4] {
    let intel = q.model.is_intel();
    let basic = if !intel {
        0x10
    } else if q.misc_enable & misc_enable::LIMIT_CPUID != 0 {
        2
    } else {
        0x1f
    };
    let extended = if intel { 0x8000_0008 } else { 0x8000_0026 };
    match leaf {
        0 => q.vendor(basic),
        0x8000_0000 if intel => [extended, 0, 0, 0],
        0x8000_0000 => q.vendor(extended),
        1..=0x1f if leaf <= basic => q.basic(leaf, subleaf),
        0x8000_0001..=0x8000_0026 if leaf <= extended => q.extended(leaf, subleaf),
        // "If a value entered for CPUID.EAX is higher than the maximum input value ...": Intel's parts answer for the highest basic
        // leaf, AMD's with zeros.
        _ if intel => q.basic(basic, subleaf),
        _ => [0; 4],
    }
}

/// How many bits tell numbers below `n` apart.
fn width(n: u32) -> u32 {
    32 - n.saturating_sub(1).leading_zeros()
}

/// Four characters of a text of `parts` registers, padded with zeros.
fn text(s: &str, at: usize) -> u32 {
    (0..4).fold(0, |word, i| word | u32::from(s.as_bytes().get(at + i).copied().unwrap_or(0)) << (8 * i))
}

impl Query {
    fn vendor(&self, highest: u32) -> [u32; 4] {
        let name = match self.model.vendor {
            Vendor::Intel => "GenuineIntel",
            Vendor::Amd => "AuthenticAMD",
        };
        [highest, text(name, 0), text(name, 8), text(name, 4)]
    }

    fn bits(&self, leaf: u32, subleaf: u32) -> [u32; 4] {
        [EAX, EBX, ECX, EDX].map(|r| self.model.features.bits(leaf, subleaf, r))
    }

    fn has(&self, f: Feature) -> bool {
        self.model.has(f)
    }

    fn basic(&self, leaf: u32, subleaf: u32) -> [u32; 4] {
        let intel = self.model.is_intel();
        match leaf {
            1 => self.version(),
            // "Cache and TLB Information": leaf 4 tells of caches, no prefetch size, leaf 18H would of TLBs.
            2 if intel => [0x00fe_ff01, 0xf0, 0, 0],
            4 if intel => self.cache(&intel::CACHES, subleaf, true),
            5 if self.has(Feature::Monitor) => [64, 64, 3, if intel { 0x20 } else { 0x11 }],
            7 => self.structured(subleaf),
            0xa if self.has(Feature::ArchPerfmon) => perfmon(),
            6 => self.bits(6, 0),
            0xb | 0x1f if leaf == 0xb || intel => self.topology(subleaf),
            0xd if self.has(Feature::Xsave) => self.xsave(subleaf),
            0x1c if self.has(Feature::ArchLbr) => lbr::LEAF,
            0x15 if intel => {
                let crystal = self.model.bus_clock(self.frequency);
                [crystal.own as u32, crystal.tsc as u32, crystal.hertz as u32, 0]
            }
            0x16 if intel => {
                let mhz = (self.frequency.hertz() / 1_000_000) as u32;
                [mhz, mhz, 100, 0]
            }
            _ => [0; 4],
        }
    }

    /// Leaf 1: "Feature Information".
    fn version(&self) -> [u32; 4] {
        let mut r = self.bits(1, 0);
        r[EAX] = match self.model.vendor {
            Vendor::Intel => intel::SIGNATURE,
            Vendor::Amd => amd::SIGNATURE,
        };
        let processors = self.cores.count.next_power_of_two().min(255);
        r[EBX] = (self.id & 0xff) << 24 | processors << 16 | 8 << 8;
        if self.cores.count > 1 {
            r[EDX] |= 1 << 28; // HTT
        }
        if self.cr4 & cr4::OSXSAVE != 0 {
            r[ECX] |= 1 << 27;
        }
        if !self.apic {
            r[EDX] &= !(1 << 9);
        }
        if self.model.is_intel() && self.misc_enable & misc_enable::MONITOR == 0 {
            r[ECX] &= !(1 << 3);
        }
        r
    }

    /// Leaf 4 and Fn8000_001D: "Deterministic Cache Parameters".
    fn cache(&self, caches: &[Cache], subleaf: u32, cores: bool) -> [u32; 4] {
        let Some(c) = caches.get(subleaf as usize) else { return [0; 4] };
        let package = (1 << width(self.cores.count)) - 1;
        let sharing = if c.shared { (1 << self.cores.sharing) - 1 } else { 0 };
        let eax = c.kind | c.level << 5 | 1 << 8 | sharing << 14 | if cores { package.min(63) << 26 } else { 0 };
        [eax, (c.ways - 1) << 22 | 63, c.sets - 1, if c.shared && self.model.is_intel() { 4 } else { 0 }]
    }

    /// Leaf 7: "Structured Extended Feature Flags".
    fn structured(&self, subleaf: u32) -> [u32; 4] {
        let mut r = self.bits(7, subleaf);
        if subleaf == 0 {
            r[EAX] = if self.model.is_intel() { 2 } else { 0 };
            if self.has(Feature::Pku) && self.cr4 & cr4::PKE != 0 {
                r[ECX] |= 1 << 4; // OSPKE
            }
        }
        r
    }

    /// Leaves 0BH and 1FH: "Extended Topology Enumeration". There is one thread to a core.
    fn topology(&self, subleaf: u32) -> [u32; 4] {
        match subleaf {
            0 => [0, 1, 1 << 8, self.id],
            1 => [width(self.cores.count), self.cores.count, 2 << 8 | 1, self.id],
            _ => [0, 0, subleaf & 0xff, self.id],
        }
    }

    /// Leaf 0DH: "Processor Extended State Enumeration".
    fn xsave(&self, subleaf: u32) -> [u32; 4] {
        let m = &self.model;
        match subleaf {
            0 => {
                let all = m.xcr0_bits();
                let [now, most] = [self.xcr0, all].map(|c| xsave::standard_size(c) as u32);
                [all as u32, now, most, (all >> 32) as u32]
            }
            1 => {
                let mut r = self.bits(0xd, 1);
                if self.has(Feature::Xsavec) || self.has(Feature::Xsaves) {
                    r[EBX] = xsave::compacted_size(self.xcr0 | self.xss) as u32;
                }
                [r[EAX], r[EBX], m.xss_bits() as u32, (m.xss_bits() >> 32) as u32]
            }
            _ => {
                let there =
                    |c: &&xsave::Component| c.number == subleaf && (m.xcr0_bits() | m.xss_bits()) >> subleaf & 1 != 0;
                match xsave::COMPONENTS.iter().find(there) {
                    Some(c) => {
                        let supervisor = (m.xss_bits() >> subleaf & 1) as u32;
                        [c.size as u32, c.offset as u32, supervisor | u32::from(c.aligned) << 1, 0]
                    }
                    None => [0; 4],
                }
            }
        }
    }

    fn extended(&self, leaf: u32, subleaf: u32) -> [u32; 4] {
        let intel = self.model.is_intel();
        let bits = self.bits(leaf, 0);
        match leaf {
            0x8000_0001 => self.extended_features(bits),
            0x8000_0002..=0x8000_0004 => {
                let brand = if intel { intel::BRAND } else { amd::BRAND };
                let at = (leaf - 0x8000_0002) as usize * 16;
                [0, 4, 8, 12].map(|i| text(brand, at + i))
            }
            // L2: 2 MBytes, 16 ways, lines of 64 bytes.
            0x8000_0006 if intel => [0, 0, 2048 << 16 | 8 << 12 | 64, 0],
            // TLBs, then 32 KBytes in 8 ways, lines of 64 bytes.
            0x8000_0005 => [0xff48_ff40, 0xff48_ff40, 0x2008_0140, 0x2008_0140],
            // TLBs; 1 MByte in 8 ways; 32 MBytes.
            0x8000_0006 => {
                [0x5c00_2200, 0x6c00_4200, 1024 << 16 | 6 << 12 | 1 << 8 | 64, 64 << 18 | 9 << 12 | 1 << 8 | 64]
            }
            0x8000_0007 => bits,
            0x8000_0008 => {
                let eax = u32::from(self.model.physical_bits) | u32::from(self.model.linear_bits()) << 8;
                let ecx = if intel { 0 } else { width(self.cores.count) << 12 | (self.cores.count - 1) & 0xff };
                let most_pages = if self.has(Feature::Invlpgb) { broadcast::MOST_PAGES as u32 } else { 0 };
                [eax, bits[EBX], ecx, if intel { 0 } else { 1 << 16 | most_pages }]
            }
            _ if intel => bits,
            0x8000_0019 => [0xf048_f040, 0xf040_0000, 0, 0],
            // FP256, MOVU.
            0x8000_001a => [6, 0, 0, 0],
            0x8000_001d => self.cache(&amd::CACHES, subleaf, false),
            0x8000_001e => [self.id, self.id & 0xff, 0, 0],
            // The extension's to say.
            0x8000_000a => [0; 4],
            0x8000_0022 => {
                let counters = if self.has(Feature::PerfmonV2) { 6 } else { 0 };
                let records = if self.has(Feature::AmdLbrV2) { 16 } else { 0 };
                [bits[EAX], counters | records << 4, 0, 0]
            }
            0x8000_0026 => self.extended_topology(subleaf),
            _ => bits,
        }
    }

    fn extended_features(&self, mut r: [u32; 4]) -> [u32; 4] {
        if self.model.is_intel() {
            if self.misc_enable & misc_enable::XD_DISABLE != 0 {
                r[EDX] &= !(1 << 20);
            }
            return r;
        }
        /// What AMD's parts tell of twice: leaf 1 has the same bits.
        const TWICE: u32 = 0x0183_f3ff;
        r[EAX] = amd::SIGNATURE;
        r[EBX] = 4 << 28; // package SP5
        r[EDX] |= self.version()[EDX] & TWICE;
        if self.cores.count > 1 {
            r[ECX] |= 1 << 1; // CmpLegacy
        }
        r
    }

    /// Fn8000_0026: core, complex, die, socket.
    fn extended_topology(&self, subleaf: u32) -> [u32; 4] {
        match subleaf {
            0 => [0, 1, 1 << 8, self.id],
            // A complex is what shares a last-level cache.
            1 => [self.cores.sharing, self.cores.together(), 2 << 8 | 1, self.id],
            2 | 3 => [width(self.cores.count), self.cores.count, (subleaf + 1) << 8 | subleaf, self.id],
            _ => [0, 0, subleaf & 0xff, self.id],
        }
    }
}

/// Leaf 0AH: version 2, eight counters and three fixed ones of 48 bits. The architectural events of caches are not there.
fn perfmon() -> [u32; 4] {
    const WITHOUT: u32 = 3 << 3;
    [2 | 8 << 8 | 48 << 16 | 7 << 24, WITHOUT, 0, 3 | 48 << 5]
}

#[cfg(test)]
mod tests;
