//! CPU models and their extensions, each a named switch.

use serde::{Deserialize, Serialize};

macro_rules! extensions {
    ($($(#[$m:meta])* $name:ident $text:literal $default:literal [$($needs:ident)*];)*) => {
        /// An extension, or a choice that the specifications leave open.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
        #[repr(u8)]
        pub enum Ext { $($(#[$m])* $name,)* }

        impl Ext {
            /// All of them.
            pub const ALL: &[Ext] = &[$(Ext::$name),*];

            /// Its name, as in `riscv,isa-extensions` and as `--cpu` takes it.
            pub const fn name(self) -> &'static str {
                match self { $(Ext::$name => $text,)* }
            }

            /// Whether the model `rv64` has it.
            pub const fn is_default(self) -> bool {
                match self { $(Ext::$name => $default,)* }
            }

            /// What it cannot be without.
            pub const fn needs(self) -> &'static [Ext] {
                match self { $(Ext::$name => &[$(Ext::$needs),*],)* }
            }
        }
    };
}

extensions! {
    /// Base integer instructions.
    I "i" true [];
    /// Integer multiplication and division.
    M "m" true [];
    /// Atomic instructions: Zaamo and Zalrsc.
    A "a" true [];
    /// Single-precision floating point.
    F "f" true [];
    /// Double-precision floating point.
    D "d" true [F];
    /// Compressed instructions: Zca and, with D, Zcd.
    C "c" true [];
    /// User mode.
    U "u" true [];
    /// Supervisor mode.
    S "s" true [U];
    /// Hypervisor extension.
    H "h" true [S];
    /// FENCE.I.
    Zifencei "zifencei" true [];
    /// Cycle, time and instret counters.
    Zicntr "zicntr" true [];
    /// Hardware performance counters.
    Zihpm "zihpm" true [Zicntr];
    /// Cache-block management.
    Zicbom "zicbom" true [];
    /// Cache-block prefetch hints.
    Zicbop "zicbop" true [];
    /// Cache-block zeroing.
    Zicboz "zicboz" true [];
    /// Integer conditional operations.
    Zicond "zicond" true [];
    /// PAUSE.
    Zihintpause "zihintpause" true [];
    /// Non-temporal locality hints.
    Zihintntl "zihintntl" true [];
    /// May-be-operations.
    Zimop "zimop" true [];
    /// Compressed may-be-operations.
    Zcmop "zcmop" true [C Zimop];
    /// More compressed instructions.
    Zcb "zcb" true [C];
    /// Byte and halfword atomics.
    Zabha "zabha" true [A];
    /// Compare-and-swap.
    Zacas "zacas" true [A];
    /// Wait on reservation set.
    Zawrs "zawrs" true [A];
    /// Half-precision floating point, loads, stores and conversions only.
    Zfhmin "zfhmin" true [F];
    /// Half-precision floating point.
    Zfh "zfh" true [Zfhmin];
    /// Additional floating-point instructions.
    Zfa "zfa" true [F];
    /// Address generation.
    Zba "zba" true [];
    /// Basic bit manipulation.
    Zbb "zbb" true [];
    /// Carry-less multiplication.
    Zbc "zbc" true [];
    /// Single-bit instructions.
    Zbs "zbs" true [];
    /// Bit manipulation for cryptography.
    Zbkb "zbkb" true [];
    /// Carry-less multiplication for cryptography.
    Zbkc "zbkc" true [];
    /// Crossbar permutations.
    Zbkx "zbkx" true [];
    /// Entropy source.
    Zkr "zkr" true [];
    /// PMP of 16 entries and rules for M-mode lockdown stay away: PMP itself.
    Smpmp "smpmp" true [];
    /// Indirect CSR access, machine level.
    Smcsrind "smcsrind" true [Sscsrind];
    /// Indirect CSR access, supervisor level.
    Sscsrind "sscsrind" true [S];
    /// Advanced interrupt architecture, machine level.
    Smaia "smaia" true [Smcsrind Ssaia];
    /// Advanced interrupt architecture, supervisor level.
    Ssaia "ssaia" true [Sscsrind];
    /// State enable, machine level.
    Smstateen "smstateen" true [Ssstateen];
    /// State enable, supervisor level.
    Ssstateen "ssstateen" true [S];
    /// Counter overflow and mode filtering.
    Sscofpmf "sscofpmf" true [Zihpm];
    /// Supervisor timer comparison.
    Sstc "sstc" true [S];
    /// Mode filtering of cycle and instret.
    Smcntrpmf "smcntrpmf" true [Zicntr];
    /// Counter delegation, machine level.
    Smcdeleg "smcdeleg" true [Ssccfg Sscsrind];
    /// Counter delegation, supervisor level.
    Ssccfg "ssccfg" true [Sscsrind];
    /// Double trap, supervisor level.
    Ssdbltrp "ssdbltrp" true [S];
    /// Double trap, machine level.
    Smdbltrp "smdbltrp" false [];
    /// Resumable non-maskable interrupts.
    Smrnmi "smrnmi" false [];
    /// Fault on a clear A or D bit (where menvcfg.ADUE is off, or Svadu absent).
    Svade "svade" true [S];
    /// Hardware updates of A and D bits, by menvcfg.ADUE.
    Svadu "svadu" true [S];
    /// Fine-grained invalidation.
    Svinval "svinval" true [S];
    /// NAPOT translations.
    Svnapot "svnapot" true [S];
    /// Page-based memory types.
    Svpbmt "svpbmt" true [S];
    /// PTEs made valid are seen without a fence.
    Svvptc "svvptc" true [S];
    /// 39-bit virtual addresses.
    Sv39 "sv39" true [S];
    /// 48-bit virtual addresses.
    Sv48 "sv48" true [Sv39];
    /// 57-bit virtual addresses.
    Sv57 "sv57" true [Sv48];
}

/// Number of PMP entries (Privileged Architecture, "Physical Memory Protection").
pub const PMP_ENTRIES: usize = 16;
/// Number of hardware performance counters: mhpmcounter3 and up.
pub const HPM_COUNTERS: usize = 16;
/// Bytes in a cache block.
pub const CACHE_BLOCK: u64 = 64;

/// What a hart has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CpuConfig {
    set: u128,
    /// Guest external interrupts (GEILEN): up to 63.
    pub geilen: u32,
    /// Whether the hart has IMSIC files.
    pub imsic: bool,
    /// Number of interrupt identities of its files.
    pub identities: u32,
    /// Seeds what the entropy source gives.
    pub seed: u64,
}

/// A name that `--cpu` does not take.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CpuError {
    /// No such model.
    #[error("there is no RISC-V CPU model `{0}`; `undervisor cpus` lists them")]
    Model(String),
    /// No such extension.
    #[error("there is no RISC-V extension `{0}`; `undervisor cpus` lists them")]
    Extension(String),
    /// A word without + or -.
    #[error("`{0}`: an extension is switched by +NAME or -NAME")]
    Switch(String),
    /// An extension lacks what it needs.
    #[error("`{0}` needs `{1}`, which is switched off")]
    Needs(&'static str, &'static str),
}

impl CpuConfig {
    /// The model `rv64`: every extension whose default is on.
    pub fn rv64() -> Self {
        let set = Ext::ALL.iter().filter(|e| e.is_default()).fold(0, |set, e| set | 1 << *e as u8);
        CpuConfig { set, geilen: 5, imsic: false, identities: 255, seed: 0 }
    }

    /// The model `max`: every extension.
    pub fn max() -> Self {
        CpuConfig { set: Ext::ALL.iter().fold(0, |set, e| set | 1 << *e as u8), ..Self::rv64() }
    }

    /// The names of the models, and what they are.
    pub const MODELS: &[(&str, &str)] =
        &[("rv64", "every extension that software expects on by default"), ("max", "every extension there is")];

    /// A model with switches: `rv64,+smrnmi,-svadu`. Switching an extension on switches on what it needs; switching one
    /// off that another needs is refused if that was asked for by name, else takes it along.
    pub fn parse(text: &str) -> Result<Self, CpuError> {
        let mut words = text.split(',');
        let model = words.next().unwrap_or_default();
        let mut cpu = match model {
            "rv64" => Self::rv64(),
            "max" => Self::max(),
            _ => return Err(CpuError::Model(model.into())),
        };
        let mut wanted = Vec::new();
        for word in words {
            let (on, name) = match word.split_at_checked(1) {
                Some(("+", name)) => (true, name),
                Some(("-", name)) => (false, name),
                _ => return Err(CpuError::Switch(word.into())),
            };
            let ext = *Ext::ALL
                .iter()
                .find(|e| e.name() == name && **e != Ext::I)
                .ok_or_else(|| CpuError::Extension(name.into()))?;
            if on {
                cpu.switch_on(ext);
                wanted.push(ext);
            } else {
                cpu.switch_off(ext);
            }
        }
        for ext in wanted {
            if let Some(needs) = ext.needs().iter().find(|n| !cpu.has(**n)) {
                return Err(CpuError::Needs(ext.name(), needs.name()));
            }
        }
        Ok(cpu)
    }

    fn switch_on(&mut self, ext: Ext) {
        self.set |= 1 << ext as u8;
        ext.needs().iter().for_each(|n| self.switch_on(*n));
    }

    fn switch_off(&mut self, ext: Ext) {
        self.set &= !(1 << ext as u8);
        for e in Ext::ALL {
            if self.has(*e) && e.needs().contains(&ext) {
                self.switch_off(*e);
            }
        }
    }

    /// Whether it has the extension.
    #[inline]
    pub const fn has(&self, ext: Ext) -> bool {
        self.set >> ext as u8 & 1 != 0
    }

    /// The same without an extension and whatever needs it.
    pub fn without(mut self, ext: Ext) -> Self {
        self.switch_off(ext);
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn switches() {
        let cpu = CpuConfig::parse("rv64,-f,+smrnmi").unwrap();
        assert!(!cpu.has(Ext::D) && !cpu.has(Ext::Zfh) && cpu.has(Ext::Smrnmi) && cpu.has(Ext::H));
        assert!(CpuConfig::parse("rv64,-s").unwrap().has(Ext::U));
        assert_eq!(CpuConfig::parse("rv65"), Err(CpuError::Model("rv65".into())));
        assert_eq!(CpuConfig::parse("rv64,+foo"), Err(CpuError::Extension("foo".into())));
        assert_eq!(CpuConfig::parse("rv64,foo"), Err(CpuError::Switch("foo".into())));
        assert_eq!(CpuConfig::parse("rv64,+d,-f"), Err(CpuError::Needs("d", "f")));
    }
}
