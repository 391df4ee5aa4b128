//! Models of processors: what a part of this kind has, and what CPUID says of it.

mod amd;
mod clock;
mod cpuid;
mod features;
mod gate;
mod intel;

use serde::{Deserialize, Serialize};
use thiserror::Error;

pub(crate) use amd::MICROCODE as AMD_MICROCODE;
pub use clock::BusClock;
pub(crate) use cpuid::misc_enable;
pub use cpuid::{Cores, Query, cpuid};
pub use features::{Feature, Features};
use features::{In, ROWS};
pub(crate) use intel::MICROCODE as INTEL_MICROCODE;

use crate::control::cr4;
use crate::xsave::{xcr0, xss};

/// Whose processor it is, where the two differ.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Vendor {
    /// Intel: the SDM counts.
    Intel,
    /// AMD: the APM counts.
    Amd,
}

/// A processor's model: whose, with which features.
///
/// ```
/// use x86::model::{CpuModel, Feature};
/// let model = CpuModel::parse("intel,-avx2,+la57").unwrap();
/// assert!(model.has(Feature::La57) && !model.has(Feature::Avx2));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CpuModel {
    /// Whose it is.
    pub vendor: Vendor,
    /// What it has.
    pub features: Features,
    /// MAXPHYADDR: bits of a physical address.
    pub physical_bits: u8,
}

/// Why a model was not understood.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum ModelError {
    /// The first word names no model.
    #[error(
        "there is no CPU model '{0}': expected 'intel' or 'amd', and features behind it, as in 'intel,-avx2,+la57'"
    )]
    Model(String),
    /// A word behind it has no sign.
    #[error("CPU feature '{0}' has neither + nor - before it: expected a list such as 'intel,-avx2,+la57'")]
    Sign(String),
    /// It names no feature of this model.
    #[error("the CPU model '{model}' knows no feature '{feature}': expected one of {expected}")]
    Feature {
        /// The model.
        model: &'static str,
        /// What was asked for.
        feature: String,
        /// What there is.
        expected: String,
    },
    /// A number of physical address bits that cannot be.
    #[error("'{0}': a physical address has 36 to 52 bits")]
    PhysicalBits(String),
    /// A feature that builds upon another.
    #[error("the CPU feature '{feature}' needs '{needs}', which is off")]
    Needs {
        /// What was asked for.
        feature: &'static str,
        /// What it builds upon.
        needs: &'static str,
    },
    /// Two features of which a part has one at most.
    #[error("the CPU features '{0}' and '{1}' exclude each other")]
    Excludes(&'static str, &'static str),
}

/// MAXPHYADDR of 64-bit parts.
const PHYSICAL_BITS: std::ops::RangeInclusive<u8> = 36..=52;

/// Features that build upon others.
const NEEDS: &[(Feature, Feature)] = &[
    (Feature::Avx, Feature::Xsave),
    (Feature::Pku, Feature::Xsave),
    (Feature::Xsaveopt, Feature::Xsave),
    (Feature::Xsavec, Feature::Xsave),
    (Feature::Xgetbv1, Feature::Xsave),
    (Feature::Xsaves, Feature::Xsave),
    (Feature::Avx2, Feature::Avx),
    (Feature::Fma, Feature::Avx),
    (Feature::F16c, Feature::Avx),
    (Feature::Vaes, Feature::Avx),
    (Feature::Vpclmulqdq, Feature::Avx),
    (Feature::TscDeadline, Feature::Apic),
    (Feature::X2apic, Feature::Apic),
    (Feature::PerfmonV2, Feature::PerfctrCore),
    (Feature::AmdLbrPmcFreeze, Feature::AmdLbrV2),
    (Feature::AmdLbrPmcFreeze, Feature::PerfmonV2),
    (Feature::Lbr, Feature::Pdcm),
    (Feature::ArchLbr, Feature::Pdcm),
    (Feature::Npt, Feature::Svm),
    (Feature::Lbrv, Feature::Svm),
    (Feature::SvmLock, Feature::Svm),
    (Feature::NripSave, Feature::Svm),
    (Feature::TscScale, Feature::Svm),
    (Feature::VmcbClean, Feature::Svm),
    (Feature::FlushByAsid, Feature::Svm),
    (Feature::DecodeAssists, Feature::Svm),
    (Feature::PauseFilter, Feature::Svm),
    (Feature::PfThreshold, Feature::Svm),
    (Feature::Avic, Feature::Npt),
    (Feature::X2avic, Feature::Avic),
    (Feature::X2avicExt, Feature::X2avic),
    (Feature::ExtLvtAvicAccess, Feature::Avic),
    (Feature::ExtLvtAvicAccess, Feature::Extapic),
    (Feature::VVmsaveVmload, Feature::Svm),
    (Feature::Vgif, Feature::Svm),
    (Feature::Gmet, Feature::Svm),
    (Feature::VSpecCtrl, Feature::Svm),
    (Feature::SssCheck, Feature::Svm),
    (Feature::TlbiCtl, Feature::Svm),
    (Feature::BusLockThreshold, Feature::Svm),
    (Feature::Vnmi, Feature::Svm),
    (Feature::SvmeAddrChk, Feature::Svm),
    (Feature::IdleHlt, Feature::Svm),
    (Feature::Gmet, Feature::Npt),
    (Feature::SssCheck, Feature::Npt),
    (Feature::InvlpgbNested, Feature::Invlpgb),
    (Feature::InvlpgbNested, Feature::Npt),
    (Feature::TlbiCtl, Feature::Invlpgb),
    (Feature::PfThreshold, Feature::PauseFilter),
    (Feature::Vnmi, Feature::Vgif),
];

/// Features of which a part has one at most.
const EXCLUDES: &[(Feature, Feature)] = &[(Feature::Lbr, Feature::ArchLbr)];

impl CpuModel {
    /// A part of this vendor, as it comes.
    pub fn of(vendor: Vendor) -> Self {
        let mut features = Features::default();
        for row in ROWS {
            let there = if vendor == Vendor::Intel { row.intel } else { row.amd };
            features.set(row.feature, there == In::On);
        }
        let physical_bits = match vendor {
            Vendor::Intel => intel::PHYSICAL_BITS,
            Vendor::Amd => amd::PHYSICAL_BITS,
        };
        CpuModel { vendor, features, physical_bits }
    }

    /// Understands a model's name, with features to switch on (`+`) and off (`-`) behind it: `intel,-avx2,+la57`.
    /// What builds upon a feature that is switched off goes with it. `phys-bits=36` says how many bits a physical address has.
    pub fn parse(text: &str) -> Result<Self, ModelError> {
        let mut words = text.split(',').map(str::trim);
        let (mut model, name) = match words.next().unwrap_or("") {
            "intel" => (CpuModel::of(Vendor::Intel), "intel"),
            "amd" => (CpuModel::of(Vendor::Amd), "amd"),
            other => return Err(ModelError::Model(other.into())),
        };
        let mut asked = Features::default();
        for word in words {
            if let Some(bits) = word.strip_prefix("phys-bits=") {
                let bits = bits.parse().ok().filter(|bits| PHYSICAL_BITS.contains(bits));
                model.physical_bits = bits.ok_or_else(|| ModelError::PhysicalBits(word.into()))?;
                continue;
            }
            let (on, feature) = match word.split_at_checked(1) {
                Some(("+", feature)) => (true, feature),
                Some(("-", feature)) => (false, feature),
                _ => return Err(ModelError::Sign(word.into())),
            };
            match model.switch(feature) {
                Some(f) => {
                    model.features.set(f, on);
                    asked.set(f, on);
                }
                None => {
                    let expected = model.switches().collect::<Vec<_>>().join(", ");
                    return Err(ModelError::Feature { model: name, feature: feature.into(), expected });
                }
            }
        }
        for (feature, needs) in NEEDS {
            if model.has(*feature) && !model.has(*needs) {
                if asked.has(*feature) {
                    return Err(ModelError::Needs { feature: feature.name(), needs: needs.name() });
                }
                model.features.set(*feature, false);
            }
        }
        for (one, other) in EXCLUDES {
            if model.has(*one) && model.has(*other) {
                return Err(ModelError::Excludes(one.name(), other.name()));
            }
        }
        Ok(model)
    }

    /// The features that parts of this kind have if they are switched on.
    pub fn optional(&self) -> impl Iterator<Item = &'static str> {
        let vendor = self.vendor;
        ROWS.iter().filter(move |r| (if vendor == Vendor::Intel { r.intel } else { r.amd }) == In::Off).map(|r| r.name)
    }

    /// The features that can be switched.
    pub fn switches(&self) -> impl Iterator<Item = &'static str> {
        let vendor = self.vendor;
        ROWS.iter().filter(move |r| (if vendor == Vendor::Intel { r.intel } else { r.amd }) != In::No).map(|r| r.name)
    }

    /// The feature of this name.
    fn switch(&self, name: &str) -> Option<Feature> {
        let known = self.switches().any(|n| n == name);
        ROWS.iter().find(|r| known && r.name == name).map(|r| r.feature)
    }

    /// EDX of Fn8000_000A, for the extension that has these features.
    pub fn svm_features(&self) -> [u32; 2] {
        [2, 3].map(|register| self.features.bits(0x8000_000a, 0, register))
    }

    /// Whether it has a feature.
    pub const fn has(&self, f: Feature) -> bool {
        self.features.has(f)
    }

    /// Family, model and stepping: CPUID.01H:EAX, and EDX after RESET.
    pub const fn signature(&self) -> u32 {
        match self.vendor {
            Vendor::Intel => intel::SIGNATURE,
            Vendor::Amd => amd::SIGNATURE,
        }
    }

    /// It is AMD's.
    pub fn is_amd(&self) -> bool {
        self.vendor == Vendor::Amd
    }

    /// It is Intel's.
    pub fn is_intel(&self) -> bool {
        self.vendor == Vendor::Intel
    }

    /// Bits of a linear address, at most.
    pub fn linear_bits(&self) -> u8 {
        if self.has(Feature::La57) { 57 } else { 48 }
    }

    /// State components that XCR0 may enable (SDM vol. 1, "XSAVE-Supported Features and State-Component Bitmaps").
    pub fn xcr0_bits(&self) -> u64 {
        if !self.has(Feature::Xsave) {
            return 0;
        }
        let mut bits = xcr0::X87 | xcr0::SSE;
        if self.has(Feature::Avx) {
            bits |= xcr0::AVX;
        }
        if self.has(Feature::Pku) {
            bits |= xcr0::PKRU;
        }
        bits
    }

    /// Whether it has a part of Control-flow Enforcement Technology.
    fn has_cet(&self) -> bool {
        self.has(Feature::Shstk) || self.has(Feature::Ibt)
    }

    /// State components that IA32_XSS may enable.
    pub fn xss_bits(&self) -> u64 {
        if !self.has(Feature::Xsaves) {
            return 0;
        }
        let cet = if self.has_cet() { xss::CET_U | xss::CET_S } else { 0 };
        cet | if self.has(Feature::ArchLbr) { xss::LBR } else { 0 }
    }

    /// Bits that CR4 may have set ("Control Registers").
    pub fn cr4_bits(&self) -> u64 {
        const BITS: &[(Feature, u64)] = &[
            (Feature::Vme, cr4::VME | cr4::PVI),
            (Feature::Tsc, cr4::TSD),
            (Feature::De, cr4::DE),
            (Feature::Pse, cr4::PSE),
            (Feature::Pae, cr4::PAE),
            (Feature::Mce, cr4::MCE),
            (Feature::Pge, cr4::PGE),
            (Feature::Fxsr, cr4::OSFXSR),
            (Feature::Sse, cr4::OSXMMEXCPT),
            (Feature::Umip, cr4::UMIP),
            (Feature::La57, cr4::LA57),
            (Feature::Fsgsbase, cr4::FSGSBASE),
            (Feature::Pcid, cr4::PCIDE),
            (Feature::Xsave, cr4::OSXSAVE),
            (Feature::Smep, cr4::SMEP),
            (Feature::Smap, cr4::SMAP),
            (Feature::Pku, cr4::PKE),
            (Feature::Pks, cr4::PKS),
            (Feature::Lam, cr4::LAM_SUP),
        ];
        let cet = if self.has_cet() { cr4::CET } else { 0 };
        BITS.iter().filter(|(f, _)| self.has(*f)).fold(cr4::PCE | cet, |bits, (_, bit)| bits | bit)
    }
}

impl Feature {
    /// Its name.
    pub fn name(self) -> &'static str {
        ROWS[self as usize].name
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_model_is_understood_with_its_switches() {
        let m = CpuModel::parse("intel,-avx2,+la57,-vmx").unwrap();
        assert!(m.is_intel() && m.has(Feature::La57) && !m.has(Feature::Avx2) && m.has(Feature::Avx));
        let m = CpuModel::parse("amd,-avx").unwrap();
        assert!(!m.has(Feature::Avx2) && !m.has(Feature::Fma), "what builds upon it goes with it");
        assert_eq!(CpuModel::parse("amd").unwrap(), CpuModel::of(Vendor::Amd));
        assert_eq!(CpuModel::parse("amd,phys-bits=40,-avx").unwrap().physical_bits, 40);
    }

    #[test]
    fn what_is_not_understood_is_named() {
        for (text, words) in [
            ("pentium", "no CPU model 'pentium': expected 'intel' or 'amd'"),
            ("", "no CPU model ''"),
            ("intel,avx2", "'avx2' has neither + nor -"),
            ("intel,", "'' has neither"),
            ("intel,+avx9", "'intel' knows no feature 'avx9': expected one of fpu, vme"),
            ("intel,+sse4a", "knows no feature 'sse4a'"),
            ("amd,+waitpkg", "knows no feature 'waitpkg'"),
            ("intel,+svm", "knows no feature 'svm'"),
            ("amd,-svm,+npt", "'npt' needs 'svm'"),
            ("amd,+ibt", "knows no feature 'ibt'"),
            ("amd,-avx,+avx2", "'avx2' needs 'avx'"),
            ("intel,+lbr,+arch_lbr", "'lbr' and 'arch_lbr' exclude each other"),
            ("intel,phys-bits=35", "'phys-bits=35': a physical address has 36 to 52 bits"),
        ] {
            let error = CpuModel::parse(text).unwrap_err().to_string();
            assert!(error.contains(words), "{text}: {error}");
        }
    }
}
