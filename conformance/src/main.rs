//! Prepares the real inputs of the machines from the command line.

use std::path::PathBuf;

use clap::{Parser, Subcommand};
use undervisor_conformance::debian::{Archive, Suite};
use undervisor_conformance::{axvcpu, boots, cache, kvm_selftests, pc_boots, prepare, suite};

/// Real inputs of the machines: kernels, firmware, guests.
#[derive(Parser)]
#[command(version)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Packages of Debian, unpacked in the cache; prints their versions and where each one stands
    Fetch {
        /// Debian's suite: trixie or sid
        #[arg(long, default_value = "trixie")]
        suite: Suite,
        /// Debian's name of the architecture
        #[arg(long, default_value = "riscv64")]
        architecture: String,
        /// The packages; `linux-image-<architecture>` brings the kernel that it depends on
        #[arg(required = true)]
        packages: Vec<String>,
    },
    /// Boots Debian's kernels with KVM and its guest
    Boots {
        /// The program under test
        #[arg(long, default_value = "target/release/undervisor")]
        undervisor: PathBuf,
        /// Where files and consoles go [default: boots in the cache]
        #[arg(long)]
        out: Option<PathBuf>,
        /// Where `prepare-riscv64` has put the files of each suite already
        #[arg(long)]
        prepared: Option<PathBuf>,
        /// Every combination, not a pairwise cover
        #[arg(long)]
        full: bool,
        /// Also write the outcome as JUnit's XML
        #[arg(long)]
        junit: Option<PathBuf>,
    },
    /// Boots Debian's amd64 kernels on the pc machine
    PcBoots {
        /// The program under test
        #[arg(long, default_value = "target/release/undervisor")]
        undervisor: PathBuf,
        /// Where files and consoles go [default: pc-boots in the cache]
        #[arg(long)]
        out: Option<PathBuf>,
        /// Where `prepare-amd64` has put the files of each suite already
        #[arg(long)]
        prepared: Option<PathBuf>,
        /// Only boots with this in their names; `determinism` stands for the checks of that
        #[arg(long, default_value = "")]
        filter: String,
        /// Every combination with KVM, and nothing else
        #[arg(long)]
        full_with_kvm: bool,
        /// Also write the outcome as JUnit's XML
        #[arg(long)]
        junit: Option<PathBuf>,
    },
    /// Builds a hypervisor around AxVisor's published crates, and runs it on the pc machine
    Axvcpu {
        /// The program under test
        #[arg(long, default_value = "target/release/undervisor")]
        undervisor: PathBuf,
        /// The hypervisor's folder
        #[arg(long, default_value = "conformance/guests/axvcpu")]
        source: PathBuf,
        /// Where consoles go [default: axvcpu in the cache]
        #[arg(long)]
        out: Option<PathBuf>,
        /// Also write the outcome as JUnit's XML
        #[arg(long)]
        junit: Option<PathBuf>,
    },
    /// KVM's selftests, from the sources of Debian's kernels, on those kernels on the pc machine
    KvmSelftests {
        /// The program under test
        #[arg(long, default_value = "target/release/undervisor")]
        undervisor: PathBuf,
        /// Only on this suite's kernel [default: trixie's, with the tests of both suites, and sid's]
        #[arg(long)]
        suite: Option<Suite>,
        /// The model of the processor: intel or amd
        #[arg(long, default_value = "intel")]
        cpu: kvm_selftests::Cpu,
        /// Only tests with one of these in their names
        #[arg(long, value_delimiter = ',', default_value = "")]
        filter: Vec<String>,
        /// Where files and consoles go [default: kvm-selftests-runs in the cache]
        #[arg(long)]
        out: Option<PathBuf>,
        /// Also write the outcome as JUnit's XML
        #[arg(long)]
        junit: Option<PathBuf>,
    },
    /// Kernel, initial RAM file system, firmware and hypervisor of an amd64 machine
    PrepareAmd64 {
        /// Debian's suite: trixie or sid
        #[arg(long, default_value = "trixie")]
        suite: Suite,
        /// Where the files go [default: boot/<suite>-amd64 in the cache]
        #[arg(long)]
        out: Option<PathBuf>,
        /// The metapackage of the kernel
        #[arg(long, default_value = "linux-image-amd64")]
        kernel: String,
        /// Modules that the guest loads, with what they need
        #[arg(long, value_delimiter = ',', default_values = prepare::AMD64_MODULES)]
        modules: Vec<String>,
        /// Compress the initial RAM file system
        #[arg(long)]
        gzip: bool,
        /// Fetch the newest packages, whatever the cache has
        #[arg(long)]
        refresh: bool,
    },
    /// Kernel, initial RAM file system and firmware of a riscv64 machine
    PrepareRiscv64 {
        /// Debian's suite: trixie or sid
        #[arg(long, default_value = "trixie")]
        suite: Suite,
        /// Where the files go [default: boot/<suite>-riscv64 in the cache]
        #[arg(long)]
        out: Option<PathBuf>,
        /// Modules that the guest loads, with what they need
        #[arg(long, value_delimiter = ',', default_values = prepare::RISCV64_MODULES)]
        modules: Vec<String>,
        /// Compress the initial RAM file system
        #[arg(long)]
        gzip: bool,
        /// Fetch the newest packages, whatever the cache has
        #[arg(long)]
        refresh: bool,
    },
}

fn main() -> anyhow::Result<()> {
    match Arguments::parse().command {
        Command::Fetch { suite, architecture, packages } => {
            let archive = Archive::new(suite, &architecture);
            let packages: Vec<&str> = packages.iter().map(String::as_str).collect();
            archive.fetch(&packages)?;
            for package in packages {
                let unpacked = archive.unpacked(package)?;
                println!("{}\n    {}", unpacked.root.display(), unpacked.packages.join("\n    "));
            }
        }
        Command::Boots { undervisor, out, prepared, full, junit } => {
            let out = out.unwrap_or_else(|| cache::root().join("boots"));
            let files = boots::Files::prepare(&undervisor, &out, prepared.as_deref())?;
            let matrix = if full { boots::full() } else { boots::pairwise() };
            let mut outcomes = files.run_all(&matrix);
            outcomes.extend(files.determinism());
            print!("{}", suite::table(&outcomes));
            if let Some(path) = junit {
                std::fs::write(path, suite::junit("boots", &outcomes))?;
            }
            anyhow::ensure!(suite::counts(&outcomes)[1] == 0, "a boot failed");
        }
        Command::PcBoots { undervisor, out, prepared, filter, full_with_kvm, junit } => {
            let out = out.unwrap_or_else(|| cache::root().join("pc-boots"));
            let files = pc_boots::Files::prepare(&undervisor, &out, prepared.as_deref())?;
            let all = if full_with_kvm { pc_boots::full_with_kvm() } else { pc_boots::all() };
            let boots: Vec<_> = all.into_iter().filter(|b| b.name().contains(&filter)).collect();
            let mut outcomes = files.run_all(&boots);
            if "determinism".contains(&filter) && !full_with_kvm {
                outcomes.extend(files.determinism());
            }
            print!("{}", suite::table(&outcomes));
            if let Some(path) = junit {
                std::fs::write(path, suite::junit("pc-boots", &outcomes))?;
            }
            anyhow::ensure!(suite::counts(&outcomes)[1] == 0, "a boot failed");
        }
        Command::Axvcpu { undervisor, source, out, junit } => {
            let out = out.unwrap_or_else(|| cache::root().join("axvcpu"));
            let outcomes = axvcpu::run(&undervisor, &source, &out)?;
            print!("{}", suite::table(&outcomes));
            if let Some(path) = junit {
                std::fs::write(path, suite::junit("axvcpu", &outcomes))?;
            }
            anyhow::ensure!(suite::counts(&outcomes)[1] == 0, "a run failed");
        }
        Command::KvmSelftests { undervisor, suite, cpu, filter, out, junit } => {
            let out = out.unwrap_or_else(|| cache::root().join("kvm-selftests-runs"));
            let files = kvm_selftests::Files::prepare(&undervisor, &out, None)?;
            let mut tests = kvm_selftests::all(cpu)?;
            tests.retain(|test| test.is_selected(suite, &filter));
            let outcomes = files.run_selftests(&tests);
            print!("{}", kvm_selftests::table(&outcomes));
            if let Some(path) = junit {
                std::fs::write(path, suite::junit("kvm-selftests", &outcomes))?;
            }
            anyhow::ensure!(suite::counts(&outcomes)[1] == 0, "a test failed");
        }
        Command::PrepareAmd64 { suite, out, kernel, modules, gzip, refresh } => {
            let out = out.unwrap_or_else(|| cache::root().join(format!("boot/{suite}-amd64")));
            let made = prepare::amd64(suite, &kernel, &out, &prepare::Options { modules, gzip, refresh })?;
            println!("{} {} {}", made.release, made.image.display(), made.initrd.display());
        }
        Command::PrepareRiscv64 { suite, out, modules, gzip, refresh } => {
            let out = out.unwrap_or_else(|| cache::root().join(format!("boot/{suite}-riscv64")));
            let made = prepare::riscv64(suite, &out, &prepare::Options { modules, gzip, refresh })?;
            println!("{} {} {}", made.release, made.image.display(), made.initrd.display());
        }
    }
    Ok(())
}
