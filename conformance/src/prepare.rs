//! Boot files: a kernel of Debian, an initial RAM file system around it, and firmware.

use std::fs;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use crate::debian::{self, Archive, Kernel, Suite, Unpacked};
use crate::grub;
use crate::guests::{AMD64_INIT, AMD64_KVM_CLIENT, RISCV64_INIT, RISCV64_KVM_CLIENT};
use crate::initramfs::Initramfs;
use crate::modules::{self, Modules};
use crate::root_disk;

/// The modules that the riscv64 guest loads unless it is told otherwise.
pub const RISCV64_MODULES: &[&str] = &["kvm", "virtio_mmio", "virtio_blk", "virtio_net", "virtio_rng"];

/// The modules that the amd64 guest loads unless it is told otherwise.
pub const AMD64_MODULES: &[&str] = &["virtio_pci", "virtio_mmio", "virtio_blk", "virtio_net", "virtio_rng"];

/// The modules of which the amd64 guest loads one, with what it needs, where its processor has VMX or SVM and KVM is asked for.
const AMD64_HYPERVISORS: [&str; 2] = ["kvm_intel", "kvm_amd"];

/// The modules of the file system of a virtual-machine monitor's disk; of checksums, whichever the kernel has.
const AMD64_ROOT_DISK: [&str; 2] = ["crc32c_generic", "ext4"];

/// The modules that KVM's selftests need.
const AMD64_SELFTESTS: [&str; 1] = ["msr"];

/// The modules that Xen's tools need in its first domain.
const AMD64_XEN: [&str; 4] = ["xen_evtchn", "xen_gntdev", "xen_privcmd", "xenfs"];

/// The modules that the amd64 guest loads, with what they need, where a device is given to a guest of KVM.
const AMD64_VFIO: [&str; 2] = ["vfio_iommu_type1", "vfio_pci"];

/// The commands of busybox that have a name in `/bin`.
const COMMANDS: &[&str] = &[
    "ash",
    "awk",
    "base64",
    "basename",
    "cat",
    "chmod",
    "clear",
    "cmp",
    "cp",
    "cttyhack",
    "cut",
    "date",
    "dd",
    "devmem",
    "df",
    "dirname",
    "dmesg",
    "du",
    "echo",
    "env",
    "expr",
    "false",
    "find",
    "free",
    "grep",
    "halt",
    "head",
    "hexdump",
    "hostname",
    "id",
    "ifconfig",
    "insmod",
    "ip",
    "kill",
    "ln",
    "ls",
    "lsmod",
    "md5sum",
    "mkdir",
    "mknod",
    "mount",
    "mv",
    "nc",
    "nproc",
    "od",
    "ping",
    "poweroff",
    "printf",
    "ps",
    "pwd",
    "reboot",
    "rm",
    "rmdir",
    "rmmod",
    "route",
    "sed",
    "seq",
    "setsid",
    "sh",
    "sha256sum",
    "sleep",
    "sort",
    "stat",
    "stty",
    "sync",
    "sysctl",
    "tail",
    "taskset",
    "tee",
    "test",
    "time",
    "timeout",
    "top",
    "touch",
    "tr",
    "true",
    "udhcpc",
    "umount",
    "uname",
    "uniq",
    "uptime",
    "vi",
    "wc",
    "wget",
    "which",
    "xargs",
    "xxd",
    "yes",
];

/// Why the boot files cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A package.
    #[error(transparent)]
    Debian(#[from] debian::Error),
    /// A kernel module.
    #[error(transparent)]
    Modules(#[from] modules::Error),
    /// The file system.
    #[error("{path}: {source}", path = path.display())]
    Io {
        /// Which file or directory.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// What goes into the boot files of [`riscv64`].
#[derive(Clone, Debug)]
pub struct Options {
    /// Modules for the guest to load, with what they need.
    pub modules: Vec<String>,
    /// Whether the initial RAM file system is compressed, which saves space and costs the guest time.
    pub gzip: bool,
    /// Whether the cache is emptied first, so that the newest packages are fetched.
    pub refresh: bool,
}

impl Options {
    /// These modules; nothing compressed, and what is in the cache is used.
    pub fn with(modules: &[&str]) -> Options {
        Options { modules: modules.iter().map(|name| (*name).to_owned()).collect(), gzip: false, refresh: false }
    }
}

/// Files that boots of a machine need.
pub trait Prepared: Sized {
    /// Prepares them in a directory, with a suite's kernel.
    fn make(suite: Suite, out: &Path) -> Result<Self, Error>;

    /// The files as that has left them in a directory.
    fn at(dir: &Path) -> Self;
}

/// The files to start a riscv64 machine from.
#[derive(Clone, Debug)]
pub struct Riscv64 {
    /// The kernel, uncompressed.
    pub image: PathBuf,
    /// The initial RAM file system.
    pub initrd: PathBuf,
    /// OpenSBI that is told the next stage's address in a2.
    pub fw_dynamic: PathBuf,
    /// OpenSBI that jumps to a fixed address.
    pub fw_jump: PathBuf,
    /// `uname -r`.
    pub release: String,
}

impl Prepared for Riscv64 {
    fn make(suite: Suite, out: &Path) -> Result<Self, Error> {
        riscv64(suite, out, &Options::with(RISCV64_MODULES))
    }

    fn at(dir: &Path) -> Self {
        let file = |name: &str| dir.join(name);
        Riscv64 {
            image: file("Image"),
            initrd: file("initrd.cpio"),
            fw_dynamic: file("fw_dynamic.bin"),
            fw_jump: file("fw_jump.bin"),
            release: String::new(),
        }
    }
}

/// Makes `Image`, `initrd.cpio` (`initrd.cpio.gz`), `fw_{dynamic,jump}.{bin,elf}` and `packages.txt` in `out`.
pub fn riscv64(suite: Suite, out: &Path, options: &Options) -> Result<Riscv64, Error> {
    let archive = Archive::new(suite, "riscv64");
    if options.refresh {
        archive.forget()?;
    }
    archive.fetch(&["linux-image-riscv64", "opensbi", "busybox-static"])?;
    let kernel = archive.kernel()?;
    let opensbi = archive.unpacked("opensbi")?;
    let busybox = archive.unpacked("busybox-static")?;

    let mut fs = initramfs(&kernel, &busybox, RISCV64_INIT, &options.modules)?;
    fs.file("/bin/kvm_client", 0o755, RISCV64_KVM_CLIENT.bytes()?);
    let initrd = write_initramfs(&fs, out, options.gzip)?;
    let image = out.join("Image");
    write(&image, &uncompressed(&kernel.image)?)?;
    for name in ["fw_dynamic.bin", "fw_dynamic.elf", "fw_jump.bin", "fw_jump.elf"] {
        let firmware = opensbi.file(&format!("usr/lib/riscv64-linux-gnu/opensbi/generic/{name}"))?;
        write(&out.join(name), &read(&firmware)?)?;
    }
    let packages = [&kernel.tree, &opensbi, &busybox].map(|tree| tree.packages.join("\n")).join("\n");
    write(&out.join("packages.txt"), format!("{packages}\n").as_bytes())?;
    Ok(Riscv64 {
        image,
        initrd,
        fw_dynamic: out.join("fw_dynamic.bin"),
        fw_jump: out.join("fw_jump.bin"),
        release: kernel.release,
    })
}

/// The files to start an amd64 machine from.
#[derive(Clone, Debug)]
pub struct Amd64 {
    /// The kernel, a bzImage.
    pub image: PathBuf,
    /// The initial RAM file system.
    pub initrd: PathBuf,
    /// SeaBIOS of 256 KiB.
    pub seabios: PathBuf,
    /// OVMF's code.
    pub ovmf: PathBuf,
    /// OVMF's code with Secure Boot, which requires system management mode.
    pub ovmf_secure: PathBuf,
    /// OVMF's variables.
    pub ovmf_variables: PathBuf,
    /// A disk with the kernel and GRUB, for BIOS and UEFI.
    pub disk: PathBuf,
    /// A disk with a root file system that has QEMU, Xen's tools where the suite has Xen, and this kernel and initial RAM file system in `/boot`.
    pub root_disk: PathBuf,
    /// Xen, uncompressed; where the suite has one.
    pub xen: Option<PathBuf>,
    /// `uname -r`.
    pub release: String,
}

impl Prepared for Amd64 {
    fn make(suite: Suite, out: &Path) -> Result<Self, Error> {
        amd64(suite, "linux-image-amd64", out, &Options::with(AMD64_MODULES))
    }

    fn at(dir: &Path) -> Self {
        let file = |name: &str| dir.join(name);
        Amd64 {
            image: file("vmlinuz"),
            initrd: file("initrd.cpio"),
            seabios: file("bios-256k.bin"),
            ovmf: file("OVMF_CODE_4M.fd"),
            ovmf_secure: file("OVMF_CODE_4M.secboot.fd"),
            ovmf_variables: file("OVMF_VARS_4M.fd"),
            disk: file("grub.img"),
            root_disk: file("root.img"),
            xen: Some(file("xen")).filter(|xen| xen.is_file()),
            release: String::new(),
        }
    }
}

/// The packages of Xen's hypervisor and of its tools, in the suites whose we take.
fn xen_packages(suite: Suite) -> Option<[&'static str; 3]> {
    (suite == Suite::Trixie).then_some(["xen-hypervisor-4.20-amd64", "xen-utils-4.20", "qemu-system-xen"])
}

/// Makes `vmlinuz`, `initrd.cpio` (`initrd.cpio.gz`), `bios-256k.bin`, `OVMF_{CODE,VARS}_4M.fd`, `OVMF_CODE_4M.secboot.fd`, `grub.img`, `root.img`,
/// `xen` and `packages.txt` in `out`. The kernel is what `metapackage` stands for: `linux-image-amd64` or `linux-image-cloud-amd64`.
pub fn amd64(suite: Suite, metapackage: &str, out: &Path, options: &Options) -> Result<Amd64, Error> {
    let archive = Archive::new(suite, "amd64");
    if options.refresh {
        archive.forget()?;
    }
    let mut packages = vec![metapackage, "busybox-static"];
    packages.extend(xen_packages(suite).map(|[hypervisor, ..]| hypervisor));
    archive.fetch(&packages)?;
    let kernel = archive.kernel_of(metapackage)?;
    let busybox = archive.unpacked("busybox-static")?;
    // Firmware is that of the stable suite: unstable has OVMF in other packages.
    let stable = Archive::new(Suite::Trixie, "amd64");
    stable.fetch(&["seabios", "ovmf"])?;
    let (seabios, ovmf) = (stable.unpacked("seabios")?, stable.unpacked("ovmf")?);
    let xen = xen_packages(suite).map(|[hypervisor, ..]| archive.unpacked(hypervisor)).transpose()?;

    let mut fs = initramfs(&kernel, &busybox, AMD64_INIT, &options.modules)?;
    for hypervisor in AMD64_HYPERVISORS {
        add_modules(&mut fs, &kernel, &[hypervisor], &format!("/{hypervisor}.order"))?;
    }
    add_modules(&mut fs, &kernel, &AMD64_VFIO, "/vfio.order")?;
    let modules = Modules::open(&kernel.modules)?;
    let root_disk: Vec<&str> = AMD64_ROOT_DISK.into_iter().filter(|name| modules.has(name)).collect();
    add_modules(&mut fs, &kernel, &root_disk, "/root_disk.order")?;
    add_modules(&mut fs, &kernel, &AMD64_XEN, "/xen.order")?;
    fs.file("/bin/kvm_client", 0o755, AMD64_KVM_CLIENT.bytes()?);
    let initrd = write_initramfs(&fs, out, options.gzip)?;
    write(&out.join("vmlinuz"), &read(&kernel.image)?)?;
    for (tree, path) in [
        (&seabios, "usr/share/seabios/bios-256k.bin"),
        (&ovmf, "usr/share/OVMF/OVMF_CODE_4M.fd"),
        (&ovmf, "usr/share/OVMF/OVMF_CODE_4M.secboot.fd"),
        (&ovmf, "usr/share/OVMF/OVMF_VARS_4M.fd"),
    ] {
        let file = tree.file(path)?;
        write(&out.join(file.file_name().unwrap_or_default()), &read(&file)?)?;
    }
    let files = Amd64 { initrd, release: kernel.release, ..Amd64::at(out) };
    grub::write_disk(&files.disk, &files.image, &files.initrd)?;
    let tools: Vec<_> = ["qemu-system-x86"]
        .into_iter()
        .chain(xen_packages(suite).into_iter().flat_map(|[_, tools @ ..]| tools))
        .collect();
    let root = archive.root("vmm", &tools)?;
    root_disk::write(&files.root_disk, &root, &[&files.image, &files.initrd])?;
    let mut trees = vec![&kernel.tree, &busybox, &seabios, &ovmf, &root];
    if let Some(tree) = &xen {
        let image = tree.file("boot/xen-4.20-amd64.gz")?;
        write(&out.join("xen"), &uncompressed(&image)?)?;
        trees.push(tree);
    }
    let packages: Vec<_> = trees.iter().map(|tree| tree.packages.join("\n")).collect();
    write(&out.join("packages.txt"), format!("{}\n", packages.join("\n")).as_bytes())?;
    Ok(Amd64 { xen: Amd64::at(out).xen, ..files })
}

/// The files to start an amd64 machine from by its kernel's own entry: the kernel and the initial RAM file system, with the modules of KVM alone
/// and with these programs, each by its path and where it stands.
pub(crate) fn amd64_with_programs(
    suite: Suite,
    out: &Path,
    programs: &[(String, PathBuf)],
) -> Result<(PathBuf, PathBuf), Error> {
    let archive = Archive::new(suite, "amd64");
    let (kernel, busybox) = (archive.kernel()?, archive.unpacked("busybox-static")?);
    let mut fs = initramfs(&kernel, &busybox, AMD64_INIT, &[])?;
    for hypervisor in AMD64_HYPERVISORS {
        add_modules(&mut fs, &kernel, &[hypervisor], &format!("/{hypervisor}.order"))?;
    }
    add_modules(&mut fs, &kernel, &AMD64_SELFTESTS, "/selftests.order")?;
    for (path, program) in programs {
        fs.file(path, 0o755, read(program)?);
    }
    let initrd = write_initramfs(&fs, out, false)?;
    let image = out.join("vmlinuz");
    write(&image, &read(&kernel.image)?)?;
    Ok((image, initrd))
}

/// A file system with busybox, a first process and modules.
fn initramfs(kernel: &Kernel, busybox: &Unpacked, init: &str, modules: &[String]) -> Result<Initramfs, Error> {
    let names: Vec<&str> = modules.iter().map(String::as_str).collect();
    let mut fs = Initramfs::new();
    fs.character_device("/dev/console", 5, 1).character_device("/dev/null", 1, 3);
    fs.directory("/proc").directory("/sys").directory("/tmp").directory("/mnt").directory("/etc");
    fs.file("/bin/busybox", 0o755, read(&busybox.file("usr/bin/busybox")?)?);
    for command in COMMANDS {
        fs.symlink(&format!("/bin/{command}"), "busybox");
    }
    fs.file("/init", 0o755, init);
    add_modules(&mut fs, kernel, &names, "/modules.order")?;
    Ok(fs)
}

/// Adds modules with what they need, and a file that lists them in the order in which they have to be loaded.
fn add_modules(fs: &mut Initramfs, kernel: &Kernel, names: &[&str], list: &str) -> Result<(), Error> {
    let mut order = String::new();
    for module in Modules::open(&kernel.modules)?.in_load_order(names)? {
        order += &format!("{}.ko\n", module.name);
        fs.file(&format!("/lib/modules/{}.ko", module.name), 0o644, module.elf);
    }
    fs.file(list, 0o644, order);
    Ok(())
}

/// Writes a file system into a directory, which is made; returns its path.
fn write_initramfs(fs: &Initramfs, out: &Path, is_compressed: bool) -> Result<PathBuf, Error> {
    fs::create_dir_all(out).map_err(|source| Error::Io { path: out.into(), source })?;
    let cpio = fs.to_cpio();
    let (name, bytes) = if is_compressed { ("initrd.cpio.gz", gzip(&cpio)) } else { ("initrd.cpio", cpio) };
    let initrd = out.join(name);
    write(&initrd, &bytes)?;
    Ok(initrd)
}

/// Some architectures' images are gzip files.
fn uncompressed(image: &Path) -> Result<Vec<u8>, Error> {
    let data = read(image)?;
    if !data.starts_with(&[0x1f, 0x8b]) {
        return Ok(data);
    }
    let mut plain = Vec::new();
    flate2::read::GzDecoder::new(data.as_slice())
        .read_to_end(&mut plain)
        .map_err(|source| Error::Io { path: image.into(), source })?;
    Ok(plain)
}

/// The same bytes at any time: the header has no time stamp.
fn gzip(data: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    encoder.write_all(data).and_then(|()| encoder.finish()).expect("writing to memory does not fail")
}

pub(crate) fn read(path: &Path) -> Result<Vec<u8>, Error> {
    fs::read(path).map_err(|source| Error::Io { path: path.into(), source })
}

pub(crate) fn write(path: &Path, data: &[u8]) -> Result<(), Error> {
    fs::write(path, data).map_err(|source| Error::Io { path: path.into(), source })
}
