//! KVM's selftests, built from the package with the source of a suite's kernel.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::debian::{self, Archive, Error, Suite, require_host_packages};
use crate::{cache, suite};

/// What the selftests need of the kernel's source, themselves included.
const MEMBERS: [&str; 13] = [
    "scripts/subarch.include",
    "tools/arch/x86/include",
    "tools/build",
    "tools/include",
    "tools/lib/rbtree.c",
    "tools/scripts",
    "tools/testing/selftests/cgroup",
    "tools/testing/selftests/clone3",
    "tools/testing/selftests/kselftest.h",
    "tools/testing/selftests/kselftest_harness.h",
    "tools/testing/selftests/kvm",
    "tools/testing/selftests/lib.mk",
    "tools/testing/selftests/rseq",
];

/// The host's tools that unpack and build them.
const HOST_PACKAGES: [&str; 4] = ["gcc", "libc6-dev", "make", "xz-utils"];

/// The tests of x86 of a suite, each in a file of its name; static and without symbols. They stand in the cache, by the version of the source.
pub fn build(suite: Suite) -> Result<Vec<PathBuf>, Error> {
    let archive = Archive::new(suite, "amd64");
    archive.fetch(&["linux-source", "linux-libc-dev"])?;
    let source = archive.unpacked("linux-source")?;
    let headers = archive.unpacked("linux-libc-dev")?.root.canonicalize()?;
    let version = source.packages.last().and_then(|package| package.split(' ').nth(1)).unwrap_or_default();
    let built = cache::root().join(format!("kvm-selftests/{suite}-{version}"));
    let archives = suite::files(&source.root.join("usr/src"), |path| path.extension().is_some_and(|e| e == "xz"))?;
    let [tar] = archives.as_slice() else {
        return Err(Error::Missing { what: "linux-source-*.tar.xz".into(), root: source.root });
    };
    cache::directory::<Error>(&built, |scratch| {
        require_host_packages(&HOST_PACKAGES)?;
        let scratch = scratch.canonicalize()?;
        let tree = scratch.join("source");
        unpack(tar, &tree)?;
        std::os::unix::fs::symlink(headers.join("usr"), tree.join("usr"))?;
        make(&tree, &headers, &scratch)?;
        Ok(fs::remove_dir_all(tree)?)
    })?;
    Ok(suite::files(&built, |_| true)?)
}

/// Takes the members out of `linux-source-<version>.tar.xz`.
fn unpack(tar: &Path, tree: &Path) -> Result<(), Error> {
    let name = tar.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let top = name.trim_end_matches(".tar.xz");
    fs::create_dir(tree)?;
    let members = MEMBERS.map(|member| format!("{top}/{member}"));
    let mut command = Command::new("tar");
    command.args(["--extract", "--xz", "--strip-components=1", "--file"]).arg(tar).arg("--directory").arg(tree);
    debian::run(command.args(members)).map(drop)
}

/// Builds all tests of x86 with their own makefile, and puts them into `out`.
fn make(tree: &Path, headers: &Path, out: &Path) -> Result<(), Error> {
    let kvm = tree.join("tools/testing/selftests/kvm");
    // Linux 6.14 has renamed it.
    let x86 = ["x86", "x86_64"].into_iter().find(|name| kvm.join(name).is_dir());
    let x86 = x86.ok_or_else(|| Error::Missing { what: "x86".into(), root: kvm.clone() })?;
    let objects = tree.join("objects");
    fs::create_dir(&objects)?;
    let sources = suite::files(&kvm.join(x86), |path| path.extension().is_some_and(|e| e == "c"))?;
    let programs: Vec<_> = sources.iter().filter_map(|path| Some(objects.join(x86).join(path.file_stem()?))).collect();
    let jobs = std::thread::available_parallelism().map_or(1, usize::from);
    debian::run(
        Command::new("make")
            // In the environment it is added to, not replaced.
            .env("LDFLAGS", "-static -s")
            .args(["--silent", &format!("--jobs={jobs}"), "ARCH=x86"])
            .arg(format!("EXTRA_CFLAGS=-g0 -isystem {}", headers.join("usr/include/x86_64-linux-gnu").display()))
            .arg(format!("OUTPUT={}", objects.display()))
            .args(&programs)
            .current_dir(kvm),
    )?;
    programs.iter().try_for_each(|program| fs::rename(program, out.join(program.file_name().unwrap_or_default())))?;
    Ok(())
}
