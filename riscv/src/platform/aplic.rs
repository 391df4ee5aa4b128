//! APLIC: the advanced platform-level interrupt controller (RISC-V Advanced Interrupt Architecture 1.0, chapter "Advanced
//! Platform-Level Interrupt Controller").
//!
//! One chip with two interrupt domains: the root domain at machine level, and its child 0 at supervisor level. The machine
//! domain's control region is at offset 0 of the device, the supervisor's at [`DOMAIN_SIZE`]. Byte order is little-endian
//! only. The delivery mode is built in: MSIs where the harts have IMSICs, direct delivery where they have not.

use emu_core::device::{Access, Device, DeviceCx};
use emu_core::device_state;
use serde::{Deserialize, Serialize};

/// Size in bytes of a domain's control region, with the IDC structures of up to 512 harts.
pub const DOMAIN_SIZE: u64 = 0x8000;
/// The most sources; source 0 does not exist.
pub const MAX_SOURCES: u32 = 1023;

const DOMAINCFG: u64 = 0x0000;
const SOURCECFG: u64 = 0x0004;
const MMSIADDRCFG: u64 = 0x1bc0;
const MMSIADDRCFGH: u64 = 0x1bc4;
const SMSIADDRCFG: u64 = 0x1bc8;
const SMSIADDRCFGH: u64 = 0x1bcc;
const SETIP: u64 = 0x1c00;
const SETIPNUM: u64 = 0x1cdc;
const IN_CLRIP: u64 = 0x1d00;
const CLRIPNUM: u64 = 0x1ddc;
const SETIE: u64 = 0x1e00;
const SETIENUM: u64 = 0x1edc;
const CLRIE: u64 = 0x1f00;
const CLRIENUM: u64 = 0x1fdc;
const SETIPNUM_LE: u64 = 0x2000;
const GENMSI: u64 = 0x3000;
const TARGET: u64 = 0x3004;
const IDC: u64 = 0x4000;
/// Words of a bit array of 1024 sources.
const ARRAY: u64 = 32 * 4;

/// `domaincfg`: bits 31:24 read 0x80.
const DOMAINCFG_FIXED: u32 = 0x8000_0000;
const DOMAINCFG_IE: u32 = 1 << 8;
const DOMAINCFG_DM: u32 = 1 << 2;
/// `sourcecfg`: delegated to the child in bits 9:0.
const SOURCECFG_D: u32 = 1 << 10;
/// `mmsiaddrcfgh`: the MSI address registers are locked.
const MMSIADDRCFGH_L: u32 = 1 << 31;
const MMSIADDRCFGH_ALL: u32 = 0x9f77_ffff;
const SMSIADDRCFGH_ALL: u32 = 0x0070_0fff;
const EIID: u32 = 0x7ff;
const GUEST_INDEX: u32 = 0x3f << 12;

/// `sourcecfg.SM`: what on the wire is an interrupt.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
enum Mode {
    #[default]
    Inactive,
    Detached,
    Edge1,
    Edge0,
    Level1,
    Level0,
}

impl Mode {
    /// Reserved values are taken as Inactive.
    fn from_field(field: u32) -> Self {
        match field & 7 {
            1 => Mode::Detached,
            4 => Mode::Edge1,
            5 => Mode::Edge0,
            6 => Mode::Level1,
            7 => Mode::Level0,
            _ => Mode::Inactive,
        }
    }

    fn field(self) -> u32 {
        match self {
            Mode::Inactive => 0,
            Mode::Detached => 1,
            Mode::Edge1 => 4,
            Mode::Edge0 => 5,
            Mode::Level1 => 6,
            Mode::Level0 => 7,
        }
    }

    fn is_level(self) -> bool {
        matches!(self, Mode::Level1 | Mode::Level0)
    }

    /// The rectified input value ("Source configurations").
    fn rectify(self, wire: bool) -> bool {
        match self {
            Mode::Inactive | Mode::Detached => false,
            Mode::Edge1 | Mode::Level1 => wire,
            Mode::Edge0 | Mode::Level0 => !wire,
        }
    }
}

/// A source as one domain has it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Source {
    mode: Mode,
    /// Root domain only: delegated to the supervisor's.
    delegated: bool,
    pending: bool,
    enabled: bool,
    target: u32,
}

/// Interrupt delivery control of one hart in one domain.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Idc {
    idelivery: bool,
    iforce: bool,
    ithreshold: u32,
    /// The level of the output line.
    line: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Domain {
    ie: bool,
    sources: Vec<Source>,
    idcs: Vec<Idc>,
    genmsi: u32,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct State {
    /// Levels of the wires.
    wires: Vec<bool>,
    machine: Domain,
    supervisor: Domain,
    mmsiaddrcfg: u32,
    mmsiaddrcfgh: u32,
    smsiaddrcfg: u32,
    smsiaddrcfgh: u32,
}

/// How an APLIC is built.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AplicConfig {
    /// The number of its highest source.
    pub sources: u32,
    /// Its harts; hart indexes are the same in both domains.
    pub harts: u32,
    /// Whether it forwards interrupts as MSIs (the harts have IMSICs).
    pub msi: bool,
    /// GEILEN of the harts.
    pub guest_files: u32,
}

/// The controller. In direct delivery mode output line 2 h is the machine-level interrupt of hart h, 2 h + 1 its
/// supervisor-level interrupt.
pub struct Aplic {
    config: AplicConfig,
    state: State,
}

/// Which of the two domains.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Level {
    Machine,
    Supervisor,
}

impl Aplic {
    /// An APLIC at reset.
    pub fn new(config: AplicConfig) -> Self {
        let config = AplicConfig { sources: config.sources.min(MAX_SOURCES), harts: config.harts.min(512), ..config };
        let n = config.sources as usize + 1;
        let idcs = if config.msi { 0 } else { config.harts as usize };
        let domain =
            Domain { ie: false, sources: vec![Source::default(); n], idcs: vec![Idc::default(); idcs], genmsi: 0 };
        let state = State {
            wires: vec![false; n],
            machine: domain.clone(),
            supervisor: domain,
            mmsiaddrcfg: 0,
            mmsiaddrcfgh: 0,
            smsiaddrcfg: 0,
            smsiaddrcfgh: 0,
        };
        Aplic { config, state }
    }

    fn domain(&self, level: Level) -> &Domain {
        match level {
            Level::Machine => &self.state.machine,
            Level::Supervisor => &self.state.supervisor,
        }
    }

    fn domain_mut(&mut self, level: Level) -> &mut Domain {
        match level {
            Level::Machine => &mut self.state.machine,
            Level::Supervisor => &mut self.state.supervisor,
        }
    }

    /// A source that is active in the domain.
    fn active(&mut self, level: Level, number: u64) -> Option<&mut Source> {
        self.domain_mut(level).sources.get_mut(usize::try_from(number).ok()?).filter(|s| s.mode != Mode::Inactive)
    }

    fn rectified(&self, level: Level, number: usize) -> bool {
        self.domain(level).sources[number].mode.rectify(self.state.wires[number])
    }

    // "Precise effects on interrupt-pending bits".

    /// A write to `setip` or `setipnum`.
    fn set_pending(&mut self, level: Level, number: u64) {
        let msi = self.config.msi;
        let Some(mode) = self.active(level, number).map(|s| s.mode) else { return };
        let rectified = self.rectified(level, number as usize);
        if let Some(s) = self.active(level, number) {
            s.pending |= !mode.is_level() || msi && rectified;
        }
    }

    /// A write to `in_clrip` or `clripnum`, a claim, or forwarding by MSI.
    fn clear_pending(&mut self, level: Level, number: u64) {
        let msi = self.config.msi;
        if let Some(s) = self.active(level, number) {
            s.pending &= s.mode.is_level() && !msi;
        }
    }

    /// The rectified input value was `old` and may have changed.
    fn input_changed(&mut self, level: Level, number: usize, old: bool) {
        let new = self.rectified(level, number);
        let s = &mut self.domain_mut(level).sources[number];
        if new && !old {
            s.pending = true;
        } else if !new && s.mode.is_level() {
            s.pending = false;
        }
    }

    /// "Source configurations". A source whose rectified input value is high under its new mode becomes pending if it is
    /// level-sensitive; an edge is a change of the wire only.
    fn write_sourcecfg(&mut self, level: Level, number: usize, value: u32) {
        if number == 0 || number >= self.state.wires.len() {
            return;
        }
        if level == Level::Supervisor && !self.state.machine.sources[number].delegated {
            return; // it appears not to be implemented
        }
        let delegated = value & SOURCECFG_D != 0;
        let mode = if delegated { Mode::Inactive } else { Mode::from_field(value) };
        let s = &mut self.domain_mut(level).sources[number];
        s.delegated = delegated && level == Level::Machine;
        s.mode = mode;
        if mode == Mode::Inactive {
            *s = Source { delegated: s.delegated, ..Source::default() };
        }
        let undelegated = level == Level::Machine && !s.delegated;
        if mode.is_level() {
            let high = self.rectified(level, number);
            self.domain_mut(level).sources[number].pending = high;
        }
        if mode != Mode::Inactive && !self.config.msi {
            let s = &mut self.domain_mut(level).sources[number];
            s.target |= u32::from(s.target & 0xff == 0); // IPRIO is never 0
        }
        if undelegated {
            self.state.supervisor.sources[number] = Source::default();
        }
    }

    fn write_target(&mut self, level: Level, number: u64, value: u32) {
        let AplicConfig { msi, harts, guest_files, .. } = self.config;
        let Some(s) = self.active(level, number) else { return };
        if value >> 18 >= harts {
            return; // WLRL: a hart that does not exist
        }
        let hart = value & !0x3_ffff;
        s.target = if !msi {
            hart | (value & 0xff).max(1)
        } else if level == Level::Supervisor && (value & GUEST_INDEX) >> 12 <= guest_files {
            hart | value & (GUEST_INDEX | EIID)
        } else {
            hart | value & EIID
        };
    }

    /// "Addresses and data for outgoing MSIs".
    fn msi_address(&self, level: Level, target: u32) -> u64 {
        let s = &self.state;
        let (low, high) = match level {
            Level::Machine => (s.mmsiaddrcfg, s.mmsiaddrcfgh),
            Level::Supervisor => (s.smsiaddrcfg, s.smsiaddrcfgh),
        };
        let base = u64::from(high & 0xfff) << 32 | u64::from(low);
        let lhxs = high >> 20 & 7;
        let (hhxs, hhxw, lhxw) = (s.mmsiaddrcfgh >> 24 & 0x1f, s.mmsiaddrcfgh >> 16 & 7, s.mmsiaddrcfgh >> 12 & 0xf);
        let index = u64::from(target >> 18);
        let g = index >> lhxw & ((1 << hhxw) - 1);
        let h = index & ((1 << lhxw) - 1);
        let guest = if level == Level::Supervisor { u64::from(target & GUEST_INDEX) >> 12 } else { 0 };
        (base | g << (hhxs + 12) | h << lhxs | guest) << 12
    }

    fn send_msi(&self, level: Level, target: u32, cx: &mut DeviceCx) {
        cx.msi(self.msi_address(level, target), target & EIID);
    }

    /// Sends what is to be sent: MSIs, or new levels of the lines.
    fn deliver(&mut self, level: Level, cx: &mut DeviceCx) {
        if self.config.msi {
            // "Interrupt forwarding by MSIs"
            if !self.domain(level).ie {
                return;
            }
            for i in 1..self.state.wires.len() {
                let s = self.domain(level).sources[i];
                if s.pending && s.enabled {
                    self.send_msi(level, s.target, cx);
                    self.clear_pending(level, i as u64);
                }
            }
            return;
        }
        // "Interrupt delivery and handling"
        for hart in 0..self.domain(level).idcs.len() {
            let topi = self.topi(level, hart);
            let d = self.domain_mut(level);
            let ie = d.ie;
            let idc = &mut d.idcs[hart];
            let line = ie && idc.idelivery && (idc.iforce || topi != 0);
            if line != idc.line {
                idc.line = line;
                cx.line(2 * hart as u32 + u32::from(level == Level::Supervisor), line);
            }
        }
    }

    /// "Top interrupt": the source in bits 25:16, its priority in 7:0; 0 for none.
    fn topi(&self, level: Level, hart: usize) -> u32 {
        let d = self.domain(level);
        let threshold = d.idcs[hart].ithreshold;
        d.sources
            .iter()
            .enumerate()
            .filter(|(_, s)| s.pending && s.enabled && (s.target >> 18) as usize == hart)
            .map(|(i, s)| (s.target & 0xff, i as u32))
            .min()
            .filter(|(priority, _)| threshold == 0 || *priority < threshold)
            .map_or(0, |(priority, i)| i << 16 | priority)
    }

    /// "Claim top interrupt".
    fn claimi(&mut self, level: Level, hart: usize) -> u32 {
        let topi = self.topi(level, hart);
        if topi == 0 {
            self.domain_mut(level).idcs[hart].iforce = false;
        } else {
            self.clear_pending(level, u64::from(topi >> 16));
        }
        topi
    }

    /// The 32 bits of sources from 32 `word` on.
    fn bits(&self, word: u64, bit: impl Fn(usize) -> bool) -> u32 {
        let first = 32 * word as usize;
        (0..32).filter(|b| first + b < self.state.wires.len() && bit(first + b)).map(|b| 1 << b).sum()
    }

    fn idc(&self, level: Level, at: u64) -> Option<(usize, u64)> {
        let hart = ((at - IDC) / 32) as usize;
        (hart < self.domain(level).idcs.len()).then_some((hart, at % 32))
    }

    fn sourcecfg(&self, level: Level, number: u64) -> u32 {
        match self.domain(level).sources.get(number as usize) {
            Some(s) if s.delegated => SOURCECFG_D,
            Some(s) => s.mode.field(),
            None => 0,
        }
    }

    fn read_word(&mut self, level: Level, at: u64) -> u32 {
        let root = level == Level::Machine && self.config.msi;
        let d = self.domain(level);
        match at {
            DOMAINCFG => {
                let (ie, dm) = (d.ie.then_some(DOMAINCFG_IE), self.config.msi.then_some(DOMAINCFG_DM));
                DOMAINCFG_FIXED | ie.unwrap_or(0) | dm.unwrap_or(0)
            }
            SOURCECFG..0x1000 => self.sourcecfg(level, at / 4),
            MMSIADDRCFG if root => self.state.mmsiaddrcfg,
            MMSIADDRCFGH if root => self.state.mmsiaddrcfgh,
            SMSIADDRCFG if root => self.state.smsiaddrcfg,
            SMSIADDRCFGH if root => self.state.smsiaddrcfgh,
            SETIP.. if at < SETIP + ARRAY => self.bits((at - SETIP) / 4, |i| d.sources[i].pending),
            IN_CLRIP.. if at < IN_CLRIP + ARRAY => self.bits((at - IN_CLRIP) / 4, |i| self.rectified(level, i)),
            SETIE.. if at < SETIE + ARRAY => self.bits((at - SETIE) / 4, |i| d.sources[i].enabled),
            GENMSI => d.genmsi,
            TARGET..IDC => d.sources.get(((at - GENMSI) / 4) as usize).map_or(0, |s| s.target),
            IDC..DOMAIN_SIZE => match self.idc(level, at) {
                Some((hart, 0x00)) => d.idcs[hart].idelivery.into(),
                Some((hart, 0x04)) => d.idcs[hart].iforce.into(),
                Some((hart, 0x08)) => d.idcs[hart].ithreshold,
                Some((hart, 0x18)) => self.topi(level, hart),
                Some((hart, 0x1c)) => self.claimi(level, hart),
                _ => 0,
            },
            _ => 0,
        }
    }

    /// Numbers of the sources whose bits are 1 in `value`, which is word `word` of an array.
    fn numbers(word: u64, value: u32) -> impl Iterator<Item = u64> {
        (0..32).filter(move |b| value >> b & 1 != 0).map(move |b| 32 * word + b)
    }

    fn enable(&mut self, level: Level, number: u64, enabled: bool) {
        if let Some(s) = self.active(level, number) {
            s.enabled = enabled;
        }
    }

    fn write_word(&mut self, level: Level, at: u64, value: u32, cx: &mut DeviceCx) {
        let unlocked = level == Level::Machine && self.config.msi && self.state.mmsiaddrcfgh & MMSIADDRCFGH_L == 0;
        let number = u64::from(value);
        match at {
            DOMAINCFG => self.domain_mut(level).ie = value & DOMAINCFG_IE != 0,
            SOURCECFG..0x1000 => self.write_sourcecfg(level, (at / 4) as usize, value),
            MMSIADDRCFG if unlocked => self.state.mmsiaddrcfg = value,
            MMSIADDRCFGH if unlocked => self.state.mmsiaddrcfgh = value & MMSIADDRCFGH_ALL,
            SMSIADDRCFG if unlocked => self.state.smsiaddrcfg = value,
            SMSIADDRCFGH if unlocked => self.state.smsiaddrcfgh = value & SMSIADDRCFGH_ALL,
            SETIP.. if at < SETIP + ARRAY => {
                Self::numbers((at - SETIP) / 4, value).for_each(|i| self.set_pending(level, i))
            }
            SETIPNUM | SETIPNUM_LE => self.set_pending(level, number),
            IN_CLRIP.. if at < IN_CLRIP + ARRAY => {
                Self::numbers((at - IN_CLRIP) / 4, value).for_each(|i| self.clear_pending(level, i))
            }
            CLRIPNUM => self.clear_pending(level, number),
            SETIE.. if at < SETIE + ARRAY => {
                Self::numbers((at - SETIE) / 4, value).for_each(|i| self.enable(level, i, true))
            }
            SETIENUM => self.enable(level, number, true),
            CLRIE.. if at < CLRIE + ARRAY => {
                Self::numbers((at - CLRIE) / 4, value).for_each(|i| self.enable(level, i, false))
            }
            CLRIENUM => self.enable(level, number, false),
            // "Generate MSI": it leaves at once, so Busy is never seen.
            GENMSI if self.config.msi && value >> 18 < self.config.harts => {
                let genmsi = value & (!0x3_ffff | EIID);
                self.domain_mut(level).genmsi = genmsi;
                self.send_msi(level, genmsi, cx);
            }
            TARGET..IDC => self.write_target(level, (at - GENMSI) / 4, value),
            IDC..DOMAIN_SIZE => {
                if let Some((hart, register)) = self.idc(level, at) {
                    let idc = &mut self.domain_mut(level).idcs[hart];
                    match register {
                        0x00 => idc.idelivery = value & 1 != 0,
                        0x04 => idc.iforce = value & 1 != 0,
                        0x08 => idc.ithreshold = value & 0xff,
                        _ => {}
                    }
                }
            }
            _ => {}
        }
    }

    /// The domain and the offset in its control region; naturally aligned words only.
    fn place(access: Access) -> Option<(Level, u64)> {
        let level = if access.offset < DOMAIN_SIZE { Level::Machine } else { Level::Supervisor };
        let at = access.offset % DOMAIN_SIZE;
        (access.size == 4 && at.is_multiple_of(4)).then_some((level, at))
    }

    fn deliver_all(&mut self, cx: &mut DeviceCx) {
        self.deliver(Level::Machine, cx);
        self.deliver(Level::Supervisor, cx);
    }
}

impl Device for Aplic {
    fn name(&self) -> &'static str {
        "aplic"
    }

    fn read(&mut self, access: Access, cx: &mut DeviceCx) -> u64 {
        let Some((level, at)) = Self::place(access) else { return 0 };
        let value = self.read_word(level, at);
        self.deliver(level, cx); // a claim changes lines
        value.into()
    }

    fn write(&mut self, access: Access, value: u64, cx: &mut DeviceCx) {
        if let Some((level, at)) = Self::place(access) {
            self.write_word(level, at, value as u32, cx);
            self.deliver_all(cx);
        }
    }

    fn input(&mut self, line: u32, level: bool, cx: &mut DeviceCx) {
        let i = line as usize;
        if i == 0 || i >= self.state.wires.len() {
            return;
        }
        let old = [Level::Machine, Level::Supervisor].map(|l| (l, self.rectified(l, i)));
        self.state.wires[i] = level;
        for (l, old) in old {
            self.input_changed(l, i, old);
        }
        self.deliver_all(cx);
    }

    fn reset(&mut self) {
        *self = Aplic::new(self.config);
    }

    device_state!(state);
}

#[cfg(test)]
mod tests;
