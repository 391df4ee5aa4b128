//! Packages of a Debian suite and architecture, fetched by apt's own client into a cache and unpacked there; never
//! installed.
//!
//! The mirror is the one that the host's apt uses, and the keys are Debian's (package `debian-archive-keyring`): apt
//! checks them as it always does. What is in the cache is used as it is, without asking the network;
//! [`Archive::forget`] makes the next use fetch anew.

use std::ffi::OsStr;
use std::fmt;
use std::os::unix::fs::{MetadataExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::str::FromStr;
use std::{fs, io};

use crate::cache;

/// The keys of Debian's archive.
const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";

/// What can go wrong between the archive and the cache.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A suite that we do not know.
    #[error("`{0}` is not a suite that we use: trixie or sid")]
    UnknownSuite(String),
    /// A tool of the host is missing or cannot be run.
    #[error("cannot run {program}: {source}")]
    Run {
        /// The program's name.
        program: String,
        /// Why.
        source: io::Error,
    },
    /// A tool of the host failed.
    #[error("{program} failed with {status}: {stderr}")]
    Failed {
        /// The program and its arguments.
        program: String,
        /// How it ended.
        status: String,
        /// What it said.
        stderr: String,
    },
    /// The host's apt names no mirror of Debian's main archive.
    #[error("apt on this host has no source with Debian's main archive")]
    NoMirror,
    /// Packages of the host that are missing, and we are not root.
    #[error("this needs the packages {0}: install them (apt-get install {0}), or run this as root")]
    HostPackages(String),
    /// A file that should be in a package is not.
    #[error("no {what} in {root}", root = root.display())]
    Missing {
        /// What was looked for.
        what: String,
        /// Where.
        root: PathBuf,
    },
    /// The file system.
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// A suite of Debian.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Suite {
    /// Debian 13.
    Trixie,
    /// Unstable.
    Sid,
}

impl fmt::Display for Suite {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Suite::Trixie => "trixie",
            Suite::Sid => "sid",
        })
    }
}

impl FromStr for Suite {
    type Err = Error;

    fn from_str(name: &str) -> Result<Suite, Error> {
        match name {
            "trixie" => Ok(Suite::Trixie),
            "sid" => Ok(Suite::Sid),
            _ => Err(Error::UnknownSuite(name.into())),
        }
    }
}

/// The packages of one suite for one architecture, as far as the cache has them.
#[derive(Clone, Debug)]
pub struct Archive {
    suite: Suite,
    architecture: String,
    directory: PathBuf,
}

/// A package and what it stands for (a metapackage's kernel), unpacked.
#[derive(Clone, Debug)]
pub struct Unpacked {
    /// The root of the unpacked tree.
    pub root: PathBuf,
    /// `name version architecture` of each package in it.
    pub packages: Vec<String>,
}

/// A kernel of Debian.
#[derive(Clone, Debug)]
pub struct Kernel {
    /// As `uname -r` says.
    pub release: String,
    /// The boot image as the package has it.
    pub image: PathBuf,
    /// `lib/modules/<release>`.
    pub modules: PathBuf,
    /// The package's tree.
    pub tree: Unpacked,
}

impl Archive {
    /// The archive in the usual cache. The architecture is Debian's name of it: `riscv64`, `arm64`, `amd64`.
    pub fn new(suite: Suite, architecture: &str) -> Archive {
        Archive::in_cache(&cache::root(), suite, architecture)
    }

    /// The archive in another cache.
    pub fn in_cache(cache: &Path, suite: Suite, architecture: &str) -> Archive {
        let directory = cache.join(format!("{suite}-{architecture}"));
        Archive { suite, architecture: architecture.into(), directory }
    }

    /// The suite.
    pub fn suite(&self) -> Suite {
        self.suite
    }

    /// Debian's name of the architecture.
    pub fn architecture(&self) -> &str {
        &self.architecture
    }

    /// Drops what the cache has of this archive.
    pub fn forget(&self) -> Result<(), Error> {
        if self.directory.exists() {
            fs::remove_dir_all(&self.directory)?;
        }
        Ok(())
    }

    /// Brings those of `packages` that are not in the cache into it.
    ///
    /// A package whose name begins with `linux-` brings the `linux-` packages that it depends on: the metapackage
    /// `linux-image-riscv64` leads to the kernel of the day, in one package or in several.
    pub fn fetch(&self, packages: &[&str]) -> Result<(), Error> {
        let missing: Vec<&str> = packages.iter().copied().filter(|package| !self.listing(package).is_file()).collect();
        if missing.is_empty() {
            return Ok(());
        }
        self.with_apt(|apt| {
            missing.iter().try_for_each(|package| {
                let files = apt.download(&apt.closure(package)?)?;
                self.unpack(apt, package, &files, |_| Ok(()))
            })
        })
    }

    /// One package from the cache, fetched first where it is not there.
    pub fn unpacked(&self, package: &str) -> Result<Unpacked, Error> {
        self.fetch(&[package])?;
        self.in_the_cache(package)
    }

    fn in_the_cache(&self, package: &str) -> Result<Unpacked, Error> {
        let packages = fs::read_to_string(self.listing(package))?.lines().map(str::to_owned).collect();
        Ok(Unpacked { root: self.directory.join(package), packages })
    }

    /// The kernel that `linux-image-<architecture>` stands for today.
    pub fn kernel(&self) -> Result<Kernel, Error> {
        self.kernel_of(&format!("linux-image-{}", self.architecture))
    }

    /// The kernel that some other metapackage stands for, such as `linux-image-cloud-amd64`.
    pub fn kernel_of(&self, metapackage: &str) -> Result<Kernel, Error> {
        Kernel::find(self.unpacked(metapackage)?)
    }

    /// The file that names the packages under `package`; it exists once they are unpacked.
    fn listing(&self, package: &str) -> PathBuf {
        self.directory.join(format!("{package}.packages"))
    }

    /// A root file system with these packages and all that they depend on, from the cache or fetched for it. `name` is its name there.
    /// `/usr` is merged; nothing is configured, and there is no documentation.
    pub fn root(&self, name: &str, packages: &[&str]) -> Result<Unpacked, Error> {
        let name = format!("root-{name}");
        if !self.listing(&name).is_file() {
            self.with_apt(|apt| {
                let files = apt.download_with_dependencies(packages)?;
                self.unpack(apt, &name, &files, |root| {
                    for merged in ["bin", "sbin", "lib", "lib64"] {
                        fs::create_dir_all(root.join("usr").join(merged))?;
                        symlink(format!("usr/{merged}"), root.join(merged))?;
                    }
                    for mount_point in ["boot", "dev", "proc", "run", "sys", "tmp", "var/lib", "var/log"] {
                        fs::create_dir_all(root.join(mount_point))?;
                    }
                    symlink("/run", root.join("var/run"))?;
                    for unread in ["doc", "info", "lintian", "locale", "man"] {
                        let directory = root.join("usr/share").join(unread);
                        if directory.is_dir() {
                            fs::remove_dir_all(directory)?;
                        }
                    }
                    Ok(())
                })
            })?;
        }
        self.in_the_cache(&name)
    }

    /// What needs the network, with an apt that is gone afterwards.
    fn with_apt(&self, work: impl FnOnce(&Apt) -> Result<(), Error>) -> Result<(), Error> {
        fs::create_dir_all(&self.directory)?;
        let private = cache::scratch_beside(&self.directory.join("apt"))?;
        let done = Apt::open(self, &private).and_then(|apt| work(&apt));
        fs::remove_dir_all(&private)?;
        done
    }

    /// Unpacks packages into one tree and lists them.
    fn unpack(
        &self,
        apt: &Apt,
        name: &str,
        files: &[PathBuf],
        finish: impl FnOnce(&Path) -> Result<(), Error>,
    ) -> Result<(), Error> {
        cache::directory(&self.directory.join(name), |scratch| {
            for file in files {
                run(Command::new("dpkg-deb").arg("--extract").arg(file).arg(scratch))?;
            }
            finish(scratch)
        })?;
        let mut listing = String::new();
        for file in files {
            let format = "--showformat=${Package} ${Version} ${Architecture}\n";
            listing += &run(Command::new("dpkg-deb").arg("--show").arg(format).arg(file))?;
        }
        let scratch = apt.directory.join("listing");
        fs::write(&scratch, listing)?;
        fs::rename(&scratch, self.listing(name))?;
        Ok(())
    }
}

impl Unpacked {
    /// A file of the tree, by its path in the package.
    pub fn file(&self, path: &str) -> Result<PathBuf, Error> {
        let file = self.root.join(path);
        if file.is_file() { Ok(file) } else { Err(Error::Missing { what: path.into(), root: self.root.clone() }) }
    }
}

impl Kernel {
    /// Finds the image (`/boot/vmlinux-*`, `/boot/vmlinuz-*`, or `vmlinuz` beside the modules) and the modules.
    fn find(tree: Unpacked) -> Result<Kernel, Error> {
        let missing = |what: &str| Error::Missing { what: what.into(), root: tree.root.clone() };
        let modules = ["usr/lib/modules", "lib/modules"]
            .iter()
            .find_map(|directory| first(&tree.root.join(directory), ""))
            .ok_or_else(|| missing("lib/modules"))?;
        let image = first(&tree.root.join("boot"), "vmlinu")
            .or_else(|| first(&modules, "vmlinu"))
            .ok_or_else(|| missing("kernel image"))?;
        let release = modules.file_name().unwrap_or_default().to_string_lossy().into_owned();
        Ok(Kernel { release, image, modules, tree })
    }
}

/// The first entry of a directory whose name begins so.
fn first(directory: &Path, prefix: &str) -> Option<PathBuf> {
    let mut entries: Vec<PathBuf> = fs::read_dir(directory)
        .ok()?
        .filter_map(|entry| entry.ok().map(|entry| entry.path()))
        .filter(|path| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(prefix)))
        .collect();
    entries.sort();
    entries.into_iter().next()
}

/// apt with a state, a cache and a sources list of its own.
struct Apt {
    directory: PathBuf,
    options: Vec<String>,
}

impl Apt {
    fn open(archive: &Archive, directory: &Path) -> Result<Apt, Error> {
        for needed in ["state/lists/partial", "cache/archives/partial", "downloads"] {
            fs::create_dir_all(directory.join(needed))?;
        }
        fs::write(directory.join("status"), "")?;
        fs::write(
            directory.join("sources.list"),
            format!("deb [signed-by={KEYRING}] {} {} main\n", mirror(directory)?, archive.suite),
        )?;
        let path = |name: &str| directory.join(name).display().to_string();
        let options = [
            ("Dir::State", path("state")),
            ("Dir::State::status", path("status")),
            ("Dir::Cache", path("cache")),
            ("Dir::Etc::sourcelist", path("sources.list")),
            ("Dir::Etc::sourceparts", "/dev/null".into()),
            ("Dir::Etc::preferences", "/dev/null".into()),
            ("Dir::Etc::preferencesparts", "/dev/null".into()),
            ("APT::Architecture", archive.architecture.clone()),
            ("APT::Architectures", archive.architecture.clone()),
            ("APT::Sandbox::User", "root".into()),
            ("Acquire::Languages", "none".into()),
            ("Acquire::Retries", "3".into()),
            ("Acquire::IndexTargets::deb::DEP-11::DefaultEnabled", "false".into()),
        ];
        let options = options.iter().flat_map(|(name, value)| ["-o".into(), format!("{name}={value}")]).collect();
        let apt = Apt { directory: directory.into(), options };
        apt.run("apt-get", ["update", "--quiet"])?;
        Ok(apt)
    }

    fn run<I: AsRef<OsStr>>(&self, program: &str, arguments: impl IntoIterator<Item = I>) -> Result<String, Error> {
        run(Command::new(program).args(&self.options).args(arguments).current_dir(self.directory.join("downloads")))
    }

    /// `package`, and if it is one of the kernel's all others of the kernel that it depends on.
    fn closure(&self, package: &str) -> Result<Vec<String>, Error> {
        let mut closure = vec![package.to_owned()];
        let mut next = 0;
        while package.starts_with("linux-") && next < closure.len() {
            let depends = self.run("apt-cache", ["depends", "--important", &closure[next]])?;
            for name in kernel_dependencies(&depends) {
                if !closure.iter().any(|known| known == name) {
                    closure.push(name.into());
                }
            }
            next += 1;
        }
        Ok(closure)
    }

    /// The packages' files, in their order.
    fn download(&self, packages: &[String]) -> Result<Vec<PathBuf>, Error> {
        let mut files = Vec::new();
        for package in packages {
            self.run("apt-get", ["download", "--quiet", package])?;
            let downloads = self.directory.join("downloads");
            let file = first(&downloads, &format!("{package}_"))
                .ok_or_else(|| Error::Missing { what: package.clone(), root: downloads })?;
            files.push(file);
        }
        Ok(files)
    }

    /// The files of packages and of all that they depend on.
    fn download_with_dependencies(&self, packages: &[&str]) -> Result<Vec<PathBuf>, Error> {
        let words = ["install", "--quiet", "--yes", "--download-only", "--no-install-recommends"];
        self.run("apt-get", words.iter().chain(packages))?;
        let mut files: Vec<PathBuf> = fs::read_dir(self.directory.join("cache/archives"))?
            .filter_map(|entry| entry.ok().map(|entry| entry.path()))
            .filter(|path| path.extension().is_some_and(|extension| extension == "deb"))
            .collect();
        files.sort();
        Ok(files)
    }
}

/// The kernel's packages, and those of its source, in the answer of `apt-cache depends`.
///
/// `linux-base` is not one of them (it is a set of scripts), and neither is a choice (`|Depends`) or a virtual package
/// (`<name>`), of which an initramfs tool is the example.
fn kernel_dependencies(answer: &str) -> impl Iterator<Item = &str> {
    answer
        .lines()
        .filter_map(|line| line.strip_prefix("  Depends: ").or_else(|| line.strip_prefix("  PreDepends: ")))
        .filter(|name| {
            ["linux-image-", "linux-binary-", "linux-modules-", "linux-base-", "linux-source-"]
                .iter()
                .any(|prefix| name.starts_with(prefix))
        })
}

/// The mirror of Debian's main archive that the host's apt uses.
///
/// apt names the targets of those sources only of which it has the Release file. A host that never ran `apt-get update`
/// has none: then its sources are read into `private`, and the host is left as it is.
fn mirror(private: &Path) -> Result<String, Error> {
    let targets = |lists: &[String]| {
        run(Command::new("apt-get").args(lists).args([
            "indextargets",
            "--format",
            "$(CREATED_BY) $(COMPONENT) $(LABEL) $(REPO_URI)",
        ]))
    };
    if let Some(mirror) = mirror_among(&targets(&[])?) {
        return Ok(mirror);
    }
    let lists = private.join("host-lists");
    fs::create_dir_all(lists.join("partial"))?;
    let lists = ["-o".to_owned(), format!("Dir::State::lists={}", lists.display())];
    run(Command::new("apt-get").args(&lists).args(["-o", "APT::Sandbox::User=root", "update", "--quiet"]))?;
    mirror_among(&targets(&lists)?).ok_or(Error::NoMirror)
}

/// The label `Debian` is the archive's own word for itself; a mirror that has rewritten it is known by its path.
fn mirror_among(targets: &str) -> Option<String> {
    let candidates = || {
        targets.lines().filter_map(|line| {
            let (label, uri) = line.strip_prefix("Packages main ")?.rsplit_once(' ')?;
            Some((label, uri))
        })
    };
    candidates()
        .find(|(label, _)| *label == "Debian")
        .or_else(|| candidates().find(|(_, uri)| uri.trim_end_matches('/').ends_with("/debian")))
        .map(|(_, uri)| uri.to_owned())
}

/// The packages that the host must have, such as a cross compiler: installs the missing ones where we are root.
pub fn require_host_packages(packages: &[&str]) -> Result<(), Error> {
    let missing: Vec<&str> = packages.iter().copied().filter(|package| !is_installed(package)).collect();
    if missing.is_empty() {
        return Ok(());
    }
    if fs::metadata("/proc/self")?.uid() != 0 {
        return Err(Error::HostPackages(missing.join(" ")));
    }
    let install = || {
        run(Command::new("apt-get")
            .env("DEBIAN_FRONTEND", "noninteractive")
            .args(["install", "--yes", "--quiet", "--no-install-recommends", "-o", "DPkg::Lock::Timeout=600"])
            .args(&missing))
    };
    if install().is_err() {
        run(Command::new("apt-get").args(["update", "--quiet"]))?;
        install()?;
    }
    Ok(())
}

fn is_installed(package: &str) -> bool {
    run(Command::new("dpkg-query").args(["--show", "--showformat=${db:Status-Status}", package]))
        .is_ok_and(|status| status == "installed")
}

/// Runs a tool of the host in the C locale and gives back what it printed.
pub(crate) fn run(command: &mut Command) -> Result<String, Error> {
    let program = || {
        let words = std::iter::once(command.get_program()).chain(command.get_args());
        words.map(OsStr::to_string_lossy).collect::<Vec<_>>().join(" ")
    };
    let program = program();
    let name = || program.split(' ').next().unwrap_or_default().to_owned();
    let output = command
        .env("LC_ALL", "C")
        .stdin(Stdio::null())
        .output()
        .map_err(|source| Error::Run { program: name(), source })?;
    if !output.status.success() {
        return Err(Error::Failed {
            program,
            status: output.status.to_string(),
            stderr: String::from_utf8_lossy(&output.stderr).trim().to_owned(),
        });
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_metapackage_leads_to_the_kernel_and_nothing_else() {
        let one = "linux-image-6.12.1+deb13-riscv64\n  PreDepends: linux-base\n  Depends: kmod\n |Depends: initramfs-tools\n  Depends: <linux-initramfs-tool>\n    dracut\n";
        assert_eq!(kernel_dependencies(one).count(), 0);
        let split = "linux-image-7.2.1-riscv64\n |Depends: dracut\n  Depends: linux-base-7.2.1-riscv64\n  Depends: linux-binary-7.2.1-riscv64\n  Depends: linux-modules-7.2.1-riscv64\n";
        let names: Vec<&str> = kernel_dependencies(split).collect();
        assert_eq!(names, ["linux-base-7.2.1-riscv64", "linux-binary-7.2.1-riscv64", "linux-modules-7.2.1-riscv64"]);
    }

    #[test]
    fn the_mirror_is_the_one_of_the_main_archive() {
        let with_labels = "Packages main Debian-Security http://mirror.invalid/debian-security/\nComponents-amd64 main Debian http://mirror.invalid/a/\nPackages main Debian http://mirror.invalid/main/\nPackages main artifacts https://other.invalid/debian/\n";
        assert_eq!(mirror_among(with_labels).as_deref(), Some("http://mirror.invalid/main/"));
        let without = "Packages main $(LABEL) http://mirror.invalid/debian-security/\nPackages main $(LABEL) http://mirror.invalid/debian/\n";
        assert_eq!(mirror_among(without).as_deref(), Some("http://mirror.invalid/debian/"));
        assert_eq!(mirror_among("Packages contrib Debian http://mirror.invalid/debian/\n"), None);
    }

    #[test]
    fn the_cache_answers_without_the_network() {
        let cache = tempfile::tempdir().unwrap();
        let archive = Archive::in_cache(cache.path(), Suite::Sid, "riscv64");
        let root = cache.path().join("sid-riscv64/linux-image-riscv64");
        fs::create_dir_all(root.join("usr/lib/modules/7.2.1-riscv64")).unwrap();
        fs::write(root.join("usr/lib/modules/7.2.1-riscv64/vmlinuz"), "image").unwrap();
        fs::write(archive.listing("linux-image-riscv64"), "linux-binary-7.2.1-riscv64 7.2.1-1 riscv64\n").unwrap();
        let kernel = archive.kernel().unwrap();
        assert_eq!(kernel.release, "7.2.1-riscv64");
        assert_eq!(fs::read_to_string(kernel.image).unwrap(), "image");
        assert_eq!(kernel.tree.packages, ["linux-binary-7.2.1-riscv64 7.2.1-1 riscv64"]);
    }

    #[test]
    fn suites_have_names() {
        assert_eq!("sid".parse::<Suite>().unwrap(), Suite::Sid);
        assert_eq!(Suite::Trixie.to_string().parse::<Suite>().unwrap(), Suite::Trixie);
        assert!(matches!("buzz".parse::<Suite>(), Err(Error::UnknownSuite(name)) if name == "buzz"));
    }
}
