//! Boots of Debian's amd64 kernels to a shell script: by each protocol, through firmware, and under Xen; and with KVM and its guests.

use std::ffi::OsString;
use std::fs;
use std::path::Path;

use rayon::prelude::*;
use sha2::{Digest, Sha256};

use crate::boot::{self, SUITES, outcome};
use crate::debian::Suite;
use crate::determinism::{self, Runs};
use crate::dmesg;
use crate::kvm::{Kvm, Translation};
use crate::prepare::Amd64;
use crate::suite::Outcome;

/// How the kernel is started.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// By the entry of this name of the option `--machine pc,entry=`.
    Entry(&'static str),
    /// OVMF reads it from the firmware's configuration.
    Ovmf,
    /// The kernel's own entry; then the PC is suspended to RAM, and the clock wakes it.
    Suspend,
    /// The same with OVMF.
    OvmfSuspend,
    /// The same with OVMF with Secure Boot, which brings system management mode back first.
    SecureSuspend,
    /// SeaBIOS starts GRUB from a disk.
    BiosGrub,
    /// OVMF starts GRUB from a disk.
    OvmfGrub,
    /// OVMF with Secure Boot, which requires system management mode, starts GRUB from a disk.
    SecureGrub,
    /// Xen starts it as its first domain.
    Xen,
    /// The same, and the first domain, of this kind (`pv`, or `pvh`, which takes an IOMMU), starts it as a second one, of that: `pvh`, or `hvm` with
    /// QEMU's devices and SeaBIOS.
    XenDomain(&'static str, &'static str),
    /// By its own entry, with these words for its IOMMU, and a drive behind that.
    Iommu(&'static str),
    /// By its own entry; then `kvm_client` gives its guest a device, through VFIO. KVM is loaded with these parameters.
    Vfio(Kvm),
    /// By its own entry; then `kvm_client` makes guests of KVM, which is loaded with these parameters.
    Kvm(Kvm),
    /// By its own entry; then QEMU, from a disk, makes a guest of KVM, which is loaded with these parameters: the same kernel again, with
    /// so many processors and further words on its command line.
    Vmm(Kvm, u32, &'static str),
}

/// A guest's guest: `kvm_client`, with all that it has, and with little.
const CLIENT: &str = " kvmtest";
const SHORT_CLIENT: &str = " kvmtest=none,hello=1,port=10000,pages=500,msi=100,timer=20,smp=50,modes=1";

/// One boot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Boot {
    suite: Suite,
    cpus: u32,
    model: &'static str,
    machine: &'static str,
    way: Way,
}

/// Suspends to RAM for some seconds.
const SUSPEND: &str = "echo +3 > /sys/class/rtc/rtc0/wakealarm; echo mem > /sys/power/state; echo woken $?\nexit\n";

impl Boot {
    /// Its name in tables.
    pub fn name(&self) -> String {
        let way = match self.way {
            Way::Entry(name) => name,
            Way::Ovmf => "ovmf",
            Way::BiosGrub => "seabios-grub",
            Way::OvmfGrub => "ovmf-grub",
            Way::Suspend => "suspend",
            Way::OvmfSuspend => "ovmf-suspend",
            Way::SecureSuspend => "ovmf-secure-suspend",
            Way::SecureGrub => "ovmf-secure-grub",
            Way::Xen => "xen",
            Way::XenDomain(first, second) => &format!("xen-{first}-{second}"),
            Way::Iommu(words) => &words.replace([' ', '=', ',', '.'], "-"),
            Way::Vfio(kvm) => &kvm.name().replace("kvm", "vfio"),
            Way::Kvm(kvm) => &kvm.name(),
            Way::Vmm(kvm, cpus, words) => {
                &format!("vmm-{cpus}-{}{}", kvm.name(), if words.is_empty() { "" } else { "-client" })
            }
        };
        let machine = self.machine.replace(",numa=", "-numa").replace(",iommu=", "-");
        format!("{}-{}-{}-{machine}-{way}", self.suite, self.cpus, self.model)
    }

    fn suspends(&self) -> bool {
        matches!(self.way, Way::Suspend | Way::OvmfSuspend | Way::SecureSuspend)
    }

    /// What is typed.
    fn typed(&self) -> &'static str {
        if self.suspends() { SUSPEND } else { "" }
    }

    /// What `undervisor run` is told, and what the console must show.
    fn arguments(&self, files: &Amd64) -> (Vec<OsString>, Vec<String>) {
        let machine = match self.way {
            Way::Entry(name) => format!("{},entry={name}", self.machine),
            _ => self.machine.into(),
        };
        let memory = if matches!(self.way, Way::Vmm(..) | Way::XenDomain(..)) { "2G" } else { "1G" };
        let mut a: Vec<OsString> =
            ["--machine", &machine, "--cpu", self.model, "--memory", memory].map(Into::into).into();
        a.extend(["--smp".into(), self.cpus.to_string().into()]);
        match (self.way, &files.xen) {
            (Way::Xen | Way::XenDomain(..), Some(xen)) => {
                let mut kernel = files.image.clone().into_os_string();
                kernel.push("=console=hvc0 quiet");
                let mut words = "console=com1 com1=115200,8n1 dom0_mem=768M".to_owned();
                if let Way::XenDomain(first, second) = self.way {
                    words += &format!(" dom0={first}");
                    kernel.push(format!(" domu={second} -- console=hvc0 quiet"));
                    a.extend(["--drive".into(), read_only(&files.root_disk)]);
                }
                a.extend(["--kernel".into(), xen.into(), "--module".into(), kernel, "--module".into()]);
                a.push(files.initrd.clone().into());
                a.extend(["--append".into(), words.into()]);
            }
            (Way::BiosGrub | Way::OvmfGrub | Way::SecureGrub, _) => {
                a.extend(["--drive".into(), read_only(&files.disk)]);
            }
            _ => {
                a.extend(["--kernel".into(), files.image.clone().into(), "--initrd".into()]);
                a.push(files.initrd.clone().into());
                let words = match self.way {
                    Way::Iommu(words) => format!(" {words} drive"),
                    Way::Vfio(kvm) => {
                        a.extend(["--device", "edu"].map(Into::into));
                        format!(" quiet intel_iommu=on kvmtest=none,vfio={TRANSFERS}{}", kvm.words())
                    }
                    Way::Kvm(kvm) => format!(" quiet kvmtest{}", kvm.words()),
                    Way::Vmm(kvm, cpus, words) => {
                        a.extend(["--drive".into(), read_only(&files.root_disk)]);
                        format!(" quiet vmm={cpus}{} -- console=ttyS0 quiet{words}", kvm.words())
                    }
                    _ if self.suspends() => " shell".into(),
                    _ => String::new(),
                };
                a.extend(["--append".into(), format!("console=ttyS0{words}").into()]);
            }
        }
        let ovmf = match self.way {
            Way::Ovmf | Way::OvmfSuspend | Way::OvmfGrub => Some(&files.ovmf),
            Way::SecureGrub | Way::SecureSuspend => Some(&files.ovmf_secure),
            _ => None,
        };
        let mut expected = vec![format!("UNDERVISOR-SHELL: up cpus={} ", self.cpus), "UNDERVISOR-DONE rc=0".into()];
        if let Some(ovmf) = ovmf {
            a.extend(["--firmware".into(), ovmf.into(), "--firmware-vars".into()]);
            a.push(files.ovmf_variables.clone().into());
        }
        match self.way {
            Way::BiosGrub => {
                a.extend(["--firmware".into(), files.seabios.clone().into()]);
                expected.push("UNDERVISOR-GRUB: pc".into());
            }
            Way::OvmfGrub => expected.push("UNDERVISOR-GRUB: efi".into()),
            Way::SecureGrub => expected.push("UNDERVISOR-GRUB: efi".into()),
            Way::Kvm(kvm) => {
                let nested = if kvm.nested() { "nested" } else { "nested-off" };
                expected.push(format!("KVM-CLIENT: {nested} "));
                expected.extend(["KVM-CLIENT: port count=100000 ".into(), "KVM-CLIENT: OK".into()]);
            }
            // What the second domain has said is shown after it has ended.
            Way::XenDomain(..) => expected.push("UNDERVISOR-SHELL: up cpus=2 ".into()),
            Way::Vmm(_, cpus, words) => {
                expected.push(format!("UNDERVISOR-SHELL: up cpus={cpus} "));
                expected.extend((!words.is_empty()).then(|| "KVM-CLIENT: OK".into()));
            }
            Way::Iommu(words) => {
                a.extend(["--drive".into(), read_only(&files.disk)]);
                expected.push(format!("UNDERVISOR-DRIVE: {}", sha256(&files.disk)));
                if !words.contains("intremap=off") {
                    let mode = if self.machine.contains("xapic") { "xapic" } else { "x2apic" };
                    expected.push(format!("DMAR-IR: Enabled IRQ remapping in {mode} mode"));
                }
                if words.contains("intel_iommu=on") {
                    expected.push("DMAR: Intel(R) Virtualization Technology for Directed I/O".into());
                }
            }
            Way::Vfio(kvm) => {
                // Each transfer of the device ends with an interrupt. What is posted the host never sees.
                let posted = if kvm.posts_interrupts() { 2 * TRANSFERS } else { 0 };
                expected.push(format!("KVM-CLIENT: posted={posted} "));
                expected.push(format!("KVM-CLIENT: vfio count={TRANSFERS} "));
                expected.push(format!("KVM-CLIENT: vfio-hlt count={TRANSFERS} "));
                expected.push("KVM-CLIENT: OK".into());
            }
            _ => {}
        }
        if matches!(self.way, Way::Xen | Way::XenDomain(..)) && self.machine.contains("iommu=vtd") {
            expected.push("(XEN) Interrupt remapping enabled".into());
        }
        if self.suspends() {
            expected.extend(["PM: suspend exit".into(), "woken 0".into()]);
        }
        (a, expected)
    }
}

/// A drive that is only read.
fn read_only(image: &Path) -> OsString {
    let mut drive = image.as_os_str().to_owned();
    drive.push(",ro");
    drive
}

/// How often a guest's device goes to its memory and back.
const TRANSFERS: u32 = 200;

/// A file's SHA-256; of one that is not there, nothing.
fn sha256(path: &Path) -> String {
    let bytes = fs::read(path).unwrap_or_default();
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Every kernel with 1, 2 and 4 processors of each vendor; each chipset, entry and firmware once.
pub fn all() -> Vec<Boot> {
    let boot = |suite, cpus, model, machine, way| Boot { suite, cpus, model, machine, way };
    let mut boots = Vec::new();
    for suite in SUITES {
        for cpus in [1, 2, 4] {
            for model in ["intel", "amd"] {
                boots.push(boot(suite, cpus, model, "q35", Way::Entry("auto")));
            }
        }
    }
    boots.push(boot(Suite::Trixie, 2, "intel", "i440fx", Way::Entry("auto")));
    boots.push(boot(Suite::Trixie, 4, "amd", "q35,numa=2", Way::Entry("auto")));
    boots.push(boot(Suite::Sid, 4, "intel", "q35,numa=2", Way::Entry("auto")));
    boots.push(boot(Suite::Trixie, 1, "amd", "q35", Way::Entry("linux32")));
    boots.push(boot(Suite::Trixie, 1, "intel", "q35", Way::Ovmf));
    boots.push(boot(Suite::Trixie, 2, "intel", "q35", Way::BiosGrub));
    boots.push(boot(Suite::Sid, 1, "amd", "i440fx", Way::BiosGrub));
    boots.push(boot(Suite::Trixie, 1, "amd", "q35", Way::OvmfGrub));
    boots.push(boot(Suite::Sid, 2, "intel", "q35", Way::OvmfGrub));
    boots.push(boot(Suite::Trixie, 2, "intel", "q35", Way::SecureGrub));
    boots.push(boot(Suite::Trixie, 2, "intel", "q35", Way::Suspend));
    boots.push(boot(Suite::Sid, 1, "amd", "i440fx", Way::Suspend));
    boots.push(boot(Suite::Trixie, 2, "amd", "q35", Way::OvmfSuspend));
    boots.push(boot(Suite::Trixie, 2, "amd", "q35", Way::SecureSuspend));
    boots.push(boot(Suite::Trixie, 1, "intel", "q35", Way::Xen));
    boots.push(boot(Suite::Trixie, 1, "intel", "q35", Way::XenDomain("pv", "pvh")));
    boots.push(boot(Suite::Trixie, 2, "intel", "q35", Way::XenDomain("pv", "hvm")));
    boots.push(boot(Suite::Trixie, 1, "amd", "q35", Way::XenDomain("pv", "pvh")));
    boots.push(boot(Suite::Trixie, 2, "amd", "q35", Way::XenDomain("pv", "hvm")));
    boots.push(boot(Suite::Trixie, 2, "intel", "q35,iommu=vtd", Way::XenDomain("pvh", "pvh")));
    boots.push(boot(Suite::Trixie, 2, "intel", "q35,iommu=vtd", Way::Xen));
    boots.push(boot(Suite::Trixie, 2, "intel", "q35,iommu=vtd", Way::Suspend));
    boots.push(boot(Suite::Trixie, 1, "intel", "q35,iommu=vtd", Way::OvmfGrub));
    boots.push(boot(Suite::Sid, 1, "intel", "q35,iommu=vtd", Way::BiosGrub));
    for (suite, cpus, machine, words) in [
        (Suite::Trixie, 2, "q35,iommu=vtd", "intel_iommu=on"),
        (Suite::Sid, 4, "q35,numa=2,iommu=vtd", "intel_iommu=on"),
        (Suite::Trixie, 4, "q35,iommu=vtd", "intel_iommu=on iommu=pt"),
        (Suite::Sid, 1, "q35,iommu=vtd+cm", "intel_iommu=on iommu.strict=1"),
        (Suite::Sid, 2, "q35,iommu=vtd+xapic", "intel_iommu=on intremap=nosid"),
        (Suite::Trixie, 1, "q35,iommu=vtd", "intel_iommu=off intremap=off"),
    ] {
        boots.push(boot(suite, cpus, "intel", machine, Way::Iommu(words)));
    }
    for (suite, cpus, enable_apicv, machine) in [
        (Suite::Trixie, 1, true, "q35,iommu=vtd"),
        (Suite::Sid, 2, true, "q35,iommu=vtd"),
        (Suite::Trixie, 2, true, "q35,iommu=vtd+xapic"),
        (Suite::Trixie, 1, false, "q35,iommu=vtd"),
    ] {
        let kvm = Kvm::Intel { translation: Translation::UnrestrictedGuest, enable_apicv, nested: true };
        boots.push(boot(suite, cpus, "intel", machine, Way::Vfio(kvm)));
    }
    boots.extend(with_kvm());
    boots.extend(with_vmm());
    boots
}

/// Debian's QEMU with KVM and Debian's kernel in it, and KVM again in that.
fn with_vmm() -> Vec<Boot> {
    use Translation::{Ept, Shadow, UnrestrictedGuest};
    let boot = |suite, cpus, kvm: Kvm, inner, words| Boot {
        suite,
        cpus,
        model: kvm.model(),
        machine: "q35",
        way: Way::Vmm(kvm, inner, words),
    };
    let intel = |translation, enable_apicv, nested| Kvm::Intel { translation, enable_apicv, nested };
    let amd = |npt, vgif, avic, nested| Kvm::Amd { npt, vgif, avic, nested };
    vec![
        boot(Suite::Trixie, 1, intel(UnrestrictedGuest, true, true), 1, CLIENT),
        boot(Suite::Sid, 2, intel(UnrestrictedGuest, true, true), 2, SHORT_CLIENT),
        boot(Suite::Trixie, 2, intel(Ept, false, true), 2, SHORT_CLIENT),
        boot(Suite::Sid, 1, intel(Shadow, false, false), 1, ""),
        boot(Suite::Trixie, 2, amd(true, false, false, true), 2, SHORT_CLIENT),
        boot(Suite::Sid, 2, amd(true, true, true, true), 2, SHORT_CLIENT),
    ]
}

fn with_client((suite, cpus, kvm): (Suite, u32, Kvm)) -> Boot {
    Boot { suite, cpus, model: kvm.model(), machine: "q35", way: Way::Kvm(kvm) }
}

/// Six boots with KVM for each vendor in which every pair of values of suite, processors and parameters occurs.
fn with_kvm() -> Vec<Boot> {
    use Translation::{Ept, Shadow, UnrestrictedGuest};
    let intel = |translation, enable_apicv, nested| Kvm::Intel { translation, enable_apicv, nested };
    let amd = |npt, vgif, avic, nested| Kvm::Amd { npt, vgif, avic, nested };
    [
        (Suite::Trixie, 1, intel(UnrestrictedGuest, true, true)),
        (Suite::Sid, 2, intel(UnrestrictedGuest, false, false)),
        (Suite::Trixie, 2, intel(Ept, false, true)),
        (Suite::Sid, 1, intel(Ept, true, false)),
        (Suite::Sid, 1, intel(Shadow, false, true)),
        (Suite::Trixie, 2, intel(Shadow, true, false)),
        (Suite::Sid, 1, amd(true, true, true, true)),
        (Suite::Trixie, 2, amd(true, false, true, false)),
        (Suite::Trixie, 1, amd(true, true, false, false)),
        (Suite::Trixie, 2, amd(false, false, false, true)),
        (Suite::Sid, 2, amd(false, true, false, false)),
        (Suite::Sid, 1, amd(false, false, false, true)),
    ]
    .map(with_client)
    .into()
}

/// Every combination.
pub fn full_with_kvm() -> Vec<Boot> {
    let mut boots = Vec::new();
    for suite in SUITES {
        for cpus in [1, 2] {
            boots.extend(Kvm::all().map(|kvm| with_client((suite, cpus, kvm))));
        }
    }
    boots
}

/// The files that boots need.
pub type Files = boot::Files<Amd64>;

impl Files {
    /// The kernel must have complained of nothing that it does not complain of elsewhere.
    fn require_quiet(&self, name: &str) -> Result<(), String> {
        let console = fs::read(self.out.join(format!("{name}.console"))).map_err(|e| e.to_string())?;
        let console = String::from_utf8_lossy(&console);
        if !dmesg::has_log(&console) {
            return Err("the console has no log with levels".into());
        }
        match dmesg::complaints(&console).as_slice() {
            [] => Ok(()),
            [first, rest @ ..] => Err(format!("the kernel says `{first}`, and {} more", rest.len())),
        }
    }

    /// Runs boots, two at a time on two processors.
    pub fn run_all(&self, boots: &[Boot]) -> Vec<Outcome> {
        let one = |boot: &Boot| {
            let (arguments, expected) = boot.arguments(self.of(boot.suite));
            let name = boot.name();
            let summary = self.run(&name, &arguments, &expected, boot.typed());
            outcome(&name, summary.and_then(|summary| self.require_quiet(&name).map(|()| summary)))
        };
        boots.par_iter().map(one).collect()
    }

    /// With 1 and 4 processors: the same run twice, another seed, a snapshot in the middle, a recording replayed: what must be
    /// the same is.
    pub fn determinism(&self) -> Vec<Outcome> {
        let mut outcomes: Vec<_> = [1, 4].par_iter().flat_map(|cpus| self.determinism_with(*cpus)).collect();
        let intel = Kvm::Intel { translation: Translation::UnrestrictedGuest, enable_apicv: true, nested: true };
        let amd = Kvm::Amd { npt: true, vgif: true, avic: true, nested: true };
        let boot = |model, machine, way| Boot { suite: Suite::Trixie, cpus: 2, model, machine, way };
        let with_kvm = [
            ("kvm", boot("intel", "q35", Way::Kvm(intel))),
            ("vfio", boot("intel", "q35,iommu=vtd", Way::Vfio(intel))),
            ("kvm-amd", boot("amd", "q35", Way::Kvm(amd))),
        ];
        let levels = [
            boot("intel", "q35,iommu=vtd", Way::Vmm(intel, 2, SHORT_CLIENT)),
            boot("intel", "q35,iommu=vtd", Way::XenDomain("pvh", "pvh")),
            boot("amd", "q35", Way::Vmm(amd, 2, SHORT_CLIENT)),
        ];
        outcomes.par_extend(with_kvm.par_iter().flat_map_iter(|(name, boot)| self.determinism_with_kvm(name, boot)));
        outcomes.par_extend(levels.par_iter().map(|boot| self.determinism_of_levels(boot)));
        outcomes
    }

    /// With a guest's guest, or with a second domain of Xen's: the same run twice.
    fn determinism_of_levels(&self, boot: &Boot) -> Outcome {
        let (arguments, expected) = boot.arguments(self.of(boot.suite));
        let names = ["once", "again"].map(|time| format!("{}-{time}", boot.name()));
        let [once, again] = names.map(|name| self.run(&name, &arguments, &expected, ""));
        let name = format!("{}: the same run twice: the same state", boot.name());
        determinism::states(&name, &once, &again, true)
    }

    /// With guests of KVM, or with one that has a device: the same run twice, the second time with a snapshot while a guest runs, which goes on to
    /// the same state.
    fn determinism_with_kvm(&self, name: &str, boot: &Boot) -> [Outcome; 3] {
        let start = |run: &str, more: &[&str]| {
            let (mut arguments, expected) = boot.arguments(self.of(boot.suite));
            arguments.extend(more.iter().map(Into::into));
            self.run(&format!("{name}-{run}"), &arguments, &expected, "")
        };
        let snapshot = self.out.join(format!("{name}.snap")).display().to_string();
        let once = start("once", &[]);
        // The last tenth of the instructions is the client's.
        let instructions = once.as_ref().ok().and_then(|s| s["instructions"].as_u64()).unwrap_or(0);
        let middle = (instructions / 100 * 93).to_string();
        let again = start("again", &["--snapshot-at", &middle, "--snapshot", &snapshot]);
        let done = ["KVM-CLIENT: OK".to_owned(), "UNDERVISOR-DONE rc=0".into()];
        let restored = self.run(&format!("{name}-restored"), &["--restore", &snapshot].map(OsString::from), &done, "");
        let title = |what: &str| format!("{name}, 2 vCPUs: {what}");
        [
            determinism::states(&title("the same run twice: the same state"), &once, &again, true),
            determinism::consoles(&title("the same run twice: the same console"), &once, &again, true),
            determinism::states(&title("a snapshot amid guests, restored: the same state"), &once, &restored, true),
        ]
    }

    fn determinism_with(&self, cpus: u32) -> Vec<Outcome> {
        const TYPED: &str = "echo typed $((6*7))\nexit\n";
        let file = |name: &str| self.out.join(format!("{name}-{cpus}")).display().to_string();
        // Its name, words of the kernel's command line, further options, what is typed.
        let start = |name: &str, words: &str, more: &[&str], typed: &str| {
            let boot = Boot { suite: Suite::Trixie, cpus, model: "intel", machine: "q35", way: Way::Entry("auto") };
            let (mut arguments, mut expected) = boot.arguments(self.of(boot.suite));
            *arguments.last_mut().expect("the kernel's command line") = format!("console=ttyS0 {words}").into();
            arguments.extend(more.iter().map(Into::into));
            expected.extend(words.contains("shell").then(|| "typed 42".into()));
            self.run(&format!("{name}-{cpus}"), &arguments, &expected, typed)
        };
        let [snapshot, recording] = ["mid.snap", "typed.rec"].map(file);
        // The kernel is about halfway to its first process, and all processors run.
        let taken = ["--seed", "7", "--snapshot-at", "250000000", "--snapshot", &snapshot];
        let once = start("once", "quiet", &["--seed", "7"], "");
        let again = start("again-with-snapshot", "quiet", &taken, "");
        let other_seed = start("other-seed", "quiet", &["--seed", "8"], "");
        let typed = start("typed", "quiet shell", &["--seed", "7"], TYPED);
        let record = start("record", "quiet shell", &["--seed", "7", "--record", &recording], TYPED);
        let replay = start("replay", "quiet shell", &["--seed", "7", "--replay", &recording], "");
        let restored = ["--restore", &snapshot].map(OsString::from);
        let done = ["UNDERVISOR-DONE rc=0".to_owned()];
        let restore = self.run(&format!("restore-{cpus}"), &restored, &done, "");
        Runs {
            once: &once,
            again: &again,
            other_seed: &other_seed,
            restored: &restore,
            typed: &typed,
            recorded: &record,
            replayed: &replay,
        }
        .outcomes(&format!("{cpus} vCPUs: "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique() {
        let mut names: Vec<_> = all().iter().map(Boot::name).collect();
        names.sort();
        let count = names.len();
        names.dedup();
        assert_eq!((names.len(), count), (64, 64));
    }

    #[test]
    fn every_pair_of_values_occurs_with_kvm() {
        let values = |boot: &Boot| {
            let Way::Kvm(kvm) = boot.way else { unreachable!("all are with KVM") };
            [vec![boot.suite.to_string(), boot.cpus.to_string()], kvm.values()].concat()
        };
        let pairs = |boots: &[Boot]| {
            let mut pairs = std::collections::BTreeSet::new();
            for boot in boots {
                let values = values(boot);
                for i in 0..values.len() {
                    for j in 0..i {
                        pairs.insert((boot.model, i, values[i].clone(), j, values[j].clone()));
                    }
                }
            }
            pairs
        };
        let (cover, full) = (with_kvm(), full_with_kvm());
        assert_eq!((cover.len(), full.len()), (12, 96));
        assert_eq!(pairs(&cover), pairs(&full));
    }
}
