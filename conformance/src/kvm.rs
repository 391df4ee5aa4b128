//! Parameters with which KVM's modules are loaded.

/// Parameters of `kvm_intel` or `kvm_amd`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kvm {
    /// `kvm_intel`.
    Intel {
        /// How guest-physical addresses are translated.
        translation: Translation,
        /// APIC virtualization.
        enable_apicv: bool,
        /// Guests may have VMX.
        nested: bool,
    },
    /// `kvm_amd`.
    Amd {
        /// Nested paging.
        npt: bool,
        /// Virtual GIF, and with it virtual NMIs.
        vgif: bool,
        /// AVIC, which takes nested paging; and x2AVIC.
        avic: bool,
        /// Guests may have SVM.
        nested: bool,
    },
}

/// How `kvm_intel` translates guest-physical addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Translation {
    /// By shadow page tables.
    Shadow,
    /// By EPT, and real-address mode in virtual-8086 mode.
    Ept,
    /// By EPT, and real-address mode is the processor's.
    UnrestrictedGuest,
}

impl Kvm {
    /// Every combination.
    pub fn all() -> impl Iterator<Item = Kvm> {
        let bit = |bits: u32, i: u32| bits >> i & 1 != 0;
        let intel = [Translation::Shadow, Translation::Ept, Translation::UnrestrictedGuest].into_iter().flat_map(
            move |translation| {
                (0..4).map(move |b| Kvm::Intel { translation, enable_apicv: bit(b, 1), nested: bit(b, 0) })
            },
        );
        let amd =
            (0..16).map(move |b| Kvm::Amd { npt: bit(b, 3), vgif: bit(b, 2), avic: bit(b, 1), nested: bit(b, 0) });
        intel.chain(amd.filter(|kvm| !matches!(kvm, Kvm::Amd { npt: false, avic: true, .. })))
    }

    /// The model of its processor.
    pub fn model(self) -> &'static str {
        match self {
            Kvm::Intel { .. } => "intel",
            Kvm::Amd { .. } => "amd",
        }
    }

    /// Guests may have virtualization.
    pub fn nested(self) -> bool {
        match self {
            Kvm::Intel { nested, .. } | Kvm::Amd { nested, .. } => nested,
        }
    }

    /// Interrupts of a guest's device are posted.
    pub fn posts_interrupts(self) -> bool {
        matches!(self, Kvm::Intel { enable_apicv: true, .. })
    }

    /// What has two values.
    fn switches(self) -> Vec<(&'static str, bool)> {
        match self {
            Kvm::Intel { enable_apicv, nested, .. } => vec![("enable_apicv", enable_apicv), ("nested", nested)],
            Kvm::Amd { npt, vgif, avic, nested } => {
                vec![("npt", npt), ("vgif", vgif), ("avic", avic), ("nested", nested)]
            }
        }
    }

    /// As words on the kernel's command line, each behind a space.
    pub fn words(self) -> String {
        let module = if self.model() == "intel" { "kvm_intel" } else { "kvm_amd" };
        let translation = match self {
            Kvm::Intel { translation: Translation::Shadow, .. } => Some("ept"),
            Kvm::Intel { translation: Translation::Ept, .. } => Some("unrestricted_guest"),
            _ => None,
        };
        let translation = translation.map(|name| (name, false));
        // What is on unless it is told otherwise needs no word. With AVIC that depends on the kernel.
        let switches = self.switches().into_iter().filter(|(name, on)| !on || *name == "avic");
        let all = translation.into_iter().chain(switches);
        all.map(|(name, on)| format!(" {module}.{name}={}", u8::from(on))).collect()
    }

    /// All values, as words.
    pub fn values(self) -> Vec<String> {
        let translation = match self {
            Kvm::Intel { translation, .. } => vec![format!("{translation:?}")],
            Kvm::Amd { .. } => vec![],
        };
        translation.into_iter().chain(self.switches().into_iter().map(|(_, on)| on.to_string())).collect()
    }

    /// As a part of a name.
    pub fn name(self) -> String {
        let mut name = match self {
            Kvm::Intel { translation: Translation::Shadow, .. } => "kvm-shadow".to_owned(),
            Kvm::Intel { translation: Translation::Ept, .. } => "kvm-ept".into(),
            Kvm::Intel { .. } => "kvm-unrestricted".into(),
            Kvm::Amd { npt: true, .. } => "kvm-npt".into(),
            Kvm::Amd { .. } => "kvm-shadow".into(),
        };
        for (what, on) in self.switches() {
            match what {
                _ if !on || what == "npt" => {}
                "enable_apicv" => name += "-apicv",
                what => name += &format!("-{what}"),
            }
        }
        name
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_and_names() {
        let kvm = Kvm::Intel { translation: Translation::Ept, enable_apicv: false, nested: true };
        assert_eq!(
            (kvm.words().as_str(), kvm.name().as_str()),
            (" kvm_intel.unrestricted_guest=0 kvm_intel.enable_apicv=0", "kvm-ept-nested")
        );
        let kvm = Kvm::Amd { npt: false, vgif: true, avic: false, nested: false };
        assert_eq!(
            (kvm.words().as_str(), kvm.name().as_str()),
            (" kvm_amd.npt=0 kvm_amd.avic=0 kvm_amd.nested=0", "kvm-shadow-vgif")
        );
        let kvm = Kvm::Amd { npt: true, vgif: true, avic: true, nested: true };
        assert_eq!((kvm.words().as_str(), kvm.name().as_str()), (" kvm_amd.avic=1", "kvm-npt-vgif-avic-nested"));
    }
}
