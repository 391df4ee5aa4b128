//! Boots of Debian's amd64 kernels to a shell script: by each protocol, through firmware, and under Xen.

use std::ffi::OsString;
use std::fs;

use rayon::prelude::*;

use crate::boot::{self, SUITES, outcome};
use crate::debian::Suite;
use crate::determinism::Runs;
use crate::dmesg;
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
}

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
        };
        let machine = self.machine.replace(",numa=", "-numa");
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
        let mut a: Vec<OsString> =
            ["--machine", &machine, "--cpu", self.model, "--memory", "1G"].map(Into::into).into();
        a.extend(["--smp".into(), self.cpus.to_string().into()]);
        match (self.way, &files.xen) {
            (Way::Xen, Some(xen)) => {
                let mut kernel = files.image.clone().into_os_string();
                kernel.push("=console=hvc0 quiet");
                a.extend(["--kernel".into(), xen.into(), "--module".into(), kernel, "--module".into()]);
                a.push(files.initrd.clone().into());
                a.extend(["--append", "console=com1 com1=115200,8n1 dom0_mem=512M"].map(Into::into));
            }
            (Way::BiosGrub | Way::OvmfGrub | Way::SecureGrub, _) => {
                let mut disk = files.disk.clone().into_os_string();
                disk.push(",ro");
                a.extend(["--drive".into(), disk]);
            }
            _ => {
                a.extend(["--kernel".into(), files.image.clone().into(), "--initrd".into()]);
                a.push(files.initrd.clone().into());
                let words = if self.suspends() { "console=ttyS0 shell" } else { "console=ttyS0" };
                a.extend(["--append", words].map(Into::into));
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
            _ => {}
        }
        if self.suspends() {
            expected.extend(["PM: suspend exit".into(), "woken 0".into()]);
        }
        (a, expected)
    }
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
        [1, 4].par_iter().flat_map(|cpus| self.determinism_with(*cpus)).collect()
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
        assert_eq!((names.len(), count), (27, 27));
    }
}
